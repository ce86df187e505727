//! Making a cluster, with the first node's machine switched off at every step that it does on its disk:
//! the same again completes it.

use std::path::PathBuf;

use super::*;
use crate::server::{Ground, Server, ServerConfig};
use crate::storage::StorageOptions;
use crate::testing::simdisk::SimDisk;
use crate::wire::messages::Hello;
use crate::wire::tcp::TcpTransport;

async fn server(disk: &SimDisk, listen: &str) -> Result<Server> {
    let (data, listen) = (PathBuf::from("/data"), listen.to_owned());
    let heartbeat = Duration::from_millis(20);
    let config = ServerConfig { data, listen, heartbeat, ..ServerConfig::default() };
    Server::start_on(Arc::new(disk.clone()), config).await
}

async fn works(address: &str) {
    let log = VirtualLog::open(&format!("virtuallog://{address}/log")).await.expect("opens");
    log.append("one").await.expect("appended");
    log.close().await.expect("closes");
}

/// Makes a cluster of `others` and one more, whose disk stops at its `operation`-th operation of that.
/// Whether it came so far.
async fn interrupted(others: usize, operation: u64, power: bool) -> bool {
    let disk = SimDisk::new();
    let first = server(&disk, "127.0.0.1:0").await.expect("starts");
    let address = first.address();
    let mut rest = Vec::new();
    for _ in 0..others {
        let disk = SimDisk::new();
        rest.push((server(&disk, "127.0.0.1:0").await.expect("starts"), disk));
    }
    let mut addresses = vec![address.clone()];
    addresses.extend(rest.iter().map(|(server, _)| server.address()));
    disk.stop_at(disk.operations() + operation);
    let made = init(&addresses).await;
    let stopped = made.is_err();
    // Its disk takes nothing any more, unless it came to the end.
    let _ = first.close().await;
    let disk = if power { disk.crash(|at| at % 2 == 0) } else { disk.kill() };
    let mut running = Vec::new();
    // The others are started again too: they know of the cluster, and nobody taught them anything yet.
    for (before, disk) in rest {
        let listen = before.address();
        before.close().await.expect("closes");
        running.push(server(&disk.kill(), &listen).await.expect("starts again"));
    }
    running.push(server(&disk, &address).await.expect("starts again"));
    let again = init(&addresses).await;
    assert!(again.is_ok(), "after operation {operation}, power {power}: {again:?}");
    works(&address).await;
    for server in running {
        server.close().await.expect("closes");
    }
    stopped
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_first_node_ends_while_it_is_made_is_completed() {
    let mut operation = 1;
    while interrupted(0, operation, operation % 2 == 0).await {
        operation += 1;
    }
    assert!(operation > 10, "{operation} operations");
    for at in [operation / 3, operation / 2, operation - 2] {
        interrupted(2, at, false).await;
    }
}

/// Whoever reaches it before it took up what its disk says is to come again, and not told for good that
/// it belongs to no cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_starts_says_so() {
    let disk = SimDisk::new();
    let made = server(&disk, "127.0.0.1:0").await.expect("starts");
    init(&[made.address()]).await.expect("made");
    let cluster = made.cluster().expect("of one");
    made.close().await.expect("closes");

    let ground = Ground {
        disk: Arc::new(disk.kill()),
        storage: StorageOptions::default(),
        transport: Box::new(|myself| Arc::new(TcpTransport::new(myself))),
        batches: None,
    };
    let config = ServerConfig { data: PathBuf::from("/data"), ..ServerConfig::default() };
    let starting = Server::on(ground, config).await.expect("opens");
    let greeted = |cluster: u128| {
        let hello = Hello { cluster: Some(cluster.into()), ..Hello::default() };
        starting.inner().greet(&hello).expect_err("it is not ready").code()
    };
    assert_eq!(greeted(cluster), ErrorCode::Unavailable);
    assert_eq!(greeted(cluster ^ 1), ErrorCode::Incompatible);
}
