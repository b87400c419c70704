/* fuzz_gate.c - what clients and operators give the gateway: header lines, a
 * body, lists of options. Nothing is read past its end, names fit, and one
 * request has one fingerprint. The first NUL ends the header lines. */
#include <assert.h>
#include <stdlib.h>

#include "gate/gate_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
try_request(struct wb_slice lines, struct wb_slice body)
{
    static const struct wb__gate_opts places[] = {{.env = NULL},
        {.identity_header = {"X-Tenant", 8}}, {.identity_cookie = {"sid", 3}},
        {.identity_claim = {"iss,sub", 7}}};
    static const char *const rules[] = {
        "raw", "none", "json", "json:without a,b"};
    const struct wb__http_head head = {.method = WB_LIT("POST"),
        .path = WB_LIT("/"),
        .host = WB_LIT("H:1"),
        .headers = lines};
    struct wb__name name;

    for (size_t i = 0; i < WB_COUNT(places); i++)
        if (wb__identity_read(&places[i], lines, &name) == WB__FOUND_ONE)
            assert(name.len > 0 && name.len <= 255);
    if (wb__rule_read_key(lines, WB_LIT("Idempotency-Key"), &name) ==
        WB__FOUND_ONE)
        assert(name.len > 0 && name.len <= 255);
    for (size_t i = 0; i < WB_COUNT(rules); i++) {
        struct wb__fingerprint_rule rule;
        struct wb_fingerprint one, two;

        if (wb__fingerprint_read(&rule, wb_slice(rules[i]), NULL) != WB_OK ||
            wb__fingerprint_of(&rule, wb_env_system(), &head, head.path, body,
                &one) != WB_OK ||
            wb__fingerprint_of(
                &rule, wb_env_system(), &head, head.path, body, &two) != WB_OK)
            abort();
        assert(memcmp(&one, &two, sizeof(one)) == 0);
    }
}

static void
try_options(struct wb_slice s)
{
    const struct wb__gate_opts o[] = {
        {.methods = s}, {.paths = s}, {.keep = s}, {.key_header = s}};
    const struct wb__http_head head = {.method = s, .path = s};
    struct wb__policy policy;

    for (size_t i = 0; i < WB_COUNT(o); i++)
        if (wb__policy_read(&policy, &o[i], NULL) == WB_OK)
            (void)wb__policy_guard(&policy, &head);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* its own block, so that one byte past the end is seen */
    char *copy = malloc(size == 0 ? 1 : size);
    struct wb_slice body = {copy, size}, lines = {copy, 0};

    if (copy == NULL)
        return 0;
    if (size > 0)
        memcpy(copy, data, size);
    (void)wb__cut(&body, '\0', &lines);
    if (wb__headers_check(lines, NULL) == WB_OK)
        try_request(lines, body);
    try_options(lines);
    free(copy);
    return 0;
}
