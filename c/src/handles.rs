//! The one table of everything that a program holds.
//!
//! A handle is a key: the index of a slot, and how often that slot was used before. So a handle that was
//! freed finds nothing, however often it is used again, and never somebody else's object. A call keeps
//! what it uses alive by itself, so freeing a handle that another thread uses is no crash either.
//!
//! A key also says in which process it was made. A child of `fork` begins with a table of its own, because
//! the lock of the old one may have been held at the fork; the parent's keys are `CLOSED` there.

use std::any::Any;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use virtuallog_bindings::{Error, ErrorCode, Result, runtime};

/// Bits of a key, from the lowest: the slot, how often it was used, and how many forks lie before it.
const SLOT_BITS: u32 = 28;
const USE_BITS: u32 = 28;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const USE_MASK: u64 = (1 << USE_BITS) - 1;
const FORK_MASK: u64 = u64::MAX >> (SLOT_BITS + USE_BITS);

/// Something that a program holds by a handle.
pub trait Held: Any + Send + Sync {
    /// What messages call it.
    fn name() -> &'static str
    where
        Self: Sized;

    /// Its handle was freed. It goes once nobody uses it any more; whoever waits in it is to stop.
    fn freed(&self) {}
}

type Object = Arc<dyn Held>;

struct Table {
    fork: u64,
    slots: RwLock<Slots>,
}

#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    free: Vec<usize>,
}

struct Slot {
    /// From 1 on, so that no key is 0.
    uses: u64,
    object: Option<Object>,
}

static TABLE: AtomicPtr<Table> = AtomicPtr::new(ptr::null_mut());

/// Puts an object into the table and gives its handle.
pub fn insert<T: Held>(object: T) -> u64 {
    let object: Object = Arc::new(object);
    let table = table();
    let mut slots = table.slots.write().unwrap_or_else(PoisonError::into_inner);
    let at = match slots.free.pop() {
        Some(at) => at,
        None => {
            slots.all.push(Slot { uses: 0, object: None });
            slots.all.len() - 1
        }
    };
    assert!(at as u64 <= SLOT_MASK, "2^28 handles are held: free some");
    let slot = &mut slots.all[at];
    slot.uses += 1;
    slot.object = Some(object);
    (table.fork & FORK_MASK) << (SLOT_BITS + USE_BITS) | slot.uses << SLOT_BITS | at as u64
}

/// What a handle stands for.
///
/// # Errors
/// `CLOSED` where it was freed or made before a fork; `INVALID` where it never was one of a `T`.
pub fn get<T: Held>(handle: u64) -> Result<Arc<T>> {
    if handle == 0 {
        return Err(Error::invalid(format!(
            "the handle of the {} is 0: open one first",
            T::name()
        )));
    }
    let table = table();
    if handle >> (SLOT_BITS + USE_BITS) != table.fork & FORK_MASK {
        let message =
            format!("this {} was made before a fork: open another in this process", T::name());
        return Err(Error::new(ErrorCode::Closed, message));
    }
    let object = {
        let slots = table.slots.read().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.all.get((handle & SLOT_MASK) as usize);
        let uses = handle >> SLOT_BITS & USE_MASK;
        match slot {
            Some(slot) if slot.uses == uses && slot.object.is_some() => slot.object.clone(),
            Some(slot) if uses != 0 && uses <= slot.uses => None,
            _ => {
                return Err(Error::invalid(format!("{handle:#x} is no handle of a {}", T::name())));
            }
        }
    };
    let Some(object) = object else {
        let message = format!("this {} was freed: open another", T::name());
        return Err(Error::new(ErrorCode::Closed, message));
    };
    let object: Arc<dyn Any + Send + Sync> = object;
    let other = |_| Error::invalid(format!("this handle is not one of a {}", T::name()));
    object.downcast().map_err(other)
}

/// Frees a handle: what it stood for goes when nobody uses it any more. A key of nothing is let be.
pub fn remove(handle: u64) {
    let table = table();
    if handle == 0 || handle >> (SLOT_BITS + USE_BITS) != table.fork & FORK_MASK {
        return;
    }
    let object = {
        let mut slots = table.slots.write().unwrap_or_else(PoisonError::into_inner);
        let at = (handle & SLOT_MASK) as usize;
        let uses = handle >> SLOT_BITS & USE_MASK;
        let Some(slot) = slots.all.get_mut(at).filter(|slot| slot.uses == uses) else { return };
        let object = slot.object.take();
        // A slot whose count is used up is given up, rather than begin again with keys of the past.
        if object.is_some() && uses < USE_MASK {
            slots.free.push(at);
        }
        object
    };
    // Without the lock: its end may take a while.
    if let Some(object) = object {
        object.freed();
    }
}

/// The table of this process.
fn table() -> &'static Table {
    let fork = runtime::generation();
    loop {
        let there = TABLE.load(Ordering::Acquire);
        // SAFETY: a pointer that was stored came from `Box::into_raw` and is never freed.
        if let Some(table) = unsafe { there.as_ref() }
            && table.fork == fork
        {
            return table;
        }
        let fresh = Box::into_raw(Box::new(Table { fork, slots: RwLock::default() }));
        // The parent's table is leaked in the child, as all that it shares with its parent is.
        if TABLE.compare_exchange(there, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: `fresh` lost, so nobody else has seen it; this gives it back to its box.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}
