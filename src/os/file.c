/* file.c - descriptors, what a path names, private files and folders, whole
 * lines appended, a small file replaced atomically.
 *
 * (1) wb__append_line opens the file for every line: so a file that was renamed
 *     or removed (rotated) gets no more lines, and a descriptor whose fsync
 *     failed is not used again. */
#define _GNU_SOURCE /* memfd_create, statx */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "os/os.h"

/* ---- descriptors --------------------------------------------------------- */

int
wb__fd_socket(int family, int type, int protocol)
{
    return socket(family, type | SOCK_CLOEXEC, protocol);
}

int
wb__fd_of_bytes(struct wb_slice bytes)
{
    int fd = memfd_create("waybill", MFD_CLOEXEC);

    if (fd >= 0 && (errno = wb__write_all(fd, bytes)) != 0) {
        wb__fd_close(fd);
        return -1;
    }
    if (fd >= 0)
        (void)lseek(fd, 0, SEEK_SET);
    return fd;
}

int
wb__fd_copy(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

void
wb__fd_close(int fd)
{
    int sys = errno;

    if (fd >= 0)
        (void)close(fd);
    errno = sys;
}

bool
wb__fd_is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

bool
wb__readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) != 0;
}

bool
wb__pipe_closed(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    return poll(&p, 1, 0) == 1 && (p.revents & POLLERR) != 0;
}

bool
wb__fd_wait(int fd, bool to_write, int64_t ms)
{
    struct pollfd p = {
        .fd = fd, .events = (short)(POLLIN | (to_write ? POLLOUT : 0))};
    int n;

    do
        n = poll(&p, 1, ms > 0 && ms < INT32_MAX ? (int)ms : -1);
    while (n < 0 && errno == EINTR);
    return n != 0;
}

void
wb__fd_shut(int fd)
{
    (void)shutdown(fd, SHUT_RDWR);
}

size_t
wb__terminal_width(int fd)
{
    struct winsize size;

    return ioctl(fd, TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

void
wb__wait_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    (void)poll(&p, 1, -1);
}

int
wb__write_all(int fd, struct wb_slice bytes)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    while (bytes.len > 0) {
        ssize_t n = write(fd, bytes.ptr, bytes.len);

        if (n >= 0)
            bytes = wb__from(bytes, (size_t)n);
        else if (errno == EAGAIN) /* made non-blocking by another process */
            (void)poll(&p, 1, -1);
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

/* ---- files --------------------------------------------------------------- */

/* Superblock numbers of statfs(2) of file systems whose files other machines
 * change, where neither WAL's shared memory nor its locks hold. */
static bool
is_network(long type)
{
    static const unsigned long magic[] = {
        0x6969,     /* NFS */
        0x517b,     /* SMB */
        0xff534d42, /* CIFS */
        0xfe534d42, /* SMB2 */
        0x5346414f, /* AFS */
        0x73757245, /* Coda */
        0x00c36400, /* Ceph */
        0x0bd00bd0, /* Lustre */
        0x01021997, /* 9P */
        0x7461636f, /* OCFS2 */
        0x01161970, /* GFS2 */
        0x47504653, /* GPFS */
        0x564c,     /* NCP */
    };

    for (size_t i = 0; i < WB_COUNT(magic); i++)
        if (((unsigned long)type & 0xffffffffUL) == magic[i])
            return true;
    return false;
}

enum {
    MOUNT_ROOT = 0x2000 /* STATX_ATTR_MOUNT_ROOT, Linux 5.8 */
};

struct wb__file_info
wb__file_info_of(const char *path)
{
    struct wb__file_info p = {0};
    struct statfs fs;
    struct statx st;

    if (statx(AT_FDCWD, path, 0, STATX_BASIC_STATS | STATX_BTIME, &st) != 0) {
        p.sys = errno;
        return p;
    }
    p.exists = true;
    p.is_file = S_ISREG(st.stx_mode);
    p.is_dir = S_ISDIR(st.stx_mode);
    p.mode = st.stx_mode & 07777;
    p.inode = (int64_t)st.stx_ino;
    p.links = st.stx_nlink;
    p.mounted = p.is_file && (st.stx_attributes & MOUNT_ROOT) != 0;
    p.bytes = (int64_t)st.stx_size;
    if ((st.stx_mask & STATX_BTIME) != 0)
        p.born_us = st.stx_btime.tv_sec * 1000000 + st.stx_btime.tv_nsec / 1000;
    p.network = statfs(path, &fs) == 0 && is_network((long)fs.f_type);
    return p;
}

struct wb__file_id
wb__file_id_of(const char *path)
{
    struct wb__file_id id = {0};
    struct stat st;

    if (stat(path, &st) == 0) {
        id.device = st.st_dev;
        id.inode = st.st_ino;
        id.bytes = st.st_size;
    }
    return id;
}

int
wb__folder_watch(const char *path)
{
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

    if (fd >= 0 && inotify_add_watch(fd, path,
                       IN_CREATE | IN_DELETE | IN_MOVE | IN_MOVE_SELF |
                           IN_DELETE_SELF | IN_ONLYDIR) < 0) {
        wb__fd_close(fd);
        fd = -1;
    }
    return fd;
}

bool
wb__folder_changed(int watch)
{
    char events[4096];
    bool changed = watch < 0;

    while (watch >= 0 && read(watch, events, sizeof(events)) > 0)
        changed = true;
    return changed;
}

int64_t
wb__file_room(const char *path)
{
    struct statvfs fs;

    if (statvfs(path, &fs) != 0)
        return -1;
    return (int64_t)fs.f_bavail * (int64_t)fs.f_frsize;
}

bool
wb__file_real(const char *path, char *out, size_t size)
{
    char real[PATH_MAX];

    if (realpath(path, real) == NULL || strlen(real) >= size)
        return false;
    memcpy(out, real, strlen(real) + 1);
    return true;
}

bool
wb__file_mode_set(const char *path, uint32_t mode)
{
    return chmod(path, mode) == 0;
}

bool
wb__file_writable(const char *path)
{
    return faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0;
}

enum wb_status
wb__sys_status(int sys)
{
    switch (sys) {
    case ENOENT:
        return WB_NOTFOUND;
    case EACCES:
    case EPERM:
    case EROFS:
    case ELOOP: /* a link where none may be */
        return WB_REFUSED;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: /* the limit of the process */
        return WB_FULL;
    default:
        return WB_IO;
    }
}

static enum wb_status
fail_as(
    struct wb_err *err, enum wb_status rc, const char *what, const char *path)
{
    int sys = errno;

    return wb__fail(err, rc, sys, "%s %s: %s", what, path, strerror(sys));
}

static enum wb_status
sys_fail(struct wb_err *err, const char *what, const char *path)
{
    return fail_as(err, wb__sys_status(errno), what, path);
}

/* Only then a new name in the folder of path is durable. */
static bool
folder_sync(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t len = slash == NULL ? 0 : (size_t)(slash - path) + 1;
    bool ok;
    int fd;

    if (len >= sizeof(folder))
        return false;
    (void)snprintf(folder, sizeof(folder), "%.*s", len == 0 ? 1 : (int)len,
        len == 0 ? "." : path);
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ok = fd >= 0 && fsync(fd) == 0;
    wb__fd_close(fd);
    return ok;
}

enum wb_status
wb__folders_make(const char *path, struct wb_err *err)
{
    char part[PATH_MAX];
    size_t len = strlen(path);

    if (len >= sizeof(part))
        return wb__fail(err, WB_INVALID, 0, "the path is longer than %d bytes",
            PATH_MAX - 1);
    memcpy(part, path, len + 1);
    for (size_t i = 1; i < len; i++) {
        if (part[i] != '/')
            continue;
        part[i] = '\0';
        if (mkdir(part, 0700) == 0) {
            if (!folder_sync(part))
                return sys_fail(err, "cannot sync the folder above", part);
        } else if (errno != EEXIST) {
            return sys_fail(err, "cannot make the folder", part);
        }
        part[i] = '/';
    }
    return WB_OK;
}

enum wb_status
wb__file_create(const char *path, struct wb_err *err)
{
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);

    if (fd < 0 && errno == EEXIST)
        return WB_EMPTY;
    if (fd < 0)
        return sys_fail(err, "cannot create", path);
    (void)close(fd);
    return WB_OK;
}

void
wb__file_remove(const char *path)
{
    (void)unlink(path);
}

enum wb_status
wb__file_temp(const char *path, char *out, size_t size, struct wb_err *err)
{
    enum wb_status rc = WB_EMPTY;

    if (snprintf(out, size, "%s.%ld.tmp", path, (long)getpid()) >= (int)size)
        return wb__fail(err, WB_INVALID, 0, "%s: path too long", path);
    for (int attempt = 0; attempt < 2 && rc == WB_EMPTY; attempt++) {
        rc = wb__file_create(out, err);
        if (rc == WB_EMPTY) /* of a process that was killed */
            wb__file_remove(out);
    }
    return rc == WB_OK ? rc : sys_fail(err, "cannot create", path);
}

enum wb_status
wb__file_publish(const char *temp, const char *path, struct wb_err *err)
{
    int rc = renameat2(AT_FDCWD, temp, AT_FDCWD, path, RENAME_NOREPLACE);

    if (rc != 0 && (errno == EINVAL || errno == ENOSYS)) {
        rc = link(temp, path);
        if (rc == 0)
            (void)unlink(temp);
    }
    if (rc != 0)
        return errno == EEXIST ? WB_EMPTY
                               : sys_fail(err, "cannot give its name to", path);
    if (folder_sync(path))
        return WB_OK;
    (void)sys_fail(err, "cannot sync the folder of", path);
    (void)unlink(path);
    return WB_IO;
}

enum wb_status
wb__file_replace(const char *path, struct wb_slice text, struct wb_err *err)
{
    char temp[PATH_MAX];
    enum wb_status rc = WB_OK;
    int fd;

    if (snprintf(temp, sizeof(temp), "%s.%ld.tmp", path, (long)getpid()) >=
        (int)sizeof(temp))
        return wb__fail(err, WB_INVALID, 0, "%s: path too long", path);
    fd =
        open(temp, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return sys_fail(err, "cannot create", temp);
    errno = wb__write_all(fd, text);
    if (errno != 0 || fsync(fd) != 0)
        rc = sys_fail(err, "cannot write", temp);
    if (close(fd) != 0 && rc == WB_OK)
        rc = sys_fail(err, "cannot write", temp);
    if (rc == WB_OK && rename(temp, path) != 0)
        rc = sys_fail(err, "cannot replace", path);
    if (rc != WB_OK)
        (void)unlink(temp);
    return rc;
}

enum wb_status
wb__file_read(const char *path, struct wb__buf *buf, struct wb_err *err)
{
    enum wb_status rc = WB_OK;
    char block[4096];
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return sys_fail(err, "cannot read", path);
    while (rc == WB_OK && (n = read(fd, block, sizeof(block))) != 0) {
        if (n > 0)
            wb__buf_add(buf, (struct wb_slice){block, (size_t)n});
        else if (errno != EINTR)
            rc = sys_fail(err, "cannot read", path);
        if (buf->failed != WB_OK)
            rc = wb__fail(err, buf->failed, 0, "%s: %s", path,
                wb_status_text(buf->failed));
    }
    (void)close(fd);
    return rc;
}

/* ---- lines ---------------------------------------------------------------- */

/* It must be a regular file; the name of a new one is made durable. */
static enum wb_status
open_regular(const char *path, int *out, struct wb_err *err)
{
    /* O_NONBLOCK: opening a FIFO must not wait for its other end. */
    int fd = open(path,
        O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
        0600);
    struct stat st;

    *out = fd;
    if (fd < 0 && errno == ELOOP)
        return wb__fail(err, WB_REFUSED, ELOOP,
            "%s is a symbolic link, which may point anywhere tomorrow; name "
            "the file itself",
            path);
    if (fd < 0)
        return fail_as(err, errno == ENOENT ? WB_NOTFOUND : WB_UNAVAILABLE,
            "cannot open", path);
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return wb__fail(err, WB_REFUSED, 0, "%s is not a regular file", path);
    if (st.st_size == 0 && !folder_sync(path))
        return fail_as(err, WB_UNAVAILABLE, "cannot sync the folder of", path);
    return WB_OK;
}

/* It must not have been removed while we waited for the lock. */
static enum wb_status
lock(int fd, const char *path, bool wait, struct wb_err *err)
{
    struct stat st;

    while (flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB)) != 0) {
        if (errno == EWOULDBLOCK)
            return wb__fail(err, WB_BUSY, 0,
                "another program keeps %s locked (flock)", path);
        if (errno != EINTR)
            return fail_as(err, WB_UNAVAILABLE, "cannot lock", path);
    }
    if (fstat(fd, &st) != 0 || st.st_nlink == 0)
        return wb__fail(
            err, WB_UNAVAILABLE, 0, "%s was removed meanwhile", path);
    return WB_OK;
}

/* All of line in one write, or nothing of it. */
static enum wb_status
write_whole(int fd, const char *path, struct wb_slice line, struct wb_err *err)
{
    off_t start = lseek(fd, 0, SEEK_END);
    ssize_t n;

    if (start < 0)
        return fail_as(err, WB_UNAVAILABLE, "cannot write", path);
    do
        n = write(fd, line.ptr, line.len);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)line.len)
        return WB_OK;
    if (n >= 0)
        errno = ENOSPC;
    (void)fail_as(err, WB_FULL, "cannot write all of a line to", path);
    return n <= 0 || ftruncate(fd, start) == 0
               ? WB_FULL
               : fail_as(err, WB_IO, "cannot cut off half a line of", path);
}

enum wb_status
wb__append_check(const char *path, struct wb_err *err)
{
    int fd;
    enum wb_status rc = open_regular(path, &fd, err);

    wb__fd_close(fd);
    return rc;
}

enum wb_status
wb__append_line(
    const char *path, struct wb_slice line, bool wait, struct wb_err *err)
{
    char last = '\n';
    int fd;
    enum wb_status rc = open_regular(path, &fd, err);
    off_t end;

    if (rc == WB_OK)
        rc = lock(fd, path, wait, err);
    end = rc == WB_OK ? lseek(fd, 0, SEEK_END) : 0;
    if (end > 0 && pread(fd, &last, 1, end - 1) == 1 && last != '\n')
        rc = write_whole(fd, path, WB_LIT("\n"), err);
    if (rc == WB_OK)
        rc = write_whole(fd, path, line, err);
    if (rc == WB_OK && fsync(fd) != 0)
        rc = fail_as(err, WB_IO, "cannot sync", path);
    wb__fd_close(fd);
    return rc;
}
