#!/usr/bin/env bats
# The README's tour, line for line as it stands there.
load helper

@test "README: the tour runs, and each message has its effect" {
    free_port
    {
        echo 'set -E'
        echo 'trap '\''echo "exit $?: $BASH_COMMAND" >>failed'\'' ERR'
        sed -n '/^## A tour/,/^## From C/s/^    //p' "$ROOT/README.md" |
            sed "s/127.0.0.1:8080/127.0.0.1:$PORT/; s/^waybill sink.*&$/&\nsink=\$!; sleep 0.5/;
                 s/^waybill run &$/&\nrun=\$!/; s/^\( *\)#.*//"
        echo 'sleep 1; kill $run; wait $run; kill $sink; wait $sink'
    } >tour.bash
    bash tour.bash >tour.out 2>&1 3>&- || { cat tour.out; return 1; }
    # a pass that met a dropped answer ends with 4; nothing else may fail
    if [ -f failed ] && grep -v '^exit 4: waybill drain' failed; then
        cat tour.out
        return 1
    fi
    same '{"order": 7} {"order": 7} {"order": 8} {"order": 9}' \
        "$(echo $(jq -r .body effects.ndjson))"
}
