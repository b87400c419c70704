#!/usr/bin/env bats
# The command on PostgreSQL: a server of this file's own, a schema for each
# test. What the command does is tested on SQLite; here, that it does it there.
load helper

setup_file() {
    root=${WAYBILL_ROOT:-$(cd "$BATS_TEST_DIRNAME/../.." && pwd)}
    # shellcheck disable=SC2016
    "$root/test/pg/with_server" sh -c 'echo "$WAYBILL_TEST_PG" >"$0" &&
        exec sleep 900' "$BATS_FILE_TMPDIR/url" >/dev/null 3>&- &
    echo $! >"$BATS_FILE_TMPDIR/pid"
    for _ in $(seq 600); do
        [ -s "$BATS_FILE_TMPDIR/url" ] && return
        kill -0 $! || return 1
        sleep 0.1
    done
    return 1
}

teardown_file() {
    kill "$(cat "$BATS_FILE_TMPDIR/pid")"
    wait "$(cat "$BATS_FILE_TMPDIR/pid")" || :
}

# database: $WAYBILL_DB is a new schema of the server
database() {
    server=$(cat "$BATS_FILE_TMPDIR/url")
    psql -q "$server" -c "CREATE SCHEMA s$BATS_TEST_NUMBER"
    export WAYBILL_DB="$server?options=-csearch_path%3Ds$BATS_TEST_NUMBER"
}

deliver() { # SCRIPT: every kind is delivered to sh -c SCRIPT
    config <<END
route "*" { transport = "exec", argv = { "sh", "-c", [==[$1]==] },
    retry = { immediate = true } }
END
}

@test "postgres: send, list, show, drain, status" {
    database
    deliver 'cat >>got'
    a=$(send k '{"n":1}' --key once)
    try js send k '{"n":1}' --key once
    same "$a/true" "$(get '"\(.id)/\(.duplicate)"')"
    same pending "$(row "$a" status)"
    same "$a" "$(js list | jq -r .id)"
    same 1 "$(status_of pending)"
    try js drain
    ended 0
    same 1 "$(get .confirmed)"
    same '{"n":1}' "$(cat got)"
    same 0/1 "$(js status | jq -r '"\(.pending)/\(.last_drain.confirmed)"')"
    try waybill drain
    ended 3
}

@test "postgres: lanes in order, many at once" {
    database
    deliver 'cat >>got; echo >>got'
    seq 1 50 | waybill send k --lines --lane l
    try js drain
    ended 0
    same 50 "$(get .confirmed)"
    same "$(seq 1 50)" "$(cat got)"
}

@test "postgres: retry, discard, pause" {
    database
    deliver 'exit 65'
    a=$(send k 1)
    b=$(send k 2)
    try js drain
    ended 4
    same abandoned "$(row "$a" status)"
    waybill retry "$a"
    same pending "$(row "$a" status)"
    waybill discard "$b"
    try waybill show "$b"
    ended 3
    deliver 'exit 0'
    waybill pause k
    try js drain
    ended 3
    waybill resume k
    try js drain
    ended 0
}

@test "postgres: claim, confirm, fail, fenced" {
    database
    waybill send k 1
    claim --kind k
    waybill fail "$id" --token "$token" --error down
    same down "$(row "$id" last_error)"
    waybill retry "$id"
    old=$token
    claim --kind k
    try waybill confirm "$id" --token "$old"
    ended 1
    has "$err" fenced
    waybill confirm "$id" --token "$token"
    waybill confirm "$id" --token "$token"
}

finding() { jq -r ".checks[] | select(.name == \"$1\") | \"\\(.ok) \\(.detail)\"" out.txt; }

@test "postgres: doctor, backup" {
    database
    waybill send k 1
    try js doctor
    same 'true PostgreSQL' "$(get '.checks[] | select(.name == "server_version")
        | "\(.ok) \(.detail | .[:10])"')"
    try waybill backup copy
    ended 1
    has "$err" pg_dump
}

@test "postgres: doctor names the transaction that holds back vacuum" {
    database
    waybill send k 1
    try js doctor --transaction 1ms
    same 'true the oldest of another session lasts for -' "$(finding transaction)"
    mkfifo orders
    PGAPPNAME=nightly psql -qAt "$server" <orders >answers 3>&- &
    session=$!
    exec 9>orders
    echo "BEGIN; SELECT txid_current();" >&9
    until_true 30 [ -s answers ]
    finds() {
        try js doctor --transaction 1ms
        [[ "$(finding transaction)" == false*"idle in transaction, nightly" ]]
    }
    until_true 10 finds
    try js doctor
    same true "$(finding transaction | cut -d' ' -f1)"
    exec 9>&-
    wait "$session"
}

@test "postgres: once replays, another command is refused, keys shows it" {
    database
    try waybill once --key k -- sh -c 'echo ran >>ran; echo hello; exit 3'
    ended 3
    try waybill once --key k -- sh -c 'echo ran >>ran; echo hello; exit 3'
    ended 3
    same hello "$out"
    same 1 "$(wc -l <ran)"
    try waybill once --key k -- echo other
    ended 65
    same k/done "$(js keys list | jq -r '"\(.key)/\(.state)"')"
}

@test "postgres: gate keeps its responses there, past a restart" {
    database
    "$WAYBILL" sink --listen 127.0.0.1:0 --into got >sink.log 2>&1 3>&- &
    PIDS=$!
    until_true 10 grep -q '127.0.0.1:[1-9]' sink.log
    upstream=http://$(grep -o '127.0.0.1:[1-9][0-9]*' sink.log | head -1)
    for _ in 1 2; do
        : >gate.log # what the one before wrote is no sign of this one
        env -u WAYBILL_DB "$WAYBILL" gate --listen 127.0.0.1:0 \
            --upstream "$upstream" --store "$WAYBILL_DB" >gate.log 2>&1 3>&- &
        gate=$!
        PIDS="$PIDS $gate"
        until_true 10 grep -q '127.0.0.1:[1-9]' gate.log
        curl -sS -o answer -w '%{http_code}\n' -H 'Idempotency-Key: "k"' \
            -H 'Authorization: me' -d x \
            "http://$(grep -o '127.0.0.1:[1-9][0-9]*' gate.log | head -1)/" \
            >>codes
        kill "$gate"
        wait "$gate" || :
    done
    same 1 "$(sort -u codes | wc -l)"
    same 1 "$(wc -l <got)"
}

@test "postgres: init, migrate; a reader never migrates, a writer says so" {
    database
    try waybill status
    ended 1
    has "$err" "waybill init makes one"
    try js init
    same '"PostgreSQL"/4/null/true' \
        "$(get '"\(.db | tojson)/\(.version)/\(.from)/\(.changed)"')"
    for command in migrate claim; do
        psql -q "$(cat "$BATS_FILE_TMPDIR/url")" -c "SET search_path = s$BATS_TEST_NUMBER;
            DROP FUNCTION waybill_send(text, text, text, text, text, timestamptz,
                timestamptz, text, text), waybill_send(text, bytea, text, text,
                text, timestamptz, timestamptz, text, text), waybill_hash;
            ALTER TABLE waybill_outbox DROP COLUMN ended_ms, DROP COLUMN attempts_log;
            DELETE FROM waybill_meta WHERE name LIKE 'clock%';
            UPDATE waybill_meta SET value = 2 WHERE name = 'version'"
        for reader in status list breaker "retry --abandoned --dry-run"; do
            # shellcheck disable=SC2086
            try waybill $reader
            ended 1
            has "$err" "run waybill migrate"
        done
        try waybill "$command"
        has "$out$err" "from version 2 to 4"
    done
}

@test "postgres: list, retry and show choose by lane, key, error, time and end" {
    database
    a=$(send k 1 --key c1:a --lane l)
    waybill --quiet send k 2 --key c2:a
    claim --kind k
    waybill --quiet fail "$id" --token "$token" --error "404 no such user" --reject
    same c1:a "$(js list --lane l --since 1h --error 404 | jq -r .key)"
    same c2:a "$(js list --key-prefix c2 --until now --limit 1 | jq -r .key)"
    for wanted in "1 --key-prefix c1:" "0 --key-prefix c2:" "0 --error 503" \
        "1 --error user" "0 --until 1h"; do
        # shellcheck disable=SC2086
        same "${wanted%% *}" \
            "$(js discard --abandoned --dry-run ${wanted#* } | jq .total)"
    done
    same "$a" "$(row "${a:26}" id)"
    same "$a" "$(js show --key c1:a | jq -r .id)"
    same 1 "$(js retry --abandoned --lane l | jq .total)"
}

@test "postgres: bad URLs and a database that is not there: exit 1 or 75, reported" {
    database
    server=$(cat "$BATS_FILE_TMPDIR/url")
    for url in "${server%/*}/nowhere" 'postgres://[::1' \
        'postgres://h/d?no_such=1'; do
        try js --db "$url" status
        [ "$status" -eq 1 ] || [ "$status" -eq 75 ] || ended 1
        [ "$(jq -r .error.message <<<"$err" | wc -c)" -gt 10 ]
    done
    export WAYBILL_DB=postgres://u:secret@127.0.0.1:1/d
    for command in status list drain 'claim --kind k' 'send k x' 'keys list' \
        'once --key k -- true'; do
        # shellcheck disable=SC2086
        try waybill $command
        [ "$status" -eq 1 ] || [ "$status" -eq 75 ] || ended 75
        has "$err" PostgreSQL
        [[ "$err" != *secret* ]]
    done
}

# ---- poolers, a server that is away, a silent network ---------------------

# behind MODE COMMAND...: with the database of this test, behind PgBouncer
behind() {
    server=$(cat "$BATS_FILE_TMPDIR/url")
    psql -q "$server" -c "CREATE DATABASE d$BATS_TEST_NUMBER" 2>/dev/null || :
    mode=$1
    shift
    # shellcheck disable=SC2016
    try "$ROOT/test/pg/with_pooler" "$mode" "${server%/*}/d$BATS_TEST_NUMBER" \
        sh -c 'WAYBILL_DB=$WAYBILL_TEST_POOLER exec "$0" "$@"' "$@"
    [ "$status" -ne 77 ] || skip "PgBouncer is not installed"
}

@test "postgres: PgBouncer in transaction mode is refused with the fix, at every open" {
    deliver 'exit 0'
    for command in 'send k x' drain run status 'once --key k -- true'; do
        # shellcheck disable=SC2086
        behind transaction "$WAYBILL" $command
        ended 1
        has "$err" "pool_mode = session"
    done
}

@test "postgres: PgBouncer in session mode works, and a killed worker's slot is free" {
    deliver 'cat >>got'
    # shellcheck disable=SC2016
    behind session sh -c '
        "$0" run 2>run.log & worker=$!
        "$0" send k x
        for _ in $(seq 600); do [ -s got ] && break; sleep 0.05; done
        kill -9 $worker
        wait $worker
        "$0" send k y
        for _ in $(seq 600); do "$0" drain && break; sleep 0.05; done' \
        "$WAYBILL"
    ended 0
    same xy "$(cat got)"
}

# worker ARGS...: run one; $worker is its pid
worker() {
    "$WAYBILL" run "$@" 2>run.log 3>&- &
    worker=$!
    PIDS="$PIDS $worker"
    until_true 20 grep -q "info start" run.log
}

@test "postgres: a worker that is idle delivers what another process sends, soon" {
    database
    deliver 'cat >>got'
    worker
    sleep 0.3
    waybill send k x
    until_true 12 [ -s got ]
    kill "$worker"
    wait "$worker"
}

@test "postgres: the server is stopped and started again: a worker goes on, nothing twice" {
    database
    deliver 'cat >>got; echo >>got'
    worker
    waybill send k one
    until_true 12 grep -qs one got
    kill -USR1 "$(cat "$BATS_FILE_TMPDIR/pid")"
    until_true 20 grep -qi "lost\|away\|database" run.log
    kill -USR2 "$(cat "$BATS_FILE_TMPDIR/pid")"
    until_true 20 waybill send k two 2>/dev/null
    until_true 20 grep -q two got
    try waybill drain
    has "$out$err" another # the slot was taken again
    kill "$worker"
    wait "$worker"
    same "one two" "$(tr '\n' ' ' <got | sed 's/ $//')"
}

@test "postgres: the server is started later than a worker: it waits, and delivers" {
    database
    deliver 'cat >>got'
    waybill send k one
    kill -USR1 "$(cat "$BATS_FILE_TMPDIR/pid")"
    away() { ! psql -q "$server" -c "SELECT 1"; } >/dev/null 2>&1
    until_true 20 away
    "$WAYBILL" run 2>run.log 3>&- &
    worker=$!
    PIDS="$PIDS $worker"
    until_true 20 grep -q "error database-lost" run.log
    "$WAYBILL" run 2>second.log 3>&- &
    second=$!
    PIDS="$PIDS $second"
    until_true 20 grep -q "error database-lost" second.log
    kill "$second"
    wait "$second"
    same 0 "$(grep -c "info start" run.log)"
    kill -USR2 "$(cat "$BATS_FILE_TMPDIR/pid")"
    until_true 30 [ -s got ]
    same 1 "$(grep -c database-lost run.log)"
    grep -q "info database-found" run.log
    kill "$worker"
    wait "$worker"
}

@test "postgres: roles with the rights that FORMATS.md names, and no others" {
    database
    deliver 'cat >>got'
    waybill --quiet init
    n=$BATS_TEST_NUMBER
    sed -n '/^    CREATE ROLE/,/^$/p' "$ROOT/doc/FORMATS.md" |
        sed "s/waybill_schema/s$n/; s/the_/the${n}_/g" >grants.sql
    psql -q -v ON_ERROR_STOP=1 "$WAYBILL_DB" -f grants.sql
    owner=$WAYBILL_DB
    as() { WAYBILL_DB=${owner/waybill@/the${n}_$1@}; }
    as producer
    a=$(psql -qAt "$WAYBILL_DB" -c "SELECT waybill_send('k', '1', lane => 'l')")
    ! waybill list || return 1
    as monitor
    same "$a" "$(js list | jq -r .id)"
    same 1 "$(status_of pending)"
    try waybill doctor
    [[ "$out$err" != *denied* ]]
    ! waybill send k 1 || return 1
    as worker
    send k 2 --lane l --key b
    try waybill drain
    ended 0
    same 12 "$(cat got)"
    try waybill --quiet once --db "$WAYBILL_DB" --key c -- echo ran
    same ran "$out"
    waybill --quiet pause k
    waybill --quiet resume k
    same 0 "$(status_of pending)"
}

@test "postgres: a wrong password, and a database that is not there, end a worker at once" {
    database
    deliver 'cat >>got'
    try timeout 30 "$WAYBILL" run --db "${server%/*}/nowhere"
    ended 1
    psql -q "$server" -c "CREATE ROLE closed NOLOGIN"
    try timeout 30 "$WAYBILL" run --db "${server/waybill@/closed:secret@}"
    ended 1
    [[ "$err" != *secret* ]]
}

@test "postgres: the command line of a process shows no part of its URL" {
    database
    deliver 'exit 0'
    url=${WAYBILL_DB/waybill@/waybill:secret@}
    unset WAYBILL_DB
    worker --db "$url"
    for process in "$worker" $(pgrep -P "$worker" || :); do
        tr '\0' ' ' <"/proc/$process/cmdline" >line
        grep -q "run --db postgres" line
        ! grep -q secret line || return 1
    done
    kill "$worker"
    wait "$worker"
}

none_left() { [ -z "$(js list)" ]; }

@test "postgres: a silent network: a worker ends after SIGTERM, within its limits" {
    database
    deliver 'cat >>got'
    port=${server##*:}
    "$ROOT/test/pg/silent_proxy" "${port%/*}" "$PWD/proxy" 3>&- &
    PIDS="$PIDS $!"
    until_true 20 [ -s proxy ]
    WAYBILL_DB="${server%:*}:$(cat proxy)/postgres?options=-csearch_path%3Ds$BATS_TEST_NUMBER%20-cstatement_timeout%3D500&connect_timeout=2"
    waybill send k x
    worker
    until_true 12 [ -s got ]
    until_true 12 none_left # an outcome would be kept until its lease is over
    touch proxy.silent
    sleep 1.5 # it asks the server once a second
    kill "$worker"
    until_true 45 sh -c "! kill -0 $worker 2>/dev/null"
    rm proxy.silent
    try waybill drain # nothing of the worker's is left
    ended 3
}

@test "postgres: doctor with the server away says what to do about a server" {
    export WAYBILL_DB=postgres://u:secret@127.0.0.1:1/d
    try waybill doctor
    ended 1
    has "$out" "start the server"
    [[ "$out$err" != *permissions* ]]
    [[ "$out$err" != *secret* ]]
}
