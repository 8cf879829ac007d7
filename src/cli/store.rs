//! `pack store` and `pack vendor`: keeping bytes, and handing them on.
//!
//! Layer 4 (commands). A vendor folder is a store that holds exactly one lock's blobs, so it serves with
//! `--store DIR --offline` when pools and repositories are gone.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Result, bail};
use serde::Serialize;

use super::error::Problem;
use super::lock::{check_signatures, fetch};
use super::project::Project;
use super::{Session, open_store};
use crate::digest::Digest;
use crate::layer::{Layers, Memory};
use crate::plan::{self, ImageKind, LayerPlan, Plan};
use crate::progress::bytes;
use crate::store::Placed;

/// What vendoring did.
#[derive(Debug, Serialize)]
pub struct Vendored {
    /// Blobs in the folder.
    pub blobs: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that were linked to the store's.
    pub linked: usize,
    /// Blobs that were copied or reflinked.
    pub copied: usize,
    /// Evidence that neither the store nor the archive has any more.
    pub absent_evidence: Vec<String>,
}

/// Copies the lock's blobs and evidence into a folder that serves as a store.
pub fn vendor(project: &Project, folder: &Path, session: &Session) -> Result<Vendored> {
    let lock = project.need_lock()?;
    fetch(project, &lock, session)?;
    check_signatures(&lock, session)?;
    let to = open_store(folder)?;
    let mut out = Vendored { blobs: 0, bytes: 0, linked: 0, copied: 0, absent_evidence: Vec::new() };
    let mut blobs: BTreeSet<(Digest, u64)> = lock.artifacts.iter().flat_map(|artifact| artifact.blobs()).collect();
    for evidence in &lock.evidence {
        if session.store.contains(&evidence.digest, evidence.size)? {
            blobs.insert((evidence.digest, evidence.size));
        } else {
            out.absent_evidence.push(format!("{} {}", evidence.kind, evidence.name));
        }
    }
    let task = session.progress.task("vendor", blobs.iter().map(|blob| blob.1).sum());
    for (digest, size) in &blobs {
        // Whoever gets the folder may edit it, so it shares no inode with this store.
        match session.store.place_apart(digest, *size, &to.blob_path(digest))? {
            Placed::Linked => out.linked += 1,
            Placed::Copied | Placed::Reflinked => out.copied += 1,
            Placed::Present => {}
        }
        task.add(*size);
        out.blobs += 1;
        out.bytes += size;
    }
    if !out.absent_evidence.is_empty() {
        session.progress.warn(&format!(
            "these signed indexes are in no store any more, so their signatures cannot be checked again: {}",
            out.absent_evidence.join(", ")
        ));
    }
    Ok(out)
}

/// What `store gc` did.
#[derive(Debug, Serialize)]
pub struct Collected {
    /// Files removed.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Removes what no lock of the named projects needs.
pub fn gc(roots: &[std::path::PathBuf], session: &Session) -> Result<Collected> {
    // Before the locks are read: a command that is under way may write one that names more.
    let alone = session.store.alone()?;
    let mut keep = BTreeSet::new();
    // A project named twice would wait for itself.
    let roots: BTreeSet<std::path::PathBuf> =
        roots.iter().map(|root| std::fs::canonicalize(root).unwrap_or_else(|_| root.clone())).collect();
    for root in &roots {
        let project = Project::load(root)?;
        let Some(lock) = project.lock()? else {
            bail!(
                Problem::new(format!("`{}` has no pack.lock, so all it needs would be removed", root.display()))
                    .help("run `pack lock` there, or leave it out")
            );
        };
        keep.extend(lock.blobs().into_iter().map(|(digest, _)| digest));
        // Layers that its images are made of can be made again, but need not.
        let layers = Layers { store: &session.store, progress: &session.progress, jobs: session.jobs, memory: Memory::Use };
        let mut plans: Vec<LayerPlan> = Vec::new();
        for kind in [ImageKind::Serve, ImageKind::Train] {
            plans.extend(Plan::new(kind, &project.manifest, &lock, project.track()).map_or(Vec::new(), |plan| plan.layers));
        }
        // And what its steps see, unpacked.
        for (name, step) in &project.manifest.steps {
            plans.extend(plan::step_view(name, step, &project.manifest, &lock).unwrap_or_default());
        }
        for layer in plans.iter().filter_map(|layer| layers.remembered(layer).transpose()) {
            let layer = layer?;
            keep.extend([layer.digest, layer.listing, layer.diff_id.0]);
        }
    }
    let collected = alone.gc(&keep)?;
    Ok(Collected { files: collected.files, bytes: collected.bytes })
}

/// What `store verify` found.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// Blobs read.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Blobs that had changed, and were moved aside.
    pub spoiled: Vec<String>,
}

/// Reads every byte of the store.
pub fn verify(session: &Session) -> Result<Verified> {
    let verified = session.store.verify(session.jobs, &session.progress)?;
    Ok(Verified {
        blobs: verified.blobs,
        bytes: verified.bytes,
        spoiled: verified.spoiled.iter().map(Digest::to_string).collect(),
    })
}

/// A count of blobs and bytes, as a sentence's part.
pub fn amount(blobs: u64, size: u64) -> String {
    format!("{blobs} blobs, {}", bytes(size))
}
