//! The other processes of a measurement, and a cluster of them.
//!
//! Each is this program with other arguments. It says lines on its standard output, the first one
//! being where it listens, and ends when its standard input does: so none outlives the one that
//! measures, however that ends.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use virtuallog::VirtualLog;
use virtuallog::server::{self, Server, ServerConfig};

use crate::load::{ENTRY, Folder, runtime};

/// Another process of this program; killed when this is dropped.
pub(crate) struct Process {
    child: std::process::Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(args: &[&str]) -> Process {
        let exe = std::env::current_exe().expect("this program has a path");
        let (stdin, stdout) = (Stdio::piped(), Stdio::piped());
        let mut command = Command::new(exe);
        let mut child =
            command.args(args).stdin(stdin).stdout(stdout).spawn().expect("it runs again");
        let lines = BufReader::new(child.stdout.take().expect("it is a pipe"));
        Process { child, lines }
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        assert!(line.ends_with('\n'), "process {} ended: `{line}`", self.child.id());
        line.trim_end().to_owned()
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", signal, &pid]).status().expect("kill runs");
        assert!(status.success(), "the process is there");
    }

    /// Resident memory in MB.
    pub(crate) fn resident_mb(&self) -> f64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("it runs, on Linux");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line for it");
        let kb = line.split_whitespace().nth(1).expect("a number");
        kb.parse::<f64>().expect("a number") / 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Ends this process when the one that started it goes away.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
}

/// What a node keeps to; everything else is as users have it.
fn config(dir: &Path, listen: &str) -> ServerConfig {
    ServerConfig { data: dir.to_owned(), listen: listen.into(), ..ServerConfig::default() }
}

/// The process of one node: says its address, then `ready`.
pub(crate) fn node(dir: &str, listen: &str) -> ExitCode {
    end_with_parent();
    runtime().block_on(async {
        let server = Server::start(config(Path::new(dir), listen)).await.expect("a server");
        println!("{}", server.address());
        server.ready().await.expect("it votes");
        println!("ready");
        let error = server.failed().await;
        eprintln!("node {:?}: {error}", server.node());
    });
    ExitCode::FAILURE
}

/// The process that sends back whatever it gets.
pub(crate) fn echo() -> ExitCode {
    end_with_parent();
    runtime().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        println!("{}", listener.local_addr().expect("it is bound"));
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("it is TCP");
        let mut frame = ENTRY;
        while stream.read_exact(&mut frame).await.is_ok() {
            stream.write_all(&frame).await.expect("it is read");
        }
    });
    ExitCode::SUCCESS
}

/// Nanoseconds since 1970: the one clock that processes can compare.
pub(crate) fn now_nanos() -> i128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("it is later than that").as_nanos() as i128
}

/// The process of a subscriber: says `ready`, then when it saw each entry.
pub(crate) fn subscriber(url: &str) -> ExitCode {
    end_with_parent();
    runtime().block_on(async {
        let log = VirtualLog::open(url).await.expect("a log");
        let mut entries = log.subscribe(virtuallog::Start::Tail).await.expect("a subscription");
        println!("ready");
        while entries.next().await.expect("an entry").is_some() {
            println!("{}", now_nanos());
        }
    });
    ExitCode::SUCCESS
}

/// Nodes on this machine.
pub(crate) struct Cluster {
    /// By number, beginning with node 1. `None`: it is down, or runs in this process.
    pub(crate) nodes: Vec<Option<Process>>,
    addresses: Vec<String>,
    /// The node of this process, if it runs one: the last one.
    here: Option<Server>,
    folder: Folder,
}

impl Cluster {
    /// A new cluster; `here`: its last node runs in this process. Needs a runtime.
    pub(crate) async fn start(name: &str, count: usize, here: bool) -> Cluster {
        let mut cluster = Cluster {
            nodes: Vec::new(),
            addresses: Vec::new(),
            here: None,
            folder: Folder::new(name),
        };
        for at in 0..count - usize::from(here) {
            let (node, address) = cluster.start_node(at, "127.0.0.1:0");
            cluster.nodes.push(Some(node));
            cluster.addresses.push(address);
        }
        if here {
            let dir = cluster.folder.path().join(count.to_string());
            let server = Server::start(config(&dir, "127.0.0.1:0")).await.expect("a server");
            cluster.addresses.push(server.address());
            cluster.here = Some(server);
        }
        server::init(&cluster.addresses).await.expect("a cluster");
        cluster.nodes.iter_mut().flatten().for_each(|node| assert_eq!(node.line(), "ready"));
        if let Some(server) = &cluster.here {
            server.ready().await.expect("it votes");
        }
        cluster
    }

    fn start_node(&self, at: usize, listen: &str) -> (Process, String) {
        let dir = self.folder.path().join((at + 1).to_string());
        let dir = dir.to_str().expect("a name of ours");
        let mut node = Process::start(&["--node", dir, listen]);
        let address = node.line();
        (node, address)
    }

    /// Starts a node again that is down, where it was, and waits until it votes.
    pub(crate) fn restart(&mut self, at: usize) {
        let (mut node, _) = self.start_node(at, &self.addresses[at]);
        assert_eq!(node.line(), "ready");
        self.nodes[at] = Some(node);
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("virtuallog://{}/{name}", self.addresses.join(","))
    }

    /// Which node sequences a log, counted from 0.
    pub(crate) async fn sequencer(&self, name: &str) -> usize {
        let status = server::status(&self.url(name)).await.expect("a status");
        let (_, active) = status.last().expect("a segment");
        active.as_ref().expect("it is native").sequencer as usize - 1
    }

    /// Waits until all nodes know that all are alive.
    pub(crate) async fn settle(&self) {
        loop {
            let seen = server::nodes(&self.url("")).await.expect("the list of nodes");
            if seen.nodes.iter().all(|node| node.alive) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
