/* support.c - the fixture of a unit test. See support.h. */
#define _XOPEN_SOURCE 700 /* nftw */
#include "support.h"

#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "random.h"
#include "support_pg.h"

struct fake_env fake_env;

static char folder[256];
static char home[256]; /* the folder in which the program was started */

/* ---- environment ------------------------------------------------------- */

static int64_t
fake_env_wall_ms(void *ctx)
{
    return ((struct fake_env *)ctx)->wall_ms;
}

static int64_t
fake_env_mono_us(void *ctx)
{
    return ((struct fake_env *)ctx)->mono_us;
}

static void
fake_env_random(void *ctx, void *out, size_t len)
{
    struct fake_env *w = ctx;
    unsigned char *at = out;

    while (len > 0) {
        uint64_t r = random_mix(atomic_fetch_add(&w->seed, RANDOM_STEP));
        size_t n = len < sizeof(r) ? len : sizeof(r);

        memcpy(at, &r, n);
        at += n;
        len -= n;
    }
}

static bool
must_fail(struct fake_env *w)
{
    long left = w->fail_in;

    while (left >= 0) {
        if (!atomic_compare_exchange_weak(&w->fail_in, &left, left - 1))
            continue;
        if (left == 0)
            w->failed++;
        return left == 0;
    }
    return false;
}

static void *
fake_env_resize(void *ctx, void *ptr, size_t size)
{
    struct fake_env *w = ctx;
    void *fresh;

    if (size == 0) {
        if (ptr != NULL)
            w->live--;
        free(ptr);
        return NULL;
    }
    w->allocs++;
    if (must_fail(w))
        return NULL;
    fresh = realloc(ptr, size);
    if (fresh != NULL && ptr == NULL)
        w->live++;
    return fresh;
}

static void
fake_env_reset(void)
{
    const struct wb_env env = {.ctx = &fake_env,
        .wall_ms = fake_env_wall_ms,
        .mono_us = fake_env_mono_us,
        .random = fake_env_random,
        .resize = fake_env_resize};

    fake_env.env = env;
    fake_env.wall_ms = FAKE_START_MS;
    fake_env.mono_us = 1000000;
    fake_env.seed = 1;
    fake_env.fail_in = -1;
    fake_env.failed = 0;
    fake_env.allocs = 0;
    fake_env.live = 0;
}

void
fake_clock_advance_ms(int64_t ms)
{
    fake_env.wall_ms += ms;
    fake_env.mono_us += ms * 1000;
}

void
fake_alloc_fail_at(long n)
{
    fake_env.failed = 0;
    fake_env.fail_in = n;
}

/* ---- a folder per test ------------------------------------------------- */

static const char *
server(void)
{
    return getenv("WAYBILL_TEST_PG");
}

bool
test_on_pg(void)
{
    return server() != NULL;
}

const char *
test_db_url(void)
{
#ifdef WB_LIBPQ
    if (test_on_pg())
        return test_pg_url();
#endif
    return "box.db";
}

/* Is the test listed in test/pg/sqlite_only? */
static bool
sqlite_only(const char *name)
{
    char line[256];
    size_t len = strlen(name);
    bool found = false;
    FILE *f =
        test_on_pg() ? fopen(test_source("test/pg/sqlite_only"), "r") : NULL;

    while (f != NULL && !found && fgets(line, sizeof(line), f) != NULL)
        found = strncmp(line, name, len) == 0 && line[len] == ' ';
    if (f != NULL)
        (void)fclose(f);
    return found;
}

int
test_run_all(const struct CMUnitTest *tests, size_t n)
{
    struct CMUnitTest *wanted = calloc(n, sizeof(*wanted));
    size_t n_wanted = 0;
    int rc;

    if (wanted == NULL)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (!sqlite_only(tests[i].name))
            wanted[n_wanted++] = tests[i];
        else
            print_message("skipped, about SQLite itself: %s\n", tests[i].name);
    }
    rc = n_wanted == 0
             ? 0
             : _cmocka_run_group_tests("tests", wanted, n_wanted, NULL, NULL);
    free(wanted);
    return rc;
}

static int
remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)at;
    return type == FTW_DP ? rmdir(path) : unlink(path);
}

int
test_begin(void **state)
{
    const char *tmp = getenv("TMPDIR");

    (void)state;
    fake_env_reset();
    if (home[0] == '\0' && getcwd(home, sizeof(home)) == NULL)
        return -1;
    (void)snprintf(folder, sizeof(folder), "%s/waybill-test-XXXXXX",
        tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(folder) == NULL || chdir(folder) != 0) {
        print_error("%s: cannot create the folder of the test\n", folder);
        return -1;
    }
#ifdef WB_LIBPQ
    if (test_on_pg())
        test_pg_begin(server());
#endif
    return 0;
}

int
test_end(void **state)
{
    (void)state;
#ifdef WB_LIBPQ
    if (test_on_pg())
        test_pg_end(server());
#endif
    if (chdir(home) != 0 ||
        nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0)
        print_error("%s: not removed\n", folder);
    if (fake_env.live != 0)
        print_error("%ld blocks of ENV not freed\n", (long)fake_env.live);
    return fake_env.live == 0 ? 0 : -1;
}

/* ---- checks ------------------------------------------------------------ */

void
check_int(intmax_t expected, intmax_t actual, const char *what,
    const char *file, int line)
{
    if (expected == actual)
        return;
    print_error("%s is %jd, expected %jd\n", what, actual, expected);
    _fail(file, line);
}

void
check_ok(enum wb_status status, const char *msg, const char *what,
    const char *file, int line)
{
    if (status == WB_OK)
        return;
    print_error("%s: %s: %s\n", what, wb_status_name(status), msg);
    _fail(file, line);
}

void
check_status(enum wb_status expected, enum wb_status status, const char *what,
    const char *file, int line)
{
    if (status == expected)
        return;
    print_error("%s: %s, expected %s\n", what, wb_status_name(status),
        wb_status_name(expected));
    _fail(file, line);
}

void
check_slice(const char *text, struct wb_slice slice, const char *what,
    const char *file, int line)
{
    if (slice.len == strlen(text) &&
        (slice.len == 0 || memcmp(slice.ptr, text, slice.len) == 0))
        return;
    print_error("%s is \"%.*s\", expected \"%s\"\n", what, (int)slice.len,
        slice.len > 0 ? slice.ptr : "", text);
    _fail(file, line);
}

void
check_has(const char *piece, const char *text, const char *what,
    const char *file, int line)
{
    if (strstr(text, piece) != NULL)
        return;
    print_error(
        "%s is \"%s\", which does not contain \"%s\"\n", what, text, piece);
    _fail(file, line);
}

pid_t
test_fork(void)
{
    pid_t child;

    (void)fflush(NULL);
    child = fork();
    if (child == 0 && freopen("/dev/null", "w", stderr) == NULL)
        _Exit(0);
    CHECK(child >= 0);
    return child;
}

void
check_aborted(pid_t child, const char *what, const char *file, int line)
{
    int status = 0;

    CHECK(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
        return;
    print_error("%s did not stop the process\n", what);
    _fail(file, line);
}

/* ---- files ------------------------------------------------------------- */

void
test_write(const char *path, const char *text, size_t len)
{
    FILE *f = fopen(path, "wb");

    CHECK(f != NULL);
    CHECK(fwrite(text, 1, len, f) == len);
    CHECK(fclose(f) == 0);
}

char *
test_read(const char *path, size_t *len)
{
    FILE *f = fopen(path, "rb");
    char *text;
    long size;

    CHECK(f != NULL);
    CHECK(fseek(f, 0, SEEK_END) == 0);
    size = ftell(f);
    CHECK(size >= 0);
    rewind(f);
    text = calloc(1, (size_t)size + 1);
    CHECK(text != NULL);
    CHECK(fread(text, 1, (size_t)size, f) == (size_t)size);
    (void)fclose(f);
    if (len != NULL)
        *len = (size_t)size;
    return text;
}

const char *
test_source(const char *path)
{
    static char full[512];
    const char *root = getenv("SUPPORT_ROOT");

    (void)snprintf(
        full, sizeof(full), "%s/%s", root != NULL ? root : home, path);
    return full;
}
