//! Keeping the store: reading all of it, and letting go of what nobody names.
//!
//! Layer 3 (effects). Removing is done alone: others wait. Must never remove what a caller says is in use, nor
//! a temporary or part file that somebody holds.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{FileType, Stat};

use super::{Store, StoreError, io_error, scratch};
use crate::digest::Digest;
use crate::folders::{Walk, remove_tree};
use crate::par;
use crate::progress::Progress;

/// What `store verify` found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Blobs that were read.
    pub blobs: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Blobs that no longer had their digest and were moved aside.
    pub spoiled: Vec<Digest>,
}

/// What `store gc` removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files removed.
    pub files: u64,
    /// Bytes they held.
    pub bytes: u64,
}

/// A store that nobody else has open. Ends when dropped.
#[derive(Debug)]
pub struct Alone<'a>(&'a Store);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        drop(self.0.lock.lock_shared());
    }
}

impl Store {
    /// Waits until no other process has the store open, and keeps others waiting.
    pub fn alone(&self) -> Result<Alone<'_>, StoreError> {
        // Turning a shared lock into the other kind lets go of it first, so two that do so do not wait for ever.
        self.lock.lock().map_err(io_error("lock", &self.root))?;
        Ok(Alone(self))
    }

    /// Every blob that is there, sorted, with its size.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>, StoreError> {
        let folder = self.blobs();
        let mut blobs = Vec::new();
        for entry in fs::read_dir(&folder).map_err(io_error("read", &folder))? {
            let entry = entry.map_err(io_error("read", &folder))?;
            let Some(digest) = entry.file_name().to_str().and_then(|name| Digest::from_hex(name).ok()) else { continue };
            // Another process may remove it between listing and asking.
            if let Ok(meta) = entry.metadata() {
                blobs.push((digest, meta.len()));
            }
        }
        blobs.sort();
        Ok(blobs)
    }

    /// Reads every byte of every blob; spoiled ones are moved aside.
    pub fn verify(&self, jobs: usize, progress: &Progress) -> Result<Verified, StoreError> {
        let blobs = self.list()?;
        let bytes = blobs.iter().map(|blob| blob.1).sum();
        let task = progress.task("store", bytes);
        let good = par::map_ordered(&blobs, jobs, |(digest, _)| match self.rehash(digest, &task) {
            Ok(()) => Ok(true),
            Err(StoreError::Spoiled { .. }) => Ok(false),
            Err(error) => Err(error),
        })?;
        let spoiled = blobs.iter().zip(good).filter(|(_, good)| !good).map(|(blob, _)| blob.0).collect();
        Ok(Verified { blobs: blobs.len() as u64, bytes, spoiled })
    }
}

impl Alone<'_> {
    /// Removes every blob and every unpacked layer that is not in `keep`, spoiled bytes that were set aside, and what dead processes
    /// left behind.
    pub fn gc(&self, keep: &BTreeSet<Digest>) -> Result<Collected, StoreError> {
        let store = self.0;
        let mut collected = Collected::default();
        let mut remove = |path: &Path, size: u64| -> Result<(), StoreError> {
            match fs::remove_file(path) {
                Ok(()) => {
                    collected.files += 1;
                    collected.bytes += size;
                    Ok(())
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(io_error("remove", path)(error)),
            }
        };
        for (digest, size) in store.list()? {
            if !keep.contains(&digest) {
                remove(&store.blob_path(&digest), size)?;
                drop(fs::remove_file(store.trust_path(&digest)));
            }
        }
        let mut dead = Vec::new();
        let mut folders = vec![store.blobs(), store.memory.join("trust"), store.root.join("refused")];
        if let Ok(kinds) = fs::read_dir(store.memory.join("cache")) {
            folders.extend(kinds.flatten().map(|kind| kind.path()));
        }
        for folder in folders {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                // Held until the name is gone, so that no writer takes up what is being removed.
                let lock = if name.starts_with(scratch::PREFIX) || name.starts_with(".part-") {
                    let Some(lock) = scratch::lock_of_dead(&entry.path()) else { continue };
                    Some(lock)
                } else if folder.ends_with("refused") {
                    None
                } else {
                    continue;
                };
                // A folder of small files that waited for their names, or of a replay that was killed.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    dead.push((entry.path(), lock));
                    continue;
                }
                remove(&entry.path(), entry.metadata().map_or(0, |meta| meta.len()))?;
                drop(lock);
            }
        }
        for (folder, lock) in dead {
            remove_counted(&folder, &mut collected)?;
            drop(lock);
        }
        for (diff_id, place) in store.all_unpacked() {
            if !keep.contains(&diff_id.0)
                && let Some(place) = store.unname(&place)?
            {
                remove_counted(&place, &mut collected)?;
            }
        }
        for entry in fs::read_dir(store.unpacked_folder()).into_iter().flatten().flatten() {
            let is_scratch = entry.file_name().to_string_lossy().starts_with(scratch::PREFIX);
            if let Some(_lock) = is_scratch.then(|| scratch::lock_of_dead(&entry.path())).flatten() {
                remove_counted(&entry.path(), &mut collected)?;
            }
        }
        Ok(collected)
    }
}

/// Removes a folder, and counts what was in it.
fn remove_counted(path: &Path, collected: &mut Collected) -> Result<(), StoreError> {
    let mut walk = match Walk::begin(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        begun => begun.ok(),
    };
    let mut count = |_: BorrowedFd<'_>, _: &CStr, stat: &Stat| {
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            collected.files += 1;
            collected.bytes += u64::try_from(stat.st_size).unwrap_or(0);
        }
    };
    while walk.as_mut().is_some_and(|walk| walk.look(u64::MAX, &mut count)) {}
    remove_tree(path).map_err(io_error("remove", path))
}
