/* test_transport_http.c - T-1, T-3, O-13, R-3, S2, S3: what is sent, and what
 * is made of an answer. */
#include "http_fixture.h"

/* ---- what goes out ----------------------------------------------------- */

TEST(test_http__request__carries_id_and_webhook_headers) /* T-3 */
{
    open_endpoint(plain);
    post();
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_INT(204, sent.status);
    CHECK_TEXT("", sent.error);
    CHECK(strncmp(peer.last, "POST /hook HTTP/1.1\r\n", 21) == 0);
    CHECK_TEXT("0190b5a8-7c1e-7000-8000-000000000001",
        peer_header(&peer, "Idempotency-Key"));
    CHECK_TEXT("0190b5a8-7c1e-7000-8000-000000000001",
        peer_header(&peer, "webhook-id"));
    CHECK_TEXT("1767225600", peer_header(&peer, "webhook-timestamp"));
    CHECK_TEXT("application/json", peer_header(&peer, "Content-Type"));
    CHECK_TEXT("waybill/" WB_VERSION, peer_header(&peer, "User-Agent"));
    CHECK_TEXT("7", peer_header(&peer, "Content-Length"));
    CHECK_TEXT("{\"n\":1}", peer_body(&peer));
    CHECK_TEXT("order.paid", peer_header(&peer, "Waybill-Kind"));
    CHECK(peer_header(&peer, "Waybill-Ids") == NULL);
    CHECK(peer_header(&peer, "Expect") == NULL);
    CHECK_TEXT("identity", peer_header(&peer, "Accept-Encoding"));
    CHECK(peer_header(&peer, "webhook-signature") == NULL);
    CHECK(peer_header(&peer, "Upgrade") == NULL);
    CHECK_INT(1, peer_headers(&peer, "Content-Type"));
    close_all();
}

/* With each of them goes the body. */
TEST(test_http__method__is_sent_with_the_body)
{
    static const char *const methods[] = {
        "POST", "PUT", "PATCH", "DELETE", "GET"};
    char line[40];

    for (size_t i = 0; i < WB_COUNT(methods); i++) {
        open_endpoint((struct wb_http_opts){.method = wb_slice(methods[i])});
        for (int n = 0; n < 2; n++) {
            post();
            CHECK_INT(WB_DELIVERED, sent.outcome);
            (void)snprintf(
                line, sizeof(line), "%s /hook HTTP/1.1\r\n", methods[i]);
            CHECK(strncmp(peer.last, line, strlen(line)) == 0);
            CHECK_TEXT("{\"n\":1}", peer_body(&peer));
            CHECK_TEXT("7", peer_header(&peer, "Content-Length"));
        }
        close_all();
    }
}

TEST(test_http__own_headers__sent_beside_ours) /* T-1, O-19 */
{
    struct wb_http_opts opts = {
        .headers = WB_LIT("X-Tenant: a\nContent-Type: text/csv\nEmpty: \n"
                          "User-Agent: me\n"),
        .method = WB_LIT("PUT"),
    };
    struct wb_request q = some_request();

    open_endpoint(opts);
    q.headers = WB_LIT("traceparent: 00-abc\nBlank: \n");
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK(strncmp(peer.last, "PUT /hook HTTP/1.1\r\n", 20) == 0);
    CHECK_TEXT("a", peer_header(&peer, "X-Tenant"));
    CHECK_TEXT("text/csv", peer_header(&peer, "Content-Type"));
    CHECK_TEXT("", peer_header(&peer, "Empty"));
    CHECK_TEXT("", peer_header(&peer, "Blank"));
    CHECK_TEXT("me", peer_header(&peer, "User-Agent"));
    CHECK_TEXT("00-abc", peer_header(&peer, "traceparent"));
    CHECK_INT(1, peer_headers(&peer, "Content-Type"));
    q.headers = (struct wb_slice){0};
    q.ids = WB_LIT("a,b");
    q.content_type = WB_LIT("application/xml");
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_TEXT("application/xml", peer_header(&peer, "Content-Type"));
    CHECK(peer_header(&peer, "traceparent") == NULL);
    CHECK_TEXT("a,b", peer_header(&peer, "Waybill-Ids"));
    close_all();
}

TEST(test_http__url_of_its_own__is_used_once) /* T-1 */
{
    struct wb_request q = some_request();
    char other[100];

    open_endpoint(plain);
    (void)snprintf(
        other, sizeof(other), "http://127.0.0.1:%d/a%%2Fb?c=d", peer.port);
    q.url = wb_slice(other);
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK(strncmp(peer.last, "POST /a%2Fb?c=d HTTP/1.1\r\n", 26) == 0);
    post();
    CHECK(strncmp(peer.last, "POST /hook HTTP/1.1\r\n", 21) == 0);
    close_all();
}

TEST(test_http__empty_and_large_body__arrive_whole)
{
    enum {
        LARGE = 100000
    };
    struct wb_request q = some_request();
    char *large = malloc(LARGE);

    open_endpoint(plain);
    q.body = (struct wb_slice){0};
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_TEXT("0", peer_header(&peer, "Content-Length"));
    memset(large, '\0', LARGE);
    q.body = (struct wb_slice){large, LARGE};
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_TEXT("100000", peer_header(&peer, "Content-Length"));
    CHECK(peer_header(&peer, "Expect") == NULL);
    close_all();
    free(large);
}

TEST(test_http__proxy_in_the_environment__is_not_used)
{
    CHECK_INT(0, setenv("http_proxy", "http://127.0.0.1:1", 1));
    CHECK_INT(0, setenv("ALL_PROXY", "http://127.0.0.1:1", 1));
    open_endpoint(plain);
    post();
    CHECK_INT(WB_DELIVERED, sent.outcome);
    close_all();
    (void)unsetenv("http_proxy");
    (void)unsetenv("ALL_PROXY");
}

/* ---- outcomes ---------------------------------------------------------- */

TEST(test_http__every_status__has_its_outcome) /* */
{
    static const struct {
        int status;
        enum wb_outcome outcome;
    } cases[] = {
        {200, WB_DELIVERED},
        {201, WB_DELIVERED},
        {204, WB_DELIVERED},
        {299, WB_DELIVERED},
        {300, WB_REJECTED},
        {304, WB_REJECTED},
        {400, WB_REJECTED},
        {401, WB_REJECTED},
        {404, WB_REJECTED},
        {408, WB_RETRY},
        {409, WB_REJECTED},
        {410, WB_REJECTED},
        {417, WB_REJECTED},
        {425, WB_RETRY},
        {429, WB_RETRY},
        {500, WB_RETRY},
        {501, WB_RETRY},
        {503, WB_RETRY},
        {599, WB_RETRY},
        {600, WB_REJECTED},
        {999, WB_REJECTED},
        {0, WB_REJECTED},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        CHECK_INT(cases[i].outcome, wb_http_outcome(cases[i].status));
    open_endpoint(plain);
    for (size_t i = 0; cases[i].status != 599; i++) {
        char reply[100];

        (void)snprintf(reply, sizeof(reply),
            "HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n", cases[i].status);
        peer_set_reply(&peer, reply);
        post();
        CHECK_INT(cases[i].outcome, sent.outcome);
        CHECK_INT(cases[i].status, sent.status);
    }
    CHECK_INT(peer.requests, 18);
    close_all();
}

TEST(test_http__error_with_body__reads_as_one_line) /* O-13 */
{
    post_to("HTTP/1.1 401 Unauthorized\r\nContent-Length: 23\r\n\r\n"
            "{\"error\":\r\n\"\x1b[2Jbad\xff\"}\n",
        plain);
    CHECK_INT(WB_REJECTED, sent.outcome);
    CHECK_INT(401, sent.status);
    CHECK_TEXT("401 Unauthorized: {\"error\": \" [2Jbad?\"}", sent.error);
    CHECK_INT(23, sent.body_len);
    close_all();
}

TEST(test_http__error_without_body__has_no_colon) /* O-13 */
{
    post_to("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\n"
            "\r\n",
        plain);
    CHECK_INT(WB_RETRY, sent.outcome);
    CHECK_TEXT("500 Internal Server Error", sent.error);
    close_all();
}

TEST(test_http__no_words_in_status__standard_phrase) /* O-13 */
{
    post_to("HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n", plain);
    CHECK_TEXT("503 Service Unavailable", sent.error);
    peer_set_reply(&peer, "HTTP/1.1 499 \r\nContent-Length: 0\r\n\r\n");
    post();
    CHECK_TEXT("499", sent.error);
    close_all();
}

TEST(test_http__secret_in_reply__is_masked) /* S9 */
{
    struct wb_http_opts opts = {
        .headers = WB_LIT("Authorization: Bearer canary-1234567\n"
                          "X-Api-Key: hunter2hunter2\n"
                          "Accept: application/json\n")};

    post_to(
        "HTTP/1.1 401 no canary-1234567\r\nContent-Length: 68\r\n\r\n"
        "got Bearer canary-1234567 and hunter2hunter2 not application/json..",
        opts);
    CHECK(strstr(sent.error, "canary") == NULL);
    CHECK(strstr(sent.error, "hunter2") == NULL);
    CHECK(strstr(sent.body, "canary") == NULL);
    CHECK_HAS("application/json", sent.error);
    CHECK_HAS("401 no **************: got Bearer ****", sent.error);
    CHECK_TEXT("Bearer canary-1234567", peer_header(&peer, "Authorization"));
    close_all();
}

TEST(test_http__secret_in_url__masked_in_whatever_form) /* S9 */
{
    static const char *const quoted[] = {"/services/T0/canary-1/AB?sig=x%2Fy",
        "no services/T0/canary-1/AB", "canary-1",
        "%2Fservices%2ft0%2FT0%2Fcanary-1 canary%2d1",
        "\\/services\\/T0\\/canary-1", "c%61nary\\u002d1", "key hunt3r.",
        "c&#97;n&#x61;ry&#45;1", "<b>&#x2F;services&#47;T0/canary-1</b>",
        "AB?sig=x&#37;2Fy canary-1 &am &; &#; &#x; &#99999; &amp"};
    static const struct wb_slice masked[] = {
        {"https://h/services/T0/canary-1/AB?sig=x%2Fy", 43}, {"hunt3r", 6}};
    struct wb_http_opts opts = {.masked = masked, .n_masked = 2};
    char reply[300];

    open_endpoint(opts);
    for (size_t i = 0; i < WB_COUNT(quoted); i++) {
        (void)snprintf(reply, sizeof(reply),
            "HTTP/1.1 404 No %s\r\nContent-Length: %zu\r\n\r\n%s", quoted[i],
            strlen(quoted[i]), quoted[i]);
        peer_set_reply(&peer, reply);
        post();
        CHECK_INT(WB_REJECTED, sent.outcome);
        CHECK_HAS("****", sent.error);
        CHECK(strstr(sent.error, "nary") == NULL);
        CHECK(strstr(sent.error, "hunt3r") == NULL);
    }
    close_all();
}

TEST(test_http__secret_header_of_a_message__masked) /* S9 */
{
    struct wb_request q = some_request();

    peer.reply = "HTTP/1.1 401 No\r\nContent-Length: 20\r\n\r\n"
                 "Bearer canary-123456";
    open_endpoint(plain);
    q.headers = WB_LIT("Authorization: Bearer canary-123456\n");
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_TEXT("401 No: Bearer *************", sent.error);
    peer_set_reply(&peer, "HTTP/1.1 400 No\r\nContent-Length: 36\r\n\r\n"
                          "0190b5a8-7c1e-7000-8000-000000000001");
    post(); /* the id is no secret, though "Idempotency-Key" sounds like one */
    CHECK_TEXT("400 No: 0190b5a8-7c1e-7000-8000-000000000001", sent.error);
    close_all();
}

TEST(test_http__retry_after__seconds_or_date) /* */
{
    static const struct {
        const char *value;
        int64_t ms;
    } cases[] = {
        {"120", 120000},
        {"  7  ", 7000},
        {"0", 0},
        {"Thu, 01 Jan 2026 00:01:30 GMT", 90000},
        {"Wed, 31 Dec 2025 23:59:59 GMT", 0}, /* past */
        {"-1", 0},
        {"+1", 0},
        {"1.5", 2000},
        {"1.0", 1000},
        {"0.001", 1000},
        {"1.5s", 0},
        {"soon", 0},
        {"", 0},
        {"9223372036854773", INT64_C(9223372036854773000)},
        {"9223372036854776", INT64_MAX},
        {"99999999999999999999", INT64_MAX},
        {"999999999999999999999999999999999999999999999999999", INT64_MAX},
        {"Thu, 01 Jan 2026 00:01:30 CET", 0},
        {"Thursday, 01-Jan-26 00:01:30 GMT", 90000},
        {"Wednesday, 01-Jan-75 00:00:00 GMT", INT64_C(1546300800000)},
        {"Saturday, 01-Jan-77 00:00:00 GMT", 0}, /* 1977 */
        {"Thu Jan  1 00:01:30 2026", 90000},
        {"Thu Jan 01 00:01:30 2026", 90000},
        {"Thu Jan 15 00:00:00 2026", 14 * INT64_C(86400000)},
        {"Thu Jan  1 00:01:30 2026 GMT", 90000},
        {"Thu Jan 1 00:01:30 2026", 0},
        {"Thursday, 01 Jan 2026 00:01:30 GMT", 0},
        {"1 1", 0},
    };

    open_endpoint(plain);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char reply[200];

        (void)snprintf(reply, sizeof(reply),
            "HTTP/1.1 %s\r\nRETRY-after: %s\r\nContent-Length: 0\r\n\r\n",
            i % 2 == 0 ? "429 Slow" : "503 Busy", cases[i].value);
        peer_set_reply(&peer, reply);
        post();
        CHECK_INT(WB_RETRY, sent.outcome);
        CHECK_INT(cases[i].ms, sent.retry_after_ms);
    }
    peer.reply =
        "HTTP/1.1 400 No\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n";
    post();
    CHECK_INT(0, sent.retry_after_ms);
    close_all();
}

TEST(test_http__conflict_for_now__is_retried) /* G-5 */
{
    post_to("HTTP/1.1 409 Conflict\r\nRetry-After: 1\r\n"
            "Content-Length: 0\r\n\r\n",
        plain);
    CHECK_INT(WB_RETRY, sent.outcome);
    CHECK_INT(1000, sent.retry_after_ms);
    close_all();
}

TEST(test_http__redirect__not_followed) /* T-3, S2, I7 */
{
    static const char *const codes[] = {"301", "302", "303", "307", "308"};

    open_endpoint(plain);
    for (int i = 0; i < 5; i++) {
        char reply[200];

        (void)snprintf(reply, sizeof(reply),
            "HTTP/1.1 %s Go\r\nLocation: http://127.0.0.1:%d/x\r\n"
            "Content-Length: 0\r\n\r\n",
            codes[i], peer.port);
        peer_set_reply(&peer, reply);
        post();
        CHECK_INT(WB_REJECTED, sent.outcome);
        CHECK_INT(i + 1, peer.requests);
    }
    close_all();
}

/* ---- refused before anything is sent ----------------------------------- */

TEST(test_http__bad_request__rejected_unsent) /* S3 */
{
    static const char *const urls[] = {"ftp://127.0.0.1/", "http://u@h/",
        "http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y", "nonsense"};
    static const char *const headers[] = {"Host: x\n", "A: b\r\n", "A b\n",
        "Idempotency-Key: x\n", "Webhook-Signature: x\n", "X-Route: mine\n",
        "Content-Type: text/plain\n", "Transfer-Encoding: chunked\n"};
    struct wb_request q = some_request();

    open_endpoint((struct wb_http_opts){.headers = WB_LIT("X-Route: its\n")});
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        q.url = wb_slice(urls[i]);
        send_and_wait(&loop, endpoint, &q, &sent);
        CHECK_INT(WB_REJECTED, sent.outcome);
        CHECK_HAS("transport: ", sent.error);
    }
    q.url = (struct wb_slice){0};
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
        q.headers = wb_slice(headers[i]);
        send_and_wait(&loop, endpoint, &q, &sent);
        CHECK_INT(WB_REJECTED, sent.outcome);
    }
    q.headers = (struct wb_slice){0};
    q.content_type = WB_LIT("a\r\nb: c");
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_INT(WB_REJECTED, sent.outcome);
    q.content_type = (struct wb_slice){0};
    q.kind = WB_LIT("a\r\nb: c");
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_INT(WB_REJECTED, sent.outcome);
    q.kind = WB_LIT("k");
    q.ids = WB_LIT("a\nb");
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_INT(WB_REJECTED, sent.outcome);
    q.ids = (struct wb_slice){0};
    (void)snprintf(q.id.text, sizeof(q.id.text), "a.b"); /* S7 */
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_INT(WB_REJECTED, sent.outcome);
    q.id.text[0] = '\0';
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_INT(WB_REJECTED, sent.outcome);
    CHECK_INT(0, peer.requests);
    close_all();
}

TEST(test_http__bad_options__invalid)
{
    static const struct wb_slice short_key = {"too short", 9};
    static const struct wb_http_opts bad[] = {
        {.url = {"ftp://h/", 8}},
        {.url = {"http://u:p@h/", 13}},
        {.method = {"HEAD", 4}},
        {.method = {"POST\r\nX: y", 10}},
        {.method = {"post", 4}},
        {.headers = {"Host: x\n", 8}},
        {.headers = {"A: b", 4}},
        {.secrets = &short_key, .n_secrets = 1},
        {.max_reply_bytes = SIZE_MAX},
    };
    struct wb_err err = {0};

    open_with((struct wb_http_opts){0});
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct wb_transport *t = endpoint;

        CHECK_STATUS(INVALID, wb_http_new(&t, http, &bad[i], &err));
        CHECK(t == NULL);
        CHECK(err.msg[0] != '\0' && strstr(err.msg, "u:p") == NULL);
    }
    CHECK_STATUS(UNAVAILABLE,
        wb_http_new(&(struct wb_transport *){NULL}, http,
            &(struct wb_http_opts){.ca_file = WB_LIT("none.pem")}, &err));
    post();
    CHECK_INT(WB_REJECTED, sent.outcome); /* no url anywhere */
    close_all();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_http__request__carries_id_and_webhook_headers),
        RUN(test_http__method__is_sent_with_the_body),
        RUN(test_http__own_headers__sent_beside_ours),
        RUN(test_http__url_of_its_own__is_used_once),
        RUN(test_http__empty_and_large_body__arrive_whole),
        RUN(test_http__proxy_in_the_environment__is_not_used),
        RUN(test_http__every_status__has_its_outcome),
        RUN(test_http__error_with_body__reads_as_one_line),
        RUN(test_http__error_without_body__has_no_colon),
        RUN(test_http__no_words_in_status__standard_phrase),
        RUN(test_http__secret_in_reply__is_masked),
        RUN(test_http__secret_in_url__masked_in_whatever_form),
        RUN(test_http__secret_header_of_a_message__masked),
        RUN(test_http__retry_after__seconds_or_date),
        RUN(test_http__conflict_for_now__is_retried),
        RUN(test_http__redirect__not_followed),
        RUN(test_http__bad_request__rejected_unsent),
        RUN(test_http__bad_options__invalid),
    };
    return RUN_ALL(tests);
}
