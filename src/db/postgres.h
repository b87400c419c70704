/* postgres.h - the parts of the PostgreSQL engine. */
#ifndef WB_SRC_DB_POSTGRES_H
#define WB_SRC_DB_POSTGRES_H

#include <libpq-fe.h>

#include "db/db.h"
#include "os/os.h"

struct wb__postgres {
    struct wb__db db;
    PGconn *conn;
    bool borrowed, nested;
    uint32_t number;              /* of the handle, in this process */
    bool prepared[WB__SQL_COUNT]; /* when first used */
    PGresult *result[WB__SQL_COUNT];
    int row[WB__SQL_COUNT];
    int64_t last_seq;
    /* How long the server may be silent while a statement runs; 0: for ever. */
    int64_t silent_ms;
    bool silent; /* it was, and the connection was closed */
    /* The server's clock less the monotonic one, and when that was read. */
    _Atomic int64_t offset_us;
    int64_t clock_us;
    /* The session of drains, opened when first needed. It is used by any
     * thread, while conn may be inside a transaction of another one. */
    struct wb__mutex lock; /* of drains, listen and new_session */
    PGconn *drains;
    bool listen;         /* drains is to listen for notifications */
    bool new_session;    /* it does, since the caller last had its socket */
    int64_t notified_us; /* when this handle last notified; 0: never */
};

/* ---- postgres.c -------------------------------------------------------- */

/* The server's time in milliseconds. */
#define WB__POSTGRES_TIME                                    \
    "SELECT CAST(floor(extract(epoch FROM clock_timestamp()" \
    ") * 1000) AS bigint)"

WB_MUST_USE enum wb_status wb__postgres_read_clock(
    struct wb__postgres *s, struct wb_err *err);

/* ---- postgres_call.c --------------------------------------------------- */

enum wb_status wb__postgres_status(const char *sqlstate);

/* Map a failed result (NULL: out of memory) to a status, with what was being
 * done in the text. Frees it. */
enum wb_status wb__postgres_fail(struct wb__postgres *s, const char *what,
    PGresult *result, struct wb_err *err);
/* The last result of what was sent (0: nothing could be); NULL: none. A server
 * that is silent for silent_ms has lost the connection. */
PGresult *wb__postgres_wait(PGconn *conn, int sent, int64_t silent_ms);
/* The same, of the handle's connection. */
PGresult *wb__postgres_result(struct wb__postgres *s, int sent);
/* Run SQL as text on the handle's connection. */
PGresult *wb__postgres_query(struct wb__postgres *s, const char *sql);
/* Statements without rows. */
WB_MUST_USE enum wb_status wb__postgres_exec(
    struct wb__db *db, const char *sql, struct wb_err *err);
/* First column of the first row as text, cut to fit; "" without a row. */
WB_MUST_USE enum wb_status wb__postgres_text(struct wb__db *db, const char *sql,
    char *out, size_t size, struct wb_err *err);

/* ---- postgres_session.c ------------------------------------------------ */

/* Connect; the url's own settings come first. */
WB_MUST_USE enum wb_status wb__postgres_connect(
    struct wb__postgres *s, const char *url, struct wb_err *err);
/* Connect again, where the connection is lost. */
WB_MUST_USE enum wb_status wb__postgres_again(
    struct wb__postgres *s, struct wb_err *err);
/* A second session, with the parameters of the first one; may be broken, or
 * NULL. */
PGconn *wb__postgres_second(struct wb__postgres *s);
/* Set up a session of ours. False: it is broken. */
WB_MUST_USE bool wb__postgres_settings(struct wb__postgres *s, PGconn *conn);
/* Refuse a pooler that gives a session another server process for each
 * transaction. */
WB_MUST_USE enum wb_status wb__postgres_pooler(
    struct wb__postgres *s, struct wb_err *err);

/* ---- postgres_drain.c: see struct wb__engine --------------------------- */

bool wb__postgres_drain_try(struct wb__db *db, int slot);
void wb__postgres_drain_free(struct wb__db *db, int slot);
void wb__postgres_flag_set(struct wb__db *db, bool on);
bool wb__postgres_flag(struct wb__db *db);
int wb__postgres_listen(struct wb__db *db);
bool wb__postgres_notified(struct wb__db *db, bool *any);

extern const struct wb__engine wb__postgres_engine;

/* Register the engine in the core. A program that links the
 * static library has to name it: -Wl,-u,wb__postgres_add. */
void wb__postgres_add(void);

#endif /* WB_SRC_DB_POSTGRES_H */
