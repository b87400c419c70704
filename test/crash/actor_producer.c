/* actor_producer.c - enqueues messages until it is killed: one at a time, many
 * in a commit, and together with a row of its own in one transaction, some of
 * which are rolled back; and repeats keys that were accepted before. See
 * actor.h.
 *
 * A producer's own messages have numbers that grow; those in its lane must
 * be delivered in that order. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "actor.h"

enum {
    MANY = 16,
    REMEMBERED = 64
};

struct parcel {
    char key[64], lane[64];
    int64_t due_ms;
};

struct producer {
    struct actor *a;
    long number;
    struct parcel old[REMEMBERED]; /* accepted; some are repeated */
    unsigned n_old;
    sqlite3 *own;
    struct wb_outbox *adopted;
};

/* A message with a lane is due at once: a delayed one would block its lane. */
static struct parcel
new_parcel(struct producer *p)
{
    struct actor *a = p->a;
    struct parcel c = {.due_ms = 0};

    (void)snprintf(c.key, sizeof(c.key), "%s.%ld.%ld", a->name, (long)getpid(),
        ++p->number);
    if (actor_one_in(a, 4))
        (void)snprintf(
            c.lane, sizeof(c.lane), "%s.%ld", a->name, (long)getpid());
    else if (actor_one_in(a, 10))
        c.due_ms = actor_wall_ms() + 300;
    return c;
}

static struct wb_message
message_of(const struct parcel *c)
{
    return (struct wb_message){.kind = wb_slice("harness.parcel"),
        .payload = wb_slice(c->key),
        .key = wb_slice(c->key),
        .lane = wb_slice(c->lane),
        .due_ms = c->due_ms};
}

static void
record(struct producer *p, const struct parcel *c, const char *type,
    const struct wb_accepted *accepted)
{
    actor_write(p->a, &(struct event){.what = "enqueue",
                          .type = type,
                          .key = c->key,
                          .id = accepted == NULL ? NULL : accepted->id.text,
                          .due_ms = c->due_ms});
}

static void
remember(struct producer *p, const struct parcel *c)
{
    p->old[p->n_old++ % REMEMBERED] = *c;
}

static void
accept_some(struct producer *p, size_t n)
{
    struct parcel c[MANY];
    struct wb_message m[MANY];
    struct wb_accepted accepted[MANY] = {0};
    struct wb_err err = {0};

    for (size_t i = 0; i < n; i++) {
        c[i] = new_parcel(p);
        m[i] = message_of(&c[i]);
        record(p, &c[i], "invoke", NULL);
        if (p->a->sabotage == ACK_BEFORE_COMMIT)
            record(p, &c[i], "ok", NULL);
    }
    actor_need(wb_outbox_enqueue_many(p->a->box, m, n, accepted, &err), &err);
    for (size_t i = 0; i < n; i++) {
        actor_need(accepted[i].status, &err);
        record(p, &c[i], "ok", &accepted[i]);
        remember(p, &c[i]);
    }
}

/* As a program does that does not know whether its first call succeeded. */
static void
repeat(struct producer *p)
{
    unsigned known = p->n_old < REMEMBERED ? p->n_old : REMEMBERED;
    struct wb_accepted accepted = {0};
    struct wb_err err = {0};
    struct wb_message m;

    if (known == 0)
        return;
    m = message_of(&p->old[random_next(&p->a->random) % known]);
    actor_need(wb_outbox_enqueue(p->a->box, &m, &accepted, &err), &err);
}

/* ---- own rows ---------------------------------------------------------- */

static void
run_sql(struct producer *p, const char *sql)
{
    if (sqlite3_exec(p->own, sql, NULL, NULL, NULL) == SQLITE_OK)
        return;
    (void)fprintf(stderr, "actor: %s: %s\n", sql, sqlite3_errmsg(p->own));
    _exit(3);
}

static void
open_own(struct producer *p)
{
    struct wb_err err = {0};

    if (sqlite3_open(p->a->db, &p->own) != SQLITE_OK)
        _exit(3);
    (void)sqlite3_busy_timeout(p->own, 20000);
    actor_need(wb_outbox_adopt(&p->adopted, p->own, NULL, &err), &err);
    run_sql(p, "CREATE TABLE IF NOT EXISTS business(key TEXT PRIMARY KEY)");
}

/* A row of the program's own and the message about it: both or neither. */
static void
order(struct producer *p)
{
    enum sabotage wrong = p->a->sabotage;
    bool rollback = actor_one_in(p->a, 4);
    struct parcel c = new_parcel(p);
    struct wb_message m = message_of(&c);
    struct wb_accepted accepted = {0};
    struct wb_err err = {0};
    char sql[160];

    (void)snprintf(
        sql, sizeof(sql), "INSERT INTO business VALUES('%s')", c.key);
    if (!rollback)
        record(p, &c, "invoke", NULL);
    if (wrong == NO_TRANSACTION)
        actor_need(wb_outbox_enqueue(p->a->box, &m, &accepted, &err), &err);
    run_sql(p, "BEGIN IMMEDIATE");
    run_sql(p, sql);
    if (wrong == SPLIT_COMMIT && !rollback) {
        run_sql(p, "COMMIT");
        actor_sleep_ms(20); /* so that a kill can hit between the two commits */
        run_sql(p, "BEGIN IMMEDIATE");
    }
    if (wrong != NO_TRANSACTION)
        actor_need(wb_outbox_enqueue(p->adopted, &m, &accepted, &err), &err);
    run_sql(p, rollback ? "ROLLBACK" : "COMMIT");
    if (!rollback)
        record(p, &c, "ok", &accepted);
}

void
producer_run(struct actor *a)
{
    static struct producer p;

    p.a = a;
    open_own(&p);
    for (;;) {
        switch (random_next(&a->random) % 8) {
        case 0:
        case 1:
            accept_some(&p, MANY);
            break;
        case 2:
            repeat(&p);
            break;
        case 3:
        case 4:
            order(&p);
            break;
        default:
            accept_some(&p, 1);
        }
        actor_sleep_ms((int64_t)(random_next(&a->random) % 8));
    }
}
