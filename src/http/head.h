/* head.h - the lines of a head and what they mean. For parser.c alone. Each
 * hands back false after it has set p->status and p->why. */
#ifndef WB_SRC_HTTP_HEAD_H
#define WB_SRC_HTTP_HEAD_H

#include "http/parser.h"

bool wb__http_refuse(struct wb__http_parser *p, int status, const char *why);

/* A start line without its CR LF. Slices of the head are not set yet: the
 * text may still move. */
bool wb__http_request_line(struct wb__http_parser *p, struct wb_slice line);
bool wb__http_status_line(struct wb__http_parser *p, struct wb_slice line);

/* A field whose form is right, lying in p->text. */
bool wb__http_field(
    struct wb__http_parser *p, struct wb_slice name, struct wb_slice value);

/* The head is over: fill p->head and hold it to the rules that need all of
 * it. */
bool wb__http_settle_request(struct wb__http_parser *p);
bool wb__http_settle_response(struct wb__http_parser *p);

#endif /* WB_SRC_HTTP_HEAD_H */
