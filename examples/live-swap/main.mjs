// Live swap: replace the engine under a log that is in use, and lose nothing.

import { open } from 'virtuallog'

const log = await open(process.argv[2] ?? 'file:live-swap-data/numbers')

const numbers = Array.from({ length: 1000 }, (_, number) => `${number}`)
const appends = numbers.slice(0, 500).map((number) => log.append(number))
await log.reconfigExtend('local') // while they are under way
appends.push(...numbers.slice(500).map((number) => log.append(number)))
const chain = await log.reconfigExtend('local')
const positions = await Promise.all(appends)

console.log(`${chain.segments.length} segments`)
const rising = positions.every((position, at) => at === 0 || positions[at - 1] < position)
console.log(`${positions.length} appended, in order: ${rising ? 'yes' : 'no'}`)
const read = []
for await (const entry of log.read(0)) read.push(entry.text())
console.log(`${read.length} read, in order: ${read.join() === numbers.join() ? 'yes' : 'no'}`)
await log.close()
