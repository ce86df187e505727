//! The sections: each measures one thing that the project promises.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use virtuallog::loglet::{Ack, LogletProvider};
use virtuallog::loglets::memory::MemoryProvider;
use virtuallog::protocol::{BatchBuilder, LogId, WriterId};
use virtuallog::{LogPos, LogletConfig, LogletId, LogletPos, VirtualLog};

use crate::bare::{GroupCommit, Ring};
use crate::stats::{Row, median, percentile};

const ENTRY: [u8; 100] = [b'x'; 100];

fn pairs() -> usize {
    std::env::var("PAIRS").ok().and_then(|text| text.parse().ok()).unwrap_or(5)
}

fn seconds() -> Duration {
    let seconds = std::env::var("SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(2.0))
}

/// A folder under the target folder, on the disk that is built on, gone when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
        let path = target.join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    fn url(&self, name: &str) -> String {
        format!("file:{}/store/{name}", self.0.display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

/// Operations a second of `tasks` tasks, each with one operation under way.
async fn rate<F: Future + Send>(
    tasks: usize,
    operation: impl Fn() -> F + Clone + Send + 'static,
) -> f64
where
    F::Output: Send,
{
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let run: Vec<_> = (0..tasks)
        .map(|_| {
            let (stop, done, operation) = (stop.clone(), done.clone(), operation.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    operation().await;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    tokio::time::sleep(seconds() / 4).await;
    let (before, start) = (done.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(seconds()).await;
    let rate = (done.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in run {
        task.await.expect("no panic");
    }
    rate
}

/// The median time of an operation, in microseconds.
fn p50(mut operation: impl FnMut()) -> f64 {
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < seconds() / 2 {
        let begin = Instant::now();
        operation();
        times.push(begin.elapsed().as_nanos() as f64 / 1000.0);
    }
    median(&mut times)
}

/// 1024 appends in flight against bare group commit.
pub(crate) fn throughput() -> Vec<Row> {
    let (runtime, folder) = (runtime(), Folder::new("throughput"));
    let bare = Arc::new(GroupCommit::new(&folder.0.join("bare")));
    let log = runtime.block_on(VirtualLog::open(&folder.url("log"))).expect("opens");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..pairs() {
        let (bare, log) = (bare.clone(), log.clone());
        theirs.push(runtime.block_on(rate(1024, move || {
            let bare = bare.clone();
            async move { bare.append(ENTRY.to_vec()).await }
        })));
        ours.push(runtime.block_on(rate(1024, move || {
            let append = log.append(&ENTRY[..]);
            async move { append.await.expect("appended") }
        })));
    }
    runtime.block_on(log.close()).expect("closes");
    let what = "file log, 100 B, 1024 in flight, against bare group commit";
    vec![Row::ratio(what, median(&mut ours), median(&mut theirs), "appends/s", 0.5, true)]
}

/// One append at a time against a bare write and sync.
pub(crate) fn latency() -> Vec<Row> {
    let (runtime, folder) = (runtime(), Folder::new("latency"));
    let mut ring = Ring::new(&folder.0.join("bare"));
    let log = runtime.block_on(VirtualLog::open(&folder.url("log"))).expect("opens");
    let (mut bare, mut blocking, mut asynchronous) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pairs() * 2 {
        bare.push(p50(|| ring.append(&ENTRY)));
        blocking.push(p50(|| {
            log.append_blocking(&ENTRY[..], None).expect("appended");
        }));
        runtime.block_on(async {
            asynchronous.push(async_p50(&log).await);
        });
    }
    runtime.block_on(log.close()).expect("closes");
    let bare = median(&mut bare);
    vec![
        Row::ratio(
            "one append, blocking, p50, against a bare synced write",
            median(&mut blocking),
            bare,
            "us",
            1.3,
            false,
        ),
        Row::ratio(
            "one append, async, p50, against a bare synced write",
            median(&mut asynchronous),
            bare,
            "us",
            1.6,
            false,
        ),
    ]
}

async fn async_p50(log: &VirtualLog) -> f64 {
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < seconds() / 2 {
        let begin = Instant::now();
        log.append(&ENTRY[..]).await.expect("appended");
        times.push(begin.elapsed().as_nanos() as f64 / 1000.0);
    }
    median(&mut times)
}

/// What the virtual log costs over its loglet, both in memory.
pub(crate) fn virtualization() -> Vec<Row> {
    let runtime = runtime();
    let provider = MemoryProvider::new();
    let config = LogletConfig { kind: "memory".into(), params: "".into(), name: "memory".into() };
    let id = LogletId { log: LogId(1), segment: 0 };
    let (mut over, mut bare) = (Vec::new(), Vec::new());
    for round in 0..pairs() {
        let id = LogletId { segment: round as u32, ..id };
        let loglet = runtime.block_on(provider.create(id, &config, LogletPos(0))).expect("created");
        let mut seq = 0;
        let acked = Arc::new(AtomicU64::new(0));
        bare.push(p50(|| {
            let mut builder = BatchBuilder::with_capacity(ENTRY.len());
            builder.push(&ENTRY);
            let batch = builder.finish(WriterId(1), seq, 0);
            let acked = acked.clone();
            loglet.append(
                batch,
                Ack::new(move |position| {
                    acked.store(position.expect("appended").0, Ordering::Relaxed);
                }),
            );
            seq += 1;
        }));
        over.push(runtime.block_on(async {
            let log = VirtualLog::open("memory:").await.expect("opens");
            async_p50(&log).await
        }));
    }
    let cost = median(&mut over) - median(&mut bare);
    vec![Row::figure(
        "virtual log over a memory loglet, p50 more than bare",
        cost,
        "us",
        1.0,
        false,
    )]
}

/// Gaps in service while the engine is swapped under load.
pub(crate) fn swap() -> Vec<Row> {
    const SWAPS: usize = 300;
    let (runtime, folder) = (runtime(), Folder::new("swap"));
    let mut gaps = runtime.block_on(async {
        let log = VirtualLog::open(&folder.url("log")).await.expect("opens");
        let (stop, zero) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let writers: Vec<_> = (0..64)
            .map(|_| {
                let (log, stop) = (log.clone(), stop.clone());
                tokio::spawn(async move {
                    let mut acks = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        log.append(&ENTRY[..]).await.expect("appended");
                        acks.push(zero.elapsed().as_nanos() as f64 / 1e6);
                    }
                    acks
                })
            })
            .collect();
        let mut swaps = Vec::new();
        for _ in 0..SWAPS {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let begin = zero.elapsed().as_nanos() as f64 / 1e6;
            log.reconfig_extend("local", None).await.expect("swapped");
            swaps.push((begin, zero.elapsed().as_nanos() as f64 / 1e6));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        stop.store(true, Ordering::Relaxed);
        let mut acks = Vec::new();
        for writer in writers {
            acks.extend(writer.await.expect("no panic"));
        }
        acks.sort_by(f64::total_cmp);
        log.close().await.expect("closes");
        swaps.iter().map(|&(begin, end)| gap(&acks, begin, end)).collect::<Vec<_>>()
    });
    vec![
        Row::figure(
            "swap local to local under load, gap in service, p50",
            percentile(&mut gaps, 500),
            "ms",
            3.0,
            false,
        ),
        Row::figure(
            "swap local to local under load, gap in service, p99",
            percentile(&mut gaps, 990),
            "ms",
            10.0,
            false,
        ),
    ]
}

/// The longest time without an acknowledgement that touches the swap.
fn gap(acks: &[f64], begin: f64, end: f64) -> f64 {
    let first = acks.partition_point(|&at| at < begin).saturating_sub(1);
    let last = (acks.partition_point(|&at| at <= end) + 1).min(acks.len());
    acks[first..last].windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
}

async fn read_all(log: &VirtualLog) -> (u64, u64) {
    let mut reader = log.read(LogPos(0), None).await.expect("reads");
    let (mut entries, mut bytes) = (0, 0);
    loop {
        let batch = reader.next_batch(4096).await.expect("reads");
        if batch.is_empty() {
            return (entries, bytes);
        }
        entries += batch.len() as u64;
        bytes += batch.iter().map(|entry| entry.payload.len() as u64).sum::<u64>();
    }
}

/// Sequential reading from page cache.
pub(crate) fn read() -> Vec<Row> {
    let (runtime, folder) = (runtime(), Folder::new("read"));
    let mut rates = runtime.block_on(async {
        let log = VirtualLog::open(&folder.url("log")).await.expect("opens");
        let entry = bytes::Bytes::from(vec![b'x'; 1024]);
        log.append_all(std::iter::repeat_n(entry, 512 << 10)).await.expect("appended");
        let mut rates = Vec::new();
        for _ in 0..pairs() {
            let start = Instant::now();
            let (entries, bytes) = read_all(&log).await;
            assert_eq!(entries, 512 << 10);
            rates.push(bytes as f64 / start.elapsed().as_secs_f64() / 1e9);
        }
        log.close().await.expect("closes");
        rates
    });
    vec![Row::figure(
        "sequential read of 1 KiB entries from page cache",
        median(&mut rates),
        "GB/s",
        1.0,
        true,
    )]
}

/// Bytes on the disk below a folder, as the file system counts them.
fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// One log among 1,000: what it pins when the others are trimmed, and how fast it reads.
pub(crate) fn many_logs() -> Vec<Row> {
    const LOGS: usize = 1000;
    const BATCHES: usize = 200;
    let (runtime, folder) = (runtime(), Folder::new("many"));
    runtime.block_on(async {
        let entry = bytes::Bytes::from(vec![b'x'; 1024]);
        let batch = || std::iter::repeat_n(entry.clone(), 4);
        let lone_folder = Folder::new("lone");
        let lone = VirtualLog::open(&lone_folder.url("lone")).await.expect("opens");
        let mut logs = Vec::new();
        for n in 0..LOGS {
            logs.push(VirtualLog::open(&folder.url(&format!("log{n}"))).await.expect("opens"));
        }
        for _ in 0..BATCHES {
            lone.append_many(batch()).await.expect("appended");
            let appends: Vec<_> = logs.iter().map(|log| log.append_many(batch())).collect();
            for append in appends {
                append.await.expect("appended");
            }
        }
        let (mut among, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..pairs() * 4 {
            for (log, rates) in [(&logs[500], &mut among), (&lone, &mut alone)] {
                let start = Instant::now();
                let (entries, _) = read_all(log).await;
                assert_eq!(entries, 4 * BATCHES as u64);
                rates.push(entries as f64 / start.elapsed().as_secs_f64());
            }
        }
        let quiet = logs.swap_remove(500);
        for log in &logs {
            log.prefix_trim(LogPos(4 * BATCHES as u64)).await.expect("trimmed");
            log.close().await.expect("closes");
        }
        quiet.close().await.expect("closes");
        let live = (4 * BATCHES * 1024) as f64;
        // Its journal is a ring of fixed size and holds on to nothing.
        let with_quiet = disk_bytes(&folder.0.join("store/loglets")) as f64;
        let quiet = VirtualLog::open(&folder.url("log500")).await.expect("opens");
        quiet.prefix_trim(LogPos(4 * BATCHES as u64)).await.expect("trimmed");
        quiet.close().await.expect("closes");
        let without = disk_bytes(&folder.0.join("store/loglets")) as f64;
        vec![
            Row::ratio(
                "reading one of 1,000 logs, against a lone one",
                median(&mut among),
                median(&mut alone),
                "entries/s",
                0.5,
                true,
            ),
            Row::ratio(
                "what a quiet log among 1,000 pins, against its live bytes",
                with_quiet - without,
                live,
                "B",
                2.0,
                false,
            ),
            Row::figure(
                "what a log keeps on the disk when all of it is trimmed",
                without / LOGS as f64,
                "B",
                16384.0,
                false,
            ),
        ]
    })
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this is Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line for it");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse::<f64>().ok()).expect("a number") / 1024.0
}

/// Memory and reopening after 20 M entries.
pub(crate) fn memory() -> Vec<Row> {
    let (runtime, folder) = (runtime(), Folder::new("memory"));
    runtime.block_on(async {
        let log = VirtualLog::open(&folder.url("log")).await.expect("opens");
        let entry = bytes::Bytes::from_static(&ENTRY);
        log.append_all(std::iter::repeat_n(entry, 20_000_000)).await.expect("appended");
        let (entries, _) = read_all(&log).await;
        assert_eq!(entries, 20_000_000);
        let resident = resident_mb();
        log.close().await.expect("closes");
        let start = Instant::now();
        let log = VirtualLog::open(&folder.url("log")).await.expect("opens");
        let tail = log.check_tail().await.expect("tail").position;
        let reopened = start.elapsed().as_secs_f64();
        assert_eq!(tail, LogPos(20_000_000));
        log.close().await.expect("closes");
        vec![
            Row::figure(
                "resident after 20 M entries of 100 B, written and read",
                resident,
                "MB",
                150.0,
                false,
            ),
            Row::figure("reopening that log", reopened, "s", 1.0, false),
        ]
    })
}
