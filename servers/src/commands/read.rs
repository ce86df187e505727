//! `read` and `tail`: entries to standard output, as they are or as JSON.
//!
//! Both open beside an owner in another process and see what that one has made durable. Memory does
//! not grow with the log.

use std::collections::VecDeque;
use std::io::{self, BufWriter, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use virtuallog::{Entry, Error, ErrorCode, LogPos, Start, VirtualLog};

use super::LogArg;
use crate::cli::Context;
use crate::output::{Stop, write_json};

/// Entries asked for at once.
const GROUP_ENTRIES: usize = 1024;

/// Write entries to standard output, each as it is and a line feed
#[derive(Debug, Args)]
pub(crate) struct ReadArgs {
    #[command(flatten)]
    log: LogArg,
    /// The first position to read [default: the first that was not trimmed]
    #[arg(long, value_name = "P")]
    from: Option<u64>,
    /// The position to stop before [default: the tail]
    #[arg(long, value_name = "Q")]
    to: Option<u64>,
}

/// Write the last entries, and follow the log
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    #[command(flatten)]
    log: LogArg,
    /// Go on with entries as they come, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// How many of the last entries to begin with
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    lines: u64,
}

/// One entry, as `append --json` takes it back.
#[derive(Debug, Serialize)]
struct JsonEntry<'a> {
    position: u64,
    written_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl<'a> From<&'a Entry> for JsonEntry<'a> {
    fn from(entry: &'a Entry) -> Self {
        let payload = std::str::from_utf8(&entry.payload).ok();
        // A clock beyond the calendar is still told, as the number that it is.
        let written_at = Timestamp::from_microsecond(entry.written_at_micros).map_or_else(
            |_| format!("{} us", entry.written_at_micros),
            |time| format!("{time:.6}"),
        );
        let payload_base64 = payload.is_none().then(|| BASE64.encode(&entry.payload));
        JsonEntry { position: entry.position.0, written_at, payload, payload_base64 }
    }
}

fn write_entry(out: &mut impl Write, entry: &Entry, as_json: bool) -> io::Result<()> {
    if as_json {
        return write_json(out, &JsonEntry::from(entry));
    }
    out.write_all(&entry.payload)?;
    out.write_all(b"\n")
}

pub(crate) async fn read(cx: &Context, args: ReadArgs) -> Result<(), Stop> {
    let log = cx.reader(&args.log.url).open().await?;
    let from = match args.from {
        Some(position) => LogPos(position),
        None => log.first().await?,
    };
    let mut reader = log.read(from, args.to.map(LogPos)).await?;
    let mut out = BufWriter::with_capacity(256 << 10, io::stdout().lock());
    loop {
        let entries = match reader.next_batch(GROUP_ENTRIES).await {
            Ok(entries) => entries,
            // What was read before the failure is good, and is shown.
            Err(error) => return Err(out.flush().map_or_else(Stop::from, |()| error.into())),
        };
        if entries.is_empty() {
            return Ok(out.flush()?);
        }
        for entry in &entries {
            write_entry(&mut out, entry, cx.out.entries_are_json())?;
        }
    }
}

pub(crate) async fn tail(cx: &Context, args: TailArgs) -> Result<(), Stop> {
    if !args.follow {
        return show_last(cx, &args).await.map(drop);
    }
    // Before the first entry is shown: whoever sees it may press Ctrl-C at once.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| {
        Error::new(ErrorCode::Internal, "cannot listen for Ctrl-C").with_source(error)
    })?;
    tokio::select! {
        outcome = follow(cx, &args) => outcome,
        _ = interrupt.recv() => Err(Stop::Interrupted),
    }
}

/// Ends only with the log, or when nobody reads what is shown.
async fn follow(cx: &Context, args: &TailArgs) -> Result<(), Stop> {
    let (log, tail) = show_last(cx, args).await?;
    let mut reader = log.subscribe(Start::At(tail)).await?;
    loop {
        let entries = reader.next_batch(GROUP_ENTRIES).await?;
        if entries.is_empty() {
            return Ok(());
        }
        show(&entries, cx.out.entries_are_json())?;
    }
}

async fn show_last(cx: &Context, args: &TailArgs) -> Result<(VirtualLog, LogPos), Stop> {
    let log = cx.reader(&args.log.url).open().await?;
    let tail = log.check_tail().await?.position;
    let last = last_entries(&log, tail, args.lines).await?;
    show(&last, cx.out.entries_are_json())?;
    Ok((log, tail))
}

/// Writes entries out at once: somebody watches.
fn show<'a>(entries: impl IntoIterator<Item = &'a Entry>, as_json: bool) -> Result<(), Stop> {
    let mut out = BufWriter::new(io::stdout().lock());
    for entry in entries {
        write_entry(&mut out, entry, as_json)?;
    }
    Ok(out.flush()?)
}

/// The last `wanted` entries below `tail`. Positions may skip, so a stretch of that many positions
/// may hold fewer entries: then a longer one is read.
async fn last_entries(
    log: &VirtualLog,
    tail: LogPos,
    wanted: u64,
) -> Result<VecDeque<Entry>, Stop> {
    let mut last = VecDeque::new();
    if wanted == 0 {
        return Ok(last);
    }
    let first = log.first().await?;
    let mut stretch = wanted;
    loop {
        let from = LogPos(tail.0.saturating_sub(stretch)).max(first);
        let mut reader = log.read(from, Some(tail)).await?;
        last.clear();
        while let Some(entry) = reader.next().await? {
            if last.len() as u64 == wanted {
                last.pop_front();
            }
            last.push_back(entry);
        }
        if last.len() as u64 == wanted || from <= first {
            return Ok(last);
        }
        stretch = stretch.saturating_mul(8);
    }
}
