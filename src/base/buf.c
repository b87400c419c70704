/* buf.c - bounded buffer, arena, arrays that grow. */
#include <stdio.h>

#include "base/base.h"

/* Make room for extra bytes and the NUL, or mark the buffer. */
static bool
reserve(struct wb__buf *b, size_t extra)
{
    size_t cap = b->cap == 0 ? 64 : b->cap;
    char *p;

    if (b->failed != WB_OK)
        return false;
    if (extra > b->max || b->len > b->max - extra) {
        b->failed = WB_TOOBIG;
        return false;
    }
    if (b->len + extra < b->cap)
        return true;
    while (cap <= b->len + extra)
        cap += cap;
    p = b->env->resize(b->env->ctx, b->ptr, cap);
    if (p == NULL) {
        b->failed = WB_NOMEM;
        return false;
    }
    b->ptr = p;
    b->cap = cap;
    return true;
}

bool
wb__buf_reserve(struct wb__buf *b, size_t extra)
{
    return reserve(b, extra);
}

char *
wb__buf_room(struct wb__buf *b, size_t len)
{
    char *at;

    if (!reserve(b, len))
        return NULL;
    at = b->ptr + b->len;
    b->len += len;
    b->ptr[b->len] = '\0';
    return at;
}

void
wb__buf_add(struct wb__buf *b, struct wb_slice s)
{
    char *at = wb__buf_room(b, s.len);

    if (at != NULL && s.len > 0)
        memcpy(at, s.ptr, s.len);
}

void
wb__buf_str(struct wb__buf *b, const char *text)
{
    wb__buf_add(b, wb_slice(text));
}

void
wb__buf_u64(struct wb__buf *b, uint64_t n)
{
    char digits[20];
    size_t at = sizeof(digits);

    do
        digits[--at] = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    wb__buf_add(b, (struct wb_slice){digits + at, sizeof(digits) - at});
}

void
wb__buf_fmt(struct wb__buf *b, const char *fmt, ...)
{
    va_list ap;
    int len;

    va_start(ap, fmt);
    len = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    WB_ASSERT(len >= 0);
    if (!wb__buf_reserve(b, (size_t)len))
        return;
    va_start(ap, fmt);
    (void)vsnprintf(b->ptr + b->len, (size_t)len + 1, fmt, ap);
    va_end(ap);
    b->len += (size_t)len;
}

void
wb__buf_clear(struct wb__buf *b)
{
    b->len = 0;
    b->failed = WB_OK;
}

void
wb__buf_fini(struct wb__buf *b)
{
    wb__free(b->env, b->ptr);
    b->ptr = NULL;
    b->cap = 0;
    wb__buf_clear(b);
}

struct wb_slice
wb__buf_slice(const struct wb__buf *b)
{
    return (struct wb_slice){b->ptr, b->len};
}

/* Small pieces share a chunk. A large one gets a chunk of its own, which is
 * linked behind the head, so that the rest of the head is still used. */
enum {
    CHUNK = 8192,
    ALIGN = 16
};

struct wb__chunk {
    struct wb__chunk *next;
    size_t used, cap;
    _Alignas(ALIGN) char data[];
};

void *
wb__arena_alloc(struct wb__arena *a, size_t len)
{
    struct wb__chunk *c = a->head, **at = &a->head;
    bool large = len > CHUNK / 4;
    size_t cap;
    void *p;

    WB_ASSERT(len > 0);
    if (len > SIZE_MAX - ALIGN - sizeof(*c))
        return NULL;
    len = (len + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    if (large || c == NULL || c->cap - c->used < len) {
        cap = large ? len : CHUNK;
        c = a->env->resize(a->env->ctx, NULL, sizeof(*c) + cap);
        if (c == NULL)
            return NULL;
        *c = (struct wb__chunk){.cap = cap};
        if (large && a->head != NULL)
            at = &a->head->next;
        c->next = *at;
        *at = c;
    }
    p = c->data + c->used;
    c->used += len;
    return memset(p, 0, len);
}

bool
wb__arena_dup(struct wb__arena *a, struct wb_slice s, struct wb_slice *out)
{
    char *p;

    *out = (struct wb_slice){NULL, 0};
    if (s.len == 0)
        return true;
    p = s.len == SIZE_MAX ? NULL : wb__arena_alloc(a, s.len + 1);
    if (p == NULL)
        return false;
    memcpy(p, s.ptr, s.len);
    *out = (struct wb_slice){p, s.len};
    return true;
}

void
wb__arena_clear(struct wb__arena *a)
{
    for (struct wb__chunk *c; (c = a->head) != NULL;) {
        a->head = c->next;
        wb__free(a->env, c);
    }
}

/* ---- arrays that grow -------------------------------------------------- */

enum {
    ARRAY_FIRST = 16
};

/* a: the arena to allocate from; NULL: resize by env. */
static bool
grow(const struct wb_env *env, struct wb__arena *a, void *array, size_t n,
    size_t *cap, size_t size)
{
    size_t bigger = *cap == 0 ? ARRAY_FIRST : 2 * *cap;
    void *old, *p;

    WB_ASSERT(n <= *cap);
    if (n < *cap)
        return true;
    if (*cap > SIZE_MAX / 2 / size) /* the bytes cannot be counted */
        return false;
    memcpy(&old, array, sizeof(old)); /* a pointer of any type */
    p = a != NULL ? wb__arena_alloc(a, bigger * size)
                  : env->resize(env->ctx, old, bigger * size);
    if (p == NULL)
        return false;
    if (a != NULL && n > 0)
        memcpy(p, old, n * size);
    memcpy(array, &p, sizeof(p));
    *cap = bigger;
    return true;
}

bool
wb__array_grow(
    const struct wb_env *env, void *array, size_t n, size_t *cap, size_t size)
{
    return grow(env, NULL, array, n, cap, size);
}

bool
wb__arena_grow(
    struct wb__arena *a, void *array, size_t n, size_t *cap, size_t size)
{
    return grow(a->env, a, array, n, cap, size);
}
