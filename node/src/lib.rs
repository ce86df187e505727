//! The native half of the Node.js package: converts, calls the facade, converts back.
//!
//! Every operation is a method that submits it to its thread's [`queue`] and gives its tag; the answers come
//! out of the queue in batches, with one wake-up of the event loop for each. No thread but the one that
//! JavaScript runs on ever touches a JavaScript value, and none of ours blocks it.
//!
//! Arguments come checked: the public, documented classes are TypeScript (`ts/*.ts`), and only they call in
//! here. What remains to fail is told as a value ([`value::Failure`]), of which they make the error.

#![allow(
    unreachable_pub,
    reason = "what is exported to JavaScript has to be `pub`, and to Rust nothing is"
)]
#![cfg_attr(test, allow(dead_code, reason = "under test nothing is exported"))]

mod cluster;
mod convert;
mod log;
mod logs;
mod queue;
mod value;

use napi_derive::napi;

/// The version of everything, which the package compares with its own.
#[napi]
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Whether it was built to find bugs, and is slow.
#[napi]
pub const DEBUG_BUILD: bool = cfg!(debug_assertions);
