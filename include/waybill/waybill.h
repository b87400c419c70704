/* waybill/waybill.h - statuses, errors and slices shared by every public
 * header. */
#ifndef WB_WAYBILL_H
#define WB_WAYBILL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WB_VERSION "0.1.0"

#define WB_MUST_USE     __attribute__((warn_unused_result))
#define WB_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define WB_NORETURN     __attribute__((noreturn))

/* Every status, its name and what it says about the store. Codes are
 * append-only: they appear in logs, exit codes and bindings. */
#define WB_STATUS_MAP(X)                                                      \
    X(OK, 0, "success")                                                       \
    X(EMPTY, 1, "nothing to do; not a failure")                               \
    X(BUSY, 2, "lock not obtained in time; nothing changed, repeat the call") \
    X(FENCED, 3, "the lease was lost to another worker; nothing changed")     \
    X(MISMATCH, 4, "same id or key, other content; nothing changed")          \
    X(INVALID, 5, "bad input; nothing changed")                               \
    X(TOOBIG, 6, "larger than the configured limit; nothing changed")         \
    X(FULL, 7, "a limit of the store is reached; nothing changed, try later") \
    X(NOTFOUND, 8, "no such thing; nothing changed")                          \
    X(NOMEM, 9, "out of memory; nothing changed")                             \
    X(IO, 10, "the store failed; out of a commit: unknown until reopened")    \
    X(CORRUPT, 11, "the store is damaged or not a store; nothing changed")    \
    X(NEWER, 12, "written by a newer version of Waybill; nothing changed")    \
    X(REFUSED, 13, "the place or the setting is not safe; nothing changed")   \
    X(UNAVAILABLE, 14, "a server, secret or part is missing; nothing changed")

enum wb_status {
#define X(name, num, text) WB_##name = num,
    WB_STATUS_MAP(X)
#undef X
};

/* Detail of the last failure. The caller owns it, may pass NULL, and may keep
 * it on the stack: it holds no pointers and needs no freeing. */
struct wb_err {
    enum wb_status status;
    int sys; /* errno or extended SQLite code, 0 if none */
    char msg[256];
};

/* A view of bytes somebody else owns. Not NUL-terminated. */
struct wb_slice {
    const char *ptr; /* may be NULL only if len is 0 */
    size_t len;
};

/* Name of a status, e.g. "FENCED", and its text; "?" outside the map. */
const char *wb_status_name(enum wb_status status);
const char *wb_status_text(enum wb_status status);

/* View of a NUL-terminated string; NULL gives the empty slice. */
struct wb_slice wb_slice(const char *text);

/* A message's id: a UUID in lower-case text. An empty text means none. */
#define WB_ID_LEN 36
struct wb_id {
    char text[WB_ID_LEN + 1];
};

#ifdef __cplusplus
}
#endif
#endif /* WB_WAYBILL_H */
