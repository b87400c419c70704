/* once.c - run a command once per key; replay its output.
 *
 * (1) The command runs only with the claim on its key; not without the store.
 * (2) Its output is passed on at once and also kept, even where it cannot be
 *     passed on.
 * (3) How the command ended decides. The key is freed only if it could not
 *     start, a signal ended it, or its status is in --release; and only if no
 *     process of the run is left. Any other end is kept, or is unknown.
 * (4) The claim says "sending" before the command starts: if this process
 *     dies, the key is unknown, unless --after-crash again. */
#include <errno.h>

#include "cli/cli.h"
#include "waybill/idem.h"

enum {
    KEEP_MAX = 16 * 1024 * 1024, /* stdout and stderr together */
    LEFT_MS = 1000,              /* for processes of the run to end */
    EXIT_MISMATCH = 65,
    EXIT_UNKNOWN = 69,
    EXIT_NOT_RECORDED = 74,
    EXIT_NOT_RUNNABLE = 126,
    EXIT_NOT_FOUND = 127
};

/* Headers of the record. Its body is stdout, then stderr; without Stdout-Bytes
 * all of it is stdout. With Output-Kept the output was not kept: "no", it was
 * too much; "no-memory". */
#define STDOUT_BYTES "Stdout-Bytes"
#define NOT_KEPT     "Output-Kept"

struct once {
    struct cli *cli;
    bool release[256]; /* exit statuses that free the key */
    struct wb__buf out, err, headers;
    const char *not_kept; /* value of Output-Kept; NULL: it is */
    bool ran, lost;
    int closed[3]; /* errno of a failed write, by fd */
    struct wb__process process;
};

static void
pass_on(struct once *o, int fd, struct wb_slice piece)
{
    if (o->closed[fd] != 0)
        return;
    o->closed[fd] = wb__write_all(fd, piece);
    if (o->closed[fd] != 0 && o->closed[fd] != EPIPE)
        cli_note(o->cli, "waybill once: %s: %s; continuing without it",
            fd == STDOUT_FILENO ? "standard output" : "standard error",
            strerror(o->closed[fd]));
}

static void
on_output(void *ctx, int fd, struct wb_slice piece)
{
    struct once *o = ctx;
    struct wb__buf *b = fd == STDOUT_FILENO ? &o->out : &o->err;

    pass_on(o, fd, piece);
    if (o->not_kept != NULL)
        return;
    if (piece.len > KEEP_MAX - o->out.len - o->err.len)
        o->not_kept = "no";
    else
        wb__buf_add(b, piece);
    if (b->failed != WB_OK)
        o->not_kept = "no-memory";
    if (o->not_kept == NULL)
        return;
    wb__buf_fini(&o->out);
    wb__buf_fini(&o->err);
}

/* All of stdout, then all of stderr, and the status. */
static enum cli_exit
replay(struct once *o, const struct wb_idem_record *record)
{
    struct wb_slice rest = record->headers, name, value;
    struct wb_slice out = record->body;
    uint64_t n, status = (uint64_t)record->status;
    char when[32];

    if (o->cli->verbose)
        cli_note(o->cli, "waybill once: replayed; recorded %s",
            cli_when(o->cli, record->stored_ms, when));
    while (wb__headers_next(&rest, &name, &value)) {
        if (wb__eq(name, WB_LIT(NOT_KEPT)))
            cli_note(o->cli, "waybill once: the output of the first run %s",
                wb__eq(value, WB_LIT("no-memory"))
                    ? "was not kept: out of memory"
                    : "was larger than 16 MiB and was not kept");
        if (wb__eq(name, WB_LIT(STDOUT_BYTES)) &&
            wb__parse_u64(value, record->body.len, &n))
            out.len = (size_t)n;
    }
    pass_on(o, STDOUT_FILENO, out);
    pass_on(o, STDERR_FILENO, wb__from(record->body, out.len));
    if (cli_has(o->cli, "exit-replayed"))
        status = cli_number(o->cli, "exit-replayed", 0);
    return (enum cli_exit)(status & 0xff);
}

static enum wb_idem_end
keep_record(struct once *o, struct wb_idem_record *record)
{
    o->headers = (struct wb__buf){.env = o->cli->env, .max = 256};
    if (o->not_kept != NULL)
        wb__buf_fmt(&o->headers, NOT_KEPT ": %s\n", o->not_kept);
    wb__buf_fmt(&o->headers, STDOUT_BYTES ": %zu\n", o->out.len);
    wb__buf_add(&o->out, wb__buf_slice(&o->err));
    o->lost = o->headers.failed != WB_OK || o->out.failed != WB_OK;
    if (o->lost)
        return WB_IDEM_MAYBE; /* no memory for the record */
    record->status = o->process.status;
    record->headers = wb__buf_slice(&o->headers);
    record->body = wb__buf_slice(&o->out);
    record->ttl_ms = cli_ms(o->cli, "ttl", WB_IDEM_TTL_MS);
    return WB_IDEM_APPLIED;
}

/* The command has ended in a way that frees its key. */
static enum wb_idem_end
free_or_hold(struct once *o)
{
    const char *why = "a process that it has started is still running";

    if (o->process.by_signal && cli_number(o->cli, "on-signal", 0) == 1)
        why = "a signal ended it";
    else if (!wb__process_left(LEFT_MS))
        return WB_IDEM_NOT_APPLIED;
    cli_print_error(o->cli, WB_UNAVAILABLE,
        "the command ended with %d, but %s: its outcome is unknown and the key "
        "is held; find out, then record it with waybill keys settle",
        o->process.status, why);
    return WB_IDEM_MAYBE;
}

static enum wb_idem_end
run_command(void *ctx, struct wb_idem_call *call)
{
    struct once *o = ctx;
    struct wb__process *p = &o->process;
    struct wb_err err = {0};

    if (wb__process_run(p, &err) != WB_OK) {
        p->status = CLI_FAILED;
        (void)cli_fail_as(o->cli, CLI_FAILED, &err);
        return WB_IDEM_NOT_APPLIED;
    }
    if (p->start_errno != 0) {
        p->status =
            p->start_errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_RUNNABLE;
        cli_print_error(o->cli, WB_NOTFOUND, "cannot run %s: %s", p->argv[0],
            strerror(p->start_errno));
        return WB_IDEM_NOT_APPLIED;
    }
    o->ran = true;
    if (p->by_signal || o->release[p->status & 0xff])
        return free_or_hold(o);
    return keep_record(o, &call->record);
}

/* The key was not acquired, and there is no record. */
static enum cli_exit
not_run(struct cli *cli, enum wb_idem_answer answer)
{
    const char *key = cli_text(cli, "key");
    struct wb_err err = {0};

    if (answer == WB_IDEM_MISMATCH) {
        (void)wb__fail(&err, WB_MISMATCH, 0,
            "key %s belongs to another command line; give each command a key "
            "of its own",
            key);
        return cli_fail_as(cli, (enum cli_exit)EXIT_MISMATCH, &err);
    }
    if (answer == WB_IDEM_UNKNOWN) {
        (void)wb__fail(&err, WB_UNAVAILABLE, 0,
            "the command was not run: an earlier run under key %s may have "
            "taken effect, and its outcome is unknown; find out, then record "
            "it with waybill keys settle",
            key);
        return cli_fail_as(cli, (enum cli_exit)EXIT_UNKNOWN, &err);
    }
    (void)wb__fail(&err, WB_BUSY, 0,
        "the command is still running under key %s; try again later", key);
    return cli_fail_as(cli, CLI_BUSY, &err);
}

/* ---- the fingerprint ---------------------------------------------------- */

/* The command line; and as asked for, the working folder and variables. What
 * follows the command line begins with a NUL, which no argument has. */
static void
add_surroundings(struct cli *cli, struct wb__buf *b)
{
    struct wb_slice rest = cli_slice(cli, "match-env"), name;
    char folder[4096], variable[256];
    const char *value;

    if (cli_has(cli, "match-folder") && getcwd(folder, sizeof(folder)) == NULL)
        folder[0] = '\0';
    if (cli_has(cli, "match-folder"))
        wb__buf_fmt(b, "%cfolder=%s", 0, folder);
    while (wb__cut(&rest, ',', &name)) {
        (void)snprintf(variable, sizeof(variable), "%.*s", WB_SHOW(name));
        value = getenv(variable);
        wb__buf_fmt(b, "%c%s%s%s", 0, variable, value == NULL ? "" : "=",
            value == NULL ? "" : value);
    }
}

static enum wb_status
fingerprint(struct cli *cli, struct wb_fingerprint *fp, struct wb_err *err)
{
    size_t n = cli->n_args;
    struct wb_slice *parts = wb__alloc(cli->env, (n + 1) * sizeof(*parts));
    struct wb__buf more = {.env = cli->env, .max = KEEP_MAX};
    enum wb_status rc = WB_NOMEM;

    add_surroundings(cli, &more);
    for (size_t i = 0; parts != NULL && i < n; i++)
        parts[i] = wb_slice(cli->arg[i]);
    if (parts != NULL && more.len > 0)
        parts[n++] = wb__buf_slice(&more);
    if (parts != NULL && more.failed == WB_OK)
        rc = wb_idem_fingerprint(parts, n, fp);
    wb__free(cli->env, parts);
    wb__buf_fini(&more);
    return rc == WB_OK ? rc : wb__nomem(err, "the command line");
}

/* ---- the command -------------------------------------------------------- */

static enum cli_exit
exit_code(struct once *o, enum wb_status rc,
    const struct wb_idem_result *result, struct wb_err *err)
{
    struct wb_err full;

    if (rc == WB_OK && o->lost)
        rc = wb__nomem(err, "the output");
    if (rc != WB_OK && o->ran) {
        /* Not the advice of the store, which is to try again. */
        (void)wb__fail(&full, err->status, err->sys,
            "the command ran and ended with %d, but that could not be "
            "recorded: %.*s; do not run it again before you know what it did; "
            "then waybill keys settle, or release",
            o->process.status, (int)strcspn(err->msg, ";"), err->msg);
        return cli_fail_as(o->cli, (enum cli_exit)EXIT_NOT_RECORDED, &full);
    }
    if (o->process.start_errno != 0)
        return (enum cli_exit)o->process.status;
    if (rc != WB_OK)
        return cli_fail_as(
            o->cli, rc == WB_INVALID ? CLI_USAGE : CLI_FAILED, err);
    if (result->answer == WB_IDEM_REPLAY)
        return replay(o, &result->record);
    if (result->answer == WB_IDEM_ACQUIRED)
        return (enum cli_exit)o->process.status;
    return not_run(o->cli, result->answer);
}

/* A status, FIRST-LAST, or nonzero. */
static bool
read_range(struct wb_slice one, uint64_t *first, uint64_t *last)
{
    struct wb_slice from;

    *first = 1;
    *last = 255;
    if (wb__eq(one, WB_LIT("nonzero")))
        return true;
    if (memchr(one.ptr, '-', one.len) == NULL)
        return wb__parse_u64(one, 255, first) && ((*last = *first), true);
    return wb__cut(&one, '-', &from) && wb__parse_u64(from, 255, first) &&
           wb__parse_u64(one, 255, last) && *first <= *last;
}

static bool
read_release(struct once *o)
{
    struct wb_slice rest = cli_slice(o->cli, "release"), one;
    uint64_t first, last;

    while (wb__cut(&rest, ',', &one)) {
        if (!read_range(wb__trim(one), &first, &last)) {
            (void)cli_usage(o->cli,
                "--release '%.*s': not an exit status; give 0 to 255, ranges "
                "(64-78) or nonzero, with commas between",
                WB_SHOW(one));
            return false;
        }
        for (; first <= last; first++)
            o->release[first] = true;
    }
    return true;
}

static enum cli_exit
run_once(struct cli *cli)
{
    struct once o = {.cli = cli,
        .out = {.env = cli->env, .max = KEEP_MAX},
        .err = {.env = cli->env, .max = KEEP_MAX},
        .process = {.argv = cli->arg, .output = on_output}};
    struct wb_idem_opts opts = {.env = cli->env};
    struct wb_idem_op op = {
        cli_slice(cli, "identity"), WB_LIT("once"), cli_slice(cli, "key")};
    struct wb_idem_begin how = {.lease_ms = cli_ms(cli, "lease", 0),
        .wait_ms = cli_ms(cli, "wait", 10000),
        .sending = cli_number(cli, "after-crash", 0) == 0};
    struct wb_idem_result result = {0};
    struct wb_fingerprint fp;
    struct wb_idem *store = NULL;
    struct wb_err err = {0};
    enum wb_status rc;
    enum cli_exit code;

    if (cli_number(cli, "exit-replayed", 0) > 255)
        return cli_usage(cli, "--exit-replayed: give 0 to 255");
    if (!read_release(&o))
        return CLI_USAGE;
    o.process.ctx = &o;
    if (setenv("WAYBILL_ONCE_KEY", cli_text(cli, "key"), 1) != 0)
        return cli_nomem(cli, "the environment");
    if (cli_find_db(cli, &err) != WB_OK ||
        wb_idem_open(&store, cli->db, &opts, &err) != WB_OK)
        return cli_fail_as(cli, CLI_FAILED, &err);
    rc = fingerprint(cli, &fp, &err);
    if (rc == WB_OK)
        rc = wb_idem_run(store, &op, &fp, &how, run_command, &o, &result, &err);
    code = exit_code(&o, rc, &result, &err);
    wb_idem_result_free(&result);
    wb_idem_close(store);
    wb__buf_fini(&o.out);
    wb__buf_fini(&o.err);
    wb__buf_fini(&o.headers);
    return code;
}

static const struct cli_option once_options[] = {
    {"key", CLI_NAME, "K", "runs with this key are one; required"},
    {"identity", CLI_TEXT, "I", "of the key [none]"},
    {"ttl", CLI_DURATION, "D",
        "keep the record for this long; 0s: for ever [24h]"},
    {"wait", CLI_DURATION, "D",
        "wait for another run of this key to end [10s]"},
    {"lease", CLI_SPAN, "D", "lease of the key, renewed while CMD runs [60s]"},
    {"release", CLI_TEXT, "STATUS,...",
        "exit statuses that free the key: 75, 64-78, nonzero [none]"},
    {"on-signal", CLI_CHOICE, "free|hold",
        "what death of CMD by a signal does to the key [free]"},
    {"after-crash", CLI_CHOICE, "unknown|again",
        "the key after a crash of once itself: held, or free [unknown]"},
    {"match-folder", CLI_FLAG, NULL,
        "the key belongs to this working folder, too"},
    {"match-env", CLI_TEXT, "NAME,...",
        "and to the values of these variables [none]"},
    {"exit-replayed", CLI_COUNT, "N",
        "exit with N if the output is replayed [as CMD did]"},
    {0},
};

const struct cli_command cli_once = {
    .name = "once",
    .group = "Idempotency",
    .args = "--key K [--identity I] [--ttl D] [--wait D] [--lease D] "
            "[--release STATUS,...] ... -- CMD ARGS...",
    .help = "run a command once; replay its output and status",
    .more = "Later calls with the same key print what the first one printed, "
            "up to 16 MiB, and\nexit as it did. Death by a signal frees the "
            "key. CMD dies with this command;\nif this command crashes, the "
            "key is unknown and held. CMD finds its key in\n"
            "WAYBILL_ONCE_KEY.",
    .options = once_options,
    .required = "key",
    .n_args = 1,
    .optional_args = CLI_MANY,
    .run = run_once,
    .no_json = true,
    .exits =
        "that of CMD, now or in the run that is replayed; 128+n for signal n\n"
        "126, 127  CMD could not be started; the key is free\n"
        "its own, each with a line on stderr that begins \"waybill once:\"\n"
        "1   not run: the store is not available\n"
        "2   not run: usage\n"
        "65  not run: the key belongs to another command line\n"
        "69  not run: the outcome of an earlier run is unknown; find out,\n"
        "    then waybill keys settle\n"
        "74  run, but not recorded: do not run it again before you know\n"
        "    what it did\n"
        "75  not run: another run of this key has not ended after the wait",
    .only_exits = true,
    .examples = "waybill once --key invoice-4711 -- ./charge 4711\n"
                "waybill once --key nightly --ttl 20h --release 1,75 -- "
                "./report",
};
