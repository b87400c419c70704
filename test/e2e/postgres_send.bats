#!/usr/bin/env bats
# waybill_send(): any language sends to PostgreSQL, in its own transaction.
load helper

setup_file() {
    ROOT=${WAYBILL_ROOT:-$(cd "$BATS_TEST_DIRNAME/../.." && pwd)}
    cd "$BATS_FILE_TMPDIR"
    # shellcheck disable=SC2016
    "$ROOT/test/pg/with_server" sh -c 'echo "$WAYBILL_TEST_PG" >url &&
        exec sleep 900' >/dev/null 3>&- &
    echo $! >pid
    npm install --silent --no-audit --no-fund --prefix . pg@8 >&2
    for _ in $(seq 600); do
        [ -s url ] && return
        kill -0 "$(cat pid)" || return 1
        sleep 0.1
    done
    return 1
}

teardown_file() {
    kill "$(cat "$BATS_FILE_TMPDIR/pid")"
    wait "$(cat "$BATS_FILE_TMPDIR/pid")" || :
}

# database: $WAYBILL_DB is a new schema of the server, with the tables
database() {
    WAYBILL_DB="$(cat "$BATS_FILE_TMPDIR/url")?options=-csearch_path%3Ds$BATS_TEST_NUMBER"
    psql -q "$WAYBILL_DB" -c "CREATE SCHEMA s$BATS_TEST_NUMBER"
    waybill --quiet init
}

# sql TEXT: the rows of its last query, or the error
sql() { psql -qAt -v ON_ERROR_STOP=1 -c "$1" "$WAYBILL_DB" 2>&1; }

# has WORDS OUTPUT
has() { [[ "$2" == *"$1"* ]] || { echo "no \"$1\" in: $2"; return 1; }; }

# delivered: what a drain hands over
delivered() {
    rm -f got
    cat >config.lua <<'END'
route "*" { transport = "exec", argv = { "sh", "-c", "cat >>got; echo >>got" } }
END
    waybill --quiet drain || :
    cat got
}

@test "waybill_send: part of the transaction, gone with it" {
    database
    sql "BEGIN; SELECT waybill_send('k', 'a'); ROLLBACK"
    same 0 "$(status_of pending)"
    id=$(sql "SELECT waybill_send('k', 'ä')")
    same "$id" "$(waybill --json list | jq -r .id)"
    same 'ä' "$(delivered)"
}

@test "waybill_send: one key, one message; with other content it is refused" {
    database
    call="SELECT waybill_send(kind => 'k', payload => '1', key => 'a', lane => 'l',
        content_type => 'application/json')"
    id=$(sql "$call")
    same "$id" "$(sql "$call")"
    same "$id" "$(send k 1 --key a --lane l)"
    same "$(send k 2 --key b --content-type text/plain)" \
        "$(sql "SELECT waybill_send('k', '2', key => 'b', content_type => 'text/plain')")"
    has "the key is taken by message $id with other content" \
        "$(sql "SELECT waybill_send('k', '2', key => 'a', lane => 'l')" || :)"
    delivered
    same "$id" "$(sql "$call")" # remembered
    has "is taken by message $id" "$(sql "SELECT waybill_send('j', '1', key => 'a')" || :)"
    sql "UPDATE waybill_outbox SET due_ms = 1 WHERE key = 'a'"
    [ "$id" != "$(sql "$call")" ] # no more
    id=$(send k 3 --id 01234567-89ab-cdef-0123-456789abcdef)
    same "$id" "$(sql "SELECT waybill_send('k', '3', id => upper('$id'))")"
    has "is taken by message" \
        "$(sql "SELECT waybill_send('k', '3', id => '$id', key => 'b')" || :)"
}

@test "waybill_send: twenty with one key at once: one message" {
    database
    for _ in $(seq 20); do
        sql "SELECT waybill_send('k', '1', key => 'a')" >>ids 3>&- &
        PIDS="$PIDS $!"
    done
    # shellcheck disable=SC2086
    wait $PIDS
    PIDS=
    same 20 "$(wc -l <ids)"
    same 1 "$(sort -u ids | wc -l)"
    same 1 "$(status_of pending)"
}

@test "waybill_send: its fields are those of send" {
    database
    id=$(sql "SELECT waybill_send('k', '\xff00'::bytea, lane => 'l', headers =>
        E'X-A: b\n', due => now() + '1 hour', expires => now() + '2 hours')")
    waybill --json show "$id" >row
    same '"l"/["X-A: b"]/true/true' "$(jq -r '"\(.lane|tojson)/\(.headers|tojson)/" +
        "\(.due_ms - .created_ms | . > 3590000 and . <= 3600000)/" +
        "\(.expires_ms - .due_ms == 3600000)"' row)"
    same ff00 "$(sql "SELECT encode(payload, 'hex') FROM waybill_outbox")"
}

@test "waybill_send: what is wrong is refused, and said" {
    database
    while IFS='|' read -r args words; do
        has "$words" "$(sql "SELECT waybill_send($args)" || :)"
    done <<'END'
'K', '1'|kind "K": give 1 to 64 of
NULL, '1'|kind "": give 1 to 64 of
'k', NULL::text|payload: give one
'k', '1', id => 'x'|id "x" is not a UUID
'k', '1', key => ''|give 1 to 255 bytes of printable text
'k', '1', lane => E'a\nb'|give 1 to 255 bytes of printable text
'k', '1', key => repeat('ü', 128)|give 1 to 255 bytes of printable text
'k', '1', expires => now() - interval '1 s'|expires before it is due
'k', '1', due => '1969-01-01'|due
'k', '1', headers => 'X-A: b'|give lines "Name: value"
'k', '1', headers => E'X A: b\n'|give lines "Name: value"
END
    same 0 "$(status_of pending)"
}

@test "waybill_send: a role needs the right to execute it, and no other" {
    database
    role=app$BATS_TEST_NUMBER
    sql "CREATE ROLE $role LOGIN; GRANT USAGE ON SCHEMA s$BATS_TEST_NUMBER TO $role"
    has "permission denied" "$(sql "SET ROLE $role; SELECT waybill_send('k', '1')" || :)"
    sql "GRANT EXECUTE ON FUNCTION waybill_send(text, text, text, text, text,
        timestamptz, timestamptz, text, text) TO $role"
    # Tables of its own do not stand in for ours.
    sql "SET ROLE $role; CREATE TEMP TABLE waybill_outbox(id text);
        SELECT waybill_send('k', '1')"
    has "permission denied" \
        "$(sql "SET ROLE $role; SELECT * FROM s$BATS_TEST_NUMBER.waybill_outbox" || :)"
    same 1 "$(status_of pending)"
}

producer() { # COMMAND...: an order placed, and one that is refused
    database
    id=$("$@" "$WAYBILL_DB" Ada 1250)
    same order.placed "$(waybill --json show "$id" | jq -r .kind)"
    same '{"cents":1250,"customer":"Ada"}' "$(delivered | jq -Sc 'del(.order)')"
    run "$@" "$WAYBILL_DB" Ada -5
    [ "$status" -ne 0 ]
    same 1 "$(sql 'SELECT count(*) FROM orders')"
    same 0 "$(status_of pending)"
}

@test "producer_pg.py: an order and its message, or neither" {
    producer /usr/bin/python3 "$ROOT/examples/producer_pg.py"
}

@test "producer_pg.js: an order and its message, or neither" {
    export NODE_PATH=$BATS_FILE_TMPDIR/node_modules
    producer node "$ROOT/examples/producer_pg.js"
}
