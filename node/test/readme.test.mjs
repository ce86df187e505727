// The examples of the README, run in order as one program: each `// …` after a statement is what it prints.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'

import { PACKAGE, folder } from './stores.mjs'

test('the README is true', async (t) => {
  const readme = readFileSync(join(PACKAGE, 'README.md'), 'utf8')
  const program = [...readme.matchAll(/```js\n(.*?)```/gs)].map(([, block]) => block).join('')
  const printed = program.split('\n').filter((line) => line.startsWith('// '))
  assert(printed.length > 10)
  const project = folder(t)
  mkdirSync(join(project, 'node_modules'))
  symlinkSync(PACKAGE, join(project, 'node_modules', 'virtuallog'))
  writeFileSync(join(project, 'readme.mjs'), program)
  const child = spawn(process.execPath, ['--no-warnings', 'readme.mjs'], { cwd: project, stdio: ['ignore', 'pipe', 'inherit'] })
  assert.equal(await text(child.stdout), printed.map((line) => `${line.slice(3)}\n`).join(''))
})
