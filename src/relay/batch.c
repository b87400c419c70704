/* batch.c - several messages in one request, and the result of each from the
 * response.
 *
 * The body is a JSON array of the messages' bodies, or NDJSON. Waybill-Ids
 * lists their ids in order; the request's own id is derived from them, so that
 * the same messages together are the same request again.
 *
 * (1) A 2xx response whose body is an array (or an object with an array
 *     "results") of as many items as were sent has a result for each, in order:
 *     "status" is an HTTP status, as a number or its digits; without one, an
 *     "error" that is not null, or "ok": false, is a rejection. Any other
 *     response is the result of all. A route's own hook comes first.
 * (2) If the body was meant to be read and cannot be (cut, with a content
 *     coding, JSON by its type or its first character and not valid), the
 *     results of the items cannot be known: the outcome is unknown, and the
 *     batch is sent again. So it is if a list of another length has a failure
 *     in it. The outcome of one item is unknown if its status is a word and it
 *     has no "ok": true, or if the item is a number like 422. */
#include <jansson.h>

#include "relay/relay.h"
#include "transport/http.h"

/* JSON with integers past 64 bits is valid JSON: parse these as real numbers.
 */
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
    return wb__json_valid(body, NULL);
}

static void
add_item(struct wb__delivery *d, size_t i)
{
    bool lines = d->state->route->batch_ndjson;
    size_t at;

    wb__buf_str(&d->ids, i > 0 ? "," : "");
    wb__buf_str(&d->ids, d->item[i].message->id.text);
    if (!lines)
        wb__buf_str(&d->body, i == 0 ? "[" : ",");
    at = d->body.len;
    wb__buf_add(&d->body, d->item[i].request.body);
    if (!lines) {
        wb__buf_str(&d->body, i + 1 == d->n ? "]" : "");
        return;
    }
    /* A line end in valid JSON is always white space. */
    for (; at < d->body.len; at++)
        if (d->body.ptr[at] == '\n' || d->body.ptr[at] == '\r')
            d->body.ptr[at] = ' ';
    wb__buf_str(&d->body, "\n");
}

enum wb_status
wb__batch_encode(struct wb__delivery *d, struct wb_err *err)
{
    struct wb_slice ids;
    uint8_t hash[32];

    for (size_t i = 0; i < d->n; i++)
        add_item(d, i);
    ids = wb__buf_slice(&d->ids);
    if (d->body.failed != WB_OK || d->ids.failed != WB_OK ||
        !wb__sha256(&ids, 1, hash))
        return wb__nomem(err, "batch");
    d->request = d->item[0].request;
    d->request.body = wb__buf_slice(&d->body);
    d->request.ids = ids;
    d->request.id = wb__uuid7(d->item[0].message->created_ms, hash);
    d->request.content_type = d->state->route->batch_ndjson
                                  ? WB_LIT("application/x-ndjson")
                                  : WB_LIT("application/json");
    return WB_OK;
}

/* ---- the response --------------------------------------------------------- */

/* Status and outcome of one item; see (1), (2). */
static void
item_read(json_t *item, struct wb_result *r)
{
    json_t *status = json_object_get(item, "status");
    json_t *error = json_object_get(item, "error");
    json_t *ok = json_object_get(item, "ok");
    struct wb_slice digits = {
        json_string_value(status), json_string_length(status)};
    double n = json_number_value(status), bare = json_number_value(item);
    uint64_t read;

    if (wb__parse_u64(digits, 599, &read))
        n = (double)read;
    if (json_is_number(status) || n >= 100) {
        r->status = n >= 100 && n < 600 ? (int)n : 0;
        r->outcome = wb_http_outcome(r->status);
    } else if (json_is_false(ok) || json_is_false(item) ||
               (error != NULL && !json_is_null(error))) {
        r->outcome = WB_REJECTED;
    } else if ((status != NULL && !json_is_null(status) && !json_is_true(ok)) ||
               (bare >= 300 && bare < 600)) {
        r->outcome = WB_UNKNOWN;
    }
}

/* The result of one item. */
static void
item_result(json_t *item, const struct wb_result *whole, size_t i,
    void (*each)(void *ctx, size_t i, struct wb_result *result), void *ctx)
{
    json_t *error = json_object_get(item, "error");
    char *text = json_dumps(item, JSON_COMPACT | JSON_ENCODE_ANY);
    struct wb_result r = *whole;

    r.body = wb_slice(text);
    item_read(item, &r);
    if (r.outcome != WB_DELIVERED && json_is_string(error))
        r.error = (struct wb_slice){
            json_string_value(error), json_string_length(error)};
    else if (r.outcome != WB_DELIVERED)
        r.error = r.body;
    each(ctx, i, &r);
    free(text);
}

/* Whether an item of the list is not that of a delivered message. */
static bool
has_failure(json_t *items, const struct wb_result *whole)
{
    struct wb_result r = *whole;

    for (size_t i = 0; i < json_array_size(items) && r.outcome == WB_DELIVERED;
         i++)
        item_read(json_array_get(items, i), &r);
    return r.outcome != WB_DELIVERED;
}

/* The results by the route's hook. False: it leaves them to the rules here. */
static bool
hook_results(const struct wb__delivery *d, const struct wb_result *whole,
    void (*each)(void *ctx, size_t i, struct wb_result *result), void *ctx)
{
    const struct wb_route *route = d->state->route;
    const struct wb_claimed *message[WB__BATCH_MAX];
    struct wb_result result[WB__BATCH_MAX];
    struct wb_err err = {0};
    enum wb_status rc;

    if (route->results == NULL || whole->outcome != WB_DELIVERED)
        return false;
    WB_ASSERT(d->n <= WB__BATCH_MAX);
    for (size_t i = 0; i < d->n; i++) {
        message[i] = d->item[i].message;
        result[i] = *whole;
    }
    rc = route->results(route->ctx, message, d->n, whole, result, &err);
    for (size_t i = 0; i < d->n && rc != WB_NOTFOUND; i++) {
        if (rc != WB_OK) {
            result[i].outcome = WB_UNKNOWN;
            result[i].error = wb_slice(err.msg);
        }
        each(ctx, i, &result[i]);
    }
    return rc != WB_NOTFOUND;
}

bool
wb__batch_results(const struct wb__delivery *d, struct wb_result *result,
    void (*each)(void *ctx, size_t i, struct wb_result *result), void *ctx)
{
    bool accepted = result->outcome == WB_DELIVERED, split;
    json_t *response, *items;
    const char *problem;
    size_t n = d->n;

    if (hook_results(d, result, each, ctx))
        return true;
    response = accepted ? parse(wb__reply_text(result)) : NULL;
    items = json_is_array(response) ? response
                                    : json_object_get(response, "results");
    split = json_array_size(items) == n;
    problem = accepted && response == NULL ? wb__reply_problem(result) : NULL;
    if (accepted && !split && has_failure(items, result))
        problem = "the reply lists failures, but not one item for each "
                  "message; read it with results = function(reply, ids)";
    for (size_t i = 0; i < n && split; i++)
        item_result(json_array_get(items, i), result, i, each, ctx);
    if (problem != NULL) {
        result->outcome = WB_UNKNOWN;
        result->error = wb_slice(problem);
    }
    json_decref(response);
    return split;
}
