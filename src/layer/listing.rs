//! Listing: what is in a layer, a line an entry, kept as a blob beside it.
//!
//! Layer 3 (effects), but pure itself. Serves `pack image ls`, the check that no two layers write one path
//! differently, and the golden listings of the tests.

use std::collections::BTreeMap;
use std::fmt;

use crate::digest::Digest;
use crate::path::ImagePath;

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// A folder.
    Dir,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
}

/// One entry of a layer.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Line {
    /// Where.
    pub path: ImagePath,
    /// What.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Content's digest, of a file.
    pub digest: Option<Digest>,
    /// Bytes.
    pub size: u64,
    /// What a link says.
    pub target: Option<String>,
}

/// A layer's entries, sorted by path.
pub type Listing = Vec<Line>;

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Dir => write!(f, "dir {:04o} - - {}", self.mode, self.path),
            Kind::Link => write!(f, "link {:04o} - - {} -> {}", self.mode, self.path, self.target.as_deref().unwrap_or("")),
            Kind::File => {
                let digest = self.digest.map_or_else(|| "-".to_owned(), |digest| digest.hex());
                write!(f, "file {:04o} {digest} {} {}", self.mode, self.size, self.path)
            }
        }
    }
}

pub(super) fn text(entries: &BTreeMap<ImagePath, (Line, String)>) -> String {
    let mut out = String::new();
    for (line, _) in entries.values() {
        out.push_str(&line.to_string());
        out.push('\n');
    }
    out
}

impl Line {
    /// Reads a line of a stored listing.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(5, ' ');
        let kind = match words.next()? {
            "dir" => Kind::Dir,
            "file" => Kind::File,
            "link" => Kind::Link,
            _ => return None,
        };
        let mode = u32::from_str_radix(words.next()?, 8).ok()?;
        let digest = words.next().filter(|word| *word != "-").map(Digest::from_hex).transpose().ok()?;
        let size = words.next()?.parse().unwrap_or(0);
        let rest = words.next()?;
        let (path, target) = match kind {
            Kind::Link => rest.split_once(" -> ").map(|(path, target)| (path, Some(target.to_owned())))?,
            _ => (rest, None),
        };
        Some(Line { path: ImagePath::new(path).ok()?, kind, mode, digest, size, target })
    }
}
