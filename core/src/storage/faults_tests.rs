//! What goes on beside a store: followers that look at an unlucky moment, gaps, refusals within a
//! block, forks, and panics of those who are answered or of the store itself.

use std::fmt;
use std::io::{self, IoSlice};

use super::*;

fn append_at(store: &Storage, first: u64, batch: Batch) -> LogletPos {
    wait(|done| store.append(id(1), Place::At(LogletPos(first)), batch, done)).unwrap()
}

fn follow(disk: impl Disk + 'static) -> ReadOnlyStorage {
    ReadOnlyStorage::open(Arc::new(disk), Path::new(ROOT)).unwrap()
}

#[test]
fn a_read_inside_a_gap_leaves_no_hint_behind_it() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    append_at(&store, 0, batch(1, 0, &[9, 9, 9]));
    append_at(&store, 1024, batch(1, 3, &[9, 9, 9]));
    let read = |from, to, bytes| store.read(id(1), LogletPos(from), LogletPos(to), bytes).unwrap();
    let follower = follow(disk);
    for _ in 0..3 {
        assert_eq!(read(0, 3, 1)[0].first, LogletPos(0));
        assert!(read(3, 1000, 1).is_empty());
        assert_eq!(read(0, 2000, 1 << 20).len(), 2);
        assert_eq!(read(2, 2000, 1)[0].first, LogletPos(0));
        assert!(follower.read(id(1), LogletPos(3), LogletPos(1000), 1).unwrap().is_empty());
        let got = follower.read(id(1), LogletPos(0), LogletPos(2000), 1 << 20).unwrap();
        assert_eq!(got.len(), 2);
    }
}

/// Everything below the tail that a follower is told of is there.
fn tail_is_reached(follower: &ReadOnlyStorage) -> LogletPos {
    let Some(status) = follower.status(id(1)).unwrap() else { return LogletPos(0) };
    let mut at = LogletPos(0);
    while at < status.tail {
        let got = follower.read(id(1), at, status.tail, 1).unwrap();
        assert_eq!(got.first().map(|b| b.first), Some(at), "skipped below {}", status.tail);
        at = got[0].end();
    }
    status.tail
}

#[test]
fn a_follower_that_looks_during_a_roll_skips_nothing() {
    let run = |disk: &SimDisk| {
        let store = open(disk)?;
        let _ = create(&store, 1, 0);
        let again = Arc::clone(&store);
        // Several files are opened by one block.
        let done: Done = Box::new(move |_| {
            (0..8).for_each(|i| {
                again.append(id(1), Place::Tail, batch(1, i, &[3000]), Box::new(drop))
            });
        });
        store.trim(id(1), LogletPos(0), done);
        (8..14).for_each(|i| drop(append(&store, 1, batch(1, i, &[3000]))));
        seal(&store, 1).map_err(Error::from)
    };
    let whole = SimDisk::new();
    run(&whole).unwrap();
    let mut tails = Vec::new();
    for stop in 1..=whole.operations() {
        let disk = SimDisk::new();
        disk.stop_at(stop);
        let _ = run(&disk);
        let Ok(follower) = ReadOnlyStorage::open(Arc::new(disk.kill()), Path::new(ROOT)) else {
            continue;
        };
        let tail = tail_is_reached(&follower);
        if follower.status(id(1)).unwrap().is_some_and(|status| status.sealed) {
            assert_eq!(tail, LogletPos(14));
        }
        tails.push(tail.0);
        // What it says is no more than what an owner recovers.
        assert!(open(&disk.kill()).unwrap().status(id(1)).map_or(0, |s| s.tail.0) >= tail.0);
    }
    assert!(tails.is_sorted() && tails.ends_with(&[14]), "{tails:?}");
}

/// A disk whose owner does something right after a file was looked at.
#[derive(Clone)]
struct Between(SimDisk, Arc<Mutex<Option<Hook>>>);

type Hook = (PathBuf, Box<dyn FnOnce() + Send>);

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Between")
    }
}

#[derive(Debug)]
struct BetweenFile(Between, PathBuf, Arc<dyn disk::DiskFile>);

impl Disk for Between {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn disk::DiskFile>> {
        let file = Disk::open(&self.0, path, mode)?;
        Ok(Arc::new(BetweenFile(self.clone(), path.to_owned(), file)))
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = self.0.list(dir);
        if let Some((_, then)) = self.1.lock().unwrap().take_if(|(path, _)| path == dir) {
            then();
        }
        names
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<LockOutcome> {
        self.0.lock(path)
    }
    fn boot_id(&self) -> u64 {
        self.0.boot_id()
    }
}

impl disk::DiskFile for BetweenFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let read = self.2.read_at(buf, offset);
        let hook = self.0.1.lock().unwrap().take_if(|(path, _)| offset == 512 && *path == self.1);
        if let Some((_, then)) = hook {
            then();
        }
        read
    }
    fn write_all_at(&self, parts: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.2.write_all_at(parts, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.2.sync_data()
    }
    fn len(&self) -> io::Result<u64> {
        self.2.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.2.set_len(len)
    }
    fn punch(&self, from: u64, to: u64) -> io::Result<()> {
        self.2.punch(from, to)
    }
}

#[test]
fn a_roll_between_two_looks_hides_nothing() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    append(&store, 1, batch(1, 0, &[3000])).unwrap();
    let between = Between(disk.clone(), Arc::default());
    let follower = follow(between.clone());
    assert_eq!(tail_is_reached(&follower), LogletPos(1));
    // What is read next is the next entry, or nothing is there yet.
    let next_is = |at: u64| {
        let got = follower.read(id(1), LogletPos(at), LogletPos(100), 1).unwrap();
        assert!(got.first().is_none_or(|b| b.first.0 == at), "skipped {at}");
        assert!(between.1.lock().unwrap().is_none(), "it was looked at");
    };
    // The next file is listed already when the first one's slot is read ...
    store.inner.files.create((id(1), LogletPos(2))).unwrap();
    let owner = Arc::clone(&store);
    let then = Box::new(move || {
        // ... and this goes to the first file still, and only the second one into the next.
        append(&owner, 1, batch(1, 1, &[3000])).unwrap();
        append(&owner, 1, batch(1, 2, &[6000])).unwrap();
    });
    let first = data::data_path(Path::new(ROOT), (id(1), LogletPos(0)));
    *between.1.lock().unwrap() = Some((first, then));
    next_is(1);
    assert_eq!(tail_is_reached(&follower), LogletPos(3));
    // And one that is made after the files were listed.
    let owner = Arc::clone(&store);
    let then = Box::new(move || assert!(append(&owner, 1, batch(1, 3, &[6000])).is_ok()));
    *between.1.lock().unwrap() = Some((data::loglet_dir(Path::new(ROOT), id(1)), then));
    let status = follower.status(id(1)).unwrap().unwrap();
    assert_eq!((status.tail, status.sealed), (LogletPos(3), false));
    assert_eq!(tail_is_reached(&follower), LogletPos(4));
    // Several at once: what it is told of is below the first file that it does not see.
    let owner = Arc::clone(&store);
    let then = Box::new(move || {
        (4..7).for_each(|seq| assert!(append(&owner, 1, batch(1, seq, &[6000])).is_ok()));
        seal(&owner, 1).unwrap();
    });
    *between.1.lock().unwrap() = Some((data::loglet_dir(Path::new(ROOT), id(1)), then));
    let status = follower.status(id(1)).unwrap().unwrap();
    assert_eq!((status.tail, status.sealed), (LogletPos(4), false));
    assert_eq!(tail_is_reached(&follower), LogletPos(7));
}

#[test]
fn a_file_that_is_being_made_is_not_there_yet() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    append(&store, 1, batch(1, 0, &[6000])).unwrap();
    let follower = follow(disk.clone());
    let next = (id(1), LogletPos(1));
    let path = data::data_path(Path::new(ROOT), next);
    // Nothing in it, then a header and no page, then all of it: refused at last, and removed.
    let file = Disk::open(&disk, &path, OpenMode::Create).unwrap();
    assert_eq!(tail_is_reached(&follower), LogletPos(1));
    file.write_all_at(&[IoSlice::new(&[7; 64])], 0).unwrap();
    assert_eq!(tail_is_reached(&follower), LogletPos(1));
    store.inner.files.create(next).unwrap();
    assert_eq!(tail_is_reached(&follower), LogletPos(1));
    store.inner.files.forget(next);
    Disk::remove_file(&disk, &path).unwrap();
    append(&store, 1, batch(1, 1, &[6000])).unwrap();
    assert_eq!(tail_is_reached(&follower), LogletPos(2));
}

/// L10, with the refusal and what comes after it in two blocks and in one.
#[test]
fn nothing_overtakes_a_batch_whose_file_could_not_be_made() {
    for shared in [false, true] {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        create(&store, 1, 0).unwrap();
        append(&store, 1, batch(1, 0, &[6000])).unwrap();
        disk.fail_making(Some(&id(1).to_string()));
        let (tx, rx) = mpsc::channel();
        let again = Arc::clone(&store);
        let two = move || {
            for batch in [batch(2, 0, &[3000]), batch(2, 1, &[40])] {
                let tx = tx.clone();
                again.append(id(1), Place::Tail, batch, Box::new(move |o| tx.send(o).unwrap()));
            }
        };
        match shared {
            true => store.trim(id(1), LogletPos(0), Box::new(move |_| two())),
            false => two(),
        }
        let outcomes: Vec<Outcome> = rx.iter().take(2).collect();
        assert!(matches!(outcomes[0], Err(StorageError::DiskFull(_))), "{outcomes:?}");
        let overtaken = matches!(outcomes[1], Err(StorageError::OutOfOrder { expected: 0 }));
        assert!(overtaken, "{outcomes:?}");
        append(&store, 1, one(1, 1)).unwrap();
        disk.fail_making(None);
        append(&store, 1, batch(2, 0, &[3000])).unwrap();
        append(&store, 1, one(2, 1)).unwrap();
        assert_eq!(read_all(&store, 1, 0, 1).len(), 4);
    }
}

/// A writer whose first batch went in and whose second did not, in a block that then fails as a
/// whole, goes on with its first.
#[test]
fn the_first_refused_batch_of_a_block_is_the_next_one() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    append(&store, 1, batch(1, 0, &[3000])).unwrap();
    disk.fail_making(Some(&id(1).to_string()));
    disk.set_room(Some(0));
    let (tx, rx) = mpsc::channel();
    let again = Arc::clone(&store);
    let done: Done = Box::new(move |_| {
        for batch in [batch(2, 0, &[3000]), batch(2, 1, &[3000]), batch(3, 0, &[3000])] {
            let tx = tx.clone();
            again.append(id(1), Place::Tail, batch, Box::new(move |o| tx.send(o).unwrap()));
        }
    });
    store.trim(id(1), LogletPos(0), done);
    assert!(rx.iter().take(3).all(|o| matches!(o, Err(StorageError::DiskFull(_)))));
    disk.fail_making(None);
    disk.set_room(None);
    for writer in [2, 3] {
        let late = append(&store, 1, batch(writer, 1, &[3000]));
        assert!(matches!(late, Err(StorageError::OutOfOrder { expected: 0 })), "{late:?}");
    }
    append(&store, 1, batch(2, 0, &[3000])).unwrap();
    append(&store, 1, batch(2, 1, &[3000])).unwrap();
}

/// Else it could not be trimmed any more.
#[test]
fn a_store_whose_disk_is_full_starts_and_is_trimmed() {
    let mut disk = SimDisk::new();
    let mut store = open(&disk).unwrap();
    fill(&store);
    for start in 1..=3 {
        let killed = disk.crash(|_| true);
        drop(store);
        killed.set_room(Some(0));
        store = open(&killed).expect("it starts");
        disk = killed;
        let tail = store.status(id(1)).unwrap().tail;
        assert_eq!(tail, LogletPos(60));
        let refused = append(&store, 1, batch(9, 0, &[300 << 10]));
        assert!(matches!(refused, Err(StorageError::DiskFull(_))), "{refused:?}");
        let keep = LogletPos(10 + start);
        trim(&store, 1, keep.0).unwrap();
        assert_eq!(store.status(id(1)).unwrap().trim, keep);
        assert!(!read_all(&store, 1, keep.0, 60).is_empty());
    }
}

#[test]
fn a_forked_child_leaves_the_store_to_its_parent() {
    for background in [false, true] {
        let disk = SimDisk::new();
        let options = StorageOptions { background, ..small() };
        let store = Storage::open(Arc::new(disk.clone()), Path::new(ROOT), options).unwrap();
        create(&store, 1, 0).unwrap();
        append(&store, 1, one(1, 0)).unwrap();
        disk.fork(true);
        assert_eq!(code(append(&store, 1, one(1, 1)).unwrap_err()), ErrorCode::Closed);
        // As threads of the parent may have held it in that moment.
        let held = store.inner.queue.lock().unwrap();
        let here = wait(|done| store.append_here(id(1), Place::Tail, one(1, 1), done));
        for outcome in [append(&store, 1, one(1, 1)), here, seal(&store, 1)] {
            assert_eq!(code(outcome.unwrap_err()), ErrorCode::Closed);
        }
        let read = store.read(id(1), LogletPos(0), LogletPos(1), 1);
        assert_eq!(code(read.unwrap_err()), ErrorCode::Closed);
        store.close().unwrap();
        drop(held);
        disk.fork(false);
        if background {
            // The child's copy let go of the threads, which in truth are not its own.
            continue;
        }
        append(&store, 1, one(1, 1)).unwrap();
        store.close().unwrap();
        assert_eq!(open(&disk).unwrap().status(id(1)).unwrap().tail, LogletPos(2));
    }
}

#[test]
fn a_completion_that_panics_harms_nobody_else() {
    for background in [false, true] {
        let disk = SimDisk::new();
        let options = StorageOptions { background, ..small() };
        let store = Storage::open(Arc::new(disk.clone()), Path::new(ROOT), options).unwrap();
        create(&store, 1, 0).unwrap();
        store.append(id(1), Place::Tail, one(1, 0), Box::new(|_| panic!("a user's mistake")));
        store.append_here(id(1), Place::Tail, one(1, 1), Box::new(|_| panic!("a user's mistake")));
        append(&store, 1, one(1, 2)).unwrap();
        wait(|done| store.append_here(id(1), Place::Tail, one(1, 3), done)).unwrap();
        // One that is refused before it waits is no different.
        store.close().unwrap();
        store.append(id(1), Place::Tail, one(1, 4), Box::new(|_| panic!("a user's mistake")));
        assert_eq!(open(&disk).unwrap().status(id(1)).unwrap().tail, LogletPos(4));
    }
}

/// Wherever the store itself panics, everybody is answered, and opening it again makes it good.
#[test]
fn a_panic_of_the_store_stops_it_and_nobody_waits_for_ever() {
    let mut stopped = 0;
    for at in (1..150).step_by(2) {
        for background in [false, true] {
            let disk = SimDisk::new();
            let options = StorageOptions { background, ..small() };
            let store = Storage::open(Arc::new(disk.clone()), Path::new(ROOT), options).unwrap();
            create(&store, 1, 0).unwrap();
            disk.panic_at(disk.operations() + at);
            let mut acked = 0;
            for seq in 0..12 {
                let batch = batch(1, seq, &[4000]);
                let outcome = match seq % 2 {
                    0 => append(&store, 1, batch),
                    _ => wait(|done| store.append_here(id(1), Place::Tail, batch, done)),
                };
                match outcome {
                    Ok(first) => acked = first.0 + 1,
                    Err(StorageError::InDoubt(_) | StorageError::Poisoned(_)) => break,
                    Err(e) => panic!("{e:?}"),
                }
            }
            let failed = store.failure().is_some();
            if failed {
                stopped += 1;
                let refused = append(&store, 1, one(1, 50));
                assert!(matches!(refused, Err(StorageError::Poisoned(_))), "{refused:?}");
                assert_eq!(code(seal(&store, 1).unwrap_err()), ErrorCode::Unavailable);
                assert!(store.close().is_err());
            }
            drop(store);
            let store = open(&disk.kill()).unwrap();
            let tail = store.status(id(1)).unwrap().tail.0;
            assert!(tail >= acked, "at {at}: {tail} of {acked}");
            assert_eq!(read_all(&store, 1, 0, 9000).len() as u64, tail);
        }
    }
    assert!(stopped > 60, "{stopped}");
}

#[test]
fn no_store_is_made_unless_it_may_be() {
    let disk = SimDisk::new();
    let look = || {
        let options = StorageOptions { create: false, ..small() };
        Storage::open(Arc::new(disk.clone()), Path::new(ROOT), options)
    };
    assert_eq!(code(look().unwrap_err()), ErrorCode::NotFound);
    Disk::create_dir(&disk, Path::new(ROOT)).unwrap();
    let (before, operations) = (disk.fingerprint(), disk.operations());
    assert_eq!(code(look().unwrap_err()), ErrorCode::NotFound);
    assert_eq!((disk.fingerprint(), disk.operations()), (before, operations));
    create(&open(&disk).unwrap(), 1, 0).unwrap();
    assert_eq!(look().unwrap().loglets(), [id(1)]);
}

/// What a failed sync dropped still shows at the next start, and has to be written again there.
#[test]
fn a_sync_that_fails_at_a_start_takes_nothing_with_it() {
    let mut seen = 0;
    for sync in 0..20 {
        let disk = SimDisk::new();
        let store = open(&disk).unwrap();
        for number in 1..4 {
            create(&store, number, 0).unwrap();
        }
        append(&store, 2, batch(1, 0, &[1500])).unwrap();
        let crashed = disk.crash(|_| false);
        crashed.fail_sync(crashed.syncs() + sync);
        if open(&crashed).is_ok() {
            continue;
        }
        seen += 1;
        let again = crashed.kill();
        let _store = open(&again).unwrap();
        let store = open(&again.crash(|_| false)).unwrap();
        let tails = [1, 2, 3].map(|number| store.status(id(number)).unwrap().tail.0);
        assert_eq!(tails, [0, 1, 0], "sync {sync}");
    }
    assert!(seen > 3, "{seen}");
}
