//! Owner and guest in one process: the contracts through the socket, and appends whose way is cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use virtuallog_protocol::{BatchBuilder, LogId, LogletId, LogletPos, WriterId};

use super::{Guest, GuestMetaStore, GuestProvider};
use crate::directory::Owned;
use crate::loglet::{Ack, Loglet, LogletError, LogletProvider};
use crate::testing::conformance::{Subject, loglet_suite};

async fn own(path: &std::path::Path) -> Owned {
    let path = path.to_owned();
    let owned = tokio::task::spawn_blocking(move || Owned::open(&path, true)).await;
    owned.expect("runs").expect("opens")
}

async fn close(owned: Owned) {
    tokio::task::spawn_blocking(|| owned.close()).await.expect("runs").expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_of_a_loglet_holds_through_the_socket() {
    let dir = tempfile::tempdir().expect("a directory");
    let owned = own(dir.path()).await;
    let guest = Guest::connect(dir.path()).await.expect("reached");
    let provider = Arc::new(GuestProvider::new(guest.clone()));
    let subject = Subject::new(provider, "").expect("a plan");
    if let Err(complaints) = loglet_suite(&subject).await {
        panic!("the contract is broken\n{complaints}");
    }
    guest.close().expect("closes");
    close(owned).await;
}

/// A loglet through a guest, and batches of one writer.
async fn loglet(guest: &Arc<Guest>) -> Arc<dyn Loglet> {
    let provider = GuestProvider::new(guest.clone());
    let id = LogletId { log: LogId(1), segment: 0 };
    let config = provider.plan("").expect("a plan");
    provider.create(id, &config, LogletPos(0)).await.expect("made")
}

type Told = tokio::sync::oneshot::Receiver<Result<LogletPos, LogletError>>;

fn append(loglet: &Arc<dyn Loglet>, writer: u128, seq: u64) -> Told {
    let mut builder = BatchBuilder::with_capacity(8);
    builder.push(&seq.to_le_bytes());
    let (tell, told) = tokio::sync::oneshot::channel();
    let ack = Ack::new(move |outcome| {
        let _ = tell.send(outcome);
    });
    loglet.append(builder.finish(WriterId(writer), seq, 0), ack);
    told
}

/// Every batch is in the loglet once, in its writer's order, where it was said to be.
async fn check(loglet: &Arc<dyn Loglet>, told: Vec<(u128, u64, LogletPos)>) {
    let told: BTreeSet<_> = told.into_iter().collect();
    let tail = loglet.check_tail().await.expect("a tail").position;
    assert_eq!(tail.0, told.len() as u64, "nothing twice and nothing lost");
    let (mut at, mut seen) = (LogletPos(0), BTreeMap::new());
    while at < tail {
        for stamped in loglet.read(at, tail, 1 << 20).await.expect("batches") {
            let header = *stamped.batch.header();
            let next = seen.entry(header.writer).or_insert(0);
            assert_eq!(header.first_seq, *next, "in order");
            *next += 1;
            let said = (header.writer.0, header.first_seq, stamped.first);
            assert!(told.contains(&said), "{said:?} was told otherwise");
            at = stamped.end();
        }
    }
}

/// The way is cut again and again under load, and the owner stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_loses_and_doubles_nothing() {
    const ROUNDS: u64 = 150;
    const BATCHES: u64 = 50;
    let dir = tempfile::tempdir().expect("a directory");
    let owned = own(dir.path()).await;
    let guest = Guest::connect(dir.path()).await.expect("reached");
    let loglet = loglet(&guest).await;
    let mut outcomes = Vec::new();
    for round in 0..ROUNDS {
        // New ones, of whom the owner knows nothing that would keep them in order.
        let writers = [2 * round + 1, 2 * round + 2].map(u128::from);
        let mut told = VecDeque::new();
        for seq in 0..BATCHES {
            told.extend(writers.map(|writer| (writer, seq, append(&loglet, writer, seq))));
            if seq == round % BATCHES {
                // Answered: the way is there, and what comes behind it is on it.
                let (writer, seq, told) = told.pop_front().expect("one");
                outcomes.push((writer, seq, told.await.expect("answered").expect("stored")));
            }
            if seq == (BATCHES + round % BATCHES) / 2 {
                owned.cut();
            }
        }
        for (writer, seq, told) in told {
            outcomes.push((writer, seq, told.await.expect("answered").expect("stored")));
        }
    }
    check(&loglet, outcomes).await;
    guest.close().expect("closes");
    close(owned).await;
}

/// One guest after the other becomes the owner, and what is under way goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_come_and_go_and_appends_go_on() {
    const GUESTS: u64 = 5;
    const BATCHES: u64 = 100;
    let dir = tempfile::tempdir().expect("a directory");
    let owned = own(dir.path()).await;
    let mut guests = Vec::new();
    for _ in 0..GUESTS {
        guests.push(Guest::connect(dir.path()).await.expect("reached"));
    }
    let last = guests.pop().expect("one");
    let loglet = loglet(&last).await;
    let mut told: Vec<_> = (0..BATCHES).map(|seq| (1, seq, append(&loglet, 1, seq))).collect();
    close(owned).await;
    for (round, guest) in (1..).zip(guests) {
        for seq in round * BATCHES..(round + 1) * BATCHES {
            told.push((1, seq, append(&loglet, 1, seq)));
        }
        let closing = tokio::task::spawn_blocking(move || guest.close());
        closing.await.expect("runs").expect("closes");
    }
    let mut outcomes = Vec::new();
    for (writer, seq, told) in told {
        let position = told.await.expect("answered").expect("stored");
        outcomes.push((writer, seq, position));
    }
    check(&loglet, outcomes).await;
    tokio::task::spawn_blocking(move || last.close()).await.expect("runs").expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn registers_are_written_through_the_socket() {
    use crate::metastore::{MetaError, MetaStore};
    let dir = tempfile::tempdir().expect("a directory");
    let owned = own(dir.path()).await;
    let guest = Guest::connect(dir.path()).await.expect("reached");
    let (store, other) = (GuestMetaStore::new(guest.clone()), GuestMetaStore::new(guest.clone()));
    let watching = tokio::spawn(async move { other.watch("a", 0).await });
    assert_eq!(store.put_if("a", Some("one".into()), 0).await.expect("written"), 1);
    assert_eq!(watching.await.expect("runs").expect("told").version, 1);
    let again = store.put_if("a", Some("two".into()), 0).await;
    assert!(matches!(again, Err(MetaError::Conflict { current }) if current.version == 1));
    assert_eq!(store.list().await.expect("listed"), ["a"]);
    owned.cut();
    assert_eq!(store.get("a").await.expect("got").value.as_deref(), Some(&b"one"[..]));
    close(owned).await;
    assert_eq!(store.put_if("a", None, 1).await.expect("written by ourselves"), 2);
    guest.close().expect("closes");
    let closed = store.get("a").await.expect_err("closed");
    assert!(matches!(closed, MetaError::Refused(error) if error.code().name() == "CLOSED"));
}
