//! A store's directory: each file of it as a fuzzer makes it, then opened, read and opened again.
//!
//! Everything is in memory and on this thread. What opens must open again and hold the same.

use std::io::IoSlice;
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};

use bytes::Bytes;
use futures_util::FutureExt;
use virtuallog::metastore::MetaStore;
use virtuallog::metastores::FileMetaStore;
use virtuallog::storage::disk::OpenMode;
use virtuallog::storage::{
    Disk, Done, Identity, LogletStatus, Place, ReadOnlyStorage, Storage, StorageOptions,
};
use virtuallog::testing::simdisk::SimDisk;
use virtuallog_protocol::record::crc32c;
use virtuallog_protocol::{BatchBuilder, LogId, LogletId, LogletPos, WriterId};

use super::{joined, pieces};
use crate::mend;

const ROOT: &str = "/store";
const STORAGE_ID: u128 = 0x0f0e_0d0c;
const LOG: LogId = LogId(0xabc);
const PAGE: usize = 4096;

fn options() -> StorageOptions {
    StorageOptions {
        journal_file_bytes: 8 * PAGE as u64,
        data_file_bytes: 5 << 10,
        background: false,
        storage_id: Some(STORAGE_ID),
        ..StorageOptions::default()
    }
}

fn open(disk: &SimDisk) -> virtuallog::Result<Arc<Storage>> {
    Storage::open(Arc::new(disk.clone()), Path::new(ROOT), options())
}

fn wait(ask: impl FnOnce(Done)) {
    let (tell, told) = mpsc::channel();
    ask(Box::new(move |outcome| drop(tell.send(outcome))));
    told.recv().expect("it is answered").expect("an honest request");
}

/// A store with something of everything, as its process left it when it was killed.
fn image() -> SimDisk {
    static IMAGE: OnceLock<SimDisk> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let disk = SimDisk::new();
        let store = open(&disk).expect("a new store");
        let id = |segment| LogletId { log: LOG, segment };
        let batch = |seq| {
            let mut builder = BatchBuilder::with_capacity(800);
            builder.push(&[seq as u8; 300]);
            builder.push(b"x");
            builder.finish(WriterId(1), seq, 0)
        };
        for segment in 0..4 {
            wait(|done| store.create(id(segment), LogletPos(0), done));
        }
        for seq in 0..6 {
            wait(|done| store.append(id(1), Place::Tail, batch(seq * 2), done));
        }
        wait(|done| store.trim(id(1), LogletPos(5), done));
        wait(|done| store.seal(id(1), done));
        let at = |first| Place::Store { first: LogletPos(first), known_tail: LogletPos(first) };
        wait(|done| store.append(id(2), at(20), batch(12), done));
        wait(|done| store.seal(id(2), done));
        wait(|done| store.append(id(2), Place::Repair(LogletPos(22)), batch(14), done));
        wait(|done| store.retire(LOG, vec![1, 2, 3], 1, done));
        store.set_identity(Identity { cluster: 5, node: 7 }).expect("its own");
        store.remember_peer(8, 0x88, 17 << 20).expect("room");
        let killed = disk.kill();
        drop(store);
        killed
    });
    image.kill()
}

type Seen = Vec<(LogletId, LogletStatus, Vec<Bytes>)>;

/// Opens it, reads all of it, and closes it; `None` when it is refused.
fn look(disk: &SimDisk) -> Option<Seen> {
    let store = open(disk).ok()?;
    let mut seen = Vec::new();
    for id in store.loglets() {
        let status = store.status(id).expect("it is listed");
        let _ = store.verify(id, &mut |_| {});
        let batches = store.read(id, status.trim, status.tail, 1 << 20).unwrap_or_default();
        let mut last = status.trim;
        for batch in &batches {
            assert!(batch.loglet == id && batch.end() > last && batch.end() <= status.tail);
            last = batch.end();
        }
        let bytes = batches.into_iter().map(|batch| batch.batch.as_bytes().clone());
        seen.push((id, status, bytes.collect()));
    }
    let _ = store.close();
    Some(seen)
}

/// What opens opens again, with the same in it; others may look at it before and after.
fn opens(disk: &SimDisk) {
    follow(disk);
    let Some(first) = look(disk) else { return };
    follow(disk);
    assert_eq!(look(disk).as_ref(), Some(&first), "the same again");
}

fn follow(disk: &SimDisk) {
    let Ok(store) = ReadOnlyStorage::open(Arc::new(disk.clone()), Path::new(ROOT)) else { return };
    for id in store.loglets().unwrap_or_default() {
        if let Ok(Some(status)) = store.status(id) {
            let _ = store.read(id, status.trim, status.tail, 1 << 20);
        }
    }
}

fn put(disk: &SimDisk, path: impl AsRef<Path>, bytes: &[u8]) {
    let file = disk.open(path.as_ref(), OpenMode::Create).expect("made");
    file.write_all_at(&[IoSlice::new(bytes)], 0).expect("written");
}

fn content(disk: &SimDisk, name: &str) -> Vec<u8> {
    disk.content(&Path::new(ROOT).join(name)).expect("it is there")
}

/// The body of a manifest, beside the files of an honest store.
pub(super) fn manifest(input: &[u8]) {
    let disk = image();
    let file = match input.split_first() {
        Some((0, raw)) => raw.to_vec(),
        Some((version, body)) => mend::whole(b"VLM\x01", u32::from(version % 4), body),
        None => Vec::new(),
    };
    put(&disk, Path::new(ROOT).join("manifest"), &file);
    opens(&disk);
}

pub(super) fn manifests() -> Vec<Vec<u8>> {
    let disk = image();
    let before = content(&disk, "manifest");
    look(&disk).expect("it opens");
    let after = content(&disk, "manifest");
    vec![
        [&[2], &before[16..]].concat(),
        [&[2], &after[16..]].concat(),
        [&[0], &before[..]].concat(),
    ]
}

pub(super) fn identity(input: &[u8]) {
    let disk = image();
    put(&disk, Path::new(ROOT).join("identity"), &mend::whole(b"VLI\x01", 1, input));
    if let Ok(store) = open(&disk) {
        let known = store.identity();
        let _ = store.remember_peer(9, 0x99, 3);
        let _ = store.close();
        assert_eq!(open(&disk).expect("it opened before").identity(), known);
    }
}

pub(super) fn identities() -> Vec<Vec<u8>> {
    vec![content(&image(), "identity")[16..].to_vec()]
}

/// The blocks of the journal, one a piece: how its header differs from an honest one, then records.
pub(super) fn journal(input: &[u8]) {
    let disk = image();
    let path = Path::new(ROOT).join("journal/00000001");
    let honest = disk.content(&path).expect("the first journal file");
    let mut file = Vec::new();
    for (number, piece) in pieces(input).into_iter().enumerate() {
        let Some(([count, twist], records)) = piece.split_first_chunk() else { continue };
        let mut records = records.to_vec();
        mend::all_stamped(&mut records);
        let mut head = honest[..60].to_vec();
        let sequence = u64::from_le_bytes(head[32..40].try_into().expect("eight bytes"));
        // A block that is missing, or of another epoch, now and then.
        let sequence = sequence + number as u64 + u64::from(*twist == 1);
        head[24] ^= u8::from(*twist == 2);
        head[32..40].copy_from_slice(&sequence.to_le_bytes());
        head[40..44].copy_from_slice(&(records.len() as u32).to_le_bytes());
        head[44..48].copy_from_slice(&u32::from(*count).to_le_bytes());
        head[48..52].copy_from_slice(&(crc32c(&records) ^ u32::from(*twist == 3)).to_le_bytes());
        let crc = crc32c(&head).to_le_bytes();
        file.extend([&head[..], &crc, &records].concat());
        file.resize(file.len().next_multiple_of(PAGE), 0);
    }
    file.resize(file.len().max(honest.len()), 0);
    put(&disk, path, &file);
    opens(&disk);
}

pub(super) fn journals() -> Vec<Vec<u8>> {
    let file = content(&image(), "journal/00000001");
    let mut blocks = Vec::new();
    let mut at = 0;
    while file[at..].starts_with(b"VLJ\x01") {
        let int = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().expect("four bytes"));
        let (len, count) = (int(at + 40) as usize, int(at + 44) as u8);
        blocks.push([&[count, 0], &file[at + 64..at + 64 + len]].concat());
        at += (64 + len).next_multiple_of(PAGE);
    }
    let control = |kind: u8, segment: u32, a: u64| {
        let mut record = b"VLC\x01".to_vec();
        record.extend([kind, 0, 0, 0]);
        record.extend(LOG.0.to_le_bytes());
        record.extend([segment.to_le_bytes(), [0; 4]].concat());
        record.extend([a.to_le_bytes(), [0; 8], [0; 8]].concat());
        record
    };
    let controls = (1..=6).map(|kind| [&[1, 0], &control(kind, 9, 3)[..]].concat());
    let mut seeds: Vec<_> = controls.map(|block| joined([block])).collect();
    seeds.extend((1..=blocks.len()).map(|count| joined(&blocks[..count])));
    seeds
}

/// A failing disk, or somebody who knows the format: edits of six bytes each, on any of the files.
pub(super) fn directory(input: &[u8]) {
    let disk = image();
    for edit in input.chunks_exact(6) {
        let &[file, what, low, high, value, more] = edit else { return };
        let files = disk.all_files();
        let Some((path, len)) = files.get(usize::from(file) % files.len().max(1)) else { return };
        let at = u64::from(u16::from_le_bytes([low, high])) % (*len).max(1);
        apply(&disk, path, what, at as usize, [value, more]);
    }
    opens(&disk);
}

fn apply(disk: &SimDisk, path: &Path, what: u8, at: usize, value: [u8; 2]) {
    let change = |change: &dyn Fn(&mut Vec<u8>)| disk.damage(path, change);
    match what % 8 {
        0 => change(&|bytes| bytes.truncate(at)),
        1 => change(&|bytes| bytes.extend(vec![value[0]; at])),
        2 => disk.remove_file(path).unwrap_or_default(),
        3 => change(&|bytes| bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte = value[0])),
        // The other half of them with checksums that hold again.
        what => change(&|bytes| {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= value[0];
            }
            if let Some(byte) = bytes.get_mut(at + 1) {
                *byte ^= value[1];
            }
            if what >= 6 {
                mend_file(bytes);
            }
        }),
    }
}

/// Makes the checksums of whatever file it is hold.
fn mend_file(bytes: &mut Vec<u8>) {
    if bytes.starts_with(b"VLM\x01") || bytes.starts_with(b"VLI\x01") {
        let version = bytes.get(4).copied().unwrap_or(1);
        let magic = *bytes.first_chunk().expect("it starts with it");
        *bytes = mend::whole(&magic, u32::from(version), bytes.get(16..).unwrap_or_default());
        return;
    }
    mend::all_stamped(bytes);
    for block in (0..bytes.len()).step_by(PAGE) {
        let Some(head) = bytes.get(block..block + 64).filter(|head| head.starts_with(b"VLJ\x01"))
        else {
            continue;
        };
        let len = u32::from_le_bytes(head[40..44].try_into().expect("four bytes")) as usize;
        let Some(records) = bytes.get(block + 64..).and_then(|rest| rest.get(..len)) else {
            continue;
        };
        let crc = crc32c(records).to_le_bytes();
        bytes[block + 48..block + 52].copy_from_slice(&crc);
        let crc = crc32c(&bytes[block..block + 60]).to_le_bytes();
        bytes[block + 60..block + 64].copy_from_slice(&crc);
    }
}

pub(super) fn edits() -> Vec<Vec<u8>> {
    let files = image().all_files().len() as u8;
    let all = (0..files).flat_map(|file| (0..8).map(move |what| vec![file, what, 40, 0, 1, 0]));
    all.chain([Vec::new()]).collect()
}

/// The file of one register of a `file:` store.
pub(super) fn register(input: &[u8]) {
    const NAME: &str = "name";
    let disk = SimDisk::new();
    let store = FileMetaStore::open(Arc::new(disk.clone()), "/meta").expect("a new one");
    let now = |future| FutureExt::now_or_never(future).expect("nothing waits without a runtime");
    let written = now(store.put_if(NAME, Some(Bytes::from_static(b"value")), 0));
    assert_eq!(written.ok(), Some(1));
    let (path, _) = disk.all_files().pop().expect("its file");
    let mended = [input, &crc32c(input).to_le_bytes()].concat();
    for bytes in [input.to_vec(), mended] {
        put(&disk, &path, &bytes);
        let Some(Ok(found)) = store.get(NAME).now_or_never() else { continue };
        let next = now(store.put_if(NAME, found.value, found.version));
        assert_eq!(next.ok(), Some(found.version + 1), "it can be written again");
    }
}

pub(super) fn register_files() -> Vec<Vec<u8>> {
    let whole = |value: Option<&[u8]>, version: u64| {
        let bytes = value.unwrap_or_default();
        let (has, len) = (u32::from(value.is_some()), bytes.len() as u32);
        let head = [&b"VLM\x01"[..], &1_u32.to_le_bytes()].concat();
        let lens = [has.to_le_bytes(), 4_u32.to_le_bytes(), len.to_le_bytes()].concat();
        [&head[..], &version.to_le_bytes(), &lens, b"name", bytes].concat()
    };
    vec![whole(Some(b"value"), 3), whole(None, 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_honest_store_holds_what_was_put_into_it() {
        let seen = look(&image()).expect("it opens");
        let row = |(id, status, batches): &(LogletId, LogletStatus, Vec<Bytes>)| {
            (id.segment, status.tail.0, status.sealed, batches.len())
        };
        let rows: Vec<_> = seen.iter().map(row).collect();
        assert_eq!(rows, [(1, 12, true, 4), (2, 24, true, 2), (3, 0, false, 0)]);
    }

    #[test]
    fn a_mended_store_is_the_same_one() {
        let disk = image();
        for (path, _) in disk.all_files() {
            disk.damage(&path, mend_file);
        }
        assert_eq!(look(&disk), look(&image()));
    }
}
