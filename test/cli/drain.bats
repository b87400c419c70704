#!/usr/bin/env bats
# drain and run: reports, reasons, exit codes. Messages go to a command whose
# exit status says what became of them.
load helper

# deliver SCRIPT: every kind is delivered to sh -c SCRIPT
deliver() {
    config <<END
route "*" { transport = "exec", argv = { "sh", "-c", [==[$1]==] }, ${2:-} }
END
}

@test "drain: all confirmed: 0, and every field" {
    deliver 'cat >>got; echo "$WAYBILL_ID" >>ids'
    a=$(send k 1)
    b=$(send l 2)
    try js drain
    ended 0
    fields attempted confirmed retried abandoned rejected released fenced \
        duration_ms breakers_open tally
    same 2/2/0/0/0/0/0 "$(get '[.attempted, .confirmed, .retried, .abandoned,
        .rejected, .released, .fenced] | map(tostring) | join("/")')"
    same '{}/0/null' "$(get '"\(.tally | tojson)/\(.breakers_open)/\(.reason)"')"
    same "$(sort <<<"$a"$'\n'"$b")" "$(sort ids)"
    same 1 "$(wc -l <out.txt)"
}

@test "drain: when the first of those to be retried is due" {
    config <<'LUA'
route "k" { transport = "exec", argv = { "sh", "-c", "exit 75" }, retry = { "1h" } }
LUA
    waybill --quiet send k 1
    waybill --quiet send k 2
    try waybill drain
    ended 4
    has "$out" "2 to be retried (the first in "
    waybill retry "$(js list --limit 1 | jq -r .id)"
    try js drain
    same true "$(get ".next_retry_ms > $(now_ms) + 3000000")"
    try js drain
    same null "$(get .next_retry_ms)"
}

@test "drain: some not: 4, and each count" {
    deliver 'case $WAYBILL_KIND in ok) ;; no) exit 65;; *) exit 75;; esac'
    for k in ok no later; do waybill send "$k" x; done
    try js drain
    ended 4
    same 3/1/1/1 \
        "$(get '"\(.attempted)/\(.confirmed)/\(.retried)/\(.rejected)"')"
}

@test "drain: nothing due: 3, empty" {
    deliver 'exit 0'
    try js drain
    ended 3
    same 0/empty "$(get '"\(.attempted)/\(.reason)"')"
    waybill send k x --in 1h
    try js drain
    ended 3
    same empty "$(get .reason)"
    try waybill drain
    ended 3
    has "$out" empty
}

@test "drain: what is due is paused: 3, empty, and says so" {
    deliver 'exit 0'
    js pause k
    waybill send k x
    for kind in "" "--kind k"; do
        # shellcheck disable=SC2086
        try js drain $kind
        ended 3
        same empty/1 "$(get '"\(.reason)/\(.kinds_paused)"')"
    done
    try waybill drain
    has "$out" "nothing attempted, 1 kind paused; took"
    has "$out" "; empty: what is due is paused, see waybill status"
    waybill send l x
    try js drain
    ended 0
    same 1/1 "$(get '"\(.confirmed)/\(.kinds_paused)"')"
}

@test "drain: behind an open breaker: 3, breaker-open" {
    deliver 'exit 75' 'retry = { immediate = true }'
    waybill send k x
    for _ in 1 2 3; do js drain || same 4 $?; done
    try js drain
    ended 3
    same breaker-open/1 "$(get '"\(.reason)/\(.breakers_open)"')"
}

@test "drain: no configuration, or not ready: 3, not-ready, nothing touched" {
    id=$(send k x)
    try js drain
    ended 3
    same not-ready "$(get .reason)"
    config <<'END'
ready = function() return false, "not logged in" end
route "*" { transport = "file", path = "out" }
END
    try js drain
    ended 3
    same not-ready "$(get .reason)"
    same 0 "$(row "$id" attempts)"
    try waybill drain
    has "$out$err" not-ready
}

@test "drain: another one at it: 3, busy; it takes what came meanwhile" {
    deliver 'until [ -e go ]; do sleep 0.02; done; echo "$WAYBILL_ID" >>ids'
    waybill send k 1
    "$WAYBILL" --quiet drain 3>&- &
    PIDS=$!
    until_true 10 processing
    waybill send k 2
    try js drain
    ended 3
    same busy "$(get .reason)"
    : >go
    wait "$PIDS"
    PIDS=
    same 2 "$(wc -l <ids)"
}

processing() { [ "$(status_of processing)" = 1 ]; }

@test "drain D-1: --max attempts so many, --kind of this kind alone" {
    deliver 'echo "$WAYBILL_KIND" >>kinds'
    for k in a b b b; do waybill send "$k" x; done
    try js drain --kind b --max 2
    ended 0
    same 2 "$(get .attempted)"
    same b,b "$(paste -sd, kinds)"
    same 2 "$(status_of pending)"
}

@test "drain --for: takes no more after it" {
    deliver 'sleep 0.05' 'concurrency = 1'
    seq 100 | waybill --quiet send k --lines
    try js drain --for 200ms
    ended 0
    [ "$(get .attempted)" -lt 100 ]
    [ "$(status_of pending)" -gt 0 ]
}

@test "drain --for: longer than anybody lives is no limit" {
    deliver 'exit 0'
    for span in 120000000d 106751991167d; do
        waybill send k x
        try js drain --for "$span"
        ended 0
    done
}

@test "drain: a tally of the route's response is summed" {
    config <<'END'
route "k" { transport = "exec", argv = { "cat" }, response = function(reply)
    tally "uploaded"
    tally("bytes", 2)
end }
END
    waybill send k x
    waybill send k y
    try js drain
    ended 0
    same '{"bytes":4,"uploaded":2}' "$(get '.tally | tojson')"
    waybill send k z
    try waybill drain
    has "$out" "uploaded 1"
}

@test "drain: the exec transport's error is kept" {
    deliver 'echo "disk on fire" >&2; exit 75'
    id=$(send k x)
    js drain || same 4 $?
    has "$(row "$id" last_error)" "disk on fire"
}

@test "drain: people get a sentence on stdout, no progress without terminal" {
    deliver 'exit 0'
    waybill send k x
    try waybill drain
    ended 0
    has "$out" "1 confirmed"
    same "" "$err"
    waybill send k x
    try waybill --quiet drain
    ended 0
    same "" "$out$err"
}

@test "drain: SIGTERM finishes what is in flight and reports" {
    deliver 'echo >>started; until [ -e go ]; do sleep 0.02; done' \
        'concurrency = 1'
    seq 5 | waybill --quiet send k --lines
    "$WAYBILL" --json drain >report 3>&- &
    PIDS=$!
    until_true 10 [ -e started ]
    kill -TERM "$PIDS"
    : >go
    wait "$PIDS"
    PIDS=
    same 1/1 "$(jq -r '"\(.attempted)/\(.confirmed)"' report)"
    same 4/0 "$(js status | jq -r '"\(.pending)/\(.processing)"')"
}

@test "run: wakes for other processes' messages; SIGTERM ends it with 0" {
    deliver 'echo "$WAYBILL_ID" >>ids'
    "$WAYBILL" --json run >report 2>run.err 3>&- &
    PIDS=$!
    for n in 1 2 3; do
        waybill send k "$n"
        until_true 10 delivered "$n"
    done
    kill -TERM "$PIDS"
    code=0
    wait "$PIDS" || code=$?
    PIDS=
    same 0 "$code"
    same 3 "$(jq -r .confirmed report)"
    same info "$(jq -r .level run.err | sort -u)"
}

delivered() { [ -f ids ] && [ "$(wc -l <ids)" -ge "$1" ]; }

# worker COMMAND...: runs in the background until the test ends, and has
# delivered one message
worker() {
    deliver 'echo "$WAYBILL_ID" >>ids'
    waybill --quiet send k x
    "$@" --json run >report 3>&- &
    PIDS=$!
    until_true 10 delivered 1
}

@test "run: SIGINT as well" {
    worker env --default-signal=INT "$WAYBILL"
    kill -INT "$PIDS"
    code=0
    wait "$PIDS" || code=$?
    PIDS=
    same 0 "$code"
    same 1 "$(jq -r .attempted report)"
}

interrupt_gone() { ! kill -INT "$PIDS" 2>/dev/null; }

@test "run: a second SIGINT does not wait for what is in flight" {
    deliver 'echo "$WAYBILL_ID" >>ids; exec sleep 15'
    waybill --quiet send k x
    env --default-signal=INT "$WAYBILL" --json run >report 2>run.err 3>&- &
    PIDS=$!
    until_true 10 delivered 1
    until_true 5 interrupt_gone
    code=0
    wait "$PIDS" || code=$?
    PIDS=
    same 130 "$code"
    same "" "$(cat report)"
}

command_gone() { ! kill -0 "$(cat command)" 2>/dev/null; }

@test "run: after kill -9 of the worker its command is gone" {
    deliver 'echo "$WAYBILL_ID" >>ids; echo $$ >command; exec sleep 60'
    waybill --quiet send k x
    "$WAYBILL" --json run >report 2>run.err 3>&- &
    PIDS=$!
    until_true 10 test -s command
    kill -0 "$(cat command)"
    kill -9 "$PIDS"
    wait "$PIDS" || :
    PIDS=
    until_true 5 command_gone
}

@test "run: a SIGINT that was ignored stays so: a job in the background" {
    worker env --ignore-signal=INT "$WAYBILL"
    kill -INT "$PIDS"
    waybill --quiet send k x
    until_true 10 delivered 2
}

@test "run: a second one: 75; a drain: 3, busy" {
    worker "$WAYBILL"
    try js run
    ended 75
    same busy "$(jq -r .error.code <<<"$err")"
    try js drain
    ended 3
    same busy "$(get .reason)"
}

# listen: a worker with --listen, its address in $address
listen() {
    "$WAYBILL" --json run --listen 127.0.0.1:0 >report 3>&- &
    PIDS=$!
    until_true 10 [ -s report ]
    address=$(jq -r .listening report)
}

@test "run --listen: health and metrics" {
    deliver 'exit 0'
    waybill send k x --in 1h
    waybill send 'l' x --lane 1 --in 1h
    waybill send 'l' x --lane 1
    listen
    same "ok 200" "$(curl -s -w '%{http_code}' "http://$address/healthz" |
        paste -sd' ')"
    curl -s "http://$address/metrics" >metrics
    grep -qx 'waybill_messages{kind="k",status="pending"} 1' metrics
    grep -qx 'waybill_messages{kind="l",status="held"} 1' metrics
    grep -q '^waybill_oldest_pending_seconds [0-9.]*$' metrics
    if command -v promtool >/dev/null; then promtool check metrics <metrics; fi
    same 404 "$(curl -s -o /dev/null -w '%{http_code}' "http://$address/")"
    same 405 "$(curl -s -o /dev/null -w '%{http_code}' -X POST \
        "http://$address/metrics")"
    kill -TERM "$PIDS"
    code=0
    wait "$PIDS" || code=$?
    same 0 "$code"
    same 0 "$(jq -s '.[1].attempted' report)"
}

# The page is well formed: each family once, HELP and TYPE first, its samples
# together, and the buckets of a histogram cumulative.
well_formed() {
    python3 - "$1" <<'END'
import re, sys
seen, family, last = set(), None, {}
for line in open(sys.argv[1], encoding='utf-8'):
    if line.startswith('# HELP '):
        family = line.split()[2]
        assert family not in seen, line
        seen.add(family)
        kind = None
    elif line.startswith('# TYPE '):
        assert line.split()[2] == family, line
        kind = line.split()[3]
        assert (kind == 'counter') == family.endswith('_total'), line
    else:
        m = re.fullmatch(r'(\w+)(\{.*\})? (\S+)\n', line)
        name = re.sub('_(bucket|sum|count)$', '', m[1]) \
            if kind == 'histogram' else m[1]
        assert name == family and kind, line
        float(m[3])
        if m[1].endswith('_bucket'):
            series = re.sub(',?le="[^"]*"', '', m[2])
            assert last.get(series, 0) <= float(m[3]), line
            last[series] = float(m[3]) if '+Inf' not in line else 0
END
}

@test "run --listen: what the worker did is counted by kind and outcome" {
    config <<'END'
route "bad" { transport = "exec", argv = { "sh", "-c", "exit 65" } }
route "good" { transport = "exec", argv = { "true" } }
END
    waybill --quiet send bad 1
    waybill --quiet send good 1
    waybill --quiet send good 2
    waybill --quiet send nowhere 1
    listen
    until_true 10 eval '[ "$(status_of abandoned)$(status_of pending)" = 11 ]'
    curl -s "http://$address/metrics" >metrics
    well_formed metrics
    for line in 'waybill_attempts_total{kind="good",outcome="delivered"} 2' \
        'waybill_attempts_total{kind="bad",outcome="rejected"} 1' \
        'waybill_abandoned_total{kind="bad"} 1' \
        'waybill_attempt_duration_seconds_count{kind="good"} 2' \
        'waybill_unrouted_kinds 1' 'waybill_database_up 1' \
        'waybill_messages{kind="bad",status="abandoned"} 1' \
        'waybill_build_info{version="0.1.0"} 1'; do
        grep -Fqx "$line" metrics || { echo "not there: $line"; return 1; }
    done
    waybill metrics >metrics
    well_formed metrics
    grep -Fqx 'waybill_unrouted_kinds 1' metrics
    grep -q '^waybill_oldest_due_seconds 0\.[0-9]*$\|^waybill_oldest_due_seconds [1-9]' metrics
}

@test "examples: alerts and dashboard name only families that are served" {
    deliver 'exit 0'
    waybill --quiet send k 1
    listen
    until_true 10 eval '[ "$(status_of pending)" = 0 ]'
    curl -s "http://$address/metrics" >metrics
    for name in $(cat "$WAYBILL_ROOT"/examples/prometheus/* |
        grep -o 'waybill_[a-z_]*' | sed 's/_bucket$//' | sort -u); do
        grep -q "^# TYPE $name " metrics || { echo "$name"; return 1; }
    done
    jq -e .panels "$WAYBILL_ROOT/examples/prometheus/dashboard.json" >/dev/null
    if command -v promtool >/dev/null; then
        promtool check rules "$WAYBILL_ROOT/examples/prometheus/alerts.yml"
    fi
}

@test "run --listen: a breaker that is open" {
    deliver 'exit 75' \
        'retry = { immediate = true }, breaker = { scope = "a\"b\nc" }'
    fail_thrice
    listen
    curl -s "http://$address/metrics" |
        grep -Fqx 'waybill_breaker_open{scope="a\"b\nc"} 1'
    has "$(waybill status)" 'breaker a"b c is open'
}

@test "run --listen: bad addresses" {
    deliver 'exit 0'
    usage run --listen nowhere
    usage run --listen 127.0.0.1:99999
    listen
    try js --db other.db run --listen "$address"
    ended 1
    same unavailable "$(jq -r .error.code <<<"$err")"
}

@test "a secret of the environment: its line end is cut off, and no error shows it" {
    command -v python3 || skip "no python3 here"
    cat >serve.py <<'END'
import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers['Content-Length']))
        open('asked', 'a').write(self.headers['X-Key'] + '\n')
        self.send_error(404, 'no ' + self.path)
    def log_message(self, *a): pass
s = http.server.HTTPServer(('127.0.0.1', 0), H)
open('port.new', 'w').write(str(s.server_port))
import os; os.rename('port.new', 'port')
s.serve_forever()
END
    python3 serve.py 3>&- &
    PIDS=$!
    until_true 20 test -s port
    export URL_KEY=canary-12345 KEY=$'second-canary\n'
    config <<<"route \"k\" { url = \"http://127.0.0.1:$(cat port)/a/\" ..
        env \"URL_KEY\" .. \"/b\", headers = { [\"X-Key\"] = env \"KEY\" } }"
    id=$(send k 1)
    try waybill drain
    ended 4
    same second-canary "$(cat asked)"
    has "$(row "$id" last_error)" "404 no /a/************/b"
    ! grep -r canary box.db* state out.txt err.txt
}

@test "run: a file that is locked holds up its own route alone, and no SIGTERM" {
    config <<'END'
route "locked" { transport = "file", path = "locked.ndjson", timeout = "2s" }
route "free" { transport = "file", path = "free.ndjson" }
END
    touch etc/waybill/locked.ndjson
    (exec 9>>etc/waybill/locked.ndjson && flock 9 && echo >is_locked && exec sleep 30) &
    PIDS=$!
    until_true 10 test -e is_locked
    waybill send locked '{}'
    "$WAYBILL" run 2>run.err >run.out &
    worker=$!
    PIDS+=" $worker"
    until_true 10 test -e etc/waybill/free.ndjson
    waybill send free '{}'
    until_true 10 test -s etc/waybill/free.ndjson
    kill -TERM "$worker"
    wait "$worker"
    same 0 $?
    same pending "$(js list --kind locked | jq -r .status)"
    # by name, or, on a busy machine, that it took too long
    js list --kind locked | jq -r .last_error | grep -e keeps -e "too long"
}

@test "drain, run: a proxy of the environment is not used, which is said once" {
    "$WAYBILL" sink --listen 127.0.0.1:0 --into got >sink.log 2>&1 3>&- &
    PIDS=$!
    until_true 10 grep -q "listening on" sink.log
    here="url = 'http://$(grep -o '127.0.0.1:[0-9]*' sink.log)/'"
    dead=http://bob:canary@127.0.0.1:1
    config <<<"route 'a' { $here } route 'b' { $here }"
    waybill send a x
    HTTPS_PROXY=$dead try waybill drain
    ended 0
    same 1 "$(grep -c proxy err.txt)"
    has "$err" 'note: HTTPS_PROXY is set, and not used: write proxy = env "HTTPS_PROXY" in route "a"'
    HTTPS_PROXY=$dead "$WAYBILL" run 2>run.log 3>&- &
    PIDS="$PIDS $!"
    until_true 10 grep -q " info start" run.log
    same 1 "$(grep -c ' warn proxy-unused detail=.HTTPS_PROXY is set' run.log)"
    kill "$!"
    wait "$!"
    config <<<"route '*' { $here, proxy = 'direct' }"
    waybill send a x
    HTTPS_PROXY=$dead try waybill drain
    ended 0
    same "" "$err"
    config <<<"route '*' { $here, proxy = env 'HTTPS_PROXY' }"
    id=$(send a x)
    HTTPS_PROXY=$dead try waybill drain
    ended 4
    has "$(row "$id" last_error)" "failed to connect to 127.0.0.1 port 1"
    if grep -r canary . --include=*.txt --include=*.log; then false; fi
}
