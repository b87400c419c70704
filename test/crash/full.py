#!/usr/bin/env python3
"""full.py COMMAND - a full disk, a file-size limit, a read-only disk (C7).

As root: a tmpfs of one megabyte is filled, enlarged, and mounted read-only. As
any user: RLIMIT_FSIZE. A message that does not fit is refused with an error
(exit 75, or 1 on a read-only disk); nothing accepted is lost; the status can be
read; and once there is space again, the next call works.
"""
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile

import traced

FILL = '"%s"' % ('x' * 8000)
MOST = 500


def send(store, n, limit=None):
    """(exit status, error code or None)"""
    def shrink():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    done = subprocess.run(
        [store.command, '--json', 'send', 'full', FILL, '--key', f'full:{n}'],
        env=store.env, cwd=store.folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60,
        preexec_fn=shrink if limit else None)
    traced.need(done.returncode >= 0,
                f'died of {-done.returncode} {signal.strsignal(-done.returncode)}'
                if done.returncode < 0 else '')
    if done.returncode == 0:
        store.note([json.loads(done.stdout)])
        return 0, None
    return done.returncode, json.loads(done.stderr)['error']['code']


def fill(store, limit=None):
    """Send until it does not fit; (how many fitted, exit status, code)"""
    for n in range(MOST):
        code, error = send(store, n, limit)
        if code != 0:
            return n, code, error
    traced.need(False, f'{MOST} messages fitted')
    return None


def refuse_and_resume(store, name, free_space, limit=None):
    store.ok(['send', 'warm', '{}'])
    fitted, code, error = fill(store, limit)
    traced.need((code, error) == (75, 'full'), f'{name}: {code} {error}')
    again = [send(store, fitted, limit) for _ in range(5)]
    traced.need(again == [(75, 'full')] * 5, f'{name}: again: {again}')
    store.check()
    status = store.ok(['status'])[0]
    traced.need(status['pending'] >= fitted, f'{name}: {status}')
    free_space()
    traced.need(send(store, fitted) == (0, None), f'{name}: no resume')
    store.check()
    print(f'  {name}: {fitted} fitted, 6 refused, resumed')


def mount(*args):
    return subprocess.run(['mount', *args], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE).returncode == 0


def read_only(store, folder):
    """A new message is refused; the existing ones are there afterwards."""
    rows = store.query('SELECT count(*) FROM waybill_outbox')
    traced.need(mount('-o', 'remount,ro', folder), 'cannot remount')
    code, error = send(store, MOST)
    traced.need((code, error) == (1, 'refused'), f'read-only: {code} {error}')
    traced.need(mount('-o', 'remount,rw', folder), 'cannot remount')
    traced.need(store.query('SELECT count(*) FROM waybill_outbox') == rows,
                'read-only: rows changed')
    traced.need(send(store, MOST) == (0, None), 'read-only: no resume')
    store.check()
    print(f'  read-only: refused, resumed')


def on_tmpfs(command):
    """False without the right to mount."""
    folder = tempfile.mkdtemp(prefix='waybill-full-')
    if os.geteuid() != 0 or not mount('-t', 'tmpfs', '-o', 'size=1m', 'tmpfs',
                                      folder):
        os.rmdir(folder)
        return False
    store = traced.Store(command)
    try:
        store.db = store.env['WAYBILL_DB'] = os.path.join(folder, 'full.db')
        refuse_and_resume(
            store, 'full disk',
            lambda: mount('-o', 'remount,size=4m', folder))
        read_only(store, folder)
    finally:
        subprocess.run(['umount', folder], check=True)
        os.rmdir(folder)
        store.remove()
    return True


def main():
    store = traced.Store(sys.argv[1])
    refuse_and_resume(store, 'file-size limit', lambda: None, 200000)
    store.remove()
    root = on_tmpfs(sys.argv[1])
    print('full: refused, nothing lost, resumed'
          + ('' if root else '; no right to mount a full disk'))


if shutil.which('mount') is None:
    sys.exit('full: no mount(8)')
main()
