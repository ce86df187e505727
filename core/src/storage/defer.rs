//! Requests of a thread that has more to do before it lets somebody write them.
//!
//! Waking the commit thread costs as much as a message to another node. A thread that brings one
//! request and then something for the network puts the request into the queue, sends, and only then
//! wakes the commit thread or, if it may block, is the leader itself.

use std::cell::Cell;
use std::marker::PhantomData;

use super::Inner;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The store whose requests wait, by its address.
    Open(usize),
    /// As `Open`, and there are some.
    Noted(usize),
}

thread_local! {
    static STATE: Cell<Option<State>> = const { Cell::new(None) };
}

fn address(store: &Inner) -> usize {
    std::ptr::from_ref(store).addr()
}

/// True when this thread sees to it later that somebody takes what is in the queue.
pub(super) fn note(store: &Inner) -> bool {
    STATE.with(|state| match state.get() {
        Some(State::Open(at) | State::Noted(at)) if at == address(store) => {
            state.set(Some(State::Noted(at)));
            true
        }
        _ => false,
    })
}

/// While it lives, this thread's requests to one store wait. Dropped, it wakes the commit thread.
#[must_use]
pub(crate) struct Deferred<'a> {
    /// `None`: inside of another one, which does it all.
    store: Option<&'a Inner>,
    /// It belongs to its thread.
    _here: PhantomData<*const ()>,
}

impl<'a> Deferred<'a> {
    pub(super) fn begin(store: &'a Inner) -> Self {
        let outer = STATE.with(|state| match state.get() {
            None => {
                state.set(Some(State::Open(address(store))));
                true
            }
            Some(_) => false,
        });
        Self { store: outer.then_some(store), _here: PhantomData }
    }

    /// Ends it. The store, when something waits.
    fn end(&mut self) -> Option<&'a Inner> {
        let store = self.store.take()?;
        let noted = STATE.with(Cell::take) == Some(State::Noted(address(store)));
        noted.then_some(store)
    }

    /// Writes what waits on this thread, unless somebody else is at it: one block and no more.
    pub(crate) fn lead(mut self) {
        let Some(store) = self.end() else { return };
        let led = {
            let mut queue = store.queue();
            let lead = !queue.leading && !queue.requests.is_empty();
            queue.leading |= lead;
            lead
        };
        if led {
            let one = Cell::new(false);
            store.lead(|| one.replace(true));
        }
    }
}

impl Drop for Deferred<'_> {
    fn drop(&mut self) {
        if let Some(store) = self.end() {
            store.wake.notify_one();
            store.options.tell();
        }
    }
}
