/* curl.c - libcurl's functions, found when they are first needed. */
#include "transport/curl.h"

#include <stdarg.h>

#undef curl_easy_setopt
#undef curl_easy_getinfo

struct wb__curl wb__curl;

enum wb_status
wb__curl_load(struct wb_err *err)
{
    static const char *const names[] = {
#define X(name) #name,
        WB__CURL_MAP(X)
#undef X
    };
    static struct wb__library lib = {.soname = WB_LIBCURL,
        .names = names,
        .n = WB_COUNT(names),
        .functions = &wb__curl};

    return wb__library_load(&lib, err);
}

/* The number of an option tells the type of its value. */
CURLcode
curl_easy_setopt(CURL *easy, CURLoption option, ...)
{
    int type = (int)option - (int)option % 10000;
    va_list args;
    CURLcode code;

    va_start(args, option);
    if (type == CURLOPTTYPE_LONG)
        code = wb__curl.curl_easy_setopt(easy, option, va_arg(args, long));
    else if (type == CURLOPTTYPE_OFF_T)
        code =
            wb__curl.curl_easy_setopt(easy, option, va_arg(args, curl_off_t));
    else
        code = wb__curl.curl_easy_setopt(easy, option, va_arg(args, void *));
    va_end(args);
    return code;
}

/* Always where to put it. */
CURLcode
curl_easy_getinfo(CURL *easy, CURLINFO info, ...)
{
    va_list args;
    CURLcode code;

    va_start(args, info);
    code = wb__curl.curl_easy_getinfo(easy, info, va_arg(args, void *));
    va_end(args);
    return code;
}
