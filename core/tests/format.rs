//! Frozen bytes: stores that an earlier build wrote are opened and hold what they held.
//!
//! The directories under `testdata/format/` are never edited. A change of the format gets a new
//! version and a new directory, and the old ones stay readable. `VIRTUALLOG_FREEZE=dir` writes the
//! stores of this build to a directory that is not there yet.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use virtuallog::protocol::{Batch, BatchBuilder, LogId, LogletId, LogletPos, WriterId};
use virtuallog::storage::{
    Disk, Done, Identity, Place, ReadOnlyStorage, RealDisk, Storage, StorageOptions,
};

/// All of them, the newest last. `v1-slots` is of the same format as `v1`: a file that another one
/// follows says in its published slot where that one starts, and not where the loglet ends. `v2` holds
/// more, namely what only a server writes.
const VERSIONS: [&str; 3] = ["v1", "v1-slots", "v2"];

const IDENTITY: Identity = Identity { cluster: 0xc1_c1c1, node: 7 };
const LOG: LogId = LogId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

fn options() -> StorageOptions {
    StorageOptions {
        journal_file_bytes: 32 << 10,
        data_file_bytes: 6 << 10,
        background: false,
        storage_id: Some(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100),
        ..StorageOptions::default()
    }
}

fn id(segment: u32) -> LogletId {
    LogletId { log: LOG, segment }
}

fn batch(seq: u64) -> Batch {
    let mut builder = BatchBuilder::with_capacity(800);
    builder.push(format!("entry {seq}").as_bytes());
    builder.push(&[seq as u8; 700]);
    builder.finish(WriterId(0xabcd), seq, 1_700_000_000_000_000)
}

fn wait(ask: impl FnOnce(Done)) {
    let (tx, rx) = mpsc::channel();
    ask(Box::new(move |outcome| tx.send(outcome).unwrap()));
    rx.recv().unwrap().unwrap();
}

/// What the newest frozen store holds.
fn fill(store: &Storage) {
    wait(|done| store.create(id(0), LogletPos(0), done));
    wait(|done| store.create(id(1), LogletPos(0), done));
    for i in 0..6 {
        wait(|done| store.append(id(1), Place::Tail, batch(i * 2), done));
    }
    wait(|done| store.trim(id(1), LogletPos(5), done));
    wait(|done| store.seal(id(1), done));
    wait(|done| store.create(id(2), LogletPos(12), done));
    wait(|done| store.append(id(2), Place::At(LogletPos(20)), batch(12), done));
    wait(|done| store.retire(LOG, vec![1], 2, done));
    fill_server(store);
}

/// What a sequencer and a repair leave, and what stands in `identity`.
fn fill_server(store: &Storage) {
    wait(|done| store.create(id(3), LogletPos(0), done));
    for first in [0, 10] {
        let (first, known_tail) = (LogletPos(first), LogletPos(10));
        let place = Place::Store { first, known_tail };
        wait(|done| store.append(id(3), place, batch(first.0), done));
    }
    wait(|done| store.seal(id(3), done));
    wait(|done| store.append(id(3), Place::Repair(LogletPos(12)), batch(12), done));
    store.set_identity(IDENTITY).unwrap();
    store.remember_peer(8, 0x88, 17 << 20).unwrap();
    store.remember_peer(9, 0x99, 3 << 20).unwrap();
}

fn holds_server(store: &Storage) {
    let three = store.status(id(3)).unwrap();
    assert_eq!((three.base.0, three.trim.0, three.tail.0, three.sealed), (0, 0, 14, true));
    let got = store.read(id(3), LogletPos(0), three.tail, 1 << 20).unwrap();
    assert_eq!(got.iter().map(|b| b.first.0).collect::<Vec<_>>(), [0, 10, 12]);
    assert!(got.iter().all(|b| b.batch == batch(b.first.0)));
    assert_eq!(store.identity(), Some(IDENTITY));
    assert_eq!(store.remember_peer(8, 0x88, 0).unwrap(), 17 << 20);
}

fn holds(store: &Storage, loglets: &[LogletId]) {
    assert_eq!(store.loglets(), loglets);
    let (one, two) = (store.status(id(1)).unwrap(), store.status(id(2)).unwrap());
    assert_eq!((one.base.0, one.trim.0, one.tail.0, one.sealed), (0, 5, 12, true));
    assert_eq!((two.base.0, two.trim.0, two.tail.0, two.sealed), (12, 12, 22, false));
    let got = store.read(id(1), LogletPos(5), one.tail, 1 << 20).unwrap();
    assert_eq!(got.iter().map(|b| b.first.0).collect::<Vec<_>>(), [4, 6, 8, 10]);
    assert!(got.iter().all(|b| b.batch == batch(b.first.0)));
    let got = store.read(id(2), LogletPos(12), two.tail, 1).unwrap();
    assert_eq!((got[0].first, &got[0].batch), (LogletPos(20), &batch(12)));
    wait(|done| store.append(id(2), Place::Tail, batch(14), done));
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/format")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

fn open(dir: &Path) -> Arc<Storage> {
    Storage::open(Arc::new(RealDisk), dir, options()).unwrap()
}

#[test]
fn frozen_stores_open() {
    let mut opened = 0;
    for version in VERSIONS {
        let loglets = &[id(1), id(2), id(3)][..if version == "v2" { 3 } else { 2 }];
        for kind in ["closed", "killed"] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("store");
            copy(&testdata().join(version).join(kind), &root);
            for empty in ["journal", "loglets"] {
                // Version control keeps no empty directories.
                RealDisk.create_dir(&root.join(empty)).unwrap();
            }
            if kind == "closed" {
                let reader = ReadOnlyStorage::open(Arc::new(RealDisk), &root).unwrap();
                assert_eq!(reader.loglets().unwrap(), loglets);
            }
            let store = open(&root);
            holds(&store, loglets);
            if version == "v2" {
                holds_server(&store);
            }
            store.close().unwrap();
            opened += 1;
        }
    }
    assert_eq!(opened, 6);
}

/// What this build writes is what the newest frozen store holds, but for what names the machine.
#[test]
fn this_build_writes_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = open(&root);
    fill(&store);
    let frozen = testdata().join(VERSIONS[2]).join("killed");
    let mut compared = 0;
    for part in ["journal", "loglets"] {
        compared += compare(&frozen.join(part), &root.join(part));
    }
    assert!(compared >= 3, "{compared} files");
    let identity = |root: &Path| fs::read(root.join("identity")).unwrap();
    assert!(identity(&frozen) == identity(&root));
}

fn compare(frozen: &Path, now: &Path) -> usize {
    let mut compared = 0;
    for entry in fs::read_dir(frozen).unwrap() {
        let (path, other) = {
            let entry = entry.unwrap();
            (entry.path(), now.join(entry.file_name()))
        };
        compared += match path.is_dir() {
            true => compare(&path, &other),
            false => {
                assert!(fs::read(&path).unwrap() == fs::read(&other).unwrap(), "{path:?}");
                1
            }
        };
    }
    compared
}

/// Writes the frozen stores, when asked to.
#[test]
fn freeze() {
    let Some(to) = std::env::var_os("VIRTUALLOG_FREEZE") else { return };
    let to = Path::new(&to);
    fs::create_dir(to).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let store = open(&root);
    fill(&store);
    copy(&root, &to.join("killed"));
    store.close().unwrap();
    copy(&root, &to.join("closed"));
    for kind in ["killed", "closed"] {
        fs::remove_file(to.join(kind).join("LOCK")).unwrap();
    }
}
