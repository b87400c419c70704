/* powercut_disk.h - the parts of a disk; see powercut_vfs.h. */
#ifndef WB_TEST_POWERCUT_DISK_H
#define WB_TEST_POWERCUT_DISK_H

#include "powercut_vfs.h"

enum {
    POWERCUT_REGIONS = 16
};

struct powercut_image {
    unsigned char *ptr;
    size_t len, cap;
};

/* A write or truncate since the last sync. */
struct powercut_change {
    bool truncate;
    size_t at, len;
    size_t bytes; /* where they begin in the inode's bytes */
};

struct powercut_inode {
    bool used;
    struct powercut_image durable, now;
    struct powercut_change *change;
    size_t n_changes, cap_changes;
    struct powercut_image bytes;
    unsigned opens;
    unsigned sync_errors;
    /* locks of the file: how many SHARED, and the holder of each other one */
    int shared;
    const void *reserved, *pending, *exclusive;
    /* shared memory: regions, and per lock -1 or how many share it */
    unsigned char *shm[POWERCUT_REGIONS];
    int n_shm, shm_lock[SQLITE_SHM_NLOCK];
};

/* Grow, filled with zeros, to at least len bytes. */
void powercut_image_grow(struct powercut_image *image, size_t len);
void powercut_image_put(
    struct powercut_image *image, size_t at, const void *ptr, size_t len);

/* Append to the unsynced changes, and to the contents that are read. */
void powercut_note_write(
    struct powercut_inode *inode, size_t at, const void *ptr, size_t len);
void powercut_note_truncate(struct powercut_inode *inode, size_t at);
/* The changes will never be durable; the contents that are read stay. */
void powercut_drop_changes(struct powercut_inode *inode);

void powercut_sync_file(struct powercut_inode *inode);
void powercut_sync_folder(struct powercut *disk);

/* Index of a name, which is added if it is missing. */
int powercut_name_of(struct powercut *disk, const char *path);
/* A new empty file under a name (-1: none); its index. */
int powercut_file_new(struct powercut *disk, int name);
void powercut_file_unlink(struct powercut *disk, int name);

#endif /* WB_TEST_POWERCUT_DISK_H */
