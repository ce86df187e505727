//! The corpus of a target as one file of text: an input a line, in hexadecimal.
//!
//! A change of it can be read as a change, and a hundred inputs are one file. libFuzzer wants a file
//! for each: `bin/corpus.rs` takes them apart and puts them together.

use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Longest input that is kept, in bytes: a longer one is a test of its own.
pub const INPUT_BYTES_MAX: usize = 8192;

/// Where the corpus of a target is.
#[must_use]
pub fn path(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(format!("{target}.hex"))
}

/// The inputs in a file's text.
///
/// # Errors
/// The number of the first line that is not hexadecimal.
pub fn parse(text: &str) -> Result<Vec<Vec<u8>>, usize> {
    text.lines().enumerate().map(|(number, line)| bytes(line).ok_or(number + 1)).collect()
}

fn bytes(line: &str) -> Option<Vec<u8>> {
    let digits = line.as_bytes().chunks(2);
    digits
        .map(|two| {
            let digit = |at: usize| char::from(*two.get(at)?).to_digit(16);
            Some((digit(0)? << 4 | digit(1)?) as u8)
        })
        .collect()
}

/// The text of a file with these inputs: sorted, each once, and none that is too long.
#[must_use]
pub fn text(mut inputs: Vec<Vec<u8>>) -> String {
    inputs.retain(|input| input.len() <= INPUT_BYTES_MAX);
    inputs.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    inputs.dedup();
    let mut text = String::new();
    for input in inputs {
        for byte in input {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_written_and_read() {
        let written = text(vec![vec![1, 255], vec![], vec![0], vec![1, 255]]);
        assert_eq!(written, "\n00\n01ff\n");
        assert_eq!(parse(&written), Ok(vec![vec![], vec![0], vec![1, 255]]));
        for wrong in ["0", "0g", "00\n+1"] {
            assert_eq!(parse(wrong), Err(wrong.lines().count()));
        }
    }
}
