// A real cluster for the tests of applications.
//
// Faster yet, where nothing has to fail, is a log in memory: open `memory:`.

import * as check from './arguments'
import { answer, queue, succeeded } from './driver'
import { type NativeLocalCluster, native, platformFolder } from './native'
import type { CallOptions } from './types'

/** The largest number that a node can have. */
const NODE_MAX = 2 ** 32 - 1

/** How to start a cluster. */
export interface LocalClusterOptions extends CallOptions {
  /** How many nodes, from 1 to 64. Default: 3, the fewest of which one may fail. */
  nodes?: number | undefined
  /** Where their directories are made, and stay; left out: in a temporary one that is removed. */
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
  /** The number of its process; `null` while it is stopped. */
  pid: number | null
}

/**
 * Servers on loopback, each a process of its own, on temporary directories.
 *
 * They are those of production: the bundled `virtuallogd`, sockets, disks, replication. Up when `start` is; closing
 * removes everything. With three nodes (or five) one (or two) may be stopped. They end with this process, however
 * it ends, and do not keep it alive. The variable `VIRTUALLOG_BIN_DIR` names another folder to take the program
 * from.
 *
 *     const cluster = await LocalCluster.start()
 *     const log = await open(cluster.url + 'orders')
 */
export class LocalCluster {
  readonly #native: NativeLocalCluster

  private constructor(cluster: NativeLocalCluster) {
    this.#native = cluster
  }

  /** Starts one, in about a second; `timeoutMs` (60,000) is how long it may take. */
  static async start(options: LocalClusterOptions = {}): Promise<LocalCluster> {
    check.options(options)
    const nodes = check.count(options.nodes ?? 3, 'a number of nodes', NODE_MAX)
    const dir = options.dir === undefined ? null : check.text(options.dir, 'a directory')
    const tag = native.localCluster(queue, nodes, dir, platformFolder(), check.timeout(options.timeoutMs))
    return new LocalCluster(await answer<NativeLocalCluster>(tag, options.signal))
  }

  /** The store, by the addresses of all nodes: add a log's name to open one. */
  get url(): string {
    return this.#native.url
  }

  /** All nodes, those that were stopped too. */
  get nodes(): LocalNode[] {
    return succeeded(this.#native.nodes())
  }

  /** Kills nodes as they stand, as a crash would: all of them, or none and `INVALID` when one does not run. */
  async stop(...nodes: number[]): Promise<void> {
    await answer(this.#native.stop(numbers(nodes)))
  }

  /**
   * Starts nodes that were stopped, on their directories and addresses, and waits until they are ready. Options may
   * stand behind the numbers; `timeoutMs` (60,000) is how long it may take.
   */
  async start(...nodes: number[] | [...nodes: number[], options: CallOptions]): Promise<void> {
    const last = nodes.at(-1)
    const options = typeof last === 'object' ? check.options(last) : undefined
    const given = (options === undefined ? nodes : nodes.slice(0, -1)) as number[]
    await answer(this.#native.start(numbers(given), check.timeout(options?.timeoutMs)), options?.signal)
  }

  /** Stops all nodes and removes what was temporary. Idempotent. */
  async close(): Promise<void> {
    await answer(this.#native.close())
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}

function numbers(nodes: number[]): number[] {
  return nodes.map((node) => check.count(node, 'the number of a node', NODE_MAX))
}
