#!/usr/bin/env bats
# The receiver for trying and testing: each id once, and faults on purpose.
load helper

# post ID [CURL OPTIONS...]: the status; the body is in reply
post() {
    local id=$1
    shift
    curl -s -o reply -w '%{http_code}' -H "Idempotency-Key: $id" \
        -H 'Waybill-Kind: order.placed' -d '{"n":1}' "$@" \
        "http://127.0.0.1:$PORT/in" || true
}

stat() { curl -s "http://127.0.0.1:$PORT/stats" | jq -r ".$1"; }

line() { jq -r "$1" effects.ndjson; }

again() { # start the receiver again on its file
    PORT=
    rm sink.log
    sink "$@"
}

@test "a message: one line with all of it, before the answer" {
    sink
    same 200 "$(post k1 -H 'Waybill-Key: order-7')"
    kill -9 "$SINK"
    same k1/order.placed/order-7/in \
        "$(line '.id + "/" + .kind + "/" + .key + .path')"
    same '{"n":1}' "$(line .body)"
    [ $(($(date +%s%3N) - $(line .received_ms))) -lt 60000 ]
    same '{"applied":1,"duplicates":0}' "$(cat reply)"
}

@test "the same id again, however it is written: no second effect" {
    sink
    same 200 "$(post k1)"
    same 200 "$(post k1)"
    same '{"applied":0,"duplicates":1}' "$(cat reply)"
    same 200 "$(post '"k1"')"
    curl -s -H 'webhook-id: k1' -d x "http://127.0.0.1:$PORT/other"
    same 1 "$(effects)"
    same 4/1/3 "$(stat received)/$(stat applied)/$(stat duplicates)"
}

@test "Idempotency-Key goes before webhook-id" {
    sink
    post k1 -H 'webhook-id: w1'
    same k1 "$(line .id)"
}

@test "no id: each request is its own effect" {
    sink
    for _ in 1 2 3; do curl -s -d x "http://127.0.0.1:$PORT/"; done
    same 3 "$(wc -l <effects.ndjson)"
    same null "$(line .id | sort -u)"
    end_sink
    again
    same 3 "$(stat effects)"
}

@test "requests that come before their answers: each is answered, in order" {
    sink
    exec 5<>"/dev/tcp/127.0.0.1/$PORT"
    for id in k1 k2 k1; do
        printf 'POST / HTTP/1.1\r\nHost: a\r\nwebhook-id: %s\r\n' "$id"
        printf 'Content-Length: 2\r\n\r\n{}'
    done >&5
    printf 'GET /stats HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n' >&5
    timeout 10 cat <&5 >replies
    same '1 1 0 2' "$(grep -ao '"applied":[0-9]*' replies | cut -d: -f2 | xargs)"
    same 2 "$(effects)"
}

@test "an id that is none: 400, nothing applied" {
    sink
    same 400 "$(post k1 -H 'Idempotency-Key;')"
    same 400 "$(post 'a b')"
    same 400 "$(post 'a"b')"
    same 400 "$(post "$(printf 'x%.0s' $(seq 256))")"
    same 400 "$(post k1 -H 'Idempotency-Key: k1')"
    same 0 "$(stat effects)"
}

@test "bytes that are no text: body_base64" {
    sink
    printf 'a\0\377' >raw
    curl -s -H 'webhook-id: k2' --data-binary @raw "http://127.0.0.1:$PORT/"
    same YQD/ "$(jq -r 'select(.id == "k2").body_base64' effects.ndjson)"
    same null "$(jq -r 'select(.id == "k2").body' effects.ndjson)"
}

@test "a batch of a JSON array: each item under its id, as it was written" {
    sink
    post k2
    same 200 "$(curl -s -o reply -w '%{http_code}' -H 'Waybill-Ids: k1, k2,k3' \
        -d ' [ {"a":[1.0,"]}\","]} ,18446744073709551615, "x" ] ' "http://127.0.0.1:$PORT/")"
    same '{"applied":2,"duplicates":1}' "$(cat reply)"
    same '{"a":[1.0,"]}\","]}' "$(jq -r 'select(.id == "k1").body' effects.ndjson)"
    same '"x"' "$(jq -r 'select(.id == "k3").body' effects.ndjson)"
}

@test "the same id twice in a batch: the second is a duplicate" {
    sink
    same 200 "$(curl -s -o reply -w '%{http_code}' -H 'Waybill-Ids: k1,k2,k1' \
        -d '[1,2,3]' "http://127.0.0.1:$PORT/")"
    same '{"applied":2,"duplicates":1}' "$(cat reply)"
    same 2/1 "$(effects)/$(jq -r 'select(.id == "k1").body' effects.ndjson)"
}

@test "a batch of lines: each line under its id" {
    sink
    printf '{"a":1}\nplain\n' >lines
    curl -s -H 'Waybill-Ids: k1,k2' --data-binary @lines \
        -H 'Content-Type: application/x-ndjson' "http://127.0.0.1:$PORT/"
    same '{"a":1} plain ' "$(line .body | tr '\n' ' ')"
}

@test "a batch that does not add up: 400, nothing of it applied" {
    sink
    for body in '[1]' '[1,2,3]' '[1,2' '{"a":1}' '' '[]'; do
        same 400 "$(curl -s -o reply -w '%{http_code}' -d "$body" \
            -H 'Waybill-Ids: k1,k2' "http://127.0.0.1:$PORT/")"
    done
    same 400 "$(curl -s -o reply -w '%{http_code}' -d '[1,2]' \
        -H 'Waybill-Ids: k1,' "http://127.0.0.1:$PORT/")"
    same 0 "$(stat effects)"
}

@test "--fail: that share gets 500 and has no effect; the seed repeats it" {
    sink --fail 0.3 --seed 7
    for i in $(seq 100); do post "k$i"; echo; done >first
    failed=$(grep -c 500 first)
    [ "$failed" -gt 10 ] && [ "$failed" -lt 60 ]
    same $((100 - failed)) "$(effects)"
    same "$failed" "$(stat failed)"
    end_sink
    rm effects.ndjson
    again --fail 30% --seed 7
    for i in $(seq 100); do post "k$i"; echo; done >second
    same "$(cat first)" "$(cat second)"
}

@test "--drop: applied, no answer; asked again it is a duplicate" {
    sink --drop 1
    same 000 "$(post k1)"
    same 000 "$(post k1)"
    same 1 "$(effects)"
    same 2/1/1 "$(stat dropped)/$(stat applied)/$(stat duplicates)"
}

@test "--delay: the response is late, the effect is not" {
    sink --delay 60s
    post k1 >code &
    until_true 10 test -s effects.ndjson
    same '' "$(cat code)"
    kill "$SINK" # requests that wait are answered
    wait "$SINK" || :
    until_true 10 test -s code
    same 200 "$(cat code)"
}

@test "--status with --retry-after: always, without effect" {
    sink --status 429 --retry-after 90s
    same 429 "$(post k1 -D head)"
    grep -qi '^retry-after: 90' head
    same 0/1 "$(stat effects)/$(stat failed)"
}

@test "--reply: the body of the answers" {
    sink --reply '{"ok":false}'
    post k1
    same '{"ok":false}' "$(cat reply)"
}

@test "started again: knows the ids of its file" {
    sink
    post k1
    end_sink
    again
    post k1
    same 1 "$(effects)"
    same 1/1 "$(stat duplicates)/$(stat effects)"
}

@test "a torn last line: cut off, its id takes effect when it comes again" {
    sink
    post k1
    post k2
    end_sink
    truncate -s -9 effects.ndjson
    again
    same 1 "$(stat effects)"
    post k2
    same 'k1 k2 ' "$(line .id | tr '\n' ' ')"
}

@test "a line that is no effect: refused, its number named, file untouched" {
    printf '{"id":null,"a":1}\nhello\n{"id":"x"}\n' >effects.ndjson
    cp effects.ndjson before
    run waybill sink --listen 127.0.0.1:0 --into effects.ndjson
    same 1 "$status"
    [[ $output == *"line 2"* ]]
    cmp before effects.ndjson
}

@test "two on one file: the second is refused" {
    sink
    run waybill sink --listen 127.0.0.1:0 --into effects.ndjson
    same 75 "$status"
    [[ $output == *"another sink"* ]]
}

@test "an address that is taken or malformed: the error names it" {
    sink
    run waybill sink --listen "127.0.0.1:$PORT" --into other.ndjson
    same 1 "$status"
    [[ $output == *"$PORT"* ]]
    run waybill sink --listen nowhere --into other.ndjson
    [[ $output == *'"nowhere" is not an address'* ]]
}

@test "GET: counts at /stats, else 405; SIGTERM prints them" {
    background sink.log waybill --json sink --listen 127.0.0.1:0 \
        --into effects.ndjson
    until_true 10 listening
    post k1
    same 405 "$(curl -s -o reply -w '%{http_code}' "http://127.0.0.1:$PORT/")"
    kill "$LAST"
    wait "$LAST"
    same 1/1/0 "$(tail -1 sink.log | jq -r \
        '"\(.received)/\(.applied)/\(.duplicates)"')"
}

@test "disk full: 503, nothing half written; works on when there is room" {
    background sink.log bash -c 'ulimit -Sf 1; exec waybill sink \
        --listen 127.0.0.1:0 --into effects.ndjson'
    SINK=$LAST
    until_true 10 listening
    for i in $(seq 30); do post "k$i"; echo; done >codes
    same '200 503 ' "$(sort -u codes | tr '\n' ' ')"
    same "$(grep -c 200 codes)" "$(effects)"
    prlimit --pid "$SINK" --fsize=unlimited: || skip "no prlimit"
    for i in $(seq 30); do post "k$i"; echo; done >codes
    same '200 ' "$(sort -u codes | tr '\n' ' ')"
    same 30 "$(effects)"
}

@test "killed again and again under load: each id once, none answered lost" {
    for i in $(seq 400); do
        printf 'url = "http://127.0.0.1:PORT/"\nheader = "webhook-id: k%s"\n' "$i"
        printf 'data = "x"\nwrite-out = "%%{http_code} k%s\\n"\n' "$i"
        printf 'output = /dev/null\n'
        [ "$i" = 400 ] || echo next
    done >requests
    for round in 1 2 3 4; do
        PORT=
        rm -f sink.log
        sink
        sed "s/PORT/$PORT/" requests >now
        curl -s --parallel --parallel-max 32 --config now \
            >>answers 2>/dev/null &
        client=$!
        # the fourth runs to its end
        [ "$round" = 4 ] || { sleep "0.0$round"; kill -9 "$SINK"; }
        wait "$client" || true
    done
    effects
    same 400 "$(effects)"
    comm -23 <(sed -n 's/^200 //p' answers | sort -u) <(line .id | sort -u) >lost
    same '' "$(cat lost)"
}
