//! The end of a simulation: every log is read back by somebody who was not there, and judged with its
//! book; then the servers' disks are looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use virtuallog_protocol::chain::Chain;
use virtuallog_protocol::{LogId, LogletId, LogletPos, StampedBatch};

use super::World;
use super::book::{Book, value_of};
use super::nodes::DATA;
use crate::cluster::MemberId;
use crate::error::{Error, ErrorCode, Result};
use crate::loglets::native;
use crate::storage::{Storage, StorageOptions};
use crate::testing::history::{self, Final, What};
use crate::virtuallog::VirtualLog;
use crate::wire::messages::LogletParams;

/// How long one call may take that reads a log back.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the chains said long before the end.
#[derive(Default)]
pub(super) struct Settled {
    /// Loglets that end where they do for good.
    pub(super) closed: BTreeSet<LogletId>,
    /// By log, which numbers of loglets were named, and below which no other one comes any more.
    pub(super) live: BTreeMap<LogId, (Vec<u32>, u32)>,
}

/// More tasks than this a server has not when nobody asks anything: it needs some ten.
const TASKS_MAX: usize = 64;

/// A log as it was read back.
struct Back {
    last: Final,
    /// What could not be read, in order.
    lost: Vec<(u64, u64)>,
    chain: Option<Chain>,
}

/// Judges one log. `log`: a handle of its own. What the last chain was, if it could be read.
pub(super) async fn log(world: &World, book: &Book, log: &VirtualLog) -> Option<(Chain, u64)> {
    let back = match read_back(world, book, log).await {
        Ok(back) => back,
        Err(error) => {
            lost(world, book, &error);
            return None;
        }
    };
    judge(world, book, &back.last, &back.lost);
    back.chain.map(|chain| (chain, back.last.base))
}

/// Nothing of a log can be read, which is right only where that much is lost, and is told: what was seen of
/// it before is judged.
pub(super) fn lost(world: &World, book: &Book, error: &Error) {
    if !excused(world, book, error) {
        book.complain(format!("I1: the log cannot be read back: {error}"));
    }
    let kept = book.ops().into_iter().filter_map(|op| match op.what {
        What::Trim { first_kept } | What::Trimmed { first_kept, .. } => Some(first_kept),
        _ => None,
    });
    let base = kept.max().unwrap_or_default();
    let nothing = Final { base, tail: u64::MAX, entries: Vec::new() };
    judge(world, book, &nothing, &[(base, u64::MAX)]);
}

fn judge(world: &World, book: &Book, last: &Final, lost: &[(u64, u64)]) {
    let ops = book.ops();
    world.trace.add("operations judged", ops.len() as u64);
    if let Err(wrong) = history::check_with_losses(&ops, last, lost) {
        book.complain(wrong);
    }
}

/// Whether something may be out of reach for this reason: over budget it may be lost, and has to say so; and
/// nobody can answer where a majority is gone.
fn excused(world: &World, book: &Book, error: &Error) -> bool {
    match error.code() {
        ErrorCode::DataLoss | ErrorCode::Corrupt if world.plan.over_budget => {
            world.trace.count("mark: a loss over budget was loud");
            true
        }
        ErrorCode::Unavailable | ErrorCode::Deadline => world.is_majority_gone(book),
        _ => false,
    }
}

/// What comes of a call, which has to come back whatever was lost.
async fn answer<T>(what: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| {
        let seconds = PATIENCE.as_secs();
        Error::new(ErrorCode::Deadline, format!("{what} did not come back within {seconds} s"))
    };
    tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(|elapsed| Err(late(elapsed)))
}

async fn read_back(world: &World, book: &Book, log: &VirtualLog) -> Result<Back> {
    let tail = answer("check_tail", log.check_tail()).await?.position.0;
    let base = answer("first", log.first()).await?.0;
    let last = Final { base, tail, entries: Vec::new() };
    let mut back = Back { last, lost: Vec::new(), chain: None };
    let invoked = book.now();
    match answer("chain", log.chain()).await {
        Ok(chain) => {
            book.asked(invoked, &chain);
            back.chain = Some(chain);
        }
        Err(error) if excused(world, book, &error) => {}
        Err(error) => return Err(error),
    }
    let mut from = base;
    while from < tail {
        let Err((at, error)) = read_on(book, log, from, &mut back.last).await else { break };
        if !excused(world, book, &error) {
            return Err(error);
        }
        from = beyond(log, at, &back).await;
        world.trace.say(format_args!("{}: {at} to {from} is lost: {error}", book.name));
        back.lost.push((at, from));
    }
    Ok(back)
}

/// Reads from a position on up to the tail. Where it stopped, and why, unless it got there.
async fn read_on(
    book: &Book,
    log: &VirtualLog,
    from: u64,
    last: &mut Final,
) -> std::result::Result<(), (u64, Error)> {
    let reader = answer("read", log.read(from.into(), Some(last.tail.into()))).await;
    let mut reader = reader.map_err(|error| (from, error))?;
    loop {
        let entries = answer("next_batch", reader.next_batch(256)).await;
        let entries = entries.map_err(|error| (reader.position().0, error))?;
        if entries.is_empty() {
            return Ok(());
        }
        for entry in entries {
            match value_of(&entry.payload) {
                Some(value) => last.entries.push((entry.position.0, value)),
                None => book.complain(format!("I14: other bytes stand at {}", entry.position)),
            }
        }
    }
}

/// The next position behind one that cannot be read at which reading works again, as far as is looked for:
/// closely behind it, then in longer and longer steps, and at the next segments.
async fn beyond(log: &VirtualLog, at: u64, back: &Back) -> u64 {
    let tail = back.last.tail;
    let mut places: Vec<u64> = (0..64).map_while(|power| at.checked_add(1 << power)).collect();
    places.extend(back.chain.iter().flat_map(|c| c.segments.iter().map(|s| s.start.0)));
    places.retain(|place| (at + 1..tail).contains(place));
    places.sort_unstable();
    places.dedup();
    for place in places {
        let Ok(mut reader) = answer("read", log.read(place.into(), Some(tail.into()))).await else {
            continue;
        };
        if answer("next_batch", reader.next_batch(1)).await.is_ok() {
            return place;
        }
    }
    tail
}

/// What the disks of all servers hold of a log's native segments: a majority of valid copies of every
/// committed entry (I15), all of them the same (I18); and of what was `closed` long ago each server that
/// runs has its share (L5).
pub(super) fn disks(
    world: &World,
    book: &Book,
    chain: &Chain,
    first: u64,
    closed: &BTreeSet<LogletId>,
) {
    let (stores, running) = (stores(world), running(world));
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
            let status = storage.status(id);
            if let Some(stop) = segment.stop.filter(|_| closed.contains(&id))
                && running.contains(&member)
                && !status.is_some_and(|it| it.sealed && it.tail >= segment.to_loglet(stop))
            {
                let node = member.0;
                book.complain(format!("L5: node {node} has {status:?} of {id}, closed at {stop}"));
            }
            let Some(status) = status else { continue };
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

/// What servers that are well keep for nothing (L8): loglets that were dead long ago, and tasks.
pub(super) fn leaks(world: &World, settled: &Settled) {
    let running = running(world);
    for at in 0..world.plan.nodes {
        let life = world.nodes.with(at, |machine| machine.life.clone());
        let Some((life, member)) = life.and_then(|life| life.member().map(|member| (life, member)))
        else {
            continue;
        };
        if !running.contains(&member) {
            continue;
        }
        let tasks = life.process.tasks_alive();
        if tasks > TASKS_MAX {
            world.complain(format!("L8: node {} has {tasks} tasks with nothing to do", member.0));
        }
        for id in life.storage.iter().flat_map(|storage| storage.loglets()) {
            let Some((live, bound)) = settled.live.get(&id.log) else { continue };
            if id.segment < *bound && !live.contains(&id.segment) {
                world.complain(format!("L8: node {} still has {id}, which was dead", member.0));
            }
        }
    }
}

/// The servers that are well.
fn running(world: &World) -> BTreeSet<MemberId> {
    let well = |at| {
        world.nodes.with(at, |machine| {
            let life = machine.life.as_ref().filter(|_| !machine.damaged)?;
            life.storage.as_ref()?.failure().is_none().then(|| life.member())?
        })
    };
    match world.plan.over_budget {
        true => BTreeSet::new(),
        false => (0..world.plan.nodes).filter_map(well).collect(),
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
