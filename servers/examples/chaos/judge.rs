//! What the clients of one log saw, put together, and the verdict on it.
//!
//! The exact checker of histories (`virtuallog::testing::history`) has the last word on order, loss,
//! doubling and what readers passed over. Two things are added here, because only here they can be seen:
//! what replicas have on their disks must be the log, and every entry must be on a majority of them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use virtuallog::protocol::{LogId, LogletId, LogletPos};
use virtuallog::storage::{ReadOnlyStorage, RealDisk};
use virtuallog::testing::history::{self, Final, Op, Outcome, What};
use virtuallog::{LogPos, Segment, VirtualLog};

use crate::client::value;

/// Bytes of a replica that are read at once.
const READ_BYTES: usize = 4 << 20;
/// Most findings of one kind that are told.
const TOLD_MAX: usize = 5;
/// Codes that no fault here excuses.
const NEVER: [&str; 6] =
    ["CORRUPT", "DATA_LOSS", "INTERNAL", "INVALID", "INCOMPATIBLE", "CONFLICT"];

/// A line of a client; `CLIENTS.md` says what each means.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Line {
    Append {
        from: u64,
        to: u64,
        value: u64,
        position: Option<u64>,
        error: Option<String>,
        #[serde(default)]
        message: String,
        #[serde(default)]
        in_doubt: bool,
        #[serde(default)]
        resolved: bool,
    },
    Tail {
        from: u64,
        to: u64,
        position: u64,
        sealed: bool,
    },
    Entry {
        from: u64,
        to: u64,
        position: u64,
        value: u64,
        after: u64,
    },
    End {
        position: u64,
        after: u64,
    },
    Trimmed {
        from: u64,
        to: u64,
        position: u64,
        kept: u64,
    },
    Alien {
        position: u64,
    },
    Error {
        call: String,
        error: String,
        message: String,
    },
}

/// How many appends ended how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Appends {
    pub(crate) acked: u64,
    pub(crate) in_doubt: u64,
    pub(crate) failed: u64,
}

/// All that is known of one log.
#[derive(Debug, Default)]
pub(crate) struct Story {
    ops: Vec<Op>,
    /// Failures of calls by code, appends included.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Appends that were in doubt until they were looked up.
    pub(crate) resolved: u64,
    pub(crate) findings: Vec<String>,
}

impl Story {
    /// Takes what a client said. How many of its appends were acknowledged.
    pub(crate) fn hear(&mut self, file: &Path) -> Result<u64, String> {
        let mut acked = 0;
        let shown = file.display();
        let open = std::fs::File::open(file).map_err(|e| format!("cannot read {shown}: {e}"))?;
        for (number, line) in BufReader::new(open).lines().enumerate() {
            let line = line.map_err(|e| format!("cannot read {shown}: {e}"))?;
            let line = serde_json::from_str(&line)
                .map_err(|e| format!("{shown}:{}: no line of a client: {e}", number + 1))?;
            acked += u64::from(matches!(line, Line::Append { position: Some(_), .. }));
            self.note(line);
        }
        Ok(acked)
    }

    fn note(&mut self, line: Line) {
        let mut op = |invoked, returned, what| self.ops.push(Op { invoked, returned, what });
        match line {
            Line::Append { from, to, value, position, error, message, in_doubt, resolved } => {
                self.resolved += u64::from(resolved);
                let outcome = match (position, in_doubt) {
                    (Some(position), _) => Outcome::Ok(position),
                    (None, true) => Outcome::Unknown,
                    (None, false) => Outcome::Failed,
                };
                op(from, to, What::Append { value, outcome });
                if let Some(code) = error {
                    self.failed("append", &code, &message);
                }
            }
            Line::Tail { from, to, position, sealed } => {
                op(from, to, What::Tail { position, sealed });
            }
            Line::Entry { from, to, position, value, after } => {
                op(from, to, What::Value { position, value });
                if after != position {
                    op(from, to, What::Passed { from: after, to: position });
                }
            }
            Line::End { position, after } => {
                op(0, 0, What::Passed { from: after, to: position });
            }
            Line::Trimmed { from, to, position, kept } => {
                op(from, to, What::Trimmed { position, first_kept: kept });
            }
            Line::Alien { position } => {
                self.findings
                    .push(format!("I2: the entry at {position} is nothing that anybody appended"));
            }
            Line::Error { call, error, message } => self.failed(&call, &error, &message),
        }
    }

    fn failed(&mut self, call: &str, code: &str, message: &str) {
        *self.errors.entry(code.to_owned()).or_default() += 1;
        if NEVER.contains(&code) {
            self.findings
                .push(format!("{call} failed with {code}, which nothing here excuses: {message}"));
        }
    }

    /// An append of our own.
    pub(crate) fn appended(
        &mut self,
        invoked: u64,
        returned: u64,
        value: u64,
        outcome: &virtuallog::Result<LogPos>,
    ) {
        let outcome = match outcome {
            Ok(position) => Outcome::Ok(position.0),
            Err(error) if error.is_in_doubt() => Outcome::Unknown,
            Err(_) => Outcome::Failed,
        };
        self.ops.push(Op { invoked, returned, what: What::Append { value, outcome } });
    }

    /// A trim of our own.
    pub(crate) fn trimmed(&mut self, invoked: u64, returned: u64, first_kept: u64) {
        self.ops.push(Op { invoked, returned, what: What::Trim { first_kept } });
    }

    /// How appends that began within `[from, to)` ended.
    pub(crate) fn appends(&self, from: u64, to: u64) -> Appends {
        let mut count = Appends::default();
        for op in self.ops.iter().filter(|op| (from..to).contains(&op.invoked)) {
            match op.what {
                What::Append { outcome: Outcome::Ok(_), .. } => count.acked += 1,
                What::Append { outcome: Outcome::Unknown, .. } => count.in_doubt += 1,
                What::Append { outcome: Outcome::Failed, .. } => count.failed += 1,
                _ => {}
            }
        }
        count
    }

    /// When appends were acknowledged, in order.
    pub(crate) fn acks(&self) -> Vec<u64> {
        let acked = |op: &Op| match op.what {
            What::Append { outcome: Outcome::Ok(_), .. } => Some(op.returned),
            _ => None,
        };
        let mut acks: Vec<_> = self.ops.iter().filter_map(acked).collect();
        acks.sort_unstable();
        acks
    }

    /// How many observations there are besides appends.
    pub(crate) fn observations(&self) -> usize {
        let own = |op: &&Op| matches!(op.what, What::Append { .. } | What::Passed { .. });
        self.ops.iter().filter(|op| !own(op)).count()
    }

    /// The verdict on what was seen; `last` is what the log holds.
    pub(crate) fn judge(&mut self, last: &Final) {
        if let Err(why) = history::check(&self.ops, last) {
            self.findings.extend(why.lines().map(String::from));
        }
    }
}

/// Reads the whole log back.
pub(crate) async fn read_back(log: &VirtualLog) -> Result<Final, String> {
    let told = |e: virtuallog::Error| format!("the log cannot be read back: {e:?}");
    let base = log.first().await.map_err(told)?;
    let tail = log.check_tail().await.map_err(told)?.position;
    let mut entries = Vec::new();
    let mut reader = log.read(base, Some(tail)).await.map_err(told)?;
    loop {
        let batch = reader.next_batch(1024).await.map_err(told)?;
        if batch.is_empty() {
            return Ok(Final { base: base.0, tail: tail.0, entries });
        }
        for entry in batch {
            let position = entry.position.0;
            let value = value(&entry.payload).ok_or_else(|| {
                format!("I2: the entry at {position} is nothing that anybody appended")
            })?;
            entries.push((position, value));
        }
    }
}

/// What is on the disks of the nodes, all of which have ended.
#[derive(Debug)]
pub(crate) struct Disks(Vec<ReadOnlyStorage>);

impl Disks {
    pub(crate) fn open(dirs: &[PathBuf]) -> Result<Disks, String> {
        let open = |dir: &PathBuf| {
            let opened = ReadOnlyStorage::open(Arc::new(RealDisk), dir);
            opened.map_err(|e| format!("the disk {} cannot be read: {e:?}", dir.display()))
        };
        dirs.iter().map(open).collect::<Result<_, _>>().map(Disks)
    }

    /// Compares every replica of every segment with the log. Segments come with their members'
    /// numbers. Gives how many copies of entries were compared.
    pub(crate) fn compare(
        &self,
        log: LogId,
        segments: &[(Segment, Vec<u32>)],
        last: &Final,
        findings: &mut Vec<String>,
    ) -> Result<u64, String> {
        let (mut compared, before) = (0, findings.len());
        for (segment, members) in segments {
            let stop = segment.stop.map_or(last.tail, |stop| stop.0);
            let place = |position: u64| last.entries.partition_point(|(at, _)| *at < position);
            let (first, end) = (place(segment.start.0), place(stop));
            let mut copies = vec![0_usize; end - first];
            for member in members {
                let found = self.replica(*member, log, segment, LogPos(stop))?;
                for (position, value) in found.into_iter().filter(|(at, _)| *at >= last.base) {
                    let at = place(position);
                    let same = value.is_some()
                        && last.entries.get(at).map(|e| (e.0, Some(e.1)))
                            == Some((position, value));
                    if same {
                        copies[at - first] += 1;
                        compared += 1;
                    } else if findings.len() < before + TOLD_MAX {
                        findings.push(format!(
                            "I7: node {member} has {value:?} at {position}, and the log {:?}",
                            last.entries.get(at)
                        ));
                    }
                }
            }
            let few = copies.iter().position(|copies| *copies <= members.len() / 2);
            if let Some(at) = few {
                findings.push(format!(
                    "I15: the entry at {} of segment {} is on {} of {} disks",
                    last.entries[first + at].0,
                    segment.index,
                    copies[at],
                    members.len()
                ));
            }
        }
        Ok(compared)
    }

    /// Positions and values that a node has of a segment, up to its boundary.
    fn replica(
        &self,
        node: u32,
        log: LogId,
        segment: &Segment,
        stop: LogPos,
    ) -> Result<Vec<(u64, Option<u64>)>, String> {
        let id = LogletId { log, segment: segment.loglet };
        let failed = |e| format!("node {node} has a damaged copy of loglet {id}: {e:?}");
        let disk =
            self.0.get(node as usize - 1).ok_or_else(|| format!("there is no node {node}"))?;
        let mut found = Vec::new();
        // One that was away when the loglet was made has nothing of it.
        let Some(status) = disk.status(id).map_err(failed)? else { return Ok(found) };
        let end = segment.to_loglet(stop).min(status.tail);
        let mut from = status.trim.max(segment.base);
        while from < end {
            let batches = disk.read(id, from, end, READ_BYTES).map_err(failed)?;
            let Some(last) = batches.last() else { break };
            from = LogletPos(last.end().0);
            for batch in &batches {
                for (index, payload) in batch.batch.entries().enumerate() {
                    let position = segment.to_log(batch.first.plus(index as u64));
                    if position < stop && position >= segment.start {
                        found.push((position.0, value(&payload)));
                    }
                }
            }
        }
        Ok(found)
    }
}
