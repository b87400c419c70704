/* gate_internal.h - what the files of the gateway share. From the bottom up:
 * rules, identity, fingerprint and policy, upstream, report and store_queue,
 * forward, keyed_request and passthrough, gate. */
#ifndef WB_SRC_GATE_GATE_INTERNAL_H
#define WB_SRC_GATE_GATE_INTERNAL_H

#include <uv.h>

#include "gate/gate.h"
#include "idem/idem.h"

enum {
    WB__GATE_QUEUE = 256 << 10, /* bytes; past it the other side is paused */
    WB__GATE_POLL_MS = 25,
    WB__GATE_REPEAT_MS = 250, /* a store that is locked or full */
    WB__GATE_WAITERS = 64,    /* per key */
    WB__GATE_BUCKETS = 12,
    WB__GATE_BATCHES = 2 /* one commits while the next begins to read */
};

/* field, name in metrics, help */
#define WB__GATE_COUNTERS(X)                                                   \
    X(fresh, "fresh", "Keyed requests that went upstream.")                    \
    X(replay, "replay", "Stored responses sent again.")                        \
    X(wait, "wait", "Requests that waited for another with their key.")        \
    X(conflict, "conflict", "Requests refused because another was in flight.") \
    X(mismatch, "mismatch", "Keys used again for another request.")            \
    X(unidentified, "skipped", "Keyed requests passed without an identity.")   \
    X(released, "released", "Keys freed because nothing final happened.")      \
    X(truncated, "truncated", "Responses stored without their body.")          \
    X(unknown, "unknown", "Requests whose outcome is unknown.")                \
    X(held, "held", "Requests refused because an outcome is unknown.")         \
    X(lost, "lost", "Claims lost while their request was under way.")          \
    X(store_errors, "store_errors", "Calls of the store that failed.")         \
    X(refused, "refused", "Requests refused for key, identity or size.")       \
    X(passed, "passed", "Requests passed on unchanged.")                       \
    X(upstream_errors, "upstream_errors",                                      \
        "Requests without a whole response from upstream.")

struct wb__gate_counters {
#define WB__GATE_FIELD(field, name, help) uint64_t field;
    WB__GATE_COUNTERS(WB__GATE_FIELD)
#undef WB__GATE_FIELD
    uint64_t bucket[WB__GATE_BUCKETS + 1], seconds_us;
};

/* ---- policy.c, identity.c, fingerprint.c, rules.c: pure functions -------- */

enum wb__found {
    WB__FOUND_NONE,
    WB__FOUND_ONE,
    WB__FOUND_BAD,
    WB__FOUND_NOMEM
};

/* A key or an identity: up to 255 bytes. */
struct wb__name {
    char text[256];
    size_t len;
};

/* How many fields have this name; *value is the first. */
int wb__rule_find_field(
    struct wb_slice headers, struct wb_slice wanted, struct wb_slice *value);

/* The value of the key's header, an RFC 8941 string or bare: both spellings of
 * a key are the same key. BAD: malformed, or given twice. (G-1) */
enum wb__found wb__rule_read_key(
    struct wb_slice headers, struct wb_slice header, struct wb__name *key);

/* May this header hold an identity or a key? Not one that frames the message,
 * or that proxies use. Empty: yes. */
bool wb__rule_identity_header_ok(struct wb_slice header);

/* The scope of a key: METHOD and path, without the query. with_host: METHOD,
 * two slashes, Host and path. (M-3) */
void wb__rule_write_scope(
    struct wb__buf *out, const struct wb__http_head *head, bool with_host);

/* The client's identity, where the options say that it is. BAD: given twice.
 * (G-3) */
enum wb__found wb__identity_read(const struct wb__gate_opts *o,
    struct wb_slice headers, struct wb__name *identity);
WB_MUST_USE enum wb_status wb__identity_check(
    const struct wb__gate_opts *o, struct wb_err *err);

/* Of scope (method and path), Host, query, Content-Type and body; which of the
 * last two count, and how, the rule says. OK or NOMEM. (G-4) */
struct wb__fingerprint_rule {
    enum wb__fingerprint_kind {
        WB__FINGERPRINT_RAW,
        WB__FINGERPRINT_NONE,
        WB__FINGERPRINT_JSON
    } kind;
    struct wb_slice without; /* names in the outermost object, a list */
};
WB_MUST_USE enum wb_status wb__fingerprint_read(
    struct wb__fingerprint_rule *rule, struct wb_slice text,
    struct wb_err *err);
WB_MUST_USE enum wb_status wb__fingerprint_of(
    const struct wb__fingerprint_rule *rule, const struct wb_env *env,
    const struct wb__http_head *head, struct wb_slice scope,
    struct wb_slice body, struct wb_fingerprint *out);

/* What the options say about requests and statuses; slices are those of the
 * options. */
enum wb__guard {
    WB__GUARD_PASS,
    WB__GUARD_KEY,   /* guarded where it has a key */
    WB__GUARD_REFUSE /* a method that some servers read as another one */
};
enum wb__status_action {
    WB__STATUS_KEEP,
    WB__STATUS_FREE,
    WB__STATUS_UNKNOWN
};
struct wb__policy {
    struct wb_slice methods, paths, key_header;
    struct wb__fingerprint_rule fingerprint;
    unsigned char action[600]; /* by status: an enum wb__status_action (G-6) */
};
/* OK or INVALID. */
WB_MUST_USE enum wb_status wb__policy_read(struct wb__policy *policy,
    const struct wb__gate_opts *o, struct wb_err *err);
enum wb__guard wb__policy_guard(
    const struct wb__policy *policy, const struct wb__http_head *head);

bool wb__rule_is_event_stream(struct wb_slice headers); /* text/event-stream */

/* Append the head of the request upstream, with its empty line. (G-11, G-14) */
struct wb__rule_request {
    const struct wb__http_head *head;
    struct wb_slice identity_header, key_header;
    struct wb_slice authority; /* Host, where the client gave none */
    bool keyed; /* its response may be replayed to others: no compression */
    bool has_body;
    uint64_t length; /* of the body; WB__LENGTH_UNKNOWN: chunked */
};
void wb__rule_write_request(
    struct wb__buf *out, const struct wb__rule_request *r);

/* Append the end-to-end fields of a response as lines. REPLAY: as they are
 * stored, without Set-Cookie and Date. Space for one more line of ours is
 * reserved. (G-7) */
enum wb__field_use {
    WB__FORWARD,
    WB__REPLAY
};
void wb__rule_copy_fields(
    struct wb__buf *out, struct wb_slice headers, enum wb__field_use use);

/* ---- upstream.c: requests to one HTTP/1.1 server ----------------------- */

struct wb__upstream;
struct wb__upstream_connection;

/* Zero means the default in brackets. */
struct wb__upstream_opts {
    const struct wb_env *env;
    uv_loop_t *loop;
    struct wb_slice host, port; /* copied */
    int64_t connect_ms;         /* name lookup and connection [5 s] */
    int64_t silence_ms;         /* between any two bytes [60 s] */
    int64_t idle_ms;            /* until a kept connection is closed [2 s] */
};

/* One request. No callback comes after on_end(), on_fail() or
 * wb__upstream_cancel(). */
struct wb__upstream_request {
    void *data;
    bool bodyless; /* the request is HEAD */
    bool fresh;    /* not on a kept connection */
    void (*on_head)(
        struct wb__upstream_request *request, const struct wb__http_head *head);
    void (*on_body)(
        struct wb__upstream_request *request, struct wb_slice piece);
    /* Every byte that has arrived was passed on. May be NULL. */
    void (*on_input_drained)(struct wb__upstream_request *request);
    void (*on_end)(struct wb__upstream_request *request);
    void (*on_fail)(
        struct wb__upstream_request *request, bool sent, const char *why);
    /* Every byte that was written has been sent. May be NULL. */
    void (*on_drain)(struct wb__upstream_request *request);
    /* Not NULL: called once connected, in place of sending. */
    void (*on_connected)(struct wb__upstream_request *request);
    struct wb__upstream_connection *connection; /* NULL: it has ended */
    bool switched;                              /* it failed because of a 101 */
    bool stale; /* a kept connection ended before any byte of a response */
};

WB_MUST_USE enum wb_status wb__upstream_open(struct wb__upstream **out,
    const struct wb__upstream_opts *opts, struct wb_err *err);
/* Needs: every request has ended. Memory is freed from the loop. */
void wb__upstream_close(struct wb__upstream *up);

/* Begin a request with its first bytes, copied; they are sent with
 * wb__upstream_flush() or wb__upstream_end(). NOMEM: nothing was done. Any
 * other failure is reported by on_fail(), from the loop. */
WB_MUST_USE enum wb_status wb__upstream_send(struct wb__upstream *up,
    struct wb__upstream_request *request, struct wb_slice bytes);

/* The functions below do nothing once the request has ended. */

/* More bytes, copied. */
void wb__upstream_write(
    struct wb__upstream_request *request, struct wb_slice bytes);
/* Bytes written, but not sent yet. */
size_t wb__upstream_queued(const struct wb__upstream_request *request);
/* Send what was written, without waiting for more. */
void wb__upstream_flush(struct wb__upstream_request *request);
/* The request is complete. */
void wb__upstream_end(struct wb__upstream_request *request);
/* Stop reading the response, or go on. */
void wb__upstream_pause(struct wb__upstream_request *request, bool pause);
void wb__upstream_cancel(struct wb__upstream_request *request);

/* ---- store_queue.c ----------------------------------------------------- */

/* A call of the store. done() runs on the loop; call.rc is the result. */
struct wb__store_call {
    struct wb__idem_call call; /* first */
    void *data;
    void (*done)(struct wb__store_call *c); /* NULL: not under way */
};

struct wb__store_queue {
    struct wb_idem *store;
    uv_loop_t *loop;
    bool blocking;                       /* calls may block: use threads */
    struct wb__idem_call *first, **last; /* no batch is free for them */
    struct wb__store_batch {
        uv_work_t work; /* first */
        struct wb__store_queue *queue;
        struct wb__idem_call *first; /* NULL: nothing is under way */
    } batch[WB__GATE_BATCHES];
};

/* c->call is filled in and stays until done(). If the store does not block,
 * done() runs before this returns. */
void wb__store_queue_add(struct wb__store_queue *q, struct wb__store_call *c,
    void (*done)(struct wb__store_call *c));

/* ---- cors.c ------------------------------------------------------------ */

/* What upstream allowed to the pages of an origin; the next one replaces the
 * oldest. */
enum {
    WB__CORS_ORIGINS = 32,
    WB__CORS_BYTES = 128
};
struct wb__cors {
    struct wb__cors_origin {
        char origin[WB__CORS_BYTES], allow[WB__CORS_BYTES];
        bool credentials;
    } origin[WB__CORS_ORIGINS];
    size_t next;
};

/* Remember what a response to a preflight allows to the origin of its request.
 */
void wb__cors_learn(struct wb__cors *cors, struct wb_slice request_headers,
    struct wb_slice response_headers);
/* Append the fields for a response of our own to a request. */
void wb__cors_add(const struct wb__cors *cors, struct wb_slice request_headers,
    struct wb__buf *out);

/* ---- gate.c ------------------------------------------------------------ */

struct wb__gate {
    struct wb__gate_opts opts;
    struct wb__policy policy;
    struct wb__store_queue queue;
    struct wb__http_server *server;
    struct wb__upstream *upstream;
    struct wb_slice authority; /* of upstream: host[:port] */
    struct wb__keyed_request *requests;
    uv_timer_t tick;                        /* see keyed_request.c */
    void (*on_idle)(struct wb__gate *gate); /* a tick found no requests */
    size_t bytes; /* of keyed requests and their responses */
    struct wb__gate_counters n;
    size_t probes; /* under way, see ready.c */
    struct wb__cors cors;
    bool ticking, stopping, stopped, stopped_notified;
};

static inline int64_t
wb__gate_us(const struct wb__gate *gate)
{
    return gate->opts.env->mono_us(gate->opts.env->ctx);
}

/* ---- report.c ---------------------------------------------------------- */

/* Why the gateway itself responds. (G-5) */
enum wb__gate_error {
    WB__GATE_NO_ERROR,
    WB__GATE_BAD_KEY,
    WB__GATE_BAD_METHOD,
    WB__GATE_KEY_REQUIRED,
    WB__GATE_ANONYMOUS,
    WB__GATE_IN_FLIGHT,
    WB__GATE_MISMATCH,
    WB__GATE_KEY_HELD,        /* an earlier outcome is unknown */
    WB__GATE_OUTCOME_UNKNOWN, /* the outcome of this one is */
    WB__GATE_OUTCOME_UNKNOWN_SWITCHED,
    WB__GATE_TOO_LARGE,
    WB__GATE_URI_TOO_LONG,
    WB__GATE_STORE_UNAVAILABLE,
    WB__GATE_UPSTREAM_UNREACHABLE,
    WB__GATE_UPSTREAM_FAILED,
    WB__GATE_UPSTREAM_SWITCHED,
    WB__GATE_OUT_OF_MEMORY,
};
/* why: the cause as a clause, for the client and the log; NULL: there is no
 * other than the error. */
void wb__gate_respond_error(const struct wb__gate *gate,
    struct wb__exchange *exchange, enum wb__gate_error error, const char *why);

/* Why a call of the store failed: the file was removed, or what rc says. */
const char *wb__gate_store_reason(
    const struct wb__gate *gate, enum wb_status rc, struct wb_err *err);

/* Count and log it. Not OK, and not FENCED: another request has the claim. */
void wb__gate_store_failed(
    struct wb__gate *gate, const struct wb__http_head *head, enum wb_status rc);

/* A line in the log about a request, with its method and path. */
void wb__gate_log(const struct wb__gate *gate, enum wb__log_level level,
    const char *event, const struct wb__http_head *head,
    struct wb__log_fields fields);

/* A line in the log of accesses. outcome: fresh, replay, passed, cut, or the
 * type of an error. */
void wb__gate_log_access(const struct wb__gate *gate,
    const struct wb__http_head *head, int status, const char *outcome,
    int64_t us);

/* A keyed request took so long. */
void wb__gate_add_latency(struct wb__gate *gate, int64_t us);

/* ---- forward.c --------------------------------------------------------- */

/* A request on its way upstream, and its response: the first member of what
 * exchange->data points to. The owner sets exchange and the callbacks
 * upstream.on_head, on_body, on_end and on_fail. */
struct wb__forward {
    struct wb__exchange *exchange;
    struct wb__upstream_request upstream; /* data: this struct */
};

/* Send the request with this whole body; NULL: the body follows by
 * wb__upstream_write(). NOMEM: nothing was sent, no callback will run. */
WB_MUST_USE enum wb_status wb__forward_request(const struct wb__gate *gate,
    struct wb__forward *f, const struct wb_slice *body);

/* Begin the response to the client; pieces follow. */
void wb__forward_head(struct wb__forward *f, int status, uint64_t length,
    const struct wb__buf *headers);

/* A piece of the response. False: the client has gone, and the exchange's
 * on_gone() has been called. */
bool wb__forward_piece(struct wb__forward *f, struct wb_slice piece);

/* The response of a keyed request. */
struct wb__held_response {
    struct wb__forward *forward;
    int status;
    uint64_t length; /* of its body, as upstream gave it */
    struct wb__buf headers, stored_headers;
    struct wb__buf body; /* all of it, or while streaming the last byte */
    bool streaming;      /* to the client; the body is not stored */
};
void wb__held_response_init(struct wb__held_response *h,
    struct wb__forward *forward, const struct wb_env *env);
void wb__held_response_fini(struct wb__held_response *h);
/* These two return OK or why it cannot go on. */
WB_MUST_USE enum wb_status wb__held_response_head(
    struct wb__held_response *h, const struct wb__http_head *head);
/* Send what has arrived, except the last byte. */
WB_MUST_USE enum wb_status wb__held_response_stream(
    struct wb__held_response *h);
/* It is whole: send it, or the rest of it. Ends the exchange. */
void wb__held_response_send(struct wb__held_response *h);
/* A replay in its place. Not OK: no memory, or no response. */
WB_MUST_USE enum wb_status wb__held_response_load(
    struct wb__held_response *h, const struct wb_idem_record *record);
void wb__held_response_replay(
    struct wb__held_response *h, const struct wb_idem_record *record);

/* ---- keyed_request.c, passthrough.c ------------------------------------ */

/* Both respond to the exchange, now or later. */
void wb__keyed_request_handle(struct wb__gate *gate,
    struct wb__exchange *exchange, const struct wb__name *identity,
    const struct wb__name *key);
/* unidentified: it has a key, but no identity; the response says so. */
void wb__passthrough_handle(
    struct wb__gate *gate, struct wb__exchange *exchange, bool unidentified);

#endif /* WB_SRC_GATE_GATE_INTERNAL_H */
