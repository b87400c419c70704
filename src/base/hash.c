/* hash.c - SHA-256 of a list of parts, and SipHash for hash tables. */
#include <openssl/evp.h>

#include "base/base.h"

/* Fetched once: a fetch costs as much as a short hash. Of threads that race,
 * the first one to store its result wins, and all use that one. */
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

/* ---- SipHash-1-3, after the reference of Aumasson and Bernstein --------- */

struct sip {
    uint64_t a, b, c, d;
};

static inline uint64_t
rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void
sip_round(struct sip *v)
{
    v->a += v->b;
    v->b = rotate(v->b, 13) ^ v->a;
    v->a = rotate(v->a, 32);
    v->c += v->d;
    v->d = rotate(v->d, 16) ^ v->c;
    v->a += v->d;
    v->d = rotate(v->d, 21) ^ v->a;
    v->c += v->b;
    v->b = rotate(v->b, 17) ^ v->c;
    v->c = rotate(v->c, 32);
}

static inline void
sip_word(struct sip *v, uint64_t word)
{
    v->d ^= word;
    sip_round(v);
    v->a ^= word;
}

uint64_t
wb__siphash(const uint64_t seed[2], const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    struct sip v = {seed[0] ^ 0x736f6d6570736575, seed[1] ^ 0x646f72616e646f6d,
        seed[0] ^ 0x6c7967656e657261, seed[1] ^ 0x7465646279746573};
    uint64_t word, last = (uint64_t)len << 56;

    for (size_t left = len; left >= 8; left -= 8, p += 8) {
        /* Either byte order will do: a hash never leaves the process. */
        memcpy(&word, p, 8);
        sip_word(&v, word);
    }
    for (size_t i = 0; i < (len & 7); i++)
        last |= (uint64_t)p[i] << (8 * i);
    sip_word(&v, last);
    v.c ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(&v);
    return v.a ^ v.b ^ v.c ^ v.d;
}
