//! Layout: an OCI layout folder, written so that it holds the old images or the new ones.
//!
//! Layer 3 (effects). Blobs are put in place whole, `index.json` is replaced last, and only then what nothing
//! names any more goes. Must never write into or remove from a folder that it did not make itself.

#![allow(clippy::disallowed_methods, reason = "effects: owns the disk")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Image, ImageError, LAYOUT, Written, index};
use crate::digest::Digest;
use crate::layer::Layers;
use crate::plan::Plan;
use crate::store::{Store, io_error};

/// A file of ours in a layout: by it we know a folder that we made. OCI readers pass it over.
const MARKER: &str = ".pack-layout";

/// An OCI layout folder that is being written; locked against other `pack` processes.
pub struct Layout {
    root: PathBuf,
    _lock: File,
}

impl Layout {
    /// Opens a place for a layout: a new or empty folder, or a layout that `pack` made and may replace.
    ///
    /// `oci-layout` is written at once, so that whoever looks for layouts (`[code]` does) finds one that is
    /// not finished too.
    pub fn open(root: &Path, store: &Store) -> Result<Self, ImageError> {
        let occupied = || ImageError::Occupied { path: root.to_owned() };
        let empty = match fs::read_dir(root) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(_) => return Err(occupied()),
        };
        if !empty && !is_file(&root.join(MARKER)) {
            return Err(occupied());
        }
        fs::create_dir_all(root).map_err(io_error("create", root))?;
        let real = fs::canonicalize(root).map_err(io_error("read", root))?;
        if fs::canonicalize(store.root()).is_ok_and(|store| real.starts_with(&store) || store.starts_with(&real)) {
            return Err(occupied());
        }
        // The marker comes first: a build that is killed after this, or runs beside us, finds its own folder.
        let marker = real.join(MARKER);
        match File::create_new(&marker) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("create", &marker)(error).into()),
        }
        // A handed-in folder may hold links in place of ours; through them we would write, and remove, elsewhere.
        for folder in [real.join("blobs"), real.join("blobs/sha256")] {
            match fs::symlink_metadata(&folder) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => return Err(occupied()),
                Err(_) => match fs::create_dir(&folder) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(io_error("create", &folder)(error).into());
                    }
                    _ => {}
                },
            }
        }
        let lock = File::open(&real).map_err(io_error("open", &real))?;
        lock.lock().map_err(io_error("lock", &real))?;
        let layout = Layout { root: real, _lock: lock };
        layout.put(&layout.root.join("oci-layout"), LAYOUT)?;
        Ok(layout)
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Makes an image's layers and puts their blobs in place.
    pub fn image(&self, plan: &Plan, layers: &Layers<'_>, written: &mut Written) -> Result<Image, ImageError> {
        let mut made = Vec::with_capacity(plan.layers.len());
        for layer_plan in &plan.layers {
            if let Some(layer) = layers.remembered(layer_plan)?
                && layers.store.remembers_file(&self.blob(&layer.digest), &layer.digest)
            {
                written.present += 1;
                made.push(layer);
                continue;
            }
            let (layer, temporary) = layers.make(layer_plan, Some(&self.blobs()))?;
            let place = self.blob(&layer.digest);
            match temporary {
                Some(temporary) => {
                    let finish = || {
                        let file = File::open(&temporary)?;
                        file.set_permissions(fs::Permissions::from_mode(0o444))?;
                        file.sync_data()?;
                        fs::rename(&temporary, &place)
                    };
                    finish().map_err(io_error("put in place", &place))?;
                    written.copied += 1;
                    written.bytes += layer.size;
                }
                None => {
                    written.count(layers.store.place(&layer.digest, layer.size, &place)?, layer.size);
                }
            }
            layers.store.remember_file(&place, &layer.digest)?;
            made.push(layer);
        }
        let image = Image::new(plan, made)?;
        image.check_collisions(layers.store)?;
        Ok(image)
    }

    /// Writes the documents, `index.json` last, and removes blobs that nothing names any more.
    pub fn finish(self, images: &[Image]) -> Result<(), ImageError> {
        let mut named: BTreeSet<String> = BTreeSet::new();
        for image in images {
            named.extend(image.layers.iter().map(|layer| layer.digest.hex()));
            for bytes in [&image.config, &image.manifest] {
                let digest = Digest::of(bytes);
                named.insert(digest.hex());
                self.put(&self.blob(&digest), bytes)?;
            }
        }
        self.put(&self.root.join("index.json"), &index(images)?)?;
        // The layout is locked, so a temporary file belongs to nobody but a build that was killed.
        for entry in fs::read_dir(&self.root).map_err(io_error("read", &self.root))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(".tmp-") {
                drop(fs::remove_file(entry.path()));
            }
        }
        let blobs = self.blobs();
        for entry in fs::read_dir(&blobs).map_err(io_error("read", &blobs))?.flatten() {
            if !named.contains(entry.file_name().to_string_lossy().as_ref()) {
                drop(fs::remove_file(entry.path()));
            }
        }
        Ok(())
    }

    fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
        if fs::read(path).is_ok_and(|there| there == bytes) {
            return Ok(());
        }
        // The folder is locked and ours, so what lies at this name is left of a build that was killed.
        let temporary = self.root.join(".tmp-document");
        drop(fs::remove_file(&temporary));
        let write = || {
            let mut file = File::create_new(&temporary)?;
            file.write_all(bytes)?;
            file.set_permissions(fs::Permissions::from_mode(0o444))?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        write().map_err(io_error("write", path))?;
        Ok(())
    }
}

fn is_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
}
