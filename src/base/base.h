/* base.h - what every other file may use: contract checks, errors, memory,
 * slices, buffers, arenas, arrays, heaps. Layer 0: includes only public
 * headers. */
#ifndef WB_SRC_BASE_H
#define WB_SRC_BASE_H

#include <stdarg.h>
#include <string.h>

#include "waybill/env.h"
#include "waybill/waybill.h"

/* Contract checks, always compiled in. For our own bugs only: a full disk, a
 * dead peer or an unexpected row is a status, never an assert. */
#define WB_ASSERT(e) \
    ((e) ? (void)0 : wb__panic(__FILE__, __LINE__, __func__, #e))
WB_NORETURN void wb__panic(
    const char *file, int line, const char *func, const char *expr);

#define WB_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Record a failure in *err (which may be NULL) and return the status. */
enum wb_status wb__fail(struct wb_err *err, enum wb_status status, int sys,
    const char *fmt, ...) WB_PRINTF(4, 5);
enum wb_status wb__nomem(struct wb_err *err, const char *what);

/* For printf("%.*s"): at most 60 bytes of a slice. */
#define WB_SHOW(s) \
    ((int)((s).len > 60 ? 60 : (s).len)), ((s).ptr ? (s).ptr : "")

/* The only allocator. Zeroed memory, or NULL; size 0 is a bug. */
WB_MUST_USE void *wb__alloc(const struct wb_env *env, size_t size);
void wb__free(const struct wb_env *env, void *ptr); /* NULL is fine */

/* ---- slices ------------------------------------------------------------ */

#define WB_LIT(text) ((struct wb_slice){(text), sizeof(text) - 1})

bool wb__eq(struct wb_slice a, struct wb_slice b);
int wb__cmp(struct wb_slice a, struct wb_slice b); /* as memcmp, then length */
bool wb__starts(struct wb_slice s, struct wb_slice prefix);
struct wb_slice wb__from(struct wb_slice s, size_t at); /* s[at..]; at <= len */

/* Take the next piece of *rest up to sep (or the end) off its front. False,
 * and *piece untouched, once nothing is left. */
bool wb__cut(struct wb_slice *rest, char sep, struct wb_slice *piece);

/* White space (space, tab, CR, LF) off both ends. */
struct wb_slice wb__trim(struct wb_slice s);

/* ---- bounded buffer ------------------------------------------------------
 * Grows up to max bytes. An append that fails (NOMEM, TOOBIG) changes nothing
 * and marks the buffer, so that a chain of appends is checked once at the
 * end. A zero-initialised buffer with env and max set is ready for use. The
 * bytes are followed by a NUL that does not count. */
struct wb__buf {
    const struct wb_env *env;
    size_t max;
    char *ptr;
    size_t len, cap;
    enum wb_status failed; /* OK, or why an append did not happen */
};
void wb__buf_add(struct wb__buf *b, struct wb_slice s);
void wb__buf_str(struct wb__buf *b, const char *text);
void wb__buf_fmt(struct wb__buf *b, const char *fmt, ...) WB_PRINTF(2, 3);
void wb__buf_u64(struct wb__buf *b, uint64_t n); /* decimal */
/* Allocate for len more bytes. False: it failed, and the buffer is marked. */
bool wb__buf_reserve(struct wb__buf *b, size_t len);
/* Make the buffer len bytes longer; gives where they start, to be filled by the
 * caller. NULL if it failed. */
char *wb__buf_room(struct wb__buf *b, size_t len);
void wb__buf_clear(struct wb__buf *b); /* len 0 and OK; memory kept */
void wb__buf_fini(struct wb__buf *b);
struct wb_slice wb__buf_slice(const struct wb__buf *b);

/* ---- arena: bytes that live and die together ----------------------------
 * A zero-initialised arena with env set is empty. */
struct wb__arena {
    const struct wb_env *env;
    struct wb__chunk *head;
};
/* len > 0 bytes, aligned for anything, zeroed; NULL when out of memory. */
WB_MUST_USE void *wb__arena_alloc(struct wb__arena *a, size_t len);
/* A copy with a NUL behind it. False when out of memory. An empty slice gives
 * an empty one. */
WB_MUST_USE bool wb__arena_dup(
    struct wb__arena *a, struct wb_slice s, struct wb_slice *out);
void wb__arena_clear(struct wb__arena *a);

/* ---- arrays that grow -----------------------------------------------------
 * Allocate element n of an array of *cap elements of size bytes; nothing
 * to do while n < *cap. array is the address of the pointer to the elements;
 * NULL there and *cap 0 are an empty array. New elements are not zeroed.
 * False when out of memory: then nothing has changed.
 *
 *     if (!wb__array_grow(env, &x->row, x->n, &x->cap, sizeof(*x->row)))
 *         return WB_NOMEM;
 *     x->row[x->n++] = row;
 */
WB_MUST_USE bool wb__array_grow(
    const struct wb_env *env, void *array, size_t n, size_t *cap, size_t size);
/* The same in an arena, which keeps the old elements until it is cleared. */
WB_MUST_USE bool wb__arena_grow(
    struct wb__arena *a, void *array, size_t n, size_t *cap, size_t size);

/* ---- binary heap ----------------------------------------------------------
 * Of nodes that are members of the caller's structs. First is O(1); push,
 * remove and move are O(log n). */
struct wb__heap_node {
    int64_t key;
    uint32_t at; /* where it is in the heap */
};

/* A zero-initialised heap with env set is empty. */
struct wb__heap {
    const struct wb_env *env;
    struct wb__heap_node **node;
    uint32_t n, cap;
};

/* Add a node by its key. False when out of memory: nothing changed. */
WB_MUST_USE bool wb__heap_push(struct wb__heap *h, struct wb__heap_node *node);
void wb__heap_remove(struct wb__heap *h, struct wb__heap_node *node);
void wb__heap_move(struct wb__heap *h, struct wb__heap_node *node, int64_t key);
/* The node with the least key, or NULL. */
struct wb__heap_node *wb__heap_first(const struct wb__heap *h);
void wb__heap_fini(struct wb__heap *h); /* the nodes are left alone */

/* ---- JSON texts, as they are written ------------------------------------- */

/* Is it one JSON value (RFC 8259), nested at most 2048 deep? bad may be NULL;
 * *bad: where it ends to be one. */
bool wb__json_valid(struct wb_slice text, size_t *bad);
/* The text of the member at a.b.c of a valid text; of a name that stands twice,
 * the last. False: there is none. */
WB_MUST_USE bool wb__json_at(
    struct wb_slice text, struct wb_slice path, struct wb_slice *value);

/* ---- text -------------------------------------------------------------- */

bool wb__utf8_valid(struct wb_slice s);
/* Valid UTF-8 without control characters (C0, DEL, C1). */
bool wb__printable(struct wb_slice s);

/* One greppable line: control characters and runs of white space become one
 * space, ends trimmed, bytes that are not UTF-8 become '?', cut to max_chars
 * on a character boundary. out holds 4 * max_chars + 1 bytes. */
size_t wb__one_line(struct wb_slice s, size_t max_chars, char *out);

/* Letters to insert, remove or replace (Levenshtein). Words of more than 32
 * bytes are 32 apart. */
size_t wb__edit_distance(struct wb_slice a, struct wb_slice b);

/* Lines "Name: value\n" as stored with a message and given to transports. The
 * name is a token of RFC 9110, the value has no control character but tab, and
 * neither end is white space. INVALID says which line and why. */
WB_MUST_USE enum wb_status wb__headers_check(
    struct wb_slice lines, struct wb_err *err);
/* The same for a message and a route: also at most WB__HEADERS_MAX lines and
 * WB__HEADERS_BYTES bytes, and no header that HTTP or Waybill itself writes. */
enum {
    WB__HEADERS_MAX = 64,
    WB__HEADERS_BYTES = 65536
};
WB_MUST_USE enum wb_status wb__request_headers_check(
    struct wb_slice lines, struct wb_err *err);
/* Take the next header off *rest. False at the end. */
bool wb__headers_next(
    struct wb_slice *rest, struct wb_slice *name, struct wb_slice *value);
/* The reason phrase of an HTTP status (RFC 9110, 15); "" where it has none. */
const char *wb__http_reason(int status);
bool wb__same_nocase(const char *a, const char *b, size_t len);
/* ASCII only. Most names already differ in length. */
static inline bool
wb__eq_nocase(struct wb_slice a, struct wb_slice b)
{
    return a.len == b.len && wb__same_nocase(a.ptr, b.ptr, a.len);
}
/* tchar of RFC 9110: what a name is made of. */
static inline bool
wb__is_tchar(unsigned char c)
{
    static const uint64_t tchar[2] = {
        UINT64_C(0x03ff6cfa00000000), UINT64_C(0x57ffffffc7fffffe)};

    return c < 128 && (tchar[c >> 6] >> (c & 63) & 1) != 0;
}

/* Standard base64 with padding, appended. */
void wb__base64(struct wb__buf *b, struct wb_slice bytes);

/* ---- units: as the command line and the configuration write them ------- */

/* "500ms" "30s" "5m" "2h" "7d"; a bare 0 is fine. Not negative. */
WB_MUST_USE enum wb_status wb__parse_duration(
    struct wb_slice s, int64_t *ms, struct wb_err *err);
/* "512" "64k" "10m" "2g", powers of 1024. */
WB_MUST_USE enum wb_status wb__parse_size(
    struct wb_slice s, int64_t *bytes, struct wb_err *err);
/* RFC 3339 "2026-11-20T18:00:00.5Z" with any offset, or "now". */
WB_MUST_USE enum wb_status wb__parse_time(
    struct wb_slice s, int64_t now_ms, int64_t *ms, struct wb_err *err);
/* HTTP-date, in any of the three forms of RFC 9110, to epoch ms; false if s is
 * not one. now_ms: for a year of two digits. */
WB_MUST_USE bool wb__parse_http_date(
    struct wb_slice s, int64_t now_ms, int64_t *ms);
/* RFC 3339 in UTC with milliseconds. */
void wb__format_time(int64_t ms, char out[32]);
/* Decimal digits only, no sign, no overflow past max. */
WB_MUST_USE bool wb__parse_u64(struct wb_slice s, uint64_t max, uint64_t *out);

/* a + b and a - b of int64_t, stopping at the ends of the type. */
int64_t wb__sat_add(int64_t a, int64_t b);
int64_t wb__sat_sub(int64_t a, int64_t b);

/* ---- hash -------------------------------------------------------------- */

/* SHA-256 of the parts, each preceded by its length (8 bytes, little endian),
 * so that ("a", "bc") and ("ab", "c") differ. False when out of memory. */
WB_MUST_USE bool wb__sha256(
    const struct wb_slice *parts, size_t n, uint8_t out[32]);
/* SipHash-1-3, for tables whose keys come from outside: with a random seed
 * keys cannot be chosen so that they collide. */
uint64_t wb__siphash(const uint64_t seed[2], const void *bytes, size_t len);

/* ---- uuid -------------------------------------------------------------- */

/* UUIDv7 (RFC 9562) of a time and ten random bytes. */
struct wb_id wb__uuid7(int64_t wall_ms, const uint8_t random[10]);
/* Any UUID in its canonical text, either case; *out is lower case. */
WB_MUST_USE bool wb__uuid_parse(struct wb_slice s, struct wb_id *out);

#endif /* WB_SRC_BASE_H */
