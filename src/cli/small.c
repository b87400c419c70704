/* small.c - how waybill hands commands that it cannot run to waybill-full.
 *
 * Two executables of the same sources: to load libcurl and libpq takes longer
 * than all that `waybill send` does, so waybill is not linked with them. */
#include <errno.h>

#include "cli/cli.h"
#include "script/script.h"

/* waybill-full stands beside this file in a build folder, else where it is
 * installed: FULL_PATH. */
enum cli_exit
cli_switch(struct cli *cli, char **argv)
{
    static const char end[] = "-full";
    char beside[4096];
    struct wb_err err;
    ssize_t n;

    n = readlink("/proc/self/exe", beside, sizeof(beside) - sizeof(end));
    if (n > 0) {
        memcpy(beside + n, end, sizeof(end));
        (void)execv(beside, argv);
    }
    (void)execv(FULL_PATH, argv);
    (void)wb__fail(&err, WB_UNAVAILABLE, errno,
        "%s needs %s, which cannot be run (%s); install Waybill again",
        cli->command->name, FULL_PATH, strerror(errno));
    return cli_fail_as(cli, CLI_FAILED, &err);
}

enum wb_status
cli_read_config(struct cli *cli, bool transports, struct wb_err *err)
{
    WB_ASSERT(!transports); /* see needs_full() in main.c */
    return wb__config_read(&cli->config, cli->config_path, cli->env, true, err);
}
