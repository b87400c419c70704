/* chunked.h - the chunked transfer coding, and what both files of the parser
 * call a byte. */
#ifndef WB_SRC_HTTP_CHUNKED_H
#define WB_SRC_HTTP_CHUNKED_H

#include "base/base.h"

enum wb__http_event {
    WB__HTTP_MORE,
    WB__HTTP_HEAD,
    WB__HTTP_BODY,
    WB__HTTP_DONE,
    WB__HTTP_BAD,
};

/* What may stand in a field value. */
static inline bool
wb__http_is_text(unsigned char c)
{
    return (c >= 0x20 && c != 0x7f) || c == '\t';
}

/* Zero but for the limits: ready. */
struct wb__chunked {
    uint64_t max_body;   /* of all data together */
    size_t max_overhead; /* of extensions and trailers together */

    int state, digits;
    uint64_t size; /* of the chunk; then what is left of it */
    uint64_t body;
    size_t overhead;
    int status; /* of BAD */
    const char *why;
};

/* As wb__http_parser_feed(), but never HEAD. */
enum wb__http_event wb__chunked_feed(
    struct wb__chunked *c, struct wb_slice *in, struct wb_slice *piece);

#endif /* WB_SRC_HTTP_CHUNKED_H */
