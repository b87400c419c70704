-- The outbox. Times are Unix epoch milliseconds. doc/FORMATS.md explains every
-- column, for programs that insert by SQL; doc/STATES.md the values of status.
CREATE TABLE waybill_meta(
    name TEXT NOT NULL PRIMARY KEY,
    value ANY NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE waybill_outbox(
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL CHECK (instr(id, char(0)) = 0 AND id GLOB
        '[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]-[0-9a-f][0-9a-f][0-9a-f][0-9a-f]-[0-9a-f][0-9a-f][0-9a-f][0-9a-f]-[0-9a-f][0-9a-f][0-9a-f][0-9a-f]-[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]'),
    kind TEXT NOT NULL CHECK (
        length(kind) BETWEEN 1 AND 64 AND instr(kind, char(0)) = 0
        AND kind NOT GLOB '*[^a-z0-9_.-]*'),
    -- Spelt out: of a list longer than two SQLite makes a table at each write.
    status TEXT NOT NULL DEFAULT 'pending' CHECK (
        status = 'pending'
        OR status = 'held'
        OR status = 'processing'
        OR status = 'abandoned'
        OR status = 'delivered'),
    due_ms INTEGER NOT NULL DEFAULT (
        CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    created_ms INTEGER NOT NULL DEFAULT (
        CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)),
    attempts INTEGER NOT NULL DEFAULT 0 CHECK (
        attempts BETWEEN 0 AND 4000000000),
    token INTEGER,
    claimed_ms INTEGER,
    expires_ms INTEGER,
    scope TEXT,
    key TEXT CHECK (length(key) BETWEEN 1 AND 255 AND instr(key, char(0)) = 0),
    lane TEXT CHECK (length(lane) BETWEEN 1 AND 255 AND instr(lane, char(0)) = 0),
    keep INTEGER NOT NULL DEFAULT 1,
    hash BLOB,
    reason TEXT,
    last_error TEXT,
    content_type TEXT,
    headers TEXT,
    payload ANY NOT NULL CHECK (typeof(payload) IN ('blob', 'text'))
) STRICT;

CREATE UNIQUE INDEX waybill_outbox_id ON waybill_outbox(id);
CREATE UNIQUE INDEX waybill_outbox_key ON waybill_outbox(key)
    WHERE key IS NOT NULL;
CREATE INDEX waybill_outbox_ready ON waybill_outbox(kind, due_ms)
    WHERE status IN ('pending', 'processing');
CREATE INDEX waybill_outbox_lane ON waybill_outbox(lane)
    WHERE lane IS NOT NULL AND status NOT IN ('abandoned', 'delivered');
CREATE INDEX waybill_outbox_ended ON waybill_outbox(status, due_ms)
    WHERE status IN ('abandoned', 'delivered');

-- For every insert, also by SQL: a message behind another one of its lane is
-- held, outside the claim index.
CREATE TRIGGER waybill_outbox_hold AFTER INSERT ON waybill_outbox
WHEN NEW.lane IS NOT NULL AND EXISTS (
    SELECT 1 FROM waybill_outbox WHERE lane = NEW.lane AND seq <> NEW.seq
        AND lane IS NOT NULL AND status NOT IN ('abandoned', 'delivered'))
BEGIN
    UPDATE waybill_outbox SET status = 'held' WHERE seq = NEW.seq;
END;

-- Only scopes that have failed have a row: without failures nothing is written.
CREATE TABLE waybill_breaker(
    scope TEXT NOT NULL PRIMARY KEY,
    failures INTEGER NOT NULL,
    open_until_ms INTEGER NOT NULL DEFAULT 0,
    open_ms INTEGER NOT NULL DEFAULT 0,
    probe_token INTEGER,
    probe_until_ms INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE waybill_paused(
    kind TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;
