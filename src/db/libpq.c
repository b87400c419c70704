/* libpq.c - libpq's functions, found when they are first needed. */
#include "db/libpq.h"

struct wb__pq wb__pq;

enum wb_status
wb__pq_load(struct wb_err *err)
{
    static const char *const names[] = {
#define X(name) #name,
        WB__PQ_MAP(X)
#undef X
    };
    static struct wb__library lib = {.soname = WB_LIBPQ,
        .names = names,
        .n = WB_COUNT(names),
        .functions = &wb__pq};

    return wb__library_load(&lib, err);
}
