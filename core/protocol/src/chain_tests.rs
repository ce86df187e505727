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

#[derive(Clone, Debug)]
enum Change {
    Propose,
    End,
    Withdraw,
    Complete(u64),
    Truncate(u64),
    Modify(u32),
    Move,
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        4 => Just(Change::Propose),
        1 => Just(Change::Withdraw),
        4 => (0u64..50).prop_map(Change::Complete),
        2 => (0u64..300).prop_map(Change::Truncate),
        2 => (0u32..12).prop_map(Change::Modify),
        1 => Just(Change::End),
        1 => Just(Change::Move),
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
        Change::Move => chain.moved("memory:there".into(), nonce).map(Some),
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
