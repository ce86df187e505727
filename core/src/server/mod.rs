//! The server roles, as a library: what `virtuallogd` runs, and what an application runs that is
//! its own replica (converged mode).
//!
//! A [`Server`] has one directory and one port. By its [`Roles`] it holds logs, sequences them, and
//! holds the MetaStore. Read in this order: `node.rs` (who answers what), `log_server.rs`,
//! `sequencers.rs`, `place.rs`, `health.rs`, `heal.rs` (what is mended without anyone present),
//! `holders.rs` (who holds the MetaStore), `admin.rs` (making and changing a cluster).

mod admin;
mod batch_thread;
mod heal;
mod health;
mod holders;
mod listen;
pub(crate) mod log_server;
pub(crate) mod node;
mod place;
mod sequencers;
mod share;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use self::admin::{
    ClusterInfo, LogletStatus, MemberStatus, NodeInfo, drain, init, nodes, remove, status,
};
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::admin::{init_over, remove_over};
pub use self::listen::{OtherConnection, Room};

use self::batch_thread::BatchThread;
use self::node::Node;
use crate::cluster::Net;
use crate::env;
use crate::error::{Error, ErrorCode, Result};
use crate::storage::{Disk, RealDisk, Storage, StorageOptions};
use crate::wire::tcp::TcpTransport;
use crate::wire::transport::{Myself, Transport};

/// Connections of other protocols that wait to be taken.
const OTHER_CONNECTIONS_MAX: usize = 64;
/// How often the store is looked at for a failure.
const FAILURE_POLL: Duration = Duration::from_millis(200);

/// What a node does for its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Holds logs on its disk (LogServer).
    pub log: bool,
    /// Gives positions (sequencer); needs `log`.
    pub sequencer: bool,
    /// May hold the MetaStore: up to five such nodes do.
    pub metastore: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self { log: true, sequencer: true, metastore: true }
    }
}

impl Roles {
    pub(crate) fn bits(self) -> u32 {
        u32::from(self.log) | u32::from(self.sequencer) << 1 | u32::from(self.metastore) << 2
    }

    pub(crate) fn from_bits(bits: u32) -> Roles {
        Roles { log: bits & 1 != 0, sequencer: bits & 2 != 0, metastore: bits & 4 != 0 }
    }
}

impl std::str::FromStr for Roles {
    type Err = Error;

    /// `log,sequencer,metastore`, or some of them.
    fn from_str(text: &str) -> Result<Roles> {
        let mut roles = Roles { log: false, sequencer: false, metastore: false };
        for word in text.split(',') {
            match word.trim() {
                "log" => roles.log = true,
                "sequencer" => roles.sequencer = true,
                "metastore" => roles.metastore = true,
                other => {
                    return Err(Error::invalid(format!(
                        "`{other}` is no role: there are `log`, `sequencer` and `metastore`"
                    )));
                }
            }
        }
        match roles.sequencer && !roles.log {
            true => Err(Error::invalid("the role `sequencer` needs the role `log` beside it")),
            false => Ok(roles),
        }
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words =
            [(self.log, "log"), (self.sequencer, "sequencer"), (self.metastore, "metastore")];
        let mine: Vec<_> = words.into_iter().filter(|(has, _)| *has).map(|(_, w)| w).collect();
        f.write_str(&mine.join(","))
    }
}

/// What a server keeps to.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The directory of its store; made when its parent is there.
    pub data: PathBuf,
    /// Where it listens, `HOST:PORT`; port 0: a free one.
    pub listen: String,
    /// `HOST:PORT` by which others reach it; `None`: where it listens.
    pub advertise: Option<String>,
    /// Where it stands; replicas are spread over zones. Empty: nowhere in particular.
    pub zone: String,
    /// What it does.
    pub roles: Roles,
    /// Nodes of a cluster that it joins when its directory belongs to none.
    pub join: Vec<String>,
    /// Whether it may listen beyond this machine without encryption.
    pub insecure: bool,
    /// Between two heartbeats to each other node.
    pub heartbeat: Duration,
    /// After so long a silence a node counts as dead.
    pub suspect_after: Duration,
    /// An open segment of more bytes is closed and followed by another one.
    pub segment_bytes_max: u64,
    /// An open segment that is older, and not empty, is too.
    pub segment_age_max: Option<Duration>,
    /// After so long what a dead node held is copied to others, its part in the MetaStore too.
    pub rebuild_after: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::from("virtuallog-data"),
            listen: format!("127.0.0.1:{}", crate::url::PORT_DEFAULT),
            advertise: None,
            zone: String::new(),
            roles: Roles::default(),
            join: Vec::new(),
            insecure: false,
            heartbeat: Duration::from_millis(200),
            suspect_after: Duration::from_millis(1500),
            segment_bytes_max: 4 << 30,
            segment_age_max: None,
            rebuild_after: Duration::from_secs(600),
        }
    }
}

impl ServerConfig {
    pub(crate) fn advertised(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.clone())
    }
}

/// What a server stands on: this machine, or what a simulator gives it.
pub(crate) struct Ground {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) storage: StorageOptions,
    /// Links to others, for one who can say who he is.
    pub(crate) transport: Box<dyn FnOnce(Myself) -> Arc<dyn Transport> + Send>,
    /// Where batches are moved; `None`: where everything else is.
    pub(crate) batches: Option<BatchThread>,
}

/// A running server. Dropping it stops it without a drain: its sequencers are then replaced by others,
/// as after a crash.
pub struct Server {
    node: Arc<Node>,
    others: Mutex<Option<mpsc::Receiver<OtherConnection>>>,
    tasks: Mutex<JoinSet<()>>,
    _batches: Option<BatchThread>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address()).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.node.stop();
    }
}

impl Server {
    /// Takes the directory, listens, and takes its part in the cluster that the directory belongs to;
    /// joins one if it is to. Without either it waits until [`init`] makes one. Needs a tokio runtime,
    /// which has to live as long as the server.
    ///
    /// # Errors
    /// `INVALID` for settings that cannot be; `LOCKED` when another process has the directory;
    /// `UNAVAILABLE` when the address is taken or the cluster to join does not answer; `CORRUPT`,
    /// `DATA_LOSS`, `INCOMPATIBLE` of the directory.
    pub async fn start(config: ServerConfig) -> Result<Server> {
        Server::start_on(Arc::new(RealDisk), config).await
    }

    /// As [`start`](Self::start), on this disk.
    pub(crate) async fn start_on(disk: Arc<dyn Disk>, mut config: ServerConfig) -> Result<Server> {
        let listener = listen::bind(&config).await?;
        let bound = listener.local_addr().map_err(|error| {
            Error::new(ErrorCode::Unavailable, "the address it listens on is not known")
                .with_source(error)
        })?;
        config.listen = bound.to_string();
        let batches = BatchThread::start()?;
        let thread = batches.handle.clone();
        let ground = Ground {
            disk,
            storage: StorageOptions::default(),
            transport: Box::new(|myself| {
                Arc::new(TcpTransport::new(myself).with_batches_on(thread))
            }),
            batches: Some(batches),
        };
        let server = Server::on(ground, config).await?;
        server.node.net.share();
        let (tell, others) = mpsc::channel(OTHER_CONNECTIONS_MAX);
        *server.others.lock().unwrap_or_else(PoisonError::into_inner) = Some(others);
        server.spawn(listen::run(listener, server.node.clone(), tell));
        server.begin().await
    }

    /// A server that nobody reaches yet.
    pub(crate) async fn on(ground: Ground, config: ServerConfig) -> Result<Server> {
        let Ground { disk, storage: options, transport, batches } = ground;
        let (opened, dir) = (disk.clone(), config.data.clone());
        let open = move || Storage::open(opened, &dir, options);
        let opened = env::blocking(&Handle::current(), open).await;
        let storage = opened.unwrap_or_else(|error| {
            Err(Error::new(ErrorCode::Internal, "the runtime stopped").with_source(error))
        })?;
        let this: Arc<OnceLock<Weak<Node>>> = Arc::default();
        let myself = this.clone();
        let life = move || myself.get().and_then(Weak::upgrade).map(|node| node.life());
        let net = Net::new(transport(Arc::new(life)), config.join.clone());
        let thread = batches.as_ref().map(|batches| batches.handle.clone());
        let node = Node::new(config, disk, storage, net, env::random_u128(), thread);
        let _ = this.set(Arc::downgrade(&node));
        let (others, tasks) = (Mutex::default(), Mutex::default());
        Ok(Server { node, others, tasks, _batches: batches })
    }

    /// Takes its part in its cluster. Whoever reaches it is answered from before this on.
    pub(crate) async fn begin(self) -> Result<Server> {
        admin::begin(&self.node).await?;
        let node = self.node.clone();
        self.spawn(async move { heal::run(node).await });
        Ok(self)
    }

    /// What answers in it.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn inner(&self) -> Arc<Node> {
        self.node.clone()
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(env::task(work));
    }

    /// The address by which others reach it, `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        self.node.config.advertised()
    }

    /// The store of the cluster, by this server's address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("virtuallog://{}/", self.address())
    }

    /// Its number, once it is part of a cluster.
    #[must_use]
    pub fn node(&self) -> Option<u32> {
        self.node.active().map(|active| active.me.0)
    }

    /// The identity of its cluster, once it is part of one.
    #[must_use]
    pub fn cluster(&self) -> Option<u128> {
        self.node.active().map(|active| active.cluster)
    }

    /// Waits until it is part of a cluster and the others have confirmed its disk.
    ///
    /// # Errors
    /// `DATA_LOSS` when they say that it has forgotten something.
    pub async fn ready(&self) -> Result<()> {
        loop {
            let activated = self.node.activated.notified();
            let Some(active) = self.node.active() else {
                activated.await;
                continue;
            };
            let mut changed = active.health.changed.subscribe();
            let mut forgot = active.health.forgot.subscribe();
            loop {
                if let Some(error) = &*forgot.borrow_and_update() {
                    return Err(error.clone());
                }
                if active.health.votes() {
                    return Ok(());
                }
                tokio::select! {
                    biased;
                    _ = changed.changed() => {}
                    _ = forgot.changed() => {}
                }
            }
        }
    }

    /// Connections to its port that speak another protocol, to be given to whoever does. `None` when they
    /// were asked for before.
    pub fn other_connections(&self) -> Option<mpsc::Receiver<OtherConnection>> {
        self.others.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Moves the sequencers that live here to other nodes, and lets nothing new be placed here until it
    /// is started again. Nothing to do when there is no other node.
    ///
    /// # Errors
    /// `UNAVAILABLE` when some could not be moved: they are replaced when this server is gone.
    pub async fn drain(&self) -> Result<()> {
        heal::drain(&self.node).await
    }

    /// Stops and closes the store. What it sequenced goes on elsewhere, faster after a
    /// [`drain`](Self::drain).
    ///
    /// # Errors
    /// What kept the store from being closed in order.
    pub async fn close(self) -> Result<()> {
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
        self.node.stop();
        if let Some(paxos) = self.node.active().and_then(|active| active.paxos.as_ref()) {
            paxos.close().await;
        }
        let storage = self.node.storage.clone();
        let closed = env::blocking(&Handle::current(), move || storage.close()).await;
        closed.unwrap_or_else(|error| {
            Err(Error::new(ErrorCode::Internal, "the runtime stopped").with_source(error))
        })
    }

    /// Returns when the server can go on no more: its disk failed, or has forgotten. A daemon then
    /// exits.
    pub async fn failed(&self) -> Error {
        let mut forgot = self.node.active().map(|active| active.health.forgot.subscribe());
        loop {
            if let Some(error) = self.node.storage.failure() {
                return error;
            }
            let paxos = self.node.active().and_then(|active| active.paxos.as_ref());
            if let Some(error) = paxos.and_then(crate::metastores::paxos::PaxosNode::failed) {
                return error;
            }
            if let Some(error) = forgot.as_mut().and_then(|f| f.borrow_and_update().clone()) {
                return error;
            }
            if forgot.is_none() {
                forgot = self.node.active().map(|active| active.health.forgot.subscribe());
            }
            tokio::time::sleep(FAILURE_POLL).await;
        }
    }
}
