#!/usr/bin/env bats
# Two executables: waybill starts fast, waybill-full has libcurl and libpq.
load helper

# linked FILE: which of these two it is linked with
linked() {
    { LD_TRACE_LOADED_OBJECTS=1 "$1" || :; } |
        grep -o 'lib\(curl\|pq\)\.so' | sort -u | tr '\n' ' '
}

# alone: a copy of waybill without a waybill-full beside it
alone() {
    mkdir -p alone
    cp "$WAYBILL" alone/waybill
    printf '%s' "$PWD/alone/waybill"
}

@test "load: waybill has neither libcurl nor libpq, waybill-full has both" {
    same "" "$(linked "$WAYBILL")"
    same "libcurl.so libpq.so " "$(linked "$WAYBILL-full")"
}

@test "load: without waybill-full: what needs none works, also with a configuration" {
    config <<<'route "k" { url = "http://127.0.0.1:9/", headers = { A = env "NO_SUCH" } }'
    WAYBILL=$(alone)
    try waybill send k x
    ended 0
    same 1 "$(status_of pending)"
    try waybill once --key a -- true
    ended 0
    try waybill drain --help
    ended 0
    printf 'route "k" { urk = "http://127.0.0.1:9/" }' >wrong.lua
    try js --config wrong.lua claim
    ended 1
    has "$err" urk
}

@test "load: without waybill-full: what needs it fails with 1 and names the file" {
    [ ! -e "$(strings "$WAYBILL" | grep '/waybill-full$')" ] ||
        skip "waybill-full is installed"
    WAYBILL=$(alone)
    for words in drain run doctor 'send k x --drain' \
        '--db postgres://127.0.0.1:9/x status'; do
        # shellcheck disable=SC2086 # words
        try js $words
        ended 1
        has "$err" "/waybill-full, which cannot be run"
        same unavailable "$(jq -r .error.code <<<"$err")"
    done
    WAYBILL_DB=postgresql://127.0.0.1:9/x try js send k x
    ended 1
    has "$err" "send needs "
}

@test "load: waybill-full goes on with the same words, input, output and exit code" {
    config <<<'route "k" { transport = "file", path = "out.ndjson" }'
    printf 'a b' >payload
    try waybill send k - --drain <payload
    ended 0
    has "$(cat etc/waybill/out.ndjson)" '"payload_base64":"YSBi"'
    try waybill drain
    ended 3
}
