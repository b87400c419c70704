/* test_config_template.c - URLs from payloads (T-1, S1). */
#include <jansson.h>

#include "test_config.h"

static const struct {
    const char *name, *url, *payload;
    const char *gives; /* NULL: an error */
    const char *says;
} cases[] = {
    {"no field", "http://h/a", "{}", "http://h/a", NULL},
    {"one field", "http://h/reviews/{review_id}/metrics",
        "{\"review_id\":\"r-1\"}", "http://h/reviews/r-1/metrics", NULL},
    {"two fields", "http://h/{a}-{b}", "{\"a\":1,\"b\":\"x\"}", "http://h/1-x",
        NULL},
    {"same field twice", "http://h/{a}/{a}", "{\"a\":\"x\"}", "http://h/x/x",
        NULL},
    {"slash", "http://h/{a}", "{\"a\":\"x/y\"}", "http://h/x%2Fy", NULL},
    {"space", "http://h/{a}", "{\"a\":\"x y\"}", "http://h/x%20y", NULL},
    {"percent", "http://h/{a}", "{\"a\":\"100%\"}", "http://h/100%25", NULL},
    {"encoded already", "http://h/{a}", "{\"a\":\"%2e%2e\"}",
        "http://h/%252e%252e", NULL},
    {"question mark and hash", "http://h/{a}", "{\"a\":\"x?y#z\"}",
        "http://h/x%3Fy%23z", NULL},
    {"UTF-8", "http://h/{a}", "{\"a\":\"über\"}", "http://h/%C3%BCber", NULL},
    {"zero byte", "http://h/{a}", "{\"a\":\"x\\u0000y\"}", "http://h/x%00y",
        NULL},
    {"line end", "http://h/{a}", "{\"a\":\"x\\r\\nHost: y\"}",
        "http://h/x%0D%0AHost%3A%20y", NULL},
    {"back slash and at", "http://h/{a}", "{\"a\":\"\\\\@\"}",
        "http://h/%5C%40", NULL},
    {"braces", "http://h/{a}", "{\"a\":\"{b}\"}", "http://h/%7Bb%7D", NULL},
    {"unreserved", "http://h/{a}", "{\"a\":\"aZ09-._~\"}", "http://h/aZ09-._~",
        NULL},
    {"query", "http://h/p?q={a}&r={b}", "{\"a\":\"1&r=2\",\"b\":\"x+y\"}",
        "http://h/p?q=1%26r%3D2&r=x%2By", NULL},
    {"query without a path", "http://h?q={a}", "{\"a\":\"/..\"}",
        "http://h?q=%2F..", NULL},
    {"empty in query", "http://h/p?q={a}", "{\"a\":\"\"}",
        "http://h/p?q=", NULL},
    {"dots in query", "http://h/p?q={a}", "{\"a\":\"..\"}", "http://h/p?q=..",
        NULL},
    {"whole number", "http://h/{a}", "{\"a\":-7}", "http://h/-7", NULL},
    {"largest number", "http://h/{a}", "{\"a\":9223372036854775807}",
        "http://h/9223372036854775807", NULL},
    {"part of a number", "http://h/{a}", "{\"a\":1.5}", "http://h/1.5", NULL},
    {"number with an exponent", "http://h/p?q={a}", "{\"a\":1e-30}",
        "http://h/p?q=1e-30", NULL},
    {"true", "http://h/{a}", "{\"a\":true}", "http://h/true", NULL},
    {"false", "http://h/{a}", "{\"a\":false}", "http://h/false", NULL},
    {"nested", "http://h/{a.b.c}", "{\"a\":{\"b\":{\"c\":\"x\"}}}",
        "http://h/x", NULL},
    {"null", "http://h/{a}", "{\"a\":null}", NULL, "url: field a is null"},
    {"missing", "http://h/{a}", "{}", NULL,
        "url: field a is not in the payload"},
    {"missing inside", "http://h/{a.b}", "{\"a\":{}}", NULL,
        "url: field a.b is not in the payload"},
    {"inside a text", "http://h/{a.b}", "{\"a\":\"x\"}", NULL,
        "url: field a.b is not in the payload"},
    {"object", "http://h/{a}", "{\"a\":{}}", NULL,
        "url: field a is neither text nor number"},
    {"array", "http://h/{a}", "{\"a\":[]}", NULL,
        "url: field a is neither text nor number"},
    {"empty", "http://h/{a}/x", "{\"a\":\"\"}", NULL, "url: field a is empty"},
    {"half a character", "http://h/{a}", "{\"a\":\"\\ud800\"}", NULL,
        "url: field a has half of a surrogate pair, which is no character"},
    {"number as written", "http://h/{a}/{b}",
        "{\"a\":1.50,\"b\":123456789012345678901234567890}",
        "http://h/1.50/123456789012345678901234567890", NULL},
    {"the last of a name that stands twice", "http://h/{a}",
        "{\"a\":1,\"\\u0061\":2}", "http://h/2", NULL},
    {"payload is a list", "http://h/{a}", "[1]", NULL,
        "url: field a is not in the payload"},
    {"dot", "http://h/{a}/x", "{\"a\":\".\"}", NULL,
        "the url has \".\" or \"..\" as part of its path"},
    {"dots", "http://h/v1/{a}/x", "{\"a\":\"..\"}", NULL,
        "the url has \".\" or \"..\" as part of its path"},
    {"dots of two", "http://h/v1/{a}{a}", "{\"a\":\".\"}", NULL,
        "the url has \".\" or \"..\" as part of its path"},
};

TEST(test_config_template__table__encoded_as_written)
{
    for (size_t i = 0; i < WB_COUNT(cases); i++) {
        struct wb__buf out = {.env = ENV, .max = 8192};
        enum wb_status rc;

        CHECK_OK(wb__template_check(wb_slice(cases[i].url), &err), err);
        rc = wb__template_expand(
            wb_slice(cases[i].url), wb_slice(cases[i].payload), &out, &err);
        CHECK_INT(cases[i].gives != NULL ? WB_OK : WB_INVALID, rc);
        if (rc == WB_OK)
            CHECK_SLICE(cases[i].gives, wb__buf_slice(&out));
        else
            CHECK_TEXT(cases[i].says, err.msg);
        wb__buf_fini(&out);
    }
}

TEST(test_config_template__every_byte__leaves_segments_and_parameters)
{
    for (int c = 1; c < 128; c++) {
        char text[2] = {(char)c, '\0'};
        struct wb__buf out = {.env = ENV, .max = 8192};
        json_t *value = json_pack("{s:s}", "a", text);
        char *payload = json_dumps(value, 0);

        if (c != '.') {
            CHECK_OK(wb__template_expand(WB_LIT("http://h/x/{a}?q={a}"),
                         wb_slice(payload), &out, &err),
                err);
            for (size_t i = 0, slashes = 0; i < out.len; i++) {
                slashes += out.ptr[i] == '/';
                CHECK(slashes <= 4 && out.ptr[i] > ' ' && out.ptr[i] < 0x7f);
                CHECK(out.ptr[i] != '&' && out.ptr[i] != '#');
            }
        }
        json_decref(value);
        free(payload);
        wb__buf_fini(&out);
    }
}

TEST(test_config_template__too_long__error_and_no_more)
{
    char *text = malloc(20001);
    struct wb__buf out = {.env = ENV, .max = 8192};

    CHECK(text != NULL);
    (void)snprintf(text, 20001, "{\"a\":\"%019990d\"}", 0);
    CHECK_STATUS(INVALID, wb__template_expand(WB_LIT("http://h/{a}"),
                              wb_slice(text), &out, &err));
    CHECK_TEXT("the url is longer than 8192 bytes", err.msg);
    CHECK_STATUS(
        INVALID, wb__template_check((struct wb_slice){text, 20000}, &err));
    wb__buf_fini(&out);
    free(text);
}

TEST(test_config_template__every_cut_of_a_good_one__no_crash)
{
    static const char text[] = "https://h.example:80/{a.b}/x?y={c}&z=%20";
    int good = 0;

    for (size_t n = 0; n < sizeof(text); n++)
        good += wb__template_check((struct wb_slice){text, n}, NULL) == WB_OK;
    CHECK(good > 10);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_config_template__table__encoded_as_written),
        RUN(test_config_template__every_byte__leaves_segments_and_parameters),
        RUN(test_config_template__too_long__error_and_no_more),
        RUN(test_config_template__every_cut_of_a_good_one__no_crash),
    };
    return RUN_ALL(tests);
}
