//! Archives: what outside packages hold, read on the way into a layer and never unpacked to disk.
//!
//! Layer 1 (documents): readers over bytes that can be sought. They own no path and open no file; a `.deb`
//! is decompressed into an unnamed file in a folder the caller gives. Must never trust a name, a size or a
//! checksum that an archive states: every name becomes an [`ImagePath`], every size is capped before it is
//! believed, and content is checked by the time its last byte is handed out. Nothing is repaired: what two
//! readers could understand differently is refused.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use crate::path::{ImagePath, PathError};
use crate::tree::Mode;

mod deb;
mod record;
mod tar;
mod wheel;
mod zip;

#[cfg(test)]
pub(crate) mod testing;

pub use deb::{deb, deb_control};
pub use tar::{Indexed, TarKind, index as index_tar};
pub use wheel::{WheelLayout, WheelMeta, wheel, wheel_meta};
pub use zip::{Member, Zip};

/// Entries an archive may have at most.
pub const MAX_ENTRIES: usize = 1_000_000;
/// Bytes one file of an archive may have at most: the largest library of a CUDA wheel is under 2 GiB.
pub const MAX_FILE: u64 = 16 << 30;
/// Bytes all files of an archive may have together.
pub const MAX_TOTAL: u64 = 64 << 30;
/// Inflated bytes for each byte of the archive; real packages stay under 30.
pub const MAX_RATIO: u64 = 200;
/// Inflated bytes that are allowed whatever the ratio.
pub const RATIO_FREE: u64 = 256 << 20;
/// Bytes a document inside an archive (METADATA, RECORD, control) may have: it is read into memory.
pub const MAX_DOCUMENT: u64 = 64 << 20;

/// One entry of an archive on its way into a layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where it goes, relative to the image's root.
    pub path: ImagePath,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A folder.
    Dir,
    /// A file with content.
    File {
        /// 0644 or 0755.
        mode: Mode,
        /// Bytes.
        size: u64,
    },
    /// A symbolic link whose target stays inside the image.
    Link {
        /// As the link holds it: absolute, or relative to the link's folder.
        target: String,
    },
}

/// An opened archive: its entries sorted by path (bytes), and their content.
///
/// Folders that an archive implies but does not list are the layer author's to add; a wheel lists none.
pub trait Archive: Send {
    /// The entries, sorted by the bytes of their paths, each path once.
    fn entries(&self) -> &[Entry];

    /// Content of the file entry at `index`, verified by the time it ends: CRC, RECORD hash and length. An
    /// error instead of the last bytes when wrong.
    fn open<'a>(&'a mut self, index: usize) -> Result<Box<dyn Read + 'a>, ArchiveError>;
}

/// The kinds of archive read here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ArchiveKind {
    /// A Python wheel.
    Wheel,
    /// A Debian binary package.
    Deb,
    /// A zip file that is not taken for a wheel.
    Zip,
    /// An uncompressed tar.
    Tar,
}

impl fmt::Display for ArchiveKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ArchiveKind::Wheel => "wheel",
            ArchiveKind::Deb => "deb",
            ArchiveKind::Zip => "zip",
            ArchiveKind::Tar => "tar",
        })
    }
}

/// Where in which archive something is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// What the archive was read as.
    pub kind: ArchiveKind,
    /// The member's name, escaped and shortened; `None` for the archive as a whole.
    pub member: Option<String>,
}

impl Place {
    /// The archive as a whole.
    pub fn whole(kind: ArchiveKind) -> Self {
        Self { kind, member: None }
    }

    /// One member, by the name the archive gives it.
    pub fn member(kind: ArchiveKind, name: &[u8]) -> Self {
        let text = String::from_utf8_lossy(name);
        Self { kind, member: Some(text.chars().take(120).flat_map(char::escape_debug).collect()) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.member {
            Some(member) => write!(f, "{} member `{member}`", self.kind),
            None => write!(f, "{}", self.kind),
        }
    }
}

/// Why an archive was refused.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bytes could not be read.
    #[error("{place}: cannot be read")]
    Io {
        /// Where.
        place: Place,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A name that cannot stand in an image.
    #[error("{place}: unsafe name")]
    Path {
        /// Where.
        place: Place,
        /// What is wrong with it.
        #[source]
        source: PathError,
    },
    /// A link whose target leaves the image.
    #[error("{place}: link to `{target}` leaves the image")]
    LinkOut {
        /// Where.
        place: Place,
        /// The target.
        target: String,
    },
    /// Two statements that must agree do not.
    #[error("{place}: {what}: expected {expected}, found {found}")]
    Mismatch {
        /// Where.
        place: Place,
        /// What was compared.
        what: &'static str,
        /// What was stated.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The bytes are not of the format.
    #[error("{place}: {what}")]
    Malformed {
        /// Where.
        place: Place,
        /// What is wrong.
        what: String,
    },
    /// Of the format, but never accepted into an image or not supported.
    #[error("{place}: {what} refused")]
    Refused {
        /// Where.
        place: Place,
        /// What it has.
        what: String,
    },
    /// The same path twice.
    #[error("{place}: is there twice")]
    Duplicate {
        /// Where.
        place: Place,
    },
    /// A file where another entry needs a folder.
    #[error("{place}: is not a folder, but `{below}` lies below it")]
    NotAFolder {
        /// Where.
        place: Place,
        /// The entry below.
        below: ImagePath,
    },
    /// Over a cap.
    #[error("{place}: {what} is {found}, at most {most}")]
    TooMuch {
        /// Where.
        place: Place,
        /// What was counted.
        what: &'static str,
        /// How much.
        found: u64,
        /// The cap.
        most: u64,
    },
}

impl From<ArchiveError> for io::Error {
    fn from(error: ArchiveError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

impl ArchiveError {
    /// An I/O error at a place; one that carries an [`ArchiveError`] already is unwrapped.
    pub fn io(place: Place, source: io::Error) -> Self {
        match source.downcast::<ArchiveError>() {
            Ok(error) => error,
            Err(source) => ArchiveError::Io { place, source },
        }
    }

    fn malformed(place: Place, what: impl Into<String>) -> Self {
        ArchiveError::Malformed { place, what: what.into() }
    }

    fn refused(place: Place, what: impl Into<String>) -> Self {
        ArchiveError::Refused { place, what: what.into() }
    }

    fn mismatch(place: Place, what: &'static str, expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        ArchiveError::Mismatch { place, what, expected: expected.to_string(), found: found.to_string() }
    }
}

/// Refuses more than `most` of something.
fn at_most(place: impl FnOnce() -> Place, what: &'static str, found: u64, most: u64) -> Result<(), ArchiveError> {
    if found > most { Err(ArchiveError::TooMuch { place: place(), what, found, most }) } else { Ok(()) }
}

/// The most bytes an archive of `packed` bytes may inflate to.
fn inflated_cap(packed: u64) -> u64 {
    packed.saturating_mul(MAX_RATIO).saturating_add(RATIO_FREE).min(MAX_TOTAL)
}

/// Refuses entries below something that is not a folder. `entries` is sorted, each path once.
fn check_folders(kind: ArchiveKind, entries: &[(&ImagePath, bool)]) -> Result<(), ArchiveError> {
    for (path, _) in entries {
        for folder in path.ancestors() {
            if let Ok(at) = entries.binary_search_by(|(other, _)| (*other).cmp(&folder))
                && !entries[at].1
            {
                let place = Place::member(kind, folder.as_str().as_bytes());
                return Err(ArchiveError::NotAFolder { place, below: (*path).clone() });
            }
        }
    }
    Ok(())
}

/// Reads a whole archive, so that whatever is wrong with it is found, and says what it is in lines for a
/// person.
pub fn inspect(kind: ArchiveKind, file: File) -> Result<Vec<String>, ArchiveError> {
    match kind {
        ArchiveKind::Wheel => wheel::inspect(file),
        ArchiveKind::Deb => deb::inspect(file),
        ArchiveKind::Zip => zip::inspect(file),
        ArchiveKind::Tar => tar::inspect(file),
    }
}
