//! Mistakes that the simulator plants around the pure cores, in the parts that move them, to see that
//! it notices. Without the feature `planted` there are none, and no code for them.

/// One mistake, named after what goes wrong.
#[cfg_attr(
    not(any(test, feature = "testing")),
    expect(unreachable_pub, reason = "it is public where there is a simulator")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// N17: a sequencer is made again after a restart of its node.
    SequencerReborn,
    /// N7: a node votes whatever others remember of its disk.
    TrustsOldDisk,
    /// A sealed loglet's tail is shown before the chain names the boundary.
    ShowsUndecidedTail,
    /// A failed sync is tried again on the same file.
    RetriesSync,
    /// A failed sync is taken for a success.
    IgnoresFailedSync,
    /// A tail check is answered from what a client was told last.
    TailFromMemory,
    /// What comes of an earlier round of appends is taken for final.
    ForgetsRounds,
    /// A replica that lacks entries is read as if it had all.
    ReadsOverHoles,
    /// An append in doubt is called surely absent.
    DoubtIsFailure,
    /// A sweep deletes every loglet that a chain does not name, also one that is being made.
    SweepsUnnamed,
    /// A trim takes away the segment that it ends in.
    TruncatesTooFar,
    /// A reconfiguration closes a segment where its own client saw the tail last.
    BoundaryFromMemory,
    /// A LogServer trims as far as it has entries, and is counted among those who remember the trim.
    TrimsWhatItHas,
    /// An append that a seal sent on keeps the name of the segment that it was sent to first.
    KeepsFirstSegment,
    /// A start goes on with a journal file that the manifest does not name.
    ReusesUnnamed,
    /// A start alone makes a disk look newer than what others remember of it.
    StartConfirms,
    /// A loglet that was deleted is made anew.
    RemakesDeleted,
    /// A closed segment is read by the chain that the client happens to have.
    ReadsByOldChain,
    /// Who missed a part of a closed segment leaves it to the others.
    LacksItsShare,
    /// What no chain names any more stays on the disks.
    KeepsTheDead,
}

#[cfg(feature = "planted")]
thread_local! {
    static HERE: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a mistake on this thread, or none.
#[cfg(feature = "planted")]
pub(crate) fn plant(bug: Option<Bug>) {
    HERE.with(|here| here.set(bug));
}

/// Whether a mistake is planted on this thread.
pub(crate) fn has(bug: Bug) -> bool {
    #[cfg(feature = "planted")]
    return HERE.with(|here| here.get() == Some(bug));
    #[cfg(not(feature = "planted"))]
    {
        let _ = bug;
        false
    }
}
