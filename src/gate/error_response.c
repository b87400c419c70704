/* error_response.c - what the gateway says in its own name: problem documents
 * of RFC 9457, whose types tell them from the upstream's. (G-5) */
#include "gate/gate_internal.h"

#include <stdio.h>

static const struct problem {
    int status;
    const char *type, *detail, *more;
} problems[] = {
    [WB__BAD_KEY] = {400, "bad-key",
        "give one Idempotency-Key, 1 to 255 printable characters, and one "
        "identity",
        ""},
    [WB__KEY_REQUIRED] = {400, "key-required",
        "an Idempotency-Key is required here", ""},
    [WB__ANONYMOUS] = {401, "bad-key",
        "a key needs an identity: send credentials",
        "WWW-Authenticate: Bearer\n"},
    [WB__IN_FLIGHT] = {409, "in-flight",
        "a request with this key is under way; try again", "Retry-After: 1\n"},
    [WB__MISMATCH] = {422, "mismatch", "this key was used for another request",
        ""},
    [WB__OUTCOME_UNKNOWN] = {409, "outcome-unknown",
        "an earlier request with this key may have had its effect; nobody can "
        "say until it is settled",
        ""},
    [WB__OUTCOME_NOW_UNKNOWN] = {504, "outcome-unknown",
        "the server behind got the request and gave no whole answer; it may "
        "have had its effect",
        ""},
    [WB__OUTCOME_SWITCHED] = {502, "outcome-unknown",
        "the server behind changed to another protocol; the request may have "
        "had its effect",
        ""},
    [WB__TOO_LARGE] = {413, "too-large",
        "a request with a key must be smaller than this", ""},
    [WB__URI_TOO_LONG] = {414, "too-large",
        "the path of a request with a key must be shorter than this", ""},
    [WB__STORE_UNAVAILABLE] = {503, "store-unavailable",
        "the store of keys does not answer; with a request under way its "
        "outcome is unknown",
        "Retry-After: 1\n"},
    [WB__UPSTREAM_UNREACHABLE] = {502, "upstream-unreachable",
        "the server behind could not be reached; nothing was sent", ""},
    [WB__UPSTREAM_FAILED] = {504, "upstream-failed",
        "the server behind got the request and gave no whole answer", ""},
    [WB__UPSTREAM_SWITCHED] = {502, "upstream-failed",
        "the server behind changed to another protocol", ""},
    [WB__OUT_OF_MEMORY] = {503, "too-busy", "out of memory; try again",
        "Retry-After: 1\n"},
};

void
wb__gate_respond_error(struct wb__exchange *call, enum wb__gate_error problem)
{
    const struct problem *p = &problems[problem];
    char body[512], headers[160];

    (void)snprintf(body, sizeof(body),
        "{\"type\":\"urn:waybill:%s\",\"title\":\"%s\",\"status\":%d,"
        "\"detail\":\"%s\"}\n",
        p->type, p->type, p->status, p->detail);
    (void)snprintf(headers, sizeof(headers),
        "Content-Type: application/problem+json\nCache-Control: no-store\n%s",
        p->more);
    wb__exchange_respond(call, &(struct wb__response){.status = p->status,
                                   .headers = wb_slice(headers),
                                   .body = wb_slice(body)});
}
