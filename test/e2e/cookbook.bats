#!/usr/bin/env bats
# The recipes of doc/COOKBOOK.md, run as they stand there. What is changed is
# named in each test: ports, hosts and folders of the system.
load helper

# code TITLE LANGUAGE [N]: the Nth fenced block of that language in a section
code() {
    awk -v title="## $1" -v fence="\`\`\`$2" -v want="${3:-1}" '
        /^## / { here = $0 == title }
        /^```/ { inside = here && !inside && $0 == fence && ++n == want; next }
        inside { print }' "$ROOT/doc/COOKBOOK.md" >code.txt
    [ -s code.txt ] || { echo "no $2 under '$1'" >&2; return 1; }
    cat code.txt
}

# receiver COMMAND...: start one, wait until it listens on $PORT
receiver() {
    background receiver.log "$@"
    RECEIVER=$LAST
    until_true 10 python3 -c "import socket
socket.create_connection(('127.0.0.1', $PORT)).close()" 2>/dev/null ||
        { cat receiver.log; return 1; }
}

abandon() { # KIND PAYLOAD OPTIONS...: one abandoned message
    waybill --quiet send "$@" >/dev/null
    waybill --json claim --kind "$1" >claimed
    waybill --quiet fail "$(jq -r .id claimed)" --token \
        "$(jq -r .token claimed)" --error 'no such order' --reject
}

@test "cookbook: cron drains with its own small environment" {
    sink
    cat >config.lua <<END
route "*" { url = "http://127.0.0.1:$PORT/" }
END
    waybill --quiet send k '{}' >/dev/null
    code "Deliver by cron" crontab >table
    # cron: the variables of the table and few others, a shell, no terminal
    vars=$(sed -n "/^[A-Z_]*=/p" table | sed "s|/usr/local/bin|$(dirname "$WAYBILL")|
        s|/var/lib/waybill|$PWD|; s|/etc/waybill|$PWD|; s|waybill.db|box.db|")
    sed -n 's/^[0-9*]* [0-9*]* \* \* \* //p' table >commands
    same 2 "$(wc -l <commands)"
    while read -r command; do
        # shellcheck disable=SC2086 # a word a variable
        (cd / && env -i HOME="$HOME" SHELL=/bin/sh $vars sh -c "$command") >mail 2>&1
        same "" "$(cat mail)"
    done <commands
    same 1 "$(effects)"
}

@test "cookbook: the files that the systemd recipe copies are there" {
    code "Deliver with systemd" console | grep -o 'examples/[^ ]*' >files
    while read -r file; do [ -f "$ROOT/$file" ]; done <files
    [ -s files ]
    [ -f "$ROOT/examples/systemd/waybill-drain.timer" ]
    [ -f "$ROOT/examples/prometheus/dashboard.json" ]
}

@test "cookbook: a secret is rotated under a worker, and each request is accepted" {
    free_port
    code "Verify signatures at the receiver" python |
        sed "s/9000/$PORT/" >receiver.py
    here="s|https://shop.example|http://127.0.0.1:$PORT|"
    eval "$(code "Rotate a secret" sh | sed 's/orders.2/orders.1/')"
    eval "$(code "Rotate a secret" sh)"
    [ "$(cat orders.1)" != "$(cat orders.2)" ]
    same 600 "$(stat -c %a orders.2)"
    code "Rotate a secret" lua 2 | sed "$here; s/orders.2/orders.1/" >config.lua
    ORDERS_SECRET=$(cat orders.1) receiver python3 receiver.py
    background run.log waybill run
    worker=$LAST
    delivers() { # N: a message, which is the Nth that the receiver takes
        waybill --quiet send order.placed "{\"order\": $1}" >/dev/null
        until_true 10 takes "$1"
    }
    takes() { [ "$(sqlite3 orders.db 'SELECT count(*) FROM orders')" = "$1" ]; }
    reloaded() { [ "$(grep -c ' reload ' run.log)" = "$1" ]; }
    until_true 10 grep -q start run.log
    delivers 1
    code "Rotate a secret" lua 1 | sed "$here" >config.lua
    kill -HUP "$worker"
    until_true 10 reloaded 1
    delivers 2
    kill "$RECEIVER"
    wait "$RECEIVER" || :
    ORDERS_SECRET=$(cat orders.2) receiver python3 receiver.py
    delivers 3
    code "Rotate a secret" lua 2 | sed "$here" >config.lua
    rm orders.1
    kill -HUP "$worker"
    until_true 10 reloaded 2
    delivers 4
    same 0 "$(status_of abandoned)"
}

@test "cookbook: the dead letters of one customer, by key and by payload" {
    abandon order.placed '{"customer": 7}' --key customer-7:a
    abandon order.placed '{"customer": 70}' --key customer-70:a
    abandon order.placed '{"customer": 7}' --key other:a
    abandon order.placed 'not JSON' --content-type text/plain
    title="Replay the dead letters of one customer"
    eval "$(code "$title" sh 1)" >listed
    same 5 "$(wc -l <listed)"
    eval "$(code "$title" sh 2)"
    same customer-7:a "$(waybill --json list --status pending | jq -r .key)"
    eval "$(code "$title" sh 3)"
    same 'customer-7:a other:a' \
        "$(echo $(waybill --json list --status pending | jq -r .key))"
    eval "$(code "$title" sh 2)" # nothing is left, and that is no error
    same 2 "$(status_of abandoned)"
}

@test "cookbook: seven backups are kept, and one is restored" {
    waybill --quiet send k '{}' >/dev/null
    mkdir backups
    touch backups/waybill-2026-01-0{1,2,3,4,5,6,7,8}.db
    code "Back up and restore" sh | sed "s|/var/backups/waybill|$PWD/backups|" >job
    bash -e job
    newest=backups/waybill-$(date +%F).db
    [ -s "$newest" ]
    same 7 "$(ls backups | wc -l)"
    sed -n '/^## Backup and restore/,/^## /p' "$ROOT/doc/DATABASE_FILES.md" >restore
    grep -o '`mkdir before.*before/`\|`cp backup[^`]*\.db`\. It' restore |
        sed 's/`//g; s/\. It//; s/waybill\.db/box.db/g; s|backup\.db|'"$newest"'|' >steps
    same 2 "$(wc -l <steps)"
    bash -e steps
    same 1 "$(status_of pending)"
    same 600 "$(stat -c %a box.db)"
    waybill --quiet doctor
}

@test "cookbook: Prometheus takes the configuration, the alerts and the metrics" {
    # Prometheus itself is not installed for a test
    promtool=$(command -v promtool || echo true)
    waybill --quiet send k '{}' >/dev/null
    title="Measure with Prometheus"
    code "$title" yaml | sed "s|/etc/prometheus/waybill|$ROOT/examples/prometheus|" \
        >prometheus.yml
    "$promtool" check config prometheus.yml
    code "$title" sh | sed "s|/var/lib/prometheus/node-exporter|$PWD|" >job
    bash -e job
    "$promtool" check metrics <waybill.prom
    grep -q '^waybill_messages{kind="k",status="pending"} 1' waybill.prom
}

@test "cookbook: what is above the rate waits, without an attempt" {
    sink
    code "Keep to a rate limit" lua | sed "s|https://shop.example|http://127.0.0.1:$PORT|" \
        >config.lua
    for i in $(seq 30); do echo "{\"order\": $i}"; done >orders
    waybill --quiet send order.placed --lines <orders
    run waybill --json drain --for 300ms
    [ "$(report attempted)" -lt 15 ]
    same 0 "$(waybill --json list | jq -s 'map(.attempts) | add')"
}

@test "cookbook: an e-mail has the message's id, and sendmail's status decides" {
    mkdir bin
    cat >bin/sendmail <<'END'
#!/bin/sh
cat >"mail.$WAYBILL_ID"
echo "$@" >arguments
exit "$(cat status)"
END
    chmod +x bin/sendmail
    PATH=$PWD/bin:$PATH
    title="Send e-mail"
    code "$title" python >mail.py
    code "$title" lua | sed "s|/etc/waybill|$PWD|" >config.lua
    echo 0 >status
    payload=$(grep -o '`{"to".*}`' "$ROOT/doc/COOKBOOK.md" | tr -d '`')
    id=$(send mail "$payload")
    waybill --quiet drain
    same "-t -i" "$(cat arguments)"
    grep -qx "Message-ID: <$id@shop.example>" "mail.$id"
    grep -qx 'To: ada@example.org' "mail.$id"
    grep -qx 'It comes.' "mail.$id"
    echo 75 >status
    id=$(send mail '{"to": "ä@example.org", "subject": "Ünï", "text": "ß"}')
    run waybill --quiet drain
    same pending "$(field "$id" status)"
    echo 67 >status # no such user
    id=$(send mail "$payload")
    run waybill --quiet drain
    same abandoned "$(field "$id" status)"
    for bad in '{"to": "a@b", "subject": "x\nBcc: c@d", "text": ""}' '{}' '[]' 'x'; do
        id=$(send mail "$bad")
        run waybill --quiet drain
        same rejected "$(field "$id" reason)"
        [ ! -e "mail.$id" ]
    done
}

@test "cookbook: a command runs once, and what is unknown is settled" {
    title="Run a command once"
    cat >charge <<'END'
#!/bin/sh
echo "$1" >>charged
[ ! -e block ] || { echo >running; exec sleep 60; }
END
    chmod +x charge
    code "$title" sh 1 >once
    bash -e once
    bash -e once
    same 1 "$(wc -l <charged)"
    sed 's/4711/4712/g; s/--ttl/--lease 1s --wait 0s --ttl/' once >next
    touch block
    background once.log bash -c "exec $(cat next)"
    until_true 10 [ -e running ]
    code "$title" sh 2 | sed 's/4711/4712/g; s/--ttl/--wait 0s --ttl/' >script
    same "it still runs" "$(bash script 2>/dev/null)"
    kill -9 "$LAST"
    wait "$LAST" || :
    rm block
    unseen() { bash script 2>/dev/null | grep -q '^an earlier run ended unseen'; }
    until_true 20 unseen
    code "$title" sh 3 | sed 's/4711/4712/g' >settle
    bash -e settle
    bash -e next
    same '4711 4712 4712' "$(echo $(cat charged))"
    sed -i 's/charge 4712/charge 4713/' script
    same "this key belongs to another command line" "$(bash script 2>/dev/null)"
}

# verifies: the receiver on $PORT takes what is signed, and nothing else
verifies() {
    url="http://127.0.0.1:$PORT/"
    printf 'route "order.placed" { url = "%s", secret = file "secret" }\n' "$url" \
        >config.lua
    id=$(send order.placed '{"order": 1, "name": "Zoë"}')
    waybill --quiet drain
    same '{"error":{"code":"notfound"' "$(waybill --json show "$id" 2>&1 | cut -d, -f1)"
    waybill --quiet send order.placed '{"order": 2}' >/dev/null
    printf 'whsec_%s\n' "$(openssl rand -base64 32)" >secret
    run waybill --quiet drain
    same 4 "$status"
    same 1 "$(status_of abandoned)"
    # a signature that was good, of six minutes ago; no signature; not a number
    sent=$(($(date +%s) - 360))
    key=$(echo "$ORDERS_SECRET" | sed 's/whsec_//' | base64 -d | xxd -p -c 64)
    mac=$(printf 'id.%s.{}' "$sent" |
        openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | base64)
    for signed in "webhook-id: id;webhook-timestamp: $sent;webhook-signature: v1,$mac" \
        "webhook-id: id;webhook-timestamp: $(date +%s)" \
        "webhook-id: id;webhook-timestamp: now;webhook-signature: v1,$mac" 'a: b'; do
        echo "$signed" | tr ';' '\n' >headers
        same 401 "$(curl -s -o /dev/null -w '%{http_code}' -H @headers -d '{}' "$url")"
    done
}

@test "cookbook: the receiver in Python verifies, and acts once on each id" {
    free_port
    code "Verify signatures at the receiver" python | sed "s/9000/$PORT/" >receiver.py
    printf 'whsec_%s\n' "$(openssl rand -base64 32)" >secret
    ORDERS_SECRET=$(cat secret)
    export ORDERS_SECRET
    receiver python3 receiver.py
    verifies
    same 1 "$(sqlite3 orders.db 'SELECT group_concat(number) FROM orders')"
    echo "$ORDERS_SECRET" >secret
    waybill --quiet retry --abandoned
    waybill --quiet drain
    id=$(send order.placed '{"order": 3}')
    waybill --quiet drain
    # the same message again, as after a worker that was killed
    export WAYBILL_DB=$PWD/again.db
    waybill --quiet send order.placed '{"order": 3}' --id "$id" >/dev/null
    run waybill --json drain
    same 1 "$(report confirmed)"
    same 1,2,3 "$(sqlite3 orders.db 'SELECT group_concat(number) FROM orders')"
}

@test "cookbook: the receiver in Node verifies" {
    command -v node >/dev/null || skip "no node"
    free_port
    code "Verify signatures at the receiver" js | sed "s/9001/$PORT/" >receiver.mjs
    printf 'whsec_%s\n' "$(openssl rand -base64 32)" >secret
    ORDERS_SECRET=$(cat secret)
    export ORDERS_SECRET
    receiver node receiver.mjs
    verifies
    same 1 "$(wc -l <receiver.log)"
}

@test "cookbook: an abandoned message becomes an alert in a chat" {
    sink
    code "Alert a person to abandoned messages" lua >config.lua
    cat >>config.lua <<'END'
route "order.placed" {
    transport = "exec", argv = { "sh", "-c", "echo no such order >&2; exit 65" } }
END
    export CHAT_WEBHOOK=http://127.0.0.1:$PORT/
    id=$(send order.placed '{"order": 7}')
    run waybill --quiet drain
    same abandoned "$(field "$id" status)"
    run waybill --quiet drain
    same 1 "$(effects)"
    text=$(jq -r '.body | fromjson | .text' effects.ndjson)
    [[ $text == "order.placed $id was abandoned: "*"no such order"* ]] || {
        echo "$text"
        return 1
    }
}
