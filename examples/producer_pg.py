#!/usr/bin/env python3
"""An order and its message in one transaction on PostgreSQL.

    producer_pg.py URL CUSTOMER CENTS

The order is a row of the application's own; the message reports it to another
system. After the commit both exist, or neither. `waybill init --db URL` makes the
tables and the function waybill_send(), which doc/FORMATS.md explains; a role that
is not their owner needs

    GRANT EXECUTE ON FUNCTION waybill_send(text, text, text, text, text,
        timestamptz, timestamptz, text, text) TO app;

Needs psycopg 3: apt-get install python3-psycopg.
"""
import json
import sys

import psycopg


def place_order(db, customer, cents):
    with db.transaction():
        order, = db.execute(
            'INSERT INTO orders(customer, cents) VALUES(%s, %s) RETURNING id',
            (customer, cents)).fetchone()
        message, = db.execute(
            'SELECT waybill_send(kind => %s, payload => %s, key => %s)',
            ('order.placed', json.dumps({'order': order, 'customer': customer,
                                         'cents': cents}),
             f'order:{order}')).fetchone()
    return message


if __name__ == '__main__':
    with psycopg.connect(sys.argv[1], autocommit=True) as connection:
        connection.execute(
            'CREATE TABLE IF NOT EXISTS orders('
            'id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, '
            'customer text NOT NULL, cents bigint NOT NULL CHECK (cents > 0))')
        print(place_order(connection, sys.argv[2], int(sys.argv[3])))
