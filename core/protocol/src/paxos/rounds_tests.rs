//! A proposer and a reader, answer by answer.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::*;

fn member(node: u32) -> Member {
    Member::new(node, u128::from(node) << 64 | 1)
}

fn registers() -> Registers {
    let members = (1..=3).map(member).collect();
    Registers::init(7, members, BTreeMap::new()).expect("three members")
}

/// Registers after `count` more instances.
fn later(count: u64) -> Registers {
    let mut registers = registers();
    for instance in 2..2 + count {
        let value = registers.value(Vec::new());
        registers.apply(&Decided { instance, value });
    }
    registers
}

fn value(nonce: u128) -> Value {
    let put = Put { nonce: nonce.into(), name: "a".into(), expected: 0, value: None };
    registers().value(vec![put])
}

fn promise(accepted: Option<(u64, u128)>) -> Tell {
    let accepted = accepted.map(|(round, nonce)| Accept {
        instance: 2,
        ballot: Ballot { round, node: 5 },
        value: value(nonce),
    });
    Tell::Promise(Promise { accepted })
}

/// A proposer of node 9 with what it said last.
struct Round {
    proposer: Proposer,
    attempt: Attempt,
    out: Vec<Action>,
}

impl Round {
    fn begin(registers: &Registers, value: Option<Value>) -> Round {
        let mut proposer = Proposer::new(9);
        let mut out = Vec::new();
        proposer.propose(registers, value, &mut out);
        let Action::Send { attempt, .. } = &out[0] else { panic!("{out:?}") };
        Round { proposer, attempt: *attempt, out }
    }

    /// What it does about an answer.
    fn told(&mut self, node: u32, tell: Tell) -> Vec<Action> {
        self.out.clear();
        self.proposer.answered(member(node), self.attempt, Some(tell), &mut self.out);
        for action in &self.out {
            if let Action::Send { attempt, .. } = action {
                self.attempt = *attempt;
            }
        }
        self.out.clone()
    }
}

fn asks(actions: &[Action]) -> Vec<(u32, Ask)> {
    let ask = |action: &Action| match action {
        Action::Send { to, request, .. } => (to.node, request.ask.clone().expect("an ask")),
        other => panic!("{other:?}"),
    };
    actions.iter().map(ask).collect()
}

#[test]
fn two_phases_decide_what_was_proposed() {
    let mut round = Round::begin(&registers(), Some(value(1)));
    let ballot = Ballot { round: 1, node: 9 };
    let prepare = Ask::Prepare(Prepare { instance: 2, ballot });
    assert_eq!(asks(&round.out), [1, 2, 3].map(|node| (node, prepare.clone())));
    assert_eq!(round.told(1, promise(None)), []);
    let accept = Ask::Accept(Accept { instance: 2, ballot, value: value(1) });
    assert_eq!(asks(&round.told(3, promise(None))), [1, 2, 3].map(|node| (node, accept.clone())));
    assert_eq!(round.told(2, Tell::Accepted(())), []);
    assert_eq!(round.told(7, Tell::Accepted(())), [], "a stranger");
    let decided = Decided { instance: 2, value: value(1) };
    assert_eq!(round.told(3, Tell::Accepted(())), [Action::Decided(decided)]);
    assert!(round.proposer.is_idle());
}

#[test]
fn the_vote_of_the_highest_ballot_is_taken_up_in_whichever_order_it_comes() {
    for (first, second) in [((3, 30), (2, 20)), ((2, 20), (3, 30))] {
        let mut round = Round::begin(&registers(), Some(value(1)));
        round.told(1, promise(Some(first)));
        let asked = asks(&round.told(2, promise(Some(second))));
        let Ask::Accept(accept) = &asked[0].1 else { panic!("{asked:?}") };
        assert_eq!((accept.value.clone(), accept.ballot.round), (value(30), 1));
    }
}

#[test]
fn who_proposes_nothing_finishes_what_was_begun_or_finds_nothing() {
    let mut round = Round::begin(&registers(), None);
    round.told(1, promise(None));
    assert_eq!(round.told(2, promise(None)), [Action::Free]);
    let mut round = Round::begin(&registers(), None);
    round.told(1, promise(Some((4, 40))));
    assert!(matches!(&asks(&round.told(2, promise(None)))[0].1, Ask::Accept(_)));
}

#[test]
fn an_answer_of_the_other_phase_is_none() {
    let mut round = Round::begin(&registers(), Some(value(1)));
    assert_eq!(round.told(1, Tell::Accepted(())), []);
    assert_eq!(round.told(2, Tell::Accepted(())), [Action::BackOff { round: 1 }]);
    let mut round = Round::begin(&registers(), Some(value(1)));
    round.told(1, promise(None));
    round.told(2, promise(None));
    assert_eq!(round.told(1, promise(None)), []);
    assert_eq!(round.told(2, promise(None)), [Action::BackOff { round: 1 }]);
}

#[test]
fn what_was_decided_meanwhile_ends_it() {
    let mut round = Round::begin(&registers(), Some(value(1)));
    let catch_up = CatchUp { snapshot: Bytes::new(), decided: Vec::new() };
    let told = round.told(1, Tell::CatchUp(catch_up.clone()));
    assert_eq!(told, [Action::CatchUp(catch_up)]);
    assert!(round.proposer.is_idle());
}

#[test]
fn rounds_count_within_an_instance() {
    let mut round = Round::begin(&registers(), None);
    let mut begin = |registers: &Registers| {
        round.out.clear();
        round.proposer.propose(registers, None, &mut round.out);
        let Action::Send { attempt, .. } = &round.out[0] else { panic!("{:?}", round.out) };
        (attempt.instance, attempt.ballot.round)
    };
    assert_eq!(begin(&registers()), (2, 2));
    assert_eq!(begin(&later(1)), (3, 1), "another instance");
}

/// One that lacks the last instance alone is behind, one that has it is not; and only who votes after that
/// is asked again.
#[test]
fn who_is_behind_is_helped_and_asked_again_if_it_votes() {
    let at = |applied, votes| {
        Tell::State(State { applied, votes, storage: member(1).storage, ..State::default() })
    };
    let help =
        |round: &Round, applied| Action::Help { to: member(1), attempt: round.attempt, applied };
    // Instance 4 is proposed: 3 are applied.
    let mut round = Round::begin(&later(2), None);
    assert_eq!(round.told(1, at(2, true)), [help(&round, 2)]);
    let again = asks(&round.told(1, at(3, true)));
    assert!(matches!(&again[..], [(1, Ask::Prepare(_))]), "{again:?}");

    let no = [Action::BackOff { round: 1 }];
    for (first, second) in [
        (at(3, true), None),
        (at(4, true), None),
        (at(2, true), Some(at(3, false))),
        (at(2, true), Some(at(2, true))),
        (at(2, true), Some(at(4, true))),
    ] {
        let mut round = Round::begin(&later(2), None);
        round.told(1, first);
        if let Some(second) = second {
            assert_eq!(round.told(1, second), []);
        }
        assert_eq!(round.told(2, Tell::Accepted(())), no, "two of three said no");
    }
}

fn state(node: u32, applied: u64, accepted: bool) -> Tell {
    let storage = member(node).storage;
    Tell::State(State { applied, accepted, counts: true, votes: true, storage })
}

/// What a reader of registers with 2 instances makes of these answers of nodes 1, 2 and 3.
fn reading(answers: &[(u32, Option<Tell>)]) -> Reading {
    let registers = later(1);
    let mut reader = Reader::new(registers.members());
    answers.iter().for_each(|(node, tell)| reader.answered(member(*node), tell.clone()));
    reader.reading(&registers)
}

#[test]
fn a_majority_that_is_not_further_has_the_newest() {
    let (one, two) = ((1, Some(state(1, 2, false))), (2, Some(state(2, 2, false))));
    assert_eq!(reading(std::slice::from_ref(&one)), Reading::Wait);
    assert_eq!(reading(&[one.clone(), two.clone()]), Reading::Newest);
    assert_eq!(reading(&[one.clone(), (2, Some(state(2, 1, false)))]), Reading::Newest);
    assert_eq!(reading(&[one.clone(), (2, None)]), Reading::Wait);
    assert_eq!(reading(&[one.clone(), (2, None), (3, None)]), Reading::Again);
    assert_eq!(reading(&[one, (7, Some(state(7, 2, false)))]), Reading::Wait, "a stranger");
}

#[test]
fn whoever_is_furthest_is_caught_up_with() {
    let answers = [(1, Some(state(1, 3, false))), (2, Some(state(2, 4, false)))];
    assert_eq!(reading(&answers), Reading::CatchUp { from: member(2) });
}

/// Something accepted counts where it may be of the next instance, not what an older one had.
#[test]
fn what_was_accepted_is_finished() {
    let one = (1, Some(state(1, 2, false)));
    assert_eq!(reading(&[one.clone(), (2, Some(state(2, 2, true)))]), Reading::Finish);
    assert_eq!(reading(&[one, (2, Some(state(2, 1, true)))]), Reading::Newest);
}

#[test]
fn only_the_first_answer_of_the_disk_that_was_asked_counts() {
    let one = (1, Some(state(1, 2, false)));
    let answer = |counts, of| {
        let storage = member(of).storage;
        let state = State { applied: 2, accepted: false, counts, votes: true, storage };
        (2, Some(Tell::State(state)))
    };
    assert_eq!(reading(&[one.clone(), answer(true, 2)]), Reading::Newest);
    assert_eq!(reading(&[one.clone(), answer(false, 2)]), Reading::Wait, "it may have forgotten");
    assert_eq!(reading(&[one.clone(), answer(true, 3)]), Reading::Wait, "another disk");
    assert_eq!(reading(&[one.clone(), (2, Some(promise(None)))]), Reading::Wait, "no state");
    assert_eq!(reading(&[one.clone(), (2, None), answer(true, 2)]), Reading::Wait);
    assert_eq!(reading(&[one, answer(true, 2), (2, None)]), Reading::Newest);
}

/// What registers count is what a snapshot of them may be.
#[test]
fn registers_count_names_values_and_their_keep() {
    assert_eq!(Registers::blank(), Registers::default());
    let mut registers = registers();
    assert_eq!((registers.bytes(), registers.iter().count()), (0, 0));
    let put = |nonce: u128, name: &str, expected, value: Option<&'static [u8]>| {
        let value = value.map(Bytes::from_static);
        Put { nonce: nonce.into(), name: name.into(), expected, value }
    };
    let mut costs = Vec::new();
    for (instance, put) in (2..).zip([
        put(1, "a", 0, Some(b"")),
        put(2, "bcd", 0, Some(b"")),
        put(3, "bcd", 1, Some(b"12345")),
        put(4, "bcd", 2, None),
    ]) {
        let before = registers.bytes();
        let value = registers.value(vec![put]);
        registers.apply(&Decided { instance, value });
        costs.push(registers.bytes() as i64 - before as i64);
    }
    let keep = costs[0] - 1;
    assert!(keep > 0);
    assert_eq!(costs, [keep + 1, keep + 3, 5, -5]);
    let names: Vec<_> = registers.iter().map(|(name, register)| (name, register.version)).collect();
    assert_eq!(names, [("a", 1), ("bcd", 3)]);
    assert_eq!(
        Registers::decode(registers.encode()).expect("a snapshot").bytes(),
        registers.bytes()
    );
    assert!(Registers::decode(Bytes::from_static(b"1234567")).is_err());
}

/// A put that leaves the registers no fuller is taken, and so is one that fills them to the last byte.
#[test]
fn full_registers_take_what_does_not_make_them_fuller() {
    use super::messages::{PUTS_BYTES_MAX, VALUE_BYTES_MAX};
    use super::registers::STATE_BYTES_MAX;
    let mut registers = registers();
    let mut instance = 1;
    let mut write = |registers: &mut Registers, name: &str, expected: u64, len: usize| {
        instance += 1;
        let nonce = u128::from(instance);
        let value = Some(Bytes::from(vec![0; len]));
        let put = Put { nonce: nonce.into(), name: name.into(), expected, value };
        let value = registers.value(vec![put]);
        registers.apply(&Decided { instance, value });
        registers.recall(nonce, 2)
    };
    let full = Recall::Known(Outcome::Full);
    assert_eq!(write(&mut registers, "a", 0, 0), Recall::Known(Outcome::Written(1)));
    let keep = registers.bytes() - 1;
    let mut name = 0;
    while STATE_BYTES_MAX - registers.bytes() > VALUE_BYTES_MAX + 2 * keep + 20 {
        name += 1;
        let len = VALUE_BYTES_MAX.min(PUTS_BYTES_MAX);
        let written = write(&mut registers, &format!("{name:04}"), 0, len);
        assert_eq!(written, Recall::Known(Outcome::Written(1)));
    }
    let left = STATE_BYTES_MAX - registers.bytes();
    let half = left / 2;
    assert_eq!(write(&mut registers, "x", 0, half), Recall::Known(Outcome::Written(1)));
    let left = STATE_BYTES_MAX - registers.bytes();
    assert_eq!(write(&mut registers, "y", 0, left - keep), full, "one byte too many");
    assert_eq!(write(&mut registers, "y", 0, left - keep - 1), Recall::Known(Outcome::Written(1)));
    assert_eq!(registers.bytes(), STATE_BYTES_MAX);
    assert_eq!(Registers::decode(registers.encode()).expect("it fits").bytes(), STATE_BYTES_MAX);
    assert_eq!(write(&mut registers, "x", 1, half), Recall::Known(Outcome::Written(2)), "as long");
    assert_eq!(write(&mut registers, "x", 2, half + 1), full);
    assert_eq!(write(&mut registers, "x", 2, half - 1), Recall::Known(Outcome::Written(3)));
    assert_eq!(registers.bytes(), STATE_BYTES_MAX - 1);
}

#[test]
fn a_put_is_empty_without_name_and_value() {
    assert!(Put::default().is_empty());
    let named = Put { name: "a".into(), ..Put::default() };
    assert!(!named.is_empty());
    let held = Put { value: Some(Bytes::from_static(b"1")), ..Put::default() };
    assert!(!held.is_empty());
}

/// What is decided is checked as it comes in, also where it brings somebody forward.
#[test]
fn decisions_that_break_a_limit_are_refused() {
    let decided = Decided { instance: 2, value: Value::default() };
    let catch_up = CatchUp { snapshot: Bytes::new(), decided: vec![decided] };
    let request = PaxosRequest::new(7.into(), Ask::Learn(catch_up.clone()));
    assert!(PaxosRequest::from_bytes(request.to_bytes()).is_err());
    let reply = PaxosReply::from(Tell::CatchUp(catch_up));
    assert!(PaxosReply::from_bytes(reply.to_bytes()).is_err());
}
