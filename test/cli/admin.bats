#!/usr/bin/env bats
# retry, discard, pause, resume, backup, breaker.
load helper

# abandon KIND: one more abandoned message, its id in $id
abandon() {
    waybill send "$1" x >/dev/null
    claim --kind "$1"
    waybill --quiet fail "$id" --token "$token" --error no --reject
}

@test "retry: an abandoned message is pending again, attempts 0, error cleared" {
    abandon k
    try js retry "$id"
    ended 0
    fields total by_kind dry_run
    same '{"total":1,"by_kind":{"k":1},"dry_run":false}' "$out"
    same pending/0/null \
        "$(js show "$id" | jq -r '"\(.status)/\(.attempts)/\(.last_error)"')"
}

@test "retry O-14: --abandoned, per kind in order of kind" {
    abandon b
    abandon a
    abandon b
    try js retry --abandoned
    ended 0
    same '{"total":3,"by_kind":{"a":1,"b":2},"dry_run":false}' "$out"
    same 3 "$(status_of pending)"
}

@test "retry: --kind, --limit, --older-than narrow it; none matches: 0" {
    abandon a
    abandon b
    abandon b
    try js retry --abandoned --kind b --limit 1
    same '{"total":1,"by_kind":{"b":1},"dry_run":false}' "$out"
    try js retry --abandoned --older-than 1h
    ended 0
    same '{"total":0,"by_kind":{},"dry_run":false}' "$out"
    try js retry --abandoned --kind nobody
    ended 0
    same 2 "$(status_of abandoned)"
}

# abandoned_of ERROR SEND-OPTION...: one more abandoned message
abandoned_of() {
    local error=$1
    shift
    waybill send k x "$@" >/dev/null
    claim --kind k
    waybill --quiet fail "$id" --token "$token" --error "$error" --reject
}

@test "retry, discard: those of one lane, key, beginning of keys, error, time" {
    abandoned_of "503 busy" --lane c1 --key c1:1
    abandoned_of "404 no such user" --lane c1 --key c1:2
    abandoned_of "503 busy" --key c2:1
    sqlite3 box.db "UPDATE waybill_outbox SET created_ms = created_ms - 7200000
        WHERE key = 'c2:1'"
    total() { js "$@" --abandoned --dry-run | jq .total; }
    for command in retry discard; do
        same 2 "$(total "$command" --lane c1)"
        same 1 "$(total "$command" --key c2:1)"
        same 2 "$(total "$command" --key-prefix c1:)"
        same 0 "$(total "$command" --key-prefix 1:)"
        same 2 "$(total "$command" --error '503 ')"
        same 3 "$(total "$command" --error rejected)" # the reason
        same 2 "$(total "$command" --since 1h)"
        same 1 "$(total "$command" --until 1h)"
        same 0 "$(total "$command" --until 1970-01-01T00:00:00Z)"
        same 3 "$(total "$command" --until now)"
        same 1 "$(total "$command" --lane c1 --error 503)"
        same 0 "$(total "$command" --lane c1 --error 503 --until 1h)"
    done
    same 1 "$(js discard --abandoned --key-prefix c1: --error 404 | jq .total)"
    same 1 "$(js retry --abandoned --key-prefix c1: | jq .total)"
    same 1/1 "$(js status | jq -r '"\(.pending)/\(.abandoned)"')"
}

@test "retry, discard: a dry run reads alone" {
    abandon k
    for command in retry discard; do
        js "$command" --abandoned --dry-run
        waybill --db none.db "$command" --abandoned --dry-run || :
        [ ! -e none.db ]
    done
    chmod 400 box.db
    [ -w box.db ] || same 1 "$(js discard --abandoned --dry-run | jq .total)"
    chmod 600 box.db
    waybill --db none.db breaker || :
    [ ! -e none.db ]
}

@test "retry, discard: --dry-run counts and changes nothing" {
    abandon k
    for command in retry discard; do
        try js "$command" --abandoned --dry-run
        ended 0
        same '{"total":1,"by_kind":{"k":1},"dry_run":true}' "$out"
        try js "$command" "$id" --dry-run
        same '{"total":1,"by_kind":{"k":1},"dry_run":true}' "$out"
    done
    same 1 "$(status_of abandoned)"
}

@test "retry, discard: what is being processed is left alone, exit 4" {
    waybill send k x
    claim
    for command in retry discard; do
        try js "$command" "$id"
        ended 4
        same 0 "$(get .total)"
        same busy "$(jq -r .error.code <<<"$err")"
    done
    waybill confirm "$id" --token "$token"
}

@test "retry, discard: an unknown id is 3; beside a known one 4" {
    abandon k
    for command in retry discard; do
        try js "$command" "$NOBODY"
        ended 3
        same 0 "$(get .total)"
    done
    try js retry "$id" "$NOBODY"
    ended 4
    same 1 "$(get .total)"
}

@test "retry, discard: on nothing at all: usage" {
    for command in retry discard; do
        usage "$command"
        usage "$command" --kind k
        usage "$command" --dry-run
        usage "$command" --abandoned "$NOBODY"
        usage "$command" "$NOBODY" --kind k
        usage "$command" "$NOBODY" --older-than 1h
        usage "$command" "$NOBODY" --limit 1
        usage "$command" --abandoned --limit 0
        for option in lane key key-prefix error since until; do
            usage "$command" "--$option" 1h
            usage "$command" "$NOBODY" "--$option" 1h
            usage "$command" --abandoned "--$option" ""
        done
    done
}

@test "discard: gone for good; with an id what waits as well" {
    abandon k
    waiting=$(send k y)
    try js discard --abandoned
    ended 0
    same 1 "$(get .total)"
    try js show "$id"
    ended 3
    try js discard "$waiting"
    ended 0
    same 0 "$(status_of pending)"
}

@test "discard: --abandoned leaves what waits" {
    waybill send k y
    try js discard --abandoned
    same 0 "$(get .total)"
    same 1 "$(status_of pending)"
}

@test "pause, resume O-20: kept, not claimed; twice is fine" {
    try js pause k
    ended 0
    same '{"kind":"k","paused":true}' "$out"
    js pause k
    waybill send k x
    try js claim
    ended 3
    same '["k"]' "$(js status | jq -c .paused)"
    try js resume k
    ended 0
    same '{"kind":"k","paused":false}' "$out"
    js resume k
    try js claim
    ended 0
}

@test "backup O-21: opens as an outbox, ids stay, tokens do not" {
    waybill send k x
    claim
    try js backup copy.db
    ended 0
    same '{"file":"copy.db"}' "$out"
    same 600 "$(stat -c %a copy.db)"
    same "$id" "$(js --db copy.db list | jq -r .id)"
    try js --db copy.db confirm "$id" --token "$token"
    ended 1
    has "$err" fenced
    waybill confirm "$id" --token "$token"
}

@test "backup: never over a file, into no folder" {
    waybill send k x
    echo precious >there
    try js backup there
    ended 1
    same precious "$(cat there)"
    try js backup nowhere/copy.db
    ended 1
    has "$err" "cannot create nowhere/copy.db: No such file"
    try js backup .
    ended 1
    usage backup ""
}

@test "breaker B-1: three failures open it; claim says so; --reset closes" {
    fail_thrice
    try js breaker
    ended 0
    fields scope state failures open_until_ms
    same k/open/3 "$(get '"\(.scope)/\(.state)/\(.failures)"')"
    waybill send k x
    try js claim
    ended 3
    same 'breaker-open/["k"]' "$(get '"\(.reason)/\(.scopes | tojson)"')"
    try js breaker k --reset
    ended 0
    same '{"scope":"k","state":"closed","failures":0,"open_until_ms":null}' \
        "$out"
    same "" "$(js breaker)"
    try js claim
    ended 0
}

@test "breaker: a scope without a record is closed" {
    try js breaker nobody
    ended 0
    same '{"scope":"nobody","state":"closed","failures":0,"open_until_ms":null}' \
        "$out"
    try js breaker
    ended 0
    same "" "$out"
}

@test "breaker --reset: all, each reported" {
    fail_thrice
    try js breaker --reset
    ended 0
    same k/closed "$(get '"\(.scope)/\(.state)"')"
    try js breaker --reset
    ended 0
    same "" "$out"
}

@test "retry closes the breaker" {
    fail_thrice
    waybill retry "$id"
    same closed "$(js breaker k | jq -r .state)"
}

@test "pause, resume, breaker --reset: a name nobody knows is said" {
    try waybill pause nobody
    ended 0
    has "$err" "no message and no route"
    try waybill resume nobody
    has "$out" "nobody is resumed"
    try waybill resume nobody
    ended 0
    has "$out" "was not paused"
    waybill --quiet send known 1
    try waybill pause known
    same "" "$err"
    try waybill breaker nobody --reset
    ended 0
    has "$err" "nothing to reset"
}
