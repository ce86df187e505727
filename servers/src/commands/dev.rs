//! `dev`: a whole cluster on this machine, each node a process of its own.
//!
//! The nodes are real `virtuallogd`s on loopback, started beside this program and ended with it, however
//! it ends. Each is a process group of its own, so that Ctrl-C reaches this program alone, which then
//! ends them in order. A node that dies is reported and stays dead: to see what the others do about it
//! is what such a cluster is for.

use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use futures_util::future::{join_all, select_all, try_join_all};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use virtuallog::url::PORT_DEFAULT;
use virtuallog::{Error, ErrorCode, Result, server};

use crate::cli::Context;
use crate::daemon::{NAME as DAEMON, PARENT, settings};
use crate::output::{Report, Stop, counted, table};
use crate::signals::Signals;

/// A port that is free.
const ANY_ADDRESS: &str = "127.0.0.1:0";
/// How many nodes when nothing else is said: the fewest of which one may die.
const NODES_DEFAULT: u16 = 3;
/// Most nodes.
const NODES_MAX: i64 = 64;
/// What a node is given to move its logs elsewhere. Little, because the others end at the same time.
const DRAIN_TIMEOUT: &str = "1s";
/// After which a node that was told to end is killed.
const STOP_MAX: Duration = Duration::from_secs(8);
/// The file in DIR that keeps the addresses, because nodes find each other again by these.
const ADDRESSES: &str = "addresses.json";

/// Run a whole cluster on this machine until Ctrl-C
#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// How many nodes [default: 3, or as many as DIR has]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=NODES_MAX))]
    nodes: Option<u16>,
    /// Where the cluster is kept and found again; left out: it is gone at the end
    #[arg(long)]
    dir: Option<PathBuf>,
    /// What the nodes log on standard error
    #[arg(long, value_name = "FILTER", env = "VIRTUALLOG_LOG", default_value = "error")]
    log: String,
}

/// A node that runs.
#[derive(Debug)]
struct Node {
    address: String,
    dir: PathBuf,
    pid: u32,
    /// Whether it knew when it started which cluster it belongs to.
    belongs: bool,
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

/// What is needed of a node's ready line.
#[derive(Debug, Deserialize)]
struct ReadyLine {
    address: String,
    cluster: Option<String>,
}

#[derive(Debug, Serialize)]
struct DevReport<'a> {
    url: &'a str,
    nodes: Vec<NodeRow<'a>>,
    #[serde(skip)]
    kept: bool,
}

#[derive(Debug, Serialize)]
struct NodeRow<'a> {
    address: &'a str,
    pid: u32,
    dir: &'a Path,
}

impl<'a> From<&'a Node> for NodeRow<'a> {
    fn from(node: &'a Node) -> Self {
        NodeRow { address: &node.address, pid: node.pid, dir: &node.dir }
    }
}

impl Report for DevReport<'_> {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { url, nodes, kept } = self;
        let count = counted(nodes.len() as u64, "node", "nodes");
        writeln!(out, "a cluster of {count} is up: {url}")?;
        let heading = ["address", "pid", "directory"].map(String::from).to_vec();
        let rows = nodes.iter().map(|NodeRow { address, pid, dir }| {
            vec![(*address).to_owned(), pid.to_string(), dir.display().to_string()]
        });
        table(out, &std::iter::once(heading).chain(rows).collect::<Vec<_>>())?;
        writeln!(out, "try in another terminal:")?;
        writeln!(out, "  echo hello | virtuallog append {url}first")?;
        writeln!(out, "  virtuallog tail --follow {url}first")?;
        match kept {
            true => writeln!(out, "Ctrl-C ends it; the same command brings it back"),
            false => writeln!(out, "Ctrl-C ends it for good; with --dir DIR it is kept"),
        }
    }
}

/// A node ended before it was told to.
#[derive(Debug, Serialize)]
struct NodeEnded<'a> {
    event: &'static str,
    #[serde(flatten)]
    node: NodeRow<'a>,
    how: String,
}

impl Report for NodeEnded<'_> {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let NodeRow { address, pid, .. } = self.node;
        writeln!(out, "the node {address} (pid {pid}) ended: {}; it is not started again", self.how)
    }
}

pub(crate) async fn dev(cx: &Context, args: DevArgs) -> Result<(), Stop> {
    let mut signals = Signals::new()?;
    let (dir, temporary) = match args.dir {
        Some(dir) => (dir, None),
        None => {
            let temporary = tempfile::Builder::new().prefix("virtuallog-dev-").tempdir();
            let temporary = temporary.map_err(|error| {
                disk_error("cannot make a temporary directory: give one with --dir", error)
            })?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let kept = temporary.is_none();
    // What is started by then is killed when this is dropped.
    let (mut nodes, url) = tokio::select! {
        up = bring_up(&dir, args.nodes, &args.log) => up?,
        () = signals.recv() => return Ok(()),
    };
    let rows = nodes.iter().map(NodeRow::from).collect();
    let reported = cx.out.report(&DevReport { url: &url, nodes: rows, kept });
    let ended = match reported {
        Ok(()) => watch(cx, &mut nodes, &mut signals).await,
        Err(stop) => Err(stop),
    };
    stop(nodes, &mut signals).await;
    if let Some(Err(error)) = temporary.map(TempDir::close) {
        let message = format!("`{}` is left over: remove it by hand", dir.display());
        return Err(disk_error(&message, error).into());
    }
    ended
}

/// Starts all nodes, makes a cluster of them unless they are one, and gives its URL.
async fn bring_up(dir: &Path, wanted: Option<u16>, log: &str) -> Result<(Vec<Node>, String)> {
    let known = known_addresses(dir)?;
    if let (Some(known), Some(wanted)) = (&known, wanted)
        && known.len() != usize::from(wanted)
    {
        return Err(Error::invalid(format!(
            "`{}` holds a cluster of {}: leave out --nodes, or give another --dir",
            dir.display(),
            counted(known.len() as u64, "node", "nodes"),
        )));
    }
    let starts = match &known {
        Some(known) => known.iter().map(|address| (address.clone(), false)).collect(),
        None => usual_addresses(wanted.unwrap_or(NODES_DEFAULT)),
    };
    let starts = starts.iter().enumerate().map(|(index, (address, may_change))| {
        let dir = dir.join(format!("node-{}", index + 1));
        start(dir, address, *may_change, log)
    });
    let mut nodes = try_join_all(starts).await?;
    let addresses: Vec<String> = nodes.iter().map(|node| node.address.clone()).collect();
    if known.is_none() {
        keep_addresses(dir, &addresses)?;
    }
    let url = format!("virtuallog://{}/", addresses.join(","));
    if !nodes.iter().all(|node| node.belongs) {
        server::init(&addresses).await?;
    }
    // Each says so again when it was made part of the cluster.
    for node in nodes.iter_mut().filter(|node| !node.belongs) {
        ready_line(&mut node.said, &node.address).await?;
    }
    Ok((nodes, url))
}

fn known_addresses(dir: &Path) -> Result<Option<Vec<String>>> {
    let path = dir.join(ADDRESSES);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk_error(&format!("cannot read `{}`", path.display()), error)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| {
        let message = format!("`{}` is damaged: write the addresses into it again", path.display());
        Error::new(ErrorCode::Corrupt, message).with_source(error)
    })
}

/// In one step, so that an interruption leaves all or nothing.
fn keep_addresses(dir: &Path, addresses: &[String]) -> Result<()> {
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        serde_json::to_writer(&mut file, addresses)?;
        file.as_file().sync_all()?;
        file.persist(dir.join(ADDRESSES)).map(drop).map_err(io::Error::from)
    };
    write().map_err(|error| {
        disk_error(&format!("cannot write `{}`", dir.join(ADDRESSES).display()), error)
    })
}

/// The usual ports and those that follow, where they are free, and free ones in the place of others.
fn usual_addresses(count: u16) -> Vec<(String, bool)> {
    let usual = (0..count).map(|index| format!("127.0.0.1:{}", PORT_DEFAULT + index));
    let free = usual.map(|address| match TcpListener::bind(&address) {
        Ok(_) => address,
        Err(_) => ANY_ADDRESS.into(),
    });
    free.map(|address| (address, true)).collect()
}

/// Starts a node and waits until it says that it is up. Somebody may have been faster to take its
/// address: where it `may_change`, it gets another one then.
async fn start(dir: PathBuf, address: &str, may_change: bool, log: &str) -> Result<Node> {
    match start_at(&dir, address, log).await {
        Err(error) if may_change && error.code() == ErrorCode::Unavailable => {
            start_at(&dir, ANY_ADDRESS, log).await
        }
        started => started,
    }
}

async fn start_at(dir: &Path, address: &str, log: &str) -> Result<Node> {
    let daemon = std::env::current_exe()
        .map(|path| path.with_file_name(DAEMON))
        .map_err(|error| disk_error("cannot tell where this program is", error))?;
    let mut command = Command::new(&daemon);
    command.arg("--data").arg(dir).args(["--listen", address, "--log", log]);
    command.args(["--drain-timeout", DRAIN_TIMEOUT, &format!("--{PARENT}={}", std::process::id())]);
    for variable in settings::variables() {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
    std::fs::create_dir_all(dir).map_err(|error| {
        disk_error(&format!("cannot make `{}`: give another --dir", dir.display()), error)
    })?;
    let mut child = command.spawn().map_err(|error| {
        let shown = daemon.display();
        disk_error(&format!("cannot start `{shown}`: install it beside this program"), error)
    })?;
    // A child that was not waited for has a number.
    let pid = child.id().unwrap_or_default();
    let mut said = BufReader::new(child.stdout.take().expect("it was piped")).lines();
    let ReadyLine { address, cluster } = ready_line(&mut said, address).await?;
    Ok(Node { address, dir: dir.to_owned(), pid, belongs: cluster.is_some(), child, said })
}

async fn ready_line(said: &mut Lines<BufReader<ChildStdout>>, address: &str) -> Result<ReadyLine> {
    let line = said.next_line().await.ok().flatten();
    line.and_then(|line| serde_json::from_str(&line).ok()).ok_or_else(|| {
        let message = format!("the node {address} did not start: see what it said");
        Error::new(ErrorCode::Unavailable, message)
    })
}

/// Until a signal comes; an error when no node is left.
async fn watch(cx: &Context, nodes: &mut Vec<Node>, signals: &mut Signals) -> Result<(), Stop> {
    while !nodes.is_empty() {
        let ended = select_all(nodes.iter_mut().map(|node| Box::pin(node.child.wait())));
        let (status, index) = tokio::select! {
            (status, index, _) = ended => (status, index),
            () = signals.recv() => return Ok(()),
        };
        let node = nodes.remove(index);
        let how = match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        cx.out.notice(&NodeEnded { event: "node_ended", node: NodeRow::from(&node), how });
    }
    Err(Error::new(ErrorCode::Unavailable, "no node is left: start it again").into())
}

/// Ends the nodes: in order, and by force after a while or another signal.
async fn stop(mut nodes: Vec<Node>, signals: &mut Signals) {
    for node in &nodes {
        let pid = node.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            // It fails when the node ended by itself meanwhile.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
    let ended = join_all(nodes.iter_mut().map(|node| node.child.wait()));
    tokio::select! {
        _ = timeout(STOP_MAX, ended) => {}
        () = signals.recv() => {}
    }
    // Fails only for those that are gone.
    join_all(nodes.iter_mut().map(|node| node.child.kill())).await;
}

fn disk_error(message: &str, error: io::Error) -> Error {
    Error::new(ErrorCode::Unavailable, message).with_source(error)
}
