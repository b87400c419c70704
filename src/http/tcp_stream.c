/* tcp_stream.c - see tcp_stream.h. */
#include "http/tcp_stream.h"

/* ---- list and handles --------------------------------------------------- */

static void
list_append(struct wb__tcp_stream *s)
{
    struct wb__tcp_group *g = s->group;

    s->prev = g->last;
    s->next = NULL;
    *(g->last == NULL ? &g->first : &g->last->next) = s;
    g->last = s;
}

void
wb__tcp_stream_remove(struct wb__tcp_stream *s)
{
    struct wb__tcp_group *g = s->group;

    *(s->prev == NULL ? &g->first : &s->prev->next) = s->next;
    *(s->next == NULL ? &g->last : &s->next->prev) = s->prev;
}

void
wb__tcp_stream_touch(struct wb__tcp_stream *s)
{
    wb__tcp_stream_remove(s);
    list_append(s);
}

static void
open_socket(struct wb__tcp_stream *s)
{
    (void)uv_tcp_init(s->group->loop, &s->tcp);
    s->tcp.data = s;
    s->open_handles++;
}

void
wb__tcp_stream_init(
    struct wb__tcp_stream *s, struct wb__tcp_group *group, void *owner)
{
    *s = (struct wb__tcp_stream){
        .group = group, .owner = owner, .deadline = UINT64_MAX};
    list_append(s);
    open_socket(s);
    (void)uv_timer_init(group->loop, &s->timer);
    s->timer.data = s;
    s->open_handles++;
}

static bool
is_closing(const struct wb__tcp_stream *s)
{
    return uv_is_closing((const uv_handle_t *)&s->timer);
}

static void
on_handle_closed(uv_handle_t *handle)
{
    struct wb__tcp_stream *s = handle->data;

    s->open_handles--;
    if (s->reopening && !is_closing(s)) {
        s->reopening = false;
        open_socket(s);
        s->group->on_reopened(s);
    } else if (s->open_handles == 0) {
        s->group->on_closed(s);
    }
}

void
wb__tcp_stream_close(struct wb__tcp_stream *s, bool reset)
{
    if (is_closing(s))
        return;
    uv_close((uv_handle_t *)&s->timer, on_handle_closed);
    if (!s->reopening &&
        (!reset || uv_tcp_close_reset(&s->tcp, on_handle_closed) != 0))
        uv_close((uv_handle_t *)&s->tcp, on_handle_closed);
}

void
wb__tcp_stream_reopen(struct wb__tcp_stream *s)
{
    WB_ASSERT(!s->reopening && !is_closing(s));
    s->reopening = true;
    uv_close((uv_handle_t *)&s->tcp, on_handle_closed);
}

bool
wb__tcp_stream_is_closed(const struct wb__tcp_stream *s)
{
    return s->open_handles == 0;
}

/* ---- reading ------------------------------------------------------------ */

static void
on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *buf)
{
    struct wb__tcp_stream *s = handle->data;

    (void)wanted;
    *buf = uv_buf_init(s->group->input, sizeof(s->group->input));
}

static void
on_read(uv_stream_t *tcp, ssize_t n, const uv_buf_t *buf)
{
    struct wb__tcp_stream *s = tcp->data;

    if (n != 0 && !is_closing(s))
        s->group->on_read(s, n, buf->base);
}

int
wb__tcp_stream_read_start(struct wb__tcp_stream *s)
{
    int rc = uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_read);

    return rc == UV_EALREADY ? 0 : rc;
}

void
wb__tcp_stream_read_stop(struct wb__tcp_stream *s)
{
    (void)uv_read_stop((uv_stream_t *)&s->tcp);
}

/* ---- writing ------------------------------------------------------------ */

struct piece {
    uv_write_t write; /* first */
    struct wb__tcp_stream *stream;
    size_t len;
    char bytes[];
};

static void
on_piece_sent(uv_write_t *req, int status)
{
    struct piece *p = (struct piece *)req;
    struct wb__tcp_stream *s = p->stream;

    s->queued -= p->len;
    wb__free(s->group->env, p);
    s->group->on_sent(s, status);
}

/* Copy and queue len bytes of bufs, without their first skip ones. */
static int
queue_piece(struct wb__tcp_stream *s, const uv_buf_t *bufs, unsigned n,
    size_t skip, size_t len)
{
    struct piece *p = wb__alloc(s->group->env, sizeof(*p) + len);
    uv_buf_t buf;
    int rc;

    if (p == NULL)
        return UV_ENOMEM;
    p->stream = s;
    for (unsigned i = 0; i < n; i++) {
        size_t sent = skip < bufs[i].len ? skip : bufs[i].len;

        memcpy(p->bytes + p->len, bufs[i].base + sent, bufs[i].len - sent);
        p->len += bufs[i].len - sent;
        skip -= sent;
    }
    buf = uv_buf_init(p->bytes, (unsigned)p->len);
    rc = uv_write(&p->write, (uv_stream_t *)&s->tcp, &buf, 1, on_piece_sent);
    if (rc == 0)
        s->queued += p->len;
    else
        wb__free(s->group->env, p);
    return rc;
}

int
wb__tcp_stream_write(
    struct wb__tcp_stream *s, const struct wb_slice *parts, size_t n)
{
    uv_buf_t bufs[WB__TCP_PARTS_MAX];
    unsigned used = 0;
    size_t len = 0, sent = 0;

    WB_ASSERT(n <= WB__TCP_PARTS_MAX);
    for (size_t i = 0; i < n; i++) {
        if (parts[i].len > 0)
            bufs[used++] = uv_buf_init(
                (char *)(uintptr_t)parts[i].ptr, (unsigned)parts[i].len);
        len += parts[i].len;
    }
    if (len > 0 && s->queued == 0) {
        int rc = uv_try_write((uv_stream_t *)&s->tcp, bufs, used);

        /* uv_write() finds any error again, and reports it. */
        sent = rc < 0 ? 0 : (size_t)rc;
    }
    return sent == len ? 0 : queue_piece(s, bufs, used, sent, len - sent);
}

/* ---- deadline ----------------------------------------------------------- */

/* Moving a deadline on only stores it: the timer fires at the time it was
 * started for, and then sleeps for what was added. */
static void on_timer(uv_timer_t *timer);

static void
sleep_until_deadline(struct wb__tcp_stream *s)
{
    s->wakes_at = s->deadline;
    (void)uv_timer_start(
        &s->timer, on_timer, s->deadline - uv_now(s->group->loop), 0);
}

static void
on_timer(uv_timer_t *timer)
{
    struct wb__tcp_stream *s = timer->data;

    if (s->deadline == UINT64_MAX)
        return;
    if (s->deadline > uv_now(timer->loop)) {
        sleep_until_deadline(s);
        return;
    }
    s->deadline = UINT64_MAX;
    s->group->on_deadline(s);
}

void
wb__tcp_stream_set_deadline(struct wb__tcp_stream *s, int64_t ms)
{
    s->deadline = uv_now(s->group->loop) + (uint64_t)ms;
    if (!uv_is_active((const uv_handle_t *)&s->timer) ||
        s->wakes_at > s->deadline)
        sleep_until_deadline(s);
}

void
wb__tcp_stream_cancel_deadline(struct wb__tcp_stream *s)
{
    s->deadline = UINT64_MAX;
}
