//! What is not the log itself: health, reflection, shutting down, and peers that speak something else.

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use virtuallog_server::grpc::Gateway;
use virtuallog_server::grpc::proto::subscribe_request::{Edge, Start};
use virtuallog_server::grpc::proto::{AppendRequest, ListRequest, SubscribeRequest};

use super::{Served, connect, failure, together};

#[tokio::test]
async fn health_answers() {
    let served = Served::new().await;
    let mut health = HealthClient::new(connect(served.address).await);
    for service in ["", "virtuallog.v1.Log"] {
        let request = HealthCheckRequest { service: service.into() };
        let reply = health.check(request).await.expect("an answer").into_inner();
        assert_eq!(reply.status(), ServingStatus::Serving, "`{service}`");
    }
    let request = HealthCheckRequest { service: "unheard.of".into() };
    assert_eq!(health.check(request).await.expect_err("unknown").code(), Code::NotFound);
}

#[tokio::test]
async fn reflection_tells_the_services() {
    let served = Served::new().await;
    let mut reflection = ServerReflectionClient::new(connect(served.address).await);
    let ask = |message_request| ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message_request),
    };
    let requests = tokio_stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("virtuallog.v1.Log".into())),
    ]);
    let replies = reflection.server_reflection_info(requests).await.expect("answers");
    let mut replies = replies.into_inner();
    let mut next = async || {
        let reply = replies.message().await.expect("an answer").expect("an answer");
        reply.message_response.expect("an answer")
    };
    let MessageResponse::ListServicesResponse(services) = next().await else { panic!("services") };
    let names: BTreeSet<_> = services.service.into_iter().map(|service| service.name).collect();
    for name in
        ["virtuallog.v1.Log", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
    {
        assert!(names.contains(name), "{name} among {names:?}");
    }
    let MessageResponse::FileDescriptorResponse(files) = next().await else { panic!("a file") };
    assert_eq!(files.file_descriptor_proto.len(), 1);
}

#[tokio::test]
async fn a_stop_answers_what_is_under_way_and_ends_every_stream() {
    let mut served = Served::with_log().await;
    let start = Some(Start::Edge(Edge::First.into()));
    let subscribe = SubscribeRequest { log: "a".into(), start };
    let mut follower = served.client.subscribe(subscribe).await.expect("subscribed").into_inner();
    assert!(follower.message().await.expect("where it starts").is_some());
    let (send, requests) = mpsc::channel(1);
    let mut appends =
        served.client.append(ReceiverStream::new(requests)).await.expect("headers").into_inner();
    send.send(together(1, &["x"])).await.expect("sent");
    assert!(appends.message().await.expect("a reply").is_some());
    assert_eq!(follower.message().await.expect("a reply").expect("a reply").entries.len(), 1);

    let url = served.url("a");
    // One that has not even said which log it is for.
    let (silence, requests) = mpsc::channel(1);
    let mut silent =
        served.client.append(ReceiverStream::new(requests)).await.expect("headers").into_inner();
    served.stop.send(()).expect("it still serves");
    let stopped = (Code::Unavailable, "UNAVAILABLE".to_owned());
    assert_eq!(failure(appends.message().await), stopped);
    assert_eq!(failure(follower.message().await), stopped);
    assert_eq!(failure(silent.message().await), stopped);
    drop((silence, silent, send, appends, follower, served.client));
    served.serving.await.expect("no panic").expect("a good end");
    // The store is free: somebody else may own it now.
    let log = virtuallog::VirtualLog::open(&url).await.expect("opens");
    assert_eq!(log.check_tail().await.expect("a tail").position.0, 1);
    log.close().await.expect("closes");
}

#[tokio::test]
async fn what_is_no_http2_is_shown_the_door() {
    let mut served = Served::with_log().await;
    let garbage: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nhost: here\r\n\r\n",
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x01\x00\x00\x00\x00\x00",
    ];
    for bytes in garbage {
        let mut connection = TcpStream::connect(served.address).await.expect("connected");
        connection.write_all(bytes).await.expect("written");
        let mut answer = Vec::new();
        // It ends, by whatever the peer calls an end.
        let _ = connection.read_to_end(&mut answer).await;
    }
    assert_eq!(served.append(vec![together(1, &["x"])]).await.outcomes.len(), 1);
}

#[tokio::test]
async fn a_call_that_is_not_there_is_unimplemented() {
    let served = Served::new().await;
    let mut client = tonic::client::Grpc::new(connect(served.address).await);
    client.ready().await.expect("ready");
    let codec = tonic_prost::ProstCodec::<ListRequest, ListRequest>::default();
    let path = "/virtuallog.v1.Log/Unheard".parse().expect("a path");
    let refused = client.unary(tonic::Request::new(ListRequest {}), path, codec).await;
    assert_eq!(refused.expect_err("it fails").code(), Code::Unimplemented);
}

/// As many calls as one connection may have, and more: the surplus waits its turn.
#[tokio::test]
async fn more_calls_than_a_connection_has_room_for_wait() {
    let mut served = Served::with_log().await;
    let calls: Vec<_> = (0..300)
        .map(|n| {
            let mut client = served.client.clone();
            tokio::spawn(async move {
                let request = AppendRequest { id: n, ..together(n, &["x"]) };
                let replies = client.append(tokio_stream::iter([request])).await.expect("headers");
                let reply = replies.into_inner().message().await.expect("a reply");
                reply.expect("a reply").outcomes.len()
            })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.expect("no panic"), 1);
    }
    assert_eq!(served.texts("a").await.len(), 300);
}

#[test]
fn a_gateway_is_to_a_store() {
    for url in ["memory:/", "file:/tmp/x/", "file:/tmp/x/?timeout=5s"] {
        assert!(Gateway::new(url, Vec::new()).is_ok(), "{url}");
    }
    for url in ["memory:a", "memory:", "file:/tmp/x", "nonsense", "file:/tmp/x/?nonsense=1"] {
        assert!(Gateway::new(url, Vec::new()).is_err(), "{url}");
    }
}
