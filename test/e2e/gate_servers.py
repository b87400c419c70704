#!/usr/bin/env python3
"""gate_servers.py COMMAND [TEST...] - the gateway in front of nginx, haproxy,
gunicorn and node, with curl, node's fetch and Python as clients that repeat."""
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request

from gate_peer import AUTH, Case, Gate, main

PATH = os.environ['PATH'] + ':/usr/sbin:/sbin'
NGINX = '''
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.err;
worker_processes 2;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/b;
    proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f;
    scgi_temp_path {folder}/s;
    uwsgi_temp_path {folder}/u;
    upstream app {{ server 127.0.0.1:{app}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;
            proxy_read_timeout 1s;
        }}
    }}
}}
'''
HAPROXY = '''
defaults
    mode http
    timeout connect 2s
    timeout client 20s
    timeout server 1s
    retries 0
frontend f
    bind 127.0.0.1:{port}
    default_backend b
backend b
    server s 127.0.0.1:{app}
'''
WSGI = '''
import collections, time
effects = collections.Counter()
def app(environ, start):
    environ['wsgi.input'].read()
    key = environ.get('HTTP_IDEMPOTENCY_KEY', '')
    with open({log!r}, 'a') as f:
        f.write(key + '\\n')
    if environ['PATH_INFO'] == '/slow':
        time.sleep(0.3)
    start('201 Created', [('Content-Type', 'text/plain'),
                          ('Content-Length', '4')])
    return [b'done']
'''
NODE = '''
const fs = require('fs');
require('http').createServer((req, res) => {
    req.resume().on('end', () => {
        fs.appendFileSync(process.argv[3], (req.headers['idempotency-key'] || '') + '\\n');
        if (req.url === '/cut') return req.socket.destroy();
        res.writeHead(201, {'Content-Type': 'text/plain'});
        res.end('done');
    });
}).listen(+process.argv[2], '127.0.0.1');
'''
FETCH = '''
(async () => {
    const [url, key, n] = process.argv.slice(2);
    for (let i = 0; i < n; i++) {
        const r = await fetch(url, {method: 'POST', body: 'x', headers: {
            'Idempotency-Key': key, Authorization: 'Bearer a'}});
        console.log(r.status, r.headers.get('idempotent-replayed'),
                    await r.text());
    }
})();
'''


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Servers(Case):
    def setUp(self):
        super().setUp()
        self.children = []

    def tearDown(self):
        for child in self.children:
            self.until(lambda: self.stopped(child), f'{child.args[0]} ends')
        super().tearDown()

    def stopped(self, child):
        """Asks each time: gunicorn drops a signal when five are waiting."""
        child.terminate()
        return child.poll() is not None

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, 'w', encoding='ascii') as f:
            f.write(text)
        return path

    def run_server(self, port, *words):
        tool = shutil.which(words[0], path=PATH)
        self.assertIsNotNone(tool, f'{words[0]} is not installed')
        with open(os.path.join(self.folder, 'server.log'), 'ab') as log:
            self.children.append(subprocess.Popen(
                [tool, *words[1:]], cwd=self.folder, stdout=log, stderr=log))
        self.until(lambda: self.answers(port), f'{words[0]} listens')
        self.front(port)

    def answers(self, port):
        with socket.socket() as s:
            return s.connect_ex(('127.0.0.1', port)) == 0

    def front(self, port, *args):
        """The gateway, anew, in front of this port."""
        self.assertEqual(0, self.gate.stop())
        self.gate = Gate(port, self.folder, *args)

    def url(self, path):
        return f'http://127.0.0.1:{self.gate.port}{path}'

    # ---- the clients: two tries with one key

    def by_curl(self, path, key):
        got = []
        for _ in range(2):
            out = subprocess.run(
                ['curl', '-s', '-i', '--retry', '2', '-d', 'x', '-H',
                 AUTH.strip(), '-H', f'Idempotency-Key: {key}',
                 self.url(path)], check=True, timeout=30, text=True,
                stdout=subprocess.PIPE).stdout
            got.append((int(out.split()[1]),
                        'Idempotent-Replayed: true' in out))
        return got

    def by_fetch(self, path, key):
        out = subprocess.run(
            ['node', self.write('fetch.js', FETCH), self.url(path), key, '2'],
            check=True, timeout=30, text=True, stdout=subprocess.PIPE).stdout
        return [(int(x.split()[0]), x.split()[1] == 'true')
                for x in out.splitlines()]

    def by_python(self, path, key):
        got = []
        for _ in range(2):
            r = urllib.request.Request(self.url(path), b'x', {
                'Idempotency-Key': key, 'Authorization': 'Bearer a'})
            try:
                with urllib.request.urlopen(r, timeout=20) as a:
                    got.append((a.status,
                                a.headers['Idempotent-Replayed'] == 'true'))
            except urllib.error.HTTPError as e:
                with e:
                    got.append((e.code, False))
        return got

    def all_clients(self, path):
        for name in ('curl', 'fetch', 'python'):
            got = getattr(self, 'by_' + name)(path, name)
            self.assertEqual([(201, False), (201, True)], got, name)

    def effects_of(self, path):
        with open(path, encoding='ascii') as f:
            lines = f.read().split()
        return {k: lines.count(k) for k in lines}

    # ---- the servers

    def start_nginx(self):
        port = free_port()
        conf = self.write('nginx.conf', NGINX.format(
            folder=self.folder, port=port, app=self.up.port))
        self.run_server(port, 'nginx', '-p', self.folder, '-c', conf, '-e',
                        os.path.join(self.folder, 'nginx.err'))

    def start_haproxy(self):
        port = free_port()
        conf = self.write('haproxy.cfg', HAPROXY.format(
            port=port, app=self.up.port))
        self.run_server(port, 'haproxy', '-db', '-f', conf)

    def start_gunicorn(self):
        port, log = free_port(), os.path.join(self.folder, 'effects')
        self.write('app.py', WSGI.format(log=log))
        self.run_server(port, 'gunicorn', '--workers', '2', '--threads', '4',
                        '--worker-class', 'gthread', '--graceful-timeout', '5',
                        '--bind', f'127.0.0.1:{port}', '--no-sendfile',
                        'app:app')
        return log

    def test_nginx(self):
        self.start_nginx()
        self.all_clients('/status/201')
        self.assertEqual({'curl': 1, 'fetch': 1, 'python': 1},
                         dict(self.up.effects))

    def test_nginx_loses_patience_and_the_server_acts(self):
        self.start_nginx()
        self.patience()

    def test_haproxy(self):
        self.start_haproxy()
        self.all_clients('/status/201')
        self.assertEqual({'curl': 1, 'fetch': 1, 'python': 1},
                         dict(self.up.effects))

    def test_haproxy_loses_patience_and_the_server_acts(self):
        self.start_haproxy()
        self.patience()

    def patience(self):
        """The proxy says 504, the server goes on: repeats do not act again."""
        self.assertEqual([(504, False), (409, False)],
                         self.by_python('/wait/x', 'k'))
        self.up.gates['x'].set()
        self.assertEqual([(409, False)] * 2, self.by_python('/wait/x', 'k'))
        self.assertEqual(1, self.up.effects['k'])

    def test_gunicorn(self):
        log = self.start_gunicorn()
        self.all_clients('/')
        self.assertEqual({'curl': 1, 'fetch': 1, 'python': 1},
                         self.effects_of(log))

    def test_node(self):
        port, log = free_port(), os.path.join(self.folder, 'effects')
        self.run_server(port, 'node', self.write('app.js', NODE), str(port),
                        log)
        self.all_clients('/')
        self.assertEqual([(504, False), (409, False)],
                         self.by_python('/cut', 'cut'))
        self.assertEqual({'curl': 1, 'fetch': 1, 'python': 1, 'cut': 1},
                         self.effects_of(log))

    # ---- reloads, with and without kept connections

    def reload_while_asked(self, start, *args):
        """Keys and statuses, while the server reloads. start: a method."""
        start()
        port = int(re.search(r':(\d+)$', self.gate.args[7])[1])
        self.front(port, *args)
        got, stop = [], threading.Event()

        def ask(name):
            c = http.client.HTTPConnection('127.0.0.1', self.gate.port)
            n = 0
            while not stop.is_set():
                n += 1
                c.request('POST', '/status/201', b'x', {
                    'Idempotency-Key': f'{name}-{n}',
                    'Authorization': 'Bearer a'})
                a = c.getresponse()
                a.read()
                got.append((f'{name}-{n}', a.status))
            c.close()
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
        for t in threads:
            t.start()
        for n in range(8):
            seen = len(got)
            self.children[0].send_signal(signal.SIGHUP)
            self.until(lambda: len(got) > seen + 60, 'requests go on')
        stop.set()
        for t in threads:
            t.join(20)
        return got

    def test_fresh_connections_leave_nothing_unknown_in_a_reload(self):
        got = self.reload_while_asked(self.start_nginx, '--fresh-connections')
        self.assertEqual({201}, {status for _, status in got})
        self.assertEqual({1}, set(self.up.effects.values()))
        self.assertEqual(0, self.gate.metric('unknown'))

    def test_fresh_connections_in_a_reload_of_gunicorn(self):
        got = self.reload_while_asked(self.start_gunicorn,
                                      '--fresh-connections')
        self.assertEqual({201}, {status for _, status in got})
        effects = self.effects_of(os.path.join(self.folder, 'effects'))
        self.assertEqual({key: 1 for key, _ in got}, effects)
        self.assertEqual(0, self.gate.metric('unknown'))

    def test_kept_connections_act_once_at_most_in_a_reload(self):
        got = self.reload_while_asked(self.start_nginx)
        self.assertEqual({1}, set(self.up.effects.values()))
        unknown = sum(status != 201 for _, status in got)
        self.assertEqual(unknown, self.gate.metric('unknown'))


if __name__ == '__main__':
    main()
