//! Marks of rare branches: that a test reached the place, which no assertion shows. The simulator has
//! floors for how often a run reaches each of them (`testing/sim/mod.rs`).
//!
//! Counted by thread, because a simulation is one thread.

use std::cell::RefCell;
use std::collections::BTreeMap;

thread_local! {
    static HERE: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// The place of this name was reached.
pub(crate) fn reached(name: &'static str) {
    // Not where the thread ends: nobody counts any more.
    let _ = HERE.try_with(|here| *here.borrow_mut().entry(name).or_default() += 1);
}

/// What was reached on this thread since the last call, and how often.
pub(crate) fn take() -> BTreeMap<&'static str, u64> {
    HERE.with(RefCell::take)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_reached_is_counted_once() {
        super::take();
        for _ in 0..2 {
            crate::env::sometimes!("a loop went round");
        }
        assert_eq!(super::take().into_iter().collect::<Vec<_>>(), [("mark: a loop went round", 2)]);
        assert!(super::take().is_empty());
    }
}
