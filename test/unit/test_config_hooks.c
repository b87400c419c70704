/* test_config_hooks.c - what hooks make of messages and replies (T-1, T-2). */
#include "test_config.h"

/* ---- build: url and body ----------------------------------------------- */

static const struct {
    const char *name, *fields, *payload;
    const char *url, *body; /* NULL: an error */
    const char *says;
} builds[] = {
    {"nothing to build", "url = \"http://h/\"", "not json", "", "not json",
        NULL},
    {"url alone leaves the body", "url = \"http://h/{a}\"", "{\"a\": 1 }",
        "http://h/1", "{\"a\": 1 }", NULL},
    {"body alone leaves the url", "url = \"http://h/\", body = \"steps\"",
        "{\"steps\":[1,2]}", "", "[1,2]", NULL},
    {"body keeps the bytes", "url = \"http://h/\", body = \"b\"",
        "{\"b\" : {\"z\":1, \"a\":[null,true,\"x\\u00fc\\/\\n\"],\"z\":2} }",
        "", "{\"z\":1, \"a\":[null,true,\"x\\u00fc\\/\\n\"],\"z\":2}", NULL},
    {"body keeps numbers", "url = \"http://h/\", body = \"b\"",
        "{\"b\":[19.99,0.30000000000000004,1e+300,1e400,9007199254740993,-0.0,"
        "18446744073709551616,2.50]}",
        "",
        "[19.99,0.30000000000000004,1e+300,1e400,9007199254740993,-0.0,"
        "18446744073709551616,2.50]",
        NULL},
    {"body is the last of a name that stands twice",
        "url = \"http://h/\", body = \"b.c\"",
        "{\"b\":{\"c\":1},\"b\":{\"c\":2,\"\\u0063\":[3]}}", "", "[3]", NULL},
    {"each number of a table is as short as it can be",
        "url = \"http://h/\", body = function(m) return m.payload end",
        "[19.99,0.30000000000000004,1e300,9007199254740993,-0.0,1.0,2.5]", "",
        "[19.99,0.30000000000000004,1e300,9007199254740993,-0.0,1.0,2.5]",
        NULL},
    {"texts of a table are escaped",
        "url = \"http://h/\", body = function(m) return m.payload end",
        "[\"\\b\\f\\n\\r\\t\\\"\\\\\\u0001\\/b\x7f\"]", "",
        "[\"\\b\\f\\n\\r\\t\\\"\\\\\\u0001/b\x7f\"]", NULL},
    {"body of one text", "url = \"http://h/\", body = \"b\"", "{\"b\":\"x\"}",
        "", "\"x\"", NULL},
    {"body of null", "url = \"http://h/\", body = \"b\"", "{\"b\":null}", "",
        "null", NULL},
    {"body from inside", "url = \"http://h/\", body = \"a.b\"",
        "{\"a\":{\"b\":3}}", "", "3", NULL},
    {"body is missing", "url = \"http://h/\", body = \"steps\"", "{}", NULL,
        NULL, "body: field steps is not in the payload"},
    {"payload is no JSON", "url = \"http://h/{a}\"", "{\"a\":\n x}", NULL, NULL,
        "payload is not JSON (line 2, column 2)"},
    {"number past 64 bits in a function",
        "url = \"http://h/\", body = function(m) return m.payload end",
        "{\"a\":18446744073709551615}", NULL, NULL,
        "payload has a number that does not fit into 64 bits (line 1, column "},
    {"payload is empty", "url = \"http://h/{a}\"", "", NULL, NULL,
        "payload is not JSON"},
    {"url function",
        "url = function(m) return \"http://h/\" .. m.kind .. \"/\" .. m.id .. "
        "\"/\" .. m.key .. \"/\" .. m.attempt end",
        "x", "http://h/x/018f0000-0000-7000-8000-000000000001/key-1/3", "x",
        NULL},
    {"url function gives a secret",
        "url = function(m) return \"http://h/\" .. token end", "x",
        "http://h/canary", "x", NULL},
    {"secret taken for a field is not shown",
        "url = \"http://h/{\" .. token .. \"}\"", "{}", NULL, NULL,
        "url: a field of it is not in the payload, or does not fit"},
    {"url function gives nothing", "url = function() end", "x", NULL, NULL,
        "c.lua: url: the function gave a nil, not text"},
    {"url function gives no url", "url = function() return \"file:///x\" end",
        "x", NULL, NULL, "url: the url must begin with http:// or https://"},
    {"url function gives a line end",
        "url = function() return \"http://h/\\r\\nX: y\" end", "x", NULL, NULL,
        "must be percent-encoded"},
    {"body function gives text",
        "url = \"http://h/\", body = function(m) return m.body .. \"!\" end",
        "x", "", "x!", NULL},
    {"body function gives nothing to send",
        "url = \"http://h/\", body = function(m) return \"\" end", "x", "", "",
        NULL},
    {"body function gives a table",
        "url = \"http://h/\", body = function(m) return { z = 1, a = { 1, 2.5, "
        "\"x\", true, null }, m = array {}, n = {} } end",
        "x", "", "{\"a\":[1,2.5,\"x\",true,null],\"m\":[],\"n\":{},\"z\":1}",
        NULL},
    {"body function gives a list",
        "url = \"http://h/\", body = function(m) return { m.payload } end",
        "{\"b\":1,\"a\":[]}", "", "[{\"a\":[],\"b\":1}]", NULL},
    {"payload there and back",
        "url = \"http://h/\", body = function(m) return m.payload end",
        "{\"a\":[1,null,[],{},[null]],\"b\":{\"c\":\"\\u0000\",\"d\":1e100},"
        "\"e\":-1,\"f\":false}",
        "",
        "{\"a\":[1,null,[],{},[null]],\"b\":{\"c\":\"\\u0000\",\"d\":1e100},"
        "\"e\":-1,\"f\":false}",
        NULL},
    {"payload of one value",
        "url = \"http://h/\", body = function(m) return { m.payload } end",
        "\"x\"", "", "[\"x\"]", NULL},
    {"null in an object is absent",
        "url = \"http://h/\", body = function(m) return { m.payload.a == nil, "
        "m.payload.b == null } end",
        "{\"a\":null,\"b\":null}", "", "[true,false]", NULL},
    {"null in an array keeps its place",
        "url = \"http://h/\", body = function(m) return { #m.payload, "
        "m.payload[2] == null, m.payload[3] } end",
        "[1,null,3]", "", "[3,true,3]", NULL},
    {"url and body function see one decoded payload",
        "url = function(m) m.payload.x = 5 return \"http://h/\" end, body = "
        "function(m) return { m.payload.x } end",
        "{}", "http://h/", "[5]", NULL},
    {"payload is not decoded unless touched",
        "url = \"http://h/\", body = function(m) return m.kind end", "no json",
        "", "x", NULL},
    {"payload of a function is no JSON",
        "url = \"http://h/\", body = function(m) return m.payload end", "{",
        NULL, NULL, "c.lua:2: payload is not JSON (line 1, column 1)"},
    {"body function gives a number",
        "url = \"http://h/\", body = function(m) return 3 end", "x", NULL, NULL,
        "body: the function gave a number, not text or table"},
    {"body of mixed table",
        "url = \"http://h/\", body = function(m) return { 1, a = 2 } end", "x",
        NULL, NULL, "a table with both items and names is no JSON"},
    {"body of a list with a hole",
        "url = \"http://h/\", body = function(m) return { 1, nil, 3 } end", "x",
        NULL, NULL, "a list with a hole; write null there"},
    {"body with a function in it",
        "url = \"http://h/\", body = function(m) return { a = print_ } end",
        "x", NULL, NULL, "c.lua:2: unknown name \"print_\""},
    {"body with a function",
        "url = \"http://h/\", body = function(m) return { "
        "a = pairs } end",
        "x", NULL, NULL, "JSON has no value for a function"},
    {"body with a secret",
        "url = \"http://h/\", body = function(m) return { a "
        "= token } end",
        "x", NULL, NULL, "JSON has no value for a userdata"},
    {"body with no number",
        "url = \"http://h/\", body = function(m) return { 0 / 0 } end", "x",
        NULL, NULL, "JSON has no number for"},
    {"body with no UTF-8",
        "url = \"http://h/\", body = function(m) return { \"\\xff\" } end", "x",
        NULL, NULL, "JSON wants UTF-8; this text is not"},
    {"body with a name of no UTF-8",
        "url = \"http://h/\", body = function(m) return { [\"\\xff\"] = 1 } "
        "end",
        "x", NULL, NULL, "JSON wants UTF-8; this name is not"},
    {"body with a name of no text",
        "url = \"http://h/\", body = function(m) return { [true] = 1 } end",
        "x", NULL, NULL, "a table with a boolean as name is no JSON object"},
    {"body that holds itself",
        "url = \"http://h/\", body = function(m) local t = {} t.t = t return t "
        "end",
        "x", NULL, NULL, "tables nested deeper than 100"},
    {"body that unfolds without end",
        "url = \"http://h/\", body = function(m) local t = { 1 } for i = 1, 90 "
        "do t = { t, t } end return t end",
        "x", NULL, NULL, "ran out of steps"},
    {"function that fails", "url = function(m) error(\"no luck\") end", "x",
        NULL, NULL, "c.lua:2: no luck"},
    {"function that fails with a table", "url = function(m) error({}) end", "x",
        NULL, NULL, "c.lua: failed with a table in place of an error text"},
    {"function that fails with nothing", "url = function(m) error() end", "x",
        NULL, NULL, "c.lua: failed with a nil in place of an error text"},
    {"function that never ends", "url = function(m) while true do end end", "x",
        NULL, NULL, "c.lua:2: ran out of steps"},
    {"function that eats memory",
        "url = function(m) local t = {} while true do t[#t + 1] = { 1 } end "
        "end",
        "x", NULL, NULL, "c.lua: ran out of its 64 MiB of memory"},
    {"function that calls itself",
        "url = function(m) local function f() return "
        "1 + f() end return f() end",
        "x", NULL, NULL, "c.lua: ran out of its 64 MiB of memory"},
    {"message has no such member", "url = function(m) return m.paylod end", "x",
        NULL, NULL,
        "c.lua:2: message has no \"paylod\"; it has id, kind, key, attempt, "
        "payload and body"},
    {"message cannot be changed", "url = function(m) m.id = 1 end", "x", NULL,
        NULL, "attempt to index a message value"},
    {"tally in build", "url = function(m) tally \"x\" end", "x", NULL, NULL,
        "c.lua:2: tally is for response functions"},
    {"env in a hook", "url = function(m) return env \"KEY\" end", "x", NULL,
        NULL,
        "c.lua:2: env is for the top of the file, not for hooks; keep its "
        "value in a local"},
    {"route in a hook", "url = function(m) route \"y\" {} end", "x", NULL, NULL,
        "c.lua:2: route is for the top of the file, not for hooks"},
    {"outbox in a hook", "url = function(m) outbox {} end", "x", NULL, NULL,
        "c.lua:2: outbox is for the top of the file, not for hooks"},
    {"global in a hook", "url = function(m) x = 1 end", "x", NULL, NULL,
        "c.lua:2: \"x\" cannot be set; a value of your own is a local"},
};

static void
read_route(const char *fields)
{
    char text[2048];

    (void)setenv("TOKEN", "canary", 1);
    (void)snprintf(text, sizeof(text),
        "local token = env \"TOKEN\"\nroute \"x\" { %s }", fields);
    READ(text);
}

TEST(test_config_hooks__table_of_builds__request_or_error)
{
    int bad = 0;

    for (size_t i = 0; i < WB_COUNT(builds); i++) {
        struct built b;

        read_route(builds[i].fields);
        b = build_with(route_at(0), builds[i].payload);
        if (builds[i].body == NULL &&
            (b.status != WB_INVALID ||
                strstr(err.msg, builds[i].says) == NULL)) {
            bad++;
            print_error("%s: %s\n wanted %s\n", builds[i].name, err.msg,
                builds[i].says);
        }
        if (builds[i].body != NULL &&
            (b.status != WB_OK || strcmp(b.url, builds[i].url) != 0 ||
                strcmp(b.body, builds[i].body) != 0)) {
            bad++;
            print_error("%s: %s url %s body %s\n", builds[i].name, err.msg,
                b.url, b.body);
        }
        CHECK(strstr(err.msg, "canary") == NULL);
        close_config();
    }
    CHECK_INT(0, bad);
}

TEST(test_config_hooks__deep_payload__error_at_the_limit)
{
    char payload[256];
    struct built b;

    read_route("url = \"http://h/\", body = function(m) return m.payload end");
    memset(payload, '[', 100);
    memset(payload + 100, ']', 100);
    payload[200] = '\0';
    b = build_with(route_at(0), payload);
    CHECK_OK(b.status, err);
    CHECK_TEXT(payload, b.body);
    memset(payload, '[', 101);
    memset(payload + 101, ']', 101);
    payload[202] = '\0';
    b = build_with(route_at(0), payload);
    CHECK_INT(WB_INVALID, b.status);
    CHECK_HAS("JSON nested deeper than 100", err.msg);
    close_config();
}

TEST(test_config_hooks__message_kept_for_later__is_over)
{
    read_route("url = (function() local old return function(m)\n"
               "  if old then return old.id end\n"
               "  old = m error(\"first\") end end)()");
    CHECK_INT(WB_INVALID, build_with(route_at(0), "{}").status);
    CHECK_HAS("first", err.msg);
    CHECK_INT(WB_INVALID, build_with(route_at(0), "{}").status);
    CHECK_TEXT("c.lua:3: this message is over; keep what you need of it in a "
               "local",
        err.msg);
    close_config();
}

TEST(test_config_hooks__two_messages_at_once__each_keeps_its_request)
{
    struct wb_claimed a = message_of("x", "{\"a\":1}"),
                      b = message_of("x", "{\"a\":2}");
    struct wb_request ra = {.body = a.payload}, rb = {.body = b.payload};
    void *ta = NULL, *tb = NULL;
    const struct wb_route *r;

    read_route("url = \"http://h/{a}\", body = \"a\"");
    r = route_at(0);
    CHECK_OK(r->build(r->ctx, &a, &ra, &ta, &err), err);
    CHECK_OK(r->build(r->ctx, &b, &rb, &tb, &err), err);
    CHECK_SLICE("http://h/1", ra.url);
    CHECK_SLICE("1", ra.body);
    r->release(r->ctx, ta);
    CHECK_SLICE("http://h/2", rb.url);
    CHECK_SLICE("2", rb.body);
    r->release(r->ctx, tb);
    r->release(r->ctx, NULL);
    close_config();
}

static void
test_config_hooks__nth_allocation_fails__no_memory_then_all_is_well(
    void **state)
{
    long n, refused = 0;
    struct built b;

    (void)state;
    read_route("url = \"http://h/{a}\", body = function(m) local t = {} for i "
               "= 1, 200 do t[i] = { m.payload.a .. i } end return t end");
    for (n = 0;; n++) {
        fake_alloc_fail_at(n);
        b = build_with(route_at(0), "{\"a\":\"x\"}");
        if (fake_env.failed == 0)
            break;
        fake_alloc_fail_at(-1);
        CHECK(b.status == WB_OK || b.status == WB_NOMEM);
        refused += b.status == WB_NOMEM;
    }
    fake_alloc_fail_at(-1);
    CHECK_OK(b.status, err);
    CHECK(n > 10 && refused > 2);
    close_config();
}

/* ---- judge: the response rule ------------------------------------------ */

static const struct {
    const char *name, *body; /* of function(reply, msg) */
    int status;
    const char *reply;
    enum wb_outcome outcome;
    int64_t retry_after_ms;
    const char *error, *tally;
} judges[] = {
    {"nothing", "", 200, "{}", WB_DELIVERED, 0, "", ""},
    {"nil", "return nil", 200, "", WB_DELIVERED, 0, "", ""},
    {"delivered", "return \"delivered\"", 204, "", WB_DELIVERED, 0, "", ""},
    {"delivered with a reason", "return \"delivered\", \"x\"", 200, "",
        WB_DELIVERED, 0, "", ""},
    {"rejected", "return \"rejected\", reply.json.error", 200,
        "{\"error\":\"no such team\"}", WB_REJECTED, 0, "no such team", ""},
    {"rejected without a reason", "return \"rejected\"", 200, "", WB_REJECTED,
        0, "rejected by the response rule", ""},
    {"reason is made one line", "return \"rejected\", \" a\\n\\tb\\27[2J \"",
        200, "", WB_REJECTED, 0, "a b [2J", ""},
    {"reason of no text", "return \"rejected\", { 1 }", 200, "", WB_REJECTED, 0,
        "a table in place of a reason", ""},
    {"reason of a number", "return \"rejected\", 42", 200, "", WB_REJECTED, 0,
        "42", ""},
    {"retry", "return \"retry\", \"busy\"", 202, "", WB_RETRY, 0, "busy", ""},
    {"retry without a reason", "return \"retry\"", 200, "", WB_RETRY, 0,
        "to be retried, says the response rule", ""},
    {"retry after", "return \"retry\", \"busy\", 2.5", 200, "", WB_RETRY, 2500,
        "busy", ""},
    {"retry after for ever", "return \"retry\", \"busy\", math.huge", 200, "",
        WB_RETRY, INT64_C(1000000000000), "busy", ""},
    {"retry after less than nothing", "return \"retry\", \"busy\", -1", 200, "",
        WB_UNKNOWN, 0, "c.lua: response: seconds cannot be negative", ""},
    {"retry after no number", "return \"retry\", \"busy\", 0 / 0", 200, "",
        WB_UNKNOWN, 0, "c.lua: response: seconds cannot be negative", ""},
    {"unknown word", "return \"deliverd\"", 200, "", WB_UNKNOWN, 0,
        "c.lua: response: the function gave \"deliverd\"; it may give "
        "\"delivered\", \"rejected\" or \"retry\"",
        ""},
    {"no word", "return true", 200, "", WB_UNKNOWN, 0,
        "c.lua: response: the function gave boolean; it may give "
        "\"delivered\", \"rejected\" or \"retry\"",
        ""},
    {"fails", "tally \"x\" error(\"oh\")", 200, "", WB_UNKNOWN, 0,
        "c.lua:1: oh", ""},
    {"never ends", "while true do end", 200, "", WB_UNKNOWN, 0,
        "c.lua:1: ran out of steps; is there an endless loop?", ""},
    {"eats memory", "local t = {} while true do t[#t + 1] = {} end", 200, "",
        WB_UNKNOWN, 0, "c.lua: ran out of its 64 MiB of memory", ""},
    {"not asked for 500", "return \"delivered\"", 500, "", WB_RETRY, 0, "", ""},
    {"not asked for 404", "error(\"asked\")", 404, "", WB_RETRY, 0, "", ""},
    {"reply is no JSON",
        "if reply.json == nil then return \"retry\", "
        "reply.body end",
        200, "<html>", WB_RETRY, 0, "<html>", ""},
    {"status and body", "return \"rejected\", reply.status .. reply.body", 201,
        "b", WB_REJECTED, 0, "201b", ""},
    {"message is there too", "return \"rejected\", msg.id .. msg.payload.a",
        200, "", WB_REJECTED, 0, "018f0000-0000-7000-8000-000000000001x", ""},
    {"reply has no such member", "return reply.josn", 200, "", WB_UNKNOWN, 0,
        "c.lua:1: reply has no \"josn\"; it has status, body and json", ""},
    {"tallies", "tally \"b\" tally(\"a\", 3) tally \"b\" tally(\"c\", 0)", 200,
        "", WB_DELIVERED, 0, "", "b=2 a=3 c=0"},
    {"tallies of a rejection", "tally \"no\" return \"rejected\", \"x\"", 200,
        "", WB_REJECTED, 0, "x", "no=1"},
    {"tally below nothing", "tally(\"a\", -1)", 200, "", WB_UNKNOWN, 0,
        "c.lua:1: tally wants a number from 0 up", ""},
    {"tally without a name", "tally \"\"", 200, "", WB_UNKNOWN, 0,
        "c.lua:1: tally wants a name of 1 to 63 characters", ""},
    {"tally with a control character", "tally \"a\\nb\"", 200, "", WB_UNKNOWN,
        0, "c.lua:1: tally wants a name of 1 to 63 characters", ""},
    {"too many tallies", "for i = 1, 33 do tally(\"t\" .. i) end", 200, "",
        WB_UNKNOWN, 0, "c.lua:1: tally: more than 32 names", ""},
};

TEST(test_config_hooks__table_of_judgements__as_written)
{
    char text[1024];
    int bad = 0;

    for (size_t i = 0; i < WB_COUNT(judges); i++) {
        struct judged j;

        (void)snprintf(text, sizeof(text),
            "route \"x\" { url = \"http://h/\", response = function(reply, "
            "msg) %s end }",
            judges[i].body);
        READ(text);
        j = judge_with(
            route_at(0), "{\"a\":\"x\"}", judges[i].status, judges[i].reply);
        if (j.outcome != judges[i].outcome ||
            j.retry_after_ms != judges[i].retry_after_ms ||
            strcmp(j.error, judges[i].error) != 0 ||
            strcmp(j.tally, judges[i].tally) != 0) {
            bad++;
            print_error("%s: outcome %d after %lld error \"%s\" tally \"%s\"\n",
                judges[i].name, (int)j.outcome, (long long)j.retry_after_ms,
                j.error, j.tally);
        }
        close_config();
    }
    CHECK_INT(0, bad);
}

TEST(test_config_hooks__unknown_outcome__stays_unknown)
{
    struct wb_claimed m = message_of("x", "{}");
    struct wb_result result = {
        .outcome = WB_UNKNOWN, .status = 200, .error = WB_LIT("reply was cut")};
    struct wb_tally tally = {""};
    const struct wb_route *r;

    read_route("url = \"http://h/\", response = function() end");
    r = route_at(0);
    r->judge(r->ctx, &m, &result, &tally);
    CHECK_INT(WB_UNKNOWN, result.outcome);
    CHECK_SLICE("reply was cut", result.error);
    close_config();
}

/* A refusal that cannot be read does not count as none. */
TEST(test_config_hooks__reply_that_cannot_be_read__unknown)
{
    const struct {
        struct wb_result reply;
        enum wb_outcome outcome;
    } cases[] = {
        {{.body = WB_LIT("\x1f\x8b\x08"), .coded = true}, WB_UNKNOWN},
        {{.body = WB_LIT("\xef\xbb\xbf{\"accepted\":false}")}, WB_REJECTED},
        {{.body = WB_LIT("\xef\xbb\xbf{\"accepted\":true}")}, WB_DELIVERED},
        {{.body = WB_LIT("{'accepted':false}")}, WB_UNKNOWN},
        {{.body = WB_LIT("nothing"), .json = true}, WB_UNKNOWN},
        {{.body = WB_LIT("\xff\xfe{\0")}, WB_UNKNOWN},
        {{.body = WB_LIT("thanks")}, WB_DELIVERED},
        {{.coded = true, .json = true}, WB_DELIVERED},
    };
    struct wb_claimed m = message_of("x", "{}");
    struct wb_tally tally = {""};

    read_route("url = \"http://h/\", response = function(r) if r.json and "
               "r.json.accepted == false then return \"rejected\" end end");
    for (size_t i = 0; i < WB_COUNT(cases); i++) {
        struct wb_result result = cases[i].reply;

        route_at(0)->judge(route_at(0)->ctx, &m, &result, &tally);
        CHECK_INT(cases[i].outcome, result.outcome);
    }
    close_config();
}

/* What was cut off may be a refusal: it does not count as none. */
TEST(test_config_hooks__reply_cut__its_json_is_unknown)
{
    struct wb_claimed m = message_of("x", "{}");
    struct wb_result result = {.outcome = WB_DELIVERED,
        .status = 200,
        .body = WB_LIT("{\"accepted\":fal"),
        .cut = true};
    struct wb_tally tally = {""};
    const struct wb_route *r;

    read_route("url = \"http://h/\", response = function(r) if r.json and "
               "r.json.accepted == false then return \"rejected\" end end");
    r = route_at(0);
    r->judge(r->ctx, &m, &result, &tally);
    CHECK_INT(WB_UNKNOWN, result.outcome);
    CHECK(strstr(result.error.ptr, "the reply was cut") != NULL);
    result.outcome = WB_DELIVERED;
    result.body = WB_LIT("{}"); /* whole, whatever came after it */
    r->judge(r->ctx, &m, &result, &tally);
    CHECK_INT(WB_DELIVERED, result.outcome);
    close_config();
}

/* A number that does not fit into Lua's integers must not hide a refusal. */
TEST(test_config_hooks__reply_with_large_integer__is_json)
{
    struct judged j;

    read_route("url = \"http://h/\", response = function(r) if r.json and "
               "r.json.accepted == false then return \"rejected\" end end");
    j = judge_with(route_at(0), "{}", 200,
        "{\"accepted\":false,\"trace\":18446744073709551615}");
    CHECK_INT(WB_REJECTED, j.outcome);
    close_config();
}

TEST(test_config_hooks__reply_kept_for_later__is_over)
{
    struct judged j;

    read_route("url = \"http://h/\", response = (function() local old "
               "return function(r) if old then return old.status end old = r "
               "end end)()");
    j = judge_with(route_at(0), "{}", 200, "{}");
    CHECK_INT(WB_DELIVERED, j.outcome);
    j = judge_with(route_at(0), "{}", 200, "{}");
    CHECK_INT(WB_UNKNOWN, j.outcome);
    CHECK_HAS("this reply is over", j.error);
    close_config();
}

TEST(test_config_hooks__ten_thousand_messages__memory_stays)
{
    size_t most = 0;

    read_route("url = \"http://h/{a}\", body = function(m) return m.payload "
               "end, response = function(r, m) tally(\"n\", m.payload.a) end");
    for (int i = 0; i < 10000; i++) {
        CHECK_OK(
            build_with(route_at(0), "{\"a\":1,\"b\":[1,2,3]}").status, err);
        CHECK_TEXT("n=1",
            judge_with(route_at(0), "{\"a\":1}", 200, "{\"c\":{}}").tally);
        most = script()->bytes > most ? script()->bytes : most;
    }
    CHECK(most < 1 << 20);
    close_config();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_config_hooks__table_of_builds__request_or_error),
        RUN(test_config_hooks__deep_payload__error_at_the_limit),
        RUN(test_config_hooks__message_kept_for_later__is_over),
        RUN(test_config_hooks__two_messages_at_once__each_keeps_its_request),
        RUN(test_config_hooks__nth_allocation_fails__no_memory_then_all_is_well),
        RUN(test_config_hooks__table_of_judgements__as_written),
        RUN(test_config_hooks__unknown_outcome__stays_unknown),
        RUN(test_config_hooks__reply_that_cannot_be_read__unknown),
        RUN(test_config_hooks__reply_cut__its_json_is_unknown),
        RUN(test_config_hooks__reply_with_large_integer__is_json),
        RUN(test_config_hooks__reply_kept_for_later__is_over),
        RUN(test_config_hooks__ten_thousand_messages__memory_stays),
    };
    return RUN_ALL(tests);
}
