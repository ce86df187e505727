//! A whole cluster on this machine, for the tests of applications.
//!
//! Its nodes are `virtuallogd` processes as in production, on loopback and free ports, so that a node can
//! be killed like one. They end with the process that started them, however that ends.
//!
//! A node is started on one of our runtime's worker threads, which never end: the system takes the end of
//! the thread that started a child for the end of its parent. Nodes are killed and never ended in order,
//! because it is what happens to servers that a test is about.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;
use virtuallog::{ErrorCode, server};

use crate::error::{Error, Result};
use crate::log::Timeout;
use crate::op::Op;
use crate::per_process::PerProcess;
use crate::programs::find_program;

const DAEMON: &str = "virtuallogd";
/// Most nodes of a cluster on one machine.
const NODES_MAX: u32 = 64;
/// How long nodes may take to start, unless it is said otherwise: tests run where everything is busy.
const START_MAX: Duration = Duration::from_secs(60);
const ANY_ADDRESS: &str = "127.0.0.1:0";

/// A running cluster. Methods may be called from any thread. Dropping it kills its nodes.
pub struct LocalCluster {
    core: PerProcess<Arc<Cluster>>,
    url: String,
}

/// A node of a [`LocalCluster`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    /// Its number, from 1 on.
    pub node: u32,
    /// `HOST:PORT`, the same whenever it runs.
    pub address: String,
    /// Its directory.
    pub directory: PathBuf,
    /// The number of its process; `None` while it is stopped.
    pub pid: Option<u32>,
}

struct Cluster {
    program: PathBuf,
    directory: PathBuf,
    addresses: Vec<String>,
    /// By number. Those that are missing were stopped.
    nodes: Mutex<BTreeMap<u32, Node>>,
    /// Removed after the nodes.
    temporary: Mutex<Option<TempDir>>,
}

struct Node {
    process: Child,
    /// What it says; with whoever waits for the next line meanwhile.
    said: Option<BufReader<ChildStdout>>,
}

/// What a node says when it is up.
#[derive(Deserialize)]
struct ReadyLine {
    address: String,
    cluster: Option<String>,
}

impl LocalCluster {
    /// Starts so many nodes (1 to 64) in `directory`, or in a temporary one that is removed again, with the
    /// program `virtuallogd` that [`find_program`] finds in the folders `packaged`, and makes a cluster of
    /// them. Up when it answers.
    pub fn start(
        nodes: u32,
        directory: Option<PathBuf>,
        packaged: Vec<PathBuf>,
        timeout: Timeout,
    ) -> Op<LocalCluster> {
        Op::spawn(limited(timeout, async move {
            if !(1..=NODES_MAX).contains(&nodes) {
                let range = format!("ask for 1 to {NODES_MAX}");
                return Err(Error::invalid(format!("a cluster of {nodes} nodes: {range}")));
            }
            let program = find_program(DAEMON, &packaged)?;
            let (directory, temporary) = match directory {
                Some(directory) => {
                    let made = std::path::absolute(directory)
                        .and_then(|path| std::fs::create_dir_all(&path).map(|()| path));
                    (made.map_err(|error| system("cannot make the directory", &error))?, None)
                }
                None => {
                    let made = TempDir::with_prefix("virtuallog-");
                    let made = made.map_err(|error| system("cannot make a directory", &error))?;
                    (made.path().to_owned(), Some(made))
                }
            };
            let addresses = vec![ANY_ADDRESS.to_owned(); nodes as usize];
            let (nodes, temporary) = (Mutex::default(), Mutex::new(temporary));
            let mut cluster = Cluster { program, directory, addresses, nodes, temporary };
            let numbers: Vec<u32> = (1..).take(cluster.addresses.len()).collect();
            let said = cluster.run(&numbers).await?;
            cluster.addresses = said.iter().map(|line| line.address.clone()).collect();
            if said.iter().any(|line| line.cluster.is_none()) {
                server::init(&cluster.addresses).await?;
                // Each says so again when it is part of the cluster and its vote counts.
                cluster.hear(&numbers).await?;
            }
            let url = format!("virtuallog://{}/", cluster.addresses.join(","));
            Ok(LocalCluster { core: PerProcess::new(Arc::new(cluster)), url })
        }))
    }

    /// The store, by the addresses of all nodes: add a log's name to open one.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All nodes, by number, those that were stopped too.
    ///
    /// # Errors
    /// `CLOSED` in a child of `fork`.
    pub fn nodes(&self) -> Result<Vec<LocalNode>> {
        let cluster = self.core.get()?;
        let running = lock(&cluster.nodes);
        let node = |(node, address): (u32, &String)| LocalNode {
            node,
            address: address.clone(),
            directory: cluster.data(node),
            pid: running.get(&node).map(|node| node.process.id()),
        };
        Ok((1..).zip(&cluster.addresses).map(node).collect())
    }

    /// Kills nodes, all of which run; they are gone when it answers. `INVALID`, and none is killed, when
    /// one of them does not run.
    pub fn stop_nodes(&self, nodes: Vec<u32>) -> Op<()> {
        let cluster = match self.core.get() {
            Ok(cluster) => cluster.clone(),
            Err(error) => return Op::failed(error),
        };
        blocking(move || {
            let mut running = lock(&cluster.nodes);
            if let Some(node) = nodes.iter().find(|node| !running.contains_key(node)) {
                let there: Vec<_> = running.keys().collect();
                let message = format!("node {node} does not run: there are {there:?}");
                return Err(Error::invalid(message));
            }
            for node in &nodes {
                drop(running.remove(node));
            }
            Ok(())
        })
    }

    /// Starts nodes that were stopped, on their directories and addresses. They are up when it answers.
    pub fn start_nodes(&self, nodes: Vec<u32>, timeout: Timeout) -> Op<()> {
        let cluster = match self.core.get() {
            Ok(cluster) => cluster.clone(),
            Err(error) => return Op::failed(error),
        };
        Op::spawn(limited(timeout, async move {
            for node in &nodes {
                let known = (1..=cluster.addresses.len()).contains(&(*node as usize));
                if !known || lock(&cluster.nodes).contains_key(node) {
                    return Err(Error::invalid(format!("node {node} was not stopped")));
                }
            }
            cluster.run(&nodes).await.map(drop)
        }))
    }

    /// Kills all nodes, and removes what was temporary; dropping does it too. Idempotent.
    pub fn close(&self) -> Op<()> {
        // In a child of `fork` they are the parent's.
        let Ok(cluster) = self.core.get().cloned() else { return Op::ready(Ok(())) };
        blocking(move || {
            lock(&cluster.nodes).clear();
            drop(lock(&cluster.temporary).take());
            Ok(())
        })
    }
}

impl fmt::Debug for LocalCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCluster").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts these nodes, all at once since most of it is waiting for disks, and hears what they say.
    async fn run(&self, nodes: &[u32]) -> Result<Vec<ReadyLine>> {
        for node in nodes {
            let started = self.start(*node)?;
            lock(&self.nodes).insert(*node, started);
        }
        self.hear(nodes).await
    }

    fn start(&self, node: u32) -> Result<Node> {
        let mut command = Command::new(&self.program);
        command
            .arg("--data")
            .arg(self.data(node))
            .args(["--listen", &self.addresses[node as usize - 1]]);
        command.args(["--log", "error", &format!("--parent={}", std::process::id())]);
        // The flags say all; what the environment says is for other servers.
        let ours =
            |(name, _): &(OsString, OsString)| name.to_string_lossy().starts_with("VIRTUALLOG_");
        for (name, _) in std::env::vars_os().filter(ours) {
            command.env_remove(name);
        }
        let errors = File::create(self.errors(node));
        let errors = errors.map_err(|error| system("cannot write into the directory", &error))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
        let mut process = command.spawn().map_err(|error| {
            system(&format!("cannot start `{}`", self.program.display()), &error)
        })?;
        let said = process.stdout.take().map(BufReader::new);
        Ok(Node { process, said })
    }

    /// The next line of each of these nodes. A node that ended says why in its file of errors.
    async fn hear(&self, nodes: &[u32]) -> Result<Vec<ReadyLine>> {
        let mut lines = Vec::with_capacity(nodes.len());
        for node in nodes {
            let said = lock(&self.nodes).get_mut(node).and_then(|node| node.said.take());
            let mut said = said.ok_or_else(|| Error::closed("cluster"))?;
            // A read that nobody waits for any more ends with the node.
            let heard = tokio::task::spawn_blocking(move || {
                let mut line = String::new();
                let _ = said.read_line(&mut line);
                (said, line)
            });
            let (said, line) = heard.await.map_err(|_| Error::closed("cluster"))?;
            if let Some(node) = lock(&self.nodes).get_mut(node) {
                node.said = Some(said);
            }
            lines.push(serde_json::from_str(&line).map_err(|_| self.did_not_start(*node))?);
        }
        Ok(lines)
    }

    fn did_not_start(&self, node: u32) -> Error {
        let why = std::fs::read_to_string(self.errors(node)).unwrap_or_default();
        let message = format!("node {node} of the cluster did not start: {}", why.trim());
        Error::new(ErrorCode::Unavailable, message)
    }

    fn data(&self, node: u32) -> PathBuf {
        self.directory.join(format!("node-{node}"))
    }

    fn errors(&self, node: u32) -> PathBuf {
        self.directory.join(format!("node-{node}.err"))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Both fail only for a node that ended by itself and was waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What waits for the system to end processes, on a thread that may.
fn blocking(work: impl FnOnce() -> Result<()> + Send + 'static) -> Op<()> {
    Op::spawn(async {
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(Error::closed("cluster")))
    })
}

async fn limited<T>(timeout: Timeout, call: impl Future<Output = Result<T>>) -> Result<T> {
    let timeout = match timeout {
        Timeout::Never => return call.await,
        Timeout::Default => START_MAX,
        Timeout::After(timeout) => timeout,
    };
    tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| Err(Error::deadline("start")))
}

fn system(what: &str, error: &std::io::Error) -> Error {
    Error::new(ErrorCode::Unavailable, format!("{what}: {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
