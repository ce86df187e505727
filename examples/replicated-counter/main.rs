//! Replicated counter: replicas that play the same log are in the same state.

use virtuallog::{Reader, Result, Start, VirtualLog};

/// A replica. What changes it goes through the log, and so does what reads it.
struct Counter {
    log: VirtualLog,
    played: Reader,
    total: i64,
}

impl Counter {
    async fn new(log: &VirtualLog) -> Result<Self> {
        Ok(Self { log: log.clone(), played: log.subscribe(Start::First).await?, total: 0 })
    }

    async fn add(&self, amount: i64) -> Result<()> {
        self.log.append(amount.to_string()).await.map(drop)
    }

    async fn value(&mut self) -> Result<i64> {
        let tail = self.log.check_tail().await?.position; // all that was added before this call
        while self.played.position() < tail {
            let entry = self.played.next().await?.expect("there is more below the tail");
            let amount = String::from_utf8_lossy(&entry.payload);
            self.total += amount.parse::<i64>().expect("a number was appended");
        }
        Ok(self.total)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or("file:replicated-counter-data/counter".into());
    // Two in one process here; each on a machine of its own where the log is on a cluster.
    let (first, second) = (VirtualLog::open(&url).await?, VirtualLog::open(&url).await?);
    let (mut one, mut two) = (Counter::new(&first).await?, Counter::new(&second).await?);
    one.add(5).await?;
    two.add(10).await?;
    println!("one: {}", one.value().await?);
    println!("two: {}", two.value().await?);
    one.add(-3).await?;
    println!("two: {}", two.value().await?);
    println!("one that starts later: {}", Counter::new(&second).await?.value().await?);
    first.close().await?;
    second.close().await
}
