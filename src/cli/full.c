/* full.c - what waybill-full does where waybill (small.c) cannot. */
#include "cli/cli.h"

enum cli_exit
cli_switch(struct cli *cli, char **argv)
{
    (void)cli;
    (void)argv;
    return CLI_DONE;
}

enum wb_status
cli_read_config(struct cli *cli, bool transports, struct wb_err *err)
{
    return wb_config_open(&cli->config, cli->config_path, cli->env,
        transports ? &cli->loop : NULL, err);
}
