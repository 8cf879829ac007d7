//! Bundle: what a participant hands in, as one tar: the project's documents, and the bytes that nobody else has.
//!
//! Layer 3 (effects). Specified in docs/bundle.md. The first member, `bundle.json`, lists all others; from it
//! alone follows every header of the tar, so that a reader compares and never interprets. The same project
//! gives the same bytes. Must never carry what the lock or the Record does not name, nor leave anything of a
//! refused bundle behind but blobs that have their digests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::artifact::{Artifact, Pin, WheelPlace};
use crate::digest::Digest;
use crate::lockfile::Lockfile;
use crate::path::ImagePath;
use crate::record::Record;
use crate::store::StoreError;
use crate::text::Diagnostic;
use crate::tree::{MAX_SIZE, Mode, Tree, TreeFile};

mod lay;
mod read;
mod tar;
mod write;

pub use read::{Lay, Opened, Refetched, check, open};
pub use write::{Document, write};

/// The version that is written and read.
pub const VERSION: u32 = 1;
/// The first member.
pub const INDEX: &str = "bundle.json";
pub use crate::artifact::BUNDLE_ENDING as ENDING;
/// Where a project's envelopes lie, below its folder.
pub const ENVELOPES: &str = ".pack/attestations/";

/// Bytes of the index at most: some hundred thousand blobs.
const MAX_INDEX: u64 = 64 << 20;
/// Bytes of one document at most; a lock of half a million files.
const MAX_DOCUMENT: u64 = 64 << 20;
/// Bytes of all documents together, which are held in memory.
const MAX_DOCUMENTS: u64 = 128 << 20;
/// Members at most.
const MAX_MEMBERS: usize = 1_000_000;

/// Why a bundle is refused, or could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The disk said no.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Not a bundle at all.
    #[error("not a bundle: it does not begin with `{INDEX}`")]
    NotABundle,
    /// From a later `pack`.
    #[error("bundle version {found} is not known to this pack, which knows {VERSION}")]
    Version {
        /// The number found.
        found: u64,
    },
    /// The index is not of its form.
    #[error("{INDEX}: {0}")]
    Index(String),
    /// Fewer bytes than the index says.
    #[error("the bundle is cut short: expected {expected} bytes by its index, found {found}")]
    Short {
        /// Bytes that the index makes.
        expected: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// Another member, or the same with another header.
    #[error("expected {expected}, found {found}")]
    Member {
        /// What the index says comes next.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Content that is not what the index says.
    #[error("`{path}`: expected {expected}, found {found}")]
    Content {
        /// The member.
        path: String,
        /// Digest by the index.
        expected: Digest,
        /// Digest of the bytes.
        found: Digest,
    },
    /// A document that is missing, or that a bundle does not hold.
    #[error("{0}")]
    Lies(String),
    /// A document of the project that cannot be read.
    #[error(transparent)]
    Document(#[from] Diagnostic),
    /// A document of the project that cannot be read.
    #[error(transparent)]
    Record(#[from] crate::record::RecordError),
    /// Over a cap.
    #[error("{what} is {found}, at most {most}")]
    TooMuch {
        /// What was counted.
        what: &'static str,
        /// How much.
        found: u64,
        /// The cap.
        most: u64,
    },
    /// More bytes than there is room for.
    #[error("the bundle brings {wanted} bytes, and the {place} has room for {free}")]
    NoRoom {
        /// Where.
        place: &'static str,
        /// Bytes that would be written there.
        wanted: u64,
        /// Bytes free there.
        free: u64,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Inputs that `[python]` names.
    #[error(transparent)]
    Source(#[from] crate::source::SourceError),
}

/// A blob of a bundle, as it stands in the index: `<hex> <size>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Blob {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.digest.hex(), self.size)
    }
}

impl FromStr for Blob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(' ').and_then(|(hex, size)| {
            Some(Blob { digest: Digest::from_hex(hex).ok()?, size: size.parse().ok().filter(|size| *size <= MAX_SIZE)? })
        });
        let refuse = || format!("expected `<sha256> <size>`, found `{}`", shown(text));
        parsed.filter(|blob| blob.to_string() == text).ok_or_else(refuse)
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a bundle holds: `bundle.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Version of this form.
    pub version: u32,
    /// The project's documents, under `project/`.
    pub files: Tree,
    /// All other content, once each, sorted, under `blobs/sha256/`.
    pub blobs: Vec<Blob>,
}

impl Index {
    /// An index of documents and blobs.
    pub fn new(files: Tree, blobs: BTreeSet<(Digest, u64)>) -> Self {
        let blobs = blobs.into_iter().map(|(digest, size)| Blob { digest, size }).collect();
        Self { version: VERSION, files, blobs }
    }

    /// Its text: canonical JSON.
    pub fn text(&self) -> Vec<u8> {
        serde_json_canonicalizer::to_vec(self).expect("texts and small numbers have a canonical form")
    }

    /// Reads an index; the version is looked at first.
    pub fn parse(text: &[u8]) -> Result<Self, BundleError> {
        // It is one long line, so its columns say nothing to a person.
        let broken = |error: serde_json::Error| {
            let said = error.to_string();
            BundleError::Index(shown(said.split(" at line ").next().unwrap_or_default()))
        };
        let value: serde_json::Value = serde_json::from_slice(text).map_err(broken)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(found) if found == u64::from(VERSION) => {}
            Some(found) => return Err(BundleError::Version { found }),
            None => return Err(BundleError::Index("expected a version".into())),
        }
        drop(value);
        let index: Index = serde_json::from_slice(text).map_err(broken)?;
        if let Some(pair) = index.blobs.windows(2).find(|pair| pair[0].digest >= pair[1].digest) {
            return Err(BundleError::Index(format!("blob {} is out of order or given twice", pair[1].digest)));
        }
        if index.text() != text {
            return Err(BundleError::Index("it is not in its canonical form".into()));
        }
        index.judge()?;
        Ok(index)
    }

    /// Refuses what no bundle holds, whatever the lock says.
    fn judge(&self) -> Result<(), BundleError> {
        at_most("number of members", (self.files.files().len() + self.blobs.len()) as u64, MAX_MEMBERS as u64)?;
        let mut documents = 0;
        for file in self.files.files() {
            at_most("size of a document", file.size, MAX_DOCUMENT)?;
            documents += file.size;
            if file.mode != Mode::Plain {
                return Err(BundleError::Index(format!("document `{}` is executable", file.path)));
            }
        }
        at_most("size of all documents", documents, MAX_DOCUMENTS)?;
        let blobs = self.blobs.iter().try_fold(0u64, |sum, blob| sum.checked_add(blob.size));
        if blobs.is_none_or(|sum| sum > MAX_SIZE) {
            return Err(BundleError::Index(format!("its sizes add up to more than {MAX_SIZE} bytes")));
        }
        Ok(())
    }

    /// Every member after the index, in order: name, bytes, digest.
    fn members(&self) -> impl Iterator<Item = Member> + '_ {
        let documents = self.files.files().iter().map(Member::document);
        documents.chain(self.blobs.iter().map(Member::blob))
    }

    fn document(&self, path: &str) -> Option<&TreeFile> {
        self.files.files().iter().find(|file| file.path.as_str() == path)
    }
}

/// A member of a bundle after its index.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Member {
    path: ImagePath,
    size: u64,
    digest: Digest,
    /// Below the project, for a document.
    document: Option<ImagePath>,
}

impl Member {
    fn document(file: &TreeFile) -> Self {
        // A path that would be too long with its prefix is refused by the tree's own rules of length.
        let path = ImagePath::new("project").expect("a constant").join(&file.path).unwrap_or_else(|_| file.path.clone());
        Self { path, size: file.size, digest: file.digest, document: Some(file.path.clone()) }
    }

    fn blob(blob: &Blob) -> Self {
        let path = ImagePath::new(&format!("blobs/sha256/{}", blob.digest.hex())).expect("hex is a name");
        Self { path, size: blob.size, digest: blob.digest, document: None }
    }
}

/// What of a lock and a Record a bundle holds.
#[derive(Debug, Default)]
pub struct Carried {
    /// Blobs that nobody else has: files beside the manifest, wheels of the author's, outputs in the lock; and the
    /// evidence, without which nobody vouches for the system's packages.
    pub must: BTreeSet<(Digest, u64)>,
    /// Blobs that are taken along where they are at hand: what the Record names.
    pub may: BTreeSet<(Digest, u64)>,
    /// Blobs that can be fetched by their pins.
    pub public: BTreeSet<(Digest, u64)>,
}

impl Carried {
    /// Sorts what a lock and a Record name.
    pub fn of(lock: &Lockfile, record: Option<&Record>) -> Self {
        let mut carried = Carried::default();
        for artifact in &lock.artifacts {
            let to = if is_public(artifact) { &mut carried.public } else { &mut carried.must };
            to.extend(artifact.blobs());
        }
        carried.must.extend(lock.evidence.iter().map(|evidence| (evidence.digest, evidence.size)));
        for step in record.iter().flat_map(|record| record.steps.values()) {
            for tree in step.outputs.values().chain([&step.code]) {
                carried.may.extend(tree.files().iter().map(|file| (file.digest, file.size)));
            }
        }
        carried
    }
}

/// Whether an artifact's bytes can be had by its pin, from somebody else.
pub fn is_public(artifact: &Artifact) -> bool {
    match &artifact.pin {
        Pin::Path(_) | Pin::Step(_) => false,
        Pin::Wheel(pin) => matches!(pin.place, WheelPlace::Url(_)),
        Pin::Pypi(_) | Pin::Debian(_) | Pin::Ubuntu(_) | Pin::Hf(_) | Pin::Git(_) | Pin::Url(_) => true,
    }
}

fn at_most(what: &'static str, found: u64, most: u64) -> Result<(), BundleError> {
    if found > most { Err(BundleError::TooMuch { what, found, most }) } else { Ok(()) }
}

fn io_error(action: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { action, path, source }
}

/// A text from a bundle as it may be printed; what is escaped already stays.
fn shown(text: &str) -> String {
    let clean = |c: char| if c.is_control() { c.escape_unicode().collect() } else { c.to_string() };
    text.chars().take(200).map(clean).collect()
}

/// Where each file of a project goes, with what: paths once, whoever names them.
type Places = BTreeMap<ImagePath, (Digest, u64, Mode)>;

#[cfg(test)]
mod tests;
