/* ready.c - whether a descriptor has something to say. */
#include <poll.h>

#include "os/os.h"

bool
wb__readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) != 0;
}
