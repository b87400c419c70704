/* report.c - what a pass did: named counts, and the note beside the database
 * that tells of the last one even when the database cannot be opened. */
#include <stdio.h>

#include "db/db.h"
#include "os/os.h"
#include "outbox/box.h"
#include "relay/relay.h"

enum {
    NAMES_MAX = 1000
};

static const char *const drained[] = {
    "done", "empty", "breaker-open", "busy", "not-ready"};

const char *
wb_drained_name(enum wb_drained why)
{
    return (unsigned)why < WB_COUNT(drained) ? drained[why] : "?";
}

/* ---- tallies --------------------------------------------------------- */

static bool
tally_room(struct wb_tally *t)
{
    size_t cap = t->cap == 0 ? 16 : 2 * t->cap;
    struct wb_count *grown;

    if (t->n < t->cap)
        return true;
    if (t->n >= NAMES_MAX)
        return false;
    grown =
        t->names.env->resize(t->names.env->ctx, t->count, cap * sizeof(*grown));
    if (grown == NULL)
        return false;
    t->count = grown;
    t->cap = cap;
    return true;
}

/* A name too many, or no memory: that count is lost, no delivery is. */
void
wb_tally_add(struct wb_tally *t, const char *name, uint64_t n)
{
    struct wb_slice copy;
    size_t at = 0;

    while (at < t->n && strcmp(t->count[at].name, name) < 0)
        at++;
    if (at == t->n || strcmp(t->count[at].name, name) != 0) {
        if (name[0] == '\0' || !tally_room(t) ||
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

/* ---- the note -------------------------------------------------------- */

static void
add_field(struct wb__buf *b, const char *name, uint64_t n)
{
    wb__buf_fmt(b, ",\"%s\":%llu", name, (unsigned long long)n);
}

static void
report_json(struct wb__buf *b, const struct wb_report *r, int64_t at_ms)
{
    wb__buf_fmt(b, "{\"at_ms\":%lld", (long long)at_ms);
    add_field(b, "attempted", r->attempted);
    add_field(b, "confirmed", r->confirmed);
    add_field(b, "retried", r->retried);
    add_field(b, "abandoned", r->abandoned);
    add_field(b, "rejected", r->rejected);
    add_field(b, "released", r->released);
    add_field(b, "fenced", r->fenced);
    add_field(b, "ended", r->ended);
    add_field(b, "duration_ms", (uint64_t)r->duration_ms);
    add_field(b, "breakers_open", r->breakers_open);
    wb__buf_fmt(b, ",\"why\":\"%s\"}\n", wb_drained_name(r->why));
}

static void
note_path(char out[4096], const char *db)
{
    (void)snprintf(out, 4096, "%s-drain", db);
}

/* A note that cannot be written is not worth failing a drain for. */
void
wb__report_note(struct wb_relay *relay)
{
    const char *path = wb__db_path(relay->box->db);
    struct wb__buf b = {.env = relay->env, .max = 4096};
    char note[4096];

    if (path == NULL)
        return;
    note_path(note, path);
    report_json(&b, &relay->report, wb__box_now(relay->box));
    if (b.failed == WB_OK)
        (void)(wb__file_replace(note, wb__buf_slice(&b), NULL) == WB_OK);
    wb__buf_fini(&b);
}

enum wb_status
wb_relay_last(const char *url, char *out, size_t size, struct wb_err *err)
{
    struct wb__buf b = {.env = wb_env_system(), .max = size > 0 ? size - 1 : 0};
    char note[4096];
    enum wb_status rc;

    note_path(note, url);
    rc = wb__file_read(note, &b, err);
    if (rc == WB_OK) {
        struct wb_slice text = wb__trim(wb__buf_slice(&b));

        memcpy(out, text.len > 0 ? text.ptr : "", text.len);
        out[text.len] = '\0';
    }
    wb__buf_fini(&b);
    return rc;
}

/* ---- the end of a pass ----------------------------------------------- */

static enum wb_status
count_open(void *ctx, const struct wb_breaker *b)
{
    struct wb_report *r = ctx;

    r->breakers_open += b->state != WB_CLOSED;
    return WB_OK;
}

enum wb_status
wb__report_end(struct wb_relay *relay, int64_t duration_ms, struct wb_err *err)
{
    struct wb_report *r = &relay->report;

    r->duration_ms = duration_ms;
    r->tally = relay->tally.count;
    r->n_tally = relay->tally.n;
    r->breakers_open = 0;
    if (r->attempted > 0)
        r->why = WB_DRAIN_DONE;
    wb__report_note(relay);
    return wb_outbox_breakers(
        relay->box, (struct wb_slice){0}, count_open, r, err);
}
