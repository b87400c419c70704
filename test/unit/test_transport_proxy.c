/* test_transport_proxy.c - S1, S9: requests through a proxy, and which of them.
 */
#include <stdlib.h>
#include <sys/socket.h>

#include "http_fixture.h"

static char asked[8192]; /* the last CONNECT */
static int tunnels;

/* A proxy, and the receiver at the other end of each of its tunnels. */
static bool
tunnel(struct peer_conn *c)
{
    static const char ok[] = "HTTP/1.1 200 OK\r\nX-Proxy: p\r\n\r\n";
    bool connects;

    (void)pthread_mutex_lock(&c->peer->lock);
    connects = strncmp(c->peer->last, "CONNECT ", 8) == 0;
    if (connects)
        (void)snprintf(asked, sizeof(asked), "%.8000s", c->peer->last);
    (void)pthread_mutex_unlock(&c->peer->lock);
    if (!connects)
        return peer_reply(c);
    tunnels++;
    return peer_say(c, ok, sizeof(ok) - 1);
}

static void
open_proxied(const char *to, const char *user, struct wb_http_opts opts)
{
    static char proxy[200];

    tunnels = 0;
    asked[0] = '\0';
    if (peer.answer == NULL)
        peer.answer = tunnel;
    peer_start(&peer);
    (void)snprintf(
        proxy, sizeof(proxy), "http://%s127.0.0.1:%d", user, peer.port);
    opts.url = wb_slice(to);
    opts.proxy = wb_slice(proxy);
    open_with(opts);
}

TEST(test_proxy__http_url__goes_in_a_tunnel_that_sees_no_header)
{
    static const struct wb_slice key = {"0123456789abcdef01234567", 24};

    peer.reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    open_proxied("http://hook.invalid/a", "bob:s%40x@",
        (struct wb_http_opts){.headers = WB_LIT("X-Api-Key: k\n"),
            .secrets = &key,
            .n_secrets = 1});
    for (int i = 1; i <= 3; i++) {
        post();
        CHECK_INT(WB_DELIVERED, sent.outcome);
        CHECK_TEXT("hi", sent.body);
        CHECK_INT(1 + i, peer.requests);
    }
    CHECK_INT(1, tunnels); /* kept */
    CHECK(strncmp(asked, "CONNECT hook.invalid:80 HTTP/1.1\r\n", 34) == 0);
    CHECK_HAS("Proxy-Authorization: Basic Ym9iOnNAeA==\r\n", asked);
    CHECK(strstr(asked, "X-Api-Key") == NULL);
    CHECK(strstr(asked, "webhook-") == NULL);
    CHECK(strncmp(peer.last, "POST /a HTTP/1.1\r\n", 18) == 0);
    CHECK_TEXT("k", peer_header(&peer, "X-Api-Key"));
    CHECK(peer_header(&peer, "webhook-signature") != NULL);
    CHECK(peer_header(&peer, "Proxy-Authorization") == NULL);
    close_all();
}

/* Its answer is not the receiver's: 200 would confirm, 4xx abandon. */
TEST(test_proxy__refuses__not_sent_and_tried_again)
{
    static const struct {
        const char *reply, *why;
    } cases[] = {
        {"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=x\r\n"
         "Content-Length: 3\r\n\r\nbye",
            "response 407"},
        {"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "response 403"},
        {"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", "response 410"},
        {"HTTP/1.1 302 Log in\r\nLocation: http://login/\r\n"
         "Content-Length: 0\r\n\r\n",
            "response 302"},
        {"HTTP/1.1 503 Later\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n",
            "response 503"},
        {"not HTTP\r\n\r\n", "transport: "},
    };

    for (size_t i = 0; i < WB_COUNT(cases); i++) {
        peer.answer = peer_reply;
        peer.reply = cases[i].reply;
        open_proxied("http://hook.invalid/a", "bob:password@",
            (struct wb_http_opts){.follow = true});
        post();
        CHECK_INT(WB_RETRY, sent.outcome);
        CHECK_INT(0, sent.status);
        CHECK_HAS(cases[i].why, sent.error);
        CHECK(strstr(sent.error, "password") == NULL);
        CHECK(!sent.no_resource);
        CHECK_INT(1, peer.requests);
        close_all();
    }
}

TEST(test_proxy__environment__has_no_say)
{
    static char dead[100];
    static const char *const names[] = {"http_proxy", "HTTP_PROXY",
        "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"};

    (void)snprintf(dead, sizeof(dead), "http://127.0.0.1:%d", peer_dead_port());
    for (size_t i = 0; i < WB_COUNT(names); i++)
        CHECK_INT(0, setenv(names[i], dead, 1));
    open_endpoint(plain);
    post();
    CHECK_INT(WB_DELIVERED, sent.outcome);
    close_all();
    CHECK_INT(0, setenv("no_proxy", "*", 1));
    CHECK_INT(0, setenv("NO_PROXY", "*", 1));
    open_proxied("http://127.0.0.1:9/", "", plain);
    post();
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_INT(1, tunnels);
    close_all();
}

/* The proxy looks the name up, and is itself where the configuration says. */
TEST(test_proxy__public_only__holds_for_the_host_of_the_url) /* S1 */
{
    static const char *const closed[] = {"http://127.0.0.1/",
        "http://10.0.0.1/", "http://0x7f.1/", "http://2130706433/",
        "http://127.0.0.1./", "http://[::1]/", "http://[::ffff:10.0.0.1]/",
        "http://[fe80::1]/", "http://localhost/", "http://LocalHost./",
        "http://a.localhost/", "http://169.254.169.254/latest"};
    static const char *const open[] = {
        "http://hook.invalid/", "http://8.8.8.8/", "http://notlocalhost/"};
    struct wb_request q = some_request();

    open_proxied(
        "http://hook.invalid/", "", (struct wb_http_opts){.public_only = true});
    for (size_t i = 0; i < WB_COUNT(closed); i++) {
        q.url = wb_slice(closed[i]);
        send_and_wait(&loop, endpoint, &q, &sent);
        CHECK_INT(WB_REJECTED, sent.outcome);
        CHECK_HAS("public_only", sent.error);
    }
    CHECK_INT(0, tunnels);
    for (size_t i = 0; i < WB_COUNT(open); i++) {
        q.url = wb_slice(open[i]);
        send_and_wait(&loop, endpoint, &q, &sent);
        CHECK_INT(WB_DELIVERED, sent.outcome);
        CHECK_INT((int)i + 1, tunnels);
    }
    close_all();
}

TEST(test_proxy__public_only__redirect_to_a_closed_host_is_not_followed)
{
    peer.reply = "HTTP/1.1 307 Go\r\nLocation: http://10.0.0.1/\r\n"
                 "Content-Length: 0\r\n\r\n";
    open_proxied("http://hook.invalid/", "",
        (struct wb_http_opts){.public_only = true, .follow = true});
    post();
    CHECK_INT(WB_REJECTED, sent.outcome);
    CHECK_INT(307, sent.status);
    CHECK_INT(1, tunnels);
    close_all();
}

TEST(test_proxy__closes_the_kept_tunnel__request_goes_out_again)
{
    open_proxied("http://hook.invalid/", "", plain);
    post();
    CHECK_INT(WB_DELIVERED, sent.outcome);
    for (int i = 0; i < peer.n_conn; i++)
        (void)shutdown(peer.conn[i].fd, SHUT_RDWR);
    post();
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_INT(2, tunnels);
    close_all();
}

TEST(test_proxy__wrong_url__refused_without_its_password)
{
    static const char *const wrong[] = {"socks5://h:1", "h:3128", "http://",
        "http://bob:password@", "http://bob:pass word@h:1",
        "http://bob:password@h:1\n"};
    struct wb_err err;

    CHECK_INT(0, uv_loop_init(&loop));
    CHECK_OK(wb_http_open(&http, ENV, &loop, &err), err);
    for (size_t i = 0; i < WB_COUNT(wrong); i++) {
        struct wb_http_opts opts = {
            .url = WB_LIT("http://h/"), .proxy = wb_slice(wrong[i])};

        CHECK_STATUS(INVALID, wb_http_new(&endpoint, http, &opts, &err));
        CHECK_HAS("the proxy ", err.msg);
        CHECK(strstr(err.msg, "pass") == NULL);
    }
    endpoint = NULL;
    close_all();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_proxy__http_url__goes_in_a_tunnel_that_sees_no_header),
        RUN(test_proxy__refuses__not_sent_and_tried_again),
        RUN(test_proxy__environment__has_no_say),
        RUN(test_proxy__public_only__holds_for_the_host_of_the_url),
        RUN(test_proxy__public_only__redirect_to_a_closed_host_is_not_followed),
        RUN(test_proxy__closes_the_kept_tunnel__request_goes_out_again),
        RUN(test_proxy__wrong_url__refused_without_its_password),
    };
    return RUN_ALL(tests);
}
