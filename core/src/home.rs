//! Where a log lives, a name in a store, and how whoever finds it gone follows.
//!
//! A register that says `Moved` sends its reader on. So does a claim, the copy of a chain that is on
//! its way: it points back to the source, until the source points here with the claim's own nonce.
//! Whoever sees both completes the move, so that a mover who died strands nobody.
//!
//! A register that held a log holds it, or points to it, as long as the log is anywhere. So a way that
//! ends at something else says for certain that the log was deleted, and that the names on the way are
//! free again.

use std::sync::Arc;

use virtuallog_protocol::chain::{Chain, Life};

use crate::env;
use crate::error::{Error, ErrorCode, Result};
use crate::log::{decode_chain, deleted, meta_error};
use crate::metastore::{MetaError, Versioned};
use crate::store::Store;
use crate::url::LogUrl;

/// How often a log is followed from store to store before something must be wrong.
const HOPS_MAX: usize = 16;

/// A name in a store.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) name: String,
    pub(crate) store: Arc<Store>,
}

impl Home {
    /// What others open.
    pub(crate) fn url(&self) -> String {
        let (location, name) = (self.store.location.clone(), Some(self.name.clone()));
        LogUrl { location, name, params: Default::default() }.to_string()
    }

    /// Whether both are the same register, however they were reached.
    pub(crate) fn is(&self, other: &Home) -> bool {
        self.name == other.name && self.store.identity == other.store.identity
    }

    pub(crate) async fn get(&self) -> Result<Versioned> {
        self.store.metastore.get(&self.name).await.map_err(meta_error)
    }

    /// The chain as it stands there.
    pub(crate) async fn read(&self) -> Result<Option<Chain>> {
        decode_chain(&self.name, &self.get().await?)
    }

    /// Writes a chain over the version before it.
    pub(crate) async fn put(&self, chain: &Chain) -> Result<(), MetaError> {
        let expected = chain.version - 1;
        self.store.metastore.put_if(&self.name, Some(chain.encode()), expected).await.map(drop)
    }

    async fn other(&self, url: &str) -> Result<Home> {
        let parsed = LogUrl::parse(url)?;
        let name = parsed.log_name()?.to_owned();
        let opened = self.store.others.store_at(&parsed.location, false).await;
        let store = opened.map_err(|error| {
            let message = format!(
                "log `{}` lives at `{url}` now, which cannot be reached from here: {}",
                self.name,
                error.message()
            );
            Error::new(ErrorCode::Unavailable, message).with_source(error)
        })?;
        Ok(Home { name, store })
    }

    /// What the register holds, or leads to, if that is newer than `chain`.
    ///
    /// # Errors
    /// `NOT_FOUND` when the log was deleted meanwhile.
    pub(crate) async fn newer(
        self: &Arc<Home>,
        chain: &Chain,
    ) -> Result<Option<(Arc<Home>, Chain)>> {
        let now = self.read().await?.filter(|now| now.log == chain.log);
        let settled = match now {
            Some(now) => self.clone().settle(now).await?,
            None => None,
        };
        let (home, now) = settled.ok_or_else(|| deleted(&self.name))?;
        Ok((now.moment() > chain.moment()).then_some((home, now)))
    }

    /// From what stands in this register to where the log is, with its chain there. `None`: it is
    /// nowhere any more, it was deleted.
    ///
    /// # Errors
    /// `UNAVAILABLE` when a store on the way cannot be reached.
    pub(crate) async fn settle(
        self: Arc<Home>,
        chain: Chain,
    ) -> Result<Option<(Arc<Home>, Chain)>> {
        let (mut home, mut chain) = (self, chain);
        for _ in 0..HOPS_MAX {
            let Life::Moved { url } = &chain.life else { return Ok(Some((home, chain))) };
            let there = Arc::new(home.other(url).await?);
            let same = |next: &Chain| next.log == chain.log;
            let Some(next) = there.read().await?.filter(same) else { return Ok(None) };
            if !next.confirms(&chain) {
                (home, chain) = (there, next);
                continue;
            }
            let Ok(arrived) = chain.arrived(env::random_u128()) else { continue };
            if home.store.others.read_only() {
                // Whoever writes it will write just this, but for the nonce.
                return Ok(Some((home, arrived)));
            }
            match home.put(&arrived).await {
                Ok(()) => return Ok(Some((home, arrived))),
                // Somebody else did, or perhaps we did.
                Err(MetaError::Conflict { .. } | MetaError::Unavailable(_)) => {}
                Err(error) => return Err(meta_error(error)),
            }
            let Some(next) = home.read().await?.filter(same) else { return Ok(None) };
            chain = next;
        }
        let message = format!("log `{}` is sent from store to store: try again", home.name);
        Err(Error::new(ErrorCode::Unavailable, message))
    }
}
