/* import.c - standard input: one payload, or a message on each line.
 *
 * (1) An import takes one buffer and LINES_MAX messages of memory, whatever the
 *     input is; nothing is allocated per line.
 * (2) A commit takes LINES_MAX lines, or fewer if no more input is there yet:
 *     the lines of a slow producer do not wait for its next ones.
 * (3) A line ends with LF or CR LF, and the input may begin with a byte order
 *     mark: neither is part of a payload.
 * (4) A bad line is reported with its number and skipped. An import that stops,
 *     be it by a signal, says at which line to go on. */
#include "cli/cli.h"

#define PAYLOAD_MAX (1024 * 1024) /* the default of the library */
#define LINES_MAX   1000
#define READ_AHEAD  ((size_t)1024 * 1024)
#define KEY_BYTES   256

struct import {
    struct cli *cli;
    struct cli_counts *counts;
    struct wb_slice prefix; /* of keys; may be empty */
    size_t max;             /* longest payload */
    struct wb_message message[LINES_MAX];
    struct wb_accepted accepted[LINES_MAX];
    uint64_t number[LINES_MAX]; /* of the line, from 1 */
    char key[LINES_MAX][KEY_BYTES];
    size_t n;          /* messages that wait for a commit */
    uint64_t lines;    /* seen */
    uint64_t full_at;  /* first line that the full outbox refused, or 0 */
    bool skipping;     /* the rest of a line that is too long */
    struct wb__buf in; /* what was read; lines before start are done */
    size_t start;
};

static volatile sig_atomic_t stop_signal; /* that arrived, or 0 */

static void
on_stop_signal(int number)
{
    stop_signal = number;
}

/* The next bytes of stdin; *got is 0 at the end. */
static enum cli_exit
read_stdin(struct cli *cli, char *into, size_t max, size_t *got)
{
    uv_buf_t buf = uv_buf_init(into, max > INT_MAX ? INT_MAX : (unsigned)max);
    uv_fs_t req;
    int n;

    do {
        n = (int)uv_fs_read(NULL, &req, STDIN_FILENO, &buf, 1, -1, NULL);
        uv_fs_req_cleanup(&req);
        if (n == UV_EAGAIN) /* another program made it non-blocking */
            wb__wait_readable(STDIN_FILENO);
    } while ((n == UV_EAGAIN || n == UV_EINTR) && stop_signal == 0);
    *got = n > 0 ? (size_t)n : 0;
    if (n >= 0 || n == UV_EINTR || n == UV_EAGAIN)
        return CLI_DONE;
    if (n == UV_EBADF)
        return cli_usage(cli, "standard input is closed; give the payload as "
                              "an argument or through a pipe");
    cli_print_error(cli, WB_IO, "standard input: %s", uv_strerror(n));
    return CLI_FAILED;
}

static size_t
payload_max(const struct cli *cli)
{
    int64_t max = cli->config == NULL
                      ? 0
                      : wb_config_outbox(cli->config)->max_payload_bytes;

    return max > 0 ? (size_t)max : PAYLOAD_MAX;
}

enum cli_exit
cli_read_all(struct cli *cli, struct wb__buf *b)
{
    size_t max = payload_max(cli), block = 64 * 1024, had = 0, got = 1;
    enum cli_exit code = CLI_DONE;
    char *to;

    *b = (struct wb__buf){.env = cli->env, .max = max + 2 * block};
    while (code == CLI_DONE && got > 0 && had <= max) {
        to = wb__buf_room(b, block);
        if (to == NULL)
            return cli_nomem(cli, "the payload");
        code = read_stdin(cli, to, block, &got);
        had += got;
        b->len = had;
    }
    return code;
}

void
cli_note_payload(struct cli *cli, const struct wb_message *m)
{
    json_t *json = NULL;

    if (m->content_type.len > 0 &&
        !wb__eq_nocase(m->content_type, WB_LIT("application/json")))
        return;
    json = json_loadb(m->payload.ptr, m->payload.len, JSON_DECODE_ANY, NULL);
    if (json == NULL)
        cli_note(cli, "note: the payload is not JSON, and is sent as "
                      "application/json; see --content-type");
    json_decref(json);
}

static enum cli_exit
stop_at(struct import *im, uint64_t line, const struct wb_err *why)
{
    struct wb_err err;
    char what[161];

    (void)snprintf(what, sizeof(what), "%.160s",
        why->msg[0] != '\0' ? why->msg : wb_status_text(why->status));
    (void)wb__fail(&err, why->status, why->sys,
        "%s; stopped: go on at line %llu%s", what, (unsigned long long)line,
        why->status == WB_IO ? ", of which some may have been accepted" : "");
    return cli_fail(im->cli, &err);
}

static void
reject(struct import *im, uint64_t line, enum wb_status why, const char *text)
{
    im->counts->rejected++;
    cli_print_error(
        im->cli, why, "line %llu: %s", (unsigned long long)line, text);
}

static enum cli_exit
commit(struct import *im)
{
    struct wb_err err = {0};
    size_t n = im->n;

    im->n = 0;
    if (n == 0)
        return CLI_DONE;
    if (wb_outbox_enqueue_many(
            im->cli->box, im->message, n, im->accepted, &err) != WB_OK)
        return stop_at(im, im->number[0], &err);
    /* What a line could make invalid was checked before: the fault is not of a
     * line. */
    for (size_t i = 0; i < n; i++) {
        const struct wb_accepted *a = &im->accepted[i];

        if (a->status == WB_INVALID)
            return stop_at(im, im->number[i], &err);
        if (a->status == WB_OK && a->duplicate)
            im->counts->duplicates++;
        else if (a->status == WB_OK)
            im->counts->accepted++;
        else if (a->status != WB_FULL)
            reject(im, im->number[i], a->status, wb_status_text(a->status));
        else if (im->full_at == 0)
            im->full_at = im->number[i];
    }
    cli_progress(im->cli, "%llu lines, %llu accepted",
        (unsigned long long)im->lines,
        (unsigned long long)im->counts->accepted);
    if (im->full_at == 0)
        return CLI_DONE;
    err.status = WB_FULL;
    return stop_at(im, im->full_at, &err);
}

static void
reject_long(struct import *im, uint64_t line)
{
    char text[80];

    (void)snprintf(
        text, sizeof(text), "longer than the limit of %zu bytes", im->max);
    reject(im, line, WB_TOOBIG, text);
}

static enum cli_exit
take_line(struct import *im, struct wb_slice line)
{
    struct wb_message *m = &im->message[im->n];
    char *key = im->key[im->n];
    int len;

    im->lines++;
    if (im->lines == 1 && line.len >= 3 &&
        memcmp(line.ptr, "\xef\xbb\xbf", 3) == 0)
        line = wb__from(line, 3);
    if (line.len > 0 && line.ptr[line.len - 1] == '\r')
        line.len--;
    if (im->skipping) {
        im->skipping = false;
        return CLI_DONE;
    }
    if (line.len > im->max) {
        reject_long(im, im->lines);
        return CLI_DONE;
    }
    m->payload = line;
    if (im->lines == 1)
        cli_note_payload(im->cli, m);
    if (im->prefix.len > 0) {
        len = snprintf(key, KEY_BYTES, "%.*s:%llu", (int)im->prefix.len,
            im->prefix.ptr, (unsigned long long)im->lines);
        WB_ASSERT(len > 0 && len < KEY_BYTES);
        m->key = (struct wb_slice){key, (size_t)len};
    }
    im->number[im->n++] = im->lines;
    return im->n == LINES_MAX ? commit(im) : CLI_DONE;
}

/* All whole lines of the buffer. */
static enum cli_exit
take_lines(struct import *im)
{
    enum cli_exit code = CLI_DONE;
    const char *from, *end;

    while (code == CLI_DONE && stop_signal == 0) {
        from = im->in.ptr + im->start;
        end = memchr(from, '\n', im->in.len - im->start);
        if (end == NULL)
            break;
        im->start += (size_t)(end - from) + 1;
        code = take_line(im, (struct wb_slice){from, (size_t)(end - from)});
    }
    return code;
}

/* Free some of the buffer for the next read. Messages that wait for a commit
 * point into it: it moves only when there are none. */
static enum cli_exit
free_buffer(struct import *im)
{
    struct wb__buf *in = &im->in;
    enum cli_exit code = CLI_DONE;
    struct wb_err err;
    size_t len;

    if (in->len == in->cap || !wb__readable(STDIN_FILENO))
        code = commit(im);
    if (code != CLI_DONE || im->n > 0)
        return code;
    len = im->skipping ? 0 : in->len - im->start;
    memmove(in->ptr, in->ptr + im->start, len);
    im->start = 0;
    in->len = len;
    if (len < in->cap)
        return CLI_DONE;
    /* The whole buffer is the beginning of one line. */
    if (len > im->max) {
        reject_long(im, im->lines + 1);
        im->skipping = true;
        in->len = 0;
    } else if (wb__buf_room(in, READ_AHEAD) == NULL) {
        (void)wb__nomem(&err, "a line");
        return stop_at(im, im->lines + 1, &err);
    } else {
        in->len = len;
    }
    return CLI_DONE;
}

static enum cli_exit
take_all(struct import *im)
{
    struct wb__buf *in = &im->in;
    enum cli_exit code = CLI_DONE;
    struct wb_err err;
    size_t got = 1;

    while (got > 0 && stop_signal == 0) {
        code = free_buffer(im);
        if (code == CLI_DONE)
            code =
                read_stdin(im->cli, in->ptr + in->len, in->cap - in->len, &got);
        if (code != CLI_DONE)
            return code;
        in->len += got;
        code = take_lines(im);
        if (code != CLI_DONE)
            return code;
    }
    /* The last line may have no end. */
    if (stop_signal == 0 && (in->len > im->start || im->skipping))
        code = take_line(
            im, (struct wb_slice){in->ptr + im->start, in->len - im->start});
    if (code == CLI_DONE)
        code = commit(im);
    if (code != CLI_DONE || stop_signal == 0)
        return code;
    (void)wb__fail(&err, WB_UNAVAILABLE, 0, "interrupted");
    return stop_at(im, im->lines + 1, &err);
}

enum cli_exit
cli_import(struct cli *cli, const struct wb_message *m,
    struct wb_slice key_prefix, struct cli_counts *counts)
{
    struct import *im = wb__alloc(cli->env, sizeof(*im));
    enum cli_exit code;

    if (im != NULL) {
        im->cli = cli;
        im->counts = counts;
        im->prefix = key_prefix;
        im->max = payload_max(cli);
        im->in = (struct wb__buf){.env = cli->env, .max = im->max + READ_AHEAD};
    }
    if (im == NULL || wb__buf_room(&im->in, READ_AHEAD) == NULL) {
        code = cli_nomem(cli, "the import");
    } else {
        im->in.len = 0;
        for (size_t i = 0; i < LINES_MAX; i++)
            im->message[i] = *m;
        /* No SA_RESTART: a read that waits must return. */
        cli_on_stop_signal(on_stop_signal, 0);
        code = take_all(im);
        wb__buf_fini(&im->in);
    }
    wb__free(cli->env, im);
    return code;
}
