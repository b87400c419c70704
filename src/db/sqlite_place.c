/* sqlite_place.c - the name of a database, and whether it still names the file
 * that is open.
 *
 * (1) The database is never opened, nor closed, outside SQLite: that would
 *     drop its locks. A new file is created 0600 before SQLite opens it.
 * (2) One database has one name: the absolute one without links that SQLite
 *     made of the path when it opened it, and to which it adds "-wal". Our
 *     files are beside it: so two programs share them whatever path each was
 *     given, and a later chdir() changes nothing.
 * (3) A file with two names of its own (a hard link, a mount of the file alone)
 *     is refused: SQLite would write a log for each name, and one of the two
 *     would overwrite what the other has committed.
 * (4) Files that were removed, renamed or replaced are still written to, and
 *     nothing that reads the path sees it. So each begin, and each commit
 *     before it is reported, compares what the paths name with what was
 *     opened. */
#include <errno.h>
#include <stdio.h>

#include "db/sqlite.h"

enum {
    COMPARE_US = 100000,
    WATCH_AFTER = 32 /* checks */
};

static const char *const suffix[WB__FILES] =
    {[WB__FILE_DB] = "", [WB__FILE_LOG] = "-wal", [WB__FILE_SHM] = "-shm"};

static char *
path_with(const struct wb_env *env, const char *path, const char *end)
{
    size_t size = strlen(path) + strlen(end) + 1;
    char *p = wb__alloc(env, size);

    if (p != NULL)
        (void)snprintf(p, size, "%s%s", path, end);
    return p;
}

/* ---- before it is opened ------------------------------------------------- */

enum wb_status
wb__sqlite_place_safe(const char *path, const struct wb__db_opts *opts,
    const struct wb__file_info *info, struct wb_err *err)
{
    if (info->network && !opts->allow_network_fs)
        return wb__fail(err, WB_REFUSED, 0,
            "%s is on a network file system, where SQLite's locks do not "
            "hold; put it on a local disk",
            path);
    if (info->is_file && info->links > 1)
        return wb__fail(err, WB_REFUSED, 0,
            "%s has %u names (hard links), and each would get a log of its "
            "own; keep one: find -samefile shows them",
            path, info->links);
    if (info->mounted)
        return wb__fail(err, WB_REFUSED, 0,
            "%s is mounted alone, without the files that SQLite keeps beside "
            "it; mount its folder",
            path);
    return WB_OK;
}

static enum wb_status
path_check(const char *path, const struct wb__db_opts *opts,
    const struct wb__file_info *info, struct wb_err *err)
{
    if (info->exists && !info->is_file)
        return wb__fail(err, WB_REFUSED, 0,
            "%s is %s; give the path of a database file", path,
            info->is_dir ? "a folder" : "not a regular file");
    if (wb__sqlite_place_safe(path, opts, info, err) != WB_OK)
        return WB_REFUSED;
    if (!info->exists && opts->existing && info->sys == ENOENT)
        return wb__fail(err, WB_NOTFOUND, ENOENT,
            "%s: there is no such file; check the name, or send a message, "
            "which makes it",
            path);
    if (!info->exists && (opts->existing || info->sys != ENOENT))
        return wb__fail(err, wb__sys_status(info->sys), info->sys, "%s: %s",
            path, strerror(info->sys));
    return WB_OK;
}

enum wb_status
wb__sqlite_place_prepare(
    const char *path, const struct wb__db_opts *opts, struct wb_err *err)
{
    struct wb__file_info info = wb__file_info_of(path);
    enum wb_status rc;
    bool created;

    if (path[0] == '\0' || path[0] == ':' ||
        wb__starts(wb_slice(path), WB_LIT("file:")))
        return wb__fail(err, WB_INVALID, 0,
            "\"%s\" is neither the path of a file nor postgres://...", path);
    rc = path_check(path, opts, &info, err);
    if (rc != WB_OK || info.exists)
        return rc;
    rc = wb__folders_make(path, err);
    if (rc == WB_OK)
        rc = wb__file_create(path, err);
    if (rc != WB_OK && rc != WB_EMPTY)
        return rc;
    info = wb__file_info_of(path); /* now on the file system of its folder */
    created = rc == WB_OK;
    rc = path_check(path, opts, &info, err);
    if (rc != WB_OK && created)
        wb__file_remove(path);
    return rc;
}

/* A path and its folder, and the files that are beside it. */
struct beside {
    char folder[4096], file[WB__FILES][4096 + 8];
};

static bool
beside_of(const char *path, struct beside *b)
{
    char real[4096], *slash;

    if (!wb__file_real(path, real, sizeof(real)))
        return false;
    for (int i = 0; i < WB__FILES; i++)
        (void)snprintf(b->file[i], sizeof(b->file[i]), "%s%s", real, suffix[i]);
    slash = strrchr(real, '/');
    slash[slash == real] = '\0';
    memcpy(b->folder, real, sizeof(real));
    return true;
}

bool
wb__sqlite_place_writable(const char *path)
{
    struct beside b;

    if (!beside_of(path, &b) || !wb__file_writable(b.folder))
        return false;
    for (int i = 0; i < WB__FILES; i++)
        if (wb__file_info_of(b.file[i]).exists && !wb__file_writable(b.file[i]))
            return false;
    return true;
}

bool
wb__sqlite_place_idle(const char *path)
{
    struct beside b;

    return beside_of(path, &b) &&
           !wb__file_info_of(b.file[WB__FILE_LOG]).exists &&
           !wb__file_info_of(b.file[WB__FILE_SHM]).exists;
}

/* SQLite gives the files beside it the mode of the database. One that could not
 * be written then, and can now, would be read-only for ever. */
enum wb_status
wb__sqlite_place_open_up(const char *path, struct wb_err *err)
{
    struct beside b;

    if (!beside_of(path, &b) || !wb__file_writable(path))
        return WB_OK;
    for (int i = WB__FILE_LOG; i < WB__FILES; i++)
        if (wb__file_info_of(b.file[i]).exists &&
            !wb__file_writable(b.file[i]) &&
            !wb__file_mode_set(b.file[i], wb__file_info_of(path).mode))
            return wb__fail(err, WB_REFUSED, 0,
                "%s may only be read, and belongs to the database; give it the "
                "mode and the owner of the database",
                b.file[i]);
    return WB_OK;
}

/* ---- once it is open ------------------------------------------------------ */

enum wb_status
wb__sqlite_place_set(struct wb__sqlite *s, struct wb_err *err)
{
    const char *name = sqlite3_db_filename(s->handle, "main");
    const struct wb_env *env = s->db.opts.env;
    bool ok = true;

    if (name == NULL || name[0] == '\0' || env->vfs != NULL)
        return WB_OK;
    for (int i = 0; i < WB__FILES && ok; i++)
        ok = (s->file[i] = path_with(env, name, suffix[i])) != NULL;
    if (!ok || (s->lock_path = path_with(env, name, "-lock")) == NULL)
        return wb__nomem(err, "open");
    s->db.path = s->file[WB__FILE_DB];
    s->db.watch = (struct wb__watch){s->lock_path, s->file[WB__FILE_LOG]};
    return WB_OK;
}

/* Without it there is no queue of writers: slower, but as safe. */
void
wb__sqlite_place_lock(struct wb__sqlite *s)
{
    if (s->lock_path != NULL)
        (void)wb__lockfile_open(&s->queue.lock, s->lock_path, NULL);
}

/* A file that is not there yet, as the shared memory of an exclusive
 * connection, is not compared. */
void
wb__sqlite_place_note(struct wb__sqlite *s)
{
    int moved = 0;

    for (int i = 0; i < WB__FILES; i++)
        if (s->file[i] != NULL)
            s->id[i] = wb__file_id_of(s->file[i]);
    /* It may be another file already: then none is ever equal to it. */
    (void)sqlite3_file_control(
        s->handle, "main", SQLITE_FCNTL_HAS_MOVED, &moved);
    if (moved != 0)
        s->id[WB__FILE_DB].inode = UINT64_MAX;
}

/* The first file that is not the one that was opened, or -1. *now: it. */
static int
changed_file(struct wb__sqlite *s, struct wb__file_id *now)
{
    for (int i = 0; i < WB__FILES; i++) {
        if (s->id[i].inode == 0)
            continue;
        *now = wb__file_id_of(s->file[i]);
        if (!wb__file_id_eq(now, &s->id[i]))
            return i;
    }
    return -1;
}

enum wb_status
wb__sqlite_place_check(struct wb__db *db, struct wb_err *err)
{
    struct wb__sqlite *s = (struct wb__sqlite *)db;
    struct wb__file_id now;
    int i = changed_file(s, &now);

    if (i < 0)
        return WB_OK;
    return wb__fail(err, WB_IO, 0,
        "%.150s was %s while the database was open; start this program again "
        "to use what is there now",
        s->file[i], now.inode == 0 ? "removed or renamed" : "replaced");
}

/* Closing a watch waits some 15 ms for the kernel: a process that makes a few
 * transactions does better with stat(). */
static void
folder_watch(struct wb__sqlite *s)
{
    const char *path = s->file[WB__FILE_DB], *slash;
    struct wb__buf folder = {.env = s->db.opts.env, .max = 4096};

    slash = path == NULL ? NULL : strrchr(path, '/');
    if (slash == NULL)
        return;
    wb__buf_add(&folder,
        (struct wb_slice){path, slash > path ? (size_t)(slash - path) : 1});
    if (folder.failed == WB_OK)
        s->folder = wb__folder_watch(folder.ptr);
    wb__buf_fini(&folder);
}

enum wb_status
wb__sqlite_place_check_soon(
    struct wb__sqlite *s, int64_t now_us, struct wb_err *err)
{
    enum wb_status rc;

    if (s->folder < 0 && ++s->checks == WATCH_AFTER)
        folder_watch(s); /* before its names are read */
    if (!wb__folder_changed(s->folder) && s->compared_us != 0 &&
        now_us - s->compared_us < COMPARE_US)
        return WB_OK;
    rc = wb__sqlite_place_check(&s->db, err);
    s->compared_us = rc == WB_OK ? now_us : 0;
    return rc;
}

bool
wb__sqlite_place_keep(struct wb__sqlite *s)
{
    for (int i = WB__FILE_LOG; i < WB__FILES; i++) {
        struct wb__file_id now = {0};

        if (s->id[i].inode != 0)
            now = wb__file_id_of(s->file[i]);
        if (now.inode != 0 && !wb__file_id_eq(&now, &s->id[i]))
            return true;
    }
    return false;
}
