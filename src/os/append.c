/* append.c - append whole lines to a file.
 *
 * (1) The file is opened for every line: so a file that was renamed or removed
 *     (rotated) gets no more lines, and a descriptor whose fsync failed is not
 *     used again. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/fd.h"
#include "os/os.h"

static enum wb_status
fail(struct wb_err *err, enum wb_status rc, const char *what, const char *path)
{
    int sys = errno;

    return wb__fail(err, rc, sys, "%s %s: %s", what, path, strerror(sys));
}

/* It must be a regular file that was not removed while we waited for the lock;
 * the name of a new one is made durable. */
static enum wb_status
file_check(int fd, const char *path, struct wb_err *err)
{
    struct stat st;

    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        return wb__fail(err, WB_REFUSED, 0, "%s is not a regular file", path);
    if (st.st_nlink == 0)
        return wb__fail(
            err, WB_UNAVAILABLE, 0, "%s was removed meanwhile", path);
    if (st.st_size == 0 && !wb__folder_sync(path))
        return fail(err, WB_UNAVAILABLE, "cannot sync the folder of", path);
    return WB_OK;
}

static enum wb_status
open_locked(const char *path, int *out, struct wb_err *err)
{
    /* O_NONBLOCK: opening a FIFO must not wait for its other end. */
    int fd = open(path,
        O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
        0600);

    *out = fd;
    if (fd < 0)
        return fail(err,
            errno == ELOOP    ? WB_REFUSED
            : errno == ENOENT ? WB_NOTFOUND
                              : WB_UNAVAILABLE,
            "cannot open", path);
    while (flock(fd, LOCK_EX) != 0)
        if (errno != EINTR)
            return fail(err, WB_UNAVAILABLE, "cannot lock", path);
    return file_check(fd, path, err);
}

/* All of line in one write, or nothing of it. */
static enum wb_status
write_whole(int fd, const char *path, struct wb_slice line, struct wb_err *err)
{
    off_t start = lseek(fd, 0, SEEK_END);
    ssize_t n;

    if (start < 0)
        return fail(err, WB_UNAVAILABLE, "cannot write", path);
    do
        n = write(fd, line.ptr, line.len);
    while (n < 0 && errno == EINTR);
    if (n == (ssize_t)line.len)
        return WB_OK;
    if (n >= 0)
        errno = ENOSPC;
    (void)fail(err, WB_FULL, "cannot write all of a line to", path);
    return n <= 0 || ftruncate(fd, start) == 0
               ? WB_FULL
               : fail(err, WB_IO, "cannot cut off half a line of", path);
}

static bool
is_torn(int fd)
{
    off_t end = lseek(fd, 0, SEEK_END);
    char last = '\n';

    return end > 0 && pread(fd, &last, 1, end - 1) == 1 && last != '\n';
}

static enum wb_status
append_locked(
    int fd, const char *path, struct wb_slice line, struct wb_err *err)
{
    enum wb_status rc = WB_OK;

    if (line.len == 0)
        return WB_OK;
    if (is_torn(fd))
        rc = write_whole(fd, path, WB_LIT("\n"), err);
    if (rc == WB_OK)
        rc = write_whole(fd, path, line, err);
    if (rc == WB_OK && fsync(fd) != 0)
        rc = fail(err, WB_IO, "cannot sync", path);
    return rc;
}

enum wb_status
wb__append_line(const char *path, struct wb_slice line, struct wb_err *err)
{
    int fd;
    enum wb_status rc = open_locked(path, &fd, err);

    if (rc == WB_OK)
        rc = append_locked(fd, path, line, err);
    wb__fd_close(fd);
    return rc;
}
