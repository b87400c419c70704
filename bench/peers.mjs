// peers.mjs - plainjob and BullMQ, used as in their manuals, but durable.
//   node peers.mjs SUBJECT FOLDER [name=number...]
// plainjob-one: add, one a call. plainjob-claim: take and finish one by one.
// plainjob-drain, bullmq-drain: each job a POST to port=..., 64 at a time.
// The modules come from $BENCH_NPM.
import { createRequire } from "node:module";
import http from "node:http";

const [subject, folder, ...rest] = process.argv.slice(2);
const opt = (name, standard) =>
  Number(rest.find((a) => a.startsWith(name + "="))?.split("=")[1] ?? standard);
const require = createRequire(process.env.BENCH_NPM + "/");
const load = async (name) => import(require.resolve(name));
const payload = { order: 12345678, text: "x".repeat(274) };
const quiet = { info() {}, debug() {}, warn() {}, error: console.error };

function rate(n, seconds) {
  console.log(`per_s=${n / seconds}\nn=${n}`);
}
const now = () => performance.now() / 1000;

const agent = new http.Agent({ keepAlive: true, maxSockets: 64 });
function post(data) {
  return new Promise((good, bad) => {
    const body = JSON.stringify(data);
    const request = http.request(
      {
        agent, host: "127.0.0.1", port: opt("port"), method: "POST",
        headers: {
          "content-type": "application/json",
          "content-length": body.length,
        },
      },
      (r) => r.resume().on("end", good),
    );
    request.on("error", bad);
    request.end(body);
  });
}

async function plainjob() {
  const { defineQueue, defineWorker, better } =
    await import(require.resolve("plainjob").replace(/\.cjs$/, ".js"));
  const Database = require("better-sqlite3");
  const db = new Database(folder + "/plain.db");
  const queue = defineQueue({ connection: better(db), logger: quiet });
  db.pragma("journal_mode = WAL");
  db.pragma("synchronous = FULL"); // it sets NORMAL itself
  return { db, queue, defineWorker };
}

async function plainjobOne() {
  const { queue } = await plainjob();
  for (let i = 0; i < 500; i++) queue.add("a", payload);
  const start = now(), end = start + opt("ms", 500) / 1000;
  let n = 0;
  for (; now() < end; n++) queue.add("a", payload);
  rate(n, now() - start);
}

async function plainjobClaim() {
  const { queue } = await plainjob();
  queue.addMany("a", Array(20000).fill(payload));
  const start = now(), end = start + opt("ms", 500) / 1000;
  let n = 0;
  for (; now() < end; n++) {
    const job = queue.getAndMarkJobAsProcessing("a");
    queue.getJobById(job.id);
    queue.markJobAsDone(job.id);
  }
  rate(n, now() - start);
}

// Its worker takes one job at a time: 64 workers are 64 in flight.
async function plainjobDrain() {
  const { queue, defineWorker } = await plainjob();
  const n = opt("n", 2000);
  queue.addMany("a", Array(n).fill(payload));
  let done = 0, over;
  const all = new Promise((good) => { over = good; });
  const worker = () =>
    defineWorker("a", async (job) => {
      await post(JSON.parse(job.data));
      if (++done === n) over();
    }, { queue, logger: quiet, pollIntervall: 1 });
  const start = now();
  for (let i = 0; i < 64; i++) worker().start();
  await all;
  rate(n, now() - start);
}

async function bullmqDrain() {
  const { Queue, Worker } = require("bullmq");
  const connection = { port: opt("redis"), maxRetriesPerRequest: null };
  const name = "q" + process.pid, n = opt("n", 5000);
  const queue = new Queue(name, { connection });
  for (let i = 0; i < n; i += 500) {
    await queue.addBulk(Array(500).fill(
      { name: "a", data: payload, opts: { removeOnComplete: true } }));
  }
  const start = now();
  let done = 0;
  await new Promise((good) => {
    const worker = new Worker(name, (job) => post(job.data),
      { connection, concurrency: 64 });
    worker.on("completed", () => { if (++done === n) good(); });
  });
  rate(n, now() - start);
}

await {
  "plainjob-one": plainjobOne, "plainjob-claim": plainjobClaim,
  "plainjob-drain": plainjobDrain, "bullmq-drain": bullmqDrain,
}[subject]();
process.exit(0);
