/* test_backup.c - O-21: a copy opens as an outbox; its messages keep their ids
 * and its tokens are refused, whichever program copied it. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "outbox_fixture.h"
#include "shim_vfs.h"

static struct wb_outbox *
open_at(const char *path)
{
    struct wb_outbox_opts opts = {.env = ENV, .existing = true};
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};

    CHECK_OK(wb_outbox_open(&box, path, &opts, &err), err);
    return box;
}

static void
copy_file(const char *from, const char *to)
{
    size_t len = 0;
    char *bytes = test_read(from, &len);

    test_write(to, bytes, len);
    free(bytes);
}

/* The message is there under its id, the token is dead, and it can be claimed
 * and confirmed anew. */
static void
check_copy(const char *path, const struct taken *t)
{
    struct wb_outbox *box = open_at(path);
    struct taken again;

    CHECK_STATUS(FENCED, wb_outbox_confirm(box, &t->id, t->token, NULL));
    fake_clock_advance_ms(60000);
    again = box_claim(box, NULL);
    CHECK_TEXT(t->id.text, again.id.text);
    CHECK(again.token != t->token);
    CHECK_STATUS(FENCED, wb_outbox_confirm(box, &t->id, t->token, NULL));
    box_confirm(box, &again);
    wb_outbox_close(box);
}

TEST(test_backup__O21_while_open__opens_with_ids_and_dead_tokens)
{
    struct wb_outbox *box = box_open();
    struct wb_id id = box_put(box, "a");
    struct taken t = box_claim(box, NULL);
    struct wb_err err = {0};
    struct stat st;

    CHECK_TEXT(id.text, t.id.text);
    CHECK_OK(wb_outbox_backup(box, "copy.db", &err), err);
    CHECK(stat("copy.db", &st) == 0);
    CHECK_INT(0600, st.st_mode & 07777);
    check_copy("copy.db", &t);
    box_confirm(box, &t); /* the original's token is still valid */
    wb_outbox_close(box);
}

TEST(test_backup__O21_copied_with_cp__the_same)
{
    struct wb_outbox *box = box_open();
    struct taken t;

    (void)box_put(box, "a");
    t = box_claim(box, NULL);
    wb_outbox_close(box);
    copy_file(BOX, "copy.db");
    check_copy("copy.db", &t);
    box = box_open();
    box_confirm(box, &t);
    wb_outbox_close(box);
}

TEST(test_backup__O21_restored_over_the_original__tokens_dead)
{
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};
    struct taken t;

    (void)box_put(box, "a");
    t = box_claim(box, NULL);
    CHECK_OK(wb_outbox_backup(box, "copy.db", &err), err);
    wb_outbox_close(box);
    copy_file("copy.db", BOX); /* into the same inode */
    check_copy(BOX, &t);
}

/* O-10: the attempt whose claim is not in the copy counts, too. */
TEST(test_backup__O21_claimed_for_the_last_time__copy_tries_no_more)
{
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};
    struct taken t = {0};

    (void)box_put(box, "a");
    for (int i = 0; i < 8; i++) {
        fake_clock_advance_ms(60000);
        t = box_claim(box, NULL);
    }
    CHECK_INT(8, t.attempts);
    CHECK_OK(wb_outbox_backup(box, "copy.db", &err), err);
    wb_outbox_close(box);
    box = open_at("copy.db");
    fake_clock_advance_ms(60000);
    (void)box_claim_none(box, NULL);
    wb_outbox_close(box);
}

TEST(test_backup__O21_opened_again__tokens_live)
{
    struct wb_outbox *box = box_open();
    struct taken t;

    (void)box_put(box, "a");
    t = box_claim(box, NULL);
    wb_outbox_close(box);
    box = box_open();
    wb_outbox_close(box);
    CHECK(rename(BOX, "moved.db") == 0);
    box = open_at("moved.db");
    box_confirm(box, &t);
    wb_outbox_close(box);
}

/* A probe that no process will end must not block its scope. */
TEST(test_backup__O21_copied_while_probing__probe_is_free)
{
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};
    struct taken t;

    for (int i = 0; i < 4; i++)
        (void)box_put(box, "a");
    for (int i = 0; i < 3; i++) {
        t = box_claim(box, NULL);
        (void)box_fail(box, &t, WB_RETRY);
    }
    fake_clock_advance_ms(60000);
    t = box_claim(box, NULL); /* the probe */
    CHECK_OK(wb_outbox_backup(box, "copy.db", &err), err);
    wb_outbox_close(box);
    box = open_at("copy.db");
    (void)box_claim(box, NULL);
    wb_outbox_close(box);
}

TEST(test_backup__O21_file_there__refused_and_untouched)
{
    struct wb_outbox *box = box_open();
    size_t len = 0;

    test_write("copy.db", "mine", 4);
    CHECK_STATUS(REFUSED, wb_outbox_backup(box, "copy.db", NULL));
    CHECK_STATUS(REFUSED, wb_outbox_backup(box, BOX, NULL));
    CHECK(symlink("elsewhere", "link.db") == 0);
    CHECK_STATUS(REFUSED, wb_outbox_backup(box, "link.db", NULL));
    free(test_read("copy.db", &len));
    CHECK_INT(4, len);
    CHECK_STATUS(NOTFOUND, wb_outbox_backup(box, "no/folder/x", NULL));
    wb_outbox_close(box);
}

/* ---- beside a writer --------------------------------------------------- */

static long reads, commits;

static void
commit_now_and_then(void)
{
    if (++reads % 100 != 0 || commits >= 500)
        return;
    commits++;
    shim.on_read = NULL; /* its own reads are none */
    sql_run("UPDATE waybill_outbox SET attempts = 1 WHERE seq = 1");
    shim.on_read = commit_now_and_then;
}

/* A commit of another connection does not start the copy anew. */
TEST(test_backup__O21_others_write_all_the_while__copied_once)
{
    static char big[60000]; /* the copy takes several steps */
    struct wb_outbox *box;
    struct wb_err err = {0};

    shim_install();
    fake_env.env.vfs = "shim";
    box = box_open();
    for (int i = 0; i < 200; i++)
        (void)box_send(box, (struct wb_message){.kind = wb_slice("a"),
                                .payload = {big, sizeof(big)}});
    reads = commits = 0;
    shim.on_read = commit_now_and_then;
    CHECK_OK(wb_outbox_backup(box, "copy.db", &err), err);
    shim.on_read = NULL;
    CHECK(commits > 5);
    CHECK(commits < 35); /* 3,000 pages, one commit to 100 */
    wb_outbox_close(box);
    fake_env.env.vfs = NULL;
    box = open_at("copy.db");
    wb_outbox_close(box);
}

TEST(test_backup__O21_in_a_transaction_that_wrote__busy_at_once)
{
    struct wb_outbox_opts opts = {.env = ENV};
    struct wb_err err = {0};
    struct wb_outbox *box = NULL;
    sqlite3 *db = NULL;
    int64_t began;

    CHECK(sqlite3_open(BOX, &db) == SQLITE_OK);
    CHECK_OK(wb_outbox_adopt(&box, db, &opts, &err), err);
    CHECK(sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) == SQLITE_OK);
    (void)box_put(box, "a");
    began = wb_env_system()->mono_us(NULL);
    CHECK_STATUS(BUSY, wb_outbox_backup(box, "copy.db", &err));
    CHECK(wb_env_system()->mono_us(NULL) - began < 2000000);
    CHECK(access("copy.db", F_OK) != 0);
    CHECK(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
    CHECK_OK(wb_outbox_backup(box, "copy.db", &err), err);
    wb_outbox_close(box);
    (void)sqlite3_close(db);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_backup__O21_while_open__opens_with_ids_and_dead_tokens),
        RUN(test_backup__O21_copied_with_cp__the_same),
        RUN(test_backup__O21_restored_over_the_original__tokens_dead),
        RUN(test_backup__O21_claimed_for_the_last_time__copy_tries_no_more),
        RUN(test_backup__O21_opened_again__tokens_live),
        RUN(test_backup__O21_copied_while_probing__probe_is_free),
        RUN(test_backup__O21_file_there__refused_and_untouched),
        RUN(test_backup__O21_others_write_all_the_while__copied_once),
        RUN(test_backup__O21_in_a_transaction_that_wrote__busy_at_once),
    };
    return RUN_ALL(tests);
}
