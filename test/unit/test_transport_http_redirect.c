/* test_transport_http_redirect.c - S2, S9, I7: redirects that are followed, and
 * what goes along. */
#include "http_fixture.h"

static char next_hop[200];

/* Two redirects, then 200. */
static bool
redirect_twice(struct peer_conn *c)
{
    if (c->peer->requests <= 2)
        return peer_say(c, next_hop, strlen(next_hop));
    return peer_reply(c);
}

TEST(test_http__follow__body_goes_along)
{
    peer.answer = redirect_twice;
    peer_set_reply(&peer, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    open_endpoint((struct wb_http_opts){.follow = true});
    (void)snprintf(next_hop, sizeof(next_hop),
        "HTTP/1.1 307 Go\r\nLocation: /next\r\nContent-Length: 3\r\n\r\nbye");
    post();
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_TEXT("hi", sent.body);
    CHECK(!sent.cut);
    CHECK_INT(3, peer.requests);
    CHECK(strncmp(peer.last, "POST /next HTTP/1.1\r\n", 21) == 0);
    CHECK_TEXT("{\"n\":1}", peer_body(&peer));
    close_all();
}

static const struct wb_slice sign_key = {"0123456789abcdef01234567", 24};
static const struct wb_http_opts secret_route = {
    .headers = {"Authorization: Bearer t\nX-Api-Key: k\n", 37},
    .secrets = &sign_key,
    .n_secrets = 1,
    .follow = true,
};

static void
post_with_secret_header(void)
{
    struct wb_request q = some_request();

    q.headers = WB_LIT("Cookie: c\nX-Tenant: a\n");
    send_and_wait(&loop, endpoint, &q, &sent);
}

/* An empty POST to the target of a 303 was confirmed by its 200. */
TEST(test_http__follow__only_with_the_whole_payload) /* I7 */
{
    static const struct {
        int status;
        enum wb_outcome outcome;
        int requests;
    } cases[] = {{300, WB_REJECTED, 1}, {301, WB_DELIVERED, 2},
        {302, WB_DELIVERED, 2}, {303, WB_REJECTED, 1}, {304, WB_REJECTED, 1},
        {307, WB_DELIVERED, 2}, {308, WB_DELIVERED, 2}};
    static const char *const methods[] = {"POST", "PUT"};

    for (size_t i = 0; i < 2 * WB_COUNT(cases); i++) {
        int n = (int)(i / 2);
        struct peer target = {0};

        peer_start(&target);
        (void)snprintf(next_hop, sizeof(next_hop),
            "HTTP/1.1 %d Go\r\nLocation: http://127.0.0.1:%d/next\r\n"
            "Content-Length: 0\r\n\r\n",
            cases[n].status, target.port);
        peer_set_reply(&peer, next_hop);
        open_endpoint((struct wb_http_opts){
            .follow = true, .method = wb_slice(methods[i % 2])});
        post();
        CHECK_INT(cases[n].outcome, sent.outcome);
        CHECK_INT(cases[n].requests, peer.requests + target.requests);
        if (target.requests > 0) {
            CHECK_TEXT("{\"n\":1}", peer_body(&target));
            CHECK(strncmp(target.last, methods[i % 2], 3) == 0);
        }
        close_all();
        peer_stop(&target);
    }
}

TEST(test_http__redirect_to_another_origin__carries_no_secret) /* S9 */
{
    static const char *const secrets[] = {"Authorization", "X-Api-Key",
        "Cookie", "X-Tenant", "webhook-signature"};
    struct peer target = {0};

    peer_start(&target);
    open_endpoint(secret_route);
    (void)snprintf(next_hop, sizeof(next_hop),
        "HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:%d/next\r\n"
        "Content-Length: 0\r\n\r\n",
        target.port);
    peer_set_reply(&peer, next_hop);
    for (int i = 0; i < 2; i++) {
        post_with_secret_header();
        CHECK_INT(WB_DELIVERED, sent.outcome);
        for (size_t s = 0; s < WB_COUNT(secrets); s++) {
            CHECK(peer_header(&peer, secrets[s]) != NULL);
            CHECK(peer_header(&target, secrets[s]) == NULL);
        }
        CHECK_TEXT("0190b5a8-7c1e-7000-8000-000000000001",
            peer_header(&target, "Idempotency-Key"));
        CHECK(peer_header(&target, "Expect") == NULL);
        CHECK_TEXT("{\"n\":1}", peer_body(&target));
    }
    CHECK_INT(2, target.requests);
    close_all();
    peer_stop(&target);
}

TEST(test_http__redirect_within_the_origin__carries_all)
{
    open_endpoint(secret_route);
    peer.answer = redirect_twice;
    (void)snprintf(next_hop, sizeof(next_hop),
        "HTTP/1.1 302 Go\r\nLocation: HTTP://127.0.0.1:%d/next#part\r\n"
        "Content-Length: 0\r\n\r\n",
        peer.port);
    post_with_secret_header();
    CHECK_INT(3, peer.requests);
    CHECK(strncmp(peer.last, "POST /next HTTP/1.1\r\n", 21) == 0);
    CHECK_TEXT("k", peer_header(&peer, "X-Api-Key"));
    CHECK_TEXT("c", peer_header(&peer, "Cookie"));
    CHECK(peer_header(&peer, "webhook-signature") != NULL);
    close_all();
}

TEST(test_http__follow_in_a_ring__stops_after_three)
{
    open_endpoint((struct wb_http_opts){.follow = true});
    peer_set_reply(&peer,
        "HTTP/1.1 308 Go\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n");
    post();
    CHECK_INT(WB_REJECTED, sent.outcome);
    CHECK_TEXT("308 Go", sent.error);
    CHECK_INT(4, peer.requests);
    close_all();
}

TEST(test_http__follow_elsewhere__only_http_and_only_if_there) /* S2 */
{
    static const char *const targets[] = {"file:///etc/passwd",
        "gopher://127.0.0.1:1/x", "ftp://127.0.0.1/x", "dict://127.0.0.1:1/"};
    char hop[200];

    open_endpoint((struct wb_http_opts){.follow = true});
    for (int i = 0; i < 4; i++) {
        (void)snprintf(hop, sizeof(hop),
            "HTTP/1.1 302 Go\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n",
            targets[i]);
        peer_set_reply(&peer, hop);
        post();
        CHECK_INT(WB_REJECTED, sent.outcome);
        CHECK_INT(i + 1, peer.requests);
    }
    (void)snprintf(hop, sizeof(hop),
        "HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:%d/\r\n"
        "Content-Length: 0\r\n\r\n",
        peer_dead_port());
    peer_set_reply(&peer, hop);
    post();
    CHECK_INT(WB_RETRY, sent.outcome); /* answered, and not taken */
    CHECK_HAS("transport: ", sent.error);
    close_all();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_http__follow__body_goes_along),
        RUN(test_http__follow__only_with_the_whole_payload),
        RUN(test_http__redirect_to_another_origin__carries_no_secret),
        RUN(test_http__redirect_within_the_origin__carries_all),
        RUN(test_http__follow_in_a_ring__stops_after_three),
        RUN(test_http__follow_elsewhere__only_http_and_only_if_there),
    };
    return RUN_ALL(tests);
}
