/* output.c - everything the command prints.
 *
 * (1) Under --json stdout has one object a line and nothing else, stderr one
 *     object an error.
 * (2) Text that came from outside never reaches a terminal with control
 *     characters in it. */
#include <stdlib.h>

#include "cli/cli.h"

bool
cli_is_terminal(int fd)
{
    return uv_guess_handle(fd) == UV_TTY;
}

/* ---- errors ------------------------------------------------------------ */

/* One line of at most MESSAGE_MAX characters. */
#define MESSAGE_MAX 500

static void vprint_error(const struct cli *cli, const char *code,
    const char *fmt, va_list ap) WB_PRINTF(3, 0);
static void
vprint_error(
    const struct cli *cli, const char *code, const char *fmt, va_list ap)
{
    char text[MESSAGE_MAX + 1], line[4 * MESSAGE_MAX + 1];
    json_t *object;

    (void)vsnprintf(text, sizeof(text), fmt, ap);
    (void)wb__one_line(wb_slice(text), MESSAGE_MAX, line);
    cli_progress(cli, "%s", "");
    if (!cli->json) {
        fprintf(stderr, "waybill%s%s: %s\n", cli->command != NULL ? " " : "",
            cli->command != NULL ? cli->command->name : "", line);
        return;
    }
    object =
        json_pack("{s:{s:s, s:s}}", "error", "code", code, "message", line);
    if (object != NULL)
        (void)json_dumpf(object, stderr, JSON_COMPACT);
    fputs("\n", stderr);
    json_decref(object);
}

static void print_error(const struct cli *cli, const char *code,
    const char *fmt, ...) WB_PRINTF(3, 4);
static void
print_error(const struct cli *cli, const char *code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vprint_error(cli, code, fmt, ap);
    va_end(ap);
}

/* "FENCED" -> "fenced" */
static const char *
code_of(enum wb_status status, char out[16])
{
    const char *name = wb_status_name(status);
    size_t i = 0;

    for (; name[i] != '\0' && i < 15; i++)
        out[i] =
            (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
    out[i] = '\0';
    return out;
}

enum cli_exit
cli_usage(struct cli *cli, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vprint_error(cli, "usage", fmt, ap);
    va_end(ap);
    return CLI_USAGE;
}

void
cli_complain(struct cli *cli, enum wb_status status, const char *fmt, ...)
{
    char code[16];
    va_list ap;

    va_start(ap, fmt);
    vprint_error(cli, code_of(status, code), fmt, ap);
    va_end(ap);
}

enum cli_exit
cli_exit_of(enum wb_status status)
{
    switch (status) {
    case WB_OK:
        return CLI_DONE;
    case WB_EMPTY:
    case WB_NOTFOUND:
        return CLI_NOTHING;
    case WB_BUSY:
    case WB_FULL:
        return CLI_BUSY;
    case WB_INVALID:
        return CLI_USAGE;
    default:
        return CLI_FAILED;
    }
}

enum cli_exit
cli_fail_as(struct cli *cli, enum cli_exit code, const struct wb_err *err)
{
    char name[16];

    /* A walk that one of our own callbacks ended, which has told why. */
    if (err->status == WB_OK)
        return CLI_FAILED;
    print_error(cli, code == CLI_USAGE ? "usage" : code_of(err->status, name),
        "%s", err->msg[0] != '\0' ? err->msg : wb_status_text(err->status));
    return code;
}

enum cli_exit
cli_fail(struct cli *cli, const struct wb_err *err)
{
    return cli_fail_as(cli, cli_exit_of(err->status), err);
}

enum cli_exit
cli_fail_beyond(struct cli *cli, const struct wb_err *err)
{
    return cli_fail_as(
        cli, cli_exit_of(err->status) == CLI_BUSY ? CLI_BUSY : CLI_FAILED, err);
}

/* ---- stdout ------------------------------------------------------------ */

enum cli_exit
cli_json(struct cli *cli, json_t *take)
{
    struct wb_err err;

    if (take == NULL) {
        (void)wb__nomem(&err, "a line of output");
        return cli_fail(cli, &err);
    }
    /* What cannot be written is found when stdout is closed, in main.c. */
    (void)json_dumpf(take, stdout, JSON_COMPACT);
    fputc('\n', stdout);
    json_decref(take);
    return ferror(stdout) ? CLI_FAILED : CLI_DONE;
}

static void vtell(const struct cli *cli, const char *fmt, va_list ap)
    WB_PRINTF(2, 0);
static void
vtell(const struct cli *cli, const char *fmt, va_list ap)
{
    if (cli->json)
        return;
    vfprintf(stdout, fmt, ap);
    fputc('\n', stdout);
}

void
cli_tell(const struct cli *cli, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vtell(cli, fmt, ap);
    va_end(ap);
}

void
cli_say(const struct cli *cli, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (!cli->quiet)
        vtell(cli, fmt, ap);
    va_end(ap);
}

void
cli_note(const struct cli *cli, const char *fmt, ...)
{
    va_list ap;

    if (cli->json || cli->quiet)
        return;
    cli_progress(cli, "%s", "");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
}

void
cli_progress(const struct cli *cli, const char *fmt, ...)
{
    static bool shown; /* stderr is one, whoever asks */
    static int64_t last_us;
    int64_t now_us = cli->env->mono_us(cli->env->ctx);
    bool terminal = cli_is_terminal(STDERR_FILENO);
    char text[120];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (cli->quiet || (!terminal && !cli->verbose))
        return;
    if (text[0] != '\0' && now_us - last_us < (terminal ? 100000 : 1000000))
        return;
    if (text[0] != '\0')
        last_us = now_us;
    if (terminal && (shown || text[0] != '\0'))
        fprintf(stderr, "\r\033[K%s", text);
    else if (text[0] != '\0')
        fprintf(stderr, "%s\n", text);
    shown = text[0] != '\0';
}

/* ---- pieces of objects ------------------------------------------------- */

json_t *
cli_str(struct wb_slice s)
{
    char line[4 * 255 + 1];

    if (s.len == 0)
        return json_null();
    if (wb__utf8_valid(s))
        return json_stringn_nocheck(s.ptr, s.len);
    (void)wb__one_line(s, 255, line);
    return json_string(line);
}

json_t *
cli_int(int64_t n)
{
    return n == 0 ? json_null() : json_integer(n);
}

const char *
cli_u64(uint64_t n, char out[24])
{
    (void)snprintf(out, 24, "%llu", (unsigned long long)n);
    return out;
}

void
cli_add_payload(struct cli *cli, json_t *object, struct wb_slice payload)
{
    struct wb__buf b = {.env = cli->env, .max = SIZE_MAX / 2};

    if (wb__utf8_valid(payload)) {
        (void)json_object_set_new(object, "payload",
            json_stringn_nocheck(
                payload.len > 0 ? payload.ptr : "", payload.len));
        return;
    }
    wb__base64(&b, payload);
    if (b.failed == WB_OK)
        (void)json_object_set_new(
            object, "payload_base64", json_stringn_nocheck(b.ptr, b.len));
    wb__buf_fini(&b);
}

json_t *
cli_headers(struct wb_slice lines)
{
    json_t *list = json_array();
    struct wb_slice line;

    while (wb__cut(&lines, '\n', &line))
        (void)json_array_append_new(list, cli_str(line));
    return list;
}

/* The default is not stored. */
json_t *
cli_content_type(struct wb_slice s)
{
    return cli_str(s.len > 0 ? s : WB_LIT("application/json"));
}

/* ---- times for people -------------------------------------------------- */

const char *
cli_span(int64_t ms, char *out)
{
    static const struct {
        int64_t ms;
        const char *name;
    } units[] = {{86400000, "d"}, {3600000, "h"}, {60000, "m"}, {1000, "s"}};
    size_t i = 0;

    while (i < WB_COUNT(units) && ms < 2 * units[i].ms)
        i++;
    if (i == WB_COUNT(units) && ms >= 1000)
        (void)snprintf(out, 32, "1.%llds", (long long)(ms / 100 % 10));
    else if (i < WB_COUNT(units))
        (void)snprintf(
            out, 32, "%lld%s", (long long)(ms / units[i].ms), units[i].name);
    else
        (void)snprintf(out, 32, "%lldms", (long long)ms);
    return out;
}

const char *
cli_when(const struct cli *cli, int64_t ms, char *out)
{
    int64_t ahead = ms - cli->now_ms;
    char span[32];

    if (ms == 0)
        (void)snprintf(out, 32, "-");
    else if (ahead >= 1000)
        (void)snprintf(out, 32, "in %.20s", cli_span(ahead, span));
    else if (ahead <= -1000)
        (void)snprintf(out, 32, "%.20s ago", cli_span(-ahead, span));
    else
        (void)snprintf(out, 32, "now");
    return out;
}

/* ---- tables for people ------------------------------------------------- */

/* Characters of a cell. */
#define CELL_MAX 300

/* States are coloured wherever they stand. */
static const char *
color_of(const char *cell)
{
    static const char *const colors[][2] = {{"abandoned", "\033[31m"},
        {"open", "\033[31m"}, {"FAILED", "\033[31m"}, {"ok", "\033[32m"},
        {"delivered", "\033[32m"}, {"processing", "\033[36m"},
        {"half-open", "\033[33m"}, {"held", "\033[33m"}};

    for (size_t i = 0; i < WB_COUNT(colors); i++) {
        if (strcmp(cell, colors[i][0]) == 0)
            return colors[i][1];
    }
    return NULL;
}

static size_t
width_of(const char *text)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void
cli_table_begin(
    struct cli *cli, struct cli_table *t, const char *const *head, size_t cols)
{
    const char *no_color = getenv("NO_COLOR");

    WB_ASSERT(cols <= CLI_TABLE_COLS);
    *t = (struct cli_table){.head = head, .cols = cols};
    t->text = (struct wb__buf){.env = cli->env, .max = 16 * 1024 * 1024};
    t->color = cli_is_terminal(STDOUT_FILENO) &&
               (no_color == NULL || no_color[0] == '\0');
}

static void
print_cell(const struct cli_table *t, size_t col, const char *text)
{
    const char *color = t->color ? color_of(text) : NULL;
    size_t wide = width_of(text);
    bool last = col + 1 == t->cols;

    fprintf(stdout, "%s%s%s%*s", color != NULL ? color : "", text,
        color != NULL ? "\033[0m" : "",
        last || wide >= t->width[col] ? 0 : (int)(t->width[col] - wide), "");
    fputs(last ? "\n" : "  ", stdout);
}

static void
table_flush(struct cli_table *t)
{
    const char *cell = t->text.ptr;

    for (size_t c = 0; !t->begun && c < t->cols; c++) {
        if (t->width[c] < strlen(t->head[c]))
            t->width[c] = strlen(t->head[c]);
    }
    for (size_t c = 0; !t->begun && c < t->cols; c++)
        print_cell(t, c, t->head[c]);
    t->begun = true;
    for (size_t i = 0; i < t->rows * t->cols; i++) {
        print_cell(t, i % t->cols, cell);
        cell += strlen(cell) + 1;
    }
    t->rows = 0;
    t->row_at = 0;
    wb__buf_clear(&t->text);
}

void
cli_cell_slice(struct cli_table *t, struct wb_slice s)
{
    char line[4 * CELL_MAX + 1];

    (void)wb__one_line(s, CELL_MAX, line);
    wb__buf_add(&t->text, wb_slice(line[0] != '\0' ? line : "-"));
    wb__buf_add(&t->text, (struct wb_slice){"", 1});
}

void
cli_cell(struct cli_table *t, const char *fmt, ...)
{
    char text[CELL_MAX + 1];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    cli_cell_slice(t, wb_slice(text));
}

/* The cells since the last row. Without memory for them the row is left out,
 * and the end of the table says so. */
void
cli_row(struct cli_table *t)
{
    const char *cell;

    if (t->text.failed != WB_OK) {
        t->failed = true;
        t->text.failed = WB_OK;
        t->text.len = t->row_at;
        return;
    }
    cell = t->text.ptr + t->row_at;
    for (size_t c = 0; c < t->cols; c++) {
        size_t wide = width_of(cell);

        t->width[c] = wide > t->width[c] ? wide : t->width[c];
        cell += strlen(cell) + 1;
    }
    t->row_at = t->text.len;
    if (++t->rows == CLI_TABLE_ROWS)
        table_flush(t);
}

enum cli_exit
cli_table_end(struct cli *cli, struct cli_table *t)
{
    struct wb_err err;

    if (t->rows > 0)
        table_flush(t);
    wb__buf_fini(&t->text);
    if (!t->failed)
        return CLI_DONE;
    (void)wb__nomem(&err, "a row of the table");
    return cli_fail(cli, &err);
}
