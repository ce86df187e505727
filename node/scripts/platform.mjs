// The name of the platform that is built on, as in `ts/native.ts`: its folder below `npm/`.

const glibc = process.report.getReport().header.glibcVersionRuntime !== undefined
const libc = process.platform === 'linux' ? (glibc ? '-gnu' : '-musl') : ''

export const platform = `${process.platform}-${process.arch}${libc}`
