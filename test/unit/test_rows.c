/* test_rows.c - rows that programs inserted by SQL, or that a damaged file
 * holds: the damage of one row is that row's, whatever the column. */
#include <stdio.h>

#include "outbox_fixture.h"

#define BAD_ID "0190a000-0000-7000-8000-0000000000bd"

/* A value of a column that no call of ours would have written. */
static const struct {
    const char *column, *value;
    bool set_aside; /* by the claim: it cannot be delivered */
} cases[] = {
    {"lane", "CAST(one_char(1100) AS TEXT)", true},
    {"lane", "CAST(x'ff' AS TEXT)", true},
    {"lane", "'a' || char(0) || 'b'", true},
    {"lane", "replace(hex(zeroblob(3000)), '0', 'x')", true},
    {"lane", "''", false},
    {"key", "CAST(one_char(1100) AS TEXT)", true},
    {"key", "CAST(x'80' AS TEXT)", true},
    {"key", "'a' || char(0)", true},
    {"headers", "CAST(x'ff' AS TEXT)", true},
    {"headers", "'a: b' || char(0) || char(10)", true},
    {"content_type", "CAST(x'c328' AS TEXT)", true},
    {"content_type", "char(0)", true},
    {"scope", "replace(hex(zeroblob(3000)), '0', 'x')", false},
    {"scope", "CAST(x'ff' AS TEXT)", false},
    {"id", "'x'", true},
    {"id", "''", true},
    {"id", "'0190A000-0000-7000-8000-0000000000BD'", false},
    {"id", "hex(zeroblob(300))", true},
    {"kind", "'A b'", true},
    {"kind", "''", true},
    {"kind", "hex(zeroblob(300))", true},
    {"kind", "'a' || char(0) || 'b'", true},
    {"status", "'nonsense'", false},
    {"status", "'delivered'", false},
    {"status", "'held'", false},
    {"expires_ms", "-1", true},
    {"expires_ms", "-9223372036854775808", true},
    {"expires_ms", "9223372036854775807", false},
    {"due_ms", "-9223372036854775808", false},
    {"due_ms", "9223372036854775807", false},
    {"created_ms", "-9223372036854775808", false},
    {"created_ms", "9223372036854775807", false},
    {"claimed_ms", "-9223372036854775808", false},
    {"claimed_ms", "9223372036854775807", false},
    {"attempts", "-1", false},
    {"attempts", "-9223372036854775808", false},
    {"token", "0", false},
    {"token", "-9223372036854775808", false},
    {"keep", "9223372036854775807", false},
    {"keep", "-1", false},
    {"hash", "x''", false},
    {"hash", "zeroblob(33)", false},
    {"reason", "CAST(x'ff' AS TEXT)", false},
    {"last_error", "'a' || char(0)", false},
    {"payload", "'text'", false},
    {"payload", "CAST(x'ff00' AS TEXT)", false},
    {"seq", "9223372036854775807", false},
    {"seq", "-9223372036854775808", false},
};

/* n bytes that SQLite counts as one character. */
static void
one_char(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    static char bytes[4096];
    int len = sqlite3_value_int(v[0]);

    (void)n;
    memset(bytes, 0x80, sizeof(bytes));
    bytes[0] = (char)0xc3;
    sqlite3_result_blob(ctx, bytes, len, SQLITE_TRANSIENT);
}

/* Run SQL as a program does that ignores every constraint. */
static void
run_free(const char *sql)
{
    sqlite3 *db = NULL;
    char *text = NULL;

    CHECK(sqlite3_open(BOX, &db) == SQLITE_OK);
    (void)sqlite3_busy_timeout(db, 5000);
    (void)sqlite3_create_function(
        db, "one_char", 1, SQLITE_UTF8, NULL, one_char, NULL, NULL);
    CHECK(sqlite3_exec(db,
              "PRAGMA wal_autocheckpoint=0;"
              "PRAGMA ignore_check_constraints=ON",
              NULL, NULL, NULL) == SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &text) != SQLITE_OK)
        fail_msg("%s: %s", sql, text);
    (void)sqlite3_close(db);
}

static void
damage(size_t i)
{
    char sql[512];

    (void)snprintf(sql, sizeof(sql),
        "UPDATE waybill_outbox SET %s = %s WHERE id = '" BAD_ID "'",
        cases[i].column, cases[i].value);
    run_free(sql);
}

/* The bad one is the second of four. */
static struct wb_outbox *
box_of_four(void)
{
    struct wb_outbox *box = box_open();

    (void)box_put(box, "a");
    (void)box_send(box, (struct wb_message){.kind = S("a"),
                            .id = S(BAD_ID),
                            .key = S("key"),
                            .lane = S("lane")});
    (void)box_put(box, "a");
    (void)box_put_lane(box, "a", "other");
    return box;
}

/* Confirm the batch in one call; how many were confirmed. */
static int
confirm_all(struct wb_outbox *box, struct wb_batch *batch)
{
    struct wb_finish f[8] = {{.status = WB_OK}};
    struct wb_err err = {0};
    int n = 0;

    CHECK(batch->len <= 8);
    for (size_t i = 0; i < batch->len; i++)
        f[i] = (struct wb_finish){.id = batch->row[i].id,
            .seq = batch->row[i].seq,
            .token = batch->row[i].token,
            .end = WB_CONFIRM};
    CHECK_OK(wb_outbox_finish(box, f, batch->len, NULL, NULL, &err), err);
    for (size_t i = 0; i < batch->len; i++)
        n += f[i].status == WB_OK;
    wb_batch_free(batch);
    return n;
}

/* Everything a person may call: it must not fail. */
static void
check_admin(struct wb_outbox *box)
{
    struct wb_filter all = {.state = -1},
                     delivered = {.state = WB_STATE_DELIVERED};
    struct wb_select every = {.limit = 0};
    struct wb_selected did;
    struct wb_health h;
    struct wb_err err = {0};
    uint64_t put_back;
    int n = 0;

    CHECK_OK(wb_outbox_list(box, &all, row_count, &n, &err), err);
    CHECK_OK(wb_outbox_list(box, &delivered, row_count, &n, &err), err);
    CHECK_OK(wb_outbox_count(box, kind_ignore, NULL, &err), err);
    CHECK_OK(wb_outbox_kinds(box, kind_ignore, NULL, &err), err);
    CHECK_OK(wb_outbox_health(box, &h, &err), err);
    CHECK_OK(wb_outbox_reset_stale(box, 0, &put_back, &err), err);
    CHECK_OK(
        wb_outbox_redrive(box, &every, &did, kind_ignore, NULL, &err), err);
    (void)box_put(box, "a");
    CHECK_OK(
        wb_outbox_discard(box, &every, &did, kind_ignore, NULL, &err), err);
}

TEST(test_rows__a_column_of_nonsense__set_aside_and_the_others_delivered_once)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wb_outbox *box = box_of_four();
        struct wb_claim claim = {.max = 8};
        struct wb_batch batch = {0};
        struct wb_err err = {0};
        int n;

        damage(i);
        CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
        CHECK_INT(cases[i].set_aside, batch.ended);
        n = confirm_all(box, &batch);
        CHECK(n >= 3);
        CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_outbox WHERE"
                             " key IS NULL AND id <> '" BAD_ID "' AND keep = 0"
                             " AND status <> 'delivered'"));
        if (cases[i].set_aside && strcmp(cases[i].column, "expires_ms") != 0)
            CHECK_HAS(cases[i].column,
                sql_text("SELECT reason || ': ' || last_error FROM"
                         " waybill_outbox WHERE reason = 'malformed'"));
        check_admin(box);
        wb_outbox_close(box);
        run_free("DELETE FROM waybill_outbox; DELETE FROM waybill_meta WHERE"
                 " name LIKE 'clock%'");
    }
}

/* The same while it is leased: the finish that it is a part of goes on. */
TEST(test_rows__nonsense_while_leased__the_other_finishes_count)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static const enum wb_end ends[] = {WB_CONFIRM, WB_FAIL, WB_RELEASE};

        for (size_t e = 0; e < 3; e++) {
            struct wb_outbox *box = box_of_four();
            struct wb_claim claim = {.max = 8};
            struct wb_batch batch = {0};
            struct wb_finish f[4];
            struct wb_err err = {0};

            CHECK_OK(wb_outbox_claim(box, &claim, &batch, &err), err);
            CHECK_INT(4, batch.len);
            damage(i);
            for (int k = 0; k < 4; k++)
                f[k] = (struct wb_finish){.id = batch.row[k].id,
                    .seq = batch.row[k].seq,
                    .token = batch.row[k].token,
                    .outcome = WB_RETRY,
                    .end = k == 1 ? ends[e] : WB_CONFIRM};
            CHECK_OK(wb_outbox_extend(box, f, 4, 60000, &err), err);
            CHECK_OK(wb_outbox_finish(box, f, 4, NULL, NULL, &err), err);
            for (int k = 0; k < 4; k++)
                if (k != 1)
                    CHECK_STATUS(OK, f[k].status);
            wb_batch_free(&batch);
            check_admin(box);
            wb_outbox_close(box);
            run_free("DELETE FROM waybill_outbox; DELETE FROM waybill_meta"
                     " WHERE name LIKE 'clock%'; DELETE FROM waybill_breaker");
        }
    }
}

/* Its followers have the same name of a lane, and go on one by one. */
TEST(test_rows__a_lane_longer_than_any__its_next_message_goes_on)
{
    struct wb_outbox *box = box_of_four();
    struct wb_select id = {.n_ids = 1};
    struct wb_selected did;
    struct wb_id bad;
    struct wb_err err = {0};

    (void)snprintf(bad.text, sizeof(bad.text), "%s", BAD_ID);
    id.ids = &bad;
    (void)box_put_lane(box, "a", "lane"); /* held behind the bad one */
    run_free("UPDATE waybill_outbox SET lane = CAST(one_char(1100) AS TEXT)"
             " WHERE lane = 'lane'");
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox WHERE"
                         " status = 'held'"));
    CHECK_OK(wb_outbox_discard(box, &id, &did, NULL, NULL, &err), err);
    CHECK_INT(1, did.total);
    CHECK_INT(0, sql_int("SELECT count(*) FROM waybill_outbox WHERE"
                         " status = 'held'"));
    wb_outbox_close(box);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_rows__a_column_of_nonsense__set_aside_and_the_others_delivered_once),
        RUN(test_rows__nonsense_while_leased__the_other_finishes_count),
        RUN(test_rows__a_lane_longer_than_any__its_next_message_goes_on),
    };
    return RUN_ALL(tests);
}
