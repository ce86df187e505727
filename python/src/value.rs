//! What operations give, in Rust until a thread with the GIL asks, then as the public classes.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;
use virtuallog_bindings as facade;
use virtuallog_bindings::{Life, MovePhase, Next, Roles, Step};

use crate::batch::Batch;
use crate::cluster::{LocalCluster, Server};
use crate::entry::Entry;
use crate::log::Log;
use crate::reader::Reader;

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
    pub(crate) fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        match self {
            Value::None => Ok(py.None().into_bound(py)),
            Value::Position(position) => Ok(position.into_pyobject(py)?.into_any()),
            Value::MaybePosition(position) => Ok(position.into_pyobject(py)?.into_any()),
            Value::Tail(tail) => class(py, "Tail")?.call1((tail.position.0, tail.sealed)),
            Value::Trimmed(trimmed) => class(py, "Trimmed")?.call1((
                trimmed.requested.0,
                trimmed.effective.0,
                trimmed.limited_by.map(|limit| limit.name()),
            )),
            Value::Appended(None) => Ok(py.None().into_bound(py)),
            Value::Appended(Some(appended)) => {
                let (first, last) = (appended.first.0, appended.last.0);
                class(py, "Appended")?.call1((first, last, appended.count))
            }
            Value::Chain(chain) => chain_into_python(py, chain),
            Value::Plan(plan) => class(py, "Plan")?.call1((
                plan.version,
                plan.from,
                plan.to,
                plan.seals_segment,
                plan.tail.0,
                plan.bytes_to_move,
                PyTuple::new(py, plan.objections)?,
                plan.before.map(|place| placement_into_python(py, &place)).transpose()?,
                plan.after.map(|place| placement_into_python(py, &place)).transpose()?,
            )),
            Value::Report(report) => class(py, "VerifyReport")?.call1((
                report.segments,
                report.entries,
                report.bytes,
                PyTuple::new(py, report.problems)?,
            )),
            Value::Entry(entry) => {
                Ok(entry.map(|entry| Entry::from_core(py, entry)).into_pyobject(py)?.into_any())
            }
            Value::Batch(batch) => Ok(Bound::new(py, Batch::new(batch))?.into_any()),
            Value::Names(names) => Ok(names.into_pyobject(py)?.into_any()),
            Value::Log(log) => Ok(Bound::new(py, Log::new(log))?.into_any()),
            Value::Reader(reader) => Ok(Bound::new(py, Reader::new(reader))?.into_any()),
            Value::Server(server) => Ok(Bound::new(py, Server::new(server))?.into_any()),
            Value::LocalCluster(cluster) => {
                Ok(Bound::new(py, LocalCluster::new(cluster))?.into_any())
            }
            Value::Cluster(cluster) => cluster_into_python(py, &cluster),
            Value::Step(Step::Done(chain)) => chain_into_python(py, chain),
            Value::Step(Step::Progress(step)) => {
                let phase = match step.phase {
                    MovePhase::Engine => "engine",
                    MovePhase::Chain => "chain",
                    MovePhase::Copy => "copy",
                    _ => "other",
                };
                let segments = (step.segments_done, step.segments_total);
                class(py, "MoveProgress")?.call1((phase, segments.0, segments.1, step.bytes_done))
            }
        }
    }
}

fn chain_into_python(py: Python<'_>, chain: facade::Chain) -> PyResult<Bound<'_, PyAny>> {
    let segment = class(py, "Segment")?;
    let segments = chain
        .segments
        .iter()
        .map(|s| segment.call1((s.index, s.start.0, s.stop.map(u64::from), &s.config.name)))
        .collect::<PyResult<Vec<_>>>()?;
    let next = chain.next.map(|next| match next {
        Next::Extend { config, .. } => config.name,
        Next::End => "end".to_owned(),
    });
    let (life, moved_to) = match chain.life {
        Life::Open => ("open", None),
        Life::Ended => ("ended", None),
        Life::Moved { url } => ("moved", Some(url)),
    };
    class(py, "Chain")?.call1((
        chain.log.to_string(),
        chain.version,
        PyTuple::new(py, segments)?,
        next,
        life,
        moved_to,
    ))
}

fn placement_into_python<'py>(
    py: Python<'py>,
    place: &facade::Placement,
) -> PyResult<Bound<'py, PyAny>> {
    class(py, "Placement")?.call1((PyTuple::new(py, &place.members)?, place.sequencer))
}

fn cluster_into_python<'py>(
    py: Python<'py>,
    cluster: &facade::ClusterInfo,
) -> PyResult<Bound<'py, PyAny>> {
    let row = class(py, "NodeInfo")?;
    let node = |node: &facade::NodeInfo| {
        row.call1((
            node.node,
            &node.address,
            &node.zone,
            PyTuple::new(py, roles(node.roles))?,
            cluster.metastore.contains(&node.node),
            node.alive,
            node.draining,
            node.sequences,
            format!("{:032x}", node.storage),
        ))
    };
    let nodes = cluster.nodes.iter().map(node).collect::<PyResult<Vec<_>>>()?;
    class(py, "ClusterInfo")?.call1((format!("{:032x}", cluster.id), PyTuple::new(py, nodes)?))
}

fn roles(roles: Roles) -> Vec<&'static str> {
    let all = [(roles.log, "log"), (roles.sequencer, "sequencer"), (roles.metastore, "metastore")];
    all.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect()
}

/// A public class of `virtuallog._types`.
fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module =
        MODULE.get_or_try_init(py, || py.import("virtuallog._types").map(Bound::unbind))?.bind(py);
    module.getattr(name)
}
