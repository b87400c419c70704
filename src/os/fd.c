/* fd.c - sockets and nameless files, closed on exec. */
#define _GNU_SOURCE /* memfd_create */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "os/fd.h"

int
wb__fd_socket(int family, int type, int protocol)
{
    return socket(family, type | SOCK_CLOEXEC, protocol);
}

int
wb__fd_of_bytes(struct wb_slice bytes)
{
    int fd = memfd_create("waybill", MFD_CLOEXEC);

    while (fd >= 0 && bytes.len > 0) {
        ssize_t n = write(fd, bytes.ptr, bytes.len);

        if (n > 0) {
            bytes = wb__from(bytes, (size_t)n);
        } else if (n == 0 || errno != EINTR) {
            wb__fd_close(fd);
            return -1;
        }
    }
    if (fd >= 0)
        (void)lseek(fd, 0, SEEK_SET);
    return fd;
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
