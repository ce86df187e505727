//! The one task of a member: it decides what waits, and keeps up with the others when nothing does.
//!
//! One instance is under way at a time. What waits meanwhile is proposed together in the next one,
//! so many puts at once cost as many decisions as one put takes time. An instance that went to
//! somebody else's value changes nothing of that: what still waits is proposed again. Between
//! attempts that met a higher ballot it waits a random while.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;
use virtuallog_protocol::paxos::messages::{PUTS_BYTES_MAX, PUTS_MAX};
use virtuallog_protocol::paxos::{
    Action, Ask, Attempt, CatchUp, Decided, Member, Proposer, Put, Tell, Value,
};

use super::inner::{Inner, pause};
use super::view::View;

/// After so long without work, a member and another one compare what they know: a decision is told
/// to everybody once, and that may be lost.
const LOOK_AFTER: Duration = Duration::from_millis(500);

/// How an attempt ended.
enum Ended {
    Decided(Decided),
    CatchUp(CatchUp),
    Free,
    BackOff(u64),
}

/// Runs until the last handle is gone.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut proposer = Proposer::new(inner.me.node);
    let mut looks = 0;
    while !inner.is_closed() {
        let mut actions = Vec::new();
        let (applied, finishing) = {
            let mut view = inner.view();
            let value = next(&mut view);
            if let Some(value) = value {
                proposer.propose(&view.registers, value, &mut actions);
            }
            (view.registers.applied(), std::mem::take(&mut view.finish))
        };
        if actions.is_empty() {
            if timeout(LOOK_AFTER, inner.work.notified()).await.is_err() {
                looks += 1;
                look(&inner, looks).await;
            }
            continue;
        }
        match attempt(&inner, &mut proposer, actions).await {
            Ended::Decided(decided) => decide(&inner, decided).await,
            Ended::CatchUp(catch_up) => {
                inner.learn(catch_up).await;
                if inner.view().registers.applied() == applied {
                    // Nobody comes forward with it: it is damaged, or the disk fails.
                    pause(u64::MAX).await;
                }
            }
            Ended::Free => {}
            Ended::BackOff(round) => {
                inner.view().finish.extend(finishing);
                pause(round).await;
                continue;
            }
        }
        for finish in finishing {
            // Whoever asked may be gone.
            let _ = finish.send(());
        }
    }
}

/// What to propose: new members, a batch of puts, or nothing but to finish what was begun. `None`:
/// there is no need to propose.
fn next(view: &mut View) -> Option<Option<Value>> {
    view.waiting.retain(|waiting| !waiting.answer.is_closed());
    let change = view
        .change
        .as_ref()
        .filter(|(members, listens)| !listens.is_closed() && view.registers.members() != members);
    let change = change.map(|(members, _)| view.registers.change_members(members.clone()));
    match change {
        Some(Ok(value)) => return Some(Some(value)),
        // Whoever wants it finds out why it cannot be.
        Some(Err(_)) | None => view.change = None,
    }
    if !view.waiting.is_empty() {
        let mut bytes = 0;
        let fits = |put: &&Put| {
            bytes += put.len();
            bytes <= PUTS_BYTES_MAX
        };
        let puts = view.waiting.iter().map(|waiting| &waiting.put);
        let puts = puts.take(PUTS_MAX).take_while(fits).cloned().collect();
        return Some(Some(view.registers.value(puts)));
    }
    (!view.finish.is_empty()).then_some(None)
}

/// Makes the calls that the proposer asks for, until the attempt ends.
async fn attempt(inner: &Arc<Inner>, proposer: &mut Proposer, mut actions: Vec<Action>) -> Ended {
    let mut calls = FuturesUnordered::new();
    loop {
        for action in actions.drain(..) {
            match action {
                Action::Send { to, attempt, request } => {
                    let ask = request.ask.expect("the proposer asks something");
                    calls.push(call(inner.clone(), to, attempt, Ok(ask)));
                }
                Action::Help { to, attempt, applied } => {
                    calls.push(call(inner.clone(), to, attempt, Err(applied)));
                }
                Action::Decided(decided) => return Ended::Decided(decided),
                Action::CatchUp(catch_up) => return Ended::CatchUp(catch_up),
                Action::Free => return Ended::Free,
                Action::BackOff { round } => return Ended::BackOff(round),
            }
        }
        match calls.next().await {
            Some((from, attempt, tell)) => {
                proposer.answered(from, attempt, tell, &mut actions);
            }
            // Every call was answered or failed, so the attempt has ended above.
            None => return Ended::BackOff(u64::MAX),
        }
    }
}

/// Asks a member, or teaches it what it lacks after an instance.
async fn call(
    inner: Arc<Inner>,
    to: Member,
    attempt: Attempt,
    what: Result<Ask, u64>,
) -> (Member, Attempt, Option<Tell>) {
    let ask = match what {
        Ok(ask) => ask,
        Err(applied) => {
            let lack = inner.blocking(move |_, local| local.acceptor.catch_up(applied)).await;
            match lack {
                Ok(lack) => Ask::Learn(lack),
                Err(_) => return (to, attempt, None),
            }
        }
    };
    (to, attempt, inner.call(to, ask).await)
}

/// Applies a decision and tells everybody, those to come and those who left too.
async fn decide(inner: &Arc<Inner>, decided: Decided) {
    let instance = decided.instance;
    let mut members = inner.view().registers.members().to_vec();
    members.extend(&decided.value.members);
    members.sort_unstable();
    members.dedup();
    inner.learn(CatchUp { decided: vec![decided], ..CatchUp::default() }).await;
    inner.tell(members, instance - 1);
}

/// Meets one of the others, another one each time: whoever knows less is told.
async fn look(inner: &Arc<Inner>, looks: usize) {
    inner.mark().await;
    let (members, applied) = {
        let view = inner.view();
        (view.registers.members().to_vec(), view.registers.applied())
    };
    let others: Vec<Member> = members.into_iter().filter(|member| *member != inner.me).collect();
    if !others.is_empty() {
        inner.tell(vec![others[looks % others.len()]], applied);
    }
}
