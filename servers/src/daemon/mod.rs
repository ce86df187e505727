//! `virtuallogd`: one node of a cluster as a process.
//!
//! It turns settings into a `virtuallog::server::Server`, says when that is up, and ends it in order
//! when it is told to. What a server does is the core's; what its settings are is in `settings`; how it
//! lives and ends is in `serve`.

mod connection;
mod serve;
pub(crate) mod settings;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Arg, Args, Command, FromArgMatches, value_parser};
use serde::Serialize;
use virtuallog::loglet::LogletProvider;

use self::settings::{AllInForce, InForce};
use crate::cli::{drive, refuse};
use crate::output::{Format, Output, Report, table};

/// The program's name.
pub(crate) const NAME: &str = "virtuallogd";
/// What `virtuallog dev` tells its nodes beside their settings: the process to die with.
pub(crate) const PARENT: &str = "parent";

/// Does what the process's arguments say: the whole server `virtuallogd`, with these kinds of loglet
/// beside the core's own for those who reach logs through it.
#[must_use]
pub fn run_daemon(providers: Vec<Arc<dyn LogletProvider>>) -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let matches = match command().try_get_matches_from(&args) {
        Ok(matches) => matches,
        Err(error) => return refuse(NAME, &args, &error),
    };
    let (config, matches) = match matches.subcommand() {
        Some((_, matches)) => (true, matches),
        None => (false, &matches),
    };
    let format = Format::from_arg_matches(matches).unwrap_or_default();
    let out = Output::new(NAME, format);
    let outcome = settings::resolve(matches);
    let (settings, in_force) = match outcome {
        Ok(resolved) => resolved,
        Err(error) => return out.stop(error.into()),
    };
    if config {
        let printed = out.report(&InForceReport(in_force));
        return printed.map_or_else(|stop| out.stop(stop), |()| ExitCode::SUCCESS);
    }
    if let Some(parent) = matches.get_one::<i32>(PARENT)
        && !die_with(*parent)
    {
        return ExitCode::FAILURE;
    }
    drive(&out, serve::serve(&out, settings, providers))
}

fn command() -> Command {
    let config = Command::new("config")
        .about("Print the settings in force and where each came from, and start nothing");
    let parent =
        Arg::new(PARENT).long(PARENT).value_name("PID").value_parser(value_parser!(i32)).hide(true);
    let command = Format::augment_args(Command::new(NAME))
        .version(env!("CARGO_PKG_VERSION"))
        .propagate_version(true)
        .max_term_width(100)
        .about("A node of a virtuallog cluster: keeps logs, orders them, and keeps their chains")
        .after_help(
            "Each setting comes from its flag, its variable, the file of --config or its default, in \
             that order.\nSIGTERM moves its logs' sequencers to other nodes and ends it; a second one \
             ends it at once.",
        )
        .subcommand(config)
        .arg(parent);
    settings::flags(command)
}

/// Has this process killed when the one that started it goes away, however it does. False when that has
/// happened already.
fn die_with(parent: i32) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, getppid, set_parent_process_death_signal};
        let set = set_parent_process_death_signal(Some(Signal::KILL));
        set.is_ok() && getppid().is_some_and(|now| now.as_raw_nonzero().get() == parent)
    }
    // Elsewhere there is no such thing: `virtuallog dev` ends its nodes unless it is killed itself.
    #[cfg(not(target_os = "linux"))]
    {
        parent > 0
    }
}

/// What `virtuallogd config` prints.
#[derive(Debug, Serialize)]
#[serde(transparent)]
struct InForceReport(AllInForce);

impl Report for InForceReport {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let heading = ["setting", "value", "from"].map(String::from).to_vec();
        let rows = self.0.iter().map(|(name, InForce { value, origin })| {
            let value = value.as_deref().unwrap_or("-");
            vec![(*name).to_owned(), value.to_owned(), origin.to_string()]
        });
        table(out, &std::iter::once(heading).chain(rows).collect::<Vec<_>>())
    }
}
