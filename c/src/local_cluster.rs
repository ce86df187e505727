//! A cluster of processes on this machine, for the tests of applications: `virtuallogd`s that are started,
//! killed and started again.
//!
//! A thread of its own keeps the processes, because the system ends them with the thread that started them:
//! so they are gone however this process ends. It does one order after the other; freeing the handle ends it,
//! them, and what was temporary. The programs are those that were installed with this library, and of its
//! version, or nothing starts.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{ptr, thread};

use virtuallog_bindings as facade;
use virtuallog_bindings::{Error, ErrorCode, Result, Timeout};

use crate::error::guarded;
use crate::given;
use crate::handles::{self, Held};
use crate::results::c_string;
use crate::types::*;

const DAEMON: &str = "virtuallogd";
/// Names the folder of the programs where they are not beside the library.
const FOLDER_VARIABLE: &str = "VIRTUALLOG_BIN";
const NODES_MAX: u32 = 64;
/// After which nodes that say nothing count as hung.
const ORDER_MAX: Duration = Duration::from_secs(60);

/// What the program holds as a `vlog_local_cluster`.
pub struct LocalCluster {
    url: CString,
    /// `None` only while this is dropped.
    orders: Option<Mutex<Sender<Order>>>,
    keeper: Option<JoinHandle<()>>,
}

struct Order {
    node: u32,
    /// Or to be killed.
    start: bool,
    done: Sender<Result<()>>,
}

impl Held for LocalCluster {
    fn name() -> &'static str {
        "local cluster"
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        // The keeper ends with its orders.
        drop(self.orders.take());
        if let Some(keeper) = self.keeper.take() {
            // A panic of its was told already.
            let _ = keeper.join();
        }
    }
}

impl LocalCluster {
    fn start(count: u32, dir: Option<PathBuf>) -> Result<LocalCluster> {
        if !(1..=NODES_MAX).contains(&count) {
            let range = format!("write a number from 1 to {NODES_MAX}");
            return Err(Error::invalid(format!("a cluster of {count} nodes: {range}")));
        }
        let daemon = find_daemon()?;
        let (orders, received) = channel();
        let (up, is_up) = channel();
        let keeper = thread::Builder::new().name("virtuallog-cluster".into()).spawn(move || {
            match Nodes::start(daemon, count, dir) {
                Err(error) => drop(up.send(Err(error))),
                Ok(mut nodes) => {
                    let _ = up.send(Ok(nodes.url()));
                    nodes.obey(&received);
                }
            }
        });
        let keeper = keeper.map_err(|error| unavailable("cannot start a thread", &error))?;
        let url = is_up.recv_timeout(ORDER_MAX).unwrap_or_else(|_| Err(hung()))?;
        Ok(LocalCluster {
            url: c_string(&url),
            orders: Some(Mutex::new(orders)),
            keeper: Some(keeper),
        })
    }

    fn order(&self, node: u32, start: bool) -> Result<()> {
        let (done, is_done) = channel();
        let orders = self.orders.as_ref().expect("it is there until it is dropped");
        let orders = orders.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = orders.send(Order { node, start, done });
        is_done.recv_timeout(ORDER_MAX).unwrap_or_else(|_| Err(hung()))
    }
}

/// What the keeper keeps.
struct Nodes {
    daemon: PathBuf,
    dir: PathBuf,
    nodes: Vec<Node>,
    /// Removed at the end.
    _temporary: Option<tempfile::TempDir>,
}

struct Node {
    address: String,
    process: Option<Process>,
}

struct Process {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only for one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Nodes {
    fn start(daemon: PathBuf, count: u32, dir: Option<PathBuf>) -> Result<Nodes> {
        let (dir, temporary) = match dir {
            Some(dir) => (dir, None),
            None => {
                let made = tempfile::Builder::new().prefix("virtuallog-").tempdir();
                let made = made.map_err(|error| unavailable("cannot make a directory", &error))?;
                (made.path().to_owned(), Some(made))
            }
        };
        let mut all = Nodes { daemon, dir, nodes: Vec::new(), _temporary: temporary };
        for node in 1..=count {
            let process = all.spawn(node, "127.0.0.1:0")?;
            all.nodes.push(Node { address: String::new(), process: Some(process) });
        }
        // All at once: most of starting is waiting for disks.
        for node in &mut all.nodes {
            node.address = node.process.as_mut().map_or(Err(hung()), Process::ready)?;
        }
        let addresses = all.nodes.iter().map(|node| node.address.clone()).collect();
        facade::init(addresses, Timeout::After(ORDER_MAX)).wait()?;
        // Each says so again when it was made part of the cluster.
        for node in &mut all.nodes {
            node.process.as_mut().map_or(Err(hung()), Process::ready)?;
        }
        Ok(all)
    }

    fn url(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|node| node.address.as_str()).collect();
        format!("virtuallog://{}/", addresses.join(","))
    }

    fn obey(&mut self, orders: &Receiver<Order>) {
        for Order { node, start, done } in orders {
            let outcome = if start { self.restart(node) } else { self.kill(node) };
            // Who does not wait any more was told that it hangs.
            let _ = done.send(outcome);
        }
    }

    fn node(&mut self, node: u32) -> Result<&mut Node> {
        let count = self.nodes.len();
        let at = (node as usize).checked_sub(1);
        at.and_then(|at| self.nodes.get_mut(at))
            .ok_or_else(|| Error::invalid(format!("node {node}: there are 1 to {count}")))
    }

    fn kill(&mut self, node: u32) -> Result<()> {
        let killed = self.node(node)?.process.take();
        killed
            .map(drop)
            .ok_or_else(|| Error::invalid(format!("node {node} does not run: start it")))
    }

    fn restart(&mut self, node: u32) -> Result<()> {
        let there = self.node(node)?;
        if there.process.is_some() {
            return Err(Error::invalid(format!("node {node} runs: stop it first")));
        }
        let address = there.address.clone();
        let mut process = self.spawn(node, &address)?;
        process.ready()?;
        self.node(node)?.process = Some(process);
        Ok(())
    }

    fn spawn(&self, node: u32, listen: &str) -> Result<Process> {
        let mut command = Command::new(&self.daemon);
        command.arg("--data").arg(self.dir.join(format!("node-{node}")));
        command.args(["--listen", listen, "--log", "error"]);
        command.arg(format!("--parent={}", std::process::id()));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let shown = self.daemon.display();
        let mut child = command
            .spawn()
            .map_err(|error| unavailable(&format!("cannot start `{shown}`"), &error))?;
        let said = BufReader::new(child.stdout.take().expect("it was piped")).lines();
        Ok(Process { child, said })
    }
}

impl Process {
    /// Waits for the line that says that it is up, and gives its address.
    fn ready(&mut self) -> Result<String> {
        let line = self.said.next().and_then(std::result::Result::ok);
        let told: Option<serde_json::Value> =
            line.and_then(|line| serde_json::from_str(&line).ok());
        let address = told.as_ref().and_then(|told| told["address"].as_str());
        address.map(str::to_owned).ok_or_else(|| {
            let message = format!("`{DAEMON}` did not start: see what it said on standard error");
            Error::new(ErrorCode::Unavailable, message)
        })
    }
}

/// The server's program that belongs to this library.
fn find_daemon() -> Result<PathBuf> {
    let mut folders = Vec::new();
    folders.extend(std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from));
    if let Some(here) = library().and_then(|library| library.parent().map(Path::to_owned)) {
        // Installed; and as Cargo builds it, the second for its tests.
        folders.extend([here.join("../bin"), here.clone(), here.join("..")]);
    }
    folders.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    let found = folders.iter().map(|folder| folder.join(DAEMON)).find(|path| path.is_file());
    let Some(found) = found else {
        let message = format!(
            "no `{DAEMON}` beside this library, nor on the PATH: name its folder in `{FOLDER_VARIABLE}`"
        );
        return Err(Error::new(ErrorCode::NotFound, message));
    };
    let said = Command::new(&found).arg("--version").output();
    let said =
        said.map_err(|error| unavailable(&format!("cannot run `{}`", found.display()), &error))?;
    let version = env!("CARGO_PKG_VERSION");
    match String::from_utf8_lossy(&said.stdout).trim() == format!("{DAEMON} {version}") {
        true => Ok(found),
        false => {
            let what = format!("`{}` is not of this library's version {version}", found.display());
            let message =
                format!("{what}: install both together, or name another in `{FOLDER_VARIABLE}`");
            Err(Error::new(ErrorCode::Incompatible, message))
        }
    }
}

/// The file that this code was loaded from.
fn library() -> Option<PathBuf> {
    let mut told = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    let here = (library as fn() -> Option<PathBuf>) as *const libc::c_void;
    // SAFETY: `here` is an address in this code, and `told` can be written to; it is looked at only where
    // the call says that it filled it.
    let path = unsafe {
        if libc::dladdr(here, told.as_mut_ptr()) == 0 {
            return None;
        }
        CStr::from_ptr(told.assume_init().dli_fname)
    };
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    path.canonicalize().ok()
}

fn unavailable(what: &str, error: &std::io::Error) -> Error {
    Error::new(ErrorCode::Unavailable, format!("{what}: {error}"))
}

fn hung() -> Error {
    Error::new(
        ErrorCode::Deadline,
        "the nodes do not answer: look at what they say on standard error",
    )
}

/// Starts a cluster of so many `virtuallogd` processes on loopback, for tests. They are those that were
/// installed with this library; `VIRTUALLOG_BIN` names another folder. Waits until it is up, about a second.
///
/// `dir`: where their directories are made; NULL: in a temporary one that is removed. `vlog_free` it, which
/// ends them; they end also when this process does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_local_cluster_start(
    nodes: u32,
    dir: *const c_char,
    cluster: *mut vlog_local_cluster,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        if cluster.is_null() {
            return Err(given::null("cluster"));
        }
        // SAFETY: the caller's word.
        let dir = (!dir.is_null()).then(|| unsafe { given::path(dir, "dir") }).transpose()?;
        let made = handles::insert(LocalCluster::start(nodes, dir)?);
        // SAFETY: it is not null.
        unsafe { cluster.write(made) };
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// The store, by the addresses of all nodes: add a log's name to open one. Lives as long as the handle; NULL
/// for a dead one.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_local_cluster_url(cluster: vlog_local_cluster) -> *const c_char {
    handles::get::<LocalCluster>(cluster).map_or(ptr::null(), |cluster| cluster.url.as_ptr())
}

/// Kills a node; they are numbered from 1. `VLOG_INVALID` when it does not run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_local_cluster_stop(
    cluster: vlog_local_cluster,
    node: u32,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || handles::get::<LocalCluster>(cluster)?.order(node, false);
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// Starts a node that was stopped, on its directory and address, and waits until it is ready.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_local_cluster_restart(
    cluster: vlog_local_cluster,
    node: u32,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || handles::get::<LocalCluster>(cluster)?.order(node, true);
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}
