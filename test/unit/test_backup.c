/* test_backup.c - O-21: a copy opens as an outbox; its messages keep their ids
 * and its tokens are refused, whichever program copied it. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
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

/* ---- a database that is damaged ------------------------------------------- */

static int
files(const char *begin)
{
    DIR *d = opendir(".");
    int n = 0;

    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        n += strncmp(e->d_name, begin, strlen(begin)) == 0;
    (void)closedir(d);
    return n;
}

TEST(test_backup__O21_damaged__corrupt_and_no_file_left)
{
    struct wb_outbox *box = box_open();
    struct wb_err err = {0};
    size_t len = 0;
    char *bytes;

    box_fill(box, "a", 500);
    wb_outbox_close(box);
    bytes = test_read(BOX, &len);
    memset(bytes + len - 2 * 4096, 0, 4096); /* a page of rows */
    test_write(BOX, bytes, len);
    free(bytes);
    box = box_open();
    CHECK_STATUS(CORRUPT, wb_outbox_backup(box, "copy.db", &err));
    CHECK_HAS("damaged", err.msg);
    CHECK_INT(0, files("copy.db"));
    wb_outbox_close(box);
}

/* ---- compact --------------------------------------------------------------- */

/* Replaces the call of file.c: bytes that are free, -1 as it is. */
static long room = -1;

int
statvfs(const char *path, struct statvfs *fs)
{
    (void)path;
    *fs = (struct statvfs){
        .f_bavail = room < 0 ? 1 << 30 : (unsigned long)room, .f_frsize = 1};
    return 0;
}

TEST(test_compact__no_room__full_and_as_it_was)
{
    struct wb_outbox *box = box_open();
    int64_t before = 0, after = 0;
    struct wb_err err = {0};

    box_fill(box, "a", 1000);
    sql_run("DELETE FROM waybill_outbox WHERE seq > 1");
    room = 1000;
    CHECK_STATUS(FULL, wb_outbox_compact(box, &before, &after, &err));
    CHECK_HAS("make room", err.msg);
    room = -1;
    CHECK_OK(wb_outbox_compact(box, &before, &after, &err), err);
    CHECK(after < before / 2);
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox"));
    (void)box_put(box, "a"); /* and it is synced as before */
    wb_outbox_close(box);
}

TEST(test_compact__connection_of_the_caller__invalid)
{
    const struct wb_outbox_opts opts = {.env = ENV};
    struct wb_outbox *box = NULL;
    int64_t before = 0, after = 0;
    sqlite3 *db = NULL;

    CHECK(sqlite3_open(BOX, &db) == SQLITE_OK);
    CHECK_STATUS(OK, wb_outbox_adopt(&box, db, &opts, NULL));
    CHECK_STATUS(INVALID, wb_outbox_compact(box, &before, &after, NULL));
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
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
        RUN(test_backup__O21_damaged__corrupt_and_no_file_left),
        RUN(test_compact__no_room__full_and_as_it_was),
        RUN(test_compact__connection_of_the_caller__invalid),
    };
    return RUN_ALL(tests);
}
