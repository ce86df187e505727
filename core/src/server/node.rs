//! One node: takes requests apart and gives each to the role that it is for.
//!
//! A node that belongs to no cluster answers questions about itself and lets itself be made part of
//! one, nothing else. One whose disk may have forgotten answers nothing that counts as a vote.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;
use virtuallog_protocol::LogletPos;
use virtuallog_protocol::limits::{CHAIN_SEGMENTS_MAX, COUNTER_MAX};

use super::health::Health;
use super::log_server::LogServer;
use super::place::{Candidate, place};
use super::sequencers::Sequencers;
use super::{Roles, ServerConfig, admin};
use crate::cluster::{MemberId, Net};
use crate::env::{self, planted};
use crate::error::{Error, ErrorCode, Result};
use crate::metastore::MetaStore;
use crate::metastores::paxos::PaxosNode;
use crate::metastores::remote::to_reply;
use crate::storage::{Disk, Storage};
use crate::wire::messages::{
    Bits, Cluster, Create, DRAINING, Failure, FailureKind, Hello, Life, LogletParams, Member,
    MetaPut, MetaWatch, Names, Node as NodeRow, Nothing, Place, Reply, Request, VERSION, Welcome,
};
use crate::wire::serve::{Answer, CREDIT_BYTES, Caller, Handler};

/// A watch of a register is answered after so long at the latest.
const WATCH_HOLD: Duration = Duration::from_secs(4);
/// Most loglets of one log that are alive: those of its chain, and copies under way.
const LIVE_MAX: usize = 2 * CHAIN_SEGMENTS_MAX;

/// A node and its roles.
#[derive(Debug)]
pub(crate) struct Node {
    weak: Weak<Node>,
    pub(crate) config: ServerConfig,
    pub(crate) runtime: Handle,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) net: Arc<Net>,
    pub(crate) log_server: Arc<LogServer>,
    pub(crate) sequencers: Sequencers,
    /// Drawn at the start of the process.
    process: u128,
    /// The thread that may wait for the disk, if there is one.
    batches: Option<Handle>,
    active: OnceLock<Active>,
    /// Held while it becomes part of a cluster.
    pub(crate) activating: tokio::sync::Mutex<()>,
    /// Told when the node became part of a cluster.
    pub(crate) activated: Notify,
    /// Nothing new is placed here.
    pub(crate) draining: AtomicBool,
    /// The server was stopped: whoever still has a way to it inside the process is sent away.
    stopped: AtomicBool,
    /// Processes of other nodes that are connected.
    callers: Mutex<HashMap<MemberId, Connected>>,
    /// How many loglets were given to each node to sequence, by this one.
    given: Mutex<BTreeMap<u32, u32>>,
}

/// The process of another node that is connected.
#[derive(Debug)]
struct Connected {
    process: u128,
    connections: usize,
    /// When it greeted or sent a heartbeat last.
    heard: Instant,
}

/// What there is once the node is part of a cluster.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) me: MemberId,
    pub(crate) cluster: u128,
    pub(crate) health: Arc<Health>,
    pub(crate) paxos: Option<PaxosNode>,
}

impl Node {
    pub(crate) fn new(
        config: ServerConfig,
        disk: Arc<dyn Disk>,
        storage: Arc<Storage>,
        net: Arc<Net>,
        process: u128,
        batches: Option<Handle>,
    ) -> Arc<Node> {
        Arc::new_cyclic(|weak| Node {
            weak: weak.clone(),
            config,
            runtime: Handle::current(),
            log_server: Arc::new(LogServer::new(storage.clone())),
            sequencers: Sequencers::new(net.clone()),
            disk,
            storage,
            net,
            process,
            batches,
            active: OnceLock::new(),
            activating: tokio::sync::Mutex::default(),
            activated: Notify::new(),
            draining: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            callers: Mutex::default(),
            given: Mutex::default(),
        })
    }

    pub(crate) fn active(&self) -> Option<&Active> {
        self.active.get()
    }

    /// The node is part of a cluster from now on.
    pub(crate) fn activate(self: &Arc<Self>, active: Active) {
        let handler: Arc<dyn Handler> = self.clone();
        self.net.set_local(active.me, &handler);
        if self.active.set(active).is_ok() {
            self.activated.notify_waiters();
        }
    }

    /// Answers nothing any more, and lets go of whoever waits for a sequencer.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.net.close();
        self.sequencers.stop();
    }

    fn this(&self) -> Arc<Node> {
        self.weak.upgrade().expect("a request is at hand")
    }

    /// Who this is, as far as it is known.
    pub(crate) fn life(&self) -> Life {
        let node = self.active().map_or(0, |active| active.me.0);
        let member = Member { node, storage: self.storage.storage_id().into() };
        Life { member, process: self.process.into(), generation: self.storage.generation() }
    }

    fn votes(&self) -> bool {
        self.active().is_some_and(|active| active.health.votes())
    }

    /// As this node stands in the list of the cluster.
    pub(crate) fn row(&self, number: u32) -> NodeRow {
        NodeRow {
            number,
            storage: Some(self.storage.storage_id().into()),
            address: self.config.advertised(),
            zone: self.config.zone.clone(),
            roles: self.config.roles.bits(),
            state: 0,
            alive: true,
            sequences: self.sequencers.ids().len() as u32,
        }
    }

    fn describe(&self) -> Reply {
        let Some(active) = self.active() else {
            // It is of one, and not ready to speak for it: not to be taken for one of none.
            if self.storage.identity().is_some() {
                return Reply::refused(&starting());
            }
            let nodes = vec![self.row(0)];
            return Reply::Cluster(Cluster { nodes, ..Cluster::default() });
        };
        let mut cluster = Cluster::clone(&self.net.cluster());
        cluster.id = Some(active.cluster.into());
        cluster.me = active.me.0;
        for node in &mut cluster.nodes {
            node.alive = active.health.is_alive(node.member());
            if node.number == active.me.0 {
                node.sequences = self.sequencers.ids().len() as u32;
            }
        }
        Reply::Cluster(cluster)
    }

    fn place(&self, asked: &Place) -> Result<Reply> {
        let active = self.active().expect("checked before");
        let cluster = self.net.cluster();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let candidates: Vec<Candidate> = cluster
            .nodes
            .iter()
            .map(|node| {
                let roles = Roles::from_bits(node.roles);
                let itself = node.number == active.me.0;
                let draining =
                    node.state == DRAINING || (itself && self.draining.load(Ordering::Acquire));
                Candidate {
                    member: node.member(),
                    zone: node.zone.clone(),
                    alive: active.health.is_ready(node.member()),
                    draining,
                    holds: roles.log,
                    sequences: roles.sequencer,
                    load: given.get(&node.number).copied().unwrap_or(0),
                }
            })
            .collect();
        let params = place(&candidates, asked.replication, asked.after.as_ref(), asked.near)?;
        *given.entry(params.members[params.sequencer as usize].node).or_default() += 1;
        Ok(Reply::Config(params))
    }

    fn create(&self, create: Create, answer: Answer) {
        if !self.config.roles.log {
            let message = "this node holds no logs: its roles say so";
            return answer.refuse(&Error::new(ErrorCode::Unavailable, message));
        }
        let placed = create.sequence.as_ref().is_none_or(LogletParams::is_placed);
        if create.base > COUNTER_MAX || !placed {
            let message = "no loglet can be made so: it starts too high, or its members are not 1, 3, \
                           5, 7 or 9 with the sequencer among them";
            return answer.refuse(&Error::invalid(message));
        }
        let (id, base) = (create.loglet.into(), LogletPos(create.base));
        let node = self.this();
        self.log_server.create(id, base, answer, move |answer| {
            let Some(params) = create.sequence else { return node.log_server.tail(id, answer) };
            let status = node.storage.status(id);
            // Made in this very life, and nothing happened to it yet.
            let fresh = node.config.roles.sequencer
                && node.storage.born_here(id)
                && status.is_some_and(|status| !status.sealed && status.tail == base);
            let fresh = fresh || planted::has(planted::Bug::SequencerReborn);
            match node.sequencers.bear(id, base, params, fresh) {
                true => node.log_server.tail(id, answer),
                false => {
                    let message = "the sequencer of this loglet lived here and is gone";
                    let failure = Failure::new(FailureKind::NotSequencer, message, 0);
                    answer.reply(Reply::Failure(failure));
                }
            }
        });
    }

    /// Runs what nobody waits for.
    pub(crate) fn detach(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(env::task(work));
    }

    /// Runs what has to wait for something, and answers with what it gives.
    fn spawn(&self, answer: Answer, work: impl Future<Output = Result<Reply>> + Send + 'static) {
        self.runtime.spawn(env::task(async move {
            match work.await {
                Ok(reply) => answer.reply(reply),
                Err(error) => answer.refuse(&error),
            }
        }));
    }

    /// A question to the MetaStore.
    fn meta(&self, request: Request, answer: Answer) {
        let paxos = self.active().and_then(|active| active.paxos.clone());
        let Some(paxos) = paxos else {
            let message = "this node does not hold the MetaStore: ask another one";
            return answer.refuse(&Error::new(ErrorCode::Unavailable, message));
        };
        self.spawn(answer, async move {
            let outcome = match request {
                Request::MetaGet(get) => {
                    paxos.get(&get.name).await.map(|value| Reply::Register(value.into()))
                }
                Request::MetaPut(MetaPut { name, value, expected, nonce }) => {
                    paxos.put(&name, value, expected, nonce.into()).await.map(|version| {
                        Reply::Register(crate::metastore::Versioned { value: None, version }.into())
                    })
                }
                Request::MetaWatch(MetaWatch { name, after }) => {
                    match tokio::time::timeout(WATCH_HOLD, paxos.watch(&name, after)).await {
                        Ok(outcome) => outcome.map(|value| Reply::Register(value.into())),
                        Err(_) => Ok(Reply::Register(
                            crate::metastore::Versioned { value: None, version: after }.into(),
                        )),
                    }
                }
                _ => paxos.list().await.map(|names| Reply::Names(Names { names })),
            };
            Ok(outcome.unwrap_or_else(to_reply))
        });
    }

    fn paxos(&self, request: Bytes, answer: Answer) {
        let paxos = self.active().and_then(|active| active.paxos.clone());
        let Some(paxos) = paxos else {
            let message = "this node does not hold the MetaStore";
            return answer.refuse(&Error::new(ErrorCode::Unavailable, message));
        };
        self.runtime.spawn(env::task(async move {
            let reply = paxos.handle(request).await;
            answer.with(Reply::Paxos(Nothing {}), reply);
        }));
    }

    /// What only a node may do that is part of a cluster and whose disk has not forgotten.
    fn data(&self, request: Request, body: Bytes, answer: Answer) {
        if !self.votes() {
            let message = "the node does not vote yet: the others have not confirmed its disk";
            let failure = Failure::new(FailureKind::Unavailable, message, 0);
            return answer.reply(Reply::Failure(failure));
        }
        match request {
            Request::Append(append) => {
                // The other LogServers have the longer way, so they are told first.
                let _own = self.storage.defer();
                self.sequencers.append(&append, &body, answer);
            }
            Request::Store(store) => self.log_server.store(&store, &body, answer),
            Request::Notice(notice) => self.log_server.notice(&notice),
            Request::Seal(loglet) => {
                self.log_server.seal(loglet.loglet.into(), answer);
                self.sequencers.sealed(loglet.loglet.into());
            }
            Request::GetTail(loglet) => self.log_server.tail(loglet.loglet.into(), answer),
            Request::WaitTail(wait) => self.log_server.wait_tail(wait, answer),
            Request::Read(read) => self.log_server.read(read, answer),
            Request::Repair(repair) => {
                self.log_server.repair(repair.loglet.into(), body, answer);
            }
            Request::Trim(trim) => {
                let (id, keep_from) = (trim.loglet.into(), LogletPos(trim.keep_from));
                self.log_server.trim_beyond(id, keep_from, answer);
            }
            Request::Create(create) => self.create(create, answer),
            Request::Retire(retire) if retire.live.len() > LIVE_MAX => {
                let message = format!("{} live loglets: a log has fewer", retire.live.len());
                answer.refuse(&Error::invalid(message));
            }
            Request::Retire(retire) => {
                let log = virtuallog_protocol::LogId(retire.log.into());
                self.sequencers.retire(log, &retire.live, retire.bound);
                self.log_server.retire(log, retire.live, retire.bound, answer);
            }
            Request::Sequencing(loglet) => {
                self.sequencers.sequencing(loglet.loglet.into(), answer);
            }
            _ => unreachable!("only requests about data come here"),
        }
    }
}

impl Handler for Node {
    fn greet(&self, hello: &Hello) -> Result<Welcome> {
        let wrong = |message: String| Err(Error::new(ErrorCode::Incompatible, message));
        let cluster = self.active().map(|active| active.cluster);
        if let Some(meant) = hello.cluster.map(u128::from)
            && cluster != Some(meant)
        {
            let kept = self.storage.identity().map(|identity| identity.cluster);
            return match cluster.or(kept) {
                Some(mine) if mine == meant => Err(starting()),
                Some(mine) => wrong(format!("this is cluster {mine:032x}, not {meant:032x}")),
                None => wrong("this server belongs to no cluster".into()),
            };
        }
        let life = self.life();
        if let Some(meant) = hello.to
            && meant != life.member
        {
            let (node, other) = (life.member.node, meant.node);
            return wrong(format!("this is node {node} with its disk, not the node {other} meant"));
        }
        if let Some(from) = &hello.from {
            self.caller_greets(from)?;
        }
        let credit_bytes = CREDIT_BYTES as u64;
        Ok(Welcome { version: VERSION, cluster: cluster.map(Bits::from), life, credit_bytes })
    }

    fn handle(&self, from: &Caller, request: Request, body: Bytes, answer: Answer) {
        let _ = from;
        if self.is_stopped() {
            let message = "the server was stopped";
            return answer.refuse(&Error::new(ErrorCode::Closed, message));
        }
        match request {
            Request::Describe(_) => return answer.reply(self.describe()),
            Request::Init(init) => {
                let node = self.this();
                return self.spawn(answer, async move { admin::initialise(&node, init).await });
            }
            _ if self.active().is_none() => {
                let message = "this server belongs to no cluster yet: run `virtuallog init` with \
                               its address";
                return answer.refuse(&Error::new(ErrorCode::Unavailable, message));
            }
            _ => {}
        }
        match request {
            Request::Paxos(_) => self.paxos(body, answer),
            Request::MetaGet(_)
            | Request::MetaPut(_)
            | Request::MetaWatch(_)
            | Request::MetaList(_) => self.meta(request, answer),
            Request::Ping(ping) => {
                let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(known) = callers.get_mut(&ping.life.member.into())
                    && known.process == u128::from(ping.life.process)
                {
                    known.heard = Instant::now();
                }
                drop(callers);
                let (node, runtime) = (self.this(), self.runtime.clone());
                self.spawn(answer, async move {
                    let work = move || {
                        let active = node.active().expect("checked before");
                        active.health.pong(&ping).map(Reply::Pong)
                    };
                    env::blocking(&runtime, work).await.unwrap_or_else(|_| Err(stopping()))
                });
            }
            Request::Place(asked) => {
                let node = self.this();
                self.spawn(answer, async move {
                    node.active().expect("checked before").health.settled().await;
                    node.place(&asked)
                });
            }
            Request::Suspect(suspect) => {
                let active = self.active().expect("checked before");
                active.health.look();
                let member = MemberId::from(suspect.member);
                let listed = self.net.cluster().nodes.iter().any(|row| row.member() == member);
                answer.reply(Reply::Alive(listed && active.health.is_alive(member)));
            }
            Request::Join(row) => {
                let node = self.this();
                self.spawn(answer, async move { admin::admit(&node, row).await });
            }
            Request::Drain(number) => {
                let node = self.this();
                self.spawn(answer, async move { admin::set_draining(&node, number.node).await });
            }
            Request::Remove(number) => {
                let node = self.this();
                self.spawn(answer, async move { admin::dismiss(&node, number.node).await });
            }
            Request::Hello(_) => {
                answer.refuse(&Error::invalid("a connection begins with one greeting"));
            }
            request => self.data(request, body, answer),
        }
    }

    /// A lone batch is written by the thread that brought it: nobody has to be woken. Not where
    /// something is sequenced, since a disk that is slow must not hold others' answers up.
    fn handle_alone(&self, from: &Caller, request: Request, body: Bytes, answer: Answer) {
        let waits = self.storage.defer();
        self.handle(from, request, body, answer);
        if self.sequencers.is_empty() {
            waits.lead();
        }
    }

    fn batch_thread(&self) -> Option<Handle> {
        self.batches.clone()
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn gone(&self, from: &Caller) {
        let Some(life) = from.hello.as_ref().and_then(|hello| hello.from) else { return };
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let std::collections::hash_map::Entry::Occupied(mut entry) =
            callers.entry(life.member.into())
            && entry.get().process == u128::from(life.process)
        {
            entry.get_mut().connections -= 1;
            if entry.get().connections == 0 {
                entry.remove();
            }
        }
    }
}

impl Node {
    /// Another node greets: there is one process of each.
    fn caller_greets(&self, from: &Life) -> Result<()> {
        let member = MemberId::from(from.member);
        if member.0 == 0 {
            return Ok(());
        }
        let process = u128::from(from.process);
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = Instant::now();
        let fresh = || Connected { process, connections: 0, heard };
        let entry = callers.entry(member).or_insert_with(fresh);
        if entry.process != process && entry.heard.elapsed() > 2 * self.config.suspect_after {
            // Its connections are only what is left of one that is gone.
            *entry = fresh();
        }
        if entry.process != process {
            let message = format!(
                "another process is node {} already: are there two copies of one directory?",
                member.0
            );
            return Err(Error::new(ErrorCode::Incompatible, message));
        }
        entry.connections += 1;
        entry.heard = heard;
        Ok(())
    }
}

fn starting() -> Error {
    Error::new(ErrorCode::Unavailable, "this server is starting: try again")
}

fn stopping() -> Error {
    Error::new(ErrorCode::Unavailable, "the server is stopping")
}

/// Nothing, as an answer.
pub(crate) fn done() -> Reply {
    Reply::Done(Nothing {})
}
