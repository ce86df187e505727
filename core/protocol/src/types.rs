//! The words every other file uses: positions, identities, tails.
//!
//! Three rules hold everywhere. A *tail* is the first unwritten position. A range is half open. A
//! *trim* names the first position that is kept. Positions strictly increase from entry to entry and
//! may skip, so `tail - first` is a bound on how many entries there are, never the count.

use std::fmt;

/// A position in the virtual log: the address space that users see.
///
/// Only the chain converts between this and [`LogletPos`] (paper §3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPos(pub u64);

/// A position inside one loglet. Starts at the loglet's own base and means nothing outside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogletPos(pub u64);

macro_rules! position {
    ($name:ident) => {
        impl $name {
            /// The position `count` further on. Panics on overflow: 2^64 entries are out of reach,
            /// so an overflow is a broken invariant and not an operating error.
            #[must_use]
            pub fn plus(self, count: u64) -> Self {
                Self(self.0.checked_add(count).expect("a position never reaches 2^64"))
            }
        }

        impl From<u64> for $name {
            fn from(value: u64) -> Self {
                Self(value)
            }
        }

        impl From<$name> for u64 {
            fn from(value: $name) -> u64 {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

position!(LogPos);
position!(LogletPos);

/// Where a log, or one loglet, ends.
///
/// `P` is [`LogPos`] for a virtual log and [`LogletPos`] for a loglet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail<P = LogPos> {
    /// The first unwritten position.
    pub position: P,
    /// True when nothing can be appended any more.
    pub sealed: bool,
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }
    };
}

identity! {
    /// The identity of one virtual log for its whole life: 128 random bits drawn when it is created.
    ///
    /// A log that is deleted and created again under the same name is another log.
    LogId
}

identity! {
    /// One life of one writer: 128 random bits drawn when a handle starts to append.
    ///
    /// A life ends with the writer's first failed append, with a fork, and with the handle. Together
    /// with a sequence number it names an entry for good, so that an append caught by a seal can be
    /// looked up (`spec`: resolution).
    WriterId
}

/// The identity of a loglet: its log, and the index of the segment that it was made for.
///
/// A chain never hands out a segment index twice, so an identity is never used twice, and one number
/// a log (the lowest index that is still live) refuses every late message to a deleted loglet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogletId {
    /// The log that the loglet belongs to.
    pub log: LogId,
    /// The segment index that was drawn for it from the chain.
    pub segment: u32,
}

impl fmt::Display for LogletId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.log, self.segment)
    }
}

impl fmt::Debug for LogletId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogletId({self})")
    }
}
