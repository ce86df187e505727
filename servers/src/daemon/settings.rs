//! The daemon's settings: each from a flag, the environment, a file or its default, in that order.
//!
//! One table holds them. A setting is text whichever source it comes from, and one function
//! understands it, so that a value means the same everywhere and every error names the flag, the
//! variable or the file that is wrong. The arguments of the command line are made from the table too.
//!
//! A library that layers sources (figment was looked at) has a grammar of its own for the environment,
//! and does not know which flags were given; clap tells us that, and what is left is short.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, value_parser};
use jiff::SignedDuration;
use serde::Serialize;
use tracing_subscriber::filter::{LevelFilter, Targets};
use virtuallog::server::ServerConfig;
use virtuallog::url::parse_host;
use virtuallog::{Error, Result};

use crate::output::input_error;

/// All that the daemon is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// What the server itself wants to know.
    pub(crate) server: ServerConfig,
    /// What is logged.
    pub(crate) log: Targets,
    pub(crate) log_format: LogFormat,
    /// How long SIGTERM waits for sequencers to move away.
    pub(crate) drain_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            // Where data is kept is nothing to be guessed.
            server: ServerConfig { data: PathBuf::new(), ..ServerConfig::default() },
            log: Targets::new().with_default(LevelFilter::INFO),
            log_format: LogFormat::Text,
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One row of the table.
struct Setting {
    /// `drain-timeout`: the flag `--drain-timeout`, the variable `VIRTUALLOG_DRAIN_TIMEOUT`, and the
    /// key in the file.
    name: &'static str,
    /// What stands for the value in the help.
    value: &'static str,
    help: &'static str,
    /// Understands a value, or says what would be one.
    set: fn(&mut Settings, &str) -> Result<(), String>,
    /// The value in force as text that `set` takes; empty: none.
    show: fn(&Settings) -> String,
}

const SETTINGS: &[Setting] = &[
    Setting {
        name: "data",
        value: "DIR",
        help: "The directory that holds all that this node knows; made if its parent is there",
        set: |to, text| put(&mut to.server.data, Ok(PathBuf::from(text))),
        show: |of| of.server.data.display().to_string(),
    },
    Setting {
        name: "listen",
        value: "HOST:PORT",
        help: "Where to listen; port 0: a free one",
        set: |to, text| put(&mut to.server.listen, listen_address(text)),
        show: |of| of.server.listen.clone(),
    },
    Setting {
        name: "advertise",
        value: "HOST:PORT",
        help: "How others reach this node; left out: where it listens",
        set: |to, text| put(&mut to.server.advertise, address(text).map(Some)),
        show: |of| of.server.advertise.clone().unwrap_or_default(),
    },
    Setting {
        name: "zone",
        value: "NAME",
        help: "What fails together with this node; copies are spread over zones",
        set: |to, text| put(&mut to.server.zone, Ok(text.to_owned())),
        show: |of| of.server.zone.clone(),
    },
    Setting {
        name: "roles",
        value: "ROLE,…",
        help: "What this node does: any of `log`, `sequencer`, `metastore` (up to five hold it)",
        set: |to, text| put(&mut to.server.roles, text.parse().map_err(sentence)),
        show: |of| of.server.roles.to_string(),
    },
    Setting {
        name: "join",
        value: "HOST:PORT,…",
        help: "Nodes of the cluster to join, when the directory belongs to none yet",
        set: |to, text| put(&mut to.server.join, addresses(text)),
        show: |of| of.server.join.join(","),
    },
    Setting {
        name: "insecure",
        value: "BOOL",
        help: "Listen beyond loopback although nothing is encrypted and anybody may connect",
        set: |to, text| put(&mut to.server.insecure, boolean(text)),
        show: |of| of.server.insecure.to_string(),
    },
    Setting {
        name: "heartbeat",
        value: "TIME",
        help: "How often nodes ask each other whether they are there",
        set: |to, text| put(&mut to.server.heartbeat, time_above_zero(text)),
        show: |of| show_time(of.server.heartbeat),
    },
    Setting {
        name: "suspect-after",
        value: "TIME",
        help: "After how long a silence a node counts as dead",
        set: |to, text| put(&mut to.server.suspect_after, time_above_zero(text)),
        show: |of| show_time(of.server.suspect_after),
    },
    Setting {
        name: "rebuild-after",
        value: "TIME",
        help: "After how long what a lost node held is copied elsewhere",
        set: |to, text| put(&mut to.server.rebuild_after, time_above_zero(text)),
        show: |of| show_time(of.server.rebuild_after),
    },
    Setting {
        name: "segment-bytes-max",
        value: "BYTES",
        help: "At which size a log goes on in a new segment",
        set: |to, text| put(&mut to.server.segment_bytes_max, bytes(text)),
        show: |of| show_bytes(of.server.segment_bytes_max),
    },
    Setting {
        name: "segment-age-max",
        value: "TIME",
        help: "At which age a log goes on in a new segment; `none`: at no age",
        set: |to, text| {
            let none = text == "none";
            put(&mut to.server.segment_age_max, (!none).then(|| time_above_zero(text)).transpose())
        },
        show: |of| of.server.segment_age_max.map_or("none".into(), show_time),
    },
    Setting {
        name: "drain-timeout",
        value: "TIME",
        help: "How long SIGTERM waits for logs to move to other nodes",
        set: |to, text| put(&mut to.drain_timeout, time(text)),
        show: |of| show_time(of.drain_timeout),
    },
    Setting {
        name: "log",
        value: "FILTER",
        help: "What is logged on standard error: a level, or `TARGET=LEVEL,…`",
        set: |to, text| put(&mut to.log, filter(text)),
        show: |of| of.log.to_string(),
    },
    Setting {
        name: "log-format",
        value: "FORMAT",
        help: "How it is logged: `text` or `json`",
        set: |to, text| {
            let format = match text {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                _ => Err("write `text` or `json`".into()),
            };
            put(&mut to.log_format, format)
        },
        show: |of| match of.log_format {
            LogFormat::Text => "text".into(),
            LogFormat::Json => "json".into(),
        },
    },
];

fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
    Ok(())
}

/// The flag that names the file.
const FILE: &str = "config";

impl Setting {
    fn variable(&self) -> String {
        format!("VIRTUALLOG_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }

    fn arg(&self, defaults: &Settings) -> Arg {
        let help = match (self.show)(defaults) {
            default if default.is_empty() => self.help.to_owned(),
            default => format!("{} [default: {default}]", self.help),
        };
        let arg = Arg::new(self.name)
            .long(self.name)
            .value_name(self.value)
            .help(help)
            .env(self.variable())
            .hide_env_values(true)
            .global(true);
        match self.value {
            // The flag alone says yes.
            "BOOL" => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            _ => arg,
        }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "source", content = "origin", rename_all = "lowercase")]
pub(crate) enum Origin {
    /// `--zone`
    Flag(String),
    /// `VIRTUALLOG_ZONE`
    Environment(String),
    /// The file's path.
    File(String),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(flag) => write!(f, "flag {flag}"),
            Origin::Environment(name) => write!(f, "variable {name}"),
            Origin::File(path) => write!(f, "file {path}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A setting in force.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct InForce {
    /// As text that means the same again.
    pub(crate) value: Option<String>,
    #[serde(flatten)]
    pub(crate) origin: Origin,
}

/// All settings by name.
pub(crate) type AllInForce = BTreeMap<&'static str, InForce>;

/// The environment variables of all settings but those about logging: what is to be kept from a
/// daemon that is told everything by flags.
pub(crate) fn variables() -> impl Iterator<Item = String> {
    let told = SETTINGS.iter().filter(|setting| !setting.name.starts_with("log"));
    told.map(Setting::variable).chain([format!("VIRTUALLOG_{}", FILE.to_ascii_uppercase())])
}

/// Adds the flags of all settings.
pub(crate) fn flags(command: Command) -> Command {
    let defaults = Settings::default();
    let file = Arg::new(FILE)
        .long(FILE)
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("A TOML file of settings, each under the name of its flag")
        .env("VIRTUALLOG_CONFIG")
        .hide_env_values(true)
        .global(true);
    command.arg(file).args(SETTINGS.iter().map(|setting| setting.arg(&defaults)))
}

/// Puts the sources together, and says of each setting where it came from.
///
/// # Errors
/// `INVALID` for a key or a value that is none, naming its source and what is valid; `NOT_FOUND` and
/// `UNAVAILABLE` for the file.
pub(crate) fn resolve(matches: &ArgMatches) -> Result<(Settings, AllInForce)> {
    let path = matches.get_one::<PathBuf>(FILE);
    let file = path.map(|path| read_file(path)).transpose()?.unwrap_or_default();
    layer(matches, path.map(PathBuf::as_path), file)
}

/// The sources one over the other; `file`: what stands in the file `path`.
fn layer(
    matches: &ArgMatches,
    path: Option<&Path>,
    mut file: toml::Table,
) -> Result<(Settings, AllInForce)> {
    let mut settings = Settings::default();
    let mut origins = Vec::with_capacity(SETTINGS.len());
    for setting in SETTINGS {
        let given = matches.get_one::<String>(setting.name).cloned();
        let written = file.remove(setting.name);
        let (text, origin) = match (matches.value_source(setting.name), given, written, path) {
            (Some(ValueSource::EnvVariable), Some(text), ..) => {
                (text, Origin::Environment(setting.variable()))
            }
            (_, Some(text), ..) => (text, Origin::Flag(format!("--{}", setting.name))),
            (_, None, Some(value), Some(path)) => {
                let origin = Origin::File(path.display().to_string());
                (toml_text(&value).ok_or_else(|| not_one_value(setting.name, &origin))?, origin)
            }
            _ => {
                origins.push(Origin::Default);
                continue;
            }
        };
        (setting.set)(&mut settings, &text).map_err(|advice| {
            let name = setting.name;
            Error::invalid(format!("{origin}: `{text}` is no value for `{name}`: {advice}"))
        })?;
        origins.push(origin);
    }
    if let (Some(key), Some(path)) = (file.keys().next(), path) {
        let names: Vec<_> = SETTINGS.iter().map(|setting| format!("`{}`", setting.name)).collect();
        let (path, names) = (path.display(), names.join(", "));
        return Err(Error::invalid(format!(
            "file {path}: no setting is called `{key}`: it has {names}"
        )));
    }
    let in_force = |(setting, origin): (&Setting, Origin)| {
        let value = Some((setting.show)(&settings)).filter(|value| !value.is_empty());
        (setting.name, InForce { value, origin })
    };
    let in_force = SETTINGS.iter().zip(origins).map(in_force).collect();
    Ok((settings, in_force))
}

fn read_file(path: &Path) -> Result<toml::Table> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| input_error(&shown.to_string(), error))?;
    parse_file(path, &text)
}

fn parse_file(path: &Path, text: &str) -> Result<toml::Table> {
    text.parse().map_err(|error: toml::de::Error| {
        let shown = path.display();
        Error::invalid(format!("file {shown}: this is not TOML: mend it")).with_source(error)
    })
}

/// What is logged. Stricter than the library, to which a misspelt level is a target, with all else off.
fn filter(text: &str) -> Result<Targets, String> {
    let advice = || {
        "write `off`, `error`, `warn`, `info`, `debug` or `trace`, or a list such as \
         `warn,virtuallog::server=debug`"
            .to_owned()
    };
    let in_target = |c: char| c.is_ascii_alphanumeric() || "_:.-".contains(c);
    let is_filter = |part: &str| {
        let (target, level) = part.split_once('=').unwrap_or(("", part));
        target.chars().all(in_target) && !level.is_empty() && level.parse::<LevelFilter>().is_ok()
    };
    match text.split(',').all(is_filter) {
        true => text.parse().map_err(|_| advice()),
        false => Err(advice()),
    }
}

/// A door for a fuzzer: a file of this text is refused, or what it puts in force is shown as text that
/// means the same. Panics when that does not hold.
#[cfg(feature = "testing")]
pub(crate) fn fuzz(text: &str) {
    static DEFAULTS: std::sync::OnceLock<ArgMatches> = std::sync::OnceLock::new();
    let matches = DEFAULTS.get_or_init(|| {
        let bare = |arg: Arg| arg.env(None::<&str>);
        let command = flags(Command::new("fuzz")).mut_args(bare);
        command.get_matches_from(["fuzz"])
    });
    let path = Path::new("fuzz.toml");
    let settled = parse_file(path, text).and_then(|file| layer(matches, Some(path), file));
    let Ok((settings, _)) = settled else { return };
    for setting in SETTINGS {
        let shown = (setting.show)(&settings);
        if !shown.is_empty() {
            let mut again = settings.clone();
            (setting.set)(&mut again, &shown).unwrap_or_else(|why| panic!("{shown}: {why}"));
            assert_eq!((setting.show)(&again), shown, "{}", setting.name);
        }
    }
}

fn toml_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Array(values) => {
            Some(values.iter().map(toml_text).collect::<Option<Vec<_>>>()?.join(","))
        }
        _ => None,
    }
}

fn not_one_value(name: &str, origin: &Origin) -> Error {
    let message = format!("{origin}: `{name}` takes a string, a number, `true`, `false` or a list");
    Error::invalid(message)
}

fn sentence(error: Error) -> String {
    error.message().to_owned()
}

fn address(text: &str) -> Result<String, String> {
    parse_host(text).map_err(sentence)
}

/// Addresses with commas between them, each `HOST` or `HOST:PORT`.
pub(crate) fn addresses(text: &str) -> Result<Vec<String>, String> {
    text.split(',').map(|address| self::address(address.trim())).collect()
}

/// As [`address`], and port 0 is one.
fn listen_address(text: &str) -> Result<String, String> {
    match text.strip_suffix(":0") {
        Some(host) => address(host).map(|_| text.to_owned()),
        None => address(text),
    }
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err("write `true` or `false`".into()),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let time = text.parse::<SignedDuration>().ok().and_then(|time| time.try_into().ok());
    time.ok_or_else(|| "write a time with its unit: `500ms`, `20s`, `10m`, `2h`".into())
}

fn time_above_zero(text: &str) -> Result<Duration, String> {
    time(text).and_then(|time| match time.is_zero() {
        true => Err("write a time above zero".into()),
        false => Ok(time),
    })
}

fn show_time(time: Duration) -> String {
    // A time beyond what a signed one holds is as good as the longest.
    let time = SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX);
    format!("{time:#}")
}

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

fn bytes(text: &str) -> Result<u64, String> {
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let number = unit.and_then(|(unit, size)| {
        text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?.checked_mul(*size)
    });
    let advice = "write a number of bytes above zero: `4194304`, `512KiB`, `64MiB`, `1GiB`";
    number.filter(|number| *number > 0).ok_or_else(|| advice.into())
}

fn show_bytes(bytes: u64) -> String {
    let fits = |(_, size): &&(&str, u64)| bytes.is_multiple_of(*size);
    let (unit, size) = UNITS.iter().find(fits).unwrap_or(&("", 1));
    format!("{}{unit}", bytes / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_means_the_same_again() {
        let defaults = Settings::default();
        for setting in SETTINGS {
            let shown = (setting.show)(&defaults);
            if shown.is_empty() {
                continue;
            }
            let mut again = Settings::default();
            (setting.set)(&mut again, &shown).unwrap_or_else(|why| panic!("{shown}: {why}"));
            assert_eq!((setting.show)(&again), shown, "{}", setting.name);
        }
    }

    #[test]
    fn sizes_and_times_have_units() {
        for (text, number) in [("1", 1), ("4KiB", 4096), ("3 MiB", 3 << 20), ("1TiB", 1 << 40)] {
            assert_eq!(bytes(text), Ok(number));
        }
        assert_eq!(show_bytes(64 << 20), "64MiB");
        assert_eq!(show_bytes(1000), "1000");
        for wrong in ["", "0", "-1", "1MB", "MiB", "99999999TiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(time("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(show_time(Duration::from_millis(1500)), "1s 500ms");
        for wrong in ["", "5", "-1s", "1 fortnight"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert!(time_above_zero("0s").is_err());
    }

    #[test]
    fn a_misspelt_level_is_no_target() {
        for (text, shown) in
            [("warn", "warn"), ("INFO,virtuallog::server=debug", "virtuallog::server=debug,info")]
        {
            assert_eq!(filter(text).map(|filter| filter.to_string()), Ok(shown.to_owned()));
        }
        for wrong in ["", "wran", "warn,", "warn'virtua[[[{[=trace", "a b=info", "virtuallog=loud"]
        {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_arguments_hold_together() {
        flags(Command::new("virtuallogd")).debug_assert();
    }
}
