/* powercut_disk.c - durable and unsynced contents of a disk, and what a cut
 * leaves of them. See powercut_vfs.h (2), (3), (7). */
#include "powercut_disk.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "random.h"

/* ---- images ------------------------------------------------------------ */

static void
image_reserve(struct powercut_image *image, size_t cap)
{
    if (cap <= image->cap)
        return;
    image->cap = 2 * cap;
    image->ptr = realloc(image->ptr, image->cap);
    assert(image->ptr != NULL);
}

void
powercut_image_grow(struct powercut_image *image, size_t len)
{
    if (len <= image->len)
        return;
    image_reserve(image, len);
    memset(image->ptr + image->len, 0, len - image->len);
    image->len = len;
}

void
powercut_image_put(
    struct powercut_image *image, size_t at, const void *ptr, size_t len)
{
    powercut_image_grow(image, at);
    if (at + len > image->len) {
        image_reserve(image, at + len);
        image->len = at + len;
    }
    if (len > 0)
        memcpy(image->ptr + at, ptr, len);
}

static void
image_copy(struct powercut_image *to, const struct powercut_image *from)
{
    if (to == from)
        return;
    image_reserve(to, from->len);
    if (from->len > 0)
        memcpy(to->ptr, from->ptr, from->len);
    to->len = from->len;
}

/* ---- changes of a file ------------------------------------------------- */

static void
apply(struct powercut_image *image, const struct powercut_inode *from,
    const struct powercut_change *c)
{
    if (!c->truncate)
        powercut_image_put(image, c->at, from->bytes.ptr + c->bytes, c->len);
    else if (c->at < image->len)
        image->len = c->at;
    else
        powercut_image_grow(image, c->at);
}

static struct powercut_change *
change_add(struct powercut_inode *inode)
{
    if (inode->n_changes == inode->cap_changes) {
        inode->cap_changes = inode->cap_changes * 2 + 64;
        inode->change =
            realloc(inode->change, inode->cap_changes * sizeof(*inode->change));
        assert(inode->change != NULL);
    }
    return &inode->change[inode->n_changes++];
}

void
powercut_note_write(
    struct powercut_inode *inode, size_t at, const void *ptr, size_t len)
{
    struct powercut_change *c = change_add(inode);

    *c = (struct powercut_change){
        .at = at, .len = len, .bytes = inode->bytes.len};
    powercut_image_put(&inode->bytes, c->bytes, ptr, len);
    apply(&inode->now, inode, c);
}

void
powercut_note_truncate(struct powercut_inode *inode, size_t at)
{
    struct powercut_change *c = change_add(inode);

    *c = (struct powercut_change){.truncate = true, .at = at};
    apply(&inode->now, inode, c);
}

void
powercut_drop_changes(struct powercut_inode *inode)
{
    inode->n_changes = 0;
    inode->bytes.len = 0;
}

void
powercut_sync_file(struct powercut_inode *inode)
{
    for (size_t i = 0; i < inode->n_changes; i++)
        apply(&inode->durable, inode, &inode->change[i]);
    powercut_drop_changes(inode);
}

size_t
powercut_unsynced(const struct powercut *disk)
{
    size_t sum = 0;

    for (int i = 0; i < POWERCUT_FILES; i++)
        if (disk->file[i] != NULL && disk->file[i]->used)
            sum += disk->file[i]->bytes.len;
    return sum;
}

/* ---- names ------------------------------------------------------------- */

int
powercut_name_of(struct powercut *disk, const char *path)
{
    const char *slash = strrchr(path, '/');
    struct powercut_name *n;

    if (slash != NULL)
        path = slash + 1;
    for (int i = 0; i < disk->n_names; i++)
        if (strcmp(disk->name[i].text, path) == 0)
            return i;
    assert(disk->n_names < POWERCUT_NAMES && strlen(path) < sizeof(n->text));
    n = &disk->name[disk->n_names];
    (void)snprintf(n->text, sizeof(n->text), "%s", path);
    n->now = n->durable = -1;
    return disk->n_names++;
}

static void
move_add(struct powercut *disk, int name, int file)
{
    assert(disk->n_moves < POWERCUT_MOVES);
    disk->move[disk->n_moves++] =
        (struct powercut_move){.name = name, .file = file};
    disk->name[name].now = file;
}

static bool
file_wanted(const struct powercut *disk, int file)
{
    for (int i = 0; i < disk->n_names; i++)
        if (disk->name[i].now == file || disk->name[i].durable == file)
            return true;
    for (int i = 0; i < disk->n_moves; i++)
        if (disk->move[i].file == file)
            return true;
    return disk->file[file]->opens > 0;
}

/* A cut ends the locks and the shared memory of the file. */
static void
inode_forget(struct powercut_inode *inode)
{
    for (int i = 0; i < inode->n_shm; i++)
        free(inode->shm[i]);
    inode->n_shm = 0;
    memset(inode->shm_lock, 0, sizeof(inode->shm_lock));
    inode->opens = inode->sync_errors = 0;
    inode->shared = 0;
    inode->reserved = inode->pending = inode->exclusive = NULL;
}

/* The memory of the images is kept for the next file. */
static void
inode_reset(struct powercut_inode *inode)
{
    inode_forget(inode);
    powercut_drop_changes(inode);
    inode->durable.len = inode->now.len = 0;
    inode->used = false;
}

int
powercut_file_new(struct powercut *disk, int name)
{
    int i = 0;

    while (i < POWERCUT_FILES && disk->file[i] != NULL && disk->file[i]->used) {
        if (!file_wanted(disk, i))
            inode_reset(disk->file[i]);
        else
            i++;
    }
    assert(i < POWERCUT_FILES);
    if (disk->file[i] == NULL)
        disk->file[i] = calloc(1, sizeof(*disk->file[i]));
    assert(disk->file[i] != NULL);
    disk->file[i]->used = true;
    if (name >= 0)
        move_add(disk, name, i);
    return i;
}

void
powercut_file_unlink(struct powercut *disk, int name)
{
    move_add(disk, name, -1);
}

void
powercut_sync_folder(struct powercut *disk)
{
    for (int i = 0; i < disk->n_names; i++)
        disk->name[i].durable = disk->name[i].now;
    disk->n_moves = 0;
}

/* ---- the cut ----------------------------------------------------------- */

static void
tear(struct powercut *to, struct powercut_image *image,
    const struct powercut_inode *from, const struct powercut_change *c)
{
    size_t at = c->at, end = c->at + c->len;

    while (at < end) {
        size_t sector = at - at % POWERCUT_SECTOR;
        size_t until = sector + POWERCUT_SECTOR;

        if (until > end)
            until = end;
        if (random_next(&to->random) % 2 == 0)
            powercut_image_put(image, at,
                from->bytes.ptr + c->bytes + (at - c->at), until - at);
        at = until;
    }
}

static void
survive_torn(struct powercut *to, struct powercut_image *image,
    const struct powercut_inode *from, const struct powercut_change *c)
{
    switch (random_next(&to->random) % 4) {
    case 0:
        return;
    case 1:
        apply(image, from, c);
        return;
    default:
        if (!c->truncate)
            tear(to, image, from, c);
    }
}

static void
inode_cut(struct powercut *to, struct powercut_inode *inode,
    const struct powercut_inode *from, enum powercut_loss loss)
{
    size_t keep = from->n_changes;

    image_copy(&inode->durable, &from->durable);
    if (loss == POWERCUT_LOSE)
        keep = 0;
    if (loss == POWERCUT_PREFIX)
        keep = random_next(&to->random) % (from->n_changes + 1);
    for (size_t i = 0; i < keep; i++) {
        if (loss == POWERCUT_TEAR)
            survive_torn(to, &inode->durable, from, &from->change[i]);
        else
            apply(&inode->durable, from, &from->change[i]);
    }
    powercut_drop_changes(inode);
    inode_forget(inode);
    image_copy(&inode->now, &inode->durable);
    inode->used = true;
}

static void
names_cut(
    struct powercut *to, const struct powercut *from, enum powercut_loss loss)
{
    int keep = from->n_moves;

    memcpy(to->name, from->name, sizeof(to->name));
    to->n_names = from->n_names;
    if (loss == POWERCUT_LOSE)
        keep = 0;
    if (loss == POWERCUT_PREFIX)
        keep = (int)(random_next(&to->random) % ((uint64_t)from->n_moves + 1));
    for (int i = 0; i < keep; i++)
        if (loss != POWERCUT_TEAR || random_next(&to->random) % 2 == 0)
            to->name[from->move[i].name].durable = from->move[i].file;
    for (int i = 0; i < to->n_names; i++)
        to->name[i].now = to->name[i].durable;
    to->n_moves = 0;
}

static bool
has_name(const struct powercut *disk, int file)
{
    for (int i = 0; i < disk->n_names; i++)
        if (disk->name[i].durable == file)
            return true;
    return false;
}

static void
files_cut(
    struct powercut *to, const struct powercut *from, enum powercut_loss loss)
{
    for (int i = 0; i < POWERCUT_FILES; i++) {
        if (!has_name(to, i)) {
            if (to->file[i] != NULL)
                inode_reset(to->file[i]);
            continue;
        }
        if (to->file[i] == NULL)
            to->file[i] = calloc(1, sizeof(*to->file[i]));
        assert(to->file[i] != NULL);
        inode_cut(to, to->file[i], from->file[i], loss);
    }
}

void
powercut_cut(struct powercut *to, const struct powercut *from,
    enum powercut_loss loss, uint64_t seed)
{
    to->psow = from->psow;
    to->lying = from->lying;
    to->random = seed;
    names_cut(to, from, loss);
    files_cut(to, from, loss);
    to->fault = (struct powercut_fault){0};
    to->ops = to->syncs = 0;
    to->cut_at = to->kill_at = 0;
    to->gone = 0;
    to->dead = false;
}

void
powercut_wipe(struct powercut *disk, uint64_t seed)
{
    for (int i = 0; i < POWERCUT_FILES; i++)
        if (disk->file[i] != NULL)
            inode_reset(disk->file[i]);
    disk->n_names = disk->n_moves = 0;
    disk->fault = (struct powercut_fault){0};
    disk->ops = disk->syncs = 0;
    disk->cut_at = disk->kill_at = 0;
    disk->owner = disk->gone = 0;
    disk->dead = disk->lying = disk->quiet = false;
    disk->before = NULL;
    disk->random = seed;
}
