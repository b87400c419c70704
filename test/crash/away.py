#!/usr/bin/env python3
"""away.py COMMAND [ROUNDS] [SEED] - a worker whose database goes away.

Requests are held by the receiver until the fault is there; then all of them are
answered 200, and their outcomes cannot be committed: the database is locked for
longer than the busy time, its disk is full (as root), or PostgreSQL was stopped
(where a server is installed). SIGHUP comes at random. After the fault:

 1. each accepted message was answered 200 exactly once, nothing is left;
 2. the worker is the same process, and said once that the database was lost,
    and once that it was found.

The saboteur forgets the outcomes: the worker is killed during a fault, and
another one started. Then messages go out twice, and (1) must say so.
"""
import collections
import http.server
import importlib.machinery
import importlib.util
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

COMMAND = os.path.abspath(sys.argv[1])
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 8
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 1
HERE = os.path.dirname(os.path.abspath(__file__))
HELD, LEASE_S = 4, 4
CONFIG = '''
outbox { busy = "200ms" }
relay { lease = "%ds" }
route "*" {
    url = "http://127.0.0.1:%d/", timeout = "2s", concurrency = 8,
    retry = { immediate = true, attempts = 100 }, breaker = { failures = 100000 },
}
'''


def need(true, what):
    if not true:
        sys.exit(f'away: seed {SEED}: {what}')


def until(true, what, seconds=60):
    ends = time.monotonic() + seconds
    while not true():
        need(time.monotonic() < ends, f'never: {what}')
        time.sleep(0.01)


class Receiver(http.server.ThreadingHTTPServer):
    """Holds requests while `gate` is closed, then answers 200."""
    daemon_threads = True

    def __init__(self):
        self.answered = collections.Counter()  # by id
        self.gate, self.lock, self.held = threading.Event(), threading.Lock(), 0
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_POST(self):
                self.rfile.read(int(self.headers['Content-Length']))
                with receiver.lock:
                    receiver.held += 1
                time.sleep(0.01)
                receiver.gate.wait()
                with receiver.lock:
                    receiver.held -= 1
                    receiver.answered[self.headers['Idempotency-Key']] += 1
                self.send_response(200)
                self.send_header('Content-Length', '0')
                self.end_headers()

            def log_message(self, *args):
                pass
        super().__init__(('127.0.0.1', 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Lock:
    def __init__(self, db):
        self.db = db

    def begin(self):
        self.held = sqlite3.connect(self.db, timeout=30, isolation_level=None)
        self.held.execute('BEGIN IMMEDIATE')

    def end(self):
        self.held.close()


class Full:
    """No byte is left on the file system of the database."""

    def __init__(self, db):
        self.path = os.path.join(os.path.dirname(db), 'filler')

    def begin(self):
        for size in (65536, 4096, 1):
            try:
                with open(self.path, 'ab', 0) as f:
                    while True:
                        f.write(b'x' * size)
            except OSError:
                pass

    def end(self):
        os.unlink(self.path)


class Stopped:
    """PostgreSQL: stopped at once, as by a crash, and started again."""

    def __init__(self, servers, folder):
        self.servers, self.folder = servers, folder
        self.server, self.port = servers.create(folder, servers.binaries())

    def url(self):
        return f'postgresql://waybill@127.0.0.1:{self.port}/postgres'

    def begin(self):
        self.servers.stop(self.server)

    def end(self):
        self.server = self.servers.start(
            self.folder, self.servers.binaries(), self.port)
        need(self.server is not None, 'PostgreSQL did not start again')


class Worker:
    def __init__(self, folder, db, receiver):
        self.env = {**os.environ, 'WAYBILL_DB': db, 'HOME': folder,
                    'WAYBILL_CONFIG': os.path.join(folder, 'away.lua')}
        with open(self.env['WAYBILL_CONFIG'], 'w', encoding='utf-8') as f:
            f.write(CONFIG % (LEASE_S, receiver.server_address[1]))
        self.log_path = os.path.join(folder, 'log')
        self.child = None

    def call(self, *args, stdin=b'', codes=(0,)):
        done = subprocess.run([COMMAND, '--json', *args], env=self.env,
                              input=stdin, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, check=False)
        need(done.returncode in codes, f'{args}: {done.stderr.decode()}')
        return [json.loads(line) for line in done.stdout.splitlines()]

    def start(self):
        with open(self.log_path, 'ab') as log:
            self.child = subprocess.Popen(
                [COMMAND, 'run', '--log', 'json'], env=self.env,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)

    def said(self, event):
        """How often; of a flood the log has the count."""
        with open(self.log_path, encoding='utf-8') as f:
            return sum(line.get('count', 1) for line in map(json.loads, f)
                       if line['event'] == event)

    def kill(self):
        if self.child is not None:
            self.child.kill()
            self.child.wait()

    def stop(self):
        self.child.send_signal(signal.SIGTERM)
        need(self.child.wait(60) == 0, 'the worker ended with an error')


def one_fault(worker, receiver, fault, left, rng, forget, past_lease):
    receiver.gate.clear()
    until(lambda: receiver.held >= min(HELD, left), 'requests arrive')
    fault.begin()
    if rng.random() < 0.5:
        worker.child.send_signal(signal.SIGHUP)
    receiver.gate.set()
    until(lambda: receiver.held == 0, 'responses')
    time.sleep(LEASE_S + 1 if past_lease else 0.7)
    if forget:
        worker.kill()
    fault.end()
    if forget:
        worker.start()


def campaign(name, worker, receiver, faults, rounds, rng, forget=False):
    """(faults that were met, messages, lost, doubled)"""
    total = rounds * 8 * HELD
    receiver.answered.clear()
    lines = b'{"n":1}\n' * total
    worker.call('send', 'k', '--lines', stdin=lines)
    worker.start()
    for n in range(rounds):
        left = total - len(receiver.answered)
        if left > 0:
            one_fault(worker, receiver, faults[n % len(faults)], left, rng,
                      forget and n == 0, n % 10 == 8)
    ends = time.monotonic() + 10 * LEASE_S
    while time.monotonic() < ends:
        status = worker.call('status')[0]
        if status['pending'] + status['processing'] == 0:
            break
        time.sleep(0.1)
    worker.stop()
    status = worker.call('status')[0]
    need(status['processing'] + status['abandoned'] == 0, f'{name}: {status}')
    lost = total - len(receiver.answered)
    doubled = sum(n - 1 for n in receiver.answered.values())
    met = worker.said('database-lost')
    need(forget or worker.said('start') == 1, f'{name}: not one worker')
    need(forget or worker.said('database-found') == met,
         f'{name}: {met} times lost, not as often found')
    print(f'  {name}: {met} faults met {total} messages, '
          f'{worker.said("reload")} reloads; lost {lost}, doubled {doubled}')
    return met, total, lost, doubled


def mounted(folder):
    return os.geteuid() == 0 and subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=12m', 'tmpfs', folder],
        stderr=subprocess.DEVNULL, check=False).returncode == 0


def on_file(receiver, rng, rounds, forget):
    folder = tempfile.mkdtemp(prefix='waybill-away-')
    disk = os.path.join(folder, 'disk')
    os.mkdir(disk)
    small = not forget and mounted(disk)
    db = os.path.join(disk, 'away.db')
    worker = Worker(folder, db, receiver)
    try:
        return campaign('saboteur' if forget else 'file', worker, receiver,
                        [Lock(db), Full(db)] if small else [Lock(db)], rounds,
                        rng, forget)
    finally:
        worker.kill()
        if small:
            subprocess.run(['umount', disk], check=True)
        shutil.rmtree(folder)


def with_server():
    path = os.path.join(HERE, '..', 'pg', 'with_server')
    loader = importlib.machinery.SourceFileLoader('with_server', path)
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader('with_server', loader))
    sys.dont_write_bytecode = True
    loader.exec_module(module)
    return module


def on_server(receiver, rng, rounds):
    servers = with_server()
    if not servers.binaries():
        print('  no PostgreSQL server is installed')
        return 0, 0, 0, 0
    data = tempfile.mkdtemp(prefix='waybill-pg-')
    folder = tempfile.mkdtemp(prefix='waybill-away-')
    fault = Stopped(servers, data)
    worker = Worker(folder, fault.url(), receiver)
    try:
        return campaign('server', worker, receiver, [fault], rounds, rng)
    finally:
        worker.kill()
        servers.stop(fault.server)
        shutil.rmtree(folder)
        shutil.rmtree(data, ignore_errors=True)


def main():
    rng, receiver = random.Random(SEED), Receiver()
    parts = [on_file(receiver, rng, ROUNDS, False),
             on_server(receiver, rng, max(ROUNDS // 3, 2))]
    met, total, lost, doubled = (sum(n) for n in zip(*parts))
    # It counts only if the same seed is sound without it.
    caught = int(lost + doubled == 0 and on_file(
        receiver, random.Random(SEED), 2, True)[3] > 0)
    print(f'away: seed {SEED}: {met} faults, {total} messages, '
          f'{caught} of 1 saboteurs; lost {lost}, doubled {doubled}')
    need(met >= ROUNDS // 3, 'too few faults were met')
    need(caught == 1, 'the saboteur was not caught')
    sys.exit(lost + doubled > 0)


main()
