//! What a step gives, and whether that is what the scenario expects.

use bytes::Bytes;
use toml::Value;
use virtuallog_bindings::{
    Appended, Batch, Chain, ClusterInfo, Entry, Life, Log, Plan, Reader, Server, Tail, Trimmed,
    VerifyReport,
};

/// What a step gives.
pub(crate) enum Outcome {
    Nothing,
    Number(u64),
    Entries(Vec<Entry>),
    Names(Vec<String>),
    /// Some fields of a structured result.
    Fields(Vec<(&'static str, Field)>),
    Log(Log),
    Reader(Reader),
    Server(Server),
}

pub(crate) enum Field {
    Nothing,
    Number(u64),
    Flag(bool),
    Text(String),
}

impl Outcome {
    /// What `save` keeps.
    pub(crate) fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Fields(fields) => fields.iter().find_map(|(name, field)| match field {
                Field::Number(version) if *name == "version" => Some(*version),
                _ => None,
            }),
            _ => None,
        }
    }

    /// Compares with what the scenario expects; `number` tells the value of `"$a+1"`.
    pub(crate) fn compare(&self, expected: &Value, number: impl Fn(&Value) -> u64, place: &str) {
        match self {
            Self::Nothing => assert_eq!(expected.as_str(), Some("none"), "{place}"),
            Self::Number(found) => assert_eq!(*found, number(expected), "{place}"),
            Self::Names(names) => {
                let wanted: Vec<_> = list(expected).iter().map(|name| name.as_str()).collect();
                let names: Vec<_> = names.iter().map(|name| Some(name.as_str())).collect();
                assert_eq!(names, wanted, "{place}");
            }
            Self::Entries(entries) => {
                let found: Vec<_> = entries.iter().map(|entry| entry.payload.clone()).collect();
                let wanted = payloads(expected);
                assert!(found == wanted, "{place}: found {} entries, or others", found.len());
                assert!(entries.is_sorted_by(|a, b| a.position < b.position), "{place}");
            }
            Self::Fields(fields) => {
                for (name, wanted) in expected.as_table().expect("a table") {
                    let found = fields.iter().find(|(field, _)| field == name);
                    let found = &found.unwrap_or_else(|| panic!("{place}: no field `{name}`")).1;
                    match found {
                        Field::Number(found) => {
                            assert_eq!(*found, number(wanted), "{place}: {name}")
                        }
                        Field::Flag(found) => {
                            assert_eq!(Some(*found), wanted.as_bool(), "{place}: {name}");
                        }
                        Field::Text(found) => {
                            assert_eq!(Some(found.as_str()), wanted.as_str(), "{place}: {name}");
                        }
                        Field::Nothing => {
                            assert_eq!(wanted.as_str(), Some("none"), "{place}: {name}")
                        }
                    }
                }
            }
            Self::Log(_) | Self::Reader(_) | Self::Server(_) => {
                panic!("{place}: a handle is kept by `as`, and not compared")
            }
        }
    }
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Nothing
    }
}

impl From<u64> for Outcome {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<Option<u64>> for Outcome {
    fn from(number: Option<u64>) -> Self {
        number.map_or(Self::Nothing, Self::Number)
    }
}

impl From<Vec<Entry>> for Outcome {
    fn from(entries: Vec<Entry>) -> Self {
        Self::Entries(entries)
    }
}

impl From<Batch> for Outcome {
    fn from(batch: Batch) -> Self {
        Self::Entries(batch.to_vec())
    }
}

impl From<Option<Entry>> for Outcome {
    fn from(entry: Option<Entry>) -> Self {
        entry.map_or(Self::Nothing, |entry| {
            let text = String::from_utf8_lossy(&entry.payload).into_owned();
            let position = Field::Number(entry.position.0);
            Self::Fields(vec![("position", position), ("payload", Field::Text(text))])
        })
    }
}

impl From<Option<Appended>> for Outcome {
    fn from(appended: Option<Appended>) -> Self {
        appended.map_or(Self::Nothing, |appended| {
            Self::Fields(vec![
                ("first", Field::Number(appended.first.0)),
                ("last", Field::Number(appended.last.0)),
                ("count", Field::Number(appended.count)),
            ])
        })
    }
}

impl From<Tail> for Outcome {
    fn from(tail: Tail) -> Self {
        let position = ("position", Field::Number(tail.position.0));
        Self::Fields(vec![position, ("sealed", Field::Flag(tail.sealed))])
    }
}

impl From<Trimmed> for Outcome {
    fn from(trimmed: Trimmed) -> Self {
        let limit = trimmed.limited_by;
        Self::Fields(vec![
            ("requested", Field::Number(trimmed.requested.0)),
            ("effective", Field::Number(trimmed.effective.0)),
            ("limited_by", limit.map_or(Field::Nothing, |limit| Field::Text(limit.name().into()))),
        ])
    }
}

impl From<Chain> for Outcome {
    fn from(chain: Chain) -> Self {
        let life = match chain.life {
            Life::Open => "open",
            Life::Ended => "ended",
            Life::Moved { .. } => "moved",
        };
        Self::Fields(vec![
            ("version", Field::Number(chain.version)),
            ("segments", Field::Number(chain.segments.len() as u64)),
            ("life", Field::Text(life.into())),
        ])
    }
}

impl From<Plan> for Outcome {
    fn from(plan: Plan) -> Self {
        Self::Fields(vec![
            ("version", Field::Number(plan.version)),
            ("seals_segment", Field::Number(plan.seals_segment.into())),
            ("tail", Field::Number(plan.tail.0)),
            ("objections", Field::Number(plan.objections.len() as u64)),
        ])
    }
}

impl From<VerifyReport> for Outcome {
    fn from(report: VerifyReport) -> Self {
        let problems = Field::Number(report.problems.len() as u64);
        Self::Fields(vec![("entries", Field::Number(report.entries)), ("problems", problems)])
    }
}

impl From<ClusterInfo> for Outcome {
    fn from(cluster: ClusterInfo) -> Self {
        let count = |has: fn(&virtuallog_bindings::NodeInfo) -> bool| {
            Field::Number(cluster.nodes.iter().filter(|node| has(node)).count() as u64)
        };
        Self::Fields(vec![
            ("nodes", count(|_| true)),
            ("alive", count(|node| node.alive)),
            ("draining", count(|node| node.draining)),
        ])
    }
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// A list of payloads, or `{ numbered = 3 }`.
pub(crate) fn payloads(value: &Value) -> Vec<Bytes> {
    match value.get("numbered") {
        None => list(value).iter().map(payload).collect(),
        Some(count) => {
            let count = count.as_integer().expect("a number");
            (0..count).map(|number| Bytes::from(number.to_string())).collect()
        }
    }
}

pub(crate) fn payload(value: &Value) -> Bytes {
    if let Some(text) = value.as_str() {
        return Bytes::copy_from_slice(text.as_bytes());
    }
    if let Some(hex) = value.get("hex") {
        let digits = hex.as_str().expect("text").as_bytes().chunks(2);
        let byte = |two: &[u8]| {
            let text = str::from_utf8(two).expect("digits are ASCII");
            u8::from_str_radix(text, 16).expect("hexadecimal digits")
        };
        return digits.map(byte).collect();
    }
    let count = value["count"].as_integer().expect("a number");
    let count = usize::try_from(count).expect("it is small");
    Bytes::from(value["repeat"].as_str().expect("text").repeat(count))
}
