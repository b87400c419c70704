/* test_db_open.c - what is opened, made, migrated, and what is refused with
 * nothing changed (I13, S11). */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "outbox_fixture.h"

/* Replaces the call of file.c: a test can put a folder on a network disk. */
static long network_type;

int
statfs(const char *path, struct statfs *fs)
{
    long rc = syscall(SYS_statfs, path, fs);

    if (rc == 0 && network_type != 0)
        fs->f_type = network_type;
    return (int)rc;
}

static int
begin(void **state)
{
    network_type = 0;
    return test_begin(state);
}
#undef RUN
#define RUN(test) cmocka_unit_test_setup_teardown(test, begin, test_end)

static enum wb_status
try_with(const char *path, struct wb_outbox_opts opts, struct wb_err *err)
{
    struct wb_outbox *box = NULL;
    enum wb_status rc;

    opts.env = ENV;
    if (opts.busy_ms == 0)
        opts.busy_ms = 200;
    rc = wb_outbox_open(&box, path, &opts, err);
    CHECK((rc == WB_OK) == (box != NULL));
    wb_outbox_close(box);
    return rc;
}

static enum wb_status
try_open(const char *path)
{
    return try_with(path, (struct wb_outbox_opts){0}, NULL);
}

static uint32_t
mode_of(const char *path)
{
    struct stat st;

    CHECK(stat(path, &st) == 0);
    return st.st_mode & 07777;
}

/* Names and contents of the files in the current folder. */
static uint64_t
folder_sum(void)
{
    DIR *d = opendir(".");
    uint64_t sum = 0;

    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        size_t len = 0;
        char *text;

        if (e->d_type != DT_REG || strstr(e->d_name, "-lock") != NULL)
            continue;
        text = test_read(e->d_name, &len);
        for (size_t i = 0; i < len; i++)
            sum += (sum << 5) + (unsigned char)text[i];
        sum += strlen(e->d_name) * 1000003;
        free(text);
    }
    (void)closedir(d);
    return sum;
}

static void
check_refused_unchanged(enum wb_status expected, const char *path)
{
    uint64_t before = folder_sum();

    CHECK_INT(expected, try_open(path));
    CHECK(folder_sum() == before);
}

/* ---- a new one --------------------------------------------------------- */

TEST(test_open__S11_new_file__0600_in_folders_0700)
{
    mode_t old = umask(0);

    CHECK_STATUS(OK, try_open("a/b/c.db"));
    CHECK_INT(0700, mode_of("a"));
    CHECK_INT(0700, mode_of("a/b"));
    CHECK_INT(0600, mode_of("a/b/c.db"));
    (void)umask(old);
}

TEST(test_open__S11_log_and_shared_memory__0600_as_well)
{
    mode_t old = umask(0);
    struct wb_outbox *box = box_open();

    (void)box_put(box, "a");
    CHECK_INT(0600, mode_of(BOX));
    CHECK_INT(0600, mode_of(BOX "-wal"));
    CHECK_INT(0600, mode_of(BOX "-shm"));
    CHECK_INT(0600, mode_of(BOX "-lock"));
    wb_outbox_close(box);
    (void)umask(old);
}

TEST(test_open__I13_new_file__wal_and_not_ours_untouched)
{
    struct wb_outbox *box = box_open();

    wb_outbox_close(box);
    CHECK_TEXT("wal", sql_text("PRAGMA journal_mode"));
    CHECK_INT(0, sql_int("PRAGMA user_version"));
    CHECK_INT(0, sql_int("PRAGMA application_id"));
    CHECK_INT(0, sql_int("SELECT count(*) FROM sqlite_schema WHERE name NOT"
                         " LIKE 'waybill\\_%' ESCAPE '\\' AND name NOT LIKE"
                         " 'sqlite_autoindex_waybill\\_%' ESCAPE '\\'"));
}

TEST(test_open__existing_only__notfound_and_nothing_made)
{
    const struct wb_outbox_opts existing = {.existing = true};
    uint64_t before = folder_sum();

    CHECK_STATUS(NOTFOUND, try_with("none.db", existing, NULL));
    CHECK_STATUS(NOTFOUND, try_with("no/folder/x.db", existing, NULL));
    CHECK(access("no", F_OK) != 0);
    CHECK(folder_sum() == before);
    CHECK_STATUS(OK, try_open("none.db"));
    CHECK_STATUS(OK, try_with("none.db", existing, NULL));
}

/* "never create" holds for tables in another program's file, too. */
TEST(test_open__existing_only_on_a_file_of_others__notfound_unchanged)
{
    const struct wb_outbox_opts existing = {.existing = true};
    sqlite3 *db = NULL;
    uint64_t before;

    CHECK(sqlite3_open("app.db", &db) == SQLITE_OK);
    CHECK(sqlite3_exec(db, "CREATE TABLE mine(a)", NULL, NULL, NULL) == 0);
    (void)sqlite3_close(db);
    test_write("empty.db", "", 0);
    before = folder_sum();
    CHECK_STATUS(NOTFOUND, try_with("app.db", existing, NULL));
    CHECK_STATUS(NOTFOUND, try_with("empty.db", existing, NULL));
    CHECK(folder_sum() == before);
}

TEST(test_open__file_of_an_application__its_tables_and_numbers_stay)
{
    struct wb_outbox *box;

    {
        sqlite3 *db = NULL;

        CHECK(sqlite3_open(BOX, &db) == SQLITE_OK);
        CHECK(sqlite3_exec(db,
                  "PRAGMA user_version=17; PRAGMA application_id=4711;"
                  "CREATE TABLE mine(a); INSERT INTO mine VALUES(42)",
                  NULL, NULL, NULL) == SQLITE_OK);
        (void)sqlite3_close(db);
    }
    box = box_open();
    (void)box_put(box, "a");
    wb_outbox_close(box);
    CHECK_INT(17, sql_int("PRAGMA user_version"));
    CHECK_INT(4711, sql_int("PRAGMA application_id"));
    CHECK_INT(42, sql_int("SELECT a FROM mine"));
}

/* ---- refused ----------------------------------------------------------- */

TEST(test_open__no_path__invalid)
{
    CHECK_STATUS(INVALID, try_open(""));
    CHECK_STATUS(INVALID, try_open(":memory:"));
    CHECK_STATUS(INVALID, try_open("file:x.db?nolock=1"));
    CHECK_STATUS(UNAVAILABLE, try_open("postgres://localhost/x"));
}

TEST(test_open__folder_or_fifo__refused)
{
    CHECK(mkdir("folder", 0700) == 0);
    CHECK_STATUS(REFUSED, try_open("folder"));
    CHECK_STATUS(REFUSED, try_open("."));
    CHECK(mkfifo("fifo", 0600) == 0);
    CHECK_STATUS(REFUSED, try_open("fifo"));
}

TEST(test_open__no_database__corrupt_unchanged)
{
    char text[5000];

    memset(text, 'x', sizeof(text));
    test_write("short.db", text, 10);
    test_write("long.db", text, sizeof(text));
    check_refused_unchanged(WB_CORRUPT, "short.db");
    check_refused_unchanged(WB_CORRUPT, "long.db");
}

static void
make_tables(const char *sql)
{
    sqlite3 *db = NULL;

    (void)unlink(BOX);
    CHECK(sqlite3_open(BOX, &db) == SQLITE_OK);
    CHECK(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
    (void)sqlite3_close(db);
}

TEST(test_open__tables_of_that_name_not_ours__corrupt_unchanged)
{
    static const char *const foreign[] = {
        "CREATE TABLE waybill_outbox(a)",
        "CREATE TABLE waybill_meta(name, value)",
        "CREATE TABLE waybill_meta(a); CREATE TABLE waybill_outbox(a)",
        "CREATE TABLE waybill_meta(name, value);"
        "CREATE TABLE waybill_outbox(a)",
        "CREATE TABLE waybill_meta(name, value);"
        "CREATE TABLE waybill_outbox(a);"
        "INSERT INTO waybill_meta VALUES('version', 'x')",
        "CREATE TABLE waybill_meta(name, value);"
        "CREATE TABLE waybill_outbox(a);"
        "INSERT INTO waybill_meta VALUES('version', -1)",
        "CREATE TABLE waybill_breaker(a)",
        "CREATE VIEW waybill_meta AS SELECT 1",
    };

    for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
        make_tables(foreign[i]);
        check_refused_unchanged(WB_CORRUPT, BOX);
    }
}

TEST(test_open__newer_version__newer_unchanged)
{
    static const char *const version[] = {
        "99", "'99'", "99999999999", "9223372036854775807"};

    for (size_t i = 0; i < 4; i++) {
        char sql[256];

        (void)snprintf(sql, sizeof(sql),
            "CREATE TABLE waybill_meta(name, value);"
            "CREATE TABLE waybill_outbox(a);"
            "INSERT INTO waybill_meta VALUES('version', %s)",
            version[i]);
        make_tables(sql);
        check_refused_unchanged(WB_NEWER, BOX);
    }
}

TEST(test_open__I13_network_file_system__refused_and_nothing_left)
{
    static const long types[] = {0x6969, 0x517b, 0xff534d42L, 0xfe534d42L,
        (long)(int)0xff534d42, 0x01021997};
    const struct wb_outbox_opts risk = {.allow_network_fs = true};
    struct wb_err err = {0};

    CHECK_STATUS(OK, try_open("old.db"));
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        network_type = types[i];
        CHECK_STATUS(
            REFUSED, try_with("new.db", (struct wb_outbox_opts){0}, &err));
        CHECK_HAS("network", err.msg);
        CHECK(access("new.db", F_OK) != 0);
        CHECK_STATUS(REFUSED, try_open("old.db"));
        CHECK_STATUS(OK, try_with("old.db", risk, NULL));
    }
    network_type = 0xef53; /* ext4 */
    CHECK_STATUS(OK, try_open("new.db"));
    network_type = 0;
}

/* The application's own connection is no safer there. */
TEST(test_adopt__I13_network_file_system__refused_and_unchanged)
{
    struct wb_outbox_opts opts = {.env = ENV};
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};
    sqlite3 *db = NULL;

    CHECK(sqlite3_open("app.db", &db) == SQLITE_OK);
    network_type = 0x6969;
    CHECK_STATUS(REFUSED, wb_outbox_adopt(&box, db, &opts, &err));
    CHECK_HAS("network", err.msg);
    CHECK(sqlite3_exec(db, "CREATE TABLE t(x)", NULL, NULL, NULL) == SQLITE_OK);
    CHECK(access("app.db-wal", F_OK) != 0);
    opts.allow_network_fs = true;
    CHECK_STATUS(OK, wb_outbox_adopt(&box, db, &opts, &err));
    wb_outbox_close(box);
    opts.allow_network_fs = false;
    CHECK_STATUS(REFUSED, wb_outbox_attach(&box, db, &opts, &err));
    network_type = 0;
    CHECK_STATUS(OK, wb_outbox_attach(&box, db, &opts, &err));
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* Root may do all; so another user does this, in a child. */
static int
as_nobody(int (*run)(void))
{
    int status = 0;
    pid_t child = test_fork();

    if (child == 0) {
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _Exit(100);
        _Exit(run());
    }
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int
open_in_closed_folder(void)
{
    return (int)try_open("closed/x.db");
}

static int
open_existing_in_closed_folder(void)
{
    return (int)try_with(
        "closed/x.db", (struct wb_outbox_opts){.existing = true}, NULL);
}

static int
open_below_unwritable(void)
{
    return (int)try_open("unwritable/new/x.db");
}

static int
open_box(void)
{
    return (int)try_open(BOX);
}

TEST(test_open__folder_without_rights__refused)
{
    CHECK(chmod(".", 0755) == 0);
    CHECK(mkdir("closed", 0700) == 0);
    CHECK(mkdir("unwritable", 0755) == 0);
    CHECK_INT(WB_REFUSED, as_nobody(open_in_closed_folder));
    CHECK_INT(WB_REFUSED, as_nobody(open_existing_in_closed_folder));
    CHECK_INT(WB_REFUSED, as_nobody(open_below_unwritable));
}

TEST(test_open__file_without_rights__refused)
{
    CHECK(chmod(".", 0777) == 0);
    CHECK_STATUS(OK, try_open(BOX));
    CHECK_INT(WB_REFUSED, as_nobody(open_box)); /* 0600, root's */
    CHECK(chmod(BOX, 0444) == 0);
    CHECK_INT(WB_REFUSED, as_nobody(open_box)); /* read-only */
}

/* ---- waiting, and opening at once -------------------------------------- */

TEST(test_open__another_connection_reads_in_another_mode__busy_in_time)
{
    int64_t began = wb_env_system()->mono_us(NULL);
    sqlite3 *db = NULL;

    CHECK(sqlite3_open(BOX, &db) == SQLITE_OK);
    CHECK(sqlite3_exec(db, "CREATE TABLE mine(a); BEGIN; SELECT * FROM mine",
              NULL, NULL, NULL) == SQLITE_OK);
    CHECK_STATUS(BUSY, try_open(BOX)); /* 200 ms */
    CHECK(wb_env_system()->mono_us(NULL) - began < 3000000);
    (void)sqlite3_close(db);
    CHECK_STATUS(OK, try_open(BOX));
}

TEST(test_open__longest_busy_time__waits_and_does_not_wrap)
{
    struct wb_outbox *box =
        box_open_with((struct wb_outbox_opts){.busy_ms = INT64_MAX});
    sqlite3 *db = NULL;
    pid_t child;
    int status = 0;

    child = test_fork();
    if (child == 0) {
        (void)sqlite3_open(BOX, &db);
        (void)sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
        test_write("ready", "", 0);
        (void)usleep(300000);
        _Exit(0);
    }
    while (access("ready", F_OK) != 0)
        (void)usleep(1000);
    (void)box_put(box, "a");
    CHECK(waitpid(child, &status, 0) == child);
    wb_outbox_close(box);
}

static int
open_and_put(void)
{
    struct wb_outbox *box = NULL;
    struct wb_message m = {.kind = wb_slice("a")};
    enum wb_status rc = wb_outbox_open(&box, BOX, NULL, NULL);

    if (rc == WB_OK)
        rc = wb_outbox_enqueue(box, &m, NULL, NULL);
    wb_outbox_close(box);
    return (int)rc;
}

TEST(test_open__eight_processes_open_a_new_file_at_once__all_ok)
{
    pid_t child[8];

    for (int i = 0; i < 8; i++) {
        child[i] = test_fork();
        if (child[i] == 0)
            _Exit(open_and_put());
    }
    for (int i = 0; i < 8; i++) {
        int status = 0;

        CHECK(waitpid(child[i], &status, 0) == child[i]);
        CHECK(WIFEXITED(status));
        CHECK_INT(WB_OK, WEXITSTATUS(status));
    }
    CHECK_INT(8, sql_int("SELECT count(*) FROM waybill_outbox"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_open__S11_new_file__0600_in_folders_0700),
        RUN(test_open__S11_log_and_shared_memory__0600_as_well),
        RUN(test_open__I13_new_file__wal_and_not_ours_untouched),
        RUN(test_open__existing_only__notfound_and_nothing_made),
        RUN(test_open__existing_only_on_a_file_of_others__notfound_unchanged),
        RUN(test_open__file_of_an_application__its_tables_and_numbers_stay),
        RUN(test_open__no_path__invalid),
        RUN(test_open__folder_or_fifo__refused),
        RUN(test_open__no_database__corrupt_unchanged),
        RUN(test_open__tables_of_that_name_not_ours__corrupt_unchanged),
        RUN(test_open__newer_version__newer_unchanged),
        RUN(test_open__I13_network_file_system__refused_and_nothing_left),
        RUN(test_adopt__I13_network_file_system__refused_and_unchanged),
        RUN(test_open__folder_without_rights__refused),
        RUN(test_open__file_without_rights__refused),
        RUN(test_open__another_connection_reads_in_another_mode__busy_in_time),
        RUN(test_open__longest_busy_time__waits_and_does_not_wrap),
        RUN(test_open__eight_processes_open_a_new_file_at_once__all_ok),
    };
    return RUN_ALL(tests);
}
