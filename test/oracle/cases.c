/* cases.c - the tables of http_cases.h and our results, as lines
 * `mode name messages status hex`, for comparison with other parsers. */
#include <stdio.h>

#include "../http_cases.h"
#include "../http_transcript.h"

static const struct given {
    const char *mode, *name;
    struct wb_slice bytes;
} cases[] = {
#define CASE(name, verdict, bytes) \
    {"request", #name, {bytes, sizeof(bytes) - 1}},
    HTTP_REQUEST_CASES(CASE)
#undef CASE
#define CASE(name, verdict, bytes) \
    {"response", #name, {bytes, sizeof(bytes) - 1}},
        HTTP_RESPONSE_CASES(CASE)
#undef CASE
};

int
main(void)
{
    const struct wb__http_limits limits = {0};

    for (size_t i = 0; i < WB_COUNT(cases); i++) {
        const struct given *g = &cases[i];
        struct transcript t;

        transcript_init(&t, wb_env_system(),
            g->mode[2] == 'q' ? WB__HTTP_REQUESTS : WB__HTTP_RESPONSES,
            &limits);
        transcript_feed(&t, g->bytes);
        printf("%s %s %d %d ", g->mode, g->name, t.messages, t.status);
        for (size_t at = 0; at < g->bytes.len; at++)
            printf("%02x", (unsigned char)g->bytes.ptr[at]);
        printf("\n");
        transcript_fini(&t);
    }
    return 0;
}
