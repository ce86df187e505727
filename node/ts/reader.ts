// Reading a range, or following a log: an async iterator over batches that the native half fetches ahead.

import * as check from './arguments'
import { answer, succeeded } from './driver'
import { Batch, type Entry } from './entry'
import { VirtualLogError, invalid } from './errors'
import type { NativeBatch, NativeReader } from './native'
import type { CallOptions } from './types'

/** How many entries a batch has at most, unless another number is asked for. */
const BATCH_ENTRIES = 1024
/** Most entries that may be asked for at a time. */
const BATCH_ENTRIES_MAX = 2 ** 32 - 1
/**
 * How many entries are fetched at a time, at most: many, because each time costs a turn of the loop. It is the native
 * half that bounds their bytes, by about 1 MiB.
 */
const FETCH_ENTRIES = 8192
const NOTHING = new Batch({ count: 0, memory: Buffer.alloc(0) })

/**
 * Entries in order: `for await (const entry of log.read(0n))`, `for await (const entry of log.subscribe("tail"))`.
 *
 * For one reader at a time. A wait that times out or is aborted loses nothing: go on. Leaving a loop early closes
 * it. While the last entries are worked on, the next ones are already being fetched.
 */
export class Reader {
  readonly #starting: Promise<NativeReader>
  readonly #timeoutMs: number
  readonly #signal: AbortSignal | undefined
  #native: NativeReader | undefined
  /** What was fetched, and what of it comes next. */
  #batch = NOTHING
  #at = 0
  #closed = false

  /** Made by `Log.read` and `Log.subscribe`. */
  constructor(starting: Promise<NativeReader>, timeoutMs: number, signal: AbortSignal | undefined) {
    this.#starting = starting
    this.#timeoutMs = timeoutMs
    this.#signal = signal
    // Its failure is told to whoever asks for the first entry.
    starting.catch(() => {})
  }

  /**
   * Waits until it has started: until a subscription to the tail has its place, and whatever is appended from now
   * on will be seen. Iterating does this by itself.
   */
  async started(): Promise<this> {
    this.#native ??= await this.#starting
    if (this.#closed) {
      this.#native.close()
      throw closed()
    }
    return this
  }

  /**
   * The next position to deliver: what to save in order to resume. `INVALID` before it has started, which it has
   * once it gave an entry.
   */
  get position(): bigint {
    const next = this.#batch.positions[this.#at]
    if (next !== undefined) return next
    if (this.#native === undefined) throw invalid('it has not started yet: await `started()` first')
    return succeeded(this.#native.position())
  }

  async next(): Promise<IteratorResult<Entry, undefined>> {
    if (this.#at === this.#batch.length && !(await this.#fetch(this.#timeoutMs, this.#signal))) {
      return { value: undefined, done: true }
    }
    const value = this.#batch.entry(this.#at)
    this.#at += 1
    return { value, done: false }
  }

  async return(): Promise<IteratorResult<Entry, undefined>> {
    await this.close()
    return { value: undefined, done: true }
  }

  /**
   * The next entries: at least one, at most `entriesMax` (1024), waiting for the first. An empty array is the end.
   * `DEADLINE` when `timeoutMs` passes first; nothing is lost then.
   */
  async nextBatch(entriesMax: number = BATCH_ENTRIES, options?: CallOptions): Promise<Entry[]> {
    const given = check.options(options)
    const most = check.count(entriesMax, 'a batch', BATCH_ENTRIES_MAX)
    if (most === 0) throw invalid('a batch has at least one entry: ask for 1')
    if (this.#at === this.#batch.length) {
      const timeoutMs = given?.timeoutMs === undefined ? this.#timeoutMs : check.timeout(given.timeoutMs)
      if (!(await this.#fetch(timeoutMs, given?.signal ?? this.#signal))) return []
    }
    const start = this.#at
    this.#at = Math.min(start + most, this.#batch.length)
    return this.#batch.slice(start, this.#at)
  }

  /** The same entries as arrays of at most `entriesMax`. */
  async *batches(entriesMax: number = BATCH_ENTRIES): AsyncGenerator<Entry[], void, undefined> {
    try {
      for (;;) {
        const batch = await this.nextBatch(entriesMax)
        if (batch.length === 0) return
        yield batch
      }
    } finally {
      await this.close()
    }
  }

  /** Ends it: whoever waits on it gets `CLOSED`, and so do later calls. Idempotent. */
  async close(): Promise<void> {
    this.#closed = true
    this.#batch = NOTHING
    this.#at = 0
    if (this.#native !== undefined) {
      this.#native.close()
    } else {
      this.#starting.then((native) => native.close()).catch(() => {})
    }
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  /** Whether there are more entries. */
  async #fetch(timeoutMs: number, signal: AbortSignal | undefined): Promise<boolean> {
    if (this.#native === undefined || this.#closed) await this.started()
    signal?.throwIfAborted()
    const native = this.#native as NativeReader
    const fetched = await answer<NativeBatch>(native.nextBatch(FETCH_ENTRIES, timeoutMs), signal)
    if (this.#closed) throw closed()
    this.#batch = new Batch(fetched)
    this.#at = 0
    return fetched.count > 0
  }
}

function closed(): VirtualLogError {
  return new VirtualLogError('CLOSED', 'this reader is closed: open another')
}
