/* sim_wrap.c - the relay's calls to the outbox pass through here (the linker's
 * --wrap): they are reported to the model, and saboteurs change them. */
#include "db/sqlite.h"
#include "outbox/outbox_internal.h"
#include "sim.h"

enum wb_status __real_wb_outbox_claim(struct wb_outbox *box,
    const struct wb_claim *claim, struct wb_batch *batch, struct wb_err *err);
enum wb_status __real_wb_outbox_finish(struct wb_outbox *box,
    struct wb_finish *finishes, size_t n, const struct wb_claim *claim,
    struct wb_batch *batch, struct wb_err *err);
enum wb_status __real_wb_outbox_extend(struct wb_outbox *box,
    struct wb_finish *claims, size_t n, int64_t lease_ms, struct wb_err *err);
enum wb_status __wrap_wb_outbox_claim(struct wb_outbox *box,
    const struct wb_claim *claim, struct wb_batch *batch, struct wb_err *err);
enum wb_status __wrap_wb_outbox_finish(struct wb_outbox *box,
    struct wb_finish *finishes, size_t n, const struct wb_claim *claim,
    struct wb_batch *batch, struct wb_err *err);
enum wb_status __wrap_wb_outbox_extend(struct wb_outbox *box,
    struct wb_finish *claims, size_t n, int64_t lease_ms, struct wb_err *err);

const char *__real_wb__row_malformed(const struct wb_row *row);
const char *__wrap_wb__row_malformed(const struct wb_row *row);
enum wb_status __real_wb__clock_check(
    struct wb_outbox *box, int64_t now_ms, struct wb_err *err);
enum wb_status __wrap_wb__clock_check(
    struct wb_outbox *box, int64_t now_ms, struct wb_err *err);
int64_t __real_wb__clock_trusted(const struct wb_outbox *box, int64_t now_ms);
int64_t __wrap_wb__clock_trusted(const struct wb_outbox *box, int64_t now_ms);

/* ---- saboteurs --------------------------------------------------------- */

const char *
__wrap_wb__row_malformed(const struct wb_row *row)
{
    return sim.opts.sabotage == SIM_TRUST_ROWS ? NULL
                                               : __real_wb__row_malformed(row);
}

/* As inside a caller's transaction, which dates nothing. */
enum wb_status
__wrap_wb__clock_check(
    struct wb_outbox *box, int64_t now_ms, struct wb_err *err)
{
    bool nested = box->db->nested;
    enum wb_status rc;

    box->db->nested = nested || sim.opts.sabotage == SIM_NEVER_DATED_ANEW;
    rc = __real_wb__clock_check(box, now_ms, err);
    box->db->nested = nested;
    return rc;
}

int64_t
__wrap_wb__clock_trusted(const struct wb_outbox *box, int64_t now_ms)
{
    return sim.opts.sabotage == SIM_PURGE_BY_ANY_CLOCK
               ? now_ms
               : __real_wb__clock_trusted(box, now_ms);
}

static bool
one_is_bad(const struct wb_finish *f, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int at = sim_message_of_id(&f[i].id);

        if (at >= 0 && sim.message[at].bad != SIM_GOOD)
            return true;
    }
    return false;
}

static void
mark_delivered(struct wb_outbox *box, const struct wb_batch *batch)
{
    for (size_t i = 0; i < batch->len; i++) {
        struct wb_finish f = {.id = batch->row[i].id,
            .token = batch->row[i].token,
            .seq = batch->row[i].seq,
            .end = WB_CONFIRM,
            .forget = true};

        if (sim.opts.sabotage == SIM_MARK_BEFORE_SEND)
            (void)(__real_wb_outbox_finish(box, &f, 1, NULL, NULL, NULL) ==
                   WB_OK);
    }
}

/* Use the token in the store, whichever it is. */
static void
take_token(struct wb_outbox *box, struct wb_finish *f)
{
    struct wb__head head;

    if (wb__head_find(box, WB__SQL_HEAD_BY_ID, wb__text(wb_slice(f->id.text)),
            &head, NULL) == WB_OK &&
        head.token != 0)
        f->token = head.token;
}

static void
sabotage(struct wb_outbox *box, struct wb_finish *f, size_t n)
{
    static const struct wb_breaker_policy late = {
        SIM_FAILURES + 1, SIM_OPEN_MS};

    for (size_t i = 0; i < n; i++) {
        if (sim.opts.sabotage == SIM_NO_FENCING)
            take_token(box, &f[i]);
        if (sim.opts.sabotage == SIM_BREAKER_LATE)
            f[i].breaker = &late;
        if (sim.opts.sabotage == SIM_IGNORE_RETRY_AFTER)
            f[i].retry_after_ms = 0;
    }
}

/* ---- calls ------------------------------------------------------------- */

enum wb_status
__wrap_wb_outbox_claim(struct wb_outbox *box, const struct wb_claim *claim,
    struct wb_batch *batch, struct wb_err *err)
{
    enum wb_status rc = __real_wb_outbox_claim(box, claim, batch, err);

    if (!sim_call_ended(rc))
        return rc;
    sim_model_claim(batch);
    mark_delivered(box, batch);
    return rc;
}

enum wb_status
__wrap_wb_outbox_finish(struct wb_outbox *box, struct wb_finish *finishes,
    size_t n, const struct wb_claim *claim, struct wb_batch *batch,
    struct wb_err *err)
{
    enum sim_hold hold[SIM_MESSAGES];
    enum wb_status rc;

    WB_ASSERT(n <= SIM_MESSAGES);
    sim_model_finish_begin(finishes, n, hold);
    sabotage(box, finishes, n);
    if (sim.opts.sabotage == SIM_BAD_ROW_FAILS_ALL && one_is_bad(finishes, n))
        return WB_BUSY;
    rc = __real_wb_outbox_finish(box, finishes, n, claim, batch, err);
    if (!sim_call_ended(rc))
        return rc;
    sim_model_finish_end(finishes, n, hold);
    if (claim != NULL) {
        sim_model_claim(batch);
        mark_delivered(box, batch);
    }
    return rc;
}

enum wb_status
__wrap_wb_outbox_extend(struct wb_outbox *box, struct wb_finish *claims,
    size_t n, int64_t lease_ms, struct wb_err *err)
{
    enum wb_status rc;

    if (sim.opts.sabotage == SIM_SHORT_LEASE)
        return WB_OK;
    sim_model_extend_begin(claims, n);
    if (sim.opts.sabotage == SIM_NO_FENCING)
        sabotage(box, claims, n);
    rc = __real_wb_outbox_extend(box, claims, n, lease_ms, err);
    if (sim_call_ended(rc))
        sim_model_extended(claims, n);
    return rc;
}
