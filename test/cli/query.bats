#!/usr/bin/env bats
# status, list and show.
load helper

@test "status: every field, on a new database too" {
    try js status
    ended 0
    fields pending held processing abandoned by_kind oldest_pending_ms \
        breakers paused unrouted last_drain spill
    same '{"pending":0,"held":0,"processing":0,"abandoned":0,"by_kind":{},"oldest_pending_ms":null,"breakers":[],"paused":[],"unrouted":{},"last_drain":null,"spill":{"files":0,"bad":0},"routes_failed":[],"config_error":null,"lanes":[]}' \
        "$out"
}

@test "status O-15: counts by status and by kind, age of the oldest" {
    waybill send a 1
    waybill send a 2
    waybill send b 3 --lane l
    waybill send b 4 --lane l
    claim --kind a
    claim --kind a
    waybill fail "$id" --token "$token" --error no --reject
    try js status
    same 1/1/1/1 "$(get '"\(.pending)/\(.held)/\(.processing)/\(.abandoned)"')"
    same '{"a":{"pending":0,"held":0,"processing":1,"abandoned":1,"delivered":0},"b":{"pending":1,"held":1,"processing":0,"abandoned":0,"delivered":0}}' \
        "$(get '.by_kind | tojson')"
    [ "$(get .oldest_pending_ms)" -ge 0 ]
    [ "$(get .oldest_pending_ms)" -lt 60000 ]
}

@test "status: paused kinds, and what waits without a route" {
    config <<<'route "a.*" { transport = "file", path = "out.ndjson" }'
    waybill send a.x 1
    waybill send b 2
    waybill send b 3
    waybill pause b
    try js status
    ended 0
    same '["b"]/{"b":2}' "$(get '"\(.paused | tojson)/\(.unrouted | tojson)"')"
}

# lanes: those that are blocked, with their reasons
lanes() { js status | jq -r '.lanes | map("\(.kind) \(.lanes) \(.waiting) \(.reason)") | join(", ")'; }

@test "status: what blocks a lane, with its reason" {
    config <<'END'
route "ok" { transport = "exec", argv = { "false" } }
route "still" { transport = "file", path = "out.ndjson" }
route "k" { transport = "exec", argv = { "false" } }
route "off" { transport = "exec", argv = { "false" }, retry = { base = "1h" },
    breaker = { failures = 1, scope = "there" } }
END
    for lane in 1 2; do
        waybill --quiet send nowhere x --lane "n$lane"
        waybill --quiet send ok x --lane "n$lane"
    done
    waybill --quiet send ok x --lane n1
    waybill --quiet send still x --lane s
    waybill --quiet send nowhere x --lane s
    waybill --quiet send nowhere x --lane alone
    same "nowhere 2 3 no-route" "$(lanes)"
    waybill --quiet pause still
    same "nowhere 2 3 no-route, still 1 1 paused" "$(lanes)"
    waybill --quiet resume still
    same "nowhere 2 3 no-route" "$(lanes)"
    waybill --quiet send k x --lane r
    waybill --quiet send k y --lane r
    waybill --quiet send k y --lane r2
    waybill --quiet send k y --lane r2
    claim --kind k
    same "nowhere 2 3 no-route" "$(lanes)"
    waybill --quiet fail "$id" --token "$token" --error no
    has "$(lanes)" "k 1 1 retrying"
    waybill --quiet send off x --lane o
    waybill --quiet send off x --lane o
    waybill --quiet drain --kind off 2>/dev/null || :
    has "$(lanes)" "off 1 1 breaker-open"
    try waybill status
    has "$out" "3 messages wait in 2 lanes behind nowhere: no-route"
    has "$out" "1 message waits in 1 lane behind off: breaker-open"
}

@test "status: without a configuration every kind is unrouted" {
    waybill send a 1
    same 1 "$(status_of unrouted.a)"
}

@test "status: breakers" {
    fail_thrice
    try js status
    same k/open/3 "$(get '.breakers[0] | "\(.scope)/\(.state)/\(.failures)"')"
    [ "$(get '.breakers[0].open_until_ms')" -gt "$(now_ms)" ]
    same '["scope","state","failures","open_until_ms"]' \
        "$(get '.breakers[0] | keys_unsorted | tojson')"
}

@test "an error in a route stops no command but those that need the routes" {
    waybill --quiet send k 1
    config <<<'outbox { max_rows = 1 } route "k" { transport = "nope" }'
    for command in status list "retry --abandoned" "pause k" "resume k" \
        "backup copy.db" breaker reset-stale metrics compact migrate; do
        # shellcheck disable=SC2086
        try waybill $command
        ended 0 || { echo "$command"; return 1; }
        has "$err" "drain and run will not start"
        has "$err" "config.lua:1"
    done
    same "{}" "$(js status | jq -c .unrouted)" # it is not known
    has "$(status_of config_error)" 'config.lua:1: route "k"'
    for command in drain claim "fail $NOBODY --token 1 --error x"; do
        # shellcheck disable=SC2086
        try waybill $command
        ended 1
        has "$err" 'route "k"'
    done
}

@test "status: people read when a breaker tries again, and what was drained" {
    config <<<'route "x" { transport = "file", path = "out.ndjson" }'
    fail_thrice
    waybill --quiet send x 1
    waybill drain
    try waybill status
    has "$out" "breaker k is open after 3 failures; the next attempt is in "
    has "$out" "last drain: now, 1 attempted, 1 confirmed"
}

@test "spans are rounded, not cut" {
    waybill --quiet send k x
    sqlite3 box.db "UPDATE waybill_outbox SET due_ms = $(now_ms) + 86400000 - 900000"
    has "$(waybill list)" "in 24h"
}

@test "status: last drain" {
    config <<<'route "k" { transport = "file", path = "out.ndjson" }'
    waybill send k 1
    waybill drain
    try js status
    same 1/1 "$(get '.last_drain | "\(.attempted)/\(.confirmed)"')"
}

@test "status: people get a table and sentences" {
    waybill send order.placed 1
    try waybill status
    ended 0
    has "$out" order.placed
    has "$out" "1 pending"
    same 0 "$(grep -c $'\033' out.txt)"
}

@test "list: fields, oldest first" {
    waybill send a 1
    waybill send b 2
    try js list
    ended 0
    fields id seq kind status attempts due_ms created_ms last_error
    same a,b "$(jq -rs 'map(.kind) | join(",")' out.txt)"
    same null "$(get .last_error | head -1)"
}

@test "list: by status, kind and limit; nothing found is 0" {
    for k in a a b; do waybill send "$k" x; done
    claim --kind b
    same 2 "$(js list --kind a | wc -l)"
    same 1 "$(js list --limit 1 | wc -l)"
    same b "$(js list --status processing | jq -r .kind)"
    same 2 "$(js list --status pending | wc -l)"
    try js list --status abandoned
    ended 0
    same "" "$out"
    try js list --kind nobody
    ended 0
}

@test "list: by lane, key, beginning of keys, error and time" {
    waybill --quiet send k 1 --lane l --key c1:a
    waybill --quiet send k 2 --key c1:b
    waybill --quiet send k 3 --key c2:a
    claim
    waybill --quiet fail "$id" --token "$token" --error "503 busy"
    sqlite3 box.db "UPDATE waybill_outbox SET created_ms = created_ms - 7200000
        WHERE key = 'c2:a'"
    keys() { js list "$@" | jq -rs 'map(.key) | join(" ")'; }
    same c1:a "$(keys --lane l)"
    same c1:b "$(keys --key c1:b)"
    same "c1:a c1:b" "$(keys --key-prefix c1:)"
    same c1:a "$(keys --error busy)"
    same "c1:a c1:b" "$(keys --since 1h)"
    same c2:a "$(keys --until 1h)"
    same "" "$(keys --since 2100-01-01T00:00:00Z)"
    same c2:a "$(keys --key-prefix c --status pending --until 1h)"
    usage list --since yesterday
    usage list --error ""
}

@test "list: page by page, also when the last message of a page is gone" {
    for i in 1 2 3 4 5; do waybill --quiet send k "$i" --key "$i"; done
    keys() { js list "$@" | jq -rs 'map(.key) | join(" ")'; }
    same "1 2" "$(keys --limit 2)"
    last=$(js list --limit 2 | jq -rs '.[-1] | "\(.id) \(.seq)"')
    same "3 4" "$(keys --limit 2 --after "${last% *}")"
    has "$(waybill list --limit 2 2>&1)" "--after ${last% *}"
    try waybill list --limit 5
    same "" "$err"
    waybill --quiet discard "${last% *}"
    same "3 4 5" "$(keys --after "${last#* }")"
    try js list --after "${last% *}"
    ended 3
    usage list --after x
    usage list --after 0
}

@test "list: delivered ones only where asked for" {
    waybill send k x --key a
    claim
    waybill confirm "$id" --token "$token"
    same "" "$(js list)"
    same "$id/delivered/null" \
        "$(js list --status delivered |
            jq -r '"\(.id)/\(.status)/\(.due_ms)"')"
}

@test "confirmed without id or key: gone for list, show and status" {
    id=$(send k x)
    claim
    waybill confirm "$id" --token "$token"
    same "" "$(js list --status delivered)"
    same "{}" "$(js status | jq -c .by_kind)"
    try js show "$id"
    ended 3
    waybill confirm "$id" --token "$token"
}

@test "list: the error of a failed one, as one line" {
    waybill send k x
    claim
    waybill fail "$id" --token "$token" --error $'503  Bad\n\tthing \033[1m'
    same "503 Bad thing [1m" "$(js list | jq -r .last_error)"
    try waybill list
    has "$out" "503 Bad thing"
    same 0 "$(grep -c $'\033' out.txt)"
}

@test "list: columns are aligned for people" {
    waybill send a x
    waybill send a.much.longer.kind x
    try waybill list
    same 3 "$(wc -l <out.txt)"
    column=$(head -1 out.txt | grep -bo STATUS | cut -d: -f1)
    [ "$(tail -n +2 out.txt | cut -c$((column + 1))- | grep -c ^pending)" = 2 ]
}

@test "show: by id, by a unique beginning, not by less than 8" {
    a=$(send k x --id 01900000-0000-7000-8000-000000000001)
    b=$(send k y --id 01900000-0000-7000-8000-0000000000f2)
    try js show "$a"
    ended 0
    fields id seq kind status attempts due_ms created_ms last_error
    same "$a/x" "$(get '"\(.id)/\(.payload)"')"
    c=$(send k z --id 0fe00000-0000-7000-8000-000000000003)
    same "$c" "$(row 0fe00000 id)"
    usage show 0fe0000
    usage show 01900000
    has "$(js show 01900000 2>&1)" more
    same "$b" "$(row 01900000-0000-7000-8000-0000000000f id)"
}

@test "show: by a unique end, by a key" {
    a=$(send k x --id 01900000-0000-7000-8000-3f1f2a6c9d10 --key order:7)
    b=$(send k y --id 01900000-0000-7000-8000-3f1f2a6c9d11)
    same "$a" "$(row 2a6c9d10 id)"
    same "$b" "$(row 3f1f2a6c9d11 id)"
    same "$a" "$(js show --key order:7 | jq -r .id)"
    try js show --key order:8
    ended 3
    has "$err" "no longer remembered"
    try js show 2a6c9d12
    ended 3
    usage show "$a" --key order:7
    usage show --key ""
    has "$(js show 01900000 2>&1)" "or its end"
}

@test "show: delivered: when, while it is remembered" {
    config <<<'route "k" { transport = "file", path = "out.ndjson" }'
    a=$(send k x --key order:7)
    waybill --quiet drain
    has "$(waybill show --key order:7)" "delivered     20"
    has "$(waybill show "$a")" "delivered     20"
}

@test "show: unknown: exit 3" {
    try js show "$NOBODY"
    ended 3
    has "$err" "never accepted, or is no longer remembered"
    same notfound "$(jq -r .error.code <<<"$err")"
    same "" "$out"
}

@test "show: people see the payload and the times" {
    id=$(send k '{"a":1}' --in 1h --header X:1 --key kk --lane ll)
    try waybill show "$id"
    ended 0
    for part in '{"a":1}' 'X: 1' kk ll pending; do has "$out" "$part"; done
    id=$(printf '\377' | send k)
    try waybill show "$id"
    has "$out" "1 byte that is no text"
}

@test "show: a payload is shown past a NUL" {
    id=$(printf 'a\0b' | send k)
    same 'payload       a?b' "$(waybill show "$id" | tr '\0' '?' | tail -1)"
}

@test "status: a span of a second or two is shown in seconds" {
    waybill send k x
    sqlite3 box.db 'UPDATE waybill_outbox SET created_ms = created_ms - 1200'
    until_true 2 has "$(waybill status)" "pending for 1."
}

@test "--quiet: what was asked for is shown" {
    id=$(send k x)
    for command in status list "show $id" doctor; do
        # shellcheck disable=SC2086
        try waybill --quiet $command
        ended 0
        [ -n "$out" ]
        same "" "$err"
    done
}

@test "show: the attempts that failed, and when it ended" {
    config <<'LUA'
outbox { on_abandoned = "ops.alert" }
route "k" { transport = "exec", argv = { "/bin/sh", "-c", "echo no luck >&2; exit 65" } }
LUA
    id=$(send k x --key k1)
    try waybill drain
    same "rejected" "$(js show "$id" | jq -r '.attempts_log[0].outcome')"
    has "$(js show "$id" | jq -r '.attempts_log[0].error')" "no luck"
    same true "$(js show "$id" | jq '.ended_ms >= .created_ms')"
    has "$(waybill show "$id")" "attempt "
    same "$id" "$(js list --kind ops.alert | jq -r .id |
        xargs "$WAYBILL" --json show | jq -r '.payload | fromjson | .id')"
}

@test "show: what a message that was delivered no longer has is null" {
    config <<'LUA'
route "k" { transport = "exec", argv = { "/bin/true" } }
LUA
    id=$(send k x --key k1 --header A:b)
    try waybill drain
    ended 0
    try js show "$id"
    same "null null null delivered" \
        "$(get '"\(.payload) \(.headers) \(.last_error) \(.status)"')"
    same true "$(get '.ended_ms >= .created_ms')"
    has "$(waybill show "$id")" "deleted after delivery"
}
