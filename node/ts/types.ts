// The plain values that operations take and give.

/** What can be appended: bytes, copied at the call, or text, which goes in as UTF-8. */
export type Payload = Uint8Array | string

/** A position: positions come out as `bigint`, and go in as `bigint` or as a safe integer. */
export type PositionInput = bigint | number

/** Where a subscription starts: at a position, at the first one kept, or at the tail. */
export type Start = PositionInput | 'first' | 'tail'

/** What every call takes. */
export interface CallOptions {
  /** Milliseconds that the call may take; `null` or `Infinity`: as long as it takes. */
  timeoutMs?: number | null | undefined
  /**
   * Stops waiting, and rejects with the signal's reason. Reads and administrative calls are stopped; an append
   * is not: it was submitted, and only its answer is let go of.
   */
  signal?: AbortSignal | undefined
}

/** What a change of the chain takes. */
export interface ChangeOptions extends CallOptions {
  /** The chain version that the change is for; left out: the one that this handle saw last. */
  ifVersion?: bigint | number | undefined
}

/** How to open a log. What is left out is taken from the URL's parameters, then by default. */
export interface OpenOptions {
  /** Whether a missing log is created. Default: true. */
  create?: boolean | undefined
  /** `"read"` follows without taking part: no lock, no write. Default: `"write"`. */
  mode?: 'read' | 'write' | undefined
  /** What the first segment of a log that is created is kept in, for example `"local"`. */
  loglet?: string | undefined
  /** The deadline, in milliseconds, of opening and of each call that names none; `null`: none. Default: 10,000. */
  timeoutMs?: number | null | undefined
  /** The limit on one entry, in bytes. Default: 1 MiB; at most 16 MiB. */
  entryBytesMax?: number | undefined
  /** The limit on what is submitted and not answered, in bytes. Default: 32 MiB. */
  inFlightBytesMax?: number | undefined
  /** Stops opening. */
  signal?: AbortSignal | undefined
}

/** Where a log ends. */
export interface Tail {
  /** The first unwritten position. */
  position: bigint
  /** True when nothing can be appended any more. */
  sealed: boolean
}

/** What `Log.prefixTrim` did. */
export interface Trimmed {
  /** The first position to keep, as asked. */
  requested: bigint
  /** The first position that is kept. */
  effective: bigint
  /** Why `effective` is not `requested`. */
  limitedBy: 'tail' | 'already_trimmed' | null
}

/** What `Log.appendAll` put into the log. Other writers' entries may lie in between. */
export interface Appended {
  /** Position of the first entry. */
  first: bigint
  /** Position of the last entry. */
  last: bigint
  /** How many entries. */
  count: number
}

/** A range of the log's positions, and the loglet that holds it. */
export interface Segment {
  /** The segment's identity, never used again. */
  index: number
  /** The first position. */
  start: bigint
  /** The position after the last; `null` while the segment is open. */
  stop: bigint | null
  /** What holds it, as users write it, for example `"local"`. */
  loglet: string
}

/** Which loglet holds which positions of a log, at one version. */
export interface Chain {
  /** The log's identity: 32 hexadecimal digits, drawn when it was created. */
  log: string
  /** What to pass as `ifVersion`. */
  version: number
  /** In order, contiguous, never empty. The last one is active, unless the log was ended. */
  segments: Segment[]
  /** The loglet of a reconfiguration that was begun and not completed; `"end"` for a seal. */
  next: string | null
  /** Whether the log can go on. */
  life: 'open' | 'ended' | 'moved'
  /** Where a moved log lives now. */
  movedTo: string | null
}

/** The nodes of a cluster that a loglet is on. It goes on as long as a majority of them does. */
export interface Placement {
  /** Numbers of the nodes that hold it. */
  members: number[]
  /** Number of the one that gives its positions. */
  sequencer: number
}

/** What a `Log.reconfigExtend` would do. */
export interface Plan {
  /** The chain version that it speaks of: pass it as `ifVersion` to do exactly this. */
  version: number
  /** The active loglet. */
  fromLoglet: string
  /** The loglet to come, with all that was left to defaults written out. */
  toLoglet: string
  /** Index of the segment that would be sealed. */
  sealsSegment: number
  /** The tail at the time of planning: the boundary will be here or later. */
  tail: bigint
  /** None have to be moved for an extend. */
  bytesToMove: number
  /** What stands against it, in sentences. Empty: it can be done. */
  objections: string[]
  /** Where the active loglet is; `null` if it is on no nodes. */
  before: Placement | null
  /** Where the loglet to come would be, as things are now; `null` if on no nodes. */
  after: Placement | null
}

/** What `Log.verify` found. */
export interface VerifyReport {
  /** Segments looked at. */
  segments: number
  /** Entries read, each with a right checksum. */
  entries: number
  /** Bytes of payload. */
  bytes: number
  /** What is wrong, in sentences that name segment and position. Empty: all is well. */
  problems: string[]
}

/** What a server can do for its cluster. */
export type Role = 'log' | 'sequencer' | 'metastore'

/** A node of a cluster. */
export interface NodeInfo {
  /** Its number, never given again. */
  node: number
  /** Where it is reached, `"HOST:PORT"`. */
  address: string
  /** Where it stands: replicas are spread over zones. May be empty. */
  zone: string
  /** What it does. */
  roles: Role[]
  /** Whether it is one of those that hold the chains now. */
  metastore: boolean
  /** Whether it answers. */
  alive: boolean
  /** Whether nothing new is placed on it. */
  draining: boolean
  /** How many loglets it gives positions for; 0 when it does not answer. */
  sequences: number
  /** The identity of its disk: 32 hexadecimal digits. */
  storage: string
}

/** A cluster, as one of its nodes sees it. */
export interface ClusterInfo {
  /** Its identity: 32 hexadecimal digits. */
  id: string
  /** Its nodes, by number. */
  nodes: NodeInfo[]
  /** Its store, by the addresses of all its nodes: add a log's name to open one. */
  url: string
}

/** How far a log has come on its way to another store. */
export interface MoveProgress {
  /**
   * What it is at: going over to an engine of the destination, its chain going there, or, when it lives there
   * already, copying what was left behind.
   */
  phase: 'engine' | 'chain' | 'copy'
  /** Sealed segments that were copied. */
  segmentsDone: number
  /** Sealed segments that are to be copied, those included. */
  segmentsTotal: number
  /** Bytes that were copied, with what frames them. */
  bytesDone: number
}
