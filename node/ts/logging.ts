// What the library reports, handed to the application's own logger.
//
// Reports come in batches, on the event loop's thread; none of the library's threads ever runs JavaScript.

import { isMainThread } from 'node:worker_threads'

import { wrongType } from './errors'
import { succeeded } from './driver'
import { native } from './native'

/** From how severe on reports are handed over. */
export type LogLevel = 'off' | 'error' | 'warn' | 'info' | 'debug' | 'trace'

/** What takes reports: `console`, and the loggers that are made like it. */
export interface Logger {
  error(message: string): void
  warn(message: string): void
  info(message: string): void
  debug(message: string): void
}

/**
 * Hands what the library reports, from `level` on, to `logger`; what is below `debug` goes to its `debug`.
 *
 * Off unless this is called, or the variable `VIRTUALLOG_LOG` names a level when the package is loaded: then
 * reports go to standard error. Again: the level and the logger take the place of those before, which may be
 * another thread's, because a process has one stream of reports. Keeps nothing alive.
 */
export function logTo(logger: Logger, level: LogLevel = 'info'): void {
  for (const method of ['error', 'warn', 'info', 'debug'] as const) {
    if (typeof logger?.[method] !== 'function') throw wrongType(`a logger has a method \`${method}\`, as console does`)
  }
  if (typeof level !== 'string') throw wrongType('a level is a string, for example "info"')
  succeeded(native.startLogs(level, () => handOver(logger)))
}

function handOver(logger: Logger): void {
  const { records, dropped } = native.drainLogs()
  for (const { level, target, message } of records) {
    tell(() => logger[level === 'trace' ? 'debug' : level](`${target.replaceAll('::', '.')}: ${message}`))
  }
  if (dropped > 0) tell(() => logger.warn(`virtuallog: ${dropped} reports were dropped: they came too fast`))
}

/** A logger's own failure is not the log's. */
function tell(report: () => void): void {
  try {
    report()
  } catch (error) {
    process.emitWarning(`the logger threw: ${String(error)}`, 'VirtualLogWarning')
  }
}

/** As the environment asks. A worker thread leaves that to the main one. */
export function logAsAsked(): void {
  if (!isMainThread) return
  try {
    const level = succeeded(native.logLevel())
    const line = (message: string): void => void process.stderr.write(`${message}\n`)
    if (level !== null) logTo({ error: line, warn: line, info: line, debug: line }, level as LogLevel)
  } catch (error) {
    process.emitWarning(`VIRTUALLOG_LOG: ${(error as Error).message}`, 'VirtualLogWarning')
  }
}
