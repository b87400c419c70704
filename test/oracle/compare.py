#!/usr/bin/env python3
"""compare.py CASES [LLHTTP] - compare our HTTP parser with llhttp and h11.

Ours must refuse all that they refuse, and where both accept the bytes, find the
same number of messages. Every difference has its reason below; a difference
without a reason, and a reason without a difference, are failures.
"""
import re
import subprocess
import sys

ANY = '(request|response) '

# Accepted by us, refused by them.
THEY_REFUSE = {
    'llhttp': {
        'request (own|small)_method': 'knows a list of methods; any token is one (RFC 9110, 9.1)',
        'request chunk_extension': 'takes no `=` before a quoted value; RFC 9112, 7.1.1 has it',
    },
    'h11': {
        'response upgrade': 'knows that no upgrade was requested; here the caller checks that',
    },
}

# Refused by us, accepted by them.
THEY_ACCEPT = {
    'both': {
        'request (target_|(two_)?(same_)?hosts?_|no_host|two_(same_)?hosts|connect|expect_)':
            'leaves target, Host, CONNECT and Expect to its user',
        ANY + '(lf_|last_lf_end)': 'takes a bare LF for the end of a line',
        ANY + '(trailer_)?fold': 'unfolds folded lines',
        ANY + '(length_http10_over|(length|chunks?)_(over|huge))': 'has no such limit of a body',
        ANY + '(head|fields|extensions?|trailer)_(one_over|over_limit|endless|too_many)':
            'has no such limit of a head',
        'request length_over_63_bits': 'has larger numbers',
        'request chunk_17_digits': 'has no limit of digits',
        ANY + 'version_(09|12|19|2)': 'takes other versions',
        ANY + 'coding_http10': 'takes chunks from HTTP/1.0',
        'response status_': 'takes other statuses',
    },
    'llhttp': {
        'request line_(before|between)|response line_before': 'skips any number of empty lines',
        'request two_spaces|response two_spaces': 'skips spaces in a start line',
        'request http09': 'speaks HTTP/0.9',
        ANY + '(trailer_no_name|empty_name)': 'takes an empty name',
        'request coding_(after_identity|comma|empty|gzip)': 'reads only the last coding',
        'response coding_(gzip|identity|twice)': 'reads other codings to the end of the input',
        'response reason_nul': 'takes NUL in a reason',
    },
    'h11': {
        'request (del|esc)_value': 'takes control characters in values',
        'request (length_(over_64|wraps|40))|response length_huge': 'has larger numbers',
        ANY + 'length_(twice|list)$': 'makes equal lengths one',
        ANY + 'both': 'prefers the chunks, as RFC 9112, 6.3 lets it',
        'request (coding|trailer)_lf': 'takes a bare LF for the end of a line',
        'request chunk_wraps': 'has larger numbers',
        'request chunk_(space|tab)_after|response chunk_bad': 'takes white space after a size',
        'request extension_(cr|nul|escape)': 'takes control characters in extensions',
    },
}

# Accepted by both, with different numbers of messages.
OTHER_NUMBER = {
    'llhttp': {
        'response not_modified': 'waits for a body after 304; there is none (RFC 9112, 6.3)',
    },
    'h11': {},
}


def h11_server(data):
    import h11
    conn, done = h11.Connection(h11.SERVER), 0
    conn.receive_data(data)
    while True:
        try:
            event = conn.next_event()
        except h11.RemoteProtocolError:
            return done, 1
        if event is h11.NEED_DATA:
            return done, 0
        if isinstance(event, h11.EndOfMessage):
            done += 1
            conn.send(h11.Response(status_code=200, headers=[('content-length', '0')]))
            if conn.our_state is not h11.SEND_BODY:
                return done, 0
            conn.send(h11.EndOfMessage())
            if conn.our_state is not h11.DONE:
                return done, 0
            conn.start_next_cycle()
        if event is h11.PAUSED:
            return done, 0


def h11_client(data):
    import h11
    conn, done = h11.Connection(h11.CLIENT), 0
    conn.receive_data(data)
    while True:
        if conn.our_state is h11.IDLE:
            conn.send(h11.Request(method='GET', target='/', headers=[('host', 'a')]))
            conn.send(h11.EndOfMessage())
        try:
            event = conn.next_event()
        except h11.RemoteProtocolError:
            return done, 1
        done += isinstance(event, (h11.EndOfMessage, h11.InformationalResponse))
        if isinstance(event, h11.EndOfMessage):
            if conn.our_state is not h11.DONE:
                return done, 0
            conn.start_next_cycle()
            if conn.trailing_data[0] == b'':
                return done, 0
        if event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
            return done, 0


def h11_verdicts(lines):
    for mode, name, _, _, data in lines:
        one = h11_server if mode == 'request' else h11_client
        yield (mode, name), one(bytes.fromhex(data))


def llhttp_verdicts(program, text):
    out = subprocess.run([program], input=text, capture_output=True, text=True, check=True).stdout
    for line in out.splitlines():
        mode, name, messages, refused = line.split()
        yield (mode, name), (int(messages), int(refused))


def reason(reasons, key, used):
    for pattern in reasons:
        if re.match(pattern, ' '.join(key)):
            used.add(pattern)
            return reasons[pattern]
    return None


def compare(parser, ours, theirs):
    """Print a line per case, as cmocka does; the differences without a reason."""
    wrong, used = 0, set()
    refuse = THEY_REFUSE[parser]
    accept = {**THEY_ACCEPT['both'], **THEY_ACCEPT[parser]}
    number = OTHER_NUMBER[parser]
    for key, (messages, status) in ours.items():
        their_messages, refused = theirs[key]
        kind, why = 'the same', 'none needed'
        if status == 0 and refused:
            kind, why = 'refuses, we accept', reason(refuse, key, used)
        elif status != 0 and not refused:
            kind, why = f'accepts {their_messages}, we refuse with {status}', reason(accept, key, used)
        elif status == 0 and messages != their_messages:
            kind, why = f'finds {their_messages}, we {messages}', reason(number, key, used)
        if kind != 'the same':
            print(f'{parser} {" ".join(key)}: {kind}: {why}')
        wrong += why is None
        print(f'[{"       OK " if why else "  FAILED  "}] http_oracle__{parser}_{"_".join(key)}')
    for pattern in {**refuse, **THEY_ACCEPT[parser], **number}:
        if pattern not in used:
            print(f'{parser}: no difference needs the reason for {pattern}')
            wrong += 1
    return wrong


def main():
    text = subprocess.run([sys.argv[1]], capture_output=True, text=True, check=True).stdout
    lines = [line.split(' ') for line in text.splitlines()]
    ours = {(mode, name): (int(n), int(status)) for mode, name, n, status, _ in lines}
    wrong = tried = 0
    if len(sys.argv) > 2:
        wrong += compare('llhttp', ours, dict(llhttp_verdicts(sys.argv[2], text)))
        tried += 1
    try:
        import h11  # noqa: F401
        wrong += compare('h11', ours, dict(h11_verdicts(lines)))
        tried += 1
    except ImportError:
        print('h11 is not installed')
    print(f'{len(ours)} cases, {tried} other parsers, {wrong} differences without a reason')
    return 77 if tried == 0 else wrong > 0


if __name__ == '__main__':
    sys.exit(main())
