/* import.c - an import: each line of stdin is a message.
 *
 * (1) Memory is one buffer and LINES_MAX messages, whatever comes in; nothing
 *     is allocated per line.
 * (2) A commit takes LINES_MAX lines, or those there are when no more comes at
 *     once: a slow producer's lines do not wait for its next ones.
 * (3) A bad line is told with its number and skipped. An import that stops
 *     says at which line to go on, also if it was a signal that stopped it. */
#include "cli/cli.h"

#define LINES_MAX  1000
#define READ_AHEAD ((size_t)1024 * 1024)
#define KEY_ROOM   256

struct import {
    struct cli *cli;
    struct cli_counts *counts;
    struct wb_slice prefix; /* of keys; may be empty */
    size_t max;             /* longest payload */
    struct wb_message message[LINES_MAX];
    struct wb_accepted accepted[LINES_MAX];
    uint64_t number[LINES_MAX]; /* of the line, from 1 */
    char key[LINES_MAX][KEY_ROOM];
    size_t n;          /* messages that wait for a commit */
    uint64_t lines;    /* seen */
    uint64_t full_at;  /* first line that found no room, or 0 */
    bool skipping;     /* the rest of a line that is too long */
    struct wb__buf in; /* what was read; lines before start are taken */
    size_t start;
};

/* ---- commits ----------------------------------------------------------- */

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
    cli_complain(im->cli, why, "line %llu: %s", (unsigned long long)line, text);
}

static void
count(struct import *im, size_t i)
{
    const struct wb_accepted *a = &im->accepted[i];

    if (a->status == WB_OK && a->duplicate)
        im->counts->duplicates++;
    else if (a->status == WB_OK)
        im->counts->accepted++;
    else if (a->status != WB_FULL)
        reject(im, im->number[i], a->status, wb_status_text(a->status));
    else if (im->full_at == 0)
        im->full_at = im->number[i];
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
    /* All that a line could make invalid is checked before the first one. */
    for (size_t i = 0; i < n; i++) {
        if (im->accepted[i].status == WB_INVALID)
            return stop_at(im, im->number[i], &err);
        count(im, i);
    }
    cli_progress(im->cli, "%llu lines, %llu accepted",
        (unsigned long long)im->lines,
        (unsigned long long)im->counts->accepted);
    if (im->full_at == 0)
        return CLI_DONE;
    err.status = WB_FULL;
    return stop_at(im, im->full_at, &err);
}

/* ---- lines ------------------------------------------------------------- */

static void
set_key(struct import *im, struct wb_message *m)
{
    char *key = im->key[im->n];
    int len = snprintf(key, KEY_ROOM, "%.*s:%llu", (int)im->prefix.len,
        im->prefix.ptr, (unsigned long long)im->lines);

    WB_ASSERT(len > 0 && len < KEY_ROOM);
    m->key = (struct wb_slice){key, (size_t)len};
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

    im->lines++;
    if (im->skipping) {
        im->skipping = false;
        return CLI_DONE;
    }
    if (line.len > im->max) {
        reject_long(im, im->lines);
        return CLI_DONE;
    }
    m->payload = line;
    if (im->prefix.len > 0)
        set_key(im, m);
    im->number[im->n++] = im->lines;
    return im->n == LINES_MAX ? commit(im) : CLI_DONE;
}

static enum cli_exit
take_lines(struct import *im)
{
    enum cli_exit code = CLI_DONE;
    const char *from, *end;

    while (code == CLI_DONE && cli_stopped == 0) {
        from = im->in.ptr + im->start;
        end = memchr(from, '\n', im->in.len - im->start);
        if (end == NULL)
            break;
        im->start += (size_t)(end - from) + 1;
        code = take_line(im, (struct wb_slice){from, (size_t)(end - from)});
    }
    return code;
}

/* The whole buffer is the beginning of one line. */
static enum cli_exit
grow(struct import *im)
{
    size_t len = im->in.len;
    struct wb_err err;

    if (im->in.cap > im->max) {
        reject_long(im, im->lines + 1);
        im->skipping = true;
    } else if (wb__buf_room(&im->in, READ_AHEAD) == NULL) {
        (void)wb__nomem(&err, "a line");
        return stop_at(im, im->lines + 1, &err);
    }
    im->in.len = im->skipping ? 0 : len;
    return CLI_DONE;
}

/* Room for the next read. Messages that wait point into the buffer: it moves
 * only when there are none. */
static enum cli_exit
make_room(struct import *im)
{
    bool full = im->in.len == im->in.cap;
    enum cli_exit code = CLI_DONE;

    if (full || !wb__readable(STDIN_FILENO))
        code = commit(im);
    if (code != CLI_DONE || im->n > 0)
        return code;
    im->in.len -= im->start;
    memmove(im->in.ptr, im->in.ptr + im->start, im->in.len);
    im->start = 0;
    if (im->skipping)
        im->in.len = 0;
    return im->in.len == im->in.cap ? grow(im) : CLI_DONE;
}

static enum cli_exit
interrupted(struct import *im)
{
    enum cli_exit code = commit(im);
    struct wb_err err;

    if (code != CLI_DONE)
        return code;
    (void)wb__fail(&err, WB_UNAVAILABLE, 0, "interrupted");
    return stop_at(im, im->lines + 1, &err);
}

static enum cli_exit
take_all(struct import *im)
{
    enum cli_exit code = CLI_DONE;
    size_t got = 1;

    while (code == CLI_DONE && got > 0 && cli_stopped == 0) {
        code = make_room(im);
        if (code == CLI_DONE)
            code = cli_read_stdin(im->cli, im->in.ptr + im->in.len,
                im->in.cap - im->in.len, &got);
        im->in.len += code == CLI_DONE ? got : 0;
        if (code == CLI_DONE)
            code = take_lines(im);
    }
    if (code == CLI_DONE && cli_stopped != 0)
        return interrupted(im);
    /* The last line may have no end. */
    if (code == CLI_DONE && (im->in.len > im->start || im->skipping))
        code = take_line(im,
            (struct wb_slice){im->in.ptr + im->start, im->in.len - im->start});
    return code == CLI_DONE ? commit(im) : code;
}

enum cli_exit
cli_import(struct cli *cli, const struct wb_message *m,
    struct wb_slice key_prefix, struct cli_counts *counts)
{
    struct import *im = wb__alloc(cli->env, sizeof(*im));
    enum cli_exit code = CLI_FAILED;
    struct wb_err err;

    if (im != NULL) {
        im->cli = cli;
        im->counts = counts;
        im->prefix = key_prefix;
        im->max = cli_payload_max(cli);
        im->in = (struct wb__buf){.env = cli->env, .max = im->max + READ_AHEAD};
    }
    if (im == NULL || wb__buf_room(&im->in, READ_AHEAD) == NULL) {
        (void)wb__nomem(&err, "the import");
        code = cli_fail(cli, &err);
    } else {
        im->in.len = 0;
        for (size_t i = 0; i < LINES_MAX; i++)
            im->message[i] = *m;
        cli_stop_on_signals();
        code = take_all(im);
        wb__buf_fini(&im->in);
    }
    wb__free(cli->env, im);
    return code;
}
