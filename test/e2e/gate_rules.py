#!/usr/bin/env python3
"""gate_rules.py COMMAND [TEST...] - the gateway over raw sockets: G-1 to G-10."""
import os
import signal
import socket
import sqlite3
import threading
import time

from gate_peer import AUTH, SLACK, Case, Gate, main, request


def status_and_body(response):
    return response.status, response.body


class Keys(Case):
    def test_G1_both_spellings_are_one_key(self):
        self.assertEqual(b'1:b', self.ask(key='abc-1').body)
        for spelled in ('"abc-1"', ' abc-1 '):
            a = self.ask(key=spelled)
            self.assertEqual((b'1:b', 'true'),
                             (a.body, a.get('Idempotent-Replayed')))
        a = self.ask(more=AUTH + 'iDEMPOTENCY-kEY: abc-1\r\n')
        self.assertEqual('true', a.get('Idempotent-Replayed'))
        self.assertEqual(1, len(self.up.heads))

    def test_G1_longest_key(self):
        self.assertEqual(200, self.ask(key='k' * 255).status)

    def test_G1_escapes_of_a_string(self):
        self.assertEqual(200, self.ask(key=r'"a\"b\\c, ;d"').status)
        self.assertEqual(1, self.gate.metric('fresh'))

    def test_G1_malformed_is_400(self):
        bad = ['a b', 'a,b', '"a","b"', 'a;b', 'a\\b', '"a', 'a"', '""', '"a"b',
               '"a";x=1', r'"a\b"', 'k' * 256, '"' + 'k' * 256 + '"',
               'caf\xe9', '"\x09"']
        for key in bad:
            a = self.raw(request(key=key).encode('latin-1'))
            self.assertEqual((400, 'bad-key'), (a.status, a.problem), key)
        for two in ('Idempotency-Key: a\r\nIdempotency-Key: a\r\n',
                    'Idempotency-Key: a\r\nidempotency-key: b\r\n',
                    'Idempotency-Key:\r\n'):
            self.assertEqual(400, self.ask(more=AUTH + two).status, two)
        self.assertEqual([], self.up.heads)

    def test_G1_folded_spellings_and_markers_never_reach_upstream(self):
        self.ask(key='real', more=AUTH + 'Idempotency_Key: evil\r\n'
                 'IDEMPOTENCY_KEY: evil\r\nIdempotent-Replayed: true\r\n'
                 'Idempotent_Replayed: true\r\nIdempotency-Skipped: x\r\n'
                 'Idempotent-Truncated: true\r\nX-Mine: yes\r\n')
        head = self.up.heads[0].lower()
        self.assertIn(b'idempotency-key: real', head)
        self.assertIn(b'x-mine: yes', head)
        for word in (b'evil', b'replayed', b'truncated', b'skipped'):
            self.assertNotIn(word, head)


class Passing(Case):
    def test_G2_other_methods_and_keyless_pass(self):
        for n, method in enumerate(('GET', 'PUT', 'DELETE')):
            for _ in range(2):
                a = self.ask(key='k', method=method)
                self.assertEqual(200, a.status)
        self.assertEqual(6, self.up.effects['k'])
        self.ask(key=None)
        self.ask(key=None)
        self.assertEqual(2, self.up.effects['/echo'])
        self.assertEqual(0, self.gate.metric('fresh'))

    def test_G2_patch_is_guarded(self):
        for _ in range(2):
            self.ask(key='k', method='PATCH')
        self.assertEqual(1, self.up.effects['k'])

    def test_G3_no_identity_is_refused_and_names_the_options(self):
        for _ in (1, 2):
            a = self.ask(key='k', more='')
            self.assertEqual((401, 'bad-key', 'Bearer'), (
                a.status, a.problem, a.get('WWW-Authenticate')))
            for option in (b'--identity-header', b'--identity-cookie',
                           b'--identity-claim', b'--anonymous'):
                self.assertIn(option, a.body)
        self.assertEqual([], self.up.heads)


class Anonymous(Case):
    args = ('--anonymous', 'pass')

    def test_G3_no_identity_passes_where_asked_and_says_so(self):
        for n in (1, 2):
            a = self.ask(key='k', more='')
            self.assertEqual((b'%d:b' % n, 'anonymous'),
                             (a.body, a.get('Idempotency-Skipped')))
        self.assertEqual(2, self.gate.metric('skipped'))


class Comparing(Case):
    def test_G3_identities_and_paths_are_apart(self):
        self.ask(key='k')
        self.ask(key='k', more='Authorization: Bearer b\r\n')
        self.ask(key='k', path='/echo/2')
        self.assertEqual(3, self.up.effects['k'])
        self.ask(key='k')
        self.assertEqual(3, self.up.effects['k'])

    def test_G4_keyless_streams_both_ways(self):
        c = self.client()
        c.say('POST /events/s HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nx')
        self.until(lambda: self.up.conns == 1, 'upstream waits for the body')
        c.say('y')
        c.head()
        self.assertEqual([b'5\r\n', b'one\n', b'\n'],
                         [c.f.readline() for _ in range(3)])
        self.up.gates['s'].set()
        self.assertIn(b'two\n', [c.f.readline() for _ in range(3)])

    def test_G4_keyless_body_beyond_any_limit_in_bounded_memory(self):
        c, n = self.client(), 64 << 20
        threading.Thread(target=lambda: c.say(
            b'PUT /big/%d HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n'
            % (n, n) + bytes(n)), daemon=True).start()
        a = c.response()
        self.assertEqual(n, len(a.body))
        self.assertEqual(n, len(self.up.bodies[0]))
        self.assertLess(self.gate.memory(), SLACK * 40 << 20)

    def test_G4_fingerprint_method_path_query_type_body(self):
        self.ask(key='k', path='/echo?a=1')
        for kw in ({'path': '/echo?a=2'}, {'path': '/echo?a=1', 'body': 'c'},
                   {'path': '/echo?a=1',
                    'more': AUTH + 'Content-Type: text/x\r\n'}):
            a = self.ask(key='k', **kw)
            self.assertEqual((422, 'mismatch'), (a.status, a.problem), kw)
        self.assertEqual(3, self.gate.metric('mismatch'))
        self.assertEqual(1, self.up.effects['k'])

    def test_G4_mismatch_is_seen_while_the_first_runs(self):
        c = self.client()
        c.say(request('/wait/m', key='k'))
        self.until(lambda: self.up.effects['k'], 'upstream has it')
        self.assertEqual(422, self.ask('/wait/m', key='k', body='other').status)
        self.up.gates['m'].set()
        self.assertEqual(200, c.response().status)


class Demanding(Case):
    args = ('--require-key', '--wait', '0', '--anonymous', 'refuse',
            '--identity-header', 'X-Tenant')

    def test_G2_key_required(self):
        a = self.ask(more='X-Tenant: t\r\n')
        self.assertEqual((400, 'key-required'), (a.status, a.problem))
        self.assertEqual(200, self.ask(method='GET').status)

    def test_G3_identity_header(self):
        for tenant in 'ttu':
            self.ask(key='k', more=f'X-Tenant: {tenant}\r\nX_Tenant: evil\r\n')
        self.assertEqual(2, self.up.effects['k'])
        self.assertNotIn(b'evil', b''.join(self.up.heads))
        self.assertEqual(401, self.ask(key='k').status)
        a = self.ask(key='k', more='X-Tenant: t\r\nX-Tenant: u\r\n')
        self.assertEqual(400, a.status)

    def test_G5_no_wait_is_409_at_once(self):
        c = self.client()
        c.say(request('/wait/x', key='k', more='X-Tenant: t\r\n'))
        self.until(lambda: self.up.effects['k'], 'upstream has it')
        a = self.ask('/wait/x', key='k', more='X-Tenant: t\r\n')
        self.assertEqual((409, 'in-flight', '1', 'application/problem+json'),
                         (a.status, a.problem, a.get('Retry-After'),
                          a.get('Content-Type')))


class Waiting(Case):
    args = ('--wait', '400ms')

    def test_G5_waiters_get_the_response(self):
        cs = [self.client() for _ in range(20)]
        cs[0].say(request('/wait/x', key='k'))
        self.until(lambda: self.up.effects['k'], 'upstream has it')
        for c in cs[1:]:
            c.say(request('/wait/x', key='k'))
        self.until(lambda: self.gate.metric('wait') == 19, 'all wait')
        self.up.gates['x'].set()
        got = [c.response() for c in cs]
        self.assertEqual({b'waited'}, {a.body for a in got})
        self.assertEqual(19, sum(a.get('Idempotent-Replayed') == 'true'
                                 for a in got))
        self.assertEqual(1, self.up.effects['k'])

    def test_G5_the_wait_ends_in_409(self):
        c = self.client()
        c.say(request('/wait/x', key='k'))
        self.until(lambda: self.up.effects['k'], 'upstream has it')
        a = self.ask('/wait/x', key='k')
        self.assertEqual((409, '1'), (a.status, a.get('Retry-After')))
        self.assertEqual(1, self.gate.metric('conflict'))

    def test_G5_the_wait_begins_with_the_whole_request(self):
        c, d = self.client(), self.client()
        c.say(request('/wait/x', key='k'))
        self.until(lambda: self.up.effects['k'], 'upstream has it')
        text = request('/wait/x', key='k')
        d.say(text[:-1])
        time.sleep(0.6)
        d.say(text[-1:])
        self.until(lambda: self.gate.metric('wait') == 1, 'it waits')

    def test_G5_waiters_are_bounded(self):
        cs = [self.client() for _ in range(80)]
        cs[0].say(request('/wait/x', key='k'))
        self.until(lambda: self.up.effects['k'], 'upstream has it')
        for c in cs[1:]:
            c.say(request('/wait/x', key='k'))
        self.until(lambda: self.gate.metric('conflict') >= 15, 'refused')
        self.assertLessEqual(self.gate.metric('wait'), 64)

    def test_G10_a_waiter_that_leaves_stops_waiting(self):
        c, d = self.client(), self.client()
        c.say(request('/wait/x', key='k'))
        self.until(lambda: self.up.effects['k'], 'upstream has it')
        d.say(request('/wait/x', key='k'))
        self.until(lambda: self.gate.metric('wait') == 1, 'it waits')
        d.s.shutdown(socket.SHUT_WR)
        began = time.monotonic()
        self.assertIsNone(d.response())
        self.assertLess(time.monotonic() - began, 0.35)
        self.assertEqual(0, self.gate.metric('conflict'))

    def test_G10_a_holder_that_leaves_finishes(self):
        c = self.client()
        c.say(request('/wait/x', key='k'))
        self.until(lambda: self.up.effects['k'], 'upstream has it')
        c.close()
        self.clients.remove(c)
        self.up.gates['x'].set()
        self.until(lambda: self.ask('/wait/x', key='k').get(
            'Idempotent-Replayed') == 'true', 'stored')
        self.assertEqual(1, self.up.effects['k'])

    def test_G10_a_holder_that_half_closes_is_answered(self):
        c = self.client()
        c.say(request('/wait/x', key='k'))
        c.s.shutdown(socket.SHUT_WR)
        self.until(lambda: self.up.effects['k'], 'upstream has it')
        time.sleep(0.05)
        self.up.gates['x'].set()
        self.assertEqual(b'waited', c.response().body)


class Kept(Case):
    store = 'sqlite'

    def setUp(self):
        self.db = None
        super().setUp()
        self.db = os.path.join(self.folder, 'w.db')

    args = ('--db', 'w.db')

    def sql(self, text):
        db = sqlite3.connect(self.db, isolation_level=None)
        rows = db.execute(text).fetchall()
        db.close()
        return rows

    def test_G6_which_statuses_are_stored(self):
        for status in (200, 201, 400, 404, 409, 422):
            for n in (1, 2):
                a = self.ask(f'/status/{status}', key=f's{status}')
                self.assertEqual((status, b'try 1'), (a.status, a.body))
        for status in (502, 504):
            a = self.ask(f'/status/{status}', key=f's{status}')
            self.assertEqual((status, b'try 1'), (a.status, a.body))
            a = self.ask(f'/status/{status}', key=f's{status}')
            self.assertEqual((409, 'outcome-unknown'), (a.status, a.problem))
        for status in (408, 425, 429, 500, 501, 503, 599):
            for n in (1, 2):
                a = self.ask(f'/status/{status}', key=f's{status}')
                self.assertEqual((status, b'try %d' % n), (a.status, a.body))
        self.assertEqual(14, self.gate.metric('released'))

    def forbid_done(self):
        self.sql("CREATE TRIGGER no BEFORE UPDATE ON waybill_idem "
                 "WHEN new.state = 'done' BEGIN "
                 "SELECT RAISE(ABORT, 'no'); END")

    def test_G6_commit_fails_before_anything_left(self):
        self.forbid_done()
        a = self.ask(key='k')
        self.assertEqual((503, 'store-unavailable'), (a.status, a.problem))
        self.assertIn(b'the response could not be recorded', a.body)
        self.assertIn('store-failed error=', self.gate.logged())
        a = self.ask(key='k')
        self.assertEqual((409, 'outcome-unknown'), (a.status, a.problem))
        self.assertEqual(1, self.up.effects['k'])

    def test_G6_a_store_that_is_locked_for_long_gets_the_record_later(self):
        c = self.client()
        c.say(request('/wait/l', key='k'))
        self.until(lambda: self.up.effects['k'], 'upstream has it')
        db = sqlite3.connect(self.db, isolation_level=None)
        db.execute('BEGIN IMMEDIATE')
        self.up.gates['l'].set()
        self.until(lambda: 'store-failed' in self.gate.logged(), 'a failure')
        db.execute('ROLLBACK')
        db.close()
        self.assertEqual((200, b'waited'), status_and_body(c.response()))
        self.assertTrue(self.ask('/wait/l', key='k').get('Idempotent-Replayed'))
        self.assertEqual(1, self.up.effects['k'])

    def test_G13_a_store_that_was_removed_is_named(self):
        os.unlink(self.db)
        a = self.ask(key='k')
        self.assertEqual((503, 'store-unavailable'), (a.status, a.problem))
        self.assertIn('was removed or renamed', self.gate.logged())
        self.assertEqual(0, self.up.effects['k'])

    def test_G6_commit_fails_with_a_response_under_way(self):
        self.forbid_done()
        for path in ('/big/3000000', '/bigchunked/3000000'):
            c = self.client()
            c.say(request(path, key=path))
            head = c.head()
            self.assertIn('200', head[0])
            got = c.f.read()
            self.assertFalse(got.endswith(b'0\r\n\r\n'), path)
            if 'chunked' not in path:
                self.assertEqual(2999999, len(got))
            self.assertEqual('outcome-unknown', self.ask(path, key=path).problem)

    def test_G6_a_cut_that_only_the_close_shows_is_a_reset(self):
        self.forbid_done()
        c = self.client()
        c.say(request('/bigchunked/3000000', key='k', version='1.0'))
        self.assertIn('200', c.head()[0])
        with self.assertRaises(ConnectionResetError):
            c.f.read()

    def test_G6_the_last_byte_waits_for_the_commit(self):
        c = self.client()
        c.say(request('/events/e', key='k'))
        c.head()
        got = [c.f.readline() for _ in range(3)]
        self.assertEqual(b'one\n', got[1])  # all but its last byte
        db = sqlite3.connect(self.db, isolation_level=None)
        db.execute('BEGIN IMMEDIATE')
        self.up.gates['e'].set()
        c.s.settimeout(0.5)
        rest = b''
        try:
            while b'0\r\n\r\n' not in rest:
                rest += c.s.recv(4096)
        except TimeoutError:
            pass
        self.assertNotIn(b'0\r\n\r\n', rest)
        self.assertEqual(1, (b''.join(got[2:]) + rest).count(b'two'))
        db.execute('ROLLBACK')
        db.close()
        c.s.settimeout(10)
        while b'0\r\n\r\n' not in rest:
            rest += c.s.recv(4096)

    def test_G7_replays_are_the_same_bytes(self):
        first, again = (self.ask('/bytes', key='k') for _ in range(2))
        self.assertEqual((201, bytes(range(256)) * 8),
                         (again.status, again.body))
        self.assertEqual(first.body, again.body)
        self.assertEqual(['1', '2'], again.all('X-A'))
        self.assertEqual(('c=1', 'then'),
                         (first.get('Set-Cookie'), first.get('Date')))
        self.assertIsNone(first.get('Idempotent-Replayed'))
        self.assertEqual(['true'], again.all('Idempotent-Replayed'))
        for name in ('Set-Cookie', 'Date', 'X-Hop', 'Keep-Alive'):
            self.assertIsNone(again.get(name), name)

    def test_G7_restart_is_safe(self):
        self.ask(key='k')
        self.assertEqual(0, self.gate.stop())
        self.gate = Gate(self.up.port, self.folder, *self.args, store='sqlite')
        self.assertEqual('true', self.ask(key='k').get('Idempotent-Replayed'))

    def test_G8_request_body_too_large(self):
        a = self.ask(key='k', body='x' * ((1 << 20) + 1))
        self.assertEqual((413, 'too-large'), (a.status, a.problem))
        c = self.client()
        chunk = '10000\r\n' + 'x' * 65536 + '\r\n'
        c.say('POST /echo HTTP/1.1\r\nHost: h\r\n' + AUTH + 'Idempotency-Key: '
              'k\r\nTransfer-Encoding: chunked\r\n\r\n' + chunk * 17)
        self.assertEqual(413, c.response().status)
        self.assertEqual([], self.up.heads)
        self.assertEqual(200, self.ask(key='k', body='x' * (1 << 20)).status)

    def test_G8_large_responses_pass_in_full_and_are_not_run_again(self):
        n = 3 << 20
        for path in (f'/big/{n}', f'/bigchunked/{n}'):
            a = self.ask(path, key=path)
            self.assertEqual((200, n), (a.status, len(a.body)))
            self.assertEqual('chunked' not in path,
                             a.get('Content-Length') == str(n))
            a = self.ask(path, key=path)
            self.assertEqual((200, b'', 'true', '0'), (
                a.status, a.body, a.get('Idempotent-Truncated'),
                a.get('Content-Length')))
            self.assertEqual(1, self.up.effects[path])
        self.assertEqual(2, self.gate.metric('truncated'))

    def test_G8_largest_response_that_is_kept(self):
        for _ in range(2):
            a = self.ask('/big/1048576', key='k')
            self.assertEqual((1 << 20, None),
                             (len(a.body), a.get('Idempotent-Truncated')))

    def test_G8_event_stream(self):
        self.up.gates['e'].set()
        self.assertEqual(b'one\n\ntwo\n\n', self.ask('/events/e', key='k').body)
        a = self.ask('/events/e', key='k')
        self.assertEqual((b'', 'true'), (a.body, a.get('Idempotent-Truncated')))

    def test_G9_sent_without_a_whole_response_is_unknown(self):
        whole = b'HTTP/1.1 200 OK\r\n'
        bad = {'/cut': '', '/half': '', '/raw/a': whole.decode() +
               'Content-Length: 1\r\nContent-Length: 1\r\n\r\nx',
               '/raw/b': whole.decode() + 'Content-Length: 1\r\n'
               'Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
               '/raw/c': 'nonsense\r\n\r\n', '/raw/d': whole.decode() +
               'Transfer-Encoding: chunked\r\n\r\n5\r\nhel'}
        for path, body in bad.items():
            a = self.ask(path, key=path, body=body)
            self.assertEqual((504, 'outcome-unknown'), (a.status, a.problem))
            a = self.ask(path, key=path, body=body)
            self.assertEqual((409, 'outcome-unknown'), (a.status, a.problem))
            self.assertEqual(1, self.up.effects[path], path)
        self.assertEqual(len(bad), self.gate.metric('unknown'))

    def test_G9_nothing_sent_frees_the_key(self):
        self.up.listener.shutdown(socket.SHUT_RDWR)
        self.up.listener.close()
        self.up.listener = socket.socket()  # nothing listens on the port now
        for _ in range(2):
            a = self.ask(key='k')
            self.assertEqual((502, 'upstream-unreachable'),
                             (a.status, a.problem))
        self.assertEqual(2, self.gate.metric('released'))

    def test_G9_killed_while_sending_leaves_unknown(self):
        c = self.client()
        self.gate.stop()
        self.gate = Gate(self.up.port, self.folder, '--db', 'w.db', '--lease',
                         '200ms', store='sqlite')
        c = self.client()
        c.say(request('/wait/x', key='k'))
        self.until(lambda: self.up.effects['k'], 'upstream has it')
        self.gate.stop(signal.SIGKILL)
        self.gate = Gate(self.up.port, self.folder, '--db', 'w.db',
                         store='sqlite')
        a = self.ask('/wait/x', key='k')
        self.assertEqual((409, 'outcome-unknown'), (a.status, a.problem))
        self.assertEqual(1, self.up.effects['k'])


class Leases(Case):
    args = ('--lease', '150ms', '--timeout', '900ms', '--wait', '0')

    def test_G9_a_lease_is_renewed_while_the_handler_runs(self):
        c = self.client()
        c.say(request('/wait/x', key='k'))
        self.until(lambda: self.up.effects['k'], 'upstream has it')
        time.sleep(0.5)
        self.assertEqual('in-flight', self.ask('/wait/x', key='k').problem)
        self.up.gates['x'].set()
        self.assertEqual(b'waited', c.response().body)
        self.assertEqual(0, self.gate.metric('lost'))

    def test_G9_silence_is_unknown(self):
        self.assertEqual(504, self.ask('/silent', key='k').status)
        self.assertEqual('outcome-unknown', self.ask('/silent', key='k').problem)


if __name__ == '__main__':
    main()
