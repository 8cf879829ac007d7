//! Listing: what is in a layer, a line an entry, kept as a blob beside it.
//!
//! Layer 3 (effects), but pure itself. Serves the comparison of images, the check that no two layers write one path
//! differently, and the check of unpacked layers. It is no part of an image: a form of its own that may change with
//! [`FORM`]. Must never leave out a line that it cannot read.

use std::collections::BTreeMap;
use std::fmt;

use crate::digest::Digest;
use crate::path::ImagePath;

/// Of the text below. What is remembered of a layer is remembered under it, so changing it makes layers anew.
pub(super) const FORM: &str = "layers-2";

/// What an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A folder.
    Dir,
    /// A regular file.
    File {
        /// Of the content.
        digest: Digest,
        /// Bytes.
        size: u64,
    },
    /// A symbolic link.
    Link {
        /// What it says.
        target: String,
    },
}

/// One entry of a layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Where.
    pub path: ImagePath,
    /// Permission bits.
    pub mode: u32,
    /// What.
    pub kind: Kind,
}

/// A layer's entries, sorted by path, each path once.
pub type Listing = Vec<Line>;

/// Why a listing is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ListingError {
    /// The bytes are no text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// A line says nothing that is known.
    #[error("line {line}: expected `dir MODE PATH`, `file MODE SHA256 SIZE PATH` or `link MODE LENGTH PATH -> TARGET`")]
    Form {
        /// From 1.
        line: usize,
    },
    /// A path comes twice, or too early.
    #[error("line {line}: expected a path after the one before it, found `{path}`")]
    Order {
        /// From 1.
        line: usize,
        /// The path.
        path: ImagePath,
    },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { path, mode, kind } = self;
        match kind {
            Kind::Dir => write!(f, "dir {mode:04o} {path}"),
            Kind::File { digest, size } => write!(f, "file {mode:04o} {} {size} {path}", digest.hex()),
            // A path may hold ` -> ` itself, so its length in bytes says where it ends.
            Kind::Link { target } => write!(f, "link {mode:04o} {} {path} -> {target}", path.as_str().len()),
        }
    }
}

pub(super) fn text<'a>(lines: impl IntoIterator<Item = &'a Line>) -> String {
    lines.into_iter().map(|line| format!("{line}\n")).collect()
}

/// Reads a stored listing.
///
/// # Errors
/// Where one line of it cannot be read.
pub fn parse(bytes: &[u8]) -> Result<Listing, ListingError> {
    let text = std::str::from_utf8(bytes).map_err(|_| ListingError::NotUtf8)?;
    let mut listing = Listing::new();
    for (at, text) in text.split_terminator('\n').enumerate() {
        let line = parse_line(text).ok_or(ListingError::Form { line: at + 1 })?;
        if listing.last().is_some_and(|before| before.path >= line.path) {
            return Err(ListingError::Order { line: at + 1, path: line.path });
        }
        listing.push(line);
    }
    Ok(listing)
}

fn parse_line(text: &str) -> Option<Line> {
    let (kind, rest) = text.split_once(' ')?;
    let (mode, rest) = rest.split_once(' ')?;
    let mode = u32::from_str_radix(mode, 8).ok()?;
    let (path, kind) = match kind {
        "dir" => (rest, Kind::Dir),
        "file" => {
            let (digest, rest) = rest.split_once(' ')?;
            let (size, path) = rest.split_once(' ')?;
            (path, Kind::File { digest: Digest::from_hex(digest).ok()?, size: size.parse().ok()? })
        }
        "link" => {
            let (length, rest) = rest.split_once(' ')?;
            let (path, rest) = rest.split_at_checked(length.parse().ok()?)?;
            (path, Kind::Link { target: rest.strip_prefix(" -> ")?.to_owned() })
        }
        _ => return None,
    };
    Some(Line { path: ImagePath::new(path).ok()?, mode, kind })
}

/// Lines by their paths, each once, with who wrote it: how a layer's author collects them.
pub(super) type Written = BTreeMap<ImagePath, (Line, String)>;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str, mode: u32, kind: Kind) -> Line {
        Line { path: ImagePath::new(path).unwrap(), mode, kind }
    }

    #[test]
    fn what_is_written_is_read_whatever_the_names() {
        let link = |target: &str| Kind::Link { target: target.into() };
        let listing = vec![
            line("a -> b", 0o777, link("c -> d")),
            line("bin", 0o755, Kind::Dir),
            line("bin/a b", 0o644, Kind::File { digest: Digest::of(b"x"), size: 1 }),
            line("bin/sh", 0o777, link("dash")),
            line("bin/é -> ", 0o777, link(" -> ")),
        ];
        assert_eq!(parse(text(&listing).as_bytes()), Ok(listing));
        assert_eq!(parse(b""), Ok(Vec::new()));
    }

    #[test]
    fn a_line_that_cannot_be_read_is_said() {
        let hex = Digest::of(b"x").hex();
        let cases = [
            ("a kind", "pipe 0644 x".to_owned()),
            ("a mode", "dir 9 x".to_owned()),
            ("a file without a digest", "file 0644 - 1 x".to_owned()),
            ("a size", format!("file 0644 {hex} - x")),
            ("no path", format!("file 0644 {hex} 1 ")),
            ("a path that climbs", "dir 0755 ../x".to_owned()),
            ("a length that cuts a letter", "link 0777 1 é -> x".to_owned()),
            ("a length that is too long", "link 0777 99 a -> x".to_owned()),
            ("no target", "link 0777 1 a".to_owned()),
            ("an empty line", String::new()),
        ];
        for (what, bad) in cases {
            let found = parse(format!("dir 0755 a0\n{bad}\n").as_bytes());
            assert_eq!(found, Err(ListingError::Form { line: 2 }), "{what}");
        }
        assert_eq!(parse(b"dir 0755 \xff\n"), Err(ListingError::NotUtf8));
        let twice = Err(ListingError::Order { line: 2, path: ImagePath::new("a").unwrap() });
        assert_eq!(parse(b"dir 0755 a\ndir 0755 a\n"), twice);
    }
}
