//! The one facade below every language binding.
//!
//! A language's skin converts arguments, calls this crate, attaches a completion and converts the
//! result; whatever two languages would both have to get right lives here:
//!
//! * [`runtime`]: the executor that the core's tasks run on, never the host's, and what a `fork`
//!   does to it;
//! * [`Op`]: one operation, to be polled by any executor, waited on by any thread, or cancelled;
//! * [`CompletionQueue`]: many operations, told to a host's event loop in batches;
//! * [`Log`], [`Reader`], [`Pipeline`] and the functions on stores: the core's operations with
//!   owned, plain types, deadlines per call, and panics turned into errors;
//! * [`Server`], and the functions on clusters: the server roles inside a host, and [`Relocation`],
//!   a log on its way to another store;
//! * [`start_logs`] and [`drain_logs`]: what the core reports, for the host's own logging;
//! * [`LocalCluster`] and [`find_program`]: a cluster for tests, of the servers that the package carries;
//! * `errors.toml`: the error table that each language compares its own with, and
//!   `conformance/*.toml`: the scenarios that each language runs.
//!
//! Nothing here knows a language, and nothing here is protocol: that is the core's.

mod error;
mod local_cluster;
mod log;
mod logging;
mod op;
mod per_process;
mod pipeline;
mod programs;
mod queue;
mod reader;
mod relocation;
pub mod runtime;
mod server;

pub use error::{Error, Result, panic_guard};
pub use local_cluster::{LocalCluster, LocalNode};
pub use log::{Log, Mode, Options, Timeout, create, delete, logs};
pub use logging::{LOG_VARIABLE, LogBatch, LogLevel, LogRecord, drain_logs, start_logs};
pub use op::Op;
pub use pipeline::Pipeline;
pub use programs::{BIN_DIR_VARIABLE, find_program};
pub use queue::{CompletionQueue, Done, HostWaker, SocketWaker};
pub use reader::{Batch, Reader};
pub use relocation::{Relocation, Step};
pub use server::{Server, drain, init, nodes, remove};
pub use virtuallog::server::{ClusterInfo, NodeInfo, Roles, ServerConfig};
pub use virtuallog::{
    Appended, Chain, Entry, ErrorCode, Life, LogPos, MovePhase, MoveProgress, Next, Placement,
    Plan, Segment, Start, Tail, TrimLimit, Trimmed, VerifyReport,
};
