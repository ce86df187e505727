//! What every MetaStore has to do, checked through its trait alone.
//!
//! A register is a log of its own versions: a write that won version `v` is an append at `v - 1`, and
//! whoever is shown version `v` has seen a tail of `v`. So racing clients are judged by [`history`],
//! exactly, with the same code as those of a log.
//!
//! Needs a tokio runtime with time, better one of several threads. Uses registers whose names begin
//! with `suite-`, which must never have been written before.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::history::{self, Final, Outcome, Recorder, What};
use super::{Rng, ensure};
use crate::metastore::{MetaError, MetaStore, Versioned};

/// Ends a check that hangs, for example since a watcher was not woken.
const HANGS_AFTER: Duration = Duration::from_secs(60);

const RACERS: u64 = 6;
const WRITES_EACH: u64 = 12;
const ROUNDS: u64 = 8;

type Store = Arc<dyn MetaStore>;

/// Runs every check. `open` gives a handle on one and the same MetaStore; the suite lets go of every
/// handle before it asks for another one.
///
/// # Errors
/// The checks that failed, one a line, each with what is wrong.
pub async fn metastore_suite<F, R>(open: F) -> Result<(), String>
where
    F: Fn() -> R,
    R: Future<Output = Store>,
{
    type Check = (&'static str, fn(Store) -> BoxFuture<'static, Result<(), String>>);
    let checks: [Check; 8] = [
        ("versions_are_dense", |s| Box::pin(versions_are_dense(s))),
        ("conflicts_show_what_is_there", |s| Box::pin(conflicts_show_what_is_there(s))),
        ("deleting_goes_on_counting", |s| Box::pin(deleting_goes_on_counting(s))),
        ("names_and_values_are_kept_as_given", |s| Box::pin(names_and_values_are_kept_as_given(s))),
        ("list_is_sorted_and_complete", |s| Box::pin(list_is_sorted_and_complete(s))),
        ("watchers_are_woken", |s| Box::pin(watchers_are_woken(s))),
        ("one_writer_wins_each_version", |s| Box::pin(one_writer_wins_each_version(s))),
        ("registers_are_linearizable", |s| Box::pin(registers_are_linearizable(s))),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        match tokio::time::timeout(HANGS_AFTER, check(open().await)).await {
            Ok(Ok(())) => {}
            Ok(Err(complaint)) => failed.push(format!("{name}: {complaint}")),
            Err(_) => failed.push(format!("{name}: hangs")),
        }
    }
    if let Err(complaint) = survives_reopening(&open).await {
        failed.push(format!("survives_reopening: {complaint}"));
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

fn value(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

fn said(what: &str) -> impl Fn(MetaError) -> String {
    move |error| format!("{what}: {error}")
}

/// Versions start at 0 and rise by one with each write; a get shows the last.
pub async fn versions_are_dense(store: Store) -> Result<(), String> {
    let name = "suite-dense";
    let empty = store.get(name).await.map_err(said("get"))?;
    let never = Versioned { value: None, version: 0 };
    ensure!(empty == never, "a register that was never written says {empty:?}");
    for expected in 0..10 {
        let text = format!("value {expected}");
        let version = store.put_if(name, value(&text), expected).await.map_err(said("put_if"))?;
        ensure!(version == expected + 1, "the write at {expected} gave version {version}");
        let now = store.get(name).await.map_err(said("get"))?;
        ensure!(now == Versioned { value: value(&text), version }, "read back: {now:?}");
    }
    Ok(())
}

/// A write against another version writes nothing and is shown the current value.
pub async fn conflicts_show_what_is_there(store: Store) -> Result<(), String> {
    let name = "suite-conflict";
    for expected in [1, u64::MAX] {
        match store.put_if(name, value("early"), expected).await {
            Err(MetaError::Conflict { current }) if current.version == 0 => {}
            other => return Err(format!("a write at {expected} into nothing: {other:?}")),
        }
    }
    store.put_if(name, value("one"), 0).await.map_err(said("put_if"))?;
    store.put_if(name, value("two"), 1).await.map_err(said("put_if"))?;
    let two = Versioned { value: value("two"), version: 2 };
    for expected in [0, 1, 3, u64::MAX] {
        match store.put_if(name, None, expected).await {
            Err(MetaError::Conflict { current }) if current == two => {}
            other => return Err(format!("a write at {expected} instead of 2: {other:?}")),
        }
    }
    let now = store.get(name).await.map_err(said("get"))?;
    ensure!(now == two, "after conflicts: {now:?}");
    Ok(())
}

/// A deleted register has no value, and its versions go on.
pub async fn deleting_goes_on_counting(store: Store) -> Result<(), String> {
    let name = "suite-delete";
    store.put_if(name, value("one"), 0).await.map_err(said("put_if"))?;
    let deleted = store.put_if(name, None, 1).await.map_err(said("delete"))?;
    ensure!(deleted == 2, "deleting at 1 gave version {deleted}");
    let now = store.get(name).await.map_err(said("get"))?;
    ensure!(now == Versioned { value: None, version: 2 }, "after deleting: {now:?}");
    let again = store.put_if(name, value("again"), 0).await;
    ensure!(matches!(again, Err(MetaError::Conflict { .. })), "created at 0 again: {again:?}");
    let again = store.put_if(name, value("again"), 2).await.map_err(said("create again"))?;
    ensure!(again == 3, "created again, it has version {again}");
    Ok(())
}

/// Names that look alike are different registers; an empty value is a value; big ones are kept.
pub async fn names_and_values_are_kept_as_given(store: Store) -> Result<(), String> {
    let long = "n".repeat(122);
    let names = ["a", "A", "a.", "a-", "a_", ".a", "aa", "_cluster", &long]
        .map(|name| format!("suite-{name}"));
    for name in &names {
        store.put_if(name, value(name), 0).await.map_err(said(name))?;
    }
    for name in &names {
        let now = store.get(name).await.map_err(said(name))?;
        ensure!(now.value == value(name), "{name} holds {:?}", now.value);
    }
    let big: Vec<u8> = (0..1 << 20).map(|i| (i % 251) as u8).collect();
    for (version, content) in [Bytes::new(), Bytes::from(big)].into_iter().enumerate() {
        let version = version as u64;
        let put = store.put_if("suite-big", Some(content.clone()), version).await;
        put.map_err(said("put_if"))?;
        let now = store.get("suite-big").await.map_err(said("get"))?;
        ensure!(now.value == Some(content), "a value at version {} changed", version + 1);
    }
    Ok(())
}

/// `list` gives the names that have a value, sorted.
pub async fn list_is_sorted_and_complete(store: Store) -> Result<(), String> {
    for name in ["suite-list-b", "suite-list-a", "suite-list-c"] {
        store.put_if(name, value("x"), 0).await.map_err(said(name))?;
    }
    store.put_if("suite-list-c", None, 1).await.map_err(said("delete"))?;
    let names = store.list().await.map_err(said("list"))?;
    ensure!(names.is_sorted(), "not sorted: {names:?}");
    let ours: Vec<&String> = names.iter().filter(|n| n.starts_with("suite-list-")).collect();
    ensure!(ours == ["suite-list-a", "suite-list-b"], "listed: {ours:?}");
    Ok(())
}

/// A watcher is shown the newest value as soon as there is a newer one, deletions included.
pub async fn watchers_are_woken(store: Store) -> Result<(), String> {
    let name = "suite-watch";
    let watch = |after| {
        let store = store.clone();
        tokio::spawn(async move { store.watch(name, after).await })
    };
    let early: Vec<_> = (0..3).map(|_| watch(0)).collect();
    watch(0).abort();
    store.put_if("suite-watch-other", value("x"), 0).await.map_err(said("put_if"))?;
    store.put_if(name, value("one"), 0).await.map_err(said("put_if"))?;
    for watcher in early {
        let seen = watcher.await.map_err(|e| e.to_string())?.map_err(said("watch"))?;
        ensure!(seen.version == 1 && seen.value == value("one"), "a watcher saw {seen:?}");
    }
    let late = store.watch(name, 0).await.map_err(said("watch"))?;
    ensure!(late.version == 1, "a watcher that came late saw {late:?}");
    let (deleted, beyond) = (watch(1), watch(2));
    store.put_if(name, None, 1).await.map_err(said("delete"))?;
    let seen = deleted.await.map_err(|e| e.to_string())?.map_err(said("watch"))?;
    ensure!(seen == Versioned { value: None, version: 2 }, "a deletion was shown as {seen:?}");
    store.put_if(name, value("three"), 2).await.map_err(said("put_if"))?;
    let seen = beyond.await.map_err(|e| e.to_string())?.map_err(said("watch"))?;
    ensure!(seen.version == 3, "a watcher of versions beyond 2 saw {seen:?}");
    Ok(())
}

/// Of racers for one version exactly one wins, and the versions won are dense.
pub async fn one_writer_wins_each_version(store: Store) -> Result<(), String> {
    let name = "suite-race";
    let wins = Arc::new(Mutex::new(HashMap::new()));
    let racers: Vec<_> = (0..RACERS)
        .map(|racer| {
            let (store, wins) = (store.clone(), wins.clone());
            tokio::spawn(async move {
                let mut expected = 0;
                while expected < RACERS * WRITES_EACH {
                    match store
                        .put_if(name, value(&format!("{racer} at {expected}")), expected)
                        .await
                    {
                        Ok(version) => {
                            ensure!(version == expected + 1, "won {version} with {expected}");
                            let mut wins = wins.lock().expect("no panic under this lock");
                            let other = wins.insert(version, racer);
                            ensure!(other.is_none(), "version {version} was won twice");
                            expected = version;
                        }
                        Err(MetaError::Conflict { current }) => {
                            ensure!(
                                current.version > expected,
                                "a conflict at {expected} showed version {}",
                                current.version
                            );
                            expected = current.version;
                        }
                        Err(other) => return Err(other.to_string()),
                    }
                }
                Ok(())
            })
        })
        .collect();
    for racer in racers {
        racer.await.map_err(|e| e.to_string())??;
    }
    let wins = wins.lock().expect("no panic under this lock").clone();
    let last = RACERS * WRITES_EACH;
    ensure!((1..=last).all(|version| wins.contains_key(&version)), "nobody won some version");
    let now = store.get(name).await.map_err(said("get"))?;
    let expected = format!("{} at {}", wins[&last], last - 1);
    ensure!(now == Versioned { value: value(&expected), version: last }, "in the end: {now:?}");
    Ok(())
}

/// Gets and conditional writes of racing clients have one order that everybody's answers fit.
pub async fn registers_are_linearizable(store: Store) -> Result<(), String> {
    for round in 0..ROUNDS {
        let name = format!("suite-linear-{round}");
        let recorder = Arc::new(Recorder::default());
        let clients: Vec<_> = (0..RACERS)
            .map(|client| {
                let (store, name, recorder) = (store.clone(), name.clone(), recorder.clone());
                let rng = Rng::new(round * RACERS + client);
                tokio::spawn(race(store, name, recorder, client, rng))
            })
            .collect();
        let mut shown = Vec::new();
        for client in clients {
            shown.extend(client.await.map_err(|e| e.to_string())??);
        }
        let now = store.get(&name).await.map_err(said("get"))?;
        let mut ops = recorder.take();
        let mut entries: Vec<(u64, u64)> = ops
            .iter()
            .filter_map(|op| match op.what {
                What::Append { value, outcome: Outcome::Ok(position) } => Some((position, value)),
                _ => None,
            })
            .collect();
        entries.sort_unstable();
        for (version, bytes) in shown.into_iter().chain([(now.version, now.value)]) {
            let wrote = version.checked_sub(1).and_then(|at| entries.get(at as usize));
            let expected = wrote.map(|(_, token)| Bytes::copy_from_slice(&token.to_le_bytes()));
            ensure!(bytes == expected, "version {version} was shown as {bytes:?}");
        }
        ops.retain(|op| !matches!(op.what, What::Append { outcome: Outcome::Failed, .. }));
        let last = Final { base: 0, tail: now.version, entries };
        history::check(&ops, &last)?;
    }
    Ok(())
}

/// One client; gives every version that it was shown, with its value.
async fn race(
    store: Store,
    name: String,
    recorder: Arc<Recorder>,
    client: u64,
    mut rng: Rng,
) -> Result<Vec<(u64, Option<Bytes>)>, String> {
    let (mut shown, mut known) = (Vec::new(), 0);
    for call in 0..WRITES_EACH {
        let invoked = recorder.now();
        let current = if rng.chance(40) {
            Some(store.get(&name).await.map_err(said("get"))?)
        } else {
            let token = client << 32 | call;
            let bytes = Bytes::copy_from_slice(&token.to_le_bytes());
            match store.put_if(&name, Some(bytes), known).await {
                Ok(version) => {
                    let outcome = Outcome::Ok(known);
                    recorder.done(invoked, What::Append { value: token, outcome });
                    known = version;
                    None
                }
                Err(MetaError::Conflict { current }) => Some(current),
                Err(other) => return Err(other.to_string()),
            }
        };
        if let Some(current) = current {
            recorder.done(invoked, What::Tail { position: current.version, sealed: false });
            known = current.version;
            shown.push((current.version, current.value));
        }
    }
    Ok(shown)
}

/// What was written is there through a handle opened later, and versions go on.
async fn survives_reopening<F, R>(open: &F) -> Result<(), String>
where
    F: Fn() -> R,
    R: Future<Output = Store>,
{
    let store = open().await;
    store.put_if("suite-reopen", value("one"), 0).await.map_err(said("put_if"))?;
    store.put_if("suite-reopen-gone", value("one"), 0).await.map_err(said("put_if"))?;
    store.put_if("suite-reopen-gone", None, 1).await.map_err(said("delete"))?;
    drop(store);
    let store = open().await;
    let now = store.get("suite-reopen").await.map_err(said("get"))?;
    ensure!(now == Versioned { value: value("one"), version: 1 }, "reopened: {now:?}");
    let gone = store.get("suite-reopen-gone").await.map_err(said("get"))?;
    ensure!(gone == Versioned { value: None, version: 2 }, "deleted, reopened: {gone:?}");
    let version = store.put_if("suite-reopen", value("two"), 1).await.map_err(said("put_if"))?;
    ensure!(version == 2, "written after reopening: version {version}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metastores::{FileMetaStore, MemoryMetaStore};
    use crate::storage::disk::RealDisk;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn memory() {
        let store: Store = Arc::new(MemoryMetaStore::new());
        metastore_suite(|| std::future::ready(store.clone())).await.expect("the suite");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        metastore_suite(|| async {
            let store = FileMetaStore::open(Arc::new(RealDisk), dir.path().join("meta"));
            Arc::new(store.expect("the store opens")) as Store
        })
        .await
        .expect("the suite");
    }

    /// Shows a get from before the last write: the suite has to notice.
    #[derive(Debug, Default)]
    struct Stale(MemoryMetaStore, Mutex<HashMap<String, Versioned>>);

    #[async_trait::async_trait]
    impl MetaStore for Stale {
        async fn get(&self, name: &str) -> Result<Versioned, MetaError> {
            let now = self.0.get(name).await?;
            let mut cache = self.1.lock().expect("no panic under this lock");
            let cached = cache.entry(name.to_owned()).or_insert(now.clone());
            let stale = cached.version + 1 == now.version && name.contains("linear");
            if stale {
                return Ok(cached.clone());
            }
            *cached = now.clone();
            Ok(now)
        }
        async fn put_if(&self, n: &str, v: Option<Bytes>, e: u64) -> Result<u64, MetaError> {
            self.0.put_if(n, v, e).await
        }
        async fn watch(&self, name: &str, after: u64) -> Result<Versioned, MetaError> {
            self.0.watch(name, after).await
        }
        async fn list(&self) -> Result<Vec<String>, MetaError> {
            self.0.list().await
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_stale_get_is_found() {
        let store: Store = Arc::new(Stale::default());
        let failed = metastore_suite(|| std::future::ready(store.clone())).await.unwrap_err();
        assert!(
            failed.starts_with("registers_are_linearizable") && !failed.contains("\nsur"),
            "{failed}"
        );
    }
}
