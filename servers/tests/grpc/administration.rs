//! Logs as a whole: their shape, their beginning and their end.

use tonic::Code;
use virtuallog_server::grpc::proto::chain::Life;
use virtuallog_server::grpc::proto::cluster_client::ClusterClient;
use virtuallog_server::grpc::proto::reconfigure_request::{Change, Extend, Modify, Truncate};
use virtuallog_server::grpc::proto::trim_reply::Limit;
use virtuallog_server::grpc::proto::{
    Chain, CheckTailRequest, CreateRequest, DeleteRequest, DrainNodeRequest, GetChainRequest,
    GetStatusRequest, ListNodesRequest, ListRequest, ReconfigureRequest, RemoveNodeRequest,
    SealRequest, TrimRequest,
};

use super::{Served, connect, failure, together};

fn extend(loglet: &str) -> Option<Change> {
    Some(Change::Extend(Extend { loglet: loglet.into() }))
}

fn modify(segment: u32, loglet: &str) -> Option<Change> {
    Some(Change::Modify(Modify { segment, loglet: loglet.into() }))
}

/// The chain's segments as `(start, stop)`.
fn ranges(chain: &Chain) -> Vec<(u64, Option<u64>)> {
    chain.segments.iter().map(|segment| (segment.start, segment.stop)).collect()
}

impl Served {
    async fn change(
        &mut self,
        if_version: Option<u64>,
        change: Option<Change>,
    ) -> Result<Chain, tonic::Status> {
        let request = ReconfigureRequest { log: "a".into(), if_version, change };
        self.client.reconfigure(request).await.map(tonic::Response::into_inner)
    }

    async fn chain(&mut self) -> Chain {
        let request = GetChainRequest { log: "a".into() };
        self.client.get_chain(request).await.expect("a chain").into_inner()
    }

    async fn tail(&mut self) -> (u64, bool) {
        let request = CheckTailRequest { log: "a".into() };
        let tail = self.client.check_tail(request).await.expect("a tail").into_inner();
        (tail.position, tail.sealed)
    }

    async fn logs(&mut self) -> Vec<String> {
        let mut replies = self.client.list(ListRequest {}).await.expect("names").into_inner();
        let mut logs = Vec::new();
        while let Some(reply) = replies.message().await.expect("names") {
            logs.extend(reply.logs);
        }
        logs
    }
}

#[tokio::test]
async fn the_chain_changes_as_it_is_told() {
    let mut served = Served::with_log().await;
    served.fill(["0".into(), "1".into(), "2".into()]).await;
    let first = served.chain().await;
    assert_eq!(ranges(&first), [(0, None)]);
    assert_eq!((first.life(), first.next.clone(), first.moved_to.as_str()), (Life::Open, None, ""));
    assert_eq!(first.log_id.len(), 32);
    assert_eq!(first.segments[0].loglet, "local");

    let second = served.change(Some(first.version), extend("local")).await.expect("extended");
    assert_eq!(ranges(&second), [(0, Some(3)), (3, None)]);
    assert!(second.version > first.version);
    let stale = served.change(Some(first.version), extend("local")).await;
    assert_eq!(failure(stale), (Code::Aborted, "CONFLICT".into()));
    assert_eq!(served.chain().await, second);

    served.fill(["3".into()]).await;
    let moved = served.change(None, modify(0, "local")).await.expect("modified");
    assert_eq!(ranges(&moved), [(0, Some(3)), (3, None)]);
    assert_eq!(served.texts("a").await, ["0", "1", "2", "3"]);

    let request = TrimRequest { log: "a".into(), keep_from: 3 };
    served.client.trim(request).await.expect("trimmed");
    let truncated = served.change(None, Some(Change::Truncate(Truncate {}))).await;
    assert_eq!(ranges(&truncated.expect("truncated")), [(3, None)]);
}

#[tokio::test]
async fn changes_that_cannot_be_are_refused() {
    let mut served = Served::with_log().await;
    let before = served.chain().await;
    for change in [None, extend("unheard-of"), extend(""), modify(0, "local"), modify(9, "local")] {
        let refused = served.change(None, change.clone()).await;
        assert_eq!(failure(refused), (Code::InvalidArgument, "INVALID".into()), "{change:?}");
    }
    assert_eq!(served.chain().await, before);
}

#[tokio::test]
async fn a_seal_ends_the_log_for_good() {
    let mut served = Served::with_log().await;
    served.fill(["x".into()]).await;
    assert_eq!(served.tail().await, (1, false));
    for _ in 0..2 {
        let tail = served.client.seal(SealRequest { log: "a".into() }).await.expect("sealed");
        assert_eq!((tail.get_ref().position, tail.get_ref().sealed), (1, true));
    }
    assert_eq!(served.tail().await, (1, true));
    assert_eq!(served.chain().await.life(), Life::Ended);
    let refused = served.change(None, extend("local")).await;
    assert_eq!(failure(refused), (Code::FailedPrecondition, "SEALED".into()));
    assert_eq!(served.texts("a").await, ["x"]);
}

#[tokio::test]
async fn a_trim_says_what_it_did() {
    let mut served = Served::with_log().await;
    served.fill((0..10).map(|n| n.to_string())).await;
    for (keep_from, effective, limit) in [
        (4, 4, Limit::Unspecified),
        (4, 4, Limit::Unspecified),
        (2, 4, Limit::AlreadyTrimmed),
        (99, 10, Limit::Tail),
    ] {
        let request = TrimRequest { log: "a".into(), keep_from };
        let trimmed = served.client.trim(request).await.expect("trimmed").into_inner();
        assert_eq!((trimmed.requested, trimmed.effective), (keep_from, effective));
        assert_eq!(trimmed.limited_by(), limit);
    }
}

#[tokio::test]
async fn logs_are_created_listed_and_deleted() {
    let mut served = Served::with_log().await;
    for log in ["c", "b"] {
        served.create(log).await;
    }
    assert_eq!(served.logs().await, ["a", "b", "c"]);
    let create = |log: &str, loglet: &str| CreateRequest { log: log.into(), loglet: loglet.into() };
    for (log, loglet, expected) in [
        ("a", "", (Code::Aborted, "CONFLICT")),
        ("", "", (Code::InvalidArgument, "INVALID")),
        ("no/name", "", (Code::InvalidArgument, "INVALID")),
        ("?create=true", "", (Code::InvalidArgument, "INVALID")),
        ("d", "unheard-of", (Code::InvalidArgument, "INVALID")),
    ] {
        let (code, name) = failure(served.client.create(create(log, loglet)).await);
        assert_eq!((code, name.as_str()), expected, "{log}");
    }
    let delete = |log: &str| DeleteRequest { log: log.into() };
    served.client.delete(delete("b")).await.expect("deleted");
    assert_eq!(served.logs().await, ["a", "c"]);
    let gone = served.client.delete(delete("b")).await;
    assert_eq!(failure(gone), (Code::NotFound, "NOT_FOUND".into()));
    let wrong = served.client.delete(delete("no/name")).await;
    assert_eq!(failure(wrong), (Code::InvalidArgument, "INVALID".into()));
    let request = CheckTailRequest { log: "b".into() };
    let gone = served.client.check_tail(request).await;
    assert_eq!(failure(gone), (Code::NotFound, "NOT_FOUND".into()));
}

/// The gateway has the first one open when somebody else deletes it and makes another.
#[tokio::test]
async fn a_log_that_was_made_anew_is_another_one() {
    let mut served = Served::with_log().await;
    served.fill(["old".into()]).await;
    assert_eq!(served.tail().await, (1, false));
    let old = served.chain().await.log_id;
    let url = served.url("a");
    virtuallog::delete(&url).await.expect("deleted");
    virtuallog::create(&url, None).await.expect("created");
    assert_eq!(served.tail().await, (0, false));
    assert_ne!(served.chain().await.log_id, old);
    assert_eq!(served.append(vec![together(1, &["new"])]).await.outcomes, [(1, 0, 1, Ok(0))]);
    assert_eq!(served.texts("a").await, ["new"]);
}

/// What it says of one is tried in `servers/tests/test_grpc.py`.
#[tokio::test]
async fn a_store_that_is_no_cluster_says_so() {
    let served = Served::with_log().await;
    let mut cluster = ClusterClient::new(connect(served.address).await);
    let node = 1;
    let refused = [
        cluster.list_nodes(ListNodesRequest {}).await.err(),
        cluster.get_status(GetStatusRequest { log: "a".into() }).await.err(),
        cluster.drain_node(DrainNodeRequest { node }).await.err(),
        cluster.remove_node(RemoveNodeRequest { node }).await.err(),
    ];
    for status in refused {
        let status = status.expect("there are no nodes");
        assert!(status.message().contains("is no cluster"), "{status}");
        assert_eq!(failure(Err::<(), _>(status)), (Code::InvalidArgument, "INVALID".to_owned()));
    }
}
