/* test_transport_http_faults.c - T-7, F4, F5, S4: connections that die, replies
 * that lie or do not end, memory that runs out. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <curl/curl.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <unistd.h>

#include "http_fixture.h"

/* ---- connections ------------------------------------------------------- */

TEST(test_http__many_requests__one_connection) /* T-3 */
{
    open_endpoint(plain);
    for (int i = 0; i < 20; i++)
        post();
    CHECK_INT(20, peer.requests);
    CHECK_INT(1, peer.connections);
    close_all();
}

TEST(test_http__many_at_once__each_reported_once)
{
    enum {
        MANY = 64
    };
    static struct sent all[MANY];
    struct wb_request q = some_request();

    memset(all, 0, sizeof(all));
    open_endpoint(plain);
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < MANY; i++)
            endpoint->send(endpoint, &q, sent_done, &all[i]);
        (void)uv_run(&loop, UV_RUN_DEFAULT);
        for (int i = 0; i < MANY; i++) {
            CHECK_INT(round, all[i].calls);
            CHECK_INT(WB_DELIVERED, all[i].outcome);
        }
    }
    CHECK_INT(3 * MANY, peer.requests);
    CHECK(peer.connections <= MANY);
    close_all();
}

/* The bug, found by a worker that was stopped (C16): a transfer whose time ran
 * out before its socket was ever polled; libcurl closes such a socket without
 * a callback, and libuv aborted on it. */
static void *
slow_resize(void *ctx, void *ptr, size_t size)
{
    if (size > 0)
        (void)usleep(3000);
    return ENV->resize(ctx, ptr, size);
}

static void
test_http__time_runs_out_while_sockets_are_opened__told_and_goes_on(
    void **state)
{
    enum {
        MANY = 8
    };
    static struct sent all[MANY];
    struct wb_request q = some_request();
    struct wb_env slow = *ENV;
    struct wb_err err = {0};
    struct wb_http_opts opts = plain;

    (void)state;
    memset(all, 0, sizeof(all));
    peer_start(&peer);
    opts.url = wb_slice(url_at(peer.port));
    CHECK_INT(0, uv_loop_init(&loop));
    CHECK_OK(wb_http_open(&http, &slow, &loop, &err), err);
    CHECK_OK(wb_http_new(&endpoint, http, &opts, &err), err);
    q.timeout_ms = 10;
    for (int i = 0; i < MANY; i++)
        endpoint->send(endpoint, &q, sent_done, &all[i]);
    slow.resize = slow_resize;
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    slow.resize = ENV->resize;
    for (int i = 0; i < MANY; i++)
        CHECK_INT(1, all[i].calls);
    post();
    CHECK_INT(WB_DELIVERED, sent.outcome);
    close_all();
}

TEST(test_http__nobody_listens__retry_nothing_sent) /* F5 */
{
    open_with((struct wb_http_opts){.url = wb_slice(url_at(peer_dead_port()))});
    post();
    CHECK_INT(WB_RETRY, sent.outcome);
    CHECK_INT(0, sent.status);
    CHECK_HAS("transport: failed to connect to 127.0.0.1", sent.error);
    close_all();
}

/* What is our own trouble costs the message no attempt. */
TEST(test_http__no_descriptors__not_sent_and_no_attempt)
{
    struct rlimit old, none;
    struct wb_request q = some_request();
    char by_name[100];

    open_endpoint(plain);
    CHECK_INT(0, getrlimit(RLIMIT_NOFILE, &old));
    none = old;
    (void)snprintf(by_name, sizeof(by_name), "http://localhost:%d/", peer.port);
    for (int i = 0; i < 2; i++) {
        q.url = wb_slice(i == 0 ? url_at(peer.port) : by_name);
        none.rlim_cur = 3;
        CHECK_INT(0, setrlimit(RLIMIT_NOFILE, &none));
        send_and_wait(&loop, endpoint, &q, &sent);
        CHECK_INT(0, setrlimit(RLIMIT_NOFILE, &old));
        CHECK_INT(WB_RETRY, sent.outcome);
        CHECK(sent.no_resource);
        CHECK_TEXT("transport: not sent, this machine: too many open files",
            sent.error);
    }
    CHECK_INT(0, peer.requests);
    post();
    CHECK_INT(WB_DELIVERED, sent.outcome);
    close_all();
    open_with((struct wb_http_opts){.url = wb_slice(url_at(peer_dead_port()))});
    post();
    CHECK(!sent.no_resource);
    close_all();
}

TEST(test_http__unknown_host__says_so) /* O-13 */
{
    open_with((struct wb_http_opts){.url = WB_LIT("http://nosuch.invalid/")});
    post();
    CHECK_INT(WB_RETRY, sent.outcome);
    CHECK_HAS("transport: could not resolve host", sent.error);
    CHECK_HAS("nosuch.invalid", sent.error);
    close_all();
}

static bool
close_after_reply(struct peer_conn *c)
{
    (void)peer_reply(c);
    return false;
}

static bool
close_silently(struct peer_conn *c)
{
    (void)c;
    return false;
}

TEST(test_http__closed_before_answer__unknown) /* F5 */
{
    peer.answer = close_silently;
    open_endpoint(plain);
    post();
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    CHECK_INT(1, peer.requests);
    CHECK_TEXT("transport: empty reply from server", sent.error);
    close_all();
}

/* The same verdict at whatever byte of the answer the connection dies, until
 * the header is complete: from then on the status counts (C10). */
TEST(test_http__closed_at_byte_k__unknown_until_header_ends)
{
    static const char reply[] =
        "HTTP/1.1 200 OK\r\nX: y\r\nContent-Length: 5\r\n\r\nhello";
    size_t header = sizeof(reply) - 1 - 5;

    peer.answer = close_after_reply;
    peer.reply = reply;
    open_endpoint(plain);
    for (size_t k = 1; k < sizeof(reply); k++) {
        peer.reply_len = k;
        post();
        CHECK_INT(k < header ? WB_UNKNOWN : WB_DELIVERED, sent.outcome);
        if (k > 17 && k < header)
            CHECK_TEXT("transport: the connection closed within the header of "
                       "the answer",
                sent.error);
        CHECK_INT(k, peer.requests);
    }
    close_all();
}

static bool
never_answer(struct peer_conn *c)
{
    (void)peer_wait_ms(c, 10000);
    return false;
}

TEST(test_http__black_hole__unknown_at_the_deadline) /* F5 */
{
    struct wb_request q = some_request();
    uint64_t start = uv_hrtime();

    peer.answer = never_answer;
    open_endpoint(plain);
    q.timeout_ms = 100;
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    CHECK_HAS("transport: operation timed out", sent.error);
    CHECK((uv_hrtime() - start) / 1000000 < 2000);
    close_all();
}

static bool
drip(struct peer_conn *c)
{
    const char *p = c->peer->reply;

    while (*p != '\0' && peer_say(c, p++, 1) && peer_wait_ms(c, 20))
        ;
    return false;
}

TEST(test_http__drip__deadline_holds) /* S4 */
{
    struct wb_request q = some_request();

    peer.answer = drip;
    peer.reply = "HTTP/1.1 200 OK\r\nX-Very-Long: aaaaaaaaaaaaaaaaaaaaaaaa";
    open_endpoint(plain);
    q.timeout_ms = 150;
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    close_all();
}

/* ---- hostile replies --------------------------------------------------- */

static bool
say_for_ever(struct peer_conn *c)
{
    const char *p = c->peer->reply, *loop_from = strchr(p, '|');

    if (!peer_say(c, p, (size_t)(loop_from - p)))
        return false;
    while (peer_say(c, loop_from + 1, strlen(loop_from + 1)))
        ;
    return false;
}

TEST(test_http__endless_reply__given_up) /* S4 */
{
    static const struct {
        const char *reply;
        enum wb_outcome outcome;
        const char *error;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\n|A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n",
            WB_UNKNOWN, "transport: the header of the reply does not end"},
        {"HTTP/1.1 200 OK\r\nA: |aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            WB_UNKNOWN, "transport: "},
        {"|HTTP/1.1 100 Continue\r\n\r\n", WB_UNKNOWN,
            "transport: interim replies without end"},
        {"|HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", WB_UNKNOWN,
            "transport: interim replies without end"},
        {"HTTP/1.1 101 Switching Protocols\r\n\r\n|aaaaaaaaaaaaaaaaaaaaaaa",
            WB_UNKNOWN, "transport: "},
        {"HTTP/1.1 404 Not Found\r\n\r\n|zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
            WB_REJECTED, "404 Not Found: zzzzzzzzzz"},
        {"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n|"
         "4\r\nwiki\r\n",
            WB_REJECTED, "404 Not Found: wikiwiki"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n|"
         "A: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n",
            WB_UNKNOWN, "transport: the header of the reply does not end"},
        {"|aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", WB_UNKNOWN,
            "transport: "},
        {"HTTP/1.1 200 |aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            WB_UNKNOWN, "transport: "},
    };

    peer.answer = say_for_ever;
    open_endpoint(plain);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        peer.reply = cases[i].reply;
        post();
        CHECK_INT(cases[i].outcome, sent.outcome);
        CHECK(strncmp(sent.error, cases[i].error, strlen(cases[i].error)) == 0);
        CHECK(sent.body_len <= 65536);
    }
    close_all();
}

/* 66 lines of a thousand bytes: few enough, and too much. */
TEST(test_http__header_past_64_kib__given_up) /* S4 */
{
    static char reply[70000];
    size_t at = (size_t)snprintf(reply, sizeof(reply), "HTTP/1.1 200 OK\r\n");

    for (int i = 0; i < 66; i++)
        at += (size_t)snprintf(
            reply + at, sizeof(reply) - at, "A: %0995d\r\n", i);
    (void)snprintf(reply + at, sizeof(reply) - at, "Content-Length: 0\r\n\r\n");
    post_to(reply, plain);
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    CHECK_HAS("header of the reply does not end", sent.error);
    close_all();
}

TEST(test_http__line_of_400_kb__says_so)
{
    char *reply = malloc(400100);
    int n = snprintf(reply, 100, "HTTP/1.1 200 OK\r\nX: ");

    memset(reply + n, 'a', 400000);
    memcpy(reply + n + 400000, "\r\n\r\n", 5);
    post_to(reply, plain);
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    CHECK_TEXT("transport: a line in the header of the answer is too long",
        sent.error);
    close_all();
    free(reply);
}

TEST(test_http__long_reply__kept_up_to_the_limit) /* T-3 */
{
    peer.answer = say_for_ever;
    peer.reply =
        "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n|0123456";
    open_endpoint((struct wb_http_opts){.max_reply_bytes = 10});
    post();
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_TEXT("0123456012", sent.body);
    CHECK(sent.cut);
    close_all();
}

TEST(test_http__malformed_reply__unknown) /* F5, C24 */
{
    static const char *const replies[] = {
        "\r\n\r\n",
        "HELLO\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    };

    peer.answer = close_after_reply;
    open_endpoint(plain);
    for (size_t i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        peer.reply = replies[i];
        post();
        if (sent.outcome != WB_UNKNOWN)
            print_message("case %zu: %s\n", i, sent.error);
        CHECK_INT(WB_UNKNOWN, sent.outcome);
    }
    close_all();
}

TEST(test_http__gzip__is_not_inflated) /* S4 */
{
    /* 1 MiB of zeros, gzip twice: 43 bytes would do; any gzip serves. */
    static const char reply[] =
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\n"
        "Content-Length: 22\r\n\r\n"
        "\x1f\x8b\x08\0\0\0\0\0\0\x03\x4b\x04\0\x43\xbe\xb7\xe8\x01\0\0\0!";

    peer.reply = reply;
    peer.reply_len = sizeof(reply) - 1;
    open_endpoint(plain);
    post();
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_INT(22, sent.body_len);
    CHECK((unsigned char)sent.body[0] == 0x1f);
    CHECK(sent.coded && !sent.json);
    peer.reply_len = 0;
    peer_set_reply(&peer,
        "HTTP/1.1 200 OK\r\nContent-Encoding: Identity\r\nContent-Length: 2"
        "\r\nContent-Type: application/problem+JSON; charset=x\r\n\r\n{}");
    post();
    CHECK(!sent.coded && sent.json);
    close_all();
}

/* ---- freeing ----------------------------------------------------------- */

TEST(test_http__freed_in_flight__no_done)
{
    struct wb_request q = some_request();

    peer.answer = never_answer;
    open_endpoint(plain);
    memset(&sent, 0, sizeof(sent));
    for (int i = 0; i < 5; i++)
        endpoint->send(endpoint, &q, sent_done, &sent);
    while (peer.requests < 5)
        (void)uv_run(&loop, UV_RUN_NOWAIT);
    close_all();
    CHECK_INT(0, sent.calls);
}

static void
free_endpoint(void *ctx, const struct wb_result *r)
{
    sent_done(ctx, r);
    wb_transport_free(endpoint);
    endpoint = NULL;
}

TEST(test_http__freed_by_done__is_fine)
{
    struct wb_request q = some_request();

    open_endpoint(plain);
    memset(&sent, 0, sizeof(sent));
    endpoint->send(endpoint, &q, free_endpoint, &sent);
    endpoint->send(endpoint, &q, free_endpoint, &sent);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(1, sent.calls);
    close_all();
}

static int resends;

static void
send_again(void *ctx, const struct wb_result *r)
{
    struct wb_request q = some_request();

    sent_done(ctx, r);
    if (--resends > 0)
        endpoint->send(endpoint, &q, send_again, ctx);
}

TEST(test_http__sent_from_done__goes_out)
{
    struct wb_request q = some_request();

    open_endpoint(plain);
    memset(&sent, 0, sizeof(sent));
    resends = 10;
    endpoint->send(endpoint, &q, send_again, &sent);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(10, sent.calls);
    CHECK_INT(1, peer.connections);
    close_all();
}

TEST(test_http__memory_fails__retry_and_no_leak) /* F4 */
{
    long n;

    for (n = 0;; n++) {
        struct wb_http_opts opts = {.headers = WB_LIT("A: b\n")};
        struct wb_err err = {0};
        struct wb_transport *t;

        CHECK_INT(0, uv_loop_init(&loop));
        peer_start(&peer);
        opts.url = wb_slice(url_at(peer.port));
        fake_alloc_fail_at(n);
        if (wb_http_open(&http, ENV, &loop, &err) == WB_OK) {
            if (wb_http_new(&t, http, &opts, &err) == WB_OK) {
                struct wb_request q = some_request();

                send_and_wait(&loop, t, &q, &sent);
                CHECK(sent.outcome ==
                      (fake_env.failed == 0 ? WB_DELIVERED : WB_RETRY));
                wb_transport_free(t);
            } else {
                CHECK_INT(WB_NOMEM, err.status);
            }
            wb_http_close(http);
        } else {
            CHECK_INT(WB_NOMEM, err.status);
        }
        (void)uv_run(&loop, UV_RUN_DEFAULT);
        CHECK_INT(0, uv_loop_close(&loop));
        peer_stop(&peer);
        memset(&peer, 0, sizeof(peer));
        if (fake_env.failed == 0)
            break;
    }
    fake_alloc_fail_at(-1);
    CHECK(n >= 4);
}

static int urls_to_fail;

/* Replaces the function of libcurl; fails as it does without memory, after the
 * old URL has been freed. */
#undef curl_easy_setopt
CURLcode
curl_easy_setopt(CURL *easy, CURLoption option, ...)
{
    static CURLcode (*real)(CURL *, CURLoption, ...);
    va_list args;
    void *value;

    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "curl_easy_setopt");
    va_start(args, option);
    value = va_arg(args, void *);
    va_end(args);
    if (option != CURLOPT_URL || urls_to_fail == 0)
        return real(easy, option, value);
    urls_to_fail--;
    (void)real(easy, option, NULL);
    return CURLE_OUT_OF_MEMORY;
}

/* A handle that was not set whole is not used again. */
TEST(test_http__memory_fails_in_libcurl__next_one_goes_out) /* F4 */
{
    struct wb_request q = some_request(), own = q;

    open_endpoint(plain);
    own.url = wb_slice(url_at(peer.port));
    send_and_wait(&loop, endpoint, &own, &sent);
    urls_to_fail = 1;
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_INT(WB_RETRY, sent.outcome);
    CHECK_INT(0, urls_to_fail);
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    close_all();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_http__many_requests__one_connection),
        RUN(test_http__many_at_once__each_reported_once),
        RUN(test_http__time_runs_out_while_sockets_are_opened__told_and_goes_on),
        RUN(test_http__nobody_listens__retry_nothing_sent),
        RUN(test_http__no_descriptors__not_sent_and_no_attempt),
        RUN(test_http__unknown_host__says_so),
        RUN(test_http__closed_before_answer__unknown),
        RUN(test_http__closed_at_byte_k__unknown_until_header_ends),
        RUN(test_http__black_hole__unknown_at_the_deadline),
        RUN(test_http__drip__deadline_holds),
        RUN(test_http__endless_reply__given_up),
        RUN(test_http__header_past_64_kib__given_up),
        RUN(test_http__line_of_400_kb__says_so),
        RUN(test_http__long_reply__kept_up_to_the_limit),
        RUN(test_http__malformed_reply__unknown),
        RUN(test_http__gzip__is_not_inflated),
        RUN(test_http__freed_in_flight__no_done),
        RUN(test_http__freed_by_done__is_fine),
        RUN(test_http__sent_from_done__goes_out),
        RUN(test_http__memory_fails__retry_and_no_leak),
        RUN(test_http__memory_fails_in_libcurl__next_one_goes_out),
    };
    return RUN_ALL(tests);
}
