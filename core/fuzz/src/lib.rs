//! What decoders do with bytes from outside, as targets for a fuzzer.
//!
//! A target takes any bytes and panics when a promise is broken: that nothing panics, that what decodes
//! is encoded to bytes which mean the same, that what was accepted can be used, and that memory stays
//! within [`Target::memory`]. `make fuzz TARGET=name SECONDS=60` looks for such bytes with libFuzzer;
//! what it ever found, and what reaches each part of a decoder, stays in `corpus/`, and
//! `tests/corpus.rs` replays it without a fuzzer. A target whose bytes carry checksums tries them as
//! they are and once more with checksums that hold (`mend.rs`): otherwise nothing gets beyond those.
//!
//! Reading order: this file, `targets/`, then `mend.rs`, `allocation.rs` and `corpus.rs`.
//! What is not here: whole servers under hostile clients, which are `core/tests/cluster_input.rs`.

pub mod allocation;
pub mod corpus;
pub mod mend;
mod targets;

pub use targets::TARGETS;

/// No single allocation is larger, whatever the input: in bytes.
pub const ALLOCATION_MAX: usize = 64 << 20;

/// One decoder, or a few that are used together.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What `make fuzz TARGET=` calls it, and its file in `corpus/`.
    pub name: &'static str,
    /// Takes an input apart; panics when a promise is broken.
    pub run: fn(&[u8]),
    /// What it begins with: honest bytes of each kind.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Memory in use at once: at most so many bytes, and so many for each byte of input.
    pub memory: (usize, usize),
    /// Most bytes that the fuzzer tries.
    pub len_max: usize,
}

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

impl Target {
    /// Runs it over one input. Panics when a promise is broken, the one about memory too.
    pub fn check(&self, input: &[u8]) {
        let used = allocation::measure(|| (self.run)(input));
        let (fixed, each) = self.memory;
        let most = fixed + each * input.len();
        assert!(used.largest <= ALLOCATION_MAX, "an allocation of {} bytes", used.largest);
        assert!(used.peak <= most, "{} bytes in use, at most {most} are allowed", used.peak);
    }
}
