//! A network that can be told to fail: every connection to a node goes through here.
//!
//! Each node advertises the address of its proxy, so other nodes and clients connect to that. A proxy
//! finds out who connected, by the process that has the other end, so faults are between two parties
//! and in one direction. What is held back stays in the proxy's hands and then in the kernel's: bytes of a
//! connection are never lost, doubled or changed unless the connection is, as with real TCP.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Bytes that are moved at once.
const CHUNK: usize = 64 << 10;

/// Who is at an end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Party {
    /// A node, counted from 0.
    Node(usize),
    /// Whoever is none.
    Client,
}

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Connections end, and new ones end at once.
    Cut,
    /// Nothing moves; later it goes on where it stopped.
    Stall,
    /// Everything comes later.
    Delay(Duration),
    /// Half-open: what is sent vanishes and nobody is told, until the fault ends; then connections end.
    Vanish,
}

/// The faults in force, by the direction in which bytes move.
type Rules = HashMap<(Party, Party), Fault>;

/// The faults of all proxies, and the processes behind the parties.
#[derive(Debug)]
pub(crate) struct Network {
    rules: watch::Sender<Rules>,
    /// By node; 0: none at the moment.
    pids: Vec<AtomicU32>,
    /// Connections that a fault has ended.
    pub(crate) ended: AtomicU64,
    /// Connections that were open while a fault touched them.
    pub(crate) touched: AtomicU64,
}

impl Network {
    pub(crate) fn new(nodes: usize) -> Arc<Network> {
        let (ended, touched) = (AtomicU64::new(0), AtomicU64::new(0));
        let pids = (0..nodes).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Network { rules: watch::Sender::new(Rules::new()), pids, ended, touched })
    }

    /// Tells which process a node is.
    pub(crate) fn runs(&self, node: usize, pid: Option<u32>) {
        self.pids[node].store(pid.unwrap_or(0), Ordering::Release);
    }

    /// Puts a fault in force for these directions.
    pub(crate) fn fail(&self, directions: &[(Party, Party)], fault: Fault) {
        self.rules.send_modify(|rules| rules.extend(directions.iter().map(|way| (*way, fault))));
    }

    /// Ends the faults of these directions.
    pub(crate) fn heal(&self, directions: &[(Party, Party)]) {
        self.rules.send_modify(|rules| rules.retain(|way, _| !directions.contains(way)));
    }

    /// Ends all faults.
    pub(crate) fn heal_all(&self) {
        self.rules.send_modify(Rules::clear);
    }

    /// Starts the proxy of a node that listens at `upstream`, and gives the address to advertise.
    pub(crate) async fn proxy(
        self: &Arc<Self>,
        node: usize,
        upstream: SocketAddr,
    ) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let network = self.clone();
        tokio::spawn(async move {
            loop {
                // It fails for want of descriptors, and then not for long.
                let Ok((stream, peer)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                };
                let network = network.clone();
                tokio::spawn(async move {
                    let from = network.party(peer, address);
                    network.carry(stream, from, Party::Node(node), upstream).await;
                });
            }
        });
        Ok(address)
    }

    /// Whose process has the other end of a connection. The kernel tells which socket that is, and
    /// each process which sockets are its own.
    fn party(&self, peer: SocketAddr, here: SocketAddr) -> Party {
        let Some(inode) = inode(peer, here) else { return Party::Client };
        let socket = format!("socket:[{inode}]");
        let has = |pid: u32| {
            let Ok(files) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
            files.flatten().any(|file| {
                std::fs::read_link(file.path()).is_ok_and(|target| target == Path::new(&socket))
            })
        };
        let pids = self.pids.iter().map(|pid| pid.load(Ordering::Acquire));
        let node = pids.enumerate().find(|(_, pid)| *pid != 0 && has(*pid));
        node.map_or(Party::Client, |(node, _)| Party::Node(node))
    }

    /// Moves the bytes of one connection until it ends.
    async fn carry(&self, stream: TcpStream, from: Party, to: Party, upstream: SocketAddr) {
        let (out, back) = ((from, to), (to, from));
        let mut rules = self.rules.subscribe();
        let cut = |rules: &Rules| [out, back].iter().any(|way| rules.get(way) == Some(&Fault::Cut));
        if cut(&rules.borrow_and_update()) {
            return;
        }
        let Ok(server) = TcpStream::connect(upstream).await else { return };
        // Neither fails on a socket that is connected; if it does, messages only come later.
        let _ = (stream.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) =
            (stream.into_split(), server.into_split());
        let vanished = watch::Sender::new(false);
        let moved = async {
            let there = self.pump(from_client, to_server, out, &vanished);
            let here = self.pump(from_server, to_client, back, &vanished);
            tokio::join!(there, here);
        };
        let mut lost = vanished.subscribe();
        let broken = async {
            let mut touched = false;
            loop {
                let now = {
                    let rules = rules.borrow_and_update();
                    let fault = rules.contains_key(&out) || rules.contains_key(&back);
                    if fault && !std::mem::replace(&mut touched, true) {
                        self.touched.fetch_add(1, Ordering::Relaxed);
                    }
                    // What lost bytes can only end, once it may.
                    let lost = *lost.borrow_and_update();
                    cut(&rules) || (lost && !fault)
                };
                if now {
                    return;
                }
                // Bytes may be lost just after the fault ended: then too it has to end.
                tokio::select! {
                    changed = rules.changed() => if changed.is_err() { return },
                    _ = lost.changed() => {}
                }
            }
        };
        tokio::select! {
            () = moved => {}
            () = broken => {
                self.ended.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Moves bytes in one direction until either end is gone.
    async fn pump(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        way: (Party, Party),
        vanished: &watch::Sender<bool>,
    ) {
        let mut rules = self.rules.subscribe();
        let mut buffer = vec![0; CHUNK];
        loop {
            if rules.wait_for(|rules| rules.get(&way) != Some(&Fault::Stall)).await.is_err() {
                return;
            }
            let Ok(count @ 1..) = from.read(&mut buffer).await else { break };
            // What came in while it was read waits as well.
            let fault = match rules.wait_for(|rules| rules.get(&way) != Some(&Fault::Stall)).await {
                Ok(rules) => rules.get(&way).copied(),
                Err(_) => return,
            };
            match fault {
                Some(Fault::Vanish) => drop(vanished.send_replace(true)),
                Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
                _ => {}
            }
            // Once something is missing nothing may follow it.
            if *vanished.borrow() {
                continue;
            }
            if to.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
        // It fails when the other side has gone first.
        let _ = to.shutdown().await;
    }
}

/// The inode of the socket at `peer` that is connected to `here`.
fn inode(peer: SocketAddr, here: SocketAddr) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let (local, remote) = (hex(peer)?, hex(here)?);
    let row = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let row = row
        .into_iter()
        .find(|row| row.get(1) == Some(&&*local) && row.get(2) == Some(&&*remote))?;
    row.get(9)?.parse().ok()
}

/// An address as the kernel writes it.
fn hex(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(v4) = address else { return None };
    Some(format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port()))
}
