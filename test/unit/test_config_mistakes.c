/* test_config_mistakes.c - each mistake in a configuration reports file, line
 * and fix (L-3, T-1, T-4, O-4, S9). */
#include "test_config.h"

static const struct {
    const char *name, *text;
    enum wb_status status;
    const char *says;
} mistakes[] = {
    {"unknown name, own line",
        "route \"x\" {\n  url = \"http://h/\",\n  tiemout = \"3s\",\n}",
        WB_INVALID,
        "c.lua:3: route \"x\": unknown name \"tiemout\"; did you mean "
        "\"timeout\"?"},
    {"unknown name without a likeness",
        "route \"x\" { url = \"http://h/\", colour = 1 }", WB_INVALID,
        "c.lua:1: route \"x\": unknown name \"colour\"; doc/CONFIG.md has all "
        "names"},
    {"on_abandoned that is no kind", "outbox {\n on_abandoned = \"A b\" }",
        WB_INVALID, "on_abandoned is not a kind"},
    {"unknown name in a group",
        "route \"x\" { url = \"http://h/\",\n retry = {\n  bas = \"1s\" } }",
        WB_INVALID,
        "c.lua:3: route \"x\": unknown name \"retry.bas\"; did you mean "
        "\"base\"?"},
    {"unknown name in a small group",
        "route \"x\" { url = \"http://h/\", batch = { count = 3 } }",
        WB_INVALID,
        "c.lua:1: route \"x\": unknown name \"batch.count\"; known are max, "
        "format"},
    {"first of several unknown names, in order",
        "route \"x\" { zz = 1, url = \"http://h/\", aa = 1 }", WB_INVALID,
        "unknown name \"aa\""},
    {"same field name elsewhere",
        "route \"a\" { url = \"http://h/\",\n timeout = \"5s\" }\n"
        "-- timeout = 3\nroute \"b\" {\n url = \"http://h/\", -- timeout = \n"
        " body = \"timeout = {\",\n timeout = 5 }",
        WB_INVALID,
        "c.lua:7: route \"b\": timeout wants a duration like \"30s\", not a "
        "number"},
    {"field of a shared table: line of the route",
        "local common = {\n  rate = \"fast\",\n  url = \"http://h/\" }\n\n"
        "route \"x\"(common)\nroute \"y\" { rate = 1 }",
        WB_INVALID,
        "c.lua:5: route \"x\": rate wants a whole number from 1 to 1000000, "
        "not text"},
    {"fields from elsewhere: line of the route",
        "local function r(k, f) route(k)(f) end\nlocal a = { tiemout = 1 }\n"
        "r(\"x\", a)",
        WB_INVALID, "c.lua:1: route \"x\": unknown name \"tiemout\""},
    {"route of a name made up",
        "local p = { \"a\" }\nroute(\"k.\" .. p[1])\n{\n url = 1 }", WB_INVALID,
        "c.lua:4: route \"k.a\": url wants text or a function"},
    {"comments, strings and braces on the way",
        "route \"x\" { --[==[ rate = { ]==]\n headers = { rate = \"rate = {\", "
        "[ [[a]] ] = '\\'rate =' },\n response = function(a) return { rate = "
        "1 } end,\n [\"rate\"] = 0 }",
        WB_INVALID, "c.lua:4: route \"x\": rate wants a whole number"},
    {"name put together: not taken from another group",
        "route \"x\" { url = \"http://h/\", retry = { [\"ba\" .. \"s\"] = 1 "
        "},\n"
        " breaker = {\n bas = 2 } }",
        WB_INVALID, "c.lua:1: route \"x\": unknown name \"retry.bas\""},
    {"called by pcall", "\npcall(route, \"X\")", WB_INVALID,
        "c.lua:2: route wants the kind it is for"},
    {"value without a name", "route \"x\" { \"http://h/\" }", WB_INVALID,
        "c.lua:1: route \"x\": a value without a name; write name = value"},
    {"no fields", "\nroute \"x\"", WB_INVALID,
        "c.lua:2: route \"x\" has no fields; write route \"x\" { … }"},
    {"fields are no table", "route \"x\" \"http://h/\"", WB_INVALID,
        "c.lua:1: route \"x\": wants a table of fields"},
    {"no url", "route \"x\" { timeout = \"1s\" }", WB_INVALID,
        "c.lua:1: route \"x\": no url; write url = \"https://…\""},
    {"route twice",
        "route \"x\" { url = \"http://h/\" }\nroute \"x\" { url = "
        "\"http://h/\" }",
        WB_INVALID,
        "c.lua:2: route \"x\" stands twice, first in line 1; take one out"},
    {"route name with capitals", "route \"Mail\" {}", WB_INVALID,
        "c.lua:1: route wants the kind it is for"},
    {"route name with star inside", "route \"a*b\" {}", WB_INVALID,
        "c.lua:1: route wants the kind it is for"},
    {"route without a name", "route {}", WB_INVALID,
        "c.lua:1: route wants the kind it is for"},
    {"url of another scheme", "route \"x\" {\n url = \"ftp://h/\" }",
        WB_INVALID,
        "c.lua:2: route \"x\": the url must begin with http:// or https://"},
    {"url with a user", "route \"x\" { url = \"http://u:p@h/\" }", WB_INVALID,
        "must not hold a user or password; use a header"},
    {"url with a space", "route \"x\" { url = \"http://h/a b\" }", WB_INVALID,
        "must be percent-encoded"},
    {"url with a fragment", "route \"x\" { url = \"http://h/#a\" }", WB_INVALID,
        "the url has a fragment, which is never sent; leave it out"},
    {"url with dots", "route \"x\" { url = \"http://h/a/../b\" }", WB_INVALID,
        "the url has \".\" or \"..\" as part of its path"},
    {"url with an open brace", "route \"x\" { url = \"http://h/{a\" }",
        WB_INVALID, "has a { without its pair"},
    {"url with a closing brace", "route \"x\" { url = \"http://h/a}\" }",
        WB_INVALID, "has a } without its pair"},
    {"url with an empty field", "route \"x\" { url = \"http://h/{}\" }",
        WB_INVALID, "the url has {}, which names no field"},
    {"url with a strange field", "route \"x\" { url = \"http://h/{a b}\" }",
        WB_INVALID, "the url has {a b}, which names no field"},
    {"field in the host", "route \"x\" { url = \"http://{h}/\" }", WB_INVALID,
        "the url has {h} before its path; scheme and host cannot come from a "
        "payload"},
    {"field in the scheme", "route \"x\" { url = \"{s}://h/\" }", WB_INVALID,
        "the url has {s} before its path"},
    {"field behind the port", "route \"x\" { url = \"http://h:80{p}/\" }",
        WB_INVALID, "the url has {p} before its path"},
    {"url of no type", "route \"x\" { url = 3 }", WB_INVALID,
        "c.lua:1: route \"x\": url wants text or a function, not a number"},
    {"empty url", "route \"x\" { url = \"\" }", WB_INVALID, "url is empty"},
    {"method", "route \"x\" { url = \"http://h/\",\n method = \"HEAD\" }",
        WB_INVALID,
        "c.lua:2: route \"x\": method wants \"POST\", \"PUT\", \"PATCH\", "
        "\"DELETE\" or \"GET\", not \"HEAD\""},
    {"client_cert alone",
        "route \"x\" { url = \"https://h/\",\n client_cert = \"c.pem\" }",
        WB_INVALID,
        "c.lua:2: route \"x\": client_cert and client_key belong together; "
        "name both"},
    {"proxy of another protocol",
        "route \"x\" { url = \"http://h/\",\n proxy = \"socks5://h:1\" }",
        WB_INVALID,
        "c.lua:2: route \"x\": the proxy must begin with http:// or https://"},
    {"proxy with a password in the text",
        "route \"x\" { url = \"http://h/\", proxy = \"http://a:b@h:1\" }",
        WB_INVALID, "the proxy has a password, which is a secret; write"},
    {"proxy that is a function",
        "route \"x\" { url = \"http://h/\", proxy = function() end }",
        WB_INVALID,
        "proxy wants text, env \"NAME\" or file \"PATH\", not a function"},
    {"transport", "route \"x\" { transport = \"smtp\" }", WB_INVALID,
        "transport wants \"http\", \"exec\" or \"file\", not \"smtp\""},
    {"transport of C", "route \"x\" { transport = \"callback\" }", WB_INVALID,
        "transport wants \"http\", \"exec\" or \"file\""},
    {"exec without argv", "route \"x\" { transport = \"exec\" }", WB_INVALID,
        "no argv; write argv = {"},
    {"file without path", "route \"x\" { transport = \"file\" }", WB_INVALID,
        "no path; write path ="},
    {"argv without exec",
        "route \"x\" { url = \"http://h/\",\nargv = {\"a\"} }", WB_INVALID,
        "c.lua:2: route \"x\": argv is for transport = \"exec\", this is "
        "\"http\""},
    {"url with exec",
        "route \"x\" { transport = \"exec\", argv = {\"a\"},\n url = "
        "\"http://h/\" }",
        WB_INVALID,
        "c.lua:2: route \"x\": url is for transport = \"http\", this is "
        "\"exec\""},
    {"batch with file",
        "route \"x\" { transport = \"file\", path = \"p\", batch = {max = 2} }",
        WB_INVALID, "batch is for transport = \"http\", this is \"file\""},
    {"empty argv", "route \"x\" { transport = \"exec\", argv = {} }",
        WB_INVALID, "argv wants a list like { \"a\", \"b\" }, not a table"},
    {"argv of numbers", "route \"x\" { transport = \"exec\", argv = {1} }",
        WB_INVALID, "argv wants a list like { \"a\", \"b\" }, not a number"},
    {"secret in argv",
        "route \"x\" { transport = \"exec\", argv = { env \"CANARY\" } }",
        WB_INVALID, "argv wants a list like { \"a\", \"b\" }, not a secret"},
    {"zero byte in path",
        "route \"x\" { transport = \"file\", path = \"a\\0b\" }", WB_INVALID,
        "path is empty, or has a zero byte"},
    {"header with a line end",
        "route \"x\" { url = \"http://h/\", headers = {\n  [\"X-A\"] = "
        "\"a\\r\\nB: c\" } }",
        WB_INVALID,
        "c.lua:2: route \"x\": headers.X-A: header 1 has white space at an end "
        "of its value"},
    {"header with a second header in it",
        "route \"x\" { url = \"http://h/\", headers = { [\"X-A\"] = "
        "\"a\\nB: c\" } }",
        WB_INVALID, "headers.X-A: header has a second line"},
    {"header name with a second header in it",
        "route \"x\" { url = \"http://h/\", headers = { [\"A: b\\nC\"] = "
        "\"d\" } }",
        WB_INVALID, "header has a second line"},
    {"header name with a space",
        "route \"x\" { url = \"http://h/\", headers = { [\"X A\"] = \"a\" } }",
        WB_INVALID, "headers.X A: header 1 is not \"Name: value\""},
    {"header of ours",
        "route \"x\" { url = \"http://h/\", headers = { host = \"a\" } }",
        WB_INVALID, "headers.host: header host: written by Waybill"},
    {"header of a number",
        "route \"x\" { url = \"http://h/\", headers = {\n a = 1 } }",
        WB_INVALID,
        "c.lua:2: route \"x\": headers.a wants text or env \"NAME\", not a "
        "number"},
    {"headers of no table", "route \"x\" { url = \"http://h/\", headers = 1 }",
        WB_INVALID,
        "headers wants a table like { [\"X-Name\"] = \"text\" }, not a number"},
    {"secret as text",
        "route \"x\" { url = \"http://h/\", secret = \"whsec_AAAA\" }",
        WB_INVALID, "secret wants env \"NAME\" or file \"PATH\", not text"},
    {"secret that is not there",
        "route \"x\" {\n url = \"http://h/\" }\nlocal s = env \"NO_SUCH\"",
        WB_UNAVAILABLE,
        "c.lua:3: environment variable NO_SUCH is not there or empty; export "
        "it"},
    {"list of delays with a base",
        "route \"x\" { url = \"http://h/\",\n retry = { \"1s\", base = \"2s\" "
        "} }",
        WB_INVALID, "a list of delays goes without base, cap, factor and"},
    {"list of delays with a hole",
        "route \"x\" { url = \"http://h/\", retry = { \"1s\", [3] = \"2s\" } }",
        WB_INVALID, "retry: a list of delays has a hole"},
    {"list of delays with a number",
        "route \"x\" { url = \"http://h/\", retry = { \"1s\", 5 } }",
        WB_INVALID, "retry.delays wants a duration like \"30s\", not a number"},
    {"list in a table that has none",
        "route \"x\" { url = \"http://h/\", breaker = { \"1s\" } }", WB_INVALID,
        "a value without a name"},
    {"secret that is empty", "local s = env \"EMPTY\"", WB_UNAVAILABLE,
        "environment variable EMPTY is not there or empty"},
    {"secret file that is not there", "\nlocal s = file \"no/such\"",
        WB_UNAVAILABLE,
        "c.lua:2: file no/such is not there or empty; one line with the "
        "secret belongs there"},
    {"secret file that is a folder", "local s = file \"/\"", WB_UNAVAILABLE,
        "c.lua:1: "},
    {"key too short",
        "route \"x\" { url = \"http://h/\",\n secret = env \"SHORT\" }",
        WB_INVALID,
        "c.lua:2: route \"x\": secret: a key has 24 to 64 bytes, this one has "
        "23"},
    {"key too long",
        "route \"x\" { url = \"http://h/\", secret = env \"LONG\" }",
        WB_INVALID, "a key has 24 to 64 bytes, this one has 67"},
    {"key far too long",
        "route \"x\" { url = \"http://h/\", secret = env \"HUGE\" }",
        WB_INVALID, "secret: what stands behind whsec_ is no key in base64"},
    {"key of no base64",
        "route \"x\" { url = \"http://h/\",\nsecrets = { env \"KEY\",\n "
        "env \"BAD64\" } }",
        WB_INVALID,
        "c.lua:2: route \"x\": secrets: what stands behind whsec_ is no key in "
        "base64"},
    {"secret and secrets",
        "route \"x\" { url = \"http://h/\", secret = env \"KEY\", secrets = { "
        "env \"KEY\" } }",
        WB_INVALID, "secret and secrets; keep one of them"},
    {"env without a name", "local x = env(3)", WB_INVALID,
        "c.lua:1: env wants a name, as in env \"NAME\""},
    {"env with a strange default", "local x = env(\"A\", {})", WB_INVALID,
        "env takes a text as default, or false"},
    {"duration without unit",
        "route \"x\" { url = \"http://h/\", timeout = \"30\" }", WB_INVALID,
        "timeout: \"30\" is no duration; write it like 500ms, 30s"},
    {"duration of nothing",
        "route \"x\" { url = \"http://h/\", timeout = \"0\" }", WB_INVALID,
        "timeout is too small; 1 ms at least"},
    {"duration too long",
        "route \"x\" { url = \"http://h/\", timeout = \"2d\" }", WB_INVALID,
        "timeout is too large; 86400000 ms at most"},
    {"size", "outbox {\n max_payload = \"1x\" }", WB_INVALID,
        "c.lua:2: outbox: max_payload: \"1x\" is no size; write it like"},
    {"size too large",
        "route \"x\" { url = \"http://h/\", max_reply = \"17m\" }", WB_INVALID,
        "max_reply is too large; 16777216 bytes at most"},
    {"count of nothing", "route \"x\" { url = \"http://h/\", concurrency = 0 }",
        WB_INVALID, "concurrency wants a whole number from 1 to 1000, not 0"},
    {"count with a part", "route \"x\" { url = \"http://h/\", rate = 1.5 }",
        WB_INVALID,
        "rate wants a whole number from 1 to 1000000, not a number"},
    {"count as text", "route \"x\" { url = \"http://h/\", rate = \"8\" }",
        WB_INVALID, "rate wants a whole number from 1 to 1000000, not text"},
    {"bool as text", "route \"x\" { url = \"http://h/\", follow = \"yes\" }",
        WB_INVALID, "follow wants true or false, not text"},
    {"response as text",
        "route \"x\" { url = \"http://h/\", response = \"a\" }", WB_INVALID,
        "response wants a function, not text"},
    {"body that names nothing",
        "route \"x\" { url = \"http://h/\", body = \"a..b\" }", WB_INVALID,
        "body wants the name of a field of the payload, or a function"},
    {"retry as text", "route \"x\" { url = \"http://h/\", retry = \"no\" }",
        WB_INVALID, "retry wants a table, not text"},
    {"immediate with base",
        "route \"x\" { url = \"http://h/\", retry = {\n immediate = true,\n "
        "base = \"1s\" } }",
        WB_INVALID,
        "c.lua:2: route \"x\": retry.immediate goes without base, cap and "
        "factor"},
    {"cap below base",
        "route \"x\" { url = \"http://h/\", retry = { base = \"2m\",\n cap = "
        "\"1m\" } }",
        WB_INVALID, "c.lua:2: route \"x\": retry.cap is less than retry.base"},
    {"base above the standard cap",
        "route \"x\" { url = \"http://h/\", retry = { base = \"7h\" } }",
        WB_INVALID, "retry.cap is less than retry.base"},
    {"attempts",
        "route \"x\" { url = \"http://h/\", retry = { attempts = 0 } }",
        WB_INVALID,
        "retry.attempts wants a whole number from 1 to 1000, not 0"},
    {"batch of 65",
        "route \"x\" { url = \"http://h/\", batch = {\n max = 65 } }",
        WB_INVALID,
        "c.lua:2: route \"x\": batch.max wants a whole number from 1 to 64, "
        "not 65"},
    {"batch format",
        "route \"x\" { url = \"http://h/\", batch = { format = \"xml\" } }",
        WB_INVALID, "batch.format wants \"array\" or \"ndjson\", not \"xml\""},
    {"batch to a url of the message",
        "route \"x\" { url = \"http://h/{id}\",\n batch = { max = 2 } }",
        WB_INVALID,
        "c.lua:2: route \"x\": a batch goes to one url; this url depends on "
        "the message"},
    {"retries longer than ids are kept (O-4)",
        "outbox { keep_delivered = \"5h\" }\nroute \"x\" { url = \"http://h/\" "
        "}",
        WB_INVALID,
        "c.lua:2: route \"x\": its retries may take 9 h, but ids are kept for "
        "5 h; fewer retry.attempts, less retry.cap, or more "
        "outbox.keep_delivered"},
    {"retries longer than a week",
        "route \"x\" { url = \"http://h/\", retry = { attempts = 100 } }",
        WB_INVALID, "but ids are kept for 168 h"},
    {"lease below twice the timeout",
        "relay {\n lease = \"59s\" }\nroute \"x\" { url = \"http://h/\" }",
        WB_INVALID,
        "c.lua:2: relay: lease is less than twice the timeout of route \"x\" "
        "(30000 ms); make it at least 60000ms"},
    {"unknown name in relay", "relay { laese = \"60s\" }", WB_INVALID,
        "c.lua:1: relay: unknown name \"laese\"; did you mean \"lease\"?"},
    {"outbox twice", "outbox {}\noutbox {}", WB_INVALID,
        "c.lua:2: outbox: stands twice, first in line 1; take one out"},
    {"outbox of no table", "outbox(3)", WB_INVALID,
        "c.lua:1: outbox: wants a table of fields"},
    {"mistyped function", "\n\nruote \"x\" {}", WB_INVALID,
        "c.lua:3: unknown name \"ruote\"; did you mean \"route\"?"},
    {"name of nothing", "local x = frobnicate", WB_INVALID,
        "c.lua:1: unknown name \"frobnicate\"; a sandbox has no more than"},
    {"mistyped ready", "\nraedy = function() end", WB_INVALID,
        "c.lua:2: \"raedy\" cannot be set; did you mean \"ready\"?; a value of "
        "your own is a local"},
    {"variable that is no local", "x = 1", WB_INVALID,
        "c.lua:1: \"x\" cannot be set; a value of your own is a local"},
    {"ready of no type", "ready = true", WB_INVALID,
        "c.lua:1: ready wants a function, not a boolean"},
    {"syntax", "route \"x\" {\n url = \"http://h/\"\n timeout = 1 }",
        WB_INVALID,
        "c.lua:3: '}' expected (to close '{' at line 1) near 'timeout'"},
    {"run-time error", "local x = nil\nlocal y = x.z", WB_INVALID,
        "c.lua:2: attempt to index a nil value (local 'x')"},
    {"own error", "error(\"this is mine\")", WB_INVALID,
        "c.lua:1: this is mine"},
    {"error that is no text", "error({})", WB_INVALID,
        "c.lua: failed with a table in place of an error text"},
    {"a caught mistake is still one",
        "pcall(function()\n route \"x\" { nonsense = 1 } end)", WB_INVALID,
        "c.lua:2: route \"x\": unknown name \"nonsense\""},
    {"tally at the top", "tally \"x\"", WB_INVALID,
        "c.lua:1: tally is for response functions"},
};

TEST(test_config_mistakes__each_of_the_table__file_line_and_fix)
{
    int bad = 0;

    set_variables();
    for (size_t i = 0; i < WB_COUNT(mistakes); i++) {
        enum wb_status status = read_text(mistakes[i].text);

        if (status != mistakes[i].status ||
            strstr(err.msg, mistakes[i].says) == NULL ||
            strncmp(err.msg, "c.lua:", 6) != 0) {
            bad++;
            print_error("%s: %s: %s\n wanted: %s\n", mistakes[i].name,
                wb_status_name(status), err.msg, mistakes[i].says);
        }
        CHECK_INT(status, err.status);
        close_config();
    }
    CHECK_INT(0, bad);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_config_mistakes__each_of_the_table__file_line_and_fix),
    };
    return RUN_ALL(tests);
}
