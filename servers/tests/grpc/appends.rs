//! The stream that appends.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use virtuallog::loglet::{Ack, Loglet, LogletError, LogletProvider};
use virtuallog::loglets::memory::MemoryProvider;
use virtuallog::protocol::types::LogId;
use virtuallog::protocol::{Batch, StampedBatch};
use virtuallog::{LogletConfig, LogletId, LogletPos, Tail};
use virtuallog_server::grpc::proto::append_outcome::Result as Outcome;
use virtuallog_server::grpc::proto::{AppendRequest, CreateRequest, ResolveRequest, SealRequest};

use super::{Served, each, failure, together, trailer};

#[tokio::test]
async fn outcomes_come_in_order_with_ids_and_positions() {
    let mut served = Served::with_log().await;
    let requests =
        vec![together(7, &["one"]), each(8, &["two", "three"]), together(9, &["four", "five"])];
    let appended = served.append(requests).await;
    appended.end.expect("a good end");
    let mut next = 0;
    // The payloads of a request that go one by one may have their outcomes together or not.
    for (id, _, count, position) in &appended.outcomes {
        assert_eq!(position, &Ok(next), "{id}");
        next += u64::from(*count);
    }
    assert_eq!(next, 5);
    assert_eq!(appended.outcomes.last(), Some(&(9, 0, 2, Ok(3))));
    assert_eq!(served.texts("a").await, ["one", "two", "three", "four", "five"]);
}

#[tokio::test]
async fn many_messages_and_large_ones_are_all_answered() {
    let mut served = Served::with_log().await;
    let texts: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    // More in one message than may be without an answer at once, then many with little in each.
    let mut requests = vec![each(0, &texts[..15_000])];
    requests.extend(texts[15_000..].chunks(3).map(|texts| each(1, texts)));
    let appended = served.append(requests).await;
    appended.end.expect("a good end");
    let count: u32 = appended.outcomes.iter().map(|(_, _, count, _)| count).sum();
    assert_eq!(count, 20_000);
    assert!(appended.outcomes.len() < 20_000, "neighbours share an outcome");
    assert_eq!(served.texts("a").await, texts);
}

#[tokio::test]
async fn the_first_request_may_only_name_the_log() {
    let mut served = Served::new().await;
    let first = AppendRequest { log: "a".into(), create: true, ..AppendRequest::default() };
    let later = AppendRequest { log: String::new(), ..together(1, &["x"]) };
    let appended = served.append(vec![first, later]).await;
    assert_eq!(appended.outcomes, [(1, 0, 1, Ok(0))]);
    appended.end.expect("a good end");
}

/// Each entry is answered before the next one is sent.
#[tokio::test]
async fn answers_do_not_wait_for_more_requests() {
    let mut served = Served::with_log().await;
    let (send, requests) = mpsc::channel(1);
    let mut replies =
        served.client.append(ReceiverStream::new(requests)).await.expect("headers").into_inner();
    for n in 0..100 {
        send.send(together(n, &["x"])).await.expect("sent");
        let reply = replies.message().await.expect("a reply").expect("a reply");
        assert_eq!(reply.outcomes.len(), 1);
        assert_eq!(reply.outcomes[0].id, n);
        assert_eq!(reply.outcomes[0].result, Some(Outcome::Position(n)));
    }
    drop(send);
    assert_eq!(replies.message().await.expect("a good end"), None);
}

#[tokio::test]
async fn the_first_failure_ends_the_stream_and_nothing_overtakes_it() {
    let mut served = Served::with_log().await;
    let large = "x".repeat((1 << 20) + 1);
    let requests = vec![together(1, &["good"]), together(2, &[&large]), together(3, &["late"])];
    let appended = served.append(requests).await;
    assert_eq!(appended.outcomes, [(1, 0, 1, Ok(0)), (2, 0, 1, Err("TOO_LARGE".into()))]);
    assert_eq!(failure(appended.end), (Code::InvalidArgument, "TOO_LARGE".into()));
    assert_eq!(served.texts("a").await, ["good"]);

    // Inside a request too.
    let appended = served.append(vec![each(4, &["good", &large, "late"])]).await;
    assert_eq!(appended.outcomes, [(4, 0, 1, Ok(1)), (4, 1, 1, Err("TOO_LARGE".into()))]);
    assert_eq!(served.texts("a").await, ["good", "good"]);
}

#[tokio::test]
async fn one_streams_failure_is_no_other_ones() {
    let mut served = Served::with_log().await;
    let (send, requests) = mpsc::channel(1);
    let mut replies =
        served.client.append(ReceiverStream::new(requests)).await.expect("headers").into_inner();
    send.send(together(1, &["before"])).await.expect("sent");
    assert!(replies.message().await.expect("a reply").is_some());
    let large = "x".repeat((1 << 20) + 1);
    let other = served.append(vec![together(1, &[&large])]).await;
    assert_eq!(failure(other.end).1, "TOO_LARGE");
    send.send(together(2, &["after"])).await.expect("sent");
    assert!(replies.message().await.expect("a reply").is_some());
    drop(send);
    assert_eq!(replies.message().await.expect("a good end"), None);
    assert_eq!(served.texts("a").await, ["before", "after"]);
}

#[tokio::test]
async fn wrong_requests_say_what_is_wrong() {
    let mut served = Served::with_log().await;
    let log = |log: &str| AppendRequest { log: log.into(), ..together(1, &["x"]) };
    let mode = AppendRequest { mode: 7, ..together(1, &["x"]) };
    let many = AppendRequest { payloads: vec!["x".into(); 1025], ..together(1, &[]) };
    let huge = "x".repeat(4 << 20);
    let invalid = (Code::InvalidArgument, "INVALID");
    let too_large = (Code::InvalidArgument, "TOO_LARGE");
    let cases = [
        (vec![], invalid, "name"),
        (vec![log("")], invalid, "name"),
        (vec![log("no/name")], invalid, "no/name"),
        (vec![log("..")], invalid, ".."),
        (vec![log("unknown")], (Code::NotFound, "NOT_FOUND"), "unknown"),
        (vec![together(1, &["x"]), log("b")], invalid, "`b`"),
        (vec![together(1, &["x"]), together(2, &[])], invalid, "no payloads"),
        (vec![mode], invalid, "mode"),
        (vec![many], too_large, "1024"),
        // A batch over its limit, and a message over that of messages.
        (vec![together(1, &[&huge[..3 << 20], &huge[..(1 << 20) + 1]])], too_large, ""),
        (vec![together(1, &["x"]), together(2, &[&huge, &huge])], too_large, "request"),
    ];
    for (requests, expected, word) in cases {
        let status = served.append(requests).await.end.expect_err("it fails");
        assert!(status.message().contains(word), "{word}: {status:?}");
        assert_eq!(trailer(&status, "virtuallog-in-doubt"), "false");
        assert_eq!((status.code(), trailer(&status, "virtuallog-code").as_str()), expected);
    }
    // What was good before what was wrong is in the log, and nothing else.
    assert!(served.texts("a").await.iter().all(|text| text == "x"));
    let names = virtuallog_server::grpc::proto::ListRequest {};
    let logs = served.client.list(names).await.expect("names").into_inner().message().await;
    assert_eq!(logs.expect("names").expect("names").logs, ["a"], "nothing was created");
}

#[tokio::test]
async fn a_log_that_ended_takes_no_more() {
    let mut served = Served::with_log().await;
    served.fill(["x".to_owned()]).await;
    let tail = served.client.seal(SealRequest { log: "a".into() }).await.expect("sealed");
    assert_eq!((tail.get_ref().position, tail.get_ref().sealed), (1, true));
    let appended = served.append(vec![together(1, &["y"])]).await;
    assert_eq!(appended.outcomes, [(1, 0, 1, Err("SEALED".into()))]);
    assert_eq!(failure(appended.end), (Code::FailedPrecondition, "SEALED".into()));
}

/// A client that leaves in the middle takes nothing back and disturbs nobody.
#[tokio::test]
async fn a_client_may_leave_without_a_word() {
    let mut served = Served::with_log().await;
    let (send, requests) = mpsc::channel(1);
    let mut replies =
        served.client.append(ReceiverStream::new(requests)).await.expect("headers").into_inner();
    send.send(together(1, &["left"])).await.expect("sent");
    assert!(replies.message().await.expect("a reply").is_some());
    drop((send, replies));
    assert_eq!(served.append(vec![together(1, &["stayed"])]).await.outcomes, [(1, 0, 1, Ok(1))]);
    assert_eq!(served.texts("a").await, ["left", "stayed"]);
}

/// Loglets in memory that store each append and then forget to answer.
#[derive(Debug)]
struct Forgetful(MemoryProvider);

#[derive(Debug)]
struct ForgetfulLoglet(Arc<dyn Loglet>);

#[async_trait]
impl LogletProvider for Forgetful {
    fn kind(&self) -> &str {
        "forgetful"
    }

    fn plan(&self, args: &str) -> Result<LogletConfig, virtuallog::Error> {
        let name = String::from("forgetful");
        Ok(LogletConfig { kind: name.clone(), name, ..self.0.plan(args)? })
    }

    async fn create(
        &self,
        id: LogletId,
        config: &LogletConfig,
        base: LogletPos,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        Ok(Arc::new(ForgetfulLoglet(self.0.create(id, config, base).await?)))
    }

    async fn open(
        &self,
        id: LogletId,
        config: &LogletConfig,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        Ok(Arc::new(ForgetfulLoglet(self.0.open(id, config).await?)))
    }

    async fn retire(&self, log: LogId, live: &[u32], bound: u32) -> Result<(), LogletError> {
        self.0.retire(log, live, bound).await
    }
}

#[async_trait]
impl Loglet for ForgetfulLoglet {
    fn append(&self, batch: Batch, ack: Ack) {
        self.0.append(batch, Ack::new(|_| ()));
        drop(ack);
    }

    async fn check_tail(&self) -> Result<Tail<LogletPos>, LogletError> {
        self.0.check_tail().await
    }

    async fn wait_tail(&self, known: LogletPos) -> Result<Tail<LogletPos>, LogletError> {
        self.0.wait_tail(known).await
    }

    async fn read(
        &self,
        from: LogletPos,
        to: LogletPos,
        bytes_max: usize,
    ) -> Result<Vec<StampedBatch>, LogletError> {
        self.0.read(from, to, bytes_max).await
    }

    async fn prefix_trim(&self, keep_from: LogletPos) -> Result<LogletPos, LogletError> {
        self.0.prefix_trim(keep_from).await
    }

    async fn trim_point(&self) -> Result<LogletPos, LogletError> {
        self.0.trim_point().await
    }

    async fn seal(&self) -> Result<(), LogletError> {
        self.0.seal().await
    }
}

#[tokio::test]
async fn an_append_in_doubt_says_so_and_can_be_resolved() {
    let forgetful = Arc::new(Forgetful(MemoryProvider::new()));
    let mut served = Served::with("", vec![forgetful]).await;
    let request = CreateRequest { log: "a".into(), loglet: "forgetful".into() };
    served.client.create(request).await.expect("created");

    let appended = served.append(vec![together(1, &["x", "y"])]).await;
    assert_eq!(appended.outcomes, [(1, 0, 2, Err("UNAVAILABLE".into()))]);
    let status = appended.end.expect_err("it fails");
    // Never `UNAVAILABLE`, which clients send again by themselves.
    assert_eq!(status.code(), Code::Unknown);
    assert_eq!(trailer(&status, "virtuallog-in-doubt"), "true");
    assert_eq!(trailer(&status, "virtuallog-retryable"), "false");
    let token = trailer(&status, "virtuallog-token");
    assert!(!token.is_empty(), "{status:?}");

    let resolve = |token: String| ResolveRequest { log: "a".into(), token };
    let found = served.client.resolve(resolve(token.clone())).await.expect("found");
    assert_eq!(found.get_ref().position, Some(0));
    // Nobody ever appended the one behind it: undecided while the segment is open.
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts[0] = format!("{:032x}", 1);
    let absent = served.client.resolve(resolve(parts.join("."))).await;
    assert_eq!(failure(absent), (Code::Unavailable, "UNAVAILABLE".into()));
    let wrong = served.client.resolve(resolve("nonsense".into())).await;
    assert_eq!(failure(wrong), (Code::InvalidArgument, "INVALID".into()));
    served.client.seal(SealRequest { log: "a".into() }).await.expect("sealed");
    let absent = served.client.resolve(resolve(parts.join("."))).await.expect("decided");
    assert_eq!(absent.get_ref().position, None);
}
