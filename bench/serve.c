/* serve.c - a receiver that responds with 204 to everything, as fast as one
 * thread can: epoll, no parsing beyond the length of the body. Prints its port
 * and exits at the end of its standard input. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bench.h"

enum {
    CONNECTIONS = 1024,
    BUFFER = 256 * 1024
};

struct conn {
    size_t len;
    char in[BUFFER + 1];
};
static struct conn *conns[CONNECTIONS];

static const char response[] = "HTTP/1.1 204 No Content\r\n\r\n";

/* Bytes of the first request in text, 0 if it is not whole yet. */
static size_t
request_len(const char *text, size_t len)
{
    const char *end = memmem(text, len, "\r\n\r\n", 4);
    const char *field, *line = text;
    size_t body = 0, head;

    if (end == NULL)
        return 0;
    head = (size_t)(end - text) + 4;
    while ((field = memchr(line, '\n', (size_t)(end - line))) != NULL) {
        line = field + 1;
        if (strncasecmp(line, "content-length:", 15) == 0)
            body = strtoul(line + 15, NULL, 10);
    }
    return head + body > len ? 0 : head + body;
}

static void
conn_close(int epoll, int fd)
{
    (void)epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
    free(conns[fd]);
    conns[fd] = NULL;
    (void)close(fd);
}

static void
conn_read(int epoll, int fd)
{
    struct conn *c = conns[fd];
    ssize_t got = read(fd, c->in + c->len, BUFFER - c->len);
    size_t at = 0, n;

    if (got <= 0) {
        conn_close(epoll, fd);
        return;
    }
    c->len += (size_t)got;
    c->in[c->len] = '\0';
    while ((n = request_len(c->in + at, c->len - at)) > 0) {
        at += n;
        if (write(fd, response, sizeof(response) - 1) < 0)
            break;
    }
    memmove(c->in, c->in + at, c->len - at);
    c->len -= at;
}

static void
conn_open(int epoll, int listener)
{
    int one = 1, fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};

    if (fd < 0 || fd >= CONNECTIONS) {
        (void)close(fd);
        return;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    conns[fd] = calloc(1, sizeof(*conns[fd]));
    if (conns[fd] == NULL || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) != 0)
        bench_die("serve: out of memory or descriptors");
}

static int
listen_any(void)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(fd, (struct sockaddr *)&a, len) != 0 || listen(fd, 128) != 0 ||
        getsockname(fd, (struct sockaddr *)&a, &len) != 0)
        bench_die("serve: no port");
    bench_print("port", ntohs(a.sin_port));
    return fd;
}

int
main(void)
{
    struct epoll_event e = {.events = EPOLLIN}, ready[64];
    int epoll = epoll_create1(EPOLL_CLOEXEC), listener, n;

    bench_pin(1);
    listener = listen_any();
    e.data.fd = listener;
    (void)epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &e);
    e.data.fd = STDIN_FILENO;
    (void)epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &e);
    while ((n = epoll_wait(epoll, ready, 64, -1)) >= 0) {
        for (int i = 0; i < n; i++) {
            if (ready[i].data.fd == listener)
                conn_open(epoll, listener);
            else if (ready[i].data.fd == STDIN_FILENO)
                return 0;
            else
                conn_read(epoll, ready[i].data.fd);
        }
    }
    return 1;
}
