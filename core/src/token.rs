//! The name of an append whose outcome is in doubt: what to keep in order to look it up later.

use std::fmt;
use std::str::FromStr;

use virtuallog_protocol::{LogletPos, WriterId};

use crate::error::{Error, Result};

/// Names one append whose outcome is in doubt.
///
/// Write it down with `Display`, read it back with `FromStr`, in this process or another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub(crate) writer: WriterId,
    /// Of this entry, not of its batch.
    pub(crate) seq: u64,
    /// The segment that it was sent to. Whoever holds a token may rely on it: the append goes to no
    /// segment after this one.
    pub(crate) segment: u32,
    /// The log's end in that segment when it was sent: it can only be at or after this.
    pub(crate) from: LogletPos,
}

impl Token {
    pub(crate) fn plus(&self, entries: u64) -> Token {
        Token { seq: self.seq + entries, ..self.clone() }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}.{}", self.writer, self.seq, self.segment, self.from)
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Token> {
        let bad = || Error::invalid(format!("not a token of an append in doubt: `{text}`"));
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or_else(bad);
        let writer = WriterId(u128::from_str_radix(part()?, 16).map_err(|_| bad())?);
        let seq = part()?.parse().map_err(|_| bad())?;
        let segment = part()?.parse().map_err(|_| bad())?;
        let from = LogletPos(part()?.parse().map_err(|_| bad())?);
        if parts.next().is_some() {
            return Err(bad());
        }
        Ok(Token { writer, seq, segment, from })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_can_be_written_down() {
        let token = Token { writer: WriterId(0xabc), seq: 7, segment: 3, from: LogletPos(9) };
        assert_eq!(token.to_string().parse::<Token>().expect("its own form"), token);
        for bad in ["", "1.2.3", "1.2.3.4.5", "g.1.1.1", "1.-1.1.1"] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }
}
