//! The value of a log's register: what decodes is a chain that can be used and changed.

use bytes::Bytes;
use virtuallog::testing::hostile;
use virtuallog_protocol::limits::COUNTER_MAX;
use virtuallog_protocol::{Chain, LogId, LogPos, LogletConfig, LogletPos};

use crate::mend;

const MAGIC: &[u8; 4] = b"VLC\x01";

pub(super) fn chain(input: &[u8]) {
    let _ = Chain::decode(input);
    let Ok(chain) = Chain::decode(&mend::value(MAGIC, input)) else { return };
    holds(&chain);
    use_it(&chain);
    for next in changes(&chain) {
        holds(&next);
        use_it(&next);
    }
}

fn holds(chain: &Chain) {
    assert_eq!(Chain::decode(&chain.encode()).as_ref(), Ok(chain), "a chain is read as written");
}

fn use_it(chain: &Chain) {
    let (live, bound) = chain.live();
    assert!(live.iter().all(|number| *number < bound.max(chain.next_index)));
    for segment in &chain.segments {
        assert_eq!(segment.to_log(segment.base), segment.start);
        let last = segment.stop.unwrap_or(LogPos(COUNTER_MAX)).max(segment.start);
        assert_eq!(segment.to_log(segment.to_loglet(last)), last);
        let found = chain.locate(segment.start).map(|found| found.start);
        assert!(found.is_none_or(|start| start == segment.start));
        let _ = chain.loglet_id(segment);
        hostile::elsewhere(&segment.config.params);
    }
}

/// Every change that can be made to it, each of them checked.
fn changes(chain: &Chain) -> Vec<Chain> {
    let config = LogletConfig { kind: "k".into(), params: Bytes::new(), name: "k:1".into() };
    let tail = chain.active().base;
    let reserved = chain.reserve(5);
    let modified = reserved.as_ref().ok().and_then(|(chain, number)| {
        let (index, base) = (chain.segments[0].index, LogletPos(9));
        chain.modify(index, *number, base, config.clone(), 6).ok()
    });
    let all = [
        chain.propose(Some(config.clone()), 1).ok(),
        chain.propose(None, 1).ok(),
        chain.withdraw(2).ok(),
        chain.retarget(config.clone(), 3).ok(),
        chain.complete(tail, 4).ok(),
        chain.complete(LogletPos(COUNTER_MAX), 4).ok(),
        chain.complete(LogletPos(u64::MAX / 2), 4).ok(),
        chain.truncate(LogPos(COUNTER_MAX), 5).ok().flatten(),
        chain.abandon(chain.reserved.first().copied().unwrap_or(0), 5).ok().flatten(),
        chain.moved("memory:x".into(), 7).ok(),
        chain.arriving("memory:y".into(), 1, 8, Clone::clone).ok(),
        chain.arrived(9).ok(),
        reserved.ok().map(|(chain, _)| chain),
        modified,
    ];
    let changed: Vec<Chain> = all.into_iter().flatten().collect();
    for next in &changed {
        let _ = (chain.confirms(next), next.confirms(chain), next.moment());
    }
    changed
}

pub(super) fn chains() -> Vec<Vec<u8>> {
    let config = |name: &str| LogletConfig {
        kind: "native".into(),
        params: Bytes::from_static(b"params"),
        name: name.into(),
    };
    let new = Chain::new(LogId(7), 1, 2, config("native:3"));
    let away = LogletConfig { params: hostile::elsewheres(), ..config("file:/x native:3") };
    let away = Chain::new(LogId(7), 1, 2, away);
    let proposed = new.propose(Some(config("native:5")), 3).expect("open");
    let two = proposed.complete(LogletPos(100), 4).expect("under way");
    let (reserved, _) = two.reserve(5).expect("open");
    let ended = two.propose(None, 6).and_then(|chain| chain.complete(LogletPos(9), 7));
    let claim = two.arriving("file:/x/y".into(), 1, 8, Clone::clone);
    [new, away, proposed, two, reserved, ended.expect("open"), claim.expect("open")]
        .iter()
        .map(|chain| chain.encode()[8..].to_vec())
        .collect()
}
