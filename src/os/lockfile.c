/* lockfile.c - locks between processes on bytes of a file.
 *
 * These are open-file-description locks. They belong to the open file, not to
 * the process: two handles of one process exclude each other, and closing
 * another descriptor of the file drops none. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "os/os.h"

/* Bytes with a value, behind all those that are locked. */
enum {
    FLAG_AT = 64,
    POKE_AT,
    FAILED_AT,
    REPAIRED_AT
};

enum wb_status
wb__lockfile_open(struct wb__lockfile *f, const char *path, struct wb_err *err)
{
    f->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f->fd < 0)
        return wb__fail(err, WB_IO, errno, "cannot open the lock file %s: %s",
            path, strerror(errno));
    return WB_OK;
}

void
wb__lockfile_close(struct wb__lockfile *f)
{
    if (f->fd >= 0)
        (void)close(f->fd);
    f->fd = -1;
}

static bool
set_lock(int fd, int byte, short type)
{
    struct flock l = {
        .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
    int rc;

    do
        rc = fcntl(fd, F_OFD_SETLK, &l);
    while (rc != 0 && errno == EINTR);
    return rc == 0;
}

bool
wb__lockfile_try(struct wb__lockfile *f, int byte)
{
    WB_ASSERT(byte >= 0 && byte < FLAG_AT);
    return f->fd < 0 || set_lock(f->fd, byte, F_WRLCK);
}

void
wb__lockfile_free(struct wb__lockfile *f, int byte)
{
    if (f->fd >= 0)
        (void)set_lock(f->fd, byte, F_UNLCK);
}

bool
wb__lockfile_taken(struct wb__lockfile *f, int first, int last)
{
    struct flock l = {.l_type = F_WRLCK,
        .l_whence = SEEK_SET,
        .l_start = first,
        .l_len = last - first + 1};

    return f->fd >= 0 && fcntl(f->fd, F_OFD_GETLK, &l) == 0 &&
           l.l_type != F_UNLCK;
}

static void
write_byte(const struct wb__lockfile *f, char value, int at)
{
    ssize_t n;

    if (f->fd < 0)
        return;
    do
        n = pwrite(f->fd, &value, 1, at);
    while (n < 0 && errno == EINTR);
}

static uint8_t
read_byte(const struct wb__lockfile *f, int at)
{
    uint8_t value = 0;

    return f->fd >= 0 && pread(f->fd, &value, 1, at) == 1 ? value : 0;
}

void
wb__lockfile_poke(struct wb__lockfile *f)
{
    write_byte(f, '.', POKE_AT);
}

/* A flag that cannot be written or read counts as not set, or a drain would run
 * again for ever. */
void
wb__lockfile_flag_set(struct wb__lockfile *f, bool on)
{
    write_byte(f, on ? '1' : '0', FLAG_AT);
}

bool
wb__lockfile_flag(struct wb__lockfile *f)
{
    return read_byte(f, FLAG_AT) == '1';
}

void
wb__lockfile_count_failure(struct wb__lockfile *f)
{
    write_byte(f, (char)(read_byte(f, FAILED_AT) + 1), FAILED_AT);
}

bool
wb__lockfile_failed(const struct wb__lockfile *f, uint8_t *failures)
{
    *failures = read_byte(f, FAILED_AT);
    return *failures != read_byte(f, REPAIRED_AT);
}

void
wb__lockfile_repaired(struct wb__lockfile *f, uint8_t failures)
{
    write_byte(f, (char)failures, REPAIRED_AT);
}
