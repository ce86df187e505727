//! Repairs, played over small LogServers. Numbers are those of the test list in `spec/delos.md`
//! section 4.9.

use std::collections::BTreeMap;

use super::*;
use crate::log_server::{LocalLog, Verdict};

/// Sealed LogServers: their logs, and their batches by first position: the end.
struct Servers(Vec<(LocalLog, BTreeMap<u64, u64>)>);

impl Servers {
    /// Each with batches, as ranges, and a trim point.
    fn new(all: &[(&[(u64, u64)], u64)]) -> Servers {
        let server = |(batches, trim): &(&[(u64, u64)], u64)| {
            let mut log = LocalLog::new(LogletPos(0));
            if let Some((_, end)) = batches.last() {
                log.written(LogletPos(*end));
            }
            log.seal();
            log.trim(LogletPos(*trim));
            (log, batches.iter().filter(|(_, end)| end > trim).copied().collect())
        };
        Servers(all.iter().map(server).collect())
    }

    fn plan(&self, servers: &[usize], from: u64, to: u64) -> Plan {
        let servers = servers.iter().map(|at| (*at, self.0[*at].0.tail)).collect();
        Plan { from: LogletPos(from), to: LogletPos(to), servers }
    }

    /// One step; `chunk` batches at most are read at once. True when there is no other.
    fn step(&mut self, repair: &mut Repair<u64>, chunk: usize) -> bool {
        match repair.step() {
            RepairStep::Fetch { server, from, to } => {
                let (log, batches) = &self.0[server];
                assert!(from < to && to <= log.tail, "it is asked for what it passed");
                if from < log.trim {
                    repair.trimmed(log.trim);
                    return false;
                }
                let range = batches.iter().filter(|(at, end)| **end > from.0 && **at < to.0);
                let copied = range.take(chunk).map(|(first, end)| Copied {
                    first: LogletPos(*first),
                    end: LogletPos(*end),
                    batch: *first,
                });
                repair.fetched(server, copied.collect());
            }
            RepairStep::Store { server, batches } => {
                self.store(server, &batches);
                repair.stored(server, self.0[server].0.answer());
            }
            RepairStep::Done | RepairStep::Restart => return true,
        }
        false
    }

    fn store(&mut self, server: usize, batches: &[Copied<u64>]) {
        let (log, held) = &mut self.0[server];
        for copied in batches {
            assert_eq!(copied.batch, copied.first.0, "it is stored where it was");
            let count = copied.end.0 - copied.first.0;
            if log.repair(copied.first, count).expect("it fits") == Verdict::Write {
                log.written(copied.end);
                held.insert(copied.first.0, copied.end.0);
            }
        }
    }

    fn run(&mut self, plan: Plan, chunk: usize) -> RepairStep<u64> {
        let mut repair = Repair::new(plan);
        for _ in 0..1000 {
            if self.step(&mut repair, chunk) {
                return repair.step();
            }
        }
        panic!("no end: {repair:?}");
    }

    fn ranges(&self, server: usize) -> Vec<(u64, u64)> {
        self.0[server].1.iter().map(|(first, end)| (*first, *end)).collect()
    }
}

const ALL: &[(u64, u64)] = &[(0, 2), (2, 3), (3, 7), (7, 8)];

#[test]
fn n12_each_gets_what_it_lacks_and_nothing_else() {
    for chunk in 1..5 {
        let mut servers = Servers::new(&[(&ALL[..1], 0), (ALL, 0), (&ALL[..3], 0)]);
        let plan = servers.plan(&[0, 1, 2], 0, 8);
        assert_eq!(servers.run(plan, chunk), RepairStep::Done);
        for server in 0..3 {
            assert_eq!(servers.ranges(server), ALL);
        }
    }
}

fn copied(first: u64, end: u64) -> Copied<u64> {
    Copied { first: LogletPos(first), end: LogletPos(end), batch: first }
}

/// A source may show more than it was asked for.
#[test]
fn n12_what_is_there_or_beyond_the_target_is_not_copied() {
    let servers = vec![(0, LogletPos(2)), (1, LogletPos(8)), (2, LogletPos(3))];
    let mut repair = Repair::new(Plan { from: LogletPos(0), to: LogletPos(7), servers });
    let (from, to) = (LogletPos(2), LogletPos(7));
    assert_eq!(repair.step(), RepairStep::Fetch { server: 1, from, to });
    repair.fetched(1, [(0, 2), (2, 3), (3, 6), (6, 7), (7, 8)].map(|(a, b)| copied(a, b)).into());
    let lacked = |server, batches| RepairStep::Store { server, batches };
    let all = vec![copied(2, 3), copied(3, 6), copied(6, 7)];
    assert_eq!(repair.step(), lacked(0, all.clone()));
    repair.stored(0, LocalTail { tail: LogletPos(7), sealed: true });
    assert_eq!(repair.step(), lacked(2, all[1..].to_vec()));
    repair.stored(2, LocalTail { tail: LogletPos(7), sealed: true });
    assert_eq!(repair.step(), RepairStep::Done);
}

#[test]
fn n12_up_to_the_target_only() {
    let mut servers = Servers::new(&[(&ALL[..1], 0), (ALL, 0), (&ALL[..2], 0)]);
    let plan = servers.plan(&[0, 1, 2], 0, 3);
    assert_eq!(servers.run(plan, 9), RepairStep::Done);
    assert_eq!(servers.ranges(0), &ALL[..2]);
}

#[test]
fn n13_it_begins_at_the_known_tail_and_leaves_a_gap() {
    let mut servers = Servers::new(&[(&ALL[..1], 0), (ALL, 0)]);
    let plan = servers.plan(&[0, 1], 3, 8);
    assert_eq!(servers.run(plan, 9), RepairStep::Done);
    assert_eq!(servers.ranges(0), [(0, 2), (3, 7), (7, 8)]);
}

#[test]
fn n13_t41_what_was_trimmed_is_not_missing() {
    // Trimmed inside a batch, too.
    for (trim, copied) in [(3, vec![(3, 7), (7, 8)]), (5, vec![(3, 7), (7, 8)]), (7, vec![(7, 8)])]
    {
        let mut servers = Servers::new(&[(&[], 0), (ALL, trim)]);
        let plan = servers.plan(&[0, 1], 0, 8);
        assert_eq!(servers.run(plan, 9), RepairStep::Done);
        assert_eq!(servers.ranges(0), copied);
    }
    let mut servers = Servers::new(&[(&[], 0), (ALL, 8)]);
    let plan = servers.plan(&[0, 1], 0, 8);
    assert_eq!(servers.run(plan, 9), RepairStep::Done);
    assert_eq!(servers.ranges(0), []);
}

#[test]
fn what_one_source_skipped_comes_from_another() {
    let skipped = [(0, 2), (7, 8)];
    for chunk in 1..5 {
        let mut servers = Servers::new(&[(&[], 0), (&skipped, 0), (&ALL[..3], 0)]);
        let plan = servers.plan(&[0, 1, 2], 0, 8);
        assert_eq!(servers.run(plan, chunk), RepairStep::Done);
        assert_eq!(servers.ranges(0), ALL);
        assert_eq!(servers.ranges(1), skipped, "what it skipped never comes back");
    }
}

#[test]
fn what_all_lack_is_empty_for_ever() {
    let gappy = [(2, 3), (10, 12)];
    let mut servers = Servers::new(&[(&[], 0), (&gappy, 0), (&gappy[..1], 0)]);
    let plan = servers.plan(&[0, 1, 2], 0, 12);
    assert_eq!(servers.run(plan, 9), RepairStep::Done);
    assert_eq!((servers.ranges(0), servers.ranges(2)), (gappy.to_vec(), gappy.to_vec()));
}

#[test]
fn t32_one_that_was_interrupted_is_repeated_by_somebody_else() {
    for steps in 0..6 {
        let mut servers = Servers::new(&[(&ALL[..1], 0), (ALL, 0)]);
        let mut dies = Repair::new(servers.plan(&[0, 1], 0, 8));
        (0..steps).for_each(|_| {
            servers.step(&mut dies, 1);
        });
        let plan = servers.plan(&[0, 1], 0, 8);
        assert_eq!(servers.run(plan, 9), RepairStep::Done);
        assert_eq!(servers.ranges(0), ALL);
    }
}

#[test]
fn t33_two_at_once_only_meet_what_is_there_already() {
    // Every way to interleave two repairs of the first twelve steps.
    for order in 0..1 << 12 {
        let mut servers = Servers::new(&[(&ALL[..1], 0), (ALL, 0)]);
        let plan = servers.plan(&[0, 1], 0, 8);
        let mut both = [(Repair::new(plan.clone()), 1), (Repair::new(plan), 2)];
        for at in 0..12 {
            let (repair, chunk) = &mut both[order >> at & 1];
            servers.step(repair, *chunk);
        }
        for (repair, chunk) in &mut both {
            while !servers.step(repair, *chunk) {}
            assert_eq!(repair.step(), RepairStep::Done);
        }
        assert_eq!(servers.ranges(0), ALL);
    }
}

#[test]
fn t34_a_source_that_dies_is_replaced_if_it_can_be() {
    let mut servers = Servers::new(&[(&[], 0), (ALL, 0), (ALL, 0)]);
    let mut repair = Repair::new(servers.plan(&[0, 1, 2], 0, 8));
    assert!(matches!(repair.step(), RepairStep::Fetch { server: 1, .. }));
    repair.failed(1);
    while !servers.step(&mut repair, 1) {}
    assert_eq!(repair.step(), RepairStep::Done);
    assert_eq!(servers.ranges(0), ALL);

    let mut repair: Repair<u64> =
        Repair::new(Servers::new(&[(&[], 0), (ALL, 0)]).plan(&[0, 1], 0, 8));
    repair.failed(1);
    assert_eq!(repair.step(), RepairStep::Restart);
}

#[test]
fn nothing_is_taken_for_empty_while_a_source_is_gone() {
    let mut servers = Servers::new(&[(&[], 0), (&[(7, 8)], 0), (ALL, 0)]);
    let mut repair = Repair::new(servers.plan(&[0, 1, 2], 0, 8));
    repair.failed(2);
    while !servers.step(&mut repair, 9) {}
    assert_eq!(repair.step(), RepairStep::Restart);
    assert_eq!(servers.ranges(0), []);
}

#[test]
fn one_that_cannot_be_repaired_begins_again_without_it() {
    let servers = Servers::new(&[(&ALL[..1], 0), (ALL, 0)]);
    let mut gone: Repair<u64> = Repair::new(servers.plan(&[0, 1], 0, 8));
    gone.failed(0);
    assert_eq!(gone.step(), RepairStep::Restart);

    let mut stuck: Repair<u64> = Repair::new(servers.plan(&[0, 1], 0, 8));
    stuck.stored(0, LocalTail { tail: LogletPos(2), sealed: true });
    assert_eq!(stuck.step(), RepairStep::Restart);
}
