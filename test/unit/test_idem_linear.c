/* test_idem_linear.c - random histories of several threads on one key must
 * have an order in which a register absent -> claimed -> done explains every
 * answer (invariant I9; the search is Wing and Gong's). */
#include "idem_fixture.h"

#include <pthread.h>

enum {
    THREADS = 3,
    EACH = 7,
    CALLS = THREADS * EACH,
    ROUNDS = 300
};

enum call {
    BEGIN,
    COMPLETE,
    RELEASE,
    EXTEND,
    UNKNOWN,
    SETTLE,
    LOOKUP,
    STORE,
    FORGET,
    KINDS
};

/* What was called, what came of it, and when by a counter shared by all. */
struct event {
    enum call call;
    uint64_t token; /* presented, or acquired */
    int body;       /* written or read */
    enum wb_status rc;
    enum wb_idem_answer answer;
    unsigned from, to;
};

static struct wb_idem *shared;
static struct event history[CALLS];
static atomic_uint moment;
static _Atomic uint64_t last_token; /* so that tokens cross threads */

/* ---- the history ------------------------------------------------------- */

static void
do_call(struct event *e, struct wb_idem_op op, unsigned draw)
{
    struct wb_fingerprint fp = {{1}};
    struct wb_idem_result r = {0};
    struct wb_idem_record record = {
        .body = {(char *)&e->body, sizeof(int)}, .fingerprint = fp};

    e->token = last_token;
    switch (e->call) {
    case BEGIN:
        e->rc = wb_idem_begin(shared, &op, &fp, NULL, &r, NULL);
        e->answer = r.answer;
        break;
    case COMPLETE:
        e->rc = wb_idem_complete(shared, &op, e->token, &record, NULL);
        break;
    case RELEASE:
        e->rc = wb_idem_release(shared, &op, e->token, NULL);
        break;
    case EXTEND:
        e->rc = wb_idem_extend(shared, &op, e->token, 0, NULL);
        break;
    case UNKNOWN:
        e->rc = wb_idem_unknown(shared, &op, e->token, NULL);
        break;
    case SETTLE:
        e->body = draw % 2 ? e->body : 0;
        e->rc =
            wb_idem_settle(shared, &op, e->body != 0 ? &record : NULL, NULL);
        break;
    case LOOKUP:
        e->rc = wb_idem_lookup(shared, &op, &r, NULL);
        break;
    case STORE:
        e->rc = wb_idem_store(shared, &op, &record, NULL);
        break;
    default:
        e->rc = wb_idem_forget(shared, &op, NULL, NULL);
        break;
    }
    if (e->rc == WB_OK && e->answer == WB_IDEM_ACQUIRED) {
        e->token = r.token;
        last_token = r.token;
    }
    if ((e->call == LOOKUP && e->rc == WB_OK) || e->answer == WB_IDEM_REPLAY)
        memcpy(&e->body, r.record.body.ptr, sizeof(int));
    wb_idem_result_free(&r);
}

static void *
act(void *ctx)
{
    static const enum call likely[] = {BEGIN, BEGIN, BEGIN, COMPLETE, COMPLETE,
        COMPLETE, RELEASE, RELEASE, LOOKUP, EXTEND, UNKNOWN, SETTLE, STORE,
        FORGET};
    int first = *(int *)ctx;
    unsigned draw = 0;

    for (int i = first; i < first + EACH; i++) {
        struct event *e = &history[i];

        ENV->random(ENV->ctx, &draw, sizeof(draw));
        *e = (struct event){
            .call = likely[draw % WB_COUNT(likely)], .body = i + 1};
        e->from = atomic_fetch_add(&moment, 1);
        do_call(e, op_of("me", "s", "k"), draw >> 16);
        e->to = atomic_fetch_add(&moment, 1);
    }
    return NULL;
}

/* ---- the register ------------------------------------------------------ */

struct reg {
    enum {
        ABSENT,
        CLAIMED,
        DOUBT,
        DONE
    } state;
    uint64_t token;
    int body;
};

static bool
owns(const struct reg *r, const struct event *e)
{
    return r->state == CLAIMED && e->token != 0 && r->token == e->token;
}

static bool
begin_fits(struct reg *r, const struct event *e)
{
    static const enum wb_idem_answer expected[] = {
        WB_IDEM_ACQUIRED, WB_IDEM_IN_FLIGHT, WB_IDEM_UNKNOWN, WB_IDEM_REPLAY};

    if (e->rc != WB_OK || e->answer != expected[r->state])
        return false;
    if (r->state == ABSENT)
        *r = (struct reg){.state = CLAIMED, .token = e->token};
    return r->state != DONE || r->body == e->body;
}

static bool
finish_fits(struct reg *r, const struct event *e)
{
    bool own = owns(r, e);

    if (e->call == COMPLETE && r->state == DONE && r->token == e->token &&
        e->token != 0 && r->body == e->body)
        return e->rc == WB_OK; /* once more */
    if (e->call == RELEASE && r->state == ABSENT && e->token != 0)
        return e->rc == WB_OK; /* it is gone */
    if (e->rc != (own ? WB_OK : WB_FENCED))
        return false;
    if (own && e->call == COMPLETE)
        *r = (struct reg){DONE, e->token, e->body};
    if (own && e->call == RELEASE)
        r->state = ABSENT;
    if (own && e->call == UNKNOWN)
        r->state = DOUBT;
    return true;
}

/* Could the event happen now, with this answer? If so it has. */
static bool
fits(struct reg *r, const struct event *e)
{
    bool held = r->state == CLAIMED || r->state == DOUBT;

    switch (e->call) {
    case BEGIN:
        return begin_fits(r, e);
    case LOOKUP:
        return r->state == DONE ? e->rc == WB_OK && e->body == r->body
                                : e->rc == WB_EMPTY;
    case STORE:
        if (!held)
            *r = (struct reg){.state = DONE, .body = e->body};
        return e->rc == (held ? WB_BUSY : WB_OK);
    case SETTLE:
        if (r->state != DOUBT)
            return e->rc == WB_NOTFOUND;
        *r = (struct reg){e->body != 0 ? DONE : ABSENT, r->token, e->body};
        return e->rc == WB_OK;
    case FORGET:
        held = r->state != ABSENT;
        r->state = ABSENT;
        return e->rc == (held ? WB_OK : WB_NOTFOUND);
    default:
        return finish_fits(r, e);
    }
}

/* ---- the search -------------------------------------------------------- */

/* Nodes of the search without a solution: the events that are done, and the
 * register. A lost entry costs time only. */
struct node {
    uint32_t done;
    struct reg reg;
};
static struct node dead_ends[1 << 14];

static struct node *
dead_end(const struct node *p)
{
    uint64_t h = (p->done * UINT64_C(31) + p->reg.token +
                     (uint64_t)p->reg.body * 977 + (uint64_t)p->reg.state) *
                 UINT64_C(0x9e3779b97f4a7c15);

    return &dead_ends[h >> 50];
}

static bool
same_node(const struct node *a, const struct node *b)
{
    return a->done == b->done && a->reg.state == b->reg.state &&
           a->reg.token == b->reg.token && a->reg.body == b->reg.body;
}

/* May event i be the next? Not if another one had ended before it began. */
static bool
is_next(uint32_t done, int i)
{
    for (int j = 0; j < CALLS; j++) {
        if (!(done >> j & 1) && history[j].to < history[i].from)
            return false;
    }
    return true;
}

/* At most CALLS deep. */
static bool
explain(struct node p)
{
    if (p.done == (UINT32_C(1) << CALLS) - 1)
        return true;
    if (same_node(dead_end(&p), &p))
        return false;
    for (int i = 0; i < CALLS; i++) {
        struct node next = p;

        if (p.done >> i & 1 || !is_next(p.done, i) ||
            !fits(&next.reg, &history[i]))
            continue;
        next.done |= UINT32_C(1) << i;
        if (explain(next))
            return true;
    }
    *dead_end(&p) = p;
    return false;
}

static bool
history_is_linear(void)
{
    memset(dead_ends, 0xff, sizeof(dead_ends));
    return explain((struct node){0});
}

static void
show_history(void)
{
    static const char *const names[] = {"begin", "complete", "release",
        "extend", "unknown", "settle", "lookup", "store", "forget"};

    for (int i = 0; i < CALLS; i++) {
        const struct event *e = &history[i];

        print_error("%3u-%3u thread %d %-8s token %016llx body %d: %s %s\n",
            e->from, e->to, i / EACH, names[e->call],
            (unsigned long long)e->token, e->body, wb_status_name(e->rc),
            wb_idem_answer_name(e->answer));
    }
}

static void
run_history(void)
{
    pthread_t thread[THREADS];
    int first[THREADS];

    last_token = 0;
    for (int i = 0; i < THREADS; i++) {
        first[i] = i * EACH;
        CHECK(pthread_create(&thread[i], NULL, act, &first[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(thread[i], NULL) == 0);
}

/* I9 */
TEST(test_idem__random_histories__linearizable)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct wb_idem_op op = op_of("me", "s", "k");
        enum wb_status rc;

        if (shared == NULL)
            shared = open_with((struct wb_idem_opts){.env = wb_env_system()});
        rc = wb_idem_forget(shared, &op, NULL, NULL);
        CHECK(rc == WB_OK || rc == WB_NOTFOUND);
        run_history();
        if (!history_is_linear()) {
            print_error("round %d\n", i);
            show_history();
            fail();
        }
    }
    wb_idem_close(shared);
    shared = NULL;
}

/* The search must be able to say no. */
TEST(test_idem__history_with_two_holders__not_linearizable)
{
    for (int i = 0; i < CALLS; i++)
        history[i] = (struct event){.call = LOOKUP,
            .rc = WB_EMPTY,
            .from = (unsigned)(100 + 2 * i),
            .to = (unsigned)(101 + 2 * i)};
    CHECK(history_is_linear());
    history[0] = (struct event){.call = BEGIN,
        .answer = WB_IDEM_ACQUIRED,
        .token = 1,
        .from = 1,
        .to = 4};
    history[1] = history[0];
    history[1].token = 2;
    CHECK(!history_is_linear());
    history[1].answer = WB_IDEM_IN_FLIGHT;
    CHECK(history_is_linear());
    history[1].to = 2; /* in flight before a begin? */
    history[0].from = 3;
    CHECK(!history_is_linear());
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_idem__random_histories__linearizable),
        RUN(test_idem__history_with_two_holders__not_linearizable),
    };

    RUN_EVERY(tests);
}
