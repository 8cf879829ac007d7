//! RECORD: the list of a wheel's files with their hashes.
//!
//! Layer 1 (documents). Owns its CSV form, its base64 and the algorithms that are accepted; SHA-384 and SHA-512
//! are evidence, checked here and never identity. Must never judge whether a row is true: the wheel does.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha384, Sha512};

use crate::digest::Hasher;
use crate::path::ImagePath;

/// A hash that RECORD states.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stated {
    pub(super) algorithm: Algorithm,
    /// url-safe base64 without padding, as it stands in RECORD.
    pub(super) text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    pub(super) fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha384 => "sha384",
            Algorithm::Sha512 => "sha512",
        }
    }
}

/// A running hash in the algorithm that RECORD chose. SHA-384 and SHA-512 are evidence, never identity.
pub(super) enum Running {
    Sha256(Hasher),
    Sha384(Box<Sha384>),
    Sha512(Box<Sha512>),
}

impl Running {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Running::Sha256(Hasher::new()),
            Algorithm::Sha384 => Running::Sha384(Box::default()),
            Algorithm::Sha512 => Running::Sha512(Box::default()),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Running::Sha256(hasher) => hasher.update(bytes),
            Running::Sha384(hasher) => hasher.update(bytes),
            Running::Sha512(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> String {
        match self {
            Running::Sha256(hasher) => base64url(hasher.finish().bytes()),
            Running::Sha384(hasher) => base64url(&hasher.finalize()),
            Running::Sha512(hasher) => base64url(&hasher.finalize()),
        }
    }
}

pub(super) fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            out.push(char::from(DIGITS[(word >> (18 - 6 * at) & 63) as usize]));
        }
    }
    out
}

/// One row of RECORD.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) hash: Option<Stated>,
    pub(super) size: Option<u64>,
}

/// Parses RECORD: CSV of path, `algorithm=hash`, size. Only the form is judged here.
pub(super) fn parse_record(text: &[u8]) -> Result<BTreeMap<ImagePath, Row>, String> {
    let text = std::str::from_utf8(text).map_err(|_| "RECORD is not UTF-8")?;
    let mut rows = BTreeMap::new();
    for fields in csv(text)? {
        let [path, hash, size] = <[String; 3]>::try_from(fields).map_err(|fields| {
            format!("RECORD: expected path, hash and size, found {} fields in `{}`", fields.len(), shown(&fields.join(",")))
        })?;
        let path = ImagePath::new(&path).map_err(|error| format!("RECORD: {error}"))?;
        let hash = match hash.split_once('=') {
            None if hash.is_empty() => None,
            Some((algorithm, text)) => {
                let algorithm = match algorithm {
                    "sha256" => Algorithm::Sha256,
                    "sha384" => Algorithm::Sha384,
                    "sha512" => Algorithm::Sha512,
                    other => {
                        return Err(format!(
                            "RECORD: `{path}` is hashed with `{}`, expected sha256, sha384 or sha512",
                            shown(other)
                        ));
                    }
                };
                Some(Stated { algorithm, text: text.trim_end_matches('=').to_owned() })
            }
            None => return Err(format!("RECORD: `{path}` has the hash `{}`, expected algorithm=hash", shown(&hash))),
        };
        let size = match size.as_str() {
            "" => None,
            size => Some(size.parse().map_err(|_| format!("RECORD: `{path}` has the size `{}`", shown(size)))?),
        };
        let row = Row { hash, size };
        if let Some(before) = rows.insert(path.clone(), row.clone())
            && before != row
        {
            return Err(format!("RECORD: `{path}` is listed twice, with different rows"));
        }
    }
    Ok(rows)
}

pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// Rows of a CSV text as Python's csv module writes it; empty lines are skipped.
fn csv(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut rows = Vec::new();
    for line in text.lines() {
        if line.is_empty() {
            continue;
        }
        let mut row = Vec::new();
        let mut rest = line;
        loop {
            if let Some(quoted) = rest.strip_prefix('"') {
                let mut field = String::new();
                let mut chars = quoted.char_indices().peekable();
                let mut end = None;
                while let Some((at, c)) = chars.next() {
                    match c {
                        '"' if chars.next_if(|(_, next)| *next == '"').is_some() => field.push('"'),
                        '"' => {
                            end = Some(at + 1);
                            break;
                        }
                        c => field.push(c),
                    }
                }
                // A newline inside quotes is legal CSV, but no path may hold one.
                let end = end.ok_or_else(|| format!("RECORD: open quote in `{}`", shown(line)))?;
                row.push(field);
                rest = &quoted[end..];
                match rest.strip_prefix(',') {
                    Some(more) => rest = more,
                    None if rest.is_empty() => break,
                    None => return Err(format!("RECORD: text after a quote in `{}`", shown(line))),
                }
            } else {
                match rest.split_once(',') {
                    Some((field, more)) => {
                        row.push(field.to_owned());
                        rest = more;
                    }
                    None => {
                        row.push(rest.to_owned());
                        break;
                    }
                }
            }
        }
        rows.push(row);
    }
    Ok(rows)
}

pub(super) fn csv_field(text: &str) -> String {
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}
