//! The engines: each file drives one way of ordering batches behind [`Loglet`](crate::loglet::Loglet).
//!
//! An engine sees neither the chain nor the MetaStore, and nobody above this folder names one: they
//! are found by kind, through their providers.

pub(crate) mod elsewhere;
pub mod local;
pub mod memory;
pub mod native;
