/* test_gate_policy.c - what the options of the gateway make of a request and of
 * a status: methods, paths, identities, fingerprints. */
#include "gate/gate_internal.h"
#include "support.h"

static struct wb__policy policy;

static enum wb__guard
guard(struct wb_slice method, struct wb_slice path)
{
    const struct wb__http_head head = {.method = method, .path = path};

    return wb__policy_guard(&policy, &head);
}

/* G-2: what is not known for certain does not pass. */
TEST(test_gate_policy__methods__unknown_ones_do_not_pass)
{
    static const struct wb__gate_opts defaults = {0};
    static const char *const pass[] = {
        "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"};
    static const char *const key[] = {"POST", "PATCH", "MKCOL", "FOO", "P0ST"};
    static const char *const refused[] = {
        "post", "Post", "pOST", "patch", "get", "head", "put", "x-mine"};

    CHECK_STATUS(OK, wb__policy_read(&policy, &defaults, NULL));
    for (size_t i = 0; i < WB_COUNT(pass); i++)
        CHECK_INT(WB__GUARD_PASS, guard(wb_slice(pass[i]), WB_LIT("/")));
    for (size_t i = 0; i < WB_COUNT(key); i++)
        CHECK_INT(WB__GUARD_KEY, guard(wb_slice(key[i]), WB_LIT("/")));
    for (size_t i = 0; i < WB_COUNT(refused); i++)
        CHECK_INT(WB__GUARD_REFUSE, guard(wb_slice(refused[i]), WB_LIT("/")));
}

TEST(test_gate_policy__methods_of_a_list__are_guarded_and_others_known_pass)
{
    const struct wb__gate_opts o = {.methods = WB_LIT("PUT, DELETE")};

    CHECK_STATUS(OK, wb__policy_read(&policy, &o, NULL));
    CHECK_INT(WB__GUARD_KEY, guard(WB_LIT("PUT"), WB_LIT("/")));
    CHECK_INT(WB__GUARD_KEY, guard(WB_LIT("DELETE"), WB_LIT("/")));
    CHECK_INT(WB__GUARD_PASS, guard(WB_LIT("POST"), WB_LIT("/")));
}

/* A spelling that the server behind may read as a guarded path is guarded. */
TEST(test_gate_policy__paths__spellings_do_not_pass)
{
    const struct wb__gate_opts o = {.paths = WB_LIT("/pay, /v1/orders/")};
    static const char *const guarded[] = {"/pay", "/pay/", "/pay/1",
        "/v1/orders", "/v1/orders/7", "/p%61y", "//pay", "/x/../pay", "/./pay",
        "/x;a/pay", "/x\\pay", "http://h/pay", "/..", "/PAY", "/Pay/1"};
    static const char *const passed[] = {
        "/", "/payments", "/v1", "/PAYX", "/x"};

    CHECK_STATUS(OK, wb__policy_read(&policy, &o, NULL));
    for (size_t i = 0; i < WB_COUNT(guarded); i++)
        CHECK_INT(WB__GUARD_KEY, guard(WB_LIT("POST"), wb_slice(guarded[i])));
    for (size_t i = 0; i < WB_COUNT(passed); i++)
        CHECK_INT(WB__GUARD_PASS, guard(WB_LIT("POST"), wb_slice(passed[i])));
}

/* G-6 */
TEST(test_gate_policy__statuses__defaults)
{
    static const struct wb__gate_opts defaults = {0};
    static const int freed[] = {408, 425, 429, 500, 501, 503, 505, 599};
    static const int kept[] = {
        200, 204, 301, 304, 400, 401, 404, 409, 422, 423, 499};

    CHECK_STATUS(OK, wb__policy_read(&policy, &defaults, NULL));
    for (size_t i = 0; i < WB_COUNT(freed); i++)
        CHECK_INT(WB__STATUS_FREE, policy.action[freed[i]]);
    for (size_t i = 0; i < WB_COUNT(kept); i++)
        CHECK_INT(WB__STATUS_KEEP, policy.action[kept[i]]);
    CHECK_INT(WB__STATUS_UNKNOWN, policy.action[502]);
    CHECK_INT(WB__STATUS_UNKNOWN, policy.action[504]);
}

TEST(test_gate_policy__statuses__lists_and_ranges)
{
    const struct wb__gate_opts o = {.keep = WB_LIT("500-501, 503"),
        .release = WB_LIT("401,409,423,502"),
        .unknown = WB_LIT("52x,599")};
    const struct wb__gate_opts ok = {
        .release = WB_LIT("4xx"), .unknown = WB_LIT("520-529")};
    static const char *const bad[] = {
        "abc", "199", "600", "500-499", "-500", "500-", "xxx", "1xx", "6xx"};

    CHECK_STATUS(INVALID, wb__policy_read(&policy, &o, NULL));
    CHECK_STATUS(OK, wb__policy_read(&policy, &ok, NULL));
    CHECK_INT(WB__STATUS_FREE, policy.action[400]);
    CHECK_INT(WB__STATUS_FREE, policy.action[499]);
    CHECK_INT(WB__STATUS_UNKNOWN, policy.action[529]);
    CHECK_INT(WB__STATUS_KEEP, policy.action[399]);
    for (size_t i = 0; i < WB_COUNT(bad); i++) {
        const struct wb__gate_opts b = {.keep = wb_slice(bad[i])};

        CHECK_STATUS(INVALID, wb__policy_read(&policy, &b, NULL));
    }
}

TEST(test_gate_policy__one_status_in_two_lists__is_refused)
{
    const struct wb__gate_opts o = {
        .keep = WB_LIT("409"), .release = WB_LIT("4xx")};
    struct wb_err err = {0};

    CHECK_STATUS(INVALID, wb__policy_read(&policy, &o, &err));
    CHECK_HAS("409", err.msg);
}

/* G-3: the identity is never the text that was hashed, and is short enough. */
TEST(test_gate_policy__identity__kinds_are_apart)
{
    const struct wb__gate_opts tenant = {.identity_header = WB_LIT("X-Tenant")};
    const struct wb__gate_opts none = {0};
    struct wb__name id;

#define READ(o, lines) wb__identity_read(&(o), WB_LIT(lines), &id)
    CHECK_INT(WB__FOUND_ONE, READ(tenant, "x-tenant: t\n"));
    CHECK_INT(4, id.len);
    CHECK(memcmp(id.text, "id:t", 4) == 0);
    CHECK_INT(WB__FOUND_ONE, READ(none, "Authorization: Basic x\n"));
    CHECK(memcmp(id.text, "auth:", 5) == 0 && id.len == 69);
    CHECK_INT(WB__FOUND_NONE, READ(tenant, "Authorization: Basic x\n"));
    CHECK_INT(WB__FOUND_NONE, READ(tenant, "X-Tenant: \n"));
    CHECK_INT(WB__FOUND_BAD, READ(tenant, "X-Tenant: t\nX-Tenant: t\n"));
    CHECK_INT(WB__FOUND_ONE, READ(tenant, "X-Tenant: caf\xff\n"));
    CHECK(memcmp(id.text, "hash:", 5) == 0 && id.len == 69);
}

/* G-3 */
TEST(test_gate_policy__identity__of_a_cookie)
{
    const struct wb__gate_opts o = {.identity_cookie = WB_LIT("sid")};
    struct wb__name id, again;

    CHECK_INT(WB__FOUND_ONE, READ(o, "Cookie: a=1; sid=s1; b=2\n"));
    again = id;
    CHECK_INT(WB__FOUND_ONE, READ(o, "cookie: sid=s1\nCookie: a=9\n"));
    CHECK(id.len == again.len && memcmp(id.text, again.text, id.len) == 0);
    CHECK_INT(WB__FOUND_ONE, READ(o, "Cookie: sid=s2\n"));
    CHECK(memcmp(id.text, again.text, id.len) != 0);
    CHECK_INT(WB__FOUND_NONE, READ(o, "Cookie: xsid=s1; SID=s1\n"));
    CHECK_INT(WB__FOUND_NONE, READ(o, "Cookie: sid=\n"));
    CHECK_INT(WB__FOUND_BAD, READ(o, "Cookie: sid=1; sid=2\n"));
}

/* G-3: eyJzdWIiOiJhIiwiaXNzIjoiaSIsIm4iOjd9 is {"sub":"a","iss":"i","n":7} */
TEST(test_gate_policy__identity__of_claims__outlives_the_token)
{
    const struct wb__gate_opts o = {.identity_claim = WB_LIT("sub")};
    const struct wb__gate_opts two = {.identity_claim = WB_LIT("iss, n")};
    const struct wb__gate_opts no = {.identity_claim = WB_LIT("sub,aud")};
    struct wb__name id;

#define TOKEN(head, tail) \
    "Authorization: " head ".eyJzdWIiOiJhIiwiaXNzIjoiaSIsIm4iOjd9." tail "\n"
    CHECK_INT(WB__FOUND_ONE, READ(o, TOKEN("Bearer x", "sig")));
    CHECK(id.len == 7 && memcmp(id.text, "claim:a", 7) == 0);
    CHECK_INT(WB__FOUND_ONE, READ(o, TOKEN("bearer other", "other")));
    CHECK(id.len == 7 && memcmp(id.text, "claim:a", 7) == 0);
    CHECK_INT(WB__FOUND_ONE, READ(two, TOKEN("Bearer x", "sig")));
    CHECK(memcmp(id.text, "claims:", 7) == 0);
    CHECK_INT(WB__FOUND_NONE, READ(no, TOKEN("Bearer x", "sig")));
    CHECK_INT(WB__FOUND_NONE, READ(o, TOKEN("Basic x", "sig")));
    CHECK_INT(WB__FOUND_NONE, READ(o, "Authorization: Bearer a.!!.c\n"));
    CHECK_INT(WB__FOUND_NONE, READ(o, "Authorization: Bearer opaque\n"));
    CHECK_INT(WB__FOUND_NONE, READ(o, "X: y\n"));
}

TEST(test_gate_policy__two_places_of_the_identity__are_refused)
{
    const struct wb__gate_opts o = {
        .identity_cookie = WB_LIT("a"), .identity_claim = WB_LIT("sub")};

    CHECK_STATUS(INVALID, wb__policy_read(&policy, &o, NULL));
}

/* ---- fingerprint -------------------------------------------------------- */

static struct wb_fingerprint
fingerprint(const char *kind, const char *host, const char *headers,
    struct wb_slice body)
{
    const struct wb__http_head head = {.method = WB_LIT("POST"),
        .path = WB_LIT("/a"),
        .query = WB_LIT("b"),
        .host = wb_slice(host),
        .headers = wb_slice(headers)};
    struct wb__fingerprint_rule rule;
    struct wb_fingerprint out;

    CHECK_STATUS(OK, wb__fingerprint_read(&rule, wb_slice(kind), NULL));
    CHECK_STATUS(OK, wb__fingerprint_of(&rule, wb_env_system(), &head,
                         WB_LIT("POST /a"), body, &out));
    return out;
}

#define SAME(kind, host, type, a, other_host, other_type, b)             \
    same(fingerprint(kind, host, "Content-Type: " type "\n", WB_LIT(a)), \
        fingerprint(                                                     \
            kind, other_host, "Content-Type: " other_type "\n", WB_LIT(b)))

static bool
same(struct wb_fingerprint a, struct wb_fingerprint b)
{
    return memcmp(&a, &b, sizeof(a)) == 0;
}

/* G-4, M-2: parts are framed; each counts. */
TEST(test_gate_policy__fingerprint__each_part_counts)
{
    CHECK(SAME("raw", "h", "t", "c", "h", "t", "c"));
    CHECK(!SAME("raw", "h", "t", "c", "h", "t", "d"));
    CHECK(!SAME("raw", "h", "t", "c", "h", "tc", ""));
    CHECK(!SAME("raw", "h", "t", "c", "other", "t", "c"));
    CHECK(SAME("raw", "H.Example:80", "t", "c", "h.example:81", "t", "c"));
    CHECK(SAME("none", "h", "t", "c", "h", "u", "d"));
    CHECK(!SAME("none", "h", "t", "c", "other", "t", "c"));
}

#define MULTI(b) "multipart/form-data; boundary=" b
#define PART(b, text)                                                         \
    "--" b "\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n" text "\r" \
    "\n"

/* G-4 */
TEST(test_gate_policy__fingerprint_of_multipart__boundary_does_not_count)
{
    CHECK(SAME("raw", "h", MULTI("xx"), PART("xx", "hi") "--xx--\r\n", "h",
        MULTI("\"yy\""), PART("yy", "hi") "--yy--\r\n"));
    CHECK(!SAME("raw", "h", MULTI("xx"), PART("xx", "hi") "--xx--\r\n", "h",
        MULTI("yy"), PART("yy", "ho") "--yy--\r\n"));
    CHECK(!SAME("raw", "h", MULTI("xx"), PART("xx", "hi") "--xx--\r\n", "h",
        MULTI("xx"), PART("xx", "hi") PART("xx", "") "--xx--\r\n"));
    /* Cut short: by its bytes. */
    CHECK(!SAME("raw", "h", MULTI("xx"), PART("xx", "hi"), "h", MULTI("yy"),
        PART("yy", "hi")));
    CHECK(SAME("raw", "h", MULTI("xx"), PART("xx", "hi"), "h", MULTI("xx"),
        PART("xx", "hi")));
}

/* G-4: `start` says which part is read first. */
TEST(test_gate_policy__fingerprint_of_multipart__other_parameters_count)
{
#define ENDED(b) PART(b, "hi") "--" b "--\r\n"
    CHECK(!SAME("raw", "h", MULTI("xx") "; start=\"<a>\"", ENDED("xx"), "h",
        MULTI("yy") "; start=\"<b>\"", ENDED("yy")));
    CHECK(SAME("raw", "h", MULTI("xx") "; start=\"<a>\"", ENDED("xx"), "h",
        MULTI("yy") ";start=\"<a>\"", ENDED("yy")));
    /* Two boundaries can be read in two ways: by its bytes. */
    CHECK(!SAME("raw", "h", MULTI("xx") "; boundary=z", ENDED("xx"), "h",
        MULTI("yy") "; boundary=z", ENDED("yy")));
}

/* G-4 */
TEST(test_gate_policy__fingerprint_of_json__values_count)
{
#define JSON "application/json"
    CHECK(SAME("json", "h", JSON, "{\"a\":1, \"b\":[ 2]}", "h", JSON,
        "{\"b\":[2],\"a\":1}"));
    CHECK(!SAME("json", "h", JSON, "[1,2]", "h", JSON, "[2,1]"));
    CHECK(!SAME("raw", "h", JSON, "[1, 2]", "h", JSON, "[1,2]"));
    CHECK(SAME("json:without at, n", "h", JSON, "{\"a\":1,\"at\":5}", "h", JSON,
        "{\"a\":1,\"at\":6,\"n\":\"x\"}"));
    CHECK(!SAME("json:without at", "h", JSON, "{\"a\":{\"at\":5}}", "h", JSON,
        "{\"a\":{\"at\":6}}"));
    /* Not exact as a double, or read in two ways: by its bytes. */
    CHECK(!SAME("json", "h", JSON, "1.00000000000000001", "h", JSON,
        "1.00000000000000002"));
    CHECK(!SAME("json", "h", JSON, "1e-400", "h", JSON, "2e-400"));
    CHECK(
        SAME("json", "h", JSON, "{\"2e\": true}", "h", JSON, "{\"2e\":true}"));
    CHECK(
        !SAME("json", "h", JSON, "{\"a\":1,\"a\":2}", "h", JSON, "{\"a\":2}"));
    CHECK(!SAME("json", "h", JSON, "{", "h", JSON, "{ "));
    CHECK(SAME("json", "h", JSON, "", "h", JSON, ""));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gate_policy__methods__unknown_ones_do_not_pass),
        cmocka_unit_test(
            test_gate_policy__methods_of_a_list__are_guarded_and_others_known_pass),
        cmocka_unit_test(test_gate_policy__paths__spellings_do_not_pass),
        cmocka_unit_test(test_gate_policy__statuses__defaults),
        cmocka_unit_test(test_gate_policy__statuses__lists_and_ranges),
        cmocka_unit_test(test_gate_policy__one_status_in_two_lists__is_refused),
        cmocka_unit_test(test_gate_policy__identity__kinds_are_apart),
        cmocka_unit_test(test_gate_policy__identity__of_a_cookie),
        cmocka_unit_test(
            test_gate_policy__identity__of_claims__outlives_the_token),
        cmocka_unit_test(
            test_gate_policy__two_places_of_the_identity__are_refused),
        cmocka_unit_test(test_gate_policy__fingerprint__each_part_counts),
        cmocka_unit_test(
            test_gate_policy__fingerprint_of_multipart__boundary_does_not_count),
        cmocka_unit_test(
            test_gate_policy__fingerprint_of_multipart__other_parameters_count),
        cmocka_unit_test(test_gate_policy__fingerprint_of_json__values_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
