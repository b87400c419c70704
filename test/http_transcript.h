/* http_transcript.h - what a parser makes of bytes, as text, so that two ways
 * of feeding them can be compared. Header only: tests and fuzz targets. */
#ifndef WB_TEST_HTTP_TRANSCRIPT_H
#define WB_TEST_HTTP_TRANSCRIPT_H

#include "http/parser.h"

struct transcript {
    struct wb__http_parser parser;
    struct wb__buf text;
    int messages; /* complete */
    int status;   /* of the refusal, or 0 */
    bool open;    /* a message has begun and not ended */
};

static inline void
transcript_init(struct transcript *t, const struct wb_env *env,
    enum wb__http_mode mode, const struct wb__http_limits *limits)
{
    *t = (struct transcript){.text = {.env = env, .max = 64 << 20}};
    wb__http_parser_init(&t->parser, env, mode, limits);
}

static inline void
transcript_fini(struct transcript *t)
{
    wb__http_parser_fini(&t->parser);
    wb__buf_fini(&t->text);
}

static inline void
transcript_slice(struct transcript *t, const char *name, struct wb_slice s)
{
    wb__buf_fmt(&t->text, "%s[%zu] ", name, s.len);
    wb__buf_add(&t->text, s);
    wb__buf_str(&t->text, "\n");
}

static inline void
transcript_head(struct transcript *t)
{
    const struct wb__http_head *h = &t->parser.head;

    /* Every line may be sent on as it is (S3). */
    WB_ASSERT(wb__headers_check(h->headers, NULL) == WB_OK);
    WB_ASSERT(t->parser.mode == WB__HTTP_RESPONSES ||
              (h->method.len > 0 && h->path.len > 0 &&
                  (h->host.len > 0 || h->minor == 0)));
    wb__buf_fmt(&t->text, "head 1.%d %d %c%c%c%c %llu\n", h->minor, h->status,
        h->has_length ? 'L' : '-', h->chunked ? 'C' : '-',
        h->keep_alive ? 'K' : '-', h->expects ? 'E' : '-',
        (unsigned long long)h->length);
    transcript_slice(t, "method", h->method);
    transcript_slice(t, "target", h->target);
    transcript_slice(t, "path", h->path);
    transcript_slice(t, "query", h->query);
    transcript_slice(t, "host", h->host);
    transcript_slice(t, "headers", h->headers);
}

/* Feed one piece of the input. */
static inline void
transcript_feed(struct transcript *t, struct wb_slice in)
{
    struct wb_slice piece = {NULL, 0};

    while (t->status == 0) {
        switch (wb__http_parser_feed(&t->parser, &in, &piece)) {
        case WB__HTTP_MORE:
            t->open = wb__http_parser_begun(&t->parser);
            WB_ASSERT(in.len == 0);
            return;
        case WB__HTTP_HEAD:
            transcript_head(t);
            break;
        case WB__HTTP_BODY:
            WB_ASSERT(piece.len > 0);
            wb__buf_add(&t->text, piece);
            break;
        case WB__HTTP_DONE:
            wb__buf_str(&t->text, "\ndone\n");
            t->messages++;
            wb__http_parser_next(&t->parser);
            break;
        case WB__HTTP_BAD:
            t->status = t->parser.status;
            wb__buf_fmt(&t->text, "\nbad %d %s\n", t->status, t->parser.why);
            break;
        }
    }
}

/* In pieces of `step` bytes, the first one of `first`. */
static inline void
transcript_feed_split(
    struct transcript *t, struct wb_slice in, size_t first, size_t step)
{
    size_t n = first < in.len ? first : in.len;

    transcript_feed(t, (struct wb_slice){in.ptr, n});
    for (in = wb__from(in, n); in.len > 0; in = wb__from(in, n)) {
        n = step < in.len ? step : in.len;
        transcript_feed(t, (struct wb_slice){in.ptr, n});
    }
}

#endif /* WB_TEST_HTTP_TRANSCRIPT_H */
