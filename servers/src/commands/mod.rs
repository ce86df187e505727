//! One file a group of commands. Each opens a log, calls the core, and reports.

pub(crate) mod append;
pub(crate) mod bench;
pub(crate) mod chain;
pub(crate) mod cut;
pub(crate) mod dev;
pub(crate) mod logs;
pub(crate) mod nodes;
pub(crate) mod read;
pub(crate) mod relocate;
pub(crate) mod status;
pub(crate) mod verify;

use clap::Args;

/// The log that a command is about.
#[derive(Debug, Args)]
pub(crate) struct LogArg {
    /// The log: `file:DIR/NAME`, `virtuallog://HOST:PORT/NAME`, `memory:NAME`
    #[arg(value_name = "URL", env = "VIRTUALLOG_URL", hide_env_values = true)]
    pub(crate) url: String,
}

/// The store that a command is about.
#[derive(Debug, Args)]
pub(crate) struct StoreArg {
    /// The store, with a `/` at its end: `file:DIR/`, `virtuallog://HOST:PORT/`
    #[arg(value_name = "URL", env = "VIRTUALLOG_URL", hide_env_values = true)]
    pub(crate) url: String,
}
