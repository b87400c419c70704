# shellcheck shell=bash disable=SC2034,SC2154
# helper.bash - each test has its own folder, home and database. The command is
# $WAYBILL [build/waybill].

setup() {
    ROOT=${WAYBILL_ROOT:-$(cd "$BATS_TEST_DIRNAME/../.." && pwd)}
    WAYBILL=${WAYBILL:-$ROOT/build/waybill}
    [ -x "$WAYBILL" ] || { echo "no command at $WAYBILL"; return 1; }
    cd "$BATS_TEST_TMPDIR" || return 1
    export HOME=$PWD/home XDG_STATE_HOME=$PWD/state XDG_CONFIG_HOME=$PWD/etc
    export WAYBILL_DB=$PWD/box.db NO_COLOR=1
    unset WAYBILL_CONFIG HTTPS_PROXY https_proxy HTTP_PROXY http_proxy \
        ALL_PROXY all_proxy
    mkdir home etc
    PIDS=
}

teardown() {
    for pid in $PIDS; do
        kill -9 "$pid" 2>/dev/null || :
        wait "$pid" 2>/dev/null || :
    done
}

waybill() { "$WAYBILL" "$@"; }
js() { "$WAYBILL" --json "$@"; }

# try COMMAND...: into $status, $out and $err, apart.
try() {
    status=0
    "$@" >out.txt 2>err.txt || status=$?
    out=$(cat out.txt) err=$(cat err.txt)
}

same() { # same EXPECTED ACTUAL
    [ "$1" = "$2" ] || { echo "expected: $1"; echo "actual:   $2"; return 1; }
}

ended() { # ended CODE: how the last try ended
    [ "$1" = "$status" ] && return
    echo "expected exit $1, was $status"
    echo "out: $out"
    echo "err: $err"
    return 1
}

has() { # has TEXT PART
    [[ "$1" == *"$2"* ]] || { echo "no '$2' in: $1"; return 1; }
}

# get FILTER: out of the JSON of the last try
get() { jq -r "$1" <<<"$out"; }

# fields NAME...: the last object has these, in this order, before any others
fields() {
    same "$*" "$(jq -r "keys_unsorted[:$#] | join(\" \")" <<<"$out" | tail -1)"
}

# usage WORDS...: exit 2, one line that names the command, nothing on stdout
usage() {
    try "$WAYBILL" "$@"
    ended 2 || return 1
    same "" "$out" || return 1
    same 1 "$(wc -l <err.txt)" || return 1
    has "$err" "waybill" || return 1
    try "$WAYBILL" --json "$@"
    ended 2 && same usage "$(jq -r .error.code <<<"$err")"
}

send() { js send "$@" | jq -r .id; }

# claim ARGS...: $id and $token of one message
claim() {
    out=$(js claim "$@") || return
    id=$(get .id) token=$(get .token)
}

# fail_thrice: three failures in a row open k's breaker
fail_thrice() {
    for _ in 1 2 3; do
        waybill send k x >/dev/null
        claim --kind k
        waybill --quiet fail "$id" --token "$token" --error down
    done
}

# config <<<TEXT: becomes the configuration
config() {
    mkdir -p etc/waybill
    cat >etc/waybill/config.lua
}

status_of() { js status | jq -r ".$1"; }
row() { js show "$1" | jq -r ".$2"; }

until_true() { # SECONDS COMMAND...
    local ends=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$ends" ] || { echo "never: $*"; return 1; }
        sleep 0.02
    done
}

now_ms() { date +%s%3N; }
NOBODY=01900000-0000-7000-8000-000000000000
