//! The machines of clients: production handles, in processes that may die, that append, read, trim and
//! reconfigure, and write into the log's book what they saw.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::book::{Book, payload, value_of};
use super::mistakes::Mistake;
use super::nodes::{address, commit};
use super::plan::Kind;
use super::wires::Host;
use super::{World, judge};
use crate::cluster::Net;
use crate::entry::Entry;
use crate::env;
use crate::env::simulated::{Process, Task};
use crate::error::{Error, ErrorCode, Result};
use crate::loglets::local::LocalProvider;
use crate::metastores::FileMetaStore;
use crate::protocol::{Chain, LogPos};
use crate::storage::{Storage, StorageOptions};
use crate::store::Store;
use crate::testing::Rng;
use crate::testing::history::{Outcome, What};
use crate::testing::simdisk::SimDisk;
use crate::virtuallog::VirtualLog;

/// Where a client's machine has a store of its own.
const DATA: &str = "/data";
/// A call's deadline, and that of a client in a hurry.
const TIMEOUT: Duration = Duration::from_secs(8);
const HURRY: Duration = Duration::from_millis(1500);
/// How often somebody looks for an append in doubt, and the pause between.
const LOOKS: u32 = 3;
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(100);
/// A chain with more segments is trimmed, as an operator would, instead of made longer: servers and
/// the judge look at all of it again and again, so that a long run would cost its square.
const SEGMENTS_ENOUGH: usize = 200;

/// A machine on which clients of one log run.
pub(super) struct Machine {
    pub(super) host: Host,
    pub(super) book: Arc<Book>,
    pub(super) disk: SimDisk,
    pub(super) process: Option<Arc<Process>>,
    pub(super) clients: usize,
    pub(super) lives: u64,
    reach: Option<Arc<Reach>>,
    /// The store ended: the process has to be started again.
    pub(super) failed: bool,
    pub(super) stall: u64,
}

impl Machine {
    pub(super) fn new(host: Host, book: Arc<Book>, clients: usize) -> Machine {
        let (disk, process, lives) = (SimDisk::new(), None, 0);
        Machine { host, book, disk, process, clients, lives, reach: None, failed: false, stall: 0 }
    }
}

/// What the clients of one process share.
struct Reach {
    store: Arc<Store>,
    storage: Option<Arc<Storage>>,
    registers: Option<Arc<FileMetaStore>>,
}

/// Starts the process of a machine.
pub(super) fn start(world: &Arc<World>, at: usize) {
    let process = Process::new(world.nodes.next_process());
    let (host, life) = world.client(at, |machine| {
        machine.process = Some(process.clone());
        machine.failed = false;
        machine.reach = None;
        machine.lives += 1;
        (machine.host, machine.lives)
    });
    world.trace.say(format_args!("client machine {host} starts as process {}", process.number()));
    let (world, of) = (world.clone(), process.clone());
    tokio::spawn(Task::of(process, async move {
        if let Err(error) = run(&world, at, life, &of).await {
            world.trace.say(format_args!("client machine {host} failed: {error}"));
            world.client(at, |machine| machine.failed = true);
        }
    }));
}

async fn run(world: &Arc<World>, at: usize, life: u64, process: &Arc<Process>) -> Result<()> {
    let (book, clients) = world.client(at, |machine| (machine.book.clone(), machine.clients));
    let reach = Arc::new(reach(world, at, process).await?);
    world.client(at, |machine| machine.reach = Some(reach.clone()));
    for number in 0..clients {
        let seed = world.seed ^ (at as u64) << 32 ^ (number as u64) << 40 ^ life << 48;
        let client = Client {
            world: world.clone(),
            at,
            book: book.clone(),
            reach: reach.clone(),
            rng: Rng::new(seed ^ 0xc11e),
        };
        tokio::spawn(env::task(client.live()));
    }
    match &reach.storage {
        None => std::future::pending().await,
        Some(storage) => loop {
            tokio::time::sleep(PAUSE).await;
            if let Some(error) = storage.failure() {
                return Err(error);
            }
            if let Some(error) = reach.registers.as_ref().and_then(|registers| registers.failure())
            {
                return Err(error);
            }
        },
    }
}

/// Reaches what the machine's log needs.
async fn reach(world: &Arc<World>, at: usize, process: &Arc<Process>) -> Result<Reach> {
    let (host, kind, disk) =
        world.client(at, |machine| (machine.host, machine.book.kind, machine.disk.clone()));
    let storage = match kind {
        Kind::Cluster => None,
        _ => Some(open_storage(world, at, &disk).await?),
    };
    let local = storage.clone().map(LocalProvider::new);
    if kind == Kind::Embedded {
        let path = Path::new(DATA).join("meta");
        let registers = Arc::new(FileMetaStore::open(Arc::new(disk), path)?);
        let local = Arc::new(local.expect("it has a storage"));
        let mut store = Store::local(registers.clone(), local);
        world.engines.iter().for_each(|(_, provider)| store.learn(provider.clone()));
        return Ok(Reach { store: Arc::new(store), storage, registers: Some(registers) });
    }
    let transport = world.nodes.wires.transport(host, process, Arc::new(|| None));
    let seeds = (0..world.plan.nodes)
        .map(|at| world.nodes.with(at, |machine| machine.address.clone()))
        .collect();
    let net = Net::new(transport, seeds);
    while let Err(error) = net.refresh().await {
        world.trace.say(format_args!("client machine {host} finds nobody: {error}"));
        tokio::time::sleep(PAUSE).await;
    }
    let mut store = Store::cluster(&net);
    if let Some(local) = local {
        store.learn(Arc::new(local));
    }
    world.engines.iter().for_each(|(_, provider)| store.learn(provider.clone()));
    Ok(Reach { store: Arc::new(store), storage, registers: None })
}

async fn open_storage(world: &Arc<World>, at: usize, disk: &SimDisk) -> Result<Arc<Storage>> {
    let told = Arc::new(Notify::new());
    let options = StorageOptions {
        journal_file_bytes: world.plan.journal_bytes,
        data_file_bytes: world.plan.data_bytes,
        index_every_bytes: 2 << 10,
        background: false,
        storage_id: Some(env::random_u128()),
        told: Some(told.clone()),
        planted: Mistake::in_storage(world.mistake),
        ..StorageOptions::default()
    };
    let storage = Storage::open(Arc::new(disk.clone()), Path::new(DATA), options)?;
    let world = world.clone();
    let pace = move || {
        let stall = world.client(at, |machine| machine.stall);
        Duration::from_millis(stall + world.chance().below(world.plan.disk_delay + 1))
    };
    tokio::spawn(env::task(commit(storage.clone(), told, pace)));
    Ok(storage)
}

async fn open(world: &World, book: &Book, reach: &Reach, timeout: Duration) -> Result<VirtualLog> {
    let url = format!("virtuallog://{}/{}", address(0), book.name);
    let open = VirtualLog::builder(&url).timeout(Some(timeout));
    let open = match Mistake::in_resolution(world.mistake) {
        Some(bug) => open.planted(bug),
        None => open,
    };
    open.open_in(reach.store.clone()).await
}

/// Has a log judged on a machine of its clients, with a handle of its own. The last chain, and the
/// first position that is kept.
pub(super) async fn judge(world: &Arc<World>, book: &Arc<Book>) -> Option<(Chain, u64)> {
    let machines = world.clients();
    let at = (0..machines).find(|at| world.client(*at, |m| Arc::ptr_eq(&m.book, book)))?;
    for _ in 0..600 {
        let found = world.client(at, |machine| machine.process.clone().zip(machine.reach.clone()));
        let Some((process, reach)) = found else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (of, book) = (world.clone(), book.clone());
        let (tell, told) = tokio::sync::oneshot::channel();
        tokio::spawn(Task::of(process, async move {
            let judged = match open(&of, &book, &reach, TIMEOUT).await {
                Ok(log) => judge::log(&of, &book, &log).await,
                // It could never be made.
                Err(_) if of.is_short() && !book.is_begun() => None,
                Err(error) => {
                    judge::lost(&of, &book, &error);
                    None
                }
            };
            let _ = tell.send(judged);
        }));
        if let Ok(judged) = told.await {
            return judged;
        }
    }
    if !world.is_majority_gone(book) {
        book.complain("liveness: nobody could read the log back".into());
    }
    None
}

/// One client: a handle, and what it does with it.
#[derive(Clone)]
struct Client {
    world: Arc<World>,
    at: usize,
    book: Arc<Book>,
    reach: Arc<Reach>,
    rng: Rng,
}

impl Client {
    async fn live(mut self) {
        while !self.world.is_over() {
            let (begun, calm) = (self.world.trace.now(), self.world.is_calm());
            // A client in a hurry leaves more in doubt; it keeps no handle into the calm.
            let hurry = !self.world.is_mended() && self.rng.chance(40);
            let timeout = if hurry { HURRY } else { TIMEOUT };
            let opened = open(&self.world, &self.book, &self.reach, timeout);
            let Ok(opened) = tokio::time::timeout_at(self.world.limit(), opened).await else {
                self.book.complain(format!("liveness: open of {begun} ms did not come back"));
                return;
            };
            if calm {
                let took = self.world.trace.now() - begun;
                self.live_enough("open", took, opened.as_ref().err());
            }
            let log = match opened {
                Ok(log) => log,
                Err(error) => {
                    self.failed("open", &error);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let users = (0..self.world.plan.users).map(|_| self.other().use_it(&log, hurry));
            futures_util::future::join_all(users.collect::<Vec<_>>()).await;
            if !self.world.is_over() {
                let _ = log.close().await;
            }
        }
    }

    /// One more with the same handle.
    fn other(&mut self) -> Client {
        let rng = Rng::new(self.rng.bits());
        Client { rng, ..self.clone() }
    }

    async fn use_it(mut self, log: &VirtualLog, hurry: bool) {
        for _ in 0..20 + self.rng.below(200) {
            let think = self.rng.below(self.world.plan.think + 1);
            tokio::time::sleep(Duration::from_millis(think)).await;
            if self.world.is_over() || (hurry && self.world.is_mended()) {
                return;
            }
            self.act(log).await;
        }
    }

    async fn act(&mut self, log: &VirtualLog) {
        let plan = &self.world.plan;
        let dice = self.rng.below(100);
        let begun = self.world.trace.now();
        let calm = self.world.is_calm();
        let what = if dice < plan.reconfigure {
            "reconfigure"
        } else if dice < plan.reconfigure + plan.trim {
            "trim"
        } else {
            match self.rng.below(100) {
                0..60 => "append",
                60..72 => "tail",
                72..92 => "read",
                92..96 => "follow",
                _ => "chain",
            }
        };
        let limit = self.world.limit();
        let Ok(outcome) = tokio::time::timeout_at(limit, self.carry_out(what, log)).await else {
            self.book.complain(format!("liveness: {what} of {begun} ms did not come back"));
            return;
        };
        let took = self.world.trace.now() - begun;
        match &outcome {
            Ok(()) => {}
            Err(error) => self.failed(what, error),
        }
        if calm {
            self.live_enough(what, took, outcome.err().as_ref());
        }
        let host = self.world.client(self.at, |machine| machine.host);
        self.world.trace.event(&[0xac7, host.into(), took], || {
            format!("client {host} of {}: {what} took {took} ms", self.book.name)
        });
    }

    async fn carry_out(&mut self, what: &str, log: &VirtualLog) -> Result<()> {
        match what {
            "reconfigure" => self.reconfigure(log).await,
            "trim" => self.trim(log).await,
            "append" => self.append(log).await,
            "tail" => self.tail(log).await,
            "read" => self.read(log).await,
            "follow" => self.follow(log).await,
            _ => self.chain(log).await,
        }
    }

    /// Liveness, L1 to L4 of the reliability notes: with a healthy majority everything works, and soon.
    fn live_enough(&self, what: &str, took: u64, error: Option<&Error>) {
        // Where fewer servers are left than a loglet has replicas, none can be placed, a log's first
        // one neither.
        let places = what == "reconfigure" || (what == "open" && !self.book.is_begun());
        if places && self.world.is_short() {
            return;
        }
        let refused =
            [ErrorCode::Conflict, ErrorCode::Sealed, ErrorCode::Trimmed, ErrorCode::Invalid];
        if let Some(error) = error.filter(|error| !refused.contains(&error.code())) {
            if !self.world.plan.over_budget {
                self.book.complain(format!("liveness: {what} failed in calm weather: {error}"));
            }
        } else if took > 10_000 {
            self.book.complain(format!("liveness: {what} took {took} ms in calm weather"));
        }
    }

    fn failed(&self, what: &str, error: &Error) {
        self.world.trace.count("operations that failed");
        self.world.trace.say(format_args!("{}: {what} failed: {error:?}", self.book.name));
        let loud =
            matches!(error.code(), ErrorCode::DataLoss | ErrorCode::Corrupt | ErrorCode::Internal);
        if loud && !self.world.plan.over_budget && self.book.kind != Kind::Embedded {
            self.book.complain(format!("I1/I14: {what} says within the fault budget: {error}"));
        }
    }

    async fn append(&mut self, log: &VirtualLog) -> Result<()> {
        let mut out = Vec::new();
        for _ in 0..1 + self.rng.below(4) * self.rng.below(3) {
            let many = self.rng.chance(15);
            let count = if many { 1 + self.rng.below(8) } else { 1 };
            let (at, values) = self.book.submit(count);
            let append = match many {
                true => log.append_many(values.iter().copied().map(payload)),
                false => log.append(payload(values[0])),
            };
            out.push((at, count, values[0], append));
        }
        let mut failure = None;
        for (at, count, value, append) in out {
            let outcome = match append.await {
                Ok(first) => {
                    self.world.trace.add("appends acknowledged", count);
                    Outcome::Ok(first.0)
                }
                Err(error) if error.is_in_doubt() => {
                    self.world.trace.add("appends in doubt", count);
                    let outcome = match failure {
                        None => self.resolve(log, &error).await,
                        // One of them says enough, or this takes too long.
                        Some(_) => Outcome::Unknown,
                    };
                    failure = Some(error);
                    outcome
                }
                Err(error) => {
                    self.world.trace.add("appends refused", count);
                    failure = Some(error);
                    Outcome::Failed
                }
            };
            let told: Result<(), &Error> = match outcome {
                Outcome::Ok(_) => Ok(()),
                _ => failure.as_ref().map_or(Ok(()), Err),
            };
            self.world.trace.event(&[0xa9, value, count], || {
                format!(
                    "{}: append of {count} from value {value}: {outcome:?}, {told:?}",
                    self.book.name
                )
            });
            self.book.appended(at, count, outcome);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Looks for what is in doubt, in half of the cases.
    async fn resolve(&mut self, log: &VirtualLog, error: &Error) -> Outcome {
        let Some(token) = error.token().filter(|_| self.rng.chance(50)) else {
            return Outcome::Unknown;
        };
        for _ in 0..LOOKS {
            match log.resolve(token).await {
                Ok(Some(position)) => {
                    self.world.trace.count("mark: an append in doubt was found in the log");
                    return Outcome::Ok(position.0);
                }
                Ok(None) => {
                    self.world.trace.count("mark: an append in doubt was surely absent");
                    return Outcome::Failed;
                }
                Err(_) => tokio::time::sleep(LOOK_PAUSE).await,
            }
        }
        Outcome::Unknown
    }

    async fn tail(&mut self, log: &VirtualLog) -> Result<()> {
        let invoked = self.book.now();
        let tail = log.check_tail().await?;
        self.book.saw(invoked, [What::Tail { position: tail.position.0, sealed: tail.sealed }]);
        Ok(())
    }

    async fn read(&mut self, log: &VirtualLog) -> Result<()> {
        let first = log.first().await?.0;
        let tail = log.check_tail().await?.position.0;
        let from = first + self.rng.below(tail.saturating_sub(first) + 1);
        let from = if self.rng.chance(50) { tail.saturating_sub(20).max(first) } else { from };
        let invoked = self.book.now();
        let mut reader = match log.read(LogPos(from), None).await {
            Err(error) => return self.trimmed(invoked, from, error),
            Ok(reader) => reader,
        };
        let mut at = from;
        for _ in 0..1 + self.rng.below(4) {
            match reader.next_batch(64).await {
                Ok(entries) if entries.is_empty() => {
                    let to = reader.position().0;
                    self.book.saw(invoked, [What::Passed { from: at, to }]);
                    break;
                }
                Ok(entries) => at = self.note_entries(invoked, at, &entries),
                Err(error) => return self.trimmed(invoked, at, error),
            }
        }
        Ok(())
    }

    /// Follows the log for a while.
    async fn follow(&mut self, log: &VirtualLog) -> Result<()> {
        let invoked = self.book.now();
        let mut reader = log.subscribe(crate::entry::Start::Tail).await?;
        let mut at = reader.position().0;
        for _ in 0..1 + self.rng.below(5) {
            match tokio::time::timeout(Duration::from_millis(300), reader.next_batch(64)).await {
                Ok(Ok(entries)) if !entries.is_empty() => {
                    at = self.note_entries(invoked, at, &entries);
                }
                Ok(Err(error)) => return self.trimmed(invoked, at, error),
                _ => break,
            }
        }
        Ok(())
    }

    /// What a reader brought, from `at` on. Where it goes on.
    fn note_entries(&self, invoked: u64, at: u64, entries: &[Entry]) -> u64 {
        let (mut at, mut seen) = (at, Vec::new());
        for entry in entries {
            let position = entry.position.0;
            if position < at {
                self.book.complain(format!("I4: a reader at {at} brought {position}"));
            }
            if position > at {
                seen.push(What::Passed { from: at, to: position });
            }
            match value_of(&entry.payload) {
                Some(value) => seen.push(What::Value { position, value }),
                None => self.book.complain(format!("I14: other bytes were read at {position}")),
            }
            at = position + 1;
        }
        self.world.trace.add("entries read", entries.len() as u64);
        let many = entries.len();
        self.world.trace.event(&[0xae, at, many as u64], || {
            format!("{}: {many} entries were read up to {at}", self.book.name)
        });
        self.book.saw(invoked, seen);
        at
    }

    fn trimmed(&self, invoked: u64, position: u64, error: Error) -> Result<()> {
        if error.code() != ErrorCode::Trimmed {
            return Err(error);
        }
        if let Some(first_kept) =
            error.position().map(|kept| kept.0).filter(|kept| *kept > position)
        {
            self.book.saw(invoked, [What::Trimmed { position, first_kept }]);
        }
        Ok(())
    }

    async fn trim(&mut self, log: &VirtualLog) -> Result<()> {
        let (first, tail) = (log.first().await?.0, log.check_tail().await?.position.0);
        let to = first + self.rng.below(tail.saturating_sub(first) / 2 + 1);
        let invoked = self.book.now();
        let trimmed = log.prefix_trim(LogPos(to)).await?;
        self.world.trace.count("trims");
        self.world.trace.event(&[0xaf, to, trimmed.effective.0], || {
            format!("{}: trimmed to {}", self.book.name, trimmed.effective)
        });
        self.book.saw(invoked, [What::Trim { first_kept: trimmed.effective.0 }]);
        Ok(())
    }

    async fn chain(&mut self, log: &VirtualLog) -> Result<()> {
        let invoked = self.book.now();
        self.book.asked(invoked, &log.chain().await?);
        Ok(())
    }

    async fn reconfigure(&mut self, log: &VirtualLog) -> Result<()> {
        let invoked = self.book.now();
        let chain = log.chain().await?;
        self.book.asked(invoked, &chain);
        if chain.segments.len() > SEGMENTS_ENOUGH {
            return self.trim(log).await;
        }
        if self.world.plan.ends && self.world.is_calm() && self.rng.chance(2) {
            let invoked = self.book.now();
            log.seal().await?;
            self.book.saw(invoked, [What::Seal]);
            return Ok(());
        }
        if self.rng.chance(15) {
            let invoked = self.book.now();
            self.book.asked(invoked, &log.reconfig_truncate(None).await?);
            return Ok(());
        }
        let loglets = &self.world.plan.loglets;
        let native = loglets[self.rng.below(loglets.len() as u64) as usize];
        let engines = &self.world.engines;
        let loglet = match self.book.kind {
            _ if !engines.is_empty() && self.rng.chance(40) => {
                self.world.trace.count("reconfigurations to loglets of others");
                engines[self.rng.below(engines.len() as u64) as usize].0.as_str()
            }
            Kind::Cluster => native,
            Kind::Embedded => "local",
            Kind::Mixed if self.rng.chance(50) => "local",
            Kind::Mixed => native,
        };
        let version = chain.version;
        let if_version = self.rng.chance(70).then_some(version);
        let invoked = self.book.now();
        let changed = log.reconfig_extend(loglet, if_version).await?;
        self.world.trace.count("reconfigurations");
        self.book.asked(invoked, &changed);
        if if_version.is_some() {
            self.book.won(version, format!("{loglet} by {}", self.at));
        }
        Ok(())
    }
}
