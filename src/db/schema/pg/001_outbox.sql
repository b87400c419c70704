-- The outbox on PostgreSQL: the tables of ../001_outbox.sql, column for column.
-- Names compare by bytes, as they do there. doc/FORMATS.md explains them.
CREATE TABLE waybill_meta(
    name text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

CREATE SEQUENCE waybill_outbox_seq;

CREATE TABLE waybill_outbox(
    seq bigint PRIMARY KEY DEFAULT nextval('waybill_outbox_seq'),
    id text COLLATE "C" NOT NULL CHECK (id ~
        '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'),
    kind text COLLATE "C" NOT NULL CHECK (kind ~ '^[a-z0-9_.-]{1,64}$'),
    status text COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (status IN
        ('pending', 'held', 'processing', 'abandoned', 'delivered')),
    due_ms bigint NOT NULL
        DEFAULT floor(extract(epoch FROM clock_timestamp()) * 1000),
    created_ms bigint NOT NULL
        DEFAULT floor(extract(epoch FROM clock_timestamp()) * 1000),
    attempts bigint NOT NULL DEFAULT 0 CHECK (
        attempts BETWEEN 0 AND 4000000000),
    token bigint,
    claimed_ms bigint,
    expires_ms bigint,
    scope text COLLATE "C",
    key text COLLATE "C" CHECK (length(key) BETWEEN 1 AND 255),
    lane text COLLATE "C" CHECK (length(lane) BETWEEN 1 AND 255),
    keep bigint NOT NULL DEFAULT 1,
    hash bytea,
    reason text,
    last_error text,
    content_type text,
    headers text,
    payload bytea NOT NULL
);
ALTER SEQUENCE waybill_outbox_seq OWNED BY waybill_outbox.seq;

CREATE UNIQUE INDEX waybill_outbox_id ON waybill_outbox(id);
CREATE UNIQUE INDEX waybill_outbox_key ON waybill_outbox(key)
    WHERE key IS NOT NULL;
CREATE INDEX waybill_outbox_ready ON waybill_outbox(kind, due_ms, seq)
    WHERE status IN ('pending', 'processing');
CREATE INDEX waybill_outbox_lane ON waybill_outbox(lane, seq)
    WHERE lane IS NOT NULL AND status NOT IN ('abandoned', 'delivered');
CREATE INDEX waybill_outbox_ended ON waybill_outbox(status, due_ms, seq)
    WHERE status IN ('abandoned', 'delivered');

-- Inserts and finishes of one lane run one after the other: the lane's lock is
-- held to the end of the transaction. A seq that was drawn before others of the
-- lane were committed is drawn again after the lock, or the lane would not be in
-- order. Each statement after the lock sees what was committed before it, which
-- needs READ COMMITTED.
CREATE FUNCTION waybill_lane(p_lane text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT LIKE 'read %' THEN
        RAISE EXCEPTION 'a message with a lane needs READ COMMITTED, not %',
            current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(
        p_lane, 'waybill_outbox'::regclass::oid::bigint));
END $$;

-- For every insert, also by SQL: a message behind another one of its lane is
-- held, outside the claim index.
CREATE FUNCTION waybill_hold() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    last bigint;
BEGIN
    PERFORM waybill_lane(NEW.lane);
    SELECT max(seq) INTO last FROM waybill_outbox WHERE lane = NEW.lane
        AND status NOT IN ('abandoned', 'delivered');
    IF last IS NOT NULL THEN
        NEW.status := 'held';
    END IF;
    IF last > NEW.seq THEN
        NEW.seq := nextval('waybill_outbox_seq');
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER waybill_outbox_hold BEFORE INSERT ON waybill_outbox
    FOR EACH ROW WHEN (NEW.lane IS NOT NULL) EXECUTE FUNCTION waybill_hold();

-- The head of a lane has ended: the next message becomes pending.
CREATE FUNCTION waybill_promote(p_lane text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM waybill_lane(p_lane);
    UPDATE waybill_outbox SET status = 'pending'
        WHERE status = 'held' AND seq = (SELECT min(seq) FROM waybill_outbox
            WHERE lane = p_lane
            AND status NOT IN ('abandoned', 'delivered'));
END $$;

-- An abandoned message is put back, at the tail of its lane.
CREATE FUNCTION waybill_rejoin(p_seq bigint, p_lane text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    PERFORM waybill_lane(p_lane);
    UPDATE waybill_outbox SET seq = nextval('waybill_outbox_seq'),
        status = CASE WHEN EXISTS (SELECT 1 FROM waybill_outbox o
            WHERE o.lane = p_lane AND o.lane IS NOT NULL AND o.seq <> p_seq
            AND o.status NOT IN ('abandoned', 'delivered'))
            THEN 'held' ELSE 'pending' END WHERE seq = p_seq;
END $$;

-- Only scopes that have failed have a row: without failures nothing is written.
CREATE TABLE waybill_breaker(
    scope text COLLATE "C" PRIMARY KEY,
    failures bigint NOT NULL,
    open_until_ms bigint NOT NULL DEFAULT 0,
    open_ms bigint NOT NULL DEFAULT 0,
    probe_token bigint,
    probe_until_ms bigint NOT NULL DEFAULT 0
);

CREATE TABLE waybill_paused(
    kind text COLLATE "C" PRIMARY KEY
);
