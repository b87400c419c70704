/* test_config_example.c - examples/code-review.lua: five real kinds, and every
 * branch of accepted_edit's rule. */
#include <jansson.h>

#include "test_config.h"

static void
read_example(const char *url, const char *token)
{
    char *text = test_read(test_source("examples/code-review.lua"), NULL);

    (void)unsetenv("CODE_REVIEW_URL");
    (void)unsetenv("CODE_REVIEW_TOKEN");
    if (url != NULL)
        (void)setenv("CODE_REVIEW_URL", url, 1);
    if (token != NULL)
        (void)setenv("CODE_REVIEW_TOKEN", token, 1);
    READ(text);
    free(text);
}

static const struct wb_route *
route_of(const char *kind)
{
    size_t n;
    const struct wb_route *routes = wb_config_routes(config, &n);

    CHECK_INT(5, n);
    for (size_t i = 0; i < n; i++)
        if (strcmp(routes[i].kind, kind) == 0)
            return &routes[i];
    fail_msg("no route %s", kind);
    return NULL;
}

static const struct {
    const char *kind, *payload, *url, *body;
} requests[] = {
    {"trajectory", "{\"pr_review_id\":\"p/1\",\"steps\":[{\"n\":1,\"b\":0.1}]}",
        "http://h:1/api/reviews/p%2F1/trajectory", "[{\"n\":1,\"b\":0.1}]"},
    {"review_metrics", "{\"review_id\":\"r 1\",\"req\":{\"z\":1,\"a\":2}}",
        "http://h:1/api/reviews/r%201/metrics", "{\"z\":1,\"a\":2}"},
    {"accepted_edit", "{\"edit\":{ }}", "http://h:1/api/accepted-edits",
        "{\"edit\":{ }}"},
    {"mcp_query", "{\"q\":1}", "http://h:1/api/dashboard/mcp-query",
        "{\"q\":1}"},
    {"imported_reviews", "[1]", "http://h:1/api/reviews/import", "[1]"},
};

TEST(test_config_example__each_kind__url_and_body)
{
    read_example("http://h:1/api/", "t0ken");
    CHECK(wb_config_ready(config, &err));
    for (size_t i = 0; i < WB_COUNT(requests); i++) {
        const struct wb_route *r = route_of(requests[i].kind);
        const struct made *m = (const struct made *)(void *)r->transport;
        struct built b = build_with(r, requests[i].payload);

        CHECK_OK(b.status, err);
        CHECK_TEXT(requests[i].url, b.url[0] != '\0' ? b.url : m->url);
        CHECK_TEXT(requests[i].body, b.body);
        CHECK_TEXT("Authorization: Bearer t0ken\n", m->headers);
        CHECK_TEXT("POST", m->method);
    }
    close_config();
}

TEST(test_config_example__payload_without_its_fields__rejected)
{
    read_example("http://h", "t");
    CHECK_INT(WB_INVALID,
        build_with(route_of("trajectory"), "{\"pr_review_id\":\"1\"}").status);
    CHECK_TEXT("body: field steps is not in the payload", err.msg);
    CHECK_INT(WB_INVALID,
        build_with(route_of("review_metrics"), "{\"req\":1}").status);
    CHECK_TEXT("url: field review_id is not in the payload", err.msg);
    close_config();
}

#define RULE    "{\"rule_ids\":[\"r1\"]}"
#define NO_RULE "{\"rule_ids\":[]}"

static const struct {
    const char *name, *payload, *reply;
    enum wb_outcome outcome;
    const char *error, *tally;
} edits[] = {
    {"all is well", RULE,
        "{\"acceptance_recorded\":true,\"team_id\":\"t\","
        "\"observations_inserted\":1}",
        WB_DELIVERED, "", "uploaded=1 launch_grade=1"},
    {"not recorded", RULE,
        "{\"acceptance_recorded\":false,\"error\":\"no such edit\"}",
        WB_REJECTED, "no such edit", ""},
    {"not recorded, and no word why", RULE, "{\"acceptance_recorded\":false}",
        WB_REJECTED, "the edit was not recorded", ""},
    {"not recorded, null error", RULE,
        "{\"acceptance_recorded\":false,\"error\":null}", WB_REJECTED,
        "the edit was not recorded", ""},
    {"team_id is null", RULE, "{\"team_id\":null,\"observations_inserted\":1}",
        WB_DELIVERED, "", "uploaded=1 missing_team_workspace=1"},
    {"team_id is absent", RULE, "{\"observations_inserted\":1}", WB_DELIVERED,
        "", "uploaded=1 missing_team_workspace=1"},
    {"no rule ids", NO_RULE, "{\"team_id\":1,\"observations_inserted\":0}",
        WB_DELIVERED, "", "uploaded=1 missing_rule_ids=1"},
    {"blank rule ids", "{\"rule_ids\":[\"\",\" \\t\\n\",null]}",
        "{\"team_id\":1,\"observations_inserted\":0}", WB_DELIVERED, "",
        "uploaded=1 missing_rule_ids=1"},
    {"rule ids null", "{\"rule_ids\":null}", "{\"team_id\":1}", WB_DELIVERED,
        "", "uploaded=1 missing_rule_ids=1"},
    {"rule ids absent", "{}", "{\"team_id\":1}", WB_DELIVERED, "",
        "uploaded=1 missing_rule_ids=1"},
    {"rule ids no list", "{\"rule_ids\":\"r1\"}", "{\"team_id\":1}",
        WB_DELIVERED, "", "uploaded=1 missing_rule_ids=1"},
    {"one of them filled", "{\"rule_ids\":[null,\" \",\"r\"]}",
        "{\"team_id\":1,\"observations_inserted\":2}", WB_DELIVERED, "",
        "uploaded=1 launch_grade=1"},
    {"no observation linked", RULE,
        "{\"team_id\":1,\"observations_inserted\":0}", WB_DELIVERED, "",
        "uploaded=1 unlinked_rule_observations=1"},
    {"observations null", RULE,
        "{\"team_id\":1,\"observations_inserted\":null}", WB_DELIVERED, "",
        "uploaded=1 launch_grade=1"},
    {"observations absent", RULE, "{\"team_id\":1}", WB_DELIVERED, "",
        "uploaded=1 launch_grade=1"},
    {"no team and nothing linked", RULE, "{\"observations_inserted\":0}",
        WB_DELIVERED, "",
        "uploaded=1 missing_team_workspace=1 unlinked_rule_observations=1"},
    {"no team and no rules", NO_RULE, "{\"observations_inserted\":0}",
        WB_DELIVERED, "",
        "uploaded=1 missing_team_workspace=1 missing_rule_ids=1"},
    {"empty reply", RULE, "", WB_DELIVERED, "",
        "uploaded=1 missing_team_workspace=1"},
    {"reply is a list", RULE, "[1]", WB_DELIVERED, "",
        "uploaded=1 missing_team_workspace=1"},
    {"reply is a text", RULE, "\"ok\"", WB_DELIVERED, "",
        "uploaded=1 missing_team_workspace=1"},
};

TEST(test_config_example__accepted_edit__every_branch)
{
    read_example("http://h", "t");
    for (size_t i = 0; i < WB_COUNT(edits); i++) {
        struct judged j = judge_with(
            route_of("accepted_edit"), edits[i].payload, 200, edits[i].reply);

        if (j.outcome != edits[i].outcome ||
            strcmp(j.error, edits[i].error) != 0 ||
            strcmp(j.tally, edits[i].tally) != 0)
            fail_msg("%s: outcome %d error \"%s\" tally \"%s\"", edits[i].name,
                (int)j.outcome, j.error, j.tally);
    }
    close_config();
}

TEST(test_config_example__payloads_of_the_demo__are_built)
{
    char *text = test_read(test_source("examples/events.ndjson"), NULL);
    struct wb_slice rest = wb_slice(text), line;
    int n = 0;

    read_example("http://h", "t");
    while (wb__cut(&rest, '\n', &line)) {
        json_t *event = json_loadb(line.ptr, line.len, 0, NULL);
        char *payload = json_dumps(json_object_get(event, "payload"), 0);

        CHECK_OK(build_with(route_of(json_string_value(
                                json_object_get(event, "kind"))),
                     payload)
                     .status,
            err);
        free(payload);
        json_decref(event);
        n++;
    }
    CHECK(n > 4);
    close_config();
    free(text);
}

TEST(test_config_example__no_token__not_ready)
{
    read_example(NULL, NULL);
    CHECK(!wb_config_ready(config, &err));
    CHECK_TEXT("not logged in: CODE_REVIEW_TOKEN is not set", err.msg);
    CHECK_TEXT("", made[0].headers);
    close_config();
    read_example("http://h", "");
    CHECK(!wb_config_ready(config, NULL));
    close_config();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_config_example__each_kind__url_and_body),
        RUN(test_config_example__payload_without_its_fields__rejected),
        RUN(test_config_example__accepted_edit__every_branch),
        RUN(test_config_example__payloads_of_the_demo__are_built),
        RUN(test_config_example__no_token__not_ready),
    };
    return RUN_ALL(tests);
}
