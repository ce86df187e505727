//! A member of the embedded MetaStore, as the server that holds it sees it.
//!
//! It answers peers, and whoever asks for registers; what it does to that end is in `inner.rs`.
//! Opening it starts one task, which proposes and keeps up with the others (`propose.rs`) and ends
//! with the last handle. It knows no addresses: [`Peers`] finds the others.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use virtuallog_protocol::paxos::{
    Acceptor, Ask, CatchUp, Member, PaxosReply, PaxosRequest, Put, Recall, Register, Registers,
    Tell,
};

use super::Peers;
use super::inner::{Inner, pause};
use super::propose;
use super::store::Store;
use super::view::{closing, out_of_reach, to_error, unavailable};
use crate::env;
use crate::error::{Error, ErrorCode};
use crate::metastore::{MetaError, MetaStore, Version, Versioned};
use crate::storage::disk::Disk;

/// Why nobody joins who would only be counted.
const DOES_NOT_VOTE: &str =
    "the node that is to hold the MetaStore does not answer, or does not vote";

/// How long an operation goes on trying to reach a majority.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// A server's part of the MetaStore. Cloning gives another handle; when the last one is dropped, it
/// does nothing any more.
#[derive(Clone, Debug)]
pub struct PaxosNode(Arc<Owner>);

/// Ends the task with the last handle.
#[derive(Debug)]
struct Owner(Arc<Inner>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl PaxosNode {
    /// Opens what `me` has in `dir`, and makes the directory when missing. It answers peers and
    /// learns, but does not vote until [`set_voting`](Self::set_voting). Blocks; call it within a
    /// tokio runtime, which it keeps using.
    ///
    /// # Errors
    /// `CORRUPT`, `INCOMPATIBLE`, `INVALID` for somebody else's directory, or what the disk said.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        me: Member,
        peers: Arc<dyn Peers>,
    ) -> Result<Self, Error> {
        let (store, acceptor) = Store::open(disk, dir, me)?;
        let inner = Arc::new(Inner::new(me, peers, store, acceptor));
        inner.spawn(propose::run(inner.clone()));
        Ok(Self(Arc::new(Owner(inner))))
    }

    /// Begins a cluster: once, on one server whose directory is empty. The other members are taught
    /// by it. Asked for again, by whoever does not know whether it happened, it does nothing.
    ///
    /// # Errors
    /// `CONFLICT` when this server is part of a cluster, `INVALID` for impossible members, or what
    /// the disk said.
    pub async fn init(
        &self,
        cluster: u128,
        members: Vec<Member>,
        registers: BTreeMap<String, Register>,
    ) -> Result<(), Error> {
        let registers = Registers::init(cluster, members, registers);
        let registers = registers.map_err(|malformed| Error::invalid(malformed.0))?;
        let begun = self.0.0.blocking(move |inner, local| {
            let known = local.acceptor.registers();
            if known.applied() > 0 && known.cluster() == registers.cluster() {
                return Ok(());
            }
            if known.applied() > 0 {
                let message = "this server is part of a cluster already: begin another one on a \
                               server with an empty directory";
                return Err(Error::new(ErrorCode::Conflict, message));
            }
            let snapshot = registers.encode();
            let step = |acceptor: &mut Acceptor| {
                acceptor.learned(CatchUp { snapshot, decided: Vec::new() })
            };
            inner.step(local, step).map(drop)
        });
        begun.await??;
        self.0.0.tell(self.members(), 0);
        Ok(())
    }

    /// Answers a peer's request. An empty answer stands for none: the request is no request, or the
    /// disk failed.
    pub async fn handle(&self, request: Bytes) -> Bytes {
        let Ok(request) = PaxosRequest::from_bytes(request) else { return Bytes::new() };
        let tell = self.0.0.clone().answer(request).await;
        tell.map_or_else(Bytes::new, |tell| PaxosReply::from(tell).to_bytes())
    }

    /// Whether this server's disk is known to remember all that was promised on it. One that may
    /// have forgotten learns and proposes, but does not vote.
    pub fn set_voting(&self, voting: bool) {
        self.0.0.voting.store(voting, Ordering::Release);
    }

    /// As [`put_if`](MetaStore::put_if), by whoever may ask more than once, here or at another
    /// server: with the same `nonce` it counts once and is answered the same.
    ///
    /// # Errors
    /// As `put_if`.
    pub async fn put(
        &self,
        name: &str,
        value: Option<Bytes>,
        expected: Version,
        nonce: u128,
    ) -> Result<Version, MetaError> {
        let put = Put { nonce: nonce.into(), name: name.to_owned(), expected, value };
        put.check().map_err(|m| MetaError::Refused(Error::new(ErrorCode::TooLarge, m.0)))?;
        let inner = &self.0.0;
        inner.begun()?;
        if inner.view().registers.get(name).version > expected {
            // It surely cannot be written, unless it was: no need to decide anything.
            inner.newest().await?;
            let view = inner.view();
            match view.registers.recall(nonce, 0) {
                Recall::Known(outcome) => return view.outcome(name, outcome),
                Recall::Absent | Recall::Forgotten => return Err(view.conflict(name)),
            }
        }
        let decided = async {
            let _room = inner.room.acquire().await.expect("it is never closed");
            let (answer, answered) = oneshot::channel();
            inner.wait_for(put, answer);
            answered.await
        };
        match timeout(DEADLINE, decided).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(closing()),
            Err(_) => Err(out_of_reach()),
        }
    }

    /// Replaces the members: at most one joins and one leaves at a time, and who joins has to say that its
    /// disk remembers. Done when a majority of the new ones knows of it, so that one who left may be
    /// switched off.
    ///
    /// # Errors
    /// `INVALID` when these cannot follow those in force, `UNAVAILABLE` when who joins does not answer or
    /// would not vote, or no majority answers.
    pub async fn change_members(&self, mut members: Vec<Member>) -> Result<(), Error> {
        members.sort_unstable();
        let inner = &self.0.0;
        let change = async {
            inner.newest().await.map_err(to_error)?;
            let before = self.members();
            let possible = inner.view().registers.change_members(members.clone());
            possible.map_err(|refused| Error::invalid(refused.to_string()))?;
            for joins in members.iter().filter(|member| !before.contains(member)) {
                match inner.clone().call(*joins, Ask::Read(())).await {
                    Some(Tell::State(state)) if state.counts => {}
                    _ => return Err(to_error(unavailable(DOES_NOT_VOTE))),
                }
            }
            let mut applied = inner.applied.subscribe();
            loop {
                let at = *applied.borrow_and_update();
                let (wanted, _listens) = oneshot::channel();
                {
                    let mut view = inner.view();
                    if view.registers.members() == members {
                        break;
                    }
                    let possible = view.registers.change_members(members.clone());
                    possible.map_err(|refused| Error::invalid(refused.to_string()))?;
                    view.change = Some((members.clone(), wanted));
                }
                inner.work.notify_one();
                let moved = applied.wait_for(|applied| *applied > at).await;
                moved.map_err(|_| to_error(closing()))?;
            }
            let mut round = 0;
            while !inner.clone().majority_knows(&members).await {
                round += 1;
                pause(round).await;
            }
            Ok(())
        };
        timeout(DEADLINE, change).await.unwrap_or_else(|_| Err(to_error(out_of_reach())))
    }

    /// The members, as far as this server knows.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.0.0.view().registers.members().to_vec()
    }

    /// All registers, as far as this server knows. Costs what all of them cost.
    #[must_use]
    pub fn registers(&self) -> Registers {
        self.0.0.view().registers.clone()
    }

    /// Tells of every change: the number of instances that are applied here.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.0.0.applied.subscribe()
    }

    /// Whether this server's part was there once and is gone: what it promised is forgotten, and it must
    /// never vote again, though it learns from the others what the registers are.
    #[must_use]
    pub fn forgot(&self) -> bool {
        self.0.0.local().store.forgot()
    }

    /// The sync that failed, if one did: nothing is answered any more, and the server has to end.
    #[must_use]
    pub fn failed(&self) -> Option<Error> {
        self.0.0.local().store.failed()
    }

    /// Ends this server's part, though other handles may be left: what was answered is durable,
    /// and nothing is answered any more.
    pub async fn close(&self) {
        self.0.0.close();
        // A step that is under way ends first, so that the directory may be opened again.
        let _ = self.0.0.blocking(|_, _| ()).await;
    }
}

#[async_trait]
impl MetaStore for PaxosNode {
    async fn get(&self, name: &str) -> Result<Versioned, MetaError> {
        self.0.0.newest().await?;
        Ok(self.0.0.view().versioned(name))
    }

    async fn put_if(
        &self,
        name: &str,
        value: Option<Bytes>,
        expected: Version,
    ) -> Result<Version, MetaError> {
        self.put(name, value, expected, env::random_u128()).await
    }

    async fn watch(&self, name: &str, after: Version) -> Result<Versioned, MetaError> {
        let inner = &self.0.0;
        let mut applied = inner.applied.subscribe();
        loop {
            let current = inner.view().versioned(name);
            if current.version > after {
                return Ok(current);
            }
            if applied.changed().await.is_err() || inner.is_closed() {
                return Err(closing());
            }
        }
    }

    async fn list(&self) -> Result<Vec<String>, MetaError> {
        self.0.0.newest().await?;
        let view = self.0.0.view();
        let named = view.registers.iter().filter(|(_, register)| register.value.is_some());
        Ok(named.map(|(name, _)| name.to_owned()).collect())
    }
}
