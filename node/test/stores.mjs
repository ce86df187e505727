// What tests share: logs that do not exist yet, folders that go away, and programs of their own process.

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

import { open } from 'virtuallog'

/** The folder of the package. */
export const PACKAGE = fileURLToPath(new URL('..', import.meta.url))

let logs = 0

/** The URL of a log in memory. */
export function memory() {
  return `memory:test-${(logs += 1)}`
}

/** A folder of this test. */
export function folder(t) {
  const path = mkdtempSync(join(tmpdir(), 'virtuallog-test-'))
  t.after(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** An open, empty log in memory. */
export async function fresh(t, options) {
  const log = await open(memory(), options)
  t.after(() => log.close())
  return log
}

/** What the entries from `start` on hold. */
export async function texts(log, start = 0n) {
  const found = []
  for await (const entry of log.read(start)) found.push(entry.text())
  return found
}

/** Runs a program to its end, as a module whose `virtuallog` is this package. */
export async function run(source, { env = {}, flags = ['--no-warnings'] } = {}) {
  const child = spawn(process.execPath, [...flags, '--input-type=module', '--eval', source], {
    cwd: PACKAGE,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = new Promise((resolve) => child.on('close', (status, signal) => resolve({ status, signal })))
  const [{ status, signal }, stdout, stderr] = await Promise.all([ended, text(child.stdout), text(child.stderr)])
  return { status, signal, stdout, stderr }
}
