//! Tailer: follow a log while it is written, stop, and resume where you stopped.

use virtuallog::{Start, VirtualLog};

#[tokio::main]
async fn main() -> virtuallog::Result<()> {
    let url = std::env::args().nth(1).unwrap_or("file:tailer-data/lines".into());
    let log = VirtualLog::open(&url).await?;

    let mut subscription = log.subscribe(Start::First).await?;
    let writer = log.clone(); // just as well another process
    let writing = tokio::spawn(async move {
        let lines: Vec<_> = (1..=5).map(|number| writer.append(format!("line {number}"))).collect();
        for line in lines {
            line.await?;
        }
        Ok::<_, virtuallog::Error>(())
    });
    for _ in 0..3 {
        print(subscription.next().await?); // waits until there is one
    }
    let saved = subscription.position(); // what to keep in order to resume
    drop(subscription);
    writing.await.expect("it does not panic")?;

    println!("resumed at {saved}");
    let mut subscription = log.subscribe(Start::At(saved)).await?;
    for _ in 0..2 {
        print(subscription.next().await?);
    }
    log.close().await
}

fn print(entry: Option<virtuallog::Entry>) {
    let entry = entry.expect("a subscription ends only with its log");
    println!("{}", String::from_utf8_lossy(&entry.payload));
}
