/* shim_vfs.h - a SQLite VFS over the default one that counts what reaches the
 * disk and can make it fail. Its name is "shim"; give it to an environment:
 *
 *     shim_install();          counters 0, no fault
 *     fake_env.env.vfs = "shim";
 */
#ifndef WB_TEST_SHIM_VFS_H
#define WB_TEST_SHIM_VFS_H

#include <stdatomic.h>
#include <stdbool.h>

enum shim_op {
    SHIM_WRITE,
    SHIM_SYNC,
    SHIM_READ,
    SHIM_SHM,
    SHIM_OPS
};

struct shim {
    atomic_long wal_syncs, main_syncs, writes;
    atomic_int op;         /* which enum shim_op fails */
    atomic_long fail_in;   /* the n-th from now on (0: the next); < 0: none */
    atomic_bool forever;   /* and every one after it */
    atomic_int code;       /* with this SQLite code */
    atomic_long fired;     /* faults that happened */
    void (*on_read)(void); /* called before each read; NULL: nothing */
};
extern struct shim shim;

void shim_install(void);
void shim_fail(enum shim_op op, long in, int code, bool forever);
void shim_heal(void);

#endif /* WB_TEST_SHIM_VFS_H */
