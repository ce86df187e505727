//! `verify`: every checksum, both ends of every segment.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use super::LogArg;
use crate::cli::Context;
use crate::output::{Report, Stop, counted};
use crate::progress::Progress;

/// Read the whole log and check every checksum and both ends of every segment
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    log: LogArg,
}

#[derive(Debug, Serialize)]
struct VerifyReport {
    segments: u64,
    entries: u64,
    bytes: u64,
    problems: Vec<String>,
}

impl Report for VerifyReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let segments = counted(self.segments, "segment", "segments");
        let entries = counted(self.entries, "entry", "entries");
        let bytes = counted(self.bytes, "byte", "bytes");
        writeln!(out, "{segments}, {entries}, {bytes} of payload")?;
        for problem in &self.problems {
            writeln!(out, "wrong: {problem}")?;
        }
        if self.problems.is_empty() {
            return writeln!(out, "all is well");
        }
        let problems = counted(self.problems.len() as u64, "problem", "problems");
        writeln!(out, "{problems}: restore the store from a copy before going on")
    }
}

pub(crate) async fn verify(cx: &Context, args: VerifyArgs) -> Result<(), Stop> {
    let log = cx.reader(&args.log.url).open().await?;
    let about = log.check_tail().await?.position.0 - log.first().await?.0;
    let progress = Progress::entries(about);
    let found = log.verify(|entries| progress.at(entries)).await?;
    drop(progress);
    let sound = found.problems.is_empty();
    cx.out.report(&VerifyReport {
        segments: found.segments,
        entries: found.entries,
        bytes: found.bytes,
        problems: found.problems,
    })?;
    if sound { Ok(()) } else { Err(Stop::BadNews) }
}
