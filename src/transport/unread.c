/* unread.c - the response in a socket that libcurl closed unread.
 *
 * A receiver may answer and reset the connection while a request is written to
 * it. libcurl's write fails, and libcurl closes the socket without reading it.
 * The kernel still has the bytes. They are given to libcurl once more, as the
 * answer to another request on a connection within this process: there is one
 * parser of responses.
 *
 * (1) Only what came without TLS and without a proxy is read: anyone on the way
 *     can write to a connection that is to have TLS.
 * (2) No other process is waited for: all bytes and their end are in the
 *     connection before libcurl reads. What it cannot hold is cut off. */
#define _GNU_SOURCE /* accept4 */
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>

#include "os/os.h"
#include "transport/http.h"

enum {
    LOCAL_MS = 1000 /* a limit that is not reached: all is local */
};

struct rest {
    int from;           /* the socket that was reset */
    int listener, peer; /* the connection within this process */
};

/* NOLINTBEGIN(readability-non-const-parameter): libcurl's signatures */

/* libcurl is connected and has not written yet. */
static int
on_connected(void *user, char *peer, char *local, int peer_port, int local_port)
{
    struct rest *r = user;
    struct sockaddr_in client = {0};
    socklen_t len = sizeof(client);
    char piece[4096];
    ssize_t n;

    (void)peer;
    (void)local;
    (void)peer_port;
    if (!wb__fd_wait(r->listener, false, LOCAL_MS))
        return CURL_PREREQFUNC_ABORT;
    r->peer =
        accept4(r->listener, (struct sockaddr *)&client, &len, SOCK_CLOEXEC);
    if (r->peer < 0 || ntohs(client.sin_port) != local_port)
        return CURL_PREREQFUNC_ABORT; /* another process has connected */
    while ((n = recv(r->from, piece, sizeof(piece), MSG_DONTWAIT)) > 0 &&
           send(r->peer, piece, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) == n)
        ;
    (void)shutdown(r->peer, SHUT_WR);
    return CURL_PREREQFUNC_OK;
}

/* NOLINTEND(readability-non-const-parameter) */

/* The copy has the attempt's callbacks for what is read. */
static CURLcode
read_answer(struct rest *r, CURL *copy)
{
    struct sockaddr_in own = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(own);
    char url[40];

    r->listener = wb__fd_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (r->listener < 0 ||
        bind(r->listener, (struct sockaddr *)&own, len) != 0 ||
        listen(r->listener, 1) != 0 ||
        getsockname(r->listener, (struct sockaddr *)&own, &len) != 0)
        return CURLE_COULDNT_CONNECT;
    (void)snprintf(
        url, sizeof(url), "http://127.0.0.1:%d/", ntohs(own.sin_port));
    TRY(curl_easy_setopt(copy, CURLOPT_URL, url));
    TRY(curl_easy_setopt(copy, CURLOPT_HTTPHEADER, NULL));
    TRY(curl_easy_setopt(copy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)0));
    TRY(curl_easy_setopt(copy, CURLOPT_TIMEOUT_MS, (long)LOCAL_MS));
    TRY(curl_easy_setopt(copy, CURLOPT_ERRORBUFFER, NULL));
    TRY(curl_easy_setopt(copy, CURLOPT_OPENSOCKETFUNCTION, NULL));
    TRY(curl_easy_setopt(copy, CURLOPT_CLOSESOCKETFUNCTION, NULL));
    TRY(curl_easy_setopt(copy, CURLOPT_PREREQFUNCTION, on_connected));
    TRY(curl_easy_setopt(copy, CURLOPT_PREREQDATA, r));
    return curl_easy_perform(copy);
}

CURLcode
wb__attempt_read_rest(struct wb__attempt *a, CURLcode code)
{
    struct rest r = {-1, -1, -1};
    const char *url = NULL;
    CURLcode read;
    CURL *copy;

    r.from = wb__http_unread(a->ep->http, &a->transfer);
    if (r.from < 0 || a->received.in_header || a->received.final ||
        a->ep->proxy.len > 0 ||
        curl_easy_getinfo(a->transfer.easy, CURLINFO_EFFECTIVE_URL, &url) !=
            CURLE_OK ||
        wb__url_is_tls(url))
        return code;
    copy = curl_easy_duphandle(a->transfer.easy);
    read = copy == NULL ? CURLE_OUT_OF_MEMORY : read_answer(&r, copy);
    curl_easy_cleanup(copy);
    wb__fd_close(r.listener);
    wb__fd_close(r.peer);
    return r.peer < 0 ? code : read;
}
