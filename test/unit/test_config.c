/* test_config.c - a configuration file: what each field does, and that secrets
 * stay secret (T-1, S9, I16). What mistakes say: test_config_mistakes.c. */
#include "test_config.h"

#include <unistd.h>

TEST(test_config__no_such_file__not_found)
{
    struct wb_config *c = NULL;

    CHECK_STATUS(NOTFOUND, wb_config_open(&c, "no.lua", ENV, LOOP, &err));
    CHECK(c == NULL);
    CHECK_HAS("no.lua", err.msg);
    CHECK_STATUS(NOTFOUND, wb_config_open(&c, "no.lua", ENV, NULL, NULL));
}

TEST(test_config__binary_chunk__refused)
{
    CHECK_STATUS(INVALID, read_bytes("\x1bLua\x54\0\x19\x93", 8, LOOP));
    CHECK_HAS("attempt to load a binary chunk", err.msg);
}

TEST(test_config__too_large__refused)
{
    char *text = malloc(WB__SOURCE_MAX + 1);

    CHECK(text != NULL);
    memset(text, ' ', WB__SOURCE_MAX + 1);
    CHECK_STATUS(TOOBIG, read_bytes(text, WB__SOURCE_MAX + 1, LOOP));
    CHECK_OK(read_bytes(text, WB__SOURCE_MAX, LOOP), err);
    close_config();
    free(text);
}

TEST(test_config__long_path__its_end_is_shown)
{
    char path[400] = "";
    struct wb_config *c = NULL;

    for (int i = 0; i < 60; i++)
        strcat(path, "././/");
    strcat(path, "c.lua");
    test_write("c.lua", "x = 1", 5);
    CHECK_STATUS(INVALID, wb_config_open(&c, path, ENV, LOOP, &err));
    CHECK_HAS("/c.lua:1: \"x\" cannot be set", err.msg);
    CHECK(strlen(err.msg) < 220);
}

/* ---- what fields do ---------------------------------------------------- */

TEST(test_config__empty_file__no_routes_and_defaults)
{
    size_t n = 9;

    READ("\xef\xbb\xbf-- nothing");
    (void)wb_config_routes(config, &n);
    CHECK_INT(0, n);
    CHECK_INT(0, wb_config_lease_ms(config));
    CHECK_INT(0, wb_config_outbox(config)->max_rows);
    CHECK(wb_config_ready(config, NULL));
    close_config();
}

TEST(test_config__least_route__defaults)
{
    const struct wb_route *r;

    READ("route \"mail.*\" { url = \"https://h.example:8443/in?a=b\" }");
    r = route_at(0);
    CHECK_TEXT("mail.*", r->kind);
    CHECK_TEXT("https://h.example:8443/in?a=b", r->endpoint);
    CHECK(r->scope == NULL && r->build == NULL && r->judge == NULL);
    CHECK_INT(0, r->timeout_ms);
    CHECK_INT(0, r->concurrency);
    CHECK_INT(0, r->batch);
    CHECK_INT(10000, r->retry->base_ms);
    CHECK_INT(8, r->retry->max_attempts);
    CHECK_INT(3, r->breaker->failures);
    CHECK_INT(60000, r->breaker->open_ms);
    CHECK(r->transport == &made[0].transport);
    CHECK_TEXT("https://h.example:8443/in?a=b", made[0].url);
    CHECK_TEXT("POST", made[0].method);
    CHECK_TEXT("", made[0].headers);
    CHECK_INT(0, made[0].opts.n_secrets);
    CHECK_INT(0, made[0].opts.max_reply_bytes);
    CHECK(!made[0].opts.public_only && !made[0].opts.follow);
    CHECK(!made[0].opts.http1 && made[0].opts.ca_file.len == 0);
    close_config();
}

static const char full_route[] =
    "route \"x\" {\n"
    "  transport = \"http\",\n"
    "  url = \"http://h/{id}\",\n"
    "  method = \"PUT\",\n"
    "  headers = { [\"X-Team\"] = \"red\", Authorization = \"Bearer \" .. env "
    "\"CANARY\" },\n"
    "  secrets = { env \"KEY64\", env \"KEY\" },\n"
    "  timeout = \"45s\", concurrency = 3, rate = 7,\n"
    "  retry = { base = \"1s\", cap = \"1m\", factor = 2, attempts = 5,\n"
    "            retry_after = \"1h\", rejected = true },\n"
    "  breaker = { failures = 9, open = \"2m\", scope = \"h\" },\n"
    "  public_only = true, follow = true, http1 = true, disable_on_410 = "
    "true,\n"
    "  ca_file = \"ca.pem\", max_reply = \"1k\",\n"
    "}\n"
    "relay { lease = \"90s\" }\n"
    "outbox { max_payload = \"64k\", max_rows = 1000, max_file = 1048576,\n"
    "  keep_delivered = \"8d\", keep_abandoned = \"90d\", busy = \"1s\",\n"
    "  on_abandoned = \"ops.alert\" }\n";

static void
check_full_policies(const struct wb_route *r)
{
    CHECK_INT(45000, r->timeout_ms);
    CHECK_INT(3, r->concurrency);
    CHECK_INT(7, r->rate_per_s);
    CHECK_INT(1000, r->retry->base_ms);
    CHECK_INT(60000, r->retry->cap_ms);
    CHECK_INT(2, r->retry->factor);
    CHECK_INT(5, r->retry->max_attempts);
    CHECK_INT(3600000, r->retry->retry_after_ms);
    CHECK(r->retry->retry_rejected);
    CHECK_INT(9, r->breaker->failures);
    CHECK_INT(120000, r->breaker->open_ms);
    CHECK_TEXT("h", r->scope);
    CHECK(r->disable_on_410);
}

TEST(test_config__every_field_of_http__arrives)
{
    const struct wb_outbox_opts *box;

    set_variables();
    test_write("ca.pem", "", 0);
    READ(full_route);
    check_full_policies(route_at(0));
    CHECK_TEXT("http://h/{id}", route_at(0)->endpoint);
    CHECK_TEXT("", made[0].url);
    CHECK_TEXT("PUT", made[0].method);
    CHECK_TEXT("Authorization: Bearer canary-sings-loud-and-clear\n"
               "X-Team: red\n",
        made[0].headers);
    CHECK_INT(2, made[0].opts.n_secrets);
    CHECK_TEXT("0123456789abcdef012345678", made[0].secret[0]);
    CHECK_INT(25, made[0].secret_len[0]);
    CHECK_TEXT("0123456789abcdef01234567", made[0].secret[1]);
    CHECK(made[0].opts.public_only && made[0].opts.follow);
    CHECK(made[0].opts.http1);
    CHECK_TEXT("ca.pem", made[0].ca_file);
    CHECK_INT(1024, made[0].opts.max_reply_bytes);
    CHECK_INT(90000, wb_config_lease_ms(config));
    box = wb_config_outbox(config);
    CHECK_INT(65536, box->max_payload_bytes);
    CHECK_INT(1000, box->max_rows);
    CHECK_INT(1048576, box->max_file_bytes);
    CHECK_INT(8 * INT64_C(86400000), box->keep_delivered_ms);
    CHECK_INT(90 * INT64_C(86400000), box->keep_abandoned_ms);
    CHECK_INT(1000, box->busy_ms);
    CHECK(wb__eq(WB_LIT("ops.alert"), box->on_abandoned));
    close_config();
}

TEST(test_config__batch__count_and_format)
{
    READ("route \"a\" { url = \"http://h/\", batch = { max = 64 } }\n"
         "route \"b\" { url = \"http://h/\", method = \"PATCH\", batch = { max "
         "= 2, format = \"ndjson\" } }");
    CHECK_INT(64, route_at(0)->batch);
    CHECK(!route_at(0)->batch_ndjson);
    CHECK_INT(2, route_at(1)->batch);
    CHECK(route_at(1)->batch_ndjson);
    CHECK_TEXT("PATCH", made[1].method);
    close_config();
}

TEST(test_config__immediate__retried_at_once_as_often_as_configured)
{
    READ("route \"a\" { url = \"http://h/\", retry = { immediate = true, "
         "attempts = 100 } }");
    CHECK_INT(0, route_at(0)->retry->base_ms);
    CHECK_INT(0, route_at(0)->retry->cap_ms);
    CHECK_INT(100, route_at(0)->retry->max_attempts);
    close_config();
}

TEST(test_config__retry_as_a_list__its_delays_and_one_attempt_more)
{
    const struct wb_retry_policy *p;

    READ(
        "route \"a\" { url = \"http://h/\", retry = { \"10s\", \"1m\", \"0s\", "
        "rejected = true } }\n"
        "route \"b\" { url = \"http://h/\", retry = { \"10s\", attempts = 9 } "
        "}\n"
        "route \"c\" { url = \"http://h/\", retry = { base = \"1s\" } }");
    p = route_at(0)->retry;
    CHECK_INT(3, p->n_delays);
    CHECK_INT(10000, p->delays_ms[0]);
    CHECK_INT(60000, p->delays_ms[1]);
    CHECK_INT(0, p->delays_ms[2]);
    CHECK_INT(4, p->max_attempts);
    CHECK(p->retry_rejected);
    CHECK_INT(9, route_at(1)->retry->max_attempts);
    CHECK_INT(0, route_at(2)->retry->n_delays);
    CHECK_INT(8, route_at(2)->retry->max_attempts);
    close_config();
}

TEST(test_config__exec_and_file__made_of_their_fields)
{
    READ("route \"a\" { transport = \"exec\", argv = { \"sh\", \"-c\", "
         "\"cat\\n\" } }\n"
         "route \"b\" { transport = \"file\", path = \"out.ndjson\" }");
    CHECK(!http_open);
    CHECK_TEXT("exec", route_at(0)->transport->name);
    CHECK_INT(3, made[0].argc);
    CHECK_TEXT("cat\n", made[0].argv[2]);
    CHECK_TEXT("sh", route_at(0)->endpoint);
    CHECK_TEXT("out.ndjson", made[1].path);
    CHECK_TEXT("out.ndjson", route_at(1)->endpoint);
    close_config();
}

TEST(test_config__loop_over_kinds__a_route_each_in_order)
{
    READ("for _, k in ipairs { \"b\", \"a\" } do\n"
         "  route(k) { url = \"http://h/\" .. k }\nend");
    CHECK_TEXT("b", route_at(0)->kind);
    CHECK_TEXT("http://h/a", made[1].url);
    close_config();
}

TEST(test_config__table_changed_afterwards__route_stays)
{
    READ(
        "local t = { url = \"http://\" .. \"h/one\" }\nroute \"a\"(t)\n"
        "t.url = nil\nlocal g = {}\nfor i = 1, 20000 do g[i] = \"x\" .. i end");
    CHECK_TEXT("http://h/one", made[0].url);
    CHECK_TEXT("http://h/one", route_at(0)->endpoint);
    close_config();
}

static void
test_config__transport_not_made__error_names_route_and_all_is_freed(
    void **state)
{
    (void)state;
    make_fails = WB_INVALID;
    CHECK_STATUS(INVALID, read_text("\nroute \"a\" { url = \"http://h/\" }"));
    make_fails = WB_OK;
    CHECK_TEXT("c.lua:2: route \"a\": made to fail", err.msg);
    CHECK(!http_open);
}

/* ---- secrets (S9, I16) ------------------------------------------------- */

TEST(test_config__secret_from_file__trimmed_and_beside_the_config)
{
    struct wb_config *c = NULL;

    test_write("key", "  0123456789abcdef01234567\n", 27);
    READ("route \"a\" { url = \"http://h/\", secret = file \"key\" }");
    CHECK_TEXT("0123456789abcdef01234567", made[0].secret[0]);
    close_config();
    CHECK_INT(0, chdir("/"));
    CHECK_STATUS(NOTFOUND, wb_config_open(&c, "c.lua", ENV, LOOP, &err));
}

TEST(test_config__default__plain_text_or_nothing)
{
    set_variables();
    READ("local a = env(\"NO_SUCH\", \"http://d\")\n"
         "local b = env(\"CANARY\", \"d\")\n"
         "local c = env(\"NO_SUCH\", false)\nlocal d = env(\"CANARY\", false)\n"
         "local e = file(\"no\", \"x\")\n"
         "assert(type(a) == \"string\" and a == \"http://d\")\n"
         "assert(b == \"canary-sings-loud-and-clear\")\n"
         "assert(c == nil)\nassert(type(d) == \"userdata\")\n"
         "assert(e == \"x\")");
    close_config();
}

/* Each tries to get the secret into an error. */
static const char *const leaks[] = {
    "error(s)",
    "error(\"x\" .. s)",
    "error(tostring(s))",
    "error(#s)",
    "error(s.x)",
    "error(s:sub(1))",
    "error(s < s)",
    "error(s < \"x\")",
    "error(s + 1)",
    "error(string.format(\"%s\", s))",
    "error(string.format(\"%q\", s))",
    "error(string.rep(s, 2))",
    "error(table.concat({ s }))",
    "error(s())",
    "s.x = 1",
    "error(getmetatable(s).__tostring(s))",
    "error(select(2, pcall(error, s)))",
    "local t = { [s] = 1 } error(next(t))",
    "for i = 1, s do end",
    "route(s) {}",
    "env(s)",
    "file(s)",
    "env(\"A\", s)",
    "ready = s",
    "route \"x\" { url = s }",
    "route \"x\" { url = s .. \" \" }",
    "route \"x\" { url = \"ftp://\" .. s }",
    "route \"x\" { url = \"http://h/{\" .. s }",
    "route \"x\" { url = \"http://h/{\" .. s .. \" }\" }",
    "route \"x\" { url = \"http://h/}\" .. s }",
    "route \"x\" { url = \"http://h/../\" .. s }",
    "route \"x\" { method = s }",
    "route \"x\" { timeout = s }",
    "route \"x\" { max_reply = s }",
    "route \"x\" { rate = s }",
    "route \"x\" { follow = s }",
    "route \"x\" { [s] = 1 }",
    "route \"x\" { headers = { [s] = \"1\" } }",
    "route \"x\" { headers = s }",
    "route \"x\" { headers = { A = s .. \"\\n\" } }",
    "route \"x\" { headers = { [\"X A\"] = s } }",
    "route \"x\" { headers = { host = s } }",
    "route \"x\" { url = \"http://h/\", secret = s .. s .. s }",
    "route \"x\" { url = \"http://h/\", secret = \"whsec_\" .. s }",
    "route \"x\" { url = \"http://h/\", secrets = { s .. s .. s } }",
    "route \"x\" { transport = \"exec\", argv = { s } }",
    "route \"x\" { transport = \"file\", path = s }",
    "route \"x\" { ca_file = s }",
    "route \"x\" { breaker = { scope = s } }",
    "route \"x\" { retry = s }",
    "route \"x\" { body = s }",
    "route \"x\" { response = s }",
    "outbox(s)",
    "outbox { busy = s }",
    "relay(s)",
    "array(s)",
    "tally(s)",
    "pairs(s)",
    "next(s)",
    "setmetatable(s, {})",
    "utf8.len(s)",
    "tonumber(s, 10)",
    "ipairs(s)()",
    "local _ = s .. {}",
    "local _ = s .. 1",
    "error({ s })",
    "local x <close> = s",
    "goto_ = s",
    "string.find(s, \"x\")",
    "table.insert(s, 1)",
    "math.max(s, 1)",
    "assert(false, s)",
};

TEST(test_config__canary_secret__in_no_error)
{
    char text[512];

    set_variables();
    for (size_t i = 0; i < WB_COUNT(leaks); i++) {
        (void)snprintf(
            text, sizeof(text), "local s = env \"CANARY\"\n%s", leaks[i]);
        if (read_text(text) == WB_OK)
            fail_msg("no error: %s", leaks[i]);
        if (strstr(err.msg, "canary") != NULL || err.msg[0] == '\0')
            fail_msg("%s: %s", leaks[i], err.msg);
    }
}

TEST(test_config__endpoint_with_a_secret__not_shown)
{
    set_variables();
    READ("route \"a\" { url = \"http://h/\" .. env \"CANARY\" }\n"
         "route \"b\" { url = function() end }");
    CHECK_TEXT("http://h/canary-sings-loud-and-clear", made[0].url);
    CHECK(route_at(0)->endpoint == NULL);
    CHECK(route_at(1)->endpoint == NULL);
    close_config();
}

/* ---- check only (loop NULL) -------------------------------------------- */

static void
test_config__check_only__secrets_may_be_absent_and_nothing_opens(void **state)
{
    static const char text[] =
        "route \"a\" { url = env \"NO_SUCH\" .. \"/x/{id}\",\n"
        "  headers = { Authorization = \"Bearer \" .. env \"NO_SUCH\" },\n"
        "  secret = file \"no\", timeout = \"5s\" }";

    (void)state;
    set_variables();
    CHECK_OK(read_bytes(text, strlen(text), NULL), err);
    CHECK_INT(0, n_made);
    CHECK(route_at(0)->transport == NULL);
    CHECK_INT(5000, route_at(0)->timeout_ms);
    close_config();
    CHECK_STATUS(INVALID, read_bytes("route \"a\" {}", 12, NULL));
}

/* ---- ready (D-1) ------------------------------------------------------- */

static const struct {
    const char *body;
    bool yes;
    const char *says;
} readies[] = {
    {"return true", true, ""},
    {"return 1", true, ""},
    {"return false", false, "ready() says no"},
    {"", false, "ready() says no"},
    {"return nil, \"log in\"", false, "log in"},
    {"error(\"oh\")", false, "c.lua:1: oh"},
    {"while true do end", false, "ran out of steps"},
    {"return true, \"unused\"", true, ""},
};

TEST(test_config__ready__says_yes_no_and_why)
{
    char text[256];

    for (size_t i = 0; i < WB_COUNT(readies); i++) {
        (void)snprintf(
            text, sizeof(text), "ready = function() %s end", readies[i].body);
        READ(text);
        CHECK_INT(readies[i].yes, wb_config_ready(config, &err));
        CHECK_HAS(readies[i].says, err.msg);
        CHECK_INT(readies[i].yes, wb_config_ready(config, NULL));
        close_config();
    }
}

/* ---- out of memory ----------------------------------------------------- */

TEST(test_config__nth_allocation_fails__no_memory_and_nothing_left)
{
    long n, refused = 0;

    set_variables();
    test_write("c.lua", full_route, sizeof(full_route) - 1);
    for (n = 0;; n++) {
        enum wb_status status;

        n_made = 0;
        config = NULL;
        fake_alloc_fail_at(n);
        status = wb_config_open(&config, "c.lua", ENV, LOOP, &err);
        if (fake_env.failed == 0)
            break;
        fake_alloc_fail_at(-1);
        /* Lua collects garbage and tries again, which may be enough. */
        CHECK(status == WB_OK || status == WB_NOMEM);
        CHECK((status == WB_OK) == (config != NULL));
        refused += status == WB_NOMEM;
        close_config();
        CHECK(fake_env.live == 0);
    }
    fake_alloc_fail_at(-1);
    CHECK(n > 100 && refused > 3);
    close_config();
}

/* ---- the manual -------------------------------------------------------- */

static void
check_documented(const char *manual, const struct wb__schema *schema)
{
    char wanted[64];

    for (size_t i = 0; i < schema->n; i++) {
        (void)snprintf(wanted, sizeof(wanted), "`%s`", schema->field[i].name);
        CHECK_HAS(wanted, manual);
        if (schema->field[i].group != NULL)
            check_documented(manual, schema->field[i].group);
    }
}

TEST(test_config__manual__has_every_field)
{
    char *manual = test_read(test_source("doc/CONFIG.md"), NULL);

    check_documented(manual, &wb__route_schema);
    check_documented(manual, &wb__outbox_schema);
    check_documented(manual, &wb__relay_schema);
    free(manual);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_config__no_such_file__not_found),
        RUN(test_config__binary_chunk__refused),
        RUN(test_config__too_large__refused),
        RUN(test_config__long_path__its_end_is_shown),
        RUN(test_config__empty_file__no_routes_and_defaults),
        RUN(test_config__least_route__defaults),
        RUN(test_config__every_field_of_http__arrives),
        RUN(test_config__batch__count_and_format),
        RUN(test_config__immediate__retried_at_once_as_often_as_configured),
        RUN(test_config__retry_as_a_list__its_delays_and_one_attempt_more),
        RUN(test_config__exec_and_file__made_of_their_fields),
        RUN(test_config__loop_over_kinds__a_route_each_in_order),
        RUN(test_config__table_changed_afterwards__route_stays),
        RUN(test_config__transport_not_made__error_names_route_and_all_is_freed),
        RUN(test_config__secret_from_file__trimmed_and_beside_the_config),
        RUN(test_config__default__plain_text_or_nothing),
        RUN(test_config__canary_secret__in_no_error),
        RUN(test_config__endpoint_with_a_secret__not_shown),
        RUN(test_config__check_only__secrets_may_be_absent_and_nothing_opens),
        RUN(test_config__ready__says_yes_no_and_why),
        RUN(test_config__nth_allocation_fails__no_memory_and_nothing_left),
        RUN(test_config__manual__has_every_field),
    };
    return RUN_ALL(tests);
}
