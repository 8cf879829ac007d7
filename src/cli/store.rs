//! `pack store` and `pack vendor`: keeping bytes, and handing them on.
//!
//! Layer 4 (commands). A vendor folder is a store that holds exactly one lock's blobs, so it serves with `--store DIR
//! --offline` when pools and repositories are gone. Must never remove bytes that a lock here names.

#![allow(clippy::disallowed_methods, reason = "effects: writes files into a folder of the person's")]

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::Session;
use super::args;
use super::args::StoreCommand;
use super::error::Problem;
use super::lock::{check_signatures, fetch};
use super::project::Project;
use super::render;
use super::session::Call;
use super::session::open_store;
use crate::artifact::{Artifact, Name, Role};
use crate::digest::{Digest, Hasher};
use crate::layer::{Layers, Memory};
use crate::plan::{self, ImageKind, LayerPlan, Plan};
use crate::store::Placed;
use crate::text::bytes;
use crate::tree::Tree;

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

/// What was written elsewhere.
#[derive(Debug, Serialize)]
pub struct Got {
    /// The digest of its listing.
    pub digest: Digest,
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Writes the files of what a project calls so into a new folder, whole or not at all. Every byte is hashed.
pub fn get(project: &Project, name: &Name, folder: &Path, session: &Session) -> Result<Got> {
    let tree = tree(project, name)?;
    let folder = std::path::absolute(folder)?;
    let failed = || format!("cannot write into `{}`", folder.display());
    let there = || Problem::new(format!("`{}` is there already", folder.display())).help("name a new folder");
    if fs::symlink_metadata(&folder).is_ok() {
        bail!(there());
    }
    let Some(parent) = folder.parent() else { bail!(there()) };
    fs::create_dir_all(parent).with_context(failed)?;
    let scratch = tempfile::Builder::new().prefix(".tmp-").tempdir_in(parent).with_context(failed)?;
    let task = session.progress.task(name.as_str(), tree.size());
    for file in tree.files() {
        let to = file.path.under(scratch.path());
        fs::create_dir_all(to.parent().unwrap_or(parent)).with_context(failed)?;
        let mut blob = session.store.open_blob(&file.digest)?;
        let mut written = File::create_new(&to).with_context(failed)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let n = blob.read(&mut buffer).with_context(|| format!("cannot read {}", file.digest))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            written.write_all(&buffer[..n]).with_context(failed)?;
            task.add(n as u64);
        }
        if hasher.finish() != file.digest {
            bail!(session.store.spoiled(&file.digest)?);
        }
        written.set_permissions(Permissions::from_mode(file.mode.bits())).with_context(failed)?;
    }
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).with_context(failed)?;
    let renamed = rustix::fs::renameat_with(CWD, scratch.path(), CWD, &folder, RenameFlags::NOREPLACE);
    match renamed {
        Ok(()) => drop(scratch.keep()),
        Err(Errno::EXIST) => bail!(there()),
        Err(error) => return Err(std::io::Error::from(error)).with_context(failed),
    }
    Ok(Got { digest: tree.digest(), files: tree.files().len(), bytes: tree.size() })
}

/// What a project calls so: in the lock, or a log or state in the Record.
fn tree(project: &Project, name: &Name) -> Result<Tree> {
    let lock = project.need_lock()?;
    let is_content = |artifact: &&Artifact| matches!(artifact.role, Role::Model | Role::Data | Role::Weights);
    let content: Vec<&Artifact> = lock.artifacts.iter().filter(is_content).collect();
    if let Some(artifact) = content.iter().find(|artifact| artifact.name == *name) {
        return match &artifact.files {
            Some(tree) => Ok(tree.clone()),
            None => bail!(
                Problem::new(format!("`{name}` is one file, no folder"))
                    .help(format!("`pack store path {}` says where it lies", artifact.digest))
            ),
        };
    }
    let record = project.record()?.unwrap_or_default();
    if let Some(tree) = record.steps.values().find_map(|step| step.outputs.get(name)) {
        return Ok(tree.clone());
    }
    let problem = Problem::new(format!("neither pack.lock nor pack.record.json has `{name}`"));
    if project.manifest.maker(name).is_some() {
        bail!(problem.help("run `pack train`"));
    }
    let recorded = record.steps.values().flat_map(|step| step.outputs.keys());
    let known: BTreeSet<&str> = content.iter().map(|artifact| &artifact.name).chain(recorded).map(Name::as_str).collect();
    bail!(problem.help(format!("known: {}", known.into_iter().collect::<Vec<_>>().join(", "))))
}

/// Where a blob lies.
pub fn path(digest: &Digest, session: &Session) -> Result<PathBuf> {
    let path = session.store.blob_path(digest);
    if path.is_file() {
        return Ok(path);
    }
    let help = "`pack fetch` brings what a lock names; a folder has no blob of its own, `pack store get NAME DIR` writes it";
    bail!(Problem::new(format!("the store has no {digest}")).help(help))
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

/// What was typed, done and shown.
pub(super) fn main(command: &StoreCommand, call: &Call) -> Result<ExitCode> {
    match command {
        StoreCommand::Verify => {
            let verified = verify(&call.open()?)?;
            call.out.show(&verified, |verified| {
                let mut text = format!("read {}\n", amount(verified.blobs, verified.bytes));
                for digest in &verified.spoiled {
                    text.push_str(&format!("spoiled, moved aside: {digest}\n"));
                }
                if !verified.spoiled.is_empty() {
                    text.push_str("run `pack fetch` in the projects that need them\n");
                }
                text
            })?;
            Ok(if verified.spoiled.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
        }
        StoreCommand::Gc { keep } => {
            let collected = gc(keep, &call.open()?)?;
            call.out.show(&collected, |c| format!("removed {} files, {}\n", c.files, bytes(c.bytes)))?;
            Ok(ExitCode::SUCCESS)
        }
        StoreCommand::Get { name, folder, project } => {
            let got = get(&Project::load(&project.dir)?, name, folder, &call.open()?)?;
            call.out.show(&got, |got| render::got(got, folder))?;
            Ok(ExitCode::SUCCESS)
        }
        StoreCommand::Path { digest } => {
            let session = call.open()?;
            let path = match digest {
                Some(digest) => path(&digest.parse()?, &session)?,
                None => session.store.root().to_owned(),
            };
            call.out.show(&path, |path| format!("{}\n", path.display()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// As [`main`], for `pack vendor`.
pub(super) fn main_vendor(args: &args::Vendor, call: &Call) -> Result<ExitCode> {
    let args::Vendor { folder, project } = args;
    let session = call.open()?;
    let project = Project::load(&project.dir)?;
    let vendored = vendor(&project, folder, &session)?;
    call.out.show(&vendored, |vendored| {
        let amount = amount(vendored.blobs as u64, vendored.bytes);
        let dir = folder.display();
        format!("{amount} are in {dir}\nuse it with `pack build --store {dir} --offline --locked`\n")
    })?;
    Ok(ExitCode::SUCCESS)
}
