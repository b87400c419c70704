/* transports.c - wb_config_open(): a configuration with its transports. */
#include <stdlib.h>

#include "os/os.h"
#include "script/script.h"
#include "waybill/config.h"
#include "waybill/transport.h"

#ifdef WB_LIBCURL
static enum wb_status
open_http(struct wb_config *c, const struct wb__route_spec *spec,
    struct uv_loop_s *loop, struct wb_transport **out, struct wb_err *err)
{
    struct wb_slice secrets[8] = {spec->secret.text};
    struct wb_http_opts opts = {
        .method = wb_slice(wb__route_methods[spec->method]),
        .headers = spec->headers.text,
        .secrets = secrets,
        .n_secrets = spec->secret.secret ? 1 : spec->secrets.n,
        .masked = c->script.secrets,
        .n_masked = c->script.n_secrets,
        .max_reply_bytes = (size_t)spec->max_reply,
        .ca_file = spec->ca_file.text,
        .client_cert = spec->client_cert.text,
        .client_key = spec->client_key.text,
        .public_only = spec->public_only,
        .follow = spec->follow,
        .http1 = spec->http1,
    };
    enum wb_status rc;

    if (!wb__eq(spec->proxy.text, WB_LIT("direct")))
        opts.proxy = spec->proxy.text;
    if (c->http == NULL) {
        rc = wb_http_open(&c->http, c->script.env, loop, err);
        if (rc != WB_OK)
            return rc;
        c->http_close = wb_http_close;
    }
    for (size_t i = 0; i < spec->secrets.n; i++)
        secrets[i] = spec->secrets.item[i].text;
    if (!wb__template_has_fields(spec->url.text))
        opts.url = spec->url.text;
    return wb_http_new(out, c->http, &opts, err);
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
        argv[i] = spec->argv.item[i].text.ptr;
    return wb_exec_new(out, s->env, loop, argv, err);
}

/* The variable of the environment that names a proxy, which most programs would
 * use unasked, and this route, which says nothing of one, does not. */
static const char *
proxy_unused(const struct wb__route_spec *spec)
{
    static const char *const names[] = {"HTTPS_PROXY", "https_proxy",
        "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"};

    for (size_t i = 0; spec->transport == WB__TRANSPORT_HTTP &&
                       spec->proxy.text.len == 0 && i < WB_COUNT(names);
         i++)
        if (wb_slice(getenv(names[i])).len > 0)
            return names[i];
    return NULL;
}

/* What the transport needs, and finds missing only when it is used. */
static enum wb_status
check_needs(const struct wb__route_spec *spec, struct wb_err *err)
{
    const struct wb__value *file[] = {
        &spec->ca_file, &spec->client_cert, &spec->client_key};
    enum wb_status rc = WB_OK;

    if (spec->absent != NULL)
        return wb__fail(err, WB_UNAVAILABLE, 0, "%s", spec->absent->why);
    for (size_t i = 0; i < WB_COUNT(file) && rc == WB_OK; i++)
        if (file[i]->text.len > 0)
            rc = wb__readable_check(file[i]->text.ptr, err);
    if (rc == WB_OK && spec->transport == WB__TRANSPORT_EXEC)
        rc = wb__command_check(spec->argv.item[0].text.ptr, err);
    return rc;
}

/* Open the transport of a route. What is missing outside of the configuration
 * stops this route alone. */
static enum wb_status
open_transport(struct wb_config *c, const struct wb__route_spec *spec,
    struct uv_loop_s *loop, struct wb_route *route, struct wb_err *err)
{
    struct wb_err why = {0}, shown;
    enum wb_status rc = check_needs(spec, &why);
    struct wb_slice text;

    route->proxy_unused = proxy_unused(spec);
    if (rc == WB_OK && spec->transport == WB__TRANSPORT_HTTP)
        rc = open_http(c, spec, loop, &route->transport, &why);
    else if (rc == WB_OK && spec->transport == WB__TRANSPORT_EXEC)
        rc = open_exec(&c->script, spec, loop, &route->transport, &why);
    else if (rc == WB_OK)
        rc = wb_file_new(
            &route->transport, c->script.env, loop, spec->path.text.ptr, &why);
    if (rc == WB_OK)
        return rc;
    (void)wb__fail(&shown, rc, why.sys, "%s:%d: route \"%s\": %.150s",
        c->script.path, spec->line, spec->name, why.msg);
    if (rc == WB_INVALID || rc == WB_NOMEM) {
        if (err != NULL)
            *err = shown;
        return rc;
    }
    if (!wb__arena_dup(&c->script.arena, wb_slice(shown.msg), &text))
        return wb__nomem(err, "route");
    route->failed = text.ptr;
    return WB_OK;
}

enum wb_status
wb_config_open(struct wb_config **out, const char *path,
    const struct wb_env *env, struct uv_loop_s *loop, struct wb_err *err)
{
    struct wb_config *c = NULL;
    enum wb_status rc = wb__config_read(&c, path, env, loop == NULL, err);
    const struct wb__route_spec *spec = rc == WB_OK ? c->first : NULL;

    for (size_t i = 0; loop != NULL && spec != NULL && rc == WB_OK; i++) {
        rc = open_transport(c, spec, loop, &c->routes[i], err);
        spec = spec->next;
    }
    if (rc == WB_OK)
        *out = c;
    else
        wb_config_close(c);
    return rc;
}
