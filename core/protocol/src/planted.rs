//! Mistakes that a test plants in the cores of NativeLoglet, to see that it would be noticed.
//!
//! What it promises: without the feature `planted` there is no way to make anything but
//! [`Planted::NONE`]. Mistakes of the parts around the cores (a disk, a client) are the model's own.

#[cfg(feature = "planted")]
use std::cell::Cell;

#[cfg(feature = "planted")]
thread_local! {
    static HERE: Cell<Planted> = const { Cell::new(Planted::NONE) };
}

/// Plants mistakes in all cores that are made on this thread from now on.
#[cfg(feature = "planted")]
pub fn plant(planted: Planted) {
    HERE.with(|here| here.set(planted));
}

/// One mistake, named after what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// N2: a sealed LogServer says yes to a batch that it already has.
    SealedTakesDuplicate,
    /// A LogServer takes a batch though something before it is missing.
    TakesGap,
    /// N3: the sequencer counts tails that sealed servers show, which repairs raise.
    CountsSealed,
    /// The sequencer acknowledges what one server has.
    AcksAtOne,
    /// N1: a tail check ends when the known tail reaches what it waits for.
    TrustsKnownTail,
    /// A tail check shows the highest tail that it saw, without waiting.
    ShowsLocalTail,
    /// A tail check takes unsealed answers for a sealed tail (BookKeeper #2614).
    MixesUnsealed,
    /// N8: a tail check takes the smallest of the sealed tails.
    SmallestTail,
    /// N9: a tail check gives a sealed tail that is not on a majority.
    SkipsRepair,
    /// A tail check takes one sealed server for a sealed loglet.
    OneSealIsEnough,
    /// A batch is taken for what it says that it is, whatever its checksum.
    ChecksumNotVerified,
}

/// The mistakes that are planted: none but in tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Planted(u32);

impl Planted {
    /// As it should be.
    pub const NONE: Planted = Planted(0);

    /// What a simulator [planted](plant) on this thread: nothing anywhere else.
    pub(crate) fn here() -> Planted {
        #[cfg(feature = "planted")]
        return HERE.with(Cell::get);
        #[cfg(not(feature = "planted"))]
        Planted::NONE
    }

    /// These and `bug`.
    #[cfg(any(test, feature = "planted"))]
    #[must_use]
    pub fn with(self, bug: Bug) -> Planted {
        Planted(self.0 | 1 << bug as u32)
    }

    /// True when `bug` is among them.
    pub(crate) fn has(self, bug: Bug) -> bool {
        self.0 & (1 << bug as u32) != 0
    }
}
