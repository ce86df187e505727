//! What is mended without anyone present (design 5.6).
//!
//! Nodes that hold the MetaStore see every chain. When a log's sequencer is dead or lives no more, when
//! a member is lost and another node could take its place, when a reconfiguration was begun and is not
//! completed, they do what any client could: seal and extend, guarded by the segment that was seen, so
//! that two who do the same are no harm. A death is believed once a majority of the loglet's members
//! see it. The nodes take turns by log, so that normally one acts; few logs are mended at once; and a
//! log that was mended just now waits, longer each time: neither flapping nor the death of a node with
//! a thousand sequencers becomes a storm.
//!
//! A sequencer rolls its own loglet when that is too large or too old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::task::JoinSet;
use tokio::time::Instant;
use virtuallog_protocol::LogletConfig;
use virtuallog_protocol::chain::{Chain, Life, Next};

use super::node::{Active, Node};
use super::{admin, holders, share};
use crate::cluster::MemberId;
use crate::env;
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Log, meta_error};
use crate::loglets::native;
use crate::metastore::MetaStore;
use crate::store::{Options, Store};
use crate::url::RESERVED_NAME;
use crate::wire::messages::{
    Cluster, DRAINING, JOINING, Loglet, LogletParams, Reply, Request, Suspect,
};
use crate::wire::transport::Lane;

/// Between two looks when nothing tells of a change.
const LOOK: Duration = Duration::from_millis(100);
/// Logs that one node mends at once.
const MENDS_MAX: usize = 8;
/// How much later the next in turn acts.
const TURN: Duration = Duration::from_millis(250);
/// How long a reconfiguration may be under way before others complete it.
const NEXT_GRACE: Duration = Duration::from_millis(500);
/// How long a member may be silent before a spare takes its place in an open segment.
const SPARE_AFTER: Duration = Duration::from_secs(5);
/// Before a log that was mended is mended again: it doubles from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// After so long without a mend a log is no flapping one any more.
const CALM: Duration = Duration::from_secs(60);
/// How long one mend may take before it is given up and begun again.
const MEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a node that is drained waits until the cluster's list says so, and how often it moves what
/// it sequences.
const TELL_TIMEOUT: Duration = Duration::from_secs(1);
const DRAIN_ROUNDS: usize = 2;
/// Between two looks for segments to roll.
const ROLL_LOOK: Duration = Duration::from_secs(1);

/// Everything that a node does by itself, for ever.
pub(super) async fn run(node: Arc<Node>) {
    let active = loop {
        let activated = node.activated.notified();
        if let Some(active) = node.active() {
            break active;
        }
        activated.await;
    };
    tokio::join!(
        active.health.clone().run(node.net.clone()),
        vote(active),
        follow(&node),
        announce(&node, active),
        roll(&node),
        share::run(&node, active),
        holders::run(&node, active),
        watch_chains(&node, active),
    );
}

/// The MetaStore's part of this node votes when the node does.
async fn vote(active: &Active) {
    let mut changed = active.health.changed.subscribe();
    loop {
        if let Some(paxos) = &active.paxos {
            paxos.set_voting(active.health.votes() && !paxos.forgot());
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps the list of the cluster's nodes new.
async fn follow(node: &Arc<Node>) {
    let registers = crate::metastores::remote::RemoteMetaStore::new(node.net.clone());
    loop {
        let version = node.net.cluster().version;
        let newer = registers.watch(RESERVED_NAME, version).await;
        let value = newer.ok().and_then(|newer| newer.value);
        let Some(cluster) = value.and_then(|value| Cluster::read(&value)) else {
            tokio::time::sleep(LOOK).await;
            continue;
        };
        node.net.learn(&cluster);
        if let Err(error) = admin::save_cluster(node, &cluster) {
            tracing::warn!(%error, "after a start this node may not find the others");
        }
    }
}

/// Tells the cluster where this node is now, that it is not being drained, and once it votes that it
/// is no newcomer any more.
async fn announce(node: &Arc<Node>, active: &Active) {
    let mut changed = active.health.changed.subscribe();
    loop {
        let mine = node.row(active.me.0);
        let votes = active.health.votes();
        let told = admin::change(node, |cluster| {
            let Some(row) = cluster.nodes.iter_mut().find(|row| row.number == mine.number) else {
                return Ok(false);
            };
            let state = match node.draining.load(Ordering::Acquire) {
                true => DRAINING,
                false if row.state == JOINING && !votes => JOINING,
                false => 0,
            };
            let place = (mine.address.clone(), mine.zone.clone(), mine.roles, state);
            if (row.address.clone(), row.zone.clone(), row.roles, row.state) == place {
                return Ok(false);
            }
            (row.address, row.zone, row.roles, row.state) = place;
            Ok(true)
        });
        match told.await {
            Ok(_) if votes => return,
            Ok(_) => {
                let _ = changed.changed().await;
            }
            Err(error) => {
                tracing::debug!(%error, "the cluster is not told of this node yet");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// What a node reconfigures logs with.
pub(super) fn store(node: &Node) -> Arc<Store> {
    Arc::new(Store::cluster(&node.net))
}

async fn log_of(store: &Arc<Store>, name: &str, chain: Chain) -> Result<Arc<Log>> {
    Log::bare(name.to_owned(), store.clone(), Options::internal(), chain).await
}

/// Every log with its chain.
pub(super) async fn chains(store: &Store) -> Result<Vec<(String, Chain)>> {
    let mut found = Vec::new();
    for name in store.metastore.list().await.map_err(meta_error)? {
        let versioned = store.metastore.get(&name).await.map_err(meta_error)?;
        // One that cannot be read is nothing that we could mend.
        if let Ok(Some(chain)) = crate::log::decode_chain(&name, &versioned) {
            found.push((name, chain));
        }
    }
    Ok(found)
}

pub(super) fn native_params(config: &LogletConfig) -> Option<LogletParams> {
    let native = config.kind == native::KIND;
    native.then(|| LogletParams::decode_from(&config.params).ok()).flatten()
}

/// Seals and extends every log whose open segment `wants`; at most a few at once.
async fn extend_where(
    node: &Arc<Node>,
    wants: impl Fn(&Chain, &LogletParams) -> bool,
) -> Result<()> {
    let store = store(node);
    let mut work = FuturesUnordered::new();
    let mut failed = None;
    for (name, chain) in chains(&store).await? {
        let params = native_params(&chain.active().config);
        if chain.life != Life::Open || !params.is_some_and(|params| wants(&chain, &params)) {
            continue;
        }
        if work.len() >= MENDS_MAX
            && let Some(Err(error)) = work.next().await
        {
            failed = Some(error);
        }
        let store = &store;
        work.push(async move {
            let index = chain.active().index;
            log_of(store, &name, chain).await?.roll_forward(index).await.map(drop)
        });
    }
    while let Some(outcome) = work.next().await {
        if let Err(error) = outcome {
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Moves everything that this node sequences elsewhere.
pub(super) async fn drain(node: &Arc<Node>) -> Result<()> {
    node.draining.store(true, Ordering::Release);
    let cluster = node.net.cluster();
    let Some(active) = node.active().filter(|_| cluster.nodes.len() > 1) else { return Ok(()) };
    // First, or the others go on placing here what was only just moved away. Where no MetaStore answers
    // nothing can be placed either.
    let told = admin::change(node, |cluster| {
        let row = cluster.nodes.iter_mut().find(|row| row.number == active.me.0);
        Ok(row.is_some_and(|row| std::mem::replace(&mut row.state, DRAINING) != DRAINING))
    });
    if !matches!(tokio::time::timeout(TELL_TIMEOUT, told).await, Ok(Ok(_))) {
        tracing::warn!("the cluster is not told that this node is being drained");
    }
    // What was placed before everybody had heard is moved the second time.
    for _ in 0..DRAIN_ROUNDS {
        let mine = node.sequencers.ids();
        if mine.is_empty() {
            break;
        }
        extend_where(node, |chain, _| mine.contains(&chain.loglet_id(chain.active()))).await?;
    }
    Ok(())
}

/// Takes a node out of every loglet: open segments go on without it, sealed ones are copied.
pub(super) async fn replace_everywhere(node: &Arc<Node>, number: u32) -> Result<()> {
    let has = |params: &LogletParams| params.members.iter().any(|member| member.node == number);
    extend_where(node, |_, params| has(params)).await?;
    let store = store(node);
    for (name, chain) in chains(&store).await? {
        for segment in &chain.segments {
            let Some(params) = native_params(&segment.config).filter(&has) else { continue };
            if segment.stop.is_none() {
                return Err(Error::invalid(format!(
                    "log `{name}` needs {} replicas, and without node {number} there are too few \
                     nodes: add one first",
                    params.replication
                )));
            }
            rebuild(&store, &name, segment.index, params.replication).await?;
        }
    }
    Ok(())
}

/// Copies a sealed segment to members that are well, with full replication.
async fn rebuild(store: &Arc<Store>, name: &str, index: u32, replication: u32) -> Result<()> {
    let versioned = store.metastore.get(name).await.map_err(meta_error)?;
    let Some(chain) = crate::log::decode_chain(name, &versioned)? else { return Ok(()) };
    let planned = store.plan(&format!("{}:{replication}", native::KIND))?;
    let version = chain.version;
    let log = log_of(store, name, chain).await?;
    log.modify(index, planned, version).await.map(drop)
}

/// Rolls what this node sequences and is too large or too old.
async fn roll(node: &Arc<Node>) {
    let config = &node.config;
    loop {
        tokio::time::sleep(ROLL_LOOK).await;
        let full = node.sequencers.over(config.segment_bytes_max, config.segment_age_max);
        if full.is_empty() {
            continue;
        }
        let rolled =
            extend_where(node, |chain, _| full.contains(&chain.loglet_id(chain.active()))).await;
        if let Err(error) = rolled {
            tracing::warn!(%error, "a segment that is too large or too old was not rolled");
        }
    }
}

/// A log that is looked after.
#[derive(Default)]
struct Ward {
    version: u64,
    chain: Option<Chain>,
    /// The process of the sequencer's node in which the sequencer was seen to live.
    lives_in: Option<u128>,
    /// What is wrong, and since when.
    wrong: Option<(Wrong, Instant)>,
    mending: bool,
    /// Not before this, and how long the pause after the next mend will be.
    not_before: Option<Instant>,
    pause: Duration,
}

/// What can be wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// The node that sequences is dead, as far as this one sees.
    Dead,
    /// Its node lives, in another life.
    Reborn,
    /// A member is silent, and a spare is there.
    Short,
    /// A reconfiguration is not completed.
    Unfinished,
    /// A sealed segment, by index, has a member that is gone for long.
    Lost(u32),
}

/// Looks after all logs.
async fn watch_chains(node: &Arc<Node>, active: &Active) {
    let Some(paxos) = &active.paxos else { return };
    let store = store(node);
    let mut wards: BTreeMap<String, Ward> = BTreeMap::new();
    let mut mends: JoinSet<(String, Result<()>)> = JoinSet::new();
    let mut health = active.health.changed.subscribe();
    let mut applied = paxos.applied();
    loop {
        let registers = paxos.registers();
        for (name, register) in registers.iter().filter(|(name, _)| *name != RESERVED_NAME) {
            let ward = wards.entry(name.to_owned()).or_default();
            if ward.version != register.version {
                ward.version = register.version;
                ward.chain = register.value.as_ref().and_then(|value| Chain::decode(value).ok());
                ward.lives_in = None;
            }
        }
        wards.retain(|_, ward| ward.chain.is_some() || ward.mending);
        let now = Instant::now();
        for (name, ward) in &mut wards {
            if mends.len() >= MENDS_MAX {
                break;
            }
            let wrong = diagnose(node, active, ward).await;
            ward.wrong = match (wrong, ward.wrong) {
                (Some(wrong), Some((before, since))) if before == wrong => Some((wrong, since)),
                (Some(wrong), _) => Some((wrong, now)),
                (None, _) => None,
            };
            let Some((wrong, since)) = ward.wrong.filter(|_| !ward.mending) else { continue };
            let begin = since + grace(wrong) + TURN * turn(node, active, name);
            if now < begin || ward.not_before.is_some_and(|then| now < then) {
                continue;
            }
            let Some(chain) = ward.chain.clone() else { continue };
            ward.mending = true;
            let (node, store, name) = (node.clone(), store.clone(), name.clone());
            mends.spawn(env::task(async move {
                let mended =
                    tokio::time::timeout(MEND_TIMEOUT, mend(&node, &store, &name, chain, wrong));
                let late = |_| Err(Error::new(ErrorCode::Deadline, "it takes too long"));
                let outcome = mended.await.unwrap_or_else(late);
                (name, outcome)
            }));
        }
        tokio::select! {
            biased;
            Some(Ok((name, outcome))) = mends.join_next() => settle(&mut wards, &name, &outcome),
            _ = health.changed() => {}
            _ = applied.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

fn grace(wrong: Wrong) -> Duration {
    match wrong {
        Wrong::Unfinished => NEXT_GRACE,
        _ => Duration::ZERO,
    }
}

/// How many others act before this node does, for this log.
fn turn(node: &Node, active: &Active, name: &str) -> u32 {
    let cluster = node.net.cluster();
    let weight = |number: u32| {
        virtuallog_protocol::record::crc32c(&[name.as_bytes(), &number.to_le_bytes()].concat())
    };
    let mine = weight(active.me.0);
    let holders = cluster.nodes.iter().filter(|row| cluster.metastore.contains(&row.number));
    let before =
        holders.filter(|row| active.health.is_alive(row.member()) && weight(row.number) < mine);
    before.count() as u32
}

async fn diagnose(node: &Node, active: &Active, ward: &mut Ward) -> Option<Wrong> {
    let chain = ward.chain.as_ref().filter(|chain| chain.life == Life::Open)?;
    if let Some(Next::Extend { .. } | Next::End) = &chain.next {
        return Some(Wrong::Unfinished);
    }
    let cluster = node.net.cluster();
    let there = |member: MemberId| cluster.nodes.iter().any(|row| row.member() == member);
    let long =
        |member: MemberId, time: Duration| !there(member) || active.health.silence(member) > time;
    if let Some(params) = native_params(&chain.active().config) {
        let sequencer: MemberId = params.members[params.sequencer as usize].into();
        if !there(sequencer) || !active.health.is_alive(sequencer) {
            return Some(Wrong::Dead);
        }
        let life = active.health.process_of(sequencer);
        if life.is_some() && ward.lives_in != life {
            let loglet = Loglet { loglet: chain.loglet_id(chain.active()).into() };
            let request = Request::Sequencing(loglet);
            match node.net.ask(sequencer, Lane::Control, request, Bytes::new()).await {
                Ok((Reply::Done(_), _)) => ward.lives_in = life,
                Ok((Reply::Failure(failure), _))
                    if failure.kind() == crate::wire::messages::FailureKind::NotSequencer =>
                {
                    return Some(Wrong::Reborn);
                }
                _ => {}
            }
        }
        let spare = cluster.nodes.iter().any(|row| {
            super::Roles::from_bits(row.roles).log
                && row.state != DRAINING
                && active.health.is_alive(row.member())
                && !params.member_ids().any(|member| member == row.member())
        });
        if spare && params.member_ids().any(|member| long(member, SPARE_AFTER)) {
            return Some(Wrong::Short);
        }
    }
    let sealed = chain.segments.iter().filter(|segment| segment.stop.is_some());
    for segment in sealed {
        let Some(params) = native_params(&segment.config) else { continue };
        let lost = params.member_ids().any(|member| long(member, node.config.rebuild_after));
        let well = cluster.nodes.iter().filter(|row| active.health.is_alive(row.member())).count();
        if lost && well >= params.replication as usize {
            return Some(Wrong::Lost(segment.index));
        }
    }
    None
}

async fn mend(
    node: &Arc<Node>,
    store: &Arc<Store>,
    name: &str,
    chain: Chain,
    wrong: Wrong,
) -> Result<()> {
    let segment = chain.active().clone();
    let Some(params) = native_params(&segment.config) else {
        return match wrong {
            Wrong::Unfinished => {
                log_of(store, name, chain).await?.roll_forward(segment.index).await.map(drop)
            }
            _ => Ok(()),
        };
    };
    tracing::info!(log = name, segment = segment.index, ?wrong, "mending a log");
    match wrong {
        Wrong::Dead if !is_confirmed(node, &params).await => Err(Error::new(
            ErrorCode::Unavailable,
            "the others do not find the sequencer's node dead",
        )),
        Wrong::Lost(index) => {
            let sealed = chain.segment(index).and_then(|segment| native_params(&segment.config));
            let replication = sealed.map_or(params.replication, |params| params.replication);
            rebuild(store, name, index, replication).await
        }
        _ => log_of(store, name, chain).await?.roll_forward(segment.index).await.map(drop),
    }
}

/// Whether a majority of the loglet's members find its sequencer's node dead.
async fn is_confirmed(node: &Node, params: &LogletParams) -> bool {
    let suspect = params.members[params.sequencer as usize];
    let others = params.member_ids().filter(|member| *member != MemberId::from(suspect));
    let asked = others.map(|member| async move {
        let request = Request::Suspect(Suspect { member: suspect });
        let answer = node.net.ask(member, Lane::Control, request, Bytes::new()).await;
        matches!(answer, Ok((Reply::Alive(false), _)))
    });
    let dead = futures_util::future::join_all(asked).await.into_iter().filter(|dead| *dead);
    dead.count() > params.members.len() / 2
}

fn settle(wards: &mut BTreeMap<String, Ward>, name: &str, outcome: &Result<()>) {
    let Some(ward) = wards.get_mut(name) else { return };
    let now = Instant::now();
    ward.mending = false;
    ward.wrong = None;
    let calm = ward.not_before.is_none_or(|then| now > then + CALM);
    ward.pause = match (outcome, calm) {
        (_, true) => PAUSE.0,
        (_, false) => (ward.pause * 2).clamp(PAUSE.0, PAUSE.1),
    };
    if let Err(error) = outcome {
        tracing::info!(log = name, %error, "a log could not be mended now");
        // What kept it from it may be over soon: a short pause, and no longer one each time.
        ward.pause = PAUSE.0;
    }
    ward.not_before = Some(now + ward.pause);
}
