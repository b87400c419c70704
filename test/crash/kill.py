#!/usr/bin/env python3
"""kill.py COMMAND [KILLS] [SEED] - SIGKILL at random moments, then count.

Half of the kills hit an enqueue (`send`, and `send --lines` that is then run
again with the same keys), half a drain. After every kill:

 1. a message whose acceptance was printed is in the outbox;
 2. accepted = waiting + delivered + abandoned;
 3. an import that is repeated is complete and has no message twice.

And at the end, when all is drained:

 4. each accepted message has had exactly one effect at the receiver;
 5. the database is not damaged.
"""
import collections
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time

COMMAND = os.path.abspath(sys.argv[1])
KILLS = int(sys.argv[2]) if len(sys.argv) > 2 else 100
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 20261120
LINES = 300
CONFIG = '''
relay { lease = "2s" }
route "*" {
    url = "http://127.0.0.1:%d/",
    timeout = "1s",
    retry = { immediate = true, attempts = 100 },
    breaker = { failures = 1000 },
}
'''

rng = random.Random(SEED)
folder = tempfile.mkdtemp(prefix='waybill-kill-')
env = {**os.environ, 'WAYBILL_DB': os.path.join(folder, 'kill.db'),
       'WAYBILL_CONFIG': os.path.join(folder, 'kill.lua')}


def need(true, what):
    if not true:
        sys.exit(f'kill: seed {SEED}: {what} (folder kept: {folder})')


def start(*args, stdin=None):
    return subprocess.Popen([COMMAND, *args], env=env, cwd=folder,
                            stdin=stdin or subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def call(*args, stdin=b'', codes=(0,)):
    """JSON objects on stdout of a run to its end."""
    done = subprocess.run([COMMAND, '--json', *args], env=env, cwd=folder,
                          input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    need(done.returncode in codes,
         f'{args} ended with {done.returncode}: {done.stderr.decode()}')
    return [json.loads(line) for line in done.stdout.splitlines()]


def killed(child, within_s):
    """Kill at a random moment; (its output, was it still running)."""
    time.sleep(rng.random() * within_s)
    alive = child.poll() is None
    child.kill()
    out, _ = child.communicate()
    return out, alive


def check_rows(receipts):
    """Rules 1 and 2, by the tables and by `status`."""
    db = sqlite3.connect(f'file:{env["WAYBILL_DB"]}?mode=ro', uri=True)
    rows = dict(db.execute('SELECT id, status FROM waybill_outbox'))
    db.close()
    need(receipts <= set(rows), f'{len(receipts - set(rows))} accepted messages lost')
    status = call('status')[0]
    need(sum(sum(of.values()) for of in status['by_kind'].values())
         == len(rows),
         f'{len(rows)} accepted, but {status}')
    need(status['abandoned'] == 0, f'abandoned: {status}')
    return rows


def duration(args, stdin=b''):
    """Seconds that a call takes without a kill."""
    begin = time.monotonic()
    call(*args, stdin=stdin)
    return time.monotonic() - begin


def until_hits(kills, strike):
    """strike(n), n = 0, 1, ..., until so many have hit a running process."""
    hits = n = 0
    while hits < kills:
        need(n < 20 * kills + 100, f'only {hits} kills hit in {n} tries')
        hits += strike(n)
        n += 1


def kill_sends(receipts, kills):
    """One message after the other; receipts: the ids that were printed."""
    usual = duration(['send', 'kill.single', '{}', '--key', 'usual'])

    def strike(n):
        child = start('--json', 'send', 'kill.single', '{"n":%d}' % n,
                      '--key', f'single:{n}')
        out, alive = killed(child, usual * 1.5)
        if out.endswith(b'\n'):
            receipts.add(json.loads(out)['id'])
        if n % 10 == 0:
            check_rows(receipts)
        return alive
    until_hits(kills, strike)


def kill_imports(receipts, kills):
    """An import, killed and repeated: complete, nothing twice (rule 3)."""
    usual = duration(['send', 'kill.usual', '--lines', '--key-prefix', 'u'],
                  b'{"usual":true}\n' * LINES)

    def strike(n):
        lines = b''.join(b'{"import":%d,"line":%d}\n' % (n, m)
                         for m in range(LINES))
        args = ('send', 'kill.lines', '--lines', '--key-prefix', f'lines:{n}')
        with open(os.path.join(folder, 'lines'), 'wb') as f:
            f.write(lines)
        with open(os.path.join(folder, 'lines'), 'rb') as f:
            _, alive = killed(start(*args, stdin=f), usual * 1.1)
        check_rows(receipts)
        counts = call(*args, stdin=lines)[-1]
        need(counts['accepted'] + counts['duplicates'] == LINES
             and counts['rejected'] == 0, f'import {n}: {counts}')
        return alive
    until_hits(kills, strike)


def start_sink():
    path = os.path.join(folder, 'sink.log')
    with open(path, 'wb') as log:
        sink = subprocess.Popen(
            [COMMAND, 'sink', '--listen', '127.0.0.1:0', '--into',
             'effects.ndjson', '--drop', '5%', '--fail', '5%', '--seed',
             str(SEED)], env=env, cwd=folder, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log)
    for _ in range(500):
        with open(path, encoding='utf-8') as f:
            at = re.search(r'127\.0\.0\.1:([1-9]\d*)', f.read())
        if at:
            return sink, int(at.group(1))
        time.sleep(0.01)
    sink.kill()
    need(False, 'the sink did not start')


def kill_drains(receipts, kills):
    """Drains, while new messages are enqueued between the kills."""
    def strike(n):
        call('send', 'kill.fresh', '--lines', '--key-prefix', f'fresh:{n}',
             stdin=b'{}\n' * 50)
        _, alive = killed(start('drain', '--quiet'), 0.1)
        if n % 5 == 0:
            check_rows(receipts)
        return alive
    until_hits(kills, strike)


def drain_out(receipts):
    """Drain until nothing waits: a claim of a killed drain ends after 2 s."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        call('drain', codes=(0, 3, 4))
        status = call('status')[0]
        if status['pending'] + status['held'] + status['processing'] == 0:
            return check_rows(receipts)
        time.sleep(0.2)
    need(False, f'not drained: {status}')


def check_end(rows):
    with open(os.path.join(folder, 'effects.ndjson'), encoding='utf-8') as f:
        effects = collections.Counter(json.loads(line)['id'] for line in f)
    need(set(effects) <= set(rows), 'effects of messages that were not accepted')
    need(set(rows) <= set(effects), f'{len(set(rows) - set(effects))} lost')
    need(max(effects.values()) == 1, 'an effect twice')
    keys = collections.Counter()
    db = sqlite3.connect(f'file:{env["WAYBILL_DB"]}?mode=ro', uri=True)
    keys.update(k for k, in db.execute('SELECT key FROM waybill_outbox'))
    need(max(keys.values()) == 1, 'a key twice')
    need(sum(k.startswith('lines:') for k in keys) % LINES == 0,
         'an import with gaps')
    need(db.execute('PRAGMA integrity_check').fetchone() == ('ok',), 'damaged')
    db.close()
    return len(effects)


def main():
    receipts, began = set(), time.monotonic()
    sink = None
    with open(env['WAYBILL_CONFIG'], 'w', encoding='utf-8') as f:
        f.write('-- no routes yet\n')
    try:
        kill_sends(receipts, KILLS // 4)
        kill_imports(receipts, KILLS // 4)
        sink, port = start_sink()
        with open(env['WAYBILL_CONFIG'], 'w', encoding='utf-8') as f:
            f.write(CONFIG % port)
        kill_drains(receipts, KILLS - KILLS // 4 * 2)
        effects = check_end(drain_out(receipts))
    finally:
        if sink:
            sink.terminate()
            sink.wait()
    shutil.rmtree(folder)
    print(f'kill: seed {SEED}: {KILLS} processes killed while they ran, '
          f'{effects} messages, {len(receipts)} receipts of killed senders, '
          f'0 lost, 0 doubled, {time.monotonic() - began:.0f} s')


main()
