//! How long a cluster does not serve when its engine is swapped, and when a node dies.

use std::time::Duration;

use virtuallog::VirtualLog;

use crate::load::{Writers, acks, gap, lost_and_doubled, number, runtime};
use crate::processes::Cluster;
use crate::stats::{Row, median, percentile};

/// Between two events, so that each finds a cluster that works.
const CALM: Duration = Duration::from_millis(20);
/// After a death: longer than it may take until appends are acknowledged again.
const WATCHED: Duration = Duration::from_secs(3);

/// Reconfigurations from one native loglet to the next under load.
pub(crate) fn swap() -> Vec<Row> {
    let swaps = number("SWAPS", 200.0) as usize;
    let mut gaps = runtime().block_on(async {
        let cluster = Cluster::start("swap", 3, false).await;
        let log = VirtualLog::open(&cluster.url("log")).await.expect("opens");
        let writers = Writers::start(&log, 64);
        let mut at = Vec::new();
        for _ in 0..swaps {
            tokio::time::sleep(CALM).await;
            let begin = writers.now();
            log.reconfig_extend("native:3", None).await.expect("swapped");
            at.push((begin, writers.now()));
        }
        tokio::time::sleep(CALM).await;
        let written = writers.finish().await;
        assert_eq!(lost_and_doubled(&log, &written).await, (0, 0), "lost and doubled");
        let acks = acks(&written);
        at.iter().map(|&(begin, end)| gap(&acks, begin, end)).collect::<Vec<_>>()
    });
    let row = |what: &str, measured, bar| Row::figure(what, measured, "ms", bar, false);
    vec![
        row("swap native to native under load, gap, p50", percentile(&mut gaps, 500), 10.0),
        row("swap native to native under load, gap, p99", percentile(&mut gaps, 990), 30.0),
    ]
}

/// The sequencer's node killed under load, again and again. A new log each time, because one that was
/// mended just now waits longer.
pub(crate) fn kill() -> Vec<Row> {
    let kills = number("KILLS", 8.0) as usize;
    let (mut gaps, mut lost, mut doubled) = (Vec::new(), 0, 0);
    runtime().block_on(async {
        let mut cluster = Cluster::start("kill", 3, false).await;
        for round in 0..kills {
            let name = format!("log{round}");
            let log = VirtualLog::open(&cluster.url(&name)).await.expect("opens");
            let victim = cluster.sequencer(&name).await;
            let writers = Writers::start(&log, 64);
            tokio::time::sleep(CALM * 10).await;
            let begin = writers.now();
            drop(cluster.nodes[victim].take());
            tokio::time::sleep(WATCHED).await;
            let end = writers.now();
            let written = writers.finish().await;
            gaps.push(gap(&acks(&written), begin, end));
            let (missing, twice) = lost_and_doubled(&log, &written).await;
            (lost, doubled) = (lost + missing, doubled + twice);
            cluster.restart(victim);
            cluster.settle().await;
        }
    });
    let row = |what: &str, measured, unit, bar| Row::figure(what, measured, unit, bar, false);
    vec![
        row("SIGKILL of the sequencer's node, gap, p50", median(&mut gaps), "ms", 500.0),
        row("SIGKILL of the sequencer's node, gap, most", percentile(&mut gaps, 999), "ms", 2e3),
        row("acknowledged entries that are lost", lost as f64, "", 0.0),
        row("entries that are there twice", doubled as f64, "", 0.0),
    ]
}
