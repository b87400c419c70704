#!/usr/bin/env bats
# shellcheck disable=SC2016 # the commands expand their own variables
# once: what is known about the effect when a run has ended, or its end is lost.
load helper

once() { "$WAYBILL" once "$@"; }

# wait_for FILE: until a command has made it
wait_for() {
    for _ in $(seq 1000); do
        [ -s "$1" ] && return
        sleep 0.02
    done
    echo "never made: $1"
    return 1
}

# behind COMMAND...: in the background; $LAST is its pid
behind() {
    "$@" >behind.out 2>behind.err </dev/null 3>&- &
    LAST=$!
    PIDS="$PIDS $LAST"
}

# finish: wait for the last one; its exit is in $status
finish() {
    status=0
    wait "$LAST" || status=$?
    out=$(cat behind.out) err=$(cat behind.err)
}

state() { js keys list | jq -r .state; }
effects() { wc -l <effects 2>/dev/null || echo 0; }

ACT='echo x >>effects; '

@test "once: a signal ended the command, what it has started works on: unknown" {
    for number in TERM KILL; do
        behind "$WAYBILL" once --key $number -- \
            sh -c 'echo $$ >sh; (exec >&- 2>&- 3>&-; exec sleep 20) & echo $! >child; wait; true'
        wait_for child
        if [ $number = TERM ]; then kill -TERM "$LAST"; else kill -KILL "$(cat sh)"; fi
        finish
        ended $((128 + $(kill -l $number)))
        has "$err" "a process that it has started is still running"
        same unknown "$(js keys show $number | jq -r .state)"
        kill "$(cat child)"
        rm child sh
    done
}

@test "once: killed, and the command lives on as one that changed its user: unknown, never beside it" {
    # changing the user (sudo) clears the signal at the parent's death as this does
    cmd="$ACT"'exec python3 -c "import ctypes, time
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
open(\"pid\", \"w\").write(str(__import__(\"os\").getpid()))
time.sleep(30)"'
    behind "$WAYBILL" once --key k --lease 300ms -- sh -c "$cmd"
    wait_for pid
    kill -9 "$LAST"
    PIDS="$PIDS $(cat pid)"
    try once --key k --lease 300ms --wait 5s -- sh -c "$cmd"
    ended 69
    kill -0 "$(cat pid)"
    same 1 "$(effects)"
}

@test "once: a signal ended the whole run: the key is free" {
    behind setsid -w "$WAYBILL" once --key k -- sh -c 'sleep 20 & echo $! >child; wait; true'
    wait_for child
    kill -TERM -- "-$(ps -o pgid= -p "$(cat child)" | xargs)"
    wait "$LAST" || :
    same "" "$(state)"
}

@test "once: --release does not free the key while what the command has started works on" {
    cmd='(exec >&- 2>&- 3>&-; exec sleep 20) & echo $! >child; exit 9'
    try once --key k --release 9 -- sh -c "$cmd"
    ended 9
    has "$err" "still running"
    same unknown "$(state)"
    kill "$(cat child)"
    try once --key k --release 9 -- sh -c "$cmd"
    ended 69
}

@test "once: children that it inherited from a shell are not of the run" {
    export WAYBILL
    behind bash -c 'sleep 20 3>&- & echo $! >inherited
        exec "$WAYBILL" once --key k --release 9 -- sh -c "exit 9"'
    finish
    kill "$(cat inherited)"
    ended 9
    same "" "$err"
    same "" "$(state)"
}

@test "once: orphans of a command that runs are reaped" {
    behind "$WAYBILL" once --key k -- \
        sh -c '(sleep 0.1 & echo $! >orphan); sleep 0.3; ps -o stat= -p $(cat orphan); echo end'
    finish
    same end "$out"
}

@test "once: --on-signal hold: 128+n, unknown" {
    try once --key k --on-signal hold -- sh -c "$ACT"'kill -9 $$'
    ended 137
    has "$err" "a signal ended it"
    try once --key k --on-signal hold -- sh -c "$ACT"'kill -9 $$'
    ended 69
    same 1 "$(effects)"
}

@test "once: no signal that could be caught ends it midway" {
    for number in QUIT USR1 USR2 ALRM VTALRM PROF XCPU IO PWR STKFLT 35 64; do
        rm -f up
        cmd="trap 'echo got; exit 5' $number; echo >up; while :; do sleep 0.05; done"
        behind env --default-signal=QUIT "$WAYBILL" once --key $number -- bash -c "$cmd"
        wait_for up
        kill -"$number" "$LAST"
        finish
        ended 5
        same got "$out"
        same "done" "$(js keys show $number | jq -r .state)"
    done
}

@test "once: an alarm that was set before its start goes to the command" {
    command -v perl >perl || skip "no perl"
    try perl -e 'alarm 1; exec @ARGV' "$WAYBILL" once --key k -- \
        perl -e '$SIG{ALRM} = sub { print "got\n"; exit 4 }; sleep 1 while 1'
    ended 4
    same got "$out"
}

@test "once: a process group stopped past the lease keeps its record" {
    behind setsid -w "$WAYBILL" once --key k --lease 300ms -- \
        sh -c "$ACT"'echo $$ >up; read _ <go; echo receipt'
    mkfifo go
    wait_for up
    group=$(ps -o pgid= -p "$(cat up)" | xargs)
    kill -STOP -- "-$group"
    sleep 0.4 # past the lease: nothing to wait for
    try once --key k --lease 300ms --wait 0s -- \
        sh -c "$ACT"'echo $$ >up; read _ <go; echo receipt'
    [ "$status" = 69 ] || [ "$status" = 75 ]
    kill -CONT -- "-$group"
    echo >go
    finish
    ended 0
    try once --key k -- sh -c "$ACT"'echo $$ >up; read _ <go; echo receipt'
    ended 0
    same receipt "$out"
    same 1 "$(effects)"
}

# lock_store: hold its write lock until `read` gets a line
lock_store() {
    mkfifo lock
    python3 - "$WAYBILL_DB" >locked 3>&- <<'END' &
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
open("lock").read()
END
    PIDS="$PIDS $!"
    wait_for locked
}

@test "once: the store is locked when the command ends: recorded when it is free" {
    once --key w -- true
    mkfifo go
    behind "$WAYBILL" once --key k -- sh -c "$ACT"'echo >up; read _ <go; echo receipt'
    wait_for up
    lock_store
    echo >go
    wait_for behind.out
    sleep 6 # longer than a call waits for the lock
    echo >lock
    finish
    ended 0
    try once --key k -- sh -c "$ACT"'echo >up; read _ <go; echo receipt'
    ended 0
    same receipt "$out"
    same 1 "$(effects)"
}

@test "once: the store is locked past the lease: 74, then 69, and no advice to repeat it" {
    once --key w -- true
    mkfifo go
    behind "$WAYBILL" once --key k --lease 2s -- sh -c "$ACT"'echo >up; read _ <go'
    wait_for up
    lock_store
    echo >go
    finish
    ended 74
    has "$err" "waybill once: the command ran and ended with 0"
    [[ $err != *"try again"* ]]
    echo >lock
    try once --key k --lease 2s --wait 5s -- sh -c "$ACT"'echo >up; read _ <go'
    ended 69
    [[ $err != *"try again"* ]]
    same 1 "$(effects)"
}

@test "once: room for renewals but not for the record: 74 after a lease, then 69" {
    run=(--key k --lease 1s -- sh -c "$ACT"'head -c 2000000 /dev/zero')
    (
        ulimit -f 400
        timeout -k 1 30 "$WAYBILL" once "${run[@]}" >/dev/null 2>err
    ) || status=$?
    same 74 "$status"
    has "$(cat err)" "the command ran and ended with 0"
    try once --wait 5s "${run[@]}"
    ended 69
    same 1 "$(effects)"
}

@test "once: the key is in the command's environment" {
    try once --key "a key" -- sh -c 'echo "$WAYBILL_ONCE_KEY"'
    same "a key" "$out"
}

@test "once: a replay is marked: --verbose, --exit-replayed" {
    try waybill --verbose once --key k --exit-replayed 99 -- sh -c 'exit 3'
    ended 3
    same "" "$err"
    try waybill --verbose once --key k -- sh -c 'exit 3'
    ended 3
    has "$err" "waybill once: replayed"
    try once --key k --exit-replayed 99 -- sh -c 'exit 3'
    ended 99
    same "" "$err"
}

@test "once: --match-folder and --match-env are part of the fingerprint" {
    mkdir one two
    (cd one && once --key f --match-folder -- true)
    (cd one && once --key f --match-folder -- true)
    cd two
    try once --key f --match-folder -- true
    ended 65
    A=1 B=2 once --key e --match-env A,B -- true
    C=1 A=1 B=2 once --key e --match-env A,B -- true
    for set in A=2 A= B=1 "A=1 B=2 A="; do
        try env A=1 B=2 $set "$WAYBILL" once --key e --match-env A,B -- true
        ended 65
    done
    try env -u A B=2 "$WAYBILL" once --key e --match-env A,B -- true
    ended 65
}

@test "once: no memory for the output is not called too much output" {
    # ASan ends a process that has no memory
    ! grep -q __asan_init "$WAYBILL" || return 0
    cmd='prlimit --pid $PPID --as=$(($(ps -o vsz= -p $PPID) * 1024 + 4000000))
        head -c 12000000 /dev/zero'
    once --key k -- sh -c "$cmd" >first
    same 12000000 "$(wc -c <first)"
    try once --key k -- sh -c "$cmd"
    ended 0
    has "$err" "out of memory"
}
