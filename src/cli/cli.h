/* cli.h - what the files of the command share: one table of commands, one
 * parser, one way to open the outbox, one way to print. */
#ifndef WB_SRC_CLI_H
#define WB_SRC_CLI_H

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include <uv.h>

#include "base/base.h"
#include "os/os.h"
#include "waybill/config.h"

/* Exit codes; a contract. */
enum cli_exit {
    CLI_DONE = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NOTHING = 3,
    CLI_SOME = 4,
    CLI_BUSY = 75,
};

/* ---- commands and their options (args.c) ------------------------------- */

enum cli_type {
    CLI_FLAG,
    CLI_TEXT,
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
    CLI_STATUS,      /* an enum wb_state */
    CLI_HTTP_STATUS, /* 200..599 */
    CLI_SHARE,       /* 0..1, in millionths */
};

struct cli_option {
    const char *name;
    enum cli_type type;
    const char *arg; /* its word in help; NULL for a flag */
    const char *help;
    bool required;
};

struct cli;

struct cli_command {
    const char *name;
    const char *group;
    const char *args;                 /* in the usage line */
    const char *help;                 /* one line */
    const char *more;                 /* a paragraph, or NULL */
    const struct cli_option *options; /* ended by a zero; or NULL */
    unsigned min_args, max_args;
    enum cli_exit (*run)(struct cli *cli);
    const char *exits;    /* exit codes beyond 0, 1, 2 and 75, or NULL */
    const char *examples; /* lines */
};
#define CLI_MANY 100000u /* max_args of a command that takes a list */

struct cli_value {
    const struct cli_option *option;
    const char *text;
    uint64_t n; /* as its type says */
};

/* One run of the command. */
struct cli {
    const struct wb_env *env;
    const struct cli_command *const *commands; /* ended by NULL */
    const struct cli_command *command;         /* NULL before it is known */
    int64_t now_ms;                            /* when it started */
    bool json, quiet, verbose;
    const char *unwritten; /* what is so if stdout cannot be written to */

    /* as given, options and arguments */
    struct cli_value *value;
    size_t n_values;
    const char **arg;
    size_t n_args;

    /* opened on demand, see open.c */
    char db[4096], config_path[4096];
    struct wb_outbox *box;
    struct wb_config *config;
    const struct wb_route *routes;
    size_t n_routes;
    uv_loop_t loop;
    bool loop_open;
};

extern const struct cli_option cli_globals[];

/* DONE: cli->command is set, or --help or --version was given without one. */
enum cli_exit cli_parse(struct cli *cli, int argc, char **argv);

/* What was given, by name; the last one wins. Asking for a name that the
 * command does not have is a bug. */
bool cli_has(const struct cli *cli, const char *name);
const char *cli_text(const struct cli *cli, const char *name); /* or NULL */
struct wb_slice cli_slice(const struct cli *cli, const char *name);
uint64_t cli_number(
    const struct cli *cli, const char *name, uint64_t otherwise);
int64_t cli_ms(const struct cli *cli, const char *name, int64_t otherwise);

/* Arguments; false after a usage error was printed. */
bool cli_arg_kind(struct cli *cli, size_t at, struct wb_slice *kind);
bool cli_arg_id(struct cli *cli, size_t at, struct wb_id *id);

/* The name in a list that is closest to word, or NULL if none is close. */
const char *cli_closest(const char *word,
    const char *(*name)(const void *list, size_t i), const void *list);

/* ---- help (help.c) ----------------------------------------------------- */

void cli_help(const struct cli *cli);
extern const struct cli_command cli_completions;

/* ---- outbox and configuration (open.c) --------------------------------- */

/* Open outbox and configuration. Anything but DONE was already reported. */
enum cli_exit cli_open(struct cli *cli);
/* The same with the transports, for drains and the doctor. */
enum cli_exit cli_open_relay(struct cli *cli, struct wb_relay **relay);
/* The pieces, for the doctor, which goes on after a failure. */
/* --db or $WAYBILL_DB; or NULL. */
const char *cli_named_db(const struct cli *cli);
enum wb_status cli_find_db(struct cli *cli, struct wb_err *err);
enum wb_status cli_open_config(
    struct cli *cli, bool transports, struct wb_err *err);
void cli_close(struct cli *cli);

/* The route of a kind, or NULL: exact, else the longest prefix. */
const struct wb_route *cli_route(const struct cli *cli, struct wb_slice kind);

/* ---- waybill and waybill-full (small.c, full.c) ------------------------- */

/* Go on in waybill-full, with the same words, unless this is it: then, and
 * after a failure that was printed, it comes back. */
enum cli_exit cli_switch(struct cli *cli, char **argv);
/* Read cli->config_path to cli->config; transports only in waybill-full. */
enum wb_status cli_read_config(
    struct cli *cli, bool transports, struct wb_err *err);

/* ---- output (output.c) ---------------------------------------------------- */

/* One line on stderr, as people or programs read it; hands back the code. */
enum cli_exit cli_usage(struct cli *cli, const char *fmt, ...) WB_PRINTF(2, 3);
enum cli_exit cli_fail(struct cli *cli, const struct wb_err *err);
/* The same, exit code given. */
enum cli_exit cli_fail_as(
    struct cli *cli, enum cli_exit code, const struct wb_err *err);
/* The same for what is in no word of the command line: 75 or 1. */
enum cli_exit cli_fail_beyond(struct cli *cli, const struct wb_err *err);
enum cli_exit cli_exit_of(enum wb_status status);
/* An error in one item among many: no exit code. */
void cli_complain(struct cli *cli, enum wb_status status, const char *fmt, ...)
    WB_PRINTF(3, 4);

/* One object on stdout; takes it. NULL (out of memory) is FAILED. */
enum cli_exit cli_json(struct cli *cli, json_t *take);
/* A line on stdout for people, not under --json: what they asked to see, and
 * what was done, which --quiet silences. */
void cli_tell(const struct cli *cli, const char *fmt, ...) WB_PRINTF(2, 3);
void cli_say(const struct cli *cli, const char *fmt, ...) WB_PRINTF(2, 3);
/* A remark on stderr for people; not under --json or --quiet. */
void cli_note(const struct cli *cli, const char *fmt, ...) WB_PRINTF(2, 3);
/* A line on stderr that the next one replaces; an empty one clears it. */
void cli_progress(const struct cli *cli, const char *fmt, ...) WB_PRINTF(2, 3);
bool cli_is_terminal(int fd);

json_t *cli_str(struct wb_slice s); /* null where empty */
json_t *cli_int(int64_t n);         /* null where 0 */
const char *cli_u64(uint64_t n, char out[24]);
/* Add "payload", or "payload_base64" if it is no UTF-8. */
void cli_add_payload(struct cli *cli, json_t *object, struct wb_slice payload);
/* Header lines as an array of strings. */
json_t *cli_headers(struct wb_slice lines);
json_t *cli_content_type(struct wb_slice s);

/* A table for people. Columns grow with what is in them; widths are settled
 * every CLI_TABLE_ROWS rows, so that any number of rows takes bounded memory.
 */
#define CLI_TABLE_COLS 8
#define CLI_TABLE_ROWS 200
struct cli_table {
    const char *const *head; /* of cols names */
    size_t cols, rows, row_at, width[CLI_TABLE_COLS];
    bool begun, color, failed;
    struct wb__buf text; /* cells, each ended by NUL */
};
void cli_table_begin(
    struct cli *cli, struct cli_table *t, const char *const *head, size_t cols);
void cli_cell(struct cli_table *t, const char *fmt, ...) WB_PRINTF(2, 3);
void cli_cell_slice(struct cli_table *t, struct wb_slice s);
void cli_row(struct cli_table *t); /* the row is complete */
enum cli_exit cli_table_end(struct cli *cli, struct cli_table *t);

/* "in 5m", "3d ago", "now"; out has room for 32. */
const char *cli_when(const struct cli *cli, int64_t ms, char *out);
/* "1.5s", "2h"; out has room for 32. */
const char *cli_span(int64_t ms, char *out);

json_t *cli_breaker_object(const struct wb_breaker *b); /* admin.c */
/* What the last drain came to, or null where it is not known. */
json_t *cli_last_drain(const struct cli *cli); /* drain.c */

/* ---- pieces that two files use ----------------------------------------- */

/* drain.c: one pass, or until a signal. out: what came of it, as an object
 * under --json, else as a sentence; both empty after an error was printed. */
struct cli_drained {
    json_t *object;
    struct wb__buf text;
};
enum cli_exit cli_drain(struct cli *cli, struct wb_relay *relay,
    struct wb_drain *drain, bool forever, struct cli_drained *out);

/* monitor.c: a server that answers GET /healthz and /metrics while the loop
 * runs. The caller closes it. */
struct wb__http_server;
struct cli_monitor {
    struct cli *cli;
    enum wb_status (*write_metrics)(
        const void *ctx, struct wb__buf *page, struct wb_err *err);
    const void *ctx;
    struct wb__http_server *server; /* NULL: not open */
};
/* All but server is filled in, and stays where it is. */
WB_MUST_USE enum wb_status cli_monitor_open(
    struct cli_monitor *m, struct wb_slice address, struct wb_err *err);
/* Open one for the outbox of cli, and print its address. */
enum cli_exit cli_listen(
    struct cli *cli, const char *address, struct cli_monitor *m);

/* input.c: the next bytes of stdin, *got 0 at the end; the payload limit; all
 * of stdin, or one block past the limit: the outbox then says what it is. */
enum cli_exit cli_read_stdin(
    struct cli *cli, char *into, size_t room, size_t *got);
/* From now on SIGINT and SIGTERM set cli_stopped, and a read that waits is
 * over. */
void cli_stop_on_signals(void);
extern volatile sig_atomic_t cli_stopped;
size_t cli_payload_max(const struct cli *cli);
enum cli_exit cli_read_all(struct cli *cli, struct wb__buf *b);

/* import.c: each line of stdin is the payload of a message like m. Counts are
 * right whatever is returned; bad lines are told and skipped. */
struct cli_counts {
    uint64_t accepted, duplicates, rejected;
};
enum cli_exit cli_import(struct cli *cli, const struct wb_message *m,
    struct wb_slice key_prefix, struct cli_counts *counts);
#define CLI_PREFIX_MAX (255 - 21) /* room for ":18446744073709551615" */

extern const struct cli_command cli_send, cli_run, cli_drain_once, cli_status,
    cli_list, cli_show, cli_retry, cli_discard, cli_pause, cli_resume,
    cli_backup, cli_doctor, cli_claim, cli_confirm, cli_release, cli_fail_one,
    cli_extend, cli_reset_stale, cli_breaker, cli_gate, cli_sink, cli_once,
    cli_keys;

#endif /* WB_SRC_CLI_H */
