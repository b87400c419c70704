#!/bin/sh
# A worker of ten lines in shell: claims messages of one kind, passes each to a
# command on its standard input, and reports the outcome.
#
#     worker.sh KIND COMMAND [ARGS...]        database: $WAYBILL_DB
#
# Ends when nothing is due; run it from cron, or in a loop. A worker that is
# killed loses nothing: its claim ends, and the message is claimed again.
kind=$1 && shift
field() { printf '%s\n' "$job" | jq -j ".$1"; }
while job=$(waybill --json claim --kind "$kind" --lease 60s); do
    id=$(field id) token=$(field token)
    if error=$(field payload | "$@" 2>&1 >/dev/null); then
        waybill --quiet confirm "$id" --token "$token"
    else
        waybill --quiet fail "$id" --token "$token" --error "${error:-failed}"
    fi
done
