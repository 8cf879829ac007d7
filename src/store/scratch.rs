//! Scratch: temporary files and folders that are alive as long as somebody holds their lock.
//!
//! Layer 3 (effects). Names are random, since two machines or containers that share a store count their
//! processes apart; whether one is garbage is asked of its lock. Must never take a name that is there.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{StoreError, io_error};
use crate::folders::remove_tree;

/// What every temporary name begins with.
pub(super) const PREFIX: &str = ".tmp-";

/// A temporary file or folder, locked; removed when dropped, unless it was renamed.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    file: File,
    is_folder: bool,
    renamed: bool,
}

impl Scratch {
    /// An empty file, mode 0600.
    pub(super) fn file_in(folder: &Path) -> Result<Self, StoreError> {
        Self::make(folder, false, |path| OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path))
    }

    /// An empty folder, mode 0700: one lock for many files.
    pub(super) fn folder_in(folder: &Path) -> Result<Self, StoreError> {
        Self::make(folder, true, |path| DirBuilder::new().mode(0o700).create(path).and_then(|()| File::open(path)))
    }

    fn make(folder: &Path, is_folder: bool, create: impl Fn(&Path) -> io::Result<File>) -> Result<Self, StoreError> {
        loop {
            let path = fresh_name(folder);
            let file = match create(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(io_error("create", &path)(error)),
            };
            file.lock().map_err(io_error("lock", &path))?;
            // Whoever clears the store may have locked and removed it before we could lock it.
            if is_at(&file, &path) {
                return Ok(Self { path, file, is_folder, renamed: false });
            }
        }
    }

    /// Where it lies; it may be opened there and written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, which holds the lock.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its lasting name, in place of whatever has that name.
    pub(super) fn rename(mut self, to: &Path) -> Result<(), StoreError> {
        fs::rename(&self.path, to).map_err(io_error("put in place", to))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        match (self.renamed, self.is_folder) {
            (true, _) => {}
            // What a replay wrote may lie in folders that it closed.
            (false, true) => drop(remove_tree(&self.path)),
            (false, false) => drop(fs::remove_file(&self.path)),
        }
    }
}

/// A path that, by all odds, nothing has.
pub(super) fn fresh_name(folder: &Path) -> PathBuf {
    // Each state of the standard library's hash maps is seeded from the system's random numbers.
    folder.join(format!("{PREFIX}{}", RandomState::new().hash_one(0)))
}

/// Whether the name still leads to this very file.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (ours.dev(), ours.ino()) == (there.dev(), there.ino())
}

/// The lock of a temporary file or folder, or of a part, that nobody holds; `None` where somebody does.
pub(crate) fn lock_of_dead(path: &Path) -> Option<File> {
    let meta = fs::symlink_metadata(path).ok()?;
    let file = (meta.is_file() || meta.is_dir()).then(|| File::open(path).ok()).flatten()?;
    (file.try_lock().is_ok() && is_at(&file, path)).then_some(file)
}
