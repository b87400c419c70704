/* file.c - append messages to a file as NDJSON.
 *
 * (1) A message is one line, whatever its payload: JSON has its line ends
 *     replaced by spaces, anything else is written as base64.
 * (2) Delivered means on the disk; see wb__append_line(). That locks the file
 *     and waits for the disk on the thread that sends, which is the event
 *     loop's: requests of other routes wait meanwhile. */
#include <stdio.h>

#include "os/os.h"
#include "transport/http.h"

enum {
    LINE_BYTES = 256 << 20
};

struct file {
    struct wb_transport base; /* first: cast back to the file */
    const struct wb_env *env;
    struct wb__buf line;
    char path[];
};

static void
line_write(struct wb__buf *b, const struct wb_request *q)
{
    size_t at;

    wb__buf_clear(b);
    wb__buf_str(b, "{\"id\":\"");
    wb__buf_str(b, q->id.text);
    wb__buf_str(b, "\",\"kind\":\"");
    wb__buf_add(b, q->kind);
    if (!wb__json_valid(q->body, NULL)) {
        wb__buf_str(b, "\",\"payload_base64\":\"");
        wb__base64(b, q->body);
        wb__buf_str(b, "\"}\n");
        return;
    }
    wb__buf_str(b, "\",\"payload\":");
    at = b->len;
    wb__buf_add(b, q->body);
    /* In JSON a raw line end is only ever white space between tokens. */
    for (; at < b->len; at++)
        if (b->ptr[at] == '\n' || b->ptr[at] == '\r')
            b->ptr[at] = ' ';
    wb__buf_str(b, "}\n");
}

/* Needs no escape between quotes. */
static bool
is_plain(struct wb_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] == '"' || s.ptr[i] == '\\')
            return false;
    return wb__printable(s);
}

static enum wb_outcome
file_append(struct file *f, const struct wb_request *q, struct wb_err *err)
{
    enum wb_status rc;

    if (!is_plain(q->kind) || !is_plain(wb_slice(q->id.text))) {
        (void)wb__fail(err, WB_INVALID, 0, "kind or id is not plain text");
        return WB_REJECTED;
    }
    line_write(&f->line, q);
    if (f->line.failed != WB_OK) {
        (void)wb__fail(err, f->line.failed, 0, "%s: %s", f->path,
            wb_status_text(f->line.failed));
        return f->line.failed == WB_TOOBIG ? WB_REJECTED : WB_RETRY;
    }
    rc = wb__append_line(f->path, wb__buf_slice(&f->line), err);
    return rc == WB_OK ? WB_DELIVERED : rc == WB_IO ? WB_UNKNOWN : WB_RETRY;
}

static void
file_send(struct wb_transport *self, const struct wb_request *request,
    wb_done_fn *done, void *ctx)
{
    struct file *f = (struct file *)self;
    struct wb_err err = {0};
    struct wb_result delivered = {.outcome = WB_DELIVERED};
    enum wb_outcome outcome = file_append(f, request, &err);

    wb__buf_fini(&f->line);
    if (outcome == WB_DELIVERED)
        done(ctx, &delivered);
    else
        wb__transport_refuse(done, ctx, outcome, err.msg);
}

static void
file_free(struct wb_transport *self)
{
    struct file *f = (struct file *)self;

    wb__free(f->env, f);
}

enum wb_status
wb_file_new(struct wb_transport **out, const struct wb_env *env,
    const char *path, struct wb_err *err)
{
    enum wb_status rc = wb__append_line(path, WB_LIT(""), err);
    size_t len = strlen(path);
    struct file *f;

    *out = NULL;
    if (rc != WB_OK)
        return rc;
    env = env == NULL ? wb_env_system() : env;
    f = wb__alloc(env, sizeof(*f) + len + 1);
    if (f == NULL)
        return wb__nomem(err, "file transport");
    f->base = (struct wb_transport){"file", file_send, file_free};
    f->env = env;
    f->line = (struct wb__buf){.env = env, .max = LINE_BYTES};
    memcpy(f->path, path, len + 1);
    *out = &f->base;
    return WB_OK;
}
