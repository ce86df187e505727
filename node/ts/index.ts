/**
 * A virtual shared log: one totally ordered, durable log whose engine can be swapped while it runs.
 *
 * `open` gives a log, `Server` runs a server of a cluster in this process, and `LocalCluster` of
 * `virtuallog/testing` is a whole cluster for tests. Every failure is a `VirtualLogError`. Positions are `bigint`s
 * that strictly increase and may skip; ranges are half open.
 *
 * @packageDocumentation
 */

import { logAsAsked } from './logging'
import { native, version } from './native'

export { type MoveOptions, ROLES, Server, type ServerOptions, drain, init, move, nodes, remove } from './cluster'
export { Entry } from './entry'
export { ERROR_CODES, type ErrorCode, type ErrorDetails, VirtualLogError } from './errors'
export { Log, create, delete, logs, open } from './log'
export { type LogLevel, type Logger, logTo } from './logging'
export { Reader } from './reader'
export type {
  Appended,
  CallOptions,
  Chain,
  ChangeOptions,
  ClusterInfo,
  MoveProgress,
  NodeInfo,
  OpenOptions,
  Payload,
  Placement,
  Plan,
  PositionInput,
  Role,
  Segment,
  Start,
  Tail,
  Trimmed,
  VerifyReport,
} from './types'
export { version }

logAsAsked()
if (native.DEBUG_BUILD) process.emitWarning('virtuallog was built without optimisation: do not measure it')
