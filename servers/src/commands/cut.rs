//! Input cut into entries: after a delimiter, as a whole, or one JSON object a line.
//!
//! Input of any size passes in bounded memory: no entry is read much beyond what any log takes, and
//! entries leave in groups that are about as large as the read buffer.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use virtuallog::protocol::limits::ENTRY_BYTES_MAX;
use virtuallog::{Error, ErrorCode};

use crate::output::input_error;

/// Bytes read at once, and about the size of one group of entries.
const BUFFER_BYTES: usize = 256 << 10;
/// Most entries in one group.
const GROUP_ENTRIES: usize = 4096;
/// Escapes make the JSON form of an entry up to six times as long.
const JSON_BYTES_MAX: usize = 6 * ENTRY_BYTES_MAX + (64 << 10);

/// How the input is cut.
#[derive(Clone, Debug)]
pub(crate) enum Cut {
    /// After each of these; what follows the last one is an entry if it is not empty.
    After(Delimiter),
    /// Not at all: one entry, also when it is empty.
    Whole,
    /// What `read --json` gives.
    Json,
}

/// Bytes that end an entry; at least one.
#[derive(Clone, Debug)]
pub(crate) struct Delimiter(Vec<u8>);

impl Delimiter {
    pub(crate) fn line_feed() -> Self {
        Self(b"\n".to_vec())
    }

    /// From how it is written on the command line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match (byte, byte == b'\\') {
                (plain, false) => plain,
                _ => match rest.next() {
                    Some(b'n') => b'\n',
                    Some(b'r') => b'\r',
                    Some(b't') => b'\t',
                    Some(b'0') => b'\0',
                    Some(b'\\') => b'\\',
                    _ => return Err(r"after a backslash comes one of: n r t 0 \".into()),
                },
            });
        }
        match bytes.is_empty() {
            true => Err("it is empty: for a single entry use --whole".into()),
            false => Ok(Self(bytes)),
        }
    }
}

/// What `read --json` gives; its other fields are passed over.
#[derive(Debug, Deserialize)]
struct JsonEntry {
    payload: Option<String>,
    payload_base64: Option<String>,
}

/// Gives the entries of one input.
pub(crate) struct Cutter {
    input: BufReader<Box<dyn Read + Send>>,
    name: String,
    cut: Cut,
    /// Of the entry that was read last, counted from 1.
    number: u64,
}

impl Cutter {
    /// Opens a file, or standard input, and says how long it is, if that is known.
    ///
    /// # Errors
    /// `NOT_FOUND`, `UNAVAILABLE`.
    pub(crate) fn open(name: Option<&str>, cut: Cut) -> Result<(Self, Option<u64>), Error> {
        let (input, total): (Box<dyn Read + Send>, _) = match name {
            None => (Box::new(io::stdin()), None),
            Some(name) => {
                let file = File::open(name).map_err(|error| input_error(name, error))?;
                let about = file.metadata().map_err(|error| input_error(name, error))?;
                (Box::new(file), about.is_file().then_some(about.len()))
            }
        };
        Ok((Self::new(input, name.unwrap_or("standard input"), cut), total))
    }

    fn new(input: Box<dyn Read + Send>, name: &str, cut: Cut) -> Self {
        let input = BufReader::with_capacity(BUFFER_BYTES, input);
        Cutter { input, name: name.into(), cut, number: 0 }
    }

    /// The next entries: those that can be had without waiting, and at least one. Empty: the end.
    ///
    /// # Errors
    /// With the entries that came before the error.
    pub(crate) fn next_group(&mut self) -> Result<Vec<Bytes>, (Vec<Bytes>, Error)> {
        let mut group = Vec::new();
        loop {
            match self.next_entry() {
                Ok(Some(entry)) => group.push(entry),
                Ok(None) => return Ok(group),
                Err(error) => return Err((group, error)),
            }
            if self.input.buffer().is_empty() || group.len() == GROUP_ENTRIES {
                return Ok(group);
            }
        }
    }

    fn next_entry(&mut self) -> Result<Option<Bytes>, Error> {
        self.number += 1;
        let read = match &self.cut {
            Cut::Whole if self.number > 1 => Ok(None),
            Cut::Whole => read_whole(&mut self.input).map(Some),
            Cut::After(end) => read_until(&mut self.input, &end.0, ENTRY_BYTES_MAX),
            Cut::Json => read_until(&mut self.input, b"\n", JSON_BYTES_MAX),
        };
        let Some(bytes) = read.map_err(|error| input_error(&self.name, error))? else {
            return Ok(None);
        };
        if !matches!(self.cut, Cut::Json) {
            return self.within_limit(bytes).map(Some);
        }
        let entry = self.decode_json(&bytes)?;
        self.within_limit(entry).map(Some)
    }

    fn within_limit(&self, entry: Vec<u8>) -> Result<Bytes, Error> {
        if entry.len() <= ENTRY_BYTES_MAX {
            return Ok(entry.into());
        }
        let (number, name) = (self.number, &self.name);
        Err(Error::new(
            ErrorCode::TooLarge,
            format!(
                "entry {number} of {name} is over {ENTRY_BYTES_MAX} bytes, the most that any log \
                 takes: split it, or say with --delimiter where entries end"
            ),
        ))
    }

    fn decode_json(&self, line: &[u8]) -> Result<Vec<u8>, Error> {
        let wrong = || {
            let (number, name) = (self.number, &self.name);
            Error::invalid(format!(
                "line {number} of {name} is not what `read --json` gives: write an object with \
                 `payload` (text) or `payload_base64`"
            ))
        };
        let entry: JsonEntry =
            serde_json::from_slice(line).map_err(|error| wrong().with_source(error))?;
        match (entry.payload, entry.payload_base64) {
            (Some(text), None) => Ok(text.into_bytes()),
            (None, Some(text)) => BASE64.decode(text).map_err(|error| wrong().with_source(error)),
            _ => Err(wrong()),
        }
    }
}

/// For a fuzzer: see `hostile.rs`.
#[cfg(feature = "testing")]
pub(crate) fn fuzz(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    let (cut, joined): (Cut, Option<&[u8]>) = match kind % 4 {
        0 => (Cut::After(Delimiter::line_feed()), Some(b"\n")),
        1 => (Cut::After(Delimiter(b"--".to_vec())), Some(b"--")),
        2 => (Cut::Whole, Some(b"")),
        _ => (Cut::Json, None),
    };
    let mut cutter = Cutter::new(Box::new(io::Cursor::new(bytes.to_vec())), "the input", cut);
    let mut all: Vec<Bytes> = Vec::new();
    while let Ok(group) = cutter.next_group() {
        assert!(group.iter().all(|entry| entry.len() <= ENTRY_BYTES_MAX));
        if group.is_empty() {
            let whole = joined.map(|between| all.join(between));
            let same = |whole: Vec<u8>, end: &[u8]| [&whole[..], end].concat() == bytes;
            let kept = whole.zip(joined);
            assert!(kept.is_none_or(|(whole, end)| same(whole.clone(), b"") || same(whole, end)));
            return;
        }
        all.extend(group);
    }
}

/// All of it, or one byte more than any log takes: enough to tell that it is too large.
fn read_whole(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut entry = Vec::new();
    input.take(ENTRY_BYTES_MAX as u64 + 1).read_to_end(&mut entry)?;
    Ok(entry)
}

/// Up to `end`, which is taken off, or to the end of the input; or a little more than `most` bytes,
/// so that an input without any `end` does not fill the memory. `None`: nothing is left.
fn read_until(input: &mut impl BufRead, end: &[u8], most: usize) -> io::Result<Option<Vec<u8>>> {
    let last = *end.last().expect("a delimiter has at least one byte");
    let mut entry = Vec::new();
    while entry.len() <= most + end.len() {
        let room = (most + end.len() + 1 - entry.len()) as u64;
        let got = input.by_ref().take(room).read_until(last, &mut entry)?;
        if entry.ends_with(end) {
            entry.truncate(entry.len() - end.len());
            return Ok(Some(entry));
        }
        if got == 0 {
            return Ok((!entry.is_empty()).then_some(entry));
        }
    }
    Ok(Some(entry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(input: &'static [u8], cut: Cut) -> Vec<Bytes> {
        let mut cutter = Cutter::new(Box::new(input), "input", cut);
        let mut all = Vec::new();
        loop {
            let group = cutter.next_group().expect("good input");
            if group.is_empty() {
                return all;
            }
            all.extend(group);
        }
    }

    fn after(text: &str) -> Cut {
        Cut::After(Delimiter::parse(text).expect("a good delimiter"))
    }

    #[test]
    fn lines_may_be_empty_and_the_last_needs_no_end() {
        assert_eq!(entries(b"a\n\nb\n", after("\\n")), ["a", "", "b"]);
        assert_eq!(entries(b"a\nb", after("\\n")), ["a", "b"]);
        assert_eq!(entries(b"", after("\\n")), [""; 0]);
        assert_eq!(entries(b"\n", after("\\n")), [""]);
    }

    #[test]
    fn a_delimiter_may_be_long_and_start_over() {
        assert_eq!(entries(b"a--b---c", after("--")), ["a", "b", "-c"]);
        assert_eq!(entries(b"a\0b\0", after("\\0")), ["a", "b"]);
        assert!(Delimiter::parse("").is_err());
        assert!(Delimiter::parse("\\x").is_err());
    }

    #[test]
    fn the_whole_is_one_entry_even_when_it_is_empty() {
        assert_eq!(entries(b"a\nb\n", Cut::Whole), ["a\nb\n"]);
        assert_eq!(entries(b"", Cut::Whole), [""]);
    }

    #[test]
    fn json_lines_give_text_or_bytes() {
        let lines = b"{\"position\":3,\"payload\":\"a\\nb\"}\n{\"payload_base64\":\"/w==\"}\n";
        assert_eq!(entries(lines, Cut::Json), [&b"a\nb"[..], &b"\xff"[..]]);
    }

    #[test]
    fn an_endless_line_is_refused_and_not_read_for_ever() {
        let mut cutter = Cutter::new(Box::new(io::repeat(b'x')), "input", after("\\n"));
        let (before, error) = cutter.next_group().expect_err("too large");
        assert_eq!((before.len(), error.code()), (0, ErrorCode::TooLarge));
    }
}
