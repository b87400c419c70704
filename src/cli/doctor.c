/* doctor.c - checks the installation: each problem with its fix.
 *
 * (1) Every check that is possible is made: a database that does not open, or a
 *     configuration that cannot be read, is a finding like others.
 * (2) It changes nothing: a database that does not exist is not created. */
#include "cli/cli.h"
#include "db/db.h"

#define WAL_MAX        ((int64_t)64 * 1024 * 1024)
#define TRANSACTION_MS ((int64_t)600 * 1000)
#define CLOCK_FROM_MS  INT64_C(1735689600000) /* 2025 */
#define CLOCK_TO_MS    INT64_C(4102444800000) /* 2100 */

struct checkup {
    struct cli *cli;
    json_t *checks;
    bool failed;
    uint64_t future; /* messages with a time in the future */
    struct cli_table table;
};

/* fix NULL: no problem was found. */
static void check(struct checkup *c, const char *name, const char *fix,
    const char *fmt, ...) WB_PRINTF(4, 5);
static void
check(
    struct checkup *c, const char *name, const char *fix, const char *fmt, ...)
{
    char detail[400], line[4 * 400 + 1];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(detail, sizeof(detail), fmt, ap);
    va_end(ap);
    (void)wb__one_line(wb_slice(detail), 400, line);
    c->failed = c->failed || fix != NULL;
    if (c->cli->json) {
        (void)json_array_append_new(
            c->checks, json_pack("{s:s, s:b, s:s, s:s?}", "name", name, "ok",
                           (int)(fix == NULL), "detail", line, "fix", fix));
        return;
    }
    cli_cell(&c->table, "%s", fix == NULL ? "ok" : "FAILED");
    cli_cell(&c->table, "%s", name);
    cli_cell(&c->table, "%.150s%s%.140s", line, fix != NULL ? " -> " : "",
        fix != NULL ? fix : "");
    cli_row(&c->table);
}

#define STICKY 01000

/* mask: permissions that other users must not have. */
static void
check_mode(struct checkup *c, const char *name, const char *path, uint32_t mask,
    const char *fix)
{
    struct wb__file_info p = wb__file_info_of(path);

    if (p.exists)
        check(c, name,
            (p.mode & mask) != 0 && (p.mode & STICKY) == 0 ? fix : NULL,
            "%s is %04o", path, p.mode);
}

static void
check_files(struct checkup *c)
{
    char folder[sizeof(c->cli->db)];
    char *slash;

    check_mode(c, "file_mode", c->cli->db, 077,
        "others may read the messages: chmod 600 the database");
    /* Of the file itself, not of a link to it. */
    if (!wb__db_file_name(c->cli->db, folder, sizeof(folder)))
        (void)snprintf(folder, sizeof(folder), "%s", c->cli->db);
    slash = strrchr(folder, '/');
    if (slash == NULL)
        (void)snprintf(folder, sizeof(folder), ".");
    else
        slash[slash == folder] = '\0';
    check_mode(c, "folder_mode", folder, 022,
        "others may replace the database: chmod 700 the folder");
}

static void
check_sqlite(struct checkup *c, const struct wb_health *h)
{
    check(c, "integrity",
        strcmp(h->integrity, "ok") == 0
            ? NULL
            : "stop all writers, copy the file away, restore a backup",
        "%s", h->integrity);
    check(c, "sqlite_version", NULL, "%s%s", h->engine,
        h->wal_reset_bug ? " has the WAL reset bug; Waybill works around it"
                         : "");
    check(c, "journal",
        strcmp(h->journal_mode, "wal") == 0 && h->full_sync
            ? NULL
            : "a power cut can lose messages: let no other program change "
              "the journal mode",
        "journal_mode %s, synchronous %s", h->journal_mode,
        h->full_sync ? "full" : "less than full");
    check(c, "wal_size",
        h->wal_bytes > WAL_MAX
            ? "a worker shortens it when it is idle; if it stays, a reader "
              "keeps an old snapshot open: find it and stop it"
            : NULL,
        "WAL of %lld bytes, database of %lld bytes", (long long)h->wal_bytes,
        (long long)h->file_bytes);
    check(c, "file_system",
        h->network_fs ? "locks do not work there: move it to a local disk"
                      : NULL,
        "%s", h->network_fs ? "on a network file system" : "local");
}

static int64_t
age_of(const struct cli *cli, int64_t ms)
{
    return ms == 0 || ms > cli->now_ms ? 0 : cli->now_ms - ms;
}

static void
check_postgres(struct checkup *c, const struct wb_health *h)
{
    int64_t age_ms = age_of(c->cli, h->snapshot_ms);
    char span[32];

    check(c, "integrity",
        strcmp(h->integrity, "ok") == 0 ? NULL : "REINDEX TABLE waybill_outbox",
        "%s", h->integrity);
    check(c, "server_version", NULL, "%s", h->engine);
    check(c, "journal",
        h->full_sync ? NULL
                     : "a power cut can lose messages: set fsync and "
                       "full_page_writes to on",
        "fsync and full_page_writes %s", h->full_sync ? "on" : "not both on");
    check(c, "transaction",
        age_ms > cli_ms(c->cli, "transaction", TRANSACTION_MS)
            ? "it keeps PostgreSQL from removing the rows of ended messages, "
              "and "
              "claims get slower: end it; idle_in_transaction_session_timeout "
              "ends those that wait"
            : NULL,
        "the oldest of another session lasts for %s%s%s",
        h->snapshot_ms == 0 ? "-" : cli_span(age_ms, span),
        h->snapshot_ms == 0 ? "" : ": ", h->snapshot);
}

static const char *
fix_of(enum wb_status status)
{
    switch (status) {
    case WB_BUSY:
        return "another program holds the lock: wait, or stop it";
    case WB_CORRUPT:
        return "give --db a database of Waybill, or restore a backup";
    case WB_NEWER:
        return "use the version of Waybill that wrote it, or a later one";
    case WB_IO:
        return "check the disk and the permissions of file and folder";
    case WB_UNAVAILABLE:
        return "start the server, or correct the address in --db";
    case WB_REFUSED:
        return "do what the finding says, or give another --db";
    default:
        return "check the permissions of file and folder, or give another --db";
    }
}

static const char *
server_fix_of(enum wb_status status)
{
    switch (status) {
    case WB_UNAVAILABLE:
        return "start the server, or check host, port, database, user and "
               "password of --db and the network; psql with the same URL shows "
               "whether they are right";
    case WB_BUSY:
        return "another session holds a lock or the server cancelled the "
               "statement: see pg_stat_activity, and try again";
    case WB_REFUSED:
        return "do what the message says, or GRANT the role of --db the rights "
               "on the tables waybill_*";
    case WB_INVALID:
        return "write the URL of --db as the message says";
    case WB_FULL:
    case WB_NOMEM:
        return "make room on the server's machine";
    case WB_IO:
        return "see the server's log";
    default:
        return fix_of(status);
    }
}

static void
check_database(struct checkup *c)
{
    struct wb_outbox_opts opts = {0};
    struct wb_health health = {0};
    struct wb_err err = {0};
    struct cli *cli = c->cli;
    const char *shown;
    enum wb_status rc;
    bool postgres;

    if (cli_find_db(cli, &err) != WB_OK) {
        check(c, "database", "give --db FILE", "%s", err.msg);
        return;
    }
    postgres = wb__db_is_postgres(cli->db);
    shown = postgres ? "PostgreSQL" : cli->db; /* a url may hold a password */
    if (!postgres)
        check_files(c);
    if (cli->config != NULL)
        opts = *wb_config_outbox(cli->config);
    opts.env = cli->env;
    opts.existing = opts.read_only = true;
    rc = wb_outbox_open(&cli->box, cli->db, &opts, &err);
    if (rc == WB_NOTFOUND) {
        check(c, "database", NULL,
            "%s is not there yet; the first send creates it", shown);
        return;
    }
    if (rc == WB_OK)
        rc = wb_outbox_health(cli->box, &health, &err);
    if (rc != WB_OK) {
        check(c, "database",
            cli->tables.from < cli->tables.to ? "waybill migrate"
            : postgres                        ? server_fix_of(rc)
                                              : fix_of(rc),
            "%s", err.msg);
        return;
    }
    check(c, "database", NULL, "%s opens, schema %lld", shown,
        (long long)health.schema_version);
    if (postgres)
        check_postgres(c, &health);
    else
        check_sqlite(c, &health);
    check(c, "stuck_claims",
        health.stuck > 0 ? "check whether the workers run, then: waybill "
                           "reset-stale"
                         : NULL,
        "%llu claim%s whose worker seems to be gone",
        (unsigned long long)health.stuck, health.stuck == 1 ? "" : "s");
    c->future = health.future;
}

/* Whether a URL uses TLS or stays on this machine. */
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
check_endpoints(struct checkup *c)
{
    const struct cli *cli = c->cli;
    size_t unsafe = 0;

    for (size_t i = 0; i < cli->n_routes; i++) {
        const char *url = cli->routes[i].endpoint;

        if (url == NULL || safe_endpoint(url))
            continue;
        unsafe++;
        check(c, "endpoints", "messages are sent unencrypted: use https",
            "route %s: %s", cli->routes[i].kind, url);
    }
    if (unsafe == 0)
        check(c, "endpoints", NULL, "%zu route%s%s", cli->n_routes,
            cli->n_routes == 1 ? "" : "s",
            cli->n_routes > 0 ? ", each by TLS or on this machine"
                              : "; drain and run have nothing to deliver to");
}

static void
check_config(struct checkup *c)
{
    struct wb_err err = {0};
    bool whole = true;

    if (cli_open_config(c->cli, true, &err) != WB_OK) {
        check(c, "config", "correct that line, or set the secret it names",
            "%s", err.msg);
        return;
    }
    for (size_t i = 0; i < c->cli->n_routes; i++)
        if (c->cli->routes[i].failed != NULL) {
            whole = false;
            check(c, "config",
                "set up what the route needs, then drain, or restart the "
                "worker; its messages wait",
                "%s", c->cli->routes[i].failed);
        }
    if (whole)
        check(c, "config", NULL, "%s",
            c->cli->config_path[0] != '\0' ? c->cli->config_path
                                           : "none, so no routes");
    check_endpoints(c);
}

static void
check_clock(struct checkup *c)
{
    int64_t now_ms = c->cli->now_ms;
    char now[32];

    wb__format_time(now_ms, now);
    if (now_ms < CLOCK_FROM_MS || now_ms > CLOCK_TO_MS)
        check(c, "clock", "set the clock: due times and leases follow it", "%s",
            now);
    else if (c->future > 0)
        check(c, "clock",
            "set the clock if it is wrong; if it was ahead before, the next "
            "drain dates them anew",
            "%s; %llu message%s created or claimed later than that", now,
            (unsigned long long)c->future, c->future == 1 ? "" : "s");
    else
        check(c, "clock", NULL, "%s", now);
}

/* ---- the work ----------------------------------------------------------- */

/* How much of each is no problem; options. */
#define LAG_MS     ((int64_t)3600 * 1000)
#define PAUSED_MS  ((int64_t)24 * 3600 * 1000)
#define DRAIN_MS   ((int64_t)24 * 3600 * 1000)
#define ROOM_BYTES ((uint64_t)64 * 1024 * 1024)

struct work {
    const struct cli *cli;
    int64_t due_ms;    /* of what could be delivered, the first; 0: nothing */
    int64_t paused_ms; /* of what is paused */
    uint64_t abandoned, unrouted, paused,
        open; /* the last three: kinds, scopes */
    json_t *paused_kinds;
    uint64_t behind_unrouted, behind_paused; /* messages in lanes */
};

static void
keep_first(int64_t *first, int64_t ms)
{
    if (ms != 0 && (*first == 0 || ms < *first))
        *first = ms;
}

static enum wb_status
add_kind(void *ctx, const struct wb_kind_counts *k)
{
    struct work *w = ctx;
    uint64_t waiting = k->n[WB_STATE_PENDING] + k->n[WB_STATE_HELD] +
                       k->n[WB_STATE_PROCESSING];
    bool unrouted = w->cli->n_routes > 0 && cli_route(w->cli, k->kind) == NULL;

    w->abandoned += k->n[WB_STATE_ABANDONED];
    w->unrouted += unrouted && waiting > 0;
    w->paused += k->paused && waiting > 0;
    if (k->paused)
        (void)json_array_append_new(w->paused_kinds, cli_str(k->kind));
    if (k->paused)
        keep_first(&w->paused_ms, k->oldest_pending_created_ms);
    else if (!unrouted)
        keep_first(&w->due_ms, k->next_due_ms);
    return WB_OK;
}

static enum wb_status
add_breaker(void *ctx, const struct wb_breaker *b)
{
    struct work *w = ctx;

    w->open += b->state != WB_CLOSED;
    return WB_OK;
}

static enum wb_status
add_lanes(void *ctx, const struct wb_lane_heads *h)
{
    struct work *w = ctx;

    if (w->cli->n_routes > 0 && cli_route(w->cli, h->kind) == NULL)
        w->behind_unrouted += h->held;
    else if (cli_names(w->paused_kinds, h->kind))
        w->behind_paused += h->held;
    return WB_OK;
}

/* The end of a finding; out holds 64 bytes. */
static const char *
behind(uint64_t held, char *out)
{
    out[0] = '\0';
    if (held > 0)
        (void)snprintf(out, 64, "; %llu message%s wait%s in lanes behind them",
            (unsigned long long)held, held == 1 ? "" : "s",
            held == 1 ? "s" : "");
    return out;
}

static void
check_count(struct checkup *c, const char *name, uint64_t n, const char *more,
    const char *fix)
{
    check(c, name, n > cli_number(c->cli, name, 0) ? fix : NULL, "%llu%s",
        (unsigned long long)n, more);
}

static void
check_age(struct checkup *c, const char *name, int64_t since_ms,
    int64_t bound_ms, const char *what, const char *more, const char *fix)
{
    int64_t age_ms = age_of(c->cli, since_ms);
    char span[32];

    check(c, name, age_ms > cli_ms(c->cli, name, bound_ms) ? fix : NULL,
        "%s %s%s", what, since_ms == 0 ? "-" : cli_span(age_ms, span), more);
}

/* A drain of long ago is a problem if something could be delivered. */
static void
check_last_drain(struct checkup *c, const struct work *w)
{
    struct cli *cli = c->cli;
    json_t *last = cli_last_drain(cli);
    json_int_t at_ms = 0, attempted = 0, confirmed = 0;
    int64_t bound_ms = cli_ms(cli, "last-drain", DRAIN_MS);
    bool known = json_unpack(last, "{s:I, s:I, s:I}", "at_ms", &at_ms,
                     "attempted", &attempted, "confirmed", &confirmed) == 0;
    bool late = age_of(cli, w->due_ms) > bound_ms &&
                (!known || age_of(cli, at_ms) > bound_ms);
    const char *fix =
        late ? "nothing drains this outbox: start waybill run, or a timer for "
               "waybill drain"
             : NULL;
    char when[32];

    if (known)
        check(c, "last_drain", fix, "%s: %lld attempted, %lld confirmed",
            cli_when(cli, at_ms, when), (long long)attempted,
            (long long)confirmed);
    else
        check(c, "last_drain", fix, "none, or its file was lost");
    json_decref(last);
}

static enum wb_status
read_work(struct work *w, struct wb_err *err)
{
    struct wb_outbox *box = w->cli->box;
    enum wb_status rc = wb_outbox_count(box, add_kind, w, err);

    if (rc == WB_OK)
        rc = wb_outbox_breakers(box, (struct wb_slice){0}, add_breaker, w, err);
    return rc != WB_OK ? rc : wb_outbox_lanes(box, add_lanes, w, err);
}

static void
check_work(struct checkup *c)
{
    struct cli *cli = c->cli;
    struct work w = {.cli = cli, .paused_kinds = json_array()};
    enum wb_status rc = WB_OK;
    struct wb_err err = {0};
    char more[64];

    if (cli->box != NULL)
        rc = read_work(&w, &err);
    json_decref(w.paused_kinds);
    if (rc != WB_OK) {
        check(c, "work", fix_of(err.status), "%s", err.msg);
        return;
    }
    if (cli->box != NULL) {
        check_age(c, "lag", w.due_ms, LAG_MS, "the first due message waits for",
            "",
            "does a worker or a timer run? waybill list shows the last errors");
        check_count(c, "abandoned", w.abandoned, "",
            "waybill list --status abandoned; then waybill retry or discard");
        check_count(c, "unrouted", w.unrouted, behind(w.behind_unrouted, more),
            "waybill status names the kinds: give them a route, or discard "
            "their messages, see waybill discard --help");
        check_age(c, "paused", w.paused_ms, PAUSED_MS,
            "the oldest message of a paused kind waits for",
            behind(w.behind_paused, more),
            "waybill status names the kinds; waybill resume KIND");
        check_count(c, "breakers", w.open, "",
            "waybill breaker names the destinations; their messages wait");
    }
    check_last_drain(c, &w);
}

static void
check_room(struct checkup *c)
{
    int64_t room = wb__file_room(c->cli->db);
    uint64_t least = cli_number(c->cli, "free", ROOM_BYTES);

    if (room >= 0)
        check(c, "free_room",
            (uint64_t)room < least
                ? "make room on the disk: without it nothing is accepted"
                : NULL,
            "%lld bytes free", (long long)room);
}

static enum cli_exit
run_doctor(struct cli *cli)
{
    static const char *const head[] = {"", "CHECK", "FINDING"};
    struct checkup c = {.cli = cli, .checks = json_array()};
    enum cli_exit code;

    cli->unwritten = NULL;
    cli_table_begin(cli, &c.table, head, WB_COUNT(head));
    check_config(&c);
    check_database(&c);
    check_clock(&c);
    check(&c, "spill", NULL, "no spilled messages");
    check_work(&c);
    if (cli->db[0] != '\0' && !wb__db_is_postgres(cli->db))
        check_room(&c);
    if (cli->json)
        code = cli_json(cli, json_pack("{s:O}", "checks", c.checks));
    else
        code = cli_table_end(cli, &c.table);
    json_decref(c.checks);
    return code == CLI_DONE && c.failed ? CLI_FAILED : code;
}

static const struct cli_option doctor_options[] = {
    {"lag", CLI_DURATION, "D", "the first due message may wait for [1h]"},
    {"abandoned", CLI_COUNT, "N", "abandoned messages [0]"},
    {"unrouted", CLI_COUNT, "N", "kinds that wait without a route [0]"},
    {"paused", CLI_DURATION, "D", "a paused kind's message may wait for [1d]"},
    {"breakers", CLI_COUNT, "N", "open breakers [0]"},
    {"last-drain", CLI_DURATION, "D",
        "the last drain may be this long ago while something is due [1d]"},
    {"transaction", CLI_DURATION, "D",
        "a transaction of another session may last, on PostgreSQL [10m]"},
    {"free", CLI_BYTES, "SIZE", "room on the disk, at least [64m]"},
    {0},
};

const struct cli_command cli_doctor = {
    .name = "doctor",
    .group = "Outbox",
    .args = "[--lag D] [--abandoned N] ...",
    .help = "check for problems; each with its fix",
    .more = "Exit 0: no problem was found. 1: at least one check failed.",
    .options = doctor_options,
    .run = run_doctor,
    .examples = "waybill doctor\n"
                "waybill doctor --lag 5m --abandoned 100\n"
                "waybill --json doctor | jq '.checks[] | select(.ok | not)'",
};
