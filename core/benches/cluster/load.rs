//! What is done to a log while it is measured, and where its files lie.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use virtuallog::{LogPos, VirtualLog};

/// What is appended, unless the size matters.
pub(crate) const ENTRY: [u8; 100] = [b'x'; 100];

/// A number that the environment may set.
pub(crate) fn number(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How often each thing is measured.
pub(crate) fn pairs() -> usize {
    number("PAIRS", 5.0) as usize
}

/// How long one measurement of a rate takes.
pub(crate) fn seconds() -> Duration {
    Duration::from_secs_f64(number("SECONDS", 2.0))
}

/// A folder under the target folder, on the disk that is built on, gone when this is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
        let path = target.join(format!("cluster-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime")
}

/// How long one operation after the other takes, in microseconds, for a time.
pub(crate) async fn times<F: Future>(time: Duration, mut operation: impl FnMut() -> F) -> Vec<f64> {
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let begin = Instant::now();
        operation().await;
        times.push(begin.elapsed().as_nanos() as f64 / 1000.0);
    }
    times
}

/// Appends a second of `tasks` tasks, each with one append of `size` bytes under way.
pub(crate) async fn rate(log: &VirtualLog, tasks: usize, size: usize) -> f64 {
    let entry = bytes::Bytes::from(vec![b'x'; size]);
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let run: Vec<_> = (0..tasks)
        .map(|_| {
            let (stop, done) = (stop.clone(), done.clone());
            let (log, entry) = (log.clone(), entry.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    log.append(entry.clone()).await.expect("appended");
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

/// Reads the whole log as it is now, with the payloads of each batch to `each`.
pub(crate) async fn read_all(log: &VirtualLog, mut each: impl FnMut(&[u8])) -> u64 {
    let mut reader = log.read(LogPos(0), None).await.expect("reads");
    let mut entries = 0;
    loop {
        let batch = reader.next_batch(4096).await.expect("reads");
        if batch.is_empty() {
            return entries;
        }
        entries += batch.len() as u64;
        batch.iter().for_each(|entry| each(&entry.payload));
    }
}

/// What one writer of numbered entries knows.
#[derive(Default)]
pub(crate) struct Written {
    /// When each entry was acknowledged, in milliseconds since the beginning, or `None` when it may
    /// be in the log or not.
    pub(crate) entries: Vec<Option<f64>>,
}

/// Writers of numbered entries, each with one append under way.
pub(crate) struct Writers {
    zero: Instant,
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Written>>,
}

/// The payload of an entry: whose it is, its number, and 88 bytes.
fn numbered(writer: usize, number: usize) -> Vec<u8> {
    let mut payload = ENTRY.to_vec();
    payload[..4].copy_from_slice(&(writer as u32).to_le_bytes());
    payload[4..12].copy_from_slice(&(number as u64).to_le_bytes());
    payload
}

impl Writers {
    pub(crate) fn start(log: &VirtualLog, count: usize) -> Writers {
        let (stop, zero) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let tasks = (0..count).map(|writer| {
            let (log, stop) = (log.clone(), stop.clone());
            tokio::spawn(async move {
                let mut written = Written::default();
                while !stop.load(Ordering::Relaxed) {
                    let number = written.entries.len();
                    match log.append(numbered(writer, number)).await {
                        Ok(_) => written.entries.push(Some(zero.elapsed().as_secs_f64() * 1e3)),
                        Err(error) if error.is_in_doubt() => written.entries.push(None),
                        // Surely not in the log: the number is used again.
                        Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                }
                written
            })
        });
        Writers { zero, stop: stop.clone(), tasks: tasks.collect() }
    }

    /// Milliseconds since the beginning.
    pub(crate) fn now(&self) -> f64 {
        self.zero.elapsed().as_secs_f64() * 1e3
    }

    pub(crate) async fn finish(self) -> Vec<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in self.tasks {
            all.push(task.await.expect("no panic"));
        }
        all
    }
}

/// When anything was acknowledged, in order.
pub(crate) fn acks(written: &[Written]) -> Vec<f64> {
    let mut acks: Vec<f64> = written.iter().flat_map(|w| &w.entries).flatten().copied().collect();
    acks.sort_by(f64::total_cmp);
    acks
}

/// The longest time without an acknowledgement that touches a stretch of time.
pub(crate) fn gap(acks: &[f64], begin: f64, end: f64) -> f64 {
    let first = acks.partition_point(|&at| at < begin).saturating_sub(1);
    let last = (acks.partition_point(|&at| at <= end) + 1).min(acks.len());
    acks[first..last].windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
}

/// Reads everything back: how many acknowledged entries are lost, and how many are there twice.
pub(crate) async fn lost_and_doubled(log: &VirtualLog, written: &[Written]) -> (u64, u64) {
    let mut seen: Vec<Vec<u32>> = written.iter().map(|w| vec![0; w.entries.len()]).collect();
    read_all(log, |payload| {
        let writer = u32::from_le_bytes(payload[..4].try_into().expect("four bytes"));
        let number = u64::from_le_bytes(payload[4..12].try_into().expect("eight bytes"));
        seen[writer as usize][number as usize] += 1;
    })
    .await;
    let (mut lost, mut doubled) = (0, 0);
    for (entry, times) in written.iter().zip(&seen).flat_map(|(w, s)| w.entries.iter().zip(s)) {
        lost += u64::from(entry.is_some() && *times == 0);
        doubled += u64::from(*times > 1);
    }
    (lost, doubled)
}
