//! Making a cluster, joining it, leaving it, and looking at it.
//!
//! What a cluster is stands in one register, changed conditionally like every other. A directory that
//! became a node of a cluster never becomes another one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use prost::Message;
use tokio::time::Instant;
use virtuallog_protocol::paxos::{Member as PaxosMember, Register as PaxosRegister};
use virtuallog_protocol::{LogId, LogletId, Segment};

use super::Roles;
use super::health::Health;
use super::holders::HOLDERS_MAX;
use super::node::{Active, Node, done};
use crate::cluster::{MemberId, Net, limited, unexpected};
use crate::env;
use crate::error::{BoxError, Error, ErrorCode, Result};
use crate::log::meta_error;
use crate::loglets::native;
use crate::metastore::{MetaError, MetaStore};
use crate::metastores::paxos::{PaxosNode, Peers};
use crate::metastores::remote::RemoteMetaStore;
use crate::storage::Identity;
use crate::storage::whole::Whole;
use crate::url::{Location, LogUrl, RESERVED_NAME};
use crate::virtuallog::VirtualLog;
use crate::wire::messages::{
    Cluster, DRAINING, FailureKind, Init, JOINING, Loglet, LogletParams, NODES_MAX, Name,
    Node as NodeRow, NodeNumber, Nothing, Reply, Request,
};
use crate::wire::serve::Handler as _;
use crate::wire::transport::{Lane, ask};

/// How long a new cluster's nodes may take until they vote, and between two looks.
const VOTE_TIMEOUT: Duration = Duration::from_secs(10);
const VOTE_PAUSE: Duration = Duration::from_millis(20);
/// The directory of the MetaStore's part in a node's directory.
const PAXOS_DIR: &str = "paxos";
/// The copy of the cluster's list in a node's directory.
const CLUSTER_FILE: Whole =
    Whole { name: "cluster", temporary: "cluster.new", magic: *b"VLN\x01", version: 1 };

/// How long the MetaStore is waited for by who only wants to see the nodes.
const LIST_TIMEOUT: Duration = Duration::from_secs(2);
/// Before a node whose directory says that it is one, and which could not take that up, tries again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Acceptors speak with each other over the same links as everybody.
#[derive(Debug)]
struct PaxosPeers(Arc<Net>);

impl Peers for PaxosPeers {
    fn call(&self, to: PaxosMember, request: Bytes) -> BoxFuture<'static, Result<Bytes, BoxError>> {
        let net = self.0.clone();
        Box::pin(async move {
            let member = (to.node, u128::from(to.storage));
            match net.ask(member, Lane::Control, Request::Paxos(Nothing {}), request).await {
                Ok((Reply::Paxos(_), reply)) => Ok(reply),
                Ok((Reply::Failure(failure), _)) => Err(failure.error().into()),
                Ok(_) => Err(unexpected().into()),
                Err(error) => Err(error.error().clone().into()),
            }
        })
    }
}

/// What a node does first: takes up what its directory says, or joins.
pub(super) async fn begin(node: &Arc<Node>) -> Result<()> {
    if let Some(identity) = node.storage.identity() {
        return resume(node, identity).await;
    }
    if node.config.join.is_empty() {
        return Ok(());
    }
    match node.net.ask_anybody(&Request::Join(node.row(0))).await {
        Ok((Reply::Cluster(cluster), _)) => {
            let id = cluster.id.map(u128::from).ok_or_else(unexpected)?;
            node.net.learn(&cluster);
            save_cluster(node, &cluster)?;
            let identity = Identity { cluster: id, node: cluster.me };
            node.storage.set_identity(identity)?;
            activate(node, identity, None).await
        }
        Ok((Reply::Failure(failure), _)) => Err(failure.error()),
        Ok(_) => Err(unexpected()),
        Err(error) => Err(error.error().clone()),
    }
}

/// Takes up what the directory says. One that ended while it was made the first node of a cluster begins
/// that cluster's registers now, since nobody else does.
async fn resume(node: &Arc<Node>, identity: Identity) -> Result<()> {
    let kept = load_cluster(node)?;
    if let Some(cluster) = &kept {
        node.net.learn(cluster);
    }
    // Once there are registers the kept list is of a later version, or the acceptor knows them.
    let first = kept.filter(|cluster| cluster.version == 1 && begins(cluster, identity));
    activate(node, identity, first).await
}

/// Whether this node begins the registers of a new cluster.
fn begins(cluster: &Cluster, identity: Identity) -> bool {
    cluster.metastore.iter().min() == Some(&identity.node)
}

/// Takes up the roles, once. `first`: the cluster that this node, as the first one, begins.
async fn activate(node: &Arc<Node>, identity: Identity, first: Option<Cluster>) -> Result<()> {
    let _one = node.activating.lock().await;
    if node.active().is_some() {
        return Ok(());
    }
    let me: MemberId = (identity.node, node.storage.storage_id());
    let paxos = match node.config.roles.metastore {
        false => None,
        true => {
            let dir = node.config.data.join(PAXOS_DIR);
            let peers: Arc<dyn Peers> = Arc::new(PaxosPeers(node.net.clone()));
            let member = PaxosMember::new(me.0, me.1);
            let disk = node.disk.clone();
            let open = move || PaxosNode::open(disk, &dir, member, peers);
            let opened = env::blocking(&node.runtime, open).await;
            let stopped =
                |error| Error::new(ErrorCode::Internal, "the runtime stopped").with_source(error);
            Some(opened.map_err(stopped)??)
        }
    };
    if let (Some(paxos), Some(cluster)) = (paxos.as_ref().filter(|p| !p.forgot()), first) {
        let members = cluster.nodes.iter().filter(|n| cluster.metastore.contains(&n.number));
        let members = members.map(|n| {
            let (number, storage) = n.member();
            PaxosMember::new(number, storage)
        });
        let mut begun = cluster.clone();
        begun.version = 1;
        let value = Some(begun.encode_to_vec().into());
        let register = PaxosRegister { version: 1, value };
        let registers = [(RESERVED_NAME.to_owned(), register)].into();
        paxos.init(identity.cluster, members.collect(), registers).await?;
    }
    if paxos.as_ref().is_some_and(PaxosNode::forgot) {
        tracing::error!(
            "this node's part of the MetaStore was lost: it does not vote there; remove this node from \
             the cluster, empty its directory, and let it join again"
        );
    }
    let health = Health::new(
        me,
        node.life().process.into(),
        node.storage.clone(),
        node.config.heartbeat,
        node.config.suspect_after,
    );
    node.activate(Active { me, cluster: identity.cluster, health, paxos });
    Ok(())
}

/// Makes this node part of a new cluster.
pub(super) async fn initialise(node: &Arc<Node>, init: Init) -> Result<Reply> {
    let cluster = init.cluster;
    let id = cluster.id.map(u128::from).ok_or_else(unexpected)?;
    let identity = Identity { cluster: id, node: init.node };
    match node.storage.identity() {
        Some(known) if known == identity => {}
        Some(known) => {
            let message = format!(
                "this server is node {} of cluster {:032x} already: start one with an empty \
                 directory",
                known.node, known.cluster
            );
            return Err(Error::new(ErrorCode::Conflict, message));
        }
        None => {
            save_cluster(node, &cluster)?;
            let (storage, mine) = (node.storage.clone(), identity);
            let set = move || storage.set_identity(mine);
            env::blocking(&node.runtime, set).await.unwrap_or_else(|error| {
                Err(Error::new(ErrorCode::Internal, "the runtime stopped").with_source(error))
            })?;
        }
    }
    if let Err(error) = resume(node, identity).await {
        // Its directory says by now that it is a node, so it becomes one when it can.
        let later = node.clone();
        node.detach(async move {
            while !later.is_stopped() {
                tokio::time::sleep(RETRY_PAUSE).await;
                match resume(&later, identity).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(%error, "this node is not part of its cluster yet")
                    }
                }
            }
        });
        return Err(error);
    }
    Ok(done())
}

/// The copy of the cluster's list that this node kept, so that it finds the others after a start.
fn load_cluster(node: &Node) -> Result<Option<Cluster>> {
    CLUSTER_FILE.read(&*node.disk, &node.config.data, Cluster::read)
}

/// Keeps a copy of the cluster's list.
pub(super) fn save_cluster(node: &Node, cluster: &Cluster) -> Result<()> {
    let written = CLUSTER_FILE.replace(&*node.disk, &node.config.data, &cluster.encode_to_vec());
    written.and_then(|written| written).map_err(|error| {
        let message = format!("the list of the cluster's nodes cannot be kept: {error}");
        Error::new(ErrorCode::Unavailable, message).with_source(error)
    })
}

/// Changes the cluster's list, on top of whatever others change.
pub(super) async fn change(
    node: &Node,
    edit: impl Fn(&mut Cluster) -> Result<bool>,
) -> Result<Cluster> {
    let registers = RemoteMetaStore::new(node.net.clone());
    loop {
        let versioned = registers.get(RESERVED_NAME).await.map_err(meta_error)?;
        let value = versioned.value.ok_or_else(unexpected)?;
        let mut cluster = Cluster::read(&value).ok_or_else(unexpected)?;
        cluster.version = versioned.version;
        if !edit(&mut cluster)? {
            return Ok(cluster);
        }
        cluster.version += 1;
        let value = Some(cluster.encode_to_vec().into());
        match registers.put_if(RESERVED_NAME, value, versioned.version).await {
            Ok(_) => {
                node.net.learn(&cluster);
                return Ok(cluster);
            }
            Err(MetaError::Conflict { .. }) => {}
            Err(error) => return Err(meta_error(error)),
        }
    }
}

/// Takes a new node into the cluster.
pub(super) async fn admit(node: &Arc<Node>, row: NodeRow) -> Result<Reply> {
    let storage = row.storage;
    let mut cluster = change(node, |cluster| {
        if cluster.nodes.iter().any(|known| known.storage == storage) {
            return Ok(false);
        }
        if cluster.nodes.iter().any(|known| known.address == row.address) {
            let message = format!("a node of the cluster has the address {} already", row.address);
            return Err(Error::new(ErrorCode::Conflict, message));
        }
        if cluster.nodes.len() >= NODES_MAX {
            let message = format!("a cluster has at most {NODES_MAX} nodes: remove one first");
            return Err(Error::invalid(message));
        }
        let number = cluster.next_node;
        cluster.next_node = number.checked_add(1).ok_or_else(unexpected)?;
        let state = JOINING;
        cluster.nodes.push(NodeRow { number, state, alive: false, sequences: 0, ..row.clone() });
        Ok(true)
    })
    .await?;
    let number = cluster.nodes.iter().find(|known| known.storage == storage);
    cluster.me = number.map_or(0, |known| known.number);
    Ok(Reply::Cluster(cluster))
}

fn find(cluster: &mut Cluster, number: u32) -> Result<&mut NodeRow> {
    cluster.nodes.iter_mut().find(|node| node.number == number).ok_or_else(|| {
        let message = format!("the cluster has no node {number}: see `nodes list`");
        Error::new(ErrorCode::NotFound, message)
    })
}

/// Lets nothing new be placed on a node, and has what it sequences moved.
pub(super) async fn set_draining(node: &Arc<Node>, number: u32) -> Result<Reply> {
    let itself = node.active().is_some_and(|active| active.me.0 == number);
    // First, or a node that just started would say over it that it is not being drained.
    let before = itself && node.draining.swap(true, Ordering::AcqRel);
    let changed = change(node, |cluster| {
        let row = find(cluster, number)?;
        Ok(std::mem::replace(&mut row.state, DRAINING) != DRAINING)
    });
    let cluster = match changed.await {
        Err(error) if itself => {
            node.draining.store(before, Ordering::Release);
            return Err(error);
        }
        changed => changed?,
    };
    if itself {
        super::heal::drain(node).await?;
    } else {
        let row = cluster.nodes.iter().find(|row| row.number == number).ok_or_else(unexpected)?;
        let link = node.net.link(row.member(), Lane::Control)?;
        let drain = ask(&*link, Request::Drain(NodeNumber { node: number }), Bytes::new());
        match drain.await {
            Ok((Reply::Failure(failure), _)) => return Err(failure.error()),
            Ok(_) => {}
            // One that is dead sequences nothing.
            Err(_) => {}
        }
    }
    Ok(done())
}

/// Takes a node out of the cluster: first what it does, then its vote, then its row.
pub(super) async fn dismiss(node: &Arc<Node>, number: u32) -> Result<Reply> {
    set_draining(node, number).await?;
    if let Some(active) = node.active() {
        active.health.settled().await;
    }
    super::heal::replace_everywhere(node, number).await?;
    super::holders::hand_on(node, number).await?;
    change(node, |cluster| {
        let before = cluster.nodes.len();
        cluster.nodes.retain(|row| row.number != number);
        Ok(cluster.nodes.len() != before)
    })
    .await?;
    Ok(done())
}

/// A cluster, as one of its nodes sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Its identity.
    pub id: u128,
    /// Its nodes, by number.
    pub nodes: Vec<NodeInfo>,
    /// Numbers of those that hold the MetaStore.
    pub metastore: Vec<u32>,
}

/// A node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its number, never given again.
    pub node: u32,
    /// The identity of its disk.
    pub storage: u128,
    /// Where it is reached.
    pub address: String,
    /// Its zone; may be empty.
    pub zone: String,
    /// What it does.
    pub roles: Roles,
    /// Nothing new is placed on it.
    pub draining: bool,
    /// Whether it answers.
    pub alive: bool,
    /// How many loglets it sequences; 0 when it does not answer.
    pub sequences: u32,
}

fn info(cluster: &Cluster) -> ClusterInfo {
    let node = |row: &NodeRow| NodeInfo {
        node: row.number,
        storage: row.member().1,
        address: row.address.clone(),
        zone: row.zone.clone(),
        roles: Roles::from_bits(row.roles),
        draining: row.state == DRAINING,
        alive: row.alive,
        sequences: row.sequences,
    };
    let mut nodes: Vec<NodeInfo> = cluster.nodes.iter().map(node).collect();
    nodes.sort_by_key(|node| node.node);
    ClusterInfo {
        id: cluster.id.map_or(0, Into::into),
        nodes,
        metastore: cluster.metastore.clone(),
    }
}

/// Makes a cluster of the servers at these addresses, which belong to none. The first ones, at most
/// five and an odd number, hold the MetaStore; of nodes that join later more do, up to five. Again after an interruption: completes it.
///
/// # Errors
/// `UNAVAILABLE` when one does not answer; `CONFLICT` when one belongs to another cluster; `INVALID`.
pub async fn init(addresses: &[String]) -> Result<ClusterInfo> {
    let addresses =
        addresses.iter().map(|host| crate::url::parse_host(host)).collect::<Result<Vec<_>>>()?;
    if addresses.is_empty() {
        return Err(Error::invalid("a cluster needs an address at least"));
    }
    let transport = Arc::new(crate::wire::tcp::TcpTransport::new(Arc::new(|| None)));
    init_over(&Net::new(transport, Vec::new()), &addresses).await
}

/// As [`init`], over these links.
pub(crate) async fn init_over(net: &Net, addresses: &[String]) -> Result<ClusterInfo> {
    let mut found = Vec::new();
    for address in addresses {
        let link = net.link_to(address);
        let answer = limited(ask(&*link, Request::Describe(Nothing {}), Bytes::new())).await;
        match answer.map_err(|error| error.error().clone())?.0 {
            Reply::Cluster(cluster) => found.push(cluster),
            _ => return Err(unexpected()),
        }
    }
    let begun = found.iter().find(|cluster| cluster.id.is_some());
    let cluster = match begun {
        Some(cluster) => cluster.clone(),
        None => plan(addresses, &found)?,
    };
    // The one that begins the MetaStore comes last, when the others can answer it.
    let mut rows: Vec<&NodeRow> = cluster.nodes.iter().collect();
    rows.sort_by_key(|row| cluster.metastore.iter().min() == Some(&row.number));
    for row in rows {
        let at =
            found.iter().position(|known| known.nodes.iter().any(|n| n.storage == row.storage));
        let Some(at) = at.filter(|at| found[*at].id.is_none()) else { continue };
        let link = net.link_to(&addresses[at]);
        let init = Request::Init(Init { cluster: cluster.clone(), node: row.number });
        match limited(ask(&*link, init, Bytes::new())).await {
            Ok((Reply::Failure(failure), _)) => return Err(failure.error()),
            Ok(_) => {}
            Err(error) => return Err(error.error().clone()),
        }
    }
    if let Some(stranger) = found.iter().find(|known| {
        known.nodes.iter().any(|n| !cluster.nodes.iter().any(|row| row.storage == n.storage))
    }) {
        let whose = if stranger.id.is_some() { "another cluster" } else { "none yet" };
        let message = format!(
            "the cluster was made before, of other servers, and one of these belongs to {whose}: \
             start that one with `--join`"
        );
        return Err(Error::new(ErrorCode::Conflict, message));
    }
    for address in addresses {
        wait_for_vote(net, address).await?;
    }
    wait_for_registers(net, addresses).await?;
    Ok(info(&cluster))
}

/// Waits until the MetaStore of a new cluster answers: it is begun by one node, and that all of them vote
/// says nothing of it.
async fn wait_for_registers(net: &Net, addresses: &[String]) -> Result<()> {
    let begun = Instant::now();
    loop {
        for address in addresses {
            let link = net.link_to(address);
            let request = Request::MetaGet(Name { name: RESERVED_NAME.to_owned() });
            let answer = limited(ask(&*link, request, Bytes::new())).await;
            if let Ok((Reply::Register(register), _)) = answer
                && register.value.is_some()
            {
                return Ok(());
            }
        }
        if begun.elapsed() > VOTE_TIMEOUT {
            let message = "the cluster was made, and its MetaStore does not answer yet: see the log of \
                           the first node, and run this again";
            return Err(Error::new(ErrorCode::Unavailable, message));
        }
        tokio::time::sleep(VOTE_PAUSE).await;
    }
}

/// Waits until a new node votes: until then nothing can be placed on it.
async fn wait_for_vote(net: &Net, address: &str) -> Result<()> {
    let nothing = LogletId { log: LogId(0), segment: 0 };
    let begun = Instant::now();
    loop {
        let link = net.link_to(address);
        let request = Request::GetTail(Loglet { loglet: nothing.into() });
        match limited(ask(&*link, request, Bytes::new())).await {
            // Who votes knows that there is no such loglet.
            Ok((Reply::Failure(failure), _)) if failure.kind() == FailureKind::Unknown => {
                return Ok(());
            }
            _ if begun.elapsed() > VOTE_TIMEOUT => {
                let message = format!(
                    "the cluster was made, and {address} does not take part yet: see its log"
                );
                return Err(Error::new(ErrorCode::Unavailable, message));
            }
            _ => tokio::time::sleep(VOTE_PAUSE).await,
        }
    }
}

fn plan(addresses: &[String], found: &[Cluster]) -> Result<Cluster> {
    let mut nodes = Vec::new();
    for (at, cluster) in found.iter().enumerate() {
        let mut row = cluster.nodes.first().cloned().ok_or_else(unexpected)?;
        if nodes.iter().any(|known: &NodeRow| known.storage == row.storage) {
            return Err(Error::invalid(format!("`{}` is named twice", addresses[at])));
        }
        row.number = at as u32 + 1;
        nodes.push(row);
    }
    let able = nodes.iter().filter(|row| Roles::from_bits(row.roles).metastore);
    let mut metastore: Vec<u32> = able.map(|row| row.number).take(HOLDERS_MAX).collect();
    if metastore.len().is_multiple_of(2) {
        metastore.pop();
    }
    if metastore.is_empty() {
        return Err(Error::invalid("one server at least needs the role `metastore`"));
    }
    let next_node = nodes.len() as u32 + 1;
    let id = Some(env::random_u128().into());
    Ok(Cluster { id, nodes, metastore, next_node, version: 1, me: 0 })
}

async fn net_of(url: &str) -> Result<Arc<Net>> {
    match LogUrl::parse(url)?.location {
        Location::Cluster { hosts } => Net::connect(hosts).await,
        _ => Err(Error::invalid(format!("`{url}` is no cluster: write `virtuallog://HOST:PORT/`"))),
    }
}

/// The newest list of a cluster's nodes; where no MetaStore answers, what some node knows.
async fn newest(net: &Arc<Net>) -> Result<Cluster> {
    let registers = RemoteMetaStore::new(net.clone());
    let asked = tokio::time::timeout(LIST_TIMEOUT, registers.get(RESERVED_NAME)).await;
    let value = asked.ok().and_then(|answer| answer.ok()?.value);
    match value.and_then(|value| Cluster::read(&value)) {
        Some(cluster) => Ok(cluster),
        None => Ok(Cluster::clone(&*net.refresh().await?)),
    }
}

/// The nodes of the cluster that `store` names: no older than any change of them that is done.
///
/// # Errors
/// `INVALID` when it is no cluster's URL; `UNAVAILABLE` when no node answers.
pub async fn nodes(store: &str) -> Result<ClusterInfo> {
    let net = net_of(store).await?;
    let mut cluster = newest(&net).await?;
    net.learn(&cluster);
    for row in &mut cluster.nodes {
        let answer =
            net.ask(row.member(), Lane::Control, Request::Describe(Nothing {}), Bytes::new());
        row.alive = false;
        if let Ok((Reply::Cluster(seen), _)) = answer.await {
            row.alive = true;
            let itself = seen.nodes.iter().find(|other| other.number == row.number);
            row.sequences = itself.map_or(0, |other| other.sequences);
        }
    }
    Ok(info(&cluster))
}

async fn administer(net: &Net, request: Request) -> Result<()> {
    let mut why = Error::new(ErrorCode::Unavailable, "no node answers");
    for somebody in net.anybody() {
        // As long as it takes.
        match ask(&*somebody.link, request.clone(), Bytes::new()).await {
            Ok((Reply::Failure(failure), _)) if failure.sends_on() => why = failure.error(),
            Ok((Reply::Failure(failure), _)) => return Err(failure.error()),
            Ok(_) => return Ok(()),
            Err(error) => why = error.error().clone(),
        }
    }
    Err(why)
}

/// Moves what a node sequences to others, and lets nothing new be placed on it.
///
/// # Errors
/// `NOT_FOUND` when there is no such node; `UNAVAILABLE`.
pub async fn drain(store: &str, node: u32) -> Result<()> {
    administer(&*net_of(store).await?, Request::Drain(NodeNumber { node })).await
}

/// Takes a node out of the cluster for good: drains it, rebuilds its share of sealed segments on
/// others, hands its part in the MetaStore on. As long as that takes.
///
/// # Errors
/// `NOT_FOUND`; `INVALID` or `UNAVAILABLE` when the others could not keep what it holds.
pub async fn remove(store: &str, node: u32) -> Result<()> {
    remove_over(&*net_of(store).await?, node).await
}

/// As [`remove`], over these links.
pub(crate) async fn remove_over(net: &Net, node: u32) -> Result<()> {
    administer(net, Request::Remove(NodeNumber { node })).await
}

/// One loglet of a log, by its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogletStatus {
    /// Which loglet.
    pub loglet: LogletId,
    /// What each LogServer says.
    pub members: Vec<MemberStatus>,
    /// The node that sequences it, as the chain says.
    pub sequencer: u32,
}

/// One LogServer's word on a loglet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its node.
    pub node: u32,
    /// Its local tail, a position of the loglet.
    pub tail: Option<u64>,
    /// Whether it is sealed there.
    pub sealed: Option<bool>,
    /// How far it knows everything to be committed.
    pub known_tail: Option<u64>,
    /// The first position that it keeps.
    pub trim: Option<u64>,
    /// Why it says nothing.
    pub error: Option<String>,
}

/// The segments of a log's chain, those on native loglets with what their members say.
///
/// # Errors
/// As [`VirtualLog::open`]; `NOT_FOUND` when there is no such log.
pub async fn status(log: &str) -> Result<Vec<(Segment, Option<LogletStatus>)>> {
    let net = net_of(log).await?;
    let opened = VirtualLog::builder(log).read_only().open().await?;
    let chain = opened.chain().await;
    opened.close().await?;
    let chain = chain?;
    let mut rows = Vec::new();
    for segment in &chain.segments {
        let loglet = chain.loglet_id(segment);
        let status = match segment.config.kind == native::KIND {
            true => Some(loglet_status(&net, loglet, segment).await?),
            false => None,
        };
        rows.push((segment.clone(), status));
    }
    Ok(rows)
}

async fn loglet_status(net: &Net, loglet: LogletId, segment: &Segment) -> Result<LogletStatus> {
    let params = LogletParams::decode_from(&segment.config.params)?;
    let asked = params.member_ids().map(|member| async move {
        let request = Request::GetTail(Loglet { loglet: loglet.into() });
        let silent = MemberStatus {
            node: member.0,
            tail: None,
            sealed: None,
            known_tail: None,
            trim: None,
            error: None,
        };
        let error = match net.ask(member, Lane::Control, request, Bytes::new()).await {
            Ok((Reply::LocalTail(tail), _)) => {
                return MemberStatus {
                    tail: Some(tail.tail),
                    sealed: Some(tail.sealed),
                    known_tail: Some(tail.known_tail),
                    trim: Some(tail.trim),
                    ..silent
                };
            }
            Ok((Reply::Failure(failure), _)) => failure.message,
            Ok(_) => unexpected().to_string(),
            Err(error) => error.to_string(),
        };
        MemberStatus { error: Some(error), ..silent }
    });
    let members = futures_util::future::join_all(asked).await;
    let sequencer = params.members[params.sequencer as usize].node;
    Ok(LogletStatus { loglet, members, sequencer })
}

#[cfg(test)]
#[path = "init_tests.rs"]
mod tests;
