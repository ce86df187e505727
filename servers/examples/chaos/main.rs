//! Chaos on real processes: `chaos [--seconds 60] [--seed N] [--kinds kill,cut,…]`, or `make chaos`.
//!
//! Runs a cluster of daemons and clients in several languages, harms processes, disks and the network
//! under them, lets them recover, reads everything back, and judges all that anybody saw. Prints what
//! happened, and at the end one JSON object of counts. Exit status 1: something was found, and the folder
//! with all histories, logs and disks is kept.
//!
//! The seed draws what happens; when processes meet it is up to the machine, so that a seed runs
//! differently each time: what repeats exactly is the simulator.
//!
//! Read in this order: `nemesis.rs` (what goes wrong), `judge.rs` (the verdict), `nodes.rs`, `proxy.rs`,
//! `volume.rs` (what it goes wrong with), `CLIENTS.md` and `client.rs` (what a client is).

mod client;
mod judge;
mod nemesis;
mod nodes;
mod proxy;
mod report;
mod volume;

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use tokio::process::{Child, Command};
use virtuallog::{Segment, VirtualLog, server};

use crate::client::{ClientArgs, now};
use crate::judge::{Disks, Story, read_back};
use crate::nemesis::{Account, Kind, Nemesis};
use crate::nodes::Nodes;
use crate::report::Report;
use crate::volume::Volume;

/// How long a client waits for an answer.
const TIMEOUT: &str = "4s";
/// How long the cluster may take until it serves again, once all is well.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// How long it is watched then.
const CALM: Duration = Duration::from_secs(8);
/// Appends of each client that are acknowledged, at the least.
const CLIENT_ACKED_MIN: u64 = 100;
/// How long a client may take to end.
const CLIENT_END_MAX: Duration = Duration::from_secs(60);

#[derive(Parser)]
#[command(
    about = "Kills, pauses, cuts off and powers off real nodes under load, and judges what is left"
)]
struct Args {
    #[command(subcommand)]
    program: Option<Program>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(clap::Subcommand)]
enum Program {
    /// Runs one client, as CLIENTS.md has it
    Client(ClientArgs),
}

/// What a run keeps to.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// How long things go wrong
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// Draws what goes wrong
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// What may go wrong; left out: everything
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Fails too when a kind of fault came to pass too rarely
    #[arg(long)]
    floors: bool,
    /// Nodes
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: usize,
    /// Logs; each has one client of each kind
    #[arg(long, default_value_t = 2)]
    pub(crate) logs: usize,
    /// A program that is a client too, beside the one in Rust; may be repeated
    #[arg(long, value_name = "COMMAND")]
    client: Vec<String>,
    /// Rounds of appends that each client begins in a second, at most
    #[arg(long, default_value_t = 30)]
    rounds: u64,
    /// The daemon; left out: the one that was built beside this program
    #[arg(long)]
    daemon: Option<PathBuf>,
    /// Where data, logs and histories go; left out: a folder that is removed when nothing was found
    #[arg(long)]
    dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.program {
        Some(Program::Client(client)) => client::run(client).await.map_err(|e| format!("{e:?}")),
        None => run(args.run).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("chaos: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A client that runs.
struct Running {
    log: usize,
    history: PathBuf,
    child: Child,
}

async fn run(mut args: RunArgs) -> Result<(), String> {
    if args.kinds.is_empty() {
        args.kinds = Kind::value_variants().to_vec();
    }
    let of_disks = |kind: &Kind| matches!(kind, Kind::Power | Kind::PowerAll | Kind::Full);
    let ext4 = args.kinds.iter().any(of_disks) && Volume::can_lose_power();
    if !ext4 && args.kinds.iter().any(of_disks) {
        println!("SKIPPED: power losses and full disks need root, loop devices and mkfs.ext4");
        args.kinds.retain(|kind| !of_disks(kind));
    }
    let folder = tempfile::Builder::new().prefix("virtuallog-chaos-").tempdir();
    let folder = folder.map_err(|e| format!("no temporary folder: {e}"))?;
    let dir = args.dir.clone().unwrap_or_else(|| folder.path().to_owned());
    let report = in_folder(&args, &dir, ext4).await?;
    report.print(&args);
    if report.findings.is_empty() {
        return Ok(());
    }
    let kept = folder.keep();
    let shown = if args.dir.is_some() { dir } else { kept };
    Err(format!("{} findings; all of it is in {}", report.findings.len(), shown.display()))
}

async fn in_folder(args: &RunArgs, dir: &Path, ext4: bool) -> Result<Report, String> {
    let here = std::env::current_exe().map_err(|e| format!("where is this program: {e}"))?;
    let beside = || here.ancestors().nth(2).map(|built| built.join("virtuallogd"));
    let daemon = args.daemon.clone().or_else(beside).unwrap_or_default();
    let nodes = Nodes::start(dir, args.nodes, &daemon, ext4).await?;
    let mut logs = Vec::new();
    for log in 0..args.logs {
        let url = nodes.url(&format!("log-{log}"));
        let open = || async { VirtualLog::open(&url).await.map_err(|e| format!("{url}: {e:?}")) };
        let handles = [open().await?, open().await?];
        logs.push((url, handles));
    }
    let clients = start_clients(args, dir, &here, &logs)?;
    let begun = Instant::now();
    let until = begun + Duration::from_secs(args.seconds);
    let account = Mutex::new(Account::default());
    let nemesis = Nemesis { nodes, logs, kinds: args.kinds.clone(), begun, until, account };
    let mut stories: Vec<Story> = nemesis.logs.iter().map(|_| Story::default()).collect();
    let mut report = Report::default();
    report.from = now();
    let mut resident = resident(&nemesis).await;
    nemesis.run(args.seed).await;
    if args.floors {
        nemesis.floors(args.seconds);
    }
    nemesis.tells("everything is well again");
    report.healed = now();
    let healed = Instant::now();
    for (log, story) in stories.iter_mut().enumerate() {
        let served = tokio::time::timeout(RECOVERY_MAX, serves(&nemesis, log, story)).await;
        if served.is_err() {
            nemesis.finds(format!(
                "log {log} does not serve {} s after all is well",
                RECOVERY_MAX.as_secs()
            ));
        }
    }
    report.recovered_ms = healed.elapsed().as_millis() as u64;
    nemesis.tells(&format!("all logs serve after {} ms", report.recovered_ms));
    report.calm = now();
    tokio::time::sleep(CALM).await;
    report.to = now();
    resident = resident.max(self::resident(&nemesis).await);
    report.resident_mb = resident / 1024;
    for client in clients {
        end_client(client, &nemesis, &mut stories).await;
    }
    judge(nemesis, &mut stories, &mut report).await;
    report.stories = stories;
    Ok(report)
}

/// Starts one client of each kind for each log, the first of which follows it too.
fn start_clients(
    args: &RunArgs,
    dir: &Path,
    here: &Path,
    logs: &[(String, [VirtualLog; 2])],
) -> Result<Vec<Running>, String> {
    let own = format!("{} client", here.display());
    let programs: Vec<&String> = [&own].into_iter().chain(&args.client).collect();
    let mut clients = Vec::new();
    for (log, (url, _)) in logs.iter().enumerate() {
        for (at, program) in programs.iter().enumerate() {
            // The driver itself is number 0.
            let number = (1 + log * programs.len() + at).to_string();
            let history = dir.join(format!("history-{number}.jsonl"));
            let file = std::fs::File::create(&history);
            let file = file.map_err(|e| format!("cannot write {}: {e}", history.display()))?;
            let mut words = program.split_whitespace();
            let mut command = Command::new(words.next().unwrap_or_default());
            let url = format!("{url}?timeout={TIMEOUT}");
            let follow = if at == log % programs.len() { "follow" } else { "-" };
            let rounds = args.rounds.to_string();
            command.args(words).args([&url, &number, &rounds, follow]);
            command.stdin(Stdio::piped()).stdout(file).kill_on_drop(true);
            let child = command.spawn().map_err(|e| format!("cannot start {program}: {e}"))?;
            clients.push(Running { log, history, child });
        }
    }
    Ok(clients)
}

/// Lets a client end and takes what it said.
async fn end_client(mut client: Running, nemesis: &Nemesis, stories: &mut [Story]) {
    drop(client.child.stdin.take());
    match tokio::time::timeout(CLIENT_END_MAX, client.child.wait()).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(status) => nemesis.finds(format!("a client ended with {status:?}")),
        Err(_) => nemesis.finds(format!("a client did not end: {}", client.history.display())),
    }
    match stories[client.log].hear(&client.history) {
        Ok(acked) if acked < CLIENT_ACKED_MIN => {
            let history = client.history.display();
            nemesis
                .finds(format!("floor: {acked} appends of a client were acknowledged: {history}"));
        }
        Ok(_) => {}
        Err(why) => nemesis.finds(why),
    }
}

/// Appends values of the driver's own until one is acknowledged.
async fn serves(nemesis: &Nemesis, log: usize, story: &mut Story) {
    let handle = &nemesis.logs[log].1[0];
    for value in log as u64 * 1_000_000.. {
        let from = now();
        let outcome = handle.append(client::payload(value)).await;
        story.appended(from, now(), value, &outcome);
        if outcome.is_ok() {
            return;
        }
    }
}

async fn resident(nemesis: &Nemesis) -> u64 {
    let nodes = nemesis.nodes.nodes.iter().map(|node| node.resident_kb());
    futures_util::future::join_all(nodes).await.into_iter().max().unwrap_or(0)
}

/// Reads everything back, from the logs and then from the disks, and judges it.
async fn judge(nemesis: Nemesis, stories: &mut [Story], report: &mut Report) {
    let mut lasts = Vec::new();
    for (log, (url, [handle, _])) in nemesis.logs.iter().enumerate() {
        match last(url, handle).await {
            Ok(last) => lasts.push((log, last)),
            Err(why) => nemesis.finds(format!("log {log}: {why}")),
        }
    }
    let Nemesis { nodes, logs, account, .. } = nemesis;
    for handle in logs.into_iter().flat_map(|(_, handles)| handles) {
        // What it could not finish was said where it began.
        let _ = handle.close().await;
    }
    let mut account = account.into_inner().expect("nobody panics under it");
    if let Err(why) = nodes.end().await {
        account.findings.push(why);
    }
    let dirs: Vec<_> = nodes.nodes.iter().map(|node| node.volume.data()).collect();
    let disks = Disks::open(&dirs);
    for (log, invoked, returned, kept) in &account.trims {
        stories[*log].trimmed(*invoked, *returned, *kept);
    }
    for (log, Last { id, segments, entries }) in &lasts {
        let story = &mut stories[*log];
        story.judge(entries);
        let compared = match &disks {
            Ok(disks) => disks.compare(*id, segments, entries, &mut story.findings),
            Err(why) => Err(why.clone()),
        };
        match compared {
            Ok(copies) => report.copies += copies,
            Err(why) => story.findings.push(why),
        }
    }
    report.segments = lasts.iter().map(|(_, last)| last.segments.len()).sum();
    report.settle(account, stories);
}

/// What a log is at the end.
struct Last {
    id: virtuallog::protocol::LogId,
    segments: Vec<(Segment, Vec<u32>)>,
    entries: virtuallog::testing::history::Final,
}

async fn last(url: &str, log: &VirtualLog) -> Result<Last, String> {
    let told = |e: virtuallog::Error| format!("{e:?}");
    let entries = read_back(log).await?;
    log.verify(|_| ()).await.map_err(|e| format!("it does not verify: {e:?}"))?;
    let id = log.chain().await.map_err(told)?.log;
    let rows = server::status(url).await.map_err(told)?;
    let row = |(segment, status): (Segment, Option<server::LogletStatus>)| {
        let members = status.map_or(Vec::new(), |s| s.members.iter().map(|m| m.node).collect());
        (segment, members)
    };
    Ok(Last { id, segments: rows.into_iter().map(row).collect(), entries })
}
