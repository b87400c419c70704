/* test_support.c - the support code of the tests. */
#include "support.h"

#include <unistd.h>

static char first_folder[256];

TEST(test_support__first_test__folder_is_its_own)
{
    CHECK(getcwd(first_folder, sizeof(first_folder)) != NULL);
    test_write("left.txt", "left", 4);
}

TEST(test_support__next_test__other_folder_and_old_one_gone)
{
    char here[256];

    CHECK(getcwd(here, sizeof(here)) != NULL);
    CHECK(strcmp(here, first_folder) != 0);
    CHECK(access(first_folder, F_OK) != 0);
    CHECK(access("left.txt", F_OK) != 0);
}

TEST(test_support__clock__stands_until_moved)
{
    int64_t before = ENV->mono_us(ENV->ctx);

    CHECK_INT(FAKE_START_MS, ENV->wall_ms(ENV->ctx));
    fake_clock_advance_ms(250);
    CHECK_INT(FAKE_START_MS + 250, ENV->wall_ms(ENV->ctx));
    CHECK_INT(before + 250000, ENV->mono_us(ENV->ctx));
}

TEST(test_support__same_seed__same_bytes)
{
    char a[19], b[19];

    ENV->random(ENV->ctx, a, sizeof(a));
    fake_env.seed = 1;
    ENV->random(ENV->ctx, b, sizeof(b));
    CHECK(memcmp(a, b, sizeof(a)) == 0);
    ENV->random(ENV->ctx, b, sizeof(b));
    CHECK(memcmp(a, b, sizeof(a)) != 0);
}

TEST(test_support__fail_at__that_allocation_only)
{
    void *p, *q;

    fake_alloc_fail_at(1);
    p = ENV->resize(ENV->ctx, NULL, 8);
    CHECK(p != NULL);
    CHECK(ENV->resize(ENV->ctx, p, 16) == NULL);
    CHECK_INT(1, fake_env.failed);
    q = ENV->resize(ENV->ctx, NULL, 8);
    CHECK(q != NULL);
    CHECK_INT(2, fake_env.live);
    (void)ENV->resize(ENV->ctx, p, 0);
    (void)ENV->resize(ENV->ctx, q, 0);
    CHECK_INT(3, fake_env.allocs);
}

TEST(test_support__files__come_back_whole)
{
    size_t len;
    char *text;

    test_write("f", "a\0b", 3);
    text = test_read("f", &len);
    CHECK_INT(3, len);
    CHECK(memcmp(text, "a\0b", 4) == 0);
    free(text);
}

TEST(test_support__abort__is_seen)
{
    CHECK_PANICS(abort());
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_support__first_test__folder_is_its_own),
        RUN(test_support__next_test__other_folder_and_old_one_gone),
        RUN(test_support__clock__stands_until_moved),
        RUN(test_support__same_seed__same_bytes),
        RUN(test_support__fail_at__that_allocation_only),
        RUN(test_support__files__come_back_whole),
        RUN(test_support__abort__is_seen),
    };
    return RUN_ALL(tests);
}
