//! Loglets of kind `local`, through the owner of their directory.
//!
//! All but appends may be asked twice, so it is asked again when the owner goes; appends are in
//! `appends.rs`. Tails come from the owner's own state, pushed.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;
use virtuallog_protocol::{Batch, LogId, LogletConfig, LogletId, LogletPos, StampedBatch, Tail};

use super::Guest;
use super::appends::Appends;
use crate::cluster::{failure, unexpected};
use crate::error::{BoxError, Error, ErrorCode};
use crate::loglet::{Ack, Loglet, LogletError, LogletProvider};
use crate::loglets::local;
use crate::wire::frame::{READ_BYTES_MAX, get_batches};
use crate::wire::messages::{
    self, Create, LocalTail, Read, Reply, Request, Retire, Trim, WaitTail,
};
use crate::wire::transport::Lane;

/// A loglet in a directory that somebody else owned when it was opened.
#[derive(Debug)]
struct GuestLoglet {
    id: LogletId,
    guest: Arc<Guest>,
    appends: Arc<Appends>,
}

/// The batches of an answer, if they are of this loglet.
pub(super) fn batches(id: LogletId, body: Bytes) -> Result<Vec<StampedBatch>, LogletError> {
    let batches = get_batches(body).map_err(|e| LogletError::Corrupt(e.message().to_owned()))?;
    match batches.iter().find(|batch| batch.loglet != id) {
        None => Ok(batches),
        Some(wrong) => {
            Err(LogletError::Corrupt(format!("a batch of loglet {} came instead", wrong.loglet)))
        }
    }
}

/// A question about one loglet.
pub(super) fn about(id: LogletId) -> messages::Loglet {
    messages::Loglet { loglet: id.into() }
}

async fn ask(
    guest: &Guest,
    id: LogletId,
    lane: Lane,
    request: Request,
) -> Result<(Reply, Bytes), LogletError> {
    match guest.ask(lane, request).await {
        Ok((Reply::Failure(wrong), _, _)) => Err(failure(&wrong, id)),
        Ok((reply, body, _)) => Ok((reply, body)),
        Err(error) => match error.error().code() {
            ErrorCode::Closed | ErrorCode::Busy => Err(LogletError::Refused(error.error().clone())),
            _ => Err(LogletError::Unavailable(error.error().clone().into())),
        },
    }
}

fn unknown_answer() -> LogletError {
    LogletError::Unavailable(BoxError::from(unexpected()))
}

async fn tail(guest: &Guest, id: LogletId, request: Request) -> Result<LocalTail, LogletError> {
    match ask(guest, id, Lane::Control, request).await?.0 {
        Reply::LocalTail(tail) => Ok(tail),
        _ => Err(unknown_answer()),
    }
}

impl GuestLoglet {
    fn found(id: LogletId, guest: &Arc<Guest>, tail: &LocalTail) -> Arc<dyn Loglet> {
        let appends = Appends::new(id, guest.clone(), LogletPos(tail.tail));
        Arc::new(GuestLoglet { id, guest: guest.clone(), appends })
    }

    async fn tail(&self, request: Request) -> Result<LocalTail, LogletError> {
        let tail = tail(&self.guest, self.id, request).await?;
        self.appends.learn(LogletPos(tail.tail));
        Ok(tail)
    }
}

#[async_trait]
impl Loglet for GuestLoglet {
    fn append(&self, batch: Batch, ack: Ack) {
        self.appends.append(batch, None, ack);
    }

    async fn check_tail(&self) -> Result<Tail<LogletPos>, LogletError> {
        let LocalTail { tail, sealed, .. } = self.tail(Request::GetTail(about(self.id))).await?;
        Ok(Tail { position: LogletPos(tail), sealed })
    }

    async fn wait_tail(&self, known: LogletPos) -> Result<Tail<LogletPos>, LogletError> {
        let wait = WaitTail { loglet: self.id.into(), local: Some(known.0 + 1), known: None };
        loop {
            let LocalTail { tail, sealed, .. } = self.tail(Request::WaitTail(wait.clone())).await?;
            if tail > known.0 || sealed {
                return Ok(Tail { position: LogletPos(tail), sealed });
            }
        }
    }

    async fn read(
        &self,
        from: LogletPos,
        to: LogletPos,
        bytes_max: usize,
    ) -> Result<Vec<StampedBatch>, LogletError> {
        let bytes_max = bytes_max.min(READ_BYTES_MAX) as u64;
        let read = Read { loglet: self.id.into(), from: from.0, to: to.0, bytes_max };
        match ask(&self.guest, self.id, Lane::Read, Request::Read(read)).await? {
            (Reply::Batches(_), body) => batches(self.id, body),
            _ => Err(unknown_answer()),
        }
    }

    async fn prefix_trim(&self, keep_from: LogletPos) -> Result<LogletPos, LogletError> {
        let trim = Trim { loglet: self.id.into(), keep_from: keep_from.0 };
        Ok(LogletPos(self.tail(Request::Trim(trim)).await?.trim))
    }

    async fn trim_point(&self) -> Result<LogletPos, LogletError> {
        Ok(LogletPos(self.tail(Request::GetTail(about(self.id))).await?.trim))
    }

    async fn seal(&self) -> Result<(), LogletError> {
        self.tail(Request::Seal(about(self.id))).await.map(drop)
    }

    async fn fill(&self, first: LogletPos, batch: Batch) -> Result<(), LogletError> {
        let (tell, told) = oneshot::channel();
        let ack = Ack::new(move |outcome| {
            let _ = tell.send(outcome);
        });
        self.appends.append(batch, Some(first), ack);
        let gone = |_| LogletError::InDoubt("the loglet was closed".into());
        told.await.map_err(gone)?.map(drop)
    }
}

/// Local loglets of a directory that somebody else owned when it was opened.
#[derive(Debug)]
pub(crate) struct GuestProvider {
    guest: Arc<Guest>,
}

impl GuestProvider {
    pub(crate) fn new(guest: Arc<Guest>) -> Self {
        Self { guest }
    }
}

#[async_trait]
impl LogletProvider for GuestProvider {
    fn kind(&self) -> &str {
        local::KIND
    }

    fn plan(&self, args: &str) -> Result<LogletConfig, Error> {
        local::plan(args)
    }

    async fn create(
        &self,
        id: LogletId,
        _config: &LogletConfig,
        base: LogletPos,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        let create = Create { loglet: id.into(), base: base.0, sequence: None };
        let tail = tail(&self.guest, id, Request::Create(create)).await?;
        Ok(GuestLoglet::found(id, &self.guest, &tail))
    }

    async fn open(
        &self,
        id: LogletId,
        _config: &LogletConfig,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        let tail = tail(&self.guest, id, Request::GetTail(about(id))).await?;
        Ok(GuestLoglet::found(id, &self.guest, &tail))
    }

    async fn retire(&self, log: LogId, live: &[u32], bound: u32) -> Result<(), LogletError> {
        let retire = Retire { log: log.0.into(), live: live.to_vec(), bound };
        let nobody = LogletId { log, segment: bound };
        ask(&self.guest, nobody, Lane::Control, Request::Retire(retire)).await.map(drop)
    }
}
