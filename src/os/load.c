/* load.c - libraries that are loaded when they are first used.
 *
 * (1) A table is filled whole or not at all, and never emptied: a library that
 *     was loaded stays. */
#include <dlfcn.h>

#include "os/os.h"

static pthread_mutex_t loading = PTHREAD_MUTEX_INITIALIZER;

static enum wb_status
cannot(const struct wb__library *lib, struct wb_err *err)
{
    const char *why = dlerror();

    return wb__fail(err, WB_UNAVAILABLE, 0,
        "%s cannot be loaded (%s); install it", lib->soname,
        why != NULL ? why : "no reason given");
}

/* Functions and data are told apart by ISO C, and are one to POSIX. */
static enum wb_status
find_all(const struct wb__library *lib, void *handle, struct wb_err *err)
{
    void *found[WB__LIBRARY_MOST];

    WB_ASSERT(lib->n <= WB__LIBRARY_MOST);
    for (size_t i = 0; i < lib->n; i++) {
        found[i] = dlsym(handle, lib->names[i]);
        if (found[i] == NULL)
            return cannot(lib, err);
    }
    memcpy(lib->functions, found, lib->n * sizeof(found[0]));
    return WB_OK;
}

enum wb_status
wb__library_load(struct wb__library *lib, struct wb_err *err)
{
    enum wb_status rc = WB_OK;
    void *handle;

    WB_ASSERT(pthread_mutex_lock(&loading) == 0);
    if (!lib->loaded) {
        handle = dlopen(lib->soname, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        rc = handle != NULL ? find_all(lib, handle, err) : cannot(lib, err);
        if (handle != NULL && rc != WB_OK)
            (void)dlclose(handle);
        lib->loaded = rc == WB_OK;
    }
    WB_ASSERT(pthread_mutex_unlock(&loading) == 0);
    return rc;
}
