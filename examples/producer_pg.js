#!/usr/bin/env node
// An order and its message in one transaction on PostgreSQL.
//
//     producer_pg.js URL CUSTOMER CENTS
//
// As producer_pg.py, with the npm package `pg`: npm install pg.
const pg = require('pg')

async function placeOrder(db, customer, cents) {
    await db.query('BEGIN')
    try {
        const order = (await db.query(
            'INSERT INTO orders(customer, cents) VALUES($1, $2) RETURNING id',
            [customer, cents])).rows[0].id
        const message = (await db.query(
            'SELECT waybill_send(kind => $1, payload => $2, key => $3) AS id',
            ['order.placed', JSON.stringify({order, customer, cents}),
                `order:${order}`])).rows[0].id
        await db.query('COMMIT')
        return message
    } catch (e) {
        await db.query('ROLLBACK')
        throw e
    }
}

async function main(url, customer, cents) {
    const db = new pg.Client({connectionString: url})
    await db.connect()
    try {
        await db.query('CREATE TABLE IF NOT EXISTS orders(' +
            'id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, ' +
            'customer text NOT NULL, cents bigint NOT NULL CHECK (cents > 0))')
        console.log(await placeOrder(db, customer, +cents))
    } finally {
        await db.end()
    }
}

main(...process.argv.slice(2)).catch(e => {
    console.error(`producer_pg: ${e.message}`)
    process.exitCode = 1
})
