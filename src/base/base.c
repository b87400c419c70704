/* base.c - statuses, errors, the allocator, slices. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *name, *text;
} statuses[] = {
#define X(id, num, words) [num] = {#id, words},
    WB_STATUS_MAP(X)
#undef X
};

const char *
wb_status_name(enum wb_status status)
{
    return (unsigned)status < WB_COUNT(statuses) ? statuses[status].name : "?";
}

const char *
wb_status_text(enum wb_status status)
{
    return (unsigned)status < WB_COUNT(statuses) ? statuses[status].text : "?";
}

void
wb__panic(const char *file, int line, const char *func, const char *expr)
{
    (void)fprintf(
        stderr, "waybill: bug: %s:%d %s: %s\n", file, line, func, expr);
    abort();
}

enum wb_status
wb__fail(
    struct wb_err *err, enum wb_status status, int sys, const char *fmt, ...)
{
    va_list ap;

    if (err == NULL)
        return status;
    err->status = status;
    err->sys = sys;
    va_start(ap, fmt);
    (void)vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
    return status;
}

enum wb_status
wb__nomem(struct wb_err *err, const char *what)
{
    return wb__fail(err, WB_NOMEM, 0, "%s: out of memory", what);
}

void *
wb__alloc(const struct wb_env *env, size_t size)
{
    void *p;

    WB_ASSERT(size > 0);
    p = env->resize(env->ctx, NULL, size);
    if (p != NULL)
        memset(p, 0, size);
    return p;
}

void
wb__free(const struct wb_env *env, void *ptr)
{
    if (ptr != NULL)
        (void)env->resize(env->ctx, ptr, 0);
}

struct wb_slice
wb_slice(const char *text)
{
    return (struct wb_slice){text, text == NULL ? 0 : strlen(text)};
}

bool
wb__eq(struct wb_slice a, struct wb_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

int
wb__cmp(struct wb_slice a, struct wb_slice b)
{
    size_t len = a.len < b.len ? a.len : b.len;
    int diff = len == 0 ? 0 : memcmp(a.ptr, b.ptr, len);

    return diff != 0 ? diff : (a.len > b.len) - (a.len < b.len);
}

bool
wb__starts(struct wb_slice s, struct wb_slice prefix)
{
    return s.len >= prefix.len &&
           wb__eq((struct wb_slice){s.ptr, prefix.len}, prefix);
}

struct wb_slice
wb__from(struct wb_slice s, size_t at)
{
    WB_ASSERT(at <= s.len);
    if (at == 0)
        return s;
    return (struct wb_slice){s.ptr + at, s.len - at};
}

bool
wb__cut(struct wb_slice *rest, char sep, struct wb_slice *piece)
{
    const char *end;

    if (rest->len == 0)
        return false;
    end = memchr(rest->ptr, sep, rest->len);
    *piece = *rest;
    if (end != NULL)
        piece->len = (size_t)(end - rest->ptr);
    *rest = wb__from(*rest, piece->len + (end != NULL));
    return true;
}

static bool
is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

struct wb_slice
wb__trim(struct wb_slice s)
{
    while (s.len > 0 && is_blank(s.ptr[0]))
        s = wb__from(s, 1);
    while (s.len > 0 && is_blank(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

int64_t
wb__sat_add(int64_t a, int64_t b)
{
    int64_t sum;

    if (__builtin_add_overflow(a, b, &sum))
        return b > 0 ? INT64_MAX : INT64_MIN;
    return sum;
}

int64_t
wb__sat_sub(int64_t a, int64_t b)
{
    int64_t difference;

    if (__builtin_sub_overflow(a, b, &difference))
        return b < 0 ? INT64_MAX : INT64_MIN;
    return difference;
}
