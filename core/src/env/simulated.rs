//! The world of a thread on which the simulator runs: one clock, one source of chance, and processes
//! that are no more than a mark on their tasks.
//!
//! A simulated process is the set of tasks that were spawned within it. Every poll of one of them, and
//! every message that is brought to it, happens [within](Process::enter) the process, so what is
//! spawned there belongs to it too. A paused process is polled no more until it goes on; a killed
//! one's tasks are dropped as they stand. The runtime is tokio's own, on one thread, its clock paused.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::Either;

/// Where the simulator's thread gets its time and its chance from.
pub(crate) struct World {
    /// Microseconds since 1970.
    pub(crate) now: Box<dyn Fn() -> i64>,
    /// 64 random bits.
    pub(crate) random: Box<dyn FnMut() -> u64>,
    /// How long the next work on a disk takes.
    pub(crate) disk_pause: Box<dyn FnMut() -> Duration>,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
    static HERE: RefCell<Option<Arc<Process>>> = const { RefCell::new(None) };
}

/// Makes `world` the one of this thread until the answer is dropped.
pub(crate) fn install(world: World) -> Installed {
    let before = WORLD.with(|slot| slot.borrow_mut().replace(world));
    assert!(before.is_none(), "one simulation at a time on a thread");
    Installed(())
}

/// A world that is in force.
pub(crate) struct Installed(());

impl Drop for Installed {
    fn drop(&mut self) {
        WORLD.with(|slot| slot.borrow_mut().take());
    }
}

pub(super) fn now_micros() -> Option<i64> {
    WORLD.with(|world| world.borrow().as_ref().map(|world| (world.now)()))
}

pub(super) fn random_u128() -> Option<u128> {
    WORLD.with(|world| {
        let mut world = world.borrow_mut();
        let random = &mut world.as_mut()?.random;
        Some(u128::from(random()) << 64 | u128::from(random()))
    })
}

pub(super) fn disk_pause() -> Option<Duration> {
    WORLD.with(|world| world.borrow_mut().as_mut().map(|world| (world.disk_pause)()))
}

/// The process that runs now, if there is a simulation.
pub(crate) fn here() -> Option<Arc<Process>> {
    HERE.with(|here| here.borrow().clone())
}

const RUNS: u8 = 0;
const PAUSED: u8 = 1;
const GONE: u8 = 2;

/// One life of a simulated process.
pub(crate) struct Process {
    number: u32,
    state: AtomicU8,
    rising: AtomicU64,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    next: u64,
    /// In the order of their beginning, so that they go on in an order that a seed repeats.
    wakers: BTreeMap<u64, Waker>,
}

impl Process {
    /// A process that runs; `number` is no other's.
    pub(crate) fn new(number: u32) -> Arc<Process> {
        let (state, rising) = (AtomicU8::new(RUNS), AtomicU64::new(1));
        Arc::new(Process { number, state, rising, tasks: Mutex::default() })
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(super) fn rising(&self) -> u64 {
        self.rising.fetch_add(1, Ordering::Relaxed)
    }

    /// How many of its tasks have not ended.
    pub(crate) fn tasks_alive(&self) -> usize {
        self.tasks().wakers.len()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.state.load(Ordering::Relaxed) == GONE
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.state.load(Ordering::Relaxed) == PAUSED
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` as a part of this process.
    pub(crate) fn enter<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        let before = HERE.with(|here| here.borrow_mut().replace(self.clone()));
        let _back = Back(before);
        work()
    }

    /// Nothing of it runs until [`go_on`](Self::go_on).
    pub(crate) fn pause(&self) {
        let _ = self.state.compare_exchange(RUNS, PAUSED, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(crate) fn go_on(&self) {
        let was = self.state.compare_exchange(PAUSED, RUNS, Ordering::Relaxed, Ordering::Relaxed);
        if was.is_ok() {
            self.wake();
        }
    }

    /// Ends it as it stands.
    pub(crate) fn kill(&self) {
        self.state.store(GONE, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        let wakers: Vec<Waker> = self.tasks().wakers.values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Goes back to the process that was there before, also when the work panics.
struct Back(Option<Arc<Process>>);

impl Drop for Back {
    fn drop(&mut self) {
        HERE.with(|here| *here.borrow_mut() = self.0.take());
    }
}

/// A future as a part of the process that runs now.
pub(crate) fn task<F: Future>(work: F) -> Either<F, Task<F>> {
    match here() {
        None => Either::Left(work),
        Some(process) => Either::Right(Task::of(process, work)),
    }
}

/// A task of a process. Once the process is gone it never ends.
pub(crate) struct Task<F> {
    process: Arc<Process>,
    number: Option<u64>,
    work: Option<Pin<Box<F>>>,
}

impl<F: Future> Task<F> {
    pub(crate) fn of(process: Arc<Process>, work: F) -> Task<F> {
        Task { process, number: None, work: Some(Box::pin(work)) }
    }
}

impl<F: Future> Future for Task<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let process = this.process.clone();
        if process.is_gone() {
            process.enter(|| this.work = None);
            return Poll::Pending;
        }
        if this.number.is_none() {
            let mut tasks = process.tasks();
            let number = tasks.next;
            tasks.next += 1;
            tasks.wakers.insert(number, context.waker().clone());
            this.number = Some(number);
        }
        match &mut this.work {
            Some(work) if !process.is_paused() => process.enter(|| work.as_mut().poll(context)),
            _ => Poll::Pending,
        }
    }
}

impl<F> Drop for Task<F> {
    fn drop(&mut self) {
        let process = self.process.clone();
        process.enter(|| self.work = None);
        if let Some(number) = self.number {
            process.tasks().wakers.remove(&number);
        }
    }
}
