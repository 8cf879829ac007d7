//! Trust: blobs that were hashed once and have not been touched since, and what becomes of those that were.
//!
//! Layer 3 (effects). A record holds device, inode, size and times of a blob when it was last hashed. Must never believe
//! a record of a file that is not exactly so.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Store, StoreError, TRUST_FROM, io_error};
use crate::digest::{Digest, Hasher};
use crate::pipe;
use crate::progress::Task;

impl Store {
    /// Where a blob lies that was moved aside because it no longer had its digest.
    pub fn set_aside_as(&self, digest: &Digest) -> Option<PathBuf> {
        Some(self.root.join("refused").join(digest.hex())).filter(|path| path.exists())
    }

    /// Says that a blob no longer has its digest, and moves it aside.
    pub fn spoiled(&self, digest: &Digest) -> Result<StoreError, StoreError> {
        Ok(StoreError::Spoiled { digest: *digest, moved: self.set_aside(digest)? })
    }

    /// Whether a file of ours elsewhere, e.g. in a layout, is untouched since it had this digest.
    pub fn remembers_file(&self, path: &Path, digest: &Digest) -> bool {
        fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && self.remembered_original(path, &meta) == Some(*digest))
    }

    /// Remembers that a file that only `pack` writes has this digest now.
    pub fn remember_file(&self, path: &Path, digest: &Digest) -> Result<(), StoreError> {
        let meta = fs::symlink_metadata(path).map_err(io_error("read", path))?;
        self.record_original(path, &meta, digest)
    }

    pub(super) fn trust_path(&self, digest: &Digest) -> PathBuf {
        self.memory.join("trust").join(digest.hex())
    }

    pub(super) fn trust(&self, digest: &Digest, meta: &fs::Metadata) -> Result<(), StoreError> {
        let path = self.trust_path(digest);
        self.write_small(&path, &trust_text(meta))
    }

    pub(super) fn trusted(&self, digest: &Digest, meta: &fs::Metadata) -> bool {
        // An unreadable record is no record: the blob is hashed again.
        fs::read_to_string(self.trust_path(digest)).is_ok_and(|text| text == trust_text(meta))
    }

    /// Reads every byte of a blob and renews its trust record, or moves it aside.
    pub(super) fn rehash(&self, digest: &Digest, task: &Task) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        self.rehash_open(&File::open(&path).map_err(io_error("open", &path))?, digest, task)
    }

    /// As [`Store::rehash`], of a file that is open; it stands at its first byte afterwards.
    pub(super) fn rehash_open(&self, file: &File, digest: &Digest, task: &Task) -> Result<(), StoreError> {
        let path = self.blob_path(digest);
        let before = file.metadata().map_err(io_error("read", &path))?;
        if hash_open(file, &path, task)?.0 != *digest {
            return Err(StoreError::Spoiled { digest: *digest, moved: self.set_aside(digest)? });
        }
        // A record of the time before reading: what changed meanwhile does not fit it.
        if before.len() >= TRUST_FROM && !self.trusted(digest, &before) {
            self.trust(digest, &before)?;
        }
        Ok(())
    }

    /// Moves a spoiled blob out of the way, so that fetching brings it again and nothing is lost.
    pub(super) fn set_aside(&self, digest: &Digest) -> Result<PathBuf, StoreError> {
        let folder = self.root.join("refused");
        fs::create_dir_all(&folder).map_err(io_error("create", &folder))?;
        let to = folder.join(digest.hex());
        match fs::rename(self.blob_path(digest), &to) {
            Ok(()) => Ok(to),
            // Another process was first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(to),
            Err(error) => Err(io_error("move aside", &to)(error)),
        }
    }
}

/// Hashes an open file from its first byte, to which it returns.
pub(super) fn hash_open(mut file: &File, path: &Path, task: &Task) -> Result<(Digest, u64), StoreError> {
    let mut hash = || {
        let (mut hasher, mut size) = (Hasher::new(), 0);
        let mut buffer = vec![0; pipe::CHUNK];
        file.seek(SeekFrom::Start(0))?;
        loop {
            let n = match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&buffer[..n]);
            size += n as u64;
            task.add(n as u64);
        }
        file.seek(SeekFrom::Start(0))?;
        Ok((hasher.finish(), size))
    };
    hash().map_err(io_error("read", path))
}

pub(super) fn trust_text(meta: &fs::Metadata) -> String {
    let (mtime, ctime) = ((meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()));
    let (device, inode, size) = (meta.dev(), meta.ino(), meta.len());
    format!("device {device} inode {inode} size {size} mtime {}.{:09} ctime {}.{:09}\n", mtime.0, mtime.1, ctime.0, ctime.1)
}

/// What must not change while a file of the user's is read.
pub(super) fn stamp(meta: &fs::Metadata) -> (u64, u64, u64, i64, i64, i64, i64) {
    (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec())
}
