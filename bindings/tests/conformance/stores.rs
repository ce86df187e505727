//! The stores that scenarios are run over, and a cluster whose nodes a scenario may stop.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use tempfile::TempDir;
use virtuallog_bindings::{Server, ServerConfig, Timeout, init, nodes};

/// A machine that is busy is no failure.
const WAIT: Timeout = Timeout::Never;

/// A store by its URL, which ends in `/`.
pub(crate) struct Store {
    pub(crate) url: String,
    /// What comes before a log's name.
    pub(crate) logs: String,
    pub(crate) loglet: &'static str,
}

impl Store {
    pub(crate) fn new(url: String) -> Self {
        let (logs, loglet) = match url.split_once(':').expect("a scheme").0 {
            "memory" => ("memory:".into(), "memory"),
            "file" => (url.clone(), "local"),
            _ => (url.clone(), "native"),
        };
        Self { url, logs, loglet }
    }
}

/// Servers on loopback, in this process.
pub(crate) struct Cluster {
    directory: TempDir,
    addresses: Vec<String>,
    /// By number, from 1 on; `None`: stopped.
    servers: Vec<Option<Server>>,
    /// What a scenario calls nodes, from when it first did.
    named: HashMap<String, u32>,
}

impl Cluster {
    pub(crate) fn start(nodes: u32) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let config = |node: u32| ServerConfig {
            data: directory.path().join(node.to_string()),
            listen: "127.0.0.1:0".into(),
            ..ServerConfig::default()
        };
        let starting: Vec<_> = (1..=nodes).map(|node| Server::start(config(node), WAIT)).collect();
        let servers: Vec<_> =
            starting.into_iter().map(|op| op.wait().expect("it starts")).collect();
        let addresses: Vec<_> = servers.iter().map(|server| server.address().to_owned()).collect();
        init(addresses.clone(), WAIT).wait().expect("a cluster");
        for server in &servers {
            server.ready(WAIT).wait().expect("it votes");
        }
        let servers = servers.into_iter().map(Some).collect();
        Self { directory, addresses, servers, named: HashMap::new() }
    }

    pub(crate) fn url(&self) -> String {
        format!("virtuallog://{}/", self.addresses.join(","))
    }

    /// The number of a node, by it or by what the node is to the only log.
    pub(crate) fn number(&mut self, node: &toml::Value) -> u32 {
        let Some(name) = node.as_str() else {
            let number = node.as_integer().expect("a number or a name");
            return u32::try_from(number).expect("a small number");
        };
        if self.named.is_empty() {
            let nodes = nodes(&self.url(), WAIT).wait().expect("they are listed").nodes;
            let (sequencers, followers): (Vec<_>, Vec<_>) =
                nodes.iter().partition(|node| node.sequences > 0);
            assert_eq!(sequencers.len(), 1, "one log, one sequencer");
            self.named.insert("sequencer".into(), sequencers[0].node);
            for (index, node) in followers.iter().enumerate() {
                self.named.insert(format!("follower-{}", index + 1), node.node);
            }
        }
        self.named[name]
    }

    pub(crate) fn stop_nodes(&mut self, nodes: &[u32]) {
        for node in nodes {
            let server = self.servers[*node as usize - 1].take().expect("it runs");
            server.close(WAIT).wait().expect("it closes");
        }
    }

    pub(crate) fn start_nodes(&mut self, nodes: &[u32]) {
        for node in nodes {
            let index = *node as usize - 1;
            assert!(self.servers[index].is_none(), "it was stopped");
            let config = ServerConfig {
                data: self.directory.path().join(node.to_string()),
                listen: self.addresses[index].clone(),
                ..ServerConfig::default()
            };
            self.servers[index] = Some(Server::start(config, WAIT).wait().expect("it starts"));
        }
        for server in self.servers.iter().flatten() {
            server.ready(WAIT).wait().expect("it votes");
        }
    }

    pub(crate) fn close(self) {
        for server in self.servers.into_iter().flatten() {
            server.close(WAIT).wait().expect("it closes");
        }
    }
}

/// Listens on loopback until the process ends, and answers whatever connects with these bytes alone.
pub(crate) fn impostor(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it listens");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            // Once the other side has gone: what it sent and nobody read would take the answer away.
            let _ = stream.write_all(&answer).and_then(|()| stream.read_to_end(&mut Vec::new()));
        }
    });
    address
}
