/* sink_items.c - ids, kind and bodies out of a request.
 *
 *  1. Bodies of a batch are the bytes as they came, without white space around
 *     them, never written anew.
 *  2. A batch is taken whole or refused whole. */
#include "cli/sink_items.h"

#include <jansson.h>

/* What the header says, before it is made sense of. */
struct fields {
    struct wb_slice key, webhook_id, ids, kind, sender_key, type;
    unsigned keys; /* Idempotency-Key fields */
};

static void
read_fields(struct fields *f, struct wb_slice headers)
{
    const struct {
        struct wb_slice name;
        struct wb_slice *to;
    } known[] = {
        {WB_LIT("Idempotency-Key"), &f->key},
        {WB_LIT("webhook-id"), &f->webhook_id},
        {WB_LIT("Waybill-Ids"), &f->ids},
        {WB_LIT("Waybill-Kind"), &f->kind},
        {WB_LIT("Waybill-Key"), &f->sender_key},
        {WB_LIT("Content-Type"), &f->type},
    };
    struct wb_slice name, value;

    while (wb__headers_next(&headers, &name, &value)) {
        f->keys += wb__eq_nocase(name, known[0].name);
        for (size_t i = 0; i < WB_COUNT(known); i++)
            if (wb__eq_nocase(name, known[i].name))
                *known[i].to = value;
    }
}

/* "abc" and abc are one key. */
static struct wb_slice
unquote(struct wb_slice s)
{
    if (s.len >= 2 && s.ptr[0] == '"' && s.ptr[s.len - 1] == '"')
        return (struct wb_slice){s.ptr + 1, s.len - 2};
    return s;
}

/* ---- batches ----------------------------------------------------------- */

/* Where the first element of a valid array's inside ends. */
static size_t
element_end(struct wb_slice s)
{
    size_t depth = 0, i;
    bool text = false;

    for (i = 0; i < s.len; i++) {
        char c = s.ptr[i];

        if (text && c == '\\')
            i++;
        else if (c == '"')
            text = !text;
        else if (!text && (c == '[' || c == '{'))
            depth++;
        else if (!text && (c == ']' || c == '}'))
            depth--;
        else if (!text && c == ',' && depth == 0)
            break;
    }
    return i < s.len ? i : s.len;
}

static bool
next_body(struct sink_items *items, struct wb_slice *body)
{
    struct wb_slice *rest = &items->bodies;
    size_t end;

    if (items->form == SINK_LINES) {
        while (wb__cut(rest, '\n', body)) {
            *body = wb__trim(*body);
            if (body->len > 0)
                return true;
        }
        return false;
    }
    if (rest->len == 0)
        return false;
    end = element_end(*rest);
    *body = wb__trim((struct wb_slice){rest->ptr, end});
    *rest = wb__from(*rest, end < rest->len ? end + 1 : end);
    return true;
}

static bool
next_id(struct wb_slice *ids, struct wb_slice *id)
{
    if (!wb__cut(ids, ',', id))
        return false;
    *id = unquote(wb__trim(*id));
    return true;
}

/* Set bodies to the inside of the array. */
static bool
open_array(struct sink_items *items, struct wb_slice body)
{
    json_t *array = body.len == 0
                        ? NULL
                        : json_loadb(body.ptr, body.len,
                              JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, NULL);
    bool ok = json_is_array(array);

    json_decref(array);
    body = wb__trim(body);
    if (ok)
        items->bodies = wb__trim((struct wb_slice){body.ptr + 1, body.len - 2});
    return ok;
}

static const char *
read_batch(
    struct sink_items *items, const struct fields *f, struct wb_slice body)
{
    struct sink_items look;
    struct wb_slice id, piece;
    size_t n_ids = 0, n_bodies = 0;

    items->ids = f->ids;
    items->bodies = body;
    items->form = wb__starts(f->type, WB_LIT("application/x-ndjson"))
                      ? SINK_LINES
                      : SINK_ARRAY;
    if (items->form == SINK_ARRAY && !open_array(items, body))
        return "Waybill-Ids without a JSON array as the body";
    for (look = *items; next_id(&look.ids, &id); n_ids++)
        if (!sink_id_ok(id))
            return "Waybill-Ids has an id that is none";
    while (next_body(&look, &piece))
        n_bodies++;
    items->n = n_ids;
    return n_ids == n_bodies ? NULL
                             : "Waybill-Ids and the body differ in number";
}

/* ---- face -------------------------------------------------------------- */

const char *
sink_items_read(struct sink_items *items, const struct wb__http_head *head,
    struct wb_slice body)
{
    struct fields f = {0};
    struct wb_slice id;

    read_fields(&f, head->headers);
    *items = (struct sink_items){.n = 1};
    items->item.kind = f.kind;
    items->item.key = f.sender_key;
    items->item.path = head->path;
    if (f.ids.len > 0)
        return read_batch(items, &f, body);
    id = unquote(f.keys > 0 ? f.key : f.webhook_id);
    if (f.keys > 1 || ((f.keys > 0 || id.len > 0) && !sink_id_ok(id)))
        return "the id is not 1 to 255 printable characters, given once";
    items->ids = id;
    items->bodies = body;
    return NULL;
}

bool
sink_items_next(struct sink_items *items)
{
    if (items->n == 0)
        return false;
    items->n--;
    if (items->form == SINK_ONE) {
        items->item.id = items->ids;
        items->item.body = items->bodies;
        return true;
    }
    return next_id(&items->ids, &items->item.id) &&
           next_body(items, &items->item.body);
}
