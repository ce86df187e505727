//! Clusters of real servers in this process, over real sockets on loopback and real disks.
//!
//! Numbers in names are those of the list of tests for NativeLoglet and reconfiguration; the others of
//! that list are beside the pure cores and the store.

mod servers;

use std::time::Duration;

use virtuallog::server::{self, MemberStatus, Roles, ServerConfig};
use virtuallog::testing::Rng;
use virtuallog::{ErrorCode, LogPos, VirtualLog};

use self::servers::{Cluster, HANG, append_numbers, assert_numbers, read_all};

#[tokio::test(flavor = "multi_thread")]
async fn t1_t3_one_client_on_one_three_and_five_nodes() {
    let cluster = Cluster::start(5).await;
    for replication in [1u64, 3, 5] {
        let name = format!("orders-{replication}");
        let url = format!("{}?loglet=native:{replication}", cluster.url(&name));
        let log = VirtualLog::open(&url).await.expect("a log");
        append_numbers(&log, 0..100).await;
        log.reconfig_extend(&format!("native:{replication}"), None).await.expect("extended");
        append_numbers(&log, 100..120).await;
        assert_numbers(&log, 120).await;
        let members = server::status(&url).await.expect("a status");
        let (_, active) = members.last().expect("a segment");
        assert_eq!(active.as_ref().expect("native").members.len() as u64, replication);
        log.close().await.expect("closed");
    }
    let error = VirtualLog::open(&format!("{}?loglet=native:7", cluster.url("seven"))).await;
    assert_eq!(error.expect_err("five nodes").code(), ErrorCode::Invalid);
    let error = VirtualLog::open(&format!("{}?loglet=native:2", cluster.url("two"))).await;
    assert_eq!(error.expect_err("even").code(), ErrorCode::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn t2_many_clients_are_in_real_time_order() {
    let cluster = Cluster::start(3).await;
    let mut last = None;
    let logs = [cluster.open("x").await, cluster.open("x").await, cluster.open("x").await];
    for turn in 0..60 {
        let at = logs[turn % 3].append(format!("{turn}")).await.expect("an append");
        assert!(last < Some(at), "what was acknowledged before is before");
        last = Some(at);
    }
    let writers = logs.iter().map(|log| async move {
        for _ in 0..100 {
            log.append("x").await.expect("an append");
        }
    });
    futures_util::future::join_all(writers).await;
    assert_eq!(logs[0].check_tail().await.expect("a tail").position, LogPos(360));
    assert_eq!(read_all(&logs[1]).await.len(), 360);
}

#[tokio::test(flavor = "multi_thread")]
async fn t4_entries_from_nothing_to_the_limit() {
    let cluster = Cluster::start(3).await;
    let log = cluster.open("x").await;
    for size in [0usize, 1, 4095, 65_536, 1 << 20] {
        let payload = vec![size as u8; size];
        let at = log.append(payload.clone()).await.expect("an append");
        let entry = log.read_next(at, None).await.expect("read").expect("an entry");
        assert_eq!(entry.payload, payload);
    }
    let error = log.append(vec![0; (1 << 20) + 1]).await.expect_err("over the limit");
    assert_eq!(error.code(), ErrorCode::TooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_t20_data_and_seals_outlive_a_restart_of_all_servers() {
    let mut cluster = Cluster::start(3).await;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..50).await;
    log.reconfig_extend("native:3", None).await.expect("extended");
    append_numbers(&log, 50..60).await;
    let ended = cluster.open("ended").await;
    ended.append("last").await.expect("an append");
    ended.seal().await.expect("sealed");
    for at in 0..3 {
        cluster.stop(at).await;
    }
    for at in 0..3 {
        cluster.launch(at).await;
    }
    for at in 0..3 {
        cluster.ready(at).await;
    }
    let again = cluster.open("x").await;
    // No sequencer lives twice: somebody seals and extends, and the log goes on.
    append_numbers(&again, 60..70).await;
    assert_numbers(&again, 70).await;
    let ended = cluster.open("ended").await;
    assert_eq!(ended.append("more").await.expect_err("ended").code(), ErrorCode::Sealed);
    assert_eq!(read_all(&ended).await, [b"last"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn t7_a_dead_server_holds_nobody_back_and_comes_back() {
    let mut cluster = Cluster::start(3).await;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..20).await;
    let sequencer = cluster.sequencer("x").await;
    let other = (sequencer + 1) % 3;
    cluster.stop(other).await;
    append_numbers(&log, 20..200).await;
    cluster.restart(other).await;
    append_numbers(&log, 200..220).await;
    assert_numbers(&log, 220).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_moved_is_found_again() {
    let mut cluster = Cluster::start(3).await;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..10).await;
    for at in 0..3 {
        cluster.stop(at).await;
        cluster.addresses[at] = "127.0.0.1:0".into();
        cluster.restart(at).await;
        append_numbers(&log, 10 * (at as u64 + 1)..10 * (at as u64 + 2)).await;
        assert_numbers(&log, 10 * (at as u64 + 2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t8_without_a_majority_an_append_waits_and_then_goes_on() {
    let mut cluster = Cluster::start(3).await;
    let url = format!("{}?timeout=none", cluster.url("x"));
    let log = VirtualLog::open(&url).await.expect("a log");
    append_numbers(&log, 0..10).await;
    let sequencer = cluster.sequencer("x").await;
    let others: Vec<_> = (0..3).filter(|at| *at != sequencer).collect();
    for at in &others {
        cluster.stop(*at).await;
    }
    let waiting = log.append("10");
    for at in others {
        cluster.launch(at).await;
    }
    let at = tokio::time::timeout(HANG, waiting).await.expect("in time").expect("an append");
    assert_eq!(at, LogPos(10));
    append_numbers(&log, 11..20).await;
    assert_numbers(&log, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t15_t53_idle_and_empty_segments_are_sealed_like_others() {
    let cluster = Cluster::start(3).await;
    let log = cluster.open("x").await;
    for _ in 0..4 {
        log.reconfig_extend("native:3", None).await.expect("extended");
    }
    append_numbers(&log, 0..3).await;
    log.reconfig_extend("native:3", None).await.expect("extended");
    log.reconfig_extend("native:3", None).await.expect("extended");
    append_numbers(&log, 3..6).await;
    assert_numbers(&log, 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t16_t45_racing_reconfigurers_under_load_lose_nothing() {
    let cluster = Cluster::start(3).await;
    let log = cluster.open("x").await;
    let racers = [cluster.open("x").await, cluster.open("x").await, cluster.open("x").await];
    let swaps = racers.iter().map(|racer| async move {
        let mut won = 0;
        while won < 8 {
            match racer.reconfig_extend("native:3", None).await {
                Ok(_) => won += 1,
                Err(error) => {
                    assert_eq!(error.code(), ErrorCode::Conflict, "{error}");
                    racer.chain().await.expect("a chain");
                }
            }
        }
    });
    let mut appended = 0u64;
    let swaps = futures_util::future::join_all(swaps);
    let mut swaps = std::pin::pin!(swaps);
    loop {
        let batch: Vec<_> = (0..50).map(|at| log.append(format!("{}", appended + at))).collect();
        for append in batch {
            append.await.expect("an append");
        }
        appended += 50;
        if futures_util::FutureExt::now_or_never(swaps.as_mut()).is_some() {
            break;
        }
    }
    assert_numbers(&log, appended).await;
    assert!(log.chain().await.expect("a chain").segments.len() >= 25);
}

#[tokio::test(flavor = "multi_thread")]
async fn t18_two_sealers_at_once_end_one_log() {
    let cluster = Cluster::start(3).await;
    let (one, two) = (cluster.open("x").await, cluster.open("x").await);
    append_numbers(&one, 0..10).await;
    let (first, second) = tokio::join!(one.seal(), two.seal());
    let tails: Vec<_> = [first, second].into_iter().flatten().collect();
    assert!(!tails.is_empty() && tails.iter().all(|tail| tail.position == LogPos(10)));
    assert!(two.check_tail().await.expect("a tail").sealed);
}

#[tokio::test(flavor = "multi_thread")]
async fn t27_t47_a_dead_sequencer_is_replaced_and_nothing_is_lost() {
    let mut cluster = Cluster::start(3).await;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..50).await;
    for round in 0..3u64 {
        let victim = cluster.sequencer("x").await;
        let from = 50 + 100 * round;
        let pending: Vec<_> = (from..from + 100).map(|at| log.append(format!("{at}"))).collect();
        cluster.stop(victim).await;
        for append in pending {
            tokio::time::timeout(HANG, append).await.expect("in time").expect("an append");
        }
        assert_numbers(&log, from + 100).await;
        cluster.restart(victim).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t42_many_logs_share_the_servers_and_one_journal() {
    let cluster = Cluster::start(3).await;
    let mut logs = Vec::new();
    for at in 0..20 {
        logs.push(cluster.open(&format!("log-{at}")).await);
    }
    let writers = logs.iter().map(|log| append_numbers(log, 0..30));
    futures_util::future::join_all(writers).await;
    for log in &logs {
        assert_numbers(log, 30).await;
    }
    let names = virtuallog::logs(&cluster.url("")).await.expect("names");
    assert_eq!(names.len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn t46_a_long_chain_is_read_from_the_start_while_it_grows() {
    let cluster = Cluster::start(3).await;
    let log = cluster.open("x").await;
    let mut reader = log.subscribe(LogPos(0)).await.expect("a reader");
    for round in 0..40u64 {
        append_numbers(&log, round * 3..round * 3 + 3).await;
        log.reconfig_extend("native:3", None).await.expect("extended");
    }
    for at in 0..120u64 {
        let entry = tokio::time::timeout(HANG, reader.next()).await.expect("in time");
        let entry = entry.expect("read").expect("for ever");
        assert_eq!((entry.position, &entry.payload[..]), (LogPos(at), format!("{at}").as_bytes()));
    }
    assert_eq!(log.chain().await.expect("a chain").segments.len(), 41);
}

#[tokio::test(flavor = "multi_thread")]
async fn t48_a_request_against_an_old_chain_is_refused() {
    let cluster = Cluster::start(3).await;
    let log = cluster.open("x").await;
    let old = log.chain().await.expect("a chain").version;
    log.reconfig_extend("native:3", Some(old)).await.expect("extended");
    let error = log.reconfig_extend("native:3", Some(old)).await.expect_err("it moved on");
    assert_eq!(error.code(), ErrorCode::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn t52_appends_go_on_without_a_metastore_and_fail_over_when_it_is_back() {
    let mut cluster = Cluster::start(5).await;
    let url = format!("{}?loglet=native:3&timeout=none", cluster.url("x"));
    let log = VirtualLog::open(&url).await.expect("a log");
    append_numbers(&log, 0..10).await;
    let status = server::status(&url).await.expect("a status");
    let active = status.last().and_then(|(_, active)| active.clone()).expect("native");
    let members: Vec<usize> = active.members.iter().map(|m| m.node as usize - 1).collect();
    let sequencer = active.sequencer as usize - 1;
    // Of five holders of the MetaStore three stop: the two spare nodes and one member.
    let member = members.iter().copied().find(|at| *at != sequencer).expect("another");
    let stopped: Vec<usize> = (0..5).filter(|at| !members.contains(at)).chain([member]).collect();
    for at in &stopped {
        cluster.stop(*at).await;
    }
    append_numbers(&log, 10..20).await;
    for at in stopped {
        cluster.launch(at).await;
    }
    cluster.stop(sequencer).await;
    append_numbers(&log, 20..30).await;
    assert_numbers(&log, 30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t54_truncate_and_modify_race_extends() {
    let cluster = Cluster::start(3).await;
    let log = cluster.open("x").await;
    let other = cluster.open("x").await;
    let mut random = Rng::new(54);
    let mut appended = 0u64;
    for _ in 0..12 {
        append_numbers(&log, appended..appended + 5).await;
        appended += 5;
        let version = log.chain().await.expect("a chain").version;
        log.reconfig_extend("native:3", Some(version)).await.expect("extended");
        let chain = log.chain().await.expect("a chain");
        let sealed = chain.segments[random.below(chain.segments.len() as u64 - 1) as usize].index;
        let (extended, modified) = tokio::join!(
            log.reconfig_extend("native:3", Some(chain.version)),
            other.reconfig_modify(sealed, "native:3", Some(chain.version)),
        );
        assert!(extended.is_ok() || modified.is_ok(), "{extended:?} {modified:?}");
        for error in [extended.err(), modified.err()].into_iter().flatten() {
            assert_eq!(error.code(), ErrorCode::Conflict, "{error}");
        }
    }
    assert_numbers(&other, appended).await;
    log.prefix_trim(LogPos(appended - 3)).await.expect("trimmed");
    log.reconfig_truncate(None).await.expect("truncated");
    let error = log.read_next(LogPos(0), None).await.expect_err("trimmed");
    assert_eq!(error.code(), ErrorCode::Trimmed);
    assert_eq!(log.first().await.expect("the first"), LogPos(appended - 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_missed_a_trim_shows_nobody_what_was_trimmed() {
    let mut cluster = Cluster::start(3).await;
    for (name, closes) in [("open", false), ("closed", true)] {
        let log = cluster.open(name).await;
        append_numbers(&log, 0..20).await;
        if closes {
            log.reconfig_extend("native:3", None).await.expect("extended");
        }
        let status = server::status(&cluster.url(name)).await.expect("a status");
        // The one that a reader asks first.
        let first = status[0].1.clone().expect("native").members[0].node as usize - 1;
        cluster.stop(first).await;
        log.prefix_trim(LogPos(10)).await.expect("two of three trim");
        cluster.restart(first).await;
        for start in [0, 9] {
            let fresh = cluster.open(name).await;
            let error = fresh.read_next(LogPos(start), None).await.expect_err("trimmed");
            assert_eq!(error.code(), ErrorCode::Trimmed, "{name} from {start}");
            assert_eq!(error.position(), Some(LogPos(10)));
        }
        let fresh = cluster.open(name).await;
        let kept = fresh.read_next(LogPos(10), None).await.expect("read").expect("an entry");
        assert_eq!(kept.payload, "10");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_log_is_made_while_a_node_is_down_and_goes_on_with_it() {
    let mut cluster = Cluster::start(3).await;
    cluster.stop(2).await;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..20).await;
    cluster.restart(2).await;
    cluster.stop(1).await;
    append_numbers(&log, 20..40).await;
    assert_numbers(&log, 40).await;
}

/// One that lacks entries makes up the majority that remembers the trim.
#[tokio::test(flavor = "multi_thread")]
async fn a_trim_is_remembered_by_a_member_that_lacks_what_is_trimmed() {
    let mut cluster = Cluster::start(3).await;
    // Nobody brings it what it missed.
    cluster.rebuild_after = HANG;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..10).await;
    let sequencer = cluster.sequencer("x").await;
    let (short, other) = ((sequencer + 1) % 3, (sequencer + 2) % 3);
    cluster.stop(short).await;
    append_numbers(&log, 10..20).await;
    log.reconfig_extend("native:3", None).await.expect("extended");
    cluster.restart(short).await;
    cluster.stop(other).await;
    // It takes part again.
    append_numbers(&log, 20..30).await;
    log.prefix_trim(LogPos(15)).await.expect("two of three trim");
    cluster.restart(other).await;
    cluster.stop(sequencer).await;
    append_numbers(&log, 30..40).await;
    let fresh = cluster.open("x").await;
    assert_eq!(fresh.first().await.expect("two of three know"), LogPos(15));
    let error = fresh.read_next(LogPos(12), None).await.expect_err("trimmed");
    assert_eq!((error.code(), error.position()), (ErrorCode::Trimmed, Some(LogPos(15))));
}

#[tokio::test(flavor = "multi_thread")]
async fn t55_what_a_lost_node_held_is_rebuilt_elsewhere() {
    let mut cluster = Cluster::start(4).await;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..40).await;
    log.reconfig_extend("native:3", None).await.expect("extended");
    append_numbers(&log, 40..50).await;
    let url = cluster.url("x");
    let status = server::status(&url).await.expect("a status");
    let sealed = status[0].1.clone().expect("native");
    let lost = sealed.members[0].node;
    cluster.stop(lost as usize - 1).await;
    let store = cluster.url("");
    let removed = tokio::time::timeout(HANG, server::remove(&store, lost)).await;
    removed.expect("in time").expect("removed");
    assert!(server::nodes(&store).await.expect("nodes").nodes.iter().all(|n| n.node != lost));
    for (segment, status) in server::status(&cluster.url("x")).await.expect("a status") {
        let members = status.expect("native").members;
        assert_eq!(members.len(), 3, "segment {}", segment.index);
        assert!(members.iter().all(|member| member.node != lost && member.error.is_none()));
    }
    append_numbers(&log, 50..60).await;
    assert_numbers(&log, 60).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_copies_what_it_missed_of_closed_segments() {
    let mut cluster = Cluster::start(3).await;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..20).await;
    let away = (cluster.sequencer("x").await + 1) % 3;
    cluster.stop(away).await;
    append_numbers(&log, 20..40).await;
    for end in [60, 80] {
        // The second of these segments begins and ends without it.
        log.reconfig_extend("native:3", None).await.expect("extended");
        append_numbers(&log, end - 20..end).await;
    }
    cluster.rebuild_after = Duration::from_millis(100);
    cluster.restart(away).await;
    let whole = async {
        loop {
            let status = server::status(&cluster.url("x")).await.expect("a status");
            let closed = status.iter().filter_map(|(segment, status)| {
                let stop = segment.to_loglet(segment.stop?).0;
                let members = &status.as_ref().expect("native").members;
                assert_eq!(members.len(), 3);
                let has = |m: &MemberStatus| m.sealed == Some(true) && m.tail == Some(stop);
                Some(members.iter().all(has))
            });
            let closed: Vec<bool> = closed.collect();
            if closed == [true, true] {
                return;
            }
        }
    };
    tokio::time::timeout(HANG, whole).await.expect("all three have all of it");
    assert_numbers(&log, 80).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_sequences_nothing_and_a_new_node_joins() {
    let mut cluster = Cluster::start(3).await;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..10).await;
    let sequencer = cluster.sequencer("x").await;
    let server = cluster.servers[sequencer].as_ref().expect("it runs");
    server.drain().await.expect("drained");
    assert_ne!(cluster.sequencer("x").await, sequencer);
    // The others know, and place nothing there any more.
    let nodes = server::nodes(&cluster.url("")).await.expect("nodes").nodes;
    let draining = nodes.iter().filter(|node| node.draining).map(|node| node.node);
    assert_eq!(draining.collect::<Vec<_>>(), [sequencer as u32 + 1]);
    append_numbers(&log, 10..20).await;
    cluster.stop(sequencer).await;
    append_numbers(&log, 20..30).await;
    assert_numbers(&log, 30).await;

    cluster.join().await;
    let joined = cluster.servers[3].as_ref().expect("it runs");
    assert_eq!(joined.node(), Some(4));
    let nodes = server::nodes(&cluster.url("")).await.expect("nodes").nodes;
    assert_eq!(nodes.len(), 4);
}

/// Waits until these nodes, by number, hold the MetaStore.
async fn held_by(cluster: &Cluster, holders: &[u32]) {
    let store = cluster.url("");
    let held = async { while server::nodes(&store).await.expect("nodes").metastore != holders {} };
    tokio::time::timeout(HANG, held).await.unwrap_or_else(|_| panic!("not held by {holders:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metastore_grows_with_its_cluster_and_outlives_the_first_node() {
    let mut cluster = Cluster::start(1).await;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..10).await;
    cluster.join().await;
    held_by(&cluster, &[1]).await;
    cluster.join().await;
    held_by(&cluster, &[1, 2, 3]).await;
    log.reconfig_extend("native:3", None).await.expect("extended");
    append_numbers(&log, 10..20).await;
    cluster.stop(0).await;
    append_numbers(&log, 20..40).await;
    // A log is made without the first node.
    append_numbers(&cluster.open("y").await, 0..10).await;
    // Where they are is known again after a start of all of them.
    cluster.stop(1).await;
    cluster.stop(2).await;
    for at in 0..3 {
        cluster.launch(at).await;
    }
    for at in 0..3 {
        cluster.ready(at).await;
    }
    held_by(&cluster, &[1, 2, 3]).await;
    assert_numbers(&cluster.open("x").await, 40).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_holder_of_the_metastore_is_replaced() {
    let fast = |_, config: &mut ServerConfig| config.rebuild_after = Duration::from_millis(100);
    let mut cluster = Cluster::start_with(4, fast).await;
    held_by(&cluster, &[1, 2, 3]).await;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..10).await;
    cluster.stop(0).await;
    held_by(&cluster, &[2, 3, 4]).await;
    // Of those who began it only one is left.
    cluster.stop(1).await;
    append_numbers(&cluster.open("y").await, 0..10).await;
}

#[test]
fn roles_are_words() {
    let roles: Roles = "log,metastore".parse().expect("roles");
    assert_eq!(roles, Roles { log: true, sequencer: false, metastore: true });
    assert_eq!(roles.to_string(), "log,metastore");
    assert!("sequencer".parse::<Roles>().is_err() && "leader".parse::<Roles>().is_err());
}
