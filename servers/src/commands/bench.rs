//! `bench`: how many appends a second, and how long one takes.
//!
//! A closed loop: each answer makes room for one more append. A task keeps its share of the appends
//! under way and takes the answers in the order of its appends, which is the order they come in. What
//! is measured is what an application sees, from the call to the answer. The entries stay in the log.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use hdrhistogram::Histogram;
use serde::Serialize;
use virtuallog::{Error, LogPos, VirtualLog};

use super::LogArg;
use crate::cli::Context;
use crate::output::{Report, Stop, counted, grouped};
use crate::progress::Progress;

/// Answers that a task keeps before it adds them to the shared histogram.
const NOTED_MAX: usize = 256;

/// Measure appends; the entries stay in the log
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    log: LogArg,
    /// Bytes of each entry
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Appends under way at any time
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    in_flight: u32,
    /// Tasks that share the appends under way; as many as appends: one append each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    tasks: u32,
    /// How long
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    seconds: f64,
    /// One append at a time, in the form that blocks the thread
    #[arg(long, conflicts_with_all = ["in_flight", "tasks"])]
    blocking: bool,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds".to_owned())?;
    match seconds > 0.0 && seconds <= 86_400.0 {
        true => Ok(seconds),
        false => Err("write a number of seconds above 0 and up to 86400".into()),
    }
}

#[derive(Debug, Serialize)]
struct BenchReport {
    appends_per_s: u64,
    bytes_per_s: u64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
    errors: u64,
}

impl Report for BenchReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { p50_us, p99_us, p999_us, max_us, .. } = self;
        let (rate, bytes) = (grouped(self.appends_per_s), grouped(self.bytes_per_s));
        writeln!(out, "{rate} appends/s, {bytes} bytes/s")?;
        writeln!(out, "p50 {p50_us} us, p99 {p99_us} us, p99.9 {p999_us} us, max {max_us} us")?;
        writeln!(out, "{}", counted(self.errors, "error", "errors"))
    }
}

/// What the tasks found, together.
#[derive(Debug)]
struct Tally {
    /// Nanoseconds.
    latency: Histogram<u64>,
    errors: u64,
    first_error: Option<Error>,
}

impl Tally {
    fn new() -> Self {
        // Three digits up to two minutes; an answer that takes longer counts as two minutes.
        let latency = Histogram::new_with_bounds(100, 120_000_000_000, 3).expect("the bounds hold");
        Tally { latency, errors: 0, first_error: None }
    }

    fn report(&self, elapsed: Duration, size: usize) -> BenchReport {
        let rate = self.latency.len() as f64 / elapsed.as_secs_f64();
        let micros = |nanos: u64| (nanos as f64 / 100.0).round() / 10.0;
        let at = |quantile: f64| micros(self.latency.value_at_quantile(quantile));
        BenchReport {
            appends_per_s: rate as u64,
            bytes_per_s: (rate * size as f64) as u64,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: micros(self.latency.max()),
            errors: self.errors,
        }
    }
}

pub(crate) async fn bench(cx: &Context, args: BenchArgs) -> Result<(), Stop> {
    let log = cx.writer(&args.log.url).open().await?;
    let payload: Bytes = (b' '..=b'~').cycle().take(args.size).collect();
    let tally = Arc::new(Mutex::new(Tally::new()));
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(args.seconds);
    let progress = Progress::seconds(args.seconds.ceil() as u64);
    if args.blocking {
        let (log, tally) = (log.clone(), tally.clone());
        let run = move || append_blocking(&log, &payload, end, &tally);
        // The main thread belongs to the runtime; a blocking append needs one that does not.
        tokio::task::spawn_blocking(run).await.map_err(gone)?;
    } else {
        let count = args.tasks.min(args.in_flight);
        let task = |number| {
            let share = args.in_flight / count + u32::from(number < args.in_flight % count);
            let (log, payload, tally) = (log.clone(), payload.clone(), tally.clone());
            tokio::spawn(append(log, payload, share as usize, end, tally))
        };
        let tasks: Vec<_> = (0..count).map(task).collect();
        while !tasks.iter().all(tokio::task::JoinHandle::is_finished) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(100)).await;
            progress.at(start.elapsed().as_secs());
        }
        for task in tasks {
            task.await.map_err(gone)?;
        }
    }
    let elapsed = start.elapsed();
    drop(progress);
    let closed = log.close().await;
    let tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    cx.out.report(&tally.report(elapsed, args.size))?;
    match &tally.first_error {
        Some(error) => Err(error.clone().into()),
        None => Ok(closed?),
    }
}

/// Keeps `share` appends under way until the time is over, or until one fails.
async fn append(
    log: VirtualLog,
    payload: Bytes,
    share: usize,
    end: Instant,
    tally: Arc<Mutex<Tally>>,
) {
    let mut noted = Noted::new(&tally);
    let mut under_way = VecDeque::with_capacity(share);
    let mut now = Instant::now();
    while now < end && noted.failure.is_none() {
        while under_way.len() < share {
            under_way.push_back((log.append(payload.clone()), Instant::now()));
        }
        if let Some((append, sent)) = under_way.pop_front() {
            let answer = append.await;
            now = Instant::now();
            noted.note(sent, now, answer);
        }
    }
    for (append, sent) in under_way {
        let answer = append.await;
        noted.note(sent, Instant::now(), answer);
    }
}

/// One append after the other on this thread.
fn append_blocking(log: &VirtualLog, payload: &Bytes, end: Instant, tally: &Mutex<Tally>) {
    let mut noted = Noted::new(tally);
    let mut now = Instant::now();
    while now < end && noted.failure.is_none() {
        let sent = now;
        let answer = log.append_blocking(payload.clone(), None);
        now = Instant::now();
        noted.note(sent, now, answer);
    }
}

/// What one task found and did not yet tell; it tells the rest when it is dropped.
struct Noted<'a> {
    tally: &'a Mutex<Tally>,
    nanos: Vec<u64>,
    failure: Option<Error>,
    errors: u64,
}

impl<'a> Noted<'a> {
    fn new(tally: &'a Mutex<Tally>) -> Self {
        Noted { tally, nanos: Vec::with_capacity(NOTED_MAX), failure: None, errors: 0 }
    }

    fn note(&mut self, sent: Instant, now: Instant, answer: Result<LogPos, Error>) {
        match answer {
            Ok(_) => self.nanos.push((now - sent).as_nanos() as u64),
            Err(error) => {
                self.errors += 1;
                self.failure.get_or_insert(error);
            }
        }
        if self.nanos.len() == NOTED_MAX {
            self.tell();
        }
    }

    fn tell(&mut self) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        for nanos in self.nanos.drain(..) {
            tally.latency.saturating_record(nanos);
        }
        tally.errors += std::mem::take(&mut self.errors);
        if let Some(error) = &self.failure {
            tally.first_error.get_or_insert(error.clone());
        }
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.tell();
    }
}

fn gone(error: tokio::task::JoinError) -> Error {
    Error::new(virtuallog::ErrorCode::Internal, "a task of the bench ended early")
        .with_source(error)
}
