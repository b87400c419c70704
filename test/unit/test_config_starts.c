/* test_config_starts.c - what a mistake, or something that is missing, stops:
 * one route, or all of them, or nothing. */
#include "test_config.h"

/* What is missing outside of the file stops one route, not the others. */
static void
test_config_starts__environment_of_a_route_missing__that_route_alone_says_why(
    void **state)
{
    static const char text[] =
        "local token = env \"NO_SUCH\"\n"
        "local function auth() return \"http://h/\" .. token end\n"
        "route \"a\" { url = \"http://h/\", secret = env \"NO_SUCH\" }\n"
        "route \"b\" { url = \"http://h/\", headers = { A = \"x\" .. token } "
        "}\n"
        "route \"c\" { url = function() return auth() end }\n"
        "route \"d\" { url = \"http://h/\", ca_file = \"none.pem\" }\n"
        "route \"e\" { transport = \"exec\", argv = { \"no-such\" } }\n"
        "route \"f\" { transport = \"exec\", argv = { \"./c.lua\" } }\n"
        "route \"g\" { url = \"http://h/\", secret = file \"/none\" }\n"
        "route \"h\" { url = \"http://h/\", secret = file \".\" }\n"
        "route \"i\" { url = \"http://good/\" }\n"
        "route \"j\" { transport = \"exec\", argv = { \"true\" } }\n";
    static const char *const says[] = {
        "c.lua:3: route \"a\": environment variable NO_SUCH is not there or",
        "c.lua:4: route \"b\": environment variable NO_SUCH is not there",
        "c.lua:5: route \"c\": environment variable NO_SUCH is not there",
        "c.lua:6: route \"d\": cannot read none.pem: No such file",
        "c.lua:7: route \"e\": command \"no-such\" is in no folder of PATH",
        "c.lua:8: route \"f\": command \"./c.lua\" cannot be executed",
        "c.lua:9: route \"g\": file /none is not there or empty",
        "c.lua:10: route \"h\": ",
    };

    (void)state;
    set_variables();
    READ(text);
    for (size_t i = 0; i < WB_COUNT(says); i++) {
        CHECK(route_at(i)->transport == NULL && route_at(i)->failed != NULL);
        CHECK_HAS(says[i], route_at(i)->failed);
    }
    CHECK(route_at(8)->transport != NULL && route_at(8)->failed == NULL);
    CHECK(route_at(9)->transport != NULL && route_at(9)->failed == NULL);
    CHECK_INT(2, n_made);
    close_config();
}

TEST(test_config_starts__secret_that_is_missing_and_in_no_route__error)
{
    set_variables();
    CHECK_STATUS(
        UNAVAILABLE, read_text("route \"a\" { url = \"http://h/\" }\n"
                               "local token = env \"NO_SUCH\"\n"
                               "ready = function() return token ~= nil end"));
    CHECK_HAS("c.lua:2: environment variable NO_SUCH is not", err.msg);
}

/* ---- settings alone, for programs that accept messages ------------------- */

static enum wb_status
read_settings(const char *text)
{
    test_write("c.lua", text, strlen(text));
    memset(&err, 0, sizeof(err));
    config = NULL;
    n_made = 0;
    return wb__config_read_settings(&config, "c.lua", ENV, &err);
}

TEST(
    test_config_starts__mistake_outside_of_outbox__settings_are_read_all_the_same)
{
    static const char *const texts[] = {
        "outbox { max_payload = \"1k\" }\nroute \"a\" { ulr = 1 }",
        "route \"a\" { ulr = 1 }\noutbox { max_payload = \"1k\" }",
        "route \"a\"\nrelay { lase = 1 }\noutbox { max_payload = \"1k\" }",
        "outbox { max_payload = \"1k\" }\nruote \"a\" {}",
        "outbox { max_payload = \"1k\" }\nerror(\"no\")",
    };

    for (size_t i = 0; i < WB_COUNT(texts); i++) {
        CHECK_OK(read_settings(texts[i]), err);
        CHECK_INT(1024, wb_config_outbox(config)->max_payload_bytes);
        close_config();
    }
    CHECK_OK(read_settings("route \"a\" {"), err);
    CHECK_INT(1 << 30, wb_config_outbox(config)->max_payload_bytes);
    close_config();
    CHECK_STATUS(INVALID, read_settings("outbox { max_paylod = \"1k\" }"));
    CHECK_STATUS(INVALID, read_settings("outbox {}\noutbox { max_rows = 1 }"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_config_starts__environment_of_a_route_missing__that_route_alone_says_why),
        RUN(test_config_starts__secret_that_is_missing_and_in_no_route__error),
        RUN(test_config_starts__mistake_outside_of_outbox__settings_are_read_all_the_same),
    };
    return RUN_ALL(tests);
}
