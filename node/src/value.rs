//! What operations give, in Rust until the loop's thread asks, then as JavaScript values.

use napi::Env;
use napi::bindgen_prelude::{Array, BufferSlice, Null, Result};
use napi_derive::napi;
use virtuallog_bindings as facade;
use virtuallog_bindings::{Life, MovePhase, Next, Roles, Step};

use crate::cluster::{LocalCluster, Server};
use crate::log::{Log, Reader};
use crate::queue::Answers;

/// The result of any operation.
pub(crate) enum Value {
    None,
    Position(u64),
    MaybePosition(Option<u64>),
    Tail(facade::Tail),
    Trimmed(facade::Trimmed),
    Appended(Option<facade::Appended>),
    Chain(facade::Chain),
    Plan(facade::Plan),
    Report(facade::VerifyReport),
    Entry(Option<facade::Entry>),
    Batch(facade::Batch),
    Names(Vec<String>),
    Log(facade::Log),
    Reader(facade::Reader),
    Server(facade::Server),
    LocalCluster(facade::LocalCluster),
    Cluster(facade::ClusterInfo),
    Step(Step),
}

impl Value {
    /// Makes it the element `at` of `array`. A handle answers where it was made: in `answers`.
    pub(crate) fn put(
        self,
        env: &Env,
        answers: &Answers,
        array: &mut Array<'_>,
        at: u32,
    ) -> Result<()> {
        match self {
            Value::None => array.set(at, Null),
            Value::Position(position) => array.set(at, position),
            Value::MaybePosition(position) => array.set(at, position),
            Value::Tail(tail) => {
                array.set(at, Tail { position: tail.position.0, sealed: tail.sealed })
            }
            Value::Trimmed(trimmed) => array.set(at, Trimmed::from(trimmed)),
            Value::Appended(appended) => array.set(at, appended.map(Appended::from)),
            Value::Chain(chain) => array.set(at, Chain::from(chain)),
            Value::Plan(plan) => array.set(at, Plan::from(plan)),
            Value::Report(report) => array.set(at, VerifyReport::from(report)),
            Value::Entry(entry) => array.set(at, batch(env, entry.as_slice())?),
            Value::Batch(entries) => array.set(at, batch(env, &entries)?),
            Value::Names(names) => array.set(at, names),
            Value::Log(log) => array.set(at, Log::new(log, answers.clone())),
            Value::Reader(reader) => array.set(at, Reader::new(reader, answers.clone())),
            Value::Server(server) => array.set(at, Server::new(server, answers.clone())),
            Value::LocalCluster(cluster) => {
                array.set(at, LocalCluster::new(cluster, answers.clone()))
            }
            Value::Cluster(cluster) => array.set(at, ClusterInfo::from(cluster)),
            Value::Step(Step::Done(chain)) => array.set(at, Chain::from(chain)),
            Value::Step(Step::Progress(step)) => array.set(at, MoveProgress::from(step)),
        }
    }
}

/// What went wrong, of which the package makes its error.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct Failure {
    pub code: &'static str,
    pub message: String,
    pub retryable: bool,
    pub in_doubt: bool,
    pub position: Option<u64>,
    pub token: Option<String>,
    pub causes: Vec<String>,
}

impl From<facade::Error> for Failure {
    fn from(error: facade::Error) -> Self {
        Self {
            code: error.code.name(),
            message: error.message,
            retryable: error.retryable,
            in_doubt: error.in_doubt,
            position: error.position,
            token: error.token,
            causes: error.causes,
        }
    }
}

/// Entries in one piece of memory: making an object for each is JavaScript's own work, which it is faster at.
#[napi(object, object_from_js = false)]
pub struct Batch<'env> {
    pub count: u32,
    /// For each entry its position and the writer's clock in microseconds since 1970 (which a double holds to
    /// the year 2255), in arrays of 8 bytes; where its payload ends, in one of 4; then all payloads.
    pub memory: BufferSlice<'env>,
}

/// From so many bytes on JavaScript takes the memory over as it is: that costs it more than a small copy.
const TAKEN_BYTES_MIN: usize = 4096;

fn batch<'env>(env: &'env Env, entries: &[facade::Entry]) -> Result<Batch<'env>> {
    let payloads: usize = entries.iter().map(|entry| entry.payload.len()).sum();
    let mut memory = Vec::with_capacity(20 * entries.len() + payloads);
    for entry in entries {
        memory.extend_from_slice(&entry.position.0.to_ne_bytes());
    }
    for entry in entries {
        memory.extend_from_slice(&(entry.written_at_micros as f64).to_ne_bytes());
    }
    let mut end = 0;
    for entry in entries {
        end += entry.payload.len();
        // A batch is a stretch of a few MiB at most.
        let end = u32::try_from(end).expect("a batch is not that large");
        memory.extend_from_slice(&end.to_ne_bytes());
    }
    for entry in entries {
        memory.extend_from_slice(&entry.payload);
    }
    let memory = match memory.len() {
        ..TAKEN_BYTES_MIN => BufferSlice::copy_from(env, memory)?,
        _ => BufferSlice::from_data(env, memory)?,
    };
    let count = u32::try_from(entries.len()).expect("a batch is not that large");
    Ok(Batch { count, memory })
}

/// Where a log ends.
#[napi(object, object_from_js = false)]
pub struct Tail {
    pub position: u64,
    pub sealed: bool,
}

/// What a trim did.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct Trimmed {
    pub requested: u64,
    pub effective: u64,
    pub limited_by: Option<&'static str>,
}

impl From<facade::Trimmed> for Trimmed {
    fn from(trimmed: facade::Trimmed) -> Self {
        Self {
            requested: trimmed.requested.0,
            effective: trimmed.effective.0,
            limited_by: trimmed.limited_by.map(|limit| limit.name()),
        }
    }
}

/// What `appendAll` put into the log.
#[napi(object, object_from_js = false)]
pub struct Appended {
    pub first: u64,
    pub last: u64,
    pub count: f64,
}

impl From<facade::Appended> for Appended {
    fn from(appended: facade::Appended) -> Self {
        let (first, last) = (appended.first.0, appended.last.0);
        Self { first, last, count: appended.count as f64 }
    }
}

/// Which loglet holds which positions.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct Chain {
    pub log: String,
    pub version: f64,
    pub segments: Vec<Segment>,
    pub next: Option<String>,
    pub life: &'static str,
    pub moved_to: Option<String>,
}

/// A range of positions, and what holds it.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct Segment {
    pub index: u32,
    pub start: u64,
    pub stop: Option<u64>,
    pub loglet: String,
}

impl From<facade::Chain> for Chain {
    fn from(chain: facade::Chain) -> Self {
        let segment = |segment: &facade::Segment| Segment {
            index: segment.index,
            start: segment.start.0,
            stop: segment.stop.map(u64::from),
            loglet: segment.config.name.clone(),
        };
        let segments = chain.segments.iter().map(segment).collect();
        let next = chain.next.map(|next| match next {
            Next::Extend { config, .. } => config.name,
            Next::End => "end".to_owned(),
        });
        let (life, moved_to) = match chain.life {
            Life::Open => ("open", None),
            Life::Ended => ("ended", None),
            Life::Moved { url } => ("moved", Some(url)),
        };
        let (log, version) = (chain.log.to_string(), chain.version as f64);
        Self { log, version, segments, next, life, moved_to }
    }
}

/// What an extension would do.
#[napi(object, object_from_js = false, use_nullable = true)]
pub struct Plan {
    pub version: f64,
    pub from_loglet: String,
    pub to_loglet: String,
    pub seals_segment: u32,
    pub tail: u64,
    pub bytes_to_move: f64,
    pub objections: Vec<String>,
    pub before: Option<Placement>,
    pub after: Option<Placement>,
}

/// The nodes that a loglet is on.
#[napi(object, object_from_js = false)]
pub struct Placement {
    pub members: Vec<u32>,
    pub sequencer: u32,
}

impl From<facade::Placement> for Placement {
    fn from(place: facade::Placement) -> Self {
        Self { members: place.members, sequencer: place.sequencer }
    }
}

impl From<facade::Plan> for Plan {
    fn from(plan: facade::Plan) -> Self {
        Self {
            version: plan.version as f64,
            from_loglet: plan.from,
            to_loglet: plan.to,
            seals_segment: plan.seals_segment,
            tail: plan.tail.0,
            bytes_to_move: plan.bytes_to_move as f64,
            objections: plan.objections,
            before: plan.before.map(Placement::from),
            after: plan.after.map(Placement::from),
        }
    }
}

/// What a check of the whole log found.
#[napi(object, object_from_js = false)]
pub struct VerifyReport {
    pub segments: f64,
    pub entries: f64,
    pub bytes: f64,
    pub problems: Vec<String>,
}

impl From<facade::VerifyReport> for VerifyReport {
    fn from(report: facade::VerifyReport) -> Self {
        Self {
            segments: report.segments as f64,
            entries: report.entries as f64,
            bytes: report.bytes as f64,
            problems: report.problems,
        }
    }
}

/// A cluster.
#[napi(object, object_from_js = false)]
pub struct ClusterInfo {
    pub id: String,
    pub nodes: Vec<NodeInfo>,
}

/// A node of a cluster.
#[napi(object, object_from_js = false)]
pub struct NodeInfo {
    pub node: u32,
    pub address: String,
    pub zone: String,
    pub roles: Vec<&'static str>,
    pub metastore: bool,
    pub alive: bool,
    pub draining: bool,
    pub sequences: u32,
    pub storage: String,
}

impl From<facade::ClusterInfo> for ClusterInfo {
    fn from(cluster: facade::ClusterInfo) -> Self {
        let metastore = cluster.metastore;
        let node = |node: facade::NodeInfo| NodeInfo {
            node: node.node,
            address: node.address,
            zone: node.zone,
            roles: roles(node.roles),
            metastore: metastore.contains(&node.node),
            alive: node.alive,
            draining: node.draining,
            sequences: node.sequences,
            storage: identity(node.storage),
        };
        Self { id: identity(cluster.id), nodes: cluster.nodes.into_iter().map(node).collect() }
    }
}

fn roles(roles: Roles) -> Vec<&'static str> {
    let all = [(roles.log, "log"), (roles.sequencer, "sequencer"), (roles.metastore, "metastore")];
    all.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
}

/// 32 hexadecimal digits.
pub(crate) fn identity(id: u128) -> String {
    format!("{id:032x}")
}

/// How far a log has come on its way to another store.
#[napi(object, object_from_js = false)]
pub struct MoveProgress {
    pub phase: &'static str,
    pub segments_done: f64,
    pub segments_total: f64,
    pub bytes_done: f64,
}

impl From<facade::MoveProgress> for MoveProgress {
    fn from(step: facade::MoveProgress) -> Self {
        let phase = match step.phase {
            MovePhase::Engine => "engine",
            MovePhase::Chain => "chain",
            MovePhase::Copy => "copy",
            _ => "other",
        };
        Self {
            phase,
            segments_done: step.segments_done as f64,
            segments_total: step.segments_total as f64,
            bytes_done: step.bytes_done as f64,
        }
    }
}
