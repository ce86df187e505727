//! Where the core meets the outside world's clock and entropy, and how its tasks and its work on disks
//! are run: here, and nowhere else but where a store draws its own identity.
//!
//! Everything else takes time from tokio's clock, which tests pause, and identities as arguments. On a
//! thread where the simulator runs (`simulated.rs`, feature `testing`) all of it is the simulator's:
//! nothing there is drawn, begun or waited for that a seed does not decide.

#[cfg(any(test, feature = "testing"))]
pub(crate) mod marks;
pub(crate) mod planted;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod simulated;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::task::JoinError;

/// Marks a rare branch, by what is so in it: see `marks.rs`. No code without the feature `testing`.
macro_rules! sometimes {
    ($name:literal) => {
        #[cfg(any(test, feature = "testing"))]
        $crate::env::marks::reached(concat!("mark: ", $name))
    };
}
pub(crate) use sometimes;

/// The wall clock in microseconds since 1970 (UTC), for `written_at` alone: never for order.
pub(crate) fn now_micros() -> i64 {
    #[cfg(any(test, feature = "testing"))]
    if let Some(now) = simulated::now_micros() {
        return now;
    }
    let micros = |duration: std::time::Duration| {
        i64::try_from(duration.as_micros()).expect("the year is below 294,000")
    };
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => -micros(before.duration()),
    }
}

/// 128 random bits: identities of logs and writers, nonces.
pub(crate) fn random_u128() -> u128 {
    #[cfg(any(test, feature = "testing"))]
    if let Some(bits) = simulated::random_u128() {
        return bits;
    }
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    u128::from_le_bytes(bytes)
}

/// A number that rises from each call in this process to the next.
pub(crate) fn rising() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    #[cfg(any(test, feature = "testing"))]
    if let Some(process) = simulated::here() {
        return process.rising();
    }
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// What every task of the core is wrapped in where it is spawned: nothing, or what makes it part of a
/// simulated process, which can be paused and killed.
#[cfg(not(any(test, feature = "testing")))]
pub(crate) fn task<F: Future>(work: F) -> F {
    work
}

#[cfg(any(test, feature = "testing"))]
pub(crate) use simulated::task;

/// Does what may block where it may: on a thread of the runtime's own for that. It is done also when
/// nobody waits for it any more.
///
/// # Errors
/// It panicked, or the runtime stops.
pub(crate) async fn blocking<T: Send + 'static>(
    runtime: &Handle,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    #[cfg(any(test, feature = "testing"))]
    if let Some(pause) = simulated::disk_pause() {
        let work = async move {
            tokio::time::sleep(pause).await;
            work()
        };
        return runtime.spawn(task(work)).await;
    }
    runtime.spawn_blocking(work).await
}
