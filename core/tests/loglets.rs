//! The contract of a loglet, on every loglet that this crate has; and proof that the suite finds bugs.

use std::sync::Arc;

use virtuallog::LogletId;
use virtuallog::loglet::{Ack, LogletError, LogletProvider};
use virtuallog::loglets::local::LocalProvider;
use virtuallog::loglets::memory::MemoryProvider;
use virtuallog::protocol::{BatchBuilder, LogId, LogletPos, WriterId};
use virtuallog::storage::{RealDisk, Storage, StorageOptions};
use virtuallog::testing::conformance::{CHECKS, Subject, Verdict, loglet_suite};
use virtuallog::testing::gappy;
use virtuallog::testing::planted::{Plant, PlantedProvider};

/// For what lives in memory, to be opened again is to be found again.
async fn honest(provider: Arc<dyn LogletProvider>) {
    let subject = Subject::new(provider.clone(), "").expect("a plan");
    let subject = subject.reopening(move || Box::pin(std::future::ready(provider.clone())));
    if let Err(complaints) = loglet_suite(&subject).await {
        panic!("the contract is broken\n{complaints}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory() {
    honest(Arc::new(MemoryProvider::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gappy() {
    honest(Arc::new(gappy::provider())).await;
}

/// Stores what it does not acknowledge, which is allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn zombies() {
    honest(Arc::new(PlantedProvider::new(Plant::Zombies))).await;
}

/// On a real disk, closed and opened again in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn local() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("store");
    let open = move || -> Arc<dyn LogletProvider> {
        let storage = Storage::open(Arc::new(RealDisk), &path, StorageOptions::default());
        Arc::new(LocalProvider::new(storage.expect("opens")))
    };
    let subject = Subject::new(open(), "").expect("a plan");
    let subject = subject.reopening(move || Box::pin(std::future::ready(open())));
    if let Err(complaints) = loglet_suite(&subject).await {
        panic!("the contract is broken\n{complaints}");
    }
}

/// Enough for a race of a few instructions to be met.
const ROUNDS_TO_FIND: u64 = 200;

async fn run(check: &str, plant: Plant) -> Verdict {
    let subject = Subject::new(Arc::new(PlantedProvider::new(plant)), "").expect("a plan");
    let subject = subject.rounds(ROUNDS_TO_FIND);
    let (_, check) = CHECKS.iter().find(|(name, _)| *name == check).expect("a check of that name");
    check(&subject).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_planted_bug_is_found() {
    for (plant, check) in Plant::BUGS {
        let verdict = run(check, *plant).await;
        assert!(verdict.is_err(), "{plant:?} was not found by {check}");
    }
}

/// Some break so much that a single client notices; the racing clients alone have to as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_clients_find_bugs_without_expectations() {
    for (plant, invariant) in [
        (Plant::AckBeforeStored, "I1: "),
        (Plant::PositionsReused, "L10: "),
        (Plant::StaleTail, "I5"),
    ] {
        let complaint = run("racing_clients", plant).await.expect_err("found");
        assert!(complaint.contains(invariant), "{plant:?}: {complaint}");
    }
    let complaint = run("l8_l9_racing_clients_and_seals", Plant::SealLetsOneThrough).await;
    let complaint = complaint.expect_err("found");
    assert!(
        ["L2", "L8", "L9", "L10"].iter().any(|clause| complaint.contains(clause)),
        "{complaint}"
    );
}

/// A loglet that keeps its word only until it is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_does_not_survive_is_found() {
    let subject = Subject::new(Arc::new(MemoryProvider::new()), "").expect("a plan");
    let subject = subject.reopening(|| {
        let forgot: Arc<dyn LogletProvider> = Arc::new(MemoryProvider::new());
        Box::pin(std::future::ready(forgot))
    });
    let complaint = loglet_suite(&subject).await.expect_err("found");
    assert!(complaint.starts_with("l1_everything_is_there_after_reopening"), "{complaint}");
    assert!(!complaint.contains("\n\n"), "and nothing else: {complaint}");
}

#[tokio::test]
async fn an_append_that_is_dropped_is_in_doubt() {
    let (done, outcome) = std::sync::mpsc::channel();
    drop(Ack::new(move |outcome| done.send(outcome).expect("somebody listens")));
    assert!(matches!(outcome.recv(), Ok(Err(LogletError::InDoubt(_)))));
}

/// An answer may append again at once: no lock is held while it is given.
#[tokio::test]
async fn a_memory_loglet_answers_without_a_lock() {
    let provider = MemoryProvider::new();
    let id = LogletId { log: LogId(1), segment: 0 };
    let config = provider.plan("").expect("a plan");
    let loglet = provider.create(id, &config, LogletPos(0)).await.expect("made");
    let batch = |seq| {
        let mut builder = BatchBuilder::with_capacity(8);
        builder.push(b"entry");
        builder.finish(WriterId(1), seq, 0)
    };
    let (done, outcome) = std::sync::mpsc::channel();
    let (again, second) = (loglet.clone(), batch(1));
    loglet.append(
        batch(0),
        Ack::new(move |_| {
            let ack = Ack::new(move |outcome| done.send(outcome).expect("somebody listens"));
            again.append(second, ack);
        }),
    );
    assert!(matches!(outcome.recv(), Ok(Ok(LogletPos(1)))));
}
