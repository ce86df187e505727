//! The gRPC service with a client of its own language: every call, every error, over real connections.
//!
//! The gateway serves a store in a fresh directory on a free port. A client of another language is in
//! `servers/tests/test_grpc.py`.

mod administration;
mod appends;
mod connections;
mod reads;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use virtuallog::loglet::LogletProvider;
use virtuallog_server::grpc::proto::append_outcome::Result as Outcome;
use virtuallog_server::grpc::proto::append_request::Mode;
use virtuallog_server::grpc::proto::log_client::LogClient;
use virtuallog_server::grpc::proto::{AppendRequest, CreateRequest, Entry, ReadRequest};
use virtuallog_server::grpc::{Gateway, serve};

/// A gateway that serves, and a client of it.
struct Served {
    client: LogClient<Channel>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<virtuallog::Result<()>>,
    dir: TempDir,
}

impl Served {
    async fn new() -> Served {
        Self::with("", Vec::new()).await
    }

    /// With parameters of the store's URL, and with kinds of loglet of one's own.
    async fn with(params: &str, providers: Vec<Arc<dyn LogletProvider>>) -> Served {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = format!("file:{}/store/{params}", dir.path().display());
        let gateway = Arc::new(Gateway::new(&store, providers).expect("a store"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let serving = tokio::spawn(serve(gateway, accepted(listener), shutdown));
        let client = LogClient::new(connect(address).await);
        Served { client, address, stop, serving, dir }
    }

    /// With an empty log `a`.
    async fn with_log() -> Served {
        let mut served = Self::new().await;
        served.create("a").await;
        served
    }

    /// The URL of a log, for those who reach it by another way.
    fn url(&self, log: &str) -> String {
        format!("file:{}/store/{log}", self.dir.path().display())
    }

    async fn create(&mut self, log: &str) {
        let request = CreateRequest { log: log.into(), loglet: String::new() };
        self.client.create(request).await.expect("created");
    }

    /// Sends the requests of one stream and takes all replies.
    async fn append(&mut self, requests: Vec<AppendRequest>) -> Appended {
        let replies = self.client.append(tokio_stream::iter(requests)).await;
        let mut replies = replies.expect("headers").into_inner();
        let mut outcomes = Vec::new();
        let end = loop {
            match replies.message().await {
                Ok(Some(reply)) => outcomes.extend(reply.outcomes),
                Ok(None) => break Ok(()),
                Err(status) => break Err(status),
            }
        };
        let outcomes = outcomes
            .into_iter()
            .map(|outcome| match outcome.result.expect("a result") {
                Outcome::Position(at) => (outcome.id, outcome.index, outcome.count, Ok(at)),
                Outcome::Error(error) => {
                    (outcome.id, outcome.index, outcome.count, Err(error.code))
                }
            })
            .collect();
        Appended { outcomes, end }
    }

    /// Appends texts to the log `a`.
    async fn fill(&mut self, texts: impl IntoIterator<Item = String>) {
        let payloads = texts.into_iter().map(Into::into).collect();
        let request = AppendRequest {
            log: "a".into(),
            create: true,
            payloads,
            mode: Mode::Each.into(),
            ..AppendRequest::default()
        };
        self.append(vec![request]).await.end.expect("appended");
    }

    /// All that the log holds.
    async fn texts(&mut self, log: &str) -> Vec<String> {
        let request = ReadRequest { log: log.into(), start: None, end: None };
        let mut replies = self.client.read(request).await.expect("read").into_inner();
        let mut texts = Vec::new();
        while let Some(reply) = replies.message().await.expect("entries") {
            texts.extend(reply.entries.iter().map(text));
        }
        texts
    }
}

/// The outcomes of a stream, as `(id, index, count, position or code)`, and how it ended.
#[derive(Debug)]
struct Appended {
    outcomes: Vec<(u64, u32, u32, Result<u64, String>)>,
    end: Result<(), Status>,
}

fn accepted(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    TcpListenerStream::new(listener).map(|accepted| {
        let connection = accepted?;
        connection.set_nodelay(true)?;
        Ok(connection)
    })
}

async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("connected")
}

/// A request of one batch to the log `a`.
fn together(id: u64, payloads: &[&str]) -> AppendRequest {
    let payloads = payloads.iter().map(|payload| payload.to_string().into()).collect();
    AppendRequest { log: "a".into(), id, payloads, ..AppendRequest::default() }
}

/// A request of entries that are appended one by one to the log `a`.
fn each(id: u64, payloads: &[&str]) -> AppendRequest {
    AppendRequest { mode: Mode::Each.into(), ..together(id, payloads) }
}

fn text(entry: &Entry) -> String {
    String::from_utf8(entry.payload.to_vec()).expect("text")
}

/// The status of a call that failed, and the product's code in its trailers.
#[track_caller]
fn failure<T: std::fmt::Debug>(outcome: Result<T, Status>) -> (Code, String) {
    let status = outcome.expect_err("it fails");
    (status.code(), trailer(&status, "virtuallog-code"))
}

fn trailer(status: &Status, name: &str) -> String {
    let value = status.metadata().get(name).map(|value| value.to_str().expect("text"));
    value.unwrap_or_default().to_owned()
}
