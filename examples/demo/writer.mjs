// A client of the demo in Node.js: does what `writer.py` says.

import { open } from 'virtuallog'

const IN_FLIGHT = 256

const [url, name] = process.argv.slice(2)
let ended = false
process.stdin.resume().on('end', () => (ended = true))

const log = await open(url)
const positions = []
const pending = []
for (let count = 0; !ended; count += 1) {
  pending.push(log.append(`\0${name} ${count}`))
  if (pending.length < IN_FLIGHT) continue
  positions.push(await pending.shift())
  if (positions.length === 1) console.log('writing')
  // What tells it to end is heard between two turns of the loop.
  if (count % IN_FLIGHT === 0) await new Promise(setImmediate)
}
positions.push(...(await Promise.all(pending)))
await log.close()
console.log(`[${positions.join()}]`)
