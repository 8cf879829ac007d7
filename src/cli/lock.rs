//! `pack lock`, `pack fetch`: choose, pin, bring.
//!
//! Layer 4 (commands). What a Want chose stays while the Want stays, unless `--upgrade` says otherwise; files
//! beside the manifest are looked at each time. Must never write a lock that names bytes nobody has pinned.

#![allow(clippy::disallowed_methods, reason = "effects: reads the store's blobs for secrets")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde::Serialize;

use super::Session;
use super::args;
use super::error::Problem;
use super::project::Project;
use super::render;
use super::session::Call;
use crate::artifact::{Artifact, Name, Pin, Role};
use crate::digest::Digest;
use crate::layer::{Layers, Memory};
use crate::lockfile::{Lockfile, Stale, SystemPin};
use crate::manifest::{CudaFrom, TreeWant};
use crate::plan;
use crate::secret;
use crate::source::debian::recheck;
use crate::source::fits::misfit;
use crate::source::{self, Context, Previous, Resolved, Want};
use crate::step;
use crate::text::bytes;
use crate::text::nearest;
use crate::tree::TreeFile;

/// What to do beside locking.
#[derive(Default)]
pub struct Options {
    /// Only say whether the lock still answers.
    pub check: bool,
    /// Names to choose afresh; empty: all.
    pub upgrade: Option<Vec<String>>,
    /// Do not bring the bytes.
    pub no_fetch: bool,
}

/// What locking did.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Whether pack.lock was written.
    pub written: bool,
    /// What moved since the old lock, a sentence each.
    pub stale: Vec<String>,
    /// Entries that changed, `+`, `-`, `~`.
    pub changes: Vec<String>,
    /// Pinned inputs in the lock.
    pub artifacts: usize,
    /// Bytes that the lock names.
    pub bytes: u64,
    /// Bytes that are not in the store.
    pub bytes_to_fetch: u64,
    /// What the author should know.
    pub warnings: Vec<String>,
    /// Steps' outputs that would now be made from something else, a sentence each.
    pub stale_outputs: Vec<String>,
}

/// Locks a project.
pub fn lock(project: &mut Project, options: &Options, session: &Session) -> Result<Outcome> {
    let old = project.lock()?;
    if let Some(names) = &options.upgrade {
        judge_upgrade(names, project, old.as_ref(), session)?;
    }
    let wants = project.wants(&session.store)?;
    let meaning = project.manifest.meaning();
    let stale = match &old {
        Some(old) => old.stale(&meaning, &project.competition_pin.digest, &wants),
        None => Vec::new(),
    };
    if options.check {
        return check(project, old, &stale, session);
    }
    if session.locked {
        return locked(project, old, &stale, options, session);
    }
    let (lock, warnings) = resolve(project, old.as_ref(), &wants, options, session)?;
    refuse_secret_code(&lock, old.as_ref(), session)?;
    let changes = old.as_ref().map_or_else(Vec::new, |old| lock.changes_since(old));
    let written = project.write_lock(&lock)?;
    // `pack check` judges by the rules as locked, whatever becomes of the file.
    session.store.remember("competition", &lock.competition.digest, &project.competition_text)?;
    let missing = missing(&lock, session)?;
    let bytes_to_fetch = missing.iter().map(|(_, size)| size).sum();
    for warning in &warnings {
        session.progress.warn(warning);
    }
    if !options.no_fetch {
        fetch(project, &lock, session)?;
    }
    check_signatures(&lock, session)?;
    Ok(Outcome {
        written,
        stale: stale.iter().map(Stale::to_string).collect(),
        changes,
        artifacts: lock.artifacts.len(),
        bytes: lock.blobs().iter().map(|(_, size)| size).sum(),
        bytes_to_fetch,
        warnings,
        stale_outputs: stale_outputs(project, &lock, session)?,
    })
}

/// `--locked`: the lock must stand as it is; its bytes are brought.
fn locked(project: &Project, old: Option<Lockfile>, stale: &[Stale], options: &Options, session: &Session) -> Result<Outcome> {
    if options.upgrade.is_some() {
        bail!(Problem::new("`--upgrade` chooses afresh, and `--locked` forbids it"));
    }
    let outcome = check(project, old, stale, session)?;
    if !outcome.stale.is_empty() {
        let message = format!("pack.lock no longer answers pack.toml: {}", outcome.stale.join(", "));
        bail!(Problem::new(message).help("run `pack lock` without `--locked`"));
    }
    if !options.no_fetch {
        fetch(project, &project.need_lock()?, session)?;
    }
    Ok(outcome)
}

/// Outputs that are stale, as far as it can be told without making a layer.
fn stale_outputs(project: &Project, lock: &Lockfile, session: &Session) -> Result<Vec<String>> {
    if !lock.artifacts.iter().any(|artifact| artifact.is_output()) {
        return Ok(Vec::new());
    }
    let layers = Layers { store: &session.store, progress: &session.progress, jobs: session.jobs, memory: Memory::Use };
    let mut runtime = Vec::new();
    for layer in plan::runtime(lock) {
        match layers.remembered(&layer)? {
            Some(layer) => runtime.push(layer.diff_id),
            // New packages: what was made before cannot have seen them.
            None => return Ok(Vec::new()),
        }
    }
    let keys = step::keys(&project.manifest, lock, project.track(), &runtime)?;
    let line = |stale: step::Stale| format!("{} `{}` is stale: {}", stale.artifact.role, stale.artifact.name, stale.because);
    Ok(step::stale(&project.manifest, lock, &keys).into_iter().map(line).collect())
}

/// `--check`: would locking change anything? Files beside the manifest are looked at, nothing is fetched.
fn check(project: &Project, old: Option<Lockfile>, stale: &[Stale], session: &Session) -> Result<Outcome> {
    let Some(old) = old else { bail!(Problem::new("there is no pack.lock").help("run `pack lock`")) };
    let mut reasons: Vec<String> = stale.iter().map(Stale::to_string).collect();
    let mut changes = Vec::new();
    if reasons.is_empty() {
        changes = refreshed(project, &old, session)?.changes_since(&old);
        reasons.extend(changes.iter().cloned());
    }
    let stale_outputs = if reasons.is_empty() { stale_outputs(project, &old, session)? } else { Vec::new() };
    let missing = missing(&old, session)?;
    Ok(Outcome {
        written: false,
        stale: reasons,
        changes,
        artifacts: old.artifacts.len(),
        bytes: old.blobs().iter().map(|(_, size)| size).sum(),
        bytes_to_fetch: missing.iter().map(|(_, size)| size).sum(),
        warnings: Vec::new(),
        stale_outputs,
    })
}

/// The lock with everything that lies beside the manifest looked at again; no network.
pub fn refreshed(project: &Project, lock: &Lockfile, session: &Session) -> Result<Lockfile> {
    let mut fresh = lock.clone();
    fresh.meaning = project.manifest.meaning();
    fresh.competition = project.competition_pin.clone();
    let cx = session.context(project);
    for artifact in &mut fresh.artifacts {
        if let Pin::Path(_) = &artifact.pin {
            let want = tree_want(project, artifact.role, &artifact.name);
            let Some(want) = want else { continue };
            let want = Want::Tree { name: &artifact.name, role: artifact.role, want: &want };
            let nothing = Previous { artifacts: &[], evidence: &[], upgrade: None };
            let resolved = source::provider("path")?.resolve(&want, &nothing, &cx)?;
            if let Some(new) = resolved.artifacts.into_iter().next() {
                *artifact = new;
            }
        }
    }
    refuse_secret_code(&fresh, Some(lock), session)?;
    Ok(fresh)
}

/// The manifest's table for a tree; the code counts as one.
fn tree_want(project: &Project, role: Role, name: &Name) -> Option<TreeWant> {
    let manifest = &project.manifest;
    match role {
        Role::Model => manifest.models.get(name).cloned(),
        Role::Data => manifest.data.get(name).cloned(),
        Role::Weights => manifest.weights.get(name).cloned(),
        Role::Code => manifest.code.as_ref().map(|code| TreeWant { path: Some(code.path.clone()), ..TreeWant::default() }),
        Role::System | Role::Python => None,
    }
}

/// One table of the manifest and the artifacts that answer it.
struct Unit<'a> {
    table: String,
    source: &'static str,
    want: Want<'a>,
    owns: Box<dyn Fn(&Artifact) -> bool + 'a>,
}

fn resolve(
    project: &Project,
    old: Option<&Lockfile>,
    wants: &BTreeMap<String, Digest>,
    options: &Options,
    session: &Session,
) -> Result<(Lockfile, Vec<String>)> {
    let manifest = &project.manifest;
    let cx = session.context(project);
    let mut lock = Lockfile {
        plan: plan::VERSION,
        meaning: manifest.meaning(),
        competition: project.competition_pin.clone(),
        wants: wants.clone(),
        system: None,
        python: manifest.python.as_ref().map(|python| python.version.clone()),
        evidence: Vec::new(),
        artifacts: Vec::new(),
    };
    let mut warnings = Vec::new();
    if let Some(cuda) = &manifest.cuda
        && cuda.from != CudaFrom::Wheels
    {
        bail!(Problem::new("this pack takes CUDA libraries from Python wheels only").help("write [cuda] from = \"wheels\""));
    }
    if let Some(system) = &manifest.system {
        let (distribution, suite) = match (&system.debian, &system.ubuntu) {
            (Some(suite), _) => ("debian", suite),
            (_, Some(suite)) => ("ubuntu", suite),
            (None, None) => bail!(Problem::new("[system] names no distribution")),
        };
        lock.system = Some(SystemPin {
            distribution: distribution.to_owned(),
            suite: suite.clone(),
            snapshot: system.snapshot.clone(),
            architecture: "amd64".to_owned(),
        });
        let unit = Unit {
            table: "system".into(),
            source: distribution,
            want: Want::System(system),
            owns: Box::new(|artifact| artifact.role == Role::System),
        };
        take(&mut lock, one(&unit, wants, old, options, &cx)?, &mut warnings);
    }
    if let Some(python) = &manifest.python {
        judge_python(project, &lock)?;
        let system: Vec<Artifact> = lock.of_role(Role::System).cloned().collect();
        let unit = Unit {
            table: "python".into(),
            source: "pypi",
            want: Want::Python { python, system: &system },
            owns: Box::new(|artifact| artifact.role == Role::Python),
        };
        take(&mut lock, one(&unit, wants, old, options, &cx)?, &mut warnings);
    }
    let groups = [
        ("models", Role::Model, &manifest.models),
        ("data", Role::Data, &manifest.data),
        ("weights", Role::Weights, &manifest.weights),
    ];
    for (group, role, trees) in groups {
        for (name, want) in trees {
            let (source, _) = want.source().expect("judged with the manifest");
            let unit = Unit {
                table: format!("{group}.{name}"),
                source,
                want: Want::Tree { name, role, want },
                owns: Box::new(move |artifact| artifact.role == role && artifact.name == *name),
            };
            take(&mut lock, one(&unit, wants, old, options, &cx)?, &mut warnings);
        }
    }
    if let Some(code) = &manifest.code {
        let name = Name::new("code").expect("a constant");
        let want = TreeWant { path: Some(code.path.clone()), ..TreeWant::default() };
        let unit = Unit {
            table: "code".into(),
            source: "path",
            want: Want::Tree { name: &name, role: Role::Code, want: &want },
            owns: Box::new(|artifact| artifact.role == Role::Code),
        };
        take(&mut lock, one(&unit, wants, old, options, &cx)?, &mut warnings);
    }
    // What steps made stays as long as the manifest declares it; staleness is judged by its key, not here.
    let outputs = old.into_iter().flat_map(|old| &old.artifacts).filter(|artifact| match &artifact.pin {
        Pin::Step(pin) => manifest.maker(&artifact.name).is_some_and(|(step, ..)| *step == pin.step),
        _ => false,
    });
    lock.artifacts.extend(outputs.cloned());
    lock.sort();
    Ok((lock, warnings))
}

fn take(lock: &mut Lockfile, resolved: Resolved, warnings: &mut Vec<String>) {
    lock.artifacts.extend(resolved.artifacts);
    lock.evidence.extend(resolved.evidence);
    warnings.extend(resolved.warnings);
}

/// Answers one Want: from the old lock where it still stands, else from its source.
fn one(
    unit: &Unit,
    wants: &BTreeMap<String, Digest>,
    old: Option<&Lockfile>,
    options: &Options,
    cx: &Context,
) -> Result<Resolved> {
    let owned: Vec<Artifact> = old
        .into_iter()
        .flat_map(|old| &old.artifacts)
        .filter(|artifact| !artifact.is_output() && (unit.owns)(artifact))
        .cloned()
        .collect();
    let evidence = old.map_or_else(Vec::new, |old| old.evidence.clone());
    let named = |names: &Vec<String>| {
        names.is_empty()
            || names.iter().any(|name| *name == unit.table || owned.iter().any(|artifact| artifact.name.as_str() == name))
    };
    let upgraded = options.upgrade.as_ref().is_some_and(named);
    // A lock written by hand may have the right digest of a table and pins that the table cannot have chosen.
    let fit = owned.iter().all(|artifact| misfit(artifact, cx.manifest).is_none());
    let stands = fit && old.is_some_and(|old| old.wants.get(&unit.table) == wants.get(&unit.table));
    if stands && !upgraded && unit.source != "path" {
        let evidence = if unit.table == "system" { evidence } else { Vec::new() };
        return Ok(Resolved { artifacts: owned, evidence, warnings: Vec::new() });
    }
    let upgrade: Option<Vec<String>> = match &options.upgrade {
        Some(names) if upgraded && names.contains(&unit.table) => Some(Vec::new()),
        Some(names) if upgraded => Some(names.clone()),
        _ => None,
    };
    let previous = Previous { artifacts: &owned, evidence: &evidence, upgrade: upgrade.as_deref() };
    Ok(source::resolve(unit.source, &unit.want, &previous, cx)?)
}

/// The interpreter that the manifest asks for must be one that the system brings.
fn judge_python(project: &Project, lock: &Lockfile) -> Result<()> {
    let Some(version) = &lock.python else { return Ok(()) };
    if lock.system.is_none() {
        bail!(
            Problem::new("[python] needs an interpreter, and there is no [system] to bring it")
                .help(format!("add [system] with packages = [\"python{version}\"]"))
        );
    }
    let wanted = format!("python{version}");
    if lock.of_role(Role::System).any(|artifact| artifact.name.as_str() == wanted) {
        return Ok(());
    }
    let there: Vec<&str> = lock
        .of_role(Role::System)
        .map(|artifact| artifact.name.as_str())
        .filter(|name| name.strip_prefix("python").is_some_and(crate::manifest::is_python_version))
        .collect();
    let suite = project.manifest.system.as_ref().and_then(|system| system.debian.as_ref().or(system.ubuntu.as_ref()));
    let suite = suite.map_or("the system", String::as_str);
    let message = match there.first() {
        Some(other) => format!("[python] asks for version {version}, but [system] brings {other}"),
        None => format!("[python] asks for version {version}, but [system] brings no interpreter"),
    };
    let help = match there.first().and_then(|name| name.strip_prefix("python")) {
        Some(other) => format!("set [python] version = \"{other}\", or add \"{wanted}\" to [system] packages, if {suite} has it"),
        None => format!("add \"{wanted}\" to [system] packages, if {suite} has it"),
    };
    bail!(Problem::new(message).help(help))
}

fn judge_upgrade(names: &[String], project: &Project, old: Option<&Lockfile>, session: &Session) -> Result<()> {
    let mut known: BTreeSet<String> = project.wants(&session.store)?.into_keys().collect();
    known.extend(old.into_iter().flat_map(|old| old.artifacts.iter().map(|artifact| artifact.name.to_string())));
    for name in names {
        if !known.contains(name) {
            let problem = Problem::new(format!("`--upgrade {name}`: nothing of that name is locked"));
            let near = nearest(name, known.iter().map(String::as_str));
            bail!(match near {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem,
            });
        }
    }
    Ok(())
}

/// Code goes into images, so a secret in it is refused before the lock names it. Files of the old lock were
/// looked at then.
fn refuse_secret_code(lock: &Lockfile, old: Option<&Lockfile>, session: &Session) -> Result<()> {
    let known: BTreeSet<Digest> = old
        .into_iter()
        .flat_map(|old| old.of_role(Role::Code))
        .flat_map(|artifact| artifact.files.iter().flat_map(|tree| tree.files()))
        .map(|file| file.digest)
        .collect();
    let new = lock
        .of_role(Role::Code)
        .flat_map(|artifact| artifact.files.iter().flat_map(|tree| tree.files()))
        .filter(|file| !known.contains(&file.digest));
    refuse_secret_files(new, session)
}

/// Refuses files that are to enter an image and hold a secret; all of them together.
pub fn refuse_secret_files<'a>(files: impl Iterator<Item = &'a TreeFile>, session: &Session) -> Result<()> {
    let mut lines = Vec::new();
    for file in files {
        for secret in secret::find_in(session.store.open_blob(&file.digest)?)? {
            lines.push(format!("{}:{}: holds {}", file.path, secret.line, secret.kind));
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    let help = "take it out and revoke it; tokens belong in the environment, and files that must not ship in .packignore";
    bail!(Problem::new(lines.join("\n")).help(help))
}

/// Blobs that the lock names and the store has not.
pub fn missing(lock: &Lockfile, session: &Session) -> Result<Vec<(Digest, u64)>> {
    let mut missing = Vec::new();
    for (digest, size) in lock.blobs() {
        if !session.store.contains(&digest, size)? {
            missing.push((digest, size));
        }
    }
    Ok(missing)
}

/// What fetching did.
#[derive(Debug, Serialize)]
pub struct Fetched {
    /// Artifacts that were brought, wholly or in part.
    pub artifacts: usize,
    /// Bytes that were not in the store.
    pub bytes: u64,
    /// Steps' outputs whose bytes are nowhere to be fetched from.
    pub absent: Vec<String>,
}

/// Brings every byte of the lock that is not in the store, by its pin.
pub fn fetch(project: &Project, lock: &Lockfile, session: &Session) -> Result<Fetched> {
    let mut wanted: Vec<&Artifact> = Vec::new();
    let mut absent = Vec::new();
    let mut size = 0;
    for artifact in &lock.artifacts {
        let mut complete = true;
        let mut wanting = 0;
        for (digest, bytes) in artifact.blobs() {
            if !session.store.contains(&digest, bytes)? {
                complete = false;
                wanting += bytes;
            }
        }
        match &artifact.pin {
            _ if complete => {}
            Pin::Step(_) => absent.push(artifact.name.to_string()),
            _ => {
                wanted.push(artifact);
                size += wanting;
            }
        }
    }
    if !wanted.is_empty() {
        let what = if wanted.len() == 1 { "1 artifact".to_owned() } else { format!("{} artifacts", wanted.len()) };
        session.progress.note(&format!("fetching {what}, {}", bytes(size)));
        source::fetch_all(&wanted, size, &session.context(project))?;
    }
    for name in &absent {
        session
            .progress
            .warn(&format!("`{name}` was made by a step, and its bytes are not in this store: `pack adopt {name}=DIR`"));
    }
    Ok(Fetched { artifacts: wanted.len(), bytes: size, absent })
}

/// What is said where the chain cannot be walked: the lock's digests hold all the same.
pub const UNCHECKED: &str = "the archive's signed indexes are not in this store, so packages are taken by the lock's digests alone; \
`pack vendor` on the machine that locked keeps them";

/// Walks the chain from an archive's key to every .deb of the lock again, from the store's evidence alone.
/// What was found right is remembered by what it was. Returns what cannot be checked any more.
pub fn check_signatures(lock: &Lockfile, session: &Session) -> Result<Vec<String>> {
    if lock.of_role(Role::System).next().is_none() {
        return Ok(Vec::new());
    }
    let unsigned = lock.unsigned_suites();
    if !unsigned.is_empty() {
        let message = format!("pack.lock names packages of {}, and no signed index that vouches for them", unsigned.join(", "));
        bail!(Problem::new(message).help("run `pack lock`"));
    }
    let mut absent = Vec::new();
    for evidence in &lock.evidence {
        if !session.store.contains(&evidence.digest, evidence.size)? {
            absent.push(format!("{} {}", evidence.kind, evidence.name));
        }
    }
    if !absent.is_empty() {
        return Ok(absent);
    }
    let system = Lockfile { artifacts: lock.of_role(Role::System).cloned().collect(), ..lock.clone() };
    let key = Digest::of(system.emit().as_bytes());
    if session.store.recall("signatures", &key).is_none() {
        recheck(&system.evidence, &system.artifacts, &session.store)?;
        session.store.remember("signatures", &key, "\n")?;
    }
    Ok(absent)
}

/// What was typed, done and shown.
pub(super) fn main(args: &args::Lock, call: &Call) -> Result<ExitCode> {
    let args::Lock { project, check, upgrade, no_fetch } = args;
    let session = call.open()?;
    let mut project = Project::load(&project.dir)?;
    let upgrade = upgrade.as_ref().map(|names| names.iter().filter(|name| !name.is_empty()).cloned().collect());
    let options = Options { check: *check, upgrade, no_fetch: *no_fetch };
    let had = project.lock()?.is_some();
    let outcome = lock(&mut project, &options, &session)?;
    call.out.show(&outcome, |outcome| render::lock(outcome, &options, had))?;
    let found = *check && !(outcome.stale.is_empty() && outcome.stale_outputs.is_empty());
    Ok(if found { ExitCode::from(1) } else { ExitCode::SUCCESS })
}

/// As [`main`], for `pack fetch`.
pub(super) fn main_fetch(args: &args::Fetch, call: &Call) -> Result<ExitCode> {
    let args::Fetch { project } = args;
    let session = call.open()?;
    let project = Project::load(&project.dir)?;
    let lock = project.need_lock()?;
    let fetched = fetch(&project, &lock, &session)?;
    if !check_signatures(&lock, &session)?.is_empty() {
        session.progress.note(UNCHECKED);
    }
    call.out.show(&fetched, |fetched| match fetched.artifacts {
        0 if fetched.absent.is_empty() => "every byte of the lock is in the store\n".to_owned(),
        0 => "nothing to fetch\n".to_owned(),
        n => format!("fetched {n} artifacts, {}\n", bytes(fetched.bytes)),
    })?;
    Ok(if fetched.absent.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
