/* attempt.h - the parts of the http transport that use libcurl: http.c drives
 * the transfers of one event loop, attempt.c makes a result of one transfer,
 * http_send.c has the endpoints and fills in their requests. */
#ifndef WB_SRC_TRANSPORT_ATTEMPT_H
#define WB_SRC_TRANSPORT_ATTEMPT_H

#include <curl/curl.h>

#include "transport/http.h"

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
/* Open a socket that the loop can watch, for CURLOPT_OPENSOCKETFUNCTION. */
WB_MUST_USE curl_socket_t wb__http_open_socket(
    struct wb_http *http, const struct curl_sockaddr *address);
WB_MUST_USE bool wb__http_start(
    struct wb_http *http, struct wb__transfer *transfer);
void wb__http_cancel(struct wb_http *http, struct wb__transfer *transfer);

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
    long timeout_ms; /* set in the easy handle; 0: not yet */
    bool url_own;    /* the easy handle has the URL of the endpoint */

    int requests;     /* sent, redirects included */
    int opened;       /* sockets opened since the last request */
    bool repeated;    /* libcurl was about to send a request twice */
    char refused[64]; /* address that public_only refused; or empty */

    struct wb__received received;
    struct wb__buf lines; /* NUL-ended header lines of this request */
    size_t n_lines, at[WB__LINES_MAX];
    struct curl_slist node[WB__LINES_MAX];
    char curl_error[CURL_ERROR_SIZE];
};

struct wb__endpoint {
    struct wb_transport base; /* first: cast back to the endpoint */
    struct wb_http *http;
    const struct wb_env *env;
    struct wb__arena arena;             /* holds the texts below */
    const char *url, *method, *ca_file; /* NULL: none, POST, the system's */
    struct wb_slice content_type;
    struct curl_slist *fixed; /* header lines of every request, */
    char *fixed_text;         /* in this text; wiped when freed */
    size_t fixed_len;
    struct wb__signer *signer; /* or NULL */
    size_t max_reply;
    bool public_only, follow, http1;
    struct wb__attempt *in_flight, *idle;
    struct wb__attempt *reporting; /* its done() is running */
    size_t n_idle;
};

/* wb__url_check_syntax(), and libcurl can read host and port. */
WB_MUST_USE enum wb_status wb__url_check(
    struct wb_slice url, struct wb_err *err);

/* An idle attempt or a new one, on no list. NULL if memory ran out. */
WB_MUST_USE struct wb__attempt *wb__attempt_acquire(struct wb__endpoint *ep);
/* Make it idle, or free it if its endpoint is gone or has enough of them. */
void wb__attempt_release(struct wb__attempt *a);
void wb__attempt_free(struct wb__attempt *a); /* on no list, no transfer */

void wb__attempt_link(struct wb__attempt **head, struct wb__attempt *a);
void wb__attempt_unlink(struct wb__attempt *a);

#endif /* WB_SRC_TRANSPORT_ATTEMPT_H */
