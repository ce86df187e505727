//! The store as its callers see it, over the simulated disk and over the real one.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use virtuallog_protocol::{Batch, BatchBuilder, WriterId};

use super::*;
use crate::testing::simdisk::SimDisk;

#[path = "disk_tests.rs"]
mod disks;
#[path = "faults_tests.rs"]
mod faults;
#[path = "identity_tests.rs"]
mod identities;
#[path = "server_tests.rs"]
mod server;

const ROOT: &str = "/store";

fn small() -> StorageOptions {
    StorageOptions {
        journal_file_bytes: 32 << 10,
        data_file_bytes: 12 << 10,
        index_every_bytes: 512,
        open_files_max: 8,
        background: false,
        storage_id: Some(77),
        ..StorageOptions::default()
    }
}

fn id(segment: u32) -> LogletId {
    LogletId { log: LogId(0xabc), segment }
}

fn open(disk: &SimDisk) -> Result<Arc<Storage>, Error> {
    Storage::open(Arc::new(disk.clone()), Path::new(ROOT), small())
}

fn batch(writer: u128, seq: u64, sizes: &[usize]) -> Batch {
    let mut builder = BatchBuilder::with_capacity(64);
    for (i, size) in sizes.iter().enumerate() {
        builder.push(&vec![(seq as u8).wrapping_add(i as u8); *size]);
    }
    builder.finish(WriterId(writer), seq, 1)
}

fn one(writer: u128, seq: u64) -> Batch {
    batch(writer, seq, &[40])
}

type Outcome = Result<LogletPos, StorageError>;

fn wait(ask: impl FnOnce(Done)) -> Outcome {
    let (tx, rx) = mpsc::channel();
    ask(Box::new(move |outcome| tx.send(outcome).unwrap()));
    rx.recv().unwrap()
}

fn create(store: &Storage, segment: u32, base: u64) -> Outcome {
    wait(|done| store.create(id(segment), LogletPos(base), done))
}

fn append(store: &Storage, segment: u32, batch: Batch) -> Outcome {
    wait(|done| store.append(id(segment), Place::Tail, batch, done))
}

fn seal(store: &Storage, segment: u32) -> Outcome {
    wait(|done| store.seal(id(segment), done))
}

fn trim(store: &Storage, segment: u32, to: u64) -> Outcome {
    wait(|done| store.trim(id(segment), LogletPos(to), done))
}

fn retire(store: &Storage, live: &[u32], bound: u32) -> Outcome {
    wait(|done| store.retire(LogId(0xabc), live.to_vec(), bound, done))
}

/// First position and payloads of everything from `from` on, read in small steps.
fn read_all(store: &Storage, segment: u32, from: u64, step: usize) -> Vec<(u64, Vec<u8>)> {
    let tail = store.status(id(segment)).unwrap().tail;
    let mut at = LogletPos(from);
    let mut all = Vec::new();
    loop {
        let batches = store.read(id(segment), at, tail, step).unwrap();
        let Some(last) = batches.last() else { return all };
        at = last.end();
        for stamped in &batches {
            for (i, entry) in stamped.batch.entries().enumerate() {
                all.push((stamped.first.0 + i as u64, entry.to_vec()));
            }
        }
    }
}

fn code(error: impl Into<Error>) -> ErrorCode {
    error.into().code()
}

#[test]
fn what_was_appended_is_read_before_and_after_a_restart() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 100).unwrap();
    let mut expected = Vec::new();
    let mut at = 100;
    for i in 0..120 {
        let batch = batch(1, i * 3, &[10, 700, 1]);
        for (k, entry) in batch.entries().enumerate() {
            expected.push((at + k as u64, entry.to_vec()));
        }
        assert_eq!(append(&store, 1, batch).unwrap(), LogletPos(at));
        at += 3;
    }
    for step in [1, 2000, 1 << 20] {
        assert_eq!(read_all(&store, 1, 100, step), expected);
    }
    for from in [100, 101, 250, 459] {
        let got = store.read(id(1), LogletPos(from), LogletPos(460), 1).unwrap();
        assert!(got[0].first.0 <= from && got[0].end().0 > from);
    }
    let report = store.verify(id(1), &mut |_| {}).unwrap();
    assert_eq!((report.batches, report.entries), (120, 360));
    store.close().unwrap();
    store.close().unwrap();
    assert_eq!(code(append(&store, 1, one(1, 360)).unwrap_err()), ErrorCode::Closed);
    let store = open(&disk).unwrap();
    assert_eq!(read_all(&store, 1, 100, 5000), expected);
    // Without a close: nothing that was answered is missing either.
    let after = disk.crash(|_| false);
    drop(store);
    let store = open(&after).unwrap();
    assert_eq!(read_all(&store, 1, 100, 5000), expected);
    assert_eq!(append(&store, 1, one(1, 0)).unwrap(), LogletPos(at));
}

#[test]
fn the_rules_of_each_request() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    assert!(matches!(append(&store, 1, one(1, 0)), Err(StorageError::Unknown(_))));
    create(&store, 1, 5).unwrap();
    create(&store, 1, 5).unwrap();
    assert!(matches!(create(&store, 1, 6), Err(StorageError::Exists { base: LogletPos(5) })));
    append(&store, 1, one(1, 10)).unwrap();
    let skipped = append(&store, 1, one(1, 12));
    assert!(matches!(skipped, Err(StorageError::OutOfOrder { expected: 11 })));
    append(&store, 1, one(1, 11)).unwrap();
    let at = |p, seq| wait(|done| store.append(id(1), Place::At(LogletPos(p)), one(2, seq), done));
    assert!(matches!(at(6, 0), Err(StorageError::Position { tail: LogletPos(7) })));
    assert_eq!(at(20, 0).unwrap(), LogletPos(20));
    let got = store.read(id(1), LogletPos(9), LogletPos(21), 1).unwrap();
    assert_eq!(got[0].first, LogletPos(20));
    assert!(store.read(id(1), LogletPos(9), LogletPos(20), 1).unwrap().is_empty());
    assert_eq!(trim(&store, 1, 6).unwrap(), LogletPos(6));
    assert_eq!(trim(&store, 1, 2).unwrap(), LogletPos(6));
    let below = store.read(id(1), LogletPos(5), LogletPos(21), 1);
    assert!(matches!(below, Err(StorageError::Trimmed { first_kept: LogletPos(6) })));
    assert_eq!(seal(&store, 1).unwrap(), LogletPos(21));
    assert_eq!(seal(&store, 1).unwrap(), LogletPos(21));
    assert!(matches!(append(&store, 1, one(1, 12)), Err(StorageError::Sealed)));
    assert_eq!(trim(&store, 1, 1000).unwrap(), LogletPos(21));
    create(&store, 2, 21).unwrap();
    create(&store, 4, 21).unwrap();
    assert_eq!(retire(&store, &[2], 4).unwrap(), LogletPos(4));
    assert_eq!(store.loglets(), [id(2), id(4)]);
    assert!(matches!(create(&store, 3, 0), Err(StorageError::Retired { bound: 4 })));
    assert!(
        !disk.all_files().iter().any(|(p, _)| p.to_string_lossy().contains(&id(1).to_string()))
    );
    let store = reopen_after_crash(&disk, store);
    assert_eq!(store.loglets(), [id(2), id(4)]);
    assert!(matches!(create(&store, 1, 5), Err(StorageError::Retired { bound: 4 })));
}

/// A store that hears of a log late makes what the log's chain names, and never again what it deleted.
#[test]
fn what_a_chain_names_can_be_made_late() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    assert_eq!(retire(&store, &[2, 3], 4).unwrap(), LogletPos(4));
    create(&store, 3, 0).unwrap();
    assert!(matches!(create(&store, 1, 0), Err(StorageError::Retired { bound: 4 })));
    retire(&store, &[2], 4).unwrap();
    // One from before that comes late spares nothing anew.
    retire(&store, &[1, 2, 3], 4).unwrap();
    retire(&store, &[1, 2], 3).unwrap();
    let deleted = |store: &Arc<Storage>| {
        for segment in [1, 3] {
            let outcome = create(store, segment, 0);
            assert!(matches!(outcome, Err(StorageError::Retired { bound: 4 })), "{segment}");
        }
    };
    deleted(&store);
    // From the journal, then from the manifest.
    let disk = disk.crash(|_| false);
    let store = open(&disk).unwrap();
    deleted(&store);
    store.close().unwrap();
    let store = open(&disk).unwrap();
    deleted(&store);
    create(&store, 4, 0).unwrap();
    create(&store, 2, 0).unwrap();
    assert_eq!(store.loglets(), [id(2), id(4)]);
}

fn reopen_after_crash(disk: &SimDisk, store: Arc<Storage>) -> Arc<Storage> {
    let after = disk.crash(|_| false);
    drop(store);
    open(&after).unwrap()
}

/// Something of everything, in several data files and with a live reader's view.
fn fill(store: &Storage) {
    create(store, 1, 0).unwrap();
    create(store, 2, 50).unwrap();
    for i in 0..30 {
        append(store, 1, batch(1, i * 2, &[30, 900])).unwrap();
        append(store, 2, batch(2, i, &[200])).unwrap();
    }
    seal(store, 2).unwrap();
    trim(store, 1, 7).unwrap();
}

fn flipped_bits(disk: &SimDisk, flips: u64, clean: bool) -> (u64, u64) {
    let whole = open(&disk.crash(|_| true)).unwrap();
    let expected: Vec<_> =
        [(1, 7), (2, 50)].map(|(segment, from)| read_all(&whole, segment, from, 4000)).into();
    let status = [1, 2].map(|segment| whole.status(id(segment)).unwrap());
    let files: Vec<(PathBuf, u64)> =
        disk.all_files().into_iter().filter(|(_, len)| *len > 0).collect();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let (mut detected, mut harmless) = (0, 0);
    for n in 0..flips {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let (path, len) = &files[n as usize % files.len()];
        let damaged = disk.crash(|_| true);
        damaged.flip(path, random % (len * 8));
        match looks_whole(&damaged, &expected, &status) {
            Ok(()) => harmless += 1,
            Err(StorageError::Corrupt(_)) => detected += 1,
            Err(StorageError::Unavailable(e))
                if matches!(e.code(), ErrorCode::Corrupt | ErrorCode::DataLoss) =>
            {
                detected += 1;
            }
            Err(other) => panic!("{} clean {clean}: {other:?}", path.display()),
        }
    }
    (detected, harmless)
}

fn looks_whole(
    disk: &SimDisk,
    expected: &[Vec<(u64, Vec<u8>)>],
    status: &[LogletStatus],
) -> Result<(), StorageError> {
    let store = open(disk).map_err(StorageError::Unavailable)?;
    for (i, segment) in [1, 2].into_iter().enumerate() {
        assert_eq!(store.status(id(segment)), Some(status[i]));
        let mut at = status[i].trim;
        let mut all = Vec::new();
        while at < status[i].tail {
            let got = store.read(id(segment), at, status[i].tail, 4000)?;
            at = got.last().expect("nothing is missing in silence").end();
            for stamped in &got {
                let first = stamped.first.0;
                all.extend((first..).zip(stamped.batch.entries().map(|entry| entry.to_vec())));
            }
        }
        assert!(all == expected[i], "wrong bytes were served");
        store.verify(id(segment), &mut |_| {})?;
    }
    Ok(())
}

/// D3, D4: on a store that was closed, and on one that was idle when the machine stopped.
#[test]
fn a_flipped_bit_is_seen_or_does_not_matter() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    fill(&store);
    store.close().unwrap();
    let (detected, _) = flipped_bits(&disk, 1000, true);
    assert!(detected > 300, "{detected}");

    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    fill(&store);
    if store.inner.enqueue(Request::Mark, true) {
        store.inner.lead(|| false);
    }
    let (detected, _) = flipped_bits(&disk.crash(|_| false), 1000, false);
    assert!(detected > 300, "{detected}");
}

/// D1, and the planted mistake that rule T exists for.
#[test]
fn a_bad_block_is_cut_only_when_nothing_follows_it() {
    let journal = Path::new("/store/journal/00000001");
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    append(&store, 1, one(1, 0)).unwrap();
    append(&store, 1, one(1, 1)).unwrap();
    // Slots are not durable yet, so only the journal can tell.
    let crashed = disk.crash(|_| false);
    let torn = crashed.crash(|_| true);
    torn.flip(journal, (2 * 4096 + 70) * 8);
    assert_eq!(open(&torn).unwrap().status(id(1)).unwrap().tail, LogletPos(1));
    for place in [4096 + 70, 4096 + 1, 4096 + 41, 3, 100] {
        let rotten = crashed.crash(|_| true);
        rotten.flip(journal, place * 8);
        let before = rotten.fingerprint();
        assert_eq!(code(open(&rotten).unwrap_err()), ErrorCode::Corrupt, "at {place}");
        assert_eq!(rotten.fingerprint(), before, "nothing was changed");
        let planted = Some(PlantedBug::CutAtBadBlock);
        let options = StorageOptions { planted, ..small() };
        let store = Storage::open(Arc::new(rotten), Path::new(ROOT), options).unwrap();
        assert!(store.status(id(1)).is_none_or(|status| status.tail < LogletPos(2)));
    }
    // What was published was acknowledged: a lost last block shows even without a later one.
    let killed = disk.kill();
    killed.flip(journal, (2 * 4096 + 70) * 8);
    assert_eq!(code(open(&killed).unwrap_err()), ErrorCode::Corrupt);
}

/// D6.
#[test]
fn a_failed_sync_stops_the_store_and_reopening_makes_it_good() {
    let mut seen = 0;
    for sync in 1..60 {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, 1, 0).unwrap();
        disk.fail_sync(disk.syncs() + sync);
        let mut acked = 0;
        let mut seq = 0;
        for _ in 0..40 {
            match append(&store, 1, batch(1, seq, &[1500])) {
                Ok(_) => acked += 1,
                Err(StorageError::InDoubt(_) | StorageError::Poisoned(_)) => break,
                Err(e) => panic!("{e:?}"),
            }
            seq += 1;
        }
        if store.failure().is_none() {
            continue;
        }
        seen += 1;
        let refused = append(&store, 1, batch(1, seq + 1, &[1]));
        assert!(matches!(refused, Err(StorageError::Poisoned(_))), "{refused:?}");
        assert_eq!(code(seal(&store, 1).unwrap_err()), ErrorCode::Unavailable);
        let read = store.read(id(1), LogletPos(0), LogletPos(1), 1);
        assert!(matches!(read, Err(StorageError::Poisoned(_))));
        assert!(store.close().is_err());
        // The page cache shows what the disk never got; after the next crash it must be there.
        let store = open(&disk.kill()).unwrap();
        assert!(store.status(id(1)).unwrap().tail.0 >= acked);
        drop(store);
        let reopened = open(&disk).unwrap();
        let tail = reopened.status(id(1)).unwrap().tail.0;
        let store = open(&disk.crash(|_| false)).unwrap();
        assert_eq!(store.status(id(1)).unwrap().tail.0, tail);
        assert_eq!(read_all(&store, 1, 0, 9000).len() as u64, tail);
    }
    assert!(seen > 30, "{seen}");
}

/// D7.
#[test]
fn an_unreadable_file_is_not_an_absent_one() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    fill(&store);
    disk.fail_reads_of(Some(&id(1).to_string()));
    let read = store.read(id(1), LogletPos(7), LogletPos(60), 1 << 20);
    assert!(matches!(read, Err(StorageError::Unavailable(_))), "{read:?}");
    store.read(id(2), LogletPos(50), LogletPos(60), 1).unwrap();
    disk.fail_reads_of(None);
    store.read(id(1), LogletPos(7), LogletPos(60), 1 << 20).unwrap();
}

/// D8.
#[test]
fn a_full_disk_refuses_appends_and_takes_seals_and_trims() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    create(&store, 2, 0).unwrap();
    let mut seq = 0;
    while seq < 30 {
        append(&store, 1, batch(1, seq, &[2000])).unwrap();
        seq += 1;
    }
    disk.set_room(Some(0));
    let refused = append(&store, 1, batch(1, seq, &[2000])).unwrap_err();
    assert!(matches!(refused, StorageError::DiskFull(_)), "{refused:?}");
    assert_eq!(seal(&store, 2).unwrap(), LogletPos(0));
    assert_eq!(store.status(id(1)).unwrap().tail, LogletPos(30));
    assert_eq!(read_all(&store, 1, 0, 9000).len(), 30);
    assert_eq!(trim(&store, 1, 25).unwrap(), LogletPos(25));
    // The trim made room, and the writer goes on with the number that was refused.
    assert_eq!(append(&store, 1, batch(1, seq, &[2000])).unwrap(), LogletPos(30));
    let store = open(&disk.crash(|_| false)).unwrap();
    assert_eq!(store.status(id(1)).unwrap().tail, LogletPos(31));
    assert!(store.status(id(2)).unwrap().sealed);
}

/// D8, with a crash on top: a full disk does not keep a store shut.
#[test]
fn a_full_disk_opens() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    fill(&store);
    let crashed = disk.crash(|_| true);
    let manifest_and_no_journal = 2000;
    crashed.set_room(Some(manifest_and_no_journal));
    let store = open(&crashed).unwrap();
    assert_eq!(trim(&store, 1, 50).unwrap(), LogletPos(50));
    crashed.set_room(None);
    append(&store, 1, one(3, 0)).unwrap();
}

/// D10, D12, D20 and what is no store.
#[test]
fn what_is_missing_or_foreign_is_named() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    fill(&store);
    store.close().unwrap();
    let data: Vec<PathBuf> = disk
        .all_files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.starts_with("/store/loglets"))
        .collect();
    assert!(data.len() > 3);
    for path in &data {
        let damaged = disk.crash(|_| true);
        disk::Disk::remove_file(&damaged, path).unwrap();
        assert_eq!(code(open(&damaged).unwrap_err()), ErrorCode::DataLoss);
        let damaged = disk.crash(|_| true);
        damaged.damage(path, |bytes| bytes.truncate(bytes.len() - 1));
        assert_eq!(code(open(&damaged).unwrap_err()), ErrorCode::DataLoss);
    }
    let lost = disk.crash(|_| true);
    disk::Disk::remove_file(&lost, Path::new("/store/manifest")).unwrap();
    assert_eq!(code(open(&lost).unwrap_err()), ErrorCode::DataLoss);
    let retired = SimDisk::new();
    let store = open(&retired).unwrap();
    retire(&store, &[], 4).unwrap();
    let retired = retired.crash(|_| false);
    disk::Disk::remove_file(&retired, Path::new("/store/manifest")).unwrap();
    assert_eq!(code(open(&retired).unwrap_err()), ErrorCode::DataLoss);
    // What the owner leaves behind when it is killed.
    disk::Disk::open(&retired, Path::new("/store/socket"), OpenMode::Create).unwrap();
    assert_eq!(code(open(&retired).unwrap_err()), ErrorCode::DataLoss);
    let newer = disk.crash(|_| true);
    newer.damage(Path::new("/store/manifest"), |bytes| {
        bytes[4] += 1;
        let mut crc = virtuallog_protocol::record::Crc32c::new();
        crc.update(&bytes[..12]);
        crc.update(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.finish().to_le_bytes());
    });
    assert_eq!(code(open(&newer).unwrap_err()), ErrorCode::Incompatible);
    let other = SimDisk::new();
    disk::Disk::create_dir(&other, Path::new(ROOT)).unwrap();
    disk::Disk::open(&other, Path::new("/store/photo"), OpenMode::Create).unwrap();
    let before = other.fingerprint();
    assert_eq!(code(open(&other).unwrap_err()), ErrorCode::Invalid);
    assert_eq!(other.fingerprint(), before);
    let live = disk.crash(|_| true);
    let store = open(&live).unwrap();
    let journals: Vec<PathBuf> = live.all_files().into_iter().map(|f| f.0).collect();
    let crashed = live.crash(|_| true);
    drop(store);
    for path in journals.iter().filter(|path| path.starts_with("/store/journal")) {
        let _ = disk::Disk::remove_file(&crashed, path);
    }
    assert_eq!(code(open(&crashed).unwrap_err()), ErrorCode::DataLoss);
}

/// D13: nothing is left lying about, and a store takes at most twice what it holds.
#[test]
fn space_is_given_back() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    for i in 0..60 {
        append(&store, 1, batch(1, i, &[1500])).unwrap();
    }
    trim(&store, 1, 57).unwrap();
    let files = |disk: &SimDisk| -> Vec<(PathBuf, u64)> {
        let all = disk.all_files().into_iter();
        all.filter(|(path, _)| path.starts_with("/store/loglets")).collect()
    };
    assert!(files(&disk).len() <= 2);
    let (path, _) = &files(&disk)[0];
    let state = store.inner.loglet(id(1)).unwrap().state();
    if let Some(hole) = state.extents().next().filter(|e| e.start > 2 * 4096) {
        let content = disk.content(path).unwrap();
        assert!(content[4096..hole.start as usize / 4096 * 4096].iter().all(|b| *b == 0));
    }
    assert_eq!(read_all(&store, 1, 57, 1).len(), 3);
    for _ in 0..2 {
        let crashed = disk.crash(|_| false);
        let store = open(&crashed).unwrap();
        assert_eq!(read_all(&store, 1, 57, 1).len(), 3);
        assert!(files(&crashed).len() <= 2, "{:?}", files(&crashed));
        wait(|done| store.retire(LogId(0xabc), vec![], 2, done)).unwrap();
        assert!(files(&crashed).is_empty());
        let crashed = crashed.crash(|_| false);
        drop(store);
        drop(open(&crashed).unwrap());
        assert!(files(&crashed).is_empty());
    }
    let journals = disk.all_files().into_iter().filter(|(p, _)| p.starts_with("/store/journal"));
    assert!(journals.count() <= 4);
}

/// D15.
#[test]
fn a_second_owner_is_sent_away() {
    for disk in [Arc::new(SimDisk::new()) as Arc<dyn Disk>, Arc::new(RealDisk)] {
        let dir = tempfile::tempdir().unwrap();
        let sim = format!("{disk:?}").contains("SimDisk");
        let root = if sim { PathBuf::from(ROOT) } else { dir.path().join("store") };
        let store = Storage::open(Arc::clone(&disk), &root, small()).unwrap();
        let error = Storage::open(Arc::clone(&disk), &root, small()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Locked);
        if !sim {
            assert!(error.message().contains(&std::process::id().to_string()), "{error}");
            assert!(lock_fds().iter().any(|fd| *fd >= 0));
        }
        drop(store);
        Storage::open(disk, &root, small()).unwrap();
    }
}

#[test]
fn another_process_follows_without_a_lock() {
    let disk = SimDisk::new();
    let reader = || ReadOnlyStorage::open(Arc::new(disk.clone()), Path::new(ROOT));
    assert_eq!(code(reader().unwrap_err()), ErrorCode::NotFound);
    let store = open(&disk).unwrap();
    let reader = reader().unwrap();
    assert_eq!(reader.status(id(1)).unwrap(), None);
    create(&store, 1, 3).unwrap();
    let mut operations = 0;
    for i in 0..50 {
        append(&store, 1, batch(1, i * 2, &[500, 500])).unwrap();
        if i == 30 {
            trim(&store, 1, 47).unwrap();
        }
        if i == 40 {
            trim(&store, 1, 70).unwrap();
        }
        operations = disk.operations();
        let status = reader.status(id(1)).unwrap().unwrap();
        assert_eq!((status.tail, status.trim), {
            let own = store.status(id(1)).unwrap();
            (own.tail, own.trim)
        });
        let own = store.read(id(1), status.trim, status.tail, 1 << 20).unwrap();
        assert_eq!(reader.read(id(1), status.trim, status.tail, 1 << 20).unwrap(), own);
        assert_eq!(disk.operations(), operations, "a reader writes nothing");
    }
    assert!(operations > 0);
    assert_eq!(reader.loglets().unwrap(), [id(1)]);
    seal(&store, 1).unwrap();
    assert!(reader.status(id(1)).unwrap().unwrap().sealed);
    // The machine stops: bytes and slots may be of different ages.
    let crashed = disk.crash(|_| true);
    let reader = ReadOnlyStorage::open(Arc::new(crashed.clone()), Path::new(ROOT)).unwrap();
    let status = reader.status(id(1));
    assert!(matches!(status, Err(StorageError::Unavailable(_))), "{status:?}");
    let owner = open(&crashed).unwrap();
    let own = owner.status(id(1));
    assert_eq!(reader.status(id(1)).unwrap(), own);
    owner.close().unwrap();
    let later = ReadOnlyStorage::open(Arc::new(crashed.crash(|_| false)), Path::new(ROOT)).unwrap();
    assert_eq!(later.status(id(1)).unwrap(), own);
    // Killed, and the machine goes on.
    let killed = ReadOnlyStorage::open(Arc::new(disk.kill()), Path::new(ROOT)).unwrap();
    assert_eq!(killed.status(id(1)).unwrap(), own);
    assert_eq!(wait(|done| store.retire(LogId(0xabc), vec![], 2, done)).unwrap(), LogletPos(2));
    let reader = ReadOnlyStorage::open(Arc::new(disk.clone()), Path::new(ROOT)).unwrap();
    assert_eq!(reader.status(id(1)).unwrap(), None);
}

/// The real disk and real threads: many writers, both ways to append, and a listener.
#[test]
fn threads_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let options = StorageOptions {
        background: true,
        journal_file_bytes: 256 << 10,
        data_file_bytes: 64 << 10,
        ..small()
    };
    let open = || Storage::open(Arc::new(RealDisk), dir.path(), options.clone()).unwrap();
    let store = open();
    create(&store, 1, 0).unwrap();
    let mut listener = store.subscribe(id(1)).unwrap();
    let acked = Arc::new(Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for writer in 0..4_u128 {
            let (store, acked) = (&store, &acked);
            scope.spawn(move || {
                for seq in 0..150 {
                    let batch = batch(writer, seq, &[writer as usize * 100 + 1]);
                    let (acked, bytes) = (Arc::clone(acked), batch.as_bytes().clone());
                    let done: Done = Box::new(move |outcome| {
                        assert!(acked.lock().unwrap().insert(outcome.unwrap(), bytes).is_none());
                    });
                    match writer % 2 {
                        0 => store.append_here(id(1), Place::Tail, batch, done),
                        _ => store.append(id(1), Place::Tail, batch, done),
                    }
                }
            });
        }
    });
    assert_eq!(seal(&store, 1).unwrap(), LogletPos(600));
    assert_eq!(*listener.borrow_and_update(), (LogletPos(600), true));
    assert_eq!(acked.lock().unwrap().len(), 600);
    store.close().unwrap();
    let store = open();
    let got = store.read(id(1), LogletPos(0), LogletPos(600), usize::MAX).unwrap();
    let found: BTreeMap<_, _> = got.iter().map(|s| (s.first, s.batch.as_bytes().clone())).collect();
    assert_eq!(found, *acked.lock().unwrap());
}

/// The last handle may go away inside a completion, on the very thread that commits.
#[test]
fn a_store_can_be_dropped_by_a_completion() {
    for here in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let options = StorageOptions { background: true, ..small() };
        let open = || Storage::open(Arc::new(RealDisk), dir.path(), options.clone());
        let store = open().unwrap();
        create(&store, 1, 0).unwrap();
        let (tx, rx) = mpsc::channel();
        let held = Mutex::new(Some(Arc::clone(&store)));
        let done: Done = Box::new(move |outcome| {
            rx.recv().unwrap();
            drop(held.lock().unwrap().take());
            outcome.unwrap();
        });
        match here {
            true => {
                tx.send(()).unwrap();
                store.append_here(id(1), Place::Tail, one(1, 0), done);
                drop(store);
            }
            false => {
                store.append(id(1), Place::Tail, one(1, 0), done);
                drop(store);
                tx.send(()).unwrap();
            }
        }
        let store = loop {
            match open() {
                Ok(store) => break store,
                Err(e) => assert_eq!(e.code(), ErrorCode::Locked),
            }
            std::thread::yield_now();
        };
        assert_eq!(store.status(id(1)).unwrap().tail, LogletPos(1));
    }
}

/// D19.
#[test]
fn what_the_disk_refuses_is_a_clean_error() {
    let missing = Storage::open(Arc::new(RealDisk), Path::new("/no/such/parent/store"), small());
    assert_eq!(code(missing.unwrap_err()), ErrorCode::NotFound);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = Storage::open(Arc::new(RealDisk), &file, small()).unwrap_err();
    assert!(error.message().contains("file"), "{error}");
}
