/* attempt.c - one attempt over libcurl: its easy handle, and its result.
 *
 * (1) One request is sent, and one for each redirect that is followed. One of
 *     them is repeated, once, with the same id (T-7): if the receiver said that
 *     it did not process it (HTTP/2: GOAWAY, REFUSED_STREAM), or if it went out
 *     on a connection that had been used before, which closed before a line of
 *     a response, or brought 421 (not for this server) or a 408 (not read in
 *     time) that closes it. All together end by the deadline of the attempt.
 * (2) With public_only no byte goes to an address that is not public. Checked
 *     when a socket is opened, and again before a request is sent on a socket
 *     that another endpoint may have opened (S1). A proxy is what the
 *     configuration says: with one, the host of each URL is checked.
 * (3) Every request has the whole payload: the response to it may confirm the
 *     message. A redirect that asks for another method is not followed.
 * (4) A redirect to another origin carries the payload, and the headers that
 *     say which message it is: no signature, no header of the route or of the
 *     message, no client certificate (S9).
 * (5) No header, secret or URL appears in an error (S9).
 * (6) Through a proxy goes a tunnel (CONNECT), for http:// too: the proxy gets
 *     no header of a request without TLS that is not in its tunnel, and its own
 *     responses are never taken for those of the receiver. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>

#include "os/os.h"
#include "transport/http.h"

enum {
    LINES_BYTES = 131072,
    IDLE_MAX = 256,
    REDIRECTS_MAX = 3,
    CONNECT_MS = 10000
};

void
wb__attempt_link(struct wb__attempt **head, struct wb__attempt *a)
{
    a->next = *head;
    a->link = head;
    if (a->next != NULL)
        a->next->link = &a->next;
    *head = a;
}

void
wb__attempt_unlink(struct wb__attempt *a)
{
    *a->link = a->next;
    if (a->next != NULL)
        a->next->link = a->link;
    a->link = NULL;
}

/* ---- libcurl's callbacks ----------------------------------------------- */

/* NOLINTBEGIN(readability-non-const-parameter): libcurl's signatures */

static curl_socket_t
on_open(void *user, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct wb__attempt *a = user;
    curl_socket_t fd;

    (void)purpose;
    if (a->ep->public_only && (!wb__address_public(&address->addr) ||
                                  wb__address_own(&address->addr))) {
        if (uv_ip_name(&address->addr, a->refused, sizeof(a->refused)) != 0)
            (void)snprintf(a->refused, sizeof(a->refused), "the address");
        return CURL_SOCKET_BAD;
    }
    fd = wb__http_open_socket(a->ep->http, address);
    if (fd != CURL_SOCKET_BAD)
        a->opened++;
    else if (wb__errno_is_lack(errno))
        a->lacked = errno;
    return fd;
}

/* Before a request is sent; the connection is there. */
static int
on_request(void *user, char *peer, char *local, int peer_port, int local_port)
{
    struct wb__attempt *a = user;

    (void)local;
    (void)peer_port;
    (void)local_port;
    /* libcurl repeats a request that a receiver refused, and one on a reused
     * connection that closed. It may do so on a connection that it has opened
     * for it; else on_ended() does. */
    if (a->sent && (a->again || a->opened == 0)) {
        a->repeated = true;
        return CURL_PREREQFUNC_ABORT;
    }
    if (a->ep->public_only && !wb__address_text_public(peer)) {
        (void)snprintf(a->refused, sizeof(a->refused), "%s", peer);
        a->opened = 0;
        return CURL_PREREQFUNC_ABORT;
    }
    a->again |= a->sent;
    a->sent = true;
    a->reused = a->opened == 0;
    a->opened = 0;
    a->refused[0] = '\0';
    wb__received_next_hop(&a->received);
    return CURL_PREREQFUNC_OK;
}

static size_t
on_header(char *line, size_t size, size_t n, void *user)
{
    struct wb__attempt *a = user;
    size_t len = size * n;

    return wb__received_line(&a->received, (struct wb_slice){line, len}) ? len
                                                                         : 0;
}

static size_t
on_body(char *piece, size_t size, size_t n, void *user)
{
    struct wb__attempt *a = user;
    size_t len = size * n;

    return wb__received_body(&a->received, (struct wb_slice){piece, len}) ? len
                                                                          : 0;
}

/* NOLINTEND(readability-non-const-parameter) */

/* ---- the result --------------------------------------------- */

void
wb__attempt_free(struct wb__attempt *a)
{
    const struct wb_env *env = a->received.body.env;

    curl_easy_cleanup(a->transfer.easy);
    wb__buf_fini(&a->received.body);
    wb__buf_fini(&a->received.location);
    wb__buf_fini(&a->lines);
    wb__free(env, a);
}

/* Make it idle, or free it if its endpoint is gone or has enough of them, or if
 * its handle lacks the client certificate. */
static void
attempt_release(struct wb__attempt *a)
{
    struct wb__endpoint *ep = a->ep;

    if (ep == NULL || ep->n_idle >= IDLE_MAX ||
        (a->elsewhere && ep->client_cert != NULL)) {
        wb__attempt_free(a);
        return;
    }
    wb__received_clear(&a->received);
    wb__attempt_link(&ep->idle, a);
    ep->n_idle++;
}

/* A response with a complete header counts even if its body failed. */
static bool
has_response(const struct wb__attempt *a)
{
    const struct wb__received *r = &a->received;

    return a->sent && r->final && r->error == NULL && !a->repeated &&
           a->refused[0] == '\0';
}

/* The receiver may have quoted a secret: mask each word of a secret header
 * ("Bearer <token>"), of the route or of the message, and what the endpoint has
 * to mask. In the body, which a response rule reads, nothing under 8 bytes: a
 * short one is found in innocent text. */
static void
mask_secrets(struct wb__attempt *a)
{
    struct wb_slice value, name, word;
    const struct curl_slist *l = a->node[a->n_anywhere - 1].next;

    for (; l != NULL; l = l->next) {
        value = wb_slice(l->data);
        if (!wb__cut(&value, ':', &name) || !wb__header_secret(name))
            continue;
        while (wb__cut(&value, ' ', &word))
            if (word.len >= 8)
                wb__received_mask(&a->received, word);
    }
    for (size_t i = 0; i < a->ep->n_mask; i++)
        if (a->ep->mask[i].len >= 8)
            wb__received_mask(&a->received, a->ep->mask[i]);
}

static void
judge_response(
    struct wb__attempt *a, CURLcode code, struct wb_result *res, char *text)
{
    mask_secrets(a);
    res->status = a->received.status;
    res->outcome = wb_http_outcome(a->received.status);
    res->body = wb__buf_slice(&a->received.body);
    res->cut = code != CURLE_OK;
    res->coded = a->received.coded;
    res->json = a->received.json;
    /* With Retry-After a 409 is temporary: an idempotency gateway sends it
     * while the first request is still running. */
    if (res->status == 409 && a->received.retry_after[0] != '\0')
        res->outcome = WB_RETRY;
    if (res->outcome == WB_DELIVERED)
        return;
    res->error =
        (struct wb_slice){text, wb__received_error(&a->received, text)};
    for (size_t i = 0; i < a->ep->n_mask; i++)
        wb__mask(text, res->error.len, a->ep->mask[i]);
    if (res->outcome == WB_RETRY)
        res->retry_after_ms =
            wb__received_retry_after_ms(&a->received, a->now_ms);
}

/* Nothing was sent: was it for want of a resource of this machine? libcurl does
 * not say why a name could not be resolved or a file not be read: see whether
 * descriptors are left for it. */
static bool
lacks_resource(struct wb__attempt *a, CURLcode code)
{
    int fd[4];
    long error = 0;
    char *peer = NULL;

    for (size_t i = 0; i < WB_COUNT(fd); i++) {
        fd[i] = wb__fd_socket(AF_INET, SOCK_DGRAM, 0);
        if (fd[i] < 0 && wb__errno_is_lack(errno))
            a->lacked = errno;
    }
    for (size_t i = 0; i < WB_COUNT(fd); i++)
        wb__fd_close(fd[i]);
    if (a->lacked == 0 && code == CURLE_OUT_OF_MEMORY)
        a->lacked = ENOMEM;
    /* connect(2): no port is left. With IPv6: it may be turned off. */
    (void)curl_easy_getinfo(a->transfer.easy, CURLINFO_OS_ERRNO, &error);
    (void)curl_easy_getinfo(a->transfer.easy, CURLINFO_PRIMARY_IP, &peer);
    if (a->lacked == 0 && code == CURLE_COULDNT_CONNECT &&
        error == EADDRNOTAVAIL && (peer == NULL || strchr(peer, ':') == NULL))
        a->lacked = EADDRNOTAVAIL;
    return a->lacked != 0;
}

static const char *
what_happened(const struct wb__attempt *a, CURLcode code)
{
    const struct wb__received *r = &a->received;
    const char *own = a->curl_error;

    if (r->error != NULL)
        return r->error;
    if (a->repeated)
        return "the connection closed before an answer, twice";
    if (strstr(own, "protocol is shutdown") != NULL)
        return "the receiver sends without end and without an answer";
    /* libcurl's own words: "no error", and "out of memory" for a line of more
     * than 100 KiB. */
    if (code == CURLE_OK || (r->in_header && code == CURLE_PARTIAL_FILE))
        return "the connection closed within the header of the answer";
    if (a->sent && code == CURLE_OUT_OF_MEMORY)
        return r->in_header
                   ? "a line in the header of the answer is too long"
                   : "out of memory, or the answer begins with too long a line";
    return own[0] != '\0' ? own : curl_easy_strerror(code);
}

/* The error is "transport: could not resolve host ...": libcurl's text as one
 * line that begins in lower case. */
static void
judge_no_response(
    struct wb__attempt *a, CURLcode code, struct wb_result *res, char *text)
{
    const char *why = what_happened(a, code);
    char line[4 * CURL_ERROR_SIZE + 1];
    size_t len;

    len = wb__one_line(wb_slice(why), CURL_ERROR_SIZE, line);
    for (size_t i = 0; i < a->ep->n_mask; i++)
        wb__mask(line, len, a->ep->mask[i]);
    if (isupper((unsigned char)line[0]) && islower((unsigned char)line[1]))
        line[0] = (char)tolower((unsigned char)line[0]);
    res->outcome = WB_UNKNOWN; /* sent, and the connection closed */
    if (!a->repeated && a->refused[0] != '\0' && a->opened == 0) {
        res->outcome = WB_REJECTED; /* only addresses that are not public */
        (void)snprintf(line, sizeof(line),
            "%s is not a public address (public_only)", a->refused);
    } else if (!a->again && !a->sent) {
        res->outcome = WB_RETRY; /* nothing sent, or redirect not followed */
        res->no_resource = lacks_resource(a, code);
        if (res->no_resource)
            (void)snprintf(line, sizeof(line), "not sent, this machine: %s",
                uv_strerror(uv_translate_sys_error(a->lacked)));
    }
    res->error.ptr = text;
    res->error.len =
        (size_t)snprintf(text, WB__RECEIVED_ERROR_SIZE, "transport: %s", line);
}

/* ---- another request of the same attempt --------------------------------- */

void
wb__attempt_headers(struct wb__attempt *a)
{
    size_t n = a->elsewhere ? a->n_anywhere : a->n_lines;
    struct curl_slist *rest = a->elsewhere ? &a->ep->bare : a->ep->fixed;

    for (size_t i = 0; i < n; i++) {
        a->node[i].data = a->lines.ptr + a->at[i];
        a->node[i].next = i + 1 < n ? &a->node[i + 1] : rest;
    }
}

CURLcode
wb__attempt_timeout(struct wb__attempt *a)
{
    uint64_t now = uv_hrtime(), left = a->deadline - now;
    long ms = a->deadline > now ? (long)((left + 999999) / 1000000) : 1;

    if (ms == a->timeout_ms)
        return CURLE_OK;
    a->timeout_ms = ms;
    TRY(curl_easy_setopt(a->transfer.easy, CURLOPT_CONNECTTIMEOUT_MS,
        ms < CONNECT_MS ? ms : (long)CONNECT_MS));
    return curl_easy_setopt(a->transfer.easy, CURLOPT_TIMEOUT_MS, ms);
}

static bool
send_next(struct wb__attempt *a)
{
    a->sent = a->repeated = false;
    a->opened = a->lacked = 0;
    a->curl_error[0] = '\0';
    return wb__attempt_timeout(a) == CURLE_OK &&
           wb__http_start(a->ep->http, &a->transfer);
}

static bool
same_part(CURLU *a, CURLU *b, CURLUPart part)
{
    char *of_a = NULL, *of_b = NULL;
    bool same = curl_url_get(a, part, &of_a, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                curl_url_get(b, part, &of_b, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                wb__eq_nocase(wb_slice(of_a), wb_slice(of_b));

    curl_free(of_a);
    curl_free(of_b);
    return same;
}

/* Make the target of the redirect, relative to the URL of its request, the next
 * URL. From https only https is followed. */
static bool
set_target(struct wb__attempt *a, CURLU *from, CURLU *to)
{
    CURL *easy = a->transfer.easy;
    const char *current = NULL;
    char *next = NULL;
    bool ok;

    wb__buf_add(&a->received.location, WB_LIT("\0"));
    ok =
        from != NULL && to != NULL && a->received.location.failed == WB_OK &&
        curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &current) == CURLE_OK &&
        curl_url_set(from, CURLUPART_URL, current, 0) == CURLUE_OK &&
        curl_url_set(to, CURLUPART_URL, current, 0) == CURLUE_OK &&
        curl_url_set(to, CURLUPART_URL, a->received.location.ptr, 0) ==
            CURLUE_OK &&
        curl_url_set(to, CURLUPART_FRAGMENT, NULL, 0) == CURLUE_OK &&
        curl_url_get(to, CURLUPART_URL, &next, 0) == CURLUE_OK &&
        wb__url_check(wb_slice(next), a->ep->public_host, NULL) == WB_OK &&
        (wb__url_is_tls(next) || !wb__url_is_tls(current));
    if (ok) {
        a->elsewhere |= !same_part(from, to, CURLUPART_SCHEME) ||
                        !same_part(from, to, CURLUPART_HOST) ||
                        !same_part(from, to, CURLUPART_PORT);
        a->url_own = false;
        ok = curl_easy_setopt(easy, CURLOPT_URL, next) == CURLE_OK;
        if (ok && a->elsewhere)
            ok = curl_easy_setopt(easy, CURLOPT_SSLCERT, NULL) == CURLE_OK &&
                 curl_easy_setopt(easy, CURLOPT_SSLKEY, NULL) == CURLE_OK;
    }
    curl_free(next);
    return ok;
}

static bool
follow(struct wb__attempt *a)
{
    static const int with_payload[] = {301, 302, 307, 308};
    bool follows = false;
    CURLU *from, *to;

    for (size_t i = 0; i < WB_COUNT(with_payload); i++)
        follows |= a->received.status == with_payload[i];
    if (!a->ep->follow || !follows || a->redirects == REDIRECTS_MAX ||
        a->received.location.len == 0)
        return false;
    from = curl_url();
    to = curl_url();
    follows = set_target(a, from, to);
    curl_url_cleanup(from);
    curl_url_cleanup(to);
    a->redirects += follows;
    if (follows)
        wb__attempt_headers(a);
    return follows && send_next(a);
}

/* No line of a response came: did the reused connection close, or did HTTP/2
 * refuse the stream? libcurl gives no error text for a stream that was refused
 * while it still sent the body; for one that was reset for another reason it
 * does. */
static bool
is_unprocessed(const struct wb__attempt *a, CURLcode code)
{
    bool died = code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR ||
                code == CURLE_GOT_NOTHING || code == CURLE_HTTP2;
    bool refused = code == CURLE_HTTP2_STREAM && a->curl_error[0] == '\0';

    return a->received.status == 0 && !a->received.in_header &&
           ((a->reused && died) || refused);
}

/* Does the response say that the request was not read because it came on this
 * connection? A 408 that closes it may have been sent before the request: the
 * connection was idle for too long. */
static bool
is_refused_here(const struct wb__attempt *a)
{
    const struct wb__received *r = &a->received;

    return a->reused && (r->status == 421 || (r->status == 408 && r->closes));
}

/* Send the next request of the attempt, if there is one. */
static bool
goes_on(struct wb__attempt *a, CURLcode code)
{
    bool answered = has_response(a);

    if (answered && (a->again || !is_refused_here(a)))
        return follow(a);
    if (!answered &&
        (a->again || !a->sent || !(a->repeated || is_unprocessed(a, code))))
        return false;
    a->again = a->fresh = true;
    return curl_easy_setopt(a->transfer.easy, CURLOPT_FRESH_CONNECT, 1L) ==
               CURLE_OK &&
           send_next(a);
}

static void
on_ended(struct wb__transfer *transfer, CURLcode code)
{
    struct wb__attempt *a = (struct wb__attempt *)transfer;
    char text[WB__RECEIVED_ERROR_SIZE];
    struct wb_result res = {0};

    if (code == CURLE_SEND_ERROR && a->sent && !a->repeated)
        code = wb__attempt_read_rest(a, code);
    if (goes_on(a, code))
        return;
    if (has_response(a))
        judge_response(a, code, &res, text);
    else
        judge_no_response(a, code, &res, text);
    /* done() may free the endpoint: endpoint_free() then sets a->ep to NULL. */
    wb__attempt_unlink(a);
    a->ep->reporting = a;
    a->done(a->ctx, &res);
    if (a->ep != NULL)
        a->ep->reporting = NULL;
    attempt_release(a);
}

/* ---- the easy handle ---------------------------------------------------- */

static CURLcode
set_fixed(CURL *easy)
{
    static const struct {
        CURLoption option;
        long value;
    } fixed[] = {
        {CURLOPT_NOSIGNAL, 1},
        {CURLOPT_NETRC, CURL_NETRC_IGNORED},
        {CURLOPT_HTTP_CONTENT_DECODING, 0},
        {CURLOPT_SSL_VERIFYPEER, 1},
        {CURLOPT_SSL_VERIFYHOST, 2},
        {CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2},
        {CURLOPT_TCP_KEEPALIVE, 1},
        {CURLOPT_POST, 1},
        /* Do not wait for the resolver's thread when a lookup runs past the
         * deadline: that would block the loop. */
        {CURLOPT_QUICK_EXIT, 1},
        {CURLOPT_HTTPPROXYTUNNEL, 1},
        {CURLOPT_SUPPRESS_CONNECT_HEADERS, 1},
        {CURLOPT_HEADEROPT, CURLHEADER_SEPARATE},
        {CURLOPT_PROXY_SSLVERSION, CURL_SSLVERSION_TLSv1_2},
    };

    for (size_t i = 0; i < WB_COUNT(fixed); i++)
        TRY(curl_easy_setopt(easy, fixed[i].option, fixed[i].value));
    /* Set, even empty, it keeps libcurl from reading NO_PROXY. */
    TRY(curl_easy_setopt(easy, CURLOPT_NOPROXY, ""));
    TRY(curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https"));
    TRY(curl_easy_setopt(easy, CURLOPT_USERAGENT, "waybill/" WB_VERSION));
    TRY(curl_easy_setopt(easy, CURLOPT_ACCEPT_ENCODING, "identity"));
    TRY(curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, on_open));
    TRY(curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, on_request));
    TRY(curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header));
    return curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
}

static CURLcode
set_own(struct wb__attempt *a)
{
    const struct wb__endpoint *ep = a->ep;
    CURL *easy = a->transfer.easy;
    long version = ep->http1 ? CURL_HTTP_VERSION_1_1 : CURL_HTTP_VERSION_2TLS;

    TRY(wb__http_set_options(ep->http, easy));
    TRY(curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, version));
    TRY(curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, ep->method));
    if (ep->ca_file != NULL) {
        TRY(curl_easy_setopt(easy, CURLOPT_CAPATH, NULL));
        TRY(curl_easy_setopt(easy, CURLOPT_CAINFO, ep->ca_file));
        TRY(curl_easy_setopt(easy, CURLOPT_PROXY_CAPATH, NULL));
        TRY(curl_easy_setopt(easy, CURLOPT_PROXY_CAINFO, ep->ca_file));
    }
    /* Empty, it keeps libcurl from reading HTTPS_PROXY and others. */
    TRY(curl_easy_setopt(
        easy, CURLOPT_PROXY, ep->proxy.len > 0 ? ep->proxy.ptr : ""));
    TRY(curl_easy_setopt(easy, CURLOPT_SSLCERT, ep->client_cert));
    TRY(curl_easy_setopt(easy, CURLOPT_SSLKEY, ep->client_key));
    TRY(curl_easy_setopt(easy, CURLOPT_PRIVATE, &a->transfer));
    TRY(curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, a));
    TRY(curl_easy_setopt(easy, CURLOPT_PREREQDATA, a));
    TRY(curl_easy_setopt(easy, CURLOPT_HEADERDATA, a));
    TRY(curl_easy_setopt(easy, CURLOPT_WRITEDATA, a));
    TRY(curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, a->curl_error));
    return curl_easy_setopt(easy, CURLOPT_HTTPHEADER, a->node);
}

struct wb__attempt *
wb__attempt_acquire(struct wb__endpoint *ep)
{
    struct wb__attempt *a = ep->idle;

    if (a != NULL) {
        wb__attempt_unlink(a);
        ep->n_idle--;
        a->redirects = a->opened = a->lacked = 0;
        a->elsewhere = a->again = a->sent = a->repeated = false;
        a->refused[0] = a->curl_error[0] = '\0';
        return a;
    }
    a = wb__alloc(ep->env, sizeof(*a));
    if (a == NULL)
        return NULL;
    a->ep = ep;
    a->transfer.ended = on_ended;
    a->received.body = (struct wb__buf){.env = ep->env, .max = ep->max_reply};
    a->received.location =
        (struct wb__buf){.env = ep->env, .max = WB__URL_MAX + 1};
    a->lines = (struct wb__buf){.env = ep->env, .max = LINES_BYTES};
    a->transfer.easy = curl_easy_init();
    if (a->transfer.easy != NULL && set_fixed(a->transfer.easy) == CURLE_OK &&
        set_own(a) == CURLE_OK)
        return a;
    wb__attempt_free(a);
    return NULL;
}
