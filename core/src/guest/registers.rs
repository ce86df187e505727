//! The registers of a directory, asked for from its owner.
//!
//! As with those of a cluster, a conditional write whose answer was lost is asked for again: it can
//! take effect once only, and if the register then holds just what was to be written, at just the
//! version that was expected, it was ours, because values carry a nonce.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::Guest;
use crate::cluster::unexpected;
use crate::error::ErrorCode;
use crate::metastore::{MetaError, MetaStore, Version, Versioned};
use crate::wire::messages::{
    Failure, FailureKind, MetaPut, MetaWatch, Name, Nothing, Reply, Request,
};
use crate::wire::transport::{Lane, NetError};

/// Registers of a directory.
#[derive(Debug)]
pub(crate) struct GuestMetaStore {
    guest: Arc<Guest>,
}

impl GuestMetaStore {
    pub(crate) fn new(guest: Arc<Guest>) -> Self {
        Self { guest }
    }

    async fn ask(&self, request: Request) -> Result<(Reply, bool), MetaError> {
        match self.guest.ask(Lane::Control, request).await {
            Ok((Reply::Failure(failure), _, lost)) => Err(failed(&failure, lost)),
            Ok((reply, _, lost)) => Ok((reply, lost)),
            Err(NetError::NotSent(error)) => Err(MetaError::Refused(error)),
            Err(NetError::Lost(error)) => Err(MetaError::Unavailable(error.into())),
        }
    }

    async fn register(&self, request: Request) -> Result<Versioned, MetaError> {
        match self.ask(request).await?.0 {
            Reply::Register(register) => Ok(register.into()),
            _ => Err(MetaError::Refused(unexpected())),
        }
    }
}

/// `lost`: it may have been done before it failed.
fn failed(failure: &Failure, lost: bool) -> MetaError {
    match failure.kind() {
        FailureKind::Corrupt => MetaError::Corrupt(failure.message.clone()),
        FailureKind::Refused if !lost || failure.error().code() != ErrorCode::Unavailable => {
            MetaError::Refused(failure.error())
        }
        _ => MetaError::Unavailable(failure.message.clone().into()),
    }
}

#[async_trait]
impl MetaStore for GuestMetaStore {
    async fn get(&self, name: &str) -> Result<Versioned, MetaError> {
        self.register(Request::MetaGet(Name { name: name.to_owned() })).await
    }

    async fn put_if(
        &self,
        name: &str,
        value: Option<Bytes>,
        expected: Version,
    ) -> Result<Version, MetaError> {
        let nonce = crate::env::random_u128().into();
        let put = MetaPut { name: name.to_owned(), value: value.clone(), expected, nonce };
        match self.ask(Request::MetaPut(put)).await? {
            (Reply::Register(register), _) => Ok(register.version),
            (Reply::Conflict(register), lost) => {
                let current = Versioned::from(register);
                match lost && current.version == expected + 1 && current.value == value {
                    true => Ok(current.version),
                    false => Err(MetaError::Conflict { current }),
                }
            }
            _ => Err(MetaError::Refused(unexpected())),
        }
    }

    async fn watch(&self, name: &str, after: Version) -> Result<Versioned, MetaError> {
        loop {
            let watch = MetaWatch { name: name.to_owned(), after };
            let found = self.register(Request::MetaWatch(watch)).await?;
            if found.version > after {
                return Ok(found);
            }
        }
    }

    async fn list(&self) -> Result<Vec<String>, MetaError> {
        match self.ask(Request::MetaList(Nothing {})).await?.0 {
            Reply::Names(names) => Ok(names.names),
            _ => Err(MetaError::Refused(unexpected())),
        }
    }
}
