/* once.c - run a command once per key; replay its output.
 *
 * (1) The command runs only with the claim on its key; not without the store.
 * (2) Its output is passed on at once and also kept, even where it cannot be
 *     passed on.
 * (3) After a run the key is freed only if the command should run again: a
 *     signal ended it, its status is in --release, or it could not start. */
#include <errno.h>

#include "cli/cli.h"
#include "waybill/idem.h"

enum {
    KEEP_MAX = 16 * 1024 * 1024, /* stdout and stderr together */
    EXIT_MISMATCH = 65,
    EXIT_NOT_RUNNABLE = 126,
    EXIT_NOT_FOUND = 127
};

/* Headers of the record. Its body is stdout, then stderr; without Stdout-Bytes
 * all of it is stdout. With Output-Kept the output was too much to keep. */
#define STDOUT_BYTES "Stdout-Bytes"
#define NOT_KEPT     "Output-Kept"

struct once {
    struct cli *cli;
    bool release[256]; /* exit statuses that free the key */
    struct wb__buf out, err, headers;
    bool too_much, ran, lost;
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
    if (o->too_much)
        return;
    o->too_much = piece.len > KEEP_MAX - o->out.len - o->err.len;
    if (!o->too_much)
        wb__buf_add(b, piece);
    if (!o->too_much && b->failed == WB_OK)
        return;
    o->too_much = true;
    wb__buf_fini(&o->out);
    wb__buf_fini(&o->err);
}

/* All of stdout, then all of stderr, and the status. */
static enum cli_exit
replay(struct once *o, const struct wb_idem_record *record)
{
    struct wb_slice rest = record->headers, name, value;
    struct wb_slice out = record->body;
    uint64_t n;

    while (wb__headers_next(&rest, &name, &value)) {
        if (wb__eq(name, WB_LIT(NOT_KEPT)))
            cli_note(o->cli,
                "waybill once: the output of the first run was larger than "
                "16 MiB and was not kept");
        if (wb__eq(name, WB_LIT(STDOUT_BYTES)) &&
            wb__parse_u64(value, record->body.len, &n))
            out.len = (size_t)n;
    }
    pass_on(o, STDOUT_FILENO, out);
    pass_on(o, STDERR_FILENO, wb__from(record->body, out.len));
    return (enum cli_exit)(record->status & 0xff);
}

static enum wb_idem_end
keep_record(struct once *o, struct wb_idem_record *record)
{
    o->headers = (struct wb__buf){.env = o->cli->env, .max = 256};
    if (o->too_much)
        wb__buf_str(&o->headers, NOT_KEPT ": no\n");
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
    if (p->by_signal || p->forwarded || o->release[p->status & 0xff])
        return WB_IDEM_NOT_APPLIED;
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
            "the command ran under key %s and nobody knows how it ended; find "
            "out, then record it with waybill keys settle",
            key);
        return cli_fail_as(cli, CLI_FAILED, &err);
    }
    (void)wb__fail(&err, WB_BUSY, 0,
        "the command is still running under key %s; try again later", key);
    return cli_fail_as(cli, CLI_BUSY, &err);
}

static enum wb_status
fingerprint(struct cli *cli, struct wb_fingerprint *fp, struct wb_err *err)
{
    struct wb_slice *parts = wb__alloc(cli->env, cli->n_args * sizeof(*parts));
    enum wb_status rc = WB_NOMEM;

    for (size_t i = 0; parts != NULL && i < cli->n_args; i++)
        parts[i] = wb_slice(cli->arg[i]);
    if (parts != NULL)
        rc = wb_idem_fingerprint(parts, cli->n_args, fp);
    wb__free(cli->env, parts);
    return rc == WB_OK ? rc : wb__nomem(err, "the command line");
}

static enum cli_exit
exit_code(struct once *o, enum wb_status rc,
    const struct wb_idem_result *result, struct wb_err *err)
{
    struct wb_err full;

    if (rc == WB_OK && o->lost)
        rc = wb__nomem(err, "the output");
    if (rc != WB_OK && o->ran) {
        (void)wb__fail(&full, err->status, err->sys,
            "the command ran and ended with %d, but that could not be "
            "recorded: %.150s",
            o->process.status, err->msg);
        return cli_fail_as(o->cli, CLI_FAILED, &full);
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

static bool
read_release(struct once *o)
{
    struct wb_slice rest = cli_slice(o->cli, "release"), one;
    uint64_t n;

    while (wb__cut(&rest, ',', &one)) {
        if (!wb__parse_u64(wb__trim(one), 255, &n)) {
            (void)cli_usage(o->cli,
                "--release '%.*s': not an exit status; give 0 to 255, with "
                "commas between",
                WB_SHOW(one));
            return false;
        }
        o->release[n] = true;
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
        .wait_ms = cli_ms(cli, "wait", 10000)};
    struct wb_idem_result result = {0};
    struct wb_fingerprint fp;
    struct wb_idem *store = NULL;
    struct wb_err err = {0};
    enum wb_status rc;
    enum cli_exit code;

    if (cli->json)
        return cli_usage(cli, "--json has no meaning here; leave it out");
    if (!read_release(&o))
        return CLI_USAGE;
    o.process.ctx = &o;
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
        "exit statuses that free the key [none]"},
    {0},
};

const struct cli_command cli_once = {
    .name = "once",
    .group = "Idempotency",
    .args = "--key K [--identity I] [--ttl D] [--wait D] [--lease D] "
            "[--release STATUS,...] -- CMD ARGS...",
    .help = "run a command once; replay its output and status",
    .more = "Later calls with the same key print what the first one printed, "
            "up to 16 MiB, and\nexit as it did. Death by a signal frees the "
            "key. CMD dies with this command.",
    .options = once_options,
    .required = "key",
    .n_args = 1,
    .optional_args = CLI_MANY,
    .run = run_once,
    .exits = "65  the key belongs to another command line\n"
             "75  still running after the wait\n"
             "126, 127  CMD could not be started\n"
             "others: as CMD ended, 128+n for signal n",
    .examples = "waybill once --key invoice-4711 -- ./charge 4711\n"
                "waybill once --key nightly --ttl 20h --release 1,75 -- "
                "./report",
};
