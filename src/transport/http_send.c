/* http_send.c - an endpoint: its options, and the requests it sends.
 *
 * (1) Everything that is sent was checked here, also if the caller did (S3).
 * (2) Every attempt ends by its deadline.
 * (3) Secrets are wiped when the endpoint is freed (S9). */
#include <ctype.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <stdio.h>

#include "os/os.h"
#include "transport/http.h"

enum {
    REPLY_DEFAULT = 65536,
    REPLY_MOST = 64 << 20
};

static void
line_begin(struct wb__attempt *a, struct wb_slice name)
{
    WB_ASSERT(a->n_lines < WB_COUNT(a->at));
    a->at[a->n_lines++] = a->lines.len;
    wb__buf_add(&a->lines, name);
}

/* To libcurl "Name:" means: leave the header out; "Name;": send it empty. */
static void
line_add(struct wb__attempt *a, struct wb_slice name, struct wb_slice value)
{
    line_begin(a, name);
    wb__buf_add(&a->lines, value.len > 0 ? WB_LIT(": ") : WB_LIT(";"));
    wb__buf_add(&a->lines, value);
    wb__buf_add(&a->lines, WB_LIT("\0"));
}

static bool
lines_write(struct wb__attempt *a, const struct wb_request *q)
{
    struct wb_slice id = wb_slice(q->id.text), rest = q->headers, name, value;
    struct wb_slice seconds, type = q->content_type;
    char digits[24];

    seconds.ptr = digits;
    seconds.len = (size_t)snprintf(
        digits, sizeof(digits), "%lld", (long long)(q->now_ms / 1000));
    if (type.len == 0)
        type = a->ep->content_type;
    a->n_lines = 0;
    wb__buf_clear(&a->lines);
    line_add(a, WB_LIT("Content-Type"), type);
    line_add(a, WB_LIT("Idempotency-Key"), id);
    line_add(a, WB_LIT("webhook-id"), id);
    line_add(a, WB_LIT("webhook-timestamp"), seconds);
    if (q->kind.len > 0)
        line_add(a, WB_LIT("Waybill-Kind"), q->kind);
    if (q->key.len > 0 && q->ids.len == 0)
        line_add(a, WB_LIT("Waybill-Key"), q->key);
    if (q->ids.len > 0)
        line_add(a, WB_LIT("Waybill-Ids"), q->ids);
    a->n_anywhere = a->n_lines;
    if (a->ep->signer != NULL) {
        line_begin(a, WB_LIT("webhook-signature: "));
        if (!wb__sign(a->ep->signer, id, seconds, q->body, &a->lines))
            return false;
        wb__buf_add(&a->lines, WB_LIT("\0"));
    }
    while (wb__headers_next(&rest, &name, &value))
        line_add(a, name, value);
    if (a->lines.failed != WB_OK)
        return false;
    wb__attempt_headers(a);
    return true;
}

static CURLcode
set_url(struct wb__attempt *a, struct wb_slice url)
{
    CURL *easy = a->transfer.easy;
    char text[WB__URL_MAX + 1];

    if (url.len == 0 && a->url_own)
        return CURLE_OK;
    a->url_own = url.len == 0;
    url = a->url_own ? wb_slice(a->ep->url) : url;
    memcpy(text, url.ptr, url.len);
    text[url.len] = '\0';
    TRY(curl_easy_setopt(easy, CURLOPT_URL, text));
    /* Wait for a connection that is being made if HTTP/2 may share it; without
     * TLS there is no HTTP/2. */
    return curl_easy_setopt(
        easy, CURLOPT_PIPEWAIT, (long)(wb__url_is_tls(text) && !a->ep->http1));
}

static CURLcode
set_request(struct wb__attempt *a, const struct wb_request *q)
{
    CURL *easy = a->transfer.easy;
    int64_t ms = q->timeout_ms < 1         ? 1
                 : q->timeout_ms < INT_MAX ? q->timeout_ms
                                           : INT_MAX;

    TRY(set_url(a, q->url));
    a->deadline = uv_hrtime() + (uint64_t)ms * 1000000;
    TRY(wb__attempt_timeout(a));
    if (a->fresh)
        TRY(curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 0L));
    a->fresh = false;
    TRY(curl_easy_setopt(
        easy, CURLOPT_POSTFIELDS, q->body.len > 0 ? q->body.ptr : ""));
    return curl_easy_setopt(
        easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)q->body.len);
}

/* A message adds headers and overrides none. */
static enum wb_status
headers_ok(
    const struct wb__endpoint *ep, struct wb_slice lines, struct wb_err *err)
{
    enum wb_status rc = wb__request_headers_check(lines, err);
    struct wb_slice name, value, line, fixed;

    while (rc == WB_OK && wb__headers_next(&lines, &name, &value)) {
        bool is_fixed = wb__eq_nocase(name, WB_LIT("Content-Type"));

        for (const struct curl_slist *l = ep->fixed; l != NULL; l = l->next) {
            line = wb_slice(l->data);
            is_fixed |=
                wb__cut(&line, ':', &fixed) && wb__eq_nocase(fixed, name);
        }
        if (is_fixed)
            rc = wb__fail(err, WB_INVALID, 0,
                "header %.*s: the route sets it, the message must not",
                WB_SHOW(name));
    }
    return rc;
}

static enum wb_status
request_ok(const struct wb__endpoint *ep, const struct wb_request *q,
    struct wb_err *err)
{
    const char *wrong = NULL;
    enum wb_status rc = WB_OK;
    size_t n = 0;

    while (n < WB_ID_LEN && (isalnum((unsigned char)q->id.text[n]) ||
                                q->id.text[n] == '-' || q->id.text[n] == '_'))
        n++;
    if (n == 0 || q->id.text[n] != '\0')
        wrong = "the id is not one word";
    if (wrong == NULL && q->url.len == 0 && ep->url == NULL)
        wrong = "neither the route nor the message names a url";
    if (wrong == NULL &&
        (!wb__printable(q->content_type) || !wb__printable(q->kind) ||
            !wb__printable(q->key) || !wb__printable(q->ids)))
        wrong = "kind, key, ids or content type has control characters";
    if (wrong != NULL)
        return wb__fail(err, WB_INVALID, 0, "%s", wrong);
    if (q->url.len > 0)
        rc = wb__url_check(q->url, ep->public_host, err);
    if (rc == WB_OK && q->headers.len > 0)
        rc = headers_ok(ep, q->headers, err);
    return rc;
}

static void
endpoint_send(struct wb_transport *self, const struct wb_request *request,
    wb_done_fn *done, void *ctx)
{
    struct wb__endpoint *ep = (struct wb__endpoint *)self;
    struct wb_err err = {0};
    struct wb__attempt *a;

    if (request_ok(ep, request, &err) != WB_OK) {
        wb__transport_refuse(done, ctx, WB_REJECTED, err.msg);
        return;
    }
    a = wb__attempt_acquire(ep);
    if (a == NULL) {
        wb__transport_lacks(done, ctx, "out of memory");
        return;
    }
    a->done = done;
    a->ctx = ctx;
    a->now_ms = request->now_ms;
    wb__attempt_link(&ep->in_flight, a);
    if (lines_write(a, request) && set_request(a, request) == CURLE_OK &&
        wb__http_start(ep->http, &a->transfer))
        return;
    wb__attempt_unlink(a);
    wb__attempt_free(a); /* not idle: its handle has half a request */
    wb__transport_lacks(done, ctx, "out of memory");
}

/* ---- endpoints --------------------------------------------------------- */

static void
endpoint_free(struct wb_transport *self)
{
    struct wb__endpoint *ep = (struct wb__endpoint *)self;
    struct wb__attempt *a;

    if (ep->reporting != NULL)
        ep->reporting->ep = NULL;
    while ((a = ep->in_flight) != NULL) {
        wb__http_cancel(ep->http, &a->transfer);
        wb__attempt_unlink(a);
        wb__attempt_free(a);
    }
    while ((a = ep->idle) != NULL) {
        wb__attempt_unlink(a);
        wb__attempt_free(a);
    }
    wb__http_ref(ep->http, -1);
    if (ep->fixed_len > 0)
        OPENSSL_cleanse(ep->fixed_text, ep->fixed_len);
    if (ep->mask_text.len > 0)
        OPENSSL_cleanse(
            (void *)(uintptr_t)ep->mask_text.ptr, ep->mask_text.len);
    if (ep->proxy.len > 0)
        OPENSSL_cleanse((void *)(uintptr_t)ep->proxy.ptr, ep->proxy.len);
    wb__signer_free(ep->signer);
    wb__arena_clear(&ep->arena);
    wb__free(ep->env, ep);
}

static enum wb_status
opts_check(const struct wb_http_opts *o, struct wb_err *err)
{
    static const char *const methods[] = {
        "POST", "PUT", "PATCH", "DELETE", "GET"};
    enum wb_status rc = WB_OK;
    bool method = o->method.len == 0;

    for (size_t i = 0; i < WB_COUNT(methods); i++)
        method |= wb__eq(o->method, wb_slice(methods[i]));
    if (!method)
        return wb__fail(err, WB_INVALID, 0,
            "the method is none of POST, PUT, PATCH, DELETE and GET");
    if (o->max_reply_bytes > REPLY_MOST)
        return wb__fail(
            err, WB_INVALID, 0, "a reply is kept up to 64 MiB at most");
    if (o->proxy.len > 0)
        rc = wb__proxy_check_syntax(o->proxy, err);
    if (rc == WB_OK)
        rc = wb__request_headers_check(o->headers, err);
    return rc;
}

/* Make a list for libcurl of "Name: value\n" lines, in place. A content type is
 * the default for messages that have none. */
static void
fixed_link(struct wb__endpoint *ep, struct curl_slist *node)
{
    static char no_expect[] = "Expect:";
    struct wb_slice rest = {ep->fixed_text, ep->fixed_len}, name, value;
    struct curl_slist **end = &node->next;

    ep->bare.data = node->data = no_expect;
    ep->fixed = node++;
    while (wb__headers_next(&rest, &name, &value)) {
        char *line = ep->fixed_text + (name.ptr - ep->fixed_text);

        line[name.len + (value.len > 0 ? 2 + value.len : 1)] = '\0';
        if (value.len == 0)
            line[name.len] = ';';
        if (wb__eq_nocase(name, WB_LIT("Content-Type"))) {
            ep->content_type = value;
            continue;
        }
        node->data = line;
        *end = node;
        end = &node++->next;
    }
}

/* Of each text: itself, without scheme and host if it is a URL, and its words
 * of 8 bytes or more, which a receiver may quote alone. */
static void
masks_add(struct wb__endpoint *ep, struct wb_slice text)
{
    struct wb_slice path = text;
    size_t word = 0;

    if (text.len >= 4)
        ep->mask[ep->n_mask++] = text;
    if (wb__starts(text, WB_LIT("http://")) ||
        wb__starts(text, WB_LIT("https://"))) {
        path = wb__from(text, 8);
        while (path.len > 0 && path.ptr[0] != '/' && path.ptr[0] != '?')
            path = wb__from(path, 1);
        if (path.len >= 4)
            ep->mask[ep->n_mask++] = path;
    }
    for (size_t i = 0; i <= path.len; i++) {
        if (i < path.len && strchr("/?&=:;, ", path.ptr[i]) == NULL)
            continue;
        if (i - word >= 8 && i - word < text.len)
            ep->mask[ep->n_mask++] =
                (struct wb_slice){path.ptr + word, i - word};
        word = i + 1;
    }
}

static bool
masks_fill(struct wb__endpoint *ep, const struct wb_http_opts *o)
{
    size_t len = 0, max = 0, at = 0;
    char *text;

    for (size_t i = 0; i < o->n_masked; i++) {
        len += o->masked[i].len;
        max += 3 + o->masked[i].len / 8;
    }
    if (len == 0)
        return true;
    text = wb__arena_alloc(&ep->arena, len);
    ep->mask = wb__arena_alloc(&ep->arena, max * sizeof(*ep->mask));
    if (text == NULL || ep->mask == NULL)
        return false;
    ep->mask_text = (struct wb_slice){text, len};
    for (size_t i = 0; i < o->n_masked; i++) {
        if (o->masked[i].len == 0)
            continue;
        memcpy(text + at, o->masked[i].ptr, o->masked[i].len);
        masks_add(ep, (struct wb_slice){text + at, o->masked[i].len});
        at += o->masked[i].len;
    }
    return true;
}

static enum wb_status
file_check(const char *option, const char *path, struct wb_err *err)
{
    if (path == NULL || wb__file_info_of(path).is_file)
        return WB_OK;
    return wb__fail(err, WB_UNAVAILABLE, 0, "%s %.150s: there is no such file",
        option, path);
}

static enum wb_status
endpoint_fill(
    struct wb__endpoint *ep, const struct wb_http_opts *o, struct wb_err *err)
{
    struct wb_slice url, ca_file, cert, key, method, headers;
    struct curl_slist *nodes;
    enum wb_status rc;

    ep->base = (struct wb_transport){"http", endpoint_send, endpoint_free};
    ep->content_type = WB_LIT("application/json");
    ep->arena.env = ep->env;
    ep->max_reply =
        o->max_reply_bytes == 0 ? REPLY_DEFAULT : o->max_reply_bytes;
    ep->public_only = o->public_only && o->proxy.len == 0;
    ep->public_host = o->public_only && o->proxy.len > 0;
    ep->follow = o->follow;
    ep->http1 = o->http1;
    nodes = wb__arena_alloc(&ep->arena, (WB__HEADERS_MAX + 1) * sizeof(*nodes));
    if (nodes == NULL || !wb__arena_dup(&ep->arena, o->url, &url) ||
        !wb__arena_dup(&ep->arena, o->ca_file, &ca_file) ||
        !wb__arena_dup(&ep->arena, o->client_cert, &cert) ||
        !wb__arena_dup(&ep->arena, o->client_key, &key) ||
        !wb__arena_dup(&ep->arena, o->proxy, &ep->proxy) ||
        !wb__arena_dup(&ep->arena, o->method, &method) ||
        !wb__arena_dup(&ep->arena, o->headers, &headers) || !masks_fill(ep, o))
        return wb__nomem(err, "http endpoint");
    ep->url = url.ptr;
    ep->ca_file = ca_file.ptr;
    ep->client_cert = cert.ptr;
    ep->client_key = key.ptr;
    ep->method = method.ptr;
    ep->fixed_text = (char *)(uintptr_t)headers.ptr;
    ep->fixed_len = headers.len;
    fixed_link(ep, nodes);
    rc = url.len > 0 ? wb__url_check(url, ep->public_host, err) : WB_OK;
    if (rc == WB_OK)
        rc = file_check("ca_file", ep->ca_file, err);
    if (rc == WB_OK)
        rc = file_check("client_cert", ep->client_cert, err);
    if (rc == WB_OK)
        rc = file_check("client_key", ep->client_key, err);
    if (rc != WB_OK)
        return rc;
    if (o->n_secrets == 0)
        return WB_OK;
    return wb__signer_new(&ep->signer, ep->env, o->secrets, o->n_secrets, err);
}

enum wb_status
wb_http_new(struct wb_transport **out, struct wb_http *http,
    const struct wb_http_opts *opts, struct wb_err *err)
{
    const struct wb_env *env = wb__http_env(http);
    enum wb_status rc = opts_check(opts, err);
    struct wb__endpoint *ep;

    *out = NULL;
    if (rc != WB_OK)
        return rc;
    ep = wb__alloc(env, sizeof(*ep));
    if (ep == NULL)
        return wb__nomem(err, "http endpoint");
    ep->env = env;
    ep->http = http;
    wb__http_ref(http, 1);
    rc = endpoint_fill(ep, opts, err);
    if (rc == WB_OK)
        *out = &ep->base;
    else
        endpoint_free(&ep->base);
    return rc;
}
