/* route.c - the fields of a route, and the route they make.
 *
 * (1) Fields that do not fit the transport, or each other, are errors.
 * (2) A signing key is 24 to 64 bytes, decoded here; it is never shown. */
#include <openssl/evp.h>

#include "script/script.h"
#include "transport/http.h"

enum {
    KEY_MIN = 24,
    KEY_MAX = 64,
    KEYS_MAX = 8
};

/* ---- fields ------------------------------------------------------------ */

static const char *const transports[] = {"http", "exec", "file", NULL};
const char *const wb__route_methods[] = {
    "POST", "PUT", "PATCH", "DELETE", "GET", NULL};
static const char *const formats[] = {"array", "ndjson", NULL};

#define AT(member) offsetof(struct wb__route_spec, member)
#define HTTP       WB__ON_HTTP
#define ALL        WB__ON_ALL

/* clang-format off */
static const struct wb__field retry_fields[] = {
    {"base", WB__TYPE_DURATION, ALL, AT(retry.base_ms), 0, WB__MS_MAX, NULL, NULL},
    {"cap", WB__TYPE_DURATION, ALL, AT(retry.cap_ms), 0, WB__MS_MAX, NULL, NULL},
    {"factor", WB__TYPE_COUNT, ALL, AT(retry.factor), 1, 1000, NULL, NULL},
    {"attempts", WB__TYPE_COUNT, ALL, AT(retry.max_attempts), 1, 1000, NULL, NULL},
    {"immediate", WB__TYPE_BOOL, ALL, AT(immediate), 0, 0, NULL, NULL},
    {"retry_after", WB__TYPE_DURATION, ALL, AT(retry.retry_after_ms), 0, WB__MS_MAX, NULL, NULL},
    {"rejected", WB__TYPE_BOOL, ALL, AT(retry.retry_rejected), 0, 0, NULL, NULL},
    {"busy_is_free", WB__TYPE_BOOL, ALL, AT(route.busy_is_free), 0, 0, NULL, NULL},
};
static const struct wb__field breaker_fields[] = {
    {"failures", WB__TYPE_COUNT, ALL, AT(breaker.failures), 1, 1000000, NULL, NULL},
    {"open", WB__TYPE_DURATION, ALL, AT(breaker.open_ms), 1, WB__MS_MAX, NULL, NULL},
    {"scope", WB__TYPE_VALUE, ALL, AT(scope), 1, 255, NULL, NULL},
};
static const struct wb__field batch_fields[] = {
    {"max", WB__TYPE_COUNT, HTTP, AT(route.batch), 1, 64, NULL, NULL},
    {"format", WB__TYPE_WORD, HTTP, AT(format), 0, 0, formats, NULL},
    {"bytes", WB__TYPE_SIZE, HTTP, AT(route.batch_bytes), 1, INT64_C(1) << 30, NULL, NULL},
    {"results", WB__TYPE_FUNCTION, HTTP, AT(results), 0, 0, NULL, NULL},
};
static const struct wb__schema retry_schema = {retry_fields, WB_COUNT(retry_fields), AT(delays)};
static const struct wb__schema breaker_schema = {breaker_fields, WB_COUNT(breaker_fields), 0};
static const struct wb__schema batch_schema = {batch_fields, WB_COUNT(batch_fields), 0};

static const struct wb__field route_fields[] = {
    {"transport", WB__TYPE_WORD, ALL, AT(transport), 0, 0, transports, NULL},
    {"url", WB__TYPE_VALUE, HTTP, AT(url), 1, WB__URL_MAX, NULL, NULL},
    {"method", WB__TYPE_WORD, HTTP, AT(method), 0, 0, wb__route_methods, NULL},
    {"headers", WB__TYPE_HEADERS, HTTP, AT(headers), 0, 0, NULL, NULL},
    {"secret", WB__TYPE_SECRET, HTTP, AT(secret), 0, 0, NULL, NULL},
    {"secrets", WB__TYPE_SECRETS, HTTP, AT(secrets), 0, 0, NULL, NULL},
    {"argv", WB__TYPE_LIST, WB__ON_EXEC, AT(argv), 0, 0, NULL, NULL},
    {"path", WB__TYPE_TEXT, WB__ON_FILE, AT(path), 1, 4000, NULL, NULL},
    {"body", WB__TYPE_VALUE, ALL, AT(body), 1, 1000, NULL, NULL},
    {"response", WB__TYPE_FUNCTION, ALL, AT(response), 0, 0, NULL, NULL},
    {"timeout", WB__TYPE_DURATION, ALL, AT(route.timeout_ms), 1, 86400000, NULL, NULL},
    {"concurrency", WB__TYPE_COUNT, ALL, AT(route.concurrency), 1, 1000, NULL, NULL},
    {"rate", WB__TYPE_COUNT, ALL, AT(route.rate_per_s), 1, 1000000, NULL, NULL},
    {"retry", WB__TYPE_GROUP, ALL, 0, 0, 0, NULL, &retry_schema},
    {"breaker", WB__TYPE_GROUP, ALL, 0, 0, 0, NULL, &breaker_schema},
    {"batch", WB__TYPE_GROUP, HTTP, 0, 0, 0, NULL, &batch_schema},
    {"public_only", WB__TYPE_BOOL, HTTP, AT(public_only), 0, 0, NULL, NULL},
    {"follow", WB__TYPE_BOOL, HTTP, AT(follow), 0, 0, NULL, NULL},
    {"http1", WB__TYPE_BOOL, HTTP, AT(http1), 0, 0, NULL, NULL},
    {"ca_file", WB__TYPE_TEXT, HTTP, AT(ca_file), 1, 4000, NULL, NULL},
    {"client_cert", WB__TYPE_TEXT, HTTP, AT(client_cert), 1, 4000, NULL, NULL},
    {"client_key", WB__TYPE_TEXT, HTTP, AT(client_key), 1, 4000, NULL, NULL},
    {"proxy", WB__TYPE_MAYBE_SECRET, HTTP, AT(proxy), 1, WB__URL_MAX, NULL, NULL},
    {"max_reply", WB__TYPE_SIZE, HTTP, AT(max_reply), 1, 16 << 20, NULL, NULL},
    {"disable_on_410", WB__TYPE_BOOL, HTTP, AT(route.disable_on_410), 0, 0, NULL, NULL},
};
/* clang-format on */
const struct wb__schema wb__route_schema = {
    route_fields, WB_COUNT(route_fields), 0};

/* ---- keys -------------------------------------------------------------- */

/* Bytes of base64 text into out, which holds 3/4 of its length; -1 if it is
 * not base64. */
static int
decode(struct wb_slice s, unsigned char *out)
{
    int n = s.len % 4 == 0
                ? EVP_DecodeBlock(out, (const unsigned char *)s.ptr, (int)s.len)
                : -1;

    for (size_t i = s.len; n > 0 && i > s.len - 2 && s.ptr[i - 1] == '='; i--)
        n--; /* EVP_DecodeBlock() counts the padding as bytes */
    return n;
}

/* Replace whsec_ and base64 by the key itself. */
static void
decode_key(const struct wb__record *r, const char *field, struct wb__value *key)
{
    unsigned char bytes[KEY_MAX * 2];
    struct wb_slice text = key->text;

    if (key->absent != NULL)
        return;
    if (wb__starts(text, WB_LIT("whsec_"))) {
        int n = -1;

        text = wb__from(text, sizeof("whsec_") - 1);
        if (text.len <= sizeof(bytes))
            n = decode(text, bytes);
        if (n < 0)
            wb__record_fail(r, field,
                "%s: what stands behind whsec_ is no key in base64", field);
        wb__secret_push(r->L, (struct wb_slice){(char *)bytes, (size_t)n});
        explicit_bzero(bytes, sizeof(bytes));
        (void)wb__text_at(r->L, -1, key);
        (void)luaL_ref(r->L, LUA_REGISTRYINDEX);
    }
    if (key->text.len < KEY_MIN || key->text.len > KEY_MAX)
        wb__record_fail(r, field,
            "%s: a key has %d to %d bytes, this one has %zu; write whsec_ "
            "and the bytes in base64",
            field, KEY_MIN, KEY_MAX, key->text.len);
}

static void
check_keys(const struct wb__record *r, struct wb__route_spec *spec)
{
    if (spec->secret.secret && spec->secrets.n > 0)
        wb__record_fail(r, "secret", "secret and secrets; keep one of them");
    if (spec->secrets.n > KEYS_MAX)
        wb__record_fail(r, "secrets", "secrets has more than 8 keys");
    if (spec->secret.secret)
        decode_key(r, "secret", &spec->secret);
    for (size_t i = 0; i < spec->secrets.n; i++)
        decode_key(r, "secrets", &spec->secrets.item[i]);
}

/* ---- rules between fields ---------------------------------------------- */

static void
check_transport(const struct wb__record *r, const struct wb__route_spec *spec)
{
    for (size_t i = 0; i < wb__route_schema.n; i++) {
        const struct wb__field *f = &wb__route_schema.field[i];
        int kind = 0; /* the first that has the field */

        while ((f->on & 1U << kind) == 0)
            kind++;
        lua_pushstring(r->L, f->name);
        if (lua_rawget(r->L, 1) != LUA_TNIL &&
            (f->on & 1U << spec->transport) == 0)
            wb__record_fail(r, f->name,
                "%s is for transport = \"%s\", this is \"%s\"", f->name,
                transports[kind], transports[spec->transport]);
        lua_pop(r->L, 1);
    }
    if (spec->transport == WB__TRANSPORT_EXEC && spec->argv.n == 0)
        wb__record_fail(
            r, NULL, "no argv; write argv = { \"command\", \"argument\" }");
    if (spec->transport == WB__TRANSPORT_FILE && spec->path.text.len == 0)
        wb__record_fail(r, NULL, "no path; write path = \"/a/file\"");
}

static void
check_url(const struct wb__record *r, const struct wb__route_spec *spec)
{
    const struct wb__value *url = &spec->url;
    struct wb_err err;

    if (spec->transport == WB__TRANSPORT_HTTP && url->function == 0 &&
        url->text.len == 0 && url->absent == NULL)
        wb__record_fail(r, NULL, "no url; write url = \"https://…\"");
    if (url->text.len > 0 && url->absent == NULL &&
        wb__template_check(url->text, &err) != WB_OK)
        wb__record_fail(r, "url", "%s",
            url->secret
                ? "the url, which has a secret in it, is not a valid one"
                : err.msg);
    if (spec->route.batch > 1 &&
        (url->function != 0 || wb__template_has_fields(url->text)))
        wb__record_fail(r, "batch",
            "a batch goes to one url; this url depends on the message");
}

/* "direct" is what an absent one means, said on purpose. */
static void
check_proxy(const struct wb__record *r, const struct wb__route_spec *spec)
{
    const struct wb__value *proxy = &spec->proxy;
    struct wb_err err;

    if (proxy->text.len == 0 || proxy->absent != NULL ||
        wb__eq(proxy->text, WB_LIT("direct")))
        return;
    if (wb__proxy_check_syntax(proxy->text, &err) != WB_OK)
        wb__record_fail(r, "proxy", "%s", err.msg);
    if (!proxy->secret && wb__url_user_len(proxy->text) > 0)
        wb__record_fail(r, "proxy",
            "the proxy has a password, which is a secret; write "
            "\"http://\" .. env \"USER_AND_PASSWORD\" .. \"@host:port\"");
}

static void
check_scope(const struct wb__record *r, const struct wb__route_spec *spec)
{
    struct wb__record in = {r->L, r->keyword, r->name, r->line, "breaker"};
    struct wb_err err;

    if (spec->scope.secret)
        wb__record_fail(&in, "scope",
            "breaker.scope wants text or a function, not a secret: it is "
            "shown");
    if (wb__scope_check(spec->scope.text, &err) != WB_OK)
        wb__record_fail(&in, "scope", "breaker.scope: %s", err.msg);
}

/* A path is relative to the configuration's folder. */
static void
in_folder(const struct wb__record *r, struct wb__value *path)
{
    if (path->text.len == 0 || path->text.ptr[0] == '/')
        return;
    lua_pushfstring(r->L, "%s%s", wb__script_of(r->L)->folder, path->text.ptr);
    (void)wb__text_at(r->L, -1, path);
    (void)luaL_ref(r->L, LUA_REGISTRYINDEX);
}

static void
check_retry(const struct wb__record *r, struct wb__route_spec *spec)
{
    static const struct wb_retry_policy standard = WB_RETRY_POLICY_DEFAULT,
                                        immediate = WB_RETRY_POLICY_IMMEDIATE;
    const struct wb_retry_policy *d = spec->immediate ? &immediate : &standard;
    struct wb__record in = {r->L, r->keyword, r->name, r->line, "retry"};
    struct wb_retry_policy *p = &spec->retry;
    const char *field = p->cap_ms >= 0 ? "cap" : "base";

    if (spec->delays.n > 0 &&
        (spec->immediate || p->base_ms >= 0 || p->cap_ms >= 0 || p->factor > 0))
        wb__record_fail(&in, NULL,
            "a list of delays goes without base, cap, factor and immediate");
    p->delays_ms = spec->delays.ms;
    p->n_delays = spec->delays.n;
    if (p->max_attempts == 0)
        p->max_attempts =
            spec->delays.n > 0 ? spec->delays.n + 1 : d->max_attempts;
    if (spec->immediate && (p->base_ms >= 0 || p->cap_ms >= 0 || p->factor > 0))
        wb__record_fail(&in, "immediate",
            "retry.immediate goes without base, cap and factor");
    if (p->base_ms < 0)
        p->base_ms = d->base_ms;
    if (p->cap_ms < 0)
        p->cap_ms = d->cap_ms;
    if (p->factor == 0)
        p->factor = d->factor;
    if (p->cap_ms < p->base_ms)
        wb__record_fail(&in, field, "retry.cap is less than retry.base");
}

void
wb__route_check(const struct wb__record *record, struct wb__route_spec *spec)
{
    struct wb_slice body = spec->body.text;

    check_transport(record, spec);
    in_folder(record, &spec->path);
    in_folder(record, &spec->ca_file);
    in_folder(record, &spec->client_cert);
    in_folder(record, &spec->client_key);
    check_url(record, spec);
    check_proxy(record, spec);
    if (body.len > 0 && !wb__path_valid(body))
        wb__record_fail(record, "body",
            "body wants the name of a field of the payload, or a function");
    if ((spec->client_cert.text.len > 0) != (spec->client_key.text.len > 0))
        wb__record_fail(record,
            spec->client_cert.text.len > 0 ? "client_cert" : "client_key",
            "client_cert and client_key belong together; name both");
    check_keys(record, spec);
    check_scope(record, spec);
    check_retry(record, spec);
}

/* ---- the route --------------------------------------------------------- */

/* To be shown; NULL if a part of it is secret or comes from a function. */
static const char *
endpoint_of(const struct wb__route_spec *spec)
{
    if (spec->transport == WB__TRANSPORT_EXEC)
        return spec->argv.item[0].text.ptr;
    if (spec->transport == WB__TRANSPORT_FILE)
        return spec->path.text.ptr;
    return spec->url.secret ? NULL : spec->url.text.ptr;
}

enum wb_status
wb__route_make(struct wb__script *s, const struct wb__route_spec *spec,
    struct wb_route *route, struct wb_err *err)
{
    *route = spec->route;
    route->kind = spec->name;
    route->endpoint = endpoint_of(spec);
    if (!wb__template_has_fields(spec->scope.text))
        route->scope = spec->scope.text.ptr;
    route->retry = &spec->retry;
    route->breaker = &spec->breaker;
    route->batch_ndjson = spec->format == 1;
    return wb__hooks_attach(s, spec, route, err);
}
