#!/usr/bin/env python3
"""An order and its message in one transaction, with nothing but SQL.

    producer.py DATABASE CUSTOMER CENTS

The order is a row of the application's own; the message reports it to another
system. After the commit both exist, or neither. The tables of Waybill must be
in the file (any `waybill --db DATABASE` command makes them); their columns are
in doc/FORMATS.md. `waybill run` delivers every message there, whichever program wrote it.
"""
import json
import sqlite3
import sys
import uuid


def connect(path):
    db = sqlite3.connect(path, timeout=5, isolation_level=None)
    # Durable when COMMIT returns, and no checkpoint by us: see doc/FORMATS.md
    # on what older versions of SQLite lose to one that races a commit.
    assert db.execute('PRAGMA journal_mode=WAL').fetchone() == ('wal',)
    db.execute('PRAGMA synchronous=FULL')
    db.execute('PRAGMA wal_autocheckpoint=0')
    db.execute('CREATE TABLE IF NOT EXISTS orders('
               'id INTEGER PRIMARY KEY, customer TEXT NOT NULL, '
               'cents INTEGER NOT NULL CHECK (cents > 0))')
    return db


def place_order(db, customer, cents):
    message = str(uuid.uuid4())
    db.execute('BEGIN IMMEDIATE')
    try:
        order = db.execute('INSERT INTO orders(customer, cents) VALUES(?, ?)',
                           (customer, cents)).lastrowid
        db.execute(
            'INSERT INTO waybill_outbox(id, kind, payload, key) '
            'VALUES(?, ?, ?, ?)',
            (message, 'order.placed',
             json.dumps({'order': order, 'customer': customer,
                         'cents': cents}).encode(), f'order:{order}'))
        db.execute('COMMIT')
    except BaseException:
        db.execute('ROLLBACK')
        raise
    return message


if __name__ == '__main__':
    print(place_order(connect(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
