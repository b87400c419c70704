/* error_response.c - the responses that the gateway makes itself: problem
 * documents of RFC 9457. Their types say that they are not from upstream.
 * (G-5) */
#include "gate/gate_internal.h"

#include <stdio.h>

static const struct error {
    int status;
    const char *type, *detail, *headers;
} errors[] = {
    [WB__GATE_BAD_KEY] = {400, "bad-key",
        "send one Idempotency-Key of 1 to 255 printable characters, and one "
        "identity",
        ""},
    [WB__GATE_KEY_REQUIRED] = {400, "key-required",
        "an Idempotency-Key is required here", ""},
    [WB__GATE_ANONYMOUS] = {401, "bad-key",
        "a key needs an identity: send credentials",
        "WWW-Authenticate: Bearer\n"},
    [WB__GATE_IN_FLIGHT] = {409, "in-flight",
        "another request with this key is under way; try again later",
        "Retry-After: 1\n"},
    [WB__GATE_MISMATCH] = {422, "mismatch",
        "this key was used for another request", ""},
    [WB__GATE_KEY_HELD] = {409, "outcome-unknown",
        "an earlier request with this key may have taken effect; its outcome "
        "is unknown until an operator settles it",
        ""},
    [WB__GATE_OUTCOME_UNKNOWN] = {504, "outcome-unknown",
        "the upstream server received the request but did not respond "
        "completely; the request may have taken effect",
        ""},
    [WB__GATE_OUTCOME_UNKNOWN_SWITCHED] = {502, "outcome-unknown",
        "the upstream server switched protocols; the request may have taken "
        "effect",
        ""},
    [WB__GATE_TOO_LARGE] = {413, "too-large",
        "the body of a request with a key must be smaller", ""},
    [WB__GATE_URI_TOO_LONG] = {414, "too-large",
        "the path of a request with a key must be shorter", ""},
    [WB__GATE_STORE_UNAVAILABLE] = {503, "store-unavailable",
        "the store of keys is unavailable; the outcome of a request that is "
        "under way is unknown",
        "Retry-After: 1\n"},
    [WB__GATE_UPSTREAM_UNREACHABLE] = {502, "upstream-unreachable",
        "the upstream server could not be reached; nothing was sent", ""},
    [WB__GATE_UPSTREAM_FAILED] = {504, "upstream-failed",
        "the upstream server received the request but did not respond "
        "completely",
        ""},
    [WB__GATE_UPSTREAM_SWITCHED] = {502, "upstream-failed",
        "the upstream server switched protocols", ""},
    [WB__GATE_OUT_OF_MEMORY] = {503, "too-busy",
        "out of memory; try again later", "Retry-After: 1\n"},
};

void
wb__gate_respond_error(struct wb__exchange *exchange, enum wb__gate_error error)
{
    const struct error *e = &errors[error];
    char body[512], headers[160];

    WB_ASSERT(error != WB__GATE_NO_ERROR);
    (void)snprintf(body, sizeof(body),
        "{\"type\":\"urn:waybill:%s\",\"title\":\"%s\",\"status\":%d,"
        "\"detail\":\"%s\"}\n",
        e->type, e->type, e->status, e->detail);
    (void)snprintf(headers, sizeof(headers),
        "Content-Type: application/problem+json\nCache-Control: no-store\n%s",
        e->headers);
    wb__exchange_respond(exchange, &(struct wb__response){.status = e->status,
                                       .headers = wb_slice(headers),
                                       .body = wb_slice(body)});
}
