//! The gRPC service alone, over any store: `grpc_gateway --store URL [--listen 127.0.0.1:0]`.
//!
//! Its first line is a JSON object with the address. SIGTERM or Ctrl-C drains it.

use std::sync::Arc;

use clap::Parser;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::TcpListenerStream;
use virtuallog_server::grpc::{Gateway, serve};

#[derive(Parser)]
struct Args {
    /// The store: a URL that ends in `/`
    #[arg(long)]
    store: String,
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let gateway = Arc::new(Gateway::new(&args.store, Vec::new())?);
    let listener = TcpListener::bind(&args.listen).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    println!("{}", json!({ "address": listener.local_addr()?.to_string() }));
    let incoming = TcpListenerStream::new(listener).map(|accepted| {
        let connection = accepted?;
        connection.set_nodelay(true)?;
        Ok(connection)
    });
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    Ok(serve(gateway, incoming, shutdown).await?)
}
