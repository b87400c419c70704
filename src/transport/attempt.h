/* attempt.h - endpoints and the attempts on them: attempt.c carries one,
 * http_send.c prepares it. */
#ifndef WB_SRC_TRANSPORT_ATTEMPT_H
#define WB_SRC_TRANSPORT_ATTEMPT_H

#include "transport/http.h"

/* Hand a failure of libcurl on at once. */
#define TRY(call)               \
    do {                        \
        CURLcode try_ = (call); \
        if (try_ != CURLE_OK)   \
            return try_;        \
    } while (0)

/* id twice, timestamp, content type, signature, kind, key, ids */
enum {
    WB__LINES_MAX = 8 + WB__HEADERS_MAX
};

struct wb__attempt {
    struct wb__transfer job;          /* first: a job is its attempt */
    struct wb__endpoint *ep;          /* NULL: freed while done() was called */
    struct wb__attempt *next, **link; /* of the list it is on */
    wb_done_fn *done;
    void *ctx;
    int64_t now_ms;
    long timeout_ms; /* that the handle has now */
    bool url_own;    /* the handle has the endpoint's url */

    int issues;       /* requests on the wire */
    int opened;       /* sockets since the last of them */
    bool again;       /* libcurl wanted to send twice */
    char refused[64]; /* address that public_only refused; or empty */

    struct wb__reply reply;
    struct wb__buf lines; /* NUL-ended header lines of this request */
    size_t n_lines, at[WB__LINES_MAX];
    struct curl_slist node[WB__LINES_MAX];
    char trouble[CURL_ERROR_SIZE];
};

struct wb__endpoint {
    struct wb_transport base; /* first: a transport is its endpoint */
    struct wb_http *http;
    const struct wb_env *env;
    struct wb__arena arena;             /* of the texts below */
    const char *url, *method, *ca_file; /* NULL: none, POST, the system's */
    struct wb_slice content_type;
    struct curl_slist *fixed; /* header lines of every request */
    char *fixed_text;         /* which hold them; wiped when freed */
    size_t fixed_len;
    struct wb__signer *signer; /* or NULL */
    size_t max_reply;
    bool public_only, follow, http1;
    struct wb__attempt *flying, *idle;
    struct wb__attempt *telling; /* its done() is being called */
    size_t n_idle;
};

/* One that rests, or a new one; on no list. NULL if memory ran out. */
WB_MUST_USE struct wb__attempt *wb__attempt_take(struct wb__endpoint *ep);
/* Keep it for the next request, or let it go. */
void wb__attempt_rest(struct wb__attempt *a);
void wb__attempt_free(struct wb__attempt *a); /* on no list, not under way */

void wb__attempt_push(struct wb__attempt **head, struct wb__attempt *a);
void wb__attempt_cut(struct wb__attempt *a);

#endif /* WB_SRC_TRANSPORT_ATTEMPT_H */
