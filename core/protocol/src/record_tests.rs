//! The bytes of a batch and its stamp: frozen, round trips, and damage that is always found.

use proptest::prelude::*;

use super::*;

fn batch(payloads: &[&[u8]]) -> Batch {
    let mut builder = BatchBuilder::with_capacity(64);
    for payload in payloads {
        builder.push(payload);
    }
    builder.finish(WriterId(7), 40, 1_700_000_000_000_000)
}

fn stamped(batch: Batch) -> (StampedBatch, Bytes) {
    let loglet = LogletId { log: LogId(3), segment: 9 };
    let stamped = StampedBatch { loglet, first: LogletPos(100), batch };
    let bytes = [&stamped.stamp()[..], stamped.batch.as_bytes()].concat();
    (stamped, bytes.into())
}

#[test]
fn the_bytes_of_version_1_are_frozen() {
    let (_, bytes) = stamped(batch(&[b"one", b"", b"three"]));
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("../testdata/batch-v1.hex").trim());
}

/// The largest batches that a builder takes are within what a decoder looks at, and just so.
#[test]
fn the_largest_batches_are_read() {
    let one = batch(&[&vec![7; ENTRY_BYTES_MAX]]);
    let many = [7; BATCH_BYTES_MAX / BATCH_ENTRIES_MAX];
    let many = batch(&[&many[..]; BATCH_ENTRIES_MAX]);
    for batch in [one, many] {
        assert!(batch.as_bytes().len() <= BATCH_ENCODED_MAX);
        assert_eq!(Batch::decode(batch.as_bytes()).as_ref(), Ok(&batch));
    }
    let all = ENTRY_BYTES_MAX + ATTRIBUTE_BYTES_MAX + BATCH_ENTRIES_MAX * 4;
    assert!((all + BATCH_HEADER_LEN..all + 300).contains(&BATCH_ENCODED_MAX));
}

#[test]
fn a_later_version_is_refused_by_name() {
    let mut bytes = batch(&[b"x"]).as_bytes().to_vec();
    bytes[4] = 2;
    assert_eq!(Batch::decode(&bytes.into()), Err(RecordError::Version(2)));
}

#[test]
fn a_batch_at_a_wrong_place_is_detected() {
    let (_, bytes) = stamped(batch(&[b"one"]));
    for at in 4..36 {
        let mut moved = bytes.to_vec();
        moved[at] ^= 1;
        assert!(StampedBatch::decode(&moved.into()).is_err(), "byte {at} of the stamp");
    }
}

#[test]
fn limits_of_a_builder() {
    let mut builder = BatchBuilder::with_capacity(0);
    assert!(builder.fits(ENTRY_BYTES_MAX) && !builder.fits(ENTRY_BYTES_MAX + 1));
    for _ in 0..BATCH_ENTRIES_MAX {
        assert!(builder.fits(0));
        builder.push(b"");
    }
    assert!(!builder.fits(0));
}

proptest! {
    #[test]
    fn round_trip(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..20)) {
        let slices: Vec<&[u8]> = payloads.iter().map(|p| &p[..]).collect();
        let (stamped, mut bytes) = stamped(batch(&slices));
        bytes = [&bytes[..], b"what follows"].concat().into();
        let decoded = StampedBatch::decode(&bytes).expect("intact");
        prop_assert_eq!(&decoded, &stamped);
        let entries: Vec<Bytes> = decoded.batch.entries().collect();
        prop_assert_eq!(entries, payloads);
    }

    #[test]
    fn every_flipped_bit_is_detected(at in 0usize..200, bit in 0u8..8) {
        let (stamped, bytes) = stamped(batch(&[b"some payload", b"and another"]));
        let mut bytes = bytes.to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        prop_assert_ne!(StampedBatch::decode(&bytes.into()), Ok(stamped));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), magic in any::<bool>()) {
        let mut bytes = bytes;
        if magic && bytes.len() >= 44 {
            bytes[..4].copy_from_slice(&STAMP_MAGIC);
            bytes[40..44].copy_from_slice(&BATCH_MAGIC);
        }
        let bytes = Bytes::from(bytes);
        let _ = StampedBatch::decode(&bytes);
        let _ = Batch::decode(&bytes.slice(bytes.len().min(40)..));
    }
}
