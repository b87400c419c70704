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
        "send one Idempotency-Key of 1 to 255 printable characters, and one "
        "identity",
        ""},
    [WB__GATE_KEY_REQUIRED] = {400, "key-required",
        "an Idempotency-Key is required here", ""},
    [WB__GATE_ANONYMOUS] = {401, "bad-key",
        "a key needs an identity: send credentials",
        "WWW-Authenticate: Bearer\n"},
    [WB__GATE_IN_FLIGHT] = {409, "in-flight",
        "another request with this key is under way; try again later",
        "Retry-After: 1\n"},
    [WB__GATE_MISMATCH] = {422, "mismatch",
        "this key was used for another request", ""},
    [WB__GATE_KEY_HELD] = {409, "outcome-unknown",
        "an earlier request with this key may have taken effect; its outcome "
        "is unknown until an operator settles it",
        ""},
    [WB__GATE_OUTCOME_UNKNOWN] = {504, "outcome-unknown",
        "the upstream server received the request but did not respond "
        "completely; the request may have taken effect",
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
        "the store of keys is unavailable; the outcome of a request that is "
        "under way is unknown",
        "Retry-After: 1\n"},
    [WB__GATE_UPSTREAM_UNREACHABLE] = {502, "upstream-unreachable",
        "the upstream server could not be reached; nothing was sent", ""},
    [WB__GATE_UPSTREAM_FAILED] = {504, "upstream-failed",
        "the upstream server received the request but did not respond "
        "completely",
        ""},
    [WB__GATE_UPSTREAM_SWITCHED] = {502, "upstream-failed",
        "the upstream server switched protocols", ""},
    [WB__GATE_OUT_OF_MEMORY] = {503, "too-busy",
        "out of memory; try again later", "Retry-After: 1\n"},
};

void
wb__gate_respond_error(struct wb__exchange *exchange, enum wb__gate_error error)
{
    const struct error *e = &errors[error];
    char body[512], headers[160];

    WB_ASSERT(error != WB__GATE_NO_ERROR);
    (void)snprintf(body, sizeof(body),
        "{\"type\":\"urn:waybill:%s\",\"title\":\"%s\",\"status\":%d,"
        "\"detail\":\"%s\"}\n",
        e->type, e->type, e->status, e->detail);
    (void)snprintf(headers, sizeof(headers),
        "Content-Type: application/problem+json\nCache-Control: no-store\n%s",
        e->headers);
    wb__exchange_respond(exchange, &(struct wb__response){.status = e->status,
                                       .headers = wb_slice(headers),
                                       .body = wb_slice(body)});
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
