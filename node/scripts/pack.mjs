// Packs the package as a registry is to have it: the package itself, which is the same everywhere and names a
// package for each platform, and this platform's, which has all that is native.
//
//     node scripts/pack.mjs FOLDER
//
// Publishes nothing. For one tarball that has everything for this platform, `npm pack` is enough.

import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

import { platform } from './platform.mjs'

const node = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const to = resolve(process.argv[2] ?? '.')
const read = (folder) => JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
const pack = (folder) => {
  return execFileSync('npm', ['pack', '--silent', '--pack-destination', to], { cwd: folder, encoding: 'utf8' }).trim()
}

mkdirSync(to, { recursive: true })
const scratch = mkdtempSync(join(tmpdir(), 'virtuallog-pack-'))
try {
  for (const part of ['bin', 'dist', 'README.md']) cpSync(join(node, part), join(scratch, part), { recursive: true })
  const { devDependencies, scripts, ...manifest } = read(node)
  const platforms = readdirSync(join(node, 'npm')).map((name) => read(join(node, 'npm', name)))
  manifest.optionalDependencies = Object.fromEntries(platforms.map(({ name, version }) => [name, version]))
  writeFileSync(join(scratch, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`)
  console.log(pack(scratch))
  console.log(pack(join(node, 'npm', platform)))
} finally {
  rmSync(scratch, { recursive: true })
}
