//! Which nodes hold the MetaStore: an odd number of them, as many as can, up to five.
//!
//! A cluster may begin with one node, and a holder may be lost or taken away. So one of the holders
//! looks after all of them: a node that came and could hold the MetaStore too is taken in once the number
//! is odd again with it, and one that is silent for as long as a lost node's segments wait for their
//! copies (or is of the cluster no more) gives its seat to another one. They change one at a time, each
//! change is decided by those before it, and only a node that votes and knows what it promised comes in.
//! So two who do the same, or an operator who removes a node meanwhile, are no harm. Nobody leaves
//! without one who comes, but whom an operator removes.
//!
//! Who holds it is what the MetaStore's members say; the cluster's list repeats it for those who look for
//! them.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use virtuallog_protocol::paxos::Member;

use super::Roles;
use super::admin;
use super::node::{Active, Node};
use crate::cluster::MemberId;
use crate::env::sometimes;
use crate::error::{Error, ErrorCode, Result};
use crate::log::meta_error;
use crate::metastore::MetaStore;
use crate::metastores::paxos::PaxosNode;
use crate::url::RESERVED_NAME;
use crate::wire::messages::{Cluster, DRAINING};

/// Most nodes that hold the MetaStore.
pub(super) const HOLDERS_MAX: usize = 5;
/// Between two looks, unless a lost node is replaced faster.
const LOOK: Duration = Duration::from_secs(1);

/// A node as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Candidate {
    member: MemberId,
    zone: String,
    /// It is there, votes, may hold the MetaStore, and is not about to leave.
    able: bool,
    /// It is silent for long, or of the cluster no more.
    lost: bool,
}

/// Who leaves, and who comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    leaves: Option<MemberId>,
    joins: MemberId,
}

/// Looks after the holders, for ever.
pub(super) async fn run(node: &Arc<Node>, active: &Active) {
    let Some(paxos) = &active.paxos else { return };
    loop {
        tokio::time::sleep(LOOK.min(node.config.rebuild_after)).await;
        if is_in_turn(active, paxos)
            && let Err(error) = look(node, active, paxos).await
        {
            tracing::info!(%error, "who holds the MetaStore stays as it is for now");
        }
    }
}

/// One of the holders acts: the first that is alive.
fn is_in_turn(active: &Active, paxos: &PaxosNode) -> bool {
    let members = ids(paxos);
    let first = members.into_iter().filter(|member| active.health.is_alive(*member)).min();
    first == Some(active.me) && active.health.votes()
}

async fn look(node: &Arc<Node>, active: &Active, paxos: &PaxosNode) -> Result<()> {
    let cluster = node.net.cluster();
    let holders = ids(paxos);
    if let Some(change) = next(&candidates(node, active, &cluster, &holders), &holders) {
        tracing::info!(?change, "who holds the MetaStore changes");
        let left = holders.iter().filter(|member| Some(**member) != change.leaves);
        set(paxos, left.copied().chain([change.joins])).await?;
        if change.leaves.is_some() {
            sometimes!("a lost holder of the MetaStore was replaced");
        } else {
            sometimes!("another node holds the MetaStore too");
        }
    }
    match listed(&cluster) == numbers(paxos) {
        true => Ok(()),
        false => list(node, paxos).await,
    }
}

/// Takes its part in the MetaStore from a node that is about to leave, and gives it to another one that can
/// have it, if there is one.
pub(super) async fn hand_on(node: &Arc<Node>, number: u32) -> Result<()> {
    let cluster = node.net.cluster();
    if !cluster.metastore.contains(&number) {
        return Ok(());
    }
    let active = node.active();
    let Some((active, paxos)) = active.and_then(|a| a.paxos.as_ref().map(|paxos| (a, paxos)))
    else {
        let message = "ask a node that holds the MetaStore";
        return Err(Error::new(ErrorCode::Unavailable, message));
    };
    paxos.get(RESERVED_NAME).await.map_err(meta_error)?;
    let holders = ids(paxos);
    let mut left = holders.clone();
    left.retain(|member| member.0 != number);
    let nodes = candidates(node, active, &cluster, &holders);
    left.extend(spares(&nodes, &holders, &left).first());
    if left.is_empty() {
        let message = "it is the only node that holds the MetaStore: add another one first";
        return Err(Error::invalid(message));
    }
    set(paxos, left).await?;
    list(node, paxos).await
}

/// What is to change next; `None`: nothing.
fn next(nodes: &[Candidate], holders: &[MemberId]) -> Option<Change> {
    let of = |member: &MemberId| nodes.iter().find(|node| node.member == *member);
    let is_lost = |member: &MemberId| of(member).is_none_or(|node| node.lost);
    let leaves = holders.iter().copied().find(is_lost);
    let left: Vec<MemberId> = holders.iter().copied().filter(|m| Some(*m) != leaves).collect();
    let spares = spares(nodes, holders, &left);
    let most = HOLDERS_MAX.min(holders.len() + spares.len());
    let odd = most.saturating_sub(1) | 1;
    let joins = spares.first().copied();
    let change = joins.map(|joins| Change { leaves, joins });
    change.filter(|_| leaves.is_some() || holders.len() < odd)
}

/// Who could come, the best first: from a zone where nobody `left` is, then the oldest.
fn spares(nodes: &[Candidate], holders: &[MemberId], left: &[MemberId]) -> Vec<MemberId> {
    let zones: BTreeSet<&str> =
        nodes.iter().filter(|n| left.contains(&n.member)).map(|n| n.zone.as_str()).collect();
    let mut spares: Vec<&Candidate> =
        nodes.iter().filter(|node| node.able && !holders.contains(&node.member)).collect();
    spares.sort_by_key(|node| (Reverse(!zones.contains(node.zone.as_str())), node.member));
    spares.into_iter().map(|node| node.member).collect()
}

fn candidates(
    node: &Node,
    active: &Active,
    cluster: &Cluster,
    holders: &[MemberId],
) -> Vec<Candidate> {
    let health = &active.health;
    let rows = cluster.nodes.iter().map(|row| Candidate {
        member: row.member(),
        zone: row.zone.clone(),
        able: Roles::from_bits(row.roles).metastore
            && row.state != DRAINING
            && health.is_ready(row.member()),
        lost: holders.contains(&row.member())
            && health.silence(row.member()) > node.config.rebuild_after,
    });
    rows.collect()
}

fn ids(paxos: &PaxosNode) -> Vec<MemberId> {
    paxos.members().iter().map(|member| (member.node, member.storage.into())).collect()
}

fn numbers(paxos: &PaxosNode) -> BTreeSet<u32> {
    ids(paxos).into_iter().map(|(number, _)| number).collect()
}

fn listed(cluster: &Cluster) -> BTreeSet<u32> {
    cluster.metastore.iter().copied().collect()
}

async fn set(paxos: &PaxosNode, holders: impl IntoIterator<Item = MemberId>) -> Result<()> {
    let members = holders.into_iter().map(|(number, storage)| Member::new(number, storage));
    paxos.change_members(members.collect()).await
}

/// Has the cluster's list say who holds the MetaStore.
async fn list(node: &Node, paxos: &PaxosNode) -> Result<()> {
    // Not what this node knew some time ago.
    paxos.get(RESERVED_NAME).await.map_err(meta_error)?;
    let holders = numbers(paxos);
    let told = admin::change(node, |cluster| {
        let differs = listed(cluster) != holders;
        cluster.metastore = holders.iter().copied().collect();
        Ok(differs)
    });
    told.await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32, zone: &str) -> Candidate {
        Candidate { member: (number, 0), zone: zone.to_owned(), able: true, lost: false }
    }

    fn nodes(count: u32) -> Vec<Candidate> {
        (1..=count).map(|number| node(number, "")).collect()
    }

    fn ids(numbers: &[u32]) -> Vec<MemberId> {
        numbers.iter().map(|number| (*number, 0)).collect()
    }

    /// All changes, until nothing is left to change.
    fn settle(nodes: &[Candidate], holders: &[u32]) -> Vec<u32> {
        let mut holders = ids(holders);
        for _ in 0..10 {
            let Some(change) = next(nodes, &holders) else { break };
            holders.retain(|member| Some(*member) != change.leaves);
            holders.push(change.joins);
        }
        let mut numbers: Vec<u32> = holders.into_iter().map(|(number, _)| number).collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn it_grows_to_an_odd_number_of_up_to_five() {
        let sizes = [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (9, 5)];
        for (count, holders) in sizes {
            assert_eq!(settle(&nodes(count), &[1]).len(), holders, "of {count} nodes");
        }
        assert_eq!(settle(&nodes(3), &[1, 2]), [1, 2, 3], "what was begun is completed");
        assert_eq!(settle(&nodes(4), &[1, 2, 3, 4]), [1, 2, 3, 4], "nobody leaves");
    }

    #[test]
    fn who_is_not_able_is_not_taken() {
        let mut nodes = nodes(4);
        nodes[1].able = false;
        assert_eq!(settle(&nodes, &[1]), [1, 3, 4]);
        nodes[2].able = false;
        assert_eq!(settle(&nodes, &[1]), [1]);
    }

    #[test]
    fn a_lost_holder_gives_its_seat_to_a_spare() {
        let mut four = nodes(4);
        (four[0].able, four[0].lost) = (false, true);
        assert_eq!(settle(&four, &[1, 2, 3]), [2, 3, 4]);
        assert_eq!(settle(&four[..3], &[1, 2, 3]), [1, 2, 3], "not without one who comes");
        assert_eq!(settle(&four[1..], &[1, 2, 3]), [2, 3, 4], "nor does a stranger stay");
    }

    #[test]
    fn zones_are_spread_over() {
        let mut nodes = nodes(5);
        for (node, zone) in nodes.iter_mut().zip(["a", "a", "b", "b", "c"]) {
            node.zone = zone.to_owned();
        }
        nodes[2].able = false;
        let first = next(&nodes, &ids(&[1])).map(|change| change.joins);
        assert_eq!(first, Some((4, 0)));
        assert_eq!(settle(&nodes[..], &[1])[..], [1, 4, 5]);
    }
}
