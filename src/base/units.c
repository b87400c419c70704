/* units.c - read and write durations, sizes, times and numbers as text. */
#include <stdio.h>
#include <time.h>

#include "base/base.h"

bool
wb__parse_u64(struct wb_slice s, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;

    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = (unsigned)(unsigned char)s.ptr[i] - '0';

        if (digit > 9 || v > (UINT64_MAX - digit) / 10)
            return false;
        v = v * 10 + digit;
    }
    if (v > max)
        return false;
    *out = v;
    return true;
}

struct unit {
    const char *name;
    int64_t size;
};

/* Digits, then the name of a unit; the product must fit. */
static bool
parse_scaled(
    struct wb_slice s, const struct unit *units, size_t n, int64_t *out)
{
    size_t digits = 0;
    uint64_t v;

    while (digits < s.len && s.ptr[digits] >= '0' && s.ptr[digits] <= '9')
        digits++;
    for (size_t i = 0; i < n; i++) {
        if (!wb__eq(wb__from(s, digits), wb_slice(units[i].name)))
            continue;
        if (!wb__parse_u64((struct wb_slice){s.ptr, digits},
                (uint64_t)(INT64_MAX / units[i].size), &v))
            return false;
        *out = (int64_t)v * units[i].size;
        return true;
    }
    return false;
}

enum wb_status
wb__parse_duration(struct wb_slice s, int64_t *ms, struct wb_err *err)
{
    static const struct unit units[] = {
        {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};

    if (wb__eq(s, WB_LIT("0"))) {
        *ms = 0;
        return WB_OK;
    }
    if (parse_scaled(s, units, WB_COUNT(units), ms))
        return WB_OK;
    return wb__fail(err, WB_INVALID, 0,
        "\"%.*s\" is no duration; write it like 500ms, 30s, 5m, 2h or 7d",
        WB_SHOW(s));
}

enum wb_status
wb__parse_size(struct wb_slice s, int64_t *bytes, struct wb_err *err)
{
    static const struct unit units[] = {
        {"", 1}, {"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}};

    if (parse_scaled(s, units, WB_COUNT(units), bytes))
        return WB_OK;
    return wb__fail(err, WB_INVALID, 0,
        "\"%.*s\" is no size; write it like 512, 64k or 10m", WB_SHOW(s));
}

struct fields {
    int64_t year, month, day, hour, minute, second;
};

/* Milliseconds since 1970-01-01 of a date of the proleptic Gregorian calendar;
 * Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms". */
static bool
fields_ms(const struct fields *f, int64_t *ms)
{
    static const int days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (f->year % 4 == 0 && f->year % 100 != 0) || f->year % 400 == 0;
    int64_t year = f->year - (f->month <= 2), era, yoe, doy, days_since;

    if (f->month < 1 || f->month > 12 || f->day < 1 ||
        f->day > days[f->month - 1] ||
        (f->month == 2 && f->day == 29 && !leap) || f->hour > 23 ||
        f->minute > 59 || f->second > 60)
        return false;
    era = (year >= 0 ? year : year - 399) / 400;
    yoe = year - era * 400;
    doy = (153 * (f->month + (f->month > 2 ? -3 : 9)) + 2) / 5 + f->day - 1;
    days_since = era * 146097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719468;
    *ms = ((days_since * 24 + f->hour) * 60 + f->minute) * 60000 +
          f->second * 1000;
    return true;
}

/* Match text against a pattern in which d stands for a digit of the next
 * number, and anything else for itself; numbers are separated by non-digits. */
static bool
match(struct wb_slice *s, const char *pattern, int64_t *numbers)
{
    bool in = false;

    for (; *pattern != '\0'; pattern++) {
        char c;

        if (s->len == 0)
            return false;
        c = s->ptr[0];
        if (*pattern != 'd') {
            if (c != *pattern)
                return false;
            numbers += in;
            in = false;
        } else {
            if (c < '0' || c > '9')
                return false;
            *numbers = (in ? *numbers * 10 : 0) + (c - '0');
            in = true;
        }
        *s = wb__from(*s, 1);
    }
    return true;
}

/* Take "." and at least one digit; 0 and nothing taken if that is not there. */
static int64_t
take_fraction_ms(struct wb_slice *s)
{
    int64_t ms = 0, unit = 100;

    if (s->len < 2 || s->ptr[0] != '.' || s->ptr[1] < '0' || s->ptr[1] > '9')
        return 0;
    *s = wb__from(*s, 1);
    while (s->len > 0 && s->ptr[0] >= '0' && s->ptr[0] <= '9') {
        ms += (s->ptr[0] - '0') * unit;
        unit /= 10;
        *s = wb__from(*s, 1);
    }
    return ms;
}

/* "Z" or "+02:00", to the end. */
static bool
take_offset_ms(struct wb_slice *s, int64_t *ms)
{
    int64_t n[2] = {0, 0}, sign;

    *ms = 0;
    if (s->len == 1)
        return s->ptr[0] == 'Z' || s->ptr[0] == 'z';
    if (s->len == 0 || (s->ptr[0] != '+' && s->ptr[0] != '-'))
        return false;
    sign = s->ptr[0] == '-' ? -1 : 1;
    *s = wb__from(*s, 1);
    if (!match(s, "dd:dd", n) || s->len > 0 || n[0] > 23 || n[1] > 59)
        return false;
    *ms = sign * (n[0] * 60 + n[1]) * 60000;
    return true;
}

static bool
parse_rfc3339(struct wb_slice s, int64_t *ms)
{
    int64_t n[6], fraction, offset;
    struct fields f;

    if (!match(&s, "dddd-dd-dd", n) || s.len == 0 ||
        memchr("Tt ", s.ptr[0], 3) == NULL)
        return false;
    s = wb__from(s, 1);
    if (!match(&s, "dd:dd:dd", n + 3))
        return false;
    fraction = take_fraction_ms(&s);
    f = (struct fields){n[0], n[1], n[2], n[3], n[4], n[5]};
    if (!take_offset_ms(&s, &offset) || !fields_ms(&f, ms))
        return false;
    *ms += fraction - offset;
    return true;
}

enum wb_status
wb__parse_time(
    struct wb_slice s, int64_t now_ms, int64_t *ms, struct wb_err *err)
{
    if (wb__eq(s, WB_LIT("now"))) {
        *ms = now_ms;
        return WB_OK;
    }
    if (parse_rfc3339(s, ms))
        return WB_OK;
    return wb__fail(err, WB_INVALID, 0,
        "\"%.*s\" is no time; write it like 2026-11-20T18:00:00Z, or now",
        WB_SHOW(s));
}

/* Take one of n names of three letters; gives its index, or -1. */
static int
take_name(struct wb_slice *s, const char *names, int n)
{
    for (int i = 0; i < n; i++) {
        if (wb__starts(*s, (struct wb_slice){names + 3 * i, 3})) {
            *s = wb__from(*s, 3);
            return i;
        }
    }
    return -1;
}

/* Of the three forms, by what stands behind the three letters of the day:
 *     Sun, 06 Nov 1994 08:49:37 GMT
 *     Sunday, 06-Nov-94 08:49:37 GMT
 *     Sun Nov  6 08:49:37 1994 */
static bool
match_http_date(struct wb_slice s, struct fields *f, bool *short_year)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static const char *const rest_of_days[] = {
        "day", "day", "sday", "nesday", "rsday", "day", "urday"};
    int64_t n[3];
    struct wb_slice after_month;
    int day = take_name(&s, "SunMonTueWedThuFriSat", 7), month;

    *short_year = false;
    if (day < 0)
        return false;
    if (match(&s, " ", n)) {
        month = take_name(&s, months, 12);
        after_month = s;
        if (!match(&s, " dd ", &f->day)) {
            s = after_month;
            if (!match(&s, "  d ", &f->day))
                return false;
        }
        if (!match(&s, "dd:dd:dd", n) || !match(&s, " dddd", &f->year))
            return false;
        s = s.len == 0 ? WB_LIT(" GMT") : s;
    } else {
        *short_year = wb__starts(s, wb_slice(rest_of_days[day]));
        if (*short_year)
            s = wb__from(s, strlen(rest_of_days[day]));
        if (!match(&s, *short_year ? ", dd-" : ", dd ", &f->day))
            return false;
        month = take_name(&s, months, 12);
        if (!match(&s, *short_year ? "-dd " : " dddd ", &f->year) ||
            !match(&s, "dd:dd:dd", n))
            return false;
    }
    f->month = month + 1;
    f->hour = n[0];
    f->minute = n[1];
    f->second = n[2];
    return month >= 0 && wb__eq(s, WB_LIT(" GMT"));
}

/* A year of two digits is the one less than 50 years from now. */
bool
wb__parse_http_date(struct wb_slice s, int64_t now_ms, int64_t *ms)
{
    const int64_t year_ms = INT64_C(31556952000);
    struct fields f;
    bool short_year;

    if (!match_http_date(s, &f, &short_year))
        return false;
    if (short_year)
        f.year += (1970 + now_ms / year_ms - f.year + 50) / 100 * 100;
    return fields_ms(&f, ms);
}

void
wb__format_time(int64_t ms, char out[32])
{
    time_t s = (time_t)(ms / 1000 - (ms % 1000 < 0));
    int64_t rest = (ms % 1000 + 1000) % 1000;
    struct tm tm;

    if (gmtime_r(&s, &tm) == NULL || tm.tm_year > 8099 || tm.tm_year < -1900) {
        (void)snprintf(out, 32, "%lldms", (long long)ms);
        return;
    }
    (void)snprintf(out, 32, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ",
        (tm.tm_year + 1900) % 10000, (tm.tm_mon + 1) % 100, tm.tm_mday % 100,
        tm.tm_hour % 100, tm.tm_min % 100, tm.tm_sec % 100, (int)rest);
}
