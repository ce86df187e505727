// The client in Node.js: appends, looks, follows, and says what it saw, as `CLIENTS.md` has it.

import { setTimeout as sleep } from 'node:timers/promises'

import { open, VirtualLogError } from 'virtuallog'

const VALUES_MAX = 1_000_000_000
const DIGITS = 20
const RESOLVE_MAX_MS = 10_000
// Between two tail checks, and after how many of them entries are read.
const LOOK_MS = 100
const READ_EVERY = 5
const READ_MAX = 64n
// After a failure of a subscription.
const PAUSE_MS = 50

const [url, number, roundsPerS, follow] = process.argv.slice(2)
const ending = new AbortController()
const ended = ending.signal

// `CLOCK_MONOTONIC`: a number holds the nanoseconds of a hundred days.
const now = () => Number(process.hrtime.bigint())
const payload = (value) => String(value).padStart(DIGITS, '0').repeat(1 + (value % 25))
const below = (bound) => Math.floor(Math.random() * bound)
const pause = (ms) => sleep(ms, undefined, { signal: ended }).catch(() => {})

function say(op, fields) {
  process.stdout.write(`${JSON.stringify({ op, ...fields }, (_, it) => (typeof it === 'bigint' ? Number(it) : it))}\n`)
}

function valueOf(data) {
  const text = data.toString('latin1')
  if (!/^\d{20}/.test(text)) return undefined
  const value = Number(text.slice(0, DIGITS))
  return payload(value) === text ? value : undefined
}

// Whatever is no error of a call ends the client, and is found by that.
function known(error) {
  if (!(error instanceof VirtualLogError)) throw error
  return error
}

function fails(from, call, error) {
  say('error', { from, to: now(), call, error: known(error).code, message: error.message })
}

let count = 0
const nextValue = () => Number(number) * VALUES_MAX + count++

async function appends(log) {
  let due = performance.now()
  while (!ended.aborted) {
    const from = now()
    if (below(100) < 12) {
      const values = Array.from({ length: 2 + below(7) }, nextValue)
      await settle(log, from, log.appendMany(values.map(payload)), values)
    } else {
      const round = Array.from({ length: 1 + below(16) }, () => {
        const [value, from] = [nextValue(), now()]
        return settle(log, from, log.append(payload(value)), [value])
      })
      await Promise.all(round)
    }
    due = Math.max(due + 1000 / Number(roundsPerS), performance.now())
    await pause(due - performance.now())
  }
}

// Waits for the outcome of one append, looks it up if it is in doubt, and says it.
async function settle(log, from, append, values) {
  let [first, outcome] = [null, {}]
  try {
    first = await append
  } catch (error) {
    const { code, message, inDoubt, token } = known(error)
    outcome = { error: code, message, in_doubt: inDoubt }
    if (inDoubt && token !== null) {
      try {
        first = await log.resolve(token, { timeoutMs: RESOLVE_MAX_MS })
        outcome = first === null ? { ...outcome, in_doubt: false, resolved: true } : { resolved: true }
      } catch (error) {
        known(error)
      }
    }
  }
  const to = now()
  values.forEach((value, index) => {
    say('append', { from, to, value, ...(first === null ? {} : { position: first + BigInt(index) }), ...outcome })
  })
}

async function looks(log) {
  for (let count = 0; !ended.aborted; count += 1) {
    const from = now()
    try {
      const { position, sealed } = await log.checkTail()
      say('tail', { from, to: now(), position, sealed })
      if (count % READ_EVERY === 0) await read(log, position > READ_MAX ? position - READ_MAX : 0n, position)
    } catch (error) {
      fails(from, 'check_tail', error)
    }
    await pause(LOOK_MS)
  }
}

async function read(log, start, end) {
  const from = now()
  let after = start
  try {
    for await (const entry of log.read(start, end)) after = saw(from, after, entry)
  } catch (error) {
    lost(from, after, 'read', error)
    return
  }
  say('end', { from, to: now(), position: end, after })
}

async function follows(log) {
  let after = 0n
  while (!ended.aborted) {
    let from = now()
    const entries = log.subscribe(after)
    const over = () => void entries.close()
    ended.addEventListener('abort', over)
    try {
      for await (const batch of entries.batches()) {
        for (const entry of batch) after = saw(from, after, entry)
        from = now()
      }
    } catch (error) {
      if (!ended.aborted) after = lost(from, after, 'subscription', error)
    }
    ended.removeEventListener('abort', over)
    await pause(PAUSE_MS)
  }
}

function saw(from, after, entry) {
  const value = valueOf(entry.payload)
  if (value === undefined) say('alien', { position: entry.position })
  else say('entry', { from, to: now(), position: entry.position, value, after })
  return entry.position + 1n
}

// Says why reading went no further than `after`, and gives where it goes on.
function lost(from, after, call, error) {
  if (error.code === 'TRIMMED' && error.position !== null) {
    say('trimmed', { from, to: now(), position: after, kept: error.position })
    return error.position > after ? error.position : after
  }
  fails(from, call, error)
  return after
}

// The cluster may be in trouble already.
async function opened() {
  for (;;) {
    try {
      return await open(url)
    } catch (error) {
      if (!known(error).retryable) throw error
      await sleep(PAUSE_MS)
    }
  }
}

process.stdin.resume().on('end', () => ending.abort())
const log = await opened()
await Promise.all([appends(log), looks(log), follow === 'follow' ? follows(log) : undefined])
await log.close()
