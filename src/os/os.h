/* os.h - descriptors, files, locks, threads, child processes, sleep. No other
 * module calls the kernel. */
#ifndef WB_SRC_OS_H
#define WB_SRC_OS_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/base.h"

void wb__sleep_us(int64_t us);

/* Since the machine was started, suspended or not. Steps of the wall clock do
 * not change it. */
int64_t wb__boot_ms(void);
/* Names this start of the machine, among those that count the same
 * wb__boot_ms(). False: the kernel does not say. */
WB_MUST_USE bool wb__boot_name(char name[64]);

/* ---- descriptors, closed on exec ---------------------------------------- */

/* socket(2); -1 if it fails. */
WB_MUST_USE int wb__fd_socket(int family, int type, int protocol);

/* A nameless file with these bytes, positioned at its beginning. -1 with errno
 * if it fails. */
WB_MUST_USE int wb__fd_of_bytes(struct wb_slice bytes);

/* A copy of a descriptor; -1 if there is none. */
WB_MUST_USE int wb__fd_copy(int fd);

WB_MUST_USE bool wb__fd_is_open(int fd);
void wb__fd_close(int fd); /* -1 is fine; errno stays */

/* Whether a read would return at once: data, the end, or an error. */
WB_MUST_USE bool wb__readable(int fd);
/* Wait until it would, or until a signal arrives. */
void wb__wait_readable(int fd);
/* fd is a pipe or socket that nobody reads any more. */
WB_MUST_USE bool wb__pipe_closed(int fd);
/* Wait until the socket can be read, or also written. False: neither within ms
 * (0: there is no limit). */
WB_MUST_USE bool wb__fd_wait(int fd, bool to_write, int64_t ms);
/* End a socket's connection: its next read finds the end, at once. */
void wb__fd_shut(int fd);
/* Columns of a terminal; 0: fd is none. */
WB_MUST_USE size_t wb__terminal_width(int fd);

/* Write all bytes, waiting until fd takes them. 0, or an errno. */
WB_MUST_USE int wb__write_all(int fd, struct wb_slice bytes);

/* ---- threads --------------------------------------------------------------
 * A call that fails here is our own bug: a lock used before init, or freed
 * while held. */

struct wb__mutex {
    pthread_mutex_t m;
};
struct wb__cond {
    pthread_cond_t c;
};

static inline void
wb__mutex_init(struct wb__mutex *m)
{
    WB_ASSERT(pthread_mutex_init(&m->m, NULL) == 0);
}

static inline void
wb__mutex_fini(struct wb__mutex *m)
{
    WB_ASSERT(pthread_mutex_destroy(&m->m) == 0);
}

static inline void
wb__mutex_lock(struct wb__mutex *m)
{
    WB_ASSERT(pthread_mutex_lock(&m->m) == 0);
}

static inline void
wb__mutex_unlock(struct wb__mutex *m)
{
    WB_ASSERT(pthread_mutex_unlock(&m->m) == 0);
}

/* Lock, but try for some microseconds before sleeping: for a lock that is held
 * for less than one, sleep and wake-up cost far more than the wait. */
void wb__mutex_lock_spin(struct wb__mutex *m);

static inline void
wb__cond_init(struct wb__cond *c)
{
    WB_ASSERT(pthread_cond_init(&c->c, NULL) == 0);
}

static inline void
wb__cond_fini(struct wb__cond *c)
{
    WB_ASSERT(pthread_cond_destroy(&c->c) == 0);
}

static inline void
wb__cond_wait(struct wb__cond *c, struct wb__mutex *m)
{
    WB_ASSERT(pthread_cond_wait(&c->c, &m->m) == 0);
}

static inline void
wb__cond_signal(struct wb__cond *c)
{
    WB_ASSERT(pthread_cond_signal(&c->c) == 0);
}

/* Wait for us > 0 at most, by the monotonic clock. */
void wb__cond_wait_us(struct wb__cond *c, struct wb__mutex *m, int64_t us);

/* A word that one thread sleeps on. It may be freed already when it is woken: a
 * spurious wake-up of whatever uses that memory next is harmless. */
typedef _Atomic uint32_t wb__futex;
/* Sleep while *w == seen; us > 0: for that long at most. May return early.
 * False: us have passed. */
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

/* What a path names. The file is not opened: closing a descriptor of a database
 * would drop SQLite's locks on it. */
struct wb__file_info {
    bool exists, is_file, is_dir, network;
    uint32_t mode; /* permission bits */
    int64_t inode, bytes;
    uint32_t links;  /* how many names it has */
    bool mounted;    /* it is a mount of its own, as a file in a container */
    int64_t born_us; /* time of creation, 0 where it is not kept */
    int sys;         /* errno where stat failed */
};
struct wb__file_info wb__file_info_of(const char *path);

/* Which file a path names, and its size; all 0: none, or it cannot be known. */
struct wb__file_id {
    uint64_t device, inode;
    int64_t bytes;
};
struct wb__file_id wb__file_id_of(const char *path);
static inline bool
wb__file_id_eq(const struct wb__file_id *a, const struct wb__file_id *b)
{
    return a->inode == b->inode && a->device == b->device;
}

/* Watch the names in a folder, and its own (inotify). -1: it cannot be. */
int wb__folder_watch(const char *path);
/* Whether a name has changed since the last call; true where it is not known.
 * Costs a fourth of one stat(). */
WB_MUST_USE bool wb__folder_changed(int watch);

/* Bytes that this user can still write to the file system; -1: unknown. */
int64_t wb__file_room(const char *path);

/* The absolute path without links; false: there is none, or it is too long. */
WB_MUST_USE bool wb__file_real(const char *path, char *out, size_t size);
/* Whether this process may write to what path names. */
bool wb__file_writable(const char *path);
bool wb__file_mode_set(const char *path, uint32_t mode); /* false: it may not */

/* The status for an errno of a path: REFUSED for missing rights, FULL for a
 * full disk, quota or limit, NOTFOUND, else IO. */
enum wb_status wb__sys_status(int sys);

/* Can this process execute the command (looked up in PATH unless it has a /),
 * or read the file? NOTFOUND, UNAVAILABLE. */
WB_MUST_USE enum wb_status wb__command_check(
    const char *name, struct wb_err *err);
WB_MUST_USE enum wb_status wb__readable_check(
    const char *path, struct wb_err *err);

/* Make the folders above path that are missing, 0700 each, durably. */
WB_MUST_USE enum wb_status wb__folders_make(
    const char *path, struct wb_err *err);

/* Create an empty file, 0600, never through a link. EMPTY: there is one
 * already, and it was not touched. */
WB_MUST_USE enum wb_status wb__file_create(
    const char *path, struct wb_err *err);

/* Create an empty file, 0600, of a name that begins with path and ends with
 * ".tmp": it is to become path. */
WB_MUST_USE enum wb_status wb__file_temp(
    const char *path, char *out, size_t size, struct wb_err *err);
/* Give it that name, durably. EMPTY: there is one already, nothing is done. */
WB_MUST_USE enum wb_status wb__file_publish(
    const char *temp, const char *path, struct wb_err *err);

void wb__file_remove(const char *path); /* no error if there is none */

/* Replace a small file by text: written beside, synced, renamed. 0600. */
WB_MUST_USE enum wb_status wb__file_replace(
    const char *path, struct wb_slice text, struct wb_err *err);

/* Read up to max bytes of a file into *buf. NOTFOUND if there is none. */
WB_MUST_USE enum wb_status wb__file_read(
    const char *path, struct wb__buf *buf, struct wb_err *err);

/* Make sure that a regular file exists and can be appended to; it is created
 * 0600, never through a link. Returns OK, NOTFOUND (its folder), REFUSED (a
 * link, no regular file), UNAVAILABLE. */
WB_MUST_USE enum wb_status wb__append_check(
    const char *path, struct wb_err *err);

/*
 * Append one line (its newline included) to such a file, durably. Other
 * processes may append to the file, rename or remove it at any time.
 *
 * Guarantees  The line goes out in one write; what a failed or short write left
 *             is cut off again. A half line that a power cut left at the end
 *             gets a newline first, so that it spoils no other line.
 * Returns     OK: it is on the disk. BUSY (another process has the lock, and
 *             not wait), FULL, and what wb__append_check() returns: nothing was
 *             added. IO: unknown whether it will be there.
 * Blocks      for the fsync; with wait, while another process has the lock.
 * Threads     any.
 */
WB_MUST_USE enum wb_status wb__append_line(
    const char *path, struct wb_slice line, bool wait, struct wb_err *err);

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
/* Whether another open of the file holds any of the bytes first to last. */
WB_MUST_USE bool wb__lockfile_taken(
    struct wb__lockfile *f, int first, int last);

/* A flag in the file, shared by all processes; it stays when they die. */
void wb__lockfile_flag_set(struct wb__lockfile *f, bool on);
bool wb__lockfile_flag(struct wb__lockfile *f);

/* How many writes failed, and which of these failures were repaired. After a
 * restart of the machine there is nothing left to repair. */
void wb__lockfile_count_failure(struct wb__lockfile *f);
WB_MUST_USE bool wb__lockfile_failed(
    const struct wb__lockfile *f, uint8_t *failures);
void wb__lockfile_repaired(struct wb__lockfile *f, uint8_t failures);

/* Change the file, which wakes those that watch it. */
void wb__lockfile_poke(struct wb__lockfile *f);

/* ---- the service manager ------------------------------------------------
 * As sd_notify(3) of systemd. */

/* Send "READY=1" or the like to $NOTIFY_SOCKET, a path or an abstract name.
 * False: there is none, or it takes nothing. */
bool wb__notify(const char *state);
/* How often the manager wants "WATCHDOG=1" at the least; 0: it does not. */
int64_t wb__watchdog_us(void);

/* ---- one child --------------------------------------------------------- */

struct wb__child {
    const char *const *argv; /* ended by NULL; argv[0] is looked up in PATH */
    char *const *env;        /* ended by NULL; NULL: that of this process */
    int in;                  /* its stdin; -1: that of this process */
    const sigset_t *mask;    /* the signals it blocks; NULL: none */
    /* It leads a session and a process group of its own, and ignores no signal.
     * Without: it ignores what this process was started to ignore. */
    bool own_session;

    /* Set by wb__child_start(); a descriptor that is closed is -1. */
    int pid;
    int out, err; /* to read what it writes */
    int end;      /* readable once it has ended (a pidfd) */
    int start;    /* it waits here for wb__child_exec() */
};

/*
 * Fork a child. It runs nothing before wb__child_exec(): its end can be watched
 * and signals can be sent to it before its command begins.
 *
 * Guarantees  Every descriptor here is closed on exec. SIGKILL ends the child
 *             when the thread that started it ends, also by kill -9 of this
 *             process; not the processes that the child has started.
 * Returns     0, or an errno: there is no child. ENOSYS: Linux before 5.3.
 * Threads     one that lives as long as the child: the loop's, or the main one.
 */
WB_MUST_USE int wb__child_start(struct wb__child *child);

/* Execute its command. 0, or the errno of exec: the child has ended without
 * it and is to be reaped. Called once. */
WB_MUST_USE int wb__child_exec(struct wb__child *child);

/* Wait for its end; its pid may then belong to another process. False: other
 * code of this process has reaped it, its status is lost. */
bool wb__child_reap(struct wb__child *child, int *exit_status, int *signal);

/* Close the descriptors that are not -1. */
void wb__child_close(struct wb__child *child);

/* ---- one command ------------------------------------------------------- */

struct wb__process {
    const char *const *argv; /* ended by NULL */
    /* Called with each piece of output; fd is 1 or 2. */
    void (*output)(void *ctx, int fd, struct wb_slice piece);
    void *ctx;

    /* The outcome. */
    int start_errno; /* why it could not be started, or 0 */
    int status;      /* exit status, or 128 + number of the signal */
    bool by_signal;
};

/*
 * Run a command that is looked up in PATH.
 *
 * Guarantees  It inherits stdin, the signal mask and the signals that this
 *             process was started to ignore. It is killed if this process dies.
 *             All signals that can be caught and would end this process are
 *             forwarded at once, also during output(), but for those of a fault
 *             (SEGV, ABRT, ...); one that comes before the command has started,
 *             after its start. Once it has ended they are ignored.
 *             Returns when the command has ended and its output is closed, or
 *             one second after its end.
 * Returns     OK, also if it could not be started; IO: no process for it,
 *             nothing was run.
 * Threads     the main one; one command at a time.
 */
WB_MUST_USE enum wb_status wb__process_run(
    struct wb__process *process, struct wb_err *err);

/* Whether a process that the command has started, or a child of one, is alive
 * wait_ms after the command has ended. Not those that another process has
 * started for it. */
WB_MUST_USE bool wb__process_left(int64_t wait_ms);

/* ---- one command of a shell --------------------------------------------- */

struct wb__shell {
    const char *command; /* for sh -c */
    int64_t limit_ms;
    struct wb__buf *out; /* gets what it writes to stdout */

    /* The outcome. status and signal as of wb__child_reap(). */
    int status, signal;
    bool late;    /* it, or its output, had not ended at the limit */
    bool stopped; /* by wb__shell_stop() */
};

/* Run it, without input; its stderr is passed on. OK, or UNAVAILABLE: it could
 * not be started. Threads: the main one; one at a time. */
WB_MUST_USE enum wb_status wb__shell_run(
    const struct wb_env *env, struct wb__shell *shell, struct wb_err *err);

/* End it, and those that are still to come; for a handler of signals. */
void wb__shell_stop(void);

#endif /* WB_SRC_OS_H */
