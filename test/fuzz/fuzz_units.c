/* fuzz_units.c - texts that people and receivers write: durations, sizes,
 * times, dates, ids, header lines, errors. Nothing is read past its end, and
 * the value of an accepted text is right. */
#include <assert.h>
#include <stdlib.h>

#include "base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
try_times(struct wb_slice s)
{
    int64_t ms = 0, back = 0;
    char text[32];

    if (wb__parse_time(s, 7, &ms, NULL) == WB_OK) {
        wb__format_time(ms, text);
        if (strstr(text, "ms") == NULL) { /* a year of four digits */
            assert(wb__parse_time(wb_slice(text), 0, &back, NULL) == WB_OK);
            assert(back == ms);
        }
    }
    if (wb__parse_http_date(s, 0, &ms))
        assert(s.len == 29);
    if (s.len >= sizeof(ms)) {
        memcpy(&ms, s.ptr, sizeof(ms));
        wb__format_time(ms, text);
    }
}

static void
try_numbers(struct wb_slice s)
{
    int64_t v = -1;
    uint64_t u = 0;

    if (wb__parse_duration(s, &v, NULL) == WB_OK)
        assert(v >= 0);
    v = -1;
    if (wb__parse_size(s, &v, NULL) == WB_OK)
        assert(v >= 0);
    if (wb__parse_u64(s, 1000, &u))
        assert(u <= 1000);
}

static void
try_headers(struct wb_slice s)
{
    struct wb_slice rest = s, name, value;
    size_t len = 0;
    bool good = wb__headers_check(s, NULL) == WB_OK;

    while (wb__headers_next(&rest, &name, &value)) {
        len += name.len + value.len + 3;
        for (size_t i = 0; good && i < value.len; i++)
            assert(value.ptr[i] != '\r' && value.ptr[i] != '\0');
    }
    assert(!good || len == s.len);
}

static void
try_text(struct wb_slice s)
{
    char out[4 * 64 + 1];
    struct wb_id id, again;
    size_t n = wb__one_line(s, 64, out);

    assert(wb__printable((struct wb_slice){out, n}) && n == strlen(out));
    assert(!wb__printable(s) || wb__utf8_valid(s));
    if (wb__uuid_parse(s, &id)) {
        assert(wb__uuid_parse(wb_slice(id.text), &again));
        assert(strcmp(id.text, again.text) == 0);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* its own block, so that one byte past the end is seen */
    char *copy = malloc(size == 0 ? 1 : size);
    struct wb_slice s = {copy, size};

    if (copy == NULL)
        return 0;
    if (size > 0)
        memcpy(copy, data, size);
    try_times(s);
    try_numbers(s);
    try_headers(s);
    try_text(s);
    free(copy);
    return 0;
}
