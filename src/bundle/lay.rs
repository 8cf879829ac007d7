//! Laying out a bundle's project as files, in a folder that was made for it.
//!
//! Layer 3 (effects). Files and folders only, each new, each below the folder: paths are `ImagePath`s, and no
//! link is ever made that a later one could follow. Must never overwrite anything.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::{BundleError, Lay, Places, io_error};
use crate::artifact::{Pin, Role, WheelPlace};
use crate::digest::{Digest, HashingReader};
use crate::lockfile::Lockfile;
use crate::manifest::beside;
use crate::path::ImagePath;
use crate::store::{Store, StoreError};
use crate::tree::{Mode, Tree, TreeFile};

/// Writes the documents.
pub(super) fn documents(files: &BTreeMap<ImagePath, Vec<u8>>, into: &Path) -> Result<(), BundleError> {
    for (path, bytes) in files {
        let mut file = create(path, Mode::Plain, into)?;
        file.write_all(bytes).map_err(io_error("write", &path.under(into)))?;
    }
    Ok(())
}

fn create(path: &ImagePath, mode: Mode, into: &Path) -> Result<fs::File, BundleError> {
    let to = path.under(into);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(io_error("create", parent))?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to).map_err(io_error("create", &to))?;
    file.set_permissions(Permissions::from_mode(mode.bits())).map_err(io_error("write", &to))?;
    Ok(file)
}

/// Lays out what lies beside the manifest, from the store.
pub(super) fn trees(
    places: &Places,
    carried: &BTreeSet<Digest>,
    documents: &BTreeMap<ImagePath, Vec<u8>>,
    store: &Store,
    into: &Path,
) -> Result<(), BundleError> {
    for (path, &(digest, _, mode)) in places {
        let to = path.under(into);
        if documents.contains_key(path) {
            // It is there as a document; the tree knows whether it is executable.
            fs::set_permissions(&to, Permissions::from_mode(mode.bits())).map_err(io_error("write", &to))?;
            continue;
        }
        if !carried.contains(&digest) {
            return Err(StoreError::Missing { digest }.into());
        }
        let blob = store.open_blob(&digest)?;
        let mut file = create(path, mode, into)?;
        if rustix::fs::ioctl_ficlone(&file, &blob).is_ok() {
            continue;
        }
        let mut reader = HashingReader::new(blob);
        io::copy(&mut reader, &mut file).map_err(io_error("write", &to))?;
        let (found, _) = reader.finish();
        if found != digest {
            return Err(store.spoiled(&digest)?.into());
        }
    }
    Ok(())
}

/// Which file goes where; two that want one place must be the same.
pub(super) fn places(lock: &Lockfile, documents: &BTreeMap<ImagePath, Vec<u8>>, what: Lay) -> Result<Places, BundleError> {
    let mut places = Places::new();
    let twice = |path: &ImagePath| BundleError::Lies(format!("two files of the lock want the place `{path}`"));
    for artifact in &lock.artifacts {
        let wanted: Vec<(ImagePath, TreeFile)> = match (&artifact.pin, &artifact.files) {
            (Pin::Path(pin), Some(tree)) if what == Lay::Everything || artifact.role == Role::Code => below(&pin.path, tree)?,
            (Pin::Wheel(pin), None) => match &pin.place {
                WheelPlace::Path(path) => {
                    let path = beside(path).ok().flatten().ok_or_else(|| lies(path))?;
                    let file = TreeFile { path: path.clone(), mode: Mode::Plain, digest: artifact.digest, size: artifact.size };
                    vec![(path, file)]
                }
                WheelPlace::Url(_) => continue,
            },
            _ => continue,
        };
        for (path, file) in wanted {
            if documents.get(&path).is_some_and(|bytes| Digest::of(bytes) != file.digest) {
                return Err(BundleError::Lies(format!("`{path}` is not what the lock says")));
            }
            let place = (file.digest, file.size, file.mode);
            if places.insert(path.clone(), place).is_some_and(|other| other != place) {
                return Err(twice(&path));
            }
        }
    }
    // A file where another needs a folder is refused by the tree's own rule.
    let all = places.iter().map(|(path, (digest, size, mode))| (path, *digest, *size, *mode));
    let documents = documents.iter().filter(|(path, _)| !places.contains_key(*path));
    let documents = documents.map(|(path, bytes)| (path, Digest::of(bytes), bytes.len() as u64, Mode::Plain));
    let all = all.chain(documents).map(|(path, digest, size, mode)| TreeFile { path: path.clone(), mode, digest, size });
    Tree::new(all.collect()).map_err(|error| BundleError::Lies(error.to_string()))?;
    Ok(places)
}

/// The files of a tree that lies at a path beside the manifest. A tree of one file may be that file itself.
fn below(at: &str, tree: &Tree) -> Result<Vec<(ImagePath, TreeFile)>, BundleError> {
    let Some(root) = beside(at).map_err(|_| lies(at))? else {
        return Ok(tree.files().iter().map(|file| (file.path.clone(), file.clone())).collect());
    };
    if let [file] = tree.files()
        && file.path.as_str() == root.file_name()
    {
        return Ok(vec![(root, file.clone())]);
    }
    let joined = |file: &TreeFile| Ok((root.join(&file.path).map_err(|_| lies(file.path.as_str()))?, file.clone()));
    tree.files().iter().map(joined).collect()
}

fn lies(path: &str) -> BundleError {
    BundleError::Lies(format!("`{}` cannot lie in a project", super::shown(path)))
}
