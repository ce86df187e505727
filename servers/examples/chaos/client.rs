//! The client in Rust: appends, looks, follows, and says what it saw, as `CLIENTS.md` has it.

use std::io::{BufWriter, Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{join_all, select};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::sync::watch;
use virtuallog::testing::Rng;
use virtuallog::{Append, Entry, Error, ErrorCode, LogPos, VirtualLog};

/// Values of one client lie below this distance.
pub(crate) const VALUES_MAX: u64 = 1_000_000_000;
/// Digits of a value in a payload.
const DIGITS: usize = 20;
/// How long a look-up of an append in doubt may take.
const RESOLVE_MAX: Duration = Duration::from_secs(10);
/// Between two tail checks, and after how many of them entries are read.
const LOOK: Duration = Duration::from_millis(100);
const READ_EVERY: u64 = 5;
/// Entries that one read takes.
const READ_MAX: u64 = 64;
/// After a failure of a subscription.
const PAUSE: Duration = Duration::from_millis(50);

/// Nanoseconds of the clock that all processes share.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("it counts up from 0");
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("below a second")
}

/// The payload of a value.
pub(crate) fn payload(value: u64) -> Vec<u8> {
    format!("{value:0DIGITS$}").repeat(1 + (value % 25) as usize).into_bytes()
}

/// The value of a payload, if it is one.
pub(crate) fn value(bytes: &[u8]) -> Option<u64> {
    let value = std::str::from_utf8(bytes.get(..DIGITS)?).ok()?.parse().ok()?;
    (payload(value) == bytes).then_some(value)
}

/// What a client needs to know.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ClientArgs {
    /// The log
    url: String,
    /// Its own number
    number: u64,
    /// Rounds of appends in a second, at most
    rounds_per_s: u64,
    /// `follow`: subscribes too
    follow: String,
}

struct Client {
    log: VirtualLog,
    args: ClientArgs,
    next: AtomicU64,
    said: Mutex<BufWriter<std::io::Stdout>>,
}

/// Runs a client until its standard input ends.
pub(crate) async fn run(args: ClientArgs) -> Result<(), Error> {
    let lines = tracing_subscriber::fmt().with_writer(std::io::stderr);
    lines.with_ansi(false).with_max_level(tracing::Level::WARN).init();
    let (end, ended) = watch::channel(false);
    std::thread::spawn(move || {
        // Whatever comes before the end, and however that comes, means nothing.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        end.send_replace(true);
    });
    // The cluster may be in trouble already.
    let log = loop {
        match VirtualLog::open(&args.url).await {
            Ok(log) => break log,
            Err(error) if error.is_retryable() => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error),
        }
    };
    let said = Mutex::new(BufWriter::new(std::io::stdout()));
    let client = Client { log, args, next: AtomicU64::new(0), said };
    let looks = async { tokio::join!(client.appends(ended.clone()), client.looks(ended.clone())) };
    let follows = async {
        if client.args.follow == "follow" {
            client.follows(ended.clone()).await;
        }
    };
    tokio::join!(looks, follows);
    client.said.lock().expect("nobody panics under it").flush().expect("somebody reads it");
    client.log.close().await
}

impl Client {
    fn say(&self, line: &Value) {
        let mut out = self.said.lock().expect("nobody panics under it");
        writeln!(out, "{line}").expect("somebody reads it");
    }

    fn fails(&self, from: u64, call: &str, error: &Error) {
        let (to, code) = (now(), error.code().name());
        let message = error.to_string();
        self.say(&json!({ "op": "error", "from": from, "to": to, "call": call, "error": code, "message": message }));
    }

    /// Rounds of appends.
    async fn appends(&self, ended: watch::Receiver<bool>) {
        let mut random = Rng::new(self.args.number);
        let pause = Duration::from_secs(1) / self.args.rounds_per_s.max(1) as u32;
        let mut due = tokio::time::interval(pause);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !*ended.borrow() {
            due.tick().await;
            if random.chance(12) {
                let values: Vec<_> = (0..2 + random.below(7)).map(|_| self.value()).collect();
                let from = now();
                let append = self.log.append_many(values.iter().map(|value| payload(*value)));
                self.settle(from, append, &values).await;
            } else {
                let round = (0..1 + random.below(16)).map(|_| {
                    let (value, from) = (self.value(), now());
                    (value, from, self.log.append(payload(value)))
                });
                let round: Vec<_> = round.collect();
                let settled = round.into_iter().map(async |(value, from, append)| {
                    self.settle(from, append, &[value]).await;
                });
                join_all(settled).await;
            }
        }
    }

    fn value(&self) -> u64 {
        self.args.number * VALUES_MAX + self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Waits for the outcome of one append, looks it up if it is in doubt, and says it.
    async fn settle(&self, from: u64, append: Append, values: &[u64]) {
        let mut outcome = append.await.map_err(|error| (error.is_in_doubt(), error));
        let mut found = false;
        if let Err((true, error)) = &outcome
            && let Some(token) = error.token()
        {
            let resolved = tokio::time::timeout(RESOLVE_MAX, self.log.resolve(token)).await;
            found = matches!(resolved, Ok(Ok(_)));
            outcome = match resolved {
                Ok(Ok(Some(position))) => Ok(position),
                Ok(Ok(None)) => Err((false, error.clone())),
                Ok(Err(_)) | Err(_) => outcome,
            };
        }
        let to = now();
        for (index, value) in values.iter().enumerate() {
            let mut line = json!({ "op": "append", "from": from, "to": to, "value": value });
            match &outcome {
                Ok(first) => line["position"] = (first.0 + index as u64).into(),
                Err((in_doubt, error)) => {
                    line["error"] = error.code().name().into();
                    line["message"] = error.to_string().into();
                    line["in_doubt"] = (*in_doubt).into();
                }
            }
            if found {
                line["resolved"] = true.into();
            }
            self.say(&line);
        }
    }

    /// Tails, and entries below them.
    async fn looks(&self, mut ended: watch::Receiver<bool>) {
        let mut count = 0;
        while !*ended.borrow_and_update() {
            let from = now();
            match self.log.check_tail().await {
                Ok(tail) => {
                    let (to, position) = (now(), tail.position.0);
                    self.say(&json!({
                        "op": "tail", "from": from, "to": to, "position": position, "sealed": tail.sealed,
                    }));
                    if count % READ_EVERY == 0 {
                        self.read(LogPos(position.saturating_sub(READ_MAX)), tail.position).await;
                    }
                }
                Err(error) => self.fails(from, "check_tail", &error),
            }
            count += 1;
            let pause = std::pin::pin!(tokio::time::sleep(LOOK));
            select(pause, std::pin::pin!(ended.changed())).await;
        }
    }

    async fn read(&self, start: LogPos, end: LogPos) {
        let (from, mut after) = (now(), start.0);
        let mut reader = match self.log.read(start, Some(end)).await {
            Ok(reader) => reader,
            Err(error) => return self.fails(from, "read", &error),
        };
        loop {
            match reader.next().await {
                Ok(Some(entry)) => self.saw(from, &mut after, &entry),
                Ok(None) => {
                    let to = now();
                    let line = json!({ "op": "end", "from": from, "to": to, "position": end.0, "after": after });
                    return self.say(&line);
                }
                Err(error) => {
                    self.lost(from, after, "read", &error);
                    return;
                }
            }
        }
    }

    /// One subscription, for as long as the client lives.
    async fn follows(&self, mut ended: watch::Receiver<bool>) {
        let mut after = 0;
        while !*ended.borrow_and_update() {
            let mut from = now();
            let mut entries = match self.log.subscribe(LogPos(after)).await {
                Ok(entries) => entries,
                Err(error) => {
                    after = self.lost(from, after, "subscribe", &error);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            loop {
                let batch = tokio::select! {
                    batch = entries.next_batch(1024) => batch,
                    _ = ended.changed() => return,
                };
                match batch {
                    Ok(batch) => batch.iter().for_each(|entry| self.saw(from, &mut after, entry)),
                    Err(error) => {
                        after = self.lost(from, after, "subscription", &error);
                        tokio::time::sleep(PAUSE).await;
                        break;
                    }
                }
                from = now();
            }
        }
    }

    fn saw(&self, from: u64, after: &mut u64, entry: &Entry) {
        let (to, position) = (now(), entry.position.0);
        self.say(&match value(&entry.payload) {
            Some(value) => json!({
                "op": "entry", "from": from, "to": to, "position": position, "value": value, "after": *after,
            }),
            None => json!({ "op": "alien", "position": position }),
        });
        *after = position + 1;
    }

    /// Says why reading went no further than `after`, and gives where it goes on.
    fn lost(&self, from: u64, after: u64, call: &str, error: &Error) -> u64 {
        match error.position() {
            Some(kept) if error.code() == ErrorCode::Trimmed => {
                let (to, kept) = (now(), kept.0);
                self.say(&json!({ "op": "trimmed", "from": from, "to": to, "position": after, "kept": kept }));
                kept.max(after)
            }
            _ => {
                self.fails(from, call, error);
                after
            }
        }
    }
}
