//! Reading a native loglet from any one of its replicas.
//!
//! Below a known tail every entry is on a majority, but one LogServer may lack some that it skipped.
//! Positions here have no gaps between batches, so what is missing is seen: then another replica is
//! asked. Damage on one replica is no damage while another one has the entry. The replica in this
//! process, if there is one, is asked first; the others in turn, so that readers spread.

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
    /// As [`Loglet::read`](crate::loglet::Loglet::read). `dense`: positions have no gaps.
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
        let (mut why, mut unknown) = (None, 0);
        let mut behind: Option<Vec<StampedBatch>> = None;
        for turn in 0..members.len() {
            let at = (start + turn) % members.len();
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
                    let earlier = |known: &Vec<StampedBatch>| batches[0].first < known[0].first;
                    if behind.as_ref().is_none_or(earlier) {
                        behind = Some(batches);
                    }
                }
                Ok(Had::Nothing) => {}
                // A member that was away when the loglet was made has nothing.
                Err(LogletError::Unknown(_)) => unknown += 1,
                Err(error @ LogletError::Trimmed { .. }) => return Err(error),
                Err(error) => why = Some(worse(why, error)),
            }
        }
        if unknown > members.len() / 2 {
            return Err(LogletError::Unknown(quorum.id));
        }
        match (why, behind) {
            // Nobody is silent, so nobody can have what is missing: the gap is one for ever.
            (None, Some(batches)) => Ok(contiguous(batches)),
            (None, None) => Ok(Vec::new()),
            (Some(error), _) => Err(error),
        }
    }
}

/// Which of two failures to tell: damage before silence.
fn worse(known: Option<LogletError>, new: LogletError) -> LogletError {
    match known {
        Some(known @ LogletError::Corrupt(_)) => known,
        Some(known) if !matches!(new, LogletError::Corrupt(_)) => known,
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
