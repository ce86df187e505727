//! Errors on their way out: the closest gRPC status, and trailers that say exactly what happened.
//!
//! The table is in the `.proto` file. One rule goes beyond it: what is in doubt is never `UNAVAILABLE`,
//! because clients re-send that by themselves.

use tonic::metadata::{AsciiMetadataValue, MetadataMap, MetadataValue};
use tonic::{Code, Status};
use virtuallog::{Error, ErrorCode};

use super::proto;

/// The status that a call ends with.
pub(super) fn status(error: Error) -> Status {
    let mut trailers = MetadataMap::new();
    let flag = |flag| MetadataValue::from_static(if flag { "true" } else { "false" });
    trailers.insert("virtuallog-code", MetadataValue::from_static(error.code().name()));
    trailers.insert("virtuallog-retryable", flag(error.is_retryable()));
    trailers.insert("virtuallog-in-doubt", flag(error.is_in_doubt()));
    if let Some(position) = error.position() {
        trailers.insert("virtuallog-position", position.0.into());
    }
    if let Some(token) =
        error.token().and_then(|t| AsciiMetadataValue::try_from(t.to_string()).ok())
    {
        trailers.insert("virtuallog-token", token);
    }
    Status::with_metadata(grpc_code(&error), error.message(), trailers)
}

fn grpc_code(error: &Error) -> Code {
    match error.code() {
        ErrorCode::Invalid | ErrorCode::TooLarge => Code::InvalidArgument,
        ErrorCode::NotFound => Code::NotFound,
        ErrorCode::Trimmed => Code::OutOfRange,
        ErrorCode::Sealed => Code::FailedPrecondition,
        ErrorCode::Conflict => Code::Aborted,
        ErrorCode::Busy | ErrorCode::DiskFull => Code::ResourceExhausted,
        ErrorCode::Deadline => Code::DeadlineExceeded,
        ErrorCode::Corrupt | ErrorCode::DataLoss => Code::DataLoss,
        ErrorCode::Incompatible => Code::Unimplemented,
        ErrorCode::Internal => Code::Internal,
        _ if error.is_in_doubt() => Code::Unknown,
        ErrorCode::Locked | ErrorCode::Unavailable | ErrorCode::Closed => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// The same as a message, for the outcome of one append among others.
pub(super) fn message(error: &Error) -> proto::Error {
    proto::Error {
        code: error.code().name().into(),
        message: error.message().into(),
        in_doubt: error.is_in_doubt(),
        retryable: error.is_retryable(),
        position: error.position().map(u64::from),
        token: error.token().map(ToString::to_string).unwrap_or_default(),
    }
}

/// What streams end with when the server stops under them.
pub(super) fn stopping() -> Status {
    let message = "the server stops: go to another one, or try again later";
    status(Error::new(ErrorCode::Unavailable, message))
}

#[cfg(test)]
mod tests {
    use virtuallog::LogPos;

    use super::*;

    #[test]
    fn every_code_has_a_status_and_its_trailers() {
        for code in ErrorCode::ALL {
            let status = status(Error::new(*code, "why").at(LogPos(7)));
            assert_ne!(status.code(), Code::Unknown, "{code}: give it a status");
            assert_ne!(status.code(), Code::Ok);
            let trailer = |name| status.metadata().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(trailer("virtuallog-code"), Some(code.name()));
            assert_eq!(trailer("virtuallog-position"), Some("7"));
            assert_eq!(trailer("virtuallog-in-doubt"), Some("false"));
            let retryable = if code.retryable() { "true" } else { "false" };
            assert_eq!(trailer("virtuallog-retryable"), Some(retryable));
            assert_eq!(trailer("virtuallog-token"), None);
        }
    }

    #[test]
    fn nothing_in_doubt_is_sent_again_by_itself() {
        for code in ErrorCode::ALL {
            let status = status(Error::new(*code, "why").in_doubt());
            assert_ne!(status.code(), Code::Unavailable, "{code}");
            let retryable = status.metadata().get("virtuallog-retryable");
            assert_eq!(retryable.and_then(|value| value.to_str().ok()), Some("false"));
        }
    }

    #[test]
    fn the_proto_file_has_the_same_table() {
        let file = include_str!("../../proto/virtuallog_v1.proto");
        for code in ErrorCode::ALL {
            let name = status(Error::new(*code, "why")).code();
            let name = format!("{name:?}").chars().fold(String::new(), |mut name, c| {
                if c.is_uppercase() && !name.is_empty() {
                    name.push('_');
                }
                name.extend(c.to_uppercase());
                name
            });
            let row = |line: &&str| line.split_whitespace().nth(1) == Some(code.name());
            let row = file.lines().find(|line| line.starts_with("//   ") && row(line));
            let row = row.unwrap_or_else(|| panic!("no row for {code}"));
            assert_eq!(row.split_whitespace().nth(2), Some(name.as_str()), "{code}");
        }
    }
}
