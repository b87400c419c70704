/* shim_vfs.c - see shim_vfs.h. */
#include "shim_vfs.h"

#include <sqlite3.h>
#include <string.h>

struct shim shim;

struct shim_file {
    sqlite3_file base;
    int flags;
    sqlite3_file *real; /* lies behind this struct */
};

static sqlite3_vfs *real_vfs;
static sqlite3_io_methods methods;

static sqlite3_file *
real_of(sqlite3_file *f)
{
    return ((struct shim_file *)f)->real;
}

static int
fault(enum shim_op op)
{
    long left = shim.fail_in;

    if (left < 0 || op != (enum shim_op)shim.op)
        return SQLITE_OK;
    left = atomic_fetch_sub(&shim.fail_in, 1);
    if (left > 0)
        return SQLITE_OK;
    if (shim.forever)
        shim.fail_in = 0;
    shim.fired++;
    return shim.code;
}

static int
shim_close(sqlite3_file *f)
{
    return real_of(f)->pMethods->xClose(real_of(f));
}

static int
shim_read(sqlite3_file *f, void *out, int n, sqlite3_int64 at)
{
    int code = fault(SHIM_READ);

    if (shim.on_read != NULL)
        shim.on_read();
    return code != SQLITE_OK
               ? code
               : real_of(f)->pMethods->xRead(real_of(f), out, n, at);
}

static int
shim_write(sqlite3_file *f, const void *in, int n, sqlite3_int64 at)
{
    int code = fault(SHIM_WRITE);

    shim.writes++;
    return code != SQLITE_OK
               ? code
               : real_of(f)->pMethods->xWrite(real_of(f), in, n, at);
}

static int
shim_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    return real_of(f)->pMethods->xTruncate(real_of(f), size);
}

static int
shim_sync(sqlite3_file *f, int flags)
{
    int code = fault(SHIM_SYNC);

    if ((((struct shim_file *)f)->flags & SQLITE_OPEN_WAL) != 0)
        shim.wal_syncs++;
    else
        shim.main_syncs++;
    return code != SQLITE_OK ? code
                             : real_of(f)->pMethods->xSync(real_of(f), flags);
}

static int
shim_size(sqlite3_file *f, sqlite3_int64 *size)
{
    return real_of(f)->pMethods->xFileSize(real_of(f), size);
}

static int
shim_lock(sqlite3_file *f, int lock)
{
    return real_of(f)->pMethods->xLock(real_of(f), lock);
}

static int
shim_unlock(sqlite3_file *f, int lock)
{
    return real_of(f)->pMethods->xUnlock(real_of(f), lock);
}

static int
shim_reserved(sqlite3_file *f, int *out)
{
    return real_of(f)->pMethods->xCheckReservedLock(real_of(f), out);
}

static int
shim_control(sqlite3_file *f, int op, void *arg)
{
    return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int
shim_sector(sqlite3_file *f)
{
    return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int
shim_traits(sqlite3_file *f)
{
    return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

static int
shim_shm_map(
    sqlite3_file *f, int region, int size, int extend, void volatile **out)
{
    int code = fault(SHIM_SHM);

    return code != SQLITE_OK ? code
                             : real_of(f)->pMethods->xShmMap(
                                   real_of(f), region, size, extend, out);
}

static int
shim_shm_lock(sqlite3_file *f, int at, int n, int flags)
{
    return real_of(f)->pMethods->xShmLock(real_of(f), at, n, flags);
}

static void
shim_shm_barrier(sqlite3_file *f)
{
    real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int
shim_shm_unmap(sqlite3_file *f, int del)
{
    return real_of(f)->pMethods->xShmUnmap(real_of(f), del);
}

static int
shim_open(
    sqlite3_vfs *vfs, const char *path, sqlite3_file *f, int flags, int *out)
{
    struct shim_file *s = (struct shim_file *)f;
    int code;

    (void)vfs;
    memset(s, 0, sizeof(*s));
    s->flags = flags;
    s->real = (sqlite3_file *)(s + 1);
    code = real_vfs->xOpen(real_vfs, path, s->real, flags, out);
    if (s->real->pMethods != NULL)
        f->pMethods = &methods;
    return code;
}

void
shim_install(void)
{
    static sqlite3_vfs vfs;

    shim_heal();
    shim.wal_syncs = shim.main_syncs = shim.writes = 0;
    shim.on_read = NULL;
    if (real_vfs != NULL)
        return;
    real_vfs = sqlite3_vfs_find(NULL);
    methods = (sqlite3_io_methods){2, shim_close, shim_read, shim_write,
        shim_truncate, shim_sync, shim_size, shim_lock, shim_unlock,
        shim_reserved, shim_control, shim_sector, shim_traits, shim_shm_map,
        shim_shm_lock, shim_shm_barrier, shim_shm_unmap, NULL, NULL};
    vfs = *real_vfs;
    vfs.zName = "shim";
    vfs.szOsFile = real_vfs->szOsFile + (int)sizeof(struct shim_file);
    vfs.xOpen = shim_open;
    (void)sqlite3_vfs_register(&vfs, 0);
}

void
shim_fail(enum shim_op op, long in, int code, bool forever)
{
    shim.fired = 0;
    shim.op = (int)op;
    shim.code = code;
    shim.forever = forever;
    shim.fail_in = in;
}

void
shim_heal(void)
{
    shim.fail_in = -1;
    shim.fired = 0;
}
