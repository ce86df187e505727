//! Both sides of a connection over a simulated network that loses, holds, delays and cuts.
//!
//! The code is what production runs, from links down to frames; only the socket is `turmoil`'s. Each
//! scenario says what a caller may conclude: an answer is its own, *not sent* surely did nothing, *lost*
//! is in doubt, every call is told exactly once, and a link never sends anything twice. Time is
//! simulated, and the seed draws every delay.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};
use turmoil::net::{TcpListener, TcpStream};
use turmoil::{Builder, Sim};

use super::frame::{FRAME_BYTES_MAX, Packet};
use super::messages::{
    Hello, Life, Member, NodeNumber, Nothing, Reply, Request, VERSION, VERSION_MIN, Welcome,
};
use super::serve::{Answer, CREDIT_BYTES, Caller, Handler, serve};
use super::simulated::Simulated;
use super::stream::OUTBOX_BYTES_MAX;
use super::tcp::TcpTransport;
use super::transport::{Lane, Link, NetError, Target, Transport};
use super::{MAGIC, Stream};
use crate::cluster::{ANSWER_TIMEOUT, limited};
use crate::error::{Error, ErrorCode, Result};

const SERVER: &str = "server";
const PORT: u16 = 7400;
const CLUSTER: u128 = 7;
const MEMBER: (u32, u128) = (1, 11);
/// Different delays for everything.
const SEEDS: std::ops::Range<u64> = 0..8;
/// A body that is as large as they get, nearly.
const LARGE: usize = 4 << 20;

/// Answers with what it was sent, at once or when it is told to.
#[derive(Debug, Default)]
struct Desk {
    /// Numbers of requests, in the order in which they came.
    handled: Mutex<Vec<u32>>,
    /// Answers that wait, while there is a place for them.
    held: Mutex<Option<Vec<(Answer, Bytes)>>>,
    /// They may go out. Only the server's own host can write to its sockets.
    go: Notify,
    connections: AtomicUsize,
    gone: AtomicUsize,
}

impl Handler for Desk {
    fn greet(&self, hello: &Hello) -> Result<Welcome> {
        let cluster = hello.cluster.map(u128::from);
        let meant = hello.to.map(|member| (member.node, member.storage.into()));
        if cluster.is_some_and(|id| id != CLUSTER) || meant.is_some_and(|meant| meant != MEMBER) {
            return Err(Error::new(ErrorCode::Incompatible, "somebody else was meant"));
        }
        let member = Member { node: MEMBER.0, storage: MEMBER.1.into() };
        let life = Life { member, process: 3.into(), generation: 1 };
        let (cluster, credit_bytes) = (Some(CLUSTER.into()), CREDIT_BYTES as u64);
        Ok(Welcome { version: VERSION, cluster, life, credit_bytes })
    }

    fn handle(&self, _: &Caller, request: Request, body: Bytes, answer: Answer) {
        let Request::Drain(NodeNumber { node }) = request else { panic!("nobody sends this") };
        self.handled.lock().expect("no panic").push(node);
        match &mut *self.held.lock().expect("no panic") {
            Some(held) => held.push((answer, body)),
            None => answer.with(Reply::Done(Nothing {}), body),
        }
    }

    fn gone(&self, _: &Caller) {
        self.gone.fetch_add(1, Ordering::Relaxed);
    }
}

impl Desk {
    fn holding() -> Arc<Desk> {
        Arc::new(Desk { held: Mutex::new(Some(Vec::new())), ..Desk::default() })
    }

    fn handled(&self) -> Vec<u32> {
        self.handled.lock().expect("no panic").clone()
    }

    /// Answers what waits, and at once from then on.
    fn answer_all(&self) {
        self.go.notify_one();
    }

    async fn answers(self: Arc<Self>) {
        self.go.notified().await;
        let held = self.held.lock().expect("no panic").take();
        // The last ones first: answers need not come in the order of the questions.
        for (answer, body) in held.unwrap_or_default().into_iter().rev() {
            answer.with(Reply::Done(Nothing {}), body);
        }
    }
}

fn sim(seed: u64) -> Sim<'static> {
    sim_with(seed, 64)
}

/// `tcp_capacity`: writes that one direction of a connection takes before somebody reads.
fn sim_with(seed: u64, tcp_capacity: usize) -> Sim<'static> {
    Builder::new()
        .tcp_capacity(tcp_capacity)
        .rng_seed(seed)
        .simulation_duration(Duration::from_secs(300))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .build()
}

/// A host that serves at the desk, in every one of its lives.
fn host(sim: &mut Sim<'_>, desk: &Arc<Desk>) {
    let desk = desk.clone();
    sim.host(SERVER, move || {
        let desk = desk.clone();
        async move {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
            tokio::spawn(desk.clone().answers());
            loop {
                let stream = Simulated::new(listener.accept().await?.0);
                desk.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(Stream::Simulated(stream), desk.clone()));
            }
        }
    });
}

/// Runs one client against the desk.
fn run<F>(seed: u64, desk: &Arc<Desk>, client: impl FnOnce(Arc<Desk>) -> F)
where
    F: Future<Output = ()> + 'static,
{
    run_in(sim(seed), desk, client);
}

/// As [`run`], in a simulation of one's own.
fn run_in<F>(mut sim: Sim<'_>, desk: &Arc<Desk>, client: impl FnOnce(Arc<Desk>) -> F)
where
    F: Future<Output = ()> + 'static,
{
    host(&mut sim, desk);
    let client = client(desk.clone());
    sim.client("client", async move {
        client.await;
        Ok(())
    });
    sim.run().unwrap_or_else(|error| panic!("{error}"));
}

fn target() -> Target {
    let address = format!("{SERVER}:{PORT}");
    Target { address, member: Some(MEMBER), cluster: Some(CLUSTER) }
}

fn transport() -> TcpTransport {
    TcpTransport::new(Arc::new(|| None))
}

type Told = oneshot::Receiver<Result<Packet, NetError>>;

/// Asks; the answer has to bring `body` back.
fn ask(link: &dyn Link, node: u32, body: &Bytes) -> Told {
    let (tell, told) = oneshot::channel();
    let request = Packet::request(Request::Drain(NodeNumber { node }), body.clone());
    // A second call of it would not compile, and a missing one is seen as an error of the channel.
    link.call(request, Box::new(move |answer| drop(tell.send(answer))));
    told
}

fn number(node: u32) -> Bytes {
    Bytes::copy_from_slice(&node.to_le_bytes())
}

async fn told(told: Told) -> Result<Bytes, NetError> {
    told.await.expect("every call is told").map(|packet| packet.body)
}

/// A call that goes well, tried again while it surely was not sent.
async fn served(link: &dyn Link, node: u32) {
    loop {
        match limited(told(ask(link, node, &number(node)))).await {
            Ok(body) => return assert_eq!(body, number(node)),
            Err(NetError::NotSent(_)) => sleep(Duration::from_millis(5)).await,
            Err(NetError::Lost(error)) => panic!("lost: {error}"),
        }
    }
}

fn assert_once(handled: &[u32]) {
    let mut sorted = handled.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), handled.len(), "nothing is sent twice: {handled:?}");
}

/// A connection that speaks for itself: the greeting is done.
async fn raw(version: u32) -> TcpStream {
    let mut stream = TcpStream::connect((SERVER, PORT)).await.expect("it listens");
    let hello = Hello { version, cluster: None, to: None, from: None, lane: 0 };
    let hello = Packet::request(Request::Hello(hello), Bytes::new());
    stream.write_all(&MAGIC).await.expect("it is taken");
    stream.write_all(&bytes_of(1, &hello)).await.expect("it is taken");
    stream
}

async fn skip_frame(stream: &mut TcpStream) -> std::io::Result<()> {
    let len = stream.read_u32_le().await?;
    stream.read_exact(&mut vec![0; len as usize]).await.map(drop)
}

fn bytes_of(id: u64, packet: &Packet) -> Vec<u8> {
    [&packet.prefix(id)[..], &packet.head, &packet.body].concat()
}

#[test]
fn answers_find_their_calls_whatever_the_delays() {
    for seed in SEEDS {
        let desk = Desk::holding();
        run(seed, &desk, |desk| async move {
            let transport = transport();
            let link = transport.link(&target(), Lane::Append);
            let asked: Vec<_> = (0..300).map(|n| ask(&*link, n, &number(n))).collect();
            while desk.handled().len() < 300 {
                sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(desk.handled(), (0..300).collect::<Vec<_>>(), "in the order of the calls");
            desk.answer_all();
            for (n, asked) in asked.into_iter().enumerate() {
                assert_eq!(told(asked).await.expect("an answer"), number(n as u32));
            }
        });
        assert_eq!(desk.connections.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_connection_lost_in_the_middle_of_an_answer_is_in_doubt_and_the_next_one_works() {
    for seed in SEEDS {
        let mut sim = sim(seed);
        let desk = Arc::new(Desk::default());
        let at = desk.clone();
        sim.host(SERVER, move || {
            let desk = at.clone();
            async move {
                let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
                // The first connection welcomes, reads the request, and answers half of a frame.
                let (mut stream, _) = listener.accept().await?;
                stream.read_exact(&mut [0; MAGIC.len()]).await?;
                skip_frame(&mut stream).await?;
                let hello =
                    Hello { version: VERSION, cluster: None, to: None, from: None, lane: 0 };
                let welcome = Packet::reply(Reply::Welcome(desk.greet(&hello)?), Bytes::new());
                stream.write_all(&bytes_of(0, &welcome)).await?;
                skip_frame(&mut stream).await?;
                let answer = Packet::reply(Reply::Done(Nothing {}), number(1));
                stream.write_all(&bytes_of(1, &answer)[..10]).await?;
                drop(stream);
                loop {
                    let stream = Simulated::new(listener.accept().await?.0);
                    tokio::spawn(serve(Stream::Simulated(stream), desk.clone()));
                }
            }
        });
        sim.client("client", async {
            let transport = transport();
            let link = transport.link(&target(), Lane::Append);
            match told(ask(&*link, 1, &number(1))).await {
                Err(NetError::Lost(error)) => assert_eq!(error.code(), ErrorCode::Unavailable),
                other => panic!("{other:?}"),
            }
            served(&*link, 2).await;
            Ok(())
        });
        sim.run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(desk.handled(), [2], "nothing was sent again");
    }
}

#[test]
fn half_a_request_is_no_request() {
    let desk = Arc::new(Desk::default());
    run(1, &desk, |desk| async move {
        let request = Packet::request(Request::Drain(NodeNumber { node: 1 }), number(1));
        let whole = bytes_of(2, &request);
        for len in [0, 3, 15, 16, whole.len() - 1] {
            let mut stream = raw(VERSION).await;
            stream.write_all(&whole[..len]).await.expect("it is taken");
            drop(stream);
        }
        while desk.gone.load(Ordering::Relaxed) < 5 {
            sleep(Duration::from_millis(1)).await;
        }
    });
    assert_eq!(desk.handled(), []);
}

#[test]
fn a_half_open_connection_costs_a_bounded_time_and_ends_when_the_other_side_is_back() {
    for seed in SEEDS {
        let desk = Arc::new(Desk::default());
        let mut sim = sim(seed);
        host(&mut sim, &desk);
        let step = Arc::new(AtomicUsize::new(0));
        let at = step.clone();
        sim.client("client", async move {
            let transport = transport();
            let link = transport.link(&target(), Lane::Control);
            served(&*link, 1).await;
            // The machine is gone without a word: nobody refuses anything.
            turmoil::partition("client", SERVER);
            at.store(1, Ordering::Relaxed);
            let begun = Instant::now();
            let asked = limited(told(ask(&*link, 2, &number(2)))).await;
            assert!(matches!(asked, Err(NetError::Lost(_))), "{asked:?}");
            assert!(begun.elapsed() < ANSWER_TIMEOUT + Duration::from_millis(10));
            // It is back, in another life, and knows nothing of the connection.
            turmoil::repair("client", SERVER);
            at.store(2, Ordering::Relaxed);
            sleep(Duration::from_millis(100)).await;
            let asked = limited(told(ask(&*link, 3, &number(3)))).await;
            assert!(matches!(asked, Err(NetError::Lost(_))), "{asked:?}");
            served(&*link, 4).await;
            Ok(())
        });
        let mut crashed = false;
        while !sim.step().unwrap_or_else(|error| panic!("seed {seed}: {error}")) {
            match step.load(Ordering::Relaxed) {
                1 if !crashed => {
                    sim.crash(SERVER);
                    crashed = true;
                }
                2 if crashed => {
                    sim.bounce(SERVER);
                    step.store(3, Ordering::Relaxed);
                }
                _ => {}
            }
        }
        assert_eq!(desk.handled(), [1, 4]);
    }
}

#[test]
fn beyond_the_credit_a_call_is_refused_definitely_until_there_is_room() {
    let desk = Desk::holding();
    run(2, &desk, |desk| async move {
        let transport = transport();
        let link = transport.link(&target(), Lane::Append);
        let body = Bytes::from(vec![7; LARGE]);
        // Frames are longer than their bodies.
        let fits = CREDIT_BYTES / LARGE - 1;
        // The credit is known once the connection is there.
        let first = ask(&*link, 0, &number(0));
        while desk.handled().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        let asked: Vec<_> = (0..fits as u32).map(|n| ask(&*link, 1 + n, &body)).collect();
        match told(ask(&*link, 100, &body)).await {
            Err(NetError::NotSent(error)) => assert_eq!(error.code(), ErrorCode::Busy),
            other => panic!("{other:?}"),
        }
        // What was refused was not sent, and what was taken is answered.
        while desk.handled().len() < 1 + fits {
            sleep(Duration::from_millis(1)).await;
        }
        desk.answer_all();
        assert_eq!(told(first).await.expect("an answer"), number(0));
        for asked in asked {
            assert_eq!(told(asked).await.expect("an answer"), body);
        }
        served(&*link, 101).await;
        assert!(!desk.handled().contains(&100));
    });
}

#[test]
fn a_caller_that_does_not_keep_to_its_credit_is_not_read_from() {
    let desk = Desk::holding();
    run_in(sim_with(3, 4), &desk, |desk| async move {
        let mut stream = raw(VERSION).await;
        let request = |node| {
            Packet::request(Request::Drain(NodeNumber { node }), Bytes::from(vec![7; LARGE]))
        };
        let most = CREDIT_BYTES / LARGE;
        let flood = async {
            for node in 0..4 * most as u32 {
                stream
                    .write_all(&bytes_of(2 + u64::from(node), &request(node)))
                    .await
                    .expect("it is taken");
            }
        };
        // Whatever time there is, it takes no more than the credit and what was on its way.
        assert!(timeout(Duration::from_secs(60), flood).await.is_err(), "it stops taking");
        assert_eq!(desk.handled().len(), most);
        // Others are served all the while.
        let transport = transport();
        let link = transport.link(&target(), Lane::Control);
        let asked = ask(&*link, 1000, &number(1000));
        while !desk.handled().contains(&1000) {
            sleep(Duration::from_millis(1)).await;
        }
        desk.answer_all();
        assert_eq!(told(asked).await.expect("an answer"), number(1000));
    });
}

#[test]
fn a_reader_that_takes_nothing_loses_its_connection_and_nobody_else_does() {
    let desk = Arc::new(Desk::default());
    run_in(sim_with(4, 4), &desk, |at| async move {
        let mut stream = raw(VERSION).await;
        let transport = transport();
        let link = transport.link(&target(), Lane::Read);
        let body = Bytes::from(vec![7; LARGE]);
        let request = |node| Packet::request(Request::Drain(NodeNumber { node }), body.clone());
        // Each is answered at once, with as many bytes, and none of that is read.
        let mut sent = 0;
        while at.gone.load(Ordering::Relaxed) == 0 {
            if stream.write_all(&bytes_of(2 + u64::from(sent), &request(sent))).await.is_err() {
                break;
            }
            served(&*link, 1000 + sent).await;
            sent += 1;
            let most = (OUTBOX_BYTES_MAX + 16 * FRAME_BYTES_MAX) / LARGE;
            assert!((sent as usize) < most, "what waits for a reader is bounded");
        }
        while at.gone.load(Ordering::Relaxed) == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        served(&*link, 5000).await;
        assert_eq!(at.connections.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn failed_attempts_are_spaced_and_the_first_good_one_is_used() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let desk = Arc::new(Desk::default());
    let mut sim = sim(5);
    let (count, at) = (attempts.clone(), desk.clone());
    let well = Duration::from_secs(3);
    sim.host(SERVER, move || {
        let (count, desk) = (count.clone(), at.clone());
        async move {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
            loop {
                let (stream, _) = listener.accept().await?;
                count.fetch_add(1, Ordering::Relaxed);
                // At first it hangs up on everybody.
                if turmoil::elapsed() > well {
                    tokio::spawn(serve(Stream::Simulated(Simulated::new(stream)), desk.clone()));
                }
            }
        }
    });
    sim.client("client", async {
        let transport = transport();
        let link = transport.link(&target(), Lane::Control);
        let mut refused = 0;
        let begun = Instant::now();
        while let Err(error) = told(ask(&*link, 1, &number(1))).await {
            assert!(matches!(error, NetError::NotSent(_)), "it never got that far: {error:?}");
            refused += 1;
            sleep(Duration::from_millis(1)).await;
        }
        assert!(begun.elapsed() >= Duration::from_secs(2));
        assert!(refused > 300, "calls fail at once meanwhile: {refused}");
        Ok(())
    });
    sim.run().expect("it ends well");
    // Three seconds of attempts that are ten milliseconds apart at least.
    let attempts = attempts.load(Ordering::Relaxed);
    assert!((10..=310).contains(&attempts), "{attempts} attempts");
    assert_eq!(desk.handled(), [1]);
}

#[test]
fn one_way_partitions_leave_calls_in_doubt_and_attempts_undone() {
    for seed in SEEDS {
        for answers in [true, false] {
            let desk = Arc::new(Desk::default());
            run(seed, &desk, |desk| async move {
                let transport = transport();
                let link = transport.link(&target(), Lane::Append);
                served(&*link, 1).await;
                match answers {
                    true => turmoil::partition_oneway(SERVER, "client"),
                    false => turmoil::partition_oneway("client", SERVER),
                }
                let asked = limited(told(ask(&*link, 2, &number(2)))).await;
                assert!(matches!(asked, Err(NetError::Lost(_))), "{asked:?}");
                assert_eq!(desk.handled().contains(&2), answers, "that is what doubt means");
                // A new connection does not come about, so nothing goes over it.
                let other = transport.link(&target(), Lane::Control);
                let begun = Instant::now();
                let asked = told(ask(&*other, 3, &number(3))).await;
                assert!(matches!(asked, Err(NetError::NotSent(_))), "{asked:?}");
                assert!(begun.elapsed() < Duration::from_secs(3));
                turmoil::repair_oneway(SERVER, "client");
                turmoil::repair_oneway("client", SERVER);
                served(&*other, 4).await;
                assert_once(&desk.handled());
                assert!(!desk.handled().contains(&3));
            });
        }
    }
}

#[test]
fn whoever_was_not_meant_is_asked_nothing() {
    let desk = Arc::new(Desk::default());
    run(6, &desk, |desk| async move {
        let transport = transport();
        let wrong = [
            Target { cluster: Some(CLUSTER + 1), ..target() },
            Target { member: Some((MEMBER.0 + 1, MEMBER.1)), ..target() },
            // The same number with another disk.
            Target { member: Some((MEMBER.0, MEMBER.1 + 1)), ..target() },
        ];
        for target in wrong {
            let link = transport.link(&target, Lane::Append);
            match told(ask(&*link, 1, &number(1))).await {
                Err(NetError::NotSent(error)) => assert_eq!(error.code(), ErrorCode::Incompatible),
                other => panic!("{other:?}"),
            }
        }
        // Too old a version is told so, and the connection ends.
        let mut stream = raw(VERSION_MIN - 1).await;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("it ends");
        assert!(String::from_utf8_lossy(&answer).contains("too old"), "{answer:?}");
        // Another protocol is no greeting.
        let mut stream = TcpStream::connect((SERVER, PORT)).await.expect("it listens");
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("it is taken");
        assert_eq!(stream.read_to_end(&mut answer).await.ok().unwrap_or(0), 0, "it says nothing");
        assert_eq!(desk.handled(), []);
        served(&*transport.link(&target(), Lane::Append), 2).await;
    });
}

#[test]
fn what_was_held_back_comes_in_order_and_once() {
    for seed in SEEDS {
        let desk = Arc::new(Desk::default());
        run(seed, &desk, |desk| async move {
            let transport = transport();
            let link = transport.link(&target(), Lane::Append);
            served(&*link, 0).await;
            turmoil::hold("client", SERVER);
            let asked: Vec<_> = (1..200).map(|n| ask(&*link, n, &number(n))).collect();
            sleep(Duration::from_secs(30)).await;
            assert_eq!(desk.handled(), [0], "nothing came through");
            turmoil::release("client", SERVER);
            for (n, asked) in (1..).zip(asked) {
                assert_eq!(told(asked).await.expect("an answer"), number(n));
            }
            assert_eq!(desk.handled(), (0..200).collect::<Vec<_>>());
        });
    }
}

#[test]
fn a_server_that_starts_again_leaves_what_was_out_in_doubt_and_nothing_is_sent_twice() {
    for seed in SEEDS {
        let desk = Arc::new(Desk::default());
        let mut sim = sim(seed);
        host(&mut sim, &desk);
        let (answered, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (sent, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = [answered.clone(), lost.clone(), sent.clone(), done.clone()];
        sim.client("client", async move {
            let [answered, lost, sent, done] = counts;
            let transport = transport();
            let link = transport.link(&target(), Lane::Append);
            served(&*link, 0).await;
            while sent.load(Ordering::Relaxed) < 2000 {
                let n = 1 + sent.fetch_add(1, Ordering::Relaxed) as u32;
                let asked = ask(&*link, n, &number(n));
                let (answered, lost, done) = (answered.clone(), lost.clone(), done.clone());
                tokio::spawn(async move {
                    match limited(told(asked)).await {
                        Ok(body) => {
                            assert_eq!(body, number(n));
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(NetError::Lost(_)) => drop(lost.fetch_add(1, Ordering::Relaxed)),
                        Err(NetError::NotSent(_)) => {}
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                });
                sleep(Duration::from_millis(1)).await;
            }
            while done.load(Ordering::Relaxed) < 2000 {
                sleep(Duration::from_millis(1)).await;
            }
            served(&*link, 5000).await;
            Ok(())
        });
        for restart in 1.. {
            while sent.load(Ordering::Relaxed) < 400 * restart
                && done.load(Ordering::Relaxed) < 2000
            {
                sim.step().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            if restart == 5 {
                break;
            }
            sim.crash(SERVER);
            sim.bounce(SERVER);
        }
        sim.run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let (answered, lost) = (answered.load(Ordering::Relaxed), lost.load(Ordering::Relaxed));
        assert!(answered > 500 && lost > 0, "seed {seed}: {answered} answered, {lost} lost");
        assert_once(&desk.handled());
        assert!(desk.handled().len() <= answered + lost + 2, "what was not sent did nothing");
    }
}

#[test]
fn a_transport_that_closes_tells_everybody_who_waits() {
    let desk = Desk::holding();
    run(7, &desk, |desk| async move {
        let transport = transport();
        let up = transport.link(&target(), Lane::Append);
        let out = ask(&*up, 1, &number(1));
        while desk.handled().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        let queued = ask(&*transport.link(&target(), Lane::Control), 2, &number(2));
        transport.close();
        assert!(matches!(told(out).await, Err(NetError::Lost(_))));
        assert!(matches!(told(queued).await, Err(NetError::NotSent(_))));
        let late = told(ask(&*up, 3, &number(3))).await;
        assert!(matches!(late, Err(NetError::NotSent(_))), "{late:?}");
        while desk.gone.load(Ordering::Relaxed) == 0 {
            sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(desk.handled(), [1]);
    });
}
