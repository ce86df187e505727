//! Where a new loglet will be: a function of who is there and how much each does.
//!
//! Members of the loglet that it follows stay, as long as they are well; the sequencer goes to the
//! node that asks, if that can be, else to the one that sequences least. Zones are spread over as
//! far as there are some. With fewer live nodes than asked for, a seat goes to a silent node, or stays with
//! one that is being drained, because no log and fewer replicas would both be worse than a late one; it
//! only never sequences.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::cluster::MemberId;
use crate::error::{Error, ErrorCode, Result};
use crate::wire::messages::{LogletParams, Member};

/// Replicas when nobody says how many, on a cluster that has as many nodes.
const REPLICATION_DEFAULT: usize = 3;

/// A node as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) member: MemberId,
    pub(crate) zone: String,
    pub(crate) alive: bool,
    /// Nothing new is to be placed on it.
    pub(crate) draining: bool,
    /// It holds logs.
    pub(crate) holds: bool,
    /// It may sequence.
    pub(crate) sequences: bool,
    /// Loglets that it sequences now.
    pub(crate) load: u32,
}

/// Chooses members and a sequencer among them.
///
/// # Errors
/// `INVALID` when the cluster has fewer nodes than replicas; `UNAVAILABLE` when too few are alive.
pub(crate) fn place(
    nodes: &[Candidate],
    replication: u32,
    after: Option<&LogletParams>,
    near: u32,
) -> Result<LogletParams> {
    let holders: Vec<&Candidate> = nodes.iter().filter(|node| node.holds).collect();
    let wanted = match replication as usize {
        0 if holders.len() >= REPLICATION_DEFAULT => REPLICATION_DEFAULT,
        0 => 1,
        wanted => wanted,
    };
    if holders.len() < wanted {
        let have = holders.len();
        return Err(Error::invalid(format!(
            "{wanted} replicas need {wanted} nodes that hold logs, and the cluster has {have}: ask \
             for fewer, or add nodes"
        )));
    }
    let stays = |node: &Candidate| {
        after.is_some_and(|after| after.member_ids().any(|member| member == node.member))
    };
    let well = |node: &Candidate| node.alive && !node.draining;
    // A new log is as good a reason to wait for a node as one that has a seat there.
    let waits = |node: &Candidate| stays(node) || (after.is_none() && !node.draining);
    let mut chosen: Vec<&Candidate> = Vec::new();
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    while chosen.len() < wanted {
        let free = holders.iter().filter(|node| !chosen.contains(node));
        // Those that are well, spread over zones, near, then where it was, then where least is done.
        let best = free.min_by_key(|node| {
            let zone = zones.get(node.zone.as_str()).copied().unwrap_or(0);
            let is_near = node.member.0 == near;
            (!well(node), !node.alive, zone, !is_near, !stays(node), node.load, node.member.0)
        });
        let best = best.expect("there are at least as many as are wanted");
        if !well(best) && !waits(best) {
            break;
        }
        *zones.entry(&best.zone).or_default() += 1;
        chosen.push(best);
    }
    let alive = chosen.iter().filter(|node| node.alive).count();
    let sequencer = chosen
        .iter()
        .enumerate()
        .filter(|(_, node)| well(node) && node.sequences)
        .min_by_key(|(_, node)| (Reverse(node.member.0 == near), node.load, node.member.0));
    let Some((sequencer, _)) = sequencer.filter(|_| chosen.len() == wanted && alive > wanted / 2)
    else {
        let message = format!(
            "{wanted} replicas cannot be placed now: {alive} nodes that would do are alive; start \
             the others, or ask for fewer"
        );
        return Err(Error::new(ErrorCode::Unavailable, message));
    };
    let member = |node: &&Candidate| Member { node: node.member.0, storage: node.member.1.into() };
    Ok(LogletParams {
        members: chosen.iter().map(member).collect(),
        sequencer: sequencer as u32,
        replication: wanted as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u32) -> Candidate {
        Candidate {
            member: (number, u128::from(number)),
            zone: String::new(),
            alive: true,
            draining: false,
            holds: true,
            sequences: true,
            load: 0,
        }
    }

    fn numbers(params: &LogletParams) -> Vec<u32> {
        let mut numbers: Vec<u32> = params.members.iter().map(|member| member.node).collect();
        numbers.sort_unstable();
        numbers
    }

    fn sequencer(params: &LogletParams) -> u32 {
        params.members[params.sequencer as usize].node
    }

    #[test]
    fn three_unless_said_otherwise_and_one_on_a_small_cluster() {
        let nodes: Vec<_> = (1..=5).map(node).collect();
        assert_eq!(place(&nodes, 0, None, 0).unwrap().members.len(), 3);
        assert_eq!(place(&nodes, 5, None, 0).unwrap().members.len(), 5);
        assert_eq!(place(&nodes[..2], 0, None, 0).unwrap().members.len(), 1);
        let error = place(&nodes, 7, None, 0).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Invalid);
    }

    #[test]
    fn who_asks_sequences_else_who_does_least() {
        let mut nodes: Vec<_> = (1..=3).map(node).collect();
        (nodes[0].load, nodes[1].load) = (4, 2);
        assert_eq!(sequencer(&place(&nodes, 3, None, 2).unwrap()), 2);
        assert_eq!(sequencer(&place(&nodes, 3, None, 0).unwrap()), 3);
        nodes[2].sequences = false;
        assert_eq!(sequencer(&place(&nodes, 3, None, 0).unwrap()), 2);
    }

    #[test]
    fn members_stay_and_a_dead_one_is_replaced() {
        let mut nodes: Vec<_> = (1..=5).map(node).collect();
        let old = place(&nodes[2..], 3, None, 0).unwrap();
        assert_eq!(numbers(&place(&nodes, 3, Some(&old), 0).unwrap()), [3, 4, 5]);
        nodes[3].alive = false;
        let new = place(&nodes, 3, Some(&old), 0).unwrap();
        assert_eq!(numbers(&new), [1, 3, 5]);
    }

    #[test]
    fn without_a_spare_a_silent_member_keeps_its_seat_and_does_not_sequence() {
        let mut nodes: Vec<_> = (1..=3).map(node).collect();
        let old = place(&nodes, 3, None, 2).unwrap();
        nodes[1].alive = false;
        let new = place(&nodes, 3, Some(&old), 0).unwrap();
        assert_eq!(numbers(&new), [1, 2, 3]);
        assert_ne!(sequencer(&new), 2);
        let first = place(&nodes, 3, None, 2).unwrap();
        assert_eq!((numbers(&first), sequencer(&first)), (vec![1, 2, 3], 1), "a new log");
        nodes[0].alive = false;
        for after in [None, Some(&old)] {
            let error = place(&nodes, 3, after, 0).unwrap_err();
            assert_eq!(error.code(), ErrorCode::Unavailable, "no majority is alive");
        }
    }

    #[test]
    fn zones_are_spread_over() {
        let mut nodes: Vec<_> = (1..=6).map(node).collect();
        for (at, node) in nodes.iter_mut().enumerate() {
            node.zone = ["a", "a", "a", "b", "b", "c"][at].into();
        }
        let params = place(&nodes, 3, None, 0).unwrap();
        assert_eq!(numbers(&params), [1, 4, 6]);
    }

    #[test]
    fn nothing_new_goes_to_a_node_that_is_drained() {
        let mut nodes: Vec<_> = (1..=4).map(node).collect();
        nodes[0].draining = true;
        assert_eq!(numbers(&place(&nodes, 3, None, 1).unwrap()), [2, 3, 4]);
        let old = place(&nodes[1..], 3, None, 0).unwrap();
        nodes[1].draining = true;
        assert!(place(&nodes, 3, None, 0).is_err());
        let new = place(&nodes, 3, Some(&old), 0).unwrap();
        assert_eq!((numbers(&new), sequencer(&new)), (vec![2, 3, 4], 3));
    }
}
