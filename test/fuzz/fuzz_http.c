/* fuzz_http.c - the HTTP parser on any bytes. The first byte chooses mode and
 * split. Besides the checks of the sanitizers: the result must be the same for
 * the whole input, the split input and single bytes, and must fulfil the
 * guarantees of parser.h. */
#include "../http_transcript.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct wb__http_limits limits = {.head_bytes = 512,
    .fields = 8,
    .body_bytes = 4096};

static void
require(bool ok)
{
    if (!ok)
        abort();
}

static struct transcript
read_split(
    enum wb__http_mode mode, struct wb_slice in, size_t first, size_t step)
{
    struct transcript t;

    transcript_init(&t, wb_env_system(), mode, &limits);
    transcript_feed_split(&t, in, first, step);
    require(t.parser.text.cap <= 2 * limits.head_bytes);
    return t;
}

static void
check_same(const struct transcript *a, const struct transcript *b)
{
    require(wb__eq(wb__buf_slice(&a->text), wb__buf_slice(&b->text)));
    require(a->messages == b->messages && a->status == b->status);
    require(a->status != 0 || a->open == b->open);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wb_slice in = {(const char *)data, size};
    struct transcript whole, split, bytes;
    enum wb__http_mode mode;

    if (size == 0)
        return 0;
    mode = (data[0] & 1) != 0 ? WB__HTTP_RESPONSES : WB__HTTP_REQUESTS;
    in = wb__from(in, 1);
    whole = read_split(mode, in, in.len, 1);
    split = read_split(mode, in, data[0] / 2 * in.len / 127, in.len + 1);
    bytes = read_split(mode, in, 1, 1);
    check_same(&whole, &split);
    check_same(&whole, &bytes);
    transcript_fini(&whole);
    transcript_fini(&split);
    transcript_fini(&bytes);
    return 0;
}
