/* peers.c - clients of the peers that have no benchmark of their own.
 *
 * redis-batch: a stream, 64 at a time: XREADGROUP, then XACK and XDEL with the
 * next XREADGROUP in one write, as our batches do. beanstalk-put,
 * beanstalk-one: one producer; reserve and delete one by one. Servers listen on
 * port=... */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "bench.h"

enum {
    BUFFER = 1 << 20,
    BATCH = 64
};

static struct {
    int fd;
    size_t at, len, out_len;
    char in[BUFFER], out[BUFFER];
} wire;

static void
wire_open(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
        .sin_port = htons((uint16_t)bench_opt("port", 0)),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;

    wire.fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(wire.fd, (struct sockaddr *)&a, sizeof(a)) != 0)
        bench_die("the server does not respond");
    (void)setsockopt(wire.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static void
put(const char *text, size_t len)
{
    if (wire.out_len + len > BUFFER)
        bench_die("too much to send");
    memcpy(wire.out + wire.out_len, text, len);
    wire.out_len += len;
}

static void
put_text(const char *text)
{
    put(text, strlen(text));
}

static void
flush(void)
{
    if (write(wire.fd, wire.out, wire.out_len) != (ssize_t)wire.out_len)
        bench_die("the server closed the connection");
    wire.out_len = 0;
}

static void
more(void)
{
    ssize_t got;

    memmove(wire.in, wire.in + wire.at, wire.len - wire.at);
    wire.len -= wire.at;
    wire.at = 0;
    got = read(wire.fd, wire.in + wire.len, BUFFER - wire.len - 1);
    if (got <= 0)
        bench_die("the server closed the connection");
    wire.len += (size_t)got;
    wire.in[wire.len] = '\0';
}

/* The next line, without its end; valid until the next call. */
static char *
line(void)
{
    char *end, *text;

    while ((end = memmem(wire.in + wire.at, wire.len - wire.at, "\r\n", 2)) ==
           NULL)
        more();
    text = wire.in + wire.at;
    *end = '\0';
    wire.at = (size_t)(end + 2 - wire.in);
    return text;
}

static char *
bytes(size_t len)
{
    while (wire.len - wire.at < len + 2)
        more();
    wire.at += len + 2;
    return wire.in + wire.at - len - 2;
}

/* ---- Redis ------------------------------------------------------------- */

static void
command(int n, const char *const *word)
{
    char head[32];

    (void)snprintf(head, sizeof(head), "*%d\r\n", n);
    put_text(head);
    for (int i = 0; i < n; i++) {
        (void)snprintf(head, sizeof(head), "$%zu\r\n", strlen(word[i]));
        put_text(head);
        put_text(word[i]);
        put_text("\r\n");
    }
}

/* One reply of any depth; entry ids ("1-0") are stored. */
static int
reply(char ids[][32], int most)
{
    int n = 0;

    for (long left = 1; left > 0; left--) {
        char *text = line();
        long value = strtol(text + 1, NULL, 10);
        char *s;

        if (text[0] == '-')
            bench_die("redis: %s", text);
        if (text[0] == '*' && value > 0)
            left += value;
        if (text[0] != '$' || value < 0)
            continue;
        s = bytes((size_t)value);
        if (value < 32 && n < most && memchr(s, '-', (size_t)value) != NULL)
            (void)snprintf(ids[n++], 32, "%.*s", (int)value, s);
    }
    return n;
}

static void
redis_fill(int64_t n)
{
    static const char *const del[] = {"DEL", "q"};
    static const char *const group[] = {
        "XGROUP", "CREATE", "q", "g", "0", "MKSTREAM"};
    const char *const add[] = {"XADD", "q", "*", "p", bench_payload().ptr};

    command(2, del);
    command(6, group);
    flush();
    (void)reply(NULL, 0);
    (void)reply(NULL, 0);
    for (int64_t i = 0; i < n; i += 1000) {
        for (int k = 0; k < 1000; k++)
            command(5, add);
        flush();
        for (int k = 0; k < 1000; k++)
            (void)reply(NULL, 0);
    }
}

static void
redis_batch(void)
{
    static const char *const take[] = {
        "XREADGROUP", "GROUP", "g", "c", "COUNT", "64", "STREAMS", "q", ">"};
    static char ids[BATCH][32];
    const char *ack[3 + BATCH] = {"XACK", "q", "g"};
    const char *del[2 + BATCH] = {"XDEL", "q"};
    double start, end;
    int64_t done = 0;
    int n;

    wire_open();
    redis_fill(bench_opt("n", 100000));
    start = bench_now();
    end = bench_until();
    command(9, take);
    flush();
    while ((n = reply(ids, BATCH)) > 0 && bench_now() < end) {
        for (int i = 0; i < n; i++)
            ack[3 + i] = del[2 + i] = ids[i];
        command(3 + n, ack);
        command(2 + n, del);
        command(9, take);
        flush();
        (void)reply(NULL, 0);
        (void)reply(NULL, 0);
        done += n;
    }
    bench_rate(done, bench_now() - start);
}

/* ---- beanstalkd -------------------------------------------------------- */

static void
job_put(void)
{
    put_text("put 0 0 60 300\r\n");
    put(bench_payload().ptr, 300);
    put_text("\r\n");
}

static void
expect(const char *what)
{
    char *text = line();

    if (strncmp(text, what, strlen(what)) != 0)
        bench_die("beanstalkd: %s", text);
}

static void
beanstalk_put(void)
{
    double start, end;
    int64_t n = 0;

    wire_open();
    start = bench_now();
    end = bench_until();
    for (; bench_now() < end; n++) {
        job_put();
        flush();
        expect("INSERTED");
    }
    bench_rate(n, bench_now() - start);
}

static void
beanstalk_one(void)
{
    double start, end;
    int64_t n = 0;
    char id[32];

    wire_open();
    for (int i = 0; i < 10000; i++) {
        job_put();
        if (i % 100 < 99)
            continue;
        flush();
        for (int k = 0; k < 100; k++)
            expect("INSERTED");
    }
    start = bench_now();
    end = bench_until();
    for (; n < 10000 && bench_now() < end; n++) {
        put_text("reserve\r\n");
        flush();
        if (sscanf(line(), "RESERVED %31s", id) != 1)
            bench_die("beanstalkd: nothing reserved");
        (void)bytes(300);
        put_text("delete ");
        put_text(id);
        put_text("\r\n");
        flush();
        expect("DELETED");
    }
    bench_rate(n, bench_now() - start);
}

int
main(int argc, char **argv)
{
    static const struct bench_subject subjects[] = {
        {"redis-batch", redis_batch}, {"beanstalk-put", beanstalk_put},
        {"beanstalk-one", beanstalk_one}, {NULL, NULL}};

    return bench_main(argc, argv, subjects);
}
