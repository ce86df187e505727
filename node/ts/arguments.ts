// Arguments, strictly: a wrong type is a `TypeError`, a wrong value is `INVALID`, and both say what to write
// instead. What passes here, the native half takes as it is.

import { inspect, types } from 'node:util'

import { invalid, wrongType } from './errors'
import type { CallOptions, Payload } from './types'

const POSITION_MAX = 2n ** 64n - 1n
/** What the native half takes for the handle's own timeout. */
const TIMEOUT_DEFAULT = Number.NaN

/** A payload. One whose memory was transferred away would otherwise look like an empty one. */
export function payload(value: Payload): Payload {
  if (typeof value === 'string') return value
  // Unlike `instanceof`, this also knows the arrays of another realm, such as a test runner's sandbox.
  if (!types.isUint8Array(value)) {
    throw wrongType(`a payload is a Buffer, a Uint8Array or a string: got ${shown(value)}`)
  }
  if (value.byteLength === 0) attached(value)
  return value
}

/** The payloads of one batch. A copy, also of an array: no getter runs between the check and the use. */
export function payloads(values: Iterable<Payload>): Payload[] {
  const list = [...iterable(values, 'appendMany')]
  for (const value of list) payload(value)
  return list
}

/** Several payloads. A single one would otherwise be taken for its letters, or for its bytes. */
export function iterable(values: Iterable<Payload>, call: string): Iterable<Payload> {
  if (typeof values === 'string' || ArrayBuffer.isView(values)) {
    throw wrongType(`${call} takes an iterable of payloads: for a single one use append`)
  }
  if (typeof values?.[Symbol.iterator] === 'function') return values
  throw wrongType(`${call} takes an iterable of payloads: got ${shown(values)}`)
}

/** Refuses bytes that are not there any more; an array of none passes. */
function attached(value: Uint8Array): void {
  try {
    Uint8Array.prototype.at.call(value, 0)
  } catch {
    throw wrongType('the payload is detached: its memory was transferred to somebody else, or made smaller')
  }
}

/** A position: from 0 to 2^64 - 1. */
export function position(value: bigint | number): bigint {
  return whole(value, 'a position')
}

/** A whole number, of either kind. */
export function whole(value: bigint | number, what: string): bigint {
  if (typeof value === 'bigint') {
    if (value >= 0n && value <= POSITION_MAX) return value
  } else if (typeof value === 'number') {
    if (Number.isSafeInteger(value) && value >= 0) return BigInt(value)
  } else {
    throw wrongType(`${what} is a bigint or a number: got ${shown(value)}`)
  }
  const range = 'a whole bigint from 0 to 2^64 - 1, or a number up to 2^53 - 1'
  throw invalid(`${what} is ${range}: got ${shown(value)}`)
}

/** `whole`, where it may be left out. */
export function maybeWhole(value: bigint | number | null | undefined, what: string): bigint | null {
  return value === undefined || value === null ? null : whole(value, what)
}

/** A whole number that fits a double. */
export function count(value: number | bigint, what: string, max: number): number {
  const number = whole(value, what)
  if (number > BigInt(max)) throw invalid(`${what} is at most ${max}: got ${shown(value)}`)
  return Number(number)
}

/** Yes or no. */
export function flag(value: boolean, what: string): boolean {
  if (typeof value === 'boolean') return value
  throw wrongType(`${what} is true or false: got ${shown(value)}`)
}

/** Text. */
export function text(value: string, what: string): string {
  if (typeof value === 'string') return value
  throw wrongType(`${what} is a string: got ${shown(value)}`)
}

/** A URL. */
export function url(value: string): string {
  if (typeof value === 'string') return value
  throw wrongType(`a URL is a string, for example "memory:" or \`file:\${directory}/name\`: got ${shown(value)}`)
}

/** Several strings. A single one would otherwise be taken for its letters. */
export function texts(values: Iterable<string>, what: string): string[] {
  if (typeof values === 'string' || typeof values?.[Symbol.iterator] !== 'function') {
    throw wrongType(`${what}: an iterable of strings, for example an array: got ${shown(values)}`)
  }
  return Array.from(values, (value) => text(value, what))
}

/** Milliseconds as the native half takes them: NaN for the handle's own, infinity for none. */
export function timeout(value: number | null | undefined): number {
  if (value === undefined) return TIMEOUT_DEFAULT
  if (value === null) return Number.POSITIVE_INFINITY
  if (typeof value !== 'number') throw wrongType(`timeoutMs is a number of milliseconds, or null: got ${shown(value)}`)
  if (value >= 0) return value
  throw invalid(`timeoutMs is a number of milliseconds from 0 on: got ${value}`)
}

/** The options of a call. An options bag that is a number is a caller's mistake, such as a bare timeout. */
export function options<T extends CallOptions>(value: T | undefined): T | undefined {
  if (value === undefined) return value
  if (value === null || typeof value !== 'object') {
    throw wrongType(`options are an object, for example { timeoutMs: 1000 }: got ${shown(value)}`)
  }
  signal(value.signal)
  return value
}

function signal(value: AbortSignal | undefined): void {
  if (value === undefined) return
  if (typeof value !== 'object' || typeof value?.addEventListener !== 'function' || !('aborted' in value)) {
    throw wrongType(`signal is an AbortSignal: got ${shown(value)}`)
  }
  value.throwIfAborted()
}

/** A value in a message: short, whatever it is. */
function shown(value: unknown): string {
  const text = inspect(value, { depth: 0, breakLength: Infinity, maxArrayLength: 3, maxStringLength: 40 })
  return text.length <= 80 ? text : `${text.slice(0, 77)}...`
}
