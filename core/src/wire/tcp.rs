//! Links over sockets, from the side that asks.
//!
//! A connection begins with a magic word and a greeting in which both sides say who they are; a node
//! that is not the one that was meant is never asked anything. Answers are brought by the task that
//! reads, straight to the callback.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::MAGIC;
use super::frame::Packet;
use super::messages::{Hello, Reply, Request, VERSION, Welcome};
use super::stream::{Inbox, Outbox, Stream};
use super::transport::{Done, Lane, Link, Myself, NetError, Target, Transport};
use crate::error::{Error, ErrorCode, Result};

/// How long a connection may take until it is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failed attempt calls fail at once for so long.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// Bytes that may wait for a connection.
const CONNECT_BYTES_MAX: usize = 64 << 20;

/// Links over TCP and Unix sockets.
pub(crate) struct TcpTransport {
    runtime: Handle,
    /// Where links for batches live.
    batches: Handle,
    myself: Myself,
    links: Mutex<HashMap<(Target, Lane), Arc<TcpLink>>>,
    closed: AtomicBool,
}

impl TcpTransport {
    /// Its tasks run on the runtime that this is called in.
    pub(crate) fn new(myself: Myself) -> Self {
        let (links, closed) = (Mutex::default(), AtomicBool::new(false));
        let (runtime, batches) = (Handle::current(), Handle::current());
        Self { runtime, batches, myself, links, closed }
    }

    /// Those links that batches go over live on another runtime.
    pub(crate) fn with_batches_on(self, batches: Handle) -> Self {
        Self { batches, ..self }
    }
}

impl fmt::Debug for TcpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TcpTransport")
    }
}

impl Transport for TcpTransport {
    fn link(&self, to: &Target, lane: Lane) -> Arc<dyn Link> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody will use those to a node's former address again.
        links.retain(|_, link| Arc::strong_count(link) > 1 || link.is_up());
        let make = || {
            Arc::new_cyclic(|weak| TcpLink {
                weak: weak.clone(),
                runtime: match lane {
                    Lane::Append => self.batches.clone(),
                    Lane::Control | Lane::Read => self.runtime.clone(),
                },
                myself: self.myself.clone(),
                to: to.clone(),
                lane,
                state: Mutex::new(match self.closed.load(Ordering::Acquire) {
                    false => State::Down(None),
                    true => State::Closed,
                }),
            })
        };
        links.entry((to.clone(), lane)).or_insert_with(make).clone()
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let links: Vec<_> = {
            let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.values().cloned().collect()
        };
        for link in links {
            link.close();
        }
    }
}

struct TcpLink {
    weak: std::sync::Weak<TcpLink>,
    runtime: Handle,
    myself: Myself,
    to: Target,
    lane: Lane,
    state: Mutex<State>,
}

enum State {
    /// When it failed last, and why.
    Down(Option<(Instant, Error)>),
    /// What waits for the connection, and how many bytes.
    Connecting(Vec<(Packet, Option<Done>)>, usize),
    Up(Arc<Connection>),
    /// For good.
    Closed,
}

impl fmt::Debug for TcpLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TcpLink({}, {:?})", self.to.address, self.lane)
    }
}

impl Link for TcpLink {
    fn call(&self, request: Packet, done: Done) {
        self.send(request, Some(done));
    }

    fn tell(&self, notice: Packet) {
        self.send(notice, None);
    }
}

impl TcpLink {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_up(&self) -> bool {
        matches!(&*self.state(), State::Up(_))
    }

    fn send(&self, packet: Packet, done: Option<Done>) {
        let mut state = self.state();
        let refusal = match &mut *state {
            State::Up(connection) => {
                let connection = connection.clone();
                drop(state);
                return connection.send(packet, done);
            }
            State::Connecting(queue, bytes) if *bytes + packet.len() <= CONNECT_BYTES_MAX => {
                *bytes += packet.len();
                return queue.push((packet, done));
            }
            State::Connecting(..) => busy(),
            State::Closed => closed(),
            State::Down(Some((when, why))) if when.elapsed() < RETRY_AFTER => why.clone(),
            State::Down(_) => {
                let bytes = packet.len();
                *state = State::Connecting(vec![(packet, done)], bytes);
                let link = self.weak.upgrade().expect("it is in use");
                self.runtime.spawn(async move { link.connect().await });
                return;
            }
        };
        drop(state);
        if let Some(done) = done {
            done(Err(NetError::NotSent(refusal)));
        }
    }

    async fn connect(self: Arc<Self>) {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.greet()).await;
        let connected = connected.unwrap_or_else(|_| {
            let message = format!("{} does not answer", self.to.address);
            Err(Error::new(ErrorCode::Unavailable, message))
        });
        let (failed, why) = match connected {
            Ok((stream, inbox, welcome)) => {
                let credit = welcome.credit_bytes as usize;
                let link = self.weak.clone();
                let connection =
                    Connection::start(&self.runtime, &stream, inbox, credit, move |why| {
                        tracing::debug!(%why, "a connection ended");
                        if let Some(link) = link.upgrade() {
                            let mut state = link.state();
                            if let State::Up(_) = &*state {
                                *state = State::Down(None);
                            }
                        }
                    });
                return self.bring_up(connection);
            }
            Err(why) => {
                let mut state = self.state();
                let State::Connecting(queue, _) = &mut *state else { return };
                let queue = std::mem::take(queue);
                *state = State::Down(Some((Instant::now(), why.clone())));
                (queue, why)
            }
        };
        for done in failed.into_iter().filter_map(|(_, done)| done) {
            done(Err(NetError::NotSent(why.clone())));
        }
    }

    /// In order: what waited for the connection, then what comes now. Nothing is sent under the lock,
    /// since a callback may call again.
    fn bring_up(&self, connection: Arc<Connection>) {
        loop {
            let waiting = {
                let mut state = self.state();
                let State::Connecting(queue, bytes) = &mut *state else {
                    drop(state);
                    return connection.end();
                };
                if queue.is_empty() {
                    // It may have ended already; whoever notes that later finds it up.
                    *state = match connection.is_lost() {
                        true => State::Down(None),
                        false => State::Up(connection),
                    };
                    return;
                }
                *bytes = 0;
                std::mem::take(queue)
            };
            for (packet, done) in waiting {
                connection.send(packet, done);
            }
        }
    }

    async fn greet(&self) -> Result<(Arc<Stream>, Inbox, Welcome)> {
        let stream = Arc::new(Stream::connect(&self.to.address).await?);
        let outbox = Arc::new(Outbox::new(stream.clone()));
        let hello = Request::Hello(Hello {
            version: VERSION,
            cluster: self.to.cluster.map(Into::into),
            to: self.to.to_member(),
            from: (self.myself)(),
            lane: self.lane as u32,
        });
        outbox.raw(&MAGIC)?;
        outbox.frame(0, &Packet::request(hello, bytes::Bytes::new()))?;
        let mut inbox = Inbox::new(stream.clone());
        let writes = outbox.clone();
        // The greeting may not fit into a socket that is not ready yet.
        let answer = tokio::select! {
            biased;
            answer = inbox.frame() => answer.map_err(|why| other_protocol(&self.to.address, why))?.1,
            why = writes.run() => return Err(why),
        };
        match answer.to_reply()? {
            Reply::Welcome(welcome) => Ok((stream, inbox, welcome)),
            Reply::Failure(failure) => Err(failure.error()),
            _ => Err(Error::new(ErrorCode::Incompatible, "the other side greets in no known way")),
        }
    }
}

/// What came as a greeting and is no frame was said by no server of ours.
fn other_protocol(address: &str, why: Error) -> Error {
    if why.code() != ErrorCode::TooLarge {
        return why;
    }
    let message =
        format!("what answers at {address} speaks another protocol: is it a virtuallogd?");
    Error::new(ErrorCode::Incompatible, message).with_source(why)
}

fn closed() -> Error {
    Error::new(ErrorCode::Closed, "the link was closed")
}

fn busy() -> Error {
    Error::new(ErrorCode::Busy, "too much waits for this node already: try again")
}

/// One connection, from greeting to loss.
struct Connection {
    outbox: Outbox,
    pending: Mutex<Pending>,
    next_id: AtomicU64,
    /// Bytes that the other side lets be unanswered, and those that are.
    credit: usize,
    used: AtomicUsize,
    tasks: Mutex<Vec<AbortHandle>>,
}

#[derive(Default)]
struct Pending {
    calls: HashMap<u64, (Done, usize)>,
    lost: Option<Error>,
}

impl Connection {
    fn start(
        runtime: &Handle,
        stream: &Arc<Stream>,
        mut inbox: Inbox,
        credit: usize,
        down: impl FnOnce(Error) + Send + 'static,
    ) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            outbox: Outbox::new(stream.clone()),
            pending: Mutex::default(),
            next_id: AtomicU64::new(1),
            credit,
            used: AtomicUsize::new(0),
            tasks: Mutex::default(),
        });
        let this = connection.clone();
        let task = runtime.spawn(async move {
            let why = tokio::select! {
                biased;
                why = this.read(&mut inbox) => why,
                why = this.outbox.run() => why,
            };
            // Noted first, then down: whoever is told of the loss may call again at once.
            this.pending().lost.get_or_insert_with(|| why.clone());
            down(why.clone());
            this.lose(&why);
        });
        connection.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
        connection
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it from this side.
    fn end(&self) {
        for task in self.tasks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            task.abort();
        }
        self.lose(&closed());
    }

    fn is_lost(&self) -> bool {
        self.pending().lost.is_some()
    }

    fn send(&self, packet: Packet, done: Option<Done>) {
        let Some(done) = done else {
            // A notice: if it is lost, so it is.
            let _ = self.outbox.frame(0, &packet);
            return;
        };
        let size = packet.len();
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        {
            let mut pending = self.pending();
            let refusal = match &pending.lost {
                Some(why) => Some(why.clone()),
                // One message always goes, however large.
                None => {
                    let used = self.used.load(Ordering::Relaxed);
                    (used > 0 && used + size > self.credit).then(busy)
                }
            };
            if let Some(why) = refusal {
                drop(pending);
                return done(Err(NetError::NotSent(why)));
            }
            self.used.fetch_add(size, Ordering::Relaxed);
            pending.calls.insert(id, (done, size));
        }
        if let Err(why) = self.outbox.frame(id, &packet) {
            self.lose(&why);
        }
    }

    async fn read(&self, inbox: &mut Inbox) -> Error {
        loop {
            let (id, packet) = match inbox.frame().await {
                Ok(frame) => frame,
                Err(why) => return why,
            };
            let call = self.pending().calls.remove(&id);
            if let Some((done, size)) = call {
                self.used.fetch_sub(size, Ordering::Relaxed);
                done(Ok(packet));
            }
        }
    }

    /// Nothing more comes: everybody who waits is told.
    fn lose(&self, why: &Error) {
        self.outbox.close(why.clone());
        let calls = {
            let mut pending = self.pending();
            pending.lost.get_or_insert_with(|| why.clone());
            std::mem::take(&mut pending.calls)
        };
        for (done, _) in calls.into_values() {
            done(Err(NetError::Lost(why.clone())));
        }
    }
}

impl TcpLink {
    /// Whoever waits for an answer is told that it is lost.
    fn close(&self) {
        let before = std::mem::replace(&mut *self.state(), State::Closed);
        match before {
            State::Up(connection) => connection.end(),
            State::Connecting(queue, _) => {
                for done in queue.into_iter().filter_map(|(_, done)| done) {
                    done(Err(NetError::NotSent(closed())));
                }
            }
            State::Down(_) | State::Closed => {}
        }
    }
}

impl Drop for TcpLink {
    fn drop(&mut self) {
        self.close();
    }
}
