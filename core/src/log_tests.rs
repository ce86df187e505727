//! Opening a log by a chain that was read a while ago.

use virtuallog_protocol::LogPos;

use super::*;
use crate::VirtualLog;
use crate::loglets::elsewhere::Reach;
use crate::url::LogUrl;

/// A log in a directory, as two handles and a chain that was read before its only loglet was replaced,
/// trimmed and retired.
#[tokio::test]
async fn a_chain_whose_loglet_was_retired_is_read_again() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let url = format!("file:{}/log", dir.path().display());
    let log = VirtualLog::open(&url).await.expect("opens");
    log.append("zero").await.expect("appended");

    let location = LogUrl::parse(&url).expect("a log").location;
    let store = Arc::new(Store::reach(&location, Reach::Write, true, &[]).await.expect("opens"));
    let home = Arc::new(Home { name: "log".into(), store: store.clone() });
    let read = home.read().await.expect("read").expect("a chain");
    log.reconfig_extend("local", None).await.expect("swapped");
    log.append("one").await.expect("appended");
    log.prefix_trim(LogPos(1)).await.expect("trimmed");
    let now = home.read().await.expect("read").expect("a chain");
    store.retire(read.log, &[now.active().loglet], now.active().loglet).await;

    let late = Log::bare("log".into(), store.clone(), Options::internal(), read.clone()).await;
    let late = late.expect("opens");
    assert_eq!(late.view().chain.active().index, 1);
    late.close();

    // What the register still names is lost.
    store.retire(read.log, &[], u32::MAX).await;
    let lost = Log::bare("log".into(), store.clone(), Options::internal(), now).await;
    assert_eq!(lost.expect_err("lost").code(), ErrorCode::DataLoss);

    crate::delete(&url).await.expect("deleted");
    let gone = Log::bare("log".into(), store, Options::internal(), read).await;
    assert_eq!(gone.expect_err("deleted").code(), ErrorCode::NotFound);
}
