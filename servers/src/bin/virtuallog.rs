//! The command line `virtuallog` with the kinds of loglet that the core brings along.
//!
//! Everything is in the library of this package, so that a program with kinds of its own gets the
//! same command line from a `main` like this one.

use std::process::ExitCode;

fn main() -> ExitCode {
    virtuallog_server::run(Vec::new())
}
