//! What a server keeps in memory: with many entries, and when more is asked of it than it can do.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use virtuallog::{ErrorCode, VirtualLog};

use crate::load::{ENTRY, runtime, seconds};
use crate::processes::Cluster;
use crate::stats::{Row, percentile};

/// What one handle may have under way: together far more than a server takes.
const WINDOW: usize = 256 << 20;
const HANDLES: usize = 10;
/// Appends of 16 KiB that a handle has under way: together ten times a sequencer's window.
const OUT: usize = 2048;
/// Before a handle that was refused tries again.
const PAUSE: Duration = Duration::from_millis(1);

/// A server with many entries.
pub(crate) fn memory() -> Vec<Row> {
    const ENTRIES: usize = 20_000_000;
    runtime().block_on(async {
        let cluster = Cluster::start("memory", 1, false).await;
        let log = VirtualLog::open(&cluster.url("log")).await.expect("opens");
        let entry = bytes::Bytes::from_static(&ENTRY);
        let start = Instant::now();
        log.append_all(std::iter::repeat_n(entry, ENTRIES)).await.expect("appended");
        let rate = ENTRIES as f64 / start.elapsed().as_secs_f64();
        let resident = cluster.nodes[0].as_ref().expect("it runs").resident_mb();
        vec![
            Row::figure(
                "server with 20 M entries of 100 B, resident",
                resident,
                "MB",
                200.0,
                false,
            ),
            Row::figure("appending those with append_all", rate, "appends/s", 0.0, true),
        ]
    })
}

/// Ten clients, each with a connection of its own, that send without waiting and are allowed more than a
/// server takes, while one of the three nodes is stopped.
pub(crate) fn overload() -> Vec<Row> {
    runtime().block_on(async {
        let cluster = Cluster::start("overload", 3, false).await;
        // Made before anybody asks for its sequencer.
        let log = VirtualLog::open(&cluster.url("log")).await.expect("opens");
        log.close().await.expect("closes");
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for _ in 0..HANDLES {
            let builder = VirtualLog::builder(&cluster.url("log")).in_flight_bytes_max(WINDOW);
            let stop = stop.clone();
            // Those of one runtime share their connections.
            let client = async move { flood(builder.open().await.expect("opens"), stop).await };
            tasks.push(tokio::task::spawn_blocking(move || runtime().block_on(client)));
        }
        let sequencer = cluster.sequencer("log").await;
        let slow = cluster.nodes[(sequencer + 1) % 3].as_ref().expect("it runs");
        slow.signal("STOP");
        let server = cluster.nodes[sequencer].as_ref().expect("it runs");
        let mut resident = Vec::new();
        let start = Instant::now();
        while start.elapsed() < seconds() * 5 {
            tokio::time::sleep(seconds() / 20).await;
            resident.push(server.resident_mb());
        }
        stop.store(true, Ordering::Relaxed);
        slow.signal("CONT");
        let mut busy = Vec::new();
        for task in tasks {
            busy.extend(task.await.expect("no panic"));
        }
        let half = resident.len() / 2;
        let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
        let (early, late) = (most(&resident[..half]), most(&resident[half..]));
        let mut rows = vec![Row::ratio(
            "overloaded server, resident, second half to first",
            late,
            early,
            "MB",
            1.2,
            false,
        )];
        let refused = busy.len() as f64;
        rows.push(Row::figure("appends refused with BUSY", refused, "", 1.0, true));
        if !busy.is_empty() {
            let p99 = percentile(&mut busy, 990);
            rows.push(Row::figure("BUSY is told within, p99", p99, "ms", 1000.0, false));
        }
        rows
    })
}

/// Submits as fast as it can; gives how long each append took, in milliseconds, that was refused.
async fn flood(log: VirtualLog, stop: Arc<AtomicBool>) -> Vec<f64> {
    let entry = bytes::Bytes::from(vec![b'x'; 16 << 10]);
    let mut busy = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut out = FuturesUnordered::new();
        let mut refused = false;
        for _ in 0..OUT {
            let begin = Instant::now();
            match log.append_nowait(entry.clone()) {
                Ok(append) => out.push(async move { (append.await, begin.elapsed()) }),
                Err(_) => {
                    refused = true;
                    busy.push(begin.elapsed().as_secs_f64() * 1e3);
                    break;
                }
            }
        }
        while let Some((outcome, took)) = out.next().await {
            if outcome.is_err_and(|error| error.code() == ErrorCode::Busy) {
                refused = true;
                busy.push(took.as_secs_f64() * 1e3);
            }
        }
        if refused {
            tokio::time::sleep(PAUSE).await;
        }
    }
    busy
}
