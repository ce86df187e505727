//! Runs `bindings/conformance/*.toml` against the facade, over every kind of store.
//!
//! The format is told in `bindings/conformance/README.md`. Every language has a runner like this one.
//! Read `runner.rs` (steps), `outcome.rs` (what comes out of them), `stores.rs` (where they are run).

mod outcome;
mod runner;
mod stores;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use runner::Runner;
use stores::{Cluster, Store};
use toml::Table;

const SCENARIOS_MIN: usize = 80;

#[test]
fn every_scenario_over_memory() {
    run_all("memory", |_| "memory:/".into());
}

#[test]
fn every_scenario_over_files() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    run_all("file", |name| format!("file:{}/{name}/", directory.path().display()));
}

#[test]
fn every_scenario_over_a_cluster() {
    let cluster = Cluster::start(3);
    run_all("cluster", |_| cluster.url());
    cluster.close();
}

#[test]
fn every_scenario_with_nodes_that_stop() {
    let with_nodes: Vec<_> =
        scenarios().into_iter().filter(|(_, s)| s.contains_key("nodes")).collect();
    assert!(with_nodes.len() >= 5, "only {} scenarios stop nodes", with_nodes.len());
    each(with_nodes, |_, scenario| {
        let nodes = scenario["nodes"].as_integer().expect("a number");
        let cluster = Cluster::start(u32::try_from(nodes).expect("a small number"));
        Runner::new(Store::new(cluster.url()), Some(cluster))
    });
}

/// Each scenario for stores of this kind, by its name over the store of this URL.
fn run_all(kind: &str, store: impl Fn(&str) -> String) {
    let all = scenarios();
    assert!(all.len() >= SCENARIOS_MIN, "only {} scenarios were found", all.len());
    let is_for = |over: &toml::Value| {
        over.as_array().expect("a list").iter().any(|store| store.as_str() == Some(kind))
    };
    let shared = all.into_iter().filter(|(_, scenario)| {
        !scenario.contains_key("nodes") && scenario.get("over").is_none_or(is_for)
    });
    each(shared, |name, _| Runner::new(Store::new(store(name)), None));
}

/// Runs them all, and then fails with the names of those that failed.
fn each(
    scenarios: impl IntoIterator<Item = (String, Table)>,
    runner: impl Fn(&str, &Table) -> Runner,
) {
    let mut failed = Vec::new();
    for (name, scenario) in scenarios {
        let run = || runner(&name, &scenario).run(&name, &scenario);
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "failed: {}", failed.join(", "));
}

/// All scenarios by name.
fn scenarios() -> Vec<(String, Table)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let mut found = Vec::new();
    for file in directory.read_dir().expect("the scenarios are there") {
        let path = file.expect("it can be listed").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let scenario: Table = text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
        found.push((name, scenario));
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}
