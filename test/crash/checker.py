"""checker.py - check a history against the guarantees; see harness.

A message is identified by its key, which its producer chose and its payload
contains. A run is valid if every list of violations except `recovered` is
empty.
"""
import collections
import json

LEASE_MARGIN_US = 500000


class Violations(dict):
    """name -> keys or ids of the messages"""

    def add(self, name, what):
        self.setdefault(name, []).append(what)

    def bad(self):
        return {n: len(v) for n, v in self.items() if n != 'recovered'}


def read(path):
    """A process that is killed while it writes may leave a part of a line, to
    which the next line is appended: an event that did not happen."""
    with open(path, encoding='utf-8') as f:
        return [json.loads(line[line.rfind('{"t":'):]) for line in f
                if line.endswith('\n')]


def check_keys(events, effects, left, found):
    """I1, I2, I3: lost, unexpected, doubled, undrained; recovered is legal."""
    asked = {e['k'] for e in events if e['f'] == 'enqueue'}
    acked = {e['k'] for e in events if e['f'] == 'enqueue' and e['y'] == 'ok'}
    count = collections.Counter(key for _, key in effects)
    for key in acked - set(count) - left:
        found.add('lost', key)
    for key in set(count) - asked:
        found.add('unexpected', key)
    for key, n in count.items():
        if n > 1:
            found.add('doubled', key)
    for key in left:
        found.add('undrained', key)
    for key in set(count) - acked:
        found.add('recovered', key)
    return acked, count


def check_tokens(events, found):
    """I4, I5: a confirmed message is not claimed again, and only the process
    that holds the claim, which no other has taken over, can confirm it. The
    number of attempts orders the claims of a message, whatever the order of
    their events."""
    confirmed = {}
    for e in events:
        if e['f'] == 'confirm' and e['y'] == 'ok':
            confirmed.setdefault(e['i'], set()).add(e['tok'])
    claims = collections.defaultdict(dict)
    for e in events:
        if e['f'] == 'claim' and e['i'] in confirmed:
            claims[e['i']][e['tok']] = e
    ended = {}
    for e in events:
        if e['f'] == 'confirm' and e['y'] == 'ok':
            ended.setdefault((e['i'], e['tok']), e['t'])
            claim = claims[e['i']].get(e['tok'])
            if claim and claim['p'] != e['p']:
                found.add('stale', e['i'])
    for i, tokens in confirmed.items():
        for token in tokens & set(claims[i]):
            for other in claims[i].values():
                if other['n'] > claims[i][token]['n']:
                    late = other['t'] > ended[i, token]
                    found.add('revived' if late else 'stale', i)


def check_leases(events, paused, lease_us, found):
    """A worker that was not paused keeps its claim for the whole lease."""
    since = {}
    for e in events:
        if e['f'] == 'claim':
            since[e['i'], e['tok']] = e['t']
        elif e['f'] == 'confirm' and e['y'] in ('fenced', 'gone'):
            held = e['t'] - since.get((e['i'], e['tok']), 0)
            if held < lease_us - LEASE_MARGIN_US \
                    and int(e['p'].split('.')[-1]) not in paused:
                found.add('fenced early', e['i'])


def check_times(events, found):
    """I7: nothing is sent before it is due."""
    due = {e['k']: e['due'] for e in events
           if e['f'] == 'enqueue' and e['due'] > 0}
    for e in events:
        if e['f'] == 'send' and e['y'] == 'invoke' \
                and e['w'] < due.get(e['k'], 0):
            found.add('early', e['k'])


def check_lanes(lanes, effects, found):
    """I6: messages of one lane take effect in their order."""
    last = {}
    for _, key in sorted(effects):
        if key in lanes:
            lane, number = key.rsplit('.', 1)
            if int(number) < last.get(lane, 0):
                found.add('disorder', key)
            last[lane] = int(number)


def check_pairs(business, acked, count, events, found):
    """I2: a message exists if and only if the program's own row does."""
    orders = {e['k'] for e in events if e['f'] == 'enqueue'
              and e['y'] == 'invoke'}
    for key in business - set(count):
        found.add('unpaired', key)
    return orders


def check(history, effects, left, lanes, business, paused, lease_us):
    """(violations, facts)"""
    found = Violations()
    events = read(history)
    acked, count = check_keys(events, effects, left, found)
    check_tokens(events, found)
    check_leases(events, paused, lease_us, found)
    check_times(events, found)
    check_lanes(lanes, effects, found)
    check_pairs(business, acked, count, events, found)
    facts = {'acknowledged': len(acked), 'effects': len(effects),
             'events': len(events),
             'sends': sum(e['f'] == 'send' and e['y'] == 'invoke'
                          for e in events),
             'fenced': sum(e['f'] == 'confirm' and e['y'] == 'fenced'
                           for e in events)}
    return found, facts


def chain(history, offender):
    """Everything that happened to one message."""
    return [e for e in read(history)
            if offender in (e['k'], e['i'])]
