//! The end of a simulation: every log is read back by somebody who was not there, and judged with its
//! book; then the servers' disks are looked at.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use virtuallog_protocol::chain::Chain;
use virtuallog_protocol::{LogletPos, StampedBatch};

use super::World;
use super::book::{Book, value_of};
use super::nodes::DATA;
use crate::cluster::MemberId;
use crate::error::{Error, ErrorCode, Result};
use crate::loglets::native;
use crate::storage::{Storage, StorageOptions};
use crate::testing::history::{self, Final};
use crate::virtuallog::VirtualLog;
use crate::wire::messages::LogletParams;

/// How long reading a log back may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Judges one log. `log`: a handle of its own. What the last chain was, if it could be read.
pub(super) async fn log(world: &World, book: &Book, log: &VirtualLog) -> Option<(Chain, u64)> {
    let read = tokio::time::timeout(PATIENCE, read_back(book, log)).await;
    let (last, chain) = match read {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => {
            unreadable(world, book, &error);
            return None;
        }
        Err(_) => {
            if !world.plan.over_budget {
                book.complain("L4: the log cannot be read back in time".into());
            }
            return None;
        }
    };
    let ops = book.ops();
    world.trace.add("operations judged", ops.len() as u64);
    if let Err(wrong) = history::check(&ops, &last) {
        book.complain(wrong);
    }
    Some((chain, last.base))
}

/// Over budget a log may be lost, and has to say so.
pub(super) fn unreadable(world: &World, book: &Book, error: &Error) {
    let loud =
        [ErrorCode::DataLoss, ErrorCode::Corrupt, ErrorCode::Unavailable, ErrorCode::Deadline];
    if !world.plan.over_budget || !loud.contains(&error.code()) {
        book.complain(format!("I1: the log cannot be read back: {error}"));
    }
    world.trace.count("mark: a loss over budget was loud");
}

async fn read_back(book: &Book, log: &VirtualLog) -> Result<(Final, Chain)> {
    let tail = log.check_tail().await?.position.0;
    let base = log.first().await?.0;
    let mut last = Final { base, tail, entries: Vec::new() };
    let mut reader = log.read(base.into(), Some(tail.into())).await?;
    loop {
        let entries = reader.next_batch(256).await?;
        if entries.is_empty() {
            break;
        }
        for entry in entries {
            match value_of(&entry.payload) {
                Some(value) => last.entries.push((entry.position.0, value)),
                None => book.complain(format!("I14: other bytes stand at {}", entry.position)),
            }
        }
    }
    let chain = log.chain().await?;
    book.chain(&chain);
    Ok((last, chain))
}

/// What the disks of all servers hold of a log's native segments: a majority of valid copies of every
/// committed entry (I15), all of them the same (I18).
pub(super) fn disks(world: &World, book: &Book, chain: &Chain, first: u64) {
    let stores = stores(world);
    for segment in &chain.segments {
        if segment.config.kind != native::KIND {
            continue;
        }
        let Ok(params) = LogletParams::decode_from(&segment.config.params) else { continue };
        let id = chain.loglet_id(segment);
        let start = segment.to_loglet(segment.start.max(first.into()));
        let mut copies: BTreeMap<u64, Vec<StampedBatch>> = BTreeMap::new();
        let (mut trim, mut lost) = (start, 0);
        for member in params.member_ids() {
            let Some(storage) = stores.get(&member) else {
                lost += 1;
                continue;
            };
            let Some(status) = storage.status(id) else { continue };
            trim = trim.max(status.trim);
            let mut at = start.max(status.trim);
            while at < status.tail {
                let Ok(batches) = storage.read(id, at, status.tail, 1 << 20) else {
                    lost += 1;
                    break;
                };
                let Some(end) = batches.last().map(StampedBatch::end) else { break };
                at = end;
                for batch in batches {
                    copies.entry(batch.first.0).or_default().push(batch);
                }
            }
        }
        let stop = segment.stop.map(|stop| segment.to_loglet(stop));
        let majority = params.members.len() / 2 + 1;
        let enough = majority.saturating_sub(lost);
        for (first, batches) in copies {
            let after = stop.is_some_and(|stop| LogletPos(first) >= stop);
            if LogletPos(first) < trim || after {
                continue;
            }
            if batches.iter().any(|b| b.batch.as_bytes() != batches[0].batch.as_bytes()) && !after {
                book.complain(format!("I18: servers hold different batches at {first} of {id}"));
            }
            if stop.is_some() && batches.len() < enough && !world.plan.over_budget {
                let count = batches.len();
                book.complain(format!("I15: {count} copies, not {enough}, of {first} of {id}"));
            }
        }
    }
}

/// The stores of all servers by member, whether they run or not.
fn stores(world: &World) -> BTreeMap<MemberId, Arc<Storage>> {
    let mut stores = BTreeMap::new();
    for at in 0..world.plan.nodes {
        let (disk, running, damaged) = world.nodes.with(at, |machine| {
            let running = machine.life.as_ref().and_then(|life| life.storage.clone());
            (machine.disk.clone(), running, machine.damaged)
        });
        let options =
            StorageOptions { background: false, create: false, ..StorageOptions::default() };
        let opened = match running {
            Some(storage) if storage.failure().is_none() => Ok(storage),
            _ if damaged => continue,
            _ => Storage::open(Arc::new(disk.kill()), Path::new(DATA), options),
        };
        let Ok(storage) = opened else { continue };
        if let Some(identity) = storage.identity() {
            stores.insert((identity.node, storage.storage_id()), storage);
        }
    }
    stores
}
