//! A server in this process, what is done to a cluster, and a log on its way to another store.

use std::ffi::{CString, c_char};
use std::ptr;

use virtuallog_bindings as facade;
use virtuallog_bindings::{Error, Roles, ServerConfig};

use crate::call::{Call, Cross, answer};
use crate::error::guarded;
use crate::given;
use crate::handles::{self, Held};
use crate::results::c_string;
use crate::types::*;

/// What the program holds as a `vlog_server`.
pub struct Server {
    server: facade::Server,
    address: CString,
    url: CString,
}

impl Held for Server {
    fn name() -> &'static str {
        "server"
    }
}

impl Cross for Server {
    type C = vlog_server;

    fn cross(self) -> vlog_server {
        handles::insert(self)
    }

    fn value(crossed: &vlog_server) -> u64 {
        *crossed
    }
}

/// What the program holds as a `vlog_move`.
pub struct Relocation(facade::Relocation);

impl Held for Relocation {
    fn name() -> &'static str {
        "move"
    }
}

/// A server's configuration, read from what C gave.
///
/// # Errors
/// `INVALID`.
///
/// # Safety
/// `config` is null or leads to a `vlog_server_config`.
unsafe fn server_config(config: *const vlog_server_config) -> facade::Result<ServerConfig> {
    // SAFETY: the caller's word, here and below.
    unsafe {
        let config = given::maybe(config).ok_or_else(|| given::null("config"))?;
        let roles = given::maybe_text(config.roles, "roles")?;
        let listen = given::maybe_text(config.listen, "listen")?;
        Ok(ServerConfig {
            data: given::path(config.data, "data")?,
            listen: listen.unwrap_or("127.0.0.1:0".into()),
            advertise: given::maybe_text(config.advertise, "advertise")?,
            zone: given::maybe_text(config.zone, "zone")?.unwrap_or_default(),
            roles: roles
                .map_or(Ok(Roles::default()), |roles| roles.parse().map_err(Error::from))?,
            join: given::texts(config.join, config.join_len, "join")?,
            insecure: config.insecure,
            ..ServerConfig::default()
        })
    }
}

/// Starts a server of a cluster in this process, on threads of its own. `vlog_server_close` it, then
/// `vlog_free` it.
///
/// A server whose directory belongs to no cluster waits until `vlog_init` makes one, or joins the one of
/// `config->join`. `VLOG_UNAVAILABLE` when its port is taken.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_server_start(
    config: *const vlog_server_config,
    call: *const vlog_call,
    server: *mut vlog_server,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| {
        // SAFETY: the caller's word.
        let config = unsafe { server_config(config) }?;
        let named = |server: facade::Server| Server {
            address: c_string(server.address()),
            url: c_string(server.url()),
            server,
        };
        Ok(facade::Server::start(config, call.timeout).map(named))
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, server, error, start) }
}

/// `HOST:PORT` by which others reach it. Lives as long as the handle; NULL for a dead one.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_server_address(server: vlog_server) -> *const c_char {
    handles::get::<Server>(server).map_or(ptr::null(), |server| server.address.as_ptr())
}

/// The store of its cluster, by its address: add a log's name to open one. Lives as long as the handle; NULL
/// for a dead one.
#[unsafe(no_mangle)]
pub extern "C" fn vlog_server_url(server: vlog_server) -> *const c_char {
    handles::get::<Server>(server).map_or(ptr::null(), |server| server.url.as_ptr())
}

/// Its number in its cluster; 0 until it is part of one. `VLOG_CLOSED` once it was closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_server_node(
    server: vlog_server,
    node: *mut u32,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        if node.is_null() {
            return Err(given::null("node"));
        }
        let number = handles::get::<Server>(server)?.server.node()?;
        // SAFETY: it is not null.
        unsafe { node.write(number.unwrap_or(0)) };
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// The identity of its cluster: 32 hexadecimal digits and a zero byte, into `id`, which has room for these
/// 33; empty until it is part of one. `VLOG_CLOSED` once it was closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_server_cluster(
    server: vlog_server,
    id: *mut c_char,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        if id.is_null() {
            return Err(given::null("id"));
        }
        let cluster = handles::get::<Server>(server)?.server.cluster()?;
        let text = c_string(&cluster.map_or(String::new(), |id| format!("{id:032x}")));
        let bytes = text.as_bytes_with_nul();
        // SAFETY: it is not null, and has room by the caller's word.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), id, bytes.len()) };
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// Waits until it is part of a cluster and can be used. `VLOG_DATA_LOSS` when the others say that its disk
/// has forgotten something.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_server_ready(
    server: vlog_server,
    call: *const vlog_call,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| Ok(handles::get::<Server>(server)?.server.ready(call.timeout));
    // SAFETY: the caller's word.
    unsafe { answer(call, ptr::null_mut(), error, start) }
}

/// Hands the logs that it gives positions for to other nodes, and gets no new ones, until its directory is
/// started again. Before `vlog_server_close`, so that nobody notices that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_server_drain(
    server: vlog_server,
    call: *const vlog_call,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| Ok(handles::get::<Server>(server)?.server.drain(call.timeout));
    // SAFETY: the caller's word.
    unsafe { answer(call, ptr::null_mut(), error, start) }
}

/// Stops it and gives its directory and port back. Again: nothing happens. When time runs out it goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_server_close(
    server: vlog_server,
    call: *const vlog_call,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| Ok(handles::get::<Server>(server)?.server.close(call.timeout));
    // SAFETY: the caller's word.
    unsafe { answer(call, ptr::null_mut(), error, start) }
}

/// Makes a cluster of the servers at these addresses, which belong to none yet. Again after an
/// interruption: completes it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_init(
    addresses: *const *const c_char,
    addresses_len: usize,
    call: *const vlog_call,
    cluster: *mut vlog_cluster,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |call: &Call| {
        // SAFETY: the caller's word.
        let addresses = unsafe { given::texts(addresses, addresses_len, "addresses") }?;
        Ok(facade::init(addresses, call.timeout))
    };
    // SAFETY: the caller's word.
    unsafe { answer(call, cluster, error, start) }
}

/// The nodes of the cluster that `url`, a store or a log of it, names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_nodes(
    url: *const c_char,
    call: *const vlog_call,
    cluster: *mut vlog_cluster,
    error: *mut vlog_error,
) -> vlog_status {
    // SAFETY: the caller's word.
    let start = |call: &Call| Ok(facade::nodes(&unsafe { given::text(url, "url") }?, call.timeout));
    unsafe { answer(call, cluster, error, start) }
}

/// Hands what a node gives positions for to others, and places nothing new on it until it is started again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_drain(
    url: *const c_char,
    node: u32,
    call: *const vlog_call,
    error: *mut vlog_error,
) -> vlog_status {
    // SAFETY: the caller's word.
    let start =
        |call: &Call| Ok(facade::drain(&unsafe { given::text(url, "url") }?, node, call.timeout));
    unsafe { answer(call, ptr::null_mut(), error, start) }
}

/// Takes a node out of its cluster for good: drains it and copies what it holds to others first. As long as
/// that takes, unless `call` gives a deadline; when that passes, do it again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_remove(
    url: *const c_char,
    node: u32,
    call: *const vlog_call,
    error: *mut vlog_error,
) -> vlog_status {
    // SAFETY: the caller's word.
    let start =
        |call: &Call| Ok(facade::remove(&unsafe { given::text(url, "url") }?, node, call.timeout));
    unsafe { answer(call, ptr::null_mut(), error, start) }
}

/// Begins to move the log `src` to `dst`, a name in another store, while it is used. No entry and no position
/// changes, and open handles follow. With `leave_sealed` what is sealed stays where it is.
///
/// Ask for its steps with `vlog_move_next`, and `vlog_free` it. Freed early, it stops where it is: the log
/// is in one of both stores, whole and in use, and the same call completes it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_move_start(
    src: *const c_char,
    dst: *const c_char,
    leave_sealed: bool,
    moving: *mut vlog_move,
    error: *mut vlog_error,
) -> vlog_status {
    let body = || {
        if moving.is_null() {
            return Err(given::null("moving"));
        }
        // SAFETY: the caller's word.
        let (src, dst) = unsafe { (given::text(src, "src")?, given::text(dst, "dst")?) };
        let made = Relocation(facade::Relocation::start(&src, &dst, leave_sealed));
        // SAFETY: it is not null.
        unsafe { moving.write(handles::insert(made)) };
        Ok(())
    };
    // SAFETY: the caller's word.
    unsafe { guarded(error, body) }
}

/// Waits for the next step, for as long as it takes. After `VLOG_MOVE_DONE`, or a failure, `VLOG_CLOSED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vlog_move_next(
    moving: vlog_move,
    call: *const vlog_call,
    step: *mut vlog_move_step,
    error: *mut vlog_error,
) -> vlog_status {
    let start = |_: &Call| Ok(handles::get::<Relocation>(moving)?.0.next());
    // SAFETY: the caller's word.
    unsafe { answer(call, step, error, start) }
}
