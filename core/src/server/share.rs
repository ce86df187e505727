//! What this node's disk holds against what the chains say it should.
//!
//! Loglets that no chain will name again are deleted. A closed segment of which this node missed a
//! part (it was away when the loglet was made or sealed, or too slow and not waited for) is copied from
//! the other members, so that it bears the loss of as many of them as the chain promises. An open one
//! that was made without it begins here empty, which is the truth, so that it can be sealed when others
//! are lost; the sequencer sends what comes from now on. Each node looks after its own disk alone, by
//! asking only itself: no turns, and nobody else need be well.
//!
//! What a slow node skipped *below* its own tail is not seen here; a rebuild brings it back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use virtuallog_protocol::chain::{Chain, Segment};
use virtuallog_protocol::{LogId, LogletId, LogletPos};

use super::heal::{chains, native_params, store};
use super::node::{Active, Node};
use crate::env::{planted, sometimes};
use crate::loglet::LogletError;
use crate::loglets::native::quorum::Quorum;
use crate::wire::messages::LogletParams;

/// Between two looks, unless the share of a lost node is rebuilt faster.
const LOOK: Duration = Duration::from_secs(15);

/// A segment that this node has not whole.
struct Missed {
    id: LogletId,
    params: LogletParams,
    /// `None`: it is open, and not here at all.
    stop: Option<LogletPos>,
}

/// Looks, for ever.
pub(super) async fn run(node: &Arc<Node>, active: &Active) {
    // Who is only late has it all at the next look.
    let mut late = BTreeSet::new();
    // Nobody has more of these, if they still end below where the chain ends them.
    let mut asked = BTreeSet::new();
    loop {
        tokio::time::sleep(LOOK.min(node.config.rebuild_after)).await;
        if !active.health.votes() {
            continue;
        }
        let Ok(chains) = chains(&store(node)).await else { continue };
        delete(node, chains.iter().map(|(_, chain)| chain));
        let mut missed = Vec::new();
        for (_, chain) in &chains {
            let mine = chain.segments.iter().filter_map(|segment| misses(node, chain, segment));
            missed.extend(mine.filter(|missed| !asked.contains(&missed.id)));
        }
        let before = std::mem::replace(&mut late, missed.iter().map(|missed| missed.id).collect());
        for Missed { id, params, stop } in missed {
            if !before.contains(&id) || planted::has(planted::Bug::LacksItsShare) {
                continue;
            }
            if node.storage.status(id).is_none() {
                let (tell, told) = oneshot::channel();
                let done = Box::new(move |outcome| drop(tell.send(outcome)));
                node.storage.create(id, LogletPos(0), done);
                // Refused when it was deleted here since the chain was read. What is wrong with the
                // disk is said elsewhere.
                let _ = told.await;
            }
            let Some(stop) = stop else { continue };
            match Quorum::new(node.net.clone(), id, params).fill_up(stop).await {
                Ok(()) => {
                    sometimes!("what a member missed was copied to it");
                    tracing::info!(loglet = %id, "what this node missed of a segment was copied");
                    asked.insert(id);
                }
                Err(LogletError::Unknown(_)) => {}
                Err(error) => {
                    tracing::info!(loglet = %id, %error, "what this node missed is not copied yet");
                }
            }
        }
    }
}

/// What a node should have of a segment and has not.
fn misses(node: &Node, chain: &Chain, segment: &Segment) -> Option<Missed> {
    let params = native_params(&segment.config)?;
    if !params.member_ids().any(|member| node.net.is_local(member)) {
        return None;
    }
    let (id, stop) = (chain.loglet_id(segment), segment.stop.map(|stop| segment.to_loglet(stop)));
    let whole = |tail, sealed| stop.is_none_or(|stop| sealed && tail >= stop);
    let has = node.storage.status(id).is_some_and(|here| whole(here.tail, here.sealed));
    (!has).then_some(Missed { id, params, stop })
}

/// Deletes loglets on this disk that a log's chain says are dead. What no chain speaks of stays.
fn delete<'a>(node: &Node, chains: impl Iterator<Item = &'a Chain>) {
    let held: Vec<LogId> = node.storage.loglets().into_iter().map(|id| id.log).collect();
    for chain in chains.filter(|chain| held.contains(&chain.log)) {
        let (live, bound) = chain.live();
        let bound = if planted::has(planted::Bug::SweepsUnnamed) { u32::MAX } else { bound };
        let dead = |id: &LogletId| {
            id.log == chain.log && id.segment < bound && !live.contains(&id.segment)
        };
        if node.storage.loglets().iter().any(dead) {
            let answer = crate::wire::serve::Answer::new(drop);
            node.log_server.retire(chain.log, live, bound, answer);
        }
    }
}
