/* test_base_text.c - UTF-8, one-line errors (O-12), base64, slices, SHA-256. */
#include "base/base.h"

#include <stdio.h>

#include "support.h"

TEST(test_text__utf8__rfc3629_and_nothing_else)
{
    static const char *const good[] = {"", "a", "\x7f", "\xc2\x80", "\xdf\xbf",
        "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80", "\xef\xbf\xbf",
        "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf",
        "\xc2", "\xc2\x41", "\xe0\x9f\xbf", "\xe0\xa0", "\xed\xa0\x80",
        "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf0\x90\x80", "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80", "\xff", "a\xc3"};

    for (size_t i = 0; i < WB_COUNT(good); i++)
        CHECK(wb__utf8_valid(S(good[i])));
    for (size_t i = 0; i < WB_COUNT(bad); i++)
        CHECK(!wb__utf8_valid(S(bad[i])));
}

/* Every code point, encoded by hand. */
TEST(test_text__utf8_every_code_point__valid_but_surrogates)
{
    for (uint32_t c = 0; c < 0x120000; c++) {
        char b[4];
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        bool want = c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);

        for (size_t i = n; i-- > 1;)
            b[i] = (char)(0x80 | (c >> 6 * (n - 1 - i) & 0x3f));
        b[0] =
            n == 1 ? (char)c : (char)((0xf00 >> n & 0xff) | c >> 6 * (n - 1));
        CHECK(wb__utf8_valid((struct wb_slice){b, n}) == want);
        CHECK(wb__printable((struct wb_slice){b, n}) ==
              (want && c >= 0x20 && (c < 0x7f || c >= 0xa0)));
    }
}

TEST(test_text__O12_one_line__controls_and_blanks_become_one_space)
{
    static const struct {
        const char *in;
        size_t max;
        const char *out;
    } rows[] = {
        {"", 10, ""},
        {"   ", 10, ""},
        {" a ", 10, "a"},
        {"a \t\r\n b", 10, "a b"},
        {"a\x1b[1mb", 10, "a [1mb"},
        {"a\x7f\xc2\x85\xc2\x9b"
         "b",
            10, "a b"},
        {"\xff\xfe", 10, "??"},
        {"a\xc3", 10, "a?"},
        {"\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac", 2, "\xe2\x82\xac\xe2\x82\xac"},
        {"abc", 3, "abc"},
        {"abcd", 3, "abc"},
        {"ab c", 3, "ab"},
        {"a b c", 3, "a b"},
        {"abc", 0, ""},
        {"  abc", 1, "a"},
    };
    char out[64];

    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        size_t n = wb__one_line(S(rows[i].in), rows[i].max, out);

        CHECK_TEXT(rows[i].out, out);
        CHECK_INT(strlen(rows[i].out), n);
    }
    CHECK_INT(3, wb__one_line((struct wb_slice){"a\0b", 3}, 10, out));
    CHECK_TEXT("a b", out);
}

/* Whatever comes in: valid UTF-8, printable, short enough, once is as good as
 * twice. */
TEST(test_text__O12_one_line_of_noise__always_one_short_line)
{
    for (int i = 0; i < 20000; i++) {
        char in[48], out[4 * 16 + 1], again[4 * 16 + 1];
        uint8_t len, max;
        size_t n, chars = 0;

        ENV->random(ENV->ctx, in, sizeof(in));
        ENV->random(ENV->ctx, &len, 1);
        ENV->random(ENV->ctx, &max, 1);
        max %= 17;
        n = wb__one_line((struct wb_slice){in, len % sizeof(in)}, max, out);
        CHECK(wb__printable((struct wb_slice){out, n}));
        CHECK_INT(n, strlen(out));
        for (size_t k = 0; k < n; k++)
            chars += (out[k] & 0xc0) != 0x80;
        CHECK(chars <= max);
        CHECK(strstr(out, "  ") == NULL);
        CHECK_INT(n, wb__one_line(S(out), 16, again));
        CHECK_TEXT(out, again);
    }
}

TEST(test_text__base64__rfc4648_vectors)
{
    static const char *const rows[][2] = {{"", ""}, {"f", "Zg=="},
        {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"},
        {"\xfb\xff\xbf", "+/+/"}};
    struct wb__buf b = {.env = ENV, .max = 100};

    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        wb__buf_clear(&b);
        wb__base64(&b, S(rows[i][0]));
        CHECK_SLICE(rows[i][1], wb__buf_slice(&b));
    }
    wb__buf_clear(&b);
    b.max = 7;
    wb__base64(&b, S("foob"));
    CHECK_INT(WB_TOOBIG, b.failed);
    CHECK_INT(0, b.len);
    wb__buf_fini(&b);
}

TEST(test_text__slices__cut_trim_from_starts)
{
    struct wb_slice rest = S("a,,b"), piece;

    CHECK(wb__cut(&rest, ',', &piece));
    CHECK_SLICE("a", piece);
    CHECK(wb__cut(&rest, ',', &piece));
    CHECK_SLICE("", piece);
    CHECK(wb__cut(&rest, ',', &piece));
    CHECK_SLICE("b", piece);
    CHECK(!wb__cut(&rest, ',', &piece));
    CHECK_SLICE("b", piece);
    CHECK_SLICE("a b", wb__trim(S(" \t\r\na b\n ")));
    CHECK_SLICE("", wb__trim(S(" \n")));
    CHECK_SLICE("", wb__from(S("ab"), 2));
    CHECK(wb__starts(S("abc"), S("ab")) && !wb__starts(S("a"), S("ab")));
    CHECK(wb__starts(S("a"), S("")) && wb__eq(S(""), S(NULL)));
    CHECK_INT(0, wb_slice(NULL).len);
    CHECK(wb__cmp(S("a"), S("b")) < 0 && wb__cmp(S("b"), S("ab")) > 0);
    CHECK(wb__cmp(S("a"), S("ab")) < 0 && wb__cmp(S("ab"), S("a")) > 0);
    CHECK(wb__cmp(S("a"), S("a")) == 0 && wb__cmp(S(NULL), S("")) == 0);
    CHECK_PANICS(wb__from(S("ab"), 3));
}

TEST(test_text__sha256__framed_by_lengths)
{
    const struct wb_slice none = {0}, ab[] = {S("a"), S("bc")},
                          ba[] = {S("ab"), S("c")};
    uint8_t x[32], y[32];
    static const uint8_t empty[4] = {0xe3, 0xb0, 0xc4, 0x42};

    CHECK(wb__sha256(&none, 0, x));
    CHECK(memcmp(x, empty, 4) == 0);
    CHECK(wb__sha256(ab, 2, x) && wb__sha256(ba, 2, y));
    CHECK(memcmp(x, y, 32) != 0);
    CHECK(wb__sha256(&none, 1, y));
    CHECK(memcmp(y, empty, 4) != 0);
}

TEST(test_text__statuses__each_named_and_explained)
{
#define X(id, num, words)                     \
    CHECK_INT(num, WB_##id);                  \
    CHECK_TEXT(#id, wb_status_name(WB_##id)); \
    CHECK_TEXT(words, wb_status_text(WB_##id));
    WB_STATUS_MAP(X)
#undef X
    CHECK_TEXT("?", wb_status_name((enum wb_status)15));
    CHECK_TEXT("?", wb_status_text((enum wb_status) - 1));
}

TEST(test_text__fail__text_cut_and_err_optional)
{
    struct wb_err err = {0};
    char lots[1000];

    memset(lots, 'x', sizeof(lots) - 1);
    lots[sizeof(lots) - 1] = '\0';
    CHECK_STATUS(FULL, wb__fail(&err, WB_FULL, 7, "%s", lots));
    CHECK_INT(sizeof(err.msg) - 1, strlen(err.msg));
    CHECK_INT(7, err.sys);
    CHECK_STATUS(FULL, wb__fail(NULL, WB_FULL, 0, "%s", lots));
}

TEST(test_text__edit_distance__letters_to_change)
{
    CHECK_INT(0, wb__edit_distance(S(""), S("")));
    CHECK_INT(3, wb__edit_distance(S(""), S("abc")));
    CHECK_INT(3, wb__edit_distance(S("kitten"), S("sitting")));
    CHECK_INT(2, wb__edit_distance(S("tiemout"), S("timeout")));
    CHECK_INT(1, wb__edit_distance(S("route"), S("routes")));
    CHECK_INT(
        32, wb__edit_distance(S("a"), S("123456789012345678901234567890123")));
}

TEST(test_text__json__rfc8259_and_nothing_else)
{
    static const char *const good[] = {"0", " -0 ", "1.50e-07", "1e400",
        "123456789012345678901234567890", "\"\"", "\"\\u0000\\ud800\\/\"", "[]",
        "[ 1 , [ ] ]", "{}", "{\"a\":{\"a\":1,\"a\":[true]}}\r\n", "null",
        "\"\xe2\x82\xac\x7f\""};
    static const char *const bad[] = {"", " ", "01", "1.", ".5", "+1", "-",
        "1e", "0x1", "NaN", "'a'", "\"", "\"\\\"", "\"\\x\"", "\"\\u12g4\"",
        "\"\n\"", "[", "[1,]", "[1 2]", "{", "{a:1}", "{\"a\"}", "{\"a\":}",
        "{\"a\":1,}", "{\"a\":1]", "tru", "nul", "truee", "1 2",
        "\xef\xbb\xbf[]", "\"\xff\"", "[1]\xc2\xa0"};
    char deep[5000];

    for (size_t i = 0; i < WB_COUNT(good); i++)
        CHECK(wb__json_valid(S(good[i]), NULL));
    for (size_t i = 0; i < WB_COUNT(bad); i++)
        CHECK(!wb__json_valid(S(bad[i]), NULL));
    CHECK(!wb__json_valid((struct wb_slice){0}, NULL));
    CHECK(!wb__json_valid((struct wb_slice){"1\0", 2}, NULL));
    memset(deep, '[', 2049);
    memset(deep + 2049, ']', 2049);
    CHECK(!wb__json_valid((struct wb_slice){deep, 4098}, NULL));
    CHECK(wb__json_valid((struct wb_slice){deep + 1, 4096}, NULL));
}

TEST(test_text__json_at__the_bytes_of_the_last_member_of_that_name)
{
    static const struct {
        const char *text, *path, *value; /* NULL: there is none */
    } rows[] = {
        {" {\"a\" : 19.990 }", "a", "19.990"},
        {"{\"a\":{\"b\":[1, 2 ]} }", "a.b", "[1, 2 ]"},
        {"{\"a\":1,\"a\":{\"b\":2}}", "a.b", "2"},
        {"{\"a\":{\"b\":2},\"a\":1}", "a.b", NULL},
        {"{\"\\u0061-1\":\"\\u00e9\"}", "a-1", "\"\\u00e9\""},
        {"{\"b\":{\"a\":1},\"ab\":2,\"\":3}", "a", NULL},
        {"{}", "a", NULL},
        {"[{\"a\":1}]", "a", NULL},
        {"1", "a", NULL},
    };

    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        struct wb_slice value;
        bool found = wb__json_at(S(rows[i].text), S(rows[i].path), &value);

        CHECK(found == (rows[i].value != NULL));
        if (found)
            CHECK_SLICE(rows[i].value, value);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_text__utf8__rfc3629_and_nothing_else),
        RUN(test_text__utf8_every_code_point__valid_but_surrogates),
        RUN(test_text__O12_one_line__controls_and_blanks_become_one_space),
        RUN(test_text__O12_one_line_of_noise__always_one_short_line),
        RUN(test_text__base64__rfc4648_vectors),
        RUN(test_text__slices__cut_trim_from_starts),
        RUN(test_text__sha256__framed_by_lengths),
        RUN(test_text__statuses__each_named_and_explained),
        RUN(test_text__fail__text_cut_and_err_optional),
        RUN(test_text__edit_distance__letters_to_change),
        RUN(test_text__json__rfc8259_and_nothing_else),
        RUN(test_text__json_at__the_bytes_of_the_last_member_of_that_name),
    };
    return RUN_ALL(tests);
}
