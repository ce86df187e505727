//! The state that the decided values add up to: registers with versions, and who votes next.
//!
//! [`Registers::apply`] is a function of the values before it, so all servers agree on what became of
//! each put; it costs what the batch costs, whatever the number of registers. A put is known again by
//! its nonce for as long as [`NONCES_MAX`] puts: asked for twice, it counts once and is answered the
//! same. Bytes of a snapshot begin with a magic and a CRC32C, as those of a chain do; they carry a
//! format number, and a later format is refused.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use prost::Message;

use super::messages::{
    Decided, Id, MEMBERS_MAX, MESSAGE_BYTES_MAX, Malformed, Member, Put, Value, check_members,
};
use super::{Bug, Planted};
use crate::fields;
use crate::limits::COUNTER_MAX;
use crate::record::crc32c;

/// Most bytes of all registers together: so that a snapshot fits into a message.
pub const STATE_BYTES_MAX: usize = 16 << 20;
/// What a register costs beside the bytes of its name and value.
const REGISTER_COST: usize = 32;
/// How many puts are remembered by their nonces.
pub const NONCES_MAX: usize = 4096;

/// Most of what a snapshot repeats: fields of its encoded form, by their numbers.
const FIELDS_MAX: &[(&[u32], usize)] =
    &[(&[4], MEMBERS_MAX), (&[5], STATE_BYTES_MAX / REGISTER_COST), (&[6], NONCES_MAX)];
const MAGIC: [u8; 4] = *b"VLR\x01";
/// The format of snapshots that this code writes, and the highest that it reads.
pub const REGISTERS_FORMAT: u32 = 1;

/// One register. Deleted ones stay, since their versions go on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Register {
    /// How often it was written.
    pub version: u64,
    /// What it holds; `None`: never written, or deleted.
    pub value: Option<Bytes>,
}

/// What became of a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Written: the register has this version now.
    Written(u64),
    /// Not written: the register had this version.
    Conflict(u64),
    /// Not written: all registers together would be over [`STATE_BYTES_MAX`].
    Full,
}

/// What is known of a put, by its nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recall {
    /// It was decided.
    Known(Outcome),
    /// It was not decided in any instance so far.
    Absent,
    /// It may have been decided so long ago that this is forgotten.
    Forgotten,
}

/// Why members cannot follow those in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersRefused {
    /// Too few, too many, or twice the same.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// More than one joins or leaves.
    #[error("at most one member joins and one leaves at a time: change them one by one")]
    TooManyAtOnce,
}

/// All registers after the instance `applied`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Registers {
    cluster: Id,
    applied: u64,
    members: Vec<Member>,
    registers: BTreeMap<String, Register>,
    /// What all registers count against [`STATE_BYTES_MAX`].
    bytes: usize,
    nonces: BTreeMap<Id, Outcome>,
    /// The same in the order of their instances.
    order: VecDeque<(Id, u64)>,
    /// The puts of this instance and of all later ones are remembered.
    remembered: u64,
}

impl Registers {
    /// What a server has that knows of no cluster.
    #[must_use]
    pub fn blank() -> Self {
        Self::default()
    }

    /// The beginning of a cluster: stands for the value of instance 1.
    ///
    /// # Errors
    /// The rule that the members or the registers break.
    pub fn init(
        cluster: u128,
        mut members: Vec<Member>,
        registers: BTreeMap<String, Register>,
    ) -> Result<Self, Malformed> {
        members.sort_unstable();
        let wire = wire::Registers {
            format: REGISTERS_FORMAT,
            cluster: cluster.into(),
            applied: 1,
            members,
            registers: registers.into_iter().map(wire::Register::from).collect(),
            nonces: Vec::new(),
            remembered: 1,
        };
        Self::try_from(wire)
    }

    /// The cluster that these registers belong to.
    #[must_use]
    pub fn cluster(&self) -> Id {
        self.cluster
    }

    /// The last instance that is in here; 0 while blank.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// What all registers count against [`STATE_BYTES_MAX`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Who votes on the next instance; nobody while blank.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// A register; one that was never written has version 0.
    #[must_use]
    pub fn get(&self, name: &str) -> Register {
        self.registers.get(name).cloned().unwrap_or_default()
    }

    /// All registers that were ever written, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Register)> {
        self.registers.iter().map(|(name, register)| (name.as_str(), register))
    }

    /// What became of the put `nonce`, which was not asked for before instance `since`.
    #[must_use]
    pub fn recall(&self, nonce: u128, since: u64) -> Recall {
        match self.nonces.get(&nonce.into()) {
            Some(outcome) => Recall::Known(*outcome),
            None if since >= self.remembered => Recall::Absent,
            None => Recall::Forgotten,
        }
    }

    /// A value for the next instance that leaves the members as they are.
    #[must_use]
    pub fn value(&self, puts: Vec<Put>) -> Value {
        Value { puts, members: self.members.clone() }
    }

    /// A value for the next instance that changes the members of those after it.
    ///
    /// # Errors
    /// Why these members cannot follow.
    pub fn change_members(&self, mut members: Vec<Member>) -> Result<Value, MembersRefused> {
        members.sort_unstable();
        check_members(&members)?;
        let missing = |from: &[Member], of: &[Member]| {
            of.iter().filter(|member| !from.contains(member)).count()
        };
        if missing(&self.members, &members) > 1 || missing(&members, &self.members) > 1 {
            return Err(MembersRefused::TooManyAtOnce);
        }
        Ok(Value { puts: Vec::new(), members })
    }

    /// Applies the value of the next instance. Panics when it is the value of another one.
    pub fn apply(&mut self, decided: &Decided) {
        self.apply_as(decided, Planted::NONE);
    }

    pub(crate) fn apply_as(&mut self, decided: &Decided, planted: Planted) {
        assert_eq!(decided.instance, self.applied + 1, "instances are applied in a row");
        self.applied = decided.instance;
        for put in &decided.value.puts {
            if !self.nonces.contains_key(&put.nonce) {
                let outcome = self.put(put, planted);
                self.nonces.insert(put.nonce, outcome);
                self.order.push_back((put.nonce, self.applied));
            }
        }
        while self.order.len() > NONCES_MAX {
            let (nonce, instance) = self.order.pop_front().expect("more than the limit");
            self.nonces.remove(&nonce);
            self.remembered = instance + 1;
        }
        self.members.clone_from(&decided.value.members);
    }

    fn put(&mut self, put: &Put, planted: Planted) -> Outcome {
        let old = self.registers.get(&put.name);
        let version = old.map_or(0, |register| register.version);
        if version != put.expected && !planted.has(Bug::PlainPut) {
            return Outcome::Conflict(version);
        }
        let freed = old.map_or(0, |register| cost(&put.name, register.value.as_ref()));
        let bytes = self.bytes - freed + cost(&put.name, put.value.as_ref());
        if bytes > STATE_BYTES_MAX && bytes > self.bytes {
            return Outcome::Full;
        }
        self.bytes = bytes;
        // 2^64 writes are out of reach.
        let register = Register { version: version.saturating_add(1), value: put.value.clone() };
        let version = register.version;
        self.registers.insert(put.name.clone(), register);
        Outcome::Written(version)
    }

    /// The bytes of a snapshot.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let body = wire::Registers::from(self).encode_to_vec();
        let mut bytes = Vec::with_capacity(8 + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.into()
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// The rule that the bytes break.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        if bytes.len() < 8 || bytes.len() > MESSAGE_BYTES_MAX || bytes[..4] != MAGIC {
            return Err(Malformed("not a snapshot of registers"));
        }
        let body = bytes.slice(8..);
        if bytes[4..8] != crc32c(&body).to_le_bytes() {
            return Err(Malformed("a snapshot's checksum does not hold"));
        }
        if !fields::within(&body, FIELDS_MAX) {
            return Err(Malformed("a snapshot has more registers or puts than there can be"));
        }
        let wire = wire::Registers::decode(body);
        let wire = wire.map_err(|_| Malformed("a snapshot's fields do not decode"))?;
        if wire.format > REGISTERS_FORMAT {
            return Err(Malformed("a snapshot has a newer format than this build reads"));
        }
        Self::try_from(wire)
    }
}

fn cost(name: &str, value: Option<&Bytes>) -> usize {
    REGISTER_COST + name.len() + value.map_or(0, Bytes::len)
}

/// The encoded form. Field numbers are frozen; new fields take new numbers.
mod wire {
    use super::{
        BTreeMap, Bytes, COUNTER_MAX, Id, Malformed, Member, Outcome, STATE_BYTES_MAX,
        check_members, cost,
    };

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Registers {
        #[prost(uint32, tag = "1")]
        pub(super) format: u32,
        #[prost(message, required, tag = "2")]
        pub(super) cluster: Id,
        #[prost(uint64, tag = "3")]
        pub(super) applied: u64,
        #[prost(message, repeated, tag = "4")]
        pub(super) members: Vec<Member>,
        #[prost(message, repeated, tag = "5")]
        pub(super) registers: Vec<Register>,
        /// In the order in which they were decided.
        #[prost(message, repeated, tag = "6")]
        pub(super) nonces: Vec<Answered>,
        #[prost(uint64, tag = "7")]
        pub(super) remembered: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Register {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(uint64, tag = "2")]
        version: u64,
        #[prost(bytes = "bytes", optional, tag = "3")]
        value: Option<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Answered {
        #[prost(message, required, tag = "1")]
        nonce: Id,
        #[prost(uint64, tag = "2")]
        instance: u64,
        #[prost(uint64, optional, tag = "3")]
        written: Option<u64>,
        #[prost(uint64, optional, tag = "4")]
        conflict: Option<u64>,
    }

    impl From<(String, super::Register)> for Register {
        fn from((name, register): (String, super::Register)) -> Self {
            Self { name, version: register.version, value: register.value }
        }
    }

    impl From<&super::Registers> for Registers {
        fn from(registers: &super::Registers) -> Self {
            let answered = |(nonce, instance): &(Id, u64)| {
                let (written, conflict) = match registers.nonces[nonce] {
                    Outcome::Written(version) => (Some(version), None),
                    Outcome::Conflict(version) => (None, Some(version)),
                    Outcome::Full => (None, None),
                };
                Answered { nonce: *nonce, instance: *instance, written, conflict }
            };
            let all = registers.registers.iter();
            Self {
                format: super::REGISTERS_FORMAT,
                cluster: registers.cluster,
                applied: registers.applied,
                members: registers.members.clone(),
                registers: all.map(|(name, r)| (name.clone(), r.clone()).into()).collect(),
                nonces: registers.order.iter().map(answered).collect(),
                remembered: registers.remembered,
            }
        }
    }

    impl TryFrom<Registers> for super::Registers {
        type Error = Malformed;

        fn try_from(wire: Registers) -> Result<Self, Malformed> {
            check_members(&wire.members)?;
            if wire.applied == 0 || wire.applied > COUNTER_MAX || wire.remembered > COUNTER_MAX {
                return Err(Malformed("a snapshot's instance is out of range"));
            }
            let (mut registers, mut bytes) = (BTreeMap::new(), 0);
            for Register { name, version, value } in wire.registers {
                bytes += cost(&name, value.as_ref());
                if registers.insert(name, super::Register { version, value }).is_some() {
                    return Err(Malformed("a snapshot has a register twice"));
                }
            }
            if bytes > STATE_BYTES_MAX {
                return Err(Malformed("registers are over `STATE_BYTES_MAX`"));
            }
            let outcome = |answered: &Answered| match (answered.written, answered.conflict) {
                (Some(version), _) => Outcome::Written(version),
                (None, Some(version)) => Outcome::Conflict(version),
                (None, None) => Outcome::Full,
            };
            let nonces: BTreeMap<_, _> =
                wire.nonces.iter().map(|a| (a.nonce, outcome(a))).collect();
            if nonces.len() != wire.nonces.len() {
                return Err(Malformed("a snapshot has a put twice"));
            }
            Ok(Self {
                cluster: wire.cluster,
                applied: wire.applied,
                members: wire.members,
                registers,
                bytes,
                nonces,
                order: wire.nonces.iter().map(|a| (a.nonce, a.instance)).collect(),
                remembered: wire.remembered,
            })
        }
    }
}
