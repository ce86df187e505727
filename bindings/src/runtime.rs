//! The runtime below every handle: ours, never the host's, and what a `fork` does to it.
//!
//! It is built when the first handle is opened: min(4, cores) threads, or as many as
//! `VIRTUALLOG_RUNTIME_THREADS` says, all named `virtuallog-rt`. None of them ever runs host code.
//!
//! A child of `fork` has memory but no threads. A handler that runs in the child counts up the
//! *generation*, forgets the runtime (leaking it: its threads are gone and its locks may be held)
//! and lets go of the descriptors by which the parent's stores are locked, so that the lock ends with
//! the parent. Handles of an older generation then answer `CLOSED`; opening anew builds a new
//! runtime. The handler touches nothing but atomics and system calls, as `fork` demands.
#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::thread;

use tokio::runtime::{Builder, EnterGuard, Runtime};
use virtuallog::ErrorCode;

use crate::error::{Error, Result};

const THREADS_VARIABLE: &str = "VIRTUALLOG_RUNTIME_THREADS";
const THREADS_MAX: usize = 1024;

static RUNTIME: AtomicPtr<Runtime> = AtomicPtr::new(ptr::null_mut());
static GENERATION: AtomicU64 = AtomicU64::new(0);
static HANDLER_INSTALLED: AtomicBool = AtomicBool::new(false);

/// How many forks lie between this process and the one that loaded the library.
#[must_use]
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

/// The runtime, built now if there is none.
///
/// # Errors
/// `INVALID` for a bad `VIRTUALLOG_RUNTIME_THREADS`; `UNAVAILABLE` when no thread can be started.
pub(crate) fn runtime() -> Result<&'static Runtime> {
    // Compare and exchange and not a lock: a lock could be held by a thread that a fork loses.
    let built = RUNTIME.load(Ordering::Acquire);
    if !built.is_null() {
        // SAFETY: a pointer that was stored came from `Box::into_raw` and is never freed.
        return Ok(unsafe { &*built });
    }
    watch_forks();
    let fresh = Box::into_raw(Box::new(build()?));
    match RUNTIME.compare_exchange(ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire) {
        // SAFETY: `fresh` came from `Box::into_raw` just now and from here on is never freed.
        Ok(_) => Ok(unsafe { &*fresh }),
        Err(winner) => {
            // SAFETY: `fresh` lost, so nobody else has seen it; this gives it back to its box.
            unsafe { Box::from_raw(fresh) }.shutdown_background();
            // SAFETY: as above, what was stored is never freed.
            Ok(unsafe { &*winner })
        }
    }
}

/// Makes the runtime the current one of this thread, for core code that asks for it.
pub(crate) fn enter() -> Result<EnterGuard<'static>> {
    Ok(runtime()?.enter())
}

fn build() -> Result<Runtime> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = match std::env::var(THREADS_VARIABLE) {
        Err(_) => cores.min(4),
        Ok(text) => {
            text.parse().ok().filter(|threads| (1..=THREADS_MAX).contains(threads)).ok_or_else(
                || {
                    let range = format!("a number from 1 to {THREADS_MAX}");
                    Error::invalid(format!("`{THREADS_VARIABLE}={text}`: write {range}"))
                },
            )?
        }
    };
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("virtuallog-rt")
        .enable_all()
        .build()
        .map_err(|error| {
            let message = format!("cannot start the runtime's {threads} threads: {error}");
            Error::new(ErrorCode::Unavailable, message)
        })
}

/// From now on forks are counted.
pub(crate) fn watch_forks() {
    if HANDLER_INSTALLED.load(Ordering::Acquire) || HANDLER_INSTALLED.swap(true, Ordering::AcqRel) {
        return;
    }
    // SAFETY: `in_child` is a function of the wanted signature that lives as long as the library
    // and does only what is allowed between fork and exec: atomics and system calls.
    let status = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    assert_eq!(status, 0, "no memory for a fork handler");
}

extern "C" fn in_child() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
    RUNTIME.store(ptr::null_mut(), Ordering::Release);
    // Each descriptor is pointed at nothing rather than closed: a number that was closed would be
    // given to some file of the host's, which a fork in the child would then take away.
    // SAFETY: the path is a C string; `open`, `dup2` and `close` are allowed between fork and exec,
    // and the descriptors are the core's own, which nobody in this process uses any more.
    unsafe {
        let nothing = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        for descriptor in virtuallog::storage::lock_fds() {
            if descriptor >= 0 && nothing >= 0 {
                libc::dup2(nothing, descriptor);
            } else if descriptor >= 0 {
                libc::close(descriptor);
            }
        }
        if nothing >= 0 {
            libc::close(nothing);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_runtime_and_its_threads_are_named() {
        let first = runtime().expect("threads can be started");
        assert!(ptr::eq(first, runtime().expect("it is there")));
        let name = first.block_on(async {
            let task = tokio::spawn(async { thread::current().name().map(str::to_owned) });
            task.await.expect("it does not panic")
        });
        assert_eq!(name.as_deref(), Some("virtuallog-rt"));
    }
}
