// Replicated counter: replicas that play the same log are in the same state.

import { open } from 'virtuallog'

const url = process.argv[2] ?? 'file:replicated-counter-data/counter'

/** A replica. What changes it goes through the log, and so does what reads it. */
class Counter {
  #log
  #played
  #total = 0

  constructor(log) {
    this.#log = log
    this.#played = log.subscribe('first')
  }

  async add(amount) {
    await this.#log.append(`${amount}`)
  }

  async value() {
    const { position: tail } = await this.#log.checkTail() // all that was added before this call
    await this.#played.started()
    while (this.#played.position < tail) {
      const { value: entry } = await this.#played.next()
      this.#total += Number(entry.text())
    }
    return this.#total
  }
}

// Two in one process here; each on a machine of its own where the log is on a cluster.
const [first, second] = await Promise.all([open(url), open(url)])
const [one, two] = [new Counter(first), new Counter(second)]
await one.add(5)
await two.add(10)
console.log('one:', await one.value())
console.log('two:', await two.value())
await one.add(-3)
console.log('two:', await two.value())
console.log('one that starts later:', await new Counter(second).value())
await Promise.all([first.close(), second.close()])
