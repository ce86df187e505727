//! Real daemons that are stopped, cut off, filled up and flooded, one fault at a time.
//!
//! The chaos run draws many faults at once and judges what was seen; here each has a name, and what it
//! has to come to is said beforehand. Numbers in names are those of the list of tests for NativeLoglet.
//! Daemons, proxies and disks are those of the chaos run.

#[allow(dead_code, reason = "the chaos run uses all of it")]
#[path = "../examples/chaos/nodes.rs"]
mod nodes;
#[allow(dead_code, reason = "the chaos run uses all of it")]
#[path = "../examples/chaos/proxy.rs"]
mod proxy;
#[allow(dead_code, reason = "the chaos run uses all of it")]
#[path = "../examples/chaos/volume.rs"]
mod volume;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use virtuallog::{ErrorCode, LogPos, Result, VirtualLog, server};

use nodes::Nodes;
use proxy::{Fault, Party};
use volume::Volume;

/// Far more than anything here takes; only a hang meets it.
const HANG: Duration = Duration::from_secs(90);

struct Cluster {
    nodes: Nodes,
    // Goes last: the nodes are in it.
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start(count: usize, ext4: bool) -> Cluster {
        let folder = tempfile::tempdir().expect("a directory");
        let daemon = Path::new(env!("CARGO_BIN_EXE_virtuallogd"));
        let nodes = Nodes::start(folder.path(), count, daemon, ext4).await.expect("a cluster");
        Cluster { nodes, _folder: folder }
    }

    async fn open(&self, log: &str) -> VirtualLog {
        VirtualLog::open(&self.nodes.url(log)).await.expect("a log")
    }

    /// The index of the node that sequences the log's open segment; asked until somebody knows.
    async fn sequencer(&self, log: &str) -> usize {
        let rows = within(async {
            loop {
                if let Ok(rows) = server::status(&self.nodes.url(log)).await {
                    return rows;
                }
            }
        });
        let rows = rows.await;
        let (_, active) = rows.last().expect("a segment");
        active.as_ref().expect("native").sequencer as usize - 1
    }

    /// Both directions between a node and others.
    fn between(one: usize, others: impl IntoIterator<Item = Party>) -> Vec<(Party, Party)> {
        let one = Party::Node(one);
        others.into_iter().flat_map(|other| [(one, other), (other, one)]).collect()
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, work).await.expect("in time")
}

async fn append(log: &VirtualLog, number: u64) -> Result<LogPos> {
    within(log.append(number.to_string())).await
}

/// Every number once, each where it was acknowledged.
async fn assert_holds(log: &VirtualLog, acked: &BTreeMap<u64, LogPos>) {
    let mut reader = within(log.read(LogPos(0), None)).await.expect("a reader");
    let mut found = BTreeMap::new();
    while let Some(entry) = within(reader.next()).await.expect("an entry") {
        let number = String::from_utf8(entry.payload.to_vec()).expect("text");
        let number = number.parse::<u64>().expect("a number");
        assert_eq!(found.insert(number, entry.position), None, "{number} is there twice");
    }
    assert_eq!(&found, acked);
}

#[tokio::test(flavor = "multi_thread")]
async fn t49_a_stopped_sequencer_acknowledges_nothing_when_it_wakes() {
    let cluster = Cluster::start(3, false).await;
    let (stuck, other) = (cluster.open("x?timeout=none").await, cluster.open("x").await);
    let mut acked = BTreeMap::new();
    for number in 0..50 {
        acked.insert(number, append(&stuck, number).await.expect("an append"));
    }
    let victim = cluster.sequencer("x").await;
    cluster.nodes.nodes[victim].signal(Signal::STOP).await.expect("stopped");
    // These go to the one that sleeps, and wait in its sockets.
    let out: Vec<_> = (50..150).map(|number| (number, stuck.append(number.to_string()))).collect();
    for number in 150..200 {
        acked.insert(number, append(&other, number).await.expect("it goes on elsewhere"));
    }
    assert_ne!(cluster.sequencer("x").await, victim);
    cluster.nodes.nodes[victim].signal(Signal::CONT).await.expect("woken");
    // An answer of the old sequencer would name a position that the log gave to another entry.
    for (number, append) in out {
        acked.insert(number, within(append).await.expect("an append"));
    }
    for number in 200..220 {
        acked.insert(number, append(&stuck, number).await.expect("an append"));
    }
    assert_holds(&other, &acked).await;
    cluster.nodes.end().await.expect("it ends in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn t51_a_sequencer_that_sees_clients_and_no_log_server_is_replaced() {
    let cluster = Cluster::start(3, false).await;
    let log = cluster.open("x").await;
    let mut acked = BTreeMap::new();
    for (round, fault) in [Fault::Cut, Fault::Stall].into_iter().enumerate() {
        let from = 100 * round as u64;
        for number in from..from + 50 {
            acked.insert(number, append(&log, number).await.expect("an append"));
        }
        let victim = cluster.sequencer("x").await;
        let others = (0..3).filter(|node| *node != victim).map(Party::Node);
        let ways = Cluster::between(victim, others);
        cluster.nodes.network.fail(&ways, fault);
        for number in from + 50..from + 100 {
            acked.insert(number, append(&log, number).await.expect("it goes on elsewhere"));
        }
        assert_ne!(cluster.sequencer("x").await, victim);
        cluster.nodes.network.heal(&ways);
        assert_holds(&log, &acked).await;
    }
    cluster.nodes.end().await.expect("it ends in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn t51_a_sequencer_that_sees_log_servers_and_no_client_loses_nothing() {
    let cluster = Cluster::start(3, false).await;
    let log = cluster.open("x?timeout=none").await;
    let mut acked = BTreeMap::new();
    for (round, fault) in [Fault::Cut, Fault::Stall, Fault::Vanish].into_iter().enumerate() {
        let from = 100 * round as u64;
        for number in from..from + 50 {
            acked.insert(number, append(&log, number).await.expect("an append"));
        }
        let victim = cluster.sequencer("x").await;
        let ways = Cluster::between(victim, [Party::Client]);
        cluster.nodes.network.fail(&ways, fault);
        let out: Vec<_> = (from + 50..from + 100)
            .map(|number| (number, log.append(number.to_string())))
            .collect();
        // Its own kind see it alive, so it may stay; a tail needs a majority, which is there.
        let other = cluster.open("x").await;
        let tail = within(other.check_tail()).await.expect("a tail");
        assert!(tail.position >= LogPos(from + 50) && !tail.sealed, "{tail:?}");
        cluster.nodes.network.heal(&ways);
        for (number, append) in out {
            acked.insert(number, within(append).await.expect("an append"));
        }
        assert_holds(&log, &acked).await;
    }
    cluster.nodes.end().await.expect("it ends in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_starts_again_is_never_taken_for_one_of_no_cluster() {
    let cluster = Cluster::start(1, false).await;
    let (node, url) = (&cluster.nodes.nodes[0], cluster.nodes.url("x"));
    for _ in 0..10 {
        node.kill().await.expect("killed");
        // Whatever moment of its start this meets: it is worth another try.
        let opened = within(async {
            loop {
                match VirtualLog::open(&url).await {
                    Ok(log) => return log,
                    Err(error) => assert!(error.is_retryable(), "{error:?}"),
                }
            }
        });
        let (started, log) = tokio::join!(node.start(), opened);
        started.expect("it starts");
        log.close().await.expect("closed");
    }
    cluster.nodes.end().await.expect("it ends in order");
}

/// What went over the connections to one address, each apart.
type Taped = Arc<Mutex<Vec<Vec<u8>>>>;

/// Forwards connections to `to` and keeps what comes in. Ends with the runtime.
async fn tape(to: SocketAddr) -> (SocketAddr, Taped) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let taped = Taped::default();
    let all = taped.clone();
    tokio::spawn(async move {
        while let Ok((from, _)) = listener.accept().await {
            let at = {
                let mut all = all.lock().expect("no panic");
                all.push(Vec::new());
                all.len() - 1
            };
            let all = all.clone();
            tokio::spawn(async move {
                let Ok(to) = TcpStream::connect(to).await else { return };
                let ((mut from, mut back), (mut answers, mut to)) =
                    (from.into_split(), to.into_split());
                let there = async {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(count @ 1..) = from.read(&mut buffer).await {
                        all.lock().expect("no panic")[at].extend_from_slice(&buffer[..count]);
                        if to.write_all(&buffer[..count]).await.is_err() {
                            break;
                        }
                    }
                };
                // Either end may go at any time.
                let _ = tokio::join!(there, tokio::io::copy(&mut answers, &mut back));
            });
        }
    });
    (address, taped)
}

/// A daemon of its own that advertises `advertise`.
fn daemon(dir: &Path, listen: SocketAddr, advertise: SocketAddr) -> tokio::process::Child {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_virtuallogd"));
    command.arg("--data").arg(dir).args(["--listen", &listen.to_string()]);
    command.args(["--advertise", &advertise.to_string(), "--log", "off"]);
    command.args(["--heartbeat", "50ms", "--suspect-after", "700ms"]);
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    command.stdout(std::process::Stdio::null()).spawn().expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_an_earlier_life_change_nothing() {
    let folder = tempfile::tempdir().expect("a directory");
    let mut places = Vec::new();
    for node in 0..3 {
        let listen = std::net::TcpListener::bind("127.0.0.2:0").expect("a port");
        let listen = listen.local_addr().expect("its address");
        let (advertise, taped) = tape(listen).await;
        places.push((folder.path().join(node.to_string()), listen, advertise, taped));
    }
    let start =
        || places.iter().map(|(dir, listen, advertise, _)| daemon(dir, *listen, *advertise));
    let mut lives: Vec<_> = start().collect();
    let addresses: Vec<_> = places.iter().map(|(_, _, address, _)| address.to_string()).collect();
    within(async { while server::init(&addresses).await.is_err() {} }).await;
    let url = format!("virtuallog://{}/x", addresses.join(","));
    let log = VirtualLog::open(&url).await.expect("a log");
    let mut acked = BTreeMap::new();
    for number in 0..100 {
        acked.insert(number, append(&log, number).await.expect("an append"));
        if number == 50 {
            log.reconfig_extend("native:3", None).await.expect("extended");
        }
    }
    let old: Vec<Vec<Vec<u8>>> =
        places.iter().map(|(.., taped)| taped.lock().expect("no panic").clone()).collect();
    assert!(old.iter().flatten().map(Vec::len).sum::<usize>() > 10_000, "much was said");
    for life in &mut lives {
        life.kill().await.expect("killed");
    }
    lives = start().collect();
    for number in 100..150 {
        acked.insert(number, append(&log, number).await.expect("an append"));
    }
    // All that anybody ever said to a node, once more: of nodes and of clients that are gone.
    for ((_, listen, ..), streams) in places.iter().zip(&old) {
        for bytes in streams {
            let mut stream = TcpStream::connect(listen).await.expect("it listens");
            // It may hang up at any byte.
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let _ = within(stream.read_to_end(&mut Vec::new())).await;
        }
    }
    for number in 150..200 {
        acked.insert(number, append(&log, number).await.expect("an append"));
    }
    assert_holds(&log, &acked).await;
    for life in &mut lives {
        assert_eq!(life.try_wait().expect("its state"), None, "it lives on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_appends_and_nothing_else_and_a_trim_frees_it() {
    if !Volume::can_lose_power() {
        println!("SKIPPED: a full disk needs root, loop devices and mkfs.ext4");
        return;
    }
    let cluster = Cluster::start(1, true).await;
    let (log, ending) = (cluster.open("x").await, cluster.open("ending").await);
    ending.append("last words").await.expect("an append");
    // More than a file of the store, so that a trim has a file to take away.
    let batch = vec![vec![7; 1 << 20]; 4];
    for _ in 0..40 {
        within(log.append_many(batch.clone())).await.expect("an append");
    }
    let volume = &cluster.nodes.nodes[0].volume;
    assert!(volume.fill().expect("filled"), "there was room");
    // What was taken before anybody knew is in doubt: it is in the log as soon as there is room. Whoever
    // comes then has a definite answer. Both at once, and with the reason.
    let taken = within(log.append_many(batch.clone())).await.expect_err("there is no room");
    assert_eq!(taken.code(), ErrorCode::DiskFull, "{taken:?}");
    let other = cluster.open("x").await;
    for log in [&log, &other] {
        let error = within(log.append_many(batch.clone())).await.expect_err("there is no room");
        assert_eq!(error.code(), ErrorCode::DiskFull, "{error:?}");
        assert!(!error.is_in_doubt(), "{error:?}");
    }
    // Reading, looking, ending and trimming go on.
    let tail = within(log.check_tail()).await.expect("a tail").position;
    let entry = within(log.read_next(LogPos(100), None)).await.expect("read").expect("an entry");
    assert_eq!(entry.payload.len(), 1 << 20);
    let sealed = within(ending.seal()).await.expect("sealed");
    assert!(sealed.sealed && sealed.position == LogPos(1));
    let keep = LogPos(tail.0 - 1);
    assert_eq!(within(log.prefix_trim(keep)).await.expect("trimmed").effective, keep);
    // The room comes back without a restart, and nobody has to say so.
    within(async { while other.append("there is room again").await.is_err() {} }).await;
    within(async { while log.append("for everybody").await.is_err() {} }).await;
    assert!(cluster.nodes.nodes[0].pid().await.is_some());
    let last = within(log.read_next(keep, None)).await.expect("read").expect("an entry");
    assert_eq!(last.payload.len(), 1 << 20, "what was acknowledged is there");
    drop((log, other, ending));
    volume.empty().expect("emptied");
    cluster.nodes.end().await.expect("it ends in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_one_node_holds_nobody_back() {
    if !Volume::can_lose_power() {
        println!("SKIPPED: a full disk needs root, loop devices and mkfs.ext4");
        return;
    }
    let cluster = Cluster::start(3, true).await;
    let log = cluster.open("x").await;
    let mut acked = BTreeMap::new();
    for (round, sequencer) in [false, true].into_iter().enumerate() {
        let from = 200 * round as u64;
        for number in from..from + 50 {
            acked.insert(number, append(&log, number).await.expect("an append"));
        }
        let sequences = cluster.sequencer("x").await;
        let victim = if sequencer { sequences } else { (sequences + 1) % 3 };
        let volume = &cluster.nodes.nodes[victim].volume;
        assert!(volume.fill().expect("filled"), "there was room");
        for number in from + 50..from + 150 {
            acked.insert(number, append(&log, number).await.expect("a majority has room"));
        }
        volume.empty().expect("emptied");
        for number in from + 150..from + 200 {
            acked.insert(number, append(&log, number).await.expect("an append"));
        }
        assert_holds(&log, &acked).await;
    }
    cluster.nodes.end().await.expect("it ends in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_meets_busy_and_memory_stays_flat() {
    const WRITERS: usize = 12;
    const ENTRIES: usize = 3000;
    /// Of one node, in kilobytes.
    const RESIDENT_KB_MAX: u64 = 300 << 10;
    let cluster = Cluster::start(3, false).await;
    let payload = vec![7u8; 4096];
    let url = cluster.nodes.url("x?in_flight_bytes_max=1048576&timeout=none");
    let flood = (0..WRITERS).map(|_| async {
        let log = VirtualLog::open(&url).await.expect("a log");
        let (mut out, mut refused) = (Vec::new(), 0usize);
        // Twelve times what its window holds, at once: what it has no room for is refused.
        while out.len() < ENTRIES {
            match log.append_nowait(payload.clone()) {
                Ok(append) => out.push(append),
                Err(error) => {
                    assert_eq!(error.code(), ErrorCode::Busy, "{error:?}");
                    assert!(!error.is_in_doubt());
                    refused += 1;
                    tokio::task::yield_now().await;
                }
            }
        }
        for append in out {
            append.await.expect("an append");
        }
        refused
    });
    let watch = async {
        let mut most = 0;
        loop {
            for node in &cluster.nodes.nodes {
                most = most.max(node.resident_kb().await);
            }
            assert!(most < RESIDENT_KB_MAX, "{most} kB");
            tokio::task::yield_now().await;
        }
    };
    let flood = futures_util::future::join_all(flood);
    let refused = tokio::select! {
        refused = within(flood) => refused,
        () = watch => unreachable!("it watches for ever"),
    };
    assert!(refused.iter().all(|refused| *refused > 0), "everybody met it: {refused:?}");
    let log = cluster.open("x").await;
    let tail = within(log.check_tail()).await.expect("a tail").position;
    assert_eq!(tail, LogPos((WRITERS * ENTRIES) as u64), "what was taken is there, once");
    cluster.nodes.end().await.expect("it ends in order");
}
