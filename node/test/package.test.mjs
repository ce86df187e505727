// The package as its users get it: from this folder, from a tarball, from the registry's two halves.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { accessSync, constants, cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { before, describe, test } from 'node:test'
import { promisify } from 'node:util'

import { parse } from 'smol-toml'
import * as virtuallog from 'virtuallog'
import * as testing from 'virtuallog/testing'

import { platform } from '../scripts/platform.mjs'
import { PACKAGE, folder } from './stores.mjs'

const require = createRequire(import.meta.url)
const call = promisify(execFile)
const { version } = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8'))
const PLATFORM = join(PACKAGE, 'npm', platform)

/** Node.js and the system's own programs: no Rust, and nothing of this repository. */
const BARE = { PATH: `${dirname(process.execPath)}:/usr/bin:/bin`, HOME: process.env.HOME, npm_config_offline: 'true' }

test('there is no Rust where packages are tested', async () => {
  await assert.rejects(call('cargo', ['--version'], { env: BARE }), { code: 'ENOENT' })
})

test('an import and a require give the same', () => {
  for (const [name, imported] of [['virtuallog', virtuallog], ['virtuallog/testing', testing]]) {
    const required = require(name)
    const own = Object.keys(imported).filter((key) => !['default', 'module.exports'].includes(key))
    assert.deepEqual(own.filter((key) => key !== '__esModule').sort(), Object.keys(required).sort())
    for (const key of Object.keys(required)) assert.equal(imported[key], required[key], key)
  }
})

test('the codes are those of the one error table', () => {
  const table = parse(readFileSync(join(PACKAGE, '..', 'bindings', 'errors.toml'), 'utf8')).error
  assert.deepEqual([...virtuallog.ERROR_CODES], table.map((row) => row.name))
  for (const { name, retryable } of table) {
    const error = new virtuallog.VirtualLogError(name, 'what to do')
    assert.deepEqual([error.code, error.retryable, error.inDoubt], [name, retryable, false])
    assert.equal(new virtuallog.VirtualLogError(name, '', { inDoubt: true }).retryable, false)
  }
})

test('an error carries what led to it', () => {
  const error = new virtuallog.VirtualLogError('CORRUPT', 'a', { causes: ['b', 'c'], position: 7n, token: 't' })
  assert.equal(String(error), 'VirtualLogError: a')
  assert.deepEqual([error.position, error.token], [7n, 't'])
  assert.deepEqual([error.cause.message, error.cause.cause.message, error.cause.cause.cause], ['b', 'c', undefined])
})

test('there is one version', async () => {
  assert.equal(virtuallog.version, version)
  assert.equal(JSON.parse(readFileSync(join(PLATFORM, 'package.json'), 'utf8')).version, version)
  for (const program of ['virtuallog', 'virtuallogd']) {
    accessSync(join(PLATFORM, program), constants.X_OK)
    const { stdout } = await call(join(PLATFORM, program), ['--version'])
    assert.equal(stdout, `${program} ${version}\n`)
  }
})

test('a native half of another version is refused', async (t) => {
  const project = copy(join(folder(t), 'package'))
  const manifest = join(project, 'package.json')
  writeFileSync(manifest, readFileSync(manifest, 'utf8').replace(`"version": "${version}"`, '"version": "99.0.0"'))
  const program = ['-e', `require(${JSON.stringify(project)})`]
  await assert.rejects(call(process.execPath, program, { env: BARE }), /virtuallog 99\.0\.0 found a native half of/)
})

test('a platform without a native half is told what to do', async (t) => {
  const project = copy(join(folder(t), 'package'), (path) => !path.endsWith('virtuallog.node'))
  const program = ['-e', `require(${JSON.stringify(project)})`]
  await assert.rejects(call(process.execPath, program, { env: BARE }), new RegExp(`no native half for ${platform}.*make node`, 's'))
})

/** The package's own files, without what it is built and tested with. */
function copy(to, wanted = () => true) {
  for (const part of ['package.json', 'bin', 'dist', 'npm']) {
    cpSync(join(PACKAGE, part), join(to, part), { recursive: true, filter: wanted })
  }
  return to
}

const PROGRAM = `
import { open, version } from 'virtuallog'
import { LocalCluster } from 'virtuallog/testing'
const cluster = await LocalCluster.start({ nodes: 1 })
const log = await open(cluster.url + 'log')
console.log(version, await log.append('x'))
await log.close()
await cluster.close()
`

describe('installed into a project of its own', () => {
  const ways = {
    'by its folder': async () => [PACKAGE],
    'from a tarball': async (scratch) => [await pack(PACKAGE, scratch)],
    // As a registry has it: the package names the platform's own, which carries all that is native.
    'in two halves': async (scratch) => {
      const { stdout } = await call(process.execPath, [join(PACKAGE, 'scripts', 'pack.mjs'), scratch], { env: BARE })
      return stdout.trim().split('\n').map((tarball) => join(scratch, tarball))
    },
  }
  before(() => assert(existsSync(join(PACKAGE, 'dist', 'index.js')), 'it is built'))
  for (const [how, packages] of Object.entries(ways)) {
    test(how, async (t) => {
      const scratch = folder(t)
      const project = join(scratch, 'project')
      mkdirSync(project)
      writeFileSync(join(project, 'package.json'), '{ "type": "module" }')
      const given = await packages(scratch)
      await call('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', ...given], { cwd: project, env: BARE })
      assert.equal(existsSync(join(project, 'node_modules', '@types')), false)
      writeFileSync(join(project, 'main.js'), PROGRAM)
      const { stdout } = await call(process.execPath, ['main.js'], { cwd: project, env: BARE })
      assert.equal(stdout, `${version} 0n\n`)
      for (const program of ['virtuallog', 'virtuallogd']) {
        const installed = join(project, 'node_modules', '.bin', program)
        const told = await call(installed, ['--version'], { cwd: project, env: BARE })
        assert.equal(told.stdout, `${program} ${version}\n`)
      }
      const wrong = call(join(project, 'node_modules', '.bin', 'virtuallog'), ['no-such-command'], { env: BARE })
      await assert.rejects(wrong, { code: 2 })
      if (how === 'in two halves') await scenarios(scratch, project)
    })
  }
})

/** Runs the scenarios in a project that has the package, with nothing else of this repository but what reads them. */
async function scenarios(scratch, project) {
  cpSync(join(PACKAGE, '..', 'bindings', 'conformance'), join(scratch, 'bindings', 'conformance'), { recursive: true })
  for (const file of ['conformance.test.mjs', 'stores.mjs']) {
    cpSync(join(PACKAGE, 'test', file), join(project, 'test', file))
  }
  const reader = ['node_modules', 'smol-toml']
  cpSync(join(PACKAGE, ...reader), join(project, ...reader), { recursive: true })
  const flags = ['--no-warnings', '--test', '--test-reporter=tap', 'test/conformance.test.mjs']
  const { stdout } = await call(process.execPath, flags, { cwd: project, env: BARE, maxBuffer: 2 ** 24 })
  assert.match(stdout, /^# fail 0$/m)
  assert(Number(/^# pass (\d+)$/m.exec(stdout)[1]) > 80, 'the scenarios were run')
}

async function pack(from, to) {
  const { stdout } = await call('npm', ['pack', '--silent', '--pack-destination', to], { cwd: from, env: BARE })
  return join(to, stdout.trim())
}

test('the types are true for those who import and those who require', async () => {
  await call(join(PACKAGE, 'node_modules', '.bin', 'tsc'), ['--project', join(PACKAGE, 'test', 'types')])
})
