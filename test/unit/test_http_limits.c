/* test_http_limits.c - deadlines, connection and memory limits, leaving and
 * stopping, over real sockets on loopback (G-10, G-12). Deadlines here are real
 * ones, of some ten milliseconds: the loop's own clock cannot be moved. */
#include "http_client.h"

#include "../http_cases.h"

static const struct wb__http_server_opts usual = {0};

static struct house house; /* one a test */

static void
begin(struct wb__http_server_opts opts)
{
    CHECK_INT(WB_OK, house_open(&house, opts));
}

/* ---- time -------------------------------------------------------------- */

/* A byte now and then does not push the deadline away. */
static void
dribble(const char *head, const char *want)
{
    int64_t from = real_ms();
    struct pollfd p = {.fd = client_open(&house), .events = POLLIN};

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
    house_close(&house);
}

TEST(test_http_limits__slow_body__408)
{
    begin((struct wb__http_server_opts){.body_ms = 100});
    dribble(POST "Content-Length: 9999\r\n\r\n",
        "HTTP/1.1 408 Request Timeout\r\n");
    house_close(&house);
}

TEST(test_http_limits__idle__closed_without_a_word)
{
    int fd, used;

    begin((struct wb__http_server_opts){.idle_ms = 100});
    fd = client_open(&house);
    used = client_open(&house);
    client_say(used, GET "\r\n");
    CHECK_HAS("200 OK", client_read(used, "GET /"));
    CHECK_TEXT("", client_read(used, NULL));
    CHECK_TEXT("", client_read(fd, NULL));
    (void)close(used);
    (void)close(fd);
    house_close(&house);
}

TEST(test_http_limits__answer_never_read__cut_off)
{
    int fd;

    begin((struct wb__http_server_opts){.write_ms = 100});
    fd = client_open(&house);
    client_say(fd, "GET /big HTTP/1.1\r\n" HOST "\r\n");
    WAIT_FOR(house.calls == 1);
    house_stop(&house); /* ends although nobody reads */
    house_wait(&house);
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
        fd[i] = client_open(&house);
    CHECK_HAS("GET /", client_once(&house, text, sizeof(text) - 1));
    for (int i = 0; i < N; i += 100) { /* and they are still there */
        client_say(fd[i], text);
        CHECK_HAS("GET /", client_read(fd[i], "GET /"));
    }
    house_close(&house);
    for (int i = 0; i < N; i++)
        (void)close(fd[i]);
}

TEST(test_http_limits__full__longest_idle_makes_room)
{
    static const char text[] = GET "\r\n";
    int a, b, c;

    begin((struct wb__http_server_opts){.max_conns = 2});
    a = client_open(&house);
    client_say(a, text);
    CHECK_HAS("GET /", client_read(a, "GET /"));
    b = client_open(&house);
    client_say(b, text);
    CHECK_HAS("GET /", client_read(b, "GET /"));
    client_say(a, text); /* now b is idle longest */
    CHECK_HAS("GET /", client_read(a, "GET /"));
    c = client_open(&house);
    client_say(c, text);
    CHECK_HAS("GET /", client_read(c, "GET /"));
    CHECK(client_ended(b));
    client_say(a, text);
    CHECK_HAS("GET /", client_read(a, "GET /"));
    (void)close(a);
    (void)close(b);
    (void)close(c);
    house_close(&house);
}

TEST(test_http_limits__full_of_busy_ones__next_waits)
{
    static const char text[] = GET "\r\n";
    struct pollfd p = {.events = POLLIN};
    int busy;

    begin((struct wb__http_server_opts){.max_conns = 1});
    busy = client_open(&house);
    client_say(busy, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    WAIT_FOR(house.calls == 1);
    p.fd = client_open(&house);
    client_say(p.fd, text);
    CHECK_INT(0, poll(&p, 1, 50));
    house_release(&house);
    CHECK_HAS("GET /", client_read(p.fd, "GET /"));
    (void)close(busy);
    (void)close(p.fd);
    house_close(&house);
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
        fd[i] = client_open(&house);
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
    fd[0] = client_open(&house);
    client_say(fd[0], POST "Content-Length: 512000\r\n\r\n");
    CHECK(client_send(fd[0], half, sizeof(half)));
    CHECK_HAS("HTTP/1.1 200 OK", client_read(fd[0], "200 OK"));
    (void)close(fd[0]);
    house_close(&house);
}

/* ---- ends -------------------------------------------------------------- */

/* G-10 */
TEST(test_http_limits__client_resets_while_pending__handler_is_told)
{
    struct linger at_once = {.l_onoff = 1};
    int fd;

    begin(usual);
    fd = client_open(&house);
    client_say(fd, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    WAIT_FOR(house.calls == 1);
    CHECK_INT(
        0, setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)));
    (void)close(fd);
    WAIT_FOR(house.gone == 1);
    house_close(&house);
}

/* G-10: a half-close looks like leaving, and the answer is still written. */
TEST(test_http_limits__half_close_while_pending__told_and_answered)
{
    static const char text[] = "GET /hold HTTP/1.1\r\n" HOST "\r\n" GET "\r\n";
    const char *got;

    begin(usual);
    got = client_once(&house, text, sizeof(text) - 1);
    CHECK_INT(1, house.gone);
    CHECK_HAS("GET /hold ", got);
    CHECK_HAS("GET / ", got); /* what it sent before leaving is served */
    house_close(&house);
}

TEST(test_http_limits__stop__in_flight_finished_idle_closed)
{
    int idle, busy;

    begin(usual);
    idle = client_open(&house);
    busy = client_open(&house);
    client_say(idle, GET "\r\n");
    CHECK_HAS("GET /", client_read(idle, "GET /"));
    client_say(busy, "GET /hold HTTP/1.1\r\n" HOST "\r\n");
    WAIT_FOR(house.calls == 2);
    house_stop(&house);
    CHECK(client_ended(idle));
    WAIT_FOR(client_try(&house) < 0);
    house_release(&house);
    CHECK_HAS("Connection: close\r\n", client_read(busy, NULL));
    house_wait(&house);
    (void)close(idle);
    (void)close(busy);
}

/* Whatever allocation fails, the next client is served. */
TEST(test_http_limits__out_of_memory__goes_on)
{
    static const char text[] = POST "Content-Length: 5\r\n\r\nhello";
    static const char get[] = GET "\r\n";
    long failed = 1;

    for (long n = 0; failed != 0; n++) {
        world_fail_at(n);
        if (house_open(&house, usual) != WB_OK)
            continue;
        (void)client_once(&house, text, sizeof(text) - 1);
        (void)client_once(&house, get, sizeof(get) - 1);
        failed = world.failed;
        world_fail_at(-1);
        CHECK_HAS("GET /", client_once(&house, get, sizeof(get) - 1));
        house_close(&house);
    }
}

/* Who has ended a call has let go of all that on_gone() would touch. */
static void
test_http_limits__no_memory_for_the_end_of_an_answer__nobody_is_told(
    void **state)
{
    int fd;

    (void)state;
    begin((struct wb__http_server_opts){.stream = true});
    fd = client_open(&house);
    client_say(fd, "POST /cut HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\n");
    CHECK(client_ended(fd));
    (void)close(fd);
    house_close(&house);
    CHECK_INT(1, world.failed);
    CHECK_INT(0, house.gone);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_http_limits__slow_head__408),
        RUN(test_http_limits__slow_body__408),
        RUN(test_http_limits__idle__closed_without_a_word),
        RUN(test_http_limits__answer_never_read__cut_off),
        RUN(test_http_limits__2000_idle_connections__still_serves),
        RUN(test_http_limits__full__longest_idle_makes_room),
        RUN(test_http_limits__full_of_busy_ones__next_waits),
        RUN(test_http_limits__all_hold_too_much__503),
        RUN(test_http_limits__client_resets_while_pending__handler_is_told),
        RUN(test_http_limits__half_close_while_pending__told_and_answered),
        RUN(test_http_limits__stop__in_flight_finished_idle_closed),
        RUN(test_http_limits__out_of_memory__goes_on),
        RUN(test_http_limits__no_memory_for_the_end_of_an_answer__nobody_is_told),
    };
    return RUN_ALL(tests);
}
