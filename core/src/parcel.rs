//! What is submitted: checked against its limits, then collected into what goes out as one batch.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;
use virtuallog_protocol::limits::{BATCH_BYTES_MAX, BATCH_ENTRIES_MAX};
use virtuallog_protocol::{Batch, BatchBuilder, LogPos, LogletPos};

use crate::error::{Error, ErrorCode, Result};
use crate::store::Options;
use crate::ticket::Ticket;
use crate::token::Token;

/// What an entry counts in the window besides its payload, so that empty entries fill it too.
pub(crate) const ENTRY_WEIGHT: usize = 64;

/// What one call submits.
#[derive(Debug)]
pub(crate) enum Payloads<'a> {
    /// An entry, which may share its batch with others.
    One(Payload<'a>),
    /// A batch of its own: atomic and contiguous.
    Together(Vec<Bytes>),
}

/// An entry's bytes. Those that are lent are copied once, into the batch, where there is room at once.
#[derive(Debug)]
pub(crate) enum Payload<'a> {
    Kept(Bytes),
    Lent(&'a [u8]),
}

impl Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Payload::Kept(bytes) => bytes,
            Payload::Lent(bytes) => bytes,
        }
    }
}

impl Payloads<'_> {
    /// What it counts in the window, if it keeps within the limits.
    pub(crate) fn check(&self, options: &Options) -> Result<usize> {
        match self {
            Payloads::One(payload) => {
                check_entry(options, payload)?;
                Ok(payload.len() + ENTRY_WEIGHT)
            }
            Payloads::Together(payloads) => check_batch(options, payloads),
        }
    }

    /// The same, to be kept.
    pub(crate) fn into_owned(self) -> Payloads<'static> {
        Payloads::One(Payload::Kept(match self {
            Payloads::Together(payloads) => return Payloads::Together(payloads),
            Payloads::One(Payload::Kept(bytes)) => bytes,
            Payloads::One(Payload::Lent(bytes)) => Bytes::copy_from_slice(bytes),
        }))
    }
}

fn check_entry(options: &Options, payload: &[u8]) -> Result<()> {
    let max = options.entry_bytes_max;
    if payload.len() <= max {
        return Ok(());
    }
    let message = format!(
        "entry of {} bytes is over the limit of {max}: split it, or open the log with a larger \
         `entry_bytes_max`",
        payload.len()
    );
    Err(Error::new(ErrorCode::TooLarge, message))
}

/// The weight of a batch that keeps within the limits.
fn check_batch(options: &Options, payloads: &[Bytes]) -> Result<usize> {
    if payloads.is_empty() {
        return Err(Error::invalid("an empty batch takes no position: append at least one entry"));
    }
    let bytes: usize = payloads.iter().map(Bytes::len).sum();
    let over = |what: String| {
        Err(Error::new(ErrorCode::TooLarge, format!("{what}: append it in several batches")))
    };
    if payloads.len() > BATCH_ENTRIES_MAX {
        return over(format!("{} entries are over a batch's {BATCH_ENTRIES_MAX}", payloads.len()));
    }
    payloads.iter().try_for_each(|payload| check_entry(options, payload))?;
    if bytes > BATCH_BYTES_MAX && payloads.len() > 1 {
        return over(format!("{bytes} bytes are over a batch's {BATCH_BYTES_MAX}"));
    }
    Ok(bytes + payloads.len() * ENTRY_WEIGHT)
}

/// Entries that go out as one batch.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) entries: Entries,
    /// Writer and sequence number of its first entry, and where the log ended when that came, or when it
    /// was sent.
    mark: Option<Token>,
    pub(crate) ticket: Arc<Ticket>,
    /// Tickets of entries that had to wait for the window, with their index in the batch.
    pub(crate) latecomers: Vec<(Arc<Ticket>, u64)>,
    /// Whether a caller holds `ticket` itself.
    pub(crate) held: bool,
    pub(crate) since: Option<Instant>,
    pub(crate) weight: usize,
}

#[derive(Debug)]
pub(crate) enum Entries {
    Collected(BatchBuilder),
    /// Framed before, and proved absent from the segment that it was sent to.
    Framed(Batch),
    /// On the way: the batch is beside the parcel.
    Out,
}

impl Parcel {
    /// An empty one with room for so many bytes.
    pub(crate) fn empty(capacity: usize) -> Self {
        Self {
            entries: Entries::Collected(BatchBuilder::with_capacity(capacity)),
            mark: None,
            ticket: Arc::default(),
            latecomers: Vec::new(),
            held: false,
            since: None,
            weight: 0,
        }
    }

    /// What the entries are collected in, while they are.
    pub(crate) fn builder(&mut self) -> &mut BatchBuilder {
        match &mut self.entries {
            Entries::Collected(builder) => builder,
            _ => unreachable!("only the open parcel is collected into"),
        }
    }

    /// Names the entries to come, so that one can be looked up whatever happens to it.
    pub(crate) fn begin(&mut self, token: Token) {
        let _ = self.ticket.call(token.clone());
        self.mark = Some(token);
        self.since = Some(Instant::now());
    }

    /// Names the entries by where they are about to be sent. False when they must not go there, see
    /// [`Ticket::call`].
    pub(crate) fn address(&mut self, segment: u32, from: LogletPos) -> bool {
        let mark = self.mark.as_mut().expect("a parcel begins with its first entry");
        if mark.segment == segment {
            return true;
        }
        (mark.segment, mark.from) = (segment, from);
        let mark = mark.clone();
        let mut others = self.latecomers.iter();
        self.ticket.call(mark.clone()) && others.all(|(ticket, at)| ticket.call(mark.plus(*at)))
    }

    /// What names its first entry.
    pub(crate) fn token(&self) -> &Token {
        self.mark.as_ref().expect("a parcel begins with its first entry")
    }

    /// Adds an entry that fits, and gives its index.
    pub(crate) fn push(&mut self, payload: &[u8]) -> u64 {
        let builder = self.builder();
        let index = u64::from(builder.count());
        builder.push(payload);
        self.weight += payload.len() + ENTRY_WEIGHT;
        index
    }

    /// The tickets that callers hold.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = &Arc<Ticket>> {
        let own = self.held.then_some(&self.ticket);
        own.into_iter().chain(self.latecomers.iter().map(|(ticket, _)| ticket))
    }

    /// Tells everybody.
    pub(crate) fn settle(self, outcome: &Result<LogPos>) {
        for (ticket, index) in self.latecomers {
            ticket.settle(match outcome {
                Ok(first) => Ok(first.plus(index)),
                Err(error) => Err(error.clone().for_entry(index)),
            });
        }
        self.ticket.settle(outcome.clone());
    }
}
