//! The owner's side of a directory that several processes write to: it answers the others on a
//! socket in the directory.
//!
//! Whoever holds the lock does everything; the others (`guest.rs`) ask. The words are those of the
//! cluster: what a LogServer answers is answered by the same code, and an append goes to the tail,
//! where the store keeps each writer's order. A connection that carries appends can be made once
//! only, by whom and to which life of the owner it is meant; so nobody's later appends slip in before
//! those that were lost on the way.
//!
//! It keeps nothing open: when the directory is closed it refuses everything, registers first, and
//! only then the lock is given back.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use virtuallog_protocol::{LogId, LogletPos};

use crate::env;
use crate::error::{Error, ErrorCode, Result};
use crate::metastore::{MetaStore, Versioned};
use crate::metastores::FileMetaStore;
use crate::metastores::remote::to_reply;
use crate::server::log_server::{LogServer, storage_failure};
use crate::storage::{Done, Place, Storage};
use crate::wire::Stream;
use crate::wire::frame::get_batch;
use crate::wire::messages::{
    Append, Appended, Hello, Life, Member, MetaPut, MetaWatch, Names, Pong, Reply, Request,
    VERSION, Welcome,
};
use crate::wire::serve::{Answer, CREDIT_BYTES, Caller, Handler, serve};
use crate::wire::transport::Lane;

/// The socket, in the directory.
pub(crate) const SOCKET: &str = "socket";
/// The same before it may be used.
const SOCKET_NEW: &str = "socket.new";
/// A socket's path can be no longer, on any system.
const SOCKET_PATH_MAX: usize = 100;
/// Connections at once; each other process has up to four.
const CONNECTIONS_MAX: usize = 1024;
/// After a connection could not be taken, for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A watch of a register is answered after so long at the latest.
pub(crate) const WATCH_HOLD: Duration = Duration::from_secs(4);

/// The path of a socket as the system takes it: a long one leads through an open descriptor.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) path: String,
    _directory: Option<File>,
}

impl Address {
    /// Of `name` in `directory`.
    pub(crate) fn of(directory: &Path, name: &str) -> io::Result<Address> {
        match directory.join(name).to_str() {
            Some(path) if path.len() <= SOCKET_PATH_MAX => {
                Ok(Address { path: path.to_owned(), _directory: None })
            }
            _ => {
                let directory = File::open(directory)?;
                let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
                Ok(Address { path, _directory: Some(directory) })
            }
        }
    }
}

/// Answers other processes.
#[derive(Debug)]
pub(crate) struct Owner {
    storage: Arc<Storage>,
    metastore: Arc<FileMetaStore>,
    log_server: Arc<LogServer>,
    runtime: Handle,
    /// Of this ownership, drawn.
    life: u128,
    /// The last connection for appends of each other process.
    newest: Mutex<HashMap<u128, u64>>,
    /// Whether the directory is ours; held while a register is written.
    ours: Arc<RwLock<bool>>,
}

impl Owner {
    /// Must be called in a runtime.
    pub(crate) fn new(storage: Arc<Storage>, metastore: Arc<FileMetaStore>) -> Arc<Owner> {
        Arc::new(Owner {
            log_server: Arc::new(LogServer::new(storage.clone())),
            storage,
            metastore,
            runtime: Handle::current(),
            life: env::random_u128(),
            newest: Mutex::default(),
            ours: Arc::new(RwLock::new(true)),
        })
    }

    /// Who answers: the owner is a member of nothing, and each of its lives is another one.
    pub(crate) fn member(&self) -> Member {
        Member { node: 0, storage: self.life.into() }
    }

    fn life(&self) -> Life {
        let generation = self.storage.generation();
        Life { member: self.member(), process: self.life.into(), generation }
    }

    /// Refuses everything from now on. Blocks until a register that is being written is.
    pub(crate) fn stop(&self) {
        *self.ours.write().unwrap_or_else(PoisonError::into_inner) = false;
    }

    fn append(&self, append: &Append, body: &Bytes, answer: Answer) {
        let batch = match get_batch(body) {
            Ok(batch) => batch,
            Err(error) => return answer.refuse(&error),
        };
        let place = append.at.map_or(Place::Tail, |at| Place::At(LogletPos(at)));
        let done: Done = Box::new(move |outcome| {
            answer.reply(match outcome {
                Ok(first) => Reply::Appended(Appended { first: first.0, known_tail: 0 }),
                Err(error) => storage_failure(error),
            });
        });
        self.storage.append(append.loglet.into(), place, batch, done);
    }

    fn meta(&self, request: Request, answer: Answer) {
        let (metastore, ours) = (self.metastore.clone(), self.ours.clone());
        if let Request::MetaPut(_) = request {
            let runtime = self.runtime.clone();
            self.runtime.spawn_blocking(move || {
                let ours = ours.read().unwrap_or_else(PoisonError::into_inner);
                match *ours {
                    true => answer.reply(runtime.block_on(meta(&*metastore, request))),
                    false => answer.refuse(&gone()),
                }
            });
            return;
        }
        self.runtime.spawn(async move { answer.reply(meta(&*metastore, request).await) });
    }
}

/// Asks a MetaStore what somebody asked over a connection.
async fn meta(metastore: &dyn MetaStore, request: Request) -> Reply {
    let register = |value, version| Reply::Register(Versioned { value, version }.into());
    let outcome = match request {
        Request::MetaGet(get) => {
            metastore.get(&get.name).await.map(|found| register(found.value, found.version))
        }
        Request::MetaPut(MetaPut { name, value, expected, .. }) => {
            metastore.put_if(&name, value, expected).await.map(|version| register(None, version))
        }
        Request::MetaWatch(MetaWatch { name, after }) => {
            let watch = tokio::time::timeout(WATCH_HOLD, metastore.watch(&name, after));
            let nothing_new = Ok(Versioned { value: None, version: after });
            let found = watch.await.unwrap_or(nothing_new);
            found.map(|found| register(found.value, found.version))
        }
        _ => metastore.list().await.map(|names| Reply::Names(Names { names })),
    };
    outcome.unwrap_or_else(to_reply)
}

fn gone() -> Error {
    Error::new(ErrorCode::Closed, "the process that owned the store has closed it")
}

impl Handler for Owner {
    fn greet(&self, hello: &Hello) -> Result<Welcome> {
        let life = self.life();
        if hello.to.is_some_and(|to| to != life.member) {
            return Err(gone());
        }
        if hello.lane == Lane::Append as u32 {
            let from = hello.from.ok_or_else(|| {
                Error::invalid("a connection for appends says who speaks, and which time it is")
            })?;
            let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            let newest = newest.entry(from.process.into()).or_default();
            if from.generation <= *newest {
                let message = "the connection was lost: look for what was sent, then make another";
                return Err(Error::new(ErrorCode::Unavailable, message));
            }
            *newest = from.generation;
        }
        let credit_bytes = CREDIT_BYTES as u64;
        Ok(Welcome { version: VERSION, cluster: None, life, credit_bytes })
    }

    fn handle(&self, _from: &Caller, request: Request, body: Bytes, answer: Answer) {
        if !*self.ours.read().unwrap_or_else(PoisonError::into_inner) {
            return answer.refuse(&gone());
        }
        let server = &self.log_server;
        match request {
            Request::Append(append) => self.append(&append, &body, answer),
            Request::GetTail(loglet) => server.tail(loglet.loglet.into(), answer),
            Request::WaitTail(wait) => server.wait_tail(wait, answer),
            Request::Read(read) => server.read(read, answer),
            Request::Seal(loglet) => server.seal(loglet.loglet.into(), answer),
            Request::Trim(trim) => {
                server.trim(trim.loglet.into(), LogletPos(trim.keep_from), answer);
            }
            Request::Create(create) => {
                let (id, base, then) = (create.loglet.into(), create.base, server.clone());
                server.create(id, LogletPos(base), answer, move |answer| then.tail(id, answer));
            }
            Request::Retire(retire) => {
                let log = LogId(retire.log.into());
                server.retire(log, retire.live, retire.bound, answer);
            }
            Request::MetaGet(_)
            | Request::MetaPut(_)
            | Request::MetaWatch(_)
            | Request::MetaList(_) => self.meta(request, answer),
            Request::Ping(_) => {
                answer.reply(Reply::Pong(Pong { life: self.life(), generation: 0, votes: true }));
            }
            _ => answer.refuse(&Error::invalid("the owner of a directory is no node of a cluster")),
        }
    }

    fn gone(&self, _from: &Caller) {}
}

/// Lets other processes come, until the answer is aborted or its runtime ends. What stood in the
/// socket's place is replaced: nobody else can be listening there.
///
/// # Errors
/// What the system said. Others then find the store locked, no more.
pub(crate) fn listen(directory: &Path, owner: Arc<Owner>) -> io::Result<JoinHandle<()>> {
    let (new, path) = (directory.join(SOCKET_NEW), directory.join(SOCKET));
    let _ = fs::remove_file(&new);
    let listener = UnixListener::bind(Address::of(directory, SOCKET_NEW)?.path)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600))?;
    fs::rename(&new, &path)?;
    Ok(owner.runtime.clone().spawn(run(listener, owner)))
}

/// Nobody finds the socket any more; who is connected stays so.
pub(crate) fn hide(directory: &Path) {
    let _ = fs::remove_file(directory.join(SOCKET));
}

async fn run(listener: UnixListener, owner: Arc<Owner>) {
    let listener = match tokio::net::UnixListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "other processes cannot write to the store"),
    };
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(room) = free.clone().try_acquire_owned() else {
            tracing::warn!("a connection was refused: {CONNECTIONS_MAX} are open");
            continue;
        };
        let handler: Arc<dyn Handler> = owner.clone();
        connections.spawn(async move {
            let _room = room;
            if let Err(error) = serve(Stream::Unix(stream), handler).await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
}
