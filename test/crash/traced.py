"""traced.py - runs the command under strace, which kills it at, or fails, the
n-th system call of a kind; and checks its database. For syscalls.py, errnos.py,
full.py and pause.py.

 1. Calls before the database's name first appears (the loader's) are left
    alone.
 2. Ids that the command printed as accepted are in `acked`; check() searches
    for them after every fault.
"""
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile

# Everything that uses files, locks and memory maps, and the exit.
CALLS = ('openat', 'close', 'read', 'pread64', 'write', 'pwrite64', 'fsync',
         'fdatasync', 'ftruncate', 'unlink', 'rename', 'mkdir', 'fcntl',
         'newfstatat', 'statx', 'statfs', 'mmap', 'munmap', 'fchown',
         'getrandom', 'exit_group')
LEASE = '600s'


def need(true, what):
    if not true:
        sys.exit(f'{os.path.basename(sys.argv[0])}: {what}')


class Store:
    def __init__(self, command):
        self.command = os.path.abspath(command)
        self.folder = tempfile.mkdtemp(prefix='waybill-traced-')
        self.db = os.path.join(self.folder, 'traced.db')
        self.trace = os.path.join(self.folder, 'trace')
        self.acked = set()  # ids
        self.gone = set()   # ids that were confirmed
        self.env = {**os.environ, 'WAYBILL_DB': self.db,
                    'WAYBILL_CONFIG': '', 'HOME': self.folder,
                    'XDG_CONFIG_HOME': self.folder}
        self.env.pop('WAYBILL_CONFIG')

    def remove(self):
        shutil.rmtree(self.folder)

    def run(self, args, stdin=b'', strace=(), limit=60):
        """(exit status or -signal, objects on stdout, text on stderr); the
        status is None after a timeout."""
        args = [*strace, self.command, '--json', *args]
        try:
            done = subprocess.run(args, env=self.env, cwd=self.folder,
                                  input=stdin, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, timeout=limit)
        except subprocess.TimeoutExpired:
            return None, [], ''
        lines = [json.loads(line) for line in done.stdout.splitlines(True)
                 if line.endswith(b'\n')]
        return done.returncode, lines, done.stderr.decode()

    def ok(self, args, stdin=b'', codes=(0,)):
        code, lines, text = self.run(args, stdin)
        need(code in codes, f'{args} ended with {code}: {text}')
        return lines

    def counts(self, args, stdin=b''):
        """{call: (number of the first of ours, of the last)}, without faults"""
        self.run(args, stdin, ['strace', '-f', '-qq', '-o', self.trace,
                               '-e', 'trace=' + ','.join(CALLS)])
        first, last = {}, {}
        ours = False
        with open(self.trace, encoding='utf-8', errors='replace') as f:
            for line in f:
                m = re.match(r'\d+ +(\w+)\(', line)
                if not m:
                    continue
                ours = ours or 'traced.db' in line
                last[m.group(1)] = last.get(m.group(1), 0) + 1
                if ours:
                    first.setdefault(m.group(1), last[m.group(1)])
        return {call: (first[call], last[call]) for call in first}

    def inject(self, call, what, args, stdin=b'', limit=60):
        """Run with a fault; (status, objects, stderr, how often it fired)"""
        code, lines, text = self.run(
            args, stdin, ['strace', '-f', '-qq', '-o', self.trace, '-e',
                          f'trace={call}', '-e', f'inject={call}:{what}'],
            limit)
        with open(self.trace, encoding='utf-8', errors='replace') as f:
            trace = f.read()
        fired = trace.count('(INJECTED)')
        if 'signal=KILL' in what and code == -9:
            fired = 1
        return code, lines, text, fired

    def query(self, sql, *args):
        db = sqlite3.connect(self.db, timeout=10)
        try:
            db.execute('PRAGMA wal_autocheckpoint=0')
            return db.execute(sql, args).fetchall()
        finally:
            db.close()

    def check(self):
        """Nothing acknowledged is lost, nothing confirmed is back."""
        rows = dict(self.query('SELECT id, status FROM waybill_outbox'))
        lost = self.acked - self.gone - set(rows)
        need(not lost, f'{len(lost)} lost: {sorted(lost)[:3]}')
        back = {i for i in self.gone if rows.get(i, 'delivered') != 'delivered'}
        need(not back, f'{len(back)} revived: {sorted(back)[:3]}')
        twice = self.query('SELECT key, count(*) FROM waybill_outbox WHERE key'
                           ' IS NOT NULL GROUP BY key HAVING count(*) > 1')
        need(not twice, f'doubled: {twice[:3]}')
        need(self.query('PRAGMA integrity_check') == [('ok',)], 'damaged')

    def note(self, lines):
        self.acked.update(line['id'] for line in lines
                          if line.get('duplicate') is False)


class Send:
    """Accept one message with a key."""
    name = 'enqueue'
    stdin = b''

    def __init__(self, store):
        self.store, self.n = store, 0
        store.note(store.ok(['send', 'traced.warm', '{}']))

    def prepare(self):
        self.n += 1
        return ['send', 'traced.kind', '{"n":%d}' % self.n, '--key',
                f'{self.name}:{self.n}']

    def after(self, args, code, lines):
        """The call can be repeated after any fault: there is one message."""
        self.store.note(lines)
        again = self.store.ok(args)[0]
        for line in lines:
            need(line['id'] == again['id'], f'two ids for {args}')
        self.store.acked.add(again['id'])
        rows = self.store.query('SELECT count(*) FROM waybill_outbox WHERE'
                                ' key = ?', args[-1])
        need(rows == [(1,)], f'{args[-1]} is there {rows[0][0]} times')


class Migrate(Send):
    """The first message, without a database file."""
    name = 'migrate'

    def prepare(self):
        for suffix in ('', '-wal', '-shm', '-lock', '-journal'):
            if os.path.exists(self.store.db + suffix):
                os.unlink(self.store.db + suffix)
        self.store.acked.clear()
        self.store.gone.clear()
        return super().prepare()


class Import(Send):
    """Many, long enough for a checkpoint while others have the file open."""
    name = 'checkpoint'
    lines = 1500

    def __init__(self, store):
        super().__init__(store)
        self.stdin = b''.join(b'{"line":%d,"fill":"%s"}\n' % (n, b'x' * 2000)
                              for n in range(self.lines))
        self.holder = sqlite3.connect(store.db)
        self.holder.execute('SELECT count(*) FROM waybill_outbox').fetchall()

    def prepare(self):
        self.n += 1
        return ['send', 'traced.import', '--lines', '--key-prefix',
                f'{self.name}:{self.n}']

    def after(self, args, code, lines):
        rows = self.store.query(
            'SELECT count(*), max(CAST(substr(key, length(?) + 2) AS INTEGER))'
            ' FROM waybill_outbox WHERE key GLOB ?', args[-1], args[-1] + ':*')
        need(rows[0][0] == (rows[0][1] or 0), f'an import with gaps: {rows}')
        counts = self.store.ok(args, self.stdin)[-1]
        need(counts['accepted'] + counts['duplicates'] == self.lines,
             f'{counts}')
        need(counts['duplicates'] == rows[0][0], f'{counts}, {rows}')
        self.store.ok(['discard', '--kind', 'traced.import', '--abandoned'])
        self.forget(args[-1])

    def forget(self, prefix):
        """Keep the file small."""
        db = sqlite3.connect(self.store.db, timeout=10)
        with db:
            db.execute('PRAGMA wal_autocheckpoint=0')
            db.execute('DELETE FROM waybill_outbox WHERE key GLOB ?',
                       (prefix + ':*',))
        db.close()


class Claim:
    """Lease three."""
    name = 'claim'
    stdin = b''

    def __init__(self, store):
        self.store = store
        for n in range(40):
            store.note(store.ok(['send', 'traced.claim', '{}']))

    def prepare(self):
        # As if never claimed: of those whose lease was reset one is leased at a
        # time, and after eight times they are abandoned.
        self.store.ok(['retry', '--abandoned'])
        self.store.ok(['reset-stale', '--older-than', '0s'])
        db = sqlite3.connect(self.store.db, timeout=10)
        with db:
            db.execute('PRAGMA wal_autocheckpoint=0')
            db.execute('UPDATE waybill_outbox SET attempts = 0, reason = NULL '
                       "WHERE kind = 'traced.claim'")
        db.close()
        return ['claim', '--kind', 'traced.claim', '--max', '3', '--lease',
                LEASE]

    def after(self, args, code, lines):
        taken = self.store.query('SELECT count(*) FROM waybill_outbox WHERE'
                                 " status = 'processing'")[0][0]
        need(taken in (0, 3), f'a claim of 3 leased {taken}')


class Confirm:
    """Finish one claim; a repeated call has the same result."""
    name = 'confirm'
    stdin = b''

    def __init__(self, store):
        self.store = store
        store.note(store.ok(['send', 'traced.warm', '{}']))

    def prepare(self):
        self.store.note(self.store.ok(['send', 'traced.finish', '{}']))
        self.claim = self.store.ok(['claim', '--kind', 'traced.finish',
                                    '--lease', LEASE])[0]
        return ['confirm', self.claim['id'], '--token', self.claim['token']]

    def after(self, args, code, lines):
        if lines:
            self.store.gone.add(self.claim['id'])
            self.store.check()
        self.store.ok(args)
        self.store.gone.add(self.claim['id'])


class Fail(Confirm):
    """Fail one claim: once reported it is stored, and it is counted once."""
    name = 'fail'

    def prepare(self):
        super().prepare()
        return ['fail', self.claim['id'], '--token', self.claim['token'],
                '--error', 'failed', '--reject']

    def after(self, args, code, lines):
        sql = 'SELECT status, attempts FROM waybill_outbox WHERE id = ?'
        row = self.store.query(sql, self.claim['id'])
        need(row == [('abandoned', 1)] or not lines and
             row == [('processing', 1)], f'failed: {row}, printed {lines}')
        self.store.ok(args, codes=(0, 1))
        row = self.store.query(sql, self.claim['id'])
        need(row == [('abandoned', 1)], f'failed again: {row}')
        self.store.ok(['discard', self.claim['id']])
        self.store.acked.discard(self.claim['id'])


JOBS = (Migrate, Send, Claim, Confirm, Fail, Import)
