//! Breadth-first search over all states of a model: the first broken invariant is the nearest one.
//!
//! States are remembered by 64 bits of hash: at a few million states two of them share one with a
//! probability below 10^-6, and then a state would be left out, never a false alarm raised.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hasher};

/// What is searched.
pub(crate) trait Model {
    /// One state of everything.
    type State;
    /// One step.
    type Action: Copy + Debug;

    /// The same for states that differ in no way that matters.
    fn hash(&self, state: &Self::State) -> u64;

    /// All steps from `state`, each with where it leads; steps that change nothing may be among them.
    fn steps(&self, state: &Self::State, out: &mut Vec<(Self::Action, Self::State)>);

    /// The invariant that `state` breaks.
    fn broken(&self, state: &Self::State) -> Option<&'static str>;
}

/// How a search ended.
#[derive(Debug)]
pub(crate) struct Found<A> {
    /// States that were seen.
    pub(crate) states: usize,
    /// True when there are no others.
    pub(crate) all: bool,
    /// The broken invariant, and the steps to it.
    pub(crate) broken: Option<(&'static str, Vec<A>)>,
}

/// A fast hash, always the same: each number is folded in by a multiplication of 128 bits.
#[derive(Default)]
pub(crate) struct Folded(pub(crate) u64);

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u8(&mut self, number: u8) {
        self.write_u64(u64::from(number));
    }
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number ^ 0x9e37_79b9_7f4a_7c15)
            * u128::from(0xd6e8_feb8_6659_fd93_u64);
        self.0 = (product as u64 ^ (product >> 64) as u64).rotate_left(23);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A hash is its own hash.
#[derive(Default)]
pub(crate) struct Same(u64);

impl Hasher for Same {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are put in");
    }
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// Looks at every state that can be reached, or at the `states_max` nearest ones.
pub(crate) fn search<M: Model>(model: &M, start: M::State, states_max: usize) -> Found<M::Action> {
    let mut seen: HashSet<u64, BuildHasherDefault<Same>> = HashSet::default();
    seen.insert(model.hash(&start));
    // From which state, by its number, and by which step each state was first reached.
    let mut reached: Vec<Option<(u32, M::Action)>> = vec![None];
    let mut level = vec![(0_u32, start)];
    let mut out = Vec::new();
    while !level.is_empty() {
        let mut next_level = Vec::new();
        for (number, state) in level {
            if let Some(invariant) = model.broken(&state) {
                let mut steps = Vec::new();
                let mut at = number;
                while let Some((from, action)) = reached[at as usize] {
                    steps.push(action);
                    at = from;
                }
                steps.reverse();
                return Found { states: seen.len(), all: false, broken: Some((invariant, steps)) };
            }
            if seen.len() >= states_max {
                continue;
            }
            model.steps(&state, &mut out);
            for (action, next) in out.drain(..) {
                if seen.insert(model.hash(&next)) {
                    next_level.push((reached.len() as u32, next));
                    reached.push(Some((number, action)));
                }
            }
        }
        level = next_level;
    }
    Found { states: seen.len(), all: seen.len() < states_max, broken: None }
}
