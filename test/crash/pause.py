#!/usr/bin/env python3
"""pause.py COMMAND [ROUNDS] - a worker that is stopped past its leases (C16).

A drain sends eight messages at once and is stopped (SIGSTOP) before the slow
receiver has responded. Its leases end; another worker claims all eight and
confirms them, in every other round before the drain continues, else after it.
Each late token must be refused: the drain reports `fenced: 8`, the receiver has
had one effect of each message that was sent before the stop, and all messages
are confirmed by the second worker.
"""
import collections
import json
import os
import re
import signal
import subprocess
import sys
import time

import traced

ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 2
AT_ONCE = 8
CONFIG = '''
relay { lease = "3s" }
route "*" { url = "http://127.0.0.1:%d/", timeout = "1500ms" }
'''


def start_sink(store):
    log = os.path.join(store.folder, 'sink.log')
    with open(log, 'wb') as out:
        sink = subprocess.Popen(
            [store.command, 'sink', '--listen', '127.0.0.1:0', '--into',
             'effects.ndjson', '--delay', '700ms'], env=store.env,
            cwd=store.folder, stdout=out, stderr=out)
    for _ in range(500):
        with open(log, encoding='utf-8') as f:
            at = re.search(r'127\.0\.0\.1:([1-9]\d*)', f.read())
        if at:
            return sink, int(at.group(1))
        time.sleep(0.01)
    traced.need(False, 'the sink did not start')


def wait_for(what, seconds=20):
    ends = time.monotonic() + seconds
    while not what():
        traced.need(time.monotonic() < ends, f'waited for {what.__name__}')
        time.sleep(0.02)


def a_round(store, early):
    """Stop a drain, take over its claims, continue it; tokens refused."""
    for _ in range(AT_ONCE):
        store.note(store.ok(['send', 'paused', '{}']))
    drain = subprocess.Popen(
        [store.command, '--json', 'drain', '--concurrency', str(AT_ONCE)],
        env=store.env, cwd=store.folder, stdout=subprocess.PIPE)

    def all_leased():
        return store.query("SELECT count(*) FROM waybill_outbox WHERE status ="
                           " 'processing'") == [(AT_ONCE,)]
    wait_for(all_leased)
    drain.send_signal(signal.SIGSTOP)
    taken = []

    def all_taken_over():
        taken.extend(store.ok(['claim', '--max', str(AT_ONCE), '--lease',
                               '600s'], codes=(0, 3)))
        taken[:] = [c for c in taken if 'token' in c]
        return len(taken) == AT_ONCE
    wait_for(all_taken_over)
    for late in (False, True):
        if late:
            drain.send_signal(signal.SIGCONT)
            report = json.loads(drain.communicate(timeout=60)[0])
        if late != early:
            for c in taken:
                store.ok(['confirm', c['id'], '--token', c['token']])
                store.gone.add(c['id'])
    traced.need(report['fenced'] == AT_ONCE and report['confirmed'] == 0,
                f'the late drain reports {report}')
    store.check()
    return report['fenced']


def main():
    store = traced.Store(sys.argv[1])
    sink, port = start_sink(store)
    store.env['WAYBILL_CONFIG'] = os.path.join(store.folder, 'pause.lua')
    with open(store.env['WAYBILL_CONFIG'], 'w', encoding='utf-8') as f:
        f.write(CONFIG % port)
    try:
        refused = sum(a_round(store, n % 2 == 0) for n in range(ROUNDS))
    finally:
        sink.terminate()
        sink.wait()
    with open(os.path.join(store.folder, 'effects.ndjson'),
              encoding='utf-8') as f:
        effects = collections.Counter(json.loads(line)['id'] for line in f)
    # A message that was not sent before the stop has no effect.
    traced.need(set(effects.values()) == {1} and
                set(effects) <= set(store.acked) and
                len(effects) * 2 > len(store.acked), f'effects: {effects}')
    print(f'pause: {ROUNDS} drains stopped past their leases, {refused} late '
          f'tokens refused, {len(store.acked)} messages, {len(effects)} sent '
          'before the stop, 1 effect each')
    store.remove()


main()
