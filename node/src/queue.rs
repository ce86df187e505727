//! An event loop's completion queue: one call into the loop for each batch of answers.

use std::sync::Arc;

use napi::bindgen_prelude::{Array, Function};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{Env, Result, Status};
use napi_derive::napi;
use virtuallog_bindings::{CompletionQueue, Error, HostWaker, Op};

use crate::value::{Failure, Value};

/// The answers to come, shared by every handle of a thread.
pub(crate) type Answers = Arc<CompletionQueue<Value>>;

/// Operations of one event loop. There is one for each thread that JavaScript runs on.
#[napi]
pub struct Queue(Answers);

/// Weak: it is for the package to say when the process has something to wait for.
pub(crate) struct LoopWaker(ThreadsafeFunction<(), (), (), Status, false, true>);

impl LoopWaker {
    /// Calls `wake` on the loop that it is of.
    pub(crate) fn new(wake: &Function<'_, (), ()>) -> Result<Self> {
        wake.build_threadsafe_function::<()>().weak::<true>().build().map(Self)
    }
}

impl HostWaker for LoopWaker {
    fn wake(&self) {
        // It fails only where the loop has ended.
        self.0.call((), ThreadsafeFunctionCallMode::NonBlocking);
    }
}

#[napi]
impl Queue {
    /// `wake` is called on the loop when there is something to drain.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: Env, wake: Function<'_, (), ()>) -> Result<Self> {
        let answers = Arc::new(CompletionQueue::new(LoopWaker::new(&wake)?));
        // The loop's thread ends: whatever is under way has nobody to tell.
        env.add_env_cleanup_hook(answers.clone(), |answers| answers.close())?;
        Ok(Self(answers))
    }

    /// At most `max` answers: whether there are more, for which there will be no further wake-up, and then
    /// for each answer two elements: its tag and the result, or `-1 - tag` and the failure.
    #[napi(catch_unwind)]
    pub fn drain<'env>(&self, env: &'env Env, max: u32) -> Result<Array<'env>> {
        let done = match self.0.drain(max as usize) {
            Ok(done) => done,
            // Only in a child of `fork`, which no JavaScript runs in.
            Err(error) => return Err(napi::Error::from_reason(error.to_string())),
        };
        let mut answers = env.create_array(1 + 2 * len(done.outcomes.len()))?;
        answers.set(0, done.more)?;
        let mut at = 1;
        for (tag, outcome) in done.outcomes {
            match outcome {
                Ok(value) => {
                    answers.set(at, number(tag))?;
                    value.put(env, &self.0, &mut answers, at + 1)?;
                }
                Err(error) => {
                    answers.set(at, -1.0 - number(tag))?;
                    answers.set(at + 1, Failure::from(error))?;
                }
            }
            at += 2;
        }
        Ok(answers)
    }

    /// Drops an operation whose outcome nobody wants. An append stays submitted.
    #[napi(catch_unwind)]
    pub fn cancel(&self, tag: f64) {
        self.0.cancel(tag as u64);
    }

    pub(crate) fn answers(&self) -> &Answers {
        &self.0
    }
}

/// Takes an operation in; gives its tag.
pub(crate) fn submit<T: Send + 'static>(
    answers: &Answers,
    op: Op<T>,
    convert: impl FnOnce(T) -> Value + Send + 'static,
) -> Result<f64> {
    let closed = |error: Error| napi::Error::from_reason(error.to_string());
    answers.submit(op.map(convert)).map(number).map_err(closed)
}

/// Tags count from 0: a double holds the first 2^53.
fn number(tag: u64) -> f64 {
    tag as f64
}

fn len(count: usize) -> u32 {
    u32::try_from(count).expect("a drain has a bound")
}
