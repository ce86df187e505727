// Builds the package in place: the TypeScript, and the platform's folder with the native half and the programs.
//
//     node scripts/build.mjs [--profile dev|release|dist]
//
// Needs Rust and a C compiler; what comes out needs neither.

import { execFileSync } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, renameSync, rmSync, statSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

import { platform } from './platform.mjs'

/** What each released binary may weigh. */
const BYTES_MAX = 15_000_000

const { values } = parseArgs({ options: { profile: { type: 'string', default: 'release' } } })
const node = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const folder = join(node, 'npm', platform)
const run = (program, ...args) => execFileSync(program, args, { cwd: join(node, '..'), stdio: 'inherit' })

if (!existsSync(join(folder, 'package.json'))) {
  console.error(`virtuallog is not packaged for ${platform}: give it a folder like npm/linux-x64-gnu`)
  process.exit(1)
}

run('cargo', 'build', '--quiet', '--profile', values.profile, '-p', 'virtuallog-node', '-p', 'virtuallog-server')
const metadata = execFileSync('cargo', ['metadata', '--no-deps', '--format-version=1'], {
  cwd: node,
  maxBuffer: 2 ** 26,
})
const built = join(JSON.parse(metadata).target_directory, values.profile === 'dev' ? 'debug' : values.profile)
const library = process.platform === 'darwin' ? 'libvirtuallog_node.dylib' : 'libvirtuallog_node.so'
install(library, 'virtuallog.node', '-x')
for (const program of ['virtuallog', 'virtuallogd']) {
  install(program, program)
  chmodSync(join(folder, program), 0o755)
}

rmSync(join(node, 'dist'), { recursive: true, force: true })
run(join(node, 'node_modules', '.bin', 'tsc'), '--project', node)

// Never written in place: a process that has the old one mapped would crash.
function install(from, to, ...strip) {
  const fresh = join(folder, `${to}.new`)
  copyFileSync(join(built, from), fresh)
  run('strip', ...strip, fresh)
  const { size } = statSync(fresh)
  if (values.profile === 'dist' && size > BYTES_MAX) {
    console.error(`${to} is too large: ${(size / 1e6).toFixed(1)} MB, and ${BYTES_MAX / 1e6} MB is the most`)
    process.exit(1)
  }
  renameSync(fresh, join(folder, to))
}
