#!/usr/bin/env bats
# shellcheck disable=SC2030,SC2031,SC2154,SC2314,SC2315
# The database as a file: names, files that vanish, reading, backup, restore.
load helper

# deliver: every message of the kind k is appended to ids
deliver() {
    config <<END
route "k" { transport = "exec", argv = { "sh", "-c", "echo 1 >>'$PWD/ids'" } }
END
}

delivered() { [ "$(wc -l 2>/dev/null <ids)" = "$1" ]; }
gone() { ! kill -0 "$PIDS" 2>/dev/null; }

# worker: one that is idle, with the first message delivered
worker() {
    deliver
    waybill --quiet send k first
    "$WAYBILL" --json run --listen 127.0.0.1:0 >report 2>run.err 3>&- &
    PIDS=$!
    until_true 10 delivered 1
    address=$(head -1 report | jq -r .listening)
}

health() { curl -s -o health -w '%{http_code}' "http://$address/healthz"; }

# ends CODE: the worker does, by itself
ends() {
    until_true 40 gone
    code=0
    wait "$PIDS" || code=$?
    PIDS=
    same "$1" "$code"
}

@test "a name that --db mistypes: reading and draining is an error, nothing is made" {
    deliver
    for command in list status "show 01900000" "backup copy.db" drain claim \
        "retry --abandoned" "keys list" breaker; do
        # shellcheck disable=SC2086
        try js --db none/none.db $command
        ended 1
        has "$err" none.db
        [ ! -e none ]
        # shellcheck disable=SC2086
        try js --db none.db $command
        ended 1
        has "$err" none.db
        none=(none*) && [ ! -e "${none[0]}" ]
    done
    try waybill --db none.db doctor
    has "$out" "not there"
    none=(none*) && [ ! -e "${none[0]}" ]
}

@test "the usual database before the first message: empty, and nothing is made" {
    deliver
    try js status
    ended 0
    same 0 "$(get .pending)"
    try js list
    ended 0
    try js keys list
    ended 0
    try js drain
    ended 3
    same empty "$(get .reason)"
    [ ! -e box.db ]
    try waybill backup copy.db
    ended 1
    [ ! -e copy.db ]
}

@test "an application's file: reading leaves every byte and adds no file" {
    sqlite3 app.db 'CREATE TABLE mine(a); INSERT INTO mine VALUES(1)'
    before=$(sha256sum app.db)
    for command in list status "backup copy.db" doctor drain "keys list"; do
        # shellcheck disable=SC2086
        try js --db app.db $command
        same "$before" "$(sha256sum app.db)"
        same app.db "$(ls -d app.db* copy.db* 2>/dev/null)"
    done
}

@test "a link to the database: one worker, woken at once, and its report" {
    worker
    ln -s box.db link.db
    mkdir sub
    ln -s .. sub/up
    for name in link.db sub/up/box.db "$PWD//sub/.././box.db"; do
        try js --db "$name" run
        ended 75
        try js --db "$name" drain
        ended 3
        same busy "$(get .reason)"
    done
    waybill --quiet --db sub/up/link.db send k x
    until_true 10 delivered 2 # less than the 30 s of an idle worker
    kill -TERM "$PIDS"
    ends 0
    same 2 "$(js --db link.db status | jq .last_drain.attempted)"
}

@test "the database is renamed under a worker: health fails; replaced: it ends" {
    worker
    same 200 "$(health)"
    mv box.db old.db
    code=$(health) || : # the worker may have noticed before, and ended
    [ "$code" = 000 ] || same 503 "$code"
    [ "$code" = 000 ] || has "$(cat health)" "box.db was removed or renamed"
    rm -f box.db-wal box.db-shm box.db-lock
    waybill --quiet send k x # makes a new one
    ends 1
    has "$(cat run.err)" box.db
    waybill --quiet drain
    delivered 2
}

@test "the database is removed under a gateway: no keyed request gets through" {
    "$WAYBILL" --json sink --listen 127.0.0.1:0 --into effects >sink 3>&- &
    PIDS=$!
    until_true 10 test -s sink
    "$WAYBILL" --json gate --listen 127.0.0.1:0 --admin 127.0.0.1:0 --upstream \
        "http://$(jq -r .listening sink)" >gate 3>&- &
    PIDS="$PIDS $!"
    until_true 10 test -s gate
    post() {
        curl -s -o /dev/null -w '%{http_code}' -H 'Authorization: a' \
            -H "Idempotency-Key: $1" -d x "http://$(jq -r .listening gate)/"
    }
    address=$(jq -r .admin gate)
    same 200 "$(post a)"
    same 200 "$(health)"
    rm box.db
    same 503 "$(post b)"
    same 503 "$(health)"
    same 1 "$(wc -l <effects)"
}

@test "backup of a damaged database: refused, and a good copy stays" {
    for _ in $(seq 300); do echo "$RANDOM$RANDOM"; done | waybill --quiet send k --lines
    waybill --quiet backup good.db
    waybill --quiet backup monday.db
    size=$(stat -c %s box.db)
    # one page of rows near the end: what opens the database does not read it
    dd if=/dev/zero of=box.db bs=4096 seek=$((size / 4096 - 2)) count=1 \
        conv=notrunc status=none
    try js backup copy.db
    ended 1
    has "$err" damaged
    same "good.db monday.db" "$(ls -d copy.db* good.db* monday.db* | paste -sd' ')"
    rm box.db
}

@test "restore, by the steps of doc/DATABASE_FILES.md" {
    deliver
    one=$(send k one)
    waybill --quiet backup backup.db
    two=$(send k two)
    # 1. stop what uses it; 2. set the old files aside
    mkdir before
    mv box.db* before/
    # 3. the copy becomes the database
    cp backup.db box.db
    waybill doctor >doctor
    same "$one" "$(js list | jq -r .id)"
    waybill --quiet drain
    delivered 1
    same "$two" "$(js --db before/box.db list | jq -r .id | grep "$two")"
}

@test "restore over a running worker: it notices and ends" {
    worker
    waybill --quiet backup backup.db
    rm box.db box.db-wal box.db-shm
    cp backup.db box.db
    waybill --quiet send k x
    ends 1
    has "$(cat run.err)" box.db
}

@test "compact: the file gets smaller, nothing waiting is lost; busy: 75" {
    for _ in $(seq 2000); do echo "$RANDOM$RANDOM$RANDOM$RANDOM"; done >lines
    waybill --quiet send k --lines <lines
    waybill --quiet send l kept
    claim --kind k --max 1000 >/dev/null
    sqlite3 box.db "DELETE FROM waybill_outbox WHERE kind = 'k'"
    try js compact
    ended 0
    fields bytes_before bytes_after
    [ "$(get .bytes_before)" -gt $((2 * $(get .bytes_after))) ]
    same 1 "$(status_of pending)"
    same ok "$(sqlite3 box.db 'PRAGMA integrity_check')"
    sqlite3 -cmd '.timeout 0' box.db 'BEGIN IMMEDIATE' '.print locked' \
        '.shell touch locked; while [ ! -e free ]; do sleep 0.02; done' &
    PIDS=$!
    until_true 10 test -e locked
    try js compact
    touch free
    ended 75
    has "$err" fuser
    try waybill compact --db none.db
    ended 1
}
