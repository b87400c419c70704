/* drain.c - D1 to D3: messages out.
 *
 * relay: a drain over HTTP to port=..., so many in flight, batch=... messages a
 * request. curl: libcurl alone with the same bodies. memory: a long drain, its
 * memory and log size. The receiver (serve.c) is pinned to CPU 1; these are not
 * pinned, because a drain has a thread for its commits. */
#define _GNU_SOURCE
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "bench.h"
#include "waybill/relay.h"

enum {
    IN_FLIGHT = 64
};

static const char *
url(void)
{
    static char text[64];

    (void)snprintf(
        text, sizeof(text), "http://127.0.0.1:%d/", (int)bench_opt("port", 0));
    return text;
}

/* ---- the relay --------------------------------------------------------- */

struct line {
    uv_loop_t loop;
    struct wb_http *http;
    struct wb_transport *transport;
    struct wb_route route;
    struct wb_relay *relay;
};

static void
line_open(struct line *l, struct wb_outbox *box)
{
    struct wb_err err = {0};
    struct wb_http_opts to = {.url = {url(), strlen(url())}};
    struct wb_relay_opts opts = {.routes = &l->route, .n_routes = 1};

    if (uv_loop_init(&l->loop) != 0)
        bench_die("no loop");
    bench_ok(wb_http_open(&l->http, NULL, &l->loop, &err), &err, "http");
    bench_ok(wb_http_new(&l->transport, l->http, &to, &err), &err, "http");
    l->route = (struct wb_route){.kind = "order.paid",
        .transport = l->transport,
        .concurrency = IN_FLIGHT,
        .batch = (uint32_t)bench_opt("batch", 1)};
    if (l->route.batch > 1)
        l->route.concurrency = 4;
    opts.loop = &l->loop;
    bench_ok(wb_relay_new(&l->relay, box, &opts, &err), &err, "relay");
}

static void
line_close(struct line *l)
{
    wb_relay_free(l->relay);
    wb_transport_free(l->transport);
    wb_http_close(l->http);
    (void)uv_run(&l->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&l->loop);
}

static void
drain_all(struct line *l, struct wb_drain *drain, uint64_t n)
{
    struct wb_report r;
    struct wb_err err = {0};
    double start = bench_now();

    bench_ok(wb_relay_drain(l->relay, drain, &r, &err), &err, "drain");
    bench_rate((int64_t)r.confirmed, bench_now() - start);
    if (r.confirmed != n)
        bench_die("%llu of %llu confirmed", (unsigned long long)r.confirmed,
            (unsigned long long)n);
}

static void
relay(void)
{
    int64_t n = bench_opt("n", 20000);
    struct wb_outbox *box = bench_open(bench_path("db"));
    struct wb_drain all = {0};
    struct line l;

    bench_fill(box, n);
    line_open(&l, box);
    drain_all(&l, &all, (uint64_t)n);
    line_close(&l);
    wb_outbox_close(box);
}

/* ---- libcurl alone ----------------------------------------------------- */

static CURL *
easy_new(CURLM *multi)
{
    static struct curl_slist type = {
        (char *)(uintptr_t) "Content-Type: application/json", NULL};
    CURL *easy = curl_easy_init();

    (void)curl_easy_setopt(easy, CURLOPT_URL, url());
    (void)curl_easy_setopt(easy, CURLOPT_POST, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, &type);
    (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDS, bench_payload().ptr);
    (void)curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, 300L);
    (void)curl_multi_add_handle(multi, easy);
    return easy;
}

/* Start the transfers that ended again; returns how many ended. */
static int64_t
ended(CURLM *multi, int64_t left)
{
    CURLMsg *msg;
    int more;
    int64_t n = 0;

    while ((msg = curl_multi_info_read(multi, &more)) != NULL) {
        CURL *easy = msg->easy_handle;

        if (msg->data.result != CURLE_OK)
            bench_die("curl: %s", curl_easy_strerror(msg->data.result));
        (void)curl_multi_remove_handle(multi, easy);
        if (++n <= left)
            (void)curl_multi_add_handle(multi, easy);
        else
            curl_easy_cleanup(easy);
    }
    return n;
}

static void
curl_alone(void)
{
    CURLM *multi = curl_multi_init();
    int64_t n = bench_opt("n", 20000), left = n - IN_FLIGHT, done = 0;
    double start;
    int running;

    (void)curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)IN_FLIGHT);
    for (int i = 0; i < IN_FLIGHT; i++)
        (void)easy_new(multi);
    start = bench_now();
    while (done < n) {
        int64_t now;

        (void)curl_multi_perform(multi, &running);
        now = ended(multi, left);
        done += now;
        left -= now < left ? now : left;
        if (now == 0)
            (void)curl_multi_poll(multi, NULL, 0, 1000, NULL);
    }
    bench_rate(n, bench_now() - start);
    (void)curl_multi_cleanup(multi);
}

/* ---- memory ------------------------------------------------------------ */

struct watch {
    double rss_first, rss_most, log_most;
    uint64_t n;
};

static double
rss_mib(void)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (f == NULL || fscanf(f, "%*d %ld", &pages) != 1)
        bench_die("no /proc/self/statm");
    (void)fclose(f);
    return (double)pages * 4096 / (1 << 20);
}

static void
watch_memory(void *ctx, const struct wb_report *so_far)
{
    struct watch *w = ctx;
    double rss = rss_mib();
    struct stat st;

    if (w->rss_first == 0 && so_far->confirmed >= w->n / 10)
        w->rss_first = rss;
    if (rss > w->rss_most)
        w->rss_most = rss;
    if (stat(bench_path("db-wal"), &st) == 0 && st.st_size > w->log_most)
        w->log_most = (double)st.st_size;
}

static void
memory(void)
{
    int64_t n = bench_opt("n", 1000000);
    struct watch w = {.n = (uint64_t)n};
    struct wb_drain all = {.progress = watch_memory, .ctx = &w};
    struct wb_outbox *box;
    struct line l;
    pid_t pid = fork();

    if (pid == 0) {
        box = bench_open(bench_path("db"));
        bench_fill(box, n);
        wb_outbox_close(box);
        _exit(0);
    }
    (void)waitpid(pid, NULL, 0);
    box = bench_open(bench_path("db"));
    line_open(&l, box);
    drain_all(&l, &all, (uint64_t)n);
    watch_memory(&w, &(struct wb_report){.confirmed = (uint64_t)n});
    bench_print("rss_mib", w.rss_most);
    bench_print("rss_tenth_mib", w.rss_first);
    bench_print("log_mib", w.log_most / (1 << 20));
    line_close(&l);
    wb_outbox_close(box);
}

int
main(int argc, char **argv)
{
    static const struct bench_subject subjects[] = {{"relay", relay},
        {"curl", curl_alone}, {"memory", memory}, {NULL, NULL}};

    return bench_main(argc, argv, subjects);
}
