//! A server inside a host's process (converged mode), and what is done to a cluster from outside.
//!
//! A [`Server`] runs on our runtime, as the logs of this process do: a log of its own cluster that is
//! opened here is read without a connection. Closing ends whatever waits on it, with `CLOSED`, and goes
//! on when nobody waits for it. Dropping stops it as a crash would.
//!
//! A child of `fork` has a copy that answers `CLOSED`. It also keeps the port's descriptor until it ends
//! or runs another program, because nothing here may close a descriptor that it does not know.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::sync::{RwLock, watch};
use virtuallog::server;
use virtuallog::server::{ClusterInfo, ServerConfig};

use crate::error::{Error, Result};
use crate::log::{Timeout, or_default, to_its_end, within};
use crate::op::Op;
use crate::per_process::PerProcess;

/// A running server. Methods may be called from any thread.
pub struct Server {
    core: PerProcess<Running>,
    address: String,
    url: String,
}

#[derive(Clone)]
struct Running {
    /// `None` once it was closed. Held to read by what waits on the server, to write by `close`.
    server: Arc<RwLock<Option<server::Server>>>,
    /// True from the call of `close` on.
    closing: Arc<watch::Sender<bool>>,
}

impl Server {
    /// Takes the directory and the port, and its part in the cluster that the directory belongs to or
    /// that it is to join.
    pub fn start(config: ServerConfig, timeout: Timeout) -> Op<Server> {
        Op::spawn(async move {
            let starting = server::Server::start(config);
            let core = within(or_default(timeout), "start", starting).await?;
            let (address, url) = (core.address(), core.url());
            let server = Arc::new(RwLock::new(Some(core)));
            let running = Running { server, closing: Arc::new(watch::Sender::new(false)) };
            Ok(Server { core: PerProcess::new(running), address, url })
        })
    }

    /// The address by which others reach it, `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The store of its cluster, by its address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its number; `None` until it is part of a cluster.
    ///
    /// # Errors
    /// `CLOSED`.
    pub fn node(&self) -> Result<Option<u32>> {
        self.look(server::Server::node)
    }

    /// The identity of its cluster; `None` until it is part of one.
    ///
    /// # Errors
    /// `CLOSED`.
    pub fn cluster(&self) -> Result<Option<u128>> {
        self.look(server::Server::cluster)
    }

    /// Waits until it is part of a cluster, and its vote counts.
    pub fn ready(&self, timeout: Timeout) -> Op<()> {
        self.call(timeout, "ready", |server| async move {
            match &*server.read().await {
                Some(server) => Some(server.ready().await),
                None => None,
            }
        })
    }

    /// Moves what it sequences to other nodes, and lets nothing new be placed on it.
    pub fn drain(&self, timeout: Timeout) -> Op<()> {
        self.call(timeout, "drain", |server| async move {
            match &*server.read().await {
                Some(server) => Some(server.drain().await),
                None => None,
            }
        })
    }

    /// Stops it and closes its store. Idempotent. When time runs out, closing goes on.
    pub fn close(&self, timeout: Timeout) -> Op<()> {
        let running = match self.core.get() {
            Ok(running) => running.clone(),
            Err(error) => return Op::ready(Err(error)),
        };
        running.closing.send_replace(true);
        let closing = async move {
            match running.server.write().await.take() {
                Some(server) => server.close().await,
                None => Ok(()),
            }
        };
        Op::spawn(within(or_default(timeout), "close", to_its_end(closing)))
    }

    fn look<T>(&self, look: impl FnOnce(&server::Server) -> T) -> Result<T> {
        // Whoever keeps it from being read is closing it.
        let server = self.core.get()?.server.try_read();
        let server = server.as_deref().ok().and_then(Option::as_ref);
        server.map(look).ok_or_else(|| Error::closed("server"))
    }

    /// `call` gives `None` where there is no server any more.
    fn call<F>(
        &self,
        timeout: Timeout,
        what: &'static str,
        call: impl FnOnce(Arc<RwLock<Option<server::Server>>>) -> F,
    ) -> Op<()>
    where
        F: Future<Output = Option<virtuallog::Result<()>>> + Send + 'static,
    {
        let running = match self.core.get() {
            Ok(running) => running.clone(),
            Err(error) => return Op::ready(Err(error)),
        };
        let (timeout, call) = (or_default(timeout), call(running.server.clone()));
        Op::spawn(async move {
            let mut closing = running.closing.subscribe();
            let answered = async {
                tokio::select! {
                    _ = closing.wait_for(|closing| *closing) => Ok(None),
                    answer = call => answer.transpose(),
                }
            };
            within(timeout, what, answered).await?.ok_or_else(|| Error::closed("server"))
        })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Makes a cluster of the servers at these addresses, which belong to none. Again after an
/// interruption: completes it.
pub fn init(addresses: Vec<String>, timeout: Timeout) -> Op<ClusterInfo> {
    let call = async move { server::init(&addresses).await };
    Op::spawn(within(or_default(timeout), "init", call))
}

/// The nodes of the cluster that the URL names.
pub fn nodes(url: &str, timeout: Timeout) -> Op<ClusterInfo> {
    let url = url.to_owned();
    let call = async move { server::nodes(&url).await };
    Op::spawn(within(or_default(timeout), "nodes", call))
}

/// Moves what a node sequences to others, and lets nothing new be placed on it.
pub fn drain(url: &str, node: u32, timeout: Timeout) -> Op<()> {
    let url = url.to_owned();
    let call = async move { server::drain(&url, node).await };
    Op::spawn(within(or_default(timeout), "drain", call))
}

/// Takes a node out of its cluster for good. Copies what it holds to others first, so it has no
/// deadline unless one is given.
pub fn remove(url: &str, node: u32, timeout: Timeout) -> Op<()> {
    let url = url.to_owned();
    let call = async move { server::remove(&url, node).await };
    Op::spawn(within(or_default(timeout.or_never()), "remove", call))
}
