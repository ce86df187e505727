//! Arguments whose types were checked before: payloads are copied, since the caller may change its buffer as
//! soon as the call is back; times are milliseconds.

use std::time::Duration;

use bytes::Bytes;
use napi::Either;
use napi::bindgen_prelude::{BigInt, Uint8ArraySlice};
use virtuallog_bindings::Timeout;

/// What can be appended: bytes, or text that goes in as UTF-8.
pub(crate) type Payload<'a> = Either<Uint8ArraySlice<'a>, String>;

/// An entry's payload.
pub(crate) fn payload(payload: Payload<'_>) -> Bytes {
    match payload {
        Either::A(bytes) => Bytes::copy_from_slice(&bytes),
        Either::B(text) => Bytes::from(text),
    }
}

/// The payloads of one batch, copied into one piece of memory.
pub(crate) fn payloads(payloads: &[Payload<'_>]) -> Vec<Bytes> {
    let bytes = |payload: &'_ Payload<'_>| match payload {
        Either::A(bytes) => bytes.len(),
        Either::B(text) => text.len(),
    };
    let mut memory = Vec::with_capacity(payloads.iter().map(bytes).sum());
    for payload in payloads {
        match payload {
            Either::A(bytes) => memory.extend_from_slice(bytes),
            Either::B(text) => memory.extend_from_slice(text.as_bytes()),
        }
    }
    let mut memory = Bytes::from(memory);
    payloads.iter().map(|payload| memory.split_to(bytes(payload))).collect()
}

/// A position or a chain version: its range was checked.
pub(crate) fn whole(number: &BigInt) -> u64 {
    number.get_u64().1
}

/// Milliseconds: NaN is the handle's own timeout, infinity none.
pub(crate) fn timeout(milliseconds: f64) -> Timeout {
    match milliseconds {
        _ if milliseconds.is_nan() => Timeout::Default,
        _ => Duration::try_from_secs_f64(milliseconds / 1e3).map_or(Timeout::Never, Timeout::After),
    }
}
