#!/usr/bin/env bats
# send: one message, and one a line.
load helper

@test "send: exit 0, id seq duplicate, message pending" {
    try js send order.placed '{"n":1}'
    ended 0
    fields id seq duplicate
    same 1/false "$(get '"\(.seq)/\(.duplicate)"')"
    id=$(get .id)
    same 36 "${#id}"
    same pending "$(row "$id" status)"
    same '{"n":1}' "$(row "$id" payload)"
    same application/json "$(row "$id" content_type)"
}

@test "send: people get the bare id" {
    try waybill send k x
    ended 0
    same "$(js list | jq -r .id)" "$out"
    try waybill --quiet send k x
    ended 0
    same "" "$out$err"
}

@test "send: payload from stdin where there is no argument, or -" {
    id=$(printf 'a\nb\n' | send k)
    same $'a\nb' "$(row "$id" payload)"
    id=$(printf 'c' | send k -)
    same c "$(row "$id" payload)"
    id=$(send k </dev/null)
    same "" "$(row "$id" payload)"
    same string "$(js show "$id" | jq -r '.payload | type')"
}

@test "send: bytes that are no UTF-8 come back as payload_base64" {
    id=$(printf '\377\000\001' | send k)
    same '/wAB' "$(row "$id" payload_base64)"
    same false "$(row "$id" 'payload | . != null')"
    js show "$id" | jq -e 'has("payload") | not'
}

@test "send: NUL in UTF-8 text is kept" {
    id=$(printf 'a\000b' | send k)
    same '"a\u0000b"' "$(js show "$id" | jq -c .payload)"
}

@test "send O-4: same key twice is one message" {
    try js send k x --key order:7
    first=$(get .id)
    try js send k x --key order:7
    ended 0
    same "$first/true" "$(get '"\(.id)/\(.duplicate)"')"
    same 1 "$(status_of pending)"
}

@test "send O-4: same id twice is one message, either case" {
    id=0193f5a2-7c1e-7aaa-8000-3f1f2a6c9d10
    try js send k x --id "$id"
    same "$id/false" "$(get '"\(.id)/\(.duplicate)"')"
    try js send k x --id 0193F5A2-7C1E-7AAA-8000-3F1F2A6C9D10
    same "$id/true" "$(get '"\(.id)/\(.duplicate)"')"
}

@test "send O-4: a key is known after delivery too" {
    js send k x --key a
    claim
    waybill confirm "$id" --token "$token"
    try js send k x --key a
    same "$id/true" "$(get '"\(.id)/\(.duplicate)"')"
    same 0 "$(status_of pending)"
}

@test "send O-4: same key, other content: exit 1, mismatch, nothing changed" {
    js send k x --key a
    try js send k y --key a
    ended 1
    same "" "$out"
    same mismatch "$(jq -r .error.code <<<"$err")"
    same 1 "$(status_of pending)"
}

@test "send: a time that cannot be: refused, and what to give instead" {
    try waybill send k x --in 99999999999d
    ended 2
    has "$err" "9999"
    try waybill send k x --expires 99999999999d
    ended 2
    try waybill send k x --expires 2001-01-01T00:00:00Z
    ended 2
    has "$err" "expired already"
    try waybill --json list
    same "" "$out"
}

@test "send: --at, --in and --expires set the times" {
    id=$(send k x --at 2031-02-03T04:05:06Z)
    same 1927857906000 "$(row "$id" due_ms)"
    id=$(send k x --at 2031-02-03T06:05:06+02:00)
    same 1927857906000 "$(row "$id" due_ms)"
    before=$(now_ms)
    id=$(send k x --in 2h --expires 3d)
    due=$(row "$id" due_ms)
    [ "$due" -ge $((before + 7200000)) ]
    [ "$due" -le $(($(now_ms) + 7200000)) ]
    expires=$(row "$id" expires_ms)
    [ "$expires" -ge $((before + 259200000)) ]
    id=$(send k x --expires 2031-02-03T04:05:06Z)
    same 1927857906000 "$(row "$id" expires_ms)"
    same null "$(row "$(send k x --at now)" expires_ms)"
}

@test "send: what is not due is not claimed" {
    send k x --in 1h
    try js claim
    ended 3
    same empty "$(get .reason)"
    [ "$(get .next_due_ms)" -gt "$(now_ms)" ]
}

@test "send O-16: messages of a lane after the first are held" {
    a=$(send k 1 --lane l)
    b=$(send k 2 --lane l)
    same pending/held "$(row "$a" status)/$(row "$b" status)"
    same l "$(row "$b" lane)"
    same 1 "$(status_of held)"
}

@test "send O-19: headers and content type are kept" {
    id=$(send k x --header 'X-Trace: a b ' --header tenant:7 \
        --content-type text/plain)
    same '["X-Trace: a b","tenant: 7"]' \
        "$(js show "$id" | jq -c .headers)"
    same text/plain "$(row "$id" content_type)"
}

@test "send: options as --o=v, before and after the command, -- ends them" {
    id=$(waybill --json --db=other.db send --key=a k -- --json | jq -r .id)
    same --json "$(waybill show --json --db other.db "$id" | jq -r .payload)"
    same a "$(waybill --db other.db --json show "$id" | jq -r .key)"
}

@test "send --drain: accepted is 0 whatever the drain comes to" {
    try js send k x --drain
    ended 0
    same not-ready "$(get .drain.reason)"
    same 1 "$(status_of pending)"
    same 1 "$(wc -l <out.txt)"
    try waybill send k x --drain
    ended 0
    same 1 "$(wc -l <out.txt)"
    has "$err" not-ready
}

@test "send --lines: counts, payloads as they are, empty lines too" {
    try js send k --lines < <(printf '{"a":1}\n\n  b \nlast')
    ended 0
    fields accepted duplicates rejected
    same 4/0/0 "$(get '"\(.accepted)/\(.duplicates)/\(.rejected)"')"
    same '["{\"a\":1}","","  b ","last"]' "$(for i in $(js list |
        jq -r .id); do js show "$i"; done | jq -sc 'map(.payload)')"
}

@test "send --lines: a byte order mark and CR LF are no part of a payload" {
    printf '\xef\xbb\xbf{"a":1}\r\n2\r\n\xef\xbb\xbf3\n' |
        waybill --quiet send k --lines
    same '["{\"a\":1}","2","\ufeff3"]' "$(for i in $(js list |
        jq -r .id); do js show "$i"; done | jq -sac 'map(.payload)')"
}

@test "send: a payload that is not JSON, a kind without a route: said" {
    try waybill send k '{"a":1'
    ended 0
    has "$err" "not JSON"
    try waybill send k x --content-type text/plain
    same "" "$err"
    try waybill send k 17
    same "" "$err"
    try waybill send k --lines <<<'not json'
    has "$err" "not JSON"
    echo 'route "order.paid" { transport = "file", path = "/tmp/x" }' >config.lua
    try waybill send order.payed 1 --config config.lua
    ended 0
    has "$err" "no route"
    has "$err" "order.payed"
    try waybill send order.paid 1 --config config.lua
    same "" "$err"
    try js send order.payed 1 --config config.lua
    same "" "$err"
}

@test "send --lines: nothing in, nothing accepted, exit 0" {
    try js send k --lines </dev/null
    ended 0
    same 0 "$(get .accepted)"
}

@test "send --lines --key-prefix: key is P:<line number>, run again is safe" {
    seq 3 >three
    try js send k --lines --key-prefix june <three
    same 3 "$(get .accepted)"
    same june:1,june:2,june:3 "$(js list | jq -rs 'map(.key) | join(",")')"
    seq 5 >five
    try js send k --lines --key-prefix june <five
    ended 0
    same 2/3/0 "$(get '"\(.accepted)/\(.duplicates)/\(.rejected)"')"
    same 5 "$(status_of pending)"
}

@test "send --lines: bad lines are reported with their number, exit 4" {
    { echo one; head -c 1048577 /dev/zero | tr '\0' x; echo; echo three
      head -c 5000000 /dev/zero | tr '\0' y; echo; echo five; } >lines
    try js send k --lines --key-prefix p <lines
    ended 4
    same 3/0/2 "$(get '"\(.accepted)/\(.duplicates)/\(.rejected)"')"
    same toobig,toobig "$(jq -rs 'map(.error.code) | join(",")' err.txt)"
    has "$err" "line 2:"
    has "$err" "line 4:"
    same p:1,p:3,p:5 "$(js list | jq -rs 'map(.key) | join(",")')"
}

@test "send --lines: a key with other content is a bad line" {
    echo a | waybill send k --lines --key-prefix p
    try waybill send k --lines --key-prefix p < <(printf 'b\nc\n')
    ended 4
    has "$err" "waybill send: line 1:"
    same "1 accepted, 0 duplicates, 1 rejected" "$out"
}

@test "send --lines: a payload of exactly the limit is taken" {
    head -c 1048576 /dev/zero | tr '\0' x >line
    try js send k --lines <line
    ended 0
    same 1 "$(get .accepted)"
}

@test "send --lines: 12,345 lines over many commits, all there in order" {
    try js send k --lines < <(seq 12345)
    same 12345 "$(get .accepted)"
    same 12345 "$(status_of pending)"
    id=$(js list | jq -rs '.[9999].id')
    same 10000 "$(row "$id" payload)"
}

@test "send --lines: a slow producer's lines do not wait for its next ones" {
    mkfifo lines
    "$WAYBILL" --quiet send k --lines <lines 3>&- &
    PIDS=$!
    exec 9>lines
    echo one >&9
    until_true 10 there 1
    echo two >&9
    until_true 10 there 2
    exec 9>&-
    wait "$PIDS"
}

there() { [ "$(status_of pending)" = "$1" ]; }

@test "send --lines: full: exit 75, counts, and the line to go on at" {
    config <<<'outbox { max_rows = 5 }'
    try js send k --lines --key-prefix p < <(seq 20)
    ended 75
    same full "$(jq -r .error.code <<<"$err")"
    has "$err" "go on at line 6"
    same 5/0 "$(get '"\(.accepted)/\(.rejected)"')"
}

@test "send O-5: full: exit 75, nothing lost" {
    config <<<'outbox { max_rows = 1 }'
    waybill send k 1
    try js send k 2
    ended 75
    same full "$(jq -r .error.code <<<"$err")"
    same 1 "$(status_of pending)"
}

@test "send O-5: larger than the limit: exit 1, toobig" {
    config <<<'outbox { max_payload = "1k" }'
    id=$(head -c 1024 /dev/zero | send k)
    same pending "$(row "$id" status)"
    try js send k < <(head -c 1025 /dev/zero)
    ended 1
    same toobig "$(jq -r .error.code <<<"$err")"
    try js send k < <(head -c 3000000 /dev/zero)
    ended 1
    same 1 "$(status_of pending)"
}

@test "send --lines: a signal ends it between two lines, and says where to go on" {
    for signal in INT TERM; do
        rm -f box.db* go
        { printf '1\n2\npart'; until [ -e go ]; do sleep 0.02; done; } |
            env --default-signal=INT "$WAYBILL" send k --lines >out.txt \
                2>err.txt 3>&- &
        PIDS=$!
        until_true 10 two_pending
        kill -"$signal" "$PIDS"
        [ "$signal" = INT ] || kill -TERM "$PIDS" || :
        status=0
        : >go
        wait "$PIDS" || status=$?
        PIDS=
        out=$(cat out.txt) err=$(cat err.txt)
        ended 1
        has "$err" "interrupted; stopped: go on at line 3"
        has "$out" "2 accepted"
        same 2 "$(status_of pending)"
    done
}

two_pending() { [ "$(status_of pending)" = 2 ]; }

@test "send: a standard input that does not block is waited for" {
    for how in "" --lines; do
        python3 - "$WAYBILL" $how <<'PY'
import os, subprocess, sys
out, into = os.pipe()
os.set_blocking(out, False)
args = [sys.argv[1], 'send', 'k', '-'] if len(sys.argv) == 2 else \
    [sys.argv[1], 'send', 'k', '--lines']
worker = subprocess.Popen(args, stdin=out, stdout=subprocess.DEVNULL)
# It is waiting once it sleeps with the pipe empty.
while True:
    with open(f'/proc/{worker.pid}/syscall') as f:
        if f.read().split()[0] in ('7', '73', '271'):  # poll, ppoll
            break
    if worker.poll() is not None:
        sys.exit('it has ended: %d' % worker.returncode)
os.write(into, b'one\ntwo\n')
os.close(into)
sys.exit(worker.wait())
PY
    done
    same 3 "$(js list | grep -c .)"
}
