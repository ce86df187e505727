//! Where the core meets the outside world's clock and entropy: here, and nowhere else but where a store
//! draws its own identity.
//!
//! Everything else takes time from tokio's clock, which tests pause, and identities as arguments.

use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock in microseconds since 1970 (UTC), for `written_at` alone: never for order.
pub(crate) fn now_micros() -> i64 {
    let micros = |duration: std::time::Duration| {
        i64::try_from(duration.as_micros()).expect("the year is below 294,000")
    };
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => micros(since),
        Err(before) => -micros(before.duration()),
    }
}

/// 128 random bits: identities of logs and writers, nonces.
pub(crate) fn random_u128() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    u128::from_le_bytes(bytes)
}
