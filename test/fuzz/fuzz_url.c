/* fuzz_url.c - URLs and header lines: an accepted one contains no line end and
 * no user name, and has a host. */
#include <stdlib.h>

#include "transport/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(bool ok)
{
    if (!ok)
        abort();
}

static void
url_holds(struct wb_slice url)
{
    char text[WB__URL_MAX + 1], *part = NULL;
    CURLU *u = curl_url();

    memcpy(text, url.ptr, url.len);
    text[url.len] = '\0';
    must(strlen(text) == url.len && strpbrk(text, " \r\n\t\\") == NULL);
    must(curl_url_set(u, CURLUPART_URL, text, 0) == CURLUE_OK);
    must(curl_url_get(u, CURLUPART_USER, &part, 0) == CURLUE_NO_USER);
    must(curl_url_get(u, CURLUPART_PASSWORD, &part, 0) == CURLUE_NO_PASSWORD);
    must(curl_url_get(u, CURLUPART_HOST, &part, 0) == CURLUE_OK);
    must(part[0] != '\0');
    curl_free(part);
    must(curl_url_get(u, CURLUPART_SCHEME, &part, 0) == CURLUE_OK);
    must(strcmp(part, "http") == 0 || strcmp(part, "https") == 0);
    curl_free(part);
    curl_url_cleanup(u);
}

static void
headers_hold(struct wb_slice lines)
{
    struct wb_slice name, value;
    int n = 0;

    for (; wb__headers_next(&lines, &name, &value); n++) {
        must(name.len > 0 && !wb__eq_nocase(name, WB_LIT("Host")));
        for (size_t i = 0; i < value.len; i++)
            must((unsigned char)value.ptr[i] >= 0x20 || value.ptr[i] == '\t');
    }
    must(n <= WB__HEADERS_MAX);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wb_slice s = {(const char *)data, size};
    struct wb_err err;

    if (wb__url_check(s, false, &err) == WB_OK)
        url_holds(s);
    if (wb__request_headers_check(s, &err) == WB_OK)
        headers_hold(s);
    return 0;
}
