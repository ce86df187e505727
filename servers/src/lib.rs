//! The command line `virtuallog` and the server `virtuallogd` as a library.
//!
//! [`run`] is the whole command line: it reads the arguments, does one command, and gives the exit
//! status. It adds nothing to the log's rules: a command opens a log, calls one operation of the crate
//! `virtuallog`, and prints what came back. [`run_daemon`] is the whole server in the same way: settings
//! in, a `virtuallog::server::Server` run to its end. Whoever writes a loglet of their own gets every
//! command for it by passing its provider:
//!
//! ```no_run
//! # fn provider() -> std::sync::Arc<dyn virtuallog::loglet::LogletProvider> { unimplemented!() }
//! fn main() -> std::process::ExitCode {
//!     virtuallog_server::run(vec![provider()])
//! }
//! ```
//!
//! Reading order: `cli` (the commands and how one is run), `output` (what people and programs see),
//! `commands`, one file a group; then `daemon` (settings, start and end of a server), and [`grpc`], the
//! log for those who have no library of ours.

mod cli;
mod commands;
mod daemon;
pub mod grpc;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod hostile;
mod output;
mod progress;
mod signals;

pub use cli::{run, run_from};
pub use daemon::run_daemon;
