//! Runs the steps of one scenario.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, mem};

use tempfile::TempDir;
use toml::{Table, Value};
use virtuallog_bindings as facade;
use virtuallog_bindings::{
    Entry, Error, Log, LogPos, Op, Options, Reader, Relocation, Result, Server, ServerConfig,
    Start, Step, Timeout,
};

use crate::outcome::{Field, Outcome, list, payload, payloads};
use crate::stores::{Cluster, Store, impostor};

/// What a step led to.
enum Started {
    /// To be waited for, or kept for later.
    Op(Op<Outcome>),
    Known(Outcome),
}

pub(crate) struct Runner {
    place: String,
    store: Store,
    cluster: Option<Cluster>,
    /// Makes the scenario's logs its own in a store that all scenarios share.
    suffix: String,
    /// For servers, and for the other store.
    directory: TempDir,
    logs: HashMap<String, Log>,
    readers: HashMap<String, Reader>,
    servers: HashMap<String, Server>,
    impostors: HashMap<String, String>,
    begun: HashMap<String, Op<Outcome>>,
    saved: HashMap<String, u64>,
    tokens: HashMap<String, String>,
}

impl Runner {
    pub(crate) fn new(store: Store, cluster: Option<Cluster>) -> Self {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        Self {
            place: String::new(),
            store,
            cluster,
            suffix: format!("-{}", RUNS.fetch_add(1, Ordering::Relaxed)),
            directory: tempfile::tempdir().expect("a directory can be made"),
            logs: HashMap::new(),
            readers: HashMap::new(),
            servers: HashMap::new(),
            impostors: HashMap::new(),
            begun: HashMap::new(),
            saved: HashMap::new(),
            tokens: HashMap::new(),
        }
    }

    pub(crate) fn run(&mut self, name: &str, scenario: &Table) {
        // The directory of a `file:` store is made by the first open, its parent is there.
        let opened = Log::open(&self.fill("{main}"), Options::default()).wait();
        self.logs.insert("main".into(), opened.expect("the log can be opened"));
        for (number, step) in list(&scenario["step"]).iter().enumerate() {
            let step = step.as_table().expect("a step is a table");
            self.place = format!("{name}, step {}: {step:?}", number + 1);
            self.step(step);
        }
        self.readers.clear();
        for (_, log) in mem::take(&mut self.logs) {
            // Some scenarios leave a log without the servers that it would need to close in order.
            let _ = log.close(Timeout::After(Duration::from_secs(1))).wait();
        }
        for (_, server) in mem::take(&mut self.servers) {
            server.close(Timeout::Default).wait().expect("it closes");
        }
        if let Some(cluster) = self.cluster.take() {
            cluster.close();
        }
    }

    fn step(&mut self, step: &Table) {
        let outcome = match self.start(step) {
            Err(error) => Err(error),
            Ok(Started::Known(outcome)) => Ok(outcome),
            Ok(Started::Op(op)) => {
                if let Some(name) = step.get("begin") {
                    self.begun.insert(name.as_str().expect("a name").into(), op);
                    return;
                }
                op.wait()
            }
        };
        match step.get("error") {
            Some(code) => {
                let error = outcome.err().unwrap_or_else(|| panic!("{}: no error", self.place));
                self.fails(step, code, &error);
            }
            None => {
                let outcome = outcome.unwrap_or_else(|error| panic!("{}: {error}", self.place));
                self.succeeds(step, outcome);
            }
        }
    }

    fn fails(&mut self, step: &Table, code: &Value, error: &Error) {
        let place = &self.place;
        assert_eq!(error.code.name(), code.as_str().expect("a code"), "{place}: {error}");
        let flag = |key| step.get(key).map(|flag: &Value| flag.as_bool().expect("a flag"));
        assert_eq!(error.in_doubt, flag("in_doubt").unwrap_or(false), "{place}: {error}");
        assert_eq!(error.in_doubt, error.token.is_some(), "{place}: {error}");
        assert!(!error.message.is_empty(), "{place}");
        if let Some(retryable) = flag("retryable") {
            assert_eq!(error.retryable, retryable, "{place}: {error}");
        }
        if let Some(position) = step.get("error_position") {
            assert_eq!(error.position, Some(self.number(position)), "{place}");
        }
        if let Some(name) = step.get("save_token") {
            let token = error.token.clone().unwrap_or_else(|| panic!("{place}: no token"));
            self.tokens.insert(name.as_str().expect("a name").into(), token);
        }
    }

    fn succeeds(&mut self, step: &Table, outcome: Outcome) {
        if let Some(name) = step.get("save") {
            let number =
                outcome.number().unwrap_or_else(|| panic!("{}: nothing to save", self.place));
            self.saved.insert(name.as_str().expect("a name").into(), number);
        }
        if let Some(expected) = step.get("expect") {
            outcome.compare(expected, |value| self.number(value), &self.place);
        }
        let name = step.get("as").map(|name| name.as_str().expect("a name").to_owned());
        let name = || name.unwrap_or_else(|| panic!("{}: `as` is missing", self.place));
        match outcome {
            Outcome::Log(log) => drop(self.logs.insert(name(), log)),
            Outcome::Reader(reader) => drop(self.readers.insert(name(), reader)),
            Outcome::Server(server) => drop(self.servers.insert(name(), server)),
            _ => {}
        }
    }

    fn start(&mut self, step: &Table) -> Result<Started> {
        let operation = step["do"].as_str().expect("a step does something");
        let text = |key: &str| step[key].as_str().expect("text");
        match operation {
            "await" => {
                let begun = self.begun.remove(text("of"));
                Ok(Started::Op(begun.unwrap_or_else(|| panic!("{}: not begun", self.place))))
            }
            "cancel" => {
                drop(self.begun.remove(text("of")).expect("it was begun"));
                Ok(Started::Known(Outcome::Nothing))
            }
            "impostor" => {
                let address = impostor(payload(&step["payload"]).into()).to_string();
                self.impostors.insert(text("as").into(), address);
                Ok(Started::Known(Outcome::Nothing))
            }
            "stop" | "start" | "overwrite" | "rename" => {
                self.meddle(operation, step);
                Ok(Started::Known(Outcome::Nothing))
            }
            "open" | "create" | "delete" | "logs" | "move" => self.store_step(operation, step),
            "nodes" | "drain" | "remove" | "init" | "serve" | "ready" | "drain_server"
            | "close_server" | "server" => self.cluster_step(operation, step),
            "next" | "position" | "close_reader" => self.reader_step(operation, step),
            "append" | "append_nowait" | "append_many" | "append_all" => {
                self.append_step(operation, step)
            }
            "read" | "read_next" | "subscribe" => self.read_step(operation, step),
            _ => self.log_step(operation, step).map(Started::Op),
        }
    }

    fn store_step(&mut self, operation: &str, step: &Table) -> Result<Started> {
        let text = |key: &str| step.get(key).map(|text| self.fill(text.as_str().expect("text")));
        let number = |key: &str| {
            let bytes = step.get(key)?.as_integer().expect("a number");
            Some(usize::try_from(bytes).expect("not negative"))
        };
        let url = text("url").expect("a URL");
        let timeout = timeout(step);
        Ok(match operation {
            "open" => {
                let options = Options {
                    create: step.get("create").map(|create| create.as_bool().expect("a flag")),
                    mode: text("mode").map(|mode| mode.parse()).transpose()?,
                    loglet: text("loglet"),
                    timeout,
                    entry_bytes_max: number("entry_bytes_max"),
                    in_flight_bytes_max: number("in_flight_bytes_max"),
                };
                Started::Op(Log::open(&url, options).map(Outcome::Log))
            }
            "create" => op(facade::create(&url, text("loglet"), timeout)),
            "delete" => op(facade::delete(&url, timeout)),
            "logs" => {
                let suffix = self.suffix.clone();
                Started::Op(facade::logs(&url, timeout).map(move |names| own(names, &suffix)))
            }
            _ => {
                let leave = step.get("leave_sealed").is_some_and(|l| l.as_bool() == Some(true));
                let moving = Relocation::start(&url, &text("to").expect("a URL"), leave);
                loop {
                    if let Step::Done(chain) = moving.next().wait()? {
                        break Started::Known(chain.into());
                    }
                }
            }
        })
    }

    fn cluster_step(&mut self, operation: &str, step: &Table) -> Result<Started> {
        let text = |key: &str| step.get(key).map(|text| self.fill(text.as_str().expect("text")));
        let timeout = timeout(step);
        if operation == "serve" {
            let config = ServerConfig {
                data: self.directory.path().join(text("data").expect("a name")),
                listen: text("listen").unwrap_or("127.0.0.1:0".into()),
                join: step.get("join").map(|join| self.fill_all(join)).unwrap_or_default(),
                ..ServerConfig::default()
            };
            return Ok(Started::Op(Server::start(config, timeout).map(Outcome::Server)));
        }
        if operation == "init" {
            return Ok(op(facade::init(self.fill_all(&step["addresses"]), timeout)));
        }
        if operation == "nodes" {
            return Ok(op(facade::nodes(&text("url").expect("a URL"), timeout)));
        }
        if matches!(operation, "drain" | "remove") {
            let node = match (&mut self.cluster, &step["node"]) {
                (Some(cluster), node) => cluster.number(node),
                (None, node) => u32::try_from(self.number(node)).expect("a small number"),
            };
            let url = self.fill(step["url"].as_str().expect("a URL"));
            return Ok(op(match operation {
                "drain" => facade::drain(&url, node, timeout),
                _ => facade::remove(&url, node, timeout),
            }));
        }
        let server = &self.servers[step["server"].as_str().expect("a name")];
        Ok(match operation {
            "ready" => op(server.ready(timeout)),
            "drain_server" => op(server.drain(timeout)),
            "close_server" => op(server.close(timeout)),
            _ => {
                let node = server.node()?.map_or(Field::Nothing, |node| Field::Number(node.into()));
                Started::Known(Outcome::Fields(vec![("node", node)]))
            }
        })
    }

    fn reader_step(&mut self, operation: &str, step: &Table) -> Result<Started> {
        let reader = &self.readers[step["reader"].as_str().expect("a name")];
        let wait = match timeout(step) {
            Timeout::After(timeout) => Some(timeout),
            _ => None,
        };
        let count = step.get("take").map_or(1, count);
        Ok(match operation {
            "next" if count == 1 => op(reader.next_batch(1, wait)),
            "next" => Started::Known(take(reader, count, wait)?.into()),
            "position" => Started::Known(reader.position()?.into()),
            _ => {
                reader.close();
                Started::Known(Outcome::Nothing)
            }
        })
    }

    fn append_step(&self, operation: &str, step: &Table) -> Result<Started> {
        let (log, timeout) = (self.log(step), timeout(step));
        let begun = step.contains_key("begin");
        Ok(match operation {
            "append" if begun => op(log.append(payload(&step["payload"]), timeout)),
            "append" => {
                Started::Known(log.append_blocking(payload(&step["payload"]), timeout)?.into())
            }
            "append_nowait" => op(log.append_nowait(payload(&step["payload"]), timeout)?),
            "append_many" => {
                let payloads = payloads(&step["payloads"]);
                Started::Known(log.append_many_blocking(payloads, timeout)?.into())
            }
            _ => {
                let pipeline = log.pipeline(timeout)?;
                for payload in payloads(&step["payloads"]) {
                    if pipeline.push(payload)? {
                        pipeline.room().wait()?;
                    }
                }
                op(pipeline.finish())
            }
        })
    }

    fn read_step(&self, operation: &str, step: &Table) -> Result<Started> {
        let (log, timeout) = (self.log(step), timeout(step));
        let number = |key: &str| step.get(key).map(|value| self.number(value));
        let kept = step.contains_key("as");
        if operation == "read_next" {
            let start = number("start").expect("a start");
            return Ok(op(log.read_next(start, number("end"), timeout)));
        }
        let reading = match operation {
            "read" => log.read(number("start").expect("a start"), number("end"), timeout),
            _ => {
                let start = match step["start"].as_str() {
                    Some("first") => Start::First,
                    Some("tail") => Start::Tail,
                    _ => Start::At(LogPos(number("start").expect("a start"))),
                };
                log.subscribe(start, timeout)
            }
        };
        if kept {
            return Ok(Started::Op(reading.map(Outcome::Reader)));
        }
        let reader = reading.wait()?;
        let count = step.get("take").map_or(usize::MAX, count);
        Ok(Started::Known(take(&reader, count, None)?.into()))
    }

    fn log_step(&self, operation: &str, step: &Table) -> Result<Op<Outcome>> {
        let (log, timeout) = (self.log(step), timeout(step));
        let number = |key: &str| step.get(key).map(|value| self.number(value));
        let loglet = || self.fill(step["loglet"].as_str().expect("text"));
        Ok(match operation {
            "flush" => log.flush(timeout).map(Outcome::from),
            "check_tail" => log.check_tail(timeout).map(Outcome::from),
            "first" => log.first(timeout).map(Outcome::from),
            "prefix_trim" => {
                let keep_from = number("keep_from").expect("a position");
                log.prefix_trim(keep_from, timeout).map(Outcome::from)
            }
            "seal" => log.seal(timeout).map(Outcome::from),
            "chain" => log.chain(timeout).map(Outcome::from),
            "reconfig_extend" => {
                log.reconfig_extend(loglet(), number("if_version"), timeout).map(Outcome::from)
            }
            "reconfig_truncate" => {
                log.reconfig_truncate(number("if_version"), timeout).map(Outcome::from)
            }
            "reconfig_modify" => {
                let segment = u32::try_from(number("segment").expect("an index"));
                let segment = segment.expect("a small number");
                let version = number("if_version");
                log.reconfig_modify(segment, loglet(), version, timeout).map(Outcome::from)
            }
            "plan" => log.plan(loglet(), timeout).map(Outcome::from),
            "resolve" => {
                let token = step["token"].as_str().expect("text");
                let token = token.strip_prefix('$').map_or(token, |name| &self.tokens[name]);
                log.resolve(token, timeout).map(Outcome::from)
            }
            "verify" => log.verify(timeout).map(Outcome::from),
            "close" => log.close(timeout).map(Outcome::from),
            other => panic!("{}: there is no operation `{other}`", self.place),
        })
    }

    /// What only the runner can do: to the nodes, and to the files of a store.
    fn meddle(&mut self, operation: &str, step: &Table) {
        if let Some(node) = step.get("node") {
            let cluster = self.cluster.as_mut().expect("`nodes` at the top of the file");
            let one = [node.clone()];
            let nodes = node.as_array().map_or(&one[..], Vec::as_slice);
            let nodes: Vec<u32> = nodes.iter().map(|node| cluster.number(node)).collect();
            return match operation {
                "stop" => cluster.stop_nodes(&nodes),
                _ => cluster.start_nodes(&nodes),
            };
        }
        let path = |key: &str| {
            let store = self.store.url.strip_prefix("file:").expect("a store of files");
            format!("{store}{}", step[key].as_str().expect("text"))
        };
        if operation == "rename" {
            return fs::rename(path("file"), path("to")).expect("it can be renamed");
        }
        let mut bytes = fs::read(path("file")).expect("it can be read");
        let (at, new) = (count(&step["at"]), payload(&step["payload"]));
        bytes[at..at + new.len()].copy_from_slice(&new);
        fs::write(path("file"), bytes).expect("it can be written");
    }

    fn log(&self, step: &Table) -> &Log {
        &self.logs[step.get("log").map_or("main", |log| log.as_str().expect("a name"))]
    }

    fn fill(&self, text: &str) -> String {
        let Some((before, rest)) = text.split_once('{') else { return text.into() };
        let (name, after) = rest.split_once('}').expect("a brace is closed");
        let by = match name.split_once(':') {
            Some(("url", server)) => self.servers[server].url().to_owned(),
            Some(("address", server)) => match self.impostors.get(server) {
                Some(impostor) => impostor.clone(),
                None => self.servers[server].address().to_owned(),
            },
            _ if name == "store" => self.store.url.clone(),
            _ if name == "loglet" => self.store.loglet.into(),
            _ if name == "away" => format!("file:{}/away/", self.directory.path().display()),
            _ => format!("{}{name}{}", self.store.logs, self.suffix),
        };
        format!("{before}{by}{}", self.fill(after))
    }

    fn fill_all(&self, texts: &Value) -> Vec<String> {
        list(texts).iter().map(|text| self.fill(text.as_str().expect("text"))).collect()
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
}

fn op<T: Into<Outcome> + Send + 'static>(op: Op<T>) -> Started {
    Started::Op(op.map(Into::into))
}

/// The names that are this scenario's, or all where none is: a store of the scenario's own.
fn own(names: Vec<String>, suffix: &str) -> Outcome {
    let ours: Vec<String> =
        names.iter().filter_map(|name| Some(name.strip_suffix(suffix)?.to_owned())).collect();
    Outcome::Names(if ours.is_empty() { names } else { ours })
}

fn take(reader: &Reader, count: usize, wait: Option<Duration>) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    while entries.len() < count {
        // Small batches, so that there are several.
        let batch = reader.next_batch((count - entries.len()).min(64), wait).wait()?;
        if batch.is_empty() {
            break;
        }
        entries.extend_from_slice(&batch);
    }
    Ok(entries)
}

fn count(value: &Value) -> usize {
    usize::try_from(value.as_integer().expect("a number")).expect("it is not negative")
}

fn timeout(step: &Table) -> Timeout {
    // So long that a machine that is busy is no failure.
    let Some(seconds) = step.get("timeout") else { return Timeout::After(Duration::from_secs(60)) };
    let whole = || seconds.as_integer().and_then(|whole| u32::try_from(whole).ok()).map(f64::from);
    let seconds = seconds.as_float().or_else(whole).expect("a number of seconds");
    Timeout::After(Duration::from_secs_f64(seconds))
}
