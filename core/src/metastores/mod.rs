//! The registers: each file keeps them in another place behind
//! [`MetaStore`](crate::metastore::MetaStore).

pub mod file;
pub mod memory;

pub use file::FileMetaStore;
pub use memory::MemoryMetaStore;
