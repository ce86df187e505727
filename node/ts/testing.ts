// A real cluster for the tests of applications.
//
// Faster yet, where nothing has to fail, is a log in memory: open `memory:`.

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { type Interface, createInterface } from 'node:readline'

import * as check from './arguments'
import { init } from './cluster'
import { VirtualLogError, invalid } from './errors'
import { platformFolder, version } from './native'

/** Most nodes of a cluster on one machine. */
const NODES_MAX = 64

/** How to start a cluster. */
export interface LocalClusterOptions {
  /** How many nodes, from 1 on. Default: 3, the fewest of which one may fail. */
  nodes?: number | undefined
  /** Where their directories are made; left out: in a temporary one that is removed. */
  dir?: string | undefined
}

/** A node of a `LocalCluster`. */
export interface LocalNode {
  /** Its number: what `LocalCluster.stop` and `LocalCluster.start` take. */
  node: number
  /** `"HOST:PORT"`, the same whenever it runs. */
  address: string
  /** Its directory. */
  dir: string
  /** Whether it runs. */
  running: boolean
}

/**
 * Servers on loopback, each a process of its own, on temporary directories.
 *
 * They are those of production: the bundled `virtuallogd`, sockets, disks, replication. Up when `start` is; closing
 * removes everything. With three nodes (or five) one (or two) may be stopped. They end with this process, however
 * it ends, and do not keep it alive.
 *
 *     const cluster = await LocalCluster.start()
 *     const log = await open(cluster.url + 'orders')
 */
export class LocalCluster {
  readonly #dir: string
  readonly #temporary: boolean
  readonly #nodes: Daemon[] = []
  readonly #cleanUp = () => rmSync(this.#dir, { recursive: true, force: true })

  private constructor(dir: string | undefined) {
    this.#temporary = dir === undefined
    this.#dir = dir === undefined ? mkdtempSync(join(tmpdir(), 'virtuallog-')) : resolve(dir)
    if (this.#temporary) process.once('exit', this.#cleanUp)
    mkdirSync(this.#dir, { recursive: true })
  }

  /** Starts one. */
  static async start(options: LocalClusterOptions = {}): Promise<LocalCluster> {
    const count = check.count(options.nodes ?? 3, 'a number of nodes', NODES_MAX)
    if (count === 0) throw invalid('a cluster has at least one node: got 0')
    const cluster = new LocalCluster(options.dir)
    try {
      await cluster.#begin(count)
    } catch (error) {
      await cluster.close()
      throw error
    }
    return cluster
  }

  /** The store, by the addresses of all nodes: add a log's name to open one. */
  get url(): string {
    return `virtuallog://${this.#nodes.map((node) => node.address).join(',')}/`
  }

  /** All nodes, those that were stopped too. */
  get nodes(): LocalNode[] {
    return this.#nodes.map(({ dir, address, running }, index) => ({ node: index + 1, address, dir, running }))
  }

  /** Kills nodes as they stand, as a crash would. `INVALID` when one of them does not run. */
  async stop(...nodes: number[]): Promise<void> {
    await Promise.all(this.#find(nodes, true).map((node) => node.kill()))
  }

  /** Starts nodes that were stopped, on their directories and addresses, and waits until they are ready. */
  async start(...nodes: number[]): Promise<void> {
    const daemons = this.#find(nodes, false)
    await Promise.all(daemons.map((node) => node.start()))
    for (const node of daemons) node.unref()
  }

  /** Stops all nodes and removes what was temporary. Idempotent. */
  async close(): Promise<void> {
    await Promise.all(this.#nodes.filter((node) => node.running).map((node) => node.kill()))
    if (!this.#temporary) return
    process.off('exit', this.#cleanUp)
    this.#cleanUp()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #begin(count: number): Promise<void> {
    for (let node = 1; node <= count; node += 1) this.#nodes.push(new Daemon(join(this.#dir, `node-${node}`)))
    await Promise.all(this.#nodes.map((node) => node.start()))
    const apart = this.#nodes.filter((node) => !node.belongs)
    if (apart.length > 0) await init(this.#nodes.map((node) => node.address))
    // Each says so again when it was made part of the cluster.
    await Promise.all(apart.map((node) => node.joined()))
    for (const node of this.#nodes) node.unref()
  }

  /** The nodes of these numbers, all of which run, or none. */
  #find(nodes: number[], running: boolean): Daemon[] {
    return nodes.map((node) => {
      const daemon = this.#nodes[node - 1]
      if (daemon?.running === running) return daemon
      const others = this.nodes.filter((each) => each.running === running).map((each) => each.node)
      const what = running ? 'does not run: those that do' : 'was not stopped: those that were'
      throw invalid(`node ${node} ${what} are ${others.join(', ') || 'none'}`)
    })
  }
}

/** What is needed of a daemon's ready line. */
interface ReadyLine {
  address: string
  cluster: string | null
}

/** One `virtuallogd`. */
class Daemon {
  address = '127.0.0.1:0'
  /** Whether it knew when it started which cluster it belongs to. */
  belongs = false
  running = false
  #child: ChildProcess | undefined
  #lines: AsyncIterator<string> | undefined
  #said = ''
  #closed: Promise<unknown> | undefined

  constructor(readonly dir: string) {}

  async start(): Promise<void> {
    // It ends with this process, however that ends.
    const parent = `--parent=${process.pid}`
    const child = spawn(
      join(platformFolder(), 'virtuallogd'),
      ['--data', this.dir, '--listen', this.address, '--log', 'error', parent],
      { stdio: ['ignore', 'pipe', 'pipe'], env: clean(process.env) },
    )
    const failed = once(child, 'error').then(([error]) => Promise.reject(error))
    failed.catch(() => {})
    const lines: Interface = createInterface({ input: child.stdout })
    this.#lines = lines[Symbol.asyncIterator]()
    this.#said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (this.#said = (this.#said + text).slice(-4096)))
    this.#child = child
    this.#closed = once(child, 'close')
    this.running = true
    child.once('exit', () => (this.running = false))
    const ready = await Promise.race([failed, this.#ready()])
    this.address = ready.address
    this.belongs = ready.cluster !== null
  }

  /** From here on it is an idle handle: it does not keep the process alive. */
  unref(): void {
    this.#child?.unref()
    for (const pipe of [this.#child?.stdout, this.#child?.stderr]) (pipe as Socket | null | undefined)?.unref()
  }

  /** Waits until it was made part of a cluster. */
  async joined(): Promise<void> {
    await this.#ready()
    this.belongs = true
  }

  async kill(): Promise<void> {
    const child = this.#child
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    child.ref()
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    await ended
  }

  async #ready(): Promise<ReadyLine> {
    const line = await this.#lines?.next()
    if (line?.value !== undefined) return JSON.parse(line.value) as ReadyLine
    // It has ended: what it said last is worth waiting for.
    await this.#closed
    throw new VirtualLogError('UNAVAILABLE', `virtuallogd ${version} did not start: ${this.#said.trim()}`)
  }
}

/** Without what would configure the daemon. */
function clean(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !name.startsWith('VIRTUALLOG_')))
}
