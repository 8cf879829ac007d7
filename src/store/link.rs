//! Link: takes a file that another program keeps, e.g. of the Hub's cache, without a second copy on the disk.
//!
//! Layer 3 (effects). A reflink shares the bytes and nothing else. Where the file system has none, a large file
//! is hard-linked if it is the user's own: then it is one file with two names, mode 0444 under both. Whoever
//! changes it under its other name changes its times as well, so its trust record no longer holds and the
//! store hashes it again and moves it aside. Small files, which the store believes without a record, are copied.
//! Must never link a file that others may write.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::scratch::Scratch;
use super::take::copy_hashed;
use super::trust::hash_open;
use super::{Store, StoreError, TRUST_FROM, io_error};
use crate::digest::Digest;
use crate::progress::Task;

impl Store {
    /// Takes a file whose digest and size are known; its bytes are read once.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] and [`StoreError::Length`] where it is another file, [`StoreError::Moving`] where
    /// it changes meanwhile. The file itself is left as it was.
    pub fn adopt_file(&self, path: &Path, expected: &Digest, size: u64, task: &Task) -> Result<(), StoreError> {
        if self.contains(expected, size)? {
            return Ok(());
        }
        // Without waiting for the other end of a pipe.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(io_error("open", path))?;
        let meta = file.metadata().map_err(io_error("read", path))?;
        if !meta.is_file() || meta.len() != size {
            return Err(StoreError::Length { expected: size, found: meta.len() });
        }
        let scratch = self.scratch()?;
        if rustix::fs::ioctl_ficlone(scratch.file(), &file).is_ok() {
            let (found, length) = hash_open(scratch.file(), scratch.path(), task)?;
            return self.put_if(scratch, expected, size, found, length);
        }
        if size >= TRUST_FROM && is_own(&meta) && self.link_own(path, &file, &meta, expected, task)? {
            return Ok(());
        }
        let (found, length) = copy_hashed(&mut std::io::Read::take(&file, size + 1), &scratch, task)?;
        self.put_if(scratch, expected, size, found, length)
    }

    fn put_if(&self, scratch: Scratch, expected: &Digest, size: u64, found: Digest, length: u64) -> Result<(), StoreError> {
        if length != size {
            return Err(StoreError::Length { expected: size, found: length });
        }
        if found != *expected {
            return Err(StoreError::Mismatch { expected: *expected, found });
        }
        self.put_scratch(scratch, expected, size)
    }

    /// Links the very file that is open and was looked at; false where that does not work.
    fn link_own(&self, path: &Path, file: &File, before: &Metadata, expected: &Digest, task: &Task) -> Result<bool, StoreError> {
        let waiting = Scratch::folder_in(&self.blobs())?;
        let name = waiting.path().join("0");
        if fs::hard_link(path, &name).is_err() {
            return Ok(false);
        }
        let linked = fs::symlink_metadata(&name).map_err(io_error("read", &name))?;
        if (linked.dev(), linked.ino()) != (before.dev(), before.ino()) {
            return Err(StoreError::Moving { path: path.to_owned() });
        }
        let (found, _) = hash_open(file, path, task)?;
        if found != *expected {
            return Err(StoreError::Mismatch { expected: *expected, found });
        }
        file.set_permissions(Permissions::from_mode(0o444)).map_err(io_error("protect", path))?;
        file.sync_all().map_err(io_error("write", path))?;
        let place = self.blob_path(expected);
        fs::rename(&name, &place).map_err(io_error("put in place", &place))?;
        self.sync_folder()?;
        let after = file.metadata().map_err(io_error("read", path))?;
        // Linking, protecting and renaming move the ctime; writing moves the mtime as well.
        if content_stamp(&after) != content_stamp(before) {
            self.set_aside(expected)?;
            return Err(StoreError::Moving { path: path.to_owned() });
        }
        self.trust(expected, &after)?;
        Ok(true)
    }
}

/// Whether nobody but this user may write it.
fn is_own(meta: &Metadata) -> bool {
    meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o022 == 0
}

fn content_stamp(meta: &Metadata) -> (u64, u64, u64, i64, i64) {
    (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec())
}
