// How answers of the native half come into the event loop: one completion queue a thread.
//
// The native half calls in once when there is something to take; all that is ready is then taken at once, on the
// loop's own thread. The process has something to wait for as long as an answer is to come, and no longer: a
// handle that nobody waits on keeps nothing alive.

import { VirtualLogError } from './errors'
import { type Failure, type NativeQueue, type Tag, native } from './native'

/** So many answers at a time, so that other work of the loop gets its turn in between. */
const DRAIN_MAX = 4096
/** The longest that a timer can be set to, in milliseconds. */
const LONG = 2 ** 31 - 1

/** Somebody who waits for an answer. */
interface Waiting {
  resolve(value: unknown): void
  reject(error: unknown): void
}

/** Tags are never used again, so an answer that nobody waits for any more is simply dropped. */
const waiting = new Map<Tag, Waiting>()
/** How many things beside answers the process waits for. */
let holds = 0
/** Does nothing: while it is referenced, the process has something to wait for. */
const alive = setInterval(() => {}, LONG).unref()

/** This thread's queue. */
export const queue: NativeQueue = new native.Queue(drain)

/** The answer to an operation that was submitted just now. */
export function answer<T>(tag: Tag, signal?: AbortSignal): Promise<T> {
  if (waiting.size === 0 && holds === 0) alive.ref()
  if (signal !== undefined) return abortable(tag, signal)
  return new Promise((resolve, reject) => {
    waiting.set(tag, { resolve: resolve as (value: unknown) => void, reject })
  })
}

function abortable<T>(tag: Tag, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const settled = onAbort(signal, () => {
      waiting.delete(tag)
      queue.cancel(tag)
      idle()
      reject(signal.reason)
    })
    waiting.set(tag, {
      resolve: (value) => (settled(), resolve(value as T)),
      reject: (error) => (settled(), reject(error)),
    })
  })
}

/** What is to be done when a signal aborts. One listener for each: thousands of calls may share a signal. */
const aborts = new WeakMap<AbortSignal, { calls: Set<() => void>; listener: () => void }>()

/** Calls `abort` when the signal does, unless what is given back was called before. */
function onAbort(signal: AbortSignal, abort: () => void): () => void {
  let shared = aborts.get(signal)
  if (shared === undefined) {
    const calls = new Set<() => void>()
    const listener = () => {
      aborts.delete(signal)
      for (const call of calls) call()
    }
    shared = { calls, listener }
    aborts.set(signal, shared)
    signal.addEventListener('abort', listener, { once: true })
  }
  const { calls, listener } = shared
  calls.add(abort)
  return () => {
    if (!calls.delete(abort) || calls.size > 0) return
    aborts.delete(signal)
    signal.removeEventListener('abort', listener)
  }
}

/** Keeps the process alive until `release`. */
export function hold(): void {
  holds += 1
  alive.ref()
}

/** The opposite of one `hold`. */
export function release(): void {
  holds -= 1
  idle()
}

/** Makes the error of what failed at once; anything else is the result. */
export function succeeded<T>(result: T | Failure): T {
  if (result !== null && typeof result === 'object' && 'causes' in result) throw failed(result)
  return result as T
}

function drain(): void {
  const answers = queue.drain(DRAIN_MAX)
  for (let at = 1; at < answers.length; at += 2) {
    const tag = answers[at] as number
    if (tag >= 0) {
      take(tag)?.resolve(answers[at + 1])
    } else {
      take(-1 - tag)?.reject(failed(answers[at + 1] as Failure))
    }
  }
  if (answers[0]) setImmediate(drain)
  idle()
}

function take(tag: Tag): Waiting | undefined {
  const found = waiting.get(tag)
  waiting.delete(tag)
  return found
}

function idle(): void {
  if (waiting.size === 0 && holds === 0) alive.unref()
}

function failed(failure: Failure): VirtualLogError {
  return new VirtualLogError(failure.code, failure.message, failure)
}
