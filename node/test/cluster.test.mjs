// Servers in this process, clusters of processes, and what is done to them.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { test } from 'node:test'

import * as virtuallog from 'virtuallog'
import { Server, open } from 'virtuallog'
import { LocalCluster } from 'virtuallog/testing'

import { folder, run, texts } from './stores.mjs'

/** A cluster of one. */
async function alone(t) {
  let server
  t.after(() => server?.close())
  server = await Server.start(`${folder(t)}/data`)
  await virtuallog.init([server.address])
  await server.ready()
  return server
}

test('a server tells who it is', async (t) => {
  const server = await Server.start(`${folder(t)}/data`, { zone: 'here' })
  assert.deepEqual([server.node, server.cluster], [null, null])
  await assert.rejects(server.ready({ timeoutMs: 0 }), { code: 'DEADLINE' })
  const made = await virtuallog.init([server.address])
  await server.ready()
  assert.deepEqual([server.node, server.cluster], [1, made.id])
  assert.equal(server.url, `virtuallog://${server.address}/`)
  assert.equal(made.url, server.url)
  const { nodes } = await virtuallog.nodes(server.url)
  const { storage, ...node } = nodes[0]
  assert.match(storage, /^[0-9a-f]{32}$/)
  assert.deepEqual(node, {
    node: 1, address: server.address, zone: 'here', roles: ['log', 'sequencer', 'metastore'],
    metastore: true, alive: true, draining: false, sequences: 0,
  })
  await server.close()
})

test('a closed server says so and comes back with all it had', async (t) => {
  const data = `${folder(t)}/data`
  const server = await Server.start(data)
  await virtuallog.init([server.address])
  const url = `${server.url}log`
  const log = await open(url)
  await log.append('kept')
  await log.close()
  const waiting = server.ready({ timeoutMs: null }).catch((error) => assert.equal(error.code, 'CLOSED'))
  await server.close()
  await server.close()
  await waiting
  for (const look of [() => server.node, () => server.cluster]) assert.throws(look, { code: 'CLOSED' })
  for (const call of ['ready', 'drain']) await assert.rejects(server[call](), { code: 'CLOSED' })
  const again = await Server.start(data, { listen: server.address })
  await again.ready()
  const reopened = await open(url, { create: false })
  assert.deepEqual(await texts(reopened), ['kept'])
  await reopened.close()
  await again[Symbol.asyncDispose]()
})

test('what cannot be is refused', async (t) => {
  const directory = folder(t)
  const server = await Server.start(`${directory}/data`)
  await assert.rejects(Server.start(`${directory}/data`), { code: 'LOCKED', retryable: true })
  await assert.rejects(Server.start(`${directory}/other`, { listen: server.address }), { code: 'UNAVAILABLE' })
  await assert.rejects(open(`${server.url}log`), { code: 'INVALID' })
  await server.close()
  await assert.rejects(virtuallog.nodes(server.url), { code: 'UNAVAILABLE' })
  await assert.rejects(virtuallog.nodes('memory:/'), { code: 'INVALID' })
})

test('an application is its own replica', async (t) => {
  const server = await alone(t)
  const log = await open(`${server.url}log`)
  await log.appendMany(['a', 'b'])
  await log.reconfigExtend('native')
  await log.append('c')
  assert.deepEqual(await texts(log), ['a', 'b', 'c'])
  await log.close()
})

test('a local cluster goes on with any one node stopped', async () => {
  const cluster = await LocalCluster.start()
  const log = await open(`${cluster.url}log`)
  for (const node of [1, 2, 3]) {
    await log.append(`before ${node}`)
    await cluster.stop(node)
    assert.deepEqual(cluster.nodes.map((each) => each.pid !== null), [1, 2, 3].map((each) => each !== node))
    await log.append(`without ${node}`)
    await cluster.start(node)
  }
  assert.equal((await texts(log)).length, 6)
  await cluster.stop(3)
  await assert.rejects(cluster.start(3, { timeoutMs: 0 }), { code: 'DEADLINE' })
  for (const call of [() => cluster.start(1), () => cluster.start(0), () => cluster.stop(7)]) {
    await assert.rejects(call, { code: 'INVALID' })
  }
  await log.close()
  await cluster.close()
  await cluster.close()
  assert(cluster.nodes.every((node) => !existsSync(node.dir)))
})

test('a full window is BUSY for who will not wait, and what nobody answers is in doubt', async () => {
  const cluster = await LocalCluster.start({ nodes: 1 })
  const log = await open(`${cluster.url}log`, { inFlightBytesMax: 1 << 20 })
  await log.append('answered')
  await cluster.stop(1)
  const lost = log.append(Buffer.alloc(900_000), { timeoutMs: 500 })
  await assert.rejects(log.appendNowait(Buffer.alloc(200_000)), { code: 'BUSY', retryable: true, inDoubt: false })
  const error = await lost.then(() => assert.fail('nobody could answer'), (error) => error)
  assert.deepEqual([error.code, error.inDoubt, error.retryable], ['DEADLINE', true, false])
  await cluster.start(1)
  // What was in doubt is settled where its segment ends: by this, or by the cluster itself.
  let position
  while (position === undefined) {
    const { version } = await log.chain()
    await log.reconfigExtend('native', { ifVersion: version }).catch(({ code }) => assert.equal(code, 'CONFLICT'))
    position = await log.resolve(error.token).catch(({ code }) => void assert.equal(code, 'UNAVAILABLE'))
  }
  assert(position === null || position === 1n, String(position))
  await log.close().catch(() => {})
  await cluster.close()
})

test('a cluster is found again in its directory, and a daemon that fails says why', async (t) => {
  const dir = `${folder(t)}/not/made/yet`
  for (const [before, position] of [[[], 0n], [['kept'], 1n]]) {
    const cluster = await LocalCluster.start({ nodes: 1, dir })
    const log = await open(`${cluster.url}log`)
    assert.deepEqual(await texts(log), before)
    assert.equal(await log.append('kept'), position)
    await assert.rejects(LocalCluster.start({ nodes: 1, dir }), { code: 'UNAVAILABLE', message: /LOCKED/ })
    await log.close()
    await cluster.close()
  }
})

test('a node is drained and removed', async () => {
  const cluster = await LocalCluster.start({ nodes: 4 })
  const log = await open(`${cluster.url}log`)
  await log.append('a')
  const { nodes } = await virtuallog.nodes(cluster.url)
  const { node } = nodes.find((each) => each.sequences > 0)
  await virtuallog.drain(cluster.url, node)
  await log.append('b')
  // The node that is asked may hear of it from another, a moment later.
  let drained
  do drained = (await virtuallog.nodes(cluster.url)).nodes[node - 1]
  while (!drained.draining || drained.sequences > 0)
  await virtuallog.remove(cluster.url, node)
  while ((await virtuallog.nodes(cluster.url)).nodes.some((each) => each.node === node));
  await cluster.stop(node)
  await log.append('c')
  assert.deepEqual(await texts(log), ['a', 'b', 'c'])
  for (const call of [virtuallog.drain, virtuallog.remove]) await assert.rejects(call(cluster.url, 99), { code: 'NOT_FOUND' })
  await log.close()
  await cluster.close()
})

test('a cluster ends with the process that forgot it', async () => {
  const { status, stdout, stderr } = await run(`
    import { LocalCluster } from 'virtuallog/testing'
    const cluster = await LocalCluster.start({ nodes: 1 })
    console.log(JSON.stringify([cluster.url, cluster.nodes[0].dir]))`)
  assert.equal(status, 0, stderr)
  const [url, dir] = JSON.parse(stdout)
  assert(!existsSync(dir))
  await assert.rejects(virtuallog.nodes(url, { timeoutMs: 5000 }), { code: 'UNAVAILABLE' })
})
