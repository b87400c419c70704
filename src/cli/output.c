/* output.c - everything the command prints.
 *
 * (1) Under --json stdout has one object a line and nothing else, stderr one
 *     object for each error.
 * (2) Text from outside reaches a terminal without control characters. */
#include <stdlib.h>

#include "cli/cli.h"

bool
cli_is_terminal(int fd)
{
    return uv_guess_handle(fd) == UV_TTY;
}

/* ---- errors ------------------------------------------------------------- */

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
cli_print_error(struct cli *cli, enum wb_status status, const char *fmt, ...)
{
    const char *name = wb_status_name(status);
    char code[16] = ""; /* "FENCED" -> "fenced" */
    va_list ap;

    for (size_t i = 0; name[i] != '\0' && i < sizeof(code) - 1; i++)
        code[i] =
            (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
    va_start(ap, fmt);
    vprint_error(cli, code, fmt, ap);
    va_end(ap);
}

static enum cli_exit
exit_of(enum wb_status status)
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
    const char *text =
        err->msg[0] != '\0' ? err->msg : wb_status_text(err->status);

    if (err->status == WB_OK) /* one of our callbacks has printed why */
        return CLI_FAILED;
    if (code == CLI_USAGE)
        return cli_usage(cli, "%s", text);
    cli_print_error(cli, err->status, "%s", text);
    return code;
}

enum cli_exit
cli_fail(struct cli *cli, const struct wb_err *err)
{
    return cli_fail_as(cli, exit_of(err->status), err);
}

enum cli_exit
cli_nomem(struct cli *cli, const char *what)
{
    struct wb_err err;

    (void)wb__nomem(&err, what);
    return cli_fail(cli, &err);
}

enum cli_exit
cli_fail_no_usage(struct cli *cli, const struct wb_err *err)
{
    return cli_fail_as(
        cli, exit_of(err->status) == CLI_BUSY ? CLI_BUSY : CLI_FAILED, err);
}

/* ---- stdout and stderr -------------------------------------------------- */

enum cli_exit
cli_json(struct cli *cli, json_t *take)
{
    if (take == NULL)
        return cli_nomem(cli, "a line of output");
    /* A failed write is found when main() flushes stdout. */
    (void)json_dumpf(take, stdout, JSON_COMPACT);
    fputc('\n', stdout);
    json_decref(take);
    return ferror(stdout) ? CLI_FAILED : CLI_DONE;
}

/* A line for people, unless it is silenced. */
static void vprint_line(FILE *to, bool silent, const char *fmt, va_list ap)
    WB_PRINTF(3, 0);
static void
vprint_line(FILE *to, bool silent, const char *fmt, va_list ap)
{
    if (silent)
        return;
    vfprintf(to, fmt, ap);
    fputc('\n', to);
}

void
cli_print(const struct cli *cli, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vprint_line(stdout, cli->json, fmt, ap);
    va_end(ap);
}

void
cli_print_field(const struct cli *cli, const char *name, struct wb_slice s)
{
    char line[4 * 2048 + 1];

    if (wb__one_line(s, 2048, line) > 0)
        cli_print(cli, "%-13s %s", name, line);
}

void
cli_report(const struct cli *cli, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vprint_line(stdout, cli->json || cli->quiet, fmt, ap);
    va_end(ap);
}

enum cli_exit
cli_result(struct cli *cli, json_t *take, const char *fmt, ...)
{
    va_list ap;

    if (cli->json)
        return cli_json(cli, take);
    json_decref(take);
    va_start(ap, fmt);
    vprint_line(stdout, cli->quiet, fmt, ap);
    va_end(ap);
    return CLI_DONE;
}

void
cli_note(const struct cli *cli, const char *fmt, ...)
{
    bool silent = cli->json || cli->quiet;
    va_list ap;

    if (!silent)
        cli_progress(cli, "%s", "");
    va_start(ap, fmt);
    vprint_line(stderr, silent, fmt, ap);
    va_end(ap);
}

void
cli_progress(const struct cli *cli, const char *fmt, ...)
{
    static bool shown; /* stderr is one for the whole process */
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

/* ---- values of objects -------------------------------------------------- */

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
cli_add_bytes(
    struct cli *cli, json_t *object, const char *name, struct wb_slice bytes)
{
    struct wb__buf b = {.env = cli->env, .max = SIZE_MAX / 2};
    char base64_name[40];

    if (wb__utf8_valid(bytes)) {
        (void)json_object_set_new(object, name,
            json_stringn_nocheck(bytes.len > 0 ? bytes.ptr : "", bytes.len));
        return;
    }
    (void)snprintf(base64_name, sizeof(base64_name), "%s_base64", name);
    wb__base64(&b, bytes);
    if (b.failed == WB_OK)
        (void)json_object_set_new(
            object, base64_name, json_stringn_nocheck(b.ptr, b.len));
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

void
cli_add_content(struct cli *cli, json_t *object, struct wb_slice payload,
    struct wb_slice content_type, struct wb_slice headers)
{
    if (content_type.len == 0) /* the default is not stored */
        content_type = WB_LIT("application/json");
    cli_add_bytes(cli, object, "payload", payload);
    (void)json_object_set_new(object, "content_type", cli_str(content_type));
    (void)json_object_set_new(object, "headers", cli_headers(headers));
}

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
        (void)snprintf(out, 32, "%lld%s",
            (long long)(wb__sat_add(ms, units[i].ms / 2) / units[i].ms),
            units[i].name);
    else
        (void)snprintf(out, 32, "%lldms", (long long)ms);
    return out;
}

const char *
cli_when(const struct cli *cli, int64_t ms, char *out)
{
    int64_t ahead = wb__sat_sub(ms, cli->now_ms);
    char span[32];

    if (ms == 0)
        (void)snprintf(out, 32, "-");
    else if (ahead >= 1000)
        (void)snprintf(out, 32, "in %.20s", cli_span(ahead, span));
    else if (ahead <= -1000)
        (void)snprintf(
            out, 32, "%.20s ago", cli_span(wb__sat_sub(0, ahead), span));
    else
        (void)snprintf(out, 32, "now");
    return out;
}

/* ---- tables for people -------------------------------------------------- */

/* Characters of a cell. */
#define CELL_MAX 300

static size_t
width_of(const char *text)
{
    size_t n = 0;

    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

/* Bytes of the first chars - 1 characters: one is left for "…". */
static size_t
cut_at(const char *text, size_t chars)
{
    size_t len = 0;

    for (; text[len] != '\0'; len++)
        if (((unsigned char)text[len] & 0xc0) != 0x80 && --chars == 0)
            break;
    return len;
}

void
cli_table_begin(
    struct cli *cli, struct cli_table *t, const char *const *head, size_t cols)
{
    const char *no_color = getenv("NO_COLOR");

    WB_ASSERT(cols <= CLI_TABLE_COLS);
    *t = (struct cli_table){.head = head, .cols = cols};
    t->text = (struct wb__buf){.env = cli->env, .max = 16 * 1024 * 1024};
    t->line = wb__terminal_width(STDOUT_FILENO);
    t->color = cli_is_terminal(STDOUT_FILENO) &&
               (no_color == NULL || no_color[0] == '\0');
}

static void
print_cell(const struct cli_table *t, size_t col, const char *text)
{
    static const char *const colors[][2] = {{"abandoned", "\033[31m"},
        {"open", "\033[31m"}, {"FAILED", "\033[31m"}, {"ok", "\033[32m"},
        {"delivered", "\033[32m"}, {"processing", "\033[36m"},
        {"half-open", "\033[33m"}, {"held", "\033[33m"}};
    const char *color = NULL;
    size_t wide = width_of(text);
    bool last = col + 1 == t->cols;
    size_t left = t->line, len = strlen(text);

    for (size_t i = 0; i < col; i++)
        left -= left < t->width[i] + 2 ? left : t->width[i] + 2;
    if (last && t->line > 0 && wide > left)
        len = cut_at(text, left > 8 ? left : 8);
    for (size_t i = 0; t->color && i < WB_COUNT(colors); i++) {
        if (strcmp(text, colors[i][0]) == 0)
            color = colors[i][1];
    }
    fprintf(stdout, "%s%.*s%s%s%*s", color != NULL ? color : "", (int)len, text,
        text[len] != '\0' ? "…" : "", color != NULL ? "\033[0m" : "",
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
        print_cell(t, c, t->head[c]);
    }
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

/* Without memory for its cells a row is left out; cli_table_end() reports it.
 */
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
    if (t->rows > 0)
        table_flush(t);
    wb__buf_fini(&t->text);
    return t->failed ? cli_nomem(cli, "a row of the table") : CLI_DONE;
}
