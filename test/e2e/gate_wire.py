#!/usr/bin/env python3
"""gate_wire.py COMMAND [TEST...] - the gateway over raw sockets: G-11 to G-14, S5."""
import resource
import signal
import time
import urllib.request

from gate_peer import AUTH, SLACK, Case, main, request


class Wire(Case):
    def test_G11_refused_and_nothing_behind_it_is_read(self):
        second = 'POST /second HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n'
        post = 'POST /first HTTP/1.1\r\nHost: h\r\n'
        bad = [
            (400, post + 'Content-Length: 1\r\nContent-Length: 2\r\n\r\nx'),
            (400, post + 'Content-Length: 1\r\nContent-Length: 1\r\n\r\nx'),
            (400, post + 'Content-Length: 4\r\nTransfer-Encoding: chunked'
             '\r\n\r\n0\r\n\r\n'),
            (400, post + 'Content-Length: +1\r\n\r\nx'),
            (400, post + 'Content-Length: 0x1\r\n\r\nx'),
            (400, post + 'Content-Length: 1,1\r\n\r\nx'),
            (400, post + 'Content-Length: 99999999999999999999\r\n\r\nx'),
            (400, post + 'Content-Length : 1\r\n\r\nx'),
            (400, post + 'X: a\r\n b\r\nContent-Length: 1\r\n\r\nx'),
            (400, post + 'X: a\nContent-Length: 1\r\n\r\nx'),
            (400, post + 'X: a\rb\r\nContent-Length: 1\r\n\r\nx'),
            (400, post + 'X: a\0b\r\nContent-Length: 1\r\n\r\nx'),
            (400, post + ': a\r\nContent-Length: 1\r\n\r\nx'),
            (400, post + 'Host: i\r\nContent-Length: 1\r\n\r\nx'),
            (400, 'POST /first HTTP/1.1\r\nContent-Length: 1\r\n\r\nx'),
            (400, 'POST /a b HTTP/1.1\r\nHost: h\r\n\r\n'),
            (400, 'POST /first HTTP/1.0\r\nTransfer-Encoding: chunked'
             '\r\n\r\n0\r\n\r\n'),
            (501, post + 'Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n'),
            (501, post + 'Transfer-Encoding: chunked\r\n'
             'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n'),
            (505, 'POST /first HTTP/2.0\r\nHost: h\r\n\r\n'),
            (400, post + 'Transfer-Encoding: chunked\r\n\r\nz\r\n'),
            (400, post + 'Transfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n'),
        ]
        for key in ('', AUTH + 'Idempotency-Key: k\r\n'):
            for status, text in bad:
                head, _, rest = text.partition('\r\n')
                c = self.client()
                c.say(head + '\r\n' + key + rest + second)
                self.assertEqual(status, c.response().status, text)
                self.assertEqual(b'', c.f.read(), text)
        self.assertEqual(0, self.up.effects['/second'] + self.up.effects['k'])

    def test_G11_what_goes_up_is_written_anew(self):
        self.raw('POST http://h/p?q HTTP/1.1\r\nhOST:h\r\nX:   spaced   \r\n'
                 + AUTH + 'Idempotency-Key: k\r\nTransfer-Encoding: chunked\r\n'
                 '\r\n3;ext=1\r\nabc\r\n0\r\nX-Trailer: t\r\n\r\n')
        head = self.up.heads[0]
        self.assertTrue(head.startswith(b'POST /p?q HTTP/1.1\r\nHost: h\r\n'))
        self.assertIn(b'\r\nX: spaced\r\n', head)
        self.assertIn(b'\r\nContent-Length: 3\r\n', head)
        self.assertNotIn(b'railer', head)
        self.assertEqual(b'abc', self.up.bodies[0])

    def test_G12_an_early_response_can_be_read(self):
        c = self.client()
        c.say(request(key='a b', body='x' * 500000))
        self.assertEqual(400, c.response().status)
        c = self.client()
        c.say('POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n')
        a = c.response()
        self.assertEqual((403, b'stop', 'close'),
                         (a.status, a.body, a.get('Connection')))

    def test_G12_head_without_end(self):
        c = self.client()
        c.say('GET / HTTP/1.1\r\nHost: h\r\n' + 'X: y\r\n' * 4000)
        self.assertEqual(431, c.response().status)

    def test_G12_slow_and_many_clients_leave_others_served(self):
        before = self.gate.memory()
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        idle = [self.client() for _ in range(min(10000, most - 500))]
        for c in idle[-200:]:
            c.say('POST / HTTP/1.1\r\nHos')
        for c in idle[-300:-200]:
            c.say('GET / HTTP/1.1\r\nHost: h\r\nX: ' + 'y' * 16000)
        for c in idle[-340:-300]:
            c.say(request(key='slow', body='x' * 1000000)[:900000])
        self.assertEqual(200, self.ask(key='k').status)
        self.assertLess(self.gate.memory() - before, SLACK * 96 << 20)

    def test_G12_a_client_that_does_not_read_holds_up_the_server(self):
        for key in (None, 'k'):
            c = self.client()
            c.say(request('/big/100000000', key=key))
            c.head()
            time.sleep(0.4)
        self.assertLess(self.gate.memory(), SLACK * 32 << 20)

    def test_G12_a_server_that_does_not_read_holds_up_the_client(self):
        c = self.client()
        c.say('PUT /deaf HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000'
              '\r\n\r\n')
        c.s.settimeout(0.3)
        with self.assertRaises(TimeoutError):
            c.say(bytes(100000000))
        self.assertLess(self.gate.memory(), SLACK * 32 << 20)

    def test_G13_no_keys_in_metrics(self):
        self.ask(key='topsecret', body='hidden')
        with urllib.request.urlopen(
                f'http://127.0.0.1:{self.gate.admin}/metrics') as r:
            text = r.read().decode()
        for name in ('fresh replay wait conflict mismatch skipped released '
                     'truncated unknown lost store_errors').split():
            self.assertIn(f'waybill_gate_{name}_total ', text)
        self.assertIn('waybill_gate_keyed_seconds_count 1', text)
        self.assertNotIn('topsecret', text)
        self.assertNotIn('hidden', text)

    def test_G14_pipelined_in_order(self):
        c = self.client()
        c.say(''.join(request(f'/echo/{i}', key=f'k{i % 3}' if i % 2 else None,
                              body=str(i)) for i in range(30)))
        got = [c.response() for _ in range(30)]
        self.assertEqual(30, len([a for a in got if a.status in (200, 422)]))
        for i in range(0, 30, 2):
            self.assertEqual(b'1:%d' % i, got[i].body)

    def test_G14_expect_is_answered_here_and_stripped(self):
        for key in ('', AUTH + 'Idempotency-Key: k\r\n'):
            c = self.client()
            c.say('POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n'
                  + key + 'Content-Length: 2\r\n\r\n')
            self.assertEqual(['HTTP/1.1 100 Continue'], c.head())
            c.say('hi')
            self.assertEqual(b'1:hi', c.response().body)
        self.assertNotIn(b'xpect', b''.join(self.up.heads))

    def test_G14_expect_with_a_bad_key_gets_no_100(self):
        a = self.raw('POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n' +
                     AUTH + 'Idempotency-Key: a b\r\nContent-Length: 2\r\n\r\n')
        self.assertEqual(400, a.status)

    def test_G14_interim_responses_are_dropped(self):
        text = ('HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 C\r\n'
                '\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n'
                'Content-Length: 2\r\n\r\nok')
        for key in (None, 'k'):
            a = self.ask('/raw', key=key, body=text)
            self.assertEqual((200, b'ok'), (a.status, a.body))

    def test_G14_upgrade_is_stripped_and_a_101_is_502(self):
        text = 'HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n'
        up = AUTH + 'Connection: upgrade\r\nUpgrade: x\r\n'
        self.assertEqual(502, self.ask('/raw', body=text, more=up).status)
        a = self.ask('/raw', key='k', body=text, more=up)
        self.assertEqual((502, 'outcome-unknown'), (a.status, a.problem))
        self.assertEqual(409, self.ask('/raw', key='k', body=text).status)
        self.assertNotIn(b'pgrade', b''.join(self.up.heads))

    def test_G14_http_1_0_clients_get_no_chunks_and_a_close(self):
        for key in (None, 'k'):
            a = self.ask('/bigchunked/2097152', key=key, version='1.0')
            self.assertEqual((None, 2097152),
                             (a.get('Transfer-Encoding'), len(a.body)))
            self.assertEqual('close', a.get('Connection'))
        c = self.client()
        c.say('GET /bigchunked/65536 HTTP/1.0\r\nConnection: keep-alive\r\n'
              '\r\n')
        self.assertEqual(65536, len(c.response().body))

    def test_G14_head_has_the_length_and_no_body(self):
        c = self.client()
        c.say('HEAD /raw/keep HTTP/1.1\r\nHost: h\r\nContent-Length: 39\r\n\r\n'
              'HTTP/1.1 200 OK\r\nContent-Length: 77\r\n\r\n')
        self.assertEqual('77', c.response('HEAD').get('Content-Length'))
        c.say(request())
        self.assertEqual(b'1:b', c.response().body)

    def test_G14_responses_up_to_the_close(self):
        for key in (None, 'k'):
            self.assertEqual(b'until the end', self.ask('/close', key=key).body)

    def test_G14_connections_are_kept_and_a_dead_one_is_not_used(self):
        for i in range(5):
            self.ask('/echo', key=f'k{i}')
        self.assertEqual(1, self.up.conns)
        for i in range(5):
            self.assertEqual(b'bye', self.ask('/leave', key=f'l{i}').body)
            time.sleep(0.02)
        self.assertEqual(0, self.gate.metric('unknown'))

    def test_G14_a_connection_that_can_be_read_is_not_used(self):
        c = self.client()
        c.say(request('/leavelater', key='a'))
        self.assertEqual(b'bye', c.response().body)
        self.gate.p.send_signal(signal.SIGSTOP)
        c.say(request('/echo', key='b'))  # the gateway sees this first
        time.sleep(0.05)
        self.up.gates['leave'].set()
        time.sleep(0.05)
        self.gate.p.send_signal(signal.SIGCONT)
        self.assertEqual(b'1:b', c.response().body)
        self.assertEqual(2, self.up.conns)

    def test_G14_a_connection_idle_too_long_is_not_used(self):
        self.ask(key='a')
        time.sleep(2.1)
        self.ask(key='b')
        self.assertEqual(2, self.up.conns)


if __name__ == '__main__':
    main()
