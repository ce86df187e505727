//! The pure part of `virtuallog`: what is decided here depends on arguments alone.
//!
//! This crate has no async runtime, no clock, no randomness and no I/O in its dependencies, so that
//! the same code runs in production, in a model checker, under a fuzzer and in a simulator.
//! Read in this order: [`types`] (the words), [`record`] (the bytes of a batch), [`chain`] (which
//! loglet holds which positions).

pub mod chain;
pub mod limits;
pub mod record;
pub mod types;

pub use chain::{Chain, ChainError, LogletConfig, Next, Segment};
pub use record::{Batch, BatchBuilder, BatchHeader, BatchKind, RecordError, StampedBatch};
pub use types::{LogId, LogPos, LogletId, LogletPos, Tail, WriterId};
