//! The gRPC service over a simulated network that loses, holds, delays and cuts.
//!
//! Client and service are what production runs, tonic and HTTP/2 included; only the socket is
//! `turmoil`'s. The log is in memory, which outlives the service's lives here, so that what was
//! acknowledged can be looked for. Time is simulated, and the seed draws every delay.

use std::io;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};
use tower::service_fn;
use turmoil::net::{TcpListener, TcpStream};
use turmoil::{Builder, Sim};
use virtuallog::VirtualLog;
use virtuallog_server::grpc::proto::append_outcome::Result as Outcome;
use virtuallog_server::grpc::proto::append_request::Mode;
use virtuallog_server::grpc::proto::log_client::LogClient;
use virtuallog_server::grpc::proto::{AppendReply, AppendRequest, ReadRequest};
use virtuallog_server::grpc::{Gateway, serve};

const SERVER: &str = "server";
const PORT: u16 = 7400;
/// Different delays for everything.
const SEEDS: std::ops::Range<u64> = 0..8;

/// A simulated connection as tonic wants it.
struct Connection(TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A simulation with a host that serves all logs in memory.
fn sim(seed: u64) -> Sim<'static> {
    let mut sim = Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(300))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(256)
        .build();
    sim.host(SERVER, || async {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        let (bring, incoming) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = bring.send(Ok(Connection(stream))).await;
            }
        });
        let gateway = Arc::new(Gateway::new("memory:/", Vec::new())?);
        serve(gateway, ReceiverStream::new(incoming), std::future::pending()).await?;
        Ok(())
    });
    sim
}

async fn connect() -> Result<LogClient<Channel>, tonic::transport::Error> {
    let endpoint = Endpoint::from_static("http://server:7400");
    let connector = service_fn(|_: Uri| async {
        let stream = TcpStream::connect((SERVER, PORT)).await?;
        Ok::<_, io::Error>(TokioIo::new(Connection(stream)))
    });
    endpoint.connect_with_connector(connector).await.map(LogClient::new)
}

/// One stream of appends.
struct Appending {
    requests: mpsc::Sender<AppendRequest>,
    replies: Streaming<AppendReply>,
}

impl Appending {
    async fn begin(client: &mut LogClient<Channel>, log: &str) -> Result<Appending, Status> {
        let (requests, stream) = mpsc::channel(1024);
        let first = AppendRequest { log: log.into(), create: true, ..AppendRequest::default() };
        requests.send(first).await.expect("it is read");
        let replies = client.append(ReceiverStream::new(stream)).await?.into_inner();
        Ok(Appending { requests, replies })
    }

    async fn send(&self, number: u64) {
        let request = AppendRequest {
            id: number,
            payloads: vec![number.to_string().into()],
            mode: Mode::Each.into(),
            ..AppendRequest::default()
        };
        // A stream that has ended says so with its replies.
        let _ = self.requests.send(request).await;
    }

    /// Takes what is acknowledged, until there are `count` or the stream ends.
    async fn take(&mut self, count: usize, acked: &mut Vec<(u64, u64)>) -> Result<(), Status> {
        while acked.len() < count {
            let reply = self.replies.message().await?.ok_or(Status::cancelled("it ended"))?;
            for outcome in reply.outcomes {
                match outcome.result {
                    Some(Outcome::Position(at)) => {
                        let each = u64::from(outcome.count);
                        acked.extend((0..each).map(|n| (outcome.id + n, at + n)));
                    }
                    failed => panic!("{failed:?}"),
                }
            }
        }
        Ok(())
    }
}

/// The numbers that the log holds, by position.
async fn held(log: &VirtualLog) -> Vec<u64> {
    let mut reader = log.read(log.first().await.expect("its first"), None).await.expect("a reader");
    let mut held = Vec::new();
    while let Some(entry) = reader.next().await.expect("an entry") {
        held.push(std::str::from_utf8(&entry.payload).expect("text").parse().expect("a number"));
    }
    held
}

/// What was acknowledged is where it was said to be, nothing is there twice, and what one writer sent
/// is in its order.
fn assert_holds(held: &[u64], acked: &[(u64, u64)]) {
    for (number, at) in acked {
        assert_eq!(held.get(*at as usize), Some(number), "{number} was acknowledged at {at}");
    }
    assert!(held.is_sorted_by(|one, two| one < two), "in order and once: {held:?}");
}

/// Runs a client with a handle of its own on a log that no other test has.
fn run<F>(name: &str, seed: u64, client: impl FnOnce(String, VirtualLog) -> F + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let name = format!("turmoil-{name}-{seed}");
    let mut sim = sim(seed);
    sim.client("client", async move {
        let log = VirtualLog::open(&format!("memory:{name}")).await?;
        client(name, log).await;
        Ok(())
    });
    sim.run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
}

#[test]
fn a_stream_keeps_its_order_whatever_the_delays() {
    for seed in SEEDS {
        run("order", seed, |name, log| async move {
            let mut client = connect().await.expect("connected");
            let mut stream = Appending::begin(&mut client, &name).await.expect("a stream");
            let mut acked = Vec::new();
            for number in 0..500 {
                stream.send(number).await;
            }
            stream.take(500, &mut acked).await.expect("all of them");
            assert_eq!(acked, (0..500).map(|n| (n, n)).collect::<Vec<_>>());
            assert_holds(&held(&log).await, &acked);
        });
    }
}

#[test]
fn what_was_held_back_arrives_once() {
    for seed in SEEDS {
        run("hold", seed, |name, log| async move {
            let mut client = connect().await.expect("connected");
            let mut stream = Appending::begin(&mut client, &name).await.expect("a stream");
            let mut acked = Vec::new();
            stream.send(0).await;
            stream.take(1, &mut acked).await.expect("it is there");
            turmoil::hold("client", SERVER);
            for number in 1..200 {
                stream.send(number).await;
            }
            // Less than it takes to be given up.
            let none = timeout(Duration::from_secs(10), stream.take(2, &mut acked)).await;
            assert!(none.is_err(), "nothing came through: {acked:?}");
            turmoil::release("client", SERVER);
            stream.take(200, &mut acked).await.expect("all of them");
            assert_holds(&held(&log).await, &acked);
        });
    }
}

#[test]
fn a_stream_that_a_partition_breaks_leaves_nothing_twice_and_loses_no_acknowledged_entry() {
    for seed in SEEDS {
        run("partition", seed, |name, log| async move {
            let mut acked = Vec::new();
            for round in 0..3u64 {
                let mut client = connect().await.expect("connected");
                let mut stream = Appending::begin(&mut client, &name).await.expect("a stream");
                let from = 1000 * round;
                for number in from..from + 100 {
                    stream.send(number).await;
                }
                let before = acked.len();
                stream.take(before + 50, &mut acked).await.expect("the first of them");
                match round % 2 {
                    0 => turmoil::partition_oneway("client", SERVER),
                    _ => turmoil::partition_oneway(SERVER, "client"),
                }
                for number in from + 100..from + 200 {
                    stream.send(number).await;
                }
                let rest = stream.take(before + 200, &mut acked);
                assert!(timeout(Duration::from_secs(15), rest).await.is_err(), "it is cut off");
                drop(stream);
                turmoil::repair_oneway("client", SERVER);
                turmoil::repair_oneway(SERVER, "client");
            }
            assert_holds(&held(&log).await, &acked);
        });
    }
}

#[test]
fn a_server_that_starts_again_serves_what_it_acknowledged() {
    for seed in SEEDS {
        let mut sim = sim(seed);
        let name = format!("turmoil-restart-{seed}");
        let lives = Arc::new(AtomicUsize::new(0));
        let wanted = lives.clone();
        sim.client("client", async move {
            // Keeps the log, whatever becomes of the service.
            let log = VirtualLog::open(&format!("memory:{name}")).await?;
            let mut acked = Vec::new();
            for life in 0..3u64 {
                let mut client = loop {
                    match timeout(Duration::from_secs(1), connect()).await {
                        Ok(Ok(client)) => break client,
                        _ => sleep(Duration::from_millis(50)).await,
                    }
                };
                let mut stream = Appending::begin(&mut client, &name).await?;
                for number in 1000 * life..1000 * life + 300 {
                    stream.send(number).await;
                }
                let before = acked.len();
                stream.take(before + 20, &mut acked).await?;
                // The others are on their way when it dies.
                wanted.fetch_add(1, Ordering::Relaxed);
                let end = timeout(Duration::from_secs(30), stream.take(before + 300, &mut acked));
                assert!(!matches!(end.await, Ok(Ok(()))) || acked.len() >= before + 300);
            }
            assert!(acked.len() >= 60);
            assert_holds(&held(&log).await, &acked);
            Ok(())
        });
        let mut ended = 0;
        while !sim.step().unwrap_or_else(|error| panic!("seed {seed}: {error}")) {
            if lives.load(Ordering::Relaxed) > ended {
                ended += 1;
                sim.crash(SERVER);
                sim.bounce(SERVER);
            }
        }
        // The last one may come when all is over.
        assert!(ended >= 2, "seed {seed}: {ended} lives ended");
    }
}

#[test]
fn a_reader_that_takes_its_time_gets_everything_and_holds_nobody_back() {
    run("slow", 1, |name, log| async move {
        // Far more than the windows of a stream and of its connection.
        for _ in 0..64 {
            log.append(vec![7; 1 << 20]).await.expect("an append");
        }
        let mut slow = connect().await.expect("connected");
        let request = ReadRequest { log: name.clone(), start: None, end: None };
        let mut entries = slow.read(request).await.expect("a stream").into_inner();
        sleep(Duration::from_secs(60)).await;
        let mut other = connect().await.expect("connected");
        let mut stream = Appending::begin(&mut other, &name).await.expect("a stream");
        let mut acked = Vec::new();
        stream.send(1).await;
        stream.take(1, &mut acked).await.expect("it is served meanwhile");
        assert_eq!(acked, [(1, 64)]);
        let mut bytes = 0;
        while let Some(reply) = entries.message().await.expect("entries") {
            bytes += reply.entries.iter().map(|entry| entry.payload.len()).sum::<usize>();
        }
        assert_eq!(bytes, 64 << 20);
    });
}

#[test]
fn a_peer_that_vanished_is_given_up() {
    run("vanished", 2, |name, _log| async move {
        let mut client = connect().await.expect("connected");
        let mut stream = Appending::begin(&mut client, &name).await.expect("a stream");
        stream.send(1).await;
        stream.take(1, &mut Vec::new()).await.expect("it is there");
        assert_eq!(turmoil::established_tcp_stream_count_on(SERVER), 1);
        turmoil::partition("client", SERVER);
        let begun = Instant::now();
        while turmoil::established_tcp_stream_count_on(SERVER) > 0 {
            sleep(Duration::from_millis(100)).await;
            assert!(begun.elapsed() < Duration::from_secs(60), "it is kept for ever");
        }
    });
}
