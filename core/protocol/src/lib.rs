//! The pure part of `virtuallog`: what is decided here depends on arguments alone.
//!
//! This crate has no async runtime, no clock, no randomness and no I/O in its dependencies, so that
//! the same code runs in production, in a model checker, under a fuzzer and in a simulator.
//! Read in this order: [`types`] (the words), [`record`] (the bytes of a batch), [`chain`] (which
//! loglet holds which positions). NativeLoglet is [`log_server`] (what a server takes), [`sequencer`]
//! (what goes where), [`tail_quorum`] and [`repair`] (where it ends).

pub mod chain;
pub mod fields;
pub mod limits;
pub mod log_server;
pub mod paxos;
pub mod planted;
pub mod record;
pub mod repair;
pub mod sequencer;
pub mod tail_quorum;
pub mod types;
mod writers;

pub use chain::{Chain, ChainError, LogletConfig, Next, Segment};
pub use record::{Batch, BatchBuilder, BatchHeader, BatchKind, RecordError, StampedBatch};
pub use types::{LogId, LogPos, LogletId, LogletPos, Tail, WriterId};
