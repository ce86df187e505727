//! Mistakes that can be planted in what is simulated, each of which the simulator has to find. The
//! table of seeds that find them is `planted.txt`; `make planted` makes it anew.

use virtuallog_protocol::paxos;
use virtuallog_protocol::planted as native;

use crate::env::planted;
use crate::storage;
use crate::store;

/// A mistake, by the part that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// In the cores of NativeLoglet, and in the bytes of a record.
    Native(native::Bug),
    /// In the cores of the MetaStore.
    Paxos(paxos::Bug),
    /// In the disk of a LogServer.
    Storage(storage::PlantedBug),
    /// In finding out what became of an append.
    Resolution(store::PlantedBug),
    /// In the parts that move all of these.
    Around(planted::Bug),
}

/// All of them.
pub const MISTAKES: &[Mistake] = &[
    Mistake::Native(native::Bug::SealedTakesDuplicate),
    Mistake::Native(native::Bug::TakesGap),
    Mistake::Native(native::Bug::CountsSealed),
    Mistake::Native(native::Bug::AcksAtOne),
    Mistake::Native(native::Bug::TrustsKnownTail),
    Mistake::Native(native::Bug::ShowsLocalTail),
    Mistake::Native(native::Bug::MixesUnsealed),
    Mistake::Native(native::Bug::SmallestTail),
    Mistake::Native(native::Bug::SkipsRepair),
    Mistake::Native(native::Bug::OneSealIsEnough),
    Mistake::Native(native::Bug::ChecksumNotVerified),
    Mistake::Paxos(paxos::Bug::PromiseNotPersisted),
    Mistake::Paxos(paxos::Bug::AcceptNotPersisted),
    Mistake::Paxos(paxos::Bug::AmnesiacVotes),
    Mistake::Paxos(paxos::Bug::StrangerVotes),
    Mistake::Paxos(paxos::Bug::ValueNotAdopted),
    Mistake::Paxos(paxos::Bug::MinoritySuffices),
    Mistake::Paxos(paxos::Bug::ReadFromOne),
    Mistake::Paxos(paxos::Bug::ReadIgnoresAccepted),
    Mistake::Paxos(paxos::Bug::PlainPut),
    Mistake::Storage(storage::PlantedBug::AckBeforeSync),
    Mistake::Storage(storage::PlantedBug::NoDirSync),
    Mistake::Storage(storage::PlantedBug::CutAtBadBlock),
    Mistake::Storage(storage::PlantedBug::SealNotSynced),
    Mistake::Storage(storage::PlantedBug::RecycleBeforeSync),
    Mistake::Resolution(store::PlantedBug::DoubledResolution),
    Mistake::Resolution(store::PlantedBug::LostResolution),
    Mistake::Around(planted::Bug::SequencerReborn),
    Mistake::Around(planted::Bug::TrustsOldDisk),
    Mistake::Around(planted::Bug::ShowsUndecidedTail),
    Mistake::Around(planted::Bug::RetriesSync),
    Mistake::Around(planted::Bug::IgnoresFailedSync),
    Mistake::Around(planted::Bug::TailFromMemory),
    Mistake::Around(planted::Bug::ForgetsRounds),
    Mistake::Around(planted::Bug::ReadsOverHoles),
    Mistake::Around(planted::Bug::DoubtIsFailure),
    Mistake::Around(planted::Bug::SweepsUnnamed),
    Mistake::Around(planted::Bug::TruncatesTooFar),
    Mistake::Around(planted::Bug::BoundaryFromMemory),
    Mistake::Around(planted::Bug::TrimsWhatItHas),
    Mistake::Around(planted::Bug::KeepsFirstSegment),
    Mistake::Around(planted::Bug::ReusesUnnamed),
    Mistake::Around(planted::Bug::StartConfirms),
    Mistake::Around(planted::Bug::RemakesDeleted),
    Mistake::Around(planted::Bug::ReadsByOldChain),
    Mistake::Around(planted::Bug::LacksItsShare),
    Mistake::Around(planted::Bug::KeepsTheDead),
];

impl Mistake {
    /// Its name, without the part.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Mistake::Native(bug) => format!("{bug:?}"),
            Mistake::Paxos(bug) => format!("{bug:?}"),
            Mistake::Storage(bug) => format!("{bug:?}"),
            Mistake::Resolution(bug) => format!("{bug:?}"),
            Mistake::Around(bug) => format!("{bug:?}"),
        }
    }

    pub(super) fn in_storage(mistake: Option<Mistake>) -> Option<storage::PlantedBug> {
        match mistake {
            Some(Mistake::Storage(bug)) => Some(bug),
            _ => None,
        }
    }

    pub(super) fn in_resolution(mistake: Option<Mistake>) -> Option<store::PlantedBug> {
        match mistake {
            Some(Mistake::Resolution(bug)) => Some(bug),
            _ => None,
        }
    }
}

/// Plants a mistake on this thread, or none: everything made from now on has it.
pub(super) fn plant(mistake: Option<Mistake>) {
    #[cfg(feature = "planted")]
    {
        native::plant(match mistake {
            Some(Mistake::Native(bug)) => native::Planted::NONE.with(bug),
            _ => native::Planted::NONE,
        });
        paxos::plant(match mistake {
            Some(Mistake::Paxos(bug)) => paxos::Planted::NONE.with(bug),
            _ => paxos::Planted::NONE,
        });
        planted::plant(match mistake {
            Some(Mistake::Around(bug)) => Some(bug),
            _ => None,
        });
    }
    #[cfg(not(feature = "planted"))]
    let _ = mistake;
}
