//! `logs`, `create`, `delete`: which logs a store holds.

use std::io::{self, Write};

use clap::Args;
use serde::Serialize;

use super::{LogArg, StoreArg};
use crate::cli::Context;
use crate::output::{Report, Stop};

/// List the logs of a store
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    store: StoreArg,
}

/// Create a log; fails when there is one of that name
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    log: LogArg,
    /// What its first segment is kept in, for example `local`, `native:3`
    #[arg(long)]
    loglet: Option<String>,
}

/// Delete a log and all its entries
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    log: LogArg,
}

#[derive(Debug, Serialize)]
struct LogReport {
    name: String,
}

impl Report for LogReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.name)
    }
}

#[derive(Debug, Serialize)]
struct DoneReport<'a> {
    done: &'static str,
    url: &'a str,
}

impl Report for DoneReport<'_> {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} {}", self.done, self.url)
    }
}

pub(crate) async fn logs(cx: &Context, args: LogsArgs) -> Result<(), Stop> {
    let names = virtuallog::logs(&args.store.url).await?;
    let rows: Vec<LogReport> = names.into_iter().map(|name| LogReport { name }).collect();
    cx.out.reports(&rows)
}

pub(crate) async fn create(cx: &Context, args: CreateArgs) -> Result<(), Stop> {
    let new = cx.writer(&args.log.url);
    let new = if let Some(loglet) = &args.loglet { new.loglet(loglet) } else { new };
    new.create_new().await?;
    cx.out.report(&DoneReport { done: "created", url: &args.log.url })
}

pub(crate) async fn delete(cx: &Context, args: DeleteArgs) -> Result<(), Stop> {
    cx.writer(&args.log.url).delete().await?;
    cx.out.report(&DoneReport { done: "deleted", url: &args.log.url })
}
