/* fd.h - descriptors that are closed on exec. */
#ifndef WB_SRC_OS_FD_H
#define WB_SRC_OS_FD_H

#include "base/base.h"

/* socket(2), closed on exec; -1 if it fails. */
WB_MUST_USE int wb__fd_socket(int family, int type, int protocol);

/* A nameless file with these bytes, at its beginning; closed on exec. -1 with
 * errno if it fails. */
WB_MUST_USE int wb__fd_of_bytes(struct wb_slice bytes);

WB_MUST_USE bool wb__fd_is_open(int fd);
void wb__fd_close(int fd); /* -1 is fine */

#endif /* WB_SRC_OS_FD_H */
