//! What a simulation did, as one number that two runs of a seed have in common, and as lines for a
//! reader.
//!
//! Everything that happens is noted with its time. The number is over all of it; lines are made only
//! when somebody wants them. Counters say how often something happened, by name.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// What happened so far.
#[derive(Debug)]
pub(super) struct Trace {
    begun: Instant,
    shown: bool,
    noted: Mutex<Noted>,
}

/// Several times as many as the longest simulation has: one that goes in circles would fill the memory.
const EVENTS_MAX: u64 = 5_000_000;

#[derive(Debug)]
struct Noted {
    digest: u64,
    events: u64,
    counters: BTreeMap<&'static str, u64>,
}

impl Trace {
    /// Begins now; `shown`: every event is a line on standard output.
    pub(super) fn new(shown: bool) -> Trace {
        let noted = Noted { digest: 0xcbf2_9ce4_8422_2325, events: 0, counters: BTreeMap::new() };
        Trace { begun: Instant::now(), shown, noted: Mutex::new(noted) }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the beginning.
    pub(super) fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// When a millisecond is.
    pub(super) fn at(&self, millisecond: u64) -> Instant {
        self.begun + std::time::Duration::from_millis(millisecond)
    }

    /// Notes an event by its numbers, and by a line where lines are shown.
    pub(super) fn event(&self, numbers: &[u64], line: impl FnOnce() -> String) {
        let now = self.now();
        let mut noted = self.noted();
        noted.events += 1;
        let events = noted.events;
        for number in std::iter::once(&now).chain(numbers) {
            noted.digest = (noted.digest ^ number).wrapping_mul(0x0000_0100_0000_01b3);
            noted.digest ^= noted.digest >> 29;
        }
        drop(noted);
        assert!(events < EVENTS_MAX, "liveness: the simulation does not come to an end");
        if self.shown {
            println!("{:>9.3}  {}", now as f64 / 1000.0, line());
        }
    }

    /// Notes an event that is told in words: the words count too.
    pub(super) fn say(&self, words: fmt::Arguments<'_>) {
        let words = words.to_string();
        let digest = u64::from(virtuallog_protocol::record::crc32c(words.as_bytes()));
        self.event(&[digest], || words);
    }

    /// Counts one more of what the name says.
    pub(super) fn count(&self, name: &'static str) {
        self.add(name, 1);
    }

    pub(super) fn add(&self, name: &'static str, many: u64) {
        *self.noted().counters.entry(name).or_default() += many;
    }

    /// The number of all events, how many they were, and the counters.
    pub(super) fn end(&self) -> (u64, u64, BTreeMap<&'static str, u64>) {
        let noted = self.noted();
        (noted.digest, noted.events, noted.counters.clone())
    }
}
