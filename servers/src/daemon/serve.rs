//! The life of a daemon: start, one line when it is up, and an end in order.
//!
//! The first SIGTERM or SIGINT drains: logs that this node orders go on elsewhere, what others began
//! with us is answered, the store is closed, and the exit status is 0. A second one ends the process at
//! once, with 1. So does a disk that failed: what it holds can only be trusted again after a restart.

use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{error, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use virtuallog::Error;
use virtuallog::loglet::LogletProvider;
use virtuallog::server::Server;

use super::connection::Http;
use super::settings::{LogFormat, Settings};
use crate::grpc::{self, Gateway};
use crate::output::{Output, Report, Stop};
use crate::signals::Signals;

/// How long a node waits for the others of its cluster before it says that it is up.
const CONFIRMED_MAX: Duration = Duration::from_secs(3);

/// The line on standard output.
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    address: String,
    node: Option<u32>,
    cluster: Option<String>,
    url: String,
    pid: u32,
}

impl Ready {
    fn new(server: &Server) -> Self {
        Ready {
            ready: true,
            address: server.address(),
            node: server.node(),
            cluster: server.cluster().map(|id| format!("{id:032x}")),
            url: server.url(),
            pid: std::process::id(),
        }
    }
}

impl Report for Ready {
    fn human(&self, out: &mut dyn Write) -> io::Result<()> {
        let Ready { address, url, pid, .. } = self;
        match (self.node, &self.cluster) {
            (Some(node), Some(cluster)) => {
                writeln!(out, "node {node} of cluster {cluster} is ready: {url} (pid {pid})")
            }
            _ => writeln!(
                out,
                "ready at {address}, and of no cluster yet; to make one of servers such as this, once: \
                 virtuallog init {address}[,ADDRESS…] (pid {pid})"
            ),
        }
    }
}

/// Runs a server until a signal or a failure ends it.
pub(super) async fn serve(
    out: &Output,
    settings: Settings,
    providers: Vec<Arc<dyn LogletProvider>>,
) -> Result<(), Stop> {
    if settings.server.data.as_os_str().is_empty() {
        let message = "say where this node keeps its data: `--data DIR`, VIRTUALLOG_DATA, or `data` in \
                       the file of --config";
        return Err(Error::invalid(message).into());
    }
    // Before the ready line: whoever reads it may send a signal at once.
    let mut signals = Signals::new()?;
    log_to_stderr(&settings);
    let server = tokio::select! {
        server = Server::start(settings.server.clone()) => server?,
        () = signals.recv() => return Ok(()),
    };
    tokio::select! {
        ended = live(out, &settings, &server, providers, &mut signals) => ended?,
        error = server.failed() => {
            error!(code = error.code().name(), "the disk failed: {}", error.message());
            return Err(Stop::BadNews);
        }
    }
    tokio::select! {
        closed = server.close() => closed?,
        () = signals.recv() => return Err(at_once()),
    }
    info!("closed");
    Ok(())
}

/// From the start to the moment when nothing is under way any more.
async fn live(
    out: &Output,
    settings: &Settings,
    server: &Server,
    providers: Vec<Arc<dyn LogletProvider>>,
    signals: &mut Signals,
) -> Result<(), Stop> {
    let gateway = Arc::new(Gateway::new(&server.url(), providers)?);
    let mut others = server.other_connections().expect("it is asked for this once");
    // Only `stop` ends the gateway: that no more connections come is for the server to tell.
    let incoming = stream::poll_fn(move |cx| match others.poll_recv(cx) {
        Poll::Ready(Some(other)) => Poll::Ready(Some(Http::new(other))),
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let mut gateway = pin!(grpc::serve(gateway, incoming, stopped.map(drop)));
    tokio::select! {
        () = signals.recv() => info!("told to end: draining; a second signal ends at once"),
        never = until_failed(out, server) => never?,
        ended = &mut gateway => return Ok(ended?),
    }
    tokio::select! {
        ((), ended) = join(drain(settings, server).map(|()| drop(stop)), gateway) => Ok(ended?),
        () = signals.recv() => Err(at_once()),
    }
}

/// Says that the server is up, once it is, and then nothing more. One that belonged to no cluster says so
/// again when it was made part of one.
async fn until_failed(out: &Output, server: &Server) -> Result<(), Error> {
    info!(address = server.address(), node = server.node(), "listening");
    let belongs = server.node().is_some();
    // It counts for nothing until others confirm its disk, which takes them a moment. They may also be
    // started after it, each when the one before it is up: then they are not waited for.
    if belongs {
        match timeout(CONFIRMED_MAX, server.ready()).await {
            Ok(ready) => ready?,
            Err(_) => warn!("too few of the others are there to confirm this disk: start them"),
        }
    }
    tell(out, server);
    if !belongs {
        server.ready().await?;
        tell(out, server);
    }
    std::future::pending().await
}

fn tell(out: &Output, server: &Server) {
    if out.report(&Ready::new(server)).is_err() {
        warn!("nobody reads standard output: the ready line is lost");
    }
}

async fn drain(settings: &Settings, server: &Server) {
    match timeout(settings.drain_timeout, server.drain()).await {
        Ok(Ok(())) => info!("drained"),
        Ok(Err(error)) => warn!("ending without being drained: {}", error.message()),
        Err(_) => warn!("ending without being drained: `drain-timeout` is over"),
    }
}

fn at_once() -> Stop {
    warn!("a second signal: ending at once");
    Stop::BadNews
}

fn log_to_stderr(settings: &Settings) {
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = match settings.log_format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // Refused only when a host program has set its own before: then that one holds.
    let _ = tracing_subscriber::registry().with(lines.with_filter(settings.log.clone())).try_init();
}
