//! What goes wrong, and when: draws faults from the plan, lets each of them pass again, starts what
//! ended, and does as operator what an operator would.
//!
//! The fault budget: within it only one server's disk is damaged at a time, which replication makes up
//! for, so that every loss is a bug. A damaged server that does not start any more is replaced: taken out
//! of the cluster, and begun anew on an empty disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::World;
use super::clients;
use super::nodes::{End, Machine, Nodes, crash, host};
use super::plan::Fault;
use crate::cluster::Net;
use crate::env::simulated::{Process, Task};
use crate::error::{Error, ErrorCode};
use crate::testing::Rng;
use crate::testing::simdisk::{BadWrite, SimDisk};

/// Before a server that ended is started again, in milliseconds, at most.
const RESTART: u64 = 4000;
/// Within this time others hear of a server's generation.
const HEARD: Duration = Duration::from_secs(3);
/// Between two looks at what servers remember, in milliseconds.
const LOOK: u64 = 1000;

/// Does one fault after the other until the first phase is over.
pub(super) async fn run(world: Arc<World>, mut rng: Rng) {
    while !world.is_calm() {
        let pause = 1 + rng.below(world.plan.fault_pause);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if world.is_calm() || world.plan.faults.is_empty() {
            return;
        }
        let faults = &world.plan.faults;
        let fault = faults[rng.below(faults.len() as u64) as usize];
        let mut rng = Rng::new(rng.bits());
        // A power that fails everywhere at once is rare, or little else would happen.
        if matches!(fault, Fault::KillAll | Fault::PowerLossAll) && rng.chance(60) {
            continue;
        }
        let world = world.clone();
        tokio::spawn(async move { Nemesis { world, rng }.act(fault).await });
    }
}

struct Nemesis {
    world: Arc<World>,
    rng: Rng,
}

impl Nemesis {
    fn node(&mut self) -> usize {
        self.rng.below(self.world.plan.nodes as u64) as usize
    }

    fn did(&self, fault: Fault, on: impl std::fmt::Debug) {
        self.world.trace.count(fault.name());
        self.world.trace.count("faults");
        self.world.trace.say(format_args!("{}: {on:?}", fault.name()));
    }

    /// Whether a server is about to join in place of another one: if it forgets that it was taken in,
    /// the cluster has two members that are not there, and with few nodes no majority to start with.
    fn spared(&self, at: usize) -> bool {
        self.world.nodes.with(at, |machine| machine.replaced)
    }

    /// How long it lasts.
    async fn last(&mut self, most: u64) {
        let most = most.min(self.world.until_calm());
        tokio::time::sleep(Duration::from_millis(1 + self.rng.below(most + 1))).await;
    }

    async fn act(mut self, fault: Fault) {
        match fault {
            Fault::Kill | Fault::PowerLoss => self.end_one(fault).await,
            Fault::KillAll | Fault::PowerLossAll => self.end_all(fault).await,
            Fault::Stop => self.stop().await,
            Fault::Pause => self.pause().await,
            Fault::ClientKill => self.client_kill().await,
            Fault::CutOneWay | Fault::Isolate | Fault::Partition | Fault::Clog => {
                self.cut(fault).await;
            }
            Fault::FailedSync | Fault::DiskFull | Fault::ReadError | Fault::SlowDisk => {
                self.trouble(fault).await;
            }
            Fault::BitFlip | Fault::BadWrite | Fault::Wipe | Fault::OldImage => {
                self.damage(fault).await;
            }
        }
    }

    async fn end_one(&mut self, fault: Fault) {
        let at = self.node();
        if !self.world.nodes.is_up(at) || self.spared(at) {
            return;
        }
        self.did(fault, at + 1);
        let how = if fault == Fault::Kill { End::Kill } else { End::Power };
        self.world.nodes.end(at, how);
        self.last(RESTART).await;
        self.world.start_node(at);
    }

    async fn end_all(&mut self, fault: Fault) {
        self.did(fault, ());
        let how = if fault == Fault::KillAll { End::Kill } else { End::Power };
        for at in (0..self.world.plan.nodes).filter(|at| !self.spared(*at)) {
            self.world.nodes.end(at, how);
        }
        for at in 0..self.world.plan.nodes {
            self.last(500).await;
            self.world.start_node(at);
        }
    }

    async fn stop(&mut self) {
        let at = self.node();
        let stop = self.world.nodes.with(at, |machine| {
            machine.life.as_ref().filter(|life| life.node.is_some()).map(|life| life.stop.clone())
        });
        if let Some(stop) = stop.filter(|_| !self.spared(at)) {
            self.did(Fault::Stop, at + 1);
            stop.notify_one();
        }
    }

    async fn pause(&mut self) {
        let servers = self.world.plan.nodes;
        let at = self.rng.below((servers + self.world.clients()) as u64) as usize;
        let process = match at < servers {
            true => {
                self.world.nodes.with(at, |machine| Some(machine.life.as_ref()?.process.clone()))
            }
            false => self.world.client(at - servers, |machine| machine.process.clone()),
        };
        let Some(process) = process.filter(|process| !process.is_paused()) else { return };
        self.did(Fault::Pause, process.number());
        process.pause();
        let most = if self.rng.chance(20) { 15_000 } else { 2000 };
        self.last(most).await;
        process.go_on();
        self.world.nodes.wires.went_on(&process);
    }

    async fn client_kill(&mut self) {
        let at = self.rng.below(self.world.clients() as u64) as usize;
        let power = self.rng.chance(50);
        let process = self.world.client(at, |machine| machine.process.take());
        let Some(process) = process else { return };
        self.did(Fault::ClientKill, (at, power));
        end_client(&self.world, at, &process, power, &mut self.rng);
        self.last(RESTART).await;
        clients::start(&self.world, at);
    }

    async fn cut(&mut self, fault: Fault) {
        let world = self.world.clone();
        let all: Vec<u32> = world.hosts();
        let servers = world.plan.nodes as u64;
        let one = host(self.rng.below(servers) as usize);
        let mut cuts = Vec::new();
        let mut both = |a: u32, b: u32| cuts.extend([(a, b), (b, a)]);
        match fault {
            Fault::CutOneWay => {
                let other = all[self.rng.below(all.len() as u64) as usize];
                let pair = if self.rng.chance(50) { (one, other) } else { (other, one) };
                cuts.push(pair);
            }
            Fault::Isolate => all.iter().filter(|to| **to != one).for_each(|to| both(one, *to)),
            Fault::Partition => {
                let side: Vec<bool> = all.iter().map(|_| self.rng.chance(50)).collect();
                // Perhaps one of them reaches both sides.
                let bridge = self.rng.chance(50).then_some(one);
                for (at, a) in all.iter().enumerate() {
                    for (other, b) in all.iter().enumerate().skip(at + 1) {
                        if side[at] != side[other] && ![Some(*a), Some(*b)].contains(&bridge) {
                            both(*a, *b);
                        }
                    }
                }
            }
            _ => cuts.extend(all.iter().filter(|to| **to != one).map(|from| (*from, one))),
        }
        cuts.retain(|(from, to)| from != to);
        self.did(fault, &cuts);
        cuts.iter().for_each(|(from, to)| world.nodes.wires.cut(*from, *to));
        let most = if self.rng.chance(30) { 10_000 } else { 2500 };
        self.last(most).await;
        world.nodes.wires.mend();
        world.trace.say(format_args!("the network is mended"));
    }

    async fn trouble(&mut self, fault: Fault) {
        let servers = self.world.plan.nodes;
        let at = self.rng.below((servers + self.world.clients()) as u64) as usize;
        if at < servers && self.spared(at) {
            return;
        }
        let disk = match at < servers {
            true => self.world.nodes.with(at, |machine| machine.disk.clone()),
            false => self.world.client(at - servers, |machine| machine.disk.clone()),
        };
        match fault {
            // Counted when it fails: none may come.
            Fault::FailedSync => {
                let sync = disk.syncs() + 1 + self.rng.below(4);
                self.world.trace.say(format_args!("sync {sync} of {} is to fail", at + 1));
                return disk.fail_sync(sync);
            }
            _ => self.did(fault, at + 1),
        }
        let stall = |world: &World, time: u64| match at < servers {
            true => world.nodes.with(at, |machine| machine.stall = time),
            false => world.client(at - servers, |machine| machine.stall = time),
        };
        match fault {
            Fault::DiskFull => disk.set_room(Some(self.rng.below(20_000))),
            Fault::ReadError => {
                let parts = ["loglets", "journal", "acceptor"];
                disk.fail_reads_of(Some(parts[self.rng.below(3) as usize]));
            }
            _ => stall(&self.world, 20 + self.rng.below(1000)),
        }
        self.last(6000).await;
        disk.set_room(None);
        disk.fail_reads_of(None);
        stall(&self.world, 0);
        self.world.trace.say(format_args!("the disk of {} is well again", at + 1));
    }

    /// Whether among any half of the others there is one who knows that a disk went on.
    fn is_remembered(&self, at: usize, disk: u128, then: u64) -> bool {
        let nodes = &self.world.nodes;
        let storage = |at| nodes.with(at, |machine| machine.life.as_ref()?.storage.clone());
        let Some(its) = storage(at).filter(|its| its.storage_id() == disk) else { return false };
        let Some(identity) = its.identity() else { return false };
        let knows = |other: &usize| {
            let known =
                storage(*other).and_then(|other| other.remember_peer(identity.node, disk, 0).ok());
            known.is_some_and(|known| known > then)
        };
        let others: Vec<usize> = (0..self.world.plan.nodes).filter(|other| *other != at).collect();
        others.iter().filter(|other| knows(other)).count() > others.len() - others.len().div_ceil(2)
    }

    async fn damage(&mut self, fault: Fault) {
        let world = self.world.clone();
        let Some(at) = world.may_damage(&mut self.rng) else { return };
        let running = world.nodes.is_up(at);
        match fault {
            Fault::OldImage => {
                // The image is this fault's own: another one may take its own of the same disk meanwhile.
                let (image, then) = world
                    .nodes
                    .with(at, |machine| (machine.disk.crash(|_| true), machine.generation()));
                let Some((disk, then)) = then else { return };
                self.last(8000).await;
                // One of the same journal file is not noticed, which is a limit that the product has;
                // and once the server is replaced this is the image of another one.
                let went_on = |machine: &mut Machine| {
                    machine.generation().is_some_and(|(its, now)| its == disk && now > then)
                };
                if !world.nodes.with(at, went_on) {
                    return;
                }
                // The others have to hear of the newer one before, so many that it cannot pass them by.
                tokio::time::sleep(HEARD).await;
                let is_still = |machine: &mut Machine| machine.damaged && !machine.replaced;
                if !self.is_remembered(at, disk, then) || !world.nodes.with(at, is_still) {
                    return;
                }
                world.nodes.end(at, End::Power);
                self.did(fault, at + 1);
                world.nodes.with(at, |machine| machine.disk = image);
            }
            Fault::Wipe => {
                world.nodes.end(at, End::Power);
                self.did(fault, at + 1);
                let empty = Error::new(ErrorCode::DataLoss, "the disk is empty");
                world.nodes.with(at, |machine| {
                    machine.disk = SimDisk::new();
                    machine.lost = Some(empty);
                });
                // One that knows of no cluster has to stay away from it.
                world.nodes.start(at);
            }
            Fault::BitFlip => {
                if running && self.rng.chance(50) {
                    world.nodes.end(at, End::Power);
                }
                let disk = world.nodes.with(at, |machine| machine.disk.clone());
                if Nodes::files(&disk).is_empty() {
                    return;
                }
                self.did(fault, at + 1);
                for _ in 0..1 + self.rng.below(8) {
                    let files = Nodes::files(&disk);
                    let (path, len) = &files[self.rng.below(files.len() as u64) as usize];
                    let bytes = disk.content(path).unwrap_or_default();
                    // Rather where something was written: much of a journal is zero.
                    let tries: Vec<u64> = (0..64).map(|_| self.rng.below(len * 8)).collect();
                    let written = |bit: &&u64| bytes.get((**bit / 8) as usize) != Some(&0);
                    let bit = *tries.iter().find(written).unwrap_or(&tries[0]);
                    world.trace.say(format_args!("bit {bit} of {path:?} is another one"));
                    disk.flip(path, bit);
                }
            }
            _ => self.bad_write(at),
        }
        self.last(2000).await;
        world.start_node(at);
    }

    /// Has one of the next writes of a server go wrong. Counted when it does: what comes may be no write.
    fn bad_write(&mut self, at: usize) {
        let disk = self.world.nodes.with(at, |machine| machine.disk.clone());
        let files = Nodes::files(&disk);
        let bad = match self.rng.below(3) {
            0 => BadWrite::Lost,
            1 => BadWrite::Shifted(512 * (1 + self.rng.below(8)) as i64),
            _ if files.is_empty() => return,
            _ => {
                let other = self.rng.below(files.len() as u64) as usize;
                BadWrite::Elsewhere(files[other].0.clone())
            }
        };
        let operation = disk.operations() + 1 + self.rng.below(6);
        let trace = &self.world.trace;
        trace.say(format_args!("operation {operation} of {} is to go wrong: {bad:?}", at + 1));
        disk.bad_write(operation, bad);
    }
}

/// Ends the process of a machine of clients.
pub(super) fn end_client(
    world: &Arc<World>,
    at: usize,
    process: &Arc<Process>,
    power: bool,
    rng: &mut Rng,
) {
    process.kill();
    let (host, before) = world.client(at, |machine| (machine.host, machine.disk.clone()));
    world.nodes.wires.ended(host, process, power);
    let after = if power { crash(&before, rng) } else { before.kill() };
    world.client(at, |machine| machine.disk = after);
    before.stop_at(0);
}

/// Starts again what ended by itself, and replaces servers whose disks are lost, for ever.
pub(super) async fn supervise(world: Arc<World>, mut rng: Rng) {
    let mut looked = 0;
    loop {
        let look = world.trace.now() >= looked + LOOK;
        looked = if look { world.trace.now() } else { looked };
        let _ =
            tokio::time::timeout(Duration::from_millis(250), world.nodes.failed.notified()).await;
        for at in world.nodes.look_after() {
            let pause = 100 + rng.below(1000);
            let world = world.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                world.start_node(at);
            });
        }
        world.count_mishaps();
        let named = if look { world.named() } else { BTreeSet::new() };
        for at in 0..world.plan.nodes {
            let lost = world.nodes.with(at, |machine| machine.lost.is_some() && !machine.replaced);
            if let Some(error) = world.nodes.with(at, Machine::lost_by_itself) {
                let node = at + 1;
                world
                    .complain(format!("I14: nothing damaged the disk of node {node}, and {error}"));
            }
            if lost && rng.chance(10) {
                replace(&world, at);
            }
            if look && let Err(wrong) = world.nodes.check_memory(at, &named) {
                world.complain(wrong);
            }
        }
        world.note_chains();
        for at in 0..world.clients() {
            let failed = world.client(at, |machine| match machine.failed {
                true => machine.process.take(),
                false => None,
            });
            if let Some(process) = failed {
                let power = rng.chance(30);
                end_client(&world, at, &process, power, &mut rng);
                clients::start(&world, at);
            }
        }
    }
}

/// Begins a server whose disk is lost anew, empty, at another address, and has the former one taken out
/// of the cluster.
pub(super) fn replace(world: &Arc<World>, at: usize) {
    let world = world.clone();
    if world.plan.over_budget
        || world.nodes.with(at, |machine| std::mem::replace(&mut machine.replaced, true))
    {
        return;
    }
    let process = Process::new(world.nodes.next_process());
    let operator = 900 + at as u32;
    world.nodes.wires.add(operator, None);
    let of = process.clone();
    tokio::spawn(Task::of(process, async move {
        let seeds = (0..world.plan.nodes).filter(|other| *other != at);
        let seeds = seeds.map(|other| world.nodes.with(other, |machine| machine.address.clone()));
        let transport = world.nodes.wires.transport(operator, &of, Arc::new(|| None));
        let net = Net::new(transport, seeds.collect());
        let former = world.nodes.with(at, |machine| machine.address.clone());
        let address = format!("10.0.{}.{}:7", world.nodes.next_process(), at + 1);
        world.nodes.end(at, End::Power);
        world.nodes.wires.add(host(at), Some(&address));
        world.nodes.with(at, |machine| {
            machine.disk = SimDisk::new();
            machine.address.clone_from(&address);
            machine.joins = true;
            machine.lost = None;
            machine.forget();
        });
        // First the new one joins, so that there is where to go.
        world.start_node(at);
        while let Err(why) = take_out(&net, &former, &address).await {
            world.trace.say(format_args!("node {} is not replaced yet: {why}", at + 1));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        world.nodes.with(at, |machine| {
            machine.forget();
            (machine.damaged, machine.replaced) = (false, false);
        });
        world.trace.count("mark: a lost server was replaced");
    }));
}

/// Takes the node at one address out of the cluster, once there is one at another.
async fn take_out(net: &Net, former: &str, address: &str) -> Result<(), String> {
    let cluster = net.refresh().await.map_err(|error| error.to_string())?;
    let row = |address: &str| cluster.nodes.iter().find(|row| row.address == address);
    if row(address).is_none() {
        return Err("the new one is not there yet".into());
    }
    match row(former).map(|row| row.number) {
        None => Ok(()),
        Some(number) => {
            let removed = crate::server::remove_over(net, number).await;
            removed.map_err(|error| error.to_string())
        }
    }
}
