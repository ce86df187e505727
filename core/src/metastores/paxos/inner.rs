//! What the handles of a member and its task share: the acceptor with its file, the view, the way to
//! the others.
//!
//! The acceptor is behind a lock that is held while the disk works, so it is used on blocking threads
//! only; reads and proposals look at the view instead. A read asks all members how far they are and
//! disturbs nobody; where something is accepted and not known decided, it leaves the proposer a
//! moment, and then has it finished.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};
use virtuallog_protocol::paxos::messages::PUTS_MAX;
use virtuallog_protocol::paxos::{
    Acceptor, Ask, CatchUp, Member, PaxosReply, PaxosRequest, Put, Reader, Reading, State, Step,
    Tell, majority,
};

use super::Peers;
use super::node::DEADLINE;
use super::store::Store;
use super::view::{View, Waiting, closing, out_of_reach, to_error, unavailable};
use crate::env;
use crate::error::{Error, ErrorCode};
use crate::metastore::{MetaError, Version};

/// How long one call to a member may take.
const CALL_DEADLINE: Duration = Duration::from_secs(1);
/// What a network carries at least, where a call may carry all registers: that is added.
const BYTES_PER_MILLISECOND: usize = 4 << 10;
/// What the first random wait is at most; each doubles it, up to `PAUSE_DOUBLINGS_MAX` times.
const PAUSE_UNIT: Duration = Duration::from_millis(4);
const PAUSE_DOUBLINGS_MAX: u32 = 7;
/// Most puts that wait for their decision; more wait to be let in.
const WAITING_MAX: usize = 2 * PUTS_MAX;

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) me: Member,
    peers: Arc<dyn Peers>,
    runtime: Handle,
    local: Mutex<Local>,
    view: Mutex<View>,
    pub(super) room: Semaphore,
    /// There is something to propose, or the end has come.
    pub(super) work: Notify,
    /// Whether the disk remembers all that was promised on it.
    pub(super) voting: AtomicBool,
    closed: AtomicBool,
    pub(super) applied: watch::Sender<u64>,
}

/// The acceptor and its file: locked while the disk works.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) acceptor: Acceptor,
    pub(super) store: Store,
}

impl Inner {
    /// Within a tokio runtime, which it keeps using.
    pub(super) fn new(me: Member, peers: Arc<dyn Peers>, store: Store, acceptor: Acceptor) -> Self {
        Self {
            me,
            peers,
            runtime: Handle::current(),
            applied: watch::Sender::new(acceptor.registers().applied()),
            view: Mutex::new(View::new(&acceptor)),
            local: Mutex::new(Local { acceptor, store }),
            room: Semaphore::new(WAITING_MAX),
            work: Notify::new(),
            voting: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().expect("no panic under this lock")
    }

    /// Blocks while the disk works.
    pub(super) fn local(&self) -> MutexGuard<'_, Local> {
        self.local.lock().expect("no panic under this lock")
    }

    pub(super) fn wait_for(&self, put: Put, answer: oneshot::Sender<Result<Version, MetaError>>) {
        let mut view = self.view();
        let since = view.registers.applied() + 1;
        view.waiting.push(Waiting { put, since, answer });
        self.work.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.work.notify_one();
        let mut view = self.view();
        view.waiting.clear();
        view.finish.clear();
        self.applied.send_modify(|_| {});
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(env::task(task));
    }

    /// Does something with the acceptor, where it may block.
    pub(super) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Inner, &mut Local) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.clone();
        let done = env::blocking(&self.runtime, move || work(&inner, &mut inner.local())).await;
        done.map_err(|error| Error::new(ErrorCode::Internal, "a step failed").with_source(error))
    }

    /// One step of the acceptor: persisted, and shown in the view, before it is answered.
    pub(super) fn step(
        &self,
        local: &mut Local,
        make: impl FnOnce(&mut Acceptor) -> Step,
    ) -> Result<Option<Tell>, Error> {
        if self.is_closed() {
            return Err(to_error(closing()));
        }
        let Local { acceptor, store } = local;
        acceptor.set_voting(self.voting.load(Ordering::Acquire));
        let step = make(acceptor);
        store.persist(acceptor, &step.persist, step.sync)?;
        let applied = acceptor.registers().applied();
        self.view().take(step.persist, acceptor);
        self.applied.send_if_modified(|known| std::mem::replace(known, applied) != applied);
        Ok(step.reply.tell)
    }

    /// Answers a request, from wherever it comes.
    pub(super) async fn answer(self: Arc<Self>, request: PaxosRequest) -> Option<Tell> {
        if request.ask == Some(Ask::Read(())) && !self.is_closed() {
            let view = self.view();
            if request.cluster == view.registers.cluster() {
                let counts = self.voting.load(Ordering::Acquire);
                return Some(Tell::State(State { counts, ..view.state }));
            }
        }
        let step = self.blocking(|inner, local| inner.step(local, |a| a.step(request))).await;
        let tell = step.and_then(|stepped| stepped);
        tell.inspect_err(|error| tracing::warn!("a peer is not answered: {error}")).ok().flatten()
    }

    /// Calls a member; `None` when there is no answer.
    pub(super) async fn call(self: Arc<Self>, to: Member, ask: Ask) -> Option<Tell> {
        let request = PaxosRequest::new(self.view().registers.cluster(), ask);
        if to == self.me {
            return self.answer(request).await;
        }
        let bytes = match &request.ask {
            Some(Ask::Learn(_) | Ask::Fetch(_)) => self.view().registers.bytes(),
            _ => 0,
        };
        let deadline =
            CALL_DEADLINE + Duration::from_millis((bytes / BYTES_PER_MILLISECOND) as u64);
        let reply = timeout(deadline, self.peers.call(to, request.to_bytes())).await;
        PaxosReply::from_bytes(reply.ok()?.ok()?).ok()?.tell
    }

    /// Applies what was decided. True when it brought this server forward.
    pub(super) async fn learn(self: &Arc<Self>, catch_up: CatchUp) -> bool {
        let before = self.view().registers.applied();
        let learned =
            self.blocking(|inner, local| inner.step(local, |a| a.learned(catch_up))).await;
        matches!(learned, Ok(Ok(_))) && self.view().registers.applied() > before
    }

    /// Fails while this server is blank.
    pub(super) fn begun(&self) -> Result<(), MetaError> {
        match self.view().registers.applied() {
            0 => Err(unavailable("this server is not part of a cluster yet: ask another one")),
            _ => Ok(()),
        }
    }

    /// Has the view be at least as new as anything that was decided before the call.
    pub(super) async fn newest(self: &Arc<Self>) -> Result<(), MetaError> {
        self.begun()?;
        let read = async {
            let mut round = 0;
            while !self.is_closed() {
                match self.read().await {
                    Reading::Newest => return Ok(()),
                    // Whoever proposed it is about to finish it, most of the time.
                    Reading::Finish if round > 0 => self.finish().await,
                    _ => {
                        round += 1;
                        pause(round).await;
                    }
                }
            }
            Err(closing())
        };
        timeout(DEADLINE, read).await.unwrap_or_else(|_| Err(out_of_reach()))
    }

    /// Asks everybody once.
    async fn read(self: &Arc<Self>) -> Reading {
        let members = self.view().registers.members().to_vec();
        let ask = |to: Member| {
            let call = self.clone().call(to, Ask::Read(()));
            async move { (to, call.await) }
        };
        let mut reader = Reader::new(&members);
        let mut calls: FuturesUnordered<_> = members.iter().map(|to| ask(*to)).collect();
        loop {
            let reading = reader.reading(&self.view().registers);
            match reading {
                Reading::Wait => match calls.next().await {
                    Some((from, tell)) => reader.answered(from, tell),
                    None => return Reading::Again,
                },
                Reading::CatchUp { from } if self.fetch(from).await => {}
                Reading::CatchUp { .. } => return Reading::Again,
                Reading::Newest | Reading::Finish | Reading::Again => return reading,
            }
        }
    }

    /// Has a member tell what was decided beyond what is applied here. True when that was something.
    pub(super) async fn fetch(self: &Arc<Self>, from: Member) -> bool {
        let applied = self.view().registers.applied();
        match self.clone().call(from, Ask::Fetch(applied)).await {
            Some(Tell::CatchUp(catch_up)) => {
                self.learn(catch_up).await || self.view().registers.applied() > applied
            }
            _ => false,
        }
    }

    async fn finish(&self) {
        let (finish, finished) = oneshot::channel();
        self.view().finish.push(finish);
        self.work.notify_one();
        // When it is dropped, the server closes, and the next call says so.
        let _ = finished.await;
    }

    /// Tells a member all that is decided. What it has applied then; 0 when it does not answer.
    pub(super) async fn teach(self: Arc<Self>, to: Member, mut from: u64) -> u64 {
        // What it lacks, then a snapshot if that did not fit, as it may be blank.
        for _ in 0..2 {
            let lack = self.blocking(move |_, local| local.acceptor.catch_up(from)).await;
            let Ok(lack) = lack else { return 0 };
            match self.clone().call(to, Ask::Learn(lack)).await {
                Some(Tell::State(state)) if state.applied < self.view().registers.applied() => {
                    from = state.applied;
                }
                Some(Tell::State(state)) => return state.applied,
                _ => return 0,
            }
        }
        from
    }

    /// Tells `members` all that is decided, as far as they listen: what is after `from`, and more. Who
    /// turns out to know more is asked for it.
    pub(super) fn tell(self: &Arc<Self>, members: Vec<Member>, from: u64) {
        for member in members.into_iter().filter(|member| *member != self.me) {
            // One teacher each: whoever does not answer costs no more than that.
            if self.view().taught.insert(member) {
                self.spawn(self.clone().keep_teaching(member, from));
            }
        }
    }

    async fn keep_teaching(self: Arc<Self>, to: Member, mut from: u64) {
        loop {
            let applied = self.clone().teach(to, from).await;
            if applied > self.view().registers.applied() {
                self.fetch(to).await;
            }
            let mut view = self.view();
            if applied <= from || applied >= view.registers.applied() {
                view.taught.remove(&to);
                return;
            }
            from = applied;
        }
    }

    /// Tells `members` all that is decided. True when a majority of them knows it.
    pub(super) async fn majority_knows(self: Arc<Self>, members: &[Member]) -> bool {
        let upto = self.view().registers.applied();
        let teach = |to: &Member| self.clone().teach(*to, upto.saturating_sub(1));
        let mut calls: FuturesUnordered<_> = members.iter().map(teach).collect();
        let mut know = 0;
        while let Some(applied) = calls.next().await {
            know += usize::from(applied >= upto);
            if know >= majority(members.len()) {
                return true;
            }
        }
        false
    }

    /// For the time when nothing happens: says on the disk how far it is durable.
    pub(super) async fn mark(self: &Arc<Self>) {
        let marked = self.blocking(|inner, local| match inner.is_closed() {
            false => local.store.mark(),
            true => Ok(()),
        });
        if let Ok(Err(error)) = marked.await {
            tracing::warn!("the MetaStore's file is not marked: {error}");
        }
    }
}

/// Waits a random while, the longer the higher the round.
pub(super) async fn pause(round: u64) {
    let doublings =
        u32::try_from(round).map_or(PAUSE_DOUBLINGS_MAX, |r| r.min(PAUSE_DOUBLINGS_MAX));
    let most = PAUSE_UNIT.as_nanos() << doublings;
    let nanos = u64::try_from(env::random_u128() % most).expect("a pause is short");
    sleep(Duration::from_nanos(nanos)).await;
}
