//! The command line of virtuallog as a library.
//!
//! [`run`] is the whole program: it reads the arguments, does one command, and gives the exit status.
//! It adds nothing to the log's rules: a command opens a log, calls one operation of the crate
//! `virtuallog`, and prints what came back. Whoever writes a loglet of their own gets every command
//! for it by passing its provider:
//!
//! ```no_run
//! # fn provider() -> std::sync::Arc<dyn virtuallog::loglet::LogletProvider> { unimplemented!() }
//! fn main() -> std::process::ExitCode {
//!     virtuallog_server::run(vec![provider()])
//! }
//! ```
//!
//! Reading order: `cli` (the commands and how one is run), `output` (what people and programs see),
//! then `commands`, one file a group.

mod cli;
mod commands;
mod output;
mod progress;

pub use cli::{run, run_from};
