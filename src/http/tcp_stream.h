/* tcp_stream.h - one TCP connection on a libuv loop: write queue, deadline,
 * position in the list of open streams, close. The server's connections and the
 * gateway's connections to its upstream are built on it.
 *
 *  1. Bytes are sent at once. What the kernel does not accept is copied, and
 *     counted in queued until it was sent or has failed.
 *  2. The deadline is one-shot: on_deadline() is never called early, never
 *     after the deadline was cancelled, and once for each time it was set.
 *  3. The memory of a stream must stay until on_closed(); no other callback
 *     comes after that one.
 *
 * All of it belongs to the thread of the loop. */
#ifndef WB_SRC_HTTP_TCP_STREAM_H
#define WB_SRC_HTTP_TCP_STREAM_H

#include <uv.h>

#include "base/base.h"

struct wb__tcp_stream;

/* What all streams of one server, or of one upstream, share. */
struct wb__tcp_group {
    const struct wb_env *env;
    uv_loop_t *loop;
    /* n > 0: so many bytes, valid during the call. n < 0: UV_EOF, or an error
     * of libuv. Not called once the stream is closing. */
    void (*on_read)(struct wb__tcp_stream *s, ssize_t n, const char *bytes);
    /* A queued piece was sent, or failed (status < 0), and has left queued.
     * While the stream closes it is called for each piece that was left. */
    void (*on_sent)(struct wb__tcp_stream *s, int status);
    void (*on_deadline)(struct wb__tcp_stream *s);
    void (*on_reopened)(struct wb__tcp_stream *s); /* may be NULL */
    void (*on_closed)(struct wb__tcp_stream *s);
    struct wb__tcp_stream *first, *last; /* the longest unused one is first */
    char input[64 << 10];
};

struct wb__tcp_stream {
    struct wb__tcp_group *group;
    void *owner;
    uv_tcp_t tcp;
    size_t queued; /* bytes written, but not sent yet */

    /* private, but for the list */
    struct wb__tcp_stream *prev, *next;
    uv_timer_t timer;
    uint64_t deadline; /* UINT64_MAX: none */
    uint64_t wakes_at; /* when the timer fires, if it is active */
    int open_handles;
    bool reopening;
};

/* A socket without a connection, last in the group's list. */
void wb__tcp_stream_init(
    struct wb__tcp_stream *s, struct wb__tcp_group *group, void *owner);
/* After on_closed(): out of the group's list. */
void wb__tcp_stream_remove(struct wb__tcp_stream *s);
/* The stream was used: move it to the end of the list. */
void wb__tcp_stream_touch(struct wb__tcp_stream *s);

/* Close the socket, by a reset if so wished; on_closed() follows from the loop.
 * Again: does nothing. */
void wb__tcp_stream_close(struct wb__tcp_stream *s, bool reset);
/* Replace a socket that failed to connect, which is of no more use, by a new
 * one; on_reopened() follows from the loop unless the stream is closed. */
void wb__tcp_stream_reopen(struct wb__tcp_stream *s);
bool wb__tcp_stream_is_closed(const struct wb__tcp_stream *s);

/* Both may be repeated. */
int wb__tcp_stream_read_start(struct wb__tcp_stream *s);
void wb__tcp_stream_read_stop(struct wb__tcp_stream *s);

/* Send the parts, one after the other. 0, or an error of libuv: UV_ENOMEM, or
 * the socket cannot be written to. Then some of the bytes may have been sent,
 * and the stream must be closed. */
enum {
    WB__TCP_PARTS_MAX = 4
};
WB_MUST_USE int wb__tcp_stream_write(
    struct wb__tcp_stream *s, const struct wb_slice *parts, size_t n);

/* Call on_deadline() in ms from now, in place of any earlier deadline. Cheap
 * enough for every step of a connection. */
void wb__tcp_stream_set_deadline(struct wb__tcp_stream *s, int64_t ms);
void wb__tcp_stream_cancel_deadline(struct wb__tcp_stream *s);

#endif /* WB_SRC_HTTP_TCP_STREAM_H */
