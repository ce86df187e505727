//! The words of Paxos, and the bytes that carry them between servers.
//!
//! Messages are plain structs; [`PaxosRequest`] and [`PaxosReply`] are what travels. Decoding is
//! total: whatever the bytes are, the answer is a message within the limits named here, or
//! [`Malformed`]. Field numbers are frozen, since bytes of [`Decided`] and [`Accept`] also lie on
//! disks; new fields take new numbers.

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use super::acceptor::KEPT_MAX;
use crate::fields;
use crate::limits::NAME_CHARS_MAX;

/// Most members of an instance.
pub const MEMBERS_MAX: usize = 9;
/// Most bytes of one register's value.
pub const VALUE_BYTES_MAX: usize = 4 << 20;
/// Most puts that one instance decides.
pub const PUTS_MAX: usize = 1024;
/// Most bytes of names and values that one instance decides.
pub const PUTS_BYTES_MAX: usize = VALUE_BYTES_MAX + (64 << 10);
/// Most bytes of an encoded request or reply: a snapshot of the registers is the longest one.
pub const MESSAGE_BYTES_MAX: usize = 18 << 20;

/// Most of what a request repeats: fields of its encoded form, by their numbers.
const REQUEST_FIELDS_MAX: &[(&[u32], usize)] = &[
    (&[3, 3, 1], PUTS_MAX),
    (&[3, 3, 2], MEMBERS_MAX),
    (&[4, 2], KEPT_MAX),
    (&[4, 2, 2, 1], KEPT_MAX * PUTS_MAX),
    (&[4, 2, 2, 2], KEPT_MAX * MEMBERS_MAX),
];
/// As [`REQUEST_FIELDS_MAX`], of a reply.
const REPLY_FIELDS_MAX: &[(&[u32], usize)] = &[
    (&[1, 1, 3, 1], PUTS_MAX),
    (&[1, 1, 3, 2], MEMBERS_MAX),
    (&[4, 2], KEPT_MAX),
    (&[4, 2, 2, 1], KEPT_MAX * PUTS_MAX),
    (&[4, 2, 2, 2], KEPT_MAX * MEMBERS_MAX),
];

/// 128 bits that were drawn at random: a cluster, a disk, a put.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Message)]
pub struct Id {
    #[prost(fixed64, tag = "1")]
    high: u64,
    #[prost(fixed64, tag = "2")]
    low: u64,
}

impl From<u128> for Id {
    fn from(id: u128) -> Self {
        Self { high: (id >> 64) as u64, low: id as u64 }
    }
}

impl From<Id> for u128 {
    fn from(id: Id) -> u128 {
        u128::from(id.high) << 64 | u128::from(id.low)
    }
}

/// Who votes: a server with one disk. With another disk it is another member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Message)]
pub struct Member {
    /// The server's number in the cluster.
    #[prost(uint32, tag = "1")]
    pub node: u32,
    /// Its disk's identity, drawn when the disk was empty.
    #[prost(message, required, tag = "2")]
    pub storage: Id,
}

impl Member {
    /// The server `node` with the disk `storage`.
    #[must_use]
    pub fn new(node: u32, storage: u128) -> Self {
        Self { node, storage: storage.into() }
    }
}

/// One attempt at an instance. Higher ones overrule lower ones; the lowest stands for none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Message)]
pub struct Ballot {
    /// Counts a proposer's attempts, from 1.
    #[prost(uint64, tag = "1")]
    pub round: u64,
    /// The proposer's node.
    #[prost(uint32, tag = "2")]
    pub node: u32,
}

/// A conditional write of one register.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Put {
    /// Drawn by whoever asked: the same put asked for twice counts once.
    #[prost(message, required, tag = "1")]
    pub nonce: Id,
    /// The register's name, at most [`NAME_CHARS_MAX`] bytes.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The version that the register must have.
    #[prost(uint64, tag = "3")]
    pub expected: u64,
    /// What it shall hold, at most [`VALUE_BYTES_MAX`]; `None` deletes it.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub value: Option<Bytes>,
}

impl Put {
    /// Bytes of name and value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.name.len() + self.value.as_ref().map_or(0, Bytes::len)
    }

    /// True for a put without name and value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether an instance can decide it.
    ///
    /// # Errors
    /// The limit that it breaks.
    pub fn check(&self) -> Result<(), Malformed> {
        if self.name.len() > NAME_CHARS_MAX {
            return Err(Malformed("a register's name is over `NAME_CHARS_MAX`"));
        }
        if self.value.as_ref().is_some_and(|value| value.len() > VALUE_BYTES_MAX) {
            return Err(Malformed("a register's value is over `VALUE_BYTES_MAX`"));
        }
        Ok(())
    }
}

/// What one instance decides.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Value {
    /// Applied one after the other.
    #[prost(message, repeated, tag = "1")]
    pub puts: Vec<Put>,
    /// All members of the next instance, by node.
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<Member>,
}

impl Value {
    /// Whether it may be voted for.
    ///
    /// # Errors
    /// The limit that it breaks.
    pub fn check(&self) -> Result<(), Malformed> {
        check_members(&self.members)?;
        if self.puts.len() > PUTS_MAX
            || self.puts.iter().map(Put::len).sum::<usize>() > PUTS_BYTES_MAX
        {
            return Err(Malformed("a batch of puts is over `PUTS_MAX` or `PUTS_BYTES_MAX`"));
        }
        self.puts.iter().try_for_each(Put::check)
    }
}

/// One to [`MEMBERS_MAX`] members, in ascending order of their different nodes.
pub(crate) fn check_members(members: &[Member]) -> Result<(), Malformed> {
    if members.is_empty() || members.len() > MEMBERS_MAX {
        return Err(Malformed("an instance has 1 to `MEMBERS_MAX` members"));
    }
    if members.windows(2).any(|pair| pair[0].node >= pair[1].node) {
        return Err(Malformed("members are in ascending order of different nodes"));
    }
    Ok(())
}

/// Asks for a promise to take part in no lower ballot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Prepare {
    /// The instance.
    #[prost(uint64, tag = "1")]
    pub instance: u64,
    /// The ballot.
    #[prost(message, required, tag = "2")]
    pub ballot: Ballot,
}

/// Asks for a vote; also the vote itself, as it is remembered.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Accept {
    /// The instance.
    #[prost(uint64, tag = "1")]
    pub instance: u64,
    /// The ballot.
    #[prost(message, required, tag = "2")]
    pub ballot: Ballot,
    /// The value.
    #[prost(message, required, tag = "3")]
    pub value: Value,
}

/// What a member says that promises.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Promise {
    /// The vote that it gave last in this instance.
    #[prost(message, optional, tag = "1")]
    pub accepted: Option<Accept>,
}

/// The value of an instance, for good.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Decided {
    /// The instance.
    #[prost(uint64, tag = "1")]
    pub instance: u64,
    /// Its value.
    #[prost(message, required, tag = "2")]
    pub value: Value,
}

/// What brings a laggard forward: the registers as they were, then values in a row.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct CatchUp {
    /// Encoded [`Registers`](super::Registers); empty when values suffice.
    #[prost(bytes = "bytes", tag = "1")]
    pub snapshot: Bytes,
    /// The values after it.
    #[prost(message, repeated, tag = "2")]
    pub decided: Vec<Decided>,
}

/// How far a member is, where it gives no vote.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct State {
    /// The last instance that it applied; 0 when it knows of no cluster.
    #[prost(uint64, tag = "1")]
    pub applied: u64,
    /// True when it accepted something in the instance after that.
    #[prost(bool, tag = "2")]
    pub accepted: bool,
    /// True when what it says here counts: it forgot nothing.
    #[prost(bool, tag = "3")]
    pub counts: bool,
    /// True when it votes on the instance after `applied`.
    #[prost(bool, tag = "4")]
    pub votes: bool,
    /// Its disk.
    #[prost(message, required, tag = "5")]
    pub storage: Id,
}

/// What is asked of a member.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum Ask {
    /// A promise.
    #[prost(message, tag = "2")]
    Prepare(Prepare),
    /// A vote.
    #[prost(message, tag = "3")]
    Accept(Accept),
    /// To apply what was decided. Answered by [`Tell::State`].
    #[prost(message, tag = "4")]
    Learn(CatchUp),
    /// How far it is. Answered by [`Tell::State`].
    #[prost(message, tag = "5")]
    Read(()),
    /// What was decided after this instance. Answered by [`Tell::CatchUp`].
    #[prost(uint64, tag = "6")]
    Fetch(u64),
}

/// What a member answers.
#[derive(Clone, PartialEq, Eq, Hash, prost::Oneof)]
pub enum Tell {
    /// Promised.
    #[prost(message, tag = "1")]
    Promise(Promise),
    /// Accepted.
    #[prost(message, tag = "2")]
    Accepted(()),
    /// Neither: it promised this ballot to somebody.
    #[prost(message, tag = "3")]
    Refused(Ballot),
    /// The instance is decided, go on from here; or what was fetched.
    #[prost(message, tag = "4")]
    CatchUp(CatchUp),
    /// It has no vote there, or was asked how far it is.
    #[prost(message, tag = "5")]
    State(State),
}

/// A request to a member.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct PaxosRequest {
    /// Whose request it is. A member of another cluster does nothing for it.
    #[prost(message, required, tag = "1")]
    pub cluster: Id,
    /// What is asked; never `None` once decoded.
    #[prost(oneof = "Ask", tags = "2, 3, 4, 5, 6")]
    pub ask: Option<Ask>,
}

/// A member's reply.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct PaxosReply {
    /// What is answered; never `None` once decoded.
    #[prost(oneof = "Tell", tags = "1, 2, 3, 4, 5")]
    pub tell: Option<Tell>,
}

/// The bytes or the content break a rule of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

fn check_decided(decided: &[Decided]) -> Result<(), Malformed> {
    decided.iter().try_for_each(|decided| decided.value.check())
}

fn decode<M: Message + Default>(
    bytes: Bytes,
    fields_max: &[(&[u32], usize)],
) -> Result<M, Malformed> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(Malformed("a message is over `MESSAGE_BYTES_MAX`"));
    }
    if !fields::within(&bytes, fields_max) {
        return Err(Malformed("a message repeats something more often than it may"));
    }
    M::decode(bytes).map_err(|_| Malformed("a message's fields do not decode"))
}

impl PaxosRequest {
    /// `ask`, in the name of `cluster`.
    #[must_use]
    pub fn new(cluster: Id, ask: Ask) -> Self {
        Self { cluster, ask: Some(ask) }
    }

    /// The bytes for the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// The rule that the bytes break. A question that this build does not know is one, too.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, Malformed> {
        let request: Self = decode(bytes, REQUEST_FIELDS_MAX)?;
        match &request.ask {
            None => return Err(Malformed("this build does not know what is asked")),
            Some(Ask::Accept(accept)) => accept.value.check()?,
            Some(Ask::Learn(learn)) => check_decided(&learn.decided)?,
            Some(Ask::Prepare(_) | Ask::Read(()) | Ask::Fetch(_)) => {}
        }
        Ok(request)
    }
}

impl PaxosReply {
    /// The bytes for the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// The rule that the bytes break.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, Malformed> {
        let reply: Self = decode(bytes, REPLY_FIELDS_MAX)?;
        match &reply.tell {
            None => return Err(Malformed("this build does not know what is answered")),
            Some(Tell::Promise(promise)) => {
                promise.accepted.iter().try_for_each(|vote| vote.value.check())?;
            }
            Some(Tell::CatchUp(catch_up)) => check_decided(&catch_up.decided)?,
            Some(Tell::Accepted(()) | Tell::Refused(_) | Tell::State(_)) => {}
        }
        Ok(reply)
    }
}

impl From<Tell> for PaxosReply {
    fn from(tell: Tell) -> Self {
        Self { tell: Some(tell) }
    }
}
