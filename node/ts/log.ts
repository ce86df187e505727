// A log, and the functions on stores.

import * as check from './arguments'
import { answer, queue, succeeded } from './driver'
import { Batch, type Entry } from './entry'
import { invalid } from './errors'
import { type NativeBatch, type NativeLog, type NativePipeline, type NativeReader, native } from './native'
import { Reader } from './reader'
import type {
  Appended,
  CallOptions,
  Chain,
  ChangeOptions,
  OpenOptions,
  Payload,
  Plan,
  PositionInput,
  Start,
  Tail,
  Trimmed,
  VerifyReport,
} from './types'

/** The largest index that a segment can have. */
const INDEX_MAX = 2 ** 32 - 1

/**
 * An open log. Made by `open`.
 *
 * Every method that waits gives a promise, and never throws at the call. Nothing here blocks the event loop, and a
 * log that nobody waits on does not keep the process alive.
 */
export class Log {
  readonly #native: NativeLog

  /** Made by `open`. */
  constructor(native: NativeLog) {
    this.#native = native
  }

  /** The log's name: the last part of its URL. */
  get name(): string {
    return this.#native.name
  }

  /** The deadline, in milliseconds, of calls that name none. `null`: none. */
  get timeoutMs(): number | null {
    return this.#native.timeoutMs
  }

  /**
   * Submits one entry, in call order; the promise brings its position, once it is durable.
   *
   * Waits its turn when the window of entries in flight is full. Rejects with `TOO_LARGE` over the entry limit
   * (1 MiB by default), `SEALED` on an ended log, and `DEADLINE` when time runs out; where that (or any error) is
   * `inDoubt`, the entry may be in the log: `resolve` its `token` before appending it again. Aborting does not undo
   * the append. Nothing is ever appended twice by itself.
   */
  append(payload: Payload, options?: CallOptions): Promise<bigint> {
    try {
      const given = options === undefined ? undefined : check.options(options)
      return answer(this.#native.append(check.payload(payload), check.timeout(given?.timeoutMs)), given?.signal)
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /**
   * Submits one batch, atomic and contiguous; the promise brings the position of its first entry.
   *
   * At most 1,024 entries and 4 MiB (or one entry up to the entry limit): more is `TOO_LARGE`, none at all
   * `INVALID`. For any number, see `appendAll`.
   */
  async appendMany(payloads: Iterable<Payload>, options?: CallOptions): Promise<bigint> {
    const list = check.payloads(payloads)
    return this.#call(options, (timeoutMs) => this.#native.appendMany(list, timeoutMs))
  }

  /** As `append`, but rejects with `BUSY` rather than wait when the window is full. */
  async appendNowait(payload: Payload, options?: CallOptions): Promise<bigint> {
    check.payload(payload)
    return this.#call(options, (timeoutMs) => this.#native.appendNowait(payload, timeoutMs))
  }

  /**
   * Appends any number of entries one after the other, pipelined, with back-pressure.
   *
   * Each entry stands for itself: an error leaves those before it in the log. `timeoutMs` bounds each wait for
   * answers. `null` when there were none.
   */
  async appendAll(
    payloads: Iterable<Payload> | AsyncIterable<Payload>,
    options?: CallOptions,
  ): Promise<Appended | null> {
    const given = check.options(options)
    const pipeline: NativePipeline = succeeded(this.#native.pipeline(check.timeout(given?.timeoutMs)))
    const room = (payload: Payload): Promise<null> | undefined => {
      given?.signal?.throwIfAborted()
      const full = succeeded(pipeline.push(check.payload(payload)))
      return full ? answer<null>(pipeline.room(), given?.signal) : undefined
    }
    if (isAsync(payloads)) {
      for await (const payload of payloads) await room(payload)
    } else {
      for (const payload of check.iterable(payloads, 'appendAll')) {
        const wait = room(payload)
        if (wait !== undefined) await wait
      }
    }
    return answer(pipeline.finish(), given?.signal)
  }

  /** Waits for everything submitted so far; rejects with the first failure that nobody saw. */
  async flush(options?: CallOptions): Promise<void> {
    await this.#call(options, (timeoutMs) => this.#native.flush(timeoutMs))
  }

  /** Where the log ends: the first unwritten position, and whether the log was ended. */
  async checkTail(options?: CallOptions): Promise<Tail> {
    return this.#call(options, (timeoutMs) => this.#native.checkTail(timeoutMs))
  }

  /** The first position that was not trimmed. */
  async first(options?: CallOptions): Promise<bigint> {
    return this.#call(options, (timeoutMs) => this.#native.first(timeoutMs))
  }

  /**
   * Reads the entries from `start` up to, not including, `end` (or today's tail), in batches as it goes.
   *
   * `timeoutMs` bounds the start and then each wait of the reader.
   */
  read(start: PositionInput, end?: PositionInput | null, options?: CallOptions): Reader {
    const { timeoutMs } = this
    const reading = this.#start(options, (timeoutMs) => {
      return this.#native.read(check.position(start), check.maybeWhole(end, 'a position'), timeoutMs)
    })
    const given = typeof options?.timeoutMs === 'number' || options?.timeoutMs === null ? options.timeoutMs : timeoutMs
    return new Reader(reading, given ?? Number.POSITIVE_INFINITY, options?.signal)
  }

  /** The first entry at or after `start` and below `end` (or the tail); `null` if there is none. */
  async readNext(start: PositionInput, end?: PositionInput | null, options?: CallOptions): Promise<Entry | null> {
    const [from, to] = [check.position(start), check.maybeWhole(end, 'a position')]
    const batch = await this.#call<NativeBatch>(options, (timeoutMs) => this.#native.readNext(from, to, timeoutMs))
    return batch.count > 0 ? new Batch(batch).entry(0) : null
  }

  /**
   * Follows the log from `start`: a position, `"first"` or `"tail"`. Waits for the next entry for as long as it
   * takes; ends only when the log was ended for good. `timeoutMs` bounds the start alone.
   */
  subscribe(start: Start, options?: CallOptions): Reader {
    const subscribing = this.#start(options, (timeoutMs) => {
      const known = start === 'first' || start === 'tail'
      if (typeof start === 'string' && !known) {
        throw invalid(`start is a position, "first" or "tail": got ${JSON.stringify(start)}`)
      }
      return this.#native.subscribe(known ? start : check.position(start), timeoutMs)
    })
    return new Reader(subscribing, Number.POSITIVE_INFINITY, options?.signal)
  }

  /** Gives up every entry below `keepFrom`; reading there is `TRIMMED` from then on. */
  async prefixTrim(keepFrom: PositionInput, options?: CallOptions): Promise<Trimmed> {
    const position = check.position(keepFrom)
    return this.#call(options, (timeoutMs) => this.#native.prefixTrim(position, timeoutMs))
  }

  /** Ends the log for good and gives the final tail: later appends are `SEALED`. */
  async seal(options?: CallOptions): Promise<Tail> {
    return this.#call(options, (timeoutMs) => this.#native.seal(timeoutMs))
  }

  /** The newest chain: which loglet holds which positions. */
  async chain(options?: CallOptions): Promise<Chain> {
    return this.#call(options, (timeoutMs) => this.#native.chain(timeoutMs))
  }

  /**
   * Seals the active loglet and goes on in a new one, for example `"local"`.
   *
   * Appends under way are carried over, none twice. `CONFLICT` where the chain is at another version than
   * `ifVersion`, or, if that is left out, than this handle saw last: read `chain` and decide again. When time runs
   * out, or it is aborted, the reconfiguration may still complete: read `chain`.
   */
  async reconfigExtend(loglet: string, options?: ChangeOptions): Promise<Chain> {
    const [kind, version] = [check.text(loglet, 'a loglet'), ifVersion(options)]
    return this.#call(options, (timeoutMs) => this.#native.reconfigExtend(kind, version, timeoutMs))
  }

  /**
   * Drops the leading segments that were trimmed whole from the chain; gives it as it is when there are none.
   * `CONFLICT` where the chain is at another version than `ifVersion`.
   */
  async reconfigTruncate(options?: ChangeOptions): Promise<Chain> {
    const version = ifVersion(options)
    return this.#call(options, (timeoutMs) => this.#native.reconfigTruncate(version, timeoutMs))
  }

  /**
   * Moves the sealed segment of this index into another loglet, by copying it. Has no deadline unless one is given;
   * when that passes, or it is aborted, the move may still complete: read `chain`.
   *
   * `INVALID` when no sealed segment has the index, or for a loglet that this store cannot have; `CONFLICT` as
   * `reconfigExtend`.
   */
  async reconfigModify(segment: number, loglet: string, options?: ChangeOptions): Promise<Chain> {
    const index = check.count(segment, "a segment's index", INDEX_MAX)
    const [kind, version] = [check.text(loglet, 'a loglet'), ifVersion(options)]
    return this.#call(options, (timeoutMs) => this.#native.reconfigModify(index, kind, version, timeoutMs))
  }

  /** What `reconfigExtend` to `loglet` would do; does nothing. */
  async plan(loglet: string, options?: CallOptions): Promise<Plan> {
    const kind = check.text(loglet, 'a loglet')
    return this.#call(options, (timeoutMs) => this.#native.plan(kind, timeoutMs))
  }

  /**
   * Where an append in doubt ended up, by its error's `token`: its position, or `null`, which means that the entry
   * is surely not in the log and never will be.
   */
  async resolve(token: string, options?: CallOptions): Promise<bigint | null> {
    const name = check.text(token, 'a token')
    return this.#call(options, (timeoutMs) => this.#native.resolve(name, timeoutMs))
  }

  /** Reads the whole log and checks every checksum. Has no deadline unless one is given. */
  async verify(options?: CallOptions): Promise<VerifyReport> {
    return this.#call(options, (timeoutMs) => this.#native.verify(timeoutMs))
  }

  /**
   * Flushes and gives the handle's resources back; later calls are `CLOSED`. Rejects with the first failure of an
   * append that nobody saw. Idempotent. When time runs out, closing goes on.
   */
  async close(options?: CallOptions): Promise<void> {
    await this.#call(options, (timeoutMs) => this.#native.close(timeoutMs))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  #call<T>(options: CallOptions | undefined, submit: (timeoutMs: number) => number): Promise<T> {
    const given = check.options(options)
    return answer(submit(check.timeout(given?.timeoutMs)), given?.signal)
  }

  async #start(options: CallOptions | undefined, submit: (timeoutMs: number) => number): Promise<NativeReader> {
    return this.#call(options, submit)
  }
}

function isAsync(payloads: Iterable<Payload> | AsyncIterable<Payload>): payloads is AsyncIterable<Payload> {
  return typeof (payloads as AsyncIterable<Payload> | null)?.[Symbol.asyncIterator] === 'function'
}

function ifVersion(options: ChangeOptions | undefined): bigint | null {
  return check.maybeWhole(check.options(options)?.ifVersion, 'a chain version')
}

/**
 * Opens the log that `url` names, and creates it if it is missing.
 *
 * `memory:NAME` is a log of this process, `file:DIRECTORY/NAME` one on disk, `virtuallog://HOST:PORT,…/NAME` one of
 * a cluster.
 */
export async function open(url: string, options: OpenOptions = {}): Promise<Log> {
  check.url(url)
  check.options(options)
  const { create, mode, loglet, entryBytesMax, inFlightBytesMax, signal } = options
  const bytes = (value: number | undefined) => {
    return value === undefined ? undefined : check.count(value, 'a limit in bytes', Number.MAX_SAFE_INTEGER)
  }
  const tag = native.open(queue, url, {
    create: create === undefined ? undefined : check.flag(create, 'create'),
    mode: mode === undefined ? undefined : check.text(mode, 'mode'),
    loglet: loglet === undefined ? undefined : check.text(loglet, 'a loglet'),
    timeoutMs: check.timeout(options.timeoutMs),
    entryBytesMax: bytes(entryBytesMax),
    inFlightBytesMax: bytes(inFlightBytesMax),
  })
  return new Log(await answer<NativeLog>(tag, signal))
}

/** Creates the log that `url` names; `CONFLICT` if there is one. */
async function createLog(url: string, options?: CallOptions & { loglet?: string | undefined }): Promise<void> {
  const given = check.options(options)
  const loglet = given?.loglet === undefined ? null : check.text(given.loglet, 'a loglet')
  await answer(native.create(queue, check.url(url), loglet, check.timeout(given?.timeoutMs)), given?.signal)
}

/** Deletes a log and all its entries; `NOT_FOUND` if there is none. */
async function deleteLog(url: string, options?: CallOptions): Promise<void> {
  const given = check.options(options)
  await answer(native.delete(queue, check.url(url), check.timeout(given?.timeoutMs)), given?.signal)
}

/** The names of the logs in a store (a URL that ends in `/`), sorted. */
export async function logs(url: string, options?: CallOptions): Promise<string[]> {
  const given = check.options(options)
  return answer(native.logs(queue, check.url(url), check.timeout(given?.timeoutMs)), given?.signal)
}

export { createLog as create, deleteLog as delete }
