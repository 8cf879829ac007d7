//! Export: how a blob leaves the store as a file elsewhere.
//!
//! Layer 3 (effects). Link, else reflink, else copy; whoever asks is told which. A link shares the inode, so
//! it is made only of blobs that nobody but `pack` owns; a copy is hashed on the way. Must never write into
//! the store.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::{COUNTER, Store, StoreError, io_error};
use crate::digest::Digest;
use crate::pipe::{self, Chunks};

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
    /// Puts a blob at `to` (in an existing folder), mode 0444, whole or not at all.
    ///
    /// Linking fails across file systems and, under `fs.protected_hardlinks`, for a store owned by another
    /// user that we cannot write to; then it is reflinked or copied.
    pub fn place(&self, digest: &Digest, size: u64, to: &Path) -> Result<Placed, StoreError> {
        self.place_as(digest, size, to, true)
    }

    /// As [`Store::place`], but never with the store's own inode: for a folder that others will own.
    pub fn place_apart(&self, digest: &Digest, size: u64, to: &Path) -> Result<Placed, StoreError> {
        self.place_as(digest, size, to, false)
    }

    fn place_as(&self, digest: &Digest, size: u64, to: &Path, link: bool) -> Result<Placed, StoreError> {
        if fs::symlink_metadata(to).is_ok_and(|meta| meta.is_file() && meta.len() == size) {
            return Ok(Placed::Present);
        }
        drop(self.open_blob(digest)?);
        let from = self.blob_path(digest);
        let folder = to.parent().expect("a blob is placed in a folder");
        let n = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let temporary = folder.join(format!(".tmp-{}-{n}", std::process::id()));
        let how = if link && fs::hard_link(&from, &temporary).is_ok() {
            Placed::Linked
        } else if reflink_copy::reflink(&from, &temporary).is_ok() {
            Placed::Reflinked
        } else {
            self.copy_out(digest, &temporary)?;
            Placed::Copied
        };
        if how != Placed::Linked {
            let mode = fs::Permissions::from_mode(0o444);
            fs::set_permissions(&temporary, mode).map_err(io_error("protect", &temporary))?;
        }
        fs::rename(&temporary, to).map_err(io_error("put in place", to))?;
        // Renaming a link onto another link of the same inode does nothing and leaves the first name.
        drop(fs::remove_file(&temporary));
        Ok(how)
    }

    fn copy_out(&self, digest: &Digest, to: &Path) -> Result<(), StoreError> {
        let from = self.blob_path(digest);
        let mut source = File::open(&from).map_err(io_error("open", &from))?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(io_error("create", to))?;
        let write = |chunks: Chunks| {
            chunks.each(|bytes| file.write_all(bytes))?;
            file.sync_all()?;
            Ok(None)
        };
        let copied = pipe::fan_out(&mut source, vec![Box::new(write), pipe::hashing()]);
        let (results, _) = copied.map_err(io_error("write", to)).inspect_err(|_| drop(fs::remove_file(to)))?;
        if results.into_iter().flatten().next() != Some(*digest) {
            drop(fs::remove_file(to));
            return Err(StoreError::Spoiled { digest: *digest, moved: self.set_aside(digest)? });
        }
        Ok(())
    }
}
