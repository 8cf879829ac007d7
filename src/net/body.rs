//! Body: the bytes of an answer, decompressed where a server compresses regardless.
//!
//! Layer 3 (effects). Must never decompress a file whose pinned bytes are the compressed ones.

use std::error::Error;
use std::io::{self, Read};

use flate2::read::MultiGzDecoder;
use reqwest::blocking::Response;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH};

use super::exchange::Answer;
use super::{NetError, shown};

/// How a body is to be read.
pub(super) enum Body {
    Plain,
    Gzip,
}

impl Body {
    /// `identity` was asked for, yet some servers compress regardless, and others call the compression that
    /// is part of the file itself (`.tar.gz`) an encoding of the transfer. The length tells the two apart, or
    /// else the name.
    pub fn of(answer: &Answer, expected: Option<u64>) -> Result<Self, NetError> {
        let encoding = answer.header(CONTENT_ENCODING).unwrap_or("identity").trim().to_ascii_lowercase();
        let is_file = match (length(answer), expected) {
            (Some(length), Some(expected)) => length == expected,
            _ => [".gz", ".tgz"].iter().any(|end| answer.url.path().ends_with(end)),
        };
        match encoding.as_str() {
            "" | "identity" => Ok(Self::Plain),
            "gzip" | "x-gzip" if is_file => Ok(Self::Plain),
            // A part of a compressed stream cannot be read.
            "gzip" | "x-gzip" if answer.status == 200 => Ok(Self::Gzip),
            _ if is_file && expected.is_some() => Ok(Self::Plain),
            _ => Err(NetError::Encoding { url: shown(&answer.url), encoding }),
        }
    }

    pub fn reader(&self, response: Response) -> Box<dyn Read> {
        match self {
            Self::Plain => Box::new(response),
            Self::Gzip => Box::new(MultiGzDecoder::new(response)),
        }
    }
}

/// What the server says about the length of what it sends.
pub(super) fn length(answer: &Answer) -> Option<u64> {
    answer.header(CONTENT_LENGTH)?.trim().parse().ok()
}

/// Takes the URL out of an error that came while a body was read.
pub(super) fn body_error(error: io::Error) -> Box<dyn Error + Send + Sync> {
    if !error.get_ref().is_some_and(|inner| inner.is::<reqwest::Error>()) {
        return Box::new(error);
    }
    match error.into_inner().map(|inner| inner.downcast::<reqwest::Error>()) {
        Some(Ok(inner)) => Box::new(inner.without_url()),
        Some(Err(other)) => other,
        None => "unknown error".into(),
    }
}
