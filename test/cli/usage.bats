#!/usr/bin/env bats
# Options, help, environment, output.
load helper

# shellcheck disable=SC2034
COMMANDS="send drain run status list show retry discard pause resume backup
compact metrics doctor init migrate claim confirm release fail extend reset-stale breaker gate sink
completions"

@test "--version" {
    try waybill --version
    ended 0
    same "waybill 0.1.0" "$out"
    try waybill send --version
    same "waybill 0.1.0" "$out"
}

@test "--help: on stdout, exit 0, every command and global option" {
    try waybill --help
    ended 0
    same "" "$err"
    for word in $COMMANDS; do grep -q "^  $word " out.txt; done
    for option in db config json quiet verbose help version; do
        grep -q "^  --$option" out.txt
    done
}

@test "COMMAND --help: usage, its options, exit codes, examples" {
    for command in $COMMANDS; do
        try waybill "$command" --help
        ended 0
        same "" "$err"
        has "$out" "Usage: waybill [GLOBAL] $command"
        has "$out" "Exit codes"
        has "$out" "Examples"
    done
    try waybill --help send
    has "$out" "--key-prefix P"
}

@test "help COMMAND is COMMAND --help" {
    same "$(waybill --help)" "$(waybill help)"
    same "$(waybill send --help)" "$(waybill help send)"
}

@test "--version under --json is an object" {
    same '{"version":"0.1.0"}' "$(js --version)"
}

@test "help does not touch the database" {
    waybill --help >/dev/null
    waybill send --help >/dev/null
    [ ! -e box.db ]
}

@test "no command: the help, and exit 2" {
    try waybill
    ended 2
    same "$(waybill --help)" "$out"
    has "$err" "no command"
    try waybill --json
    ended 2
    same "" "$out"
}

@test "-h and -V are --help and --version" {
    same "$(waybill --help)" "$(waybill -h)"
    same "$(waybill --version)" "$(waybill -V)"
    same "$(waybill send --help)" "$(waybill send -h)"
}

@test "an unknown command, the nearest one" {
    usage sned
    has "$(waybill sned 2>&1)" "did you mean send?"
    for later in once gate keys probe flow write merge; do usage "$later" x; done
}

@test "an unknown option is named, with the nearest one" {
    usage list --statsu pending
    has "$(waybill list --statsu pending 2>&1)" "did you mean --status?"
    has "$(waybill list --statsu pending 2>&1)" "--statsu"
    usage --jsno status
    usage send k x --zzz
    usage list -x
    has "$(waybill send k -5 2>&1)" "-- goes before"
    same -5 "$(row "$(send k -- -5)" payload)"
}

@test "an option without its value, a flag with one" {
    usage list --kind
    usage list --kind=
    usage --db
    usage --db= status
    usage status --json=yes
    usage drain --max
}

@test "too few and too many arguments" {
    usage send
    usage send k x y
    usage show
    usage show a b
    usage status x
    usage drain x
    usage pause
    usage pause a b
    usage backup
    usage confirm
    usage breaker a b
    usage completions
    usage completions tcsh
}

@test "options that are required" {
    for command in confirm release extend fail; do usage "$command" "$NOBODY"; done
    usage extend "$NOBODY" --token 1
    usage fail "$NOBODY" --token 1
    usage fail "$NOBODY" --error x
    usage sink --listen 127.0.0.1:0
    usage sink --into f
}

@test "under --json errors are one object a line on stderr, from any place" {
    for args in "--json sned" "sned --json" "list --nope --json" \
        "--json show $NOBODY"; do
        # shellcheck disable=SC2086
        try waybill $args
        same "" "$out"
        same 1 "$(wc -l <err.txt)"
        jq -e '.error | has("code") and has("message")' err.txt
    done
}

@test "--json: refused where the output is not of objects" {
    for command in metrics "completions bash" "once --key k -- true"; do
        # shellcheck disable=SC2086
        try js $command
        ended 2
        same "" "$out"
        has "$err" "--json has no meaning here"
    done
    [ ! -e box.db ]
}

@test "a value that looks like --json is none" {
    try waybill send k 1 --key --json
    ended 0
    same 36 "${#out}"
    try waybill send k 1 --json --key --json
    same true "$(get .duplicate)"
}

@test "control characters in what was given do not reach the terminal" {
    try waybill $'se\033[31mnd\n'
    ended 2
    same 1 "$(wc -l <err.txt)"
    same 0 "$(grep -c $'\033' err.txt)"
}

@test "database: --db, else WAYBILL_DB, else XDG_STATE_HOME, else home" {
    waybill send k x
    [ -f box.db ]
    waybill --db a/b/c.db send k x
    same 600/700/700 "$(stat -c %a a/b/c.db a/b a | paste -sd/)"
    unset WAYBILL_DB
    waybill send k x
    same 600/700 "$(stat -c %a state/waybill/waybill.db state/waybill |
        paste -sd/)"
    unset XDG_STATE_HOME
    waybill send k x
    [ -f home/.local/state/waybill/waybill.db ]
    XDG_STATE_HOME=relative WAYBILL_DB='' waybill send k x
    [ ! -e relative ]
    same 2 "$(status_of pending)"
    unset HOME
    try js status
    ended 1
    same unavailable "$(jq -r .error.code <<<"$err")"
}

@test "configuration: --config, else WAYBILL_CONFIG, else XDG, else home" {
    one() { echo 'outbox { max_rows = 1 }'; }
    rows() { js status | jq .pending; }
    waybill send k x
    mkdir -p etc/waybill home/.config/waybill
    one >etc/waybill/config.lua
    try waybill send k x
    ended 75
    one >named.lua
    : >empty.lua
    WAYBILL_CONFIG=empty.lua waybill send k x
    try env WAYBILL_CONFIG=named.lua "$WAYBILL" send k x
    ended 75
    WAYBILL_CONFIG=named.lua waybill --config empty.lua send k x
    unset XDG_CONFIG_HOME
    waybill send k x
    one >home/.config/waybill/config.lua
    try waybill send k x
    ended 75
}

@test "configuration: never from the current folder unasked" {
    echo 'outbox { max_rows = 1 }' >config.lua
    echo 'outbox { max_rows = 1 }' >waybill.lua
    waybill send k x
    waybill send k x
}

@test "configuration: one that is named and missing is an error" {
    try js --config nowhere.lua status
    ended 1
    same notfound "$(jq -r .error.code <<<"$err")"
    has "$err" nowhere.lua
    try env WAYBILL_CONFIG=nowhere.lua "$WAYBILL" status
    ended 1
    [ ! -e box.db ]
}

@test "postgres: no server there is unavailable, no password is shown" {
    for scheme in postgres postgresql; do
        try js --db "$scheme://u:geheim@127.0.0.1:1/db" status
        ended 1
        has "$err" PostgreSQL
        [[ $err != *geheim* ]]
    done
}

@test "stdout closed or full: exit 1, the message is kept" {
    try bash -c '"$0" send k x >&-' "$WAYBILL"
    ended 1
    has "$err" "standard output"
    try bash -c '"$0" --json status >/dev/full' "$WAYBILL"
    ended 1
    same 1 "$(status_of pending)"
}

@test "a reader that goes away is no crash" {
    seq 5000 | waybill --quiet send k --lines
    bash -c '"$0" --json list | head -1; exit "${PIPESTATUS[0]}"' "$WAYBILL" \
        2>err.txt >out.txt || status=$?
    same 141 "${status:-0}" # SIGPIPE, as of other programs that print
    same "" "$(cat err.txt)"
    try bash -c '"$0" send k x | true; exit "${PIPESTATUS[0]}"' "$WAYBILL"
    [ "$status" -ne 141 ] # what acts does not end by it
}

@test "stdout closed: send tells the id of what it accepted" {
    try bash -c '"$0" send k x >&-' "$WAYBILL"
    has "$err" "$(js list | jq -r .id)"
}

@test "a table is cut to the width of the terminal" {
    send k x >/dev/null
    id=$(js list | jq -r .id)
    token=$(js claim | jq -r .token)
    waybill fail "$id" --token "$token" --reject --error "$(printf 'é%.0s' {1..200})"
    python3 - "$WAYBILL" >wide.txt <<'END'
import fcntl, os, pty, struct, sys, termios
pid, fd = pty.fork()
if pid == 0:
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('4H', 40, 110, 0, 0))
    os.environ['NO_COLOR'] = '1'
    os.execv(sys.argv[1], [sys.argv[1], 'list'])
out = b''
try:
    while True:
        out += os.read(fd, 4096)
except OSError:
    pass
os.waitpid(pid, 0)
print(max(len(line) for line in out.decode().splitlines()))
END
    same 110 "$(cat wide.txt)"
    [ "$(waybill list | wc -m)" -gt 300 ] # whole where it is no terminal
}

@test "stdin closed: fine where it is not read" {
    try bash -c '"$0" send k x <&-' "$WAYBILL"
    ended 0
    try bash -c '"$0" --json status <&- 2>&-' "$WAYBILL"
    ended 0
    same 1 "$(get .pending)"
}

@test "descriptors 0 to 2 closed: no file of ours takes their place" {
    bash -c '"$0" send k x <&- >&- 2>&-' "$WAYBILL" || :
    same ok "$(sqlite3 box.db 'PRAGMA integrity_check')"
    same 1 "$(status_of pending)"
    same 0 "$(grep -ac "[a-z]" box.db-lock)"
}

@test "NO_COLOR and pipes: no colours; a terminal gets them" {
    waybill send k x
    try waybill list
    same 0 "$(grep -c $'\033' out.txt)"
    claim
    try env -u NO_COLOR TERM=xterm script -qec "$WAYBILL list" /dev/null
    [ "$(grep -c $'\033\[36m' out.txt)" -ge 1 ]
    try env NO_COLOR=1 script -qec "$WAYBILL list" /dev/null
    same 0 "$(grep -c $'\033\[' out.txt)"
}

@test "send on a terminal without a payload is a usage error" {
    try script -qec "$WAYBILL send k" /dev/null
    has "$out" "no payload"
    try script -qec "$WAYBILL send k --lines" /dev/null </dev/null
}

@test "completions: bash knows commands, options and values" {
    waybill completions bash >words.bash
    same "send" "$(bash -c 'source ./words.bash; COMP_WORDS=(waybill se)
        COMP_CWORD=1; _waybill; echo "${COMPREPLY[*]}"')"
    has "$(bash -c 'source ./words.bash
        COMP_WORDS=(waybill --db x send --ke); COMP_CWORD=4; _waybill
        echo "${COMPREPLY[*]}"')" "--key-prefix"
    for words in "list --status a" "list --status = a" "--json list --status = a"; do
        same abandoned "$(bash -c 'source ./words.bash
            COMP_WORDS=(waybill $1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _waybill; echo "${COMPREPLY[*]}"' - "$words")"
    done
    same pending "$(bash -c 'source ./words.bash
        COMP_WORDS=(waybill list --status =); COMP_CWORD=3; _waybill
        echo "${COMPREPLY[0]}"')"
    same "settle" "$(bash -c 'source ./words.bash
        COMP_WORDS=(waybill keys se); COMP_CWORD=2; _waybill
        echo "${COMPREPLY[*]}"')"
}

@test "completions: zsh and fish can read theirs" {
    waybill completions zsh >_waybill
    waybill completions fish >waybill.fish
    grep -q '^#compdef waybill' _waybill
    if command -v zsh >/dev/null; then zsh -n _waybill; fi
    if command -v fish >/dev/null; then
        fish --no-execute waybill.fish
        same "bash fish zsh" "$(fish -c 'source waybill.fish
            complete -C "waybill completions "' | cut -f1 | grep -x '[a-z]*sh' |
            sort | xargs)"
    fi
}

@test "manual page: every command and option is in it" {
    page=$ROOT/doc/man/waybill.1.scd
    for command in $COMMANDS; do
        grep -Eq "^## .*\b$command\b" "$page" || { echo "$command"; return 1; }
        for option in $(waybill "$command" --help |
            sed -n 's/^  \(--[a-z-]*\).*/\1/p'); do
            grep -q -e "$option\b" "$page" || { echo "$option"; return 1; }
        done
    done
}
