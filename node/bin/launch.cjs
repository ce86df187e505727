// Runs a program of the platform package in the place of this one: same arguments, streams, signals and status.

'use strict'

const { spawn } = require('node:child_process')
const { join } = require('node:path')

const { platformFolder } = require('../dist/native.js')

module.exports = function launch(program) {
  const child = spawn(join(platformFolder(), program), process.argv.slice(2), { stdio: 'inherit' })
  // A terminal sends Ctrl-C to both; whoever knows only this process sends to this one.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1', 'SIGUSR2']) {
    process.on(signal, () => child.kill(signal))
  }
  child.on('error', (error) => {
    console.error(`${program}: ${error.message}`)
    process.exit(1)
  })
  child.on('exit', (status, signal) => {
    if (signal === null) process.exit(status)
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
  })
}
