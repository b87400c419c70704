/* key.c - an operation as bytes; no two operations have the same. */
#include "idem/memory.h"

static size_t
append(char *at, struct wb_slice s)
{
    if (s.len > 0)
        memcpy(at, s.ptr, s.len);
    return s.len;
}

void
wb__key_make(struct wb__key *key, const struct wb_idem_op *op)
{
    size_t n = WB__FRAME;

    key->bytes[0] = (char)op->identity.len;
    key->bytes[1] = (char)op->key.len;
    key->bytes[2] = (char)(op->scope.len & 0xff);
    key->bytes[3] = (char)(op->scope.len >> 8);
    n += append(key->bytes + n, op->identity);
    n += append(key->bytes + n, op->scope);
    n += append(key->bytes + n, op->key);
    key->len = n;
}

struct wb_idem_op
wb__key_op(const char *framed)
{
    const unsigned char *len = (const unsigned char *)framed;
    struct wb_idem_op op;

    op.identity = (struct wb_slice){framed + WB__FRAME, len[0]};
    op.scope = (struct wb_slice){
        op.identity.ptr + op.identity.len, len[2] | (size_t)len[3] << 8};
    op.key = (struct wb_slice){op.scope.ptr + op.scope.len, len[1]};
    return op;
}

size_t
wb__key_len(const char *framed)
{
    struct wb_idem_op op = wb__key_op(framed);

    return (size_t)(op.key.ptr - framed) + op.key.len;
}
