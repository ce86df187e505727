//! The commands by name, and how one of them is run: arguments in, exit status out.
//!
//! The exit status is 0 when the command did what was asked, 1 when it failed, 2 when the call was
//! wrong, 3 when an append may or may not be in the log, 130 after Ctrl-C. A reader of our output
//! that goes away (`| head`) is no failure.

use std::ffi::OsString;
use std::future::Future;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use virtuallog::loglet::LogletProvider;
use virtuallog::store::Builder;
use virtuallog::{Error, Result, VirtualLog};

use crate::commands::{append, bench, chain, dev, logs, nodes, read, relocate, status, verify};
use crate::output::{Format, Output, Stop};

/// The program's name.
const NAME: &str = "virtuallog";

/// Append to, read and look after virtual logs.
///
/// A URL names a log: `file:DIR/NAME`, `virtuallog://HOST:PORT/NAME` or `memory:NAME`. With a `/` at its
/// end and no name it names the store that holds the logs.
#[derive(Debug, Parser)]
#[command(name = "virtuallog", version, propagate_version = true, max_term_width = 100)]
struct CommandLine {
    #[command(flatten)]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Append(append::AppendArgs),
    Read(read::ReadArgs),
    Tail(read::TailArgs),
    Logs(logs::LogsArgs),
    Create(logs::CreateArgs),
    Delete(logs::DeleteArgs),
    Chain(chain::ChainArgs),
    CheckTail(chain::CheckTailArgs),
    Reconfigure(chain::ReconfigureArgs),
    Trim(chain::TrimArgs),
    Seal(chain::SealArgs),
    Resolve(append::ResolveArgs),
    Verify(verify::VerifyArgs),
    Bench(bench::BenchArgs),
    Move(relocate::MoveArgs),
    Status(status::StatusArgs),
    Dev(dev::DevArgs),
    Init(nodes::InitArgs),
    Nodes(nodes::NodesArgs),
}

impl Command {
    async fn run(self, cx: &Context) -> Result<(), Stop> {
        match self {
            Command::Append(args) => append::append(cx, args).await,
            Command::Read(args) => read::read(cx, args).await,
            Command::Tail(args) => read::tail(cx, args).await,
            Command::Logs(args) => logs::logs(cx, args).await,
            Command::Create(args) => logs::create(cx, args).await,
            Command::Delete(args) => logs::delete(cx, args).await,
            Command::Chain(args) => chain::chain(cx, args).await,
            Command::CheckTail(args) => chain::check_tail(cx, args).await,
            Command::Reconfigure(args) => chain::reconfigure(cx, args).await,
            Command::Trim(args) => chain::trim(cx, args).await,
            Command::Seal(args) => chain::seal(cx, args).await,
            Command::Resolve(args) => append::resolve(cx, args).await,
            Command::Verify(args) => verify::verify(cx, args).await,
            Command::Bench(args) => bench::bench(cx, args).await,
            Command::Move(args) => relocate::relocate(cx, args).await,
            Command::Status(args) => status::status(cx, args).await,
            Command::Dev(args) => dev::dev(cx, args).await,
            Command::Init(args) => nodes::init(cx, args).await,
            Command::Nodes(args) => nodes::nodes(cx, args).await,
        }
    }
}

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    /// Kinds of loglet beyond those that the core brings along.
    providers: Vec<Arc<dyn LogletProvider>>,
    /// Where results go.
    pub(crate) out: Output,
}

impl Context {
    /// For commands that write: the store must be free.
    pub(crate) fn writer(&self, url: &str) -> Builder {
        self.providers
            .iter()
            .fold(VirtualLog::builder(url), |builder, kind| builder.provider(kind.clone()))
    }

    /// For commands that only look: beside an owner in another process, and never creating.
    pub(crate) fn reader(&self, url: &str) -> Builder {
        self.writer(url).read_only().create(false)
    }
}

/// Does what the process's arguments say, with these kinds of loglet beside the core's own.
#[must_use]
pub fn run(providers: Vec<Arc<dyn LogletProvider>>) -> ExitCode {
    run_from(std::env::args_os(), providers)
}

/// As [`run`], with the arguments given; the first is the program's name.
#[must_use]
pub fn run_from(
    args: impl IntoIterator<Item = OsString>,
    providers: Vec<Arc<dyn LogletProvider>>,
) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let line = match CommandLine::try_parse_from(&args) {
        Ok(line) => line,
        Err(error) => return refuse(NAME, &args, &error),
    };
    let cx = Context { providers, out: Output::new(NAME, line.format) };
    listen_to_core();
    drive(&cx.out, line.command.run(&cx))
}

/// Runs a program on a runtime of its own, tells why it stopped, and gives the exit status.
pub(crate) fn drive(out: &Output, program: impl Future<Output = Result<(), Stop>>) -> ExitCode {
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::from(Error::invalid("cannot start the runtime").with_source(error)))
        .and_then(|runtime| {
            let outcome = runtime.block_on(program);
            // A read of standard input that was given up may never return.
            runtime.shutdown_background();
            outcome
        });
    outcome.map_or_else(|stop| out.stop(stop), |()| ExitCode::SUCCESS)
}

/// Answers arguments that name nothing to do: help and version are no failure.
pub(crate) fn refuse(program: &'static str, args: &[OsString], error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that is gone does not want the help either.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let asked = |flag: &str| args.iter().any(|arg| arg == flag);
    let format = Format { json: asked("--json"), text: asked("--text") };
    let out = Output::new(program, format);
    if out.errors_are_json() {
        let text = error.render().to_string();
        let text = text.trim().strip_prefix("error: ").unwrap_or(text.trim()).to_owned();
        return out.stop(Error::invalid(text).into());
    }
    let _ = error.print();
    ExitCode::from(2)
}

/// `VIRTUALLOG_LOG` (`error`, `warn`, `info`, `debug`, `trace`): what the core tells, on standard
/// error. Off by default.
fn listen_to_core() {
    let wanted = std::env::var("VIRTUALLOG_LOG").ok();
    let level = wanted.and_then(|level| level.parse::<tracing::level_filters::LevelFilter>().ok());
    if let Some(level) = level {
        // Refused only when a host program has set its own before calling `run`: then that one holds.
        let _ = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .try_init();
    }
}
