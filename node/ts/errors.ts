// The error: one class, whose `code` says what happened, in the spelling that every language shares.

/** What happened, as in the table `bindings/errors.toml`. */
export type ErrorCode =
  | 'INVALID'
  | 'NOT_FOUND'
  | 'LOCKED'
  | 'TOO_LARGE'
  | 'TRIMMED'
  | 'SEALED'
  | 'CONFLICT'
  | 'BUSY'
  | 'UNAVAILABLE'
  | 'DEADLINE'
  | 'CORRUPT'
  | 'DISK_FULL'
  | 'INCOMPATIBLE'
  | 'DATA_LOSS'
  | 'CLOSED'
  | 'INTERNAL'

/** Each code, and whether the same call may succeed later with nothing changed by the caller. */
const RETRYABLE: Readonly<Record<ErrorCode, boolean>> = {
  INVALID: false,
  NOT_FOUND: false,
  LOCKED: true,
  TOO_LARGE: false,
  TRIMMED: false,
  SEALED: false,
  CONFLICT: false,
  BUSY: true,
  UNAVAILABLE: true,
  DEADLINE: true,
  CORRUPT: false,
  DISK_FULL: true,
  INCOMPATIBLE: false,
  DATA_LOSS: false,
  CLOSED: false,
  INTERNAL: false,
}

/** Every code there is. */
export const ERROR_CODES: readonly ErrorCode[] = Object.freeze(Object.keys(RETRYABLE) as ErrorCode[])

/** What an error tells beside its code and its message. */
export interface ErrorDetails {
  retryable?: boolean
  inDoubt?: boolean
  position?: bigint | null
  token?: string | null
  /** What led to it, outermost first. */
  causes?: readonly string[]
}

/**
 * What went wrong, and what to do about it: the message is the sentence that says so.
 *
 * Every failure of the log is one. An argument of a wrong type is a plain `TypeError`.
 */
export class VirtualLogError extends Error {
  /** What happened: what to branch on. */
  readonly code: ErrorCode
  /** Whether the same call may succeed later. Never true for an outcome in doubt. */
  readonly retryable: boolean
  /** True when an append may or may not be in the log: ask `Log.resolve` before appending again. */
  readonly inDoubt: boolean
  /** The position that the error speaks of: for `TRIMMED` the first one kept. */
  readonly position: bigint | null
  /** Names the append in doubt, for `Log.resolve`. May be written down and used later. */
  readonly token: string | null

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    const cause = chained(details.causes ?? [])
    super(message, cause === undefined ? undefined : { cause })
    this.code = code
    this.inDoubt = details.inDoubt ?? false
    this.retryable = details.retryable ?? (RETRYABLE[code] && !this.inDoubt)
    this.position = details.position ?? null
    this.token = details.token ?? null
  }

  static {
    // On the prototype, as the built-in classes have it: it is no field of each error.
    Object.defineProperty(this.prototype, 'name', { value: 'VirtualLogError', configurable: true, writable: true })
  }
}

/** Each cause as the cause of the one before it. */
function chained(causes: readonly string[]): Error | undefined {
  return causes.reduceRight<Error | undefined>(
    (cause, message) => new Error(message, cause === undefined ? undefined : { cause }),
    undefined,
  )
}

/** The call itself is wrong. */
export function invalid(message: string): VirtualLogError {
  return new VirtualLogError('INVALID', message)
}

/** An argument of a wrong type, in the form of Node.js's own. */
export function wrongType(message: string): TypeError {
  return Object.assign(new TypeError(message), { code: 'ERR_INVALID_ARG_TYPE' })
}
