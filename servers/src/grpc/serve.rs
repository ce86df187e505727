//! Connections: what is handed over speaks HTTP/2 from its first byte, and is served within limits.
//!
//! Whoever accepts connections peeks at them, counts them and sets `TCP_NODELAY`; here nothing listens.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use virtuallog::protocol::limits::ENTRY_BYTES_MAX;
use virtuallog::{Error, ErrorCode, Result};

use super::Gateway;
use super::cluster::Cluster;
use super::proto::FILE_DESCRIPTOR_SET;
use super::proto::cluster_server::ClusterServer;
use super::proto::log_server::LogServer;
use super::service::Service;

/// Calls that one connection may have open at once.
const STREAMS_MAX: u32 = 128;
/// Bytes of headers that one call may have.
const HEADER_BYTES_MAX: u32 = 16 << 10;
/// Bytes that a client may send ahead of what was taken: by call, and by connection.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Larger frames than HTTP/2's own 16 KiB cost fewer hand-overs; a small message still waits for little.
const FRAME_BYTES_MAX: u32 = 64 << 10;
/// A reply's bytes, at most: one entry of the highest limit, and what stands beside it.
const REPLY_BYTES_MAX: usize = ENTRY_BYTES_MAX + (64 << 10);
/// A silent peer is asked whether it is there, and is given up when it does not answer.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long clients have to take their last answers when the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Serves the log, health and reflection on the connections that `incoming` brings, until `shutdown`
/// ends. Then takes no more, ends every stream with what it has under way answered, gives clients a few
/// seconds to take that, and closes the gateway's logs.
///
/// Connections come with their first byte unread and `TCP_NODELAY` set. An error that `incoming` brings
/// is passed over. How many connections there may be is up to whoever accepts them.
///
/// # Errors
/// `INTERNAL` when the service cannot be put together.
pub async fn serve<C>(
    gateway: Arc<Gateway>,
    incoming: impl Stream<Item = io::Result<C>>,
    shutdown: impl Future<Output = ()>,
) -> Result<()>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<LogServer<Service>>().await;
    reporter.set_serving::<ClusterServer<Cluster>>().await;
    let log = LogServer::new(Service(gateway.clone()))
        .max_decoding_message_size(gateway.request_bytes_max())
        .max_encoding_message_size(REPLY_BYTES_MAX);
    let cluster = ClusterServer::new(Cluster(gateway.clone()));
    let router = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(log)
        .add_service(cluster)
        .add_service(health)
        // Clients of either age: `grpcurl` asks for the first, `grpcio-reflection` for the second.
        .add_service(reflection().build_v1().map_err(internal)?)
        .add_service(reflection().build_v1alpha().map_err(internal)?);

    let stop = async {
        shutdown.await;
        reporter.set_not_serving::<LogServer<Service>>().await;
        reporter.set_not_serving::<ClusterServer<Cluster>>().await;
        gateway.stop();
    };
    let drained = async {
        gateway.stopped().await;
        tokio::time::sleep(DRAIN_MAX).await;
    };
    let served = tokio::select! {
        served = router.serve_with_incoming_shutdown(incoming, stop) => served.map_err(internal),
        () = drained => Ok(()),
    };
    gateway.close().await;
    served
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn internal(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorCode::Internal, "the gRPC service cannot be served").with_source(error)
}
