/* rules.h - what the gateway reads from heads, and the heads it writes. Pure
 * functions. */
#ifndef WB_SRC_GATE_RULES_H
#define WB_SRC_GATE_RULES_H

#include "http/parser.h"
#include "waybill/idem.h"

enum wb__found {
    WB__FOUND_NONE,
    WB__FOUND_ONE,
    WB__FOUND_BAD
};

/* A key or an identity: up to 255 bytes. */
struct wb__name {
    char text[256];
    size_t len;
};

/* The value of Idempotency-Key, an RFC 8941 string or bare: both spellings of a
 * key are the same key. BAD: malformed, or given twice. (G-1) */
enum wb__found wb__rule_read_key(struct wb_slice headers, struct wb__name *key);

/* The client's identity: the value of the named header, or, if that name is
 * empty, a hash of Authorization. BAD: given twice. (G-3) */
enum wb__found wb__rule_read_identity(
    struct wb_slice headers, struct wb_slice header, struct wb__name *identity);

/* May this header hold an identity? Not one that frames the message, or that
 * proxies use. Empty: yes. */
bool wb__rule_identity_header_ok(struct wb_slice header);

/* Of method, path, query, Content-Type and body. OK or NOMEM. (G-4) */
WB_MUST_USE enum wb_status wb__rule_fingerprint(
    const struct wb__http_head *head, struct wb_slice body,
    struct wb_fingerprint *out);

/* Is a response of this status stored? (G-6) */
bool wb__rule_is_stored(int status);
bool wb__rule_is_event_stream(struct wb_slice headers); /* text/event-stream */

/* Append the head of the request upstream, with its empty line. (G-11, G-14) */
struct wb__rule_request {
    const struct wb__http_head *head;
    struct wb_slice identity_header;
    struct wb_slice authority; /* Host, where the client gave none */
    bool has_body;
    uint64_t length; /* of the body; WB__LENGTH_UNKNOWN: chunked */
};
void wb__rule_write_request(
    struct wb__buf *out, const struct wb__rule_request *r);

/* Append the end-to-end fields of a response as lines. REPLAY: as they are
 * stored, without Set-Cookie and Date. Space for one more line of ours is
 * reserved. (G-7) */
enum wb__field_use {
    WB__FORWARD,
    WB__REPLAY
};
void wb__rule_copy_fields(
    struct wb__buf *out, struct wb_slice headers, enum wb__field_use use);

#endif /* WB_SRC_GATE_RULES_H */
