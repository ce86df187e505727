//! Registers on a disk that crashes, fills up, fails to sync and rots.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::storage::disk::{DiskFile, LockOutcome, RealDisk};
use crate::testing::Rng;
use crate::testing::simdisk::SimDisk;

fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

fn value(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// Fails one kind of call while its switch is on.
#[derive(Debug, Default)]
struct Faults {
    write: AtomicBool,
    sync_full: AtomicBool,
    sync: AtomicBool,
    sync_dir: AtomicBool,
}

#[derive(Debug)]
struct FaultyDisk(Arc<Faults>);

#[derive(Debug)]
struct FaultyFile(Arc<Faults>, Arc<dyn DiskFile>);

fn fault(switch: &AtomicBool, kind: io::ErrorKind) -> io::Result<()> {
    if switch.load(Ordering::SeqCst) { Err(kind.into()) } else { Ok(()) }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FaultyFile(self.0.clone(), RealDisk.open(path, mode)?)))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fault(&self.0.sync_dir, io::ErrorKind::Other)?;
        RealDisk.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        RealDisk.lock(path)
    }
    fn boot_id(&self) -> u64 {
        RealDisk.boot_id()
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.read_at(buf, offset)
    }
    fn write_all_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        fault(&self.0.write, io::ErrorKind::StorageFull)?;
        self.1.write_all_at(parts, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        fault(&self.0.sync_full, io::ErrorKind::StorageFull)?;
        fault(&self.0.sync, io::ErrorKind::Other)?;
        self.1.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.1.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.set_len(len)
    }
    fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        self.1.punch(from, to)
    }
}

#[test]
fn the_bytes_of_format_1_are_frozen() {
    let bytes = encode("orders", Some(b"chain"), 3).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "564c4d0101000000030000000000000001000000060000000500000\
         06f7264657273636861696e4b2df5ef"
    );
    assert_eq!(format!("{:032x}", hash("orders")), "1649593a2e3c64bf6eee83a12169a874");
}

#[tokio::test]
async fn versions_survive_reopening_and_deleting() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    let store = FileMetaStore::open(real(), &path).unwrap();
    assert_eq!(store.put_if("a", value("one"), 0).await.unwrap(), 1);
    assert_eq!(store.put_if("b", None, 0).await.unwrap(), 1);
    assert_eq!(store.put_if("a", None, 1).await.unwrap(), 2);
    std::fs::write(path.join("left.tmp"), b"torn").unwrap();
    let store = FileMetaStore::open(real(), &path).unwrap();
    assert_eq!(store.get("a").await.unwrap(), Versioned { value: None, version: 2 });
    assert_eq!(store.list().await.unwrap(), [""; 0]);
    assert_eq!(store.put_if("a", value("two"), 2).await.unwrap(), 3);
    assert_eq!(store.list().await.unwrap(), ["a"]);
    assert_eq!(files(&path).len(), 2);
    assert!(files(&path).iter().all(|file| file.extension().unwrap() == "reg"));
}

#[test]
fn works_without_a_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileMetaStore::open(real(), dir.path().join("meta")).unwrap();
    let put = futures_util::FutureExt::now_or_never(store.put_if("a", value("x"), 0));
    assert_eq!(put.unwrap().unwrap(), 1);
}

#[tokio::test]
async fn a_reader_beside_the_owner_follows_and_never_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    let reader = FileMetaStore::open_read_only(real(), &path);
    assert_eq!(reader.get("a").await.unwrap().version, 0);
    assert!(reader.list().await.unwrap().is_empty());
    assert!(!path.exists());
    let refused = reader.put_if("a", value("x"), 0).await.unwrap_err();
    assert!(matches!(refused, MetaError::Refused(e) if e.code() == ErrorCode::Invalid));

    let owner = FileMetaStore::open(real(), &path).unwrap();
    let follow = tokio::spawn(async move { reader.watch("a", 1).await });
    owner.put_if("a", value("one"), 0).await.unwrap();
    owner.put_if("a", value("two"), 1).await.unwrap();
    assert_eq!(follow.await.unwrap().unwrap(), Versioned { value: value("two"), version: 2 });
}

#[tokio::test]
async fn every_flipped_bit_and_every_cut_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileMetaStore::open(real(), dir.path()).unwrap();
    store.put_if("a", value("value"), 0).await.unwrap();
    let path = files(dir.path()).pop().unwrap();
    let good = std::fs::read(&path).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(store.get("a").await, Err(MetaError::Corrupt(_))), "bit {bit}");
    }
    for len in 0..good.len() {
        std::fs::write(&path, &good[..len]).unwrap();
        assert!(matches!(store.put_if("a", None, 1).await, Err(MetaError::Corrupt(_))), "{len}");
        assert!(matches!(store.list().await, Err(MetaError::Corrupt(_))));
    }
    std::fs::write(&path, &good).unwrap();
    std::fs::copy(&path, dir.path().join("0.reg")).unwrap();
    assert!(matches!(store.list().await, Err(MetaError::Corrupt(_))), "a file at a wrong name");
}

#[tokio::test]
async fn a_later_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = FileMetaStore::open(real(), dir.path()).unwrap();
    store.put_if("a", value("value"), 0).await.unwrap();
    let path = files(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4] = 2;
    let end = bytes.len() - CRC_LEN;
    let crc = crc32c(&bytes[..end]).to_le_bytes();
    bytes[end..].copy_from_slice(&crc);
    std::fs::write(&path, bytes).unwrap();
    let refused = store.get("a").await.unwrap_err();
    assert!(matches!(refused, MetaError::Refused(e) if e.code() == ErrorCode::Incompatible));
}

#[tokio::test]
async fn a_full_disk_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let faults = Arc::new(Faults::default());
    let store = FileMetaStore::open(Arc::new(FaultyDisk(faults.clone())), dir.path()).unwrap();
    store.put_if("a", value("one"), 0).await.unwrap();
    for switch in [&faults.write, &faults.sync_full] {
        switch.store(true, Ordering::SeqCst);
        let refused = store.put_if("a", value("two"), 1).await.unwrap_err();
        assert!(matches!(refused, MetaError::Refused(e) if e.code() == ErrorCode::DiskFull));
        switch.store(false, Ordering::SeqCst);
        assert_eq!(store.get("a").await.unwrap().value, value("one"));
        assert_eq!(files(dir.path()).len(), 1, "the temporary file is gone");
    }
    assert_eq!(store.put_if("a", value("two"), 1).await.unwrap(), 2);
}

#[tokio::test]
async fn a_failed_sync_stops_everything_until_reopened() {
    for before_rename in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let faults = Arc::new(Faults::default());
        let disk = Arc::new(FaultyDisk(faults.clone()));
        let store = FileMetaStore::open(disk.clone(), dir.path()).unwrap();
        store.put_if("a", value("one"), 0).await.unwrap();
        let watcher = tokio::spawn({
            let store = store.clone();
            async move { store.watch("a", 5).await }
        });
        let switch = if before_rename { &faults.sync } else { &faults.sync_dir };
        switch.store(true, Ordering::SeqCst);
        let failed = store.put_if("a", value("two"), 1).await.unwrap_err();
        match failed {
            MetaError::Refused(e) => assert!(before_rename && e.code() == ErrorCode::Unavailable),
            MetaError::Unavailable(_) => assert!(!before_rename),
            other => panic!("{other}"),
        }
        switch.store(false, Ordering::SeqCst);
        assert!(matches!(store.get("a").await, Err(MetaError::Unavailable(_))));
        assert!(matches!(store.list().await, Err(MetaError::Unavailable(_))));
        assert!(matches!(watcher.await.unwrap(), Err(MetaError::Unavailable(_))));
        let refused = store.put_if("a", None, 1).await.unwrap_err();
        assert!(matches!(refused, MetaError::Refused(e) if e.code() == ErrorCode::Unavailable));

        let store = FileMetaStore::open(disk, dir.path()).unwrap();
        let version = if before_rename { 1 } else { 2 };
        assert_eq!(store.get("a").await.unwrap().version, version);
    }
}

/// Does `work` without a runtime, where nothing waits.
fn now<T>(work: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(work).expect("file work is done at once")
}

/// Writes versions 1, 2, … until the disk stops; gives the last one that was acknowledged, and the
/// highest that may be there.
fn write_until_it_stops(disk: &SimDisk) -> (Version, Version) {
    let Ok(store) = FileMetaStore::open(Arc::new(disk.clone()), "/meta") else { return (0, 0) };
    for expected in 0..4 {
        match now(store.put_if("a", content(expected + 1), expected)) {
            Ok(_) => {}
            Err(MetaError::Refused(_)) => return (expected, expected),
            Err(_) => return (expected, expected + 1),
        }
    }
    (4, 4)
}

/// The third write deletes; the others differ in length, over several sectors.
fn content(version: Version) -> Option<Bytes> {
    (version != 3).then(|| Bytes::from(vec![version as u8; version as usize * 400]))
}

#[test]
fn every_crash_leaves_a_version_that_was_written_and_none_acknowledged_is_lost() {
    let whole = SimDisk::new();
    assert_eq!(write_until_it_stops(&whole), (4, 4));
    let (mut rng, mut crashes) = (Rng::new(1), 0);
    for stop_at in 0..=whole.operations() {
        let disk = SimDisk::new();
        disk.stop_at(stop_at);
        let (acked, highest) = write_until_it_stops(&disk);
        let choices = disk.unsynced();
        let subsets: Vec<u64> = match choices {
            0..=10 => (0..1 << choices).collect(),
            _ => (0..1024).map(|_| rng.bits()).collect(),
        };
        for kept in subsets {
            let after = disk.crash(|choice| kept >> (choice % 64) & 1 == 1);
            let store = FileMetaStore::open(Arc::new(after.clone()), "/meta").unwrap();
            let found = now(store.get("a")).unwrap();
            let version = found.version;
            assert!((acked..=highest).contains(&version), "{stop_at} {kept:b}: {version}, {acked}");
            let written = if version == 0 { None } else { content(version) };
            assert_eq!(found.value, written, "{stop_at} {kept:b}");
            assert_eq!(now(store.put_if("a", content(1), version)).unwrap(), version + 1);
            assert!(after.all_files().iter().all(|(path, _)| path.extension().unwrap() == "reg"));
            crashes += 1;
        }
    }
    assert!(crashes > 100, "{crashes} crashes");
}
