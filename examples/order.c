#include <stdio.h>
#include <waybill/outbox.h>

int
main(void)
{
    struct wb_err err;
    struct wb_outbox *box = NULL;
    struct wb_accepted accepted;
    struct wb_message m = {
        .kind = wb_slice("order.placed"),
        .payload = wb_slice("{\"order\": 7}"),
        .key = wb_slice("order:7"),
    };
    int failed = 1;

    if (wb_outbox_open(&box, "shop.db", NULL, &err) != WB_OK ||
        wb_outbox_enqueue(box, &m, &accepted, &err) != WB_OK)
        fprintf(stderr, "%s\n", err.msg);
    else
        failed = puts(accepted.id.text) < 0;
    wb_outbox_close(box);
    return failed;
}
