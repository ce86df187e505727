//! `status`: what is up, what is down, and how far each copy of each log is.
//!
//! It is asked most when something is broken, so that one part which does not answer is told in its
//! place and hides nothing of the rest. Positions are the log's throughout.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use tokio::time::sleep;
use virtuallog::server::{self, LogletStatus, MemberStatus};
use virtuallog::url::{Location, LogUrl, Params};
use virtuallog::{Chain, Error, Segment};

use super::chain::{SegmentRow, life_name};
use super::nodes::ClusterReport;
use crate::cli::Context;
use crate::output::{Report, Stop, table};

/// Between two looks of `--watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Clears a terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Show the nodes, and for each log its chain and how far each copy is
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// A log, or a store with a `/` at its end for all its logs
    #[arg(value_name = "URL", env = "VIRTUALLOG_URL", hide_env_values = true)]
    url: String,
    /// Look again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Serialize)]
struct StatusReport {
    /// `None`: the store is no cluster.
    #[serde(flatten)]
    cluster: Option<ClusterReport>,
    logs: Vec<LogStatus>,
}

#[derive(Debug, Default, Serialize)]
struct LogStatus {
    name: String,
    version: Option<u64>,
    life: Option<&'static str>,
    tail: Option<u64>,
    segments: Vec<SegmentStatus>,
    /// Why something of the above is not known.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct SegmentStatus {
    #[serde(flatten)]
    segment: SegmentRow,
    /// The node that gives positions; `None`: not of a cluster.
    sequencer: Option<u32>,
    members: Vec<MemberRow>,
}

#[derive(Debug, Serialize)]
struct MemberRow {
    node: u32,
    tail: Option<u64>,
    /// Positions that the furthest copy is ahead.
    lag: Option<u64>,
    known_tail: Option<u64>,
    first: Option<u64>,
    sealed: Option<bool>,
    error: Option<String>,
}

impl SegmentStatus {
    fn new(segment: &Segment, loglet: Option<LogletStatus>) -> Self {
        let members = loglet.as_ref().map_or(&[][..], |loglet| &loglet.members);
        let furthest = members.iter().filter_map(|member| member.tail).max().unwrap_or_default();
        SegmentStatus {
            segment: SegmentRow::from(segment),
            sequencer: loglet.as_ref().map(|loglet| loglet.sequencer),
            members: members
                .iter()
                .map(|member| MemberRow::new(segment, member, furthest))
                .collect(),
        }
    }
}

impl MemberRow {
    fn new(segment: &Segment, member: &MemberStatus, furthest: u64) -> Self {
        let to_log = |position: u64| segment.start.0 + position.saturating_sub(segment.base.0);
        MemberRow {
            node: member.node,
            tail: member.tail.map(to_log),
            lag: member.tail.map(|tail| furthest - tail),
            known_tail: member.known_tail.map(to_log),
            first: member.trim.map(to_log),
            sealed: member.sealed,
            error: member.error.clone(),
        }
    }

    fn cells(&self) -> Vec<String> {
        let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
        let state = match (&self.error, self.sealed) {
            (Some(error), _) => format!("silent: {error}"),
            (None, Some(true)) => "sealed".into(),
            (None, _) => "open".into(),
        };
        let (tail, lag) = (number(self.tail), number(self.lag));
        vec![self.node.to_string(), tail, lag, number(self.known_tail), number(self.first), state]
    }
}

impl Report for StatusReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(cluster) = &self.cluster {
            cluster.human(out)?;
        }
        self.logs.iter().try_for_each(|log| {
            writeln!(out)?;
            log.human(out)
        })
    }
}

impl LogStatus {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let shown = |value: Option<u64>| value.map_or("?".into(), |value: u64| value.to_string());
        let (version, tail) = (shown(self.version), shown(self.tail));
        let life = self.life.unwrap_or("?");
        writeln!(out, "log {}, {life}, tail {tail}, chain version {version}", self.name)?;
        if let Some(error) = &self.error {
            writeln!(out, "  not all is known: {error}")?;
        }
        for SegmentStatus { segment, sequencer, members } in &self.segments {
            write!(out, "  {segment}")?;
            match sequencer {
                Some(node) if segment.is_active() => writeln!(out, ", sequenced by node {node}")?,
                _ => writeln!(out)?,
            }
            if members.is_empty() {
                continue;
            }
            let heading = ["    node", "tail", "lag", "known tail", "first", "state"];
            let heading = heading.map(String::from).to_vec();
            let rows = members.iter().map(|member| {
                let mut cells = member.cells();
                cells[0].insert_str(0, "    ");
                cells
            });
            table(out, &std::iter::once(heading).chain(rows).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

pub(crate) async fn status(cx: &Context, args: StatusArgs) -> Result<(), Stop> {
    let url = LogUrl::parse(&args.url)?;
    loop {
        let report = look(cx, &url).await?;
        if args.watch && io::stdout().is_terminal() && !cx.out.entries_are_json() {
            io::stdout().write_all(CLEAR.as_bytes())?;
        }
        cx.out.report(&report)?;
        if !args.watch {
            return Ok(());
        }
        sleep(WATCH_INTERVAL).await;
    }
}

async fn look(cx: &Context, url: &LogUrl) -> Result<StatusReport, Error> {
    let store = LogUrl { name: None, params: Params::default(), ..url.clone() }.to_string();
    let in_cluster = matches!(url.location, Location::Cluster { .. });
    let cluster = match in_cluster {
        true => Some(ClusterReport::new(server::nodes(&store).await?)),
        false => None,
    };
    let names = match &url.name {
        Some(name) => vec![name.clone()],
        None => virtuallog::logs(&store).await?,
    };
    let alone = url.name.is_some();
    let mut logs = Vec::with_capacity(names.len());
    for name in names {
        let url = LogUrl { name: Some(name.clone()), ..url.clone() }.to_string();
        let mut log = LogStatus { name, ..LogStatus::default() };
        match log.fill(cx, &url, in_cluster).await {
            Ok(()) => {}
            // Nothing at all is known of the one log that was asked for.
            Err(error) if alone && log.version.is_none() => return Err(error),
            Err(error) => log.error = Some(error.to_string()),
        }
        logs.push(log);
    }
    Ok(StatusReport { cluster, logs })
}

impl LogStatus {
    /// Learns what it can; an error tells what is left out.
    async fn fill(&mut self, cx: &Context, url: &str, in_cluster: bool) -> Result<(), Error> {
        let log = cx.reader(url).open().await?;
        let chain = log.chain().await?;
        self.version = Some(chain.version);
        self.life = Some(life_name(&chain.life));
        self.segments = match in_cluster {
            true => by_member(server::status(url).await?),
            false => by_chain(&chain),
        };
        self.tail = Some(log.check_tail().await?.position.0);
        log.close().await
    }
}

fn by_member(segments: Vec<(Segment, Option<LogletStatus>)>) -> Vec<SegmentStatus> {
    segments.into_iter().map(|(segment, loglet)| SegmentStatus::new(&segment, loglet)).collect()
}

fn by_chain(chain: &Chain) -> Vec<SegmentStatus> {
    chain.segments.iter().map(|segment| SegmentStatus::new(segment, None)).collect()
}
