/* doctor.c - what could be wrong, and its mend.
 *
 * (1) Every check that can be made is made: a database that does not open, or
 *     a configuration that does not read, is a finding and not the end.
 * (2) Looking changes nothing: a database that is not there stays so. */
#include "cli/cli.h"
#include "db/db.h"

#define WAL_MAX ((int64_t)64 * 1024 * 1024)

struct visit {
    struct cli *cli;
    json_t *checks;
    bool sick;
    struct cli_table table;
};

/* mend NULL: it is well. */
static void check(struct visit *v, const char *name, const char *mend,
    const char *fmt, ...) WB_PRINTF(4, 5);
static void
check(struct visit *v, const char *name, const char *mend, const char *fmt, ...)
{
    char detail[400], line[4 * 400 + 1];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(detail, sizeof(detail), fmt, ap);
    va_end(ap);
    (void)wb__one_line(wb_slice(detail), 400, line);
    v->sick = v->sick || mend != NULL;
    if (v->cli->json) {
        (void)json_array_append_new(
            v->checks, json_pack("{s:s, s:b, s:s, s:s?}", "name", name, "ok",
                           (int)(mend == NULL), "detail", line, "mend", mend));
        return;
    }
    cli_cell(&v->table, "%s", mend == NULL ? "ok" : "FAILED");
    cli_cell(&v->table, "%s", name);
    cli_cell(&v->table, "%.150s%s%.140s", line, mend != NULL ? " -> " : "",
        mend != NULL ? mend : "");
    cli_row(&v->table);
}

/* ---- the files --------------------------------------------------------- */

#define STICKY 01000

/* mask: what others must not be allowed. */
static void
check_mode(struct visit *v, const char *name, const char *path, uint32_t mask,
    const char *mend)
{
    struct wb__file_info p = wb__file_info_of(path);

    if (p.exists)
        check(v, name,
            (p.mode & mask) != 0 && (p.mode & STICKY) == 0 ? mend : NULL,
            "%s is %04o", path, p.mode);
}

static void
check_files(struct visit *v)
{
    char folder[sizeof(v->cli->db)];
    char *slash;

    check_mode(v, "file_mode", v->cli->db, 077,
        "others may read the messages: chmod 600 the database");
    (void)snprintf(folder, sizeof(folder), "%s", v->cli->db);
    slash = strrchr(folder, '/');
    if (slash == NULL)
        (void)snprintf(folder, sizeof(folder), ".");
    else
        slash[slash == folder] = '\0';
    check_mode(v, "folder_mode", folder, 022,
        "others may put another file in its place: chmod 700 the folder");
}

/* ---- the database ------------------------------------------------------ */

static void
check_sqlite(struct visit *v, const struct wb_health *h)
{
    check(v, "integrity",
        strcmp(h->integrity, "ok") == 0
            ? NULL
            : "stop all writers, copy the file away, restore a backup",
        "%s", h->integrity);
    check(v, "sqlite_version", NULL, "%s%s", h->engine,
        h->wal_reset_bug
            ? " has the WAL reset bug; the guarded checkpoint is in force"
            : "");
    check(v, "journal",
        strcmp(h->journal_mode, "wal") == 0 && h->full_sync
            ? NULL
            : "a power cut can lose messages: let no other program change "
              "the journal mode",
        "journal_mode %s, synchronous %s", h->journal_mode,
        h->full_sync ? "full" : "less than full");
    check(v, "wal_size",
        h->wal_bytes > WAL_MAX
            ? "a reader keeps an old snapshot open: find it and end it"
            : NULL,
        "%lld bytes of WAL beside %lld of database", (long long)h->wal_bytes,
        (long long)h->file_bytes);
    check(v, "file_system",
        h->network_fs ? "locks do not hold there: move it to a local disk"
                      : NULL,
        "%s", h->network_fs ? "on a network file system" : "local");
}

static void
check_stuck(struct visit *v, const struct wb_health *h)
{
    check(v, "stuck_claims",
        h->stuck > 0 ? "see whether the workers are alive, then: waybill "
                       "reset-stale"
                     : NULL,
        "%llu claims whose worker seems dead", (unsigned long long)h->stuck);
}

static void
check_postgres(struct visit *v, const struct wb_health *h)
{
    check(v, "integrity",
        strcmp(h->integrity, "ok") == 0 ? NULL : "REINDEX TABLE waybill_outbox",
        "%s", h->integrity);
    check(v, "server_version", NULL, "%s", h->engine);
    check(v, "journal",
        h->full_sync ? NULL
                     : "a power cut can lose messages: set fsync and "
                       "full_page_writes to on",
        "fsync and full_page_writes %s", h->full_sync ? "on" : "not both on");
}

static const char *
mend_of(enum wb_status status)
{
    switch (status) {
    case WB_BUSY:
        return "another program holds the lock: wait, or end it";
    case WB_CORRUPT:
        return "give --db a database of waybill's, or restore a backup";
    case WB_NEWER:
        return "use the version of waybill that wrote it, or a later one";
    case WB_IO:
        return "see to the disk and to the rights on file and folder";
    default:
        return "see to the rights on file and folder, or give --db another "
               "place";
    }
}

static void
check_database(struct visit *v)
{
    struct wb_outbox_opts opts = {0};
    struct wb_health health = {0};
    struct wb_err err = {0};
    struct cli *cli = v->cli;
    const char *shown;
    enum wb_status rc;
    bool postgres;

    if (cli_find_db(cli, &err) != WB_OK) {
        check(v, "database", "give --db FILE", "%s", err.msg);
        return;
    }
    postgres = wb__db_is_postgres(cli->db);
    shown = postgres ? "PostgreSQL" : cli->db; /* a url may hold a password */
    if (!postgres)
        check_files(v);
    if (cli->config != NULL)
        opts = *wb_config_outbox(cli->config);
    opts.env = cli->env;
    opts.existing = true;
    rc = wb_outbox_open(&cli->box, cli->db, &opts, &err);
    if (rc == WB_NOTFOUND) {
        check(v, "database", NULL,
            "%s is not there yet; the first send makes it", shown);
        return;
    }
    if (rc == WB_OK)
        rc = wb_outbox_health(cli->box, &health, &err);
    if (rc != WB_OK) {
        check(v, "database", mend_of(rc), "%s", err.msg);
        return;
    }
    check(v, "database", NULL, "%s opens, schema %lld", shown,
        (long long)health.schema_version);
    if (postgres)
        check_postgres(v, &health);
    else
        check_sqlite(v, &health);
    check_stuck(v, &health);
}

/* ---- clock, configuration, routes -------------------------------------- */

static void
check_clock(struct visit *v)
{
    static const int64_t from_ms = 1735689600000, to_ms = 4102444800000;
    int64_t now_ms = v->cli->now_ms;
    char text[32];

    wb__format_time(now_ms, text);
    check(v, "clock",
        now_ms < from_ms || now_ms > to_ms
            ? "set the clock: due times and leases follow it"
            : NULL,
        "%s", text);
}

/* Whether a URL keeps to TLS or to this machine. */
static bool
safe_endpoint(const char *url)
{
    static const char *const local[] = {"http://127.", "http://localhost/",
        "http://localhost:", "http://[::1]"};
    struct wb_slice s = wb_slice(url);

    if (!wb__starts(s, WB_LIT("http://")))
        return true;
    for (size_t i = 0; i < WB_COUNT(local); i++) {
        if (wb__starts(s, wb_slice(local[i])))
            return true;
    }
    return false;
}

static void
check_endpoints(struct visit *v)
{
    const struct cli *cli = v->cli;
    size_t unsafe = 0;

    for (size_t i = 0; i < cli->n_routes; i++) {
        const char *url = cli->routes[i].endpoint;

        if (url == NULL || safe_endpoint(url))
            continue;
        unsafe++;
        check(v, "endpoints", "messages go in the clear: use https",
            "route %s: %s", cli->routes[i].kind, url);
    }
    if (unsafe == 0)
        check(v, "endpoints", NULL, "%zu routes%s", cli->n_routes,
            cli->n_routes > 0 ? ", each by TLS or on this machine"
                              : "; drain and run have nothing to deliver to");
}

static void
check_config(struct visit *v)
{
    struct wb_err err = {0};

    if (cli_open_config(v->cli, true, &err) != WB_OK) {
        check(v, "config", "mend that line, or the secret it names", "%s",
            err.msg);
        return;
    }
    check(v, "config", NULL, "%s",
        v->cli->config_path[0] != '\0' ? v->cli->config_path
                                       : "none, so no routes");
    check_endpoints(v);
}

static void
check_last_drain(struct visit *v)
{
    json_t *last = cli_last_drain(v->cli);
    json_int_t at_ms = 0, attempted = 0, confirmed = 0;
    char when[32];

    if (json_unpack(last, "{s:I, s:I, s:I}", "at_ms", &at_ms, "attempted",
            &attempted, "confirmed", &confirmed) == 0)
        check(v, "last_drain", NULL, "%s: %lld attempted, %lld confirmed",
            cli_when(v->cli, at_ms, when), (long long)attempted,
            (long long)confirmed);
    else
        check(v, "last_drain", NULL, "none, or its note was lost");
    json_decref(last);
}

static enum cli_exit
run_doctor(struct cli *cli)
{
    static const char *const head[] = {"", "CHECK", "FINDING"};
    struct visit v = {.cli = cli};
    enum cli_exit code;

    v.checks = json_array();
    cli_table_begin(cli, &v.table, head, WB_COUNT(head));
    check_config(&v);
    check_database(&v);
    check_clock(&v);
    check(&v, "spill", NULL, "no spilled messages");
    check_last_drain(&v);
    if (cli->json)
        code = cli_json(cli, json_pack("{s:O}", "checks", v.checks));
    else
        code = cli_table_end(cli, &v.table);
    json_decref(v.checks);
    return code == CLI_DONE && v.sick ? CLI_FAILED : code;
}

const struct cli_command cli_doctor = {
    .name = "doctor",
    .group = "Outbox",
    .args = "",
    .help = "what could be wrong, and its mend",
    .more = "Exit 0: all is well. 1: at least one finding.",
    .run = run_doctor,
    .examples = "waybill doctor\n"
                "waybill --json doctor | jq '.checks[] | select(.ok | not)'",
};
