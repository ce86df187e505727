//! A log on its way to another store, told step by step.
//!
//! No thread of ours runs host code, so progress is not called out but asked for: the host asks for the
//! next [`Step`] until it is the last. Only the newest step is kept for a host that is slow. Dropping a
//! [`Relocation`] stops it where it is; the log is then in one of both stores, whole and in use, and the
//! same call completes it.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{Mutex, watch};
use virtuallog::{Chain, MoveProgress};

use crate::error::{Error, Result};
use crate::op::Op;
use crate::per_process::PerProcess;

/// How far a log has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is on its way.
    Progress(MoveProgress),
    /// It has arrived: its chain there.
    Done(Chain),
}

/// A move under way.
pub struct Relocation(PerProcess<Arc<Mutex<Steps>>>);

struct Steps {
    progress: watch::Receiver<Option<MoveProgress>>,
    moving: Op<Chain>,
}

impl Relocation {
    /// Moves the log `src` to `dst`, a name in another store, while it is used. With `leave_sealed` the
    /// sealed segments stay where they are.
    #[must_use]
    pub fn start(src: &str, dst: &str, leave_sealed: bool) -> Self {
        let (src, dst) = (src.to_owned(), dst.to_owned());
        let (tell, progress) = watch::channel(None);
        let moving = Op::spawn(async move {
            let tell = |step| {
                tell.send_replace(Some(step));
            };
            Ok(virtuallog::move_log(&src, &dst, leave_sealed, tell).await?)
        });
        Self(PerProcess::new(Arc::new(Mutex::new(Steps { progress, moving }))))
    }

    /// Waits for the next step. After the last one, or a failure, `CLOSED`. A dropped `Op` loses nothing.
    pub fn next(&self) -> Op<Step> {
        match self.0.get() {
            Err(error) => Op::ready(Err(error)),
            Ok(steps) => {
                let steps = steps.clone();
                Op::taking(async move { steps.lock().await.next().await })
            }
        }
    }
}

impl fmt::Debug for Relocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Relocation")
    }
}

impl Steps {
    async fn next(&mut self) -> Result<Step> {
        // The sender goes away with the last step seen.
        if self.progress.changed().await.is_ok()
            && let Some(step) = *self.progress.borrow_and_update()
        {
            return Ok(Step::Progress(step));
        }
        let outcome = (&mut self.moving).await;
        self.moving = Op::ready(Err(Error::closed("move")));
        Ok(Step::Done(outcome?))
    }
}
