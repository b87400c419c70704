// lru.mjs - lru-cache as a store of responses.  node lru.mjs lru FOLDER [name=number...]
// n keys are stored, with a time to live; a tenth of the lookups finds nothing.
// bytes=1: each key is built from bytes first, as a request contains them.
// The module comes from $BENCH_NPM.
import { createRequire } from "node:module";

const opt = (name, standard) =>
  Number(process.argv.find((a) => a.startsWith(name + "="))?.split("=")[1] ??
    standard);
const { LRUCache } = createRequire(process.env.BENCH_NPM + "/")("lru-cache");

const n = opt("n", 10000), m = Math.floor(n * 10 / 9);
const key = (i) => "key-" + String(i).padStart(14, "0");
const whole = (k) => "acme\0POST /orders\0" + k;
const cache = new LRUCache({ max: n, ttl: 86400000 });
for (let i = 0; i < n; i++) {
  cache.set(whole(key(i)),
    { status: 200, headers: "", body: Buffer.alloc(100, 98), print: 1 });
}

const text = Buffer.alloc(m * 18), ready = [];
for (let i = 0; i < m; i++) {
  text.write(key(i), i * 18, "latin1");
  if (!opt("bytes", 0)) ready.push(whole(key(i)));
}
const made = opt("bytes", 0)
  ? (i) => whole(text.latin1Slice(i * 18, i * 18 + 18))
  : (i) => ready[i];

let x = 88172645, hits = 0;
function chunk() {
  for (let i = 0; i < 4096; i++) {
    x ^= x << 13; x ^= x >>> 17; x ^= x << 5;
    if (cache.get(made((x >>> 0) % m)) !== undefined) hits++;
  }
}
const seconds = () => performance.now() / 1000;
for (const end = seconds() + 0.3; seconds() < end;) chunk();
hits = 0;
const start = seconds(), end = start + opt("ms", 500) / 1000;
const cpu = process.cpuUsage();
let done = 0;
for (; seconds() < end; done += 4096) chunk();
const used = process.cpuUsage(cpu);
console.log(`per_s=${done / (seconds() - start)}
per_cpu_s=${done / ((used.user + used.system) / 1e6)}
n=${done}
hits=${hits / done}`);
