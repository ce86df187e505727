//! The sequencer, story by story. Numbers are those of the test list in `spec/delos.md` section 4.9.
//! Random stories against an oracle are in `sequencer_oracle_tests.rs`.

use super::*;

type Out = Vec<Effect<u64, u32>>;

const LIMITS: Limits = Limits {
    window_bytes: 100,
    server_bytes: 40,
    retained_bytes: 30,
    writers: 2,
    batches_per_writer: 2,
};

fn at(position: u64) -> LogletPos {
    LogletPos(position)
}

/// A batch of one entry, 10 bytes, of one writer; its sequence number is its token and its bytes.
fn entry(writer: u128, seq: u64) -> Append<u64, u32> {
    Append {
        writer: WriterId(writer),
        first_seq: seq,
        count: 1,
        bytes: 10,
        at: None,
        resend: false,
        round: 0,
        floor: seq,
        batch: seq,
        token: seq as u32,
    }
}

fn again(writer: u128, seq: u64, token: u32) -> Append<u64, u32> {
    Append { resend: true, token, ..entry(writer, seq) }
}

/// The thing itself, with calls that return what came of them.
struct Calls(Sequencer<u64, u32>);

impl Calls {
    fn new(servers: usize, limits: Limits) -> Calls {
        let mut calls = Calls(Sequencer::new(at(0), servers, limits));
        for server in 0..servers {
            assert_eq!(calls.connected(server), []);
        }
        calls
    }
    fn append(&mut self, append: Append<u64, u32>) -> Out {
        let mut out = Vec::new();
        self.0.append(append, &mut out);
        out
    }
    fn tail(&mut self, server: usize, tail: u64) -> Out {
        let mut out = Vec::new();
        self.0.answered(server, LocalTail { tail: at(tail), sealed: false }, &mut out);
        out
    }
    fn sealed(&mut self, server: usize, tail: u64) -> Out {
        let mut out = Vec::new();
        self.0.answered(server, LocalTail { tail: at(tail), sealed: true }, &mut out);
        out
    }
    fn connected(&mut self, server: usize) -> Out {
        let mut out = Vec::new();
        self.0.connected(server, &mut out);
        out
    }
    fn notices(&mut self) -> Out {
        let mut out = Vec::new();
        self.0.notices(&mut out);
        out
    }
    fn seal(&mut self) -> Out {
        let mut out = Vec::new();
        self.0.seal(&mut out);
        out
    }
}

fn store(server: usize, first: u64, known_tail: u64) -> Effect<u64, u32> {
    Effect::Store { server, first: at(first), known_tail: at(known_tail), batch: first }
}

fn commit(token: u32, first: u64, known_tail: u64) -> Effect<u64, u32> {
    Effect::Commit { token, first: at(first), known_tail: at(known_tail) }
}

fn refuse(token: u32, why: AppendRefusal) -> Effect<u64, u32> {
    Effect::Refuse { token, why }
}

fn notice(server: usize, known_tail: u64) -> Effect<u64, u32> {
    Effect::Notice { server, known_tail: at(known_tail) }
}

#[test]
fn t1_a_majority_commits_and_idle_servers_are_told() {
    let mut s = Calls::new(3, LIMITS);
    assert_eq!(s.append(entry(1, 0)), [store(0, 0, 0), store(1, 0, 0), store(2, 0, 0)]);
    assert_eq!(s.tail(1, 1), []);
    assert_eq!(s.tail(1, 1), [], "one server twice is one server");
    assert_eq!(s.notices(), []);
    assert_eq!(s.tail(0, 1), [commit(0, 0, 1)]);
    assert_eq!(s.notices(), [notice(0, 1), notice(1, 1), notice(2, 1)]);
    assert_eq!(s.notices(), []);
    assert_eq!(s.append(entry(1, 1)), [store(0, 1, 1), store(1, 1, 1), store(2, 1, 1)]);
    assert_eq!(s.notices(), [], "the batch told them");
}

#[test]
fn t2_answers_are_cumulative() {
    let mut s = Calls::new(5, LIMITS);
    (0..4).for_each(|seq| assert_eq!(s.append(entry(1, seq)).len(), 5));
    assert_eq!(s.tail(4, 4), []);
    assert_eq!(s.tail(0, 2), []);
    assert_eq!(s.tail(2, 3), [commit(0, 0, 2), commit(1, 1, 2)]);
    assert_eq!(s.tail(0, 4), [commit(2, 2, 3)]);
    assert_eq!(s.0.known_tail(), at(3));
    assert_eq!(s.0.window(), 10);
}

#[test]
fn t3_one_server_is_its_own_majority() {
    let mut s = Calls::new(1, LIMITS);
    s.append(entry(1, 0));
    assert_eq!(s.tail(0, 1), [commit(0, 0, 1)]);
}

#[test]
fn t6_a_slow_server_holds_nobody_back_and_goes_on_at_the_known_tail() {
    let mut s = Calls::new(3, LIMITS);
    for seq in 0..20 {
        let out = s.append(entry(1, seq));
        let to_slow = out.iter().filter(|e| matches!(e, Effect::Store { server: 2, .. })).count();
        // 40 bytes are under way to it, and no more.
        assert_eq!(to_slow, usize::from(seq < 4));
        assert_eq!(s.tail(0, seq + 1), []);
        assert_eq!(s.tail(1, seq + 1), [commit(seq as u32, seq, seq + 1)]);
        assert!(s.0.retained <= LIMITS.retained_bytes);
    }
    assert_eq!(s.append(entry(1, 20)), [store(0, 20, 20), store(1, 20, 20)]);
    assert_eq!(s.notices(), [], "the others were told, and it will be with what comes next");
    // It says that it has the first, and is sent what is not committed yet, over one long gap.
    assert_eq!(s.tail(2, 1), [store(2, 20, 20)]);
    assert_eq!(s.tail(2, 21), []);
    assert_eq!(s.tail(0, 21), [commit(20, 20, 21)], "and counts again");
}

#[test]
fn t6_a_server_that_lags_a_little_gets_what_was_kept() {
    let mut s = Calls::new(3, LIMITS);
    s.0.disconnected(2);
    (0..3).for_each(|seq| assert_eq!(s.append(entry(1, seq)).len(), 2));
    s.tail(0, 3);
    s.tail(1, 3);
    assert_eq!(s.connected(2), [store(2, 0, 3), store(2, 1, 3), store(2, 2, 3)]);
    assert_eq!(s.tail(2, 3), []);
    assert!(s.0.log.is_empty(), "all have all");
}

#[test]
fn nothing_is_kept_for_a_sealed_server() {
    let mut s = Calls::new(3, LIMITS);
    s.append(entry(1, 0));
    assert_eq!(s.sealed(2, 0), [Effect::FinishSeal]);
    s.tail(0, 1);
    assert_eq!(s.tail(1, 1), [commit(0, 0, 1)]);
    assert!(s.0.log.is_empty());
}

#[test]
fn t7_t8_without_a_majority_it_waits_and_then_goes_on() {
    let mut s = Calls::new(3, LIMITS);
    s.0.disconnected(1);
    s.0.disconnected(2);
    assert_eq!(s.append(entry(1, 0)), [store(0, 0, 0)]);
    assert_eq!(s.tail(0, 1), []);
    assert_eq!(s.connected(2), [store(2, 0, 0)]);
    assert_eq!(s.tail(2, 1), [commit(0, 0, 1)]);
    assert_eq!(s.append(entry(1, 1)), [store(0, 1, 1), store(2, 1, 1)]);
}

#[test]
fn t9_t11_what_was_not_answered_is_sent_again_with_its_position() {
    let mut s = Calls::new(3, LIMITS);
    (0..3).for_each(|seq| assert_eq!(s.append(entry(1, seq)).len(), 3));
    s.tail(0, 1);
    assert_eq!(s.connected(0), [store(0, 1, 0), store(0, 2, 0)]);
    assert_eq!(s.connected(0), [store(0, 1, 0), store(0, 2, 0)]);
    // Late answers from the old connection count, and older ones take nothing back.
    s.tail(0, 3);
    s.tail(0, 2);
    assert_eq!(s.connected(0), []);
}

#[test]
fn a_server_that_has_more_than_this_connection_sent_is_sent_the_rest() {
    let mut s = Calls::new(1, LIMITS);
    (0..6).for_each(|seq| {
        s.append(entry(1, seq));
    });
    let out = s.tail(0, 5);
    assert_eq!(out.last(), Some(&store(0, 5, 5)), "four had been sent");
}

#[test]
fn a_server_that_answers_before_it_is_connected_is_sent_what_it_lacks() {
    let mut s = Calls(Sequencer::new(at(0), 3, LIMITS));
    (0..3).for_each(|seq| assert_eq!(s.append(entry(1, seq)), []));
    assert_eq!(s.tail(0, 2), []);
    assert_eq!(s.connected(0), [store(0, 2, 0)]);
}

#[test]
fn t14_a_lost_answer_to_the_writer_is_given_again() {
    let mut s = Calls::new(3, LIMITS);
    s.append(entry(1, 5));
    assert_eq!(s.append(again(1, 5, 70)), [], "together with the original");
    s.tail(0, 1);
    assert_eq!(s.tail(1, 1), [commit(5, 0, 1), commit(70, 0, 1)]);
    assert_eq!(s.append(again(1, 5, 71)), [commit(71, 0, 1)], "at once");
    assert_eq!(s.0.retained, 10, "for the third");
    assert_eq!(s.seal(), []);
    assert_eq!(s.0.retained, 0);
    assert_eq!(s.append(again(1, 5, 72)), [commit(72, 0, 1)], "true even after the seal");
}

#[test]
fn t16_sealed_servers_fail_what_is_outstanding_for_ever() {
    let mut s = Calls::new(3, LIMITS);
    (0..2).for_each(|seq| assert_eq!(s.append(entry(1, seq)).len(), 3));
    assert_eq!(s.sealed(0, 0), [Effect::FinishSeal]);
    assert_eq!(s.append(entry(1, 2)), [refuse(2, AppendRefusal::Sealed)], "nothing new is taken");
    assert_eq!(s.sealed(0, 0), [], "once");
    s.tail(1, 1);
    assert_eq!(s.tail(2, 1), [commit(0, 0, 1)], "what was taken may still be committed");
    assert_eq!(s.sealed(2, 1), [refuse(1, AppendRefusal::Sealed)]);
    assert!(s.0.is_sealed());
    assert_eq!(s.tail(1, 2), []);
    assert_eq!(s.connected(1), []);
    assert_eq!(s.append(again(1, 1, 7)), [refuse(7, AppendRefusal::Sealed)]);
    assert_eq!(s.append(entry(1, 2)), [refuse(2, AppendRefusal::Sealed)]);
}

#[test]
fn t49_a_seal_from_outside_fails_everything() {
    let mut s = Calls::new(3, LIMITS);
    s.append(entry(1, 0));
    s.append(again(1, 0, 9));
    s.tail(0, 1);
    let sealed = AppendRefusal::Sealed;
    assert_eq!(s.seal(), [refuse(0, sealed), refuse(9, sealed)]);
    assert_eq!(s.tail(1, 1), [], "no late answer commits it");
    assert_eq!(s.seal(), []);
}

#[test]
fn t30_n3_schedule_what_sealed_servers_have_counts_for_nothing() {
    let mut s = Calls::new(5, LIMITS);
    s.append(entry(1, 0));
    assert_eq!(s.tail(0, 1), []);
    // Two got it by repair.
    assert_eq!(s.sealed(1, 1), [Effect::FinishSeal]);
    assert_eq!(s.sealed(2, 1), []);
    assert_eq!(s.0.known_tail(), at(0));
    // The same server before its seal does count.
    assert_eq!(s.tail(1, 1), []);
    assert_eq!(s.tail(2, 1), [commit(0, 0, 1)]);
}

#[test]
fn t50_a_second_sequencer_that_meets_the_first_ones_batches_gives_up() {
    let mut s = Calls::new(3, LIMITS);
    s.append(entry(1, 0));
    assert_eq!(s.tail(0, 2), [Effect::FinishSeal, refuse(0, AppendRefusal::Sealed)]);
    assert!(s.0.is_sealed());
}

#[test]
fn n17_a_writer_is_taken_in_order_and_never_overtakes_itself() {
    let mut s = Calls::new(3, LIMITS);
    s.append(entry(1, 40));
    assert_eq!(s.append(entry(1, 42)), [refuse(42, AppendRefusal::OutOfOrder { expected: 41 })]);
    assert_eq!(s.append(entry(2, 0)).len(), 3, "another writer is not concerned");
    let full = Append { bytes: 90, ..entry(1, 41) };
    assert_eq!(s.append(full), [refuse(41, AppendRefusal::Busy)]);
    assert_eq!(s.append(entry(1, 42)), [refuse(42, AppendRefusal::OutOfOrder { expected: 41 })]);
    assert_eq!(s.append(entry(1, 41)).len(), 3);
}

#[test]
fn n17_a_writer_whose_first_batch_finds_the_window_full_does_not_overtake_it() {
    let mut s = Calls::new(3, LIMITS);
    s.append(Append { bytes: 100, ..entry(1, 0) });
    assert_eq!(s.append(entry(2, 7)), [refuse(7, AppendRefusal::Busy)]);
    s.tail(0, 1);
    s.tail(1, 1);
    assert_eq!(s.append(entry(2, 8)), [refuse(8, AppendRefusal::OutOfOrder { expected: 7 })]);
    // The third is still busy with the large one.
    assert_eq!(s.append(entry(2, 7)).len(), 2);
}

#[test]
fn n17_a_batch_that_was_turned_away_outside_is_not_overtaken() {
    let mut s = Calls::new(1, LIMITS);
    let turn_away = |s: &mut Calls, append| {
        let mut out = Vec::new();
        s.0.turn_away(append, &mut out);
        out
    };
    assert_eq!(turn_away(&mut s, entry(1, 7)), [refuse(7, AppendRefusal::Busy)]);
    assert_eq!(s.append(entry(1, 8)), [refuse(8, AppendRefusal::OutOfOrder { expected: 7 })]);
    assert_eq!(s.append(entry(1, 7)).len(), 1);
    // One that was taken is not refused, however little room there is: that would be a lie.
    assert_eq!(turn_away(&mut s, again(1, 7, 70)), []);
    assert_eq!(s.tail(0, 1).len(), 2);
    assert_eq!(turn_away(&mut s, entry(1, 8)), [refuse(8, AppendRefusal::Busy)]);
    assert_eq!(s.append(entry(1, 8)).len(), 1);
}

#[test]
fn n17_an_unknown_writer_begins_with_its_oldest_batch() {
    let mut s = Calls::new(1, LIMITS);
    // The one before it was lost on the way, and this one overtook it on another connection.
    let early = Append { floor: 7, ..entry(1, 8) };
    assert_eq!(s.append(early), [refuse(8, AppendRefusal::OutOfOrder { expected: 7 })]);
    assert_eq!(s.append(entry(1, 7)).len(), 1);
    assert_eq!(s.append(Append { floor: 7, ..entry(1, 8) }).len(), 1);
}

#[test]
fn n17_a_copy_of_an_earlier_round_is_not_taken() {
    let mut s = Calls::new(1, LIMITS);
    assert_eq!(s.append(Append { round: 2, ..entry(1, 0) }).len(), 1);
    // What the first connection still brings: known ones are known, others come again anyway.
    assert_eq!(s.append(Append { round: 1, ..again(1, 0, 50) }), []);
    let late = Append { round: 1, floor: 0, ..entry(1, 1) };
    assert_eq!(s.append(late), [refuse(1, AppendRefusal::Outrun)]);
    assert_eq!(s.append(Append { round: 2, floor: 0, ..entry(1, 1) }).len(), 1);
}

#[test]
fn n17_what_is_not_remembered_is_in_doubt() {
    let mut s = Calls::new(1, LIMITS);
    for seq in 0..4 {
        s.append(entry(1, seq));
        s.tail(0, seq + 1);
    }
    assert_eq!(s.append(again(1, 1, 70)), [refuse(70, AppendRefusal::Forgotten)]);
    assert_eq!(s.append(again(1, 3, 71)), [commit(71, 3, 4)]);
    let framed_again = Append { first_seq: 3, count: 2, ..again(1, 3, 72) };
    assert_eq!(s.append(framed_again), [refuse(72, AppendRefusal::Forgotten)]);
}

#[test]
fn n17_what_is_not_committed_is_never_forgotten() {
    let mut s = Calls::new(1, LIMITS);
    (0..5).for_each(|seq| {
        s.append(entry(1, seq));
    });
    (2..6).for_each(|writer| assert_eq!(s.append(entry(writer, 0)).len(), 0));
    assert_eq!(s.append(again(1, 0, 70)), []);
    assert_eq!(s.tail(0, 1), [commit(0, 0, 1), commit(70, 0, 1), store(0, 4, 1)]);
}

#[test]
fn n17_once_a_writer_was_forgotten_an_unknown_one_that_sends_again_is_in_doubt() {
    let mut s = Calls::new(1, LIMITS);
    assert_eq!(s.append(again(9, 3, 3)).len(), 1, "nobody was forgotten, so it never came");
    s.tail(0, 1);
    for (writer, tail) in [(1, 2), (2, 3), (3, 4)] {
        s.append(entry(writer, 0));
        s.tail(0, tail);
    }
    assert_eq!(s.append(again(9, 3, 70)), [refuse(70, AppendRefusal::Forgotten)]);
    assert_eq!(s.append(entry(9, 4)), [store(0, 4, 4)], "a first send is no re-send");
}

#[test]
fn n17_who_was_used_last_is_remembered_longest() {
    let mut s = Calls::new(1, LIMITS);
    for (writer, seq) in [(1, 0), (2, 0), (1, 1), (3, 0)] {
        s.append(entry(writer, seq));
        s.tail(0, s.0.next.0);
    }
    assert_eq!(s.append(again(1, 1, 70)), [commit(70, 2, 4)]);
    assert_eq!(s.append(again(2, 0, 71)), [refuse(71, AppendRefusal::Forgotten)]);
}

#[test]
fn the_window_is_bounded_and_takes_one_batch_of_any_size() {
    let mut s = Calls::new(1, LIMITS);
    assert_eq!(s.append(Append { bytes: 5000, ..entry(1, 0) }).len(), 1);
    assert_eq!(s.append(entry(1, 1)), [refuse(1, AppendRefusal::Busy)]);
    assert_eq!(s.tail(0, 1), [commit(0, 0, 1)]);
    assert_eq!(s.append(entry(1, 1)).len(), 1);
}

#[test]
fn only_so_many_wait_for_one_batch() {
    let mut s = Calls::new(1, LIMITS);
    s.append(entry(1, 0));
    for token in 0..DUPLICATES_MAX as u32 {
        assert_eq!(s.append(again(1, 0, token)), []);
    }
    assert_eq!(s.append(again(1, 0, 99)), [refuse(99, AppendRefusal::Forgotten)]);
}

#[test]
fn a_copy_lands_exactly_where_it_was_and_may_leave_gaps() {
    let mut s = Calls::new(3, LIMITS);
    let copy = |first, count, token| Append { at: Some(at(first)), count, ..entry(1, token) };
    // The original was trimmed up to 10, and the same writer's numbers need not be in order.
    assert_eq!(
        s.append(Append { batch: 10, ..copy(10, 5, 3) }),
        [store(0, 10, 10), store(1, 10, 10), store(2, 10, 10)]
    );
    assert_eq!(s.append(copy(20, 1, 4)), [refuse(4, AppendRefusal::Busy)]);
    assert_eq!(s.append(copy(10, 5, 5)), [], "a duplicate");
    assert_eq!(s.append(copy(10, 4, 6)), [refuse(6, AppendRefusal::Misplaced { next: at(15) })]);
    s.tail(0, 15);
    assert_eq!(s.tail(2, 15), [commit(3, 10, 15), commit(5, 10, 15)]);
    assert_eq!(s.append(Append { batch: 20, ..copy(20, 1, 1) })[0], store(0, 20, 20));
    assert_eq!(s.append(copy(10, 5, 8)), [commit(8, 10, 20)]);
}

#[test]
fn who_waits_for_what_cannot_be_stored_is_let_go_once() {
    let mut s = Calls::new(3, LIMITS);
    // The first one is everywhere; the second one is committed and kept for the third server.
    s.append(entry(1, 0));
    s.append(entry(1, 1));
    s.tail(0, 2);
    assert_eq!(s.tail(1, 2), [commit(0, 0, 2), commit(1, 1, 2)]);
    s.tail(2, 1);
    s.append(entry(1, 2));
    s.append(entry(1, 3));
    let mut let_go = || {
        let mut out = Vec::new();
        s.0.let_go(&mut out);
        out
    };
    let stuck = AppendRefusal::Stuck;
    assert_eq!(let_go(), [refuse(2, stuck), refuse(3, stuck)]);
    assert_eq!(let_go(), []);
    s.tail(0, 4);
    assert_eq!(s.tail(1, 4), [], "nobody waits, and it is committed");
    assert_eq!(s.0.known_tail(), at(4));
}

#[test]
fn a_copy_right_behind_another_one_waits_for_nothing() {
    let mut s = Calls::new(3, LIMITS);
    let copy = |first, token| Append { at: Some(at(first)), batch: first, ..entry(1, token) };
    assert_eq!(s.append(copy(0, 1)).len(), 3);
    assert_eq!(s.append(copy(1, 2)).len(), 3, "the first one is not committed yet");
}

#[test]
fn a_copy_that_comes_after_the_seal_moves_nothing() {
    let mut s = Calls::new(3, LIMITS);
    s.seal();
    let copy = Append { at: Some(at(7)), ..entry(1, 1) };
    assert_eq!(s.append(copy), [refuse(1, AppendRefusal::Sealed)]);
    assert_eq!(s.0.known_tail(), at(0));
}

#[test]
fn the_window_is_used_to_its_last_byte() {
    let mut s = Calls::new(1, Limits { batches_per_writer: 20, ..LIMITS });
    for seq in 0..10 {
        assert!(!s.append(entry(1, seq)).contains(&refuse(seq as u32, AppendRefusal::Busy)));
    }
    assert_eq!(s.0.window(), LIMITS.window_bytes);
    assert_eq!(s.append(entry(1, 10)), [refuse(10, AppendRefusal::Busy)]);
    assert!(!s.0.is_sealed());
}

#[test]
#[should_panic(expected = "no majority of 4 is defined")]
fn t3_an_even_number_of_servers_is_refused() {
    let _ = Sequencer::<u64, u32>::new(at(0), 4, LIMITS);
}

#[test]
fn a_copy_that_nothing_reaches_is_refused_before_positions_run_out() {
    let mut s = Calls::new(1, LIMITS);
    let copy = |first, token| Append { at: Some(at(first)), ..entry(1, token) };
    let misplaced = AppendRefusal::Misplaced { next: at(0) };
    assert_eq!(s.append(copy(u64::MAX, 1)), [refuse(1, misplaced)]);
    assert_eq!(s.append(copy(COUNTER_MAX + 1, 2)), [refuse(2, misplaced)]);
    let taken = s.append(Append { batch: COUNTER_MAX, ..copy(COUNTER_MAX, 3) });
    assert_eq!(taken, [store(0, COUNTER_MAX, COUNTER_MAX)]);
}
