/* llhttp.c - the results of llhttp on the lines of stdin, as lines
 * `mode name messages status`; status 1 is a refusal. */
#include <llhttp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int messages;

static int
on_complete(llhttp_t *parser)
{
    (void)parser;
    messages++;
    return 0;
}

/* Decode hex digits in place; returns the number of bytes. */
static size_t
unhex(char *hex)
{
    size_t n = 0;
    unsigned byte;

    for (; sscanf(hex + 2 * n, "%2x", &byte) == 1; n++)
        hex[n] = (char)byte;
    return n;
}

int
main(void)
{
    static char line[1 << 20];
    llhttp_settings_t settings;

    llhttp_settings_init(&settings);
    settings.on_message_complete = on_complete;
    while (fgets(line, sizeof(line), stdin) != NULL) {
        char mode[16], name[64];
        int at = 0;
        llhttp_t parser;
        llhttp_errno_t rc;
        size_t len;

        if (sscanf(line, "%15s %63s %*d %*d %n", mode, name, &at) != 2)
            return 1;
        len = unhex(line + at);
        messages = 0;
        llhttp_init(
            &parser, mode[2] == 'q' ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
        rc = llhttp_execute(&parser, line + at, len);
        printf("%s %s %d %d\n", mode, name, messages,
            rc != HPE_OK && rc != HPE_PAUSED_UPGRADE);
    }
    return 0;
}
