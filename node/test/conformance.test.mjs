// Runs `bindings/conformance/*.toml`, over every kind of store.
//
// The format is told in `bindings/conformance/README.md`; every language has a runner like this one.

import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'

import { parse } from 'smol-toml'
import * as virtuallog from 'virtuallog'
import { LocalCluster } from 'virtuallog/testing'

const FOLDER = new URL('../../bindings/conformance/', import.meta.url)
const SCENARIOS = readdirSync(FOLDER).filter((file) => file.endsWith('.toml'))
const LOGLETS = { memory: 'memory', file: 'local', virtuallog: 'native' }

let runs = 0

/** Runs a scenario over the store of this URL. */
class Runner {
  #suffix = `-js${(runs += 1)}`
  #store
  #urls
  #loglet
  #handles = new Map()
  #saved = new Map()

  constructor(store) {
    this.#store = store
    this.#urls = store === 'memory:/' ? 'memory:' : store
    this.#loglet = LOGLETS[store.split(':')[0]]
  }

  async run(steps) {
    this.#handles.set('main', await virtuallog.open(this.#fill('{main}')))
    for (const [at, step] of steps.entries()) {
      const place = `step ${at + 1}: ${JSON.stringify(step)}`
      if (step.error !== undefined) {
        const error = await this.#do(step).then(
          () => assert.fail(`no error: ${place}`),
          (error) => error,
        )
        assert(error instanceof virtuallog.VirtualLogError, `${error.stack}: ${place}`)
        assert.equal(error.code, step.error, place)
        assert.equal(error.inDoubt, false, place)
        if (step.error_position !== undefined) assert.equal(error.position, this.#number(step.error_position), place)
        continue
      }
      const result = await this.#do(step).catch((error) => assert.fail(`${error.stack}: ${place}`))
      if (step.save !== undefined) this.#saved.set(step.save, BigInt(result?.version ?? result))
      if (step.expect !== undefined) this.#compare(result, step.expect, place)
    }
    for (const log of this.#handles.values()) await log.close()
  }

  async #do(step) {
    switch (step.do) {
      case 'open':
        this.#handles.set(step.log, await virtuallog.open(this.#fill(step.url), { create: step.create }))
        return null
      case 'logs': {
        const names = await virtuallog.logs(this.#fill(step.url))
        const own = names.filter((name) => name.endsWith(this.#suffix))
        return own.map((name) => name.slice(0, -this.#suffix.length))
      }
      case 'create':
      case 'delete':
        return virtuallog[step.do](this.#fill(step.url))
    }
    const log = this.#handles.get(step.log ?? 'main')
    if (step.do === 'subscribe') {
      const word = step.start === 'first' || step.start === 'tail'
      return this.#take(log.subscribe(word ? step.start : this.#number(step.start)), step.take ?? 1)
    }
    const given = []
    if (step.payload !== undefined) given.push(payload(step.payload))
    if (step.payloads !== undefined) given.push(step.payloads.map(payload))
    if (step.loglet !== undefined) given.push(this.#fill(step.loglet))
    for (const key of ['start', 'keep_from', 'end']) if (step[key] !== undefined) given.push(this.#number(step[key]))
    if (step.if_version !== undefined) given.push({ ifVersion: this.#number(step.if_version) })
    const result = log[camel(step.do)](...given)
    return step.do === 'read' ? this.#take(result, Infinity) : result
  }

  async #take(reader, count) {
    const entries = []
    for await (const entry of reader) {
      entries.push(entry)
      if (entries.length === count) break
    }
    return entries
  }

  #fill(text) {
    const name = /^\{(.*)\}$/.exec(text)?.[1]
    if (name === undefined) return text
    return { store: this.#store, loglet: this.#loglet }[name] ?? `${this.#urls}${name}${this.#suffix}`
  }

  #number(value) {
    if (typeof value !== 'string') return BigInt(value)
    const [, name, sum] = /^\$(\w+)([+-]\d+)?$/.exec(value)
    return this.#saved.get(name) + BigInt(Number(sum ?? 0))
  }

  #compare(result, expected, place) {
    if (expected === 'none') {
      assert.equal(result ?? null, null, place)
    } else if (Array.isArray(expected)) {
      if (!(result[0] instanceof virtuallog.Entry)) return assert.deepEqual(result, expected, place)
      const payloads = result.map((entry) => entry.payload)
      assert(payloads.length === expected.length && payloads.every((bytes, at) => bytes.equals(payload(expected[at]))), place)
      for (let at = 1; at < result.length; at += 1) assert(result[at - 1].position < result[at].position, place)
    } else if (typeof expected === 'object') {
      for (const [name, wanted] of Object.entries(expected)) {
        const found = result[camel(name)]
        const told = Array.isArray(found) ? found.length : found instanceof Buffer ? found.toString() : found
        if (typeof told === 'bigint' || typeof told === 'number') {
          assert.equal(BigInt(told), this.#number(wanted), `${place}: ${name}`)
        } else {
          assert.equal(told, wanted === 'none' ? null : wanted, `${place}: ${name}`)
        }
      }
    } else {
      assert.equal(result, this.#number(expected), place)
    }
  }
}

function payload(value) {
  return Buffer.from(typeof value === 'string' ? value : value.repeat.repeat(value.count))
}

function camel(name) {
  return name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase())
}

test('there are scenarios', () => assert(SCENARIOS.length >= 15))

const stores = {
  memory: async () => ['memory:/', () => {}],
  file: async () => {
    const directory = mkdtempSync(join(tmpdir(), 'virtuallog-test-'))
    return [`file:${directory}/store/`, () => rmSync(directory, { recursive: true })]
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
    for (const file of SCENARIOS) {
      test(file.replace('.toml', ''), async () => {
        await new Runner(store).run(parse(readFileSync(new URL(file, FOLDER), 'utf8')).step)
      })
    }
  })
}
