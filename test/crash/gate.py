#!/usr/bin/env python3
"""gate.py COMMAND [SECONDS] [SEED] - relay, gateway and a handler that counts
its effects.

The handler drops responses, fails before and after its effect, and is slower
than the relay's timeout and the gateway's lease; relay and gateway are killed
(-9) at random. Then the faults stop, and the remaining messages are delivered.
At the end, for each message:

 1. delivered: its effect has happened exactly once;
 2. not delivered: the gateway holds its key as unknown and responds with 409;
    its effect has happened at most once;
 3. none is lost, and there is no effect without a message.
"""
import atexit
import collections
import http.server
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

COMMAND = os.path.abspath(sys.argv[1])
SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 60
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 20261120
CONFIG = '''
relay { lease = "2s" }
route "*" {
    url = "http://127.0.0.1:%d/in",
    timeout = "600ms",
    concurrency = 32,
    retry = { immediate = true, attempts = 1000, rejected = true,
              retry_after = "1s" },
    breaker = { failures = 1000000 },
}
'''
FAULTS = (('cut', 8), ('before', 5), ('error', 12), ('slow', 10), ('ok', 65))

rng = random.Random(SEED)
folder = tempfile.mkdtemp(prefix='waybill-gate-kill-')
env = {**os.environ, 'WAYBILL_DB': os.path.join(folder, 'box.db'),
       'WAYBILL_CONFIG': os.path.join(folder, 'config.lua')}
effects, lock, quiet = collections.Counter(), threading.Lock(), False


def need(true, what):
    if not true:
        sys.exit(f'gate: seed {SEED}: {what} (folder kept: {folder})')


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_POST(self):
        self.rfile.read(int(self.headers['Content-Length']))
        key = self.headers['Idempotency-Key']
        fault = 'ok' if quiet else rng.choices(
            [f for f, _ in FAULTS], [w for _, w in FAULTS])[0]
        if fault == 'before':  # no effect and no response
            self.close_connection = True
            return
        if fault == 'error':
            self.respond(500)
            return
        with lock:
            effects[key] += 1
        if fault == 'cut':
            self.close_connection = True
            return
        if fault == 'slow':
            time.sleep(1.2)
        self.respond(200)

    def respond(self, status):
        self.send_response(status)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, *_):  # the gateway was killed
        pass


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def start(*args):
    with open(os.path.join(folder, args[0] + '.log'), 'ab') as log:
        child = subprocess.Popen([COMMAND, '--quiet', *args], env=env,
                                 cwd=folder, stdout=subprocess.DEVNULL,
                                 stderr=log)
    atexit.register(child.kill)  # where this ends early
    return child


class Pair:
    """The gateway and the relay; each is restarted after a kill."""

    def __init__(self, upstream_port):
        self.port = free_port()
        self.commands = {
            'gate': ['gate', '--listen', f'127.0.0.1:{self.port}', '--upstream',
                     f'http://127.0.0.1:{upstream_port}', '--lease', '500ms',
                     '--anonymous', 'share', '--store', 'gate.db', '--wait',
                     '300ms'],
            'run': ['run']}
        self.running, self.kills = {}, collections.Counter()

    def begin(self):
        for name, words in self.commands.items():
            self.running[name] = start(*words)

    def kill(self, name):
        child = self.running[name]
        need(child.poll() is None, f'{name} ended by itself: {child.poll()}')
        child.kill()
        child.wait()
        self.kills[name] += 1
        self.running[name] = start(*self.commands[name])

    def end(self):
        for name, child in self.running.items():
            child.terminate()
            need(child.wait(30) == 0, f'{name} ended with {child.returncode}')


def send(n):
    lines = b''.join(b'{"n":%d}\n' % i for i in range(n))
    subprocess.run([COMMAND, '--quiet', 'send', 'gate.kill', '--lines'],
                   input=lines, env=env, cwd=folder, check=True)


def rows(name, sql):
    db = sqlite3.connect(f'file:{os.path.join(folder, name)}?mode=ro', uri=True)
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def read_state():
    """Ids whose response the gateway has stored, ids that are in the outbox,
    and keys that the gateway holds as unknown. Only a stored response is a
    2xx, and only a 2xx removes a message from the outbox."""
    box = {i for i, in rows('box.db', 'SELECT id FROM waybill_outbox')}
    done = {k for k, in rows('gate.db', "SELECT key FROM waybill_idem "
                             "WHERE state = 'done' AND status = 200")}
    # a claim that was sending is unknown once its lease has ended
    unknown = {k for k, in rows(
        'gate.db', "SELECT key FROM waybill_idem WHERE state = 'unknown' OR "
        f"(state = 'sending' AND ends_ms < {time.time() * 1000})")}
    return done, box, unknown


def disturb(pair):
    ends, sent = time.monotonic() + SECONDS, 0
    while time.monotonic() < ends:
        send(20)
        sent += 20
        time.sleep(rng.random() * 0.5)
        pair.kill(rng.choice(['gate', 'gate', 'run']))
    return sent


def settle():
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        done, box, unknown = read_state()
        rest = box - done
        if rest <= unknown and not box & done:
            return done, rest
        time.sleep(0.2)
    need(False, f'neither delivered nor unknown: {sorted(rest - unknown)[:5]}')


def wait_for(port):
    """The gateway may just have been restarted."""
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        with socket.socket() as s:
            if s.connect_ex(('127.0.0.1', port)) == 0:
                return
        time.sleep(0.05)
    need(False, 'the gateway does not listen')


def reports_unknown(port, key):
    body = rows('box.db', f"SELECT payload FROM waybill_outbox WHERE id='{key}'")
    ask = urllib.request.Request(f'http://127.0.0.1:{port}/in',
                                 data=bytes(body[0][0], 'utf-8')
                                 if isinstance(body[0][0], str) else body[0][0],
                                 headers={'Idempotency-Key': key,
                                          'Content-Type': 'application/json'})
    try:
        urllib.request.urlopen(ask)
    except urllib.error.HTTPError as e:
        return e.code in (409, 422)
    return False


def main():
    global quiet
    print(f'gate: seed {SEED}', flush=True)
    server = Server(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pair = Pair(server.server_address[1])
    with open(env['WAYBILL_CONFIG'], 'w', encoding='utf-8') as f:
        f.write(CONFIG % pair.port)
    send(1)
    pair.begin()
    time.sleep(0.5)
    sent = disturb(pair) + 1
    quiet = True
    done, rest = settle()
    wait_for(pair.port)
    need(all(reports_unknown(pair.port, k) for k in sorted(rest)[:20]),
         'an unknown key was not refused')
    pair.end()
    need(len(done) + len(rest) == sent, f'{sent} sent, {len(done)} + {len(rest)}')
    need(set(effects) <= done | rest, 'an effect without a message')
    twice = [k for k, n in effects.items() if n > 1]
    need(not twice, f'an effect twice: {twice[:5]}')
    missing = [k for k in done if effects[k] != 1]
    need(not missing, f'delivered without effect: {missing[:5]}')
    print(f'gate: {sent} sent, {len(done)} delivered with one effect each, '
          f'{len(rest)} unknown ({sum(effects[k] for k in rest)} of them with '
          f'their effect), 0 lost, 0 twice; kills: gateway '
          f'{pair.kills["gate"]}, relay {pair.kills["run"]}')
    shutil.rmtree(folder)


main()
