#!/usr/bin/env bats
# doctor: every check, and each finding with its fix.
load helper

# finding NAME: ok, detail and fix of a check
finding() { get ".checks[] | select(.name == \"$1\") | .$2"; }

@test "doctor: nothing there yet: 0, and it makes nothing" {
    try js doctor
    ended 0
    has "$(finding database detail)" "not there yet"
    [ ! -e box.db ]
}

@test "doctor: all well: 0, each check once with its fields" {
    waybill send k x
    try js doctor
    ended 0
    same '["name","ok","detail","fix"]' \
        "$(get '.checks | map(keys_unsorted | tojson) | unique | .[]')"
    same "abandoned breakers clock config database endpoints file_mode \
file_system folder_mode free_room integrity journal lag last_drain paused spill \
sqlite_version stuck_claims unrouted wal_size" \
        "$(get '.checks | map(.name) | sort | join(" ")')"
    same true/null "$(get '.checks | map("\(.ok)/\(.fix)") | unique | .[]')"
    try waybill doctor
    ended 0
    has "$out" "integrity"
}

@test "doctor, list, status: times no clock of ours has set" {
    id=$(send k x)
    sqlite3 box.db "UPDATE waybill_outbox SET
        created_ms = created_ms + 864000000, due_ms = due_ms + 864000000"
    try js doctor
    ended 1
    has "$(get '.checks[] | select(.name == "clock") | .detail')" "1 message"
    try waybill status
    ended 0
    has "$out" "in the future"
    [[ "$out" != *-8* ]]
    for n in -9223372036854775808 9223372036854775807; do
        sqlite3 box.db "UPDATE waybill_outbox SET due_ms = $n, created_ms = $n"
        try waybill list
        ended 0
        [ $n -gt 0 ] || has "$out" "ago"
        [ $n -gt 0 ] || [[ "$out" != *"in 1"* ]]
        try waybill status
        ended 0
        try waybill show "$id"
        ended 0
        try js status
        ended 0
    done
}

@test "doctor: SQLite's version, and the guard against its bug" {
    waybill send k x
    try js doctor
    has "$(finding sqlite_version detail)" SQLite
}

@test "doctor: modes of file and folder" {
    mkdir open
    waybill --db open/box.db send k x
    chmod 644 open/box.db
    chmod 777 open
    try js --db open/box.db doctor
    ended 1
    same false/false "$(finding file_mode ok)/$(finding folder_mode ok)"
    has "$(finding file_mode fix)" "chmod 600"
    has "$(finding folder_mode fix)" "chmod 700"
    chmod 640 open/box.db
    chmod 755 open
    try js --db open/box.db doctor
    same false/true "$(finding file_mode ok)/$(finding folder_mode ok)"
    chmod 600 open/box.db
    try js --db open/box.db doctor
    ended 0
}

@test "doctor: a database that cannot be opened" {
    for _ in {1..100}; do echo "this is no database"; done >bad.db
    chmod 600 bad.db
    try js --db bad.db doctor
    ended 1
    same false "$(finding database ok)"
    [ "$(finding database fix)" != null ]
    same true "$(finding clock ok)"
    same true "$(finding config ok)"
    try waybill --db bad.db doctor
    ended 1
    has "$out" FAILED
    mkdir folder
    try js --db folder doctor
    ended 1
    try js --db postgres://127.0.0.1:1/y doctor
    ended 1
    has "$(finding database detail)" PostgreSQL
    has "$(finding database fix)" "start the server"
}

@test "doctor: a configuration that does not read, a secret that is missing" {
    waybill send k x
    config <<<'nonsense('
    try js doctor
    ended 1
    same false "$(finding config ok)"
    has "$(finding config detail)" config.lua:
    same true "$(finding integrity ok)"
    config <<<'route "k" { url = "https://h/", secret = env "NO_SUCH" }'
    try js doctor
    ended 1
    has "$(finding config detail)" NO_SUCH
}

@test "doctor: endpoints in the clear" {
    waybill send k x
    config <<'END'
route "a" { url = "http://example.org/hook" }
route "b" { url = "https://example.org/hook" }
route "c" { url = "http://127.0.0.1:8080/" }
route "d" { url = "http://localhost/" }
END
    try js doctor
    ended 1
    has "$(finding endpoints detail)" "route a"
    same 1 "$(get '.checks | map(select(.name == "endpoints")) | length')"
    config <<<'route "k" { url = "https://example.org/hook" }'
    try js doctor
    ended 0
}

@test "doctor: claims whose worker is gone" {
    waybill send k x
    claim --lease 1ms
    until_true 5 stuck
    has "$(finding stuck_claims fix)" reset-stale
    waybill reset-stale
    try js doctor
    ended 0
}

stuck() {
    try js doctor
    [ "$(finding stuck_claims ok)" = false ]
}

@test "doctor: a reader that pins a WAL past 64 MB" {
    waybill send k x
    mkfifo go
    sqlite3 box.db >pinned <<'END' 3>&- &
BEGIN;
SELECT count(*) FROM waybill_outbox;
.shell read -r _ <go
END
    PIDS=$!
    until_true 10 [ -s pinned ]
    for _ in {1..75}; do head -c 1000000 /dev/zero | tr '\0' x; echo; done |
        waybill --quiet send k --lines
    try js doctor
    ended 1
    same false "$(finding wal_size ok)"
    has "$(finding wal_size fix)" reader
    echo >go
}

@test "doctor: last drain, also when the database cannot be opened" {
    config <<<'route "k" { transport = "exec", argv = { "true" } }'
    waybill send k x
    waybill --quiet drain
    try js doctor
    has "$(finding last_drain detail)" "1 attempted, 1 confirmed"
    for _ in {1..100}; do echo "this is no database"; done >box.db
    try js doctor
    ended 1
    has "$(finding last_drain detail)" "1 attempted, 1 confirmed"
}

# bound OPTION VALUE NAME: the finding is gone with the option
bound() {
    same false "$(finding "$3" ok)" || return 1
    [ "$(finding "$3" fix)" != null ]
    try js doctor "--$1" "$2"
    same true "$(finding "$3" ok)"
    try js doctor
}

@test "doctor judges the work: each bound can be set" {
    config <<'END'
route "late" { transport = "exec", argv = { "false" } }
route "lost" { transport = "exec", argv = { "sh", "-c", "exit 65" } }
route "open" { transport = "exec", argv = { "false" }, breaker = { failures = 1 } }
END
    waybill --quiet send lost 1
    waybill --quiet send open 1
    waybill --quiet drain 2>/dev/null || :
    for kind in late nowhere still; do waybill --quiet send "$kind" 1; done
    waybill --quiet pause still
    sqlite3 box.db "UPDATE waybill_outbox SET due_ms = due_ms - 200000000,
        created_ms = created_ms - 200000000 WHERE kind IN ('late', 'still')"
    try js doctor
    ended 1
    bound lag 60h lag
    bound abandoned 1 abandoned
    bound unrouted 2 unrouted # still has none either
    bound paused 60h paused
    bound breakers 1 breakers
    same true "$(finding last_drain ok)"
    try js doctor --last-drain 0s
    same false "$(finding last_drain ok)"
    try js doctor --free 1000000g
    same false "$(finding free_room ok)"
    usage doctor --free much
    usage doctor --lag 5
}

@test "doctor: what waits in lanes behind a kind without a route, or a paused one" {
    config <<<'route "k" { transport = "exec", argv = { "true" } }
route "still" { transport = "exec", argv = { "true" } }'
    waybill --quiet send still 1 --lane a
    waybill --quiet send k 1 --lane a
    waybill --quiet pause still
    try js doctor
    ended 0
    has "$(finding paused detail)" "; 1 message waits in lanes behind them"
    same 0 "$(finding unrouted detail)"
    waybill --quiet send nowhere 1 --lane b
    waybill --quiet send k 1 --lane b
    waybill --quiet send still 1 --lane b
    try js doctor
    ended 1
    has "$(finding unrouted detail)" "1; 2 messages wait in lanes behind them"
    same false "$(finding unrouted ok)"
    waybill --quiet resume still
    try js doctor
    same "the oldest message of a paused kind waits for -" "$(finding paused detail)"
}

@test "doctor: a last drain of long ago is a problem only if something is due" {
    config <<<'route "k" { transport = "exec", argv = { "true" } }'
    waybill --quiet send k 1
    waybill --quiet drain
    try js doctor --last-drain 0s
    ended 0
    waybill --quiet send k 1 --in 1h
    try js doctor --last-drain 0s
    ended 0
}
