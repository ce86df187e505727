// Measures the Node.js package: medians of interleaved rounds, beside the same thing in Rust.
//
//     node --expose-gc bench/bench.mjs [ROUNDS] [SECONDS]
//
// One JSON object a line, one line a figure, with its bar where it has one; exit status 1 when one is missed. Each
// figure takes SECONDS (default 1) a round, of ROUNDS (default 5). The Rust side is `virtuallog bench` and the
// example `rates`; the logs lie under the target folder, on the disk that is built on. Build all of it with
// optimisation first (`make bench` does).

import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

import { open } from 'virtuallog'
import { LocalCluster } from 'virtuallog/testing'

const TARGET = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL('../../target', import.meta.url))
const PAYLOAD = Buffer.alloc(100, 'x')
const BATCH = Array(1000).fill(PAYLOAD)
const IN_FLIGHT = 1024
/** Batches under way: while one is converted, another is written. */
const BATCHES_IN_FLIGHT = 4
const OPERATIONS = 1_000_000
/** A disk is now slower, now faster: one append at a time is measured in so many short turns a round. */
const LATENCY_TURNS = 3

/** Figure: its unit, and where it has one its bar and whether more is better. */
const FIGURES = {
  'append, 1 in flight, p50': ['us'],
  "append, 1 in flight, p50 over Rust's": ['us', 40, false],
  [`append, ${IN_FLIGHT} in flight`]: ['entries/s', 150_000, true],
  'appendMany, 1000 x 100 B': ['entries/s'],
  "appendMany over Rust's": ['ratio', 0.5, true],
  'appendAll, 100 B': ['entries/s'],
  'subscribe, batches of 1000': ['entries/s'],
  "subscribe over Rust's": ['ratio', 0.5, true],
  'read, one by one': ['entries/s'],
  [`cluster of three, append, ${IN_FLIGHT} in flight`]: ['entries/s'],
  "cluster of three, append, 1 in flight, p50 over Rust's": ['us', 40, false],
  "cluster of three, appendMany over Rust's": ['ratio', 0.5, true],
  "cluster of three, subscribe over Rust's": ['ratio', 0.5, true],
  'growth over 1,000,000 operations': ['MB', 32, false],
}

const call = promisify(execFile)
const now = () => performance.now() / 1000

async function rust(program, ...args) {
  const { stdout } = await call(join(TARGET, 'release', program), args)
  return JSON.parse(stdout)
}

/** Rust's p50 of one awaited append, in microseconds. */
async function rustAppendOne(url, seconds) {
  return (await rust('virtuallog', 'bench', url, '--in-flight', '1', '--json', '--seconds', `${seconds}`)).p50_us
}

/** Rust's own rates in batches; where the example was not built there is nothing to compare with. */
async function rustRates(url, seconds) {
  if (!existsSync(join(TARGET, 'release', 'examples', 'rates'))) return {}
  return rust('examples/rates', url, `${seconds}`)
}

async function appendOne(log, seconds) {
  const times = []
  for (const end = now() + seconds; now() < end; ) {
    const start = now()
    await log.append(PAYLOAD)
    times.push((now() - start) * 1e6)
  }
  return median(times)
}

/** Keeps `inFlight` answers to come, taken in the order of their calls. */
async function pipelined(seconds, inFlight, submit) {
  const ring = new Array(inFlight)
  const start = now()
  let count = 0
  for (const end = start + seconds; now() < end; count += 1) {
    const at = count % inFlight
    if (count >= inFlight) await ring[at]
    ring[at] = submit()
  }
  await Promise.all(ring)
  return count / (now() - start)
}

async function appendAll(log, seconds) {
  const start = now()
  function* payloads() {
    for (const end = start + seconds; now() < end; ) yield PAYLOAD
  }
  const { count } = await log.appendAll(payloads())
  return count / (now() - start)
}

async function subscribe(log, seconds) {
  const { position: tail } = await log.checkTail()
  const start = now()
  let count = 0
  for (const end = start + seconds; now() < end; ) {
    for await (const batch of log.subscribe('first').batches(1000)) {
      count += batch.length
      if (now() > end || batch.at(-1).position + 1n >= tail) break
    }
  }
  return count / (now() - start)
}

async function oneByOne(log, seconds) {
  const start = now()
  let count = 0
  for (const end = start + seconds; now() < end; ) {
    for await (const _ of log.read(await log.first())) {
      count += 1
      if (count % 65_536 === 0 && now() > end) break
    }
  }
  return count / (now() - start)
}

/** Megabytes that the process holds more after a million appends that were answered, and as many entries read. */
async function growth(log) {
  const work = async (operations) => {
    for (let done = 0; done < operations; done += IN_FLIGHT) {
      await Promise.all(Array.from({ length: IN_FLIGHT }, () => log.append(PAYLOAD)))
      const { position } = await log.checkTail()
      for await (const _ of log.read(position - BigInt(IN_FLIGHT))) continue
      await log.prefixTrim(position)
    }
    globalThis.gc()
    return process.memoryUsage().rss / 1e6
  }
  const before = await work(OPERATIONS / 10)
  return (await work(OPERATIONS)) - before
}

async function round(directory, number, seconds, note) {
  const rates = await rustRates(`file:${directory}/rust/rates-${number}`, seconds)
  // Fresh logs each round, so that none is longer than the one that it is compared with.
  const log = await open(`file:${directory}/node/log-${number}`)
  const many = 1000 * (await pipelined(seconds, BATCHES_IN_FLIGHT, () => log.appendMany(BATCH)))
  note('appendMany, 1000 x 100 B', many)
  note("appendMany over Rust's", many / rates.append_many)
  const followed = await subscribe(log, seconds)
  note('subscribe, batches of 1000', followed)
  note("subscribe over Rust's", followed / rates.subscribe)
  note('read, one by one', await oneByOne(log, seconds))
  note('appendAll, 100 B', await appendAll(log, seconds))
  note(`append, ${IN_FLIGHT} in flight`, await pipelined(seconds, IN_FLIGHT, () => log.append(PAYLOAD)))
  await log.close()
}

/** One append at a time, beside the same in Rust, before anything makes the disk busy. */
async function latencyRound(directory, number, seconds, note) {
  const rustOne = await rustAppendOne(`file:${directory}/one-rust/log-${number}`, seconds)
  const log = await open(`file:${directory}/one-node/log-${number}`)
  const one = await appendOne(log, seconds)
  note('append, 1 in flight, p50', one)
  note("append, 1 in flight, p50 over Rust's", one - rustOne)
  await log.close()
}

async function clusterRound(cluster, number, seconds, note) {
  const rustOne = await rustAppendOne(`${cluster.url}rust-${number}`, seconds)
  const log = await open(`${cluster.url}node-${number}`)
  note("cluster of three, append, 1 in flight, p50 over Rust's", (await appendOne(log, seconds)) - rustOne)
  const rate = await pipelined(seconds, IN_FLIGHT, () => log.append(PAYLOAD))
  note(`cluster of three, append, ${IN_FLIGHT} in flight`, rate)
  // A log of its own, so that it is no longer than the one that it is compared with.
  const rates = await rustRates(`${cluster.url}rates-${number}`, seconds)
  const batches = await open(`${cluster.url}batches-${number}`)
  const many = 1000 * (await pipelined(seconds, BATCHES_IN_FLIGHT, () => batches.appendMany(BATCH)))
  note("cluster of three, appendMany over Rust's", many / rates.append_many)
  note("cluster of three, subscribe over Rust's", (await subscribe(batches, seconds)) / rates.subscribe)
  await batches.close()
  await log.close()
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2
}

async function main(rounds, seconds) {
  const figures = Object.fromEntries(Object.keys(FIGURES).map((name) => [name, []]))
  const note = (name, value) => figures[name].push(value)
  const directory = mkdtempSync(join(TARGET, 'bench-node-'))
  const cluster = await LocalCluster.start({ dir: join(directory, 'cluster') })
  try {
    for (let number = 0; number < LATENCY_TURNS * rounds; number += 1) {
      await latencyRound(directory, number, seconds / LATENCY_TURNS, note)
    }
    for (let number = 0; number < rounds; number += 1) {
      await round(directory, number, seconds, note)
      await clusterRound(cluster, number, seconds, note)
    }
    const log = await open(`file:${directory}/node/growth`)
    note('growth over 1,000,000 operations', await growth(log))
    await log.close()
  } finally {
    await cluster.close()
    rmSync(directory, { recursive: true })
  }
  let held = true
  for (const [name, [unit, bar, atLeast]] of Object.entries(FIGURES)) {
    const value = median(figures[name])
    if (Number.isNaN(value)) {
      console.log(JSON.stringify({ bench: `node: ${name}`, skipped: 'the Rust side was not built' }))
      held = false
      continue
    }
    const row = { bench: `node: ${name}`, median: Math.round(value * 100) / 100, unit }
    if (bar !== undefined) {
      row.bar = `${atLeast ? '>=' : '<='} ${bar}`
      row.holds = atLeast ? value >= bar : value <= bar
      held &&= row.holds
    }
    console.log(JSON.stringify(row))
  }
  process.exitCode = held ? 0 : 1
}

const [rounds = 5, seconds = 1] = process.argv.slice(2).map(Number)
await main(rounds, seconds)
