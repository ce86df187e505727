//! A virtual shared log whose ordering engine can be swapped while it runs.
//!
//! After "Virtual Consensus in Delos" (OSDI'20): one totally ordered, durable log is a *chain* of
//! *loglets*. A small versioned register, the *MetaStore*, holds the chain. To change the engine, its
//! members or its parameters: *seal* the active loglet, then conditionally write a new chain.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> virtuallog::Result<()> {
//! use virtuallog::{LogPos, VirtualLog};
//!
//! let log = VirtualLog::open("memory:").await?;
//! let first = log.append("hello").await?;
//! log.reconfig_extend("memory", None).await?;
//! log.append("world").await?;
//! let mut reader = log.read(first, None).await?;
//! while let Some(entry) = reader.next().await? {
//!     println!("{}: {:?}", entry.position, entry.payload);
//! }
//! assert_eq!(log.check_tail().await?.position, LogPos(2));
//! log.close().await
//! # }
//! ```
//!
//! Read in this order: [`protocol`] (the pure part: words, bytes, chain), [`loglet`] and
//! [`metastore`] (the two contracts), [`virtuallog`] (the operations), then the files behind them:
//! `appender`, `reader`, `reconfig`, `resolve`, `log`; last [`storage`], the disk.

pub mod loglet;
pub mod metastore;

pub mod entry;
pub mod error;
mod token;
pub mod url;

pub mod virtuallog;
mod appender;
mod parcel;
mod ticket;
mod reader;
mod reconfig;
mod resolve;
mod log;
mod home;
mod relocate;
pub mod store;
mod directory;
mod owner;
mod guest;
mod cluster;
mod env;

pub mod loglets;
pub mod metastores;
pub mod storage;
mod wire;
pub mod server;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use entry::{Appended, Entry, Placement, Plan, Start, TrimLimit, Trimmed, VerifyReport};
pub use error::{Error, ErrorCode, Result};
pub use reader::Reader;
pub use relocate::{MovePhase, MoveProgress, move_log};
pub use store::{Builder, create, delete, logs};
pub use ticket::Append;
pub use token::Token;
pub use virtuallog::VirtualLog;
pub use virtuallog_protocol as protocol;
pub use virtuallog_protocol::chain::{Chain, Life, LogletConfig, Next, Segment};
pub use virtuallog_protocol::{LogPos, LogletId, LogletPos, Tail};
