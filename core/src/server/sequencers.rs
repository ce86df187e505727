//! The sequencer's role: one sequencer for each loglet that was born on this node in this life.
//!
//! What is decided is `sequencer` of `core/protocol`; this file moves it. Whoever brings something, an
//! append or an answer, steps the core and then carries out what is due, in order; there is no task
//! for it. Only what waits for a time is a task: to reach a LogServer again, to finish a seal, and to
//! tell an idle loglet's known tail.
//!
//! A sequencer is born only with its loglet and never made again (rule N17): what it gave out is
//! known to nobody else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::time::Instant;
use virtuallog_protocol::log_server::LocalTail;
use virtuallog_protocol::sequencer::{self, AppendRefusal, Effect, Limits, Sequencer};
use virtuallog_protocol::{Batch, LogId, LogletId, LogletPos};

use crate::cluster::Net;
use crate::env;
use crate::error::{Error, ErrorCode};
use crate::loglets::native::quorum::Quorum;
use crate::wire::frame::{Packet, get_batch};
use crate::wire::messages::{
    Append, Appended, Create, Failure, FailureKind, Loglet, LogletParams, Notice, Reply, Request,
    Store,
};
use crate::wire::serve::Answer;
use crate::wire::transport::{Lane, NetError};

/// What one sequencer may have taken and not committed, and what it keeps for slow LogServers.
const LIMITS: Limits = Limits {
    window_bytes: 32 << 20,
    server_bytes: 16 << 20,
    retained_bytes: 16 << 20,
    writers: 16 << 10,
    batches_per_writer: 64,
};
/// What all sequencers of a node may have taken and not committed, in bytes.
const NODE_WINDOW_MAX: usize = 128 << 20;
/// Batches up to so many bytes are copied out of what was received with them.
const COPIED_MAX: usize = 4 << 10;
/// Bytes that each batch counts besides its own.
const BATCH_BYTES: usize = 256;
/// How much later than this node's LogServer the others learn of a known tail that no batch tells.
const NOTICE_AFTER: Duration = Duration::from_millis(5);
/// Before a LogServer whose disk is full is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(250);
/// Before a LogServer that failed is asked again: it doubles from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// All sequencers of a node.
pub(crate) struct Sequencers {
    net: Arc<Net>,
    runtime: Handle,
    drivers: RwLock<BTreeMap<LogletId, Arc<Driver>>>,
    /// Every loglet that this process ever sequenced.
    born: Mutex<BTreeSet<LogletId>>,
    window: Arc<AtomicUsize>,
}

impl fmt::Debug for Sequencers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sequencers")
    }
}

fn not_here() -> Reply {
    let message = "the loglet is not sequenced here, or not any more";
    Reply::Failure(Failure::new(FailureKind::NotSequencer, message, 0))
}

impl Sequencers {
    pub(crate) fn new(net: Arc<Net>) -> Sequencers {
        Sequencers {
            net,
            runtime: Handle::current(),
            drivers: RwLock::default(),
            born: Mutex::default(),
            window: Arc::default(),
        }
    }

    fn driver(&self, id: LogletId) -> Option<Arc<Driver>> {
        self.drivers.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// True when nothing is sequenced here.
    pub(crate) fn is_empty(&self) -> bool {
        self.drivers.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The loglets that are sequenced here. Those that were sealed are let go.
    pub(crate) fn ids(&self) -> Vec<LogletId> {
        let mut drivers = self.drivers.write().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|_, driver| !driver.state().core.is_sealed());
        drivers.keys().copied().collect()
    }

    /// Those that are larger or older than they may be, and not empty.
    pub(crate) fn over(&self, bytes_max: u64, age_max: Option<Duration>) -> Vec<LogletId> {
        let drivers = self.drivers.read().unwrap_or_else(PoisonError::into_inner);
        let over = drivers.values().filter(|driver| {
            let bytes = driver.bytes.load(Ordering::Relaxed);
            if driver.state().core.is_sealed() {
                return false;
            }
            let old = age_max.is_some_and(|age_max| driver.born.elapsed() > age_max);
            bytes > bytes_max || (old && bytes > 0)
        });
        over.map(|driver| driver.id).collect()
    }

    /// True when the loglet is sequenced here; `fresh`: it was made in this life and is empty, so a
    /// sequencer may be born.
    pub(crate) fn bear(
        &self,
        id: LogletId,
        base: LogletPos,
        params: LogletParams,
        fresh: bool,
    ) -> bool {
        let mut drivers = self.drivers.write().unwrap_or_else(PoisonError::into_inner);
        if drivers.contains_key(&id) {
            return true;
        }
        let mut born = self.born.lock().unwrap_or_else(PoisonError::into_inner);
        if !fresh || !born.insert(id) {
            return false;
        }
        let (net, runtime) = (self.net.clone(), self.runtime.clone());
        drivers.insert(id, Driver::new(net, runtime, id, base, params, self.window.clone()));
        true
    }

    pub(crate) fn sequencing(&self, id: LogletId, answer: Answer) {
        answer.reply(match self.driver(id) {
            Some(driver) if !driver.state().core.is_sealed() => Reply::Done(Default::default()),
            _ => not_here(),
        });
    }

    pub(crate) fn append(&self, append: &Append, body: &Bytes, answer: Answer) {
        let id = append.loglet.into();
        let Some(driver) = self.driver(id) else { return answer.reply(not_here()) };
        // What is kept for a slow LogServer must not keep what was received around it.
        let own = (body.len() <= COPIED_MAX).then(|| Bytes::copy_from_slice(body));
        let batch = match get_batch(own.as_ref().unwrap_or(body)) {
            Ok(batch) => batch,
            Err(error) => return answer.refuse(&error),
        };
        driver.append(append, batch, answer);
        if driver.state().core.is_sealed() {
            self.forget(id);
        }
    }

    /// The loglet is sealed or gone: its sequencer has nothing left to do.
    pub(crate) fn forget(&self, id: LogletId) {
        self.drivers.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Whoever waits for a sequencer of this node is told that nobody knows what became of it.
    pub(crate) fn stop(&self) {
        let gone =
            std::mem::take(&mut *self.drivers.write().unwrap_or_else(PoisonError::into_inner));
        drop(gone);
    }

    /// Loglets of a log are dead: so are their sequencers.
    pub(crate) fn retire(&self, log: LogId, live: &[u32], bound: u32) {
        let dead =
            |id: &LogletId| id.log == log && id.segment < bound && !live.contains(&id.segment);
        let mut drivers = self.drivers.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> =
            drivers.iter().filter(|(id, _)| dead(id)).map(|(_, driver)| driver.clone()).collect();
        drivers.retain(|id, _| !dead(id));
        drop(drivers);
        // Whoever still waits for one is told outside of the lock.
        drop(gone);
    }

    /// Somebody sealed the loglet here: the sequencer, if it is here too, need not find out.
    pub(crate) fn sealed(&self, id: LogletId) {
        if let Some(driver) = self.driver(id) {
            driver.found_sealed();
        }
    }
}

/// One sequencer and the links to its LogServers.
struct Driver {
    weak: Weak<Driver>,
    id: LogletId,
    base: LogletPos,
    params: LogletParams,
    net: Arc<Net>,
    runtime: Handle,
    /// Shared by all sequencers of the node.
    window: Arc<AtomicUsize>,
    born: Instant,
    /// Of all batches that were taken.
    bytes: AtomicU64,
    state: Mutex<State>,
}

struct State {
    core: Sequencer<Batch, Answer>,
    /// What is due, in order.
    due: VecDeque<Effect<Batch, Answer>>,
    scratch: Vec<Effect<Batch, Answer>>,
    /// A thread carries out what is due: only one at a time.
    busy: bool,
    servers: Vec<Server>,
    /// The known tail that this node's LogServer was told, and whether a task tells the others.
    told: LogletPos,
    telling: bool,
    /// What of the node's window is this sequencer's.
    counted: usize,
    /// Why batches were turned away last.
    why_full: Option<Error>,
}

#[derive(Clone, Default)]
struct Server {
    /// Rises with each new beginning: answers to what went out before say nothing about it.
    turn: u64,
    /// A task tries to reach it.
    reaching: bool,
    /// Why it stores nothing: its disk is full.
    full: Option<Error>,
}

impl State {
    /// What the LogServers say, if a majority's disks are full.
    fn full_disks(&self) -> Option<Error> {
        let mut full = self.servers.iter().filter_map(|server| server.full.as_ref());
        let disk = full.next()?;
        (1 + full.count() > self.servers.len() / 2).then(|| disk.clone())
    }
}

impl Driver {
    fn new(
        net: Arc<Net>,
        runtime: Handle,
        id: LogletId,
        base: LogletPos,
        params: LogletParams,
        window: Arc<AtomicUsize>,
    ) -> Arc<Driver> {
        let count = params.members.len();
        let mut core = Sequencer::new(base, count, LIMITS);
        let mut scratch = Vec::new();
        for server in 0..count {
            core.connected(server, &mut scratch);
        }
        let state = Mutex::new(State {
            core,
            due: scratch.drain(..).collect(),
            scratch,
            busy: false,
            servers: vec![Server::default(); count],
            told: base,
            telling: false,
            counted: 0,
            why_full: None,
        });
        Arc::new_cyclic(|weak| Driver {
            weak: weak.clone(),
            id,
            base,
            params,
            net,
            runtime,
            window,
            born: Instant::now(),
            bytes: AtomicU64::new(0),
            state,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Steps the core and carries out what follows from it.
    fn step(&self, step: impl FnOnce(&mut State, &mut Vec<Effect<Batch, Answer>>)) {
        {
            let mut state = self.state();
            let mut out = std::mem::take(&mut state.scratch);
            step(&mut state, &mut out);
            state.due.extend(out.drain(..));
            state.scratch = out;
            let (before, now) = (state.counted, state.core.window());
            state.counted = now;
            match now >= before {
                true => self.window.fetch_add(now - before, Ordering::Relaxed),
                false => self.window.fetch_sub(before - now, Ordering::Relaxed),
            };
            if std::mem::replace(&mut state.busy, true) {
                return;
            }
        }
        loop {
            let (effect, turn) = {
                let mut state = self.state();
                let Some(effect) = state.due.pop_front().or_else(|| self.idle(&mut state)) else {
                    state.busy = false;
                    return;
                };
                let turn = match &effect {
                    Effect::Store { server, .. } => state.servers[*server].turn,
                    _ => 0,
                };
                (effect, turn)
            };
            self.carry_out(effect, turn);
        }
    }

    /// When all is committed and nothing is to be done, no batch tells the LogServers so. The one of
    /// this node learns it at once, for those who wait there for entries; the others a little later,
    /// and only if nothing came: an append that is alone then costs no messages but its own.
    fn idle(&self, state: &mut State) -> Option<Effect<Batch, Answer>> {
        let known_tail = state.core.known_tail();
        if known_tail == state.told || state.core.window() > 0 || state.core.is_sealed() {
            return None;
        }
        state.told = known_tail;
        if !std::mem::replace(&mut state.telling, true) {
            self.runtime.spawn(env::task(tell_later(self.weak.clone())));
        }
        Some(Effect::Notice { server: self.params.sequencer as usize, known_tail })
    }

    fn append(&self, append: &Append, batch: Batch, answer: Answer) {
        let header = *batch.header();
        let bytes = batch.as_bytes().len() + BATCH_BYTES;
        let full = self.is_full(bytes);
        let append = sequencer::Append {
            writer: header.writer,
            first_seq: header.first_seq,
            count: batch.count(),
            bytes,
            at: append.at.map(LogletPos),
            resend: append.resend,
            round: append.round,
            floor: append.floor,
            batch,
            token: answer,
        };
        if full {
            // By the core, which knows what it took before, and turns away what follows.
            return self.step(|state, out| state.core.turn_away(append, out));
        }
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.step(|state, out| state.core.append(append, out));
    }

    /// Whether nothing can be taken now: the node is at its limit, or a majority's disks are full.
    fn is_full(&self, bytes: usize) -> bool {
        let window = self.window.load(Ordering::Relaxed);
        let mut state = self.state();
        state.why_full = match state.full_disks() {
            None if window > 0 && window + bytes > NODE_WINDOW_MAX => {
                Some(Error::new(ErrorCode::Busy, "the node takes no more now: try again"))
            }
            disk => disk,
        };
        state.why_full.is_some()
    }

    fn carry_out(&self, effect: Effect<Batch, Answer>, turn: u64) {
        match effect {
            Effect::Store { server, first, known_tail, batch } => {
                let request = Request::Store(Store {
                    loglet: self.id.into(),
                    first: first.0,
                    known_tail: known_tail.0,
                });
                let packet = Packet::request(request, batch.as_bytes().clone());
                let weak = self.weak.clone();
                match self.net.link(self.params.members[server].into(), Lane::Append) {
                    Ok(link) => link.call(
                        packet,
                        Box::new(move |answer| {
                            if let Some(driver) = weak.upgrade() {
                                driver.answered(server, turn, answer);
                            }
                        }),
                    ),
                    Err(error) => self.answered(server, turn, Err(NetError::NotSent(error))),
                }
            }
            Effect::Notice { server, known_tail } => {
                let notice = Notice { loglet: self.id.into(), known_tail: known_tail.0 };
                let packet = Packet::request(Request::Notice(notice), Bytes::new());
                if let Ok(link) = self.net.link(self.params.members[server].into(), Lane::Append) {
                    link.tell(packet);
                }
            }
            Effect::Commit { token, first, known_tail } => {
                token.reply(Reply::Appended(Appended { first: first.0, known_tail: known_tail.0 }));
            }
            Effect::Refuse { token, why } => {
                let full = self.state().why_full.clone();
                match (full, why) {
                    (Some(error), AppendRefusal::Busy) => token.refuse(&error),
                    (Some(error), AppendRefusal::Stuck) => {
                        token.reply(Reply::Failure(Failure::in_doubt(&error)));
                    }
                    _ => token.reply(refusal(why)),
                }
            }
            Effect::FinishSeal => self.finish_seal(),
        }
    }

    fn answered(&self, server: usize, turn: u64, answer: Result<Packet, NetError>) {
        let reply = answer.map_err(|error| error.error().clone());
        let reply = reply.and_then(|packet| packet.to_reply());
        match reply {
            Ok(Reply::LocalTail(tail)) => self.tail_of(server, &tail),
            Ok(Reply::Failure(failure)) => match failure.kind() {
                FailureKind::Sealed => self.found(server, LogletPos(0), true),
                FailureKind::Gap => self.again(server, turn, LogletPos(failure.number)),
                _ => self.lost(server, turn, Some(&failure)),
            },
            _ => self.lost(server, turn, None),
        }
    }

    fn tail_of(&self, server: usize, tail: &crate::wire::messages::LocalTail) {
        self.found(server, tail.tail.into(), tail.sealed);
    }

    fn found(&self, server: usize, tail: LogletPos, sealed: bool) {
        self.step(|state, out| {
            state.servers[server].full = None;
            state.core.answered(server, LocalTail { tail, sealed }, out);
        });
    }

    fn found_sealed(&self) {
        let own = self.params.member_ids().position(|member| self.net.is_local(member));
        if let Some(server) = own {
            self.found(server, LogletPos(0), true);
        }
    }

    /// Something before a batch was missing: everything behind was refused too, so it goes out again.
    fn again(&self, server: usize, turn: u64, tail: LogletPos) {
        self.step(|state, out| {
            if state.servers[server].turn != turn {
                return;
            }
            state.servers[server].turn += 1;
            state.core.answered(server, LocalTail { tail, sealed: false }, out);
            state.core.disconnected(server);
            state.core.connected(server, out);
        });
    }

    /// The LogServer is not to be reached, or cannot do it now.
    fn lost(&self, server: usize, turn: u64, failure: Option<&Failure>) {
        let (reach, is_full, stuck) = {
            let mut state = self.state();
            if state.servers[server].turn != turn || state.core.is_sealed() {
                return;
            }
            let full = failure.map(Failure::error).filter(|e| e.code() == ErrorCode::DiskFull);
            state.core.disconnected(server);
            let server = &mut state.servers[server];
            server.turn += 1;
            server.full = full;
            let (reach, is_full) =
                (!std::mem::replace(&mut server.reaching, true), server.full.is_some());
            let stuck = state.full_disks();
            (reach, is_full, stuck)
        };
        // It may take long until somebody makes room: whoever waits is told why.
        if let Some(disk) = stuck {
            self.step(|state, out| {
                state.why_full = Some(disk);
                state.core.let_go(out);
            });
        }
        if reach {
            let first = if is_full { FULL_PAUSE } else { PAUSE.0 };
            self.runtime.spawn(env::task(reach_again(self.weak.clone(), server, first)));
        }
    }

    /// True when the LogServer is there again, or nothing more is to be done.
    async fn reach(&self, server: usize) -> bool {
        if self.state().core.is_sealed() {
            return true;
        }
        let member = self.params.members[server].into();
        let ask = |request| self.net.ask(member, Lane::Control, request, Bytes::new());
        let mut answer = ask(Request::GetTail(Loglet { loglet: self.id.into() })).await;
        if let Ok((Reply::Failure(failure), _)) = &answer
            && failure.kind() == FailureKind::Unknown
        {
            // It was away when the loglet was made. An id that was retired is refused.
            let create = Create { loglet: self.id.into(), base: self.base.0, sequence: None };
            answer = ask(Request::Create(create)).await;
        }
        let Ok((Reply::LocalTail(tail), _)) = answer else { return false };
        self.step(|state, out| {
            state.servers[server].reaching = false;
            let answer = LocalTail { tail: tail.tail.into(), sealed: tail.sealed };
            state.core.answered(server, answer, out);
            state.core.connected(server, out);
        });
        true
    }

    /// One LogServer was found sealed: the others are sealed too, then all that is out is answered.
    fn finish_seal(&self) {
        let quorum = Quorum::new(self.net.clone(), self.id, self.params.clone());
        let weak = self.weak.clone();
        self.runtime.spawn(env::task(async move {
            let mut pause = PAUSE.0;
            while weak.strong_count() > 0 && quorum.seal().await.is_err() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            if let Some(driver) = weak.upgrade() {
                driver.step(|state, out| state.core.seal(out));
            }
        }));
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let counted = self.state().counted;
        self.window.fetch_sub(counted, Ordering::Relaxed);
    }
}

async fn tell_later(driver: Weak<Driver>) {
    tokio::time::sleep(NOTICE_AFTER).await;
    let Some(driver) = driver.upgrade() else { return };
    driver.step(|state, out| {
        state.telling = false;
        // With something under way there is a next time.
        if state.core.window() == 0 && !state.core.is_sealed() {
            state.core.notices(out);
        }
    });
}

async fn reach_again(driver: Weak<Driver>, server: usize, mut pause: Duration) {
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
        let Some(driver) = driver.upgrade() else { return };
        if driver.reach(server).await {
            return;
        }
    }
}

fn refusal(why: AppendRefusal) -> Reply {
    let text = why.to_string();
    Reply::Failure(match why {
        AppendRefusal::Sealed => Failure::new(FailureKind::Sealed, text, 0),
        AppendRefusal::Outrun => Failure::new(FailureKind::Unavailable, text, 0),
        AppendRefusal::OutOfOrder { expected } => {
            Failure::new(FailureKind::OutOfOrder, text, expected)
        }
        AppendRefusal::Busy => Failure::refused(&Error::new(
            ErrorCode::Busy,
            "the sequencer's window is full: try again when some of it is answered",
        )),
        AppendRefusal::Forgotten | AppendRefusal::Stuck => {
            Failure::new(FailureKind::InDoubt, text, 0)
        }
        AppendRefusal::Misplaced { next } => Failure::refused(&Error::invalid(format!(
            "a copy that does not go there: the next position is {next}"
        ))),
    })
}
