/* main.c - from the words to the command and out again.
 *
 * (1) Descriptors 0, 1 and 2 are always taken, so that no file of ours can get
 *     one of these numbers and be written to by accident.
 * (2) A stdout that could not be written to the end is a failure. */
#include <signal.h>

#include "cli/cli.h"
#include "db/db.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

static const struct cli_command *const commands[] = {&cli_send, &cli_drain_once,
    &cli_run, &cli_status, &cli_list, &cli_show, &cli_retry, &cli_discard,
    &cli_pause, &cli_resume, &cli_backup, &cli_doctor, &cli_claim, &cli_confirm,
    &cli_release, &cli_fail_one, &cli_extend, &cli_reset_stale, &cli_breaker,
    &cli_gate, &cli_once, &cli_keys, &cli_sink, &cli_completions, NULL};

/* A closed descriptor stays as useless as it was: opened the wrong way. */
static void
take_standard_descriptors(void)
{
    uv_fs_t req;

    for (int fd = 0; fd <= 2; fd++) {
        if (uv_fs_fstat(NULL, &req, fd, NULL) == UV_EBADF) {
            uv_fs_req_cleanup(&req);
            (void)uv_fs_open(NULL, &req, "/dev/null",
                fd == 0 ? UV_FS_O_WRONLY : UV_FS_O_RDONLY, 0, NULL);
        }
        uv_fs_req_cleanup(&req);
    }
}

/* SQLite frees some 150 KiB after each statement of an import. Depending on how
 * the heap happens to lie, malloc gave that back to the kernel and asked for it
 * again a hundred thousand times: imports took 1.7 times as long. */
static void
keep_heap(void)
{
#ifdef __GLIBC__
    (void)mallopt(M_TRIM_THRESHOLD, 4 * 1024 * 1024);
#endif
}

/* Whether the command delivers, or its database is PostgreSQL: it then needs
 * libcurl or libpq, which waybill-full alone is linked with. */
static bool
needs_full(const struct cli *cli)
{
    const struct cli_command *command = cli->command;
    const char *db = cli_named_db(cli);

    return command == &cli_drain_once || command == &cli_run ||
           command == &cli_doctor ||
           (command == &cli_send && cli_has(cli, "drain")) ||
           (db != NULL && wb__db_is_postgres(db));
}

static enum cli_exit
run(struct cli *cli, int argc, char **argv)
{
    enum cli_exit code = cli_parse(cli, argc, argv);

    if (code != CLI_DONE)
        return code;
    if (cli_has(cli, "version")) {
        cli_tell(cli, "waybill " WB_VERSION);
        return !cli->json
                   ? CLI_DONE
                   : cli_json(cli, json_pack("{s:s}", "version", WB_VERSION));
    }
    if (cli_has(cli, "help")) {
        cli_help(cli);
        return CLI_DONE;
    }
    if (needs_full(cli))
        code = cli_switch(cli, argv);
    return code == CLI_DONE ? cli->command->run(cli) : code;
}

static enum cli_exit
close_stdout(struct cli *cli, enum cli_exit code)
{
    struct wb_err err;

    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return code;
    (void)wb__fail(&err, WB_IO, 0,
        "standard output could not be written to; %s", cli->unwritten);
    return cli_fail(cli, &err);
}

int
main(int argc, char **argv)
{
    static struct cli cli;
    enum cli_exit code;

    take_standard_descriptors();
    keep_heap();
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a file-size limit is a full disk */
    cli.env = wb_env_system();
    cli.commands = commands;
    cli.unwritten = "what was done is done, look with waybill status";
    cli.now_ms = cli.env->wall_ms(cli.env->ctx);
    code = run(&cli, argc, argv);
    cli_close(&cli);
    return (int)close_stdout(&cli, code);
}
