//! The port: takes connections, and tells ours from those of the other protocol by their first bytes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::ServerConfig;
use super::node::Node;
use crate::error::{Error, ErrorCode, Result};
use crate::wire::serve::{Handler, serve};
use crate::wire::{MAGIC, Stream};

/// Connections at once.
const CONNECTIONS_MAX: usize = 4096;
/// How long a connection may say nothing at first.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(5);
/// After a connection could not be taken, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection that speaks another protocol; not a byte of it was taken.
#[derive(Debug)]
pub struct OtherConnection {
    /// The connection.
    pub stream: TcpStream,
    /// Its place among the connections of the server; to be kept as long as it is open.
    pub room: Room,
}

/// The place of a connection among those that a server takes at once. Dropped, it is free for another.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "it is held, and dropped")] OwnedSemaphorePermit);

/// Listens where `config` says.
pub(super) async fn bind(config: &ServerConfig) -> Result<TcpListener> {
    let listen = &config.listen;
    let failed = |error: io::Error| {
        let message = match error.kind() {
            io::ErrorKind::AddrInUse => format!("{listen} is taken: choose another address"),
            _ => format!("cannot listen on {listen}: {error}"),
        };
        Error::new(ErrorCode::Unavailable, message).with_source(error)
    };
    let addresses: Vec<_> = tokio::net::lookup_host(listen).await.map_err(failed)?.collect();
    let beyond = addresses.iter().find(|address| !address.ip().is_loopback());
    if let (Some(beyond), false) = (beyond, config.insecure) {
        return Err(Error::invalid(format!(
            "{beyond} can be reached from other machines, and connections are not encrypted: listen \
             on 127.0.0.1, or say `insecure` where the network is trusted"
        )));
    }
    if addresses.iter().any(|address| address.ip().is_unspecified()) && config.advertise.is_none() {
        return Err(Error::invalid(format!(
            "{listen} is no address that others can reach: say in `advertise` by which they do"
        )));
    }
    TcpListener::bind(&addresses[..]).await.map_err(failed)
}

/// Takes connections for ever.
pub(super) async fn run(
    listener: TcpListener,
    node: Arc<Node>,
    others: mpsc::Sender<OtherConnection>,
) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(room) = free.clone().try_acquire_owned() else {
            tracing::warn!("a connection was refused: {CONNECTIONS_MAX} are open");
            continue;
        };
        let (node, others) = (node.clone(), others.clone());
        connections.spawn(async move {
            match tokio::time::timeout(FIRST_BYTES_TIMEOUT, is_ours(&stream)).await {
                Ok(Ok(true)) => {
                    let handler: Arc<dyn Handler> = node;
                    if let Err(error) = serve(Stream::tcp(stream), handler).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                }
                Ok(Ok(false)) => {
                    let _ = others.send(OtherConnection { stream, room: Room(room) }).await;
                }
                Ok(Err(_)) | Err(_) => tracing::debug!("a connection said nothing"),
            }
        });
    }
}

/// Whether the first bytes are ours; they stay in the socket.
async fn is_ours(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; MAGIC.len()];
    loop {
        stream.readable().await?;
        let count = stream.peek(&mut first).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if first[..count] != MAGIC[..count] {
            return Ok(false);
        }
        if count == MAGIC.len() {
            return Ok(true);
        }
        // Part of the word: the rest is on its way, and peeking again would not wait for it.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
