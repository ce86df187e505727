// Runs `bindings/conformance/*.toml`, over every kind of store and on clusters of their own.
//
// The format is told in `bindings/conformance/README.md`; every language has a runner like this one.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, openSync, closeSync, readFileSync, readdirSync, renameSync, rmSync, writeSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { parse } from 'smol-toml'
import * as virtuallog from 'virtuallog'
import { LocalCluster } from 'virtuallog/testing'

import { folder } from './stores.mjs'

const FOLDER = new URL('../../bindings/conformance/', import.meta.url)
const SCENARIOS = readdirSync(FOLDER)
  .filter((file) => file.endsWith('.toml'))
  .map((file) => ({ name: file.replace('.toml', ''), ...parse(readFileSync(new URL(file, FOLDER), 'utf8')) }))
const KINDS = { memory: 'memory', file: 'file', virtuallog: 'cluster' }
const LOGLETS = { memory: 'memory', file: 'local', cluster: 'native' }
// What a step gives to the call of the same name, in order.
const POSITIONAL = ['payload', 'payloads', 'segment', 'loglet', 'token', 'start', 'keep_from', 'end']
/** So long a timeout that a machine that is busy is no failure. */
const PATIENT = 60_000

let runs = 0

/** Listens on loopback, and answers whatever connects with these bytes alone. */
class Impostor {
  #server

  static async start(answer) {
    const impostor = new Impostor()
    // Not ended: what came and nobody has read would take the answer away.
    impostor.#server = createServer((socket) => socket.on('error', () => {}).resume().write(answer))
    await once(impostor.#server.listen(0, '127.0.0.1'), 'listening')
    return impostor
  }

  get address() {
    return `127.0.0.1:${this.#server.address().port}`
  }

  async close() {
    await new Promise((resolve) => this.#server.close(resolve))
  }
}

/** Runs a scenario over the store of this URL; what it makes itself goes into `folder`. */
class Runner {
  #suffix = `-js${(runs += 1)}`
  #handles = new Map()
  #begun = new Map()
  #saved = new Map()
  #named = new Map()

  constructor(store, folder, cluster) {
    this.store = store
    this.folder = folder
    this.cluster = cluster
    this.kind = KINDS[store.split(':')[0]]
  }

  async run(steps) {
    this.#handles.set('main', await virtuallog.open(this.#fill('{main}'), { timeoutMs: PATIENT }))
    for (const [at, step] of steps.entries()) {
      const place = `step ${at + 1}: ${JSON.stringify(step)}`
      const [result, error] = await this.#do(step).then((result) => [result], (error) => [undefined, error])
      if (step.error !== undefined) {
        this.#fails(step, error, place)
        continue
      }
      assert.equal(error, undefined, `${error?.stack}: ${place}`)
      if (step.save !== undefined) this.#saved.set(step.save, BigInt(result?.version ?? result))
      if (step.expect !== undefined) this.#compare(result, step.expect, place)
    }
    for (const kind of [virtuallog.Reader, virtuallog.Log, virtuallog.Server, Impostor]) {
      for (const handle of this.#handles.values()) if (handle instanceof kind) await handle.close()
    }
  }

  #fails(step, error, place) {
    assert(error instanceof virtuallog.VirtualLogError, `${error?.stack ?? 'no error'}: ${place}`)
    assert.equal(error.code, step.error, `${error.stack}: ${place}`)
    assert.equal(error.inDoubt, step.in_doubt ?? false, `${error.stack}: ${place}`)
    assert.equal(error.token !== null, error.inDoubt, place)
    assert.equal(error.retryable, step.retryable ?? error.retryable, place)
    assert.notEqual(error.message, '', place)
    if (step.error_position !== undefined) assert.equal(error.position, this.#number(step.error_position), place)
    if (step.save_token !== undefined) this.#saved.set(step.save_token, error.token)
  }

  async #do(step) {
    switch (step.do) {
      case 'await':
        return this.#take(this.#begun, step.of).promise
      case 'cancel': {
        const { promise, controller } = this.#take(this.#begun, step.of)
        controller.abort()
        await assert.rejects(promise, { name: 'AbortError' })
        return null
      }
      case 'impostor':
        this.#handles.set(step.as, await Impostor.start(payload(step.payload)))
        return null
      case 'stop':
      case 'start': {
        const nodes = await Promise.all([step.node].flat().map((node) => this.#node(node)))
        return this.cluster[step.do](...nodes)
      }
      case 'overwrite':
      case 'rename':
        return this.#meddle(step)
      case 'open':
      case 'create':
      case 'delete':
      case 'logs':
      case 'move':
      case 'nodes':
      case 'drain':
      case 'remove':
        return this.#ofStore(step)
      case 'init':
      case 'serve':
      case 'ready':
      case 'drain_server':
      case 'close_server':
      case 'server':
        return this.#ofServer(step)
      case 'next':
      case 'position':
      case 'close_reader':
        return this.#ofReader(step)
      default:
        return this.#ofLog(step)
    }
  }

  async #ofStore(step) {
    const url = this.#fill(step.url)
    const options = this.#options(step, ['create', 'mode', 'entry_bytes_max', 'in_flight_bytes_max', 'leave_sealed'])
    if (step.loglet !== undefined) options.loglet = this.#fill(step.loglet)
    if (step.do === 'move') return virtuallog.move(url, this.#fill(step.to), options)
    if (step.node !== undefined) return virtuallog[step.do](url, await this.#node(step.node), options)
    const result = await virtuallog[step.do](url, options)
    if (step.do === 'open') this.#handles.set(step.as ?? step.log, result)
    if (step.do !== 'logs') return result
    const own = result.filter((name) => name.endsWith(this.#suffix))
    return own.length > 0 ? own.map((name) => name.slice(0, -this.#suffix.length)) : result
  }

  async #ofServer(step) {
    const options = this.#options(step, [])
    if (step.do === 'init') return virtuallog.init(step.addresses.map((address) => this.#fill(address)), options)
    if (step.do === 'serve') {
      if (step.listen !== undefined) options.listen = this.#fill(step.listen)
      options.join = (step.join ?? []).map((address) => this.#fill(address))
      this.#handles.set(step.as, await virtuallog.Server.start(join(this.folder, step.data), options))
      return null
    }
    const server = this.#handles.get(step.server)
    if (step.do === 'server') return { node: server.node }
    return server[step.do.replace('_server', '')](options)
  }

  async #ofReader(step) {
    const reader = this.#handles.get(step.reader)
    if (step.do === 'position') return reader.position
    if (step.do === 'close_reader') return reader.close()
    const options = this.#options(step, [])
    if (step.begin !== undefined) return this.#begin(step, (signal) => reader.nextBatch(1, { ...options, signal }))
    const entries = []
    const take = step.take ?? 1
    while (entries.length < take) {
      const batch = await reader.nextBatch(Math.min(take - entries.length, 64), options)
      if (batch.length === 0) break
      entries.push(...batch)
    }
    return entries
  }

  async #ofLog(step) {
    const log = this.#handles.get(step.log ?? 'main')
    const given = POSITIONAL.filter((key) => step[key] !== undefined).map((key) => this.#argument(key, step[key]))
    if (['read', 'read_next'].includes(step.do) && given.length < 2) given.push(undefined)
    const options = this.#options(step, [])
    if (step.if_version !== undefined) options.ifVersion = this.#number(step.if_version)
    const call = (signal) => log[camel(step.do)](...given, signal === undefined ? options : { ...options, signal })
    if (step.begin !== undefined) return this.#begin(step, call)
    const result = call()
    if (!(result instanceof virtuallog.Reader)) return result
    if (step.as !== undefined) {
      this.#handles.set(step.as, await result.started())
      return null
    }
    const entries = []
    for await (const entry of result) {
      entries.push(entry)
      if (entries.length === step.take) break
    }
    return entries
  }

  #begin(step, call) {
    const controller = new AbortController()
    const promise = call(controller.signal)
    // It may fail before anybody awaits it.
    promise.catch(() => {})
    this.#begun.set(step.begin, { promise, controller })
    return null
  }

  #meddle(step) {
    const store = this.store.replace('file:', '')
    if (step.do === 'rename') return renameSync(join(store, step.file), join(store, step.to))
    const file = openSync(join(store, step.file), 'r+')
    writeSync(file, payload(step.payload), 0, undefined, step.at)
    return closeSync(file)
  }

  #options(step, keys) {
    const given = keys.filter((key) => step[key] !== undefined).map((key) => [camel(key), step[key]])
    return { ...Object.fromEntries(given), ...(step.timeout === undefined ? {} : { timeoutMs: step.timeout * 1000 }) }
  }

  #argument(key, value) {
    if (key === 'payload') return payload(value)
    if (key === 'payloads') return payloads(value)
    if (key === 'loglet') return this.#fill(value)
    if (key === 'token') return value.startsWith('$') ? this.#saved.get(value.slice(1)) : value
    return value === 'first' || value === 'tail' ? value : this.#number(value)
  }

  /** A node's number, by it or by what the node is to the only log. */
  async #node(node) {
    if (typeof node === 'number') return node
    if (this.#named.size === 0) {
      const { nodes } = await virtuallog.nodes(this.store)
      const [sequencer] = nodes.filter((row) => row.sequences > 0)
      this.#named.set('sequencer', sequencer.node)
      const followers = nodes.filter((row) => row.sequences === 0)
      followers.forEach((row, at) => this.#named.set(`follower-${at + 1}`, row.node))
    }
    return this.#named.get(node)
  }

  #fill(text) {
    return text.replace(/\{([^}]*)\}/g, (_, what) => {
      const [kind, server] = what.split(':')
      if (server !== undefined) return this.#handles.get(server)[kind]
      const logs = this.kind === 'memory' ? 'memory:' : this.store
      const known = { store: this.store, loglet: LOGLETS[this.kind], away: `file:${this.folder}/away/` }
      return known[what] ?? `${logs}${what}${this.#suffix}`
    })
  }

  #number(value) {
    if (typeof value !== 'string') return BigInt(value)
    const [, name, sum] = /^\$(\w+)([+-]\d+)?$/.exec(value)
    return this.#saved.get(name) + BigInt(Number(sum ?? 0))
  }

  #take(from, name) {
    const found = from.get(name)
    from.delete(name)
    return found
  }

  #compare(result, expected, place) {
    if (expected === 'none') {
      assert.equal(result ?? null, null, place)
    } else if (Array.isArray(expected) && typeof result[0] === 'string') {
      assert.deepEqual(result, expected, place)
    } else if (Array.isArray(expected) || expected.numbered !== undefined) {
      const [found, wanted] = [result.map((entry) => entry.payload), payloads(expected)]
      assert(found.length === wanted.length && found.every((bytes, at) => bytes.equals(wanted[at])), place)
      for (let at = 1; at < result.length; at += 1) assert(result[at - 1].position < result[at].position, place)
    } else if (typeof expected === 'object') {
      for (const [name, wanted] of Object.entries(expected)) {
        const found = field(result, name)
        const number = typeof found === 'bigint' || typeof found === 'number'
        const told = number ? this.#number(wanted) : wanted === 'none' ? null : wanted
        assert.equal(number ? BigInt(found) : found, told, `${place}: ${name}`)
      }
    } else {
      assert.equal(result, this.#number(expected), place)
    }
  }
}

/** A field by its name in the scenarios: collections by how many there are. */
function field(result, name) {
  if (result.nodes !== undefined && name !== 'nodes') return result.nodes.filter((node) => node[name]).length
  const found = result[camel(name)]
  return Array.isArray(found) ? found.length : Buffer.isBuffer(found) ? found.toString() : found
}

function payloads(value) {
  if (Array.isArray(value)) return value.map(payload)
  return Array.from({ length: value.numbered }, (_, number) => Buffer.from(`${number}`))
}

function payload(value) {
  if (typeof value === 'string') return Buffer.from(value)
  return value.hex === undefined ? Buffer.from(value.repeat.repeat(value.count)) : Buffer.from(value.hex, 'hex')
}

function camel(name) {
  return name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase())
}

test('there are scenarios', () => assert(SCENARIOS.length >= 80))

const stores = {
  memory: async () => ['memory:/', () => {}],
  file: async () => {
    const directory = mkdtempSync(join(tmpdir(), 'virtuallog-test-'))
    return [`file:${directory}/`, () => rmSync(directory, { recursive: true })]
  },
  cluster: async () => {
    const cluster = await LocalCluster.start()
    return [cluster.url, () => cluster.close()]
  },
}

for (const [kind, make] of Object.entries(stores)) {
  describe(`over ${kind}`, () => {
    let store, close
    before(async () => ([store, close] = await make()))
    after(() => close())
    for (const { name, step, over, nodes } of SCENARIOS) {
      if (nodes !== undefined || !(over ?? [kind]).includes(kind)) continue
      // Files of one scenario's store are meddled with: each has its own.
      test(name, (t) => new Runner(kind === 'file' ? `${store}${name}/` : store, folder(t)).run(step))
    }
  })
}

describe('on a cluster of its own', () => {
  for (const { name, step, nodes } of SCENARIOS) {
    if (nodes === undefined) continue
    test(name, async (t) => {
      const cluster = await LocalCluster.start({ nodes })
      try {
        await new Runner(cluster.url, folder(t), cluster).run(step)
      } finally {
        await cluster.close()
      }
    })
  }
})
