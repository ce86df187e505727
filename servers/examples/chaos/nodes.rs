//! The nodes of the cluster as processes: started, killed, paused, deprived of power, started again.
//!
//! Every node is the daemon as it is shipped. It listens on an address of its own, advertises its
//! proxy's, and dies with this process whatever becomes of that. A node that ends without being told to
//! is a finding.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use virtuallog::server;

use crate::proxy::Network;
use crate::volume::Volume;

/// Nodes find each other dead after so long a silence, and ask so often.
pub(crate) const SUSPECT_AFTER: Duration = Duration::from_millis(700);
const HEARTBEAT: Duration = Duration::from_millis(100);
/// How long a node may take until it says that it is up.
const START_MAX: Duration = Duration::from_secs(30);
/// How long it may take to end in order.
const END_MAX: Duration = Duration::from_secs(60);

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) index: usize,
    listen: SocketAddr,
    advertise: SocketAddr,
    daemon: PathBuf,
    said: PathBuf,
    network: Arc<Network>,
    // The process ends before what it is on goes away: fields are dropped in this order.
    child: Mutex<Option<Child>>,
    pub(crate) volume: Volume,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) network: Arc<Network>,
}

impl Nodes {
    /// Starts nodes in `folder` and makes a cluster of them.
    pub(crate) async fn start(
        folder: &Path,
        count: usize,
        daemon: &Path,
        ext4: bool,
    ) -> Result<Nodes, String> {
        let network = Network::new(count);
        let mut nodes = Vec::new();
        for index in 0..count {
            let listen = free_address()?;
            let advertise = network.proxy(index, listen).await;
            nodes.push(Arc::new(Node {
                index,
                volume: Volume::new(folder, &format!("node-{}", index + 1), ext4)?,
                listen,
                advertise: advertise.map_err(|e| format!("a proxy cannot listen: {e}"))?,
                daemon: daemon.to_owned(),
                said: folder.join(format!("node-{}.log", index + 1)),
                child: Mutex::default(),
                network: network.clone(),
            }));
        }
        for node in &nodes {
            node.start().await?;
        }
        let nodes = Nodes { nodes, network };
        let made = server::init(&nodes.addresses()).await;
        made.map_err(|e| format!("no cluster was made: {e}"))?;
        Ok(nodes)
    }

    fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.advertise.to_string()).collect()
    }

    pub(crate) fn url(&self, log: &str) -> String {
        format!("virtuallog://{}/{log}", self.addresses().join(","))
    }

    /// Ends all nodes in order.
    pub(crate) async fn end(&self) -> Result<(), String> {
        let ends = self.nodes.iter().map(|node| node.end());
        futures_util::future::join_all(ends).await.into_iter().collect()
    }
}

impl Node {
    /// The node's number in the cluster.
    pub(crate) fn name(&self) -> String {
        format!("node {}", self.index + 1)
    }

    /// Starts it and waits until it says that it is up. Gives the time that took.
    pub(crate) async fn start(&self) -> Result<Duration, String> {
        let begun = Instant::now();
        let mut place = self.child.lock().await;
        let said = OpenOptions::new().create(true).append(true).open(&self.said);
        let said = said.map_err(|e| format!("cannot write {}: {e}", self.said.display()))?;
        let mut command = Command::new(&self.daemon);
        command
            .arg("--data")
            .arg(self.volume.data())
            .args(["--listen", &self.listen.to_string()])
            .args(["--advertise", &self.advertise.to_string()])
            .args(["--heartbeat", &format!("{}ms", HEARTBEAT.as_millis())])
            .args(["--suspect-after", &format!("{}ms", SUSPECT_AFTER.as_millis())])
            .args(["--log", "info", &format!("--parent={}", std::process::id())])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(said)
            .kill_on_drop(true);
        let shown = self.daemon.display();
        let mut child = command.spawn().map_err(|e| format!("cannot start {shown}: {e}"))?;
        self.network.runs(self.index, child.id());
        let output = child.stdout.take().expect("it was piped");
        *place = Some(child);
        let mut lines = BufReader::new(output).lines();
        let line = tokio::time::timeout(START_MAX, lines.next_line()).await;
        match line {
            Ok(Ok(Some(_))) => {
                // It says more later, and would miss somebody who listens.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                Ok(begun.elapsed())
            }
            Ok(_) => {
                Err(format!("{} ended at its start: see {}", self.name(), self.said.display()))
            }
            Err(_) => Err(format!(
                "{} was not up after {} s: see {}",
                self.name(),
                START_MAX.as_secs(),
                self.said.display()
            )),
        }
    }

    /// Its process; `None` while it is down.
    pub(crate) async fn pid(&self) -> Option<u32> {
        self.child.lock().await.as_ref().and_then(Child::id)
    }

    /// Sends it a signal.
    pub(crate) async fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = self.pid().await.and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| format!("{} does not run", self.name()))?;
        kill_process(pid, signal).map_err(|e| format!("{} takes no signal: {e}", self.name()))
    }

    /// SIGKILL, and the end. A finding if it had ended by itself before.
    pub(crate) async fn kill(&self) -> Result<(), String> {
        let mut place = self.child.lock().await;
        let Some(mut child) = place.take() else { return Ok(()) };
        let before = child.try_wait().map_err(|e| format!("{}: {e}", self.name()))?;
        self.network.runs(self.index, None);
        if let Some(status) = before {
            return Err(self.ended(status));
        }
        child.kill().await.map_err(|e| format!("{} cannot be killed: {e}", self.name()))
    }

    /// SIGTERM, and the end in order.
    async fn end(&self) -> Result<(), String> {
        self.signal(Signal::TERM).await?;
        let mut place = self.child.lock().await;
        let Some(mut child) = place.take() else { return Ok(()) };
        match tokio::time::timeout(END_MAX, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.ended(status)),
            Ok(Err(e)) => Err(format!("{}: {e}", self.name())),
            Err(_) => Err(format!("{} did not end within {} s", self.name(), END_MAX.as_secs())),
        }
    }

    fn ended(&self, status: std::process::ExitStatus) -> String {
        format!("{} ended by itself: {status}: see {}", self.name(), self.said.display())
    }

    /// Memory that it has, in kilobytes; 0 while it is down.
    pub(crate) async fn resident_kb(&self) -> u64 {
        let Some(pid) = self.pid().await else { return 0 };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    }
}

/// An address where nothing listens. Not 127.0.0.1, where outgoing connections take their ports: while
/// the node is down nobody takes this one.
fn free_address() -> Result<SocketAddr, String> {
    let bound = std::net::TcpListener::bind("127.0.0.2:0").and_then(|found| found.local_addr());
    bound.map_err(|e| format!("no free port: {e}"))
}
