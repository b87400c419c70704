/* cli.h - what the files of the command share: the table of commands, the
 * parser of the command line, opening the outbox, output. */
#ifndef WB_SRC_CLI_H
#define WB_SRC_CLI_H

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include <uv.h>

#include "base/base.h"
#include "os/log.h"
#include "os/os.h"
#include "waybill/config.h"
#include "waybill/idem.h"

/* Exit codes; a contract. */
enum cli_exit {
    CLI_DONE = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NOTHING = 3,
    CLI_SOME = 4,
    CLI_BUSY = 75,
};

/* ---- commands and their options (args.c) -------------------------------- */

enum cli_type {
    CLI_TEXT, /* anything */
    CLI_FLAG,
    CLI_FILE,        /* text; completed as a file name */
    CLI_KIND,        /* 1..64 of a-z 0-9 _ . - */
    CLI_NAME,        /* 1..255 printable */
    CLI_PREFIX,      /* 1..CLI_PREFIX_MAX printable */
    CLI_ID,          /* a UUID in full */
    CLI_TOKEN,       /* 1..2^64-1 */
    CLI_COUNT,       /* >= 1 */
    CLI_BATCH,       /* 1..WB_CLAIM_MAX */
    CLI_DURATION,    /* ms >= 0 */
    CLI_SPAN,        /* ms > 0 */
    CLI_TIME,        /* ms since the epoch */
    CLI_WHEN,        /* a time, or a duration from now */
    CLI_PAST,        /* a time, or a duration before now */
    CLI_STATUS,      /* an enum wb_state */
    CLI_HTTP_STATUS, /* 200..599 */
    CLI_BYTES,       /* 64k, 10m */
    CLI_SHARE,       /* 0..1, in millionths */
    CLI_CHOICE,      /* one of arg, as a|b|c: 0, 1, 2 */
};

struct cli_option {
    const char *name;
    enum cli_type type;
    const char *arg; /* name of the value in help; NULL for a flag */
    const char *help;
};

struct cli;

struct cli_command {
    const char *name;
    const char *group;
    const char *args;                 /* in the usage line */
    const char *help;                 /* one line */
    const char *more;                 /* a paragraph, or NULL */
    const struct cli_option *options; /* ended by a zero; or NULL */
    const char *required;             /* names of options, blanks between */
    enum cli_type arg_type; /* of the first argument; of CLI_MANY: all */
    unsigned n_args,
        optional_args; /* how many are required; and how many more */
    bool needs_routes; /* an error in a route stops it */
    bool no_json;      /* its output is not of objects: --json is refused */
    bool opens_outbox; /* before run(); else run() does what it needs */
    enum cli_exit (*run)(struct cli *cli);
    const char *exits;    /* exit codes beyond 0, 1, 2 and 75, or NULL */
    bool only_exits;      /* they are all that there are */
    const char *examples; /* lines */
};
#define CLI_MANY 100000u /* optional_args of a command that takes a list */

struct cli_value {
    const struct cli_option *option;
    const char *text;
    uint64_t n; /* as its type says */
};

/* As they were found when the database was opened last; see tables.c. */
struct cli_tables {
    int from, to; /* their version, 0: none; and that of this Waybill */
    bool changed; /* they were made, or brought up to date */
};

/* One run of the command. */
struct cli {
    const struct wb_env *env;
    const struct cli_command *const *commands; /* ended by NULL */
    const struct cli_command *command;         /* NULL before it is known */
    int64_t now_ms;                            /* when it started */
    bool json, quiet, verbose;
    /* Read config_path to config; transports only in waybill-full. */
    enum wb_status (*read_config)(
        struct cli *cli, bool transports, struct wb_err *err);
    /* What holds if stdout cannot be written to; NULL: nothing was done. */
    const char *unwritten;

    /* options and arguments as given */
    struct cli_value *value;
    size_t n_values;
    const char **arg;
    size_t n_args;

    /* opened on demand, see open.c */
    char db[4096], config_path[4096];
    bool reads; /* set before cli_open(): the command changes nothing */
    struct wb_outbox *box;
    struct cli_tables tables;
    struct wb_config *config;
    const struct wb_route *routes;
    size_t n_routes;
    struct wb_err route_error; /* then the routes are not known; OK: none */
    uv_loop_t loop;
    bool loop_open;
    void (*on_event)(void *ctx, const struct wb_relay_event *event);
    void *event_ctx; /* of the relay; set before cli_open() */
    /* Set before cli_open(): it waits where the database may come back, and the
     * open is tried again. Else such a failure ends the command. */
    void (*on_db_lost)(struct cli *cli, const struct wb_err *err);
};

extern const struct cli_option cli_globals[];

/* DONE: cli->command is set, or --help or --version was given without one. */
enum cli_exit cli_parse(struct cli *cli, int argc, char **argv);

/* The option of a name that the command has; of several the last one. */
bool cli_has(const struct cli *cli, const char *name);
const char *cli_text(const struct cli *cli, const char *name); /* or NULL */
struct wb_slice cli_slice(const struct cli *cli, const char *name);
uint64_t cli_number(
    const struct cli *cli, const char *name, uint64_t otherwise);
int64_t cli_ms(const struct cli *cli, const char *name, int64_t otherwise);

/* Which messages, by the options --lane, --key, --key-prefix, --error,
 * --since and --until, which the command must have. */
struct wb_match cli_match(const struct cli *cli);
#define CLI_MATCH_OPTIONS(with)                                        \
    {"lane", CLI_NAME, "L", with "of this lane alone [all]"},          \
        {"key", CLI_NAME, "K", with "with this key alone"},            \
        {"key-prefix", CLI_NAME, "P", with "whose key begins with P"}, \
        {"error", CLI_NAME, "TEXT",                                    \
            with "whose last error, or reason, contains TEXT"},        \
        {"since", CLI_PAST, "T|D",                                     \
            with "created at this time or later, or up to D ago"},     \
    {                                                                  \
        "until", CLI_PAST, "T|D",                                      \
            with "created before this time, or longer than D ago"      \
    }

/* An argument of the type CLI_ID. */
struct wb_id cli_id(const struct cli *cli, size_t at);

/* The name nearest to a word among those added; NULL if none is near. Starts
 * zeroed. */
struct cli_nearest {
    const char *name;
    size_t distance;
};
void cli_nearest_add(
    struct cli_nearest *nearest, struct wb_slice word, const char *name);

/* ---- help (help.c) ------------------------------------------------------ */

void cli_help(const struct cli *cli);
extern const struct cli_command cli_completions;
extern const struct cli_command cli_metrics_command; /* monitor.c */

/* ---- outbox configuration, signals (open.c) ----------------------------- */

/* Open configuration and outbox; for drains (relay is not NULL) also the
 * transports and a relay. Anything but DONE was already printed. */
enum cli_exit cli_open(struct cli *cli, struct wb_relay **relay);
void cli_close(struct cli *cli);

/* The steps of cli_open(), for the doctor, which continues after a failure, and
 * for other stores in the same database. */
const char *cli_named_db(const struct cli *cli); /* --db, $WAYBILL_DB or NULL */
enum wb_status cli_find_db(struct cli *cli, struct wb_err *err); /* cli->db */
/* Overwrite a PostgreSQL URL of the command line, which others can read. */
void cli_hide_url(const char *word);
enum wb_status cli_open_config(
    struct cli *cli, bool transports, struct wb_err *err);

/* The route of a kind, or NULL: exact, else the longest prefix. */
const struct wb_route *cli_route(const struct cli *cli, struct wb_slice kind);

/* Call handler on SIGTERM and SIGINT; flags as of sigaction(). The second
 * SIGINT ends the process, which then does not wait; not a second SIGTERM, as
 * timeout(1) sends two. An ignored signal stays ignored: a background job does
 * not get the terminal's interrupts. SIG_DFL ends this. */
void cli_on_stop_signal(void (*handler)(int number), int flags);

/* The same on a loop, but without an end of the process. data of the handle is
 * ctx. Close does nothing where it is not open. */
struct cli_stop {
    uv_signal_t term, interrupt;
    bool open;
};
void cli_stop_open(
    struct cli_stop *s, uv_loop_t *loop, uv_signal_cb on_signal, void *ctx);
void cli_stop_close(struct cli_stop *s);

/* ---- output (output.c) -------------------------------------------------- */

/* One error on stderr, as a line or as JSON; returns the exit code. */
enum cli_exit cli_usage(struct cli *cli, const char *fmt, ...) WB_PRINTF(2, 3);
enum cli_exit cli_fail(struct cli *cli, const struct wb_err *err);
enum cli_exit cli_fail_as(
    struct cli *cli, enum cli_exit code, const struct wb_err *err);
enum cli_exit cli_nomem(struct cli *cli, const char *what);
/* For an error that no word of the command line has caused: 75 or 1. */
enum cli_exit cli_fail_no_usage(struct cli *cli, const struct wb_err *err);
/* An error in one item among many: no exit code. */
void cli_print_error(struct cli *cli, enum wb_status status, const char *fmt,
    ...) WB_PRINTF(3, 4);

/* One object on stdout; takes it. NULL (out of memory) is FAILED. */
enum cli_exit cli_json(struct cli *cli, json_t *take);
/* For people, a line on stdout, not under --json: data; and what was done,
 * which
 * --quiet silences. */
void cli_print(const struct cli *cli, const char *fmt, ...) WB_PRINTF(2, 3);
void cli_report(const struct cli *cli, const char *fmt, ...) WB_PRINTF(2, 3);
/* A named field as one line; nothing if it is empty. */
void cli_print_field(
    const struct cli *cli, const char *name, struct wb_slice s);
/* What was done: cli_json() under --json, else cli_report(). */
enum cli_exit cli_result(struct cli *cli, json_t *take, const char *fmt, ...)
    WB_PRINTF(3, 4);
/* A remark on stderr for people; not under --json or --quiet. */
void cli_note(const struct cli *cli, const char *fmt, ...) WB_PRINTF(2, 3);
/* A line on stderr that the next one replaces; an empty one clears it. */
void cli_progress(const struct cli *cli, const char *fmt, ...) WB_PRINTF(2, 3);
bool cli_is_terminal(int fd);

json_t *cli_str(struct wb_slice s); /* null where empty */
json_t *cli_int(int64_t n);         /* null where 0 */
const char *cli_u64(uint64_t n, char out[24]);
/* Add NAME, or NAME_base64 if the bytes are not UTF-8. */
void cli_add_bytes(
    struct cli *cli, json_t *object, const char *name, struct wb_slice bytes);
/* Header lines as an array of strings. */
json_t *cli_headers(struct wb_slice lines);
/* Add payload, content_type and headers of a message; object may be NULL. */
void cli_add_content(struct cli *cli, json_t *object, struct wb_slice payload,
    struct wb_slice content_type, struct wb_slice headers);

/* A table for people; nothing under --json. Columns grow with their cells. Rows
 * are printed CLI_TABLE_ROWS at a time, so that memory is bounded. */
#define CLI_TABLE_COLS 8
#define CLI_TABLE_ROWS 200
struct cli_table {
    const char *const *head; /* of cols names */
    size_t cols, rows, row_at, width[CLI_TABLE_COLS];
    size_t line; /* columns of the terminal: the last cell is cut; 0: none */
    bool begun, color, failed;
    struct wb__buf text; /* cells, each ended by NUL */
};
void cli_table_begin(
    struct cli *cli, struct cli_table *t, const char *const *head, size_t cols);
void cli_cell(struct cli_table *t, const char *fmt, ...) WB_PRINTF(2, 3);
void cli_cell_slice(struct cli_table *t, struct wb_slice s);
void cli_row(struct cli_table *t); /* the row is complete */
enum cli_exit cli_table_end(struct cli *cli, struct cli_table *t);

/* "in 5m", "3d ago", "now"; out holds 32 bytes. */
const char *cli_when(const struct cli *cli, int64_t ms, char *out);
/* "1.5s", "2h"; out holds 32 bytes. */
const char *cli_span(int64_t ms, char *out);

/* ---- the log of a command that stays (log.c) ----------------------------- */

/* In the table of its options. */
#define CLI_LOG_OPTIONS                                                 \
    {"log", CLI_CHOICE, "text|json",                                    \
        "form of the log on stderr, a line an event [text; json under " \
        "--json]"},                                                     \
    {                                                                   \
        "log-level", CLI_CHOICE, "error|warn|info|debug",               \
            "what is logged: this and what is before it [info]"         \
    }

/* The caller keeps *l at its address until the loop has run after the close,
 * which writes the counts and does nothing where it is not open. */
struct cli_log {
    struct wb__log log;
    uv_timer_t timer;
    bool open;
};
void cli_log_open(const struct cli *cli, struct cli_log *l, uv_loop_t *loop);
/* Of a command without these options: all levels. */
void cli_log_open_verbose(
    const struct cli *cli, struct cli_log *l, uv_loop_t *loop);
/* Threads: the loop's. */
void cli_log(struct cli_log *l, enum wb__log_level level, const char *event,
    const struct wb__log_fields *fields);
void cli_log_close(struct cli_log *l);
/* on_event() of a relay; ctx is a struct cli_log. */
void cli_log_event(void *ctx, const struct wb_relay_event *event);

/* ---- metrics (metrics.c) ------------------------------------------------- */

#define CLI_METRIC_BUCKETS 14

struct cli_histogram {
    uint64_t bucket[CLI_METRIC_BUCKETS], sum_ms;
};
struct cli_kind_metrics {
    char name[65];
    uint64_t attempts[4]; /* by enum wb_outcome */
    uint64_t abandoned;
    struct cli_histogram duration;
};
/* Counts since the worker started. Threads: the loop's. */
struct cli_metrics {
    const struct wb_env *env;
    struct cli_kind_metrics *kind;
    size_t n, cap;
    uint64_t ended, leases_lost, breakers_opened, in_flight;
    bool database_lost;
    struct cli_histogram commits;
};
void cli_metrics_event(
    struct cli_metrics *m, const struct wb_relay_event *event);
void cli_metrics_write(const struct cli_metrics *m, struct wb__buf *text);
void cli_metrics_log(const struct wb__log *log, struct wb__buf *text);
void cli_metrics_unrouted(struct wb__buf *text, uint64_t kinds);
void cli_metrics_build(struct wb__buf *text);
/* Of the database. monitor.c */
WB_MUST_USE enum wb_status cli_metrics_outbox(
    const struct cli *cli, struct wb__buf *text, struct wb_err *err);
void cli_metrics_fini(struct cli_metrics *m);

/* The lines before a family; a label value, escaped as the format requires. */
void cli_metric(
    struct wb__buf *text, const char *name, const char *type, const char *help);
void cli_metric_label(struct wb__buf *text, struct wb_slice value);

/* ---- functions that two files use --------------------------------------- */

json_t *cli_breaker_object(const struct wb_breaker *b); /* admin.c */

/* drain.c: one pass, or until a signal. out: the outcome, as an object under
 * --json, else as a sentence; both empty after an error was printed. */
struct cli_drained {
    json_t *object;
    struct wb__buf text;
};
enum cli_exit cli_drain(struct cli *cli, struct wb_relay *relay,
    struct wb_drain *drain, bool forever, struct cli_drained *out);
/* The same, and print the outcome. */
enum cli_exit cli_drain_and_print(struct cli *cli, struct wb_relay *relay,
    struct wb_drain *drain, bool forever);
/* The outcome of the last drain, or null where it is not known. */
json_t *cli_last_drain(const struct cli *cli);

/* ask.c: run the shell command of --ask, which finds out whether an operation
 * took effect, for --ask-timeout at most. body gets its standard output. Of no
 * answer err holds the reason. STOPPED: by a signal to this process. */
enum cli_answer {
    CLI_APPLIED,
    CLI_NOT_APPLIED,
    CLI_NO_ANSWER,
    CLI_STOPPED
};
enum cli_answer cli_ask(struct cli *cli, const struct wb_idem_op *op,
    struct wb__buf *body, struct wb_err *err);

/* lanes.c: the lanes that a message without a route, of a paused kind, behind
 * an open breaker or to be retried blocks: add {kind, lanes, waiting, reason}
 * of each kind and reason to the list, and print a line for people. */
struct cli_lanes {
    struct cli *cli;
    json_t *paused, *breakers; /* kinds, and objects of cli_breaker_object() */
    json_t *list;
};
WB_MUST_USE enum wb_status cli_print_lanes(
    struct cli_lanes *lanes, struct wb_err *err);
bool cli_names(json_t *names, struct wb_slice name); /* is it one of them? */

/* routes.c: the routes that cannot start, of --kind if it was given. The first
 * prints them on stderr and returns their number. */
size_t cli_failed_routes(struct cli *cli);
/* Does the environment name a proxy, and a route neither uses one nor says that
 * it wants none? Then out says what to do. */
bool cli_proxy_unused(const struct cli *cli, char *out, size_t size);
json_t *cli_failed_list(const struct cli *cli); /* {kind, error} each */

/* monitor.c: a server for GET /healthz and /metrics while the loop runs. The
 * caller closes it. */
struct wb__http_server;
struct wb__exchange;
struct cli_monitor {
    struct cli *cli;
    enum wb_status (*write_metrics)(
        const void *ctx, struct wb__buf *page, struct wb_err *err);
    const void *ctx;
    bool offload; /* write_metrics may be called on another thread */
    /* Written behind the page, at each scrape; may be NULL. */
    void (*write_counters)(void *ctx, struct wb__buf *text);
    void *counters_ctx;
    /* Whether the work can go on, for /healthz. */
    enum wb_status (*check)(const void *ctx, struct wb_err *err);
    const void *check_ctx;
    /* Respond to GET /readyz, now or later. NULL: it has no such page. */
    void (*handle_ready)(void *ctx, struct wb__exchange *exchange);
    void *ready_ctx;
    struct wb__http_server *server; /* NULL: not open */

    /* monitor.c's own: the last page, and a scrape that waits for a new one */
    struct wb__buf page;
    enum wb_status rc;
    struct wb_err err;
    int64_t made_us, took_us;
    struct wb__exchange *waiting;
    uv_work_t work;
};
/* The members above "monitor.c's own" are set, and *m stays at its address. */
WB_MUST_USE enum wb_status cli_monitor_open(
    struct cli_monitor *m, struct wb_slice address, struct wb_err *err);
void cli_monitor_close(struct cli_monitor *m); /* not open: fine */
/* Open one for the outbox of cli, and print its address. Sets all but
 * write_counters. */
enum cli_exit cli_listen(
    struct cli *cli, const char *address, struct cli_monitor *m);

/* import.c: all of stdin, or one block past the payload limit: the outbox then
 * refuses it. */
enum cli_exit cli_read_all(struct cli *cli, struct wb__buf *b);
/* Say on stderr if the payload is not of its type JSON. */
void cli_note_payload(struct cli *cli, const struct wb_message *m);
/* Each line of stdin is the payload of a message like m. Counts are right
 * whatever is returned; bad lines are reported and skipped. */
struct cli_counts {
    uint64_t accepted, duplicates, rejected;
};
enum cli_exit cli_import(struct cli *cli, const struct wb_message *m,
    struct wb_slice key_prefix, struct cli_counts *counts);
#define CLI_PREFIX_MAX (255 - 21) /* leaves 21 for ":18446744073709551615" */

/* tables.c: keep cli->tables; say on stderr that they were changed. */
void cli_watch_tables(struct cli *cli);

extern const struct cli_command cli_send, cli_run, cli_drain_once, cli_status,
    cli_list, cli_show, cli_retry, cli_discard, cli_pause, cli_resume,
    cli_backup, cli_compact, cli_doctor, cli_claim, cli_confirm, cli_release,
    cli_fail_one, cli_extend, cli_reset_stale, cli_breaker, cli_gate, cli_sink,
    cli_once, cli_keys, cli_init, cli_migrate;

#endif /* WB_SRC_CLI_H */
