/* sink.c - `waybill sink`: a receiver for trying and testing.
 *
 *  1. Each id takes effect once: one line of NDJSON in the file, durable before
 *     the response. Requests that arrive together share one write and sync: a
 *     response is sent after the flush that covers it, which on_check() does
 *     once an iteration of the loop, after all its input.
 *  2. A kill at any instruction doubles nothing: ids are read back from the
 *     file, a torn last line is cut off.
 *  3. It misbehaves by seeded random draws only: the same seed and the same
 *     order of requests give the same faults. */
#include "cli/cli.h"
#include "cli/sink_store.h"
#include "http/server.h"

enum {
    HEAD_BYTES = 64 << 10,
    CONNECTIONS_MAX = 4096
};

/* Counts of messages. */
enum {
    RECEIVED,
    APPLIED,
    DUPLICATES,
    FAILED,
    DROPPED,
    COUNTS
};

struct queue {
    struct request *first, **end;
};

struct sink {
    struct cli *cli;
    /* options */
    uint32_t fail_ppm, drop_ppm; /* probabilities, in millionths */
    int64_t delay_ms, retry_after_ms;
    int status;        /* always respond with it; 0: not given */
    const char *reply; /* body of 200 responses, or NULL: the counts */

    uv_check_t check;
    uv_idle_t idle;   /* the loop does not block before the check */
    uv_timer_t timer; /* of the first delayed request */
    struct cli_stop stop;
    struct wb__http_server *server;
    struct sink_store *store;
    struct queue queue;   /* requests that wait for a flush */
    struct queue delayed; /* flushed; they wait for due_ms, which only rises */
    uint64_t counts[COUNTS]; /* since the start */
    uint64_t random;
    bool stopping;
    enum wb_status failed; /* of the file: then nothing more is applied */
    struct wb_err err;
};

/* A request between its arrival and its response. */
struct request {
    struct sink *sink;
    struct request *next;
    struct wb__exchange *exchange;
    uint64_t due_ms; /* of the response, by the loop's clock */
    uint64_t counts[COUNTS];
    int status;      /* 0: it was applied */
    bool drop;       /* close the connection without a response */
    const char *why; /* of a status that no option demanded */
};

/* ---- responses ---------------------------------------------------------- */

static void
respond(struct wb__exchange *exchange, int status, const char *extra,
    struct wb_slice body)
{
    char headers[128];

    (void)snprintf(
        headers, sizeof(headers), "Content-Type: application/json\n%s", extra);
    wb__exchange_respond(exchange,
        &(struct wb__response){
            .status = status, .headers = wb_slice(headers), .body = body});
}

/* Takes the body; without memory it is empty. */
static void
respond_json(
    struct wb__exchange *exchange, int status, const char *extra, json_t *take)
{
    char text[512];
    size_t len = json_dumpb(take, text, sizeof(text) - 1, JSON_COMPACT);

    WB_ASSERT(len < sizeof(text));
    text[len] = '\n';
    respond(exchange, status, extra, (struct wb_slice){text, len + 1});
    json_decref(take);
}

static void
respond_error(struct wb__exchange *exchange, int status, const char *why)
{
    respond_json(exchange, status,
        status == 405 ? "Allow: POST, PUT, PATCH, DELETE\n" : "",
        json_pack("{s:s}", "error", why));
}

/* The end of a request; frees it. */
static void
finish(struct request *r)
{
    const struct sink *s = r->sink;
    int64_t retry_s = wb__sat_add(s->retry_after_ms, 999) / 1000;
    char extra[64] = "";

    if (retry_s > 0)
        (void)snprintf(
            extra, sizeof(extra), "Retry-After: %lld\n", (long long)retry_s);
    if (r->drop)
        wb__exchange_drop(r->exchange);
    else if (r->why != NULL)
        respond_error(r->exchange, r->status, r->why);
    else if (r->status != 0)
        respond_json(r->exchange, r->status, extra,
            json_pack("{s:s}", "error", "as an option demands"));
    else if (s->reply != NULL)
        respond(r->exchange, 200, "", wb_slice(s->reply));
    else
        respond_json(r->exchange, 200, "",
            json_pack("{s:I, s:I}", "applied", (json_int_t)r->counts[APPLIED],
                "duplicates", (json_int_t)r->counts[DUPLICATES]));
    wb__free(s->cli->env, r);
}

static void
push(struct queue *q, struct request *r)
{
    if (q->first == NULL)
        q->end = &q->first;
    r->next = NULL;
    *q->end = r;
    q->end = &r->next;
}

/* The timer's callback. */
static void
finish_delayed(uv_timer_t *timer)
{
    struct sink *s = timer->data;
    uint64_t now_ms = uv_now(&s->cli->loop);
    struct request *r;

    while ((r = s->delayed.first) != NULL &&
           (s->stopping || r->due_ms <= now_ms)) {
        s->delayed.first = r->next;
        finish(r);
    }
    if (r != NULL)
        (void)uv_timer_start(timer, finish_delayed, r->due_ms - now_ms, 0);
}

/* ---- applying and flushing ---------------------------------------------- */

static void
flush(struct sink *s)
{
    struct wb_err err;
    struct request *r, *next;
    enum wb_status status = WB_OK;

    if (s->failed == WB_OK)
        status = sink_store_flush(s->store, &err);
    /* After a failed flush: what was added to it has not happened. */
    for (r = status != WB_OK ? s->queue.first : NULL; r != NULL; r = r->next) {
        if (r->counts[APPLIED] + r->counts[DUPLICATES] == 0)
            continue;
        r->counts[FAILED] += r->counts[APPLIED] + r->counts[DUPLICATES];
        r->counts[APPLIED] = r->counts[DUPLICATES] = r->counts[DROPPED] = 0;
        r->drop = false;
        r->status = 503;
        r->why = "the effects could not be written";
    }
    if (status == WB_IO) {
        s->failed = status;
        s->err = err;
    }
    next = s->queue.first;
    s->queue.first = NULL; /* a response may bring the next request */
    while ((r = next) != NULL) {
        next = r->next;
        for (int i = 0; i < COUNTS; i++)
            s->counts[i] += r->counts[i];
        r->due_ms = uv_now(&s->cli->loop) + (uint64_t)s->delay_ms;
        if (s->delay_ms == 0)
            finish(r);
        else
            push(&s->delayed, r);
    }
    finish_delayed(&s->timer);
}

static void
stop(struct sink *s)
{
    s->stopping = true;
    finish_delayed(&s->timer);
    wb__http_server_stop(s->server);
}

static void
on_check(uv_check_t *check)
{
    struct sink *s = check->data;

    (void)uv_check_stop(&s->check);
    (void)uv_idle_stop(&s->idle);
    flush(s); /* which may start both again */
    if (s->failed != WB_OK && !s->stopping)
        stop(s);
}

static void
on_idle(uv_idle_t *idle)
{
    (void)idle;
}

/* splitmix64. Each request draws twice, whatever is done with the results, so
 * that one option does not change the faults of the other. */
static bool
draw(struct sink *s, uint32_t ppm)
{
    uint64_t z = s->random += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (z ^ (z >> 31)) % 1000000 < ppm;
}

static void
apply_or_fail(struct request *r, struct sink_messages *m)
{
    struct sink *s = r->sink;
    bool fail = draw(s, s->fail_ppm);
    bool drop = draw(s, s->drop_ppm);
    int64_t now_ms = s->cli->env->wall_ms(s->cli->env->ctx);
    enum wb_status status;

    r->counts[RECEIVED] = m->n;
    if (s->failed != WB_OK) {
        r->status = 503;
        r->why = "the file has failed";
    } else if (s->status != 0 || fail) {
        r->status = s->status != 0 ? s->status : 500;
    } else {
        r->drop = drop;
        r->counts[DROPPED] = drop ? m->n : 0;
        while (r->why == NULL && sink_messages_next(m)) {
            status = sink_store_add(s->store, &m->effect, now_ms);
            if (status == WB_OK || status == WB_EMPTY) {
                r->counts[status == WB_OK ? APPLIED : DUPLICATES]++;
            } else {
                r->status = 503;
                r->why = "no memory for the effect";
                r->counts[FAILED] += m->n + 1;
            }
        }
        return;
    }
    r->counts[FAILED] = m->n;
}

static void
take_request(struct sink *s, struct wb__exchange *exchange)
{
    struct request *r = wb__alloc(s->cli->env, sizeof(*r));
    struct sink_messages m;

    if (r == NULL) {
        respond_error(exchange, 503, "out of memory");
        return;
    }
    r->sink = s;
    r->exchange = exchange;
    if (sink_store_is_full(s->store))
        flush(s);
    r->why = sink_messages_read(&m, exchange->head, exchange->body);
    if (r->why != NULL)
        r->status = 400;
    else
        apply_or_fail(r, &m);
    push(&s->queue, r);
    (void)uv_check_start(&s->check, on_check);
    (void)uv_idle_start(&s->idle, on_idle);
}

static json_t *
counts_object(const struct sink *s)
{
    static const char *const names[] = {
        "received", "applied", "duplicates", "failed", "dropped"};
    json_t *object = json_object();

    for (int i = 0; i < COUNTS; i++)
        (void)json_object_set_new(
            object, names[i], json_integer((json_int_t)s->counts[i]));
    (void)json_object_set_new(object, "effects",
        json_integer((json_int_t)sink_store_count(s->store)));
    return object;
}

static void
handle(void *ctx, struct wb__exchange *exchange)
{
    static const char *const methods[] = {"POST", "PUT", "PATCH", "DELETE"};
    struct sink *s = ctx;

    for (size_t i = 0; i < WB_COUNT(methods); i++) {
        if (wb__eq(exchange->head->method, wb_slice(methods[i]))) {
            take_request(s, exchange);
            return;
        }
    }
    if (!wb__eq(exchange->head->path, WB_LIT("/stats")))
        respond_error(exchange, 405, "send messages by POST; GET /stats");
    else
        respond_json(exchange, 200, "", counts_object(s));
}

/* ---- start and stop ----------------------------------------------------- */

/* The server's stopped(). */
static void
close_all(void *ctx)
{
    struct sink *s = ctx;

    wb__http_server_close(s->server);
    uv_close((uv_handle_t *)&s->check, NULL);
    uv_close((uv_handle_t *)&s->idle, NULL);
    uv_close((uv_handle_t *)&s->timer, NULL);
    cli_stop_close(&s->stop);
}

static void
on_signal(uv_signal_t *handle, int number)
{
    struct sink *s = handle->data;

    (void)number;
    if (!s->stopping) {
        stop(s);
        return;
    }
    flush(s); /* the second signal does not wait for the clients */
    close_all(s);
}

/* Until SIGTERM or SIGINT, or a failure of the file. */
static enum wb_status
serve(struct sink *s, struct wb_err *err)
{
    struct cli *cli = s->cli;
    const struct wb__http_server_opts opts = {
        .env = cli->env,
        .loop = &cli->loop,
        .listen = cli_slice(cli, "listen"),
        .limits = {.head_bytes = HEAD_BYTES, .body_bytes = SINK_BODY_BYTES},
        .max_conns = CONNECTIONS_MAX,
        .handle = handle,
        .stopped = close_all,
        .ctx = s,
    };
    enum wb_status status = wb__http_server_open(&s->server, &opts, err);
    const char *address;
    char seed[24];

    if (status == WB_OK) {
        (void)uv_check_init(&cli->loop, &s->check);
        (void)uv_idle_init(&cli->loop, &s->idle);
        (void)uv_timer_init(&cli->loop, &s->timer);
        s->check.data = s->timer.data = s;
        cli_stop_open(&s->stop, &cli->loop, on_signal, s);
        address = wb__http_server_address(s->server);
        (void)cli_u64(s->random, seed);
        (void)cli_result(cli,
            json_pack("{s:s, s:s}", "listening", address, "seed", seed),
            "listening on %s, seed %s", address, seed);
        (void)fflush(stdout);
    }
    (void)uv_run(&cli->loop, UV_RUN_DEFAULT);
    if (s->failed == WB_OK)
        return status;
    *err = s->err;
    return s->failed;
}

static enum cli_exit
run_sink(struct cli *cli)
{
    struct sink s = {.cli = cli,
        .fail_ppm = (uint32_t)cli_number(cli, "fail", 0),
        .drop_ppm = (uint32_t)cli_number(cli, "drop", 0),
        .delay_ms = cli_ms(cli, "delay", 0),
        .retry_after_ms = cli_ms(cli, "retry-after", 0),
        .status = (int)cli_number(cli, "status", 0),
        .reply = cli_text(cli, "reply")};
    struct wb_err err = {0};
    enum cli_exit code;
    enum wb_status status;

    cli->env->random(cli->env->ctx, &s.random, sizeof(s.random));
    s.random = cli_number(cli, "seed", s.random);
    status = sink_store_open(&s.store, cli->env, cli_text(cli, "into"), &err);
    if (status == WB_OK && uv_loop_init(&cli->loop) != 0)
        status = wb__nomem(&err, "event loop");
    else if (status == WB_OK) {
        status = serve(&s, &err);
        WB_ASSERT(uv_loop_close(&cli->loop) == 0);
    }
    if (status == WB_OK)
        code = cli_result(cli, counts_object(&s),
            "%llu received, %llu applied, %llu duplicate%s",
            (unsigned long long)s.counts[RECEIVED],
            (unsigned long long)s.counts[APPLIED],
            (unsigned long long)s.counts[DUPLICATES],
            s.counts[DUPLICATES] == 1 ? "" : "s");
    else /* INVALID is the address */
        code = status == WB_INVALID ? cli_fail(cli, &err)
                                    : cli_fail_no_usage(cli, &err);
    sink_store_close(s.store);
    return code;
}

static const struct cli_option sink_options[] = {
    {"listen", CLI_TEXT, "ADDR", "host:port, or :port; required"},
    {"into", CLI_FILE, "FILE", "file of effects, one JSON line each; required"},
    {"fail", CLI_SHARE, "P", "respond 500 without applying, this share [0]"},
    {"drop", CLI_SHARE, "P",
        "apply and close without a response, this share [0]"},
    {"delay", CLI_DURATION, "D", "respond this long after applying [0s]"},
    {"status", CLI_HTTP_STATUS, "N",
        "always respond with this, applying nothing"},
    {"retry-after", CLI_DURATION, "D", "Retry-After of refusals [none]"},
    {"reply", CLI_TEXT, "JSON", "body of 200 responses [the counts]"},
    {"seed", CLI_TOKEN, "N", "of the random faults, to repeat a run [random]"},
    {0},
};

const struct cli_command cli_sink = {
    .name = "sink",
    .group = "Trying out",
    .args = "--listen ADDR --into FILE [--fail P] [--drop P] [--delay D] ...",
    .help = "a receiver that applies each id once",
    .more = "For trying and testing. SIGTERM ends it and prints the counts; "
            "GET /stats shows\nthem. It reads the ids of FILE when it starts.",
    .options = sink_options,
    .required = "listen into",
    .run = run_sink,
    .examples =
        "waybill sink --listen 127.0.0.1:8080 --into effects.ndjson\n"
        "waybill sink --listen :8080 --into e.ndjson --fail 0.2 --drop 5%",
};
