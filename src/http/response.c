/* response.c - status line and fields of a response. */
#include <stdio.h>
#include <time.h>

#include "http/connection.h"

/* "Sun, 06 Nov 1994 08:49:37 GMT". strftime() would use the locale. */
static void
format_date(int64_t wall_ms, char out[30])
{
    static const char day[][4] = {
        "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char month[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
        "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t t = (time_t)(wall_ms / 1000);
    struct tm tm = {0};

    (void)gmtime_r(&t, &tm);
    (void)snprintf(out, 30, "%s, %02u %s %04u %02u:%02u:%02u GMT",
        day[tm.tm_wday], (unsigned)tm.tm_mday % 32, month[tm.tm_mon],
        ((unsigned)tm.tm_year + 1900) % 10000, (unsigned)tm.tm_hour % 24,
        (unsigned)tm.tm_min % 60, (unsigned)tm.tm_sec % 61);
}

static bool
is_set_by_server(struct wb_slice name)
{
    static const struct wb_slice names[] = {{"Content-Length", 14},
        {"Transfer-Encoding", 17}, {"Connection", 10}, {"Keep-Alive", 10},
        {"Date", 4}};

    for (size_t i = 0; i < WB_COUNT(names); i++)
        if (wb__eq_nocase(name, names[i]))
            return true;
    return false;
}

static void
add_field(struct wb__buf *out, struct wb_slice name, struct wb_slice value)
{
    wb__buf_add(out, name);
    wb__buf_str(out, ": ");
    wb__buf_add(out, value);
    wb__buf_str(out, "\r\n");
}

static void
add_connection(
    struct wb__buf *out, const struct wb__http_head *request, bool keep_alive)
{
    if (!keep_alive)
        wb__buf_str(out, "Connection: close\r\n");
    else if (request != NULL && request->minor == 0)
        wb__buf_str(out, "Connection: keep-alive\r\n");
}

static void
add_length(struct wb__buf *out, int status, const struct wb__http_head *request,
    uint64_t length)
{
    if (status == 204)
        return;
    if (length != WB__LENGTH_UNKNOWN) {
        wb__buf_str(out, "Content-Length: ");
        wb__buf_u64(out, length);
        wb__buf_str(out, "\r\n");
    } else if (status != 304 && request != NULL && request->minor == 1) {
        wb__buf_str(out, "Transfer-Encoding: chunked\r\n");
    }
}

void
wb__response_add_head(struct wb__buf *out, const struct wb__response *response,
    const struct wb__http_head *request, uint64_t length, bool keep_alive,
    int64_t now_ms)
{
    struct wb_slice rest = response->headers, name, value;
    const char *reason = wb__http_reason(response->status);
    char date[30];

    wb__buf_reserve(out, response->headers.len + 200);
    wb__buf_str(out, "HTTP/1.1 ");
    wb__buf_u64(out, (uint64_t)response->status);
    wb__buf_str(out, " ");
    wb__buf_str(out, reason[0] == '\0' ? "Other" : reason);
    wb__buf_str(out, "\r\n");
    if (!response->undated) {
        format_date(now_ms, date);
        wb__buf_fmt(out, "Date: %s\r\n", date);
    }
    while (wb__headers_next(&rest, &name, &value))
        if (!is_set_by_server(name) ||
            (response->undated && wb__eq_nocase(name, WB_LIT("Date"))))
            add_field(out, name, value);
    add_length(out, response->status, request, length);
    add_connection(out, request, keep_alive);
    wb__buf_str(out, "\r\n");
}
