"""rows.py - the rows: what is measured, and the goals of the figures.

A subject is (name, durability, measure): measure(lab) gives its figures, or
None where it is not installed. A goal is (words, over, under, sense, bound):
over and under are (subject, figure); under may be None."""
import os
import statistics
import subprocess
import time

import gateway
import servers

FULL = 'FULL'
SOFT = 'claim NORMAL, confirm FULL'
AOF = 'appendfsync always'
PG = 'synchronous_commit on'


def program(name, subject, **numbers):
    """A subject of a program of ours, in a folder of its own."""
    return lambda lab: lab.program(name, subject, lab.fresh(), **numbers)


def kept(folder, subject, **numbers):
    """The same in a folder that stays from round to round."""
    return lambda lab: lab.program('claim', subject, lab.kept(folder),
                                   **numbers)


def scaled(name, subject, **numbers):
    """With n, ms: those of a full run; a quick one does a tenth of them."""
    def measure(lab):
        return lab.program(name, subject, lab.fresh(), **lab.scale(numbers))
    return measure


def peer(server, subject, **numbers):
    def measure(lab):
        found = lab.server(server)
        return found and lab.program('peers', subject, lab.fresh(),
                                     port=found.port, **numbers)
    return measure


def node(subject, **numbers):
    def measure(lab):
        if subject.startswith('bullmq'):
            found = lab.server('redis')
            if not found:
                return None
            numbers['redis'] = found.port
        return lab.node(subject, port=lab.receiver(), **numbers)
    return measure


def lru(**numbers):
    return lambda lab: lab.node('lru', script='lru.mjs', **numbers)


def redis_add(clients, n):
    def measure(lab):
        found = lab.server('redis')
        if not found:
            return None
        out = subprocess.run(
            ['redis-benchmark', '-p', str(found.port), '-c', str(clients),
             '-n', str(n), '--csv', 'xadd', f'e{clients}', '*', 'p',
             'x' * 300],
            stdout=subprocess.PIPE, text=True, check=True).stdout
        return {'per_s': float(out.splitlines()[1].split(',')[1].strip('"'))}
    return measure


PG_ADD = f"INSERT INTO queue(kind, payload) VALUES('a', '{'x' * 300}');\n"
PG_TAKE = '''UPDATE queue SET status = 'taken', owner = :client_id
 FROM (SELECT id FROM queue WHERE status = 'pending' AND due <= now()
 ORDER BY due, id LIMIT {n} FOR UPDATE SKIP LOCKED) t
 WHERE queue.id = t.id RETURNING queue.id, payload;
'''
PG_GONE = "DELETE FROM queue WHERE status = 'taken' AND owner = :client_id"
PG_BATCH = f'WITH gone AS ({PG_GONE})\n{PG_TAKE.format(n=64)}'
PG_ONE = ('BEGIN;\nSET LOCAL synchronous_commit = off;\n'
          f'{PG_TAKE.format(n=1)}COMMIT;\n{PG_GONE};\n')


def postgres(script, clients=1, fill=0, each=1):
    def measure(lab):
        found = lab.server('postgres')
        if not found:
            return None
        servers.sql(found, 'TRUNCATE queue; INSERT INTO queue(kind, payload)'
                    f" SELECT 'a', repeat('x', 300) FROM"
                    f' generate_series(1, {fill}); ANALYZE queue; CHECKPOINT')
        return {'per_s': each * servers.pgbench(found, script, clients, 1)}
    return measure


# ---- the command as a process ------------------------------------------

def timed(command, **how):
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **how)
    return time.monotonic() - start


def lines(bare):
    """File to commit: 100,000 lines of 300 bytes."""
    def measure(lab):
        n, folder = 100000, lab.fresh()
        path = os.path.join(lab.work, 'lines')
        if not os.path.exists(path):
            with open(path, 'w', encoding='utf-8') as f:
                f.write(('{"text":"' + 'x' * 289 + '"}\n') * n)
        command = [lab.path('enqueue'), 'bare-lines', folder] if bare else \
            [lab.command, '--db', os.path.join(folder, 'db'), 'send',
             'order.paid', '--lines', '--quiet']
        with open(path, encoding='utf-8') as f:
            return {'per_s': n / timed(command, stdin=f)}
    return measure


def send(bare):
    """One message, the whole process; the median of 15."""
    def measure(lab):
        db = os.path.join(lab.fresh(), 'db')
        command = [lab.command, '--db', db, '--quiet', 'send', 'order.paid',
                   '{"a":1}']
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        if bare:
            command = ['sqlite3', db, 'INSERT INTO waybill_outbox(id, kind,'
                       " payload) SELECT lower(printf('%s-0000-7000-8000-"
                       "000000000000', hex(randomblob(4)))), 'order.paid',"
                       " '{\"a\":1}'"]
        return {'ms': 1000 * statistics.median(
            timed(command) for _ in range(15))}
    return measure


# ---- the rows --------------------------------------------------------------

def rate(name):
    return (name, 'per_s')


def of_cpu(name):
    """A rate by CPU time, because other processes use the CPU as well."""
    return (name, 'per_cpu_s')


OURS = rate('ours')

ROWS = [
    {'id': 'E1', 'what': 'enqueue, one thread, one a call',
     'subjects': [
         ('ours', FULL, program('enqueue', 'one')),
         ('bare SQLite', FULL, program('enqueue', 'bare-one')),
         ('plainjob', FULL, node('plainjob-one')),
         ('Redis', AOF, redis_add(1, 2000)),
         ('PostgreSQL', PG, postgres(PG_ADD)),
         ('beanstalkd', '-f0', peer('beanstalkd', 'beanstalk-put'))],
     'goals': [
         ('rate', OURS, rate('bare SQLite'), '>=', 0.9),
         ('rate', OURS, rate('plainjob'), '>=', 1.0),
         ('bytes a message', ('ours', 'bytes'), ('bare SQLite', 'bytes'),
          '<=', 1.1),
         ('log a commit', ('ours', 'log_bytes'),
          ('bare SQLite', 'log_bytes'), '<=', 1.1),
         ('log a commit, bytes: three b-trees of 4.8 KB',
          ('ours', 'log_bytes'), None, '<=', 3 * 4800),
         ('rate', OURS, rate('Redis'), 'info', 0),
         ('rate', OURS, rate('PostgreSQL'), 'info', 0),
         ('rate', OURS, rate('beanstalkd'), 'info', 0)]},
    {'id': 'E2', 'what': 'enqueue, 64 threads, each durable on return',
     'subjects': [
         ('ours', FULL, program('enqueue', 'threads', threads=64)),
         ('ideal group commit', 'fdatasync',
          program('limit', 'group', threads=64)),
         ('Redis', AOF, redis_add(64, 20000)),
         ('PostgreSQL', PG, postgres(PG_ADD, clients=64))],
     'goals': [
         ('rate', OURS, rate('ideal group commit'), '>=', 0.6),
         ('rate', OURS, rate('Redis'), '>=', 1.4),
         ('rate', OURS, rate('PostgreSQL'), '>=', 3.0)]},
    {'id': 'E2', 'what': 'enqueue, 4 threads, and 1 that waits',
     'subjects': [
         ('ours', FULL, program('enqueue', 'threads', threads=4)),
         ('ours, one thread', FULL, program('enqueue', 'threads', threads=1)),
         ('ours, E1', FULL, program('enqueue', 'one')),
         ('ideal group commit', 'fdatasync',
          program('limit', 'group', threads=4)),
         ('Redis', AOF, redis_add(4, 4000))],
     'goals': [
         ('rate', OURS, rate('Redis'), '>=', 1.15),
         ('rate', OURS, rate('ideal group commit'), 'info', 0),
         ('rate', rate('ours, one thread'), rate('ours, E1'), '>=', 0.97)]},
    {'id': 'E3', 'what': 'enqueue in batches of 1,000',
     'subjects': [
         ('ours', FULL, program('enqueue', 'many')),
         ('bare SQLite', FULL, program('enqueue', 'bare-many')),
         ('send --lines', FULL, lines(False)),
         ('bare lines', FULL, lines(True))],
     'goals': [
         ('rate', OURS, rate('bare SQLite'), '>=', 0.8),
         ('file to commit', rate('send --lines'), rate('bare lines'),
          '>=', 0.8)]},
    {'id': 'E4', 'what': "enqueue inside the caller's transaction",
     'subjects': [
         ('ours', "the caller's", program('enqueue', 'tx')),
         ('bare SQLite', "the caller's", program('enqueue', 'bare-tx'))],
     'goals': [
         ('us of CPU on top', ('ours', 'us'), ('bare SQLite', 'us'), 'minus', 2.0)]},
    {'id': 'E5', 'what': 'processes in a loop, 10 s',
     'subjects': [
         ('one', FULL, scaled('enqueue', 'procs', procs=1, ms=10000)),
         ('two', FULL, scaled('enqueue', 'procs', procs=2, ms=10000)),
         ('four', FULL, scaled('enqueue', 'procs', procs=4, ms=10000))],
     'goals': [
         ('slowest of fastest, two', ('two', 'fair'), None, '>=', 0.8),
         ('slowest of fastest, four', ('four', 'fair'), None, '>=', 0.8),
         ('worst wait ms, two', ('two', 'worst_ms'), None, '<=', 50),
         ('worst wait ms, four', ('four', 'worst_ms'), None, '<=', 50),
         ('total, two', rate('two'), rate('one'), '>=', 0.85),
         ('total, four', rate('four'), rate('one'), '>=', 0.85)]},
    {'id': 'E6', 'what': 'waybill send as a process',
     'subjects': [
         ('ours', FULL, send(False)),
         ('sqlite3 shell', FULL, send(True))],
     'goals': [
         ('wall', ('ours', 'ms'), ('sqlite3 shell', 'ms'), '<=', 1.5)]},
    {'id': 'C1', 'what': 'claim + confirm, batches of 64, coalesced',
     'subjects': [
         ('ours', FULL, program('claim', 'batch')),
         ('bare SQLite', FULL, program('claim', 'bare-batch')),
         ('Redis stream', AOF, peer('redis', 'redis-batch')),
         ('PostgreSQL', PG,
          postgres(PG_BATCH, fill=150000, each=64))],
     'goals': [
         ('rate', OURS, rate('bare SQLite'), '>=', 0.8),
         ('rate', OURS, rate('Redis stream'), '>=', 1.3),
         ('rate', OURS, rate('PostgreSQL'), '>=', 1.3)]},
    {'id': 'C2', 'what': 'the same among 1,000,000 waiting, abandoned, '
     'delayed and kept keys each',
     'subjects': [
         ('at 1,000,000', FULL, kept('heap', 'batch', heap=1, n='heap')),
         ('at 1,000', FULL, program('claim', 'batch', heap=1, n=1000)),
         ('after kill -9', FULL, kept('heap', 'kill', heap=1, n='heap'))],
     'goals': [
         ('rate', rate('at 1,000,000'), rate('at 1,000'), '>=', 0.8),
         ('first claim ms', ('after kill -9', 'first_ms'), None, '<=', 50)]},
    {'id': 'C3', 'what': 'claim and confirm one by one',
     'subjects': [
         ('ours', SOFT, program('claim', 'one', n=20000)),
         ('bare SQLite', 'both FULL', program('claim', 'bare-one', n=20000)),
         ('plainjob', FULL, node('plainjob-claim')),
         ('beanstalkd', '-f0', peer('beanstalkd', 'beanstalk-one')),
         ('PostgreSQL', 'claim off, confirm on',
          postgres(PG_ONE, fill=20000, each=0.5))],
     'goals': [
         ('rate', OURS, rate('cal'), '>=', 0.75),
         ('rate', OURS, rate('bare SQLite'), 'info', 0),
         ('rate', OURS, rate('plainjob'), '>=', 1.0),
         ('rate', OURS, rate('beanstalkd'), '>=', 1.0),
         ('rate', OURS, rate('PostgreSQL'), '>=', 1.0)]},
    {'id': 'D1', 'what': 'drain to a local 204, 64 in flight',
     'subjects': [
         ('ours', FULL, lambda lab: lab.program(
             'drain', 'relay', lab.fresh(), port=lab.receiver())),
         ('libcurl alone', 'none', lambda lab: lab.program(
             'drain', 'curl', lab.fresh(), port=lab.receiver())),
         ('BullMQ', AOF, node('bullmq-drain')),
         ('plainjob', FULL, node('plainjob-drain'))],
     'goals': [
         ('rate', OURS, rate('libcurl alone'), '>=', 0.6),
         ('rate', OURS, rate('BullMQ'), '>=', 6.0),
         ('rate', OURS, rate('plainjob'), '>=', 15.0)]},
    {'id': 'D2', 'what': 'drain in batches of 64',
     'subjects': [
         ('ours', FULL, lambda lab: lab.program(
             'drain', 'relay', lab.fresh(), port=lab.receiver(), batch=64,
             n=50000)),
         ('ours, C1', FULL, program('claim', 'batch'))],
     'goals': [('rate', OURS, rate('ours, C1'), '>=', 0.7)]},
    {'id': 'D3', 'what': 'drain of 1,000,000 messages', 'once': True,
     'subjects': [
         ('ours', FULL, lambda lab: lab.program(
             'drain', 'memory', lab.fresh(), port=lab.receiver(),
             **lab.scale({'n': 1000000})))],
     'goals': [
         ('peak memory, MiB', ('ours', 'rss_mib'), None, '<=', 64),
         ('peak of that at a tenth', ('ours', 'rss_mib'),
          ('ours', 'rss_tenth_mib'), '<=', 1.1),
         ('log, MiB', ('ours', 'log_mib'), None, '<=', 16)]},
    {'id': 'D4', 'what': 'worker idle: commit in another process to request',
     'subjects': [
         ('ours', FULL, program('wake', 'ours')),
         ('ideal', 'fdatasync', program('wake', 'ideal')),
         ('idle', '-', program('wake', 'idle'))],
     'goals': [
         ('p50', ('ours', 'p50_us'), ('ideal', 'p50_us'), '<=', 1.25),
         ('p99', ('ours', 'p99_us'), ('ideal', 'p99_us'), '<=', 2.0),
         ('idle CPU, %', ('idle', 'percent'), None, '<=', 0.1)]},
    *[{'id': 'I1', 'what': f'memory store, {n:,} entries, 90 % hits',
       'subjects': [
           ('ours', 'none', program('idem', 'lookup', n=n)),
           ('two threads', 'none', program('idem', 'lookup', n=n, threads=2)),
           ('lru-cache', 'none', lru(n=n)),
           ('lru-cache, keys from bytes', 'none', lru(n=n, bytes=1))],
       'goals': [
           ('rate', of_cpu('ours'), of_cpu('lru-cache'), '>=', bound),
           ('rate', of_cpu('ours'), of_cpu('lru-cache, keys from bytes'),
            'info', 0),
           ('two threads, wall', rate('two threads'), OURS,
            '>=' if n == 1000000 else 'info', 0.6),
           ('bytes an entry beyond key and body', ('ours', 'bytes'), None,
            '<=', 80)]}
      for n, bound in ((10000, 2.5), (1000000, 1.7))],
    {'id': 'I2', 'what': 'memory begin + complete of a new key, 10,000 kept',
     'subjects': [('ours', 'none', program('idem', 'new'))],
     'goals': [
         ('a second of CPU', of_cpu('ours'), None, '>=', 2000000)]},
    {'id': 'I3', 'what': 'SQLite store: replay; first claim and complete of '
     '64 threads',
     'subjects': [
         ('replay', FULL, program('idem', 'replay')),
         ('bare SELECT', FULL, program('idem', 'bare-select')),
         ('first', SOFT.replace('confirm', 'complete'),
          program('idem', 'first')),
         ('first, sending', 'both FULL', program('idem', 'first', sending=1)),
         ('ideal group commit', 'fdatasync',
          program('limit', 'group', threads=64))],
     'goals': [
         ('replay', of_cpu('replay'), of_cpu('bare SELECT'), '>=', 0.7),
         ('first', rate('first'), rate('ideal group commit'), '>=', 0.3),
         ('first', rate('first, sending'), rate('ideal group commit'),
          'info', 0)]},
    {'id': 'G1', 'what': 'gateway, wrk, 64 connections, POST of 300 bytes',
     'subjects': [
         ('keyless', 'none', gateway.rate('memory', 'none')),
         ('nginx', 'none', gateway.rate('proxy', 'none')),
         ('fresh, memory', 'none', gateway.rate('memory', 'fresh')),
         ('fresh, SQLite', 'claim and record FULL',
          gateway.rate('file', 'fresh')),
         ('nginx, fresh keys', 'none', gateway.rate('proxy', 'fresh')),
         ('replay, memory', 'none', gateway.rate('memory', 'one')),
         ('nginx 204', 'none', gateway.rate('direct', 'one'))],
     'goals': [
         ('keyless', rate('keyless'), rate('nginx'), '>=', 0.8),
         ('fresh', rate('fresh, memory'), rate('nginx, fresh keys'),
          '>=', 0.7),
         ('fresh', rate('fresh, SQLite'), rate('nginx, fresh keys'),
          '>=', 0.4),
         ('replay', rate('replay, memory'), rate('nginx 204'), '>=', 0.8),
         *[(f'{what}, a second of CPU', of_cpu(ours), of_cpu(nginx),
            'info', 0) for what, ours, nginx in (
                ('keyless', 'keyless', 'nginx'),
                ('fresh', 'fresh, memory', 'nginx, fresh keys'),
                ('fresh', 'fresh, SQLite', 'nginx, fresh keys'),
                ('replay', 'replay, memory', 'nginx 204'))]]},
    {'id': 'G2', 'what': 'latency added, one connection, all on one CPU',
     'subjects': [
         ('direct', 'none', gateway.latency('direct', 'none')),
         ('nginx', 'none', gateway.latency('proxy', 'none')),
         ('keyless', 'none', gateway.latency('memory', 'none')),
         ('fresh direct', 'none', gateway.latency('direct', 'fresh')),
         ('fresh nginx', 'none', gateway.latency('proxy', 'fresh')),
         ('fresh, memory', 'none', gateway.latency('memory', 'fresh'))],
     'goals': [
         ('added p50, keyless', ('keyless', 'added_us'),
          ('nginx', 'added_us'), '<=', 1.5),
         ('added p50, fresh', ('fresh, memory', 'added_us'),
          ('fresh nginx', 'added_us'), '<=', 1.5)]},
]
