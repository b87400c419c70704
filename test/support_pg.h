/* support_pg.h - for support.c and outbox_fixture.c: see support.h. */
#ifndef WB_TEST_SUPPORT_PG_H
#define WB_TEST_SUPPORT_PG_H

#include <stddef.h>

void test_pg_begin(const char *server);
void test_pg_end(const char *server);
const char *test_pg_url(void);
/* A connection for the test itself; a statement on it, which must succeed. */
struct pg_conn *test_pg_connection(void);
void test_pg_run(struct pg_conn *conn, const char *sql);
/* First column of the first row; "NULL" if it is NULL or there is no row. */
void test_pg_text(const char *sql, char *out, size_t size);

/* Other connections block on the table between lock and unlock. */
void *test_pg_lock(const char *table);
void test_pg_unlock(void *lock);
/* Wait until so many sessions wait for a lock. */
void test_pg_wait_blocked(int sessions);

#endif /* WB_TEST_SUPPORT_PG_H */
