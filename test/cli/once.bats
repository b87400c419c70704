#!/usr/bin/env bats
# once: every clause of its paragraph in the contract of the command line.
load helper

once() { "$WAYBILL" once "$@"; }

# started FILE: wait until a command has made it
started() {
    for _ in $(seq 500); do
        [ -e "$1" ] && return
        sleep 0.02
    done
    echo "never started: $1"
    return 1
}

# behind COMMAND...: in the background; $LAST is its pid
behind() {
    "$@" >behind.out 2>behind.err </dev/null 3>&- &
    LAST=$!
    PIDS="$PIDS $LAST"
}

# runs: how many times the command ran (each appends a line)
runs() { wc -l <runs.txt 2>/dev/null || echo 0; }

RUN='echo x >>runs.txt; '

@test "once: runs once per key, then replays output and status" {
    try once --key k -- sh -c "$RUN"'echo out; echo err >&2; exit 7'
    ended 7
    same out "$out"
    same err "$err"
    try once --key k -- sh -c "$RUN"'echo out; echo err >&2; exit 7'
    ended 7
    same out "$out"
    same err "$err"
    same 1 "$(runs)"
}

@test "once: status 0 is remembered as well" {
    try once --key k -- sh -c "$RUN"
    ended 0
    try once --key k -- sh -c "$RUN"
    ended 0
    same 1 "$(runs)"
}

@test "once: another identity is another operation; the default is empty" {
    once --key k -- sh -c "$RUN"
    once --key k --identity a -- sh -c "$RUN"
    once --key k --identity b -- sh -c "$RUN"
    same 3 "$(runs)"
    once --key k --identity a -- sh -c "$RUN"
    once --key k --identity '' -- sh -c "$RUN"
    same 3 "$(runs)"
}

@test "once: its scope is once" {
    once --key k -- true
    try js keys list
    same once "$(get .scope)"
}

@test "once: bytes come back as they were" {
    once --key k -- printf 'a\0\377\nno end' >first
    once --key k -- printf 'a\0\377\nno end' >second
    cmp first second
    same 10 "$(wc -c <first)"
}

@test "once: the fingerprint is the command line alone" {
    printf 1 | A=1 once --key k -- cat
    cd /
    same 1 "$(printf 2 | A=2 "$WAYBILL" once --key k -- cat)"
}

@test "once: same key, another command line: 65" {
    once --key k -- echo a b
    try once --key k -- echo 'a b'
    ended 65
    has "$err" "waybill once: key k"
    same "" "$out"
    try once --key k -- echo a b c
    ended 65
    try once --key k -- echo a b
    ended 0
}

@test "once: 65 while the first one still runs, at once" {
    behind "$WAYBILL" once --key k -- sh -c 'touch up; exec sleep 30'
    started up
    try timeout 5 "$WAYBILL" once --key k -- echo other
    ended 65
}

@test "once: stdin is passed through" {
    try once --key k -- cat <<<"from stdin"
    same "from stdin" "$out"
}

@test "once: output passes through live" {
    behind "$WAYBILL" once --key k -- sh -c 'echo early; echo early >&2; sleep 30'
    for _ in $(seq 250); do
        [ -s behind.out ] && [ -s behind.err ] && break
        sleep 0.02
    done
    same early "$(cat behind.out)"
    same early "$(cat behind.err)"
    kill -0 "$LAST"
}

@test "once: 16 MiB of both together are kept" {
    cmd='head -c 16777000 /dev/zero; head -c 216 /dev/zero >&2'
    once --key k -- sh -c "$cmd" >/dev/null 2>&1
    try once --key k -- sh -c "$cmd"
    ended 0
    same "16777000 216" "$(wc -c <out.txt) $(wc -c <err.txt)"
}

@test "once: past 16 MiB a replay prints a notice and no output" {
    cmd='head -c 16777000 /dev/zero; head -c 217 /dev/zero >&2; exit 9'
    try once --key k -- sh -c "$cmd"
    ended 9
    same 16777000 "$(wc -c <out.txt)" # the first run prints it all
    try once --key k -- sh -c "$cmd"
    ended 9
    same 0 "$(wc -c <out.txt)"
    has "$err" "waybill once: the output of the first run"
}

@test "once: a replay prints all stdout, then all stderr" {
    cmd='echo 1; echo 2 >&2; echo 3; echo 4 >&2'
    once --key k -- sh -c "$cmd" >/dev/null 2>&1
    once --key k -- sh -c "$cmd" >both.txt 2>&1
    same "1 3 2 4" "$(xargs <both.txt)"
}

@test "once: the lease is renewed while it runs" {
    behind "$WAYBILL" once --key k --lease 200ms -- sh -c 'touch up; sleep 1.2; echo done'
    started up
    sleep 0.7
    try once --key k --wait 0s -- sh -c 'touch up; sleep 1.2; echo done'
    ended 75
    wait "$LAST"
    try once --key k --wait 0s -- sh -c 'touch up; sleep 1.2; echo done'
    ended 0
    same "done" "$out"
}

@test "once: --wait 0s never waits: 75" {
    behind "$WAYBILL" once --key k -- sh -c 'touch up; exec sleep 30'
    started up
    try timeout 5 "$WAYBILL" once --key k --wait 0s -- sh -c 'touch up; exec sleep 30'
    ended 75
    has "$err" "waybill once: the command is still running"
}

@test "once: 75 after the wait" {
    behind "$WAYBILL" once --key k -- sh -c 'touch up; exec sleep 30'
    started up
    begin=$(date +%s%N)
    try once --key k --wait 500ms -- sh -c 'touch up; exec sleep 30'
    ended 75
    [ $(($(date +%s%N) - begin)) -ge 500000000 ]
}

@test "once: a run that waits replays the first one" {
    cmd="$RUN"'touch up; sleep 0.5; echo first; exit 4'
    behind "$WAYBILL" once --key k -- sh -c "$cmd"
    started up
    try once --key k -- sh -c "$cmd"
    ended 4
    same first "$out"
    same 1 "$(runs)"
}

@test "once: ten at once, one run" {
    for n in 1 2 3 4 5 6 7 8 9 10; do
        once --key k -- sh -c "$RUN"'sleep 0.2; echo same' >"out.$n" 3>&- &
        PIDS="$PIDS $!"
    done
    wait $PIDS # not for the process that watches the time of a bats test
    same 1 "$(runs)"
    for n in 1 2 3 4 5 6 7 8 9 10; do same same "$(cat "out.$n")"; done
}

@test "once: --ttl, after which it runs again; 0s for ever" {
    once --key k --ttl 300ms -- sh -c "$RUN"
    once --key l --ttl 0s -- sh -c "$RUN"
    sleep 0.35
    once --key k --ttl 300ms -- sh -c "$RUN"
    once --key l --ttl 0s -- sh -c "$RUN"
    same 3 "$(runs)"
    try js keys show l
    same null "$(get .ends_ms)"
}

@test "once: the ttl is 24h" {
    once --key k -- true
    try js keys show k
    same 86400000 "$(get '.ends_ms - .since_ms')"
}

@test "once: TERM, INT and HUP are forwarded; an exit status is kept all the same" {
    for signal in TERM INT HUP; do
        rm -f up
        cmd="$RUN trap 'echo got $signal; exit 0' $signal; touch up
                while :; do sleep 0.05; done"
        # bats ignores INT in the background, nohup HUP: both would stay ignored
        behind env --default-signal=INT,HUP "$WAYBILL" once --key $signal -- sh -c "$cmd"
        started up
        kill -"$signal" "$LAST"
        status=0
        wait "$LAST" || status=$?
        ended 0
        same "got $signal" "$(cat behind.out)"
        try timeout 10 "$WAYBILL" once --key $signal -- sh -c "$cmd"
        ended 0
        same "got $signal" "$out"
    done
    same 3 "$(runs)"
}

@test "once: a command that a signal ends: 128+n, key free" {
    for n in 9 15 1; do
        try env --default-signal=HUP "$WAYBILL" once --key k -- \
            sh -c "$RUN kill -$n \$\$"
        ended $((128 + n))
    done
    same 3 "$(runs)"
}

@test "once: TERM with no handler ends both: 143, key free" {
    behind "$WAYBILL" once --key k -- sh -c 'touch up; exec sleep 30'
    started up
    kill -TERM "$LAST"
    status=0
    wait "$LAST" || status=$?
    ended 143
    try js keys list
    same "" "$out"
}

@test "once: --release frees the key for these, and for no other" {
    try once --key k --release 1,75 -- sh -c "$RUN exit 75"
    ended 75
    try once --key k --release 1,75 -- sh -c "$RUN exit 75"
    ended 75
    same 2 "$(runs)"
    try once --key l --release 1,75 -- sh -c "$RUN exit 2"
    try once --key l --release 1,75 -- sh -c "$RUN exit 2"
    ended 2
    same 3 "$(runs)"
}

@test "once: --release takes ranges and nonzero" {
    freed() { # freed RELEASE STATUS: does it run again?
        rm -f runs.txt
        for _ in 1 2; do
            try once --key "$1-$2" --release "$1" -- sh -c "$RUN exit $2"
            ended "$2"
        done
        [ "$(runs)" = 2 ]
    }
    freed 64-78 64
    freed 64-78 78
    ! freed 64-78 79
    ! freed 64-78 63
    freed "0, 7-9" 0
    freed "0, 7-9" 8
    ! freed "0, 7-9" 1
    freed nonzero 1
    freed nonzero 255
    ! freed nonzero 0
}

@test "once: the command dies with it" {
    behind "$WAYBILL" once --key k -- sh -c 'echo $$ >pid; touch up; exec sleep 300'
    started up
    kill -9 "$LAST"
    for _ in $(seq 250); do
        kill -0 "$(cat pid)" 2>/dev/null || return 0
        sleep 0.02
    done
    echo "still alive"
    return 1
}

@test "once: killed, its key is unknown after the lease: 69" {
    behind "$WAYBILL" once --key k --lease 500ms -- sh -c 'touch up; exec sleep 30'
    started up
    kill -9 "$LAST"
    try once --key k --wait 0s -- sh -c 'touch up; exec sleep 30'
    ended 75
    try once --key k --wait 5s -- sh -c 'touch up; exec sleep 30'
    ended 69
    has "$err" "waybill once: the command was not run"
    try js keys show k
    same unknown "$(get .state)"
    waybill keys settle k --done --status 3
    try once --key k -- sh -c 'touch up; exec sleep 30'
    ended 3
}

@test "once: --after-crash again: killed, its key is free after the lease" {
    behind "$WAYBILL" once --key k --lease 500ms --after-crash again -- \
        sh -c 'touch up; exec sleep 30'
    started up
    kill -9 "$LAST"
    try js keys show k
    same claimed "$(get .state)"
    rm up
    behind "$WAYBILL" once --key k --after-crash again -- sh -c 'touch up; exec sleep 30'
    started up
}

@test "once: 127 not there, 126 not to be run; the key is free" {
    try once --key k -- ./nothing-here
    ended 127
    has "$err" "waybill once: cannot run ./nothing-here"
    touch plain
    try once --key k -- ./plain
    ended 126
    has "$err" "waybill once: cannot run ./plain"
    try once --key k -- echo runs
    ended 0
}

@test "once: store down: 1, not run" {
    mkdir box.db
    try once --key k -- sh -c "$RUN"
    ended 1
    has "$err" "waybill once:"
    same 0 "$(runs)"
}

@test "once: what cannot be recorded: 74, and it says that the command ran" {
    cmd='echo ran; "$WAYBILL" keys release k >/dev/null; exit 5'
    export WAYBILL
    try once --key k -- sh -c "$cmd"
    ended 74
    same ran "$out"
    has "$err" "waybill once: the command ran and ended with 5"
}

@test "once: output ends a second after the command, whatever holds the pipes" {
    try timeout 10 "$WAYBILL" once --key k -- \
        sh -c '(exec 3>&-; sleep 0.3; echo soon; exec sleep 5) & echo first'
    ended 0
    same "first soon" "$(xargs <<<"$out")"
    try once --key k -- sh -c '(exec 3>&-; sleep 0.3; echo soon; exec sleep 5) & echo first'
    same "first soon" "$(xargs <<<"$out")"
}

@test "once: no waiting where the pipes are closed" {
    begin=$(date +%s%N)
    once --key k -- true
    [ $(($(date +%s%N) - begin)) -lt 900000000 ]
}

@test "once: pipes closed early, it waits for the command" {
    try once --key k -- sh -c 'exec >&- 2>&-; sleep 0.3; exit 6'
    ended 6
}

@test "once: a closed stdout does not stop the keeping" {
    cmd='for n in 1 2 3 4 5; do echo line $n; sleep 0.05; done; exit 3'
    once --key k -- sh -c "$cmd" >&- || same 3 $?
    try once --key k -- sh -c "$cmd"
    ended 3
    same 5 "$(wc -l <out.txt)"
    once --key l -- sh -c "$cmd" | true
    try once --key l -- sh -c "$cmd"
    ended 3
    same 5 "$(wc -l <out.txt)"
}

@test "once: a full disk under stdout stops neither" {
    [ -e /dev/full ] || skip "no /dev/full"
    status=0
    once --key k -- echo text >/dev/full 2>err.txt || status=$?
    ended 0
    has "$(cat err.txt)" "waybill once: standard output"
    try once --key k -- echo text
    same text "$out"
}

@test "once: SIGPIPE is the command's own" {
    try once --key k -- sh -c 'yes | head -1'
    ended 0
    same y "$out"
    same "" "$err"
}

@test "once: --json, no key, no command, odd statuses: usage" {
    try js once --key k -- true
    ended 2
    same usage "$(jq -r .error.code <<<"$err")"
    usage once -- true
    usage once --key k
    usage once --key '' -- true
    usage once --key k --release 300 -- true
    usage once --key k --release x -- true
    usage once --key k --release 9-3 -- true
    usage once --key k --release 1- -- true
    usage once --key k --on-signal x -- true
    usage once --key k --exit-replayed 256 -- true
    usage once --key k --lease 0s -- true
    usage once --key k --identity $'a\nb' -- true
    [ ! -s runs.txt ]
}

@test "once: after kill -9 at any moment it runs again or replays, never both" {
    for n in 1 2 3 4 5 6; do
        behind "$WAYBILL" once --key "k$n" --lease 300ms --after-crash again -- sh -c "echo $n >>runs.txt"
        sleep "0.00$n"
        kill -9 "$LAST" 2>/dev/null || :
        wait "$LAST" 2>/dev/null || :
        try once --key "k$n" -- sh -c "echo $n >>runs.txt"
        ended 0
        before=$(runs)
        try once --key "k$n" -- sh -c "echo $n >>runs.txt"
        ended 0
        same "$before" "$(runs)"
    done
}
