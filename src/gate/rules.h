/* rules.h - what the gateway reads from a request and writes anew. Pure. */
#ifndef WB_SRC_GATE_RULES_H
#define WB_SRC_GATE_RULES_H

#include "http/parser.h"
#include "waybill/idem.h"

enum wb__found {
    WB__FOUND_NONE,
    WB__FOUND_ONE,
    WB__FOUND_BAD
};

/* Up to 255 bytes. */
struct wb__name {
    char text[256];
    size_t len;
};

/* The key of Idempotency-Key: an RFC 8941 string or bare; both spellings of
 * one key are one. (G-1) */
enum wb__found wb__rule_read_key(struct wb_slice headers, struct wb__name *key);

/* Whose request it is: the value of the named header, or a hash of
 * Authorization where it is empty. BAD: given twice. (G-3) */
enum wb__found wb__rule_read_identity(
    struct wb_slice headers, struct wb_slice header, struct wb__name *identity);

/* May this header say whose a request is? Not one that frames the message, or
 * names its way. */
bool wb__rule_identity_header_ok(struct wb_slice header);

/* (G-4). OK or NOMEM. */
WB_MUST_USE enum wb_status wb__rule_fingerprint(
    const struct wb__http_head *head, struct wb_slice body,
    struct wb_fingerprint *out);

/* Is a final answer of this status stored? (G-6) */
bool wb__rule_is_stored(int status);
bool wb__rule_is_event_stream(struct wb_slice headers); /* text/event-stream */

/* The head of the request upstream, up to its empty line. length: of its body
 * where one is given; WB__LENGTH_UNKNOWN makes it chunked. (G-11, G-14) */
struct wb__rule_request {
    const struct wb__http_head *head;
    struct wb_slice identity_header;
    struct wb_slice authority; /* Host, where the client gave none */
    bool has_body;
    uint64_t length;
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
