#!/usr/bin/env bats
# Bad input: each gets its own clear error (one line, what and what to do) and
# its own exit code, and nothing is accepted.
bats_require_minimum_version 1.5.0
load helper

# refused EXIT PIECE waybill ARGS...
refused() {
    local code=$1 piece=$2 got=0
    shift 2
    "$@" >out 2>err || got=$?
    same "$code" "$got" || { cat err; return 1; }
    same 1 "$(wc -l <err)" || { cat err; return 1; }
    [ ! -s out ] || { cat out; return 1; }
    grep -qF -- "$piece" err || { echo "no '$piece' in: $(cat err)"; return 1; }
}

nothing_accepted() { same '{}' "$(waybill --json status | jq -c .by_kind)"; }

long() { printf "%0$1d" 0; }

@test "kinds: empty, too long, upper case, spaces" {
    for kind in '' "$(long 65)" Upper 'two words' 'a/b' 'ü'; do
        refused 2 'not a kind' waybill send "$kind" '{}'
    done
    nothing_accepted
    waybill send "$(long 64)" '{}'
}

@test "keys and lanes: empty, too long, control characters" {
    for name in '' "$(long 256)" $'a\tb' $'a\nb' $'a\x7fb' $'\xff'; do
        refused 2 printable waybill send k '{}' --key "$name"
        refused 2 printable waybill send k '{}' --lane "$name"
    done
    nothing_accepted
    waybill send k '{}' --key "$(long 255)" --lane "$(long 255)"
}

@test "sizes: one byte too many" {
    head -c 1048577 /dev/zero >big
    refused 1 1048576 waybill send k - <big
    nothing_accepted
    head -c 1048576 big | waybill send k -
}

@test "headers: no colon, two lines, no name, control characters" {
    for header in nope $'A: b\nC: d' ': b' 'A B: c' $'A: \x01'; do
        refused 2 header waybill send k '{}' --header "$header"
    done
    nothing_accepted
}

@test "times and spans" {
    for time in yesterday 2026-13-01T00:00:00Z 2026-11-20 12345; do
        refused 2 'no time' waybill send k '{}' --at "$time"
    done
    for span in 5 5x -5s 1e9s '' 99999999999999999999d; do
        refused 2 duration waybill send k '{}' --in "$span"
    done
    refused 2 'exclude each other' waybill send k '{}' --at now --in 5s
    nothing_accepted
}

@test "ids and tokens" {
    refused 2 UUID waybill send k '{}' --id 123
    refused 2 token waybill confirm 01a1fa52-6075-7797-9ec3-8398932b3257 \
        --token abc
    refused 2 token waybill confirm 01a1fa52-6075-7797-9ec3-8398932b3257 \
        --token 0
    refused 3 'no message' waybill confirm \
        01a1fa52-6075-7797-9ec3-8398932b3257 --token 12
    refused 3 'no such message' waybill show 00000000
    nothing_accepted
}

@test "same key, other content: refused, the first one stands" {
    id=$(send k '{"n":1}' --key once)
    refused 1 'other content' waybill send k '{"n":2}' --key once
    same "$id" "$(send k '{"n":1}' --key once)"
    same '{"n":1}' "$(field "$id" payload)"
    same 1 "$(status_of pending)"
}

@test "words: unknown command, option and argument" {
    refused 2 "unknown command 'nosuch'" waybill nosuch
    refused 2 --nosuch waybill send k '{}' --nosuch
    refused 2 missing waybill send
    refused 2 send waybill send k '{}' more
}

@test "standard input closed" {
    refused 2 'standard input is closed' waybill send k - <&-
    refused 2 'standard input is closed' waybill send k --lines <&-
    nothing_accepted
}

@test "database: a folder, no database, foreign tables, a newer version" {
    mkdir folder
    refused 1 folder waybill --db folder send k '{}'
    echo 'not a database at all' >text.db
    refused 1 'not a database' waybill --db text.db send k '{}'
    same 'not a database at all' "$(cat text.db)"
    sqlite3 foreign.db 'CREATE TABLE waybill_outbox(x)'
    refused 1 foreign.db waybill --db foreign.db send k '{}'
    waybill --quiet --db newer.db pause none # makes it
    sqlite3 newer.db "UPDATE waybill_meta SET value = 999
        WHERE name = 'version'"
    refused 1 newer waybill --db newer.db send k '{}'
}

@test "database: nobody may read it" {
    refused 1 /proc/nope waybill --db /proc/nope/x.db send k '{}'
    waybill --quiet --db shut.db pause none # makes it
    chmod 000 shut.db
    if [ "$(id -u)" -eq 0 ]; then
        # root reads everything: ask as somebody else
        chmod 755 "$BATS_TEST_TMPDIR" "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/test"
        refused 1 "cannot open shut.db" setpriv --reuid 65534 --clear-groups \
            "$WAYBILL" --config config.lua --db shut.db send k '{}'
    else
        refused 1 shut.db waybill --db shut.db send k '{}'
    fi
}

@test "configuration: not there, not Lua, unknown name, wrong type, secret" {
    refused 1 /nope.lua waybill --config /nope.lua send k '{}'
    echo 'route "k" ]' >bad.lua
    refused 1 bad.lua:1 waybill --config bad.lua drain
    printf 'route "k" {\n url = "http://127.0.0.1/",\n timout = "5s" }\n' \
        >bad.lua
    refused 1 bad.lua:3 waybill --config bad.lua drain
    grep -q timeout err
    printf 'route "k" { url = 5 }\n' >bad.lua
    refused 1 bad.lua:1 waybill --config bad.lua drain
    printf 'route "k" { url = "http://127.0.0.1/",\n secret = env "WAYBILL_TEST_SECRET" }\n' >bad.lua
    run -4 --separate-stderr waybill --config bad.lua drain
    [[ "$stderr" == *WAYBILL_TEST_SECRET* ]]
    nothing_accepted
}

@test "a bad line among good ones: its number, the others kept, exit 4" {
    {
        echo '{"n":1}'
        head -c 1048577 /dev/zero | tr '\0' x
        echo
        echo '{"n":3}'
    } >lines
    run -4 --separate-stderr waybill --json send k --lines <lines
    same 2/0/1 "$(report accepted)/$(report duplicates)/$(report rejected)"
    [[ "$stderr" == *2* ]]
    same 2 "$(status_of pending)"
}

@test "errors under --json are one object on stderr" {
    run -2 --separate-stderr waybill --json send 'Bad Kind' '{}'
    same '' "$output"
    same usage "$(echo "$stderr" | jq -r .error.code)"
    [ -n "$(echo "$stderr" | jq -r .error.message)" ]
}

@test "a full stdout is a failure" {
    send k '{}' >/dev/null
    got=0
    waybill --json status >/dev/full 2>err || got=$?
    same 1 "$got"
    [ -s err ]
}

@test "files: 0600, folder 0700" {
    waybill --quiet --db new/deep/box.db send k '{}'
    same 600 "$(stat -c %a new/deep/box.db)"
    same 700/700 "$(stat -c %a new)/$(stat -c %a new/deep)"
}
