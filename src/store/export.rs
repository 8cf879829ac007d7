//! Export: how a blob leaves the store as a file elsewhere.
//!
//! Layer 3 (effects). Link, else reflink, else copy; whoever asks is told which. A link shares the inode, so
//! it is made only of blobs that nobody but `pack` owns; a copy is hashed on the way. Must never write into
//! the store.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::scratch::{Scratch, fresh_name};
use super::take::copy_hashed;
use super::trust::hash_open;
use super::{Store, StoreError, io_error};
use crate::digest::Digest;
use crate::progress::Task;

/// How a blob came to its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Placed {
    /// It was there already.
    Present,
    /// A hard link: no byte read or written.
    Linked,
    /// A reflink: no byte written until one side changes.
    Reflinked,
    /// Copied, and hashed on the way.
    Copied,
}

impl Store {
    /// Puts a blob at `to` (in an existing folder), mode 0444, whole or not at all, in place of what is there.
    ///
    /// Linking fails across file systems and, under `fs.protected_hardlinks`, for a store owned by another
    /// user that we cannot write to; then it is reflinked or copied.
    pub fn place(&self, digest: &Digest, _size: u64, to: &Path) -> Result<Placed, StoreError> {
        self.place_as(digest, to, true)
    }

    /// As [`Store::place`], but never with the store's own inode: for a folder that others will own. A file that
    /// is there is hashed, and stays if it is right.
    pub fn place_apart(&self, digest: &Digest, size: u64, to: &Path) -> Result<Placed, StoreError> {
        if fs::symlink_metadata(to).is_ok_and(|meta| meta.is_file() && meta.len() == size) {
            let there = fs::File::open(to).map_err(io_error("open", to))?;
            if hash_open(&there, to, &Task::hidden())?.0 == *digest {
                return Ok(Placed::Present);
            }
        }
        self.place_as(digest, to, false)
    }

    fn place_as(&self, digest: &Digest, to: &Path, link: bool) -> Result<Placed, StoreError> {
        let source = self.open_blob(digest)?;
        let folder = to.parent().expect("a blob is placed in a folder");
        if link && self.link(digest, &source, &fresh_name(folder), to)? {
            return Ok(Placed::Linked);
        }
        let scratch = Scratch::file_in(folder)?;
        let how = if rustix::fs::ioctl_ficlone(scratch.file(), &source).is_ok() {
            Placed::Reflinked
        } else {
            let (found, _) = copy_hashed(&mut &source, &scratch, &Task::hidden())?;
            if found != *digest {
                return Err(StoreError::Spoiled { digest: *digest, moved: self.set_aside(digest)? });
            }
            Placed::Copied
        };
        let file = scratch.file();
        file.set_permissions(fs::Permissions::from_mode(0o444)).map_err(io_error("protect", scratch.path()))?;
        file.sync_all().map_err(io_error("write", scratch.path()))?;
        scratch.rename(to)?;
        Ok(how)
    }

    /// Links a blob, if that can be done. The name on the way has no lock of its own, since the lock would be the
    /// blob's; links are made only in a layout, whose folder is locked by whoever writes it.
    ///
    /// A link changes the blob's ctime; its trust record is renewed where it held right before.
    fn link(&self, digest: &Digest, source: &fs::File, temporary: &Path, to: &Path) -> Result<bool, StoreError> {
        let before = source.metadata().map_err(io_error("read", to))?;
        let trusted = self.trusted(digest, &before);
        if fs::hard_link(self.blob_path(digest), temporary).is_err() {
            return Ok(false);
        }
        let renamed = fs::rename(temporary, to).map_err(io_error("put in place", to));
        // Renaming a link onto another link of the same inode does nothing and leaves the first name.
        drop(fs::remove_file(temporary));
        renamed?;
        let after = source.metadata().map_err(io_error("read", to))?;
        if trusted && (after.len(), after.mtime(), after.mtime_nsec()) == (before.len(), before.mtime(), before.mtime_nsec()) {
            self.trust(digest, &after)?;
        }
        Ok(true)
    }
}
