//! A loglet that leaves gaps: each batch takes a slot of 1,024 positions, as striped engines do.
//!
//! Whatever counts on contiguous positions breaks on it, which is what it is for. The gaps are for
//! ever empty, the same for all readers. Otherwise it is the memory loglet.

use virtuallog_protocol::limits::BATCH_ENTRIES_MAX;

use crate::loglets::memory::MemoryProvider;

/// The kind of the loglets of [`provider`].
pub const KIND: &str = "gappy";

/// Positions that one batch takes, whatever its size.
pub const SLOT: u64 = BATCH_ENTRIES_MAX as u64;

/// A provider of gappy loglets in memory.
#[must_use]
pub fn provider() -> MemoryProvider {
    MemoryProvider::with_slot(KIND, SLOT)
}
