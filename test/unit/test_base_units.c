/* test_base_units.c - durations, sizes, times, numbers: tables, and that what
 * is written is read back. */
#include "base/base.h"

#include <stdio.h>
#include <time.h>

#include "support.h"

#define BAD INT64_MIN /* in the tables: is refused */

TEST(test_units__duration__as_written_or_refused)
{
    static const struct {
        const char *text;
        int64_t ms;
    } rows[] = {
        {"0", 0},
        {"0ms", 0},
        {"500ms", 500},
        {"30s", 30000},
        {"5m", 300000},
        {"2h", 7200000},
        {"7d", 604800000},
        {"007s", 7000},
        {"", BAD},
        {"5", BAD},
        {"00", BAD},
        {"-5s", BAD},
        {"+5s", BAD},
        {"1.5s", BAD},
        {" 5s", BAD},
        {"5s ", BAD},
        {"5 s", BAD},
        {"5S", BAD},
        {"5y", BAD},
        {"s", BAD},
        {"ms", BAD},
        {"5sm", BAD},
        {"0x5s", BAD},
        {"106751991167d", INT64_C(106751991167) * 86400000},
        {"106751991168d", BAD},
        {"9223372036854775807ms", INT64_MAX},
        {"9223372036854775808ms", BAD},
        {"18446744073709551617ms", BAD},
        {"99999999999999999999999ms", BAD},
    };

    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        int64_t ms = BAD;
        struct wb_err err = {0};
        enum wb_status rc =
            wb__parse_duration(wb_slice(rows[i].text), &ms, &err);

        CHECK_INT(rows[i].ms == BAD ? WB_INVALID : WB_OK, rc);
        CHECK_INT(rows[i].ms, ms);
        if (rc != WB_OK)
            CHECK_HAS("30s", err.msg);
    }
}

TEST(test_units__size__as_written_or_refused)
{
    static const struct {
        const char *text;
        int64_t bytes;
    } rows[] = {
        {"0", 0},
        {"512", 512},
        {"64k", 65536},
        {"10m", 10485760},
        {"2g", INT64_C(2147483648)},
        {"", BAD},
        {"k", BAD},
        {"-1", BAD},
        {"1K", BAD},
        {"1kb", BAD},
        {"1 k", BAD},
        {"1t", BAD},
        {"8589934591g", INT64_C(8589934591) << 30},
        {"8589934592g", BAD},
        {"9223372036854775807", INT64_MAX},
        {"9223372036854775808", BAD},
    };

    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        int64_t bytes = BAD;
        enum wb_status rc =
            wb__parse_size(wb_slice(rows[i].text), &bytes, NULL);

        CHECK_INT(rows[i].bytes == BAD ? WB_INVALID : WB_OK, rc);
        CHECK_INT(rows[i].bytes, bytes);
    }
}

TEST(test_units__u64__digits_up_to_max)
{
    uint64_t v = 7;

    CHECK(wb__parse_u64(wb_slice("18446744073709551615"), UINT64_MAX, &v));
    CHECK(v == UINT64_MAX);
    CHECK(!wb__parse_u64(wb_slice("18446744073709551616"), UINT64_MAX, &v));
    CHECK(!wb__parse_u64(wb_slice("184467440737095516150"), UINT64_MAX, &v));
    CHECK(wb__parse_u64(wb_slice("000"), 0, &v) && v == 0);
    CHECK(!wb__parse_u64(wb_slice("11"), 10, &v));
    CHECK(!wb__parse_u64(wb_slice(""), 10, &v));
    CHECK(!wb__parse_u64(wb_slice("1a"), UINT64_MAX, &v));
    CHECK(!wb__parse_u64((struct wb_slice){"1\0", 2}, UINT64_MAX, &v));
    CHECK(v == 0);
}

TEST(test_units__rfc3339__as_written_or_refused)
{
    static const struct {
        const char *text;
        int64_t ms;
    } rows[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"now", 5},
        {"2026-11-20T18:00:00Z", INT64_C(1795197600000)},
        {"2026-11-20t18:00:00z", INT64_C(1795197600000)},
        {"2026-11-20 18:00:00Z", INT64_C(1795197600000)},
        {"2026-11-20T18:00:00.5Z", INT64_C(1795197600500)},
        {"2026-11-20T18:00:00.1239999Z", INT64_C(1795197600123)},
        {"2026-11-20T20:00:00+02:00", INT64_C(1795197600000)},
        {"2026-11-20T12:30:00-05:30", INT64_C(1795197600000)},
        {"1969-12-31T23:59:59.999Z", -1},
        {"2024-02-29T00:00:00Z", INT64_C(1709164800000)},
        {"2000-02-29T00:00:00Z", INT64_C(951782400000)},
        {"2016-12-31T23:59:60Z", INT64_C(1483228800000)},
        {"0000-01-01T00:00:00Z", INT64_C(-62167219200000)},
        {"9999-12-31T23:59:59.999Z", INT64_C(253402300799999)},
        {"", BAD},
        {"1900-02-29T00:00:00Z", BAD},
        {"2023-02-29T00:00:00Z", BAD},
        {"2026-13-01T00:00:00Z", BAD},
        {"2026-00-01T00:00:00Z", BAD},
        {"2026-04-31T00:00:00Z", BAD},
        {"2026-01-00T00:00:00Z", BAD},
        {"2026-01-01T24:00:00Z", BAD},
        {"2026-01-01T00:60:00Z", BAD},
        {"2026-01-01T00:00:61Z", BAD},
        {"2026-01-01T00:00:00", BAD},
        {"2026-01-01", BAD},
        {"2026-1-01T00:00:00Z", BAD},
        {"2026-01-01T00:00:00.Z", BAD},
        {"2026-01-01T00:00:00.", BAD},
        {"2026-01-01T00:00:00ZZ", BAD},
        {"2026-01-01T00:00:00+24:00", BAD},
        {"2026-01-01T00:00:00+0200", BAD},
        {"2026-01-01T00:00:00+02:60", BAD},
        {"2026-01-01T00:00:00+02:00x", BAD},
        {"26-01-01T00:00:00Z", BAD},
        {"NOW", BAD},
        {"-2026-01-01T00:00:00Z", BAD},
    };

    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        int64_t ms = BAD;
        enum wb_status rc =
            wb__parse_time(wb_slice(rows[i].text), 5, &ms, NULL);

        if (ms != rows[i].ms)
            fail_msg("%s: %lld", rows[i].text, (long long)ms);
        CHECK_INT(rows[i].ms == BAD ? WB_INVALID : WB_OK, rc);
    }
    CHECK_STATUS(INVALID,
        wb__parse_time((struct wb_slice){"2026-11-20\00018:00:00Z", 20}, 0,
            &(int64_t){0}, NULL));
}

TEST(test_units__http_date__three_forms)
{
    static const struct {
        const char *text;
        int64_t ms;
    } rows[] = {
        {"Sun, 06 Nov 1994 08:49:37 GMT", INT64_C(784111777000)},
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Sunday, 06-Nov-94 08:49:37 GMT", INT64_C(784111777000)},
        {"Sun Nov  6 08:49:37 1994", INT64_C(784111777000)},
        {"Xyz, 06 Nov 1994 08:49:37 GMT", BAD},
        {"sun, 06 Nov 1994 08:49:37 GMT", BAD},
        {"Sun, 06 nov 1994 08:49:37 GMT", BAD},
        {"Sun, 06 anF 1994 08:49:37 GMT", BAD},
        {"Sun, 06 Nov 1994 08:49:37 UTC", BAD},
        {"Sun, 31 Nov 1994 08:49:37 GMT", BAD},
        {"Sun, 06 Nov 1994 24:49:37 GMT", BAD},
        {"", BAD},
        {"Sun, 06 Nov 1994 08:49:37 GMT ", BAD},
    };
    char text[30] = "Sun, 06 Nov 1994 08:49:37 GMT";

    for (size_t i = 0; i < WB_COUNT(rows); i++) {
        int64_t ms = BAD;
        bool ok = wb__parse_http_date(wb_slice(rows[i].text), 0, &ms);

        if (ok != (rows[i].ms != BAD) || ms != rows[i].ms)
            fail_msg("%s: %lld", rows[i].text, (long long)ms);
    }
    /* every single byte changed: never past the end, seldom a date */
    for (size_t at = 0; at < 29; at++) {
        for (int c = 0; c < 256; c++) {
            char kept = text[at];
            int64_t ms;
            bool digit = c >= '0' && c <= '9';

            text[at] = (char)c;
            if (wb__parse_http_date((struct wb_slice){text, 29}, 0, &ms))
                CHECK(
                    digit || (char)c == kept || at < 3 || (at >= 8 && at < 11));
            text[at] = kept;
        }
    }
    memset(text + 8, 0, 3);
    CHECK(!wb__parse_http_date((struct wb_slice){text, 29}, 0, &(int64_t){0}));
    text[8] = 'J';
    CHECK(!wb__parse_http_date((struct wb_slice){text, 29}, 0, &(int64_t){0}));
}

TEST(test_units__time_written_then_read__the_same)
{
    for (int i = 0; i < 20000; i++) {
        int64_t ms, back;
        char text[32];
        struct tm tm;
        time_t s;
        char want[32];

        ENV->random(ENV->ctx, &ms, sizeof(ms));
        ms %= INT64_C(250000000000000);
        if (ms < -INT64_C(62167219200000))
            ms = -ms;
        wb__format_time(ms, text);
        CHECK_STATUS(OK, wb__parse_time(wb_slice(text), 0, &back, NULL));
        CHECK_INT(ms, back);
        s = (time_t)(ms / 1000 - (ms % 1000 < 0));
        (void)strftime(want, sizeof(want), "%H:%M:%S", gmtime_r(&s, &tm));
        CHECK_HAS(want, text);
    }
}

TEST(test_units__time_out_of_range__written_as_a_number)
{
    char text[32];

    wb__format_time(INT64_MAX, text);
    CHECK_TEXT("9223372036854775807ms", text);
    wb__format_time(INT64_MIN, text); /* found by fuzz_units */
    CHECK_TEXT("-9223372036854775808ms", text);
    wb__format_time(INT64_C(253402300800000), text); /* year 10000 */
    CHECK_TEXT("253402300800000ms", text);
}

TEST(test_units__sat_add__stops_at_the_ends)
{
    CHECK_INT(INT64_MAX, wb__sat_add(INT64_MAX, 1));
    CHECK_INT(INT64_MIN, wb__sat_add(INT64_MIN, -1));
    CHECK_INT(-1, wb__sat_add(INT64_MAX, INT64_MIN));
    CHECK_INT(5, wb__sat_add(7, -2));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_units__duration__as_written_or_refused),
        RUN(test_units__size__as_written_or_refused),
        RUN(test_units__u64__digits_up_to_max),
        RUN(test_units__rfc3339__as_written_or_refused),
        RUN(test_units__http_date__three_forms),
        RUN(test_units__time_written_then_read__the_same),
        RUN(test_units__time_out_of_range__written_as_a_number),
        RUN(test_units__sat_add__stops_at_the_ends),
    };
    return RUN_ALL(tests);
}
