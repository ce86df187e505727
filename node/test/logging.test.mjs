// What the library reports comes out of the application's own logger, and only when it is asked for.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { test } from 'node:test'

import { Server, logTo } from 'virtuallog'

import { folder, run } from './stores.mjs'

/** A connection that ends before it said anything is reported, as debugging. */
async function provoke(server) {
  const [host, port] = server.address.split(':')
  const socket = connect(Number(port), host)
  await once(socket, 'connect')
  socket.destroy()
}

test('reports reach the logger, and what it throws is its own affair', async (t) => {
  const warned = []
  const note = (warning) => warned.push(warning.message)
  process.on('warning', note)
  let first
  const reported = new Promise((resolve) => (first = resolve))
  const debug = (message) => {
    first(message)
    throw new Error('mine')
  }
  logTo({ error: debug, warn: debug, info: debug, debug }, 'debug')
  const server = await Server.start(`${folder(t)}/data`)
  await provoke(server)
  assert.match(await reported, /^virtuallog\..*: ./)
  await server.close()
  logTo(console, 'off')
  while (!warned.some((message) => message.includes('mine'))) await new Promise(setImmediate)
  process.off('warning', note)
})

test('a level or a logger that is none', () => {
  assert.throws(() => logTo(console, 'loud'), { code: 'INVALID' })
  assert.throws(() => logTo(console, 3), { name: 'TypeError' })
  for (const logger of [undefined, null, {}, { error() {} }, () => {}]) {
    assert.throws(() => logTo(logger), { name: 'TypeError' })
  }
})

const PROGRAM = `
  import { once } from 'node:events'
  import { mkdtempSync, rmSync } from 'node:fs'
  import { connect } from 'node:net'
  import { Server } from 'virtuallog'
  const folder = mkdtempSync('/tmp/virtuallog-test-')
  const server = await Server.start(folder + '/data')
  const [host, port] = server.address.split(':')
  const socket = connect(Number(port), host)
  await once(socket, 'connect')
  socket.destroy()
  await server.ready({ timeoutMs: 500 }).catch(() => {})
  await server.close()
  rmSync(folder, { recursive: true })`

test('the variable turns it on', async () => {
  for (const [level, wanted] of [['debug', true], ['', false], ['off', false]]) {
    const { status, stderr } = await run(PROGRAM, { env: { VIRTUALLOG_LOG: level } })
    assert.equal(status, 0, stderr)
    assert.equal(/^virtuallog\.server/m.test(stderr), wanted, stderr)
  }
})

test('a wrong variable is a warning and no failure', async () => {
  const { status, stderr } = await run("import 'virtuallog'", { env: { VIRTUALLOG_LOG: 'loud' }, flags: [] })
  assert.equal(status, 0)
  assert.match(stderr, /VIRTUALLOG_LOG/)
})
