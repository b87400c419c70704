/* curl.h - libcurl, loaded when it is first used: it and what it brings, some
 * thirty libraries, take longer to load than `waybill send` takes for the rest.
 *
 * For the files that call libcurl, after which they look as if they were linked
 * with it. A function that is not in the table does not link. */
#ifndef WB_SRC_TRANSPORT_CURL_H
#define WB_SRC_TRANSPORT_CURL_H

#include <curl/curl.h>

#include "os/os.h"

/* clang-format off */
#define WB__CURL_MAP(X)         \
    X(curl_easy_cleanup)        \
    X(curl_easy_getinfo)        \
    X(curl_easy_init)           \
    X(curl_easy_setopt)         \
    X(curl_easy_strerror)       \
    X(curl_global_cleanup)      \
    X(curl_global_init)         \
    X(curl_multi_add_handle)    \
    X(curl_multi_cleanup)       \
    X(curl_multi_info_read)     \
    X(curl_multi_init)          \
    X(curl_multi_remove_handle) \
    X(curl_multi_setopt)        \
    X(curl_multi_socket_action) \
    X(curl_share_cleanup)       \
    X(curl_share_init)          \
    X(curl_share_setopt)        \
    X(curl_url)                 \
    X(curl_url_cleanup)         \
    X(curl_url_set)             \
    X(curl_url_strerror)
/* clang-format on */

struct wb__curl {
#define X(name) __typeof__(&name) name;
    WB__CURL_MAP(X)
#undef X
};
extern struct wb__curl wb__curl;

WB_MUST_USE enum wb_status wb__curl_load(struct wb_err *err);

/* These two stay functions, under names of ours: curl.h has macros around them
 * that check the type of the argument. */
extern CURLcode(curl_easy_setopt)(CURL *easy, CURLoption option, ...) __asm__(
    "wb__curl_setopt");
extern CURLcode(curl_easy_getinfo)(CURL *easy, CURLINFO info, ...) __asm__(
    "wb__curl_getinfo");

#undef curl_multi_setopt
#undef curl_share_setopt
#define curl_easy_cleanup        wb__curl.curl_easy_cleanup
#define curl_easy_init           wb__curl.curl_easy_init
#define curl_easy_strerror       wb__curl.curl_easy_strerror
#define curl_global_cleanup      wb__curl.curl_global_cleanup
#define curl_global_init         wb__curl.curl_global_init
#define curl_multi_add_handle    wb__curl.curl_multi_add_handle
#define curl_multi_cleanup       wb__curl.curl_multi_cleanup
#define curl_multi_info_read     wb__curl.curl_multi_info_read
#define curl_multi_init          wb__curl.curl_multi_init
#define curl_multi_remove_handle wb__curl.curl_multi_remove_handle
#define curl_multi_setopt        wb__curl.curl_multi_setopt
#define curl_multi_socket_action wb__curl.curl_multi_socket_action
#define curl_share_cleanup       wb__curl.curl_share_cleanup
#define curl_share_init          wb__curl.curl_share_init
#define curl_share_setopt        wb__curl.curl_share_setopt
#define curl_url                 wb__curl.curl_url
#define curl_url_cleanup         wb__curl.curl_url_cleanup
#define curl_url_set             wb__curl.curl_url_set
#define curl_url_strerror        wb__curl.curl_url_strerror

#endif /* WB_SRC_TRANSPORT_CURL_H */
