#!/usr/bin/env python3
"""reset.py COMMAND [MESSAGES] [SEED] - answers that are followed by a reset.

The receiver reads the header of a request, answers completely, reads no body
and resets the connection: with bodies of up to 1 MB much of them is still to
be sent. Some connections are reset without an answer. A worker is the command.
At the end:

 1. each accepted message was answered 200 exactly once, nothing is left;
 2. no other was abandoned.

The saboteur is a receiver whose answers are dropped on the way: what was
answered goes out again, and (1) must say so.
"""
import collections
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading

COMMAND = os.path.abspath(sys.argv[1])
MESSAGES = int(sys.argv[2]) if len(sys.argv) > 2 else 200
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 1
SIZES = (10, 60000, 400000, 1000000)
CONFIG = '''
route "*" {
    url = "http://127.0.0.1:%d/", timeout = "5s", concurrency = 8,
    retry = { immediate = true, attempts = 20 }, breaker = { failures = 100000 },
}
'''


def need(true, what):
    if not true:
        sys.exit(f'reset: seed {SEED}: {what}')


class Receiver:
    def __init__(self, rng, drop):
        self.rng, self.drop = rng, drop
        self.answered = collections.Counter()  # by id
        self.resets, self.lock = 0, threading.Lock()
        self.socket = socket.create_server(('127.0.0.1', 0), backlog=64)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,),
                             daemon=True).start()

    def serve(self, peer):
        head = b''
        with peer:
            while b'\r\n\r\n' not in head:
                some = peer.recv(1024)
                if not some:
                    return
                head += some
            lines = head.split(b'\r\n\r\n')[0].decode().lower().split('\r\n')
            fields = dict(line.split(': ', 1) for line in lines[1:])
            with self.lock:
                self.resets += 1
                answers = self.rng.random() > 0.1
                self.answered[fields['idempotency-key']] += answers
                dropped = self.drop and self.rng.random() < 0.5
            if answers and not dropped:
                peer.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                            struct.pack('ii', 1, 0))


def campaign(drop):
    """(answered, resets, lost, doubled)"""
    rng = random.Random(SEED)
    folder = tempfile.mkdtemp(prefix='waybill-reset-')
    receiver = Receiver(rng, drop)
    env = {**os.environ, 'WAYBILL_DB': os.path.join(folder, 'reset.db'),
           'HOME': folder, 'WAYBILL_CONFIG': os.path.join(folder, 'reset.lua')}
    with open(env['WAYBILL_CONFIG'], 'w', encoding='utf-8') as f:
        f.write(CONFIG % receiver.socket.getsockname()[1])

    def call(*args, stdin=b'', codes=(0,)):
        done = subprocess.run([COMMAND, '--json', *args], env=env, input=stdin,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              check=False)
        need(done.returncode in codes, f'{args}: {done.stderr.decode()}')
        return [json.loads(line) for line in done.stdout.splitlines()]
    try:
        call('send', 'k', '--lines', stdin=b''.join(
            b'{"pad":"%s"}\n' % (b'x' * rng.choices(SIZES, (4, 4, 4, 1))[0])
            for _ in range(MESSAGES)))
        for _ in range(40):
            call('drain', codes=(0, 3, 4))
            status = call('status')[0]
            if status['pending'] + status['processing'] == 0:
                break
        need(status['pending'] + status['processing'] + status['abandoned']
             == 0, f'left: {status}')
    finally:
        receiver.socket.close()
        shutil.rmtree(folder)
    answered = [n for n in receiver.answered.values() if n > 0]
    return (len(answered), receiver.resets, MESSAGES - len(answered),
            sum(n - 1 for n in answered))


def main():
    answered, resets, lost, doubled = campaign(False)
    caught = int(lost + doubled == 0 and campaign(True)[3] > 0)
    print(f'reset: seed {SEED}: {resets} faults, {answered} messages, '
          f'{caught} of 1 saboteurs; lost {lost}, doubled {doubled}')
    sys.exit(lost + doubled > 0 or caught == 0)


main()
