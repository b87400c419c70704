/* metrics.c - the counters as text. No keys, no bodies. (G-13) */
#include "gate/gate_internal.h"

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
