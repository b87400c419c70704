/* test_heap.c - the heap against a dumb model; SipHash against its vectors. */
#include "base/base.h"

#include "support.h"

enum {
    NODES = 200
};

static int64_t
least_key(const struct wb__heap_node *node, const bool *in)
{
    int64_t least = INT64_MAX;

    for (int i = 0; i < NODES; i++) {
        if (in[i] && node[i].key < least)
            least = node[i].key;
    }
    return least;
}

TEST(test_heap__random_pushes_moves_removals__first_is_the_least)
{
    static struct wb__heap_node node[NODES];
    struct wb__heap h = {.env = ENV};
    bool in[NODES] = {false};
    unsigned r;

    for (int i = 0; i < 20000; i++) {
        int k;

        ENV->random(ENV->ctx, &r, sizeof(r));
        k = (int)(r % NODES);
        if (!in[k]) {
            node[k].key = r >> 16 & 0xff; /* many are equal */
            CHECK(wb__heap_push(&h, &node[k]));
            in[k] = true;
        } else if (r & 0x1000000) {
            wb__heap_remove(&h, &node[k]);
            in[k] = false;
        } else {
            wb__heap_move(&h, &node[k], r >> 16 & 0xff);
        }
        if (h.n > 0)
            CHECK_INT(least_key(node, in), wb__heap_first(&h)->key);
        else
            CHECK(wb__heap_first(&h) == NULL);
    }
    wb__heap_fini(&h);
}

TEST(test_heap__no_memory__nothing_pushed)
{
    struct wb__heap_node node[9] = {{0}};
    struct wb__heap h = {.env = ENV};

    fake_alloc_fail_at(0);
    CHECK(!wb__heap_push(&h, &node[0]));
    CHECK_INT(0, h.n);
    for (int i = 0; i < 8; i++)
        CHECK(wb__heap_push(&h, &node[i]));
    fake_alloc_fail_at(0);
    CHECK(!wb__heap_push(&h, &node[8]));
    CHECK_INT(8, h.n);
    wb__heap_fini(&h);
}

TEST(test_heap__emptied__gives_memory_back)
{
    static struct wb__heap_node node[NODES];
    struct wb__heap h = {.env = ENV};

    for (int i = 0; i < NODES; i++) {
        node[i].key = i;
        CHECK(wb__heap_push(&h, &node[i]));
    }
    for (int i = 0; i < NODES; i++) {
        CHECK(wb__heap_first(&h) == &node[i]);
        wb__heap_remove(&h, &node[i]);
    }
    CHECK(h.cap <= 64);
    wb__heap_fini(&h);
}

/* Of SipHash-1-3 with the key 00..0f, as Rust's core library tests it. */
TEST(test_siphash__vectors__as_published)
{
    const uint64_t seed[] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
    unsigned char in[16];
    uint64_t seen[17];

    for (int i = 0; i < 16; i++)
        in[i] = (unsigned char)i;
    CHECK(wb__siphash(seed, in, 0) == UINT64_C(0xabac0158050fc4dc));
    for (size_t len = 0; len <= 16; len++) {
        seen[len] = wb__siphash(seed, in, len);
        for (size_t i = 0; i < len; i++)
            CHECK(seen[i] != seen[len]);
    }
    CHECK(wb__siphash((const uint64_t[]){1, 2}, in, 16) != seen[16]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RUN(test_heap__random_pushes_moves_removals__first_is_the_least),
        RUN(test_heap__no_memory__nothing_pushed),
        RUN(test_heap__emptied__gives_memory_back),
        RUN(test_siphash__vectors__as_published),
    };

    return RUN_ALL(tests);
}
