/* test_gate_rules.c - what the gateway reads from heads, and writes anew. */
#include "gate/gate_internal.h"
#include "support.h"

#define LINES(text) WB_LIT(text)

static struct wb__buf out;
static const struct wb_slice key_header = {"Idempotency-Key", 15};

static const char *
text_of(struct wb__buf *b)
{
    return b->len == 0 ? "" : b->ptr;
}

static int
setup(void **state)
{
    (void)state;
    out = (struct wb__buf){.env = wb_env_system(), .max = 1 << 20};
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    wb__buf_fini(&out);
    return 0;
}

/* G-1 */
TEST(test_gate_rules__key__table_of_spellings)
{
    static const struct {
        const char *lines, *key; /* NULL: bad; "": none */
    } cases[] = {
        {"X: y\n", ""},
        {"Idempotency-Key: abc\n", "abc"},
        {"IDEMPOTENCY-KEY: \"abc\"\n", "abc"},
        {"Idempotency-Key: \"a b,;c\"\n", "a b,;c"},
        {"Idempotency-Key: \"a\\\"\\\\\"\n", "a\"\\"},
        {"Idempotency_Key: abc\n", ""},
        {"Idempotency-Key: \n", NULL},
        {"Idempotency-Key: \"\"\n", NULL},
        {"Idempotency-Key: \"\n", NULL},
        {"Idempotency-Key: \"abc\n", NULL},
        {"Idempotency-Key: \"abc\\\n", NULL},
        {"Idempotency-Key: \"a\\bc\"\n", NULL},
        {"Idempotency-Key: \"abc\";p=1\n", NULL},
        {"Idempotency-Key: a b\n", NULL},
        {"Idempotency-Key: a,b\n", NULL},
        {"Idempotency-Key: a;b\n", NULL},
        {"Idempotency-Key: a\"b\n", NULL},
        {"Idempotency-Key: a\\b\n", NULL},
        {"Idempotency-Key: caf\xc3\xa9\n", NULL},
        {"Idempotency-Key: a\nIdempotency-Key: a\n", NULL},
    };
    struct wb__name key;

    for (size_t i = 0; i < WB_COUNT(cases); i++) {
        enum wb__found found =
            wb__rule_read_key(wb_slice(cases[i].lines), key_header, &key);

        if (cases[i].key == NULL)
            CHECK_INT(WB__FOUND_BAD, found);
        else if (cases[i].key[0] == '\0')
            CHECK_INT(WB__FOUND_NONE, found);
        else
            CHECK(found == WB__FOUND_ONE &&
                  wb__eq((struct wb_slice){key.text, key.len},
                      wb_slice(cases[i].key)));
    }
}

/* G-1 */
TEST(test_gate_rules__key_of_255_bytes__is_the_longest)
{
    struct wb__name key;

    for (int quoted = 0; quoted < 2; quoted++) {
        for (int n = 255; n <= 256; n++) {
            wb__buf_clear(&out);
            wb__buf_str(&out, "Idempotency-Key: ");
            wb__buf_str(&out, quoted ? "\"" : "");
            for (int i = 0; i < n; i++)
                wb__buf_str(&out, "k");
            wb__buf_str(&out, quoted ? "\"\n" : "\n");
            CHECK_INT(n == 255 ? WB__FOUND_ONE : WB__FOUND_BAD,
                wb__rule_read_key(wb__buf_slice(&out), key_header, &key));
        }
    }
}

/* G-8 */
TEST(test_gate_rules__event_stream__by_its_type_alone)
{
    CHECK(wb__rule_is_event_stream(LINES("content-type: text/event-stream\n")));
    CHECK(wb__rule_is_event_stream(
        LINES("Content-Type: Text/Event-Stream ; charset=utf-8\n")));
    CHECK(
        !wb__rule_is_event_stream(LINES("Content-Type: text/event-streams\n")));
    CHECK(!wb__rule_is_event_stream(LINES("X: text/event-stream\n")));
}

/* G-7, G-14 */
TEST(test_gate_rules__answer__end_to_end_fields_alone)
{
    static const char lines[] =
        "A: 1\nSet-Cookie: c\nDate: d\nConnection: X-Hop, set-cookie\n"
        "X-Hop: 1\nKeep-Alive: 5\nTransfer-Encoding: chunked\nTrailer: T\n"
        "Content-Length: 5\nUpgrade: h2c\nIdempotent-Replayed: true\nA: 2\n";

    wb__rule_copy_fields(&out, wb_slice(lines), WB__FORWARD);
    CHECK_TEXT("A: 1\nSet-Cookie: c\nDate: d\nA: 2\n", text_of(&out));
    wb__buf_clear(&out);
    wb__rule_copy_fields(&out, wb_slice(lines), WB__REPLAY);
    CHECK_TEXT("A: 1\nA: 2\n", text_of(&out));
}

/* G-1, G-11, G-14 */
TEST(test_gate_rules__request__written_anew)
{
    struct wb__http_head head = {.method = WB_LIT("POST"),
        .target = WB_LIT("http://h/p?q=1"),
        .path = WB_LIT("/p"),
        .query = WB_LIT("q=1"),
        .host = WB_LIT("h"),
        .headers = WB_LIT(
            "Host: h\nExpect: 100-continue\nIdempotency-Key: k\n"
            "Idempotency_Key: e\nX_Tenant: e\nX-Tenant: t\nTE: trailers\n"
            "Connection: x-tenant, idempotency-key, gone\nGone: 1\nA: b\n")};
    struct wb__rule_request r = {.head = &head,
        .identity_header = WB_LIT("X-Tenant"),
        .key_header = key_header,
        .has_body = true,
        .length = 3};

    wb__rule_write_request(&out, &r);
    CHECK_TEXT("POST /p?q=1 HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\n"
               "X-Tenant: t\r\nA: b\r\nContent-Length: 3\r\n\r\n",
        text_of(&out));
    wb__buf_clear(&out);
    r.keyed = true;
    r.key_header = WB_LIT("webhook-id");
    head.headers = WB_LIT("Accept-Encoding: gzip\nWebhook_Id: e\n"
                          "webhook-id: k\nConnection: webhook-id\n");
    wb__rule_write_request(&out, &r);
    CHECK_TEXT("POST /p?q=1 HTTP/1.1\r\nHost: h\r\nAccept-Encoding: identity"
               "\r\nwebhook-id: k\r\nContent-Length: 3\r\n\r\n",
        text_of(&out));
    wb__buf_clear(&out);
    r.keyed = false;
    head.host.len = 0;
    head.target = WB_LIT("/a?");
    head.headers.len = 0;
    r.authority = WB_LIT("up:1");
    r.length = WB__LENGTH_UNKNOWN;
    wb__rule_write_request(&out, &r);
    CHECK_TEXT("POST /a? HTTP/1.1\r\nHost: up:1\r\n"
               "Transfer-Encoding: chunked\r\n\r\n",
        text_of(&out));
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_gate_rules__key__table_of_spellings),
        T(test_gate_rules__key_of_255_bytes__is_the_longest),
        T(test_gate_rules__event_stream__by_its_type_alone),
        T(test_gate_rules__answer__end_to_end_fields_alone),
        T(test_gate_rules__request__written_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
