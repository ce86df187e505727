//! Paxos, piece by piece; how the pieces work together is in `tests/paxos_model/`.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::acceptor::{KEPT_BYTES_MAX, KEPT_MAX};
use super::messages::{Id, MEMBERS_MAX, PUTS_BYTES_MAX, PUTS_MAX, VALUE_BYTES_MAX};
use super::registers::{NONCES_MAX, STATE_BYTES_MAX};
use super::*;
use crate::limits::{COUNTER_MAX, NAME_CHARS_MAX};

const CLUSTER: u128 = 7;

fn member(node: u32) -> Member {
    Member::new(node, u128::from(node) << 64 | 1)
}

fn members(nodes: std::ops::RangeInclusive<u32>) -> Vec<Member> {
    nodes.map(member).collect()
}

fn registers() -> Registers {
    Registers::init(CLUSTER, members(1..=3), BTreeMap::new()).expect("three members")
}

fn put(nonce: u128, name: &str, expected: u64, value: &[u8]) -> Put {
    let value = Some(Bytes::copy_from_slice(value));
    Put { nonce: nonce.into(), name: name.into(), expected, value }
}

/// Decides `puts` in the next instance.
fn decide(registers: &mut Registers, puts: Vec<Put>) -> Decided {
    let decided = Decided { instance: registers.applied() + 1, value: registers.value(puts) };
    registers.apply(&decided);
    decided
}

fn acceptor() -> Acceptor {
    let mut acceptor = Acceptor::new(member(1), registers());
    acceptor.set_voting(true);
    acceptor
}

fn ask(acceptor: &mut Acceptor, ask: Ask) -> Tell {
    acceptor.step(PaxosRequest::new(CLUSTER.into(), ask)).reply.tell.expect("an answer")
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, node: 9 }
}

fn prepare(instance: u64, round: u64) -> Ask {
    Ask::Prepare(Prepare { instance, ballot: ballot(round) })
}

fn vote(registers: &Registers, round: u64, puts: Vec<Put>) -> Accept {
    Accept {
        instance: registers.applied() + 1,
        ballot: ballot(round),
        value: registers.value(puts),
    }
}

#[test]
fn a_put_counts_once_and_is_answered_the_same() {
    let mut registers = registers();
    let one = put(1, "a", 0, b"one");
    decide(&mut registers, vec![one.clone(), put(2, "a", 0, b"two"), one.clone()]);
    decide(&mut registers, vec![one.clone()]);
    assert_eq!(registers.recall(1, 2), Recall::Known(Outcome::Written(1)));
    assert_eq!(registers.recall(2, 2), Recall::Known(Outcome::Conflict(1)));
    let one = Register { version: 1, value: Some(Bytes::from_static(b"one")) };
    assert_eq!(registers.get("a"), one);
}

#[test]
fn deleted_registers_go_on_counting() {
    let mut registers = registers();
    decide(&mut registers, vec![put(1, "a", 0, b"one")]);
    decide(&mut registers, vec![Put { value: None, ..put(2, "a", 1, b"") }]);
    assert_eq!(registers.get("a"), Register { version: 2, value: None });
    decide(&mut registers, vec![put(3, "a", 0, b"no"), put(4, "a", 2, b"again")]);
    assert_eq!(registers.get("a").version, 3);
}

#[test]
fn a_nonce_is_absent_only_while_it_would_be_remembered() {
    let mut registers = registers();
    assert_eq!(registers.recall(5, 2), Recall::Absent);
    let first = registers.applied() + 1;
    decide(&mut registers, vec![put(0, "a", 9, b"")]);
    let mut nonce = 1;
    while nonce <= NONCES_MAX as u128 {
        let some = (nonce..nonce + 512).map(|nonce| put(nonce, "a", 9, b"")).collect();
        decide(&mut registers, some);
        nonce += 512;
    }
    assert_eq!(registers.recall(0, first), Recall::Forgotten);
    assert_eq!(registers.recall(1, first + 1), Recall::Known(Outcome::Conflict(0)));
    assert_eq!(registers.recall(nonce, first + 1), Recall::Absent);
    assert_eq!(registers.recall(nonce, first), Recall::Forgotten);
}

#[test]
fn registers_that_are_full_take_what_makes_them_smaller() {
    let mut registers = registers();
    let big = vec![0; VALUE_BYTES_MAX];
    let count = STATE_BYTES_MAX / VALUE_BYTES_MAX;
    for index in 0..count as u128 {
        decide(&mut registers, vec![put(index, &format!("r{index}"), 0, &big)]);
    }
    let last = count as u128 - 1;
    assert_eq!(registers.recall(last, 2), Recall::Known(Outcome::Full));
    decide(&mut registers, vec![put(100, "r0", 1, b"small"), put(101, "last", 0, &big)]);
    assert_eq!(registers.recall(100, 2), Recall::Known(Outcome::Written(2)));
    assert_eq!(registers.recall(101, 2), Recall::Known(Outcome::Written(1)));
    let reply = PaxosReply::from(Tell::CatchUp(CatchUp {
        snapshot: registers.encode(),
        decided: Vec::new(),
    }));
    PaxosReply::from_bytes(reply.to_bytes()).expect("full registers fit into a message");
}

#[test]
fn members_change_one_by_one() {
    let registers = registers();
    let change =
        |nodes: &[u32]| registers.change_members(nodes.iter().map(|node| member(*node)).collect());
    assert_eq!(change(&[4, 3, 2]).expect("one for one").members, members(2..=4));
    assert!(change(&[1, 2, 3, 4]).is_ok() && change(&[1, 2]).is_ok());
    assert_eq!(change(&[3, 4, 5]), Err(MembersRefused::TooManyAtOnce));
    assert_eq!(change(&[1]), Err(MembersRefused::TooManyAtOnce));
    assert!(matches!(change(&[]), Err(MembersRefused::Malformed(_))));
    assert!(matches!(change(&[1, 2, 3, 3]), Err(MembersRefused::Malformed(_))));
    let disk = registers.change_members(vec![member(1), member(2), Member::new(3, 77)]);
    disk.expect("another disk is another member");
}

#[test]
fn a_laggard_gets_values_while_they_are_kept_and_a_snapshot_otherwise() {
    let mut ahead = acceptor();
    let mut behind = ahead.clone();
    for nonce in 0..100 {
        let mut registers = ahead.registers().clone();
        let decided = decide(&mut registers, vec![put(nonce, "a", nonce as u64, b"x")]);
        ahead.learned(CatchUp { decided: vec![decided], snapshot: Bytes::new() });
    }
    let few = ahead.catch_up(ahead.registers().applied() - 3);
    assert!(few.snapshot.is_empty() && few.decided.len() == 3);
    let all = ahead.catch_up(1);
    assert!(!all.snapshot.is_empty());
    let step = behind.learned(all);
    assert!(step.sync && step.persist.len() == 1);
    assert_eq!(behind.registers(), ahead.registers());
    assert_eq!(ahead.catch_up(ahead.registers().applied()), CatchUp::default());
}

#[test]
fn what_is_persisted_gives_the_same_acceptor_again() {
    let mut live = acceptor();
    let mut again = Acceptor::new(member(1), Registers::blank());
    let mut journal = live.image();
    let puts = vec![put(1, "a", 0, b"x")];
    let accept = vote(live.registers(), 2, puts.clone());
    let decided = Decided { instance: 2, value: accept.value.clone() };
    let learn = Ask::Learn(CatchUp { decided: vec![decided], ..CatchUp::default() });
    for ask in [prepare(2, 1), prepare(2, 2), Ask::Accept(accept), learn, prepare(3, 5)] {
        journal.extend(live.step(PaxosRequest::new(CLUSTER.into(), ask)).persist);
    }
    journal.into_iter().for_each(|persist| again.replay(persist).expect("in order"));
    again.set_voting(true);
    assert_eq!(again, live);
    let mut short = Acceptor::new(member(1), Registers::blank());
    live.image().into_iter().for_each(|persist| short.replay(persist).expect("in order"));
    assert_eq!(short.image(), live.image());
    let stale = Persist::Promise(Prepare { instance: 2, ballot: ballot(9) });
    assert!(short.replay(stale).is_err());
}

#[test]
fn a_ballot_is_promised_once_and_a_vote_may_be_asked_for_again() {
    let mut acceptor = acceptor();
    assert!(matches!(ask(&mut acceptor, prepare(2, 3)), Tell::Promise(_)));
    assert_eq!(ask(&mut acceptor, prepare(2, 3)), Tell::Refused(ballot(3)));
    let accept = Ask::Accept(vote(acceptor.registers(), 3, Vec::new()));
    assert_eq!(ask(&mut acceptor, accept.clone()), Tell::Accepted(()));
    assert_eq!(ask(&mut acceptor, accept), Tell::Accepted(()));
    let low = Ask::Accept(vote(acceptor.registers(), 2, Vec::new()));
    assert_eq!(ask(&mut acceptor, low), Tell::Refused(ballot(3)));
}

#[test]
fn who_has_no_vote_says_how_far_it_is() {
    let state = |tell| match tell {
        Tell::State(state) => (state.applied, state.counts, state.votes),
        other => panic!("{other:?}"),
    };
    let mut late = acceptor();
    assert_eq!(state(ask(&mut late, prepare(3, 1))), (1, true, true));
    let mut forgot = acceptor();
    forgot.set_voting(false);
    assert_eq!(state(ask(&mut forgot, prepare(2, 1))), (1, false, false));
    let mut other_disk = Acceptor::new(Member::new(1, 5), registers());
    other_disk.set_voting(true);
    assert_eq!(state(ask(&mut other_disk, prepare(2, 1))), (1, true, false));
    let mut foreign = acceptor();
    let request = PaxosRequest::new(8.into(), prepare(2, 1));
    assert_eq!(state(foreign.step(request).reply.tell.expect("an answer")), (0, false, false));
    assert_eq!(foreign, acceptor());
}

#[test]
fn whoever_is_of_another_cluster_is_told_nothing_and_changes_nothing() {
    let newer = {
        let mut other = Registers::init(8, members(1..=3), BTreeMap::new()).expect("members");
        decide(&mut other, Vec::new());
        CatchUp { snapshot: other.encode(), decided: Vec::new() }
    };
    let accept = Ask::Accept(vote(&registers(), 1, Vec::new()));
    for ask in [prepare(2, 1), accept, Ask::Learn(newer.clone()), Ask::Fetch(0), Ask::Read(())] {
        let mut acceptor = acceptor();
        let step = acceptor.step(PaxosRequest::new(8.into(), ask));
        let told = State { storage: member(1).storage, ..State::default() };
        assert_eq!((step.persist, step.reply.tell), (vec![], Some(Tell::State(told))));
        assert_eq!(acceptor, self::acceptor());
    }
    // Nor does one of its own carry what is of another one.
    let mut own = acceptor();
    assert!(own.learned(newer.clone()).persist.is_empty());
    let mut blank = Acceptor::new(member(1), Registers::blank());
    assert_eq!((blank.voting(), blank.me()), (false, member(1)));
    assert!(blank.learned(newer).sync, "one that knows of no cluster yet takes it");
}

#[test]
fn an_acceptor_says_what_it_knows() {
    let mut acceptor = acceptor();
    assert!(acceptor.voting());
    let Tell::State(state) = ask(&mut acceptor, Ask::Read(())) else { panic!("a state") };
    assert_eq!((state.applied, state.counts, state.votes, state.accepted), (1, true, true, false));
    let Tell::CatchUp(all) = ask(&mut acceptor, Ask::Fetch(0)) else { panic!("a snapshot") };
    assert_eq!(all.snapshot, registers().encode());
    let mut newer = registers();
    decide(&mut newer, vec![put(1, "a", 0, b"x")]);
    let snapshot = newer.encode();
    let step = acceptor.learned(CatchUp { snapshot, decided: Vec::new() });
    assert!(step.sync && acceptor.registers() == &newer);
}

/// What was promised in an instance is not forgotten by hearing once more of what came before it.
#[test]
fn a_snapshot_that_is_no_newer_changes_nothing() {
    let mut acceptor = acceptor();
    ask(&mut acceptor, prepare(2, 3));
    let snapshot = registers().encode();
    let step = acceptor.learned(CatchUp { snapshot, decided: Vec::new() });
    assert!(step.persist.is_empty() && !step.sync);
    assert_eq!(ask(&mut acceptor, prepare(2, 2)), Tell::Refused(ballot(3)));
}

/// A decision need not be synced, since the majority that accepted it has it; unless it says who that is.
#[test]
fn a_decision_that_changes_members_is_synced() {
    let mut changed = registers();
    let plain = decide(&mut changed, vec![put(1, "a", 0, b"x")]);
    let value = changed.change_members(members(1..=4)).expect("one joins");
    let joins = Decided { instance: 3, value };
    changed.apply(&joins);
    let after = decide(&mut changed, Vec::new());
    let learn = |decided: &[&Decided]| {
        let decided = decided.iter().copied().cloned().collect();
        let step = acceptor().learned(CatchUp { snapshot: Bytes::new(), decided });
        (step.persist.len(), step.sync)
    };
    assert_eq!(learn(&[&plain]), (1, false));
    assert_eq!(learn(&[&plain, &joins]), (2, true));
    assert_eq!(learn(&[&plain, &joins, &after]), (3, true));
    assert_eq!(learn(&[&joins]), (0, false), "what it has not got before is missing");
}

#[test]
fn an_image_has_what_is_needed_and_no_more() {
    let kinds = |acceptor: &Acceptor| -> Vec<char> {
        let kind = |persist: &Persist| match persist {
            Persist::Snapshot(_) => 's',
            Persist::Accept(_) => 'a',
            Persist::Promise(_) => 'p',
            Persist::Decided(_) => 'd',
        };
        acceptor.image().iter().map(kind).collect()
    };
    let mut acceptor = acceptor();
    assert_eq!(kinds(&acceptor), ['s']);
    ask(&mut acceptor, prepare(2, 1));
    assert_eq!(kinds(&acceptor), ['s', 'p']);
    let accept = vote(acceptor.registers(), 1, Vec::new());
    ask(&mut acceptor, Ask::Accept(accept.clone()));
    assert_eq!(kinds(&acceptor), ['s', 'a'], "the vote says what was promised");
    let again = acceptor.step(PaxosRequest::new(CLUSTER.into(), Ask::Accept(accept)));
    assert!(again.persist.is_empty(), "it has that vote");
    let higher = Ask::Accept(vote(acceptor.registers(), 4, vec![put(1, "a", 0, b"x")]));
    let step = acceptor.step(PaxosRequest::new(CLUSTER.into(), higher));
    assert_eq!(step.persist.len(), 1, "another ballot is another vote");
    ask(&mut acceptor, prepare(2, 5));
    assert_eq!(kinds(&acceptor), ['s', 'a', 'p']);
}

#[test]
fn a_record_of_another_instance_is_not_replayed() {
    for instance in [1, 3] {
        let value = registers().value(Vec::new());
        let ballot = ballot(1);
        let records = [
            Persist::Promise(Prepare { instance, ballot }),
            Persist::Accept(Accept { instance, ballot, value: value.clone() }),
            Persist::Decided(Decided { instance, value }),
        ];
        for record in records {
            assert!(acceptor().replay(record.clone()).is_err(), "{record:?}");
        }
    }
}

/// So many of the last decisions are kept for those who are behind, and so many bytes of them.
#[test]
fn what_is_kept_has_limits() {
    let run = |count: usize, len: usize| {
        let mut acceptor = acceptor();
        for nonce in 0..count as u128 {
            let mut registers = acceptor.registers().clone();
            let value = vec![0; len - 1];
            let decided = decide(&mut registers, vec![put(nonce, "a", nonce as u64, &value)]);
            acceptor.learned(CatchUp { decided: vec![decided], snapshot: Bytes::new() });
        }
        let kept = |behind: usize| {
            acceptor.catch_up(acceptor.registers().applied() - behind as u64).decided.len()
        };
        (1..=count).take_while(|behind| kept(*behind) == *behind).count()
    };
    assert_eq!(run(KEPT_MAX + 5, 10), KEPT_MAX);
    let quarter = KEPT_BYTES_MAX / 4;
    assert_eq!((run(9, quarter), run(9, quarter + 1), run(3, quarter)), (4, 3, 3));
}

#[test]
fn a_blank_acceptor_takes_a_snapshot_and_nothing_else() {
    let mut blank = Acceptor::new(member(2), Registers::blank());
    blank.set_voting(true);
    let values = CatchUp {
        decided: vec![Decided { instance: 1, value: registers().value(Vec::new()) }],
        ..CatchUp::default()
    };
    assert!(blank.step(PaxosRequest::new(CLUSTER.into(), Ask::Learn(values))).persist.is_empty());
    for request in [prepare(1, 1), prepare(2, 1), Ask::Accept(vote(&registers(), 1, Vec::new()))] {
        assert!(matches!(ask(&mut blank, request), Tell::State(State { votes: false, .. })));
    }
    let snapshot = acceptor().catch_up(0);
    let foreign = PaxosRequest::new(8.into(), Ask::Learn(snapshot.clone()));
    assert!(blank.step(foreign).persist.is_empty());
    assert!(blank.step(PaxosRequest::new(CLUSTER.into(), Ask::Learn(snapshot))).sync);
    assert!(matches!(ask(&mut blank, prepare(2, 1)), Tell::Promise(_)));
}

#[test]
fn an_attempt_whose_calls_all_end_ends() {
    let registers = registers();
    let mut proposer = Proposer::new(9);
    let mut out = Vec::new();
    proposer.propose(&registers, None, &mut out);
    let attempts: Vec<_> = out
        .drain(..)
        .map(|action| match action {
            Action::Send { to, attempt, .. } => (to, attempt),
            other => panic!("{other:?}"),
        })
        .collect();
    let (_, attempt) = attempts[0];
    proposer.answered(member(1), attempt, Some(Tell::Refused(ballot(6))), &mut out);
    proposer.answered(member(1), attempt, Some(Tell::Promise(Promise::default())), &mut out);
    assert!(out.is_empty() && !proposer.is_idle());
    proposer.answered(member(2), attempt, None, &mut out);
    assert_eq!(out, [Action::BackOff { round: 6 }]);
    assert!(proposer.is_idle());
    out.clear();
    proposer.propose(&registers, None, &mut out);
    let Action::Send { attempt, .. } = out[0].clone() else { panic!("{out:?}") };
    assert_eq!(attempt.ballot, ballot(7));
}

#[test]
fn a_member_that_is_behind_is_helped_once_a_phase() {
    let mut ahead = registers();
    decide(&mut ahead, Vec::new());
    let mut proposer = Proposer::new(9);
    let mut out = Vec::new();
    proposer.propose(&ahead, None, &mut out);
    let Action::Send { attempt, .. } = out[0].clone() else { panic!("{out:?}") };
    out.clear();
    let at = |applied| Some(Tell::State(State { applied, votes: true, ..State::default() }));
    proposer.answered(member(1), attempt, at(1), &mut out);
    assert_eq!(out, [Action::Help { to: member(1), attempt, applied: 1 }]);
    out.clear();
    proposer.answered(member(1), attempt, at(2), &mut out);
    assert!(matches!(&out[..], [Action::Send { .. }]));
    proposer.answered(member(1), attempt, at(1), &mut out);
    proposer.answered(member(2), attempt, None, &mut out);
    assert_eq!(out.last(), Some(&Action::BackOff { round: 1 }));
}

#[test]
fn limits_are_checked_where_bytes_come_in() {
    let refused = |value| {
        let accept = Accept { instance: 2, ballot: ballot(1), value };
        PaxosRequest::from_bytes(PaxosRequest::new(CLUSTER.into(), Ask::Accept(accept)).to_bytes())
            .expect_err("over a limit")
    };
    let value = |puts| registers().value(puts);
    refused(Value::default());
    refused(Value { puts: Vec::new(), members: members(1..=MEMBERS_MAX as u32 + 1) });
    refused(Value { puts: Vec::new(), members: vec![member(2), member(1)] });
    refused(value(vec![put(1, &"n".repeat(129), 0, b"")]));
    refused(value(vec![put(1, "a", 0, &vec![0; VALUE_BYTES_MAX + 1])]));
    refused(value(vec![Put::default(); PUTS_MAX + 1]));
}

/// As much as one instance may decide, and as many decisions as one message may carry, and no more.
#[test]
fn what_is_within_all_limits_travels() {
    let travels = |value: Value| {
        let vote = Accept { instance: 2, ballot: ballot(1), value };
        let request = PaxosRequest::new(CLUSTER.into(), Ask::Accept(vote));
        let read = PaxosRequest::from_bytes(request.to_bytes());
        read.map(|read| assert_eq!(read, request)).is_ok()
    };
    let sized = |len: usize, name: usize| put(1, &"n".repeat(name), 0, &vec![0; len]);
    let value = |puts| registers().value(puts);
    let (name, rest) = (NAME_CHARS_MAX, PUTS_BYTES_MAX - VALUE_BYTES_MAX - 2 * NAME_CHARS_MAX);
    assert_eq!(PUTS_BYTES_MAX - VALUE_BYTES_MAX, 65_536);
    assert!(travels(value(vec![sized(VALUE_BYTES_MAX, name), sized(rest, name)])));
    assert!(!travels(value(vec![sized(VALUE_BYTES_MAX, name), sized(rest + 1, name)])));
    let puts: Vec<Put> = (0..PUTS_MAX as u128).map(|nonce| put(nonce, "", 0, b"")).collect();
    let all = members(1..=MEMBERS_MAX as u32);
    let decided = (0..KEPT_MAX as u64).map(|at| Decided {
        instance: at + 2,
        value: Value { puts: puts.clone(), members: all.clone() },
    });
    let catch_up = CatchUp { decided: decided.collect(), snapshot: Bytes::new() };
    let request = PaxosRequest::new(CLUSTER.into(), Ask::Learn(catch_up.clone()));
    assert_eq!(PaxosRequest::from_bytes(request.to_bytes()), Ok(request));
    let reply = PaxosReply::from(Tell::CatchUp(catch_up));
    assert_eq!(PaxosReply::from_bytes(reply.to_bytes()), Ok(reply));
}

#[test]
fn an_identity_keeps_all_its_bits() {
    let id = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210_u128;
    assert_eq!(u128::from(Id::from(id)), id);
}

/// These bytes are on disks and on wires: they never change.
/// An empty element takes two bytes, and many more once it is decoded: the limit comes before.
#[test]
fn what_is_repeated_is_counted_before_it_is_decoded() {
    /// Fields, one in the other, around `count` empty ones.
    fn nested(path: &[u8], count: usize) -> Vec<u8> {
        let (field, below) = path.split_first().expect("a field");
        if below.is_empty() {
            return [field << 3 | 2, 0].repeat(count);
        }
        let inner = nested(below, count);
        let mut bytes = vec![field << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
        bytes.extend(inner);
        bytes
    }
    for path in [&[3, 3, 1][..], &[3, 3, 2], &[4, 2], &[4, 2, 2, 1], &[4, 2, 2, 2]] {
        let refused = PaxosRequest::from_bytes(nested(path, 1 << 17).into()).expect_err("a bomb");
        assert!(refused.0.contains("more often"), "{path:?}: {refused}");
    }
    for path in [&[1, 1, 3, 1][..], &[1, 1, 3, 2], &[4, 2], &[4, 2, 2, 1], &[4, 2, 2, 2]] {
        let refused = PaxosReply::from_bytes(nested(path, 1 << 17).into()).expect_err("a bomb");
        assert!(refused.0.contains("more often"), "{path:?}: {refused}");
    }
    for path in [4, 5, 6] {
        let body = nested(&[path], 1 << 20);
        let crc = crate::record::crc32c(&body).to_le_bytes();
        let bytes = [&b"VLR\x01"[..], &crc, &body].concat();
        let refused = Registers::decode(bytes.into()).expect_err("a bomb");
        assert!(refused.0.contains("than there can be"), "{path}: {refused}");
    }
}

#[test]
fn a_snapshot_has_each_register_and_each_put_once() {
    let mut registers = registers();
    decide(&mut registers, vec![put(1, "a", 0, b"one"), put(2, "a", 0, b"two")]);
    let whole = registers.encode();
    // Register `a`, and the outcome of put 2, once more.
    let again: [&[u8]; 2] = [&[0x2a, 3, 0x0a, 1, b'a'], &[0x32, 11, 0x0a, 9, 0x11, 2]];
    for again in again {
        let body = [&whole[8..], again, &[0; 7][..(again.len() == 6) as usize * 7]].concat();
        let crc = crate::record::crc32c(&body).to_le_bytes();
        let bytes = [&whole[..4], &crc, &body].concat();
        let refused = Registers::decode(bytes.into()).expect_err("twice");
        assert!(refused.0.contains("twice"), "{refused}");
    }
}

#[test]
fn numbers_that_nothing_reaches_are_refused_or_do_no_harm() {
    let mut proposer = Proposer::new(1);
    let (registers, mut out) = (registers(), Vec::new());
    for tell in [
        Tell::Refused(Ballot { round: u64::MAX, node: 2 }),
        Tell::State(State { applied: u64::MAX, ..State::default() }),
    ] {
        proposer.propose(&registers, None, &mut out);
        let attempt = out.iter().rev().find_map(|action| match action {
            Action::Send { attempt, .. } => Some(*attempt),
            _ => None,
        });
        proposer.answered(member(2), attempt.expect("sent"), Some(tell), &mut out);
    }
    proposer.propose(&registers, None, &mut out);
    let whole = registers.encode();
    for (applied, good) in [(COUNTER_MAX, true), (COUNTER_MAX + 1, false), (u64::MAX, false)] {
        let mut body = whole[8..].to_vec();
        body.push(0x18);
        prost::encoding::encode_varint(applied, &mut body);
        let crc = crate::record::crc32c(&body).to_le_bytes();
        let snapshot = Bytes::from([&whole[..4], &crc, &body].concat());
        let mut acceptor = acceptor();
        let learn = CatchUp { snapshot, decided: Vec::new() };
        ask(&mut acceptor, Ask::Learn(learn));
        assert_eq!(acceptor.registers().applied() == applied, good);
        ask(&mut acceptor, prepare(u64::MAX, 1));
        ask(&mut acceptor, prepare(applied, 1));
    }
}

#[test]
fn a_snapshot_of_a_newer_build_or_of_another_age_is_refused() {
    let whole = registers().encode();
    let ends_with = |field: u8, value: u64| {
        let mut body = whole[8..].to_vec();
        body.push(field << 3);
        prost::encoding::encode_varint(value, &mut body);
        let crc = crate::record::crc32c(&body).to_le_bytes();
        Registers::decode([&whole[..4], &crc, &body].concat().into())
    };
    let newer = ends_with(1, 2).expect_err("a later format");
    assert!(newer.0.contains("newer"), "{newer}");
    assert!(ends_with(7, COUNTER_MAX).is_ok());
    assert!(ends_with(7, COUNTER_MAX + 1).is_err());
}

#[test]
fn bytes_are_frozen() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut registers = Registers::init(CLUSTER, vec![member(1)], BTreeMap::new()).expect("one");
    let decided = decide(&mut registers, vec![put(1, "a", 0, b"x"), put(2, "a", 7, b"y")]);
    let frozen = include_str!("../testdata/paxos-v1.hex");
    let mut lines = frozen.lines();
    let learn = CatchUp { decided: vec![decided], ..CatchUp::default() };
    let request = PaxosRequest::new(CLUSTER.into(), Ask::Learn(learn));
    assert_eq!(hex(&registers.encode()), lines.next().expect("the registers"));
    assert_eq!(hex(&request.to_bytes()), lines.next().expect("the request"));
    assert_eq!(Registers::decode(registers.encode()), Ok(registers));
    assert_eq!(PaxosRequest::from_bytes(request.to_bytes()), Ok(request));
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        let _ = PaxosReply::from_bytes(bytes.clone());
        let _ = Registers::decode(bytes.clone());
        if let Ok(request) = PaxosRequest::from_bytes(bytes) {
            acceptor().step(request);
        }
    }

    #[test]
    fn a_flipped_bit_of_a_snapshot_is_noticed(bit in 0usize..4096) {
        let mut registers = registers();
        decide(&mut registers, vec![put(1, "a", 0, b"some value"), put(2, "b", 0, b"")]);
        let mut bytes = registers.encode().to_vec();
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Registers::decode(bytes.into()).is_err());
    }

    /// Whatever is decided, a snapshot in between changes nothing of what follows.
    #[test]
    fn a_snapshot_goes_on_like_the_original(
        puts in prop::collection::vec((0u128..6, 0usize..3, 0u64..4, any::<bool>()), 1..40),
        cut in 0usize..40,
    ) {
        let (mut original, mut copy) = (registers(), registers());
        for (index, (nonce, name, expected, delete)) in puts.into_iter().enumerate() {
            if index == cut {
                copy = Registers::decode(copy.encode()).expect("own bytes");
            }
            let mut put = put(nonce, ["a", "b", "c"][name], expected, &[index as u8]);
            if delete {
                put.value = None;
            }
            let decided = decide(&mut original, vec![put]);
            copy.apply(&decided);
        }
        prop_assert_eq!(&original, &copy);
        prop_assert_eq!(original.encode(), copy.encode());
    }
}

#[test]
fn a_majority_is_more_than_half() {
    assert_eq!([1, 2, 3, 4, 5, 7].map(majority), [1, 2, 2, 3, 3, 4]);
}
