/* file.c - append messages to a file as NDJSON.
 *
 * (1) A message is one line, whatever its payload: JSON has its line ends
 *     replaced by spaces, anything else is written as base64.
 * (2) Delivered means on the disk; see wb__append_line(). A thread of libuv's
 *     writes, one line at a time: the loop never waits for a disk.
 * (3) No thread waits for the lock of the file either: the loop tries again
 *     until the request's time is over. A few locked files would else take all
 *     the threads there are.
 * (4) A line that is still being written at its deadline is reported as
 *     unknown, and the next one waits for the end of the write. */

#include "os/os.h"
#include "transport/http.h"

enum {
    LINE_BYTES = 256 << 20,
    TRY_MS = 2, /* then after twice that, and so on */
    TRY_MAX_MS = 100
};

struct line {
    struct line *next;
    wb_done_fn *done;
    void *ctx;
    uint64_t end_ms; /* of the loop's clock */
    struct wb__buf text;
};

struct file {
    struct wb_transport base; /* first: cast back to the file */
    const struct wb_env *env;
    uv_loop_t *loop;
    struct line *first, **last; /* that wait, and the one being written */
    struct line *writing;       /* by work; first, or reported already */
    uv_timer_t timer;
    uv_work_t work;
    uint64_t wait_ms; /* before the next try; 0: the lock was free */
    enum wb_status rc;
    struct wb_err err;
    bool freed, closed; /* by file_free(); and its timer */
    char path[];
};

/* ---- a line ------------------------------------------------------------ */

static void
line_write(struct wb__buf *b, const struct wb_request *q)
{
    size_t at;

    wb__buf_str(b, "{\"id\":\"");
    wb__buf_str(b, q->id.text);
    wb__buf_str(b, "\",\"kind\":\"");
    wb__buf_add(b, q->kind);
    if (!wb__json_valid(q->body, NULL)) {
        wb__buf_str(b, "\",\"payload_base64\":\"");
        wb__base64(b, q->body);
        wb__buf_str(b, "\"}\n");
        return;
    }
    wb__buf_str(b, "\",\"payload\":");
    at = b->len;
    wb__buf_add(b, q->body);
    /* In JSON a raw line end is only ever white space between tokens. */
    for (; at < b->len; at++)
        if (b->ptr[at] == '\n' || b->ptr[at] == '\r')
            b->ptr[at] = ' ';
    wb__buf_str(b, "}\n");
}

/* Needs no escape between quotes. */
static bool
is_plain(struct wb_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] == '"' || s.ptr[i] == '\\')
            return false;
    return wb__printable(s);
}

/* What to report of a line that was written, or not. */
static enum wb_outcome
outcome_of(enum wb_status rc)
{
    return rc == WB_OK ? WB_DELIVERED : rc == WB_IO ? WB_UNKNOWN : WB_RETRY;
}

static void
line_free(struct file *f, struct line *line)
{
    wb__buf_fini(&line->text);
    wb__free(f->env, line);
}

/* Take the first line off the queue and report it. It is freed unless a thread
 * still has it. */
static void
report_first(struct file *f, enum wb_outcome outcome, const char *why)
{
    const struct wb_result delivered = {.outcome = WB_DELIVERED};
    struct line *line = f->first;
    wb_done_fn *done = line->done;
    void *ctx = line->ctx;

    f->first = line->next;
    if (f->first == NULL)
        f->last = &f->first;
    if (line != f->writing)
        line_free(f, line);
    if (outcome == WB_DELIVERED)
        done(ctx, &delivered);
    else if (outcome == WB_RETRY && why == f->err.msg &&
             wb__errno_is_lack(f->err.sys))
        wb__transport_lacks(done, ctx, why);
    else
        wb__transport_refuse(done, ctx, outcome, why);
}

/* ---- the queue --------------------------------------------------------- */

static void on_timer(uv_timer_t *timer);

/* Freed as soon as neither the loop nor a thread has it. */
static void
free_unused(struct file *f)
{
    if (f->closed && f->writing == NULL)
        wb__free(f->env, f);
}

static void
on_work(uv_work_t *work)
{
    struct file *f = work->data;

    f->rc = wb__append_line(
        f->path, wb__buf_slice(&f->writing->text), false, &f->err);
}

static void write_next(struct file *f);

static void
on_written(uv_work_t *work, int status)
{
    struct file *f = work->data;
    struct line *line = f->writing;
    bool reported = line != f->first;

    f->writing = NULL;
    if (reported)
        line_free(f, line);
    if (f->freed) {
        free_unused(f);
        return;
    }
    if (status != 0)
        f->rc = WB_UNAVAILABLE; /* cancelled: reported already */
    f->wait_ms = f->rc != WB_BUSY              ? 0
                 : f->wait_ms == 0             ? TRY_MS
                 : 2 * f->wait_ms < TRY_MAX_MS ? 2 * f->wait_ms
                                               : TRY_MAX_MS;
    if (!reported && f->rc != WB_BUSY)
        report_first(f, outcome_of(f->rc), f->err.msg);
    write_next(f);
}

/* Write the first line, now or when its time has come. A callback of on_written
 * may have done it already. */
static void
write_next(struct file *f)
{
    uint64_t now = uv_now(f->loop), left;

    if (f->first == NULL || f->freed) {
        (void)uv_timer_stop(&f->timer);
        return;
    }
    left = f->first->end_ms > now ? f->first->end_ms - now : 0;
    if (f->writing == NULL && f->wait_ms == 0) {
        f->writing = f->first;
        if (uv_queue_work(f->loop, &f->work, on_work, on_written) != 0) {
            f->writing = NULL;
            f->wait_ms = TRY_MAX_MS;
        }
    }
    if (f->writing == NULL && f->wait_ms < left)
        left = f->wait_ms;
    (void)uv_timer_start(&f->timer, on_timer, left, 0);
}

/* Report what ran out of time; then it is time for the next try. */
static void
on_timer(uv_timer_t *timer)
{
    struct file *f = timer->data;

    while (f->first != NULL && f->first->end_ms <= uv_now(f->loop)) {
        if (f->writing == NULL)
            report_first(f, WB_RETRY, f->err.msg);
        else if (f->first != f->writing || uv_cancel((uv_req_t *)&f->work) == 0)
            report_first(f, WB_RETRY, "other writes take too long");
        else
            report_first(f, WB_UNKNOWN, "the write takes too long");
    }
    if (f->writing == NULL)
        f->wait_ms = 0;
    write_next(f);
}

static void
file_send(struct wb_transport *self, const struct wb_request *request,
    wb_done_fn *done, void *ctx)
{
    struct file *f = (struct file *)self;
    struct line *line;

    if (!is_plain(request->kind) || !is_plain(wb_slice(request->id.text))) {
        wb__transport_refuse(
            done, ctx, WB_REJECTED, "kind or id is not plain text");
        return;
    }
    line = wb__alloc(f->env, sizeof(*line));
    if (line == NULL) {
        wb__transport_lacks(done, ctx, "out of memory");
        return;
    }
    *line = (struct line){.done = done,
        .ctx = ctx,
        .end_ms = uv_now(f->loop) +
                  (request->timeout_ms > 0 ? (uint64_t)request->timeout_ms : 1),
        .text = {.env = f->env, .max = LINE_BYTES}};
    line_write(&line->text, request);
    if (line->text.failed != WB_OK) {
        bool too_long = line->text.failed == WB_TOOBIG;

        line_free(f, line);
        if (too_long)
            wb__transport_refuse(
                done, ctx, WB_REJECTED, "the line is longer than 256 MiB");
        else
            wb__transport_lacks(done, ctx, "out of memory");
        return;
    }
    *f->last = line;
    f->last = &line->next;
    if (f->first == line)
        write_next(f);
}

/* ---- new and free ------------------------------------------------------ */

static void
on_closed(uv_handle_t *timer)
{
    struct file *f = timer->data;

    f->closed = true;
    free_unused(f);
}

static void
file_free(struct wb_transport *self)
{
    struct file *f = (struct file *)self;
    struct line *next;

    for (struct line *line = f->first; line != NULL; line = next) {
        next = line->next;
        if (line != f->writing)
            line_free(f, line);
    }
    f->first = NULL;
    f->freed = true;
    uv_close((uv_handle_t *)&f->timer, on_closed);
}

enum wb_status
wb_file_new(struct wb_transport **out, const struct wb_env *env,
    struct uv_loop_s *loop, const char *path, struct wb_err *err)
{
    enum wb_status rc = wb__append_check(path, err);
    size_t len = strlen(path);
    struct file *f;

    *out = NULL;
    if (rc != WB_OK)
        return rc;
    env = env == NULL ? wb_env_system() : env;
    f = wb__alloc(env, sizeof(*f) + len + 1);
    if (f == NULL)
        return wb__nomem(err, "file transport");
    f->base = (struct wb_transport){"file", file_send, file_free};
    f->env = env;
    f->loop = loop;
    f->last = &f->first;
    (void)uv_timer_init(loop, &f->timer);
    f->timer.data = f->work.data = f;
    memcpy(f->path, path, len + 1);
    *out = &f->base;
    return WB_OK;
}
