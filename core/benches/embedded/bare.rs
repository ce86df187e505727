//! What the disk allows: a group-commit writer with nothing around it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

use tokio::sync::oneshot;

/// The file wraps here: zero-filled ahead of use, as the log's own journal is.
const FILE_BYTES: u64 = 256 << 20;

/// A zero-filled file that is written round and round.
pub(crate) struct Ring {
    file: File,
    at: u64,
}

impl Ring {
    pub(crate) fn new(path: &Path) -> Ring {
        let mut file = File::create_new(path).expect("a new file");
        let zeros = vec![0; 1 << 20];
        for _ in 0..FILE_BYTES >> 20 {
            file.write_all(&zeros).expect("room for the file");
        }
        file.sync_all().expect("a sync");
        Ring { file, at: 0 }
    }

    /// Writes and syncs.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if self.at + bytes.len() as u64 > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at).expect("a write");
        self.file.sync_data().expect("a sync");
        self.at += bytes.len() as u64;
    }
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(Vec<u8>, oneshot::Sender<()>)>,
    stop: bool,
}

/// One thread that takes all that waits, writes it, syncs once, and answers.
pub(crate) struct GroupCommit {
    shared: Arc<(Mutex<Queue>, Condvar)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl GroupCommit {
    pub(crate) fn new(path: &Path) -> GroupCommit {
        let mut ring = Ring::new(path);
        let shared = Arc::<(Mutex<Queue>, Condvar)>::default();
        let theirs = shared.clone();
        let thread = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            loop {
                let batch = {
                    let mut queue = theirs.0.lock().expect("no panic");
                    while queue.waiting.is_empty() && !queue.stop {
                        queue = theirs.1.wait(queue).expect("no panic");
                    }
                    if queue.waiting.is_empty() {
                        return;
                    }
                    std::mem::take(&mut queue.waiting)
                };
                bytes.clear();
                batch.iter().for_each(|(entry, _)| bytes.extend_from_slice(entry));
                ring.append(&bytes);
                for (_, answer) in batch {
                    let _ = answer.send(());
                }
            }
        });
        GroupCommit { shared, thread: Some(thread) }
    }

    pub(crate) async fn append(&self, entry: Vec<u8>) {
        let (answer, answered) = oneshot::channel();
        let first = {
            let mut queue = self.shared.0.lock().expect("no panic");
            queue.waiting.push((entry, answer));
            queue.waiting.len() == 1
        };
        if first {
            self.shared.1.notify_one();
        }
        answered.await.expect("an answer");
    }
}

impl Drop for GroupCommit {
    fn drop(&mut self) {
        self.shared.0.lock().expect("no panic").stop = true;
        self.shared.1.notify_one();
        self.thread.take().expect("there is one").join().expect("no panic");
    }
}
