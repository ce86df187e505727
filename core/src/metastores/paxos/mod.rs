//! The embedded MetaStore: registers that the servers of a cluster hold themselves.
//!
//! What decides is in `virtuallog_protocol::paxos`; this folder gives it a disk, a network, time and
//! chance. Read in this order: `node.rs` (a member, from outside), `view.rs` (what it knows, and who
//! waits), `inner.rs` (requests, reads, telling the others), `propose.rs` (its one task: decisions,
//! one after the other), `store.rs` (what it must not forget).
#![doc = include_str!("FORMAT.md")]

use std::fmt::Debug;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use virtuallog_protocol::paxos::Member;

use crate::error::BoxError;

mod inner;
mod node;
mod propose;
mod store;
mod view;

pub use node::PaxosNode;

/// The way to the other members.
pub trait Peers: Send + Sync + Debug {
    /// Gives `request` to [`PaxosNode::handle`] of `to`, and its reply back. It may be lost, late or
    /// doubled; it must not reach a server with another disk than `to` names, unless that server
    /// checks it. Bytes are up to `MESSAGE_BYTES_MAX`.
    fn call(&self, to: Member, request: Bytes) -> BoxFuture<'static, Result<Bytes, BoxError>>;
}
