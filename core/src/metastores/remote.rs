//! The registers of a cluster, asked for over the network.
//!
//! Any node that holds the MetaStore answers; this file only finds one that does. A conditional write
//! whose answer was lost is asked for again at another node: it can take effect once only, and if
//! the register then holds just what was to be written, at just the version that was expected, it
//! was ours, because values carry a nonce.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::cluster::{Net, unexpected};
use crate::env::sometimes;
use crate::error::{Error, ErrorCode};
use crate::metastore::{MetaError, MetaStore, Version, Versioned};
use crate::url::RESERVED_NAME;
use crate::wire::messages::{
    Failure, FailureKind, MetaPut, MetaWatch, Name, Nothing, Register, Reply, Request,
};
use crate::wire::transport::{NetError, ask};

/// How long nobody's answering is put up with: nodes that start take a moment until they vote.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(20);
/// How long one watch is left with one node, which answers within half of that.
const WATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Registers of a cluster.
#[derive(Debug)]
pub(crate) struct RemoteMetaStore {
    net: Arc<Net>,
}

impl RemoteMetaStore {
    pub(crate) fn new(net: Arc<Net>) -> Self {
        Self { net }
    }

    async fn ask(&self, request: &Request) -> Result<(Reply, bool), NetError> {
        let mut lost = false;
        let begun = Instant::now();
        loop {
            match self.net.ask_anybody(request).await {
                Ok((reply, before)) => return Ok((reply, lost || before)),
                Err(error) => {
                    lost |= matches!(error, NetError::Lost(_));
                    if begun.elapsed() > PATIENCE {
                        return match lost {
                            true => Err(NetError::Lost(error.error().clone())),
                            false => Err(error),
                        };
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl From<Register> for Versioned {
    fn from(register: Register) -> Versioned {
        Versioned { value: register.value, version: register.version }
    }
}

impl From<Versioned> for Register {
    fn from(versioned: Versioned) -> Register {
        Register { value: versioned.value, version: versioned.version }
    }
}

fn unavailable(error: &NetError) -> MetaError {
    MetaError::Unavailable(error.error().clone().into())
}

fn failed(failure: &Failure) -> MetaError {
    match failure.kind() {
        FailureKind::Corrupt => MetaError::Corrupt(failure.message.clone()),
        FailureKind::Refused => MetaError::Refused(failure.error()),
        _ => MetaError::Unavailable(failure.message.clone().into()),
    }
}

/// A register's failure as it is told over the network.
pub(crate) fn to_reply(error: MetaError) -> Reply {
    let text = error.to_string();
    Reply::Failure(match error {
        MetaError::Conflict { current } => return Reply::Conflict(current.into()),
        MetaError::Refused(error) => Failure::refused(&error),
        MetaError::Corrupt(what) => Failure::new(FailureKind::Corrupt, what, 0),
        MetaError::Unavailable(_) => Failure::new(FailureKind::Unavailable, text, 0),
    })
}

#[async_trait]
impl MetaStore for RemoteMetaStore {
    async fn get(&self, name: &str) -> Result<Versioned, MetaError> {
        let request = Request::MetaGet(Name { name: name.to_owned() });
        match self.ask(&request).await.map_err(|error| unavailable(&error))?.0 {
            Reply::Register(register) => Ok(register.into()),
            Reply::Failure(failure) => Err(failed(&failure)),
            _ => Err(MetaError::Refused(unexpected())),
        }
    }

    async fn put_if(
        &self,
        name: &str,
        value: Option<Bytes>,
        expected: Version,
    ) -> Result<Version, MetaError> {
        let nonce = crate::env::random_u128().into();
        let put = MetaPut { name: name.to_owned(), value: value.clone(), expected, nonce };
        let answer = self.ask(&Request::MetaPut(put)).await;
        match answer {
            Ok((Reply::Register(register), _)) => Ok(register.version),
            Ok((Reply::Conflict(register), lost)) => {
                let current = Versioned::from(register);
                match current.version == expected + 1 {
                    true if lost && current.value == value => {
                        sometimes!("a put whose answer was lost was found decided");
                        Ok(current.version)
                    }
                    // Perhaps ours was there, and others went on from it.
                    false if lost => Err(MetaError::Unavailable(
                        "the answer to the write was lost, and others wrote since".into(),
                    )),
                    _ => Err(MetaError::Conflict { current }),
                }
            }
            Ok((Reply::Failure(failure), _)) => Err(failed(&failure)),
            Ok(_) => Err(MetaError::Refused(unexpected())),
            Err(NetError::NotSent(error)) => Err(MetaError::Refused(error)),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn watch(&self, name: &str, after: Version) -> Result<Versioned, MetaError> {
        loop {
            let watch = MetaWatch { name: name.to_owned(), after };
            let mut why = Error::new(ErrorCode::Unavailable, "no node of the cluster is known");
            let mut answered = false;
            for somebody in self.net.anybody() {
                // Who is silent would tell nothing new, for as long.
                if answered && self.net.was_silent(&somebody) {
                    break;
                }
                let request = Request::MetaWatch(watch.clone());
                let answer = ask(&*somebody.link, request, Bytes::new());
                let answer = tokio::time::timeout(WATCH_TIMEOUT, answer).await;
                let told = matches!(answer, Ok(Ok(_)));
                answered |= told;
                if let Some(member) = somebody.member {
                    self.net.note(member, told);
                }
                match answer {
                    Ok(Ok((Reply::Register(register), _))) if register.version > after => {
                        return Ok(register.into());
                    }
                    // Nothing new: whoever is asked next is asked for as long.
                    Ok(Ok((Reply::Register(_), _))) => {}
                    Ok(Ok((Reply::Failure(failure), _))) if failure.sends_on() => {
                        why = failure.error();
                    }
                    Ok(Ok((Reply::Failure(failure), _))) => return Err(failed(&failure)),
                    Ok(Ok(_)) => return Err(MetaError::Refused(unexpected())),
                    Ok(Err(error)) => why = error.error().clone(),
                    Err(_) => {}
                }
            }
            tracing::debug!(name, %why, "nobody tells of a register's next version");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn list(&self) -> Result<Vec<String>, MetaError> {
        let answer = self.ask(&Request::MetaList(Nothing {})).await;
        match answer.map_err(|error| unavailable(&error))?.0 {
            Reply::Names(names) => {
                Ok(names.names.into_iter().filter(|name| name != RESERVED_NAME).collect())
            }
            Reply::Failure(failure) => Err(failed(&failure)),
            _ => Err(MetaError::Refused(unexpected())),
        }
    }
}
