//! How fast one `Append` stream is: `grpc_appends ADDRESS [--each 1] [--size 100] [--appends 1000000]`.
//!
//! Sends entries of `--size` bytes, `--each` of them in a message and every one an append of its own,
//! with `--in-flight` of them unanswered at most, and prints one JSON object.

use std::sync::Arc;
use std::time::Instant;

use clap::Parser;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_stream::StreamExt;
use virtuallog_server::grpc::proto::append_request::Mode;
use virtuallog_server::grpc::proto::log_client::LogClient;
use virtuallog_server::grpc::proto::{AppendRequest, append_outcome};

#[derive(Parser)]
struct Args {
    /// As the gateway printed it
    address: String,
    /// The log; created if it is missing
    #[arg(long, default_value = "bench")]
    log: String,
    /// Entries in one message
    #[arg(long, default_value_t = 1)]
    each: usize,
    /// Bytes of an entry
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Entries in all
    #[arg(long, default_value_t = 1_000_000)]
    appends: usize,
    /// Entries without an answer, at most
    #[arg(long, default_value_t = 8192)]
    in_flight: usize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", args.address))?;
    let mut client = LogClient::new(channel.tcp_nodelay(true).connect().await?);
    let room = Arc::new(Semaphore::new(args.in_flight));
    let payload = bytes::Bytes::from(vec![7u8; args.size]);
    let first = AppendRequest { log: args.log.clone(), create: true, ..Default::default() };
    let messages = args.appends / args.each;
    let sending = room.clone();
    let each = u32::try_from(args.each)?;
    let requests = futures_util::stream::unfold(0, move |sent| {
        let request = match sent {
            0 => first.clone(),
            _ => AppendRequest {
                id: sent as u64,
                payloads: vec![payload.clone(); args.each],
                mode: Mode::Each.into(),
                ..Default::default()
            },
        };
        let room = sending.clone();
        async move {
            if sent > 0 {
                room.acquire_many(each).await.ok()?.forget();
            }
            (sent <= messages).then_some((request, sent + 1))
        }
    });
    let begun = Instant::now();
    let mut replies = client.append(requests).await?.into_inner();
    let (mut answered, mut answers) = (0usize, 0usize);
    while let Some(reply) = replies.next().await {
        answers += 1;
        for outcome in reply?.outcomes {
            match outcome.result {
                Some(append_outcome::Result::Position(_)) => answered += outcome.count as usize,
                failed => return Err(format!("{failed:?}").into()),
            }
            room.add_permits(outcome.count as usize);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let rate = (answered as f64 / seconds).round();
    println!("{}", json!({ "appends": answered, "replies": answers, "appends_per_s": rate }));
    Ok(())
}
