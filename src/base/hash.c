/* hash.c - SHA-256 over parts that are framed by their lengths, so that
 * ("a", "bc") and ("ab", "c") differ. */
#include <openssl/evp.h>

#include "base/base.h"

bool
wb__sha256(const struct wb_slice *parts, size_t n, uint8_t out[32])
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;

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
