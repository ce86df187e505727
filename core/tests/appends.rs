//! How appends end, whatever the loglet below does: a third party's loglet, registered from
//! outside the crate, that answers as each test tells it to.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use virtuallog::loglet::{Ack, Loglet, LogletError, LogletProvider};
use virtuallog::loglets::memory::MemoryProvider;
use virtuallog::protocol::{Batch, LogId, StampedBatch, WriterId};
use virtuallog::store::PlantedBug;
use virtuallog::testing::history::{Final, Outcome, Recorder, What, check};
use virtuallog::{
    Error, ErrorCode, LogPos, LogletConfig, LogletId, LogletPos, Result, Tail, VirtualLog,
};

/// What the next append meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It is stored and answered `Sealed`: the loglet is sealed right behind it.
    StoreThenSeal,
    /// It is not stored and answered `Sealed`.
    SealFirst,
    /// It is stored, and the answer is lost.
    StoreAndDrop,
    /// It is not stored, and the answer is lost.
    Drop,
    /// It is refused: the disk is full.
    Full,
    /// It is held until the test lets it go.
    Hold,
    /// It is stored and answered, as it should be.
    Store,
}

type Held = (Arc<dyn Loglet>, Batch, Ack);

#[derive(Debug)]
struct Script {
    memory: MemoryProvider,
    then: Mutex<VecDeque<Then>>,
    held: Mutex<Vec<Held>>,
    /// Writers whose batch was refused: their later ones are too (contract L10).
    refused: Mutex<HashSet<WriterId>>,
}

impl Script {
    fn new() -> Arc<Self> {
        let memory = MemoryProvider::new();
        let (then, held, refused) = Default::default();
        Arc::new(Self { memory, then, held, refused })
    }

    fn then(&self, steps: impl IntoIterator<Item = Then>) {
        self.then.lock().expect("no panic").extend(steps);
    }

    fn held(&self) -> usize {
        self.held.lock().expect("no panic").len()
    }

    /// Answers the oldest that is held, without storing it.
    fn answer(&self, outcome: Result<LogletPos, LogletError>) {
        let (_, batch, ack) = self.held.lock().expect("no panic").remove(0);
        self.refused.lock().expect("no panic").insert(batch.header().writer);
        ack.complete(outcome);
    }

    fn let_go(&self) {
        for (inner, batch, ack) in std::mem::take(&mut *self.held.lock().expect("no panic")) {
            inner.append(batch, ack);
        }
    }
}

#[derive(Debug)]
struct Scripted {
    inner: Arc<dyn Loglet>,
    script: Arc<Script>,
}

/// Stores without telling, then seals.
fn store(inner: &Arc<dyn Loglet>, batch: Batch) {
    inner.append(batch, Ack::new(|outcome| assert!(outcome.is_ok())));
}

#[async_trait]
impl Loglet for Scripted {
    fn append(&self, batch: Batch, ack: Ack) {
        let writer = batch.header().writer;
        if self.script.refused.lock().expect("no panic").contains(&writer) {
            return ack.complete(Err(LogletError::OutOfOrder { expected: 0 }));
        }
        let step = self.script.then.lock().expect("no panic").pop_front();
        let seal = || futures_util::future::FutureExt::now_or_never(self.inner.seal());
        match step {
            None | Some(Then::Store) => self.inner.append(batch, ack),
            Some(Then::StoreThenSeal) => {
                store(&self.inner, batch);
                seal().expect("at once").expect("sealed");
                ack.complete(Err(LogletError::Sealed));
            }
            Some(Then::SealFirst) => {
                seal().expect("at once").expect("sealed");
                ack.complete(Err(LogletError::Sealed));
            }
            Some(Then::StoreAndDrop) => {
                store(&self.inner, batch);
                drop(ack);
            }
            Some(Then::Drop) => drop(ack),
            Some(Then::Full) => {
                self.script.refused.lock().expect("no panic").insert(writer);
                let full = Error::new(ErrorCode::DiskFull, "the disk is full: make room");
                ack.complete(Err(LogletError::Refused(full)));
            }
            Some(Then::Hold) => {
                self.script.held.lock().expect("no panic").push((self.inner.clone(), batch, ack));
            }
        }
    }

    async fn check_tail(&self) -> Result<Tail<LogletPos>, LogletError> {
        self.inner.check_tail().await
    }

    async fn wait_tail(&self, known: LogletPos) -> Result<Tail<LogletPos>, LogletError> {
        self.inner.wait_tail(known).await
    }

    async fn read(
        &self,
        from: LogletPos,
        to: LogletPos,
        bytes_max: usize,
    ) -> Result<Vec<StampedBatch>, LogletError> {
        self.inner.read(from, to, bytes_max).await
    }

    async fn prefix_trim(&self, keep_from: LogletPos) -> Result<LogletPos, LogletError> {
        self.inner.prefix_trim(keep_from).await
    }

    async fn trim_point(&self) -> Result<LogletPos, LogletError> {
        self.inner.trim_point().await
    }

    async fn seal(&self) -> Result<(), LogletError> {
        self.inner.seal().await
    }
}

/// The provider that a third party would write.
#[derive(Debug)]
struct ScriptedProvider(Arc<Script>);

#[async_trait]
impl LogletProvider for ScriptedProvider {
    fn kind(&self) -> &str {
        "scripted"
    }

    fn plan(&self, args: &str) -> Result<LogletConfig> {
        let mut config = self.0.memory.plan(args)?;
        config.kind = "scripted".into();
        config.name = "scripted".into();
        Ok(config)
    }

    async fn create(
        &self,
        id: LogletId,
        config: &LogletConfig,
        base: LogletPos,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        let inner = self.0.memory.create(id, config, base).await?;
        Ok(Arc::new(Scripted { inner, script: self.0.clone() }))
    }

    async fn open(
        &self,
        id: LogletId,
        config: &LogletConfig,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        let inner = self.0.memory.open(id, config).await?;
        Ok(Arc::new(Scripted { inner, script: self.0.clone() }))
    }

    async fn retire(&self, log: LogId, live: &[u32], bound: u32) -> Result<(), LogletError> {
        self.0.memory.retire(log, live, bound).await
    }
}

async fn open(window: usize) -> (VirtualLog, Arc<Script>) {
    let script = Script::new();
    let log = VirtualLog::builder("memory:")
        .provider(Arc::new(ScriptedProvider(script.clone())))
        .loglet("scripted")
        .in_flight_bytes_max(window)
        .open()
        .await
        .expect("opens");
    (log, script)
}

async fn texts(log: &VirtualLog) -> Vec<String> {
    let mut reader = log.read(LogPos(0), None).await.expect("read");
    let mut texts = Vec::new();
    while let Some(entry) = reader.next().await.expect("entry") {
        texts.push(String::from_utf8(entry.payload.to_vec()).expect("text"));
    }
    texts
}

const WIDE: usize = 1 << 20;

/// Found means acknowledged, absent means sent again: never twice, never lost.
#[tokio::test(start_paused = true)]
async fn appends_caught_by_a_seal_are_resolved() {
    for caught in [Then::StoreThenSeal, Then::SealFirst] {
        let (log, script) = open(WIDE).await;
        log.append("before").await.expect("appended");
        script.then([Then::Hold]);
        let held = log.append("held");
        let behind: Vec<_> = (0..3).map(|n| log.append(n.to_string())).collect();
        script.then([caught]);
        script.let_go();
        // Nobody reconfigures: the seal came from outside, and the log goes on by itself.
        assert_eq!(held.await.expect("resolved"), LogPos(1));
        for (n, append) in behind.into_iter().enumerate() {
            assert_eq!(append.await.expect("resolved"), LogPos(2 + n as u64), "{caught:?}");
        }
        assert_eq!(texts(&log).await, ["before", "held", "0", "1", "2"], "{caught:?}");
        assert_eq!(log.chain().await.expect("chain").segments.len(), 2);
    }
}

/// Appends that seals catch, half of them stored and half not, judged by what the log then holds.
async fn history_of_caught_appends(planted: Option<PlantedBug>) -> Result<(), String> {
    let script = Script::new();
    let builder = VirtualLog::builder("memory:")
        .provider(Arc::new(ScriptedProvider(script.clone())))
        .loglet("scripted");
    let builder = planted.into_iter().fold(builder, virtuallog::Builder::planted);
    let log = builder.open().await.expect("opens");
    let recorder = Recorder::default();
    for value in 0..20u64 {
        script.then([match value % 4 {
            0 => Then::StoreThenSeal,
            2 => Then::SealFirst,
            _ => Then::Store,
        }]);
        let invoked = recorder.now();
        let outcome = match log.append(value.to_string()).await {
            Ok(position) => Outcome::Ok(position.0),
            Err(error) if error.is_in_doubt() => Outcome::Unknown,
            Err(_) => Outcome::Failed,
        };
        recorder.done(invoked, What::Append { value, outcome });
    }
    let entries: Vec<(u64, u64)> = texts(&log)
        .await
        .iter()
        .enumerate()
        .map(|(position, text)| (position as u64, text.parse().expect("a number")))
        .collect();
    check(&recorder.take(), &Final { base: 0, tail: entries.len() as u64, entries })
}

#[tokio::test(start_paused = true)]
async fn a_wrong_resolution_is_found() {
    history_of_caught_appends(None).await.expect("nothing lost, nothing doubled");
    for bug in [PlantedBug::DoubledResolution, PlantedBug::LostResolution] {
        let complaint = history_of_caught_appends(Some(bug)).await.expect_err("found");
        assert!(complaint.contains("I1") || complaint.contains("I2"), "{bug:?}: {complaint}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_in_doubt_and_can_be_resolved() {
    for (lost, stored) in [(Then::StoreAndDrop, true), (Then::Drop, false)] {
        let (log, script) = open(WIDE).await;
        script.then([lost]);
        let error = log.append("lost").await.expect_err("nobody answered");
        assert!(error.is_in_doubt() && !error.is_retryable(), "{error:?}");
        let token = error.token().expect("a token").to_string().parse().expect("its own form");
        let undecided = log.resolve(&token).await;
        assert_eq!(
            undecided.map_err(|e| e.code()),
            match stored {
                true => Ok(Some(LogPos(0))),
                false => Err(ErrorCode::Unavailable),
            }
        );
        log.reconfig_extend("scripted", None).await.expect("swapped");
        let decided = log.resolve(&token).await.expect("decided");
        assert_eq!(decided, stored.then_some(LogPos(0)));
        assert_eq!(texts(&log).await.len(), usize::from(stored));
    }
}

/// One failure takes everything behind it along, definitely; then the writer starts afresh.
#[tokio::test(start_paused = true)]
async fn nothing_overtakes_a_failed_append() {
    let (log, script) = open(WIDE).await;
    script.then([Then::Hold, Then::Full]);
    let held = log.append("held");
    let full: Vec<_> = (0..3).map(|n| log.append(n.to_string())).collect();
    // A batch of its own: the three before it go out as one, it right behind them.
    let overtaking = log.append_many(["not", "this"]);
    let unsent = log.append("nor this");
    script.let_go();
    assert_eq!(held.await.expect("let go"), LogPos(0));
    for append in full {
        let error = append.await.expect_err("refused");
        assert!(error.code() == ErrorCode::DiskFull && !error.is_in_doubt(), "{error:?}");
    }
    let error = overtaking.await.expect_err("behind a refused one");
    assert!(error.code() == ErrorCode::Unavailable && !error.is_in_doubt(), "{error:?}");
    let error = unsent.await.expect_err("behind a refused one");
    assert!(error.code() == ErrorCode::DiskFull && !error.is_in_doubt(), "{error:?}");
    assert_eq!(log.append("fresh").await.expect("appended"), LogPos(1));
    assert_eq!(texts(&log).await, ["held", "fresh"]);
}

/// What is submitted before anybody knows of a failure would overtake: it is turned away.
#[tokio::test(start_paused = true)]
async fn nothing_is_taken_before_a_failure_is_told() {
    let (log, script) = open(WIDE).await;
    script.then([Then::Full]);
    let full = log.append("full");
    let blind = log.append("submitted without a look");
    let error = log.append_nowait("at once").expect_err("turned away, and told so");
    assert_eq!(error.code(), ErrorCode::DiskFull);
    assert_eq!(log.append("knows").await.expect("appended"), LogPos(0));
    assert_eq!(blind.await.expect_err("turned away").code(), ErrorCode::DiskFull);
    assert_eq!(full.await.expect_err("full").code(), ErrorCode::DiskFull);
    assert_eq!(texts(&log).await, ["knows"]);
}

/// Appends that time out while they wait take those behind them along: the log holds a prefix.
#[tokio::test(start_paused = true)]
async fn nothing_overtakes_one_that_was_withdrawn() {
    let (log, script) = open(300).await;
    script.then([Then::Hold]);
    let sent = log.append(vec![b'0'; 200]);
    let impatient = log.append(vec![b'1'; 200]).timeout(Duration::from_secs(1));
    let patient: Vec<_> = (2..5).map(|n| log.append(vec![b'0' + n; 200])).collect();
    assert_eq!(impatient.await.expect_err("no turn").code(), ErrorCode::Deadline);
    script.let_go();
    assert_eq!(sent.await.expect("let go"), LogPos(0));
    for append in patient {
        let error = append.await.expect_err("behind it");
        assert!(error.code() == ErrorCode::Deadline && !error.is_in_doubt(), "{error:?}");
    }
    log.append("on").await.expect("goes on");
    assert_eq!(texts(&log).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn flush_tells_the_failure_that_nobody_saw_once() {
    let (log, script) = open(WIDE).await;
    script.then([Then::Full, Then::Full]);
    assert_eq!(log.append("seen").await.expect_err("full").code(), ErrorCode::DiskFull);
    drop(log.append("unseen"));
    drop(log.append("turned away"));
    assert_eq!(log.flush().await.expect_err("unseen").code(), ErrorCode::DiskFull);
    log.flush().await.expect("told once");
    drop(log.append("fine"));
    assert_eq!(texts(&log).await, ["fine"]);
}

/// Whoever was told that an append is in doubt is not told once more, when the log is closed say, what
/// became of it.
#[tokio::test(start_paused = true)]
async fn flush_is_silent_about_what_a_deadline_told() {
    let (log, script) = open(WIDE).await;
    script.then([Then::Hold]);
    let late = log.append("late").timeout(Duration::from_secs(1));
    let error = late.await.expect_err("held");
    assert!(error.code() == ErrorCode::Deadline && error.is_in_doubt(), "{error:?}");
    script.answer(Err(LogletError::InDoubt("the loglet is gone".into())));
    log.flush().await.expect("it was told");
}

/// The window is a limit in bytes: `append` waits its turn in order, `append_nowait` says `BUSY`.
#[tokio::test(start_paused = true)]
async fn a_full_window_keeps_the_order() {
    let (log, script) = open(1000).await;
    script.then([Then::Hold]);
    let appends: Vec<_> = (0..50).map(|n| log.append(format!("{n:0100}"))).collect();
    assert_eq!(log.append_nowait("x").expect_err("full").code(), ErrorCode::Busy);
    assert_eq!(script.held(), 1);
    script.let_go();
    for (n, append) in appends.into_iter().enumerate() {
        assert_eq!(append.await.expect("appended"), LogPos(n as u64));
    }
    log.append_nowait("x").expect("room again").await.expect("appended");
    let too_wide = log.append(vec![0; 5000]).await;
    assert_eq!(too_wide.expect("goes alone"), LogPos(51));
}

/// Sent means in doubt, waiting means surely not in the log.
#[tokio::test(start_paused = true)]
async fn deadlines() {
    let (log, script) = open(200).await;
    script.then([Then::Hold]);
    let sent = log.append(vec![1; 100]);
    let waiting = log.append(vec![2; 100]).timeout(Duration::from_secs(1));
    let error = waiting.await.expect_err("no turn");
    assert!(error.code() == ErrorCode::Deadline && !error.is_in_doubt(), "{error:?}");
    let unsent = log.append(vec![3; 100]);
    let error = sent.await.expect_err("no answer in 10 s");
    assert!(error.code() == ErrorCode::Deadline && error.is_in_doubt(), "{error:?}");
    let token = error.token().expect("it was sent").clone();
    let error = unsent.await.expect_err("no turn in 10 s");
    assert!(error.code() == ErrorCode::Deadline && !error.is_in_doubt(), "{error:?}");
    script.let_go();
    assert_eq!(log.resolve(&token).await.expect("it was stored after all"), Some(LogPos(0)));
    assert_eq!(log.append("on").await.expect("goes on"), LogPos(1));
}

/// A deadline that nobody awaited is told by `flush`, once.
#[tokio::test(start_paused = true)]
async fn a_flush_tells_of_a_deadline() {
    let (log, script) = open(WIDE).await;
    script.then([Then::Hold]);
    let held = log.append("held");
    tokio::time::sleep(Duration::from_secs(11)).await;
    let error = log.flush().await.expect_err("it is in doubt");
    assert!(error.code() == ErrorCode::Deadline && error.is_in_doubt(), "{error:?}");
    log.flush().await.expect("told");
    drop(held);
    script.let_go();
}

/// Whoever was told of a doubt may rely on what his token says: once that segment ended without the
/// append, it is nowhere and goes nowhere, although its handle could still send it on.
#[tokio::test(start_paused = true)]
async fn what_somebody_doubts_is_not_sent_on() {
    let (log, script) = open(WIDE).await;
    script.then([Then::Hold]);
    let mut held = log.append("held");
    let collected = log.append("collected").timeout(Duration::from_secs(1));
    let error = collected.await.expect_err("not answered");
    assert!(error.is_in_doubt(), "{error:?}");
    let token = error.token().expect("named from the start").clone();
    assert_eq!(log.resolve(&token).await.expect_err("undecided").code(), ErrorCode::Unavailable);
    let held = held.expire().expect_err("not answered").token().expect("a token").clone();
    log.reconfig_extend("scripted", None).await.expect("swapped");
    for token in [&token, &held] {
        assert_eq!(log.resolve(token).await.expect("decided"), None);
    }
    script.let_go();
    log.flush().await.expect("both were told of");
    for token in [&token, &held] {
        assert_eq!(log.resolve(token).await.expect("as before"), None);
    }
    assert_eq!(log.append("on").await.expect("goes on"), LogPos(0));
    assert_eq!(texts(&log).await, ["on"]);
}

/// What was sent on to the next segment and is in doubt there is undecided while that one is open,
/// though the first one ended without it.
#[tokio::test(start_paused = true)]
async fn a_doubt_is_about_the_segment_it_was_sent_to_last() {
    for (lost, position) in [(Then::StoreAndDrop, Some(LogPos(0))), (Then::Drop, None)] {
        let (log, script) = open(WIDE).await;
        let stored = position.is_some();
        script.then([Then::SealFirst, lost]);
        let error = log.append("lost").await.expect_err("nobody answered");
        let token = error.token().expect("a token").clone();
        match log.resolve(&token).await {
            Ok(found) => assert_eq!((found, stored), (position, true)),
            Err(error) => assert_eq!((error.code(), stored), (ErrorCode::Unavailable, false)),
        }
        log.reconfig_extend("scripted", None).await.expect("swapped");
        assert_eq!(log.resolve(&token).await.expect("decided"), position);
    }
}

/// Batches that are out stay at one loglet: else one could be told that it failed, definitely,
/// while its copy is in the log, and the one behind it would stand before it.
#[tokio::test(start_paused = true)]
async fn a_swap_between_two_batches_keeps_their_order() {
    let (log, script) = open(WIDE).await;
    script.then([Then::Hold]);
    let first = log.append("first");
    log.reconfig_extend("scripted", None).await.expect("swapped");
    let second = log.append_many(["second", "third"]);
    script.let_go();
    assert_eq!(first.await.expect("goes on in the next segment"), LogPos(0));
    assert_eq!(second.await.expect("behind it"), LogPos(1));
    assert_eq!(texts(&log).await, ["first", "second", "third"]);
}

/// A loglet that never answers any more, as one that was deleted with all who knew it, holds nobody up
/// once the chain shows its segment closed; and what it says all the same is too late.
#[tokio::test(start_paused = true)]
async fn a_segment_that_ended_is_not_waited_for() {
    let (log, script) = open(WIDE).await;
    log.append("before").await.expect("appended");
    script.then([Then::Hold, Then::Hold]);
    let mut held = log.append("held");
    log.reconfig_extend("scripted", None).await.expect("swapped");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(script.held(), 2, "it was sent on, with the paused clock");
    // The answer to the first copy, not to this one.
    script.answer(Err(LogletError::Refused(Error::new(ErrorCode::DiskFull, "full"))));
    assert!(held.wait_timeout(Duration::ZERO).is_none());
    script.let_go();
    assert_eq!(held.await.expect("appended"), LogPos(1));
    assert_eq!(texts(&log).await, ["before", "held"]);
}

/// A batch behind a refused one meets the seal: it must not go out again.
#[tokio::test(start_paused = true)]
async fn what_is_behind_a_refused_batch_stays_out() {
    let (log, script) = open(WIDE).await;
    script.then([Then::Hold, Then::Hold]);
    let full = log.append("full");
    let behind = log.append_many(["behind"]);
    assert_eq!(script.held(), 2);
    script.answer(Err(LogletError::Refused(Error::new(ErrorCode::DiskFull, "full"))));
    assert_eq!(full.await.expect_err("refused").code(), ErrorCode::DiskFull);
    log.reconfig_extend("scripted", None).await.expect("swapped");
    script.let_go();
    let error = behind.await.expect_err("behind a refused one");
    assert!(!error.is_in_doubt(), "{error:?}");
    assert_eq!(log.append("on").await.expect("goes on"), LogPos(0));
    assert_eq!(texts(&log).await, ["on"]);
}

/// A handle that slept through an extend and a trim learns it from a loglet that is gone.
#[tokio::test]
async fn a_handle_that_slept_catches_up() {
    let name = "memory:a-handle-that-slept";
    let asleep = VirtualLog::open(name).await.expect("opens");
    let mut follower = asleep.subscribe(virtuallog::Start::Tail).await.expect("subscribed");
    let awake = VirtualLog::open(name).await.expect("opens");
    awake.append("old").await.expect("appended");
    for _ in 0..2 {
        awake.reconfig_extend("memory", None).await.expect("swapped");
    }
    awake.prefix_trim(LogPos(1)).await.expect("trimmed");
    assert_eq!(follower.next().await.expect_err("gone").code(), ErrorCode::Trimmed);
    assert_eq!(asleep.append("new").await.expect("appended"), LogPos(1));
    assert_eq!(asleep.check_tail().await.expect("tail").position, LogPos(2));
    let another = VirtualLog::open(name).await.expect("opens");
    virtuallog::delete(name).await.expect("deleted");
    assert_eq!(another.check_tail().await.expect_err("deleted").code(), ErrorCode::NotFound);
}

#[tokio::test]
async fn close_ends_what_waits() {
    let log = VirtualLog::open("memory:").await.expect("opens");
    let mut follower = log.subscribe(virtuallog::Start::Tail).await.expect("subscribed");
    let waiting = tokio::spawn(async move { follower.next().await });
    tokio::task::yield_now().await;
    log.close().await.expect("closes");
    assert_eq!(waiting.await.expect("runs").expect_err("closed").code(), ErrorCode::Closed);
}

#[tokio::test(start_paused = true)]
async fn append_all_takes_no_more_than_there_is_room_for() {
    let (log, script) = open(10_000).await;
    script.then([Then::Hold]);
    let taken = std::sync::atomic::AtomicUsize::new(0);
    let payloads = (0..1000).map(|_| {
        taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        vec![b'x'; 936]
    });
    let all = log.append_all(payloads);
    tokio::pin!(all);
    assert!(futures_util::poll!(&mut all).is_pending());
    assert_eq!(taken.load(std::sync::atomic::Ordering::Relaxed), 11, "ten fit, one was looked at");
    script.let_go();
    let done = all.await.expect("appended").expect("some");
    assert_eq!((done.first, done.last, done.count), (LogPos(0), LogPos(999), 1000));
}

/// A target that cannot be made is taken back, and the log goes on as it was.
#[tokio::test(start_paused = true)]
async fn a_target_that_cannot_be_made_is_withdrawn() {
    #[derive(Debug)]
    struct Unmakeable;
    #[async_trait]
    impl LogletProvider for Unmakeable {
        fn kind(&self) -> &str {
            "unmakeable"
        }
        fn plan(&self, _args: &str) -> Result<LogletConfig> {
            let name = "unmakeable".to_owned();
            Ok(LogletConfig { kind: name.clone(), params: Default::default(), name })
        }
        async fn create(
            &self,
            _: LogletId,
            _: &LogletConfig,
            _: LogletPos,
        ) -> Result<Arc<dyn Loglet>, LogletError> {
            Err(LogletError::Refused(Error::new(ErrorCode::DiskFull, "no room: make some")))
        }
        async fn open(
            &self,
            id: LogletId,
            _: &LogletConfig,
        ) -> Result<Arc<dyn Loglet>, LogletError> {
            Err(LogletError::Unknown(id))
        }
        async fn retire(&self, _: LogId, _: &[u32], _: u32) -> Result<(), LogletError> {
            Ok(())
        }
    }
    let log = VirtualLog::builder("memory:").provider(Arc::new(Unmakeable)).open().await;
    let log = log.expect("opens");
    log.append("before").await.expect("appended");
    let error = log.reconfig_extend("unmakeable", None).await.expect_err("no room");
    assert_eq!(error.code(), ErrorCode::DiskFull);
    let chain = log.chain().await.expect("chain");
    assert_eq!((chain.next.clone(), chain.segments.len()), (None, 1));
    assert_eq!(log.append("after").await.expect("goes on"), LogPos(1));
    let chain = log.reconfig_extend("memory", None).await.expect("another one");
    assert_eq!(chain.active().index, 2, "an index is never used again");
}
