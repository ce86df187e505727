//! The one parser of URLs: a URL names a log, or the store that holds logs.
//!
//! ```text
//! memory:NAME            a log in this process's one memory store, gone with the process
//! memory:                a fresh log that nothing else can name, for tests
//! file:DIR/NAME          a log in a directory, relative to the directory at open
//! file:///ABS/DIR/NAME   the same, absolute
//! virtuallog://HOST[:PORT][,HOST[:PORT]…]/NAME   a log of a cluster, reached by any of its nodes
//! memory:/  file:DIR/  virtuallog://HOST/        a `/` at the end and no name: the store
//! ```
//!
//! Ours, because general URL parsers break relative paths and lists of hosts. What stands in a path
//! is taken as it is: a per cent sign is a per cent sign. Only `?` is special: the first one starts
//! the parameters, `?timeout=5s&mode=read`. Nothing here touches a disk or knows a default.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use virtuallog_protocol::limits::NAME_CHARS_MAX;

use crate::error::{Error, ErrorCode};

/// The name of the log of a bare `memory:`.
const FRESH_NAME: &str = "log";

/// Schemes of the design that this build does not serve.
const LATER_SCHEMES: [&str; 2] = ["zookeeper", "etcd"];

const HAVE: &str = "`memory:NAME`, `file:DIR/NAME` and `virtuallog://HOST:PORT/NAME`";

/// The port of a node when a URL gives none.
pub const PORT_DEFAULT: u16 = 7400;
/// Most nodes that a URL names.
pub const HOSTS_MAX: usize = 64;
/// The register in which a cluster keeps itself: no log can have its name.
pub(crate) const RESERVED_NAME: &str = "_cluster";

const PARAMETERS: &str =
    "`timeout`, `mode`, `create`, `entry_bytes_max`, `in_flight_bytes_max` and `loglet`";

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// The one memory store of this process.
    Memory,
    /// A memory store of its own, which no other URL reaches.
    Fresh,
    /// A directory. A relative path is kept so; whoever opens it resolves it once.
    File {
        /// The directory, without a `/` at its end.
        dir: PathBuf,
    },
    /// A cluster of servers.
    Cluster {
        /// Some of its nodes, each `HOST:PORT`; never empty.
        hosts: Vec<String>,
    },
}

/// Whether a log is opened to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No lock, no write; beside an owner in another process.
    Read,
    /// As the owner.
    Write,
}

/// What stands after the `?`. `None`: not given, so that whoever asks applies its own default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params {
    /// The default deadline of a call; `Some(None)`: none.
    pub timeout: Option<Option<Duration>>,
    /// Reader or owner.
    pub mode: Option<Mode>,
    /// Whether `open` creates a missing log.
    pub create: Option<bool>,
    /// The limit on one entry, in bytes.
    pub entry_bytes_max: Option<usize>,
    /// The limit on what is submitted and not answered, in bytes.
    pub in_flight_bytes_max: Option<usize>,
    /// What the first segment of a log that is created is kept in.
    pub loglet: Option<String>,
}

/// A URL, taken apart. `Display` writes one that parses to the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogUrl {
    /// Where the store is.
    pub location: Location,
    /// The log's name; `None`: the URL names the store.
    pub name: Option<String>,
    /// The parameters.
    pub params: Params,
}

impl LogUrl {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// `INVALID`, with what to write instead; `INCOMPATIBLE` for a scheme that this build does not
    /// serve.
    pub fn parse(url: &str) -> Result<LogUrl, Error> {
        let (place, query) = match url.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (url, None),
        };
        let Some((scheme, rest)) = place.split_once(':').filter(|(scheme, _)| is_scheme(scheme))
        else {
            return Err(no_scheme(url));
        };
        let (location, name) = match scheme {
            "memory" => parse_memory(rest)?,
            "file" => parse_file(rest)?,
            "virtuallog" => parse_cluster(rest)?,
            _ => return Err(unknown_scheme(scheme, rest)),
        };
        if let Some(name) = &name {
            check_name(name)?;
        }
        let params = query.map(parse_params).transpose()?.unwrap_or_default();
        Ok(LogUrl { location, name, params })
    }

    /// The name, where only a log will do.
    ///
    /// # Errors
    /// `INVALID` when the URL names a store.
    pub fn log_name(&self) -> Result<&str, Error> {
        self.name.as_deref().ok_or_else(|| {
            Error::invalid(format!("`{self}` names a store: add the log's name after the `/`"))
        })
    }

    /// Passes only where the URL names a store.
    ///
    /// # Errors
    /// `INVALID` when it names a log.
    pub fn store_only(&self) -> Result<(), Error> {
        match &self.name {
            None => Ok(()),
            Some(name) => {
                let store = LogUrl { name: None, params: Params::default(), ..self.clone() };
                let store = store.to_string();
                Err(Error::invalid(format!(
                    "`{self}` names the log `{name}`, not a store: write `{store}`"
                )))
            }
        }
    }
}

/// Whether `name` can be a log's name.
///
/// # Errors
/// `INVALID`, saying what a name is.
pub fn check_name(name: &str) -> Result<(), Error> {
    let fits = (1..=NAME_CHARS_MAX).contains(&name.len());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name == RESERVED_NAME {
        let message = format!("`{RESERVED_NAME}` is where a cluster keeps itself: choose another");
        return Err(Error::invalid(message));
    }
    if fits && name.bytes().all(plain) && name != "." && name != ".." {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{}` is not a log's name: 1 to {NAME_CHARS_MAX} of the characters A-Z a-z 0-9 . _ -, \
         and neither `.` nor `..`",
        excerpt(name)
    )))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn parse_memory(rest: &str) -> Result<(Location, Option<String>), Error> {
    match rest {
        "" => Ok((Location::Fresh, Some(FRESH_NAME.into()))),
        "/" => Ok((Location::Memory, None)),
        _ if rest.contains('/') => {
            let name = rest.trim_matches('/').rsplit('/').next().unwrap_or_default();
            Err(Error::invalid(format!(
                "a memory log has a name and no directory: write `memory:{}`",
                if check_name(name).is_ok() { name } else { "NAME" }
            )))
        }
        name => Ok((Location::Memory, Some(name.into()))),
    }
}

fn parse_file(rest: &str) -> Result<(Location, Option<String>), Error> {
    let path = match rest.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(path) => {
            return Err(Error::invalid(format!(
                "a `file:` URL has no host: write `file:{}` for a path relative to this directory, \
                 `file:///{}` for an absolute one",
                excerpt(path),
                excerpt(path)
            )));
        }
        None => rest,
    };
    if path.contains('\0') {
        return Err(Error::invalid("a path cannot contain a zero byte"));
    }
    if path == "~" || path.starts_with("~/") {
        return Err(Error::invalid(
            "`~` is not expanded in a URL: write `file:///home/…`, or `file:./~/…` for a directory \
             of that name",
        ));
    }
    let Some((dir, name)) = path.rsplit_once('/') else {
        return Err(Error::invalid(match path {
            "" => "`file:` names no directory: write `file:DIR/NAME`, or `file:DIR/` for the store"
                .into(),
            name => format!(
                "`file:{0}` has no directory: write `file:./{0}` for the log `{0}` in this \
                 directory, `file:{0}/NAME` for a log in the directory `{0}`",
                excerpt(name)
            ),
        }));
    };
    if matches!(name, "." | "..") {
        return Err(Error::invalid(format!(
            "`{name}` is not a log's name: write `file:{}/` for that directory as a store",
            excerpt(path)
        )));
    }
    let absolute = path.starts_with('/');
    let dir = dir.trim_matches('/');
    let dir = if absolute { Path::new("/").join(dir) } else { PathBuf::from(dir) };
    Ok((Location::File { dir }, Some(name).filter(|name| !name.is_empty()).map(String::from)))
}

fn parse_cluster(rest: &str) -> Result<(Location, Option<String>), Error> {
    const FORM: &str = "write `virtuallog://HOST:PORT/NAME`, or `virtuallog://HOST:PORT/` for the \
                        store";
    let Some((hosts, name)) = rest.strip_prefix("//").and_then(|rest| rest.split_once('/')) else {
        let shown = excerpt(rest);
        return Err(Error::invalid(format!(
            "`virtuallog:{shown}` names no log of a cluster: {FORM}"
        )));
    };
    if name.contains('/') {
        let message =
            format!("a cluster has no directories: `{}` is no name: {FORM}", excerpt(name));
        return Err(Error::invalid(message));
    }
    let hosts = hosts.split(',').map(parse_host).collect::<Result<Vec<_>, _>>()?;
    if hosts.len() > HOSTS_MAX {
        let count = hosts.len();
        let message = format!("{count} hosts in one URL: at most {HOSTS_MAX}, and one is enough");
        return Err(Error::invalid(message));
    }
    Ok((Location::Cluster { hosts }, Some(name).filter(|name| !name.is_empty()).map(String::from)))
}

/// `HOST`, `HOST:PORT`, `[::1]`, `[::1]:PORT` as `HOST:PORT`.
///
/// # Errors
/// `INVALID`, saying what an address is.
pub fn parse_host(host: &str) -> Result<String, Error> {
    let wrong = || {
        let shown = excerpt(host);
        Error::invalid(format!("`{shown}` is no address: write `HOST` or `HOST:PORT`"))
    };
    let name_end = host.rfind(']').map_or(0, |end| end + 1);
    let (name, port) = match host[name_end..].rfind(':') {
        Some(colon) => (&host[..name_end + colon], Some(&host[name_end + colon + 1..])),
        None => (host, None),
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let inside = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    let fits = match inside {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !name.is_empty() && name.bytes().all(plain),
    };
    let port = match port {
        None => PORT_DEFAULT,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?,
    };
    match fits {
        true => Ok(format!("{name}:{port}")),
        false => Err(wrong()),
    }
}

fn no_scheme(url: &str) -> Error {
    let shown = excerpt(url);
    Error::invalid(match url {
        "" => format!("an empty URL names nothing: write {HAVE}"),
        _ if url.contains('/') => {
            format!("`{shown}` has no scheme: for a log in a directory write `file:{shown}`")
        }
        _ => format!(
            "`{shown}` has no scheme: write `file:./{shown}` for a log in this directory, or \
             `memory:{shown}` for one in memory"
        ),
    })
}

fn unknown_scheme(scheme: &str, rest: &str) -> Error {
    let lower = scheme.to_ascii_lowercase();
    if LATER_SCHEMES.contains(&scheme) {
        return Error::new(
            ErrorCode::Incompatible,
            format!("`{scheme}:` URLs are not in this build yet: it has {HAVE}"),
        );
    }
    // What people who half remember a scheme write.
    let meant = [("file", "fil"), ("file", "dir"), ("file", "path"), ("file", "local")]
        .into_iter()
        .chain([("memory", "mem"), ("memory", "ram"), ("memory", "in-mem"), ("memory", "inmem")])
        .chain([("virtuallog", "virtual"), ("virtuallog", "vlog"), ("virtuallog", "vl")])
        .chain([("zookeeper", "zoo"), ("zookeeper", "zk"), ("etcd", "etc")])
        .find(|(_, near)| lower.starts_with(near));
    Error::invalid(match meant {
        Some((meant, _)) => {
            format!("unknown scheme `{scheme}:`: did you mean `{meant}:{}`?", excerpt(rest))
        }
        None => format!("unknown scheme `{}:`: this build has {HAVE}", excerpt(scheme)),
    })
}

fn parse_params(query: &str) -> Result<Params, Error> {
    let mut params = Params::default();
    for item in query.split('&') {
        let Some((key, value)) = item.split_once('=') else {
            return Err(Error::invalid(format!(
                "`{}` is not a parameter: write `name=value`, with {PARAMETERS}",
                excerpt(item)
            )));
        };
        let fresh = match key {
            "timeout" => params.timeout.replace(parse_timeout(value)?).is_none(),
            "mode" => params.mode.replace(parse_mode(value)?).is_none(),
            "create" => params.create.replace(parse_bool(key, value)?).is_none(),
            "entry_bytes_max" => params.entry_bytes_max.replace(parse_bytes(key, value)?).is_none(),
            "in_flight_bytes_max" => {
                params.in_flight_bytes_max.replace(parse_bytes(key, value)?).is_none()
            }
            "loglet" if value.is_empty() => {
                return Err(Error::invalid("`loglet` is empty: write for example `loglet=local`"));
            }
            "loglet" => params.loglet.replace(value.into()).is_none(),
            _ => {
                return Err(Error::invalid(format!(
                    "unknown parameter `{}`: there are {PARAMETERS}",
                    excerpt(key)
                )));
            }
        };
        if !fresh {
            return Err(Error::invalid(format!("parameter `{key}` is given twice")));
        }
    }
    Ok(params)
}

/// `5`, `5s`, `0.25s`, `500ms`, `none`. By digits and not by floating point, so that it is exact.
fn parse_timeout(value: &str) -> Result<Option<Duration>, Error> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let parse = || {
        if let Some(millis) = value.strip_suffix("ms") {
            return digits(millis)
                .then(|| millis.parse().ok())
                .flatten()
                .map(Duration::from_millis);
        }
        let seconds = value.strip_suffix('s').unwrap_or(value);
        let (whole, part) = seconds.split_once('.').unwrap_or((seconds, "0"));
        if !digits(whole) || !digits(part) || !(1..=9).contains(&part.len()) {
            return None;
        }
        let nanos = format!("{part:0<9}").parse().ok()?;
        Some(Duration::new(whole.parse().ok()?, nanos))
    };
    if value == "none" {
        return Ok(None);
    }
    parse().filter(|timeout| !timeout.is_zero()).map(Some).ok_or_else(|| {
        Error::invalid(format!(
            "`timeout={}` is not a time: write seconds (`5`, `0.5s`), `500ms` or `none`",
            excerpt(value)
        ))
    })
}

fn parse_mode(value: &str) -> Result<Mode, Error> {
    match value {
        "read" => Ok(Mode::Read),
        "write" => Ok(Mode::Write),
        _ => Err(Error::invalid(format!(
            "`mode={}`: write `mode=read` or `mode=write`",
            excerpt(value)
        ))),
    }
}

fn parse_bool(key: &str, value: &str) -> Result<bool, Error> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(Error::invalid(format!(
            "`{key}={}`: write `{key}=true` or `{key}=false`",
            excerpt(value)
        ))),
    }
}

fn parse_bytes(key: &str, value: &str) -> Result<usize, Error> {
    let plain = value.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| value.parse().ok()).flatten().filter(|bytes| *bytes > 0).ok_or_else(|| {
        Error::invalid(format!(
            "`{key}={}`: write a number of bytes, for example `{key}=1048576`",
            excerpt(value)
        ))
    })
}

/// What an error quotes: short, and without control characters.
fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    let mut shown: String = text.chars().take(CHARS_MAX).flat_map(char_shown).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

fn char_shown(char: char) -> Vec<char> {
    if char.is_control() { char.escape_default().collect() } else { vec![char] }
}

impl FromStr for LogUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<LogUrl, Error> {
        LogUrl::parse(url)
    }
}

impl fmt::Display for LogUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref();
        match &self.location {
            Location::Memory => write!(f, "memory:{}", name.unwrap_or("/"))?,
            Location::Fresh => f.write_str("memory:")?,
            Location::File { dir } => {
                let dir = dir.display().to_string();
                let authority = if dir.starts_with('/') { "//" } else { "" };
                let dir = dir.trim_end_matches('/');
                write!(f, "file:{authority}{dir}/{}", name.unwrap_or_default())?;
            }
            Location::Cluster { hosts } => {
                let hosts = hosts.join(",");
                write!(f, "virtuallog://{hosts}/{}", name.unwrap_or_default())?;
            }
        }
        self.params.fmt(f)
    }
}

impl fmt::Display for Params {
    /// With the `?`, or nothing at all.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timeout = self.timeout.map(|timeout| match timeout {
            None => "none".into(),
            Some(time) if time.subsec_nanos() == 0 => format!("{}s", time.as_secs()),
            Some(time) => format!("{}.{:09}s", time.as_secs(), time.subsec_nanos()),
        });
        let mode = self.mode.map(|mode| match mode {
            Mode::Read => "read".to_string(),
            Mode::Write => "write".to_string(),
        });
        let given = [
            ("timeout", timeout),
            ("mode", mode),
            ("create", self.create.map(|create| create.to_string())),
            ("entry_bytes_max", self.entry_bytes_max.map(|bytes| bytes.to_string())),
            ("in_flight_bytes_max", self.in_flight_bytes_max.map(|bytes| bytes.to_string())),
            ("loglet", self.loglet.clone()),
        ];
        let mut before = '?';
        for (key, value) in given {
            if let Some(value) = value {
                write!(f, "{before}{key}={value}")?;
                before = '&';
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "url_tests.rs"]
mod tests;
