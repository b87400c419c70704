"""gate_peer.py - client and upstream server of the gateway's tests.

The upstream server does what the path says and counts the effects of each key.
The tests send raw bytes, so that no HTTP library corrects them.
"""
import collections
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request

COMMAND = os.path.abspath(sys.argv[1]) if len(sys.argv) > 1 else 'waybill'
with open(COMMAND, 'rb') as _f:  # a sanitizer needs more memory
    SLACK = 8 if re.search(rb'__[at]san_init', _f.read()) else 1
AUTH = 'Authorization: Bearer a\r\n'


# ---- the upstream server -----------------------------------------------------

class Upstream:
    """Responds by path. effects[key or path] counts complete requests."""

    def __init__(self):
        self.effects = collections.Counter()
        self.heads, self.bodies, self.conns = [], [], 0
        self.gates = collections.defaultdict(threading.Event)
        self.listener = socket.create_server(('127.0.0.1', 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.conns += 1
            threading.Thread(target=self.talk, args=(s,), daemon=True).start()

    def talk(self, s):
        f = s.makefile('rb')
        with s:
            try:
                n = 1
                while self.one(s, f, n):
                    n += 1
            except OSError:
                pass

    def read_body(self, f, head):
        m = re.search(rb'(?i)content-length: (\d+)', head)
        if m:
            return f.read(int(m[1]))
        body = b''
        if re.search(rb'(?i)transfer-encoding: chunked', head):
            while (n := int(f.readline(), 16)) > 0:
                body += f.read(n)
                f.readline()
            f.readline()
        return body

    def one(self, s, f, nth):
        head = b''
        while not head.endswith(b'\r\n\r\n'):
            line = f.readline()
            if not line:
                return False
            head += line
        path = head.split()[1].decode().split('?')[0]
        if path == '/deaf':
            self.gates['deaf'].wait(20)
            return False
        if path == '/closing' and nth > 1:
            return False
        if path == '/early':
            s.sendall(b'HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nstop')
            return False
        body = self.read_body(f, head)
        self.heads.append(head)
        self.bodies.append(body)
        m = re.search(rb'(?i)idempotency-key: (\S+)', head)
        key = m[1].decode() if m else path
        self.effects[key] += 1
        return self.response(s, path, body, self.effects[key])

    def response(self, s, path, body, n):
        name, _, arg = path[1:].partition('/')
        act = getattr(self, 'do_' + name, self.do_echo)
        return act(s, arg, body, n) is not False

    def send(self, s, body, status='200 OK', more=b''):
        s.sendall(b'HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s'
                  % (status.encode(), len(body), more, body))

    def do_echo(self, s, arg, body, n):
        self.send(s, b'%d:' % n + body)

    def do_status(self, s, arg, body, n):
        self.send(s, b'try %d' % n, arg + ' As Requested')

    def do_wait(self, s, arg, body, n):
        self.gates[arg].wait(20)
        self.send(s, b'waited')

    def do_cut(self, s, arg, body, n):  # no response at all
        return False

    def do_half(self, s, arg, body, n):
        s.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf')
        return False

    def do_bytes(self, s, arg, body, n):
        self.send(s, bytes(range(256)) * 8, '201 Created',
                  b'X-A: 1\r\nX-A: 2\r\nSet-Cookie: c=1\r\nDate: then\r\n'
                  b'Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=9\r\n'
                  b'Idempotent-Replayed: forged\r\n')

    def do_interim(self, s, arg, body, n):
        s.sendall(b'HTTP/1.1 102 Processing\r\n\r\n' * int(arg))
        self.send(s, b'final')

    def do_cors(self, s, arg, body, n):
        self.send(s, b'', '204 No Content',
                  b'Access-Control-Allow-Origin: https://page.example\r\n'
                  b'Access-Control-Allow-Credentials: true\r\n')

    def do_big(self, s, arg, body, n):
        self.send(s, b'x' * int(arg))

    def do_bigchunked(self, s, arg, body, n):
        s.sendall(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
        for _ in range(int(arg) // 65536):
            s.sendall(b'10000\r\n' + b'y' * 65536 + b'\r\n')
        s.sendall(b'0\r\nX-Trailer: t\r\n\r\n')

    def do_events(self, s, arg, body, n):
        s.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n'
                  b'Transfer-Encoding: chunked\r\n\r\n5\r\none\n\n\r\n')
        self.gates[arg].wait(20)
        s.sendall(b'5\r\ntwo\n\n\r\n0\r\n\r\n')

    def do_close(self, s, arg, body, n):  # body up to the end of the connection
        s.sendall(b'HTTP/1.1 200 OK\r\n\r\nuntil the end')
        return False

    def do_raw(self, s, arg, body, n):
        s.sendall(body)
        return arg == 'keep'

    def do_silent(self, s, arg, body, n):
        time.sleep(20)

    def do_leavelater(self, s, arg, body, n):
        self.send(s, b'bye')
        self.gates['leave'].wait(20)
        return False

    def do_leave(self, s, arg, body, n):  # closes without announcing it
        self.send(s, b'bye')
        return False


# ---- the gateway and its clients -----------------------------------------------

class Gate:
    def __init__(self, port, folder, *args, store='memory'):
        self.args = [COMMAND, 'gate', '--listen', '127.0.0.1:0', '--admin',
                     '127.0.0.1:0', '--upstream', f'http://127.0.0.1:{port}',
                     '--store', store, *args]
        self.log_path = os.path.join(folder, 'gate.log')
        self.log = open(self.log_path, 'ab')
        self.p = subprocess.Popen(self.args, cwd=folder, text=True,
                                  stdout=subprocess.PIPE, stderr=self.log)
        line = self.p.stdout.readline()
        m = re.search(r'on 127.0.0.1:(\d+), .* admin 127.0.0.1:(\d+)', line)
        self.port, self.admin = int(m[1]), int(m[2])

    def metric(self, name):
        with urllib.request.urlopen(
                f'http://127.0.0.1:{self.admin}/metrics') as r:
            text = r.read().decode()
        return int(re.search(rf'(?m)^waybill_gate_{name}_total (\d+)', text)[1])

    def memory(self):
        with open(f'/proc/{self.p.pid}/status', encoding='ascii') as f:
            return int(re.search(r'VmRSS:\s+(\d+)', f.read())[1]) * 1024

    def stop(self, sig=signal.SIGTERM):
        if self.p.poll() is None:
            self.p.send_signal(sig)
        rc = self.p.wait(30)
        self.p.stdout.close()
        self.log.close()
        return rc

    def logged(self):
        with open(self.log_path, encoding='utf-8') as f:
            return f.read()


class Client:
    def __init__(self, port):
        self.s = socket.create_connection(('127.0.0.1', port))
        self.s.settimeout(25)
        self.f = self.s.makefile('rb')

    def say(self, data):
        self.s.sendall(data if isinstance(data, bytes) else data.encode())

    def head(self):
        lines = []
        while (line := self.f.readline()) not in (b'\r\n', b''):
            lines.append(line.decode('latin-1').rstrip('\r\n'))
        return lines

    def response(self, method='POST'):
        head = self.head()
        if not head:
            return None
        a = Response(head)
        if method == 'HEAD':
            return a
        if a.get('Transfer-Encoding'):
            while (n := int(self.f.readline() or b'0', 16)) > 0:
                a.body += self.f.read(n)
                self.f.readline()
            self.f.readline()
        elif a.get('Content-Length') is not None:
            a.body = self.f.read(int(a.get('Content-Length')))
        elif a.status not in (204, 304):
            a.body = self.f.read()
        return a

    def close(self):
        self.f.close()
        self.s.close()


class Response:
    def __init__(self, head):
        self.status = int(head[0].split()[1])
        self.fields = [tuple(x.split(': ', 1)) for x in head[1:]]
        self.body = b''

    def get(self, name):
        return next((v for k, v in self.fields
                     if k.lower() == name.lower()), None)

    def all(self, name):
        return [v for k, v in self.fields if k.lower() == name.lower()]

    @property
    def problem(self):
        m = re.search(rb'"type":"urn:waybill:([a-z-]+)"', self.body)
        return m[1].decode() if m else None


def request(path='/echo', key=None, body='b', method='POST', more=AUTH,
            version='1.1'):
    key = f'Idempotency-Key: {key}\r\n' if key else ''
    return (f'{method} {path} HTTP/{version}\r\nHost: h\r\n{more}{key}'
            f'Content-Length: {len(body)}\r\n\r\n{body}')


class Case(unittest.TestCase):
    args = ()
    store = 'memory'

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix='waybill-gate-')
        self.up = Upstream()
        self.gate = Gate(self.up.port, self.folder, *self.args,
                         store=self.store)
        self.clients = []

    def tearDown(self):
        for event in list(self.up.gates.values()):
            event.set()
        for c in self.clients:
            c.close()
        self.up.listener.close()
        self.assertEqual(0, self.gate.stop())
        shutil.rmtree(self.folder)

    def client(self):
        self.clients.append(Client(self.gate.port))
        return self.clients[-1]

    def ask(self, *args, **kw):
        c = self.client()
        c.say(request(*args, **kw))
        return c.response(kw.get('method', 'POST'))

    def raw(self, text):
        c = self.client()
        c.say(text)
        return c.response()

    def until(self, true, what):
        end = time.monotonic() + 20
        while not true():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.005)


def main():
    unittest.main(argv=sys.argv[:1] + sys.argv[2:])
