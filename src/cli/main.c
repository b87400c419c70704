/* main.c - start of the command: descriptors, commands, which executable.
 *
 * Two executables are made of the same sources. libcurl and libpq take longer
 * to load than all that `waybill send` does: waybill (FULL_PATH is defined) is
 * not linked with them, and executes waybill-full for commands that need them.
 *
 * (1) Descriptors 0, 1 and 2 are always open, so that no file of ours can get
 *     one of these numbers and be written to by accident.
 * (2) A stdout that could not be written to the end is a failure. A command
 *     that only reads ends by SIGPIPE if the pipe was closed. */
#include <errno.h>

#include "cli/cli.h"
#include "db/db.h"
#include "script/script.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

static const struct cli_command *const commands[] = {&cli_send, &cli_drain_once,
    &cli_run, &cli_status, &cli_list, &cli_show, &cli_retry, &cli_discard,
    &cli_pause, &cli_resume, &cli_backup, &cli_compact, &cli_metrics_command,
    &cli_doctor, &cli_init, &cli_migrate, &cli_claim, &cli_confirm,
    &cli_release, &cli_fail_one, &cli_extend, &cli_reset_stale, &cli_breaker,
    &cli_gate, &cli_once, &cli_keys, &cli_sink, &cli_completions, NULL};

/* ---- waybill and waybill-full ------------------------------------------- */

#ifdef FULL_PATH

/* Execute waybill-full with the same arguments if the command delivers, or its
 * database or store is PostgreSQL. DONE: this executable can run the command
 * itself. */
static enum cli_exit
switch_executable(struct cli *cli, char **argv)
{
    static const char end[] = "-full";
    const struct cli_command *c = cli->command;
    const char *db = cli_named_db(cli);
    const char *store = c == &cli_gate ? cli_text(cli, "store") : NULL;
    char beside[4096]; /* in a build folder it is beside this file */
    struct wb_err err;
    ssize_t n;

    if (c != &cli_drain_once && c != &cli_run && c != &cli_doctor &&
        !(c == &cli_send && cli_has(cli, "drain")) &&
        !(db != NULL && wb__db_is_postgres(db)) &&
        !(store != NULL && wb__db_is_postgres(store)))
        return CLI_DONE;
    n = readlink("/proc/self/exe", beside, sizeof(beside) - sizeof(end));
    if (n > 0) {
        memcpy(beside + n, end, sizeof(end));
        (void)execv(beside, argv);
    }
    (void)execv(FULL_PATH, argv);
    (void)wb__fail(&err, WB_UNAVAILABLE, errno,
        "%s needs %s, which cannot be run (%s); install Waybill again", c->name,
        FULL_PATH, strerror(errno));
    return cli_fail_as(cli, CLI_FAILED, &err);
}

#endif

/* cli->read_config */
static enum wb_status
read_config(struct cli *cli, bool transports, struct wb_err *err)
{
#ifdef FULL_PATH
    WB_ASSERT(!transports); /* see switch_executable() */
    return wb__config_read(&cli->config, cli->config_path, cli->env, true, err);
#else
    return wb_config_open(&cli->config, cli->config_path, cli->env,
        transports ? &cli->loop : NULL, err);
#endif
}

/* ---- main --------------------------------------------------------------- */

/* A descriptor that was closed is opened in the direction that cannot be used:
 * no file of ours gets its number, and using it fails. */
static void
open_standard_descriptors(void)
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

static enum cli_exit
run(struct cli *cli, int argc, char **argv)
{
    enum cli_exit code = cli_parse(cli, argc, argv);

    if (argc == 1)
        cli_help(cli);
    if (code != CLI_DONE)
        return code;
    if (cli_has(cli, "version")) {
        cli_print(cli, "waybill " WB_VERSION);
        return !cli->json
                   ? CLI_DONE
                   : cli_json(cli, json_pack("{s:s}", "version", WB_VERSION));
    }
    if (cli_has(cli, "help")) {
        cli_help(cli);
        return CLI_DONE;
    }
    cli->unwritten = "what was done is done, see waybill status";
#ifdef FULL_PATH
    code = switch_executable(cli, argv);
#endif
    if (code == CLI_DONE && cli->command->opens_outbox)
        code = cli_open(cli, NULL);
    return code == CLI_DONE ? cli->command->run(cli) : code;
}

/* End as other programs that print do. */
static void
end_by_sigpipe(void)
{
    (void)signal(SIGPIPE, SIG_DFL);
    (void)raise(SIGPIPE);
}

int
main(int argc, char **argv)
{
    static struct cli cli;
    enum cli_exit code;
    struct wb_err err;

    open_standard_descriptors();
#ifdef __GLIBC__
    /* SQLite frees some 150 KiB after each statement of an import. malloc often
     * returned them to the kernel and requested them again, a hundred thousand
     * times: imports took 1.7 times as long. */
    (void)mallopt(M_TRIM_THRESHOLD, 4 * 1024 * 1024);
#endif
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a file-size limit is a full disk */
    cli.env = wb_env_system();
    cli.commands = commands;
    cli.read_config = read_config;
    cli.now_ms = cli.env->wall_ms(cli.env->ctx);
    cli_watch_tables(&cli);
    code = run(&cli, argc, argv);
    cli_close(&cli);
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return (int)code;
    if (cli.unwritten == NULL && wb__pipe_closed(STDOUT_FILENO))
        end_by_sigpipe();
    (void)wb__fail(&err, WB_IO, 0,
        "standard output could not be written to%s%s",
        cli.unwritten != NULL ? "; " : "",
        cli.unwritten != NULL ? cli.unwritten : "");
    return (int)cli_fail(&cli, &err);
}
