//! Mistakes that a test plants in the cores of NativeLoglet, to see that it would be noticed.
//!
//! What it promises: without the feature `planted` there is no way to make anything but
//! [`Planted::NONE`]. Mistakes of the parts around the cores (a disk, a client) are the model's own.

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
}

/// The mistakes that are planted: none but in tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Planted(u32);

impl Planted {
    /// As it should be.
    pub const NONE: Planted = Planted(0);

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
