// A server in this process, what is done to a cluster, and logs that move.

import * as check from './arguments'
import { answer, hold, queue, release, succeeded } from './driver'
import { type NativeServer, type Step, native } from './native'
import type { CallOptions, Chain, ClusterInfo, MoveProgress, Role } from './types'

/** The largest number that a node can have. */
const NODE_MAX = 2 ** 32 - 1

/** What a server can do for its cluster. */
export const ROLES: readonly Role[] = Object.freeze(['log', 'sequencer', 'metastore'] as const)

/** How to start a server. */
export interface ServerOptions extends CallOptions {
  /** `"HOST:PORT"`; port 0 is a free one. Default: `"127.0.0.1:0"`. Taken: `UNAVAILABLE`. */
  listen?: string | undefined
  /**
   * `"HOST:PORT"` by which others reach it, if not the one that it listens on. Others remember it: give the same
   * one again when the directory is started again.
   */
  advertise?: string | undefined
  /** Where it stands; replicas are spread over zones. */
  zone?: string | undefined
  /** What it does: hold logs, give positions (which needs the first), hold the chains. Default: all. */
  roles?: Iterable<Role> | undefined
  /** Addresses of a cluster to join while its directory belongs to none. */
  join?: Iterable<string> | undefined
  /** Allows an address that other machines reach, although connections are not encrypted. */
  insecure?: boolean | undefined
}

/**
 * A server of a cluster, in this process: an application that runs one is its own replica, and reads a log of its
 * cluster without a connection.
 *
 * It runs on threads of its own, also while the event loop is busy, and keeps the process alive until it is closed
 * (but see `unref`). Stopping without `drain`, be it by `close` or by the end of the process, is what the rest of
 * the cluster takes for a crash: it goes on after a moment.
 */
export class Server {
  readonly #native: NativeServer
  #held = false
  #closed = false

  private constructor(server: NativeServer) {
    this.#native = server
    this.ref()
  }

  /**
   * Starts one on the directory `data`, made if its parent is there. It belongs to one server at a time (`LOCKED`),
   * and to its node of its cluster for good. A server whose directory belongs to no cluster waits until `init` makes
   * one, or joins the one of `join`.
   */
  static async start(data: string, options: ServerOptions = {}): Promise<Server> {
    check.text(data, 'a directory')
    check.options(options)
    const { listen = '127.0.0.1:0', advertise, zone = '', roles = ROLES, join = [], insecure = false } = options
    const tag = native.serve(queue, {
      data,
      listen: check.text(listen, 'listen'),
      advertise: advertise === undefined ? undefined : check.text(advertise, 'advertise'),
      zone: check.text(zone, 'zone'),
      roles: check.texts(roles, 'roles'),
      join: check.texts(join, 'join'),
      insecure: check.flag(insecure, 'insecure'),
      timeoutMs: check.timeout(options.timeoutMs),
    })
    return new Server(await answer<NativeServer>(tag, options.signal))
  }

  /** `"HOST:PORT"` by which others reach it. */
  get address(): string {
    return this.#native.address
  }

  /** The store of its cluster, by its address: add a log's name to open one. */
  get url(): string {
    return this.#native.url
  }

  /** Its number in its cluster; `null` until it is part of one. Throws `CLOSED` once closed. */
  get node(): number | null {
    return succeeded(this.#native.node())
  }

  /** The identity of its cluster: 32 hexadecimal digits; `null` until it is part of one. Throws `CLOSED` once closed. */
  get cluster(): string | null {
    return succeeded(this.#native.cluster())
  }

  /** Waits until it is part of a cluster and can be used; `DATA_LOSS` when its disk has forgotten something. */
  async ready(options?: CallOptions): Promise<void> {
    await this.#call(options, (timeoutMs) => this.#native.ready(timeoutMs))
  }

  /**
   * Hands the logs that it gives positions for to other nodes, and gets no new ones, until the directory is started
   * again. Before `close`, so that nobody notices that. Does nothing where there is no other node.
   */
  async drain(options?: CallOptions): Promise<void> {
    await this.#call(options, (timeoutMs) => this.#native.drain(timeoutMs))
  }

  /** Stops it and gives its directory and port back. Idempotent; when time runs out it goes on. */
  async close(options?: CallOptions): Promise<void> {
    const closing = this.#call(options, (timeoutMs) => this.#native.close(timeoutMs))
    this.#closed = true
    this.unref()
    await closing
  }

  /** Keeps the process alive, as it does from the start on. */
  ref(): this {
    if (!this.#held && !this.#closed) hold()
    this.#held ||= !this.#closed
    return this
  }

  /** Lets the process end when nothing else is left to do; to the cluster that is a crash. */
  unref(): this {
    if (this.#held) release()
    this.#held = false
    return this
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #call(options: CallOptions | undefined, submit: (timeoutMs: number) => number): Promise<null> {
    const given = check.options(options)
    return answer(submit(check.timeout(given?.timeoutMs)), given?.signal)
  }
}

/**
 * Makes a cluster of the servers at these addresses, which belong to none yet.
 *
 * The first ones, at most five and an odd number, hold the chains; of those that join later more do.
 * Again after an interruption: completes it.
 * `UNAVAILABLE` when one does not answer, `CONFLICT` when one belongs to another cluster.
 */
export async function init(addresses: Iterable<string>, options?: CallOptions): Promise<ClusterInfo> {
  const list = check.texts(addresses, 'addresses')
  const given = check.options(options)
  return withUrl(await answer(native.init(queue, list, check.timeout(given?.timeoutMs)), given?.signal))
}

/** The nodes of the cluster that `url`, a store or a log of it, names. */
export async function nodes(url: string, options?: CallOptions): Promise<ClusterInfo> {
  const given = check.options(options)
  return withUrl(await answer(native.nodes(queue, check.url(url), check.timeout(given?.timeoutMs)), given?.signal))
}

function withUrl(cluster: Omit<ClusterInfo, 'url'>): ClusterInfo {
  return { ...cluster, url: `virtuallog://${cluster.nodes.map((node) => node.address).join(',')}/` }
}

/**
 * Hands what a node gives positions for to others, and places nothing new on it, until the node is started again.
 * `NOT_FOUND` when the cluster has no such node.
 */
export async function drain(url: string, node: number, options?: CallOptions): Promise<void> {
  const number = check.count(node, "a node's number", NODE_MAX)
  const given = check.options(options)
  await answer(native.drain(queue, check.url(url), number, check.timeout(given?.timeoutMs)), given?.signal)
}

/**
 * Takes a node out of its cluster for good: drains it and copies what it holds to others first.
 *
 * As long as that takes, unless a timeout is given; when that passes, do it again. `NOT_FOUND` when there is no such
 * node; `INVALID` or `UNAVAILABLE` when the others could not keep what it holds.
 */
export async function remove(url: string, node: number, options?: CallOptions): Promise<void> {
  const number = check.count(node, "a node's number", NODE_MAX)
  const given = check.options(options)
  await answer(native.remove(queue, check.url(url), number, check.timeout(given?.timeoutMs)), given?.signal)
}

/** How to move a log. */
export interface MoveOptions {
  /** Leaves what is sealed where it is; the log then needs that store as long as it keeps those entries. */
  leaveSealed?: boolean | undefined
  /** Called, as it goes on, with how far it is. What it throws stops the move. */
  progress?: ((step: MoveProgress) => void) | undefined
  /** Stops it; the same call completes it. */
  signal?: AbortSignal | undefined
}

/**
 * Moves the log `src` to `dst`, a name in another store, while it is used; gives its chain there.
 *
 * No entry and no position changes. Open handles follow, and so does whoever opens `src` later. Takes as long as it
 * takes. Whatever ends it early, the log goes on in one of both stores, and the same call completes it.
 *
 * `INVALID` for two names in one store; `NOT_FOUND` when there is no log `src`; `SEALED` when it was ended;
 * `CONFLICT` when there is another log `dst`.
 */
export async function move(src: string, dst: string, options: MoveOptions = {}): Promise<Chain> {
  check.url(src)
  check.url(dst)
  check.options(options)
  const leaveSealed = check.flag(options.leaveSealed ?? false, 'leaveSealed')
  const moving = new native.Relocation(queue, src, dst, leaveSealed)
  for (;;) {
    const step = await answer<Step>(moving.next(), options.signal)
    if ('segments' in step) return step
    options.progress?.(step)
  }
}
