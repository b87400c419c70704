/* The relay against a scripted transport: drain, worker, routes, batches. */
#include "support.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "base/base.h"
#include "outbox/box.h"
#include "relay/relay.h"

/* ---- a transport that answers as it is told --------------------------------
 */

struct fake {
    struct wb_transport base;
    uv_loop_t *loop;         /* NULL: answers inside send() */
    enum wb_outcome outcome; /* of every attempt ... */
    int status;
    const char *error, *body;
    enum wb_outcome script[16]; /* ... but the first n_script */
    size_t n_script;
    int64_t retry_after_ms;
    size_t sent, flying, most_flying;
    char bodies[16][256], ids[16][WB_ID_LEN + 1], batch_ids[16][256];
    uint32_t attempts[16];
    void (*on_send)(struct fake *f);
    void *ctx;
};

struct answer {
    uv_timer_t timer;
    struct fake *fake;
    wb_done_fn *done;
    void *ctx;
    struct wb_result result;
};

static void
answer_freed(uv_handle_t *handle)
{
    free(handle->data);
}

static void
answer_now(uv_timer_t *timer)
{
    struct answer *a = timer->data;

    a->fake->flying--;
    uv_close((uv_handle_t *)timer, answer_freed);
    a->done(a->ctx, &a->result);
}

static struct wb_result
fake_result(struct fake *f)
{
    struct wb_result r = {.outcome = f->outcome,
        .status = f->status,
        .retry_after_ms = f->retry_after_ms,
        .body = wb_slice(f->body),
        .error = wb_slice(f->error)};

    if (f->sent < f->n_script)
        r.outcome = f->script[f->sent];
    return r;
}

static void
fake_send(struct wb_transport *self, const struct wb_request *q,
    wb_done_fn *done, void *ctx)
{
    struct fake *f = (struct fake *)self;
    struct wb_result r = fake_result(f);
    struct answer *a;

    if (f->sent < 16) {
        snprintf(f->bodies[f->sent], sizeof(f->bodies[0]), "%.*s",
            (int)q->body.len, q->body.len > 0 ? q->body.ptr : "");
        snprintf(f->batch_ids[f->sent], sizeof(f->batch_ids[0]), "%.*s",
            (int)q->ids.len, q->ids.len > 0 ? q->ids.ptr : "");
        memcpy(f->ids[f->sent], q->id.text, sizeof(q->id.text));
        f->attempts[f->sent] = q->attempt;
    }
    f->sent++;
    if (f->on_send != NULL)
        f->on_send(f);
    if (f->loop == NULL) {
        done(ctx, &r);
        return;
    }
    if (++f->flying > f->most_flying)
        f->most_flying = f->flying;
    a = calloc(1, sizeof(*a));
    *a = (struct answer){.fake = f, .done = done, .ctx = ctx, .result = r};
    uv_timer_init(f->loop, &a->timer);
    a->timer.data = a;
    uv_timer_start(&a->timer, answer_now, 1, 0);
}

static void
fake_free(struct wb_transport *self)
{
    (void)self;
}

/* ---- a desk to work at
 * -------------------------------------------------------- */

struct desk {
    struct wb_outbox *box;
    struct wb_relay *relay;
    struct fake fake;
    struct wb_route route[3];
    struct wb_report report;
    struct wb_err err;
    uv_loop_t loop;
};

static void
desk_open(struct desk *d)
{
    struct wb_outbox_opts opts = {.env = ENV};

    *d = (struct desk){0};
    d->fake.base = (struct wb_transport){
        .name = "fake", .send = fake_send, .free = fake_free};
    CHECK_OK(wb_outbox_open(&d->box, "box.db", &opts, &d->err), d->err);
    CHECK(uv_loop_init(&d->loop) == 0);
    d->route[0] = (struct wb_route){.kind = "a", .transport = &d->fake.base};
}

static void
desk_start(struct desk *d, size_t n_routes)
{
    struct wb_relay_opts opts = {
        .env = ENV, .routes = d->route, .n_routes = n_routes, .loop = &d->loop};

    CHECK_OK(wb_relay_new(&d->relay, d->box, &opts, &d->err), d->err);
}

static void
desk_close(struct desk *d)
{
    wb_relay_free(d->relay);
    while (uv_run(&d->loop, UV_RUN_NOWAIT) != 0)
        ;
    CHECK(uv_loop_close(&d->loop) == 0);
    wb_outbox_close(d->box);
}

static struct wb_id
put(struct desk *d, const char *kind, const char *payload)
{
    struct wb_message m = {
        .kind = wb_slice(kind), .payload = wb_slice(payload)};
    struct wb_accepted a;

    CHECK_OK(wb_outbox_enqueue(d->box, &m, &a, &d->err), d->err);
    return a.id;
}

static void
drain(struct desk *d, struct wb_drain options)
{
    CHECK_OK(wb_relay_drain(d->relay, &options, &d->report, &d->err), d->err);
}

static uint64_t
sum(const struct wb_report *r)
{
    return r->confirmed + r->retried + r->abandoned + r->rejected +
           r->released + r->fenced;
}

static enum wb_status
on_state(void *ctx, const struct wb_row *row)
{
    struct wb_row *out = ctx;

    out->state = row->state;
    out->attempts = row->attempts;
    out->due_ms = row->due_ms;
    return WB_OK;
}

static struct wb_row
state_of(struct desk *d, struct wb_id id)
{
    struct wb_row row = {0};

    CHECK_OK(wb_outbox_show(d->box, wb_slice(id.text), on_state, &row, &d->err),
        d->err);
    return row;
}

/* ---- D-1 --------------------------------------------------------------------
 */

static void
test_drain__D1_three_due__each_delivered_once(void **state)
{
    struct desk d;

    (void)state;
    desk_open(&d);
    desk_start(&d, 1);
    put(&d, "a", "1");
    put(&d, "a", "2");
    put(&d, "a", "3");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(3, d.report.attempted);
    CHECK_INT(3, d.report.confirmed);
    CHECK_INT(WB_DRAIN_DONE, d.report.why);
    CHECK_INT(3, d.fake.sent);
    CHECK_TEXT("1", d.fake.bodies[0]);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(0, d.report.attempted);
    CHECK_INT(WB_DRAIN_EMPTY, d.report.why);
    desk_close(&d);
}

/* Immediate retries are due at once, and still wait for the next pass. */
static void
test_drain__D1_immediate_retry__once_a_pass(void **state)
{
    static const struct wb_retry_policy now = WB_RETRY_POLICY_IMMEDIATE;
    struct desk d;

    (void)state;
    desk_open(&d);
    d.route[0].retry = &now;
    d.fake.outcome = WB_RETRY;
    d.fake.error = "503 Service Unavailable";
    desk_start(&d, 1);
    put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.fake.sent);
    CHECK_INT(1, d.report.retried);
    world_pass_ms(2);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.fake.sent);
    CHECK_INT(2, d.fake.attempts[1]);
    CHECK_TEXT(d.fake.ids[0], d.fake.ids[1]);
    desk_close(&d);
}

static void
test_drain__D1_max_and_kind__no_more_than_asked(void **state)
{
    struct desk d;

    (void)state;
    desk_open(&d);
    d.route[1] = (struct wb_route){.kind = "b", .transport = &d.fake.base};
    desk_start(&d, 2);
    for (int i = 0; i < 5; i++) {
        put(&d, "a", "x");
        put(&d, "b", "y");
    }
    drain(&d, (struct wb_drain){.max = 2});
    CHECK_INT(2, d.report.attempted);
    drain(&d, (struct wb_drain){.kind = WB_LIT("b")});
    CHECK_INT(4, d.report.attempted);
    drain(&d, (struct wb_drain){.kind = WB_LIT("c")});
    CHECK_INT(WB_DRAIN_NOT_READY, d.report.why);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(4, d.report.attempted);
    desk_close(&d);
}

static bool
never_ready(void *ctx, struct wb_err *err)
{
    (void)ctx;
    (void)err;
    return false;
}

static void
test_drain__D1_not_ready__nothing_touched(void **state)
{
    struct wb_relay_opts opts = {.env = ENV, .ready = never_ready};
    struct desk d;
    struct wb_id id;

    (void)state;
    desk_open(&d);
    opts.routes = d.route;
    opts.n_routes = 1;
    opts.loop = &d.loop;
    CHECK_OK(wb_relay_new(&d.relay, d.box, &opts, &d.err), d.err);
    id = put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(WB_DRAIN_NOT_READY, d.report.why);
    CHECK_INT(0, d.report.attempted);
    CHECK_INT(0, state_of(&d, id).attempts);
    desk_close(&d);
}

/* Every end has its own counter, and they add up. */
static void
test_drain__D1_all_outcomes__counters_are_disjoint(void **state)
{
    static const struct wb_retry_policy once = {0, 0, 0, 1, 1, false};
    struct desk d;
    struct wb_id id[3];

    (void)state;
    desk_open(&d);
    d.route[0].concurrency = 1;
    d.route[1] = (struct wb_route){
        .kind = "b", .transport = &d.fake.base, .retry = &once};
    d.fake.n_script = 5;
    d.fake.script[0] = WB_DELIVERED;
    d.fake.script[1] = WB_RETRY;
    d.fake.script[2] = WB_REJECTED;
    d.fake.script[3] = WB_UNKNOWN;
    d.fake.script[4] = WB_RETRY;
    d.fake.error = "500 Internal Server Error";
    desk_start(&d, 2);
    for (int i = 0; i < 3; i++) {
        id[i] = put(&d, "a", "x");
        world_pass_ms(1);
    }
    put(&d, "a", "x");
    world_pass_ms(1);
    put(&d, "b", "x");
    drain(&d, (struct wb_drain){.concurrency = 1});
    CHECK_INT(5, d.report.attempted);
    CHECK_INT(1, d.report.confirmed);
    CHECK_INT(2, d.report.retried);
    CHECK_INT(1, d.report.rejected);
    CHECK_INT(1, d.report.abandoned);
    CHECK_INT(d.report.attempted, sum(&d.report));
    CHECK_INT(WB_STATE_PENDING, state_of(&d, id[1]).state);
    CHECK_INT(WB_STATE_ABANDONED, state_of(&d, id[2]).state);
    desk_close(&d);
}

static void
test_drain__ended_on_the_way__counted_apart(void **state)
{
    struct wb_message m = {.kind = WB_LIT("a"),
        .payload = WB_LIT("1"),
        .expires_ms = WORLD_START_MS + 5};
    struct desk d;

    (void)state;
    desk_open(&d);
    desk_start(&d, 1);
    CHECK_OK(wb_outbox_enqueue(d.box, &m, NULL, &d.err), d.err);
    world_pass_ms(10);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(0, d.report.attempted);
    CHECK_INT(1, d.report.ended);
    CHECK_INT(0, d.fake.sent);
    desk_close(&d);
}

/* ---- O-6, routes ------------------------------------------------------------
 */

static void
test_route__O6_no_route__left_waiting(void **state)
{
    struct desk d;
    struct wb_id id;

    (void)state;
    desk_open(&d);
    desk_start(&d, 1);
    id = put(&d, "other", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(0, d.fake.sent);
    CHECK_INT(0, state_of(&d, id).attempts);
    CHECK_INT(WB_STATE_PENDING, state_of(&d, id).state);
    desk_close(&d);
}

static void
test_route__several_fit__longest_wins(void **state)
{
    struct desk d;

    (void)state;
    desk_open(&d);
    d.route[0].kind = "*";
    d.route[1] = (struct wb_route){.kind = "git.*", .transport = &d.fake.base};
    d.route[2] =
        (struct wb_route){.kind = "git.push", .transport = &d.fake.base};
    desk_start(&d, 3);
    CHECK_TEXT(
        "git.push", wb__route_of(d.relay, WB_LIT("git.push"))->route->kind);
    CHECK_TEXT("git.*", wb__route_of(d.relay, WB_LIT("git.pull"))->route->kind);
    CHECK_TEXT("*", wb__route_of(d.relay, WB_LIT("gi"))->route->kind);
    put(&d, "x", "1");
    put(&d, "git.push", "2");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.report.confirmed);
    desk_close(&d);
}

static void
test_route__wrong__refused_with_its_name(void **state)
{
    static const struct wb_retry_policy long_one = {
        86400000, 86400000, 0, 1, 9, false};
    struct wb_relay_opts opts = {.env = ENV};
    struct desk d;

    (void)state;
    desk_open(&d);
    opts.routes = d.route;
    opts.n_routes = 2;
    opts.loop = &d.loop;
    d.route[1] = d.route[0];
    CHECK_STATUS(INVALID, wb_relay_new(&d.relay, d.box, &opts, &d.err));
    CHECK_HAS("two routes are named \"a\"", d.err.msg);
    opts.n_routes = 1;
    d.route[0].batch = 65;
    CHECK_STATUS(INVALID, wb_relay_new(&d.relay, d.box, &opts, &d.err));
    CHECK_HAS("the most is 64", d.err.msg);
    d.route[0].batch = 0;
    d.route[0].retry = &long_one; /* O-4: 8 d of retries, ids kept 7 d */
    CHECK_STATUS(INVALID, wb_relay_new(&d.relay, d.box, &opts, &d.err));
    CHECK_HAS("keep_delivered", d.err.msg);
    d.route[0].retry = NULL;
    desk_start(&d, 1);
    desk_close(&d);
}

/* ---- D-2 --------------------------------------------------------------------
 */

static void
test_drain__D2_place_taken__busy_and_flag_left(void **state)
{
    struct wb_outbox_opts opts = {.env = ENV};
    struct wb_outbox *other;
    struct desk d;

    (void)state;
    desk_open(&d);
    desk_start(&d, 1);
    put(&d, "a", "1");
    CHECK_OK(wb_outbox_open(&other, "box.db", &opts, &d.err), d.err);
    CHECK(wb__db_drain_try(other->db, 0));
    wb__db_drain_flag_set(other->db, false);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(WB_DRAIN_BUSY, d.report.why);
    CHECK_INT(0, d.report.attempted);
    CHECK(wb__db_drain_flag(other->db));
    drain(&d, (struct wb_drain){.concurrency = 2});
    CHECK_INT(1, d.report.confirmed); /* the second of two places */
    wb__db_drain_free(other->db, 0);
    wb_outbox_close(other);
    desk_close(&d);
}

/* Another drain comes by while this one sends: it finds the place taken and
 * leaves; its message must not be stranded. */
static void
send_while_draining(struct fake *f)
{
    struct desk *d = f->ctx;
    struct wb_outbox_opts opts = {.env = ENV};
    struct wb_outbox *other;
    struct wb_message m = {.kind = WB_LIT("a"), .payload = WB_LIT("late")};

    if (f->sent != 1)
        return;
    world_pass_ms(10);
    CHECK_OK(wb_outbox_open(&other, "box.db", &opts, &d->err), d->err);
    CHECK_OK(wb_outbox_enqueue(other, &m, NULL, &d->err), d->err);
    CHECK(!wb__db_drain_try(other->db, 0));
    wb__db_drain_flag_set(other->db, true);
    wb_outbox_close(other);
}

static void
test_drain__D2_flag_set_meanwhile__looks_again(void **state)
{
    struct desk d;

    (void)state;
    desk_open(&d);
    d.fake.on_send = send_while_draining;
    d.fake.ctx = &d;
    desk_start(&d, 1);
    put(&d, "a", "early");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.report.confirmed);
    CHECK_TEXT("late", d.fake.bodies[1]);
    desk_close(&d);
}

/* ---- in flight
 * --------------------------------------------------------------- */

static void
test_drain__T1_concurrency__never_more_in_flight(void **state)
{
    struct desk d;

    (void)state;
    desk_open(&d);
    d.fake.loop = &d.loop;
    d.route[0].concurrency = 3;
    desk_start(&d, 1);
    for (int i = 0; i < 10; i++)
        put(&d, "a", "x");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(10, d.report.confirmed);
    CHECK_INT(3, d.fake.most_flying);
    for (int i = 0; i < 10; i++)
        put(&d, "a", "x");
    d.fake.most_flying = 0;
    drain(&d, (struct wb_drain){.concurrency = 2});
    CHECK_INT(2, d.fake.most_flying);
    desk_close(&d);
}

static void
past_half_the_lease(struct fake *f)
{
    struct desk *d = f->ctx;
    const struct wb__flight *flight;

    /* Once all three are out, more than half of the lease goes by. */
    if (f->sent != 3)
        return;
    world_pass_ms(31000);
    for (flight = d->relay->flights; flight != NULL; flight = flight->next)
        CHECK(flight->extend_us <= world.mono_us);
}

static void
test_drain__D2a_half_a_lease_gone__claims_extended(void **state)
{
    struct desk d;
    struct wb_batch batch = {0};
    struct wb_claim claim = {.max = 10};

    (void)state;
    desk_open(&d);
    d.fake.loop = &d.loop;
    d.fake.on_send = past_half_the_lease;
    d.fake.ctx = &d;
    desk_start(&d, 1);
    for (int i = 0; i < 3; i++)
        put(&d, "a", "x");
    d.relay->left = UINT64_MAX;
    d.relay->look = d.relay->kinds_stale = true;
    CHECK_OK(
        wb__pump_turn(d.relay, (struct wb_slice){0}, &(int64_t){0}, &d.err),
        d.err);
    world_pass_ms(30000); /* 61 s after the claim */
    CHECK_STATUS(EMPTY, wb_outbox_claim(d.box, &claim, &batch, &d.err));
    wb_batch_free(&batch);
    while (d.relay->in_flight > 0)
        uv_run(&d.loop, UV_RUN_ONCE);
    d.relay->n_finish = 0;
    wb__arena_clear(&d.relay->errors);
    desk_close(&d);
}

static void
test_drain__T1_rate__paced(void **state)
{
    struct wb_relay_opts opts = {.env = wb_env_system()};
    struct desk d;
    int64_t start_us, us;

    (void)state;
    desk_open(&d);
    d.route[0].rate_per_s = 100;
    opts.routes = d.route;
    opts.n_routes = 1;
    opts.loop = &d.loop;
    CHECK_OK(wb_relay_new(&d.relay, d.box, &opts, &d.err), d.err);
    for (int i = 0; i < 30; i++)
        put(&d, "a", "x");
    start_us = opts.env->mono_us(NULL);
    drain(&d, (struct wb_drain){0});
    us = opts.env->mono_us(NULL) - start_us;
    CHECK_INT(30, d.report.confirmed);
    CHECK(us >= 150000); /* 30 at 100 a second, a tenth of one caught up */
    desk_close(&d);
}

/* ---- B-3 --------------------------------------------------------------------
 */

static void
test_drain__B3_dead_endpoint__others_go_on(void **state)
{
    struct desk d;
    struct fake dead;

    (void)state;
    desk_open(&d);
    dead = d.fake;
    dead.outcome = WB_RETRY;
    d.route[0].concurrency = 1;
    d.route[0].transport = &dead.base;
    d.route[1] = (struct wb_route){.kind = "b", .transport = &d.fake.base};
    desk_start(&d, 2);
    for (int i = 0; i < 10; i++)
        put(&d, "a", "x");
    for (int i = 0; i < 10; i++)
        put(&d, "b", "y");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(3, dead.sent); /* then its breaker opened */
    CHECK_INT(10, d.fake.sent);
    CHECK_INT(1, d.report.breakers_open);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(WB_DRAIN_BREAKER_OPEN, d.report.why);
    CHECK_INT(3, dead.sent);
    desk_close(&d);
}

/* ---- T-2 --------------------------------------------------------------------
 */

static void
judge(void *ctx, const struct wb_claimed *message, struct wb_result *result,
    struct wb_tally *tally)
{
    (void)ctx;
    if (wb__eq(result->body, WB_LIT("{\"recorded\":false}"))) {
        result->outcome = WB_REJECTED;
        result->error = WB_LIT("not recorded");
        return;
    }
    wb_tally_add(tally, "uploaded", 1);
    wb_tally_add(tally, message->payload.ptr[0] == '1' ? "one" : "other", 1);
}

static void
test_drain__T2_response_rule__rejects_and_counts(void **state)
{
    struct desk d;

    (void)state;
    desk_open(&d);
    d.route[0].judge = judge;
    d.fake.status = 200;
    d.fake.body = "{\"recorded\":true}";
    desk_start(&d, 1);
    put(&d, "a", "1");
    put(&d, "a", "2");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(3, d.report.n_tally);
    CHECK_TEXT("one", d.report.tally[0].name);
    CHECK_TEXT("uploaded", d.report.tally[2].name);
    CHECK_INT(2, d.report.tally[2].n);
    d.fake.body = "{\"recorded\":false}";
    put(&d, "a", "3");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.report.rejected);
    CHECK_INT(0, d.report.n_tally);
    desk_close(&d);
}

static void
test_drain__R3_gone__kind_paused_where_the_route_says(void **state)
{
    struct desk d;
    struct wb_batch batch = {0};
    struct wb_claim claim = {.max = 1};

    (void)state;
    desk_open(&d);
    d.route[0].disable_on_410 = true;
    d.fake.outcome = WB_REJECTED;
    d.fake.status = 410;
    desk_start(&d, 1);
    put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    put(&d, "a", "2");
    CHECK_STATUS(EMPTY, wb_outbox_claim(d.box, &claim, &batch, &d.err));
    wb_batch_free(&batch);
    desk_close(&d);
}

/* ---- T-4 --------------------------------------------------------------------
 */

static void
batch_desk(struct desk *d)
{
    desk_open(d);
    d->route[0].batch = 3;
    d->fake.status = 200;
    d->fake.body = "ok";
}

static void
test_batch__T4_array__bodies_in_order_with_their_ids(void **state)
{
    struct desk d;
    struct wb_id id[5];
    char want[256];

    (void)state;
    batch_desk(&d);
    desk_start(&d, 1);
    for (int i = 0; i < 5; i++)
        id[i] = put(&d, "a", i == 0 ? "{\"n\":0}" : "[1]");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(5, d.report.confirmed);
    CHECK_INT(2, d.fake.sent);
    CHECK_TEXT("[{\"n\":0},[1],[1]]", d.fake.bodies[0]);
    CHECK_TEXT("[[1],[1]]", d.fake.bodies[1]);
    snprintf(
        want, sizeof(want), "%s,%s,%s", id[0].text, id[1].text, id[2].text);
    CHECK_TEXT(want, d.fake.batch_ids[0]);
    desk_close(&d);
}

static void
test_batch__T4_ndjson__one_line_each(void **state)
{
    struct desk d;

    (void)state;
    batch_desk(&d);
    d.route[0].batch_ndjson = true;
    desk_start(&d, 1);
    put(&d, "a", "{\"n\":0}");
    put(&d, "a", "{\n \"n\" : 1\n}");
    drain(&d, (struct wb_drain){0});
    CHECK_TEXT("{\"n\":0}\n{\"n\":1}\n", d.fake.bodies[0]);
    desk_close(&d);
}

static void
test_batch__T4_one_is_no_json__it_fails_alone(void **state)
{
    struct desk d;
    struct wb_id bad;

    (void)state;
    batch_desk(&d);
    desk_start(&d, 1);
    put(&d, "a", "1");
    bad = put(&d, "a", "{nonsense");
    put(&d, "a", "3");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.report.confirmed);
    CHECK_INT(1, d.report.rejected);
    CHECK_TEXT("[1,3]", d.fake.bodies[0]);
    CHECK_INT(WB_STATE_ABANDONED, state_of(&d, bad).state);
    desk_close(&d);
}

static void
test_batch__T4_results_per_item__each_has_its_own_end(void **state)
{
    struct desk d;
    struct wb_id id[3];

    (void)state;
    batch_desk(&d);
    d.fake.body = "{\"results\":[{\"status\":201},{\"status\":503},"
                  "{\"error\":\"no such team\"}]}";
    desk_start(&d, 1);
    for (int i = 0; i < 3; i++)
        id[i] = put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.report.confirmed);
    CHECK_INT(1, d.report.retried);
    CHECK_INT(1, d.report.rejected);
    CHECK_INT(WB_STATE_PENDING, state_of(&d, id[1]).state);
    CHECK_INT(WB_STATE_ABANDONED, state_of(&d, id[2]).state);
    desk_close(&d);
}

static void
test_batch__T4_whole_fails__all_share_the_outcome(void **state)
{
    struct desk d;

    (void)state;
    batch_desk(&d);
    d.fake.outcome = WB_UNKNOWN;
    desk_start(&d, 1);
    for (int i = 0; i < 3; i++)
        put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    CHECK_INT(1, d.fake.sent);
    CHECK_INT(3, d.report.retried);
    desk_close(&d);
}

/* The same messages together are the same request again. */
static void
test_batch__sent_again__same_id(void **state)
{
    static const struct wb_retry_policy now = WB_RETRY_POLICY_IMMEDIATE;
    struct desk d;

    (void)state;
    batch_desk(&d);
    d.route[0].retry = &now;
    d.fake.outcome = WB_RETRY;
    desk_start(&d, 1);
    put(&d, "a", "1");
    put(&d, "a", "2");
    drain(&d, (struct wb_drain){0});
    world_pass_ms(2);
    drain(&d, (struct wb_drain){0});
    CHECK_INT(2, d.fake.sent);
    CHECK_TEXT(d.fake.ids[0], d.fake.ids[1]);
    desk_close(&d);
}

/* ---- D-3 --------------------------------------------------------------------
 */

struct stopping {
    struct desk *desk;
    size_t after;
};

static void
stop_after(struct fake *f)
{
    struct stopping *s = f->ctx;

    if (f->sent >= s->after)
        wb_relay_stop(s->desk->relay);
}

/* Another process sends while the worker sleeps: its commit wakes it. */
static void
test_worker__D3_other_process_commits__wakes_and_delivers(void **state)
{
    struct wb_relay_opts opts = {.env = wb_env_system()};
    struct wb_drain options = {0};
    struct stopping s;
    struct desk d;
    int64_t start_us;
    pid_t child;
    int status;

    (void)state;
    desk_open(&d);
    s = (struct stopping){.desk = &d, .after = 1};
    d.fake.on_send = stop_after;
    d.fake.ctx = &s;
    opts.routes = d.route;
    opts.n_routes = 1;
    opts.loop = &d.loop;
    CHECK_OK(wb_relay_new(&d.relay, d.box, &opts, &d.err), d.err);
    child = test_fork();
    if (child == 0) {
        struct wb_outbox *box;
        struct wb_message m = {.kind = WB_LIT("a"), .due_ms = 1};

        usleep(100000); /* the worker is asleep by then */
        if (wb_outbox_open(&box, "box.db", NULL, NULL) != WB_OK ||
            wb_outbox_enqueue(box, &m, NULL, NULL) != WB_OK)
            _Exit(1);
        wb_outbox_close(box);
        _Exit(0);
    }
    start_us = opts.env->mono_us(NULL);
    CHECK_OK(wb_relay_run(d.relay, &options, &d.report, &d.err), d.err);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_INT(1, d.report.confirmed);
    CHECK(opts.env->mono_us(NULL) - start_us < 10000000); /* not LONGEST_MS */
    desk_close(&d);
}

static void
test_worker__D3_stopped__in_flight_is_finished(void **state)
{
    struct wb_drain options = {0};
    struct stopping s;
    struct desk d;

    (void)state;
    desk_open(&d);
    s = (struct stopping){.desk = &d, .after = 1};
    d.fake.loop = &d.loop;
    d.fake.on_send = stop_after;
    d.fake.ctx = &s;
    d.route[0].concurrency = 2;
    desk_start(&d, 1);
    for (int i = 0; i < 9; i++)
        put(&d, "a", "x");
    CHECK_OK(wb_relay_run(d.relay, &options, &d.report, &d.err), d.err);
    CHECK_INT(2, d.fake.sent); /* what was claimed with the first */
    CHECK_INT(2, d.report.confirmed);
    desk_close(&d);
}

/* ---- the note ---------------------------------------------------------------
 */

static void
test_drain__O15_last_drain__told_without_the_database(void **state)
{
    char text[1024];
    struct desk d;

    (void)state;
    desk_open(&d);
    desk_start(&d, 1);
    CHECK_STATUS(NOTFOUND, wb_relay_last("box.db", text, sizeof(text), &d.err));
    put(&d, "a", "1");
    drain(&d, (struct wb_drain){0});
    desk_close(&d);
    test_write("box.db", "rubbish", 7);
    CHECK_OK(wb_relay_last("box.db", text, sizeof(text), &d.err), d.err);
    CHECK_HAS("\"confirmed\":1", text);
    CHECK_STATUS(TOOBIG, wb_relay_last("box.db", text, 10, &d.err));
}

/* ---- memory -----------------------------------------------------------------
 */

/* Whatever runs out of memory, nothing is lost: what was sent and not noted is
 * sent again with the same id. */
static void
test_drain__any_alloc_fails__nothing_lost(void **state)
{
    struct wb_drain options = {0};
    struct desk d;
    struct wb_id id;
    long n;

    (void)state;
    desk_open(&d);
    desk_start(&d, 1);
    for (n = 0;; n++) {
        enum wb_status rc;

        id = put(&d, "a", "x");
        world_fail_at(n);
        rc = wb_relay_drain(d.relay, &options, &d.report, &d.err);
        if (world.failed == 0)
            break;
        world_fail_at(-1);
        CHECK(rc == WB_OK || rc == WB_NOMEM);
        world_pass_ms(61000);
        drain(&d, (struct wb_drain){0});
        CHECK_STATUS(NOTFOUND, wb_outbox_show(d.box, wb_slice(id.text),
                                   on_state, &(struct wb_row){0}, NULL));
    }
    world_fail_at(-1);
    CHECK(n > 5);
    desk_close(&d);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_drain__D1_three_due__each_delivered_once),
        RUN(test_drain__D1_immediate_retry__once_a_pass),
        RUN(test_drain__D1_max_and_kind__no_more_than_asked),
        RUN(test_drain__D1_not_ready__nothing_touched),
        RUN(test_drain__D1_all_outcomes__counters_are_disjoint),
        RUN(test_drain__ended_on_the_way__counted_apart),
        RUN(test_route__O6_no_route__left_waiting),
        RUN(test_route__several_fit__longest_wins),
        RUN(test_route__wrong__refused_with_its_name),
        RUN(test_drain__D2_place_taken__busy_and_flag_left),
        RUN(test_drain__D2_flag_set_meanwhile__looks_again),
        RUN(test_drain__T1_concurrency__never_more_in_flight),
        RUN(test_drain__D2a_half_a_lease_gone__claims_extended),
        RUN(test_drain__T1_rate__paced),
        RUN(test_drain__B3_dead_endpoint__others_go_on),
        RUN(test_drain__T2_response_rule__rejects_and_counts),
        RUN(test_drain__R3_gone__kind_paused_where_the_route_says),
        RUN(test_batch__T4_array__bodies_in_order_with_their_ids),
        RUN(test_batch__T4_ndjson__one_line_each),
        RUN(test_batch__T4_one_is_no_json__it_fails_alone),
        RUN(test_batch__T4_results_per_item__each_has_its_own_end),
        RUN(test_batch__T4_whole_fails__all_share_the_outcome),
        RUN(test_batch__sent_again__same_id),
        RUN(test_worker__D3_other_process_commits__wakes_and_delivers),
        RUN(test_worker__D3_stopped__in_flight_is_finished),
        RUN(test_drain__O15_last_drain__told_without_the_database),
        RUN(test_drain__any_alloc_fails__nothing_lost),
    };

    return RUN_ALL(tests);
}
