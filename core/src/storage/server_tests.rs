//! The store as the disk of a LogServer: stores of a sequencer, repairs, seals among them, what a
//! start can tell.

use virtuallog_protocol::log_server::{LocalLog, Refusal, Verdict};

use super::*;

fn put(store: &Storage, place: Place, seq: u64) -> Outcome {
    wait(|done| store.append(id(1), place, batch(1, seq, &[30, 30]), done))
}

fn at(first: u64, known_tail: u64) -> Place {
    Place::Store { first: LogletPos(first), known_tail: LogletPos(known_tail) }
}

fn repair(first: u64) -> Place {
    Place::Repair(LogletPos(first))
}

fn firsts(store: &Storage, from: u64, to: u64) -> Vec<u64> {
    let got = store.read(id(1), LogletPos(from), LogletPos(to), 1 << 20).unwrap();
    got.iter().map(|batch| batch.first.0).collect()
}

type Ask = Box<dyn FnOnce(&Storage, Done) + Send>;

/// Asks for everything of `requests` in one block, and gives the answers in order.
fn in_one_block(store: &Arc<Storage>, requests: Vec<Ask>) -> Vec<Outcome> {
    let (tx, rx) = mpsc::channel();
    let (again, count) = (Arc::clone(store), requests.len());
    // While a completion runs its caller leads, so what it asks for waits and is taken together.
    let ask: Done = Box::new(move |_| {
        for (i, request) in requests.into_iter().enumerate() {
            let tx = tx.clone();
            request(&again, Box::new(move |outcome| tx.send((i, outcome)).unwrap()));
        }
    });
    store.trim(id(1), LogletPos(0), ask);
    let mut answers: Vec<_> = rx.iter().take(count).collect();
    answers.sort_by_key(|(i, _)| *i);
    answers.into_iter().map(|(_, outcome)| outcome).collect()
}

fn putting(place: Place, seq: u64) -> Ask {
    Box::new(move |store, done| store.append(id(1), place, batch(1, seq, &[30, 30]), done))
}

fn sealing() -> Ask {
    Box::new(|store, done| store.seal(id(1), done))
}

#[test]
fn t10_t11_a_store_is_taken_by_the_rule_of_a_log_server() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    assert!(matches!(put(&store, at(10, 10), 0), Err(StorageError::Unknown(_))));
    create(&store, 1, 10).unwrap();
    let tail = |outcome: Outcome| outcome.unwrap().0;
    assert_eq!(tail(put(&store, at(10, 10), 0)), 12);
    // Writers are the sequencer's business: any number goes.
    assert_eq!(tail(put(&store, at(12, 10), 70)), 14);
    assert_eq!(tail(put(&store, at(10, 14), 0)), 14, "a duplicate");
    let gap = put(&store, at(16, 15), 4);
    assert!(matches!(gap, Err(StorageError::Gap { tail: LogletPos(14) })), "{gap:?}");
    let across = put(&store, at(13, 14), 4);
    assert!(matches!(across, Err(StorageError::Conflict { tail: LogletPos(14) })), "{across:?}");
    let beyond = put(&store, at(u64::MAX, u64::MAX), 4);
    assert!(matches!(beyond, Err(StorageError::Position { .. })), "{beyond:?}");
    // What is known to be elsewhere is passed over, and then it counts as taken.
    assert_eq!(tail(put(&store, at(40, 40), 30)), 42);
    assert_eq!(tail(put(&store, at(20, 40), 10)), 42, "passed over");
    assert_eq!(tail(put(&store, at(42, 40), 32)), 44);
    let check = |store: &Storage| {
        let status = store.status(id(1)).unwrap();
        assert_eq!((status.base.0, status.tail.0, status.sealed), (10, 44, false));
        assert_eq!(firsts(store, 10, 44), [10, 12, 40, 42]);
        assert_eq!(firsts(store, 14, 44), [40, 42]);
        assert_eq!(firsts(store, 25, 41), [40]);
        assert_eq!(firsts(store, 25, 40), [0; 0]);
    };
    check(&store);
    let store = reopen_after_crash(&disk, store);
    check(&store);
    assert_eq!(tail(put(&store, at(44, 44), 0)), 46);
}

/// N2 and N10: the seal is looked at before what is here, and a repair needs it.
#[test]
fn t29_a_sealed_loglet_takes_repairs_and_no_store() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    put(&store, at(0, 0), 0).unwrap();
    let early = put(&store, repair(2), 2);
    assert!(matches!(early, Err(StorageError::NotSealed)), "{early:?}");
    assert_eq!(seal(&store, 1).unwrap(), LogletPos(2));
    for place in [at(0, 0), at(2, 2), at(9, 9)] {
        assert!(matches!(put(&store, place, 0), Err(StorageError::Sealed)), "{place:?}");
    }
    assert!(matches!(append(&store, 1, one(1, 2)), Err(StorageError::Sealed)));
    let mut listener = store.subscribe(id(1)).unwrap();
    assert_eq!(put(&store, repair(2), 2).unwrap(), LogletPos(4));
    assert_eq!(put(&store, repair(2), 2).unwrap(), LogletPos(4), "again");
    assert_eq!(put(&store, repair(8), 8).unwrap(), LogletPos(10), "the rest is trimmed elsewhere");
    assert!(matches!(put(&store, repair(9), 2), Err(StorageError::Conflict { .. })));
    assert_eq!(*listener.borrow_and_update(), (LogletPos(10), true));
    // What came by repair is no more answered to the sequencer than before.
    assert!(matches!(put(&store, at(2, 2), 2), Err(StorageError::Sealed)));
    assert_eq!(seal(&store, 1).unwrap(), LogletPos(10));
    let follower = ReadOnlyStorage::open(Arc::new(disk.clone()), Path::new(ROOT)).unwrap();
    assert_eq!(follower.status(id(1)).unwrap(), store.status(id(1)));
    for _ in 0..2 {
        let store = open(&disk.crash(|_| false)).unwrap();
        let status = store.status(id(1)).unwrap();
        assert_eq!((status.tail.0, status.sealed), (10, true));
        assert_eq!(firsts(&store, 0, 10), [0, 2, 8]);
        assert!(matches!(put(&store, at(10, 10), 0), Err(StorageError::Sealed)));
        assert_eq!(put(&store, repair(10), 10).unwrap(), LogletPos(12));
        store.close().unwrap();
    }
}

/// N2, N4, N6: what a block holds is answered in the order in which it was asked for.
#[test]
fn t19_a_seal_among_stores_parts_them() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    let syncs = disk.syncs();
    let answers = in_one_block(
        &store,
        vec![
            putting(at(0, 0), 0),
            putting(at(2, 0), 2),
            putting(at(9, 0), 9),
            putting(at(0, 0), 0),
            sealing(),
            putting(at(2, 0), 2),
            putting(at(4, 0), 4),
            putting(repair(4), 4),
            putting(repair(4), 4),
            sealing(),
        ],
    );
    assert_eq!(disk.syncs() - syncs, 1, "all of it in one block");
    let told: Vec<String> = answers
        .iter()
        .map(|outcome| match outcome {
            Ok(tail) => tail.to_string(),
            Err(e) => e.to_string(),
        })
        .collect();
    let sealed = StorageError::Sealed.to_string();
    // No store is answered with a tail that a repair raised after the seal (N3), and a gap with none
    // that the block could still lose.
    let gap = StorageError::Gap { tail: LogletPos(0) }.to_string();
    assert_eq!(told, ["2", "4", &gap, "4", "6", &sealed, &sealed, "6", "6", "6"]);
    assert!(store.status(id(1)).unwrap().sealed);
}

/// A sequencer at full speed, and a seal at any moment: what was answered lies below what the seal
/// says, nothing comes after it, and all of it is there.
#[test]
fn t16_seal_under_load() {
    let disk = SimDisk::new();
    let options = StorageOptions { background: true, ..small() };
    let store = Storage::open(Arc::new(disk.clone()), Path::new(ROOT), options).unwrap();
    for segment in 1..=40 {
        create(&store, segment, 0).unwrap();
        let (tx, rx) = mpsc::channel();
        let (highest, tail) = std::thread::scope(|scope| {
            let again = &store;
            let sealer = scope.spawn(move || {
                // When so many answers are there, and not at a time.
                assert_eq!(rx.iter().take(segment as usize).count(), segment as usize);
                seal(again, segment).unwrap()
            });
            let highest = Arc::new(Mutex::new(LogletPos(0)));
            for first in (0..).step_by(2).map(LogletPos) {
                let (highest, tx) = (Arc::clone(&highest), tx.clone());
                let place = Place::Store { first, known_tail: LogletPos(0) };
                let done: Done = Box::new(move |outcome| {
                    let Ok(tail) = outcome else { return };
                    let _ = tx.send(());
                    let mut highest = highest.lock().unwrap();
                    assert!(tail > *highest, "answers come in order");
                    *highest = tail;
                });
                store.append(id(segment), place, batch(1, first.0, &[9, 9]), done);
                if store.status(id(segment)).unwrap().sealed {
                    break;
                }
            }
            let tail = sealer.join().unwrap();
            // Whatever was asked for before this is answered.
            assert_eq!(seal(&store, segment).unwrap(), tail);
            (*highest.lock().unwrap(), tail)
        });
        assert_eq!(highest, tail);
        let status = store.status(id(segment)).unwrap();
        assert_eq!((status.tail, status.sealed), (tail, true));
        assert_eq!(read_all(&store, segment, 0, 1 << 20).len() as u64, tail.0);
    }
}

/// Random requests in random blocks answer what the pure rules say, one after the other, and what is
/// there afterwards, and after the machine stopped, is what those rules wrote.
#[test]
fn t10_random_blocks_follow_the_rules() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    for _ in 0..60 {
        let mut disk = SimDisk::new();
        let mut store = open(&disk).unwrap();
        create(&store, 1, 0).unwrap();
        let mut log = LocalLog::new(LogletPos(0));
        let mut written: Vec<u64> = Vec::new();
        for _ in 0..12 {
            let (before, mut asks, mut expected) = (log, Vec::<Ask>::new(), Vec::new());
            for _ in 0..=below(8) {
                let first = LogletPos((log.tail.0 + below(7)).saturating_sub(3) / 2 * 2);
                let known_tail = LogletPos(log.tail.0.saturating_sub(2) + below(6));
                let place = match below(10) {
                    0 if below(4) == 0 => {
                        asks.push(sealing());
                        log.seal();
                        expected.push(Err(None));
                        continue;
                    }
                    0..=6 => Place::Store { first, known_tail },
                    _ => Place::Repair(first),
                };
                let verdict = match place {
                    Place::Repair(first) => log.repair(first, 2),
                    _ => log.store(first, 2, known_tail),
                };
                if verdict == Ok(Verdict::Write) {
                    log.written(first.plus(2));
                    written.push(first.0);
                }
                asks.push(putting(place, first.0));
                expected.push(verdict.map(|_| log.tail).map_err(Some));
            }
            let answers = in_one_block(&store, asks);
            for (answer, expected) in answers.into_iter().zip(expected) {
                match (answer, expected) {
                    (Ok(tail), Ok(expected)) => assert_eq!(tail, expected),
                    (Ok(tail), Err(None)) => assert_eq!(tail, log.tail, "a seal"),
                    (Err(StorageError::Sealed), Err(Some(Refusal::Sealed)))
                    | (Err(StorageError::NotSealed), Err(Some(Refusal::NotSealed))) => {}
                    (Err(StorageError::Gap { tail }), Err(Some(Refusal::Gap { .. })))
                    | (Err(StorageError::Conflict { tail }), Err(Some(Refusal::Conflict { .. }))) =>
                    {
                        assert_eq!(tail, before.tail);
                    }
                    other => panic!("{other:?}"),
                }
            }
            if below(3) == 0 {
                let keep_from = LogletPos(below(log.tail.0 + 3));
                let kept = wait(|done| store.trim_beyond(id(1), keep_from, done));
                assert_eq!(kept.unwrap(), log.trim(keep_from));
            }
            if below(3) == 0 {
                let after = disk.crash(|_| below(2) == 0);
                drop(store);
                (store, disk) = (open(&after).unwrap(), after);
            }
            assert_eq!(store.inner.loglet(id(1)).unwrap().state().local_log(), log);
            let there = store.read(id(1), log.trim, log.tail, 1 << 20).unwrap();
            assert!(there.iter().all(|b| b.batch.header().first_seq == b.first.0));
            let kept = written.iter().copied().filter(|first| first + 2 > log.trim.0);
            assert!(there.iter().map(|b| b.first.0).eq(kept));
        }
    }
}

/// N5: neither bit nor batch is answered before the sync, and none of it when the sync fails.
#[test]
fn t12_a_failed_sync_answers_no_store() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    put(&store, at(0, 0), 0).unwrap();
    disk.fail_sync(disk.syncs() + 1);
    let requests = vec![putting(at(2, 0), 2), putting(at(2, 0), 2), sealing()];
    for answer in in_one_block(&store, requests) {
        assert!(matches!(answer, Err(StorageError::InDoubt(_))), "{answer:?}");
    }
    assert!(matches!(put(&store, at(0, 0), 0), Err(StorageError::Poisoned(_))));
}

/// A loglet whose bytes do not go in takes none of the block's batches, and says `Ok` to no
/// duplicate of one of them.
#[test]
fn t12_a_full_disk_answers_no_store() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    create(&store, 1, 0).unwrap();
    put(&store, at(0, 0), 0).unwrap();
    disk.set_room(Some(0));
    let requests =
        vec![putting(at(2, 0), 2), putting(at(2, 0), 2), putting(at(9, 0), 9), sealing()];
    let answers = in_one_block(&store, requests);
    assert!(
        answers[..2].iter().all(|o| matches!(o, Err(StorageError::DiskFull(_)))),
        "{answers:?}"
    );
    assert!(matches!(answers[2], Err(StorageError::Gap { tail: LogletPos(2) })), "{answers:?}");
    assert_eq!(*answers[3].as_ref().unwrap(), LogletPos(2));
    disk.set_room(None);
    assert_eq!(put(&store, repair(2), 2).unwrap(), LogletPos(4));
    assert_eq!(firsts(&store, 0, 4), [0, 2]);
    assert!(store.inner.committer.lock().unwrap().writers.values().all(BTreeMap::is_empty));
}

#[test]
fn a_loglet_is_born_in_one_life_of_the_store() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    assert!(!store.born_here(id(1)));
    create(&store, 1, 0).unwrap();
    assert!(store.born_here(id(1)));
    create(&store, 1, 0).unwrap();
    store.close().unwrap();
    let store = open(&disk).unwrap();
    assert!(!store.born_here(id(1)));
    create(&store, 1, 0).unwrap();
    assert!(!store.born_here(id(1)), "it was there already");
    create(&store, 2, 0).unwrap();
    assert!(store.born_here(id(2)));
    retire(&store, &[], 3).unwrap();
    assert!(!store.born_here(id(2)));
}

/// Rises with starts and journal files, is never shown before it is durable, and an older image of
/// the disk does not know what was seen.
#[test]
fn the_generation_tells_an_older_image() {
    let disk = SimDisk::new();
    let store = open(&disk).unwrap();
    assert!(store.was_at(0) && store.was_at(store.generation()));
    assert!(!store.was_at(store.generation() + 1));
    create(&store, 1, 0).unwrap();
    let first = store.generation();
    let image = disk.crash(|_| true);
    let mut seen = vec![first];
    for seq in 0..40 {
        append(&store, 1, batch(1, seq, &[3000])).unwrap();
        let now = store.generation();
        if now == *seen.last().unwrap() {
            continue;
        }
        assert!(now > *seen.last().unwrap());
        seen.push(now);
        // At this very moment: whatever the machine loses, the disk knows it.
        assert!(open(&disk.crash(|_| false)).unwrap().was_at(now));
    }
    assert!(seen.len() > 3, "{} journal files", seen.len() - 1);
    for later in [disk.crash(|_| false), disk.kill()] {
        let later = open(&later).unwrap();
        assert!(seen.iter().all(|seen| later.was_at(*seen)));
        assert!(later.generation() > *seen.last().unwrap());
    }
    // However often it is started, killed and closed before anybody is asked.
    let mut image = image;
    for close in [false, true, false] {
        let restored = open(&image).unwrap();
        assert!(restored.was_at(first) && seen[1..].iter().all(|seen| !restored.was_at(*seen)));
        if close {
            restored.close().unwrap();
        }
        image = image.crash(|_| true);
    }
    store.close().unwrap();
    let store = open(&disk).unwrap();
    assert!(seen.iter().all(|seen| store.was_at(*seen)) && store.was_at(store.generation()));
}

/// Two copies of one directory go on with generations of their own, and neither knows the other's.
#[test]
fn copies_of_a_disk_do_not_know_each_others_generations() {
    let disk = SimDisk::new();
    let before = open(&disk).unwrap().generation();
    let (one, two) = (open(&disk.kill()).unwrap(), open(&disk.kill()).unwrap());
    assert!(one.was_at(before) && two.was_at(before));
    assert!(!one.was_at(two.generation()) && !two.was_at(one.generation()));
}

/// Of very many starts the latest are told apart, and older ones are not taken for another's.
#[test]
fn a_disk_that_was_started_very_often_knows_its_first_generation() {
    let disk = SimDisk::new();
    let first = open(&disk).unwrap().generation();
    for _ in 0..150 {
        drop(open(&disk).unwrap());
    }
    assert!(open(&disk).unwrap().was_at(first));
}

/// Catch-up reads of several threads at once use few buffers, over and over.
#[test]
fn buffers_are_used_again() {
    let disk = SimDisk::new();
    let options = StorageOptions {
        journal_file_bytes: 8 << 20,
        data_file_bytes: 64 << 20,
        background: true,
        ..small()
    };
    let store = Storage::open(Arc::new(disk), Path::new(ROOT), options).unwrap();
    create(&store, 1, 0).unwrap();
    for seq in 0..60 {
        append(&store, 1, batch(1, seq, &[100_000])).unwrap();
    }
    let read = || {
        let mut at = LogletPos(0);
        while at.0 < 60 {
            let got = store.read(id(1), at, LogletPos(60), 2 << 20).unwrap();
            // Memory is bounded by what was asked for: what lies in the buffers beside it counts.
            let bytes: usize = got.iter().map(|b| b.encoded_len()).sum();
            assert!(bytes <= 2 << 20 && got.len() >= 10.min(60 - at.0 as usize), "{}", got.len());
            assert!(got.iter().all(|b| b.batch == batch(1, b.first.0, &[100_000])));
            at = got.last().unwrap().end();
        }
    };
    std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(read))));
    read();
    assert!((2..=6).contains(&store.inner.chunks.waiting()), "{}", store.inner.chunks.waiting());
}
