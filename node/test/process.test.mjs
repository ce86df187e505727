// What happens to the whole process: its end, its event loop, its threads, its children, its memory.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { join } from 'node:path'
import { test } from 'node:test'
import { Worker } from 'node:worker_threads'

import { open } from 'virtuallog'

import { PACKAGE, folder, run, texts } from './stores.mjs'

const IMPORT = "import * as virtuallog from 'virtuallog'; const { open } = virtuallog;"

test('idle handles do not keep the process alive', async (t) => {
  const url = `file:${folder(t)}/store/log`
  const { status, stdout, stderr } = await run(`${IMPORT}
    const log = await open(${JSON.stringify(url)})
    const following = await log.subscribe('first').started()
    const reader = log.read(0)
    console.log(await log.append('acknowledged'))
    console.log((await following.next()).value.text())`)
  assert.deepEqual([status, stdout], [0, '0n\nacknowledged\n'], stderr)
  const log = await open(url)
  assert.deepEqual(await texts(log), ['acknowledged'])
  await log.close()
})

test('a wait keeps it alive until it is answered', async () => {
  // Nothing but the wait itself could: the deadline runs out within the native half.
  const { status, stdout } = await run(`${IMPORT}
    const log = await open('memory:')
    const following = log.subscribe('tail')
    following.nextBatch(1, { timeoutMs: 50 }).catch((error) => console.log(error.code))`)
  assert.deepEqual([status, stdout], [0, 'DEADLINE\n'])
})

test('a server keeps it alive until it is closed, or let go of', async (t) => {
  const data = JSON.stringify(`${folder(t)}/data`)
  const started = `${IMPORT} const server = await virtuallog.Server.start(${data});`
  assert.equal((await run(`${started} server.unref()`)).status, 0)
  assert.equal((await run(`${started} server.unref().ref().ref(); await server.close(); await server.close(); server.ref()`)).status, 0)
  const held = await run(`${started}
    process.on('beforeExit', () => console.log('let go'))
    setTimeout(() => { console.log('held'); server.close() }, 1).unref()
    `)
  assert.deepEqual([held.status, held.stdout], [0, 'held\nlet go\n'])
})

for (const [how, end] of Object.entries({
  'process.exit': 'process.exit(7)',
  'an uncaught error': 'process.exitCode = 7; setImmediate(() => { throw new Error("mine") })',
  'a signal': 'process.kill(process.pid, "SIGKILL")',
})) {
  test(`${how} with calls under way`, async (t) => {
    const url = `file:${folder(t)}/store/log`
    const { status, signal, stderr } = await run(`${IMPORT}
      const log = await open(${JSON.stringify(url)})
      const first = log.append('acknowledged')
      for (let n = 0; n < 1000; n += 1) log.append('under way').catch(() => {})
      log.subscribe('tail').next().catch(() => {})
      log.verify().catch(() => {})
      await first
      ${end}`)
    if (how === 'a signal') assert.equal(signal, 'SIGKILL', stderr)
    else assert(status === 7 || (status === 1 && stderr.includes('mine')), `${status} ${signal} ${stderr}`)
    const log = await open(url)
    assert.equal((await texts(log))[0], 'acknowledged')
    await log.close()
  })
}

test('closing while calls are out answers all of them', async (t) => {
  const log = await open(`file:${folder(t)}/store/log`)
  const appends = Array.from({ length: 1000 }, (_, number) => log.append(`${number}`))
  const following = await log.subscribe('tail').started()
  const waiting = following.nextBatch()
  const calls = Promise.allSettled([log.checkTail(), log.chain(), log.verify(), log.readNext(0), waiting])
  await log.close()
  assert.deepEqual(await Promise.all(appends), Array.from({ length: 1000 }, (_, number) => BigInt(number)))
  await following.close()
  for (const outcome of await calls) {
    assert(outcome.status === 'fulfilled' || outcome.reason.code === 'CLOSED', String(outcome.reason))
  }
})

test('the event loop goes on while a call is out', async (t) => {
  const log = await open(`file:${folder(t)}/store/log`)
  let turns = 0
  let answered = false
  const spin = () => (turns += 1) && !answered && setImmediate(spin)
  setImmediate(spin)
  // Each takes a sync to the disk, which is longer than many turns.
  for (let n = 0; n < 20; n += 1) await log.append('x')
  answered = true
  assert(turns > 100, `${turns} turns`)
  await log.close()
})

test('many answers come in few turns of the loop', async (t) => {
  const log = await open(`file:${folder(t)}/store/log`)
  let turns = 0
  let answered = false
  const spin = () => (turns += 1) && !answered && setImmediate(spin)
  const appends = Array.from({ length: 20_000 }, () => log.append('x'.repeat(100)))
  const seen = appends.map((append) => append.then(() => turns))
  setImmediate(spin)
  const turnsOfAnswers = new Set(await Promise.all(seen))
  answered = true
  assert(turnsOfAnswers.size < 2000, `${turnsOfAnswers.size} turns`)
  await log.close()
})

// It finds the package by its name from the package's own folder.
const WORKER = `
  const { parentPort, workerData } = require('node:worker_threads')
  const { open } = require('node:module').createRequire(${JSON.stringify(join(PACKAGE, 'package.json'))})('virtuallog')
  open(workerData.url).then(async (log) => {
    const positions = await Promise.all(Array.from({ length: 500 }, () => log.append(workerData.name)))
    parentPort.postMessage(positions)
    if (workerData.end === 'close') return log.close()
    for (;;) log.append('until it is ended').catch(() => {}), await new Promise(setImmediate)
  })`

function worker(workerData) {
  return new Worker(WORKER, { eval: true, workerData })
}

test('threads write to one log, each with a handle of its own', async (t) => {
  const url = `file:${folder(t)}/store/log`
  const workers = ['a', 'b', 'c'].map((name) => worker({ url, name, end: 'close' }))
  const ended = workers.map((thread) => once(thread, 'exit'))
  const told = await Promise.all(workers.map((thread) => once(thread, 'message')))
  for (const [status] of await Promise.all(ended)) assert.equal(status, 0)
  const positions = new Set(told.flatMap(([positions]) => positions))
  assert.equal(positions.size, 1500)
  const log = await open(url)
  assert.equal((await texts(log)).length, 1500)
  await log.close()
})

test('a thread that is ended with calls under way leaves the others alone', async (t) => {
  const url = `file:${folder(t)}/store/log`
  const log = await open(url)
  for (let round = 0; round < 5; round += 1) {
    const thread = worker({ url, name: 'ended' })
    await once(thread, 'message')
    await thread.terminate()
    await log.append('the main thread goes on')
  }
  assert.equal((await texts(log)).filter((text) => text.startsWith('the main')).length, 5)
  await log.close()
})

test('cluster workers write to the log of their primary', async (t) => {
  const url = `file:${folder(t)}/store/log`
  const { status, stdout, stderr } = await run(
    `import cluster from 'node:cluster'
    ${IMPORT}
    const log = await open(${JSON.stringify(url)})
    await log.append('x')
    const exec = ${JSON.stringify(join(PACKAGE, 'test', 'appends.mjs'))}
    cluster.setupPrimary({ exec, args: [${JSON.stringify(url)}], execArgv: [] })
    const ended = [1, 2, 3].map(() => new Promise((resolve) => cluster.fork().on('exit', resolve)))
    const statuses = await Promise.all(ended)
    console.log(statuses.join(), (await log.checkTail()).position)
    await log.close()`,
  )
  assert.deepEqual([status, stdout], [0, '0,0,0 31n\n'], stderr)
})

test('memory stays flat', async (t) => {
  const url = `file:${folder(t)}/store/log`
  const { status, stdout, stderr } = await run(
    `${IMPORT}
    const log = await open(${JSON.stringify(url)})
    async function work(rounds) {
      for (let round = 0; round < rounds; round += 1) {
        const appends = Array.from({ length: 1000 }, () => log.append(Buffer.alloc(1000)))
        await Promise.all(appends)
        await log.appendMany(Array(1000).fill('x'.repeat(1000)))
        const controller = new AbortController()
        const following = log.subscribe('first', { signal: controller.signal })
        for (let left = 2000; left > 0; ) left -= (await following.nextBatch(500)).length
        const waiting = following.next().catch(() => {})
        controller.abort()
        await waiting
        await log.readNext(2n ** 60n).catch(() => {})
        await log.prefixTrim((await log.checkTail()).position)
        globalThis.gc()
      }
      return process.memoryUsage().rss
    }
    await work(20)
    const before = await work(10)
    console.log(await work(50) - before)`,
    { flags: ['--expose-gc'] },
  )
  assert.equal(status, 0, stderr)
  assert(Number(stdout) < 32 << 20, `it grew by ${stdout.trim()} bytes`)
})

test('the number of threads is checked', async () => {
  for (const [value, good] of [['1', true], ['3', true], ['0', false], ['many', false]]) {
    const program = `${IMPORT} console.log(await (await open('memory:')).append('x'))`
    const { status, stderr } = await run(program, { env: { VIRTUALLOG_RUNTIME_THREADS: value } })
    assert.equal(status === 0, good, stderr)
    assert(good || stderr.includes('VIRTUALLOG_RUNTIME_THREADS'), stderr)
  }
})
