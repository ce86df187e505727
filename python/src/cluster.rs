//! A server in this process, the functions on clusters, and a log on its way to another store.

use std::path::PathBuf;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use virtuallog_bindings as facade;
use virtuallog_bindings::{Roles, ServerConfig};

use crate::convert;
use crate::errors::{exception, invalid};
use crate::log::text;
use crate::op::Op;
use crate::value::Value;

/// A running server.
#[pyclass(frozen, module = "virtuallog._native")]
pub(crate) struct Server(facade::Server);

impl Server {
    pub(crate) fn new(server: facade::Server) -> Self {
        Self(server)
    }
}

#[pymethods]
impl Server {
    #[getter]
    fn address(&self) -> &str {
        self.0.address()
    }

    #[getter]
    fn url(&self) -> &str {
        self.0.url()
    }

    fn node(&self, py: Python<'_>) -> PyResult<Option<u32>> {
        self.0.node().map_err(|error| exception(py, error))
    }

    /// 32 hexadecimal digits.
    fn cluster(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let cluster = self.0.cluster().map_err(|error| exception(py, error))?;
        Ok(cluster.map(|id| format!("{id:032x}")))
    }

    fn ready(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        Ok(Op::new(self.0.ready(convert::timeout(timeout)?), |()| Value::None))
    }

    fn drain(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        Ok(Op::new(self.0.drain(convert::timeout(timeout)?), |()| Value::None))
    }

    fn close(&self, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        Ok(Op::new(self.0.close(convert::timeout(timeout)?), |()| Value::None))
    }
}

/// A cluster for tests.
#[pyclass(frozen, module = "virtuallog._native")]
pub(crate) struct LocalCluster(facade::LocalCluster);

impl LocalCluster {
    pub(crate) fn new(cluster: facade::LocalCluster) -> Self {
        Self(cluster)
    }
}

#[pymethods]
impl LocalCluster {
    #[getter]
    fn url(&self) -> &str {
        self.0.url()
    }

    /// For each node its number, address, directory, and the number of its process or `None`.
    #[expect(clippy::type_complexity, reason = "a row, which Python gives names")]
    fn nodes(&self, py: Python<'_>) -> PyResult<Vec<(u32, String, PathBuf, Option<u32>)>> {
        let nodes = self.0.nodes().map_err(|error| exception(py, error))?;
        Ok(nodes.into_iter().map(|n| (n.node, n.address, n.directory, n.pid)).collect())
    }

    fn stop(&self, nodes: Vec<u32>) -> Op {
        Op::new(self.0.stop_nodes(nodes), |()| Value::None)
    }

    fn start(&self, nodes: Vec<u32>, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
        Ok(Op::new(self.0.start_nodes(nodes, convert::timeout(timeout)?), |()| Value::None))
    }

    fn close(&self) -> Op {
        Op::new(self.0.close(), |()| Value::None)
    }
}

/// Starts a cluster for tests, of the programs in the folder `packaged`.
#[pyfunction]
pub(crate) fn local_cluster(
    nodes: &Bound<'_, PyAny>,
    directory: Option<PathBuf>,
    packaged: PathBuf,
    timeout: &Bound<'_, PyAny>,
) -> PyResult<Op> {
    let (nodes, timeout) = (number(nodes)?, convert::timeout(timeout)?);
    let starting = facade::LocalCluster::start(nodes, directory, vec![packaged], timeout);
    Ok(Op::new(starting, Value::LocalCluster))
}

/// The path of a program that belongs to this library.
#[pyfunction]
pub(crate) fn find_program(py: Python<'_>, name: &str, packaged: PathBuf) -> PyResult<PathBuf> {
    let found = py.detach(|| facade::find_program(name, &[packaged]));
    found.map_err(|error| exception(py, error))
}

/// A log on its way.
#[pyclass(frozen, module = "virtuallog._native")]
pub(crate) struct Relocation(facade::Relocation);

#[pymethods]
impl Relocation {
    #[new]
    fn new(src: &Bound<'_, PyAny>, dst: &Bound<'_, PyAny>, leave_sealed: bool) -> PyResult<Self> {
        Ok(Self(facade::Relocation::start(&text(src)?, &text(dst)?, leave_sealed)))
    }

    /// The next step: progress, or at last the chain.
    fn next(&self) -> Op {
        Op::new(self.0.next(), Value::Step)
    }
}

/// Starts a server.
#[expect(clippy::too_many_arguments, reason = "as many as Python's own function has")]
#[pyfunction]
pub(crate) fn serve(
    data: PathBuf,
    listen: String,
    advertise: Option<String>,
    zone: String,
    roles: &Bound<'_, PyAny>,
    join: &Bound<'_, PyAny>,
    insecure: bool,
    timeout: &Bound<'_, PyAny>,
) -> PyResult<Op> {
    let py = roles.py();
    let roles = strings(roles, "roles")?.join(",").parse::<Roles>();
    let roles = roles.map_err(|error| exception(py, error.into()))?;
    let join = strings(join, "join")?;
    let config = ServerConfig {
        data,
        listen,
        advertise,
        zone,
        roles,
        join,
        insecure,
        ..ServerConfig::default()
    };
    Ok(Op::new(facade::Server::start(config, convert::timeout(timeout)?), Value::Server))
}

/// Makes a cluster.
#[pyfunction]
pub(crate) fn init(addresses: &Bound<'_, PyAny>, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
    let addresses = strings(addresses, "addresses")?;
    Ok(Op::new(facade::init(addresses, convert::timeout(timeout)?), Value::Cluster))
}

/// The nodes of a cluster.
#[pyfunction]
pub(crate) fn nodes(url: &Bound<'_, PyAny>, timeout: &Bound<'_, PyAny>) -> PyResult<Op> {
    Ok(Op::new(facade::nodes(&text(url)?, convert::timeout(timeout)?), Value::Cluster))
}

/// Drains a node.
#[pyfunction]
pub(crate) fn drain(
    url: &Bound<'_, PyAny>,
    node: &Bound<'_, PyAny>,
    timeout: &Bound<'_, PyAny>,
) -> PyResult<Op> {
    let (node, timeout) = (number(node)?, convert::timeout(timeout)?);
    Ok(Op::new(facade::drain(&text(url)?, node, timeout), |()| Value::None))
}

/// Takes a node out of its cluster.
#[pyfunction]
pub(crate) fn remove(
    url: &Bound<'_, PyAny>,
    node: &Bound<'_, PyAny>,
    timeout: &Bound<'_, PyAny>,
) -> PyResult<Op> {
    let (node, timeout) = (number(node)?, convert::timeout(timeout)?);
    Ok(Op::new(facade::remove(&text(url)?, node, timeout), |()| Value::None))
}

fn number(node: &Bound<'_, PyAny>) -> PyResult<u32> {
    u32::try_from(convert::whole(node, "a node's number")?)
        .map_err(|_| invalid(node.py(), "a node's number is below 2^32"))
}

/// A string would otherwise be taken for its letters.
fn strings(objects: &Bound<'_, PyAny>, what: &str) -> PyResult<Vec<String>> {
    if objects.is_instance_of::<PyString>() || objects.is_instance_of::<PyBytes>() {
        return Err(PyTypeError::new_err(format!("{what}: an iterable of str, not a single one")));
    }
    objects.try_iter()?.map(|object| object?.extract()).collect()
}
