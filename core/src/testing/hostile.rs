//! Doors for a fuzzer to decoders that are nobody's interface: what servers and clients read.
//!
//! Each takes any bytes and panics when a promise of its decoder is broken: what decodes is encoded to
//! bytes that mean the same, and what is declared asks for no more memory than a limit says.

use bytes::{Bytes, BytesMut};
use virtuallog_protocol::{
    BatchBuilder, LogId, LogletConfig, LogletId, LogletPos, StampedBatch, WriterId,
};

use crate::loglets::elsewhere::{self, Away};
use crate::wire::frame::{
    FRAME_BYTES_MAX, PREFIX_LEN, Packet, get_batch, get_batches, put_batches, take,
};
use crate::wire::messages::{
    Append, Bits, Cluster, Create, Failure, FailureKind, Hello, Id, Init, Life, Loglet,
    LogletParams, Member, MetaPut, MetaWatch, Name, Names, Node, Nothing, Notice, Ping, Place,
    Read, Repair, Reply, Request, Retire, Seen, Store, Trim, WaitTail, Welcome,
};

/// Whatever arrives on a connection of ours after its first word.
pub fn frames(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    loop {
        let before = buffer.clone().freeze();
        match take(&mut buffer) {
            Ok(Some((id, packet))) => {
                let whole = [&packet.prefix(id)[..], &packet.head, &packet.body].concat();
                assert_eq!(before.slice(..before.len() - buffer.len()), whole, "nothing is lost");
                head(&packet);
                body(&packet.body);
            }
            Ok(None) => {
                // The buffer may double, and never for more than one frame.
                assert!(buffer.capacity() <= 2 * (FRAME_BYTES_MAX + PREFIX_LEN + bytes.len()));
                return;
            }
            Err(_) => return,
        }
    }
}

/// The parameters of a loglet in another store, as a chain value carries them.
pub fn elsewhere(params: &Bytes) {
    let config =
        LogletConfig { kind: elsewhere::KIND.into(), params: params.clone(), name: String::new() };
    if let Ok(Some(away)) = Away::of(&config) {
        assert_eq!(Away::of(&away.clone().config()).ok(), Some(Some(away)));
    }
}

/// Parameters that [`elsewhere`] takes.
#[must_use]
pub fn elsewheres() -> Bytes {
    let params = Bytes::from_static(b"params");
    let config = LogletConfig { kind: "native".into(), params, name: "native:3".into() };
    Away { store: "file:///d/".into(), config }.config().params
}

/// The head of a frame alone: one request or reply.
pub fn message(bytes: &[u8]) {
    head(&Packet { head: Bytes::copy_from_slice(bytes), body: Bytes::new() });
}

fn head(packet: &Packet) {
    if let Ok(request) = packet.to_request() {
        let again = Packet::request(request.clone(), Bytes::new()).to_request();
        assert_eq!(again.ok(), Some(request));
    }
    if let Ok(reply) = packet.to_reply() {
        let again = Packet::reply(reply.clone(), Bytes::new()).to_reply();
        assert_eq!(again.ok(), Some(reply));
    }
}

fn body(body: &Bytes) {
    if let Ok(batches) = get_batches(body.clone()) {
        assert_eq!(put_batches(&batches), body, "nobody re-encodes a batch");
    }
    if let Ok(batch) = get_batch(body) {
        assert_eq!(batch.as_bytes(), body);
    }
}

/// Honest heads of frames: each kind of message that carries something.
#[must_use]
pub fn messages() -> Vec<Vec<u8>> {
    let requests = requests().into_iter().map(|request| Packet::request(request, Bytes::new()));
    let replies = replies().into_iter().map(|reply| Packet::reply(reply, Bytes::new()));
    requests.chain(replies).map(|packet| packet.head.to_vec()).collect()
}

/// Honest frames, some with batches behind the message.
#[must_use]
pub fn whole_frames() -> Vec<Vec<u8>> {
    let mut builder = BatchBuilder::with_capacity(8);
    builder.push(b"one");
    builder.push(b"");
    let batch = builder.finish(WriterId(1), 0, 0);
    let stamped = StampedBatch { loglet: id().into(), first: LogletPos(5), batch: batch.clone() };
    let store = Store { loglet: id(), first: 5, known_tail: 4 };
    let packets = [
        Packet::request(Request::Store(store), batch.as_bytes().clone()),
        Packet::reply(Reply::Batches(Nothing {}), put_batches(&[stamped.clone(), stamped])),
        Packet::reply(Reply::Done(Nothing {}), Bytes::new()),
    ];
    let whole = |packet: &Packet| [&packet.prefix(7)[..], &packet.head, &packet.body].concat();
    let mut frames: Vec<_> = packets.iter().map(whole).collect();
    frames.push(frames.concat());
    frames
}

/// A whole connection of somebody who knows the protocol: a greeting, and requests that are well formed
/// and make no sense, with the highest numbers that there are.
#[must_use]
pub fn attack() -> Vec<u8> {
    const MAX: u64 = u64::MAX;
    let greeting = Hello { version: 1, cluster: None, to: None, from: None, lane: 0 };
    let mut requests = vec![Request::Hello(greeting)];
    let members = |count, sequencer| {
        let member = |node| Member { node, storage: Bits::from(u128::from(node)) };
        let members = (1..=count).map(member).collect();
        Some(LogletParams { members, sequencer, replication: count })
    };
    let placed = [members(0, 0), members(2, 0), members(1, 9), members(11, 3), members(1, 0), None];
    for (number, sequence) in placed.into_iter().enumerate() {
        for base in [MAX, 1 << 62, 0] {
            let loglet = Id { segment: number as u32, ..id() };
            requests.push(Request::Create(Create { loglet, base, sequence: sequence.clone() }));
            for at in [Some(MAX), Some(MAX - 1), Some(1 << 62), None] {
                let append = Append { loglet, resend: false, at, round: MAX, floor: 0 };
                requests.push(Request::Append(append));
            }
            for first in [MAX, MAX - 1, 1 << 62, 0] {
                requests.push(Request::Store(Store { loglet, first, known_tail: MAX }));
            }
            let wait = WaitTail { loglet, local: Some(0), known: Some(MAX) };
            let (from, to) = (MAX - 1, MAX);
            requests.extend([
                Request::Notice(Notice { loglet, known_tail: MAX }),
                Request::WaitTail(wait),
                Request::Read(Read { loglet, from, to, bytes_max: MAX }),
                Request::Trim(Trim { loglet, keep_from: MAX }),
                Request::Sequencing(Loglet { loglet }),
                Request::Seal(Loglet { loglet }),
                Request::Repair(Repair { loglet }),
                Request::GetTail(Loglet { loglet }),
            ]);
        }
    }
    let name = || "x".repeat(5000);
    requests.extend([
        Request::Retire(Retire { log: 3.into(), live: vec![u32::MAX; 30_000], bound: u32::MAX }),
        Request::Retire(Retire { log: 3.into(), live: Vec::new(), bound: u32::MAX }),
        Request::Place(Place { replication: u32::MAX, after: members(0, 7), near: u32::MAX }),
        Request::Place(Place { replication: 2, after: None, near: 0 }),
        Request::MetaGet(Name { name: name() }),
        Request::MetaWatch(MetaWatch { name: name(), after: 0 }),
        Request::MetaPut(MetaPut {
            name: name(),
            value: None,
            expected: MAX,
            nonce: u128::MAX.into(),
        }),
        Request::Init(Init { cluster: Cluster::default(), node: u32::MAX }),
    ]);
    let mut builder = BatchBuilder::with_capacity(8);
    builder.push(b"one");
    let batch = builder.finish(WriterId(1), 0, 0);
    let mut bytes = crate::wire::MAGIC.to_vec();
    for (number, request) in requests.into_iter().enumerate() {
        let body = match &request {
            Request::Append(_) | Request::Store(_) => batch.as_bytes().clone(),
            _ => Bytes::new(),
        };
        let packet = Packet::request(request, body);
        bytes.extend([&packet.prefix(number as u64 + 1)[..], &packet.head, &packet.body].concat());
    }
    bytes
}

fn id() -> Id {
    LogletId { log: LogId(3), segment: 7 }.into()
}

fn life() -> Life {
    let member = Member { node: 1, storage: Bits::from(2) };
    Life { member, process: Bits::from(3), generation: 4 }
}

fn cluster() -> Cluster {
    let node = Node { number: 1, address: "a:1".into(), zone: "z".into(), ..Node::default() };
    Cluster { id: Some(9.into()), nodes: vec![node], metastore: vec![1], ..Cluster::default() }
}

fn params() -> LogletParams {
    LogletParams { members: vec![life().member], sequencer: 0, replication: 1 }
}

fn requests() -> Vec<Request> {
    let member = life().member;
    let seen = vec![Seen { member, generation: 5 }];
    vec![
        Request::Hello(Hello {
            version: 1,
            cluster: Some(9.into()),
            to: Some(member),
            from: Some(life()),
            lane: 1,
        }),
        Request::Append(Append { loglet: id(), resend: true, at: Some(0), round: 1, floor: 2 }),
        Request::Seal(Loglet { loglet: id() }),
        Request::WaitTail(WaitTail { loglet: id(), local: Some(1), known: None }),
        Request::Read(Read { loglet: id(), from: 1, to: 2, bytes_max: 3 }),
        Request::Create(Create { loglet: id(), base: 1, sequence: Some(params()) }),
        Request::Retire(Retire { log: 3.into(), live: vec![1, 300], bound: 400 }),
        Request::MetaPut(MetaPut {
            name: "n".into(),
            value: Some(Bytes::from_static(b"v")),
            expected: 3,
            nonce: 9.into(),
        }),
        Request::Ping(Ping { life: life(), seen }),
        Request::Place(Place { replication: 3, after: Some(params()), near: 1 }),
        Request::Init(Init { cluster: cluster(), node: 1 }),
    ]
}

fn replies() -> Vec<Reply> {
    let failure = Failure::new(FailureKind::OutOfOrder, "why", 3);
    let cluster_id = Some(9.into());
    vec![
        Reply::Welcome(Welcome { version: 1, cluster: cluster_id, life: life(), credit_bytes: 1 }),
        Reply::LocalTail(Reply::local_tail(LogletPos(3), true)),
        Reply::Names(Names { names: vec!["a".into(), "b".into()] }),
        Reply::Failure(failure),
        Reply::Config(params()),
        Reply::Cluster(cluster()),
        Reply::Alive(true),
    ]
}
