//! What people and programs see: text on a terminal, one JSON object a line everywhere else.
//!
//! Each of the two streams decides for itself, so that `virtuallog chain URL > file` writes JSON into
//! the file and still speaks to the person at the terminal when it fails. `--json` and `--text` hold
//! for both. Commands make a [`Report`] and know nothing of all this.

use std::error::Error as _;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use virtuallog::{Appended, Error, ErrorCode};

/// How results are written.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Format {
    /// One JSON object a line (the default where output is not a terminal)
    #[arg(long, global = true, conflicts_with = "text", help_heading = "Output")]
    pub(crate) json: bool,
    /// Text for people, also where output is not a terminal
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) text: bool,
}

/// Something that a command found or did.
pub(crate) trait Report: Serialize {
    /// The same for people. Complete lines.
    fn human(&self, out: &mut dyn Write) -> io::Result<()>;
}

/// Why a command did not end well.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed.
    Failed(Error),
    /// It failed after these entries were surely appended.
    Partly(Error, Appended),
    /// It was done, and its report, which was written, is bad news.
    BadNews,
    /// Whoever read our output went away.
    PipeClosed,
    /// Ctrl-C.
    Interrupted,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

/// Of standard output: files that are read are told apart by [`input_error`].
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::PipeClosed,
            io::ErrorKind::StorageFull => Error::new(
                ErrorCode::DiskFull,
                "no room for what is written to standard output: make room and run this again",
            )
            .with_source(error)
            .into(),
            _ => Error::new(ErrorCode::Unavailable, "cannot write to standard output")
                .with_source(error)
                .into(),
        }
    }
}

/// A file that was to be read and cannot be.
pub(crate) fn input_error(name: &str, error: io::Error) -> Error {
    let (code, advice) = match error.kind() {
        io::ErrorKind::NotFound => (ErrorCode::NotFound, "correct its name"),
        io::ErrorKind::PermissionDenied => (ErrorCode::Unavailable, "change its permissions"),
        _ => (ErrorCode::Unavailable, "see the cause"),
    };
    Error::new(code, format!("cannot read the input `{name}`: {advice}")).with_source(error)
}

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Who speaks, in text on standard error.
    program: &'static str,
    format: Format,
}

impl Output {
    pub(crate) fn new(program: &'static str, format: Format) -> Self {
        Self { program, format }
    }

    /// Whether `--json` was written out: then entries go in and out as JSON too.
    pub(crate) fn entries_are_json(&self) -> bool {
        self.format.json
    }

    pub(crate) fn errors_are_json(&self) -> bool {
        self.format.json || !self.format.text && !io::stderr().is_terminal()
    }

    /// Writes a command's result.
    pub(crate) fn report(&self, report: &impl Report) -> Result<(), Stop> {
        self.reports(std::iter::once(report))
    }

    /// Writes results one after the other.
    pub(crate) fn reports<'a, R: Report + 'a>(
        &self,
        reports: impl IntoIterator<Item = &'a R>,
    ) -> Result<(), Stop> {
        let as_json = self.format.json || !self.format.text && !io::stdout().is_terminal();
        let mut out = BufWriter::new(io::stdout().lock());
        for report in reports {
            if as_json {
                write_json(&mut out, report)?;
            } else {
                report.human(&mut out)?;
            }
        }
        Ok(out.flush()?)
    }

    /// Tells something meanwhile, on standard error.
    pub(crate) fn notice(&self, report: &impl Report) {
        let mut out = io::stderr().lock();
        // Nothing is left to tell it to when standard error is gone.
        let _ = match self.errors_are_json() {
            true => write_json(&mut out, report),
            false => report.human(&mut out),
        };
    }

    /// Tells why the command stopped, and gives the exit status.
    pub(crate) fn stop(&self, stop: Stop) -> ExitCode {
        match stop {
            Stop::PipeClosed => ExitCode::SUCCESS,
            Stop::Interrupted => ExitCode::from(130),
            Stop::BadNews => ExitCode::FAILURE,
            Stop::Failed(error) => self.fail(&error, None),
            Stop::Partly(error, appended) => self.fail(&error, Some(appended)),
        }
    }

    fn fail(&self, error: &Error, appended: Option<Appended>) -> ExitCode {
        // Nothing is left to tell it to when standard error is gone too.
        let _ = self.tell(error, appended);
        match error.code() {
            _ if error.is_in_doubt() => ExitCode::from(3),
            ErrorCode::Invalid => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }

    fn tell(&self, error: &Error, appended: Option<Appended>) -> io::Result<()> {
        let mut out = io::stderr().lock();
        let causes = causes(error);
        if !self.errors_are_json() {
            writeln!(out, "{}: {} ({})", self.program, error.message(), error.code())?;
            for cause in causes {
                writeln!(out, "  caused by: {cause}")?;
            }
            if let Some(token) = error.token() {
                writeln!(out, "  ask later what became of it: virtuallog resolve URL {token}")?;
            }
            if let Some(Appended { count, last, .. }) = appended {
                let count = counted(count, "entry", "entries");
                writeln!(out, "  appended before it: {count}, the last at position {last}")?;
            }
            return Ok(());
        }
        let mut object = json!({
            "code": error.code().name(),
            "message": error.message(),
            "in_doubt": error.is_in_doubt(),
            "retryable": error.is_retryable(),
            "position": error.position().map(|position| position.0),
        });
        if let Some(token) = error.token() {
            object["token"] = token.to_string().into();
        }
        if !causes.is_empty() {
            object["causes"] = causes.into();
        }
        if let Some(Appended { first, last, count }) = appended {
            object["appended"] = json!({ "count": count, "first": first.0, "last": last.0 });
        }
        write_json(&mut out, &object)
    }
}

/// One JSON object and the end of its line.
pub(crate) fn write_json(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

fn causes(error: &Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    causes
}

/// A number as people read it: `1,203,400`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and what it counts: `1 entry`, `1,203 entries`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// Lines of text with aligned columns; the first row is the heading.
pub(crate) fn table(out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (cell, width) in row.iter().zip(&mut widths) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_three() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "bcd".into()], vec!["long".into(), "e".into()]];
        let mut out = Vec::new();
        table(&mut out, &rows).expect("a vector takes everything");
        assert_eq!(String::from_utf8(out).expect("text"), "a     bcd\nlong  e\n");
    }
}
