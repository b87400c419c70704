/* report.c - the report of a pass: named counts, and saving the last report. It
 * is saved in a file beside the database, so that it can be read when the
 * database cannot be opened; with PostgreSQL, in the database. */
#include <stdio.h>

#include "db/db.h"
#include "os/os.h"
#include "outbox/outbox_internal.h"
#include "relay/relay.h"

enum {
    NAMES_MAX = 1000,
    FAILED_MAX = 5,
    FAILED_CHARS = 200
};

static const char *const drained[] = {
    "done", "empty", "breaker-open", "busy", "not-ready", "unrouted"};

const char *
wb_drained_name(enum wb_drained why)
{
    return (unsigned)why < WB_COUNT(drained) ? drained[why] : "?";
}

/* ---- tallies ----------------------------------------------------------- */

/* With too many names, or out of memory, the count is lost; no delivery is. */
void
wb_tally_add(struct wb_tally *t, const char *name, uint64_t n)
{
    struct wb_slice copy;
    size_t at = 0;

    while (at < t->n && strcmp(t->count[at].name, name) < 0)
        at++;
    if (at == t->n || strcmp(t->count[at].name, name) != 0) {
        if (name[0] == '\0' || t->n >= NAMES_MAX ||
            !wb__array_grow(
                t->names.env, &t->count, t->n, &t->cap, sizeof(*t->count)) ||
            !wb__arena_dup(&t->names, wb_slice(name), &copy))
            return;
        memmove(
            t->count + at + 1, t->count + at, (t->n - at) * sizeof(*t->count));
        t->count[at] = (struct wb_count){.name = copy.ptr};
        t->n++;
    }
    t->count[at].n += n;
}

void
wb__tally_clear(struct wb_tally *t)
{
    wb__arena_clear(&t->names);
    wb__free(t->names.env, t->count);
    t->count = NULL;
    t->n = t->cap = 0;
}

/* ---- the last report --------------------------------------------------------- */

static void
add_field(struct wb__buf *b, const char *name, uint64_t n)
{
    wb__buf_fmt(b, ",\"%s\":%llu", name, (unsigned long long)n);
}

static void
report_path(char out[4096], const char *db)
{
    (void)snprintf(out, 4096, "%s-drain", db);
}

/* The first routes that cannot start: the report is read by commands that do
 * not have the worker's environment. */
static void
add_failed_routes(struct wb__buf *b, const struct wb_relay *relay)
{
    size_t n = 0;

    for (size_t i = 0; i < relay->n_routes && n < FAILED_MAX; i++) {
        const struct wb_route *r = relay->route[i].route;
        char line[4 * FAILED_CHARS + 1];

        if (r->failed == NULL)
            continue;
        (void)wb__one_line(wb_slice(r->failed), FAILED_CHARS, line);
        for (char *c = line; *c != '\0'; c++)
            if (*c == '"' || *c == '\\')
                *c = '\'';
        wb__buf_fmt(b, "%s{\"kind\":\"%s\",\"error\":\"%s\"}",
            n == 0 ? ",\"routes_failed\":[" : ",", r->kind, line);
        n++;
    }
    wb__buf_str(b, n > 0 ? "]" : "");
}

struct save_op {
    struct wb__db_job job;
    struct wb_slice text;
};

#define REPORT_NAME WB_LIT("last_drain")

static enum wb_status
save_run(struct wb__db *db, struct wb__db_job *job, struct wb_err *err)
{
    struct wb_slice text = ((struct save_op *)job)->text;

    return wb__db_run(db, WB__SQL_META_SET,
        WB__ARGS(wb__text(REPORT_NAME), wb__text(text)), NULL, err);
}

/* A report that cannot be saved does not fail the drain. */
void
wb__report_save(struct wb_relay *relay)
{
    const char *path = relay->box->db->path;
    const struct wb_report *r = &relay->report;
    struct wb__buf b = {.env = relay->env, .max = 8192};
    struct save_op o = {.job = {.run = save_run, .tx = WB__TX_RELAXED}};
    char file[4096];

    wb__buf_fmt(&b, "{\"at_ms\":%lld", (long long)wb__outbox_now(relay->box));
    add_field(&b, "attempted", r->attempted);
    add_field(&b, "confirmed", r->confirmed);
    add_field(&b, "retried", r->retried);
    add_field(&b, "abandoned", r->abandoned);
    add_field(&b, "rejected", r->rejected);
    add_field(&b, "released", r->released);
    add_field(&b, "fenced", r->fenced);
    add_field(&b, "ended", r->ended);
    add_field(&b, "duration_ms", (uint64_t)r->duration_ms);
    add_field(&b, "breakers_open", r->breakers_open);
    add_field(&b, "kinds_paused", r->kinds_paused);
    add_failed_routes(&b, relay);
    wb__buf_fmt(&b, ",\"why\":\"%s\"}\n", wb_drained_name(r->why));
    o.text = wb__buf_slice(&b);
    if (b.failed == WB_OK && path == NULL) {
        (void)(wb__commit_group_run(&relay->box->group, &o.job, NULL) == WB_OK);
    } else if (b.failed == WB_OK) {
        report_path(file, path);
        (void)(wb__file_replace(file, o.text, NULL) == WB_OK);
    }
    wb__buf_fini(&b);
}

static enum wb_status
report_select(struct wb__db *db, struct wb__buf *b, struct wb_err *err)
{
    const enum wb__sql sql = WB__SQL_META_GET;
    enum wb_status rc =
        wb__db_start(db, sql, WB__ARGS(wb__text(REPORT_NAME)), err);

    if (rc != WB_OK)
        return rc;
    rc = wb__db_next(db, sql, err);
    if (rc == WB_OK)
        wb__buf_add(b, wb__db_slice(db, sql, 0));
    wb__db_end(db, sql);
    if (rc == WB_EMPTY)
        return wb__fail(err, WB_NOTFOUND, 0, "no drain has left a report yet");
    return b->failed != WB_OK
               ? wb__fail(err, b->failed, 0, "the report is too long")
               : rc;
}

enum wb_status
wb_relay_last(const char *url, char *out, size_t size, struct wb_err *err)
{
    struct wb__buf b = {.env = wb_env_system(), .max = size > 0 ? size - 1 : 0};
    const struct wb__db_opts opts = {
        .env = b.env, .busy_ms = 5000, .existing = true, .read_only = true};
    struct wb__db *db = NULL;
    char name[4000], file[4096];
    enum wb_status rc;

    if (wb__db_is_postgres(url)) {
        rc = wb__db_open(&db, url, &opts, err);
        if (rc == WB_OK)
            rc = report_select(db, &b, err);
        wb__db_close(db);
    } else {
        if (wb__db_file_name(url, name, sizeof(name)))
            url = name;
        report_path(file, url);
        rc = wb__file_read(file, &b, err);
    }
    if (rc == WB_OK) {
        struct wb_slice text = wb__trim(wb__buf_slice(&b));

        memcpy(out, text.len > 0 ? text.ptr : "", text.len);
        out[text.len] = '\0';
    }
    wb__buf_fini(&b);
    return rc;
}

/* ---- the end of a pass ------------------------------------------------- */

static enum wb_status
count_open(void *ctx, const struct wb_breaker *b)
{
    struct wb_report *r = ctx;

    r->breakers_open += b->state != WB_CLOSED;
    return WB_OK;
}

enum wb_status
wb__report_end(struct wb_relay *relay, int64_t duration_ms, enum wb_status rc,
    struct wb_err *err)
{
    struct wb_report *r = &relay->report;

    r->duration_ms = duration_ms;
    r->tally = relay->tally.count;
    r->n_tally = relay->tally.n;
    r->breakers_open = 0;
    if (r->attempted > 0)
        r->why = WB_DRAIN_DONE;
    else if (r->why == WB_DRAIN_EMPTY && r->kinds_unrouted > 0)
        r->why = WB_DRAIN_UNROUTED;
    /* A server that is away would be waited for twice more. */
    if (rc == WB_OK || relay->box->db->path != NULL)
        wb__report_save(relay);
    if (rc != WB_OK)
        return rc;
    return wb_outbox_breakers(
        relay->box, (struct wb_slice){0}, count_open, r, err);
}
