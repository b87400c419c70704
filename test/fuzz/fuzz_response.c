/* fuzz_response.c - a response in pieces: memory is bounded for any input, and
 * the error is one clean line. First byte: limit of the body; then lines up to
 * '\n', until the header is complete, then the body. */
#define _GNU_SOURCE /* memmem */
#include <stdlib.h>

#include "transport/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(bool ok)
{
    if (!ok)
        abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wb_slice rest = {(const char *)data, size}, line;
    struct wb__received r = {.body = {.env = wb_env_system()},
        .location = {.env = wb_env_system(), .max = WB__URL_MAX}};
    char error[WB__RECEIVED_ERROR_SIZE];
    size_t len;

    if (size == 0)
        return 0;
    r.body.max = data[0];
    rest = wb__from(rest, 1);
    while (
        !r.final && wb__cut(&rest, '\n', &line) && wb__received_line(&r, line))
        ;
    while (
        r.final && wb__cut(&rest, '\n', &line) && wb__received_body(&r, line))
        ;
    must(r.header_bytes <= WB__RECEIVED_HEADER_BYTES || r.error != NULL);
    must(!r.final || (r.status >= 200 && r.status <= 999));
    must(r.body.len <= data[0]);
    must(wb__received_retry_after_ms(&r, 1000) >= 0);
    wb__received_mask(&r, WB_LIT("secret"));
    len = wb__received_error(&r, error);
    must(len < sizeof(error) && wb__printable((struct wb_slice){error, len}));
    must(memmem(error, len, "secret", 6) == NULL);
    wb__received_clear(&r);
    wb__buf_fini(&r.body);
    wb__buf_fini(&r.location);
    return 0;
}
