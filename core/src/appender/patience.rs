//! What an append without an answer is owed: its deadline, a word in the program's log, and a look at the
//! chain.
//!
//! A loglet may be gone with all who could say so. Then the chain shows that its segment ended, and what
//! is out there is looked for as if it had met the seal.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{Answers, Appender, State, not_sent};
use crate::env;
use crate::error::ErrorCode;
use crate::log::{Log, is_open};
use crate::loglet::LogletError;
use crate::ticket::deadline;

/// After so long it is said that a batch gets no answer, where it has no deadline.
const PATIENCE: Duration = Duration::from_secs(10);
/// After so long without an answer the chain is asked whether the segment is still open, and then again
/// and again.
const ASK_CHAIN: Duration = Duration::from_secs(1);
impl Appender {
    /// Makes sure that somebody looks at the deadlines of what is under way, and at what gets no answer.
    pub(super) fn watch(&self, log: &Arc<Log>) {
        // Read first: the flag is nearly always up, and a read shares its cache line.
        if self.watched.load(Ordering::Relaxed) || self.watched.swap(true, Ordering::AcqRel) {
            return;
        }
        let weak = Arc::downgrade(log);
        let timeout = log.options.timeout;
        let pause = timeout.map_or(ASK_CHAIN, |timeout| timeout / 20);
        let pause = pause.clamp(Duration::from_millis(1), ASK_CHAIN);
        log.runtime.spawn(env::task(async move {
            loop {
                tokio::time::sleep(pause).await;
                let Some(log) = weak.upgrade() else { return };
                if !log.appender.expire(&log, timeout.unwrap_or(Duration::MAX)) {
                    return;
                }
                // Whoever brings deadlines of his own sees only that they are over.
                if timeout.is_none() {
                    log.appender.state().complain(&log, PATIENCE);
                }
                let waits = log.appender.state().sent.front().and_then(|sent| sent.parcel.since);
                if waits.is_some_and(|since| since.elapsed() >= ASK_CHAIN)
                    && let Ok(Ok(_)) = tokio::time::timeout(ASK_CHAIN, log.fetch()).await
                {
                    log.appender.overtaken(&log);
                }
            }
        }));
    }

    /// Answers what has waited longer than `timeout`. False when nothing is under way any more.
    fn expire(&self, log: &Log, timeout: Duration) -> bool {
        let late = |since: Instant| since.elapsed() >= timeout;
        let mut answers = Answers::default();
        let mut state = self.state();
        if state.is_idle() {
            // Under the lock: whoever submits after this sees the flag down.
            self.watched.store(false, Ordering::Release);
            return false;
        }
        let out = state.sent.iter().filter(|sent| sent.parcel.since.is_some_and(late));
        let doubtful = out.flat_map(|sent| sent.parcel.tickets());
        let doubtful: Vec<_> =
            doubtful.map(|ticket| (ticket.clone(), ticket.tell_name())).collect();
        let stuck = state.ready.front().or(Some(&state.open)).and_then(|parcel| parcel.since);
        let waits = state.waiting.front().map(|waiting| waiting.since);
        if stuck.is_some_and(late) || waits.is_some_and(late) {
            state.fail_unsent(&not_sent(ErrorCode::Deadline, "time ran out"), &mut answers);
        }
        for (ticket, _) in doubtful.iter().filter(|(ticket, _)| !ticket.is_settled()) {
            state.failures.push(ticket.clone());
        }
        if !doubtful.is_empty() {
            state.complain(log, timeout);
        }
        state.remember_failures(&answers);
        drop(state);
        answers.tell();
        for (ticket, token) in doubtful {
            ticket.settle(Err(deadline(token)));
        }
        true
    }

    /// What is out and has no answer met a seal, if the chain shows its segment closed.
    fn overtaken(&self, log: &Arc<Log>) {
        let chain = &log.view().chain;
        let due = {
            let mut state = self.state();
            for sent in state.sent.iter_mut().filter(|sent| sent.outcome.is_none()) {
                if !is_open(chain, sent.view.chain.active().index) {
                    sent.outcome = Some(Err(LogletError::Sealed));
                }
            }
            state.next_due()
        };
        self.run(log, due);
    }
}

impl State {
    /// Says in the log of the program what the oldest append waits for, once, if that is for `time` and
    /// longer.
    fn complain(&mut self, log: &Log, time: Duration) {
        let Some(front) = self.sent.front_mut() else { return };
        let waits = front.parcel.since.map(|since| since.elapsed()).unwrap_or_default();
        if waits < time || std::mem::replace(&mut front.complained, true) {
            return;
        }
        let front = &self.sent[0];
        tracing::warn!(
            log = log.name,
            ms = waits.as_millis() as u64,
            batches = self.sent.len(),
            unanswered = self.sent.iter().filter(|sent| sent.outcome.is_none()).count(),
            looking_up = self.rerouting,
            segment = front.view.chain.active().index,
            loglet = ?front.view.active,
            "an append has no answer yet"
        );
    }
}
