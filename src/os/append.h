/* append.h - whole lines at the end of a file that others may read, append to,
 * rename or remove meanwhile. */
#ifndef WB_SRC_OS_APPEND_H
#define WB_SRC_OS_APPEND_H

#include "base/base.h"

/*
 * Append one line (its newline included) to a regular file, durably. An empty
 * line only makes sure that the file is there and can be written.
 *
 * Guarantees  The file is created 0600, never through a link. The line goes
 *             out in one write; what a failed or short write left is cut off
 *             again. A torn line of somebody who lost power is ended first,
 *             so that it spoils no other.
 * Returns     OK: it is on the disk. REFUSED, NOTFOUND, UNAVAILABLE, FULL:
 *             nothing was added. IO: unknown whether it will be there.
 * Blocks      while another process of ours appends, and for the fsync.
 */
WB_MUST_USE enum wb_status wb__append_line(
    const char *path, struct wb_slice line, struct wb_err *err);

#endif /* WB_SRC_OS_APPEND_H */
