//! What the core reports while it works, on its way into the host's own logging.
//!
//! Off unless the host turns it on, or the variable `VIRTUALLOG_LOG` names a level (`error`, `warn`, `info`,
//! `debug`, `trace`, `off`). Records go into a ring of bounded size, and the edge from none to some wakes the
//! host, which takes them with [`drain_logs`]: so nothing of the host runs on our threads, and nothing of ours
//! waits for the host. When the ring is full the newest are dropped and counted.
//!
//! In a child of `fork` it is off, for good where the parent had it on: the thread that took the records is
//! gone, and another one may have held the ring's lock.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Event, Level, Metadata};

use crate::error::{Error, Result};
use crate::queue::HostWaker;
use crate::runtime;

/// Names the level to start with.
pub const LOG_VARIABLE: &str = "VIRTUALLOG_LOG";
/// At most so many wait to be taken.
const RECORDS_MAX: usize = 1024;
/// A generation that no process has.
const NEVER_ON: u64 = u64::MAX;
/// Targets of ours begin so.
const OURS: &str = "virtuallog";

/// How much is reported: this and what is more severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevel(LevelFilter);

impl LogLevel {
    /// The level's name, in lower case; `off` for none.
    #[must_use]
    pub fn name(self) -> String {
        self.0.to_string()
    }

    /// The level that `VIRTUALLOG_LOG` names; `None`: it is not set.
    ///
    /// # Errors
    /// `INVALID` when it names none.
    pub fn from_env() -> Result<Option<Self>> {
        match std::env::var(LOG_VARIABLE) {
            Ok(name) if !name.is_empty() => name.parse().map(Some),
            _ => Ok(None),
        }
    }
}

impl FromStr for LogLevel {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        // The library that is asked takes numbers too.
        let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&name);
        name.parse().ok().filter(|_| known).map(Self).ok_or_else(|| {
            let levels = "`error`, `warn`, `info`, `debug`, `trace` or `off`";
            Error::invalid(format!("log level `{name}`: write {levels}"))
        })
    }
}

/// One report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: &'static str,
    /// The part that speaks, for example `virtuallog::server::heal`.
    pub target: String,
    /// What it says, with its fields behind as `name=value`.
    pub message: String,
}

/// What waited to be taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogBatch {
    /// In the order in which they were made.
    pub records: Vec<LogRecord>,
    /// How many were dropped since the last time, for want of room.
    pub dropped: u64,
}

/// Reports what is of this level or more severe from now on, and wakes the host by `host` when there is
/// something to take. Again: the level and the waker take the place of those before.
///
/// Does nothing in a process whose Rust part has set a subscriber of its own for `tracing`: then that one
/// gets it all.
pub fn start_logs(level: LogLevel, host: impl HostWaker + 'static) {
    runtime::watch_forks();
    let bridge = bridge();
    if bridge.generation.load(Ordering::Acquire) != NEVER_ON && !bridge.is_mine() {
        return;
    }
    *lock(&bridge.ring) = Ring { level: level.0, host: Some(Arc::new(host)), ..Ring::default() };
    bridge.generation.store(runtime::generation(), Ordering::Release);
    // Refused where there is another subscriber, our own one the second time.
    let _ = tracing::subscriber::set_global_default(ToBridge);
    tracing::callsite::rebuild_interest_cache();
}

/// Takes what waits.
pub fn drain_logs() -> LogBatch {
    let bridge = bridge();
    if !bridge.is_mine() {
        return LogBatch::default();
    }
    let mut ring = lock(&bridge.ring);
    LogBatch {
        records: ring.records.drain(..).collect(),
        dropped: std::mem::take(&mut ring.dropped),
    }
}

struct Bridge {
    /// The process that it is on in. Looked at before the lock, which a fork may have left held.
    generation: AtomicU64,
    ring: Mutex<Ring>,
}

struct Ring {
    level: LevelFilter,
    host: Option<Arc<dyn HostWaker>>,
    records: VecDeque<LogRecord>,
    dropped: u64,
}

impl Default for Ring {
    fn default() -> Self {
        Self { level: LevelFilter::OFF, host: None, records: VecDeque::new(), dropped: 0 }
    }
}

fn bridge() -> &'static Bridge {
    static BRIDGE: OnceLock<Bridge> = OnceLock::new();
    BRIDGE.get_or_init(|| Bridge { generation: AtomicU64::new(NEVER_ON), ring: Mutex::default() })
}

impl Bridge {
    fn is_mine(&self) -> bool {
        self.generation.load(Ordering::Acquire) == runtime::generation()
    }

    fn level(&self) -> LevelFilter {
        if self.is_mine() { lock(&self.ring).level } else { LevelFilter::OFF }
    }

    fn push(&self, record: LogRecord) {
        if !self.is_mine() {
            return;
        }
        let mut ring = lock(&self.ring);
        if ring.records.len() >= RECORDS_MAX {
            ring.dropped += 1;
            return;
        }
        ring.records.push_back(record);
        let wake = if ring.records.len() == 1 { ring.host.clone() } else { None };
        drop(ring);
        if let Some(host) = wake {
            host.wake();
        }
    }
}

/// Where `tracing` brings what the core says. Spans are not told of: the core's reports stand alone.
struct ToBridge;

impl Subscriber for ToBridge {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.enabled(metadata) {
            true => Interest::sometimes(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && metadata.target().starts_with(OURS)
            && *metadata.level() <= bridge().level()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(bridge().level())
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let target = event.metadata().target().to_owned();
        bridge().push(LogRecord { level, target, message: text.message + &text.fields });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.expect("a string takes all");
    }
}

fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Clone, Default)]
    struct Counter(Arc<AtomicUsize>);

    impl HostWaker for Counter {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One test, because there is one bridge a process.
    #[test]
    fn what_is_reported_is_taken_in_batches_and_bounded() {
        let wakes = Counter::default();
        start_logs("info".parse().expect("a level"), wakes.clone());
        tracing::info!(target: "virtuallog::test", node = 7, "first {}", "words");
        tracing::warn!(target: "virtuallog::test", "second");
        tracing::debug!(target: "virtuallog::test", "not so much");
        tracing::error!(target: "somebody_else", "not ours");
        let ours = |batch: LogBatch| {
            let of_test = |record: &LogRecord| record.target == "virtuallog::test";
            batch.records.into_iter().filter(of_test).collect::<Vec<_>>()
        };
        let taken = ours(drain_logs());
        let told: Vec<_> = taken.iter().map(|r| (r.level, r.message.as_str())).collect();
        assert_eq!(told, [("info", "first words node=7"), ("warn", "second")]);
        assert!(wakes.0.load(Ordering::Relaxed) >= 1);

        for _ in 0..RECORDS_MAX + 10 {
            tracing::info!(target: "virtuallog::test", "again");
        }
        let batch = drain_logs();
        assert_eq!(batch.records.len(), RECORDS_MAX);
        assert!(batch.dropped >= 10);

        start_logs("off".parse().expect("a level"), wakes);
        tracing::error!(target: "virtuallog::test", "nobody listens");
        assert_eq!(ours(drain_logs()), []);
        for wrong in ["loud", "3", "", "INFO"] {
            assert!(wrong.parse::<LogLevel>().is_err(), "{wrong}");
        }
    }
}
