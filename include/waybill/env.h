/* waybill/env.h - clock, randomness, memory and file system, given from
 * outside.
 *
 * Tests and simulations hand in their own; NULL anywhere in the library means
 * wb_env_system(). An environment must outlive what was opened with it. */
#ifndef WB_ENV_H
#define WB_ENV_H

#include "waybill/waybill.h"

#ifdef __cplusplus
extern "C" {
#endif

struct wb_env {
    void *ctx; /* first argument of every call below */

    /* Wall clock, milliseconds since the Unix epoch. May jump. */
    int64_t (*wall_ms)(void *ctx);

    /* Monotonic clock, microseconds from an arbitrary start. */
    int64_t (*mono_us)(void *ctx);

    /* Fill out with len unpredictable bytes. Cannot fail. */
    void (*random)(void *ctx, void *out, size_t len);

    /* realloc(3), with free(3) for size 0. NULL when out of memory. */
    void *(*resize)(void *ctx, void *ptr, size_t size);

    /* Name of the SQLite VFS to open databases with; NULL: the default. */
    const char *vfs;

    /* Wait. NULL: the machine's; a clock that is moved by hand moves here. */
    void (*sleep_us)(void *ctx, int64_t us);

    /* The monotonic clock in milliseconds, a few of them late, where that is
     * much cheaper. Used alone, never beside mono_us. NULL: mono_us / 1000. */
    int64_t (*coarse_ms)(void *ctx);
};

/* Clock, getrandom and malloc of this machine. Static. Threads: any. */
const struct wb_env *wb_env_system(void);

#ifdef __cplusplus
}
#endif
#endif /* WB_ENV_H */
