//! How fast a cluster is while nothing happens to it.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use virtuallog::VirtualLog;

use crate::bare::Ring;
use crate::load::{ENTRY, Folder, pairs, rate, read_all, runtime, seconds, times};
use crate::processes::{Cluster, Process, now_nanos};
use crate::stats::{Row, median, percentile};

/// The median of the medians, and the 99th percentile of all.
#[derive(Default)]
struct Latency {
    medians: Vec<f64>,
    all: Vec<f64>,
}

impl Latency {
    fn add(&mut self, mut times: Vec<f64>) {
        self.medians.push(median(&mut times));
        self.all.extend(times);
    }

    fn p50(&mut self) -> f64 {
        median(&mut self.medians)
    }

    fn p99(&mut self) -> f64 {
        percentile(&mut self.all, 990)
    }
}

/// How long a synced write takes while two others do the same on the same disk.
fn at_once(rings: &mut [Ring; 3], time: Duration) -> Vec<f64> {
    std::thread::scope(|scope| {
        let writers = rings.each_mut().map(|ring| {
            scope.spawn(move || {
                let (mut times, start) = (Vec::new(), Instant::now());
                while start.elapsed() < time {
                    let begin = Instant::now();
                    ring.append(&ENTRY);
                    times.push(begin.elapsed().as_nanos() as f64 / 1000.0);
                }
                times
            })
        });
        writers.map(|writer| writer.join().expect("no panic")).concat()
    })
}

/// Echoes, one after the other: two programs that each wait in `main`.
async fn echoes(echo: &mut TcpStream, time: Duration) -> Vec<f64> {
    let mut frame = ENTRY;
    let (mut times, start) = (Vec::new(), Instant::now());
    while start.elapsed() < time {
        let begin = Instant::now();
        echo.write_all(&ENTRY).await.expect("written");
        echo.read_exact(&mut frame).await.expect("echoed");
        times.push(begin.elapsed().as_nanos() as f64 / 1000.0);
    }
    times
}

/// Appends, one after the other, from a task of its own, as a service does it.
async fn appends(log: &VirtualLog, time: Duration) -> Vec<f64> {
    let log = log.clone();
    let appends = async move {
        times(time, || async { log.append(&ENTRY[..]).await.expect("acknowledged") }).await
    };
    tokio::spawn(appends).await.expect("no panic")
}

/// One append at a time on three nodes, against what it cannot do without: two echoes (client and
/// sequencer, sequencer and LogServer) and a synced write; one echo when the client is in the
/// sequencer's process.
pub(crate) fn latency() -> Vec<Row> {
    let folder = Folder::new("bare");
    runtime().block_on(async {
        let mut rings = ["a", "b", "c"].map(|name| Ring::new(&folder.path().join(name)));
        let mut echo = Process::start(&["--echo"]);
        let mut echo_to = TcpStream::connect(echo.line()).await.expect("it listens");
        echo_to.set_nodelay(true).expect("it is TCP");
        let apart = Cluster::start("apart", 3, false).await;
        let converged = Cluster::start("converged", 3, true).await;
        let far = VirtualLog::open(&apart.url("log")).await.expect("opens");
        let near = VirtualLog::open(&converged.url("log")).await.expect("opens");
        assert_eq!(converged.sequencer("log").await, 2, "the node in this process sequences");
        // Until each store's journal goes round: files that are used for the first time are first
        // filled with zeros, which is felt.
        for log in [&far, &near] {
            let entry = bytes::Bytes::from(vec![b'x'; 64 << 10]);
            log.append_all(std::iter::repeat_n(entry, 4096)).await.expect("appended");
        }

        let [mut echoed, mut writes, mut threes, mut fars, mut nears] =
            [(); 5].map(|()| Latency::default());
        let time = seconds() / 4;
        for round in 0..=pairs() * 2 {
            let echo = echoes(&mut echo_to, time).await;
            let written = times(time, || {
                rings[0].append(&ENTRY);
                std::future::ready(())
            })
            .await;
            let three = at_once(&mut rings, time);
            let far = appends(&far, time).await;
            let near = appends(&near, time).await;
            // The first round warms up.
            if round > 0 {
                echoed.add(echo);
                writes.add(written);
                threes.add(three);
                fars.add(far);
                nears.add(near);
            }
        }
        let p50 = (echoed.p50(), writes.p50());
        let p99 = (echoed.p99(), writes.p99());
        let three = threes.p50();
        let row = |what: &str, ours, bare, bar| Row::ratio(what, ours, bare, "us", bar, false);
        vec![
            Row::figure("bare echo of 100 B over TCP, p50", p50.0, "us", f64::INFINITY, false),
            Row::figure("bare synced write of 100 B, p50", p50.1, "us", f64::INFINITY, false),
            Row::figure(
                "one of three at once on this disk, p50",
                three,
                "us",
                f64::INFINITY,
                false,
            ),
            row(
                "3 nodes, 100 B, 1 in flight, p50, against 2 echoes + write",
                fars.p50(),
                2.0 * p50.0 + p50.1,
                1.35,
            ),
            row("the same, p99 against p99", fars.p99(), 2.0 * p99.0 + p99.1, 1.35),
            row(
                "client is the sequencer's node, p50, against 1 echo + write",
                nears.p50(),
                p50.0 + p50.1,
                1.35,
            ),
            row("the same, p99 against p99", nears.p99(), p99.0 + p99.1, 1.35),
        ]
    })
}

/// The median rate of appends, 1024 in flight.
async fn median_rate(cluster: &Cluster, size: usize) -> f64 {
    let log = VirtualLog::open(&cluster.url(&format!("log{size}"))).await.expect("opens");
    let mut rates = Vec::new();
    for _ in 0..pairs() {
        rates.push(rate(&log, 1024, size).await);
    }
    median(&mut rates)
}

/// Many appends in flight on three nodes.
pub(crate) fn throughput() -> Vec<Row> {
    runtime().block_on(async {
        let cluster = Cluster::start("throughput", 3, false).await;
        let mut rows = Vec::new();
        for (size, bar) in [(100, 200e3), (1024, 80e3)] {
            let what = format!("3 nodes, {size} B, 1024 in flight");
            let measured = median_rate(&cluster, size).await;
            rows.push(Row::figure(&what, measured, "appends/s", bar, true));
        }
        rows
    })
}

/// Many appends in flight on one node.
pub(crate) fn one_node() -> Vec<Row> {
    runtime().block_on(async {
        let cluster = Cluster::start("one", 1, false).await;
        let measured = median_rate(&cluster, 100).await;
        vec![Row::figure("1 node, 100 B, 1024 in flight", measured, "appends/s", 500e3, true)]
    })
}

/// When a subscriber in another process sees an entry, counted from its writer's acknowledgement.
pub(crate) fn subscribe() -> Vec<Row> {
    runtime().block_on(async {
        let cluster = Cluster::start("subscribe", 3, false).await;
        let url = cluster.url("log");
        let log = VirtualLog::open(&url).await.expect("opens");
        let mut subscriber = Process::start(&["--subscriber", &url]);
        assert_eq!(subscriber.line(), "ready");
        let mut delays = Vec::new();
        let start = Instant::now();
        while start.elapsed() < seconds() * 2 {
            log.append(&ENTRY[..]).await.expect("appended");
            let acked = now_nanos();
            let seen: i128 = subscriber.line().parse().expect("a time");
            delays.push((seen - acked) as f64 / 1000.0);
        }
        vec![
            Row::figure(
                "a subscriber sees an entry after its ack, p50",
                percentile(&mut delays, 500),
                "us",
                300.0,
                false,
            ),
            Row::figure("the same, p99", percentile(&mut delays, 990), "us", f64::INFINITY, false),
        ]
    })
}

/// Entries a second of a log read from beginning to end, over the network, from page cache.
async fn read_rate(cluster: &Cluster, size: usize, count: u64) -> f64 {
    let log = VirtualLog::open(&cluster.url(&format!("log{size}"))).await.expect("opens");
    let entry = bytes::Bytes::from(vec![b'x'; size]);
    log.append_all(std::iter::repeat_n(entry, count as usize)).await.expect("appended");
    let mut rates = Vec::new();
    for _ in 0..pairs() {
        let start = Instant::now();
        assert_eq!(read_all(&log, |_| {}).await, count);
        rates.push(count as f64 / start.elapsed().as_secs_f64());
    }
    median(&mut rates)
}

/// Catching up from a replica.
pub(crate) fn read() -> Vec<Row> {
    runtime().block_on(async {
        let cluster = Cluster::start("read", 3, false).await;
        let large = read_rate(&cluster, 1024, 256 << 10).await * 1024.0 / 1e6;
        let small = read_rate(&cluster, 100, 3_000_000).await;
        vec![
            Row::figure("catch-up read of 1 KiB entries", large, "MB/s", 400.0, true),
            Row::figure("catch-up read of 100 B entries", small, "entries/s", 2e6, true),
        ]
    })
}
