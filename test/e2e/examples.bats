#!/usr/bin/env bats
# Any language: what lies in examples/ works as it lies there.
load helper

@test "worker.sh: claims, hands over, confirms" {
    send greeting '{"say":"hello"}' >/dev/null
    send greeting '{"say":"again"}' >/dev/null
    send other '{}' >/dev/null
    "$ROOT/examples/worker.sh" greeting sh -c 'cat >>heard; echo >>heard'
    same '{"say":"hello"} {"say":"again"}' "$(echo $(cat heard))"
    same 1 "$(status_of pending)"
    same 0 "$(status_of processing)"
}

@test "worker.sh: what is escaped in JSON arrives as it was sent" {
    payload='{"say":"a\nb\\c\td \"e\" \u0007"}'
    send greeting "$payload" >/dev/null
    for shell in sh dash bash; do
        command -v "$shell" >/dev/null || continue
        rm -f heard
        "$shell" "$ROOT/examples/worker.sh" greeting \
            sh -c 'cat >heard; exit 1'
        same "$payload" "$(cat heard)"
        waybill --quiet retry "$(waybill --json list | jq -r .id)"
    done
}

@test "worker.sh: a command that fails leaves its words" {
    id=$(send greeting '{}')
    "$ROOT/examples/worker.sh" greeting sh -c 'echo "no such user" >&2; exit 1'
    same "no such user" "$(field "$id" last_error)"
    same 1 "$(field "$id" attempts)"
    same pending "$(field "$id" status)"
}

@test "producer.py: its row and the message in one transaction" {
    waybill --quiet pause none # makes the database
    id=$(python3 "$ROOT/examples/producer.py" box.db Ada 1250)
    same order.placed "$(field "$id" kind)"
    same '{"order": 1, "customer": "Ada", "cents": 1250}' \
        "$(field "$id" payload)"
    same Ada "$(sqlite3 box.db 'SELECT customer FROM orders')"
    sink
    route ''
    run waybill --json drain
    same 0 "$status"
    same "$id" "$(jq -r .id effects.ndjson)"
}

@test "producer.py: refused, and neither row nor message is there" {
    waybill --quiet pause none # makes the database
    run python3 "$ROOT/examples/producer.py" box.db Ada -5
    [ "$status" -ne 0 ]
    same 0 "$(sqlite3 box.db 'SELECT count(*) FROM orders')"
    same 0 "$(status_of pending)"
}

@test "events.ndjson: the five kinds, each line a message" {
    while read -r line; do
        echo "$line" | jq -c .payload |
            waybill --quiet send "$(echo "$line" | jq -r .kind)" -
    done < <(head -20 "$ROOT/examples/events.ndjson")
    same 20 "$(status_of pending)"
    same 'accepted_edit imported_reviews mcp_query review_metrics trajectory' \
        "$(echo $(waybill --json status | jq -r '.by_kind | keys[]'))"
}
