/* fuzz_template.c - any text as a template, then a line of JSON: a template
 * that passes the check gives either an error or a URL of the same scheme,
 * host, segments and parameters. */
#include <stdlib.h>

#include "script/script.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t
count(struct wb_slice s, char c)
{
    size_t n = 0;

    for (size_t i = 0; i < s.len; i++)
        n += s.ptr[i] == c;
    return n;
}

static void
check_url(struct wb_slice text, struct wb_slice url)
{
    static const char kept[] = "/?&=#@";

    for (size_t i = 0; i < sizeof(kept) - 1; i++)
        if (count(text, kept[i]) != count(url, kept[i]))
            abort();
    for (size_t i = 0; i < url.len; i++)
        if (url.ptr[i] <= ' ' || url.ptr[i] > '~')
            abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wb_slice rest = {(const char *)data, size}, text;
    struct wb__buf url = {.env = wb_env_system(), .max = 8192};

    if (!wb__cut(&rest, '\n', &text) || wb__template_check(text, NULL) != WB_OK)
        return 0;
    if (wb__json_check(rest, "payload", NULL) == WB_OK &&
        wb__template_expand(text, rest, &url, NULL) == WB_OK)
        check_url(text, wb__buf_slice(&url));
    wb__buf_fini(&url);
    return 0;
}
