//! Every limit of the format, by name. A limit that is exceeded is a typed error at the call.

/// Most entries that one record batch holds.
pub const BATCH_ENTRIES_MAX: usize = 1024;

/// Most bytes of payload in one record batch, unless it is a single entry.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// The default limit on one entry's payload, in bytes.
pub const ENTRY_BYTES_DEFAULT: usize = 1 << 20;

/// The highest limit on one entry's payload that can be asked for, in bytes.
pub const ENTRY_BYTES_MAX: usize = 16 << 20;

/// Most bytes of attributes in one record batch (none are written yet; a reader skips them).
pub const ATTRIBUTE_BYTES_MAX: usize = 1 << 20;

/// Most bytes that an encoded batch can have: what a decoder refuses to look beyond.
pub const BATCH_ENCODED_MAX: usize =
    ENTRY_BYTES_MAX + ATTRIBUTE_BYTES_MAX + 256 + BATCH_ENTRIES_MAX * 4;

/// Most segments in one chain. A chain that grows beyond it has to be truncated first.
pub const CHAIN_SEGMENTS_MAX: usize = 10_000;

/// Most characters of a log's name.
pub const NAME_CHARS_MAX: usize = 128;

/// Most bytes of a loglet's parameters in the chain.
pub const LOGLET_PARAMS_MAX: usize = 64 << 10;

/// Most LogServers of one loglet. The number is odd, so that a majority of all is a majority of more.
pub const REPLICAS_MAX: usize = 9;

/// Most re-sent copies of one batch that wait for its outcome together with the original.
pub const DUPLICATES_MAX: usize = 8;

/// Highest position, version or instance that is taken from outside. Nothing ever counts that far, and
/// two of them never add up to an overflow.
pub const COUNTER_MAX: u64 = 1 << 62;

const _: () = assert!(ENTRY_BYTES_DEFAULT <= BATCH_BYTES_MAX && BATCH_BYTES_MAX <= ENTRY_BYTES_MAX);
