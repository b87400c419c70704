/* usable.c - can this process use a command, or read a file? Asked before it is
 * needed, so that the problem is reported with its fix. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/os.h"

/* 0, or why the file cannot be executed. */
static int
why_not_executable(const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0 || access(path, X_OK) != 0)
        return errno;
    return S_ISREG(st.st_mode) ? 0 : EACCES;
}

enum wb_status
wb__command_check(const char *name, struct wb_err *err)
{
    const char *path = getenv("PATH");
    struct wb_slice rest = wb_slice(path != NULL ? path : "/bin:/usr/bin");
    struct wb_slice folder;
    char full[PATH_MAX];
    int sys = ENOENT, one, n;

    if (strchr(name, '/') != NULL)
        sys = why_not_executable(name);
    else
        while (sys != 0 && wb__cut(&rest, ':', &folder)) {
            n = snprintf(full, sizeof(full), "%.*s%s%s", (int)folder.len,
                folder.ptr, folder.len > 0 ? "/" : "", name);
            one = n > 0 && (size_t)n < sizeof(full) ? why_not_executable(full)
                                                    : ENAMETOOLONG;
            /* What is there and may not be executed says more. */
            if (one == 0 || one == EACCES || sys == ENOENT)
                sys = one == ENOTDIR ? ENOENT : one;
        }
    if (sys == 0)
        return WB_OK;
    return wb__fail(err, sys == ENOENT ? WB_NOTFOUND : WB_UNAVAILABLE, sys,
        sys == ENOENT && strchr(name, '/') == NULL
            ? "command \"%.200s\" is in no folder of PATH"
        : sys == ENOENT ? "command \"%.200s\" is not there"
                        : "command \"%.200s\" cannot be executed",
        name);
}

enum wb_status
wb__readable_check(const char *path, struct wb_err *err)
{
    if (access(path, R_OK) == 0)
        return WB_OK;
    return wb__fail(err, errno == ENOENT ? WB_NOTFOUND : WB_UNAVAILABLE, errno,
        "cannot read %.200s: %s", path, strerror(errno));
}
