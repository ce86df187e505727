// Quickstart: write to a durable log, swap its engine, read everything back.

import { open } from 'virtuallog'

const log = await open(process.argv[2] ?? 'file:quickstart-data/fruit')

await log.append('apples')
await log.appendMany(['pears', 'plums']) // one batch: all or nothing
await log.reconfigExtend('local') // another engine, while the log is in use
await log.append('quinces')

for await (const entry of log.read(await log.first())) console.log(entry.text())
console.log(`tail ${(await log.checkTail()).position}`)
await log.close()
