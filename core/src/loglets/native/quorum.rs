//! Everything that a majority of LogServers decides: seal, tail, trim point, and whether the loglet is
//! there at all. Any client does it; none needs the sequencer.
//!
//! The decisions are `tail_quorum` and `repair` of `core/protocol`; this file asks, brings them the
//! answers and does what they say.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_util::future::Either;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;
use virtuallog_protocol::log_server::LocalTail;
use virtuallog_protocol::repair::{Copied, Plan, Repair, RepairStep};
use virtuallog_protocol::tail_quorum::{Step, TailCheck};
use virtuallog_protocol::{LogId, LogletId, LogletPos, StampedBatch, Tail};

use crate::cluster::{MemberId, Net, failure, unexpected};
use crate::env::{planted, sometimes};
use crate::error::{Error, ErrorCode};
use crate::loglet::LogletError;
use crate::wire::frame::{get_batches, put_batches};
use crate::wire::messages::{
    self, Create, Loglet, LogletParams, Read, Reply, Request, Retire, Suspect, Trim, WaitTail,
};
use crate::wire::transport::{Lane, ask};

/// How long a majority waits for the others before it decides without them.
const SETTLE: Duration = Duration::from_millis(5);
/// A LogServer answers a question that waits after so long at the latest.
pub(crate) const HOLD: Duration = Duration::from_millis(500);
/// After that a LogServer that holds a question is taken for silent.
const HOLD_LIMIT: Duration = Duration::from_millis(1500);
/// Before a LogServer that failed is asked again.
const PAUSE: Duration = Duration::from_millis(20);
/// Bytes that a repair copies at a time: the LogServer syncs batch by batch and has to answer in time.
const REPAIR_BYTES: u64 = 256 << 10;
/// How long too few LogServers that answer are put up with: a node that is started again is back
/// sooner.
const PATIENCE: Duration = Duration::from_secs(3);

/// Tries again for a while what is only unavailable now.
pub(super) async fn patient<T, F>(attempt: impl Fn() -> F) -> Result<T, LogletError>
where
    F: Future<Output = Result<T, LogletError>>,
{
    let begun = Instant::now();
    loop {
        match attempt().await {
            Err(LogletError::Unavailable(_)) if begun.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// What a member said: its number in the loglet, and what it answered.
type Answer = (usize, Result<messages::LocalTail, LogletError>);

/// The LogServers of a loglet.
pub(crate) struct Quorum {
    pub(super) net: Arc<Net>,
    pub(super) id: LogletId,
    params: LogletParams,
    /// The highest known tail that the sequencer told, by whatever way (rule N15).
    known_tail: AtomicU64,
    /// The highest trim point that a majority told: a member that was away may not know it yet, and
    /// would still read out what lies below.
    trimmed: AtomicU64,
    /// The member that is asked to push tails.
    pushing: AtomicUsize,
}

impl fmt::Debug for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Quorum({})", self.id)
    }
}

impl Quorum {
    pub(crate) fn new(net: Arc<Net>, id: LogletId, params: LogletParams) -> Quorum {
        // The sequencer's own LogServer knows first.
        let pushing = AtomicUsize::new(params.sequencer as usize);
        let (known_tail, trimmed) = (AtomicU64::new(0), AtomicU64::new(0));
        Quorum { net, id, params, known_tail, trimmed, pushing }
    }

    pub(super) fn members(&self) -> impl Iterator<Item = MemberId> + '_ {
        self.params.member_ids()
    }

    fn member(&self, at: usize) -> MemberId {
        self.params.members[at].into()
    }

    fn len(&self) -> usize {
        self.params.members.len()
    }

    fn majority(&self) -> usize {
        self.len() / 2 + 1
    }

    pub(super) fn sequencer(&self) -> MemberId {
        self.member(self.params.sequencer as usize)
    }

    pub(super) fn learn_known_tail(&self, tail: LogletPos) {
        self.known_tail.fetch_max(tail.0, Ordering::AcqRel);
    }

    fn loglet(&self) -> Loglet {
        Loglet { loglet: self.id.into() }
    }

    /// Asks one member for its tail, in whatever form.
    async fn tail_of(&self, at: usize, request: Request) -> Answer {
        let answer = self.net.ask(self.member(at), Lane::Control, request, Bytes::new()).await;
        let outcome = match answer {
            Ok((Reply::LocalTail(tail), _)) => Ok(tail),
            Ok((Reply::Failure(wrong), _)) => Err(failure(&wrong, self.id)),
            Ok(_) => Err(LogletError::Unavailable(unexpected().into())),
            Err(error) => Err(LogletError::Unavailable(error.error().clone().into())),
        };
        (at, outcome)
    }

    /// Asks one member to answer once its tail is at `target`.
    async fn tail_at(&self, at: usize, target: LogletPos) -> Answer {
        let wait = WaitTail { loglet: self.id.into(), local: Some(target.0), known: None };
        (at, self.held(at, wait).await)
    }

    async fn held(&self, at: usize, wait: WaitTail) -> Result<messages::LocalTail, LogletError> {
        let unavailable = |error: Error| LogletError::Unavailable(error.into());
        let link = self.net.link(self.member(at), Lane::Control).map_err(unavailable)?;
        let answer = ask(&*link, Request::WaitTail(wait), Bytes::new());
        match tokio::time::timeout(HOLD_LIMIT, answer).await {
            Ok(Ok((Reply::LocalTail(tail), _))) => Ok(tail),
            Ok(Ok((Reply::Failure(wrong), _))) => Err(failure(&wrong, self.id)),
            Ok(Ok(_)) => Err(unavailable(unexpected())),
            Ok(Err(error)) => Err(unavailable(error.error().clone())),
            Err(_) => Err(unavailable(Error::new(ErrorCode::Unavailable, "no answer in time"))),
        }
    }

    /// Asks all members the same, and gives the answers as they come.
    fn all<'a>(
        &'a self,
        request: impl Fn(usize) -> Request + 'a,
    ) -> FuturesUnordered<BoxFuture<'a, Answer>> {
        let asked = FuturesUnordered::new();
        for at in 0..self.len() {
            let answer: BoxFuture<'a, Answer> = Box::pin(self.tail_of(at, request(at)));
            asked.push(answer);
        }
        asked
    }

    /// Makes the loglet on its members: the sequencer's node and a majority at least.
    pub(super) async fn create(&self, base: LogletPos) -> Result<(), LogletError> {
        let sequencer = self.params.sequencer as usize;
        let mut asked = self.all(|at| {
            let sequence = (at == sequencer).then(|| self.params.clone());
            Request::Create(Create { loglet: self.id.into(), base: base.0, sequence })
        });
        let (mut made, mut sequencing, mut why) = (0, false, None);
        while let Some((at, outcome)) = asked.next().await {
            match outcome {
                Ok(_) => {
                    made += 1;
                    sequencing |= at == sequencer;
                }
                Err(error) if at == sequencer => return Err(error),
                Err(error) => why = Some(error),
            }
            if made >= self.majority() && sequencing {
                return Ok(());
            }
        }
        Err(why.unwrap_or_else(|| LogletError::Unavailable("too few nodes answer".into())))
    }

    /// Makes sure that the loglet is there, as far as anybody who answers can tell.
    pub(super) async fn find(&self) -> Result<(), LogletError> {
        let mut asked = self.all(|_| Request::GetTail(self.loglet()));
        let mut unknown = 0;
        while let Some((_, outcome)) = asked.next().await {
            match outcome {
                Ok(tail) => {
                    self.learn_known_tail(tail.known_tail.into());
                    return Ok(());
                }
                Err(LogletError::Unknown(_)) => unknown += 1,
                Err(_) => {}
            }
        }
        match unknown >= self.majority() {
            true => Err(LogletError::Unknown(self.id)),
            // Nobody can tell: whoever asks something of it will see.
            false => Ok(()),
        }
    }

    /// Sets the seal bit on a majority.
    pub(crate) async fn seal(&self) -> Result<(), LogletError> {
        let mut asked = FuturesUnordered::new();
        for at in 0..self.len() {
            asked.push(self.seal_one(at));
        }
        let (mut sealed, mut unknown, mut why) = (0, 0, None);
        while let Some((_, outcome)) = asked.next().await {
            match outcome {
                Ok(_) => sealed += 1,
                Err(LogletError::Unknown(_)) => unknown += 1,
                Err(error) => why = Some(error),
            }
            if sealed >= self.majority() {
                return Ok(());
            }
        }
        Err(self.too_few(unknown, why))
    }

    /// Seals one member. One that was away when the loglet was made gets it first: it never had a
    /// vote in it, so an empty one is the truth.
    async fn seal_one(&self, at: usize) -> Answer {
        let seal = || self.tail_of(at, Request::Seal(self.loglet()));
        match seal().await {
            (_, Err(LogletError::Unknown(_))) => {
                let create = Create { loglet: self.id.into(), base: 0, sequence: None };
                match self.tail_of(at, Request::Create(create)).await {
                    (_, Ok(_)) => seal().await,
                    // It was there, and was retired since.
                    (_, Err(LogletError::Refused(error)))
                        if error.code() == ErrorCode::Conflict =>
                    {
                        (at, Err(LogletError::Unknown(self.id)))
                    }
                    refused => refused,
                }
            }
            answer => answer,
        }
    }

    /// How the loglet ended, if it did. If somebody sealed it, it is sealed on a majority when this
    /// returns.
    pub(super) async fn end(&self) -> Option<LogletError> {
        let mut asked = self.all(|_| Request::GetTail(self.loglet()));
        let mut unknown = 0;
        while let Some((_, outcome)) = asked.next().await {
            match outcome {
                Ok(tail) if tail.sealed => {
                    // Nobody would go on with the questions that are still out.
                    drop(asked);
                    return self.seal().await.is_ok().then_some(LogletError::Sealed);
                }
                Err(LogletError::Unknown(_)) => unknown += 1,
                _ => {}
            }
        }
        // It was made on a majority, so it was deleted: the chain went on long ago.
        (unknown >= self.majority()).then_some(LogletError::Unknown(self.id))
    }

    /// Whether the sequencer is there and takes appends.
    pub(super) async fn is_sequencing(&self) -> bool {
        let request = Request::Sequencing(self.loglet());
        let answer = self.net.ask(self.sequencer(), Lane::Control, request, Bytes::new()).await;
        matches!(answer, Ok((Reply::Done(_), _)))
    }

    /// Tells the other members that the sequencer is silent. They decide.
    pub(super) async fn suspect_sequencer(&self) {
        let suspect = self.params.members[self.params.sequencer as usize];
        let told = (0..self.len()).filter(|at| *at != self.params.sequencer as usize).map(|at| {
            let request = Request::Suspect(Suspect { member: suspect });
            self.net.ask(self.member(at), Lane::Control, request, Bytes::new())
        });
        futures_util::future::join_all(told).await;
    }

    /// The tail (paper fig. 6).
    pub(super) async fn check_tail(&self) -> Result<Tail<LogletPos>, LogletError> {
        patient(|| self.try_check_tail()).await
    }

    async fn try_check_tail(&self) -> Result<Tail<LogletPos>, LogletError> {
        let mut check = TailCheck::new(LogletPos(0), self.len());
        let mut asked = self.all(|_| Request::GetTail(self.loglet()));
        let mut waiting = BTreeSet::new();
        let mut settle = pin!(tokio::time::sleep(SETTLE));
        let (mut late, mut unknown, mut why) = (false, 0, None);
        let mut failed = Vec::new();
        loop {
            match check.step(late || asked.is_empty()) {
                Step::Tail(tail) => return Ok(tail),
                Step::Lost => return Err(self.too_few(unknown, why)),
                Step::Wait if asked.is_empty() => return Err(self.too_few(unknown, why)),
                Step::Wait => {}
                Step::SealAll => {
                    for at in 0..self.len() {
                        asked.push(Box::pin(self.seal_one(at)));
                    }
                }
                Step::WaitFor { target, servers } => {
                    // Whoever failed before may be the one that is needed.
                    for at in std::mem::take(&mut failed) {
                        asked.push(Box::pin(self.later(at)));
                    }
                    for at in servers {
                        if waiting.insert(at) {
                            asked.push(Box::pin(self.tail_at(at, target)));
                        }
                    }
                }
                Step::Repair(plan) => {
                    self.repair(plan, &mut check).await;
                    continue;
                }
            }
            let answer = match late {
                true => asked.next().await,
                false => match futures_util::future::select(asked.next(), settle.as_mut()).await {
                    Either::Left((answer, _)) => answer,
                    Either::Right(_) => {
                        late = true;
                        continue;
                    }
                },
            };
            let Some((at, outcome)) = answer else { continue };
            match outcome {
                Ok(tail) => {
                    waiting.remove(&at);
                    self.trimmed.fetch_max(tail.trim, Ordering::Relaxed);
                    check.known_tail(tail.known_tail.max(tail.trim).into());
                    check.answered(at, local_tail(&tail));
                }
                Err(LogletError::Unknown(_)) => {
                    check.refused(at);
                    unknown += 1;
                }
                Err(error) => {
                    why = Some(error);
                    failed.push(at);
                }
            }
        }
    }

    /// Asks a member that failed once more, after a while.
    async fn later(&self, at: usize) -> Answer {
        tokio::time::sleep(PAUSE).await;
        self.tail_of(at, Request::GetTail(self.loglet())).await
    }

    /// Why a majority cannot be had: only a majority can say that the loglet is not there.
    /// Whether that member is in this process.
    fn is_local(&self, at: usize) -> bool {
        self.net.is_local(self.member(at))
    }

    fn too_few(&self, unknown: usize, why: Option<LogletError>) -> LogletError {
        match unknown >= self.majority() {
            true => LogletError::Unknown(self.id),
            false => why.unwrap_or_else(|| LogletError::Unavailable("too few nodes answer".into())),
        }
    }

    /// Brings sealed LogServers to the same tail, as far as it goes; whether that was all the way. What
    /// happened is told to `check`.
    async fn repair(&self, plan: Plan, check: &mut TailCheck) -> bool {
        let mut repair = Repair::<StampedBatch>::new(plan);
        loop {
            match repair.step() {
                RepairStep::Done => return true,
                RepairStep::Restart => return false,
                RepairStep::Fetch { server, from, to } => {
                    match self.fetch(server, from, to).await {
                        Ok(batches) => repair.fetched(server, batches),
                        Err(LogletError::Trimmed { first_kept }) => {
                            check.known_tail(first_kept);
                            sometimes!("a trim met a repair");
                            repair.trimmed(first_kept);
                        }
                        Err(_) => {
                            check.refused(server);
                            repair.failed(server);
                        }
                    }
                }
                RepairStep::Store { server, batches } => {
                    let batches: Vec<_> = batches.into_iter().map(|copied| copied.batch).collect();
                    match self.store(server, &batches).await {
                        Some(tail) => {
                            check.answered(server, tail);
                            sometimes!("a repair copied entries");
                            repair.stored(server, tail);
                        }
                        None => {
                            check.refused(server);
                            repair.failed(server);
                        }
                    }
                }
            }
        }
    }

    /// Brings the member in this process, and all others that answer, to `stop`, where the chain closed
    /// the loglet: what ends below there is copied from the others.
    ///
    /// # Errors
    /// `Unknown` when it was retired; `Unavailable` when no majority answers, or not the member in this
    /// process.
    pub(crate) async fn fill_up(&self, stop: LogletPos) -> Result<(), LogletError> {
        // First of all, because who does not know the loglet yet is no majority's part in anything else.
        let mut asked: FuturesUnordered<_> = (0..self.len()).map(|at| self.seal_one(at)).collect();
        let (mut servers, mut unknown, mut why) = (Vec::new(), 0, None);
        let mut heard = BTreeSet::new();
        while let Some((at, outcome)) = asked.next().await {
            heard.insert(at);
            match outcome {
                Ok(tail) => servers.push((at, local_tail(&tail))),
                Err(LogletError::Unknown(_)) => unknown += 1,
                Err(error) => why = Some(error),
            }
            // Whoever was silent a moment ago is not waited for again: a node that was away has many
            // loglets to fill up, and while another one is down nobody can read them before that.
            let is_silent = |at| !self.is_local(at) && self.net.is_silent(self.member(at));
            let awaited = |at| !heard.contains(&at) && !is_silent(at);
            if servers.len() >= self.majority() && !(0..self.len()).any(awaited) {
                break;
            }
        }
        drop(asked);
        let left_out = |at| self.is_local(at) && !servers.iter().any(|(there, _)| *there == at);
        if servers.len() < self.majority() || (0..self.len()).any(left_out) {
            return Err(self.too_few(unknown, why));
        }
        let trimmed = self.trim_point().await?;
        let mut check = TailCheck::new(trimmed, self.len());
        for (at, tail) in &servers {
            check.answered(*at, *tail);
        }
        let servers = servers.into_iter().map(|(at, tail)| (at, tail.tail)).collect();
        // All the way from the trim point: it is not about who acknowledged what, but about who has it.
        match self.repair(Plan { from: trimmed, to: stop, servers }, &mut check).await {
            true => self.trim(trimmed).await.map(drop),
            false => Err(LogletError::Unavailable("a member stopped answering".into())),
        }
    }

    async fn fetch(
        &self,
        at: usize,
        from: LogletPos,
        to: LogletPos,
    ) -> Result<Vec<Copied<StampedBatch>>, LogletError> {
        let bytes_max = REPAIR_BYTES;
        let read = Read { loglet: self.id.into(), from: from.0, to: to.0, bytes_max };
        let answer = self.net.ask(self.member(at), Lane::Read, Request::Read(read), Bytes::new());
        let unavailable = |error: Error| LogletError::Unavailable(error.into());
        let (reply, body) = answer.await.map_err(|e| unavailable(e.error().clone()))?;
        match reply {
            Reply::Batches(_) => {
                let batches = get_batches(body).map_err(unavailable)?;
                let copied =
                    |batch: StampedBatch| Copied { first: batch.first, end: batch.end(), batch };
                Ok(batches.into_iter().map(copied).collect())
            }
            Reply::Failure(wrong) => Err(failure(&wrong, self.id)),
            _ => Err(unavailable(unexpected())),
        }
    }

    async fn store(&self, at: usize, batches: &[StampedBatch]) -> Option<LocalTail> {
        let request = Request::Repair(messages::Repair { loglet: self.id.into() });
        let body = put_batches(batches);
        match self.net.ask(self.member(at), Lane::Append, request, body).await {
            Ok((Reply::LocalTail(tail), _)) => Some(local_tail(&tail)),
            _ => None,
        }
    }

    /// Waits until the sequencer's known tail is beyond `known`, or a member is sealed.
    pub(super) async fn wait_tail(&self, known: LogletPos) -> Result<Tail<LogletPos>, LogletError> {
        let mut failed = 0;
        loop {
            let mine = LogletPos(self.known_tail.load(Ordering::Acquire));
            if mine > known {
                return Ok(Tail { position: mine, sealed: false });
            }
            let at = self.pushing.load(Ordering::Relaxed) % self.len();
            let wait = WaitTail { loglet: self.id.into(), local: None, known: Some(known.0) };
            match self.held(at, wait).await {
                Ok(tail) => {
                    failed = 0;
                    self.learn_known_tail(tail.known_tail.into());
                    if tail.sealed {
                        let position = known.max(tail.known_tail.into());
                        return Ok(Tail { position, sealed: true });
                    }
                }
                Err(error) => {
                    failed += 1;
                    self.net.look_for(self.member(at)).await;
                    self.pushing.store(at + 1, Ordering::Relaxed);
                    if failed > self.len() {
                        return Err(error);
                    }
                    if failed == self.len() {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// Gives up what lies below, at most up to the tail, on a majority. One that was away learns it
    /// later. Members note a trim beyond what they have: if one that lacks entries only went as far as
    /// it has them, it would be of no majority that remembers the trim.
    pub(super) async fn trim(&self, keep_from: LogletPos) -> Result<LogletPos, LogletError> {
        let keep_from = match keep_from.0 <= self.known_tail.load(Ordering::Acquire) {
            true => keep_from,
            false => keep_from.min(self.check_tail().await?.position),
        };
        let trim = Trim { loglet: self.id.into(), keep_from: keep_from.0 };
        patient(|| self.majority_of(keep_from, |_| Request::Trim(trim.clone()))).await
    }

    pub(super) async fn trim_point(&self) -> Result<LogletPos, LogletError> {
        patient(|| self.majority_of(LogletPos(0), |_| Request::GetTail(self.loglet()))).await
    }

    /// The highest trim point that a majority answers with, of those who know `least`.
    async fn majority_of(
        &self,
        least: LogletPos,
        request: impl Fn(usize) -> Request,
    ) -> Result<LogletPos, LogletError> {
        let mut asked = self.all(request);
        let (mut answers, mut trim, mut why, mut unknown) = (0, 0, None, 0);
        while let Some((_, outcome)) = asked.next().await {
            match outcome {
                Ok(tail) => {
                    let knows = tail.trim >= least.0;
                    answers += usize::from(knows || planted::has(planted::Bug::TrimsWhatItHas));
                    trim = trim.max(tail.trim);
                }
                Err(LogletError::Unknown(_)) => unknown += 1,
                Err(error) => why = Some(error),
            }
            if answers >= self.majority() {
                self.trimmed.fetch_max(trim, Ordering::Relaxed);
                return Ok(LogletPos(trim));
            }
        }
        Err(self.too_few(unknown, why))
    }

    /// The highest trim point that this process was told.
    pub(super) fn known_trim(&self) -> LogletPos {
        LogletPos(self.trimmed.load(Ordering::Relaxed))
    }
}

fn local_tail(tail: &messages::LocalTail) -> LocalTail {
    LocalTail { tail: tail.tail.into(), sealed: tail.sealed }
}

/// Tells every node that holds logs which loglets of a log are dead. Nodes that are away, or silent
/// just now, learn it from the chain when they are back.
pub(super) async fn retire(
    net: &Net,
    log: LogId,
    live: &[u32],
    bound: u32,
) -> Result<(), LogletError> {
    let cluster = net.cluster();
    let all = cluster.nodes.iter().map(crate::wire::messages::Node::member);
    let (silent, heard): (Vec<_>, Vec<_>) = all.partition(|member| net.is_silent(*member));
    let told = if heard.is_empty() { silent } else { heard }.into_iter().map(|member| {
        let request = Request::Retire(Retire { log: log.0.into(), live: live.to_vec(), bound });
        net.ask(member, Lane::Control, request, Bytes::new())
    });
    let mut why = None;
    for answer in futures_util::future::join_all(told).await {
        match answer {
            Ok((Reply::Failure(failure), _)) => why = Some(failure.error()),
            Ok(_) => return Ok(()),
            Err(error) => why = Some(error.error().clone()),
        }
    }
    match why {
        Some(error) if error.code() == ErrorCode::Unavailable => {
            Err(LogletError::Unavailable(error.into()))
        }
        Some(error) => Err(LogletError::Refused(error)),
        None => Ok(()),
    }
}
