//! What a hostile or mistaken peer sends to a server's port, and what it gets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use virtuallog::server::{self, Server, ServerConfig};
use virtuallog::{ErrorCode, LogPos, VirtualLog};

/// Far more than anything here takes; only a hang meets it.
const HANG: Duration = Duration::from_secs(60);

async fn one() -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = ServerConfig {
        data: dir.path().join("data"),
        listen: "127.0.0.1:0".into(),
        ..ServerConfig::default()
    };
    let server = Server::start(config).await.expect("a server");
    (dir, server)
}

async fn cluster() -> (tempfile::TempDir, Server) {
    let (dir, server) = one().await;
    server::init(&[server.address()]).await.expect("a cluster");
    server.ready().await.expect("it votes");
    (dir, server)
}

/// Sends `bytes` and gives what comes back until the server ends the connection.
async fn send(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    // The server may end it before it took everything.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut back = Vec::new();
    let _ = tokio::time::timeout(HANG, stream.read_to_end(&mut back)).await.expect("it ends");
    back
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_does_no_harm() {
    let (_dir, server) = cluster().await;
    // Nobody serves other protocols here: such connections end.
    drop(server.other_connections());
    let log = VirtualLog::open(&format!("{}x", server.url())).await.expect("a log");
    log.append("before").await.expect("an append");
    let mut random = virtuallog::testing::Rng::new(7);
    let mut frames: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        b"VLW\x01".to_vec(),
        [b"VLW\x01".as_slice(), &u32::MAX.to_le_bytes(), &[0; 12]].concat(),
        [b"VLW\x01".as_slice(), &20u32.to_le_bytes(), &u32::MAX.to_le_bytes(), &[0; 8]].concat(),
        [b"VLW\x01".as_slice(), &[0; 64]].concat(),
    ];
    for _ in 0..50 {
        let mut bytes = b"VLW\x01".to_vec();
        bytes.extend((0..random.below(300)).map(|_| random.below(256) as u8));
        frames.push(bytes);
    }
    for bytes in &frames {
        send(&server.address(), bytes).await;
    }
    assert_eq!(log.append("after").await.expect("an append"), LogPos(1));
    log.close().await.expect("closed");
}

/// Whoever speaks the protocol and means harm gets refusals, and no task or thread of the server dies.
#[tokio::test(flavor = "multi_thread")]
async fn well_formed_nonsense_does_no_harm() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |why| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(why);
    }));
    let (_dir, server) = cluster().await;
    drop(server.other_connections());
    let log = VirtualLog::open(&format!("{}x", server.url())).await.expect("a log");
    log.append("before").await.expect("an append");
    let attack = virtuallog::testing::hostile::attack();
    for _ in 0..2 {
        let answers = send(&server.address(), &attack).await;
        assert!(answers.len() > 1000, "it is spoken to");
    }
    assert_eq!(log.append("after").await.expect("an append"), LogPos(1));
    log.close().await.expect("closed");
    server.close().await.expect("closed");
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "nothing panicked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_cluster_is_told_apart() {
    let (_one, first) = cluster().await;
    let (_two, second) = cluster().await;
    let (first_id, second_id) = (first.cluster().expect("one"), second.cluster().expect("one"));
    assert_ne!(first_id, second_id);
    let error = server::init(&[first.address(), second.address()]).await.expect_err("two clusters");
    assert_eq!(error.code(), ErrorCode::Conflict, "{error}");
    // Once more with the same servers only completes what is complete.
    assert_eq!(server::init(&[first.address()]).await.expect("the same").id, first_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_belongs_to_no_cluster_says_what_to_do() {
    let (_dir, server) = one().await;
    let url = format!("{}x", server.url());
    let error = VirtualLog::open(&url).await.expect_err("no cluster");
    assert_eq!(error.code(), ErrorCode::Invalid);
    assert!(error.message().contains("virtuallog init"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_refused_at_the_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = |listen: &str| ServerConfig {
        data: dir.path().join("data"),
        listen: listen.into(),
        ..ServerConfig::default()
    };
    let error = Server::start(config("0.0.0.0:0")).await.expect_err("beyond loopback");
    assert_eq!(error.code(), ErrorCode::Invalid);
    assert!(error.message().contains("insecure"), "{error}");
    let nowhere = ServerConfig { insecure: true, ..config("0.0.0.0:0") };
    let error = Server::start(nowhere).await.expect_err("nobody reaches 0.0.0.0");
    assert_eq!(error.code(), ErrorCode::Invalid);
    assert!(error.message().contains("advertise"), "{error}");
    let server = Server::start(config("127.0.0.1:0")).await.expect("a server");
    let error = Server::start(config("127.0.0.1:0")).await.expect_err("one owner a directory");
    assert_eq!(error.code(), ErrorCode::Locked, "{error}");
    let other = tempfile::tempdir().expect("a directory");
    let taken = ServerConfig {
        data: other.path().join("data"),
        listen: server.address(),
        ..ServerConfig::default()
    };
    let error = Server::start(taken).await.expect_err("the port is taken");
    assert_eq!(error.code(), ErrorCode::Unavailable);
    assert!(error.message().contains("is taken"), "{error}");
    server.close().await.expect("closed");
    Server::start(config("127.0.0.1:0")).await.expect("the directory is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_said_at_once() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("its address");
    drop(free);
    let error = VirtualLog::open(&format!("virtuallog://{address}/x")).await.expect_err("nobody");
    assert_eq!(error.code(), ErrorCode::Unavailable, "{error}");
}
