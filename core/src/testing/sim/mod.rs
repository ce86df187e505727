//! Whole clusters in one thread, on one seed, under faults, judged by what their clients saw.
//!
//! [`run`] builds a world: the production servers (LogServers, sequencers, MetaStore), each in a
//! simulated process on a [`SimDisk`](super::simdisk::SimDisk) of its own, production clients on others,
//! and between them a network that moves encoded frames. tokio's clock is paused, so that time costs
//! nothing; chance comes from the seed. In the first phase everything fails that the seed drew. In the
//! second one the weather is calm and at most one server stays dead; from 40 seconds into it whatever is
//! asked has to work, within 10 seconds. Then every log is read back and judged: no acknowledged entry
//! lost, none twice, none from nowhere, tails and reads linearizable, chains without forks, servers that
//! forget nothing and keep nothing for ever, the same bytes on all of them. One seed in ten breaks more
//! than replication makes up for: there a loss is allowed, and has to be told. The same seed does the
//! same, to the byte: where this is built with `--cfg tokio_unstable`, without which tokio draws the order
//! of some branches itself.
//!
//! Authors of loglets have their own ones simulated by [`Options::loglets`].
//!
//! Read in this order: `plan.rs` (what a seed draws), `wires.rs` and `link.rs` (the network), `nodes.rs`
//! and `acceptors.rs` (the servers, and what they may not forget), `clients.rs` and `book.rs` (what is
//! asked, and what was seen), `nemesis.rs` (what goes wrong), `judge.rs` (the end), `trace.rs`. What it
//! does not cover: the kernel, threads, sockets.

mod acceptors;
mod book;
mod clients;
mod judge;
mod link;
mod mistakes;
mod nemesis;
mod nodes;
mod plan;
mod trace;
mod wires;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use virtuallog_protocol::LogletId;
use virtuallog_protocol::paxos::Registers;

pub use self::mistakes::{MISTAKES, Mistake};

use self::book::Book;
use self::judge::Settled;
use self::nodes::{End, Nodes, address, host};
use self::plan::{Fault, Kind, Plan};
use self::trace::Trace;
use self::wires::{Host, Wires};
use super::Rng;
use super::simdisk::{BadWrite, SimDisk};
use crate::cluster::{MemberId, Net};
use crate::env::marks;
use crate::env::simulated::{Process, Task, World as Environment, here, install};
use crate::loglet::LogletProvider;
use crate::loglets::native;
use crate::protocol::Chain;
use crate::wire::messages::{JOINING, LogletParams, Node as Row};

/// A kind of loglet that clients get besides `native` and `local`, in every log.
///
/// What it keeps is in no simulated process and on no simulated disk: it is a service that is always
/// there, used by clients that are killed, paused, and in each other's way.
#[derive(Clone)]
pub struct Engine {
    name: String,
    make: Arc<dyn Fn() -> Arc<dyn LogletProvider> + Send + Sync>,
}

impl Engine {
    /// Clients go over to loglets of this name, as [`reconfig_extend`](crate::VirtualLog::reconfig_extend)
    /// takes it: a provider's kind, and arguments behind it where it takes any. `make` gives a provider
    /// that has nothing yet, once a simulation, all of whose clients share it.
    pub fn new<P: LogletProvider + 'static>(
        name: &str,
        make: impl Fn() -> P + Send + Sync + 'static,
    ) -> Engine {
        Engine { name: name.to_owned(), make: Arc::new(move || Arc::new(make())) }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How long before the end of the calm a segment was closed of which every server has its share then (L5),
/// and a loglet dead that none has then (L8): each looks every 15 seconds, and copies what it missed at two
/// looks.
const SHARED: Duration = Duration::from_secs(50);

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// How long things fail, in simulated time.
    pub faults: Duration,
    /// How long they do not after that.
    pub calm: Duration,
    /// A mistake to plant; those of the cores and around them need the feature `planted`.
    pub mistake: Option<Mistake>,
    /// Tell everything that happens on standard output.
    pub shown: bool,
    /// Loglets of others, to which clients go over from time to time.
    pub loglets: Vec<Engine>,
}

impl Options {
    /// A minute of faults and a minute of calm, with nothing planted and nothing told.
    #[must_use]
    pub fn of_seed(seed: u64) -> Options {
        let minute = Duration::from_secs(60);
        Options {
            seed,
            faults: minute,
            calm: minute,
            mistake: None,
            shown: false,
            loglets: Vec::new(),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was simulated.
    pub seed: u64,
    /// What the seed drew.
    pub plan: String,
    /// Of everything that happened: two runs of a seed have it in common.
    pub digest: u64,
    /// How many events that were.
    pub events: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// How often something happened, by name.
    pub counters: BTreeMap<&'static str, u64>,
    /// The invariants that were broken, each in a sentence that begins with its name.
    pub broken: Vec<String>,
}

/// How many seconds a clock on the wall goes right or wrong in the same way.
const CLOCK_HOLDS: u64 = 7;

/// How long after the faults everything may take to be well.
const RECOVERY: u64 = 40_000;

thread_local! {
    static PANICS: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Notes panics by thread, also those that the runtime or the store catches.
fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let noted = PANICS.try_with(|panics| panics.borrow_mut().push(info.to_string()));
            if noted.is_err() {
                before(info);
            }
        }));
    });
}

/// Everything that parts of a simulation share.
pub(crate) struct World {
    seed: u64,
    plan: Plan,
    mistake: Option<Mistake>,
    trace: Arc<Trace>,
    nodes: Arc<Nodes>,
    books: Vec<Arc<Book>>,
    /// Loglets of others, by the names that clients have for them.
    engines: Vec<(String, Arc<dyn LogletProvider>)>,
    machines: Mutex<Vec<clients::Machine>>,
    chance: Mutex<Rng>,
    /// When the faults end, and when liveness is asked for, in milliseconds.
    calm_from: u64,
    calm: AtomicBool,
    over: AtomicBool,
    dead: AtomicU64,
    wrong: Mutex<Vec<String>>,
    /// Whose disk was damaged last.
    damaged: Mutex<Option<usize>>,
    /// What of each server's chains was noted last.
    noted: Mutex<Vec<Option<Mark>>>,
}

impl World {
    fn chance(&self) -> MutexGuard<'_, Rng> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client<T>(&self, at: usize, work: impl FnOnce(&mut clients::Machine) -> T) -> T {
        work(&mut self.machines.lock().unwrap_or_else(PoisonError::into_inner)[at])
    }

    fn clients(&self) -> usize {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn hosts(&self) -> Vec<Host> {
        let mut all: Vec<Host> = (0..self.plan.nodes).map(host).collect();
        all.extend((0..self.clients()).map(|at| self.client(at, |machine| machine.host)));
        all
    }

    /// Whether liveness is asked for by now.
    fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed) && self.trace.now() >= self.calm_from + RECOVERY
    }

    /// When what begins now has to have come back, well or not: no call waits for ever.
    fn limit(&self) -> tokio::time::Instant {
        self.trace.at(self.trace.now().max(self.calm_from) + RECOVERY)
    }

    /// Whether nothing fails any more.
    fn is_mended(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Whether some server is away for good.
    fn is_short(&self) -> bool {
        let away = |at| self.nodes.with(at, |machine| machine.damaged || machine.life.is_none());
        (0..self.plan.nodes).any(away)
    }

    fn until_calm(&self) -> u64 {
        self.calm_from.saturating_sub(self.trace.now())
    }

    fn complain(&self, complaint: String) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() < 20 {
            wrong.push(complaint);
        }
    }

    /// Starts a server, unless it is to stay dead.
    fn start_node(&self, at: usize) {
        let dead = self.dead.load(Ordering::Relaxed) >> at & 1 == 1;
        if !dead && self.nodes.with(at, |machine| machine.lost.is_none()) {
            self.nodes.start(at);
        }
    }

    /// A server whose disk may be damaged from now on, if any may be: within the budget another one
    /// than last time only once nothing rests on what that one had.
    fn may_damage(&self, rng: &mut Rng) -> Option<usize> {
        let any = rng.below(self.plan.nodes as u64) as usize;
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let at = match *damaged {
            Some(at) if !self.plan.over_budget && !self.is_restored(at) => at,
            _ => any,
        };
        // While one is replaced there are two of it in the cluster.
        let allowed = self.plan.over_budget || !self.nodes.with(at, |machine| machine.replaced);
        allowed.then(|| {
            self.nodes.with(at, |machine| machine.damaged = true);
            *damaged.insert(at)
        })
    }

    /// Whether a damaged server was replaced, and neither a log nor the MetaStore has anything on a
    /// server that is no more.
    fn is_restored(&self, at: usize) -> bool {
        if self.nodes.with(at, |machine| machine.damaged) {
            return false;
        }
        let member = |at| self.nodes.with(at, |machine| machine.life.as_ref()?.member());
        let there: Vec<_> = (0..self.plan.nodes).filter_map(member).collect();
        if !self.acceptors().is_some_and(|members| members.iter().all(|m| there.contains(m))) {
            return false;
        }
        let newest = |book: &Arc<Book>| self.chains(book).into_iter().max_by_key(|c| c.version);
        let whole = |chain: Chain| {
            let natives = chain.segments.iter().filter(|s| s.config.kind == native::KIND);
            let params = natives.map(|s| LogletParams::decode_from(&s.config.params));
            params.into_iter().all(|params| {
                params.is_ok_and(|p| p.member_ids().all(|member| there.contains(&member)))
            })
        };
        let logs = self.books.iter().filter(|book| book.kind != Kind::Embedded);
        // While no member of the MetaStore can be asked nobody knows.
        logs.map(newest).all(|chain| chain.is_some_and(whole))
    }

    /// The MetaStore's members, as whoever knows most of it says.
    fn acceptors(&self) -> Option<Vec<MemberId>> {
        let known = |at| {
            let life = self.nodes.with(at, |machine| machine.life.clone())?;
            let paxos = life.node.as_ref()?.active()?.paxos.as_ref()?;
            let applied = *paxos.applied().borrow();
            Some((applied, paxos.members()))
        };
        let newest = (0..self.plan.nodes).filter_map(known).max_by_key(|(applied, _)| *applied);
        let members = newest?.1;
        Some(members.iter().map(|member| (member.node, member.storage.into())).collect())
    }

    /// Whether so much is gone that nobody may be there to answer for a log: a majority of the MetaStore's
    /// members, or of those of one of its loglets, or of all nodes, without whom none that starts votes
    /// again, does not run, or has a disk that was damaged.
    fn is_majority_gone(&self, book: &Book) -> bool {
        if !self.plan.over_budget || book.kind == Kind::Embedded {
            return false;
        }
        let there = |at| {
            self.nodes.with(at, |machine| {
                let member = machine.life.as_ref()?.member();
                member.filter(|_| !machine.damaged && machine.lost.is_none())
            })
        };
        let there: Vec<_> = (0..self.plan.nodes).filter_map(there).collect();
        let few = |members: Vec<MemberId>| {
            members.iter().filter(|m| there.contains(m)).count() * 2 <= members.len()
        };
        let acceptors = self.acceptors();
        let voters = |at| {
            let life = self.nodes.with(at, |machine| machine.life.clone())?;
            let cluster = life.node.as_ref()?.net.cluster();
            let counted = cluster.nodes.iter().filter(|row| row.state != JOINING);
            Some(counted.map(Row::member).collect())
        };
        let voters = (0..self.plan.nodes).filter_map(voters).max_by_key(Vec::len);
        let chain = book.newest();
        let segments = chain.iter().flat_map(|chain| &chain.segments);
        let natives = segments.filter(|s| s.config.kind == native::KIND);
        let params = natives.filter_map(|s| LogletParams::decode_from(&s.config.params).ok());
        acceptors.is_none_or(few)
            || voters.is_none_or(few)
            || params.into_iter().any(|p| few(p.member_ids().collect()))
    }

    /// Which members the newest chains name for which loglets.
    fn named(&self) -> BTreeSet<(MemberId, LogletId)> {
        let mut named = BTreeSet::new();
        for chain in self.books.iter().filter_map(|book| book.newest()) {
            for segment in chain.segments.iter().filter(|s| s.config.kind == native::KIND) {
                let Ok(params) = LogletParams::decode_from(&segment.config.params) else {
                    continue;
                };
                let id = chain.loglet_id(segment);
                named.extend(params.member_ids().map(|member| (member, id)));
            }
        }
        named
    }

    /// Counts what disks did wrong since the last time: of what was ordered some never happens.
    fn count_mishaps(&self) {
        let servers = (0..self.plan.nodes).map(|at| self.nodes.with(at, |m| m.disk.take_mishaps()));
        let clients = (0..self.clients()).map(|at| self.client(at, |m| m.disk.take_mishaps()));
        for (syncs, writes) in servers.chain(clients) {
            for (fault, many) in [(Fault::FailedSync, syncs), (Fault::BadWrite, writes)] {
                self.trace.add(fault.name(), many);
                self.trace.add("faults", many);
            }
        }
    }

    /// What a member of the MetaStore has at the moment, unless that is what it had at `before`; and a
    /// mark of it, to be given next time.
    fn registers(&self, at: usize, before: Option<Mark>) -> Option<(Mark, Registers)> {
        let life = self.nodes.with(at, |machine| machine.life.clone())?;
        let paxos = life.node.as_ref()?.active()?.paxos.as_ref()?;
        let mark = (life.process.number(), *paxos.applied().borrow());
        (before != Some(mark)).then(|| (mark, paxos.registers()))
    }

    /// The chains of a log that members of the MetaStore have at the moment.
    fn chains(&self, book: &Book) -> Vec<Chain> {
        let all = (0..self.plan.nodes).filter_map(|at| self.registers(at, None));
        all.filter_map(|(_, registers)| chain_of(&registers, book)).collect()
    }

    /// What the chains say now that will stay true.
    fn settled(&self) -> Settled {
        let mut settled = Settled::default();
        for book in &self.books {
            let Some(chain) = self.chains(book).into_iter().max_by_key(|chain| chain.version)
            else {
                continue;
            };
            let closed = chain.segments.iter().filter(|segment| segment.stop.is_some());
            settled.closed.extend(closed.map(|segment| chain.loglet_id(segment)));
            settled.live.insert(chain.log, chain.live());
        }
        settled
    }

    /// Keeps those of all logs that are new.
    fn note_chains(&self) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.resize(self.plan.nodes, None);
        for (at, before) in noted.iter_mut().enumerate() {
            let Some((mark, registers)) = self.registers(at, *before) else { continue };
            *before = Some(mark);
            for book in &self.books {
                chain_of(&registers, book).iter().for_each(|chain| book.chain(chain));
            }
        }
    }
}

/// A process, and how many instances it had applied.
type Mark = (u32, u64);

fn chain_of(registers: &Registers, book: &Book) -> Option<Chain> {
    let (_, register) = registers.iter().find(|(name, _)| *name == book.name)?;
    Chain::decode(register.value.as_ref()?).ok()
}

/// Simulates a seed. Blocks until it is done; one simulation at a time on a thread.
#[must_use]
pub fn run(options: &Options) -> Report {
    watch_panics();
    PANICS.with(|panics| panics.borrow_mut().clear());
    marks::take();
    let mut rng = Rng::new(options.seed);
    let plan = Plan::draw(&mut Rng::new(rng.bits()));
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&options.seed.to_le_bytes()));
    let runtime = builder.build().expect("a runtime of one thread can be made");
    let begun = runtime.block_on(async { tokio::time::Instant::now() });
    let (mut chance, mut disk) = (Rng::new(rng.bits()), Rng::new(rng.bits()));
    let (delay, seed) = (plan.disk_delay, options.seed);
    let installed = install(Environment {
        now: Box::new(move || wall_clock(seed, begun.elapsed())),
        random: Box::new(move || chance.bits()),
        disk_pause: Box::new(move || Duration::from_millis(disk.below(delay + 1))),
    });
    mistakes::plant(options.mistake);
    let simulated = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(simulate(options, plan.clone(), &mut rng))
    }));
    let simulated_time = runtime.block_on(async { begun.elapsed() });
    // The tasks that are left are dropped while their world is still there.
    drop(runtime);
    drop(installed);
    mistakes::plant(None);
    let (trace, mut broken) = match simulated {
        Ok((trace, broken)) => (Some(trace), broken),
        Err(_) => (None, Vec::new()),
    };
    let panics = PANICS.with(|panics| std::mem::take(&mut *panics.borrow_mut()));
    broken.extend(panics.into_iter().map(|panic| format!("panic: {panic}")));
    let (digest, events, mut counters) = trace.map(|trace| trace.end()).unwrap_or_default();
    counters.extend(marks::take());
    let plan = format!("{plan:?}");
    Report { seed: options.seed, plan, digest, events, simulated: simulated_time, counters, broken }
}

/// What the clock on the wall of the process that asks shows, in microseconds since 1970: every few seconds
/// that may be an hour, years or a century off, and then not any more.
fn wall_clock(seed: u64, elapsed: Duration) -> i64 {
    const HOUR: i64 = 3_600_000_000;
    const YEAR: i64 = 8766 * HOUR;
    let process = here().map_or(0, |process| u64::from(process.number()));
    let turn = elapsed.as_secs() / CLOCK_HOLDS;
    let mut rng = Rng::new(seed ^ (process << 40) ^ (turn << 20));
    let off = [0, 0, 0, HOUR, -HOUR, 9 * YEAR, -9 * YEAR, 100 * YEAR, -100 * YEAR];
    let off = off[rng.below(off.len() as u64) as usize];
    1_700_000_000_000_000 + elapsed.as_micros() as i64 + off
}

async fn simulate(options: &Options, plan: Plan, rng: &mut Rng) -> (Arc<Trace>, Vec<String>) {
    let trace = Arc::new(Trace::new(options.shown));
    trace.say(format_args!("seed {}: {plan:?}", options.seed));
    let wires = Wires::new(trace.clone(), Rng::new(rng.bits()), plan.calm());
    tokio::spawn(wires.clone().run());
    let nodes =
        Nodes::new(options, trace.clone(), wires.clone(), plan.clone(), Rng::new(rng.bits()));
    let books: Vec<_> = (plan.logs.iter().enumerate())
        .map(|(at, kind)| Arc::new(Book::new(format!("log{at}"), *kind)))
        .collect();
    let mut machines = Vec::new();
    for book in &books {
        // Those that share a disk share a process.
        let (machines_of_it, clients) = match book.kind {
            Kind::Cluster => (plan.clients, 1),
            _ => (1, plan.clients),
        };
        for _ in 0..machines_of_it {
            let host = 100 + machines.len() as Host;
            wires.add(host, None);
            machines.push(clients::Machine::new(host, book.clone(), clients));
        }
    }
    let world = Arc::new(World {
        seed: options.seed,
        plan,
        mistake: options.mistake,
        trace: trace.clone(),
        nodes,
        books,
        engines: options.loglets.iter().map(|e| (e.name.clone(), (e.make)())).collect(),
        machines: Mutex::new(machines),
        chance: Mutex::new(Rng::new(rng.bits())),
        calm_from: options.faults.as_millis() as u64,
        calm: AtomicBool::new(false),
        over: AtomicBool::new(false),
        dead: AtomicU64::new(0),
        wrong: Mutex::default(),
        damaged: Mutex::default(),
        noted: Mutex::default(),
    });
    begin(&world).await;
    world.nodes.wires.set_weather(world.plan.weather.clone());
    for at in 0..world.clients() {
        clients::start(&world, at);
    }
    tokio::spawn(nemesis::supervise(world.clone(), Rng::new(rng.bits())));
    let faults = tokio::spawn(nemesis::run(world.clone(), Rng::new(rng.bits())));
    tokio::time::sleep_until(trace.at(world.calm_from)).await;
    faults.abort();
    calm_down(&world, rng).await;
    let before = options.calm.saturating_sub(SHARED);
    tokio::time::sleep(before).await;
    let settled = if before.is_zero() { Settled::default() } else { world.settled() };
    tokio::time::sleep(options.calm - before).await;
    let broken = end(&world, &settled).await;
    (trace, broken)
}

/// Starts the servers and makes a cluster of them, of some first and of all in the end.
async fn begin(world: &Arc<World>) {
    let plan = &world.plan;
    for at in 0..plan.founders {
        world.nodes.start(at);
    }
    let operator = Process::new(world.nodes.next_process());
    world.nodes.wires.add(99, None);
    let transport = world.nodes.wires.transport(99, &operator, Arc::new(|| None));
    let net = Net::new(transport, Vec::new());
    let addresses: Vec<String> = (0..plan.founders).map(address).collect();
    let made = Task::of(operator, async move {
        while let Err(error) = crate::server::init_over(&net, &addresses).await {
            tracing::debug!(%error, "the cluster is not made yet");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    made.await;
    world.trace.say(format_args!("the cluster is made"));
    for at in plan.founders..plan.nodes {
        world.nodes.with(at, |machine| machine.joins = true);
        world.nodes.start(at);
        while !world.nodes.votes(at) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.nodes.with(at, |machine| machine.joins = false);
    }
    // Where a disk may be lost from the first moment on, the first one's must not be the only one.
    let holders =
        if plan.faults.iter().any(|fault| fault.damages()) { plan.nodes.min(3) } else { 1 };
    while (0..plan.nodes).any(|at| world.nodes.holders(at) < holders) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The second phase: nothing fails any more, and perhaps one server stays dead.
async fn calm_down(world: &Arc<World>, rng: &mut Rng) {
    // What began before lets itself pass within this time.
    tokio::time::sleep(Duration::from_millis(10)).await;
    world.trace.say(format_args!("calm"));
    let plan = &world.plan;
    let any = rng.chance(50).then(|| rng.below(plan.nodes as u64) as usize);
    let lost = (0..plan.nodes).find(|at| world.nodes.with(*at, |m| m.damaged || m.lost.is_some()));
    let damaged = *world.damaged.lock().unwrap_or_else(PoisonError::into_inner);
    let dead = match lost {
        // While one is replaced there are two of it, of which the former one is dead.
        Some(at) => any.map(|_| at).filter(|at| !world.nodes.with(*at, |m| m.replaced)),
        None if damaged.is_some_and(|at| !world.is_restored(at)) => None,
        None => any.filter(|_| !plan.loglets.contains(&"native:1")),
    };
    world.nodes.wires.mend();
    world.nodes.wires.set_weather(plan.calm());
    if let Some(at) = dead.filter(|_| !plan.over_budget) {
        world.dead.store(1 << at, Ordering::Relaxed);
        world.nodes.end(at, End::Power);
        world.trace.say(format_args!("node {} stays dead", at + 1));
    }
    for at in 0..plan.nodes {
        world.nodes.with(at, |machine| {
            machine.stall = 0;
            heal(&machine.disk);
        });
        let lost = world.nodes.with(at, |machine| machine.lost.is_some());
        if lost && dead != Some(at) {
            nemesis::replace(world, at);
        }
        world.start_node(at);
    }
    for at in 0..world.clients() {
        let process = world.client(at, |machine| {
            machine.stall = 0;
            heal(&machine.disk);
            machine.process.clone()
        });
        match process {
            None => clients::start(world, at),
            Some(process) => {
                process.go_on();
                world.nodes.wires.went_on(&process);
            }
        }
    }
    for at in 0..plan.nodes {
        let process = world.nodes.with(at, |machine| Some(machine.life.as_ref()?.process.clone()));
        if let Some(process) = process {
            process.go_on();
            world.nodes.wires.went_on(&process);
        }
    }
    world.calm.store(true, Ordering::Relaxed);
}

fn heal(disk: &SimDisk) {
    disk.set_room(None);
    disk.fail_reads_of(None);
    disk.fail_sync(u64::MAX);
    disk.bad_write(u64::MAX, BadWrite::Lost);
}

/// Ends the clients, reads everything back, and judges. `settled`: what was so long ago.
async fn end(world: &Arc<World>, settled: &Settled) -> Vec<String> {
    world.over.store(true, Ordering::Relaxed);
    // Whatever was begun ends by its own deadline.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut chains = Vec::new();
    for book in &world.books {
        let judged = clients::judge(world, book).await;
        chains.extend(judged.map(|(chain, first)| (book, chain, first)));
    }
    for (book, chain, first) in &chains {
        // As it is at this very moment: servers delete what the newest one does not name.
        let newest = world.chains(book).into_iter().max_by_key(|chain| chain.version);
        judge::disks(world, book, newest.as_ref().unwrap_or(chain), *first, &settled.closed);
    }
    judge::leaks(world, settled);
    let mut broken = world.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone();
    broken.extend(world.books.iter().flat_map(|book| book.wrong()));
    broken
}

/// How often things have to happen in a run of so many seeds, at least, for it to mean something.
pub fn floors(seeds: u64) -> impl Iterator<Item = (&'static str, u64)> {
    let faults = Fault::ALL.into_iter().map(move |(_, name)| (name, 20 * seeds / 200));
    faults.chain(MARKS.iter().map(move |(name, least)| (*name, least * seeds / 200)))
}

/// Rare things that a run of 200 seeds has to reach, and how often.
const MARKS: &[(&str, u64)] = &[
    ("appends acknowledged", 20_000),
    ("reconfigurations", 400),
    ("trims", 100),
    ("mark: an append in doubt was found in the log", 20),
    ("mark: an append in doubt was surely absent", 20),
    ("mark: a server says that its disk is lost", 20),
    ("mark: a lost server was replaced", 10),
    ("mark: a conditional put was lost to another one", 1000),
    ("mark: a duplicate was refused after a seal", 150),
    ("mark: a full disk took a seal", 5),
    ("mark: a repair copied entries", 400),
    ("mark: an acceptor that may have forgotten refused to vote", 500),
    ("mark: two reconfigurers met different tails", 70),
    ("mark: what a member missed was copied to it", 150),
    ("mark: another node holds the MetaStore too", 60),
    ("mark: a lost holder of the MetaStore was replaced", 5),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::gappy;

    /// Also where positions have gaps, and with an engine that no server knows.
    #[test]
    fn loglets_of_others_are_simulated() {
        let mut entered = 0;
        for seed in [3, 8] {
            let options = Options {
                faults: Duration::from_secs(10),
                calm: Duration::from_secs(5),
                loglets: vec![Engine::new(gappy::KIND, gappy::provider)],
                ..Options::of_seed(seed)
            };
            let report = run(&options);
            assert!(report.broken.is_empty(), "{report:#?}");
            let name = "reconfigurations to loglets of others";
            entered += report.counters.get(name).copied().unwrap_or(0);
        }
        assert!(entered > 0, "no log was ever on one");
    }
}
