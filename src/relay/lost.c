/* lost.c - a pass whose database cannot be used for a time.
 *
 * (1) A known outcome is not forgotten before the lease of its message is over.
 * (2) While there are such outcomes nothing is claimed: their number is bounded
 *     by the requests that were in flight. */
#include "outbox/outbox_internal.h"
#include "relay/pass.h"

enum {
    BUSY_US = 100000,
    LOST_US = 3000000 /* waits are not doubled once they are that long */
};

/* Which failures may pass: the database is busy, full, away, or refuses for a
 * time. A worker also waits for memory. */
static bool
may_pass(const struct wb__pass *p, enum wb_status rc)
{
    return rc == WB_BUSY || rc == WB_FULL || rc == WB_IO ||
           rc == WB_UNAVAILABLE || rc == WB_REFUSED || rc == WB_NOTFOUND ||
           (rc == WB_NOMEM && p->worker);
}

/* A cycle failed: wait for the database, and keep the outcomes. False: do not
 * wait; a file that was removed or replaced does not come back. Outcomes are
 * kept until their leases are over, which is at most a lease after the loss
 * began. A worker that was not stopped keeps them for longer: it claims nothing
 * before they are committed. */
bool
wb__database_lost(
    struct wb__pass *p, enum wb_status rc, const struct wb_err *err)
{
    struct wb_relay *relay = p->relay;
    int64_t now_us = wb__relay_us(relay);
    bool goes_on = p->worker && !p->stopped;

    if (!may_pass(p, rc) || (!goes_on && wb__relay_is_idle(relay)) ||
        wb__outbox_check(relay->box, NULL) != WB_OK)
        return false;
    if (p->lost_us == 0) {
        p->lost_us = now_us;
        p->wait_us = BUSY_US;
        wb__relay_event(
            relay, &(struct wb_relay_event){.type = WB_RELAY_DATABASE_LOST,
                       .error = wb_slice(err->msg)});
    } else if (p->wait_us < LOST_US) {
        p->wait_us *= 2;
    }
    if (!goes_on && (now_us - p->lost_us >= relay->opts.lease_ms * 1000 ||
                        (p->left_us != 0 && now_us >= p->left_us)))
        return false;
    if (relay->box->db->failed && relay->box->url != NULL &&
        wb__outbox_reopen(relay->box, NULL) == WB_OK) {
        p->slot = -1; /* the connection that was closed had it */
        (void)wb__slot_try(p);
    }
    return true;
}

bool
wb__database_found(struct wb__pass *p)
{
    struct wb_relay *relay = p->relay;
    int64_t us = wb__relay_us(relay) - p->lost_us;

    if (p->lost_us == 0 || !relay->db_used)
        return true;
    if (p->held)
        return false;
    p->lost_us = 0;
    wb__slot_renew(p);
    wb__relay_event(
        relay, &(struct wb_relay_event){
                   .type = WB_RELAY_DATABASE_FOUND, .duration_ms = us / 1000});
    return true;
}

bool
wb__relay_is_idle(const struct wb_relay *relay)
{
    return relay->n_in_flight == 0 && wb__outcomes_left(relay) == 0;
}
