#!/usr/bin/env bats
# run: reload, standby, grace, log, the service manager.
load helper

# deliver SCRIPT [MORE]: every kind is delivered to sh -c SCRIPT
deliver() {
    config <<END
route "*" { transport = "exec", argv = { "sh", "-c", [==[$1]==] }, ${2:-} }
END
}

start() { # ARGS...: a worker, its log in log
    "$WAYBILL" run "$@" >report 2>>log 3>&- &
    PIDS="$PIDS $!"
    last=$!
}

stop() { # PID: how it ended is in $status
    kill "$1"
    status=0
    wait "$1" || status=$?
    PIDS=${PIDS/ $1/}
}

logged() { grep -q "$1" log; }
got() { [ -e got ] && [ "$(paste -sd, got)" = "$1" ]; }

@test "run: SIGHUP reads the configuration again, and refuses one with an error" {
    deliver 'echo old >>got'
    start
    until_true 10 logged " info start"
    waybill send k x
    until_true 10 got old
    deliver 'echo new >>got'
    kill -HUP "$last"
    until_true 10 logged " info reload .*config.lua"
    waybill send k x
    until_true 10 got old,new
    echo 'route "*" { transport = "no" }' >etc/waybill/config.lua
    kill -HUP "$last"
    until_true 10 logged " error reload-refused error="
    WAYBILL_CONFIG=/dev/null waybill send k x
    until_true 10 got old,new,new
    deliver 'echo last >>got'
    kill -HUP "$last"
    sent_last() { waybill send k x >/dev/null; grep -q last got; }
    until_true 10 sent_last
    stop "$last"
    same 0 "$status"
    has "$(cat log)" " info stopping"
}

@test "run: SIGHUP while a request is in flight: it ends as it began" {
    deliver 'until [ -e go ]; do sleep 0.02; done; echo old >>got'
    start
    waybill send k x
    until_true 10 processing
    deliver 'echo new >>got'
    kill -HUP "$last"
    kill -HUP "$last"
    until_true 10 logged " info reload"
    waybill send k x
    until_true 10 got new
    : >go
    until_true 10 got new,old
    stop "$last"
    same 0 "$status"
}

processing() { [ "$(status_of processing)" = 1 ]; }

@test "run: --standby waits, and takes over when the worker ends" {
    deliver 'echo x >>got'
    start
    first=$last
    until_true 10 logged " info start"
    try waybill run
    ended 75
    has "$err" --standby
    start --standby
    second=$last
    until_true 10 logged " info standby"
    kill -9 "$first"
    wait "$first" || :
    waybill send k x
    until_true 10 got x
    same 2 "$(grep -c " info start" log)"
    stop "$second"
    same 0 "$status"
}

@test "run: --grace ends it, what is in flight stays claimed, the rest is given back" {
    deliver 'echo $$ >>pids; sleep 100' 'concurrency = 1'
    waybill send k x
    start --grace 300ms
    until_true 10 test -s pids
    stop "$last"
    same 0 "$status"
    same 1 "$(status_of processing)"
    has "$(cat report)" "1 left in flight"
    gone() { ! kill -0 "$(cat pids)" 2>/dev/null; }
    until_true 10 gone
}

@test "run: the log has a line for what fails, without the payload" {
    deliver 'echo broken >&2; exit 65'
    start --log json
    for _ in 1 2 3 4 5 6 7 8; do waybill send k SECRET; done
    all_abandoned() { [ "$(status_of abandoned)" = 8 ]; }
    until_true 10 all_abandoned
    stop "$last"
    same "abandoned error k rejected 65 1 broken" "$(jq -r 'select(.event ==
        "abandoned") | "\(.event) \(.level) \(.kind) \(.outcome) \(.status) " +
        "\(.attempt) \(.error)"' log | head -1 | sed 's/ [^ ]*: / /')"
    same 8 "$(jq -s 'map(select(.event == "abandoned") | .count // 1) | add' log)"
    same 6 "$(grep -c '"event":"abandoned"' log)"
    same 0 "$(grep -c SECRET log)"
}

@test "run: --log-level and --quiet leave lines out" {
    deliver 'exit 75'
    waybill send k x
    start --log-level error
    first=$last
    failed() { [ "$(js list | jq -r .attempts)" = 1 ]; }
    until_true 10 failed
    stop "$first"
    same "" "$(cat log)"
    start --log-level debug
    until_true 10 logged start
    stop "$last"
}

@test "drain: quiet; with --verbose a line for what fails" {
    deliver 'exit 75'
    waybill send k x
    try waybill drain
    same "" "$err"
    waybill send k x
    try waybill --verbose drain
    ended 4
    has "$err" " warn attempt-failed id="
}

@test "run: tells the service manager, by path or abstract name" {
    deliver 'exit 0'
    for name in "$PWD/notify" "@waybill-test-$$-$RANDOM"; do
        rm -f told
        python3 - "$name" >told 3>&- <<'END' &
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1].replace('@', '\0', 1))
while True:
    text = s.recv(4096).decode().split('\n')[0]
    print(text, flush=True)
    if text == 'STOPPING=1':
        break
END
        PIDS="$PIDS $!"
        listener=$!
        bound() { grep -q -- "$name" /proc/net/unix; }
        until_true 10 bound
        NOTIFY_SOCKET=$name WATCHDOG_USEC=200000 start
        ready() { grep -q READY told && grep -q WATCHDOG told; }
        until_true 10 ready
        kill -HUP "$last"
        until_true 10 grep -q RELOADING told
        stop "$last"
        wait "$listener"
        same STOPPING=1 "$(tail -1 told)"
    done
}

@test "run: a route that cannot start is logged, and tried again at SIGHUP" {
    config <<'END'
route "late" { transport = "file", path = "folder/late.ndjson" }
route "k" { transport = "exec", argv = { "true" } }
END
    waybill --quiet send late 1
    waybill --quiet send k 1
    "$WAYBILL" run --log json 2>run.log >run.out 3>&- &
    PIDS=$!
    until_true 10 eval '[ "$(status_of pending)" = 1 ]'
    same late "$(jq -r 'select(.event == "route-failed").kind' run.log)"
    mkdir etc/waybill/folder
    kill -HUP "$PIDS"
    until_true 10 test -s etc/waybill/folder/late.ndjson
}

# ---- a database that is away at the start ----------------------------------

# hold_lock: another program has box.db for itself until the file free is there
hold_lock() {
    sqlite3 -cmd 'PRAGMA locking_mode=EXCLUSIVE' box.db 'BEGIN IMMEDIATE' \
        '.shell touch locked; while [ ! -e free ]; do sleep 0.02; done' \
        3>&- &
    holder=$!
    PIDS="$PIDS $holder"
    until_true 10 test -e locked
}

@test "run: a file that is locked at the start is waited for, and it goes on" {
    deliver 'echo x >>got'
    echo 'outbox { busy = "50ms" }' >>etc/waybill/config.lua
    waybill send k x
    hold_lock
    start
    until_true 10 logged " error database-lost error="
    sleep 0.5 # some more attempts, of which nothing is reported
    same 0 "$(grep -c " info start" log)"
    same 1 "$(grep -c database-lost log)"
    touch free
    until_true 10 got x
    logged " info database-found"
    stop "$last"
    same 0 "$status"
}

@test "run: SIGTERM ends a worker that waits for its database at the start, with 0" {
    deliver 'echo x >>got'
    echo 'outbox { busy = "50ms" }' >>etc/waybill/config.lua
    waybill send k x
    hold_lock
    start
    until_true 10 logged " error database-lost"
    stop "$last"
    same 0 "$status"
    touch free
    [ ! -e got ]
}

@test "run: a file that is not a database ends it at the start" {
    deliver 'exit 0'
    echo "this is not a database, and has more than a hundred bytes: $(seq 99)" \
        >text.db
    chmod 600 text.db
    WAYBILL_DB=text.db try waybill run
    ended 1
    has "$err" "not a database"
}
