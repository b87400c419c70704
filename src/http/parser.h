/* parser.h - a strict parser of HTTP/1.0 and 1.1 messages.
 *
 *  1. Pure: no I/O. Any split of the input gives the same messages, the same
 *     body bytes and the same refusal.
 *  2. Memory: one buffer of at most limits.head_bytes a message. Pieces of a
 *     body are views into the caller's input.
 *  3. What could be read in two ways is refused, never repaired: bytes that
 *     were refused never begin another message. (rules G-11, S5)
 *  4. Trailers and chunk extensions are checked, counted as part of the head,
 *     and dropped. */
#ifndef WB_SRC_HTTP_PARSER_H
#define WB_SRC_HTTP_PARSER_H

#include "base/base.h"

enum wb__http_event {
    WB__HTTP_MORE,
    WB__HTTP_HEAD,
    WB__HTTP_BODY,
    WB__HTTP_DONE,
    WB__HTTP_BAD,
};

enum wb__http_mode {
    WB__HTTP_REQUESTS,
    WB__HTTP_RESPONSES
};

/* Zero means the default in brackets. */
struct wb__http_limits {
    size_t head_bytes;   /* start line and fields as received [16 KiB] */
    size_t fields;       /* [128] */
    uint64_t body_bytes; /* without framing [1 MiB] */
};

/* A head. Slices live in the parser until wb__http_parser_next(). */
struct wb__http_head {
    struct wb_slice method, target; /* of a request */
    struct wb_slice path, query;    /* target's, without scheme, host and `?` */
    struct wb_slice host;           /* empty only in HTTP/1.0 */
    int status;                     /* of a response */
    int minor;                      /* HTTP/1.minor, 0 or 1 */
    struct wb_slice headers;        /* lines for wb__headers_next() */
    bool has_length;                /* length was given */
    bool chunked;
    bool keep_alive; /* the connection outlives the message */
    bool expects;    /* the client waits for 100 Continue */
    uint64_t length; /* of the body, if given */
};

struct wb__http_parser {
    struct wb__http_head head; /* valid from HEAD on */
    int status;                /* of BAD: of the response to a request */
    const char *why;           /* of BAD: static, one clause */
    bool bodyless; /* set before a response to HEAD is fed: no body follows */

    /* private */
    enum wb__http_mode mode;
    struct wb__http_limits limits;
    int state;
    struct wb__buf text; /* start line, then fields, as lines */
    size_t raw_bytes;    /* of the head, extensions and trailers */
    size_t line;         /* where the unfinished line begins in text */
    size_t fields;       /* counted */
    size_t method_len, target_len;
    size_t host_at, host_len, hosts;
    unsigned lengths, codings; /* fields of that name */
    bool close, alive, coding_known, expect_known;
    int digits;          /* of a chunk size */
    uint64_t left;       /* of the body, or of a chunk */
    uint64_t body_bytes; /* so far */
};

void wb__http_parser_init(struct wb__http_parser *p, const struct wb_env *env,
    enum wb__http_mode mode, const struct wb__http_limits *limits);
void wb__http_parser_fini(struct wb__http_parser *p);

/*
 * Take bytes off the front of *in until there is an event:
 *
 * MORE   *in is used up.
 * HEAD   p->head is complete.
 * BODY   *piece is the next piece of the body, never empty, inside what *in
 *        was.
 * DONE   The message is complete, *in is what follows it; call
 *        wb__http_parser_next() before feeding again. What follows a 101
 *        response is not HTTP.
 * BAD    For ever. p->status and p->why say what is wrong.
 */
enum wb__http_event wb__http_parser_feed(
    struct wb__http_parser *p, struct wb_slice *in, struct wb_slice *piece);

/* The input ended. DONE: that completes the message (a response without a
 * length). MORE: no message has begun. BAD: the message is cut short. */
enum wb__http_event wb__http_parser_end(struct wb__http_parser *p);

/* After DONE: free the message, and be ready for the next. */
void wb__http_parser_next(struct wb__http_parser *p);

/* Has any byte of the message arrived? */
bool wb__http_parser_begun(const struct wb__http_parser *p);

/* ---- head.c: fields --------------------------------------------------- */

static inline bool
wb__http_is_one_of(struct wb_slice name, const struct wb_slice *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (wb__eq_nocase(name, list[i]))
            return true;
    return false;
}

/* Append "name: value" and the end of the line. */
void wb__http_add_field(struct wb__buf *out, struct wb_slice name,
    struct wb_slice value, const char *end);

/* ---- head.c: the lines of a head, for parser.c ------------------------- */

/* What may stand in a field value. */
static inline bool
wb__http_is_text(unsigned char c)
{
    return (c >= 0x20 && c != 0x7f) || c == '\t';
}

/* Set p->status and p->why. Always false, as the functions below are after it.
 */
bool wb__http_refuse(struct wb__http_parser *p, int status, const char *why);

/* A start line without its CR LF. Slices of the head are not set yet, since
 * p->text may still move. */
bool wb__http_request_line(struct wb__http_parser *p, struct wb_slice line);
bool wb__http_status_line(struct wb__http_parser *p, struct wb_slice line);

/* A well-formed field, both slices in p->text. */
bool wb__http_field(
    struct wb__http_parser *p, struct wb_slice name, struct wb_slice value);

/* All fields have come: fill p->head, and check what needs the whole head. */
bool wb__http_end_request_head(struct wb__http_parser *p);
bool wb__http_end_response_head(struct wb__http_parser *p);

#endif /* WB_SRC_HTTP_PARSER_H */
