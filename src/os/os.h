/* os.h - the only room that calls the kernel: files, locks, threads, sleep. */
#ifndef WB_SRC_OS_H
#define WB_SRC_OS_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/base.h"

void wb__sleep_us(int64_t us);

/* Whether a read would return at once: data, the end, or an error. */
WB_MUST_USE bool wb__readable(int fd);

/* ---- threads ----------------------------------------------------------- */

struct wb__mutex {
    pthread_mutex_t m;
};
struct wb__cond {
    pthread_cond_t c;
};
void wb__mutex_init(struct wb__mutex *m);
void wb__mutex_fini(struct wb__mutex *m);
void wb__mutex_lock(struct wb__mutex *m);
void wb__mutex_unlock(struct wb__mutex *m);
void wb__cond_init(struct wb__cond *c);
void wb__cond_fini(struct wb__cond *c);
void wb__cond_wait(struct wb__cond *c, struct wb__mutex *m);
/* The same, but for us > 0 at most, by the monotonic clock. */
void wb__cond_wait_us(struct wb__cond *c, struct wb__mutex *m, int64_t us);
void wb__cond_signal(struct wb__cond *c);

/* A word that one thread sleeps on. It may be gone by the time it is woken:
 * whoever is then there at its place is woken for nothing. */
typedef _Atomic uint32_t wb__futex;
/* Sleep while *w is still seen, or is woken for nothing, but for us at most
 * where us > 0. False: the time was over. */
bool wb__futex_wait(wb__futex *w, uint32_t seen, int64_t us);
void wb__futex_wake(wb__futex *w);

struct wb__thread {
    pthread_t id;
};
/* Run fn(ctx) in a thread that gets no signals. False: there is none. */
WB_MUST_USE bool wb__thread_start(
    struct wb__thread *t, void *(*fn)(void *ctx), void *ctx);
void wb__thread_join(struct wb__thread *t);

/* ---- files ------------------------------------------------------------- */

/* What stands at a path. Looks, and never opens: closing a descriptor of a
 * database drops SQLite's locks on it. */
struct wb__file_info {
    bool exists, is_file, is_dir, network;
    uint32_t mode; /* permission bits */
    int64_t inode, bytes;
    int64_t born_us; /* time of creation, 0 where it is not kept */
    int sys;         /* errno where it could not be looked at */
};
struct wb__file_info wb__file_info_of(const char *path);

/* What an errno of a path means: REFUSED where rights are missing, FULL where
 * room is, NOTFOUND, and else IO. */
enum wb_status wb__sys_status(int sys);

/* A new name is durable only once its folder is: sync the one path is in. */
bool wb__folder_sync(const char *path);
/* Make the folders above path that are missing, 0700 each, durably. */
WB_MUST_USE enum wb_status wb__folders_make(
    const char *path, struct wb_err *err);

/* Create an empty file, 0600, never following a link or touching one that
 * is there: EMPTY if it is. */
WB_MUST_USE enum wb_status wb__file_create(
    const char *path, struct wb_err *err);

void wb__file_remove(const char *path); /* that it is gone is enough */

/* Replace a small file by text: written beside, synced, renamed. 0600. */
WB_MUST_USE enum wb_status wb__file_replace(
    const char *path, struct wb_slice text, struct wb_err *err);

/* Read up to max bytes of a file into *buf. NOTFOUND if there is none. */
WB_MUST_USE enum wb_status wb__file_read(
    const char *path, struct wb__buf *buf, struct wb_err *err);

/* ---- locks between processes ----------------------------------------------
 * Bytes of one lock file; the kernel frees them when the holder dies. Locks
 * of two opens exclude each other, also within a process. */
struct wb__lockfile {
    int fd; /* -1: none; every lock is then granted */
};
enum wb_status wb__lockfile_open(
    struct wb__lockfile *f, const char *path, struct wb_err *err);
void wb__lockfile_close(struct wb__lockfile *f);
WB_MUST_USE bool wb__lockfile_try(struct wb__lockfile *f, int byte);
void wb__lockfile_free(struct wb__lockfile *f, int byte);
/* Whether others hold any of first to last. */
WB_MUST_USE bool wb__lockfile_taken(
    struct wb__lockfile *f, int first, int last);

/* A flag in the file, shared by all who have it open, kept when they die. */
void wb__lockfile_flag_set(struct wb__lockfile *f, bool on);
bool wb__lockfile_flag(struct wb__lockfile *f);

/* Failures since the last mending. The count is in the file and so, like what
 * they spoiled, ends with the machine's uptime. */
void wb__lockfile_count_failure(struct wb__lockfile *f);
WB_MUST_USE bool wb__lockfile_failed(
    const struct wb__lockfile *f, uint8_t *failures);
void wb__lockfile_repaired(struct wb__lockfile *f, uint8_t failures);

/* Change the file, for those who watch it. */
void wb__lockfile_poke(struct wb__lockfile *f);

#endif /* WB_SRC_OS_H */
