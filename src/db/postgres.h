/* postgres.h - the parts of the PostgreSQL engine. */
#ifndef WB_SRC_DB_POSTGRES_H
#define WB_SRC_DB_POSTGRES_H

#include <libpq-fe.h>

#include "db/engine.h"
#include "os/os.h"

struct wb__postgres {
    struct wb__db db;
    PGconn *conn;
    bool borrowed, nested;
    bool prepared[WB__SQL_COUNT]; /* when first used */
    PGresult *result[WB__SQL_COUNT];
    int row[WB__SQL_COUNT];
    int64_t last_seq;
    int64_t now_ms; /* the server's time when last asked */
    /* Drains are locked and flagged by a connection of their own, from
     * whatever thread: the first one may be in the midst of a transaction. */
    struct wb__mutex lock;
    PGconn *side;
};

enum wb_status wb__postgres_status(const char *sqlstate);

/* Map a failed result (NULL: out of memory) to a status, with what was being
 * done in the text. Frees it. */
enum wb_status wb__postgres_fail(struct wb__postgres *s, const char *what,
    PGresult *result, struct wb_err *err);
/* Statements without rows. */
WB_MUST_USE enum wb_status wb__postgres_exec(
    struct wb__postgres *s, const char *sql, struct wb_err *err);
/* First column of the first row as text, cut to fit; "" without a row. */
WB_MUST_USE enum wb_status wb__postgres_text(struct wb__postgres *s,
    const char *sql, char *out, size_t size, struct wb_err *err);
/* A connection that is broken is made anew; UNAVAILABLE if that fails. */
WB_MUST_USE enum wb_status wb__postgres_again(
    struct wb__postgres *s, struct wb_err *err);
/* Of a connection of ours: the library never prints. */
void wb__postgres_silence(PGconn *conn);
/* What every session of ours is set to. */
WB_MUST_USE enum wb_status wb__postgres_session(
    struct wb__postgres *s, struct wb_err *err);

/* postgres_admin.c */
enum wb_status wb__postgres_bytes(
    struct wb__db *db, int64_t *bytes, struct wb_err *err);
bool wb__postgres_drain_try(struct wb__db *db, int slot);
void wb__postgres_drain_free(struct wb__db *db, int slot);
void wb__postgres_drain_flag_set(struct wb__db *db, bool on);
bool wb__postgres_drain_flag(struct wb__db *db);
enum wb_status wb__postgres_backup(
    struct wb__db *db, const char *path, struct wb_err *err);
enum wb_status wb__postgres_health(
    struct wb__db *db, struct wb_health *health, struct wb_err *err);

/* postgres_migrate.c: bring the tables up to date and give a restored database
 * a new incarnation. */
WB_MUST_USE enum wb_status wb__postgres_migrate(
    struct wb__postgres *s, bool existing, struct wb_err *err);

extern const struct wb__engine wb__postgres_engine;

/* postgres_open.c: make the engine known to the core. A program that links the
 * static library has to name it: -Wl,-u,wb__postgres_add. */
void wb__postgres_add(void);

#endif /* WB_SRC_DB_POSTGRES_H */
