//! Disks that lie, and disks that have nothing left to give.

use super::*;
use crate::testing::simdisk::BadWrite;

/// Bytes of each batch of [`lie`] in its file, so that one can be mistaken for another.
const EACH: usize = 1024;

fn same(seq: u64) -> Batch {
    let overhead = virtuallog_protocol::record::STAMP_LEN + batch(1, 0, &[0]).as_bytes().len();
    batch(1, seq, &[EACH - overhead])
}

type Acked = BTreeMap<u64, Batch>;

/// A short life of a store. Gives what was acknowledged and what is kept of it.
fn lie(disk: &SimDisk) -> Result<(Arc<Storage>, Acked, u64), Error> {
    let options = StorageOptions { data_file_bytes: 4096 + 6 * EACH as u64, ..small() };
    let store = Storage::open(Arc::new(disk.clone()), Path::new(ROOT), options)?;
    create(&store, 1, 0)?;
    let mut acked = Acked::new();
    for seq in 0..9 {
        let first = append(&store, 1, same(seq))?;
        acked.insert(first.0, same(seq));
    }
    let kept = trim(&store, 1, 2)?;
    Ok((store, acked, kept.0))
}

/// Whether what is served is what was acknowledged; `Err` when damage was reported.
fn serves(store: &Storage, acked: &Acked, kept: u64) -> Result<(), Error> {
    let tail = store.status(id(1)).expect("the loglet is there").tail;
    let end = acked.last_key_value().map_or(0, |(first, _)| first + 1);
    assert!(tail.0 >= end, "ends at {tail} and not at {end}, and says nothing");
    // Walking on from the end of one answer to the next, in answers of every size ...
    for bytes_max in [1, 2 * EACH, 1 << 20] {
        let mut at = LogletPos(kept);
        while at < tail {
            let got = store.read(id(1), at, tail, bytes_max)?;
            for found in &got {
                assert_eq!(found.first, at, "skipped");
                assert_eq!(Some(&found.batch), acked.get(&at.0), "other bytes");
                at = found.end();
            }
            assert!(!got.is_empty(), "nothing at {at}, and says nothing");
        }
    }
    // ... and position by position.
    for (first, batch) in acked.range(kept..) {
        let got = store.read(id(1), LogletPos(*first), LogletPos(*first + 1), 1)?;
        assert_eq!(got.iter().map(|found| &found.batch).collect::<Vec<_>>(), [batch]);
    }
    store.verify(id(1), &mut |_| {})?;
    Ok(())
}

/// D5: each write of a store's life is lost, or done in a wrong place, and the disk says that all is
/// well. It is noticed at the latest by whoever reads what it harmed, and nothing wrong is served.
#[test]
fn d5_a_write_that_is_lost_or_misdirected_is_never_served() {
    let whole = SimDisk::new();
    drop(lie(&whole).unwrap());
    let mut bad = vec![BadWrite::Lost];
    for by in [1, 2, 4] {
        bad.extend([by, -by].map(|by| BadWrite::Shifted(by * EACH as i64)));
    }
    let files = whole.all_files().into_iter().map(|(path, _)| path);
    bad.extend(files.filter(|path| !path.ends_with("LOCK")).map(BadWrite::Elsewhere));
    let (mut noticed, mut harmless) = (0, 0);
    for operation in 1..=whole.operations() {
        for bad in &bad {
            let disk = SimDisk::new();
            disk.bad_write(operation, bad.clone());
            let Ok((store, acked, kept)) = lie(&disk) else {
                noticed += 1;
                continue;
            };
            let mut outcomes = vec![serves(&store, &acked, kept)];
            let mut reopened = |disk: SimDisk| {
                outcomes.push(open(&disk).and_then(|store| serves(&store, &acked, kept)));
            };
            reopened(disk.kill());
            // Idle, so that the journal's last block has a witness; and then the power fails.
            if store.inner.enqueue(Request::Mark, true) {
                store.inner.lead(|| false);
            }
            reopened(disk.crash(|_| false));
            reopened(disk.crash(|_| true));
            let closed = store.close();
            reopened(disk.crash(|_| false));
            outcomes.push(closed);
            for outcome in outcomes {
                match outcome.map_err(|error| error.code()) {
                    Ok(()) => harmless += 1,
                    Err(ErrorCode::Corrupt | ErrorCode::DataLoss) => noticed += 1,
                    Err(other) => panic!("{operation} {bad:?}: {other}"),
                }
            }
        }
    }
    assert!(noticed > 500 && harmless > 500, "{noticed} noticed, {harmless} harmless");
}

/// D5, in the journal's last block, which no later one vouches for.
#[test]
fn d5_a_block_at_a_wrong_place_is_not_a_torn_one() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    append(&store, 1, one(1, 0)).unwrap();
    let journal = Path::new("/store/journal/00000001");
    for pages in [1, 2, 4] {
        let moved = disk.crash(|_| false);
        moved.damage(journal, |bytes| {
            let block = bytes[4096..8192].to_vec();
            bytes[4096..8192].fill(0);
            bytes[4096 + pages * 4096..][..4096].copy_from_slice(&block);
        });
        let before = moved.fingerprint();
        assert_eq!(code(open(&moved).unwrap_err()), ErrorCode::Corrupt, "{pages} pages on");
        assert_eq!(moved.fingerprint(), before, "nothing was changed");
    }
}

/// D19: no more files can be opened.
#[test]
fn d19_too_many_open_files_refuse_what_needs_another_one() {
    let disk = SimDisk::new();
    let options = StorageOptions { open_files_max: 4, ..small() };
    let open =
        |disk: &SimDisk| Storage::open(Arc::new(disk.clone()), Path::new(ROOT), options.clone());
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    let mut acked = 0;
    let mut refused = 0;
    for turn in 0..60 {
        // Journal files, data files and everything by turns, and in between all is well.
        let parts = [None, Some("journal"), None, Some("loglets"), None, Some("")];
        disk.fail_opens_of(parts[turn % 6]);
        match append(&store, 1, batch(1, acked, &[6000])) {
            Ok(first) => {
                assert_eq!(first, LogletPos(acked));
                acked += 1;
            }
            Err(StorageError::Unavailable(e)) => {
                assert!(e.message().contains("open files"), "{e}");
                refused += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
        assert!(store.failure().is_none());
        let _ = seal(&store, 2);
    }
    assert!(refused > 5, "{refused}");
    disk.fail_opens_of(Some("loglets"));
    let read = store.read(id(1), LogletPos(0), LogletPos(1), 1);
    assert!(matches!(read, Err(StorageError::Unavailable(_))), "not absent: {read:?}");
    let crashed = disk.crash(|_| false);
    disk.fail_opens_of(None);
    assert_eq!(read_all(&store, 1, 0, 9000).len() as u64, acked);
    for part in ["", "manifest", "journal", "loglets", "identity"] {
        crashed.fail_opens_of(Some(part));
        let before = crashed.fingerprint();
        let Err(error) = open(&crashed) else { panic!("opened without `{part}`") };
        assert_eq!(error.code(), ErrorCode::Unavailable, "{part}: {error}");
        if part != "journal" {
            assert_eq!(crashed.fingerprint(), before, "{part}: something was changed");
        }
    }
    crashed.fail_opens_of(None);
    assert_eq!(read_all(&open(&crashed).unwrap(), 1, 0, 9000).len() as u64, acked);
}

/// D8, for what a server does: stores are refused, everything that makes room or ends a loglet goes
/// on, and so do the stores afterwards, in the same life.
#[test]
fn d8_a_full_disk_refuses_stores_until_a_trim_makes_room() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    create(&store, 2, 0).unwrap();
    let put = |at: u64| {
        let place = Place::Store { first: LogletPos(at), known_tail: LogletPos(0) };
        wait(|done| store.append(id(1), place, batch(1, at, &[2000]), done))
    };
    let mut at = 0;
    for round in 0..5 {
        disk.set_room(None);
        for _ in 0..20 {
            at += 1;
            assert_eq!(put(at - 1).unwrap(), LogletPos(at));
        }
        disk.set_room(Some(0));
        for _ in 0..3 {
            let refused = put(at);
            assert!(matches!(refused, Err(StorageError::DiskFull(_))), "{refused:?}");
        }
        assert_eq!(store.status(id(1)).unwrap().tail, LogletPos(at));
        assert_eq!(read_all(&store, 1, at - 5, 9000).len(), 5, "round {round}");
        assert_eq!(seal(&store, 2).unwrap(), LogletPos(0));
        assert_eq!(trim(&store, 1, at - 5).unwrap(), LogletPos(at - 5));
        at += 1;
        assert_eq!(put(at - 1).unwrap(), LogletPos(at), "round {round}");
    }
    let store = open(&disk.crash(|_| false)).unwrap();
    assert_eq!(store.status(id(1)).unwrap().tail, LogletPos(at));
}

/// A start whose sync failed leaves a journal file whose name may not be durable. One on a full disk
/// after it uses an old file, not that one.
#[test]
fn what_a_failed_start_left_is_not_used() {
    let mut failed_starts = 0;
    for sync in 0..12 {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, 1, 0).unwrap();
        append(&store, 1, batch(1, 0, &[9])).unwrap();
        let disk = disk.kill();
        disk.fail_sync(disk.syncs() + sync);
        if open(&disk).is_ok() {
            continue;
        }
        failed_starts += 1;
        // The process is gone, the machine goes on.
        let disk = disk.kill();
        disk.set_room(Some(0));
        let Ok(store) = open(&disk) else { continue };
        let sealed = seal(&store, 1);
        let disk = disk.crash(|_| false);
        disk.set_room(None);
        let store = open(&disk).unwrap();
        let status = store.status(id(1)).unwrap();
        assert!(status.tail == LogletPos(1) && (sealed.is_err() || status.sealed), "sync {sync}");
    }
    assert!(failed_starts >= 3, "{failed_starts}");
}
