//! The calls: each one converts its request, runs one operation of the log, and converts the answer.
//!
//! Streams of entries are made as the client takes them, so a slow reader costs no more memory than a
//! fast one. The stream that appends has a file of its own, `appends.rs`.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;

use futures_util::TryFutureExt;
use futures_util::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status, Streaming, async_trait};
use virtuallog::protocol::chain::{Life, Next};
use virtuallog::{Entry, Error, LogPos, Reader, Result, Start, TrimLimit, VirtualLog};

use super::Gateway;
use super::appends::Appends;
use super::proto::reconfigure_request::{Change, Extend, Modify, Truncate};
use super::proto::subscribe_request::{self, Edge};
use super::proto::{self, log_server};
use super::status::{status, stopping};

/// Entries in one reply, at most.
const ENTRIES_MAX: usize = 4096;
/// Bytes of payload in one reply, unless one entry alone has more.
const REPLY_BYTES_MAX: usize = 1 << 20;
/// Names in one reply, at most.
const NAMES_MAX: usize = 1024;

/// What a call comes back with.
pub(super) type Reply<T> = Result<Response<T>, Status>;
type Replies<T> = BoxStream<'static, Result<T, Status>>;

/// The service `Log` over the logs of a gateway.
pub(super) struct Service(pub(super) Arc<Gateway>);

impl Service {
    /// Runs one operation of a log and replies with what `convert` makes of its answer.
    async fn call<T, R, F>(
        &self,
        name: &str,
        call: impl Fn(Arc<VirtualLog>) -> F,
        convert: impl FnOnce(T) -> R,
    ) -> Reply<R>
    where
        F: Future<Output = Result<T>>,
    {
        reply(self.0.with(name, call).await.map(convert))
    }
}

pub(super) fn reply<T>(outcome: Result<T>) -> Reply<T> {
    outcome.map(Response::new).map_err(status)
}

#[async_trait]
impl log_server::Log for Service {
    type AppendStream = Replies<proto::AppendReply>;
    type ReadStream = Replies<proto::ReadReply>;
    type SubscribeStream = Replies<proto::ReadReply>;
    type ListStream = Replies<proto::ListReply>;

    async fn append(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Reply<Self::AppendStream> {
        // Opened inside the stream: a client may wait for headers before it sends anything.
        let appends = Appends::open(self.0.clone(), request.into_inner());
        Ok(Response::new(appends.try_flatten_stream().boxed()))
    }

    async fn read(&self, request: Request<proto::ReadRequest>) -> Reply<Self::ReadStream> {
        let request = request.into_inner();
        let reader = self.0.with(&request.log, async |log| {
            let start = match request.start {
                Some(start) => LogPos(start),
                None => log.first().await?,
            };
            let reader = log.read(start, request.end.map(LogPos)).await?;
            Ok((log, reader))
        });
        let (log, reader) = reader.await.map_err(status)?;
        Ok(Response::new(replies(&self.0, log, reader)))
    }

    async fn subscribe(
        &self,
        request: Request<proto::SubscribeRequest>,
    ) -> Reply<Self::SubscribeStream> {
        let request = request.into_inner();
        let start = start(request.start).map_err(status)?;
        let reader = self.0.with(&request.log, async |log| {
            let reader = log.subscribe(start).await?;
            Ok((log, reader))
        });
        let (log, reader) = reader.await.map_err(status)?;
        let first = proto::ReadReply { entries: Vec::new(), next: reader.position().0 };
        let first = stream::iter([Ok(first)]);
        Ok(Response::new(first.chain(replies(&self.0, log, reader)).boxed()))
    }

    async fn check_tail(&self, request: Request<proto::CheckTailRequest>) -> Reply<proto::Tail> {
        let name = request.into_inner().log;
        self.call(&name, async |log| log.check_tail().await, tail).await
    }

    async fn trim(&self, request: Request<proto::TrimRequest>) -> Reply<proto::TrimReply> {
        let proto::TrimRequest { log: name, keep_from } = request.into_inner();
        let trim = async |log: Arc<VirtualLog>| log.prefix_trim(LogPos(keep_from)).await;
        self.call(&name, trim, trimmed).await
    }

    async fn seal(&self, request: Request<proto::SealRequest>) -> Reply<proto::Tail> {
        let name = request.into_inner().log;
        self.call(&name, async |log| log.seal().await, tail).await
    }

    async fn get_chain(&self, request: Request<proto::GetChainRequest>) -> Reply<proto::Chain> {
        let name = request.into_inner().log;
        self.call(&name, async |log| log.chain().await, chain).await
    }

    async fn reconfigure(
        &self,
        request: Request<proto::ReconfigureRequest>,
    ) -> Reply<proto::Chain> {
        let proto::ReconfigureRequest { log: name, if_version, change } = request.into_inner();
        let reconfigure = async |log: Arc<VirtualLog>| match &change {
            Some(Change::Extend(Extend { loglet })) => {
                log.reconfig_extend(loglet, if_version).await
            }
            Some(Change::Truncate(Truncate {})) => log.reconfig_truncate(if_version).await,
            Some(Change::Modify(Modify { segment, loglet })) => {
                log.reconfig_modify(*segment, loglet, if_version).await
            }
            None => {
                Err(Error::invalid("`change` is missing: say `extend`, `truncate` or `modify`"))
            }
        };
        self.call(&name, reconfigure, chain).await
    }

    async fn resolve(&self, request: Request<proto::ResolveRequest>) -> Reply<proto::ResolveReply> {
        let proto::ResolveRequest { log: name, token } = request.into_inner();
        let token = token.parse().map_err(status)?;
        let resolve = async |log: Arc<VirtualLog>| log.resolve(&token).await;
        let found =
            |position: Option<LogPos>| proto::ResolveReply { position: position.map(u64::from) };
        self.call(&name, resolve, found).await
    }

    async fn create(&self, request: Request<proto::CreateRequest>) -> Reply<proto::CreateReply> {
        let proto::CreateRequest { log: name, loglet } = request.into_inner();
        let builder = self.0.builder(&name).map_err(status)?;
        let builder = if loglet.is_empty() { builder } else { builder.loglet(&loglet) };
        reply(builder.create_new().await.map(|()| proto::CreateReply {}))
    }

    async fn delete(&self, request: Request<proto::DeleteRequest>) -> Reply<proto::DeleteReply> {
        let name = request.into_inner().log;
        let deleted = self.0.builder(&name).map_err(status)?.delete().await;
        self.0.forget(&name).await;
        reply(deleted.map(|()| proto::DeleteReply {}))
    }

    async fn list(&self, _request: Request<proto::ListRequest>) -> Reply<Self::ListStream> {
        let mut names = self.0.names().await.map_err(status)?.into_iter();
        let next = move || {
            let logs: Vec<String> = names.by_ref().take(NAMES_MAX).collect();
            (!logs.is_empty()).then_some(Ok(proto::ListReply { logs }))
        };
        Ok(Response::new(stream::iter(std::iter::from_fn(next)).boxed()))
    }
}

/// What a reader gives, reply by reply, until its end or until the server stops. `log` stays in use
/// meanwhile.
fn replies(gateway: &Gateway, log: Arc<VirtualLog>, reader: Reader) -> Replies<proto::ReadReply> {
    let left: VecDeque<Entry> = VecDeque::new();
    let stopped = Box::pin(gateway.stopped());
    stream::try_unfold(
        (reader, left, stopped, log),
        async |(mut reader, mut left, mut stopped, log)| {
            if left.is_empty() {
                let entries = tokio::select! {
                    biased;
                    () = &mut stopped => return Err(stopping()),
                    entries = reader.next_batch(ENTRIES_MAX) => entries.map_err(status)?,
                };
                if entries.is_empty() {
                    return Ok(None);
                }
                left = entries.into();
            }
            let mut reply = proto::ReadReply { entries: Vec::with_capacity(left.len()), next: 0 };
            let mut bytes = 0;
            while let Some(entry) = left.front() {
                bytes += entry.payload.len();
                if bytes > REPLY_BYTES_MAX && !reply.entries.is_empty() {
                    break;
                }
                let Entry { position, payload, written_at_micros } =
                    left.pop_front().expect("it was just looked at");
                reply.next = position.0 + 1;
                reply.entries.push(proto::Entry {
                    position: position.0,
                    payload,
                    written_at_micros,
                });
            }
            if left.is_empty() {
                // Positions may skip, and the reader knows how far it has looked.
                reply.next = reader.position().0;
            }
            Ok(Some((reply, (reader, left, stopped, log))))
        },
    )
    .boxed()
}

fn start(start: Option<subscribe_request::Start>) -> Result<Start> {
    use subscribe_request::Start::{Edge as At, Position};
    match start {
        Some(Position(position)) => Ok(Start::At(LogPos(position))),
        Some(At(edge)) if edge == Edge::First as i32 => Ok(Start::First),
        Some(At(edge)) if edge == Edge::Tail as i32 => Ok(Start::Tail),
        _ => Err(Error::invalid("`start` is missing: give a `position`, or an `edge`")),
    }
}

fn tail(tail: virtuallog::Tail) -> proto::Tail {
    proto::Tail { position: tail.position.0, sealed: tail.sealed }
}

fn trimmed(trimmed: virtuallog::Trimmed) -> proto::TrimReply {
    use proto::trim_reply::Limit;
    let limit = match trimmed.limited_by {
        Some(TrimLimit::Tail) => Limit::Tail,
        Some(TrimLimit::AlreadyTrimmed) => Limit::AlreadyTrimmed,
        _ => Limit::Unspecified,
    };
    proto::TrimReply {
        requested: trimmed.requested.0,
        effective: trimmed.effective.0,
        limited_by: limit.into(),
    }
}

fn chain(chain: virtuallog::Chain) -> proto::Chain {
    use proto::chain::Life as Word;
    let (life, moved_to) = match chain.life {
        Life::Open => (Word::Open, String::new()),
        Life::Ended => (Word::Ended, String::new()),
        Life::Moved { url } => (Word::Moved, url),
    };
    proto::Chain {
        log_id: chain.log.to_string(),
        version: chain.version,
        segments: chain.segments.iter().map(segment).collect(),
        next: chain.next.map(|next| match next {
            Next::End => "end".into(),
            Next::Extend { config, .. } => config.name,
        }),
        life: life.into(),
        moved_to,
    }
}

pub(super) fn segment(segment: &virtuallog::Segment) -> proto::Segment {
    proto::Segment {
        index: segment.index,
        start: segment.start.0,
        stop: segment.stop.map(u64::from),
        loglet: segment.config.name.clone(),
    }
}
