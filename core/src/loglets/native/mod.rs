//! The NativeLoglet of the paper (§4.2): a sequencer, LogServers, and clients that seal and find the
//! tail. What is decided is in the pure cores of `core/protocol` (`sequencer`, `log_server`,
//! `tail_quorum`, `repair`); here is the client's side of moving it.
//!
//! Appends need the sequencer and a majority of LogServers; seal and tail check need a majority; a
//! read needs one that has the entries. There is no setting that makes an acknowledgement mean
//! less than a sync on a majority.
//!
//! Read in this order: `appends.rs`, `quorum.rs` (seal, tail, repair), `read.rs`.

mod appends;
pub(crate) mod quorum;
mod read;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message;
use virtuallog_protocol::{Batch, LogId, LogletConfig, LogletId, LogletPos, StampedBatch, Tail};

use self::appends::Appends;
pub(crate) use self::quorum::HOLD;
use self::quorum::{Quorum, patient};
use self::read::Readers;
use crate::cluster::{Net, unexpected};
use crate::entry::Placement;
use crate::error::{Error, ErrorCode, Result};
use crate::loglet::{Ack, Loglet, LogletError, LogletProvider};
use crate::wire::messages::{LogletParams, Place, Reply, Request};

/// The kind of the loglets of this file.
pub const KIND: &str = "native";

/// A native loglet, from the side of a client.
struct NativeLoglet {
    quorum: Arc<Quorum>,
    appends: Arc<Appends>,
    readers: Readers,
}

impl fmt::Debug for NativeLoglet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NativeLoglet({}, {:?})", self.quorum.id, self.appends)
    }
}

impl NativeLoglet {
    fn new(net: Arc<Net>, id: LogletId, params: LogletParams) -> NativeLoglet {
        let quorum = Arc::new(Quorum::new(net, id, params));
        let appends = Appends::new(id, quorum.clone());
        NativeLoglet { quorum, appends, readers: Readers::default() }
    }
}

#[async_trait]
impl Loglet for NativeLoglet {
    fn append(&self, batch: Batch, ack: Ack) {
        self.appends.append(batch, None, ack);
    }

    async fn check_tail(&self) -> Result<Tail<LogletPos>, LogletError> {
        self.quorum.check_tail().await
    }

    async fn wait_tail(&self, known: LogletPos) -> Result<Tail<LogletPos>, LogletError> {
        self.quorum.wait_tail(known).await
    }

    async fn read(
        &self,
        from: LogletPos,
        to: LogletPos,
        bytes_max: usize,
    ) -> Result<Vec<StampedBatch>, LogletError> {
        patient(|| self.readers.read(&self.quorum, from, to, bytes_max)).await
    }

    async fn prefix_trim(&self, keep_from: LogletPos) -> Result<LogletPos, LogletError> {
        self.quorum.trim(keep_from).await
    }

    async fn trim_point(&self) -> Result<LogletPos, LogletError> {
        self.quorum.trim_point().await
    }

    async fn seal(&self) -> Result<(), LogletError> {
        self.quorum.seal().await
    }

    async fn fill(&self, first: LogletPos, batch: Batch) -> Result<(), LogletError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let ack = Ack::new(move |outcome| {
            let _ = tell.send(outcome);
        });
        self.appends.append(batch, Some(first), ack);
        let gone = |_| LogletError::InDoubt("the loglet was closed".into());
        told.await.map_err(gone)?.map(drop)
    }
}

/// Native loglets of a cluster.
#[derive(Debug)]
pub(crate) struct NativeProvider {
    net: Arc<Net>,
}

impl NativeProvider {
    pub(crate) fn new(net: Arc<Net>) -> Self {
        Self { net }
    }

    async fn ask_for_members(
        &self,
        replication: u32,
        after: Option<LogletParams>,
    ) -> Result<LogletConfig> {
        let place = Request::Place(Place { replication, after, near: self.net.near() });
        let answer = self.net.ask_anybody(&place).await;
        match answer.map_err(|error| error.error().clone())?.0 {
            Reply::Config(params) => Ok(config(&params)),
            Reply::Failure(failure) => Err(failure.error()),
            _ => Err(unexpected()),
        }
    }
}

/// The parameters as the chain keeps them.
pub(crate) fn config(params: &LogletParams) -> LogletConfig {
    let name = match params.replication {
        0 => KIND.into(),
        replication => format!("{KIND}:{replication}"),
    };
    LogletConfig { kind: KIND.into(), params: params.encode_to_vec().into(), name }
}

/// What stands after `native:`; 0: the cluster's default.
fn parse_replication(args: &str) -> Result<u32> {
    match args {
        "" => Ok(0),
        "1" | "3" | "5" | "7" | "9" => Ok(args.parse().expect("a digit")),
        _ => Err(Error::invalid(format!(
            "`native:{args}`: the number of replicas is 1, 3, 5, 7 or 9; write for example \
             `native:3`"
        ))),
    }
}

fn params(config: &LogletConfig) -> Result<LogletParams, LogletError> {
    let params: &Bytes = &config.params;
    LogletParams::decode_from(params).map_err(|error| match error.code() {
        ErrorCode::Corrupt => LogletError::Corrupt(error.message().to_owned()),
        _ => LogletError::Refused(error),
    })
}

#[async_trait]
impl LogletProvider for NativeProvider {
    fn kind(&self) -> &str {
        KIND
    }

    fn plan(&self, args: &str) -> Result<LogletConfig, Error> {
        let replication = parse_replication(args)?;
        let params = LogletParams { members: Vec::new(), sequencer: 0, replication };
        Ok(config(&params))
    }

    async fn place(
        &self,
        planned: LogletConfig,
        after: Option<&LogletConfig>,
    ) -> Result<LogletConfig, Error> {
        let replication = LogletParams::decode(planned.params.clone()).map(|p| p.replication);
        let after = after.filter(|after| after.kind == KIND);
        let after = after.and_then(|after| LogletParams::decode_from(&after.params).ok());
        self.ask_for_members(replication.unwrap_or_default(), after).await
    }

    fn placement(&self, config: &LogletConfig) -> Option<Placement> {
        let params = LogletParams::decode_from(&config.params).ok()?;
        let members: Vec<u32> = params.members.iter().map(|member| member.node).collect();
        let sequencer = members[params.sequencer as usize];
        Some(Placement { members, sequencer })
    }

    async fn create(
        &self,
        id: LogletId,
        config: &LogletConfig,
        base: LogletPos,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        let loglet = NativeLoglet::new(self.net.clone(), id, params(config)?);
        loglet.quorum.create(base).await?;
        Ok(Arc::new(loglet))
    }

    async fn open(
        &self,
        id: LogletId,
        config: &LogletConfig,
    ) -> Result<Arc<dyn Loglet>, LogletError> {
        let loglet = NativeLoglet::new(self.net.clone(), id, params(config)?);
        loglet.quorum.find().await?;
        Ok(Arc::new(loglet))
    }

    async fn retire(&self, log: LogId, live: &[u32], bound: u32) -> Result<(), LogletError> {
        quorum::retire(&self.net, log, live, bound).await
    }
}
