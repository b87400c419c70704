#!/usr/bin/env bats
# keys: what the idempotency store holds.
load helper

once() { "$WAYBILL" once "$@"; }

# doubt KEY: a key whose outcome is unknown
doubt() {
    once --key "$1" -- true
    python3 - "$WAYBILL_DB" "$1" <<'END'
import sqlite3, sys, time
db = sqlite3.connect(sys.argv[1])
db.execute("UPDATE waybill_idem SET state = 'unknown', status = NULL,"
           " ends_ms = ? WHERE key = ?",
           (int(time.time() * 1000) + 3600000, sys.argv[2]))
db.commit()
END
}

@test "keys list: fields, null where empty" {
    once --key k --identity me --ttl 1h -- sh -c 'printf 12345; exit 4' || same 4 $?
    once --key l --ttl 0s -- true
    try js keys list
    ended 0
    fields identity scope key state since_ms ends_ms status bytes
    same "me once k done 4" \
        "$(get 'select(.key=="k") | "\(.identity) \(.scope) \(.key) \(.state) \(.status)"')"
    same 3600000 "$(get 'select(.key=="k") | .ends_ms - .since_ms')"
    same "null null" "$(get 'select(.key=="l") | "\(.identity) \(.ends_ms)"')"
}

@test "keys list: a table for people" {
    once --key k -- true
    try waybill keys list
    ended 0
    has "$out" "KEY  SCOPE"
    has "$out" "k    once"
}

@test "keys list: nothing is 0" {
    try js keys list
    ended 0
    same "" "$out"
}

@test "keys list: --state, --identity, --scope, --limit" {
    once --key a -- true
    once --key b --identity me -- true
    doubt c
    same "a b" "$(js keys list --state done | jq -r .key | sort | xargs)"
    same c "$(js keys list --state unknown | jq -r .key)"
    same b "$(js keys list --identity me | jq -r .key)"
    same 3 "$(js keys list --scope once | wc -l)"
    same 0 "$(js keys list --scope other | wc -l)"
    same 2 "$(js keys list --limit 2 | wc -l)"
}

@test "keys show: the record" {
    once --key k -- printf 'text'
    try js keys show k
    ended 0
    fields identity scope key state since_ms ends_ms status bytes
    same text "$(get .body)"
    has "$(get '.headers[0]')" Stdout-Bytes
    once --key bytes -- printf '\377'
    try js keys show bytes
    same /w== "$(get .body_base64)"
    same false "$(get 'has("body")')"
    try waybill keys show k
    has "$out" "done"
}

@test "keys show: identity and scope are part of the name" {
    once --key k --identity me -- true
    try js keys show k
    ended 3
    try js keys show k --identity me --scope other
    ended 3
    try js keys show k --identity me
    ended 0
}

@test "keys show, release, settle: no such key is 3" {
    for verb in show release "settle --done"; do
        # shellcheck disable=SC2086
        try js keys $verb nothing
        ended 3
        same notfound "$(jq -r .error.code <<<"$err")"
    done
}

@test "keys release: a record is forgotten, the command runs again" {
    once --key k -- sh -c 'echo x >>runs.txt'
    try js keys release k
    ended 0
    same "k done true" "$(get '"\(.key) \(.was) \(.freed)"')"
    once --key k -- sh -c 'echo x >>runs.txt'
    same 2 "$(wc -l <runs.txt)"
}

@test "keys settle --done: replayed with this status and body" {
    doubt k
    try once --key k -- true
    ended 69
    has "$err" "waybill once: the command was not run: an earlier run under key k"
    try js keys settle k --done --status 3 --body 'it did'
    ended 0
    same "k done 3" "$(get '"\(.key) \(.state) \(.status)"')"
    try once --key k -- true
    ended 3
    same "it did" "$out"
    try js keys settle k --done
    ended 3
}

@test "keys settle --done: only what can be replayed" {
    doubt k
    usage keys settle k --done --status 256
    usage keys settle k --done --status -1
    try js keys settle k --done --status 0
    ended 0
    same 0 "$(get .status)"
    try once --key k -- true
    ended 0
    doubt h
    sqlite3 box.db "UPDATE waybill_idem SET scope = 'POST /h' WHERE key = 'h'"
    usage keys settle h --scope 'POST /h' --done --status 0
    usage keys settle h --scope 'POST /h' --done --status 600
    try js keys settle h --scope 'POST /h' --done
    ended 0
    same 200 "$(get .status)"
}

@test "keys: an option of another verb is refused, and nothing is done" {
    once --key k -- true
    usage keys release k --state unknown
    usage keys release k --limit 1
    usage keys show k --done
    usage keys list --status 3
    usage keys list --ttl 1h
    usage keys settle k --done --state unknown
    try js keys show k --quiet
    ended 0
}

@test "keys settle --not-applied: free" {
    doubt k
    try js keys settle k --not-applied
    ended 0
    try once --key k -- echo runs
    ended 0
    same runs "$out"
}

# orders: keys of a gateway, unknown but for one, and one of another scope
orders() {
    for key in a b c d other; do once --key $key --identity me -- true; done
    sqlite3 box.db "UPDATE waybill_idem SET scope = 'POST /orders' WHERE key <> 'other';
        UPDATE waybill_idem SET state = 'unknown', status = NULL WHERE key NOT IN ('d');
        UPDATE waybill_idem SET since_ms = since_ms - 3600000 WHERE key = 'a';
        UPDATE waybill_idem SET identity = 'you' WHERE key = 'b'"
}
states() { js keys list | jq -r '"\(.key):\(.state)"' | sort | xargs; }

@test "keys settle: all of a scope; a dry run changes nothing" {
    orders
    before=$(states)
    try js keys settle --scope 'POST /orders' --done --dry-run
    ended 0
    same "3 true" "$(get '"\(.total) \(.dry_run)"')"
    same '{"POST /orders":3}' "$(get '.by_scope | tojson')"
    same "$before" "$(states)"
    try js keys settle --scope 'POST /orders' --done
    ended 0
    same "3 false" "$(get '"\(.total) \(.dry_run)"')"
    same "a:done b:done c:done d:done other:unknown" "$(states)"
    same 200 "$(js keys show b --identity you --scope 'POST /orders' | jq .status)"
}

@test "keys settle, release: by identity, age, state, limit" {
    orders
    same 1 "$(js keys settle --older-than 30m --not-applied | jq .total)"
    same "b:unknown c:unknown d:done other:unknown" "$(states)"
    same 1 "$(js keys settle --identity you --not-applied | jq .total)"
    same 1 "$(js keys settle --scope once --done --status 3 | jq .total)"
    same "c:unknown d:done other:done" "$(states)"
    same 1 "$(js keys release --state unknown --dry-run | jq .total)"
    same 1 "$(js keys release --state unknown | jq .total)"
    same "d:done other:done" "$(states)"
    same 1 "$(js keys release --identity me --limit 1 | jq .total)"
    same 1 "$(js keys list | wc -l)"
}

@test "keys release: of many, a run in progress only where --state names it" {
    mkfifo go
    "$WAYBILL" once --key k -- sh -c 'echo >up; read _ <go' 3>&- &
    run=$!
    PIDS="$PIDS $run"
    for _ in $(seq 1000); do [ -s up ] && break || sleep 0.02; done
    once --key done -- true
    same 1 "$(js keys release --scope once | jq .total)"
    same sending "$(js keys list | jq -r .state)"
    same 1 "$(js keys release --scope once --state sending --dry-run | jq .total)"
    echo >go
    wait "$run"
    same done "$(js keys list | jq -r .state)"
}

@test "keys settle, release: what matches nothing is 0; a status that does not fit settles nothing" {
    orders
    try js keys release --scope none
    ended 0
    same 0 "$(get .total)"
    before=$(states)
    usage keys settle --older-than 0s --done --status 3
    same "$before" "$(states)"
    usage keys release
    usage keys release --dry-run
    usage keys settle --done
    usage keys release k --older-than 1h
    usage keys settle k --done --dry-run
    try waybill keys release --state unknown --dry-run
    has "$out" "4 keys would be released"
}

@test "keys: usage" {
    usage keys
    usage keys lst
    usage keys list k
    usage keys show
    usage keys show a b
    usage keys settle k
    usage keys settle k --done --not-applied
    usage keys settle k --done --status 70000
    usage keys list --state new
    usage keys show "$(printf 'a%.0s' $(seq 300))"
    try "$WAYBILL" keys relase k
    has "$err" "did you mean release"
}
