//! `append` and `resolve`: lines of a file or of standard input become entries.
//!
//! Input of any size goes through in bounded memory: a thread reads it, the entries wait in a short
//! queue, and a bounded number of appends is under way. When one fails, the report names how many
//! entries are surely in the log before it, so that a rerun can go on from there.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::Instant;

use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;
use virtuallog::{Append, Appended, Error, LogPos, Token, VirtualLog};

use super::LogArg;
use super::cut::{Cut, Cutter, Delimiter};
use crate::cli::Context;
use crate::output::{Report, Stop, counted, grouped};
use crate::progress::Progress;

/// Most appends under way.
const WINDOW_ENTRIES: usize = 8 << 10;
/// Most bytes under way, unless one entry is larger.
const WINDOW_BYTES: usize = 16 << 20;
/// Groups of entries that wait between the thread that reads and the appends.
const GROUPS_WAITING: usize = 4;

/// Append each line of a file, or of standard input, as one entry
#[derive(Debug, Args)]
pub(crate) struct AppendArgs {
    #[command(flatten)]
    log: LogArg,
    /// The file to read; `-` or nothing: standard input
    file: Option<String>,
    /// What ends an entry instead of a line feed; understands \n \r \t \0 \\
    #[arg(long, value_parser = Delimiter::parse, conflicts_with = "whole")]
    delimiter: Option<Delimiter>,
    /// All of the input is one entry
    #[arg(long)]
    whole: bool,
    /// Fail with NOT_FOUND rather than create a missing log
    #[arg(long)]
    no_create: bool,
}

#[derive(Debug, Serialize)]
struct AppendReport {
    count: u64,
    first: Option<u64>,
    last: Option<u64>,
    bytes: u64,
    seconds: f64,
    entries_per_s: u64,
}

impl AppendReport {
    fn new(appended: Option<Appended>, bytes: u64, seconds: f64) -> Self {
        let count = appended.map_or(0, |appended| appended.count);
        let entries_per_s = (count as f64 / seconds.max(1e-9)) as u64;
        let (first, last) = (appended.map(|all| all.first.0), appended.map(|all| all.last.0));
        AppendReport { count, first, last, bytes, seconds, entries_per_s }
    }
}

impl Report for AppendReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let (Some(first), Some(last)) = (self.first, self.last) else {
            return writeln!(out, "the input was empty: nothing appended");
        };
        let count = counted(self.count, "entry", "entries");
        let rate = grouped(self.entries_per_s);
        writeln!(out, "appended {count}, positions {first} to {last}")?;
        writeln!(out, "in {:.3} s, {rate} entries/s", self.seconds)
    }
}

pub(crate) async fn append(cx: &Context, mut args: AppendArgs) -> Result<(), Stop> {
    args.lone_argument_may_be_the_file();
    let cut = args.cut(cx.out.entries_are_json())?;
    // The input first: a wrong file name must not leave a new, empty log behind.
    let file = args.file.as_deref().filter(|name| *name != "-");
    let (input, total) = Cutter::open(file, cut)?;
    let log = cx.writer(&args.log.url).create(!args.no_create).open().await?;
    let start = Instant::now();
    let (groups, entries) = mpsc::channel(GROUPS_WAITING);
    std::thread::spawn(move || send_groups(input, &groups));
    let mut pump = Pump {
        log: &log,
        progress: Progress::bytes(total),
        under_way: VecDeque::new(),
        bytes_under_way: 0,
        appended: None,
        bytes: 0,
    };
    let outcome = pump.run(entries).await;
    let closed = log.close().await;
    let seconds = start.elapsed().as_secs_f64();
    let Pump { appended, bytes, .. } = pump;
    match (outcome.and(closed), appended) {
        (Err(error), Some(appended)) => Err(Stop::Partly(error, appended)),
        (Err(error), None) => Err(error.into()),
        (Ok(()), appended) => cx.out.report(&AppendReport::new(appended, bytes, seconds)),
    }
}

impl AppendArgs {
    fn cut(&self, as_json: bool) -> Result<Cut, Error> {
        match (&self.delimiter, self.whole, as_json) {
            (None, false, true) => Ok(Cut::Json),
            (_, _, true) => Err(Error::invalid(
                "with --json each line is one entry: leave out --whole and --delimiter",
            )),
            (_, true, false) => Ok(Cut::Whole),
            (Some(delimiter), false, false) => Ok(Cut::After(delimiter.clone())),
            (None, false, false) => Ok(Cut::After(Delimiter::line_feed())),
        }
    }

    /// With `VIRTUALLOG_URL` set, a lone argument that is no URL is the file.
    fn lone_argument_may_be_the_file(&mut self) {
        let is_url = self.log.url.split_once(':').is_some_and(|(scheme, _)| {
            !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric())
        });
        if let (None, false, Ok(url)) = (&self.file, is_url, std::env::var("VIRTUALLOG_URL")) {
            self.file = Some(std::mem::replace(&mut self.log.url, url));
        }
    }
}

type Groups = mpsc::Receiver<Result<Vec<Bytes>, Error>>;

/// Appends what comes, in order, with a bounded number under way.
struct Pump<'a> {
    log: &'a VirtualLog,
    progress: Progress,
    /// Oldest first, with their sizes.
    under_way: VecDeque<(Append, usize)>,
    bytes_under_way: usize,
    /// What is surely in the log.
    appended: Option<Appended>,
    /// Bytes of what is surely in the log.
    bytes: u64,
}

impl Pump<'_> {
    async fn run(&mut self, mut groups: Groups) -> Result<(), Error> {
        let mut failed = None;
        while let Some(group) = self.next_group(&mut groups).await? {
            match group {
                Err(error) => {
                    failed = Some(error);
                    break;
                }
                Ok(group) => self.submit(group).await?,
            }
        }
        // Entries before a failure of the input are appended all the same, and reported.
        while !self.under_way.is_empty() {
            self.settle().await?;
        }
        failed.map_or(Ok(()), Err)
    }

    async fn submit(&mut self, group: Vec<Bytes>) -> Result<(), Error> {
        for payload in group {
            let bytes = payload.len();
            while self.under_way.len() == WINDOW_ENTRIES
                || self.bytes_under_way > 0 && self.bytes_under_way + bytes > WINDOW_BYTES
            {
                self.settle().await?;
            }
            self.bytes_under_way += bytes;
            self.under_way.push_back((self.log.append(payload), bytes));
        }
        Ok(())
    }

    /// Waits for input, and meanwhile for what is under way: a failure shows at once and not only
    /// when the next line is typed.
    async fn next_group(
        &mut self,
        groups: &mut Groups,
    ) -> Result<Option<Result<Vec<Bytes>, Error>>, Error> {
        while let Some((oldest, _)) = self.under_way.front_mut() {
            let position = tokio::select! {
                biased;
                group = groups.recv() => return Ok(group),
                position = oldest => position?,
            };
            self.note(position);
        }
        Ok(groups.recv().await)
    }

    /// Waits for the oldest append.
    async fn settle(&mut self) -> Result<(), Error> {
        if let Some((oldest, _)) = self.under_way.front_mut() {
            let position = oldest.await?;
            self.note(position);
        }
        Ok(())
    }

    fn note(&mut self, position: LogPos) {
        let bytes = self.under_way.pop_front().map_or(0, |(_, bytes)| bytes);
        let first = self.appended.map_or(position, |appended| appended.first);
        let count = self.appended.map_or(0, |appended| appended.count) + 1;
        self.appended = Some(Appended { first, last: position, count });
        self.bytes_under_way -= bytes;
        self.bytes += bytes as u64;
        if count.is_multiple_of(1024) {
            // The bar counts the input, where a delimiter stands after each entry.
            self.progress.at(self.bytes + count);
        }
    }
}

/// Reads on a thread of its own, because standard input may keep one waiting for ever.
fn send_groups(mut input: Cutter, groups: &mpsc::Sender<Result<Vec<Bytes>, Error>>) {
    // Sending fails only when an append has failed: then nobody wants the rest.
    loop {
        match input.next_group() {
            Ok(group) if group.is_empty() => return,
            Ok(group) => {
                if groups.blocking_send(Ok(group)).is_err() {
                    return;
                }
            }
            Err((group, error)) => {
                let _ = groups.blocking_send(Ok(group));
                let _ = groups.blocking_send(Err(error));
                return;
            }
        }
    }
}

/// Tell what became of an append whose outcome was in doubt
#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(crate) struct ResolveArgs {
    #[command(flatten)]
    log: LogArg,
    /// The token that the error gave
    token: String,
}

#[derive(Debug, Serialize)]
struct ResolveReport {
    in_log: bool,
    position: Option<u64>,
}

impl Report for ResolveReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        match self.position {
            Some(position) => writeln!(out, "in the log at position {position}"),
            None => writeln!(out, "surely not in the log: it may be appended again"),
        }
    }
}

pub(crate) async fn resolve(cx: &Context, args: ResolveArgs) -> Result<(), Stop> {
    let token: Token = args.token.parse()?;
    let log = cx.reader(&args.log.url).open().await?;
    let position = log.resolve(&token).await?.map(|position| position.0);
    cx.out.report(&ResolveReport { in_log: position.is_some(), position })
}
