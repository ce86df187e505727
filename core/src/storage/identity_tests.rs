//! Whose disk it is, and what it remembers of others.

use super::*;

const OURS: Identity = Identity { cluster: 0xc1, node: 3 };

#[test]
fn an_identity_is_set_once_and_for_all() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    assert_eq!(store.identity(), None);
    store.set_identity(OURS).unwrap();
    let operations = disk.operations();
    store.set_identity(OURS).unwrap();
    assert_eq!(disk.operations(), operations, "it is there already");
    for other in [Identity { node: 4, ..OURS }, Identity { cluster: 0xc2, ..OURS }] {
        let error = store.set_identity(other).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Incompatible);
        assert!(error.message().contains("belongs to node 3"), "{error}");
    }
    assert_eq!(store.identity(), Some(OURS));
    let store = reopen_after_crash(&disk, store);
    assert_eq!(store.identity(), Some(OURS));
    assert!(store.set_identity(Identity { node: 4, ..OURS }).is_err());
    store.close().unwrap();
    assert_eq!(code(store.set_identity(OURS).unwrap_err()), ErrorCode::Closed);
}

#[test]
fn the_highest_generation_of_a_peer_is_remembered() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    let operations = disk.operations();
    assert_eq!(store.remember_peer(2, 0xa, 0).unwrap(), 0);
    assert_eq!(disk.operations(), operations, "nothing to remember");
    assert_eq!(store.remember_peer(2, 0xa, 7).unwrap(), 7);
    assert_eq!(store.remember_peer(2, 0xa, 9).unwrap(), 9);
    // The older image, then another disk in its place, then the older image again.
    assert_eq!(store.remember_peer(2, 0xa, 8).unwrap(), 9);
    assert_eq!(store.remember_peer(2, 0xb, 1).unwrap(), 1);
    assert_eq!(store.remember_peer(5, 0xa, 2).unwrap(), 2);
    let store = reopen_after_crash(&disk, store);
    assert_eq!(store.identity(), None);
    for (node, storage_id, highest) in [(2, 0xa, 9), (2, 0xb, 1), (5, 0xa, 2), (6, 0xa, 0)] {
        assert_eq!(store.remember_peer(node, storage_id, 0).unwrap(), highest);
    }
}

#[test]
fn what_is_remembered_is_bounded() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    let peers = (0..identity::PEERS_MAX as u128).map(|id| ((1, id), 5)).collect();
    store.inner.remembered.lock().unwrap().peers = peers;
    assert_eq!(code(store.remember_peer(1, u128::MAX, 5).unwrap_err()), ErrorCode::Invalid);
    assert_eq!(store.remember_peer(1, u128::MAX, 0).unwrap(), 0);
    assert_eq!(store.remember_peer(1, 0, 6).unwrap(), 6);
}

/// Damage, a newer version, a missing manifest: nothing is guessed.
#[test]
fn a_damaged_identity_is_not_an_absent_one() {
    let file = Path::new("/store/identity");
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    store.set_identity(OURS).unwrap();
    store.remember_peer(2, 0xa, 7).unwrap();
    store.close().unwrap();
    let len = disk.content(file).unwrap().len() as u64;
    for bit in 0..len * 8 {
        let damaged = disk.crash(|_| true);
        damaged.flip(file, bit);
        assert_eq!(code(open(&damaged).unwrap_err()), ErrorCode::Corrupt, "bit {bit}");
    }
    let lost = disk.crash(|_| true);
    disk::Disk::remove_file(&lost, Path::new("/store/manifest")).unwrap();
    assert_eq!(code(open(&lost).unwrap_err()), ErrorCode::DataLoss);
}

#[test]
fn no_room_for_an_identity_harms_nothing() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    disk.set_room(Some(10));
    assert_eq!(code(store.set_identity(OURS).unwrap_err()), ErrorCode::DiskFull);
    assert_eq!(store.identity(), None);
    disk.set_room(None);
    store.set_identity(OURS).unwrap();
    disk.fail_sync(disk.syncs() + 1);
    assert_eq!(code(store.remember_peer(1, 1, 1).unwrap_err()), ErrorCode::Unavailable);
    assert!(matches!(append(&store, 1, one(1, 0)), Err(StorageError::Poisoned(_))));
    assert_eq!(open(&disk.kill()).unwrap().identity(), Some(OURS));
}
