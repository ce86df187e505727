// Compiles where a CommonJS module sees the same types. It is never run.

import virtuallog = require('virtuallog')
import testing = require('virtuallog/testing')

export async function main(): Promise<bigint> {
  const cluster: testing.LocalCluster = await testing.LocalCluster.start()
  const log: virtuallog.Log = await virtuallog.open(cluster.url + 'orders')
  return log.append('x')
}
