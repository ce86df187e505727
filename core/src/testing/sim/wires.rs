//! The network between simulated processes: links that move encoded frames, and everything that may
//! happen to them on the way.
//!
//! It promises what TCP does and no more. A connection brings bytes in order or breaks; what was under
//! way when it broke may still arrive. A direction that is cut holds what is sent into it until it is
//! mended, or loses the connection. A paused process gets everything once it goes on. A machine without
//! power answers nothing; one whose process ended says so. Events are kept in one queue and are brought
//! one at a time by one task, so that a seed repeats their order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::{BufMut, BytesMut};
use tokio::sync::Notify;
use virtuallog_protocol::record::crc32c;

use super::link::{SimLink, SimTransport};
use super::trace::Trace;
use crate::env::simulated::Process;
use crate::error::{Error, ErrorCode};
use crate::testing::Rng;
use crate::wire::frame::{self, Packet};
use crate::wire::messages::{Hello, Reply, Request};
use crate::wire::serve::{Answer, Caller, Handler};
use crate::wire::transport::{Done, Myself, NetError, Transport};

/// A simulated machine.
pub(super) type Host = u32;

/// How long a connection may take until it is there, in milliseconds.
const CONNECT_TIMEOUT: u64 = 2000;

/// How bad the network is. Rates are in one of ten thousand.
#[derive(Clone, Debug, Default)]
pub(super) struct Weather {
    /// Milliseconds on the way: at least, and at most in most cases.
    pub(super) delay: (u64, u64),
    /// How often a message takes ten times as long.
    pub(super) slow: u64,
    /// How often a segment is lost: it is sent again after 200 ms, and everything behind it waits.
    pub(super) loss: u64,
    /// How often a connection breaks while something is sent.
    pub(super) breaks: u64,
}

/// The network.
pub(super) struct Wires {
    trace: Arc<Trace>,
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    rng: Rng,
    weather: Weather,
    hosts: BTreeMap<Host, Machine>,
    addresses: BTreeMap<String, Host>,
    connections: BTreeMap<u64, Connection>,
    /// Connections that are over. What they hold may be the last of a server, whose end answers
    /// calls: it is dropped when this is not locked.
    over: Vec<Connection>,
    next_connection: u64,
    queue: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    /// Directions that are cut, and what waits in them.
    cut: BTreeSet<(Host, Host)>,
    held: Vec<((Host, Host), Event)>,
    /// What waits for paused processes, by their number.
    inbox: BTreeMap<u32, Vec<Event>>,
}

/// A server's process, and who answers in it.
type Listener = (Arc<Process>, Arc<dyn Handler>);

#[derive(Default)]
struct Machine {
    dark: bool,
    server: Option<Listener>,
}

struct Connection {
    from: (Host, Arc<Process>),
    to: Host,
    server: Option<(Listener, Arc<Caller>)>,
    link: Weak<SimLink>,
    calls: BTreeMap<u64, Done>,
    next_call: u64,
    /// When the last message arrives: at the server, at the client.
    last: [u64; 2],
    client_open: bool,
    server_open: bool,
    welcome: bool,
}

#[derive(Debug)]
struct Event {
    connection: u64,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The first message of a connection.
    Hello(Vec<u8>),
    /// Its answer.
    Welcome(Vec<u8>),
    Ask(BytesMut),
    Answer(BytesMut),
    /// The connection is over, as one side finds out.
    EndAtClient,
    EndAtServer,
    /// Nobody answered the greeting.
    TooLate,
}

impl What {
    fn to_server(&self) -> bool {
        matches!(self, What::Hello(_) | What::Ask(_) | What::EndAtServer)
    }

    fn kind(&self) -> (u64, &'static str) {
        match self {
            What::Hello(_) => (1, "hello"),
            What::Welcome(_) => (2, "welcome"),
            What::Ask(_) => (3, "ask"),
            What::Answer(_) => (4, "answer"),
            What::EndAtClient => (5, "end at client"),
            What::EndAtServer => (6, "end at server"),
            What::TooLate => (7, "too late"),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            What::Hello(bytes) | What::Welcome(bytes) => bytes,
            What::Ask(bytes) | What::Answer(bytes) => bytes,
            _ => &[],
        }
    }
}

/// What is to be done about an event, outside of the lock.
enum Act {
    Greet(Listener, Vec<u8>),
    Welcome(Weak<SimLink>, Vec<u8>),
    Ask(Listener, Arc<Caller>, BytesMut),
    Answer(Done, Packet),
    /// The link is down; calls are lost.
    Down(Weak<SimLink>, Vec<Done>, Error),
    Gone(Listener, Arc<Caller>),
    Nothing,
}

impl std::fmt::Debug for Wires {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wires")
    }
}

fn unreachable(why: &str) -> Error {
    Error::new(ErrorCode::Unavailable, why)
}

impl Wires {
    pub(super) fn new(trace: Arc<Trace>, rng: Rng, weather: Weather) -> Arc<Wires> {
        let state = State {
            rng,
            weather,
            hosts: BTreeMap::new(),
            addresses: BTreeMap::new(),
            connections: BTreeMap::new(),
            over: Vec::new(),
            next_connection: 1,
            queue: BTreeMap::new(),
            next_event: 0,
            cut: BTreeSet::new(),
            held: Vec::new(),
            inbox: BTreeMap::new(),
        };
        Arc::new(Wires { trace, state: Mutex::new(state), wake: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A machine with an address.
    pub(super) fn add(&self, host: Host, address: Option<&str>) {
        let mut state = self.state();
        let before = state.hosts.insert(host, Machine::default());
        if let Some(address) = address {
            state.addresses.insert(address.to_owned(), host);
        }
        drop(state);
        drop(before);
    }

    /// Links for a process.
    pub(super) fn transport(
        self: &Arc<Self>,
        host: Host,
        process: &Arc<Process>,
        myself: Myself,
    ) -> Arc<dyn Transport> {
        Arc::new(SimTransport::new(Arc::downgrade(self), host, process.clone(), myself))
    }

    /// A server listens.
    pub(super) fn listen(&self, host: Host, process: &Arc<Process>, handler: Arc<dyn Handler>) {
        let mut state = self.state();
        let machine = state.hosts.entry(host).or_default();
        machine.dark = false;
        let before = machine.server.replace((process.clone(), handler));
        drop(state);
        drop(before);
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// A process ended. `dark`: its machine lost power, so nobody is told.
    pub(super) fn ended(&self, host: Host, process: &Arc<Process>, dark: bool) {
        let now = self.trace.now();
        let mut locked = self.state();
        let state = &mut *locked;
        let server = state.hosts.get_mut(&host).and_then(|machine| {
            machine.dark = dark;
            machine.server.take()
        });
        state.inbox.remove(&process.number());
        let ours = |other: &Arc<Process>| Arc::ptr_eq(other, process);
        let mut ends = Vec::new();
        for (id, connection) in &mut state.connections {
            if ours(&connection.from.1) {
                // What it asked is of no interest to anybody.
                connection.calls.clear();
                connection.client_open = false;
                ends.push((*id, What::EndAtServer));
            } else if connection.server.as_ref().is_some_and(|((server, _), _)| ours(server)) {
                connection.server_open = false;
                ends.push((*id, What::EndAtClient));
            }
        }
        // Without power it is the next start that tells: see `lit`.
        if !dark {
            for (id, end) in ends {
                state.send(now, id, end);
            }
        }
        drop(locked);
        process.enter(|| drop(server));
        self.wake.notify_one();
    }

    /// A machine has power again: whoever believed to be connected to what ran there is told.
    pub(super) fn lit(&self, host: Host) {
        let now = self.trace.now();
        let mut state = self.state();
        let state = &mut *state;
        if let Some(machine) = state.hosts.get_mut(&host) {
            machine.dark = false;
        }
        let mut ends = Vec::new();
        for (id, connection) in &state.connections {
            if connection.to == host && connection.client_open && !connection.server_open {
                ends.push((*id, What::EndAtClient));
            }
            if connection.from.0 == host && connection.server_open && !connection.client_open {
                ends.push((*id, What::EndAtServer));
            }
        }
        for (id, end) in ends {
            state.send(now, id, end);
        }
        self.wake.notify_one();
    }

    /// Cuts one direction between two machines.
    pub(super) fn cut(&self, from: Host, to: Host) {
        self.state().cut.insert((from, to));
    }

    /// Mends all directions. What waited in them comes at once, or its connections are lost.
    pub(super) fn mend(&self) {
        let now = self.trace.now();
        let mut state = self.state();
        let state = &mut *state;
        state.cut.clear();
        let mut lost = BTreeSet::new();
        for (_, event) in std::mem::take(&mut state.held) {
            if state.rng.chance(10) && lost.insert(event.connection) {
                state.send(now, event.connection, What::EndAtClient);
                state.send(now, event.connection, What::EndAtServer);
            }
            state.push(now, event);
        }
        self.wake.notify_one();
    }

    /// A paused process goes on: it gets what waited for it.
    pub(super) fn went_on(&self, process: &Arc<Process>) {
        let now = self.trace.now();
        let mut state = self.state();
        for event in state.inbox.remove(&process.number()).unwrap_or_default() {
            state.push(now, event);
        }
        self.wake.notify_one();
    }

    /// Begins a connection. Its number.
    pub(super) fn connect(
        &self,
        from: (Host, Arc<Process>),
        address: &str,
        link: Weak<SimLink>,
        hello: Hello,
    ) -> u64 {
        let now = self.trace.now();
        let mut state = self.state();
        let id = state.next_connection;
        state.next_connection += 1;
        // Where nobody is there is nobody either.
        let to = state.addresses.get(address).copied().unwrap_or(Host::MAX);
        let connection = Connection {
            from,
            to,
            server: None,
            link,
            calls: BTreeMap::new(),
            next_call: 1,
            last: [now; 2],
            client_open: true,
            server_open: false,
            welcome: false,
        };
        state.connections.insert(id, connection);
        let hello = Packet::request(Request::Hello(hello), bytes::Bytes::new());
        state.send(now, id, What::Hello(encode(0, &hello).to_vec()));
        state.push(now + CONNECT_TIMEOUT, Event { connection: id, what: What::TooLate });
        self.wake.notify_one();
        id
    }

    /// Sends over a connection; `None`: it is a notice.
    pub(super) fn ask(&self, id: u64, packet: &Packet, done: Option<Done>) {
        let now = self.trace.now();
        let mut state = self.state();
        let state = &mut *state;
        let Some(connection) = state.connections.get_mut(&id).filter(|c| c.client_open) else {
            if let Some(done) = done {
                // It breaks as it is asked: a connection of its own stands for the call until then.
                let id = state.next_connection;
                state.next_connection += 1;
                state.connections.insert(id, Connection::orphan(done));
                state.push(now, Event { connection: id, what: What::EndAtClient });
                self.wake.notify_one();
            }
            return;
        };
        let mut call = 0;
        if let Some(done) = done {
            call = connection.next_call;
            connection.next_call += 1;
            connection.calls.insert(call, done);
        }
        state.send(now, id, What::Ask(encode(call, packet)));
        self.wake.notify_one();
    }

    fn answer(&self, id: u64, call: u64, packet: &Packet) {
        let now = self.trace.now();
        let mut state = self.state();
        if state.connections.get(&id).is_some_and(|c| c.server_open) {
            state.send(now, id, What::Answer(encode(call, packet)));
            self.wake.notify_one();
        }
    }

    /// Ends a connection from the client's side.
    pub(super) fn hang_up(&self, id: u64) {
        let now = self.trace.now();
        let mut state = self.state();
        if state.connections.contains_key(&id) {
            state.send(now, id, What::EndAtServer);
            state.push(now, Event { connection: id, what: What::EndAtClient });
            self.wake.notify_one();
        }
    }

    /// Brings events, one after the other, for ever.
    pub(super) async fn run(self: Arc<Self>) {
        loop {
            let next = self.state().queue.first_key_value().map(|((time, _), _)| *time);
            match next {
                None => self.wake.notified().await,
                Some(time) if time <= self.trace.now() => {
                    let event = self.state().queue.pop_first();
                    self.bring(event.expect("there is a first one").1);
                    // Whoever was woken runs before the next one comes.
                    tokio::task::yield_now().await;
                }
                Some(time) => {
                    tokio::select! {
                        biased;
                        () = self.wake.notified() => {}
                        () = tokio::time::sleep_until(self.trace.at(time)) => {}
                    }
                }
            }
        }
    }

    fn bring(self: &Arc<Self>, event: Event) {
        let (id, kind) = (event.connection, event.what.kind());
        let mut state = self.state();
        let Some(connection) = state.connections.get(&id) else { return };
        let hosts = (connection.from.0, connection.to);
        let path = if event.what.to_server() { hosts } else { (hosts.1, hosts.0) };
        if !matches!(event.what, What::TooLate) && state.cut.contains(&path) {
            state.held.push((path, event));
            return;
        }
        let connection = &state.connections[&id];
        let process = match event.what.to_server() {
            false => Some(connection.from.1.clone()),
            true => match (&connection.server, &event.what) {
                (Some(((process, _), _)), _) => Some(process.clone()),
                (None, What::Hello(_)) => state
                    .hosts
                    .get(&hosts.1)
                    .and_then(|machine| machine.server.as_ref())
                    .map(|(process, _)| process.clone()),
                (None, _) => None,
            },
        };
        if let Some(process) = process.filter(|process| process.is_paused()) {
            state.inbox.entry(process.number()).or_default().push(event);
            return;
        }
        let (len, crc) = (event.what.bytes().len() as u64, crc32c(event.what.bytes()));
        self.trace.event(&[kind.0, id, path.0.into(), path.1.into(), len, crc.into()], || {
            format!("{:>3} → {:<3} #{id} {} {}", path.0, path.1, kind.1, told(&event.what))
        });
        let (act, at) = state.take(self.trace.now(), event);
        let over = std::mem::take(&mut state.over);
        drop(state);
        over.into_iter().for_each(Connection::forget);
        if let Some(process) = at {
            process.enter(|| self.carry_out(id, act));
        }
        self.wake.notify_one();
    }

    /// Does what an event means, within the process that it comes to.
    fn carry_out(self: &Arc<Self>, id: u64, act: Act) {
        match act {
            Act::Nothing => {}
            Act::Greet(listener, bytes) => self.greet(id, listener, &bytes),
            Act::Welcome(link, bytes) => {
                let mut bytes = BytesMut::from(&bytes[..]);
                let Some(link) = link.upgrade() else { return };
                let (_, packet) = decode(&mut bytes);
                match packet.to_reply() {
                    Ok(Reply::Welcome(_)) => return link.up(id),
                    Ok(Reply::Failure(failure)) => link.down(id, &failure.error()),
                    _ => link.down(id, &unreachable("the other side greets in no known way")),
                }
                self.hang_up(id);
            }
            Act::Ask((_, handler), caller, mut bytes) => {
                let (call, packet) = decode(&mut bytes);
                let wires = Arc::downgrade(self);
                let answer = Answer::new(move |packet| {
                    if let Some(wires) = wires.upgrade().filter(|_| call != 0) {
                        wires.answer(id, call, &packet);
                    }
                });
                match packet.to_request() {
                    Ok(request) => handler.handle(&caller, request, packet.body, answer),
                    Err(error) => answer.refuse(&error),
                }
            }
            Act::Answer(done, packet) => done(Ok(packet)),
            Act::Down(link, calls, why) => {
                if let Some(link) = link.upgrade() {
                    link.down(id, &why);
                }
                for done in calls {
                    done(Err(NetError::Lost(why.clone())));
                }
            }
            Act::Gone((_, handler), caller) => handler.gone(&caller),
        }
    }

    fn greet(&self, id: u64, listener: Listener, bytes: &[u8]) {
        let (_, packet) = decode(&mut BytesMut::from(bytes));
        let Ok(Request::Hello(hello)) = packet.to_request() else { return };
        let welcome = listener.1.greet(&hello);
        let now = self.trace.now();
        let mut state = self.state();
        let Some(connection) = state.connections.get_mut(&id) else { return };
        let reply = match welcome {
            Ok(welcome) => {
                connection.server_open = true;
                connection.server = Some((listener, Arc::new(Caller { hello: Some(hello) })));
                Reply::Welcome(welcome)
            }
            Err(error) => Reply::refused(&error),
        };
        let reply = Packet::reply(reply, bytes::Bytes::new());
        state.send(now, id, What::Welcome(encode(0, &reply).to_vec()));
    }
}

impl Connection {
    /// Lets go of everything, each thing where it belongs.
    fn forget(self) {
        let client = self.from.1.clone();
        if let Some(((process, handler), caller)) = self.server {
            process.enter(|| drop((handler, caller)));
        }
        client.enter(|| drop(self.calls));
    }

    /// One that is over, with a call that is to be told so.
    fn orphan(done: Done) -> Connection {
        let process = crate::env::simulated::here().expect("calls come from a process");
        Connection {
            from: (0, process),
            to: 0,
            server: None,
            link: Weak::new(),
            calls: BTreeMap::from([(1, done)]),
            next_call: 2,
            last: [0; 2],
            client_open: true,
            server_open: false,
            welcome: true,
        }
    }
}

impl State {
    fn push(&mut self, time: u64, event: Event) {
        self.queue.insert((time, self.next_event), event);
        self.next_event += 1;
    }

    /// Puts a message on its way: behind those that went before it.
    fn send(&mut self, now: u64, id: u64, what: What) {
        let weather = self.weather.clone();
        let rate = |rng: &mut Rng, rate: u64| rate > 0 && rng.below(10_000) < rate;
        let (least, most) = weather.delay;
        let mut delay = least + self.rng.below(most.saturating_sub(least) + 1);
        if rate(&mut self.rng, weather.slow) {
            delay = delay * 10 + 5;
        }
        let mut again = 200;
        while rate(&mut self.rng, weather.loss) && again < 2000 {
            delay += again;
            again *= 2;
        }
        let breaks =
            matches!(what, What::Ask(_) | What::Answer(_)) && rate(&mut self.rng, weather.breaks);
        let late = self.rng.below(1500);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let last = &mut connection.last[usize::from(!what.to_server())];
        *last = (now + delay).max(*last);
        let time = *last;
        self.push(time, Event { connection: id, what });
        if breaks {
            // The server finds out later, and takes until then what still arrives.
            self.push(now, Event { connection: id, what: What::EndAtClient });
            self.push(now + late, Event { connection: id, what: What::EndAtServer });
        }
    }

    /// What an event means, and to which process it comes.
    fn take(&mut self, now: u64, event: Event) -> (Act, Option<Arc<Process>>) {
        let id = event.connection;
        let machine = &self.hosts.get(&self.connections[&id].to);
        let (listener, dark) = match machine {
            Some(machine) => (machine.server.clone(), machine.dark),
            None => (None, true),
        };
        let connection = self.connections.get_mut(&id).expect("looked up before");
        let client = connection.from.1.clone();
        let client = Some(client).filter(|client| !client.is_gone());
        let server = connection.server.as_ref().map(|((process, _), _)| process.clone());
        let server = server.filter(|server| !server.is_gone());
        match event.what {
            What::Hello(_) if !connection.client_open => (Act::Nothing, None),
            What::Hello(bytes) => match listener {
                Some(listener) => {
                    let process = listener.0.clone();
                    (Act::Greet(listener, bytes), Some(process))
                }
                None => {
                    if !dark {
                        self.send(now, id, What::EndAtClient);
                    }
                    (Act::Nothing, None)
                }
            },
            What::Welcome(bytes) if connection.client_open => {
                connection.welcome = true;
                (Act::Welcome(connection.link.clone(), bytes), client)
            }
            What::Ask(bytes) if connection.server_open => {
                let (listener, caller) = connection.server.clone().expect("it is open");
                (Act::Ask(listener, caller, bytes), server)
            }
            What::Answer(mut bytes) if connection.client_open => {
                let (call, packet) = decode(&mut bytes);
                match connection.calls.remove(&call) {
                    Some(done) => (Act::Answer(done, packet), client),
                    None => (Act::Nothing, None),
                }
            }
            What::TooLate if connection.client_open && !connection.welcome => {
                connection.client_open = false;
                let (link, why) = (connection.link.clone(), "the address does not answer");
                self.send(now, id, What::EndAtServer);
                self.tidy(id);
                (Act::Down(link, Vec::new(), unreachable(why)), client)
            }
            What::EndAtClient if connection.client_open => {
                connection.client_open = false;
                let calls = std::mem::take(&mut connection.calls).into_values().collect();
                let link = connection.link.clone();
                self.tidy(id);
                (Act::Down(link, calls, unreachable("the connection broke")), client)
            }
            What::EndAtServer if connection.server_open => {
                connection.server_open = false;
                let (listener, caller) = connection.server.clone().expect("it is open");
                self.tidy(id);
                (Act::Gone(listener, caller), server)
            }
            _ => (Act::Nothing, None),
        }
    }

    fn tidy(&mut self, id: u64) {
        if self.connections.get(&id).is_some_and(|c| !c.client_open && !c.server_open) {
            self.over.extend(self.connections.remove(&id));
        }
    }
}

fn encode(call: u64, packet: &Packet) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(packet.len());
    bytes.put_slice(&packet.prefix(call));
    bytes.put_slice(&packet.head);
    bytes.put_slice(&packet.body);
    bytes
}

fn decode(bytes: &mut BytesMut) -> (u64, Packet) {
    let taken = frame::take(bytes).expect("what was encoded here can be decoded");
    taken.expect("frames arrive whole")
}

/// A message as a reader of the trace sees it.
fn told(what: &What) -> String {
    let text = match what {
        What::Hello(bytes) | What::Welcome(bytes) => message(&mut BytesMut::from(&bytes[..])),
        What::Ask(bytes) | What::Answer(bytes) => message(&mut bytes.clone()),
        _ => String::new(),
    };
    text.chars().take(160).collect()
}

fn message(bytes: &mut BytesMut) -> String {
    let (call, packet) = decode(bytes);
    match (packet.to_request(), packet.to_reply()) {
        (Ok(request), _) => format!("{call} {request:?}"),
        (_, Ok(reply)) => format!("{call} {reply:?}"),
        _ => "unreadable".to_owned(),
    }
}
