//! `chain`, `check-tail`, `reconfigure`, `trim`, `seal`: the log's shape, and changing it.
//!
//! A change is made against the chain version that was looked at, and never tried again by itself:
//! when somebody else was faster it fails with CONFLICT, and a person decides anew.

use std::fmt;
use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use virtuallog::{
    Chain, Error, ErrorCode, Life, LogPos, Next, Placement, Plan, Segment, VirtualLog,
};

use super::LogArg;
use crate::cli::Context;
use crate::output::{Report, Stop, counted, table};

/// Show which loglets hold the log
#[derive(Debug, Args)]
pub(crate) struct ChainArgs {
    #[command(flatten)]
    log: LogArg,
}

/// Show the first unwritten position
#[derive(Debug, Args)]
pub(crate) struct CheckTailArgs {
    #[command(flatten)]
    log: LogArg,
}

/// Swap the active loglet while the log is in use, or change its sealed part
#[derive(Debug, Args)]
pub(crate) struct ReconfigureArgs {
    #[command(flatten)]
    log: LogArg,
    /// The loglet to go on with, for example `local`
    #[arg(long, value_name = "LOGLET", required_unless_present = "truncate")]
    to: Option<String>,
    /// Move this sealed segment to --to, rather than go on with it
    #[arg(long, value_name = "INDEX", requires = "to", conflicts_with = "plan")]
    segment: Option<u32>,
    /// Take segments that were trimmed out of the chain
    #[arg(long, conflicts_with_all = ["to", "segment", "plan"])]
    truncate: bool,
    /// Only show what would happen
    #[arg(long)]
    plan: bool,
    /// Fail with CONFLICT unless the chain has this version
    #[arg(long, value_name = "VERSION")]
    if_version: Option<u64>,
}

/// Give up all entries below a position
#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct TrimArgs {
    #[command(flatten)]
    log: LogArg,
    /// The first position to keep
    keep_from: u64,
}

/// End a log for good: nobody can append to it ever again
#[derive(Debug, Args)]
pub(crate) struct SealArgs {
    #[command(flatten)]
    log: LogArg,
    /// Yes, for ever
    #[arg(long)]
    forever: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct ChainReport {
    name: String,
    log: String,
    version: u64,
    life: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_to: Option<String>,
    segments: Vec<SegmentRow>,
    /// What a reconfiguration that was begun goes on with; `end`: nothing.
    next: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct SegmentRow {
    index: u32,
    loglet: String,
    start: u64,
    stop: Option<u64>,
    state: &'static str,
}

impl From<&Segment> for SegmentRow {
    fn from(segment: &Segment) -> Self {
        SegmentRow {
            index: segment.index,
            loglet: segment.config.name.clone(),
            start: segment.start.0,
            stop: segment.stop.map(|stop| stop.0),
            state: if segment.stop.is_some() { "sealed" } else { "active" },
        }
    }
}

impl SegmentRow {
    pub(super) fn is_active(&self) -> bool {
        self.stop.is_none()
    }
}

impl fmt::Display for SegmentRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SegmentRow { index, loglet, start, state, .. } = self;
        match self.stop {
            Some(stop) => write!(f, "segment {index}, {loglet}, {start} to {stop}, {state}"),
            None => write!(f, "segment {index}, {loglet}, from {start}, {state}"),
        }
    }
}

/// The word for where a log is in its life.
pub(super) fn life_name(life: &Life) -> &'static str {
    match life {
        Life::Open => "open",
        Life::Ended => "ended",
        Life::Moved { .. } => "moved",
    }
}

impl ChainReport {
    pub(super) fn new(name: &str, chain: &Chain) -> Self {
        let moved_to = match &chain.life {
            Life::Moved { url } => Some(url.clone()),
            Life::Open | Life::Ended => None,
        };
        let next = chain.next.as_ref().map(|next| match next {
            Next::Extend { config, .. } => config.name.clone(),
            Next::End => "end".into(),
        });
        ChainReport {
            name: name.into(),
            log: chain.log.to_string(),
            version: chain.version,
            life: life_name(&chain.life),
            moved_to,
            segments: chain.segments.iter().map(SegmentRow::from).collect(),
            next,
        }
    }
}

impl Report for ChainReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let ChainReport { name, version, life, .. } = self;
        writeln!(out, "log {name}, chain version {version}, {life}")?;
        if let Some(url) = &self.moved_to {
            writeln!(out, "it lives at {url} now")?;
        }
        let heading = ["segment", "loglet", "from", "to", "state"].map(String::from).to_vec();
        let rows = self.segments.iter().map(|row| {
            let stop = row.stop.map_or("-".into(), |stop| stop.to_string());
            let (index, start) = (row.index.to_string(), row.start.to_string());
            vec![index, row.loglet.clone(), start, stop, row.state.into()]
        });
        table(out, &std::iter::once(heading).chain(rows).collect::<Vec<_>>())?;
        match &self.next {
            Some(next) if next == "end" => writeln!(out, "under way: the end of the log"),
            Some(next) => writeln!(out, "under way: on to {next}"),
            None => Ok(()),
        }
    }
}

pub(crate) async fn chain(cx: &Context, args: ChainArgs) -> Result<(), Stop> {
    let log = cx.reader(&args.log.url).open().await?;
    cx.out.report(&ChainReport::new(log.name(), &log.chain().await?))
}

#[derive(Debug, Serialize)]
struct TailReport {
    position: u64,
    sealed: bool,
}

impl Report for TailReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let sealed = if self.sealed { ", sealed for ever" } else { "" };
        writeln!(out, "tail {}{sealed}", self.position)
    }
}

pub(crate) async fn check_tail(cx: &Context, args: CheckTailArgs) -> Result<(), Stop> {
    let tail = cx.reader(&args.log.url).open().await?.check_tail().await?;
    cx.out.report(&TailReport { position: tail.position.0, sealed: tail.sealed })
}

#[derive(Debug, Serialize)]
struct PlanReport<'a> {
    version: u64,
    from: &'a str,
    to: &'a str,
    seals_segment: u32,
    tail: u64,
    bytes_to_move: u64,
    objections: &'a [String],
    /// `None`: not on nodes of a cluster.
    before: Option<PlacementRow<'a>>,
    after: Option<PlacementRow<'a>>,
    #[serde(skip)]
    url: &'a str,
}

/// The nodes that a loglet is on.
#[derive(Debug, Serialize)]
struct PlacementRow<'a> {
    members: &'a [u32],
    sequencer: u32,
    /// How many of them have to be there.
    quorum: usize,
}

impl<'a> From<&'a Placement> for PlacementRow<'a> {
    fn from(placement: &'a Placement) -> Self {
        let Placement { members, sequencer } = placement;
        PlacementRow { members, sequencer: *sequencer, quorum: members.len() / 2 + 1 }
    }
}

impl fmt::Display for PlacementRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<_> = self.members.iter().map(u32::to_string).collect();
        let (count, members) = (members.len(), members.join(", "));
        let PlacementRow { quorum, sequencer, .. } = self;
        write!(f, "nodes {members} (any {quorum} of {count}), sequenced by {sequencer}")
    }
}

impl<'a> PlanReport<'a> {
    fn new(url: &'a str, plan: &'a Plan) -> Self {
        PlanReport {
            version: plan.version,
            from: &plan.from,
            to: &plan.to,
            seals_segment: plan.seals_segment,
            tail: plan.tail.0,
            bytes_to_move: plan.bytes_to_move,
            objections: &plan.objections,
            before: plan.before.as_ref().map(PlacementRow::from),
            after: plan.after.as_ref().map(PlacementRow::from),
            url,
        }
    }
}

impl Report for PlanReport<'_> {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let PlanReport { version, from, to, seals_segment, tail, url, .. } = self;
        writeln!(out, "against chain version {version}:")?;
        writeln!(out, "  seal segment {seals_segment} ({from}) at position {tail} or later")?;
        writeln!(out, "  go on with {to} from there")?;
        if let Some(before) = &self.before {
            writeln!(out, "  before: {before}")?;
        }
        if let Some(after) = &self.after {
            writeln!(out, "  after: {after}")?;
        }
        writeln!(out, "  move {}", counted(self.bytes_to_move, "byte", "bytes"))?;
        for objection in self.objections {
            writeln!(out, "  it cannot be done: {objection}")?;
        }
        if self.objections.is_empty() {
            let run = format!("virtuallog reconfigure {url} --to {to} --if-version {version}");
            writeln!(out, "nothing was done; to do exactly this:\n  {run}")?;
        }
        Ok(())
    }
}

pub(crate) async fn reconfigure(cx: &Context, args: ReconfigureArgs) -> Result<(), Stop> {
    if let (Some(to), true) = (&args.to, args.plan) {
        let log = cx.reader(&args.log.url).open().await?;
        let plan = log.plan(to).await?;
        same_version(args.if_version, plan.version)?;
        return cx.out.report(&PlanReport::new(&args.log.url, &plan));
    }
    let log = cx.writer(&args.log.url).create(false).open().await?;
    let chain = match (&args.to, args.segment) {
        (Some(to), None) => extend(&log, to, args.if_version).await?,
        (Some(to), Some(segment)) => modify(&log, segment, to, args.if_version).await?,
        (None, _) => truncate(&log, args.if_version).await?,
    };
    let report = ChainReport::new(log.name(), &chain);
    log.close().await?;
    cx.out.report(&report)
}

/// Makes a plan and executes exactly it.
async fn extend(log: &VirtualLog, to: &str, if_version: Option<u64>) -> Result<Chain, Error> {
    let plan = log.plan(to).await?;
    same_version(if_version, plan.version)?;
    if !plan.objections.is_empty() {
        return Err(Error::invalid(format!("it cannot be done: {}", plan.objections.join("; "))));
    }
    log.reconfig_extend(&plan.to, Some(plan.version)).await?;
    let chain = log.chain().await?;
    let at = chain.segments.iter().position(|segment| segment.index == plan.seals_segment);
    let sealed = at.map(|at| &chain.segments[at]).filter(|segment| segment.stop.is_some());
    let follower = at.and_then(|at| chain.segments.get(at + 1));
    let shown = sealed.is_some() && follower.is_some_and(|next| next.config.name == plan.to);
    shown_as_asked(chain, shown)
}

async fn modify(
    log: &VirtualLog,
    index: u32,
    to: &str,
    if_version: Option<u64>,
) -> Result<Chain, Error> {
    let before = log.chain().await?;
    same_version(if_version, before.version)?;
    log.reconfig_modify(index, to, Some(before.version)).await?;
    let chain = log.chain().await?;
    let shown = match (before.segment(index), chain.segment(index)) {
        (Some(old), Some(new)) => {
            new.loglet != old.loglet && (new.start, new.stop) == (old.start, old.stop)
        }
        _ => false,
    };
    shown_as_asked(chain, shown)
}

async fn truncate(log: &VirtualLog, if_version: Option<u64>) -> Result<Chain, Error> {
    let before = log.chain().await?;
    same_version(if_version, before.version)?;
    log.reconfig_truncate(Some(before.version)).await?;
    let chain = log.chain().await?;
    let shown = chain.first() >= before.first();
    shown_as_asked(chain, shown)
}

fn same_version(wanted: Option<u64>, found: u64) -> Result<(), Error> {
    match wanted {
        Some(wanted) if wanted != found => Err(Error::new(
            ErrorCode::Conflict,
            format!(
                "the chain is at version {found}, not {wanted}: somebody changed it; make a new plan"
            ),
        )),
        _ => Ok(()),
    }
}

fn shown_as_asked(chain: Chain, shown: bool) -> Result<Chain, Error> {
    match shown {
        true => Ok(chain),
        false => Err(Error::new(
            ErrorCode::Conflict,
            format!(
                "the change was made, but the chain at version {} does not show it: somebody changed \
                 it since; look at `virtuallog chain`",
                chain.version
            ),
        )),
    }
}

#[derive(Debug, Serialize)]
struct TrimReport {
    requested: u64,
    effective: u64,
    limited_by: Option<&'static str>,
}

impl Report for TrimReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "the first position kept is {}", self.effective)?;
        match self.limited_by {
            Some("tail") => writeln!(out, ": nothing beyond the tail can be trimmed"),
            Some("already_trimmed") => writeln!(out, ": more had been trimmed before"),
            Some(other) => writeln!(out, ": limited by {other}"),
            None => writeln!(out),
        }
    }
}

pub(crate) async fn trim(cx: &Context, args: TrimArgs) -> Result<(), Stop> {
    let log = cx.writer(&args.log.url).create(false).open().await?;
    let trimmed = log.prefix_trim(LogPos(args.keep_from)).await?;
    log.close().await?;
    cx.out.report(&TrimReport {
        requested: trimmed.requested.0,
        effective: trimmed.effective.0,
        limited_by: trimmed.limited_by.map(virtuallog::TrimLimit::name),
    })
}

pub(crate) async fn seal(cx: &Context, args: SealArgs) -> Result<(), Stop> {
    if !args.forever {
        return Err(Error::invalid(
            "sealing ends the log for good, nothing can be appended ever again: add --forever to do \
             it; to swap the loglet and go on, use `virtuallog reconfigure`",
        )
        .into());
    }
    let log = cx.writer(&args.log.url).create(false).open().await?;
    let tail = log.seal().await?;
    log.close().await?;
    cx.out.report(&TailReport { position: tail.position.0, sealed: tail.sealed })
}
