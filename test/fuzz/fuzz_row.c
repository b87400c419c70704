/* fuzz_row.c - a hostile database file: a valid one with some bytes changed, or
 * with rows that violate the constraints. Every call returns a status and does
 * not crash (S12). */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/base.h"
#include "waybill/outbox.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[32];
static char path[64], log_path[64], shm_path[64], lock_path[64];
static char *whole;
static size_t whole_len;

static void
clean(void)
{
    (void)unlink(path);
    (void)unlink(log_path);
    (void)unlink(shm_path);
    (void)unlink(lock_path);
}

static void
end(void)
{
    clean();
    (void)rmdir(folder);
    free(whole);
}

static struct wb_outbox *
box_open(void)
{
    struct wb_outbox *box = NULL;
    struct wb_outbox_opts opts = {.busy_ms = 1};

    return wb_outbox_open(&box, path, &opts, NULL) == WB_OK ? box : NULL;
}

static void
fill(struct wb_outbox *box)
{
    struct wb_claim claim = {.max = 2};
    struct wb_batch batch = {0};

    for (int i = 0; i < 6; i++) {
        char key[8] = {'k', (char)('0' + i)};
        struct wb_message m = {.kind = wb_slice(i % 2 ? "a" : "b"),
            .payload = wb_slice("{\"n\":1}"),
            .key = i < 2 ? wb_slice(key) : (struct wb_slice){0},
            .lane = i > 2 ? wb_slice("l") : (struct wb_slice){0}};

        WB_ASSERT(wb_outbox_enqueue(box, &m, NULL, NULL) == WB_OK);
    }
    WB_ASSERT(wb_outbox_claim(box, &claim, &batch, NULL) == WB_OK);
    wb_batch_free(&batch);
}

int
LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct wb_outbox *box;
    FILE *f;

    (void)argc;
    (void)argv;
    (void)snprintf(folder, sizeof(folder), "%s/fuzz_row_XXXXXX",
        access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    WB_ASSERT(mkdtemp(folder) != NULL);
    (void)snprintf(path, sizeof(path), "%s/x", folder);
    (void)snprintf(log_path, sizeof(log_path), "%s-wal", path);
    (void)snprintf(shm_path, sizeof(shm_path), "%s-shm", path);
    (void)snprintf(lock_path, sizeof(lock_path), "%s-lock", path);
    box = box_open();
    WB_ASSERT(box != NULL);
    fill(box);
    wb_outbox_close(box);
    f = fopen(path, "rb");
    whole = calloc(1, 1 << 20);
    WB_ASSERT(f != NULL && whole != NULL);
    whole_len = fread(whole, 1, 1 << 20, f);
    (void)fclose(f);
    (void)atexit(end);
    return 0;
}

/* Four bytes of input per change: the offset and the new byte. */
static void
write_changed(const uint8_t *data, size_t size)
{
    char *copy = malloc(whole_len);
    FILE *f = fopen(path, "wb");

    WB_ASSERT(copy != NULL && f != NULL);
    memcpy(copy, whole, whole_len);
    for (; size >= 4; data += 4, size -= 4)
        copy[(data[0] | data[1] << 8U | data[2] << 16U) % whole_len] =
            (char)data[3];
    WB_ASSERT(fwrite(copy, 1, whole_len, f) == whole_len);
    (void)fclose(f);
    free(copy);
}

/* Rows whose columns have values and types from the input. */
static void
write_rows(const uint8_t *data, size_t size)
{
    static const char *const columns[] = {"id", "kind", "status", "due_ms",
        "created_ms", "attempts", "token", "claimed_ms", "expires_ms", "scope",
        "key", "lane", "keep", "hash", "reason", "last_error", "content_type",
        "headers", "payload"};
    sqlite3 *db = NULL;

    write_changed(NULL, 0);
    (void)sqlite3_open(path, &db);
    (void)sqlite3_exec(
        db, "PRAGMA ignore_check_constraints=ON", NULL, NULL, NULL);
    while (size >= 3) {
        size_t len = data[2] % 64U;
        sqlite3_stmt *q = NULL;
        char sql[128];

        if (len > size - 3)
            len = size - 3;
        (void)snprintf(sql, sizeof(sql),
            "UPDATE OR IGNORE waybill_outbox SET %s = ?1 WHERE seq = %d",
            columns[data[0] % WB_COUNT(columns)], 1 + data[1] % 6);
        if (sqlite3_prepare_v2(db, sql, -1, &q, NULL) == SQLITE_OK) {
            if (data[1] & 0x80)
                (void)sqlite3_bind_blob(
                    q, 1, data + 3, (int)len, SQLITE_TRANSIENT);
            else
                (void)sqlite3_bind_text(
                    q, 1, (const char *)data + 3, (int)len, SQLITE_TRANSIENT);
            (void)sqlite3_step(q);
        }
        (void)sqlite3_finalize(q);
        data += 3 + len;
        size -= 3 + len;
    }
    (void)sqlite3_close(db);
}

static enum wb_status
any_row(void *ctx, const struct wb_row *row)
{
    *(size_t *)ctx += row->payload.len + row->kind.len;
    return WB_OK;
}

static enum wb_status
any_kind(void *ctx, const struct wb_kind_counts *counts)
{
    *(size_t *)ctx += counts->kind.len;
    return WB_OK;
}

#define IGNORE(call) ((void)((call) == WB_OK))

static void
use(struct wb_outbox *box)
{
    struct wb_filter all = {.state = -1};
    struct wb_select some = {0};
    struct wb_selected did;
    struct wb_claim claim = {.max = 10};
    struct wb_batch batch = {0};
    struct wb_message m = {
        .kind = wb_slice("a"), .key = wb_slice("k0"), .lane = wb_slice("l")};
    struct wb_err err;
    size_t sum = 0;
    uint64_t n;

    IGNORE(wb_outbox_list(box, &all, any_row, &sum, &err));
    IGNORE(wb_outbox_count(box, any_kind, &sum, &err));
    IGNORE(wb_outbox_claim(box, &claim, &batch, &err));
    for (size_t i = 0; i < batch.len; i++) {
        struct wb_finish f = {.id = batch.row[i].id,
            .token = batch.row[i].token,
            .end = (enum wb_end)(i % 3),
            .outcome = WB_REJECTED};

        IGNORE(wb_outbox_show(box, wb_slice(f.id.text), any_row, &sum, &err));
        IGNORE(wb_outbox_finish(box, &f, 1, NULL, NULL, &err));
    }
    wb_batch_free(&batch);
    IGNORE(wb_outbox_enqueue(box, &m, NULL, &err));
    IGNORE(wb_outbox_reset_stale(box, 0, &n, &err));
    IGNORE(wb_outbox_redrive(box, &some, &did, any_kind, &sum, &err));
    IGNORE(wb_outbox_discard(box, &some, &did, any_kind, &sum, &err));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wb_outbox *box;

    if (size == 0)
        return 0;
    clean();
    if (data[0] & 1)
        write_rows(data + 1, size - 1);
    else
        write_changed(data + 1, size - 1);
    box = box_open();
    if (box != NULL)
        use(box);
    wb_outbox_close(box);
    return 0;
}
