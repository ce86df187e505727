//! A node that sequences a thousand logs dies. Alone in its binary, so that nothing else waits for it.

mod servers;

use virtuallog::server;
use virtuallog::{LogPos, VirtualLog};

use self::servers::{Cluster, HANG};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_many_sequencers_dies_without_a_storm() {
    const LOGS: usize = 1000;
    let mut cluster = Cluster::start(3).await;
    let names: Vec<String> = (0..LOGS).map(|at| format!("log-{at}")).collect();
    let mut logs = Vec::new();
    for some in names.chunks(50) {
        let url = |name: &String| format!("{}?timeout=none", cluster.url(name));
        let opened = some.iter().map(|name| {
            let url = url(name);
            async move { VirtualLog::open(&url).await.expect("a log") }
        });
        logs.extend(futures_util::future::join_all(opened).await);
    }
    let append_all = |text: &'static str| {
        let appends = logs.iter().map(move |log| log.append(text));
        let all = futures_util::future::try_join_all(appends);
        async move { tokio::time::timeout(2 * HANG, all).await.expect("in time").expect("appends") }
    };
    assert!(append_all("before").await.iter().all(|at| *at == LogPos(0)));
    let before = server::nodes(&cluster.url("")).await.expect("nodes");
    let most = before.nodes.iter().max_by_key(|node| node.sequences).expect("three");
    assert!(most.sequences as usize >= LOGS / 3, "{before:?}");
    cluster.stop(most.node as usize - 1).await;
    assert!(append_all("after").await.iter().all(|at| *at == LogPos(1)));
    for log in &logs {
        let chain = log.chain().await.expect("a chain");
        assert!(chain.segments.len() <= 2, "mended once: {chain:?}");
    }
}
