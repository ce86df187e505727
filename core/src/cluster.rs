//! A cluster as its clients and its nodes see it: who the nodes are, and links to them.
//!
//! What a cluster is stands in the register `_cluster`; this is a copy that may be old. A node is
//! named by its number and the identity of its disk, never by an address, so a copy that is too old
//! leads to nobody rather than to somebody else. In a process that is a node itself, the link to it
//! leads straight to its handler.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use prost::Message;
use tokio::runtime::{self, Handle};
use tokio::time::Instant;
use virtuallog_protocol::limits::REPLICAS_MAX;

use crate::error::{Error, ErrorCode, Result};
use crate::loglet::LogletError;
use crate::wire::frame::Packet;
use crate::wire::messages::{
    Cluster, Failure, FailureKind, LogletParams, Member, Node, Nothing, Reply, Request,
};
use crate::wire::serve::{Answer, Caller, Handler};
use crate::wire::tcp::TcpTransport;
use crate::wire::transport::{Done, Lane, Link, NetError, Target, Transport, ask};

/// How long a node may take to answer a small question before another one is asked.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// A node that did not answer is asked after all others for so long, where any of them will do.
const SILENCE: Duration = Duration::from_secs(30);

/// Between two looks for nodes that are not to be reached.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

type Nets = Mutex<Vec<(runtime::Id, Weak<Net>)>>;

/// Those of this process's clients, so that a thousand logs of one cluster do not need as many
/// connections.
static CLIENTS: Nets = Mutex::new(Vec::new());
/// Those of this process's servers.
static SERVERS: Nets = Mutex::new(Vec::new());

/// After a fork the lock may be held for ever by a thread that is not there: then nothing is shared.
fn find(nets: &Nets, fits: impl Fn(&runtime::Id, &Net) -> bool) -> Option<Arc<Net>> {
    let nets = nets.try_lock().ok()?;
    nets.iter().find_map(|(id, net)| net.upgrade().filter(|net| fits(id, net)))
}

fn keep(nets: &Nets, net: &Arc<Net>) {
    if let Ok(mut nets) = nets.try_lock() {
        nets.retain(|(_, net)| net.strong_count() > 0);
        nets.push((Handle::current().id(), Arc::downgrade(net)));
    }
}

/// A node's number and the identity of its disk.
pub(crate) type MemberId = (u32, u128);

impl From<Member> for MemberId {
    fn from(member: Member) -> MemberId {
        (member.node, member.storage.into())
    }
}

impl Node {
    pub(crate) fn member(&self) -> MemberId {
        (self.number, self.storage.map_or(0, Into::into))
    }
}

impl LogletParams {
    pub(crate) fn member_ids(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.members.iter().map(|member| MemberId::from(*member))
    }

    pub(crate) fn decode_from(params: &Bytes) -> Result<LogletParams> {
        let wrong = || Error::new(ErrorCode::Corrupt, "the parameters of a native loglet are none");
        let params = LogletParams::decode(params.clone()).map_err(|_| wrong())?;
        if params.is_placed() { Ok(params) } else { Err(wrong()) }
    }

    /// Whether it names members of which a majority is defined, and a sequencer among them.
    pub(crate) fn is_placed(&self) -> bool {
        let count = self.members.len();
        count % 2 == 1 && count <= REPLICAS_MAX && (self.sequencer as usize) < count
    }
}

/// Who may answer a question about the whole cluster.
#[derive(Debug)]
pub(crate) struct Somebody {
    /// `None`: whoever is at an address.
    pub(crate) member: Option<MemberId>,
    pub(crate) link: Arc<dyn Link>,
}

/// Links to all nodes.
pub(crate) struct Net {
    transport: Arc<dyn Transport>,
    /// Addresses to begin with, when no node is known.
    seeds: Vec<String>,
    /// The node of this process, if it is one.
    local: OnceLock<(MemberId, Arc<LocalLink>)>,
    cluster: ArcSwap<Cluster>,
    /// Turns between seeds and nodes, so that one that is down is not always asked first.
    turn: Mutex<usize>,
    /// When others were asked last for the address of one that was not to be reached.
    looked: tokio::sync::Mutex<Option<Instant>>,
    /// Who did not answer when asked last, and when that was.
    silent: Mutex<BTreeMap<MemberId, Instant>>,
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Net({:?})", self.seeds)
    }
}

impl Net {
    pub(crate) fn new(transport: Arc<dyn Transport>, seeds: Vec<String>) -> Arc<Net> {
        Arc::new(Net {
            transport,
            seeds,
            local: OnceLock::new(),
            cluster: ArcSwap::default(),
            turn: Mutex::default(),
            looked: tokio::sync::Mutex::default(),
            silent: Mutex::default(),
        })
    }

    /// Reaches a cluster through any of these addresses. All of this process who run on the same
    /// runtime share their links. A node of the cluster in this process is asked without a connection.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub(crate) async fn shared(seeds: Vec<String>) -> Result<Arc<Net>> {
        let runtime = Handle::current().id();
        let known = find(&CLIENTS, |id, net| *id == runtime && net.seeds == seeds);
        if let Some(net) = known {
            return Ok(net);
        }
        // A server of this process that is among those named needs no connection to be found.
        let server = find(&SERVERS, |id, net| {
            *id == runtime && net.own_address().is_some_and(|own| seeds.contains(&own))
        });
        let net = match &server {
            None => Net::connect(seeds).await?,
            Some(server) => {
                let net = Net::new(Arc::new(TcpTransport::new(Arc::new(|| None))), seeds);
                net.learn(&server.cluster());
                net
            }
        };
        if let Some(local) = server.and_then(|server| server.own().cloned()) {
            let _ = net.local.set(local);
        }
        keep(&CLIENTS, &net);
        Ok(net)
    }

    /// Where the node of this process is.
    fn own_address(&self) -> Option<String> {
        self.address_of(self.own()?.0)
    }

    /// Lets clients in this process find the server that this is of.
    pub(crate) fn share(self: &Arc<Self>) {
        keep(&SERVERS, self);
    }

    /// Reaches a cluster through any of these addresses.
    ///
    /// # Errors
    /// `UNAVAILABLE` when none answers; `INVALID` when they belong to no cluster yet.
    pub(crate) async fn connect(seeds: Vec<String>) -> Result<Arc<Net>> {
        let net = Net::new(Arc::new(TcpTransport::new(Arc::new(|| None))), seeds);
        net.refresh().await?;
        Ok(net)
    }

    /// Makes this process's own node answer without a connection.
    pub(crate) fn set_local(&self, member: MemberId, handler: &Arc<dyn Handler>) {
        let _ = self.local.set((member, Arc::new(LocalLink(Arc::downgrade(handler)))));
    }

    /// Ends all connections.
    pub(crate) fn close(&self) {
        self.transport.close();
    }

    /// The newest copy that is known.
    pub(crate) fn cluster(&self) -> Arc<Cluster> {
        self.cluster.load_full()
    }

    /// Keeps a copy, if it is newer.
    pub(crate) fn learn(&self, cluster: &Cluster) {
        let cluster = Arc::new(cluster.clone());
        self.cluster.rcu(|known| match known.id.is_none() || cluster.version > known.version {
            true => cluster.clone(),
            false => known.clone(),
        });
    }

    /// The node of this process, as long as it runs.
    fn own(&self) -> Option<&(MemberId, Arc<LocalLink>)> {
        self.local.get().filter(|(_, link)| link.is_alive())
    }

    /// The number of this process's own node, or 0.
    pub(crate) fn near(&self) -> u32 {
        self.own().map_or(0, |((node, _), _)| *node)
    }

    pub(crate) fn is_local(&self, member: MemberId) -> bool {
        self.own().is_some_and(|(local, _)| *local == member)
    }

    /// The link to a member.
    ///
    /// # Errors
    /// `UNAVAILABLE` when no node is known by that number and disk.
    pub(crate) fn link(&self, member: MemberId, lane: Lane) -> Result<Arc<dyn Link>> {
        if let Some((_, link)) = self.own().filter(|(local, _)| *local == member) {
            return Ok(link.clone());
        }
        let cluster = self.cluster.load();
        let node = cluster.nodes.iter().find(|node| node.member() == member).ok_or_else(|| {
            let message = format!("node {} with that disk is not of this cluster", member.0);
            Error::new(ErrorCode::Unavailable, message)
        })?;
        let target = Target {
            address: node.address.clone(),
            member: Some(member),
            cluster: cluster.id.map(Into::into),
        };
        Ok(self.transport.link(&target, lane))
    }

    /// The link to whoever answers at an address, of whatever cluster.
    pub(crate) fn link_to(&self, address: &str) -> Arc<dyn Link> {
        let cluster = self.cluster.load().id.map(Into::into);
        let target = Target { address: address.to_owned(), member: None, cluster };
        self.transport.link(&target, Lane::Control)
    }

    /// Asks a member, for at most [`ANSWER_TIMEOUT`].
    pub(crate) async fn ask(
        &self,
        member: MemberId,
        lane: Lane,
        request: Request,
        body: Bytes,
    ) -> Result<(Reply, Bytes), NetError> {
        let mut answer = self.ask_once(member, lane, request.clone(), body.clone()).await;
        // Perhaps it is somewhere else by now, or came when this copy of the cluster was old already.
        if matches!(answer, Err(NetError::NotSent(_))) && self.look_for(member).await {
            answer = self.ask_once(member, lane, request, body).await;
        }
        self.note(member, answer.is_ok());
        answer
    }

    async fn ask_once(
        &self,
        member: MemberId,
        lane: Lane,
        request: Request,
        body: Bytes,
    ) -> Result<(Reply, Bytes), NetError> {
        let link = self.link(member, lane).map_err(NetError::NotSent)?;
        limited(ask(&*link, request, body)).await
    }

    /// Whether a member answered when it was asked.
    pub(crate) fn note(&self, member: MemberId, answered: bool) {
        let mut silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        match answered {
            true => drop(silent.remove(&member)),
            false => drop(silent.insert(member, Instant::now())),
        }
    }

    /// Whether a member did not answer when it was asked last, and that is not long ago.
    pub(crate) fn is_silent(&self, member: MemberId) -> bool {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        silent.get(&member).is_some_and(|when| when.elapsed() < SILENCE)
    }

    fn address_of(&self, member: MemberId) -> Option<String> {
        let cluster = self.cluster.load();
        let node = cluster.nodes.iter().find(|node| node.member() == member);
        node.map(|node| node.address.clone())
    }

    /// A node was not to be reached: whether it is known to be somewhere else now. Others are asked
    /// for that only now and then.
    pub(crate) async fn look_for(&self, member: MemberId) -> bool {
        let before = self.address_of(member);
        // Whoever comes while somebody looks waits for what he finds, and not for ever: who looks may
        // be a future that is not polled, because its owner waits here.
        let Ok(mut looked) = tokio::time::timeout(LOOK_AGAIN, self.looked.lock()).await else {
            return self.address_of(member) != before;
        };
        if looked.is_none_or(|when| when.elapsed() >= LOOK_AGAIN) {
            let _ = tokio::time::timeout(LOOK_AGAIN, self.refresh()).await;
            *looked = Some(Instant::now());
        }
        self.address_of(member) != before
    }

    /// Everybody who may answer a question about the whole cluster, in turn: this process's own
    /// node first, then those that are known, then the seeds, and at the very end who is silent.
    pub(crate) fn anybody(&self) -> Vec<Somebody> {
        let cluster = self.cluster();
        let mut all: Vec<Somebody> = Vec::new();
        let turn = {
            let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            *turn = turn.wrapping_add(1);
            *turn
        };
        let mut nodes: Vec<_> = cluster.nodes.iter().collect();
        // Those that hold the MetaStore answer without asking others.
        nodes.sort_by_key(|node| !cluster.metastore.contains(&node.number));
        let holders = cluster.metastore.len().clamp(1, nodes.len().max(1));
        if !nodes.is_empty() {
            let holders = holders.min(nodes.len());
            nodes[..holders].rotate_left(turn % holders);
        }
        if let Some((member, local)) = self.own() {
            all.push(Somebody { member: Some(*member), link: local.clone() });
        }
        for member in nodes.into_iter().map(Node::member) {
            if !self.is_local(member)
                && let Ok(link) = self.link(member, Lane::Control)
            {
                all.push(Somebody { member: Some(member), link });
            }
        }
        let known = |seed: &&String| !cluster.nodes.iter().any(|node| node.address == **seed);
        let seeds = self.seeds.iter().filter(known);
        all.extend(seeds.map(|seed| Somebody { member: None, link: self.link_to(seed) }));
        all.sort_by_key(|somebody| self.was_silent(somebody));
        all
    }

    /// As [`is_silent`](Self::is_silent); nobody knows it of an address.
    pub(crate) fn was_silent(&self, somebody: &Somebody) -> bool {
        somebody.member.is_some_and(|member| self.is_silent(member))
    }

    /// Asks one after the other until one answers; the second value is whether an earlier one may
    /// have got the question too.
    ///
    /// # Errors
    /// `UNAVAILABLE`: nobody answered; lost if somebody may have got it.
    pub(crate) async fn ask_anybody(&self, request: &Request) -> Result<(Reply, bool), NetError> {
        let mut lost = false;
        let mut why = Error::new(ErrorCode::Unavailable, "no node of the cluster is known");
        for Somebody { member, link } in self.anybody() {
            let answer = limited(ask(&*link, request.clone(), Bytes::new())).await;
            if let Some(member) = member {
                self.note(member, answer.is_ok());
            }
            match answer {
                Ok((Reply::Failure(failure), _)) if failure.sends_on() => {
                    // Only a refusal surely did nothing.
                    lost |= failure.kind() != FailureKind::Refused;
                    why = Error::new(ErrorCode::Unavailable, failure.message);
                }
                Ok((reply, _)) => return Ok((reply, lost)),
                Err(error) => {
                    lost |= matches!(error, NetError::Lost(_));
                    why = error.error().clone();
                }
            }
        }
        match lost {
            true => Err(NetError::Lost(why)),
            false => Err(NetError::NotSent(why)),
        }
    }

    /// Learns the cluster anew from whoever answers.
    ///
    /// # Errors
    /// `UNAVAILABLE`; `INVALID` when whoever answers belongs to no cluster.
    pub(crate) async fn refresh(&self) -> Result<Arc<Cluster>> {
        let answer = self.ask_anybody(&Request::Describe(Nothing {})).await;
        match answer.map_err(|error| error.error().clone())?.0 {
            Reply::Cluster(cluster) if cluster.id.is_some() => {
                self.learn(&cluster);
                Ok(Arc::new(cluster))
            }
            Reply::Cluster(_) => Err(Error::invalid(
                "the server belongs to no cluster yet: run `virtuallog init` with its address",
            )),
            Reply::Failure(failure) => Err(failure.error()),
            _ => Err(unexpected()),
        }
    }
}

/// Bounds how long an answer is waited for.
pub(crate) async fn limited<T>(
    answer: impl Future<Output = Result<T, NetError>>,
) -> Result<T, NetError> {
    let silent = || NetError::Lost(Error::new(ErrorCode::Unavailable, "the node does not answer"));
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| Err(silent()))
}

pub(crate) fn unexpected() -> Error {
    let message = "a node answered something else than was asked: do both have the same version?";
    Error::new(ErrorCode::Incompatible, message)
}

/// What a LogServer or sequencer said instead of an answer, in a loglet's words.
pub(crate) fn failure(failure: &Failure, loglet: virtuallog_protocol::LogletId) -> LogletError {
    let message = || failure.message.clone();
    match failure.kind() {
        FailureKind::Refused => LogletError::Refused(failure.error()),
        FailureKind::Sealed => LogletError::Sealed,
        FailureKind::Trimmed => LogletError::Trimmed { first_kept: failure.number.into() },
        FailureKind::Unknown => LogletError::Unknown(loglet),
        FailureKind::OutOfOrder => LogletError::OutOfOrder { expected: failure.number },
        FailureKind::InDoubt => LogletError::InDoubt(failure.error().into()),
        FailureKind::Corrupt => LogletError::Corrupt(message()),
        FailureKind::Unavailable | FailureKind::Gap | FailureKind::NotSequencer => {
            LogletError::Unavailable(message().into())
        }
    }
}

/// The other way round.
pub(crate) fn to_failure(error: &LogletError) -> Failure {
    let text = error.to_string();
    match error {
        LogletError::Refused(error) => Failure::refused(error),
        LogletError::Sealed => Failure::new(FailureKind::Sealed, text, 0),
        LogletError::Trimmed { first_kept } => {
            Failure::new(FailureKind::Trimmed, text, first_kept.0)
        }
        LogletError::Unknown(_) => Failure::new(FailureKind::Unknown, text, 0),
        LogletError::OutOfOrder { expected } => {
            Failure::new(FailureKind::OutOfOrder, text, *expected)
        }
        LogletError::InDoubt(_) => Failure::new(FailureKind::InDoubt, text, 0),
        LogletError::Corrupt(what) => Failure::new(FailureKind::Corrupt, what.clone(), 0),
        LogletError::Unavailable(_) => Failure::new(FailureKind::Unavailable, text, 0),
    }
}

/// The link to this process's own node.
struct LocalLink(std::sync::Weak<dyn Handler>);

impl fmt::Debug for LocalLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalLink")
    }
}

impl LocalLink {
    fn is_alive(&self) -> bool {
        self.0.upgrade().is_some_and(|handler| !handler.is_stopped())
    }

    fn handle(&self, packet: Packet, answer: Answer) -> Result<(), (Error, Answer)> {
        let stopped = || Error::new(ErrorCode::Closed, "the server of this process was stopped");
        let Some(handler) = self.0.upgrade() else { return Err((stopped(), answer)) };
        match packet.to_request() {
            Ok(request) => handler.handle(&Caller::local(), request, packet.body, answer),
            Err(error) => answer.refuse(&error),
        }
        Ok(())
    }
}

impl Link for LocalLink {
    fn call(&self, request: Packet, done: Done) {
        let answer = Answer::new(move |packet| done(Ok(packet)));
        if let Err((error, answer)) = self.handle(request, answer) {
            answer.refuse(&error);
        }
    }

    fn tell(&self, notice: Packet) {
        let _ = self.handle(notice, Answer::new(drop));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_look_that_nobody_goes_on_with_holds_nobody_up() {
        let member = (1, 11);
        let storage = Some(member.1.into());
        let address = "127.0.0.1:1".to_owned();
        let node = Node { number: member.0, storage, address, ..Node::default() };
        let cluster = Cluster { id: Some(7.into()), nodes: vec![node], ..Cluster::default() };
        let net = Net::new(Arc::new(TcpTransport::new(Arc::new(|| None))), Vec::new());
        net.learn(&cluster);
        let mut parked = std::pin::pin!(net.look_for(member));
        assert!(futures_util::poll!(parked.as_mut()).is_pending(), "it asks");
        let other = tokio::time::timeout(Duration::from_secs(60), net.look_for(member));
        assert!(!other.await.expect("it does not wait for the other one"), "it is where it was");
    }

    fn node(number: u32) -> Node {
        let storage = Some(u128::from(number * 11).into());
        Node { number, storage, address: format!("10.0.0.{number}:1"), ..Node::default() }
    }

    fn cluster(version: u64, nodes: Vec<Node>) -> Cluster {
        Cluster { id: Some(7.into()), version, nodes, ..Cluster::default() }
    }

    /// Every node answers, and knows that there are two.
    #[derive(Debug)]
    struct Two;

    impl Transport for Two {
        fn link(&self, _to: &Target, _lane: Lane) -> Arc<dyn Link> {
            Arc::new(Two)
        }

        fn close(&self) {}
    }

    impl Link for Two {
        fn call(&self, request: Packet, done: Done) {
            let reply = match request.to_request() {
                Ok(Request::Describe(_)) => Reply::Cluster(cluster(2, vec![node(1), node(2)])),
                _ => Reply::Done(Nothing {}),
            };
            done(Ok(Packet::reply(reply, Bytes::new())));
        }

        fn tell(&self, _notice: Packet) {}
    }

    #[tokio::test]
    async fn a_node_that_joined_later_is_found() {
        let net = Net::new(Arc::new(Two), Vec::new());
        net.learn(&cluster(1, vec![node(1)]));
        let asked =
            net.ask(node(2).member(), Lane::Control, Request::Describe(Nothing {}), Bytes::new());
        assert!(asked.await.is_ok(), "others know where it is");
        let asked =
            net.ask(node(3).member(), Lane::Control, Request::Describe(Nothing {}), Bytes::new());
        assert!(matches!(asked.await, Err(NetError::NotSent(_))), "nobody knows that one");
    }
}
