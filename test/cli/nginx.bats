#!/usr/bin/env bats
# T-7 against a real server: what nginx refuses when it ends a connection is
# sent again at once, and is no failure of the receiver.
load helper

setup_file() {
    PATH=$PATH:/usr/sbin
    command -v nginx || skip "no nginx here"
}

# serve LISTEN [LINE]: nginx at $port, which ends a connection after 20 requests
serve() {
    PATH=$PATH:/usr/sbin
    mkdir ng
    cat >ng/conf <<END
pid $PWD/ng/pid; daemon off; worker_processes 1; error_log $PWD/ng/log;
events {}
http {
    access_log off;
    client_body_temp_path $PWD/ng/a; proxy_temp_path $PWD/ng/b;
    fastcgi_temp_path $PWD/ng/c; uwsgi_temp_path $PWD/ng/d;
    scgi_temp_path $PWD/ng/e;
    server {
        listen unix:$PWD/ng/ready;
        listen 127.0.0.1:PORT $1;
        keepalive_requests 20;
        ${2:-}
        location / { return 200 ok; }
    }
}
END
    for _ in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 12000))
        sed "s/PORT/$port/" ng/conf >ng/nginx.conf
        nginx -c "$PWD/ng/nginx.conf" 3>&- &
        until [ -S ng/ready ] || ! kill -0 $!; do sleep 0.02; done
        if kill -0 $!; then
            PIDS+=" $!"
            return
        fi
    done
    return 1
}

deliver_500() { # deliver_500 URL
    config <<<"route \"*\" { url = \"$1\", ca_file = \"$PWD/c.pem\",
        concurrency = 20 }"
    seq 500 | waybill send k --lines >/dev/null
    try js drain
    ended 0
    same 500/500/0/0 "$(get '"\(.attempted)/\(.confirmed)/\(.retried)/\(.breakers_open)"')"
}

@test "HTTP/2: nginx ends each connection after 20 requests: all confirmed" {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
        -keyout k.pem -out c.pem -days 10 -subj /CN=x \
        -addext subjectAltName=IP:127.0.0.1 2>/dev/null
    serve "ssl http2" "ssl_certificate $PWD/c.pem;
        ssl_certificate_key $PWD/k.pem;"
    deliver_500 "https://127.0.0.1:$port/x"
}

@test "HTTP/1.1: nginx ends each connection after 20 requests: all confirmed" {
    serve ""
    touch c.pem
    deliver_500 "http://127.0.0.1:$port/x"
}
