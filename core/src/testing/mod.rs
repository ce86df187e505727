//! What proves a loglet or a MetaStore right: for this project's own and for anybody's.
//!
//! [`conformance`] runs every clause of the loglet contract, [`metastore_suite`] every promise of a
//! register. Clients that race are judged by [`history`]: no expectations written beforehand, but a
//! check of all that they saw. [`gappy`] is a loglet that leaves gaps, since any may. [`planted`] are
//! loglets with one bug each, which show that the suite finds them. [`simdisk`] is a disk that loses,
//! tears and refuses what a real one may. [`hostile`] are doors for a fuzzer.
//!
//! [`sim`] simulates whole clusters and their clients under faults, on one seed. It takes loglets of yours
//! besides its own: clients go over to them and back, and everything that they saw is judged.
//!
//! ```no_run
//! use virtuallog::testing::gappy;
//! use virtuallog::testing::sim::{Engine, Options, run};
//!
//! for seed in 1..=20 {
//!     // In place of `gappy`, what gives a new provider of yours.
//!     let loglets = vec![Engine::new("gappy", gappy::provider)];
//!     let report = run(&Options { loglets, ..Options::of_seed(seed) });
//!     assert!(report.broken.is_empty(), "{report:#?}");
//! }
//! ```
//!
//! Build that with `RUSTFLAGS="--cfg tokio_unstable"`: without it a seed decides everything but tokio's own
//! chance, which is the order of branches that are ready at once, so that it may not do the same again. What
//! a provider does has to come from its arguments, tokio's clock and tasks of the runtime that it is called
//! in: threads and clocks of its own are not simulated.
//!
//! Checks give a sentence that says what is wrong, and `Ok` otherwise. Randomness is seeded; time is
//! used for one thing only, to end a check that hangs.

pub mod conformance;
pub mod gappy;
pub mod history;
pub mod hostile;
pub mod metastore_suite;
pub mod planted;
pub mod sim;
pub mod simdisk;

/// A small seeded random number generator (SplitMix64): the same numbers everywhere and for ever.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator of its own sequence for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0. The bias of small bounds does not matter here.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    /// True in `percent` of 100 cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Fails a check with a sentence.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
pub(crate) use ensure;
