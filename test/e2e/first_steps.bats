#!/usr/bin/env bats
# What a new user pastes from the help and the pages of doc/, as it stands there.
load helper

# gate_steps: stdin, the gateway's first steps: two requests, one goes upstream
gate_steps() {
    sink
    upstream=$PORT
    free_port
    {
        sed "s/8080/$PORT/g; s/9000/$upstream/g
            s/^\(waybill gate .*\) &$/\1 2>gate.log \&\ngate=\$!/"
        echo 'kill $gate; wait $gate'
    } >steps
    bash steps >answers 2>curl.log 3>&- || { cat steps gate.log; return 1; }
    same 2 "$(grep -c '^HTTP/1.1 200' answers)" || { cat answers; return 1; }
    same 1 "$(grep -ci '^Idempotent-Replayed: true' answers)"
    same 1 "$(curl -s "http://127.0.0.1:$upstream/stats" | jq .received)"
}

@test "gate --help: the first request is forwarded, the second replayed" {
    waybill gate --help | sed -n '/^Examples/,$s/^  //p' |
        sed '/^waybill gate --listen :/,$d' | gate_steps
}

@test "GATEWAY.md: the second call gets the response of the first" {
    sed -n '/^Try it/,/^## /s/^    //p' "$ROOT/doc/GATEWAY.md" | gate_steps
}

@test "once: its own exit statuses are in the help and in the manual" {
    waybill once --help | sed -n '/^Exit codes/,/^Examples/p' >help
    sed -n '/^Exit: the status of _CMD_/,/^## /p' "$ROOT/doc/man/waybill.1.scd" >manual
    for status in 1 2 65 69 74 75; do
        grep -q "^  $status  *\(not \)\?run" help
        grep -q "\(^\| \)$status: " manual
    done
    same 1 "$(grep -c '^  75 ' help)"
}

@test "nohup make test: a test still ends by SIGHUP" {
    cat >try.py <<'END'
import importlib.machinery
import os
import sys

sys.dont_write_bytecode = True
tests = importlib.machinery.SourceFileLoader(
    'run_tests', os.environ['ROOT'] + '/tools/run_tests').load_module()
tests.LOGS = os.getcwd()
tests.handle_signals()
done, text = tests.run('hup', ['sh', '-c', 'kill -HUP $$; echo "still here"'])
os.kill(os.getpid(), 1)  # ignored, as nohup wants it
print('ended by HUP' if 'still here' not in text.split('\n') else text)
END
    export ROOT
    same "ended by HUP" "$(trap '' HUP && python3 -W ignore try.py)"
}
