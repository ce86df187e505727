//! Opening: from a URL to a store, from a store to a log.
//!
//! A store is a MetaStore and the kinds of loglet that logs in it can have. Which they are follows
//! from the URL; a third party adds its own kinds with [`Builder::provider`].

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::StreamExt;
use tokio::runtime::Handle;
use tokio::time::Instant;
use virtuallog_protocol::chain::{Chain, Life, LogletConfig};
use virtuallog_protocol::limits::{ENTRY_BYTES_DEFAULT, ENTRY_BYTES_MAX};
use virtuallog_protocol::{LogId, LogletId, LogletPos};

use crate::cluster::Net;
use crate::directory::{self, Directory};
use crate::env;
use crate::error::{Error, ErrorCode, Result};
use crate::home::Home;
use crate::log::{Log, decode_chain, meta_error};
use crate::loglet::{CREATE_AGAIN, CREATE_PAUSE, LogletError, LogletProvider};
use crate::loglets::elsewhere::{self, Others, Reach};
use crate::loglets::{local, memory, native};
use crate::metastore::{MetaError, MetaStore};
use crate::metastores::remote::RemoteMetaStore;
use crate::metastores::{FileMetaStore, MemoryMetaStore};
use crate::storage::{ReadOnlyStorage, RealDisk};
use crate::url::{Location, LogUrl, Mode};
use crate::virtuallog::VirtualLog;

/// A call's deadline when nothing else is said.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// What a writer may have submitted and not answered, when nothing else is said, in bytes.
pub const IN_FLIGHT_BYTES_DEFAULT: usize = 32 << 20;
/// How often a log that others create and delete meanwhile is looked for again.
const OPEN_TRIES: usize = 16;
/// How many registers are looked at at once to list a store.
const LOOKS_MAX: usize = 32;

type Providers = BTreeMap<String, Arc<dyn LogletProvider>>;

/// Registers, and the kinds of loglet that go with them.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) metastore: Arc<dyn MetaStore>,
    providers: Providers,
    /// What a log is kept in when nothing else is said.
    default_loglet: &'static str,
    /// How others reach it; `Fresh` for one that nobody else can name.
    pub(crate) location: Location,
    /// The same for whoever reaches the same registers, by whatever URL.
    pub(crate) identity: String,
    /// Other stores, that chains here lead to.
    pub(crate) others: Arc<Others>,
    /// This store's share of its directory, until it is released.
    directory: Mutex<Option<Arc<Directory>>>,
}

impl Store {
    fn new(
        metastore: Arc<dyn MetaStore>,
        default_loglet: &'static str,
        provider: Arc<dyn LogletProvider>,
    ) -> Store {
        Store {
            metastore,
            providers: BTreeMap::from([(default_loglet.to_owned(), provider)]),
            default_loglet,
            location: Location::Fresh,
            identity: format!("{:032x}", env::random_u128()),
            others: Others::new(Reach::Clusters, Vec::new()),
            directory: Mutex::new(None),
        }
    }

    fn memory() -> Store {
        let provider = Arc::new(memory::MemoryProvider::new());
        Store::new(Arc::new(MemoryMetaStore::new()), memory::KIND, provider)
    }

    /// A cluster's.
    pub(crate) fn cluster(net: &Arc<Net>) -> Store {
        let native = Arc::new(native::NativeProvider::new(net.clone()));
        let mut store =
            Store::new(Arc::new(RemoteMetaStore::new(net.clone())), native::KIND, native);
        if let Some(id) = net.cluster().id {
            store.identity = format!("cluster {:032x}", u128::from(id));
        }
        store
    }

    /// Knows one more kind of loglet.
    pub(crate) fn learn(&mut self, provider: Arc<dyn LogletProvider>) {
        self.providers.insert(provider.kind().to_owned(), provider);
    }

    pub(crate) fn local(metastore: Arc<dyn MetaStore>, local: Arc<dyn LogletProvider>) -> Store {
        Store::new(metastore, local::KIND, local)
    }

    /// Reaches a store as a handle does that goes as far as `reach` says and knows `extra` kinds.
    pub(crate) async fn reach(
        location: &Location,
        reach: Reach,
        create: bool,
        extra: &[Arc<dyn LogletProvider>],
    ) -> Result<Store> {
        let mut store = Store::open(location, reach == Reach::Read, create).await?;
        store.location = absolute(location).unwrap_or(Location::Fresh);
        match &store.location {
            // Both have an identity that the URL does not show.
            Location::Cluster { .. } | Location::Fresh => {}
            location => store.identity = store_url(location),
        }
        extra.iter().for_each(|provider| store.learn(provider.clone()));
        store.others = Others::new(reach, extra.to_vec());
        Ok(store)
    }

    /// Reaches the store of a URL. The process-wide memory store is shared by all who name it.
    async fn open(location: &Location, read_only: bool, create: bool) -> Result<Store> {
        static SHARED: LazyLock<Store> = LazyLock::new(Store::memory);
        match location {
            Location::Fresh => Ok(Store::memory()),
            Location::Memory => {
                let provider = SHARED.providers[memory::KIND].clone();
                Ok(Store::new(SHARED.metastore.clone(), memory::KIND, provider))
            }
            Location::Cluster { hosts } => Ok(Store::cluster(&Net::shared(hosts.clone()).await?)),
            Location::File { dir } => {
                let dir = dir.clone();
                blocking(move || match read_only {
                    false => {
                        let directory = Directory::open(&dir, create)?;
                        let mut store = Store::local(directory.metastore(), directory.provider());
                        store.directory = Mutex::new(Some(directory));
                        Ok(store)
                    }
                    true => {
                        directory::check(&dir, false)?;
                        let disk = Arc::new(RealDisk);
                        let storage = Arc::new(ReadOnlyStorage::open(disk.clone(), &dir)?);
                        let metastore =
                            FileMetaStore::open_read_only(disk, dir.join(directory::META));
                        let provider = local::ReadOnlyProvider::new(storage);
                        Ok(Store::local(Arc::new(metastore), Arc::new(provider)))
                    }
                })
                .await
            }
        }
    }

    /// The provider of a kind.
    pub(crate) fn provider(&self, kind: &str) -> Result<Arc<dyn LogletProvider>> {
        if kind == elsewhere::KIND {
            return Ok(self.others.clone());
        }
        self.providers.get(kind).cloned().ok_or_else(|| {
            let message = format!(
                "this build knows no loglets of kind `{kind}` here: use one that does, or register \
                 its provider"
            );
            Error::new(ErrorCode::Incompatible, message)
        })
    }

    /// Deletes the loglets of a log that are not `live` and below `bound`, of every kind. What fails
    /// stays for the next time.
    pub(crate) async fn retire(&self, log: LogId, live: &[u32], bound: u32) {
        for provider in self.providers.values() {
            if let Err(error) = provider.retire(log, live, bound).await {
                tracing::warn!(%log, %error, "loglets that no chain names remain");
            }
        }
    }

    /// What a log here is kept in when its URL names no loglet.
    pub(crate) fn default_loglet(&self) -> &'static str {
        self.default_loglet
    }

    /// Understands a loglet's name as users write it: `KIND` or `KIND:ARGUMENTS`.
    pub(crate) fn plan(&self, loglet: &str) -> Result<LogletConfig> {
        let (kind, args) = loglet.split_once(':').unwrap_or((loglet, ""));
        let Some(provider) = self.providers.get(kind) else {
            let kinds: Vec<_> = self.providers.keys().map(|kind| format!("`{kind}`")).collect();
            let here = kinds.join(", ");
            let message =
                format!("no loglet is called `{loglet}` here: a log of this store can have {here}");
            return Err(Error::invalid(message));
        };
        provider.plan(args)
    }

    /// Completes a planned loglet: where it will be.
    pub(crate) async fn place(
        &self,
        planned: LogletConfig,
        after: Option<&LogletConfig>,
    ) -> Result<LogletConfig> {
        self.provider(&planned.kind)?.place(planned, after).await
    }

    /// Gives the share of the directory back, and those of other stores that chains led to. The last
    /// one closes it.
    pub(crate) async fn release(&self) -> Result<()> {
        let others = self.others.release().await;
        let own = match self.take_directory() {
            None => Ok(()),
            Some(directory) => blocking(move || directory.release()).await,
        };
        own.and(others)
    }

    fn take_directory(&self) -> Option<Arc<Directory>> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Makes a new log: its first loglet, then its chain. Of several who race one wins; `None` for
    /// the others.
    async fn create(
        &self,
        name: &str,
        loglet: Option<&str>,
        version: u64,
    ) -> Result<Option<Chain>> {
        let planned = self.plan(loglet.unwrap_or(self.default_loglet))?;
        let provider = self.provider(&planned.kind)?;
        let begun = Instant::now();
        let (log, config) = loop {
            let config = self.place(planned.clone(), None).await?;
            let log = LogId(env::random_u128());
            let id = LogletId { log, segment: 0 };
            let error = match provider.create(id, &config, LogletPos(0)).await {
                Ok(_) => break (log, config),
                Err(error) => error,
            };
            // Nobody will ever name what some may have made of it.
            if let Err(error) = provider.retire(log, &[], 1).await {
                tracing::warn!(name, %error, "an unused loglet remains");
            }
            match error {
                LogletError::Refused(error) => return Err(error),
                LogletError::Unavailable(_) if begun.elapsed() < CREATE_AGAIN => {}
                error => {
                    let message = error.to_string();
                    return Err(Error::new(ErrorCode::Unavailable, message).with_source(error));
                }
            }
            tokio::time::sleep(CREATE_PAUSE).await;
        };
        let chain = Chain::new(log, version + 1, env::random_u128(), config);
        match self.metastore.put_if(name, Some(chain.encode()), version).await {
            Ok(_) => Ok(Some(chain)),
            Err(MetaError::Conflict { .. }) => {
                // Nobody will ever name this loglet.
                if let Err(error) = provider.retire(log, &[], 1).await {
                    tracing::warn!(name, %error, "an unused loglet remains");
                }
                Ok(None)
            }
            Err(error) => Err(meta_error(error)),
        }
    }

    /// Where the log of that name lives now, and its chain; made here if it is missing and may be.
    pub(crate) async fn find(
        self: &Arc<Self>,
        name: &str,
        create: bool,
        loglet: Option<&str>,
    ) -> Result<(Arc<Home>, Chain)> {
        let home = Arc::new(Home { name: name.to_owned(), store: self.clone() });
        for _ in 0..OPEN_TRIES {
            let (found, version) = self.look(&home).await?;
            if let Some(found) = found {
                return Ok(found);
            }
            if !create {
                return Err(no_such_log(name));
            }
            if let Some(chain) = self.create(name, loglet, version).await? {
                return Ok((home, chain));
            }
        }
        let message = format!("log `{name}` is being created and deleted by others: try again");
        Err(Error::new(ErrorCode::Conflict, message))
    }
}

/// A log, where it lives.
type Found = (Arc<Home>, Chain);

impl Store {
    /// What a name leads to, and the version of its own register. A name that leads to a log that was
    /// deleted where it went is free.
    async fn look(&self, home: &Arc<Home>) -> Result<(Option<Found>, u64)> {
        let versioned = home.get().await?;
        let found = match decode_chain(&home.name, &versioned)? {
            Some(chain) => home.clone().settle(chain).await?,
            None => None,
        };
        Ok((found, versioned.version))
    }
}

impl Drop for Store {
    /// Closes the directory with its last log. On the caller's thread, so that whoever opens it next
    /// finds it free; but an answer to an append may hold the last share, and the thread that brings
    /// answers cannot wait for itself.
    fn drop(&mut self) {
        let Some(directory) = self.take_directory() else { return };
        let close = move || {
            if let Err(error) = directory.release() {
                tracing::warn!(%error, "a store was not closed cleanly: it recovers when opened");
            }
        };
        match std::thread::current().name() {
            Some(crate::storage::COMMIT_THREAD) => drop(std::thread::spawn(close)),
            _ => close(),
        }
    }
}

fn no_such_log(name: &str) -> Error {
    let message = format!("there is no log `{name}`: create it, or see which logs the store has");
    Error::new(ErrorCode::NotFound, message)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let task = env::blocking(&Handle::current(), work).await;
    task.unwrap_or_else(|error| {
        Err(Error::new(ErrorCode::Internal, "the runtime stopped meanwhile").with_source(error))
    })
}

/// What a handle keeps to.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) read_only: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) entry_bytes_max: usize,
    pub(crate) in_flight_bytes_max: usize,
    #[cfg(any(test, feature = "testing"))]
    pub(crate) planted: Option<PlantedBug>,
}

/// A mistake in the resolution of appends that a seal caught, so that tests can show that they
/// would see it.
#[cfg(any(test, feature = "testing"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// Takes every caught append for absent: those that were stored are in the log twice.
    DoubledResolution,
    /// Takes every caught append for stored: those that were not are lost.
    LostResolution,
}

/// How to open a log. What is set here goes before what the URL says.
#[derive(Debug)]
pub struct Builder {
    url: String,
    create: Option<bool>,
    read_only: bool,
    loglet: Option<String>,
    timeout: Option<Option<Duration>>,
    entry_bytes_max: Option<usize>,
    in_flight_bytes_max: Option<usize>,
    providers: Vec<Arc<dyn LogletProvider>>,
    #[cfg(any(test, feature = "testing"))]
    planted: Option<PlantedBug>,
}

impl Builder {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            create: None,
            read_only: false,
            loglet: None,
            timeout: None,
            entry_bytes_max: None,
            in_flight_bytes_max: None,
            providers: Vec::new(),
            #[cfg(any(test, feature = "testing"))]
            planted: None,
        }
    }

    /// Makes a mistake on purpose.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn planted(mut self, bug: PlantedBug) -> Self {
        self.planted = Some(bug);
        self
    }

    /// Whether a missing log is created (it is, unless this says no).
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = Some(create);
        self
    }

    /// Opens without a lock and without any write, beside an owner in another process. Sees what
    /// the owner published as durable, and follows it.
    #[must_use]
    pub fn read_only(mut self) -> Self {
        self.read_only = true;
        self
    }

    /// What the first segment of a log that is created is kept in: `local`, `memory`, …
    #[must_use]
    pub fn loglet(mut self, loglet: &str) -> Self {
        self.loglet = Some(loglet.to_owned());
        self
    }

    /// A call's deadline (10 s unless set); `None`: none.
    #[must_use]
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The limit on one entry, in bytes: 1 MiB unless set, 16 MiB at most.
    #[must_use]
    pub fn entry_bytes_max(mut self, bytes: usize) -> Self {
        self.entry_bytes_max = Some(bytes);
        self
    }

    /// The window: what may be submitted and not answered, in bytes (payload, and 64 for each
    /// entry): 32 MiB unless set.
    #[must_use]
    pub fn in_flight_bytes_max(mut self, bytes: usize) -> Self {
        self.in_flight_bytes_max = Some(bytes);
        self
    }

    /// Adds a third party's kind of loglet, for this handle. One of the same kind is replaced.
    #[must_use]
    pub fn provider(mut self, provider: Arc<dyn LogletProvider>) -> Self {
        self.providers.push(provider);
        self
    }

    /// Opens the log. Needs a tokio runtime, which has to live as long as the log is open.
    ///
    /// # Errors
    /// As [`VirtualLog::open`].
    pub async fn open(self) -> Result<VirtualLog> {
        let url = LogUrl::parse(&self.url)?;
        url.log_name()?;
        let options = self.options(&url)?;
        let create = self.may_create(&url, &options);
        let store = self.store(&url, options.read_only, create).await?;
        self.open_in(store).await
    }

    /// Opens the log in a store that was reached already.
    pub(crate) async fn open_in(self, store: Arc<Store>) -> Result<VirtualLog> {
        let url = LogUrl::parse(&self.url)?;
        let name = url.log_name()?.to_owned();
        let options = self.options(&url)?;
        let (create, read_only) = (self.may_create(&url, &options), options.read_only);
        let loglet = self.loglet.or(url.params.loglet);
        let (home, chain) = store.find(&name, create, loglet.as_deref()).await?;
        let log = Log::new(name, home, options, chain).await?;
        let view = log.view();
        if view.chain.next.is_some() && !read_only {
            // Somebody died half way. Whoever is at it now and we can both finish it.
            log.complete(view).await?;
        }
        Ok(VirtualLog::from_log(log))
    }

    fn may_create(&self, url: &LogUrl, options: &Options) -> bool {
        self.create.or(url.params.create).unwrap_or(true) && !options.read_only
    }

    fn options(&self, url: &LogUrl) -> Result<Options> {
        let options = Options {
            read_only: self.read_only || url.params.mode == Some(Mode::Read),
            timeout: self.timeout.or(url.params.timeout).unwrap_or(Some(TIMEOUT_DEFAULT)),
            entry_bytes_max: self
                .entry_bytes_max
                .or(url.params.entry_bytes_max)
                .unwrap_or(ENTRY_BYTES_DEFAULT),
            in_flight_bytes_max: self
                .in_flight_bytes_max
                .or(url.params.in_flight_bytes_max)
                .unwrap_or(IN_FLIGHT_BYTES_DEFAULT),
            #[cfg(any(test, feature = "testing"))]
            planted: self.planted,
        };
        options.check()?;
        Ok(options)
    }

    /// Creates the log and nothing else.
    ///
    /// # Errors
    /// `CONFLICT` if there is one of that name; otherwise as [`VirtualLog::open`].
    pub async fn create_new(self) -> Result<()> {
        let url = LogUrl::parse(&self.url)?;
        let name = url.log_name()?;
        let store = self.store(&url, false, true).await?;
        let loglet = self.loglet.as_deref().or(url.params.loglet.as_deref());
        let made = store.create_new(name, loglet).await;
        let released = store.release().await;
        made.and(released)
    }

    /// Deletes the log with all its entries. Handles that have it open fail from then on. A log that
    /// is created again under the name is another log.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is none; otherwise as [`VirtualLog::open`].
    pub async fn delete(self) -> Result<()> {
        let url = LogUrl::parse(&self.url)?;
        let name = url.log_name()?;
        let store = self.store(&url, false, false).await?;
        let deleted = store.delete(name).await;
        let released = store.release().await;
        deleted.and(released)
    }

    async fn store(&self, url: &LogUrl, read_only: bool, create: bool) -> Result<Arc<Store>> {
        let reach = if read_only { Reach::Read } else { Reach::Write };
        Store::reach(&url.location, reach, create, &self.providers).await.map(Arc::new)
    }
}

impl Options {
    /// Of a node that mends a log.
    pub(crate) fn internal() -> Options {
        Options {
            read_only: false,
            timeout: None,
            entry_bytes_max: ENTRY_BYTES_MAX,
            in_flight_bytes_max: IN_FLIGHT_BYTES_DEFAULT,
            #[cfg(any(test, feature = "testing"))]
            planted: None,
        }
    }

    fn check(&self) -> Result<()> {
        let bytes = self.entry_bytes_max;
        if bytes > ENTRY_BYTES_MAX {
            let message = format!("`entry_bytes_max` is {bytes}: at most {ENTRY_BYTES_MAX}");
            return Err(Error::invalid(message));
        }
        if self.in_flight_bytes_max == 0 {
            return Err(Error::invalid("`in_flight_bytes_max` is 0: at least 1"));
        }
        Ok(())
    }
}

/// Creates the log that `url` names, in `loglet` or what the store's logs are in by default.
///
/// # Errors
/// As [`Builder::create_new`].
pub async fn create(url: &str, loglet: Option<&str>) -> Result<()> {
    let builder = Builder::new(url);
    match loglet {
        Some(loglet) => builder.loglet(loglet).create_new().await,
        None => builder.create_new().await,
    }
}

/// Deletes the log that `url` names, with all its entries.
///
/// # Errors
/// As [`Builder::delete`].
pub async fn delete(url: &str) -> Result<()> {
    Builder::new(url).delete().await
}

impl Store {
    async fn create_new(self: &Arc<Self>, name: &str, loglet: Option<&str>) -> Result<()> {
        let home = Arc::new(Home { name: name.to_owned(), store: self.clone() });
        let (found, version) = self.look(&home).await?;
        let message = match found {
            Some((there, _)) if !there.is(&home) => format!(
                "log `{name}` lives at `{}` now, and this name leads there: open it, or choose \
                 another name",
                there.url()
            ),
            None if self.create(name, loglet, version).await?.is_some() => return Ok(()),
            _ => format!("there is a log `{name}` already: open it, or delete it first"),
        };
        Err(Error::new(ErrorCode::Conflict, message))
    }

    async fn delete(self: &Arc<Self>, name: &str) -> Result<()> {
        let home = Arc::new(Home { name: name.to_owned(), store: self.clone() });
        loop {
            let versioned = home.get().await?;
            if versioned.value.is_none() {
                return Err(no_such_log(name));
            }
            // A chain that cannot be read can still be deleted; its loglets then remain.
            let chain = decode_chain(name, &versioned).ok().flatten();
            if let Some(chain @ Chain { life: Life::Moved { .. }, .. }) = chain.clone() {
                match home.clone().settle(chain).await? {
                    Some((there, _)) if there.is(&home) => continue,
                    Some((there, _)) => {
                        let there = there.url();
                        let message = format!("log `{name}` lives at `{there}`: delete it there");
                        return Err(Error::new(ErrorCode::Conflict, message));
                    }
                    // Deleted where it went: the name leads nowhere.
                    None => {}
                }
            }
            match self.metastore.put_if(name, None, versioned.version).await {
                Ok(_) => {
                    if let Some(chain) = chain {
                        self.retire_all(&chain).await;
                    }
                    return Ok(());
                }
                Err(MetaError::Conflict { .. }) => {}
                Err(error) => return Err(meta_error(error)),
            }
        }
    }

    /// Deletes every loglet of a log that is gone.
    async fn retire_all(&self, chain: &Chain) {
        self.retire(chain.log, &[], u32::MAX).await;
        for store in self.others.named(chain).await {
            store.retire(chain.log, &[], u32::MAX).await;
        }
    }

    /// Whether a name is that of a log that lives here, and leads to no other store.
    async fn is_home(&self, name: &str) -> Result<bool> {
        let versioned = self.metastore.get(name).await.map_err(meta_error)?;
        // One that cannot be read is there all the same.
        let chain = decode_chain(name, &versioned).unwrap_or_default();
        Ok(!chain.is_some_and(|chain| matches!(chain.life, Life::Moved { .. })))
    }
}

/// The names of the logs in the store that `url` names (it ends in `/`), sorted. Never creates.
///
/// # Errors
/// `INVALID` when the URL names a log; `NOT_FOUND` when there is no store.
pub async fn logs(url: &str) -> Result<Vec<String>> {
    let url = LogUrl::parse(url)?;
    url.store_only()?;
    let store = Store::reach(&url.location, Reach::Read, false, &[]).await?;
    let names = store.metastore.list().await.map_err(meta_error)?;
    let looks = futures_util::stream::iter(names).map(|name| async {
        let home = store.is_home(&name).await?;
        Ok(Some(name).filter(|_| home))
    });
    let logs: Vec<Result<Option<String>>> = looks.buffered(LOOKS_MAX).collect().await;
    logs.into_iter().filter_map(Result::transpose).collect()
}

/// A location that means the same from everywhere in this machine.
///
/// # Errors
/// `INVALID` for a path that no URL can name.
pub(crate) fn absolute(location: &Location) -> Result<Location> {
    let Location::File { dir } = location else { return Ok(location.clone()) };
    let location = Location::File { dir: directory::canonical(dir) };
    let url = store_url(&location);
    match LogUrl::parse(&url) {
        Ok(parsed) if parsed.location == location => Ok(location),
        _ => Err(Error::invalid(format!("no URL can name `{}`: use another path", dir.display()))),
    }
}

/// The URL of a store.
pub(crate) fn store_url(location: &Location) -> String {
    let (location, params) = (location.clone(), Default::default());
    LogUrl { location, name: None, params }.to_string()
}
