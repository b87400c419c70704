#!/usr/bin/env python3
"""errnos.py COMMAND [POINTS [JOB...]] - system calls that fail (C5), once or
permanently.

Twelve calls x EIO ENOSPC EINTR EMFILE ENOLCK EAGAIN, at POINTS [all] of the
occurrences of a call (the first and the last always): at that one only, and at
it and all later ones; for each of migrate, enqueue, claim, confirm and fail.
Short writes are tested in test/fault, which can simulate them.

After each fault: the command ended by itself within 30 s with a documented
exit status and, if it failed, an error object; every acknowledged message is
stored; the same call works again. The fault must have fired.

A permanent EINTR is left out for the calls that SQLite and we repeat until
they are not interrupted: no kernel does that to a file.
"""
import json
import sys
import time

import traced

POINTS = int(sys.argv[2]) if len(sys.argv) > 2 else 0
CALLS = ('openat', 'read', 'pread64', 'write', 'pwrite64', 'fsync',
         'fdatasync', 'ftruncate', 'unlink', 'fcntl', 'mmap', 'statx')
ERRNOS = ('EIO', 'ENOSPC', 'EINTR', 'EMFILE', 'ENOLCK', 'EAGAIN')
REPEATED = ('openat', 'read', 'pread64', 'write', 'pwrite64', 'fcntl',
            'ftruncate')
EXITS = (0, 1, 3, 75)
JOBS = (traced.Migrate, traced.Send, traced.Claim, traced.Confirm, traced.Fail)


def points_of(first, last):
    every = list(range(first, last + 1))
    if POINTS == 0 or len(every) <= POINTS:
        return every
    step = (len(every) - 1) / max(1, POINTS - 1)
    return sorted({every[round(i * step)] for i in range(POINTS)})


def error_code(text):
    """The code of the error object on stderr; None where there is none."""
    try:
        return json.loads(text.strip().splitlines()[-1])['error']['code']
    except (ValueError, KeyError, IndexError):
        return None


def fail_at(store, job, call, errno, when):
    args = job.prepare()
    code, lines, text, fired = store.inject(
        call, f'error={errno}:when={when}', args, job.stdin, 30)
    where = f'{job.name}: {call} {errno} at {when}'
    traced.need(code is not None, f'{where}: hung')
    traced.need(code in EXITS, f'{where}: ended with {code}: {text}')
    # A write that fails may be the one of the error object itself.
    traced.need(code in (0, 3) or error_code(text) or call == 'write',
                f'{where}: ended with {code} and said: {text!r}')
    job.after(args, code, lines)
    store.check()
    return fired, code


def fail_all(job_class):
    store = traced.Store(sys.argv[1])
    job = job_class(store)
    calls = store.counts(job.prepare())
    points, fired, failed = 0, {}, 0
    for call in CALLS:
        if call not in calls:
            continue
        for errno in ERRNOS:
            for n in points_of(*calls[call]):
                for when in (str(n), f'{n}+'):
                    if when.endswith('+') and errno == 'EINTR' \
                            and call in REPEATED:
                        continue
                    hits, code = fail_at(store, job, call, errno, when)
                    points += 1
                    failed += code not in (0, 3)
                    fired[call] = fired.get(call, 0) + hits
    for call in fired:
        traced.need(fired[call] > 0, f'{job.name}: {call} never failed')
    print(f'  {job.name}: {points} points at {len(fired)} calls, '
          f'{sum(fired.values())} faults, {failed} calls failed, 0 lost',
          flush=True)
    store.remove()
    return points, sum(fired.values())


def main():
    began = time.monotonic()
    done = [fail_all(job) for job in JOBS
            if not sys.argv[3:] or job.name in sys.argv[3:]]
    print(f'errnos: {sum(p for p, _ in done)} points, '
          f'{sum(f for _, f in done)} faults, 0 lost, '
          f'{time.monotonic() - began:.0f} s')


main()
