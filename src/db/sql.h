/* sql.h - every statement the library runs, in one table.
 *
 * X(name, SQLite, PostgreSQL): the second text is NULL where both engines run
 * the first; in it ?1 and $1 mean the same. The predicates of partial indexes
 * are repeated word for word, or the planner does not use the index; test_db
 * checks the plans.
 *
 * SQLite has one writer. On PostgreSQL transactions run side by side, so a
 * statement also locks the rows that the transaction will change: heads and
 * breakers FOR UPDATE, claims SKIP LOCKED, lanes by an advisory lock inside the
 * functions of schema/pg. */
#ifndef WB_SRC_DB_SQL_H
#define WB_SRC_DB_SQL_H

#define WB__READY " status IN ('pending', 'processing') "
/* Its last lease, if it had one, did not run out. */
#define WB__FRESH " status = 'pending' AND reason IS NULL "
#define WB__LIVE \
    " lane IS NOT NULL AND status NOT IN ('abandoned', 'delivered') "
#define WB__RETRYING "CASE WHEN h.status = 'pending' AND h.attempts > 0 THEN "
#define WB__FINAL    " status IN ('abandoned', 'delivered') "

/* Leases that ended at ?1 or before, that were given at ?2 or before, or that
 * were given in the future. */
#define WB__STALE                \
    " status = 'processing' AND" \
    " (due_ms <= ?1 OR claimed_ms <= ?2 OR claimed_ms > ?1) "

/* The columns that finishing a claim needs. */
#define WB__HEAD                                                          \
    " seq, id, kind, status, due_ms, attempts, token, claimed_ms, scope," \
    " lane, keep, hash "
#define WB__BY(column) \
    "SELECT" WB__HEAD "FROM waybill_outbox WHERE " column " = ?1"
/* The columns that a worker and a reader are given. */
#define WB__FULL                                                        \
    " seq, id, kind, status, due_ms, created_ms, attempts, claimed_ms," \
    " expires_ms, scope, key, lane, reason, last_error, content_type, " \
    "headers "

/* With what a reader is given beyond them. */
#define WB__SHOWN WB__FULL ", ended_ms, attempts_log "

#define WB__INSERT                                                        \
    "INSERT INTO waybill_outbox(id, kind, due_ms, created_ms,"            \
    " expires_ms, key, lane, keep, hash, content_type, headers, payload)" \
    " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)"          \
    " ON CONFLICT DO NOTHING"
#define WB__TOMBSTONE(no_bytes)                                          \
    "UPDATE waybill_outbox SET status = 'delivered', due_ms = ?2,"       \
    " ended_ms = ?4, hash = ?3, payload = " no_bytes ", headers = NULL," \
    " last_error = NULL WHERE seq = ?1"
#define WB__PROMOTE_LONG(bytes)                                  \
    "UPDATE waybill_outbox AS held SET status = 'pending'"       \
    " WHERE" WB__LIVE "AND status = 'held' AND " bytes " > 1020" \
    " AND seq = (SELECT min(seq) FROM waybill_outbox"            \
    "  WHERE lane = held.lane AND" WB__LIVE ")"
#define WB__RESET_STALE(min)                                      \
    "UPDATE waybill_outbox SET status = 'pending', token = NULL," \
    " reason = 'lease ran out', due_ms = " min "(due_ms, ?1) WHERE" WB__STALE
#define WB__BREAKER                                                \
    "SELECT scope, failures, open_until_ms, open_ms, probe_token," \
    " probe_until_ms FROM waybill_breaker "
/* The text search is instr in SQLite, and strpos in PostgreSQL. */
#define WB__MATCH(search, key, lane, error, from, to, prefix)      \
    " AND (key = " key " OR " key " IS NULL)"                      \
    " AND (" search "(key, " prefix ") = 1 OR " prefix " IS NULL)" \
    " AND (lane = " lane " OR " lane " IS NULL)"                   \
    " AND (" search "(coalesce(last_error, '') || ' ' ||"          \
    "  coalesce(reason, ''), " error ") > 0 OR " error " IS NULL)" \
    " AND created_ms >= " from " AND created_ms <= " to
#define WB__ABANDONED(search)                                             \
    "SELECT" WB__HEAD "FROM waybill_outbox WHERE status = 'abandoned'"    \
    " AND" WB__FINAL "AND (due_ms, seq) > (?1, ?2)"                       \
    " AND (kind = ?3 OR ?3 IS NULL)"                                      \
    " AND coalesce(claimed_ms, created_ms) <= ?4" WB__MATCH(search, "?6", \
        "?7", "?8", "?9", "?10", "?11") " ORDER BY due_ms, seq LIMIT ?5"
#define WB__LIST(search)                                           \
    "SELECT" WB__SHOWN "FROM waybill_outbox WHERE seq >= ?1"       \
    " AND (status = ?2 OR (?2 IS NULL AND status <> 'delivered'))" \
    " AND (status <> 'delivered' OR keep = 1)"                     \
    " AND (kind = ?3 OR ?3 IS NULL)" WB__MATCH(                    \
        search, "?5", "?6", "?7", "?8", "?9", "?10") " ORDER BY seq LIMIT ?4"
#define WB__SHOW(where)                                             \
    "SELECT" WB__SHOWN ", payload FROM waybill_outbox WHERE " where \
    " AND (status <> 'delivered' OR keep = 1)"
#define WB__FIRST_DUE(fresh)                                               \
    "SELECT due_ms, seq FROM waybill_outbox WHERE kind = ?1 AND" WB__READY \
        fresh "ORDER BY due_ms, seq LIMIT 1"
#define WB__DUE(fresh)                                            \
    "SELECT" WB__FULL                                             \
    ", payload FROM waybill_outbox WHERE kind = ?1 AND" WB__READY \
    "AND due_ms <= ?2 AND (due_ms < ?2 OR seq <= ?3)" fresh       \
    " ORDER BY due_ms, seq LIMIT ?4"
#define WB__DUE_PG(fresh)                                                    \
    "SELECT" WB__FULL ", payload FROM (SELECT *,"                            \
    " sum(length(payload)) OVER (ORDER BY due_ms, seq) - length(payload)"    \
    " AS before FROM (SELECT * FROM waybill_outbox"                          \
    " WHERE kind = $1 AND" WB__READY "AND due_ms <= $2"                      \
    " AND (due_ms < $2 OR seq <= $3)" fresh " ORDER BY due_ms, seq LIMIT $4" \
    " FOR UPDATE SKIP LOCKED) locked) summed"                                \
    " WHERE before < 16777216 ORDER BY due_ms, seq"

/* Of the idempotency store. ?1 to ?3 are always the operation; ?4 the token and
 * ?5 now, in the statements that need them. */
#define WB__IDEM_AT " identity = ?1 AND scope = ?2 AND key = ?3 "
/* The claim is the caller's. Its lease may have ended: until another begin has
 * claimed the key, its token is good. */
#define WB__IDEM_CLAIMED                                             \
    WB__IDEM_AT "AND token = ?4 AND state IN ('claimed', 'sending')" \
                " AND version = 1"
/* When an operation ends: one that was sending is held for longer. */
#define WB__IDEM_END(hold)                            \
    " waybill_idem.ends_ms + CASE waybill_idem.state" \
    " WHEN 'sending' THEN CAST(" hold " AS BIGINT) ELSE 0 END "
/* It is unknown whether the effect happened; ?4 is now, ?5 the hold. */
#define WB__IDEM_OUTCOME_UNKNOWN                                    \
    " (state = 'unknown' OR (state = 'sending' AND ends_ms <= ?4))" \
    " AND" WB__IDEM_END("?5") "> ?4 AND version = 1"

/* What ended at ?1 or before; a claim, for its holder may be late: at ?2 or
 * before. */
#define WB__IDEM_EXPIRED                                           \
    "SELECT seq FROM waybill_idem"                                 \
    " WHERE ends_ms IS NOT NULL AND ends_ms <= ?1 AND version = 1" \
    " AND (state NOT IN ('claimed', 'sending') OR ends_ms <= ?2)"  \
    " ORDER BY ends_ms LIMIT ?3"

#define WB__IDEM_SUM "coalesce(sum(length(headers) + length(body) + 100), 0)"
#define WB__IDEM_RECORDS                                        \
    " FROM waybill_idem WHERE identity = ?1 AND state = 'done'" \
    " AND (ends_ms IS NULL OR ends_ms > ?2)"

#define WB__SQL_MAP(X)                                                         \
    /* meta */                                                                 \
    X(META_GET, "SELECT value FROM waybill_meta WHERE name = ?1", NULL)        \
    X(META_SET,                                                                \
        "INSERT INTO waybill_meta(name, value) VALUES(?1, ?2)"                 \
        " ON CONFLICT(name) DO UPDATE SET value = excluded.value",             \
        NULL)                                                                  \
    X(CLOCK,                                                                   \
        "SELECT (SELECT CAST(value AS BIGINT) FROM waybill_meta"               \
        "  WHERE name = 'clock_seen_ms'),"                                     \
        " (SELECT CAST(value AS BIGINT) FROM waybill_meta"                     \
        "  WHERE name = 'clock_trusted_ms'),"                                  \
        " (SELECT created_ms FROM waybill_outbox WHERE seq ="                  \
        "  (SELECT max(seq) FROM waybill_outbox))",                            \
        NULL)                                                                  \
    /* On PostgreSQL another transaction may be about to: then not here. */    \
    X(CLOCK_SET,                                                               \
        "UPDATE waybill_meta SET value = CASE name WHEN 'clock_seen_ms'"       \
        " THEN ?1 ELSE ?2 END"                                                 \
        " WHERE name IN ('clock_seen_ms', 'clock_trusted_ms')",                \
        "UPDATE waybill_meta SET value = CASE name WHEN 'clock_seen_ms'"       \
        " THEN $1 ELSE $2 END WHERE name = ANY(ARRAY("                         \
        " SELECT name FROM waybill_meta"                                       \
        " WHERE name IN ('clock_seen_ms', 'clock_trusted_ms')"                 \
        " ORDER BY name FOR UPDATE SKIP LOCKED))")                             \
    /* ?1 is now, and ?2 how far ahead the clock was. A lease has its length   \
     * from now: at least as long as its holder believes to have left. */      \
    X(DATE_ANEW,                                                               \
        "UPDATE waybill_outbox SET due_ms = CASE"                              \
        " WHEN status IN ('abandoned', 'delivered') THEN due_ms"               \
        " WHEN claimed_ms > ?1 AND due_ms > claimed_ms AND"                    \
        "  (status = 'processing' OR due_ms - claimed_ms <= 86400000)"         \
        "  THEN ?1 + (due_ms - claimed_ms)"                                    \
        " WHEN status = 'processing' THEN due_ms"                              \
        " WHEN due_ms <= coalesce(claimed_ms, created_ms)"                     \
        "  AND coalesce(claimed_ms, created_ms) > ?1 THEN ?1"                  \
        " WHEN claimed_ms IS NULL OR due_ms <= ?1 + 86400000 THEN due_ms"      \
        " WHEN due_ms - ?2 > ?1 THEN due_ms - ?2 ELSE ?1 END,"                 \
        " claimed_ms = CASE WHEN claimed_ms > ?1 THEN ?1"                      \
        "  ELSE claimed_ms END,"                                               \
        " created_ms = CASE WHEN created_ms > ?1 THEN ?1 ELSE created_ms END"  \
        " WHERE created_ms > ?1 OR claimed_ms > ?1 OR (status = 'pending'"     \
        "  AND claimed_ms IS NOT NULL AND due_ms > ?1 + 86400000)",            \
        NULL)                                                                  \
    /* After it: a probe ends with the lease of its message. */                \
    X(PROBES_ANEW,                                                             \
        "UPDATE waybill_breaker SET probe_until_ms = coalesce("                \
        "(SELECT due_ms FROM waybill_outbox WHERE token = probe_token"         \
        "  AND status = 'processing'), ?1)"                                    \
        " WHERE probe_token IS NOT NULL AND probe_until_ms > ?1",              \
        NULL)                                                                  \
    X(META_NEW,                                                                \
        "INSERT INTO waybill_meta(name, value) VALUES(?1, '0')"                \
        " ON CONFLICT DO NOTHING",                                             \
        NULL)                                                                  \
    X(META_LOCK, "SELECT value FROM waybill_meta WHERE name = ?1",             \
        "SELECT value FROM waybill_meta WHERE name = $1 FOR UPDATE")           \
    X(TOKENS_FORGET,                                                           \
        "UPDATE waybill_outbox SET token = NULL,"                              \
        " status = CASE status WHEN 'processing' THEN 'pending'"               \
        "  ELSE status END,"                                                   \
        " reason = CASE status WHEN 'processing' THEN 'lease ran out'"         \
        "  ELSE reason END WHERE token IS NOT NULL",                           \
        NULL)                                                                  \
    X(CLAIMS_FORGET,                                                           \
        "UPDATE waybill_idem SET token = 0"                                    \
        " WHERE state IN ('claimed', 'sending')",                              \
        NULL)                                                                  \
    X(PROBES_FORGET,                                                           \
        "UPDATE waybill_breaker SET probe_token = NULL, probe_until_ms = 0"    \
        " WHERE probe_token IS NOT NULL",                                      \
        NULL)                                                                  \
    /* accept */                                                               \
    X(INSERT, WB__INSERT, WB__INSERT " RETURNING seq")                         \
    X(ROWS,                                                                    \
        "SELECT (SELECT count(*) FROM waybill_outbox)"                         \
        " - (SELECT count(*) FROM waybill_outbox WHERE" WB__FINAL              \
        "     AND status = 'delivered')",                                      \
        NULL)                                                                  \
    X(WAITING,                                                                 \
        "SELECT 1 FROM waybill_outbox WHERE kind > '' AND" WB__READY           \
        "LIMIT 1",                                                             \
        NULL)                                                                  \
    /* Behind (?1, ?2), in the order in which they were confirmed. */          \
    X(TOMBSTONES,                                                              \
        "SELECT seq, due_ms FROM waybill_outbox WHERE status = 'delivered'"    \
        " AND" WB__FINAL "AND (due_ms, seq) > (?1, ?2) AND seq > 0"            \
        " ORDER BY due_ms, seq LIMIT ?3",                                      \
        NULL)                                                                  \
    X(MOVE, "UPDATE OR IGNORE waybill_outbox SET seq = ?2 WHERE seq = ?1",     \
        "UPDATE waybill_outbox SET seq = $2 WHERE seq = $1")                   \
    X(HEAD_BY_SEQ, WB__BY("seq"), WB__BY("seq") " FOR UPDATE")                 \
    X(HEAD_BY_ID, WB__BY("id"), WB__BY("id") " FOR UPDATE")                    \
    X(HEAD_BY_KEY, WB__BY("key"), WB__BY("key") " FOR UPDATE")                 \
    X(CONTENT,                                                                 \
        "SELECT kind, content_type, lane, payload FROM waybill_outbox"         \
        " WHERE seq = ?1",                                                     \
        NULL)                                                                  \
    /* claim */                                                                \
    X(KINDS,                                                                   \
        "WITH RECURSIVE k(kind) AS ("                                          \
        " SELECT (SELECT min(kind) FROM waybill_outbox WHERE" WB__READY ")"    \
        " UNION ALL"                                                           \
        " SELECT (SELECT min(kind) FROM waybill_outbox"                        \
        "  WHERE kind > k.kind AND" WB__READY ")"                              \
        " FROM k WHERE k.kind IS NOT NULL)"                                    \
        " SELECT kind FROM k WHERE kind IS NOT NULL",                          \
        NULL)                                                                  \
    X(FIRST_DUE, WB__FIRST_DUE(""), NULL)                                      \
    X(FIRST_FRESH, WB__FIRST_DUE("AND" WB__FRESH), NULL)                       \
    X(DUE, WB__DUE(""), WB__DUE_PG(""))                                        \
    X(FRESH, WB__DUE(" AND" WB__FRESH), WB__DUE_PG(" AND" WB__FRESH))          \
    X(DEFER,                                                                   \
        "UPDATE waybill_outbox SET due_ms = ?2, status = 'pending',"           \
        " token = NULL, reason = CASE status WHEN 'processing'"                \
        "  THEN 'lease ran out' ELSE reason END WHERE seq = ?1",               \
        NULL)                                                                  \
    X(SCOPE, "UPDATE waybill_outbox SET scope = ?2 WHERE seq = ?1", NULL)      \
    X(LEASE,                                                                   \
        "UPDATE waybill_outbox SET status = 'processing',"                     \
        " attempts = CASE WHEN attempts < 0 THEN 1"                            \
        "  WHEN attempts < 4000000000 THEN attempts + 1 ELSE attempts END,"    \
        " token = ?2, due_ms = ?3, claimed_ms = ?4,"                           \
        " scope = ?5 WHERE seq = ?1",                                          \
        NULL)                                                                  \
    /* finish */                                                               \
    X(DELETE, "DELETE FROM waybill_outbox WHERE seq = ?1", NULL)               \
    X(CONFIRM,                                                                 \
        "DELETE FROM waybill_outbox WHERE seq = ?1 AND id = ?2"                \
        " AND status = 'processing' AND token = ?3 AND keep = 0"               \
        " AND lane IS NULL",                                                   \
        NULL)                                                                  \
    X(TOMBSTONE, WB__TOMBSTONE("x''"), WB__TOMBSTONE("''"))                    \
    X(PENDING,                                                                 \
        "UPDATE waybill_outbox SET status = 'pending', due_ms = ?2,"           \
        " attempts = CASE WHEN attempts > 0 THEN attempts - ?3 ELSE 0 END,"    \
        " last_error = coalesce(?4, last_error),"                              \
        " reason = NULL, token = NULL WHERE seq = ?1",                         \
        NULL)                                                                  \
    X(ABANDON,                                                                 \
        "UPDATE waybill_outbox SET status = 'abandoned', due_ms = ?2,"         \
        " ended_ms = ?5, reason = ?3, last_error = coalesce(?4, last_error), " \
        "token = NULL"                                                         \
        " WHERE seq = ?1",                                                     \
        NULL)                                                                  \
    X(ATTEMPTS, "SELECT attempts_log FROM waybill_outbox WHERE seq = ?1",      \
        NULL)                                                                  \
    X(ATTEMPTS_SET,                                                            \
        "UPDATE waybill_outbox SET attempts_log = ?2 WHERE seq = ?1", NULL)    \
    X(ABANDONED_ROW,                                                           \
        "SELECT attempts, id, kind, key, lane, reason, last_error"             \
        " FROM waybill_outbox WHERE seq = ?1",                                 \
        NULL)                                                                  \
    X(EXTEND,                                                                  \
        "UPDATE waybill_outbox SET due_ms = ?2, claimed_ms = ?3"               \
        " WHERE seq = ?1",                                                     \
        NULL)                                                                  \
    X(PROMOTE,                                                                 \
        "UPDATE waybill_outbox SET status = 'pending'"                         \
        " WHERE status = 'held' AND seq = (SELECT min(seq)"                    \
        "  FROM waybill_outbox WHERE lane = ?1 AND" WB__LIVE ")",              \
        "SELECT waybill_promote($1)")                                          \
    /* Of every lane longer than 255 characters can be: whichever has ended.   \
     */                                                                        \
    X(PROMOTE_LONG, WB__PROMOTE_LONG("length(CAST(lane AS BLOB))"),            \
        WB__PROMOTE_LONG("octet_length(lane)"))                                \
    /* Not run on SQLite, which has one writer. */                             \
    X(LOCK_LANES, "SELECT ?1, ?2",                                             \
        "SELECT waybill_lane(lane) FROM ("                                     \
        " SELECT unnest(string_to_array($1, chr(10))) COLLATE \"C\" AS lane"   \
        " UNION SELECT lane FROM waybill_outbox"                               \
        "  WHERE id = ANY(string_to_array($2, chr(10)) COLLATE \"C\")"         \
        "   AND lane IS NOT NULL ORDER BY lane) AS l"                          \
        " WHERE lane <> ''")                                                   \
    X(PURGE,                                                                   \
        "DELETE FROM waybill_outbox WHERE seq IN ("                            \
        " SELECT seq FROM waybill_outbox WHERE status = ?1 AND" WB__FINAL      \
        " AND due_ms <= ?2 ORDER BY due_ms LIMIT ?3)",                         \
        "DELETE FROM waybill_outbox WHERE seq = ANY(ARRAY("                    \
        " SELECT seq FROM waybill_outbox WHERE status = $1 AND" WB__FINAL      \
        " AND due_ms <= $2 ORDER BY due_ms LIMIT $3 FOR UPDATE SKIP LOCKED))") \
    X(RESET_PROBES,                                                            \
        "UPDATE waybill_breaker SET probe_token = NULL, probe_until_ms = 0"    \
        " WHERE probe_token IN"                                                \
        " (SELECT token FROM waybill_outbox WHERE" WB__STALE ")",              \
        NULL)                                                                  \
    X(RESET_STALE, WB__RESET_STALE("min"), WB__RESET_STALE("least"))           \
    /* breaker, pause */                                                       \
    X(BREAKERS, WB__BREAKER "ORDER BY scope", NULL)                            \
    X(BREAKER_ANY, "SELECT 1 FROM waybill_breaker LIMIT 1", NULL)              \
    X(BREAKER, WB__BREAKER "WHERE scope = ?1",                                 \
        WB__BREAKER "WHERE scope = ?1 FOR UPDATE")                             \
    /* Before failures is incremented: PostgreSQL can only lock a row that     \
     * exists. */                                                              \
    X(BREAKER_NEW,                                                             \
        "INSERT INTO waybill_breaker(scope, failures) VALUES(?1, 0)"           \
        " ON CONFLICT DO NOTHING",                                             \
        NULL)                                                                  \
    X(BREAKER_PUT,                                                             \
        "INSERT INTO waybill_breaker VALUES(?1, ?2, ?3, ?4, ?5, ?6)"           \
        " ON CONFLICT(scope) DO UPDATE SET failures = excluded.failures,"      \
        " open_until_ms = excluded.open_until_ms,"                             \
        " open_ms = excluded.open_ms, probe_token = excluded.probe_token,"     \
        " probe_until_ms = excluded.probe_until_ms",                           \
        NULL)                                                                  \
    X(BREAKER_DELETE, "DELETE FROM waybill_breaker WHERE scope = ?1", NULL)    \
    X(PAUSED, "SELECT kind FROM waybill_paused ORDER BY kind", NULL)           \
    X(PAUSE,                                                                   \
        "INSERT INTO waybill_paused(kind) VALUES(?1) ON CONFLICT DO NOTHING",  \
        NULL)                                                                  \
    X(RESUME, "DELETE FROM waybill_paused WHERE kind = ?1", NULL)              \
    /* query */                                                                \
    X(COUNTS,                                                                  \
        "SELECT kind, status, count(*), min(created_ms), min(due_ms)"          \
        " FROM waybill_outbox"                                                 \
        " WHERE status <> 'delivered' OR keep = 1"                             \
        " GROUP BY kind, status ORDER BY kind",                                \
        NULL)                                                                  \
    X(LANES,                                                                   \
        "SELECT h.kind, count(*), sum(l.n), sum(" WB__RETRYING                 \
        "1 ELSE 0 END),"                                                       \
        " sum(" WB__RETRYING "l.n ELSE 0 END) FROM (SELECT min(seq) AS seq,"   \
        " count(*) - 1 AS n FROM waybill_outbox WHERE" WB__LIVE                \
        "GROUP BY lane HAVING count(*) > 1) AS l JOIN waybill_outbox AS h"     \
        " ON h.seq = l.seq GROUP BY h.kind ORDER BY h.kind",                   \
        "SELECT h.kind, count(*), CAST(sum(l.n) AS BIGINT),"                   \
        " sum(" WB__RETRYING "1 ELSE 0 END),"                                  \
        " CAST(sum(" WB__RETRYING "l.n ELSE 0 END) AS BIGINT) FROM (SELECT"    \
        " min(seq) AS seq, count(*) - 1 AS n FROM waybill_outbox "             \
        "WHERE" WB__LIVE "GROUP BY lane HAVING count(*) > 1) AS l"             \
        " JOIN waybill_outbox AS h ON h.seq = l.seq"                           \
        " GROUP BY h.kind ORDER BY h.kind")                                    \
    X(LIST, WB__LIST("instr"), WB__LIST("strpos"))                             \
    X(SHOW, WB__SHOW("id >= ?1 AND id <= ?2") " ORDER BY id LIMIT 2", NULL)    \
    /* Reads the whole index of ids. */                                        \
    X(SHOW_END,                                                                \
        WB__SHOW("seq IN (SELECT seq FROM waybill_outbox"                      \
                 "  WHERE substr(id, 37 - ?2) = ?1)") " LIMIT 2",              \
        WB__SHOW("seq IN (SELECT seq FROM waybill_outbox"                      \
                 "  WHERE right(id, $2::int) = $1)") " LIMIT 2")               \
    X(SHOW_KEY, WB__SHOW("key = ?1"), NULL)                                    \
    X(FUTURE,                                                                  \
        "SELECT count(*) FROM waybill_outbox"                                  \
        " WHERE created_ms > ?1 OR claimed_ms > ?1",                           \
        NULL)                                                                  \
    X(STUCK,                                                                   \
        "SELECT count(*) FROM waybill_outbox WHERE status = 'processing' AND"  \
        " (2.0 * due_ms - claimed_ms <= ?1 OR claimed_ms > ?1)",               \
        NULL)                                                                  \
    /* administration */                                                       \
    X(ABANDONED, WB__ABANDONED("instr"),                                       \
        WB__ABANDONED("strpos") " FOR UPDATE")                                 \
    X(REDRIVE,                                                                 \
        "UPDATE waybill_outbox SET status = 'pending', attempts = 0,"          \
        " token = NULL, claimed_ms = NULL, reason = NULL, last_error = NULL,"  \
        " ended_ms = NULL, due_ms = ?2, expires_ms = CASE WHEN expires_ms <= " \
        "?2 THEN NULL"                                                         \
        " ELSE expires_ms END WHERE seq = ?1",                                 \
        NULL)                                                                  \
    X(REJOIN,                                                                  \
        "UPDATE waybill_outbox SET"                                            \
        " seq = (SELECT CASE WHEN max(seq) < 9223372036854775807"              \
        "  THEN max(seq) + 1 ELSE ?1 END FROM waybill_outbox),"                \
        " status = CASE WHEN EXISTS (SELECT 1 FROM waybill_outbox"             \
        "  WHERE lane = ?2 AND" WB__LIVE "AND seq <> ?1)"                      \
        "  THEN 'held' ELSE 'pending' END WHERE seq = ?1",                     \
        "SELECT waybill_rejoin($1, $2)")                                       \
    /* idempotency */                                                          \
    X(IDEM_FIND,                                                               \
        "SELECT state, version, fingerprint, token, since_ms, ends_ms, "       \
        "ttl_ms,"                                                              \
        " status, headers, body FROM waybill_idem WHERE" WB__IDEM_AT,          \
        NULL)                                                                  \
    X(IDEM_CLAIM,                                                              \
        "INSERT INTO waybill_idem(identity, scope, key, token, since_ms, "     \
        "state,"                                                               \
        " fingerprint, ends_ms) VALUES(?1, ?2, ?3, ?4, ?5, ?7, ?8, ?9)"        \
        " ON CONFLICT(identity, scope, key) DO UPDATE SET"                     \
        " token = excluded.token, since_ms = excluded.since_ms,"               \
        " state = excluded.state, fingerprint = excluded.fingerprint,"         \
        " ends_ms = excluded.ends_ms, ttl_ms = NULL, status = NULL,"           \
        " headers = NULL, body = NULL"                                         \
        " WHERE waybill_idem.version = 1 AND" WB__IDEM_END("?6") "<= ?5",      \
        NULL)                                                                  \
    X(IDEM_COMPLETE,                                                           \
        "UPDATE waybill_idem SET state = 'done', since_ms = ?5, ends_ms = ?6," \
        " ttl_ms = ?7, status = ?8, headers = ?9, body = ?10"                  \
        " WHERE" WB__IDEM_CLAIMED,                                             \
        NULL)                                                                  \
    X(IDEM_RELEASE, "DELETE FROM waybill_idem WHERE" WB__IDEM_CLAIMED, NULL)   \
    X(IDEM_EXTEND,                                                             \
        "UPDATE waybill_idem SET ends_ms = ?5 WHERE" WB__IDEM_CLAIMED, NULL)   \
    X(IDEM_MARK,                                                               \
        "UPDATE waybill_idem SET state = ?5, ends_ms = coalesce(?6, ends_ms)"  \
        " WHERE" WB__IDEM_CLAIMED,                                             \
        NULL)                                                                  \
    X(IDEM_SETTLE,                                                             \
        "UPDATE waybill_idem SET state = 'done', since_ms = ?4, ends_ms = ?6," \
        " ttl_ms = ?7, status = ?8, headers = ?9, body = ?10"                  \
        " WHERE" WB__IDEM_AT "AND" WB__IDEM_OUTCOME_UNKNOWN,                   \
        NULL)                                                                  \
    X(IDEM_SETTLE_FREE,                                                        \
        "DELETE FROM waybill_idem WHERE" WB__IDEM_AT                           \
        "AND" WB__IDEM_OUTCOME_UNKNOWN,                                        \
        NULL)                                                                  \
    X(IDEM_STORE,                                                              \
        "INSERT INTO waybill_idem(identity, scope, key, token, since_ms, "     \
        "state,"                                                               \
        " fingerprint, ends_ms, ttl_ms, status, headers, body)"                \
        " VALUES(?1, ?2, ?3, ?4, ?5, 'done', ?7, ?8, ?9, ?10, ?11, ?12)"       \
        " ON CONFLICT(identity, scope, key) DO UPDATE SET"                     \
        " token = excluded.token, since_ms = excluded.since_ms,"               \
        " state = excluded.state, fingerprint = excluded.fingerprint,"         \
        " ends_ms = excluded.ends_ms, ttl_ms = excluded.ttl_ms,"               \
        " status = excluded.status, headers = excluded.headers,"               \
        " body = excluded.body"                                                \
        " WHERE waybill_idem.version = 1 AND"                                  \
        " (waybill_idem.state = 'done' OR" WB__IDEM_END("?6") "<= ?5)",        \
        NULL)                                                                  \
    X(IDEM_DROP,                                                               \
        "DELETE FROM waybill_idem WHERE" WB__IDEM_AT                           \
        "AND version = 1 AND state = 'done' AND ends_ms <= ?4",                \
        NULL)                                                                  \
    /* Held while claims or bytes are counted and one is added. */             \
    X(IDEM_LOCK, "SELECT ?1",                                                  \
        "SELECT pg_advisory_xact_lock(hashtextextended("                       \
        " $1, 'waybill_idem'::regclass::oid::bigint))")                        \
    X(IDEM_DELETE, "DELETE FROM waybill_idem WHERE" WB__IDEM_AT, NULL)         \
    X(IDEM_CLAIMS,                                                             \
        "SELECT count(*) FROM waybill_idem WHERE identity = ?1"                \
        " AND state <> 'done' AND ends_ms + CASE state"                        \
        "  WHEN 'sending' THEN CAST(?3 AS BIGINT) ELSE 0 END > ?2",            \
        NULL)                                                                  \
    X(IDEM_BYTES, "SELECT " WB__IDEM_SUM WB__IDEM_RECORDS,                     \
        "SELECT CAST(" WB__IDEM_SUM " AS BIGINT)" WB__IDEM_RECORDS)            \
    X(IDEM_LIST,                                                               \
        "SELECT seq, identity, scope, key, state, version, fingerprint,"       \
        " since_ms, ends_ms, status, length(headers) + length(body)"           \
        " FROM waybill_idem WHERE seq > ?1 ORDER BY seq LIMIT ?2",             \
        NULL)                                                                  \
    X(IDEM_REAP,                                                               \
        "DELETE FROM waybill_idem WHERE seq IN (" WB__IDEM_EXPIRED ")",        \
        "DELETE FROM waybill_idem WHERE seq = ANY(ARRAY(" WB__IDEM_EXPIRED     \
        " FOR UPDATE SKIP LOCKED))")

enum wb__sql {
#define X(name, sqlite, postgres) WB__SQL_##name,
    WB__SQL_MAP(X)
#undef X
    WB__SQL_COUNT
};

#endif /* WB_SRC_DB_SQL_H */
