//! A move that ends after each of its steps, and what others find then.

use virtuallog_protocol::LogPos;

use super::*;
use crate::VirtualLog;
use crate::error::ErrorCode;

/// Two stores in directories, and a log in the first.
struct Two {
    _dir: tempfile::TempDir,
    src: String,
    dst: String,
}

impl Two {
    async fn new() -> (Two, VirtualLog) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = |store: &str| format!("file:{}/{store}", dir.path().display());
        let two = Two { src: url("src/log"), dst: url("dst/other"), _dir: dir };
        let log = VirtualLog::open(&two.src).await.expect("opens");
        for n in 0..5 {
            append(&log, n).await;
        }
        log.reconfig_extend("local", None).await.expect("swapped");
        append(&log, 5).await;
        (two, log)
    }

    /// A mover that is at hand for single steps.
    async fn mover(&self) -> Mover {
        let (src, dst) = (writable(&self.src).expect("a log"), writable(&self.dst).expect("a log"));
        let reach = async |url: &LogUrl| {
            let store = Store::reach(&url.location, Reach::Write, true, &[]).await.expect("opens");
            Home { name: url.log_name().expect("a log").into(), store: Arc::new(store) }
        };
        let (from, to) = (reach(&src).await, reach(&dst).await);
        let planned = to.store.plan("local").expect("a loglet");
        Mover { log: open(&from).await.expect("opens"), from, to, planned }
    }

    async fn finish(&self) -> Chain {
        move_log(&self.src, &self.dst, false, |_| {}).await.expect("moves")
    }
}

/// Appends a number, which is its position too.
async fn append(log: &VirtualLog, n: u64) {
    assert_eq!(log.append(n.to_string()).await.expect("appended"), LogPos(n));
}

async fn holds(log: &VirtualLog, count: u64) {
    let mut reader = log.read(LogPos(0), None).await.expect("read");
    for n in 0..count {
        let entry = reader.next().await.expect("read").expect("an entry");
        assert_eq!((entry.position, &*entry.payload), (LogPos(n), n.to_string().as_bytes()));
    }
    assert_eq!(reader.next().await.expect("read"), None);
}

/// The log is all there for whoever had it open or opens it now by either name, and is moved in the
/// end by whoever asks again.
async fn goes_on(two: &Two, log: &VirtualLog) {
    append(log, 6).await;
    let again = VirtualLog::open(&two.src).await.expect("opens");
    append(&again, 7).await;
    holds(&again, 8).await;
    log.reconfig_extend("local", None).await.ok();
    append(log, 8).await;
    let chain = two.finish().await;
    assert_eq!((chain.moves, chain.segments.len() >= 3), (1, true));
    assert!(chain.segments.iter().all(|segment| segment.config.kind == "local"), "{chain:?}");
    let there = VirtualLog::open(&two.dst).await.expect("opens");
    append(&there, 9).await;
    append(log, 10).await;
    append(&again, 11).await;
    for log in [log, &again, &there] {
        holds(log, 12).await;
        log.close().await.expect("closes");
    }
    assert_eq!(two.finish().await.moves, 1, "it is there already");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_that_ended_after_its_engine_is_completed() {
    let (two, log) = Two::new().await;
    let mover = two.mover().await;
    mover.change_engine(&mover.log.fetch().await.expect("a chain")).await.expect("swapped");
    drop(mover);
    goes_on(&two, &log).await;
}

/// Writes the claim, and with `confirmed` what confirms it, and no more.
async fn claim(two: &Two, confirmed: bool) {
    let mover = two.mover().await;
    mover.change_engine(&mover.log.fetch().await.expect("a chain")).await.expect("swapped");
    let there = mover.to.get().await.expect("a register");
    let view = mover.log.fetch().await.expect("a chain");
    let held: Vec<_> = view.chain.segments.iter().map(|s| s.stop.is_none()).collect();
    match confirmed {
        true => mover.hand_over(&there, &view, &held).await.expect("handed over"),
        false => {
            let claim = mover.claim(there.version + 1, &view, &held).expect("a claim");
            mover.to.put(&claim).await.expect("written");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_alone_leaves_the_source_in_charge() {
    let (two, log) = Two::new().await;
    claim(&two, false).await;
    // Its name there leads to the log all the same.
    let there = VirtualLog::open(&two.dst).await.expect("opens");
    assert_eq!(there.chain().await.expect("a chain").moves, 0);
    holds(&there, 6).await;
    let store = two.dst.trim_end_matches("other");
    assert_eq!(crate::logs(store).await.expect("lists"), [""; 0]);
    let refused = crate::delete(&two.dst).await.expect_err("it is no log of that store");
    assert_eq!(refused.code(), ErrorCode::Conflict);
    assert_eq!(crate::create(&two.dst, None).await.expect_err("taken").code(), ErrorCode::Conflict);
    goes_on(&two, &log).await;
    there.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_outdated_is_written_anew() {
    let (two, log) = Two::new().await;
    claim(&two, false).await;
    log.prefix_trim(LogPos(5)).await.expect("trimmed");
    let version = log.chain().await.expect("a chain").version;
    let mover = two.mover().await;
    let there = mover.to.get().await.expect("a register");
    let view = mover.log.fetch().await.expect("a chain");
    let held: Vec<_> = view.chain.segments.iter().map(|s| s.stop.is_none()).collect();
    mover.hand_over(&there, &view, &held).await.expect("handed over");
    // The open handle may have followed by now, and opened it.
    let there = mover.to.read().await.expect("read").expect("a claim");
    assert!(there.copy_of.is_none_or(|copied| copied == version), "{there:?}");
    let from = mover.from.read().await.expect("read").expect("a chain");
    assert!(matches!(from.life, Life::Moved { .. }) && from.version == version + 1);
    drop(mover);
    assert_eq!(two.finish().await.first(), LogPos(5));
    append(&log, 6).await;
    log.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_opens_either_name_completes_the_chains_part() {
    let (two, log) = Two::new().await;
    claim(&two, true).await;
    let there = VirtualLog::open(&two.dst).await.expect("opens");
    let chain = there.chain().await.expect("a chain");
    assert_eq!((chain.moves, chain.life), (1, Life::Open));
    goes_on(&two, &log).await;
    there.close().await.expect("closes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_handle_follows_without_being_used() {
    let (two, log) = Two::new().await;
    let inner = log.inner();
    claim(&two, true).await;
    // Nothing is called on it: it saw its open segment go, or sees it now, and watches.
    append(&log, 6).await;
    let followed = async {
        while inner.view().chain.moves == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), followed).await.expect("follows");
    goes_on_at(&log, 7).await;
    assert_eq!(two.finish().await.moves, 1);
    holds(&log, 8).await;
    log.close().await.expect("closes");
}

async fn goes_on_at(log: &VirtualLog, n: u64) {
    append(log, n).await;
    holds(log, n + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_alone_sees_a_confirmed_claim_as_the_log_it_becomes() {
    let (two, log) = Two::new().await;
    // Whoever may write would complete it.
    log.close().await.expect("closes");
    claim(&two, true).await;
    let before = two.mover().await.to.read().await.expect("read").expect("a claim");
    let reader = VirtualLog::builder(&two.dst).read_only().open().await.expect("opens");
    holds(&reader, 6).await;
    assert_eq!(reader.chain().await.expect("a chain").moves, 1);
    let after = two.mover().await.to.read().await.expect("read").expect("a claim");
    assert_eq!(before, after, "reading writes nothing");
    let log = VirtualLog::open(&two.src).await.expect("opens");
    goes_on(&two, &log).await;
    append_after(&two, 12).await;
    holds(&reader, 13).await;
    reader.close().await.expect("closes");
}

async fn append_after(two: &Two, n: u64) {
    let log = VirtualLog::open(&two.dst).await.expect("opens");
    append(&log, n).await;
    log.close().await.expect("closes");
}
