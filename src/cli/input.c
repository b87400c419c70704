/* input.c - standard input, within the payload limit. */
#include "cli/cli.h"

#define PAYLOAD_MAX (1024 * 1024) /* the library's own default */

volatile sig_atomic_t cli_stopped;

static void
on_stop(int number)
{
    cli_stopped = number;
}

/* No SA_RESTART: a read that waits must come back. A second SIGINT ends the
 * process as any other; not a second SIGTERM, timeout(1) sends two. */
void
cli_stop_on_signals(void)
{
    static const struct {
        int number, flags;
    } stops[] = {{SIGINT, SA_RESETHAND}, {SIGTERM, 0}};
    struct sigaction act = {.sa_handler = on_stop}, before;

    for (size_t i = 0; i < WB_COUNT(stops); i++) {
        act.sa_flags = stops[i].flags;
        (void)sigaction(stops[i].number, &act, &before);
        if (before.sa_handler == SIG_IGN)
            (void)sigaction(stops[i].number, &before, NULL);
    }
}

enum cli_exit
cli_read_stdin(struct cli *cli, char *into, size_t room, size_t *got)
{
    uv_buf_t buf = uv_buf_init(into, room > INT_MAX ? INT_MAX : (unsigned)room);
    uv_fs_t req;
    int n;

    do {
        n = (int)uv_fs_read(NULL, &req, STDIN_FILENO, &buf, 1, -1, NULL);
        uv_fs_req_cleanup(&req);
    } while (n == UV_EINTR && cli_stopped == 0);
    *got = n > 0 ? (size_t)n : 0;
    if (n >= 0 || n == UV_EINTR)
        return CLI_DONE;
    if (n == UV_EBADF)
        return cli_usage(cli, "standard input is closed; give the payload as "
                              "an argument or through a pipe");
    cli_complain(cli, WB_IO, "standard input: %s", uv_strerror(n));
    return CLI_FAILED;
}

size_t
cli_payload_max(const struct cli *cli)
{
    int64_t max = cli->config == NULL
                      ? 0
                      : wb_config_outbox(cli->config)->max_payload_bytes;

    return max > 0 ? (size_t)max : PAYLOAD_MAX;
}

enum cli_exit
cli_read_all(struct cli *cli, struct wb__buf *b)
{
    size_t max = cli_payload_max(cli), block = 64 * 1024, had = 0, got = 1;
    enum cli_exit code = CLI_DONE;
    struct wb_err err;
    char *room;

    *b = (struct wb__buf){.env = cli->env, .max = max + 2 * block};
    while (code == CLI_DONE && got > 0 && had <= max) {
        room = wb__buf_room(b, block);
        if (room == NULL) {
            (void)wb__nomem(&err, "the payload");
            return cli_fail(cli, &err);
        }
        code = cli_read_stdin(cli, room, block, &got);
        had += got;
        b->len = had;
    }
    return code;
}
