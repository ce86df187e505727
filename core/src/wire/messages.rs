//! Every message between our own parts: clients, sequencers, LogServers, acceptors.
//!
//! Plain prost structs. Fields are only ever added, with new tags; a message that is not known is
//! refused by whoever gets it, on a connection that lives on. Record batches are no fields: they
//! travel behind the message as they are on disk (see `frame.rs`), so nobody re-encodes them.
//!
//! `PROTOCOL.md` in this folder tells the conversations; this file is the list.

use bytes::Bytes;
use prost::{Message, Oneof};
use virtuallog_protocol::{LogId, LogletId, LogletPos, fields};

use crate::error::{Error, ErrorCode};

/// Most nodes of a cluster.
pub(crate) const NODES_MAX: usize = 4096;
/// Most names of registers in one answer.
pub(crate) const NAMES_MAX: usize = 1 << 19;
/// The version that this build speaks.
pub(crate) const VERSION: u32 = 1;
/// The oldest version that it still understands.
pub(crate) const VERSION_MIN: u32 = 1;

/// A loglet's identity, without an allocation.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Id {
    #[prost(fixed64, tag = "1")]
    pub(crate) log_high: u64,
    #[prost(fixed64, tag = "2")]
    pub(crate) log_low: u64,
    #[prost(uint32, tag = "3")]
    pub(crate) segment: u32,
}

impl From<LogletId> for Id {
    fn from(id: LogletId) -> Id {
        Id { log_high: (id.log.0 >> 64) as u64, log_low: id.log.0 as u64, segment: id.segment }
    }
}

impl From<Id> for LogletId {
    fn from(id: Id) -> LogletId {
        let log = LogId(u128::from(id.log_high) << 64 | u128::from(id.log_low));
        LogletId { log, segment: id.segment }
    }
}

/// 128 bits, as fixed 64s: identities of clusters, stores and processes. All zero: none.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Bits {
    #[prost(fixed64, tag = "1")]
    pub(crate) high: u64,
    #[prost(fixed64, tag = "2")]
    pub(crate) low: u64,
}

impl From<u128> for Bits {
    fn from(bits: u128) -> Bits {
        Bits { high: (bits >> 64) as u64, low: bits as u64 }
    }
}

impl From<Bits> for u128 {
    fn from(bits: Bits) -> u128 {
        u128::from(bits.high) << 64 | u128::from(bits.low)
    }
}

/// What is asked.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Request {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Append(Append),
    #[prost(message, tag = "3")]
    Store(Store),
    #[prost(message, tag = "4")]
    Notice(Notice),
    #[prost(message, tag = "5")]
    Seal(Loglet),
    #[prost(message, tag = "6")]
    GetTail(Loglet),
    #[prost(message, tag = "7")]
    WaitTail(WaitTail),
    #[prost(message, tag = "8")]
    Read(Read),
    #[prost(message, tag = "9")]
    Repair(Repair),
    #[prost(message, tag = "10")]
    Trim(Trim),
    #[prost(message, tag = "11")]
    Create(Create),
    #[prost(message, tag = "12")]
    Retire(Retire),
    /// Between members of the MetaStore, whose own message is behind this one.
    #[prost(message, tag = "13")]
    Paxos(Nothing),
    #[prost(message, tag = "14")]
    MetaGet(Name),
    #[prost(message, tag = "15")]
    MetaPut(MetaPut),
    #[prost(message, tag = "16")]
    MetaWatch(MetaWatch),
    #[prost(message, tag = "17")]
    MetaList(Nothing),
    #[prost(message, tag = "18")]
    Ping(Ping),
    #[prost(message, tag = "19")]
    Place(Place),
    #[prost(message, tag = "20")]
    Suspect(Suspect),
    #[prost(message, tag = "21")]
    Describe(Nothing),
    #[prost(message, tag = "22")]
    Init(Init),
    #[prost(message, tag = "23")]
    Join(Node),
    #[prost(message, tag = "24")]
    Drain(NodeNumber),
    #[prost(message, tag = "25")]
    Remove(NodeNumber),
    #[prost(message, tag = "26")]
    Sequencing(Loglet),
}

/// What is answered.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Reply {
    #[prost(message, tag = "1")]
    Welcome(Welcome),
    #[prost(message, tag = "2")]
    Appended(Appended),
    #[prost(message, tag = "3")]
    LocalTail(LocalTail),
    #[prost(message, tag = "4")]
    Done(Nothing),
    /// The batches, each with its stamp, are behind the message.
    #[prost(message, tag = "5")]
    Batches(Nothing),
    #[prost(message, tag = "6")]
    Register(Register),
    /// A conditional write that found another version: what is there.
    #[prost(message, tag = "7")]
    Conflict(Register),
    #[prost(message, tag = "8")]
    Names(Names),
    #[prost(message, tag = "9")]
    Failure(Failure),
    #[prost(message, tag = "10")]
    Config(LogletParams),
    #[prost(message, tag = "11")]
    Cluster(Cluster),
    #[prost(message, tag = "12")]
    Paxos(Nothing),
    #[prost(message, tag = "13")]
    Pong(Pong),
    /// To [`Request::Suspect`]: what this node thinks of the one that is suspected.
    #[prost(bool, tag = "14")]
    Alive(bool),
}

/// What stands at the head of a frame: exactly one of the two.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Head {
    #[prost(message, optional, tag = "1")]
    pub(crate) request: Option<RequestHead>,
    #[prost(message, optional, tag = "2")]
    pub(crate) reply: Option<ReplyHead>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct RequestHead {
    #[prost(
        oneof = "Request",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26"
    )]
    pub(crate) request: Option<Request>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct ReplyHead {
    #[prost(oneof = "Reply", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14")]
    pub(crate) reply: Option<Reply>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Nothing {}

/// The first message of a connection: who speaks, and to whom he believes to speak.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    /// The cluster that is meant; absent: whichever this is.
    #[prost(message, optional, tag = "2")]
    pub(crate) cluster: Option<Bits>,
    /// The node that is meant, by number and storage identity; absent: whichever this is.
    #[prost(message, optional, tag = "3")]
    pub(crate) to: Option<Member>,
    /// The node that speaks, if it is one.
    #[prost(message, optional, tag = "4")]
    pub(crate) from: Option<Life>,
    #[prost(uint32, tag = "5")]
    pub(crate) lane: u32,
}

/// A node of a cluster by its number and the identity of its disk: both or it is another.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Member {
    #[prost(uint32, tag = "1")]
    pub(crate) node: u32,
    #[prost(message, required, tag = "2")]
    pub(crate) storage: Bits,
}

/// One life of a node: from a start of its process to the end of it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Life {
    #[prost(message, required, tag = "1")]
    pub(crate) member: Member,
    /// Drawn at the start of the process.
    #[prost(message, required, tag = "2")]
    pub(crate) process: Bits,
    /// Rises with each start and each journal file (`Storage::generation`).
    #[prost(uint64, tag = "3")]
    pub(crate) generation: u64,
}

/// The connection is accepted.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Welcome {
    #[prost(uint32, tag = "1")]
    pub(crate) version: u32,
    /// Absent: the node belongs to no cluster yet.
    #[prost(message, optional, tag = "2")]
    pub(crate) cluster: Option<Bits>,
    #[prost(message, required, tag = "3")]
    pub(crate) life: Life,
    /// Most bytes of requests that may be unanswered on this connection: the receiver's credit.
    #[prost(uint64, tag = "4")]
    pub(crate) credit_bytes: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Loglet {
    #[prost(message, required, tag = "1")]
    pub(crate) loglet: Id,
}

/// To a sequencer, a batch behind it.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Append {
    #[prost(message, required, tag = "1")]
    pub(crate) loglet: Id,
    /// It was sent before, and nobody knows whether it arrived.
    #[prost(bool, tag = "2")]
    pub(crate) resend: bool,
    /// Of a copy: it must land exactly here.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) at: Option<u64>,
    /// Rises whenever the caller sends all again that was not answered: what comes of an earlier
    /// round after that is not taken any more.
    #[prost(uint64, tag = "4")]
    pub(crate) round: u64,
    /// The sequence number of the writer's oldest entry that is not answered: a writer that is not
    /// known yet begins with it.
    #[prost(uint64, tag = "5")]
    pub(crate) floor: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Appended {
    #[prost(uint64, tag = "1")]
    pub(crate) first: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) known_tail: u64,
}

/// From a sequencer to a LogServer, a batch behind it. Answered by `LocalTail`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Store {
    #[prost(message, required, tag = "1")]
    pub(crate) loglet: Id,
    #[prost(uint64, tag = "2")]
    pub(crate) first: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) known_tail: u64,
}

/// From a sequencer that has nothing to send: how far everything is committed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Notice {
    #[prost(message, required, tag = "1")]
    pub(crate) loglet: Id,
    #[prost(uint64, tag = "2")]
    pub(crate) known_tail: u64,
}

/// A LogServer's word on one loglet, taken at one moment (rule N6).
#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct LocalTail {
    #[prost(uint64, tag = "1")]
    pub(crate) tail: u64,
    #[prost(bool, tag = "2")]
    pub(crate) sealed: bool,
    /// As the sequencer told it: everything below may be read (rule N15).
    #[prost(uint64, tag = "3")]
    pub(crate) known_tail: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) trim: u64,
}

/// Answered once one of the two is reached, or the loglet is sealed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WaitTail {
    #[prost(message, required, tag = "1")]
    pub(crate) loglet: Id,
    /// The local tail is at least this.
    #[prost(uint64, optional, tag = "2")]
    pub(crate) local: Option<u64>,
    /// The known tail is beyond this.
    #[prost(uint64, optional, tag = "3")]
    pub(crate) known: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Read {
    #[prost(message, required, tag = "1")]
    pub(crate) loglet: Id,
    #[prost(uint64, tag = "2")]
    pub(crate) from: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) to: u64,
    #[prost(uint64, tag = "4")]
    pub(crate) bytes_max: u64,
}

/// To a sealed LogServer, stamped batches in ascending order behind it. Answered by `LocalTail`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Repair {
    #[prost(message, required, tag = "1")]
    pub(crate) loglet: Id,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Trim {
    #[prost(message, required, tag = "1")]
    pub(crate) loglet: Id,
    #[prost(uint64, tag = "2")]
    pub(crate) keep_from: u64,
}

/// Makes a loglet on a LogServer. Idempotent.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Create {
    #[prost(message, required, tag = "1")]
    pub(crate) loglet: Id,
    #[prost(uint64, tag = "2")]
    pub(crate) base: u64,
    /// To the node that is to be the sequencer: all members. A sequencer is born here only if this
    /// very life of the node made the loglet (rule N17: it forgets with its process).
    #[prost(message, optional, tag = "3")]
    pub(crate) sequence: Option<LogletParams>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Retire {
    #[prost(message, required, tag = "1")]
    pub(crate) log: Bits,
    #[prost(uint32, repeated, tag = "2")]
    pub(crate) live: Vec<u32>,
    #[prost(uint32, tag = "3")]
    pub(crate) bound: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Name {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetaPut {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    /// Absent: deletes.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(crate) value: Option<Bytes>,
    #[prost(uint64, tag = "3")]
    pub(crate) expected: u64,
    /// The same when it is asked for again, because its answer was lost.
    #[prost(message, required, tag = "4")]
    pub(crate) nonce: Bits,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetaWatch {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(uint64, tag = "2")]
    pub(crate) after: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Register {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(crate) value: Option<Bytes>,
    #[prost(uint64, tag = "2")]
    pub(crate) version: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Names {
    #[prost(string, repeated, tag = "1")]
    pub(crate) names: Vec<String>,
}

/// A heartbeat between nodes.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Ping {
    #[prost(message, required, tag = "1")]
    pub(crate) life: Life,
    /// The highest generations that the sender knows of others.
    #[prost(message, repeated, tag = "2")]
    pub(crate) seen: Vec<Seen>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Pong {
    #[prost(message, required, tag = "1")]
    pub(crate) life: Life,
    /// The highest generation of the sender of the ping that was ever seen here, with this one.
    #[prost(uint64, tag = "2")]
    pub(crate) generation: u64,
    /// Whether the node votes: it knows that its disk has not forgotten.
    #[prost(bool, tag = "3")]
    pub(crate) votes: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct Seen {
    #[prost(message, required, tag = "1")]
    pub(crate) member: Member,
    #[prost(uint64, tag = "2")]
    pub(crate) generation: u64,
}

/// Asks for members for a new loglet.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Place {
    /// 0: the cluster's default.
    #[prost(uint32, tag = "1")]
    pub(crate) replication: u32,
    /// The loglet that it follows: its members stay where they are alive.
    #[prost(message, optional, tag = "2")]
    pub(crate) after: Option<LogletParams>,
    /// The one who asks: if it is a live node, it becomes the sequencer.
    #[prost(uint32, tag = "3")]
    pub(crate) near: u32,
}

/// The parameters of a native loglet, as the chain keeps them. Names nodes and disks, no addresses.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LogletParams {
    #[prost(message, repeated, tag = "1")]
    pub(crate) members: Vec<Member>,
    /// Index of the sequencer's node in `members`.
    #[prost(uint32, tag = "2")]
    pub(crate) sequencer: u32,
    /// What was asked for.
    #[prost(uint32, tag = "3")]
    pub(crate) replication: u32,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(crate) struct NodeNumber {
    #[prost(uint32, tag = "1")]
    pub(crate) node: u32,
}

/// A client or server that gets no answer from a node asks others what they think.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Suspect {
    #[prost(message, required, tag = "1")]
    pub(crate) member: Member,
}

/// What a cluster is: the value of the register `_cluster`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Cluster {
    #[prost(message, optional, tag = "1")]
    pub(crate) id: Option<Bits>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) nodes: Vec<Node>,
    /// Numbers of the nodes that hold the MetaStore.
    #[prost(uint32, repeated, tag = "3")]
    pub(crate) metastore: Vec<u32>,
    /// Of nodes, the next to give out.
    #[prost(uint32, tag = "4")]
    pub(crate) next_node: u32,
    /// Version of the register.
    #[prost(uint64, tag = "5")]
    pub(crate) version: u64,
    /// In an answer to `Describe`: who answers.
    #[prost(uint32, tag = "6")]
    pub(crate) me: u32,
}

/// One node of a cluster.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Node {
    #[prost(uint32, tag = "1")]
    pub(crate) number: u32,
    #[prost(message, optional, tag = "2")]
    pub(crate) storage: Option<Bits>,
    /// `HOST:PORT` by which others reach it.
    #[prost(string, tag = "3")]
    pub(crate) address: String,
    #[prost(string, tag = "4")]
    pub(crate) zone: String,
    /// 1: holds logs; 2: sequences; 4: may hold the MetaStore.
    #[prost(uint32, tag = "5")]
    pub(crate) roles: u32,
    /// 0: active; [`DRAINING`]; [`JOINING`].
    #[prost(uint32, tag = "6")]
    pub(crate) state: u32,
    /// In an answer to `Describe`: whether it was heard of lately.
    #[prost(bool, tag = "7")]
    pub(crate) alive: bool,
    /// In an answer to `Describe`: how many loglets it sequences.
    #[prost(uint32, tag = "8")]
    pub(crate) sequences: u32,
}

/// [`Node::state`] of one on which nothing new is placed.
pub(crate) const DRAINING: u32 = 1;
/// [`Node::state`] of one that was taken into the cluster and has not voted yet.
pub(crate) const JOINING: u32 = 2;

/// Makes a cluster of nodes that belong to none.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Init {
    /// Complete, as every node is to see it at first.
    #[prost(message, required, tag = "1")]
    pub(crate) cluster: Cluster,
    /// The node that this copy goes to.
    #[prost(uint32, tag = "2")]
    pub(crate) node: u32,
}

/// Why something was not done.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Failure {
    #[prost(enumeration = "FailureKind", tag = "1")]
    pub(crate) kind: i32,
    /// An [`ErrorCode`] by number.
    #[prost(uint32, tag = "2")]
    pub(crate) code: u32,
    #[prost(string, tag = "3")]
    pub(crate) message: String,
    /// `Trimmed`: the first position kept. `OutOfOrder`: the sequence number that is next.
    #[prost(uint64, tag = "4")]
    pub(crate) number: u64,
}

/// What the one who asked branches on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum FailureKind {
    /// Surely not done; `code` and `message` say why.
    Refused = 0,
    Sealed = 1,
    Trimmed = 2,
    Unknown = 3,
    OutOfOrder = 4,
    InDoubt = 5,
    Unavailable = 6,
    Corrupt = 7,
    /// A gap before the batch, on a LogServer: `number` is its tail.
    Gap = 8,
    /// The sequencer does not live here (any more).
    NotSequencer = 9,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>, number: u64) -> Self {
        Self { kind: kind as i32, code: 0, message: message.into(), number }
    }

    pub(crate) fn refused(error: &Error) -> Self {
        let code = error.code() as u32;
        let message = error.message().to_owned();
        Self { kind: FailureKind::Refused as i32, code, message, number: 0 }
    }

    /// Perhaps done, perhaps not, because of `error`.
    pub(crate) fn in_doubt(error: &Error) -> Self {
        Self { kind: FailureKind::InDoubt as i32, ..Self::refused(error) }
    }

    /// Whether somebody else may be able to do it.
    pub(crate) fn sends_on(&self) -> bool {
        let away = [ErrorCode::Unavailable as u32, ErrorCode::Closed as u32];
        match self.kind() {
            FailureKind::Unavailable | FailureKind::InDoubt => true,
            FailureKind::Refused => away.contains(&self.code),
            _ => false,
        }
    }

    /// The error of a refusal.
    pub(crate) fn error(&self) -> Error {
        let code = ErrorCode::ALL.iter().find(|code| **code as u32 == self.code);
        Error::new(code.copied().unwrap_or(ErrorCode::Unavailable), self.message.clone())
    }
}

impl Cluster {
    /// What the register `_cluster` holds, or a copy of it; `None` when it is no cluster.
    pub(crate) fn read(value: &[u8]) -> Option<Cluster> {
        let fits = fields::within(value, &[(&[2], NODES_MAX)]);
        fits.then(|| Cluster::decode(value).ok()).flatten()
    }
}

impl Reply {
    pub(crate) fn refused(error: &Error) -> Reply {
        Reply::Failure(Failure::refused(error))
    }

    pub(crate) fn local_tail(tail: LogletPos, sealed: bool) -> LocalTail {
        LocalTail { tail: tail.0, sealed, known_tail: 0, trim: 0 }
    }
}
