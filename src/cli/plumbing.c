/* plumbing.c - claim and finish, one by one, for workers in any language.
 *
 * (1) A late token is refused with exit 1 and `fenced`, and changes nothing.
 * (2) A claim takes from every kind; where the configuration has a route, its
 *     breaker and its attempts hold here too.
 * (3) Messages that could not be printed are released. */
#include "cli/cli.h"
#include "relay/relay.h"

#define SOURCES_MAX 4096 /* kinds at once; more are left to the next claim */

struct sources {
    struct cli *cli;
    struct wb__arena names;
    struct wb_source *list;
    size_t n;
};

static enum wb_status
add_source(void *ctx, const struct wb_kind_counts *k)
{
    struct sources *s = ctx;
    const struct wb_route *route = cli_route(s->cli, k->kind);
    struct wb_source *to = &s->list[s->n];

    if (s->n == SOURCES_MAX)
        return WB_OK;
    if (!wb__arena_dup(&s->names, k->kind, &to->kind))
        return WB_NOMEM;
    if (route != NULL) {
        to->scope = wb__route_scope(route);
        if (route->retry != NULL)
            to->max_attempts = route->retry->max_attempts;
    }
    s->n++;
    return WB_OK;
}

/* An empty list claims from every kind: without a message there is none, and
 * the outbox knows when the next one is due. */
static enum wb_status
find_sources(struct sources *s, struct wb_err *err)
{
    const struct wb_kind_counts one = {.kind = cli_slice(s->cli, "kind")};
    enum wb_status rc = WB_OK;

    s->list = wb__alloc(s->cli->env, SOURCES_MAX * sizeof(*s->list));
    if (s->list == NULL)
        return wb__nomem(err, "the kinds");
    if (one.kind.len > 0)
        rc = add_source(s, &one);
    else if (s->cli->n_routes > 0)
        rc = wb_outbox_kinds(s->cli->box, add_source, s, err);
    return rc == WB_NOMEM ? wb__nomem(err, "the kinds") : rc;
}

static json_t *
claimed_object(struct cli *cli, const struct wb_claimed *m)
{
    char token[24];
    json_t *object = json_pack("{s:s, s:I, s:s, s:o, s:i}", "id", m->id.text,
        "seq", (json_int_t)m->seq, "token", cli_u64(m->token, token), "kind",
        cli_str(m->kind), "attempts", (int)m->attempts);

    cli_add_content(cli, object, m->payload, m->content_type, m->headers);
    (void)json_object_update_new(object,
        json_pack("{s:o, s:o, s:I, s:o, s:I}", "key", cli_str(m->key), "lane",
            cli_str(m->lane), "created_ms", (json_int_t)m->created_ms,
            "expires_ms", cli_int(m->expires_ms), "lease_end_ms",
            (json_int_t)m->lease_end_ms));
    return object;
}

static enum cli_exit
print_claimed(struct cli *cli, const struct wb_batch *batch)
{
    static const char *const head[] = {
        "ID", "TOKEN", "KIND", "ATTEMPTS", "PAYLOAD"};
    enum cli_exit code = CLI_DONE;
    struct cli_table t;

    for (size_t i = 0; cli->json && code == CLI_DONE && i < batch->len; i++)
        code = cli_json(cli, claimed_object(cli, &batch->row[i]));
    if (cli->json)
        return code;
    cli_table_begin(cli, &t, head, WB_COUNT(head));
    for (size_t i = 0; i < batch->len; i++) {
        const struct wb_claimed *m = &batch->row[i];

        cli_cell(&t, "%s", m->id.text);
        cli_cell(&t, "%llu", (unsigned long long)m->token);
        cli_cell_slice(&t, m->kind);
        cli_cell(&t, "%u", m->attempts);
        cli_cell_slice(&t, m->payload);
        cli_row(&t);
    }
    return cli_table_end(cli, &t);
}

static json_t *
names_array(const struct wb_slice *name, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++)
        (void)json_array_append_new(list, cli_str(name[i]));
    return list;
}

static enum cli_exit
print_none(struct cli *cli, const struct wb_batch *batch)
{
    bool open = batch->reason == WB_NONE_BREAKER_OPEN;
    char when[32];

    cli_note(cli, "nothing to claim: %s; ask again %s",
        open                  ? "a breaker is open"
        : batch->n_paused > 0 ? "what is due is paused, see waybill status"
                              : "nothing is due",
        batch->next_due_ms != 0 ? cli_when(cli, batch->next_due_ms, when)
        : batch->n_paused > 0   ? "when it was resumed"
                                : "when something was sent");
    if (cli->json)
        (void)cli_json(
            cli, json_pack("{s:i, s:s, s:o, s:o, s:o}", "claimed", 0, "reason",
                     open ? "breaker-open" : "empty", "next_due_ms",
                     cli_int(batch->next_due_ms), "scopes",
                     names_array(batch->scopes, batch->n_scopes), "paused",
                     names_array(batch->paused, batch->n_paused)));
    return CLI_NOTHING;
}

/* The tokens were not printed: nothing else could finish these messages before
 * their leases end. */
static void
release_all(struct cli *cli, const struct wb_batch *batch)
{
    struct wb_finish *f = wb__alloc(cli->env, batch->len * sizeof(*f));
    enum wb_status rc = WB_NOMEM;

    for (size_t i = 0; f != NULL && i < batch->len; i++)
        f[i] = (struct wb_finish){.id = batch->row[i].id,
            .seq = batch->row[i].seq,
            .token = batch->row[i].token,
            .end = WB_RELEASE};
    if (f != NULL)
        rc = wb_outbox_finish(cli->box, f, batch->len, NULL, NULL, NULL);
    wb__free(cli->env, f);
    cli->unwritten = rc == WB_OK
                         ? "what was claimed is given back"
                         : "what was claimed comes back when its lease ends";
}

static enum cli_exit
run_claim(struct cli *cli)
{
    struct wb_claim claim = {.max = (uint32_t)cli_number(cli, "max", 1),
        .lease_ms = cli_ms(cli, "lease", 0)};
    struct wb_batch batch = {0};
    struct sources s = {.cli = cli, .names = {.env = cli->env}};
    struct wb_err err = {0};
    enum cli_exit code;
    enum wb_status rc;

    if (claim.lease_ms == 0 && cli->config != NULL)
        claim.lease_ms = wb_config_lease_ms(cli->config);
    rc = find_sources(&s, &err);
    claim.sources = s.n > 0 ? s.list : NULL;
    claim.n_sources = s.n;
    if (rc == WB_OK)
        rc = wb_outbox_claim(cli->box, &claim, &batch, &err);
    if (rc == WB_OK)
        code = print_claimed(cli, &batch);
    else
        code = rc == WB_EMPTY ? print_none(cli, &batch) : cli_fail(cli, &err);
    if (rc == WB_OK &&
        (fflush(stdout) != 0 || ferror(stdout) != 0 || code != CLI_DONE))
        release_all(cli, &batch);
    wb_batch_free(&batch);
    wb__arena_clear(&s.names);
    wb__free(cli->env, s.list);
    return code;
}

static const struct cli_option claim_options[] = {
    {"kind", CLI_KIND, "K", "of this kind alone [all]"},
    {"max", CLI_BATCH, "N", "messages [1]"},
    {"lease", CLI_SPAN, "D", "length of the lease [60s]"},
    {0},
};

const struct cli_command cli_claim = {
    .name = "claim",
    .group = "Plumbing",
    .args = "[--kind K] [--max N] [--lease D]",
    .help = "lease the oldest due messages",
    .more = "Finish each with confirm, release or fail before its lease ends.",
    .options = claim_options,
    .run = run_claim,
    .needs_routes = true,
    .opens_outbox = true,
    .exits = "3  nothing to claim: empty, breaker-open",
    .examples = "waybill --json claim --kind mail.sent --max 10 --lease 5m",
};

/* ---- confirm, release, fail, extend ------------------------------------- */

struct routed {
    struct cli *cli;
    struct wb_finish *f;
};

/* Use the policies of the message's route, if it has one. */
static enum wb_status
use_policies(void *ctx, const struct wb_row *row)
{
    struct routed *r = ctx;
    const struct wb_route *route = cli_route(r->cli, row->kind);

    if (route != NULL) {
        r->f->retry = route->retry;
        r->f->breaker = route->breaker;
    }
    return WB_OK;
}

/* Finish the claim that ID and --token name; extend it if lease_ms is not 0. */
static enum cli_exit
finish(struct cli *cli, struct wb_finish *f, int64_t lease_ms)
{
    struct routed routed = {cli, f};
    struct wb_err err = {0};
    enum wb_status rc = WB_OK;

    f->id = cli_id(cli, 0);
    f->token = cli_number(cli, "token", 0);
    if (f->end == WB_FAIL && lease_ms == 0 && cli->n_routes > 0)
        rc = wb_outbox_show(
            cli->box, wb_slice(f->id.text), use_policies, &routed, &err);
    if (rc == WB_OK)
        rc = lease_ms != 0 ? wb_outbox_extend(cli->box, f, 1, lease_ms, &err)
                           : wb_outbox_finish(cli->box, f, 1, NULL, NULL, &err);
    if (rc == WB_OK)
        rc = f->status;
    if (rc == WB_OK)
        return CLI_DONE;
    if (rc == WB_FENCED)
        (void)wb__fail(&err, rc, 0,
            "fenced: the claim on %s was lost or ended; claim again",
            f->id.text);
    if (rc == WB_NOTFOUND)
        (void)wb__fail(&err, rc, 0,
            "no message %s; it was delivered, discarded or never sent",
            f->id.text);
    return cli_fail(cli, &err);
}

static enum cli_exit
run_confirm(struct cli *cli)
{
    struct wb_finish f = {.end = WB_CONFIRM};
    enum cli_exit code = finish(cli, &f, 0);

    if (code != CLI_DONE)
        return code;
    return cli_result(cli,
        json_pack("{s:s, s:b}", "id", f.id.text, "confirmed", 1),
        "%s is delivered", f.id.text);
}

static enum cli_exit
run_release(struct cli *cli)
{
    struct wb_finish f = {.end = WB_RELEASE};
    enum cli_exit code = finish(cli, &f, 0);

    if (code != CLI_DONE)
        return code;
    return cli_result(cli,
        json_pack(
            "{s:s, s:s}", "id", f.id.text, "status", wb_state_name(f.state)),
        "%s is %s", f.id.text, wb_state_name(f.state));
}

static enum cli_exit
run_fail(struct cli *cli)
{
    struct wb_finish f = {.end = WB_FAIL,
        .outcome = cli_has(cli, "reject") ? WB_REJECTED : WB_RETRY,
        .error = cli_slice(cli, "error"),
        .retry_after_ms = cli_ms(cli, "retry-after", 0)};
    enum cli_exit code = finish(cli, &f, 0);
    char when[32];

    if (code != CLI_DONE)
        return code;
    return cli_result(cli,
        json_pack("{s:s, s:s, s:i, s:o}", "id", f.id.text, "status",
            wb_state_name(f.state), "attempts", (int)f.attempts, "due_ms",
            cli_int(f.due_ms)),
        "%s is %s after %u attempt%s; next attempt: %s", f.id.text,
        wb_state_name(f.state), f.attempts, f.attempts == 1 ? "" : "s",
        cli_when(cli, f.due_ms, when));
}

static enum cli_exit
run_extend(struct cli *cli)
{
    struct wb_finish f = {0};
    enum cli_exit code = finish(cli, &f, cli_ms(cli, "lease", 0));
    char when[32];

    if (code != CLI_DONE)
        return code;
    return cli_result(cli,
        json_pack("{s:s, s:o}", "id", f.id.text, "due_ms", cli_int(f.due_ms)),
        "the lease of %s ends %s", f.id.text, cli_when(cli, f.due_ms, when));
}

#define TOKEN_OPTION                                      \
    {                                                     \
        "token", CLI_TOKEN, "T", "of the claim; required" \
    }
static const char finish_exits[] =
    "1  fenced: the claim was lost, nothing changed\n"
    "3  no such message";

static const struct cli_option token_options[] = {TOKEN_OPTION, {0}};

const struct cli_command cli_confirm = {
    .name = "confirm",
    .group = "Plumbing",
    .args = "ID --token T",
    .arg_type = CLI_ID,
    .help = "delivered: the message is gone",
    .more = "The same token again is 0 as well.",
    .options = token_options,
    .required = "token",
    .n_args = 1,
    .run = run_confirm,
    .opens_outbox = true,
    .exits = finish_exits,
    .examples = "waybill confirm \"$id\" --token \"$token\"",
};

const struct cli_command cli_release = {
    .name = "release",
    .group = "Plumbing",
    .args = "ID --token T",
    .arg_type = CLI_ID,
    .help = "give a message back unsent",
    .more = "Its attempt does not count.",
    .options = token_options,
    .required = "token",
    .n_args = 1,
    .run = run_release,
    .opens_outbox = true,
    .exits = finish_exits,
    .examples = "waybill release \"$id\" --token \"$token\"",
};

static const struct cli_option fail_options[] = {
    TOKEN_OPTION,
    {"error", CLI_TEXT, "TEXT", "what went wrong, kept as one line; required"},
    {"retry-after", CLI_DURATION, "D",
        "not before so long from now [as the route's policy says]"},
    {"reject", CLI_FLAG, NULL, "it will never be accepted: abandon it"},
    {0},
};

const struct cli_command cli_fail_one = {
    .name = "fail",
    .group = "Plumbing",
    .args = "ID --token T --error TEXT [--retry-after D] [--reject]",
    .arg_type = CLI_ID,
    .help = "not delivered: retry later, or abandon",
    .more = "The policy is that of the kind's route, where the configuration "
            "has one.",
    .options = fail_options,
    .required = "token error",
    .n_args = 1,
    .run = run_fail,
    .needs_routes = true,
    .opens_outbox = true,
    .exits = finish_exits,
    .examples = "waybill fail \"$id\" --token \"$token\" --error "
                "'503 Service Unavailable' --retry-after 2m\n"
                "waybill fail \"$id\" --token \"$token\" --error "
                "'no such user' --reject",
};

static const struct cli_option extend_options[] = {
    TOKEN_OPTION,
    {"lease", CLI_SPAN, "D", "so long from now; required"},
    {0},
};

const struct cli_command cli_extend = {
    .name = "extend",
    .group = "Plumbing",
    .args = "ID --token T --lease D",
    .arg_type = CLI_ID,
    .help = "keep a claim for longer",
    .options = extend_options,
    .required = "token lease",
    .n_args = 1,
    .run = run_extend,
    .opens_outbox = true,
    .exits = finish_exits,
    .examples = "waybill extend \"$id\" --token \"$token\" --lease 5m",
};

static enum cli_exit
run_reset_stale(struct cli *cli)
{
    struct wb_err err = {0};
    uint64_t n = 0;

    if (wb_outbox_reset_stale(
            cli->box, cli_ms(cli, "older-than", -1), &n, &err) != WB_OK)
        return cli_fail(cli, &err);
    return cli_result(cli, json_pack("{s:I}", "reset", (json_int_t)n),
        "%llu back to pending", (unsigned long long)n);
}

static const struct cli_option reset_options[] = {
    {"older-than", CLI_DURATION, "D",
        "all that were claimed or extended longer than D ago [those whose "
        "lease ended]"},
    {0},
};

const struct cli_command cli_reset_stale = {
    .name = "reset-stale",
    .group = "Plumbing",
    .args = "[--older-than D]",
    .help = "put messages of crashed workers back to pending",
    .more = "Not needed for delivery: the next claim takes ended leases by "
            "itself.",
    .options = reset_options,
    .run = run_reset_stale,
    .opens_outbox = true,
    .examples = "waybill reset-stale\n"
                "waybill reset-stale --older-than 10m",
};
