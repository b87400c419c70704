/* sign.c - Standard Webhooks signatures: HMAC-SHA256 over id.timestamp.body.
 *
 * (1) A key is kept in OpenSSL's context only, which wipes it when freed (S9).
 * (2) Every key makes one signature, in the order given: key rotation (S7). */
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include "transport/http.h"

enum {
    KEYS_MAX = 8,
    KEY_LEAST = 24,
    KEY_MOST = 64,
    MAC_LEN = 32
};

struct wb__signer {
    const struct wb_env *env;
    size_t n;
    EVP_MAC_CTX *key[KEYS_MAX];
};

/* A context with the key. EVP_MAC_init() without a key reuses it: the key is
 * not hashed again for every message. */
static EVP_MAC_CTX *
key_new(EVP_MAC *mac, struct wb_slice secret)
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_end(),
    };
    EVP_MAC_CTX *ctx = EVP_MAC_CTX_new(mac);

    if (ctx == NULL || EVP_MAC_init(ctx, (const unsigned char *)secret.ptr,
                           secret.len, params) == 1)
        return ctx;
    EVP_MAC_CTX_free(ctx);
    return NULL;
}

enum wb_status
wb__signer_new(struct wb__signer **out, const struct wb_env *env,
    const struct wb_slice *secrets, size_t n, struct wb_err *err)
{
    struct wb__signer *s;
    EVP_MAC *mac;

    *out = NULL;
    if (n > KEYS_MAX)
        return wb__fail(
            err, WB_INVALID, 0, "more than %d signing secrets", KEYS_MAX);
    for (size_t i = 0; i < n; i++)
        if (secrets[i].len < KEY_LEAST || secrets[i].len > KEY_MOST)
            return wb__fail(err, WB_INVALID, 0,
                "signing secret %zu has %zu bytes; Standard Webhooks wants %d "
                "to %d",
                i + 1, secrets[i].len, KEY_LEAST, KEY_MOST);
    s = wb__alloc(env, sizeof(*s));
    if (s == NULL)
        return wb__nomem(err, "signing secrets");
    s->env = env;
    mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    while (mac != NULL && s->n < n &&
           (s->key[s->n] = key_new(mac, secrets[s->n])) != NULL)
        s->n++;
    EVP_MAC_free(mac);
    if (s->n < n) {
        wb__signer_free(s);
        return wb__fail(
            err, WB_UNAVAILABLE, 0, "OpenSSL has no HMAC with SHA-256");
    }
    *out = s;
    return WB_OK;
}

void
wb__signer_free(struct wb__signer *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n; i++)
        EVP_MAC_CTX_free(s->key[i]);
    wb__free(s->env, s);
}

bool
wb__sign(struct wb__signer *s, struct wb_slice id, struct wb_slice timestamp,
    struct wb_slice body, struct wb__buf *out)
{
    const struct wb_slice parts[] = {
        id, WB_LIT("."), timestamp, WB_LIT("."), body};
    unsigned char mac[MAC_LEN];
    size_t len;

    for (size_t i = 0; i < s->n; i++) {
        EVP_MAC_CTX *ctx = s->key[i];
        bool ok = EVP_MAC_init(ctx, NULL, 0, NULL) == 1;

        for (size_t p = 0; p < WB_COUNT(parts) && ok; p++)
            ok = parts[p].len == 0 ||
                 EVP_MAC_update(ctx, (const unsigned char *)parts[p].ptr,
                     parts[p].len) == 1;
        if (!ok || EVP_MAC_final(ctx, mac, &len, sizeof(mac)) != 1)
            return false;
        wb__buf_str(out, i == 0 ? "v1," : " v1,");
        wb__base64(out, (struct wb_slice){(const char *)mac, len});
    }
    return out->failed == WB_OK;
}
