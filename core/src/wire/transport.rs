//! The one seam to the network: links that move encoded messages.
//!
//! A link is one lane to one node. Messages on it are delivered in the order of the calls while it
//! lives; answers come back in any order, each through the callback that was given with its question.
//! A link connects by itself at the first call and again after a loss; it never sends twice. Who
//! calls decides what to do about a loss. `tcp.rs` is the real one; a simulator brings its own, so
//! that it moves the same bytes.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::frame::Packet;
use super::messages::{Life, Member, Reply, Request};
use crate::error::Error;

/// Messages of different kinds do not wait for each other: each lane has a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub(crate) enum Lane {
    /// Small and urgent: seals, tails, registers, heartbeats.
    Control = 0,
    /// Batches on their way to a disk.
    Append = 1,
    /// Batches on their way to a reader.
    Read = 2,
}

/// Whom a link leads to. An address alone is whoever answers there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// `HOST:PORT`, or a path that begins with `/` for a socket file.
    pub(crate) address: String,
    /// The node that has to be there, and no other.
    pub(crate) member: Option<(u32, u128)>,
    pub(crate) cluster: Option<u128>,
}

impl Target {
    pub(crate) fn to_member(&self) -> Option<Member> {
        self.member.map(|(node, storage)| Member { node, storage: storage.into() })
    }
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(crate) enum NetError {
    /// Surely not delivered.
    NotSent(Error),
    /// Perhaps delivered, perhaps acted upon.
    Lost(Error),
}

impl NetError {
    pub(crate) fn error(&self) -> &Error {
        match self {
            NetError::NotSent(error) | NetError::Lost(error) => error,
        }
    }
}

impl fmt::Display for NetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

/// What is called with the answer, exactly once, on a thread that must not be blocked.
pub(crate) type Done = Box<dyn FnOnce(Result<Packet, NetError>) + Send>;

/// One lane to one node.
pub(crate) trait Link: Send + Sync + fmt::Debug {
    /// Sends a request; never blocks.
    fn call(&self, request: Packet, done: Done);

    /// Sends what nobody answers; may be lost without a word.
    fn tell(&self, notice: Packet);
}

/// Who asks, if it is a node; it may learn that later than the transport is made.
pub(crate) type Myself = Arc<dyn Fn() -> Option<Life> + Send + Sync>;

/// Makes links.
pub(crate) trait Transport: Send + Sync + fmt::Debug {
    /// The link to a node: the same one for the same target and lane.
    fn link(&self, to: &Target, lane: Lane) -> Arc<dyn Link>;

    /// Ends all connections. Links that somebody still has lead nowhere from then on.
    fn close(&self);
}

/// Asks over a link and waits for the answer. Dropping the future forgets the answer.
pub(crate) async fn ask(
    link: &dyn Link,
    request: Request,
    body: bytes::Bytes,
) -> Result<(Reply, bytes::Bytes), NetError> {
    let (tell, told) = oneshot::channel();
    let done: Done = Box::new(move |answer| {
        let _ = tell.send(answer);
    });
    link.call(Packet::request(request, body), done);
    let gone = |_| NetError::Lost(Error::new(crate::ErrorCode::Unavailable, "the link is gone"));
    let packet = told.await.map_err(gone)??;
    let reply = packet.to_reply().map_err(NetError::Lost)?;
    Ok((reply, packet.body))
}
