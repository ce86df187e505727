// An entry of the log: a place in a batch, whose fields are made when they are asked for.

import { inspect } from 'node:util'

import type { NativeBatch } from './native'

/** Entries that were read together. */
export class Batch {
  readonly positions: BigUint64Array
  readonly writtenAtMicros: Float64Array
  /** Where each payload ends. */
  readonly ends: Uint32Array
  readonly payloads: Buffer

  constructor({ count, memory }: NativeBatch) {
    const { buffer, byteOffset } = memory
    this.positions = new BigUint64Array(buffer, byteOffset, count)
    this.writtenAtMicros = new Float64Array(buffer, byteOffset + 8 * count, count)
    this.ends = new Uint32Array(buffer, byteOffset + 16 * count, count)
    this.payloads = memory.subarray(20 * count)
  }

  get length(): number {
    return this.ends.length
  }

  /** The entry at a place. */
  entry(at: number): Entry {
    return new Entry(this, at)
  }

  /** The entries from one place to another. */
  slice(start: number, end: number): Entry[] {
    const list = new Array<Entry>(end - start)
    for (let at = start; at < end; at += 1) list[at - start] = new Entry(this, at)
    return list
  }
}

/** One entry of the log. */
export class Entry {
  readonly #batch: Batch
  readonly #at: number

  /** Made by a `Reader`. */
  constructor(batch: Batch, at: number) {
    this.#batch = batch
    this.#at = at
  }

  /** Positions strictly increase from entry to entry and may skip. */
  get position(): bigint {
    return this.#batch.positions[this.#at] as bigint
  }

  /**
   * What was appended. A view of the memory that all entries share that were read with it, about 1 MiB: copy it
   * (`Buffer.from(payload)`) to keep a few entries of many for long.
   */
  get payload(): Buffer {
    const { ends, payloads } = this.#batch
    return payloads.subarray(this.#at === 0 ? 0 : ends[this.#at - 1], ends[this.#at])
  }

  /** The writer's clock in microseconds since 1970 (UTC). Information only: it is never used for order. */
  get writtenAtMicros(): number {
    return this.#batch.writtenAtMicros[this.#at] as number
  }

  /** The writer's clock when the entry was appended. */
  get writtenAt(): Date {
    return new Date(this.writtenAtMicros / 1000)
  }

  /** The payload as text: UTF-8, unless another encoding is named. */
  text(encoding?: BufferEncoding): string {
    return this.payload.toString(encoding)
  }

  /** The payload parsed as JSON. Throws `SyntaxError` where it is not. */
  json(): unknown {
    return JSON.parse(this.text())
  }

  /** For `JSON.stringify`, which knows no `bigint`: the position as a string, the payload in base64. */
  toJSON(): {
    position: string
    payload: string
    writtenAt: string
    writtenAtMicros: number
  } {
    const { position, payload, writtenAt, writtenAtMicros } = this
    return {
      position: position.toString(),
      payload: payload.toString('base64'),
      writtenAt: writtenAt.toISOString(),
      writtenAtMicros,
    }
  }

  /** What `console.log` shows. */
  [inspect.custom](): object {
    const { position, payload, writtenAt } = this
    return { position, payload, writtenAt }
  }
}
