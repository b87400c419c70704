/* listen.c - notice the commits of other processes by a socket, where there is
 * no file to watch (PostgreSQL).
 *
 * (1) The socket watched is a copy: the database closes its own, and opens
 *     another, when its session is lost. */
#include "outbox/outbox_internal.h"
#include "relay/pass.h"

struct wb__listener {
    uv_poll_t poll;
    struct wb_relay *relay;
    int fd;
};

static void
on_closed(uv_handle_t *handle)
{
    struct wb__listener *l = handle->data;

    l->relay->n_listeners--;
    wb__fd_close(l->fd);
    wb__free(l->relay->env, l);
}

void
wb__listen_stop(struct wb_relay *relay)
{
    if (relay->listener != NULL)
        uv_close((uv_handle_t *)&relay->listener->poll, on_closed);
    relay->listener = NULL;
}

static void
on_readable(uv_poll_t *poll, int status, int events)
{
    struct wb__listener *l = poll->data;
    bool any;

    (void)events;
    if (status != 0 || !wb__db_notified(l->relay->box->db, &any))
        (void)uv_poll_stop(poll); /* lost: it would be readable for ever */
    else if (any)
        l->relay->notified = true;
}

static bool
start(struct wb_relay *relay, uv_loop_t *uv, int fd)
{
    struct wb__listener *l = wb__alloc(relay->env, sizeof(*l));

    if (l == NULL || uv_poll_init(uv, &l->poll, fd) != 0) {
        wb__free(relay->env, l);
        wb__fd_close(fd);
        return false;
    }
    l->relay = relay;
    l->fd = fd;
    l->poll.data = l;
    relay->listener = l;
    relay->n_listeners++;
    return uv_poll_start(&l->poll, UV_READABLE, on_readable) == 0;
}

bool
wb__listen_keep(struct wb_relay *relay, uv_loop_t *uv)
{
    struct wb__db *db = relay->box->db;
    int fd = wb__db_listen(db);
    bool any;

    if (fd >= 0) {
        wb__listen_stop(relay);
        return start(relay, uv, fd);
    }
    /* Another use of the session may have read what the socket had. */
    if (relay->listener != NULL && wb__db_notified(db, &any) && any)
        relay->notified = true;
    return false;
}
