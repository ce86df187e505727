//! Quickstart: write to a durable log, swap its engine, read everything back.

use virtuallog::VirtualLog;

#[tokio::main]
async fn main() -> virtuallog::Result<()> {
    let url = std::env::args().nth(1).unwrap_or("file:quickstart-data/fruit".into());
    let log = VirtualLog::open(&url).await?;

    log.append("apples").await?;
    log.append_many(["pears", "plums"]).await?; // one batch: all or nothing
    log.reconfig_extend("local", None).await?; // another engine, while the log is in use
    log.append("quinces").await?;

    let mut entries = log.read(log.first().await?, None).await?;
    while let Some(entry) = entries.next().await? {
        println!("{}", String::from_utf8_lossy(&entry.payload));
    }
    println!("tail {}", log.check_tail().await?.position);
    log.close().await
}
