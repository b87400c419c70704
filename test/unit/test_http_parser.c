/* test_http_parser.c - what the parser makes of a message, responses, limits,
 * memory. Refusals of requests are in test_http_strict.c. */
#include "support.h"

#include <stdio.h>

#include "../http_cases.h"
#include "../http_transcript.h"

static struct wb__http_parser parser; /* one a test */
static struct wb_slice input, piece;

static void
begin(enum wb__http_mode mode, struct wb__http_limits limits, const char *text)
{
    wb__http_parser_init(&parser, ENV, mode, &limits);
    input = wb_slice(text);
}

static enum wb__http_event
feed(void)
{
    return wb__http_parser_feed(&parser, &input, &piece);
}

static const struct wb__http_limits usual = {0};

/* ---- heads ------------------------------------------------------------- */

TEST(test_http_parser__request__head_as_sent)
{
    const struct wb__http_head *h = &parser.head;

    begin(WB__HTTP_REQUESTS, usual,
        "POST /a/b?c=d?e HTTP/1.1\r\nhost:A.example:80\r\n"
        "X-One:  two  three \t\r\nx-one:\r\nContent-Length: 2\r\n\r\nhi");
    CHECK_INT(WB__HTTP_HEAD, feed());
    CHECK_SLICE("POST", h->method);
    CHECK_SLICE("/a/b?c=d?e", h->target);
    CHECK_SLICE("/a/b", h->path);
    CHECK_SLICE("c=d?e", h->query);
    CHECK_SLICE("A.example:80", h->host);
    CHECK_SLICE("host: A.example:80\nX-One: two  three\nx-one: \n"
                "Content-Length: 2\n",
        h->headers);
    CHECK(h->has_length && !h->chunked && h->keep_alive && !h->expects);
    CHECK_INT(2, h->length);
    CHECK_INT(1, h->minor);
    CHECK_INT(WB__HTTP_BODY, feed());
    CHECK_SLICE("hi", piece);
    CHECK_INT(WB__HTTP_DONE, feed());
    CHECK_INT(WB__HTTP_DONE, feed());
    wb__http_parser_fini(&parser);
}

TEST(test_http_parser__target__path_and_query)
{
    static const struct {
        const char *method, *target, *path, *query;
    } rows[] = {
        {"GET", "/", "/", ""},
        {"GET", "/?", "/", ""},
        {"GET", "/??", "/", "?"},
        {"GET", "/a?b", "/a", "b"},
        {"GET", "//a//?/", "//a//", "/"},
        {"GET", "http://a.example", "/", ""},
        {"GET", "http://a.example?x", "/", "x"},
        {"GET", "HTTPS://A.EXAMPLE/x?", "/x", ""},
        {"OPTIONS", "*", "*", ""},
    };
    char text[128];

    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        (void)snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\n" HOST "\r\n",
            rows[i].method, rows[i].target);
        begin(WB__HTTP_REQUESTS, usual, text);
        CHECK_INT(WB__HTTP_HEAD, feed());
        CHECK_SLICE(rows[i].target, parser.head.target);
        CHECK_SLICE(rows[i].path, parser.head.path);
        CHECK_SLICE(rows[i].query, parser.head.query);
        CHECK_SLICE("a.example", parser.head.host);
        wb__http_parser_fini(&parser);
    }
}

TEST(test_http_parser__connection_and_version__keep_alive)
{
    static const struct {
        const char *text;
        bool alive;
    } rows[] = {
        {"GET / HTTP/1.1\r\n" HOST "\r\n", true},
        {"GET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" HOST "connection: x ,\tCLOSE\r\n\r\n", false},
        {"GET / HTTP/1.1\r\n" HOST "Connection: x\r\nConnection: close\r\n"
         "\r\n",
            false},
        {"GET / HTTP/1.1\r\n" HOST "Connection: closed\r\n\r\n", true},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true},
        {"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false},
    };

    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        begin(WB__HTTP_REQUESTS, usual, rows[i].text);
        CHECK_INT(WB__HTTP_HEAD, feed());
        CHECK_INT(rows[i].alive, parser.head.keep_alive);
        wb__http_parser_fini(&parser);
    }
}

/* ---- bodies ------------------------------------------------------------ */

/* Guarantee 2: no copy of a body is made. */
TEST(test_http_parser__body__views_into_the_input)
{
    const char *from;

    begin(WB__HTTP_REQUESTS, usual,
        CHUNKED "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nrest");
    from = input.ptr;
    CHECK_INT(WB__HTTP_HEAD, feed());
    CHECK(parser.head.chunked && !parser.head.has_length);
    CHECK_INT(WB__HTTP_BODY, feed());
    CHECK_SLICE("hello", piece);
    CHECK(piece.ptr == strstr(from, "hello"));
    CHECK_INT(WB__HTTP_BODY, feed());
    CHECK_SLICE(" world", piece);
    CHECK_INT(WB__HTTP_DONE, feed());
    CHECK_SLICE("rest", input);
    wb__http_parser_fini(&parser);
}

TEST(test_http_parser__next__memory_given_back)
{
    begin(WB__HTTP_REQUESTS, usual, GET "\r\n" GET "\r\n");
    for (int i = 0; i < 2; i++) {
        CHECK_INT(WB__HTTP_HEAD, feed());
        CHECK_INT(WB__HTTP_DONE, feed());
        CHECK(wb__http_parser_begun(&parser));
        wb__http_parser_next(&parser);
        CHECK(!wb__http_parser_begun(&parser));
        CHECK_INT(0, fake_env.live);
    }
    CHECK_INT(WB__HTTP_MORE, feed());
    CHECK_INT(WB__HTTP_MORE, wb__http_parser_end(&parser));
}

TEST(test_http_parser__next_before_the_end__stops)
{
    begin(WB__HTTP_REQUESTS, usual, GET);
    CHECK_INT(WB__HTTP_MORE, feed());
    CHECK_PANICS(wb__http_parser_next(&parser));
    wb__http_parser_fini(&parser);
}

/* ---- limits ------------------------------------------------------------ */

TEST(test_http_parser__limits__to_the_byte)
{
    static const char text[] = POST "Content-Length: 5\r\n\r\nhello";
    const size_t head = sizeof(text) - 1 - 5;
    static const struct {
        int head, fields, body, status;
    } rows[] = {
        {0, 2, 5, 0},
        {-1, 2, 5, 431},
        {0, 1, 5, 431},
        {0, 2, 4, 413},
    };

    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        struct wb__http_limits l = {.head_bytes = head + (size_t)rows[i].head,
            .fields = (size_t)rows[i].fields,
            .body_bytes = (uint64_t)rows[i].body};
        struct transcript t;

        transcript_init(&t, ENV, WB__HTTP_REQUESTS, &l);
        transcript_feed(&t, (struct wb_slice){text, sizeof(text) - 1});
        CHECK_INT(rows[i].status, t.status);
        CHECK_INT(rows[i].status == 0, t.messages);
        transcript_fini(&t);
    }
}

/* Head, extensions and trailers share one limit: no part is free. */
TEST(test_http_parser__extensions_and_trailers__count_as_head)
{
    static const char text[] = CHUNKED "1;abc\r\nx\r\n0\r\nA: b\r\n\r\n";
    const size_t counted = sizeof(CHUNKED) - 1 + 4 + 8;

    for (size_t less = 0; less < 13; less++) {
        struct wb__http_limits l = {.head_bytes = counted - less};
        struct transcript t;

        transcript_init(&t, ENV, WB__HTTP_REQUESTS, &l);
        transcript_feed(&t, (struct wb_slice){text, sizeof(text) - 1});
        CHECK_INT(less == 0 ? 0 : 431, t.status);
        transcript_fini(&t);
    }
}

TEST(test_http_parser__out_of_memory__503_and_no_more)
{
    struct transcript t;
    long failed = 1;

    for (long n = 0; failed != 0; n++) {
        begin(WB__HTTP_REQUESTS, usual, GET "A: " X256("x") "\r\n\r\n");
        fake_alloc_fail_at(n);
        if (feed() == WB__HTTP_BAD)
            CHECK_INT(503, parser.status);
        failed = fake_env.failed;
        CHECK_INT(failed == 0 ? WB__HTTP_DONE : WB__HTTP_BAD, feed());
        wb__http_parser_fini(&parser);
    }
    fake_alloc_fail_at(-1);
    transcript_init(&t, ENV, WB__HTTP_REQUESTS, &usual);
    transcript_fini(&t);
}

/* ---- responses --------------------------------------------------------- */

/* C24, on the reply parser; at every split. */
TEST(test_http_parser__responses__verdict_as_listed)
{
    static const struct {
        const char *name;
        int verdict;
        struct wb_slice bytes;
    } cases[] = {
#define CASE(name, verdict, bytes) {#name, verdict, {bytes, sizeof(bytes) - 1}},
        HTTP_RESPONSE_CASES(CASE)
#undef CASE
    };

    for (size_t i = 0; i < WB_COUNT(cases); i++) {
        struct wb_slice in = cases[i].bytes;
        int verdict = cases[i].verdict;

        for (size_t at = 0; at <= in.len; at += in.len > 2000 ? 511 : 1) {
            struct transcript t;

            transcript_init(&t, ENV, WB__HTTP_RESPONSES, &usual);
            transcript_feed_split(&t, in, at, at % 3 == 0 ? 1 : in.len);
            if (t.status != (verdict >= 100 ? verdict : 0) ||
                (verdict < 100 && t.messages != verdict))
                fail_msg("%s at %zu: %s", cases[i].name, at, t.text.ptr);
            transcript_fini(&t);
        }
    }
}

/* G-14: cut short anywhere, it is not a complete response. */
TEST(test_http_parser__response_cut_short__never_done)
{
    static const char *const whole[] = {
        OK LENGTH2 "\r\nhi",
        OK "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\n",
    };

    for (size_t i = 0; i < WB_COUNT(whole); i++) {
        for (size_t n = 0; n < strlen(whole[i]); n++) {
            struct transcript t;

            transcript_init(&t, ENV, WB__HTTP_RESPONSES, &usual);
            transcript_feed(&t, (struct wb_slice){whole[i], n});
            CHECK_INT(0, t.messages);
            CHECK_INT(n == 0 ? WB__HTTP_MORE : WB__HTTP_BAD,
                wb__http_parser_end(&t.parser));
            transcript_fini(&t);
        }
    }
}

TEST(test_http_parser__response_without_length__ends_with_the_input)
{
    begin(WB__HTTP_RESPONSES, (struct wb__http_limits){.body_bytes = 5},
        OK "\r\nhello");
    CHECK_INT(WB__HTTP_HEAD, feed());
    CHECK(!parser.head.keep_alive);
    CHECK_INT(WB__HTTP_BODY, feed());
    CHECK_SLICE("hello", piece);
    CHECK_INT(WB__HTTP_MORE, feed());
    CHECK_INT(WB__HTTP_DONE, wb__http_parser_end(&parser));
    wb__http_parser_next(&parser);
    input = WB_LIT(OK "\r\nhello!"); /* and is bounded */
    CHECK_INT(WB__HTTP_HEAD, feed());
    CHECK_INT(WB__HTTP_BODY, feed());
    CHECK_INT(WB__HTTP_BAD, feed());
    CHECK_INT(413, parser.status);
    wb__http_parser_fini(&parser);
}

TEST(test_http_parser__response_to_head__no_body)
{
    begin(WB__HTTP_RESPONSES, usual,
        OK "Content-Length: 99999999\r\n\r\n" OK LENGTH2 "\r\nhi");
    parser.bodyless = true;
    CHECK_INT(WB__HTTP_HEAD, feed());
    CHECK_INT(99999999, parser.head.length);
    CHECK(parser.head.keep_alive);
    CHECK_INT(WB__HTTP_DONE, feed());
    wb__http_parser_next(&parser);
    CHECK_INT(WB__HTTP_HEAD, feed());
    CHECK_INT(200, parser.head.status);
    CHECK_INT(WB__HTTP_BODY, feed()); /* bodyless was for one response only */
    wb__http_parser_fini(&parser);
}

/* A response that cannot have a body but announces one: it is unknown what
 * follows it, so the connection is not used again. */
TEST(test_http_parser__body_where_none_can_be__connection_ends)
{
    static const struct {
        const char *text;
        bool alive;
    } rows[] = {
        {"HTTP/1.1 204 No\r\n\r\n", true},
        {"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", true},
        {"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\n", false},
        {"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n", false},
        {"HTTP/1.1 100 No\r\nContent-Length: 2\r\n\r\n", false},
        {"HTTP/1.1 101 No\r\n\r\n", false},
        {"HTTP/1.1 304 No\r\nContent-Length: 2\r\n\r\n", true},
    };

    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        begin(WB__HTTP_RESPONSES, usual, rows[i].text);
        CHECK_INT(WB__HTTP_HEAD, feed());
        CHECK_INT(rows[i].alive, parser.head.keep_alive);
        CHECK_INT(WB__HTTP_DONE, feed());
        wb__http_parser_fini(&parser);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_http_parser__request__head_as_sent),
        RUN(test_http_parser__target__path_and_query),
        RUN(test_http_parser__connection_and_version__keep_alive),
        RUN(test_http_parser__body__views_into_the_input),
        RUN(test_http_parser__next__memory_given_back),
        RUN(test_http_parser__next_before_the_end__stops),
        RUN(test_http_parser__limits__to_the_byte),
        RUN(test_http_parser__extensions_and_trailers__count_as_head),
        RUN(test_http_parser__out_of_memory__503_and_no_more),
        RUN(test_http_parser__responses__verdict_as_listed),
        RUN(test_http_parser__response_cut_short__never_done),
        RUN(test_http_parser__response_without_length__ends_with_the_input),
        RUN(test_http_parser__response_to_head__no_body),
        RUN(test_http_parser__body_where_none_can_be__connection_ends),
    };
    return RUN_ALL(tests);
}
