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
    for verb in show release "settle --done" "settle --ask true"; do
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

# gone PID: it ends, whether it was reaped or not
gone() {
    for _ in $(seq 1000); do
        [[ "$(ps -o stat= -p "$1")" == [!Z]* ]] || return 0
        sleep 0.02
    done
    return 1
}

@test "keys settle --ask: the exit status decides; else the key is left and reported" {
    orders
    cat >ask <<'CMD'
echo "$WAYBILL_KEY $WAYBILL_SCOPE $WAYBILL_IDENTITY" >>asked
case $WAYBILL_KEY in
    a) printf 'made' ;;
    b) printf 'not made'; exit 3 ;;
    c) echo 'no connection' >&2; exit 7 ;;
    other) kill -9 $$ ;;
esac
CMD
    try js keys settle --state unknown --ask 'sh ./ask' --ttl 1h
    ended 4
    same "2 1 1 2 false" "$(jq -r '.total, .done, .freed, .left, .dry_run' <<<"$out" | xargs)"
    same '{"POST /orders":2}' "$(get '.by_scope | tojson')"
    same "a POST /orders me,b POST /orders you,c POST /orders me,other once me," \
        "$(sort asked | tr '\n' ,)"
    same "a:done c:unknown d:done other:unknown" "$(states)"
    has "$err" "no connection"
    has "$err" "key c: the command exited with 7"
    same made "$(js keys show a --identity me --scope 'POST /orders' | jq -r .body)"
    same 200 "$(js keys show a --identity me --scope 'POST /orders' | jq -r .status)"
    try waybill keys settle --scope once --ask 'exit 1' # as one with a mistake
    ended 4
    try waybill keys settle --scope once --ask 'echo mine; kill -9 $$'
    ended 4
    has "$err" "signal 9"
    has "$out" "0 keys settled: 0 done, 0 freed; 1 left as they were"
}

@test "keys settle --ask: --status and --body are those of the record; one key by name" {
    doubt k
    try js keys settle k --ask 'echo asked' --status 3 --body mine
    ended 0
    same "1 0 0" "$(jq -r '.done, .freed, .left' <<<"$out" | xargs)"
    try once --key k -- true
    ended 3
    same mine "$out"
    try js keys settle k --ask true
    ended 3
    try js keys settle nothing --ask true
    ended 3
    doubt l
    try js keys settle l --ask 'echo told; echo aside >&2'
    ended 0
    same aside "$err"
    try once --key l -- true
    ended 0
    same told "$out"
}

@test "keys settle --ask: a dry run lists the keys and runs nothing" {
    orders
    before=$(states)
    try js keys settle --scope 'POST /orders' --ask 'echo x >>ran' --dry-run
    ended 0
    same "3 0 0 0 true" "$(jq -r '.total, .done, .freed, .left, .dry_run' <<<"$out" | xargs)"
    same "a:me b:you c:me" "$(get '.keys | map("\(.key):\(.identity)") | sort | .[]' | xargs)"
    try waybill keys settle --scope 'POST /orders' --ask 'echo x >>ran' --dry-run
    ended 0
    has "$out" "you"
    has "$out" "3 keys would be asked about"
    [ ! -e ran ]
    same "$before" "$(states)"
}

@test "keys settle --ask: a command past its time is killed with what it started" {
    doubt k
    try js keys settle k --ask 'sleep 600 & echo $! >pid; wait' --ask-timeout 1s
    ended 4
    same 1 "$(get .left)"
    has "$err" "did not end within 1"
    gone "$(cat pid)"
    same k:unknown "$(states)"
}

@test "keys settle --ask: what it left in the background does not hold the answer" {
    doubt k
    try js keys settle k --ask 'sleep 600 & echo $! >pid; echo told'
    ended 0
    gone "$(cat pid)"
    same told "$(js keys show k | jq -r '.body | rtrimstr("\n")')"
}

@test "keys settle --ask: output of more than 1 MiB settles nothing" {
    doubt k
    try js keys settle k --ask 'head -c 1048577 /dev/zero'
    ended 4
    has "$err" "longer than 1 MiB"
    same k:unknown "$(states)"
    try js keys settle k --ask 'head -c 1048577 /dev/zero' --body short
    ended 0
}

@test "keys settle --ask: a key that changed meanwhile is not touched" {
    doubt k
    doubt l
    try js keys settle --scope once --ask \
        '[ -e once ] || for k in k l; do "'"$WAYBILL"'" keys settle $k --done --body other; done >&2; >once'
    ended 0
    same "0 0 0" "$(jq -r '.done, .freed, .left' <<<"$out" | xargs)"
    same other "$(js keys show k | jq -r .body)"
    same other "$(js keys show l | jq -r .body)"
    doubt m # unknown again, of another run
    try js keys settle m --ask \
        "sqlite3 box.db \"UPDATE waybill_idem SET since_ms = since_ms + 1 WHERE key = 'm'\""
    ended 0
    same 0 "$(get .done)"
    has "$(states)" m:unknown
}

@test "keys settle --ask: TERM ends the command; this key and the rest are left" {
    doubt k
    doubt l
    mkfifo up
    "$WAYBILL" --json keys settle --scope once --ask 'echo $$ >up; sleep 600' \
        >out.txt 2>err.txt 3>&- &
    run=$!
    PIDS="$PIDS $run"
    read -r command <up
    kill "$run"
    status=0
    wait "$run" || status=$?
    same 4 "$status"
    same 2 "$(jq .left out.txt)"
    gone "$command"
    same "k:unknown l:unknown" "$(states)"
}

@test "keys: usage" {
    usage keys
    usage keys lst
    usage keys list k
    usage keys show
    usage keys show a b
    usage keys settle k
    usage keys settle k --done --not-applied
    usage keys settle k --done --ask true
    usage keys settle --scope once --not-applied --ask true
    usage keys settle --ask true
    usage keys settle k --ask true --ask-timeout 0s
    usage keys release k --ask true
    usage keys settle k --done --status 70000
    usage keys list --state new
    usage keys show "$(printf 'a%.0s' $(seq 300))"
    try "$WAYBILL" keys relase k
    has "$err" "did you mean release"
}
