//! Clients that race: appenders, tail checkers, readers, trimmers and sealers at once, each on a task
//! of its own, and then the [judge](crate::testing::history).
//!
//! Nothing is expected beforehand: whatever happened has to fit one order in which every call took
//! effect while it ran. Two rules that are no matter of order are looked at apart: a writer's batches
//! lie in sequence order, and after its first failure nothing of it was acknowledged (L10).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::{JoinHandle, yield_now};
use virtuallog_protocol::{Batch, LogletId, LogletPos};

use super::{Subject, Verdict, Writer, check_shape, ensure, read_all, said, value_of};
use crate::loglet::{Ack, Loglet, LogletError};
use crate::testing::Rng;
use crate::testing::history::{self, Final, NEVER, Op, Outcome, Recorder, What};

const WRITERS: u64 = 4;
const BATCHES_EACH: u64 = 40;
/// Batches that a writer has in flight.
const WINDOW: usize = 6;
const READ_BYTES: usize = 1_500;

/// Appenders, tail checkers and readers; sealed when all is quiet.
pub async fn without_seal(subject: &Subject) -> Verdict {
    run_rounds(subject, Mix { trims: false, seals: false }).await
}

/// The same, with trims in between.
pub async fn with_trims(subject: &Subject) -> Verdict {
    run_rounds(subject, Mix { trims: true, seals: false }).await
}

/// The same, with seals in the middle of it all.
pub async fn with_seals(subject: &Subject) -> Verdict {
    run_rounds(subject, Mix { trims: true, seals: true }).await
}

#[derive(Clone, Copy)]
struct Mix {
    trims: bool,
    seals: bool,
}

async fn run_rounds(subject: &Subject, mix: Mix) -> Verdict {
    for round in 0..subject.rounds {
        run(subject, mix, round)
            .await
            .map_err(|complaint| format!("round {round}: {complaint}"))?;
    }
    Ok(())
}

/// What all clients of one run share.
struct Scene {
    id: LogletId,
    loglet: Arc<dyn Loglet>,
    recorder: Arc<Recorder>,
    /// The highest tail that a tail check gave: readers stay below (L7).
    known: AtomicU64,
    /// Batches submitted so far, by all writers.
    submitted: AtomicU64,
    /// Tells the tail checkers and trimmers to end.
    over: AtomicBool,
}

async fn run(subject: &Subject, mix: Mix, round: u64) -> Verdict {
    let base = round * 500;
    let (id, loglet) = subject.fresh(base).await?;
    let scene = Arc::new(Scene {
        id,
        loglet,
        recorder: Arc::default(),
        known: AtomicU64::new(base),
        submitted: AtomicU64::new(0),
        over: AtomicBool::new(false),
    });
    let mut rng = Rng::new(round);
    let mut seed = || Rng::new(rng.bits());
    let appenders: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(append_all(scene.clone(), writer, seed())))
        .collect();
    let mut others: Vec<JoinHandle<Verdict>> = Vec::new();
    for _ in 0..2 {
        others.push(tokio::spawn(check_tails(scene.clone())));
        others.push(tokio::spawn(follow(scene.clone(), base)));
        others.push(tokio::spawn(read_around(scene.clone(), base, seed())));
    }
    if mix.trims {
        others.push(tokio::spawn(trim_often(scene.clone(), base, seed())));
    }
    let mut sealers = Vec::new();
    if mix.seals {
        // Both somewhere in the middle, one after the other or at once.
        for _ in 0..2 {
            let after = WRITERS * BATCHES_EACH / 4 + seed().below(WRITERS * BATCHES_EACH / 4);
            sealers.push(tokio::spawn(seal_after(scene.clone(), after)));
        }
    }
    for appender in appenders {
        appender.await.map_err(|e| e.to_string())??;
    }
    for sealer in sealers {
        sealer.await.map_err(|e| e.to_string())??;
    }
    // Ends the followers, and the story.
    seal_after(scene.clone(), 0).await?;
    scene.over.store(true, Ordering::SeqCst);
    for other in others {
        other.await.map_err(|e| e.to_string())??;
    }
    judge(subject, &scene).await
}

async fn judge(subject: &Subject, scene: &Scene) -> Verdict {
    let loglet = subject.open(scene.id).await?;
    let mut last = Final {
        base: loglet.trim_point().await.map_err(said("trim_point"))?.0,
        tail: loglet.check_tail().await.map_err(said("check_tail"))?.position.0,
        entries: Vec::new(),
    };
    for batch in read_all(scene.id, &loglet).await? {
        let entries = batch.batch.entries();
        for (position, entry) in (batch.first.0..).zip(entries).filter(|(at, _)| *at >= last.base) {
            last.entries.push((position, value_of(&entry)?));
        }
    }
    history::check(&scene.recorder.take(), &last)
}

/// Values of one writer's batch number `batch`.
fn values(writer: u64, batch: u64, count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(move |i| writer << 32 | batch << 12 | i)
}

/// Submits batches with some of them in flight, and goes on for a while after a failure.
async fn append_all(scene: Arc<Scene>, writer: u64, mut rng: Rng) -> Verdict {
    let mut framer = Writer::new(u128::from(writer) + 1);
    let outcomes = Arc::new(Mutex::new(vec![None; BATCHES_EACH as usize]));
    let mut in_flight = VecDeque::new();
    for number in 0..BATCHES_EACH {
        let count = if rng.chance(3) { 1024 } else { 1 + rng.below(4) };
        let batch = framer.frame(values(writer, number, count));
        scene.submitted.fetch_add(1, Ordering::SeqCst);
        let (answered, answer) = tokio::sync::oneshot::channel();
        let invoked = scene.recorder.now();
        let (recorder, slot) = (scene.recorder.clone(), outcomes.clone());
        let ack = Ack::new(move |outcome| {
            // Here and not in the task: this is when the loglet gave its word.
            note_append(&recorder, invoked, values(writer, number, count), &outcome);
            slot.lock().expect("no panic under this lock")[number as usize] = Some(outcome.ok());
            let _ = answered.send(());
        });
        if writer == 0 && in_flight.is_empty() && rng.chance(50) {
            append_on_a_thread(scene.loglet.clone(), batch, ack).await?;
        } else {
            scene.loglet.append(batch, ack);
        }
        in_flight.push_back(answer);
        while in_flight.len() >= WINDOW {
            let answer = in_flight.pop_front().expect("not empty");
            answer.await.map_err(|_| "an append was never answered")?;
        }
        if rng.chance(30) {
            yield_now().await;
        }
    }
    for answer in in_flight {
        answer.await.map_err(|_| "an append was never answered")?;
    }
    let outcomes = outcomes.lock().expect("no panic under this lock");
    let answered = outcomes.iter().map(|outcome| outcome.ok_or("an append was never answered"));
    let answered: Vec<Option<LogletPos>> = answered.collect::<Result<_, _>>()?;
    let acked: Vec<LogletPos> = answered.iter().map_while(|outcome| *outcome).collect();
    ensure!(acked.is_sorted_by(|a, b| a < b), "L10: one writer's batches are at {acked:?}");
    let overtook = answered[acked.len()..].iter().position(Option::is_some);
    ensure!(
        overtook.is_none(),
        "L10: batch {} failed, and one after it was acknowledged",
        acked.len()
    );
    Ok(())
}

async fn append_on_a_thread(loglet: Arc<dyn Loglet>, batch: Batch, ack: Ack) -> Verdict {
    let call = tokio::task::spawn_blocking(move || loglet.append_blocking(batch, ack));
    call.await.map_err(|e| e.to_string())
}

fn note_append(
    recorder: &Recorder,
    invoked: u64,
    values: impl Iterator<Item = u64>,
    outcome: &Result<LogletPos, LogletError>,
) {
    let returned = recorder.now();
    for (value, i) in values.zip(0..) {
        let (outcome, returned) = match outcome {
            Ok(first) => (Outcome::Ok(first.0 + i), returned),
            Err(
                LogletError::Refused(_) | LogletError::OutOfOrder { .. } | LogletError::Unknown(_),
            ) => (Outcome::Failed, returned),
            Err(_) => (Outcome::Unknown, NEVER),
        };
        recorder.note(Op { invoked, returned, what: What::Append { value, outcome } });
    }
}

/// Checks the tail all the time.
async fn check_tails(scene: Arc<Scene>) -> Verdict {
    while !scene.over.load(Ordering::SeqCst) {
        let invoked = scene.recorder.now();
        let tail = scene.loglet.check_tail().await.map_err(said("check_tail"))?;
        let (position, sealed) = (tail.position.0, tail.sealed);
        scene.recorder.done(invoked, What::Tail { position, sealed });
        scene.known.fetch_max(position, Ordering::SeqCst);
        yield_now().await;
    }
    Ok(())
}

/// Reads all there is, as soon as it is there, up to the sealed tail.
async fn follow(scene: Arc<Scene>, base: u64) -> Verdict {
    let mut at = base;
    loop {
        let tail = scene.loglet.wait_tail(LogletPos(at)).await.map_err(said("wait_tail"))?;
        ensure!(tail.sealed || tail.position.0 > at, "a wait for more than {at} gave {tail:?}");
        while at < tail.position.0 {
            at = read_once(&scene, at, tail.position.0).await?;
        }
        if tail.sealed {
            return Ok(());
        }
    }
}

/// Reads here and there below a known tail.
async fn read_around(scene: Arc<Scene>, base: u64, mut rng: Rng) -> Verdict {
    while !scene.over.load(Ordering::SeqCst) {
        let known = scene.known.load(Ordering::SeqCst);
        if known > base {
            let from = base + rng.below(known - base);
            let to = from + 1 + rng.below(known - from);
            read_once(&scene, from, to).await?;
        }
        yield_now().await;
    }
    Ok(())
}

/// One read, noted position by position; gives where the next one goes on.
async fn read_once(scene: &Scene, from: u64, to: u64) -> Result<u64, String> {
    let invoked = scene.recorder.now();
    let answer = scene.loglet.read(LogletPos(from), LogletPos(to), READ_BYTES).await;
    let returned = scene.recorder.now();
    let note = |what| scene.recorder.note(Op { invoked, returned, what });
    let batches = match answer {
        Ok(batches) => batches,
        Err(LogletError::Trimmed { first_kept }) => {
            let first_kept = first_kept.0;
            note(What::Trimmed { position: from, first_kept });
            return Ok(first_kept);
        }
        Err(other) => return Err(format!("read: {other}")),
    };
    check_shape(scene.id, LogletPos(from), LogletPos(to), &batches)?;
    let mut at = from;
    for batch in &batches {
        if batch.first.0 > at {
            note(What::Empty { from: at, to: batch.first.0 });
        }
        for (position, entry) in (batch.first.0..).zip(batch.batch.entries()) {
            if (from..to).contains(&position) {
                note(What::Value { position, value: value_of(&entry)? });
            }
        }
        at = batch.end().0;
    }
    if batches.is_empty() {
        note(What::Empty { from, to });
        at = to;
    }
    Ok(at)
}

/// Trims a part of what is known, again and again, forward and back.
async fn trim_often(scene: Arc<Scene>, base: u64, mut rng: Rng) -> Verdict {
    while !scene.over.load(Ordering::SeqCst) {
        let known = scene.known.load(Ordering::SeqCst);
        let keep_from = base + rng.below((known - base) * 3 / 4 + 1);
        let invoked = scene.recorder.now();
        let trimmed = scene.loglet.prefix_trim(LogletPos(keep_from)).await;
        let first_kept = trimmed.map_err(said("prefix_trim"))?.0;
        scene.recorder.done(invoked, What::Trim { first_kept });
        ensure!(
            first_kept >= keep_from,
            "a trim to {keep_from}, all known, kept from {first_kept}"
        );
        for _ in 0..rng.below(20) {
            yield_now().await;
        }
    }
    Ok(())
}

/// Seals once `after` batches were submitted.
async fn seal_after(scene: Arc<Scene>, after: u64) -> Verdict {
    while scene.submitted.load(Ordering::SeqCst) < after {
        yield_now().await;
    }
    let invoked = scene.recorder.now();
    scene.loglet.seal().await.map_err(said("seal"))?;
    scene.recorder.done(invoked, What::Seal);
    Ok(())
}
