/* metrics.c - what a worker has done since it started, in the text format of
 * Prometheus.
 *
 * (1) The numbers come from the events of the relay: a scrape reads no
 *     database for them.
 * (2) The first KINDS_MAX kinds have series of their own; those of all others
 *     are summed under "(other)". */
#include "cli/cli.h"
#include "outbox/outbox_internal.h"

#define KINDS_MAX 200

/* Upper bounds of the buckets, milliseconds; the last bucket has none. */
static const int64_t bounds[CLI_METRIC_BUCKETS - 1] = {
    5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000};

/* ---- counting ----------------------------------------------------------- */

/* NULL: no memory; the event is not counted. */
static struct cli_kind_metrics *
metrics_of(struct cli_metrics *m, struct wb_slice kind)
{
    struct cli_kind_metrics *k;

    for (size_t i = 0; i < m->n; i++)
        if (wb__eq(wb_slice(m->kind[i].name), kind))
            return &m->kind[i];
    if (m->n >= KINDS_MAX)
        kind = WB_LIT("(other)");
    if (m->n > KINDS_MAX)
        return &m->kind[KINDS_MAX];
    if (!wb__array_grow(m->env, &m->kind, m->n, &m->cap, sizeof(*k)))
        return NULL;
    k = &m->kind[m->n++];
    *k = (struct cli_kind_metrics){0};
    (void)snprintf(k->name, sizeof(k->name), "%.*s", WB_SHOW(kind));
    return k;
}

static void
observe(struct cli_histogram *h, int64_t ms)
{
    size_t i = 0;

    while (i < WB_COUNT(bounds) && ms > bounds[i])
        i++;
    h->bucket[i]++;
    h->sum_ms += (uint64_t)(ms > 0 ? ms : 0);
}

void
cli_metrics_event(struct cli_metrics *m, const struct wb_relay_event *e)
{
    struct cli_kind_metrics *k;

    switch (e->type) {
    case WB_RELAY_ATTEMPT:
        k = metrics_of(m, e->kind);
        if (k == NULL)
            return;
        k->attempts[e->outcome]++;
        k->abandoned += e->state == WB_STATE_ABANDONED;
        observe(&k->duration, e->duration_ms);
        return;
    case WB_RELAY_LEASE_LOST:
        m->leases_lost++;
        return;
    case WB_RELAY_ENDED:
        m->ended += e->count;
        return;
    case WB_RELAY_BREAKER_OPENED:
        m->breakers_opened++;
        return;
    case WB_RELAY_DATABASE_LOST:
        m->database_lost = true;
        return;
    case WB_RELAY_DATABASE_FOUND:
        m->database_lost = false;
        return;
    case WB_RELAY_COMMITTED:
        observe(&m->commits, e->duration_ms);
        return;
    case WB_RELAY_BREAKER_CLOSED:
    case WB_RELAY_STANDBY:
    case WB_RELAY_STARTED:
    case WB_RELAY_STOPPING:
    case WB_RELAY_RELOADED:
        return;
    }
}

void
cli_metrics_fini(struct cli_metrics *m)
{
    wb__free(m->env, m->kind);
}

/* ---- the page ----------------------------------------------------------- */

void
cli_metric(
    struct wb__buf *b, const char *name, const char *type, const char *help)
{
    wb__buf_fmt(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

void
cli_metric_label(struct wb__buf *b, struct wb_slice s)
{
    for (size_t i = 0; i < s.len; i++) {
        bool end = s.ptr[i] == '\n';

        if (end || s.ptr[i] == '"' || s.ptr[i] == '\\')
            wb__buf_str(b, "\\");
        wb__buf_add(b, (struct wb_slice){end ? "n" : s.ptr + i, 1});
    }
}

/* labels: `kind="x"`, or empty. */
static void
add_histogram(struct wb__buf *b, const char *name, const char *labels,
    const struct cli_histogram *h)
{
    const char *comma = labels[0] != '\0' ? "," : "";
    uint64_t n = 0;

    for (size_t i = 0; i < CLI_METRIC_BUCKETS; i++) {
        n += h->bucket[i];
        wb__buf_fmt(b, "%s_bucket{%s%sle=\"", name, labels, comma);
        if (i < WB_COUNT(bounds))
            wb__buf_fmt(b, "%g", (double)bounds[i] / 1000);
        else
            wb__buf_str(b, "+Inf");
        wb__buf_fmt(b, "\"} %llu\n", (unsigned long long)n);
    }
    wb__buf_fmt(b, "%s_sum%s%s%s %.3f\n%s_count%s%s%s %llu\n", name,
        labels[0] != '\0' ? "{" : "", labels, labels[0] != '\0' ? "}" : "",
        (double)h->sum_ms / 1000, name, labels[0] != '\0' ? "{" : "", labels,
        labels[0] != '\0' ? "}" : "", (unsigned long long)n);
}

static void
add_kinds(const struct cli_metrics *m, struct wb__buf *b)
{
    char labels[80];

    cli_metric(b, "waybill_attempts_total", "counter",
        "Attempts whose outcome is committed.");
    for (size_t i = 0; i < m->n; i++)
        for (size_t o = 0; o < WB_COUNT(m->kind[i].attempts); o++)
            wb__buf_fmt(b,
                "waybill_attempts_total{kind=\"%s\",outcome=\"%s\"} %llu\n",
                m->kind[i].name, wb__outcome_name((enum wb_outcome)o),
                (unsigned long long)m->kind[i].attempts[o]);
    cli_metric(b, "waybill_abandoned_total", "counter",
        "Messages abandoned after an attempt.");
    for (size_t i = 0; i < m->n; i++)
        wb__buf_fmt(b, "waybill_abandoned_total{kind=\"%s\"} %llu\n",
            m->kind[i].name, (unsigned long long)m->kind[i].abandoned);
    cli_metric(b, "waybill_attempt_duration_seconds", "histogram",
        "From sending a request to its outcome.");
    for (size_t i = 0; i < m->n; i++) {
        (void)snprintf(labels, sizeof(labels), "kind=\"%s\"", m->kind[i].name);
        add_histogram(b, "waybill_attempt_duration_seconds", labels,
            &m->kind[i].duration);
    }
}

static void
add_one(struct wb__buf *b, const char *name, const char *type, const char *help,
    uint64_t n)
{
    cli_metric(b, name, type, help);
    wb__buf_fmt(b, "%s %llu\n", name, (unsigned long long)n);
}

void
cli_metrics_write(const struct cli_metrics *m, struct wb__buf *b)
{
    add_kinds(m, b);
    add_one(b, "waybill_ended_total", "counter",
        "Messages abandoned without an attempt: expired, lease ran out.",
        m->ended);
    add_one(b, "waybill_leases_lost_total", "counter",
        "Outcomes that changed nothing: another worker had the message.",
        m->leases_lost);
    add_one(b, "waybill_breaker_opened_total", "counter",
        "Times that a breaker opened.", m->breakers_opened);
    add_one(b, "waybill_database_up", "gauge",
        "0 while the worker waits for its database.", m->database_lost ? 0 : 1);
    add_one(
        b, "waybill_in_flight", "gauge", "Requests in flight.", m->in_flight);
    cli_metric(b, "waybill_commit_duration_seconds", "histogram",
        "Transactions of the worker: outcomes and claims.");
    add_histogram(b, "waybill_commit_duration_seconds", "", &m->commits);
}

void
cli_metrics_log(const struct wb__log *log, struct wb__buf *b)
{
    cli_metric(b, "waybill_log_lines_total", "counter", "Lines of the log.");
    for (int i = 0; i < WB__LOG_LEVELS; i++)
        wb__buf_fmt(b, "waybill_log_lines_total{level=\"%s\"} %llu\n",
            wb__log_level_name((enum wb__log_level)i),
            (unsigned long long)atomic_load(&log->lines[i]));
}

void
cli_metrics_unrouted(struct wb__buf *b, uint64_t kinds)
{
    add_one(b, "waybill_unrouted_kinds", "gauge",
        "Kinds with messages that wait, and no route.", kinds);
}

void
cli_metrics_build(struct wb__buf *b)
{
    cli_metric(b, "waybill_build_info", "gauge", "Always 1.");
    wb__buf_str(b, "waybill_build_info{version=\"" WB_VERSION "\"} 1\n");
}
