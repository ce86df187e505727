//! The registers: each file keeps them in another place behind
//! [`MetaStore`](crate::metastore::MetaStore).

pub mod file;
pub mod memory;
pub mod paxos;
pub(crate) mod remote;

pub use file::FileMetaStore;
pub use memory::MemoryMetaStore;
