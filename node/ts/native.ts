// The native half: where it is found, that it is of this version, and its shape (`src/*.rs`).

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

import type { ErrorCode } from './errors'
import type { Chain, ClusterInfo, MoveProgress } from './types'

/** The tag of an answer to come. */
export type Tag = number

/** What a failed operation gives; `errors.ts` makes the error of it. */
export interface Failure {
  code: ErrorCode
  message: string
  retryable: boolean
  inDoubt: boolean
  position: bigint | null
  token: string | null
  causes: string[]
}

/** Entries in one piece of memory: positions, times, ends of payloads, payloads. `entry.ts` takes it apart. */
export interface NativeBatch {
  count: number
  memory: Buffer
}

export interface NativeQueue {
  drain(max: number): [more: boolean, ...tagsAndResults: unknown[]]
  cancel(tag: Tag): void
}

export interface NativeLog {
  readonly name: string
  readonly timeoutMs: number | null
  append(payload: Uint8Array | string, timeoutMs: number): Tag
  appendNowait(payload: Uint8Array | string, timeoutMs: number): Tag
  appendMany(payloads: (Uint8Array | string)[], timeoutMs: number): Tag
  pipeline(timeoutMs: number): NativePipeline | Failure
  flush(timeoutMs: number): Tag
  checkTail(timeoutMs: number): Tag
  first(timeoutMs: number): Tag
  read(start: bigint, end: bigint | null, timeoutMs: number): Tag
  readNext(start: bigint, end: bigint | null, timeoutMs: number): Tag
  subscribe(start: bigint | string, timeoutMs: number): Tag
  prefixTrim(keepFrom: bigint, timeoutMs: number): Tag
  seal(timeoutMs: number): Tag
  chain(timeoutMs: number): Tag
  reconfigExtend(loglet: string, ifVersion: bigint | null, timeoutMs: number): Tag
  reconfigTruncate(ifVersion: bigint | null, timeoutMs: number): Tag
  reconfigModify(segment: number, loglet: string, ifVersion: bigint | null, timeoutMs: number): Tag
  plan(loglet: string, timeoutMs: number): Tag
  resolve(token: string, timeoutMs: number): Tag
  verify(timeoutMs: number): Tag
  close(timeoutMs: number): Tag
}

export interface NativePipeline {
  push(payload: Uint8Array | string): boolean | Failure
  room(): Tag
  finish(): Tag
}

export interface NativeReader {
  position(): bigint | Failure
  nextBatch(entriesMax: number, timeoutMs: number): Tag
  close(): void
}

export interface NativeLogBatch {
  records: { level: 'error' | 'warn' | 'info' | 'debug' | 'trace'; target: string; message: string }[]
  dropped: number
}

export interface NativeServer {
  readonly address: string
  readonly url: string
  node(): number | null | Failure
  cluster(): string | null | Failure
  ready(timeoutMs: number): Tag
  drain(timeoutMs: number): Tag
  close(timeoutMs: number): Tag
}

export interface NativeLocalCluster {
  readonly url: string
  nodes(): { node: number; address: string; dir: string; pid: number | null }[] | Failure
  stop(nodes: readonly number[]): Tag
  start(nodes: readonly number[], timeoutMs: number): Tag
  close(): Tag
}

export interface NativeRelocation {
  next(): Tag
}

export type Step = Chain | MoveProgress
export type { ClusterInfo }

export interface Native {
  VERSION: string
  DEBUG_BUILD: boolean
  Queue: new (wake: () => void) => NativeQueue
  Relocation: new (queue: NativeQueue, src: string, dst: string, leaveSealed: boolean) => NativeRelocation
  open(
    queue: NativeQueue,
    url: string,
    options: {
      create?: boolean | undefined
      mode?: string | undefined
      loglet?: string | undefined
      timeoutMs: number
      entryBytesMax?: number | undefined
      inFlightBytesMax?: number | undefined
    },
  ): Tag
  create(queue: NativeQueue, url: string, loglet: string | null, timeoutMs: number): Tag
  delete(queue: NativeQueue, url: string, timeoutMs: number): Tag
  logs(queue: NativeQueue, url: string, timeoutMs: number): Tag
  serve(
    queue: NativeQueue,
    options: {
      data: string
      listen: string
      advertise?: string | undefined
      zone: string
      roles: readonly string[]
      join: readonly string[]
      insecure: boolean
      timeoutMs: number
    },
  ): Tag
  localCluster(queue: NativeQueue, nodes: number, dir: string | null, packaged: string, timeoutMs: number): Tag
  init(queue: NativeQueue, addresses: readonly string[], timeoutMs: number): Tag
  nodes(queue: NativeQueue, url: string, timeoutMs: number): Tag
  drain(queue: NativeQueue, url: string, node: number, timeoutMs: number): Tag
  remove(queue: NativeQueue, url: string, node: number, timeoutMs: number): Tag
  startLogs(level: string, wake: () => void): null | Failure
  drainLogs(): NativeLogBatch
  logLevel(): string | null | Failure
}

const ROOT = join(__dirname, '..')

/** The version of this package, and of all that belongs to it. */
export const version: string = (JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string })
  .version

/** What this machine is, in the way that the platform packages are named. */
function platform(): string {
  if (process.platform !== 'linux') return `${process.platform}-${process.arch}`
  const report = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } }
  const libc = report.header.glibcVersionRuntime === undefined ? 'musl' : 'gnu'
  return `linux-${process.arch}-${libc}`
}

/**
 * The folder that has the native half and the programs: within this package, where it was built or packed
 * together with them, or else the platform's own package.
 */
export function platformFolder(): string {
  const name = platform()
  const within = join(ROOT, 'npm', name)
  if (existsSync(join(within, 'virtuallog.node'))) return within
  let manifest: string
  try {
    manifest = require.resolve(`@virtuallog/${name}/package.json`)
  } catch (cause) {
    const message =
      `virtuallog has no native half for ${name}: neither ${within} nor the package @virtuallog/${name} is there. ` +
      'In a checkout, run `make node`. Elsewhere, remove package-lock.json and node_modules, and install again: ' +
      'npm forgets optional packages that a lock file from another platform does not name'
    throw new Error(message, { cause })
  }
  const found = (require(manifest) as { version: string }).version
  if (found !== version) {
    throw new Error(`virtuallog ${version} was installed with @virtuallog/${name} ${found}: install both anew`)
  }
  return join(manifest, '..')
}

function load(): Native {
  const loaded = require(join(platformFolder(), 'virtuallog.node')) as Native
  if (loaded.VERSION !== version) {
    throw new Error(`virtuallog ${version} found a native half of ${loaded.VERSION}: build or install both anew`)
  }
  return loaded
}

export const native: Native = load()
