// Appends ten entries to the log of the first argument.

import { open } from 'virtuallog'

const log = await open(process.argv[2])
for (let number = 0; number < 10; number += 1) await log.append(`${number}`)
await log.close()
process.disconnect?.()
