/* exec.c - a command per message: payload on stdin, id in the environment.
 *
 * (1) No shell, and nothing of the message in argv: it cannot become a command
 *     or an option.
 * (2) The payload is a nameless file and not a pipe: a command that reads
 *     nothing raises no SIGPIPE here, one that reads late blocks nothing.
 * (3) An attempt ends at most two seconds after its deadline, or one second
 *     after its command, even if the pipes are still open elsewhere.
 * (4) Every child is waited for, also after its transport was freed.
 * (5) The loop's thread starts the children. SIGKILL ends a child when that
 *     thread ends, so that no command of a killed worker runs on while another
 *     worker sends its message again. */
#include <ctype.h>
#include <stdio.h>
#include <uv.h>

#include "os/os.h"
#include "transport/http.h"

enum {
    REPLY_BYTES = 65536,
    ENV_BYTES = 262144,
    TAIL_BYTES = 4096,
    ERROR_CHARS = 1500,
    ERROR_LINES = 10,
    GRACE_MS = 1000,
    ARGS_MAX = 1024,
    EXIT_TEMPORARY = 75, /* EX_TEMPFAIL of sysexits.h, whose range is 64..78 */
};

struct exec {
    struct wb_transport base; /* first: cast back to the exec */
    const struct wb_env *env;
    uv_loop_t *loop;
    struct wb__arena arena; /* of argv */
    char **argv;
    struct run *runs;
};

struct run {
    const struct wb_env *env;
    struct run *next, **link; /* list of runs; NULL: reported or dropped */
    wb_done_fn *done;
    void *ctx;
    int64_t timeout_ms;

    struct wb__child child;
    uv_timer_t timer;
    uv_pipe_t out, err;
    uv_poll_t end; /* of the child; initialised if watched */
    int handles;   /* not closed yet */
    int pipes;     /* not at their end yet */
    bool watched, exited, killed, cut;
    bool lost; /* exit_status and signal are unknown */
    int exit_status, signal;

    struct wb__buf reply, vars;
    char **envp;
    char tail[TAIL_BYTES]; /* of stderr */
    size_t n_tail;
    char block[TAIL_BYTES]; /* what libuv reads into */
};

/* ---- the environment of a child ---------------------------------------- */

extern char **environ;

/* A variable that we set, or that an outer Waybill set for this process. */
static bool
is_ours(struct wb_slice var)
{
    static const char *const names[] = {
        "WAYBILL_ID=", "WAYBILL_IDS=", "WAYBILL_KIND=", "WAYBILL_KEY=",
        "WAYBILL_ATTEMPT=", "WAYBILL_CONTENT_TYPE=", "WAYBILL_HEADER_"};

    for (size_t i = 0; i < WB_COUNT(names); i++)
        if (wb__starts(var, wb_slice(names[i])))
            return true;
    return false;
}

static void
var_add(struct wb__buf *b, const char *name, struct wb_slice value)
{
    wb__buf_str(b, name);
    wb__buf_add(b, value);
    wb__buf_add(b, WB_LIT("\0"));
}

static void
vars_write(struct wb__buf *b, const struct wb_request *q)
{
    struct wb_slice rest = q->headers, name, value, type = q->content_type;
    char attempt[16];
    size_t at;

    (void)snprintf(attempt, sizeof(attempt), "%u", (unsigned)q->attempt);
    var_add(b, "WAYBILL_ID=", wb_slice(q->id.text));
    var_add(b, "WAYBILL_KIND=", q->kind);
    if (q->ids.len > 0)
        var_add(b, "WAYBILL_IDS=", q->ids);
    var_add(b, "WAYBILL_KEY=", q->key);
    var_add(b, "WAYBILL_ATTEMPT=", wb_slice(attempt));
    var_add(b, "WAYBILL_CONTENT_TYPE=",
        type.len > 0 ? type : WB_LIT("application/json"));
    while (wb__headers_next(&rest, &name, &value)) {
        wb__buf_str(b, "WAYBILL_HEADER_");
        at = b->len;
        wb__buf_add(b, name);
        for (; at < b->len; at++)
            b->ptr[at] = isalnum((unsigned char)b->ptr[at])
                             ? (char)toupper((unsigned char)b->ptr[at])
                             : '_';
        var_add(b, "=", value);
    }
}

/* The parent's variables and the message's. False if memory ran out. */
static bool
env_build(struct run *r, const struct wb_request *q)
{
    size_t n = 1;

    vars_write(&r->vars, q);
    if (r->vars.failed != WB_OK)
        return false;
    for (size_t i = 0; i < r->vars.len; i++)
        n += r->vars.ptr[i] == '\0';
    for (char **e = environ; *e != NULL; e++)
        n++;
    r->envp = wb__alloc(r->env, n * sizeof(r->envp[0]));
    if (r->envp == NULL)
        return false;
    n = 0;
    for (char **e = environ; *e != NULL; e++)
        if (!is_ours(wb_slice(*e)))
            r->envp[n++] = *e;
    for (size_t i = 0; i < r->vars.len; i += strlen(r->vars.ptr + i) + 1)
        r->envp[n++] = r->vars.ptr + i;
    return true;
}

/* ---- the end of a run -------------------------------------------------- */

static void
run_free(struct run *r)
{
    wb__child_close(&r->child);
    wb__buf_fini(&r->reply);
    wb__buf_fini(&r->vars);
    wb__free(r->env, r->envp);
    wb__free(r->env, r);
}

static void
on_closed(uv_handle_t *handle)
{
    struct run *r = handle->data;

    if (--r->handles == 0)
        run_free(r);
}

static void
handle_close(void *handle)
{
    uv_close(handle, on_closed);
}

/* Close all but the handle that watches for the end of a child. */
static void
run_close(struct run *r)
{
    *r->link = r->next;
    if (r->next != NULL)
        r->next->link = r->link;
    r->link = NULL;
    handle_close(&r->timer);
    handle_close(&r->out);
    handle_close(&r->err);
    if (r->watched && r->exited)
        handle_close(&r->end);
}

/* Take the last line that is not blank off *s. */
static struct wb_slice
cut_last_line(struct wb_slice *s)
{
    struct wb_slice all = wb__trim(*s), line;
    size_t at = all.len;

    while (at > 0 && all.ptr[at - 1] != '\n')
        at--;
    line = wb__from(all, at);
    all.len = at;
    *s = all;
    return line;
}

/* The last lines of stderr, as one: "first | second". Only the last one may be
 * cut. */
static void
last_lines(const struct run *r, char out[4 * ERROR_CHARS + 1])
{
    struct wb_slice rest = {r->tail, r->n_tail}, line[ERROR_LINES];
    size_t n = 0, bytes = 0, len = 0;

    while (n < ERROR_LINES && (line[n] = cut_last_line(&rest)).len > 0) {
        bytes += line[n].len + 3;
        if (n > 0 &&
            (bytes > ERROR_CHARS || (rest.len == 0 && r->n_tail == TAIL_BYTES)))
            break; /* there is no room, or its beginning is lost */
        n++;
    }
    out[0] = '\0';
    while (n-- > 0) {
        len += wb__one_line(line[n], ERROR_CHARS, out + len);
        if (n > 0) {
            memcpy(out + len, " | ", sizeof(" | "));
            len += 3;
        }
    }
}

/* How it ended; where only stderr says more, that. */
static enum wb_outcome
run_outcome(const struct run *r, struct wb__buf *why)
{
    int status = r->exit_status;
    char lines[4 * ERROR_CHARS + 1];
    enum wb_outcome outcome = WB_RETRY;

    last_lines(r, lines);
    if (r->killed && (!r->exited || r->signal != 0)) {
        wb__buf_fmt(
            why, "transport: killed after %lld ms", (long long)r->timeout_ms);
        outcome = WB_UNKNOWN;
    } else if (r->lost) {
        wb__buf_str(
            why, "transport: other code of this process took the exit status");
        outcome = WB_UNKNOWN;
    } else if (r->signal != 0) {
        wb__buf_fmt(why, "transport: died of signal %d", r->signal);
    } else if (status == 0) {
        return WB_DELIVERED;
    } else {
        if (status >= 65 && status <= 78 && status != EXIT_TEMPORARY)
            outcome = WB_REJECTED;
        if (lines[0] == '\0')
            wb__buf_fmt(why, "exit status %d", status);
    }
    if (lines[0] != '\0')
        wb__buf_fmt(why, "%s%s", why->len > 0 ? ": " : "", lines);
    return outcome;
}

static void
run_finish(struct run *r)
{
    char text[4 * ERROR_CHARS + 100];
    struct wb__buf why = {
        .max = sizeof(text) - 1, .ptr = text, .cap = sizeof(text)};
    struct wb_result res = {.body = wb__buf_slice(&r->reply), .cut = r->cut};

    res.outcome = run_outcome(r, &why);
    if (!r->killed && !r->lost && r->signal == 0)
        res.status = r->exit_status;
    res.error = wb__buf_slice(&why);
    run_close(r);
    r->done(r->ctx, &res);
}

/* The whole group; and the child, should it have left its group. Not reaped
 * yet, so the number is still its own. */
static void
run_kill(struct run *r)
{
    (void)uv_kill(-r->child.pid, SIGKILL);
    (void)uv_kill(r->child.pid, SIGKILL);
}

/* ---- libuv's callbacks ------------------------------------------------- */

static void
on_timer(uv_timer_t *timer)
{
    struct run *r = timer->data;

    if (r->exited || r->killed) {
        run_finish(r);
        return;
    }
    r->killed = true;
    run_kill(r);
    (void)uv_timer_start(&r->timer, on_timer, GRACE_MS, 0);
}

static void
on_end(uv_poll_t *end, int status, int events)
{
    struct run *r = end->data;

    (void)status;
    (void)events;
    (void)uv_poll_stop(end);
    r->exited = true;
    r->lost = !wb__child_reap(&r->child, &r->exit_status, &r->signal);
    if (r->link == NULL)
        handle_close(&r->end);
    else if (r->pipes == 0)
        run_finish(r);
    else
        (void)uv_timer_start(&r->timer, on_timer, GRACE_MS, 0);
}

static void
on_alloc(uv_handle_t *pipe, size_t wanted, uv_buf_t *out)
{
    struct run *r = pipe->data;

    (void)wanted;
    *out = uv_buf_init(r->block, sizeof(r->block));
}

static void
on_read(uv_stream_t *pipe, ssize_t n, const uv_buf_t *block)
{
    struct run *r = pipe->data;
    size_t left = r->reply.max - r->reply.len;
    struct wb_slice s = {block->base, n > 0 ? (size_t)n : 0};

    if (n < 0) {
        (void)uv_read_stop(pipe);
        if (--r->pipes == 0 && r->exited)
            run_finish(r);
    } else if (pipe == (uv_stream_t *)&r->err) {
        /* Keep the last TAIL_BYTES. A block has no more than that. */
        size_t most = TAIL_BYTES - s.len;
        size_t keep = most < r->n_tail ? most : r->n_tail;

        memmove(r->tail, r->tail + r->n_tail - keep, keep);
        memcpy(r->tail + keep, s.ptr, s.len);
        r->n_tail = keep + s.len;
    } else {
        r->cut = r->cut || s.len > left;
        s.len = s.len < left ? s.len : left;
        wb__buf_add(&r->reply, s);
    }
}

/* ---- the beginning of a run -------------------------------------------- */

/* 0, or an error of libuv: the command has not run and there is no child. */
static int
child_start(struct exec *ex, struct run *r, int payload)
{
    int rc;

    r->child.argv = (const char *const *)ex->argv;
    r->child.env = r->envp;
    r->child.in = payload;
    r->child.own_session = true; /* run_kill() kills its group */
    rc = wb__child_start(&r->child);
    if (rc != 0)
        return uv_translate_sys_error(rc);
    rc = uv_poll_init(ex->loop, &r->end, r->child.end);
    if (rc == 0) {
        r->watched = true;
        r->handles++;
        rc = uv_translate_sys_error(wb__child_exec(&r->child));
    }
    if (rc != 0) {
        (void)uv_kill(r->child.pid, SIGKILL);
        (void)wb__child_reap(&r->child, &r->exit_status, &r->signal);
        r->exited = true;
    }
    return rc;
}

static void
read_start(struct run *r, uv_pipe_t *pipe, int *fd)
{
    WB_ASSERT(uv_pipe_open(pipe, *fd) == 0);
    *fd = -1; /* the pipe closes it */
    (void)uv_read_start((uv_stream_t *)pipe, on_alloc, on_read);
    r->pipes++;
}

static void
run_start(
    struct exec *ex, struct run *r, const struct wb_request *q, int payload)
{
    char why[400];
    int rc;

    (void)uv_timer_init(ex->loop, &r->timer);
    (void)uv_pipe_init(ex->loop, &r->out, 0);
    (void)uv_pipe_init(ex->loop, &r->err, 0);
    r->handles = 3;
    r->next = ex->runs;
    r->link = &ex->runs;
    if (r->next != NULL)
        r->next->link = &r->next;
    ex->runs = r;
    rc = child_start(ex, r, payload);
    if (rc == 0) {
        r->timeout_ms = q->timeout_ms;
        read_start(r, &r->out, &r->child.out);
        read_start(r, &r->err, &r->child.err);
        (void)uv_poll_start(&r->end, UV_READABLE, on_end);
        (void)uv_timer_start(&r->timer, on_timer,
            q->timeout_ms > 0 ? (uint64_t)q->timeout_ms : 1, 0);
        return;
    }
    run_close(r);
    (void)snprintf(why, sizeof(why), "cannot start the command \"%.200s\": %s",
        ex->argv[0],
        rc == UV_ENOSYS ? "Linux 5.3 or later is needed" : uv_strerror(rc));
    if (wb__errno_is_lack(-rc) || rc == UV_EAGAIN)
        wb__transport_lacks(r->done, r->ctx, why);
    else
        wb__transport_refuse(
            r->done, r->ctx, rc == UV_E2BIG ? WB_REJECTED : WB_RETRY, why);
}

static void
exec_send(struct wb_transport *self, const struct wb_request *request,
    wb_done_fn *done, void *ctx)
{
    struct exec *ex = (struct exec *)self;
    struct wb_err err = {0};
    struct run *r;
    int payload;

    if (!wb__printable(request->kind) || !wb__printable(request->key) ||
        !wb__printable(request->content_type) || !wb__printable(request->ids)) {
        wb__transport_refuse(done, ctx, WB_REJECTED,
            "kind, key, ids or content type has control characters");
        return;
    }
    if (wb__headers_check(request->headers, &err) != WB_OK) {
        wb__transport_refuse(done, ctx, WB_REJECTED, err.msg);
        return;
    }
    r = wb__alloc(ex->env, sizeof(*r));
    if (r == NULL) {
        wb__transport_lacks(done, ctx, "out of memory or descriptors");
        return;
    }
    r->env = ex->env;
    r->done = done;
    r->ctx = ctx;
    r->reply = (struct wb__buf){.env = ex->env, .max = REPLY_BYTES};
    r->vars = (struct wb__buf){.env = ex->env, .max = ENV_BYTES};
    r->child = (struct wb__child){.out = -1, .err = -1, .end = -1, .start = -1};
    r->end.data = r->timer.data = r->out.data = r->err.data = r;
    payload = wb__fd_of_bytes(request->body);
    if (payload >= 0 && env_build(r, request)) {
        run_start(ex, r, request, payload);
    } else {
        run_free(r);
        wb__transport_lacks(done, ctx, "out of memory or descriptors");
    }
    wb__fd_close(payload);
}

/* ---- new and free --------------------------------------------------- */

static void
exec_free(struct wb_transport *self)
{
    struct exec *ex = (struct exec *)self;
    struct run *r;

    while ((r = ex->runs) != NULL) {
        if (!r->exited)
            run_kill(r);
        run_close(r);
    }
    wb__arena_clear(&ex->arena);
    wb__free(ex->env, ex);
}

enum wb_status
wb_exec_new(struct wb_transport **out, const struct wb_env *env,
    struct uv_loop_s *loop, const char *const *argv, struct wb_err *err)
{
    static char empty[] = "";
    struct wb_slice arg;
    struct exec *ex;
    size_t n = 0, copied = 0;

    *out = NULL;
    env = env == NULL ? wb_env_system() : env;
    while (n < ARGS_MAX && argv[n] != NULL)
        n++;
    if (n == 0 || n == ARGS_MAX || argv[0][0] == '\0')
        return wb__fail(err, WB_INVALID, 0,
            "exec: the command is empty or has %d words or more", ARGS_MAX);
    ex = wb__alloc(env, sizeof(*ex));
    if (ex == NULL)
        return wb__nomem(err, "exec transport");
    ex->base = (struct wb_transport){"exec", exec_send, exec_free};
    ex->env = ex->arena.env = env;
    ex->loop = loop;
    ex->argv = wb__arena_alloc(&ex->arena, (n + 1) * sizeof(ex->argv[0]));
    while (ex->argv != NULL && copied < n &&
           wb__arena_dup(&ex->arena, wb_slice(argv[copied]), &arg))
        ex->argv[copied++] = arg.len > 0 ? (char *)(uintptr_t)arg.ptr : empty;
    if (copied < n) {
        exec_free(&ex->base);
        return wb__nomem(err, "exec transport");
    }
    *out = &ex->base;
    return WB_OK;
}
