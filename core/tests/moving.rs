//! Moving whole logs between stores, while they are used: directories, memory, clusters.
//!
//! What a move that is interrupted leaves behind is tested beside it (`relocate_tests.rs`).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::watch;
use virtuallog::server::{self, Roles, Server, ServerConfig};
use virtuallog::testing::history::{Final, Outcome, Recorder, What, check};
use virtuallog::{
    ErrorCode, Life, LogPos, MovePhase, MoveProgress, Start, Tail, VirtualLog, create, delete,
    logs, move_log,
};

/// Stores in directories.
struct Stores(TempDir);

impl Stores {
    fn new() -> Stores {
        Stores(tempfile::tempdir().expect("a temporary directory"))
    }

    fn url(&self, store: &str, name: &str) -> String {
        format!("file:{}/{store}/{name}", self.0.path().display())
    }
}

/// One server that is a cluster.
async fn cluster() -> (Server, TempDir) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = ServerConfig {
        data: dir.path().join("data"),
        listen: "127.0.0.1:0".into(),
        roles: Roles::default(),
        heartbeat: Duration::from_millis(50),
        suspect_after: Duration::from_millis(500),
        ..ServerConfig::default()
    };
    let server = Server::start(config).await.expect("a server");
    server::init(&[server.address().to_owned()]).await.expect("a cluster");
    server.ready().await.expect("it votes");
    (server, dir)
}

async fn open(url: &str) -> VirtualLog {
    VirtualLog::open(url).await.expect("opens")
}

async fn moved(src: &str, dst: &str) -> virtuallog::Chain {
    move_log(src, dst, false, |_| {}).await.expect("moves")
}

async fn fails<T: std::fmt::Debug>(call: impl Future<Output = virtuallog::Result<T>>) -> ErrorCode {
    call.await.expect_err("fails").code()
}

/// Position and payload of every entry, which is a number.
async fn all(log: &VirtualLog) -> Vec<(u64, u64)> {
    let first = log.first().await.expect("first");
    let mut reader = log.read(first, None).await.expect("read");
    let mut entries = Vec::new();
    while let Some(entry) = reader.next().await.expect("entry") {
        entries.push((entry.position.0, number(&entry.payload)));
    }
    entries
}

fn number(payload: &[u8]) -> u64 {
    std::str::from_utf8(payload).expect("text").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quiet_log_goes_to_another_directory_and_back() {
    let stores = Stores::new();
    let (here, there) = (stores.url("a", "log"), stores.url("b", "other"));
    let log = open(&here).await;
    for n in 0..300u64 {
        log.append(n.to_string()).await.expect("appended");
        if n % 100 == 50 {
            log.reconfig_extend("local", None).await.expect("swapped");
        }
    }
    log.prefix_trim(LogPos(7)).await.expect("trimmed");
    let before = all(&log).await;
    let id = log.chain().await.expect("a chain").log;
    let mut seen = Vec::new();
    let chain =
        move_log(&here, &there, false, |progress| seen.push(progress)).await.expect("moves");
    assert_eq!((chain.log, chain.moves, chain.life.clone()), (id, 1, Life::Open));
    assert!(chain.segments.iter().all(|segment| &*segment.config.name == "local"), "{chain:?}");
    let phases: Vec<MovePhase> = seen.iter().map(|progress| progress.phase).collect();
    assert!(phases.is_sorted_by_key(|phase| *phase as u8), "{phases:?}");
    let MoveProgress { segments_done, segments_total, bytes_done, .. } =
        *seen.last().expect("told");
    assert_eq!((segments_done, segments_total), (4, 4));
    assert!(bytes_done > 300, "{bytes_done}");
    // The handle and both names are the same log; the old store lists it no more.
    assert_eq!(all(&log).await, before);
    assert_eq!(log.chain().await.expect("a chain"), chain);
    assert_eq!(logs(&stores.url("a", "")).await.expect("lists"), [""; 0]);
    assert_eq!(logs(&stores.url("b", "")).await.expect("lists"), ["other"]);
    for name in [&here, &there] {
        let again = open(name).await;
        assert_eq!(all(&again).await, before);
        again.close().await.expect("closes");
    }
    assert_eq!(moved(&here, &there).await, chain, "again does nothing");
    // And back, under the old name.
    let chain = moved(&there, &here).await;
    assert_eq!((chain.log, chain.moves), (id, 2));
    assert_eq!(log.append("300").await.expect("appended"), LogPos(300));
    assert_eq!(all(&log).await.len(), before.len() + 1);
    assert_eq!(logs(&stores.url("a", "")).await.expect("lists"), ["log"]);
    assert_eq!(logs(&stores.url("b", "")).await.expect("lists"), [""; 0]);
    log.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_moved_says_what_to_do() {
    let stores = Stores::new();
    let (here, there) = (stores.url("a", "log"), stores.url("b", "log"));
    let nothing = |_| {};
    let try_to = |src: &str, dst: &str| {
        let (src, dst) = (src.to_owned(), dst.to_owned());
        async move { fails(move_log(&src, &dst, false, nothing)).await }
    };
    assert_eq!(try_to(&here, &there).await, ErrorCode::NotFound);
    let log = open(&here).await;
    log.append("0").await.expect("appended");
    assert_eq!(try_to(&here, &stores.url("a", "new")).await, ErrorCode::Invalid);
    assert_eq!(try_to(&here, &here).await, ErrorCode::Invalid);
    assert_eq!(try_to(&here, "memory:").await, ErrorCode::Invalid);
    assert_eq!(try_to("memory:", &here).await, ErrorCode::Invalid);
    assert_eq!(try_to(&here, &format!("{there}?mode=read")).await, ErrorCode::Invalid);
    assert_eq!(try_to(&here, &stores.url("b", "")).await, ErrorCode::Invalid);
    assert_eq!(try_to(&here, &format!("{there}?loglet=native:3")).await, ErrorCode::Invalid);
    let other = open(&there).await;
    assert_eq!(try_to(&here, &there).await, ErrorCode::Conflict);
    assert_eq!(log.chain().await.expect("a chain").version, 1, "nothing was begun");
    other.close().await.expect("closes");
    delete(&there).await.expect("deleted");
    moved(&here, &there).await;
    assert_eq!(try_to(&here, &stores.url("c", "log")).await, ErrorCode::Conflict);
    log.seal().await.expect("sealed");
    assert_eq!(try_to(&there, &here).await, ErrorCode::Sealed);
    log.close().await.expect("closes");
}

/// A name that leads to another store is taken as long as the log that it leads to is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_is_free_again_once_its_log_was_deleted_where_it_went() {
    let stores = Stores::new();
    let (here, there) = (stores.url("a", "log"), stores.url("b", "log"));
    create(&here, None).await.expect("created");
    moved(&here, &there).await;
    assert_eq!(fails(create(&here, None)).await, ErrorCode::Conflict);
    assert_eq!(fails(delete(&here)).await, ErrorCode::Conflict);
    let log = open(&here).await;
    delete(&there).await.expect("deleted");
    assert_eq!(fails(log.chain()).await, ErrorCode::NotFound);
    log.close().await.expect("closes");
    let missing = VirtualLog::builder(&here).create(false).open();
    assert_eq!(fails(missing).await, ErrorCode::NotFound);
    create(&here, None).await.expect("created");
    let log = open(&here).await;
    assert_eq!(log.append("0").await.expect("appended"), LogPos(0));
    log.close().await.expect("closes");
    // And the old name can be forgotten.
    moved(&here, &there).await;
    delete(&there).await.expect("deleted");
    delete(&here).await.expect("forgotten");
    assert_eq!(fails(delete(&here)).await, ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_segments_may_stay_and_be_fetched_later() {
    let stores = Stores::new();
    let (here, there) = (stores.url("a", "log"), stores.url("b", "log"));
    let log = open(&here).await;
    for n in 0..10u64 {
        log.append(n.to_string()).await.expect("appended");
    }
    let chain = move_log(&here, &there, true, |_| {}).await.expect("moves");
    let kinds: Vec<&str> = chain.segments.iter().map(|s| &*s.config.kind).collect();
    assert_eq!(kinds, ["elsewhere", "local"]);
    log.append("10").await.expect("appended");
    log.close().await.expect("closes");
    let log = open(&there).await;
    let entries: Vec<_> = (0..11).map(|n| (n, n)).collect();
    assert_eq!(all(&log).await, entries);
    let chain = moved(&here, &there).await;
    assert!(chain.segments.iter().all(|s| &*s.config.kind == "local"), "{chain:?}");
    log.close().await.expect("closes");
    // Nothing is in the old store any more.
    std::fs::remove_dir_all(stores.0.path().join("a")).expect("removed");
    let log = open(&there).await;
    assert_eq!(all(&log).await, entries);
    log.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleting_a_log_deletes_what_a_move_left_behind() {
    let stores = Stores::new();
    let (here, there) = (stores.url("a", "log"), stores.url("b", "log"));
    let log = open(&here).await;
    log.append("0").await.expect("appended");
    log.close().await.expect("closes");
    move_log(&here, &there, true, |_| {}).await.expect("moves");
    let loglets = stores.0.path().join("a/loglets");
    let count = || std::fs::read_dir(&loglets).expect("a folder").count();
    assert!(count() > 0);
    delete(&there).await.expect("deleted");
    assert_eq!(count(), 0);
}

/// A history of many clients while a log goes where `moves` takes it. The names by which clients come are
/// all that it ever has.
struct Load {
    recorder: Recorder,
    next: AtomicU64,
    done: AtomicBool,
}

impl Load {
    fn new() -> Arc<Load> {
        let (recorder, next, done) = Default::default();
        Arc::new(Load { recorder, next, done })
    }

    /// Appends until all is done, by a handle of its own.
    async fn write(self: Arc<Self>, url: String) {
        let log = open(&url).await;
        for round in 0u64.. {
            if self.done.load(Ordering::Acquire) {
                break;
            }
            let many: Vec<_> = (0..8)
                .map(|_| {
                    let value = self.next.fetch_add(1, Ordering::Relaxed);
                    (value, self.recorder.now(), log.append(value.to_string()))
                })
                .collect();
            for (value, invoked, append) in many {
                let position = append.await.expect("appended").0;
                let outcome = Outcome::Ok(position);
                self.recorder.done(invoked, What::Append { value, outcome });
            }
            // Nothing that is done in memory ever waits.
            tokio::task::yield_now().await;
            if round % 8 == 0 {
                let invoked = self.recorder.now();
                let Tail { position, sealed } = log.check_tail().await.expect("tail");
                self.recorder.done(invoked, What::Tail { position: position.0, sealed });
            }
        }
        log.close().await.expect("closes");
    }

    /// Follows until `end` is there, and judges what it saw.
    async fn follow(self: Arc<Self>, log: VirtualLog, mut end: watch::Receiver<u64>) {
        let mut reader = log.subscribe(Start::First).await.expect("subscribed");
        loop {
            let (next, invoked) = (reader.position().0, self.recorder.now());
            let entry = tokio::select! {
                entry = reader.next() => entry.expect("read").expect("an entry"),
                _ = end.wait_for(|end| next >= *end) => break,
            };
            let (position, value) = (entry.position.0, number(&entry.payload));
            self.recorder.done(invoked, What::Value { position, value });
        }
        log.close().await.expect("closes");
    }
}

/// Runs `moves` while two writers for each of `names` append, each by a handle of its own.
async fn under_load<M>(names: &[String], moves: impl FnOnce(VirtualLog) -> M) -> Vec<(u64, u64)>
where
    M: Future<Output = ()>,
{
    let (load, (finish, end)) = (Load::new(), watch::channel(u64::MAX));
    let log = open(&names[0]).await;
    let follower = tokio::spawn(load.clone().follow(open(&names[0]).await, end));
    let writer = |name: &String| tokio::spawn(load.clone().write(name.clone()));
    let early: Vec<_> = names[..1].iter().cycle().take(2).map(writer).collect();
    moves(log.clone()).await;
    // Whoever comes by any name comes to the same log.
    let late: Vec<_> = names.iter().map(writer).collect();
    let enough = load.next.load(Ordering::Relaxed) + 200;
    while load.next.load(Ordering::Relaxed) < enough {
        tokio::task::yield_now().await;
    }
    load.done.store(true, Ordering::Release);
    for writer in early.into_iter().chain(late) {
        writer.await.expect("runs");
    }
    let entries = all(&log).await;
    let tail = log.check_tail().await.expect("tail").position.0;
    finish.send_replace(tail);
    follower.await.expect("runs");
    let last = Final { base: 0, tail, entries: entries.clone() };
    check(&load.recorder.take(), &last).expect("linearizable");
    log.close().await.expect("closes");
    entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_directories_and_memory_under_load() {
    let stores = Stores::new();
    let memory = format!("memory:moving-{}", std::process::id());
    let names = [stores.url("a", "log"), stores.url("b", "b"), memory];
    let route = names.clone();
    under_load(&names, |log| async move {
        for hop in 0..6usize {
            let (from, to) = (&route[hop % 3], &route[(hop + 1) % 3]);
            let chain = moved(from, to).await;
            assert_eq!(chain.moves as usize, hop + 1);
            assert_eq!(log.chain().await.expect("a chain").moves as usize, hop + 1);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_directory_to_a_cluster_and_back_under_load() {
    let stores = Stores::new();
    let (server, dir) = cluster().await;
    let names = [stores.url("a", "log"), format!("{}orders", server.url())];
    let route = names.clone();
    under_load(&names, |log| async move {
        for hop in 0..4usize {
            let chain = moved(&route[hop % 2], &route[(hop + 1) % 2]).await;
            let kind = ["native", "local"][hop % 2];
            assert!(chain.segments.iter().all(|s| s.config.kind == kind), "{chain:?}");
            assert_eq!(log.chain().await.expect("a chain").moves as usize, hop + 1);
        }
    })
    .await;
    server.close().await.expect("closes");
    drop(dir);
}

/// What the log was in is gone: who followed needs it no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_cluster_can_be_turned_off() {
    let stores = Stores::new();
    let (server, dir) = cluster().await;
    let (here, there) = (format!("{}orders", server.url()), stores.url("a", "log"));
    let log = open(&here).await;
    for n in 0..50u64 {
        log.append(n.to_string()).await.expect("appended");
    }
    moved(&here, &there).await;
    assert_eq!(log.chain().await.expect("a chain").moves, 1);
    server.close().await.expect("closes");
    drop(dir);
    log.reconfig_extend("local", None).await.expect("swapped");
    log.append("50").await.expect("appended");
    assert_eq!(all(&log).await, (0..51).map(|n| (n, n)).collect::<Vec<_>>());
    log.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn movers_and_reconfigurations_that_race_do_no_harm() {
    let stores = Stores::new();
    let names = [stores.url("a", "log"), stores.url("b", "log")];
    let route = names.clone();
    under_load(&names, |log| async move {
        for hop in 0..4usize {
            let (from, to) = (&route[hop % 2], &route[(hop + 1) % 2]);
            let swaps = async {
                for _ in 0..10 {
                    let swapped = log.reconfig_extend("local", None).await;
                    if let Err(error) = swapped {
                        assert_eq!(error.code(), ErrorCode::Conflict, "{error}");
                    }
                }
            };
            let (one, two, ()) = tokio::join!(
                move_log(from, to, false, |_| {}),
                move_log(from, to, false, |_| {}),
                swaps
            );
            for moved in [one, two] {
                assert_eq!(moved.expect("moves").moves as usize, hop + 1);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_movers_to_different_stores_one_wins() {
    let stores = Stores::new();
    let (here, names) = (stores.url("a", "log"), [stores.url("b", "log"), stores.url("c", "log")]);
    let log = open(&here).await;
    for n in 0..20u64 {
        log.append(n.to_string()).await.expect("appended");
    }
    let (one, two) = tokio::join!(
        move_log(&here, &names[0], false, |_| {}),
        move_log(&here, &names[1], false, |_| {})
    );
    let lost = match (one, two) {
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => error,
        other => panic!("one moves it and one does not: {other:?}"),
    };
    assert_eq!(lost.code(), ErrorCode::Conflict, "{lost}");
    let chain = log.chain().await.expect("a chain");
    assert_eq!(chain.moves, 1);
    assert!(chain.segments.iter().all(|s| &*s.config.kind == "local"), "{chain:?}");
    log.append("20").await.expect("appended");
    assert_eq!(all(&log).await, (0..21).map(|n| (n, n)).collect::<Vec<_>>());
    log.close().await.expect("closes");
}

/// The call is dropped after more and more of its steps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_is_dropped_anywhere_can_be_completed() {
    let stores = Stores::new();
    let mut appended = 0u64;
    let names = [stores.url("a", "log"), stores.url("b", "log")];
    let log = open(&names[0]).await;
    for round in 0..24usize {
        let (from, to) = (&names[round % 2], &names[(round + 1) % 2]);
        let mut told = 0;
        let mut move_it = Box::pin(move_log(from, to, false, |_| told += 1));
        for _ in 0..1 << (round / 2) {
            if futures_util::poll!(&mut move_it).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(move_it);
        for _ in 0..3 {
            let position = log.append(appended.to_string()).await.expect("appended");
            assert_eq!(position, LogPos(appended));
            appended += 1;
        }
        let chain = moved(from, to).await;
        assert_eq!(chain.moves as usize, round + 1);
        assert!(chain.segments.iter().all(|s| &*s.config.kind == "local"), "{chain:?}");
    }
    assert_eq!(all(&log).await, (0..appended).map(|n| (n, n)).collect::<Vec<_>>());
    log.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_without_a_lock_follows() {
    let stores = Stores::new();
    let (here, there) = (stores.url("a", "log"), stores.url("b", "log"));
    let log = open(&here).await;
    log.append("0").await.expect("appended");
    let reader = VirtualLog::builder(&here).read_only().open().await.expect("opens");
    let mut follower = reader.subscribe(Start::First).await.expect("subscribed");
    assert!(follower.next().await.expect("read").is_some());
    moved(&here, &there).await;
    log.append("1").await.expect("appended");
    log.reconfig_extend("local", None).await.ok();
    log.append("2").await.expect("appended");
    for n in [1u64, 2] {
        let entry = follower.next().await.expect("read").expect("an entry");
        assert_eq!((entry.position.0, number(&entry.payload)), (n, n));
    }
    assert_eq!(reader.chain().await.expect("a chain").moves, 1);
    assert_eq!(fails(reader.append("3")).await, ErrorCode::Invalid);
    reader.close().await.expect("closes");
    log.close().await.expect("closes");
}

/// Not a test of its own: the process that another test starts to move a log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_that_moves() {
    let Ok(urls) = std::env::var("VIRTUALLOG_TEST_MOVE") else { return };
    let (src, dst) = urls.split_once(' ').expect("two");
    assert_eq!(moved(src, dst).await.life, Life::Open);
}

/// The usual case: the command line moves what an application has open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_moves_what_this_one_uses() {
    let stores = Stores::new();
    let (server, dir) = cluster().await;
    let names = [stores.url("a", "log"), format!("{}orders", server.url())];
    let route = names.clone();
    under_load(&names, |log| async move {
        for hop in 0..4usize {
            let urls = format!("{} {}", route[hop % 2], route[(hop + 1) % 2]);
            let mut child = std::process::Command::new(std::env::current_exe().expect("a test"));
            child.args(["--exact", "the_process_that_moves"]).env("VIRTUALLOG_TEST_MOVE", urls);
            let output = tokio::task::spawn_blocking(move || child.output());
            let output = output.await.expect("runs").expect("starts");
            assert!(output.status.success(), "{output:?}");
            assert_eq!(log.chain().await.expect("a chain").moves as usize, hop + 1);
        }
    })
    .await;
    server.close().await.expect("closes");
    drop(dir);
}
