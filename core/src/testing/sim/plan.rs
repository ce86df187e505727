//! What a seed draws before anything happens: how large the world is, which faults it knows, how bad
//! they are. Every seed leaves out about half of the kinds of faults, because a world in which
//! everything fails at once never gets to the rare states between.

use super::wires::Weather;
use crate::testing::Rng;

/// What can happen. Some of it damages a disk for good, which counts against the fault budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// A process is killed: what it wrote is in the page cache.
    Kill,
    /// All of them are.
    KillAll,
    /// A machine loses power: any subset of what was not synced is gone.
    PowerLoss,
    /// All machines do.
    PowerLossAll,
    /// A server is stopped in order, and started again.
    Stop,
    /// A process does not run for a while.
    Pause,
    /// A client's process is killed.
    ClientKill,
    /// One direction between two machines is cut.
    CutOneWay,
    /// One machine is cut off from all others.
    Isolate,
    /// Machines fall apart in two parts, perhaps with one that reaches both.
    Partition,
    /// Everything to one machine waits, and then comes at once.
    Clog,
    /// A sync fails.
    FailedSync,
    /// A disk is full for a while.
    DiskFull,
    /// Files cannot be read for a while.
    ReadError,
    /// A disk takes long for a while.
    SlowDisk,
    /// One bit of a file is another one. Damage.
    BitFlip,
    /// A write is said to be done and is not, or is elsewhere. Damage.
    BadWrite,
    /// A disk is empty. Damage.
    Wipe,
    /// An old image of a disk is put back. Damage.
    OldImage,
}

impl Fault {
    pub(super) const ALL: [(Fault, &'static str); 19] = [
        (Fault::Kill, "fault: kill"),
        (Fault::KillAll, "fault: kill all"),
        (Fault::PowerLoss, "fault: power loss"),
        (Fault::PowerLossAll, "fault: power loss of all"),
        (Fault::Stop, "fault: stop"),
        (Fault::Pause, "fault: pause"),
        (Fault::ClientKill, "fault: client kill"),
        (Fault::CutOneWay, "fault: cut one way"),
        (Fault::Isolate, "fault: isolate"),
        (Fault::Partition, "fault: partition"),
        (Fault::Clog, "fault: clog"),
        (Fault::FailedSync, "fault: failed sync"),
        (Fault::DiskFull, "fault: disk full"),
        (Fault::ReadError, "fault: read error"),
        (Fault::SlowDisk, "fault: slow disk"),
        (Fault::BitFlip, "fault: bit flip"),
        (Fault::BadWrite, "fault: bad write"),
        (Fault::Wipe, "fault: wipe"),
        (Fault::OldImage, "fault: old image"),
    ];

    /// Whether it takes away for good what a disk had.
    pub(super) fn damages(self) -> bool {
        matches!(self, Fault::BitFlip | Fault::BadWrite | Fault::Wipe | Fault::OldImage)
    }

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(fault, _)| *fault == self).map_or("", |(_, name)| name)
    }
}

/// Where a log lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// On native loglets of the cluster; its clients are on machines of their own.
    Cluster,
    /// Its MetaStore is the cluster's, its loglets are native ones and local ones of its clients' machine.
    Mixed,
    /// In a store on its clients' machine.
    Embedded,
}

/// A whole world, as a seed draws it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) nodes: usize,
    /// How many of them make the cluster; the others join it.
    pub(super) founders: usize,
    pub(super) logs: Vec<Kind>,
    /// Clients of each log.
    pub(super) clients: usize,
    /// How many use one client's handle at once.
    pub(super) users: usize,
    pub(super) weather: Weather,
    pub(super) faults: Vec<Fault>,
    /// Between two faults, in milliseconds, at most.
    pub(super) fault_pause: u64,
    /// More damage than replication makes up for: loss is allowed and silence is not.
    pub(super) over_budget: bool,
    pub(super) journal_bytes: u64,
    pub(super) data_bytes: u64,
    /// How long work on a disk takes, in milliseconds, at most.
    pub(super) disk_delay: u64,
    /// A client's pause between two operations, in milliseconds, at most.
    pub(super) think: u64,
    /// Of a hundred operations, how many change the chain.
    pub(super) reconfigure: u64,
    /// Of a hundred operations, how many trim.
    pub(super) trim: u64,
    /// Names of native loglets that clients go over to.
    pub(super) loglets: Vec<&'static str>,
    /// Whether somebody ends a log in the end.
    pub(super) ends: bool,
    /// How often heartbeats are sent, and after how long a silence a node counts as dead.
    pub(super) heartbeat: u64,
    pub(super) suspect: u64,
    /// A segment of more bytes is rolled.
    pub(super) segment_bytes: u64,
    /// After so many seconds what a dead node held is copied to others.
    pub(super) rebuild: u64,
}

fn one_of<T: Copy>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.below(all.len() as u64) as usize]
}

impl Plan {
    /// What this seed draws.
    pub(super) fn draw(rng: &mut Rng) -> Plan {
        let over_budget = rng.chance(10);
        let nodes = one_of(rng, &[3, 3, 3, 4, 5, 5, 7]);
        let mut faults: Vec<Fault> = Vec::new();
        for (fault, _) in Fault::ALL {
            // Damage is rare in the world too.
            if rng.chance(if fault.damages() { 30 } else { 50 }) {
                faults.push(fault);
            }
        }
        if over_budget {
            faults.retain(|fault| *fault != Fault::OldImage);
            faults.push(one_of(rng, &[Fault::BitFlip, Fault::Wipe]));
        }
        let mut logs = vec![Kind::Cluster];
        for _ in 0..rng.below(3) {
            logs.push(one_of(rng, &[Kind::Cluster, Kind::Mixed, Kind::Embedded]));
        }
        let rough = |rng: &mut Rng, most: u64| if rng.chance(50) { rng.below(most + 1) } else { 0 };
        let least = one_of(rng, &[0, 0, 1, 5]);
        let weather = Weather {
            delay: (least, least + one_of(rng, &[1, 2, 5, 20, 100])),
            slow: rough(rng, 300),
            loss: rough(rng, 300),
            breaks: rough(rng, 50),
        };
        let mut loglets = vec!["native", "native:3"];
        if nodes >= 5 {
            loglets.push("native:5");
        }
        if !over_budget && !faults.iter().any(|fault| fault.damages()) && rng.chance(25) {
            loglets.push("native:1");
        }
        Plan {
            nodes,
            logs,
            clients: 1 + rng.below(3) as usize,
            users: one_of(rng, &[1, 1, 3]),
            weather,
            faults,
            fault_pause: one_of(rng, &[500, 2000, 5000, 12_000]),
            over_budget,
            journal_bytes: one_of(rng, &[64 << 10, 64 << 10, 256 << 10]),
            data_bytes: one_of(rng, &[16 << 10, 64 << 10, 1 << 20]),
            disk_delay: one_of(rng, &[0, 1, 4, 15]),
            think: one_of(rng, &[40, 150, 400]),
            reconfigure: one_of(rng, &[0, 1, 3, 8]),
            trim: one_of(rng, &[0, 1, 4]),
            loglets,
            ends: rng.chance(15),
            heartbeat: one_of(rng, &[50, 200, 200]),
            suspect: one_of(rng, &[500, 1000, 1500]),
            segment_bytes: one_of(rng, &[8 << 10, 64 << 10, 4 << 30]),
            rebuild: one_of(rng, &[10, 600]),
            founders: one_of(rng, &[1, nodes, nodes, nodes]),
        }
    }

    /// The weather of the second phase.
    pub(super) fn calm(&self) -> Weather {
        Weather { delay: (0, 2), ..Weather::default() }
    }
}
