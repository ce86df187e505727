// An entry of the log: a place in a batch, whose fields are made when they are asked for.

import { inspect } from 'node:util'

import type { NativeBatch } from './native'

/** One entry of the log. */
export class Entry {
  readonly #batch: NativeBatch
  readonly #at: number

  /** Made by a `Reader`. */
  constructor(batch: NativeBatch, at: number) {
    this.#batch = batch
    this.#at = at
  }

  /** Positions strictly increase from entry to entry and may skip. */
  get position(): bigint {
    return this.#batch.positions[this.#at] as bigint
  }

  /**
   * What was appended. A view of the memory that its whole batch shares: copy it (`Buffer.from(payload)`) to keep a
   * few entries of many for long.
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

/** The entries of a batch. */
export function entries(batch: NativeBatch): Entry[] {
  const list = new Array<Entry>(batch.ends.length)
  for (let at = 0; at < list.length; at += 1) list[at] = new Entry(batch, at)
  return list
}
