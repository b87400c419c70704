-- The last attempts of a message that failed, and when it ended.
-- doc/FORMATS.md explains the columns.
ALTER TABLE waybill_outbox ADD COLUMN ended_ms INTEGER;
ALTER TABLE waybill_outbox ADD COLUMN attempts_log TEXT;

-- Which times this database has seen; see src/outbox/clock.c.
INSERT INTO waybill_meta(name, value)
    VALUES('clock_seen_ms', 0), ('clock_trusted_ms', 0);
