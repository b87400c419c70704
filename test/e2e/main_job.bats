#!/usr/bin/env bats
# The main job against receivers of every temper. What each leads to is the
# table of waybill(1), "What a receiver's answer leads to".
load helper

@test "receiver takes it: one effect, message delivered, nothing left" {
    sink
    route ''
    id=$(send order.placed '{"order":7}')
    run waybill --json drain
    same 0 "$status"
    same 1/1/0 "$(report attempted)/$(report confirmed)/$(report retried)"
    same 1 "$(effects)"
    same "$id" "$(jq -r .id effects.ndjson)"
    same 0 "$(status_of pending)"
    run waybill --json drain
    same 3 "$status"
    same empty "$(report reason)"
}

@test "receiver is down for a while: kept, then delivered once" {
    free_port
    route 'retry = { immediate = true }, breaker = { failures = 100 },'
    id=$(send order.placed '{"order":7}')
    run waybill --json drain
    same 4 "$status"
    same 1/0/1 "$(report attempted)/$(report confirmed)/$(report retried)"
    [[ "$(field "$id" last_error)" == transport:* ]]
    same 1 "$(field "$id" attempts)"
    same 1 "$(status_of pending)"
    sink
    run waybill --json drain
    same 0 "$status"
    same 1 "$(effects)"
    same 0 "$(status_of pending)"
}

@test "receiver is down: after three failures the breaker keeps the rest" {
    free_port
    route 'retry = { immediate = true },'
    for n in 1 2 3 4 5; do send order.placed "{\"n\":$n}" >/dev/null; done
    run waybill --json drain
    same 4 "$status"
    same 0 "$(report confirmed)"
    same 1 "$(report breakers_open)"
    run waybill --json drain
    same 3 "$status"
    same breaker-open "$(report reason)"
    same 5 "$(status_of pending)"
    same open "$(status_of 'breakers[0].state')"
}

@test "receiver is slow, but within the timeout: delivered" {
    sink --delay 300ms
    route 'timeout = "5s",'
    send order.placed '{}'
    run waybill --json drain
    same 0 "$status"
    same 1 "$(effects)"
}

@test "receiver is slower than the timeout: sent again, one effect" {
    sink --delay 700ms
    route 'timeout = "300ms", retry = { immediate = true },'
    id=$(send order.placed '{}')
    run waybill --json drain
    same 4 "$status"
    same 1 "$(report retried)"
    [[ "$(field "$id" last_error)" == transport:* ]]
    route 'timeout = "5s", retry = { immediate = true },'
    run waybill --json drain
    same 0 "$status"
    same 1 "$(effects)"
}

@test "500: tried again up to the limit, then abandoned with the error" {
    sink --status 500
    route 'retry = { immediate = true, attempts = 3 },
    breaker = { failures = 100 },'
    id=$(send order.placed '{}')
    run waybill --json drain
    same 4 "$status"
    same 1 "$(report retried)"
    [[ "$(field "$id" last_error)" == "500 Internal Server Error"* ]]
    run waybill --json drain
    same 1 "$(report retried)"
    run waybill --json drain
    same 4 "$status"
    same 1 "$(report abandoned)"
    same abandoned "$(field "$id" status)"
    same 3 "$(field "$id" attempts)"
    same 1 "$(status_of abandoned)"
    same 0 "$(effects)"
}

@test "500, then well again: put back by hand, delivered" {
    sink --status 500
    route 'retry = { immediate = true, attempts = 1 },'
    id=$(send order.placed '{}')
    run waybill --json drain
    same abandoned "$(field "$id" status)"
    end_sink
    sink
    run waybill --json retry --abandoned
    same 0 "$status"
    same 1 "$(report total)"
    run waybill --json drain
    same 0 "$status"
    same 1 "$(effects)"
}

@test "429 with Retry-After: not before that" {
    sink --status 429 --retry-after 120s
    route 'retry = { immediate = true },'
    before=$(date +%s)
    id=$(send order.placed '{}')
    run waybill --json drain
    same 4 "$status"
    same 1 "$(report retried)"
    due=$(field "$id" due_ms)
    [ "$due" -ge $(((before + 120) * 1000)) ]
    [ "$due" -le $((($(date +%s) + 121) * 1000)) ]
    [[ "$(field "$id" last_error)" == "429 Too Many Requests"* ]]
    run waybill --json drain
    same 3 "$status"
    same empty "$(report reason)"
}

@test "400: rejected at once, kept for people" {
    sink --status 400
    route ''
    id=$(send order.placed '{}')
    run waybill --json drain
    same 4 "$status"
    same 1 "$(report rejected)"
    same abandoned "$(field "$id" status)"
    same 1 "$(field "$id" attempts)"
    [[ "$(field "$id" last_error)" == "400 Bad Request"* ]]
}

@test "200 with a refusal in the body: rejected, with its error" {
    sink --reply '{"acceptance_recorded":false,"error":"no such team"}'
    route 'response = function(reply)
        local body = reply.json
        if body and body.acceptance_recorded == false then
            return "rejected", body.error
        end
    end,'
    id=$(send accepted_edit '{}')
    run waybill --json drain
    same 4 "$status"
    same 1 "$(report rejected)"
    same abandoned "$(field "$id" status)"
    [[ "$(field "$id" last_error)" == *"no such team"* ]]
}

@test "answers dropped and failing at random: all delivered, each once" {
    sink --drop 30% --fail 30% --seed 7
    route 'retry = { immediate = true, attempts = 100 },
    breaker = { failures = 100 },'
    seq 200 | waybill --quiet send order.placed --lines
    until_true 60 drained
    same 200 "$(effects)"
    same 0 "$(status_of abandoned)"
}

drained() {
    waybill --quiet drain || [ $? -eq 4 ] || [ $? -eq 3 ]
    [ "$(status_of pending)" -eq 0 ]
}

@test "worker: wakes for other processes' messages, ends on SIGTERM with 0" {
    sink
    route ''
    background worker.log waybill run
    for n in 1 2 3; do
        send order.placed "{\"n\":$n}" >/dev/null
        until_true 10 delivered "$n"
    done
    kill "$LAST"
    wait "$LAST"
}

delivered() { [ "$(effects)" -eq "$1" ]; }

@test "kind without a route: accepted, kept, reported, no attempt spent" {
    sink
    cat >config.lua <<END
route "known" { url = "http://127.0.0.1:$PORT/" }
END
    id=$(send unknown '{}')
    run waybill --json drain
    same 3 "$status"
    same 0 "$(field "$id" attempts)"
    same 1 "$(status_of unrouted.unknown)"
}
