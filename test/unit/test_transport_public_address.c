/* test_transport_public_address.c - S1: with public_only nothing goes to an
 * address that is not public, whatever its spelling and whatever a name
 * resolves to.
 *
 * getaddrinfo() is ours here, so that names mean what a test wants. */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <dlfcn.h>
#include <netdb.h>
#include <unistd.h>

#include "http_peer.h"
#include "transport/http.h"
#include "transport_fixture.h"

typedef int resolver(const char *node, const char *service,
    const struct addrinfo *hints, struct addrinfo **out);

static atomic_int lookups;

/* name.test is what the line below it says. */
int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
    struct addrinfo **out)
{
    resolver *next = (resolver *)(uintptr_t)dlsym(RTLD_NEXT, "getaddrinfo");

    lookups++;
    if (strcmp(node, "rebind.test") == 0)
        node = "127.0.0.1";
    if (strcmp(node, "metadata.test") == 0)
        node = "169.254.169.254";
    if (strcmp(node, "hang.test") == 0) {
        (void)usleep(1500000);
        return EAI_AGAIN;
    }
    return next(node, service, hints, out);
}

/* ---- the table --------------------------------------------------------- */

static const struct {
    const char *text;
    bool open;
} addresses[] = {
    {"0.0.0.0", false},
    {"0.255.255.255", false},
    {"1.0.0.0", true},
    {"8.8.8.8", true},
    {"9.255.255.255", true},
    {"10.0.0.0", false},
    {"10.255.255.255", false},
    {"11.0.0.0", true},
    {"100.63.255.255", true},
    {"100.64.0.0", false},
    {"100.127.255.255", false},
    {"100.128.0.0", true},
    {"126.255.255.255", true},
    {"127.0.0.1", false},
    {"127.255.255.254", false},
    {"128.0.0.0", true},
    {"169.253.255.255", true},
    {"169.254.0.0", false},
    {"169.254.169.254", false},
    {"169.255.0.0", true},
    {"172.15.255.255", true},
    {"172.16.0.0", false},
    {"172.31.255.255", false},
    {"172.32.0.0", true},
    {"191.255.255.255", true},
    {"192.0.0.1", false},
    {"192.0.0.170", false},
    {"192.0.1.0", true},
    {"192.0.2.1", false},
    {"192.0.3.0", true},
    {"192.88.99.1", false},
    {"192.167.255.255", true},
    {"192.168.0.1", false},
    {"192.168.255.255", false},
    {"192.169.0.0", true},
    {"198.17.255.255", true},
    {"198.18.0.0", false},
    {"198.19.255.255", false},
    {"198.20.0.0", true},
    {"198.51.100.7", false},
    {"203.0.113.7", false},
    {"203.0.114.0", true},
    {"223.255.255.255", true},
    {"224.0.0.1", false},
    {"239.255.255.255", false},
    {"240.0.0.1", false},
    {"255.255.255.255", false},
    {"::", false},
    {"::1", false},
    {"::7f00:1", false},
    {"::ffff:127.0.0.1", false},
    {"::ffff:8.8.8.8", false},
    {"64:ff9b::7f00:1", false},
    {"64:ff9b::808:808", false},
    {"64:ff9b:1::1", false},
    {"100::1", false},
    {"1fff:ffff::1", false},
    {"2000::1", true},
    {"2001::1", false},
    {"2001:0:53aa:64c::1", false},
    {"2001:2::1", false},
    {"2001:10::1", false},
    {"2001:20::1", false},
    {"2001:1ff:ffff::1", false},
    {"2001:200::1", true},
    {"2001:db8::1", false},
    {"2001:db9::1", true},
    {"2001:4860:4860::8888", true},
    {"2002:7f00:1::1", false},
    {"2002:808:808::1", false},
    {"2003::1", true},
    {"2606:4700::1111", true},
    {"3ffe:ffff::1", true},
    {"3fff::1", false},
    {"3fff:fff:ffff::1", false},
    {"3fff:1000::1", true},
    {"4000::1", false},
    {"5f00::1", false},
    {"fc00::1", false},
    {"fd00:ec2::254", false},
    {"fe80::1", false},
    {"fec0::1", false},
    {"ff02::1", false},
};

static struct sockaddr_storage
address_of(const char *text)
{
    struct sockaddr_storage s = {0};

    if (strchr(text, ':') != NULL)
        CHECK_INT(0, uv_ip6_addr(text, 80, (struct sockaddr_in6 *)&s));
    else
        CHECK_INT(0, uv_ip4_addr(text, 80, (struct sockaddr_in *)&s));
    return s;
}

TEST(test_guard__table__public_or_not)
{
    for (size_t i = 0; i < WB_COUNT(addresses); i++) {
        struct sockaddr_storage s = address_of(addresses[i].text);
        bool by_addr = wb__address_public((struct sockaddr *)&s);
        bool by_text = wb__address_text_public(addresses[i].text);

        if (by_addr != addresses[i].open || by_text != addresses[i].open)
            fail_msg("%s: expected %s", addresses[i].text,
                addresses[i].open ? "public" : "closed");
    }
}

TEST(test_guard__no_address__closed)
{
    struct sockaddr other = {.sa_family = AF_UNIX};

    CHECK(!wb__address_public(&other));
    CHECK(!wb__address_text_public(NULL));
    CHECK(!wb__address_text_public(""));
    CHECK(!wb__address_text_public("8.8.8.8.8"));
    CHECK(!wb__address_text_public("example.org"));
}

TEST(test_guard__this_machine__is_own)
{
    struct sockaddr_storage own = address_of("127.0.0.1");
    struct sockaddr_storage other = address_of("198.51.100.77");

    CHECK(wb__address_own((struct sockaddr *)&own));
    CHECK(!wb__address_own((struct sockaddr *)&other));
}

/* ---- over http --------------------------------------------------------- */

static struct peer peer;
static uv_loop_t loop;
static struct wb_http *http;
static struct sent sent;

static struct wb_transport *
open_endpoint(bool public_only)
{
    struct wb_http_opts opts = {.public_only = public_only};
    struct wb_transport *t;
    struct wb_err err = {0};

    CHECK_OK(wb_http_new(&t, http, &opts, &err), err);
    return t;
}

static void
open_all(void)
{
    struct wb_err err = {0};

    peer_start(&peer);
    CHECK_INT(0, uv_loop_init(&loop));
    CHECK_OK(wb_http_open(&http, ENV, &loop, &err), err);
}

static void
close_all(void)
{
    wb_http_close(http);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(0, uv_loop_close(&loop));
    peer_stop(&peer);
    memset(&peer, 0, sizeof(peer));
}

static void
post_to(struct wb_transport *t, const char *host, int64_t timeout_ms)
{
    struct wb_request q = some_request();
    char url[200];

    (void)snprintf(url, sizeof(url), "http://%s:%d/", host, peer.port);
    q.url = wb_slice(url);
    q.timeout_ms = timeout_ms;
    send_and_wait(&loop, t, &q, &sent);
}

static const char *const spellings[] = {"127.0.0.1", "127.1", "0x7f.1",
    "2130706433", "017700000001", "0", "[::ffff:127.0.0.1]",
    "[0:0:0:0:0:ffff:7f00:1]", "127.0.0.1.", "localhost", "LOCALHOST.", "[::1]",
    "rebind.test", "metadata.test", "127.0.0.1%2e", "%31%32%37.0.0.1"};

TEST(test_guard__odd_spellings__never_connected)
{
    struct wb_transport *t;

    open_all();
    t = open_endpoint(true);
    for (size_t i = 0; i < WB_COUNT(spellings); i++) {
        post_to(t, spellings[i], 2000);
        if (sent.outcome != WB_REJECTED &&
            strstr(sent.error, "could not resolve") == NULL)
            fail_msg("%s: %s", spellings[i], sent.error);
    }
    post_to(t, "127.0.0.1", 2000);
    CHECK_TEXT("transport: 127.0.0.1 is not a public address (public_only)",
        sent.error);
    CHECK_INT(0, peer.connections);
    wb_transport_free(t);
    close_all();
}

/* Else the test above proves nothing. */
TEST(test_guard__without_public_only__spellings_connect)
{
    struct wb_transport *t;

    open_all();
    t = open_endpoint(false);
    for (size_t i = 0; i < 7; i++) {
        post_to(t, spellings[i], 2000);
        CHECK_INT(WB_DELIVERED, sent.outcome);
    }
    post_to(t, "rebind.test", 2000);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_INT(8, peer.requests);
    wb_transport_free(t);
    close_all();
}

TEST(test_guard__kept_connection_of_another_endpoint__not_used)
{
    struct wb_transport *open, *closed;

    open_all();
    open = open_endpoint(false);
    closed = open_endpoint(true);
    post_to(open, "127.0.0.1", 2000);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    post_to(closed, "127.0.0.1", 2000);
    CHECK_INT(WB_REJECTED, sent.outcome);
    CHECK_HAS("127.0.0.1 is not a public address", sent.error);
    CHECK_INT(1, peer.requests);
    wb_transport_free(open);
    wb_transport_free(closed);
    close_all();
}

/* A lookup that hangs costs its own attempt, not the loop. */
TEST(test_guard__lookup_hangs__deadline_holds) /* F5 */
{
    struct wb_transport *t;
    uint64_t start = uv_hrtime();

    open_all();
    t = open_endpoint(false);
    post_to(t, "hang.test", 100);
    CHECK_INT(WB_RETRY, sent.outcome);
    CHECK_HAS("transport: resolving timed out", sent.error);
    CHECK((uv_hrtime() - start) / 1000000 < 1000);
    wb_transport_free(t);
    close_all();
    while ((uv_hrtime() - start) / 1000000 < 1700)
        uv_sleep(10); /* libcurl's thread still looks up; let it end */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_guard__table__public_or_not),
        RUN(test_guard__no_address__closed),
        RUN(test_guard__this_machine__is_own),
        RUN(test_guard__odd_spellings__never_connected),
        RUN(test_guard__without_public_only__spellings_connect),
        RUN(test_guard__kept_connection_of_another_endpoint__not_used),
        RUN(test_guard__lookup_hangs__deadline_holds),
    };
    return RUN_ALL(tests);
}
