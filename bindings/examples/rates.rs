//! What Rust itself does in batches, for the benches of the languages to stand beside.
//!
//!     rates URL SECONDS
//!
//! Appends batches of 1,000 entries of 100 B, one after the other, and then follows the log from its first
//! entry on, each for so long. Prints one JSON object: entries a second of both.

use std::time::{Duration, Instant};

use bytes::Bytes;
use virtuallog::{Result, Start, VirtualLog};

const BATCH: usize = 1000;
const PAYLOAD: Bytes = Bytes::from_static(&[b'x'; 100]);

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().expect("a URL");
    let seconds = args.next().and_then(|text| text.parse().ok()).expect("seconds");
    let seconds = Duration::from_secs_f64(seconds);
    let log = VirtualLog::open(&url).await?;

    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < seconds {
        log.append_many(vec![PAYLOAD; BATCH]).await?;
        count += BATCH;
    }
    let append_many = count as f64 / start.elapsed().as_secs_f64();

    let tail = log.check_tail().await?.position;
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < seconds {
        let mut subscription = log.subscribe(Start::First).await?;
        while subscription.position() < tail && start.elapsed() < seconds {
            count += subscription.next_batch(BATCH).await?.len();
        }
    }
    let subscribe = count as f64 / start.elapsed().as_secs_f64();
    println!("{{\"append_many\": {append_many:.0}, \"subscribe\": {subscribe:.0}}}");
    log.close().await
}
