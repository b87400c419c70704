#!/usr/bin/env bats
# The units in examples/systemd, as they stand there, but for the command's path.
load helper

@test "systemd: the units and the timer pass systemd-analyze verify" {
    for unit in "$ROOT"/examples/systemd/*; do
        sed "s|/usr/local/bin/waybill|$WAYBILL|" "$unit" >"$(basename "$unit")"
    done
    systemd-analyze verify --man=no --recursive-errors=no ./*.service ./*.timer \
        >found 2>&1 || { cat found; return 1; }
    same "" "$(cat found)"
}

@test "systemd: each command line of a unit is understood" {
    for unit in "$ROOT"/examples/systemd/*.service; do
        command=$(sed -n 's|^ExecStart=/usr/local/bin/waybill ||p' "$unit")
        [ -n "$command" ]
        # shellcheck disable=SC2086 # words
        run waybill ${command} --no-such-option
        same 2 "$status"
        [[ $output == *--no-such-option* ]]
    done
}
