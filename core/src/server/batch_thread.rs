//! The one thread that moves batches between nodes.
//!
//! A lone append goes from socket to disk and back to a socket; on a runtime of many threads each step
//! wakes another thread, which costs more than the step. Here, one thread reads, decides, writes and
//! answers, and it may wait for the disk meanwhile. Where many batches come, the store's own thread
//! writes while this one reads. Everything else of a server runs where the server was started.

use std::sync::mpsc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::error::{Error, ErrorCode, Result};

/// Ends, with all its connections, when dropped.
pub(crate) struct BatchThread {
    pub(crate) handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl BatchThread {
    /// # Errors
    /// `UNAVAILABLE`: the operating system gives no thread.
    pub(crate) fn start() -> Result<BatchThread> {
        let failed = |error: std::io::Error| {
            let message = format!("cannot start the thread for batches: {error}");
            Error::new(ErrorCode::Unavailable, message).with_source(error)
        };
        let (_stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = mpsc::channel();
        // The runtime is made and dropped on its thread: elsewhere that might be another's.
        let run = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                let _ = tell.send(Ok(runtime.handle().clone()));
                let _ = runtime.block_on(stopped);
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("virtuallog-batch".to_owned());
        thread.spawn(run).map_err(failed)?;
        let handle = told.recv().expect("it tells before it ends").map_err(failed)?;
        Ok(BatchThread { handle, _stop })
    }
}
