/* test_http_strict.c - the table of http_cases.h, byte for byte (G-11, S5,
 * C24). One test a case: the list of names is the specification. */
#include "support.h"

#include <stdio.h>

#include "../http_cases.h"
#include "../http_transcript.h"

struct given {
    const char *name;
    int verdict;
    struct wb_slice bytes;
};

static const struct given cases[] = {
#define CASE(name, verdict, bytes) {#name, verdict, {bytes, sizeof(bytes) - 1}},
    HTTP_REQUEST_CASES(CASE)
#undef CASE
};

static const struct wb__http_limits limits = {0};

/* As text, freed by the caller with wb__buf_fini(). */
static struct transcript
read_split(const struct given *g, size_t first, size_t step)
{
    struct transcript t;

    transcript_init(&t, ENV, WB__HTTP_REQUESTS, &limits);
    transcript_feed_split(&t, g->bytes, first, step);
    CHECK(t.text.failed == WB_OK);
    CHECK(t.parser.raw_bytes <= 16 << 10);
    return t;
}

static void
test_http_strict__case__verdict_as_listed(void **state)
{
    const struct given *g = *state;
    struct transcript t;

    t = read_split(g, g->bytes.len, 1);
    if (t.status != (g->verdict >= 100 ? g->verdict : 0))
        print_error("%s: %s\n", g->name, t.text.ptr);
    CHECK_INT(g->verdict >= 100 ? g->verdict : 0, t.status);
    if (g->verdict < 100)
        CHECK_INT(g->verdict, t.messages);
    if (t.text.ptr != NULL && strstr(t.text.ptr, "path[5] /evil") != NULL)
        fail_msg("%s: a second request came out", g->name);
    transcript_fini(&t);
}

static bool
same(const struct transcript *a, const struct transcript *b)
{
    return wb__eq(wb__buf_slice(&a->text), wb__buf_slice(&b->text)) &&
           a->messages == b->messages && (a->status != 0 || a->open == b->open);
}

/* Guarantee 1 of parser.h. */
TEST(test_http_strict__split_at_every_byte__same_reading)
{
    for (size_t i = 0; i < WB_COUNT(cases); i++) {
        const struct given *g = &cases[i];
        struct transcript whole = read_split(g, g->bytes.len, 1), t;
        /* of a long one every 97th */
        size_t stride = g->bytes.len > 2000 ? 97 : 1;

        for (size_t at = 0; at < g->bytes.len; at += stride) {
            t = read_split(g, at, g->bytes.len);
            if (!same(&whole, &t))
                fail_msg("%s: another reading if split at %zu", g->name, at);
            transcript_fini(&t);
        }
        for (size_t step = 1; step < 8; step++) {
            t = read_split(g, step, step);
            if (!same(&whole, &t))
                fail_msg("%s: another reading in pieces of %zu", g->name, step);
            transcript_fini(&t);
        }
        transcript_fini(&whole);
    }
}

/* Every byte at every place of a request: the result is either refused or is
 * still one request (S3, S5). */
TEST(test_http_strict__any_byte_anywhere__never_two_requests)
{
    static const char base[] = POST "A: b\r\nContent-Length: 39\r\n\r\n" EVIL;
    char bytes[sizeof(base)];
    struct given g = {"changed", 0, {bytes, sizeof(base) - 1}};

    for (size_t at = 0; at < sizeof(base) - 1 - 39; at++) {
        for (int b = 0; b < 256; b++) {
            struct transcript t;

            memcpy(bytes, base, sizeof(base));
            bytes[at] = (char)b;
            t = read_split(&g, g.bytes.len, 1);
            /* The body may be read as a request only where the byte has changed
             * the name or the value of Content-Length. */
            if (strstr(t.text.ptr, "path[5] /evil") != NULL &&
                strstr(t.text.ptr, "\nContent-Length: 39\n") != NULL)
                fail_msg("byte %d at %zu: two requests", b, at);
            transcript_fini(&t);
        }
    }
}

/* A second request after a refusal must not appear, whatever it looks like. */
TEST(test_http_strict__after_a_refusal__nothing_is_read)
{
    static const char good[] = GET "\r\n";

    for (size_t i = 0; i < WB_COUNT(cases); i++) {
        struct transcript t = read_split(&cases[i], cases[i].bytes.len, 1);
        int before = t.messages;

        if (t.status != 0) {
            struct wb_slice in = {good, sizeof(good) - 1}, piece;

            for (int n = 0; n < 3; n++)
                CHECK_INT(
                    WB__HTTP_BAD, wb__http_parser_feed(&t.parser, &in, &piece));
            CHECK_INT(WB__HTTP_BAD, wb__http_parser_end(&t.parser));
            CHECK_INT(before, t.messages);
        }
        transcript_fini(&t);
    }
}

int
main(void)
{
    static struct CMUnitTest tests[WB_COUNT(cases) + 3];
    static char names[WB_COUNT(cases)][80];
    size_t n = 0;

    for (; n < WB_COUNT(cases); n++) {
        (void)snprintf(names[n], sizeof(names[n]), "test_http_strict__%s__%d",
            cases[n].name, cases[n].verdict);
        tests[n] = (struct CMUnitTest){.name = names[n],
            .test_func = test_http_strict__case__verdict_as_listed,
            .setup_func = test_begin,
            .teardown_func = test_end,
            .initial_state = (void *)(uintptr_t)&cases[n]};
    }
    tests[n++] = (struct CMUnitTest)RUN(
        test_http_strict__split_at_every_byte__same_reading);
    tests[n++] = (struct CMUnitTest)RUN(
        test_http_strict__any_byte_anywhere__never_two_requests);
    tests[n++] = (struct CMUnitTest)RUN(
        test_http_strict__after_a_refusal__nothing_is_read);
    return _cmocka_run_group_tests("http_strict", tests, n, NULL, NULL);
}
