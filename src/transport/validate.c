/* validate.c - URLs, and which headers are secret.
 *
 * (1) A URL that passes cannot end a line, add a header or name another host
 *     than a reader sees (S2, S3). */
#include <stdio.h>

#include "transport/http.h"

static const char *
authority_wrong(struct wb_slice rest)
{
    size_t n = 0;

    while (n < rest.len && strchr("/?#", rest.ptr[n]) == NULL)
        if (rest.ptr[n++] == '@')
            return "must not hold a user or password; use a header";
    return n == 0 ? "has no host" : NULL;
}

static const char *
spelling_wrong(struct wb_slice url)
{
    if (url.len > WB__URL_MAX)
        return "is longer than 8192 bytes";
    for (size_t i = 0; i < url.len; i++) {
        unsigned char c = (unsigned char)url.ptr[i];

        if (c <= 0x20 || c >= 0x7f || c == '\\')
            return "has a byte that must be percent-encoded";
    }
    return NULL;
}

static const char *
url_wrong(struct wb_slice url)
{
    struct wb_slice colon = {url.ptr, url.len < 5 ? url.len : 5};
    const char *wrong = spelling_wrong(url);
    size_t scheme = wb__eq_nocase(colon, WB_LIT("http:"))   ? 7
                    : wb__eq_nocase(colon, WB_LIT("https")) ? 8
                                                            : 0;

    if (wrong != NULL)
        return wrong;
    if (scheme == 0 || url.len < scheme ||
        !wb__eq((struct wb_slice){url.ptr + scheme - 3, 3}, WB_LIT("://")))
        return "must begin with http:// or https://";
    return authority_wrong(wb__from(url, scheme));
}

enum wb_status
wb__url_check_syntax(struct wb_slice url, struct wb_err *err)
{
    const char *wrong = url_wrong(url);

    if (wrong != NULL)
        return wb__fail(err, WB_INVALID, 0, "the url %s", wrong);
    return WB_OK;
}

static bool
has_nocase(struct wb_slice s, struct wb_slice piece)
{
    for (size_t i = 0; i + piece.len <= s.len; i++)
        if (wb__eq_nocase((struct wb_slice){s.ptr + i, piece.len}, piece))
            return true;
    return false;
}

bool
wb__header_secret(struct wb_slice name)
{
    static const char *const pieces[] = {
        "auth", "cookie", "key", "token", "secret", "passw", "sign", "cred"};

    for (size_t i = 0; i < WB_COUNT(pieces); i++)
        if (has_nocase(name, wb_slice(pieces[i])))
            return true;
    return false;
}
