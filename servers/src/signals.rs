//! The signals that ask a program to end in order: SIGTERM, SIGINT (Ctrl-C), SIGHUP (the terminal is gone).

use tokio::signal::unix::{Signal, SignalKind, signal};
use virtuallog::{Error, ErrorCode};

/// Takes these signals from now on: they end nothing by themselves any more.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// # Errors
    /// `INTERNAL` when the system refuses.
    pub(crate) fn new() -> Result<Self, Error> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Error::new(ErrorCode::Internal, "cannot listen for signals").with_source(error)
            })
        };
        Ok(Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn recv(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
