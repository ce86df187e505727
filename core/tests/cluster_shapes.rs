//! Clusters whose nodes are not all alike: roles, zones, and segments that are rolled by age.

mod servers;

use std::collections::BTreeSet;
use std::time::Duration;

use servers::{Cluster, HANG, append_numbers, assert_numbers};
use virtuallog::server::{self, LogletStatus};

async fn open_segment(cluster: &Cluster, name: &str) -> LogletStatus {
    let status = server::status(&cluster.url(name)).await.expect("a status");
    status.into_iter().next_back().and_then(|(_, loglet)| loglet).expect("a native segment")
}

/// The first node holds the MetaStore, the first two sequence, the last three hold logs.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_what_its_roles_say_and_nothing_else() {
    let mut cluster = Cluster::start_with(4, |at, config| {
        let roles = ["metastore", "log,sequencer", "log,sequencer", "log"];
        config.roles = roles[at].parse().expect("roles");
    })
    .await;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..10).await;
    let info = server::nodes(&cluster.url("")).await.expect("nodes");
    assert_eq!(info.metastore, [1]);
    let loglet = open_segment(&cluster, "x").await;
    let members: BTreeSet<u32> = loglet.members.iter().map(|member| member.node).collect();
    assert_eq!(members, BTreeSet::from([2, 3, 4]));
    // The last one holds all of it and never orders it, also when another has to.
    let first = loglet.sequencer;
    assert!([2, 3].contains(&first), "{first}");
    cluster.stop(first as usize - 1).await;
    append_numbers(&log, 10..20).await;
    let second = open_segment(&cluster, "x").await.sequencer;
    assert_eq!(second, 5 - first);
    cluster.restart(first as usize - 1).await;
    append_numbers(&log, 20..30).await;
    assert_numbers(&log, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_spread_over_zones() {
    let cluster = Cluster::start_with(5, |at, config| {
        config.zone = ["east", "east", "east", "north", "west"][at].into();
    })
    .await;
    for name in ["a", "b", "c", "d"] {
        let log = cluster.open(name).await;
        append_numbers(&log, 0..3).await;
        let members = open_segment(&cluster, name).await.members;
        let east = members.iter().filter(|member| member.node <= 3).count();
        assert_eq!((members.len(), east), (3, 1), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_that_is_old_and_not_empty_is_rolled() {
    let cluster = Cluster::start_with(1, |_, config| {
        config.segment_age_max = Some(Duration::from_millis(10));
    })
    .await;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..3).await;
    let rolled = async {
        while log.chain().await.expect("a chain").segments.len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(HANG, rolled).await.expect("rolled in time");
    append_numbers(&log, 3..6).await;
    assert_numbers(&log, 6).await;
}
