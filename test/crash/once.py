#!/usr/bin/env python3
"""once.py COMMAND CLOCK [SECONDS] [SEED] [--sabotage NAME | --all]

Callers that run a command under a key until they know how it ended. Each
command has one effect, at its beginning or, by a child in the background, at
its end. While `waybill once` starts, runs or records, one fault happens to it:
it is killed (alone, or with its process group), gets TERM, its group is stopped
for longer than the lease while another caller tries, the store is locked or
full for less or for more than the lease. Every call sees another wall clock
(CLOCK: stepped_clock.so). At the end, for each key:

 1. a call ended with 0: the effect has happened exactly once;
 2. else every call says that the outcome is unknown (69), and the effect has
    happened at most once;
 3. a fault that left the run alive, and was over before the lease, loses no
    outcome: 1.

A sabotage is a setting that gives a guarantee up. It must be caught.
"""
import argparse
import collections
import concurrent.futures
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

LEASE = 0.6
FAULTS = ('none', 'kill', 'kill group', 'term', 'stop', 'lock', 'long lock',
          'full', 'long full')
HARMLESS = ('none', 'stop', 'lock', 'full')
MOMENTS = ('start', 'run', 'end')
# The option that gives a guarantee up, and the faults that show it.
SABOTAGES = {'after-crash again': ('--after-crash', 'again', ('kill',)),
             'free on signal': ('--on-signal', 'free', ('term',)),
             'release': ('--release', '0', ('none',))}
EARLY = 'echo "$0" >>effects; touch "$0.up"; ' \
        'while [ ! -e "$0.go" ]; do sleep 0.02; done'
LATE = '(while [ ! -e "$0.go" ]; do sleep 0.02; done; echo "$0" >>effects) & ' \
       'touch "$0.up"; wait $!'
STEPS = (0, 3600, -3600, 100000, -100000, 10 ** 9)


class Run:
    def __init__(self, args, sabotage, seed):
        self.args, self.seed = args, seed
        self.rng = random.Random(seed)
        self.folder = tempfile.mkdtemp(prefix='waybill-once-')
        self.options = ['--lease', f'{int(LEASE * 1000)}ms',
                        '--on-signal', 'hold']
        *options, self.possible = SABOTAGES.get(sabotage, (FAULTS,))
        self.options += options
        self.lock = threading.Lock()
        self.ends = {}  # key: (fault, moment, exit statuses)
        self.faults = collections.Counter()

    def store(self, key):
        """Each caller has its own: one that is locked holds up no other."""
        return self.path(key.split('-')[0] + '.db')

    def start(self, key, work, step, wait='0s'):
        env = {**os.environ, 'WAYBILL_DB': self.store(key),
               'LD_PRELOAD': self.args.clock, 'STEP': str(step)}
        return subprocess.Popen(
            [self.args.command, 'once', '--key', key, '--wait', wait,
             *self.options, '--', 'sh', '-c', work, key],
            cwd=self.folder, env=env,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def wait_until_up(self, key, process):
        while not os.path.exists(self.path(key + '.up')):
            if process.poll() is not None:
                return
            time.sleep(0.01)

    def lock_store(self, key, seconds):
        db = sqlite3.connect(self.store(key), isolation_level=None, timeout=30)
        db.execute('BEGIN IMMEDIATE')
        time.sleep(seconds)
        db.close()

    def fill_store(self, pid, seconds):
        """As a full disk, for this process alone."""
        resource = ['prlimit', '--pid', str(pid)]
        subprocess.run(resource + ['--fsize=1:unlimited'], check=False,
                       stderr=subprocess.DEVNULL)
        time.sleep(seconds)
        subprocess.run(resource + ['--fsize=unlimited:unlimited'], check=False,
                       stderr=subprocess.DEVNULL)

    def strike(self, fault, process, key, work, go, rng):
        """`go` lets the command end; it may be called late."""
        if fault == 'kill':
            process.kill()
        elif fault == 'kill group':
            os.killpg(process.pid, signal.SIGKILL)
        elif fault == 'term':
            process.terminate()
        elif fault == 'stop':
            os.killpg(process.pid, signal.SIGSTOP)
            other = self.start(key, work, rng.choice(STEPS))
            time.sleep(LEASE * 1.5)
            go()
            other.communicate()
            os.killpg(process.pid, signal.SIGCONT)
        elif fault in ('lock', 'long lock'):
            timer = threading.Timer(0.05, go)
            timer.start()
            self.lock_store(key, LEASE * (0.4 if fault == 'lock' else 2.5))
            timer.join()
        elif fault in ('full', 'long full'):
            timer = threading.Timer(0.05, go)
            timer.start()
            self.fill_store(process.pid,
                            LEASE * (0.4 if fault == 'full' else 2.5))
            timer.join()

    def one_key(self, key, rng):
        fault, moment = rng.choice(self.possible), rng.choice(MOMENTS)
        work = rng.choice((EARLY, LATE))

        def go():
            with open(self.path(key + '.go'), 'w', encoding='ascii'):
                pass
        process = self.start(key, work, rng.choice(STEPS))
        if moment == 'start' and 'full' not in fault:  # not for its command
            time.sleep(rng.random() * 0.02)
        else:
            self.wait_until_up(key, process)
        if moment == 'end':
            go()
            time.sleep(rng.random() * 0.02)
        if process.poll() is None:
            self.strike(fault, process, key, work, go, rng)
        go()
        process.communicate()
        ends = [process.returncode]
        while len(ends) < 100 and (len(ends) < 2 or ends[-1] not in (0, 69)):
            again = self.start(key, work, rng.choice(STEPS), '2s')
            again.communicate()
            ends.append(again.returncode)
        with self.lock:
            self.faults[fault] += 1
            self.ends[key] = fault, moment, ends

    def caller(self, n, until, seed):
        rng = random.Random(seed)
        count = 0
        while time.monotonic() < until:
            self.one_key(f'k{n}-{count}', rng)
            count += 1

    def effects(self):
        """When no command works any more."""
        before, after = None, b''
        while before != after:
            before = after
            time.sleep(0.3)
            if os.path.exists(self.path('effects')):
                with open(self.path('effects'), 'rb') as f:
                    after = f.read()
        return collections.Counter(after.decode().split())

    def check(self):
        bad = collections.defaultdict(list)
        effects = self.effects()
        for key, (fault, moment, ends) in self.ends.items():
            what = f'{key}: {fault} at {moment}: {ends}, {effects[key]} effects'
            if effects[key] > 1:
                bad['doubled'].append(what)
            elif ends[-1] == 0 and effects[key] == 0:
                bad['lost'].append(what)
            elif ends[-1] not in (0, 69):
                bad['not said'].append(what)
            elif ends[-1] != 0 and fault in HARMLESS:
                bad['forgotten'].append(what)
        return bad

    def run(self, seconds):
        for n in range(self.args.callers):  # not while the clock is stepped
            subprocess.run([self.args.command, '--db', self.store(f'k{n}'),
                            '--quiet', 'once', '--key', 'none', '--', 'true'],
                           check=True)
        until = time.monotonic() + seconds
        callers = [threading.Thread(target=self.caller, args=(
            n, until, self.rng.random())) for n in range(self.args.callers)]
        for c in callers:
            c.start()
        for c in callers:
            c.join()
        return self.check()


def sound(args):
    run = Run(args, None, args.seed)
    bad = run.run(args.seconds)
    known = sum(ends[-1] == 0 for _, _, ends in run.ends.values())
    print(f'once: {len(run.ends)} keys, '
          f'{sum(n for f, n in run.faults.items() if f != "none")} faults, '
          f'{known} recorded, {len(run.ends) - known} unknown; '
          f'lost {len(bad["lost"])}, doubled {len(bad["doubled"])}', flush=True)
    for name, keys in bad.items():
        for key in keys[:5]:
            print(f'  {name}: {key} (seed {args.seed}, folder {run.folder})')
    if not any(bad.values()):
        shutil.rmtree(run.folder)
    return any(bad.values())


def is_caught(args, name):
    for attempt in range(3):  # a short run may miss it
        run = Run(args, name, args.seed)
        bad = run.run(0.5 + attempt)
        shutil.rmtree(run.folder)
        if bad['doubled']:
            print(f'  {name}: caught: {len(bad["doubled"])} doubled', flush=True)
            return True
    print(f'  {name}: NOT CAUGHT', flush=True)
    return False


def main():
    args = argparse.ArgumentParser()
    args.add_argument('command')
    args.add_argument('clock')
    args.add_argument('seconds', type=float, nargs='?', default=20)
    args.add_argument('seed', type=int, nargs='?', default=1)
    args.add_argument('--callers', type=int, default=16)
    args.add_argument('--sabotage', choices=SABOTAGES)
    args.add_argument('--all', action='store_true')
    args = args.parse_args()
    args.command = os.path.abspath(args.command)
    args.clock = os.path.abspath(args.clock)
    if args.sabotage:
        sys.exit(not is_caught(args, args.sabotage))
    failed = sound(args)
    if args.all and not failed:  # else nothing that is caught counts
        with concurrent.futures.ThreadPoolExecutor() as pool:
            caught = sum(pool.map(lambda name: is_caught(args, name),
                                  SABOTAGES))
        print(f'once: {caught} of {len(SABOTAGES)} saboteurs caught')
        failed = failed or caught < len(SABOTAGES)
    sys.exit(bool(failed))


main()
