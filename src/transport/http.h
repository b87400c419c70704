/* http.h - the parts of the http transport that do without libcurl: addresses,
 * URLs and headers, signatures, responses. attempt.h has the others. */
#ifndef WB_SRC_TRANSPORT_HTTP_H
#define WB_SRC_TRANSPORT_HTTP_H

#include <uv.h>

#include "base/base.h"
#include "waybill/transport.h"

/* ---- public_address.c: addresses ------------------------------------------------ */

/* A global unicast address that stands for itself: not private, loopback,
 * link-local, shared, multicast, reserved, documentation or benchmarking, and
 * no IPv6 form that carries an IPv4 address (mapped, NAT64, 6to4, Teredo). */
WB_MUST_USE bool wb__address_public(const struct sockaddr *addr);
/* The same for an address as text; false if the text is not an address. */
WB_MUST_USE bool wb__address_text_public(const char *text);
/* An address of one of this machine's interfaces. */
WB_MUST_USE bool wb__address_own(const struct sockaddr *addr);

/* ---- validate.c: URLs and header names ---------------------------------- */

enum {
    WB__URL_MAX = 8192
};

/* http:// or https://, a host, printable ASCII without space and backslash, no
 * user@. INVALID says why; the text never quotes the url, which may hold a
 * secret. */
WB_MUST_USE enum wb_status wb__url_check_syntax(
    struct wb_slice url, struct wb_err *err);

/* Whether the value of this header must not appear in an error. */
WB_MUST_USE bool wb__header_secret(struct wb_slice name);

/* ---- sign.c: Standard Webhooks ----------------------------------------- */

struct wb__signer;
/* Returns OK, NOMEM, INVALID (more than 8 keys, or one not of 24..64 bytes).
 * Of the keys only what OpenSSL keeps and wipes is kept. */
WB_MUST_USE enum wb_status wb__signer_new(struct wb__signer **out,
    const struct wb_env *env, const struct wb_slice *secrets, size_t n,
    struct wb_err *err);
void wb__signer_free(struct wb__signer *s); /* NULL is fine */

/* Append "v1,<base64>" for each key, spaces between, over id.timestamp.body.
 * False if OpenSSL or memory failed. */
WB_MUST_USE bool wb__sign(struct wb__signer *s, struct wb_slice id,
    struct wb_slice timestamp, struct wb_slice body, struct wb__buf *out);

/* ---- response.c: what was received ------------------------------------------- */

/* Limits of what is read of a response besides its body; interim responses
 * (1xx), trailers and followed redirects are included. */
enum {
    WB__RECEIVED_HEADER_BYTES = 65536,
    WB__RECEIVED_HEADER_LINES = 256,
    WB__RECEIVED_INTERIMS = 16
};

struct wb__received {
    struct wb__buf body; /* its max is the limit of what is kept */
    size_t header_bytes, header_lines, interims;
    const char *error;       /* why reading was stopped, or NULL */
    int status;              /* of the last status line; 0: none yet */
    bool in_header;          /* between a status line and the blank line */
    bool final;              /* status >= 200 and its header is complete */
    bool cut;                /* the body was longer than what was kept */
    char reason[4 * 60 + 1]; /* of the status line, cut */
    char retry_after[40];    /* as received; empty if too long */
};

/* Reset for another request; the memory of the body is kept unless it is
 * large. */
void wb__received_clear(struct wb__received *r);
/* Reset for the response to a redirected request; the counts go on. */
void wb__received_next_hop(struct wb__received *r);
/* One line as libcurl's header callback gives it. False: stop reading. */
WB_MUST_USE bool wb__received_line(
    struct wb__received *r, struct wb_slice line);
/* A piece of the body. False: stop reading. */
WB_MUST_USE bool wb__received_body(
    struct wb__received *r, struct wb_slice piece);
/* Retry-After in milliseconds from now_ms; 0: none, or not usable. */
int64_t wb__received_retry_after_ms(
    const struct wb__received *r, int64_t now_ms);
/* Overwrite every occurrence of secret with asterisks, also one that is cut off
 * at the end. */
void wb__received_mask(struct wb__received *r, struct wb_slice secret);

enum {
    WB__RECEIVED_BODY_CHARS = 1024,
    WB__RECEIVED_ERROR_SIZE = 4 * 1024 + 300
};
/* "401 Unauthorized: {"error":"..."}", one line. Returns its length. */
size_t wb__received_error(
    const struct wb__received *r, char out[WB__RECEIVED_ERROR_SIZE]);

#endif /* WB_SRC_TRANSPORT_HTTP_H */
