// Tailer: follow a log while it is written, stop, and resume where you stopped.

import { open } from 'virtuallog'

const log = await open(process.argv[2] ?? 'file:tailer-data/lines')

const following = log.subscribe('first')
const writing = log.appendAll([1, 2, 3, 4, 5].map((number) => `line ${number}`)) // just as well another process
for (let left = 3; left > 0; left -= 1) {
  const { value: entry } = await following.next() // waits until there is one
  console.log(entry.text())
}
const saved = following.position // what to keep in order to resume
await following.close()
await writing

console.log(`resumed at ${saved}`)
let left = 2
for await (const entry of log.subscribe(saved)) {
  console.log(entry.text())
  if ((left -= 1) === 0) break
}
await log.close()
