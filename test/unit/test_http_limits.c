/* test_http_limits.c - deadlines, limits of connections and memory, clients
 * that leave, stopping, over real sockets on loopback (G-10, G-12). Deadlines
 * here are real ones, of some ten milliseconds: the loop's own clock cannot be
 * moved. */
#include "http_client.h"

#include "../http_cases.h"

static const struct wb__http_server_opts usual = {0};

static struct fixture fixture; /* one a test */

static void
begin(struct wb__http_server_opts opts)
{
    CHECK_INT(WB_OK, fixture_open(&fixture, opts));
}

/* ---- time -------------------------------------------------------------- */

/* A byte now and then does not move the deadline. */
static void
dribble(const char *head, const char *want)
{
    int64_t from = real_ms();
    struct pollfd p = {.fd = client_open(&fixture), .events = POLLIN};

    client_say(p.fd, head);
    while (poll(&p, 1, 10) == 0 && real_ms() - from < 10000)
        (void)client_send(p.fd, "a", 1);
    CHECK(real_ms() - from >= 90);
    CHECK_HAS(want, client_read(p.fd, NULL));
    CHECK(real_ms() - from < 5000);
    (void)close(p.fd);
}

TEST(test_http_limits__slow_head__408)
{
    begin((struct wb__http_server_opts){.head_ms = 100});
    dribble("GET / HTTP/1.1\r\nX: ", "HTTP/1.1 408 Request Timeout\r\n");
    fixture_close(&fixture);
}

TEST(test_http_limits__slow_body__408)
{
    begin((struct wb__http_server_opts){.body_ms = 100});
    dribble(POST "Content-Length: 9999\r\n\r\n",
        "HTTP/1.1 408 Request Timeout\r\n");
    fixture_close(&fixture);
}

TEST(test_http_limits__idle__closed_without_a_byte)
{
    int fd, used;

    begin((struct wb__http_server_opts){.idle_ms = 100});
    fd = client_open(&fixture);
    used = client_open(&fixture);
    client_say(used, GET "\r\n");
    CHECK_HAS("200 OK", client_read(used, "GET /"));
    CHECK_TEXT("", client_read(used, NULL));
    CHECK_TEXT("", client_read(fd, NULL));
    (void)close(used);
    (void)close(fd);
    fixture_close(&fixture);
}

TEST(test_http_limits__response_never_read__cut_off)
{
    int fd;

    begin((struct wb__http_server_opts){.write_ms = 100});
    fd = client_open(&fixture);
    client_say(fd, "GET /big HTTP/1.1\r\n" HOST "\r\n");
    WAIT_FOR(fixture.requests == 1);
    fixture_stop(&fixture); /* ends although the client does not read */
    fixture_wait(&fixture);
    (void)close(fd);
}

/* ---- many -------------------------------------------------------------- */

TEST(test_http_limits__2000_idle_connections__still_serves)
{
    enum {
        N = 2000
    };
    static int fd[N];
    static const char text[] = GET "\r\n";

    begin((struct wb__http_server_opts){.max_conns = N + 10});
    for (int i = 0; i < N; i++)
        fd[i] = client_open(&fixture);
    CHECK_HAS("GET /", client_once(&fixture, text, sizeof(text) - 1));
    for (int i = 0; i < N; i += 100) { /* and they are still there */
        client_say(fd[i], text);
        CHECK_HAS("GET /", client_read(fd[i], "GET /"));
    }
    fixture_close(&fixture);
    for (int i = 0; i < N; i++)
        (void)close(fd[i]);
}

TEST(test_http_limits__full__longest_idle_is_closed)
{
    static const char text[] = GET "\r\n";
    int a, b, c;

    begin((struct wb__http_server_opts){.max_conns = 2});
    a = client_open(&fixture);
    client_say(a, text);
    CHECK_HAS("GET /", client_read(a, "GET /"));
    b = client_open(&fixture);
    client_say(b, text);
    CHECK_HAS("GET /", client_read(b, "GET /"));
    client_say(a, text); /* now b is idle longest */
    CHECK_HAS("GET /", client_read(a, "GET /"));
    c = client_open(&fixture);
    client_say(c, text);
    CHECK_HAS("GET /", client_read(c, "GET /"));
    CHECK(client_ended(b));
    client_say(a, text);
    CHECK_HAS("GET /", client_read(a, "GET /"));
    (void)close(a);
    (void)close(b);
    (void)close(c);
    fixture_close(&fixture);
}

TEST(test_http_limits__full_of_busy_ones__next_waits)
{
    static const char text[] = GET "\r\n";
    struct pollfd p = {.events = POLLIN};
    int busy;

    begin((struct wb__http_server_opts){.max_conns = 1});
    busy = client_open(&fixture);
    client_say(busy, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    WAIT_FOR(fixture.requests == 1);
    p.fd = client_open(&fixture);
    client_say(p.fd, text);
    CHECK_INT(0, poll(&p, 1, 50));
    fixture_release(&fixture);
    CHECK_HAS("GET /", client_read(p.fd, "GET /"));
    (void)close(busy);
    (void)close(p.fd);
    fixture_close(&fixture);
}

TEST(test_http_limits__all_hold_too_much__503)
{
    enum {
        N = 32
    };
    static char half[500 << 10];
    struct pollfd p[N];
    int fd[N];

    begin((struct wb__http_server_opts){.max_bytes = 4 << 20});
    for (int i = 0; i < N; i++) {
        fd[i] = client_open(&fixture);
        client_say(fd[i], POST "Content-Length: 1000000\r\n\r\n");
        CHECK(client_send(fd[i], half, sizeof(half)));
        p[i] = (struct pollfd){.fd = fd[i], .events = POLLIN};
    }
    WAIT_FOR(poll(p, N, 0) >= N - 8); /* each of the others holds 512 KiB */
    for (int i = 0; i < N; i++) {
        if ((p[i].revents & POLLIN) != 0)
            CHECK_HAS("HTTP/1.1 503 ", client_read(fd[i], "\r\n\r\n"));
        (void)close(fd[i]);
    }
    fd[0] = client_open(&fixture);
    client_say(fd[0], POST "Content-Length: 512000\r\n\r\n");
    CHECK(client_send(fd[0], half, sizeof(half)));
    CHECK_HAS("HTTP/1.1 200 OK", client_read(fd[0], "200 OK"));
    (void)close(fd[0]);
    fixture_close(&fixture);
}

/* ---- the end -------------------------------------------------------------- */

/* G-10 */
TEST(test_http_limits__client_resets_while_pending__on_gone_is_called)
{
    struct linger at_once = {.l_onoff = 1};
    int fd;

    begin(usual);
    fd = client_open(&fixture);
    client_say(fd, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    WAIT_FOR(fixture.requests == 1);
    CHECK_INT(
        0, setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)));
    (void)close(fd);
    WAIT_FOR(fixture.gone == 1);
    fixture_close(&fixture);
}

/* G-10: a half-close may mean that the client leaves; a response is still sent.
 */
TEST(
    test_http_limits__half_close_while_pending__on_gone_is_called_and_response_sent)
{
    static const char text[] = "GET /hold HTTP/1.1\r\n" HOST "\r\n" GET "\r\n";
    const char *got;

    begin(usual);
    got = client_once(&fixture, text, sizeof(text) - 1);
    CHECK_INT(1, fixture.gone);
    CHECK_HAS("GET /hold ", got);
    CHECK_HAS("GET / ", got); /* what it sent before leaving is served */
    fixture_close(&fixture);
}

TEST(test_http_limits__stop__in_flight_finished_idle_closed)
{
    int idle, busy;

    begin(usual);
    idle = client_open(&fixture);
    busy = client_open(&fixture);
    client_say(idle, GET "\r\n");
    CHECK_HAS("GET /", client_read(idle, "GET /"));
    client_say(busy, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    WAIT_FOR(fixture.requests == 2);
    fixture_stop(&fixture);
    CHECK(client_ended(idle));
    WAIT_FOR(client_try(&fixture) < 0);
    fixture_release(&fixture);
    CHECK_HAS("Connection: close\r\n", client_read(busy, NULL));
    fixture_wait(&fixture);
    (void)close(idle);
    (void)close(busy);
}

/* Whichever allocation fails, the next client is served. */
TEST(test_http_limits__out_of_memory__goes_on)
{
    static const char text[] = POST "Content-Length: 5\r\n\r\nhello";
    static const char get[] = GET "\r\n";
    long failed = 1;

    for (long n = 0; failed != 0; n++) {
        fake_alloc_fail_at(n);
        if (fixture_open(&fixture, usual) != WB_OK)
            continue;
        (void)client_once(&fixture, text, sizeof(text) - 1);
        (void)client_once(&fixture, get, sizeof(get) - 1);
        failed = fake_env.failed;
        fake_alloc_fail_at(-1);
        CHECK_HAS("GET /", client_once(&fixture, get, sizeof(get) - 1));
        fixture_close(&fixture);
    }
}

/* A handler that has ended an exchange may have freed what on_gone() needs. */
static void
test_http_limits__no_memory_for_the_end_of_a_response__no_on_gone(void **state)
{
    int fd;

    (void)state;
    begin((struct wb__http_server_opts){.stream = true});
    fd = client_open(&fixture);
    client_say(fd, "POST /cut HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\n");
    CHECK(client_ended(fd));
    (void)close(fd);
    fixture_close(&fixture);
    CHECK_INT(1, fake_env.failed);
    CHECK_INT(0, fixture.gone);
}

/* The client has the final response: nothing else may follow its head. */
TEST(test_http_limits__response_begun_at_the_head__no_100_after_it)
{
    const char *got;
    int fd;

    begin((struct wb__http_server_opts){.stream = true});
    fd = client_open(&fixture);
    client_say(fd, "POST /begin HTTP/1.1\r\n" HOST "Expect: 100-continue\r\n"
                   "Content-Length: 2\r\n\r\n");
    got = client_read(fd, "begun");
    CHECK_HAS("HTTP/1.1 200 OK", got);
    CHECK(strstr(got, "100 Continue") == NULL);
    client_say(fd, "hi");
    CHECK(strstr(client_read(fd, NULL), "100 Continue") == NULL);
    (void)close(fd);
    fixture_close(&fixture);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_http_limits__slow_head__408),
        RUN(test_http_limits__slow_body__408),
        RUN(test_http_limits__idle__closed_without_a_byte),
        RUN(test_http_limits__response_never_read__cut_off),
        RUN(test_http_limits__2000_idle_connections__still_serves),
        RUN(test_http_limits__full__longest_idle_is_closed),
        RUN(test_http_limits__full_of_busy_ones__next_waits),
        RUN(test_http_limits__all_hold_too_much__503),
        RUN(test_http_limits__client_resets_while_pending__on_gone_is_called),
        RUN(test_http_limits__half_close_while_pending__on_gone_is_called_and_response_sent),
        RUN(test_http_limits__stop__in_flight_finished_idle_closed),
        RUN(test_http_limits__out_of_memory__goes_on),
        RUN(test_http_limits__no_memory_for_the_end_of_a_response__no_on_gone),
        RUN(test_http_limits__response_begun_at_the_head__no_100_after_it),
    };
    return RUN_ALL(tests);
}
