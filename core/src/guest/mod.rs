//! A directory that another process owns, used through its owner's socket (`owner.rs`).
//!
//! Somebody has to own the directory, and whoever uses it can: when the owner goes, this process
//! takes the lock if it is free, or finds whoever took it. Each such *way* to the directory has a
//! number; a way that is lost is never used again. What was asked over it and not answered is asked
//! again over the next way where that is harmless; appends are looked for first (`appends.rs`). A
//! process that became the owner asks itself with the same words.
//!
//! Read in this order: this file (ways), `loglet.rs`, `appends.rs`, `registers.rs`.

mod appends;
mod loglet;
mod registers;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::appends::Appends;
pub(crate) use self::loglet::GuestProvider;
pub(crate) use self::registers::GuestMetaStore;
use crate::cluster::{ANSWER_TIMEOUT, Net, limited, unexpected};
use crate::directory::Owned;
use crate::env;
use crate::error::{Error, ErrorCode, Result};
use crate::owner::{Address, SOCKET, WATCH_HOLD};
use crate::wire::messages::{Bits, Life, Member, MetaWatch, Ping, Reply, Request};
use crate::wire::serve::Handler;
use crate::wire::tcp::TcpTransport;
use crate::wire::transport::{Lane, Link, NetError, Target, Transport, ask};

/// How long a call waits for a way before it says why there is none.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks for a way: it doubles from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));
/// How often a call begins anew on another way.
const TRIES: u32 = 16;

/// One way to the directory, from finding it to losing it.
pub(crate) struct Way {
    number: u64,
    /// The life of the owner that it leads to.
    owner: Bits,
    control: Arc<dyn Link>,
    append: Arc<dyn Link>,
    read: Arc<dyn Link>,
    /// What the links lead through.
    _through: Box<dyn Send + Sync>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Way({})", self.number)
    }
}

impl Way {
    fn link(&self, lane: Lane) -> &dyn Link {
        match lane {
            Lane::Control => &*self.control,
            Lane::Append => &*self.append,
            Lane::Read => &*self.read,
        }
    }

    async fn ask(&self, lane: Lane, request: Request) -> Result<(Reply, Bytes), NetError> {
        match ask(self.link(lane), request, Bytes::new()).await? {
            (Reply::Failure(failure), _) if failure.error().code() == ErrorCode::Closed => {
                Err(NetError::NotSent(failure.error()))
            }
            answer => Ok(answer),
        }
    }
}

/// Whether there is a way.
#[derive(Clone, Debug)]
enum Ways {
    Here(Arc<Way>),
    /// It is looked for; why the last look found none.
    Looking(Error),
    Closed,
}

/// This process's use of a directory that was another's when it was opened.
pub(crate) struct Guest {
    weak: Weak<Guest>,
    path: PathBuf,
    /// This process, as owners know it.
    id: u128,
    pid: u32,
    runtime: Handle,
    ways: watch::Sender<Ways>,
    state: Mutex<State>,
    /// Held while the directory is taken or let go of.
    taking: Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Of the last way that was tried.
    number: u64,
    /// Once the directory is ours.
    owned: Option<Owned>,
    closed: bool,
    /// Who has something under way.
    appends: Vec<Weak<Appends>>,
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guest({})", self.path.display())
    }
}

impl Guest {
    /// Reaches the owner of a directory. Its tasks run on the runtime that this is called in.
    ///
    /// # Errors
    /// `UNAVAILABLE` when no owner serves it; `INCOMPATIBLE`.
    pub(crate) async fn connect(path: &Path) -> Result<Arc<Guest>> {
        let guest = Arc::new_cyclic(|weak| Guest {
            weak: weak.clone(),
            path: path.to_owned(),
            id: env::random_u128(),
            pid: std::process::id(),
            runtime: Handle::current(),
            ways: watch::Sender::new(Ways::Looking(closed())),
            state: Mutex::default(),
            taking: Mutex::default(),
        });
        let way = guest.reach().await?;
        guest.go(way);
        Ok(guest)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_number(&self) -> u64 {
        let mut state = self.state();
        state.number += 1;
        state.number
    }

    /// A child of a fork shares its parent's connections and must not write to them.
    fn check_process(&self) -> Result<()> {
        match std::process::id() == self.pid {
            true => Ok(()),
            false => {
                let message = "the store was opened before a fork, by another process: open \
                               another";
                Err(Error::new(ErrorCode::Closed, message))
            }
        }
    }

    /// The way to whoever owns the directory now.
    async fn reach(&self) -> Result<Way> {
        let number = self.next_number();
        let address = Address::of(&self.path, SOCKET).map_err(|error| {
            Error::new(ErrorCode::Unavailable, "the owner's socket cannot be named")
                .with_source(error)
        })?;
        let member = Member { node: 0, storage: self.id.into() };
        let me = Life { member, process: self.id.into(), generation: number };
        let target = |member| Target { address: address.path.clone(), member, cluster: None };
        // Whoever answers; the links then lead to that one only.
        let asking = TcpTransport::new(Arc::new(|| None));
        let link = asking.link(&target(None), Lane::Control);
        let ping = Request::Ping(Ping { life: me, seen: Vec::new() });
        let answer = limited(ask(&*link, ping, Bytes::new())).await;
        let owner = match answer.map_err(|error| error.error().clone())?.0 {
            Reply::Pong(pong) => pong.life.member,
            Reply::Failure(failure) => return Err(failure.error()),
            _ => return Err(unexpected()),
        };
        let through = TcpTransport::new(Arc::new(move || Some(me)));
        let link = |lane| through.link(&target(Some(owner.into())), lane);
        let (control, append, read) = (link(Lane::Control), link(Lane::Append), link(Lane::Read));
        let through = Box::new((through, address));
        Ok(Way { number, owner: owner.storage, control, append, read, _through: through })
    }

    /// Uses this way from now on, and watches that its owner is there.
    fn go(&self, way: Way) {
        let way = Arc::new(way);
        self.use_way(way.clone());
        let guest = self.weak.clone();
        self.runtime.spawn(async move {
            loop {
                // A question that is answered late: a connection that ends answers it at once, and
                // an owner that hangs does not.
                let watch = MetaWatch { name: String::new(), after: u64::MAX };
                let answer = way.ask(Lane::Control, Request::MetaWatch(watch));
                let answer = tokio::time::timeout(WATCH_HOLD + ANSWER_TIMEOUT, answer).await;
                let Some(guest) = guest.upgrade() else { return };
                if !matches!(answer, Ok(Ok((Reply::Register(_), _)))) {
                    return guest.lose(way.number);
                }
            }
        });
    }

    /// The way with this number leads nowhere any more: another one is looked for.
    fn lose(&self, number: u64) {
        let lost = self.ways.send_if_modified(|ways| match ways {
            Ways::Here(way) if way.number == number => {
                *ways = Ways::Looking(gone());
                true
            }
            _ => false,
        });
        if lost {
            let guest = self.weak.clone();
            self.runtime.spawn(find(guest));
        }
        let appends = self.state().appends.clone();
        for appends in appends.iter().filter_map(Weak::upgrade) {
            appends.lose(number);
        }
    }

    /// Tells these appends of each way that is lost.
    fn enlist(&self, appends: Weak<Appends>) {
        let mut state = self.state();
        state.appends.retain(|appends| appends.strong_count() > 0);
        state.appends.push(appends);
    }

    /// True when there is a way, or none is needed any more.
    async fn look(self: &Arc<Self>) -> bool {
        let guest = self.clone();
        let why = match self.runtime.spawn_blocking(move || guest.take()).await {
            Err(_) | Ok(Ok(())) => return true,
            Ok(Err(error)) => error,
        };
        if why.code() == ErrorCode::Locked
            && let Ok(way) = self.reach().await
        {
            self.go(way);
            return true;
        }
        self.ways.send_if_modified(|ways| match ways {
            Ways::Looking(last) => {
                *last = why;
                true
            }
            _ => false,
        });
        false
    }

    /// Makes the directory ours if it is free, and asks itself from then on. Blocks.
    fn take(&self) -> Result<()> {
        let _one = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state().closed {
            return Ok(());
        }
        let owned = Owned::open(&self.path, false)?;
        let (number, member) = (self.next_number(), owned.owner.member());
        let handler: Arc<dyn Handler> = owned.owner.clone();
        let net = Net::new(Arc::new(TcpTransport::new(Arc::new(|| None))), Vec::new());
        net.set_local(member.into(), &handler);
        let link = |lane| net.link(member.into(), lane).expect("it was made the local one");
        let way = Way {
            number,
            owner: member.storage,
            control: link(Lane::Control),
            append: link(Lane::Append),
            read: link(Lane::Read),
            _through: Box::new((net, handler)),
        };
        self.state().owned = Some(owned);
        self.use_way(Arc::new(way));
        Ok(())
    }

    fn use_way(&self, way: Arc<Way>) {
        self.ways.send_if_modified(|ways| match ways {
            Ways::Closed => false,
            _ => {
                *ways = Ways::Here(way);
                true
            }
        });
    }

    fn is_in_use(&self, number: u64) -> bool {
        matches!(&*self.ways.borrow(), Ways::Here(way) if way.number == number)
    }

    /// The first way after the one with this number; `patience`: how long to look for it.
    async fn way(&self, after: u64, patience: Option<Duration>) -> Result<Arc<Way>> {
        self.check_process()?;
        let mut ways = self.ways.subscribe();
        let found = ways.wait_for(|ways| match ways {
            Ways::Here(way) => way.number > after,
            Ways::Looking(_) => false,
            Ways::Closed => true,
        });
        let found = match patience {
            Some(patience) => tokio::time::timeout(patience, found).await,
            None => Ok(found.await),
        };
        let found = found.map(|found| found.map(|ways| ways.clone()));
        match found {
            Ok(Ok(Ways::Here(way))) => Ok(way),
            Ok(_) => Err(closed()),
            Err(_) => Err(match &*self.ways.borrow() {
                Ways::Looking(why) => why.clone(),
                _ => closed(),
            }),
        }
    }

    /// Asks over one way, for as long as it is in use.
    async fn ask_over(
        &self,
        way: &Way,
        lane: Lane,
        request: Request,
    ) -> Result<(Reply, Bytes), NetError> {
        let mut ways = self.ways.subscribe();
        let lost = ways.wait_for(|ways| match ways {
            Ways::Here(here) => here.number != way.number,
            _ => true,
        });
        tokio::select! {
            biased;
            answer = way.ask(lane, request) => answer,
            _ = lost => Err(NetError::Lost(gone())),
        }
    }

    /// Asks what may be asked twice; the last value is whether it may have been.
    ///
    /// # Errors
    /// Why there is no way, or too much waits; lost, if it may have been done.
    async fn ask(&self, lane: Lane, request: Request) -> Result<(Reply, Bytes, bool), NetError> {
        let mut lost = false;
        let mut why = closed();
        let told = |lost, error| match lost {
            true => NetError::Lost(error),
            false => NetError::NotSent(error),
        };
        for _ in 0..TRIES {
            let way = self.way(0, Some(PATIENCE)).await.map_err(|error| told(lost, error))?;
            match self.ask_over(&way, lane, request.clone()).await {
                Ok((reply, body)) => return Ok((reply, body, lost)),
                Err(NetError::NotSent(error)) if error.code() == ErrorCode::Busy => {
                    return Err(told(lost, error));
                }
                Err(error) => {
                    lost |= matches!(error, NetError::Lost(_));
                    why = error.error().clone();
                    self.lose(way.number);
                }
            }
        }
        Err(told(lost, why))
    }

    /// Ends its use of the directory, and lets go of it if it became ours. Blocks.
    pub(crate) fn close(&self) -> Result<()> {
        self.state().closed = true;
        let _nobody_takes_it_meanwhile = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let owned = self.state().owned.take();
        let closed = owned.map_or(Ok(()), Owned::close);
        self.ways.send_replace(Ways::Closed);
        closed
    }
}

/// Looks for a way until there is one.
async fn find(guest: Weak<Guest>) {
    let mut pause = PAUSE.0;
    while let Some(guest) = guest.upgrade() {
        if guest.look().await {
            return;
        }
        drop(guest);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

fn gone() -> Error {
    Error::new(ErrorCode::Unavailable, "the owner of the store is gone")
}

fn closed() -> Error {
    Error::new(ErrorCode::Closed, "the store was closed: open it again")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
