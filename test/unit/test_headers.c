/* test_headers.c - header lines kept with a message (O-19, S3). */
#include "base/base.h"

#include <stdio.h>

#include "support.h"

static enum wb_status
check(const char *bytes, size_t len, struct wb_err *err)
{
    return wb__headers_check((struct wb_slice){bytes, len}, err);
}

/* S3: every byte in a name, and in a value. */
TEST(test_headers__S3_every_byte__token_in_names_text_in_values)
{
    for (int c = 0; c < 256; c++) {
        char name[] = "Xy: v\n", value[] = "X: a.b\n";
        bool token = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                     (c >= 'A' && c <= 'Z') ||
                     (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);

        name[1] = (char)c;
        value[4] = (char)c;
        CHECK((check(name, 6, NULL) == WB_OK) == token);
        CHECK((check(value, 7, NULL) == WB_OK) ==
              (c == '\t' || (c >= 0x20 && c != 0x7f)));
    }
}

TEST(test_headers__lines__whole_or_refused_with_the_number)
{
    struct wb_err err = {0};

    CHECK_INT(WB_OK, check("", 0, NULL));
    CHECK_INT(WB_OK, check(NULL, 0, NULL));
    CHECK_INT(WB_OK, check("A: b\nC: d\n", 10, NULL));
    CHECK_INT(WB_OK, check("A: \n", 4, NULL)); /* an empty value */
    CHECK_INT(WB_INVALID, check("A: b\nC: d", 9, &err));
    CHECK_INT(WB_INVALID, check("\n", 1, &err));
    CHECK_INT(WB_INVALID, check("A: b\n\nC: d\n", 11, &err));
    CHECK_HAS("header 2", err.msg);
    CHECK_INT(WB_INVALID, check("A:\n", 3, &err));
    CHECK_INT(WB_INVALID, check("A:b\n", 4, &err));
    CHECK_INT(WB_INVALID, check("A : b\n", 6, &err));
    CHECK_INT(WB_INVALID, check(" A: b\n", 6, &err));
    CHECK_INT(WB_INVALID, check("A: b\n c\n", 8, &err)); /* folded */
    CHECK_INT(WB_INVALID, check("A: b \n", 6, &err));
    CHECK_INT(WB_INVALID, check("A: \tb\n", 6, &err));
    CHECK_INT(WB_INVALID, check("A: b\r\n", 6, &err));
    CHECK_INT(WB_INVALID, check(": b\n", 4, &err));
}

TEST(test_headers__next__each_name_and_value)
{
    struct wb_slice rest = wb_slice("A: b: c\nLong-Name: \nC: d\n"), name,
                    value;

    CHECK(wb__headers_next(&rest, &name, &value));
    CHECK_SLICE("A", name);
    CHECK_SLICE("b: c", value);
    CHECK(wb__headers_next(&rest, &name, &value));
    CHECK_SLICE("Long-Name", name);
    CHECK_SLICE("", value);
    CHECK(wb__headers_next(&rest, &name, &value));
    CHECK_SLICE("d", value);
    CHECK(!wb__headers_next(&rest, &name, &value));
}

/* What passes the check comes back line by line, byte by byte. */
TEST(test_headers__noise_that_passes__walks_to_the_same_text)
{
    int passed = 0;

    for (int i = 0; i < 200000; i++) {
        static const char *const pieces[] = {"A", "x-1", ": ", ": ", "v", "\n",
            "\n", " ", ":", "\t", "\r", "\x7f", "\xc3"};
        char text[64] = "", again[64];
        struct wb_slice rest, name, value;
        uint8_t r[8];
        size_t n = 0;

        ENV->random(ENV->ctx, r, sizeof(r));
        for (size_t k = 0; k < 8U - r[0] % 5; k++)
            (void)strcat(text, pieces[r[k] % WB_COUNT(pieces)]);
        rest = wb_slice(text);
        if (wb__headers_check(rest, NULL) != WB_OK)
            continue;
        passed++;
        while (wb__headers_next(&rest, &name, &value))
            n += (size_t)snprintf(again + n, sizeof(again) - n, "%.*s: %.*s\n",
                (int)name.len, name.ptr, (int)value.len, value.ptr);
        CHECK_INT(strlen(text), n);
        CHECK(memcmp(text, again, n) == 0);
    }
    CHECK(passed > 100);
}

TEST(test_headers__eq_nocase__ascii_only)
{
    CHECK(wb__eq_nocase(wb_slice("Content-Type"), wb_slice("cONTENT-tYPE")));
    CHECK(!wb__eq_nocase(wb_slice("a"), wb_slice("ab")));
    CHECK(!wb__eq_nocase(wb_slice("\xc3\x84"), wb_slice("\xc3\xa4")));
    CHECK(!wb__eq_nocase(wb_slice("@"), wb_slice("`")));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_headers__S3_every_byte__token_in_names_text_in_values),
        RUN(test_headers__lines__whole_or_refused_with_the_number),
        RUN(test_headers__next__each_name_and_value),
        RUN(test_headers__noise_that_passes__walks_to_the_same_text),
        RUN(test_headers__eq_nocase__ascii_only),
    };
    return RUN_ALL(tests);
}
