//! One client's calls in a row: what is stored, read, trimmed, filled, created and retired.

use std::sync::Arc;

use virtuallog_protocol::limits::BATCH_ENTRIES_MAX;
use virtuallog_protocol::{
    Batch, BatchBuilder, BatchKind, LogId, LogletId, LogletPos, Tail, WriterId,
};

use super::{
    Subject, Verdict, Writer, append, check_shape, ensure, holds, read_all, read_range, said,
};
use crate::error::ErrorCode;
use crate::loglet::{Loglet, LogletError};

/// Appends `sizes` and gives what is stored now, with every position checked on the way.
async fn put(
    loglet: &Arc<dyn Loglet>,
    writer: &mut Writer,
    base: u64,
    sizes: &[u64],
) -> Result<Vec<(LogletPos, Batch)>, String> {
    let (mut stored, mut end) = (Vec::new(), LogletPos(base));
    for size in sizes {
        let first_value = writer.next_seq;
        let batch = writer.frame(first_value..first_value + size);
        let at = append(loglet, batch.clone()).await.map_err(said("append"))?;
        ensure!(at >= end, "L1: a batch is at {at} and the one before it ends at {end}");
        end = at.plus(*size);
        stored.push((at, batch));
        let tail = loglet.check_tail().await.map_err(said("check_tail"))?;
        ensure!(!tail.sealed, "L5: nobody sealed, and the tail says so");
        ensure!(tail.position >= end, "I5: tail {} after an ack up to {end}", tail.position);
    }
    Ok(stored)
}

/// A new loglet is empty from its base on; batches are read where they were acknowledged.
pub async fn acked_batches_stay(subject: &Subject) -> Verdict {
    for base in [0, 1000] {
        let (id, loglet) = subject.fresh(base).await?;
        let empty = loglet.check_tail().await.map_err(said("check_tail"))?;
        let expected = Tail { position: LogletPos(base), sealed: false };
        ensure!(empty == expected, "a new loglet with base {base} has tail {empty:?}");
        let first = loglet.trim_point().await.map_err(said("trim_point"))?;
        ensure!(first == LogletPos(base), "a new loglet with base {base} is trimmed to {first}");
        holds(id, &loglet, &[]).await?;
        let stored = put(&loglet, &mut Writer::new(1), base, &[1, 3, 1, 200, 2]).await?;
        holds(id, &loglet, &stored).await?;
        holds(id, &subject.open(id).await?, &stored).await?;
        holds(id, &loglet, &stored).await?;
    }
    Ok(())
}

/// The biggest batches, empty entries, a big entry, and batches that are not data: byte for byte.
pub async fn every_shape_is_kept(subject: &Subject) -> Verdict {
    let (id, loglet) = subject.fresh(0).await?;
    let full = vec![Vec::new(); BATCH_ENTRIES_MAX];
    let big = vec![(0..1 << 20).map(|i: u32| (i % 251) as u8).collect::<Vec<u8>>()];
    let small = vec![b"x".to_vec()];
    let shapes = [
        (BatchKind::Data, &full),
        (BatchKind::Data, &big),
        (BatchKind::NoOp, &small),
        (BatchKind::Control, &small),
        (BatchKind::Data, &small),
    ];
    let (mut stored, mut seq) = (Vec::new(), 0);
    for (kind, entries) in shapes {
        let mut builder = BatchBuilder::with_capacity(64);
        entries.iter().for_each(|entry| builder.push(entry));
        let batch = builder.finish_as(kind, WriterId(2), seq, -1);
        seq += batch.count();
        let at = append(&loglet, batch.clone()).await.map_err(said("append"))?;
        stored.push((at, batch));
    }
    holds(id, &loglet, &stored).await
}

/// A provider that was let go of and opened again has lost nothing that was acknowledged.
pub async fn reopened(subject: &Subject) -> Verdict {
    let log = subject.fresh_log();
    let id = |segment| LogletId { log, segment };
    let mut stored = Vec::new();
    for segment in 0..4 {
        let loglet = subject.create(id(segment), 10).await?;
        let writer = &mut Writer::new(u128::from(segment) + 1);
        stored.push(put(&loglet, writer, 10, &[2, 5, 1, 3]).await?);
    }
    let sealed = subject.open(id(1)).await?;
    sealed.seal().await.map_err(said("seal"))?;
    let tail = sealed.check_tail().await.map_err(said("check_tail"))?;
    let trimmed = subject.open(id(2)).await?;
    let keep_from = stored[2][1].0.plus(2);
    trimmed.prefix_trim(keep_from).await.map_err(said("prefix_trim"))?;
    subject.provider().retire(log, &[1, 2], 3).await.map_err(said("retire"))?;
    drop((sealed, trimmed));
    if !subject.reopen().await {
        return Ok(());
    }
    is_gone(subject, id(0), "retired, after reopening").await?;
    let sealed = subject.open(id(1)).await?;
    let now = sealed.check_tail().await.map_err(said("check_tail"))?;
    ensure!(now == tail, "N5: sealed with {tail:?}, after reopening the tail is {now:?}");
    holds(id(1), &sealed, &stored[1]).await?;
    let late = append(&sealed, Writer::new(9).frame([1])).await;
    ensure!(matches!(late, Err(LogletError::Sealed)), "L2: sealed, reopened, append: {late:?}");
    let trimmed = subject.open(id(2)).await?;
    let first = trimmed.trim_point().await.map_err(said("trim_point"))?;
    ensure!(first == keep_from, "trimmed to {keep_from}, after reopening to {first}");
    holds(id(2), &trimmed, &stored[2][1..]).await?;
    let open = subject.open(id(3)).await?;
    holds(id(3), &open, &stored[3]).await?;
    let (at, batch) = (append(&open, Writer::new(9).frame([7])).await, Writer::new(9).frame([7]));
    stored[3].push((at.map_err(said("append after reopening"))?, batch));
    holds(id(3), &open, &stored[3]).await
}

/// Reads start with the batch that contains `from`, end below `to`, and always make progress.
pub async fn reads_answer_the_range(subject: &Subject) -> Verdict {
    let (id, loglet) = subject.fresh(5).await?;
    let stored = put(&loglet, &mut Writer::new(1), 5, &[3, 1, 4, 1, 5]).await?;
    let tail = loglet.check_tail().await.map_err(said("check_tail"))?.position;
    // Every edge of a batch and of the log, and positions inside of batches.
    let mut edges = vec![LogletPos(5), tail];
    for (first, batch) in &stored {
        edges.extend([*first, first.plus(batch.count() / 2), first.plus(batch.count())]);
    }
    edges.retain(|edge| *edge <= tail);
    for &from in &edges {
        for &to in &edges {
            let touches = |(first, batch): &&(LogletPos, Batch)| {
                from < to && first.plus(batch.count()) > from && *first < to
            };
            let expected: Vec<_> = stored.iter().filter(touches).cloned().collect();
            for bytes_max in [0, 1, 300, 1 << 20] {
                let step = loglet.read(from, to, bytes_max).await.map_err(said("read"))?;
                check_shape(id, from, to, &step)?;
                ensure!(
                    !step.is_empty() || expected.is_empty(),
                    "reading {from}..{to} by {bytes_max} bytes gave nothing, and there is something"
                );
                let found = read_range(id, &loglet, from, to, bytes_max).await?;
                let found: Vec<_> = found.into_iter().map(|b| (b.first, b.batch)).collect();
                ensure!(
                    found == expected,
                    "reading {from}..{to} by {bytes_max} bytes is not exact"
                );
            }
        }
    }
    Ok(())
}

/// A trim is exact, is never undone, and never passes the tail.
pub async fn trims_are_exact(subject: &Subject) -> Verdict {
    let (id, loglet) = subject.fresh(0).await?;
    let stored = put(&loglet, &mut Writer::new(1), 0, &[4, 4, 4]).await?;
    let tail = loglet.check_tail().await.map_err(said("check_tail"))?.position;
    let inside = stored[1].0.plus(2);
    // What is asked for, and what is kept from then on.
    for (ask, kept, batches) in [
        (LogletPos(0), LogletPos(0), &stored[..]),
        (inside, inside, &stored[1..]),
        (LogletPos(1), inside, &stored[1..]),
        (stored[2].0, stored[2].0, &stored[2..]),
        (tail.plus(1_000_000), tail, &[]),
        (LogletPos(0), tail, &[]),
    ] {
        let answer = loglet.prefix_trim(ask).await.map_err(said("prefix_trim"))?;
        ensure!(answer == kept, "I13: a trim to {ask} kept from {answer} and not from {kept}");
        let point = loglet.trim_point().await.map_err(said("trim_point"))?;
        ensure!(point == kept, "I13: the trim point is {point} after a trim to {kept}");
        if kept > LogletPos(0) {
            for below in [LogletPos(0), LogletPos(kept.0 - 1)] {
                let read = loglet.read(below, tail, 1 << 20).await;
                ensure!(
                    matches!(read, Err(LogletError::Trimmed { first_kept }) if first_kept == kept),
                    "I13: a read of {below} after a trim to {kept} gave {read:?}"
                );
            }
        }
        holds(id, &loglet, batches).await?;
    }
    let now = loglet.check_tail().await.map_err(said("check_tail"))?.position;
    ensure!(now == tail, "a trim moved the tail from {tail} to {now}");
    let at = append(&loglet, Writer::new(2).frame([1])).await.map_err(said("append"))?;
    ensure!(at >= tail, "I2: all trimmed, an append went to {at}, below the old tail {tail}");
    Ok(())
}

/// Batches of another loglet are stored at their positions; a kind may also refuse that as a whole.
pub async fn fill_takes_over(subject: &Subject) -> Verdict {
    let (id, loglet) = subject.fresh(100).await?;
    let mut writer = Writer::new(1);
    let mut filled = Vec::new();
    for (at, count) in [(100, 3), (103, 1), (2048, 4), (2052, 1024)] {
        let first_value = writer.next_seq;
        let batch = writer.frame(first_value..first_value + count);
        match loglet.fill(LogletPos(at), batch.clone()).await {
            Err(LogletError::Refused(e)) if filled.is_empty() && e.code() == ErrorCode::Invalid => {
                return Ok(());
            }
            outcome => outcome.map_err(said("fill"))?,
        }
        filled.push((LogletPos(at), batch));
    }
    let end = LogletPos(2052 + 1024);
    for at in [100, 2050, end.0 - 1] {
        let early = loglet.fill(LogletPos(at), writer.clone().frame([1])).await;
        ensure!(early.is_err(), "a batch was filled in at {at}, though filled up to {end}");
    }
    holds(id, &loglet, &filled).await?;
    let at = append(&loglet, Writer::new(3).frame([1])).await.map_err(said("append"))?;
    ensure!(at >= end, "I2: an append went to {at}, and it was filled up to {end}");
    let tail = loglet.check_tail().await.map_err(said("check_tail"))?.position;
    filled.push((at, Writer::new(3).frame([1])));
    loglet.seal().await.map_err(said("seal"))?;
    let late = loglet.fill(tail, Writer::new(4).frame([1])).await;
    ensure!(late.is_err(), "L2: a batch was filled in after the seal");
    holds(id, &loglet, &filled).await
}

/// Creating twice finds the same loglet; with another base it is refused.
pub async fn create_is_idempotent(subject: &Subject) -> Verdict {
    let (id, loglet) = subject.fresh(7).await?;
    let stored = put(&loglet, &mut Writer::new(1), 7, &[2]).await?;
    let again = subject.create(id, 7).await?;
    holds(id, &again, &stored).await?;
    let racers = (0..8).map(|_| subject.create(LogletId { segment: 1, ..id }, 7));
    let racers = futures_util::future::join_all(racers).await;
    for (writer, racer) in racers.into_iter().enumerate() {
        let batch = Writer::new(writer as u128 + 1).frame([writer as u64]);
        append(&racer?, batch).await.map_err(said("append"))?;
    }
    let raced = LogletId { segment: 1, ..id };
    let found = read_all(raced, &subject.open(raced).await?).await?.len();
    ensure!(found == 8, "eight racing creations made loglets that hold {found} of eight appends");
    let other = subject.create(id, 8).await;
    ensure!(other.is_err(), "created with base 7, and once more with base 8");
    holds(id, &loglet, &stored).await
}

/// Opening a loglet that was never created says so, and does not create it.
pub async fn unknown_is_unknown(subject: &Subject) -> Verdict {
    let (id, _) = subject.fresh(0).await?;
    for other in [LogletId { segment: 1, ..id }, LogletId { log: subject.fresh_log(), ..id }] {
        for _ in 0..2 {
            is_gone(subject, other, "never created").await?;
        }
    }
    Ok(())
}

async fn is_gone(subject: &Subject, id: LogletId, why: &str) -> Verdict {
    let found = subject.provider().open(id, &subject.config).await;
    match found {
        Err(LogletError::Unknown(unknown)) if unknown == id => Ok(()),
        other => Err(format!("opening a loglet that was {why}: {other:?}")),
    }
}

/// Retiring deletes what is not live and below the bound, and nothing else; it is for ever.
pub async fn retired_stay_gone(subject: &Subject) -> Verdict {
    let log = subject.fresh_log();
    let id = |segment| LogletId { log, segment };
    let elsewhere = LogletId { log: LogId(log.0 ^ 1 << 100), segment: 0 };
    let mut handles = Vec::new();
    for segment in [0, 1, 3, 5] {
        let loglet = subject.create(id(segment), 0).await?;
        put(&loglet, &mut Writer::new(1), 0, &[3]).await?;
        handles.push(loglet);
    }
    let other = subject.create(elsewhere, 0).await?;
    let kept = put(&other, &mut Writer::new(1), 0, &[3]).await?;
    // A second, older call must not take anything back.
    for (live, bound) in [(&[1][..], 5), (&[1], 5), (&[1], 2)] {
        subject.provider().retire(log, live, bound).await.map_err(said("retire"))?;
        for gone in [0, 3] {
            is_gone(subject, id(gone), "retired").await?;
        }
        for never in [0, 2, 3, 4] {
            let made = subject.provider().create(id(never), &subject.config, LogletPos(0)).await;
            ensure!(made.is_err(), "retired below 5, and segment {never} was created");
        }
        for live in [1, 5] {
            let stored = [(LogletPos(0), Writer::new(1).frame(0..3))];
            holds(id(live), &subject.open(id(live)).await?, &stored).await?;
        }
    }
    let late = append(&handles[0], Writer::new(2).frame([1])).await;
    ensure!(late.is_err(), "an append to a retired loglet was acknowledged: {late:?}");
    subject.create(id(6), 0).await?;
    holds(elsewhere, &subject.open(elsewhere).await?, &kept).await
}
