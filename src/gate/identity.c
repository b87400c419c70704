/* identity.c - whose request it is: from a header or a cookie that a trusted
 * server in front has set, a claim of a token that it has checked, or a hash of
 * Authorization. (G-3)
 *
 *  1. Each kind has a prefix: no value of one equals a value of another.
 *  2. A credential is never stored as it is, only its hash. */
#include "gate/gate_internal.h"

#include <jansson.h>
#include <stdio.h>

enum {
    NAME_PLAIN_MAX = 240, /* longer ones are hashed */
    TOKEN_MAX = 8 << 10
};

static enum wb__found
hash_name(struct wb_slice prefix, struct wb_slice value, struct wb__name *out)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t hash[32];

    if (!wb__sha256(&value, 1, hash))
        return WB__FOUND_NOMEM;
    memcpy(out->text, prefix.ptr, prefix.len);
    out->len = prefix.len;
    for (size_t i = 0; i < sizeof(hash); i++) {
        out->text[out->len++] = digits[hash[i] >> 4];
        out->text[out->len++] = digits[hash[i] & 15];
    }
    return WB__FOUND_ONE;
}

/* The value as it is where it can be shown, else its hash. */
static enum wb__found
plain_name(struct wb_slice prefix, struct wb_slice hash_prefix,
    struct wb_slice value, struct wb__name *out)
{
    if (value.len > NAME_PLAIN_MAX || !wb__printable(value))
        return hash_name(hash_prefix, value, out);
    out->len = prefix.len + value.len;
    (void)wb__append(wb__append(out->text, prefix), value);
    return WB__FOUND_ONE;
}

/* ---- cookie ------------------------------------------------------------- */

static enum wb__found
from_cookie(
    struct wb_slice headers, struct wb_slice wanted, struct wb__name *out)
{
    struct wb_slice name, value, pair, key, found = {NULL, 0};
    int n = 0;

    while (wb__headers_next(&headers, &name, &value)) {
        if (!wb__eq_nocase(name, WB_LIT("Cookie")))
            continue;
        while (wb__cut(&value, ';', &pair)) {
            pair = wb__trim(pair);
            if (wb__cut(&pair, '=', &key) && wb__eq(key, wanted) && n++ == 0)
                found = pair;
        }
    }
    if (n > 1)
        return WB__FOUND_BAD;
    if (n == 0 || found.len == 0)
        return WB__FOUND_NONE;
    return hash_name(WB_LIT("cookie:"), found, out);
}

/* ---- claim of a token --------------------------------------------------- */

static int
digit_of(char c)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrst"
        "uvwxyz0123456789-_";
    const char *at = c == '\0' ? NULL : strchr(digits, c);

    return at == NULL ? -1 : (int)(at - digits);
}

/* Base64 for URLs, without padding. out holds 3/4 of the text. */
static bool
decode(struct wb_slice text, char *out, size_t *len)
{
    uint32_t bits = 0;
    int n = 0;

    *len = 0;
    for (size_t i = 0; i < text.len; i++) {
        int digit = digit_of(text.ptr[i]);

        if (digit < 0)
            return false;
        bits = bits << 6 | (uint32_t)digit;
        n += 6;
        if (n >= 8) {
            n -= 8;
            out[(*len)++] = (char)(bits >> n & 0xff);
        }
    }
    return text.len % 4 != 1;
}

/* The claims of `Bearer HEAD.CLAIMS.SIGNATURE`, or NULL. */
static json_t *
read_claims(struct wb_slice value)
{
    struct wb_slice scheme, token, part = {NULL, 0};
    char text[TOKEN_MAX];
    size_t len;

    if (!wb__cut(&value, ' ', &scheme) ||
        !wb__eq_nocase(scheme, WB_LIT("Bearer")))
        return NULL;
    token = wb__trim(value);
    if (!wb__cut(&token, '.', &part) || !wb__cut(&token, '.', &part) ||
        token.len == 0 || part.len > sizeof(text) || !decode(part, text, &len))
        return NULL;
    return json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
}

/* A claim that is a text or a whole number; empty where it is neither. */
static struct wb_slice
read_claim(const json_t *claims, struct wb_slice name, char number[32])
{
    char name_z[256];
    const json_t *claim;

    (void)snprintf(name_z, sizeof(name_z), "%.*s", (int)name.len, name.ptr);
    claim = json_object_get(claims, name_z);
    if (json_is_string(claim))
        return (struct wb_slice){
            json_string_value(claim), json_string_length(claim)};
    if (!json_is_integer(claim))
        return (struct wb_slice){NULL, 0};
    (void)snprintf(
        number, 32, "%" JSON_INTEGER_FORMAT, json_integer_value(claim));
    return wb_slice(number);
}

/* All claims of the list, divided by NUL, which no JSON text has here. */
static enum wb__found
join_claims(const json_t *claims, struct wb_slice list, struct wb__name *out)
{
    char text[TOKEN_MAX], number[32];
    struct wb_slice name, value;
    size_t len = 0;

    while (wb__cut(&list, ',', &name)) {
        value = read_claim(claims, wb__trim(name), number);
        if (value.len == 0)
            return WB__FOUND_NONE;
        if (len + value.len + 1 > sizeof(text))
            return WB__FOUND_BAD;
        if (len > 0)
            text[len++] = '\0';
        memcpy(text + len, value.ptr, value.len);
        len += value.len;
    }
    return plain_name(
        WB_LIT("claim:"), WB_LIT("claims:"), (struct wb_slice){text, len}, out);
}

static enum wb__found
from_claims(struct wb_slice headers, struct wb_slice list, struct wb__name *out)
{
    struct wb_slice value = {NULL, 0};
    int n = wb__rule_find_field(headers, WB_LIT("Authorization"), &value);
    enum wb__found found;
    json_t *claims;

    if (n > 1)
        return WB__FOUND_BAD;
    claims = n == 0 ? NULL : read_claims(value);
    if (claims == NULL)
        return WB__FOUND_NONE;
    found = join_claims(claims, list, out);
    json_decref(claims);
    return found;
}

/* ---- all kinds ---------------------------------------------------------- */

enum wb__found
wb__identity_read(const struct wb__gate_opts *o, struct wb_slice headers,
    struct wb__name *identity)
{
    struct wb_slice value = {NULL, 0};
    bool secret = o->identity_header.len == 0;
    int n;

    identity->len = 0;
    if (o->identity_cookie.len > 0)
        return from_cookie(headers, o->identity_cookie, identity);
    if (o->identity_claim.len > 0)
        return from_claims(headers, o->identity_claim, identity);
    n = wb__rule_find_field(
        headers, secret ? WB_LIT("Authorization") : o->identity_header, &value);
    if (n > 1)
        return WB__FOUND_BAD;
    if (n == 0 || value.len == 0)
        return WB__FOUND_NONE;
    return secret ? hash_name(WB_LIT("auth:"), value, identity)
                  : plain_name(WB_LIT("id:"), WB_LIT("hash:"), value, identity);
}

enum wb_status
wb__identity_check(const struct wb__gate_opts *o, struct wb_err *err)
{
    if ((o->identity_header.len > 0) + (o->identity_cookie.len > 0) +
            (o->identity_claim.len > 0) >
        1)
        return wb__fail(err, WB_INVALID, 0,
            "an identity comes from one place; give one of --identity-header, "
            "--identity-cookie and --identity-claim");
    return WB_OK;
}
