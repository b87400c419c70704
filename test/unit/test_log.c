/* test_log.c - lines of the log: form, bounds, floods. */
#include "os/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

static int64_t fake_us;

static int64_t
fake_wall_ms(void *ctx)
{
    (void)ctx;
    return 1796118373123;
}

static int64_t
fake_mono_us(void *ctx)
{
    (void)ctx;
    return fake_us;
}

static struct wb_env
log_env(void)
{
    struct wb_env env = *wb_env_system();

    env.wall_ms = fake_wall_ms;
    env.mono_us = fake_mono_us;
    return env;
}

static char text[65536];

/* What was written to the pipe so far. */
static const char *
all(int fd)
{
    ssize_t n = read(fd, text, sizeof(text) - 1);

    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void
open_pipe(int fd[2])
{
    CHECK(pipe(fd) == 0);
    CHECK(fcntl(fd[0], F_SETFL, O_NONBLOCK) == 0);
}

static const struct wb__log_fields attempt = {
    .id = {"01", sizeof("01") - 1},
    .kind = {"mail.sent", sizeof("mail.sent") - 1},
    .attempt = 2,
    .outcome = "retry",
    .status = 503,
    .error = {"said \"no\"\nat=<\\>\x1b[2J",
        sizeof("said \"no\"\nat=<\\>\x1b[2J") - 1},
    .timed = true,
    .scope = {"mail", sizeof("mail") - 1},
};

TEST(test_log__an_event__is_one_line_of_text_or_json)
{
    struct wb_env env = log_env();
    struct wb__log log;
    int fd[2];

    open_pipe(fd);
    wb__log_init(&log, &env, fd[1], WB__LOG_TEXT, WB__LOG_INFO);
    wb__log(&log, WB__LOG_WARN, "attempt-failed", &attempt);
    wb__log(&log, WB__LOG_DEBUG, "unseen", NULL);
    wb__log(&log, WB__LOG_INFO, "stop", NULL);
    wb__log(NULL, WB__LOG_INFO, "stop", NULL);
    CHECK_TEXT("2026-12-01T09:46:13.123Z warn attempt-failed id=01 "
               "kind=mail.sent attempt=2 outcome=retry status=503 "
               "error=\"said \\\"no\\\" at=<\\\\> [2J\" duration_ms=0 "
               "scope=mail\n2026-12-01T09:46:13.123Z info stop\n",
        all(fd[0]));
    CHECK_INT(1, atomic_load(&log.lines[WB__LOG_WARN]));
    CHECK_INT(0, atomic_load(&log.lines[WB__LOG_DEBUG]));
    wb__log_fini(&log);
    wb__log_init(&log, &env, fd[1], WB__LOG_JSON, WB__LOG_INFO);
    wb__log(&log, WB__LOG_WARN, "attempt-failed", &attempt);
    CHECK_TEXT("{\"at\":\"2026-12-01T09:46:13.123Z\",\"level\":\"warn\","
               "\"event\":\"attempt-failed\",\"id\":\"01\",\"kind\":"
               "\"mail.sent\",\"attempt\":2,\"outcome\":\"retry\","
               "\"status\":503,\"error\":\"said \\\"no\\\" at=<\\\\> [2J\","
               "\"duration_ms\":0,\"scope\":\"mail\"}\n",
        all(fd[0]));
    wb__log_fini(&log);
    (void)close(fd[0]);
    (void)close(fd[1]);
}

TEST(test_log__a_flood_of_one_event__is_five_lines_and_a_count)
{
    const struct wb__log_fields other = {.kind = WB_LIT("other")};
    struct wb_env env = log_env();
    struct wb__log log;
    int fd[2], lines = 0;

    open_pipe(fd);
    wb__log_init(&log, &env, fd[1], WB__LOG_TEXT, WB__LOG_INFO);
    for (int i = 0; i < 1000; i++)
        wb__log(&log, WB__LOG_WARN, "attempt-failed", &attempt);
    wb__log(&log, WB__LOG_WARN, "attempt-failed", &other);
    for (const char *at = all(fd[0]); (at = strchr(at, '\n')) != NULL; at++)
        lines++;
    CHECK_INT(6, lines);
    CHECK_INT(10000, wb__log_tick(&log));
    fake_us += 9999000;
    CHECK_INT(1, wb__log_tick(&log));
    CHECK_TEXT("", all(fd[0]));
    fake_us += 1000;
    CHECK_INT(0, wb__log_tick(&log));
    CHECK_TEXT("2026-12-01T09:46:13.123Z warn attempt-failed kind=mail.sent "
               "count=995\n",
        all(fd[0]));
    for (int i = 0; i < 7; i++)
        wb__log(&log, WB__LOG_WARN, "attempt-failed", &attempt);
    wb__log_fini(&log); /* nothing is left uncounted at the end */
    CHECK(strstr(all(fd[0]), "kind=mail.sent count=2\n") != NULL);
    (void)close(fd[0]);
    (void)close(fd[1]);
}

TEST(test_log__a_pipe_that_nobody_reads__loses_lines_and_says_how_many)
{
    struct wb_env env = log_env();
    struct wb__log log;
    int fd[2], written = 0;
    char event[32];

    open_pipe(fd);
    wb__log_init(&log, &env, fd[1], WB__LOG_TEXT, WB__LOG_INFO);
    for (int i = 0; i < 5000; i++) { /* never blocks */
        (void)snprintf(event, sizeof(event), "e%d", i);
        fake_us += 20000000;
        wb__log(&log, WB__LOG_INFO, event, NULL);
    }
    written = (int)atomic_load(&log.lines[WB__LOG_INFO]);
    CHECK(written > 0 && written < 5000);
    while (strlen(all(fd[0])) > 0)
        ;
    wb__log(&log, WB__LOG_INFO, "last", NULL);
    (void)snprintf(event, sizeof(event), "count=%d\n", 5000 - written);
    CHECK(strstr(all(fd[0]), event) != NULL);
    CHECK(strstr(text, "info last\n") != NULL);
    wb__log_fini(&log);
    (void)close(fd[0]);
    (void)close(fd[1]);
}

TEST(test_log__fields_of_any_length__make_a_line_that_is_whole)
{
    static char longest[20000];
    struct wb_env env = log_env();
    struct wb__log_fields f = attempt;
    struct wb__log log;
    int fd[2];
    size_t len;

    for (size_t i = 0; i < sizeof(longest); i++)
        longest[i] = "\xf0\x9f\x93\xa6"[i % 4];
    f.id = f.kind = f.error = f.scope = f.detail =
        (struct wb_slice){longest, sizeof(longest)};
    open_pipe(fd);
    wb__log_init(&log, &env, fd[1], WB__LOG_JSON, WB__LOG_INFO);
    wb__log(&log, WB__LOG_INFO, "long", &f);
    len = strlen(all(fd[0]));
    CHECK(len > 1000 && len <= 4096);
    CHECK_TEXT("\"}\n", text + len - 3);
    wb__log_fini(&log);
    (void)close(fd[0]);
    (void)close(fd[1]);
}

TEST(test_log__the_journal__gets_priorities)
{
    struct wb_env env = log_env();
    struct wb__log log;
    struct stat st;
    char stream[64];
    int fd[2];

    open_pipe(fd);
    CHECK(fstat(fd[1], &st) == 0);
    (void)snprintf(stream, sizeof(stream), "%llu:%llu",
        (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
    CHECK(setenv("JOURNAL_STREAM", stream, 1) == 0);
    wb__log_init(&log, &env, fd[1], WB__LOG_TEXT, WB__LOG_INFO);
    wb__log(&log, WB__LOG_ERROR, "a", NULL);
    CHECK_TEXT("<3>2026-12-01T09:46:13.123Z error a\n", all(fd[0]));
    wb__log_fini(&log);
    CHECK(setenv("JOURNAL_STREAM", "1:1", 1) == 0);
    wb__log_init(&log, &env, fd[1], WB__LOG_TEXT, WB__LOG_INFO);
    wb__log(&log, WB__LOG_ERROR, "a", NULL);
    CHECK_TEXT("2026-12-01T09:46:13.123Z error a\n", all(fd[0]));
    wb__log_fini(&log);
    (void)unsetenv("JOURNAL_STREAM");
    (void)close(fd[0]);
    (void)close(fd[1]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_log__an_event__is_one_line_of_text_or_json),
        RUN(test_log__a_flood_of_one_event__is_five_lines_and_a_count),
        RUN(test_log__a_pipe_that_nobody_reads__loses_lines_and_says_how_many),
        RUN(test_log__fields_of_any_length__make_a_line_that_is_whole),
        RUN(test_log__the_journal__gets_priorities),
    };

    return RUN_ALL(tests);
}
