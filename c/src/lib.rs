//! The C library: converts, calls the facade, converts back.
//!
//! Every operation is one function, in two modes: it waits, or it is given a queue and returns. That
//! choice, deadlines, errors and panics are handled in one place, [`call::answer`]; a function here names
//! its arguments and the facade's operation. Whatever a program holds is a key into one table
//! ([`handles`]), so that a handle that was freed, or is of another kind, is an answer and not a crash.
//!
//! Read [`types`], [`handles`], [`given`], [`call`], [`results`], then [`log`]. What a C programmer has
//! to know is in the preamble of `virtuallog.h`, which is `header.h` and then generated from here.
#![allow(unsafe_code)]
#![allow(non_camel_case_types, reason = "the names are C's")]
#![allow(
    clippy::missing_safety_doc,
    reason = "the header's preamble has the rules for all functions"
)]

pub mod append;
pub mod call;
pub mod cluster;
pub mod diagnostics;
pub mod error;
pub mod given;
pub mod handles;
pub mod local_cluster;
pub mod log;
pub mod queue;
pub mod reader;
pub mod results;
pub mod types;
