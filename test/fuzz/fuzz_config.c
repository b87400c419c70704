/* fuzz_config.c - any text as a configuration: an error or routes, in bounded
 * time and memory, without a secret in it. Then its hooks run on a
 * message. */
#define _GNU_SOURCE /* memmem */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "script/script.h"
#include "waybill/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[64];

static void
remove_input(void)
{
    (void)unlink(path);
}

/* Replaces the function of the relay. */
void
wb_tally_add(struct wb_tally *tally, const char *name, uint64_t n)
{
    (void)tally;
    if (name[0] == '\0' || n > INT64_MAX)
        abort();
}

static const char *
path_of_input(void)
{
    if (path[0] == '\0') {
        (void)snprintf(path, sizeof(path), "/dev/shm/fuzz_config.XXXXXX");
        if (mkstemp(path) < 0 || atexit(remove_input) != 0)
            abort();
        (void)setenv("CANARY", "canary-sings-loud-and-clear", 1);
    }
    return path;
}

static void
run_hooks(const struct wb_route *r)
{
    const struct wb_claimed m = {.kind = WB_LIT("k"),
        .payload = WB_LIT("{\"a\":{\"b\":[1,null,\"x\"]},\"id\":\"i/d\"}")};
    struct wb_request request = {.body = m.payload};
    struct wb_result result = {.outcome = WB_DELIVERED,
        .status = 200,
        .body = WB_LIT("{\"ok\":false,\"error\":\"e\"}")};
    const struct wb_claimed *batch[] = {&m};
    struct wb_result each = result;
    char scope[256];
    void *token = NULL;

    if (r->scope_of != NULL &&
        r->scope_of(r->ctx, &m, scope, sizeof(scope)) == WB_OK &&
        strlen(scope) > 255)
        abort();
    if (r->results != NULL)
        (void)(r->results(r->ctx, batch, 1, &result, &each, NULL) == WB_OK);
    if (r->build != NULL &&
        r->build(r->ctx, &m, &request, &token, NULL) == WB_OK)
        r->release(r->ctx, token);
    if (r->judge != NULL)
        r->judge(r->ctx, &m, &result, NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wb_config *config = NULL;
    struct wb_err err = {0};
    FILE *f = fopen(path_of_input(), "wb");
    size_t n = 0;
    const struct wb_route *routes;

    if (f == NULL || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        abort();
    if (wb_config_open(&config, path_of_input(), NULL, NULL, &err) != WB_OK) {
        /* ... unless the input itself has the word. */
        if (config != NULL || (strstr(err.msg, "canary-") != NULL &&
                                  memmem(data, size, "canary-", 7) == NULL))
            abort();
        return 0;
    }
    routes = wb_config_routes(config, &n);
    for (size_t i = 0; i < n; i++)
        run_hooks(&routes[i]);
    (void)wb_config_ready(config, &err);
    wb_config_close(config);
    return 0;
}
