// The log's operations, as JavaScript sees them.

import assert from 'node:assert/strict'
import { setImmediate as turn } from 'node:timers/promises'
import { test } from 'node:test'

import * as virtuallog from 'virtuallog'
import { Entry, open } from 'virtuallog'

import { folder, fresh, memory, texts } from './stores.mjs'

test('positions come out as bigint, and go in as bigint or number', async (t) => {
  const log = await fresh(t)
  assert.equal(await log.append('a'), 0n)
  assert.equal(await log.appendMany(['b', 'c']), 1n)
  assert.deepEqual(await texts(log, 1), ['b', 'c'])
  assert.deepEqual(await texts(log, 1n), ['b', 'c'])
  assert.equal((await log.readNext(2)).position, 2n)
  assert.deepEqual(await log.prefixTrim(1), { requested: 1n, effective: 1n, limitedBy: null })
})

test('appends are pipelined in call order', async (t) => {
  const log = await fresh(t)
  const positions = await Promise.all(Array.from({ length: 5000 }, (_, number) => log.append(`${number}`)))
  assert.deepEqual(positions, Array.from({ length: 5000 }, (_, number) => BigInt(number)))
  assert.deepEqual(await texts(log), Array.from({ length: 5000 }, (_, number) => `${number}`))
})

test('a payload is taken at the call', async (t) => {
  const log = await fresh(t)
  const payload = Buffer.from('before')
  const appended = log.append(payload)
  payload.write('after!')
  await appended
  assert.deepEqual(await texts(log), ['before'])
})

test('payloads of every kind', async (t) => {
  const log = await fresh(t)
  const all = new Uint8Array(256).map((_, at) => at)
  const shared = new Uint8Array(new SharedArrayBuffer(3)).fill(7)
  await log.appendMany([Buffer.from('buffer'), all, all.subarray(5, 8), '日本語 \0 ✓', '', new Uint8Array(0), shared])
  const found = await log.read(0).nextBatch()
  const bytes = found.map((entry) => entry.payload)
  assert.deepEqual(
    bytes.map((payload) => [...payload]),
    [[...Buffer.from('buffer')], [...all], [5, 6, 7], [...Buffer.from('日本語 \0 ✓')], [], [], [7, 7, 7]],
  )
})

test('an entry tells what it is', async (t) => {
  const log = await fresh(t)
  const before = Date.now()
  await log.append('{"order": 1}')
  const entry = await log.readNext(0)
  assert(entry instanceof Entry && Buffer.isBuffer(entry.payload))
  assert.deepEqual(entry.json(), { order: 1 })
  assert(entry.writtenAt.getTime() >= before - 1000)
  assert.deepEqual(JSON.parse(JSON.stringify(entry)), {
    position: '0',
    payload: Buffer.from('{"order": 1}').toString('base64'),
    writtenAt: entry.writtenAt.toISOString(),
    writtenAtMicros: entry.writtenAtMicros,
  })
})

test('appendAll takes any iterable, with back-pressure', async (t) => {
  const log = await fresh(t)
  function* numbers() {
    for (let number = 0; number < 20_000; number += 1) yield `${number}`
  }
  async function* later() {
    for (const word of ['x', 'y']) {
      await turn()
      yield word
    }
  }
  assert.deepEqual(await log.appendAll(numbers()), { first: 0n, last: 19_999n, count: 20_000 })
  assert.deepEqual(await log.appendAll(later()), { first: 20_000n, last: 20_001n, count: 2 })
  assert.equal(await log.appendAll([]), null)
  assert.equal((await log.checkTail()).position, 20_002n)
})

test('what an iterator throws ends appendAll, and what came before is in the log', async (t) => {
  const log = await fresh(t)
  function* failing() {
    yield 'kept'
    throw new RangeError('mine')
  }
  await assert.rejects(log.appendAll(failing()), /mine/)
  await log.flush()
  assert.deepEqual(await texts(log), ['kept'])
})

test('a reader ends where it is told, in batches of any size', async (t) => {
  const log = await fresh(t)
  await log.appendMany(['a', 'b', 'c', 'd'])
  const reader = log.read(0, 3)
  assert.equal((await reader.next()).value.text(), 'a')
  assert.equal(reader.position, 1n)
  assert.deepEqual([(await reader.nextBatch(1))[0].text(), reader.position], ['b', 2n])
  assert.deepEqual((await reader.nextBatch()).map((entry) => entry.text()), ['c'])
  assert.deepEqual(await reader.nextBatch(), [])
  assert.deepEqual(await reader.next(), { value: undefined, done: true })
  const sizes = []
  for await (const batch of log.read(0).batches(3)) sizes.push(batch.length)
  assert.equal(sizes.reduce((sum, size) => sum + size), 4)
  assert(sizes.every((size) => size <= 3))
})

test('a subscription goes on, resumes, and a loop that is left closes it', async (t) => {
  const log = await fresh(t)
  await log.append('0')
  const following = log.subscribe('first')
  const seen = []
  for await (const entry of following) {
    seen.push(entry.text())
    if (seen.length === 5) break
    await log.append(`${seen.length}`)
  }
  assert.deepEqual(seen, ['0', '1', '2', '3', '4'])
  await assert.rejects(following.next(), { code: 'CLOSED' })
  const resumed = log.subscribe(3n)
  assert.equal((await resumed.next()).value.text(), '3')
  assert.equal(resumed.position, 4n)
  await resumed.close()
})

test('a subscription to the tail sees what is appended once it has started', async (t) => {
  const log = await fresh(t)
  await log.append('before')
  const following = log.subscribe('tail')
  assert.throws(() => following.position, { code: 'INVALID' })
  await following.started()
  assert.equal(following.position, 1n)
  await log.append('after')
  assert.equal((await following.next()).value.text(), 'after')
  await following.close()
})

test('a subscription ends with a log that was ended', async (t) => {
  const log = await fresh(t)
  await log.append('last')
  const following = log.subscribe('first')
  await following.next()
  const next = following.next()
  assert.deepEqual(await log.seal(), { position: 1n, sealed: true })
  assert.deepEqual(await next, { value: undefined, done: true })
})

test('closing a reader ends whoever waits on it', async (t) => {
  const log = await fresh(t)
  const following = await log.subscribe('tail').started()
  const waiting = following.next()
  await following.close()
  await following.close()
  await assert.rejects(waiting, { code: 'CLOSED' })
  const unborn = log.subscribe('tail')
  await unborn.close()
  await assert.rejects(unborn.started(), { code: 'CLOSED' })
})

test('two waits on one reader are refused, and the first is not disturbed', async (t) => {
  const log = await fresh(t)
  const following = await log.subscribe('tail').started()
  const first = following.next()
  await assert.rejects(following.next(), { code: 'INVALID' })
  await log.append('x')
  assert.equal((await first).value.text(), 'x')
  await following.close()
})

test('a wait that times out loses nothing', async (t) => {
  const log = await fresh(t)
  const following = await log.subscribe('tail').started()
  await assert.rejects(following.nextBatch(10, { timeoutMs: 0 }), { code: 'DEADLINE', retryable: true })
  await log.append('x')
  assert.equal((await following.nextBatch(10, { timeoutMs: 60_000 }))[0].text(), 'x')
  await following.close()
})

test('aborting stops a wait, with its own reason, and loses nothing', async (t) => {
  const log = await fresh(t)
  const following = await log.subscribe('tail').started()
  const reason = new Error('enough')
  const controller = new AbortController()
  const waiting = following.nextBatch(1, { signal: controller.signal })
  controller.abort(reason)
  await assert.rejects(waiting, reason)
  await log.append('x')
  assert.equal((await following.nextBatch(1))[0].text(), 'x')
  await following.close()
})

test('aborting lets go of an append, which is in the log all the same', async (t) => {
  const log = await fresh(t)
  const controller = new AbortController()
  const appended = log.append('x', { signal: controller.signal })
  controller.abort()
  await assert.rejects(appended, { name: 'AbortError' })
  await assert.rejects(log.append('y', { signal: controller.signal }), { name: 'AbortError' })
  await log.flush()
  assert.deepEqual(await texts(log), ['x'])
})

test('a signal that is used again and again is let go of', async (t) => {
  const log = await fresh(t)
  const { signal } = new AbortController()
  let [listeners, most] = [0, 0]
  const add = signal.addEventListener.bind(signal)
  const remove = signal.removeEventListener.bind(signal)
  signal.addEventListener = (...given) => ((most = Math.max(most, (listeners += 1))), add(...given))
  signal.removeEventListener = (...given) => ((listeners -= 1), remove(...given))
  await Promise.all(Array.from({ length: 100 }, () => log.append('x', { signal })))
  await assert.rejects(log.reconfigExtend('no-such-kind', { signal }), { code: 'INVALID' })
  assert.deepEqual([listeners, most], [0, 1])
})

test('an aborted loop ends with the reason', async (t) => {
  const log = await fresh(t)
  await log.append('x')
  const controller = new AbortController()
  const seen = []
  await assert.rejects(async () => {
    for await (const entry of log.subscribe('first', { signal: controller.signal })) {
      seen.push(entry.text())
      controller.abort()
    }
  }, { name: 'AbortError' })
  assert.deepEqual(seen, ['x'])
})

test('chains, plans and reports', async (t) => {
  const log = await fresh(t)
  await log.append('a')
  const before = await log.chain()
  const plan = await log.plan('memory')
  assert.deepEqual([plan.version, plan.tail, plan.objections], [before.version, 1n, []])
  const chain = await log.reconfigExtend('memory', { ifVersion: before.version })
  assert.deepEqual(
    chain.segments.map(({ index, start, stop, loglet }) => [index, start, stop, loglet]),
    [[0, 0n, 1n, 'memory'], [1, 1n, null, 'memory']],
  )
  assert.deepEqual([chain.log, chain.life, chain.next, chain.movedTo], [before.log, 'open', null, null])
  await assert.rejects(log.reconfigTruncate({ ifVersion: BigInt(before.version) }), { code: 'CONFLICT' })
  assert.deepEqual(await log.verify(), { segments: 2, entries: 1, bytes: 1, problems: [] })
})

test('close is idempotent, and disposing closes', async () => {
  const url = memory()
  const log = await open(url, { timeoutMs: 1234 })
  assert.deepEqual([log.name, log.timeoutMs], [url.split(':')[1], 1234])
  await log[Symbol.asyncDispose]()
  await log.close()
  await assert.rejects(log.append('x'), { code: 'CLOSED', retryable: false, inDoubt: false })
})

test('stores are created, listed and deleted', async (t) => {
  const store = `file:${folder(t)}/store/`
  await virtuallog.create(`${store}a`, { loglet: 'local' })
  await assert.rejects(virtuallog.create(`${store}a`), { code: 'CONFLICT' })
  await assert.rejects(open(`${store}b`, { create: false }), { code: 'NOT_FOUND' })
  assert.deepEqual(await virtuallog.logs(store), ['a'])
  await virtuallog.delete(`${store}a`)
  await assert.rejects(virtuallog.delete(`${store}a`), { code: 'NOT_FOUND' })
})

test('a log moves between stores while it is used', async (t) => {
  const directory = folder(t)
  const [src, dst] = [`file:${directory}/a/log`, `file:${directory}/b/log`]
  const log = await open(src)
  await log.append('before')
  const steps = []
  const chain = await virtuallog.move(src, dst, { progress: (step) => steps.push(step.phase) })
  assert.equal(chain.life, 'open')
  assert.equal(await log.append('after'), 1n)
  assert.deepEqual(await texts(log), ['before', 'after'])
  await log.close()
})

test('what progress throws stops a move, which the same call completes', async (t) => {
  const directory = folder(t)
  const [src, dst] = [`file:${directory}/a/log`, `file:${directory}/b/log`]
  const log = await open(src)
  await log.append('kept')
  const mine = new Error('mine')
  const stopped = virtuallog.move(src, dst, { progress: () => { throw mine } })
  // There may be no step between the first and the last.
  await stopped.catch((error) => assert.equal(error, mine))
  await virtuallog.move(src, dst).catch((error) => assert.equal(error.code, 'NOT_FOUND'))
  assert.deepEqual(await texts(log), ['kept'])
  await log.close()
})
