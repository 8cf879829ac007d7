//! `pack bundle FILE`: what a participant hands in; and the way back, into a folder.
//!
//! Layer 4 (commands). The lock is brought up to date as `build` does, and what only this project has is taken
//! along; public inputs are fetched by their pins by whoever opens it. Must never put a secret into a bundle.

#![allow(clippy::disallowed_methods, reason = "effects: reads the project's documents")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::args;
use super::build::{current_lock, stale_outputs};
use super::error::Problem;
use super::files::read_bytes;
use super::project::{Project, refuse_secrets};
use super::session::Call;
use super::{Session, attest, lock};
use crate::artifact::{Artifact, Name, Pin, Role};
use crate::attestation::{ENDING, Envelope, MAX_ENVELOPE};
use crate::bundle::{self, Carried, Document, Lay, Refetched};
use crate::digest::Digest;
use crate::lockfile::Lockfile;
use crate::manifest::beside;
use crate::path::ImagePath;
use crate::record::Record;
use crate::source::pypi::Pypi;
use crate::target::Target;
use crate::text::bytes;
use crate::text::count;
use crate::tree::TreeFile;

/// Files of an output or of code below this size, in bytes, may be text.
const TEXT: u64 = 4 << 20;

/// What bundling did.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// The bundle.
    pub file: PathBuf,
    /// Its SHA-256.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: u64,
    /// Documents in it.
    pub documents: Vec<String>,
    /// Blobs in it.
    pub blobs: usize,
    /// Artifacts that are fetched by their pins by whoever opens it.
    pub refetch: usize,
    /// Their bytes.
    pub refetch_bytes: u64,
    /// Outputs of steps that the lock does not have.
    pub absent: Vec<Name>,
    /// Outputs that are stale and were taken along all the same, and why.
    pub stale: Vec<String>,
    /// Attestations that are about another lock or a run that is gone, and so are not in it.
    pub left_out: Vec<String>,
    /// Whether a build statement says what the images of this lock are claimed to be.
    pub is_built: bool,
}

/// What goes into a bundle.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Public inputs as well.
    pub with_inputs: bool,
    /// Outputs that are stale as well.
    pub anyway: bool,
}

/// Writes a bundle of a project.
pub fn bundle(project: &mut Project, file: &Path, options: Options, session: &Session) -> Result<Outcome> {
    let with_inputs = options.with_inputs;
    judge_place(file)?;
    let (lock, _) = current_lock(project, session)?;
    let stale = judge_outputs(project, &lock, options.anyway, session)?;
    project.write_lock(&lock)?;
    let record = project.record()?;
    let carried = Carried::of(&lock, record.as_ref());
    let mut blobs = carried.must.clone();
    need(&blobs, &lock.artifacts, session)?;
    need_evidence(&lock, session)?;
    for (digest, size) in &carried.may {
        if session.store.contains(digest, *size)? {
            blobs.insert((*digest, *size));
        }
    }
    if with_inputs {
        need(&carried.public, &lock.artifacts, session)?;
        blobs.extend(&carried.public);
    }
    refuse_secret_trees(&lock.artifacts, record.as_ref(), session)?;
    let text = lock.emit();
    let mut documents = documents(project, &text, record.as_ref())?;
    let pinned = lock.artifacts.iter().filter_map(|artifact| match &artifact.pin {
        Pin::Step(pin) => Some(pin.key),
        _ => None,
    });
    let ran = record.iter().flat_map(|record| record.steps.values()).map(|step| step.key);
    let keys = pinned.chain(ran).map(|key| key.to_string()).collect();
    let (envelopes, left_out, is_built) = envelopes(&project.root, &Digest::of(text.as_bytes()), &keys)?;
    documents.extend(envelopes);
    let outputs = project.manifest.steps.values().flat_map(|step| &step.outputs);
    let made = |name: &Name| lock.output(name).is_some();
    let absent = outputs.filter(|(name, class)| class.role().is_some() && !made(name)).map(|(name, _)| name.clone()).collect();
    let task = session.progress.task("bundle", blobs.iter().map(|blob| blob.1).sum());
    let index = bundle::write(file, &documents, blobs, &session.store, &task)?;
    let refetch: Vec<&Artifact> = lock.artifacts.iter().filter(|artifact| bundle::is_public(artifact) && !with_inputs).collect();
    let open = fs::File::open(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    let (digest, size) = Digest::of_reader(open).with_context(|| format!("cannot read `{}`", file.display()))?;
    Ok(Outcome {
        file: file.to_owned(),
        digest,
        bytes: size,
        documents: index.files.files().iter().map(|file| file.path.to_string()).collect(),
        blobs: index.blobs.len(),
        refetch: refetch.len(),
        refetch_bytes: refetch.iter().map(|artifact| artifact.size).sum(),
        absent,
        stale,
        left_out,
        is_built,
    })
}

/// Refuses outputs that their steps would now make from something else, or says which are taken all the same.
fn judge_outputs(project: &Project, lock: &Lockfile, anyway: bool, session: &Session) -> Result<Vec<String>> {
    let outputs = lock.artifacts.iter().filter(|artifact| artifact.is_output()).count();
    // What a step sees counts its packages, and those may not be here.
    let stale = match stale_outputs(project, lock, session) {
        _ if outputs == 0 => return Ok(Vec::new()),
        Ok(stale) => stale,
        Err(error) => {
            let what = count(outputs, "output is", "outputs are");
            session.progress.note(&format!(
                "whether {what} stale cannot be told: {error:#}; `pack fetch` brings what is absent, then bundle again"
            ));
            return Ok(Vec::new());
        }
    };
    let Some((first, _)) = stale.first().filter(|_| !anyway) else {
        return Ok(stale.into_iter().map(|(name, because)| format!("`{name}`: {because}")).collect());
    };
    let lines: Vec<String> = stale.iter().map(|(name, because)| format!("stale: output `{name}`: {because}")).collect();
    bail!(Problem::new(lines.join("\n")).help(format!(
        "`pack train --again` makes it anew; or run `pack adopt {first}=DIR`, or undo the change; `--anyway` bundles it as it is"
    )))
}

/// A bundle replaces a bundle and nothing else, and by its name never counts as code.
fn judge_place(file: &Path) -> Result<()> {
    let named = file.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(bundle::ENDING));
    if !named {
        let problem = Problem::new(format!("expected a name that ends with `{}`, found `{}`", bundle::ENDING, file.display()));
        bail!(problem.help("by that ending a bundle in the project's folder is not taken for code"));
    }
    if fs::symlink_metadata(file).is_ok() && !matches!(Target::of(file), Ok(Target::Bundle(_))) {
        bail!(Problem::new(format!("`{}` is there already and is no bundle", file.display())).help("name another file"));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
        let problem = Problem::new(format!("cannot write `{}`: there is no folder `{}`", file.display(), folder.display()));
        bail!(problem.help(format!("`mkdir -p {}` makes it, or name another place", folder.display())));
    }
    Ok(())
}

/// What must be at hand: a bundle without it would prove nothing.
fn need(blobs: &BTreeSet<(Digest, u64)>, artifacts: &[Artifact], session: &Session) -> Result<()> {
    let mut absent = Vec::new();
    for artifact in artifacts {
        for blob in artifact.blobs() {
            if blobs.contains(&blob) && !session.store.contains(&blob.0, blob.1)? {
                absent.push(artifact);
                break;
            }
        }
    }
    let Some(first) = absent.first() else { return Ok(()) };
    let names: Vec<String> = absent.iter().take(5).map(|artifact| format!("{} `{}`", artifact.role, artifact.name)).collect();
    let more = if absent.len() > 5 { format!(" and {} more", absent.len() - 5) } else { String::new() };
    let help = match &first.pin {
        Pin::Step(_) => {
            format!("steps' outputs are not fetched: run `pack train`, or `pack adopt {}=DIR` with the files", first.name)
        }
        _ => "run `pack fetch`".to_owned(),
    };
    bail!(Problem::new(format!("the store has not all bytes of {}{more}", names.join(", "))).help(help))
}

/// The signed indexes: whoever opens the bundle cannot fetch those of then.
fn need_evidence(lock: &Lockfile, session: &Session) -> Result<()> {
    for evidence in &lock.evidence {
        if !session.store.contains(&evidence.digest, evidence.size)? {
            let problem = format!("the store has not the signed index `{} {}`", evidence.kind, evidence.name);
            bail!(Problem::new(problem).help(
                "name the store of the machine that locked with `--store DIR`, or choose afresh with `pack lock --upgrade system`"
            ));
        }
    }
    Ok(())
}

/// Code and outputs as elsewhere; logs too, where programs print what they were given.
fn refuse_secret_trees(artifacts: &[Artifact], record: Option<&Record>, session: &Session) -> Result<()> {
    let own = |artifact: &&Artifact| artifact.role == Role::Code || artifact.is_output();
    let locked = artifacts.iter().filter(own).filter_map(|artifact| artifact.files.as_ref());
    let recorded =
        record.iter().flat_map(|record| record.steps.values()).flat_map(|step| step.outputs.values().chain([&step.code]));
    let mut files: BTreeMap<Digest, &TreeFile> = BTreeMap::new();
    for file in locked.chain(recorded).flat_map(|tree| tree.files()).filter(|file| file.size < TEXT) {
        if session.store.contains(&file.digest, file.size)? {
            files.insert(file.digest, file);
        }
    }
    let mut files: Vec<&TreeFile> = files.into_values().collect();
    files.sort();
    lock::refuse_secret_files(files.into_iter(), session)
}

/// The project's documents, each looked at for secrets.
fn documents(project: &Project, lock: &str, record: Option<&Record>) -> Result<Vec<Document>> {
    let mut found: BTreeMap<ImagePath, Vec<u8>> = BTreeMap::new();
    let path = |text: &str| ImagePath::new(text).expect("a constant");
    found.insert(path("pack.toml"), project.manifest_text.clone().into_bytes());
    found.insert(path("pack.lock"), lock.as_bytes().to_vec());
    if let Some(named) = &project.competition_pin.path
        && let Ok(Some(path)) = beside(named)
    {
        found.insert(path, project.competition_text.clone().into_bytes());
    }
    if let Some(record) = record {
        found.insert(path("pack.record.json"), record.emit().into_bytes());
    }
    if let Some(python) = &project.manifest.python {
        for (file, digest) in Pypi::inputs(python, &project.root)? {
            let path = ImagePath::new(&file)?;
            let bytes = read_bytes(&path.under(&project.root), TEXT)?;
            if Digest::of(&bytes) != digest {
                bail!(Problem::new(format!("`{path}` changed while it was being read")).help("run the command again"));
            }
            found.insert(path, bytes);
        }
    }
    for (path, bytes) in &found {
        refuse_secrets(path.as_str(), bytes)?;
    }
    Ok(found.into_iter().map(|(path, bytes)| Document { path, bytes }).collect())
}

/// The project's envelopes but those about another lock or a run that is gone, which come second with the reason;
/// and whether one of them is a build statement of this lock.
fn envelopes(root: &Path, lock: &Digest, keys: &BTreeSet<String>) -> Result<(Vec<Document>, Vec<String>, bool)> {
    let folder = root.join(attest::FOLDER);
    let (mut found, mut left_out, mut is_built) = (Vec::new(), Vec::new(), false);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((found, left_out, is_built)),
        Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", folder.display())),
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read `{}`", folder.display()))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.ends_with(ENDING) && !name.starts_with('.')) else { continue };
        let bytes = read_bytes(&entry.path(), MAX_ENVELOPE)?;
        let envelope = Envelope::parse(&bytes).with_context(|| format!("`{}` cannot be handed in", entry.path().display()))?;
        // A step's statement stays as long as the lock or the Record has what it made.
        let left = match envelope.unverified().ok().map(|statement| attest::about(&statement, lock)) {
            Some(attest::About::OtherBuild) => Some("other images: its lock is another"),
            Some(attest::About::Step(key)) if !keys.contains(&key) => Some("a run that is no longer in the project"),
            Some(attest::About::ThisBuild) => {
                is_built = true;
                None
            }
            _ => None,
        };
        if let Some(about) = left {
            left_out.push(format!("{} is about {about}", name.escape_debug()));
            continue;
        }
        refuse_secrets(&format!("{name} (payload)"), envelope.payload())?;
        refuse_secrets(name, &bytes)?;
        found.push(Document { path: ImagePath::new(&format!("{}{name}", bundle::ENVELOPES))?, bytes });
    }
    left_out.sort();
    Ok((found, left_out, is_built))
}

/// What opening did.
#[derive(Debug, Serialize)]
pub struct Opened {
    /// The project's folder.
    pub project: PathBuf,
    /// Blobs that the bundle brought.
    pub blobs: usize,
    /// What it does not bring.
    pub refetch: Vec<Refetched>,
}

/// Opens a bundle into a folder that is not there yet, and its blobs into the store.
pub fn open(file: &Path, into: &Path, session: &Session) -> Result<Opened> {
    if fs::symlink_metadata(into).is_ok() {
        let problem = Problem::new(format!("`{}` is there already, and a bundle is opened into a new folder", into.display()));
        bail!(problem.help("name a folder that is not there yet"));
    }
    let task = session.progress.task("open", 0);
    let opened = bundle::open(file, &session.store, into, Lay::Everything, &task).with_context(|| refused(file))?;
    Ok(Opened { project: opened.root, blobs: opened.index.blobs.len(), refetch: opened.refetch })
}

fn refused(file: &Path) -> String {
    format!("cannot take `{}`", file.display())
}

/// For `inspect`: everything is read, and nothing is kept.
pub fn inspect(file: &Path) -> Result<Vec<String>> {
    let (index, refetch) = bundle::check(file)?;
    let mut lines: Vec<String> =
        index.files.files().iter().map(|file| format!("project/{} {} bytes", file.path, file.size)).collect();
    lines.push(format!(
        "{}, {}",
        count(index.blobs.len(), "blob", "blobs"),
        bytes(index.blobs.iter().map(|blob| blob.size).sum())
    ));
    lines.extend(refetch.iter().map(|one| format!("to fetch by pin: {} {} {}", one.role, one.name, one.pin)));
    Ok(lines)
}

/// For a person, after bundling.
pub fn bundled(outcome: &Outcome) -> String {
    let mut text = format!("{} {}, {}\n", outcome.file.display(), outcome.digest, bytes(outcome.bytes));
    text.push_str(&format!("holds {} and {}\n", outcome.documents.join(", "), count(outcome.blobs, "blob", "blobs")));
    if outcome.refetch > 0 {
        let (public, size) = (count(outcome.refetch, "public artifact is", "public artifacts are"), bytes(outcome.refetch_bytes));
        text.push_str(&format!("{public} not in it, {size}: whoever opens it fetches by pin\n"));
    }
    for name in &outcome.absent {
        text.push_str(&format!("not in it: output `{name}`, which no run or `pack adopt` has brought\n"));
    }
    for stale in &outcome.stale {
        text.push_str(&format!("STALE, and in it: output {stale}\n"));
    }
    for name in &outcome.left_out {
        text.push_str(&format!("not in it: attestation {name}\n"));
    }
    if !outcome.is_built {
        text.push_str(
            "no build statement for this lock: nothing says what the images are claimed to be; `pack build --sign` writes one\n",
        );
    }
    text
}

/// For a person, after opening.
pub fn opened(opened: &Opened) -> String {
    let mut text = format!("{}; the project is in {}\n", count(opened.blobs, "blob", "blobs"), opened.project.display());
    if !opened.refetch.is_empty() {
        let size = bytes(opened.refetch.iter().map(|one| one.size).sum());
        let public = count(opened.refetch.len(), "public artifact", "public artifacts");
        let be = if opened.refetch.len() == 1 { "is" } else { "are" };
        let project = opened.project.display();
        text.push_str(&format!("{public}, {size}, {be} to be fetched by pin: `pack fetch {project}`\n"));
    }
    text.push_str(&format!("build it: pack build --locked {}\n", opened.project.display()));
    text
}

/// What was typed, done and shown.
pub(super) fn main(args: &args::Bundle, call: &Call) -> Result<ExitCode> {
    let args::Bundle { file, project, with_inputs, anyway, open: into } = args;
    if let Some(into) = into {
        let done = open(file, into, &call.open()?)?;
        call.out.show(&done, opened)?;
        return Ok(ExitCode::SUCCESS);
    }
    let session = call.open()?;
    let mut project = Project::load(&project.dir)?;
    let options = Options { with_inputs: *with_inputs, anyway: *anyway };
    let done = bundle(&mut project, file, options, &session)?;
    call.out.show(&done, bundled)?;
    Ok(ExitCode::SUCCESS)
}
