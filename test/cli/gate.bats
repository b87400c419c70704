#!/usr/bin/env bats
# gate: wrong options. Its behaviour is tested in test/e2e.
load helper

HERE="--listen 127.0.0.1:0 --upstream http://127.0.0.1:1"

# refused WORDS...: at once, and nothing is made
refused() {
    # shellcheck disable=SC2086
    try timeout 20 "$WAYBILL" gate $HERE "$@"
    ended 2
    same "" "$out"
    has "$err" "waybill gate: "
}

@test "gate: addresses, upstreams and words that are refused" {
    usage gate
    usage gate --listen 127.0.0.1:0
    usage gate --listen foo --upstream http://127.0.0.1:1
    usage gate --listen 127.0.0.1:0 --upstream https://x
    usage gate --listen 127.0.0.1:0 --upstream http://x/path
    usage gate --listen 127.0.0.1:0 --upstream http://u:geheim@127.0.0.1:1
    same 0 "$(grep -c geheim err.txt)"
    refused --anonymous sometimes
    refused --methods GET
    refused --methods post
    refused --paths pay
    refused --paths '/a,/b/../c'
    refused --keep 4xx --free 409
    has "$err" 409
    refused --unknown 600
    refused --free 500-400
    refused --fingerprint yaml
    refused --identity-header X-A --identity-cookie b
    refused --identity-header X-A --key-header x-a
    refused --key-header Host
    refused --max-body 513
    refused --log xml
    refused --lease 0s
}

@test "gate: a header that cannot identify clients is refused" {
    for name in 'a b' 'X:Y' Host Content-Length transfer-encoding Connection \
        Idempotency-Key; do
        refused --store memory --identity-header "$name"
        has "$err" "$name"
    done
}

@test "gate: an access log that cannot be written is named" {
    # shellcheck disable=SC2086
    try timeout 20 "$WAYBILL" gate $HERE --store memory --access-log none/file
    ended 1
    has "$err" "none/file"
}

@test "gate: a store of an unknown kind is refused, its password not shown" {
    refused --store redis://u:geheim@127.0.0.1/1
    has "$err" "redis://"
    same 0 "$(grep -c geheim err.txt)"
    [ ! -e redis: ]
}

@test "a database of an unknown kind makes no folder of that name" {
    try "$WAYBILL" --db mysql://u:geheim@h/db status
    [ "$status" -ne 0 ]
    has "$err" "mysql:// is no kind of database"
    [ ! -e mysql: ]
}

@test "gate: PostgreSQL named as the database makes no folder of that name" {
    # shellcheck disable=SC2086
    try timeout 20 "$WAYBILL" --db postgres://127.0.0.1:1/x gate $HERE
    ended 1
    [ ! -e postgres: ]
}

@test "gate: a port that is taken: 1, and says which" {
    python3 - "$WAYBILL" <<'END'
import socket, subprocess, sys
s = socket.create_server(('127.0.0.1', 0))
at = '127.0.0.1:%d' % s.getsockname()[1]
for more in (['--listen', at], ['--listen', '127.0.0.1:0', '--admin', at]):
    p = subprocess.run([sys.argv[1], 'gate', '--store', 'memory', '--upstream',
                        'http://127.0.0.1:1', *more], timeout=20, text=True,
                       capture_output=True)
    assert p.returncode == 1 and f'cannot listen on {at}' in p.stderr, p
END
}
