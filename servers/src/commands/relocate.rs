//! `move`: a whole log to another store, while it is used.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;
use virtuallog::{MovePhase, MoveProgress, move_log};

use super::chain::ChainReport;
use crate::cli::Context;
use crate::output::{Report, Stop, counted};
use crate::progress::Progress;

/// Move a log to another store while it is used; open handles follow
///
/// When it was interrupted, the same again completes it.
#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// The log
    #[arg(value_name = "SRC")]
    source: String,
    /// Where it is to be: another store, and its name there
    #[arg(value_name = "DST")]
    destination: String,
    /// Leave what was sealed where it is: the source has to stay to read it
    #[arg(long)]
    leave_sealed: bool,
}

#[derive(Debug, Serialize)]
struct MoveReport<'a> {
    moved: &'a str,
    to: &'a str,
    /// With what frames the entries.
    bytes_copied: u64,
    segments_copied: usize,
    chain: ChainReport,
}

impl Report for MoveReport<'_> {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let segments = counted(self.segments_copied as u64, "segment", "segments");
        let bytes = counted(self.bytes_copied, "byte", "bytes");
        writeln!(out, "moved {} to {}: copied {segments}, {bytes}", self.moved, self.to)?;
        self.chain.human(out)
    }
}

pub(crate) async fn relocate(cx: &Context, args: MoveArgs) -> Result<(), Stop> {
    let MoveArgs { source, destination, leave_sealed } = &args;
    let bar = Progress::copying();
    let mut copied = (0, 0);
    let chain = move_log(source, destination, *leave_sealed, |now: MoveProgress| {
        copied = (now.segments_done, now.bytes_done);
        bar.say(match now.phase {
            MovePhase::Engine => "going over to the new store".to_owned(),
            MovePhase::Chain => "handing the chain over".to_owned(),
            MovePhase::Copy => {
                format!("copying, {} of {} segments", now.segments_done, now.segments_total)
            }
            _ => String::new(),
        });
        bar.at(now.bytes_done);
    })
    .await?;
    drop(bar);
    let name = destination.rsplit('/').next().unwrap_or(destination);
    cx.out.report(&MoveReport {
        moved: source,
        to: destination,
        bytes_copied: copied.1,
        segments_copied: copied.0,
        chain: ChainReport::new(name, &chain),
    })
}
