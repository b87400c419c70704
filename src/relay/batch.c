/* batch.c - several messages in one request, and what a reply says of each.
 *
 * The body is a JSON array of the messages' bodies, or NDJSON. Waybill-Ids
 * names their ids in order; the request's own id is made of them, so that the
 * same messages together are the same request again.
 *
 * (1) A reply that is 2xx and holds an array (itself, or under "results") with
 *     as many items as were sent tells of each by its place: "status" is an
 *     HTTP status; else "error" that is not null, or "ok" that is false, is a
 *     rejection. Any other reply tells of all alike.
 * (2) One that began as JSON and is cut may have told of each, and nobody can
 *     say what: the outcome is unknown, and the batch goes out again. */
#include <jansson.h>

#include "relay/relay.h"

/* An integer past 64 bits is a number all the same: who sends or judges must
 * not take the text for none. */
static json_t *
parse(struct wb_slice text)
{
    const size_t any = JSON_DECODE_ANY | JSON_ALLOW_NUL;
    const char *at = text.len > 0 ? text.ptr : "";
    json_t *json = json_loadb(at, text.len, any, NULL);

    return json != NULL
               ? json
               : json_loadb(at, text.len, any | JSON_DECODE_INT_AS_REAL, NULL);
}

bool
wb__batch_fits(struct wb_slice body)
{
    json_t *json = parse(body);
    bool fits = json != NULL;

    json_decref(json);
    return fits;
}

/* One line of NDJSON: a line end in JSON is white space and never text. */
static void
add_line(struct wb__buf *out, struct wb_slice body)
{
    size_t at = out->len;

    wb__buf_add(out, body);
    for (; at < out->len; at++)
        if (out->ptr[at] == '\n' || out->ptr[at] == '\r')
            out->ptr[at] = ' ';
    wb__buf_str(out, "\n");
}

static void
add_item(struct wb__in_flight *f, size_t i)
{
    struct wb_slice body = f->item[i].request.body;
    bool lines = f->live->route->batch_ndjson;

    if (i > 0)
        wb__buf_str(&f->ids, ",");
    wb__buf_str(&f->ids, f->item[i].message->id.text);
    if (lines) {
        add_line(&f->body, body);
        return;
    }
    wb__buf_str(&f->body, i == 0 ? "[" : ",");
    wb__buf_add(&f->body, body);
    if (i + 1 == f->n)
        wb__buf_str(&f->body, "]");
}

enum wb_status
wb__batch_encode(struct wb__in_flight *f, struct wb_err *err)
{
    struct wb_slice ids;
    uint8_t hash[32];

    for (size_t i = 0; i < f->n; i++)
        add_item(f, i);
    ids = wb__buf_slice(&f->ids);
    if (f->body.failed != WB_OK || f->ids.failed != WB_OK ||
        !wb__sha256(&ids, 1, hash))
        return wb__nomem(err, "batch");
    f->request = f->item[0].request;
    f->request.body = wb__buf_slice(&f->body);
    f->request.ids = ids;
    f->request.id = wb__uuid7(f->item[0].message->created_ms, hash);
    f->request.content_type = f->live->route->batch_ndjson
                                  ? WB_LIT("application/x-ndjson")
                                  : WB_LIT("application/json");
    return WB_OK;
}

/* ---- replies ----------------------------------------------------------- */

static json_t *
items_of(json_t *reply, size_t n)
{
    json_t *items =
        json_is_array(reply) ? reply : json_object_get(reply, "results");

    return json_array_size(items) == n ? items : NULL;
}

static void
judge_item(json_t *item, struct wb_result *r)
{
    json_t *status = json_object_get(item, "status");
    json_t *error = json_object_get(item, "error");
    json_t *ok = json_object_get(item, "ok");

    if (json_is_number(status)) {
        double n = json_number_value(status);

        r->status = n >= 100 && n < 600 ? (int)n : 0;
        r->outcome = wb_http_outcome(r->status);
    } else if (json_is_false(ok) || (error != NULL && !json_is_null(error))) {
        r->outcome = WB_REJECTED;
    }
    if (r->outcome == WB_DELIVERED)
        return;
    if (json_is_string(error))
        r->error = (struct wb_slice){
            json_string_value(error), json_string_length(error)};
    else
        r->error = r->body;
}

static void
item_result(json_t *item, const struct wb_result *whole, size_t i,
    void (*each)(void *ctx, size_t i, struct wb_result *result), void *ctx)
{
    char *text = json_dumps(item, JSON_COMPACT | JSON_ENCODE_ANY);
    struct wb_result r = *whole;

    r.body = wb_slice(text);
    judge_item(item, &r);
    each(ctx, i, &r);
    free(text);
}

static bool
is_lost(const struct wb_result *result)
{
    struct wb_slice body = wb__trim(result->body);

    return result->cut &&
           (wb__starts(body, WB_LIT("[")) || wb__starts(body, WB_LIT("{")));
}

void
wb__batch_results(const struct wb__in_flight *f, const struct wb_result *result,
    void (*each)(void *ctx, size_t i, struct wb_result *result), void *ctx)
{
    json_t *reply =
        result->outcome == WB_DELIVERED ? parse(result->body) : NULL;
    json_t *items = items_of(reply, f->n);
    size_t n = f->n;

    for (size_t i = 0; i < n; i++) {
        struct wb_result r = *result;

        if (items == NULL && r.outcome == WB_DELIVERED && is_lost(result)) {
            r.outcome = WB_UNKNOWN;
            r.error = WB_LIT("the reply to the batch was cut; more is kept "
                             "with a larger max_reply");
        }
        if (items != NULL)
            item_result(json_array_get(items, i), result, i, each, ctx);
        else
            each(ctx, i, &r);
    }
    json_decref(reply);
}
