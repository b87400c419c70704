-- waybill_send(): send from any language, in the caller's own transaction.
-- doc/FORMATS.md explains it.

-- As wb__content_hash(): SHA-256 of the parts, each preceded by its length as
-- eight bytes, the lowest first.
CREATE FUNCTION waybill_hash(p_kind text, p_content_type text, p_lane text,
    p_payload bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(string_agg(set_byte(set_byte(set_byte(set_byte(
        '\x0000000000000000'::bytea, 0, length(part) & 255),
        1, length(part) >> 8 & 255), 2, length(part) >> 16 & 255),
        3, length(part) >> 24 & 255) || part, ''::bytea ORDER BY n))
    FROM unnest(ARRAY[convert_to(p_kind, 'UTF8'),
        convert_to(coalesce(nullif(p_content_type, 'application/json'), ''),
            'UTF8'),
        convert_to(coalesce(p_lane, ''), 'UTF8'),
        p_payload]) WITH ORDINALITY AS t(part, n)
$$;

-- Callers write the names of the parameters, kind => 'order.placed'; in the
-- queries here, a bare name is a column. It has the rights of the tables' owner:
-- a role that sends needs to execute it, and nothing else.
CREATE FUNCTION waybill_send(kind text, payload bytea,
    key text DEFAULT NULL, lane text DEFAULT NULL, id text DEFAULT NULL,
    due timestamptz DEFAULT NULL, expires timestamptz DEFAULT NULL,
    content_type text DEFAULT NULL, headers text DEFAULT NULL) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER AS $$
#variable_conflict use_column
DECLARE
    now_ms bigint := floor(extract(epoch FROM clock_timestamp()) * 1000);
    due_ms bigint := floor(extract(epoch FROM due) * 1000);
    ends_ms bigint := floor(extract(epoch FROM expires) * 1000);
    kept boolean := coalesce(id, key) IS NOT NULL;
    random text := replace(gen_random_uuid()::text, '-', '');
    clock text := lpad(to_hex(now_ms), 12, '0');
    new_id text := coalesce(lower(id), concat_ws('-', left(clock, 8),
        right(clock, 4), '7' || substr(random, 14, 3), substr(random, 17, 4),
        right(random, 12))); -- a UUIDv7, RFC 9562
    new_hash bytea := waybill_hash(kind, content_type, lane, payload);
    first record;
BEGIN
    IF kind !~ '^[a-z0-9_.-]{1,64}$' OR kind IS NULL THEN
        RAISE invalid_parameter_value USING MESSAGE =
            format('kind "%s": give 1 to 64 of a-z 0-9 _ . -', kind);
    ELSIF payload IS NULL THEN
        RAISE invalid_parameter_value USING MESSAGE = 'payload: give one';
    ELSIF new_id !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        RAISE invalid_parameter_value USING MESSAGE =
            format('id "%s" is not a UUID', id);
    ELSIF octet_length(key) NOT BETWEEN 1 AND 255 OR key ~ '[[:cntrl:]]'
        OR octet_length(lane) NOT BETWEEN 1 AND 255 OR lane ~ '[[:cntrl:]]'
        OR octet_length(content_type) NOT BETWEEN 1 AND 255
        OR content_type ~ '[[:cntrl:]]' THEN
        RAISE invalid_parameter_value USING MESSAGE = 'key, lane and '
            'content_type: give 1 to 255 bytes of printable text';
    ELSIF due_ms < 0 OR ends_ms <= coalesce(due_ms, now_ms) THEN
        RAISE invalid_parameter_value USING MESSAGE =
            'due, expires: the message expires before it is due';
    ELSIF octet_length(headers) > 16384
        OR headers !~ '^([!#-''*+.0-9A-Z^-z|~-]+:[^\x01-\x08\x0a-\x1f\x7f]*\n)*$'
    THEN
        RAISE invalid_parameter_value USING MESSAGE = 'headers: give lines '
            '"Name: value", each with a newline at its end';
    END IF;
    FOR attempt IN 1..3 LOOP
        IF kept THEN
            -- Remembered for long enough; as find_remembered().
            DELETE FROM waybill_outbox o USING waybill_meta m
                WHERE (o.id = new_id OR o.key = waybill_send.key)
                AND o.status = 'delivered' AND m.name = 'clock_trusted_ms'
                AND o.due_ms <= least(now_ms, m.value::bigint);
            SELECT count(*) AS rows, (array_agg(o.id
                ORDER BY o.key = waybill_send.key DESC NULLS LAST))[1] AS id,
                bool_and(
                o.kind = waybill_send.kind AND coalesce(new_hash = coalesce(
                    o.hash, CASE WHEN o.status <> 'delivered' THEN waybill_hash(
                        o.kind, o.content_type, o.lane, o.payload) END), true)
                ) AS same
                INTO first FROM waybill_outbox o
                WHERE o.id = new_id OR o.key = waybill_send.key;
            IF first.rows > 1 OR NOT first.same THEN
                RAISE unique_violation USING MESSAGE = format('the %s is '
                    'taken by message %s with other content; use another',
                    CASE WHEN key IS NULL THEN 'id' ELSE 'key' END, first.id);
            ELSIF first.rows = 1 THEN
                RETURN first.id;
            END IF;
        END IF;
        INSERT INTO waybill_outbox(id, kind, key, lane, due_ms, created_ms,
            expires_ms, keep, hash, content_type, headers, payload)
            VALUES (new_id, waybill_send.kind, waybill_send.key,
                waybill_send.lane, coalesce(due_ms, now_ms), now_ms, ends_ms,
                kept::int, CASE WHEN kept THEN new_hash END,
                waybill_send.content_type, waybill_send.headers,
                waybill_send.payload)
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            RETURN new_id;
        END IF;
    END LOOP;
    RAISE 'message % was not inserted: another program has put a trigger on '
        'waybill_outbox; drop it', new_id;
END $$;

CREATE FUNCTION waybill_send(kind text, payload text,
    key text DEFAULT NULL, lane text DEFAULT NULL, id text DEFAULT NULL,
    due timestamptz DEFAULT NULL, expires timestamptz DEFAULT NULL,
    content_type text DEFAULT NULL, headers text DEFAULT NULL) RETURNS text
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT AS $$
    SELECT waybill_send($1, convert_to($2, 'UTF8'), $3, $4, $5, $6, $7, $8, $9)
$$;

-- It finds the tables in their own schema alone, never those of a caller.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT p.oid FROM pg_proc p JOIN pg_class c
        ON c.relnamespace = p.pronamespace
        WHERE c.oid = 'waybill_outbox'::regclass
        AND p.proname IN ('waybill_send', 'waybill_hash') LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = %s, pg_temp', f,
            (SELECT relnamespace::regnamespace FROM pg_class
            WHERE oid = 'waybill_outbox'::regclass));
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END $$;
