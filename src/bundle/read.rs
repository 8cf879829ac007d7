//! Reading a bundle: a stranger's file, looked through before anything of it is kept.
//!
//! Layer 3 (effects). In this order: the index; every header against it, without content; the documents, in
//! memory; what lock and Record name against what the index lists; room in the store; only then the blobs, each
//! through a sink of its digest, and the project's folder. Memory does not grow with blobs. Must never write
//! outside the folder it is given, nor make a link.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::tar::Walk;
use super::{BundleError, Carried, ENVELOPES, Index, Places, io_error, is_public, lay};
use crate::artifact::{Name, Role};
use crate::digest::Hasher;
use crate::lockfile::Lockfile;
use crate::manifest::{Manifest, beside};
use crate::path::ImagePath;
use crate::progress::Task;
use crate::record::Record;
use crate::source::path::open_regular;
use crate::store::Store;

/// What of a project is laid out as files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lay {
    /// Documents, wheels and code: what a build with `--locked` looks at.
    Code,
    /// Models, data and weights beside the manifest as well: what a person works on.
    Everything,
}

/// A bundle that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The project's folder.
    pub root: PathBuf,
    /// What the bundle holds.
    pub index: Index,
    /// The project's lock.
    pub lock: Lockfile,
    /// What it does not bring, to be fetched by pin.
    pub refetch: Vec<Refetched>,
}

/// An artifact that a bundle does not bring.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Refetched {
    /// What it is for.
    pub role: Role,
    /// Its name.
    pub name: Name,
    /// Its coordinate.
    pub pin: String,
    /// Bytes.
    pub size: u64,
}

/// What the documents of a bundle say, read and judged.
struct Documents {
    index: Index,
    files: BTreeMap<ImagePath, Vec<u8>>,
    manifest: Manifest,
    lock: Lockfile,
}

/// Looks through a whole bundle and keeps nothing.
pub fn check(file: &Path) -> Result<(Index, Vec<Refetched>), BundleError> {
    let mut walk = begin(file)?;
    let documents = documents(file, &mut walk)?;
    contents(&mut walk, &documents.index, |walk, member| {
        let mut hasher = Hasher::new();
        walk.content(member, |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        same(member, hasher)
    })?;
    let refetch = refetch(&documents.index, &documents.lock);
    Ok((documents.index, refetch))
}

/// Opens a bundle: its blobs go to the store, its project to `into`, a folder that is not there yet. Where it
/// is refused, `into` is gone again.
pub fn open(file: &Path, store: &Store, into: &Path, what: Lay, task: &Task) -> Result<Opened, BundleError> {
    let mut walk = begin(file)?;
    let documents = documents(file, &mut walk)?;
    let places = lay::places(&documents.lock, &documents.files, what)?;
    room(&documents, &places, store, into)?;
    std::fs::create_dir(into).map_err(io_error("create", into))?;
    let laid = fill(&mut walk, &documents, &places, store, into, task);
    if let Err(error) = laid {
        drop(std::fs::remove_dir_all(into));
        return Err(error);
    }
    let refetch = refetch(&documents.index, &documents.lock);
    Ok(Opened { root: into.to_owned(), index: documents.index, lock: documents.lock, refetch })
}

fn fill(
    walk: &mut Walk<BufReader<File>>,
    documents: &Documents,
    places: &Places,
    store: &Store,
    into: &Path,
    task: &Task,
) -> Result<(), BundleError> {
    // Before the blobs: what [python] names is known only when its files can be read.
    lay::documents(&documents.files, into)?;
    asked_for(documents, into)?;
    contents(walk, &documents.index, |walk, member| {
        task.add(member.size);
        let Some(mut sink) = store.sink(member.digest, member.size)? else {
            // It is there; the bundle's own bytes are compared all the same.
            let mut hasher = Hasher::new();
            walk.content(member, |bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            return same(member, hasher);
        };
        sink.restart()?;
        walk.content(member, |bytes| Ok(sink.write(bytes)?))?;
        sink.finish().map_err(|error| match error {
            crate::store::StoreError::Mismatch { expected, found } => {
                BundleError::Content { path: member.path.to_string(), expected, found }
            }
            error => error.into(),
        })
    })?;
    let carried: BTreeSet<_> = documents.index.blobs.iter().map(|blob| blob.digest).collect();
    lay::trees(places, &carried, &documents.files, store, into)
}

fn begin(file: &Path) -> Result<Walk<BufReader<File>>, BundleError> {
    let open = open_regular(file).map_err(io_error("read", file))?;
    Ok(Walk::new(BufReader::with_capacity(256 << 10, open)))
}

/// Looks at the index and every header, then reads the documents; the walk stands at the first of them again
/// afterwards.
fn documents(file: &Path, walk: &mut Walk<BufReader<File>>) -> Result<Documents, BundleError> {
    let index = walk.index()?;
    let found = std::fs::metadata(file).map_err(io_error("read", file))?.len();
    let expected = Walk::<BufReader<File>>::length(&index);
    if found < expected {
        return Err(BundleError::Short { expected, found });
    }
    for member in index.members() {
        walk.header(&member)?;
        walk.skip(&member)?;
    }
    walk.end()?;
    *walk = begin(file)?;
    if walk.index()? != index {
        return Err(BundleError::Lies("the bundle changed while it was read".into()));
    }
    let mut files = BTreeMap::new();
    for member in index.members() {
        let Some(path) = &member.document else { break };
        walk.header(&member)?;
        let (mut bytes, mut hasher) = (Vec::with_capacity(member.size as usize), Hasher::new());
        walk.content(&member, |piece| {
            bytes.extend_from_slice(piece);
            hasher.update(piece);
            Ok(())
        })?;
        same(&member, hasher)?;
        files.insert(path.clone(), bytes);
    }
    judged(index, files)
}

/// Goes through the blobs, the walk standing at the first one's header.
fn contents(
    walk: &mut Walk<BufReader<File>>,
    index: &Index,
    mut each: impl FnMut(&mut Walk<BufReader<File>>, &super::Member) -> Result<(), BundleError>,
) -> Result<(), BundleError> {
    for member in index.members().filter(|member| member.document.is_none()) {
        walk.header(&member)?;
        each(walk, &member)?;
    }
    walk.end()
}

fn same(member: &super::Member, hasher: Hasher) -> Result<(), BundleError> {
    let found = hasher.finish();
    if found == member.digest {
        return Ok(());
    }
    Err(BundleError::Content { path: member.path.to_string(), expected: member.digest, found })
}

/// Reads manifest, lock and Record, and holds the index against them.
fn judged(index: Index, files: BTreeMap<ImagePath, Vec<u8>>) -> Result<Documents, BundleError> {
    let text = |path: &str| -> Result<Option<&str>, BundleError> {
        let Some(bytes) = index.document(path).and_then(|file| files.get(&file.path)) else { return Ok(None) };
        std::str::from_utf8(bytes).map(Some).map_err(|_| BundleError::Lies(format!("`{path}` is not UTF-8")))
    };
    let need = |path: &str| text(path)?.ok_or_else(|| BundleError::Lies(format!("the bundle has no `{path}`")));
    let manifest = Manifest::parse(need("pack.toml")?)?;
    let lock = Lockfile::parse(need("pack.lock")?)?;
    if let Some(path) = competition(&lock) {
        need(path.as_str())?;
    }
    let record = text("pack.record.json")?.map(Record::parse).transpose()?;
    let carried = Carried::of(&lock, record.as_ref());
    let listed: BTreeSet<_> = index.blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
    if let Some((digest, size)) = carried.must.difference(&listed).next() {
        return Err(BundleError::Lies(format!("the bundle has no blob {digest} of {size} bytes, which its lock names")));
    }
    let known = |blob: &&(_, _)| ![&carried.must, &carried.may, &carried.public].iter().any(|set| set.contains(*blob));
    if let Some((digest, size)) = listed.iter().find(known) {
        return Err(BundleError::Lies(format!("blob {digest} of {size} bytes is named by neither lock nor Record")));
    }
    Ok(Documents { index, files, manifest, lock })
}

/// Where the competition's file lies, if it is no built-in one.
fn competition(lock: &Lockfile) -> Option<ImagePath> {
    beside(lock.competition.path.as_deref()?).ok().flatten()
}

/// Refuses documents that nothing asks for: they would lie in the project and be taken for something.
fn asked_for(documents: &Documents, root: &Path) -> Result<(), BundleError> {
    let mut asked: BTreeSet<String> = ["pack.toml", "pack.lock", "pack.record.json"].map(str::to_owned).into();
    asked.extend(competition(&documents.lock).map(|path| path.to_string()));
    if let Some(python) = &documents.manifest.python {
        asked.extend(crate::source::pypi::Pypi::inputs(python, root)?.into_iter().map(|(file, _)| file));
    }
    for path in documents.files.keys() {
        let is_envelope = path
            .as_str()
            .strip_prefix(ENVELOPES)
            .is_some_and(|name| !name.contains('/') && name.ends_with(crate::attestation::ENDING));
        if !is_envelope && !asked.contains(path.as_str()) {
            return Err(BundleError::Lies(format!("nothing in the project asks for `{path}`")));
        }
    }
    Ok(())
}

/// Refuses a bundle that would fill the disk: with its blobs, and with a copy of one for every place that names it.
fn room(documents: &Documents, places: &Places, store: &Store, into: &Path) -> Result<(), BundleError> {
    let mut blobs = 0;
    for blob in &documents.index.blobs {
        if !store.contains(&blob.digest, blob.size)? {
            blobs += blob.size;
        }
    }
    let texts: u64 = documents.files.values().map(|bytes| bytes.len() as u64).sum();
    let laid = places.iter().filter(|(path, _)| !documents.files.contains_key(*path));
    let project = laid.fold(texts, |sum, (_, (_, size, _))| sum.saturating_add(*size));
    let folder = into.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let disk_of = |path: &Path| -> Result<(u64, u64), BundleError> {
        let ask = |error: rustix::io::Errno| io_error("ask for room in", path)(error.into());
        let free = rustix::fs::statvfs(path).map_err(ask)?;
        Ok((rustix::fs::stat(path).map_err(ask)?.st_dev, free.f_bavail.saturating_mul(free.f_frsize)))
    };
    let ((store_disk, store_free), (disk, free)) = (disk_of(store.root())?, disk_of(folder)?);
    enough("store", if store_disk == disk { project.saturating_add(blobs) } else { blobs }, store_free)?;
    enough("project's folder", project, free)
}

fn enough(place: &'static str, wanted: u64, free: u64) -> Result<(), BundleError> {
    if wanted > free { Err(BundleError::NoRoom { place, wanted, free }) } else { Ok(()) }
}

fn refetch(index: &Index, lock: &Lockfile) -> Vec<Refetched> {
    let there: BTreeSet<_> = index.blobs.iter().map(|blob| (blob.digest, blob.size)).collect();
    let absent = lock.artifacts.iter().filter(|artifact| is_public(artifact));
    absent
        .filter(|artifact| artifact.blobs().iter().any(|blob| !there.contains(blob)))
        .map(|artifact| Refetched {
            role: artifact.role,
            name: artifact.name.clone(),
            pin: artifact.pin.to_string(),
            size: artifact.size,
        })
        .collect()
}
