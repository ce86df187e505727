//! Directories of servers that were put back from before, or lost in part: such a server counts for
//! nothing, however often it is started, and says why.

mod servers;

use std::fs;
use std::path::Path;
use std::time::Duration;

use servers::{Cluster, HANG, append_numbers, assert_numbers};
use virtuallog::{ErrorCode, VirtualLog};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("known").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), &to).expect("copied")),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_from_before_is_refused_however_often_it_is_started() {
    // Of two nodes the other one surely knows.
    let mut cluster = Cluster::start(2).await;
    cluster.stop(1).await;
    let (data, image) = (cluster.dirs[1].path().join("data"), cluster.dirs[1].path().join("image"));
    copy(&data, &image);
    // Another life, of which the image knows nothing.
    cluster.restart(1).await;
    cluster.stop(1).await;
    fs::remove_dir_all(&data).expect("removed");
    copy(&image, &data);
    for _ in 0..3 {
        cluster.launch(1).await;
        let server = cluster.servers[1].as_ref().expect("it runs");
        let ready = tokio::time::timeout(HANG, server.ready()).await.expect("in time");
        let error = ready.expect_err("it has forgotten");
        assert_eq!(error.code(), ErrorCode::DataLoss);
        assert!(error.to_string().contains("remove this node"), "{error}");
        cluster.stop(1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_part_of_the_metastore_never_votes_there() {
    let mut cluster = Cluster::start(3).await;
    let log = cluster.open("x").await;
    append_numbers(&log, 0..10).await;
    cluster.stop(2).await;
    fs::remove_dir_all(cluster.dirs[2].path().join("data").join("paxos")).expect("removed");
    // It is taught by the others, and what it promised is gone all the same.
    for _ in 0..2 {
        cluster.restart(2).await;
        cluster.open("x").await.close().await.expect("closes");
        cluster.stop(2).await;
    }
    cluster.restart(2).await;
    cluster.stop(1).await;
    let open = VirtualLog::builder(&cluster.url("y")).timeout(Some(Duration::from_secs(2)));
    let error = open.open().await.expect_err("one of three MetaStore members can vote");
    assert!([ErrorCode::Unavailable, ErrorCode::Deadline].contains(&error.code()), "{error}");
    cluster.restart(1).await;
    cluster.open("y").await.close().await.expect("closes");
    append_numbers(&log, 10..20).await;
    assert_numbers(&log, 20).await;
}
