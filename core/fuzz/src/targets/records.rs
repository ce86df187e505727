//! Record batches and their stamps.

use bytes::Bytes;
use virtuallog_protocol::record::{BATCH_HEADER_LEN, STAMP_LEN, Stamp};
use virtuallog_protocol::{
    Batch, BatchBuilder, BatchKind, LogId, LogletId, LogletPos, StampedBatch, WriterId,
};

use crate::mend;

pub(super) fn batch(input: &[u8]) {
    decode_batch(&Bytes::copy_from_slice(input));
    let mut mended = input.to_vec();
    mend::batch(&mut mended);
    decode_batch(&mended.into());
}

fn decode_batch(bytes: &Bytes) {
    let Ok(batch) = Batch::decode(bytes) else { return };
    assert!(bytes.starts_with(batch.as_bytes()));
    assert_eq!(Batch::decode(batch.as_bytes()).as_ref(), Ok(&batch), "it ends where it says");
    let entries: Vec<Bytes> = batch.entries().collect();
    assert_eq!(entries.len() as u64, batch.count());
    let payload: usize = entries.iter().map(Bytes::len).sum();
    assert!(payload + 4 * entries.len() + BATCH_HEADER_LEN <= batch.as_bytes().len());
    // Framed anew it says the same, as far as this version writes it.
    let mut builder = BatchBuilder::with_capacity(payload);
    for entry in &entries {
        if !builder.fits(entry.len()) {
            return;
        }
        builder.push(entry);
    }
    let header = batch.header();
    let (writer, seq, at) = (header.writer, header.first_seq, header.written_at);
    let again = builder.finish_as(header.kind, writer, seq, at);
    assert!(again.entries().eq(entries) && again.header().first_seq == seq);
}

pub(super) fn stamp(input: &[u8]) {
    decode_stamped(&Bytes::copy_from_slice(input));
    let mut mended = input.to_vec();
    mend::stamped(&mut mended);
    decode_stamped(&mended.into());
}

fn decode_stamped(bytes: &Bytes) {
    let alone = Stamp::decode(bytes);
    let Ok(stamped) = StampedBatch::decode(bytes) else { return };
    let alone = alone.expect("a stamp that holds can be read alone");
    assert_eq!((alone.loglet, alone.first), (stamped.loglet, stamped.first));
    assert_eq!(STAMP_LEN + alone.batch_len, stamped.encoded_len());
    assert_eq!(stamped.stamp(), bytes[..STAMP_LEN], "the stamp is written as it was read");
    assert!(stamped.end() > stamped.first);
}

fn honest(kind: BatchKind, payloads: &[&[u8]]) -> Batch {
    let mut builder = BatchBuilder::with_capacity(64);
    payloads.iter().for_each(|payload| builder.push(payload));
    builder.finish_as(kind, WriterId(7), 40, 1_700_000_000_000_000)
}

pub(super) fn batches() -> Vec<Vec<u8>> {
    let batches = [
        honest(BatchKind::Data, &[b"one", b"", b"three"]),
        honest(BatchKind::NoOp, &[b""]),
        honest(BatchKind::Control, &[&[9; 300]]),
    ];
    batches.iter().map(|batch| batch.as_bytes().to_vec()).collect()
}

pub(super) fn stamps() -> Vec<Vec<u8>> {
    let loglet = LogletId { log: LogId(3), segment: 9 };
    let batch = honest(BatchKind::Data, &[b"one", b"two"]);
    let stamped = StampedBatch { loglet, first: LogletPos(100), batch };
    vec![[&stamped.stamp()[..], stamped.batch.as_bytes()].concat()]
}
