/* validate.c - which addresses, URLs and headers the http transport accepts.
 *
 * (1) Which addresses are public follows the IANA special-purpose registries
 *     (RFC 6890 and its updates, as of 2025). Checked is the address connected
 *     to, never the name or how it is written (S1).
 * (2) A URL that passes cannot end a line, add a header or name another host
 *     than a reader sees (S2, S3). */

#include "transport/http.h"

/* ---- addresses --------------------------------------------------------- */

struct net4 {
    uint32_t net;
    int bits;
};

#define IP4(a, b, c, d) \
    ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (d))

static const struct net4 closed4[] = {
    {IP4(0, 0, 0, 0), 8},       /* this network */
    {IP4(10, 0, 0, 0), 8},      /* private */
    {IP4(100, 64, 0, 0), 10},   /* carrier-grade NAT */
    {IP4(127, 0, 0, 0), 8},     /* loopback */
    {IP4(169, 254, 0, 0), 16},  /* link-local, cloud metadata */
    {IP4(172, 16, 0, 0), 12},   /* private */
    {IP4(192, 0, 0, 0), 24},    /* protocol assignments */
    {IP4(192, 0, 2, 0), 24},    /* documentation */
    {IP4(192, 88, 99, 0), 24},  /* 6to4 relay anycast */
    {IP4(192, 168, 0, 0), 16},  /* private */
    {IP4(198, 18, 0, 0), 15},   /* benchmarking */
    {IP4(198, 51, 100, 0), 24}, /* documentation */
    {IP4(203, 0, 113, 0), 24},  /* documentation */
    {IP4(224, 0, 0, 0), 4},     /* multicast */
    {IP4(240, 0, 0, 0), 4},     /* reserved, broadcast */
};

/* Within 2000::/3. All else is not public: unspecified, loopback, mapped,
 * NAT64, discard, SRv6, ULA, link-local, multicast. */
static const struct net6 {
    uint64_t net; /* the upper half */
    int bits;
} closed6[] = {
    {UINT64_C(0x2001000000000000), 23}, /* protocols: Teredo, ORCHID, bench */
    {UINT64_C(0x20010db800000000), 32}, /* documentation */
    {UINT64_C(0x2002000000000000), 16}, /* 6to4 */
    {UINT64_C(0x3fff000000000000), 20}, /* documentation */
};

static bool
public4(const uint8_t a[4])
{
    uint32_t addr = IP4(a[0], a[1], a[2], a[3]);

    for (size_t i = 0; i < WB_COUNT(closed4); i++)
        if ((addr ^ closed4[i].net) >> (32 - closed4[i].bits) == 0)
            return false;
    return true;
}

static bool
public6(const uint8_t a[16])
{
    uint64_t addr = 0;

    for (int i = 0; i < 8; i++)
        addr = addr << 8 | a[i];
    if (addr >> 61 != 1)
        return false;
    for (size_t i = 0; i < WB_COUNT(closed6); i++)
        if ((addr ^ closed6[i].net) >> (64 - closed6[i].bits) == 0)
            return false;
    return true;
}

/* The bytes of the address and their number; 0 for other families. */
static size_t
addr_bytes(const struct sockaddr *addr, uint8_t out[16])
{
    if (addr->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)addr;

        memcpy(out, &in->sin_addr, 4);
        return 4;
    }
    if (addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const void *)addr;

        memcpy(out, &in->sin6_addr, 16);
        return 16;
    }
    return 0;
}

bool
wb__address_public(const struct sockaddr *addr)
{
    uint8_t a[16];
    size_t len = addr_bytes(addr, a);

    return (len == 4 && public4(a)) || (len == 16 && public6(a));
}

bool
wb__address_text_public(const char *text)
{
    struct sockaddr_storage addr;

    if (text == NULL ||
        (uv_ip4_addr(text, 0, (struct sockaddr_in *)&addr) != 0 &&
            uv_ip6_addr(text, 0, (struct sockaddr_in6 *)&addr) != 0))
        return false;
    return wb__address_public((struct sockaddr *)&addr) &&
           !wb__address_own((struct sockaddr *)&addr);
}

bool
wb__address_own(const struct sockaddr *addr)
{
    uv_interface_address_t *list;
    uint8_t a[16], b[16];
    size_t len = addr_bytes(addr, a);
    bool own = false;
    int n;

    if (uv_interface_addresses(&list, &n) != 0)
        return true; /* not known: refuse */
    for (int i = 0; i < n && !own; i++)
        own = addr_bytes((const void *)&list[i].address, b) == len &&
              memcmp(a, b, len) == 0;
    uv_free_interface_addresses(list, n);
    return own;
}

/* ---- URLs, header names ------------------------------------------------ */

static size_t
scheme_len(struct wb_slice url)
{
    struct wb_slice colon = {url.ptr, url.len < 5 ? url.len : 5};

    return wb__eq_nocase(colon, WB_LIT("http:"))   ? 7
           : wb__eq_nocase(colon, WB_LIT("https")) ? 8
                                                   : 0;
}

size_t
wb__url_user_len(struct wb_slice url)
{
    size_t begin = scheme_len(url), len = 0;

    for (size_t i = begin; i < url.len && strchr("/?#", url.ptr[i]) == NULL;
         i++)
        if (url.ptr[i] == '@')
            len = i + 1 - begin;
    return len;
}

/* What is wrong with it, or NULL. */
static const char *
url_wrong(struct wb_slice url)
{
    size_t scheme = scheme_len(url), at = scheme;

    if (url.len > WB__URL_MAX)
        return "is longer than 8192 bytes";
    for (size_t i = 0; i < url.len; i++) {
        unsigned char c = (unsigned char)url.ptr[i];

        if (c <= 0x20 || c >= 0x7f || c == '\\')
            return "has a byte that must be percent-encoded";
    }
    if (scheme == 0 || url.len < scheme ||
        !wb__eq((struct wb_slice){url.ptr + scheme - 3, 3}, WB_LIT("://")))
        return "must begin with http:// or https://";
    if (wb__url_user_len(url) > 0)
        return "must not hold a user or password; use a header";
    while (at < url.len && strchr("/?#", url.ptr[at]) == NULL)
        at++;
    return at == scheme ? "has no host" : NULL;
}

enum wb_status
wb__url_check_syntax(struct wb_slice url, struct wb_err *err)
{
    const char *wrong = url_wrong(url);

    if (wrong != NULL)
        return wb__fail(err, WB_INVALID, 0, "the url %s", wrong);
    return WB_OK;
}

enum wb_status
wb__proxy_check_syntax(struct wb_slice proxy, struct wb_err *err)
{
    char text[WB__URL_MAX];
    size_t scheme = scheme_len(proxy), user = wb__url_user_len(proxy);
    struct wb_slice url = {text, proxy.len - user};
    const char *wrong = "is longer than 8192 bytes";

    if (proxy.len <= sizeof(text)) {
        memcpy(text, proxy.ptr, scheme);
        memcpy(text + scheme, proxy.ptr + scheme + user, url.len - scheme);
        wrong = url_wrong(url);
        for (size_t i = 0; i < user && wrong == NULL; i++)
            if (proxy.ptr[scheme + i] <= ' ' || proxy.ptr[scheme + i] == 0x7f)
                wrong = "has a byte that must be percent-encoded";
    }
    if (wrong != NULL)
        return wb__fail(err, WB_INVALID, 0, "the proxy %s", wrong);
    return WB_OK;
}

bool
wb__host_closed(const char *host)
{
    struct sockaddr_storage addr;
    char text[256];
    size_t len = strlen(host), skip = host[0] == '[';

    if (len >= sizeof(text))
        return false; /* no name of a host */
    memcpy(text, host + skip, len - skip + 1);
    len -= skip;
    while (len > 0 && strchr("].", text[len - 1]) != NULL)
        text[--len] = '\0';
    if (uv_ip4_addr(text, 0, (struct sockaddr_in *)&addr) == 0 ||
        uv_ip6_addr(text, 0, (struct sockaddr_in6 *)&addr) == 0)
        return !wb__address_text_public(text);
    return len >= 9 && wb__same_nocase(text + len - 9, "localhost", 9) &&
           (len == 9 || text[len - 10] == '.');
}

bool
wb__header_secret(struct wb_slice name)
{
    static const char *const pieces[] = {
        "auth", "cookie", "key", "token", "secret", "passw", "sign", "cred"};

    for (size_t i = 0; i < WB_COUNT(pieces); i++) {
        size_t len = strlen(pieces[i]);

        for (size_t at = 0; at + len <= name.len; at++)
            if (wb__same_nocase(name.ptr + at, pieces[i], len))
                return true;
    }
    return false;
}
