// Compiles where the types say what they should. It is never run.

import { Entry, Log, Reader, Server, VirtualLogError, create, delete as deleteLog, open } from 'virtuallog'
import type { Appended, Chain, ErrorCode, Payload, Start, Tail } from 'virtuallog'
import { LocalCluster } from 'virtuallog/testing'

export async function main(signal: AbortSignal): Promise<void> {
  await using cluster = await LocalCluster.start({ nodes: 3 })
  await using log: Log = await open(`${cluster.url}orders`, { create: true, mode: 'write', timeoutMs: null })
  const position: bigint = await log.append('text', { timeoutMs: 1000, signal })
  const first: bigint = await log.appendMany([Buffer.from('a'), new Uint8Array(1), 'b'])
  const appended: Appended | null = await log.appendAll((async function* (): AsyncGenerator<Payload> { yield 'x' })())
  const tail: Tail = await log.checkTail()
  const reader: Reader = log.read(position, tail.position)
  for await (const entry of reader) {
    const { payload, position }: { payload: Buffer; position: bigint } = entry
    console.log(payload, position, entry.writtenAt.getTime(), first, appended?.count)
  }
  const starts: Start[] = ['first', 'tail', 7, 7n]
  await using following = await log.subscribe(starts[0]!).started()
  for await (const batch of following.batches(10)) console.log(batch.map((entry: Entry) => entry.text()))
  const chain: Chain = await log.reconfigExtend('local', { ifVersion: (await log.chain()).version })
  if (chain.life === 'moved') console.log(chain.movedTo)
  await using server = await Server.start('data', { roles: ['log'], join: new Set(['127.0.0.1:7400']) })
  const node: number | null = server.unref().node
  await create('memory:x', { loglet: 'memory' })
  await deleteLog('memory:x')
  try {
    await log.resolve('token')
  } catch (error) {
    if (!(error instanceof VirtualLogError)) throw error
    const code: ErrorCode = error.code
    console.log(code === 'TRIMMED' ? error.position : node)
  }

  // @ts-expect-error a payload is no number
  await log.append(7)
  // @ts-expect-error a position is no string
  log.read('0')
  // @ts-expect-error there is no such mode
  await open('memory:', { mode: 'append' })
  // @ts-expect-error there is no such code
  console.log(new VirtualLogError('WRONG', ''))
  // @ts-expect-error a log is made by `open`
  const none: Log = new Server()
  console.log(none)
}
