//! pypi: wheels of Python package indexes, resolved by uv, and models that travel inside a wheel.
//!
//! A source; layer 3 (effects). What is chosen is a function of manifest, requirements, old pins and index;
//! nothing of a package is run or built. The lack of a wheel never changes a version in silence
//! (see [`compile`]). A pin holds no address: where a pinned wheel lies is asked of uv, once for all.
//!
//! uv sees the user's own configuration and none of the project's: it runs in an empty folder, and
//! `[tool.uv.sources]` of a pyproject.toml does not count. Which indexes there are is uv's own setting, else
//! pip's, with `[python.indexes]` before both.

#![allow(clippy::disallowed_methods, reason = "effects: reads the author's requirements")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use url::Url;

pub mod compile;
pub mod index;
mod inside;
pub mod pylock;
pub mod requirements;
pub mod simple;
pub mod tags;
#[cfg(test)]
mod tests;

use self::compile::{Closure, Memory, Question, choose, known_glibc, locate};
use self::index::{Session, project_name};
use self::pylock::{Locked, LockedWheel, is_pylock, parse_pylock};
use self::requirements::{Hashed, Line, hashed, parse_requirements};
use self::tags::{Target, WheelName, glibc_minor, normalise};
use super::wheel::{self, LocalWheel};
use super::{Context, Previous, Provider, Resolved, SourceError, Want};
use crate::artifact::{Archive, Artifact, Basis, Name, Pin, PypiPin, Role};
use crate::digest::Digest;
use crate::manifest::{Python, TreeWant};
use crate::par::map_ordered;
use crate::path::ImagePath;

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

/// What `[python] requirements` names.
enum Input {
    /// Nothing.
    Nothing,
    /// A lock file, as it is.
    Pylock(Vec<Locked>),
    /// Requirements with hashes, as they are.
    Hashed(std::path::PathBuf, Vec<Line>),
    /// Requirements or a pyproject.toml, from which uv chooses.
    Loose(std::path::PathBuf),
}

impl Pypi {
    /// Knows nothing yet and asks nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The files beside the manifest, other than wheels, that a resolution of `[python]` reads: (path, digest). A
    /// lock is stale when one of them changes.
    pub fn inputs(python: &Python, project: &Path) -> Result<Vec<(String, Digest)>, SourceError> {
        let mut read = BTreeMap::new();
        if let Some(path) = &python.requirements {
            let place = beside(path)?;
            let text = read_input(&place, project)?;
            read.insert(place.to_string(), Digest::of(text.as_bytes()));
            if !is_pylock(place.file_name()) && !place.file_name().ends_with(".toml") {
                gather(&place, project, &mut read, &mut Vec::new(), &mut Vec::new())?;
            }
        }
        Ok(read.into_iter().collect())
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
        let local = wheel::take(&python.wheels, &target, cx)?;
        let input = input(python, &target, cx.project)?;
        let exclude_newer = python.exclude_newer.as_deref().map(last_moment).transpose()?;
        let exact = matches!(input, Input::Pylock(_) | Input::Hashed(..));
        let mut lines = inline(python)?;
        if exact && !lines.is_empty() {
            return Err(SourceError::new("[python] packages cannot be added to requirements that carry hashes")
                .help("add them to the requirements file, with their hashes, or take the hashes out"));
        }
        if lines.is_empty() && local.is_empty() && matches!(input, Input::Nothing) {
            return Ok(resolved);
        }
        let session = self.session(cx)?;
        lines.extend(local.iter().map(local_line).collect::<Result<Vec<_>, _>>()?);
        let mut question = Question {
            files: Vec::new(),
            lines,
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
            }
            Input::Pylock(locked) => {
                question.lines.extend(exact_lines(&locked)?);
                let hashes = |locked: Locked| (locked.package, locked.wheels.into_iter().map(|wheel| wheel.digest).collect());
                given = Some(locked.into_iter().map(hashes).collect());
            }
        }
        if given.is_some() {
            question.closure = Closure::Exact;
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
        if let Some((_, what)) = parsed.problems.first() {
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
        }
    }
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

/// The last moment of a day, in UTC: uv would take the host's time zone for a bare day.
fn last_moment(text: &str) -> Result<String, SourceError> {
    let digits = |part: &str, n: usize| part.len() == n && part.bytes().all(|b| b.is_ascii_digit());
    let day = |text: &str| {
        let parts: Vec<&str> = text.split('-').collect();
        let [year, month, day] = parts[..] else { return false };
        digits(year, 4) && digits(month, 2) && digits(day, 2) && ("01"..="12").contains(&month) && ("01"..="31").contains(&day)
    };
    let clock = |text: &str| {
        let parts: Vec<&str> = text.split(':').collect();
        matches!(parts[..], [hour, minute, second] if digits(hour, 2) && digits(minute, 2) && digits(second, 2))
    };
    if day(text) {
        return Ok(format!("{text}T23:59:59.999999Z"));
    }
    match text.strip_suffix('Z').and_then(|text| text.split_once('T')) {
        Some((date, time)) if day(date) && clock(time) => Ok(text.to_owned()),
        _ => Err(SourceError::new(format!(
            "[python] exclude-newer: expected `YYYY-MM-DD` or `YYYY-MM-DDThh:mm:ssZ`, found `{}`",
            text.escape_debug()
        ))),
    }
}

fn beside(path: &str) -> Result<ImagePath, SourceError> {
    ImagePath::new(path)
        .map_err(|error| SourceError::new("[python] requirements: expected a file beside pack.toml").because(error))
}

fn read_input(place: &ImagePath, project: &Path) -> Result<String, SourceError> {
    std::fs::read_to_string(place.under(project))
        .map_err(|error| SourceError::new(format!("cannot read `{place}`")).because(error))
}

fn input(python: &Python, target: &Target, project: &Path) -> Result<Input, SourceError> {
    let Some(path) = &python.requirements else { return Ok(Input::Nothing) };
    let place = beside(path)?;
    let file = place.file_name();
    if is_pylock(file) {
        let text = read_input(&place, project)?;
        let locked = parse_pylock(place.as_str(), &text, target)
            .map_err(|error| SourceError::new("cannot take the Python packages from a lock file").because(error))?;
        return Ok(Input::Pylock(locked));
    }
    if file == "pyproject.toml" {
        read_input(&place, project)?;
        return Ok(Input::Loose(place.under(project)));
    }
    if file.ends_with(".toml") || file.ends_with(".lock") {
        return Err(SourceError::new(format!("[python] requirements: `{place}` is not a file that can be read here")).help(
            "expected a requirements file, a pylock.toml (`uv export --format pylock.toml` makes one) or a pyproject.toml",
        ));
    }
    let mut lines = Vec::new();
    let mut wrong = Vec::new();
    gather(&place, project, &mut BTreeMap::new(), &mut lines, &mut wrong)?;
    if !wrong.is_empty() {
        return Err(SourceError::new(format!("the requirements cannot be locked as they are:\n  {}", wrong.join("\n  ")))
            .help("name extra indexes under [python.indexes], and wheel files under [python] wheels"));
    }
    match hashed(&lines) {
        Ok(Hashed::None) => Ok(Input::Loose(place.under(project))),
        Ok(Hashed::All) => Ok(Input::Hashed(place.under(project), lines)),
        Err(bare) => {
            let bare: Vec<String> = bare.iter().map(ToString::to_string).collect();
            Err(SourceError::new(format!(
                "{place}: some requirements carry hashes, and lines {} do not carry both `==` and a hash",
                bare.join(", ")
            ))
            .help("give each requirement one version and its hashes (`uv pip compile --generate-hashes` does), or none a hash"))
        }
    }
}

/// Reads a requirements file and all that it includes; wrong lines are collected as `file:line: what`.
fn gather(
    place: &ImagePath,
    project: &Path,
    read: &mut BTreeMap<String, Digest>,
    lines: &mut Vec<Line>,
    wrong: &mut Vec<String>,
) -> Result<(), SourceError> {
    let text = read_input(place, project)?;
    read.insert(place.to_string(), Digest::of(text.as_bytes()));
    let parsed = parse_requirements(&text);
    wrong.extend(parsed.problems.iter().map(|(line, what)| format!("{place}:{line}: {what}")));
    lines.extend(parsed.lines);
    for (line, path, constraint) in parsed.includes {
        // Only a path that is relative and stays beside the manifest can be another machine's, too.
        let inner = if path.starts_with('/') { None } else { place.resolve_link(&path).ok().flatten() };
        let Some(inner) = inner else {
            wrong.push(format!("{place}:{line}: the included file does not lie beside pack.toml"));
            continue;
        };
        if !read.contains_key(inner.as_str()) {
            let mut unused = Vec::new();
            gather(&inner, project, read, if constraint { &mut unused } else { lines }, wrong)?;
        }
    }
    Ok(())
}

fn inline(python: &Python) -> Result<Vec<String>, SourceError> {
    let mut wrong = Vec::new();
    for text in &python.packages {
        let parsed = parse_requirements(text);
        wrong.extend(parsed.problems.into_iter().map(|(_, what)| what));
        if text.contains('\n') || !parsed.includes.is_empty() {
            wrong.push("expected one requirement in each string".into());
        }
    }
    if wrong.is_empty() {
        return Ok(python.packages.clone());
    }
    Err(SourceError::new(format!("[python] packages cannot be locked as they are:\n  {}", wrong.join("\n  ")))
        .help("name extra indexes under [python.indexes], and wheel files under [python] wheels"))
}

/// A wheel beside the manifest, as a requirement that only that file meets.
fn local_line(wheel: &LocalWheel) -> Result<String, SourceError> {
    let path = std::path::absolute(&wheel.path).unwrap_or_else(|_| wheel.path.clone());
    let url =
        Url::from_file_path(&path).map_err(|()| SourceError::new(format!("`{}` cannot be handed to uv", path.display())))?;
    Ok(format!("{} @ {url}", wheel.artifact.name))
}

fn exact_lines(locked: &[Locked]) -> Result<Vec<String>, SourceError> {
    let mut wrong = Vec::new();
    let mut lines = Vec::new();
    for Locked { package, version, wheels, direct } in locked {
        match version {
            _ if *direct => wrong.push(format!("{package}: comes from an address, folder or repository")),
            _ if wheels.is_empty() => wrong.push(format!("{package}: the lock file names no wheel of it")),
            None => wrong.push(format!("{package}: the lock file gives no version")),
            Some(version) => lines.push(format!("{package}=={version}")),
        }
    }
    if wrong.is_empty() {
        return Ok(lines);
    }
    wrong.sort();
    Err(SourceError::new(format!("packages of the lock file cannot be locked here:\n  {}", wrong.join("\n  ")))
        .help("build their wheels and name them: [python] wheels = [\"wheels/….whl\"]"))
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

/// One wheel for each package.
///
/// # Errors
/// Every package for which none can be taken, together, sorted.
fn pick_all(
    found: &[Locked],
    question: &Question,
    given: Option<&BTreeMap<Name, BTreeSet<Digest>>>,
    session: &Session,
    cx: &Context,
) -> Result<Vec<Artifact>, SourceError> {
    let wanted: Vec<&Locked> = found.iter().filter(|locked| !question.local.contains(&locked.package)).collect();
    let picked = map_ordered(&wanted, cx.jobs, |locked| -> Result<Result<Artifact, String>, SourceError> {
        let hashes = match given.map(|given| given.get(&locked.package)) {
            None => None,
            Some(Some(hashes)) => Some(hashes),
            Some(None) => return Ok(Err(format!("{}: it is needed, and the requirements give no hash of it", locked.package))),
        };
        match pick(locked, &question.target, hashes) {
            Ok((wheel, name)) => complete(locked, wheel, name, hashes.is_some(), session, cx),
            Err(what) => Ok(Err(what)),
        }
    })?;
    let mut artifacts = Vec::new();
    let mut wrong = Vec::new();
    for one in picked {
        match one {
            Ok(artifact) => artifacts.push(artifact),
            Err(what) => wrong.push(what),
        }
    }
    if wrong.is_empty() {
        return Ok(artifacts);
    }
    wrong.sort();
    Err(SourceError::new(format!("no wheel can be pinned for:\n  {}", wrong.join("\n  "))))
}

/// The best admissible wheel, among those whose hash was given where hashes were given.
fn pick<'a>(
    locked: &'a Locked,
    target: &Target,
    given: Option<&BTreeSet<Digest>>,
) -> Result<(&'a LockedWheel, WheelName), String> {
    let Locked { package, version, wheels, direct } = locked;
    let version = version.as_deref().unwrap_or("(no version)");
    if *direct {
        return Err(format!("{package} {version}: comes from an address; name its wheel under [python] wheels"));
    }
    // Names that are no wheel names (old indexes have some) are not admissible.
    let named: Vec<(WheelName, &LockedWheel)> =
        wheels.iter().filter_map(|wheel| Some((wheel.file.parse::<WheelName>().ok()?, wheel))).collect();
    let best = target.choose(named.iter().map(|(name, wheel)| (name, *wheel)));
    let Some((_, any)) = best else {
        let shown: Vec<&str> = wheels.iter().map(|wheel| wheel.file.as_str()).collect();
        return Err(format!("{package} {version}: none of its wheels is for {target} ({})", shown.join(", ")));
    };
    let Some(given) = given else {
        return best.map(|(name, wheel)| (wheel, name.clone())).ok_or_else(String::new);
    };
    let allowed = named.iter().filter(|(_, wheel)| given.contains(&wheel.digest)).map(|(name, wheel)| (name, *wheel));
    match target.choose(allowed) {
        Some((name, wheel)) => Ok((wheel, name.clone())),
        None => Err(format!(
            "{package} {version}: the index publishes {} for {}, which is none of the hashes given",
            any.digest, any.file
        )),
    }
}

/// Adds what the answer leaves out: the size, and which named index has the wheel.
fn complete(
    locked: &Locked,
    wheel: &LockedWheel,
    name: WheelName,
    hashes_given: bool,
    session: &Session,
    cx: &Context,
) -> Result<Result<Artifact, String>, SourceError> {
    let package = &locked.package;
    if normalise(name.package.as_str()).as_ref() != Some(package) {
        return Ok(Err(format!("{package}: the index offers `{}`, a wheel of another project", wheel.file)));
    }
    let url = wheel.url.as_deref().and_then(|url| Url::parse(url).ok());
    let mut size = wheel.size;
    let mut index = None;
    if size.is_none() || session.has_named() {
        let listings = session.listings(package, cx)?;
        let same = |file: &&simple::Listed| file.file == wheel.file && file.digest.is_none_or(|digest| digest == wheel.digest);
        let mut at = listings.iter().filter_map(|listing| Some((listing, listing.files.iter().find(same)?)));
        if let Some((listing, file)) = at.next() {
            index = listing.index.clone();
            size = size.or(file.size);
        }
    }
    if size.is_none()
        && let Some(url) = url
    {
        size = cx.net.size(&session.with_login(url))?;
    }
    let Some(size) = size else {
        return Ok(Err(format!("{package}: the index does not say how large `{}` is", wheel.file)));
    };
    let version = name.version.to_string();
    let pin = PypiPin { package: package.clone(), version, file: wheel.file.clone(), index, archive: None, patterns: Vec::new() };
    Ok(Ok(Artifact {
        name: package.clone(),
        role: Role::Python,
        pin: Pin::Pypi(pin),
        digest: wheel.digest,
        size,
        basis: if hashes_given { Basis::Given } else { Basis::Published },
        files: None,
    }))
}
