/* test_base_buf.c - bounded buffer, arena and growing arrays: against a simple
 * copy, at their limits, and out of memory. */
#include "base/base.h"

#include <stdio.h>

#include "support.h"

TEST(test_buf__appends__as_a_simple_copy)
{
    struct wb__buf b = {.env = ENV, .max = 100000};
    char *copy = calloc(1, 200000);
    size_t n = 0;

    CHECK(copy != NULL);
    for (int i = 0; i < 2000; i++) {
        char piece[64];
        uint8_t len;

        ENV->random(ENV->ctx, &len, 1);
        ENV->random(ENV->ctx, piece, sizeof(piece));
        len %= 64;
        wb__buf_add(&b, (struct wb_slice){piece, len});
        memcpy(copy + n, piece, len);
        n += len;
        wb__buf_fmt(&b, "%d;", i);
        n += (size_t)snprintf(copy + n, 16, "%d;", i);
        CHECK_INT(n, b.len);
        CHECK_INT(0, b.ptr[b.len]);
    }
    CHECK_INT(WB_OK, b.failed);
    CHECK(memcmp(copy, b.ptr, n) == 0);
    free(copy);
    wb__buf_fini(&b);
}

TEST(test_buf__max__exact_and_marked_past_it)
{
    struct wb__buf b = {.env = ENV, .max = 5};

    wb__buf_str(&b, "abcde");
    CHECK_INT(WB_OK, b.failed);
    wb__buf_add(&b, (struct wb_slice){0});
    CHECK_INT(WB_OK, b.failed);
    wb__buf_str(&b, "f");
    CHECK_INT(WB_TOOBIG, b.failed);
    CHECK_SLICE("abcde", wb__buf_slice(&b));
    CHECK(wb__buf_room(&b, 0) == NULL); /* stays marked */
    wb__buf_clear(&b);
    CHECK_INT(WB_OK, b.failed);
    wb__buf_fmt(&b, "%s", "abcdef");
    CHECK_INT(WB_TOOBIG, b.failed);
    CHECK_INT(0, b.len);
    wb__buf_fini(&b);
}

TEST(test_buf__out_of_memory__marked_and_unchanged)
{
    struct wb__buf b = {.env = ENV, .max = 1000};

    wb__buf_str(&b, "kept");
    fake_alloc_fail_at(0);
    (void)wb__buf_room(&b, 500);
    CHECK_INT(1, fake_env.failed);
    CHECK_INT(WB_NOMEM, b.failed);
    CHECK_SLICE("kept", wb__buf_slice(&b));
    wb__buf_fini(&b);
    CHECK_INT(WB_OK, b.failed);
    wb__buf_str(&b, "again");
    CHECK_SLICE("again", wb__buf_slice(&b));
    wb__buf_fini(&b);
}

TEST(test_arena__pieces__aligned_zeroed_apart)
{
    struct wb__arena a = {.env = ENV};
    unsigned char *piece[500];
    size_t size[500];

    for (int i = 0; i < 500; i++) {
        uint16_t r;

        ENV->random(ENV->ctx, &r, sizeof(r));
        size[i] = 1 + (r % 8 == 0 ? r % 20000 : r % 200);
        piece[i] = wb__arena_alloc(&a, size[i]);
        CHECK(piece[i] != NULL);
        CHECK_INT(0, (uintptr_t)piece[i] % 16);
        for (size_t k = 0; k < size[i]; k++)
            CHECK(piece[i][k] == 0);
        memset(piece[i], i % 255 + 1, size[i]);
    }
    for (int i = 0; i < 500; i++)
        for (size_t k = 0; k < size[i]; k++)
            CHECK(piece[i][k] == i % 255 + 1);
    wb__arena_clear(&a);
    CHECK_INT(0, fake_env.live);
    CHECK(wb__arena_alloc(&a, 1) != NULL); /* usable again */
    wb__arena_clear(&a);
}

TEST(test_arena__dup__ends_with_nul_and_empty_stays_empty)
{
    struct wb__arena a = {.env = ENV};
    struct wb_slice out = S("x");

    CHECK(wb__arena_dup(&a, S(""), &out));
    CHECK_INT(0, out.len);
    CHECK(wb__arena_dup(&a, (struct wb_slice){"ab", 2}, &out));
    CHECK_TEXT("ab", out.ptr);
    fake_alloc_fail_at(0);
    CHECK(wb__arena_alloc(&a, 100000) == NULL);
    CHECK(wb__arena_alloc(&a, SIZE_MAX) == NULL);
    CHECK(wb__arena_alloc(&a, SIZE_MAX - 20) == NULL);
    CHECK(!wb__arena_dup(&a, (struct wb_slice){"a", SIZE_MAX}, &out));
    CHECK_PANICS((void)(wb__arena_alloc(&a, 0) == NULL));
    wb__arena_clear(&a);
}

TEST(test_alloc__zeroed__and_free_of_nothing)
{
    unsigned char *p = wb__alloc(ENV, 1000);

    CHECK(p != NULL);
    for (int i = 0; i < 1000; i++)
        CHECK(p[i] == 0);
    wb__free(ENV, p);
    wb__free(ENV, NULL);
    CHECK_PANICS((void)(wb__alloc(ENV, 0) == NULL));
}

TEST(test_buf__u64__decimal)
{
    struct wb__buf b = {.env = ENV, .max = 100};

    wb__buf_reserve(&b, 64);
    CHECK_INT(0, b.len);
    wb__buf_u64(&b, 0);
    wb__buf_str(&b, " ");
    wb__buf_u64(&b, 1090);
    wb__buf_str(&b, " ");
    wb__buf_u64(&b, UINT64_MAX);
    CHECK_TEXT("0 1090 18446744073709551615", b.ptr);
    wb__buf_reserve(&b, 100);
    CHECK_STATUS(TOOBIG, b.failed);
    wb__buf_fini(&b);
}

TEST(test_array__grow__keeps_elements_and_doubles)
{
    struct wb__arena a = {.env = ENV};
    uint32_t *in_memory = NULL, *in_arena = NULL;
    size_t cap = 0, arena_cap = 0;
    long allocs;

    for (uint32_t n = 0; n < 1000; n++) {
        CHECK(wb__array_grow(ENV, &in_memory, n, &cap, sizeof(*in_memory)));
        CHECK(wb__arena_grow(&a, &in_arena, n, &arena_cap, sizeof(*in_arena)));
        CHECK(cap > n && arena_cap > n);
        in_memory[n] = in_arena[n] = n;
    }
    for (uint32_t n = 0; n < 1000; n++)
        CHECK(in_memory[n] == n && in_arena[n] == n);
    CHECK_INT(1024, cap);
    CHECK_INT(1024, arena_cap);
    allocs = fake_env.allocs;
    CHECK(wb__array_grow(ENV, &in_memory, 1000, &cap, sizeof(*in_memory)));
    CHECK_INT(allocs, fake_env.allocs); /* it has the capacity */
    wb__free(ENV, in_memory);
    wb__arena_clear(&a);
}

TEST(test_array__out_of_memory__nothing_changed)
{
    struct wb__arena a = {.env = ENV};
    char *row = NULL, *before;
    size_t cap = 0, huge = SIZE_MAX / 4;

    fake_alloc_fail_at(0);
    CHECK(!wb__array_grow(ENV, &row, 0, &cap, 8));
    CHECK(row == NULL && cap == 0);
    CHECK(wb__array_grow(ENV, &row, 0, &cap, 8));
    before = row;
    fake_alloc_fail_at(0);
    CHECK(!wb__array_grow(ENV, &row, cap, &cap, 8));
    CHECK(row == before && cap == 16);
    CHECK(!wb__array_grow(ENV, &row, huge, &huge, 8)); /* cannot be counted */
    CHECK(!wb__arena_grow(&a, &row, huge, &huge, 8));
    fake_alloc_fail_at(0);
    CHECK(!wb__arena_grow(&a, &row, cap, &cap, 1000));
    CHECK(row == before && cap == 16);
    wb__free(ENV, row);
    wb__arena_clear(&a);
    CHECK_PANICS(CHECK(wb__array_grow(ENV, &row, 17, &cap, 8)));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_buf__u64__decimal),
        RUN(test_buf__appends__as_a_simple_copy),
        RUN(test_buf__max__exact_and_marked_past_it),
        RUN(test_buf__out_of_memory__marked_and_unchanged),
        RUN(test_arena__pieces__aligned_zeroed_apart),
        RUN(test_arena__dup__ends_with_nul_and_empty_stays_empty),
        RUN(test_alloc__zeroed__and_free_of_nothing),
        RUN(test_array__grow__keeps_elements_and_doubles),
        RUN(test_array__out_of_memory__nothing_changed),
    };
    return RUN_ALL(tests);
}
