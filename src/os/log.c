/* log.c - see log.h. */
#include "os/log.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    LINE_BYTES = 3500, /* a pipe with room takes PIPE_BUF, 4096, at once */
    FIELD_CHARS = 200, /* of a text field, which so has less than ... */
    FIELD_BYTES = 900, /* with name and quotes */
    FLOOD_LINES = 5,   /* of one event and kind in ... */
    FLOOD_MS = 10000
};

static const char *const level_name[] = {"error", "warn", "info", "debug"};
static const int priority[] = {3, 4, 6, 7};

const char *
wb__log_level_name(enum wb__log_level level)
{
    return level_name[level];
}

static int64_t
mono_ms(const struct wb__log *log)
{
    return log->env->mono_us(log->env->ctx) / 1000;
}

/* JOURNAL_STREAM=DEVICE:INODE is of the stream that systemd gave us, which may
 * not be this one any more. */
static bool
is_journal(int fd)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat st;
    char own[64];

    if (stream == NULL || fstat(fd, &st) != 0)
        return false;
    (void)snprintf(own, sizeof(own), "%llu:%llu", (unsigned long long)st.st_dev,
        (unsigned long long)st.st_ino);
    return strcmp(own, stream) == 0;
}

void
wb__log_init(struct wb__log *log, const struct wb_env *env, int fd,
    enum wb__log_format format, enum wb__log_level level)
{
    *log = (struct wb__log){.env = env,
        .fd = fd,
        .format = format,
        .level = level,
        .priorities = is_journal(fd)};
    wb__mutex_init(&log->mutex);
}

/* ---- a line ------------------------------------------------------------ */

struct line {
    enum wb__log_format format;
    size_t len;
    char text[LINE_BYTES + 2];
};

static void
put(struct line *l, struct wb_slice s)
{
    if (s.len > 0 && s.len <= LINE_BYTES - l->len) {
        memcpy(l->text + l->len, s.ptr, s.len);
        l->len += s.len;
    }
}

/* One line of printable text: only the quotes are left to escape. */
static void
put_quoted(struct line *l, struct wb_slice s)
{
    put(l, WB_LIT("\""));
    for (size_t i = 0; i < s.len; i++) {
        if (s.ptr[i] == '"' || s.ptr[i] == '\\')
            put(l, WB_LIT("\\"));
        put(l, (struct wb_slice){s.ptr + i, 1});
    }
    put(l, WB_LIT("\""));
}

static bool
is_bare(struct wb_slice s)
{
    for (size_t i = 0; i < s.len; i++)
        if (memchr(" =\"\\", s.ptr[i], 4) != NULL)
            return false;
    return s.len > 0;
}

static void
put_name(struct line *l, const char *name)
{
    bool json = l->format == WB__LOG_JSON;

    put(l, json ? WB_LIT(",\"") : WB_LIT(" "));
    put(l, wb_slice(name));
    put(l, json ? WB_LIT("\":") : WB_LIT("="));
}

static void
put_text(struct line *l, const char *name, struct wb_slice s)
{
    char clean[4 * FIELD_CHARS + 1];

    if (s.len == 0 || l->len + FIELD_BYTES > LINE_BYTES)
        return; /* without room the field is left out, the line stays whole */
    s = (struct wb_slice){clean, wb__one_line(s, FIELD_CHARS, clean)};
    put_name(l, name);
    if (l->format == WB__LOG_TEXT && is_bare(s))
        put(l, s);
    else
        put_quoted(l, s);
}

static void
put_number(struct line *l, const char *name, int64_t n)
{
    char text[24];

    put_name(l, name);
    (void)snprintf(text, sizeof(text), "%lld", (long long)n);
    put(l, wb_slice(text));
}

static void
line_begin(struct line *l, const struct wb__log *log, enum wb__log_level level,
    const char *event)
{
    char at[32], head[128];

    *l = (struct line){.format = log->format};
    wb__format_time(log->env->wall_ms(log->env->ctx), at);
    if (log->priorities) {
        (void)snprintf(head, sizeof(head), "<%d>", priority[level]);
        put(l, wb_slice(head));
    }
    (void)snprintf(head, sizeof(head),
        log->format == WB__LOG_JSON
            ? "{\"at\":\"%s\",\"level\":\"%s\",\"event\":\"%s\""
            : "%s %s %s",
        at, level_name[level], event);
    put(l, wb_slice(head));
}

static void
line_fields(struct line *l, const struct wb__log_fields *f)
{
    put_text(l, "id", f->id);
    put_text(l, "kind", f->kind);
    if (f->attempt > 0)
        put_number(l, "attempt", (int64_t)f->attempt);
    if (f->outcome != NULL)
        put_text(l, "outcome", wb_slice(f->outcome));
    if (f->status != 0)
        put_number(l, "status", f->status);
    put_text(l, "error", f->error);
    if (f->timed)
        put_number(l, "duration_ms", f->duration_ms);
    put_text(l, "scope", f->scope);
    if (f->count > 0)
        put_number(l, "count", (int64_t)f->count);
    put_text(l, "detail", f->detail);
}

/* A pipe or terminal that is ready takes a line of this size without blocking.
 * A line that was not written whole is not continued: the next one would be
 * spoiled as well. */
static bool
line_write(struct wb__log *log, struct line *l)
{
    struct pollfd p = {.fd = log->fd, .events = POLLOUT};
    ssize_t n;

    if (l->format == WB__LOG_JSON)
        l->text[l->len++] = '}';
    l->text[l->len++] = '\n';
    if (poll(&p, 1, 0) != 1 || (p.revents & POLLOUT) == 0)
        return false;
    do
        n = write(log->fd, l->text, l->len);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)l->len;
}

/* Write a line, after one that says how many were lost before it. */
static void
write_event(struct wb__log *log, enum wb__log_level level, const char *event,
    const struct wb__log_fields *fields)
{
    const struct wb__log_fields lost = {.count = log->lost};
    struct line l;

    if (log->lost > 0) {
        line_begin(&l, log, WB__LOG_WARN, "log-lost");
        line_fields(&l, &lost);
        if (line_write(log, &l))
            log->lost = 0;
    }
    line_begin(&l, log, level, event);
    if (fields != NULL)
        line_fields(&l, fields);
    if (line_write(log, &l))
        atomic_fetch_add(&log->lines[level], 1);
    else
        log->lost++;
}

/* ---- floods ------------------------------------------------------------ */

static void
flood_end(struct wb__log *log, struct wb__log_flood *f)
{
    const struct wb__log_fields fields = {
        .kind = wb_slice(f->kind), .count = f->more};

    if (f->event != NULL && f->more > 0)
        write_event(log, f->level, f->event, &fields);
    f->event = NULL;
}

/* End what is over by now. Gives when the next one with a count is. */
static int64_t
floods_end(struct wb__log *log, int64_t now_ms)
{
    int64_t next_ms = INT64_MAX;

    for (size_t i = 0; i < WB__LOG_FLOODS; i++) {
        struct wb__log_flood *f = &log->flood[i];

        if (f->event != NULL && f->end_ms <= now_ms)
            flood_end(log, f);
        if (f->event != NULL && f->more > 0 && f->end_ms < next_ms)
            next_ms = f->end_ms;
    }
    return next_ms;
}

/* The counter of an event and a kind; where all are taken, the last one is
 * shared by all other kinds of an event. */
static struct wb__log_flood *
flood_of(struct wb__log *log, enum wb__log_level level, const char *event,
    struct wb_slice kind, int64_t now_ms)
{
    struct wb__log_flood *f, *unused = NULL;

    if (kind.len >= sizeof(f->kind))
        kind.len = sizeof(f->kind) - 1;
    for (f = log->flood; f < log->flood + WB__LOG_FLOODS; f++) {
        if (f->event == NULL)
            unused = unused == NULL ? f : unused;
        else if (f->level == level && strcmp(f->event, event) == 0 &&
                 wb__eq(wb_slice(f->kind), kind))
            return f;
    }
    if (unused == NULL) {
        unused = &log->flood[WB__LOG_FLOODS - 1];
        if (strcmp(unused->event, event) == 0 && unused->kind[0] == '\0')
            return unused;
        flood_end(log, unused);
        kind.len = 0;
    }
    *unused = (struct wb__log_flood){
        .event = event, .level = level, .end_ms = now_ms + FLOOD_MS};
    if (kind.len > 0)
        memcpy(unused->kind, kind.ptr, kind.len);
    return unused;
}

void
wb__log(struct wb__log *log, enum wb__log_level level, const char *event,
    const struct wb__log_fields *fields)
{
    struct wb__log_flood *f;
    int64_t now_ms;

    if (log == NULL || level > log->level)
        return;
    wb__mutex_lock(&log->mutex);
    now_ms = mono_ms(log);
    (void)floods_end(log, now_ms);
    f = flood_of(log, level, event,
        fields != NULL ? fields->kind : (struct wb_slice){0}, now_ms);
    if (log->unlimited || f->lines < FLOOD_LINES) {
        f->lines++;
        write_event(log, level, event, fields);
    } else {
        f->more += fields != NULL && fields->count > 0 ? fields->count : 1;
    }
    wb__mutex_unlock(&log->mutex);
}

int64_t
wb__log_tick(struct wb__log *log)
{
    int64_t now_ms, next_ms;

    if (log == NULL)
        return 0;
    wb__mutex_lock(&log->mutex);
    now_ms = mono_ms(log);
    next_ms = floods_end(log, now_ms);
    wb__mutex_unlock(&log->mutex);
    return next_ms == INT64_MAX ? 0 : next_ms - now_ms;
}

void
wb__log_fini(struct wb__log *log)
{
    for (size_t i = 0; i < WB__LOG_FLOODS; i++)
        flood_end(log, &log->flood[i]);
    wb__mutex_fini(&log->mutex);
}
