/* test_config_batch.c - scope_of and results: hooks that look at several
 * messages. */
#include "test_config.h"

static void
read_route(const char *fields)
{
    char text[2048];

    (void)setenv("TOKEN", "canary", 1);
    (void)snprintf(text, sizeof(text),
        "local token = env \"TOKEN\"\nroute \"x\" { %s }", fields);
    READ(text);
}

/* ---- scope ------------------------------------------------------------- */

static const struct {
    const char *fields, *payload;
    const char *scope; /* NULL: that of the route */
} scopes[] = {
    {"url = \"http://h/\"", "{}", NULL},
    {"url = \"http://h/{a}\"", "{\"a\":1}", NULL},
    {"url = \"http://h/\", breaker = { scope = \"h\" }", "{}", NULL},
    {"url = \"http://h/\", breaker = { scope = \"t-{a.b}\" }",
        "{\"a\":{\"b\":\"x y\"}}", "t-x%20y"},
    {"url = \"http://h/\", breaker = { scope = \"t-{a}\" }", "{}", NULL},
    {"url = \"http://h/\", breaker = { scope = \"t-{a}\" }", "no json", NULL},
    {"url = \"http://h/\", breaker = { scope = function(m) return m.payload.a "
     "end }",
        "{\"a\":\"red\"}", "red"},
    {"url = \"http://h/\", breaker = { scope = function(m) return token end }",
        "{}", NULL},
    {"url = \"http://h/\", breaker = { scope = function(m) return m.payload.a "
     "end }",
        "{\"a\":\"a\\nb\"}", NULL},
    {"url = function(m) return m.payload.u end",
        "{\"u\":\"https://A.example:443/x?y=/z\"}", "https://a.example"},
    {"url = function(m) return m.payload.u end",
        "{\"u\":\"http://[::1]:8080?x\"}", "http://[::1]:8080"},
    {"url = function(m) return m.payload.u end", "{\"u\":\"ftp://h/\"}", NULL},
    {"url = function(m) return \"http://h/\" .. token end", "{}", NULL},
    {"url = function(m) return m.payload.u end, breaker = { scope = \"one\" }",
        "{\"u\":\"http://h/\"}", NULL},
    {"transport = \"exec\", argv = { \"true\" }, breaker = { scope = \"{a}\" }",
        "{\"a\":7}", "7"},
};

TEST(test_config_batch__scope__of_the_destination_that_is_really_meant)
{
    for (size_t i = 0; i < WB_COUNT(scopes); i++) {
        const struct wb_route *r;
        struct wb_claimed m;
        char out[256] = "";

        read_route(scopes[i].fields);
        r = route_at(0);
        m = message_of("x", scopes[i].payload);
        if (r->scope_of != NULL && r->scope_of(r->ctx, &m, out, 256) != WB_OK)
            CHECK_TEXT("", out);
        CHECK_TEXT(scopes[i].scope != NULL ? scopes[i].scope : "", out);
        close_config();
    }
    read_route("url = \"http://h/\", breaker = { scope = \"h\" }");
    CHECK_TEXT("h", route_at(0)->scope);
    close_config();
    CHECK_STATUS(INVALID, read_text("route \"x\" { url = \"http://h/\",\n"
                                    " breaker = { scope = \"{a b}\" } }"));
    CHECK_HAS("c.lua:2: route \"x\": breaker.scope: the scope has {a b}, which "
              "names no field",
        err.msg);
}

/* ---- results of a batch ------------------------------------------------- */

#define ID1 "018f0000-0000-7000-8000-000000000001"
#define ID2 "018f0000-0000-7000-8000-000000000002"
#define ID3 "018f0000-0000-7000-8000-000000000003"
#define FAILURES                                                          \
    "if not reply.json then return nil end local r = {} for _, f in "     \
    "ipairs(reply.json.failures) do r[f.id] = { f.what or \"rejected\", " \
    "f.why "                                                              \
    "} end return r"

static const struct {
    const char *function, *reply;
    const char *gives; /* D, R (retry), X (rejected) of each, or an error */
    const char *error; /* of the first that has one */
} batches[] = {
    {FAILURES, "{\"failures\":[]}", "DDD", ""},
    {FAILURES, "{\"failures\":[{\"id\":\"" ID2 "\",\"why\":\"too  old\"}]}",
        "DXD", "too old"},
    {FAILURES, "\xef\xbb\xbf{\"failures\":[{\"id\":\"" ID1 "\"}]}", "XDD",
        "rejected, says the results rule"},
    {FAILURES,
        "{\"failures\":[{\"id\":\"" ID3 "\",\"what\":503,\"why\":\"busy\"}]}",
        "DDR", "busy"},
    {FAILURES, "{\"failures\":[{\"id\":\"other\"}]}", NULL,
        "results: the function has a result for other, which is no id"},
    {FAILURES, "not json", "-", ""},
    {FAILURES, "{}", NULL, "attempt to index a nil value"},
    {"local r = {} for i, x in ipairs(reply.json.items) do r[i] = x.status end "
     "return r",
        "{\"items\":[{\"status\":200},{\"status\":400},{\"status\":429}]}",
        "DXR", "rejected, says the results rule"},
    {"return { [4] = \"retry\" }", "", NULL, "result for 4, which is no id"},
    {"return { \"retry\", [ids[1]] = \"retry\" }", "", NULL,
        "two results for one message"},
    {"return { \"rejcted\" }", "", NULL,
        "results: the function gave \"rejcted\"; it may give"},
    {"return 7", "", NULL, "results: the function gave a number, not a table"},
    {"return { { \"retry\" } }", "", "RDD", "to be retried, says"},
};

TEST(test_config_batch__results__of_each_message_of_a_batch)
{
    static const char *const ids[] = {ID1, ID2, ID3};
    char fields[512];

    for (size_t i = 0; i < WB_COUNT(batches); i++) {
        struct wb_claimed m[3];
        const struct wb_claimed *message[3];
        struct wb_result whole = {.outcome = WB_DELIVERED,
                             .status = 200,
                             .body = wb_slice(batches[i].reply)},
                         r[3] = {whole, whole, whole};
        const char *wanted = batches[i].gives, *first = "";
        enum wb_status rc;

        (void)snprintf(fields, sizeof(fields),
            "url = \"http://h/\", batch = { max = 3, results = function(reply, "
            "ids) %s end }",
            batches[i].function);
        read_route(fields);
        for (size_t k = 0; k < 3; k++) {
            m[k] = message_of("x", "{}");
            memcpy(m[k].id.text, ids[k], strlen(ids[k]) + 1);
            message[k] = &m[k];
        }
        memset(&err, 0, sizeof(err));
        rc =
            route_at(0)->results(route_at(0)->ctx, message, 3, &whole, r, &err);
        CHECK_INT(wanted == NULL   ? WB_INVALID
                  : *wanted == '-' ? WB_NOTFOUND
                                   : WB_OK,
            rc);
        if (rc == WB_INVALID)
            CHECK_HAS(batches[i].error, err.msg);
        for (size_t k = 0; k < 3 && rc == WB_OK; k++) {
            CHECK_INT(wanted[k] == 'D'   ? WB_DELIVERED
                      : wanted[k] == 'R' ? WB_RETRY
                                         : WB_REJECTED,
                r[k].outcome);
            if (first[0] == '\0' && r[k].error.len > 0)
                first = r[k].error.ptr;
        }
        if (rc == WB_OK)
            CHECK_HAS(batches[i].error, first);
        close_config();
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_config_batch__scope__of_the_destination_that_is_really_meant),
        RUN(test_config_batch__results__of_each_message_of_a_batch),
    };
    return RUN_ALL(tests);
}
