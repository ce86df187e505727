// The examples in Node.js print what they print in every language.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'

import { PACKAGE, folder } from './stores.mjs'

const EXAMPLES = join(PACKAGE, '..', 'examples')
const SCENARIOS = readdirSync(EXAMPLES).filter((name) => {
  return ['main.mjs', 'expected.txt'].every((file) => existsSync(join(EXAMPLES, name, file)))
})

test('there are examples', () => assert(SCENARIOS.includes('quickstart')))

for (const name of SCENARIOS) {
  test(name, async (t) => {
    const project = folder(t)
    mkdirSync(join(project, 'node_modules'))
    symlinkSync(PACKAGE, join(project, 'node_modules', 'virtuallog'))
    cpSync(join(EXAMPLES, name, 'main.mjs'), join(project, 'main.mjs'))
    const child = spawn(process.execPath, ['--no-warnings', 'main.mjs', `file:${project}/store/log`], {
      cwd: project,
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    assert.equal(await text(child.stdout), readFileSync(join(EXAMPLES, name, 'expected.txt'), 'utf8'))
  })
}
