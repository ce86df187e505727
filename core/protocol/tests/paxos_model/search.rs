//! The search: all states that a scenario comes to, and what must hold in each.
//!
//! States are kept as numbers of their parts, which few states do not share; what an event does to the
//! parts is worked out once.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use bytes::Bytes;
use virtuallog_protocol::paxos::{
    Acceptor, Action, Ask, Attempt, CatchUp, Member, Outcome, PaxosRequest, Persist, Planted,
    Proposer, Put, Reader, Reading, Recall, Registers, Tell,
};

const CLUSTER: u128 = 7;
/// The one register.
const NAME: &str = "x";
/// The instance of the first state; nothing is asked for before the one after it.
const FIRST: u64 = 1;
const SLOTS_MAX: usize = 4;
const CLIENTS_MAX: usize = 3;
/// Instances that a scenario comes to, and versions of the register, at most.
const INSTANCES_MAX: usize = 6;
/// Ends a search that was made too large by mistake.
const STATES_MAX: usize = 6_000_000;

pub(crate) fn member(node: u32) -> Member {
    Member::new(node, u128::from(node))
}

/// A server's acceptor, and what its disk would give back.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Slot {
    live: Acceptor,
    durable: Acceptor,
    unsynced: Vec<Persist>,
}

impl Slot {
    fn step(&mut self, request: PaxosRequest) -> Option<Tell> {
        let step = self.live.step(request);
        self.unsynced.extend(step.persist);
        if step.sync {
            for persist in self.unsynced.drain(..) {
                self.durable.replay(persist).expect("records follow from one another");
            }
        }
        step.reply.tell
    }
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    Put(Put),
    Read,
    Members(Vec<Member>),
}

/// What a client was told of the register.
#[derive(Clone)]
struct Shown {
    version: u64,
    /// What it held then, if that was told.
    value: Option<Option<Bytes>>,
    /// The version that the client replaced.
    replaced: Option<u64>,
}

/// A request on its way to anybody. With an attempt, the answer is for the proposer.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Message {
    client: usize,
    attempt: Option<Attempt>,
    request: PaxosRequest,
}

/// The driver's part: operations one after the other, each until it is answered.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Client {
    node: Acceptor,
    proposer: Proposer,
    ops: VecDeque<Op>,
    /// How many more attempts it makes.
    attempts: u8,
    reader: Option<Reader>,
    /// What had been shown to anybody when the read began.
    floor: u8,
}

/// What a step of a client leads to.
#[derive(Clone, Default)]
struct Effects {
    sent: Vec<Message>,
    shown: Vec<Shown>,
}

impl Client {
    fn propose(&mut self, index: usize, planted: Planted, effects: &mut Effects) {
        let registers = self.node.registers().clone();
        let value = match self.ops.front() {
            Some(Op::Put(put)) => Some(registers.value(vec![put.clone()])),
            Some(Op::Members(members)) => registers.change_members(members.clone()).ok(),
            Some(Op::Read) | None => None,
        };
        self.attempts -= 1;
        self.proposer.plant(planted);
        let mut actions = Vec::new();
        self.proposer.propose(&registers, value, &mut actions);
        self.act(index, actions, effects);
    }

    fn answered(&mut self, index: usize, from: Member, attempt: Attempt, tell: Tell) -> Effects {
        let (mut actions, mut effects) = (Vec::new(), Effects::default());
        self.proposer.answered(from, attempt, Some(tell), &mut actions);
        self.act(index, actions, &mut effects);
        effects
    }

    fn act(&mut self, index: usize, actions: Vec<Action>, effects: &mut Effects) {
        for action in actions {
            let cluster = self.node.registers().cluster();
            let learn = |catch_up| PaxosRequest::new(cluster, Ask::Learn(catch_up));
            let (attempt, request) = match action {
                Action::Send { attempt, request, .. } => (Some(attempt), request),
                Action::Help { attempt, applied, .. } => {
                    (Some(attempt), learn(self.node.catch_up(applied)))
                }
                Action::Decided(decided) => {
                    let decided = CatchUp { decided: vec![decided], ..CatchUp::default() };
                    self.learned(decided.clone(), effects);
                    (None, learn(decided))
                }
                Action::CatchUp(catch_up) => {
                    self.learned(catch_up, effects);
                    continue;
                }
                Action::Free => {
                    self.shown(effects);
                    continue;
                }
                Action::BackOff { .. } => continue,
            };
            let message = Message { client: index, attempt, request };
            if !effects.sent.contains(&message) {
                effects.sent.push(message);
            }
        }
    }

    /// Applies what was decided, and answers the put or the read under way if that does it.
    fn learned(&mut self, catch_up: CatchUp, effects: &mut Effects) {
        self.node.learned(catch_up);
        let registers = self.node.registers();
        match self.ops.front() {
            Some(Op::Put(put)) => match registers.recall(put.nonce.into(), FIRST + 1) {
                Recall::Known(Outcome::Written(version)) => {
                    let (value, replaced) = (Some(put.value.clone()), Some(put.expected));
                    effects.shown.push(Shown { version, value, replaced });
                    self.ops.pop_front();
                }
                Recall::Known(Outcome::Conflict(version)) => {
                    effects.shown.push(Shown { version, value: None, replaced: None });
                    self.ops.pop_front();
                }
                Recall::Absent => {}
                other => panic!("a scenario has few and small puts: {other:?}"),
            },
            Some(Op::Members(members)) if registers.members() == members => {
                self.ops.pop_front();
            }
            Some(Op::Read) => self.look(effects),
            Some(Op::Members(_)) | None => {}
        }
    }

    fn reading(&self) -> Option<Reading> {
        self.reader.as_ref().map(|reader| reader.reading(self.node.registers()))
    }

    fn look(&mut self, effects: &mut Effects) {
        if self.reading() == Some(Reading::Newest) {
            self.shown(effects);
        }
    }

    /// The read under way is answered with the state here.
    fn shown(&mut self, effects: &mut Effects) {
        let register = self.node.registers().get(NAME);
        let (version, value) = (register.version, Some(register.value));
        effects.shown.push(Shown { version, value, replaced: None });
        (self.reader, self.ops) = (None, self.ops.iter().skip(1).cloned().collect());
    }
}

/// A fast hash of the few small numbers that a state is.
#[derive(Clone, Default)]
struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(23) ^ u64::from_le_bytes(word))
                .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
}

/// Gives equal things one number.
struct Numbers<T> {
    things: Vec<T>,
    numbers: HashMap<T, u16>,
}

impl<T: Clone + Eq + Hash> Numbers<T> {
    fn new() -> Self {
        Self { things: Vec::new(), numbers: HashMap::new() }
    }

    fn of(&mut self, thing: T) -> u16 {
        let next = u16::try_from(self.things.len()).expect("a scenario is small");
        *self.numbers.entry(thing).or_insert_with_key(|thing| {
            self.things.push(thing.clone());
            next
        })
    }
}

/// One state of everything, by numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    slots: [u16; SLOTS_MAX],
    clients: [u16; CLIENTS_MAX],
    /// Messages that were sent, a bit each.
    sent: u128,
    /// The registers after each instance, as the first who applied it has them.
    decided: [u8; INSTANCES_MAX],
    /// The value of each version, as the first who was shown it was told.
    values: [u8; INSTANCES_MAX],
    /// The versions that somebody was told to have replaced, a bit each.
    replaced: u8,
    /// The highest version that anybody was shown.
    floor: u8,
    crashes: u8,
    forgets: u8,
    replacements: u8,
}

const NONE: u16 = u16::MAX;
const UNKNOWN: u8 = u8::MAX;

/// What happened between two states.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "shown in a trace")]
enum Event {
    Proposes { client: usize },
    Delivered { message: u16, slot: usize, answered: bool },
    BeginsRead { client: usize },
    Asks { client: usize, slot: usize },
    Fetches { client: usize, slot: usize },
    Crashes { slot: usize },
    ForgetsAll { slot: usize },
    GetsBlankDisk { slot: usize },
}

/// What is searched.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) members: Vec<u32>,
    pub(crate) slots: usize,
    /// Of each client: its node, its attempts, and what it does.
    pub(crate) clients: Vec<(u32, u8, Vec<Op>)>,
    pub(crate) crashes: u8,
    pub(crate) forgets: u8,
    pub(crate) replacements: u8,
    pub(crate) planted: Planted,
}

pub(crate) fn put(nonce: u128, expected: u64) -> Op {
    let value = Some(Bytes::from(vec![nonce as u8]));
    Op::Put(Put { nonce: nonce.into(), name: NAME.into(), expected, value })
}

pub(crate) struct Search {
    planted: Planted,
    slots: Numbers<Slot>,
    clients: Numbers<Client>,
    messages: Numbers<Message>,
    registers: Numbers<Registers>,
    values: Numbers<Option<Bytes>>,
    first: Vec<Slot>,
    tells: Numbers<Option<Tell>>,
    /// What a message does to a slot, and is answered.
    delivered: HashMap<(u16, u16, bool), (u16, u16)>,
    /// What the answer to a message, from a slot, does to a client.
    answered: HashMap<(u16, usize, Attempt, u16), Moved>,
    /// Of each slot by number: the instance that it applied, and the registers then.
    slots_applied: Vec<(usize, u8)>,
}

/// A client's step, by numbers.
#[derive(Clone)]
struct Moved {
    client: u16,
    applied: (usize, u8),
    floor: u8,
    sent: u128,
    /// Version, value, and the version that was replaced.
    shown: Vec<(u8, u8, u8)>,
}

type Nexts = Vec<(Event, Result<World, String>)>;
pub(crate) type Found = Result<(usize, usize), String>;

impl Search {
    pub(crate) fn run(scenario: Scenario) -> Found {
        let mut search = Search {
            planted: scenario.planted,
            slots: Numbers::new(),
            clients: Numbers::new(),
            messages: Numbers::new(),
            registers: Numbers::new(),
            values: Numbers::new(),
            first: Vec::new(),
            tells: Numbers::new(),
            delivered: HashMap::new(),
            answered: HashMap::new(),
            slots_applied: Vec::new(),
        };
        let first = search.begin(&scenario);
        let mut numbers: HashMap<World, u32, BuildHasherDefault<Fold>> = HashMap::default();
        numbers.insert(first, 0);
        let mut parents: Vec<(u32, Option<Event>)> = vec![(0, None)];
        let mut queue = VecDeque::from([(first, 0)]);
        let mut transitions = 0;
        while let Some((world, number)) = queue.pop_front() {
            for (event, next) in search.next(&world) {
                transitions += 1;
                let broken = match next {
                    Ok(next) => {
                        let fresh = numbers.len() as u32;
                        if let Entry::Vacant(entry) = numbers.entry(next) {
                            entry.insert(fresh);
                            parents.push((number, Some(event)));
                            queue.push_back((next, fresh));
                        }
                        continue;
                    }
                    Err(broken) => broken,
                };
                return Err(search.tell(
                    &scenario,
                    &broken,
                    &parents,
                    number,
                    event,
                    numbers.len(),
                ));
            }
            assert!(numbers.len() < STATES_MAX, "{}: too many states", scenario.name);
        }
        println!("{}: safe, {} states, {transitions} transitions", scenario.name, numbers.len());
        Ok((numbers.len(), transitions))
    }

    /// The way to what is broken.
    fn tell(
        &self,
        scenario: &Scenario,
        broken: &str,
        parents: &[(u32, Option<Event>)],
        mut number: u32,
        last: Event,
        states: usize,
    ) -> String {
        let mut events = vec![last];
        while let (parent, Some(event)) = parents[number as usize] {
            events.push(event);
            number = parent;
        }
        events.reverse();
        let mut text =
            format!("{broken}\n{}: {} steps, {states} states", scenario.name, events.len());
        for event in events {
            text += &match event {
                Event::Delivered { message, slot, answered } => {
                    let message = &self.messages.things[message as usize];
                    let lost = if answered { "" } else { ", answer lost" };
                    format!("\n  {:?} to slot {slot}{lost}", message.request.ask)
                }
                event => format!("\n  {event:?}"),
            };
        }
        println!("{text}");
        text
    }

    fn begin(&mut self, scenario: &Scenario) -> World {
        let members = scenario.members.iter().map(|node| member(*node)).collect();
        let registers = Registers::init(CLUSTER, members, BTreeMap::new()).expect("few members");
        let mut world = World {
            slots: [NONE; SLOTS_MAX],
            clients: [NONE; CLIENTS_MAX],
            sent: 0,
            decided: [UNKNOWN; INSTANCES_MAX],
            values: [UNKNOWN; INSTANCES_MAX],
            replaced: 0,
            floor: 0,
            crashes: scenario.crashes,
            forgets: scenario.forgets,
            replacements: scenario.replacements,
        };
        for slot in 0..scenario.slots {
            let me = member(slot as u32 + 1);
            let begin = match scenario.members.contains(&me.node) {
                true => registers.clone(),
                false => Registers::blank(),
            };
            let fresh = self.fresh(me, begin);
            self.first.push(fresh.clone());
            world.slots[slot] = self.slot_number(fresh);
        }
        for (index, (node, attempts, ops)) in scenario.clients.iter().enumerate() {
            let mut acceptor = Acceptor::new(Member::new(*node, 99), registers.clone());
            acceptor.plant(self.planted);
            let client = Client {
                node: acceptor,
                proposer: Proposer::new(*node),
                ops: ops.clone().into(),
                attempts: *attempts,
                reader: None,
                floor: 0,
            };
            world.clients[index] = self.moved(client, Effects::default()).client;
        }
        world
    }

    fn fresh(&self, me: Member, registers: Registers) -> Slot {
        let mut acceptor = Acceptor::new(me, registers);
        acceptor.set_voting(true);
        acceptor.plant(self.planted);
        Slot { live: acceptor.clone(), durable: acceptor, unsynced: Vec::new() }
    }

    /// All that can happen next.
    fn next(&mut self, world: &World) -> Vec<(Event, Result<World, String>)> {
        let mut out = Vec::new();
        let slots: Vec<usize> = (0..SLOTS_MAX).filter(|s| world.slots[*s] != NONE).collect();
        for message in (0..128).filter(|bit| world.sent >> bit & 1 == 1) {
            for &slot in &slots {
                self.deliver(world, message, slot, &mut out);
            }
        }
        for client in (0..CLIENTS_MAX).filter(|c| world.clients[*c] != NONE) {
            self.propose(world, client, &mut out);
            self.read(world, client, &slots, &mut out);
        }
        for &slot in &slots {
            self.misfortunes(world, slot, &mut out);
        }
        out.retain(|(_, next)| next.as_ref() != Ok(world));
        out
    }

    fn deliver(&mut self, world: &World, message: u16, slot: usize, out: &mut Nexts) {
        let before = world.slots[slot];
        let key = (message, before, world.crashes > 0);
        if !self.delivered.contains_key(&key) {
            let mut after = self.slots.things[before as usize].clone();
            let tell = after.step(self.messages.things[message as usize].request.clone());
            if world.crashes == 0 {
                // What the disk has matters no more.
                after = Slot { durable: after.live.clone(), unsynced: Vec::new(), ..after };
            }
            let result = (self.slot_number(after), self.tells.of(tell));
            self.delivered.insert(key, result);
        }
        let (after, tell) = self.delivered[&key];
        let lost = self.put_slot(*world, slot, after);
        let Message { client, attempt, .. } = self.messages.things[message as usize];
        if let (Ok(world), Some(attempt)) = (&lost, attempt) {
            let key = (world.clients[client], slot, attempt, tell);
            if !self.answered.contains_key(&key) {
                let mut asker = self.clients.things[key.0 as usize].clone();
                // As the one who asks knows it: with the disk that the members' list has.
                let members = asker.node.registers().members();
                let listed = |member: &&Member| member.node == slot as u32 + 1;
                let from = members.iter().find(listed).copied();
                let from = from.unwrap_or(member(slot as u32 + 1));
                let tell = self.tells.things[tell as usize].clone().expect("always answered");
                let effects = asker.answered(client, from, attempt, tell);
                let moved = self.moved(asker, effects);
                self.answered.insert(key, moved);
            }
            let heard = Self::put_client(*world, client, &self.answered[&key]);
            out.push((Event::Delivered { message, slot, answered: true }, heard));
        }
        out.push((Event::Delivered { message, slot, answered: false }, lost));
    }

    fn propose(&mut self, world: &World, index: usize, out: &mut Nexts) {
        let before = &self.clients.things[world.clients[index] as usize];
        let wants = match before.ops.front() {
            Some(Op::Read) => before.reading() == Some(Reading::Finish),
            Some(Op::Put(_) | Op::Members(_)) => true,
            None => false,
        };
        if wants && before.attempts > 0 {
            let (mut after, mut effects) = (before.clone(), Effects::default());
            after.propose(index, self.planted, &mut effects);
            let moved = self.moved(after, effects);
            out.push((Event::Proposes { client: index }, Self::put_client(*world, index, &moved)));
        }
    }

    fn read(&mut self, world: &World, index: usize, slots: &[usize], out: &mut Nexts) {
        let before = self.clients.things[world.clients[index] as usize].clone();
        if before.ops.front() != Some(&Op::Read) {
            return;
        }
        let reading = before.reading();
        if matches!(reading, None | Some(Reading::Again | Reading::Finish)) {
            let mut after = before.clone();
            let mut reader = Reader::new(before.node.registers().members());
            reader.plant(self.planted);
            if reading.is_none() {
                after.floor = world.floor;
            }
            after.reader = Some(reader);
            let moved = self.moved(after, Effects::default());
            out.push((
                Event::BeginsRead { client: index },
                Self::put_client(*world, index, &moved),
            ));
        }
        for &slot in slots.iter().filter(|_| reading.is_some()) {
            let (mut after, mut effects) = (before.clone(), Effects::default());
            let mut server = self.slots.things[world.slots[slot] as usize].clone();
            let from = server.live.me();
            let event = if reading == Some(Reading::CatchUp { from }) {
                let catch_up = server.live.catch_up(before.node.registers().applied());
                after.learned(catch_up, &mut effects);
                Event::Fetches { client: index, slot }
            } else {
                let tell = server.step(PaxosRequest::new(CLUSTER.into(), Ask::Read(())));
                after.reader.as_mut().expect("it reads").answered(member(slot as u32 + 1), tell);
                after.look(&mut effects);
                Event::Asks { client: index, slot }
            };
            let moved = self.moved(after, effects);
            out.push((event, Self::put_client(*world, index, &moved)));
        }
    }

    fn misfortunes(&mut self, world: &World, slot: usize, out: &mut Nexts) {
        let mut next = *world;
        if world.crashes > 0 {
            let mut crashed = self.slots.things[world.slots[slot] as usize].clone();
            crashed.live = crashed.durable.clone();
            crashed.unsynced.clear();
            next.crashes -= 1;
            next.slots[slot] = self.slot_number(crashed);
            out.push((Event::Crashes { slot }, Ok(next)));
        }
        next = *world;
        if world.forgets > 0 {
            let mut old = self.first[slot].clone();
            old.live.set_voting(false);
            old.durable.set_voting(false);
            next.forgets -= 1;
            next.slots[slot] = self.slot_number(old);
            out.push((Event::ForgetsAll { slot }, Ok(next)));
        }
        next = *world;
        if world.replacements > 0 {
            let blank = self.fresh(Member::new(slot as u32 + 1, 1000), Registers::blank());
            next.replacements -= 1;
            next.slots[slot] = self.slot_number(blank);
            out.push((Event::GetsBlankDisk { slot }, Ok(next)));
        }
    }

    fn slot_number(&mut self, slot: Slot) -> u16 {
        let applied = self.applied(slot.live.registers());
        let number = self.slots.of(slot);
        self.slots_applied.resize(self.slots.things.len(), applied);
        number
    }

    fn applied(&mut self, registers: &Registers) -> (usize, u8) {
        let number = self.registers.of(registers.clone());
        (registers.applied() as usize, u8::try_from(number).expect("few decisions"))
    }

    fn moved(&mut self, mut client: Client, effects: Effects) -> Moved {
        let applied = self.applied(client.node.registers());
        let floor = client.floor;
        if client.ops.is_empty() {
            // It does nothing any more, and what it knows makes no difference.
            client.node = Acceptor::new(client.node.me(), Registers::blank());
            (client.proposer, client.attempts, client.floor) = (Proposer::new(0), 0, 0);
        }
        let client = self.clients.of(client);
        let mut moved = Moved { client, applied, floor, sent: 0, shown: Vec::new() };
        for message in effects.sent {
            let number = self.messages.of(message);
            assert!(number < 128, "a scenario has at most 128 messages");
            moved.sent |= 1 << number;
        }
        for Shown { version, value, replaced } in effects.shown {
            let value = value.map_or(UNKNOWN, |value| self.values.of(value) as u8);
            let replaced = replaced.map_or(UNKNOWN, |version| version as u8);
            moved.shown.push((version as u8, value, replaced));
        }
        moved
    }

    fn put_slot(&self, mut world: World, slot: usize, number: u16) -> Result<World, String> {
        world.slots[slot] = number;
        world.agree(self.slots_applied[number as usize])?;
        Ok(world)
    }

    fn put_client(mut world: World, index: usize, moved: &Moved) -> Result<World, String> {
        world.clients[index] = moved.client;
        world.sent |= moved.sent;
        world.agree(moved.applied)?;
        for (version, value, replaced) in &moved.shown {
            world.show(*version, *value, moved.floor)?;
            world.replace(*replaced)?;
        }
        Ok(world)
    }
}

impl World {
    /// One value for each instance.
    fn agree(&mut self, (applied, registers): (usize, u8)) -> Result<(), String> {
        let known = &mut self.decided[applied];
        if applied > FIRST as usize && *known != UNKNOWN && *known != registers {
            return Err(format!("instance {applied} was decided twice"));
        }
        *known = registers;
        Ok(())
    }

    /// One put succeeds for each version that is expected.
    fn replace(&mut self, version: u8) -> Result<(), String> {
        if version != UNKNOWN {
            if self.replaced >> version & 1 == 1 {
                return Err(format!("version {version} was replaced twice"));
            }
            self.replaced |= 1 << version;
        }
        Ok(())
    }

    /// One value for each version, and none that is older than what was shown before.
    fn show(&mut self, version: u8, value: u8, floor: u8) -> Result<(), String> {
        let known = &mut self.values[version as usize];
        if value != UNKNOWN {
            if *known != UNKNOWN && *known != value {
                return Err(format!("version {version} has two values"));
            }
            *known = value;
        }
        if version < floor {
            return Err(format!("version {version} was read after {floor} had been shown"));
        }
        self.floor = self.floor.max(version);
        Ok(())
    }
}
