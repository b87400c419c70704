#!/usr/bin/env python3
"""gate_options.py COMMAND [TEST...] - what options change, what people see, and
what was wrong in the reports of users."""
import base64
import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request

from gate_peer import AUTH, Case, Gate, main, request


class Starting(Case):
    def again(self, *args, store='memory'):
        """Start the gateway anew, with these options."""
        self.assertEqual(0, self.gate.stop())
        self.gate = Gate(self.up.port, self.folder, *args, store=store)

    def replays(self, *args, **kw):
        return self.ask(*args, **kw).get('Idempotent-Replayed') == 'true'


class Options(Starting):
    # ---- which requests are guarded

    def test_G2_methods_are_case_sensitive(self):
        for args in ((), ('--require-key',)):
            self.again(*args)
            for method in ('post', 'Post', 'patch', 'get'):
                for key in (None, 'k'):
                    a = self.ask(key=key, method=method)
                    self.assertEqual((501, 'bad-method'),
                                     (a.status, a.problem), method)
        self.assertEqual([], self.up.heads)

    def test_G2_a_method_that_is_not_known_is_guarded(self):
        for _ in range(2):
            self.assertEqual(200, self.ask(key='k', method='MKTHING').status)
        self.assertEqual(1, self.up.effects['k'])
        self.again('--require-key')
        self.assertEqual('key-required', self.ask(method='MKTHING').problem)
        self.assertEqual(200, self.ask(method='PUT').status)

    def test_G2_methods_of_a_list(self):
        self.again('--methods', 'PUT,DELETE')
        for method in ('PUT', 'DELETE'):
            self.assertFalse(self.replays(key=method, method=method))
            self.assertTrue(self.replays(key=method, method=method))
        self.assertFalse(self.replays(key='p'))
        self.assertFalse(self.replays(key='p'))

    def test_G1_key_header(self):
        for name in ('webhook-id', 'X-Idempotency-Key'):
            self.again('--key-header', name, '--require-key')
            more = AUTH + f'{name.upper()}: {name}\r\n'
            self.assertFalse(self.replays(more=more))
            self.assertTrue(self.replays(more=more))
            a = self.ask(key='k')
            self.assertEqual('key-required', a.problem)
            self.assertIn(f"the key's header is {name}", a.body.decode())
            self.assertEqual('bad-key', self.ask(more=more * 2).problem)

    def test_G2_paths(self):
        self.again('--paths', '/pay,/v1/orders', '--require-key')
        for path in ('/pay', '/pay/1', '/v1/orders/', '//pay', '/x/../pay',
                     '/p%61y'):
            self.assertEqual('key-required', self.ask(path).problem, path)
        for path in ('/', '/payments', '/v1'):
            self.assertEqual(200, self.ask(path).status, path)

    # ---- whose key

    def by_host(self, host):
        return self.raw(request(key='k').replace('Host: h', 'Host: ' + host))

    def test_M3_a_key_of_one_host_is_no_key_of_another(self):
        self.assertEqual(b'1:b', self.by_host('a.example').body)
        a = self.by_host('b.example')
        self.assertEqual((422, 'mismatch'), (a.status, a.problem))
        a = self.by_host('A.example:8080')
        self.assertEqual('true', a.get('Idempotent-Replayed'))
        self.assertEqual(1, self.up.effects['k'])

    def test_M3_virtual_hosts_share_no_keys(self):
        self.again('--virtual-hosts')
        for host in ('a.example', 'b.example', 'B.example:80'):
            self.assertEqual(200, self.by_host(host).status)
        self.assertEqual(2, self.up.effects['k'])

    def test_G3_identity_of_a_cookie(self):
        self.again('--identity-cookie', 'sid')
        for n, sid in enumerate(('a', 'a', 'b')):
            a = self.ask(key='k', more=f'Authorization: Bearer {n}\r\n'
                         f'Cookie: x={n}; sid={sid}\r\n')
            self.assertEqual(200, a.status)
        self.assertEqual(2, self.up.effects['k'])
        self.assertEqual(401, self.ask(key='k').status)

    def test_G3_identity_of_a_claim_outlives_a_renewed_token(self):
        self.again('--identity-claim', 'iss,sub')

        def token(**claims):
            text = base64.urlsafe_b64encode(json.dumps(claims).encode())
            return f'Authorization: Bearer h.{text.decode().rstrip("=")}.s\r\n'
        for n, sub in enumerate(('a', 'a', 'b')):
            a = self.ask(key='k', more=token(iss='i', sub=sub, exp=n))
            self.assertEqual(200, a.status)
        self.assertEqual(2, self.up.effects['k'])
        self.assertEqual(401, self.ask(key='k', more=token(sub='a')).status)

    # ---- what a status does

    def test_G6_one_table_of_statuses(self):
        self.again('--free', '401,409,423', '--keep', '500,502', '--unknown',
                   '520-529')
        for status, second in ((401, b'try 2'), (409, b'try 2'),
                               (423, b'try 2'), (404, b'try 1'),
                               (500, b'try 1'), (502, b'try 1')):
            key = f's{status}'
            self.ask(f'/status/{status}', key=key)
            a = self.ask(f'/status/{status}', key=key)
            self.assertEqual((status, second), (a.status, a.body))
        for status in (504, 520, 529):
            key = f's{status}'
            self.assertEqual(status, self.ask(f'/status/{status}',
                                              key=key).status)
            self.assertEqual('outcome-unknown',
                             self.ask(f'/status/{status}', key=key).problem)

    # ---- what a repeat has in common

    def test_G4_a_repeated_form_of_curl_matches(self):
        path = os.path.join(self.folder, 'f')
        with open(path, 'w', encoding='ascii') as f:
            f.write('hi')
        for _ in range(2):
            out = subprocess.run(
                ['curl', '-s', '-i', '-F', f'file=@{path}', '-H', AUTH.strip(),
                 '-H', 'Idempotency-Key: k',
                 f'http://127.0.0.1:{self.gate.port}/status/201'],
                stdout=subprocess.PIPE, check=True, timeout=20).stdout
            self.assertIn(b' 201 ', out)
        self.assertIn(b'Idempotent-Replayed: true', out)
        self.assertEqual(1, self.up.effects['k'])

    def test_G4_fingerprints(self):
        more = AUTH + 'Content-Type: application/json\r\n'
        for kind, first, second, status in (
                ('json', '{"a":1,"b":2}', '{"b": 2, "a": 1}', 200),
                ('json', '{"a":1}', '{"a":2}', 422),
                ('json:without at', '{"at":1}', '{"at":2}', 200),
                ('none', 'x', 'y', 200), ('raw', '{ }', '{}', 422)):
            self.again('--fingerprint', kind)
            self.ask(key='k', body=first, more=more)
            a = self.ask(key='k', body=second, more=more)
            self.assertEqual(status, a.status, (kind, second))

    def test_G7_no_compressed_response_is_replayed_to_others(self):
        self.ask(key='k', more=AUTH + 'Accept-Encoding: gzip\r\n')
        self.assertIn(b'Accept-Encoding: identity', self.up.heads[0])
        self.ask(more='Accept-Encoding: gzip\r\n')
        self.assertIn(b'Accept-Encoding: gzip', self.up.heads[1])

    # ---- connections to upstream

    def test_G14_fresh_connections(self):
        self.again('--fresh-connections')
        for n in range(4):
            self.ask(key=f'k{n}')
        self.assertEqual(4, self.up.conns)
        for n in range(4):
            self.ask()
        self.assertLessEqual(self.up.conns, 5)

    def test_G14_a_safe_method_is_repeated_once_on_a_stale_connection(self):
        for n in (1, 2, 3):
            self.assertEqual(200, self.ask('/closing', method='GET',
                                           body='').status)
        self.assertEqual(3, self.up.conns)
        a = self.ask('/closing')
        self.assertEqual((504, 'upstream-failed'), (a.status, a.problem))
        self.assertIn(b'kept connection was closed', a.body)

    def test_G9_a_keyed_request_is_not_repeated_on_a_stale_connection(self):
        self.ask('/closing', key='a')
        a = self.ask('/closing', key='b')
        self.assertEqual((504, 'outcome-unknown'), (a.status, a.problem))
        self.assertIn(b'kept connection was closed', a.body)
        self.assertEqual(1, self.up.conns)

    def test_G14_a_hundred_interim_responses(self):
        self.assertEqual(b'final', self.ask('/interim/100', key='a').body)
        self.assertEqual('outcome-unknown',
                         self.ask('/interim/101', key='b').problem)

    # ---- bodies

    def test_G8_a_body_of_30_MB_gets_413_and_no_broken_pipe(self):
        c = self.client()
        c.say(request(key='k', body='x' * 30_000_000))
        a = c.response()
        self.assertEqual((413, 'too-large'), (a.status, a.problem))
        self.again('--max-body', '40')
        c = self.client()
        c.say(request('/status/201', key='k', body='x' * 30_000_000))
        self.assertEqual(201, c.response().status)

    def test_G12_time_for_a_keyed_body(self):
        self.again('--body-time', '200ms')
        c = self.client()
        c.say(request(key='k')[:-1])
        self.assertEqual(408, c.response().status)


class Seen(Starting):
    """What an operator and a browser see."""

    def test_G13_a_line_with_the_reason_for_each_failure(self):
        self.again('--log', 'json')
        self.ask('/status/502', key='s')
        self.ask('/half', key='cut')
        self.ask('/half', key='cut')
        self.up.listener.shutdown(socket.SHUT_RDWR)
        self.up.listener.close()
        self.up.listener = socket.socket()
        a = self.ask(key='topsecret', more='Authorization: Bearer z\r\n'
                     'Connection: close\r\n')
        self.assertIn(b'nothing was sent: connection refused', a.body)
        lines = [json.loads(x) for x in self.gate.logged().splitlines()]
        self.assertEqual(
            [('outcome-unknown', 502, None), ('outcome-unknown', 200, None),
             ('refused', 409, 'outcome-unknown'),
             ('refused', 502, 'upstream-unreachable')],
            [(x['event'], x.get('status'), x.get('kind')) for x in lines])
        self.assertIn('before the response was complete', lines[1]['error'])
        self.assertEqual('POST /half', lines[1]['scope'])
        self.assertNotIn('topsecret', self.gate.logged())

    def test_G13_a_request_that_the_parser_refuses_is_logged(self):
        self.assertEqual(400, self.raw('GET / HTTP/1.1\r\n\r\n').status)
        self.assertIn('refused kind=http status=400', self.gate.logged())

    def test_G13_access_log(self):
        self.again('--access-log', 'access')
        for key in ('k', 'k', None, 'a b'):
            self.ask(key=key)
        for _ in range(10):
            self.ask()
        self.ask('/half')
        self.raw('GET / HTTP/1.1\r\n\r\n')
        self.assertEqual(0, self.gate.stop())
        with open(os.path.join(self.folder, 'access'), encoding='utf-8') as f:
            lines = f.read().splitlines()
        self.gate = Gate(self.up.port, self.folder)
        self.assertEqual(16, len(lines))
        self.assertIn('outcome=cut status=200', lines[-2])
        self.assertIn('outcome=http status=400', lines[-1])
        for line, outcome in zip(lines, ('fresh', 'replay', 'passed',
                                         'bad-key')):
            self.assertIn(f'outcome={outcome} ', line)
            self.assertIn('scope="POST /echo"', line)

    def page(self, path):
        try:
            with urllib.request.urlopen(
                    f'http://127.0.0.1:{self.gate.admin}{path}') as r:
                return r.status, r.read()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.read()

    def test_ready_and_alive_are_two_answers(self):
        self.again('--db', 'w.db', store='sqlite')
        self.assertEqual((200, b'ready\n'), self.page('/readyz'))
        db = sqlite3.connect(os.path.join(self.folder, 'w.db'),
                             isolation_level=None)
        db.execute("CREATE TRIGGER no BEFORE INSERT ON waybill_idem BEGIN "
                   "SELECT RAISE(ABORT, 'no'); END")
        status, text = self.page('/readyz')
        self.assertEqual(503, status)
        self.assertIn(b'store: ', text)
        db.execute('DROP TRIGGER no')
        db.close()
        self.assertEqual((200, b'ready\n'), self.page('/readyz'))
        self.up.listener.shutdown(socket.SHUT_RDWR)
        self.up.listener.close()
        self.up.listener = socket.socket()
        status, text = self.page('/readyz')
        self.assertEqual(503, status)
        self.assertIn(b'upstream: connection refused', text)
        self.assertEqual((200, b'ok\n'), self.page('/healthz'))

    def test_SIGTERM_with_an_open_event_stream_ends(self):
        self.again('--grace', '300ms')
        c = self.client()
        c.say('GET /events/e HTTP/1.1\r\nHost: h\r\n\r\n')
        self.assertIn('200', c.head()[0])
        began = time.monotonic()
        self.assertEqual(0, self.gate.stop())
        self.assertLess(time.monotonic() - began, 10)
        self.gate = Gate(self.up.port, self.folder)

    def test_SIGTERM_cuts_a_keyed_request_and_says_so(self):
        self.again('--grace', '300ms', '--db', 'w.db', '--lease', '200ms',
                   store='sqlite')
        c = self.client()
        c.say(request('/wait/x', key='k'))
        self.until(lambda: self.up.effects['k'], 'upstream has it')
        self.assertEqual(1, self.gate.stop())
        self.assertIn('outcome-unknown error="the gateway stopped while it ran"',
                      self.gate.logged())
        self.gate = Gate(self.up.port, self.folder, '--db', 'w.db',
                         store='sqlite')
        self.assertEqual('outcome-unknown',
                         self.ask('/wait/x', key='k').problem)

    def test_HUP_and_USR1_do_not_kill(self):
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            self.gate.p.send_signal(number)
            self.assertEqual(200, self.ask().status)

    def test_CORS_fields_as_upstream_gave_them_to_the_preflight(self):
        origin = 'Origin: https://page.example\r\n'
        a = self.ask(key='a b', more=AUTH + origin)
        self.assertIsNone(a.get('Access-Control-Allow-Origin'))
        self.raw('OPTIONS /cors HTTP/1.1\r\nHost: h\r\n' + origin +
                 'Access-Control-Request-Method: POST\r\n\r\n')
        a = self.ask(key='a b', more=AUTH + origin)
        self.assertEqual(
            (400, 'https://page.example', 'true', 'Origin'),
            (a.status, a.get('Access-Control-Allow-Origin'),
             a.get('Access-Control-Allow-Credentials'), a.get('Vary')))
        a = self.ask(key='a b', more=AUTH + 'Origin: https://other.example\r\n')
        self.assertIsNone(a.get('Access-Control-Allow-Origin'))


class Places(Case):
    """Two gateways, one store: a waiter here, the first request there."""
    args = ('--db', 'w.db')
    store = 'sqlite'

    def test_G5_one_that_waits_keeps_its_place(self):
        other = Gate(self.up.port, self.folder, '--db', 'w.db', store='sqlite')
        try:
            self.client().say(request('/wait/x', key='k'))
            self.until(lambda: self.up.effects['k'], 'upstream has it')
            self.gate, other = other, self.gate
            first = [self.client() for _ in range(64)]
            for c in first:
                c.say(request('/wait/x', key='k'))
            self.until(lambda: self.gate.metric('wait') == 64, 'all wait')
            for _ in range(1500):
                self.assertEqual('in-flight',
                                 self.ask('/wait/x', key='k').problem)
            self.up.gates['x'].set()
            self.assertEqual({b'waited'}, {c.response().body for c in first})
        finally:
            other.stop()


if __name__ == '__main__':
    main()
