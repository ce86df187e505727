//! A server in this process, the functions on clusters, and a log on its way to another store.

use napi::{Either, Result};
use napi_derive::napi;
use virtuallog_bindings as facade;
use virtuallog_bindings::{Op, Roles, ServerConfig};

use crate::convert::timeout;
use crate::queue::{Answers, Queue, submit};
use crate::value::{Failure, Value, identity};

/// A running server.
#[napi]
pub struct Server {
    server: facade::Server,
    answers: Answers,
}

impl Server {
    pub(crate) fn new(server: facade::Server, answers: Answers) -> Self {
        Self { server, answers }
    }
}

#[napi]
impl Server {
    #[napi(getter)]
    pub fn address(&self) -> &str {
        self.server.address()
    }

    #[napi(getter)]
    pub fn url(&self) -> &str {
        self.server.url()
    }

    #[napi(catch_unwind)]
    pub fn node(&self) -> Either<Option<u32>, Failure> {
        match self.server.node() {
            Ok(node) => Either::A(node),
            Err(error) => Either::B(error.into()),
        }
    }

    #[napi(catch_unwind)]
    pub fn cluster(&self) -> Either<Option<String>, Failure> {
        match self.server.cluster() {
            Ok(cluster) => Either::A(cluster.map(identity)),
            Err(error) => Either::B(error.into()),
        }
    }

    #[napi(catch_unwind)]
    pub fn ready(&self, timeout_ms: f64) -> Result<f64> {
        submit(&self.answers, self.server.ready(timeout(timeout_ms)), |()| Value::None)
    }

    #[napi(catch_unwind)]
    pub fn drain(&self, timeout_ms: f64) -> Result<f64> {
        submit(&self.answers, self.server.drain(timeout(timeout_ms)), |()| Value::None)
    }

    #[napi(catch_unwind)]
    pub fn close(&self, timeout_ms: f64) -> Result<f64> {
        submit(&self.answers, self.server.close(timeout(timeout_ms)), |()| Value::None)
    }
}

/// A cluster for tests.
#[napi]
pub struct LocalCluster {
    cluster: facade::LocalCluster,
    answers: Answers,
}

/// A node of it.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct LocalNode {
    pub node: u32,
    pub address: String,
    pub dir: String,
    pub pid: Option<u32>,
}

impl LocalCluster {
    pub(crate) fn new(cluster: facade::LocalCluster, answers: Answers) -> Self {
        Self { cluster, answers }
    }
}

#[napi]
impl LocalCluster {
    #[napi(getter)]
    pub fn url(&self) -> &str {
        self.cluster.url()
    }

    #[napi(catch_unwind)]
    pub fn nodes(&self) -> Either<Vec<LocalNode>, Failure> {
        let row = |node: facade::LocalNode| LocalNode {
            node: node.node,
            address: node.address,
            dir: node.directory.to_string_lossy().into_owned(),
            pid: node.pid,
        };
        match self.cluster.nodes() {
            Ok(nodes) => Either::A(nodes.into_iter().map(row).collect()),
            Err(error) => Either::B(error.into()),
        }
    }

    #[napi(catch_unwind)]
    pub fn stop(&self, nodes: Vec<u32>) -> Result<f64> {
        submit(&self.answers, self.cluster.stop_nodes(nodes), |()| Value::None)
    }

    #[napi(catch_unwind)]
    pub fn start(&self, nodes: Vec<u32>, timeout_ms: f64) -> Result<f64> {
        let start = self.cluster.start_nodes(nodes, timeout(timeout_ms));
        submit(&self.answers, start, |()| Value::None)
    }

    #[napi(catch_unwind)]
    pub fn close(&self) -> Result<f64> {
        submit(&self.answers, self.cluster.close(), |()| Value::None)
    }
}

/// Starts a cluster for tests, of the programs in the folder `packaged`.
#[napi(catch_unwind)]
pub fn local_cluster(
    queue: &Queue,
    nodes: u32,
    dir: Option<String>,
    packaged: String,
    timeout_ms: f64,
) -> Result<f64> {
    let (dir, packaged) = (dir.map(Into::into), vec![packaged.into()]);
    let start = facade::LocalCluster::start(nodes, dir, packaged, timeout(timeout_ms));
    submit(queue.answers(), start, Value::LocalCluster)
}

/// How to start a server.
#[napi(object)]
pub struct ServerOptions {
    pub data: String,
    pub listen: String,
    pub advertise: Option<String>,
    pub zone: String,
    pub roles: Vec<String>,
    pub join: Vec<String>,
    pub insecure: bool,
    pub timeout_ms: f64,
}

/// Starts a server.
#[napi(catch_unwind)]
pub fn serve(queue: &Queue, options: ServerOptions) -> Result<f64> {
    let start = match options.roles.join(",").parse::<Roles>() {
        Err(error) => Op::failed(error.into()),
        Ok(roles) => {
            let config = ServerConfig {
                data: options.data.into(),
                listen: options.listen,
                advertise: options.advertise,
                zone: options.zone,
                roles,
                join: options.join,
                insecure: options.insecure,
                ..ServerConfig::default()
            };
            facade::Server::start(config, timeout(options.timeout_ms))
        }
    };
    submit(queue.answers(), start, Value::Server)
}

/// Makes a cluster.
#[napi(catch_unwind)]
pub fn init(queue: &Queue, addresses: Vec<String>, timeout_ms: f64) -> Result<f64> {
    submit(queue.answers(), facade::init(addresses, timeout(timeout_ms)), Value::Cluster)
}

/// The nodes of a cluster.
#[napi(catch_unwind)]
pub fn nodes(queue: &Queue, url: String, timeout_ms: f64) -> Result<f64> {
    submit(queue.answers(), facade::nodes(&url, timeout(timeout_ms)), Value::Cluster)
}

/// Drains a node.
#[napi(catch_unwind)]
pub fn drain(queue: &Queue, url: String, node: u32, timeout_ms: f64) -> Result<f64> {
    submit(queue.answers(), facade::drain(&url, node, timeout(timeout_ms)), |()| Value::None)
}

/// Takes a node out of its cluster.
#[napi(catch_unwind)]
pub fn remove(queue: &Queue, url: String, node: u32, timeout_ms: f64) -> Result<f64> {
    submit(queue.answers(), facade::remove(&url, node, timeout(timeout_ms)), |()| Value::None)
}

/// A log on its way.
#[napi]
pub struct Relocation {
    relocation: facade::Relocation,
    answers: Answers,
}

#[napi]
impl Relocation {
    #[napi(constructor, catch_unwind)]
    pub fn new(queue: &Queue, src: String, dst: String, leave_sealed: bool) -> Self {
        let relocation = facade::Relocation::start(&src, &dst, leave_sealed);
        Self { relocation, answers: queue.answers().clone() }
    }

    /// The next step: progress, or at last the chain.
    #[napi(catch_unwind)]
    pub fn next(&self) -> Result<f64> {
        submit(&self.answers, self.relocation.next(), Value::Step)
    }
}
