//! The chain's changes: the paper's example, each refusal, frozen bytes, and no sequence that breaks an
//! invariant.

use proptest::prelude::*;

use super::*;

fn config(name: &str) -> LogletConfig {
    LogletConfig { kind: name.into(), params: Bytes::from_static(b"p"), name: name.into() }
}

fn new() -> Chain {
    Chain::new(LogId(5), 1, 1, config("memory"))
}

fn extended(chain: &Chain, tail: u64) -> Chain {
    let proposed = chain.propose(Some(config("local")), 2).expect("open");
    proposed.complete(LogletPos(tail), 3).expect("proposed")
}

#[test]
fn virtual_160_is_local_10_of_the_third_segment() {
    // The paper's example: [0 A 100 B 150 C ...).
    let chain = extended(&extended(&new(), 100), 50);
    let segment = chain.locate(LogPos(160)).expect("open end");
    assert_eq!((segment.index, segment.to_loglet(LogPos(160))), (2, LogletPos(10)));
    assert_eq!(segment.to_log(LogletPos(10)), LogPos(160));
    assert_eq!(chain.locate(LogPos(99)).map(|s| s.index), Some(0));
    assert_eq!(chain.locate(LogPos(100)).map(|s| s.index), Some(1));
}

#[test]
fn of_several_segments_at_one_position_the_last_one_counts() {
    let chain = extended(&extended(&new(), 10), 0);
    assert_eq!(chain.locate(LogPos(10)).map(|s| s.index), Some(2));
}

#[test]
fn one_reconfiguration_at_a_time() {
    let proposed = new().propose(Some(config("local")), 2).expect("open");
    assert_eq!(proposed.propose(None, 3), Err(ChainError::Busy));
    assert_eq!(proposed.moved("file:x/y".into(), 3), Err(ChainError::Busy));
    assert_eq!(new().complete(LogletPos(0), 3), Err(ChainError::NotBusy));
    assert_eq!(new().withdraw(3), Err(ChainError::NotBusy));
}

#[test]
fn a_withdrawn_index_is_never_used_again() {
    let withdrawn = new().propose(Some(config("a")), 2).and_then(|c| c.withdraw(3)).expect("open");
    let again = withdrawn.propose(Some(config("b")), 4).expect("open");
    assert_eq!(again.next, Some(Next::Extend { index: 2, config: config("b") }));
}

#[test]
fn an_ended_log_changes_no_more() {
    let ended = new().propose(None, 2).and_then(|c| c.complete(LogletPos(7), 3)).expect("open");
    assert_eq!(ended.life, Life::Ended);
    assert_eq!(ended.locate(LogPos(7)), None);
    assert_eq!(ended.propose(Some(config("local")), 4), Err(ChainError::Over));
    assert_eq!(ended.moved("memory:x".into(), 4), Err(ChainError::Over));
}

#[test]
fn truncate_keeps_what_is_alive() {
    let chain = extended(&extended(&new(), 100), 50);
    assert_eq!(chain.truncate(LogPos(99), 9), Ok(None));
    let cut = chain.truncate(LogPos(149), 9).expect("open").expect("one dead segment");
    assert_eq!((cut.first(), cut.segments.len()), (LogPos(100), 2));
    let cut = chain.truncate(LogPos(10_000), 9).expect("open").expect("two dead segments");
    assert_eq!((cut.first(), cut.segments.len()), (LogPos(150), 1));
    assert_eq!(cut.locate(LogPos(149)), None);
    let ended = chain.propose(None, 2).and_then(|c| c.complete(LogletPos(7), 3)).expect("open");
    let cut = ended.truncate(LogPos(10_000), 9).expect("ended").expect("two dead segments");
    assert_eq!((cut.first(), cut.segments.len()), (LogPos(150), 1), "a chain is never empty");
}

#[test]
fn another_target_takes_a_fresh_index() {
    let proposed = new().propose(Some(config("a")), 2).expect("open");
    let again = proposed.retarget(config("b"), 3).expect("proposed");
    assert_eq!(again.next, Some(Next::Extend { index: 2, config: config("b") }));
    assert_eq!(new().retarget(config("b"), 3), Err(ChainError::NotBusy));
    let ending = new().propose(None, 2).expect("open");
    assert_eq!(ending.retarget(config("b"), 3), Err(ChainError::NotBusy));
}

#[test]
fn modify_takes_a_reserved_number_and_keeps_boundaries() {
    let chain = extended(&new(), 100);
    let broken = chain.modify(0, 2, LogletPos(0), config("cold"), 9);
    assert_eq!(broken, Err(ChainError::Broken("the loglet number was not reserved")));
    let (chain, number) = chain.reserve(9).expect("open");
    let open = chain.modify(1, number, LogletPos(0), config("cold"), 9);
    assert_eq!(open, Err(ChainError::NoSegment(1)));
    let modified = chain.modify(0, number, LogletPos(4), config("cold"), 9).expect("sealed");
    assert_eq!((chain.live(), modified.live()), ((vec![0, 1, 2], 3), (vec![2, 1], 3)));
    let segment = modified.segment(0).expect("still there");
    assert_eq!((segment.loglet, segment.to_loglet(LogPos(1))), (2, LogletPos(5)));
    assert_eq!(segment.to_log(LogletPos(5)), LogPos(1));
}

#[test]
fn a_number_is_alive_from_reserve_to_modify_or_abandon() {
    let (chain, number) = extended(&new(), 100).reserve(9).expect("open");
    let cut = chain.truncate(LogPos(100), 9).expect("open").expect("one dead segment");
    assert_eq!(cut.live(), (vec![1, number], number + 1));
    let abandoned = cut.abandon(number, 9).expect("open").expect("it was reserved");
    assert_eq!((abandoned.live().0, abandoned.abandon(number, 9)), (vec![1], Ok(None)));
    assert!(abandoned.modify(0, number, LogletPos(0), config("cold"), 9).is_err());
}

#[test]
fn a_later_format_is_refused_and_damage_is_found() {
    let bytes = extended(&new(), 3).encode();
    assert_eq!(Chain::decode(&bytes), Ok(extended(&new(), 3)));
    for at in 0..bytes.len() {
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 4;
        assert!(Chain::decode(&flipped).is_err(), "byte {at}");
    }
    let body = [&[0x08, 0x02][..], &bytes[10..]].concat();
    let later = [&MAGIC[..], &crc32c(&body).to_le_bytes(), &body].concat();
    assert_eq!(Chain::decode(&later), Err(ChainError::Format(2)));
}

#[test]
fn the_bytes_of_format_1_are_frozen() {
    let (chain, _) = extended(&new(), 3).reserve(11).expect("open");
    let chain = chain.propose(Some(config("native")), 12).expect("open");
    let hex: String = chain.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("../testdata/chain-v1.hex").trim());
}

#[test]
fn the_bytes_of_a_chain_that_moved_are_frozen() {
    let (chain, _) = extended(&new(), 3).reserve(11).expect("open");
    let claim = chain.arriving("file:///d/x".into(), 7, 12, |_| config("turned")).expect("open");
    let hex: String = claim.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("../testdata/chain-v1-claim.hex").trim());
    // A build that knows nothing of claims is sent to where the log lives.
    assert_eq!(claim.life, Life::Moved { url: "file:///d/x".into() });
}

#[test]
fn a_claim_becomes_the_log_when_its_source_says_so() {
    let source = extended(&new(), 100);
    let turn = |config: &LogletConfig| LogletConfig { name: "far".into(), ..config.clone() };
    let claim = source.arriving("memory:here".into(), 9, 77, turn).expect("open");
    assert_eq!((claim.version, claim.copy_of, claim.log), (9, Some(source.version), source.log));
    assert!(claim.segments.iter().all(|segment| segment.config.name == "far"));
    for over in [claim.propose(None, 1), claim.moved("x".into(), 1), claim.withdraw(1)] {
        assert_eq!(over, Err(ChainError::Over));
    }
    assert_eq!(claim.truncate(LogPos(100), 1), Err(ChainError::Over));
    assert!(!source.confirms(&claim) && !claim.confirms(&claim));
    assert!(!source.moved("memory:there".into(), 78).expect("open").confirms(&claim));
    let moved = source.moved("memory:there".into(), 77).expect("open");
    assert!(moved.confirms(&claim));
    assert_eq!(moved.arrived(1), Err(ChainError::NotBusy));
    let arrived = claim.arrived(79).expect("a claim");
    assert_eq!((arrived.life.clone(), arrived.moment()), (Life::Open, (1, 10)));
    assert!(arrived.moment() > moved.moment());
    let back = arrived.arriving("memory:there".into(), 4, 80, Clone::clone).expect("open");
    assert_eq!(back.arrived(81).expect("a claim").moment(), (2, 5));
}

#[test]
fn a_copy_that_was_under_way_when_the_log_moved_comes_to_nothing() {
    let (source, number) = extended(&new(), 100).reserve(9).expect("open");
    let claim = source.arriving("memory:here".into(), 1, 10, Clone::clone).expect("open");
    assert!(claim.live().0.contains(&number), "until the source has moved, it may still be used");
    let arrived = claim.arrived(11).expect("a claim");
    assert_eq!(arrived.live(), (vec![0, 1], number + 1));
}

#[test]
fn numbers_that_nothing_reaches_are_refused() {
    let far = |edit: &dyn Fn(&mut Chain)| {
        let mut chain = extended(&new(), 10);
        edit(&mut chain);
        Chain::decode(&chain.encode())
    };
    let broken = Err(ChainError::Broken("nothing counts that far"));
    assert!(far(&|chain| chain.version = COUNTER_MAX).is_ok());
    assert_eq!(far(&|chain| chain.version = COUNTER_MAX + 1), broken);
    assert_eq!(far(&|chain| chain.next_index = INDEX_MAX + 1), broken);
    assert!(far(&|chain| chain.next_index = INDEX_MAX).is_ok());
    assert_eq!(far(&|chain| chain.moves = u32::MAX), broken);
    assert_eq!(far(&|chain| chain.segments[1].base = LogletPos(u64::MAX)), broken);
    let high = |chain: &mut Chain| {
        chain.segments[0].stop = Some(LogPos(u64::MAX));
        chain.segments[1].start = LogPos(u64::MAX);
    };
    assert_eq!(far(&high), broken);
    // A loglet that ends out of reach leads to no chain, instead of to one that nobody can read.
    let chain = new().propose(None, 1).expect("proposed");
    assert_eq!(chain.complete(LogletPos(COUNTER_MAX + 1), 2), broken);
    // Many empty segments take two bytes each; they are counted before they are decoded.
    let body = [0x2a, 0].repeat(1 << 20);
    let bytes = [&MAGIC[..], &crc32c(&body).to_le_bytes(), &body].concat();
    assert_eq!(Chain::decode(&bytes), Err(ChainError::TooLong));
}

#[test]
fn the_target_of_a_change_under_way_has_a_fresh_index() {
    let proposed = extended(&new(), 10).propose(Some(config("c")), 5).expect("open");
    let with = |of: u32, next_index: u32| {
        let next = Some(Next::Extend { index: of, config: config("c") });
        Chain::decode(&Chain { next, next_index, ..proposed.clone() }.encode())
    };
    let taken = Err(ChainError::Broken("indexes come from the counter"));
    assert!(with(2, 3).is_ok());
    assert_eq!(with(1, 3), taken, "the open segment's own");
    assert_eq!(with(2, 2), taken, "beyond the counter");
}

#[test]
fn a_version_follows_only_what_it_may_follow() {
    // [0 A 10 B ...), with B about to be followed, and what comes of it.
    let old = extended(&new(), 10).propose(Some(config("c")), 5).expect("open");
    let good = old.complete(LogletPos(5), 6).expect("proposed");
    assert_eq!(old.check_change(&good), Ok(()));
    let after = |edit: &dyn Fn(&mut Chain)| {
        let mut chain = good.clone();
        edit(&mut chain);
        old.check_change(&chain)
    };
    let broken = |why| Err(ChainError::Broken(why));
    let one = broken("a change is one version of the same log");
    assert_eq!(after(&|chain| chain.log = LogId(6)), one);
    assert_eq!(after(&|chain| chain.version += 1), one);
    let back = broken("first position and index counter never go back");
    assert_eq!(good.check_change(&Chain { version: good.version + 1, ..new() }), back);
    let lower = Chain { version: good.version + 1, next_index: 3, ..good.clone() };
    let higher = Chain { next_index: 4, ..good.clone() };
    assert_eq!(higher.check_change(&lower), back);
    let cut = good.truncate(LogPos(10), 7).expect("open").expect("one dead segment");
    let restored = Chain { version: cut.version + 1, ..good.clone() };
    assert_eq!(cut.check_change(&restored), back);
    assert_eq!(after(&|chain| drop(chain.segments.remove(0))), Ok(()), "a dead one may go");
    let gone = after(&|chain| drop(chain.segments.drain(..2)));
    assert_eq!(gone, broken("only dead leading segments are dropped"));
    let boundary = broken("a boundary never changes");
    let moved = |chain: &mut Chain| {
        chain.segments[0].stop = Some(LogPos(9));
        chain.segments[1].start = LogPos(9);
    };
    assert_eq!(after(&moved), boundary);
    assert_eq!(after(&|chain| chain.segments[0].start = LogPos(1)), boundary);
    let loglet = broken("an open segment keeps its loglet");
    assert_eq!(after(&|chain| chain.segments[1].base = LogletPos(1)), loglet);
    let unasked = broken("a segment appears only by completing `next`");
    let quiet = Chain { next: None, ..old.clone() };
    assert_eq!(quiet.check_change(&good), unasked);
}

#[test]
fn a_chain_that_breaks_an_invariant_is_refused() {
    let with = |edit: &dyn Fn(&mut Chain)| {
        let mut chain = extended(&extended(&new(), 100), 50);
        edit(&mut chain);
        Chain::decode(&chain.encode()).map(drop)
    };
    let broken = |why| Err(ChainError::Broken(why));
    let order = broken("segments are contiguous and ascending");
    assert_eq!(with(&|chain| chain.segments[1].start = LogPos(99)), order);
    assert_eq!(with(&|chain| chain.segments[0].index = 1), order);
    let stops = broken("a segment stops at or after its start");
    assert_eq!(with(&|chain| chain.segments[0].start = LogPos(101)), stops);
    assert_eq!(with(&|chain| chain.segments[0].start = LogPos(100)), Ok(()), "an empty one");
    let open = broken("the last segment is open unless the log was ended");
    assert_eq!(with(&|chain| chain.life = Life::Ended), open);
    assert_eq!(with(&|chain| chain.segments[2].stop = Some(LogPos(200))), open);
    let over = |chain: &mut Chain| {
        (chain.life, chain.next) = (Life::Moved { url: "x".into() }, Some(Next::End));
    };
    assert_eq!(with(&over), broken("a log that is over has no next"));
    let points = broken("a log on its way points back to where it lives");
    assert_eq!(with(&|chain| chain.copy_of = Some(3)), points);
    let twice = broken("no loglet number is used twice");
    assert_eq!(with(&|chain| chain.segments[0].loglet = 1), twice);
}

#[test]
fn segments_have_a_limit() {
    let mut chain = new();
    while chain.segments.len() < CHAIN_SEGMENTS_MAX {
        let index = chain.take_index();
        let last = chain.segments.last_mut().expect("never empty");
        last.stop = Some(last.start);
        let next = Segment { index, loglet: index, stop: None, ..last.clone() };
        chain.segments.push(next);
    }
    assert_eq!(Chain::decode(&chain.encode()), Ok(chain.clone()));
    assert_eq!(chain.propose(Some(config("more")), 2), Err(ChainError::TooLong));
    let again = Segment { stop: Some(chain.first()), ..chain.segments[0].clone() };
    chain.segments.insert(0, again);
    assert_eq!(chain.check(), Err(ChainError::TooLong));
}

#[test]
fn parameters_have_a_limit() {
    let most = LogletConfig { params: vec![0; LOGLET_PARAMS_MAX].into(), ..config("far") };
    assert!(new().propose(Some(most.clone()), 2).is_ok());
    let long = LogletConfig { params: vec![0; LOGLET_PARAMS_MAX + 1].into(), ..config("far") };
    let broken = Err(ChainError::Broken("the parameters of a loglet have a limit"));
    assert_eq!(new().propose(Some(long.clone()), 2), broken);
    assert_eq!(new().arriving("memory:x".into(), 1, 2, |_| long.clone()), broken);
    let read = |config| {
        let mut chain = new();
        chain.segments[0].config = config;
        Chain::decode(&chain.encode()).map(drop)
    };
    let damaged = Err(ChainError::Damaged("configuration of a loglet"));
    assert_eq!((read(most), read(long)), (Ok(()), damaged.clone()));
    assert_eq!(read(LogletConfig { kind: String::new(), ..config("far") }), damaged);
}

#[derive(Clone, Debug)]
enum Change {
    Propose,
    End,
    Withdraw,
    Complete(u64),
    Truncate(u64),
    Modify(u32),
    Reserve,
    Move,
    /// The whole way to another MetaStore.
    Arrive(u64),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => Just(Change::Propose),
        1 => Just(Change::Withdraw),
        4 => (0u64..50).prop_map(Change::Complete),
        2 => (0u64..300).prop_map(Change::Truncate),
        2 => (0u32..12).prop_map(Change::Modify),
        1 => Just(Change::End),
        1 => Just(Change::Reserve),
        1 => Just(Change::Move),
        2 => (1u64..9).prop_map(Change::Arrive),
    ];
    prop::collection::vec(change, 0..40)
}

fn apply(chain: &Chain, change: &Change, nonce: u128) -> Result<Option<Chain>, ChainError> {
    match *change {
        Change::Propose => chain.propose(Some(config("local")), nonce).map(Some),
        Change::End => chain.propose(None, nonce).map(Some),
        Change::Withdraw => chain.withdraw(nonce).map(Some),
        Change::Complete(tail) => chain.complete(LogletPos(tail), nonce).map(Some),
        Change::Truncate(kept) => chain.truncate(LogPos(kept), nonce),
        Change::Modify(index) => {
            let (chain, number) = chain.reserve(nonce)?;
            chain.modify(index, number, LogletPos(0), config("cold"), nonce).map(Some)
        }
        Change::Reserve => chain.reserve(nonce).map(|(chain, _)| Some(chain)),
        Change::Move => chain.moved("memory:there".into(), nonce).map(Some),
        Change::Arrive(version) => {
            let claim = chain.arriving("memory:here".into(), version, nonce, Clone::clone)?;
            assert_eq!((claim.check(), claim.live()), (Ok(()), chain.live()));
            assert_eq!(Chain::decode(&claim.encode()), Ok(claim.clone()));
            assert!(chain.moved("memory:there".into(), nonce)?.confirms(&claim));
            claim.arrived(nonce).map(Some)
        }
    }
}

proptest! {
    #[test]
    fn no_sequence_of_changes_breaks_an_invariant(changes in changes()) {
        let mut chain = new();
        let mut boundaries = std::collections::BTreeMap::new();
        for (nonce, change) in changes.iter().enumerate() {
            let Ok(Some(next)) = apply(&chain, change, nonce as u128) else { continue };
            prop_assert_eq!(next.check(), Ok(()));
            prop_assert!(next.moment() > chain.moment());
            // A number that is dead in one version is dead in all later ones.
            let ((alive, bound), (live, _)) = (chain.live(), next.live());
            prop_assert!(live.iter().all(|number| *number >= bound || alive.contains(number)));
            for segment in &next.segments {
                if let Some(stop) = segment.stop {
                    prop_assert_eq!(*boundaries.entry(segment.index).or_insert(stop), stop);
                }
            }
            prop_assert_eq!(Chain::decode(&next.encode()), Ok(next.clone()));
            for position in next.first().0..next.first().0 + 120 {
                if let Some(segment) = next.locate(LogPos(position)) {
                    let there = segment.to_loglet(LogPos(position));
                    prop_assert_eq!(segment.to_log(there), LogPos(position));
                }
            }
            chain = next;
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Chain::decode(&bytes);
        let framed = [&MAGIC[..], &crc32c(&bytes).to_le_bytes(), &bytes].concat();
        let _ = Chain::decode(&framed);
    }
}
