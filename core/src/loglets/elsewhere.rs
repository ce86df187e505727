//! A loglet of another store, as a chain names it while a log moves, and for what a move left behind.
//!
//! The parameters are the other store's URL and the configuration as that store's own chains would
//! have it. Nothing is done here but to reach that store and ask its provider of the kind: whoever
//! opens such a loglet gets the very engine. Nobody asks for one by name: a move makes them.
//!
//! Which other stores a handle has open is part of this file: they close with the store whose chain
//! led to them. What it does not do: retire. Whoever drops a segment tells each store that the chain
//! named (see [`Others::named`]), since a provider cannot know which those are.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use prost::Message;
use virtuallog_protocol::{Chain, LogId, LogletConfig, LogletId, LogletPos};

use crate::error::{Error, ErrorCode, Result};
use crate::loglet::{Loglet, LogletError, LogletProvider};
use crate::store::{self, Store};
use crate::url::{Location, LogUrl};

/// The kind of the loglets of this file.
pub(crate) const KIND: &str = "elsewhere";

/// The encoded parameters. Field numbers are frozen.
#[derive(Clone, PartialEq, Message)]
struct Params {
    #[prost(string, tag = "1")]
    store: String,
    #[prost(string, tag = "2")]
    kind: String,
    #[prost(bytes = "bytes", tag = "3")]
    params: bytes::Bytes,
    #[prost(string, tag = "4")]
    name: String,
}

/// A loglet's configuration, and the URL of the store that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Away {
    pub(crate) store: String,
    pub(crate) config: LogletConfig,
}

impl Away {
    /// `None` for a loglet of the chain's own store.
    ///
    /// # Errors
    /// `Corrupt` when the parameters are none.
    pub(crate) fn of(config: &LogletConfig) -> Result<Option<Away>, LogletError> {
        if config.kind != KIND {
            return Ok(None);
        }
        let Ok(Params { store, kind, params, name }) = Params::decode(config.params.clone()) else {
            return Err(LogletError::Corrupt("the parameters of a loglet elsewhere".into()));
        };
        Ok(Some(Away { store, config: LogletConfig { kind, params, name } }))
    }

    /// How a chain in another store names it.
    pub(crate) fn config(self) -> LogletConfig {
        let shown = format!("{} {}", self.store, self.config.name);
        let LogletConfig { kind, params, name } = self.config;
        let params = Params { store: self.store, kind, params, name }.encode_to_vec().into();
        LogletConfig { kind: KIND.into(), params, name: shown }
    }
}

/// The other stores that one store's chains led to, and the provider of their loglets.
pub(crate) struct Others {
    /// By URL. Held while one is opened, so that each is opened once.
    open: tokio::sync::Mutex<BTreeMap<String, Arc<Store>>>,
    reach: Reach,
    /// A third party's kinds, which every store of a handle knows.
    extra: Vec<Arc<dyn LogletProvider>>,
}

/// Where a process goes because a chain says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Anywhere, as the user may who opened the log.
    Write,
    /// Anywhere, to read.
    Read,
    /// To clusters: a server does not take a directory of its machine because a chain names it.
    Clusters,
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Others({:?})", self.reach)
    }
}

impl Others {
    pub(crate) fn new(reach: Reach, extra: Vec<Arc<dyn LogletProvider>>) -> Arc<Others> {
        Arc::new(Others { open: tokio::sync::Mutex::default(), reach, extra })
    }

    /// Whether nothing may be written.
    pub(crate) fn read_only(&self) -> bool {
        self.reach == Reach::Read
    }

    /// The store that a chain names.
    ///
    /// # Errors
    /// `UNAVAILABLE`, with what keeps it from being reached.
    pub(crate) async fn store(&self, url: &str) -> Result<Arc<Store>> {
        let opened = match LogUrl::parse(url) {
            Ok(url) => self.store_at(&url.location, false).await,
            Err(error) => Err(error),
        };
        opened.map_err(|error| {
            let message = format!(
                "a part of the log is in the store `{url}`, which cannot be reached from here: {}",
                error.message()
            );
            Error::new(ErrorCode::Unavailable, message).with_source(error)
        })
    }

    /// The store at a location; made if it is missing and may be.
    pub(crate) async fn store_at(&self, location: &Location, create: bool) -> Result<Arc<Store>> {
        if self.reach == Reach::Clusters && !matches!(location, Location::Cluster { .. }) {
            let message = "a server opens no store on the disk of its machine for a log";
            return Err(Error::new(ErrorCode::Unavailable, message));
        }
        let location = store::absolute(location)?;
        let url = store::store_url(&location);
        let mut open = self.open.lock().await;
        if let Some(store) = open.get(&url) {
            return Ok(store.clone());
        }
        let store = Store::reach(&location, self.reach, create, &self.extra).await?;
        Ok(open.entry(url).or_insert(Arc::new(store)).clone())
    }

    /// The other stores that a chain names and that can be reached.
    pub(crate) async fn named(&self, chain: &Chain) -> Vec<Arc<Store>> {
        let mut stores = BTreeMap::new();
        for segment in &chain.segments {
            if let Ok(Some(away)) = Away::of(&segment.config)
                && !stores.contains_key(&away.store)
            {
                match self.store(&away.store).await {
                    Ok(store) => drop(stores.insert(away.store, store)),
                    Err(error) => tracing::warn!(%error, "loglets there remain"),
                }
            }
        }
        stores.into_values().collect()
    }

    /// Closes them.
    pub(crate) async fn release(&self) -> Result<()> {
        let stores = std::mem::take(&mut *self.open.lock().await);
        let mut released = Ok(());
        for store in stores.into_values() {
            released = released.and(Box::pin(store.release()).await);
        }
        released
    }

    async fn inner(
        &self,
        config: &LogletConfig,
    ) -> Result<(Arc<dyn LogletProvider>, LogletConfig), LogletError> {
        let away = Away::of(config)?;
        let away = away.ok_or_else(|| LogletError::Corrupt("a loglet is not elsewhere".into()))?;
        let unreachable = |error: Error| LogletError::Unavailable(error.into());
        let store = self.store(&away.store).await.map_err(unreachable)?;
        let provider = store.provider(&away.config.kind).map_err(LogletError::Refused)?;
        Ok((provider, away.config))
    }
}

#[async_trait]
impl LogletProvider for Others {
    fn kind(&self) -> &str {
        KIND
    }

    fn plan(&self, _args: &str) -> Result<LogletConfig, Error> {
        Err(Error::invalid(format!("`{KIND}` is what a move makes: move the log instead")))
    }

    async fn place(
        &self,
        planned: LogletConfig,
        after: Option<&LogletConfig>,
    ) -> Result<LogletConfig, Error> {
        let wrong = |error: LogletError| Error::new(ErrorCode::Corrupt, error.to_string());
        let Some(away) = Away::of(&planned).map_err(wrong)? else { return Ok(planned) };
        let after = after.and_then(|after| Away::of(after).ok().flatten());
        let after = after.filter(|after| after.store == away.store).map(|after| after.config);
        let store = self.store(&away.store).await?;
        let config = store.provider(&away.config.kind)?.place(away.config, after.as_ref()).await?;
        Ok(Away { store: away.store, config }.config())
    }

    async fn create(
        &self,
        id: LogletId,
        config: &LogletConfig,
        base: LogletPos,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        let (provider, config) = self.inner(config).await?;
        provider.create(id, &config, base).await
    }

    async fn open(
        &self,
        id: LogletId,
        config: &LogletConfig,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        let (provider, config) = self.inner(config).await?;
        provider.open(id, &config).await
    }

    async fn retire(&self, _log: LogId, _live: &[u32], _bound: u32) -> Result<(), LogletError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_goes_there_and_back() {
        let config = LogletConfig { kind: "k".into(), params: "p".into(), name: "k:1".into() };
        let away = Away { store: "virtuallog://h:1/".into(), config: config.clone() };
        let wrapped = away.clone().config();
        assert_eq!((&*wrapped.kind, &*wrapped.name), (KIND, "virtuallog://h:1/ k:1"));
        assert_eq!(Away::of(&wrapped).expect("its own form"), Some(away));
        assert_eq!(Away::of(&config).expect("not elsewhere"), None);
        let damaged = LogletConfig { params: "\u{1}".into(), ..wrapped };
        assert!(matches!(Away::of(&damaged), Err(LogletError::Corrupt(_))));
    }
}
