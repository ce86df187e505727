//! Frames: whatever comes in, nothing panics and nothing is allocated beyond the limits.

use proptest::prelude::*;
use virtuallog_protocol::{BatchBuilder, LogId, LogletId, LogletPos, WriterId};

use super::*;
use crate::wire::messages::{Append, Failure, Id, LocalTail, MetaPut, Nothing, Store};

fn id() -> Id {
    LogletId { log: LogId(u128::MAX / 3), segment: 7 }.into()
}

fn batch(payload: &[u8]) -> StampedBatch {
    let mut builder = BatchBuilder::with_capacity(payload.len());
    builder.push(payload);
    let batch = builder.finish(WriterId(1), 0, 0);
    StampedBatch { loglet: id().into(), first: LogletPos(5), batch }
}

fn encoded(packet: &Packet, at: u64) -> BytesMut {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&packet.prefix(at));
    bytes.put_slice(&packet.head);
    bytes.put_slice(&packet.body);
    bytes
}

#[test]
fn a_frame_round_trips_whatever_the_cut() {
    let packet = Packet::request(
        Request::Append(Append { loglet: id(), resend: true, at: Some(0), round: 1, floor: 2 }),
        batch(b"payload").batch.as_bytes().clone(),
    );
    let bytes = encoded(&packet, 9);
    for cut in 0..bytes.len() {
        let mut buffer = BytesMut::from(&bytes[..cut]);
        assert_eq!(take(&mut buffer).expect("not wrong yet"), None, "{cut}");
        buffer.put_slice(&bytes[cut..]);
        assert_eq!(take(&mut buffer).expect("a frame"), Some((9, packet.clone())));
        assert!(buffer.is_empty());
    }
}

#[test]
fn a_huge_declared_length_is_refused_before_anything_is_allocated() {
    for (len, head) in
        [(u32::MAX, 0), (FRAME_BYTES_MAX as u32 + 1, 0), (100, 101), (3, 0), (100, u32::MAX)]
    {
        let mut buffer = BytesMut::new();
        buffer.put_u32_le(len);
        buffer.put_u32_le(head);
        buffer.put_u64_le(1);
        let error = take(&mut buffer).expect_err("refused");
        assert_eq!(error.code(), ErrorCode::TooLarge);
        assert!(buffer.capacity() < 4096);
    }
}

#[test]
fn batches_travel_untouched_and_damage_is_seen() {
    let batches = [batch(b"one"), batch(&[7; 5000])];
    let body = put_batches(&batches);
    assert_eq!(get_batches(body.clone()).expect("batches"), batches);
    for at in (0..body.len()).step_by(97) {
        let mut damaged = body.to_vec();
        damaged[at] ^= 0x10;
        assert!(get_batches(damaged.into()).is_err(), "bit at {at}");
    }
    assert!(get_batches(body.slice(..body.len() - 1)).is_err());
    let one = batches[0].batch.as_bytes();
    let two = Bytes::from([&one[..], one].concat());
    assert_eq!(get_batch(&two).expect_err("two").code(), ErrorCode::Invalid);
}

#[test]
fn a_message_of_a_later_version_is_refused_and_not_guessed() {
    // A request with a tag that nobody knows here: field 1 (request) holding field 99.
    let inner = [0x9a, 0x06, 0x00];
    let head: Vec<u8> = [&[0x0a, inner.len() as u8][..], &inner].concat();
    let packet = Packet { head: head.into(), body: Bytes::new() };
    assert_eq!(packet.to_request().expect_err("unknown").code(), ErrorCode::Incompatible);
    let reply = Packet::reply(Reply::Done(Nothing {}), Bytes::new());
    assert!(reply.to_request().is_err(), "an answer is no request");
}

/// What a fuzzer would mutate: frames of every shape.
fn seeds() -> Vec<BytesMut> {
    let store = Store { loglet: id(), first: 1, known_tail: u64::MAX };
    let put = MetaPut {
        name: "n".into(),
        value: Some(Bytes::from_static(b"v")),
        expected: 3,
        nonce: 9.into(),
    };
    let tail = LocalTail { tail: 1, sealed: true, known_tail: 2, trim: 3 };
    let failure = Failure::refused(&Error::invalid("no"));
    let body = put_batches(&[batch(b"x")]);
    vec![
        encoded(&Packet::request(Request::Store(store), body.clone()), 1),
        encoded(&Packet::request(Request::MetaPut(put), Bytes::new()), 2),
        encoded(&Packet::reply(Reply::LocalTail(tail), Bytes::new()), 3),
        encoded(&Packet::reply(Reply::Batches(Nothing {}), body), 4),
        encoded(&Packet::reply(Reply::Failure(failure), Bytes::new()), 5),
    ]
}

fn digest(mut buffer: BytesMut) {
    while let Ok(Some((_, packet))) = take(&mut buffer) {
        let _ = packet.to_request();
        let _ = packet.to_reply();
        let _ = get_batches(packet.body.clone());
        let _ = get_batch(&packet.body);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        digest(BytesMut::from(&bytes[..]));
    }

    #[test]
    fn no_mutated_frame_panics(
        seed in 0usize..5,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        long in any::<bool>(),
    ) {
        let mut bytes = seeds().swap_remove(seed);
        for (at, with) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
        }
        if !long {
            bytes.truncate(cut.index(bytes.len()));
        }
        digest(bytes);
    }
}
