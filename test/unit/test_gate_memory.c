/* test_gate_memory.c - the gateway without memory: whichever allocation fails,
 * no client gets another one's response, or a short one that does not end with
 * the connection, and the next request is served. */
#include "http_client.h"
#include "http_peer.h"

#include "gate/gate.h"

enum {
    STORED = 1000, /* longer responses go through in pieces */
    LONG = 5000
};

static struct gateway {
    uv_loop_t loop;
    uv_async_t stop;
    pthread_t thread;
    struct wb_idem *store;
    struct wb__gate *gate;
    char upstream[64];
} gateway;
static struct fixture front; /* the port, for clients */
static struct peer peer;

static void
on_stopped(void *ctx)
{
    (void)ctx;
    wb__gate_close(gateway.gate);
    uv_close((uv_handle_t *)&gateway.stop, NULL);
}

static void
on_stop(uv_async_t *stop)
{
    (void)stop;
    wb__gate_stop(gateway.gate);
}

static void *
run(void *arg)
{
    (void)arg;
    (void)uv_run(&gateway.loop, UV_RUN_DEFAULT);
    return NULL;
}

static void
open_gateway(void)
{
    struct wb_idem_opts idem = {.env = ENV};
    struct wb__gate_opts opts = {.env = ENV,
        .loop = &gateway.loop,
        .listen = WB_LIT("127.0.0.1:0"),
        .response_bytes = STORED,
        .stopped = on_stopped};

    (void)snprintf(gateway.upstream, sizeof(gateway.upstream),
        "http://127.0.0.1:%d", peer.port);
    opts.upstream = wb_slice(gateway.upstream);
    CHECK_INT(0, uv_loop_init(&gateway.loop));
    CHECK_STATUS(OK, wb_idem_open_memory(&gateway.store, &idem, NULL));
    opts.store = gateway.store;
    CHECK_STATUS(OK, wb__gate_open(&gateway.gate, &opts, NULL));
    CHECK_INT(0, uv_async_init(&gateway.loop, &gateway.stop, on_stop));
    front.port = atoi(strrchr(wb__gate_address(gateway.gate), ':') + 1);
    CHECK_INT(0, pthread_create(&gateway.thread, NULL, run, NULL));
}

static void
close_gateway(void)
{
    (void)uv_async_send(&gateway.stop);
    CHECK_INT(0, pthread_join(gateway.thread, NULL));
    CHECK_INT(0, uv_loop_close(&gateway.loop));
    wb_idem_close(gateway.store);
}

/* The number of responses. Each has its length and only bytes of its own; the
 * last one may be cut. */
static int
count_responses(const char *got)
{
    int n = 0;

    for (; *got != '\0'; n++) {
        const char *body = strstr(got, "\r\n\r\n");
        const char *length = strstr(got, "Content-Length: ");
        size_t left;

        CHECK(strncmp(got, "HTTP/1.1 ", 9) == 0);
        if (body == NULL || length == NULL || length > body)
            return n; /* cut within the head, or chunked: the last one */
        left = strtoul(length + 16, NULL, 10);
        for (got = body + 4; left > 0 && *got != '\0'; left--)
            CHECK(*got++ != 'H');
    }
    return n;
}

#define KEYED(key)                                          \
    "POST /in HTTP/1.1\r\nHost: a\r\nAuthorization: me\r\n" \
    "Idempotency-Key: " key "\r\nContent-Length: 5\r\n\r\nhello"

static int
send_all(const char *text)
{
    return count_responses(client_once(&front, text, strlen(text)));
}

static void
fail_each(int length)
{
    static char reply[LONG + 100];
    long failed = 1;
    int n;

    memset(&peer, 0, sizeof(peer));
    n = snprintf(reply, sizeof(reply),
        "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", length);
    (void)memset(reply + n, 'b', (size_t)length);
    peer.reply = reply;
    peer.reply_len = (size_t)(n + length);
    peer_start(&peer);
    for (long i = 0; failed != 0; i++) {
        open_gateway();
        fake_alloc_fail_at(i);
        (void)send_all(KEYED("k1") KEYED("k2") KEYED("k1"));
        (void)send_all("POST /in HTTP/1.1\r\nHost: a\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n"
                       "5\r\nhello\r\n0\r\n\r\n" KEYED("k3"));
        failed = fake_env.failed;
        fake_alloc_fail_at(-1);
        CHECK_INT(2, send_all(KEYED("k4") KEYED("k5")));
        close_gateway();
    }
    peer_stop(&peer);
}

TEST(test_gate_memory__each_allocation_fails__answers_stay_whole)
{
    fail_each(LONG);
    fail_each(5);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_gate_memory__each_allocation_fails__answers_stay_whole),
    };
    return RUN_ALL(tests);
}
