/* route.c - from checked fields to a route and its transport.
 *
 * (1) Fields that do not belong to the transport, or not together, are errors.
 * (2) A signing key is 24 to 64 bytes, decoded here; it is never shown. */
#include <openssl/evp.h>
#include <stdio.h>

#include "script/script.h"

enum {
    KEY_LEAST = 24,
    KEY_MOST = 64
};

/* ---- keys -------------------------------------------------------------- */

/* Bytes of base64 text into out, which has room for 3/4 of it; -1 if it is
 * none. */
static int
decode(struct wb_slice s, unsigned char *out)
{
    int n = s.len % 4 == 0
                ? EVP_DecodeBlock(out, (const unsigned char *)s.ptr, (int)s.len)
                : -1;

    for (size_t i = s.len; n > 0 && i > s.len - 2 && s.ptr[i - 1] == '='; i--)
        n--; /* it counts the padding as bytes */
    return n;
}

/* Put the key itself in place of its text. */
static void
decode_key(lua_State *L, const struct wb__record *r, const char *field,
    struct wb__text *text)
{
    unsigned char bytes[KEY_MOST * 2];
    struct wb_slice key = text->s;

    if (text->absent)
        return;
    if (wb__starts(key, WB_LIT("whsec_"))) {
        int n = -1;

        key = wb__from(key, sizeof("whsec_") - 1);
        if (key.len <= sizeof(bytes))
            n = decode(key, bytes);
        if (n < 0)
            wb__record_fail(L, r, WB_INVALID, field,
                "%s: what stands behind whsec_ is no key in base64", field);
        wb__secret_push(L, (struct wb_slice){(char *)bytes, (size_t)n});
        explicit_bzero(bytes, sizeof(bytes));
        (void)wb__text_at(L, -1, text);
        (void)luaL_ref(L, LUA_REGISTRYINDEX);
    }
    if (text->s.len < KEY_LEAST || text->s.len > KEY_MOST)
        wb__record_fail(L, r, WB_INVALID, field,
            "%s: a key has %d to %d bytes, this one has %zu; write whsec_ "
            "and the bytes in base64",
            field, KEY_LEAST, KEY_MOST, text->s.len);
}

/* ---- what must hold together ------------------------------------------- */

static const char *
transport_name(int64_t transport)
{
    static const char *const names[] = {
        [WB__TRANSPORT_HTTP] = "http",
        [WB__TRANSPORT_EXEC] = "exec",
        [WB__TRANSPORT_FILE] = "file",
    };

    return names[transport];
}

static void
check_fit(lua_State *L, int at, const struct wb__route_spec *spec,
    const struct wb__record *r)
{
    unsigned here = 1U << spec->transport;

    for (size_t i = 0; i < wb__route_schema.n; i++) {
        const struct wb__field *f = &wb__route_schema.field[i];

        lua_pushstring(L, f->name);
        if (lua_rawget(L, at) != LUA_TNIL && (f->on & here) == 0)
            wb__record_fail(L, r, WB_INVALID, f->name,
                "%s is for transport = \"%s\", this is \"%s\"", f->name,
                f->on == WB__ON_HTTP   ? "http"
                : f->on == WB__ON_EXEC ? "exec"
                                       : "file",
                transport_name(spec->transport));
        lua_pop(L, 1);
    }
}

static void
check_target(
    lua_State *L, const struct wb__route_spec *spec, const struct wb__record *r)
{
    const struct wb__value *url = &spec->url;
    bool named = url->function != 0 || url->text.s.len > 0 || url->text.absent;
    struct wb_err err;

    if (spec->transport == WB__TRANSPORT_EXEC && spec->argv.n == 0)
        wb__record_fail(L, r, WB_INVALID, NULL,
            "no argv; write argv = { \"command\", \"argument\" }");
    if (spec->transport == WB__TRANSPORT_FILE && spec->path.s.len == 0)
        wb__record_fail(
            L, r, WB_INVALID, NULL, "no path; write path = \"/a/file\"");
    if (spec->transport == WB__TRANSPORT_HTTP && !named)
        wb__record_fail(
            L, r, WB_INVALID, NULL, "no url; write url = \"https://…\"");
    if (url->text.s.len > 0 && !url->text.absent &&
        wb__template_check(url->text.s, &err) != WB_OK)
        wb__record_fail(L, r, WB_INVALID, "url", "%s",
            url->text.secret ? "the url, which has a secret in it, is none"
                             : err.msg);
    if (spec->body.text.s.len > 0 && !wb__path_valid(spec->body.text.s))
        wb__record_fail(L, r, WB_INVALID, "body",
            "body wants the name of a field of the payload, or a function");
}

static void
check_keys(
    lua_State *L, struct wb__route_spec *spec, const struct wb__record *r)
{
    if (spec->secret.secret && spec->secrets.n > 0)
        wb__record_fail(
            L, r, WB_INVALID, "secret", "secret and secrets; keep one of them");
    if (spec->secrets.n > 8)
        wb__record_fail(
            L, r, WB_INVALID, "secrets", "secrets has more than 8 keys");
    if (spec->secret.secret)
        decode_key(L, r, "secret", &spec->secret);
    for (size_t i = 0; i < spec->secrets.n; i++)
        decode_key(L, r, "secrets", &spec->secrets.item[i]);
}

static void
check_retry(
    lua_State *L, const struct wb__route_spec *spec, const struct wb__record *r)
{
    static const struct wb_retry_policy standard = WB_RETRY_POLICY_DEFAULT;
    struct wb__record in = {r->keyword, r->name, r->line, "retry"};
    int64_t base = spec->base_ms >= 0 ? spec->base_ms : standard.base_ms;
    int64_t cap = spec->cap_ms >= 0 ? spec->cap_ms : standard.cap_ms;

    if (spec->immediate &&
        (spec->base_ms >= 0 || spec->cap_ms >= 0 || spec->factor > 0))
        wb__record_fail(L, &in, WB_INVALID, "immediate",
            "retry.immediate goes without base, cap and factor");
    if (cap < base)
        wb__record_fail(L, &in, WB_INVALID, spec->cap_ms >= 0 ? "cap" : "base",
            "retry.cap is less than retry.base");
}

static void
check_batch(
    lua_State *L, const struct wb__route_spec *spec, const struct wb__record *r)
{
    if (spec->batch > 1 &&
        (spec->url.function != 0 || wb__template_has_fields(spec->url.text.s)))
        wb__record_fail(L, r, WB_INVALID, "batch",
            "a batch goes to one url; this url depends on the message");
}

void
wb__route_check(lua_State *L, int at, struct wb__route_spec *spec,
    const struct wb__record *record)
{
    check_fit(L, at, spec, record);
    check_target(L, spec, record);
    check_keys(L, spec, record);
    check_retry(L, spec, record);
    check_batch(L, spec, record);
}

/* ---- the route --------------------------------------------------------- */

static struct wb_retry_policy
retry_of(const struct wb__route_spec *spec)
{
    struct wb_retry_policy p = WB_RETRY_POLICY_DEFAULT;
    static const struct wb_retry_policy immediate = WB_RETRY_POLICY_IMMEDIATE;

    if (spec->immediate)
        p = immediate;
    if (spec->base_ms >= 0)
        p.base_ms = spec->base_ms;
    if (spec->cap_ms >= 0)
        p.cap_ms = spec->cap_ms;
    if (spec->factor > 0)
        p.factor = (uint32_t)spec->factor;
    if (spec->attempts > 0)
        p.max_attempts = (uint32_t)spec->attempts;
    if (spec->retry_after_ms >= 0)
        p.retry_after_ms = spec->retry_after_ms;
    p.retry_rejected = spec->retry_rejected;
    return p;
}

static struct wb_breaker_policy
breaker_of(const struct wb__route_spec *spec)
{
    struct wb_breaker_policy p = WB_BREAKER_POLICY_DEFAULT;

    if (spec->failures > 0)
        p.failures = (uint32_t)spec->failures;
    if (spec->open_ms > 0)
        p.open_ms = spec->open_ms;
    return p;
}

/* For people; none where a part of it is secret or comes from a function. */
static const char *
endpoint_of(const struct wb__route_spec *spec)
{
    if (spec->transport == WB__TRANSPORT_EXEC)
        return spec->argv.item[0].s.ptr;
    if (spec->transport == WB__TRANSPORT_FILE)
        return spec->path.s.ptr;
    return spec->url.text.secret ? NULL : spec->url.text.s.ptr;
}

enum wb_status
wb__route_make(struct wb__script *s, const struct wb__route_spec *spec,
    struct wb_route *route, struct wb_err *err)
{
    struct wb_retry_policy *retry = wb__arena_alloc(&s->arena, sizeof(*retry));
    struct wb_breaker_policy *breaker =
        wb__arena_alloc(&s->arena, sizeof(*breaker));

    if (retry == NULL || breaker == NULL)
        return wb__nomem(err, spec->name);
    *retry = retry_of(spec);
    *breaker = breaker_of(spec);
    *route = (struct wb_route){
        .kind = spec->name,
        .endpoint = endpoint_of(spec),
        .scope = spec->scope.s.ptr,
        .retry = retry,
        .breaker = breaker,
        .timeout_ms = spec->timeout_ms,
        .concurrency = (uint32_t)spec->concurrency,
        .rate_per_s = (uint32_t)spec->rate,
        .batch = (uint32_t)spec->batch,
        .batch_ndjson = spec->format == 1,
        .disable_on_410 = spec->disable_on_410,
    };
    return wb__hooks_attach(s, spec, route, err);
}
