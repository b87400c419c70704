/* response.h - an answer as bytes. */
#ifndef WB_SRC_HTTP_RESPONSE_H
#define WB_SRC_HTTP_RESPONSE_H

#include "http/server.h"

/* Append an answer. head: the request's, or NULL where there was none whole.
 * Fields that the server sets are left out of answer->headers. */
void wb__response_add(struct wb__buf *out, const struct wb__response *answer,
    const struct wb__http_head *head, bool keep_alive, int64_t now_ms);

/* Its head alone, for a body that follows. length: WB__LENGTH_UNKNOWN makes it
 * chunked, or up to the close of an HTTP/1.0 connection. */
void wb__response_add_head(struct wb__buf *out,
    const struct wb__response *answer, const struct wb__http_head *head,
    uint64_t length, bool keep_alive, int64_t now_ms);

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
void wb__http_date(int64_t wall_ms, char out[30]);

#endif /* WB_SRC_HTTP_RESPONSE_H */
