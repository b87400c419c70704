/* libpq.h - libpq, loaded when it is first used, so that programs on SQLite do
 * not load it and its dependencies.
 *
 * A file that includes this calls libpq as if it were linked with it. A
 * function that is missing in the table does not link. */
#ifndef WB_SRC_DB_LIBPQ_H
#define WB_SRC_DB_LIBPQ_H

#include <libpq-fe.h>

#include "os/os.h"

/* clang-format off */
#define WB__PQ_MAP(X)      \
    X(PQclear)             \
    X(PQcmdStatus)         \
    X(PQcmdTuples)         \
    X(PQconnectdbParams)   \
    X(PQconninfo)          \
    X(PQconninfoFree)      \
    X(PQerrorMessage)      \
    X(PQexec)              \
    X(PQexecPrepared)      \
    X(PQfinish)            \
    X(PQftype)             \
    X(PQgetisnull)         \
    X(PQgetlength)         \
    X(PQgetvalue)          \
    X(PQntuples)           \
    X(PQparameterStatus)   \
    X(PQprepare)           \
    X(PQreset)             \
    X(PQresultErrorField)  \
    X(PQresultStatus)      \
    X(PQserverVersion)     \
    X(PQsetNoticeReceiver) \
    X(PQstatus)            \
    X(PQtransactionStatus)
/* clang-format on */

struct wb__pq {
#define X(name) __typeof__(&name) name;
    WB__PQ_MAP(X)
#undef X
};
extern struct wb__pq wb__pq;

WB_MUST_USE enum wb_status wb__pq_load(struct wb_err *err);

#define PQclear             wb__pq.PQclear
#define PQcmdStatus         wb__pq.PQcmdStatus
#define PQcmdTuples         wb__pq.PQcmdTuples
#define PQconnectdbParams   wb__pq.PQconnectdbParams
#define PQconninfo          wb__pq.PQconninfo
#define PQconninfoFree      wb__pq.PQconninfoFree
#define PQerrorMessage      wb__pq.PQerrorMessage
#define PQexec              wb__pq.PQexec
#define PQexecPrepared      wb__pq.PQexecPrepared
#define PQfinish            wb__pq.PQfinish
#define PQftype             wb__pq.PQftype
#define PQgetisnull         wb__pq.PQgetisnull
#define PQgetlength         wb__pq.PQgetlength
#define PQgetvalue          wb__pq.PQgetvalue
#define PQntuples           wb__pq.PQntuples
#define PQparameterStatus   wb__pq.PQparameterStatus
#define PQprepare           wb__pq.PQprepare
#define PQreset             wb__pq.PQreset
#define PQresultErrorField  wb__pq.PQresultErrorField
#define PQresultStatus      wb__pq.PQresultStatus
#define PQserverVersion     wb__pq.PQserverVersion
#define PQsetNoticeReceiver wb__pq.PQsetNoticeReceiver
#define PQstatus            wb__pq.PQstatus
#define PQtransactionStatus wb__pq.PQtransactionStatus

#endif /* WB_SRC_DB_LIBPQ_H */
