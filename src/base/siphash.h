/* siphash.h - a keyed hash for tables whose keys come from strangers. */
#ifndef WB_SRC_BASE_SIPHASH_H
#define WB_SRC_BASE_SIPHASH_H

#include "base/base.h"

/* SipHash-1-3. With a random seed nobody can choose keys that collide. */
uint64_t wb__siphash(const uint64_t seed[2], const void *bytes, size_t len);

#endif /* WB_SRC_BASE_SIPHASH_H */
