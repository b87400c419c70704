/* test_gate_upstream.c - connecting to a name that has several addresses. The
 * resolver is this file's own: it gives the addresses that a test lists. */
#include "http_peer.h"
#include "support.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <uv.h>

#include "gate/gate_internal.h"

enum {
    ADDRESSES_MAX = 3
};

static struct addrinfo address[ADDRESSES_MAX];
static struct sockaddr_in socket_address[ADDRESSES_MAX];
static int addresses;

int
getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
    struct addrinfo **found)
{
    (void)host;
    (void)port;
    (void)hints;
    *found = address;
    return addresses == 0 ? EAI_NONAME : 0;
}

void
freeaddrinfo(struct addrinfo *found)
{
    (void)found;
}

static void
add_address(const char *ip, int port)
{
    int i = addresses++;

    CHECK(i < ADDRESSES_MAX);
    socket_address[i] = (struct sockaddr_in){.sin_family = AF_INET,
        .sin_port = htons((uint16_t)port),
        .sin_addr.s_addr = inet_addr(ip)};
    address[i] = (struct addrinfo){.ai_family = AF_INET,
        .ai_socktype = SOCK_STREAM,
        .ai_addr = (struct sockaddr *)&socket_address[i],
        .ai_addrlen = sizeof(socket_address[i])};
    if (i > 0)
        address[i - 1].ai_next = &address[i];
}

static struct peer peer;
static uv_loop_t loop;
static struct wb__upstream *up;
static struct wb__upstream_request request;
static int status, ended, failed;
static bool sent;

static void
on_head(struct wb__upstream_request *r, const struct wb__http_head *head)
{
    (void)r;
    status = head->status;
}

static void
on_body(struct wb__upstream_request *r, struct wb_slice piece)
{
    (void)r;
    (void)piece;
}

static void
on_end(struct wb__upstream_request *r)
{
    (void)r;
    ended++;
    wb__upstream_close(up);
}

static void
on_fail(struct wb__upstream_request *r, bool may_have_sent, const char *why)
{
    (void)r;
    (void)why;
    failed++;
    sent = may_have_sent;
    wb__upstream_close(up);
}

static void
begin(void)
{
    memset(address, 0, sizeof(address));
    addresses = status = ended = failed = 0;
}

static void
send_request(void)
{
    struct wb__upstream_opts opts = {.env = ENV,
        .loop = &loop,
        .host = WB_LIT("name.example"),
        .port = WB_LIT("80")};

    CHECK_INT(0, uv_loop_init(&loop));
    CHECK_STATUS(OK, wb__upstream_open(&up, &opts, NULL));
    request = (struct wb__upstream_request){.on_head = on_head,
        .on_body = on_body,
        .on_end = on_end,
        .on_fail = on_fail};
    CHECK_STATUS(OK, wb__upstream_send(up, &request,
                         WB_LIT("GET / HTTP/1.1\r\nHost: a\r\n\r\n")));
    wb__upstream_end(&request);
}

static void
run_loop(void)
{
    CHECK_INT(0, uv_run(&loop, UV_RUN_DEFAULT));
    CHECK_INT(0, uv_loop_close(&loop));
}

/* One address fails at once, one later. */
TEST(test_gate_upstream__addresses_that_fail__next_one_is_used)
{
    begin();
    peer_start(&peer);
    add_address("255.255.255.255", 80);
    add_address("127.0.0.1", peer_dead_port());
    add_address("127.0.0.1", peer.port);
    send_request();
    run_loop();
    CHECK_INT(1, ended);
    CHECK_INT(0, failed);
    CHECK_INT(204, status);
    CHECK_INT(1, peer.requests);
    peer_stop(&peer);
}

/* G-9 */
TEST(test_gate_upstream__every_address_fails__not_sent)
{
    begin();
    add_address("127.0.0.1", peer_dead_port());
    add_address("255.255.255.255", 80);
    send_request();
    run_loop();
    CHECK_INT(0, ended);
    CHECK_INT(1, failed);
    CHECK(!sent);
}

TEST(test_gate_upstream__unknown_name__not_sent)
{
    begin();
    send_request();
    run_loop();
    CHECK_INT(1, failed);
    CHECK(!sent);
}

TEST(test_gate_upstream__cancelled_while_connecting__no_callback)
{
    begin();
    add_address("127.0.0.1", peer_dead_port());
    add_address("127.0.0.1", peer_dead_port());
    for (int steps = 0; steps < 5; steps++) {
        send_request();
        for (int i = 0; i < steps; i++)
            (void)uv_run(&loop, UV_RUN_ONCE);
        if (failed == 0)
            wb__upstream_cancel(&request);
        if (failed == 0)
            wb__upstream_close(up);
        run_loop();
        CHECK_INT(0, ended);
        failed = 0;
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_gate_upstream__addresses_that_fail__next_one_is_used),
        RUN(test_gate_upstream__every_address_fails__not_sent),
        RUN(test_gate_upstream__unknown_name__not_sent),
        RUN(test_gate_upstream__cancelled_while_connecting__no_callback),
    };
    return RUN_ALL(tests);
}
