/* test_transport_validate.c - S2, S3: no accepted URL or header can change
 * the request or its receiver; S7: signatures. */
#include "base/base.h"
#include "support.h"
#include "transport/http.h"

static bool
url_passes(const char *url, size_t len)
{
    struct wb_err err = {0};
    bool ok = wb__url_check((struct wb_slice){url, len}, false, &err) == WB_OK;

    CHECK(ok == (err.msg[0] == '\0'));
    return ok;
}

TEST(test_url__good__passes)
{
    static const char *const urls[] = {"http://h", "https://h/", "HTTPS://H/",
        "http://h:8080/a?b=c#d", "http://127.0.0.1/", "http://[::1]:80/",
        "http://a.example.org/%20@x", "http://h/?u=a@b", "http://h?q=@",
        "http://xn--bcher-kva.example/", "http://h/{id}|x"};

    for (size_t i = 0; i < WB_COUNT(urls); i++)
        if (!url_passes(urls[i], strlen(urls[i])))
            fail_msg("%s", urls[i]);
}

TEST(test_url__bad__refused)
{
    static const char *const urls[] = {"", "h", "http", "http:", "http:/",
        "http:/h/", "http://", "http:///", "http:///h/", "https://?q", "//h/",
        "ftp://h/", "file:///etc/passwd", "gopher://h/", "javascript:x",
        "httpx://h/", "https//h/", "http;//h/", "http://u@h/", "http://u:p@h/",
        "http://@h/", "http://:@h/", "http://a@b@c/", "http://u%40@h/",
        "http://h:99999/", "http://h:x/", "http://h:-1/", "http://[::1/",
        "http://h\\@i/", " http://h/", "http://h/ ",
        ("http://b\xc3\xbc"
         "cher/"),
        "http://\xe2\x91\xa0.com/", "http://h\t/"};

    for (size_t i = 0; i < WB_COUNT(urls); i++)
        if (url_passes(urls[i], strlen(urls[i])))
            fail_msg("%s", urls[i]);
}

TEST(test_url__every_byte__controls_and_space_refused)
{
    for (int c = 0; c < 256; c++) {
        char url[] = "http://h/a?b";
        bool bad = c <= 0x20 || c >= 0x7f || c == '\\';

        url[9] = (char)c;
        if (url_passes(url, sizeof(url) - 1) == bad)
            fail_msg("byte %d", c);
    }
}

TEST(test_url__longer_than_8192__refused)
{
    char url[WB__URL_MAX + 1];

    memset(url, 'a', sizeof(url));
    memcpy(url, "http://h/", 9);
    CHECK(url_passes(url, WB__URL_MAX));
    CHECK(!url_passes(url, WB__URL_MAX + 1));
}

TEST(test_url__error__does_not_quote_it) /* S9 */
{
    struct wb_err err = {0};

    CHECK_STATUS(
        INVALID, wb__url_check(wb_slice("http://bob:canary@h/"), false, &err));
    CHECK(strstr(err.msg, "canary") == NULL && strstr(err.msg, "bob") == NULL);
}

static bool
headers_pass(const char *lines, size_t len)
{
    return wb__request_headers_check((struct wb_slice){lines, len}, NULL) ==
           WB_OK;
}

TEST(test_headers__every_byte_in_name_and_value__controls_refused)
{
    static const char token[] = "!#$%&'*+-.^_`|~0123456789"
                                "abcdefghijklmnopqrstuvwxyz"
                                "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

    for (int c = 0; c < 256; c++) {
        char name[] = "A?b: x\n", value[] = "A: x?y\n";
        bool good = c != 0 && strchr(token, c) != NULL;

        name[1] = value[4] = (char)c;
        if (headers_pass(name, 7) != good && c != ':')
            fail_msg("byte %d in a name", c);
        if (headers_pass(value, 7) != ((c >= 0x20 && c != 0x7f) || c == '\t'))
            fail_msg("byte %d in a value", c);
    }
}

TEST(test_headers__reserved__refused)
{
    static const char *const names[] = {"Host", "content-length",
        "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection",
        "IDEMPOTENCY-KEY", "Expect", "te", "Trailer", "Upgrade", "webhook-id",
        "Webhook-Anything", "HTTP2-Settings"};
    char line[100];
    struct wb_err err = {0};

    for (size_t i = 0; i < WB_COUNT(names); i++) {
        (void)snprintf(line, sizeof(line), "A: b\n%s: x\n", names[i]);
        CHECK_STATUS(INVALID, wb__request_headers_check(wb_slice(line), &err));
        CHECK_HAS(names[i], err.msg);
    }
    CHECK(headers_pass("Webhooks: x\n", 12));
    CHECK(headers_pass("Hosts: x\n", 9));
}

TEST(test_headers__too_many__refused)
{
    char lines[WB__HEADERS_MAX * 5 + 6], *big;

    for (int i = 0; i <= WB__HEADERS_MAX; i++)
        (void)snprintf(lines + 5 * i, 6, "A: b\n");
    CHECK(headers_pass(lines, WB__HEADERS_MAX * 5));
    CHECK(!headers_pass(lines, WB__HEADERS_MAX * 5 + 5));
    big = malloc(WB__HEADERS_BYTES + 1);
    memset(big, 'a', WB__HEADERS_BYTES + 1);
    memcpy(big, "A: ", 3);
    big[WB__HEADERS_BYTES] = '\n';
    CHECK(!headers_pass(big, WB__HEADERS_BYTES + 1));
    big[WB__HEADERS_BYTES - 1] = '\n';
    CHECK(headers_pass(big, WB__HEADERS_BYTES));
    free(big);
}

/* ---- signatures (S7) --------------------------------------------------- */

/* base64 of the specification's example secret, without its whsec_ */
static const unsigned char secret[] = {0x31, 0xf2, 0x90, 0xf6, 0xbf, 0x06, 0x29,
    0x8a, 0xab, 0x4f, 0x08, 0xd4, 0x3c, 0x3f, 0x08, 0x2c, 0xf6, 0x48, 0xa3,
    0x62, 0xda, 0x2d, 0xa4, 0xb0};

static const struct wb_slice key = {(const char *)secret, sizeof(secret)};

static void
sign(const struct wb_slice *keys, size_t n, const char *body, char out[500])
{
    struct wb__buf b = {.env = ENV, .max = 499};
    struct wb__signer *s;
    struct wb_err err = {0};

    CHECK_OK(wb__signer_new(&s, ENV, keys, n, &err), err);
    for (int i = 0; i < 2; i++) { /* the second from a key set up before */
        wb__buf_clear(&b);
        CHECK(wb__sign(s, WB_LIT("msg_p5jXN8AQM9LWM0D4loKWxJek"),
            WB_LIT("1614265330"), wb_slice(body), &b));
        if (i > 0)
            CHECK_TEXT(out, b.ptr);
        (void)snprintf(out, 500, "%s", b.ptr);
    }
    wb__buf_fini(&b);
    wb__signer_free(s);
}

TEST(test_sign__example_of_the_specification__matches)
{
    char out[500];

    sign(&key, 1, "{\"test\": 2432232314}", out);
    CHECK_TEXT("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", out);
}

TEST(test_sign__two_keys__two_signatures_in_order)
{
    static const char other[] = "0123456789abcdef01234567";
    struct wb_slice keys[2] = {{other, 24}, key};
    char both[500], first[500];

    sign(keys, 2, "{\"test\": 2432232314}", both);
    sign(keys, 1, "{\"test\": 2432232314}", first);
    CHECK(strncmp(both, first, strlen(first)) == 0);
    CHECK_TEXT(" v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        both + strlen(first));
}

TEST(test_sign__one_bit_of_body__changes_it)
{
    char a[500], b[500];

    sign(&key, 1, "", a);
    sign(&key, 1, "a", b);
    CHECK(strcmp(a, b) != 0);
    sign(&key, 1, "c", a);
    CHECK(strcmp(a, b) != 0);
}

TEST(test_sign__key_length__24_to_64)
{
    static const char bytes[65];
    struct wb_slice many[9];
    struct wb__signer *s;
    struct wb_err err = {0};

    for (size_t len = 0; len <= 65; len++) {
        struct wb_slice k = {bytes, len};
        bool good = len >= 24 && len <= 64;
        enum wb_status rc = wb__signer_new(&s, ENV, &k, 1, &err);

        CHECK_INT(good ? WB_OK : WB_INVALID, rc);
        wb__signer_free(s);
    }
    for (int i = 0; i < 9; i++)
        many[i] = key;
    CHECK_STATUS(INVALID, wb__signer_new(&s, ENV, many, 9, &err));
    CHECK_OK(wb__signer_new(&s, ENV, many, 8, &err), err);
    wb__signer_free(s);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_url__good__passes),
        RUN(test_url__bad__refused),
        RUN(test_url__every_byte__controls_and_space_refused),
        RUN(test_url__longer_than_8192__refused),
        RUN(test_url__error__does_not_quote_it),
        RUN(test_headers__every_byte_in_name_and_value__controls_refused),
        RUN(test_headers__reserved__refused),
        RUN(test_headers__too_many__refused),
        RUN(test_sign__example_of_the_specification__matches),
        RUN(test_sign__two_keys__two_signatures_in_order),
        RUN(test_sign__one_bit_of_body__changes_it),
        RUN(test_sign__key_length__24_to_64),
    };
    return RUN_ALL(tests);
}
