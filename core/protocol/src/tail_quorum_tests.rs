//! Tail checks, box by box. Numbers are those of the test list in `spec/delos.md` section 4.9.

use super::*;

fn check(servers: usize) -> TailCheck {
    TailCheck::new(LogletPos(0), servers)
}

fn open(check: &mut TailCheck, server: usize, tail: u64) {
    check.answered(server, LocalTail { tail: LogletPos(tail), sealed: false });
}

fn sealed(check: &mut TailCheck, server: usize, tail: u64) {
    check.answered(server, LocalTail { tail: LogletPos(tail), sealed: true });
}

fn tail(position: u64, sealed: bool) -> Step {
    Step::Tail(Tail { position: LogletPos(position), sealed })
}

fn wait_for(target: u64, servers: &[usize]) -> Step {
    Step::WaitFor { target: LogletPos(target), servers: servers.to_vec() }
}

fn repair(to: u64, servers: &[(usize, u64)]) -> Step {
    let servers = servers.iter().map(|(server, tail)| (*server, LogletPos(*tail))).collect();
    Step::Repair(Plan { from: LogletPos(0), to: LogletPos(to), servers })
}

#[test]
fn t22_all_sealed_at_one_tail() {
    let mut check = check(3);
    assert_eq!(check.step(true), Step::Wait);
    sealed(&mut check, 0, 4);
    assert_eq!(check.step(true), Step::Wait);
    sealed(&mut check, 2, 4);
    assert_eq!(check.step(false), tail(4, true));
}

#[test]
fn t23_all_sealed_at_different_tails_are_repaired_to_the_highest() {
    let mut check = check(3);
    sealed(&mut check, 0, 4);
    sealed(&mut check, 2, 9);
    assert_eq!(check.step(false), Step::Wait, "the third may spare the repair");
    assert_eq!(check.step(true), repair(9, &[(0, 4), (2, 9)]));
    sealed(&mut check, 0, 6);
    assert_eq!(check.step(true), repair(9, &[(0, 6), (2, 9)]));
    sealed(&mut check, 0, 9);
    assert_eq!(check.step(true), tail(9, true));
}

#[test]
fn who_refused_is_not_waited_for() {
    let mut check = check(3);
    open(&mut check, 0, 4);
    open(&mut check, 1, 7);
    assert_eq!(check.step(false), Step::Wait, "the third may have it");
    check.refused(2);
    assert_eq!(check.step(false), wait_for(7, &[0]));
}

#[test]
fn t24_some_sealed_seals_all_once() {
    let mut check = check(3);
    sealed(&mut check, 0, 4);
    open(&mut check, 1, 7);
    assert_eq!(check.step(false), Step::SealAll);
    assert_eq!(check.step(true), Step::Wait);
    // A late answer from before the seal takes nothing back, and makes no unsealed tail.
    open(&mut check, 0, 4);
    open(&mut check, 2, 7);
    assert_eq!(check.step(true), Step::Wait);
    sealed(&mut check, 1, 7);
    assert_eq!(check.step(false), Step::Wait, "the third was told to seal and will answer");
    sealed(&mut check, 2, 7);
    assert_eq!(check.step(false), tail(7, true));
}

#[test]
fn t24_a_late_answer_from_before_the_seal_unseals_nothing() {
    let mut check = check(3);
    sealed(&mut check, 0, 4);
    sealed(&mut check, 1, 4);
    open(&mut check, 1, 3);
    assert_eq!(check.step(true), tail(4, true));
}

#[test]
fn t24_a_check_that_seals_gives_no_unsealed_tail_though_the_seal_that_it_saw_is_gone() {
    let mut check = check(3);
    sealed(&mut check, 0, 4);
    open(&mut check, 1, 4);
    open(&mut check, 2, 4);
    assert_eq!(check.step(true), Step::SealAll);
    check.refused(0);
    assert_eq!(check.step(true), Step::Wait);
}

#[test]
fn t25_none_sealed_at_one_tail() {
    let mut check = check(3);
    open(&mut check, 1, 5);
    open(&mut check, 2, 5);
    assert_eq!(check.step(false), tail(5, false));
}

#[test]
fn t26_none_sealed_at_different_tails_waits_for_the_highest_of_a_majority() {
    let mut check = check(3);
    open(&mut check, 0, 5);
    open(&mut check, 1, 3);
    assert_eq!(check.step(false), Step::Wait);
    assert_eq!(check.step(true), wait_for(5, &[1]));
    // A log that goes on is not chased: the target stays.
    open(&mut check, 0, 50);
    open(&mut check, 1, 4);
    assert_eq!(check.step(true), wait_for(5, &[1]));
    open(&mut check, 1, 40);
    assert_eq!(check.step(true), tail(5, false));
}

#[test]
fn t17_a_minority_that_missed_the_seal_is_found_as_some_sealed() {
    let mut check = check(3);
    open(&mut check, 2, 3);
    sealed(&mut check, 1, 3);
    assert_eq!(check.step(true), Step::SealAll);
    sealed(&mut check, 2, 3);
    assert_eq!(check.step(true), tail(3, true));
}

#[test]
fn n11_the_median_of_all_needs_neither_waiting_nor_repair() {
    for (tails, median) in [([3, 9, 5], 5), ([9, 9, 0], 9), ([0, 0, 9], 0)] {
        let (mut all_open, mut all_sealed) = (check(3), check(3));
        for (server, at) in tails.into_iter().enumerate() {
            open(&mut all_open, server, at);
            sealed(&mut all_sealed, server, at);
        }
        assert_eq!(all_open.step(false), tail(median, false));
        assert_eq!(all_sealed.step(false), tail(median, true));
    }
}

#[test]
fn n11_four_of_five_take_the_smallest_majority() {
    let mut check = check(5);
    for (server, at) in [8, 2, 6, 4].into_iter().enumerate() {
        sealed(&mut check, server, at);
    }
    // {2, 4, 6} is a majority, so nothing from 6 on was acknowledged; two have all up to 6.
    assert_eq!(check.step(true), repair(6, &[(0, 8), (1, 2), (2, 6), (3, 4)]));
    sealed(&mut check, 3, 6);
    assert_eq!(check.step(true), tail(6, true));
}

#[test]
fn t28_n1_schedule_a_known_tail_ends_no_unsealed_check() {
    let mut check = check(3);
    open(&mut check, 0, 1);
    open(&mut check, 2, 0);
    // Somebody sealed, cut at 0 and repaired, and the known tail came here first.
    check.known_tail(LogletPos(1));
    assert_eq!(check.step(true), wait_for(1, &[2]));
    sealed(&mut check, 2, 0);
    assert_eq!(check.step(true), Step::SealAll);
}

#[test]
fn n13_what_is_committed_or_trimmed_is_not_repaired() {
    let mut check = check(3);
    sealed(&mut check, 0, 0);
    sealed(&mut check, 1, 9);
    check.known_tail(LogletPos(6));
    check.known_tail(LogletPos(2));
    let Step::Repair(plan) = check.step(true) else { panic!("it repairs") };
    assert_eq!((plan.from, plan.to), (LogletPos(6), LogletPos(9)));
    check.known_tail(LogletPos(9));
    assert_eq!(check.step(true), tail(9, true));
}

#[test]
fn n14_evidence_that_is_gone_is_dropped() {
    let mut check = check(3);
    sealed(&mut check, 0, 9);
    sealed(&mut check, 1, 4);
    assert!(matches!(check.step(true), Step::Repair(_)));
    // The one that has it loses its disk: nothing up there was ever acknowledged.
    check.refused(0);
    assert_eq!(check.step(true), Step::Wait);
    sealed(&mut check, 2, 4);
    assert_eq!(check.step(true), tail(4, true));
}

#[test]
fn t38_without_a_majority_that_votes_it_is_lost() {
    let mut check = check(3);
    open(&mut check, 0, 4);
    check.refused(1);
    assert_eq!(check.step(true), Step::Wait);
    check.refused(2);
    assert_eq!(check.step(true), Step::Lost);
    open(&mut check, 2, 4);
    assert_eq!(check.step(true), tail(4, false));
}

#[test]
fn t3_one_server_is_its_own_majority() {
    let mut check = check(1);
    open(&mut check, 0, 4);
    assert_eq!(check.step(false), tail(4, false));
    sealed(&mut check, 0, 5);
    assert_eq!(check.step(false), tail(5, true));
}

#[test]
fn t37_a_sealed_tail_that_grows_is_another_boundary_for_the_next_caller() {
    let (mut first, mut second) = (check(3), check(3));
    sealed(&mut first, 1, 0);
    sealed(&mut first, 2, 0);
    assert_eq!(first.step(true), tail(0, true));
    sealed(&mut second, 0, 1);
    sealed(&mut second, 1, 0);
    assert_eq!(second.step(true), repair(1, &[(0, 1), (1, 0)]));
}
