-- ../003_history.sql on PostgreSQL.
ALTER TABLE waybill_outbox ADD COLUMN ended_ms bigint;
ALTER TABLE waybill_outbox ADD COLUMN attempts_log text;

INSERT INTO waybill_meta(name, value)
    VALUES('clock_seen_ms', '0'), ('clock_trusted_ms', '0');
