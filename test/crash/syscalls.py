#!/usr/bin/env python3
"""syscalls.py COMMAND [EVERY] - SIGKILL at every system call (C4).

Each of enqueue, claim, confirm, fail, migrate (the first call on no file) and
checkpoint (an import that is long enough for one) is killed at the first,
second, ... call of each kind until the kill no longer fires; of the import's
thousands, a sample. With EVERY, only each EVERY-th call (the last always).

After each kill: the same call works again and results in one message, no
acknowledged message is lost, no confirmed one is back, and the database is not
damaged.
"""
import sys
import time

import traced

EVERY = int(sys.argv[2]) if len(sys.argv) > 2 else 1
SAMPLE = 40  # of the import's calls of one kind


def points(first, last, every):
    return sorted({*range(first, last + 1, every), last})


def kill_all(job_class):
    store = traced.Store(sys.argv[1])
    job = job_class(store)
    fired = 0
    calls = store.counts(job.prepare(), job.stdin)
    for call, (first, last) in sorted(calls.items()):
        every = EVERY
        if job_class is traced.Import:
            every = max(1, (last - first) // max(1, SAMPLE // EVERY))
        for n in points(first, last, every):
            args = job.prepare()
            code, lines, _, hit = store.inject(
                call, f'signal=KILL:when={n}', args, job.stdin)
            traced.need(code == -9 or n >= last - 3 or call in ('fcntl', 'mmap')
                        or job_class is traced.Import,
                        f'{job.name}: kill at {call} {n} of {last} did not '
                        f'fire: {code}')
            fired += hit
            job.after(args, code, lines)
            store.check()
    traced.need(fired > 0, f'{job.name}: no kill fired')
    print(f'  {job.name}: {fired} kills at {len(calls)} kinds of call, '
          f'{len(store.acked)} acknowledged, 0 lost', flush=True)
    store.remove()
    return fired


def main():
    began = time.monotonic()
    fired = sum(kill_all(job) for job in traced.JOBS)
    print(f'syscalls: {fired} kills, 0 lost, 0 revived, '
          f'{time.monotonic() - began:.0f} s')


main()
