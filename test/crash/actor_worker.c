/* actor_worker.c - claims, sends and finishes until it is killed. See actor.h.
 *
 * The receiver listens on a socket. A request is "ID KEY\n". The response is
 * "ok", "no" (refused) or a closed connection: then the outcome is unknown. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "actor.h"

enum {
    MANY = 16
};

struct worker {
    struct actor *a;
    int receiver; /* -1: not connected */
    struct wb_finish finish[MANY];
    char key[MANY][64];
    size_t n;
};

static void
connect_receiver(struct worker *w)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};

    (void)snprintf(to.sun_path, sizeof(to.sun_path), "%s", w->a->socket);
    w->receiver = socket(AF_UNIX, SOCK_STREAM, 0);
    while (connect(w->receiver, (struct sockaddr *)&to, sizeof(to)) != 0)
        actor_sleep_ms(20);
}

static enum wb_outcome
send_request(struct worker *w, const char *id, const char *key)
{
    char line[256], response[8] = "";
    int n = snprintf(line, sizeof(line), "%s %s\n", id, key);

    if (w->receiver < 0)
        connect_receiver(w);
    if (write(w->receiver, line, (size_t)n) == n &&
        read(w->receiver, response, 3) == 3)
        return response[0] == 'o' ? WB_DELIVERED : WB_RETRY;
    (void)close(w->receiver);
    w->receiver = -1;
    return WB_UNKNOWN;
}

static void
record(struct worker *w, size_t i, const char *what, const char *type)
{
    actor_write(w->a, &(struct event){.what = what,
                          .type = type,
                          .key = w->key[i],
                          .id = w->finish[i].id.text,
                          .token = w->finish[i].token,
                          .attempts = w->finish[i].attempts});
}

/* ---- sabotage ---------------------------------------------------------- */

static void
enqueue_again(struct worker *w, size_t i)
{
    struct wb_message m = {
        .kind = wb_slice("harness.parcel"), .payload = wb_slice(w->key[i])};
    struct wb_err err = {0};

    actor_need(wb_outbox_enqueue(w->a->box, &m, NULL, &err), &err);
    w->finish[i].end = WB_CONFIRM;
}

static void
take_any_token(struct worker *w, size_t i)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *q = NULL;

    if (sqlite3_open(w->a->db, &db) == SQLITE_OK &&
        sqlite3_prepare_v2(db, "SELECT token FROM waybill_outbox WHERE id = ?1",
            -1, &q, NULL) == SQLITE_OK &&
        sqlite3_bind_text(q, 1, w->finish[i].id.text, -1, SQLITE_STATIC) ==
            SQLITE_OK &&
        sqlite3_step(q) == SQLITE_ROW)
        w->finish[i].token = (uint64_t)sqlite3_column_int64(q, 0);
    (void)sqlite3_finalize(q);
    (void)sqlite3_close(db);
}

static void
confirm_first(struct worker *w, size_t i)
{
    struct wb_finish f = w->finish[i];
    struct wb_err err = {0};

    f.end = WB_CONFIRM;
    actor_need(wb_outbox_finish(w->a->box, &f, 1, NULL, NULL, &err), &err);
}

/* ---- the work ---------------------------------------------------------- */

static void
send_one(struct worker *w, size_t i)
{
    struct wb_finish *f = &w->finish[i];
    char fresh[64];
    const char *id = f->id.text;
    enum wb_outcome outcome;

    if (w->a->sabotage == MARK_BEFORE_SEND)
        confirm_first(w, i);
    if (w->a->sabotage == NO_KEYS) {
        (void)snprintf(fresh, sizeof(fresh), "%llx",
            (unsigned long long)random_next(&w->a->random));
        id = fresh;
    }
    record(w, i, "send", "invoke");
    outcome = send_request(w, id, w->key[i]);
    record(w, i, "send",
        outcome == WB_DELIVERED ? "ok"
        : outcome == WB_RETRY   ? "fail"
                                : "info");
    f->end = outcome == WB_DELIVERED ? WB_CONFIRM : WB_FAIL;
    f->outcome = outcome;
    if (outcome == WB_UNKNOWN && w->a->sabotage == LOST_IS_NO)
        enqueue_again(w, i);
    if (w->a->sabotage == NO_FENCING)
        take_any_token(w, i);
}

static void
note_batch(struct worker *w, const struct wb_batch *batch)
{
    static const struct wb_retry_policy retry = {
        50, 200, 200, 2, 100000, false, NULL, 0};
    static const struct wb_breaker_policy breaker = {UINT32_MAX, 1};

    w->n = batch->len;
    for (size_t i = 0; i < batch->len; i++) {
        const struct wb_claimed *r = &batch->row[i];

        w->finish[i] = (struct wb_finish){.id = r->id,
            .seq = r->seq,
            .token = r->token,
            .attempts = r->attempts,
            .retry = &retry,
            .breaker = &breaker,
            .error = wb_slice("no response")};
        (void)snprintf(w->key[i], sizeof(w->key[i]), "%.*s",
            (int)r->payload.len, r->payload.ptr);
        record(w, i, "claim", "ok");
    }
}

static const char *
type_of(const struct wb_finish *f)
{
    if (f->status == WB_OK)
        return f->end == WB_CONFIRM ? "ok" : "fail";
    return f->status == WB_FENCED ? "fenced" : "gone";
}

/* Finish the messages sent and claim the next ones in the same commit. */
static void
cycle(struct worker *w)
{
    struct wb_source source = {
        .kind = wb_slice("harness.parcel"), .max_attempts = 100000};
    struct wb_claim claim = {.sources = &source,
        .n_sources = 1,
        .max = (uint32_t)(1 + random_next(&w->a->random) % MANY),
        .lease_ms = w->a->lease_ms};
    struct wb_batch batch = {0};
    struct wb_err err = {0};

    if (w->a->sabotage == SHORT_LEASE)
        claim.lease_ms = 5;
    for (size_t i = 0; i < w->n; i++)
        record(w, i, "confirm", "invoke");
    actor_need(
        wb_outbox_finish(w->a->box, w->finish, w->n, &claim, &batch, &err),
        &err);
    for (size_t i = 0; i < w->n; i++)
        record(w, i, "confirm", type_of(&w->finish[i]));
    note_batch(w, &batch);
    wb_batch_free(&batch);
}

void
worker_run(struct actor *a)
{
    static struct worker w;

    w.a = a;
    w.receiver = -1;
    for (;;) {
        cycle(&w);
        if (a->sabotage == NO_FENCING && actor_one_in(a, 2))
            actor_sleep_ms(a->lease_ms * 13 / 10);
        for (size_t i = 0; i < w.n; i++)
            send_one(&w, i);
        if (w.n == 0)
            actor_sleep_ms(20);
    }
}
