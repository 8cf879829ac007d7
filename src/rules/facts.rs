//! Facts: everything that rules look at, as plain data.
//!
//! Layer 2 (decisions): pure; `cli/facts.rs` gathers them. What was not at hand is absent, never empty. Must
//! never hold a secret: its place and kind are all that is kept.

use serde::{Deserialize, Serialize};

use super::{Evidence, part, python, signs};
use crate::artifact::Artifact;
use crate::competition::{Competition, Track};
use crate::copies::OpaqueWhy;
use crate::digest::Digest;
use crate::lockfile::Lockfile;
use crate::manifest::Manifest;
use crate::record::Record;
use crate::text::locate;
use crate::weights::{Content, Header, Measured};

/// Everything that rules look at.
pub struct Facts<'a> {
    /// What the author asks for.
    pub manifest: &'a Manifest,
    /// Its text.
    pub manifest_text: &'a str,
    /// The rules, as locked.
    pub competition: &'a Competition,
    /// The digest of the competition file that these rules were read from.
    pub competition_digest: Digest,
    /// What was chosen.
    pub lock: &'a Lockfile,
    /// What moved since it was locked, a sentence each.
    pub stale: Vec<String>,
    /// What was read in files of text, in the lock's order.
    pub files: Vec<FileFacts<'a>>,
    /// What was read in files of weights, in the lock's order.
    pub weights: Vec<WeightFile<'a>>,
    /// What files of code, and of data that is served, are by their bytes; in the lock's order.
    pub served: Vec<ServedFile<'a>>,
    /// What was read in packages, in the lock's order.
    pub packages: Vec<PackageFacts<'a>>,
    /// What the runs of steps did, or why their Record cannot be read.
    pub record: Option<Result<Record, String>>,
    /// What others handed in, where it was shown.
    pub others: Option<Vec<Other>>,
}

/// What was read in one file of an artifact.
pub struct FileFacts<'a> {
    /// The artifact.
    pub artifact: &'a Artifact,
    /// Path in it; empty for a single file.
    pub path: String,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// What was seen, or none where its bytes are not at hand.
    pub seen: Option<Seen>,
}

/// What a file's bytes say; a function of them and of what kind of file the path says it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Whether it is text; nothing else was read in what is not.
    #[serde(default)]
    pub is_text: bool,
    /// Secrets: line and kind.
    #[serde(default)]
    pub secrets: Vec<(usize, String)>,
    /// What a program fetches.
    #[serde(default)]
    pub calls: Vec<python::Call>,
    /// Why it could not be read as what it is.
    #[serde(default)]
    pub unreadable: Option<String>,
    /// Signs of generated text.
    #[serde(default)]
    pub signs: Option<signs::Signs>,
    /// `model_type` of a `config.json`.
    #[serde(default)]
    pub model_type: Option<String>,
    /// Repositories that a `config.json` takes code from when it is loaded.
    #[serde(default)]
    pub remote_code: Vec<String>,
    /// Whether a `config.json` says that weights are quantised.
    #[serde(default)]
    pub quantised: bool,
    /// The text of an `adapter_config.json`.
    #[serde(default)]
    pub adapter: Option<String>,
    /// Licences that a card names.
    #[serde(default)]
    pub licenses: Vec<String>,
}

/// A file of weights of a model, or of what a submission adds.
pub struct WeightFile<'a> {
    /// The artifact.
    pub artifact: &'a Artifact,
    /// Path in it.
    pub path: String,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// What was found in it.
    pub found: Found,
}

/// What was found in a file of weights.
#[derive(Clone, PartialEq, Debug)]
pub enum Found {
    /// Its bytes are not at hand.
    Absent,
    /// A pickle, and how it was told; it was not opened.
    Pickle(String),
    /// It is not what its format asks for.
    Refused(String),
    /// Its header.
    Header(Header),
    /// Its header, and each tensor measured.
    Tensors(Content),
}

impl Found {
    /// The header, where one was read.
    pub fn header(&self) -> Option<&Header> {
        match self {
            Found::Header(header) | Found::Tensors(Content { header, .. }) => Some(header),
            _ => None,
        }
    }

    /// The tensors, where they were measured.
    pub fn tensors(&self) -> Option<&[Measured]> {
        match self {
            Found::Tensors(content) => Some(&content.tensors),
            _ => None,
        }
    }
}

/// A file of the code, or of data that is served.
pub struct ServedFile<'a> {
    /// The artifact.
    pub artifact: &'a Artifact,
    /// Path in it; empty for a single file.
    pub path: String,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Bytes it has.
    pub size: u64,
    /// What it is, or none where its bytes are not at hand.
    pub is: Option<Hides>,
}

/// What a file could hide, by its first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hides {
    /// It is text, small, or of a known format.
    Nothing,
    /// It is a file of tensors.
    Tensors,
    /// It is a pickle, and how it was told; it was not opened.
    Pickle(String),
    /// It could hide anything.
    Anything(OpaqueWhy),
}

/// What was read in one package of the system or of Python.
pub struct PackageFacts<'a> {
    /// The package.
    pub artifact: &'a Artifact,
    /// What was seen, or none where its bytes are not at hand.
    pub seen: Option<PackageSeen>,
}

/// What a package's files say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageSeen {
    /// Secrets in files of text: path in the image, line and kind.
    #[serde(default)]
    pub secrets: Vec<(String, usize, String)>,
    /// Files in folders of programs, as paths in the image.
    #[serde(default)]
    pub programs: Vec<String>,
    /// Bytes of its files together, unpacked.
    #[serde(default)]
    pub bytes: u64,
    /// Why it could not be read.
    #[serde(default)]
    pub unreadable: Option<String>,
}

/// What somebody else handed in, or this team in another submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// The name of its folder.
    pub name: String,
    /// Its competition's name.
    pub competition: String,
    /// Its track.
    pub track: String,
    /// Its team's members.
    pub team: Vec<String>,
    /// Digest of its code.
    pub code: Option<Digest>,
    /// Digests of the weights that it serves.
    pub weights: Vec<Digest>,
}

impl Facts<'_> {
    /// The track that is judged; none where the competition no longer has it.
    pub(super) fn track(&self) -> Option<&Track> {
        self.competition.tracks.get(&self.manifest.submission.track)
    }

    /// A place in pack.toml.
    pub(super) fn line(&self, table: &str, key: Option<&str>) -> Evidence {
        let (line, _) = locate(self.manifest_text, table, key);
        let excerpt = self.manifest_text.lines().nth(line - 1).map(|line| line.trim().to_owned());
        // A value may be a secret in a table of variables; no rule points into one.
        Evidence { path: Some("pack.toml".into()), line: Some(line), excerpt, ..Evidence::default() }
    }

    /// The files of an artifact.
    pub(super) fn files_of<'s>(&'s self, artifact: &'s Artifact) -> impl Iterator<Item = &'s FileFacts<'s>> {
        self.files.iter().filter(move |file| file.artifact.role == artifact.role && file.artifact.name == artifact.name)
    }

    /// The files of weights of an artifact.
    pub(super) fn weights_of<'s>(&'s self, artifact: &'s Artifact) -> impl Iterator<Item = &'s WeightFile<'s>> {
        self.weights.iter().filter(move |file| file.artifact.role == artifact.role && file.artifact.name == artifact.name)
    }
}

impl WeightFile<'_> {
    /// It as evidence.
    pub(super) fn evidence(&self) -> Evidence {
        part(self.artifact, &self.path, self.digest)
    }

    /// The folder it lies in, with a slash at the end; empty at the top.
    pub(super) fn folder(&self) -> &str {
        self.path.rfind('/').map_or("", |at| &self.path[..=at])
    }
}
