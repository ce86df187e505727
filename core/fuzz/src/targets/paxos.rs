//! The embedded MetaStore: what members send each other, snapshots, and the file of an acceptor.

use std::io::IoSlice;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use prost::Message;
use tokio::runtime::Runtime;
use virtuallog::metastores::paxos::{PaxosNode, Peers};
use virtuallog::storage::Disk;
use virtuallog::storage::disk::OpenMode;
use virtuallog::testing::simdisk::SimDisk;
use virtuallog_protocol::paxos::{
    Accept, Acceptor, Action, Ask, Ballot, CatchUp, Decided, Member, PaxosReply, PaxosRequest,
    Persist, Prepare, Promise, Proposer, Put, Register, Registers, State, Tell,
};

use super::{joined, pieces};
use crate::mend;

const CLUSTER: u128 = 7;
const SNAPSHOT: &[u8; 4] = b"VLR\x01";

fn me() -> Member {
    Member::new(1, 11)
}

fn begun() -> Registers {
    let members = vec![me(), Member::new(2, 12), Member::new(3, 13)];
    let register = Register { version: 1, value: Some(Bytes::from_static(b"value")) };
    let registers = [("name".to_owned(), register)].into();
    Registers::init(CLUSTER, members, registers).expect("three members")
}

/// A conversation: a member and a proposer take whatever comes, one piece after the other, and go on.
pub(super) fn messages(input: &[u8]) {
    let mut acceptor = Acceptor::new(me(), begun());
    acceptor.set_voting(true);
    let mut proposer = Proposer::new(1);
    for piece in pieces(input) {
        let bytes = Bytes::copy_from_slice(piece);
        if let Ok(request) = PaxosRequest::from_bytes(bytes.clone()) {
            assert_eq!(PaxosRequest::from_bytes(request.to_bytes()).as_ref(), Ok(&request));
            let ours = PaxosRequest { cluster: CLUSTER.into(), ..request };
            let step = acceptor.step(ours);
            assert!(PaxosReply::from_bytes(step.reply.to_bytes()).is_ok(), "its answer is one");
        }
        if let Ok(reply) = PaxosReply::from_bytes(bytes) {
            assert_eq!(PaxosReply::from_bytes(reply.to_bytes()).as_ref(), Ok(&reply));
            answered(&mut acceptor, &mut proposer, reply);
        }
    }
    let mut again = Acceptor::new(me(), Registers::blank());
    again.set_voting(true);
    for persist in acceptor.image() {
        again.replay(persist).expect("its image is in order");
    }
    assert_eq!(again.registers(), acceptor.registers());
    assert_eq!(again.state(), acceptor.state());
}

/// An attempt at the next instance gets the same answer from everybody.
fn answered(acceptor: &mut Acceptor, proposer: &mut Proposer, reply: PaxosReply) {
    let registers = acceptor.registers().clone();
    for value in [None, Some(registers.value(Vec::new()))] {
        let mut out = Vec::new();
        proposer.propose(&registers, value, &mut out);
        for _ in 0..8 {
            for action in std::mem::take(&mut out) {
                match action {
                    Action::Send { to, attempt, .. } | Action::Help { to, attempt, .. } => {
                        proposer.answered(to, attempt, reply.tell.clone(), &mut out);
                    }
                    Action::CatchUp(catch_up) => drop(acceptor.learned(catch_up)),
                    Action::Decided(decided) => {
                        let catch_up = CatchUp { decided: vec![decided], ..CatchUp::default() };
                        acceptor.learned(catch_up);
                    }
                    Action::Free | Action::BackOff { .. } => {}
                }
            }
        }
    }
}

pub(super) fn registers(input: &[u8]) {
    let _ = Registers::decode(Bytes::copy_from_slice(input));
    let Ok(registers) = Registers::decode(mend::value(SNAPSHOT, input).into()) else { return };
    assert_eq!(Registers::decode(registers.encode()).as_ref(), Ok(&registers));
    let mut next = registers.clone();
    let put = |nonce: u128, name: &str, expected| Put {
        nonce: nonce.into(),
        name: name.into(),
        expected,
        value: None,
    };
    let name = registers.iter().next().map_or("a", |(name, _)| name).to_owned();
    let version = registers.get(&name).version;
    let puts = vec![put(1, &name, version), put(2, &name, 0), put(1, "b", 0)];
    let instance = registers.applied() + 1;
    next.apply(&Decided { instance, value: registers.value(puts) });
    assert_eq!(Registers::decode(next.encode()).as_ref(), Ok(&next));
}

/// Nobody is there.
#[derive(Debug)]
struct Alone;

impl Peers for Alone {
    fn call(
        &self,
        _: Member,
        _: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, Box<dyn std::error::Error + Send + Sync>>> {
        Box::pin(std::future::pending())
    }
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().build().expect("it needs nothing")
    })
}

/// The file of an acceptor: each piece is a record's body, but that the first one says how much of it
/// is the image.
pub(super) fn acceptor_file(input: &[u8]) {
    let Some(file) = file(&pieces(input)) else { return };
    let disk = SimDisk::new();
    put(&disk, "/paxos/acceptor", &file);
    let known = open_acceptor(&disk);
    if let Some(known) = known {
        assert_eq!(open_acceptor(&disk), Some(known), "what was opened opens again");
    }
}

fn file(pieces: &[&[u8]]) -> Option<Vec<u8>> {
    let (first, bodies) = pieces.split_first()?;
    let (mut records, mut ends) = (Vec::new(), vec![HEADER_LEN]);
    for body in bodies {
        let at = (HEADER_LEN + records.len()) as u64;
        let durable = ends[first.get(1).map_or(0, |n| usize::from(*n)) % ends.len()] as u64;
        let len = (body.len() as u32).to_le_bytes();
        let head = [&b"VLr\x01"[..], &len, &durable.to_le_bytes()].concat();
        let crc = mend::crc(&[&at.to_le_bytes(), &head, body]);
        records.extend([&head[..], &crc.to_le_bytes(), body].concat());
        ends.push(HEADER_LEN + records.len());
    }
    // At times one byte is wrong: a torn or a damaged record.
    if let [_, _, place, flip, ..] = first
        && !records.is_empty()
    {
        let at = usize::from(*place) * 7 % records.len();
        records[at] ^= flip;
    }
    let image_end = ends[first.first().map_or(0, |n| usize::from(*n)) % ends.len()] as u64;
    let head = [
        &b"VLA\x01"[..],
        &1_u32.to_le_bytes(),
        &1_u32.to_le_bytes(),
        &11_u128.to_le_bytes(),
        &image_end.to_le_bytes(),
    ];
    let head = head.concat();
    Some([&head[..], &mend::crc(&[&head]).to_le_bytes(), &records].concat())
}

const HEADER_LEN: usize = 40;

fn put(disk: &SimDisk, path: &str, bytes: &[u8]) {
    let path = Path::new(path);
    disk.create_dir(path.parent().expect("a folder")).expect("made");
    let file = disk.open(path, OpenMode::Create).expect("made");
    file.write_all_at(&[IoSlice::new(bytes)], 0).expect("written");
}

fn open_acceptor(disk: &SimDisk) -> Option<Registers> {
    runtime().block_on(async {
        let disk = Arc::new(disk.clone());
        let node = PaxosNode::open(disk, Path::new("/paxos"), me(), Arc::new(Alone)).ok()?;
        let registers = node.registers();
        drop(node);
        // Its task sees that nobody is there any more.
        tokio::task::yield_now().await;
        Some(registers)
    })
}

fn vote() -> Accept {
    let value = Bytes::from_static(b"next");
    let put = Put { nonce: 9.into(), name: "name".into(), expected: 1, value: Some(value) };
    let ballot = Ballot { round: 1, node: 1 };
    Accept { instance: 2, ballot, value: begun().value(vec![put]) }
}

fn asks() -> Vec<Ask> {
    let (instance, ballot, value) = (2, vote().ballot, vote().value);
    let decided = vec![Decided { instance, value }];
    vec![
        Ask::Prepare(Prepare { instance, ballot }),
        Ask::Accept(vote()),
        Ask::Read(()),
        Ask::Fetch(1),
        Ask::Learn(CatchUp { snapshot: begun().encode(), decided }),
    ]
}

fn tells() -> Vec<Tell> {
    vec![
        Tell::Promise(Promise { accepted: Some(vote()) }),
        Tell::Accepted(()),
        Tell::Refused(Ballot { round: 9, node: 2 }),
        Tell::State(State {
            applied: 1,
            accepted: true,
            counts: true,
            votes: true,
            storage: 12.into(),
        }),
        Tell::CatchUp(CatchUp { snapshot: begun().encode(), decided: Vec::new() }),
    ]
}

pub(super) fn conversations() -> Vec<Vec<u8>> {
    let asks = asks().into_iter().map(|ask| PaxosRequest::new(CLUSTER.into(), ask).to_bytes());
    let asks: Vec<Bytes> = asks.collect();
    let tells = tells().into_iter().map(|tell| PaxosReply::from(tell).to_bytes());
    let mut seeds: Vec<Vec<u8>> =
        asks.iter().cloned().chain(tells).map(|one| joined([one])).collect();
    seeds.push(joined(asks));
    seeds
}

pub(super) fn snapshots() -> Vec<Vec<u8>> {
    let mut registers = begun();
    let begun = registers.encode();
    registers.apply(&Decided { instance: 2, value: vote().value });
    vec![begun[8..].to_vec(), registers.encode()[8..].to_vec()]
}

/// A record's body, as the file has it.
#[derive(Clone, PartialEq, Message)]
struct Body {
    #[prost(oneof = "Persist", tags = "1, 2, 3, 4")]
    persist: Option<Persist>,
}

pub(super) fn files() -> Vec<Vec<u8>> {
    let record = |persist| Body { persist }.encode_to_vec();
    let image = record(Some(Persist::Snapshot(begun().encode())));
    let promise = Prepare { instance: 2, ballot: vote().ballot };
    let whole = [
        vec![1, 1],
        image.clone(),
        record(Some(Persist::Promise(promise))),
        record(Some(Persist::Accept(vote()))),
        record(Some(Persist::Decided(Decided { instance: 2, value: vote().value }))),
        record(None),
    ];
    vec![joined([vec![1, 0], image]), joined(whole)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_honest_file_holds_what_was_decided() {
        for (input, applied) in files().iter().zip([1, 2]) {
            let disk = SimDisk::new();
            put(&disk, "/paxos/acceptor", &file(&pieces(input)).expect("a file"));
            assert_eq!(open_acceptor(&disk).map(|known| known.applied()), Some(applied));
        }
    }
}
