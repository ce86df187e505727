//! Checksums that hold, put where the formats have theirs.
//!
//! A fuzzer does not find four bytes that fit by chance, and an attacker computes them: so a target
//! tries its bytes also with every checksum made right. Lengths stay what the bytes say.

use virtuallog_protocol::record::{
    BATCH_HEADER_LEN, BATCH_MAGIC, Crc32c, STAMP_LEN, STAMP_MAGIC, crc32c,
};

/// The checksum of several pieces.
#[must_use]
pub fn crc(pieces: &[&[u8]]) -> u32 {
    let mut crc = Crc32c::new();
    pieces.iter().for_each(|piece| crc.update(piece));
    crc.finish()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(four.try_into().ok()?) as usize)
}

/// The batch at the start of `bytes`: magic and checksum, as far as its lengths lie within.
/// Gives its length.
pub fn batch(bytes: &mut [u8]) -> Option<usize> {
    const CRC_AT: usize = 52;
    let len = bytes.get(5).map(|header| usize::from(*header))?.checked_add(u32_at(bytes, 48)?)?;
    if len < BATCH_HEADER_LEN || len > bytes.len() {
        return None;
    }
    bytes[..4].copy_from_slice(&BATCH_MAGIC);
    let crc = crc(&[&bytes[..CRC_AT], &bytes[CRC_AT + 4..len]]);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    Some(len)
}

/// The stamp at the start of `bytes` and the batch behind it. Gives the length of both.
pub fn stamped(bytes: &mut [u8]) -> Option<usize> {
    let len = STAMP_LEN + batch(bytes.get_mut(STAMP_LEN..)?)?;
    bytes[..4].copy_from_slice(&STAMP_MAGIC);
    bytes[32..36].copy_from_slice(&((len - STAMP_LEN) as u32).to_le_bytes());
    let batch_crc: [u8; 4] = bytes[STAMP_LEN + 52..STAMP_LEN + 56].try_into().ok()?;
    let crc = crc(&[&bytes[..36], &batch_crc]);
    bytes[36..40].copy_from_slice(&crc.to_le_bytes());
    Some(len)
}

/// Stamped batches, one behind the other, wherever one begins.
pub fn all_stamped(bytes: &mut [u8]) {
    let mut at = 0;
    while at + STAMP_LEN < bytes.len() {
        let here = bytes[at..].starts_with(&STAMP_MAGIC);
        at += here.then(|| stamped(&mut bytes[at..])).flatten().unwrap_or(1);
    }
}

/// A value with magic and checksum before its body: a chain (`VLC`) or a snapshot (`VLR`).
#[must_use]
pub fn value(magic: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [magic, &crc32c(body).to_le_bytes()[..], body].concat()
}

/// A small file that is replaced as a whole: a manifest (`VLM`) or an identity (`VLI`).
#[must_use]
pub fn whole(magic: &[u8; 4], version: u32, body: &[u8]) -> Vec<u8> {
    let len = (body.len() as u32).to_le_bytes();
    let head = [&magic[..], &version.to_le_bytes(), &len].concat();
    let crc = crc(&[&head, body]).to_le_bytes();
    [&head[..], &crc, body].concat()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use virtuallog_protocol::{BatchBuilder, LogId, LogletId, LogletPos, StampedBatch, WriterId};

    use super::*;

    #[test]
    fn what_is_mended_is_taken() {
        let mut builder = BatchBuilder::with_capacity(8);
        builder.push(b"one");
        let batch = builder.finish(WriterId(1), 2, 3);
        let loglet = LogletId { log: LogId(3), segment: 7 };
        let stamped = StampedBatch { loglet, first: LogletPos(5), batch };
        let honest = [&stamped.stamp()[..], stamped.batch.as_bytes()].concat();
        let mut other = [b"xx", &honest[..], &honest].concat();
        for at in [2 + 4, 2 + STAMP_LEN + 60, 2 + honest.len() + 24] {
            other[at] ^= 1;
        }
        assert!(StampedBatch::decode(&Bytes::copy_from_slice(&other[2..])).is_err());
        all_stamped(&mut other);
        let first = StampedBatch::decode(&Bytes::copy_from_slice(&other[2..])).expect("mended");
        let rest = Bytes::copy_from_slice(&other[2 + first.encoded_len()..]);
        let second = StampedBatch::decode(&rest).expect("mended");
        assert_eq!((first.loglet.log.0, second.first.0), (2, 4));
    }
}
