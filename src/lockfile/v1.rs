//! Version 1 of the lock as it stands in the file: the wire types, and the way to the domain type.
//!
//! Layer 1 (documents). One flat struct an entry, every key optional, so that unknown keys are refused with
//! their place; which keys a source wants is judged here, in one table. Must never accept an entry whose
//! digest is not the digest of its own files.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{CompetitionPin, Lockfile, PLAN_VERSION, SystemPin, VERSION, judge};
use crate::artifact::{
    Archive, Artifact, Basis, Commit, DebPin, Evidence, GitPin, HubKind, HubPin, Name, PathPin, Pin, PypiPin, Role, StepPin,
    UrlPin, WheelPin, WheelPlace,
};
use crate::digest::Digest;
use crate::manifest::is_python_version;
use crate::text::{Diagnostic, parse_toml};
use crate::tree::Tree;

/// `pack.lock`, version 1.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WireLock {
    /// Lock version: 1.
    pub version: u32,
    /// Plan version.
    pub plan: u32,
    /// Digest of the manifest's canonical JSON.
    pub meaning: Digest,
    /// The competition file.
    pub competition: WireCompetition,
    /// The operating system.
    #[serde(default)]
    pub system: Option<WireSystem>,
    /// The Python interpreter.
    #[serde(default)]
    pub python: Option<WirePython>,
    /// Digest of each resolved Want, by table.
    #[serde(default)]
    pub wants: BTreeMap<String, Digest>,
    /// Signed indexes.
    #[serde(default)]
    pub evidence: Vec<WireEvidence>,
    /// Pinned inputs.
    #[serde(default)]
    pub artifact: Vec<WireArtifact>,
}

/// `[competition]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WireCompetition {
    /// Its name.
    pub name: String,
    /// Path beside the manifest; absent for a built-in one.
    #[serde(default)]
    pub path: Option<String>,
    /// SHA-256 of the file.
    pub digest: Digest,
}

/// `[system]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WireSystem {
    /// `debian` or `ubuntu`.
    pub distribution: String,
    /// Its suite.
    pub suite: String,
    /// State of the archive.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// `amd64`.
    pub architecture: String,
}

/// `[python]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WirePython {
    /// Major and minor version.
    pub version: String,
}

/// `[[evidence]]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WireEvidence {
    /// `inrelease` or `packages`.
    pub kind: String,
    /// Suite, or suite, component and architecture.
    pub name: String,
    /// Fingerprint of the signing key.
    #[serde(default)]
    pub signer: Option<String>,
    /// SHA-256 of the file.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// `[[artifact]]`: which of the optional keys stand depends on `source`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WireArtifact {
    /// Its name.
    pub name: Name,
    /// What it is for.
    pub role: Role,
    /// Its source.
    pub source: Source,
    /// `pypi`, `wheel`, `debian`, `ubuntu`: the package.
    #[serde(default)]
    pub package: Option<Name>,
    /// `pypi`, `wheel`, `debian`, `ubuntu`: its exact version.
    #[serde(default)]
    pub version: Option<String>,
    /// `debian`, `ubuntu`: the suite that lists it.
    #[serde(default)]
    pub suite: Option<String>,
    /// `debian`, `ubuntu`: its architecture.
    #[serde(default)]
    pub architecture: Option<String>,
    /// `pypi`: the wheel's name; `debian`, `ubuntu`: its path in the pool.
    #[serde(default)]
    pub file: Option<String>,
    /// `pypi`: name of an index other than the default one.
    #[serde(default)]
    pub index: Option<Name>,
    /// `pypi`, for a tree: the wheel that carries the files.
    #[serde(default)]
    pub archive: Option<Archive>,
    /// `pypi`, `hf`, `git`, for a tree: which files were taken.
    #[serde(default)]
    pub patterns: Vec<String>,
    /// `path`, `wheel`: path relative to the manifest.
    #[serde(default)]
    pub path: Option<String>,
    /// `step`: the step.
    #[serde(default)]
    pub step: Option<Name>,
    /// `step`: digest of everything the step saw.
    #[serde(default)]
    pub key: Option<Digest>,
    /// `hf`: `model` or `dataset`.
    #[serde(default)]
    pub kind: Option<HubKind>,
    /// `hf`: `owner/name`; `git`: the address.
    #[serde(default)]
    pub repository: Option<String>,
    /// `hf`, `git`: the commit.
    #[serde(default)]
    pub commit: Option<Commit>,
    /// `hf`, `git`: folder prefix dropped from the files' paths.
    #[serde(default)]
    pub strip: Option<String>,
    /// `url`: the address; `wheel`: its address, in place of `path`.
    #[serde(default)]
    pub url: Option<String>,
    /// SHA-256 of the file, or of the lines of `files`.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Who vouches for the digest.
    pub basis: Basis,
    /// The listing of a tree.
    #[serde(default)]
    pub files: Option<Tree>,
}

/// The sources that can stand in a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words are artifact::Pin's")]
pub enum Source {
    Pypi,
    Wheel,
    Debian,
    Ubuntu,
    Path,
    Step,
    Hf,
    Git,
    Url,
}

pub(super) fn parse(text: &str) -> Result<Lockfile, Diagnostic> {
    let refuse = |line: usize, message: String, help: Option<String>| Diagnostic {
        file: "pack.lock".into(),
        line,
        column: 1,
        message,
        help,
    };
    // The version is read before anything else, so that a lock from the future is refused for what it is.
    for (key, known, what) in [("version", VERSION, "lock version"), ("plan", PLAN_VERSION, "plan version")] {
        let head = text.lines().take_while(|line| !line.starts_with('['));
        let found = head.enumerate().find_map(|(at, line)| {
            let value = line.strip_prefix(key)?.trim_start().strip_prefix('=')?.trim();
            Some((at + 1, value.to_owned()))
        });
        match found {
            None => return Err(refuse(1, format!("no `{key}` in pack.lock"), Some("run `pack lock`".into()))),
            Some((_, value)) if value == known.to_string() => {}
            Some((line, value)) => {
                let message = format!("{what} {value} is not known to this pack, which knows {known}");
                let help = "install the `pack` that wrote it; or remove pack.lock and run `pack lock` to choose everything anew";
                return Err(refuse(line, message, Some(help.into())));
            }
        }
    }
    let wire: WireLock = parse_toml("pack.lock", text)?;
    if let Some(python) = &wire.python
        && !is_python_version(&python.version)
    {
        return Err(refuse(1, format!("expected a Python version such as `3.11`, found `{}`", python.version), None));
    }
    let mut artifacts = Vec::with_capacity(wire.artifact.len());
    for entry in wire.artifact {
        let needle = format!("name = \"{}\"", entry.name);
        let (name, role) = (entry.name.clone(), entry.role);
        let sound = domain(entry).and_then(|artifact| judge::artifact(&artifact).map(|()| artifact));
        let artifact = sound.map_err(|message| {
            let line = text.lines().position(|line| line == needle).map_or(1, |at| at + 1);
            refuse(line, format!("{role} `{name}`: {message}"), Some("run `pack lock`".into()))
        })?;
        artifacts.push(artifact);
    }
    if let Some(pair) = artifacts.windows(2).find(|pair| pair[0].sort_key() >= pair[1].sort_key()) {
        let message = format!("{} `{}` is out of order or given twice", pair[1].role, pair[1].name);
        return Err(refuse(1, message, Some("run `pack lock`".into())));
    }
    let system = wire.system.map(|system| SystemPin {
        distribution: system.distribution,
        suite: system.suite,
        snapshot: system.snapshot,
        architecture: system.architecture,
    });
    let evidence = wire.evidence.into_iter().map(|evidence| Evidence {
        kind: evidence.kind,
        name: evidence.name,
        signer: evidence.signer,
        digest: evidence.digest,
        size: evidence.size,
    });
    let lock = Lockfile {
        plan: wire.plan,
        meaning: wire.meaning,
        competition: CompetitionPin { name: wire.competition.name, path: wire.competition.path, digest: wire.competition.digest },
        wants: wire.wants,
        system,
        python: wire.python.map(|python| python.version),
        evidence: evidence.collect(),
        artifacts,
    };
    judge::lock(&lock).map_err(|message| refuse(1, message, Some("run `pack lock`".into())))?;
    Ok(lock)
}

/// Takes a key that the source wants.
fn want<T>(value: &mut Option<T>, key: &str) -> Result<T, String> {
    value.take().ok_or_else(|| format!("`{key}` is missing"))
}

fn domain(mut wire: WireArtifact) -> Result<Artifact, String> {
    let deb = |wire: &mut WireArtifact| -> Result<DebPin, String> {
        Ok(DebPin {
            suite: want(&mut wire.suite, "suite")?,
            package: want(&mut wire.package, "package")?,
            version: want(&mut wire.version, "version")?,
            architecture: want(&mut wire.architecture, "architecture")?,
            file: want(&mut wire.file, "file")?,
        })
    };
    let pin = match wire.source {
        Source::Pypi => Pin::Pypi(PypiPin {
            package: want(&mut wire.package, "package")?,
            version: want(&mut wire.version, "version")?,
            file: want(&mut wire.file, "file")?,
            index: wire.index.take(),
            archive: wire.archive.take(),
            patterns: std::mem::take(&mut wire.patterns),
        }),
        Source::Wheel => Pin::Wheel(WheelPin {
            package: want(&mut wire.package, "package")?,
            version: want(&mut wire.version, "version")?,
            place: match wire.url.take() {
                Some(url) => WheelPlace::Url(url),
                None => WheelPlace::Path(want(&mut wire.path, "path")?),
            },
        }),
        Source::Debian => Pin::Debian(deb(&mut wire)?),
        Source::Ubuntu => Pin::Ubuntu(deb(&mut wire)?),
        Source::Path => Pin::Path(PathPin { path: want(&mut wire.path, "path")? }),
        Source::Hf => Pin::Hf(HubPin {
            kind: want(&mut wire.kind, "kind")?,
            repository: want(&mut wire.repository, "repository")?,
            commit: want(&mut wire.commit, "commit")?,
            patterns: std::mem::take(&mut wire.patterns),
            strip: wire.strip.take(),
        }),
        Source::Git => Pin::Git(GitPin {
            repository: want(&mut wire.repository, "repository")?,
            commit: want(&mut wire.commit, "commit")?,
            patterns: std::mem::take(&mut wire.patterns),
            strip: wire.strip.take(),
        }),
        Source::Url => Pin::Url(UrlPin { url: want(&mut wire.url, "url")? }),
        Source::Step => Pin::Step(StepPin { step: want(&mut wire.step, "step")?, key: want(&mut wire.key, "key")? }),
    };
    let left = [
        ("package", wire.package.is_some()),
        ("version", wire.version.is_some()),
        ("suite", wire.suite.is_some()),
        ("architecture", wire.architecture.is_some()),
        ("file", wire.file.is_some()),
        ("index", wire.index.is_some()),
        ("archive", wire.archive.is_some()),
        ("patterns", !wire.patterns.is_empty()),
        ("path", wire.path.is_some()),
        ("step", wire.step.is_some()),
        ("key", wire.key.is_some()),
        ("kind", wire.kind.is_some()),
        ("repository", wire.repository.is_some()),
        ("commit", wire.commit.is_some()),
        ("strip", wire.strip.is_some()),
        ("url", wire.url.is_some()),
    ];
    if let Some((key, _)) = left.iter().find(|(_, set)| *set) {
        return Err(format!("`{key}` does not belong to source `{}`", pin.source()));
    }
    if let Some(tree) = &wire.files {
        if tree.digest() != wire.digest {
            return Err(format!("expected the digest of its files, {}, found {}", tree.digest(), wire.digest));
        }
        if tree.size() != wire.size {
            return Err(format!("expected the size of its files, {}, found {}", tree.size(), wire.size));
        }
    }
    if wire.files.is_some() == matches!(wire.role, Role::System | Role::Python) {
        return Err("only models, data, weights and code are trees, and they always are".into());
    }
    Ok(Artifact {
        name: wire.name,
        role: wire.role,
        pin,
        digest: wire.digest,
        size: wire.size,
        basis: wire.basis,
        files: wire.files,
    })
}
