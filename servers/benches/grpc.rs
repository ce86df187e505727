//! One `Append` stream of the gRPC service against its bar, on a cluster of three daemons and on one:
//! `cargo bench -p virtuallog-server --bench grpc`.
//!
//! Every entry of 100 bytes is a message and an append of its own, 8,192 of them unanswered at most. Beside
//! it what a client of ours reaches on the same cluster, in turns of a second; figures are medians. The
//! cluster is `virtuallog dev`, with its files under the target folder, on the disk that is built on.
//! `PAIRS=n` and `SECONDS=s` make it longer or shorter.

#[expect(dead_code, reason = "there are no sections here, whose rows travel")]
#[path = "../../core/benches/embedded/stats.rs"]
mod stats;

use std::collections::VecDeque;
use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;
use virtuallog::VirtualLog;
use virtuallog_server::grpc::proto::append_request::Mode;
use virtuallog_server::grpc::proto::log_client::LogClient;
use virtuallog_server::grpc::proto::{AppendRequest, append_outcome};

use stats::{Row, median};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ENTRY: [u8; 100] = [b'x'; 100];
const IN_FLIGHT: usize = 8192;
const BAR: f64 = 150e3;

fn number(name: &str, default: f64) -> f64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// `virtuallog dev`, ended with this.
struct Cluster {
    dev: Child,
    _dir: tempfile::TempDir,
    url: String,
    address: String,
}

impl Cluster {
    fn start(nodes: usize) -> Result<Cluster> {
        let dir = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_virtuallog"));
        command.args(["dev", "--nodes", &nodes.to_string(), "--dir"]).arg(dir.path());
        let mut dev = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(dev.stdout.take().ok_or("no pipe")?).read_line(&mut line)?;
        let report: Value = serde_json::from_str(&line)?;
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or(line.clone());
        let (url, address) = (text(&report["url"])?, text(&report["nodes"][0]["address"])?);
        Ok(Cluster { dev, _dir: dir, url, address })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = i32::try_from(self.dev.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It ends its nodes in order; one that ended before is no harm.
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.dev.wait();
    }
}

/// Appends a second over one stream.
async fn stream(cluster: &Cluster, time: Duration) -> Result<f64> {
    let channel = Endpoint::from_shared(format!("http://{}", cluster.address))?.tcp_nodelay(true);
    let mut client = LogClient::new(channel.connect().await?);
    let room = Arc::new(Semaphore::new(IN_FLIGHT));
    let (sending, begun) = (room.clone(), Instant::now());
    let entry = Bytes::from_static(&ENTRY);
    let requests = futures_util::stream::unfold(0, move |sent| {
        let (room, payload) = (sending.clone(), entry.clone());
        async move {
            let request = match sent {
                0 => AppendRequest { log: "grpc".into(), create: true, ..Default::default() },
                id => {
                    room.acquire().await.ok()?.forget();
                    let mode = Mode::Each.into();
                    AppendRequest { id, payloads: vec![payload], mode, ..Default::default() }
                }
            };
            (begun.elapsed() < time).then_some((request, sent + 1))
        }
    });
    let mut replies = client.append(requests).await?.into_inner();
    let mut answered = 0;
    while let Some(reply) = replies.next().await {
        for outcome in reply?.outcomes {
            match outcome.result {
                Some(append_outcome::Result::Position(_)) => answered += outcome.count as usize,
                failed => return Err(format!("{failed:?}").into()),
            }
            room.add_permits(outcome.count as usize);
        }
    }
    Ok(answered as f64 / begun.elapsed().as_secs_f64())
}

/// Appends a second by a client of ours.
async fn own(log: &VirtualLog, time: Duration) -> Result<f64> {
    let (mut under_way, mut answered) = (VecDeque::new(), 0);
    let begun = Instant::now();
    while begun.elapsed() < time || !under_way.is_empty() {
        while begun.elapsed() < time && under_way.len() < IN_FLIGHT {
            under_way.push_back(log.append(Bytes::from_static(&ENTRY)));
        }
        if let Some(append) = under_way.pop_front() {
            append.await?;
            answered += 1;
        }
    }
    Ok(answered as f64 / begun.elapsed().as_secs_f64())
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let (turns, time) = (number("PAIRS", 5.0) as usize, number("SECONDS", 1.0));
    let time = Duration::from_secs_f64(time);
    println!("{}", Row::heading());
    let mut held = true;
    for nodes in [3, 1] {
        let cluster = Cluster::start(nodes)?;
        let log = VirtualLog::open(&format!("{}own", cluster.url)).await?;
        let (mut streams, mut owns) = (Vec::new(), Vec::new());
        for _ in 0..turns.max(1) {
            streams.push(stream(&cluster, time).await?);
            owns.push(own(&log, time).await?);
        }
        log.close().await?;
        let (stream, own) = (median(&mut streams), median(&mut owns));
        let rows = [
            Row::figure(
                &format!("gRPC, one stream, {nodes} nodes"),
                stream,
                "appends/s",
                BAR,
                true,
            ),
            Row::ratio("the same, against a client of ours", stream, own, "appends/s", 0.0, true),
        ];
        for row in rows {
            println!("{row}");
            held &= row.holds();
        }
    }
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
