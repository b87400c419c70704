/* transports.c - the transports of a configuration's routes. */
#include <stdio.h>

#include "script/script.h"
#include "waybill/config.h"
#include "waybill/transport.h"

#ifdef WB_LIBCURL
static void
write_headers(const struct wb__headers *headers, struct wb__buf *out)
{
    for (size_t i = 0; i < headers->n; i++) {
        wb__buf_add(out, headers->item[i].name);
        wb__buf_add(out, WB_LIT(": "));
        wb__buf_add(out, headers->item[i].value.s);
        wb__buf_add(out, WB_LIT("\n"));
    }
}

static size_t
copy_secrets(const struct wb__route_spec *spec, struct wb_slice out[8])
{
    out[0] = spec->secret.s;
    for (size_t i = 0; i < spec->secrets.n; i++)
        out[i] = spec->secrets.item[i].s;
    return spec->secret.secret ? 1 : spec->secrets.n;
}

static enum wb_status
open_http(struct wb_config *c, const struct wb__route_spec *spec,
    struct uv_loop_s *loop, struct wb_transport **out, struct wb_err *err)
{
    static const char *const methods[] = {"POST", "PUT", "PATCH"};
    struct wb__buf headers = {.env = c->script.env, .max = (size_t)1 << 20};
    struct wb_slice secrets[8];
    struct wb_http_opts opts = {
        .method = wb_slice(methods[spec->method]),
        .secrets = secrets,
        .n_secrets = copy_secrets(spec, secrets),
        .max_reply_bytes = (size_t)spec->max_reply,
        .ca_file = spec->ca_file.s,
        .public_only = spec->public_only,
        .follow = spec->follow,
        .http1 = spec->http1,
    };
    enum wb_status rc = WB_OK;

    if (c->http == NULL) {
        rc = wb_http_open(&c->http, c->script.env, loop, err);
        c->http_close = wb_http_close;
    }
    if (rc != WB_OK)
        return rc;
    if (!wb__template_has_fields(spec->url.text.s))
        opts.url = spec->url.text.s;
    write_headers(&spec->headers, &headers);
    opts.headers = wb__buf_slice(&headers);
    rc = headers.failed == WB_OK ? wb_http_new(out, c->http, &opts, err)
                                 : wb__nomem(err, "headers");
    if (headers.ptr != NULL)
        explicit_bzero(headers.ptr, headers.cap);
    wb__buf_fini(&headers);
    return rc;
}
#else
static enum wb_status
open_http(struct wb_config *c, const struct wb__route_spec *spec,
    struct uv_loop_s *loop, struct wb_transport **out, struct wb_err *err)
{
    (void)c;
    (void)spec;
    (void)loop;
    (void)out;
    return wb__fail(err, WB_UNAVAILABLE, 0,
        "http is not in this Waybill; build it with libcurl");
}
#endif

static enum wb_status
open_exec(struct wb__script *s, const struct wb__route_spec *spec,
    struct uv_loop_s *loop, struct wb_transport **out, struct wb_err *err)
{
    const char **argv =
        wb__arena_alloc(&s->arena, (spec->argv.n + 1) * sizeof(*argv));

    if (argv == NULL)
        return wb__nomem(err, "argv");
    for (size_t i = 0; i < spec->argv.n; i++)
        argv[i] = spec->argv.item[i].s.ptr;
    return wb_exec_new(out, s->env, loop, argv, err);
}

static enum wb_status
open_transport(struct wb_config *c, const struct wb__route_spec *spec,
    struct uv_loop_s *loop, struct wb_transport **out, struct wb_err *err)
{
    struct wb_err why = {0};
    enum wb_status rc;

    if (spec->transport == WB__TRANSPORT_HTTP)
        rc = open_http(c, spec, loop, out, &why);
    else if (spec->transport == WB__TRANSPORT_EXEC)
        rc = open_exec(&c->script, spec, loop, out, &why);
    else
        rc = wb_file_new(out, c->script.env, spec->path.s.ptr, &why);
    if (rc == WB_OK)
        return rc;
    return wb__fail(err, rc, why.sys, "%s:%d: route \"%s\": %.150s",
        c->script.path, spec->line, spec->name, why.msg);
}

static enum wb_status
open_transports(struct wb_config *c, struct uv_loop_s *loop, struct wb_err *err)
{
    const struct wb__route_spec *spec = c->first;
    enum wb_status rc = WB_OK;

    for (size_t i = 0; i < c->n_routes && rc == WB_OK; i++) {
        rc = open_transport(c, spec, loop, &c->routes[i].transport, err);
        spec = spec->next;
    }
    return rc;
}

enum wb_status
wb_config_open(struct wb_config **out, const char *path,
    const struct wb_env *env, struct uv_loop_s *loop, struct wb_err *err)
{
    struct wb_config *c = NULL;
    enum wb_status rc = wb__config_read(&c, path, env, loop == NULL, err);

    if (rc == WB_OK && loop != NULL)
        rc = open_transports(c, loop, err);
    if (rc == WB_OK)
        *out = c;
    else
        wb_config_close(c);
    return rc;
}
