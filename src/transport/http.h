/* http.h - what transports share, and the parts of the http transport: what
 * needs no libcurl (addresses, URLs and headers, signatures, responses), then
 * what does: http.c drives the transfers of one event loop, attempt.c makes a
 * result of one transfer, http_send.c has the endpoints and fills in their
 * requests. */
#ifndef WB_SRC_TRANSPORT_HTTP_H
#define WB_SRC_TRANSPORT_HTTP_H

#include <uv.h>
#ifdef WB_LIBCURL
#include <curl/curl.h>
#endif

#include "base/base.h"
#include "waybill/transport.h"

/* ---- transport.c ------------------------------------------------------- */

/* Report "transport: why" at once: nothing was sent. */
void wb__transport_refuse(
    wb_done_fn *done, void *ctx, enum wb_outcome outcome, const char *why);

/* Report RETRY and why: nothing was sent, for want of a resource. */
void wb__transport_lacks(wb_done_fn *done, void *ctx, const char *why);
/* Whether the errno says that this machine lacks memory or descriptors. */
bool wb__errno_is_lack(int error);

/* ---- validate.c: addresses, URLs, header names ------------------------- */

/* A global unicast address that stands for itself: not private, loopback,
 * link-local, shared, multicast, reserved, documentation or benchmarking, and
 * no IPv6 form that embeds an IPv4 address (mapped, NAT64, 6to4, Teredo). */
WB_MUST_USE bool wb__address_public(const struct sockaddr *addr);
/* The same for an address as text that is not one of this machine's. False if
 * the text is not an address. */
WB_MUST_USE bool wb__address_text_public(const char *text);
/* An address of one of this machine's interfaces. */
WB_MUST_USE bool wb__address_own(const struct sockaddr *addr);

enum {
    WB__URL_MAX = 8192
};

/* http:// or https://, a host, printable ASCII without space and backslash, no
 * user@. INVALID says why; the text never quotes the url, which may hold a
 * secret. */
WB_MUST_USE enum wb_status wb__url_check_syntax(
    struct wb_slice url, struct wb_err *err);
/* The same for a proxy, which may have user:password@. */
WB_MUST_USE enum wb_status wb__proxy_check_syntax(
    struct wb_slice proxy, struct wb_err *err);
/* The bytes of user:password@ in a url with a scheme; 0: there is none. */
size_t wb__url_user_len(struct wb_slice url);
/* Whether the host of a URL, as libcurl writes it, is localhost or an address
 * that is not public. */
WB_MUST_USE bool wb__host_closed(const char *host);

static inline bool
wb__url_is_tls(const char *url) /* that wb__url_check_syntax() has accepted */
{
    return url[4] == 's' || url[4] == 'S';
}

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

/* ---- response.c: what was received ------------------------------------- */

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
    bool coded, json;        /* by Content-Encoding and Content-Type */
    bool closes;             /* Connection: close */
    char reason[4 * 60 + 1]; /* of the status line, cut */
    char retry_after[40];    /* as received, cut: the longest date has 33 */
    struct wb__buf location; /* as received; empty if too long */
};

/* Reset for another request; the memory of the body is kept unless it is
 * large. */
void wb__received_clear(struct wb__received *r);
/* Reset for the response to the next request of one attempt; the counts go on.
 */
void wb__received_next_hop(struct wb__received *r);
/* One line as libcurl's header callback gives it. False: stop reading. */
WB_MUST_USE bool wb__received_line(
    struct wb__received *r, struct wb_slice line);
/* A piece of the body. False: stop reading. */
WB_MUST_USE bool wb__received_body(
    struct wb__received *r, struct wb_slice piece);
/* Retry-After in milliseconds from now_ms, never less than was said; INT64_MAX:
 * too large a number; 0: none, or not usable. */
int64_t wb__received_retry_after_ms(
    const struct wb__received *r, int64_t now_ms);
/* Overwrite every occurrence of secret (4 bytes at least) with asterisks, also
 * one that is cut off at the end, or encoded as in a URL or in JSON. */
void wb__mask(char *text, size_t len, struct wb_slice secret);
void wb__received_mask(struct wb__received *r, struct wb_slice secret);

/* The text of a reply without a byte order mark, which RFC 8259 lets a reader
 * of JSON skip: some servers write one, and what follows is the whole reply. */
struct wb_slice wb__reply_text(const struct wb_result *reply);
/* Of a reply that does not parse as JSON: why it must not be taken for one that
 * says nothing; NULL: it is empty, or plain text. */
const char *wb__reply_problem(const struct wb_result *reply);

enum {
    WB__RECEIVED_BODY_CHARS = 1024,
    WB__RECEIVED_ERROR_SIZE = 4 * 1024 + 300
};
/* "401 Unauthorized: {"error":"..."}", one line. Returns its length. */
size_t wb__received_error(
    const struct wb__received *r, char out[WB__RECEIVED_ERROR_SIZE]);

#ifdef WB_LIBCURL

/* Return the error of a libcurl call. */
#define TRY(call)               \
    do {                        \
        CURLcode try_ = (call); \
        if (try_ != CURLE_OK)   \
            return try_;        \
    } while (0)

/* ---- http.c: many transfers on one loop -------------------------------- */

/* CURLOPT_PRIVATE of its easy handle points at it. */
struct wb__transfer {
    CURL *easy;
    /* Called when it has ended and left the multi handle. May start other
     * transfers and free its endpoint, but not close the wb_http. */
    void (*ended)(struct wb__transfer *transfer, CURLcode code);
};

const struct wb_env *wb__http_env(const struct wb_http *http);
void wb__http_ref(struct wb_http *http, int by); /* count its endpoints */

/* Set the options that concern the loop: sockets, shared TLS sessions. */
WB_MUST_USE CURLcode wb__http_set_options(struct wb_http *http, CURL *easy);
/* Open a socket that the loop can watch, for CURLOPT_OPENSOCKETFUNCTION; errno
 * if it cannot. */
WB_MUST_USE curl_socket_t wb__http_open_socket(
    struct wb_http *http, const struct curl_sockaddr *address);
WB_MUST_USE bool wb__http_start(
    struct wb_http *http, struct wb__transfer *transfer);
void wb__http_cancel(struct wb_http *http, struct wb__transfer *transfer);
/* The socket of a transfer that has ended, if libcurl closed it unread; or -1.
 * It is open until ended() returns. */
WB_MUST_USE int wb__http_unread(
    const struct wb_http *http, const struct wb__transfer *transfer);

/* wb__url_check_syntax(), and libcurl can read host and port; with
 * public_host its host is not closed. */
WB_MUST_USE enum wb_status wb__url_check(
    struct wb_slice url, bool public_host, struct wb_err *err);

/* ---- endpoints and attempts ------------------------------------------------ */

/* Header lines of a request: eight of ours (id twice, timestamp, content type,
 * signature, kind, key, ids) and the message's. */
enum {
    WB__LINES_MAX = 8 + WB__HEADERS_MAX
};

struct wb__attempt {
    struct wb__transfer transfer;     /* first: cast back to the attempt */
    struct wb__endpoint *ep;          /* NULL: freed by done() */
    struct wb__attempt *next, **link; /* list: in_flight or idle */
    wb_done_fn *done;
    void *ctx;
    int64_t now_ms;
    uint64_t deadline; /* of uv_hrtime() */
    long timeout_ms;   /* set in the easy handle; 0: not yet */
    bool url_own;      /* the easy handle has the URL of the endpoint */
    bool fresh;        /* and the option for a new connection */

    int redirects;    /* followed */
    bool elsewhere;   /* one led to another origin */
    bool again;       /* a request was repeated; see on_request() */
    bool sent;        /* the current request */
    bool reused;      /* on a connection that was there before */
    bool repeated;    /* libcurl was about to send it twice */
    int opened;       /* sockets opened since the last request */
    int lacked;       /* errno, if no socket could be had; or 0 */
    char refused[64]; /* address that public_only refused; or empty */

    struct wb__received received;
    struct wb__buf lines; /* NUL-ended header lines of this request */
    size_t n_lines, at[WB__LINES_MAX];
    size_t n_anywhere; /* lines that may go to another origin */
    struct curl_slist node[WB__LINES_MAX];
    char curl_error[CURL_ERROR_SIZE];
};

struct wb__endpoint {
    struct wb_transport base; /* first: cast back to the endpoint */
    struct wb_http *http;
    const struct wb_env *env;
    struct wb__arena arena;               /* holds the texts below */
    const char *url, *method, *ca_file;   /* NULL: none, POST, the system's */
    const char *client_cert, *client_key; /* NULL: none */
    struct wb_slice proxy;                /* empty: none; wiped when freed */
    struct wb_slice content_type;
    struct curl_slist bare;   /* header lines of every request: elsewhere, */
    struct curl_slist *fixed; /* and to the origin of the endpoint, */
    char *fixed_text;         /* in this text; wiped when freed */
    size_t fixed_len;
    struct wb__signer *signer; /* or NULL */
    struct wb_slice *mask;     /* never kept in an error, */
    size_t n_mask;             /* parts of this text, wiped when freed: */
    struct wb_slice mask_text;
    size_t max_reply;
    bool public_only; /* checked on the address connected to, or, */
    bool public_host; /* with a proxy, on the URL */
    bool follow, http1;
    struct wb__attempt *in_flight, *idle;
    struct wb__attempt *reporting; /* its done() is running */
    size_t n_idle;
};

/* An idle attempt or a new one, on no list. NULL if memory ran out or libcurl
 * lacks an option. */
WB_MUST_USE struct wb__attempt *wb__attempt_acquire(struct wb__endpoint *ep);
void wb__attempt_free(struct wb__attempt *a); /* on no list, no transfer */

/* Link the header lines of the request to those of the endpoint. */
void wb__attempt_headers(struct wb__attempt *a);
/* Set the time that is left of the attempt. */
WB_MUST_USE CURLcode wb__attempt_timeout(struct wb__attempt *a);

/* unread.c: read what libcurl has left in the socket of a request that could
 * not be written to its end. Returns what libcurl says of it, or code. */
WB_MUST_USE CURLcode wb__attempt_read_rest(
    struct wb__attempt *a, CURLcode code);

void wb__attempt_link(struct wb__attempt **head, struct wb__attempt *a);
void wb__attempt_unlink(struct wb__attempt *a);

#endif /* WB_LIBCURL */

#endif /* WB_SRC_TRANSPORT_HTTP_H */
