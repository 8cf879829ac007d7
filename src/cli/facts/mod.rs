//! Facts: what rules look at, gathered from the project and the store.
//!
//! Layer 4 (commands). Gathers only what the rules that are asked for need: hashing weights and unpacking
//! packages is dear the first time. Must never run, load or unpickle anything.

#![allow(clippy::disallowed_methods, reason = "effects: reads the Record and other projects")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Session;
use super::files::{MAX_LOCK, read_text};
use super::project::Project;
use crate::artifact::Role;
use crate::competition::Competition;
use crate::digest::Digest;
use crate::lockfile::Lockfile;
use crate::manifest::Manifest;
use crate::record::Record;
use crate::rules::{FileFacts, Needs, Other, PackageFacts, ServedFile, WeightFile};
use crate::store::Store;

mod packages;
mod texts;
mod weights;

/// The Record beside a manifest.
const RECORD: &str = "pack.record.json";
/// Bytes of a Record at most.
const MAX_RECORD: u64 = 64 << 20;

/// What was read in files.
pub struct Read<'a> {
    /// Files of text.
    pub files: Vec<FileFacts<'a>>,
    /// Files of weights.
    pub weights: Vec<WeightFile<'a>>,
    /// Files of code and of served data.
    pub served: Vec<ServedFile<'a>>,
    /// Packages.
    pub packages: Vec<PackageFacts<'a>>,
}

/// Reads what these needs ask for.
pub fn gather<'a>(
    manifest: &Manifest,
    lock: &'a Lockfile,
    competition: &Competition,
    needs: &BTreeSet<Needs>,
    session: &Session,
) -> Result<Read<'a>> {
    let any = |wanted: &[Needs]| wanted.iter().any(|need| needs.contains(need));
    let mut read = Read { files: Vec::new(), weights: Vec::new(), served: Vec::new(), packages: Vec::new() };
    if any(&[Needs::Texts, Needs::Headers, Needs::Tensors, Needs::Packages]) {
        read.files = texts::gather(lock, session)?;
    }
    if any(&[Needs::Headers, Needs::Tensors]) {
        read.weights = weights::gather(lock, competition, needs.contains(&Needs::Tensors), session)?;
        read.served = weights::served(manifest, lock, session)?;
    }
    if needs.contains(&Needs::Packages) {
        read.packages = packages::gather(lock, session)?;
    }
    Ok(read)
}

/// The Record of the project, if there is one, or why it cannot be read.
pub fn record(project: &Project) -> Option<Result<Record, String>> {
    let path = project.root.join(RECORD);
    if fs::symlink_metadata(&path).is_err() {
        return None;
    }
    let read = || -> Result<Record, String> {
        let text = read_text(&path, MAX_RECORD).map_err(|error| format!("{error:#}"))?;
        Record::parse(&text).map_err(|error| error.to_string())
    };
    Some(read())
}

/// The submissions in a folder: every folder of it that has a manifest and a lock, but the project's own.
pub fn others(folder: &Path, project: &Project) -> Result<Vec<Other>> {
    let failed = || format!("cannot read the folder `{}`", folder.display());
    let own = fs::canonicalize(&project.root).with_context(failed)?;
    let mut others = Vec::new();
    let mut folders: Vec<_> = fs::read_dir(folder)
        .with_context(failed)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .with_context(failed)?;
    folders.sort();
    for folder in folders {
        if !folder.join("pack.toml").is_file() || fs::canonicalize(&folder).is_ok_and(|folder| folder == own) {
            continue;
        }
        let read = |file: &str| {
            read_text(&folder.join(file), MAX_LOCK).with_context(|| format!("the submission `{}`", folder.display()))
        };
        let manifest = Manifest::parse(&read("pack.toml")?)?;
        let lock = Lockfile::parse(&read("pack.lock")?)?;
        let served = manifest.serve.iter().flat_map(|serve| &serve.weights);
        others.push(Other {
            name: folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            competition: lock.competition.name.clone(),
            track: manifest.submission.track.clone(),
            team: manifest.submission.team.clone(),
            code: lock.of_role(Role::Code).next().map(|code| code.digest),
            weights: served
                .filter_map(|name| lock.artifacts.iter().find(|artifact| artifact.name == *name))
                .map(|one| one.digest)
                .collect(),
        });
    }
    Ok(others)
}

/// The text of the competition that the lock names, where it is at hand.
pub fn locked_competition(project: &Project, lock: &Lockfile, store: &Store) -> Option<String> {
    if project.competition_pin.digest == lock.competition.digest {
        return Some(project.competition_text.clone());
    }
    store.recall("competition", &lock.competition.digest).filter(|text| Digest::of(text.as_bytes()) == lock.competition.digest)
}
