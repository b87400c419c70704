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
#include <limits.h>
#include <stdio.h>
#include <uv.h>

#include "os/os.h"
#include "waybill/transport.h"

enum {
    REPLY_BYTES = 65536,
    ENV_BYTES = 262144,
    TAIL_BYTES = 4096,
    ERROR_CHARS = 500,
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
    char block[4096]; /* what libuv reads into */
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
header_add(struct wb__buf *b, struct wb_slice name, struct wb_slice value)
{
    char *at;

    wb__buf_str(b, "WAYBILL_HEADER_");
    at = wb__buf_room(b, name.len);
    for (size_t i = 0; at != NULL && i < name.len; i++) {
        unsigned char c = (unsigned char)name.ptr[i];

        at[i] = isalnum(c) ? (char)toupper(c) : '_';
    }
    var_add(b, "=", value);
}

static void
vars_write(struct wb__buf *b, const struct wb_request *q)
{
    struct wb_slice rest = q->headers, name, value, type = q->content_type;
    char attempt[16];

    (void)snprintf(attempt, sizeof(attempt), "%u", (unsigned)q->attempt);
    var_add(b, "WAYBILL_ID=", wb_slice(q->id.text));
    var_add(b, "WAYBILL_KIND=", q->kind);
    if (q->ids.len > 0)
        var_add(b, "WAYBILL_IDS=", q->ids);
    var_add(b, "WAYBILL_KEY=", q->key);
    var_add(b, "WAYBILL_ATTEMPT=", wb_slice(attempt));
    var_add(b, "WAYBILL_CONTENT_TYPE=",
        type.len > 0 ? type : WB_LIT("application/json"));
    while (wb__headers_next(&rest, &name, &value))
        header_add(b, name, value);
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

/* The last line that is not empty. */
static size_t
last_line(const struct run *r, char out[4 * ERROR_CHARS + 1])
{
    struct wb_slice s = wb__trim((struct wb_slice){r->tail, r->n_tail});
    size_t at = s.len;

    while (at > 0 && s.ptr[at - 1] != '\n')
        at--;
    return wb__one_line(wb__from(s, at), ERROR_CHARS, out);
}

static enum wb_outcome
exit_outcome(int status)
{
    if (status == 0)
        return WB_DELIVERED;
    return status >= 65 && status <= 78 && status != EXIT_TEMPORARY
               ? WB_REJECTED
               : WB_RETRY;
}

static void
run_finish(struct run *r)
{
    char text[4 * ERROR_CHARS + 1];
    struct wb_result res = {.body = wb__buf_slice(&r->reply), .cut = r->cut};
    size_t len = last_line(r, text);

    if (r->killed && (!r->exited || r->signal != 0)) {
        res.outcome = WB_UNKNOWN;
        len = (size_t)snprintf(text, sizeof(text),
            "transport: killed after %lld ms", (long long)r->timeout_ms);
    } else if (r->lost) {
        res.outcome = WB_UNKNOWN;
        len = (size_t)snprintf(text, sizeof(text),
            "transport: other code of this process took the exit status");
    } else if (r->signal != 0) {
        res.outcome = WB_RETRY;
        if (len == 0)
            len = (size_t)snprintf(
                text, sizeof(text), "transport: died of signal %d", r->signal);
    } else {
        res.outcome = exit_outcome(r->exit_status);
        res.status = r->exit_status;
        if (len == 0)
            len = (size_t)snprintf(
                text, sizeof(text), "exit status %d", r->exit_status);
    }
    if (res.outcome != WB_DELIVERED)
        res.error = (struct wb_slice){text, len};
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

/* Keep the last TAIL_BYTES. */
static void
tail_add(struct run *r, struct wb_slice s)
{
    size_t keep;

    if (s.len > TAIL_BYTES)
        s = wb__from(s, s.len - TAIL_BYTES);
    keep = TAIL_BYTES - s.len < r->n_tail ? TAIL_BYTES - s.len : r->n_tail;
    memmove(r->tail, r->tail + r->n_tail - keep, keep);
    memcpy(r->tail + keep, s.ptr, s.len);
    r->n_tail = keep + s.len;
}

static void
on_read(uv_stream_t *pipe, ssize_t n, const uv_buf_t *block)
{
    struct run *r = pipe->data;
    size_t room = r->reply.max - r->reply.len;
    struct wb_slice s = {block->base, n > 0 ? (size_t)n : 0};

    if (n < 0) {
        (void)uv_read_stop(pipe);
        if (--r->pipes == 0 && r->exited)
            run_finish(r);
    } else if (pipe == (uv_stream_t *)&r->err) {
        tail_add(r, s);
    } else {
        r->cut = r->cut || s.len > room;
        s.len = s.len < room ? s.len : room;
        wb__buf_add(&r->reply, s);
    }
}

/* ---- the beginning of a run -------------------------------------------- */

static struct run *
run_new(struct exec *ex, wb_done_fn *done, void *ctx)
{
    struct run *r = wb__alloc(ex->env, sizeof(*r));

    if (r == NULL)
        return NULL;
    r->env = ex->env;
    r->done = done;
    r->ctx = ctx;
    r->reply = (struct wb__buf){.env = ex->env, .max = REPLY_BYTES};
    r->vars = (struct wb__buf){.env = ex->env, .max = ENV_BYTES};
    r->child = (struct wb__child){.out = -1, .err = -1, .end = -1, .start = -1};
    r->end.data = r->timer.data = r->out.data = r->err.data = r;
    return r;
}

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
run_watch(struct run *r, int64_t timeout_ms)
{
    r->timeout_ms = timeout_ms;
    read_start(r, &r->out, &r->child.out);
    read_start(r, &r->err, &r->child.err);
    (void)uv_poll_start(&r->end, UV_READABLE, on_end);
    (void)uv_timer_start(
        &r->timer, on_timer, timeout_ms > 0 ? (uint64_t)timeout_ms : 1, 0);
}

static void
refuse(wb_done_fn *done, void *ctx, enum wb_outcome outcome, const char *what,
    const char *why)
{
    char text[300];
    struct wb_result res = {.outcome = outcome};

    (void)snprintf(text, sizeof(text), "transport: %s%s", what, why);
    res.error = wb_slice(text);
    done(ctx, &res);
}

static void
run_start(
    struct exec *ex, struct run *r, const struct wb_request *q, int payload)
{
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
        run_watch(r, q->timeout_ms);
        return;
    }
    run_close(r);
    refuse(r->done, r->ctx, rc == UV_E2BIG ? WB_REJECTED : WB_RETRY,
        "cannot start the command: ",
        rc == UV_ENOSYS ? "Linux 5.3 or later is needed" : uv_strerror(rc));
}

static enum wb_status
request_check(const struct wb_request *q, struct wb_err *err)
{
    if (!wb__printable(q->kind) || !wb__printable(q->key) ||
        !wb__printable(q->content_type) || !wb__printable(q->ids))
        return wb__fail(err, WB_INVALID, 0,
            "kind, key, ids or content type has control characters");
    return wb__headers_check(q->headers, err);
}

static void
exec_send(struct wb_transport *self, const struct wb_request *request,
    wb_done_fn *done, void *ctx)
{
    struct exec *ex = (struct exec *)self;
    struct wb_err err = {0};
    struct run *r;
    int payload;

    if (request_check(request, &err) != WB_OK) {
        refuse(done, ctx, WB_REJECTED, "", err.msg);
        return;
    }
    r = run_new(ex, done, ctx);
    payload = r == NULL ? -1 : wb__fd_of_bytes(request->body);
    if (payload >= 0 && env_build(r, request)) {
        run_start(ex, r, request, payload);
    } else {
        if (r != NULL)
            run_free(r);
        refuse(done, ctx, WB_RETRY, "", "out of memory or descriptors");
    }
    wb__fd_close(payload);
}

/* ---- new and free --------------------------------------------------- */

static void
exec_wipe(struct exec *ex)
{
    wb__arena_clear(&ex->arena);
    wb__free(ex->env, ex);
}

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
    exec_wipe(ex);
}

static bool
argv_copy(struct exec *ex, const char *const *argv, size_t n)
{
    struct wb_slice arg;

    ex->argv = wb__arena_alloc(&ex->arena, (n + 1) * sizeof(ex->argv[0]));
    for (size_t i = 0; ex->argv != NULL && i < n; i++) {
        static char empty[] = "";

        if (!wb__arena_dup(&ex->arena, wb_slice(argv[i]), &arg))
            return false;
        ex->argv[i] = arg.len > 0 ? (char *)(uintptr_t)arg.ptr : empty;
    }
    return ex->argv != NULL;
}

enum wb_status
wb_exec_new(struct wb_transport **out, const struct wb_env *env,
    struct uv_loop_s *loop, const char *const *argv, struct wb_err *err)
{
    struct exec *ex;
    size_t n = 0;

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
    if (!argv_copy(ex, argv, n)) {
        exec_wipe(ex);
        return wb__nomem(err, "exec transport");
    }
    *out = &ex->base;
    return WB_OK;
}
