/* policy.c - which requests are guarded, and what the status of a response does
 * to its key: the options of the gateway as tables. Pure functions.
 *
 *  1. Methods and paths that are not known for certain are guarded, or refused;
 *     they never pass because of their spelling. (G-2)
 *  2. One table has the action of each status. (G-6) */
#include "gate/gate_internal.h"

/* ---- methods and paths -------------------------------------------------- */

static bool
list_has(struct wb_slice list, struct wb_slice wanted)
{
    struct wb_slice item;

    while (wb__cut(&list, ',', &item))
        if (wb__eq(wb__trim(item), wanted))
            return true;
    return false;
}

/* Methods of which it is known what they do. */
static bool
is_known(struct wb_slice method)
{
    static const struct wb_slice known[] = {{"GET", 3}, {"HEAD", 4},
        {"OPTIONS", 7}, {"TRACE", 5}, {"PUT", 3}, {"DELETE", 6}, {"POST", 4},
        {"PATCH", 5}, {"PROPFIND", 8}, {"REPORT", 6}, {"SEARCH", 6},
        {"QUERY", 5}};

    for (size_t i = 0; i < WB_COUNT(known); i++)
        if (wb__eq(method, known[i]))
            return true;
    return false;
}

static bool
has_lower_case(struct wb_slice method)
{
    for (size_t i = 0; i < method.len; i++)
        if (method.ptr[i] >= 'a' && method.ptr[i] <= 'z')
            return true;
    return false;
}

/* Could the server behind read this path as another one? */
static bool
is_ambiguous(struct wb_slice path)
{
    struct wb_slice rest = wb__from(path, path.len > 0), segment;

    if (path.len == 0 || path.ptr[0] != '/')
        return true;
    for (size_t i = 0; i < path.len; i++)
        if (strchr("%;\\", path.ptr[i]) != NULL ||
            (i > 0 && path.ptr[i] == '/' && path.ptr[i - 1] == '/'))
            return true;
    while (wb__cut(&rest, '/', &segment))
        if (wb__eq(segment, WB_LIT(".")) || wb__eq(segment, WB_LIT("..")))
            return true;
    return false;
}

/* Is the path one of these, or below one? Many routers ignore case. */
static bool
is_below(struct wb_slice list, struct wb_slice path)
{
    struct wb_slice item;

    while (wb__cut(&list, ',', &item)) {
        item = wb__trim(item);
        while (item.len > 0 && item.ptr[item.len - 1] == '/')
            item.len--;
        if (path.len >= item.len &&
            wb__eq_nocase((struct wb_slice){path.ptr, item.len}, item) &&
            (path.len == item.len || path.ptr[item.len] == '/'))
            return true;
    }
    return false;
}

enum wb__guard
wb__policy_guard(
    const struct wb__policy *policy, const struct wb__http_head *head)
{
    if (!list_has(policy->methods, head->method)) {
        if (is_known(head->method))
            return WB__GUARD_PASS;
        if (has_lower_case(head->method))
            return WB__GUARD_REFUSE;
    }
    if (policy->paths.len > 0 && !is_below(policy->paths, head->path) &&
        !is_ambiguous(head->path))
        return WB__GUARD_PASS;
    return WB__GUARD_KEY;
}

static enum wb_status
check_methods(struct wb_slice list, struct wb_err *err)
{
    static const struct wb_slice never[] = {
        {"GET", 3}, {"HEAD", 4}, {"OPTIONS", 7}, {"TRACE", 5}, {"CONNECT", 7}};
    struct wb_slice item;

    while (wb__cut(&list, ',', &item)) {
        bool ok = false;

        item = wb__trim(item);
        ok = item.len > 0 && !has_lower_case(item);
        for (size_t i = 0; ok && i < item.len; i++)
            ok = wb__is_tchar((unsigned char)item.ptr[i]);
        for (size_t i = 0; ok && i < WB_COUNT(never); i++)
            ok = !wb__eq(item, never[i]);
        if (!ok)
            return wb__fail(err, WB_INVALID, 0,
                "\"%.*s\" is not a method that can be guarded; write a list "
                "such as POST,PATCH,PUT",
                WB_SHOW(item));
    }
    return WB_OK;
}

static enum wb_status
check_paths(struct wb_slice list, struct wb_err *err)
{
    struct wb_slice item;

    while (wb__cut(&list, ',', &item))
        if (is_ambiguous(wb__trim(item)))
            return wb__fail(err, WB_INVALID, 0,
                "\"%.*s\" is not a path that can be compared; write /a/b, "
                "without %%, ;, // and ..",
                WB_SHOW(item));
    return WB_OK;
}

/* ---- statuses ----------------------------------------------------------- */

/* N, N-M or Nxx. */
static bool
read_range(struct wb_slice item, uint64_t *from, uint64_t *to)
{
    struct wb_slice first;

    if (item.len == 3 && item.ptr[1] == 'x' && item.ptr[2] == 'x') {
        *from = (uint64_t)(item.ptr[0] - '0') * 100;
        *to = *from + 99;
    } else {
        bool range = item.len > 0 && memchr(item.ptr, '-', item.len) != NULL;

        if (!wb__cut(&item, '-', &first) ||
            !wb__parse_u64(wb__trim(first), 599, from) ||
            !wb__parse_u64(wb__trim(range ? item : first), 599, to))
            return false;
    }
    return *from >= 200 && *from <= *to && *to <= 599;
}

static enum wb_status
set_statuses(struct wb__policy *policy, bool *set, struct wb_slice list,
    enum wb__status_action action, struct wb_err *err)
{
    struct wb_slice item;
    uint64_t from = 0, to = 0;

    while (wb__cut(&list, ',', &item)) {
        if (!read_range(wb__trim(item), &from, &to))
            return wb__fail(err, WB_INVALID, 0,
                "\"%.*s\" is not a status or a range of 200 to 599; write a "
                "list such as 409,423,500-599 or 4xx",
                WB_SHOW(item));
        for (; from <= to; from++) {
            if (set[from] && policy->action[from] != action)
                return wb__fail(err, WB_INVALID, 0,
                    "status %d is in two lists; give it to one of --free, "
                    "--keep and --unknown",
                    (int)from);
            set[from] = true;
            policy->action[from] = (unsigned char)action;
        }
    }
    return WB_OK;
}

static enum wb_status
read_statuses(struct wb__policy *policy, const struct wb__gate_opts *o,
    struct wb_err *err)
{
    bool set[600] = {false};
    enum wb_status rc;

    for (int i = 500; i < 600; i++)
        policy->action[i] = WB__STATUS_FREE;
    policy->action[408] = policy->action[425] = policy->action[429] =
        WB__STATUS_FREE;
    policy->action[502] = policy->action[504] = WB__STATUS_UNKNOWN;
    rc = set_statuses(policy, set, o->keep, WB__STATUS_KEEP, err);
    if (rc == WB_OK)
        rc = set_statuses(policy, set, o->release, WB__STATUS_FREE, err);
    if (rc == WB_OK)
        rc = set_statuses(policy, set, o->unknown, WB__STATUS_UNKNOWN, err);
    return rc;
}

/* ---- all options -------------------------------------------------------- */

static enum wb_status
check_header(struct wb_slice name, const char *what, struct wb_err *err)
{
    if (wb__rule_identity_header_ok(name))
        return WB_OK;
    return wb__fail(err, WB_INVALID, 0,
        "\"%.*s\" cannot %s; name a header that is for this alone",
        WB_SHOW(name), what);
}

enum wb_status
wb__policy_read(struct wb__policy *policy, const struct wb__gate_opts *o,
    struct wb_err *err)
{
    static const struct wb_slice key = {"Idempotency-Key", 15};
    enum wb_status rc;

    *policy = (struct wb__policy){
        .methods = o->methods.len > 0 ? o->methods : WB_LIT("POST,PATCH"),
        .paths = o->paths,
        .key_header = o->key_header.len > 0 ? o->key_header : key};
    rc = check_methods(policy->methods, err);
    if (rc == WB_OK)
        rc = check_paths(policy->paths, err);
    if (rc == WB_OK)
        rc = read_statuses(policy, o, err);
    if (rc == WB_OK && (wb__eq_nocase(o->identity_header, policy->key_header) ||
                           wb__eq_nocase(o->identity_header, key)))
        rc = wb__fail(err, WB_INVALID, 0,
            "\"%.*s\" cannot identify clients: it holds the key",
            WB_SHOW(o->identity_header));
    if (rc == WB_OK && !wb__eq_nocase(policy->key_header, key))
        rc = check_header(policy->key_header, "hold the key", err);
    if (rc == WB_OK)
        rc = check_header(o->identity_header, "identify clients", err);
    if (rc == WB_OK)
        rc = wb__identity_check(o, err);
    return rc == WB_OK
               ? wb__fingerprint_read(&policy->fingerprint, o->fingerprint, err)
               : rc;
}
