// Wrong arguments: each gets its typed error, as a rejection, and nothing happens.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { runInNewContext } from 'node:vm'

import * as virtuallog from 'virtuallog'
import { Server, VirtualLogError, open } from 'virtuallog'
import { LocalCluster } from 'virtuallog/testing'

import { folder, fresh, memory } from './stores.mjs'

const WRONG_TYPE = { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' }
const INVALID = { name: 'VirtualLogError', code: 'INVALID', retryable: false, inDoubt: false }

/** Something of every kind that is nothing of use here. */
const OBJECTS = [null, true, Symbol('s'), () => {}, {}, [], new Map(), new Proxy({}, {}), Object.create(null)]

function detached() {
  const bytes = new Uint8Array(8)
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] })
  return bytes
}

/** An array of eight bytes, of which only four are left. */
function shrunk() {
  const memory = new ArrayBuffer(8, { maxByteLength: 8 })
  const bytes = new Uint8Array(memory, 0, 8)
  memory.resize(4)
  return bytes
}

test('a payload that is none', async (t) => {
  const log = await fresh(t)
  const wrong = [...OBJECTS, undefined, 7, 7n, ['x'], new ArrayBuffer(1), new DataView(new ArrayBuffer(1))]
  wrong.push(new Int8Array(1), new Uint16Array(1), new Uint8ClampedArray(1), new BigUint64Array(1))
  wrong.push(detached(), shrunk(), { length: 1, 0: 7 }, { toString: () => 'x' })
  for (const payload of wrong) {
    await assert.rejects(log.append(payload), WRONG_TYPE)
    await assert.rejects(log.appendNowait(payload), WRONG_TYPE)
    await assert.rejects(log.appendMany(['fine', payload]), WRONG_TYPE)
    await assert.rejects(log.appendAll([payload]), WRONG_TYPE)
  }
  assert.equal((await log.checkTail()).position, 0n)
})

test('an array of no bytes is a payload', async (t) => {
  const log = await fresh(t)
  for (const payload of [new Uint8Array(0), new Uint8Array(new ArrayBuffer(8), 8), Buffer.alloc(0)]) await log.append(payload)
  assert.equal((await log.checkTail()).position, 3n)
})

test('a payload of another realm is one', async (t) => {
  const log = await fresh(t)
  await log.append(runInNewContext('new Uint8Array([111, 107])'))
  assert.equal((await log.readNext(0)).text(), 'ok')
})

test('a batch that is none', async (t) => {
  const log = await fresh(t)
  for (const payloads of [undefined, null, 7, 'text', Buffer.from('text'), {}, Promise.resolve([])]) {
    await assert.rejects(log.appendMany(payloads), WRONG_TYPE)
    await assert.rejects(log.appendAll(payloads), WRONG_TYPE)
  }
  await assert.rejects(log.appendMany([]), INVALID)
  await assert.rejects(log.appendMany(Array(1025).fill('x')), { code: 'TOO_LARGE' })
  const mine = new Error('mine')
  const throwing = { *[Symbol.iterator]() { throw mine } }
  await assert.rejects(log.appendMany(throwing), mine)
  await assert.rejects(log.appendMany({ get [Symbol.iterator]() { throw mine } }), mine)
  assert.equal((await log.checkTail()).position, 0n)
})

test('a position that is no number', async (t) => {
  const log = await fresh(t)
  for (const position of [...OBJECTS.slice(1), '0', '', new Date(), Object(1n), Buffer.from([0])]) {
    for (const call of [() => log.read(position).next(), () => log.readNext(position), () => log.prefixTrim(position)]) {
      await assert.rejects(async () => call(), WRONG_TYPE)
    }
    await assert.rejects(log.reconfigTruncate({ ifVersion: position }), WRONG_TYPE)
  }
})

test('a position out of range', async (t) => {
  const log = await fresh(t)
  const wrong = [-1, -0.5, 0.5, 1.5, NaN, Infinity, -Infinity, 2 ** 53, 2 ** 64, 1e300, -1n, 2n ** 64n, 2n ** 1000n]
  for (const position of wrong) {
    for (const call of [
      () => log.read(position).next(),
      () => log.read(0, position).next(),
      () => log.readNext(position),
      () => log.prefixTrim(position),
      () => log.subscribe(position).next(),
      () => log.reconfigExtend('memory', { ifVersion: position }),
      () => log.reconfigModify(position, 'memory'),
    ]) {
      await assert.rejects(async () => call(), INVALID)
    }
  }
  await assert.rejects(log.reconfigModify(2 ** 32, 'memory'), INVALID)
  await assert.rejects(log.read(2n ** 64n - 1n).next(), INVALID)
  assert.equal((await log.prefixTrim(2n ** 64n - 1n)).limitedBy, 'tail')
})

test('a start that is none', async (t) => {
  const log = await fresh(t)
  await assert.rejects(log.subscribe('end').next(), INVALID)
  await assert.rejects(log.subscribe('').started(), INVALID)
  await assert.rejects(log.subscribe(undefined).next(), WRONG_TYPE)
})

test('a timeout that cannot be', async (t) => {
  const log = await fresh(t)
  for (const timeoutMs of [-1, -0.1, NaN, -Infinity]) {
    await assert.rejects(log.checkTail({ timeoutMs }), INVALID)
    await assert.rejects(log.append('x', { timeoutMs }), INVALID)
  }
  for (const timeoutMs of ['1', true, [1], 1n, {}]) await assert.rejects(log.append('x', { timeoutMs }), WRONG_TYPE)
  for (const timeoutMs of [null, Infinity, 1e300, Number.MAX_VALUE, undefined]) await log.append('x', { timeoutMs })
  assert.equal((await log.checkTail()).position, 5n)
})

test('options that are none', async (t) => {
  const log = await fresh(t)
  for (const options of [null, 1000, '1000', true, () => {}]) {
    await assert.rejects(log.append('x', options), WRONG_TYPE)
    await assert.rejects(log.chain(options), WRONG_TYPE)
    await assert.rejects(log.read(0, null, options).next(), WRONG_TYPE)
    await assert.rejects(open(memory(), options), WRONG_TYPE)
  }
  for (const signal of [null, 7, {}, { aborted: false }, new EventTarget()]) {
    await assert.rejects(log.append('x', { signal }), WRONG_TYPE)
  }
  const mine = new Error('mine')
  await assert.rejects(log.append('x', { get timeoutMs() { throw mine } }), mine)
  assert.equal((await log.checkTail()).position, 0n)
})

test('a batch size of nothing', async (t) => {
  const log = await fresh(t)
  await log.append('x')
  await log.append('y')
  const reader = log.read(0)
  const refused = async () => {
    for (const size of [0, -1, 0.5, 2 ** 32, NaN]) await assert.rejects(reader.nextBatch(size), INVALID)
    await assert.rejects(reader.nextBatch('1'), WRONG_TYPE)
  }
  await refused()
  await reader.next()
  await refused()
  assert.equal((await reader.nextBatch(5)).length, 1)
})

test('words that are none', async (t) => {
  const log = await fresh(t)
  for (const word of [...OBJECTS, undefined, 7]) {
    await assert.rejects(log.reconfigExtend(word), WRONG_TYPE)
    await assert.rejects(log.plan(word), WRONG_TYPE)
    await assert.rejects(log.resolve(word), WRONG_TYPE)
    for (const call of [open, virtuallog.create, virtuallog.delete, virtuallog.logs, virtuallog.nodes]) {
      await assert.rejects(call(word), WRONG_TYPE)
    }
    await assert.rejects(virtuallog.move(word, 'memory:'), WRONG_TYPE)
    await assert.rejects(virtuallog.init(word === undefined ? 'a' : [word]), WRONG_TYPE)
    await assert.rejects(Server.start(word), WRONG_TYPE)
  }
  await assert.rejects(log.resolve('not a token'), INVALID)
  await assert.rejects(open('memory:', { mode: 'append' }), INVALID)
  await assert.rejects(open('mem:x'), INVALID)
  await assert.rejects(open('memory:\0'), INVALID)
  await assert.rejects(open('memory:\ud800'), INVALID)
})

test('limits that cannot be', async () => {
  await assert.rejects(open(memory(), { entryBytesMax: -1 }), INVALID)
  await assert.rejects(open(memory(), { entryBytesMax: 1.5 }), INVALID)
  await assert.rejects(open(memory(), { entryBytesMax: '1' }), WRONG_TYPE)
  await assert.rejects(open(memory(), { create: 'no' }), WRONG_TYPE)
  await assert.rejects(open(memory(), { entryBytesMax: 17 << 20 }), VirtualLogError)
})

test('servers and clusters that cannot be', async (t) => {
  const data = `${folder(t)}/data`
  await assert.rejects(Server.start(data, { roles: ['leader'] }), INVALID)
  await assert.rejects(Server.start(data, { roles: 'log' }), WRONG_TYPE)
  await assert.rejects(Server.start(data, { listen: '0.0.0.0:0' }), INVALID)
  await assert.rejects(Server.start(`${data}/no/such/parent`), VirtualLogError)
  await assert.rejects(virtuallog.init([]), INVALID)
  await assert.rejects(virtuallog.init('127.0.0.1:1'), WRONG_TYPE)
  await assert.rejects(virtuallog.drain('virtuallog://127.0.0.1:1/', -1), INVALID)
  await assert.rejects(LocalCluster.start({ nodes: 0 }), INVALID)
  await assert.rejects(LocalCluster.start({ nodes: 1.5 }), INVALID)
})

test('a method of a handle that nobody made', async () => {
  for (const method of ['append', 'appendMany', 'checkTail', 'read', 'subscribe', 'close']) {
    await assert.rejects(async () => virtuallog.Log.prototype[method].call({}, ['x']), TypeError)
  }
  await assert.rejects(new virtuallog.Log({}).append('x'), TypeError)
})
