/* wake.c - D4: from a commit in one process to the request of another.
 *
 * ours: a worker waits for messages; this process enqueues one and is also the
 * receiver: it measures the time from the call of enqueue to the arrival of the
 * request; commit_us is the part until that call returned. ideal: the worker
 * waits on a pipe, this process overwrites 4 KiB, syncs, and writes to the
 * pipe. The worker is on CPU 1, this process on CPU 0. idle: the CPU use of a
 * worker that has no messages. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "bench.h"
#include "waybill/relay.h"

enum {
    GAP_US = 4000, /* between messages: the worker is idle again */
    WARM = 20
};

static int
listen_any(int *port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(fd, (struct sockaddr *)&a, len) != 0 || listen(fd, 8) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        bench_die("no port");
    *port = ntohs(a.sin_port);
    return fd;
}

/* ---- workers ----------------------------------------------------------- */

static void
worker_ours(int port)
{
    char url[64];
    uv_loop_t loop;
    struct wb_http *http;
    struct wb_route route = {.kind = "order.paid"};
    struct wb_http_opts to = {.url = {url, 0}};
    struct wb_relay_opts opts = {
        .routes = &route, .n_routes = 1, .loop = &loop};
    struct wb_outbox *box = bench_open(bench_path("db"));
    struct wb_drain drain = {0};
    struct wb_report report;
    struct wb_relay *relay;
    struct wb_err err = {0};

    to.url.len =
        (size_t)snprintf(url, sizeof(url), "http://127.0.0.1:%d/", port);
    if (uv_loop_init(&loop) != 0)
        bench_die("no loop");
    bench_ok(wb_http_open(&http, NULL, &loop, &err), &err, "http");
    bench_ok(wb_http_new(&route.transport, http, &to, &err), &err, "http");
    bench_ok(wb_relay_new(&relay, box, &opts, &err), &err, "relay");
    bench_ok(wb_relay_run(relay, &drain, &report, &err), &err, "run");
}

static void
worker_ideal(int port, int wake)
{
    static const char request[] = "POST / HTTP/1.1\r\n\r\n";
    struct sockaddr_in a = {.sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char byte;

    if (connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0)
        bench_die("no connection");
    while (read(wake, &byte, 1) == 1)
        if (write(fd, request, sizeof(request) - 1) < 0)
            return;
}

/* ---- producers --------------------------------------------------------- */

struct producer {
    struct wb_outbox *box; /* or NULL: */
    int file, wake;
    int64_t n;
};

static void
produce(struct producer *p)
{
    static const char block[4096];
    struct wb_message m = bench_message();
    struct wb_err err = {0};

    if (p->box != NULL)
        bench_ok(wb_outbox_enqueue(p->box, &m, NULL, &err), &err, "enqueue");
    else if (pwrite(p->file, block, 4096, p->n++ % 256 * 4096) != 4096 ||
             fdatasync(p->file) != 0 || write(p->wake, block, 1) != 1)
        bench_die("ideal: a write failed");
}

static void
arrive(int conn)
{
    static const char response[] = "HTTP/1.1 204 No Content\r\n\r\n";
    static char in[65536];

    if (read(conn, in, sizeof(in)) <= 0)
        bench_die("the worker closed the connection");
    (void)!write(conn, response, sizeof(response) - 1);
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static void
measure(struct producer *p, int listener)
{
    int64_t n = bench_opt("n", 300);
    double *us = calloc((size_t)n, sizeof(*us)), start, done;
    double *commit_us = calloc((size_t)n, sizeof(*us));
    int conn = -1;

    if (us == NULL || commit_us == NULL)
        bench_die("out of memory");
    for (int64_t i = -WARM; i < n; i++) {
        (void)usleep(GAP_US);
        start = bench_now();
        produce(p);
        done = bench_now();
        if (conn < 0)
            conn = accept(listener, NULL, NULL);
        arrive(conn);
        if (i < 0)
            continue;
        us[i] = (bench_now() - start) * 1e6;
        commit_us[i] = (done - start) * 1e6;
    }
    qsort(us, (size_t)n, sizeof(*us), compare);
    qsort(commit_us, (size_t)n, sizeof(*us), compare);
    bench_print("p50_us", us[n / 2]);
    bench_print("p99_us", us[n * 99 / 100]);
    bench_print("commit_us", commit_us[n / 2]);
    free(us);
    free(commit_us);
}

static pid_t
worker_start(bool ideal, int port, int wake)
{
    pid_t pid = fork();

    if (pid != 0)
        return pid;
    bench_pin(1);
    if (ideal)
        worker_ideal(port, wake);
    else
        worker_ours(port);
    _exit(0);
}

static void
worker_stop(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
}

static void
ours(void)
{
    struct producer p = {0};
    int port, listener = listen_any(&port);
    pid_t pid;

    wb_outbox_close(bench_open(bench_path("db")));
    pid = worker_start(false, port, -1);
    bench_pin(0);
    p.box = bench_open(bench_path("db"));
    measure(&p, listener);
    worker_stop(pid);
    wb_outbox_close(p.box);
}

static void
ideal(void)
{
    static const char zeros[1 << 20];
    struct producer p = {0};
    int port, listener = listen_any(&port), fds[2];
    pid_t pid;

    p.file = open(bench_path("file"), O_RDWR | O_CREAT, 0600);
    if (pipe(fds) != 0 || write(p.file, zeros, sizeof(zeros)) < 0 ||
        fsync(p.file) != 0)
        bench_die("no file");
    p.wake = fds[1];
    pid = worker_start(true, port, fds[0]);
    bench_pin(0);
    measure(&p, listener);
    worker_stop(pid);
}

/* Seconds on a CPU, of a process. */
static double
cpu_of(pid_t pid)
{
    char path[64];
    long long ns = 0;
    FILE *f;

    (void)snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)pid);
    f = fopen(path, "r");
    if (f == NULL || fscanf(f, "%lld", &ns) != 1)
        bench_die("no %s", path);
    (void)fclose(f);
    return (double)ns / 1e9;
}

static void
idle(void)
{
    int port;
    pid_t pid;
    double before, start;

    (void)listen_any(&port);
    wb_outbox_close(bench_open(bench_path("db")));
    pid = worker_start(false, port, -1);
    (void)usleep(500000);
    before = cpu_of(pid);
    start = bench_now();
    (void)usleep((useconds_t)bench_opt("ms", 3000) * 1000);
    bench_print(
        "percent", (cpu_of(pid) - before) / (bench_now() - start) * 100);
    worker_stop(pid);
}

int
main(int argc, char **argv)
{
    static const struct bench_subject subjects[] = {
        {"ours", ours}, {"ideal", ideal}, {"idle", idle}, {NULL, NULL}};

    return bench_main(argc, argv, subjects);
}
