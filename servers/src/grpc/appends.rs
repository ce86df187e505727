//! The stream that appends: requests taken in order, outcomes given in order, and no task for it.
//!
//! It is one state machine that the connection polls for its next reply. Each poll submits what there is
//! room for and gives back every outcome that is there, so that answers of one group commit leave as one
//! message. A client that does not take its answers is not read from, and nothing grows.
//!
//! The first failure ends it: nothing more is taken, all that was submitted is answered, and the stream
//! ends with the failure's status. So what was acknowledged is a prefix of what was sent.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use futures_core::future::BoxFuture;
use tonic::{Code, Status, Streaming};
use virtuallog::{Append, Error, ErrorCode, LogPos, Result, VirtualLog};

use super::Gateway;
use super::proto::append_outcome::Result as Outcome;
use super::proto::append_request::Mode;
use super::proto::{AppendOutcome, AppendReply, AppendRequest};
use super::status::{message, status, stopping};

/// No more is taken beyond so many appends, or so many bytes, without an outcome.
const APPENDS_OUT_MAX: usize = 8192;
const BYTES_OUT_MAX: usize = 16 << 20;
/// Outcomes in one reply, at most.
const OUTCOMES_MAX: usize = 1024;

/// One `Append` call.
pub(super) struct Appends {
    requests: Streaming<AppendRequest>,
    log: VirtualLog,
    /// Keeps the store open, and counts as a use of it.
    _shared: Arc<VirtualLog>,
    request_bytes_max: usize,
    stopped: BoxFuture<'static, ()>,
    /// The payloads of the last request that were not submitted yet, each an append of its own.
    rest: Rest,
    /// What was submitted and has no outcome yet, oldest first.
    out: VecDeque<Submitted>,
    out_bytes: usize,
    /// Why nothing more is taken: `Ok` when the client has sent all.
    end: Option<Result<(), Status>>,
}

#[derive(Default)]
struct Rest {
    id: u64,
    index: u32,
    payloads: std::vec::IntoIter<Bytes>,
}

struct Submitted {
    id: u64,
    index: u32,
    count: u32,
    bytes: usize,
    append: Append,
}

impl Appends {
    /// Waits for the first request, which names the log, and opens it.
    pub(super) async fn open(
        gateway: Arc<Gateway>,
        mut requests: Streaming<AppendRequest>,
    ) -> Result<Appends, Status> {
        let request_bytes_max = gateway.request_bytes_max();
        let first = tokio::select! {
            () = gateway.stopped() => return Err(stopping()),
            first = requests.message() => first,
        };
        let first = first.map_err(|status| refused(status, request_bytes_max))?.unwrap_or_default();
        let opened = gateway.writer(&first.log, first.create).await;
        let (log, shared) = opened.map_err(status)?;
        let mut appends = Appends {
            requests,
            log,
            _shared: shared,
            request_bytes_max,
            stopped: Box::pin(gateway.stopped()),
            rest: Rest::default(),
            out: VecDeque::new(),
            out_bytes: 0,
            end: None,
        };
        if !first.payloads.is_empty() {
            appends.accept(first);
        }
        Ok(appends)
    }

    /// Submits what there is and what comes, as far as there is room.
    fn take(&mut self, context: &mut Context<'_>) {
        if self.end.is_none() && self.stopped.as_mut().poll(context).is_ready() {
            self.end = Some(Err(stopping()));
        }
        while self.end.is_none()
            && self.out.len() < APPENDS_OUT_MAX
            && self.out_bytes < BYTES_OUT_MAX
        {
            if let Some(payload) = self.rest.payloads.next() {
                let (id, index, bytes) = (self.rest.id, self.rest.index, payload.len());
                self.rest.index += 1;
                let append = self.log.append(payload);
                self.submitted(Submitted { id, index, count: 1, bytes, append });
                continue;
            }
            match Pin::new(&mut self.requests).poll_next(context) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(request))) => self.accept(request),
                Poll::Ready(Some(Err(status))) => {
                    self.end = Some(Err(refused(status, self.request_bytes_max)));
                }
                Poll::Ready(None) => self.end = Some(Ok(())),
            }
        }
    }

    /// Submits a request, or sets its payloads out to be submitted one by one.
    fn accept(&mut self, request: AppendRequest) {
        let AppendRequest { log, id, payloads, mode, .. } = request;
        let invalid = |message: String| Some(Err(status(Error::invalid(message))));
        if !log.is_empty() && log != self.log.name() {
            let open = self.log.name();
            self.end = invalid(format!(
                "request {id} names the log `{log}` on a stream for `{open}`: open a stream for each"
            ));
            return;
        }
        match Mode::try_from(mode) {
            _ if payloads.is_empty() => {
                self.end =
                    invalid(format!("request {id} has no payloads: an append has at least one"));
            }
            Ok(Mode::Together) => {
                let count = u32::try_from(payloads.len()).unwrap_or(u32::MAX);
                let bytes = payloads.iter().map(Bytes::len).sum();
                let append = self.log.append_many(payloads);
                self.submitted(Submitted { id, index: 0, count, bytes, append });
            }
            Ok(Mode::Each) => self.rest = Rest { id, index: 0, payloads: payloads.into_iter() },
            Err(_) => self.end = invalid(format!("request {id} has the unknown mode {mode}")),
        }
    }

    fn submitted(&mut self, mut submitted: Submitted) {
        // What is refused at once must keep what comes behind it from being submitted.
        if let Some(Err(error)) = submitted.append.wait_timeout(Duration::ZERO) {
            self.end = Some(Err(status(error)));
        }
        self.out_bytes += submitted.bytes;
        self.out.push_back(submitted);
    }

    /// The outcomes that are there, oldest first.
    fn settle(&mut self, context: &mut Context<'_>) -> Vec<AppendOutcome> {
        let mut outcomes = Vec::new();
        while outcomes.len() < OUTCOMES_MAX
            && let Some(oldest) = self.out.front_mut()
            && let Poll::Ready(result) = Pin::new(&mut oldest.append).poll(context)
        {
            let Submitted { id, index, count, bytes, .. } =
                self.out.pop_front().expect("it was just looked at");
            self.out_bytes -= bytes;
            let result = match result {
                Ok(position) if extend(outcomes.last_mut(), id, index, position) => continue,
                Ok(LogPos(position)) => Outcome::Position(position),
                Err(error) => {
                    let outcome = Outcome::Error(message(&error));
                    if !matches!(self.end, Some(Err(_))) {
                        self.end = Some(Err(status(error)));
                    }
                    outcome
                }
            };
            outcomes.push(AppendOutcome { id, index, count, result: Some(result) });
        }
        outcomes
    }
}

/// Whether the payload could be put to the outcome before it: the next one of the same request, right
/// behind it in the log.
fn extend(last: Option<&mut AppendOutcome>, id: u64, index: u32, position: LogPos) -> bool {
    let Some(last) = last.filter(|last| last.id == id) else { return false };
    let next = Outcome::Position(position.0.wrapping_sub(last.count.into()));
    let follows = last.result == Some(next) && last.index + last.count == index;
    last.count += u32::from(follows);
    follows
}

/// Why no more requests come: a message over the limit is the client's own doing and has a code.
fn refused(error: Status, request_bytes_max: usize) -> Status {
    match error.code() {
        Code::OutOfRange => {
            let message = format!("a request has at most {request_bytes_max} bytes: split it");
            status(Error::new(ErrorCode::TooLarge, message))
        }
        _ => error,
    }
}

impl Stream for Appends {
    type Item = Result<AppendReply, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        this.take(context);
        let outcomes = this.settle(context);
        if !outcomes.is_empty() {
            return Poll::Ready(Some(Ok(AppendReply { outcomes })));
        }
        match &mut this.end {
            Some(end) if this.out.is_empty() => {
                let end = std::mem::replace(end, Ok(()));
                Poll::Ready(end.err().map(Err))
            }
            _ => Poll::Pending,
        }
    }
}
