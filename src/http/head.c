/* head.c - heads: what the lines of a received one mean, and the rules for all
 * of it; how the head of a response is written. */
#include <stdio.h>
#include <time.h>

#include "http/connection.h"

bool
wb__http_refuse(struct wb__http_parser *p, int status, const char *why)
{
    p->status = status;
    p->why = why;
    return false;
}

static bool
all(struct wb_slice s, bool (*is)(unsigned char c))
{
    for (size_t i = 0; i < s.len; i++)
        if (!is((unsigned char)s.ptr[i]))
            return false;
    return true;
}

static bool
is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

/* ---- start lines ------------------------------------------------------- */

static bool
take_version(struct wb__http_parser *p, struct wb_slice s)
{
    if (s.len != 8 || !wb__starts(s, WB_LIT("HTTP/")) || s.ptr[6] != '.' ||
        !is_digit((unsigned char)s.ptr[5]) ||
        !is_digit((unsigned char)s.ptr[7]))
        return wb__http_refuse(p, 400, "the version is malformed");
    if (s.ptr[5] != '1' || s.ptr[7] > '1')
        return wb__http_refuse(p, 505, "only HTTP/1.0 and 1.1 are spoken");
    p->head.minor = s.ptr[7] - '0';
    return true;
}

/* ASCII without a fragment. */
static bool
is_target(unsigned char c)
{
    return c > 0x20 && c < 0x7f && c != '#';
}

bool
wb__http_request_line(struct wb__http_parser *p, struct wb_slice line)
{
    struct wb_slice rest = line, method, target;

    if (!wb__cut(&rest, ' ', &method) || !wb__cut(&rest, ' ', &target) ||
        method.len == 0 || target.len == 0)
        return wb__http_refuse(
            p, 400, "the request line is not METHOD TARGET VERSION");
    if (!all(method, wb__is_tchar))
        return wb__http_refuse(p, 400, "the method is not a token");
    if (!all(target, is_target))
        return wb__http_refuse(
            p, 400, "the target has a character that must be escaped");
    p->method_len = method.len;
    p->target_len = target.len;
    return take_version(p, rest);
}

bool
wb__http_status_line(struct wb__http_parser *p, struct wb_slice line)
{
    struct wb_slice rest = line, version, code;
    uint64_t status;

    if (!wb__cut(&rest, ' ', &version) || !wb__cut(&rest, ' ', &code) ||
        code.len != 3 || !wb__parse_u64(code, 599, &status) || status < 100)
        return wb__http_refuse(
            p, 400, "the status line is not VERSION STATUS REASON");
    p->head.status = (int)status;
    return take_version(p, version);
}

/* ---- fields ------------------------------------------------------------ */

static bool
take_length(struct wb__http_parser *p, struct wb_slice value)
{
    if (++p->lengths > 1)
        return wb__http_refuse(p, 400, "Content-Length is given twice");
    if (!wb__parse_u64(value, INT64_MAX, &p->head.length))
        return wb__http_refuse(
            p, 400, "Content-Length is not digits, or too large to be real");
    return true;
}

static bool
take_coding(struct wb__http_parser *p, struct wb_slice value)
{
    p->codings++;
    p->coding_known = wb__eq_nocase(value, WB_LIT("chunked"));
    return true;
}

static bool
take_connection(struct wb__http_parser *p, struct wb_slice value)
{
    struct wb_slice option;

    while (wb__cut(&value, ',', &option)) {
        option = wb__trim(option);
        p->close |= wb__eq_nocase(option, WB_LIT("close"));
        p->alive |= wb__eq_nocase(option, WB_LIT("keep-alive"));
    }
    return true;
}

static bool
take_host(struct wb__http_parser *p, struct wb_slice value)
{
    if (++p->hosts > 1 && p->mode == WB__HTTP_REQUESTS)
        return wb__http_refuse(p, 400, "Host is given twice");
    p->host_at = value.len == 0 ? 0 : (size_t)(value.ptr - p->text.ptr);
    p->host_len = value.len;
    return true;
}

static bool
take_expect(struct wb__http_parser *p, struct wb_slice value)
{
    bool known = wb__eq_nocase(value, WB_LIT("100-continue"));

    p->expect_known = known && (p->expect_known || !p->head.expects);
    p->head.expects = true;
    return true;
}

bool
wb__http_field(
    struct wb__http_parser *p, struct wb_slice name, struct wb_slice value)
{
    static const struct {
        struct wb_slice name;
        bool (*take)(struct wb__http_parser *p, struct wb_slice value);
    } known[] = {
        {{"Content-Length", 14}, take_length},
        {{"Transfer-Encoding", 17}, take_coding},
        {{"Connection", 10}, take_connection},
        {{"Host", 4}, take_host},
        {{"Expect", 6}, take_expect},
    };

    for (size_t i = 0; i < WB_COUNT(known); i++)
        if (wb__eq_nocase(name, known[i].name))
            return known[i].take(p, value);
    return true;
}

/* ---- host and target --------------------------------------------------- */

static bool
is_host(unsigned char c)
{
    return wb__is_tchar(c) ? c != '#' && c != '^' && c != '`' && c != '|'
                           : c == '(' || c == ')' || c == ';' || c == '=';
}

static bool
is_v6(unsigned char c)
{
    return is_digit(c) || c == ':' || c == '.' ||
           ((c | 0x20) >= 'a' && (c | 0x20) <= 'f');
}

/* host [":" port] without a user; one host only. */
static bool
host_ok(struct wb_slice s)
{
    struct wb_slice rest = s, name;
    uint64_t port;

    if (s.len > 0 && s.ptr[0] == '[') {
        rest = wb__from(s, 1);
        if (!wb__cut(&rest, ']', &name) || !all(name, is_v6) ||
            (rest.len > 0 && rest.ptr[0] != ':') ||
            s.ptr[s.len - rest.len - 1] != ']')
            return false;
        rest = wb__from(rest, rest.len > 0);
    } else if (!wb__cut(&rest, ':', &name) || !all(name, is_host)) {
        return false;
    }
    return name.len > 0 &&
           (rest.len == 0 || wb__parse_u64(rest, UINT16_MAX, &port));
}

/* Cut scheme:// off; false if the target has none that is known. */
static bool
cut_scheme(struct wb_slice *target)
{
    static const struct wb_slice scheme[] = {{"http://", 7}, {"https://", 8}};

    for (size_t i = 0; i < WB_COUNT(scheme); i++) {
        struct wb_slice s = {target->ptr, scheme[i].len};

        if (target->len >= s.len && wb__eq_nocase(s, scheme[i])) {
            *target = wb__from(*target, s.len);
            return true;
        }
    }
    return false;
}

/* A target that names a host must name the one of the Host field: otherwise two
 * servers could disagree on which of them counts. */
static bool
take_authority(struct wb__http_parser *p, struct wb_slice *target)
{
    struct wb_slice host = {target->ptr, 0};

    while (host.len < target->len && target->ptr[host.len] != '/' &&
           target->ptr[host.len] != '?')
        host.len++;
    *target = wb__from(*target, host.len);
    if (p->hosts == 0)
        p->head.host = host;
    return host_ok(host) && wb__eq_nocase(host, p->head.host);
}

static bool
check_target(struct wb__http_parser *p)
{
    struct wb__http_head *head = &p->head;
    struct wb_slice target = head->target;

    if (wb__eq(head->method, WB_LIT("CONNECT")))
        return wb__http_refuse(p, 501, "CONNECT is not served");
    if (wb__eq(target, WB_LIT("*")) &&
        wb__eq(head->method, WB_LIT("OPTIONS"))) {
        head->path = target;
        return true;
    }
    if (cut_scheme(&target)) {
        if (!take_authority(p, &target))
            return wb__http_refuse(
                p, 400, "the target's host is not the Host field's");
    } else if (target.ptr[0] != '/') {
        return wb__http_refuse(p, 400, "the target is not a path");
    }
    if (target.len == 0 || target.ptr[0] == '?') {
        head->path = WB_LIT("/");
        head->query = wb__from(target, target.len > 0);
    } else {
        (void)wb__cut(&target, '?', &head->path);
        head->query = target;
    }
    return true;
}

/* ---- the whole head ---------------------------------------------------- */

static void
fill_head(struct wb__http_parser *p)
{
    struct wb__http_head *head = &p->head;
    struct wb_slice rest = wb__buf_slice(&p->text), start = {NULL, 0};

    (void)wb__cut(&rest, '\n', &start);
    head->headers = rest;
    head->method = (struct wb_slice){start.ptr, p->method_len};
    head->target =
        (struct wb_slice){start.ptr + p->method_len + 1, p->target_len};
    if (p->host_len > 0)
        head->host = (struct wb_slice){p->text.ptr + p->host_at, p->host_len};
    head->keep_alive = !p->close && (head->minor == 1 || p->alive);
    head->has_length = p->lengths > 0;
    head->chunked = p->codings > 0;
}

/* Rules about lengths that requests and responses share. */
static bool
check_framing(struct wb__http_parser *p)
{
    if (p->codings > 0 && p->head.minor == 0)
        return wb__http_refuse(p, 400, "Transfer-Encoding in HTTP/1.0");
    if (p->codings > 0 && p->lengths > 0)
        return wb__http_refuse(
            p, 400, "both Content-Length and Transfer-Encoding");
    if (p->codings > 1 || (p->codings == 1 && !p->coding_known))
        return wb__http_refuse(
            p, 501, "a Transfer-Encoding other than one chunked");
    if (p->head.length > p->limits.body_bytes && !p->bodyless)
        return wb__http_refuse(p, 413, "the body is larger than the limit");
    return true;
}

bool
wb__http_end_request_head(struct wb__http_parser *p)
{
    fill_head(p);
    if (p->hosts == 0 && p->head.minor == 1)
        return wb__http_refuse(p, 400, "no Host");
    if (p->hosts > 0 && !host_ok(p->head.host))
        return wb__http_refuse(p, 400, "Host is malformed");
    if (!check_target(p) || !check_framing(p))
        return false;
    if (p->head.minor == 0)
        p->head.expects = false;
    if (p->head.expects && !p->expect_known)
        return wb__http_refuse(p, 417, "an Expect other than 100-continue");
    return true;
}

bool
wb__http_end_response_head(struct wb__http_parser *p)
{
    int status = p->head.status;
    bool framed;

    fill_head(p);
    p->head.method = p->head.target = (struct wb_slice){NULL, 0};
    p->head.expects = false;
    p->bodyless |= status < 200 || status == 204 || status == 304;
    if (!check_framing(p))
        return false;
    framed = p->bodyless || p->head.chunked || p->head.has_length;
    p->head.keep_alive &= framed && status != 101;
    /* These have no body, whatever they say, but one may have been sent. */
    if ((status < 200 || status == 204) &&
        (p->head.chunked || p->head.length > 0))
        p->head.keep_alive = false;
    return true;
}

/* ---- the head of a response -------------------------------------------- */

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

void
wb__http_add_field(struct wb__buf *out, struct wb_slice name,
    struct wb_slice value, const char *end)
{
    wb__buf_add(out, name);
    wb__buf_str(out, ": ");
    wb__buf_add(out, value);
    wb__buf_str(out, end);
}

void
wb__response_add_head(struct wb__buf *out, const struct wb__response *response,
    const struct wb__http_head *request, uint64_t length, bool keep_alive)
{
    static const struct wb_slice own[] = {{"Content-Length", 14},
        {"Transfer-Encoding", 17}, {"Connection", 10}, {"Keep-Alive", 10},
        {"Date", 4}};
    struct wb_slice rest = response->headers, name, value;
    int status = response->status,
        minor = request == NULL ? -1 : request->minor;
    const char *reason = wb__http_reason(status);
    char date[30];

    out->max = response->headers.len * 2 + 1024;
    wb__buf_reserve(out, response->headers.len + 200);
    wb__buf_str(out, "HTTP/1.1 ");
    wb__buf_u64(out, (uint64_t)status);
    wb__buf_str(out, " ");
    wb__buf_str(out, reason[0] == '\0' ? "Other" : reason);
    wb__buf_str(out, "\r\n");
    if (!response->undated) {
        format_date(out->env->wall_ms(out->env->ctx), date);
        wb__buf_fmt(out, "Date: %s\r\n", date);
    }
    while (wb__headers_next(&rest, &name, &value))
        if (!wb__http_is_one_of(name, own, WB_COUNT(own)) ||
            (response->undated && wb__eq_nocase(name, WB_LIT("Date"))))
            wb__http_add_field(out, name, value, "\r\n");
    if (length != WB__LENGTH_UNKNOWN && status != 204) {
        wb__buf_str(out, "Content-Length: ");
        wb__buf_u64(out, length);
        wb__buf_str(out, "\r\n");
    } else if (status != 204 && status != 304 && minor == 1) {
        wb__buf_str(out, "Transfer-Encoding: chunked\r\n");
    }
    if (!keep_alive)
        wb__buf_str(out, "Connection: close\r\n");
    else if (minor == 0)
        wb__buf_str(out, "Connection: keep-alive\r\n");
    wb__buf_str(out, "\r\n");
}
