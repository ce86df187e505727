//! Who is alive, and whose disk has not forgotten.
//!
//! Every node says to every other one, again and again, that it is there: one heartbeat a pair. A
//! connection that is refused says at once that a node is down; silence says so after a time. Neither
//! decides anything about data: that is what seals and majorities are for.
//!
//! With its heartbeat a node tells its generation, which rises with each start and each journal
//! file, and the others remember it on disk. After a start a node votes in nothing until enough of the
//! others confirmed that what they remember is something that its disk was at: a disk that was restored
//! from an old image has forgotten what it promised (rule N7, design 5.12), and one of which another copy
//! was used does not know of it. Enough is half of all nodes, rounded down, so that together with the node
//! itself they are a majority; nodes also tell each other what they remember of third ones, so that one
//! that was away learns it. Whoever says something else later, as he was away, ends the node then. One
//! that is only just joining remembers nothing yet: it is not counted. A one-node cluster has nobody to
//! ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::{MemberId, Net};
use crate::env::{self, planted};
use crate::error::{Error, ErrorCode};
use crate::storage::Storage;
use crate::wire::messages::{JOINING, Life, Member, Node as Row, Ping, Pong, Reply, Request, Seen};
use crate::wire::transport::{Lane, NetError, ask};

/// A node that came within this time is waited for before something is placed; between two looks.
const YOUNG: Duration = Duration::from_secs(3);
const SETTLE_PAUSE: Duration = Duration::from_millis(20);

/// What this node knows of the others.
#[derive(Debug)]
pub(crate) struct Health {
    me: MemberId,
    process: u128,
    storage: Arc<Storage>,
    heartbeat: Duration,
    suspect_after: Duration,
    state: Mutex<State>,
    votes: AtomicBool,
    /// Rises whenever somebody is found dead or alive again.
    pub(crate) changed: watch::Sender<u64>,
    /// Somebody asks to look again at once.
    hurry: Notify,
    /// Told once, when the disk is found to have forgotten.
    pub(crate) forgot: watch::Sender<Option<Error>>,
}

#[derive(Debug, Default)]
struct State {
    peers: BTreeMap<MemberId, Peer>,
    /// Highest generations that were heard of, in memory, so that the disk is asked only for news.
    remembered: BTreeMap<MemberId, u64>,
    /// Others who remember nothing of this node that its disk does not. Nobody is told of this life
    /// before they are enough, and none before it was asked: what it remembers would be hidden.
    confirmed: BTreeSet<MemberId>,
    announcing: bool,
    /// Others who remember this life.
    recorded: BTreeSet<MemberId>,
}

#[derive(Debug)]
struct Peer {
    alive: bool,
    /// The process that answered last.
    process: Option<u128>,
    /// Whether it said that it votes.
    votes: bool,
    /// When it was found alive, or silent.
    since: Instant,
}

impl Health {
    pub(crate) fn new(
        me: MemberId,
        process: u128,
        storage: Arc<Storage>,
        heartbeat: Duration,
        suspect_after: Duration,
    ) -> Arc<Health> {
        Arc::new(Health {
            me,
            process,
            storage,
            heartbeat,
            suspect_after,
            state: Mutex::default(),
            votes: AtomicBool::new(false),
            changed: watch::Sender::new(0),
            hurry: Notify::new(),
            forgot: watch::Sender::new(None),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This life, as the others are told of it.
    pub(crate) fn life(&self) -> Life {
        let member = Member { node: self.me.0, storage: self.me.1.into() };
        Life { member, process: self.process.into(), generation: self.storage.generation() }
    }

    /// Whether this node may vote.
    pub(crate) fn votes(&self) -> bool {
        self.votes.load(Ordering::Acquire)
    }

    /// Whether a node was heard of lately. Nobody is dead before there was time to hear of him.
    pub(crate) fn is_alive(&self, member: MemberId) -> bool {
        member == self.me || self.state().peers.get(&member).is_none_or(|peer| peer.alive)
    }

    /// For how long a node is silent; zero while it is alive.
    pub(crate) fn silence(&self, member: MemberId) -> Duration {
        let state = self.state();
        let silent = state.peers.get(&member).filter(|peer| !peer.alive);
        silent.map_or(Duration::ZERO, |peer| peer.since.elapsed())
    }

    /// Waits, not for long, until those who came just now vote too: else they would be passed over.
    pub(crate) async fn settled(&self) {
        let young = |peer: &Peer| peer.alive && !peer.votes && peer.since.elapsed() < YOUNG;
        while self.state().peers.values().any(young) {
            self.look();
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }

    /// Whether something new can be placed on a node: it is alive, and votes.
    pub(crate) fn is_ready(&self, member: MemberId) -> bool {
        match member == self.me {
            true => self.votes(),
            false => self.state().peers.get(&member).is_some_and(|peer| peer.alive && peer.votes),
        }
    }

    /// The process of a node that answered last.
    pub(crate) fn process_of(&self, member: MemberId) -> Option<u128> {
        match member == self.me {
            true => Some(self.process),
            false => self.state().peers.get(&member).and_then(|peer| peer.process),
        }
    }

    /// Somebody suspects a node: looks at once instead of at the next heartbeat.
    pub(crate) fn look(&self) {
        self.hurry.notify_waiters();
    }

    /// Answers a heartbeat. Blocks on the disk when it tells something new.
    pub(crate) fn pong(&self, ping: &Ping) -> Result<Pong, Error> {
        for seen in &ping.seen {
            self.remember(seen.member.into(), seen.generation)?;
        }
        let generation = self.remember(ping.life.member.into(), ping.life.generation)?;
        Ok(Pong { life: self.life(), generation, votes: self.votes() })
    }

    /// The highest generation remembered of a disk, this one included.
    fn remember(&self, member: MemberId, generation: u64) -> Result<u64, Error> {
        let known = self.state().remembered.get(&member).copied();
        if let Some(known) = known.filter(|known| *known >= generation) {
            return Ok(known);
        }
        let highest = self.storage.remember_peer(member.0, member.1, generation)?;
        self.state().remembered.insert(member, highest);
        Ok(highest)
    }

    /// Sends heartbeats to all nodes of the cluster, for ever.
    pub(crate) async fn run(self: Arc<Self>, net: Arc<Net>) {
        let mut watched: BTreeSet<MemberId> = BTreeSet::new();
        let mut tasks = JoinSet::new();
        loop {
            let cluster = net.cluster();
            let rows = || cluster.nodes.iter().filter(|row| row.member() != self.me);
            let others: BTreeSet<MemberId> = rows().map(Row::member).collect();
            for member in others.difference(&watched) {
                let (health, net, member) = (self.clone(), net.clone(), *member);
                tasks.spawn(env::task(async move { health.watch(&net, member).await }));
            }
            self.state().peers.retain(|member, _| others.contains(member));
            watched = others;
            let count = |row: &&Row| row.state != JOINING;
            self.judge(&rows().filter(count).map(Row::member).collect());
            tokio::time::sleep(self.heartbeat).await;
            while tasks.try_join_next().is_some() {}
        }
    }

    /// Heartbeats to one node, until it is of the cluster no more.
    async fn watch(&self, net: &Net, member: MemberId) {
        self.heard(member, true);
        loop {
            if !net.cluster().nodes.iter().any(|node| node.member() == member) {
                return;
            }
            // A connection that broke: the next attempt tells whether it was the node.
            let told = match self.ping(net, member).await {
                None => self.ping(net, member).await.unwrap_or(false),
                Some(told) => told,
            };
            self.heard(member, told);
            let _ = tokio::time::timeout(self.heartbeat, self.hurry.notified()).await;
        }
    }

    /// Whether it answered; `None`: the connection broke.
    async fn ping(&self, net: &Net, member: MemberId) -> Option<bool> {
        let mut life = self.life();
        let announcing = {
            let state = self.state();
            state.announcing && state.confirmed.contains(&member)
        };
        if !announcing {
            // Asks without being remembered.
            life.generation = 0;
        }
        let seen = self.state().remembered.clone().into_iter().map(|(member, generation)| Seen {
            member: Member { node: member.0, storage: member.1.into() },
            generation,
        });
        let ping = Ping { life, seen: seen.collect() };
        let Ok(link) = net.link(member, Lane::Control) else { return Some(false) };
        let answer = ask(&*link, Request::Ping(ping), Bytes::new());
        match tokio::time::timeout(self.suspect_after, answer).await {
            Ok(Ok((Reply::Pong(pong), _))) => {
                self.confirm(member, announcing, pong.generation);
                if let Some(peer) = self.state().peers.get_mut(&member) {
                    peer.process = Some(pong.life.process.into());
                    peer.votes = pong.votes;
                }
                Some(true)
            }
            // It answers, though not to that.
            Ok(Ok(_)) => Some(true),
            Ok(Err(NetError::Lost(_))) => None,
            Ok(Err(NetError::NotSent(error))) => {
                if error.code() != ErrorCode::Unavailable && self.is_alive(member) {
                    tracing::warn!(node = member.0, %error, "a node does not speak with this one");
                }
                Some(false)
            }
            Err(_) => Some(false),
        }
    }

    fn heard(&self, member: MemberId, now: bool) {
        let mut state = self.state();
        let peer = state.peers.entry(member).or_insert(Peer {
            alive: now,
            process: None,
            votes: false,
            since: Instant::now(),
        });
        let was = std::mem::replace(&mut peer.alive, now);
        if now != was {
            peer.since = Instant::now();
        }
        drop(state);
        if was != now {
            tracing::info!(node = member.0, alive = now, "a node changed");
            self.changed.send_modify(|count| *count += 1);
        }
    }

    fn confirm(&self, member: MemberId, announced: bool, generation: u64) {
        if self.storage.was_at(generation) || planted::has(planted::Bug::TrustsOldDisk) {
            let mut state = self.state();
            match announced {
                true => state.recorded.insert(member),
                false => state.confirmed.insert(member),
            };
            return;
        }
        let message = format!(
            "node {} remembers generation {generation} of this node's disk, which was never there: it \
             was restored from an old copy, or another copy of it was used, and does not vote; remove \
             this node from the cluster, empty its directory, and let it join again",
            member.0
        );
        let state = self.state();
        self.votes.store(false, Ordering::Release);
        self.forgot.send_replace(Some(Error::new(ErrorCode::DataLoss, message)));
        drop(state);
        self.changed.send_modify(|count| *count += 1);
    }

    /// Votes once enough `others` confirmed and recorded this life.
    fn judge(&self, others: &BTreeSet<MemberId>) {
        // Of all nodes half, rounded down.
        let enough = others.len().div_ceil(2);
        let mut state = self.state();
        if self.votes() || self.forgot.borrow().is_some() {
            return;
        }
        if !state.announcing && state.confirmed.intersection(others).count() >= enough {
            state.announcing = true;
            self.hurry.notify_waiters();
        }
        if state.announcing && state.recorded.intersection(others).count() >= enough {
            self.votes.store(true, Ordering::Release);
            drop(state);
            self.changed.send_modify(|count| *count += 1);
        }
    }
}
