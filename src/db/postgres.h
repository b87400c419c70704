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
    bool prepared[WB__SQL_COUNT]; /* when first used */
    PGresult *result[WB__SQL_COUNT];
    int row[WB__SQL_COUNT];
    int64_t last_seq;
    int64_t now_ms; /* the server's time when last read */
    /* The session of drains, opened when first needed. It is used by any
     * thread, while conn may be inside a transaction of another one. */
    struct wb__mutex lock; /* of drains */
    PGconn *drains;
};

enum wb_status wb__postgres_status(const char *sqlstate);

/* Map a failed result (NULL: out of memory) to a status, with what was being
 * done in the text. Frees it. */
enum wb_status wb__postgres_fail(struct wb__postgres *s, const char *what,
    PGresult *result, struct wb_err *err);
/* Statements without rows. */
WB_MUST_USE enum wb_status wb__postgres_exec(
    struct wb__db *db, const char *sql, struct wb_err *err);
/* First column of the first row as text, cut to fit; "" without a row. */
WB_MUST_USE enum wb_status wb__postgres_text(struct wb__db *db, const char *sql,
    char *out, size_t size, struct wb_err *err);
/* Drop the notices of a connection of ours: the library never prints. */
void wb__postgres_silence(PGconn *conn);
/* Set up a session of ours. */
WB_MUST_USE enum wb_status wb__postgres_session(
    struct wb__postgres *s, struct wb_err *err);

extern const struct wb__engine wb__postgres_engine;

/* Register the engine in the core. A program that links the
 * static library has to name it: -Wl,-u,wb__postgres_add. */
void wb__postgres_add(void);

#endif /* WB_SRC_DB_POSTGRES_H */
