#!/usr/bin/env bats
# The gateway, rule by rule: see gate_rules.py, gate_wire.py,
# gate_options.py, gate_servers.py.
load helper

rules() { python3 "$BATS_TEST_DIRNAME/$1" "$WAYBILL"; }

@test "gateway: keys, waiting, storing, unknown outcomes (G-1 to G-10)" {
    rules gate_rules.py
}

@test "gateway: its options, its log, ready and alive, grace, CORS" {
    rules gate_options.py
}

@test "gateway: nginx, haproxy, gunicorn, node; curl, fetch, Python (G-6, G-9)" {
    rules gate_servers.py
}

@test "gateway: bytes on the wire, limits, metrics (G-11 to G-14, S5)" {
    rules gate_wire.py
}

