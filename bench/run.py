#!/usr/bin/env python3
"""run.py BUILD [ROW...] - measure the rows of rows.py; print one table.

Every round runs cal (overwrite 4 KiB, fdatasync) and then each subject of the
row. A ratio is taken within its round; shown are the median of the rounds and
the spread from the lowest to the highest. A round whose cal is below half of
the row's best is dropped, and counted. A subject that is not installed is
skipped, one that fails is reported as failed; the others continue. QUICK=1:
three rounds instead of nine. A full run of all rows writes RESULTS.md beside
this file and keeps its section Notes, which says why a goal is not met.
"""
import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import gateway
import npm
import rows
import servers

HERE = os.path.dirname(os.path.abspath(__file__))


class Lab:
    """The folders, and the servers that are running."""

    def __init__(self, build, work, quick):
        self.build, self.work, self.quick = build, work, quick
        self.command = os.path.join(build, 'waybill')
        self.running, self.node_folder = {}, None
        self.receiving = None

    def path(self, name):
        return os.path.join(self.build, 'bench', 'bench_' + name)

    def fresh(self):
        path = os.path.join(self.work, 'fresh')
        shutil.rmtree(path, ignore_errors=True)
        os.mkdir(path)
        return path

    def kept(self, name):
        path = os.path.join(self.work, name)
        os.makedirs(path, exist_ok=True)
        return path

    def scale(self, numbers):
        """n and ms are a tenth in a quick run."""
        return {k: v // 10 if self.quick and k in ('n', 'ms') else v
                for k, v in numbers.items()}

    def program(self, name, subject, folder, **numbers):
        if numbers.get('n') == 'heap':
            numbers['n'] = 100000 if self.quick else 1000000
        return figures([self.path(name), subject, folder,
                        *(f'{k}={v}' for k, v in numbers.items())])

    def node(self, subject, script='peers.mjs', **numbers):
        if self.node_folder is None:
            self.node_folder = npm.installed(
                os.path.join(self.build, 'bench', 'npm')) or ''
        if not self.node_folder:
            return None
        return figures(
            ['node', os.path.join(HERE, script), subject, self.fresh(),
             *(f'{k}={v}' for k, v in numbers.items())],
            env={**os.environ, 'BENCH_NPM': self.node_folder})

    def server(self, name):
        if name not in self.running:
            folder = os.path.join(self.work, name)
            os.mkdir(folder)
            try:
                self.running[name] = getattr(servers, name)(folder)
            except (RuntimeError, OSError, subprocess.SubprocessError) as e:
                print(f'\n{name} does not start: {e}', file=sys.stderr)
                self.running[name] = None
        return self.running[name]

    def receiver(self):
        """The port of the receiver that responds with 204."""
        if self.receiving is None:
            process = subprocess.Popen(
                [self.path('serve')], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True)
            self.receiving = process, process.stdout.readline()
        return int(float(self.receiving[1].split('=')[1]))

    def close(self):
        for server in self.running.values():
            if server:
                server.close()
        if self.receiving:
            self.receiving[0].stdin.close()
            self.receiving[0].wait()


def figures(command, env=None):
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=env,
                         check=True, timeout=900).stdout
    return {name: float(value) for name, value in
            (line.split('=') for line in out.splitlines() if '=' in line)}


# ---- rounds ----------------------------------------------------------------

def one_round(lab, row, missing):
    """Each subject once; one that cannot run goes into missing, with the
    reason."""
    one = {'cal': lab.program('limit', 'cal', lab.fresh(), ms=200)}
    for name, _, run in row['subjects']:
        if name in missing:
            continue
        try:
            found, why = run(lab), 'skipped, not installed'
        except (RuntimeError, OSError, subprocess.SubprocessError) as e:
            found, why = None, 'failed'
            print(f'\n{row["id"]}, {name}: {e}', file=sys.stderr)
        if found is None:
            missing[name] = why
        else:
            one[name] = found
    return one


def measure(lab, row, rounds):
    """The rounds of a row that are kept, each subject -> figures; the number
    of dropped rounds; the missing subjects, each with the reason."""
    done, missing = [], {}
    for i in range(1 if row.get('once') else rounds):
        print(f'\r{row["id"]} round {i + 1}   ', end='', file=sys.stderr,
              flush=True)
        done.append(one_round(lab, row, missing))
    print('\r' + ' ' * 20 + '\r', end='', file=sys.stderr, flush=True)
    best = max(r['cal']['per_s'] for r in done)
    kept = [r for r in done if r['cal']['per_s'] >= best / 2]
    return kept, len(done) - len(kept), missing


def value(goal, one):
    """The figure of a goal in one round."""
    _, over, under, sense, _ = goal
    top = one[over[0]][over[1]]
    if under is None:
        return top
    low = one[under[0]][under[1]]
    return top - low if sense == 'minus' else top / low


def met(goal, figure):
    sense, bound = goal[3], goal[4]
    if sense == 'info':
        return ''
    good = figure >= bound if sense == '>=' else figure <= bound
    return 'met' if good else '**not met**'


# ---- the table -------------------------------------------------------------

def show(x):
    if x >= 1000:
        return f'{x:,.0f}'
    return f'{x:.0f}' if x >= 100 else f'{x:.3g}'


def figure_of(row, kept, which):
    """'90,000 (FULL)': a subject's median, and its durability."""
    if which is None:
        return ''
    name, key = which
    durable = {s[0]: s[1] for s in row['subjects']}.get(name, 'fdatasync')
    median = statistics.median(r[name][key] for r in kept)
    return f'{name}: {show(median)} ({durable})'


def goal_words(goal):
    sense, bound = goal[3], goal[4]
    if sense == 'info':
        return ''
    return f'{"<=" if sense == "minus" else sense} {bound:,g}'


def table_lines(row, kept, missing):
    for goal in row['goals']:
        what, over, under = goal[:3]
        absent = [w[0] for w in (over, under) if w and w[0] in missing]
        if absent:
            why = missing[absent[0]]
            yield [row['id'], what, '', f'{absent[0]}: {why}', '',
                   goal_words(goal), why.split(',')[0]]
            continue
        all_of = [value(goal, r) for r in kept]
        median = statistics.median(all_of)
        yield [row['id'], what, figure_of(row, kept, over),
               figure_of(row, kept, under),
               f'{show(median)} ({show(min(all_of))}..{show(max(all_of))})',
               goal_words(goal), met(goal, median)]


HEAD = ['row', 'what', 'ours (durability)', 'against (durability)',
        'median (spread)', 'goal', '']


def markdown(lines):
    out = ['| ' + ' | '.join(HEAD) + ' |', '|---' * len(HEAD) + '|']
    out += ['| ' + ' | '.join(line) + ' |' for line in lines]
    return '\n'.join(out)


# ---- the machine -----------------------------------------------------------

def version_of(*command):
    try:
        out = subprocess.run(command, stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.STDOUT, check=False).stdout
    except OSError:
        return 'not installed'
    return out.splitlines()[0] if out else '?'


def machine():
    cpu = '?'
    with open('/proc/cpuinfo', encoding='utf-8') as f:
        for line in f:
            if line.startswith('model name'):
                cpu = line.split(':')[1].strip()
    yield f'- machine: {os.cpu_count()} x {cpu}, Linux {platform.release()}'
    yield ('- placement: the receiver of D1-D3 and the woken worker of D4 on '
           'CPU 1, the producer of D4 on CPU 0; G1: the gateway or nginx on '
           'CPU 0, wrk and the server behind on CPU 1; G2: all on CPU 0; all '
           'else where the kernel put it')
    yield '- versions: ' + '; '.join([
        version_of('cc', '--version'),
        'SQLite ' + version_of('sqlite3', '--version').split()[0],
        version_of('curl', '--version')[:40],
        version_of('redis-server', '--version')[:28],
        version_of('beanstalkd', '-v'),
        version_of(servers.postgres_bin('postgres') or 'postgres', '-V'),
        'node ' + version_of('node', '--version'),
        version_of(gateway.found() or 'nginx', '-v'),
        version_of('wrk', '-v')[:20]])


def say_row(row, kept, dropped, lines, seconds):
    print(f'\n{row["id"]}: {row["what"]} '
          f'({len(kept)} rounds in {seconds:.0f} s' +
          (f', {dropped} dropped: cal below half of the best' if dropped
           else '') + ')')
    for line in lines:
        print('  ' + ' | '.join(cell for cell in line[1:] if cell), flush=True)


def notes(path):
    """The section Notes of the last RESULTS.md, which people wrote."""
    if not os.path.exists(path):
        return ''
    with open(path, encoding='utf-8') as f:
        text = f.read()
    mark = '\n## Notes\n'
    return text[text.index(mark):] if mark in text else ''


def write_results(path, command, all_lines, drops, cals, seconds):
    after = notes(path)
    text = ['# The last full run', '', f'- command: `{command}`, '
            f'{time.strftime("%F", time.gmtime())}, took {seconds / 60:.0f} '
            'minutes', *machine(),
            f'- cal: {show(statistics.median(cals))} a second '
            f'({show(min(cals))}..{show(max(cals))})',
            '- rounds dropped, their cal being below half of the row\'s best: '
            + (', '.join(drops) or 'none'),
            '', 'Ratios are taken within a round; shown are the median of the '
            'rounds and the spread. Absolute figures hold for this run alone.',
            '', markdown(all_lines)]
    with open(path, 'w', encoding='utf-8') as f:
        f.write('\n'.join(text) + '\n' + after)


def run(lab, chosen, rounds):
    all_lines, drops, cals = [], [], []
    begin = time.monotonic()
    for row in chosen:
        start = time.monotonic()
        kept, dropped, missing = measure(lab, row, rounds)
        lines = list(table_lines(row, kept, missing))
        say_row(row, kept, dropped, lines, time.monotonic() - start)
        all_lines += lines
        cals += [r['cal']['per_s'] for r in kept]
        if dropped:
            drops.append(f'{row["id"]} {dropped} of {dropped + len(kept)}')
    return all_lines, drops, cals, time.monotonic() - begin


def main():
    ask = argparse.ArgumentParser(description=__doc__.split('\n', 1)[0])
    ask.add_argument('build')
    ask.add_argument('rows', nargs='*')
    ask.add_argument('--rounds', type=int)
    args = ask.parse_args()
    quick = os.environ.get('QUICK', '') not in ('', '0')
    rounds = args.rounds or (3 if quick else 9)
    chosen = [r for r in rows.ROWS if not args.rows or r['id'] in args.rows]
    build = os.path.abspath(args.build)
    # as root, servers run as nobody, which cannot enter root's home
    work = tempfile.mkdtemp(prefix='run-',
                            dir=build if os.getuid() else '/var/tmp')
    os.chmod(work, 0o755)
    lab = Lab(build, work, quick)
    try:
        result = run(lab, chosen, rounds)
    finally:
        lab.close()
        shutil.rmtree(work, ignore_errors=True)
    print('\n' + markdown(result[0]))
    if not args.rows and not quick:
        write_results(os.path.join(HERE, 'RESULTS.md'), 'make bench', *result)


if __name__ == '__main__':
    main()
