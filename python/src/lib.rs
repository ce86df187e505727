//! The native half of the Python package: converts, calls the facade, converts back.
//!
//! Every operation is a method of `Log`, `Reader` or `Server` that gives an `Op`; the synchronous API waits
//! on it with the GIL released, the asyncio API hands it to the loop's `Queue`. Only single appends
//! have short cuts. No thread but the caller's ever runs Python code, and no task of the facade
//! holds a Python object. The public, documented classes are Python: `virtuallog/*.py`.

mod batch;
mod cluster;
mod convert;
mod entry;
mod errors;
mod log;
mod logs;
mod op;
mod queue;
mod reader;
mod value;

use pyo3::prelude::*;

/// What `virtuallog` is made of; not for direct use.
#[pymodule(gil_used = false)]
mod _native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::generation;
    #[pymodule_export]
    use crate::batch::Batch;
    #[pymodule_export]
    use crate::cluster::{
        LocalCluster, Relocation, Server, drain, find_program, init, local_cluster, nodes, remove,
        serve,
    };
    #[pymodule_export]
    use crate::entry::Entry;
    #[pymodule_export]
    use crate::log::{Log, Pipeline, create, delete, logs, open};
    #[pymodule_export]
    use crate::logs::{Logs, log_level};
    #[pymodule_export]
    use crate::op::Op;
    #[pymodule_export]
    use crate::queue::Queue;
    #[pymodule_export]
    use crate::reader::Reader;

    #[pymodule_init]
    fn fill(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("debug_build", cfg!(debug_assertions))
    }
}

/// How many forks lie between this process and the one that imported the package.
#[pyfunction]
fn generation() -> u64 {
    virtuallog_bindings::runtime::generation()
}
