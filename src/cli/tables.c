/* tables.c - init and migrate: make the tables, or bring them up to date.
 *
 * (1) A command that brings the tables up to date says so on stderr. Commands
 *     that only read never do it: they say what to do. */
#include "cli/cli.h"
#include "db/db.h"

static void
on_tables(void *ctx, int from, int to, bool changed)
{
    struct cli *cli = ctx;

    cli->tables = (struct cli_tables){from, to, changed};
    if (changed && from > 0 && cli->command != &cli_migrate &&
        cli->command != &cli_init)
        cli_note(cli,
            "waybill %s: brought the tables up to date, from version %d to %d",
            cli->command->name, from, to);
}

void
cli_watch_tables(struct cli *cli)
{
    wb__tables_watch.found = on_tables;
    wb__tables_watch.ctx = cli;
}

static enum cli_exit
run_init_or_migrate(struct cli *cli)
{
    const struct cli_tables *t = &cli->tables;
    const char *name = wb__db_is_postgres(cli->db) ? "PostgreSQL" : cli->db;
    json_t *object = json_pack("{s:o, s:i, s:o, s:b}", "db",
        cli_str(wb_slice(name)), "version", t->to, "from",
        t->from == 0 ? json_null() : json_integer(t->from), "changed",
        (int)t->changed);

    if (!t->changed)
        return cli_result(cli, object,
            "%s: nothing to do, the tables are of version %d", name, t->to);
    if (t->from == 0)
        return cli_result(
            cli, object, "%s: made, with tables of version %d", name, t->to);
    return cli_result(cli, object,
        "%s: brought up to date, from version %d to %d", name, t->from, t->to);
}

const struct cli_command cli_init = {
    .name = "init",
    .group = "Outbox",
    .args = "",
    .help = "make the database and its tables",
    .more = "As the first send does by itself. Where they are there, it is "
            "migrate.",
    .run = run_init_or_migrate,
    .opens_outbox = true,
    .examples = "waybill --db /var/lib/app/waybill.db init",
};

const struct cli_command cli_migrate = {
    .name = "migrate",
    .group = "Outbox",
    .args = "",
    .help = "bring the tables up to date after an upgrade",
    .more =
        "As the next command that writes does by itself, and says. An older "
        "Waybill does\nnot open them afterwards: back up first.",
    .run = run_init_or_migrate,
    .opens_outbox = true,
    .examples = "waybill backup before-the-upgrade.db && waybill migrate",
};
