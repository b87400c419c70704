/* powercut_vfs.h - a SQLite file system in memory with simulated power cuts.
 *
 * A disk keeps, for each file, what is durable and, apart from it, what was
 * written since the last sync; for its folder, which names are durable and
 * which were made, removed or moved since. A power cut keeps what is durable
 * and, of the rest, what its loss mode keeps.
 *
 * (1) Every write, truncate, sync, create and delete is one operation, counted
 *     in disk->ops. A cut at operation N finds N in flight: a write may or may
 *     not have happened, a sync has promised nothing yet.
 * (2) An unsynced write survives whole, not at all, or in part: sectors of 512
 *     bytes, counted from the start of the file, each independently. The other
 *     bytes of a sector are safe: SQLite needs that after a recovery, with
 *     or without POWERSAFE_OVERWRITE (without, it pads its commits).
 * (3) A sync of a file makes its bytes durable, not its name. The first sync of
 *     a log or a journal syncs the folder too, as SQLite's own file system
 *     does; so does a delete that asks for it. A name that is not durable may
 *     be missing, or back, after a cut, each name independently.
 * (4) Locks and shared memory are those of one machine: several connections
 *     may have one file open, and a cut forgets both.
 * (5) A sync that is made to fail drops what was not synced: it can be read
 *     until the cut and never becomes durable, although later syncs succeed.
 *     Each open handle of the file gets the error once, as on Linux.
 * (6) A lying sync returns OK and does nothing.
 * (7) A disk can be made what another one would be after a cut now, while the
 *     other continues: one run of a workload is cut at each of its operations.
 *
 * (8) disk->owner is the number of the process that uses the disk now. A killed
 *     process is marked in disk->gone: its calls fail, and what it wrote stays.
 *     Its handles must then be closed, as that owner, which frees its locks.
 *
 * A disk and its copies belong to one thread. Bounds: 16 names, 64 files. */
#ifndef WB_TEST_POWERCUT_VFS_H
#define WB_TEST_POWERCUT_VFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sqlite3.h>

enum {
    POWERCUT_NAMES = 16,
    POWERCUT_FILES = 64,
    POWERCUT_MOVES = 128,
    POWERCUT_SECTOR = 512
};

/* What survives of the unsynced changes. */
enum powercut_loss {
    POWERCUT_LOSE,   /* nothing */
    POWERCUT_PREFIX, /* of each file, what was written first */
    POWERCUT_TEAR,   /* anything, torn at sectors */
    POWERCUT_KEEP    /* everything: the process was killed, not the machine */
};
enum {
    POWERCUT_LOSSES = 3
}; /* that are losses */

enum powercut_op {
    POWERCUT_WRITE = 1,
    POWERCUT_TRUNCATE = 2,
    POWERCUT_SYNC = 4,
    POWERCUT_CREATE = 8,
    POWERCUT_DELETE = 16,
    POWERCUT_READ = 32, /* not counted in ops; can be made to fail */
    POWERCUT_LOCK = 64, /* the same */
    POWERCUT_SHM = 128  /* the same */
};

/* The next operation of one of these kinds, after skip others, fails. */
struct powercut_fault {
    unsigned kinds; /* bits of enum powercut_op; 0: none */
    long skip;
    bool ever; /* and all later ones */
    bool half; /* a write that fails has written its first half */
    int code;  /* of SQLite */
    long fired;
};

struct powercut_inode;
struct powercut_name {
    char text[64];
    int now, durable; /* index of a file, or -1 */
};
struct powercut_move {
    int name, file; /* the name now stands for the file, or, with -1, none */
};

struct powercut {
    /* settable at any time */
    bool psow; /* POWERSAFE_OVERWRITE */
    bool lying;
    bool quiet;   /* before() is not called */
    long cut_at;  /* operation at which the power fails; 0: never */
    long kill_at; /* the same, at which the process that does it is killed */
    unsigned owner, gone; /* a number below 32; a bit each */
    struct powercut_fault fault;
    /* Called in each operation; what it did so far is unsynced. */
    void (*before)(void *ctx, struct powercut *disk);
    void *ctx;
    /* read-only */
    long ops, syncs;
    bool dead; /* the power is off: every call fails */
    uint64_t random;
    /* internal */
    sqlite3_vfs vfs;
    struct powercut_inode *file[POWERCUT_FILES];
    struct powercut_name name[POWERCUT_NAMES];
    int n_names;
    struct powercut_move move[POWERCUT_MOVES];
    int n_moves;
};

/* An empty disk, registered with SQLite under this name (static). */
void powercut_init(struct powercut *disk, const char *name);
void powercut_fini(struct powercut *disk); /* no connection is open */

/* Empty again; counters 0, switches off. No connection is open. */
void powercut_wipe(struct powercut *disk, uint64_t seed);

/* Make *to what *from would be after a cut now. *to has no connection open;
 * from may be to. The power of *to is on. */
void powercut_cut(struct powercut *to, const struct powercut *from,
    enum powercut_loss loss, uint64_t seed);

/* Bytes that a cut now could lose. */
size_t powercut_unsynced(const struct powercut *disk);

#endif /* WB_TEST_POWERCUT_VFS_H */
