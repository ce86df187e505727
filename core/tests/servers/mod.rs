//! Servers of a cluster for tests, in this process, each on a port and a directory of its own.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use virtuallog::server::{self, Server, ServerConfig};
use virtuallog::{LogPos, VirtualLog};

/// Far more than anything here takes; only a hang meets it.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// Servers on a runtime of their own, so that clients reach them over sockets and not inside the
/// process.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Option<Server>>,
    pub(crate) dirs: Vec<TempDir>,
    /// Where each listens, once that is settled.
    pub(crate) addresses: Vec<String>,
    pub(crate) runtime: Option<tokio::runtime::Runtime>,
    /// Of servers that are started from now on.
    pub(crate) rebuild_after: Duration,
    /// What else each of them is told, by its index.
    pub(crate) edit: fn(usize, &mut ServerConfig),
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.servers.clear();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn config(dir: PathBuf) -> ServerConfig {
    ServerConfig {
        data: dir,
        listen: "127.0.0.1:0".into(),
        heartbeat: Duration::from_millis(50),
        suspect_after: Duration::from_millis(1000),
        ..ServerConfig::default()
    }
}

impl Cluster {
    pub(crate) async fn start(count: usize) -> Cluster {
        Cluster::start_with(count, |_, _| {}).await
    }

    pub(crate) async fn start_with(count: usize, edit: fn(usize, &mut ServerConfig)) -> Cluster {
        let dirs: Vec<_> = (0..count).map(|_| tempfile::tempdir().expect("a directory")).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = Some(runtime.expect("a runtime"));
        let servers = (0..count).map(|_| None).collect();
        let rebuild_after = ServerConfig::default().rebuild_after;
        let addresses = Vec::new();
        let mut cluster = Cluster { servers, dirs, addresses, runtime, rebuild_after, edit };
        for at in 0..count {
            cluster.launch(at).await;
        }
        let servers = cluster.servers.iter().flatten();
        let addresses: Vec<String> = servers.map(Server::address).collect();
        server::init(&addresses).await.expect("a cluster");
        cluster.addresses = addresses;
        for at in 0..count {
            cluster.ready(at).await;
        }
        cluster
    }

    pub(crate) async fn launch(&mut self, at: usize) {
        let mut config = config(self.dirs[at].path().join("data"));
        config.rebuild_after = self.rebuild_after;
        (self.edit)(at, &mut config);
        if let Some(address) = self.addresses.get(at) {
            config.listen.clone_from(address);
        }
        let runtime = self.runtime.as_ref().expect("it runs");
        let started = runtime.spawn(Server::start(config)).await.expect("no panic");
        self.servers[at] = Some(started.expect("a server"));
    }

    pub(crate) async fn ready(&self, at: usize) {
        let server = self.servers[at].as_ref().expect("it runs");
        let ready = tokio::time::timeout(HANG, server.ready()).await;
        ready.expect("in time").expect("it votes");
    }

    /// Starts one more server, which joins the others.
    pub(crate) async fn join(&mut self) {
        let dir = tempfile::tempdir().expect("a directory");
        let mut config = config(dir.path().join("data"));
        config.rebuild_after = self.rebuild_after;
        config.join = self.servers.iter().flatten().map(Server::address).collect();
        (self.edit)(self.servers.len(), &mut config);
        let runtime = self.runtime.as_ref().expect("it runs");
        let joined = runtime.spawn(Server::start(config)).await.expect("no panic");
        let joined = joined.expect("a server");
        self.addresses.push(joined.address());
        self.servers.push(Some(joined));
        self.dirs.push(dir);
        self.ready(self.servers.len() - 1).await;
    }

    /// Stops a server as it stands: nothing is moved elsewhere first.
    pub(crate) async fn stop(&mut self, at: usize) {
        let server = self.servers[at].take().expect("it runs");
        let runtime = self.runtime.as_ref().expect("it runs");
        runtime.spawn(server.close()).await.expect("no panic").expect("closed");
    }

    pub(crate) async fn restart(&mut self, at: usize) {
        self.launch(at).await;
        self.ready(at).await;
    }

    pub(crate) fn url(&self, name: &str) -> String {
        let hosts: Vec<_> = self.servers.iter().flatten().map(Server::address).collect();
        format!("virtuallog://{}/{name}", hosts.join(","))
    }

    pub(crate) async fn open(&self, name: &str) -> VirtualLog {
        VirtualLog::open(&self.url(name)).await.expect("a log")
    }

    /// The index of the server that sequences the log's open segment.
    pub(crate) async fn sequencer(&self, name: &str) -> usize {
        let status = server::status(&self.url(name)).await.expect("a status");
        let (_, active) = status.last().expect("a segment");
        active.as_ref().expect("native").sequencer as usize - 1
    }
}

/// Appends numbers from `from` on, one after the other, and checks where they come.
pub(crate) async fn append_numbers(log: &VirtualLog, numbers: std::ops::Range<u64>) {
    for at in numbers {
        let appended = tokio::time::timeout(HANG, log.append(format!("{at}"))).await;
        assert_eq!(appended.expect("in time").expect("an append"), LogPos(at));
    }
}

/// The log holds the numbers, each once and in order.
pub(crate) async fn assert_numbers(log: &VirtualLog, count: u64) {
    let all = tokio::time::timeout(HANG, read_all(log)).await.expect("in time");
    let expected: Vec<_> = (0..count).map(|at| format!("{at}").into_bytes()).collect();
    assert_eq!(all, expected);
}

pub(crate) async fn read_all(log: &VirtualLog) -> Vec<Vec<u8>> {
    let mut reader = log.read(LogPos(0), None).await.expect("a reader");
    let mut all = Vec::new();
    while let Some(entry) = reader.next().await.expect("an entry") {
        all.push(entry.payload.to_vec());
    }
    all
}
