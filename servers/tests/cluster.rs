//! A whole cluster of real processes, as `virtuallog dev` runs it, and one made by hand: what works, and
//! what goes on working when a part of it dies.

mod binaries;

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;
use serde_json::{Value, json};

use binaries::{Running, finish, run, signal_to, virtuallog, virtuallogd};

/// A cluster that `virtuallog dev` runs. One at a time: with two of them, one takes the ports that the
/// other one's dead nodes leave.
struct Dev {
    running: Running,
    report: Value,
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Dev {
    fn start(args: &[&str]) -> Dev {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = Running::start(virtuallog(&["dev"]).args(args).stderr(Stdio::piped()));
        let report = running.json();
        Dev { running, report, _turn: turn }
    }

    fn in_dir(dir: &Path) -> Dev {
        Dev::start(&["--dir", dir.to_str().expect("text")])
    }

    fn url(&self, name: &str) -> String {
        format!("{}{name}", self.report["url"].as_str().expect("a URL"))
    }

    /// `virtuallog COMMAND URL ARGS…` for the log `log`.
    fn run(&self, command: &str, args: &[&str]) -> binaries::Run {
        self.feed(command, args, "")
    }

    fn feed(&self, command: &str, args: &[&str], input: &str) -> binaries::Run {
        finish(virtuallog(&[command, &self.url("log")]).args(args), input.as_bytes())
    }

    fn status(&self) -> Value {
        self.run("status", &[]).json()
    }

    /// The number of the process that is reached at this address.
    fn pid_at(&self, address: &Value) -> u32 {
        let nodes = self.report["nodes"].as_array().expect("nodes");
        let node = nodes.iter().find(|node| &node["address"] == address).expect("a node of ours");
        node["pid"].as_u64().and_then(|pid| pid.try_into().ok()).expect("a number")
    }

    /// The address of the node with this number.
    fn address_of(&self, number: &Value) -> Value {
        let status = self.status();
        let nodes = status["nodes"].as_array().expect("nodes");
        let node =
            nodes.iter().find(|node| &node["node"] == number).expect("a node of the cluster");
        node["address"].clone()
    }

    /// A connection to each node: it ends when the node does.
    fn connections(&self) -> Vec<TcpStream> {
        let nodes = self.report["nodes"].as_array().expect("nodes");
        let address = |node: &Value| node["address"].as_str().expect("an address").to_owned();
        nodes.iter().map(|node| TcpStream::connect(address(node)).expect("it listens")).collect()
    }

    fn end(mut self) {
        self.running.signal(Signal::TERM);
        assert_eq!(self.running.wait().code(), Some(0));
    }
}

fn active(status: &Value) -> &Value {
    let segments = status["logs"][0]["segments"].as_array().expect("segments");
    segments.last().expect("a chain has a segment")
}

fn numbers(range: std::ops::Range<u32>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

#[test]
fn every_command_works_on_a_cluster() {
    let dev = Dev::start(&[]);
    assert_eq!(dev.report["nodes"].as_array().map(Vec::len), Some(3));
    assert_eq!(run(&["create", &dev.url("log")]).json()["done"], "created");
    assert_eq!(run(&["logs", &dev.url("")]).rows(), [json!({ "name": "log" })]);
    assert_eq!(dev.feed("append", &[], &numbers(0..100)).json()["last"], 99);
    assert_eq!(dev.run("read", &[]).text(), numbers(0..100));
    assert_eq!(dev.run("tail", &["-n", "2"]).text(), "98\n99\n");

    let mut follower =
        Running::start(&mut virtuallog(&["tail", "--follow", "-n", "0", &dev.url("log")]));
    let before = dev.run("chain", &[]).json();
    assert_eq!(before["segments"][0]["loglet"], "native:3");
    let plan = dev.run("reconfigure", &["--to", "native:3", "--plan"]).json();
    assert_eq!((&plan["version"], &plan["tail"]), (&before["version"], &json!(100)));
    assert_eq!(dev.run("chain", &[]).json(), before, "a plan does nothing");
    let version = plan["version"].to_string();
    let after = dev.run("reconfigure", &["--to", "native:3", "--if-version", &version]).json();
    assert_eq!(after["segments"].as_array().map(Vec::len), Some(2));
    dev.feed("append", &[], &numbers(100..200)).json();
    for number in 100..200 {
        assert_eq!(follower.line(), number.to_string());
    }
    assert_eq!(dev.run("check-tail", &[]).json()["position"], 200);
    let verified = dev.run("verify", &[]).json();
    assert_eq!((&verified["entries"], &verified["problems"]), (&json!(200), &json!([])));
    assert_eq!(dev.run("trim", &["150"]).json()["effective"], 150);
    dev.run("reconfigure", &["--truncate"]).json();
    assert_eq!(dev.run("read", &["--to", "152"]).text(), "150\n151\n");
    let bench = dev.run("bench", &["--seconds", "0.2", "--json"]).json();
    assert_eq!(bench["errors"], 0);
    assert_eq!(dev.run("seal", &["--forever"]).json()["sealed"], true);
    dev.feed("append", &[], "late\n").error(1, "SEALED", "");
    assert_eq!(dev.run("delete", &[]).json()["done"], "deleted");
    dev.run("read", &[]).error(1, "NOT_FOUND", "log");
    dev.end();
}

#[test]
fn the_status_shows_every_copy() {
    let dev = Dev::start(&[]);
    dev.feed("append", &[], &numbers(0..10)).json();
    let status = dev.status();
    let nodes = status["nodes"].as_array().expect("nodes");
    assert!(nodes.iter().all(|node| node["alive"] == true), "{status}");
    assert_eq!(status["logs"][0]["tail"], 10);
    let segment = active(&status);
    let members = segment["members"].as_array().expect("members");
    assert_eq!(members.len(), 3, "{status}");
    let acked = members.iter().filter(|member| member["tail"] == 10 && member["lag"] == 0).count();
    assert!(acked >= 2, "{status}");
    assert!(members.iter().all(|member| member["sealed"] == false), "{status}");
    assert!(segment["sequencer"].is_u64(), "{status}");

    let listed = run(&["nodes", "list", &dev.url("")]).json();
    assert_eq!(listed["nodes"], status["nodes"]);
    let text = finish(&mut virtuallog(&["status", &dev.url(""), "--text"]), b"");
    assert!(text.text().contains("log log, open, tail 10"), "{text:?}");
    dev.run("status", &["--nonsense"]).error(2, "INVALID", "--nonsense");
    run(&["status", &dev.url("none")]).error(1, "NOT_FOUND", "none");
    run(&["nodes", "list", "file:x/"]).error(2, "INVALID", "cluster");
    run(&["nodes", "drain", &dev.url(""), "99"]).error(1, "NOT_FOUND", "99");
    dev.end();
}

#[test]
fn appends_go_on_when_any_one_node_is_killed() {
    let mut dev = Dev::start(&[]);
    dev.feed("append", &[], &numbers(0..10)).json();
    let sequencer = active(&dev.status())["sequencer"].clone();
    let address = dev.address_of(&sequencer);
    signal_to(dev.pid_at(&address), Signal::KILL);
    let told: Value = serde_json::from_str(&dev.running.error_line()).expect("JSON");
    assert_eq!((&told["event"], &told["address"]), (&json!("node_ended"), &address));

    assert_eq!(dev.feed("append", &[], &numbers(10..20)).json()["count"], 10);
    assert_eq!(dev.run("read", &[]).text(), numbers(0..20));
    let status = dev.status();
    assert_ne!(active(&status)["sequencer"], sequencer, "{status}");
    let alive = |node: &&Value| node["alive"] == true;
    assert_eq!(status["nodes"].as_array().expect("nodes").iter().filter(alive).count(), 2);
    dev.end();
}

#[test]
fn a_log_moves_into_the_cluster_and_out_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let embedded = |name: &str| format!("file:{}/store/{name}", dir.path().display());
    let dev = Dev::start(&[]);
    let (before, after) = (embedded("before"), embedded("after"));
    finish(&mut virtuallog(&["append", &before]), numbers(0..10).as_bytes()).json();
    let moved = run(&["move", &before, &dev.url("log")]).json();
    assert_eq!(moved["chain"]["life"], "open");
    assert_eq!(dev.feed("append", &[], &numbers(10..20)).json()["first"], 10);
    assert_eq!(dev.run("read", &[]).text(), numbers(0..20));
    assert_eq!(
        run(&["read", &before]).text(),
        numbers(0..20),
        "who asks at the old place is sent on"
    );
    run(&["move", &dev.url("log"), &dev.url("twin")]).error(2, "INVALID", "");
    let text = finish(&mut virtuallog(&["move", &dev.url("log"), &after, "--text"]), b"");
    assert!(text.text().starts_with("moved virtuallog://"), "{text:?}");
    dev.end();
    assert_eq!(run(&["read", &after]).text(), numbers(0..20));
    assert_eq!(run(&["status", &after]).json()["logs"][0]["tail"], 20);
}

#[test]
fn the_same_directory_brings_the_same_cluster_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let dev = Dev::in_dir(dir.path());
    dev.feed("append", &[], &numbers(0..10)).json();
    let (url, mut before) = (dev.url("log"), dev.connections());
    dev.end();
    assert!(before.iter_mut().all(ended), "its nodes ended with it");

    let dev = Dev::in_dir(dir.path());
    assert_eq!(dev.url("log"), url);
    assert_eq!(dev.run("read", &[]).text(), numbers(0..10));
    assert_eq!(dev.feed("append", &[], &numbers(10..20)).json()["first"], 10);
    let nodes = &["dev", "--nodes", "5", "--dir", dir.path().to_str().expect("text")];
    run(nodes).error(2, "INVALID", "3 nodes");

    // Killed, it cannot end its nodes: the system does.
    let mut connections = dev.connections();
    drop(dev);
    assert!(connections.iter_mut().all(ended), "its nodes ended with it");
    let dev = Dev::in_dir(dir.path());
    assert_eq!(dev.run("read", &[]).text(), numbers(0..20));
    dev.end();
}

/// Waits until the other side is gone: closed, or killed.
fn ended(connection: &mut TcpStream) -> bool {
    matches!(connection.read(&mut [0; 1]), Ok(0) | Err(_))
}

/// Daemons that belong to no cluster yet, and their addresses.
fn daemons(dir: &Path, names: &[&str], args: &[&str]) -> Vec<(Running, String)> {
    let start = |name: &&str| {
        let data = dir.join(name);
        let data = data.to_str().expect("text");
        let mut command =
            virtuallogd(&["--data", data, "--listen", "127.0.0.1:0", "--log", "warn"]);
        let mut daemon = Running::start(command.args(args));
        let address = daemon.json()["address"].as_str().expect("an address").to_owned();
        (daemon, address)
    };
    names.iter().map(start).collect()
}

#[test]
fn a_cluster_is_made_by_hand_and_its_nodes_come_and_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut nodes = daemons(dir.path(), &["a", "b", "c"], &[]);
    let addresses: Vec<&str> = nodes.iter().map(|(_, address)| &**address).collect();
    let addresses = addresses.join(",");
    let made = run(&["init", &addresses]).json();
    assert_eq!(made["url"], format!("virtuallog://{addresses}/"));
    for (daemon, _) in &mut nodes {
        assert_eq!(daemon.json()["cluster"], made["cluster"], "each says that it belongs now");
    }
    assert_eq!(run(&["init", &addresses]).json()["cluster"], made["cluster"], "again is no harm");
    let log = format!("virtuallog://{addresses}/log");
    finish(&mut virtuallog(&["append", &log]), b"one\n").json();

    // A fourth joins, and is a node when it says that it is ready.
    nodes.extend(daemons(dir.path(), &["d"], &["--join", &addresses]));
    let store = format!("virtuallog://{addresses}/");
    let listed = run(&["nodes", "list", &store]).json();
    assert_eq!(listed["nodes"].as_array().map(Vec::len), Some(4), "{listed}");

    // Whoever is told to end moves what it sequences first.
    let sequencer = |status: &Value| active(status)["sequencer"].as_u64().expect("a number");
    let status = |url: &str| run(&["status", url]).json();
    let first = sequencer(&status(&log));
    run(&["nodes", "drain", &store, &first.to_string()]).json();
    let second = sequencer(&status(&log));
    assert_ne!(second, first);
    finish(&mut virtuallog(&["append", &log]), b"two\n").json();
    run(&["nodes", "remove", &store, &first.to_string()]).json();
    let listed = run(&["nodes", "list", &store]).json();
    assert_eq!(listed["nodes"].as_array().map(Vec::len), Some(3), "{listed}");
    assert_eq!(run(&["read", &log]).text(), "one\ntwo\n");

    let second = second as usize - 1;
    nodes[second].0.signal(Signal::TERM);
    assert_eq!(nodes[second].0.wait().code(), Some(0));
    finish(&mut virtuallog(&["append", &log]), b"three\n").json();
    assert_eq!(run(&["read", &log]).text(), "one\ntwo\nthree\n");
}
