//! Unpacked layers: folders under `<memory>/unpacked/<hex>`, named by the diff_id of the tar they came from.
//!
//! Layer 3 (effects). They lie in the user's own memory and not in the store, since a folder that is there is
//! believed: whoever fills it has hashed the whole tar. Must never give a folder its name before it is complete
//! and on disk.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Scratch, Store, StoreError, io_error, scratch};
use crate::digest::DiffId;
use crate::folders::remove_tree;

/// Held by whoever unpacks, so that two processes do not do the same work. Let go of when dropped.
#[derive(Debug)]
pub struct Unpacking<'a> {
    store: &'a Store,
    _lock: File,
}

impl Store {
    /// Where a layer lies unpacked, if it does.
    pub fn unpacked(&self, diff_id: &DiffId) -> Option<PathBuf> {
        Some(self.unpacked_place(diff_id)).filter(|place| place.is_dir())
    }

    /// Waits until nobody else unpacks into this store's memory.
    pub fn unpacking(&self) -> Result<Unpacking<'_>, StoreError> {
        let folder = self.unpacked_folder();
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io_error("create", &folder))?;
        let path = folder.join(".lock");
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.map_err(io_error("open", &path))?;
        lock.lock().map_err(io_error("lock", &path))?;
        Ok(Unpacking { store: self, _lock: lock })
    }

    /// Every layer that lies unpacked.
    pub(super) fn all_unpacked(&self) -> Vec<(DiffId, PathBuf)> {
        let entries = fs::read_dir(self.unpacked_folder()).into_iter().flatten().flatten();
        let named = |name: &std::ffi::OsStr| name.to_str().and_then(|name| crate::digest::Digest::from_hex(name).ok());
        entries.filter_map(|entry| Some((DiffId(named(&entry.file_name())?), entry.path()))).collect()
    }

    pub(super) fn unpacked_folder(&self) -> PathBuf {
        self.memory.join("unpacked")
    }

    fn unpacked_place(&self, diff_id: &DiffId) -> PathBuf {
        self.unpacked_folder().join(diff_id.0.hex())
    }

    /// Takes a folder's name from it, which says that it is whole, before it is removed: where it lies then. Whoever is
    /// killed on the way leaves what the next `gc` takes for garbage. None: it is not there.
    pub(super) fn unname(&self, place: &Path) -> Result<Option<PathBuf>, StoreError> {
        let aside = scratch::fresh_name(&self.unpacked_folder());
        match fs::rename(place, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("remove", place)(error)),
        }
    }
}

impl Unpacking<'_> {
    /// An empty folder to unpack into.
    pub fn scratch(&self) -> Result<Scratch, StoreError> {
        let scratch = Scratch::folder_in(&self.store.unpacked_folder())?;
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(scratch.path(), open).map_err(io_error("open up", scratch.path()))?;
        Ok(scratch)
    }

    /// Gives a complete folder its name, once it is on disk.
    pub fn put(&self, scratch: Scratch, diff_id: &DiffId) -> Result<PathBuf, StoreError> {
        rustix::fs::syncfs(scratch.file()).map_err(|error| io_error("write", scratch.path())(error.into()))?;
        let place = self.store.unpacked_place(diff_id);
        scratch.rename(&place)?;
        Ok(place)
    }

    /// Removes a folder that is not what its name says.
    pub fn remove(&self, diff_id: &DiffId) -> Result<(), StoreError> {
        match self.store.unname(&self.store.unpacked_place(diff_id))? {
            Some(place) => remove_tree(&place).map_err(io_error("remove", &place)),
            None => Ok(()),
        }
    }
}
