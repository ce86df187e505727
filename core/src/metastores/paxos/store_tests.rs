//! The acceptor's file: what comes back, what is cut, what is refused.

use std::collections::BTreeMap;

use virtuallog_protocol::paxos::{
    Accept, Ask, Ballot, CatchUp, Decided, PaxosRequest, Prepare, Put,
};

use super::*;
use crate::testing::Rng;
use crate::testing::simdisk::SimDisk;

const CLUSTER: u128 = 7;
const DIR: &str = "/paxos";

fn me() -> Member {
    Member::new(1, 11)
}

fn open(disk: &SimDisk) -> Result<(Store, Acceptor), Error> {
    let (store, mut acceptor) = Store::open(Arc::new(disk.clone()), Path::new(DIR), me())?;
    acceptor.set_voting(true);
    Ok((store, acceptor))
}

fn file() -> PathBuf {
    Path::new(DIR).join(FILE)
}

fn step(store: &mut Store, acceptor: &mut Acceptor, ask: Ask) -> Result<(), Error> {
    let step = acceptor.step(PaxosRequest::new(CLUSTER.into(), ask));
    store.persist(acceptor, &step.persist, step.sync)
}

fn begin(store: &mut Store, acceptor: &mut Acceptor) {
    let registers = Registers::init(CLUSTER, vec![me()], BTreeMap::new()).expect("one member");
    let snapshot = registers.encode();
    let learn = Ask::Learn(CatchUp { snapshot, decided: Vec::new() });
    step(store, acceptor, learn).expect("begins");
}

/// Promises, accepts and decides one instance, and promises in the next.
fn instance(store: &mut Store, acceptor: &mut Acceptor, len: usize) -> Result<(), Error> {
    let instance = acceptor.registers().applied() + 1;
    let ballot = Ballot { round: 1, node: 1 };
    let name = "a".to_owned();
    let expected = acceptor.registers().get(&name).version;
    let value = Some(Bytes::from(vec![instance as u8; len]));
    let put = Put { nonce: u128::from(instance).into(), name, expected, value };
    let value = acceptor.registers().value(vec![put]);
    let decided = vec![Decided { instance, value: value.clone() }];
    let learn = CatchUp { decided, ..CatchUp::default() };
    step(store, acceptor, Ask::Prepare(Prepare { instance, ballot }))?;
    step(store, acceptor, Ask::Accept(Accept { instance, ballot, value }))?;
    step(store, acceptor, Ask::Learn(learn))?;
    step(store, acceptor, Ask::Prepare(Prepare { instance: instance + 1, ballot }))
}

#[test]
fn what_was_persisted_comes_back() {
    let disk = SimDisk::new();
    let (mut store, mut acceptor) = open(&disk).expect("opens");
    assert_eq!(acceptor.registers().applied(), 0);
    begin(&mut store, &mut acceptor);
    for _ in 0..5 {
        instance(&mut store, &mut acceptor, 10).expect("persisted");
        let (_, again) = open(&disk.crash(|_| false)).expect("opens");
        assert_eq!(again.image(), acceptor.image());
    }
}

#[test]
fn the_file_is_replaced_when_it_has_grown() {
    let disk = SimDisk::new();
    let (mut store, mut acceptor) = open(&disk).expect("opens");
    begin(&mut store, &mut acceptor);
    for _ in 0..200 {
        instance(&mut store, &mut acceptor, 100_000).expect("persisted");
        let (_, len) = disk.all_files().into_iter().find(|(path, _)| *path == file()).expect("it");
        assert!(len < 3 << 20, "{len} bytes");
    }
    assert_eq!(disk.all_files().iter().filter(|(path, _)| path.starts_with(DIR)).count(), 1);
    let (_, again) = open(&disk).expect("opens");
    assert_eq!(again.image(), acceptor.image());
}

/// Every bit of a file that says that it is durable.
#[test]
fn damage_is_told_from_a_torn_end() {
    let disk = SimDisk::new();
    let (mut store, mut acceptor) = open(&disk).expect("opens");
    begin(&mut store, &mut acceptor);
    instance(&mut store, &mut acceptor, 10).expect("persisted");
    let end = store.end * 8;
    store.mark().expect("marked");
    let mark = store.end * 8;
    for bit in 0..mark {
        let copy = disk.kill();
        copy.flip(&file(), bit);
        match open(&copy) {
            Ok((_, again)) => {
                assert!(bit >= end, "bit {bit} of {end}");
                assert_eq!(again.image(), acceptor.image());
            }
            Err(error) => {
                assert!(bit < end, "bit {bit}: {error}");
                assert_eq!(error.code(), ErrorCode::Corrupt);
            }
        }
    }
}

/// Whatever a crash leaves of the last writes, what was synced is there and it opens.
#[test]
fn a_torn_end_is_cut() {
    for stop in 1.. {
        let disk = SimDisk::new();
        disk.stop_at(stop);
        let (mut known, mut ended) = (Vec::new(), false);
        if let Ok((mut store, mut acceptor)) = open(&disk) {
            let registers = Registers::init(CLUSTER, vec![me()], BTreeMap::new()).expect("one");
            let snapshot = registers.encode();
            let learn = Ask::Learn(CatchUp { snapshot, decided: Vec::new() });
            ended = step(&mut store, &mut acceptor, learn).is_ok();
            for _ in 0..3 {
                if ended {
                    known = acceptor.image();
                    ended = instance(&mut store, &mut acceptor, 2000).is_ok();
                }
            }
            if ended {
                known = acceptor.image();
                ended = store.mark().is_ok();
            }
        }
        for seed in 0..8 {
            let mut rng = Rng::new(stop * 8 + seed);
            let crashed = disk.crash(|_| rng.chance(50));
            let (_, again) = open(&crashed).unwrap_or_else(|error| panic!("{stop}: {error}"));
            let mut before = Acceptor::new(me(), Registers::blank());
            known.iter().cloned().for_each(|persist| before.replay(persist).expect("an image"));
            let (kept, known) = (again.image(), before.image());
            let further = again.registers().applied() > before.registers().applied()
                || kept.iter().any(|persist| matches!(persist, Persist::Accept(_)));
            let all = known.iter().all(|persist| kept.contains(persist));
            assert!(further || all, "{stop}: {kept:?} for {known:?}");
        }
        if ended && disk.operations() < stop {
            break;
        }
    }
}

#[test]
fn a_failed_write_takes_the_acceptor_back() {
    let disk = SimDisk::new();
    let (mut store, mut acceptor) = open(&disk).expect("opens");
    begin(&mut store, &mut acceptor);
    instance(&mut store, &mut acceptor, 10).expect("persisted");
    let before = acceptor.image();
    for room in 0..60 {
        disk.set_room(Some(room));
        let ballot = Ballot { round: 9, node: 1 };
        let prepare = Prepare { instance: acceptor.registers().applied() + 1, ballot };
        let refused = step(&mut store, &mut acceptor, Ask::Prepare(prepare));
        if refused.is_ok() {
            return assert_ne!(acceptor.image(), before);
        }
        assert_eq!(acceptor.image(), before, "room for {room}");
        assert!(store.failed().is_none());
    }
    panic!("a promise takes less than 60 bytes");
}

/// The bytes of version 1, which lie on disks: they are read for ever, and written until version 2.
#[test]
fn bytes_are_frozen() {
    let frozen = include_str!("../../../testdata/acceptor-v1.hex").trim();
    let disk = SimDisk::new();
    let (mut store, mut acceptor) = open(&disk).expect("opens");
    begin(&mut store, &mut acceptor);
    instance(&mut store, &mut acceptor, 10).expect("persisted");
    store.mark().expect("marked");
    let bytes = disk.content(&file()).expect("it is there");
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, frozen);
}

#[test]
fn an_acceptor_whose_file_was_lost_has_forgotten_for_ever() {
    let disk = SimDisk::new();
    let (store, _) = open(&disk).expect("opens");
    assert!(!store.forgot());
    // One that never had a file has nothing to forget, however often it is started.
    let (mut store, mut acceptor) = open(&disk).expect("opens");
    assert!(!store.forgot());
    begin(&mut store, &mut acceptor);
    assert!(!open(&disk.kill()).expect("opens").0.forgot());
    disk.remove_file(&file()).expect("removed");
    let (mut store, mut acceptor) = open(&disk).expect("opens");
    assert!(store.forgot());
    // Taught by the others it knows the registers, and not what it promised.
    begin(&mut store, &mut acceptor);
    assert!(acceptor.registers().applied() > 0);
    for disk in [disk.kill(), disk.crash(|_| false)] {
        assert!(open(&disk).expect("opens").0.forgot());
    }
}

/// Wherever it crashes while it is begun: what is there then was not lost.
#[test]
fn a_crash_while_it_is_begun_is_no_loss() {
    let whole = SimDisk::new();
    let (mut store, mut acceptor) = open(&whole).expect("opens");
    begin(&mut store, &mut acceptor);
    for operation in 1..=whole.operations() {
        let disk = SimDisk::new();
        disk.stop_at(operation);
        if let Ok((mut store, mut acceptor)) = open(&disk) {
            let registers = Registers::init(CLUSTER, vec![me()], BTreeMap::new());
            let snapshot = registers.expect("one member").encode();
            let learn = Ask::Learn(CatchUp { snapshot, decided: Vec::new() });
            let _ = step(&mut store, &mut acceptor, learn);
        }
        for disk in [disk.kill(), disk.crash(|_| false), disk.crash(|_| true)] {
            assert!(!open(&disk).expect("opens").0.forgot(), "at operation {operation}");
        }
    }
}

#[test]
fn newer_formats_and_foreign_files_are_refused() {
    let disk = SimDisk::new();
    let (mut store, mut acceptor) = open(&disk).expect("opens");
    begin(&mut store, &mut acceptor);
    let other = Store::open(Arc::new(disk.clone()), Path::new(DIR), Member::new(1, 12));
    assert_eq!(other.expect_err("another disk").code(), ErrorCode::Invalid);
    disk.damage(&file(), |bytes| {
        bytes[4] = 2;
        let mut crc = Crc32c::new();
        crc.update(&bytes[..HEADER_LEN - 4]);
        bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&crc.finish().to_le_bytes());
    });
    assert_eq!(open(&disk).expect_err("newer").code(), ErrorCode::Incompatible);
}
