/* test_transport_tls.c - S6: chain, host and dates are verified, TLS 1.2 at
 * least; T-3: HTTP/2 (against node, where it is installed). */
#define _GNU_SOURCE /* pipe2 */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include "http_peer.h"
#include "transport_fixture.h"

static struct peer peer;
static uv_loop_t loop;
static struct wb_http *http;
static struct wb_transport *endpoint;
static struct sent sent;

/* ---- certificates ------------------------------------------------------ */

struct cert {
    X509 *x;
    EVP_PKEY *key;
};

static void
extend(X509 *x, int nid, const char *value)
{
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, NULL, nid, value);

    CHECK(e != NULL && X509_add_ext(x, e, -1) == 1);
    X509_EXTENSION_free(e);
}

static struct cert
cert_make(const char *name, const char *san, long days, const struct cert *ca)
{
    struct cert c = {X509_new(), EVP_EC_gen("P-256")};
    X509_NAME *subject = X509_get_subject_name(c.x);

    CHECK(X509_set_version(c.x, 2) == 1);
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(c.x), rand()) == 1);
    CHECK(X509_time_adj_ex(X509_getm_notBefore(c.x), -10, 0, NULL) != NULL);
    CHECK(
        X509_time_adj_ex(X509_getm_notAfter(c.x), (int)days, 0, NULL) != NULL);
    CHECK(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
              (const unsigned char *)name, -1, -1, 0) == 1);
    CHECK(X509_set_issuer_name(
              c.x, ca == NULL ? subject : X509_get_subject_name(ca->x)) == 1);
    CHECK(X509_set_pubkey(c.x, c.key) == 1);
    if (san == NULL)
        extend(c.x, NID_basic_constraints, "critical,CA:TRUE");
    else
        extend(c.x, NID_subject_alt_name, san);
    CHECK(X509_sign(c.x, ca == NULL ? c.key : ca->key, EVP_sha256()) > 0);
    return c;
}

static void
cert_write(const struct cert *c, const char *pem, const char *key)
{
    FILE *f = fopen(pem, "w");

    CHECK(f != NULL && PEM_write_X509(f, c->x) == 1 && fclose(f) == 0);
    f = fopen(key, "w");
    CHECK(f != NULL &&
          PEM_write_PrivateKey(f, c->key, NULL, NULL, 0, NULL, NULL) == 1 &&
          fclose(f) == 0);
}

static void
cert_free(struct cert *c)
{
    X509_free(c->x);
    EVP_PKEY_free(c->key);
}

/* ca.pem, and leaf.pem for san signed by it (or by itself). */
static void
make_certs(const char *san, long days, bool self_signed)
{
    struct cert ca = cert_make("Test CA", NULL, 10, NULL);
    struct cert leaf = cert_make("leaf", san, days, self_signed ? NULL : &ca);

    cert_write(&ca, "ca.pem", "ca.key");
    cert_write(&leaf, "leaf.pem", "leaf.key");
    cert_free(&ca);
    cert_free(&leaf);
}

/* ---- one exchange ------------------------------------------------------ */

static void
open_endpoint(int port, bool with_ca)
{
    static char url[100];
    struct wb_http_opts opts = {.url = {url, 0}};
    struct wb_err err = {0};

    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%d/ok", port);
    opts.url.len = strlen(url);
    if (with_ca)
        opts.ca_file = WB_LIT("ca.pem");
    CHECK_INT(0, uv_loop_init(&loop));
    CHECK_OK(wb_http_open(&http, ENV, &loop, &err), err);
    CHECK_OK(wb_http_new(&endpoint, http, &opts, &err), err);
}

static void
close_endpoint(void)
{
    wb_transport_free(endpoint);
    wb_http_close(http);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(0, uv_loop_close(&loop));
}

static void
exchange(bool with_ca)
{
    struct wb_request q = some_request();

    peer.tls_cert = "leaf.pem";
    peer.tls_key = "leaf.key";
    peer_start(&peer);
    open_endpoint(peer.port, with_ca);
    send_and_wait(&loop, endpoint, &q, &sent);
    close_endpoint();
    peer_stop(&peer);
}

static void
check_refused(const char *why)
{
    CHECK_INT(WB_RETRY,
        sent.outcome); /* nothing was sent; the cause may be fixed later */
    CHECK(strncmp(sent.error, "transport: ", 11) == 0);
    CHECK_HAS(why, sent.error);
    CHECK_INT(0, peer.requests);
    memset(&peer, 0, sizeof(peer));
}

TEST(test_tls__good_certificate__accepted)
{
    make_certs("IP:127.0.0.1", 10, false);
    exchange(true);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_INT(1, peer.requests);
    memset(&peer, 0, sizeof(peer));
}

TEST(test_tls__unknown_issuer__refused)
{
    make_certs("IP:127.0.0.1", 10, false);
    exchange(false);
    check_refused("unable to get local issuer certificate");
}

TEST(test_tls__self_signed__refused)
{
    make_certs("IP:127.0.0.1", 10, true);
    exchange(true);
    check_refused("self-signed certificate");
}

TEST(test_tls__wrong_host__refused)
{
    make_certs("DNS:127.0.0.1.example,IP:127.0.0.2", 10, false);
    exchange(true);
    check_refused("127.0.0.1");
}

TEST(test_tls__expired__refused)
{
    make_certs("IP:127.0.0.1", -1, false);
    exchange(true);
    check_refused("expired");
}

TEST(test_tls__version_1_1__refused)
{
    make_certs("IP:127.0.0.1", 10, false);
    peer.tls_old = true;
    exchange(true);
    check_refused("version");
}

/* ---- HTTP/2 ------------------------------------------------------------ */

static const char node_server[] =
    "const h=require('http2'),fs=require('fs');let n=0,c=0;"
    "const s=h.createSecureServer({key:fs.readFileSync('leaf.key'),"
    "cert:fs.readFileSync('leaf.pem'),allowHTTP1:false});"
    "s.on('session',()=>{c++});s.on('sessionError',()=>{});"
    "s.on('stream',(t,q)=>{n++;t.on('error',()=>{});"
    "const p=q[':path'];t.resume();"
    "if(p=='/no'){t.respond({':status':401});t.end('{\"error\":\"no\"}');}"
    "else if(p=='/refuse')t.close(h.constants.NGHTTP2_REFUSED_STREAM);"
    "else{t.respond({':status':200});t.end(n+' '+c+' '+q[':method']+' '"
    "+q['idempotency-key']);}});"
    "s.listen(0,'127.0.0.1',()=>console.log(s.address().port));"
    "process.stdin.resume().on('end',()=>process.exit(0));";

/* Runs until its stdin ends. */
static int
node_start(uv_process_t *process, uv_loop_t *on, int *stdin_end)
{
    int in[2], out[2], port = 0;
    char *argv[] = {(char *)(uintptr_t) "node", (char *)(uintptr_t) "-e",
        (char *)(uintptr_t)node_server, NULL};
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_INHERIT_FD}, {.flags = UV_INHERIT_FD}, {.flags = 0}};
    uv_process_options_t options = {
        .file = "node", .args = argv, .stdio_count = 3, .stdio = stdio};
    FILE *f;

    CHECK(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0);
    stdio[0].data.fd = in[0];
    stdio[1].data.fd = out[1];
    *stdin_end = in[1];
    if (uv_spawn(on, process, &options) == 0) {
        (void)close(out[1]);
        f = fdopen(out[0], "r");
        CHECK(fscanf(f, "%d", &port) == 1);
        (void)fclose(f);
    }
    (void)close(in[0]);
    return port;
}

static void
post_to(int port, const char *path)
{
    struct wb_request q = some_request();
    char url[100];

    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%d%s", port, path);
    q.url = wb_slice(url);
    send_and_wait(&loop, endpoint, &q, &sent);
}

static void
check_http2(int port)
{
    static struct sent all[64];
    struct wb_request q = some_request();

    post_to(port, "/ok");
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_TEXT("1 1 POST 0190b5a8-7c1e-7000-8000-000000000001", sent.body);
    post_to(port, "/no");
    CHECK_INT(WB_REJECTED, sent.outcome);
    CHECK_TEXT("401 Unauthorized: {\"error\":\"no\"}", sent.error);
    memset(all, 0, sizeof(all));
    for (int i = 0; i < 64; i++)
        endpoint->send(endpoint, &q, sent_done, &all[i]);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    for (int i = 0; i < 64; i++)
        CHECK_INT(WB_DELIVERED, all[i].outcome);
    post_to(port, "/ok");
    CHECK_HAS("67 1 POST", sent.body); /* streams and connections so far */
    post_to(port, "/refuse");
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    post_to(port, "/ok");
    CHECK_HAS("70 3 POST", sent.body); /* T-7: sent again on a new one, once */
}

TEST(test_tls__http2__one_connection_for_all) /* T-3 */
{
    uv_process_t process;
    uv_loop_t other;
    int port, in;

    make_certs("IP:127.0.0.1", 10, false);
    CHECK_INT(0, uv_loop_init(&other));
    port = node_start(&process, &other, &in);
    if (port != 0) {
        open_endpoint(port, true);
        check_http2(port);
        close_endpoint();
    }
    (void)close(in);
    (void)uv_run(&other, UV_RUN_DEFAULT);
    uv_close((uv_handle_t *)&process, NULL);
    (void)uv_run(&other, UV_RUN_DEFAULT);
    CHECK_INT(0, uv_loop_close(&other));
    if (port == 0)
        print_message("skipped: there is no node\n");
}

TEST(test_tls__client_certificate__shown_to_its_origin_alone) /* S9 */
{
    static struct peer other;
    static char url[100], hop[200];
    struct wb_http_opts opts = {.ca_file = WB_LIT("ca.pem"),
        .client_cert = WB_LIT("leaf.pem"),
        .client_key = WB_LIT("leaf.key"),
        .follow = true};
    struct wb_request q = some_request();
    struct wb_err err = {0};

    make_certs("IP:127.0.0.1", 10, false);
    peer.tls_cert = other.tls_cert = "leaf.pem";
    peer.tls_key = other.tls_key = "leaf.key";
    peer.tls_ca = other.tls_ca = "ca.pem";
    peer_start(&other);
    (void)snprintf(hop, sizeof(hop),
        "HTTP/1.1 307 Go\r\nLocation: https://127.0.0.1:%d/\r\n"
        "Content-Length: 0\r\nConnection: close\r\n\r\n",
        other.port);
    peer.reply = hop;
    peer_start(&peer);
    (void)snprintf(url, sizeof(url), "https://127.0.0.1:%d/ok", peer.port);
    opts.url = wb_slice(url);
    CHECK_INT(0, uv_loop_init(&loop));
    CHECK_OK(wb_http_open(&http, ENV, &loop, &err), err);
    CHECK_OK(wb_http_new(&endpoint, http, &opts, &err), err);
    for (int i = 1; i <= 3; i++) {
        send_and_wait(&loop, endpoint, &q, &sent);
        CHECK_INT(WB_DELIVERED, sent.outcome);
        CHECK_INT(i, other.requests);
    }
    CHECK_INT(peer.connections, peer.certificates);
    CHECK_INT(0, other.certificates);
    close_endpoint();
    peer_stop(&peer);
    peer_stop(&other);
    memset(&peer, 0, sizeof(peer));
}

/* The proxy, and the receiver behind it. */
static bool
tunnel(struct peer_conn *c)
{
    static const char ok[] = "HTTP/1.1 200 OK\r\n\r\n";

    if (c->requests > 1)
        return peer_reply(c);
    return peer_say(c, ok, sizeof(ok) - 1);
}

TEST(test_tls__https_proxy__verified_as_any_server)
{
    struct wb_http_opts opts = {.url = WB_LIT("http://hook.invalid/")};
    struct wb_request q = some_request();
    struct wb_err err = {0};
    char proxy[100];

    make_certs("IP:127.0.0.1", 10, false);
    peer.tls_cert = "leaf.pem";
    peer.tls_key = "leaf.key";
    peer.answer = tunnel;
    peer_start(&peer);
    (void)snprintf(
        proxy, sizeof(proxy), "https://bob:s@127.0.0.1:%d", peer.port);
    opts.proxy = wb_slice(proxy);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(0, uv_loop_init(&loop));
        CHECK_OK(wb_http_open(&http, ENV, &loop, &err), err);
        CHECK_OK(wb_http_new(&endpoint, http, &opts, &err), err);
        send_and_wait(&loop, endpoint, &q, &sent);
        close_endpoint();
        CHECK_INT(i == 0 ? WB_RETRY : WB_DELIVERED, sent.outcome);
        CHECK_INT(i == 0 ? 0 : 2, peer.requests);
        opts.ca_file = WB_LIT("ca.pem");
    }
    peer_stop(&peer);
    memset(&peer, 0, sizeof(peer));
}

static bool
answer_late(struct peer_conn *c)
{
    return peer_wait_ms(c, 300) && peer_reply(c);
}

/* One receiver kept the loop busy, past the deadlines of all requests. */
TEST(test_tls__flood_of_pings__deadlines_of_all_hold) /* S4 */
{
    static struct peer other;
    struct wb_request q = some_request();
    struct sent flooded = {0};
    uint64_t start = uv_hrtime();
    char url[100];

    make_certs("IP:127.0.0.1", 10, false);
    peer.tls_cert = "leaf.pem";
    peer.tls_key = "leaf.key";
    peer.http2 = true;
    peer.answer = peer_ping;
    other.answer = answer_late;
    peer_start(&peer);
    peer_start(&other);
    open_endpoint(peer.port, true);
    q.timeout_ms = 3000;
    endpoint->send(endpoint, &q, sent_done, &flooded);
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%d/", other.port);
    q.url = wb_slice(url);
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK_INT(WB_DELIVERED, sent.outcome);
    CHECK_INT(1, flooded.calls);
    CHECK_INT(WB_UNKNOWN, flooded.outcome);
    CHECK((uv_hrtime() - start) / 1000000 < 6000);
    close_endpoint();
    peer_stop(&peer);
    peer_stop(&other);
    memset(&peer, 0, sizeof(peer));
}

/* Someone on the way answers in plain HTTP, and resets the connection, between
 * the header and the body of a request. OpenSSL takes five bytes of it for the
 * head of a record. */
static atomic_bool may_forge, has_forged;

static bool
forge(struct peer_conn *c)
{
    static const char text[] = "12345HTTP/1.1 204 No Content\r\n\r\n";
    int on = 1;

    while (!may_forge && peer_wait_ms(c, 1))
        ;
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)sendto(c->fd, text, sizeof(text) - 1, MSG_NOSIGNAL, NULL, 0);
    (void)peer_reset(c);
    has_forged = true;
    return false;
}

/* libcurl's: a record of this length is of the body. */
ssize_t
send(int fd, const void *bytes, size_t len, int flags)
{
    while (peer.answer == forge && len > 8192 && !has_forged) {
        may_forge = true;
        uv_sleep(1);
    }
    return sendto(fd, bytes, len, flags, NULL, 0);
}

TEST(test_tls__answer_without_tls_and_reset__not_taken)
{
    static char body[1 << 20];
    struct wb_request q = some_request();

    make_certs("IP:127.0.0.1", 10, false);
    q.body = (struct wb_slice){body, sizeof(body)};
    peer.tls_cert = "leaf.pem";
    peer.tls_key = "leaf.key";
    peer.answer = forge;
    peer.head_only = true;
    peer_start(&peer);
    open_endpoint(peer.port, true);
    send_and_wait(&loop, endpoint, &q, &sent);
    CHECK(has_forged);
    CHECK_INT(WB_UNKNOWN, sent.outcome);
    CHECK_INT(0, sent.status);
    close_endpoint();
    peer_stop(&peer);
    memset(&peer, 0, sizeof(peer));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_tls__good_certificate__accepted),
        RUN(test_tls__unknown_issuer__refused),
        RUN(test_tls__self_signed__refused),
        RUN(test_tls__wrong_host__refused),
        RUN(test_tls__expired__refused),
        RUN(test_tls__version_1_1__refused),
        RUN(test_tls__client_certificate__shown_to_its_origin_alone),
        RUN(test_tls__https_proxy__verified_as_any_server),
        RUN(test_tls__flood_of_pings__deadlines_of_all_hold),
        RUN(test_tls__http2__one_connection_for_all),
        RUN(test_tls__answer_without_tls_and_reset__not_taken),
    };
    return RUN_ALL(tests);
}
