//! Reading a native loglet from any one of its replicas.
//!
//! Below a known tail every entry is on a majority, but one LogServer may lack some that it skipped.
//! Positions here have no gaps between batches, so what is missing is seen: then another replica is
//! asked. Damage on one replica is no damage while another one has the entry. The replica in this
//! process, if there is one, is asked first; the others in turn, so that readers spread, and those that
//! did not answer lately last.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use virtuallog_protocol::{LogletPos, StampedBatch};

use super::quorum::Quorum;
use crate::cluster::{MemberId, failure, unexpected};
use crate::env::planted;
use crate::loglet::LogletError;
use crate::wire::frame::{READ_BYTES_MAX, get_batches};
use crate::wire::messages::{Read, Reply, Request};
use crate::wire::transport::Lane;

/// Which replica is asked next.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// The one that answered last.
    at: AtomicUsize,
}

/// What one replica had.
enum Had {
    /// Batches without a gap, from the first position asked for.
    Batches(Vec<StampedBatch>),
    /// Not the first one.
    Nothing,
}

impl Readers {
    /// As [`Loglet::read`](crate::loglet::Loglet::read).
    pub(super) async fn read(
        &self,
        quorum: &Quorum,
        from: LogletPos,
        to: LogletPos,
        bytes_max: usize,
    ) -> Result<Vec<StampedBatch>, LogletError> {
        if from >= to {
            return Ok(Vec::new());
        }
        if from < quorum.known_trim() {
            return Err(LogletError::Trimmed { first_kept: quorum.known_trim() });
        }
        let members: Vec<MemberId> = quorum.members().collect();
        let local = members.iter().position(|member| quorum.net.is_local(*member));
        let start = local.unwrap_or_else(|| self.at.load(Ordering::Relaxed) % members.len());
        let (mut why, mut unknown, mut without) = (None, 0, 0);
        let mut behind: Option<Vec<StampedBatch>> = None;
        let mut turns: Vec<_> = (0..members.len()).map(|n| (start + n) % members.len()).collect();
        turns.sort_by_key(|at| quorum.net.is_silent(members[*at]));
        for at in turns {
            match read_from(quorum, members[at], from, to, bytes_max).await {
                Ok(Had::Batches(batches)) if planted::has(planted::Bug::ReadsOverHoles) => {
                    return Ok(batches);
                }
                Ok(Had::Batches(batches)) if starts_at(&batches, from) => {
                    self.at.store(at, Ordering::Relaxed);
                    return Ok(contiguous(batches));
                }
                // Perhaps it skipped what comes first; perhaps, in a copy, nobody has it.
                Ok(Had::Batches(batches)) => {
                    without += 1;
                    let earlier = |known: &Vec<StampedBatch>| batches[0].first < known[0].first;
                    if behind.as_ref().is_none_or(earlier) {
                        behind = Some(batches);
                    }
                }
                Ok(Had::Nothing) => without += 1,
                // A member that was away when the loglet was made has nothing.
                Err(LogletError::Unknown(_)) => unknown += 1,
                Err(error @ LogletError::Trimmed { .. }) => return Err(error),
                // A server whose disk failed says so until it is started again, and has all that it had.
                Err(LogletError::Refused(error)) => {
                    why = Some(rather(why, LogletError::Unavailable(error.into())));
                }
                Err(error) => why = Some(rather(why, error)),
            }
        }
        let majority = members.len() / 2 + 1;
        if unknown >= majority {
            return Err(LogletError::Unknown(quorum.id));
        }
        match why {
            Some(error @ LogletError::Corrupt(_)) => Err(error),
            // What a majority lacks was never committed, whatever the silent ones have. Who does not
            // know the loglet may have had it, and have deleted it since.
            Some(error) if without < majority => Err(error),
            _ => Ok(behind.map_or_else(Vec::new, contiguous)),
        }
    }
}

/// Which of two failures to tell: silence before damage, since whoever is silent may have it whole.
fn rather(known: Option<LogletError>, new: LogletError) -> LogletError {
    match known {
        Some(known @ LogletError::Unavailable(_)) => known,
        Some(known) if !matches!(new, LogletError::Unavailable(_)) => known,
        _ => new,
    }
}

fn starts_at(batches: &[StampedBatch], from: LogletPos) -> bool {
    batches.first().is_some_and(|first| first.first <= from && from < first.end())
}

/// What comes before the first gap.
fn contiguous(mut batches: Vec<StampedBatch>) -> Vec<StampedBatch> {
    let gap = batches.windows(2).position(|pair| pair[0].end() != pair[1].first);
    if let Some(at) = gap {
        batches.truncate(at + 1);
    }
    batches
}

async fn read_from(
    quorum: &Quorum,
    member: MemberId,
    from: LogletPos,
    to: LogletPos,
    bytes_max: usize,
) -> Result<Had, LogletError> {
    let bytes_max = bytes_max.min(READ_BYTES_MAX) as u64;
    let read = Read { loglet: quorum.id.into(), from: from.0, to: to.0, bytes_max };
    let answer = quorum.net.ask(member, Lane::Read, Request::Read(read), Bytes::new()).await;
    let (reply, body) = answer.map_err(|e| LogletError::Unavailable(e.error().clone().into()))?;
    match reply {
        Reply::Batches(_) => {
            let batches =
                get_batches(body).map_err(|e| LogletError::Corrupt(e.message().to_owned()))?;
            if let Some(wrong) = batches.iter().find(|batch| batch.loglet != quorum.id) {
                let message = format!("a batch of loglet {} came instead", wrong.loglet);
                return Err(LogletError::Corrupt(message));
            }
            match batches.is_empty() {
                true => Ok(Had::Nothing),
                false => Ok(Had::Batches(batches)),
            }
        }
        Reply::Failure(wrong) => Err(failure(&wrong, quorum.id)),
        _ => Err(LogletError::Unavailable(unexpected().into())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use virtuallog_protocol::{BatchBuilder, LogId, LogletId, WriterId};

    use super::*;
    use crate::cluster::Net;
    use crate::error::{Error, ErrorCode};
    use crate::wire::frame::{Packet, put_batches};
    use crate::wire::messages::{Cluster, Failure, FailureKind, LogletParams, Member, Node};
    use crate::wire::transport::{Done, Link, Target, Transport};

    const ID: LogletId = LogletId { log: LogId(1), segment: 0 };

    /// What a node has to say.
    #[derive(Clone, Copy, Debug)]
    enum Says {
        /// A machine without power: nothing comes back from it, no refusal either.
        Dark,
        /// It does not know the loglet, or not any more.
        Unknown,
        /// Its disk failed: it refuses everything.
        Failed,
        /// What it has is damaged.
        Damaged,
        /// It has nothing there.
        Nothing,
        Entry,
    }

    /// Nodes 1, 2, 3.
    #[derive(Debug)]
    struct Nodes([Says; 3]);

    impl Transport for Nodes {
        fn link(&self, to: &Target, _lane: Lane) -> Arc<dyn Link> {
            let (node, _) = to.member.expect("a member");
            Arc::new(self.0[node as usize - 1])
        }

        fn close(&self) {}
    }

    impl Link for Says {
        fn call(&self, request: Packet, done: Done) {
            let Ok(Request::Read(read)) = request.to_request() else { panic!("a read") };
            let batches = match self {
                Says::Dark => return std::mem::forget(done),
                Says::Unknown => {
                    let unknown = Failure::new(FailureKind::Unknown, "unknown", 0);
                    return done(Ok(Packet::reply(Reply::Failure(unknown), Bytes::new())));
                }
                Says::Failed => {
                    let error = Error::new(ErrorCode::DataLoss, "a sync failed");
                    return done(Ok(Packet::reply(Reply::refused(&error), Bytes::new())));
                }
                Says::Damaged => {
                    let damaged = Failure::new(FailureKind::Corrupt, "a checksum", 0);
                    return done(Ok(Packet::reply(Reply::Failure(damaged), Bytes::new())));
                }
                Says::Nothing => Vec::new(),
                Says::Entry => {
                    let mut entries = BatchBuilder::with_capacity(5);
                    entries.push(b"entry");
                    let batch = entries.finish(WriterId(1), read.from, 0);
                    vec![StampedBatch { loglet: ID, first: LogletPos(read.from), batch }]
                }
            };
            let body = put_batches(&batches);
            done(Ok(Packet::reply(Reply::Batches(Default::default()), body)));
        }

        fn tell(&self, _notice: Packet) {}
    }

    fn quorum(says: [Says; 3]) -> Quorum {
        let nodes = (1..=3).map(|number| Node {
            number,
            storage: Some(u128::from(number * 11).into()),
            ..Node::default()
        });
        let nodes: Vec<_> = nodes.collect();
        let members = nodes.iter().map(|node| node.member());
        let members = members.map(|(node, storage)| Member { node, storage: storage.into() });
        let params = LogletParams { members: members.collect(), sequencer: 0, replication: 3 };
        let net = Net::new(Arc::new(Nodes(says)), Vec::new());
        net.learn(&Cluster { id: Some(7.into()), nodes, ..Cluster::default() });
        Quorum::new(net, ID, params)
    }

    /// A gap is said only where a majority lacks the entry: who deleted the loglet may have had it.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_absent_that_a_majority_may_have() {
        use Says::{Damaged, Dark, Entry, Failed, Nothing, Unknown};
        let cases = [
            ([Dark, Nothing, Nothing], Ok(0)),
            ([Dark, Nothing, Entry], Ok(1)),
            ([Unknown, Nothing, Entry], Ok(1)),
            ([Dark, Unknown, Nothing], Err("Unavailable")),
            ([Dark, Dark, Nothing], Err("Unavailable")),
            ([Dark, Unknown, Unknown], Err("Unknown")),
            // Damage is told where nobody else can have it whole.
            ([Damaged, Unknown, Nothing], Err("Corrupt")),
            ([Damaged, Failed, Unknown], Err("Unavailable")),
            ([Damaged, Dark, Unknown], Err("Unavailable")),
            ([Damaged, Failed, Entry], Ok(1)),
        ];
        for (says, expected) in cases {
            let read = Readers::default();
            let read = read.read(&quorum(says), LogletPos(3), LogletPos(4), 100).await;
            let name = |error: LogletError| {
                let names = ["Unavailable", "Unknown", "Corrupt"];
                names.into_iter().find(|n| format!("{error:?}").starts_with(n))
            };
            let got = read.map(|batches| batches.len()).map_err(|e| name(e).expect("one of these"));
            assert_eq!(got, expected, "{says:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dark_machine_holds_up_one_read_and_not_each() {
        let quorum = quorum([Says::Dark, Says::Entry, Says::Entry]);
        let begun = tokio::time::Instant::now();
        for at in 0..20 {
            // Each with an order of its own, as each segment has.
            let readers = Readers::default();
            let read = readers.read(&quorum, LogletPos(at), LogletPos(at + 1), 100);
            assert_eq!(read.await.expect("the others have it").len(), 1);
        }
        assert!(begun.elapsed() < 2 * crate::cluster::ANSWER_TIMEOUT, "one silence is enough");
    }
}
