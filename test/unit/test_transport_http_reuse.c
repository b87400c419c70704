/* test_transport_http_reuse.c - T-7: connections that are used again, and that
 * the receiver closes before, within or behind an answer. */
#include <unistd.h>

#include "http_fixture.h"

/* Answers the first request of a connection; reads the second and dies. */
static bool
die_on_second(struct peer_conn *c)
{
    return c->requests == 1 && peer_reply(c);
}

TEST(test_http__reused_connection_dies__sent_again_on_a_new_one) /* T-7 */
{
    peer.answer = die_on_second;
    open_endpoint(plain);
    post();
    for (int i = 1; i <= 5; i++) {
        post();
        CHECK_INT(WB_DELIVERED, sent.outcome);
        CHECK_INT(1 + 2 * i, peer.requests);
        CHECK_INT(1 + i, peer.connections);
    }
    close_all();
}

/* Many idle connections that the receiver has forgotten. */
TEST(test_http__all_reused_connections_die__each_sent_again_once) /* T-7 */
{
    enum {
        MANY = 20
    };
    static struct sent all[MANY];
    struct wb_request q = some_request();

    memset(all, 0, sizeof(all));
    peer.answer = die_on_second;
    open_endpoint(plain);
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < MANY; i++)
            endpoint->send(endpoint, &q, sent_done, &all[i]);
        (void)uv_run(&loop, UV_RUN_DEFAULT);
        for (int i = 0; i < MANY; i++) {
            CHECK_INT(round, all[i].calls);
            CHECK_INT(WB_DELIVERED, all[i].outcome);
        }
    }
    CHECK(peer.requests <= 2 * 3 * MANY);
    close_all();
}

/* Says on a used connection that it has read nothing. */
static bool
refuse_second(struct peer_conn *c)
{
    return c->requests == 1
               ? peer_reply(c)
               : peer_say(c, c->peer->reply, strlen(c->peer->reply)) && false;
}

/* So does a server whose idle connection ran out of time (408), or that is not
 * the one meant (421): on a new connection it counts as any answer. */
TEST(test_http__reused_connection_brings_408_or_421__sent_again_on_a_new_one)
{
    static const struct {
        const char *reply;
        enum wb_outcome outcome; /* on a new connection */
    } cases[] = {
        {"HTTP/1.1 408 Late\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            WB_RETRY},
        {"HTTP/1.1 421 Not here\r\nContent-Length: 2\r\n\r\nno", WB_REJECTED},
    };

    for (size_t i = 0; i < WB_COUNT(cases); i++) {
        peer.answer = refuse_second;
        peer.reply = cases[i].reply;
        open_endpoint(plain);
        post();
        CHECK_INT(cases[i].outcome, sent.outcome);
        CHECK_INT(1, peer.requests);
        close_all();
        peer.answer = refuse_second;
        peer.reply = cases[i].reply;
        open_endpoint(plain);
        peer_set_reply(&peer, "HTTP/1.1 204 No Content\r\n\r\n");
        for (int n = 1; n <= 3; n++) {
            post();
            CHECK_INT(WB_DELIVERED, sent.outcome);
            CHECK_INT(2 * n - 1, peer.requests);
            CHECK_INT(n, peer.connections);
        }
        close_all();
    }
}

/* Answers the first request of all, no other. */
static bool
die_after_first(struct peer_conn *c)
{
    return c->peer->requests == 1 && peer_reply(c);
}

TEST(test_http__new_connection_dies_too__unknown_after_two_requests) /* T-7 */
{
    peer.answer = die_after_first;
    open_endpoint(plain);
    post();
    CHECK_INT(WB_DELIVERED, sent.outcome);
    post();
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    CHECK_INT(3, peer.requests);
    close_all();
}

/* A line of an answer came: the receiver had the request. */
static bool
die_within_second(struct peer_conn *c)
{
    static const char start[] = "HTTP/1.1 200 OK\r\nConte";

    return c->requests == 1 ? peer_reply(c)
                            : (peer_say(c, start, sizeof(start) - 1), false);
}

TEST(test_http__reused_connection_dies_within_an_answer__not_sent_again)
{
    peer.answer = die_within_second;
    open_endpoint(plain);
    post();
    post();
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    CHECK_INT(2, peer.requests);
    close_all();
}

/* The connection is closed between two requests. */
static bool
close_after_reply(struct peer_conn *c)
{
    (void)peer_reply(c);
    return false;
}

TEST(test_http__idle_connection_closed__new_one_is_made)
{
    peer.answer = close_after_reply;
    open_endpoint(plain);
    for (int i = 0; i < 5; i++) {
        post();
        CHECK_INT(WB_DELIVERED, sent.outcome);
        while (peer.conn[i].fd == 0 ||
               recv(peer.conn[i].fd, url, 1, MSG_PEEK | MSG_DONTWAIT) < 0)
            uv_sleep(1);
    }
    CHECK_INT(5, peer.requests);
    close_all();
}

/* A receiver that answers before it has read the body, and closes: the kernel
 * sends a reset after the answer. */
static atomic_bool may_answer, has_reset, within_call;

/* libcurl's: within_call, the answer and the reset come between the write of a
 * header and that of its body of zeros. libcurl does not look in between. */
ssize_t
send(int fd, const void *bytes, size_t len, int flags)
{
    while (within_call && *(const char *)bytes == '\0' && !has_reset) {
        may_answer = true;
        uv_sleep(1);
    }
    return sendto(fd, bytes, len, flags, NULL, 0);
}

static bool
answer_and_reset(struct peer_conn *c)
{
    while (!may_answer && peer_wait_ms(c, 1))
        ;
    (void)peer_reply(c);
    (void)peer_reset(c);
    has_reset = true;
    return false;
}

static void
post_and_be_reset(size_t body)
{
    struct wb_request q = some_request();
    char *large = calloc(1, body);

    q.body = (struct wb_slice){large, body};
    memset(&sent, 0, sizeof(sent));
    may_answer = has_reset = false;
    endpoint->send(endpoint, &q, sent_done, &sent);
    for (int had = peer.requests; peer.requests == had && sent.calls == 0;)
        (void)uv_run(&loop, UV_RUN_NOWAIT);
    may_answer = true;
    while (!has_reset && sent.calls == 0)
        uv_sleep(1);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(1, sent.calls);
    free(large);
}

TEST(test_http__answer_then_reset__answer_counts)
{
    peer.answer = answer_and_reset;
    peer.head_only = true;
    open_endpoint(plain);
    for (int i = 0; i < 6; i++) {
        static const size_t body[] = {61440, 131072, 16 << 20};

        peer_set_reply(
            &peer, i < 3 ? "HTTP/1.1 204 No Content\r\n\r\n"
                         : "HTTP/1.1 400 No\r\nContent-Length: 3\r\n\r\nbad");
        post_and_be_reset(body[i % 3]);
        CHECK_INT(i < 3 ? WB_DELIVERED : WB_REJECTED, sent.outcome);
        CHECK_INT(i < 3 ? 204 : 400, sent.status);
    }
    CHECK_TEXT("400 No: bad", sent.error);
    close_all();
}

/* Answers the first request of a connection as the test says, and resets behind
 * the second. */
static bool
reset_on_second(struct peer_conn *c)
{
    return c->requests == 1 ? peer_reply(c) : answer_and_reset(c);
}

TEST(test_http__answer_and_reset_between_two_writes__answer_counts)
{
    static const struct {
        const char *reply, *error;
        enum wb_outcome outcome;
        int status;
    } cases[] = {
        {"HTTP/1.1 204 No Content\r\n\r\n", "", WB_DELIVERED, 204},
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes", "", WB_DELIVERED,
            200},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"
         "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "", WB_DELIVERED, 200},
        {"HTTP/1.1 400 No\r\nContent-Length: 3\r\n\r\nbad", "400 No: bad",
            WB_REJECTED, 400},
        {"HTTP/1.1 200 OK\r\nX: ",
            "transport: the connection closed within the header of the answer",
            WB_UNKNOWN, 0},
        {"nothing of HTTP\r\n\r\n",
            "transport: send failure: Connection reset by peer", WB_UNKNOWN, 0},
    };

    for (size_t i = 0; i < 2 * WB_COUNT(cases); i++) {
        size_t n = i / 2;
        bool used = i % 2 == 1;

        peer.answer = used ? reset_on_second : answer_and_reset;
        peer.head_only = true;
        peer.reply = "HTTP/1.1 204 No Content\r\n\r\n";
        open_endpoint(plain);
        if (used) {
            struct wb_request q = some_request();

            q.body.len = 0;
            send_and_wait(&loop, endpoint, &q, &sent);
        }
        peer_set_reply(&peer, cases[n].reply);
        within_call = true;
        post_and_be_reset(1 << 20);
        within_call = false;
        CHECK_INT(cases[n].outcome, sent.outcome);
        CHECK_INT(cases[n].status, sent.status);
        CHECK_TEXT(cases[n].error, sent.error);
        CHECK_INT(used ? 2 : 1, peer.requests);
        close_all();
    }
}

TEST(test_http__reset_without_answer__unknown_and_says_so)
{
    peer.answer = answer_and_reset;
    peer.head_only = true;
    peer.reply = "HTTP/1.1 200 OK\r\nX: ";
    open_endpoint(plain);
    post_and_be_reset(1);
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    CHECK_HAS("Connection reset by peer", sent.error);
    close_all();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_http__reused_connection_dies__sent_again_on_a_new_one),
        RUN(test_http__reused_connection_brings_408_or_421__sent_again_on_a_new_one),
        RUN(test_http__all_reused_connections_die__each_sent_again_once),
        RUN(test_http__new_connection_dies_too__unknown_after_two_requests),
        RUN(test_http__reused_connection_dies_within_an_answer__not_sent_again),
        RUN(test_http__idle_connection_closed__new_one_is_made),
        RUN(test_http__answer_then_reset__answer_counts),
        RUN(test_http__answer_and_reset_between_two_writes__answer_counts),
        RUN(test_http__reset_without_answer__unknown_and_says_so),
    };
    return RUN_ALL(tests);
}
