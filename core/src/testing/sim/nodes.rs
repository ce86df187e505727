//! The servers: production [`Server`]s, each in a process of its own on a disk of its own, and what
//! can be done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use virtuallog_protocol::LogletId;

use super::Options;
use super::acceptors::{Answered, Witness};
use super::mistakes::Mistake;
use super::plan::Plan;
use super::trace::Trace;
use super::wires::{Host, Wires};
use crate::cluster::MemberId;
use crate::env;
use crate::env::simulated::{Process, Task};
use crate::error::{Error, ErrorCode};
use crate::server::node::Node;
use crate::server::{Ground, Server, ServerConfig};
use crate::storage::{LogletStatus, Storage, StorageOptions};
use crate::testing::Rng;
use crate::testing::simdisk::SimDisk;

/// Where a server has its store on its disk.
pub(super) const DATA: &str = "/data";
/// After so many looks in a row a loglet that a chain names and a server lacks is gone: what the newest
/// chain is may be seen a little late.
const LACKS: u32 = 10;
/// A store is idle when nothing was committed for so long.
const IDLE: Duration = Duration::from_millis(20);

/// All servers.
pub(super) struct Nodes {
    pub(super) trace: Arc<Trace>,
    pub(super) wires: Arc<Wires>,
    pub(super) plan: Plan,
    mistake: Option<Mistake>,
    state: Mutex<State>,
    /// Something failed: the supervisor has work.
    pub(super) failed: Notify,
}

struct State {
    rng: Rng,
    next_process: u32,
    nodes: Vec<Machine>,
}

/// One server's machine.
pub(super) struct Machine {
    pub(super) disk: SimDisk,
    pub(super) life: Option<Life>,
    /// What a server of it may not forget, by loglet.
    pub(super) shown: BTreeMap<LogletId, LogletStatus>,
    /// Which of these it lacks though a chain names it, and for how many looks.
    pub(super) lacking: BTreeMap<LogletId, u32>,
    /// How many instances its acceptor had applied, of what a killed process leaves.
    pub(super) applied: u64,
    /// What its acceptor may not go back behind.
    pub(super) answered: Arc<Answered>,
    /// Its disk was damaged for good.
    pub(super) damaged: bool,
    /// It does not start any more, or says that it has forgotten.
    pub(super) lost: Option<Error>,
    /// An operator is about to replace it.
    pub(super) replaced: bool,
    /// Where it is reached: another place each time that it is replaced.
    pub(super) address: String,
    /// Whether it joins the cluster when its disk is empty.
    pub(super) joins: bool,
    /// Work on its disk takes so many milliseconds more.
    pub(super) stall: u64,
}

/// A server's process.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) process: Arc<Process>,
    pub(super) stop: Arc<Notify>,
    pub(super) node: Option<Arc<Node>>,
    pub(super) storage: Option<Arc<Storage>>,
    /// Why it ended by itself; `None` inside: as it was told to.
    pub(super) ended: Option<Option<Error>>,
}

impl Machine {
    /// Which disk it has and what that counts, while its server runs.
    pub(super) fn generation(&self) -> Option<(u128, u64)> {
        let storage = self.life.as_ref()?.storage.as_ref()?;
        Some((storage.storage_id(), storage.generation()))
    }

    /// What its server says of its disk, if that was not damaged; from now on it counts as damaged.
    pub(super) fn lost_by_itself(&mut self) -> Option<Error> {
        let lost =
            |error: &&Error| matches!(error.code(), ErrorCode::DataLoss | ErrorCode::Corrupt);
        let lost = self.lost.as_ref().filter(lost).filter(|_| !self.damaged).cloned();
        self.damaged |= lost.is_some();
        lost
    }
}

impl Machine {
    /// What is on its disk from now on says nothing of what was.
    pub(super) fn forget(&mut self) {
        self.shown.clear();
        self.lacking.clear();
        self.applied = 0;
        self.answered.forget();
    }
}

impl Life {
    /// How many instances its acceptor has applied.
    pub(super) fn applied(&self) -> Option<u64> {
        let paxos = self.node.as_ref()?.active()?.paxos.as_ref()?;
        let applied = *paxos.applied().borrow();
        Some(applied)
    }

    /// As what it is known in its cluster.
    pub(super) fn member(&self) -> Option<MemberId> {
        let storage = self.storage.as_ref()?;
        Some((storage.identity()?.node, storage.storage_id()))
    }
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Kill,
    Power,
}

pub(super) fn address(index: usize) -> String {
    format!("10.0.0.{}:7", index + 1)
}

pub(super) fn host(index: usize) -> Host {
    index as Host + 1
}

impl Nodes {
    pub(super) fn new(
        options: &Options,
        trace: Arc<Trace>,
        wires: Arc<Wires>,
        plan: Plan,
        rng: Rng,
    ) -> Arc<Nodes> {
        let machine = |index| Machine {
            disk: SimDisk::new(),
            life: None,
            shown: BTreeMap::new(),
            lacking: BTreeMap::new(),
            applied: 0,
            answered: Arc::default(),
            damaged: false,
            lost: None,
            replaced: false,
            address: address(index),
            joins: false,
            stall: 0,
        };
        let nodes = (0..plan.nodes).map(machine).collect();
        for index in 0..plan.nodes {
            wires.add(host(index), Some(&address(index)));
        }
        let state = Mutex::new(State { rng, next_process: 1000, nodes });
        let mistake = options.mistake;
        Arc::new(Nodes { trace, wires, plan, mistake, state, failed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with one machine.
    pub(super) fn with<T>(&self, index: usize, work: impl FnOnce(&mut Machine) -> T) -> T {
        work(&mut self.state().nodes[index])
    }

    pub(super) fn is_up(&self, index: usize) -> bool {
        self.with(index, |machine| machine.life.is_some())
    }

    /// Whether a server votes.
    pub(super) fn votes(&self, index: usize) -> bool {
        let node = self.with(index, |machine| machine.life.as_ref()?.node.clone());
        node.is_some_and(|node| node.active().is_some_and(|active| active.health.votes()))
    }

    /// How many hold the MetaStore, as a server knows.
    pub(super) fn holders(&self, index: usize) -> usize {
        let node = self.with(index, |machine| machine.life.as_ref()?.node.clone());
        node.map_or(0, |node| node.net.cluster().metastore.len())
    }

    /// A number for a process.
    pub(super) fn next_process(&self) -> u32 {
        let mut state = self.state();
        state.next_process += 1;
        state.next_process
    }

    /// Starts a server, unless it runs.
    pub(super) fn start(self: &Arc<Self>, index: usize) {
        if self.is_up(index) {
            return;
        }
        let process = Process::new(self.next_process());
        self.trace.say(format_args!("node {} starts as process {}", index + 1, process.number()));
        self.wires.lit(host(index));
        let life = Life {
            process: process.clone(),
            stop: Arc::default(),
            node: None,
            storage: None,
            ended: None,
        };
        self.with(index, |machine| machine.life = Some(life.clone()));
        let nodes = self.clone();
        tokio::spawn(Task::of(process.clone(), async move {
            let ended = nodes.serve(index, &life).await;
            nodes.with(index, |machine| {
                if let Some(life) =
                    machine.life.as_mut().filter(|l| l.process.number() == process.number())
                {
                    life.ended = Some(ended);
                }
            });
            nodes.failed.notify_one();
        }));
    }

    fn storage_options(&self, told: &Arc<Notify>) -> StorageOptions {
        StorageOptions {
            journal_file_bytes: self.plan.journal_bytes,
            data_file_bytes: self.plan.data_bytes,
            index_every_bytes: 2 << 10,
            open_files_max: 16,
            background: false,
            storage_id: Some(env::random_u128()),
            told: Some(told.clone()),
            planted: Mistake::in_storage(self.mistake),
            ..StorageOptions::default()
        }
    }

    /// What the process of a server does from its start to its end.
    async fn serve(self: &Arc<Self>, index: usize, life: &Life) -> Option<Error> {
        let (disk, joins, address) = self
            .with(index, |machine| (machine.disk.clone(), machine.joins, machine.address.clone()));
        let told = Arc::new(Notify::new());
        let (wires, process) = (self.wires.clone(), life.process.clone());
        let ground = Ground {
            disk: Arc::new(disk),
            storage: self.storage_options(&told),
            transport: Box::new(move |me| wires.transport(host(index), &process, me)),
            batches: None,
        };
        let plan = &self.plan;
        let others = (0..plan.nodes).filter(|other| *other != index);
        let others = others.map(|other| self.with(other, |machine| machine.address.clone()));
        let config = ServerConfig {
            data: PathBuf::from(DATA),
            listen: address,
            join: if joins { others.collect() } else { Vec::new() },
            heartbeat: Duration::from_millis(plan.heartbeat),
            suspect_after: Duration::from_millis(plan.suspect),
            segment_bytes_max: plan.segment_bytes,
            rebuild_after: Duration::from_secs(plan.rebuild),
            ..ServerConfig::default()
        };
        let server = match Server::on(ground, config).await {
            Ok(server) => server,
            Err(error) => return Some(error),
        };
        let node = server.inner();
        let storage = node.storage.clone();
        let number = life.process.number();
        self.with(index, |machine| {
            if let Some(life) = machine.life.as_mut().filter(|l| l.process.number() == number) {
                (life.node, life.storage) = (Some(node.clone()), Some(storage.clone()));
            }
        });
        let nodes = self.clone();
        let pace = move || nodes.disk_pause(index);
        tokio::spawn(env::task(commit(storage, told, pace)));
        let answered = self.with(index, |machine| machine.answered.clone());
        let witness = Arc::new(Witness { handler: node, answered });
        self.wires.listen(host(index), &life.process, witness);
        let server = match server.begin().await {
            Ok(server) => server,
            Err(error) => return Some(error),
        };
        tokio::select! {
            biased;
            error = server.failed() => return Some(error),
            () = life.stop.notified() => {}
        }
        let _ = tokio::time::timeout(Duration::from_secs(5), server.drain()).await;
        server.close().await.err()
    }

    /// How long the next commit of a machine takes.
    pub(super) fn disk_pause(&self, index: usize) -> Duration {
        let most = self.plan.disk_delay;
        let mut state = self.state();
        let stall = state.nodes[index].stall;
        Duration::from_millis(stall + state.rng.below(most + 1))
    }

    /// Ends the process of a server, and what of its disk the next one finds.
    pub(super) fn end(&self, index: usize, how: End) {
        let Some(life) = self.with(index, |machine| machine.life.take()) else { return };
        self.note_memory(index, &life);
        life.process.kill();
        self.wires.ended(host(index), &life.process, how == End::Power);
        let mut state = self.state();
        let state = &mut *state;
        let (machine, rng) = (&mut state.nodes[index], &mut state.rng);
        let before = machine.disk.clone();
        life.process.clone().enter(|| drop(life));
        machine.disk = match how {
            End::Kill => before.kill(),
            End::Power => {
                // A decision need not be durable: it can be learned again.
                machine.applied = 0;
                crash(&before, rng)
            }
        };
        // What is left of the process does no more work on it.
        before.stop_at(0);
        self.trace.say(format_args!("node {} ends: {how:?}", index + 1));
    }

    /// What a server showed may not be forgotten (I16).
    fn note_memory(&self, index: usize, life: &Life) {
        let Some(storage) = &life.storage else { return };
        let shown: Vec<_> = storage
            .loglets()
            .into_iter()
            .filter_map(|id| Some((id, storage.status(id)?)))
            .collect();
        self.with(index, |machine| {
            let before = std::mem::take(&mut machine.shown);
            machine.shown = shown.into_iter().collect();
            let lacking = &machine.lacking;
            let kept = before.into_iter().filter(|(id, _)| lacking.contains_key(id));
            machine.shown.extend(kept);
            machine.applied = life.applied().unwrap_or(machine.applied);
        });
    }

    /// Whether a server that was started again remembers all that it showed before. `named`: which
    /// members the newest chains name for which loglets.
    ///
    /// # Errors
    /// What it forgot.
    pub(super) fn check_memory(
        &self,
        index: usize,
        named: &BTreeSet<(MemberId, LogletId)>,
    ) -> Result<(), String> {
        let node = index + 1;
        let (shown, life, wrong) = self.with(index, |machine| {
            let wrong = machine.answered.take_wrong();
            // Nobody relies on what a damaged disk had.
            if machine.damaged || machine.replaced {
                machine.forget();
                return (BTreeMap::new(), machine.life.clone(), Vec::new());
            }
            (machine.shown.clone(), machine.life.clone(), wrong)
        });
        if let Some(wrong) = wrong.first() {
            return Err(format!("{wrong}, on node {node}"));
        }
        let Some(life) = life else { return Ok(()) };
        let storage = life.storage.clone().filter(|storage| storage.failure().is_none());
        let Some(storage) = storage else { return Ok(()) };
        let before = self.with(index, |machine| machine.applied);
        if let Some(now) = life.applied().filter(|now| *now < before) {
            return Err(format!("I16: node {node} had applied {before} instances, and now {now}"));
        }
        for (id, before) in shown {
            let Some(now) = storage.status(id) else {
                let is_named = life.member().is_some_and(|member| named.contains(&(member, id)));
                let looks = self.with(index, |machine| match is_named {
                    true => {
                        let looks = machine.lacking.entry(id).or_default();
                        *looks += 1;
                        *looks
                    }
                    false => {
                        machine.lacking.remove(&id);
                        0
                    }
                });
                if looks == LACKS {
                    return Err(format!(
                        "I16: node {node} showed {before:?} of {id}, which the chain names, and has \
                         nothing of it now"
                    ));
                }
                continue;
            };
            self.with(index, |machine| machine.lacking.remove(&id));
            if now.tail < before.tail || now.trim < before.trim || (before.sealed && !now.sealed) {
                return Err(format!("I16: node {node} showed {before:?} of {id}, and now {now:?}"));
            }
        }
        self.note_memory(index, &life);
        Ok(())
    }

    /// What to do about servers that ended by themselves: those that may are started again.
    pub(super) fn look_after(self: &Arc<Self>) -> Vec<usize> {
        let mut again = Vec::new();
        for index in 0..self.plan.nodes {
            let ended = self.with(index, |machine| machine.life.as_ref()?.ended.clone());
            let Some(why) = ended else { continue };
            self.end(index, End::Kill);
            let shown = why.as_ref().map_or("in order".into(), ToString::to_string);
            self.trace.say(format_args!("node {} ended by itself: {shown}", index + 1));
            let for_good = why.filter(|error| {
                matches!(
                    error.code(),
                    ErrorCode::DataLoss | ErrorCode::Corrupt | ErrorCode::Conflict
                ) || error.code() == ErrorCode::Incompatible
            });
            match for_good {
                Some(error) => {
                    self.trace.count("mark: a server says that its disk is lost");
                    self.with(index, |machine| machine.lost = Some(error));
                }
                None => again.push(index),
            }
        }
        again
    }

    /// The files of a store that hold something.
    pub(super) fn files(disk: &SimDisk) -> Vec<(PathBuf, u64)> {
        let mut files = disk.all_files();
        files.retain(|(path, len)| *len > 0 && path.starts_with(Path::new(DATA)));
        files
    }
}

/// The disk after a loss of power: of what was not synced nothing, all, the first part or any subset.
pub(super) fn crash(disk: &SimDisk, rng: &mut Rng) -> SimDisk {
    let unsynced = disk.unsynced() as u64;
    let bound = rng.below(unsynced + 1);
    match rng.below(5) {
        0 => disk.crash(|_| false),
        1 => disk.crash(|_| true),
        2 => disk.crash(|at| (at as u64) < bound),
        _ => disk.crash(|_| rng.chance(50)),
    }
}

/// Commits what waits in a store, at the pace of its disk.
pub(super) async fn commit(
    storage: Arc<Storage>,
    told: Arc<Notify>,
    mut pace: impl FnMut() -> Duration,
) {
    let mut idle = true;
    loop {
        let waiting = told.notified();
        match idle {
            true => waiting.await,
            false => {
                if tokio::time::timeout(IDLE, waiting).await.is_err() {
                    idle = true;
                    storage.mark();
                    continue;
                }
            }
        }
        idle = false;
        tokio::time::sleep(pace()).await;
        storage.commit_waiting();
    }
}
