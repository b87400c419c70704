/* hash.c - SHA-256 over parts that are framed by their lengths, so that
 * ("a", "bc") and ("ab", "c") differ. */
#include <openssl/evp.h>

#include "base/base.h"

/* Found once: each look-up costs as much as a short hash. Threads that race
 * all use the first that was kept. */
static const EVP_MD *
sha256(void)
{
    static EVP_MD *found;
    EVP_MD *md = __atomic_load_n(&found, __ATOMIC_ACQUIRE), *none = NULL;

    if (md != NULL)
        return md;
    md = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (md != NULL && !__atomic_compare_exchange_n(&found, &none, md, false,
                          __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        EVP_MD_free(md);
        md = none;
    }
    return md;
}

bool
wb__sha256(const struct wb_slice *parts, size_t n, uint8_t out[32])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const EVP_MD *md = sha256();
    bool ok =
        ctx != NULL && md != NULL && EVP_DigestInit_ex(ctx, md, NULL) == 1;

    for (size_t i = 0; i < n && ok; i++) {
        uint8_t len[8];

        for (int b = 0; b < 8; b++)
            len[b] = (uint8_t)((uint64_t)parts[i].len >> (8 * b));
        ok = EVP_DigestUpdate(ctx, len, sizeof(len)) == 1 &&
             EVP_DigestUpdate(ctx, parts[i].ptr, parts[i].len) == 1;
    }
    ok = ok && EVP_DigestFinal_ex(ctx, out, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}
