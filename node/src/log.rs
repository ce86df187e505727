//! A log's operations, its readers, and the functions on stores. Each gives the tag of its answer.

use napi::bindgen_prelude::BigInt;
use napi::{Either, Result};
use napi_derive::napi;
use virtuallog_bindings as facade;
use virtuallog_bindings::{LogPos, Op, Options, Start, Timeout};

use crate::convert::{self, Payload, timeout, whole};
use crate::queue::{Answers, Queue, submit};
use crate::value::{Failure, Value};

/// A handle to an open log.
#[napi]
pub struct Log {
    log: facade::Log,
    answers: Answers,
}

impl Log {
    pub(crate) fn new(log: facade::Log, answers: Answers) -> Self {
        Self { log, answers }
    }

    fn submit<T: Send + 'static>(
        &self,
        op: Op<T>,
        convert: impl FnOnce(T) -> Value + Send + 'static,
    ) -> Result<f64> {
        submit(&self.answers, op, convert)
    }
}

#[napi]
impl Log {
    #[napi(getter)]
    pub fn name(&self) -> &str {
        self.log.name()
    }

    /// Milliseconds; null: none.
    #[napi(getter)]
    pub fn timeout_ms(&self) -> Option<f64> {
        self.log.timeout().map(|timeout| timeout.as_secs_f64() * 1e3)
    }

    #[napi(catch_unwind)]
    pub fn append(&self, payload: Payload<'_>, timeout_ms: f64) -> Result<f64> {
        let payload = convert::payload(payload);
        self.submit(self.log.append(payload, timeout(timeout_ms)), Value::Position)
    }

    /// `BUSY` where the window is full.
    #[napi(catch_unwind)]
    pub fn append_nowait(&self, payload: Payload<'_>, timeout_ms: f64) -> Result<f64> {
        let append = self.log.append_nowait(convert::payload(payload), timeout(timeout_ms));
        self.submit(append.unwrap_or_else(Op::failed), Value::Position)
    }

    #[napi(catch_unwind)]
    pub fn append_many(&self, payloads: Vec<Payload<'_>>, timeout_ms: f64) -> Result<f64> {
        let payloads = convert::payloads(&payloads);
        self.submit(self.log.append_many(payloads, timeout(timeout_ms)), Value::Position)
    }

    #[napi(catch_unwind)]
    pub fn pipeline(&self, timeout_ms: f64) -> Either<Pipeline, Failure> {
        match self.log.pipeline(timeout(timeout_ms)) {
            Ok(pipeline) => Either::A(Pipeline { pipeline, answers: self.answers.clone() }),
            Err(error) => Either::B(error.into()),
        }
    }

    #[napi(catch_unwind)]
    pub fn flush(&self, timeout_ms: f64) -> Result<f64> {
        self.submit(self.log.flush(timeout(timeout_ms)), |()| Value::None)
    }

    #[napi(catch_unwind)]
    pub fn check_tail(&self, timeout_ms: f64) -> Result<f64> {
        self.submit(self.log.check_tail(timeout(timeout_ms)), Value::Tail)
    }

    #[napi(catch_unwind)]
    pub fn first(&self, timeout_ms: f64) -> Result<f64> {
        self.submit(self.log.first(timeout(timeout_ms)), Value::Position)
    }

    #[napi(catch_unwind)]
    pub fn read(&self, start: BigInt, end: Option<BigInt>, timeout_ms: f64) -> Result<f64> {
        let (start, end) = (whole(&start), end.as_ref().map(whole));
        self.submit(self.log.read(start, end, timeout(timeout_ms)), Value::Reader)
    }

    #[napi(catch_unwind)]
    pub fn read_next(&self, start: BigInt, end: Option<BigInt>, timeout_ms: f64) -> Result<f64> {
        let (start, end) = (whole(&start), end.as_ref().map(whole));
        self.submit(self.log.read_next(start, end, timeout(timeout_ms)), Value::Entry)
    }

    /// `start`: a position, `"first"`, or anything else for the tail.
    #[napi(catch_unwind)]
    pub fn subscribe(&self, start: Either<BigInt, String>, timeout_ms: f64) -> Result<f64> {
        let start = match start {
            Either::A(position) => Start::At(LogPos(whole(&position))),
            Either::B(word) if word == "first" => Start::First,
            Either::B(_) => Start::Tail,
        };
        self.submit(self.log.subscribe(start, timeout(timeout_ms)), Value::Reader)
    }

    #[napi(catch_unwind)]
    pub fn prefix_trim(&self, keep_from: BigInt, timeout_ms: f64) -> Result<f64> {
        self.submit(self.log.prefix_trim(whole(&keep_from), timeout(timeout_ms)), Value::Trimmed)
    }

    #[napi(catch_unwind)]
    pub fn seal(&self, timeout_ms: f64) -> Result<f64> {
        self.submit(self.log.seal(timeout(timeout_ms)), Value::Tail)
    }

    #[napi(catch_unwind)]
    pub fn chain(&self, timeout_ms: f64) -> Result<f64> {
        self.submit(self.log.chain(timeout(timeout_ms)), Value::Chain)
    }

    #[napi(catch_unwind)]
    pub fn reconfig_extend(
        &self,
        loglet: String,
        if_version: Option<BigInt>,
        timeout_ms: f64,
    ) -> Result<f64> {
        let if_version = if_version.as_ref().map(whole);
        let extend = self.log.reconfig_extend(loglet, if_version, timeout(timeout_ms));
        self.submit(extend, Value::Chain)
    }

    #[napi(catch_unwind)]
    pub fn reconfig_truncate(&self, if_version: Option<BigInt>, timeout_ms: f64) -> Result<f64> {
        let if_version = if_version.as_ref().map(whole);
        self.submit(self.log.reconfig_truncate(if_version, timeout(timeout_ms)), Value::Chain)
    }

    #[napi(catch_unwind)]
    pub fn reconfig_modify(
        &self,
        segment: u32,
        loglet: String,
        if_version: Option<BigInt>,
        timeout_ms: f64,
    ) -> Result<f64> {
        let if_version = if_version.as_ref().map(whole);
        let modify = self.log.reconfig_modify(segment, loglet, if_version, timeout(timeout_ms));
        self.submit(modify, Value::Chain)
    }

    #[napi(catch_unwind)]
    pub fn plan(&self, loglet: String, timeout_ms: f64) -> Result<f64> {
        self.submit(self.log.plan(loglet, timeout(timeout_ms)), Value::Plan)
    }

    #[napi(catch_unwind)]
    pub fn resolve(&self, token: String, timeout_ms: f64) -> Result<f64> {
        self.submit(self.log.resolve(&token, timeout(timeout_ms)), Value::MaybePosition)
    }

    #[napi(catch_unwind)]
    pub fn verify(&self, timeout_ms: f64) -> Result<f64> {
        self.submit(self.log.verify(timeout(timeout_ms)), Value::Report)
    }

    #[napi(catch_unwind)]
    pub fn close(&self, timeout_ms: f64) -> Result<f64> {
        self.submit(self.log.close(timeout(timeout_ms)), |()| Value::None)
    }
}

/// An `appendAll` under way.
#[napi]
pub struct Pipeline {
    pipeline: facade::Pipeline,
    answers: Answers,
}

#[napi]
impl Pipeline {
    /// Submits an entry. True: full, wait for `room`.
    #[napi(catch_unwind)]
    pub fn push(&self, payload: Payload<'_>) -> Either<bool, Failure> {
        match self.pipeline.push(convert::payload(payload)) {
            Ok(full) => Either::A(full),
            Err(error) => Either::B(error.into()),
        }
    }

    #[napi(catch_unwind)]
    pub fn room(&self) -> Result<f64> {
        submit(&self.answers, self.pipeline.room(), |()| Value::None)
    }

    #[napi(catch_unwind)]
    pub fn finish(&self) -> Result<f64> {
        submit(&self.answers, self.pipeline.finish(), Value::Appended)
    }
}

/// Reads a range, or follows a log.
#[napi]
pub struct Reader {
    reader: facade::Reader,
    answers: Answers,
}

impl Reader {
    pub(crate) fn new(reader: facade::Reader, answers: Answers) -> Self {
        Self { reader, answers }
    }
}

#[napi]
impl Reader {
    /// The next position to deliver.
    #[napi(catch_unwind)]
    pub fn position(&self) -> Either<u64, Failure> {
        match self.reader.position() {
            Ok(position) => Either::A(position),
            Err(error) => Either::B(error.into()),
        }
    }

    /// The next entries, at most `entries_max`; an empty batch is the end.
    #[napi(catch_unwind)]
    pub fn next_batch(&self, entries_max: u32, timeout_ms: f64) -> Result<f64> {
        let timeout = match timeout(timeout_ms) {
            Timeout::After(timeout) => Some(timeout),
            Timeout::Default | Timeout::Never => None,
        };
        let batch = self.reader.next_batch(entries_max as usize, timeout);
        submit(&self.answers, batch, Value::Batch)
    }

    /// Ends it; idempotent.
    #[napi(catch_unwind)]
    pub fn close(&self) {
        self.reader.close();
    }
}

/// How to open a log; what is left out is taken from the URL, then by default.
#[napi(object)]
pub struct LogOptions {
    pub create: Option<bool>,
    pub mode: Option<String>,
    pub loglet: Option<String>,
    pub timeout_ms: f64,
    pub entry_bytes_max: Option<f64>,
    pub in_flight_bytes_max: Option<f64>,
}

/// Opens a log.
#[napi(catch_unwind)]
pub fn open(queue: &Queue, url: String, options: LogOptions) -> Result<f64> {
    let mode = match options.mode.map(|mode| mode.parse()).transpose() {
        Ok(mode) => mode,
        Err(error) => return submit(queue.answers(), Op::<()>::failed(error), |()| Value::None),
    };
    let options = Options {
        // True is the default, and leaves the word to the URL.
        create: options.create.filter(|create| !create),
        mode,
        loglet: options.loglet,
        timeout: timeout(options.timeout_ms),
        entry_bytes_max: options.entry_bytes_max.map(|bytes| bytes as usize),
        in_flight_bytes_max: options.in_flight_bytes_max.map(|bytes| bytes as usize),
    };
    submit(queue.answers(), facade::Log::open(&url, options), Value::Log)
}

/// Creates a log.
#[napi(catch_unwind)]
pub fn create(queue: &Queue, url: String, loglet: Option<String>, timeout_ms: f64) -> Result<f64> {
    let create = facade::create(&url, loglet, timeout(timeout_ms));
    submit(queue.answers(), create, |()| Value::None)
}

/// Deletes a log.
#[napi(catch_unwind)]
pub fn delete(queue: &Queue, url: String, timeout_ms: f64) -> Result<f64> {
    submit(queue.answers(), facade::delete(&url, timeout(timeout_ms)), |()| Value::None)
}

/// The names of the logs in a store.
#[napi(catch_unwind)]
pub fn logs(queue: &Queue, url: String, timeout_ms: f64) -> Result<f64> {
    submit(queue.answers(), facade::logs(&url, timeout(timeout_ms)), Value::Names)
}
