//! The embedded MetaStore on clusters of 1, 3 and 5: the contract of a MetaStore through any member,
//! over a network that loses, doubles and delays, on disks that stop; and members that change.
//!
//! Servers are joined in memory, by the bytes that would travel. What the network does comes from a
//! seed; where time plays a part, it is tokio's, paused.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use virtuallog::ErrorCode;
use virtuallog::error::BoxError;
use virtuallog::metastore::{MetaError, MetaStore, Version, Versioned};
use virtuallog::metastores::paxos::{PaxosNode, Peers};
use virtuallog::protocol::paxos::{Ask, Member, PaxosRequest, Register};
use virtuallog::storage::RealDisk;
use virtuallog::storage::disk::Disk;
use virtuallog::testing::Rng;
use virtuallog::testing::history::{self, Final, Outcome, Recorder, What};
use virtuallog::testing::metastore_suite::metastore_suite;
use virtuallog::testing::simdisk::SimDisk;

const CLUSTER: u128 = 7;

fn member(node: u32) -> Member {
    Member::new(node, u128::from(node))
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic under this lock")
}

/// Decides about a request, by who asks whom: false loses it.
type Passes = Box<dyn Fn(u32, u32, &Ask) -> bool + Send + Sync>;

/// What joins the servers.
struct Net {
    /// By node alone: a server whose disk was replaced gets what was meant for the old one.
    nodes: Mutex<HashMap<u32, PaxosNode>>,
    rng: Mutex<Rng>,
    /// Of 100 requests and of 100 answers, how many are lost; of 100 requests, how many come twice.
    lost: u64,
    doubled: u64,
    /// The longest delay, in milliseconds.
    delay: u64,
    passes: Mutex<Passes>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Net")
    }
}

impl Net {
    fn new(seed: u64, lost: u64, doubled: u64, delay: u64) -> Arc<Net> {
        Arc::new(Net {
            nodes: Mutex::default(),
            rng: Mutex::new(Rng::new(seed)),
            lost,
            doubled,
            delay,
            passes: Mutex::new(Box::new(|_, _, _| true)),
        })
    }

    fn reliable() -> Arc<Net> {
        Net::new(0, 0, 0, 0)
    }

    fn filter(&self, passes: impl Fn(u32, u32, &Ask) -> bool + Send + Sync + 'static) {
        *held(&self.passes) = Box::new(passes);
    }

    fn node(&self, node: u32) -> Option<PaxosNode> {
        held(&self.nodes).get(&node).cloned()
    }

    fn chance(&self, percent: u64) -> bool {
        held(&self.rng).chance(percent)
    }

    async fn delayed(&self) {
        if self.delay > 0 {
            let millis = held(&self.rng).below(self.delay + 1);
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
    }

    /// Opens a server on a disk of its own, and joins it to the others.
    async fn open(self: &Arc<Net>, me: Member, disk: &Arc<dyn Disk>) -> PaxosNode {
        let peers: Arc<dyn Peers> = Arc::new(Wire(self.clone(), me.node));
        let opened = PaxosNode::open(disk.clone(), Path::new("/paxos"), me, peers);
        let node = opened.expect("opens");
        node.set_voting(true);
        held(&self.nodes).insert(me.node, node.clone());
        node
    }

    async fn stop(&self, node: u32) {
        let stopped = held(&self.nodes).remove(&node);
        stopped.expect("it runs").close().await;
    }
}

#[derive(Debug)]
struct Wire(Arc<Net>, u32);

impl Peers for Wire {
    fn call(&self, to: Member, request: Bytes) -> BoxFuture<'static, Result<Bytes, BoxError>> {
        let (net, me) = (self.0.clone(), self.1);
        Box::pin(async move {
            net.delayed().await;
            let asked = PaxosRequest::from_bytes(request.clone()).expect("peers make sense");
            let passes = held(&net.passes)(me, to.node, asked.ask.as_ref().expect("a question"));
            if !passes {
                return Err("filtered".into());
            }
            if net.chance(net.lost) {
                return std::future::pending().await;
            }
            let node = net.node(to.node).ok_or("connection refused")?;
            if net.chance(net.doubled) {
                let (net, node, request) = (net.clone(), node.clone(), request.clone());
                tokio::spawn(async move {
                    net.delayed().await;
                    node.handle(request).await
                });
            }
            let reply = node.handle(request).await;
            if net.chance(net.lost) {
                return std::future::pending().await;
            }
            net.delayed().await;
            Ok(reply)
        })
    }
}

/// A cluster of servers 1 to `count`, each with its simulated disk.
struct Cluster {
    net: Arc<Net>,
    disks: Vec<SimDisk>,
    nodes: Vec<PaxosNode>,
}

impl Cluster {
    async fn new(net: Arc<Net>, count: u32) -> Cluster {
        let disks = (0..count).map(|_| SimDisk::new()).collect();
        let mut cluster = Cluster { net, disks, nodes: Vec::new() };
        cluster.open().await;
        let members = (1..=count).map(member).collect();
        cluster.nodes[0].init(CLUSTER, members, BTreeMap::new()).await.expect("begins");
        cluster.all_know(1).await;
        cluster
    }

    async fn open(&mut self) {
        for (index, disk) in self.disks.iter().enumerate() {
            let disk: Arc<dyn Disk> = Arc::new(disk.clone());
            self.nodes.push(self.net.open(member(index as u32 + 1), &disk).await);
        }
    }

    async fn reopen(&mut self) {
        for node in self.nodes.drain(..) {
            node.close().await;
        }
        self.open().await;
    }

    /// Waits until every server has applied `instance`.
    async fn all_know(&self, instance: u64) {
        for node in &self.nodes {
            node.applied().wait_for(|applied| *applied >= instance).await.expect("it runs");
        }
    }

    fn client(&self) -> Anywhere {
        Anywhere { nodes: self.nodes.clone(), next: AtomicUsize::new(0) }
    }
}

/// A client that asks one server after the other, and again where there is no answer.
#[derive(Debug)]
struct Anywhere {
    nodes: Vec<PaxosNode>,
    next: AtomicUsize,
}

impl Anywhere {
    async fn ask<T, F>(&self, call: impl Fn(PaxosNode) -> F) -> Result<T, MetaError>
    where
        F: Future<Output = Result<T, MetaError>>,
    {
        let mut tries = 0;
        loop {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            match call(self.nodes[next % self.nodes.len()].clone()).await {
                Err(MetaError::Unavailable(_)) if tries < 20 => tries += 1,
                answer => return answer,
            }
        }
    }
}

/// Waits until a server that joins was told of its cluster: a majority knows that it does, and tells.
async fn told(node: &PaxosNode) {
    node.applied().wait_for(|applied| *applied > 0).await.expect("it runs");
}

static NONCE: AtomicUsize = AtomicUsize::new(1);

#[async_trait::async_trait]
impl MetaStore for Anywhere {
    async fn get(&self, name: &str) -> Result<Versioned, MetaError> {
        self.ask(|node| async move { node.get(name).await }).await
    }

    async fn put_if(
        &self,
        name: &str,
        value: Option<Bytes>,
        expected: Version,
    ) -> Result<Version, MetaError> {
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed) as u128;
        let value = &value;
        self.ask(|node| async move { node.put(name, value.clone(), expected, nonce).await }).await
    }

    async fn watch(&self, name: &str, after: Version) -> Result<Versioned, MetaError> {
        self.ask(|node| async move { node.watch(name, after).await }).await
    }

    async fn list(&self) -> Result<Vec<String>, MetaError> {
        self.ask(|node| async move { node.list().await }).await
    }
}

fn text(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

async fn suite(net: Arc<Net>, count: u32) {
    let cluster = tokio::sync::Mutex::new(Cluster::new(net, count).await);
    let open = || async {
        let mut cluster = cluster.lock().await;
        cluster.reopen().await;
        Arc::new(cluster.client()) as Arc<dyn MetaStore>
    };
    metastore_suite(open).await.expect("the contract");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_member_is_a_metastore() {
    suite(Net::reliable(), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn three_members_are_a_metastore() {
    suite(Net::reliable(), 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_members_are_a_metastore() {
    suite(Net::reliable(), 5).await;
}

#[tokio::test(start_paused = true)]
async fn three_members_on_a_bad_network_are_a_metastore() {
    for seed in 0..3 {
        suite(Net::new(seed, 3, 10, 5), 3).await;
    }
}

#[tokio::test(start_paused = true)]
async fn five_members_on_a_bad_network_are_a_metastore() {
    suite(Net::new(9, 3, 10, 5), 5).await;
}

/// On a real disk, in real time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_real_disk_keeps_what_was_answered() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("paxos");
    let peers = || -> Arc<dyn Peers> { Arc::new(Wire(Net::reliable(), 1)) };
    let open = || PaxosNode::open(Arc::new(RealDisk), &path, member(1), peers()).expect("opens");
    let node = open();
    node.set_voting(true);
    node.init(CLUSTER, vec![member(1)], BTreeMap::new()).await.expect("begins");
    assert_eq!(node.put_if("a", text("one"), 0).await.expect("written"), 1);
    node.close().await;
    assert!(matches!(node.get("a").await, Err(MetaError::Unavailable(_))));
    let node = open();
    node.set_voting(true);
    assert_eq!(node.get("a").await.expect("read").value, text("one"));
    node.init(CLUSTER, vec![member(1)], BTreeMap::new()).await.expect("happened already");
    node.init(8, vec![member(1)], BTreeMap::new()).await.expect_err("part of another cluster");
    let other = PaxosNode::open(Arc::new(RealDisk), &path, member(2), peers());
    other.expect_err("somebody else's directory");
}

#[tokio::test(start_paused = true)]
async fn initial_registers_are_there() {
    let net = Net::reliable();
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let node = net.open(member(1), &disk).await;
    assert!(matches!(node.get("_cluster").await, Err(MetaError::Unavailable(_))), "no cluster yet");
    assert!(matches!(node.put_if("a", None, 0).await, Err(MetaError::Unavailable(_))));
    let register = Register { version: 1, value: text("nodes") };
    let registers = BTreeMap::from([("_cluster".to_owned(), register)]);
    node.init(CLUSTER, vec![member(1)], registers).await.expect("begins");
    let read = node.get("_cluster").await.expect("read");
    assert_eq!(read, Versioned { value: text("nodes"), version: 1 });
}

#[tokio::test(start_paused = true)]
async fn members_are_replaced_until_none_of_the_first_is_left() {
    let net = Net::reliable();
    let mut cluster = Cluster::new(net.clone(), 3).await;
    for node in 4..=6 {
        cluster.disks.push(SimDisk::new());
        let disk: Arc<dyn Disk> = Arc::new(cluster.disks[node as usize - 1].clone());
        cluster.nodes.push(net.open(member(node), &disk).await);
    }
    for leaves in 1..=3 {
        let members = (leaves + 1..=leaves + 3).map(member).collect();
        let asked = cluster.nodes[leaves as usize - 1].change_members(members);
        asked.await.expect("replaced");
        net.stop(leaves).await;
        let next = &cluster.nodes[leaves as usize];
        told(next).await;
        let now = next.get("a").await.expect("read");
        let put = next.put_if("a", text(&format!("without {leaves}")), now.version).await;
        assert_eq!(put.expect("written"), now.version + 1);
    }
    told(&cluster.nodes[5]).await;
    let last = cluster.nodes[5].get("a").await.expect("read");
    assert_eq!(last.value, text("without 3"));
    assert_eq!(cluster.nodes[5].members(), [4, 5, 6].map(member));
    let too_many = [1, 2, 6].map(member).to_vec();
    let refused = cluster.nodes[5].change_members(too_many).await.expect_err("two at once");
    assert!(refused.message().contains("one by one"), "{refused}");
    // Who left says where it went on, to whoever still asks.
    let old = &cluster.disks[2];
    let disk: Arc<dyn Disk> = Arc::new(old.clone());
    let old = net.open(member(3), &disk).await;
    assert_eq!(old.members(), [4, 5, 6].map(member));
    assert_eq!(old.get("a").await.expect("read"), last);
}

/// One that would only be counted makes the members fewer who can answer.
#[tokio::test(start_paused = true)]
async fn who_does_not_vote_or_answer_is_not_taken_in() {
    let net = Net::reliable();
    let cluster = Cluster::new(net.clone(), 1).await;
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let second = net.open(member(2), &disk).await;
    second.set_voting(false);
    let both = || [1, 2].map(member).to_vec();
    for silent in [false, true] {
        if silent {
            net.stop(2).await;
        }
        let refused = cluster.nodes[0].change_members(both()).await.expect_err("not taken in");
        assert_eq!(refused.code(), ErrorCode::Unavailable);
        assert_eq!(cluster.nodes[0].members(), [member(1)]);
    }
    net.open(member(2), &disk).await.set_voting(true);
    cluster.nodes[0].change_members(both()).await.expect("it votes now");
}

/// The proposer is gone before anybody was told of the decision.
#[tokio::test(start_paused = true)]
async fn what_was_answered_is_found_without_the_proposer() {
    let cluster = Cluster::new(Net::reliable(), 3).await;
    cluster.nodes[0].put_if("a", text("one"), 0).await.expect("written");
    cluster.all_know(2).await;
    cluster.net.filter(|_, _, ask| !matches!(ask, Ask::Learn(_)));
    cluster.nodes[0].put_if("a", text("two"), 1).await.expect("written");
    cluster.net.stop(1).await;
    let found = cluster.nodes[1].get("a").await.expect("read");
    assert_eq!(found, Versioned { value: text("two"), version: 2 });
    assert_eq!(cluster.nodes[2].get("a").await.expect("read"), found);
}

/// The proposer has its own vote and no other: nobody knows whether it will be decided.
#[tokio::test(start_paused = true)]
async fn what_was_half_written_is_there_or_not_and_stays_so() {
    for asked_first in [0, 1] {
        let cluster = Cluster::new(Net::reliable(), 3).await;
        cluster.nodes[0].put_if("a", text("one"), 0).await.expect("written");
        cluster.net.filter(|_, _, ask| !matches!(ask, Ask::Accept(_)));
        let half = cluster.nodes[0].put_if("a", text("two"), 1).await;
        assert!(matches!(half, Err(MetaError::Unavailable(_))), "{half:?}");
        cluster.net.filter(|_, _, _| true);
        let first = cluster.nodes[asked_first].get("a").await.expect("read");
        for node in cluster.nodes.iter().chain(&cluster.nodes) {
            let again = node.get("a").await.expect("read");
            assert!(again.version >= first.version, "{again:?} after {first:?}");
        }
        let now = cluster.nodes[2].get("a").await.expect("read").version;
        let put = cluster.nodes[2].put_if("a", text("three"), now).await;
        assert_eq!(put.expect("written"), now + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_asked_for_again_counts_once() {
    let cluster = Cluster::new(Net::reliable(), 3).await;
    let put = |node: usize, nonce| cluster.nodes[node].put("a", text("x"), 0, nonce);
    assert_eq!(put(0, 1).await.expect("written"), 1);
    assert_eq!(put(1, 1).await.expect("known again"), 1);
    assert!(
        matches!(put(2, 2).await, Err(MetaError::Conflict { current }) if current.version == 1)
    );
    cluster.nodes[0].put_if("a", text("y"), 1).await.expect("written");
    assert_eq!(put(2, 1).await.expect("known again"), 1);
    let big = Some(Bytes::from(vec![0; (4 << 20) + 1]));
    assert!(matches!(put(0, 3).await, Err(MetaError::Conflict { .. })));
    let refused = cluster.nodes[0].put("big", big, 0, 4).await;
    assert!(matches!(refused, Err(MetaError::Refused(_))), "{refused:?}");
}

/// Votes of a disk that may have forgotten, and of one that replaced it, count for nothing.
#[tokio::test(start_paused = true)]
async fn a_disk_that_forgot_does_not_vote() {
    let cluster = Cluster::new(Net::reliable(), 3).await;
    cluster.nodes[0].put_if("a", text("one"), 0).await.expect("written");
    cluster.net.stop(2).await;
    cluster.net.stop(3).await;
    let blank = |storage| {
        let (net, disk) = (cluster.net.clone(), Arc::new(SimDisk::new()) as Arc<dyn Disk>);
        async move { net.open(Member::new(3, storage), &disk).await }
    };
    let alone = &cluster.nodes[0];
    let other_disk = blank(33).await;
    assert!(matches!(alone.get("a").await, Err(MetaError::Unavailable(_))));
    assert!(matches!(alone.put_if("a", None, 1).await, Err(MetaError::Unavailable(_))));
    assert_eq!(other_disk.members(), [1, 2, 3].map(member), "it learned, and has no vote");
    cluster.net.stop(3).await;
    let same_name = blank(3).await;
    same_name.set_voting(false);
    assert!(matches!(alone.get("a").await, Err(MetaError::Unavailable(_))));
    assert!(matches!(alone.put_if("a", None, 1).await, Err(MetaError::Unavailable(_))));
    // What was asked for meanwhile may still be decided.
    same_name.set_voting(true);
    let now = alone.get("a").await.expect("a majority votes");
    assert!(now.version <= 3, "{now:?}");
}

/// A minority that is cut off changes nothing, and neither answers; it catches up by itself.
#[tokio::test(start_paused = true)]
async fn a_minority_is_useless_and_catches_up() {
    let cluster = Cluster::new(Net::reliable(), 3).await;
    cluster.nodes[0].put_if("a", text("one"), 0).await.expect("written");
    cluster.nodes[2].get("a").await.expect("read");
    cluster.net.filter(|_, to, _| to != 3);
    for version in 1..=200 {
        let value = text(&format!("{version}"));
        cluster.nodes[version as usize % 2].put_if("a", value, version).await.expect("written");
    }
    let watched = cluster.nodes[2].clone();
    let watcher = tokio::spawn(async move { watched.watch("a", 200).await });
    cluster.net.filter(|_, _, _| true);
    let seen = watcher.await.expect("no panic").expect("watched");
    assert_eq!(seen, Versioned { value: text("200"), version: 201 });
}

#[tokio::test(start_paused = true)]
async fn a_thousand_logs() {
    let cluster = Cluster::new(Net::new(1, 0, 0, 1), 3).await;
    cluster.net.filter(|_, to, _| to != 3);
    let before = *cluster.nodes[0].applied().borrow();
    let value = |log: usize, round| Some(Bytes::from(vec![(log + round) as u8; 1024]));
    for round in 0..2 {
        let puts = (0..1000).map(|log| {
            let node = &cluster.nodes[log % 2];
            let value = value(log, round);
            async move { node.put_if(&format!("log-{log}"), value, round as u64).await }
        });
        for put in join_all(puts).await {
            assert_eq!(put.expect("written"), round as u64 + 1);
        }
    }
    let decided = *cluster.nodes[0].applied().borrow() - before;
    assert!(decided < 100, "2,000 puts took {decided} instances");
    cluster.net.filter(|_, _, _| true);
    assert_eq!(cluster.nodes[2].list().await.expect("listed").len(), 1000);
    let registers = cluster.nodes[2].registers();
    assert!((0..1000).all(|log| registers.get(&format!("log-{log}")).value == value(log, 1)));
}

/// Five servers that all propose at once: random waits let each come through.
#[tokio::test(start_paused = true)]
async fn duelling_proposers_come_through() {
    let cluster = Cluster::new(Net::new(5, 0, 0, 2), 5).await;
    let rounds = Arc::new(Mutex::new(BTreeMap::new()));
    let seen = rounds.clone();
    cluster.net.filter(move |_, _, ask| {
        if let Ask::Prepare(prepare) = ask {
            let mut seen = held(&seen);
            let round: &mut u64 = seen.entry(prepare.instance).or_default();
            *round = prepare.ballot.round.max(*round);
        }
        true
    });
    let writers = cluster.nodes.iter().enumerate().map(|(index, node)| async move {
        for version in 0..40 {
            let put = node.put_if(&format!("mine-{index}"), text("x"), version).await;
            assert_eq!(put.expect("written"), version + 1);
        }
    });
    join_all(writers).await;
    let rounds = held(&rounds);
    let few = rounds.values().filter(|round| **round <= 5).count();
    assert!(few * 100 >= rounds.len() * 95, "{few} of {} took at most 5 rounds", rounds.len());
}

/// A short story, stopped at each operation of the first server's disk. What was answered is there,
/// whatever else the disk brought through.
#[tokio::test(start_paused = true)]
async fn nothing_that_was_answered_is_lost_at_any_stop_of_the_disk() {
    for count in [1, 3] {
        let mut stop = 1;
        loop {
            if stopped_at(count, stop).await {
                break;
            }
            stop += 1;
        }
        assert!(stop > 10, "the story has {stop} operations");
        println!("{count} servers: {stop} operations");
    }
}

/// True when the story ended before the stop.
async fn stopped_at(count: u32, stop: u64) -> bool {
    let disk = SimDisk::new();
    disk.stop_at(stop);
    let net = Net::reliable();
    let mut rng = Rng::new(stop);
    for node in 2..=count {
        net.open(member(node), &(Arc::new(SimDisk::new()) as Arc<dyn Disk>)).await;
    }
    let peers = || -> Arc<dyn Peers> { Arc::new(Wire(net.clone(), 1)) };
    let dir = Path::new("/paxos");
    let opened = PaxosNode::open(Arc::new(disk.clone()), dir, member(1), peers());
    let (mut begun, mut answered, mut asked) = (false, 0, 0);
    if let Ok(node) = &opened {
        node.set_voting(true);
        held(&net.nodes).insert(1, node.clone());
        let members = (1..=count).map(member).collect();
        begun = node.init(CLUSTER, members, BTreeMap::new()).await.is_ok();
        while begun && asked < 5 {
            asked += 1;
            let put = node.put_if("a", text(&format!("{asked}")), answered).await;
            match put {
                Ok(version) => answered = version,
                Err(_) => break,
            }
        }
        net.stop(1).await;
    }
    let ended = answered == 5 && disk.operations() < stop;
    drop(opened);
    let after = disk.crash(|_| rng.chance(50));
    let disk: Arc<dyn Disk> = Arc::new(after);
    let node = net.open(member(1), &disk).await;
    if !begun {
        let members = (1..=count).map(member).collect();
        node.init(CLUSTER, members, BTreeMap::new()).await.expect("begins, or has begun");
    }
    let now = node.get("a").await.expect("read");
    assert!((answered..=asked).contains(&now.version), "{stop}: {answered}, {asked}, {now:?}");
    let value = (now.version > 0).then(|| format!("{}", now.version).into());
    assert_eq!(now.value, value, "stopped at {stop}");
    let put = node.put_if("a", text("after"), now.version).await;
    assert_eq!(put.expect("goes on"), now.version + 1, "stopped at {stop}");
    ended
}

/// After a failed sync nothing is known, so nothing is answered until the server is opened again.
#[tokio::test(start_paused = true)]
async fn a_failed_sync_ends_it() {
    let mut cluster = Cluster::new(Net::reliable(), 1).await;
    let mut version = 0;
    for sync in 0..4 {
        let disk = cluster.disks[0].clone();
        disk.fail_sync(disk.syncs() + 1 + sync % 2);
        while let Ok(written) = cluster.nodes[0].put_if("a", text("x"), version).await {
            version = written;
        }
        assert!(cluster.nodes[0].failed().is_some());
        assert!(matches!(cluster.nodes[0].get("a").await, Ok(_) | Err(MetaError::Unavailable(_))));
        cluster.disks[0] = disk.crash(|_| false);
        cluster.reopen().await;
        let now = cluster.nodes[0].get("a").await.expect("read").version;
        assert!((version..=version + 1).contains(&now), "{now} after {version}");
        version = now;
    }
}

/// A full disk refuses, and takes back what it could not write; with room again, all goes on.
#[tokio::test(start_paused = true)]
async fn a_full_disk_forgets_nothing() {
    let cluster = Cluster::new(Net::reliable(), 1).await;
    let node = &cluster.nodes[0];
    assert_eq!(node.put_if("a", text("one"), 0).await.expect("written"), 1);
    cluster.disks[0].set_room(Some(10));
    assert!(matches!(node.put_if("a", text("two"), 1).await, Err(MetaError::Unavailable(_))));
    assert_eq!(node.get("a").await.expect("read").version, 1);
    cluster.disks[0].set_room(None);
    let now = node.get("a").await.expect("read").version;
    assert_eq!(node.put_if("a", text("three"), now).await.expect("written"), now + 1);
}

const CLIENTS: u64 = 5;
const CALLS: u64 = 30;

/// Clients race for one register while servers crash and come back, and while some cannot hear each
/// other. All that they saw has one order.
#[tokio::test(start_paused = true)]
async fn racing_clients_see_one_order_through_crashes_and_cuts() {
    for seed in 0..6 {
        through_crashes(seed, 3).await;
        through_crashes(100 + seed, 5).await;
    }
}

async fn through_crashes(seed: u64, count: u32) {
    let cluster = Cluster::new(Net::new(seed, 2, 5, 3), count).await;
    let (net, disks) = (cluster.net.clone(), cluster.disks.clone());
    drop(cluster);
    let recorder = Arc::new(Recorder::default());
    let clients = (0..CLIENTS).map(|client| {
        tokio::spawn(client_calls(net.clone(), recorder.clone(), client, Rng::new(seed ^ client)))
    });
    let clients: Vec<_> = clients.collect();
    let mut misfortunes = Misfortunes { net: net.clone(), disks, rng: Rng::new(!seed), count };
    while clients.iter().any(|client| !client.is_finished()) {
        misfortunes.next().await;
    }
    net.filter(|_, _, _| true);
    let (mut shown, mut unknown) = (Vec::new(), Vec::new());
    for client in clients {
        let (saw, lost) = client.await.expect("no panic");
        shown.extend(saw);
        unknown.extend(lost);
    }
    // One more version, so that what is asked for again below cannot be written now.
    let node = net.node(1).expect("it runs");
    let last = last_put(&node).await;
    let mut entries = BTreeMap::new();
    for (nonce, expected) in unknown {
        if let Ok(version) = node.put("a", token(nonce), expected, nonce.into()).await {
            entries.insert(version - 1, nonce);
        }
    }
    let mut ops = recorder.take();
    for op in &ops {
        if let What::Append { value, outcome: Outcome::Ok(position) } = op.what {
            assert!(entries.insert(position, value).is_none(), "{position} was won twice");
        }
    }
    for (version, value) in shown {
        let wrote = version.checked_sub(1).map(|at| token(entries[&at]));
        assert_eq!(Some(value), wrote.or(Some(None)), "seed {seed}: version {version}");
    }
    assert!(entries.keys().copied().eq(0..last), "seed {seed}: some version was won by nobody");
    ops.retain(|op| !matches!(op.what, What::Append { outcome: Outcome::Failed, .. }));
    let last = Final { base: 0, tail: last, entries: entries.into_iter().collect() };
    history::check(&ops, &last).unwrap_or_else(|complaint| panic!("seed {seed}: {complaint}"));
    assert!(last.tail > 5, "seed {seed}: only {} writes", last.tail);
}

fn token(nonce: u64) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(&nonce.to_le_bytes()))
}

/// Writes the last version of all. Gives the one before.
async fn last_put(node: &PaxosNode) -> u64 {
    loop {
        let last = node.get("a").await.expect("read").version;
        match node.put_if("a", text("end"), last).await {
            Ok(_) => return last,
            // A put that was given up goes on for a moment.
            Err(MetaError::Conflict { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

type Seen = (Vec<(u64, Option<Bytes>)>, Vec<(u64, u64)>);

/// What one client was shown, and its puts of unknown outcome: nonce and expected version.
async fn client_calls(net: Arc<Net>, recorder: Arc<Recorder>, client: u64, mut rng: Rng) -> Seen {
    let (mut shown, mut unknown, mut known) = (Vec::new(), Vec::new(), 0);
    for call in 0..CALLS {
        let Some(node) = net.node(1 + rng.below(5) as u32) else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let patience = Duration::from_millis(50 + rng.below(2000));
        let invoked = recorder.now();
        let current = if rng.chance(40) {
            match tokio::time::timeout(patience, node.get("a")).await {
                Ok(Ok(current)) => current,
                _ => continue,
            }
        } else {
            let nonce = client << 32 | call;
            let put = node.put("a", token(nonce), known, nonce.into());
            let ended = |outcome| recorder.done(invoked, What::Append { value: nonce, outcome });
            match tokio::time::timeout(patience, put).await {
                Ok(Ok(version)) => {
                    ended(Outcome::Ok(known));
                    known = version;
                    continue;
                }
                Ok(Err(MetaError::Conflict { current })) => current,
                _ => {
                    ended(Outcome::Unknown);
                    unknown.push((nonce, known));
                    continue;
                }
            }
        };
        recorder.done(invoked, What::Tail { position: current.version, sealed: false });
        known = current.version;
        shown.push((current.version, current.value));
    }
    (shown, unknown)
}

struct Misfortunes {
    net: Arc<Net>,
    disks: Vec<SimDisk>,
    rng: Rng,
    count: u32,
}

impl Misfortunes {
    async fn next(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.rng.below(300))).await;
        let node = 1 + self.rng.below(self.count.into()) as u32;
        if self.rng.chance(50) {
            let (a, b) = (node, 1 + self.rng.below(self.count.into()) as u32);
            let both = self.rng.chance(50);
            self.net.filter(move |from, to, _| {
                (from, to) != (a, b) && (!both || (from, to) != (b, a)) && (!both || from != a)
            });
            return;
        }
        // Power is lost, with any of what was not synced on the disk; the server comes back later.
        self.net.stop(node).await;
        let crashed = self.disks[node as usize - 1].crash(|_| self.rng.chance(50));
        tokio::time::sleep(Duration::from_millis(self.rng.below(300))).await;
        let disk: Arc<dyn Disk> = Arc::new(crashed.clone());
        self.disks[node as usize - 1] = crashed;
        self.net.open(member(node), &disk).await;
    }
}
