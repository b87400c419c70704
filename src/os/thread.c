/* thread.c - mutexes and condition variables. A call that fails here is our
 * own bug: a lock used before init, or freed while held. */
#include "os/os.h"

void
wb__mutex_init(struct wb__mutex *m)
{
    WB_ASSERT(pthread_mutex_init(&m->m, NULL) == 0);
}

void
wb__mutex_fini(struct wb__mutex *m)
{
    WB_ASSERT(pthread_mutex_destroy(&m->m) == 0);
}

void
wb__mutex_lock(struct wb__mutex *m)
{
    WB_ASSERT(pthread_mutex_lock(&m->m) == 0);
}

void
wb__mutex_unlock(struct wb__mutex *m)
{
    WB_ASSERT(pthread_mutex_unlock(&m->m) == 0);
}

void
wb__cond_init(struct wb__cond *c)
{
    WB_ASSERT(pthread_cond_init(&c->c, NULL) == 0);
}

void
wb__cond_fini(struct wb__cond *c)
{
    WB_ASSERT(pthread_cond_destroy(&c->c) == 0);
}

void
wb__cond_wait(struct wb__cond *c, struct wb__mutex *m)
{
    WB_ASSERT(pthread_cond_wait(&c->c, &m->m) == 0);
}

void
wb__cond_signal(struct wb__cond *c)
{
    WB_ASSERT(pthread_cond_signal(&c->c) == 0);
}
