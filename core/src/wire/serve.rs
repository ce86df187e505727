//! Connections from the side that answers.
//!
//! A handler gets each request with the means to answer it, at any time and from any thread. Of one
//! connection only so many bytes may be unanswered; the other side knows how many, and is not read
//! from while it does not keep to it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::MAGIC;
use super::frame::Packet;
use super::messages::{Failure, FailureKind, Hello, Reply, Request, VERSION_MIN, Welcome};
use super::stream::{Inbox, Outbox, Stream, io_error};
use super::transport::Lane;
use crate::error::{Error, ErrorCode, Result};

/// What one connection may have unanswered, in bytes, unless it is one message alone: no more than a disk
/// takes in a fraction of a second, and half of what a sequencer takes, so that a lone client, whose
/// batches count more there, is not refused.
pub(crate) const CREDIT_BYTES: usize = 16 << 20;
/// How long a greeting may take.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes that each request counts besides its own.
const REQUEST_BYTES: usize = 256;

/// Answers requests.
pub(crate) trait Handler: Send + Sync + fmt::Debug + 'static {
    /// Whether to speak with the other side at all.
    ///
    /// # Errors
    /// Told to the other side, and the connection ends.
    fn greet(&self, hello: &Hello) -> Result<Welcome>;

    /// Answers one request; must not block.
    fn handle(&self, from: &Caller, request: Request, body: Bytes, answer: Answer);

    /// As [`handle`](Self::handle), on [`batch_thread`](Self::batch_thread), of a request behind
    /// which nothing else came yet: it may block as long as a disk does.
    fn handle_alone(&self, from: &Caller, request: Request, body: Bytes, answer: Answer) {
        self.handle(from, request, body, answer);
    }

    /// Where connections are served on which batches come: a runtime of one thread that may wait for
    /// a disk. Nowhere else than the others, if there is none.
    fn batch_thread(&self) -> Option<Handle> {
        None
    }

    /// The other side has gone.
    fn gone(&self, from: &Caller);

    /// Whether it answers nothing any more.
    fn is_stopped(&self) -> bool {
        false
    }
}

/// The other side of a connection.
#[derive(Debug)]
pub(crate) struct Caller {
    /// `None`: this very process.
    pub(crate) hello: Option<Hello>,
}

impl Caller {
    pub(crate) fn local() -> Caller {
        Caller { hello: None }
    }
}

/// The right to answer one request. Dropped, it says that the outcome is in doubt.
pub(crate) struct Answer(Option<Box<dyn FnOnce(Packet) + Send>>);

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

impl Answer {
    pub(crate) fn new(send: impl FnOnce(Packet) + Send + 'static) -> Self {
        Self(Some(Box::new(send)))
    }

    /// Answers, with batches behind it.
    pub(crate) fn with(mut self, reply: Reply, body: Bytes) {
        if let Some(send) = self.0.take() {
            send(Packet::reply(reply, body));
        }
    }

    pub(crate) fn reply(self, reply: Reply) {
        self.with(reply, Bytes::new());
    }

    pub(crate) fn refuse(self, error: &Error) {
        self.reply(Reply::refused(error));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(send) = self.0.take() {
            let failure =
                Failure::new(FailureKind::Unavailable, "the server dropped the request", 0);
            send(Packet::reply(Reply::Failure(failure), Bytes::new()));
        }
    }
}

/// Bytes of requests that wait for an answer.
#[derive(Debug, Default)]
struct InFlight {
    bytes: AtomicUsize,
    less: Notify,
}

/// Serves one connection until it ends.
///
/// # Errors
/// Why it ended, when that was not the other side's free will.
pub(crate) async fn serve(stream: Stream, handler: Arc<dyn Handler>) -> Result<()> {
    let stream = Arc::new(stream);
    let outbox = Arc::new(Outbox::new(stream.clone()));
    let mut inbox = Inbox::new(stream);
    let greeting = tokio::time::timeout(GREETING_TIMEOUT, greet(&mut inbox, &outbox, &handler));
    let too_slow = |_| Err(Error::new(ErrorCode::Deadline, "no greeting came"));
    let guest = tokio::select! {
        biased;
        guest = greeting => guest.unwrap_or_else(too_slow)?,
        why = outbox.run() => return Err(why),
    };
    let lane = guest.0.hello.as_ref().map_or(0, |hello| hello.lane);
    let thread = handler.batch_thread().filter(|_| lane == Lane::Append as u32);
    let Some(thread) = thread.filter(|_| outbox.is_idle()) else {
        return requests(inbox, outbox, guest, false).await;
    };
    drop(outbox);
    let (stream, received) = inbox.into_parts();
    let stream = Arc::into_inner(stream).expect("in- and outbox had it, and are gone");
    let stream = stream.detach().map_err(io_error)?;
    let work = async move {
        let stream = Arc::new(stream.attach().map_err(io_error)?);
        let inbox = Inbox::with(stream.clone(), received);
        requests(inbox, Arc::new(Outbox::new(stream)), guest, true).await
    };
    // Ends with this future, whoever drops it.
    let mut task = JoinSet::new();
    task.spawn_on(work, &thread);
    task.join_next().await.and_then(std::result::Result::ok).unwrap_or(Ok(()))
}

/// Tells the handler when the other side has gone, however the connection ends.
struct Guest(Caller, Arc<dyn Handler>);

impl Drop for Guest {
    fn drop(&mut self) {
        self.1.gone(&self.0);
    }
}

async fn greet(inbox: &mut Inbox, outbox: &Outbox, handler: &Arc<dyn Handler>) -> Result<Guest> {
    if inbox.raw(MAGIC.len()).await? != MAGIC[..] {
        let message = "what connected speaks another protocol";
        return Err(Error::new(ErrorCode::Incompatible, message));
    }
    let (id, packet) = inbox.frame().await?;
    let welcome = match packet.to_request()? {
        Request::Hello(hello) if hello.version < VERSION_MIN => Err(Error::new(
            ErrorCode::Incompatible,
            format!("version {} of the protocol is too old here: upgrade", hello.version),
        )),
        Request::Hello(hello) => handler.greet(&hello).map(|welcome| (hello, welcome)),
        _ => Err(Error::new(ErrorCode::Incompatible, "a connection begins with a greeting")),
    };
    match welcome {
        Ok((hello, welcome)) => {
            let guest = Guest(Caller { hello: Some(hello) }, handler.clone());
            let reply = Packet::reply(Reply::Welcome(welcome), Bytes::new());
            outbox.frame(id, &reply)?;
            Ok(guest)
        }
        Err(error) => {
            outbox.frame(id, &Packet::reply(Reply::refused(&error), Bytes::new()))?;
            Err(error)
        }
    }
}

/// Answers requests until the connection ends; `may_block`: on a thread that may wait for a disk.
async fn requests(
    mut inbox: Inbox,
    outbox: Arc<Outbox>,
    guest: Guest,
    may_block: bool,
) -> Result<()> {
    let Guest(caller, handler) = &guest;
    let in_flight = Arc::new(InFlight::default());
    let work = async {
        loop {
            while in_flight.bytes.load(Ordering::Acquire) > CREDIT_BYTES {
                in_flight.less.notified().await;
            }
            let Ok((id, packet)) = inbox.frame().await else { return };
            let answer = answer_to(id, &packet, &outbox, &in_flight);
            match packet.to_request() {
                Ok(request) if may_block && inbox.is_empty() => {
                    handler.handle_alone(caller, request, packet.body, answer);
                }
                Ok(request) => handler.handle(caller, request, packet.body, answer),
                Err(error) => answer.refuse(&error),
            }
        }
    };
    let ended = tokio::select! {
        biased;
        () = work => Ok(()),
        why = outbox.run() => Err(why),
    };
    outbox.close(Error::new(ErrorCode::Closed, "the connection ended"));
    ended
}

/// The right to answer a request, which counts until it is used.
fn answer_to(id: u64, packet: &Packet, outbox: &Arc<Outbox>, in_flight: &Arc<InFlight>) -> Answer {
    let size = packet.len() + REQUEST_BYTES;
    in_flight.bytes.fetch_add(size, Ordering::AcqRel);
    let (outbox, counted) = (outbox.clone(), in_flight.clone());
    Answer::new(move |packet| {
        if id != 0 {
            // A connection that broke tells its reader by itself.
            let _ = outbox.frame(id, &packet);
        }
        counted.bytes.fetch_sub(size, Ordering::AcqRel);
        counted.less.notify_one();
    })
}
