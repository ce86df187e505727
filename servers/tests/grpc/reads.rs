//! Reading a range, and following the log.

use tonic::{Code, Streaming};
use virtuallog_server::grpc::proto::reconfigure_request::{Change, Extend};
use virtuallog_server::grpc::proto::subscribe_request::{Edge, Start};
use virtuallog_server::grpc::proto::{
    ReadReply, ReadRequest, ReconfigureRequest, SealRequest, SubscribeRequest, TrimRequest,
};

use super::{Served, failure, text, together, trailer};

fn range(start: Option<u64>, end: Option<u64>) -> ReadRequest {
    ReadRequest { log: "a".into(), start, end }
}

fn from(start: Start) -> SubscribeRequest {
    SubscribeRequest { log: "a".into(), start: Some(start) }
}

fn numbers(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|n| n.to_string()).collect()
}

/// The next `count` entries of a stream, as texts, with the position to resume at.
async fn some(replies: &mut Streaming<ReadReply>, count: usize) -> (Vec<String>, u64) {
    let (mut texts, mut next) = (Vec::new(), 0);
    while texts.len() < count {
        let reply = replies.message().await.expect("entries").expect("more entries");
        texts.extend(reply.entries.iter().map(text));
        next = reply.next;
    }
    (texts, next)
}

#[tokio::test]
async fn ranges_are_half_open_and_exact() {
    let mut served = Served::new().await;
    served.fill(numbers(0..10_000)).await;
    for (start, end) in [(0, 10_000), (17, 9_999), (5_000, 5_001), (10_000, 10_000), (3, 3)] {
        let request = range(Some(start), Some(end));
        let mut replies = served.client.read(request).await.expect("read").into_inner();
        let mut position = start;
        while let Some(reply) = replies.message().await.expect("entries") {
            assert!(!reply.entries.is_empty() && reply.entries.len() <= 4096);
            for entry in &reply.entries {
                assert_eq!((entry.position, text(entry)), (position, position.to_string()));
                assert!(entry.written_at_micros > 1_600_000_000_000_000);
                position += 1;
            }
            assert_eq!(reply.next, position);
        }
        assert_eq!(position, end);
    }
    assert_eq!(served.texts("a").await, numbers(0..10_000));
}

#[tokio::test]
async fn wrong_ranges_are_refused() {
    let mut served = Served::new().await;
    served.fill(numbers(0..10)).await;
    for (start, end) in
        [(Some(11), None), (Some(3), Some(2)), (None, Some(11)), (Some(u64::MAX), None)]
    {
        let refused = served.client.read(range(start, end)).await;
        assert_eq!(
            failure(refused),
            (Code::InvalidArgument, "INVALID".into()),
            "{start:?} {end:?}"
        );
    }
    let missing = SubscribeRequest { log: "a".into(), start: None };
    let cases = [missing, from(Start::Edge(0)), from(Start::Edge(9)), from(Start::Position(11))];
    for request in cases {
        let refused = served.client.subscribe(request).await;
        assert_eq!(failure(refused), (Code::InvalidArgument, "INVALID".into()));
    }
    let unknown = ReadRequest { log: "unknown".into(), ..range(None, None) };
    assert_eq!(failure(served.client.read(unknown).await), (Code::NotFound, "NOT_FOUND".into()));
}

/// What clients take by default is 4 MiB.
#[tokio::test]
async fn large_entries_come_in_replies_that_clients_take() {
    let mut served = Served::new().await;
    let large: Vec<String> =
        (0..6u8).map(|n| char::from(b'a' + n).to_string().repeat(1 << 20)).collect();
    for entry in &large {
        served.fill([entry.clone()]).await;
    }
    assert_eq!(served.texts("a").await, large);

    let mut served = Served::with("?entry_bytes_max=6000000", Vec::new()).await;
    let huge = "x".repeat(6_000_000);
    served.fill([huge.clone()]).await;
    let mut client = served.client.clone().max_decoding_message_size(8 << 20);
    let mut replies = client.read(range(None, None)).await.expect("read").into_inner();
    let reply = replies.message().await;
    assert_eq!(text(&reply.expect("entries").expect("entries").entries[0]), huge);
    let refused = served.append(vec![together(1, &[&huge, "x"])]).await;
    assert_eq!(failure(refused.end).1, "TOO_LARGE");
}

#[tokio::test]
async fn a_trimmed_position_names_the_first_one_kept() {
    let mut served = Served::new().await;
    served.fill(numbers(0..10)).await;
    let request = TrimRequest { log: "a".into(), keep_from: 4 };
    served.client.trim(request).await.expect("trimmed");
    assert_eq!(served.texts("a").await, numbers(4..10));

    let mut replies = served.client.read(range(Some(2), None)).await.expect("read").into_inner();
    let status = replies.message().await.expect_err("trimmed");
    assert_eq!(
        (status.code(), trailer(&status, "virtuallog-code")),
        (Code::OutOfRange, "TRIMMED".into())
    );
    assert_eq!(trailer(&status, "virtuallog-position"), "4");
    assert_eq!(trailer(&status, "virtuallog-retryable"), "false");
}

#[tokio::test]
async fn subscriptions_start_where_they_are_told_and_follow() {
    let mut served = Served::new().await;
    served.fill(numbers(0..10)).await;
    let starts = [
        (Start::Edge(Edge::First.into()), 0),
        (Start::Edge(Edge::Tail.into()), 10),
        (Start::Position(4), 4),
    ];
    let mut subscriptions = Vec::new();
    for (start, position) in starts {
        let mut replies =
            served.client.subscribe(from(start)).await.expect("subscribed").into_inner();
        // The first reply comes at once, with nothing but where it starts.
        let first = replies.message().await.expect("a reply").expect("a reply");
        assert_eq!((first.entries.len(), first.next), (0, position));
        subscriptions.push((replies, position));
    }
    served.fill(numbers(10..20)).await;
    let extend = Change::Extend(Extend { loglet: "local".into() });
    let request = ReconfigureRequest { log: "a".into(), if_version: None, change: Some(extend) };
    served.client.reconfigure(request).await.expect("extended");
    served.fill(numbers(20..30)).await;
    for (replies, position) in &mut subscriptions {
        let (texts, next) = some(replies, 30 - *position as usize).await;
        assert_eq!((texts, next), (numbers(*position..30), 30));
    }
    // The log's end is theirs.
    served.client.seal(SealRequest { log: "a".into() }).await.expect("sealed");
    for (replies, _) in &mut subscriptions {
        assert_eq!(replies.message().await.expect("a good end"), None);
    }
}

/// A reader that takes nothing holds up neither writers nor other readers, and loses nothing.
#[tokio::test]
async fn a_slow_reader_is_alone_with_it() {
    let mut served = Served::with_log().await;
    let first = Start::Edge(Edge::First.into());
    let mut slow = served.client.subscribe(from(first)).await.expect("subscribed").into_inner();
    let block = "x".repeat(100_000);
    for _ in 0..8 {
        served.fill(vec![block.clone(); 40]).await;
    }
    assert_eq!(served.texts("a").await.len(), 320);
    let mut fast = served.client.subscribe(from(first)).await.expect("subscribed").into_inner();
    assert_eq!(some(&mut fast, 320).await.1, 320);
    let (texts, next) = some(&mut slow, 320).await;
    assert_eq!((texts.len(), next), (320, 320));
    assert!(texts.iter().all(|text| *text == block));
}
