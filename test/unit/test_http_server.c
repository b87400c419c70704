/* test_http_server.c - the server over real sockets on loopback (G-11, G-12,
 * G-14, C24). Deadlines and limits: test_http_limits.c. */
#include "http_client.h"

#include "../http_cases.h"

static const struct wb__http_server_opts usual = {0};

static struct fixture fixture; /* one a test */

static void
begin(struct wb__http_server_opts opts)
{
    CHECK_INT(WB_OK, fixture_open(&fixture, opts));
}

/* ---- responses ----------------------------------------------------------- */

TEST(test_http_server__request__response_and_kept_alive)
{
    int fd;

    begin(usual);
    fd = client_open(&fixture);
    for (int i = 0; i < 3; i++) {
        const char *got;

        client_say(fd, POST "Content-Length: 5\r\n\r\nhello");
        got = client_read(fd, "POST /in hello");
        CHECK_HAS("HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
                  "X-Own: yes\r\nContent-Length: 14\r\n\r\nPOST /in hello",
            got);
    }
    (void)close(fd);
    fixture_close(&fixture);
    CHECK_INT(3, fixture.requests);
}

TEST(test_http_server__one_byte_at_a_time__same_request)
{
    static const char text[] = CHUNKED "5;x\r\nhello\r\n0\r\nA: b\r\n\r\n";
    int fd;

    begin(usual);
    fd = client_open(&fixture);
    for (size_t i = 0; i < sizeof(text) - 1; i++)
        CHECK(client_send(fd, text + i, 1));
    CHECK_HAS("POST /in hello", client_read(fd, "hello"));
    (void)close(fd);
    fixture_close(&fixture);
}

/* G-14 */
TEST(test_http_server__pipelined__responses_in_order)
{
    static const char *const path[] = {"/later", "/1", "/2", "/later", "/3"};
    char all[4096] = "", want[4096] = "";
    const char *got, *at;

    begin(usual);
    for (size_t i = 0; i < WB_COUNT(path); i++) {
        (void)snprintf(all + strlen(all), sizeof(all) - strlen(all),
            "PUT %s HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\n%zu", path[i],
            i);
        (void)snprintf(want + strlen(want), sizeof(want) - strlen(want),
            "PUT %s %zu|", path[i], i);
    }
    at = got = client_once(&fixture, all, strlen(all));
    for (char *w = strtok(want, "|"); w != NULL; w = strtok(NULL, "|")) {
        at = strstr(at, w);
        if (at == NULL)
            fail_msg("%s not at its position in %s", w, got);
    }
    CHECK_INT(WB_COUNT(path), count_of(got, "HTTP/1.1 200 OK"));
    fixture_close(&fixture);
}

static void
test_http_server__flood_of_requests_unread__bounded_and_all_served(void **state)
{
    enum {
        N = 20000
    };
    static const char one[] = GET "\r\n";
    size_t sent = 0, served = 0;
    int fd;

    (void)state;
    begin(usual);
    fd = client_open(&fixture);
    /* write until the sockets are full, without reading */
    while (sent < N * (sizeof(one) - 1)) {
        size_t at = sent % (sizeof(one) - 1);
        ssize_t n = send(
            fd, one + at, sizeof(one) - 1 - at, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0)
            break;
        sent += (size_t)n;
    }
    CHECK(client_send(fd, one + sent % (sizeof(one) - 1),
        sizeof(one) - 1 - sent % (sizeof(one) - 1)));
    CHECK_INT(0, shutdown(fd, SHUT_WR));
    for (;;) {
        const char *got = client_read(fd, NULL);

        if (got[0] == '\0')
            break;
        served += count_of(got, "GET / ");
    }
    CHECK_INT(sent / (sizeof(one) - 1) + 1, served);
    (void)close(fd);
    fixture_close(&fixture);
}

TEST(test_http_server__head__length_without_body)
{
    const char *got;
    static const char text[] = "HEAD /x HTTP/1.1\r\n" HOST "\r\n" GET "\r\n";

    begin(usual);
    got = client_once(&fixture, text, sizeof(text) - 1);
    CHECK_HAS("Content-Length: 8\r\n\r\nHTTP/1.1 200 OK", got);
    CHECK(strstr(got, "HEAD /x") == NULL);
    fixture_close(&fixture);
}

/* G-14 */
TEST(test_http_server__expect__100_before_the_body)
{
    int fd;

    begin(usual);
    fd = client_open(&fixture);
    client_say(fd, POST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    CHECK_TEXT("HTTP/1.1 100 Continue\r\n\r\n", client_read(fd, "\r\n\r\n"));
    client_say(fd, "hi");
    CHECK_HAS("POST /in hi", client_read(fd, "hi"));
    /* no 100 for a body that is here, or empty */
    client_say(fd, POST "Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi");
    CHECK(strstr(client_read(fd, "/in hi"), "100 Continue") == NULL);
    client_say(fd, POST "Expect: 100-continue\r\n\r\n");
    CHECK(strstr(client_read(fd, "/in "), "100 Continue") == NULL);
    /* nor for one that will be refused */
    client_say(fd, POST "Expect: 100-continue\r\nContent-Length: 99999999\r\n"
                        "\r\n");
    CHECK(strncmp(client_read(fd, NULL), "HTTP/1.1 413 ", 13) == 0);
    (void)close(fd);
    fixture_close(&fixture);
}

TEST(test_http_server__http10__closes_unless_asked)
{
    static const char closing[] =
        "GET /1 HTTP/1.0\r\n\r\nGET /evil HTTP/1.0\r\n"
        "\r\n";
    int fd;

    begin(usual);
    CHECK_HAS("Connection: close\r\n",
        client_once(&fixture, closing, sizeof(closing) - 1));
    fd = client_open(&fixture);
    client_say(fd, "GET /1 HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    CHECK_HAS("Connection: keep-alive\r\n", client_read(fd, "GET /1"));
    client_say(fd, "GET /2 HTTP/1.1\r\nConnection: x, close\r\n" HOST "\r\n");
    CHECK_HAS("Connection: close\r\n", client_read(fd, NULL));
    (void)close(fd);
    fixture_close(&fixture);
    CHECK_INT(3, fixture.requests);
}

TEST(test_http_server__drop__closed_without_a_byte)
{
    static const char text[] = "GET /drop HTTP/1.1\r\n" HOST "\r\n";

    begin(usual);
    CHECK_TEXT("", client_once(&fixture, text, sizeof(text) - 1));
    fixture_close(&fixture);
}

/* S3 */
TEST(test_http_server__response_that_would_split__500_instead)
{
    static const char text[] = "GET /split HTTP/1.1\r\n" HOST "\r\n";
    const char *got;

    begin(usual);
    got = client_once(&fixture, text, sizeof(text) - 1);
    CHECK(strncmp(got, "HTTP/1.1 500 ", 13) == 0);
    CHECK_INT(1, count_of(got, "HTTP/1.1 "));
    fixture_close(&fixture);
}

/* ---- refusals ---------------------------------------------------------- */

/* G-11, C24: the whole table over the wire. */
TEST(test_http_server__every_case_of_the_table__status_and_close)
{
    static const struct {
        const char *name;
        int verdict;
        const char *bytes;
        size_t len;
    } cases[] = {
#define CASE(name, verdict, bytes) {#name, verdict, bytes, sizeof(bytes) - 1},
        HTTP_REQUEST_CASES(CASE)
#undef CASE
    };

    begin(usual);
    for (size_t i = 0; i < WB_COUNT(cases); i++) {
        const char *got = client_once(&fixture, cases[i].bytes, cases[i].len);
        char want[32];

        (void)snprintf(want, sizeof(want), "HTTP/1.1 %d ", cases[i].verdict);
        if (cases[i].verdict < 100 &&
            count_of(got, "HTTP/1.1 200 ") != (size_t)cases[i].verdict)
            fail_msg("%s: %s", cases[i].name, got);
        if (cases[i].verdict >= 100 &&
            (strstr(got, want) == NULL || strstr(got, "close\r\n") == NULL))
            fail_msg("%s: %s", cases[i].name, got);
    }
    CHECK_INT(0, fixture.evil);
    fixture_close(&fixture);
}

/* G-12 */
TEST(test_http_server__body_past_the_limit__client_reads_413)
{
    static char mass[64 << 10];
    struct pollfd p = {.events = POLLIN};
    int fd;

    begin(usual);
    fd = p.fd = client_open(&fixture);
    client_say(fd, POST "Content-Length: 3145728\r\n\r\n");
    CHECK_INT(1, poll(&p, 1, 20000));
    /* The response is here; a client that still writes must not be reset. */
    for (int i = 0; i < 20; i++) {
        CHECK(client_send(fd, mass, sizeof(mass)));
        (void)poll(NULL, 0, 2);
    }
    CHECK_HAS("HTTP/1.1 413 Content Too Large\r\n", client_read(fd, NULL));
    (void)close(fd);
    fixture_close(&fixture);
}

TEST(test_http_server__client_that_never_stops__cut_off)
{
    static char mass[1 << 16];
    int64_t from = real_ms();
    int fd, n = 0;

    begin((struct wb__http_server_opts){.linger_ms = 100});
    fd = client_open(&fixture);
    client_say(fd, CHUNKED "fffffff\r\n");
    while (client_send(fd, mass, sizeof(mass)))
        n++;
    CHECK(n < 1000); /* 48 MiB of draining and what sockets hold */
    CHECK(real_ms() - from < 10000);
    (void)close(fd);
    /* and one that stays, but sends nothing */
    fd = client_open(&fixture);
    client_say(fd, "?\n");
    CHECK(client_ended(fd));
    CHECK(client_send(fd, "x", 1));
    WAIT_FOR(!client_send(fd, "x", 1));
    (void)close(fd);
    fixture_close(&fixture);
}

TEST(test_http_server__endless_head__431)
{
    char line[64];
    int fd;

    begin(usual);
    fd = client_open(&fixture);
    client_say(fd, GET);
    for (int i = 0; i < 2000; i++) {
        (void)snprintf(line, sizeof(line), "X-%d: %050d\r\n", i, i);
        if (!client_send(fd, line, strlen(line)))
            break;
    }
    CHECK_HAS("HTTP/1.1 431 ", client_read(fd, NULL));
    (void)close(fd);
    fixture_close(&fixture);
}

/* ---- addresses --------------------------------------------------------- */

TEST(test_http_server__address__as_written)
{
    static const struct {
        const char *listen, *address;
        enum wb_status status;
    } rows[] = {
        {"127.0.0.1:0", "127.0.0.1:", WB_OK},
        {"localhost:0", "127.0.0.1:", WB_OK},
        {":0", "0.0.0.0:", WB_OK},
        {"[::1]:0", "[::1]:", WB_OK},
        {"::1:0", NULL, WB_INVALID},
        {"127.0.0.1", NULL, WB_INVALID},
        {"127.0.0.1:", NULL, WB_INVALID},
        {"127.0.0.1:x", NULL, WB_INVALID},
        {"127.0.0.1:65536", NULL, WB_INVALID},
        {"", NULL, WB_INVALID},
        {"192.0.2.1:0", NULL, WB_UNAVAILABLE},
    };

    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        uv_loop_t loop;
        struct wb__http_server *server = NULL;
        struct wb_err err = {0};
        struct wb__http_server_opts opts = {.env = ENV,
            .loop = &loop,
            .listen = wb_slice(rows[i].listen),
            .handle = fixture_handle};
        enum wb_status status;

        CHECK_INT(0, uv_loop_init(&loop));
        status = wb__http_server_open(&server, &opts, &err);
        if (status != rows[i].status &&
            !(rows[i].listen[0] == '[' && status == WB_UNAVAILABLE))
            fail_msg("%s: %s", rows[i].listen, err.msg);
        if (status == WB_OK)
            CHECK(strncmp(wb__http_server_address(server), rows[i].address,
                      strlen(rows[i].address)) == 0);
        wb__http_server_close(server);
        (void)uv_run(&loop, UV_RUN_DEFAULT);
        CHECK_INT(0, uv_loop_close(&loop));
    }
}

TEST(test_http_server__address_in_use__unavailable_and_named)
{
    struct wb_err err = {0};
    struct wb__http_server *server = NULL;
    uv_loop_t loop;
    char at[32];
    struct wb__http_server_opts opts = {
        .env = ENV, .loop = &loop, .handle = fixture_handle};

    begin(usual);
    (void)snprintf(at, sizeof(at), "127.0.0.1:%d", fixture.port);
    opts.listen = wb_slice(at);
    CHECK_INT(0, uv_loop_init(&loop));
    CHECK_STATUS(UNAVAILABLE, wb__http_server_open(&server, &opts, &err));
    CHECK_HAS(at, err.msg);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(0, uv_loop_close(&loop));
    fixture_close(&fixture);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_http_server__request__response_and_kept_alive),
        RUN(test_http_server__one_byte_at_a_time__same_request),
        RUN(test_http_server__pipelined__responses_in_order),
        RUN(test_http_server__flood_of_requests_unread__bounded_and_all_served),
        RUN(test_http_server__head__length_without_body),
        RUN(test_http_server__expect__100_before_the_body),
        RUN(test_http_server__http10__closes_unless_asked),
        RUN(test_http_server__drop__closed_without_a_byte),
        RUN(test_http_server__response_that_would_split__500_instead),
        RUN(test_http_server__every_case_of_the_table__status_and_close),
        RUN(test_http_server__body_past_the_limit__client_reads_413),
        RUN(test_http_server__client_that_never_stops__cut_off),
        RUN(test_http_server__endless_head__431),
        RUN(test_http_server__address__as_written),
        RUN(test_http_server__address_in_use__unavailable_and_named),
    };
    return RUN_ALL(tests);
}
