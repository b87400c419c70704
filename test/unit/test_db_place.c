/* test_db_place.c - one database by whatever name; files that vanish while they
 * are open; reading changes nothing. */
#define _GNU_SOURCE /* unshare */
#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "adopt_fixture.h"
#include "db/db.h"
#include "idem/sql.h"
#include "waybill/idem.h"

static const char *
path_of(const char *name) /* static */
{
    static char path[4200];
    char here[4096];

    CHECK(getcwd(here, sizeof(here)) != NULL);
    (void)snprintf(path, sizeof(path), "%s/%s", here, name);
    return path;
}

static struct wb__db *
db_open(const char *path)
{
    const struct wb__db_opts o = {.env = ENV, .busy_ms = 200};
    struct wb__db *db = NULL;
    struct wb_err err = {0};

    CHECK_OK(wb__db_open(&db, path, &o, &err), err);
    return db;
}

static enum wb_status
put(struct wb_outbox *box, struct wb_err *err)
{
    const struct wb_message m = {.kind = wb_slice("a")};

    return wb_outbox_enqueue(box, &m, NULL, err);
}

/* ---- names --------------------------------------------------------------- */

TEST(test_name__links_dots_and_relative_paths__one_lock_and_one_log)
{
    static const char *const name[] = {"link.db", "folder/box.db",
        "folder/../d/box.db", ".//d/.//box.db", "chain.db"};
    char wake[4096], log[4096];
    struct wb__db *db;

    CHECK(mkdir("d", 0700) == 0 && symlink("d", "folder") == 0);
    CHECK(symlink("d/box.db", "link.db") == 0);
    CHECK(symlink("link.db", "chain.db") == 0);
    db = db_open(path_of("d/box.db"));
    (void)snprintf(wake, sizeof(wake), "%s", db->watch.wake);
    (void)snprintf(log, sizeof(log), "%s", db->watch.log);
    CHECK_TEXT(path_of("d/box.db-lock"), wake);
    CHECK(access(log, F_OK) == 0); /* SQLite made it there */
    for (size_t i = 0; i < WB_COUNT(name); i++) {
        struct wb__db *other = db_open(name[i]);

        CHECK_TEXT(db->path, other->path);
        CHECK_TEXT(wake, other->watch.wake);
        CHECK_TEXT(log, other->watch.log);
        wb__db_close(other);
    }
    wb__db_close(db);
    CHECK(access("link.db-lock", F_OK) != 0);
}

TEST(test_name__adopted_by_a_uri__the_same_lock)
{
    struct wb_outbox *box = box_open(), *adopted;
    sqlite3 *db = NULL;
    char uri[4200];

    CHECK(symlink(BOX, "link.db") == 0);
    (void)snprintf(
        uri, sizeof(uri), "file:%s?cache=private", path_of("link.db"));
    CHECK(sqlite3_open_v2(uri, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_URI,
              NULL) == SQLITE_OK);
    adopted = adopt(db);
    CHECK_INT(0, access(path_of("box.db-lock"), F_OK));
    CHECK(access("link.db-lock", F_OK) != 0);
    wb_outbox_close(adopted);
    CHECK(sqlite3_close(db) == SQLITE_OK);
    wb_outbox_close(box);
}

TEST(test_name__chdir_after_open__the_second_connection_is_of_the_same_file)
{
    const struct wb_idem_opts o = {.env = ENV, .busy_ms = 200};
    struct wb_idem *store = NULL;
    struct wb_err err = {0};

    CHECK_OK(wb_idem_open(&store, "./" BOX, &o, &err), err);
    CHECK_TEXT(path_of(BOX), ((struct wb__idem_sql *)store)->url);
    wb_idem_close(store);
}

TEST(test_name__hard_link__refused_with_the_fix)
{
    const struct wb_outbox_opts o = {.env = ENV};
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};

    wb_outbox_close(box_open());
    CHECK(link(BOX, "other.db") == 0);
    CHECK_STATUS(REFUSED, wb_outbox_open(&box, "other.db", &o, &err));
    CHECK_HAS("hard link", err.msg);
    CHECK_STATUS(REFUSED, wb_outbox_open(&box, BOX, &o, &err));
    CHECK(unlink("other.db") == 0);
    CHECK_STATUS(OK, wb_outbox_open(&box, BOX, &o, &err));
    wb_outbox_close(box);
}

/* In a child with mounts of its own; 77: it may have none. */
static int
open_mounted(void)
{
    const struct wb_outbox_opts o = {.env = ENV};
    struct wb_outbox *box = NULL;
    struct wb_err err = {0};
    enum wb_status rc;

    if (unshare(CLONE_NEWNS) != 0 ||
        mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount(BOX, "other.db", NULL, MS_BIND, NULL) != 0)
        return 77;
    rc = wb_outbox_open(&box, "other.db", &o, &err);
    return rc == WB_REFUSED && strstr(err.msg, "mount its folder") != NULL ? 0
                                                                           : 1;
}

TEST(test_name__file_mounted_alone__refused_with_the_fix)
{
    int status = 0;
    pid_t child;

    wb_outbox_close(box_open());
    test_write("other.db", "", 0);
    child = test_fork();
    if (child == 0)
        _Exit(open_mounted());
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    /* 77: this machine lets nobody mount a file. */
    CHECK(WEXITSTATUS(status) == 77 || WEXITSTATUS(status) == 0);
}

/* ---- files that vanish ---------------------------------------------------- */

struct vanish {
    const char *what; /* a command of the shell */
    const char *named;
};
static const struct vanish vanish[] = {
    {"rm d/box.db", "box.db was removed"},
    {"mv d/box.db d/old.db", "box.db was removed or renamed"},
    {"cp d/box.db d/new.db && mv d/new.db d/box.db", "box.db was replaced"},
    {"mv d e", "box.db was removed or renamed"},
    {"mv d e && mkdir d && cp e/* d", "box.db was replaced"},
    {"rm d/box.db-wal", "box.db-wal was removed"},
    {"rm d/box.db-shm", "box.db-shm was removed"},
    {"rm d/box.db d/box.db-wal d/box.db-shm d/box.db-lock", "box.db was"},
};

static void
shell(const char *command)
{
    CHECK_INT(0, system(command)); /* NOLINT: a test's own text */
}

TEST(test_vanish__any_file_in_any_way__no_ok_and_the_file_named)
{
    for (size_t i = 0; i < WB_COUNT(vanish); i++) {
        const struct wb_outbox_opts o = {.env = ENV, .busy_ms = 200};
        struct wb_outbox *box = NULL;
        struct wb_batch batch = {0};
        struct wb_claim claim = {.max = 1};
        struct wb_health health;
        struct wb_err err = {0};

        shell("rm -rf d e && mkdir d");
        CHECK_OK(wb_outbox_open(&box, "d/box.db", &o, &err), err);
        CHECK_STATUS(OK, put(box, &err));
        shell(vanish[i].what);
        CHECK_STATUS(IO, put(box, &err));
        CHECK_HAS(vanish[i].named, err.msg);
        CHECK_STATUS(IO, wb_outbox_claim(box, &claim, &batch, &err));
        CHECK_STATUS(IO, wb_outbox_health(box, &health, &err));
        wb_outbox_close(box);
    }
}

TEST(test_vanish__store__no_claim_and_no_answer)
{
    const struct wb_idem_opts o = {.env = ENV, .busy_ms = 200};
    const struct wb_idem_op op = {.key = wb_slice("k")};
    const struct wb_idem_begin begin = {0};
    struct wb_fingerprint print = {0};
    struct wb_idem_result result = {0};
    struct wb_idem *store = NULL;
    struct wb_err err = {0};

    CHECK_OK(wb_idem_open(&store, BOX, &o, &err), err);
    shell("rm " BOX);
    CHECK_STATUS(IO, wb_idem_begin(store, &op, &print, &begin, &result, &err));
    CHECK_HAS("removed", err.msg);
    CHECK_STATUS(IO, wb_idem_lookup(store, &op, &result, &err));
    wb_idem_result_free(&result);
    wb_idem_close(store);
}

TEST(test_vanish__between_begin_and_commit__the_outcome_is_unknown)
{
    struct wb__db *db = db_open(BOX);
    struct wb_err err = {0};

    CHECK_STATUS(OK, wb__db_begin(db, WB__TX_FULL, &err));
    CHECK_STATUS(OK, wb__db_run(db, WB__SQL_PAUSE,
                         WB__ARGS(wb__text(WB_LIT("k"))), NULL, &err));
    shell("mv " BOX " old.db");
    CHECK_STATUS(IO, wb__db_commit(db, &err));
    CHECK_HAS("removed or renamed", err.msg);
    wb__db_close(db);
}

TEST(test_vanish__transaction_of_the_caller__its_commit_is_refused)
{
    sqlite3 *db = app_open();
    struct wb_outbox *box = adopt(db);

    run(db, "CREATE TABLE mine(a); BEGIN; INSERT INTO mine VALUES(1)");
    CHECK_STATUS(OK, put(box, NULL));
    shell("mv " BOX " old.db");
    CHECK(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_CONSTRAINT);
    CHECK_INT(1, sqlite3_get_autocommit(db));
    CHECK_INT(0, ask(db, "SELECT count(*) FROM mine"));
    shell("mv old.db " BOX); /* it is there again: nothing was lost */
    CHECK_STATUS(OK, put(box, NULL));
    wb_outbox_close(box);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

TEST(test_vanish__closed_late__the_log_of_the_new_file_stays)
{
    struct wb_outbox *old = box_open(), *box;

    shell("mv " BOX " old.db && rm " BOX "-wal " BOX "-shm");
    box = box_open();
    (void)box_put(box, "a");
    wb_outbox_close(old);
    CHECK_INT(0, access(BOX "-wal", F_OK));
    (void)box_put(box, "a");
    CHECK_INT(2, sql_int("SELECT count(*) FROM waybill_outbox"));
    wb_outbox_close(box);
}

TEST(test_vanish__log_removed__closing_saves_what_was_accepted)
{
    struct wb_outbox *box = box_open();

    (void)box_put(box, "a");
    shell("rm " BOX "-wal");
    CHECK_STATUS(IO, put(box, NULL));
    wb_outbox_close(box);
    CHECK_INT(1, sql_int("SELECT count(*) FROM waybill_outbox"));
}

/* ---- reading -------------------------------------------------------------- */

/* Names and bytes of all files but the shared memory. */
static uint64_t
folder_sum(void)
{
    DIR *d = opendir(".");
    uint64_t sum = 0;

    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        size_t len = 0;
        char *text;

        if (e->d_type != DT_REG || strstr(e->d_name, "-shm") != NULL)
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

static enum wb_status
look(struct wb_err *err)
{
    const struct wb_outbox_opts o = {
        .env = ENV, .busy_ms = 200, .read_only = true};
    const struct wb_filter all = {0};
    struct wb_outbox *box = NULL;
    struct wb_health health;
    int n = 0;
    enum wb_status rc = wb_outbox_open(&box, BOX, &o, err);

    if (rc == WB_OK)
        rc = wb_outbox_list(box, &all, row_count, &n, err);
    if (rc == WB_OK)
        rc = wb_outbox_health(box, &health, err);
    wb_outbox_close(box);
    return rc == WB_OK && n != 1 ? WB_EMPTY : rc;
}

static void
check_look(enum wb_status expected)
{
    struct wb_err err = {0};
    uint64_t before = folder_sum();

    CHECK_INT(expected, look(&err));
    CHECK(folder_sum() == before);
}

static void
app(const char *sql)
{
    sqlite3 *db = app_open();

    run(db, sql);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

TEST(test_read__whatever_is_there__nothing_changes)
{
    check_look(WB_NOTFOUND); /* nothing */
    app("CREATE TABLE mine(a)");
    check_look(WB_NOTFOUND); /* an application's */
    app("PRAGMA journal_mode=WAL");
    check_look(WB_NOTFOUND);
    shell("rm " BOX "*");
    {
        struct wb_outbox *box = box_open();

        (void)box_put(box, "a");
        check_look(WB_OK); /* while it is open */
        wb_outbox_close(box);
    }
    check_look(WB_OK);
    shell("cp " BOX " copy && mv copy " BOX); /* another incarnation */
    check_look(WB_OK);
    sql_run("PRAGMA journal_mode=DELETE");
    check_look(WB_OK);
    sql_run("UPDATE waybill_meta SET value = 1 WHERE name = 'version'");
    check_look(WB_REFUSED); /* tables of an older version */
}

TEST(test_read__log_of_a_killed_program__stays)
{
    int status = 0;
    pid_t child = test_fork();

    if (child == 0) {
        (void)box_put(box_open(), "a");
        _Exit(0); /* without a close */
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK_INT(0, access(BOX "-wal", F_OK));
    check_look(WB_OK);
}

static int
look_as_nobody(void)
{
    int status = 0;
    pid_t child = test_fork();

    if (child == 0) {
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _Exit(100);
        _Exit((int)look(NULL));
    }
    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(test_read__user_who_may_not_write__reads_at_any_time)
{
    struct wb_outbox *box = box_open();

    (void)box_put(box, "a");
    CHECK(chmod(".", 0755) == 0);
    shell("chmod 644 " BOX " " BOX "-wal " BOX "-shm");
    CHECK_INT(WB_OK, look_as_nobody()); /* a worker has it open */
    wb_outbox_close(box);
    CHECK(access(BOX "-shm", F_OK) != 0);
    CHECK_INT(WB_OK, look_as_nobody()); /* no program has */
    CHECK(access(BOX "-shm", F_OK) != 0);
    box = box_open();
    shell("chmod 600 " BOX);
    CHECK_INT(WB_REFUSED, look_as_nobody());
    wb_outbox_close(box);
}

/* ---- files that could not be written once ---------------------------------- */

static int
open_and_put(void)
{
    const struct wb_outbox_opts o = {.env = ENV, .busy_ms = 200};
    struct wb_outbox *box = NULL;
    enum wb_status rc = wb_outbox_open(&box, BOX, &o, NULL);

    if (rc == WB_OK)
        rc = put(box, NULL);
    wb_outbox_close(box);
    return (int)rc;
}

TEST(test_mode__shared_memory_kept_from_a_read_only_time__writable_again)
{
    int status = 0;
    pid_t child = test_fork();

    if (child == 0) {
        (void)box_put(box_open(), "a");
        _Exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    shell("chmod 400 " BOX "-shm " BOX "-wal");
    CHECK(chmod(".", 0777) == 0);
    if (geteuid() == 0)
        for (int i = 0; i < 4; i++) {
            static const char *const name[] = {
                BOX, BOX "-shm", BOX "-wal", BOX "-lock"};

            CHECK(chown(name[i], 65534, 65534) == 0);
        }
    child = test_fork();
    if (child == 0) {
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _Exit(100);
        _Exit(open_and_put());
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_INT(WB_OK, WEXITSTATUS(status));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_name__links_dots_and_relative_paths__one_lock_and_one_log),
        RUN(test_name__adopted_by_a_uri__the_same_lock),
        RUN(test_name__chdir_after_open__the_second_connection_is_of_the_same_file),
        RUN(test_name__hard_link__refused_with_the_fix),
        RUN(test_name__file_mounted_alone__refused_with_the_fix),
        RUN(test_vanish__any_file_in_any_way__no_ok_and_the_file_named),
        RUN(test_vanish__store__no_claim_and_no_answer),
        RUN(test_vanish__between_begin_and_commit__the_outcome_is_unknown),
        RUN(test_vanish__transaction_of_the_caller__its_commit_is_refused),
        RUN(test_vanish__closed_late__the_log_of_the_new_file_stays),
        RUN(test_vanish__log_removed__closing_saves_what_was_accepted),
        RUN(test_read__whatever_is_there__nothing_changes),
        RUN(test_read__log_of_a_killed_program__stays),
        RUN(test_read__user_who_may_not_write__reads_at_any_time),
        RUN(test_mode__shared_memory_kept_from_a_read_only_time__writable_again),
    };
    return RUN_ALL(tests);
}
