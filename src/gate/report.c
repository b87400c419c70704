/* report.c - what the gateway says itself: error responses and counters.
 *
 * Error responses are problem documents of RFC 9457. Their types say that they
 * are not from upstream. (G-5) The counters hold no keys and no bodies. (G-13)
 */
#include "gate/gate_internal.h"

#include <stdio.h>

/* ---- error responses --------------------------------------------------- */

static const struct error {
    int status;
    const char *type, *detail, *headers;
} errors[] = {
    [WB__GATE_BAD_KEY] = {400, "bad-key",
        "send one key of 1 to 255 printable characters and one identity", ""},
    [WB__GATE_BAD_METHOD] = {501, "bad-method",
        "methods are case-sensitive; write this one in capitals", ""},
    [WB__GATE_KEY_REQUIRED] = {400, "key-required", "a key is required here",
        ""},
    [WB__GATE_ANONYMOUS] = {401, "bad-key",
        "a key needs the identity of its client, so that two clients may "
        "choose the same key: send Authorization, or start the gateway with "
        "--identity-header, --identity-cookie or --identity-claim; --anonymous "
        "share gives all clients one identity, --anonymous pass does not guard "
        "such requests",
        "WWW-Authenticate: Bearer\n"},
    [WB__GATE_IN_FLIGHT] = {409, "in-flight",
        "another request with this key is under way; try again later",
        "Retry-After: 1\n"},
    [WB__GATE_MISMATCH] = {422, "mismatch",
        "this key was used for another request: its query, Host, Content-Type "
        "or body differs",
        ""},
    [WB__GATE_KEY_HELD] = {409, "outcome-unknown",
        "an earlier request with this key may have taken effect; its outcome "
        "is unknown until an operator settles it",
        ""},
    [WB__GATE_OUTCOME_UNKNOWN] = {504, "outcome-unknown",
        "the request was sent to the upstream server and no complete response "
        "came; it may have taken effect",
        ""},
    [WB__GATE_OUTCOME_UNKNOWN_SWITCHED] = {502, "outcome-unknown",
        "the upstream server switched protocols; the request may have taken "
        "effect",
        ""},
    [WB__GATE_TOO_LARGE] = {413, "too-large",
        "the body of a request with a key must be smaller", ""},
    [WB__GATE_URI_TOO_LONG] = {414, "too-large",
        "the path of a request with a key must be shorter", ""},
    [WB__GATE_STORE_UNAVAILABLE] = {503, "store-unavailable",
        "the store of keys is unavailable", "Retry-After: 1\n"},
    [WB__GATE_UPSTREAM_UNREACHABLE] = {502, "upstream-unreachable",
        "the upstream server could not be reached; nothing was sent", ""},
    [WB__GATE_UPSTREAM_FAILED] = {504, "upstream-failed",
        "the request was sent to the upstream server and no complete response "
        "came",
        ""},
    [WB__GATE_UPSTREAM_SWITCHED] = {502, "upstream-failed",
        "the upstream server switched protocols", ""},
    [WB__GATE_OUT_OF_MEMORY] = {503, "too-busy",
        "out of memory; try again later", "Retry-After: 1\n"},
};

/* METHOD and path, without the query: it may hold secrets. */
static void
write_scope(const struct wb__http_head *head, char *out, size_t size)
{
    (void)snprintf(out, size, "%.*s %.*s", WB_SHOW(head->method),
        (int)(head->path.len < 90 ? head->path.len : 90), head->path.ptr);
}

void
wb__gate_log(const struct wb__gate *gate, enum wb__log_level level,
    const char *event, const struct wb__http_head *head,
    struct wb__log_fields fields)
{
    char scope[160];

    if (gate->opts.log == NULL)
        return;
    write_scope(head, scope, sizeof(scope));
    if (head->method.len > 0)
        fields.scope = wb_slice(scope);
    gate->opts.log(gate->opts.ctx, (int)level, event, &fields);
}

void
wb__gate_log_access(const struct wb__gate *gate,
    const struct wb__http_head *head, int status, const char *outcome,
    int64_t us)
{
    char scope[160];

    if (gate->opts.access_log == NULL)
        return;
    write_scope(head, scope, sizeof(scope));
    wb__log(gate->opts.access_log, WB__LOG_INFO, "access",
        &(struct wb__log_fields){
            .scope = head->method.len > 0 ? wb_slice(scope) : WB_LIT(""),
            .status = status,
            .outcome = outcome,
            .timed = us >= 0,
            .duration_ms = us / 1000});
}

const char *
wb__gate_store_reason(
    const struct wb__gate *gate, enum wb_status rc, struct wb_err *err)
{
    return wb__idem_check(gate->opts.store, err) == WB_OK ? wb_status_text(rc)
                                                          : err->msg;
}

void
wb__gate_store_failed(
    struct wb__gate *gate, const struct wb__http_head *head, enum wb_status rc)
{
    struct wb_err err = {0};

    if (rc == WB_OK || rc == WB_FENCED)
        return;
    gate->n.store_errors++;
    wb__gate_log(gate, WB__LOG_WARN, "store-failed", head,
        (struct wb__log_fields){
            .error = wb_slice(wb__gate_store_reason(gate, rc, &err))});
}

/* A line for each: an operator can do something about 409 and 5xx. */
static void
log_error(const struct wb__gate *gate, const struct wb__http_head *head,
    const struct error *e, const char *why)
{
    wb__gate_log(gate,
        e->status == 409 || e->status >= 500 ? WB__LOG_WARN : WB__LOG_INFO,
        "refused", head,
        (struct wb__log_fields){.kind = wb_slice(e->type),
            .status = e->status,
            .error = wb_slice(why != NULL ? why : e->detail)});
}

void
wb__gate_respond_error(const struct wb__gate *gate,
    struct wb__exchange *exchange, enum wb__gate_error error, const char *why)
{
    const struct error *e = &errors[error];
    char body[1024], header[300];
    struct wb__buf headers = {.env = gate->opts.env, .max = 1024};

    WB_ASSERT(error != WB__GATE_NO_ERROR);
    /* That one was logged with its claim. */
    if (error != WB__GATE_OUTCOME_UNKNOWN &&
        error != WB__GATE_OUTCOME_UNKNOWN_SWITCHED)
        log_error(gate, exchange->head, e, why);
    wb__gate_log_access(gate, exchange->head, e->status, e->type, -1);
    if (error == WB__GATE_BAD_KEY || error == WB__GATE_KEY_REQUIRED) {
        (void)snprintf(header, sizeof(header), "the key's header is %.*s",
            WB_SHOW(gate->policy.key_header));
        why = header;
    }
    (void)snprintf(body, sizeof(body),
        "{\"type\":\"urn:waybill:%s\",\"title\":\"%s\",\"status\":%d,"
        "\"detail\":\"%s%s%s\"}\n",
        e->type, e->type, e->status, e->detail, why == NULL ? "" : ": ",
        why == NULL ? "" : why);
    wb__buf_str(&headers,
        "Content-Type: application/problem+json\nCache-Control: no-store\n");
    wb__buf_str(&headers, e->headers);
    wb__cors_add(&gate->cors, exchange->head->headers, &headers);
    /* Out of memory: without them. */
    wb__exchange_respond(exchange, &(struct wb__response){.status = e->status,
                                       .headers = wb__buf_slice(&headers),
                                       .body = wb_slice(body)});
    wb__buf_fini(&headers);
}

/* ---- counters ---------------------------------------------------------- */

static const struct {
    int64_t us;
    const char *le;
} bounds[WB__GATE_BUCKETS] = {{1000, "0.001"}, {2500, "0.0025"},
    {5000, "0.005"}, {10000, "0.01"}, {25000, "0.025"}, {50000, "0.05"},
    {100000, "0.1"}, {250000, "0.25"}, {1000000, "1"}, {2500000, "2.5"},
    {10000000, "10"}, {60000000, "60"}};

void
wb__gate_add_latency(struct wb__gate *gate, int64_t us)
{
    size_t i = 0;

    while (i < WB__GATE_BUCKETS && us > bounds[i].us)
        i++;
    gate->n.bucket[i]++;
    gate->n.seconds_us += (uint64_t)us;
}

static void
add_counter(struct wb__buf *out, const char *name, const char *help, uint64_t n)
{
    wb__buf_fmt(out,
        "# HELP waybill_gate_%s_total %s\n# TYPE waybill_gate_%s_total "
        "counter\nwaybill_gate_%s_total %llu\n",
        name, help, name, name, (unsigned long long)n);
}

void
wb__gate_metrics(const struct wb__gate *gate, struct wb__buf *out)
{
    static const char latency[] = "waybill_gate_keyed_seconds";
    const struct wb__gate_counters *n = &gate->n;
    unsigned long long sum = 0;

#define ADD(field, name, help) add_counter(out, name, help, n->field);
    WB__GATE_COUNTERS(ADD)
#undef ADD
    wb__buf_fmt(out,
        "# HELP %s Time to respond to keyed requests.\n# TYPE %s histogram\n",
        latency, latency);
    for (size_t i = 0; i < WB__GATE_BUCKETS; i++) {
        sum += n->bucket[i];
        wb__buf_fmt(
            out, "%s_bucket{le=\"%s\"} %llu\n", latency, bounds[i].le, sum);
    }
    sum += n->bucket[WB__GATE_BUCKETS];
    wb__buf_fmt(out,
        "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", latency,
        sum, latency, (double)n->seconds_us / 1e6, latency, sum);
    wb__buf_fmt(out,
        "# HELP waybill_gate_bytes Bytes in memory for keyed requests and "
        "their responses.\n"
        "# TYPE waybill_gate_bytes gauge\nwaybill_gate_bytes %zu\n",
        gate->bytes);
}
