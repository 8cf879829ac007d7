//! Sources: where artifacts come from. This file holds the trait and the only match on source kinds.
//!
//! Layer 3 (effects). `resolve` turns a Want into pinned Artifacts and may use the network; `fetch` brings
//! the bytes of an Artifact by its pin and decides nothing. Must never put bytes anywhere but through the
//! store's door.

use std::collections::BTreeMap;
use std::path::Path;

pub use crate::artifact::Evidence;
use crate::artifact::{Artifact, Name, Pin, Role};
use crate::manifest;
use crate::net::Net;
use crate::par;
use crate::progress::Progress;
use crate::store::Store;

use self::vouch::Word;

pub mod choose;
pub mod debian;
pub mod fits;
pub mod git;
pub mod hf;
pub mod path;
pub mod pypi;
pub mod step;
pub mod url;
pub mod vouch;
pub mod wheel;

/// What every source is given: the capabilities it may use, and nothing else.
pub struct Context<'a> {
    /// Folder of the manifest.
    pub project: &'a Path,
    /// The whole manifest, for settings such as `[mirrors]` and the Python version; a source reads its own tables.
    pub manifest: &'a manifest::Manifest,
    /// The door for bytes.
    pub store: &'a Store,
    /// The network; `Net` itself refuses when the user said `--offline`.
    pub net: &'a Net,
    /// What the person sees.
    pub progress: &'a Progress,
    /// Threads for work on many items.
    pub jobs: usize,
}

/// What the author asks one source for.
pub enum Want<'a> {
    /// The operating system: all packages together.
    System(&'a manifest::System),
    /// All Python packages together; `system` is what was just resolved for `[system]`, so that the C
    /// library's version decides which wheels are admissible.
    Python {
        /// The table.
        python: &'a manifest::Python,
        /// The system's packages.
        system: &'a [Artifact],
    },
    /// One model, data set, weights folder or the code.
    Tree {
        /// Its name.
        name: &'a Name,
        /// What it is for.
        role: Role,
        /// The table.
        want: &'a manifest::TreeWant,
    },
}

/// What a source answers.
#[derive(Debug, Default)]
pub struct Resolved {
    /// Pinned artifacts, in any order.
    pub artifacts: Vec<Artifact>,
    /// What a signature chain needs, already in the store.
    pub evidence: Vec<Evidence>,
    /// What the author should know.
    pub warnings: Vec<String>,
}

/// How an old lock bears on a new resolution.
pub struct Previous<'a> {
    /// Artifacts of the old lock that this want produced.
    pub artifacts: &'a [Artifact],
    /// Evidence of the old lock.
    pub evidence: &'a [Evidence],
    /// Names that must be chosen afresh; `None`: none of them. `Some(empty)`: all.
    pub upgrade: Option<&'a [String]>,
}

/// A failure of a source: a sentence for the person, the cause, and what to do next.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What could not be done, to what.
    pub message: String,
    /// The next thing to type or change.
    pub help: Option<String>,
    /// What lies beneath.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SourceError {
    /// A sentence.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, source: None }
    }

    /// With what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// With what lies beneath.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// A place where artifacts come from.
pub trait Provider {
    /// Chooses: turns a Want into Artifacts. May use the network and may put evidence in the store.
    fn resolve(&self, want: &Want, previous: &Previous, cx: &Context) -> Result<Resolved, SourceError>;

    /// Brings every blob of an Artifact that is not in the store yet, by its pin. Decides nothing.
    fn fetch(&self, artifact: &Artifact, cx: &Context) -> Result<(), SourceError>;

    /// Asks what lies at an Artifact's pin, without believing the lock that names it. What could not be asked is an error.
    fn confirm(&self, artifact: &Artifact, _: &Context) -> Result<Word, SourceError> {
        Err(SourceError::new(format!("nobody vouches for source `{}`", artifact.pin.source())))
    }

    /// Hears what is going to be fetched, so that an index is asked once for all of it.
    fn expect(&self, _: &[Artifact]) {}
}

/// Chooses, and remembers what the source itself said of what was chosen.
pub fn resolve(source: &str, want: &Want, previous: &Previous, cx: &Context) -> Result<Resolved, SourceError> {
    let resolved = provider(source)?.resolve(want, previous, cx)?;
    // These ask each time; what lies at an address is remembered where it is read, which is not each time.
    let asked = |artifact: &&Artifact| matches!(artifact.pin, Pin::Hf(_) | Pin::Git(_) | Pin::Pypi(_));
    for artifact in resolved.artifacts.iter().filter(asked) {
        vouch::remember(artifact, cx);
    }
    Ok(resolved)
}

/// Brings many artifacts, several at once.
/// `total` is the bytes to come, for the person.
pub fn fetch_all(artifacts: &[&Artifact], total: u64, cx: &Context) -> Result<(), SourceError> {
    let progress = cx.progress.totalled("total", total);
    let cx = &Context { progress: &progress, ..*cx };
    let mut providers: BTreeMap<&str, Box<dyn Provider + Sync>> = BTreeMap::new();
    for artifact in artifacts {
        let source = artifact.pin.source();
        if !providers.contains_key(source) {
            providers.insert(source, provider(source)?);
        }
    }
    for (source, provider) in &providers {
        let of_source = artifacts.iter().filter(|artifact| artifact.pin.source() == *source);
        provider.expect(&of_source.map(|artifact| (*artifact).clone()).collect::<Vec<_>>());
    }
    par::map_ordered(artifacts, cx.jobs, |artifact| providers[artifact.pin.source()].fetch(artifact, cx)).map(drop)
}

/// What a pin's or a want's source word stands for.
pub fn provider(source: &str) -> Result<Box<dyn Provider + Sync>, SourceError> {
    match source {
        "step" => Ok(Box::new(step::StepSource)),
        "debian" => Ok(Box::new(debian::Debian::here(debian::Distribution::Debian))),
        "ubuntu" => Ok(Box::new(debian::Debian::here(debian::Distribution::Ubuntu))),
        "pypi" => Ok(Box::new(pypi::Pypi::new())),
        "wheel" => Ok(Box::new(wheel::Wheel)),
        "path" => Ok(Box::new(path::PathSource)),
        "hf" => Ok(Box::new(hf::Hub)),
        "git" => Ok(Box::new(git::GitSource)),
        "url" => Ok(Box::new(url::UrlSource)),
        "oci" | "nix" | "redist" => Err(SourceError::new(format!("this pack does not read source `{source}` yet"))
            .help("bring the files beside pack.toml and name them with `path`")),
        other => Err(SourceError::new(format!("there is no source `{other}`"))),
    }
}
