#!/usr/bin/env bats
# claim, confirm, release, fail, extend, reset-stale.
load helper

@test "claim: fields, token a decimal string" {
    waybill send k '{"a":1}' --key kk --header 'X: 1'
    try js claim
    ended 0
    fields id seq token kind attempts payload
    same k/1 "$(get '"\(.kind)/\(.attempts)"')"
    same string "$(get '.token | type')"
    [[ "$(get .token)" =~ ^[1-9][0-9]*$ ]]
    same '{"a":1}/kk/X: 1' "$(get '"\(.payload)/\(.key)/\(.headers[0])"')"
}

@test "claim: bytes come as payload_base64, and only so" {
    printf '\377' | waybill send k
    try js claim
    same "/w==" "$(get .payload_base64)"
    same false "$(get 'has("payload")')"
}

@test "claim O-8: oldest first, --max of them, none twice" {
    for n in 1 2 3; do waybill send k "$n"; done
    try js claim --max 2
    ended 0
    same 1,2 "$(jq -rs 'map(.payload) | join(",")' out.txt)"
    try js claim --max 10
    same 3 "$(jq -rs 'map(.payload) | join(",")' out.txt)"
    try js claim
    ended 3
}

@test "claim: --kind takes of this kind alone" {
    waybill send a 1
    waybill send b 2
    try js claim --kind b --max 5
    same 2 "$(get .payload)"
    try js claim --kind c
    ended 3
}

@test "claim: nothing: exit 3, claimed reason next_due_ms scopes" {
    try js claim
    ended 3
    same '{"claimed":0,"reason":"empty","next_due_ms":null,"scopes":[],"paused":[]}' \
        "$out"
    same "" "$err"
    waybill send k x --in 1h
    try js claim
    ended 3
    same empty "$(get .reason)"
    same "$(js list | jq .due_ms)" "$(get .next_due_ms)"
    try waybill claim
    ended 3
    same "" "$out"
    has "$err" "nothing to claim"
}

@test "claim: what is due and paused is reported" {
    js pause k
    waybill send k x --in 1h
    try js claim
    same '[]' "$(get .paused | jq -c)"
    waybill send k x
    waybill send l x --in 1h
    for kind in "" "--kind k"; do
        # shellcheck disable=SC2086
        try js claim $kind
        ended 3
        same 'empty ["k"]' "$(get '"\(.reason) \(.paused | tojson)"')"
        # shellcheck disable=SC2086
        try waybill claim $kind
        has "$err" "what is due is paused, see waybill status"
    done
    has "$err" "ask again when it was resumed"
    try js claim --kind l
    same '[]' "$(get .paused | jq -c)"
}

@test "claim: the route's breaker and attempts hold where there is one" {
    config <<<'route "k" { transport = "file", path = "f", retry = { attempts = 1 } }'
    waybill send k x
    claim
    waybill fail "$id" --token "$token" --error no
    same abandoned "$(row "$id" status)"
}

@test "claim: of two routes with a prefix the longer one holds" {
    config <<'END'
route "a.b.*" { transport = "file", path = "f", retry = { attempts = 1 } }
route "a.*" { transport = "file", path = "f" }
route "*" { transport = "file", path = "f" }
END
    waybill send a.b.c x
    claim
    waybill fail "$id" --token "$token" --error no
    same abandoned "$(row "$id" status)"
}

@test "claim: the open breaker of a route with a prefix holds for all its kinds" {
    config <<'END'
route "ev.*" { transport = "exec", argv = { "false" }, breaker = { failures = 1 } }
END
    waybill send ev.a x
    try waybill drain
    ended 4
    waybill send ev.b y
    try js claim
    ended 3
    same 'breaker-open/["ev.*"]' "$(get '"\(.reason)/\(.scopes | tojson)"')"
    try js claim --kind ev.b
    same breaker-open "$(get .reason)"
}

@test "claim: --lease says until when" {
    waybill send k x
    before=$(now_ms)
    try js claim --lease 2h
    [ "$(get .lease_end_ms)" -ge $((before + 7200000)) ]
    [ "$(row "$(get .id)" due_ms)" -ge $((before + 7200000)) ]
}

@test "claim: what could not be printed is given back" {
    [ -e /dev/full ] || skip "no /dev/full"
    for n in 1 2 3; do waybill send k "$n"; done
    for json in "" --json; do
        status=0
        # shellcheck disable=SC2086
        "$WAYBILL" $json claim --max 2 >/dev/full 2>err.txt || status=$?
        same 1 "$status"
        same 1 "$(wc -l <err.txt)"
        has "$(cat err.txt)" "could not be written to; what was claimed is given back"
        same 3/0 "$(js status | jq -r '"\(.pending)/\(.processing)"')"
    done
    try js claim --max 3
    same 3/3 "$(jq -rs '"\(map(.payload) | unique | length)/\(map(.attempts) | add)"' \
        out.txt)"
}

@test "confirm: gone; the same token again 0; another 1 fenced; unknown 3" {
    waybill send k x --key a
    claim
    try js confirm "$id" --token "$token"
    ended 0
    same "{\"id\":\"$id\",\"confirmed\":true}" "$out"
    same 0 "$(status_of pending)"
    try js confirm "$id" --token "$token"
    ended 0
    try js confirm "$id" --token 1
    ended 1
    has "$(jq -r .error.message <<<"$err")" fenced
    same fenced "$(jq -r .error.code <<<"$err")"
    try js confirm "$NOBODY" --token 1
    ended 3
    same notfound "$(jq -r .error.code <<<"$err")"
}

@test "confirm: in capitals is the same id" {
    waybill send k x
    claim
    try js confirm "${id^^}" --token "$token"
    ended 0
    same "$id" "$(get .id)"
}

@test "release O-10: pending again, the attempt does not count" {
    waybill send k x
    claim
    try js release "$id" --token "$token"
    ended 0
    same "{\"id\":\"$id\",\"status\":\"pending\"}" "$out"
    same 0 "$(row "$id" attempts)"
    claim
    same 1 "$(get .attempts)"
}

@test "fail: tried again later" {
    waybill send k x
    claim
    try js fail "$id" --token "$token" --error 'no luck'
    ended 0
    fields id status attempts due_ms
    same pending/1 "$(get '"\(.status)/\(.attempts)"')"
    [ "$(get .due_ms)" -gt "$(now_ms)" ]
    same 'no luck' "$(row "$id" last_error)"
}

@test "fail R-3: --retry-after is a minimum" {
    waybill send k x
    claim
    before=$(now_ms)
    try js fail "$id" --token "$token" --error no --retry-after 1h
    [ "$(get .due_ms)" -ge $((before + 3600000)) ]
    [ "$(get .due_ms)" -lt $((before + 3700000)) ]
}

@test "fail --reject: abandoned at once, due_ms null" {
    waybill send k x
    claim
    try js fail "$id" --token "$token" --error no --reject
    ended 0
    same abandoned/null "$(get '"\(.status)/\(.due_ms)"')"
    same rejected "$(row "$id" reason)"
}

@test "fail: the route's policy holds where there is one" {
    config <<<'route "k" { transport = "file", path = "f", retry = { immediate = true } }'
    waybill send k x
    claim
    try js fail "$id" --token "$token" --error no
    [ "$(get .due_ms)" -le "$(now_ms)" ]
}

@test "extend: the lease ends so long from now" {
    waybill send k x
    claim --lease 1s
    before=$(now_ms)
    try js extend "$id" --token "$token" --lease 3h
    ended 0
    fields id due_ms
    [ "$(get .due_ms)" -ge $((before + 10800000)) ]
    waybill confirm "$id" --token "$token"
}

@test "O-9: a late token is refused by all four, and changes nothing" {
    waybill send k x
    claim
    late=$token
    waybill release "$id" --token "$token"
    claim
    for finish in confirm release "fail --error no" "extend --lease 1h"; do
        # shellcheck disable=SC2086
        set -- $finish
        command=$1
        shift
        try js "$command" "$id" --token "$late" "$@"
        ended 1
        has "$(jq -r .error.message <<<"$err")" fenced
        same "" "$out"
        try waybill "$command" "$id" --token "$late" "$@"
        ended 1
        has "$err" "waybill $command: fenced"
    done
    same processing/1/null \
        "$(js show "$id" | jq -r '"\(.status)/\(.attempts)/\(.last_error)"')"
    waybill confirm "$id" --token "$token"
}

@test "an unknown id is 3 for all four" {
    for finish in confirm release "fail --error no" "extend --lease 1h"; do
        # shellcheck disable=SC2086
        set -- $finish
        command=$1
        shift
        try js "$command" "$NOBODY" --token 7 "$@"
        ended 3
        same notfound "$(jq -r .error.code <<<"$err")"
    done
}

@test "reset-stale: only ended leases; --older-than 0s: all claims" {
    waybill send k x
    claim
    try js reset-stale
    ended 0
    same '{"reset":0}' "$out"
    try js reset-stale --older-than 1h
    same '{"reset":0}' "$out"
    try js reset-stale --older-than 0s
    ended 0
    same '{"reset":1}' "$out"
    same pending "$(row "$id" status)"
    try js confirm "$id" --token "$token"
    ended 1
}

@test "reset-stale: an ended lease is put back" {
    waybill send k x
    claim --lease 1ms
    until_true 5 reset_one
    same pending "$(row "$id" status)"
}

reset_one() { [ "$(js reset-stale | jq .reset)" = 1 ]; }

@test "two workers at once get each message once" {
    seq 200 | waybill --quiet send k --lines
    for worker in 1 2 3 4; do
        while js claim --max 7 >>"got.$worker"; do :; done 3>&- &
        PIDS="$PIDS $!"
    done
    for pid in $PIDS; do wait "$pid" || :; done
    PIDS=
    same 200 "$(cat got.* | jq -r 'select(.id) | .id' | sort -u | wc -l)"
    same 200 "$(cat got.* | jq -r 'select(.id) | .id' | wc -l)"
}
