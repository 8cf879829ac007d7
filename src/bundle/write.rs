//! Writing a bundle: from documents in memory and blobs of the store.
//!
//! Layer 3 (effects). Every byte that leaves the store is hashed on the way. Must never leave a half-written
//! file under the bundle's name.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{BundleError, Index, io_error, tar};
use crate::digest::{Digest, HashingReader};
use crate::path::ImagePath;
use crate::progress::Task;
use crate::store::{Store, StoreError};
use crate::tree::{Mode, Tree, TreeFile};

/// A document of the project.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// Below the project.
    pub path: ImagePath,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Writes a bundle, whole or not at all. What it holds follows from its arguments alone.
pub fn write(
    to: &Path,
    documents: &[Document],
    blobs: BTreeSet<(Digest, u64)>,
    store: &Store,
    task: &Task,
) -> Result<Index, BundleError> {
    let listed = documents.iter().map(|document| TreeFile {
        path: document.path.clone(),
        mode: Mode::Plain,
        digest: Digest::of(&document.bytes),
        size: document.bytes.len() as u64,
    });
    let files = Tree::new(listed.collect()).map_err(|error| BundleError::Lies(error.to_string()))?;
    let index = Index::new(files, blobs);
    index.judge()?;
    let folder = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = tempfile::Builder::new()
        .prefix(".tmp-")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(io_error("write", to))?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let failed = |error: io::Error| io_error("write", to)(error);
    tar::put_index(&mut out, &index).map_err(failed)?;
    for member in index.members() {
        match &member.document {
            Some(path) => {
                let document = documents.iter().find(|document| document.path == *path);
                let mut bytes = document.expect("the index is of these documents").bytes.as_slice();
                tar::put(&mut out, &member.path, member.size, &mut bytes).map_err(failed)?;
            }
            None => {
                let mut blob = HashingReader::new(store.open_blob(&member.digest)?);
                tar::put(&mut out, &member.path, member.size, &mut blob).map_err(failed)?;
                let (found, _) = blob.finish();
                if found != member.digest {
                    return Err(StoreError::Mismatch { expected: member.digest, found }.into());
                }
            }
        }
        task.add(member.size);
    }
    out.write_all(&tar::END).map_err(failed)?;
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(to).map_err(|error| failed(error.error))?;
    Ok(index)
}
