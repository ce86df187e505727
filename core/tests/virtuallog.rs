//! The operations of a virtual log, on `memory:` and `file:`: each test runs on both.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::StreamExt;
use virtuallog::testing::history::{Final, Outcome, Recorder, What, check};
use virtuallog::{Entry, ErrorCode, LogPos, Start, Tail, TrimLimit, VirtualLog};

/// Runs a test on a memory log and on a file log.
macro_rules! on_both {
    ($($name:ident;)*) => {
        mod memory { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$name("memory:", "memory").await; })* }
        mod file { $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let dir = tempfile::tempdir().expect("a temporary directory");
                let url = format!("file:{}/store/log", dir.path().display());
                super::$name(&url, "local").await;
            })* }
    };
}

on_both! {
    entries_come_back_in_order;
    a_batch_is_contiguous_and_has_limits;
    swaps_under_load_lose_nothing;
    a_subscription_crosses_swaps;
    a_stale_version_is_a_conflict;
    a_dropped_reconfiguration_goes_on;
    trims_are_exact;
    a_trim_drops_dead_segments;
    seal_ends_the_log;
    modify_moves_a_sealed_segment;
    wrong_ranges_are_refused;
    a_closed_handle_says_so;
    plans_do_nothing;
    verify_reads_all;
    an_unknown_loglet_changes_nothing;
    blocking_appends_from_many_threads;
}

async fn open(url: &str) -> VirtualLog {
    VirtualLog::open(url).await.expect("opens")
}

async fn all(log: &VirtualLog) -> Vec<Entry> {
    let first = log.first().await.expect("first");
    let mut reader = log.read(first, None).await.expect("read");
    let mut entries = Vec::new();
    while let Some(entry) = reader.next().await.expect("entry") {
        entries.push(entry);
    }
    entries
}

fn payload(entry: &Entry) -> String {
    String::from_utf8(entry.payload.to_vec()).expect("text")
}

fn code<T: std::fmt::Debug>(result: virtuallog::Result<T>) -> ErrorCode {
    result.expect_err("fails").code()
}

async fn entries_come_back_in_order(url: &str, _loglet: &str) {
    let log = open(url).await;
    let appends: Vec<_> = (0..5000).map(|n| log.append(format!("entry {n}"))).collect();
    for (n, append) in appends.into_iter().enumerate() {
        assert_eq!(append.await.expect("appended"), LogPos(n as u64));
    }
    let entries = all(&log).await;
    assert_eq!(entries.len(), 5000);
    for (n, entry) in entries.iter().enumerate() {
        assert_eq!((entry.position, payload(entry)), (LogPos(n as u64), format!("entry {n}")));
        assert!(entry.written_at_micros > 1_600_000_000_000_000);
    }
    let one = log.read_next(LogPos(4321), None).await.expect("read").expect("an entry");
    assert_eq!(payload(&one), "entry 4321");
    assert_eq!(log.read_next(LogPos(5000), None).await.expect("read"), None);
    log.close().await.expect("closes");
}

async fn a_batch_is_contiguous_and_has_limits(url: &str, _loglet: &str) {
    let log = open(url).await;
    let noise: Vec<_> = (0..100).map(|_| log.append("noise")).collect();
    let first = log.append_many((0..1024).map(|n| n.to_string())).await.expect("appended");
    for append in noise {
        append.await.expect("appended");
    }
    let entries = all(&log).await;
    for n in 0..1024usize {
        assert_eq!(payload(&entries[first.0 as usize + n]), n.to_string());
    }
    assert_eq!(code(log.append_many((0..1025).map(|_| "x")).await), ErrorCode::TooLarge);
    assert_eq!(code(log.append_many(Vec::<Vec<u8>>::new()).await), ErrorCode::Invalid);
    let mib = vec![7u8; 1 << 20];
    assert_eq!(code(log.append_many(vec![mib.clone(); 5]).await), ErrorCode::TooLarge);
    assert_eq!(code(log.append(vec![0u8; (1 << 20) + 1]).await), ErrorCode::TooLarge);
    log.append_many(vec![mib.clone(); 4]).await.expect("four MiB exactly");
    log.append("").await.expect("an empty entry");
    let tail = log.check_tail().await.expect("tail").position;
    let mut reader = log.read(LogPos(tail.0 - 5), None).await.expect("read");
    let last = reader.next_batch(100).await.expect("entries");
    assert_eq!(last[0].payload, mib);
}

/// Appenders, tail checkers, a follower and swaps race; the history checker judges what they saw.
async fn swaps_under_load_lose_nothing(url: &str, loglet: &str) {
    let (log, recorder) = (open(url).await, Arc::new(Recorder::default()));
    let follower = log.subscribe(Start::First).await.expect("subscribed");
    let writers: Vec<_> = (0..8u64)
        .map(|writer| {
            let (log, recorder) = (log.clone(), recorder.clone());
            tokio::spawn(async move {
                for n in 0..500 {
                    let (value, invoked) = (writer * 1000 + n, recorder.now());
                    let position = log.append(value.to_string()).await.expect("appended").0;
                    recorder.done(invoked, What::Append { value, outcome: Outcome::Ok(position) });
                    if n % 10 == 0 {
                        let invoked = recorder.now();
                        let Tail { position, sealed } = log.check_tail().await.expect("tail");
                        recorder.done(invoked, What::Tail { position: position.0, sealed });
                    }
                }
            })
        })
        .collect();
    let seen = recorder.clone();
    let follower = tokio::spawn(async move {
        let mut follower = follower.take(4000);
        let mut invoked = seen.now();
        while let Some(entry) = follower.next().await {
            let entry = entry.expect("entry");
            let value = payload(&entry).parse().expect("a number");
            seen.done(invoked, What::Value { position: entry.position.0, value });
            invoked = seen.now();
        }
    });
    for _ in 0..20 {
        log.reconfig_extend(loglet, None).await.expect("swapped");
    }
    for task in writers.into_iter().chain([follower]) {
        task.await.expect("runs");
    }
    let entries = all(&log).await;
    let number = |entry: &Entry| payload(entry).parse().expect("a number");
    let entries: Vec<_> = entries.iter().map(|entry| (entry.position.0, number(entry))).collect();
    let last = Final { base: 0, tail: entries.len() as u64, entries };
    assert_eq!(last.tail, 4000);
    check(&recorder.take(), &last).expect("linearizable");
    assert_eq!(log.chain().await.expect("chain").segments.len(), 21);
}

async fn a_subscription_crosses_swaps(url: &str, loglet: &str) {
    let log = open(url).await;
    let reader = log.subscribe(Start::First).await.expect("subscribed");
    let follower = tokio::spawn(reader.take(300).collect::<Vec<_>>());
    for n in 0..300 {
        log.append(n.to_string()).await.expect("appended");
        if n % 50 == 0 {
            log.reconfig_extend(loglet, None).await.expect("swapped");
        }
    }
    let entries = follower.await.expect("runs");
    let texts: Vec<_> = entries.iter().map(|e| payload(e.as_ref().expect("entry"))).collect();
    assert_eq!(texts, (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
    let mut tail = log.subscribe(Start::Tail).await.expect("subscribed");
    assert_eq!(tail.position(), LogPos(300));
    let (entry, appended) = tokio::join!(tail.next(), log.append("new"));
    assert_eq!(entry.expect("entry").expect("one").position, appended.expect("appended"));
    assert_eq!(tail.position(), LogPos(301));
}

async fn a_stale_version_is_a_conflict(url: &str, loglet: &str) {
    let log = open(url).await;
    let version = log.chain().await.expect("chain").version;
    let chain = log.reconfig_extend(loglet, Some(version)).await.expect("swapped");
    assert_eq!(chain.segments.len(), 2);
    let again = log.reconfig_extend(loglet, Some(version)).await;
    assert_eq!(code(again), ErrorCode::Conflict);
    let many: Vec<_> = (0..10)
        .map(|_| {
            let (log, loglet) = (log.clone(), loglet.to_owned());
            let version = chain.version;
            tokio::spawn(async move { log.reconfig_extend(&loglet, Some(version)).await })
        })
        .collect();
    let mut won = 0;
    for racer in many {
        match racer.await.expect("runs") {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error.code(), ErrorCode::Conflict),
        }
    }
    assert_eq!(won, 1);
    assert_eq!(log.chain().await.expect("chain").segments.len(), 3);
}

async fn a_dropped_reconfiguration_goes_on(url: &str, loglet: &str) {
    let log = open(url).await;
    log.append("before").await.expect("appended");
    for polls in 1..30 {
        let mut swap = Box::pin(log.reconfig_extend(loglet, None));
        for _ in 0..polls {
            if futures_util::poll!(&mut swap).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(swap);
        log.append(polls.to_string()).await.expect("appended");
    }
    assert_eq!(all(&log).await.len(), 30);
    log.close().await.expect("closes");
}

async fn trims_are_exact(url: &str, loglet: &str) {
    let log = open(url).await;
    log.append_many((0..100).map(|n| n.to_string())).await.expect("appended");
    let trimmed = log.prefix_trim(LogPos(33)).await.expect("trimmed");
    assert_eq!((trimmed.effective, trimmed.limited_by), (LogPos(33), None));
    assert_eq!(log.first().await.expect("first"), LogPos(33));
    assert_eq!(payload(&all(&log).await[0]), "33");
    let error = log.read_next(LogPos(32), None).await.expect_err("trimmed");
    assert_eq!((error.code(), error.position()), (ErrorCode::Trimmed, Some(LogPos(33))));
    let back = log.prefix_trim(LogPos(5)).await.expect("no more");
    assert_eq!((back.effective, back.limited_by), (LogPos(33), Some(TrimLimit::AlreadyTrimmed)));
    let beyond = log.prefix_trim(LogPos(1000)).await.expect("up to the tail");
    assert_eq!((beyond.effective, beyond.limited_by), (LogPos(100), Some(TrimLimit::Tail)));
    assert_eq!(all(&log).await, []);
    log.reconfig_extend(loglet, None).await.expect("swapped");
    assert_eq!(log.append("next").await.expect("appended"), LogPos(100));
}

async fn a_trim_drops_dead_segments(url: &str, loglet: &str) {
    let log = open(url).await;
    for n in 0..4 {
        log.append_many((0..10).map(|m| format!("{n}.{m}"))).await.expect("appended");
        log.reconfig_extend(loglet, None).await.expect("swapped");
    }
    log.prefix_trim(LogPos(25)).await.expect("trimmed");
    let chain = log.chain().await.expect("chain");
    assert_eq!(chain.first(), LogPos(20));
    assert_eq!(payload(&all(&log).await[0]), "2.5");
    let error = log.read_next(LogPos(3), None).await.expect_err("trimmed");
    assert_eq!((error.code(), error.position()), (ErrorCode::Trimmed, Some(LogPos(25))));
    log.prefix_trim(LogPos(40)).await.expect("trimmed");
    assert_eq!(log.chain().await.expect("chain").segments.len(), 1);
    assert_eq!(log.append("on").await.expect("appended"), LogPos(40));
}

async fn seal_ends_the_log(url: &str, loglet: &str) {
    let log = open(url).await;
    log.append("only").await.expect("appended");
    let mut follower = log.subscribe(Start::First).await.expect("subscribed");
    let tail = log.seal().await.expect("sealed");
    assert_eq!((tail.position, tail.sealed), (LogPos(1), true));
    assert_eq!(log.seal().await.expect("idempotent"), tail);
    assert_eq!(code(log.append("more").await), ErrorCode::Sealed);
    assert_eq!(code(log.reconfig_extend(loglet, None).await), ErrorCode::Sealed);
    assert_eq!(log.check_tail().await.expect("tail"), tail);
    assert_eq!(all(&log).await.len(), 1);
    assert!(follower.next().await.expect("entry").is_some());
    assert_eq!(follower.next().await.expect("end"), None);
}

async fn modify_moves_a_sealed_segment(url: &str, loglet: &str) {
    let log = open(url).await;
    log.append_many((0..50).map(|n| n.to_string())).await.expect("appended");
    log.append_many((50..90).map(|n| n.to_string())).await.expect("appended");
    log.prefix_trim(LogPos(7)).await.expect("trimmed");
    log.reconfig_extend(loglet, None).await.expect("swapped");
    log.append("after").await.expect("appended");
    let before = all(&log).await;
    let chain = log.reconfig_modify(0, loglet, None).await.expect("modified");
    assert_ne!(chain.segments[0].loglet, 0);
    assert_eq!(all(&log).await, before);
    assert_eq!(log.first().await.expect("first"), LogPos(7));
    assert_eq!(code(log.reconfig_modify(1, loglet, None).await), ErrorCode::Invalid);
    assert_eq!(code(log.reconfig_modify(77, loglet, None).await), ErrorCode::Invalid);
}

async fn wrong_ranges_are_refused(url: &str, _loglet: &str) {
    let log = open(url).await;
    log.append_many(["a", "b", "c"]).await.expect("appended");
    assert_eq!(code(log.read(LogPos(4), None).await), ErrorCode::Invalid);
    assert_eq!(code(log.read(LogPos(0), Some(LogPos(4))).await), ErrorCode::Invalid);
    assert_eq!(code(log.read(LogPos(2), Some(LogPos(1))).await), ErrorCode::Invalid);
    assert_eq!(code(log.subscribe(LogPos(4)).await), ErrorCode::Invalid);
    let mut reader = log.read(LogPos(1), Some(LogPos(2))).await.expect("read");
    assert_eq!(reader.next_batch(9).await.expect("one").len(), 1);
    assert_eq!(reader.next_batch(9).await.expect("end"), []);
}

async fn a_closed_handle_says_so(url: &str, loglet: &str) {
    let log = open(url).await;
    let clone = log.clone();
    let pending = log.append("pending");
    log.close().await.expect("closes");
    log.close().await.expect("is idempotent");
    assert_eq!(pending.await.expect("close flushes"), LogPos(0));
    assert_eq!(code(clone.append("x").await), ErrorCode::Closed);
    assert_eq!(code(clone.check_tail().await), ErrorCode::Closed);
    assert_eq!(code(clone.read(LogPos(0), None).await), ErrorCode::Closed);
    assert_eq!(code(clone.chain().await), ErrorCode::Closed);
    assert_eq!(code(clone.reconfig_extend(loglet, None).await), ErrorCode::Closed);
}

async fn plans_do_nothing(url: &str, loglet: &str) {
    let log = open(url).await;
    log.append("x").await.expect("appended");
    let before = log.chain().await.expect("chain");
    let plan = log.plan(loglet).await.expect("plan");
    assert_eq!((plan.tail, plan.seals_segment, &*plan.to), (LogPos(1), 0, loglet));
    assert_eq!(plan.objections, Vec::<String>::new());
    assert_eq!(log.chain().await.expect("chain"), before);
}

async fn verify_reads_all(url: &str, loglet: &str) {
    let log = open(url).await;
    for _ in 0..3 {
        log.append_many(["abc", "d"]).await.expect("appended");
        log.reconfig_extend(loglet, None).await.expect("swapped");
    }
    let report = log.verify(|_| {}).await.expect("verified");
    assert_eq!((report.segments, report.entries, report.bytes), (4, 6, 12));
    assert_eq!(report.problems, Vec::<String>::new());
}

async fn an_unknown_loglet_changes_nothing(url: &str, _loglet: &str) {
    let log = open(url).await;
    let before = log.chain().await.expect("chain");
    for name in ["nonsense", "native:3", "", "local:7", "memory:x"] {
        let error = log.reconfig_extend(name, None).await.expect_err(name);
        assert_eq!(error.code(), ErrorCode::Invalid, "{name}: {error}");
    }
    assert_eq!(log.chain().await.expect("chain"), before);
    log.append("on").await.expect("appended");
}

async fn blocking_appends_from_many_threads(url: &str, loglet: &str) {
    let log = open(url).await;
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let log = log.clone();
            std::thread::spawn(move || {
                let append = |n| log.append_blocking(format!("{thread}.{n}"), None);
                (0..200).map(|n| append(n).expect("appended")).collect::<Vec<_>>()
            })
        })
        .collect();
    for _ in 0..5 {
        log.reconfig_extend(loglet, None).await.expect("swapped");
    }
    let joined = tokio::task::spawn_blocking(move || {
        threads.into_iter().map(|thread| thread.join().expect("runs")).collect::<Vec<_>>()
    });
    let mut seen = HashSet::new();
    for positions in joined.await.expect("runs") {
        assert!(positions.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(positions.into_iter().all(|position| seen.insert(position)));
    }
    assert_eq!(all(&log).await.len(), 800);
}
