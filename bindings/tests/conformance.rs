//! Runs `conformance/*.toml` against the facade, over every kind of store.
//!
//! The format is told in `conformance/README.md`. Every language has a runner like this one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use toml::{Table, Value};
use virtuallog_bindings::{
    Chain, Entry, Life, Log, LogPos, Options, Reader, Result, Server, ServerConfig, Start, Timeout,
    init,
};

const WAIT: Timeout = Timeout::Default;

#[test]
fn every_scenario_over_memory() {
    run_all(|_| "memory:/".into());
}

#[test]
fn every_scenario_over_files() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    run_all(|name| format!("file:{}/{name}/", directory.path().display()));
}

#[test]
fn every_scenario_over_a_cluster() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let start = |node: u32| {
        let data = directory.path().join(node.to_string());
        let listen = "127.0.0.1:0".into();
        Server::start(ServerConfig { data, listen, ..ServerConfig::default() }, WAIT)
    };
    let servers: Vec<_> = (1..=3).map(start).map(|op| op.wait().expect("it starts")).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address().to_owned()).collect();
    let store = format!("virtuallog://{}/", addresses.join(","));
    init(addresses, WAIT).wait().expect("a cluster");
    for server in &servers {
        server.ready(WAIT).wait().expect("it votes");
    }
    run_all(|_| store.clone());
    for server in servers {
        server.close(WAIT).wait().expect("it closes");
    }
}

/// Each scenario by name over the store of this URL.
fn run_all(store: impl Fn(&str) -> String) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance");
    let mut scenarios = 0;
    for file in directory.read_dir().expect("the scenarios are there") {
        let path = file.expect("it can be listed").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("it can be read");
        let scenario: Table = text.parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = path.file_stem().expect("it has a name").to_string_lossy().into_owned();
        let mut runner = Runner::new(name.clone(), Store::new(store(&name)));
        for (number, step) in scenario["step"].as_array().expect("steps").iter().enumerate() {
            let step = step.as_table().expect("a step is a table");
            runner.place = format!("{name}, step {}: {step}", number + 1);
            runner.step(step);
        }
        scenarios += 1;
    }
    assert!(scenarios >= 15, "only {scenarios} scenarios were found");
}

struct Store {
    /// What comes before a log's name.
    urls: String,
    store: String,
    loglet: &'static str,
}

impl Store {
    /// By its URL, which ends in `/`.
    fn new(store: String) -> Self {
        let (urls, loglet) = match store.split_once(':').expect("a scheme").0 {
            "memory" => ("memory:".into(), "memory"),
            "file" => (store.clone(), "local"),
            _ => (store.clone(), "native"),
        };
        Self { urls, store, loglet }
    }
}

/// What a step gave.
enum Outcome {
    Nothing,
    Position(u64),
    Entries(Vec<Entry>),
    Names(Vec<String>),
    /// Some fields of a structured result.
    Fields(Vec<(&'static str, Field)>),
}

enum Field {
    Number(u64),
    Flag(bool),
    Text(String),
}

struct Runner {
    place: String,
    store: Store,
    /// Makes the scenario's logs its own in a store that all scenarios share.
    suffix: String,
    handles: HashMap<String, Log>,
    saved: HashMap<String, u64>,
}

impl Runner {
    fn new(place: String, store: Store) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let suffix = format!("-{}", RUNS.fetch_add(1, Ordering::Relaxed));
        let (handles, saved) = (HashMap::new(), HashMap::new());
        let mut runner = Self { place, store, suffix, handles, saved };
        // The directory of a `file:` store is made by the first open, its parent is there.
        runner.open("main", "{main}", None).expect("the log can be opened");
        runner
    }

    fn step(&mut self, step: &Table) {
        let outcome = self.run(step);
        if let Some(code) = step.get("error") {
            let error = outcome.err().unwrap_or_else(|| panic!("{}: no error", self.place));
            assert_eq!(
                error.code.name(),
                code.as_str().expect("a code"),
                "{}: {error}",
                self.place
            );
            assert!(!error.in_doubt, "{}: {error}", self.place);
            if let Some(position) = step.get("error_position") {
                assert_eq!(error.position, Some(self.number(position)), "{}", self.place);
            }
            return;
        }
        let outcome = outcome.unwrap_or_else(|error| panic!("{}: {error}", self.place));
        if let Some(name) = step.get("save") {
            let number = match &outcome {
                Outcome::Position(position) => *position,
                Outcome::Fields(fields) => match fields.iter().find(|(name, _)| *name == "version")
                {
                    Some((_, Field::Number(version))) => *version,
                    _ => panic!("{}: nothing to save", self.place),
                },
                _ => panic!("{}: nothing to save", self.place),
            };
            self.saved.insert(name.as_str().expect("a name").into(), number);
        }
        if let Some(expected) = step.get("expect") {
            self.compare(&outcome, expected);
        }
    }

    fn run(&mut self, step: &Table) -> Result<Outcome> {
        let text = |key: &str| step.get(key).map(|value| value.as_str().expect("text").to_owned());
        let url = text("url");
        let handle = text("log").unwrap_or("main".into());
        let operation = text("do").expect("a step does something");
        match operation.as_str() {
            "open" => {
                let create = step.get("create").map(|create| create.as_bool().expect("a flag"));
                return self.open(&handle, &url.expect("a URL"), create).map(|()| Outcome::Nothing);
            }
            "create" => {
                let url = self.fill(&url.expect("a URL"));
                virtuallog_bindings::create(&url, None, WAIT).wait()?;
                return Ok(Outcome::Nothing);
            }
            "delete" => {
                let url = self.fill(&url.expect("a URL"));
                virtuallog_bindings::delete(&url, WAIT).wait()?;
                return Ok(Outcome::Nothing);
            }
            "logs" => {
                let url = self.fill(&url.expect("a URL"));
                let names = virtuallog_bindings::logs(&url, WAIT).wait()?;
                let own = |name: String| Some(name.strip_suffix(&self.suffix)?.to_owned());
                return Ok(Outcome::Names(names.into_iter().filter_map(own).collect()));
            }
            _ => {}
        }
        let log = &self.handles[&handle];
        match operation.as_str() {
            "append" | "append_many" | "append_all" | "flush" => append(log, &operation, step),
            "read" | "read_next" | "subscribe" => self.read(log, &operation, step),
            _ => self.change(log, &operation, step),
        }
    }

    fn read(&self, log: &Log, operation: &str, step: &Table) -> Result<Outcome> {
        let number = |key: &str| step.get(key).map(|value| self.number(value));
        Ok(match operation {
            "read" => {
                let start = number("start").expect("a start");
                let reader = log.read(start, number("end"), WAIT).wait()?;
                Outcome::Entries(take(&reader, usize::MAX)?)
            }
            "read_next" => {
                let start = number("start").expect("a start");
                let entry = log.read_next(start, number("end"), WAIT).wait()?;
                entry.map_or(Outcome::Nothing, |entry| {
                    let text = String::from_utf8_lossy(&entry.payload).into_owned();
                    Outcome::Fields(vec![
                        ("position", Field::Number(entry.position.0)),
                        ("payload", Field::Text(text)),
                    ])
                })
            }
            "subscribe" => {
                let start = match step["start"].as_str() {
                    Some("first") => Start::First,
                    Some("tail") => Start::Tail,
                    _ => Start::At(LogPos(number("start").expect("a start"))),
                };
                let reader = log.subscribe(start, WAIT).wait()?;
                let count = step["take"].as_integer().expect("a number");
                Outcome::Entries(take(&reader, usize::try_from(count).expect("it is small"))?)
            }
            other => panic!("{}: there is no operation `{other}`", self.place),
        })
    }

    fn change(&self, log: &Log, operation: &str, step: &Table) -> Result<Outcome> {
        let number = |key: &str| step.get(key).map(|value| self.number(value));
        let loglet = step.get("loglet").map(|loglet| self.fill(loglet.as_str().expect("text")));
        let loglet = loglet.unwrap_or_default();
        Ok(match operation {
            "close" => nothing(log.close(WAIT).wait()?),
            "check_tail" => tail(log.check_tail(WAIT).wait()?),
            "seal" => tail(log.seal(WAIT).wait()?),
            "first" => Outcome::Position(log.first(WAIT).wait()?),
            "prefix_trim" => {
                let trimmed =
                    log.prefix_trim(number("keep_from").expect("a position"), WAIT).wait()?;
                let limit = trimmed.limited_by.map_or("none", |limit| limit.name());
                Outcome::Fields(vec![
                    ("requested", Field::Number(trimmed.requested.0)),
                    ("effective", Field::Number(trimmed.effective.0)),
                    ("limited_by", Field::Text(limit.into())),
                ])
            }
            "chain" => chain(&log.chain(WAIT).wait()?),
            "reconfig_extend" => {
                chain(&log.reconfig_extend(loglet, number("if_version"), WAIT).wait()?)
            }
            "reconfig_truncate" => {
                chain(&log.reconfig_truncate(number("if_version"), WAIT).wait()?)
            }
            "plan" => {
                let plan = log.plan(loglet, WAIT).wait()?;
                let objections = plan.objections.len() as u64;
                Outcome::Fields(vec![("objections", Field::Number(objections))])
            }
            "verify" => {
                let report = log.verify(WAIT).wait()?;
                Outcome::Fields(vec![
                    ("entries", Field::Number(report.entries)),
                    ("problems", Field::Number(report.problems.len() as u64)),
                ])
            }
            other => panic!("{}: there is no operation `{other}`", self.place),
        })
    }

    fn open(&mut self, handle: &str, url: &str, create: Option<bool>) -> Result<()> {
        let options = Options { create, ..Options::default() };
        let log = Log::open(&self.fill(url), options).wait()?;
        self.handles.insert(handle.into(), log);
        Ok(())
    }

    fn fill(&self, text: &str) -> String {
        match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
            None => text.into(),
            Some("store") => self.store.store.clone(),
            Some("loglet") => self.store.loglet.into(),
            Some(name) => format!("{}{name}{}", self.store.urls, self.suffix),
        }
    }

    fn number(&self, value: &Value) -> u64 {
        if let Some(number) = value.as_integer() {
            return u64::try_from(number).expect("it is not negative");
        }
        let sum = value.as_str().and_then(|text| text.strip_prefix('$')).expect("a saved number");
        let (name, add, subtract) = match (sum.split_once('+'), sum.split_once('-')) {
            (Some((name, add)), _) => (name, add, "0"),
            (_, Some((name, subtract))) => (name, "0", subtract),
            _ => (sum, "0", "0"),
        };
        let parse = |text: &str| text.parse::<u64>().expect("a number");
        self.saved[name] + parse(add) - parse(subtract)
    }

    fn compare(&self, outcome: &Outcome, expected: &Value) {
        let place = &self.place;
        match outcome {
            Outcome::Nothing => assert_eq!(expected.as_str(), Some("none"), "{place}"),
            Outcome::Position(position) => assert_eq!(*position, self.number(expected), "{place}"),
            Outcome::Names(names) => {
                let wanted: Vec<_> = list(expected).iter().map(|name| name.as_str()).collect();
                let names: Vec<_> = names.iter().map(|name| Some(name.as_str())).collect();
                assert_eq!(names, wanted, "{place}");
            }
            Outcome::Entries(entries) => {
                let wanted: Vec<_> = list(expected).iter().map(payload).collect();
                let found: Vec<_> = entries.iter().map(|entry| entry.payload.clone()).collect();
                assert!(found == wanted, "{place}: found {} entries, or others", found.len());
                assert!(entries.is_sorted_by(|a, b| a.position < b.position), "{place}");
            }
            Outcome::Fields(fields) => {
                for (name, wanted) in expected.as_table().expect("a table") {
                    let found = fields.iter().find(|(field, _)| field == name);
                    match &found.unwrap_or_else(|| panic!("{place}: no field `{name}`")).1 {
                        Field::Number(number) => {
                            assert_eq!(*number, self.number(wanted), "{place}: {name}");
                        }
                        Field::Flag(flag) => {
                            assert_eq!(Some(*flag), wanted.as_bool(), "{place}: {name}");
                        }
                        Field::Text(text) => {
                            assert_eq!(Some(text.as_str()), wanted.as_str(), "{place}: {name}");
                        }
                    }
                }
            }
        }
    }
}

fn append(log: &Log, operation: &str, step: &Table) -> Result<Outcome> {
    Ok(match operation {
        "append" => Outcome::Position(log.append_blocking(payload(&step["payload"]), WAIT)?),
        "append_many" => Outcome::Position(log.append_many_blocking(payloads(step), WAIT)?),
        "append_all" => {
            let pipeline = log.pipeline(WAIT)?;
            for payload in payloads(step) {
                if pipeline.push(payload)? {
                    pipeline.room().wait()?;
                }
            }
            pipeline.finish().wait()?.map_or(Outcome::Nothing, |appended| {
                Outcome::Fields(vec![
                    ("first", Field::Number(appended.first.0)),
                    ("last", Field::Number(appended.last.0)),
                    ("count", Field::Number(appended.count)),
                ])
            })
        }
        _ => nothing(log.flush(WAIT).wait()?),
    })
}

fn take(reader: &Reader, count: usize) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    while entries.len() < count {
        let batch = reader.next_batch((count - entries.len()).min(2), None).wait()?;
        if batch.is_empty() {
            break;
        }
        entries.extend(batch);
    }
    Ok(entries)
}

fn nothing((): ()) -> Outcome {
    Outcome::Nothing
}

fn tail(tail: virtuallog_bindings::Tail) -> Outcome {
    let position = ("position", Field::Number(tail.position.0));
    Outcome::Fields(vec![position, ("sealed", Field::Flag(tail.sealed))])
}

fn chain(chain: &Chain) -> Outcome {
    let life = match chain.life {
        Life::Open => "open",
        Life::Ended => "ended",
        Life::Moved { .. } => "moved",
    };
    Outcome::Fields(vec![
        ("version", Field::Number(chain.version)),
        ("segments", Field::Number(chain.segments.len() as u64)),
        ("life", Field::Text(life.into())),
    ])
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn payloads(step: &Table) -> Vec<Bytes> {
    list(&step["payloads"]).iter().map(payload).collect()
}

fn payload(value: &Value) -> Bytes {
    match value.as_str() {
        Some(text) => Bytes::copy_from_slice(text.as_bytes()),
        None => {
            let count = value["count"].as_integer().expect("a number");
            let count = usize::try_from(count).expect("it is small");
            Bytes::from(value["repeat"].as_str().expect("text").repeat(count))
        }
    }
}
