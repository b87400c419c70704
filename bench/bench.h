/* bench.h - what the measuring programs share.
 *
 * A program is called as `bench_x SUBJECT FOLDER [name=number...]`, measures
 * one subject once in an empty folder, and prints one line of name=number.
 * bench/run.py interleaves subjects and compares them. Any failure ends the
 * program: a partial measurement is worthless. */
#ifndef WB_BENCH_H
#define WB_BENCH_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "waybill/outbox.h"

struct bench_subject {
    const char *name;
    void (*run)(void);
};
/* All of main(); the list ends with NULL. */
int bench_main(int argc, char **argv, const struct bench_subject *subjects);
int64_t bench_opt(const char *name, int64_t standard);
/* FOLDER/name; static. */
const char *bench_path(const char *name);

WB_NORETURN void bench_die(const char *fmt, ...) WB_PRINTF(1, 2);
void bench_ok(enum wb_status rc, const struct wb_err *err, const char *what);
void bench_print(const char *name, double value);
/* Prints per_s, n (to relate counted instructions to), and per_cpu_s: by the
 * CPU time since bench_until(), which other load disturbs less. */
void bench_rate(int64_t n, double seconds);

double bench_now(void); /* seconds, monotonic */
double bench_cpu(void); /* CPU seconds of this process */
/* The time at which a loop of ms=... ends. */
double bench_until(void);
uint64_t bench_random(void); /* fast; good enough for ids only */
void bench_pin(int cpu);

/* 300 bytes of JSON. */
struct wb_slice bench_payload(void);
struct wb_message bench_message(void);

/* Run fn in threads=N threads; each gets its number. */
void bench_threads(int64_t n, void (*fn)(int64_t i));

/* ---- bare SQLite: what an application would write without us ----------- */

struct bare {
    sqlite3 *db;
    sqlite3_stmt *begin, *commit, *insert;
};
/* The tables of the library, WAL, FULL; the defaults for the rest. */
void bare_open(struct bare *b, const char *path);
void bare_close(struct bare *b);
sqlite3_stmt *bare_prepare(struct bare *b, const char *sql);
void bare_step(struct bare *b, sqlite3_stmt *q); /* no rows; then reset */
void bare_insert(struct bare *b, struct wb_slice payload, int64_t now_ms);

struct wb_outbox *bench_open(const char *path);
/* n messages, a thousand a commit. */
void bench_fill(struct wb_outbox *box, int64_t n);

#endif /* WB_BENCH_H */
