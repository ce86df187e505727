//! Appends as many entries as it is told, one at a time, to a log in memory: for counting
//! instructions (`.ci/instructions`), which differ by a few in a thousand from run to run, where
//! times differ by half.

use virtuallog::VirtualLog;

fn main() {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1000);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let log = VirtualLog::open("memory:?timeout=none").await.expect("opens");
        for _ in 0..count {
            log.append(&[b'x'; 100][..]).await.expect("appended");
        }
    });
}
