#!/usr/bin/env bats
# init, migrate, and what other commands do with tables of an older version.
load helper

# tables_of_version_2: box.db becomes what Waybill made before history was kept
tables_of_version_2() {
    waybill init >/dev/null
    sqlite3 box.db 'ALTER TABLE waybill_outbox DROP COLUMN ended_ms;
        ALTER TABLE waybill_outbox DROP COLUMN attempts_log;
        DELETE FROM waybill_meta WHERE name LIKE "clock%";
        UPDATE waybill_meta SET value = 2 WHERE name = "version"'
}

version() { sqlite3 box.db "SELECT value FROM waybill_meta WHERE name = 'version'"; }

@test "init: makes the database; again: nothing to do" {
    try js --db a/new.db init
    ended 0
    same '{"db":"a/new.db","version":3,"from":null,"changed":true}' "$out"
    same 600 "$(stat -c %a a/new.db)"
    try js --db a/new.db init
    ended 0
    same '{"db":"a/new.db","version":3,"from":3,"changed":false}' "$out"
    has "$(waybill --db a/new.db init)" "nothing to do"
    has "$(waybill init)" "made, with tables of version 3"
}

@test "migrate: from version 2; again: nothing to do; never makes a database" {
    tables_of_version_2
    try js migrate
    ended 0
    same '{"db":"'"$WAYBILL_DB"'","version":3,"from":2,"changed":true}' "$out"
    same "" "$err"
    same 3 "$(version)"
    same false "$(js migrate | jq .changed)"
    for missing in "--db none.db" ""; do
        rm -f box.db*
        # shellcheck disable=SC2086
        try waybill $missing migrate
        ended 1
        [ ! -e none.db ] && [ ! -e box.db ]
    done
}

@test "a command that reads never migrates: it says what to do" {
    tables_of_version_2
    for command in status list "show $NOBODY" metrics breaker \
        "retry --abandoned --dry-run" "keys list"; do
        # shellcheck disable=SC2086
        try waybill $command
        ended 1 || { echo "$command"; return 1; }
        has "$err" "run waybill migrate"
        same "" "$out"
        same 2 "$(version)"
    done
    try js doctor
    ended 1
    same '"waybill migrate"' \
        "$(jq '.checks[] | select(.name == "database") | .fix' <<<"$out")"
    same 2 "$(version)"
}

@test "backup: of tables of an older version too, before migrate" {
    tables_of_version_2
    waybill backup copy.db
    same 2 "$(version)"
    waybill migrate
    same 2 "$(sqlite3 copy.db "SELECT value FROM waybill_meta
        WHERE name = 'version'")"
    try waybill --db copy.db migrate
    ended 0
    has "$out" "from version 2 to 3"
}

@test "a command that writes migrates, and says so" {
    for command in "send k 1" claim "pause k" "once --key a -- true" drain; do
        rm -f box.db*
        tables_of_version_2
        # shellcheck disable=SC2086
        try waybill $command
        has "$err" "brought the tables up to date, from version 2 to 3"
        same 3 "$(version)"
        # shellcheck disable=SC2086
        try waybill $command
        [[ $err != *"up to date"* ]]
    done
    rm box.db*
    tables_of_version_2
    try js send k 1
    same "" "$err"
}

@test "tables of a newer version: refused, nothing is changed" {
    waybill init
    sqlite3 box.db 'UPDATE waybill_meta SET value = 10 WHERE name = "version"'
    for command in init migrate status "send k 1"; do
        # shellcheck disable=SC2086
        try waybill $command
        ended 1
        has "$err" "install a newer Waybill"
        same 10 "$(version)"
    done
}
