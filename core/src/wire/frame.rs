//! The bytes of a frame, and nothing that moves them.
//!
//! `length: u32 | head length: u32 | id: u64 | head | body`, little endian; `length` counts what
//! follows it. The head is one message (`messages.rs`); the body is record batches as they are on
//! disk, or nothing. An answer carries the id of its request. Lengths are bounded before anything is
//! allocated, and no input panics.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use virtuallog_protocol::fields;
use virtuallog_protocol::limits::{BATCH_ENCODED_MAX, REPLICAS_MAX};
use virtuallog_protocol::record::STAMP_LEN;
use virtuallog_protocol::{Batch, StampedBatch};

use super::messages::{Head, NAMES_MAX, NODES_MAX, Reply, ReplyHead, Request, RequestHead};
use crate::error::{Error, ErrorCode};

/// Most bytes of a message without its body.
pub(crate) const HEAD_BYTES_MAX: usize = 8 << 20;
/// Most bytes that a read asks for; its answer may have one batch more.
pub(crate) const READ_BYTES_MAX: usize = 4 << 20;
/// Most bytes of a frame behind its length.
pub(crate) const FRAME_BYTES_MAX: usize = READ_BYTES_MAX + BATCH_ENCODED_MAX + STAMP_LEN + 4096;
/// A larger frame that did not come at once gets a buffer of its own: a small one behind it that is
/// kept, of a slow LogServer say, would keep all of it.
const SHARED_MAX: usize = 16 << 10;
/// Most bytes of a head in which nothing is counted: it cannot ask for much memory, whatever it repeats.
const HEAD_UNCOUNTED_MAX: usize = 64 << 10;
/// Most of what a larger one repeats: fields of [`Head`], by their numbers.
const FIELDS_MAX: &[(&[u32], usize)] = &[
    (&[1, 11, 3, 1], REPLICAS_MAX),
    (&[1, 18, 2], NODES_MAX),
    (&[1, 19, 2, 1], REPLICAS_MAX),
    (&[1, 22, 1, 2], NODES_MAX),
    (&[2, 8, 1], NAMES_MAX),
    (&[2, 10, 1], REPLICAS_MAX),
    (&[2, 11, 2], NODES_MAX),
];
/// Bytes before the head.
pub(crate) const PREFIX_LEN: usize = 16;

/// One message, encoded, and what travels behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) head: Bytes,
    pub(crate) body: Bytes,
}

impl Packet {
    pub(crate) fn request(request: Request, body: Bytes) -> Packet {
        let request = Some(RequestHead { request: Some(request) });
        let head = Head { request, reply: None }.encode_to_vec().into();
        Packet { head, body }
    }

    pub(crate) fn reply(reply: Reply, body: Bytes) -> Packet {
        let reply = Some(ReplyHead { reply: Some(reply) });
        let head = Head { request: None, reply }.encode_to_vec().into();
        Packet { head, body }
    }

    pub(crate) fn to_request(&self) -> Result<Request, Error> {
        let head = self.to_head().ok_or_else(|| garbage("a message"))?;
        let request = head.request.and_then(|head| head.request);
        request.ok_or_else(|| {
            let message = "a request that this version does not know: use the same version, or one \
                           that is one apart";
            Error::new(ErrorCode::Incompatible, message)
        })
    }

    pub(crate) fn to_reply(&self) -> Result<Reply, Error> {
        let head = self.to_head().ok_or_else(|| garbage("an answer"))?;
        head.reply.and_then(|head| head.reply).ok_or_else(|| garbage("an answer"))
    }

    fn to_head(&self) -> Option<Head> {
        let fits = self.head.len() <= HEAD_UNCOUNTED_MAX || fields::within(&self.head, FIELDS_MAX);
        fits.then(|| Head::decode(self.head.clone()).ok()).flatten()
    }

    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        PREFIX_LEN + self.head.len() + self.body.len()
    }

    /// What stands before the head.
    pub(crate) fn prefix(&self, id: u64) -> [u8; PREFIX_LEN] {
        let mut prefix = [0; PREFIX_LEN];
        let mut to = &mut prefix[..];
        to.put_u32_le((self.len() - 4) as u32);
        to.put_u32_le(self.head.len() as u32);
        to.put_u64_le(id);
        prefix
    }
}

fn garbage(what: &str) -> Error {
    let message = format!("{what} cannot be read: is the other side a virtuallog of this version?");
    Error::new(ErrorCode::Incompatible, message)
}

/// Takes the first frame out of what was received. `None`: it is not complete; `buffer` then has
/// room for what is missing, but never for more than a frame may have.
pub(crate) fn take(buffer: &mut BytesMut) -> Result<Option<(u64, Packet)>, Error> {
    if buffer.len() < PREFIX_LEN {
        return Ok(None);
    }
    let mut prefix = &buffer[..PREFIX_LEN];
    let (len, head, id) =
        (prefix.get_u32_le() as usize, prefix.get_u32_le() as usize, prefix.get_u64_le());
    let rest = PREFIX_LEN - 4;
    if len < rest || len > FRAME_BYTES_MAX || head > HEAD_BYTES_MAX || head > len - rest {
        let message = format!(
            "a frame of {len} bytes with a head of {head} is none: at most {FRAME_BYTES_MAX} and \
             {HEAD_BYTES_MAX}"
        );
        return Err(Error::new(ErrorCode::TooLarge, message));
    }
    let all = 4 + len;
    if buffer.len() < all {
        if all > SHARED_MAX && buffer.capacity() != all {
            let mut own = BytesMut::with_capacity(all);
            own.extend_from_slice(buffer);
            *buffer = own;
        } else {
            buffer.reserve(all - buffer.len());
        }
        return Ok(None);
    }
    let mut frame = buffer.split_to(all).freeze();
    frame.advance(PREFIX_LEN);
    let head = frame.split_to(head);
    Ok(Some((id, Packet { head, body: frame })))
}

/// Stamped batches as the body of a frame.
pub(crate) fn put_batches(batches: &[StampedBatch]) -> Bytes {
    let mut body =
        BytesMut::with_capacity(batches.iter().map(StampedBatch::encoded_len).sum::<usize>());
    for batch in batches {
        body.put_slice(&batch.stamp());
        body.put_slice(batch.batch.as_bytes());
    }
    body.freeze()
}

/// Stamped batches out of the body of a frame: every checksum is looked at.
pub(crate) fn get_batches(mut body: Bytes) -> Result<Vec<StampedBatch>, Error> {
    let mut batches = Vec::new();
    while !body.is_empty() {
        let batch = StampedBatch::decode(&body).map_err(|e| damaged(&e))?;
        body.advance(batch.encoded_len());
        batches.push(batch);
    }
    Ok(batches)
}

/// The one batch that is the body of a frame.
pub(crate) fn get_batch(body: &Bytes) -> Result<Batch, Error> {
    let batch = Batch::decode(body).map_err(|e| damaged(&e))?;
    match batch.as_bytes().len() == body.len() {
        true => Ok(batch),
        false => Err(Error::invalid("a batch and something behind it: send one batch a message")),
    }
}

fn damaged(error: &virtuallog_protocol::RecordError) -> Error {
    Error::new(ErrorCode::Corrupt, format!("a batch arrived damaged: {error}"))
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
