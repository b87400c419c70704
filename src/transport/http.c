/* http.c - libcurl's multi handle driven by libuv.
 *
 * (1) One watcher for each socket from its opening to its closing: a request on
 *     a reused connection needs no system call to watch it.
 * (2) libcurl is called from the loop only, never from its own callbacks; the
 *     end of a transfer is reported after libcurl has removed its handle.
 * (3) libcurl reads HTTP/2 frames for as long as they come, so that one call
 * may not return. A connection that has brought RECORDS_MAX records of TLS in
 *     PASS_MS without a pause is closed: the deadlines of all requests hold.
 * (4) Closing is asynchronous, as in libuv: memory is freed with the last
 *     watcher, in the next iteration of the loop. */
#include "transport/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include "os/os.h"

enum {
    RECORDS_MAX = 1024,
    PASS_MS = 250,
    FDS_MAX = 1 << 20,
    IDLE_CONNECTIONS = 256
};

struct watch {
    uv_poll_t poll; /* first: cast back to the watch */
    struct wb_http *http;
    curl_socket_t fd;
    int wanted;  /* by libcurl, as flags of libuv */
    int watched; /* by libuv; goes on until an event comes that is not wanted */
    bool own;    /* opened here: libcurl calls on_close() once connected */
    bool connected; /* certainly: was open without a transfer */
    char ip[46];    /* if own: of the peer, and its port */
    int port;
    struct watch *next; /* in the list of unread sockets */
};

struct wb_http {
    const struct wb_env *env;
    uv_loop_t *loop;
    CURLM *multi;
    CURLSH *share;
    uv_timer_t timer;
    struct watch **watch; /* by descriptor */
    size_t n_watch;
    size_t handles; /* of libuv, not closed yet */
    int users;
    bool closed, calling, reporting;
    struct watch *unread; /* closed in this call, with bytes in their sockets */
    bool counts_records;  /* libcurl's TLS is OpenSSL */

    uint64_t pass;   /* the beginning of the call of libcurl, of uv_hrtime() */
    const SSL *from; /* the connection of the last record */
    size_t records;  /* of it, in this call */
};

const struct wb_env *
wb__http_env(const struct wb_http *http)
{
    return http->env;
}

void
wb__http_ref(struct wb_http *http, int by)
{
    http->users += by;
}

static void
handle_gone(struct wb_http *http)
{
    if (--http->handles > 0 || !http->closed)
        return;
    wb__free(http->env, http->watch);
    wb__free(http->env, http);
}

/* A message of libcurl is gone when its handle is removed. */
static void
report_ended(struct wb_http *http)
{
    CURLMsg *msg;
    int left;

    http->reporting = true;
    while ((msg = curl_multi_info_read(http->multi, &left)) != NULL) {
        CURLcode code = msg->data.result;
        CURL *easy = msg->easy_handle;
        struct wb__transfer *transfer = NULL;

        (void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
        (void)curl_multi_remove_handle(http->multi, easy);
        transfer->ended(transfer, code);
    }
    http->reporting = false;
}

static void
call_libcurl(struct wb_http *http, curl_socket_t fd, int flags)
{
    int running;

    http->pass = uv_hrtime();
    http->from = NULL;
    http->calling = true;
    (void)curl_multi_socket_action(http->multi, fd, flags, &running);
    report_ended(http);
    http->calling = false;
    for (; http->unread != NULL; http->unread = http->unread->next)
        wb__fd_close(http->unread->fd);
}

static void
on_timer(uv_timer_t *timer)
{
    call_libcurl(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int
on_timeout_wanted(CURLM *multi, long timeout_ms, void *user)
{
    struct wb_http *http = user;

    (void)multi;
    if (timeout_ms < 0)
        (void)uv_timer_stop(&http->timer);
    else
        (void)uv_timer_start(&http->timer, on_timer, (uint64_t)timeout_ms, 0);
    return 0;
}

/* ---- sockets ----------------------------------------------------------- */

static void on_ready(uv_poll_t *poll, int status, int events);

static void
watch_start(struct watch *w)
{
    if (w->wanted != 0 && w->wanted != w->watched &&
        uv_poll_start(&w->poll, w->wanted, on_ready) == 0)
        w->watched = w->wanted;
}

/* What is in the socket is read before anything is written to it, and also
 * after the connection was reset: it may be the whole response. If an error
 * were reported to libcurl, it would close the socket unread, as it does if it
 * cannot write (see unread.c). The read or the write finds the error. */
static void
on_ready(uv_poll_t *poll, int status, int events)
{
    struct watch *w = (struct watch *)poll;
    struct wb_http *http = w->http;
    int flags = 0;

    if (w->wanted == 0) {
        (void)uv_poll_stop(poll);
        w->watched = 0;
        return;
    }
    if ((events & UV_WRITABLE) && !(events & UV_READABLE) &&
        wb__readable(w->fd))
        events |= UV_READABLE;
    if (status < 0) {
        w->watched = 0; /* libuv has stopped */
        events = UV_READABLE | UV_WRITABLE;
    }
    if (events & UV_READABLE)
        flags |= CURL_CSELECT_IN;
    if (events & UV_WRITABLE)
        flags |= CURL_CSELECT_OUT;
    call_libcurl(http, w->fd, flags);
    if (http->watch[w->fd] == w)
        watch_start(w);
}

static void
on_watch_closed(uv_handle_t *handle)
{
    struct watch *w = (struct watch *)handle;
    struct wb_http *http = w->http;

    wb__free(http->env, w);
    handle_gone(http);
}

static void
watch_close(struct wb_http *http, curl_socket_t fd)
{
    struct watch *w = (size_t)fd < http->n_watch ? http->watch[fd] : NULL;

    if (w == NULL)
        return;
    http->watch[fd] = NULL;
    uv_close((uv_handle_t *)&w->poll, on_watch_closed);
}

static struct watch *
watch_new(struct wb_http *http, curl_socket_t fd, bool own)
{
    struct watch *w;

    errno = ENOMEM;
    if (fd < 0 || fd >= FDS_MAX)
        return NULL;
    while ((size_t)fd >= http->n_watch) {
        size_t n = http->n_watch;

        if (!wb__array_grow(http->env, &http->watch, n, &http->n_watch,
                sizeof(*http->watch)))
            return NULL;
        memset(http->watch + n, 0, (http->n_watch - n) * sizeof(*http->watch));
    }
    watch_close(http, fd); /* its last socket was closed without on_close() */
    w = wb__alloc(http->env, sizeof(*w));
    if (w == NULL || uv_poll_init(http->loop, &w->poll, fd) != 0) {
        wb__free(http->env, w);
        return NULL;
    }
    /* Every transfer has a deadline: the timer alone keeps the loop alive. */
    uv_unref((uv_handle_t *)&w->poll);
    w->http = http;
    w->fd = fd;
    w->own = own;
    http->handles++;
    http->watch[fd] = w;
    return w;
}

/* libcurl's CURLMOPT_SOCKETFUNCTION. A transfer whose socket cannot be watched
 * ends by its deadline; an error returned here would end all transfers. */
static int
on_interest(CURL *easy, curl_socket_t fd, int what, void *user, void *unused)
{
    struct wb_http *http = user;
    struct watch *w = (size_t)fd < http->n_watch ? http->watch[fd] : NULL;
    int wanted = 0;

    (void)easy;
    (void)unused;
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
        wanted |= UV_READABLE;
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
        wanted |= UV_WRITABLE;
    if (w == NULL && wanted != 0)
        w = watch_new(http, fd, false);
    if (w == NULL)
        return 0;
    /* libcurl closes a socket that was never connected without calling
     * on_close(), and only then reports that it has no interest in it. libuv
     * aborts on a closed descriptor. */
    if (wanted == 0 && w->own && !w->connected)
        w->connected = wb__fd_is_open(w->fd);
    if (wanted == 0 && (!w->own || !w->connected)) {
        watch_close(http, fd);
        return 0;
    }
    w->wanted = wanted;
    watch_start(w);
    return 0;
}

static int
port_of(const struct sockaddr *address) /* IPv6 has it where IPv4 has it */
{
    return ntohs(((const struct sockaddr_in *)(const void *)address)->sin_port);
}

curl_socket_t
wb__http_open_socket(struct wb_http *http, const struct curl_sockaddr *address)
{
    int fd =
        wb__fd_socket(address->family, address->socktype, address->protocol);
    struct watch *w;

    if (fd < 0)
        return CURL_SOCKET_BAD;
    w = watch_new(http, fd, true);
    if (w == NULL) {
        wb__fd_close(fd);
        return CURL_SOCKET_BAD;
    }
    (void)uv_ip_name(&address->addr, w->ip, sizeof(w->ip));
    w->port = port_of(&address->addr);
    return fd;
}

/* An unread socket stays open until the ended transfers are reported; its watch
 * is freed later, in the next iteration of the loop. */
static int
on_close(void *user, curl_socket_t fd)
{
    struct wb_http *http = user;
    struct watch *w = (size_t)fd < http->n_watch ? http->watch[fd] : NULL;
    char byte;

    watch_close(http, fd);
    if (w != NULL && http->calling &&
        recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
        w->next = http->unread;
        http->unread = w;
        return 0;
    }
    wb__fd_close(fd);
    return 0;
}

/* It is found by its two addresses: of a socket that was reset the kernel has
 * forgotten the peer's. */
int
wb__http_unread(const struct wb_http *http, const struct wb__transfer *transfer)
{
    struct sockaddr_storage own;
    socklen_t len = sizeof(own);
    long port = 0, own_port = 0;
    char *ip = NULL;

    (void)curl_easy_getinfo(transfer->easy, CURLINFO_PRIMARY_IP, &ip);
    (void)curl_easy_getinfo(transfer->easy, CURLINFO_PRIMARY_PORT, &port);
    (void)curl_easy_getinfo(transfer->easy, CURLINFO_LOCAL_PORT, &own_port);
    for (const struct watch *w = http->unread; w != NULL; w = w->next)
        if (ip != NULL && strcmp(ip, w->ip) == 0 && port == w->port &&
            getsockname(w->fd, (struct sockaddr *)&own, &len) == 0 &&
            own_port == port_of((const struct sockaddr *)&own))
            return w->fd;
    return -1;
}

/* ---- transfers --------------------------------------------------------- */

/* OpenSSL's message callback: a record was read or written. */
static void
on_record(int written, int version, int type, const void *bytes, size_t len,
    SSL *ssl, void *user)
{
    struct wb_http *http = user;

    (void)written;
    (void)version;
    (void)bytes;
    (void)len;
    if (type != SSL3_RT_HEADER)
        return;
    http->records = http->from == ssl ? http->records + 1 : 0;
    http->from = ssl;
    if (http->records >= RECORDS_MAX &&
        uv_hrtime() - http->pass > (uint64_t)PASS_MS * 1000000)
        SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
}

static CURLcode
on_tls_context(CURL *easy, void *context, void *user)
{
    (void)easy;
    SSL_CTX_set_msg_callback(context, on_record);
    SSL_CTX_set_msg_callback_arg(context, user);
    return CURLE_OK;
}

CURLcode
wb__http_set_options(struct wb_http *http, CURL *easy)
{
    if (http->counts_records) {
        TRY(curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, on_tls_context));
        TRY(curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, http));
    }
    TRY(curl_easy_setopt(easy, CURLOPT_SHARE, http->share));
    TRY(curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, on_close));
    return curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, http);
}

bool
wb__http_start(struct wb_http *http, struct wb__transfer *transfer)
{
    return curl_multi_add_handle(http->multi, transfer->easy) == CURLM_OK;
}

void
wb__http_cancel(struct wb_http *http, struct wb__transfer *transfer)
{
    (void)curl_multi_remove_handle(http->multi, transfer->easy);
}

/* ---- URLs -------------------------------------------------------------- */

enum wb_status
wb__url_check(struct wb_slice url, bool public_host, struct wb_err *err)
{
    enum wb_status rc = wb__url_check_syntax(url, err);
    CURLUcode code = CURLUE_OUT_OF_MEMORY;
    char text[WB__URL_MAX + 1], *host = NULL;
    bool closed = false;
    CURLU *u;

    if (rc != WB_OK)
        return rc;
    memcpy(text, url.ptr, url.len);
    text[url.len] = '\0';
    u = curl_url();
    if (u != NULL)
        code = curl_url_set(u, CURLUPART_URL, text, 0);
    if (code == CURLUE_OK && public_host) {
        code = curl_url_get(u, CURLUPART_HOST, &host, 0);
        closed = code == CURLUE_OK && wb__host_closed(host);
        curl_free(host);
    }
    curl_url_cleanup(u);
    if (code != CURLUE_OK)
        return wb__fail(err, WB_INVALID, 0, "the url is wrong: %s",
            curl_url_strerror(code));
    if (closed)
        return wb__fail(err, WB_INVALID, 0,
            "the host of the url is not a public address (public_only)");
    return WB_OK;
}

/* ---- open and close --------------------------------------------------- */

static bool
multi_setup(struct wb_http *http)
{
    CURLM *m = http->multi = curl_multi_init();
    CURLSH *s = http->share = curl_share_init();

    return m != NULL && s != NULL &&
           curl_share_setopt(s, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) ==
               CURLSHE_OK &&
           curl_multi_setopt(m, CURLMOPT_SOCKETFUNCTION, on_interest) ==
               CURLM_OK &&
           curl_multi_setopt(m, CURLMOPT_SOCKETDATA, http) == CURLM_OK &&
           curl_multi_setopt(m, CURLMOPT_TIMERFUNCTION, on_timeout_wanted) ==
               CURLM_OK &&
           curl_multi_setopt(m, CURLMOPT_TIMERDATA, http) == CURLM_OK &&
           curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, (long)IDLE_CONNECTIONS) ==
               CURLM_OK;
}

static void
multi_drop(struct wb_http *http)
{
    (void)curl_multi_cleanup(http->multi);
    (void)curl_share_cleanup(http->share);
    curl_global_cleanup();
}

enum wb_status
wb_http_open(struct wb_http **out, const struct wb_env *env,
    struct uv_loop_s *loop, struct wb_err *err)
{
    struct wb_http *http;
    const char *tls;

    env = env == NULL ? wb_env_system() : env;
    *out = NULL;
    http = wb__alloc(env, sizeof(*http));
    if (http == NULL)
        return wb__nomem(err, "http transport");
    http->env = env;
    http->loop = loop;
    http->handles = 1;
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
    tls = curl_version_info(CURLVERSION_NOW)->ssl_version;
    http->counts_records = tls != NULL && strncmp(tls, "OpenSSL/", 8) == 0;
    if (!multi_setup(http) || uv_timer_init(loop, &http->timer) != 0) {
        multi_drop(http);
        wb__free(env, http->watch);
        wb__free(env, http);
        return wb__fail(
            err, WB_UNAVAILABLE, 0, "http transport: libcurl does not start");
    }
    http->timer.data = http;
    *out = http;
    return WB_OK;
}

static void
on_timer_closed(uv_handle_t *handle)
{
    handle_gone(handle->data);
}

void
wb_http_close(struct wb_http *http)
{
    if (http == NULL)
        return;
    WB_ASSERT(http->users == 0 && !http->reporting);
    multi_drop(http);
    http->closed = true;
    for (size_t fd = 0; fd < http->n_watch; fd++)
        watch_close(http, (curl_socket_t)fd);
    uv_close((uv_handle_t *)&http->timer, on_timer_closed);
}
