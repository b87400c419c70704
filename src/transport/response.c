/* response.c - what was received: status, reason, Retry-After, the body up to a
 * limit, and the error text made of them.
 *
 * (1) What is kept and what is read of a header is bounded, whatever the
 *     receiver sends (S4).
 * (2) Every text is one line of valid UTF-8 without control characters (S10).
 */
#include <stdio.h>

#include "transport/http.h"

enum {
    BODY_KEEP = 16384,
    MASK_LEAST = 4
};

enum wb_outcome
wb_http_outcome(int status)
{
    if (status >= 200 && status < 300)
        return WB_DELIVERED;
    if (status == 408 || status == 425 || status == 429 ||
        (status >= 500 && status < 600))
        return WB_RETRY;
    return WB_REJECTED;
}

void
wb__received_next_hop(struct wb__received *r)
{
    wb__buf_clear(&r->body);
    r->status = 0;
    wb__buf_clear(&r->location);
    r->in_header = r->final = r->cut = r->coded = r->json = r->closes = false;
    r->reason[0] = r->retry_after[0] = '\0';
}

void
wb__received_clear(struct wb__received *r)
{
    if (r->body.cap > BODY_KEEP)
        wb__buf_fini(&r->body);
    wb__received_next_hop(r);
    r->header_bytes = r->header_lines = r->interims = 0;
    r->error = NULL;
}

static bool
stop_reading(struct wb__received *r, const char *error)
{
    r->error = error;
    return false;
}

/* application/json, application/problem+json, text/json */
static bool
ends_in_json(struct wb_slice type)
{
    return type.len > 5 &&
           (type.ptr[type.len - 5] == '/' || type.ptr[type.len - 5] == '+') &&
           wb__eq_nocase(wb__from(type, type.len - 4), WB_LIT("json"));
}

static void
read_field(struct wb__received *r, struct wb_slice name, struct wb_slice value)
{
    struct wb_slice type = {0};

    if (wb__eq_nocase(name, WB_LIT("Retry-After"))) {
        if (value.len >= sizeof(r->retry_after))
            value.len = sizeof(r->retry_after) - 1;
        (void)snprintf(r->retry_after, sizeof(r->retry_after), "%.*s",
            (int)value.len, value.ptr);
    } else if (wb__eq_nocase(name, WB_LIT("Content-Encoding"))) {
        r->coded |= value.len > 0 && !wb__eq_nocase(value, WB_LIT("identity"));
    } else if (wb__eq_nocase(name, WB_LIT("Content-Type"))) {
        (void)wb__cut(&value, ';', &type);
        type = wb__trim(type);
        r->json = ends_in_json(type);
    } else if (wb__eq_nocase(name, WB_LIT("Connection"))) {
        r->closes |= wb__eq_nocase(value, WB_LIT("close"));
    } else if (wb__eq_nocase(name, WB_LIT("Location"))) {
        wb__buf_clear(&r->location);
        if (value.len <= WB__URL_MAX)
            wb__buf_add(&r->location, value);
    }
}

bool
wb__received_line(struct wb__received *r, struct wb_slice line)
{
    struct wb_slice word, code = {NULL, 0};
    uint64_t status = 0;

    r->header_bytes += line.len;
    if (r->header_bytes > WB__RECEIVED_HEADER_BYTES ||
        ++r->header_lines > WB__RECEIVED_HEADER_LINES)
        return stop_reading(r, "the header of the reply does not end");
    line = wb__trim(line);
    if (r->final)
        return true; /* a trailer */
    if (line.len == 0) {
        /* The end of an interim response (1xx) or of the final header. */
        r->in_header = false;
        r->final = r->status >= 200;
        return r->final || ++r->interims <= WB__RECEIVED_INTERIMS ||
               stop_reading(r, "interim replies without end");
    }
    if (!r->in_header) {
        /* "HTTP/1.1 401 Unauthorized"; libcurl has checked its form. */
        wb__received_next_hop(r);
        if (wb__cut(&line, ' ', &word) && wb__cut(&line, ' ', &code) &&
            wb__parse_u64(code, 999, &status))
            r->status = (int)status;
        (void)wb__one_line(line, sizeof(r->reason) / 4, r->reason);
        r->in_header = true;
    } else if (wb__cut(&line, ':', &word)) {
        read_field(r, word, wb__trim(line));
    }
    return true;
}

bool
wb__received_body(struct wb__received *r, struct wb_slice piece)
{
    size_t left = r->body.max - r->body.len;

    r->cut = piece.len > left;
    wb__buf_add(
        &r->body, (struct wb_slice){piece.ptr, r->cut ? left : piece.len});
    return !r->cut && r->body.failed == WB_OK;
}

int64_t
wb__received_retry_after_ms(const struct wb__received *r, int64_t now_ms)
{
    struct wb_slice text = wb_slice(r->retry_after), whole = text;
    uint64_t seconds;
    int64_t at_ms;
    size_t fraction;

    whole.len = strspn(r->retry_after, "0123456789");
    if (whole.len > 0 &&
        strspn(text.ptr + whole.len, ".0123456789") + whole.len == text.len) {
        if (!wb__parse_u64(whole, INT64_MAX / 1000 - 1, &seconds))
            return INT64_MAX;
        fraction = strcspn(text.ptr + whole.len, "123456789");
        return (int64_t)(seconds + (whole.len + fraction < text.len)) * 1000;
    }
    if (wb__parse_http_date(text, now_ms, &at_ms) && at_ms > now_ms)
        return wb__sat_add(at_ms, -now_ms);
    return 0;
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Length of &amp;, &#47; or &#x2f; of HTML at text, and what it stands for; 0:
 * there is none. */
static size_t
decode_entity(const char *text, size_t len, char *c)
{
    static const struct {
        const char *name;
        char c;
    } names[] = {
        {"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}};
    const char *end = memchr(text, ';', len < 10 ? len : 10);
    struct wb_slice name;
    uint64_t code = 0;

    if (len == 0 || text[0] != '&' || end == NULL)
        return 0;
    name = (struct wb_slice){text + 1, (size_t)(end - text) - 1};
    for (size_t i = 0; i < WB_COUNT(names); i++)
        if (wb__eq(name, wb_slice(names[i].name)))
            code = (unsigned char)names[i].c;
    if (wb__starts(name, WB_LIT("#x")) || wb__starts(name, WB_LIT("#X"))) {
        for (size_t i = 2; i < name.len; i++)
            code = hex_digit(name.ptr[i]) < 0
                       ? 256
                       : code << 4 | (unsigned)hex_digit(name.ptr[i]);
    } else if (wb__starts(name, WB_LIT("#")) &&
               !wb__parse_u64(wb__from(name, 1), 255, &code)) {
        return 0;
    }
    *c = (char)code;
    return code > 0 && code < 256 ? (size_t)(end - text) + 1 : 0;
}

/* Length of the character at text, and what it stands for: %2F of a URL, \/ and
 * \u002f of JSON, &quot; of HTML, or itself. */
static size_t
decode_char(const char *text, size_t len, char *c)
{
    size_t at = len >= 3 && text[0] == '%'                  ? 1
                : len >= 6 && memcmp(text, "\\u00", 4) == 0 ? 4
                                                            : 0;
    size_t entity = decode_entity(text, len, c);

    if (entity > 0)
        return entity;
    *c = text[0];
    if (at > 0 && hex_digit(text[at]) >= 0 && hex_digit(text[at + 1]) >= 0) {
        *c = (char)(hex_digit(text[at]) << 4 | hex_digit(text[at + 1]));
        return at + 2;
    }
    if (len >= 2 && text[0] == '\\' && strchr("/\"\\", text[1]) != NULL) {
        *c = text[1];
        return 2;
    }
    return 1;
}

/* Length of the secret, however it is encoded, at the beginning of text; 0: it
 * is not there. It may be cut off by the end of text. */
static size_t
secret_len(const char *text, size_t len, struct wb_slice secret)
{
    size_t at = 0, s = 0;
    char c, want;

    while (at < len && s < secret.len) {
        at += decode_char(text + at, len - at, &c);
        s += decode_char(secret.ptr + s, secret.len - s, &want);
        if (c != want)
            return 0;
    }
    return s == secret.len || at >= MASK_LEAST ? at : 0;
}

void
wb__mask(char *text, size_t len, struct wb_slice secret)
{
    WB_ASSERT(secret.len >= MASK_LEAST);
    for (size_t i = 0; i < len; i++) {
        size_t n = secret_len(text + i, len - i, secret);

        if (n > 0)
            memset(text + i, '*', n);
    }
}

void
wb__received_mask(struct wb__received *r, struct wb_slice secret)
{
    if (r->body.len > 0)
        wb__mask(r->body.ptr, r->body.len, secret);
    wb__mask(r->reason, strlen(r->reason), secret);
}

struct wb_slice
wb__reply_text(const struct wb_result *reply)
{
    return wb__starts(reply->body, WB_LIT("\xef\xbb\xbf"))
               ? wb__from(reply->body, 3)
               : reply->body;
}

const char *
wb__reply_problem(const struct wb_result *reply)
{
    struct wb_slice text = wb__trim(wb__reply_text(reply));

    if (text.len == 0)
        return NULL;
    if (reply->coded)
        return "the reply has a Content-Encoding that was not asked for";
    if (reply->json || text.ptr[0] == '[' || text.ptr[0] == '{')
        return reply->cut ? "the reply was cut; more is kept with a larger "
                            "max_reply"
                          : "the reply is not valid JSON";
    if (memchr(text.ptr, '\0', text.len) != NULL)
        return "the reply is not UTF-8";
    return NULL;
}

size_t
wb__received_error(
    const struct wb__received *r, char out[WB__RECEIVED_ERROR_SIZE])
{
    /* HTTP/2's status line has no reason phrase. */
    const char *reason =
        r->reason[0] != '\0' ? r->reason : wb__http_reason(r->status);
    size_t body;
    int n = snprintf(out, WB__RECEIVED_ERROR_SIZE, "%d%s%s", r->status,
        reason[0] == '\0' ? "" : " ", reason);

    WB_ASSERT(n > 0 && n < 280);
    body = wb__one_line(
        wb__buf_slice(&r->body), WB__RECEIVED_BODY_CHARS, out + n + 2);
    if (body == 0) {
        out[n] = '\0';
        return (size_t)n;
    }
    memcpy(out + n, ": ", 2);
    return (size_t)n + 2 + body;
}
