/* waybill/config.h - routes and settings read from a Lua file.
 *
 *     route "mail.sent" { url = "https://example.org/hook",
 *                         secret = env "HOOK_SECRET" }
 *
 * doc/CONFIG.md lists every name. All is checked while the file is read. */
#ifndef WB_CONFIG_H
#define WB_CONFIG_H

#include "waybill/relay.h"

#ifdef __cplusplus
extern "C" {
#endif

struct wb_config;

/*
 * Read a configuration and open its transports on loop. With loop NULL the
 * configuration is only checked: no transport is opened (routes have none), and
 * secrets may be absent. That is for programs that send or claim messages
 * without delivering them.
 *
 * Guarantees  Unknown names, wrong types, values out of range and secrets that
 *             are absent and in no route are errors: "FILE:LINE: problem; fix".
 *             A route whose secret, folder, command or certificate is not there
 *             has no transport, and its member failed says why. The file's Lua
 *             runs without os, io, debug and load, and with limits on steps,
 *             CPU time and memory.
 * Gives       *out: routes and hooks live until wb_config_close(), which comes
 *             after wb_relay_free(). Untouched unless OK.
 * Returns     OK, INVALID, NOTFOUND (no such file), UNAVAILABLE (a secret),
 *             TOOBIG (over 1 MiB), NOMEM, IO.
 * Threads     the loop's. Since 0.1
 */
WB_MUST_USE enum wb_status wb_config_open(struct wb_config **out,
    const char *path, const struct wb_env *env, struct uv_loop_s *loop,
    struct wb_err *err);
void wb_config_close(struct wb_config *config); /* NULL is fine */

/* Routes in the order of the file. Borrowed. */
const struct wb_route *wb_config_routes(
    const struct wb_config *config, size_t *n);
/* Limits and retentions for wb_outbox_open(). */
const struct wb_outbox_opts *wb_config_outbox(const struct wb_config *config);
int64_t wb_config_lease_ms(const struct wb_config *config); /* 0: default */

/* Call the `ready` function. False, and the reason in *err, if it does not
 * return true or fails; true if there is no such function. Fits
 * wb_relay_opts.ready with the config as ctx. */
bool wb_config_ready(void *config, struct wb_err *err);

#ifdef __cplusplus
}
#endif
#endif /* WB_CONFIG_H */
