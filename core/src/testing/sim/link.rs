//! The client's side of simulated connections, with the manners of `wire/tcp.rs`: a link connects at
//! the first call and again after a loss, keeps the order of calls, and never sends twice.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::wires::{Host, Wires};
use crate::env::simulated::Process;
use crate::error::{Error, ErrorCode};
use crate::wire::frame::Packet;
use crate::wire::messages::{Hello, VERSION};
use crate::wire::transport::{Done, Lane, Link, Myself, NetError, Target, Transport};

/// After a failed attempt calls fail at once for so long.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// Links of one process.
pub(super) struct SimTransport {
    /// Weak here and in links: the network holds servers, which hold these.
    wires: Weak<Wires>,
    from: (Host, Arc<Process>),
    myself: Myself,
    links: Mutex<Links>,
}

/// A target, in an order of its own, and a lane.
type Key = (String, Option<(u32, u128)>, Option<u128>, Lane);

#[derive(Default)]
struct Links {
    all: BTreeMap<Key, Arc<SimLink>>,
    closed: bool,
}

impl fmt::Debug for SimTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimTransport")
    }
}

impl SimTransport {
    pub(super) fn new(
        wires: Weak<Wires>,
        host: Host,
        process: Arc<Process>,
        myself: Myself,
    ) -> SimTransport {
        SimTransport { wires, from: (host, process), myself, links: Mutex::default() }
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport for SimTransport {
    fn link(&self, to: &Target, lane: Lane) -> Arc<dyn Link> {
        let mut links = self.links();
        let closed = links.closed;
        let key = (to.address.clone(), to.member, to.cluster, lane);
        let make = || {
            Arc::new_cyclic(|weak| SimLink {
                weak: weak.clone(),
                wires: self.wires.clone(),
                from: self.from.clone(),
                myself: self.myself.clone(),
                to: to.clone(),
                lane,
                state: Mutex::new(if closed { State::Closed } else { State::Down(None) }),
            })
        };
        links.all.entry(key).or_insert_with(make).clone()
    }

    fn close(&self) {
        let links: Vec<_> = {
            let mut links = self.links();
            links.closed = true;
            links.all.values().cloned().collect()
        };
        links.iter().for_each(|link| link.close());
    }
}

/// One lane to one node.
pub(super) struct SimLink {
    weak: Weak<SimLink>,
    wires: Weak<Wires>,
    from: (Host, Arc<Process>),
    myself: Myself,
    to: Target,
    lane: Lane,
    state: Mutex<State>,
}

enum State {
    /// When it failed last, and why.
    Down(Option<(Instant, Error)>),
    /// What waits for the connection.
    Connecting(u64, Vec<(Packet, Option<Done>)>),
    Up(u64),
    Closed,
}

impl fmt::Debug for SimLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimLink({}, {:?})", self.to.address, self.lane)
    }
}

impl Link for SimLink {
    fn call(&self, request: Packet, done: Done) {
        self.send(request, Some(done));
    }

    fn tell(&self, notice: Packet) {
        self.send(notice, None);
    }
}

impl SimLink {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, packet: Packet, done: Option<Done>) {
        let Some(wires) = self.wires.upgrade() else { return };
        let mut state = self.state();
        let refusal = match &mut *state {
            State::Up(id) => return wires.ask(*id, &packet, done),
            State::Connecting(_, queue) => return queue.push((packet, done)),
            State::Closed => Error::new(ErrorCode::Closed, "the link was closed"),
            State::Down(Some((when, why))) if when.elapsed() < RETRY_AFTER => why.clone(),
            State::Down(_) => {
                let hello = Hello {
                    version: VERSION,
                    cluster: self.to.cluster.map(Into::into),
                    to: self.to.to_member(),
                    from: (self.myself)(),
                    lane: self.lane as u32,
                };
                let from = self.from.clone();
                let id = wires.connect(from, &self.to.address, self.weak.clone(), hello);
                *state = State::Connecting(id, vec![(packet, done)]);
                return;
            }
        };
        drop(state);
        if let Some(done) = done {
            done(Err(NetError::NotSent(refusal)));
        }
    }

    /// The other side greeted back.
    pub(super) fn up(&self, id: u64) {
        let Some(wires) = self.wires.upgrade() else { return };
        let mut state = self.state();
        match &mut *state {
            State::Connecting(mine, queue) if *mine == id => {
                for (packet, done) in std::mem::take(queue) {
                    wires.ask(id, &packet, done);
                }
                *state = State::Up(id);
            }
            _ => wires.hang_up(id),
        }
    }

    /// The connection is not there, or not any more.
    pub(super) fn down(&self, id: u64, why: &Error) {
        let mut state = self.state();
        let waiting = match &mut *state {
            State::Connecting(mine, queue) if *mine == id => {
                let waiting = std::mem::take(queue);
                *state = State::Down(Some((Instant::now(), why.clone())));
                waiting
            }
            State::Up(mine) if *mine == id => {
                *state = State::Down(None);
                return;
            }
            _ => return,
        };
        drop(state);
        for done in waiting.into_iter().filter_map(|(_, done)| done) {
            done(Err(NetError::NotSent(why.clone())));
        }
    }

    fn close(&self) {
        let Some(wires) = self.wires.upgrade() else { return };
        let before = std::mem::replace(&mut *self.state(), State::Closed);
        match before {
            State::Up(id) => wires.hang_up(id),
            State::Connecting(id, queue) => {
                wires.hang_up(id);
                let why = Error::new(ErrorCode::Closed, "the link was closed");
                for done in queue.into_iter().filter_map(|(_, done)| done) {
                    done(Err(NetError::NotSent(why.clone())));
                }
            }
            State::Down(_) | State::Closed => {}
        }
    }
}
