# helper.bash - each test has its own folder, database, configuration and
# receivers. The command is $WAYBILL; run_tests sets it.

setup() {
    : "${WAYBILL:?path of the command to test}"
    ROOT=${WAYBILL_ROOT:-$(cd "$BATS_TEST_DIRNAME/../.." && pwd)}
    PATH=$(dirname "$WAYBILL"):$PATH
    cd "$BATS_TEST_TMPDIR" || return 1
    export WAYBILL_DB=$PWD/box.db WAYBILL_CONFIG=$PWD/config.lua
    export HOME=$PWD XDG_STATE_HOME=$PWD/state XDG_CONFIG_HOME=$PWD/etc
    : >config.lua
    PIDS=
}

teardown() {
    for pid in $PIDS; do
        kill "$pid" 2>/dev/null || continue
        for _ in $(seq 100); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.02
        done
        kill -9 "$pid" 2>/dev/null || :
        wait "$pid" 2>/dev/null || :
    done
}

# until_true SECONDS COMMAND...: poll for what another process brings about.
until_true() {
    local ends=$(($(date +%s) + $1))
    shift
    until "$@"; do
        if [ "$(date +%s)" -ge "$ends" ]; then
            echo "never became true: $*"
            return 1
        fi
        sleep 0.02
    done
}

# background LOG COMMAND...: $LAST is its pid; it ends with the test.
background() {
    local log=$1
    shift
    : >"$log" # what the one before wrote is no sign of this one
    "$@" >"$log" 2>&1 </dev/null 3>&- &
    LAST=$!
    PIDS="$PIDS $LAST"
}

listening() {
    PORT=$(sed -n 's/.*127\.0\.0\.1:\([1-9][0-9]*\).*/\1/p' sink.log | head -1)
    [ -n "$PORT" ]
}

# sink OPTIONS...: a receiver on $PORT [a free one]; effects in effects.ndjson.
sink() {
    background sink.log waybill sink --listen "127.0.0.1:${PORT:-0}" \
        --into effects.ndjson "$@"
    SINK=$LAST
    until_true 10 listening || { cat sink.log; return 1; }
}

end_sink() {
    kill "$SINK"
    wait "$SINK" || :
}

# route FIELDS: every kind to the receiver, tried again at once.
route() {
    cat >config.lua <<END
route "*" {
    url = "http://127.0.0.1:$PORT/",
    $1
}
END
}

effects() { # how many, and none twice
    [ -f effects.ndjson ] || { echo 0; return; }
    [ -z "$(jq -r .id effects.ndjson | sort | uniq -d)" ] && wc -l <effects.ndjson
}

# report FIELD: out of the last `run waybill --json drain`
report() { echo "$output" | jq -r ".$1"; }

status_of() { waybill --json status | jq -r ".$1"; }

# field ID NAME: of a message
field() { waybill --json show "$1" | jq -r ".$2"; }

send() { waybill --json send "$@" | jq -r .id; }

same() { # same EXPECTED ACTUAL
    [ "$1" = "$2" ] || { echo "expected: $1"; echo "actual:   $2"; return 1; }
}

free_port() {
    PORT=$(python3 -c 'import socket; s = socket.socket()
s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
}
