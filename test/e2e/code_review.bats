#!/usr/bin/env bats
# examples/code-review.lua: the five kinds, their paths and bodies, and what
# the tallies say. Their names never change.
load helper

review() { # review SINK-OPTIONS...
    sink "$@"
    export WAYBILL_CONFIG=$ROOT/examples/code-review.lua
    export CODE_REVIEW_URL=http://127.0.0.1:$PORT CODE_REVIEW_TOKEN=secret
}

applied() { jq -rc "select(.id == \"$1\") | .$2" effects.ndjson; }

@test "paths and bodies of the five kinds" {
    review
    a=$(send trajectory '{"pr_review_id":"p/1","steps":[1,2]}')
    b=$(send review_metrics '{"review_id":"r 2","req":{"cost":3}}')
    c=$(send accepted_edit '{"rule_ids":["x"]}')
    d=$(send mcp_query '{"tool":"grep"}')
    e=$(send imported_reviews '{"reviews":[]}')
    run waybill --json drain
    same 0 "$status"
    same 5 "$(report confirmed)"
    same '/reviews/p%2F1/trajectory [1,2]' \
        "$(applied "$a" path) $(applied "$a" body)"
    same '/reviews/r%202/metrics {"cost":3}' \
        "$(applied "$b" path) $(applied "$b" body)"
    same '/accepted-edits {"rule_ids":["x"]}' \
        "$(applied "$c" path) $(applied "$c" body)"
    same '/dashboard/mcp-query {"tool":"grep"}' \
        "$(applied "$d" path) $(applied "$d" body)"
    same '/reviews/import {"reviews":[]}' \
        "$(applied "$e" path) $(applied "$e" body)"
}

@test "logged out: nothing is touched, nothing is counted" {
    review
    unset CODE_REVIEW_TOKEN
    id=$(send mcp_query '{}')
    run waybill --json drain
    same 3 "$status"
    same not-ready "$(report reason)"
    same 0 "$(field "$id" attempts)"
    same 0 "$(effects)"
}

@test "accepted_edit: 200 that was not recorded is a rejection" {
    review --reply '{"acceptance_recorded":false,"error":"edit is too old"}'
    id=$(send accepted_edit '{"rule_ids":["x"]}')
    run waybill --json drain
    same 4 "$status"
    same 1 "$(report rejected)"
    [[ "$(field "$id" last_error)" == *"edit is too old"* ]]
    same null "$(report tally.uploaded)"
}

@test "accepted_edit: tallies of a complete one" {
    review --reply '{"acceptance_recorded":true,"team_id":"t","observations_inserted":2}'
    send accepted_edit '{"rule_ids":["x"]}'
    run waybill --json drain
    same '{"launch_grade":1,"uploaded":1}' "$(echo "$output" | jq -cS .tally)"
}

@test "accepted_edit: tallies of what is missing" {
    review --reply '{"acceptance_recorded":true,"team_id":null,"observations_inserted":0}'
    send accepted_edit '{"rule_ids":[" "]}'
    send accepted_edit '{"rule_ids":["x"]}'
    run waybill --json drain
    same '{"missing_rule_ids":1,"missing_team_workspace":2,"unlinked_rule_observations":1,"uploaded":2}' \
        "$(echo "$output" | jq -cS .tally)"
}
