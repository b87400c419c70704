/* slot.c - the drain slots of a database: who may deliver now.
 *
 * (1) One drain or worker has a slot at a time. One that finds none sets a flag
 *     and leaves; a drain reads the flag after it has freed its slot, and makes
 *     another pass. */
#include "outbox/outbox_internal.h"
#include "relay/pass.h"

enum {
    SLOT_US = 1000000
};

bool
wb__slot_try(struct wb__pass *p)
{
    uint32_t slots = p->drain->concurrency;
    int n = slots < 1                 ? 1
            : slots > WB__DRAIN_SLOTS ? WB__DRAIN_SLOTS
                                      : (int)slots;

    for (int slot = 0; slot < n && p->slot < 0; slot++)
        if (wb__db_drain_try(p->relay->box->db, slot))
            p->slot = slot;
    return p->slot >= 0;
}

bool
wb__slot_take(struct wb__pass *p)
{
    if (wb__slot_try(p))
        return true;
    /* The holder may have read the flag before it was set: try again. */
    wb__db_drain_flag_set(p->relay->box->db, true);
    return wb__slot_try(p);
}

void
wb__slot_free(struct wb__pass *p)
{
    if (p->slot >= 0)
        wb__db_drain_free(p->relay->box->db, p->slot);
    p->slot = -1;
    p->slot_us = 0;
}

void
wb__slot_renew(struct wb__pass *p)
{
    if (p->slot < 0 || p->relay->box->db->path != NULL)
        return;
    wb__slot_free(p);
    (void)wb__slot_try(p);
}

/* A worker clears the flag of drains that found its slot taken, as it is awake
 * and claims. Once it is stopped it frees the slot, so that the next drain or
 * worker goes on at once. Without a slot it tries to take one. */
void
wb__slot_keep(struct wb__pass *p, int64_t now_us)
{
    struct wb__db *db = p->relay->box->db;
    bool had = p->slot >= 0;

    if (p->stopped && !p->stopping) {
        p->stopping = true;
        if (p->drain->grace_ms > 0 && p->drain->grace_ms < INT64_MAX / 1000)
            p->left_us = wb__sat_add(now_us, p->drain->grace_ms * 1000);
        wb__relay_event(
            p->relay, &(struct wb_relay_event){.type = WB_RELAY_STOPPING});
    }
    if (!p->worker)
        return;
    if (p->stopping) {
        wb__slot_free(p);
        p->slot_us = INT64_MAX;
    } else if (now_us >= p->slot_us && (p->lost_us == 0 || !had)) {
        p->slot_us = now_us + SLOT_US;
        if (!had && wb__slot_try(p))
            wb__relay_event(
                p->relay, &(struct wb_relay_event){.type = WB_RELAY_STARTED});
        if (p->slot >= 0 && wb__db_drain_flag(db))
            wb__db_drain_flag_set(db, false);
        if (!had && p->slot >= 0)
            wb__relay_wake(p->relay, WB__KINDS_STALE);
    }
}

bool
wb__pass_is_on(const struct wb__pass *p)
{
    return p->slot >= 0 && (p->last_pass || !p->stopped);
}
