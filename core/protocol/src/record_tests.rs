//! The bytes of a batch and its stamp: frozen, round trips, and damage that is always found.

use proptest::prelude::*;

use super::*;
use crate::limits::ENTRY_BYTES_DEFAULT;

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

/// Values of which each part would be missed, and each kind.
#[test]
fn everything_that_a_batch_says_of_itself_comes_back() {
    for kind in [BatchKind::Data, BatchKind::NoOp, BatchKind::Control] {
        let mut builder = BatchBuilder::with_capacity(0);
        builder.push(b"three");
        builder.push(b"");
        builder.push(b"12");
        assert_eq!((builder.count(), builder.payload_len()), (3, 7));
        let (writer, first_seq, written_at) = (WriterId(5 << 96 | 9), 7 << 40 | 2, -8 << 40);
        let batch = builder.finish_as(kind, writer, first_seq, written_at);
        let decoded = Batch::decode(batch.as_bytes()).expect("intact");
        let crc = decoded.header().crc;
        let said = BatchHeader { kind, writer, first_seq, count: 3, written_at, crc };
        assert_eq!((decoded.header(), decoded.count()), (&said, 3));
        let loglet = LogletId { log: LogId(11 << 96 | 4), segment: 1 << 30 };
        let stamped = StampedBatch { loglet, first: LogletPos(6 << 40 | 1), batch };
        let bytes = Bytes::from([&stamped.stamp()[..], stamped.batch.as_bytes()].concat());
        assert_eq!((stamped.encoded_len(), stamped.end()), (bytes.len(), LogletPos(6 << 40 | 4)));
        assert_eq!(StampedBatch::decode(&bytes), Ok(stamped));
        assert!(Stamp::decode(&bytes[..STAMP_LEN]).is_ok());
        assert!(StampedBatch::decode(&bytes.slice(..bytes.len() - 1)).is_err());
    }
}

/// A batch with these numbers in its header, as it would be written: its checksum holds.
fn header(edit: &dyn Fn(&mut Vec<u8>)) -> Bytes {
    let mut bytes = batch(&[b"", b""]).as_bytes().to_vec();
    edit(&mut bytes);
    let crc = checksum(&bytes);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    bytes.into()
}

fn put(bytes: &mut [u8], at: usize, value: usize) {
    bytes[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
}

#[test]
fn lengths_of_a_batch_hold_or_it_is_damaged() {
    const COUNT: usize = 40;
    const ATTRIBUTES: usize = 44;
    const BODY: usize = 48;
    let damaged = Err(RecordError::Damaged("lengths of the batch"));
    let read =
        |edit: &dyn Fn(&mut Vec<u8>)| Batch::decode(&header(edit)).map(|batch| batch.count());
    let with = |fields: &[(usize, usize)]| {
        read(&|bytes| fields.iter().for_each(|(at, value)| put(bytes, *at, *value)))
    };
    assert_eq!(with(&[]), Ok(2), "empty entries");
    assert_eq!(with(&[(COUNT, 0)]), damaged);
    assert_eq!(with(&[(COUNT, BATCH_ENTRIES_MAX + 1), (BODY, 1 << 20)]), damaged);
    assert_eq!(with(&[(COUNT, 3)]), damaged, "no room for three lengths");
    assert_eq!(with(&[(ATTRIBUTES, 4)]), damaged, "nor behind attributes for two");
    assert_eq!(with(&[(ATTRIBUTES, 9)]), damaged, "more than there is");
    // What is too long is refused before it is waited for.
    let most = BATCH_ENCODED_MAX - BATCH_HEADER_LEN;
    let short = RecordError::Short { needed: BATCH_ENCODED_MAX, present: BATCH_HEADER_LEN + 8 };
    assert_eq!(with(&[(BODY, most)]), Err(short.clone()));
    assert_eq!(with(&[(BODY, most + 1)]), damaged);
    assert_eq!(with(&[(BODY, most), (ATTRIBUTES, ATTRIBUTE_BYTES_MAX)]), Err(short));
    assert_eq!(with(&[(BODY, most), (ATTRIBUTES, ATTRIBUTE_BYTES_MAX + 1)]), damaged);
    assert_eq!(read(&|bytes| bytes[5] = BATCH_HEADER_LEN as u8 - 1), damaged);
    assert_eq!(read(&|bytes| bytes[24..32].fill(0xff)), damaged, "sequence numbers run out");
    assert_eq!(read(&|bytes| bytes[7] = 3), Err(RecordError::Damaged("unknown kind of batch")));
}

/// A later writer may add to the header, and attributes: they are skipped.
#[test]
fn a_longer_header_and_attributes_are_skipped() {
    let bytes = header(&|bytes| {
        bytes[5] += 8;
        bytes.splice(BATCH_HEADER_LEN..BATCH_HEADER_LEN, *b"header..attribut");
        put(bytes, 44, 8);
        put(bytes, 48, 16);
    });
    let batch = Batch::decode(&bytes).expect("it holds");
    assert!(batch.count() == 2 && batch.entries().all(|entry| entry.is_empty()));
}

#[test]
fn positions_of_a_batch_have_a_limit() {
    let at = |first| {
        let (mut stamped, _) = stamped(batch(&[b"x"]));
        stamped.first = LogletPos(first);
        let bytes = [&stamped.stamp()[..], stamped.batch.as_bytes()].concat();
        StampedBatch::decode(&bytes.into()).map(|decoded| decoded.first.0)
    };
    assert_eq!(at(COUNTER_MAX), Ok(COUNTER_MAX));
    let damaged = Err(RecordError::Damaged("position of the batch"));
    assert_eq!((at(COUNTER_MAX + 1), at(COUNTER_MAX + 2)), (damaged.clone(), damaged));
}

#[test]
fn the_limits_of_the_format_are_frozen() {
    let limits = [BATCH_ENTRIES_MAX, BATCH_BYTES_MAX, ENTRY_BYTES_DEFAULT, ENTRY_BYTES_MAX];
    assert_eq!(limits, [1024, 4_194_304, 1_048_576, 16_777_216]);
    assert_eq!((ATTRIBUTE_BYTES_MAX, BATCH_ENCODED_MAX), (1_048_576, 17_830_144));
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
        let (_, bytes) = stamped(batch(&[b"some payload", b"and another"]));
        let mut bytes = bytes.to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let bytes = Bytes::from(bytes);
        prop_assert!(StampedBatch::decode(&bytes).is_err());
        let alone = bytes.slice(STAMP_LEN..);
        prop_assert_eq!(Batch::decode(&alone).is_err(), at >= STAMP_LEN);
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
