/* cors.c - what pages of an origin may read of the gateway's own responses: the
 * same as upstream has allowed them in its response to a preflight, which comes
 * before every request with a key. Browsers hide a response without these
 * fields: to the page a 409 would look like a broken connection. */
#include "gate/gate_internal.h"

#include <stdio.h>

static struct wb__cors_origin *
find_origin(const struct wb__cors *cors, struct wb_slice origin)
{
    for (size_t i = 0; i < WB__CORS_ORIGINS; i++)
        if (wb__eq(wb_slice(cors->origin[i].origin), origin))
            return (struct wb__cors_origin *)&cors->origin[i];
    return NULL;
}

/* Empty where there is none, or more than one. */
static struct wb_slice
one_field(struct wb_slice headers, struct wb_slice name)
{
    struct wb_slice value = {NULL, 0};

    if (wb__rule_find_field(headers, name, &value) != 1 ||
        value.len >= WB__CORS_BYTES)
        value.len = 0;
    return value;
}

void
wb__cors_learn(struct wb__cors *cors, struct wb_slice request_headers,
    struct wb_slice response_headers)
{
    struct wb_slice origin = one_field(request_headers, WB_LIT("Origin"));
    struct wb_slice allow, credentials;
    struct wb__cors_origin *o;

    if (origin.len == 0)
        return;
    allow = one_field(response_headers, WB_LIT("Access-Control-Allow-Origin"));
    if (allow.len == 0)
        return;
    credentials =
        one_field(response_headers, WB_LIT("Access-Control-Allow-Credentials"));
    o = find_origin(cors, origin);
    if (o == NULL) {
        o = &cors->origin[cors->next];
        cors->next = (cors->next + 1) % WB__CORS_ORIGINS;
    }
    (void)snprintf(
        o->origin, sizeof(o->origin), "%.*s", (int)origin.len, origin.ptr);
    (void)snprintf(
        o->allow, sizeof(o->allow), "%.*s", (int)allow.len, allow.ptr);
    o->credentials = wb__eq(credentials, WB_LIT("true"));
}

void
wb__cors_add(const struct wb__cors *cors, struct wb_slice request_headers,
    struct wb__buf *out)
{
    struct wb_slice origin = one_field(request_headers, WB_LIT("Origin"));
    const struct wb__cors_origin *o =
        origin.len == 0 ? NULL : find_origin(cors, origin);

    if (o == NULL)
        return;
    wb__buf_fmt(out,
        "Access-Control-Allow-Origin: %s\nVary: Origin\n"
        "Access-Control-Expose-Headers: Retry-After\n%s",
        o->allow,
        o->credentials ? "Access-Control-Allow-Credentials: true\n" : "");
}
