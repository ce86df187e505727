//! The history checker against a search through all orders.

use std::collections::HashSet;

use super::super::Rng;
use super::*;

fn op(invoked: u64, returned: u64, what: What) -> Op {
    Op { invoked, returned, what }
}

fn append(value: u64, outcome: Outcome) -> What {
    What::Append { value, outcome }
}

/// Is there any legal order? By trying all of them: what [`check`] must agree with.
fn search(ops: &[Op], last: &Final) -> bool {
    let in_log = |value| last.entries.iter().any(|(_, other)| *other == value);
    let failed = |op: &Op| match op.what {
        What::Append { value, outcome: Outcome::Failed } => Some(in_log(value)),
        _ => None,
    };
    if ops.iter().any(|op| failed(op) == Some(true)) {
        return false;
    }
    let ops: Vec<&Op> = ops.iter().filter(|op| failed(op).is_none()).collect();
    go(&ops, last, (0, 0, 0), &mut HashSet::new())
}

/// State: which ops were placed, how many entries are written, the highest tail that was told.
type State = (u32, usize, u64);

fn go(ops: &[&Op], last: &Final, state: State, seen: &mut HashSet<State>) -> bool {
    let (placed, written, told) = state;
    if !seen.insert(state) {
        return false;
    }
    let left = || (0..ops.len()).filter(|i| placed >> i & 1 == 0);
    let may_miss = |op: &Op| matches!(op.what, What::Append { outcome: Outcome::Unknown, .. });
    if written == last.entries.len() && left().all(|i| may_miss(ops[i])) {
        return true;
    }
    left().any(|i| {
        let ends = |j: usize| if may_miss(ops[j]) { NEVER } else { ops[j].returned };
        if left().any(|j| j != i && ends(j) < ops[i].invoked) {
            return false;
        }
        let log = &last.entries[..written];
        let (mut written, mut told) = (written, told);
        let legal = match ops[i].what {
            What::Append { value, outcome } => {
                let next = last.entries.get(written).filter(|(_, next)| *next == value);
                written += 1;
                next.is_some_and(|(at, _)| match outcome {
                    Outcome::Ok(position) => position == *at,
                    _ => true,
                })
            }
            What::Tail { position, .. } => {
                let before = told;
                told = position;
                position >= before
                    && position <= last.tail
                    && log.iter().all(|(at, _)| *at < position)
                    && last.entries[written..].iter().all(|(at, _)| *at >= position)
            }
            What::Value { position, value } => log.contains(&(position, value)),
            What::Empty { from, to } => !log.iter().any(|(at, _)| (from..to).contains(at)),
            What::Passed { from, to } => {
                !last.entries.iter().any(|(at, _)| (from..to).contains(at))
            }
            _ => unreachable!("not in these histories"),
        };
        legal && go(ops, last, (placed | 1 << i, written, told), seen)
    })
}

/// A true history of a few calls, then in most cases some damage.
fn random_history(rng: &mut Rng) -> (Vec<Op>, Final) {
    let gappy = rng.chance(50);
    let mut calls: Vec<(u64, u64, u64, u64)> = (0..1 + rng.below(6))
        .map(|value| {
            let invoked = rng.below(120);
            let effect = invoked + rng.below(40);
            (effect, value, invoked, effect + rng.below(40))
        })
        .collect();
    calls.sort_unstable();
    let mut last = Final::default();
    let mut ops = Vec::new();
    for (_, value, invoked, returned) in calls {
        if gappy {
            last.tail += rng.below(3);
        }
        let position = last.tail;
        let mut write = || {
            last.entries.push((position, value));
            last.tail += 1;
        };
        let what = match rng.below(8) {
            0 => append(value, Outcome::Failed),
            1 => append(value, Outcome::Unknown),
            2 => {
                write();
                append(value, Outcome::Unknown)
            }
            3 | 4 => {
                write();
                append(value, Outcome::Ok(position))
            }
            5 | 6 => What::Tail { position, sealed: false },
            _ => {
                let from = rng.below(5);
                match last.entries.iter().find(|(at, _)| *at == from) {
                    Some(&(position, value)) => What::Value { position, value },
                    None if from < last.tail => What::Passed { from, to: from + 1 },
                    None => What::Empty { from, to: from + 1 },
                }
            }
        };
        ops.push(op(invoked, returned, what));
    }
    if rng.chance(60) {
        damage(rng, &mut ops, &mut last);
    }
    (ops, last)
}

fn damage(rng: &mut Rng, ops: &mut [Op], last: &mut Final) {
    let hit = rng.below(ops.len() as u64) as usize;
    let hit = &mut ops[hit];
    match rng.below(4) {
        0 => match &mut hit.what {
            What::Tail { position, .. } if rng.chance(50) => *position += 1,
            What::Tail { position, .. } => *position = position.saturating_sub(1),
            What::Append { outcome: Outcome::Ok(position), .. } => *position += 1,
            What::Empty { to, .. } | What::Passed { to, .. } => *to += 2,
            _ => {}
        },
        1 => {
            let by = 20 + rng.below(60);
            (hit.invoked, hit.returned) = match rng.chance(50) {
                true => (hit.invoked + by, hit.returned + by),
                false => (hit.invoked.saturating_sub(by), hit.returned.saturating_sub(by)),
            };
        }
        2 if last.entries.len() > 1 => {
            let entries = last.entries.len() as u64;
            let (a, b) = (rng.below(entries) as usize, rng.below(entries) as usize);
            let (value_a, value_b) = (last.entries[a].1, last.entries[b].1);
            (last.entries[a].1, last.entries[b].1) = (value_b, value_a);
        }
        _ => drop(last.entries.pop()),
    }
}

#[test]
fn agrees_with_a_search_on_random_histories() {
    let mut rng = Rng::new(1);
    let (mut legal, mut illegal) = (0, 0);
    for round in 0..20_000 {
        let (ops, last) = random_history(&mut rng);
        let (fast, slow) = (check(&ops, &last), search(&ops, &last));
        assert_eq!(fast.is_ok(), slow, "round {round}: {fast:?}\n{ops:#?}\n{last:?}");
        *if slow { &mut legal } else { &mut illegal } += 1;
    }
    assert!(legal > 5_000 && illegal > 3_000, "{legal} legal, {illegal} illegal");
}

/// What [`check`] can know of a log below `base`.
fn told(ops: &[Op], base: u64) -> Vec<(u64, u64)> {
    let told = ops.iter().filter_map(|op| match op.what {
        What::Append { value, outcome: Outcome::Ok(position) }
        | What::Value { position, value } => Some((position, value)),
        _ => None,
    });
    let mut told: Vec<_> = told.filter(|(position, _)| *position < base).collect();
    told.sort_unstable();
    told.dedup();
    told
}

/// Trimmed or lost: what is known of it is judged as before, and what is not known excuses nothing else.
#[test]
fn agrees_with_a_search_also_where_nothing_can_be_read() {
    let mut rng = Rng::new(3);
    let (mut legal, mut illegal) = (0, 0);
    for round in 0..20_000 {
        let (ops, whole) = random_history(&mut rng);
        let base = rng.below(whole.tail + 1);
        let (below, above): (Vec<_>, Vec<_>) =
            whole.entries.iter().partition(|(position, _)| *position < base);
        let mut trimmed = Final { base, tail: whole.tail, entries: above };
        let verdicts = [check(&ops, &trimmed), {
            trimmed.base = 0;
            check_with_losses(&ops, &trimmed, &[(0, base)])
        }];
        let slow = search(&ops, &whole);
        for fast in verdicts {
            let known = told(&ops, base) == below;
            let agrees = if known || slow { fast.is_ok() == slow } else { true };
            assert!(agrees, "round {round}, {base}: {fast:?}\n{ops:#?}\n{whole:?}");
            *if fast.is_ok() { &mut legal } else { &mut illegal } += 1;
        }
    }
    assert!(legal > 10_000 && illegal > 3_000, "{legal} legal, {illegal} illegal");
}

#[test]
fn what_contradicts_itself_below_the_trim_point() {
    let value = |position, value| What::Value { position, value };
    let unknown = |value| op(0, NEVER, append(value, Outcome::Unknown));
    let (seven, eight) = (op(0, 1, append(7, Outcome::Ok(0))), op(2, 3, append(8, Outcome::Ok(1))));
    let legal = [seven.clone(), eight.clone(), unknown(9), op(4, 5, value(2, 9))];
    assert!(check(&legal, &Final { base: 5, tail: 5, entries: vec![] }).is_ok());
    let broken = |ops: &[Op], name: &str| {
        let complaint = complaint(ops, &[], 5);
        assert!(complaint.contains(name), "{name}: {complaint}");
    };
    broken(&[seven.clone(), unknown(9), op(2, 3, value(0, 9))], "I2: values 7 and 9");
    broken(&[seven.clone(), op(2, 3, value(1, 7))], "I2: value 7 is at 0 and at 1");
    broken(&[op(0, 1, append(7, Outcome::Failed)), op(2, 3, value(0, 7))], "I3: value 7 failed");
    broken(&[op(2, 3, value(0, 7))], "I3: value 7 at 0 was never appended");
    broken(&[op(4, 5, append(7, Outcome::Ok(0))), eight.clone()], "I4");
    broken(&[op(4, 5, append(7, Outcome::Ok(0))), op(2, 3, value(0, 7))], "I4");
    let tail = op(2, 3, What::Tail { position: 0, sealed: false });
    broken(&[seven.clone(), tail], "I5");
    let early = op(0, 1, What::Tail { position: 2, sealed: false });
    broken(&[seven.clone(), eight.clone(), early], "I5");
    broken(&[seven, op(2, 3, What::Empty { from: 0, to: 5 })], "I6");
}

#[test]
fn what_a_reader_passed_over() {
    let passed = |from, to| op(2, 3, What::Passed { from, to });
    let later = op(4, 5, append(8, Outcome::Ok(1)));
    let log = [(1, 8)];
    assert!(complaint(&[later.clone(), passed(0, 2)], &log, 0).contains("I6"));
    assert!(complaint(&[later.clone(), passed(0, 2)], &[], 3).contains("I6"));
    assert!(complaint(&[later.clone(), passed(2, 0)], &log, 0).contains("I6"));
    // Of a read that found nothing this is legal.
    let empty = op(2, 3, What::Empty { from: 0, to: 2 });
    let last = Final { base: 0, tail: 2, entries: log.to_vec() };
    assert!(check(&[later.clone(), empty, passed(0, 1)], &last).is_ok());
}

/// A log may say that it lost something; it may not have less than it says.
#[test]
fn what_is_lost_has_to_be_told() {
    let ops = [op(0, 1, append(7, Outcome::Ok(0))), op(2, 3, append(8, Outcome::Ok(1)))];
    let last = Final { base: 0, tail: 2, entries: vec![(1, 8)] };
    assert!(check(&ops, &last).expect_err("lost").contains("I1: value 7"));
    check_with_losses(&ops, &last, &[(0, 1)]).expect("told");
    let nothing = Final { base: 0, tail: 2, entries: vec![] };
    let silent = check_with_losses(&ops, &nothing, &[(0, 1)]).expect_err("8 is lost");
    assert!(silent.contains("I1: value 8"), "{silent}");
    let shorter = Final { base: 0, tail: 1, entries: vec![] };
    let silent = check_with_losses(&ops, &shorter, &[(0, 1)]).expect_err("8 is lost");
    assert!(silent.contains("I1: value 8"), "{silent}");
}

fn complaint(ops: &[Op], entries: &[(u64, u64)], base: u64) -> String {
    let tail = entries.last().map_or(base, |(at, _)| at + 1);
    let last = Final { base, tail, entries: entries.to_vec() };
    check(ops, &last).expect_err("illegal")
}

#[test]
fn what_seals_break() {
    let tail = |position, sealed| What::Tail { position, sealed };
    let first = op(0, 1, append(7, Outcome::Ok(0)));
    let second = op(4, 5, append(8, Outcome::Ok(1)));
    let log = [(0, 7), (1, 8)];
    let late = complaint(&[first.clone(), op(2, 3, What::Seal), second.clone()], &log, 0);
    assert!(late.contains("L2/I9"), "{late}");
    let past = complaint(&[first.clone(), op(2, 3, tail(1, true)), second.clone()], &log, 0);
    assert!(past.contains("L9"), "{past}");
    let unsealed = [first.clone(), op(2, 3, What::Seal), op(4, 5, tail(1, false))];
    assert!(complaint(&unsealed, &log[..1], 0).contains("L5"));
    let undone = [first.clone(), op(2, 3, tail(1, true)), op(4, 5, tail(1, false))];
    assert!(complaint(&undone, &log[..1], 0).contains("L2"));
    // A zombie lands between the two samples of an unsealed tail.
    let zombie = op(0, 9, append(8, Outcome::Unknown));
    let tails = [first, zombie, op(2, 8, tail(1, true)), op(3, 9, tail(2, false))];
    assert!(complaint(&tails, &log, 0).contains("L8"));
}

#[test]
fn what_trims_break() {
    let trim = |first_kept| What::Trim { first_kept };
    let appends = [op(0, 1, append(7, Outcome::Ok(0))), op(2, 3, append(8, Outcome::Ok(1)))];
    let with = |more: &[Op]| [&appends[..], more].concat();
    assert!(check(&appends, &Final { base: 1, tail: 2, entries: vec![(1, 8)] }).is_ok());
    assert!(complaint(&with(&[op(4, 5, trim(1))]), &[(0, 7), (1, 8)], 0).contains("I13"));
    let read = op(6, 7, What::Value { position: 0, value: 7 });
    assert!(complaint(&with(&[op(4, 5, trim(1)), read]), &[(1, 8)], 1).contains("I13"));
    assert!(
        complaint(&with(&[op(4, 5, trim(1)), op(6, 7, trim(0))]), &[(1, 8)], 1).contains("back")
    );
    let said = op(4, 5, What::Trimmed { position: 1, first_kept: 1 });
    assert!(complaint(&with(&[said]), &[(1, 8)], 1).contains("I13"));
}

#[test]
fn a_long_history_takes_one_pass() {
    let mut rng = Rng::new(2);
    let (mut ops, mut last) = (Vec::new(), Final::default());
    for value in 0..200_000 {
        let now = 100 + value * 10;
        let span = |rng: &mut Rng| (now - rng.below(50), now + rng.below(50));
        let (invoked, returned) = span(&mut rng);
        last.entries.push((value * 3, value));
        last.tail = value * 3 + 3;
        ops.push(op(invoked, returned, append(value, Outcome::Ok(value * 3))));
        let (_, returned) = span(&mut rng);
        ops.push(op(now, returned, What::Tail { position: last.tail, sealed: false }));
    }
    check(&ops, &last).expect("legal");
}
