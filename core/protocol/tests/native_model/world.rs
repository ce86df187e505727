//! The world of the model: LogServers, a sequencer, clients and a chain, made of the very cores.
//!
//! The network is a set of messages that only grows: whatever was sent may come now, later, twice or
//! never. Of answers to the sequencer only the best is kept for each LogServer, since the sequencer
//! takes the best. What a client asks is one step at the LogServer and is heard at once; a seal may also
//! come without its answer being heard.
//!
//! LogServers are alike, so states that differ only in their numbering are one state. What the cores hash
//! to is kept beside them, since a step changes only one or two of them.
//!
//! A LogServer decides, syncs and answers in one step, because its store answers a block as if it had
//! happened at its sync. Mistakes of the parts around the cores are [`Mistake`]s and have their steps
//! here.

use std::hash::{Hash, Hasher};
use std::rc::Rc;

use virtuallog_protocol::log_server::{LocalLog, LocalTail, Refusal, Verdict};
use virtuallog_protocol::planted::Planted;
use virtuallog_protocol::repair::{Copied, Repair, RepairStep};
use virtuallog_protocol::sequencer::{Append, Effect, Limits, Sequencer};
use virtuallog_protocol::tail_quorum::{Step, TailCheck};
use virtuallog_protocol::{LogletPos, Tail, WriterId};

use crate::search::{Folded, Model};

/// LogServers.
pub(crate) const N: usize = 3;
const MAJORITY: usize = 2;
/// Positions at most.
const K: usize = 2;
const LIMITS: Limits = Limits {
    window_bytes: 100,
    server_bytes: 100,
    retained_bytes: 100,
    writers: 1,
    batches_per_writer: 9,
};

/// With what a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    /// It checks the tail.
    Tail,
    /// It reconfigures: seals, and checks the tail by the answers.
    Seal,
}

/// What the parts around the cores can do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// N4: a seal is answered while an append that passed the check is still being synced.
    SealOvertakes,
    /// N5: the seal bit is lost in a crash.
    SealForgotten,
    /// N6: the tail is sampled first and the seal bit later.
    TwoSamples,
    /// N7: a LogServer that lost its disk comes back empty and votes.
    BlankVotes,
    /// N15: a repair raises the known tail of the LogServer.
    RepairRaisesKnownTail,
    /// A reader is shown a sealed tail before the chain decides.
    ShowsSealedTail,
    /// The sequencer is made again for the same loglet.
    SequencerAgain,
    /// The chain is written unconditionally.
    PlainWrite,
}

/// What is modelled.
#[derive(Clone, Debug)]
pub(crate) struct World {
    /// How many batches of one entry are appended.
    pub(crate) positions: u8,
    /// Who asks.
    pub(crate) clients: Vec<Ask>,
    /// One LogServer may lose its disk.
    pub(crate) amnesia: bool,
    /// Nothing is acknowledged and no seal is stray: few states, for what needs neither.
    pub(crate) quiet: bool,
    /// Mistakes in the cores.
    pub(crate) planted: Planted,
    /// A mistake around them.
    pub(crate) mistake: Option<Mistake>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Server {
    log: LocalLog,
    /// What it wrote; 0 is nothing.
    values: [u8; K],
    /// It lost its disk and refuses.
    lost: bool,
    /// Its best answers to each life of the sequencer, heard or not.
    answers: [(LogletPos, bool); 2],
    /// A batch between check and sync (`SealOvertakes`).
    syncing: Option<(u8, u8)>,
}

#[derive(Clone)]
struct Client {
    ask: Ask,
    check: TailCheck,
    /// Who answered, and is not asked again but for a reason.
    answered: [bool; N],
    /// The known tail that it was told.
    told: LogletPos,
    /// What was acknowledged when it began.
    floor: Option<LogletPos>,
    repair: Option<Repair<u8>>,
    /// What its tail check says.
    step: Step,
    /// First samples (`TwoSamples`).
    sampled: [Option<LogletPos>; N],
}

#[derive(Clone)]
enum Caller {
    Checking(Rc<Hashed<Client>>),
    Done { floor: LogletPos, tail: LogletPos, sealed: bool },
}

#[derive(Clone)]
struct Life {
    sequencer: Sequencer<u8, u8>,
    appended: u8,
    /// The tails that it heard.
    heard: [LogletPos; N],
    /// Bit `4 * position + known_tail` for each batch that was sent.
    sent: u16,
    acked: LogletPos,
}

/// What knows LogServers by number: a hash of each one's part, and of all the rest.
trait Parts {
    fn parts(&self) -> (u64, [u64; N]);
}

/// A value and its hashes.
#[derive(Clone)]
struct Hashed<T> {
    value: T,
    parts: (u64, [u64; N]),
}

impl<T: Parts> Hashed<T> {
    fn new(value: T) -> Rc<Hashed<T>> {
        let parts = value.parts();
        Rc::new(Hashed { value, parts })
    }
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = Folded(0);
    value.hash(&mut hasher);
    hasher.finish()
}

impl Parts for Life {
    fn parts(&self) -> (u64, [u64; N]) {
        let (rest, servers) = self.sequencer.parts();
        let columns = std::array::from_fn(|server| hash(&servers[server]));
        (hash((rest, self.appended, self.sent, self.acked)), columns)
    }
}

impl Parts for Client {
    fn parts(&self) -> (u64, [u64; N]) {
        let (rest, servers) = self.check.parts();
        let mut columns = std::array::from_fn(|server| {
            hash((&servers[server], self.answered[server], self.sampled[server]))
        });
        let mut rest = hash((rest, self.ask, self.told, self.floor));
        if let Some(repair) = &self.repair {
            let (more, members) = repair.parts();
            rest = hash((rest, more));
            members.for_each(|(server, part)| columns[server] = hash((columns[server], part)));
        }
        (rest, columns)
    }
}

/// One state.
#[derive(Clone)]
pub(crate) struct State {
    servers: [Server; N],
    lives: Vec<Rc<Hashed<Life>>>,
    callers: Vec<Caller>,
    /// The highest known tail that a repair made.
    raised: LogletPos,
    boundary: Option<LogletPos>,
    rewritten: bool,
    shown: LogletPos,
    fault: bool,
}

/// One step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    /// A life of the sequencer takes a batch.
    Append { life: usize },
    /// A batch comes to a LogServer.
    Store { life: usize, position: u8, known_tail: u8, server: usize },
    /// A batch that passed the check is synced.
    Sync { server: usize },
    /// An answer comes to a life of the sequencer.
    Hear { life: usize, server: usize, sealed: bool },
    /// A seal comes whose answer nobody hears.
    StraySeal { server: usize },
    /// A client asks, and hears the answer.
    Ask { client: usize, server: usize },
    /// A client is told the known tail, by a LogServer that was told it.
    Push { client: usize },
    /// A client does what its tail check says.
    Decide { client: usize },
    /// A client does a step of its repair.
    Repair { client: usize },
    /// A client writes the boundary into the chain.
    Install { client: usize },
    /// A LogServer loses its disk.
    Forget { server: usize },
    /// A LogServer crashes and comes back.
    Crash { server: usize },
    /// The sequencer is made again.
    Again,
}

impl World {
    /// Everything as it begins.
    pub(crate) fn start(&self) -> State {
        let server = Server {
            log: LocalLog::new(LogletPos(0)),
            values: [0; K],
            lost: false,
            answers: [(LogletPos(0), false); 2],
            syncing: None,
        };
        let caller = |ask: &Ask| {
            Caller::Checking(Hashed::new(Client {
                ask: *ask,
                check: TailCheck::new(LogletPos(0), N).planted(self.planted),
                answered: [false; N],
                told: LogletPos(0),
                floor: None,
                repair: None,
                step: Step::Wait,
                sampled: [None; N],
            }))
        };
        State {
            servers: [server; N],
            lives: vec![Hashed::new(self.life())],
            callers: self.clients.iter().map(caller).collect(),
            raised: LogletPos(0),
            boundary: None,
            rewritten: false,
            shown: LogletPos(0),
            fault: false,
        }
    }

    fn life(&self) -> Life {
        let sequencer = Sequencer::new(LogletPos(0), N, LIMITS).planted(self.planted);
        Life { sequencer, appended: 0, heard: [LogletPos(0); N], sent: 0, acked: LogletPos(0) }
    }

    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn actions(&self, state: &State) -> Vec<Action> {
        let mut all = Vec::new();
        for (life, it) in state.lives.iter().enumerate() {
            self.life_actions(state, life, &it.value, &mut all);
        }
        let seals = self.clients.contains(&Ask::Seal) && !self.quiet;
        for (server, it) in state.servers.iter().enumerate() {
            if seals && !it.lost && !it.log.sealed {
                all.push(Action::StraySeal { server });
            }
            if it.syncing.is_some() {
                all.push(Action::Sync { server });
            }
            let used = it.log != LocalLog::new(LogletPos(0));
            if used && !state.fault && (self.amnesia || self.makes(Mistake::BlankVotes)) {
                all.push(Action::Forget { server });
            }
            if it.log.sealed && !state.fault && self.makes(Mistake::SealForgotten) {
                all.push(Action::Crash { server });
            }
        }
        for (client, caller) in state.callers.iter().enumerate() {
            match caller {
                Caller::Checking(it) => Self::client_actions(state, client, &it.value, &mut all),
                Caller::Done { sealed: true, .. }
                    if state.boundary.is_none() || self.makes(Mistake::PlainWrite) =>
                {
                    all.push(Action::Install { client });
                }
                Caller::Done { .. } => {}
            }
        }
        if self.makes(Mistake::SequencerAgain) && state.lives.len() == 1 {
            all.push(Action::Again);
        }
        all
    }

    fn life_actions(&self, state: &State, life: usize, it: &Life, all: &mut Vec<Action>) {
        if it.appended < self.positions && life + 1 == state.lives.len() {
            all.push(Action::Append { life });
        }
        for (server, at) in state.servers.iter().enumerate().filter(|(_, at)| !at.lost) {
            let (tail, sealed) = at.answers[life];
            for bit in (0..16).filter(|bit| it.sent & 1 << bit != 0) {
                let (position, known_tail) = (bit / 4, bit % 4);
                let news = match self.verdict(at, position, known_tail) {
                    Ok(Verdict::Write) => at.syncing.is_none(),
                    Ok(Verdict::Held) | Err(Refusal::Gap { .. }) => tail < at.log.tail,
                    Err(Refusal::Sealed) => !sealed,
                    Err(Refusal::Conflict { .. } | Refusal::NotSealed) => false,
                };
                if news {
                    all.push(Action::Store { life, position, known_tail, server });
                }
            }
        }
        // Where nothing is outstanding, or nothing new is said, hearing changes nothing that matters.
        let hears = it.sequencer.window() > 0 && !self.quiet;
        for (server, at) in state.servers.iter().enumerate().filter(|_| hears) {
            let (tail, sealed) = at.answers[life];
            if tail > it.heard[server] {
                all.push(Action::Hear { life, server, sealed: false });
            }
            if sealed && at.log.tail > it.heard[server] {
                all.push(Action::Hear { life, server, sealed: true });
            }
        }
    }

    fn verdict(&self, at: &Server, position: u8, known_tail: u8) -> Result<Verdict, Refusal> {
        let (first, known_tail) = (LogletPos(position.into()), LogletPos(known_tail.into()));
        at.log.store_with(self.planted, first, 1, known_tail)
    }

    fn known_tail(state: &State) -> LogletPos {
        let known = state.lives.iter().map(|life| life.value.sequencer.known_tail());
        known.max().expect("there is a life").max(state.raised)
    }

    fn client_actions(state: &State, client: usize, it: &Client, all: &mut Vec<Action>) {
        if it.repair.is_some() {
            return all.push(Action::Repair { client });
        }
        let mut ask = it.answered.map(|answered| !answered);
        match &it.step {
            Step::WaitFor { servers, .. } => servers.iter().for_each(|at| ask[*at] = true),
            Step::Wait | Step::Lost => {}
            Step::Tail(_) | Step::SealAll | Step::Repair(_) => all.push(Action::Decide { client }),
        }
        // Elsewhere a known tail is no matter.
        let matters = matches!(it.step, Step::WaitFor { .. } | Step::Repair(_));
        if matters && it.told < Self::known_tail(state) {
            all.push(Action::Push { client });
        }
        let asked = (0..N).filter(|server| ask[*server]);
        all.extend(asked.map(|server| Action::Ask { client, server }));
    }

    fn act(&self, state: &mut State, action: Action) {
        match action {
            Action::Append { life } => Self::append(state, life),
            Action::Store { life, position, known_tail, server } => {
                self.store(state, life, position, known_tail, server);
            }
            Action::Sync { server } => Self::sync(&mut state.servers[server]),
            Action::Hear { life, server, sealed } => Self::hear(state, life, server, sealed),
            Action::StraySeal { server } => state.servers[server].log.seal(),
            Action::Ask { client, server } => self.ask(state, client, server),
            Action::Push { client } => {
                let known_tail = Self::known_tail(state);
                Self::client(state, client, |it| {
                    it.told = known_tail;
                    it.check.known_tail(known_tail);
                });
            }
            Action::Decide { client } => self.decide(state, client),
            Action::Repair { client } => self.repair(state, client),
            Action::Install { client } => Self::install(state, client),
            Action::Forget { server } => {
                let it = &mut state.servers[server];
                it.lost = !self.makes(Mistake::BlankVotes);
                (it.log, it.values, it.syncing) = (LocalLog::new(LogletPos(0)), [0; K], None);
                state.fault = true;
            }
            Action::Crash { server } => {
                state.servers[server].log.sealed = false;
                state.fault = true;
            }
            Action::Again => state.lives.push(Hashed::new(self.life())),
        }
    }

    /// Changes a client that is not done.
    fn client<R>(state: &mut State, client: usize, change: impl FnOnce(&mut Client) -> R) -> R {
        let Caller::Checking(it) = &mut state.callers[client] else { unreachable!("it is done") };
        let mut next = it.value.clone();
        let outcome = change(&mut next);
        next.step = next.check.clone().step(true);
        *it = Hashed::new(next);
        outcome
    }

    fn append(state: &mut State, life: usize) {
        Self::sequencer(state, life, |it, out| {
            let value = 1 + it.appended + 4 * life as u8;
            let append = Append {
                writer: WriterId(1),
                first_seq: u64::from(it.appended),
                count: 1,
                bytes: 1,
                at: None,
                resend: false,
                round: 0,
                floor: u64::from(it.appended),
                batch: value,
                token: value,
            };
            it.appended += 1;
            it.sequencer.append(append, out);
        });
    }

    /// Has a life of the sequencer do something, and then send again whatever it would on new
    /// connections.
    fn sequencer(
        state: &mut State,
        life: usize,
        change: impl FnOnce(&mut Life, &mut Vec<Effect<u8, u8>>),
    ) {
        let mut next = state.lives[life].value.clone();
        let mut out = Vec::new();
        change(&mut next, &mut out);
        for server in 0..N {
            next.sequencer.connected(server, &mut out);
            next.sequencer.disconnected(server);
        }
        for effect in out {
            match effect {
                Effect::Store { first, known_tail, .. } => {
                    next.sent |= 1 << (4 * first.0 + known_tail.0);
                }
                Effect::Commit { first, .. } => next.acked = next.acked.max(first.plus(1)),
                // Seals are stray ones, at any time.
                Effect::FinishSeal | Effect::Refuse { .. } | Effect::Notice { .. } => {}
            }
        }
        state.lives[life] = Hashed::new(next);
    }

    fn store(&self, state: &mut State, life: usize, position: u8, known_tail: u8, server: usize) {
        let it = &mut state.servers[server];
        let value = 1 + position + 4 * life as u8;
        match self.verdict(it, position, known_tail) {
            Ok(Verdict::Write) => {
                it.syncing = Some((position, value));
                if !self.makes(Mistake::SealOvertakes) {
                    Self::sync(it);
                }
                it.answers[life].0 = it.log.tail;
            }
            Ok(Verdict::Held) | Err(Refusal::Gap { .. }) => it.answers[life].0 = it.log.tail,
            Err(Refusal::Sealed) => it.answers[life].1 = true,
            Err(Refusal::Conflict { .. } | Refusal::NotSealed) => unreachable!("not a step"),
        }
    }

    fn sync(it: &mut Server) {
        let (position, value) = it.syncing.take().expect("it is being synced");
        let end = LogletPos(position.into()).plus(1);
        if end > it.log.tail {
            it.values[position as usize] = value;
            it.log.written(end);
        }
        // For the mistake; where there is none this is what the answer says anyway.
        it.answers[usize::from(value > 4)].0 = it.log.tail;
    }

    fn hear(state: &mut State, life: usize, server: usize, sealed: bool) {
        let at = &state.servers[server];
        // A sealed answer carries the tail of now: the highest that any such answer had.
        let tail = if sealed { at.log.tail } else { at.answers[life].0 };
        Self::sequencer(state, life, |it, out| {
            it.heard[server] = tail;
            it.sequencer.answered(server, LocalTail { tail, sealed }, out);
        });
    }

    fn ask(&self, state: &mut State, client: usize, server: usize) {
        let acked = state.lives.iter().map(|life| life.value.acked).max().expect("there is one");
        let two_samples = self.makes(Mistake::TwoSamples);
        let at = &mut state.servers[server];
        let Caller::Checking(it) = &state.callers[client] else { unreachable!("it is done") };
        let ask = it.value.ask;
        if ask == Ask::Seal && !at.lost {
            at.log.seal();
        }
        let (lost, mut answer) = (at.lost, at.log.answer());
        Self::client(state, client, |it| {
            it.floor.get_or_insert(acked);
            it.answered[server] = true;
            if lost {
                return it.check.refused(server);
            }
            if two_samples && ask == Ask::Tail {
                match it.sampled[server].take() {
                    None => {
                        it.answered[server] = false;
                        it.sampled[server] = Some(answer.tail);
                        return;
                    }
                    Some(tail) => answer.tail = tail,
                }
            }
            it.check.answered(server, answer);
        });
    }

    fn decide(&self, state: &mut State, client: usize) {
        let (tail, floor) = Self::client(state, client, |it| {
            let step = it.check.step(true);
            match step {
                Step::SealAll => (it.ask, it.answered) = (Ask::Seal, [false; N]),
                Step::Repair(plan) => it.repair = Some(Repair::new(plan)),
                Step::Tail(tail) => return (Some(tail), it.floor),
                Step::Wait | Step::WaitFor { .. } | Step::Lost => unreachable!("nothing to do"),
            }
            (None, it.floor)
        });
        if let (Some(Tail { position, sealed }), Some(floor)) = (tail, floor) {
            if !sealed || self.makes(Mistake::ShowsSealedTail) {
                state.shown = state.shown.max(position);
            }
            state.callers[client] = Caller::Done { floor, tail: position, sealed };
        }
    }

    fn repair(&self, state: &mut State, client: usize) {
        let mut servers = state.servers;
        let mut raised = state.raised;
        Self::client(state, client, |it| {
            let repair = it.repair.as_mut().expect("it repairs");
            match repair.step() {
                RepairStep::Fetch { server, .. } | RepairStep::Store { server, .. }
                    if servers[server].lost =>
                {
                    repair.failed(server);
                    it.check.refused(server);
                }
                RepairStep::Fetch { server, from, to } => {
                    let held = |at: &u64| servers[server].values[*at as usize] != 0;
                    let copied = (from.0..to.0).filter(held).map(|at| Copied {
                        first: LogletPos(at),
                        end: LogletPos(at + 1),
                        batch: servers[server].values[at as usize],
                    });
                    repair.fetched(server, copied.collect());
                }
                RepairStep::Store { server, batches } => {
                    let target = &mut servers[server];
                    for copied in batches {
                        if target.log.repair(copied.first, 1) == Ok(Verdict::Write) {
                            target.values[copied.first.0 as usize] = copied.batch;
                            target.log.written(copied.end);
                        }
                    }
                    if self.makes(Mistake::RepairRaisesKnownTail) {
                        raised = raised.max(target.log.tail);
                    }
                    repair.stored(server, target.log.answer());
                    it.check.answered(server, target.log.answer());
                }
                RepairStep::Done | RepairStep::Restart => {}
            }
            if matches!(repair.step(), RepairStep::Done | RepairStep::Restart) {
                it.repair = None;
            }
        });
        (state.servers, state.raised) = (servers, raised);
    }

    fn install(state: &mut State, client: usize) {
        let Caller::Done { tail, .. } = state.callers[client] else { unreachable!("not done") };
        state.rewritten |= state.boundary.is_some_and(|boundary| boundary != tail);
        state.boundary = Some(tail);
    }

    fn prefix_on_majority(state: &State, end: LogletPos) -> bool {
        (0..end.0 as usize).all(|at| {
            state.servers.iter().filter(|server| server.values[at] != 0).count() >= MAJORITY
        })
    }
}

impl Model for World {
    type State = State;
    type Action = Action;

    fn hash(&self, state: &State) -> u64 {
        let mut columns: [u64; N] = std::array::from_fn(|server| {
            let lives = state.lives.iter().map(|life| life.parts.1[server]);
            let clients = state.callers.iter().map(|caller| match caller {
                Caller::Checking(it) => it.parts.1[server],
                Caller::Done { .. } => 0,
            });
            hash((state.servers[server], lives.chain(clients).fold(0, |all, it| hash((all, it)))))
        });
        columns.sort_unstable();
        let lives = state.lives.iter().map(|life| life.parts.0);
        let clients = state.callers.iter().map(|caller| match caller {
            Caller::Checking(it) => it.parts.0,
            Caller::Done { floor, tail, sealed } => hash((floor, tail, sealed)),
        });
        let rest = lives.chain(clients).fold(0, |all, it| hash((all, it)));
        let chain = (state.boundary, state.rewritten, state.shown, state.raised, state.fault);
        hash((columns, rest, chain))
    }

    fn steps(&self, state: &State, out: &mut Vec<(Action, State)>) {
        for action in self.actions(state) {
            let mut next = state.clone();
            self.act(&mut next, action);
            out.push((action, next));
        }
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        let acked = state.lives.iter().map(|life| life.value.acked).max()?;
        if state.rewritten {
            return Some("a boundary in the chain changed");
        }
        if let Some(boundary) = state.boundary {
            if acked > boundary {
                return Some("an acknowledged append is cut off");
            }
            if state.shown > boundary {
                return Some("a shown tail is above the boundary");
            }
            if Self::known_tail(state) > boundary && !self.quiet {
                return Some("a known tail is above the boundary");
            }
        }
        for caller in &state.callers {
            let Caller::Done { floor, tail, sealed } = caller else { continue };
            if tail < floor || (*sealed && *tail < acked) {
                return Some("a tail is below an acknowledged append");
            }
            if *sealed && !state.fault && !Self::prefix_on_majority(state, *tail) {
                return Some("a sealed prefix is on a minority");
            }
        }
        if !state.fault && !Self::prefix_on_majority(state, acked) {
            return Some("an acknowledged append is on a minority");
        }
        let two = |at: usize| {
            let mut values = state.servers.iter().map(|server| server.values[at]);
            let first = values.clone().find(|value| *value != 0);
            values.any(|value| value != 0 && Some(value) != first)
        };
        (0..K).any(two).then_some("two values are at one position")
    }
}
