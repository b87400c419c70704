/* head.h - the lines of a head and what they mean; part of the parser. The
 * functions return false after they have set p->status and p->why. */
#ifndef WB_SRC_HTTP_HEAD_H
#define WB_SRC_HTTP_HEAD_H

#include "http/parser.h"

/* What may stand in a field value. */
static inline bool
wb__http_is_text(unsigned char c)
{
    return (c >= 0x20 && c != 0x7f) || c == '\t';
}

/* Set them. Always false. */
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

#endif /* WB_SRC_HTTP_HEAD_H */
