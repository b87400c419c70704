#!/usr/bin/env bats
# The gateway, rule by rule: see gate_rules.py and gate_wire.py.
load helper

rules() { python3 "$BATS_TEST_DIRNAME/$1" "$WAYBILL"; }

@test "gateway: keys, waiting, storing, unknown outcomes (G-1 to G-10)" {
    rules gate_rules.py
}

@test "gateway: bytes on the wire, limits, metrics (G-11 to G-14, S5)" {
    rules gate_wire.py
}

