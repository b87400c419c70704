/* waybill/transport.h - one attempt to deliver one message.
 *
 * A transport makes one attempt and never retries by itself, with one
 * exception: see wb_http_new(). The relay gives it a request and gets one
 * result, during send() or later from the event loop. Write your own by filling
 * in struct wb_transport, or use wb_callback_new().
 */
#ifndef WB_TRANSPORT_H
#define WB_TRANSPORT_H

#include "waybill/env.h"
#include "waybill/retry.h"

#ifdef __cplusplus
extern "C" {
#endif

struct uv_loop_s; /* libuv's loop; <uv.h> calls it uv_loop_t */

/* One attempt. What it points at stays valid until done() has been called. */
struct wb_request {
    struct wb_id id; /* the idempotency key on the wire */
    struct wb_slice kind;
    struct wb_slice key;          /* the sender's own key, may be empty */
    uint32_t attempt;             /* 1 for the first */
    int64_t now_ms;               /* wall clock at the start of the attempt */
    int64_t timeout_ms;           /* > 0: the whole attempt */
    struct wb_slice url;          /* empty: the transport's own endpoint */
    struct wb_slice content_type; /* empty: application/json */
    struct wb_slice headers;      /* lines "Name: value\n", checked; or empty */
    struct wb_slice body;
    struct wb_slice ids; /* batch: "id,id,..." of its messages */
};

/* The result. Slices are borrowed until done() returns. */
struct wb_result {
    enum wb_outcome outcome;
    int status;             /* HTTP status or exit status; 0 if there is none */
    int64_t retry_after_ms; /* 0: the receiver asked for nothing */
    struct wb_slice body;   /* of the response, as much as was kept */
    struct wb_slice error;  /* one line of text; empty if delivered */
    bool cut;               /* body is not all of the response */
    bool coded;             /* body has a Content-Encoding: not readable */
    bool json;              /* the Content-Type of body is JSON */
    bool no_resource;       /* with RETRY: nothing was sent, as this machine
                               lacks memory, descriptors or ports; the message
                               is released: it costs no attempt */
};

typedef void wb_done_fn(void *ctx, const struct wb_result *result);

struct wb_transport {
    const char *name; /* "http", "exec", "file", "callback"; static */

    /* Begin one attempt. Calls done(ctx, result) exactly once, now or later,
     * on the thread of the loop; also if the attempt cannot begin. */
    void (*send)(struct wb_transport *self, const struct wb_request *request,
        wb_done_fn *done, void *ctx);

    /* Release it. Attempts in flight are dropped without a done() call. */
    void (*free)(struct wb_transport *self);
};

/* NULL is fine. */
void wb_transport_free(struct wb_transport *transport);

/* ---- http: POST over libcurl, many at once on one loop ----------------- */

/* The shared part: connections, DNS and TLS sessions. One thread. */
struct wb_http;
WB_MUST_USE enum wb_status wb_http_open(struct wb_http **out,
    const struct wb_env *env, struct uv_loop_s *loop, struct wb_err *err);
/* After its endpoints. Sockets close now, memory is freed in the next iteration
 * of the loop: run it once more before uv_loop_close(). NULL is fine. */
void wb_http_close(struct wb_http *http);

struct wb_http_opts {
    struct wb_slice url;            /* http:// or https://; used where a request
                                       names none */
    struct wb_slice method;         /* POST [POST], PUT, PATCH, DELETE or GET;
                                       with each goes the body */
    struct wb_slice headers;        /* fixed, lines "Name: value\n" */
    const struct wb_slice *secrets; /* Standard Webhooks: raw key bytes; each
                                       gives one v1 signature, newest first */
    size_t n_secrets;
    const struct wb_slice *masked; /* texts, of 4 bytes or more, that no error
                                      shows if a receiver quotes them, as a
                                      secret inside url */
    size_t n_masked;
    size_t max_reply_bytes;                  /* kept of a response [64 KiB] */
    struct wb_slice ca_file;                 /* PEM bundle [the system's] */
    struct wb_slice client_cert, client_key; /* PEM files, shown to the origin
                                                of url alone [none] */
    struct wb_slice proxy; /* http:// or https://, may have user:password@; all
                              goes through CONNECT [none: the environment, as
                              HTTPS_PROXY and NO_PROXY, is never looked at] */
    bool public_only;      /* refuse addresses that are not global unicast,
                              checked on the address connected to; with a proxy
                              on the url alone: an address in it, localhost */
    bool follow;           /* follow redirects, at most 3, same checks [off] */
    bool http1;            /* never HTTP/2 [off] */
};

/*
 * A transport for one endpoint.
 *
 * Guarantees  One request for each send(), and one for each redirect. One of
 *             them is sent again, once, on a new connection, with the same id:
 *             if HTTP/2 says that the receiver did not process it, or if it
 *             went out on a reused connection that closed before a line of an
 *             answer, or brought 421 or a 408 that closes it. Every request has
 *             the whole body: 301, 302, 307 and 308 are followed, 303 is not. A
 *             redirect to another scheme, host or port carries no signature and
 *             none of the headers given here or with the request. TLS is
 *             verified. Adds Idempotency-Key, webhook-id, webhook-timestamp,
 *             Waybill-Kind, Waybill-Key, for a batch Waybill-Ids and, with
 *             secrets, webhook-signature. The url and headers are refused here
 *             (INVALID), those of a request at send (REJECTED). A response
 *             counts once its header is complete; of a header at most 64 KiB
 *             and 256 lines are read.
 * Takes       opts: copied; secrets are wiped when freed.
 * Gives       *out: freed with wb_transport_free(), before wb_http_close().
 * Returns     OK, INVALID, NOMEM, UNAVAILABLE.
 * Threads     the loop's. Since 0.1
 */
WB_MUST_USE enum wb_status wb_http_new(struct wb_transport **out,
    struct wb_http *http, const struct wb_http_opts *opts, struct wb_err *err);

/* Class of an HTTP status: 2xx delivered; 408, 425, 429, 5xx retry; all else
 * rejected. Pure. (A 409 that comes with Retry-After is tried again as well.)
 */
WB_MUST_USE enum wb_outcome wb_http_outcome(int status);

/* ---- exec: a command per message --------------------------------------- */

/* argv[0] is looked up in PATH; no shell, and nothing of the message in argv.
 * Payload on stdin; WAYBILL_ID, WAYBILL_IDS of a batch, WAYBILL_KIND,
 * WAYBILL_KEY, WAYBILL_ATTEMPT, WAYBILL_CONTENT_TYPE, and each header as
 * WAYBILL_HEADER_<NAME>, in the environment. Exit 0 delivered, 75 retry, 65..78
 * other rejected, anything else and death by signal retry. On timeout the whole
 * process group is killed: unknown. The last ten lines of stderr are the error;
 * stdout (up to 64 KiB) the response. Freeing it kills what still runs; run the
 * loop until that has exited. The end of the loop's thread, also by kill -9,
 * kills the commands, but not what they started. Returns OK, INVALID (no
 * command, or one of 1,024 words), NOMEM. Threads: the loop's. */
WB_MUST_USE enum wb_status wb_exec_new(struct wb_transport **out,
    const struct wb_env *env, struct uv_loop_s *loop,
    const char *const *argv /* NULL-ended, copied */, struct wb_err *err);

/* ---- file: append NDJSON ----------------------------------------------- */

/* One line {"id":…,"kind":…,"payload":…} for each message, in one write, then
 * fsync, on a thread of libuv's. A payload that is not JSON is written as
 * "payload_base64". A failed or short write is cut off again; a failed fsync is
 * unknown. A file that another program keeps locked (flock) is tried again
 * until the request's timeout; a write that takes longer than it is unknown.
 * Created 0600. Freeing it drops what waits; run the loop until it is done with
 * the rest. Returns OK, NOMEM, or why it cannot be written: NOTFOUND (its
 * folder), REFUSED (a link, no regular file), UNAVAILABLE. Threads: the loop's.
 */
WB_MUST_USE enum wb_status wb_file_new(struct wb_transport **out,
    const struct wb_env *env, struct uv_loop_s *loop, const char *path,
    struct wb_err *err);

/* ---- callback: a C function -------------------------------------------- */

/* Fill *result; what it points at must stay valid until the next call. */
typedef void wb_callback_fn(
    void *ctx, const struct wb_request *request, struct wb_result *result);
WB_MUST_USE enum wb_status wb_callback_new(struct wb_transport **out,
    const struct wb_env *env, wb_callback_fn *fn, void *ctx,
    struct wb_err *err);

#ifdef __cplusplus
}
#endif
#endif /* WB_TRANSPORT_H */
