/* test_config.h - what the tests of src/script share: a file to read, and
 * transports that only keep what they were made of. */
#ifndef WB_TEST_CONFIG_H
#define WB_TEST_CONFIG_H

#include <stdio.h>

#include "script/script.h"
#include "support.h"
#include "waybill/config.h"

/* ---- transports that do nothing ---------------------------------------- */

struct made {
    struct wb_transport transport;
    struct wb_http_opts opts; /* its slices are copied below */
    char url[512], method[16], headers[1024], ca_file[256], path[256];
    char secret[8][65];
    size_t secret_len[8];
    char argv[8][64];
    size_t argc;
    bool freed;
};
static struct made made[16];
static size_t n_made;
static bool http_open;
static enum wb_status make_fails; /* what the constructors return */

static char loop_object;
#define LOOP ((struct uv_loop_s *)(void *)&loop_object)

static void
made_free(struct wb_transport *t)
{
    ((struct made *)(void *)t)->freed = true;
}

static void
copy_text(char *to, size_t size, struct wb_slice from)
{
    CHECK(from.len < size);
    if (from.len > 0)
        memcpy(to, from.ptr, from.len);
    to[from.len] = '\0';
}

static struct made *
make(struct wb_transport **out, const char *name)
{
    struct made *m = &made[n_made++];

    CHECK(n_made <= WB_COUNT(made));
    memset(m, 0, sizeof(*m));
    m->transport.name = name;
    m->transport.free = made_free;
    *out = &m->transport;
    return m;
}

enum wb_status
wb_http_open(struct wb_http **out, const struct wb_env *env,
    struct uv_loop_s *loop, struct wb_err *err)
{
    (void)err;
    CHECK(env == ENV && loop == LOOP && !http_open);
    http_open = true;
    *out = (struct wb_http *)(void *)&http_open;
    return WB_OK;
}

void
wb_http_close(struct wb_http *http)
{
    CHECK(http == (struct wb_http *)(void *)&http_open && http_open);
    http_open = false;
}

enum wb_status
wb_http_new(struct wb_transport **out, struct wb_http *http,
    const struct wb_http_opts *opts, struct wb_err *err)
{
    struct made *m;

    CHECK(http != NULL && http_open);
    if (make_fails != WB_OK)
        return wb__fail(err, make_fails, 0, "made to fail");
    m = make(out, "http");
    m->opts = *opts;
    copy_text(m->url, sizeof(m->url), opts->url);
    copy_text(m->method, sizeof(m->method), opts->method);
    copy_text(m->headers, sizeof(m->headers), opts->headers);
    copy_text(m->ca_file, sizeof(m->ca_file), opts->ca_file);
    for (size_t i = 0; i < opts->n_secrets; i++) {
        copy_text(m->secret[i], sizeof(m->secret[i]), opts->secrets[i]);
        m->secret_len[i] = opts->secrets[i].len;
    }
    return WB_OK;
}

enum wb_status
wb_exec_new(struct wb_transport **out, const struct wb_env *env,
    struct uv_loop_s *loop, const char *const *argv, struct wb_err *err)
{
    struct made *m = make(out, "exec");

    (void)err;
    CHECK(env == ENV && loop == LOOP);
    for (; argv[m->argc] != NULL; m->argc++)
        copy_text(
            m->argv[m->argc], sizeof(m->argv[0]), wb_slice(argv[m->argc]));
    return WB_OK;
}

enum wb_status
wb_file_new(struct wb_transport **out, const struct wb_env *env,
    struct uv_loop_s *loop, const char *path, struct wb_err *err)
{
    struct made *m = make(out, "file");

    (void)err;
    CHECK(env == ENV && loop == LOOP);
    copy_text(m->path, sizeof(m->path), wb_slice(path));
    return WB_OK;
}

/* ---- tallies: "name=n name=n" in the order reported -------------------- */

struct wb_tally {
    char text[512];
};

void
wb_tally_add(struct wb_tally *tally, const char *name, uint64_t n)
{
    size_t used = strlen(tally->text);

    (void)snprintf(tally->text + used, sizeof(tally->text) - used, "%s%s=%llu",
        used > 0 ? " " : "", name, (unsigned long long)n);
}

/* ---- a configuration --------------------------------------------------- */

static struct wb_config *config;
static struct wb_err err;

static inline enum wb_status
read_bytes(const char *text, size_t len, struct uv_loop_s *loop)
{
    n_made = 0;
    http_open = false;
    config = NULL;
    memset(&err, 0, sizeof(err));
    test_write("c.lua", text, len);
    return wb_config_open(&config, "c.lua", ENV, loop, &err);
}

static inline enum wb_status
read_text(const char *text)
{
    return read_bytes(text, strlen(text), LOOP);
}

static inline void
close_config(void)
{
    wb_config_close(config);
    config = NULL;
    for (size_t i = 0; i < n_made; i++)
        CHECK(made[i].freed);
    CHECK(!http_open);
}

#define READ(text) CHECK_OK(read_text(text), err)

static inline const struct wb_route *
route_at(size_t i)
{
    size_t n;
    const struct wb_route *routes = wb_config_routes(config, &n);

    CHECK(i < n);
    return &routes[i];
}

static inline struct wb__script *
script(void)
{
    return (struct wb__script *)(void *)config;
}

/* Variables that the texts of the tests name. */
static inline void
set_variables(void)
{
    (void)setenv("KEY", "0123456789abcdef01234567", 1);
    (void)setenv("KEY64", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3OA==", 1);
    (void)setenv("SHORT", "0123456789abcdef0123456", 1);
    (void)setenv("LONG",
        "whsec_"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "AA"
        "AAAAAAAAAAAAAAAAAA==",
        1);
    (void)setenv("HUGE",
        "whsec_"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
        "AA"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        1);
    (void)setenv("BAD64", "whsec_!!!!!!!!", 1);
    (void)setenv("CANARY", "canary-sings-loud-and-clear", 1);
    (void)setenv("EMPTY", "", 1);
    (void)unsetenv("NO_SUCH");
}

/* ---- messages ---------------------------------------------------------- */

static inline struct wb_claimed
message_of(const char *kind, const char *payload)
{
    return (struct wb_claimed){
        .id = {"018f0000-0000-7000-8000-000000000001"},
        .kind = wb_slice(kind),
        .key = wb_slice("key-1"),
        .attempts = 3,
        .payload = wb_slice(payload),
    };
}

/* What build made of a payload; the texts are kept here. */
struct built {
    enum wb_status status;
    char url[1024], body[32768];
};

static inline struct built
build_with(const struct wb_route *r, const char *payload)
{
    struct wb_claimed m = message_of(r->kind, payload);
    struct wb_request request = {.body = m.payload};
    struct built b = {.status = WB_OK};
    void *token = NULL;

    memset(&err, 0, sizeof(err));
    if (r->build != NULL)
        b.status = r->build(r->ctx, &m, &request, &token, &err);
    if (b.status == WB_OK) {
        copy_text(b.url, sizeof(b.url), request.url);
        copy_text(b.body, sizeof(b.body), request.body);
    }
    if (r->release != NULL && b.status == WB_OK)
        r->release(r->ctx, token);
    return b;
}

struct judged {
    enum wb_outcome outcome;
    int64_t retry_after_ms;
    char error[1024], tally[512];
};

static inline struct judged
judge_with(const struct wb_route *r, const char *payload, int status,
    const char *reply)
{
    struct wb_claimed m = message_of(r->kind, payload);
    struct wb_result result = {
        .outcome = status / 100 == 2 ? WB_DELIVERED : WB_RETRY,
        .status = status,
        .body = wb_slice(reply)};
    struct wb_tally tally = {""};
    struct judged j = {0};

    if (r->judge != NULL)
        r->judge(r->ctx, &m, &result, &tally);
    j.outcome = result.outcome;
    j.retry_after_ms = result.retry_after_ms;
    copy_text(j.error, sizeof(j.error), result.error);
    memcpy(j.tally, tally.text, sizeof(j.tally));
    return j;
}

#endif /* WB_TEST_CONFIG_H */
