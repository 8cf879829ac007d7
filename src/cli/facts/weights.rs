//! Weights: headers and tensors of the files of models and of what a submission adds.
//!
//! Layer 4 (commands). Every header is read; tensors are hashed only where a rule can make use of them, and
//! remembered by the blob's digest. Must never open a pickle beyond its first bytes.

#![allow(clippy::disallowed_methods, reason = "effects: reads the store's blobs")]

use std::io::Read as _;

use anyhow::{Context as _, Result};

use crate::artifact::{Artifact, Role};
use crate::cli::Session;
use crate::competition::{Competition, Standing};
use crate::copies::formats;
use crate::digest::Digest;
use crate::lockfile::Lockfile;
use crate::manifest::Manifest;
use crate::rules::{Found, Hides, ServedFile, WeightFile};
use crate::tensors;
use crate::weights::{FileKind, HEAD, WeightsError, kind_of};

/// What is in the files of weights.
pub fn gather<'a>(
    lock: &'a Lockfile,
    competition: &Competition,
    measure: bool,
    session: &Session,
) -> Result<Vec<WeightFile<'a>>> {
    let mut all = Vec::new();
    for artifact in lock.artifacts.iter().filter(|artifact| matches!(artifact.role, Role::Model | Role::Weights)) {
        for file in artifact.files.iter().flat_map(|tree| tree.files()) {
            if let Some(found) = look(&file.digest, file.size, file.path.as_str(), session)? {
                all.push(WeightFile { artifact, path: file.path.to_string(), digest: file.digest, found });
            }
        }
    }
    if measure {
        measure_all(&mut all, competition, session)?;
    }
    Ok(all)
}

/// What files of code, and of data that is served, are by their first bytes.
pub fn served<'a>(manifest: &Manifest, lock: &'a Lockfile, session: &Session) -> Result<Vec<ServedFile<'a>>> {
    let mut all = Vec::new();
    let is_served = |artifact: &&Artifact| match artifact.role {
        Role::Code => true,
        Role::Data => manifest.serve.iter().any(|serve| serve.data.contains(&artifact.name)),
        _ => false,
    };
    for artifact in lock.artifacts.iter().filter(is_served) {
        let files: Vec<(String, Digest, u64)> = match &artifact.files {
            Some(tree) => tree.files().iter().map(|file| (file.path.to_string(), file.digest, file.size)).collect(),
            None => vec![(String::new(), artifact.digest, artifact.size)],
        };
        for (path, digest, size) in files {
            let is = hides(artifact.role, &path, &digest, size, session)?;
            all.push(ServedFile { artifact, path, digest, size, is });
        }
    }
    Ok(all)
}

/// What a file could hide; none where its bytes are not at hand.
fn hides(role: Role, path: &str, digest: &Digest, size: u64, session: &Session) -> Result<Option<Hides>> {
    if !session.store.contains(digest, size)? {
        return Ok(None);
    }
    let mut sample = Vec::new();
    let blob = session.store.open_blob(digest)?;
    let cannot = || format!("cannot read `{}`", path.escape_debug());
    blob.take(formats::SAMPLE as u64).read_to_end(&mut sample).with_context(cannot)?;
    Ok(Some(match kind_of(&sample[..sample.len().min(HEAD)], path) {
        FileKind::Safetensors | FileKind::Gguf => Hides::Tensors,
        FileKind::Pickle(pickle) => Hides::Pickle(pickle.to_string()),
        FileKind::Other => formats::opaque(role, path, size, &sample).map_or(Hides::Nothing, Hides::Anything),
    }))
}

/// What is in one file; none where it holds no weights.
fn look(digest: &Digest, size: u64, path: &str, session: &Session) -> Result<Option<Found>> {
    if !session.store.contains(digest, size)? {
        // Without bytes, the name says whether it would be one.
        return Ok((kind_of(&[], path) != FileKind::Other).then_some(Found::Absent));
    }
    let file = session.store.open_blob(digest)?;
    let cannot = || format!("cannot read `{}`", path.escape_debug());
    Ok(match tensors::file_kind(&file, path).with_context(cannot)? {
        FileKind::Other => None,
        FileKind::Pickle(pickle) => Some(Found::Pickle(pickle.to_string())),
        FileKind::Safetensors | FileKind::Gguf => Some(match tensors::file_header(&file, path) {
            Ok(header) => Found::Header(header),
            Err(error @ WeightsError::Io(_)) => return Err(anyhow::Error::new(error).context(cannot())),
            Err(error) => Found::Refused(error.to_string()),
        }),
    })
}

/// Whether tensors of an artifact can say more than its files' digests.
fn is_worth(artifact: &Artifact, all: &[WeightFile], competition: &Competition) -> bool {
    if artifact.role == Role::Weights {
        return true;
    }
    let mut files = all.iter().filter(|file| std::ptr::eq(file.artifact, artifact));
    let listed = |digest| competition.by_digest(digest).is_some_and(|(standing, ..)| standing == Standing::Approved);
    competition.lists_tensors() && !files.all(|file| listed(&file.digest))
}

fn measure_all(all: &mut [WeightFile], competition: &Competition, session: &Session) -> Result<()> {
    let worth: Vec<usize> = (0..all.len())
        .filter(|at| matches!(all[*at].found, Found::Header(_)) && is_worth(all[*at].artifact, all, competition))
        .collect();
    let blobs: Vec<(String, Digest)> = worth.iter().map(|at| (all[*at].path.clone(), all[*at].digest)).collect();
    let bytes = worth.iter().filter_map(|at| all[*at].found.header()).map(|header| header.bytes()).sum();
    let task = session.progress.task("tensors", bytes);
    for (at, content) in worth.iter().zip(tensors::facts(&session.store, &blobs, session.jobs, &task)?) {
        all[*at].found = Found::Tensors(content);
    }
    Ok(())
}
