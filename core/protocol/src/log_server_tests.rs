//! What a LogServer takes and refuses, rule by rule. Numbers are those of the test list in
//! `spec/delos.md` section 4.9.

use super::*;

fn at(position: u64) -> LogletPos {
    LogletPos(position)
}

/// A server that took `tail` entries.
fn with_tail(tail: u64) -> LocalLog {
    let mut log = LocalLog::new(at(0));
    log.written(at(tail));
    log
}

#[test]
fn takes_batches_in_order() {
    let mut log = LocalLog::new(at(7));
    assert_eq!(log.store(at(7), 3, at(0)), Ok(Verdict::Write));
    log.written(at(10));
    assert_eq!(log.store(at(10), 1, at(0)), Ok(Verdict::Write));
    assert_eq!(log.answer(), LocalTail { tail: at(10), sealed: false });
}

#[test]
fn t10_gap_rule_nothing_is_taken_over_a_gap_unless_it_is_known_to_be_committed() {
    let log = with_tail(5);
    assert_eq!(log.store(at(6), 1, at(5)), Err(Refusal::Gap { tail: at(5) }));
    assert_eq!(log.store(at(9), 1, at(8)), Err(Refusal::Gap { tail: at(5) }));
    assert_eq!(log.store(at(9), 1, at(9)), Ok(Verdict::Write));
    assert_eq!(log.store(at(9), 1, at(20)), Ok(Verdict::Write));
}

#[test]
fn t9_t11_a_duplicate_is_held_and_what_was_skipped_never_comes_back() {
    let mut log = with_tail(5);
    assert_eq!(log.store(at(0), 5, at(0)), Ok(Verdict::Held));
    assert_eq!(log.store(at(3), 1, at(0)), Ok(Verdict::Held));
    assert_eq!(log.store(at(9), 1, at(9)), Ok(Verdict::Write));
    log.written(at(10));
    assert_eq!(log.store(at(6), 2, at(0)), Ok(Verdict::Held));
}

#[test]
fn a_batch_across_the_tail_is_a_conflict() {
    let mut log = with_tail(5);
    assert_eq!(log.store(at(4), 2, at(9)), Err(Refusal::Conflict { tail: at(5) }));
    log.seal();
    assert_eq!(log.repair(at(4), 2), Err(Refusal::Conflict { tail: at(5) }));
}

#[test]
fn t29_n2_schedule_a_sealed_server_refuses_even_what_it_has() {
    let mut log = with_tail(5);
    log.seal();
    for (first, known_tail) in [(0, 0), (4, 5), (5, 5), (9, 9)] {
        assert_eq!(log.store(at(first), 1, at(known_tail)), Err(Refusal::Sealed));
    }
    let bug = Planted::NONE.with(Bug::SealedTakesDuplicate);
    assert_eq!(log.store_with(bug, at(4), 1, at(0)), Ok(Verdict::Held));
}

#[test]
fn n10_only_a_sealed_server_is_repaired() {
    let mut log = with_tail(5);
    assert_eq!(log.repair(at(5), 1), Err(Refusal::NotSealed));
    assert_eq!(log.repair(at(0), 1), Err(Refusal::NotSealed));
    log.seal();
    assert_eq!(log.repair(at(0), 5), Ok(Verdict::Held));
    assert_eq!(log.repair(at(5), 1), Ok(Verdict::Write));
    // What lies between was found trimmed, committed or empty.
    assert_eq!(log.repair(at(9), 1), Ok(Verdict::Write));
}

#[test]
fn a_trim_stays_within_the_log_and_never_goes_back() {
    let mut log = with_tail(5);
    assert_eq!(log.trim(at(3)), at(3));
    assert_eq!(log.trim(at(1)), at(3));
    assert_eq!(log.trim(at(9)), at(9), "also of what is not here");
    assert_eq!(log.answer().tail, at(5));
}
