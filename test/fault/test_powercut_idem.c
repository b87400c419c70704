/* test_powercut_idem.c - power cuts while keys are begun, marked, completed,
 * released and settled: at every operation of the disk, with every loss mode.
 *
 * (1) An acknowledged record is there with its bytes. (C-5)
 * (2) A claim that was acknowledged as sending is sending or unknown, never
 *     free: the operation is not executed again by itself. (G-9)
 * (3) A call that was interrupted has taken effect or not; a key that is
 *     neither done nor sending never has a record.
 * (4) After the leases have ended no token is issued again, and an old token is
 *     refused for the new claim. (C-4) */
#include "support.h"

#include <stdio.h>

#include "db/sqlite.h"
#include "idem/sql.h"
#include "powercut_vfs.h"
#include "random.h"

enum {
    KEYS = 6,
    STEPS = 80,
    TOKENS = 1024,
    LEASE_MS = 30000,
    DEEP = 7, /* one copy in so many is used further */
    FRAMES = 40
};

enum fact {
    WEAK, /* free, or a claim that a cut may undo */
    OPEN, /* sending or unknown */
    DONE
};

struct state {
    enum fact fact;
    int body; /* of DONE */
};

struct key {
    struct state now, next; /* next: what the current call may change it to */
    uint64_t token;
};

static struct run {
    struct powercut disk, copy;
    struct wb_env env, copy_env;
    struct wb_idem *store;
    struct key key[KEYS];
    uint64_t random, token[TOKENS];
    int n_tokens, bodies;
    bool normal; /* sabotage */
    int64_t wall_ms;
    long points, lost, freed, stray, repeated, unopened;
    long done, open, fenced; /* seen after cuts */
} run;

static int
pick(int n)
{
    return (int)(random_next(&run.random) % (uint64_t)n);
}

static int64_t
wall_ms(void *ctx)
{
    (void)ctx;
    return run.wall_ms;
}

static int64_t
mono_us(void *ctx)
{
    (void)ctx;
    return run.wall_ms * 1000;
}

static void
random_bytes(void *ctx, void *out, size_t len)
{
    unsigned char *at = out;

    (void)ctx;
    while (len-- > 0)
        *at++ = (unsigned char)random_next(&run.random);
}

static struct wb_idem_op
op_of(int k)
{
    static const char *const name[KEYS] = {"k0", "k1", "k2", "k3", "k4", "k5"};

    return (struct wb_idem_op){.identity = WB_LIT("me"),
        .scope = WB_LIT("s"),
        .key = wb_slice(name[k])};
}

static struct wb_idem_record
record_of(int body, char text[32])
{
    (void)snprintf(text, 32, "body %d", body);
    return (struct wb_idem_record){
        .status = 200 + body % 100, .body = wb_slice(text)}; /* for ever */
}

static const struct wb_fingerprint print = {{7}};

static enum wb_status
open_on(const struct wb_env *env, struct wb_idem **store)
{
    struct wb_idem_opts opts = {.env = env};
    enum wb_status rc = wb_idem_open(store, "idem.db", &opts, NULL);

    if (rc == WB_OK)
        ((struct wb__sqlite *)((struct wb__idem_sql *)*store)->group.db)
            ->wal_long = FRAMES;
    return rc;
}

/* ---- after a cut ------------------------------------------------------- */

static bool
is_record(struct wb_idem *store, int k, int body)
{
    struct wb_idem_op op = op_of(k);
    struct wb_idem_result r = {0};
    char text[32];
    struct wb_idem_record want = record_of(body, text);
    bool same = wb_idem_lookup(store, &op, &r, NULL) == WB_OK &&
                r.record.status == want.status &&
                wb__eq(r.record.body, want.body) && r.record.headers.len == 0;

    wb_idem_result_free(&r);
    return same;
}

static bool
fits(struct wb_idem *store, int k, struct state s, enum wb_status rc,
    enum wb_idem_state found)
{
    bool done = rc == WB_OK && found == WB_IDEM_DONE;
    bool open =
        rc == WB_OK && (found == WB_IDEM_SENDING || found == WB_IDEM_DOUBTFUL);

    if (s.fact == DONE)
        return done && is_record(store, k, s.body);
    return s.fact == OPEN ? open : !done;
}

static void
check_key(struct wb_idem *store, int k)
{
    const struct key *key = &run.key[k];
    struct wb_idem_op op = op_of(k);
    struct wb_idem_item item = {0};
    enum wb_status rc = wb_idem_peek(store, &op, &item, NULL);

    run.done += rc == WB_OK && item.state == WB_IDEM_DONE;
    run.open += key->now.fact == OPEN;
    if (rc != WB_OK && rc != WB_NOTFOUND)
        run.unopened++;
    else if (fits(store, k, key->now, rc, item.state) ||
             fits(store, k, key->next, rc, item.state))
        return;
    run.lost += key->now.fact == DONE;
    run.freed += key->now.fact == OPEN;
    run.stray += key->now.fact == WEAK;
}

static void
note_token(uint64_t token)
{
    for (int i = 0; i < run.n_tokens; i++)
        run.repeated += run.token[i] == token;
}

/* The leases have ended: begin the key again. */
static void
work_on(struct wb_idem *store, int k)
{
    const struct key *key = &run.key[k];
    bool weak = key->now.fact == WEAK || key->next.fact == WEAK;
    struct wb_idem_op op = op_of(k);
    struct wb_idem_result r = {0};
    char text[32];
    struct wb_idem_record late = record_of(-1, text);

    if (wb_idem_begin(store, &op, &print, NULL, &r, NULL) != WB_OK) {
        run.unopened++;
    } else if (r.answer == WB_IDEM_ACQUIRED) {
        run.freed += !weak;
        note_token(r.token);
        if (key->token != 0 &&
            wb_idem_complete(store, &op, key->token, &late, NULL) != WB_FENCED)
            run.repeated++;
        run.fenced++;
    }
    wb_idem_result_free(&r);
}

static void
cut_and_check(enum powercut_loss loss)
{
    struct wb_idem *store = NULL;
    uint64_t random = run.random;
    int64_t now_ms = run.wall_ms;

    run.points++;
    powercut_cut(&run.copy, &run.disk, loss, (uint64_t)run.disk.ops * 3 + loss);
    if (open_on(&run.copy_env, &store) != WB_OK) {
        run.unopened++;
        return;
    }
    for (int k = 0; k < KEYS; k++)
        check_key(store, k);
    run.wall_ms += 2 * LEASE_MS;
    for (int k = 0; k < KEYS && run.points % DEEP == 0; k++)
        work_on(store, k);
    for (int k = 0; k < KEYS && run.points % DEEP == 0; k++)
        if (run.key[k].now.fact == DONE)
            run.lost += !is_record(store, k, run.key[k].now.body);
    wb_idem_close(store);
    run.wall_ms = now_ms;
    run.random = random ^ UINT64_C(0x5555); /* other tokens than the copy has */
}

static void
at_operation(void *ctx, struct powercut *disk)
{
    (void)ctx;
    if (disk->ops % THINNED == 0)
        for (int loss = 0; loss < POWERCUT_LOSSES; loss++)
            cut_and_check((enum powercut_loss)loss);
}

/* ---- the work ---------------------------------------------------------- */

static void
sabotage_handle(void)
{
    struct wb__sqlite *s =
        (struct wb__sqlite *)((struct wb__idem_sql *)run.store)->group.db;

    if (!run.normal)
        return;
    s->relaxed = false;
    (void)sqlite3_exec(
        s->handle, "PRAGMA synchronous=NORMAL", NULL, NULL, NULL);
}

/* The call that may have changed the key has ended. */
static void
ended(struct key *key, enum wb_status rc)
{
    if (rc == WB_OK)
        key->now = key->next;
    key->next = key->now;
}

static void
do_begin(int k)
{
    struct key *key = &run.key[k];
    struct wb_idem_op op = op_of(k);
    struct wb_idem_begin how = {.lease_ms = LEASE_MS, .sending = pick(2) == 0};
    struct wb_idem_result r = {0};
    enum wb_status rc;

    if (key->now.fact == WEAK && how.sending)
        key->next.fact = OPEN;
    rc = wb_idem_begin(run.store, &op, &print, &how, &r, NULL);
    CHECK_INT(WB_OK, rc);
    if (r.answer == WB_IDEM_ACQUIRED) {
        CHECK_INT(WEAK, key->now.fact);
        CHECK(run.n_tokens < TOKENS);
        note_token(r.token);
        key->token = run.token[run.n_tokens++] = r.token;
    }
    ended(key, r.answer == WB_IDEM_ACQUIRED ? WB_OK : WB_EMPTY);
    wb_idem_result_free(&r);
}

static void
do_complete(int k)
{
    struct key *key = &run.key[k];
    struct wb_idem_op op = op_of(k);
    char text[32];
    struct wb_idem_record record = record_of(++run.bodies, text);

    if (key->now.fact != DONE)
        key->next = (struct state){DONE, run.bodies};
    ended(key, wb_idem_complete(run.store, &op, key->token, &record, NULL));
}

static void
do_mark(int k)
{
    struct key *key = &run.key[k];
    struct wb_idem_op op = op_of(k);

    if (key->now.fact == WEAK)
        key->next.fact = OPEN;
    ended(key, pick(2) == 0
                   ? wb_idem_sending(run.store, &op, key->token, NULL)
                   : wb_idem_unknown(run.store, &op, key->token, NULL));
}

static void
do_release(int k)
{
    struct key *key = &run.key[k];
    struct wb_idem_op op = op_of(k);

    if (key->now.fact == OPEN)
        key->next.fact = WEAK;
    ended(key, wb_idem_release(run.store, &op, key->token, NULL));
}

static void
do_settle(int k)
{
    struct key *key = &run.key[k];
    struct wb_idem_op op = op_of(k);
    bool done = pick(2) == 0;
    char text[32];
    struct wb_idem_record record = record_of(++run.bodies, text);

    if (key->now.fact == OPEN)
        key->next = done ? (struct state){DONE, run.bodies} : (struct state){0};
    ended(key, wb_idem_settle(run.store, &op, done ? &record : NULL, NULL));
}

static void
step(void)
{
    static void (*const call[])(int k) = {do_begin, do_begin, do_begin,
        do_complete, do_complete, do_mark, do_release, do_settle};
    int k = pick(KEYS);

    run.wall_ms += pick(2000);
    if (run.store == NULL)
        CHECK_INT(WB_OK, open_on(&run.env, &run.store));
    sabotage_handle();
    call[pick(WB_COUNT(call))](k);
    if (pick(20) == 0) {
        wb_idem_close(run.store);
        run.store = NULL;
    }
}

static void
cut_everywhere(uint64_t seed, bool psow)
{
    powercut_wipe(&run.disk, seed);
    run.disk.psow = psow;
    run.disk.before = at_operation;
    run.random = seed;
    run.n_tokens = 0;
    memset(run.key, 0, sizeof(run.key));
    for (int i = 0; i < STEPS; i++)
        step();
    wb_idem_close(run.store);
    run.store = NULL;
    run.disk.before = NULL;
}

static void
campaign(bool normal, int seeds)
{
    run = (struct run){.normal = normal, .wall_ms = INT64_C(1767225600000)};
    powercut_init(&run.disk, "powercut-idem");
    powercut_init(&run.copy, "powercut-copy");
    run.env = *wb_env_system();
    run.env.wall_ms = wall_ms;
    run.env.mono_us = mono_us;
    run.env.random = random_bytes;
    run.env.vfs = run.disk.vfs.zName;
    run.copy_env = run.env;
    run.copy_env.vfs = run.copy.vfs.zName;
    for (int s = 0; s < seeds; s++)
        for (int psow = 0; psow < 2; psow++)
            cut_everywhere((uint64_t)s + 1, psow != 0);
    powercut_fini(&run.disk);
    powercut_fini(&run.copy);
    print_message("%ld cuts: lost %ld, freed %ld, stray %ld, repeated %ld, "
                  "unopened %ld; seen: done %ld, sending %ld, fenced %ld\n",
        run.points, run.lost, run.freed, run.stray, run.repeated, run.unopened,
        run.done, run.open, run.fenced);
}

TEST(test_powercut_idem__at_any_operation__records_and_unknown_outcomes_stay)
{
    campaign(false, 2);
    CHECK_INT(0, run.lost);
    CHECK_INT(0, run.freed);
    CHECK_INT(0, run.stray);
    CHECK_INT(0, run.repeated);
    CHECK_INT(0, run.unopened);
    CHECK(run.points > 2000 / THINNED && run.done > 1000 / THINNED);
    CHECK(run.open > 500 / THINNED && run.fenced > 50 / THINNED);
}

TEST(test_powercut_idem__synchronous_normal__is_detected)
{
    campaign(true, 1);
    CHECK(run.lost > 0);
    CHECK(run.freed > 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_powercut_idem__at_any_operation__records_and_unknown_outcomes_stay),
        RUN(test_powercut_idem__synchronous_normal__is_detected),
    };

    return RUN_ALL(tests);
}
