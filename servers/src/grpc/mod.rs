//! The log for everyone: a gRPC service over the logs of one store.
//!
//! What it promises is written down in `servers/proto/virtuallog_v1.proto`, line by line, because that
//! file is all that its users see. It adds nothing to the log's rules: each call opens a log, calls one
//! operation of the crate `virtuallog` and converts what comes back. It knows a store by its URL;
//! [`serve`] is handed connections and listens nowhere itself.
//!
//! Reading order: `gateway` (the open logs), `service` (the calls), `appends` (the one stream that
//! writes), `cluster` (the calls about nodes), `status` (errors), `serve` (the connections).

mod gateway;
mod service;
mod appends;
mod cluster;
mod status;
mod serve;

pub use gateway::Gateway;
pub use serve::serve;

/// Messages, client and server as generated from `servers/proto/virtuallog_v1.proto`.
///
/// Checked in, so that a build needs no `protoc`; `servers/tests/grpc_generated.rs` keeps it true and
/// says how to write it anew.
pub mod proto {
    include!("generated/virtuallog.v1.rs");

    /// What server reflection tells: the `.proto` file without its comments, encoded.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/virtuallog.v1.bin");
}
