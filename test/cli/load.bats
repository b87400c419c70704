#!/usr/bin/env bats
# What is loaded when: libcurl and libpq only by those who use them.
load helper

# loads COMMAND...: the libraries that it loads of these two
loads() {
    { LD_DEBUG=files "$@" 2>&1 >/dev/null || :; } |
        grep -o 'calling init: .*/lib\(curl\|pq\)[^/]*' | sed 's,.*/,,' | sort -u
}

@test "load: send on a file needs neither libcurl nor libpq, http does" {
    config <<<'route "k" { url = "http://127.0.0.1:9/" }'
    same "" "$(loads "$WAYBILL" send k x)"
    same "" "$(loads "$WAYBILL" status)"
    has "$(loads "$WAYBILL" drain)" libcurl
    WAYBILL_DB=postgres://127.0.0.1:9/x
    has "$(loads "$WAYBILL" send k x)" libpq
}

@test "load: a library that cannot be loaded: 1, and its name" {
    : >libcurl.so.4
    : >libpq.so.5
    config <<<'route "k" { url = "http://127.0.0.1:9/" }'
    LD_LIBRARY_PATH=$PWD try js drain
    ended 1
    has "$err" "libcurl.so.4 cannot be loaded"
    same unavailable "$(jq -r .error.code <<<"$err")"
    LD_LIBRARY_PATH=$PWD try js --db postgres://127.0.0.1:9/x send k x
    ended 1
    has "$err" "libpq.so.5 cannot be loaded"
    LD_LIBRARY_PATH=$PWD try js send k x
    ended 0
}
