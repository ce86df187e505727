//! Live swap: replace the engine under a log that is in use, and lose nothing.

use virtuallog::VirtualLog;

#[tokio::main]
async fn main() -> virtuallog::Result<()> {
    let url = std::env::args().nth(1).unwrap_or("file:live-swap-data/numbers".into());
    let log = VirtualLog::open(&url).await?;

    let mut appends: Vec<_> = (0..500).map(|number| log.append(number.to_string())).collect();
    log.reconfig_extend("local", None).await?; // while they are under way
    appends.extend((500..1000).map(|number| log.append(number.to_string())));
    let chain = log.reconfig_extend("local", None).await?;
    let mut positions = Vec::new();
    for append in appends {
        positions.push(append.await?);
    }

    println!("{} segments", chain.segments.len());
    println!("{} appended, in order: {}", positions.len(), word(positions.is_sorted()));
    let mut numbers = Vec::new();
    let mut entries = log.read(log.first().await?, None).await?;
    while let Some(entry) = entries.next().await? {
        numbers.push(String::from_utf8_lossy(&entry.payload).into_owned());
    }
    let in_order = numbers.iter().enumerate().all(|(at, number)| *number == at.to_string());
    println!("{} read, in order: {}", numbers.len(), word(in_order));
    log.close().await
}

fn word(holds: bool) -> &'static str {
    if holds { "yes" } else { "no" }
}
