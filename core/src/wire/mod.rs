//! How the parts of the system speak with each other: messages, frames, links.
//!
//! Read in this order: `messages.rs` (what is said), `frame.rs` (its bytes), `transport.rs` (the
//! seam), `stream.rs`, `tcp.rs` and `serve.rs` (the two sides of a connection). Nothing here knows
//! what the messages mean.
#![doc = include_str!("PROTOCOL.md")]

pub(crate) mod frame;
pub(crate) mod messages;
pub(crate) mod serve;
#[cfg(test)]
mod simulated;
mod stream;
pub(crate) mod tcp;
pub(crate) mod transport;
#[cfg(test)]
mod turmoil_tests;

pub(crate) use stream::Stream;

/// What a connection of ours begins with. The other protocol on the port begins with `PRI `.
pub(crate) const MAGIC: [u8; 4] = *b"VLW\x01";
