//! One writer's appends: collected into batches, sent in order, answered in order.
//!
//! Batching needs no timer. What comes while nothing is under way is sent at once; what comes
//! meanwhile is collected and goes out when the answer to the batch before it arrives, or when it
//! fills a batch. There is no task: whoever submits, and whoever brings an answer, sends what is due.
//!
//! When a batch meets a seal, sending stops until the chain names where the segment ended; then each
//! batch that was out is looked for there (see `resolve.rs`) and either has its position or goes out
//! again, in order; unless somebody's time ran out meanwhile, who holds a token that says where it was:
//! then it fails for good. When a batch fails for any other reason, all behind it that were not sent fail
//! too, definitely, and so does what is submitted before anybody was told of the failure: nothing
//! overtakes. Then the writer starts a new life under a new id.

mod patience;

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::time::Instant;
use virtuallog_protocol::{Batch, LogPos, LogletPos, WriterId};

use crate::env::{self, planted};
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Log, View};
use crate::loglet::{Ack, LogletError};
use crate::parcel::{Entries, Parcel, Payloads};
use crate::resolve::{self, Look};
use crate::ticket::{Append, Ticket};
use crate::token::Token;

/// Most batches of one writer that are out at once. More than one only when batches are full.
const BATCHES_OUT_MAX: usize = 8;

/// Failed batches that are remembered for `flush` at most.
const FAILURES_MAX: usize = 1024;

/// The state of one writer. All methods that send take the log that it belongs to.
#[derive(Debug)]
pub(crate) struct Appender {
    state: Mutex<State>,
    /// Whether a task looks at deadlines.
    watched: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// This life of the writer, and the sequence number of the next entry that is admitted.
    writer: WriterId,
    next_seq: u64,
    /// Entries being collected: the youngest of all that were admitted.
    open: Parcel,
    /// Parcels that are complete and were not sent, oldest first. Surely not in the log.
    ready: VecDeque<Parcel>,
    /// The parcel that is being framed, between `ready` and `sent`.
    in_hand: Option<Arc<Ticket>>,
    /// Batches that are out, oldest first. All of them at the same loglet, so that they stay in
    /// order whatever happens to it.
    sent: VecDeque<Sent>,
    /// Entries that the window has no room for yet, oldest first.
    waiting: VecDeque<Waiting>,
    /// Weight of everything in `open`, `ready` and `sent`.
    weight: usize,
    /// Whether a thread is sending: only one at a time, so that order holds without a lock held.
    sending: bool,
    /// Whether a seal was met and the chain's answer to it is awaited.
    rerouting: bool,
    /// Failed tickets that perhaps nobody was told of.
    failures: Vec<Arc<Ticket>>,
    /// While nobody was told of the last failure, nothing more is taken: it would overtake.
    barrier: Option<Barrier>,
    closed: bool,
}

/// What is to be done next.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a box would cost every append an allocation")]
enum Due {
    Nothing,
    Send(Parcel),
    Reroute,
}

#[derive(Debug)]
struct Sent {
    batch: Batch,
    parcel: Parcel,
    view: Arc<View>,
    /// The tail that was known when it was sent: it can only be at or after it.
    from: LogletPos,
    outcome: Option<Result<LogletPos, LogletError>>,
    /// An earlier one failed: if this one is not in the log it must not go there any more.
    doomed: bool,
    /// It was said that it gets no answer.
    complained: bool,
}

impl Sent {
    /// Whether it met the end of its loglet: sealed, or so long gone that it was deleted.
    fn met_end(&self) -> bool {
        matches!(self.outcome, Some(Err(LogletError::Sealed | LogletError::Unknown(_))))
    }
}

#[derive(Debug)]
struct Waiting {
    payloads: Payloads<'static>,
    weight: usize,
    ticket: Arc<Ticket>,
    since: Instant,
}

/// A failure that stands in the way of what was submitted before anybody knew of it.
#[derive(Debug)]
struct Barrier {
    /// Any of these being told lifts it: the failed ones, and the answer to all it turned away.
    failed: Vec<Arc<Ticket>>,
    refusal: Arc<Ticket>,
}

impl Barrier {
    fn is_told(&self) -> bool {
        self.refusal.is_seen() || self.failed.iter().any(|ticket| ticket.is_seen())
    }
}

/// What is done when no lock is held: tickets are told their answer, and views that nobody uses any more
/// are dropped, because a loglet that goes with its last view answers what it still has, here again.
#[derive(Default)]
struct Answers {
    told: Vec<(Parcel, Result<LogPos>)>,
    over: Vec<View>,
}

impl Answers {
    fn push(&mut self, parcel: Parcel, outcome: Result<LogPos>) {
        self.told.push((parcel, outcome));
    }

    fn let_go(&mut self, view: Arc<View>) {
        self.over.extend(Arc::into_inner(view));
    }

    fn failed(&self) -> impl Iterator<Item = &Arc<Ticket>> {
        let failed = self.told.iter().filter(|(_, outcome)| outcome.is_err());
        failed.flat_map(|(parcel, _)| parcel.tickets())
    }

    fn tell(self) {
        for (parcel, outcome) in self.told {
            parcel.settle(&outcome);
        }
    }
}

/// A look-up that is dropped half way, by a panic or with its runtime, leaves appends in doubt: they
/// are told so and not left hanging.
struct Unfinished<'a>(&'a Arc<Log>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.appender.rerouted(self.0, &Err(unreadable()));
    }
}

fn unreadable() -> Error {
    let message = "the append met the end of its segment, and what became of it could not be read";
    Error::new(ErrorCode::Unavailable, message)
}

/// What to do when the window is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    Wait,
    Refuse,
}

impl Appender {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                writer: new_writer(),
                next_seq: 0,
                open: Parcel::empty(0),
                ready: VecDeque::new(),
                in_hand: None,
                sent: VecDeque::new(),
                waiting: VecDeque::new(),
                weight: 0,
                sending: false,
                rerouting: false,
                failures: Vec::new(),
                barrier: None,
                closed: false,
            }),
            watched: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Submits entries, in call order.
    pub(crate) fn submit(
        &self,
        log: &Arc<Log>,
        payloads: Payloads<'_>,
        full: WhenFull,
    ) -> Result<Append> {
        log.check_writable()?;
        let weight = payloads.check(&log.options)?;
        let (append, due) = {
            let mut state = self.state();
            state.check_open()?;
            if let Some(refused) = state.turn_away(full) {
                return refused;
            }
            let append = match state.has_room(log, weight) {
                true => state.admit(log, &payloads, weight),
                false => state.wait(payloads, weight, full)?,
            };
            (append, state.next_due())
        };
        self.watch(log);
        self.run(log, due);
        Ok(append)
    }

    /// As [`submit`](Self::submit), for a caller that lends its thread: when nothing is under way
    /// the loglet may write and sync on it.
    pub(crate) fn submit_here(&self, log: &Arc<Log>, payloads: Payloads<'_>) -> Result<Append> {
        log.check_writable()?;
        let weight = payloads.check(&log.options)?;
        let mut state = self.state();
        state.check_open()?;
        if let Some(refused) = state.turn_away(WhenFull::Wait) {
            return refused;
        }
        if !state.is_idle() {
            drop(state);
            return self.submit(log, payloads, WhenFull::Wait);
        }
        let append = state.admit(log, &payloads, weight);
        let due = state.next_due();
        drop(state);
        self.watch(log);
        if let Due::Send(parcel) = due {
            self.send(log, parcel, true);
        }
        self.pump(log);
        Ok(append)
    }

    /// Does what is due, unless another thread is at it.
    fn pump(&self, log: &Arc<Log>) {
        let due = self.state().next_due();
        self.run(log, due);
    }

    fn run(&self, log: &Arc<Log>, mut due: Due) {
        loop {
            match due {
                Due::Nothing => return,
                Due::Send(parcel) => self.send(log, parcel, false),
                Due::Reroute => {
                    let (log, runtime) = (log.clone(), log.runtime.clone());
                    let work = async move { log.appender.reroute(&log).await };
                    runtime.spawn(env::task(work));
                    return;
                }
            }
            due = self.state().next_due();
        }
    }

    /// Frames a parcel and hands it to the active loglet. Called by the one thread that is sending.
    fn send(&self, log: &Arc<Log>, mut parcel: Parcel, here: bool) {
        // With the ones that are out: were they at different loglets, one could fail and the next
        // not. A loglet that is not the active one any more says so.
        let out = self.state().sent.back().map(|sent| sent.view.clone());
        let view = out.unwrap_or_else(|| log.view());
        let from = view.known_tail();
        let segment = view.chain.active().index;
        let keeps = planted::has(planted::Bug::KeepsFirstSegment);
        if !keeps && !parcel.address(segment, from) {
            let message = "a caller's time ran out, and the segment that he was told of ended without \
                           this one: it is surely not in the log";
            self.refuse(parcel, Error::new(ErrorCode::Unavailable, message));
            return;
        }
        let Some(active) = view.active.clone() else {
            self.refuse(parcel, view.over());
            return;
        };
        let mark = parcel.token();
        let (writer, seq) = (mark.writer, mark.seq);
        let batch = match std::mem::replace(&mut parcel.entries, Entries::Out) {
            Entries::Collected(builder) => builder.finish(writer, seq, env::now_micros()),
            Entries::Framed(batch) => batch,
            Entries::Out => unreachable!("a parcel is sent once"),
        };
        let sent = Sent {
            batch: batch.clone(),
            parcel,
            view,
            from,
            outcome: None,
            doomed: false,
            complained: false,
        };
        {
            let mut state = self.state();
            state.in_hand = None;
            state.sent.push_back(sent);
        }
        let back = log.clone();
        let mark = (writer, seq, segment);
        let ack = Ack::new(move |outcome| back.appender.answered(&back, mark, outcome));
        match here {
            true => active.append_blocking(batch, ack),
            false => active.append(batch, ack),
        }
        self.state().sending = false;
    }

    /// A parcel that cannot be sent at all, and with it everything behind it.
    fn refuse(&self, parcel: Parcel, error: Error) {
        let mut state = self.state();
        state.sending = false;
        state.in_hand = None;
        state.weight -= parcel.weight;
        let mut answers = Answers::default();
        answers.push(parcel, Err(error.clone()));
        state.fail_unsent(&error, &mut answers);
        state.remember_failures(&answers);
        drop(state);
        answers.tell();
    }

    /// A loglet's answer to a batch, by the segment that it was sent to: an answer may come so late that
    /// the batch was sent on.
    fn answered(
        &self,
        log: &Arc<Log>,
        mark: (WriterId, u64, u32),
        outcome: Result<LogletPos, LogletError>,
    ) {
        let mut answers = Answers::default();
        let due = {
            let mut state = self.state();
            let is_it = |sent: &&mut Sent| {
                let header = sent.batch.header();
                let segment = sent.view.chain.active().index;
                (header.writer, header.first_seq, segment) == mark && sent.outcome.is_none()
            };
            let Some(sent) = state.sent.iter_mut().find(is_it) else { return };
            sent.outcome = Some(outcome);
            state.collect_answers(&mut answers);
            state.admit_waiting(log);
            state.remember_failures(&answers);
            state.next_due()
        };
        self.run(log, due);
        answers.tell();
    }

    /// Every batch that is out met a seal: finds out what became of each.
    async fn reroute(&self, log: &Arc<Log>) {
        let unfinished = Unfinished(log);
        let (view, writers, from) = {
            let state = self.state();
            let first = state.sent.front().expect("a batch that met the seal is out");
            let writers: Vec<_> = state.sent.iter().map(|s| s.batch.header().writer).collect();
            let from = state.sent.iter().map(|s| s.from).min().expect("there is one");
            (first.view.clone(), writers, from)
        };
        let resolved = log.sealed_part(&view, &writers, from).await;
        std::mem::forget(unfinished);
        self.rerouted(log, &resolved);
    }

    fn rerouted(&self, log: &Arc<Log>, resolved: &Result<Look>) {
        let mut answers = Answers::default();
        {
            let mut state = self.state();
            match resolved {
                Ok(look) => state.resolve_sent(look, &mut answers),
                Err(error) => state.fail_sent(error, &mut answers),
            }
            state.rerouting = false;
            state.admit_waiting(log);
            state.remember_failures(&answers);
        }
        self.pump(log);
        answers.tell();
    }

    /// What a wrong resolution would see (see `PlantedBug`).
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn mistake(
        &self,
        planted: Option<crate::store::PlantedBug>,
        mut look: Look,
        first: LogPos,
    ) -> Look {
        use crate::store::PlantedBug::{DoubledResolution, LostResolution};
        match planted {
            None => {}
            Some(DoubledResolution) => look.found.clear(),
            Some(LostResolution) => {
                for Sent { batch, .. } in &self.state().sent {
                    let header = batch.header();
                    let sighting =
                        resolve::Sighting { first, count: batch.count(), crc: header.crc };
                    look.found.entry((header.writer, header.first_seq)).or_insert(sighting);
                }
            }
        }
        look
    }

    /// Waits until everything submitted so far has its answer, then tells the first failure that
    /// nobody was told of.
    pub(crate) async fn flush(&self) -> Result<()> {
        let tickets: Vec<_> = {
            let state = self.state();
            let sent = state.sent.iter().map(|sent| &sent.parcel);
            let parcels = sent.chain(&state.ready).chain([&state.open]);
            let admitted = parcels.filter(|p| p.since.is_some()).map(|p| &p.ticket);
            let admitted = admitted.chain(&state.in_hand);
            admitted.chain(state.waiting.iter().map(|w| &w.ticket)).cloned().collect()
        };
        for ticket in tickets {
            ticket.wait().await;
        }
        let failures = std::mem::take(&mut self.state().failures);
        let mut failures = failures.into_iter();
        match failures.find_map(|ticket| ticket.take_unseen_failure()) {
            None => Ok(()),
            Some(error) => {
                self.state().failures.splice(0..0, failures);
                Err(error)
            }
        }
    }

    /// Takes no more appends.
    pub(crate) fn close(&self) {
        self.state().closed = true;
    }
}

impl State {
    fn check_open(&self) -> Result<()> {
        match self.closed {
            false => Ok(()),
            true => Err(crate::log::closed()),
        }
    }

    /// The answer to an append that comes behind a failure that nobody was told of yet.
    fn turn_away(&mut self, full: WhenFull) -> Option<Result<Append>> {
        let barrier = self.barrier.as_ref()?;
        if barrier.is_told() {
            self.barrier = None;
            return None;
        }
        let append = Append::of(barrier.refusal.clone(), 0);
        Some(match full {
            WhenFull::Wait => Ok(append),
            WhenFull::Refuse => Err(append.wait().expect_err("a refusal is settled")),
        })
    }

    fn is_idle(&self) -> bool {
        !self.sending
            && !self.rerouting
            && self.sent.is_empty()
            && self.ready.is_empty()
            && self.open.since.is_none()
            && self.waiting.is_empty()
    }

    fn has_room(&self, log: &Log, weight: usize) -> bool {
        let fits = self.weight + weight <= log.options.in_flight_bytes_max || self.weight == 0;
        self.waiting.is_empty() && fits
    }

    fn admit(&mut self, log: &Log, payloads: &Payloads<'_>, weight: usize) -> Append {
        match payloads {
            Payloads::One(payload) => {
                let index = self.push_to_open(log, payload, weight);
                self.open.held = true;
                Append::of(self.open.ticket.clone(), index)
            }
            Payloads::Together(payloads) => {
                let parcel = self.push_together(log, payloads, weight);
                parcel.held = true;
                Append::of(parcel.ticket.clone(), 0)
            }
        }
    }

    /// A parcel of its own, so that nothing gets between its entries.
    fn push_together(&mut self, log: &Log, payloads: &[Bytes], weight: usize) -> &mut Parcel {
        self.close_open();
        self.weight += weight;
        let mut parcel = Parcel::empty(weight);
        parcel.begin(self.token(log));
        self.next_seq += payloads.len() as u64;
        for payload in payloads {
            parcel.push(payload);
        }
        self.ready.push_back(parcel);
        self.ready.back_mut().expect("it was just put there")
    }

    fn push_to_open(&mut self, log: &Log, payload: &[u8], weight: usize) -> u64 {
        if !self.open.builder().fits(payload.len()) {
            self.close_open();
        }
        if self.open.since.is_none() {
            let token = self.token(log);
            self.open.begin(token);
        }
        self.next_seq += 1;
        self.weight += weight;
        self.open.push(payload)
    }

    /// What names the next entry.
    fn token(&self, log: &Log) -> Token {
        let view = log.view();
        let (segment, from) = (view.chain.active().index, view.known_tail());
        Token { writer: self.writer, seq: self.next_seq, segment, from }
    }

    fn close_open(&mut self) {
        if self.open.since.is_some() {
            let capacity = self.open.weight;
            let parcel = std::mem::replace(&mut self.open, Parcel::empty(capacity));
            self.ready.push_back(parcel);
        }
    }

    fn wait(&mut self, payloads: Payloads<'_>, weight: usize, full: WhenFull) -> Result<Append> {
        if full == WhenFull::Refuse {
            let message = "the window of appends in flight is full: await some of them, \
                           or open the log with a larger `in_flight_bytes_max`";
            return Err(Error::new(ErrorCode::Busy, message));
        }
        let ticket = Arc::new(Ticket::waiting());
        let append = Append::of(ticket.clone(), 0);
        let since = Instant::now();
        let payloads = payloads.into_owned();
        self.waiting.push_back(Waiting { payloads, weight, ticket, since });
        Ok(append)
    }

    /// Gives those who wait their turn, oldest first, as far as the window has room. Behind one
    /// that was withdrawn nobody has a turn.
    fn admit_waiting(&mut self, log: &Log) {
        while let Some(waiting) = self.waiting.front() {
            let room = log.options.in_flight_bytes_max.saturating_sub(self.weight);
            if waiting.weight > room && self.weight > 0 {
                return;
            }
            let Waiting { payloads, weight, ticket, .. } =
                self.waiting.pop_front().expect("there is a front");
            if !ticket.admit() {
                let error = not_sent(ErrorCode::Deadline, "time ran out for an earlier append");
                let failed = self.fail_waiting(&error);
                self.raise_barrier(&error, failed);
                return;
            }
            let (parcel, index) = match &payloads {
                Payloads::One(payload) => {
                    let index = self.push_to_open(log, payload, weight);
                    (&mut self.open, index)
                }
                Payloads::Together(payloads) => (self.push_together(log, payloads, weight), 0),
            };
            let _ = ticket.call(parcel.token().plus(index));
            parcel.latecomers.push((ticket, index));
        }
    }

    /// What is to be done next, and with it the right to do it.
    fn next_due(&mut self) -> Due {
        if self.sending || self.rerouting {
            return Due::Nothing;
        }
        if self.sent.iter().any(Sent::met_end) {
            // Nothing more goes out, and the last answer to what is out starts the look-up.
            self.rerouting = self.sent.iter().all(|sent| sent.outcome.is_some());
            return if self.rerouting { Due::Reroute } else { Due::Nothing };
        }
        if self.ready.is_empty() && self.sent.is_empty() {
            self.close_open();
        }
        if self.sent.len() >= BATCHES_OUT_MAX {
            return Due::Nothing;
        }
        let Some(parcel) = self.ready.pop_front() else { return Due::Nothing };
        self.sending = true;
        self.in_hand = Some(parcel.ticket.clone());
        Due::Send(parcel)
    }

    /// Takes the batches that have their answer off the front, in order.
    fn collect_answers(&mut self, answers: &mut Answers) {
        while let Some(sent) = self.sent.front() {
            if sent.outcome.is_none() || sent.met_end() {
                return;
            }
            let Sent { batch, parcel, view, outcome, .. } =
                self.sent.pop_front().expect("there is a front");
            self.weight -= parcel.weight;
            match outcome.expect("just looked at") {
                Ok(first) => {
                    view.learn_tail(first.plus(batch.count()));
                    answers.push(parcel, Ok(view.chain.active().to_log(first)));
                }
                Err(error) => {
                    let error = view.append_error(error, parcel.token());
                    let code = error.code();
                    answers.push(parcel, Err(error));
                    self.sent.iter_mut().for_each(|sent| sent.doomed = true);
                    self.fail_unsent(&not_sent(code, "an earlier append failed"), answers);
                }
            }
            answers.let_go(view);
        }
    }

    /// What the sealed segment says: found batches have their positions, absent ones go out again.
    fn resolve_sent(&mut self, look: &Look, answers: &mut Answers) {
        let (mut again, mut in_doubt) = (Vec::new(), false);
        for sent in std::mem::take(&mut self.sent) {
            let Sent { batch, mut parcel, view, outcome, doomed, .. } = sent;
            answers.let_go(view);
            let header = batch.header();
            let sighting = look.found.get(&(header.writer, header.first_seq));
            let sighting = sighting.filter(|s| s.crc == header.crc && s.count == batch.count());
            // A loglet that is gone did not take it.
            let gone = matches!(outcome, Some(Err(LogletError::Unknown(_))));
            let answer = match (sighting, look.trimmed.filter(|_| !gone)) {
                (Some(sighting), _) => Ok(sighting.first),
                (None, Some(first_kept)) => {
                    in_doubt = true;
                    let error = resolve::trimmed_meanwhile(first_kept);
                    Err(error.in_doubt().with_token(parcel.token().clone()))
                }
                (None, None) if doomed => {
                    Err(not_sent(ErrorCode::Unavailable, "an earlier append failed"))
                }
                (None, None) => {
                    parcel.entries = Entries::Framed(batch);
                    again.push(parcel);
                    continue;
                }
            };
            self.weight -= parcel.weight;
            answers.push(parcel, answer);
        }
        for parcel in again.into_iter().rev() {
            self.ready.push_front(parcel);
        }
        if in_doubt {
            let why = "an earlier append is in doubt";
            self.fail_unsent(&not_sent(ErrorCode::Trimmed, why), answers);
        }
    }

    /// Nobody can say what became of the batches that are out.
    fn fail_sent(&mut self, error: &Error, answers: &mut Answers) {
        for Sent { parcel, view, .. } in std::mem::take(&mut self.sent) {
            answers.let_go(view);
            self.weight -= parcel.weight;
            let error = error.clone().in_doubt().with_token(parcel.token().clone());
            answers.push(parcel, Err(error));
        }
        self.fail_unsent(&not_sent(error.code(), "an earlier append is in doubt"), answers);
    }

    /// Fails all that was not sent, and ends this life of the writer.
    fn fail_unsent(&mut self, error: &Error, answers: &mut Answers) {
        self.close_open();
        for parcel in std::mem::take(&mut self.ready) {
            self.weight -= parcel.weight;
            answers.push(parcel, Err(error.clone()));
        }
        let mut failed = self.fail_waiting(error);
        failed.extend(answers.failed().cloned());
        self.raise_barrier(error, failed);
        self.writer = new_writer();
        self.next_seq = 0;
    }

    fn fail_waiting(&mut self, error: &Error) -> Vec<Arc<Ticket>> {
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|waiting| waiting.ticket);
        let failed: Vec<_> = waiting.filter(|ticket| ticket.withdraw(error.clone())).collect();
        self.failures.extend(failed.iter().cloned());
        failed
    }

    fn raise_barrier(&mut self, error: &Error, failed: Vec<Arc<Ticket>>) {
        let refusal = Arc::new(Ticket::default());
        refusal.settle(Err(error.clone()));
        self.barrier = Some(Barrier { failed, refusal });
    }

    fn remember_failures(&mut self, answers: &Answers) {
        self.failures.extend(answers.failed().cloned());
        if self.failures.len() > FAILURES_MAX {
            self.failures.retain(|ticket| !ticket.is_seen());
            self.failures.truncate(FAILURES_MAX);
        }
    }
}

fn new_writer() -> WriterId {
    WriterId(env::random_u128())
}

fn not_sent(code: ErrorCode, why: &str) -> Error {
    Error::new(code, format!("{why} before this one was sent: it is surely not in the log"))
}
