//! Every crash there is: each script is stopped at each of its disk operations, with each of many
//! subsets of what was not synced, and what is left is opened and compared with what was promised.
//!
//! Promised is: what was answered is there, at its place, with its bytes; nothing is served that was
//! never given; opening again changes nothing; and the store goes on. Seeds are fixed.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use virtuallog::protocol::{Batch, BatchBuilder, LogId, LogletId, LogletPos, WriterId};
use virtuallog::storage::{Identity, Place, PlantedBug, Storage, StorageError, StorageOptions};
use virtuallog::testing::simdisk::SimDisk;

const ROOT: &str = "/store";
const LOG: LogId = LogId(0xfeed);

fn options(planted: Option<PlantedBug>) -> StorageOptions {
    StorageOptions {
        journal_file_bytes: 24 << 10,
        journal_files_max: 3,
        data_file_bytes: 9 << 10,
        index_every_bytes: 1 << 10,
        open_files_max: 4,
        create: true,
        background: false,
        storage_id: Some(0x5eed),
        told: None,
        planted,
    }
}

fn id(segment: u32) -> LogletId {
    LogletId { log: LOG, segment }
}

/// One step of a script.
#[derive(Clone, Copy, Debug)]
enum Step {
    Create(u32, u64),
    /// Entry bytes, entries.
    Append(u32, usize, u32),
    /// Several appends and a seal that share one block.
    Burst(u32, u32),
    Seal(u32),
    Trim(u32, u64),
    Retire(&'static [u32], u32),
    /// Of a sequencer: first position, known tail, entry bytes, entries.
    Store(u32, u64, u64, usize, u32),
    /// First position, entry bytes, entries.
    Repair(u32, u64, usize, u32),
    /// Stores, a seal, a store that comes too late and a repair, in one block.
    Race(u32, u32),
    /// Says whose disk it is.
    Identify,
    /// A generation that another node showed.
    Peer(u32, u64),
    Reopen,
}

use Step::{
    Append, Burst, Create, Identify, Peer, Race, Reopen, Repair, Retire, Seal, Store, Trim,
};

const SCRIPTS: &[&[Step]] = &[
    // Life of one loglet: rolls, journal files used again, trims with holes, a seal.
    &[
        Create(1, 0),
        Append(1, 100, 3),
        Append(1, 2500, 1),
        Append(1, 2500, 1),
        Append(1, 2500, 1),
        Append(1, 2500, 1),
        Append(1, 300, 2),
        Trim(1, 4),
        Append(1, 2500, 1),
        Append(1, 2500, 1),
        Trim(1, 8),
        Append(1, 900, 2),
        Reopen,
        Append(1, 900, 2),
        Append(1, 2500, 1),
        Seal(1),
        Trim(1, 100),
    ],
    // Loglets come and go; the second is created where the first was sealed.
    &[
        Create(1, 10),
        Append(1, 600, 2),
        Burst(1, 3),
        Create(2, 15),
        Append(2, 600, 3),
        Retire(&[2], 2),
        Append(2, 2000, 1),
        Create(3, 0),
        Append(3, 10, 10),
        Reopen,
        Append(3, 3000, 1),
        Append(2, 2000, 1),
        Append(3, 3000, 1),
        Seal(2),
        Retire(&[], 3),
        Append(3, 3000, 1),
        Append(3, 5000, 1),
        Trim(3, 12),
    ],
    // More loglets than open files, a block larger than a journal file.
    &[
        Create(1, 0),
        Create(2, 0),
        Create(3, 0),
        Append(1, 400, 1),
        Append(2, 400, 2),
        Append(3, 400, 3),
        Create(4, 0),
        Create(5, 0),
        Append(4, 30_000, 1),
        Append(5, 1, 1),
        Append(1, 400, 1),
        Seal(5),
        Burst(2, 4),
        Append(1, 9_000, 1),
        Trim(4, 1),
        Reopen,
        Append(3, 700, 1),
        Retire(&[3, 4], 5),
        Append(4, 20_000, 1),
        Reopen,
        Append(4, 10, 1),
    ],
    // A LogServer: stores that pass something over, seals among stores, repairs after them.
    &[
        Create(1, 0),
        Store(1, 0, 0, 700, 2),
        Store(1, 2, 0, 2500, 1),
        Identify,
        Store(1, 10, 10, 2500, 1),
        Peer(2, 5),
        Store(1, 11, 10, 2500, 1),
        Create(2, 0),
        Race(1, 3),
        Repair(1, 20, 900, 2),
        Store(2, 5, 5, 3000, 2),
        Peer(2, 9),
        Repair(1, 40, 3000, 1),
        Reopen,
        Repair(1, 41, 2500, 1),
        Trim(1, 12),
        Store(2, 7, 5, 2500, 2),
        Race(2, 2),
        Peer(3, 1),
        Trim(1, 41),
        Repair(2, 30, 100, 1),
        Retire(&[1], 2),
        Repair(1, 42, 2500, 2),
    ],
];

const IDENTITY: Identity = Identity { cluster: 0xc1, node: 1 };
const PEER_STORAGE: u128 = 0xd15c;

/// What a loglet was told and what it answered.
#[derive(Clone, Default)]
struct Loglet {
    base: u64,
    created: bool,
    /// First position and bytes of what was answered.
    acked: BTreeMap<u64, Vec<u8>>,
    /// Everything that was given, at the position it would have.
    given: BTreeMap<u64, Vec<u8>>,
    tail: u64,
    sealing: bool,
    sealed: bool,
    trim_asked: u64,
    trim: u64,
}

#[derive(Clone, Default)]
struct Promised {
    loglets: BTreeMap<u32, Loglet>,
    retire_asked: BTreeSet<u32>,
    retired: BTreeSet<u32>,
    bound: u32,
    seq: BTreeMap<u32, u64>,
    /// Every generation that was shown.
    generations: BTreeSet<u64>,
    identity_asked: bool,
    identity_set: bool,
    /// By node: what was told, and what was remembered.
    peers: BTreeMap<u32, (u64, u64)>,
}

fn batch(segment: u32, seq: u64, bytes: usize, count: u32) -> Batch {
    let mut builder = BatchBuilder::with_capacity(bytes);
    for i in 0..u64::from(count) {
        let mut entry = vec![(seq + i) as u8 | 1; bytes];
        entry[0] = segment as u8;
        builder.push(&entry);
    }
    builder.finish(WriterId(9), seq, 0)
}

type Shared = Arc<Mutex<Promised>>;

/// Gives a batch to the store and notes what becomes of it. `place` is asked with the tail as it will
/// be when the store comes to it.
fn append(
    store: &Storage,
    promised: &Shared,
    (segment, bytes, count): (u32, usize, u32),
    place: impl FnOnce(u64) -> Place,
) {
    let (place, at, batch) = {
        let mut promised = promised.lock().unwrap();
        let seq = promised.seq.entry(segment).or_default();
        let batch = batch(segment, *seq, bytes, count);
        *seq += u64::from(count);
        let loglet = promised.loglets.entry(segment).or_default();
        let place = place(loglet.tail);
        let at = match place {
            Place::Tail => loglet.tail,
            Place::At(first) | Place::Repair(first) | Place::Store { first, .. } => first.0,
        };
        loglet.given.insert(at, batch.as_bytes().to_vec());
        loglet.tail = at + u64::from(count);
        (place, at, batch)
    };
    let (told, promised) = (batch.as_bytes().to_vec(), Arc::clone(promised));
    let answer = if place == Place::Tail { at } else { at + u64::from(count) };
    store.append(
        id(segment),
        place,
        batch,
        Box::new(move |outcome| match outcome {
            Ok(position) => {
                let mut promised = promised.lock().unwrap();
                let loglet = promised.loglets.get_mut(&segment).unwrap();
                assert_eq!((position.0, loglet.given.get(&at)), (answer, Some(&told)));
                loglet.acked.insert(at, told);
            }
            Err(StorageError::InDoubt(_) | StorageError::Poisoned(_)) => {}
            // Refused for sure, since it came after a seal, or since the machine stopped while a data
            // file was written: must never show.
            Err(_) => {
                let mut promised = promised.lock().unwrap();
                let given = &mut promised.loglets.get_mut(&segment).unwrap().given;
                if given.get(&at) == Some(&told) {
                    given.remove(&at);
                }
            }
        }),
    );
}

/// The stores of a sequencer, one after the other, while somebody seals.
fn race(store: &Storage, promised: &Shared, segment: u32, count: u32) {
    let behind = |tail| Place::Store { first: LogletPos(tail), known_tail: LogletPos(0) };
    for _ in 0..count {
        append(store, promised, (segment, 50, 1), behind);
    }
    step_one(store, promised, Seal(segment));
    let tail = promised.lock().unwrap().loglets[&segment].tail;
    append(store, promised, (segment, 60, 1), behind);
    append(store, promised, (segment, 70, 1), |_| Place::Repair(LogletPos(tail)));
}

/// What `work` asks for shares one block: it runs in a completion, and so while its caller leads.
fn in_one_block(
    store: &Arc<Storage>,
    segment: u32,
    work: impl FnOnce(&Arc<Storage>) + Send + 'static,
) {
    let again = Arc::clone(store);
    store.trim(id(segment), LogletPos(0), Box::new(move |_| work(&again)));
}

fn step(store: &Arc<Storage>, promised: &Shared, step: Step) {
    let shared = Arc::clone(promised);
    match step {
        Burst(segment, count) => in_one_block(store, segment, move |store| {
            for _ in 0..count {
                append(store, &shared, (segment, 50, 1), |_| Place::Tail);
            }
            step_one(store, &shared, Seal(segment));
        }),
        Race(segment, count) => {
            in_one_block(store, segment, move |store| race(store, &shared, segment, count));
        }
        one => step_one(store, promised, one),
    }
    let mut promised = promised.lock().unwrap();
    promised.generations.insert(store.generation());
}

/// A step that is one request.
fn step_one(store: &Storage, promised: &Shared, step: Step) {
    let answer = |then: fn(&mut Promised, u32, u64), segment: u32| {
        let promised = Arc::clone(promised);
        Box::new(move |outcome: Result<LogletPos, StorageError>| {
            if let Ok(position) = outcome {
                then(&mut promised.lock().unwrap(), segment, position.0);
            }
        })
    };
    match step {
        Create(segment, base) => {
            {
                let mut promised = promised.lock().unwrap();
                let loglet = promised.loglets.entry(segment).or_default();
                (loglet.base, loglet.tail) = (base, base);
                (loglet.trim, loglet.trim_asked) = (base, base);
            }
            let then = |p: &mut Promised, s: u32, _| p.loglets.get_mut(&s).unwrap().created = true;
            store.create(id(segment), LogletPos(base), answer(then, segment));
        }
        Append(segment, bytes, count) => {
            append(store, promised, (segment, bytes, count), |_| Place::Tail);
        }
        Store(segment, first, known_tail, bytes, count) => {
            let (first, known_tail) = (LogletPos(first), LogletPos(known_tail));
            let place = Place::Store { first, known_tail };
            append(store, promised, (segment, bytes, count), |_| place);
        }
        Repair(segment, first, bytes, count) => {
            append(store, promised, (segment, bytes, count), |_| Place::Repair(LogletPos(first)));
        }
        Seal(segment) => {
            promised.lock().unwrap().loglets.get_mut(&segment).unwrap().sealing = true;
            let then = |p: &mut Promised, s: u32, _| p.loglets.get_mut(&s).unwrap().sealed = true;
            store.seal(id(segment), answer(then, segment));
        }
        Trim(segment, to) => {
            let mut told = promised.lock().unwrap();
            let loglet = told.loglets.get_mut(&segment).unwrap();
            loglet.trim_asked = loglet.trim_asked.max(to.min(loglet.tail));
            drop(told);
            let then = |p: &mut Promised, s: u32, kept: u64| {
                let loglet = p.loglets.get_mut(&s).unwrap();
                loglet.trim = loglet.trim.max(kept);
            };
            store.trim(id(segment), LogletPos(to), answer(then, segment));
        }
        Retire(live, bound) => {
            let mut told = promised.lock().unwrap();
            let dead = told.loglets.keys().copied().filter(|s| *s < bound && !live.contains(s));
            told.retire_asked = told.retire_asked.iter().copied().chain(dead).collect();
            drop(told);
            let then = |p: &mut Promised, bound: u32, _| {
                p.retired = p.retire_asked.clone();
                p.bound = bound;
            };
            store.retire(LOG, live.to_vec(), bound, answer(then, bound));
        }
        Identify => {
            promised.lock().unwrap().identity_asked = true;
            let set = store.set_identity(IDENTITY).is_ok();
            promised.lock().unwrap().identity_set |= set;
        }
        Peer(node, generation) => {
            promised.lock().unwrap().peers.entry(node).or_default().0 = generation;
            if let Ok(highest) = store.remember_peer(node, PEER_STORAGE, generation) {
                promised.lock().unwrap().peers.get_mut(&node).unwrap().1 = highest;
            }
        }
        Burst(..) | Race(..) | Reopen => unreachable!("done by the callers"),
    }
}

fn open(
    disk: &SimDisk,
    planted: Option<PlantedBug>,
) -> Result<Arc<Storage>, virtuallog::error::Error> {
    Storage::open(Arc::new(disk.clone()), Path::new(ROOT), options(planted))
}

/// Runs a script until its end or until the disk stops.
fn run(script: &[Step], disk: &SimDisk, planted: Option<PlantedBug>) -> Promised {
    let promised = Shared::default();
    let begin = || {
        let store = open(disk, planted).ok()?;
        promised.lock().unwrap().generations.insert(store.generation());
        Some(store)
    };
    let mut store = begin();
    for next in script {
        let Some(running) = &store else { break };
        match next {
            Reopen => {
                let _ = running.close();
                store = begin();
            }
            other => step(running, &promised, *other),
        }
    }
    if let Some(store) = store {
        let _ = store.close();
    }
    let promised = promised.lock().unwrap();
    promised.clone()
}

/// What is in the store, or how it breaks the promise.
fn check(store: &Storage, promised: &Promised) -> Result<(), String> {
    let now = store.generation();
    if let Some(shown) = promised.generations.iter().find(|g| !store.was_at(**g) || now <= **g) {
        return Err(format!("generation {shown} was shown, and {now} does not know it"));
    }
    match store.identity() {
        None if !promised.identity_set => {}
        Some(IDENTITY) if promised.identity_asked => {}
        other => return Err(format!("identity {other:?}")),
    }
    for (node, (told, remembered)) in &promised.peers {
        let highest = store.remember_peer(*node, PEER_STORAGE, 0).map_err(|e| e.to_string())?;
        if !(*remembered..=*told).contains(&highest) {
            return Err(format!("node {node} showed {told}, {highest} is remembered"));
        }
    }
    let there: BTreeSet<u32> = store.loglets().iter().map(|id| id.segment).collect();
    for (segment, loglet) in &promised.loglets {
        let gone = promised.retired.contains(segment);
        let may_be_gone = promised.retire_asked.contains(segment);
        let Some(status) = store.status(id(*segment)) else {
            if loglet.created && !may_be_gone {
                return Err(format!("loglet {segment} is gone"));
            }
            continue;
        };
        if gone {
            return Err(format!("loglet {segment} was retired and is there"));
        }
        if status.base.0 != loglet.base {
            return Err(format!("loglet {segment} has another base"));
        }
        if (loglet.sealed && !status.sealed) || (status.sealed && !loglet.sealing) {
            return Err(format!("loglet {segment} sealed: {}", status.sealed));
        }
        if !(loglet.trim..=loglet.trim_asked).contains(&status.trim.0) {
            return Err(format!("loglet {segment} trimmed to {}", status.trim));
        }
        check_entries(store, *segment, loglet, status.trim.0, status.tail.0)?;
    }
    match there.iter().find(|segment| !promised.loglets.contains_key(segment)) {
        Some(segment) => Err(format!("loglet {segment} was never created")),
        None => Ok(()),
    }
}

fn check_entries(
    store: &Storage,
    segment: u32,
    loglet: &Loglet,
    trim: u64,
    tail: u64,
) -> Result<(), String> {
    let (mut at, mut found) = (trim, BTreeMap::new());
    while at < tail {
        let got = store
            .read(id(segment), LogletPos(at), LogletPos(tail), 3000)
            .map_err(|e| format!("loglet {segment} at {at}: {e}"))?;
        let Some(last) = got.last() else { break };
        at = last.end().0;
        for stamped in &got {
            found.insert(stamped.first.0, stamped.batch.as_bytes().to_vec());
        }
    }
    if at < tail {
        return Err(format!("loglet {segment} ends at {at} and says {tail}"));
    }
    for (first, bytes) in &found {
        if loglet.given.get(first) != Some(bytes) {
            return Err(format!("loglet {segment} at {first}: never given"));
        }
    }
    // A batch that reaches over the trim point is kept.
    let kept = |first: u64, bytes: &[u8]| {
        first + u64::from(u32::from_le_bytes(bytes[40..44].try_into().unwrap())) > trim
    };
    let missing =
        |(first, bytes): &(&u64, &Vec<u8>)| kept(**first, bytes) && !found.contains_key(first);
    match loglet.acked.iter().find(missing) {
        Some((first, _)) => Err(format!("loglet {segment}: acknowledged {first} is gone")),
        None => Ok(()),
    }
}

/// What can be seen of a store, to compare.
fn picture(store: &Storage) -> Vec<String> {
    let of = |id: &LogletId| {
        let status = store.status(*id).unwrap();
        let report = store.verify(*id, &mut |_| {});
        format!("{id} {status:?} {report:?}")
    };
    store.loglets().iter().map(of).collect()
}

fn check_crash(crashed: &SimDisk, promised: &Promised, thorough: bool) -> Result<(), String> {
    let store = open(crashed, None).map_err(|e| format!("open: {e:?}"))?;
    check(&store, promised)?;
    if !thorough {
        return Ok(());
    }
    let before = picture(&store);
    // Killed right after its recovery, and the machine with it.
    let again = crashed.crash(|_| false);
    drop(store);
    let store = open(&again, None).map_err(|e| format!("open again: {e:?}"))?;
    if picture(&store) != before {
        return Err("recovery of what was recovered is something else".to_owned());
    }
    let shared = Shared::default();
    let segment = 1000;
    step(&store, &shared, Create(segment, 7));
    step(&store, &shared, Append(segment, 100, 2));
    let after = shared.lock().unwrap().clone();
    match after.loglets[&segment].acked.len() {
        1 => check_entries(&store, segment, &after.loglets[&segment], 7, 9),
        _ => Err("the store takes no more appends".to_owned()),
    }
}

/// A small generator of random bits (xorshift), so that seeds mean the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Subsets of `n` operations, the first of which are `names`: none, all, all but the names, each one
/// alone, all but each one, and some at random.
fn subsets(n: usize, names: usize, random: &mut Random, singles_max: usize) -> Vec<Vec<bool>> {
    let mut all = vec![vec![false; n], vec![true; n], (0..n).map(|i| i >= names).collect()];
    let every = n.div_ceil(singles_max).max(1);
    let offset = random.next() as usize % every;
    for i in (offset..n).step_by(every) {
        let mut only = vec![false; n];
        only[i] = true;
        all.push(only);
        let mut but = vec![true; n];
        but[i] = false;
        all.push(but);
    }
    for density in [1, 1, 2, 2, 2, 2, 2, 3, 3, 3] {
        all.push((0..n).map(|_| random.next() % 4 < density).collect());
    }
    all
}

struct Tally {
    states: HashSet<u64>,
    stops: u64,
    failures: Vec<String>,
}

fn enumerate(planted: Option<PlantedBug>, failures_max: usize) -> Tally {
    let mut tally = Tally { states: HashSet::new(), stops: 0, failures: Vec::new() };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for (s, script) in SCRIPTS.iter().enumerate() {
        let whole = SimDisk::new();
        let promised = run(script, &whole, planted);
        let all_acked = promised
            .loglets
            .values()
            .all(|l| l.acked.len() == l.given.len() && !l.given.is_empty());
        assert!(all_acked, "script {s} is fine without a crash");
        for stop in 1..=whole.operations() {
            let disk = SimDisk::new();
            disk.stop_at(stop);
            let promised = run(script, &disk, planted);
            tally.stops += 1;
            for keep in subsets(disk.unsynced(), disk.unsynced_names(), &mut random, 40) {
                let crashed = disk.crash(|i| keep[i]);
                // The same disk after another stop can follow on other promises.
                if !tally.states.insert(crashed.fingerprint() ^ (stop << 40) ^ (s as u64) << 60) {
                    continue;
                }
                let thorough = random.next().is_multiple_of(4);
                if let Err(what) = check_crash(&crashed, &promised, thorough) {
                    let kept: Vec<usize> = (0..keep.len()).filter(|i| keep[*i]).collect();
                    tally.failures.push(format!("script {s}, stop {stop}, kept {kept:?}: {what}"));
                    if tally.failures.len() >= failures_max {
                        return tally;
                    }
                }
            }
        }
    }
    tally
}

#[test]
fn no_crash_breaks_a_promise() {
    let tally = enumerate(None, 5);
    assert!(tally.failures.is_empty(), "{:#?}", tally.failures);
    println!("{} crash states after {} stops", tally.states.len(), tally.stops);
    assert!(tally.states.len() >= 10_000, "only {} crash states", tally.states.len());
}

#[test]
fn planted_mistakes_are_seen() {
    for planted in [
        PlantedBug::AckBeforeSync,
        PlantedBug::NoDirSync,
        PlantedBug::SealNotSynced,
        PlantedBug::RecycleBeforeSync,
    ] {
        let tally = enumerate(Some(planted), 1);
        assert_eq!(tally.failures.len(), 1, "{planted:?} passes {} states", tally.states.len());
    }
}

/// A crash while a crash is being recovered from, again at every operation.
#[test]
fn a_crash_during_recovery_is_like_any_other() {
    let mut random = Random(42);
    let mut states = 0;
    for script in SCRIPTS {
        let whole = SimDisk::new();
        run(script, &whole, None);
        for stop in (1..=whole.operations()).step_by(11) {
            let disk = SimDisk::new();
            disk.stop_at(stop);
            let promised = run(script, &disk, None);
            let crashed = disk.crash(|_| random.next().is_multiple_of(2));
            let operations = {
                let trial = crashed.crash(|_| false);
                drop(open(&trial, None));
                trial.operations()
            };
            for stop in (1..=operations).step_by(3) {
                let second = crashed.crash(|_| false);
                second.stop_at(stop);
                drop(open(&second, None));
                for keep in [0, 2, 4] {
                    let third = second.crash(|_| random.next() % 4 < keep);
                    check_crash(&third, &promised, false).unwrap();
                    states += 1;
                }
            }
        }
    }
    assert!(states > 500, "only {states}");
}
