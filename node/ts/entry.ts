// An entry of the log.

import type { NativeBatch } from './native'

/** One entry of the log. */
export class Entry {
  constructor(
    /** Positions strictly increase from entry to entry and may skip. */
    readonly position: bigint,
    /**
     * What was appended. A view of the memory that its whole batch shares: copy it (`Buffer.from(payload)`) to
     * keep a few entries of many for long.
     */
    readonly payload: Buffer,
    /** The writer's clock in microseconds since 1970 (UTC). Information only: it is never used for order. */
    readonly writtenAtMicros: number,
  ) {}

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
  toJSON(): { position: string; payload: string; writtenAt: string } {
    const { position, payload, writtenAt } = this
    return {
      position: position.toString(),
      payload: payload.toString('base64'),
      writtenAt: writtenAt.toISOString(),
    }
  }
}

/** The entries of a batch. */
export function entries(batch: NativeBatch): Entry[] {
  const { payloads, ends, positions, writtenAtMicros } = batch
  const list = new Array<Entry>(ends.length)
  let start = 0
  for (let at = 0; at < list.length; at += 1) {
    const end = ends[at] as number
    list[at] = new Entry(positions[at] as bigint, payloads.subarray(start, end), writtenAtMicros[at] as number)
    start = end
  }
  return list
}
