//! The open logs of one store, by name: opened when first asked for, closed when idle.
//!
//! Reading and administration share one handle a log. Each stream that appends has a writer of its own
//! beside it, because the failure of one stream must not turn away another one's appends.
//!
//! At most [`LOGS_OPEN_MAX`] shared handles are kept. One that goes beyond is let go, and closed at once
//! where nobody uses it; otherwise it goes with its last user.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use virtuallog::loglet::LogletProvider;
use virtuallog::protocol::limits::{BATCH_BYTES_MAX, ENTRY_BYTES_DEFAULT};
use virtuallog::store::Builder;
use virtuallog::url::{LogUrl, check_name};
use virtuallog::{ErrorCode, Result, VirtualLog};

/// Logs that are kept open, at most.
const LOGS_OPEN_MAX: usize = 1024;
/// How long a log that nobody uses stays open. Looked at when another one is opened: there is no timer.
const IDLE_MAX: Duration = Duration::from_secs(300);
/// What a request may have beside its payloads.
const REQUEST_SLACK_BYTES: usize = 64 << 10;

/// The logs of one store, as the gRPC service reaches them; given to [`serve`](super::serve).
#[derive(Debug)]
pub struct Gateway {
    store: LogUrl,
    providers: Vec<Arc<dyn LogletProvider>>,
    open: Mutex<BTreeMap<String, Opened>>,
    stopping: watch::Sender<bool>,
}

#[derive(Debug)]
struct Opened {
    log: Arc<VirtualLog>,
    used: Instant,
}

impl Gateway {
    /// A gateway to the store that `store_url` names: it ends in `/`, and its parameters hold for every
    /// log. `providers` are kinds of loglet beyond those that the core brings along. Opens nothing yet.
    ///
    /// # Errors
    /// `INVALID` when the URL is wrong or names a log; `INCOMPATIBLE` for a scheme of another build.
    pub fn new(store_url: &str, providers: Vec<Arc<dyn LogletProvider>>) -> Result<Gateway> {
        let store = LogUrl::parse(store_url)?;
        store.store_only()?;
        let (stopping, open) = (watch::Sender::new(false), Mutex::default());
        Ok(Gateway { store, providers, open, stopping })
    }

    /// Most bytes of a request: a whole batch, or one entry, and something beside it.
    pub(super) fn request_bytes_max(&self) -> usize {
        let entry = self.store.params.entry_bytes_max.unwrap_or(ENTRY_BYTES_DEFAULT);
        entry.max(BATCH_BYTES_MAX) + REQUEST_SLACK_BYTES
    }

    /// The URL of the store.
    pub(super) fn store(&self) -> String {
        self.store.to_string()
    }

    /// The URL of the log of this name.
    ///
    /// # Errors
    /// `INVALID` when it cannot be a name.
    pub(super) fn url(&self, name: &str) -> Result<String> {
        check_name(name)?;
        Ok(LogUrl { name: Some(name.to_owned()), ..self.store.clone() }.to_string())
    }

    /// How to open, create or delete the log of this name.
    ///
    /// # Errors
    /// `INVALID` when it cannot be a name.
    pub(super) fn builder(&self, name: &str) -> Result<Builder> {
        let builder = VirtualLog::builder(&self.url(name)?);
        Ok(self.providers.iter().fold(builder, |builder, kind| builder.provider(kind.clone())))
    }

    /// The names of the store's logs, sorted.
    pub(super) async fn names(&self) -> Result<Vec<String>> {
        virtuallog::logs(&self.store()).await
    }

    /// The shared handle of a log that exists, and whether it was opened just now.
    async fn log(&self, name: &str) -> Result<(Arc<VirtualLog>, bool)> {
        if let Some(opened) = self.open().get_mut(name) {
            opened.used = Instant::now();
            return Ok((opened.log.clone(), false));
        }
        let log = Arc::new(self.builder(name)?.create(false).open().await?);
        // Of several who open at once, the last one's handle is kept.
        let used = Instant::now();
        let surplus = self.open().insert(name.to_owned(), Opened { log: log.clone(), used });
        let surplus = surplus.into_iter().map(|opened| opened.log).chain(self.take_surplus(used));
        close_unused(surplus.collect()).await;
        Ok((log, true))
    }

    /// A writer of its own on the log; made if it is missing and `create` says so. To be kept with the
    /// shared handle that comes along, which keeps the store open.
    pub(super) async fn writer(
        &self,
        name: &str,
        create: bool,
    ) -> Result<(VirtualLog, Arc<VirtualLog>)> {
        let writer = self.builder(name)?.create(create).open().await?;
        Ok((writer, self.log(name).await?.0))
    }

    /// Runs a call on the log. When the handle at hand turns out to be of a log that was deleted
    /// meanwhile there may be a new one of that name: once more, then, on a fresh handle.
    pub(super) async fn with<T, F>(
        &self,
        name: &str,
        call: impl Fn(Arc<VirtualLog>) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let (log, fresh) = self.log(name).await?;
        match call(log).await {
            Err(error)
                if !fresh && matches!(error.code(), ErrorCode::NotFound | ErrorCode::Closed) =>
            {
                self.forget(name).await;
                call(self.log(name).await?.0).await
            }
            outcome => outcome,
        }
    }

    /// Gives the shared handle of a log up.
    pub(super) async fn forget(&self, name: &str) {
        let forgotten = self.open().remove(name);
        close_unused(forgotten.into_iter().map(|opened| opened.log).collect()).await;
    }

    /// Ends once [`stop`](Self::stop) was called.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping.subscribe();
        async move {
            // An error means that the gateway is gone, and nothing is more stopped than that.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        }
    }

    /// Ends every stream, each with what it has under way answered.
    pub(super) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Closes every log.
    pub(super) async fn close(&self) {
        let open = std::mem::take(&mut *self.open());
        close_unused(open.into_values().map(|opened| opened.log).collect()).await;
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<String, Opened>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out what is idle, and the one that was unused longest when there are too many.
    fn take_surplus(&self, now: Instant) -> Vec<Arc<VirtualLog>> {
        let mut open = self.open();
        let oldest = open.values().map(|opened| opened.used).min();
        let oldest = oldest.filter(|_| open.len() > LOGS_OPEN_MAX);
        let surplus = |(_, opened): &(&String, &Opened)| {
            let idle = Arc::strong_count(&opened.log) == 1 && now - opened.used > IDLE_MAX;
            idle || Some(opened.used) == oldest
        };
        let names: Vec<String> =
            open.iter().filter(surplus).map(|(name, _)| name.clone()).collect();
        names.iter().filter_map(|name| open.remove(name)).map(|opened| opened.log).collect()
    }
}

/// Closes handles that nobody uses; the others go with their last user.
async fn close_unused(logs: Vec<Arc<VirtualLog>>) {
    for log in logs.into_iter().filter_map(Arc::into_inner) {
        if let Err(error) = log.close().await {
            tracing::warn!(name = log.name(), %error, "a log was not closed cleanly");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn tail(gateway: &Gateway, name: &str) -> Result<virtuallog::Tail> {
        gateway.with(name, async |log| log.check_tail().await).await
    }

    async fn create(gateway: &Gateway, name: &str) {
        gateway.builder(name).unwrap().create_new().await.unwrap();
    }

    fn names(gateway: &Gateway) -> Vec<String> {
        gateway.open().keys().cloned().collect()
    }

    #[tokio::test]
    async fn no_more_logs_are_open_than_may_be() {
        let gateway = Gateway::new("memory:/", Vec::new()).unwrap();
        for n in 0..LOGS_OPEN_MAX + 3 {
            let name = format!("bounded-{n:04}");
            create(&gateway, &name).await;
            tail(&gateway, &name).await.unwrap();
        }
        let open = names(&gateway);
        assert_eq!(open.len(), LOGS_OPEN_MAX);
        assert_eq!(open[0], "bounded-0003", "the ones that were unused longest went");
        tail(&gateway, "bounded-0000").await.expect("it is opened again");
    }

    #[tokio::test]
    async fn what_is_idle_is_let_go_and_what_is_in_use_is_not() {
        let gateway = Gateway::new("memory:/", Vec::new()).unwrap();
        for name in ["idle", "used"] {
            create(&gateway, name).await;
            tail(&gateway, name).await.unwrap();
        }
        let (used, _) = gateway.log("used").await.unwrap();
        assert!(gateway.take_surplus(Instant::now()).is_empty());
        assert_eq!(gateway.take_surplus(Instant::now() + IDLE_MAX * 2).len(), 1);
        assert_eq!(names(&gateway), ["used"]);
        gateway.close().await;
        used.append("x").await.expect("it goes with its last user");
    }

    #[tokio::test]
    async fn a_handle_of_a_deleted_log_is_given_up() {
        let gateway = Gateway::new("memory:/", Vec::new()).unwrap();
        create(&gateway, "anew").await;
        gateway.log("anew").await.unwrap().0.append("x").await.unwrap();
        virtuallog::delete("memory:anew").await.unwrap();
        assert_eq!(tail(&gateway, "anew").await.unwrap_err().code(), ErrorCode::NotFound);
        create(&gateway, "anew").await;
        assert_eq!(tail(&gateway, "anew").await.unwrap().position.0, 0);
    }
}
