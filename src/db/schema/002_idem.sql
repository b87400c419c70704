-- The idempotency store. Times are Unix epoch milliseconds. A row is the claim
-- or the record of an operation (identity, scope, key). It ends at ends_ms
-- (NULL: never), except in state sending: then its outcome is unknown from ends_ms on,
-- and it ends when the hold ends. doc/FORMATS.md explains every column.
CREATE TABLE waybill_idem(
    seq INTEGER PRIMARY KEY,
    version INTEGER NOT NULL DEFAULT 1,
    identity TEXT NOT NULL CHECK (length(identity) <= 255),
    scope TEXT NOT NULL CHECK (length(scope) <= 8191),
    key TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    -- Spelt out: of a list longer than two SQLite makes a table at each write.
    state TEXT NOT NULL CHECK (state = 'claimed' OR state = 'sending'
        OR state = 'done' OR state = 'unknown'),
    fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 16),
    token INTEGER NOT NULL,
    since_ms INTEGER NOT NULL,
    ends_ms INTEGER,
    ttl_ms INTEGER,
    status INTEGER CHECK (status BETWEEN 0 AND 65535),
    headers BLOB,
    body BLOB,
    CHECK (version <> 1 OR CASE state WHEN 'done'
        THEN status IS NOT NULL AND headers IS NOT NULL AND body IS NOT NULL
        ELSE ends_ms IS NOT NULL END)
) STRICT;

CREATE UNIQUE INDEX waybill_idem_key ON waybill_idem(identity, scope, key);
CREATE INDEX waybill_idem_ends ON waybill_idem(ends_ms)
    WHERE ends_ms IS NOT NULL;
