/* keys.h - what keys.c and keys_many.c share. */
#ifndef WB_SRC_CLI_KEYS_H
#define WB_SRC_CLI_KEYS_H

#include "cli/cli.h"

/* The key that the command line names. */
struct wb_idem_op cli_key_of_args(const struct cli *cli);

/* Do the options choose it? */
bool cli_key_chosen(const struct cli *cli, const struct wb_idem_item *item);

/* --status. Of the scope `once` an exit status, of a gateway's (METHOD /path)
 * one of HTTP; of other scopes any. False: printed, as of the next. */
bool cli_key_status(struct cli *cli, const struct wb_idem_op *op, int *status);

/* Is it one of --done, --not-applied and --ask? */
bool cli_keys_outcome(struct cli *cli);

enum cli_exit cli_keys_many(struct cli *cli, struct wb_idem *store);

#endif /* WB_SRC_CLI_KEYS_H */
