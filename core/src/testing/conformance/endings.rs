//! What seals, sequence order and waits promise, one client at a time.

use virtuallog_protocol::{LogletPos, Tail};

use super::{Subject, Verdict, Writer, append, ensure, holds, read_all, said, submit};
use crate::loglet::{Ack, LogletError};

/// After a seal nothing is acknowledged, for every handle and writer; sealing again changes nothing.
pub async fn a_seal_is_final(subject: &Subject) -> Verdict {
    let (id, loglet) = subject.fresh(0).await?;
    let batch = Writer::new(1).frame(0..3);
    let at = append(&loglet, batch.clone()).await.map_err(said("append"))?;
    let other = subject.open(id).await?;
    for round in 0..3 {
        loglet.seal().await.map_err(said("seal"))?;
        for (handle, writer) in
            [(&loglet, 1), (&other, 1), (&loglet, 10 + round), (&other, 20 + round)]
        {
            let mut writer = Writer::new(writer);
            if writer.id.0 == 1 {
                writer.next_seq = 3;
            }
            let late = append(handle, writer.frame([100])).await;
            ensure!(
                matches!(late, Err(LogletError::Sealed)),
                "L2: an append after {} seals gave {late:?}",
                round + 1
            );
        }
    }
    // What a sealed append left behind may be there, but only after what was acknowledged (L6).
    let found = read_all(id, &loglet).await?;
    let first = found.first().map(|found| (found.first, &found.batch));
    ensure!(first == Some((at, &batch)), "L1: sealing lost an acknowledged batch");
    let (_, empty) = subject.fresh(3).await?;
    empty.seal().await.map_err(said("seal"))?;
    let tail = empty.check_tail().await.map_err(said("check_tail"))?;
    let expected = Tail { position: LogletPos(3), sealed: true };
    ensure!(tail == expected, "an empty sealed loglet has tail {tail:?}");
    Ok(())
}

/// After a seal every tail is sealed, and above everything acknowledged.
pub async fn sealed_tails(subject: &Subject) -> Verdict {
    let (id, loglet) = subject.fresh(0).await?;
    let mut writer = Writer::new(1);
    let answers: Vec<_> = (0..50).map(|value| submit(&loglet, writer.frame([value]))).collect();
    loglet.seal().await.map_err(said("seal"))?;
    let mut last = LogletPos(0);
    for handle in [&loglet, &subject.open(id).await?, &loglet] {
        let tail = handle.check_tail().await.map_err(said("check_tail"))?;
        ensure!(tail.sealed, "L5: sealed, and a tail check says {tail:?}");
        ensure!(tail.position >= last, "I5: a sealed tail went back from {last} to {tail:?}");
        last = tail.position;
    }
    let boundary = last;
    for answer in answers {
        let outcome = answer.await.map_err(|_| "an append was never answered".to_owned())?;
        if let Ok(position) = outcome {
            ensure!(position < boundary, "L9: acknowledged at {position}, boundary {boundary}");
        }
    }
    Ok(())
}

/// An append that was surely not stored is never read, not even after the seal.
pub async fn definite_failures(subject: &Subject) -> Verdict {
    let (id, loglet) = subject.fresh(0).await?;
    let mut writer = Writer::new(1);
    let mut stored = Vec::new();
    let first = writer.frame(0..2);
    stored.push((append(&loglet, first.clone()).await.map_err(said("append"))?, first));
    let skipped = writer.frame(10..12);
    for _ in 0..3 {
        let overtaker = writer.frame(20..21);
        let outcome = append(&loglet, overtaker).await;
        ensure!(outcome.is_err(), "L10: a batch overtook the one before it: {outcome:?}");
    }
    holds(id, &loglet, &stored).await?;
    stored.push((append(&loglet, skipped.clone()).await.map_err(said("append"))?, skipped));
    loglet.seal().await.map_err(said("seal"))?;
    holds(id, &loglet, &stored).await
}

/// A writer's batches are taken in sequence order only. A batch sent twice is in the log once.
pub async fn sequence_order(subject: &Subject) -> Verdict {
    let (id, loglet) = subject.fresh(0).await?;
    // A writer that comes from another segment starts where it was.
    let mut writer = Writer { next_seq: 1_000, ..Writer::new(1) };
    let mut stored = Vec::new();
    for size in [1, 3, 2] {
        let batch = writer.frame(0..size);
        stored.push((append(&loglet, batch.clone()).await.map_err(said("append"))?, batch));
    }
    let expected = writer.next_seq;
    let missing = writer.frame(0..4);
    // The missing one was lost on the way: nothing after it may get in, however often it is sent.
    for _ in 0..3 {
        let late = append(&loglet, writer.frame(0..1)).await;
        ensure!(
            matches!(late, Err(LogletError::OutOfOrder { expected: said }) if said == expected),
            "L10: {expected} is missing, and a later batch gave {late:?}"
        );
    }
    // Another writer does not care.
    let other = Writer::new(2).frame(0..1);
    stored.push((append(&loglet, other.clone()).await.map_err(said("append"))?, other));
    stored.push((append(&loglet, missing.clone()).await.map_err(said("append"))?, missing.clone()));
    let again = append(&loglet, missing).await;
    let honest = match &again {
        Ok(position) => stored.last().is_some_and(|(at, _)| at == position),
        Err(LogletError::OutOfOrder { .. } | LogletError::InDoubt(_)) => true,
        Err(_) => false,
    };
    ensure!(honest, "L10: a batch that was sent twice gave {again:?}");
    holds(id, &loglet, &stored).await
}

/// A wait ends with the tail beyond what was known, or with the seal, and nobody minds its end.
pub async fn tails_are_pushed(subject: &Subject) -> Verdict {
    let (id, loglet) = subject.fresh(0).await?;
    let wait = |known| {
        let loglet = loglet.clone();
        tokio::spawn(async move { loglet.wait_tail(known).await })
    };
    let (let_go, waits) = (wait(LogletPos(0)), [wait(LogletPos(0)), wait(LogletPos(0))]);
    tokio::task::yield_now().await;
    let_go.abort();
    let mut writer = Writer::new(1);
    let at = append(&loglet, writer.frame(0..2)).await.map_err(said("append"))?;
    for wait in waits {
        let tail = wait.await.map_err(|e| e.to_string())?.map_err(said("wait_tail"))?;
        ensure!(tail.position > at && !tail.sealed, "a wait for more than 0 gave {tail:?}");
    }
    let known = loglet.check_tail().await.map_err(said("check_tail"))?.position;
    let tail = loglet.wait_tail(at).await.map_err(said("wait_tail"))?;
    ensure!(
        tail.position == known,
        "the tail is {known}, and waiting for more than {at} gave {tail:?}"
    );
    let follower = subject.open(id).await?;
    let follow = tokio::spawn(async move { follower.wait_tail(known).await });
    tokio::task::yield_now().await;
    append(&loglet, writer.frame(2..3)).await.map_err(said("append"))?;
    let tail = follow.await.map_err(|e| e.to_string())?.map_err(said("wait_tail"))?;
    ensure!(tail.position > known, "a wait for more than {known} gave {tail:?}");
    let waits = [wait(tail.position), wait(LogletPos(1 << 40))];
    tokio::task::yield_now().await;
    loglet.seal().await.map_err(said("seal"))?;
    for wait in waits {
        let tail = wait.await.map_err(|e| e.to_string())?.map_err(said("wait_tail"))?;
        ensure!(tail.sealed, "a wait ended by a seal gave {tail:?}");
    }
    let after = loglet.wait_tail(LogletPos(1 << 40)).await.map_err(said("wait_tail"))?;
    ensure!(after.sealed, "a wait on a sealed loglet gave {after:?}");
    Ok(())
}

/// `append_blocking` returns with the answer given, also when it is a failure.
pub async fn blocking_appends(subject: &Subject) -> Verdict {
    let (id, loglet) = subject.fresh(0).await?;
    let mut writer = Writer::new(1);
    let mut stored = Vec::new();
    for round in 0..4 {
        if round == 3 {
            loglet.seal().await.map_err(said("seal"))?;
        }
        let (batch, loglet) = (writer.frame(round..round + 2), loglet.clone());
        let sent = batch.clone();
        let call = tokio::task::spawn_blocking(move || {
            let (tell, told) = std::sync::mpsc::sync_channel(1);
            let ack = Ack::new(move |result| {
                let _ = tell.send(result);
            });
            loglet.append_blocking(sent, ack);
            // It may be answered later: only by then it has to be.
            told.recv().ok()
        });
        match call.await.map_err(|e| e.to_string())? {
            None => return Err("append_blocking was never answered".into()),
            Some(Ok(at)) if round < 3 => stored.push((at, batch)),
            Some(Err(LogletError::Sealed)) if round == 3 => {}
            Some(other) => return Err(format!("append_blocking number {round}: {other:?}")),
        }
    }
    let found = read_all(id, &loglet).await?;
    let found: Vec<_> = found.into_iter().map(|batch| (batch.first, batch.batch)).collect();
    ensure!(
        found.starts_with(&stored),
        "I1: blocking appends are not where they were acknowledged"
    );
    Ok(())
}
