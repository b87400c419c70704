/* notify.c - report our state to the service manager (sd_notify(3)). */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "os/os.h"

bool
wb__notify(const char *state)
{
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t len = name != NULL ? strlen(name) : 0;
    ssize_t n;
    int fd;

    if (len < 2 || (name[0] != '/' && name[0] != '@') ||
        len >= sizeof(to.sun_path))
        return false;
    memcpy(to.sun_path, name, len);
    if (name[0] == '@')
        to.sun_path[0] = '\0'; /* an abstract name */
    fd = wb__fd_socket(AF_UNIX, SOCK_DGRAM, 0);
    if (fd < 0)
        return false;
    do
        n = sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT,
            (const struct sockaddr *)&to,
            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    while (n < 0 && errno == EINTR);
    wb__fd_close(fd);
    return n >= 0;
}

int64_t
wb__watchdog_us(void)
{
    const char *us = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    uint64_t n = 0, own = 0;

    if (us == NULL || !wb__parse_u64(wb_slice(us), INT64_MAX, &n))
        return 0;
    if (pid != NULL && (!wb__parse_u64(wb_slice(pid), INT64_MAX, &own) ||
                           own != (uint64_t)getpid()))
        return 0;
    return (int64_t)n;
}
