/* http_fixture.h - an http endpoint and a receiver that responds with what the
 * test wants, byte by byte. */
#ifndef WB_TEST_HTTP_FIXTURE_H
#define WB_TEST_HTTP_FIXTURE_H

#include "http_peer.h"
#include "transport_fixture.h"

static const struct wb_http_opts plain;
static struct peer peer;
static uv_loop_t loop;
static struct wb_http *http;
static struct wb_transport *endpoint;
static struct sent sent;
static char url[100];

static inline const char *
url_at(int port)
{
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d/hook", port);
    return url;
}

static inline void
open_with(struct wb_http_opts opts)
{
    struct wb_err err = {0};

    CHECK_INT(0, uv_loop_init(&loop));
    CHECK_OK(wb_http_open(&http, ENV, &loop, &err), err);
    CHECK_OK(wb_http_new(&endpoint, http, &opts, &err), err);
}

static inline void
open_endpoint(struct wb_http_opts opts)
{
    peer_start(&peer);
    opts.url = wb_slice(url_at(peer.port));
    open_with(opts);
}

static inline void
close_all(void)
{
    wb_transport_free(endpoint);
    wb_http_close(http);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(0, uv_loop_close(&loop));
    if (peer.port != 0)
        peer_stop(&peer);
    memset(&peer, 0, sizeof(peer));
}

static inline void
post(void)
{
    struct wb_request q = some_request();

    send_and_wait(&loop, endpoint, &q, &sent);
}

/* One exchange with a receiver that responds with reply. */
static inline void
post_to(const char *reply, struct wb_http_opts opts)
{
    peer.reply = reply;
    open_endpoint(opts);
    post();
}

#endif /* WB_TEST_HTTP_FIXTURE_H */
