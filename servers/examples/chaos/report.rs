//! The account of a run: figures, floors and findings, for people and as one JSON object.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::RunArgs;
use crate::judge::{Appends, Story};
use crate::nemesis::{Account, Kind};

/// Of 1,000 appends so many are acknowledged while things go wrong, at least: a run that refuses
/// everything proves nothing.
const ACKED_MIN: u64 = 600;
/// And so many are in doubt, at most.
const IN_DOUBT_MAX: u64 = 100;
/// Of 1,000 appends so many are acknowledged once all is well.
const CALM_MIN: u64 = 999;
/// Of all seconds, in percent, each log acknowledges something in so many, at least.
const SERVED_MIN: u64 = 40;
/// How long after a fault a gap in service counts as its consequence, in nanoseconds.
const WATCHED: u64 = 6_000_000_000;
const SECOND: u64 = 1_000_000_000;

/// What a run came to. Times are those of the clients' clock.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// When things began to go wrong, were all well, the calm began, and it ended.
    pub(crate) from: u64,
    pub(crate) healed: u64,
    pub(crate) calm: u64,
    pub(crate) to: u64,
    pub(crate) recovered_ms: u64,
    /// Most that any node had in memory.
    pub(crate) resident_mb: u64,
    /// Copies of entries on disks that were compared with the logs.
    pub(crate) copies: u64,
    /// Segments of all chains at the end.
    pub(crate) segments: usize,
    pub(crate) stories: Vec<Story>,
    pub(crate) findings: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
    errors: BTreeMap<String, u64>,
    troubled: Appends,
    calmed: Appends,
    observations: usize,
    resolved: u64,
    served_percent: u64,
    gaps_ms: Vec<u64>,
    starts_ms: Vec<u64>,
}

impl Report {
    /// Draws the conclusions, once every story is judged.
    pub(crate) fn settle(&mut self, account: Account, stories: &[Story]) {
        self.counts = account.counts;
        self.starts_ms = account.starts_ms;
        self.starts_ms.sort_unstable();
        self.findings.extend(account.findings);
        self.served_percent = 100;
        for (log, story) in stories.iter().enumerate() {
            self.troubled.add(story.appends(0, self.healed));
            self.calmed.add(story.appends(self.calm, self.to));
            self.observations += story.observations();
            self.resolved += story.resolved;
            for (code, count) in &story.errors {
                *self.errors.entry(code.clone()).or_default() += count;
            }
            self.findings.extend(story.findings.iter().map(|what| format!("log {log}: {what}")));
            let acks = story.acks();
            self.served_percent = self.served_percent.min(served(&acks, self.from, self.healed));
            let killed = account.events.iter().filter(|event| {
                matches!(event.kind, Kind::Kill | Kind::Power) && event.log == Some(log)
            });
            self.gaps_ms
                .extend(killed.map(|event| gap(&acks, event.at, event.at + WATCHED) / 1_000_000));
        }
        self.gaps_ms.sort_unstable();
        self.floors();
    }

    /// What has to be reached for the run to mean something.
    fn floors(&mut self) {
        let (troubled, calm) = (self.troubled, self.calmed);
        let floors = [
            (
                per_mille(troubled.acked, troubled.all()) >= ACKED_MIN,
                "too few appends were acknowledged in trouble",
            ),
            (
                per_mille(troubled.in_doubt, troubled.all()) <= IN_DOUBT_MAX,
                "too many appends were in doubt",
            ),
            (
                per_mille(calm.acked, calm.all()) >= CALM_MIN,
                "not every append was acknowledged once all was well",
            ),
            (self.served_percent >= SERVED_MIN, "a log served too rarely"),
            (troubled.acked > 0 && calm.acked > 0, "nothing was acknowledged"),
        ];
        let missed = floors.into_iter().filter(|(reached, _)| !reached);
        self.findings.extend(missed.map(|(_, what)| format!("floor: {what}")));
    }

    /// Prints findings, if there are any, and the JSON object.
    pub(crate) fn print(&self, args: &RunArgs) {
        for what in &self.findings {
            println!("FOUND: {what}");
        }
        println!("{}", self.json(args));
    }

    fn json(&self, args: &RunArgs) -> Value {
        let mut json = json!({
            "seed": args.seed, "seconds": args.seconds, "nodes": args.nodes, "logs": args.logs,
            "acked": self.troubled.acked + self.calmed.acked,
            "in_doubt": self.troubled.in_doubt + self.calmed.in_doubt,
            "failed": self.troubled.failed + self.calmed.failed,
            "resolved": self.resolved,
            "acked_in_trouble_per_mille": per_mille(self.troubled.acked, self.troubled.all()),
            "acked_in_calm_per_mille": per_mille(self.calmed.acked, self.calmed.all()),
            "served_percent": self.served_percent,
            "recovered_ms": self.recovered_ms,
            "gap_after_kill_ms": spread(&self.gaps_ms),
            "start_ms": spread(&self.starts_ms),
            "observations": self.observations, "copies_compared": self.copies,
            "segments": self.segments, "resident_mb_max": self.resident_mb,
            "errors": self.errors,
            "violations": self.findings.len(),
        });
        for (what, count) in &self.counts {
            json[*what] = (*count).into();
        }
        json
    }
}

impl Appends {
    fn add(&mut self, other: Appends) {
        self.acked += other.acked;
        self.in_doubt += other.in_doubt;
        self.failed += other.failed;
    }

    fn all(self) -> u64 {
        self.acked + self.in_doubt + self.failed
    }
}

fn per_mille(part: u64, all: u64) -> u64 {
    (part * 1000).checked_div(all).unwrap_or(0)
}

/// Median and most.
fn spread(sorted: &[u64]) -> Value {
    json!({ "count": sorted.len(), "p50": sorted.get(sorted.len() / 2), "max": sorted.last() })
}

/// In how many seconds of a hundred something was acknowledged.
fn served(acks: &[u64], from: u64, to: u64) -> u64 {
    let seconds = (to - from) / SECOND;
    let served = |second: &u64| {
        let begin = from + second * SECOND;
        let at = acks.partition_point(|ack| *ack < begin);
        acks.get(at).is_some_and(|ack| *ack < begin + SECOND)
    };
    ((0..seconds).filter(served).count() as u64 * 100).checked_div(seconds).unwrap_or(100)
}

/// The longest time without an acknowledgement that begins within `[from, to)`.
fn gap(acks: &[u64], from: u64, to: u64) -> u64 {
    let first = acks.partition_point(|ack| *ack < from);
    let within = acks[first..].iter().take_while(|ack| **ack < to);
    let starts = std::iter::once(from).chain(within.copied());
    let ends = acks[first..].iter().copied();
    starts.zip(ends).map(|(start, end)| end - start).max().unwrap_or(0)
}
