//! A cluster of processes on this machine, for the tests of applications: the facade's, of the programs that
//! were installed with this library.

use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use virtuallog_bindings as facade;

use crate::call::{Call, Cross, answer};
use crate::error::guarded;
use crate::given;
use crate::handles::{self, Held};
use crate::results::c_string;
use crate::types::*;

/// What the program holds as a `vlog_local_cluster`.
pub struct LocalCluster {
    cluster: facade::LocalCluster,
    url: CString,
}

impl Held for LocalCluster {
    fn name() -> &'static str {
        "local cluster"
    }

    fn freed(&self) {
        // Not when the last call on it is over, but now. Nothing of it fails.
        let _ = self.cluster.close().wait();
    }
}

impl Cross for facade::LocalCluster {
    type C = vlog_local_cluster;

    fn cross(self) -> vlog_local_cluster {
        let url = c_string(self.url());
        handles::insert(LocalCluster { cluster: self, url })
    }

    fn value(crossed: &vlog_local_cluster) -> u64 {
        *crossed
    }
}

/// Where the programs are put: by `make install`, and as Cargo builds them, the last for its tests.
fn packaged() -> Vec<PathBuf> {
    let library = library();
    let here = library.as_deref().and_then(Path::parent).unwrap_or(Path::new("."));
    vec![here.join("../bin"), here.to_owned(), here.join("..")]
}

/// The file that this code was loaded from.
fn library() -> Option<PathBuf> {
    let mut told = std::mem::MaybeUninit::<libc::Dl_info>::uninit();
    let here = (library as fn() -> Option<PathBuf>) as *const libc::c_void;
    // SAFETY: `here` is an address in this code, and `told` can be written to; it is looked at only where
    // the call says that it filled it.
    let path = unsafe {
        if libc::dladdr(here, told.as_mut_ptr()) == 0 {
            return None;
        }
        CStr::from_ptr(told.assume_init().dli_fname)
    };
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    path.canonicalize().ok()
}

/// Starts a cluster of so many `virtuallogd` processes (1 to 64) on loopback, for tests. They are those that
/// were installed with this library, and of its version; the variable `VIRTUALLOG_BIN_DIR` names another
/// folder. Up when it answers, in about a second; by default it may take a minute.
///
/// `dir`: where their directories are made, and stay; NULL: in a temporary one that is removed. `vlog_free`
/// it, which ends them; they end also when this process does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_local_cluster_start(
    nodes: u32,
    dir: *const c_char,
    call: *const vlog_call,
    cluster: *mut vlog_local_cluster,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| {
        // SAFETY: the caller's word.
        let dir = (!dir.is_null()).then(|| unsafe { given::path(dir, "dir") }).transpose()?;
        Ok(facade::LocalCluster::start(nodes, dir, packaged(), call.timeout))
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, cluster, error, start) }
}

/// The store, by the addresses of all nodes: add a log's name to open one. Lives as long as the handle; NULL
/// for a dead one.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_local_cluster_url(cluster: vlog_local_cluster) -> *const c_char {
    handles::get::<LocalCluster>(cluster).map_or(ptr::null(), |cluster| cluster.url.as_ptr())
}

/// All nodes as they are now, those that were stopped too. `vlog_free` the result's owner. `VLOG_CLOSED` for a
/// cluster that was freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_local_cluster_nodes(
    cluster: vlog_local_cluster,
    nodes: *mut vlog_local_nodes,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        if nodes.is_null() {
            return Err(given::null("nodes"));
        }
        let all = handles::get::<LocalCluster>(cluster)?.cluster.nodes()?;
        // SAFETY: it is not null.
        unsafe { nodes.write(all.cross()) };
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// Kills a node as it stands; they are numbered from 1. `VLOG_INVALID` when it does not run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_local_cluster_stop(
    cluster: vlog_local_cluster,
    node: u32,
    call: *const vlog_call,
    error: *mut vlog_error,
) -> vlog_status {
    let stop = |_: &Call| Ok(handles::get::<LocalCluster>(cluster)?.cluster.stop_nodes(vec![node]));
    // SAFETY: the caller's word.
    unsafe { answer(call, ptr::null_mut(), error, stop) }
}

/// Starts a node that was stopped, on its directory and address, and waits until it is ready.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_local_cluster_restart(
    cluster: vlog_local_cluster,
    node: u32,
    call: *const vlog_call,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| {
        Ok(handles::get::<LocalCluster>(cluster)?.cluster.start_nodes(vec![node], call.timeout))
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, ptr::null_mut(), error, start) }
}
