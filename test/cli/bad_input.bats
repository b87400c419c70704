#!/usr/bin/env bats
# What people and programs get wrong: each is refused with the right code and a
# word that helps, and changes nothing.
load helper

nothing_kept() {
    [ ! -e box.db ] || same 0 "$(js status | jq '.pending + .held')"
}

not_kinds=("" A Order "a b" a/b "a:b" 'a*' "$(printf 'k%.0s' {1..65})" $'a\n' ü
    'a;b')

@test "kinds: send, pause, resume" {
    for kind in "${not_kinds[@]}"; do
        usage send "$kind" x
        usage pause "$kind"
        usage resume "$kind"
    done
    nothing_kept
    waybill send "$(printf 'k%.0s' {1..64})" x
    waybill send _.- x
}

@test "kinds: list, drain, claim, retry" {
    for kind in "${not_kinds[@]}"; do
        usage list --kind "$kind"
        usage drain --kind "$kind"
        usage claim --kind "$kind"
        usage retry --abandoned --kind "$kind"
    done
    nothing_kept
}

@test "keys and lanes: 1 to 255 bytes, printable" {
    long=$(printf 'x%.0s' {1..256})
    for name in "" "$long" $'a\nb' $'a\tb' $'\177' $'\xff'; do
        usage send k x --key "$name"
        usage send k x --lane "$name"
    done
    nothing_kept
    waybill send k x --key "${long:1}" --lane "${long:1}"
    waybill send k x --key 'ключ 7 / ☃'
    usage send k --lines --key-prefix "${long:21}"
    echo x | waybill send k --lines --key-prefix "${long:22}"
}

not_ids=("" x 1 "${NOBODY}0" "${NOBODY:1}" "{$NOBODY}"
    0190000000007000800000000000000000 zzzzzzzz-0000-7000-8000-000000000000)

@test "ids: send, confirm, release" {
    for id in "${not_ids[@]}"; do
        usage send k x --id "$id"
        usage confirm "$id" --token 1
        usage release "$id" --token 1
    done
    nothing_kept
}

@test "ids: fail, extend, retry, discard" {
    for id in "${not_ids[@]}"; do
        usage fail "$id" --token 1 --error x
        usage extend "$id" --token 1 --lease 1s
        usage retry "$id"
        usage discard "$id"
    done
    nothing_kept
}

@test "tokens" {
    for token in "" 0 -1 x 1.5 18446744073709551616 ' 1' 0x1; do
        usage confirm "$NOBODY" --token "$token"
    done
    try waybill confirm "$NOBODY" --token 18446744073709551615
    ended 3
    nothing_kept
}

not_durations=("" 5 5x m -1s 1.5h '1 s' 1h30m 9999999999999999999s 1S)

@test "durations: send, claim, drain, extend" {
    for d in "${not_durations[@]}"; do
        usage send k x --in "$d"
        usage claim --lease "$d"
        usage drain --for "$d"
        usage extend "$NOBODY" --token 1 --lease "$d"
    done
    usage claim --lease 0s
    usage drain --for 0
    usage extend "$NOBODY" --token 1 --lease 0s
    nothing_kept
}

@test "durations: fail, reset-stale, retry" {
    for d in "${not_durations[@]}"; do
        usage fail "$NOBODY" --token 1 --error x --retry-after "$d"
        usage reset-stale --older-than "$d"
        usage retry --abandoned --older-than "$d"
    done
    nothing_kept
}

@test "times" {
    for t in "" tomorrow 2031-02-03 2031-02-30T00:00:00Z 2031-13-01T00:00:00Z \
        2031-02-03T25:00:00Z 2031-02-03T04:05:06 1927857906 \
        2031-02-03T04:05:06+99:00; do
        usage send k x --at "$t"
        usage send k x --expires "$t"
    done
    usage send k x --at now --in 5m
    nothing_kept
}

@test "numbers" {
    for n in "" 0 -1 x 1.5 99999999999999999999 1k; do
        usage list --limit "$n"
        usage drain --max "$n"
        usage claim --max "$n"
        usage drain --concurrency "$n"
        usage retry --abandoned --limit "$n"
    done
    usage claim --max 1025
    usage list --status done
    usage list --status ''
}

@test "headers" {
    for h in "" X ": v" "X Y: v" $'X: a\nY: b' $'X: a\r' $'X: \001' "X\": v" \
        $'X: \177' "Ü: v"; do
        usage send k x --header "$h"
    done
    usage send k x --header "X: $(printf 'v%.0s' {1..70000})"
    for name in Host idempotency-key Content-Length Webhook-Id Content-Type; do
        usage send k x --header "$name: v"
        has "$err" "$name"
    done
    nothing_kept
    waybill send k x --header 'X:' --header 'Y: a:b'
}

@test "content type" {
    for t in "" $'a\nb' $'a/b\001'; do usage send k x --content-type "$t"; done
    nothing_kept
}

@test "options of send that exclude each other" {
    usage send k x --lines
    usage send k --lines --key a
    usage send k --lines --id "$NOBODY"
    usage send k x --key-prefix p
    nothing_kept
}

@test "stdin closed where it is needed" {
    for more in "" - --lines; do
        try bash -c '"$0" --json send k $1 <&-' "$WAYBILL" "$more"
        ended 2
        has "$err" "standard input is closed"
    done
    nothing_kept
}

@test "stdin is a folder" {
    for more in "" --lines; do
        try bash -c '"$0" --json send k $1 <.' "$WAYBILL" "$more"
        ended 1
        has "$err" "standard input"
    done
    nothing_kept
}

@test "database: a folder, a foreign file, an empty file, no rights, a device" {
    mkdir folder
    try js --db folder status
    ended 1
    has "$err" folder
    echo "no database at all, but longer than the head of one ............" >x
    for _ in {1..20}; do cat x; done >foreign
    before=$(md5sum <foreign)
    for command in "send k x" status list claim doctor drain; do
        # shellcheck disable=SC2086
        try js --db foreign $command
        ended 1
    done
    same "$before" "$(md5sum <foreign)"
    try waybill --db foreign status
    has "$err" "foreign: file is not a database; give"
    : >empty
    waybill --db empty send k x
    try js --db /dev/null status
    ended 1
    waybill --db file/in/it send k x
    try js --db file/in/it status
    ended 0
    try js --db file/in/other status
    ended 1
    try js --db x/below/a/file status
    ended 1
    if [ "$(id -u)" -ne 0 ]; then
        : >secret.db && chmod 0 secret.db
        try js --db secret.db status
        ended 1
    fi
}

@test "database: a URL of something else makes no folders" {
    for url in http://x mysql://host/db postgress://host/db; do
        try waybill --db "$url" send k x
        ended 1
        has "$err" "is no kind of database; give a path, or postgres://"
    done
    same "" "$(find . -name '*:*')"
}

@test "database: a ~ that no shell has read is no folder" {
    for db in --db=~/x.db "--db=~/x.db"; do
        try waybill "$db" send k x
        ended 1
        has "$err" "write the path in full"
    done
    WAYBILL_DB='~/x.db' try waybill status
    ended 1
    [ ! -e '~' ]
    waybill --db './~/x.db' send k x
}

# Root may write anywhere, so it becomes somebody else, in a folder of theirs.
@test "database: in a folder that may only be read" {
    as=()
    ro=$(mktemp -d)
    if [ "$(id -u)" -eq 0 ]; then
        as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
        chown 65534 "$ro"
    fi
    "${as[@]}" "$WAYBILL" --db "$ro/x.db" send k x || skip "no other user"
    chmod 555 "$ro"
    try "${as[@]}" "$WAYBILL" --db "$ro/x.db" status
    ended 0 # reading needs no right to write
    try "${as[@]}" "$WAYBILL" --db "$ro/x.db" send k x
    chmod 755 "$ro" && rm -r "$ro"
    ended 1
    has "$err" "its folder may only be read"
}

@test "database: a full disk is reported with its fix" {
    waybill send k x
    try bash -c 'ulimit -f 200; head -c 900000 /dev/zero | "$0" send k' "$WAYBILL"
    ended 75
    has "$err" "no room: make some on the disk"
}

@test "database: a disk too full to make or to open it: 75" {
    full=0
    for blocks in 1 2 3 4 8 16 20 32 40 64 200; do
        rm -f box.db*
        for _ in new there; do # the message goes into a pipe, not a file
            status=0
            err=$(ulimit -f $blocks && "$WAYBILL" send k x 2>&1) || status=$?
            [ "$status" != 0 ] || continue
            ended 75
            has "$err" "no room: make some on the disk"
            full=$((full + 1))
            waybill --quiet pause none # makes the database
        done
    done
    [ "$full" -ge 15 ]
    same 2 "$(status_of pending)"
}

@test "database: another program's tables of our name" {
    sqlite3 theirs.db 'CREATE TABLE waybill_outbox(x)'
    try js --db theirs.db send k x
    ended 1
    same corrupt "$(jq -r .error.code <<<"$err")"
    same 'CREATE TABLE waybill_outbox(x)' \
        "$(sqlite3 theirs.db 'SELECT sql FROM sqlite_master')"
}

@test "database: another program's own tables stay as they are" {
    sqlite3 app.db 'CREATE TABLE orders(n); INSERT INTO orders VALUES(7);
        PRAGMA user_version=42; PRAGMA application_id=4711'
    waybill --db app.db send k x
    same 7/42/4711 "$(sqlite3 app.db 'SELECT n FROM orders; PRAGMA user_version;
        PRAGMA application_id' | paste -sd/)"
}

@test "database: written by a newer version" {
    waybill send k x
    sqlite3 box.db "UPDATE waybill_meta SET value = '99' WHERE name = 'version'"
    for command in "send k x" status doctor; do
        # shellcheck disable=SC2086
        try js $command
        ended 1
    done
    try js status
    same newer "$(jq -r .error.code <<<"$err")"
}

@test "database: damaged" {
    seq 2000 | waybill --quiet send k --lines
    printf 'garbage garbage garbage' |
        dd of=box.db bs=1 seek=4096 conv=notrunc status=none
    try js doctor
    ended 1
    jq -e '.checks | map(select(.ok | not)) | length > 0' <<<"$out"
    try js list
    ended 1
    has "$err" "malformed; see waybill doctor, and restore a backup"
}

@test "database locked by another program: 75, and the same again works" {
    waybill send k x
    config <<<'outbox { busy = "100ms" }'
    mkfifo go
    sqlite3 box.db >locked <<'END' 3>&- &
BEGIN IMMEDIATE;
SELECT 'locked';
.shell read -r _ <go
COMMIT;
END
    PIDS=$!
    until_true 10 [ -s locked ]
    try js send k y
    ended 75
    same busy "$(jq -r .error.code <<<"$err")"
    try js send k --lines --key-prefix p < <(seq 3)
    ended 75
    has "$err" "line 1"
    same 0 "$(get .accepted)"
    echo >go
    wait "$PIDS"
    PIDS=
    waybill send k y
    same 2 "$(status_of pending)"
}

@test "configuration: a mistake is reported with file and line" {
    for text in 'route()' 'route "k" { url = 7 }' 'route "k" { url = "ftp://x" }' \
        'route "k" { ulr = "http://x/" }' 'outbox { max_rows = -1 }' \
        'route "K" { url = "http://x/" }' '{"json": true}' 'x = )' \
        'error("no")' 'os.execute("touch hacked")' 'while true do end' \
        'route "k" { url = "http://x/", headers = { X = "a\nb" } }'; do
        printf -- '-- first line\n%s\n' "$text" >c.lua
        try js --config c.lua drain
        ended 1
        same "" "$out"
        has "$(jq -r .error.message <<<"$err")" "c.lua:2"
    done
    [ ! -e hacked ]
    mkdir folder.lua
    try js --config folder.lua drain
    ended 1
    head -c 100000 /dev/urandom >noise.lua
    try js --config noise.lua drain
    ended 1
}

@test "configuration: too large is reported with the limit" {
    head -c 1100000 /dev/zero | tr '\0' ' ' >big.lua
    try waybill --config big.lua status
    ended 1
    has "$err" "big.lua: more than 1 MiB"
}

@test "configuration: a missing secret stops drains, not senders" {
    config <<<'route "k" { url = "http://127.0.0.1:9/", secret = env "NO_SUCH" }'
    waybill send k x
    try js claim
    ended 0
    try js drain
    ended 4
    same unavailable "$(jq -r .error.code <<<"$err")"
    has "$err" NO_SUCH
}

@test "configuration: a mistake in a route stops drain and run, not send" {
    local mistake
    for mistake in 'route "k" { ulr = "http://x/" }' 'route "k" { url = )' 'error("no")' \
        'relay { lease = 1 }' 'x = )'; do
        config <<<'outbox { max_payload = "10" }
'"$mistake"
        try waybill send k x
        ended 0
        has "$err" config.lua:2
        has "$err" "drain and run will not start"
        try js send k x --drain
        ended 0
        same null "$(get .drain)"
        try js drain
        ended 1
        try js run
        ended 1
        try js doctor
        ended 1
    done
    config </dev/null
    same 10 "$(status_of pending)"
    config <<<'route "k" { ulr = "http://x/" }
outbox { max_payload = "10" }'
    try js send k 12345678901
    ended 1
    config <<<'outbox { max_paylod = "10" }'
    try js send k x
    ended 1
    has "$err" max_payload
}

@test "configuration: a route that cannot start stops its own kind, and says so" {
    config <<'END'
route "good" { transport = "file", path = "out.ndjson" }
route "folder" { transport = "file", path = "none/out.ndjson" }
route "secret.*" { url = "http://127.0.0.1:9/", secret = env "NO_SUCH" }
route "command" { transport = "exec", argv = { "no-such-command" } }
route "ca" { url = "https://127.0.0.1:9/", ca_file = "none.pem" }
END
    for kind in good folder secret.a command ca; do
        waybill send "$kind" '{}'
    done
    try js drain
    ended 4
    same "1 1" "$(get .attempted) $(get .confirmed)"
    same "folder secret.* command ca" "$(get '[.routes_failed[].kind] | join(" ")')"
    has "$(get '.routes_failed[0].error')" 'config.lua:2: route "folder"'
    same 4 "$(jq -r .error.code <<<"$err" | grep -c unavailable)"
    same 1 "$(wc -l <etc/waybill/out.ndjson)"
    try waybill drain
    ended 4
    has "$err" "none.pem"
    has "$out" "nothing attempted"
    try js drain --kind good
    ended 3
    same 0 "$(get '.routes_failed | length')"
    try js drain --kind folder
    ended 4
    same not-ready "$(get .reason)"
    waybill drain || true
    try waybill status
    ended 0
    has "$out" 'route command cannot start'
    try js status
    same 4 "$(get '.routes_failed | length')"
    try js doctor
    ended 1
    same 4 "$(get '[.checks[] | select(.name == "config" and (.ok | not))] | length')"
    has "$out" 'is in no folder of PATH'
    mkdir etc/waybill/none
    export NO_SUCH=0123456789abcdef01234567
    config <<'END'
route "good" { transport = "file", path = "out.ndjson" }
route "folder" { transport = "file", path = "none/out.ndjson" }
route "command" { transport = "exec", argv = { "true" } }
END
    try js drain
    ended 0
    same "2 0" "$(get .confirmed) $(get '.routes_failed | length')"
    try js status
    same 0 "$(get '.routes_failed | length')"
}

@test "configuration: two routes of one kind" {
    config <<'END'
route "k" { transport = "file", path = "a" }
route "k" { transport = "file", path = "b" }
END
    try js drain
    ended 1
}

@test "sink: bad addresses, shares and files" {
    for a in "" nowhere 127.0.0.1 127.0.0.1:99999 127.0.0.1:x; do
        usage sink --listen "$a" --into f
    done
    for p in "" 2 -1 x 101% 1.0000001; do
        usage sink --listen 127.0.0.1:0 --into f --fail "$p"
        usage sink --listen 127.0.0.1:0 --into f --drop "$p"
    done
    usage sink --listen 127.0.0.1:0 --into f --status 99
    try waybill sink --listen 127.0.0.1:0 --into .
    ended 1
}
