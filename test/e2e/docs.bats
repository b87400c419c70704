#!/usr/bin/env bats
# What the pages of doc/ name is there, and their configurations are valid.
load helper

@test "docs: each file and function that a page names is there" {
    cd "$ROOT"
    missing=$(
        grep -ohE '\b(src|include|examples|tools)/[a-z_/]+\.[a-z]+' README.md doc/*.md |
            sort -u | while read -r file; do [ -e "$file" ] || echo "$file"; done
        grep -ohE '`[a-z_]+\(\)`' README.md doc/*.md | tr -d '`()' | sort -u |
            while read -r name; do
                grep -rqE "\b$name\(" src include || echo "$name()"
            done
        grep -ohE '\]\([^)#:]+\)' doc/*.md | tr -d ']()' | sort -u |
            while read -r link; do [ -e "doc/$link" ] || echo "$link"; done
    )
    same "" "$missing"
}

# block N: the Nth block of Lua in CONFIG.md
block() {
    awk -v want="$1" '/^```lua/ { inside = ++n == want; next }
        /^```/ { inside = 0 } inside { print }' "$ROOT/doc/CONFIG.md"
}

@test "CONFIG.md: each block of Lua is a valid configuration, or part of a route" {
    echo secret-of-more-than-24-bytes >token
    export ORDERS_SECRET=another-secret-of-24-bytes
    part='route "k" { url = "http://127.0.0.1:9/", '
    block 1 | sed "s|/etc/waybill/orders.token|$PWD/token|; s|/var/log|$PWD|" >1.lua
    block 2 >2.lua
    { block 3; echo "$part }"; } >3.lua
    { echo "$part"; block 4; echo '}'; } >4.lua
    { echo "$part batch = { max = 8,"; block 5 | sed '/^$/,$d'; echo '} }'; } >5.lua
    { echo "$part batch = { max = 8,"; block 5 | sed '1,/^$/d'; echo '} }'; } >6.lua
    same "" "$(block 6)"
    for n in 1 2 3 4 5 6; do
        [ -s "$n.lua" ]
        run waybill --config "$n.lua" --json doctor
        same true "$(report 'checks[] | select(.name == "config") | .ok')"
    done
    waybill --quiet send k '{}' >/dev/null
    run waybill --config 3.lua drain
    [[ $output == *"log in first"* ]]
}

# families FILE: the names of metrics, without the endings of a histogram
families() { sed -n 's/^# TYPE \([^ ]*\) .*/\1/p' "$1" | sort -u; }

@test "METRICS.md: it lists what the gateway and a worker serve, and nothing else" {
    printf 'route "k" { transport = "exec", argv = { "true" } }\n' >config.lua
    waybill --quiet send k '{}' >/dev/null
    background run.log waybill run --listen 127.0.0.1:0
    background gate.log waybill gate --listen 127.0.0.1:0 \
        --upstream http://127.0.0.1:9 --admin 127.0.0.1:0
    for name in run gate; do
        served() { grep -q '^listening' "$name.log"; }
        until_true 10 served
        at=$(grep '^listening' "$name.log" | grep -o '127.0.0.1:[0-9]*' | tail -1)
        curl -s "http://$at/metrics" >"$name.prom"
        ! command -v promtool >/dev/null || promtool check metrics <"$name.prom"
        families "$name.prom" >"$name.served"
    done
    page=$ROOT/doc/METRICS.md
    named() { sed -n "/^## Of the $1/,/^## Of the $2/p" "$page" |
        sed -n '/^| `/s/ | .*//p' | grep -o 'waybill_[a-z_]*' | sort -u; }
    same "$(named gateway none)" "$(cat gate.served)"
    # a series of a scope is there once that has failed, of a kind once paused
    same "$(sort -u <(named database worker) <(named worker gateway))" "$(cat run.served)"
}
