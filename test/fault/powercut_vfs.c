/* powercut_vfs.c - the file system as SQLite sees it. See powercut_vfs.h. */
#include "powercut_vfs.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "powercut_disk.h"
#include "random.h"

/* An open file. */
struct handle {
    sqlite3_file base;
    struct powercut *disk;
    struct powercut_inode *inode;
    int level;                 /* of SQLite's file locks */
    unsigned shm_has, shm_own; /* shared, exclusive */
    unsigned sync_errors;      /* reported so far */
    bool folder;               /* its first sync syncs the folder */
    bool temporary;
};

static struct handle *
of(sqlite3_file *file)
{
    return (struct handle *)file;
}

static bool
must_fail(struct powercut *disk, enum powercut_op kind)
{
    struct powercut_fault *f = &disk->fault;

    if ((f->kinds & kind) == 0)
        return false;
    if (f->skip > 0) {
        f->skip--;
        return false;
    }
    if (!f->ever)
        f->kinds = 0;
    f->fired++;
    return true;
}

/* No power, or the current owner was killed. */
static bool
is_off(const struct powercut *disk)
{
    return disk->dead || (disk->gone >> disk->owner & 1U) != 0;
}

/* Count an operation that is in flight. False: it is the last one. */
static bool
count(struct powercut *disk)
{
    disk->ops++;
    if (disk->before != NULL && !disk->quiet)
        disk->before(disk->ctx, disk);
    if (disk->ops == disk->cut_at)
        disk->dead = true;
    if (disk->ops == disk->kill_at)
        disk->gone |= 1U << disk->owner;
    return !is_off(disk);
}

/* ---- a file ------------------------------------------------------------ */

static int
file_read(sqlite3_file *file, void *out, int n, sqlite3_int64 at)
{
    struct powercut_inode *inode = of(file)->inode;
    size_t want = (size_t)n, from = (size_t)at, have = 0;

    if (is_off(of(file)->disk))
        return SQLITE_IOERR_READ;
    if (must_fail(of(file)->disk, POWERCUT_READ))
        return of(file)->disk->fault.code;
    if (from < inode->now.len)
        have = inode->now.len - from < want ? inode->now.len - from : want;
    if (have > 0)
        memcpy(out, inode->now.ptr + from, have);
    if (have == want)
        return SQLITE_OK;
    memset((char *)out + have, 0, want - have);
    return SQLITE_IOERR_SHORT_READ;
}

static int
file_write(sqlite3_file *file, const void *ptr, int n, sqlite3_int64 at)
{
    struct handle *h = of(file);

    if (is_off(h->disk))
        return SQLITE_IOERR_WRITE;
    if (h->temporary) {
        powercut_image_put(&h->inode->now, (size_t)at, ptr, (size_t)n);
        return SQLITE_OK;
    }
    if (must_fail(h->disk, POWERCUT_WRITE)) {
        h->disk->ops++;
        if (h->disk->fault.half)
            powercut_note_write(h->inode, (size_t)at, ptr, (size_t)n / 2);
        return h->disk->fault.code;
    }
    powercut_note_write(h->inode, (size_t)at, ptr, (size_t)n);
    return count(h->disk) ? SQLITE_OK : SQLITE_IOERR_WRITE;
}

static int
file_truncate(sqlite3_file *file, sqlite3_int64 at)
{
    struct handle *h = of(file);

    if (is_off(h->disk))
        return SQLITE_IOERR_TRUNCATE;
    if (must_fail(h->disk, POWERCUT_TRUNCATE))
        return h->disk->fault.code;
    powercut_note_truncate(h->inode, (size_t)at);
    return count(h->disk) ? SQLITE_OK : SQLITE_IOERR_TRUNCATE;
}

/* A sync of this file failed, and this handle has not reported it yet. */
static bool
owes_error(struct handle *h)
{
    bool owes = h->sync_errors != h->inode->sync_errors;

    h->sync_errors = h->inode->sync_errors;
    return owes;
}

static int
file_sync(sqlite3_file *file, int flags)
{
    struct handle *h = of(file);

    (void)flags;
    if (is_off(h->disk) || !count(h->disk))
        return SQLITE_IOERR_FSYNC;
    h->disk->syncs++;
    if (must_fail(h->disk, POWERCUT_SYNC)) {
        powercut_drop_changes(h->inode);
        h->inode->sync_errors++;
        h->sync_errors = h->inode->sync_errors;
        return h->disk->fault.code;
    }
    if (h->disk->lying)
        return SQLITE_OK;
    powercut_sync_file(h->inode);
    if (h->folder)
        powercut_sync_folder(h->disk);
    h->folder = false;
    return owes_error(h) ? SQLITE_IOERR_FSYNC : SQLITE_OK;
}

static int
file_size(sqlite3_file *file, sqlite3_int64 *size)
{
    *size = (sqlite3_int64)of(file)->inode->now.len;
    return is_off(of(file)->disk) ? SQLITE_IOERR_FSTAT : SQLITE_OK;
}

static int
file_control(sqlite3_file *file, int op, void *arg)
{
    (void)file;
    (void)op;
    (void)arg;
    return SQLITE_NOTFOUND;
}

static int
sector_size(sqlite3_file *file)
{
    (void)file;
    return POWERCUT_SECTOR;
}

static int
characteristics(sqlite3_file *file)
{
    return of(file)->disk->psow ? SQLITE_IOCAP_POWERSAFE_OVERWRITE : 0;
}

/* ---- locks of a file --------------------------------------------------- */

static bool
others(const void *owner, const struct handle *h)
{
    return owner != NULL && owner != h;
}

static int
lock_shared(struct handle *h)
{
    if (others(h->inode->pending, h) || others(h->inode->exclusive, h))
        return SQLITE_BUSY;
    h->inode->shared++;
    return SQLITE_OK;
}

static int
lock_exclusive(struct handle *h)
{
    struct powercut_inode *i = h->inode;

    if (others(i->reserved, h) || others(i->pending, h))
        return SQLITE_BUSY;
    i->reserved = i->pending = h;
    if (i->shared > 1) {
        h->level = SQLITE_LOCK_PENDING;
        return SQLITE_BUSY;
    }
    i->exclusive = h;
    return SQLITE_OK;
}

static int
file_lock(sqlite3_file *file, int level)
{
    struct handle *h = of(file);
    int code = SQLITE_OK;

    if (h->level >= level)
        return SQLITE_OK;
    if (is_off(h->disk))
        return SQLITE_IOERR_LOCK;
    if (must_fail(h->disk, POWERCUT_LOCK))
        return h->disk->fault.code;
    if (level == SQLITE_LOCK_SHARED)
        code = lock_shared(h);
    else if (level == SQLITE_LOCK_RESERVED && others(h->inode->reserved, h))
        code = SQLITE_BUSY;
    else if (level == SQLITE_LOCK_RESERVED)
        h->inode->reserved = h;
    else
        code = lock_exclusive(h);
    if (code == SQLITE_OK)
        h->level = level;
    return code;
}

static int
file_unlock(sqlite3_file *file, int level)
{
    struct handle *h = of(file);
    struct powercut_inode *i = h->inode;

    if (h->level <= level)
        return SQLITE_OK;
    i->reserved = i->reserved == h ? NULL : i->reserved;
    i->pending = i->pending == h ? NULL : i->pending;
    i->exclusive = i->exclusive == h ? NULL : i->exclusive;
    if (level == SQLITE_LOCK_NONE)
        i->shared--;
    h->level = level;
    return SQLITE_OK;
}

static int
file_check_reserved(sqlite3_file *file, int *held)
{
    *held = of(file)->inode->reserved != NULL;
    return SQLITE_OK;
}

/* ---- shared memory ----------------------------------------------------- */

static int
shm_map(
    sqlite3_file *file, int region, int size, int extend, void volatile **out)
{
    struct handle *h = of(file);
    struct powercut_inode *i = h->inode;

    *out = NULL;
    if (is_off(h->disk))
        return SQLITE_IOERR_SHMMAP;
    if (must_fail(h->disk, POWERCUT_SHM))
        return h->disk->fault.code;
    assert(region < POWERCUT_REGIONS);
    while (i->n_shm <= region) {
        if (!extend)
            return SQLITE_OK;
        i->shm[i->n_shm] = calloc(1, (size_t)size);
        assert(i->shm[i->n_shm] != NULL);
        i->n_shm++;
    }
    *out = i->shm[region];
    return SQLITE_OK;
}

static void
shm_unlock(struct handle *h, int from, int n)
{
    for (int l = from; l < from + n; l++) {
        unsigned bit = 1U << l;

        if ((h->shm_own & bit) != 0)
            h->inode->shm_lock[l] = 0;
        else if ((h->shm_has & bit) != 0)
            h->inode->shm_lock[l]--;
        h->shm_own &= ~bit;
        h->shm_has &= ~bit;
    }
}

static int
shm_share(struct handle *h, int l)
{
    if ((h->shm_has & 1U << l) != 0)
        return SQLITE_OK;
    if (h->inode->shm_lock[l] < 0)
        return SQLITE_BUSY;
    h->inode->shm_lock[l]++;
    h->shm_has |= 1U << l;
    return SQLITE_OK;
}

static int
shm_own(struct handle *h, int from, int n)
{
    for (int l = from; l < from + n; l++)
        if (h->inode->shm_lock[l] != 0)
            return SQLITE_BUSY;
    for (int l = from; l < from + n; l++) {
        h->inode->shm_lock[l] = -1;
        h->shm_own |= 1U << l;
    }
    return SQLITE_OK;
}

static int
shm_lock(sqlite3_file *file, int from, int n, int flags)
{
    struct handle *h = of(file);

    if ((flags & SQLITE_SHM_UNLOCK) != 0) {
        shm_unlock(h, from, n);
        return SQLITE_OK;
    }
    if (must_fail(h->disk, POWERCUT_LOCK))
        return h->disk->fault.code;
    return (flags & SQLITE_SHM_SHARED) != 0 ? shm_share(h, from)
                                            : shm_own(h, from, n);
}

static void
shm_barrier(sqlite3_file *file)
{
    (void)file;
}

static void
shm_free(struct powercut_inode *inode)
{
    for (int i = 0; i < inode->n_shm; i++)
        free(inode->shm[i]);
    inode->n_shm = 0;
}

static int
shm_unmap(sqlite3_file *file, int remove)
{
    struct handle *h = of(file);

    shm_unlock(h, 0, SQLITE_SHM_NLOCK);
    if (remove)
        shm_free(h->inode);
    return SQLITE_OK;
}

static int
file_close(sqlite3_file *file)
{
    struct handle *h = of(file);

    (void)file_unlock(file, SQLITE_LOCK_NONE);
    shm_unlock(h, 0, SQLITE_SHM_NLOCK);
    /* The next connection that opens the file rebuilds it from the log. */
    if (--h->inode->opens == 0)
        shm_free(h->inode);
    return SQLITE_OK;
}

/* ---- the file system --------------------------------------------------- */

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_check_reserved,
    .xFileControl = file_control,
    .xSectorSize = sector_size,
    .xDeviceCharacteristics = characteristics,
    .xShmMap = shm_map,
    .xShmLock = shm_lock,
    .xShmBarrier = shm_barrier,
    .xShmUnmap = shm_unmap,
};

static void
handle_set(struct handle *h, struct powercut *disk, int file)
{
    h->disk = disk;
    h->inode = disk->file[file];
    h->inode->opens++;
    h->sync_errors = h->inode->sync_errors;
    h->base.pMethods = &methods;
}

static int
open_named(struct powercut *disk, const char *path, struct handle *h, int flags)
{
    const int logs =
        SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL;
    int name = powercut_name_of(disk, path);

    if (disk->name[name].now < 0) {
        if ((flags & SQLITE_OPEN_CREATE) == 0)
            return SQLITE_CANTOPEN;
        if (must_fail(disk, POWERCUT_CREATE))
            return disk->fault.code;
        (void)powercut_file_new(disk, name);
        if (!count(disk))
            return SQLITE_CANTOPEN;
    }
    h->folder = (flags & logs) != 0 && (flags & SQLITE_OPEN_CREATE) != 0;
    handle_set(h, disk, disk->name[name].now);
    return SQLITE_OK;
}

static int
disk_open(
    sqlite3_vfs *vfs, const char *path, sqlite3_file *file, int flags, int *out)
{
    struct powercut *disk = vfs->pAppData;
    struct handle *h = of(file);

    memset(h, 0, sizeof(*h));
    if (is_off(disk))
        return SQLITE_CANTOPEN;
    if (out != NULL)
        *out = flags;
    if (path != NULL)
        return open_named(disk, path, h, flags);
    h->temporary = true;
    handle_set(h, disk, powercut_file_new(disk, -1));
    return SQLITE_OK;
}

static int
disk_delete(sqlite3_vfs *vfs, const char *path, int sync)
{
    struct powercut *disk = vfs->pAppData;
    int name = powercut_name_of(disk, path);

    if (is_off(disk))
        return SQLITE_IOERR_DELETE;
    if (disk->name[name].now < 0)
        return SQLITE_IOERR_DELETE_NOENT;
    if (must_fail(disk, POWERCUT_DELETE))
        return disk->fault.code;
    powercut_file_unlink(disk, name);
    if (!count(disk))
        return SQLITE_IOERR_DELETE;
    if (sync && !disk->lying)
        powercut_sync_folder(disk);
    return SQLITE_OK;
}

static int
disk_access(sqlite3_vfs *vfs, const char *path, int flags, int *there)
{
    struct powercut *disk = vfs->pAppData;

    (void)flags;
    *there = disk->name[powercut_name_of(disk, path)].now >= 0;
    return is_off(disk) ? SQLITE_IOERR_ACCESS : SQLITE_OK;
}

static int
disk_full_path(sqlite3_vfs *vfs, const char *path, int n, char *out)
{
    (void)vfs;
    return snprintf(out, (size_t)n, "%s", path) < n ? SQLITE_OK
                                                    : SQLITE_CANTOPEN;
}

static int
disk_random(sqlite3_vfs *vfs, int n, char *out)
{
    struct powercut *disk = vfs->pAppData;

    for (int i = 0; i < n; i++)
        out[i] = (char)random_next(&disk->random);
    return n;
}

static int
disk_sleep(sqlite3_vfs *vfs, int us)
{
    (void)vfs;
    return us;
}

static int
disk_time(sqlite3_vfs *vfs, sqlite3_int64 *ms)
{
    (void)vfs;
    *ms = INT64_C(212623228800000); /* 2026-01-01, in days x 86400000 */
    return SQLITE_OK;
}

static int
disk_last_error(sqlite3_vfs *vfs, int n, char *out)
{
    (void)vfs;
    (void)n;
    (void)out;
    return 0;
}

void
powercut_init(struct powercut *disk, const char *name)
{
    *disk = (struct powercut){.psow = true};
    disk->vfs = (sqlite3_vfs){.iVersion = 2,
        .szOsFile = sizeof(struct handle),
        .mxPathname = 256,
        .zName = name,
        .pAppData = disk,
        .xOpen = disk_open,
        .xDelete = disk_delete,
        .xAccess = disk_access,
        .xFullPathname = disk_full_path,
        .xRandomness = disk_random,
        .xSleep = disk_sleep,
        .xGetLastError = disk_last_error,
        .xCurrentTimeInt64 = disk_time};
    if (sqlite3_vfs_register(&disk->vfs, 0) != SQLITE_OK)
        abort();
}

void
powercut_fini(struct powercut *disk)
{
    powercut_wipe(disk, 0);
    (void)sqlite3_vfs_unregister(&disk->vfs);
    for (int i = 0; i < POWERCUT_FILES; i++) {
        struct powercut_inode *inode = disk->file[i];

        if (inode == NULL)
            continue;
        free(inode->durable.ptr);
        free(inode->now.ptr);
        free(inode->bytes.ptr);
        free(inode->change);
        free(inode);
        disk->file[i] = NULL;
    }
}
